"""Intervals of priority levels, against couples of unequal units one by one, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import t as student

from prefdyn.diagnostics import levels as module
from prefdyn.diagnostics.levels import level_intervals
from prefdyn.diagnostics.prioritization import prioritization
from prefdyn.features import FeatureSet


def drawn(pulls, n, rng, *, copies=1, **more):
    """Groups of two equal classes, these half-gaps, unit noise and a large shared mean; copies of each state."""
    m, width = pulls.shape
    label = np.concatenate([rng.permutation(np.arange(n) % 2 == 0) for _ in range(m)])
    group = np.repeat(np.arange(m), n)
    x = rng.normal(size=(m * n, width)) + np.where(label, 1, -1)[:, None] * pulls[group] + 3
    x, label, group = (np.repeat(each, copies, axis=0) for each in (x, label, group))
    return FeatureSet.from_arrays(
        x, chosen=np.where(label, "Y", "N"), rejected=np.where(label, "N", "Y"), tokens=["Y", "N"], group=group, **more
    )


def naive(feats, unit, shown):
    """Unit after unit, with vectors of pulls written out: debiased inner products, and each unit's part in them."""
    rows = np.flatnonzero(~feats.held_out)
    phi = np.concatenate([kernel.answers[:, [0]] * kernel.features for _, kernel in feats.kernel_blocks(rows)])
    unit, group, weight = unit[rows], feats.group[rows], feats.weight[rows]
    names, codes = list(dict.fromkeys(unit.tolist())), range(len(feats.groups))
    whole, mass = weight.sum(), [weight[group == code].sum() for code in codes]
    means = [weight[group == code] @ phi[group == code] / mass[code] for code in codes]
    mean = weight @ phi / whole
    strata = {}
    for name in names:
        mine = unit == name
        of, sides = set(group[mine].tolist()), {bool(feats.chosen[row] == 0) for row in rows[mine]}
        strata.setdefault((of.pop(), tuple(sorted(sides))) if len(of) == 1 else "several", []).append(name)
    apart = {}
    for inside in strata.values():
        for code in codes:
            cells = {name: (unit == name) & (group == code) for name in inside}
            cells = {name: cell for name, cell in cells.items() if cell.any()}
            if len(cells) > 1:
                every = np.any(list(cells.values()), axis=0)
                usual = weight[every] @ phi[every] / weight[every].sum()
                for name, cell in cells.items():
                    off = weight[cell] @ (phi[cell] - usual)
                    apart[name, code] = off * np.sqrt(len(cells) / (len(cells) - 1))
    none = np.zeros(phi.shape[1])
    one = {name: [apart.get((name, code), none) / mass[code] for code in codes] for name in names}
    all_of = {name: sum(apart.get((name, code), none) for code in codes) / whole for name in names}

    def product(first, second, ones, others):
        value = first @ second - sum(ones[name] @ others[name] for name in names)
        adds = [
            ones[name] @ (second - others[name]) + (first - ones[name]) @ others[name] for name in names
        ]  # each with what the others have
        return value, np.array(adds)

    by_group = [{name: one[name][code] for name in names} for code in codes]
    square, longer = product(mean, mean, all_of, all_of)
    largest, longest = max((product(means[c], means[c], by_group[c], by_group[c]) for c in codes), key=lambda x: x[0])
    ends = []
    for code in shown:
        along, add = product(means[code], mean, by_group[code], all_of)
        length = np.sqrt(square * largest)
        parts = add / length - along / length * (longer / (2 * square) + longest / (2 * largest))
        variance = 0.0
        for inside in strata.values():
            some = parts[[name in inside for name in names]]
            variance += np.sum((some - some.mean()) ** 2)
        count = len({name for name in names if (group[unit == name] == code).any()})
        reach = student.ppf(0.975, max(1, count - 2)) * np.sqrt(variance)
        ends.append([along / length - reach, along / length + reach])
    return np.clip(ends, -1, 1)


