"""The held-out probe against an explicit hat matrix, and against leaks."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from prefdyn.diagnostics.inference import area_interval
from prefdyn.diagnostics.probe import (
    PENALTIES,
    SHARED,
    assign_folds,
    behind,
    held_out_share,
    probe_classes,
    probe_pairs,
    share_test,
)
from prefdyn.diagnostics.units import relabelled
from prefdyn.maths.kernel import PairKernel
from prefdyn.maths.units import in_order
from tests.naive import diagnostics as naive

quick = settings(max_examples=20, deadline=None)


def rng(seed=0):
    return np.random.default_rng(seed)


def coins(n, d, *, unequal=0.4):
    """States of n pairs with columns of very different size, and labels with a little to find."""
    x = rng(1).normal(size=(n, d)) * rng(2).uniform(0.1, 5, d) + 3
    positive = rng(3).random(n) < unequal
    x[positive, 0] += 1.0
    return x, positive, np.where(positive, 1.0, -1.0)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (20, 35)])
def test_probe_of_two_classes_equals_the_explicit_twin(n, d):
    x, positive, signs = coins(n, d)
    text = np.arange(n) // 2
    fold = assign_folds(text, positive, 4, rng(9))
    accuracy, auc = naive.probe(x, signs, fold, PENALTIES, intercept=True)
    found = probe_classes(x, positive, text, folds=4, rng=rng(9))
    assert found.accuracy == pytest.approx(accuracy)
    assert found.auc == pytest.approx(auc)
    assert found.chance == 0.5
    assert found.interval[0] < found.accuracy < found.interval[1]
    scores, threshold = naive.held_out(x, signs, fold, PENALTIES, intercept=True)
    np.testing.assert_array_equal(found.right, (scores - threshold) * signs > 0)
    assert found.auc_error == pytest.approx(naive.area_error(scores, signs, fold, False, text.tolist(), SHARED))
    assert found.auc_interval == area_interval(
        found.auc, (len(np.unique(text[positive])), len(np.unique(text[~positive]))), found.auc_error
    )


@pytest.mark.parametrize(("n", "d"), [(40, 3), (16, 30)])
def test_probe_of_pairs_equals_the_explicit_twin(n, d):
    x = rng(1).normal(size=(n, d)) + 0.3
    text = np.arange(n) // 2
    fold = assign_folds(text, np.ones(n, dtype=bool), 5, rng(9))
    accuracy, auc = naive.probe(x, np.ones(n), fold, PENALTIES, intercept=False)
    found = probe_pairs(PairKernel(answers=np.ones((n, 1)), features=x), text, folds=5, rng=rng(9))
    assert (found.accuracy, found.auc) == pytest.approx((accuracy, auc))
    assert found.chance == 0.5
    scores, _ = naive.held_out(x, np.ones(n), fold, PENALTIES, intercept=False)
    np.testing.assert_array_equal(found.right, scores > 0)
    assert found.auc_error == pytest.approx(naive.area_error(scores, np.ones(n), fold, True, text.tolist(), SHARED))
    assert found.auc_interval == area_interval(found.auc, (n // 2, n // 2), found.auc_error)


def test_the_null_of_two_classes_equals_every_drawn_labelling_fitted_by_itself():
    """Whole units trade labels within folds, and each labelling has its own fits, penalties and area."""
    x, _, _ = coins(36, 4)
    text = np.arange(36) // 2
    positive = (rng(3).random(18) < 0.5)[text]
    found = probe_classes(x, positive, text, folds=3, rng=rng(9))
    drawing = rng(9)
    fold = assign_folds(text, positive, 3, drawing)
    drawn = np.tile(positive, (199, 1))
    for held in range(3):
        inside = np.flatnonzero(fold == held)
        drawn[:, inside] = relabelled(positive[inside], text[inside], 199, drawing)
    areas = naive.drawn_areas(x, 2.0 * drawn - 1.0, fold, PENALTIES, intercept=True)
    assert found.null_error == pytest.approx(np.std(areas, ddof=1))
    assert found.p_value == pytest.approx(norm.sf((found.auc - np.mean(areas)) / np.std(areas, ddof=1)))
    assert (drawn[:, ::2] == drawn[:, 1::2]).all()
    assert len(np.unique(drawn, axis=0)) > 100


def test_the_null_of_pairs_equals_every_drawn_swap_fitted_by_itself():
    """Whole units are turned around."""
    x, text = rng(1).normal(size=(30, 3)) + 0.2, np.arange(30) // 2
    found = probe_pairs(PairKernel(answers=np.ones((30, 1)), features=x), text, folds=3, rng=rng(9))
    drawing = rng(9)
    fold = assign_folds(text, np.ones(30, dtype=bool), 3, drawing)
    signs = (2.0 * drawing.integers(0, 2, size=(15, 199)) - 1.0)[text].T
    areas = naive.drawn_areas(x, signs, fold, PENALTIES, intercept=False)
    assert found.null_error == pytest.approx(np.std(areas, ddof=1))
    assert found.p_value == pytest.approx(norm.sf((found.auc - np.mean(areas)) / np.std(areas, ddof=1)))


def test_several_answers_equal_flat_products():
    """With answers of ±1 every column of the products is scaled as its feature is, so that nothing differs."""
    n, answers, x = 18, 2.0 * rng(4).integers(0, 2, size=(18, 2)) - 1, rng(5).normal(size=(18, 6))
    kernel = PairKernel(answers=answers, features=x)
    flat = (answers[:, :, None] * x[:, None, :]).reshape(n, 12)
    one = PairKernel(answers=np.ones((n, 1)), features=flat)
    first = probe_pairs(kernel, np.arange(n), folds=3, rng=rng(0))
    second = probe_pairs(one, np.arange(n), folds=3, rng=rng(0))
    assert (first.auc, first.accuracy) == (second.auc, second.accuracy)
    assert first.null_error == pytest.approx(second.null_error)


@given(st.integers(0, 1000))
@quick
def test_probe_of_pairs_does_not_see_which_side_is_shown(seed):
    x = rng(seed).normal(size=(24, 5)) + 0.2
    orientation = np.where(rng(seed + 1).random(24) < 0.5, 1.0, -1.0)[:, None]
    swapped = PairKernel(answers=-np.ones((24, 1)), features=-x)
    kernel = PairKernel(answers=np.ones((24, 1)), features=x)
    mixed = PairKernel(answers=orientation, features=orientation * x)
    found = [probe_pairs(k, np.arange(24), folds=4, rng=rng(0)) for k in (kernel, swapped, mixed)]
    assert found[0] == found[1] == found[2]


@given(st.integers(0, 1000))
@quick
def test_flipping_every_label_changes_nothing(seed):
    x, positive = rng(seed).normal(size=(30, 4)), np.arange(30) % 2 == 0
    x[positive] += 0.4
    a = probe_classes(x, positive, np.arange(30), folds=5, rng=rng(1))
    b = probe_classes(x, ~positive, np.arange(30), folds=5, rng=rng(1))
    assert a.accuracy == pytest.approx(b.accuracy)
    assert a.auc == pytest.approx(b.auc)


def test_zero_columns_change_nothing_and_take_the_other_route():
    x, positive = rng(1).normal(size=(40, 6)), np.arange(40) % 3 == 0
    x[positive, 1] += 1
    wide = np.hstack([x, np.zeros((40, 60))])
    assert probe_classes(x, positive, np.arange(40), folds=5, rng=rng(0)) == probe_classes(
        wide, positive, np.arange(40), folds=5, rng=rng(0)
    )


@given(st.integers(0, 1000), st.integers(2, 6))
@quick
def test_folds_keep_texts_together_and_classes_even(seed, folds):
    text = rng(seed).integers(0, 25, 60)
    positive = rng(seed + 1).random(60) < 0.3
    fold = assign_folds(text, positive, folds, rng(seed))
    for value in np.unique(text):
        assert len(np.unique(fold[text == value])) == 1
    alone = assign_folds(np.arange(60), positive, folds, rng(seed))
    for class_ in (positive, ~positive):
        counts = np.bincount(alone[class_], minlength=folds)
        assert counts.max() - counts.min() <= 1


def test_repeated_prompts_do_not_leak():
    """Every text four times, labels by coin per text: a probe that saw the copies would be nearly perfect."""
    x = np.repeat(rng(0).normal(size=(60, 80)), 4, axis=0)
    positive = np.repeat(rng(1).random(60) < 0.5, 4)
    honest = probe_classes(x, positive, np.repeat(np.arange(60), 4), folds=5, rng=rng(2))
    leaking = probe_classes(x, positive, np.arange(240), folds=5, rng=rng(2))
    assert honest.accuracy < 0.65
    assert leaking.accuracy > 0.95


def test_a_real_difference_is_found_and_noise_is_not():
    positive = np.arange(600) % 2 == 0
    noise = rng(0).normal(size=(600, 20))
    real = noise.copy()
    real[positive, 3] += 2.0  # two sds apart: Bayes accuracy Φ(1) = 0.841
    found = probe_classes(real, positive, np.arange(600), folds=5, rng=rng(1))
    assert 0.78 < found.accuracy < 0.87
    assert found.auc > 0.85
    nothing = probe_classes(noise, positive, np.arange(600), folds=5, rng=rng(1))
    assert nothing.interval[0] < 0.5 < nothing.interval[1]
    assert 0.4 < nothing.auc < 0.6


def test_what_cannot_be_probed_is_unknown():
    x = np.ones((6, 2))
    halves = np.arange(6) % 2 == 0
    for positive, text in [
        (np.ones(6, dtype=bool), np.arange(6)),
        (halves, np.zeros(6, dtype=int)),
        (halves[:3], np.arange(3)),
    ]:
        found = probe_classes(x[: len(text)], positive, text, folds=5, rng=rng())
        assert math.isnan(found.accuracy)
        assert math.isnan(found.auc)
    kernel = PairKernel(answers=np.ones((3, 1)), features=x[:3])
    assert math.isnan(probe_pairs(kernel, np.arange(3), folds=2, rng=rng()).accuracy)
    equal = probe_classes(x, halves, np.arange(6), folds=3, rng=rng())  # nothing to see: every score is the mean
    assert equal.accuracy == 0.5
    assert equal.auc == 0.5


def test_the_larger_class_is_not_an_answer():
    """Nine in ten pairs of one class and nothing to see: half of each class is right, not nine in ten of all."""
    found = [
        probe_classes(
            rng(seed).normal(size=(200, 10)), np.arange(200) % 10 == 0, np.arange(200), folds=5, rng=rng(seed)
        )
        for seed in range(12)
    ]
    assert np.mean([probe.accuracy for probe in found]) == pytest.approx(0.5, abs=0.05)
    assert all(probe.interval[0] < 0.5 for probe in found)
    plain = [probe.right.mean() for probe in found]
    assert max(plain) < 0.85  # a reader that always gives the larger class would be right on 0.9


def test_a_held_out_share_weighs_classes_alike_and_units_once():
    """By loops: each class's mean, and the surprise of every unit, over both classes, squared."""
    right = rng(0).integers(0, 2, 60).astype(float)
    positive, unit = np.arange(60) % 3 == 0, np.arange(60) // 4
    share, (low, high) = held_out_share(right, unit, positive)
    means = [np.mean([r for r, p in zip(right, positive, strict=True) if p == side]) for side in (True, False)]
    assert share == pytest.approx(sum(means) / 2)
    gathered = dict.fromkeys(range(15), 0.0)
    for r, p, u in zip(right, positive, unit.tolist(), strict=True):
        gathered[u] += (r - means[0]) / 20 / 2 if p else (r - means[1]) / 40 / 2
    error = SHARED * np.sqrt(15 / 14 * sum(value**2 for value in gathered.values()))
    trials = share * (1 - share) / error**2
    assert trials < 30 / SHARED**2  # the spread decides here, not the number of units
    centre, half = share + 1.96**2 / (2 * trials), 1.96 * np.sqrt(share * (1 - share) / trials + (0.98 / trials) ** 2)
    expected = [(centre - half) / (1 + 1.96**2 / trials), (centre + half) / (1 + 1.96**2 / trials)]
    assert [low, high] == pytest.approx(expected, abs=1e-4)
    copied = held_out_share(np.repeat(right, 3), np.repeat(unit, 3), np.repeat(positive, 3))
    assert (copied[0], *copied[1]) == pytest.approx((share, low, high))  # copies in the same unit add nothing


