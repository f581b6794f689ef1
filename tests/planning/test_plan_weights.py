"""Group weights: every part against a closed form or a naive twin, the whole against data whose truth is known."""

import csv
import json
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.data.loaders import load_dataset
from prefdyn.dynamics.adjoint import one_setting
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.robust import group_robust
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.planning.goals import Goal, GoalScore
from prefdyn.planning.judging import judged
from prefdyn.planning.mirror import balanced, linear_programme, mirror
from prefdyn.planning.recipe import train_flags
from prefdyn.planning.weights import plan_weights, weighted_losses, weighted_margins
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.synthetic import gaussian_groups

FAST: dict[str, Any] = {"beta": 0.5, "learning_rate": 0.8, "steps": 20, "progress": False}


def drowned(seed=0, *, loud=300, rare=60):
    """A small group whose direction is mostly against that of a large one: as given it is learned the wrong way."""
    directions = np.zeros((2, 12))
    directions[0, 0] = 1.0
    directions[1, :2] = -0.8, 0.6
    return gaussian_groups(
        [loud, rare], groups=2, width=12, half_gap=[1.0, 1.0], directions=directions, held_out=0.0, seed=seed
    )


def beside(given, fresh):
    """Both sets as one, the second held out."""
    states = np.concatenate([given.states, fresh.states])
    return FeatureSet.from_arrays(
        states,
        chosen=np.concatenate([given.chosen, fresh.chosen]),
        rejected=np.concatenate([given.rejected, fresh.rejected]),
        group=[feats.groups[code] for feats in (given, fresh) for code in feats.group],
        held_out=np.arange(len(states)) >= len(given),
    )


@pytest.fixture(scope="module")
def plan():
    return plan_weights(drowned(), **FAST)


# the whole ------------------------------------------------------------------------------------------------------------


def test_a_drowned_group_is_given_weight_and_fares_better_on_fresh_data(plan):
    """The truth is another draw of the same data, trained and measured by another function than the plan's."""
    assert plan.change
    loud, rare = plan.factors
    assert rare > 2 > 1 > loud
    both = beside(drowned(), drowned(seed=1))
    worst = []
    for feats in (both, both.weighted(plan.weights())):
        run = descent(feats, DPO(beta=0.5), learning_rate=0.8, steps=20, alone=False)
        worst.append(max(run.final("loss", group=name, split="held_out") for name in feats.groups))
    low, high = plan.judged.score_gain_interval
    assert worst[0] - worst[1] > 0.1
    assert low < worst[0] - worst[1] < high


def test_a_mixture_has_the_mean_of_the_weights(plan):
    feats = plan.features
    train, values = ~feats.held_out, np.random.default_rng(0).normal(size=len(feats))
    weight = (plan.factors[feats.group] * feats.weight)[train]
    means = [np.average(values[rows], weights=feats.weight[rows]) for rows in
             (np.flatnonzero(train & (feats.group == code)) for code in range(len(feats.groups)))]  # fmt: skip
    assert np.average(values[train], weights=weight) == pytest.approx(
        sum(share * mean for share, mean in zip(plan.mixture().values(), means, strict=True)), abs=1e-3
    )
    assert sum(plan.mixture().values()) == pytest.approx(1.0, abs=1e-3)


def test_equal_groups_are_left_as_they_are():
    feats = gaussian_groups(80, groups=3, width=12, half_gap=1.0, directions=np.eye(3, 12), held_out=0.0)
    found = plan_weights(feats, **FAST)
    assert not found.change
    assert found.weights() == dict.fromkeys(feats.groups, 1.0)
    assert "keep the weights" in found.because


def test_a_group_with_too_few_units_is_kept_and_named():
    base = drowned()
    names = np.array([base.groups[code] for code in base.group], dtype=object)
    names[:4] = "four"
    feats = FeatureSet.from_arrays(base.states, chosen=base.chosen, rejected=base.rejected, group=names)
    found = plan_weights(feats, **FAST)
    code = feats.groups.index("four")
    assert not found.learns[code]
    assert np.isnan(found.judged.loss[:, code]).all()
    assert "four" in found.summary()["warnings"][0]
    with pytest.raises(DataError, match="between two groups"):
        plan_weights(gaussian_groups(50, groups=1, width=8), **FAST)


def test_held_out_pairs_have_no_say_and_equal_seeds_give_equal_plans(plan):
    base = drowned()
    assert base.chosen is not None
    assert base.rejected is not None
    held_out = np.concatenate([np.zeros(len(base), dtype=bool), np.ones(30, dtype=bool)])
    rows = np.concatenate([np.arange(len(base)), np.arange(30)])
    more = FeatureSet.from_arrays(
        base.states[rows] * np.where(held_out, 50.0, 1.0)[:, None], chosen=base.chosen[rows],
        rejected=base.rejected[rows], group=[base.groups[code] for code in base.group[rows]], held_out=held_out,
    )  # fmt: skip
    again = plan_weights(more, **FAST)
    np.testing.assert_array_equal(again.found, plan.found)
    np.testing.assert_array_equal(again.judged.loss, plan.judged.loss)
    other = plan_weights(base, **{**FAST, "seed": 3})
    assert (other.found != plan.found).any()


