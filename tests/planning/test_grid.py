"""Grids: cells equal runs of their own, the proposal follows its rule, and what diverges is told apart."""

import csv
import math
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest

from prefdyn.dynamics.descent import descent, stable_learning_rate
from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import DPO, GPOIPO, SLiC
from prefdyn.planning.grid import best_cell, grid
from prefdyn.planning.simulate import simulate
from prefdyn.report.folders import read_folder
from prefdyn.report.grid import grid_drawings, grid_table
from prefdyn.report.html import render
from prefdyn.synthetic import gaussian_groups


def features(**change):
    given = {"groups": 4, "width": 16, "noise": 0.8, "half_gap": [2.0, 1.0, 0.6, 0.3], "held_out": 0.25}
    return gaussian_groups(60, **(given | change))


@pytest.fixture(scope="module")
def found():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return grid(
            features(),
            [DPO(beta=0.1), DPO(beta=0.5), SLiC(beta=0.5)],
            learning_rates=[0.05, 1.0, 1e6],
            optimizers=["sgd", "adam"],
            steps=[30],
            progress=False,
        )


def test_cells_are_runs_of_their_own(found):
    feats = features()
    for cell in (0, 2, 6):
        row = found.rows()[cell]
        if row["optimizer"] != "sgd" or row["diverged_at"] is not None:
            continue
        kind = DPO if row["objective"] == "sigmoid" else SLiC
        run = descent(feats, kind(beta=row["beta"]), learning_rate=row["learning_rate"], steps=30, alone=False)
        for name in feats.groups:
            steps, ours = found.runs[cell].curve("loss", group=name, split="held_out")
            np.testing.assert_array_equal(steps, run.curve("loss", group=name, split="held_out")[0])
            np.testing.assert_allclose(ours, run.curve("loss", group=name, split="held_out")[1], rtol=1e-9)
    assert len(found.rows()) == 18


def test_the_proposal_is_within_one_standard_error_and_the_first_at_its_target(found):
    rows = found.rows()
    assert found.best is not None
    best = rows[found.best]
    alive = [row for row in rows if row["diverged_at"] is None]
    top = max(row["held_out_accuracy"] for row in alive)
    error = next(row["held_out_error"] for row in alive if row["held_out_accuracy"] == top)
    near = [row for row in alive if row["held_out_accuracy"] >= top - error and row["steps_to_target"] is not None]
    assert best["held_out_accuracy"] >= top - error
    assert best["steps_to_target"] == min(row["steps_to_target"] for row in near)
    assert f"{best['held_out_accuracy']:.3f}" in found.because
    assert math.isclose(error, math.sqrt(top * (1 - top) / features().held_out.sum()))


def test_what_a_cell_tells_is_the_mean_over_all_pairs_at_the_last_step(found):
    for run, row in zip(found.runs, found.rows(), strict=True):
        if row["diverged_at"] is not None:
            continue
        for split, quantity, name in (
            ("held_out", "loss", "held_out_loss"),
            ("held_out", "margin", "held_out_margin"),
            ("held_out", "reward_accuracy", "held_out_accuracy"),
            ("train", "loss", "train_loss"),
        ):
            last = [each for each in run.where(split=split).to_pylist() if each["step"] == 30]
            assert len(last) == 4
            mean = np.average([each[quantity] for each in last], weights=[each["pairs"] for each in last])
            assert row[name] == pytest.approx(mean)
        assert row["last_step"] == 30


def cell(place, accuracy, steps, error=0.03, **change):
    return {
        "cell": place, "diverged_at": None, "held_out_accuracy": accuracy, "held_out_error": error,
        "steps_to_target": steps,
    } | change  # fmt: skip


def test_a_quicker_setting_is_taken_within_one_standard_error_and_not_within_two():
    top = cell(0, 0.90, 500)
    assert best_cell([top, cell(1, 0.88, 20), cell(2, 0.86, 5)])[0] == 1
    assert best_cell([top, cell(1, 0.86, 5)])[0] == 0
    assert best_cell([cell(0, 0.86, 5), cell(1, 0.90, 500), cell(2, 0.91, None, error=0.005)])[0] == 2
    best, because = best_cell([top, cell(1, 0.88, 20), cell(2, 0.86, 5), cell(3, 0.89, 20)])
    assert best == 3  # as quick as setting 1, and better
    assert "its held-out accuracy 0.890 is within one standard error (0.030) of the best, 0.900" in because
    assert (
        "as is that of 2 of 3 other settings, and it is the first of those to reach its target, in 20 steps" in because
    )


def test_a_setting_that_diverged_is_never_taken():
    lost = cell(1, math.nan, None, error=math.nan, diverged_at=3)
    assert best_cell([lost, cell(0, 0.6, 9)])[0] == 0
    assert best_cell([lost])[0] is None


