"""Cross-fitted losses against one descent per fold, and intervals of ranks against loops and their own promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.dynamics.crossfit import crossfit, deal
from prefdyn.dynamics.descent import descent, recorded_steps
from prefdyn.dynamics.order import critical, ranks
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2
from prefdyn.maths.units import Mean, mean_of

quick = settings(max_examples=40, deadline=None)
BETA, RATE, STEPS = 0.5, 0.3, 12


def problem(kind, seed=0):
    """Three groups of 20, 9 and 4 pairs: units of two pairs, some of them in two groups; the last group is one unit."""
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1, 2], [20, 9, 4])
    unit = np.concatenate([np.arange(20) // 2, [3, 4, 11, 12, 12, 13, 13, 14, 15], [20] * 4])
    more = {"group": [f"group {code}" for code in group], "weight": rng.uniform(0.5, 2, 33)}
    if kind == "responses":
        x, y = rng.normal(size=(2, 33, 5))
        return FeatureSet.from_arrays(chosen_features=x + 0.3, rejected_features=y, **more), unit
    chosen = rng.integers(0, 2, 33)
    x = rng.normal(size=(33, 5)) + 0.6 * np.where(chosen == 0, 1, -1)[:, None] * np.eye(3, 5)[group]
    return FeatureSet.from_arrays(x, chosen=chosen, rejected=1 - chosen, **more), unit


@pytest.mark.parametrize("kind", ["answers", "responses"])
def test_every_loss_is_that_of_a_descent_without_the_pairs_fold(kind):
    """Joint, alone, over the steps and on pairs trained on: one run per fold, by the flags of the features."""
    feats, unit = problem(kind)
    objective, recorded = DPO(beta=BETA), recorded_steps(STEPS)
    found = crossfit(feats, objective, unit, learning_rate=RATE, steps=STEPS, folds=4, seed=3)
    fold = deal(feats, unit, 4, 3)
    loss, area, alone = np.full((3, 33), math.nan)
    trained = [[] for _ in range(33)]
    paths = np.full((len(recorded), 33), math.nan)
    for code in range(4):
        flagged = feats.with_held_out(fold == code)
        run = descent(flagged, objective, learning_rate=RATE, steps=STEPS, margins_at=recorded)
        for row in range(33):
            path = [float(np.logaddexp(0, -run.margins[step][row])) for step in recorded]
            if fold[row] == code:
                paths[:, row], loss[row] = path, path[-1]
                area[row] = np.trapezoid(path, recorded) / STEPS
            else:
                trained[row].append(path[-1])
        for name in range(2):
            inside = np.flatnonzero(feats.group == name)
            part = descent(
                flagged.select(inside), objective, learning_rate=RATE, steps=STEPS, margins_at=[STEPS], alone=False
            )
            held = fold[inside] == code
            alone[inside[held]] = np.logaddexp(0, -part.margins[STEPS][held])
    np.testing.assert_allclose(found.loss, loss, atol=1e-12)
    np.testing.assert_allclose(found.area, area, atol=1e-12)
    np.testing.assert_allclose(found.alone, alone, atol=1e-12)
    np.testing.assert_allclose(found.trained, [sum(each) / len(each) for each in trained], atol=1e-12)
    for code in range(2):
        curve = paths[:, feats.group == code].mean(axis=1)
        assert found.best_step[code] == recorded[int(np.argmin(curve))]
        assert found.best_loss[code] == pytest.approx(curve.min(), rel=1e-9)
        middle = recorded.index(min(recorded[:-1], key=lambda step: abs(step - STEPS / 2)))
        speed = (curve[middle] - curve[-1]) / (STEPS - recorded[middle])
        assert found.late_speed[code] == pytest.approx(speed, rel=1e-9)
    assert np.abs(found.loss - found.trained)[fold >= 0].max() > 1e-3  # the control: holding out matters


def test_a_group_of_one_unit_is_trained_on_and_has_no_held_out_loss():
    feats, unit = problem("answers")
    found = crossfit(feats, DPO(beta=BETA), unit, learning_rate=RATE, steps=STEPS)
    last = feats.group == 2
    for values in (found.loss, found.area, found.alone):
        assert np.isnan(values[last]).all()
        assert np.isfinite(values[~last]).all()
    assert np.isfinite(found.trained).all()
    assert found.best_step[2] == -1
    assert math.isnan(mean_of(found.loss[last], unit[last]).value)


def test_which_pairs_the_features_hold_out_has_no_say():
    feats, unit = problem("answers")
    first, second = (
        crossfit(some, DPO(beta=BETA), unit, learning_rate=RATE, steps=STEPS)
        for some in (feats, feats.with_held_out(np.arange(33) % 3 == 0))
    )
    for name in ("loss", "area", "alone", "trained", "best_step"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@given(st.integers(0, 10_000), st.integers(2, 7))
@quick
def test_units_are_never_split_and_folds_of_a_group_are_even(seed, folds):
    """Also where a unit has pairs of several groups; a group whose units are its own is spread to within one unit."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, 3, 60))
    unit = rng.integers(0, 25, 60)
    own = group == 2
    unit[own] += 100
    feats = FeatureSet.from_arrays(rng.normal(size=(60, 2)), chosen=[0] * 60, rejected=[1] * 60, group=group)
    fold = deal(feats, unit, folds, seed)
    for name in np.unique(unit):
        inside = unit == name
        if (fold[inside] >= 0).all():
            assert len(np.unique(fold[inside])) == 1
    if len(np.unique(unit[own])) > 1:
        counts = [len(np.unique(unit[own & (fold == code)])) for code in range(folds)]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == len(np.unique(unit[own]))


