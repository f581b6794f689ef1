"""The held-out probe against an explicit hat matrix, and against leaks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.diagnostics.probe import PENALTIES, assign_folds, probe_classes, probe_pairs
from prefdyn.maths.kernel import PairKernel
from tests.naive import diagnostics as naive

quick = settings(max_examples=20, deadline=None)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (20, 35)])
def test_probe_of_two_classes_equals_the_explicit_twin(n, d):
    x = rng(1).normal(size=(n, d)) * rng(2).uniform(0.1, 5, d) + 3
    positive = rng(3).random(n) < 0.4
    x[positive, 0] += 1.0
    text = np.arange(n) // 2
    fold = assign_folds(text, positive, 4, rng(9))
    accuracy, auc = naive.probe(x, np.where(positive, 1.0, -1.0), fold, PENALTIES, intercept=True)
    found = probe_classes(x, positive, text, folds=4, rng=rng(9))
    assert found.accuracy == pytest.approx(accuracy)
    assert found.auc == pytest.approx(auc)
    assert found.chance == pytest.approx(max(positive.mean(), 1 - positive.mean()))
    assert found.interval[0] < found.accuracy < found.interval[1]


@pytest.mark.parametrize(("n", "d"), [(40, 3), (16, 30)])
def test_probe_of_pairs_equals_the_explicit_twin(n, d):
    x = rng(1).normal(size=(n, d)) + 0.3
    fold = assign_folds(np.arange(n), np.ones(n, dtype=bool), 5, rng(9))
    accuracy, auc = naive.probe(x, np.ones(n), fold, PENALTIES, intercept=False)
    found = probe_pairs(PairKernel(answers=np.ones((n, 1)), features=x), np.arange(n), folds=5, rng=rng(9))
    assert (found.accuracy, found.auc) == pytest.approx((accuracy, auc))
    assert found.chance == 0.5


def test_several_answers_equal_flat_products():
    n, answers, x = 18, rng(4).normal(size=(18, 2)), rng(5).normal(size=(18, 6))
    x /= np.sqrt((x**2).mean(axis=0))  # leave-one-fold-out scales differ, so compare where scaling hardly matters
    kernel = PairKernel(answers=answers, features=x)
    flat = (answers[:, :, None] * x[:, None, :]).reshape(n, 12)
    one = PairKernel(answers=np.ones((n, 1)), features=flat)
    first = probe_pairs(kernel, np.arange(n), folds=3, rng=rng(0))
    second = probe_pairs(one, np.arange(n), folds=3, rng=rng(0))
    assert first.auc == pytest.approx(second.auc)


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
