"""Which pairs to leave out: what is said where labels are right, where some are wrong, and what is written."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.adjoint import one_setting
from prefdyn.dynamics.crossfit import FOLDS, deal
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import DPO, IPO
from prefdyn.planning.rules import scores, trained_folds
from prefdyn.planning.select import Spanned, Way, _Board, _decision, _ends, _first, allowing, plan_select
from prefdyn.planning.weights import weighted_losses
from prefdyn.synthetic import gaussian_groups

STEPS = 30


def turned(rate, seed=0, size=150):
    feats = gaussian_groups(size, groups=3, width=16, half_gap=[2.5, 3.0, 3.5], held_out=0.0, seed=seed)
    wrong = np.random.default_rng(seed).random(len(feats)) < rate
    return feats.flipped(wrong), wrong


@pytest.fixture(scope="module")
def noisy():
    feats, wrong = turned(0.25, size=200)
    return plan_select(feats, steps=STEPS, progress=False), wrong


def test_right_labels_are_kept():
    for seed in range(1):
        feats, _ = turned(0.0, seed=seed, size=100)
        plan = plan_select(feats, steps=STEPS, seed=seed, progress=False)
        assert not plan.change
        assert plan.wrong is not None
        assert plan.wrong.low == 0.0


def test_many_wrong_labels_are_found_and_their_share_is_told(noisy):
    plan, wrong = noisy
    assert plan.wrong.low <= 0.25 <= plan.wrong.high
    assert plan.wrong.low > 0.1
    assert plan.change
    assert plan.gain.low > 0
    assert wrong[plan.named].mean() > 0.7  # by lot it would be a quarter


def test_what_a_rule_reads_never_comes_from_pairs_that_judge_or_choose():
    feats, _ = turned(0.1)
    fold = deal(feats, np.arange(len(feats)), FOLDS, 0)
    setting = one_setting(feats)
    before = scores(feats, setting, 10, fold)
    for judged in (0, 2):
        apart = (fold == judged) | (fold == (judged + 1) % FOLDS)
        after = scores(feats.flipped(apart), setting, 10, fold)
        for name, values in before.by_fold.items():
            assert np.isnan(values[judged][apart]).all()
            np.testing.assert_allclose(after.by_fold[name][judged], values[judged], err_msg=name, atol=1e-12)


def test_values_say_what_leaving_a_pair_out_does():
    feats, _ = turned(0.1, size=60)
    fold = deal(feats, np.arange(len(feats)), FOLDS, 0)
    setting = one_setting(feats)
    score = scores(feats, setting, 10, fold).by_fold["value_all"][0]
    one, two, three = trained_folds(0)
    row = int(np.flatnonzero(fold == one)[0])
    changes = []
    for other, judge in ((two, three), (three, two)):
        weights = np.isin(fold, (one, other)).astype(float)[:, None].repeat(2, axis=1)
        weights[row, 1] = 0.98
        ends = weighted_losses(feats, setting, 10, weights)
        means = [ends[(fold == judge) & (feats.group == code)].mean(axis=0) for code in range(3)]
        before, after = np.mean(means, axis=0)
        changes.append((before - after) / 0.02)  # what more weight adds
    assert score[row] == pytest.approx(np.mean(changes), rel=0.05)


def test_turning_round_is_reading_the_flipped_pair():
    feats, _ = turned(0.0, size=40)
    setting, some = one_setting(feats), np.arange(len(feats)) % 7 == 0
    weights = np.where(some, -1.0, 1.0)[:, None]
    found = _ends(feats, setting, 8, weights, 0.0, turned=True)[0]
    other = weighted_losses(feats.flipped(some), setting, 8, np.ones((len(feats), 1)))[:, 0]
    np.testing.assert_allclose(found[~some], other[~some], rtol=1e-9)


@pytest.mark.parametrize("objective", [DPO(beta=0.1), IPO(beta=0.5)], ids=["sigmoid", "ipo"])
def test_losses_that_allow_for_wrong_labels_have_the_mean_of_the_right_ones(objective):
    r, rate = np.linspace(-3, 3, 7), 0.15
    said = (1 - rate) * allowing(objective, r, rate) + rate * allowing(objective, -r, rate)
    np.testing.assert_allclose(said, objective.loss(r), rtol=1e-12)
    np.testing.assert_array_equal(allowing(objective, r, 0.0), objective.loss(r))


def test_gains_are_means_over_groups_with_errors_over_units():
    """Against a bootstrap of whole units, written out."""
    feats, _ = turned(0.0, size=100)
    rng = np.random.default_rng(1)
    unit = np.arange(len(feats)) // 2
    old = rng.normal(size=len(feats))
    new = old - 0.1 - np.repeat(rng.normal(size=len(feats) // 2), 2)
    board = _Board(feats, unit, np.zeros(len(feats), dtype=int), [None], old[None], old[None])
    gain = board.gain(old, new)
    better = old - new
    by_unit = better.reshape(-1, 2).mean(axis=1)
    home = feats.group[::2]
    drawn = [
        np.mean([by_unit[rng.choice(np.flatnonzero(home == code), (home == code).sum())].mean() for code in range(3)])
        for _ in range(4000)
    ]
    assert gain.value == pytest.approx(np.mean([by_unit[home == code].mean() for code in range(3)]))
    assert gain.high - gain.low == pytest.approx(np.diff(np.percentile(drawn, [5, 95]))[0], rel=0.08)


def test_the_first_by_a_score_are_a_share_of_the_known():
    score = np.array([0.3, np.nan, 0.9, 0.1, 0.5])
    assert np.flatnonzero(_first(score, 0.5)).tolist() == [2, 4]


@pytest.mark.parametrize(
    ("gain", "over", "change", "said"),
    [
        (
            Spanned(value=0.05, low=0.01, high=0.09),
            Spanned(value=0.05, low=0.01, high=0.09),
            True,
            "becomes better by 0.05",
        ),
        (Spanned(value=0.05, low=-0.01, high=0.11), Spanned(value=0.05, low=0.01, high=0.09), False, "keep every pair"),
        (Spanned(value=0.05, low=0.01, high=0.09), Spanned(value=0.0, low=-0.01, high=0.01), False, "random pairs"),
        (Spanned(value=0.005, low=0.001, high=0.009), Spanned(value=0.005, low=0.001, high=0.009), False, "under 5%"),
    ],
)
def test_a_change_is_proposed_only_where_everything_speaks_for_it(gain, over, change, said):
    found, because = _decision(Way("drop", "loss_after", 0.1), gain, over, 0.01)
    assert found is change
    assert said in because
    assert _decision(None, gain, over, 0.01)[0] is False


def test_the_same_seed_gives_the_same_plan(noisy):
    feats, _ = turned(0.25, size=200)
    again = plan_select(feats, steps=STEPS, progress=False)
    assert json.dumps(again.summary()["plan"]) == json.dumps(noisy[0].summary()["plan"])


def test_what_cannot_be_planned_is_refused():
    few = gaussian_groups(16, groups=2, width=8, held_out=0.0)
    with pytest.raises(DataError, match=r"32 units .* are too few"):
        plan_select(few, progress=False)
    with pytest.raises(ConfigError, match=r"share is 0\.7"):
        plan_select(few, shares=(0.7,), progress=False)


def texts(plan):
    ids = plan.features.id
    return PreferenceDataset.from_rows(
        [{"prompt": f"q{k}", "chosen": f" yes {k}", "rejected": f" no {k}", "id": str(k)} for k in ids]
    )


def test_the_dataset_is_what_the_plan_says(noisy):
    plan, _ = noisy
    data, found = texts(plan), plan.selected(texts(plan))
    named = set(plan.features.id[plan.named])
    match plan.way.action:
        case "drop":
            assert set(found.table["id"].to_pylist()) == set(data.table["id"].to_pylist()) - named
        case "flip":
            assert all((row["chosen"].startswith(" no")) == (row["id"] in named) for row in found.to_rows())
        case _:
            assert all((row["weight"] == 0.5) == (row["id"] in named) for row in found.to_rows())
    halved = replace(plan, way=Way("half", plan.way.rule, plan.way.share)).selected(data)
    assert {row["weight"] for row in halved.to_rows()} == {0.5, 1.0}
    kept = replace(plan, change=False).selected(data)
    assert kept is data


@pytest.mark.thorough
def test_the_command_writes_a_dataset_that_training_takes(tmp_path):
    out = tmp_path / "plan"
    few = ["--groups", "takes risks,plays it safe,feels lucky", "--limit", "60", "--steps", "15"]
    result = CliRunner().invoke(app, ["plan", "select", *few, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:4]] == [
        "Change", "Expect", "How sure", "Wrong labels",
    ]  # fmt: skip
    part = json.loads((out / "summary.json").read_text())["plan"]["select"]
    assert len(part["tried"]) > 20
    data = load_dataset(str(out / "dataset.jsonl"))
    assert len(data) <= 180
    assert "Every rule, on this data" in (out / "report.html").read_text()
    trained = CliRunner().invoke(
        app, ["train", "--config", str(out / "plan.yaml"), "--out", str(tmp_path / "run")], catch_exceptions=False
    )
    assert trained.exit_code == 0, trained.output
