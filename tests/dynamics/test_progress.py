"""Runs by progress: the coordinate, bands whose weights and widths come true, orders and alarms on simulated runs."""

import numpy as np
import pytest

from prefdyn.dynamics.progress import (
    ProgressBand,
    alarm_limit,
    apart,
    at_levels,
    before,
    combined,
    growth,
    levels_to,
    mean_run,
    out_of_band,
    progress,
    spread_of_seeds,
    tiers,
)

GROUPS, LEVELS = 8, 25


def naive_at(means, values, level):
    """The first time that a run came down to a level, one record after the other."""
    best = means[0]
    if level > best:
        return np.full(values.shape[1], np.nan)
    last = values[0]
    for mean, value in zip(means[1:], values[1:], strict=True):
        if mean < best:
            if mean <= level:
                return last + (best - level) / (best - mean) * (value - last)
            best, last = mean, value
    return last if level == best else np.full(values.shape[1], np.nan)


@pytest.mark.parametrize("seed", range(5))
def test_values_at_levels_are_those_of_a_walk_through_the_records(seed):
    rng = np.random.default_rng(seed)
    loss = 0.7 - np.cumsum(rng.normal(0.01, 0.02, (30, 4)), axis=0)
    means = loss.mean(axis=1)
    levels = rng.uniform(means.min() - 0.05, means[0] + 0.05, 40)
    found = at_levels(progress(loss), loss, levels)
    wanted = np.stack([naive_at(means, loss, level) for level in levels])
    assert np.isfinite(wanted).any()
    assert not np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_groups_at_a_level_have_that_mean_whatever_the_pace():
    """A closed form: losses that are functions of one another do not depend on how fast the run went."""
    levels = levels_to(0.7, 0.4)

    def run(pace):
        fall = np.concatenate([[0], np.cumsum(pace)])
        fall = 0.3 * fall / fall[-1]
        return np.stack([0.7 - fall - fall**2, 0.7 - fall + fall**2], axis=1)

    rng = np.random.default_rng(0)
    runs = [run(rng.uniform(0.1, 1.0, 400)) for _ in range(2)]
    found = [at_levels(progress(each), each, levels) for each in runs]
    np.testing.assert_allclose(found[0].mean(axis=1), levels, atol=1e-12)
    assert np.nanmax(apart(*found)) < 1e-5
    np.testing.assert_allclose(found[0][:, 0], levels - (0.7 - levels) ** 2, atol=1e-5)


def test_spread_is_the_naive_one_and_shrinks_to_the_runs_that_were_there():
    rng = np.random.default_rng(1)
    runs = rng.normal(size=(4, 6, 3))
    runs[0, 4:] = np.nan
    runs[1:, 5] = np.nan
    found = spread_of_seeds(runs)
    for level in range(5):
        known = runs[np.isfinite(runs[:, level, 0]), level]
        assert found[level] == pytest.approx(np.sqrt(known.var(axis=0, ddof=1).mean()))
    assert np.isnan(found[5])
    centre, count = mean_run(runs)
    assert count.tolist() == [4, 4, 4, 4, 3, 0]
    np.testing.assert_allclose(centre[4], runs[1:, 4].mean(axis=0))


def test_growth_finds_the_law_it_was_made_with():
    fallen = np.linspace(0, 0.3, 20)
    signs = np.where(np.arange(GROUPS) % 2, 1.0, -1.0)
    first, second = growth((0.2 * fallen + 3 * fallen**2)[:, None] * signs, fallen)
    assert (first, second) == (pytest.approx(0.2), pytest.approx(3.0))
    assert np.isnan(growth(np.zeros((3, 2)), np.zeros(3))).all()


# simulated runs ------------------------------------------------------------------------------------------------------

FALL = np.linspace(0, 0.3, LEVELS)
TRUTH = 0.7 - FALL[:, None] * (1 + np.linspace(0.9, -0.9, GROUPS))


UNEQUAL = np.array([2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]) / np.sqrt(10.5 / 8)


