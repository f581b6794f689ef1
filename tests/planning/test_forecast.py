"""The forecast: its probe is the run's own beginning, its files say what it holds, a run is held against it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from scipy.optimize import nnls

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.progress import progress
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import DPO, SFT
from prefdyn.planning.forecast import CURVES, forecast, order_sentence
from prefdyn.planning.forecast_check import check_forecast
from prefdyn.report.folders import RunFolder, read_folder
from prefdyn.report.forecast import forecast_drawings, forecast_table
from prefdyn.report.forecast_modules import modules_words
from prefdyn.report.html import render
from prefdyn.training.rehearse import run_at
from prefdyn.training.settings import LoRA
from prefdyn.training.train import run_training
from prefdyn.training.watching import Watch
from tests.models.conftest import own_cache, rows, tiny

__all__ = ["own_cache", "tiny"]

RUN = {
    "objective": DPO(beta=0.5), "learning_rate": 5e-3, "steps": 16, "batch_size": 6, "lora": LoRA(rank=2, alpha=4.0),
    "progress": False,
}  # fmt: skip


def data(count=90, groups=3):
    return PreferenceDataset.from_rows(rows(count, groups=groups), name="statements").with_held_out(0.6, seed=0)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A forecast of a tiny run, and its folder."""
    from tests.models.conftest import byte_tokenizer, make_model

    root = tmp_path_factory.mktemp("forecast")
    model = make_model(root / "model", "llama-tied", byte_tokenizer())
    found = forecast(data(), str(model), probe=4, cache=False, out=root, **RUN)
    (root / "out").mkdir()
    found.write(root / "out")
    return found, root / "out", str(model)


@pytest.fixture(scope="module")
def run(told):
    """The run itself, measured at every step."""
    return run_training(data(), told[2], tune="lora", record="all", probe_pairs="all", probes=(), cache=False, **RUN)


def test_the_probe_is_the_beginning_of_the_run_that_train_makes(told, run):
    found, _, _ = told
    assert found.probe.steps.tolist()[-1] == 4
    for code, name in enumerate(found.names):
        steps, losses = run.trajectory.curve("loss", group=name, split="held_out")
        np.testing.assert_allclose(found.probe.values["loss"][:, code], losses[found.probe.steps], rtol=1e-6)
        assert steps.tolist() == list(range(17))


def test_the_same_seed_gives_the_same_forecast(told):
    found, _, model = told
    again = forecast(data(), model, probe=4, cache=False, **RUN)
    np.testing.assert_array_equal(found.band.centre, again.band.centre)
    np.testing.assert_array_equal(found.order, again.order)
    assert found.says() == again.says()


def test_files_say_what_the_forecast_holds(told):
    found, folder, _ = told
    curves = pq.read_table(folder / "curves.parquet")
    assert curves.schema == CURVES
    assert set(curves["kind"].to_pylist()) >= {"forecast", "linear", "probe", "rehearsal-1", "rehearsal-2"}
    summary = json.loads((folder / "summary.json").read_text())
    back = Foretold.read(summary)
    np.testing.assert_allclose(back.band.centre, found.band.centre)
    assert back.names == found.names == ("group 0", "group 1", "group 2")
    assert [row["rank"] for row in summary["groups"]] == sorted(row["rank"] for row in summary["groups"])
    cost = summary["forecast"]["cost"]
    assert cost == {"probe": 4 / 16, "rehearsals": pytest.approx(2 * 4 * 1 / (16 * 6))}
    page = render([read_folder(folder)])
    assert "Groups by progress" in page
    assert "The clock" in page
    assert found.says() in forecast_table(summary).replace("\n", " ")


