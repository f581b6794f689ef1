"""Values of pairs: what a run without the pair ends with, wrong labels found by them, signs that resamples agree on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.order import spearman
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, IPO
from prefdyn.planning import values
from prefdyn.planning.summary import pairs_table
from prefdyn.planning.values import RESAMPLES, drop_check, pair_values

SETTINGS = {"learning_rate": 3.0, "steps": 40}


def features(flip=0.0, seed=0, n=400, d=12, gap=0.5):
    """Three groups of replies, each with a direction of its own; some labels turned, half of the pairs held out."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 3
    rows = rng.normal(size=(n, d)) + gap * np.eye(d)[group] * np.array([3.0, 2.0, 1.0])[group, None]
    wrong = rng.uniform(size=n) < flip
    held_out = rng.uniform(size=n) < 0.5
    rows[wrong & ~held_out] *= -1
    return FeatureSet.from_arrays(
        chosen_features=rows, rejected_features=np.zeros_like(rows), group=group, held_out=held_out,
        weight=rng.uniform(0.5, 1.5, n), chosen_length=np.full(n, 2), rejected_length=np.full(n, 2),
    ), wrong & ~held_out  # fmt: skip


def valued(*given, **settings):
    found = pair_values(*given, **settings)
    assert found is not None
    return found


@pytest.mark.parametrize("objective", [DPO(beta=0.5), IPO(beta=0.5)], ids=repr)
def test_a_value_is_what_a_run_without_the_pair_ends_with(objective):
    feats, _ = features(n=1200)
    seen = feats.averaged() if objective.per_token else feats
    settings = {**SETTINGS, "learning_rate": 0.3 if objective.per_token else 1.0}
    found = valued(seen, objective, feats.cluster, **settings)

    def losses(feats):
        run = descent(feats, objective, alone=False, **settings)
        each = [run.final("loss", group=name, split="held_out") for name in feats.groups]
        sizes = np.bincount(feats.group[feats.held_out])
        return np.array([*each, np.average(each, weights=sizes)])

    whole = losses(feats)
    assert found.worst_group == feats.groups[int(np.argmax(whole[:3]))]
    rows = np.flatnonzero(~feats.held_out)[:20]
    share = feats.weight[rows] / feats.weight[~feats.held_out].sum()

    def lighter(row, part):
        weight = np.where(np.arange(len(feats)) == row, (1 - part) * feats.weight, feats.weight)
        return (losses(replace(feats, weight=weight)) - whole) / part

    gained = np.array([lighter(row, 0.01) for row in rows]) / (1 - share)[:, None]
    dropped = np.array([losses(feats.select(np.arange(len(feats)) != row)) - whole for row in rows])
    places = {"own": feats.group[rows], "all": 3, "worst": int(np.argmax(whole[:3]))}
    for name, place in places.items():
        mine, want = getattr(found, name)[rows], gained[np.arange(len(rows)), place]
        np.testing.assert_allclose(mine, want, rtol=0, atol=0.005 * np.abs(want).max())  # second order in 1/100
        assert spearman(mine, dropped[np.arange(len(rows)), place]) > 0.97
        assert np.isnan(getattr(found, name)[feats.held_out]).all()


def test_wrong_labels_are_worth_less_than_nothing():
    """By their own group's held-out pairs; the others' ask for something else, and see them less clearly."""
    feats, wrong = features(flip=0.1, gap=1.0)
    found = valued(feats, DPO(beta=0.5), feats.cluster, learning_rate=0.5, steps=40)
    trained = ~feats.held_out
    ranks = rankdata(-found.own[trained])
    flipped = wrong[trained]
    area = (ranks[flipped].mean() - (flipped.sum() + 1) / 2) / (~flipped).sum()
    assert area > 0.95
    assert found.own[wrong].mean() < 0 < found.own[trained & ~wrong].mean()
    assert found.all[wrong].mean() < 0 < found.all[trained & ~wrong].mean()


def test_signs_are_counted_over_held_out_units():
    feats, _ = features(gap=2.0)
    found = valued(feats, DPO(beta=0.5), feats.cluster, **SETTINGS)
    trained = ~feats.held_out
    assert np.isnan(found.sign[feats.held_out]).all()
    assert ((found.sign[trained] >= 0) & (found.sign[trained] <= RESAMPLES)).all()
    strong = np.abs(found.own) >= np.nanquantile(np.abs(found.own), 0.9)
    weak = np.abs(found.own) <= np.nanquantile(np.abs(found.own), 0.1)
    assert found.sign[strong].mean() > 95
    assert found.sign[weak].mean() < found.sign[strong].mean() - 15  # the control: not every sign is sure
    one = np.where(feats.held_out, 0, 1 + np.arange(len(feats)))  # all held-out pairs are one unit: nothing to draw
    alone = valued(feats, DPO(beta=0.5), one, **SETTINGS)
    assert np.isnan(alone.sign).all()
    np.testing.assert_allclose(alone.own, found.own, rtol=1e-9, atol=1e-15)
    again = valued(feats, DPO(beta=0.5), feats.cluster, **SETTINGS)
    np.testing.assert_array_equal(again.sign, found.sign)