def a_run(rng, luck, scale=1.0):
    """Groups at each level: the truth and this run's luck, which grows with the fall and adds up to nothing."""
    own = rng.normal(size=GROUPS) * scale
    own -= own.mean()
    wander = np.cumsum(rng.normal(size=(LEVELS, GROUPS)) * scale, axis=0) / np.sqrt(LEVELS)
    wander -= wander.mean(axis=1, keepdims=True)
    return TRUTH + luck * FALL[:, None] / 0.3 * (0.8 * own + 0.6 * wander)


def a_band(rng, luck, linear_off=None, seeds=3, scale=1.0):
    runs = np.stack([a_run(rng, luck, scale) for _ in range(seeds)])
    linear, error = None, np.full(LEVELS, np.nan)
    if linear_off is not None:
        error = linear_off * (FALL / 0.3) ** 2
        linear = TRUTH + error[:, None] * rng.normal(size=GROUPS)
    return combined(levels_to(0.7, 0.4), linear, error, runs)


@pytest.mark.parametrize("scale", [1.0, UNEQUAL], ids=["alike", "some groups four times as lucky"])
def test_a_band_from_three_rehearsals_holds_nine_of_ten_runs(scale):
    rng = np.random.default_rng(2)
    held = []
    for _ in range(400):
        band, run = a_band(rng, 0.02, scale=scale), a_run(rng, 0.02, scale)
        held.append((np.abs(run - band.centre) <= band.half_width)[5:].mean())
    assert 0.85 <= np.mean(held) <= 0.95


def test_the_band_holds_nine_of_ten_runs_of_any_seed_where_the_own_run_is_known():
    """The own run is one draw of several: a centre that trusted it alone would be off by the luck of two."""
    rng = np.random.default_rng(11)
    inside, weight, off = [], [], {"mixed": [], "own": []}
    for _ in range(400):
        own, others = a_run(rng, 0.02), np.stack([a_run(rng, 0.02) for _ in range(2)])
        band = combined(levels_to(0.7, 0.4, LEVELS), own, np.full(LEVELS, 1e-4), others)
        new = a_run(rng, 0.02)
        inside.append((np.abs(new - band.centre) <= band.half_width)[3:].mean())
        weight.append(band.linear[5])
        for name, centre in (("mixed", band.centre), ("own", own)):
            off[name].append(((centre - TRUTH)[5:] ** 2).mean())
    assert 0.85 <= np.mean(inside) <= 0.95
    assert np.mean(weight) == pytest.approx(1 / 3, abs=0.01)
    assert np.mean(off["mixed"]) == pytest.approx(np.mean(off["own"]) / 3, rel=0.1)  # the mean of three draws


def test_weights_follow_the_errors_and_the_mixture_is_nearer_a_run_than_either():
    rng = np.random.default_rng(3)
    off = {"mixed": [], "rehearsals": [], "linear": []}
    for _ in range(400):
        runs, own, run = np.stack([a_run(rng, 0.02) for _ in range(3)]), a_run(rng, 0.02), a_run(rng, 0.02)
        error = 0.02 * (FALL / 0.3) ** 2
        foretold = own + error[:, None] * rng.normal(size=GROUPS)
        band = combined(levels_to(0.7, 0.4), foretold, error, runs)
        assert band.linear[1] >= band.linear[-1] - 1e-9  # the law of the linear run grows faster
        for name, centre in (("mixed", band.centre), ("rehearsals", mean_run(runs)[0]), ("linear", foretold)):
            off[name].append(((centre - run)[-1] ** 2).mean())
    assert np.mean(off["mixed"]) < min(np.mean(off["rehearsals"]), np.mean(off["linear"]))