def test_folds_below_two_are_refused():
    feats, unit = problem("answers")
    with pytest.raises(ConfigError, match="folds is 1, but must be a whole number of at least 2"):
        crossfit(feats, DPO(), unit, learning_rate=RATE, steps=2, folds=1)


def test_a_group_learned_sooner_has_the_smaller_area_under_its_loss():
    """The control: the order that verdicts rest on follows the gaps."""
    rng = np.random.default_rng(0)
    sign, group = np.where(np.arange(300) % 2 == 0, 1, -1), np.repeat([0, 1, 2], 100)
    x = rng.normal(size=(300, 8)) + (sign * np.array([2.0, 1.0, 0.4])[group])[:, None] * np.eye(3, 8)[group]
    feats = FeatureSet.from_arrays(x, chosen=sign < 0, rejected=sign > 0, group=group)
    found = crossfit(feats, DPO(), np.arange(300), learning_rate=2.0, steps=30)
    means = [mean_of(found.area[group == code], np.arange(100)) for code in range(3)]
    assert means[0].value < means[1].value < min(LOG2, means[2].value)
    assert ranks(means).rank.tolist() == [1, 2, 3]


def test_what_does_not_fit_into_memory_is_a_sample_of_whole_units(monkeypatch):
    feats, unit = problem("answers")
    monkeypatch.setattr("prefdyn.dynamics.crossfit.HELD_BYTES", 20 * 5 * 8)
    rows = np.flatnonzero(np.isfinite(crossfit(feats, DPO(), unit, learning_rate=RATE, steps=STEPS).trained))
    assert 10 <= len(rows) <= 20
    for name in np.unique(unit[rows]):
        assert np.isin(np.flatnonzero(unit == name), rows).all()