@pytest.mark.parametrize("way", ["pairs", "units", "units over groups"])
def test_intervals_are_those_of_couples_of_unequal_units(way, monkeypatch):
    rng = np.random.default_rng(3)
    pulls = np.array([[0, 3, 0, 0], [0, 1, 1, 0], [0, -0.3, 0, 0.2]])
    weight = rng.uniform(0.5, 2.0, 36)
    feats = drawn(pulls, 12, rng, weight=weight, held_out=np.arange(36) % 9 == 0)
    unit = {"pairs": np.arange(36), "units": np.arange(36) // 2, "units over groups": np.arange(36) % 12}[way]
    found = level_intervals(feats, unit, np.array([2, 0, 1]))
    np.testing.assert_allclose(found, naive(feats, unit, [2, 0, 1]), rtol=1e-9, atol=1e-12)
    assert (np.diff(found) > 0.05).all()
    monkeypatch.setattr(module, "_CELLS", 20)  # a few units at a time
    np.testing.assert_allclose(level_intervals(feats, unit, np.array([2, 0, 1])), found, rtol=1e-9)


def test_copies_that_are_known_as_one_change_nothing():
    rng = np.random.default_rng(5)
    pulls = np.array([[0, 1.0, 0.0], [0, 0.2, 0.8]])
    once = drawn(pulls, 20, np.random.default_rng(4))
    thrice = drawn(pulls, 20, np.random.default_rng(4), copies=3)
    asked = np.array([0, 1])
    found = level_intervals(once, np.arange(40), asked)
    np.testing.assert_allclose(level_intervals(thrice, np.repeat(np.arange(40), 3), asked), found, rtol=1e-9)
    apart = level_intervals(thrice, np.arange(120), asked)
    assert np.diff(apart)[1] < 0.7 * np.diff(found)[1]  # the control: copies taken for pairs
    shuffled = rng.permutation(120)
    again = level_intervals(thrice.select(shuffled), np.repeat(np.arange(40), 3)[shuffled], asked)
    np.testing.assert_allclose(again, found, rtol=1e-9)


def test_longer_responses_have_intervals_too_and_few_units_none():
    rng = np.random.default_rng(6)
    chosen = rng.normal(size=(42, 5)) + np.repeat([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], [20, 20, 2], 0)
    feats = FeatureSet.from_arrays(
        chosen_features=chosen,
        rejected_features=rng.normal(size=(42, 5)),
        group=np.repeat(["a", "b", "c"], [20, 20, 2]),
    )
    found = prioritization(feats, unit=np.arange(42))
    assert np.isfinite(found.interval[:2]).all()
    assert np.isnan(found.interval[2]).all()
    assert (np.diff(found.interval[:2]) > 0.1).all()
    assert np.isnan(prioritization(feats).interval).all()
    some = prioritization(feats, unit=np.arange(42), shown=np.array([1]))
    np.testing.assert_allclose(some.interval[1], found.interval[1])
    assert np.isnan(some.interval[0]).all()


def test_where_nothing_is_longer_than_noise_every_level_can_be():
    rng = np.random.default_rng(0)
    feats = drawn(np.zeros((3, 40)), 30, rng)
    found = [level_intervals(drawn(np.zeros((3, 40)), 30, rng), np.arange(90), np.arange(3)) for _ in range(20)]
    assert sum((each == [-1.0, 1.0]).all() for each in found) > 5
    assert prioritization(feats).level.min() > 0.1  # while the level of these pairs says otherwise


@pytest.mark.thorough
def test_intervals_hold_the_true_level_and_those_without_debiasing_do_not():
    """Four groups, 60 pairs, 256 directions, 100 draws; the level of these pairs is above 0 without a gap."""
    along = np.linalg.qr(np.random.default_rng(1).normal(size=(256, 4)))[0].T
    along = (along + along[0]) / np.linalg.norm(along + along[0], axis=1, keepdims=True)
    pulls = along * np.array([1.5, 1.0, 0.5, 0.0])[:, None]
    mean = pulls.mean(axis=0)
    truth = pulls @ mean / np.linalg.norm(mean) / np.linalg.norm(pulls, axis=1).max()
    held, level, middle = np.zeros(4), [], []
    for draw in range(100):
        feats = drawn(pulls, 60, np.random.default_rng([draw, 8]))
        found = prioritization(feats, unit=np.arange(240))
        held += (found.interval[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= found.interval[:, 1])
        level.append(found.level[3])
        middle.append(found.interval[3].mean())
    assert (held >= 92).all()
    assert abs(np.mean(middle) - truth[3]) < 0.05
    assert np.mean(level) - truth[3] > 0.1  # the control