def test_a_limit_on_the_others_holds_the_proposal_back(plan):
    strict = plan_weights(drowned(), Goal.read("worst", slack=0.02), **FAST)
    lost = [-result.judged.gain[0] for result in (plan, strict)]
    assert lost[0] > 0.1
    assert lost[1] < 0.05


def test_protecting_a_group_brings_it_below_its_loss():
    feats = drowned()
    free = plan_weights(feats, "mean", **FAST)
    limit = free.judged.loss[1, 1] - 0.1
    held = plan_weights(feats, f"protect={feats.groups[1]}:{limit}", **FAST)
    assert held.judged.loss[1, 1] < free.judged.loss[1, 1] - 0.05


def test_a_wanted_accuracy_is_reached_on_fresh_data():
    """Right pairs are counted on another draw of the same law."""
    feats = drowned()
    rare = feats.groups[1]
    held = plan_weights(feats, f"target={rare}:0.75", **FAST)
    assert held.change
    assert held.accuracy[0, 1] < 0.5 < 0.7 < held.accuracy[1, 1]
    assert held.judged.score[0] == pytest.approx(0.75 - held.accuracy[0, 1])
    assert held.judged.score[1] == pytest.approx(max(0.0, 0.75 - held.accuracy[1, 1]))
    fresh = beside(feats, drowned(seed=1))
    margins = weighted_margins(fresh, held.setting, held.steps, held.factors[fresh.group][:, None])[:, 0]
    inside = fresh.held_out & (fresh.group == 1)
    assert (margins[inside] > 0).mean() > 0.65
    row = held.rows()[1]
    assert row["wanted_accuracy"] == 0.75
    assert row["accuracy_plan"] == pytest.approx(held.accuracy[1, 1])
    assert held.rows()[0]["wanted_accuracy"] is None


def test_what_is_reached_as_given_changes_nothing():
    found = plan_weights(drowned(), f"target={drowned().groups[0]}:0.6", **FAST)
    assert found.judged.score[0] == 0
    assert not found.change
    assert found.weights() == dict.fromkeys(found.features.groups, 1.0)


@pytest.mark.parametrize("text", ["target=", "target=a", "target=a:2", "target=a:0", "target=a:x", "target=a:.5,a:.6"])
def test_accuracies_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match=r"target=GROUP:ACCURACY"):
        Goal.read(text)


def test_a_measure_is_the_loss_or_how_wrong_a_pair_is_with_its_slope():
    group, margins = np.array([0, 0, 1, 1, 1]), np.array([0.5, -0.5, 0.3, -0.2, 0.0])
    reads = Goal.read("target=b:0.9").measure(DPO(beta=1.0), ["a", "b"], group, margins)
    assert reads.width == pytest.approx(0.1 * np.sqrt((0.09 + 0.04) / 3))
    np.testing.assert_allclose(reads.hard(margins), [*np.log1p(np.exp(-margins[:2])), 0.0, 1.0, 0.5])
    step = 1e-6
    quotient = (reads(margins + step) - reads(margins - step)) / (2 * step)
    np.testing.assert_allclose(reads.slope(margins), quotient, rtol=1e-6, atol=1e-9)
    assert np.isinf(reads(np.full(5, np.nan))).all()


def test_equal_shares_come_nearer_to_each_other():
    feats = drowned()
    found = plan_weights(feats, "equal", **{**FAST, "learning_rate": 0.2})
    assert found.change
    before, after = -found.judged.score[:2]
    assert after > before


# its parts ------------------------------------------------------------------------------------------------------------


def test_runs_with_factors_are_runs_of_weighted_features():
    feats = drowned().with_held_out(np.arange(360) % 3 == 0)
    columns = np.array([[1.0, 0.5], [1.0, 4.0]])
    found = weighted_losses(feats, one_setting(feats, beta=0.5, learning_rate=0.4), 20, columns[feats.group])
    for place in range(2):
        heavier = feats.weighted(dict(zip(feats.groups, columns[:, place], strict=True)))
        run = descent(heavier, DPO(beta=0.5), learning_rate=0.4, steps=20, alone=False, margins_at=[20])
        np.testing.assert_allclose(found[:, place], np.logaddexp(0, -run.margins[20]), rtol=1e-10)