def group_alone(copies, seed, n=60):
    """One group of two-answer pairs with a true gap, copies of a prompt with one label as one unit."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.permutation(np.arange(n // copies) % 2), copies)
    x = np.repeat(rng.normal(size=(n // copies, 20)), copies, axis=0) + (2.0 * label - 1)[:, None] * np.eye(1, 20)
    return FeatureSet.from_arrays(
        x, chosen=label, rejected=1 - label, cluster=np.repeat(np.arange(n // copies), copies)
    )


@pytest.mark.thorough
@pytest.mark.parametrize("copies", [1, 3])
def test_errors_are_as_wide_as_losses_differ_between_datasets(copies):
    values, errors = [], []
    for seed in range(40):
        feats = group_alone(copies, seed)
        found = crossfit(feats, DPO(beta=1.0), feats.cluster, learning_rate=1.0, steps=10, seed=seed)
        mean = found.mean(np.arange(len(feats)))
        values.append(mean.value)
        errors.append(mean.error)
    ratio = np.std(values) / np.sqrt(np.mean(np.square(errors)))
    assert 0.6 < ratio < 1.3


# means --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@quick
def test_the_error_of_a_mean_equals_the_loop_over_units(seed):
    rng = np.random.default_rng(seed)
    values, unit = rng.normal(size=20), rng.integers(0, 6, 20)
    values[rng.random(20) < 0.2] = math.nan
    known = [i for i in range(20) if not math.isnan(values[i])]
    mean = sum(values[i] for i in known) / len(known)
    names = sorted({int(unit[i]) for i in known})
    each = [sum(values[i] - mean for i in known if unit[i] == name) for name in names]
    found = mean_of(values, unit, wider=1.7)
    assert (found.value, found.units) == (pytest.approx(mean), len(names))
    count = len(names)
    if count > 1:
        error = 1.7 * math.sqrt(count / (count - 1) * sum(value**2 for value in each)) / len(known)
        assert found.error == pytest.approx(error)
    else:
        assert math.isnan(found.error)


def test_copies_of_a_pair_in_its_unit_leave_the_error_as_it_is():
    values = np.random.default_rng(0).normal(size=30)
    once, often = mean_of(values, np.arange(30)), mean_of(np.repeat(values, 4), np.repeat(np.arange(30), 4))
    assert (often.value, often.error, often.units) == pytest.approx((once.value, once.error, 30))
    assert mean_of(np.repeat(values, 4), np.arange(120)).error < 0.6 * once.error  # the control


# ranks --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0.5, 4))
@quick
def test_ranks_equal_the_naive_loop(seed, m, limit):
    rng = np.random.default_rng(seed)
    means = [Mean(value=float(v), error=float(e), units=30) for v, e in rng.uniform(0.1, 1, (m, 2))]
    means[rng.integers(m)] = Mean(value=math.nan, error=math.nan, units=0)
    found = ranks(means, limit=limit)
    known = [each for each in means if not math.isnan(each.value)]
    for place, own in enumerate(means):
        expected = [math.nan] * 3
        if not math.isnan(own.value):
            reach = [limit * math.sqrt(own.error**2 + other.error**2) for other in known]
            below = sum(own.value - other.value > far for other, far in zip(known, reach, strict=True))
            above = sum(other.value - own.value > far for other, far in zip(known, reach, strict=True))
            expected = [1 + sum(other.value < own.value for other in known), 1 + below, len(known) - above]
        np.testing.assert_array_equal([found.rank[place], found.low[place], found.high[place]], expected)


def measured(rng, true, errors, units):
    """Means as they would be measured, with errors that are measured too."""
    error = np.asarray(errors) * np.sqrt(rng.chisquare(units - 1, len(true)) / (units - 1))
    values = np.asarray(true) + np.asarray(errors) * rng.normal(size=len(true))
    return [Mean(value=float(v), error=float(e), units=units) for v, e in zip(values, error, strict=True)]


@pytest.mark.thorough
@pytest.mark.parametrize(("m", "units"), [(3, 12), (6, 40), (9, 200)])
def test_equal_means_are_told_apart_in_five_per_cent_of_draws(m, units):
    """Errors differ from group to group and are known from few units: any couple apart in 2 to 8 % of 400 draws."""
    rng = np.random.default_rng(5)
    errors = rng.uniform(0.5, 2, m)
    apart = 0
    for draw in range(400):
        found = ranks(measured(rng, np.zeros(m), errors, units), seed=draw)
        apart += bool((found.low > 1).any() or (found.high < m).any())
    assert 0.02 <= apart / 400 <= 0.08


def test_intervals_of_ranks_hold_the_true_ranks_and_tell_far_groups_apart():
    true = [0.0, 0.0, 1.0, 1.1, 5.0]
    rng, missed = np.random.default_rng(6), 0
    for draw in range(200):
        found = ranks(measured(rng, true, np.full(5, 0.2), 50), seed=draw)
        first, last = np.array([1, 1, 3, 4, 5]), np.array([2, 2, 3, 4, 5])
        missed += bool((found.low > first).any() or (found.high < last).any())
        assert found.low[4] == found.high[4] == 5
    assert missed / 200 <= 0.08


@pytest.mark.thorough
def test_beyond_some_hundred_groups_each_couple_has_its_share_of_the_level():
    from scipy.stats import norm

    means = [Mean(value=0.0, error=1.0, units=1000)] * 301
    assert critical(means) == pytest.approx(norm.isf(0.05 / 2 / (301 * 300 / 2)))
    assert critical(means[:300]) < critical(means)  # drawn, which is never wider
    assert critical(means[:1]) == math.inf