def test_the_test_of_a_share_and_the_difference_of_two_count_units():
    unit = np.arange(45) // 3
    first, second = (1.0 - rng(seed).integers(0, 2, 45) for seed in (1, 2))
    each = [sum(first[i] for i in range(45) if unit[i] == u) - 3 * first.mean() for u in range(15)]
    error = SHARED * np.sqrt(15 / 14 * sum(value**2 for value in each)) / 45
    trials = min(15 / SHARED**2, first.mean() * (1 - first.mean()) / error**2)
    assert first.mean() > 0.5
    assert share_test(first, unit) == pytest.approx(2 * norm.sf((first.mean() - 0.5) / np.sqrt(0.25 / trials)))
    each = [
        sum((first - second)[i] for i in range(45) if unit[i] == u) - 3 * (first - second).mean() for u in range(15)
    ]
    error = SHARED * np.sqrt(15 / 14 * sum(value**2 for value in each)) / 45
    assert behind(first, second, unit) == pytest.approx((first - second).mean() - t.isf(0.025, 14) * error)
    assert share_test(np.ones(9), np.arange(9)) == pytest.approx(2 * norm.sf(3 / SHARED))
    assert share_test(np.zeros(9), np.arange(9)) == 1.0
    assert share_test(np.full(9, 0.5), np.arange(9)) == 1.0
    assert math.isnan(share_test(np.ones(9), np.zeros(9, dtype=int)))
    assert math.isnan(behind(np.ones(9), np.zeros(9), np.zeros(9, dtype=int)))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 12)), min_size=8, max_size=80))
def test_a_share_is_told_from_one_half_just_where_its_interval_is_above_it(drawn):
    right, unit = np.array([value for value, _ in drawn]), in_order(np.array([code for _, code in drawn]))
    assume(unit.max() > 0)
    share, (low, _) = held_out_share(right, unit)
    assume(abs(low - 0.5) > 1e-9)
    assert (share_test(right, unit) <= 0.05) == (share > 0.5 and low > 0.5)
