"""What length and words explain is taken out, what they do not is kept, and no pair explains itself."""

import numpy as np
import pytest

from prefdyn.diagnostics.controlled import controlled, controlled_chosen
from prefdyn.planning.audit import audit
from prefdyn.synthetic import gaussian_groups
from scripts.answers_by_lot import replies


def rank_correlation(first, second):
    """Spearman's, ties in order of appearance."""
    return np.corrcoef(np.argsort(np.argsort(first)), np.argsort(np.argsort(second)))[0, 1]


@pytest.fixture(scope="module")
def pairs():
    """Replies of random lengths, the gap in words, and a number that is half of it and half of something else."""
    feats, data = replies(240, seed=1)
    gap = feats.chosen_length.astype(float) - feats.rejected_length
    own = 2 * np.random.default_rng(5).normal(size=240)
    return data, feats, gap, own


def test_length_goes_and_the_rest_stays(pairs):
    data, feats, gap, own = pairs
    number = gap + own
    left = controlled(data, feats, {"push": number}, unit=np.arange(240))["push"]
    assert abs(rank_correlation(number, gap)) > 0.5
    assert abs(rank_correlation(left, gap)) < 0.15
    assert np.corrcoef(left, own)[0, 1] > 0.9


def test_a_number_of_the_chosen_side_is_rid_of_the_length_of_that_side(pairs):
    data, feats, _, own = pairs
    length = feats.chosen_length.astype(float)
    left = controlled_chosen(data, feats, {"push": 3 - length + own}, unit=np.arange(240))["push"]
    assert abs(rank_correlation(left, length)) < 0.15
    assert np.corrcoef(left, own)[0, 1] > 0.9


def test_turning_a_label_round_turns_the_number_that_is_left(pairs):
    data, feats, gap, own = pairs
    one = np.arange(240) == 9
    sign = np.where(one, -1.0, 1.0)
    before = controlled(data, feats, {"push": gap + own}, unit=np.arange(240))["push"]
    turned = controlled(
        data.flipped(rows=one), feats.flipped(one), {"push": sign * (gap + own)}, unit=np.arange(240)
    )["push"]  # fmt: skip
    np.testing.assert_allclose(turned, sign * before, atol=1e-8)


def test_what_a_pair_adds_to_itself_is_not_explained_by_the_pair(pairs):
    """The rest of a pair grows one to one with its own number, whatever the fit: it had no say in it."""
    data, feats, gap, _ = pairs
    more = gap + 5.0 * (np.arange(240) == 17)
    left, other = (controlled(data, feats, {"push": each}, unit=np.arange(240))["push"] for each in (gap, more))
    assert other[17] - left[17] == pytest.approx(5.0)


def test_units_are_left_out_together(pairs):
    data, feats, gap, _ = pairs
    unit = np.arange(240) // 2
    more = gap + 5.0 * (np.arange(240) == 17)
    left, other = (controlled(data, feats, {"push": each}, unit=unit)["push"] for each in (gap, more))
    assert other[16] == pytest.approx(left[16])  # of the same unit, which the fit did not see


def test_unknown_numbers_stay_unknown_and_few_are_not_fitted(pairs):
    data, feats, gap, _ = pairs
    some = np.where(np.arange(240) < 100, gap, np.nan)
    few = np.where(np.arange(240) < 30, gap, np.nan)
    found = controlled(data, feats, {"some": some, "few": few}, unit=np.arange(240))
    assert np.isnan(found["some"][100:]).all()
    assert np.isfinite(found["some"][:100]).all()
    assert np.isnan(found["few"]).all()


def test_an_audit_has_them_beside_the_raw_ones():
    feats, data = replies(120, apart=1.0, seed=2)
    table = audit(feats, texts=data, steps=5, progress=False).pairs()
    for name in ("agreement", "chosen_push", "value_own", "value_all"):
        assert table[f"{name}_controlled"].null_count == table[name].null_count
    assert table["agreement_controlled"].to_pylist() != table["agreement"].to_pylist()


def test_without_texts_and_replies_nothing_is_taken_out():
    feats = gaussian_groups(30, groups=2, width=6)
    assert np.isnan(controlled(None, feats, {"push": np.ones(60)}, unit=np.arange(60))["push"]).all()