def test_the_group_robust_run_is_its_naive_twin():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(30, 6)), rng.normal(size=(30, 6))
    group, held_out, weight = np.repeat([0, 1], [20, 10]), np.arange(30) % 5 == 0, rng.uniform(0.5, 2, 30)
    feats = FeatureSet.from_arrays(
        chosen_features=first, rejected_features=second, group=group, held_out=held_out, weight=weight
    )
    margins, belief = group_robust(feats, one_setting(feats, beta=0.5, learning_rate=0.3), 25, pace=0.4)

    x = first.astype(np.float32).astype(float) - second.astype(np.float32)
    theta, q, total = np.zeros(6), np.full(2, 0.5), np.zeros(2)
    for _ in range(25):
        r = 0.5 * x @ theta
        gradient, means = np.zeros(6), np.zeros(2)
        for g in range(2):
            rows = np.flatnonzero((group == g) & ~held_out)
            share = weight[rows] / weight[rows].sum()
            means[g] = share @ np.log1p(np.exp(-r[rows]))
            gradient -= q[g] * 0.5 * (share * expit(-r[rows])) @ x[rows]
        total += q / 25
        q = q * np.exp(0.4 * means)
        q /= q.sum()
        theta -= 0.3 * gradient
    np.testing.assert_allclose(margins, 0.5 * x @ theta, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(belief, total, rtol=1e-12)


def test_the_search_finds_the_closed_form_of_logarithmic_losses():
    """L_g = a_g - log f_g with mean factor 1: the largest is least where all are equal, f_g = exp(a_g) / mean."""
    start, shares = np.array([0.3, 1.0, 0.6]), np.array([0.5, 0.2, 0.3])

    def losses(columns):
        return start[:, None] - np.log(columns)

    def slopes(factors, sums):  # of a factor whose mean is held at 1
        return sums @ (shares * factors - np.eye(3))

    score = Goal().score(["a", "b", "c"], start, start=1.0)
    found = mirror(
        losses, slopes, score, shares, np.ones(3, dtype=bool), np.ones((3, 1)), error=1e-3, floor=0.01, ceiling=100,
        rounds=60,
    )  # fmt: skip
    np.testing.assert_allclose(found.factors, np.exp(start) / (shares @ np.exp(start)), rtol=0.02)
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_the_linear_programme_is_the_best_of_a_fine_grid():
    now, shares = np.array([0.5, 0.9]), np.array([0.75, 0.25])
    slopes = np.array([[-0.1, 0.2], [0.15, -0.3]])
    score = Goal().score(["a", "b"], now, start=1.0)
    found = linear_programme(now, slopes, score, shares, np.ones(2, dtype=bool), floor=0.2, ceiling=3.0)
    first = np.linspace(0.2, 4 / 3, 4001)
    factors = np.stack([first, (1 - 0.75 * first) / 0.25])
    factors = factors[:, (factors[1] >= 0.2) & (factors[1] <= 3.0)]
    worst = (now[:, None] + slopes @ (factors - 1)).max(axis=0)
    np.testing.assert_allclose(found, factors[:, np.argmin(worst)], atol=2e-3)


@pytest.mark.parametrize("name", ["worst", "mean", "equal", "target"])
def test_the_slope_of_a_smooth_score_is_its_difference_quotient(name):
    given, alone = np.array([0.6, 0.5, np.nan, 0.4]), np.array([0.3, 0.2, 0.1, 0.35])
    wanted = {"a": 0.5, "d": 0.4} if name == "target" else {}
    score = Goal(name=name, limits={"b": 0.45}, slack=0.1, accuracy=wanted).score(
        list("abcd"), given, start=0.7, alone=alone
    )
    at = np.array([0.62, 0.5, 0.3, 0.41])
    _, slope = score.smooth(at, 5.0)
    for place in range(4):
        step = np.eye(4)[place] * 1e-6
        up, down = score.smooth(at + step, 5.0)[0], score.smooth(at - step, 5.0)[0]
        np.testing.assert_allclose(slope[place], (up - down) / 2e-6, atol=1e-7)
    np.testing.assert_allclose(score.smooth(at, 1e7)[0], score.hard(at), atol=1e-5)


def test_balanced_factors_keep_the_mean_and_their_bounds():
    shares = np.array([0.6, 0.3, 0.1])
    found = balanced(np.array([1.0, 50.0, 0.001]), shares, 0.1, 3.0)
    np.testing.assert_allclose(shares @ found, 1.0)
    assert found.min() == 0.1
    assert found[1] == pytest.approx(2.9, abs=0.11)


def test_intervals_are_paired_and_draw_whole_units():
    """A constant lead has no error, and five copies of every pair tell no more than one."""
    rng = np.random.default_rng(1)
    single, group = rng.normal(1.0, 0.3, 80), np.repeat([0, 1], 40)

    def intervals(times):
        values, owner, unit = np.repeat(single, times), np.repeat(group, times), np.repeat(np.arange(80), times)
        losses = np.stack([values, values - 0.25, values + rng.normal(0, 0.1, len(values))])
        return judged(losses, ("as_given", "plan", "other"), owner, ["a", "b"], unit, Goal(), start=1.0)

    one, five = intervals(1), intervals(5)
    np.testing.assert_allclose(one.gain_interval, 0.25)
    np.testing.assert_allclose(one.score_gain_interval, 0.25)
    np.testing.assert_allclose(one.score_interval[0], five.score_interval[0])
    width = np.diff(judged(
        np.stack([single, np.ones(80)]), ("as_given", "plan"), np.zeros(80, dtype=int), ["a"], np.arange(80), Goal(),
        start=1.0, resamples=4000,
    ).gain_interval[0])[0]  # fmt: skip
    assert width == pytest.approx(2 * 1.645 * single.std() / np.sqrt(80), rel=0.08)


@pytest.mark.parametrize(
    ("text", "message"),
    [("wurst", "unknown"), ("protect=a", "protect=GROUP:LOSS"), ("protect=:0.5", "protect=GROUP:LOSS")],
)
def test_goals_that_mean_nothing_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Goal.read(text)


def test_what_cannot_be_planned_is_refused():
    feats = drowned()
    with pytest.raises(DataError, match="no group"):
        plan_weights(feats, "protect=nobody:0.5", **FAST)
    with pytest.raises(ConfigError, match="ceiling"):
        plan_weights(feats, ceiling=0.5, **FAST)
    with pytest.raises(ConfigError, match="floor"):
        plan_weights(feats, floor=1.5, **FAST)
    with pytest.raises(ConfigError, match="below 0"):
        Goal.read("worst", slack=-1.0)
    with pytest.raises(ConfigError, match="full batches"):
        plan_weights(feats, "equal", batch_size=16, **FAST)


# what is left behind --------------------------------------------------------------------------------------------------


def test_flags_multiply_the_weights_that_were_given():
    setting = one_setting(drowned(), beta=0.5, learning_rate=0.4)
    flags = {"data": ("x.jsonl",), "group_weights": {"a": 2.0}, "goal": "worst", "model": "builtin", "out": "here"}
    found = yaml.safe_load(train_flags({"a": 1.5, "b": 0.5}, setting, 40, flags, change=True))
    assert found["group_weights"] == '"a"=3.0,"b"=0.5'
    assert found["data"] == ["x.jsonl"]
    assert found["learning_rate"] == 0.4
    assert not {"goal", "out"} & set(found)
    kept = yaml.safe_load(train_flags({"a": 1.0, "b": 1.0}, setting, 40, flags, change=False))
    assert kept["group_weights"] == '"a"=2.0'


def test_the_command_writes_a_recipe_that_training_takes(tmp_path):
    runner, out = CliRunner(), tmp_path / "plan"
    few = ["--groups", "takes risks,plays it safe,feels lucky", "--limit", "60"]
    result = runner.invoke(app, ["plan", "weights", *few, "--steps", "30", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) <= 15
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:3]] == ["Change", "Expect", "How sure"]
    summary = json.loads((out / "summary.json").read_text())
    weights = summary["plan"]["weights"]["weights"]
    with (out / "weights.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(weights)
    data = load_dataset(out / "dataset.jsonl")
    for row in data.table.select(["group", "weight"]).to_pylist():
        assert row["weight"] == pytest.approx(weights[row["group"]])
    assert "How sure" in render([read_folder(out)])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data_files=&#34;dataset.jsonl&#34;" in page
    assert ".partial" not in page
    trained = runner.invoke(
        app, ["train", "--config", str(out / "plan.yaml"), "--out", str(tmp_path / "run")], catch_exceptions=False
    )
    assert trained.exit_code == 0, trained.output
    settings = json.loads((tmp_path / "run" / "summary.json").read_text())["settings"]
    assert settings["steps"] == 30


@given(groups=st.integers(1, 60), error=st.floats(1e-3, 0.3), seed=st.integers(0, 99))
def test_at_its_sharpest_a_smooth_score_is_within_one_error_of_the_largest(groups, error, seed):
    score = GoalScore(scale=np.ones(groups), offset=np.zeros(groups), limit=np.full(groups, np.inf), mean=False)
    losses = np.random.default_rng(seed).normal(0.7, error, groups)
    off = score.smooth(losses, score.sharpest(error))[0] - score.hard(losses)
    assert -1e-12 <= off <= error * (1 + 1e-9)
    dull = score.smooth(np.full(groups, 0.7), score.sharpest(error))[0] - 0.7
    assert groups < 3 or dull == pytest.approx(error, rel=1e-6), "no sharper than the error allows"