def test_below_the_rehearsals_the_linear_run_goes_on_from_where_the_mixture_was():
    rng = np.random.default_rng(7)
    runs = np.stack([a_run(rng, 0.02) for _ in range(3)])
    runs[:, 15:] = np.nan
    error = 0.02 * (FALL / 0.3) ** 2
    linear = TRUTH + 0.3 * FALL[:, None] ** 2 * np.linspace(-1, 1, GROUPS)
    band = combined(levels_to(0.7, 0.4), linear, error, runs)
    assert np.isfinite(band.errors).all()
    assert (np.diff(band.error[1:]) >= 0).all()
    steps = np.diff(band.centre[14:], axis=0)
    np.testing.assert_allclose(steps, np.diff(linear[14:], axis=0))  # no leap, and the linear run's own slopes
    np.testing.assert_allclose(band.centre.mean(axis=1), band.levels)
    assert (band.linear[15:] == 1).all()


def test_what_is_not_known_has_no_band():
    one = np.stack([TRUTH])
    band = combined(levels_to(0.7, 0.4), None, np.full(LEVELS, np.nan), one)
    assert np.isnan(band.half_width[1:]).all()
    assert not band.vouched.any()
    np.testing.assert_allclose(band.centre, TRUTH)
    assert np.isnan(before(band, np.zeros(GROUPS), seed=0)).all()
    nothing = np.full((0, LEVELS, GROUPS), np.nan)
    alone = combined(levels_to(0.7, 0.4), TRUTH, 0.01 * FALL, nothing)
    np.testing.assert_allclose(alone.centre, TRUTH)
    assert alone.vouched.all()
    assert (
        not combined(levels_to(0.7, 0.4), TRUTH, FALL, nothing).vouched[1:].any()
    )  # as large as what groups differ by


def test_orders_that_are_told_come_true():
    """Of couples told at 19 of 20, at most one in ten is the other way round in a new run; luck alone tells few."""
    rng = np.random.default_rng(4)
    told = wrong = 0
    for _ in range(150):
        band, run = a_band(rng, 0.05), a_run(rng, 0.05)
        shares = before(band, np.zeros(GROUPS), seed=0, draws=400)
        area = run[band.vouched].mean(axis=0) if band.vouched.any() else run.mean(axis=0)
        sure = shares >= 0.95
        told += sure.sum()
        wrong += (sure & (area[:, None] > area[None, :])).sum()
    assert told > 500
    assert wrong / told < 0.05


def test_tiers_of_equal_groups_are_one():
    band = a_band(np.random.default_rng(5), 0.02)
    same = ProgressBand(
        levels=band.levels, centre=np.repeat(band.levels[:, None], GROUPS, axis=1) + 1e-3 * TRUTH, error=0.5 * FALL,
        scale=np.ones(GROUPS), linear=band.linear, freedom=7.0,
    )  # fmt: skip
    assert np.isnan(before(same, np.zeros(GROUPS), seed=0)).all()  # nothing vouched for, nothing told
    shares = np.full((GROUPS, GROUPS), 0.5)
    assert tiers(np.arange(GROUPS) / 10, shares) == [list(range(GROUPS))]


@pytest.mark.parametrize(("scale", "most"), [(1.0, 0.05), (UNEQUAL, 0.08)], ids=["alike", "unequal"])
def test_the_watch_is_silent_in_honest_runs_and_hears_a_flipped_group(scale, most):
    rng = np.random.default_rng(6)
    records = np.linspace(0, LEVELS - 1, 14).round().astype(int)
    false = heard = 0
    for _ in range(300):
        band, run = a_band(rng, 0.02, scale=scale), a_run(rng, 0.02, scale)
        reached = progress(run[records])
        false += bool(out_of_band(band, reached, run[records]).any())
        flipped = run[records].copy()
        flipped[:, 0] = 0.7 + 0.5 * (0.7 - TRUTH[records, 0])  # its labels turned round: it rises
        heard += bool(out_of_band(band, progress(flipped), flipped)[:, 0].any())
    assert false / 300 <= most
    assert heard / 300 >= 0.95


def test_an_alarm_needs_more_the_more_groups_there_are():
    limits = [alarm_limit(groups, 7.0) for groups in (1, 8, 88)]
    assert limits == sorted(limits)
    assert limits[0] > 2
