"""Labels to check: exact leave-one-unit-out, wrong labels found, and no list where labels mean nothing."""

import numpy as np
import pytest

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.labels import WORTH, average_precision, check_labels, left_out
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.synthetic import gaussian_groups


def test_leaving_a_unit_out_is_fitting_without_it():
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(30, 6)), rng.normal(size=(30, 3))
    unit = np.sort(rng.integers(0, 12, 30))
    unit = np.unique(unit, return_inverse=True)[1]
    kernel = rows @ rows.T
    found = left_out(kernel, targets, unit)
    for code in np.unique(unit):
        out = unit == code
        weights = np.linalg.solve(kernel[np.ix_(~out, ~out)] + 7.5 * np.eye((~out).sum()), targets[~out])
        np.testing.assert_allclose(found[out], kernel[np.ix_(out, ~out)] @ weights, atol=1e-10)


def test_average_precision_is_one_for_a_perfect_order_and_the_share_for_none():
    wanted = np.arange(1000) < 100
    assert average_precision(np.where(wanted, -1.0, 1.0), wanted) == 1
    by_lot = np.random.default_rng(0).normal(size=1000)
    assert average_precision(by_lot, wanted) == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_come_first_where_states_tell(seed):
    feats = gaussian_groups(100, groups=3, width=12, half_gap=3.0, seed=seed)
    wrong = np.zeros(300, dtype=bool)
    wrong[np.random.default_rng(seed).choice(300, 10, replace=False)] = True
    found = check_labels(None, feats.flipped(wrong))
    assert found is not None
    assert found.reader == "states"
    assert 0.6 < found.best.found < 0.9  # the ten that are wrong already count against it
    clean = check_labels(None, feats)
    assert clean is not None
    assert clean.best.found > 0.95
    assert len(clean.listed()) <= 1  # all others have a label that the reader would give them, too
    assert wrong[found.listed()].mean() >= 0.9
    assert average_precision(found.score, wrong) > 0.9


def test_turning_a_label_round_turns_its_score():
    """What a reader says of a pair comes from the others alone, so its own label changes the sign and nothing else."""
    feats = gaussian_groups(40, groups=2, width=6, half_gap=1.0)
    one = np.arange(80) == 17
    before, after = check_labels(None, feats), check_labels(None, feats.flipped(one))
    assert before is not None
    assert after is not None
    assert np.sign(before.score[17]) == -np.sign(after.score[17])


@pytest.mark.parametrize("copies", [1, 5])
def test_no_list_where_labels_mean_nothing(copies):
    """Copies of a prompt share its label: a reader that saw one would know all of them."""
    worth = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n = 150 // copies
        states = np.repeat(rng.normal(size=(n, 16)), copies, axis=0) + 0.01 * rng.normal(size=(n * copies, 16))
        label = np.repeat(rng.integers(0, 2, n), copies)
        feats = FeatureSet.from_arrays(states, chosen=label, rejected=1 - label)
        found = check_labels(None, feats, unit=np.repeat(np.arange(n), copies), seed=seed)
        assert found is not None
        assert found.best.average_precision < WORTH
        worth += len(found.listed())
    assert worth == 0


def test_each_reader_sees_what_only_it_can_see():
    """Lengths, words and states give the label away in turn; the others find as many planted labels as by chance."""
    rng, n = np.random.default_rng(0), 120
    for given in ("length", "words", "states"):
        first = rng.normal(size=(n, 8)) + (3 if given == "states" else 0) * np.eye(8)[0]
        feats = FeatureSet.from_arrays(chosen_features=first, rejected_features=rng.normal(size=(n, 8)))
        words = rng.choice(["sun", "rain", "wind", "snow"], size=(n, 2, 6))
        texts = [[" ".join(side) for side in pair] for pair in words]
        if given == "words":
            texts = [[f"{won} please", lost + " never"] for won, lost in texts]
        if given == "length":
            texts = [[f"{won} {won} {won}", lost] for won, lost in texts]
        rows = [
            {"id": name, "prompt": f"number {place}", "chosen": won, "rejected": lost}
            for place, (name, (won, lost)) in enumerate(zip(feats.id.tolist(), texts, strict=True))
        ]
        found = check_labels(PreferenceDataset.from_rows(rows), feats)
        assert found is not None
        tried = {each.name: each.found for each in found.tried}
        assert tried[given] > 0.8, (given, tried)
        if given == "states":
            assert max(tried["length"], tried["words"]) < 0.3


def test_many_pairs_are_read_in_parts_and_whole_units_in_each():
    feats = gaussian_groups(1800, groups=1, width=6, half_gap=3.0)
    wrong = np.arange(1800) % 180 == 0
    found = check_labels(None, feats.flipped(wrong), draws=2)
    assert found is not None
    assert average_precision(found.score, wrong) > 0.6


def test_too_few_pairs_and_other_pairs():
    feats = gaussian_groups(10, groups=3, width=6)
    assert check_labels(None, feats) is None
    with pytest.raises(ConfigError, match="draws"):
        check_labels(None, feats, draws=0)
    other = PreferenceDataset.from_rows([{"prompt": "a", "chosen": "x", "rejected": "y"}] * 1)
    with pytest.raises(DataError, match="give features of the same pairs"):
        check_labels(other, feats)


def test_the_same_seed_gives_the_same_list():
    feats = gaussian_groups(60, groups=2, width=6, half_gap=1.0)
    one, other = check_labels(None, feats, seed=3), check_labels(None, feats, seed=3)
    assert one is not None
    assert other is not None
    assert one.to_json() == other.to_json()
    assert (one.score == other.score).all()
