"""Which settings: what is said where all are alike, and where the run as given goes on too long."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.optimize import minimize_scalar
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.dynamics.descent import descent
from prefdyn.errors import ConfigError, DataError
from prefdyn.planning.settings import _margins, plan_settings, scaled_losses
from prefdyn.store import save_features
from prefdyn.synthetic import gaussian_groups

LONG = 400


def drawn(size, width, gaps, wrong=0.0, seed=0, further=0):
    """Groups with a share of wrong labels; `further` right pairs per group are held out."""
    law: dict[str, Any] = {"directions": np.ones((len(gaps), 1))} if width == 1 else {}
    count = size + further
    feats = gaussian_groups(count, groups=len(gaps), width=width, half_gap=gaps, held_out=0.0, seed=seed, **law)
    held = np.tile(np.arange(count) >= size, len(gaps))
    turned = (np.random.default_rng(seed).random(len(feats)) < wrong) & ~held
    return replace(feats.flipped(turned), held_out=held)


@pytest.fixture(scope="module")
def late():
    """A hundred pairs per group in 64 directions, a fifth of the labels wrong: 400 steps learn them by heart."""
    feats = drawn(100, 64, [2.0, 2.5, 3.0], wrong=0.2, further=300)
    return plan_settings(feats, steps=LONG, progress=False)


def test_scaled_losses_are_those_of_the_best_factor():
    rng = np.random.default_rng(0)
    margins, group, fitted = rng.normal(0.4, 1.0, (2, 90)) * [[0.01], [30]], np.arange(90) % 3, np.arange(90) < 60
    found = scaled_losses(margins, group, fitted)
    for values, losses in zip(margins, found, strict=True):
        spread = np.sqrt(np.mean(values[fitted] ** 2))

        def cost(factor, values=values / spread):
            own = np.logaddexp(0, -factor * values[:60])
            means = np.mean([own[group[:60] == code].mean() for code in range(3)])
            return 60 * means + np.logaddexp(0, -factor) + np.logaddexp(0, factor)

        best: Any = minimize_scalar(cost, bounds=(0, 20), method="bounded", options={"xatol": 1e-9})
        np.testing.assert_allclose(losses, np.logaddexp(0, -best.x * values / spread), rtol=1e-6)


def test_margins_that_point_the_wrong_way_are_guesses():
    margins = -np.abs(np.random.default_rng(0).normal(1.0, 0.1, (1, 30)))
    np.testing.assert_allclose(scaled_losses(margins, np.zeros(30, int), np.ones(30, bool)), np.log(2), atol=1e-9)


def test_every_candidate_is_its_own_run(late):
    feats = late.features
    some = [0, 5, 23, len(late.candidates) - 1]
    found = _margins(feats, [late.candidates[place] for place in some])
    for margins, place in zip(found, some, strict=True):
        one = late.candidates[place]
        alone = descent(
            feats, one.setting.objective, learning_rate=one.setting.learning_rate, steps=one.steps, alone=False,
            record=[0], margins_at=[one.steps],
        )  # fmt: skip
        np.testing.assert_allclose(margins, alone.margins[one.steps], rtol=1e-9, atol=1e-12)


def test_settings_that_are_all_alike_are_kept():
    plan = plan_settings(drawn(80, 1, [1.0, 1.0]), steps=30, progress=False)
    fine = plan.loss[np.isfinite(plan.loss)]
    np.testing.assert_allclose(fine, fine[0], rtol=1e-12)
    assert not plan.change
    assert plan.proposal is plan.candidates[0]


def test_a_run_that_learns_by_heart_is_to_be_another_one_and_is_truly_better(late):
    assert late.change
    feats, held = late.features, late.features.held_out
    found = _margins(feats, [late.candidates[0], late.proposal])
    losses = scaled_losses(found, feats.group, held)[:, held].mean(axis=1)
    assert losses[1] < losses[0] - 0.01
    names = [row["name"] for row in late.summary()["plan"]["settings"]["methods"]]
    assert names == ["as_given", "plan", "simple", "trl"]


def test_pairs_that_are_held_out_take_no_part(late):
    feats = late.features
    states = np.where(feats.held_out[:, None], -3.0 * feats.states, feats.states)
    rate = late.candidates[0].setting.learning_rate
    plans = [
        plan_settings(each, steps=30, learning_rate=rate, progress=False)
        for each in (feats, replace(feats, states=states))
    ]
    np.testing.assert_array_equal(plans[0].loss, plans[1].loss)


def test_beta_is_tried_where_it_is_more_than_a_rate():
    plan = plan_settings(
        drawn(60, 8, [1.0, 1.5]), optimizer="adamw", learning_rate=0.01, batch_size=16, steps=12, progress=False
    )
    assert {round(one.setting.objective.beta, 6) for one in plan.candidates} == {0.02, 0.1, 0.5}
    with pytest.raises(ConfigError, match="more than the 72 pairs"):
        plan_settings(drawn(60, 8, [1.0, 1.5]), batch_size=100, steps=12, progress=False)


def test_the_same_seed_gives_the_same_plan():
    feats = drawn(60, 8, [1.0, 1.5])
    first, second = (json.dumps(plan_settings(feats, steps=20, progress=False).summary()["plan"]) for _ in range(2))
    assert first == second


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(DataError, match="are too few to choose settings by"):
        plan_settings(drawn(10, 8, [1.0, 1.0]), progress=False)
    with pytest.raises(ConfigError, match="not for 'equal'"):
        plan_settings(drawn(30, 8, [1.0, 1.0]), "equal", progress=False)


def test_the_command_writes_what_training_takes(tmp_path, late):
    save_features(late.features, tmp_path / "features")
    call = ["plan", "settings", "--features", str(tmp_path / "features"), "--steps", "20", "--goal", "worst"]
    result = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "plan")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:3]] == ["Run", "Expect", "How sure"]
    part = json.loads((tmp_path / "plan" / "summary.json").read_text())["plan"]["settings"]
    flags = yaml.safe_load((tmp_path / "plan" / "plan.yaml").read_text())
    proposal = part["best"] if part["change"] else part["given"]
    assert {name: flags[name] for name in ("objective", "steps")} == {
        name: proposal[name] for name in ("objective", "steps")
    }
    assert yaml.safe_load((tmp_path / "plan" / "trl.yaml").read_text())["loss_type"] == flags["objective"]
    page = (tmp_path / "plan" / "report.html").read_text()
    assert "Every setting" in page
    assert "Which settings" in page