def test_what_diverges_is_named_and_the_others_are_whole(found):
    rows = found.rows()
    lost = [row for row in rows if row["diverged_at"] is not None]
    assert lost
    assert all(row["held_out_accuracy"] is None and row["steps_to_target"] is None for row in lost)
    assert {row["learning_rate"] for row in lost} == {1e6}
    assert all(row["held_out_loss"] is not None for row in rows if row not in lost)


def test_steps_to_the_target_are_the_first_recorded_below_it(found):
    for cell, row in enumerate(found.rows()):
        run = found.runs[cell]
        table = run.where(split="held_out")
        steps, losses, pairs = (table[name].to_numpy() for name in ("step", "loss", "pairs"))
        pooled = {step: np.average(losses[steps == step], weights=pairs[steps == step]) for step in np.unique(steps)}
        if row["steps_to_target"] is not None:
            before = [loss for step, loss in pooled.items() if step < row["steps_to_target"]]
            assert pooled[row["steps_to_target"]] <= row["target"] < min(before)
    asked = grid(features(), [DPO(beta=0.5)], learning_rates=[0.05, 0.2], target=0.6, progress=False)
    assert {row["target"] for row in asked.rows()} == {0.6}


def test_auto_is_the_stable_rate_of_each_objective_and_of_descent_alone():
    feats = features()
    made = grid(feats, [DPO(beta=0.1), GPOIPO(beta=0.1)], learning_rates=["auto", 0.1], steps=[5], progress=False)
    rates = {(row["objective"], row["learning_rate_rule"]): row["learning_rate"] for row in made.rows()}
    assert rates["sigmoid", "half of the largest stable step"] == stable_learning_rate(feats, DPO(beta=0.1))
    assert rates["gpo_ipo", "half of the largest stable step"] == stable_learning_rate(feats, GPOIPO(beta=0.1))
    with pytest.raises(ConfigError, match="half of the largest stable step of gradient descent, which adam is not"):
        grid(feats, [DPO()], learning_rates=["auto"], optimizers=["adam"], progress=False)


def test_the_order_of_learning_follows_the_gaps():
    """Groups twice as far apart are learned sooner at every stable setting: ranks 1 to 4 as drawn, agreement 1."""
    feats = features(noise=0.1)
    made = grid(feats, [DPO(beta=0.1), DPO(beta=0.5)], learning_rates=["auto", 0.05], steps=[20], progress=False)
    assert (made.ranks == np.array([[1, 2, 3, 4]]).T).all()
    assert [row["order_agreement"] for row in made.rows()] == pytest.approx([1.0] * 4)


def test_without_held_out_pairs_nothing_is_proposed():
    made = grid(features(held_out=0.0), [DPO(beta=0.5)], learning_rates=[0.05, 0.2], steps=[5], progress=False)
    assert made.best is None
    assert "no pair is held out" in made.because


def test_files_page_and_table(found, tmp_path):
    folder = tmp_path / "grid"
    folder.mkdir()
    found.write(folder)
    assert {path.name for path in folder.iterdir()} == {"summary.json", "cells.csv", "trajectory.parquet"}
    rows = list(csv.DictReader((folder / "cells.csv").read_text().splitlines()))
    assert [int(row["cell"]) for row in rows] == list(range(18))
    table = pq.read_table(folder / "trajectory.parquet")
    assert set(table["cell"].to_pylist()) == set(range(18))
    run = read_folder(folder)
    names = [drawing.id for drawing in grid_drawings(run)]
    assert names == ["steps-0", "steps-1", "steps-2", "steps-3", "order-stability", "learning-order"]
    page = render([run], static=False)
    assert "Which setting" in page
    assert found.because.split(":")[0][:20] in page
    assert 'data-panel="' not in page
    text = grid_table(run.summary)
    assert "diverged at" in text
    assert text.splitlines()[-1].startswith("Take ")


@pytest.mark.parametrize("optimizer_name", ["adam", "momentum"])
def test_one_setting_of_any_optimizer_is_a_run_with_its_groups_alone(optimizer_name):
    from prefdyn.maths.optimizers import optimizer

    feats = features()
    found = simulate(
        feats, DPO(beta=0.2), learning_rate=0.01, optimizer=optimizer(optimizer_name), batch_size=50, steps=12,
        progress=False,
    )  # fmt: skip
    runs = set(found.trajectory.table["run"].to_pylist())
    assert runs == {"joint", "alone"}
    assert found.trajectory.settings["batch_size"] == 50
    assert found.trajectory.final("loss", group="group 0", run="alone") < math.log(2)
    assert set(found.trajectory.alone_heads) == set(feats.groups)
    with pytest.raises(ConfigError, match="give a number here"):
        simulate(feats, DPO(), optimizer=optimizer("adam"), progress=False)