def test_modules_and_what_is_luck_of_them_are_in_the_files_and_on_the_page(told):
    found, folder, _ = told
    part = json.loads((folder / "summary.json").read_text())["forecast"]["by_module"]
    assert (part["since"], part["step"], part["seeds"]) == (4, 16, 2)
    table = csv.read_csv(folder / "modules.csv").to_pylist()
    assert len(table) == len(part["modules"]["rows"]) * 3
    assert {row["layer"] for row in table} == {int(name) for name in part["layers"]["rows"]}
    for what in ("layers", "kinds"):
        margin = np.array(part[what]["margin"])
        assert margin.sum(axis=0).tolist() == pytest.approx(np.array(part["modules"]["margin"]).sum(axis=0).tolist())
        for at, name in enumerate(part[what]["rows"]):
            mine = [row for row in table if name in (str(row["layer"]), row["kind"])]
            for code, group in enumerate(found.names):
                assert sum(row["margin"] for row in mine if row["group"] == group) == pytest.approx(margin[at, code])
    shares = np.array(part["layers"]["share"], dtype=float)
    known = np.isfinite(shares).all(axis=0)
    assert known.any()
    np.testing.assert_allclose(shares[:, known].sum(axis=0), 1)
    page = render([read_folder(folder)])
    assert "Which modules do it, all groups together" in page
    assert "is a sum over modules" in forecast_table(json.loads((folder / "summary.json").read_text())).replace(
        "\n", " "
    )


def test_a_map_is_on_the_page_where_it_was_asked_for(told, tiny):
    found, _, model = told
    assert found.settings_map is None
    assert "map" not in found.summary()["forecast"]
    mapped = forecast(data(), model, probe=4, rehearse=0, map=True, cache=False, **RUN)
    part = mapped.summary()["forecast"]["map"]
    assert part["betas"] == [0.03, 0.1, 0.3, 0.5, 1.0]
    assert part["own"] == [3, 2]
    np.testing.assert_array_equal(mapped.band.levels[0], found.band.levels[0])
    said = forecast_table(mapped.summary()).replace("\n", " ")
    assert f"({part['worst_group'][3][2]})" in said
    assert "was not made" not in said
    run = RunFolder(path=Path(), summary=mapped.summary(), trajectory=None, pairs=None)
    plots = forecast_drawings(run)[-1].plots
    assert [plot.framed for plot in plots] == [(3, 2)] * 2
    matrix = plots[0].matrix
    assert matrix is not None
    assert matrix.shape == (5, 5)


def test_without_a_linear_run_there_is_no_map_and_no_split_by_modules(tiny, monkeypatch):
    monkeypatch.setattr("prefdyn.training.linear._DENSE", 0)
    rest = {name: value for name, value in RUN.items() if name != "lora"} | {"learning_rate": 1e-3, "steps": 4}
    found = forecast(data(), str(tiny("llama-tied")), tune="full", probe=2, map=True, cache=False, **rest)
    assert found.linear is None
    assert found.by_module is None
    assert found.settings_map is None
    assert any("No map of settings was made" in line for line in found.warnings)
    assert np.isfinite(found.values["chosen_change"][0]).all()


def module_words(share, told, seeds=2):
    layers = {"rows": ["0", "1"], "share": share, "told": told}
    part = {"names": ["a", "b"], "since": 4, "step": 16, "seeds": seeds, "layers": layers}
    return modules_words({"by_module": part}) or ""


def test_of_layers_it_is_told_what_is_more_than_luck():
    share, none, one = [[0.75, 0.25], [0.25, 0.75]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]
    said = module_words(share, one)
    assert "1 of 2 groups differ" in said
    assert said.endswith("most of all b: 75 % from layer 1.")
    assert "No group differs" in module_words(share, none)
    assert "Without rehearsals" in module_words(share, none, seeds=0)
    assert "no group's margin moves" in module_words([[None, None], [None, None]], none)
    assert modules_words({}) is None


def test_pictures_reach_as_far_as_what_is_drawn_in_them():
    """A band ends at the horizon, so what errors are below it moves no axis."""
    levels = np.linspace(0.7, 0.5, 11)
    spread = 0.5 * (0.7 - levels)
    error = 0.01 * (0.7 - levels)
    ranges = []
    for far in (0.5, 50.0):
        error[8:] = far
        part = {
            "names": ["a", "b"], "scale": [1.0, 1.0], "freedom": 5.0, "levels": levels.tolist(),
            "error": error.tolist(),
            "centre": np.stack([levels - spread, levels + spread], 1).tolist(), "linear_weight": [0.0] * 11,
        }  # fmt: skip
        run = RunFolder(path=Path(), summary={"groups": [], "forecast": part}, trajectory=None, pairs=None)
        ranges.append(forecast_drawings(run)[0].plots[0].y_range)
    assert ranges[0] == ranges[1]
    assert ranges[0] == pytest.approx((0.4 - 0.02, 0.7 + 0.02), abs=0.02)


