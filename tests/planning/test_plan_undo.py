"""What undoes a run: steps and pairs against a network trained there and back by hand, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.planning.undo import LONGEST, _reached, plan_undo
from prefdyn.store import save_features
from prefdyn.synthetic import gaussian_groups

STEPS = 20


def log_softmax(values):
    return values - np.logaddexp.reduce(values, axis=1, keepdims=True)


def tuned(head, states, chosen, rejected, rate, steps, beta):
    """Heads of every step of DPO on the log-probabilities of a softmax head, its reference the head it begins from."""
    row, found = np.arange(len(states)), [head]

    def gap(one):
        log = log_softmax(states @ one.T)
        return log[row, chosen] - log[row, rejected]

    start = gap(head)
    for _ in range(steps):
        push = beta / (1 + np.exp(beta * (gap(head) - start))) / len(states)
        step = np.zeros_like(head)
        np.add.at(step, chosen, push[:, None] * states)
        np.add.at(step, rejected, -push[:, None] * states)
        head = head + rate * step
        found.append(head)
    return found


def test_steps_back_are_those_of_a_softmax_head_trained_there_and_back():
    rng, beta, rate = np.random.default_rng(0), 0.5, 2.0
    states = rng.normal(size=(120, 6))
    first = rng.random(120) < 1 / (1 + np.exp(-3 * states[:, 0]))
    chosen, rejected = np.where(first, 0, 1), np.where(first, 1, 0)
    group, held = np.repeat([0, 1], 60), np.arange(120) % 3 == 0
    feats = FeatureSet.from_arrays(states, chosen=chosen, rejected=rejected, group=group, held_out=held)
    head = rng.normal(size=(2, 6))
    trained = tuned(head, states[~held], chosen[~held], rejected[~held], rate, STEPS, beta)[-1]
    own = ~held & (group == 1)
    back = tuned(trained, states[own], rejected[own], chosen[own], rate, LONGEST * STEPS, beta)

    def margin(one, rows):
        log, row = log_softmax(states[rows] @ one.T), np.arange(rows.sum())
        return log[row, chosen[rows]] - log[row, rejected[rows]]

    margins = beta * (margin(trained, held | ~held) - margin(head, held | ~held))
    judged = held & (group == 1)
    losses = np.array([np.logaddexp(0, -beta * (margin(one, judged) - margin(head, judged))).mean() for one in back])
    plan = plan_undo(
        feats, margins=margins, tune="last-layer", beta=beta, learning_rate=rate, steps=STEPS, progress=False
    )
    found = plan.groups[feats.groups[1]]
    assert found is not None
    assert plan.exact
    assert found.after.value == pytest.approx(losses[0])
    assert found.opposite == pytest.approx(losses[STEPS], rel=1e-7)
    first_over = int(np.argmax(losses >= np.log(2)))
    assert first_over - 1 <= found.steps.value <= first_over + 0.5
    assert found.steps.low <= found.steps.value <= found.steps.high


def test_groups_come_in_the_order_of_their_ease_within_their_intervals():
    feats = gaussian_groups(60, groups=3, width=8, half_gap=[1.0, 1.5, 3.0], held_out=0.0)
    plan = plan_undo(feats, steps=STEPS, progress=False)
    found = [each for name in plan.fragile if (each := plan.groups[name]) is not None]
    assert len(found) >= 2
    assert [each.ease.value for each in found] == sorted(each.ease.value for each in found)
    assert all(each.ease.low <= each.ease.value <= each.ease.high and 1 <= each.needed.value <= 48 for each in found)
    assert [row["name"] for row in plan.rows()][: len(found)] == plan.fragile


def test_a_group_that_learned_nothing_has_nothing_to_undo():
    feats = gaussian_groups(80, groups=2, width=12, half_gap=[0.0, 2.0], held_out=0.0)
    plan = plan_undo(feats, steps=STEPS, progress=False)
    assert plan.groups["group 0"] is None
    assert plan.fragile == ["group 1"]


def test_undoing_one_of_two_that_agree_harms_the_other():
    directions = np.zeros((3, 8))
    directions[0, 0] = directions[1, 0] = directions[2, 1] = 1.0
    feats = gaussian_groups(80, groups=3, width=8, half_gap=2.0, directions=directions, held_out=0.0)
    plan = plan_undo(feats, steps=STEPS, progress=False)
    first = plan.groups["group 0"]
    assert first is not None
    assert first.harmed == "group 1"
    assert first.harm > 0.05


def test_where_a_level_is_reached():
    at, rows = np.array([0.0, 2.0, 4.0]), np.array([[0.0, 1.0, 3.0], [4.0, 0.0, 0.0], [0.0, np.nan, np.nan]])
    np.testing.assert_array_equal(_reached(at, rows, 2.0), [3.0, 0.0, np.nan])


def test_what_cannot_be_undone_is_refused():
    feats = gaussian_groups(3, groups=2, width=8, held_out=0.0)
    with pytest.raises(DataError, match="no group has 5 units"):
        plan_undo(feats, progress=False)
    with pytest.raises(ConfigError, match="full batches"):
        plan_undo(feats, batch_size=2, progress=False)


def test_the_command_takes_a_run_that_was_trained(tmp_path):
    feats = gaussian_groups(60, groups=2, width=8, half_gap=[1.5, 2.5], held_out=0.3)
    save_features(feats, tmp_path / "features")
    asked = ["--features", str(tmp_path / "features"), "--steps", str(STEPS)]
    run, out = tmp_path / "run", tmp_path / "plan"
    done = CliRunner().invoke(app, ["simulate", *asked, "--beta", "0.3", "--out", str(run)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    call = ["plan", "undo", *asked, "--trained", str(run), "--out"]
    result = CliRunner().invoke(app, [*call, str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["settings"]["beta"] == 0.3
    assert summary["plan"]["undo"]["exact"]
    held = feats.held_out & (feats.group == 0)
    margins = np.array(parquet.read_table(run / "pairs.parquet")["margin"].to_pylist())[held]
    row = next(each for each in summary["groups"] if each["name"] == "group 0")
    assert row["loss_after"] == pytest.approx(np.logaddexp(0, -margins).mean())
    assert "What undoes it" in (out / "report.html").read_text()
    table = parquet.read_table(run / "pairs.parquet")
    parquet.write_table(
        table.set_column(0, "id", pa.array([f"x{i}" for i in range(len(table))])), run / "pairs.parquet"
    )
    failed = CliRunner().invoke(app, [*call, str(tmp_path / "other")])
    assert failed.exit_code == 1
    assert "was trained on other pairs" in str(failed.exception)
    assert not (tmp_path / "other").exists()