def test_leaving_pairs_out_is_judged_by_pairs_that_had_no_say():
    """The naive twin selects, trains and averages by itself. Turned labels are worth leaving out, random pairs not."""
    feats, _ = features(flip=0.15, gap=1.0)
    objective, run = DPO(beta=0.5), {"learning_rate": 0.5, "steps": 40}
    found = valued(feats, objective, feats.cluster, **run)
    assert not (found.judges[0] & found.judges[1]).any()
    np.testing.assert_array_equal(found.judges[0] | found.judges[1], feats.held_out)
    check = drop_check(feats, objective, feats.cluster, found, **run)
    assert check is not None
    assert check.lowest.value < np.percentile(check.random, 5) < check.highest.value
    assert check.lowest.value < 0
    sure = replace(check, lowest=replace(check.lowest, value=-1.0, error=0.5))
    assert sure.worth
    assert not replace(sure, random=check.random - 1.0).worth  # random sets do as well
    assert not replace(sure, lowest=replace(sure.lowest, error=0.52)).worth  # not told from 0

    def loss(kept, judges):
        ended = descent(feats.select(kept), objective, alone=False, margins_at=[40], **run)
        margins = np.full(len(feats), np.nan)
        margins[kept] = ended.margins[40]
        return np.logaddexp(0, -margins[judges])

    trained, changes = np.flatnonzero(~feats.held_out), []
    for half in range(2):
        drop = trained[np.argsort(found.halves[half, trained])[: check.pairs]]
        judges, every = found.judges[half], np.arange(len(feats))
        changes += (loss(every[~np.isin(every, drop)], judges) - loss(every, judges)).tolist()
    assert check.lowest.value == pytest.approx(np.mean(changes), rel=1e-6)
    assert check.lowest.error == pytest.approx(np.std(changes, ddof=1) / np.sqrt(len(changes)), rel=1e-6)
    assert (
        drop_check(feats.select(np.flatnonzero(feats.held_out)[:30]), objective, feats.cluster[:30], found, **run)
        is None
    )


def test_nothing_is_said_without_held_out_pairs():
    feats, _ = features()
    none = feats.with_held_out(np.zeros(len(feats), dtype=bool))
    assert pair_values(none, DPO(), none.cluster, **SETTINGS) is None
    part = feats.with_held_out(feats.held_out & (feats.group == 0))
    found = valued(part, DPO(), part.cluster, **SETTINGS)
    assert np.isnan(found.own[part.group == 1]).all()
    assert np.isfinite(found.own[(part.group == 0) & ~part.held_out]).all()
    assert found.worst_group == part.groups[0]
    table = pairs_table(part, values=found)
    assert table["value_own"].null_count == int(np.isnan(found.own).sum())
    assert table["value_sign"].null_count == int(np.isnan(found.sign).sum())
    assert pairs_table(part)["value_all"].null_count == len(part)


@pytest.mark.parametrize(
    ("blocks", "known", "signs"), [(4.5, True, True), (3.5, True, False), (1.5, True, False), (0.9, False, False)]
)
def test_what_takes_long_is_left_out_signs_first(blocks, known, signs, monkeypatch):
    """With a block per group there is nothing to draw, and with less there is nothing to say."""
    feats, _ = features()
    whole = valued(feats, DPO(), feats.cluster, **SETTINGS)
    monkeypatch.setattr(values, "_WORK", values._WORK * blocks * 3 / values.affordable(feats, SETTINGS["steps"]))
    found = pair_values(feats, DPO(), feats.cluster, **SETTINGS)
    assert (found is not None) == known
    if found is not None:
        np.testing.assert_allclose(found.own, whole.own, rtol=1e-9, atol=1e-15)
        assert np.isfinite(found.sign).any() == signs


@pytest.mark.parametrize(("groups", "known"), [(200, True), (201, False)])
def test_no_table_of_pairs_against_very_many_groups_is_made(groups, known):
    n = 4 * groups
    rows = np.random.default_rng(0).normal(size=(n, 3))
    feats = FeatureSet.from_arrays(
        chosen_features=rows, rejected_features=0 * rows, group=np.arange(n) % groups, held_out=np.arange(n) < n // 2
    )
    assert (pair_values(feats, DPO(), feats.cluster, learning_rate=1.0, steps=2) is not None) == known