def test_at_every_level_groups_have_that_mean(told):
    """What is foretold is by progress: the groups of every level have its loss for their mean."""
    found, _, _ = told
    known = np.isfinite(found.band.centre).all(axis=1)
    assert known.all()
    np.testing.assert_allclose(found.band.centre.mean(axis=1), found.band.levels, atol=1e-9)


def test_a_run_is_held_against_its_forecast(told, run, tmp_path):
    found, folder, _ = told
    summary = json.loads((folder / "summary.json").read_text())
    check = check_forecast(summary, run.trajectory, folders=("f", "t"))
    np.testing.assert_allclose(progress(check.loss)[0], found.band.levels[0], rtol=1e-6)
    check.write(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["forecast"]["says"] == check.says()
    assert "Forecast against run" in render([read_folder(tmp_path)])
    if len(check.compared):
        naive = np.abs(found.band.centre[check.compared[-1]] - check.run[check.compared[-1]]).mean()
        assert check.at_shares()[-1]["error"] == pytest.approx(naive)
    assert check.notes == ()


def test_other_settings_and_groups_are_told(told, run):
    summary = json.loads((told[1] / "summary.json").read_text())
    summary["settings"]["learning_rate"] = 1.0
    assert "learning_rate 1.0 foretold, 0.005 made" in check_forecast(summary, run.trajectory).notes[0]
    summary["forecast"]["names"][0] = "other"
    with pytest.raises(DataError, match="no held-out pairs of group 'other'"):
        check_forecast(summary, run.trajectory)
    with pytest.raises(DataError, match="no forecast"):
        check_forecast({}, run.trajectory)


def test_what_cannot_be_foretold_is_refused(tiny):
    model = str(tiny("llama-tied"))
    with pytest.raises(ConfigError, match="does not read"):
        forecast(data(), model, **{**RUN, "objective": SFT()})
    with pytest.raises(ConfigError, match="nothing real is run"):
        forecast(data(), model, probe=0, rehearse=0, **RUN)
    with pytest.raises(ConfigError, match="the run has 16"):
        forecast(data(), model, probe=16, **RUN)
    everything = PreferenceDataset.from_rows(rows(12), name="statements")
    with pytest.raises(DataError, match="held out"):
        forecast(everything, model, **RUN)


@pytest.mark.parametrize("choice", [{"probe": 0, "rehearse": 0.125}, {"probe": 4, "rehearse": 0}])
def test_a_part_alone_is_enough(tiny, choice):
    found = forecast(data(), str(tiny("llama-tied")), cache=False, **choice, **RUN)
    assert len(found.rehearsals) == (2 if choice["rehearse"] else 0)
    assert np.isfinite(found.band.centre).all()
    assert found.clock.by == ("rehearsals" if choice["rehearse"] else "linear")


def test_of_a_probe_alone_its_own_beginning_is_the_backtest(tiny):
    """What the linear run from a third of the probe was off by at the probe's end is the error as far from that end."""
    found = forecast(data(), str(tiny("llama-tied")), probe=6, rehearse=0, cache=False, **RUN | {"steps": 40})
    assert found.probe.steps[-1] == 6
    assert 2 in found.probe.steps
    assert found.rehearsals == ()
    assert found.cost == {"probe": 6 / 40, "rehearsals": 0}
    assert found.backtest is not None
    np.testing.assert_array_equal(found.band.linear[1:], 1.0)
    ends = [progress(each.values["loss"])[-1] for each in (found.backtest, found.probe)]
    begun = progress(found.probe.values["loss"])[found.probe.steps.tolist().index(2)]
    assert begun > max(ends)
    known = np.linspace(begun, max(ends), 25)[1:]
    off = np.sqrt(((run_at(found.backtest, known) - run_at(found.probe, known)) ** 2).mean(axis=1))
    fall = begun - known
    law, _ = nnls(np.stack([fall, fall**2], axis=1) / fall[-1] ** np.array([1, 2]), off)
    levels = found.band.levels
    since = (np.maximum(ends[1] - levels, 0) + levels[0] - levels[1]) / fall[-1]
    np.testing.assert_allclose(found.band.error[1:], (law[0] * since + law[1] * since**2)[1:], rtol=1e-4)
    assert (np.diff(found.band.error[1:]) >= 0).all()
    known = np.isfinite(found.clock.step)
    assert known.all()
    assert (found.clock.low <= found.clock.step).all()
    assert (found.clock.high >= found.clock.step).all()


def test_a_watch_tells_once_of_a_group_of_a_lost_group_and_of_the_clock():
    levels = np.linspace(0.7, 0.5, 11)
    summary = {
        "settings": {"seed": 0},
        "forecast": {
            "names": ["a", "b"], "scale": [1.0, 1.0], "freedom": 5.0, "levels": levels.tolist(),
            "error": (0.01 * (0.7 - levels)).tolist(),
            "centre": np.stack([levels - 0.5 * (0.7 - levels), levels + 0.5 * (0.7 - levels)], 1).tolist(),
            "linear_weight": [0.0] * 11,
            "clock": {"step": (500 * (0.7 - levels)).tolist(), "low": (400 * (0.7 - levels)).tolist(),
                      "high": (600 * (0.7 - levels)).tolist()},
        }
    }  # fmt: skip

    def record(step, a, b):
        rows = [("a", a), ("b", b)]
        return step, [{"group": name, "split": "held_out", "loss": loss} for name, loss in rows if loss is not None], {}

    def lines_of(*records, seed=0):
        lines = []
        watch = Watch(Foretold.read(summary), lines.append, seed=seed)
        for each in records:
            watch.track(*each)
        return lines

    honest = [record(round(500 * fall), 0.7 - 1.5 * fall, 0.7 - 0.5 * fall) for fall in (0, 0.05, 0.1, 0.15, 0.19)]
    assert lines_of(*honest) == []
    turned = [record(round(500 * fall), 0.7 - 0.5 * fall, 0.7 - 1.5 * fall) for fall in (0, 0.05, 0.1, 0.15, 0.19)]
    assert sorted("'a'" in line for line in lines_of(*turned)) == [False, True]
    fast = [record(round(100 * fall), 0.7 - 1.5 * fall, 0.7 - 0.5 * fall) for fall in (0, 0.05, 0.1, 0.15)]
    assert ["the mean held-out loss is" in line for line in lines_of(*fast)] == [True]
    assert ["bands are too narrow here" in line for line in lines_of(*honest, seed=1)] == [True]
    summary["forecast"]["between_seeds"] = (0.5 * (0.7 - levels)).tolist()
    assert lines_of(*honest, seed=1) == []
    summary["forecast"]["error"] = (0.7 - levels).tolist()  # errors as large as what the groups differ by
    for each in (honest, turned):
        assert ["sure enough to be watched" in line for line in lines_of(*each)] == [True]
    summary["forecast"]["error"] = (0.01 * (0.7 - levels)).tolist()
    gone = lines_of(record(0, 0.7, None), record(1, 0.6, None))
    assert len(gone) == 1
    assert "'b'" in gone[0]


def test_the_sentence_names_orders_and_ties():
    shares = np.array([[0.0, 0.5, 0.97, 0.99], [0.5, 0, 0.6, 0.99], [0.03, 0.4, 0, 0.6], [0.01, 0.01, 0.4, 0]])
    said = order_sentence(["a", "b", "c", "d"], np.arange(4.0), shares, vouched=True)
    assert said == "a and b are not told apart; a before c in 19 of 20 runs; c and d are not told apart."
    assert "No order" in order_sentence(["a", "b"], np.arange(2.0), np.full((2, 2), 0.5), vouched=True)
    assert "Nothing" in order_sentence(["a", "b"], np.arange(2.0), np.full((2, 2), 0.5), vouched=False)
