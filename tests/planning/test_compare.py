"""Two runs with their folders: names, files, and differences of data and model that are told."""

import csv
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from prefdyn.errors import ConfigError, StoreError
from prefdyn.planning.compare import Side, compare_runs, names_of
from prefdyn.planning.simulate import simulate
from prefdyn.provenance import Provenance
from prefdyn.report.compare import side
from prefdyn.report.folders import read_folder
from prefdyn.synthetic import gaussian_groups
from prefdyn.trajectory import Trajectory
from tests.report.make_folder import make_folder, make_trained_folder


def empty(folder, command, **origin):
    return Side(
        folder=folder, command=command, run=Trajectory.from_rows([], settings={}, provenance=Provenance(**origin))
    )


def simulated(tmp_path, name, **settings):
    folder = tmp_path / name
    folder.mkdir()
    groups = gaussian_groups([60, 90, 120], groups=3, width=8, half_gap=[2.0, 1.0, 0.5], held_out=0.3)
    simulate(groups, progress=False, **settings).write(folder)
    return folder


def test_names_come_from_commands_else_folders_else_paths():
    made = [
        (("a", "audit"), ("b", "train"), ("predicted", "trained")),
        (("out/run-1", "train"), ("out/run-2", "train"), ("run-1", "run-2")),
        (("x/run", "simulate"), ("y/run", "bounds"), ("x/run", "y/run")),
        (("x", "train"), ("x", "train"), ("x (first)", "x (second)")),
    ]
    for one, other, names in made:
        assert names_of(empty(*one), empty(*other)) == names


def test_a_folder_becomes_a_side_with_the_sizes_of_its_groups(tmp_path):
    made = side(make_trained_folder(tmp_path / "train", names=3))
    summary = json.loads((tmp_path / "train" / "summary.json").read_text())
    assert made.command == "train"
    assert made.sizes == {row["name"]: row["pairs"] - row["held_out_pairs"] for row in summary["groups"]}
    assert made.run.settings["tune"] == "lora"
    assert made.run.modules is not None
    assert made.run.provenance.model["name"] == "tinystories-chat-3M-gptneo"
    assert max(made.run.table["pairs"].to_pylist()) <= 200 < max(made.sizes.values())


def test_the_written_files_hold_both_runs_and_every_figure(tmp_path):
    first = side(simulated(tmp_path, "one", learning_rate=0.2, steps=60))
    second = side(simulated(tmp_path, "two", learning_rate=0.05, steps=240))
    found = compare_runs(first, second, losses=[0.65])
    out = tmp_path / "out"
    out.mkdir()
    found.write(out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["command"] == "compare"
    part = summary["comparison"]
    assert part["names"] == ["one", "two"]
    assert part["commands"] == ["simulate", "simulate"]
    assert part["rescaling"]["factor"] == pytest.approx(4, rel=0.03)
    assert part["order"]["groups"] == 3
    assert part["order"]["low"] is None
    assert "too few for an interval" in part["order"]["because"]
    assert {item["name"] for item in part["settings"]} == {"learning_rate", "steps"}
    assert part["rows"] == found.rows()
    assert [row["name"] for row in summary["groups"]] == [
        row["group"] for row in part["rows"] if row["split"] == "held_out"
    ]
    with (out / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert float(rows[0]["first_loss"]) == found.rows()[0]["first_loss"]
    assert "second_steps_to_0.65" in rows[0]
    table = pq.read_table(out / "trajectory.parquet")
    for name, each in (("first", first), ("second", second)):
        inside = table.filter([value == name for value in table["side"].to_pylist()])
        assert inside.drop_columns("side").equals(each.run.table)
    assert read_folder(out).part("comparison", "split") == "held_out"


def test_the_control_goes_by_the_sizes_that_the_folders_tell(tmp_path):
    """A training run measures at most 200 pairs of a group; its order by size is that of all its pairs."""
    trained = side(make_trained_folder(tmp_path / "train", names=6))
    bare = Side(folder="bare", command="simulate", run=trained.run)
    assert compare_runs(bare, trained).comparison.order_by_size.groups == 6
    unknown = compare_runs(bare, bare).comparison.order_by_size
    known = compare_runs(trained, trained).comparison.order_by_size
    assert unknown.value != known.value


def test_another_model_or_other_pairs_are_told(tmp_path):
    run: dict[str, Any] = {"run": side(make_trained_folder(tmp_path / "t", names=2)).run.table}

    def made(data, model, name: Any = "m"):
        origin = Provenance(data={"name": "d", "sha256": data or None}, model={"name": name, "sha256": model})
        return Side(
            folder=data + model, command="train", run=Trajectory(table=run["run"], settings={}, provenance=origin)
        )

    same = compare_runs(made("a", "x"), made("a", "x"))
    assert not [text for text in same.warnings if "not the same" in text]
    other = compare_runs(made("a", "x"), made("b", "y")).warnings
    assert [text for text in other if "not the same" in text] == [
        "The two runs have not the same pairs (ax: d, by: d).",
        "The two runs have not the same model (ax: m, by: m).",
    ]
    unsaid = compare_runs(made("a", "x"), made("", "x")).warnings
    assert not [text for text in unsaid if "not the same" in text]
    names = [("m", "m", "m"), ("m", "n", "m against n"), (None, "n", "n"), (None, None, "unknown")]
    for first, second, told in names:
        summary = compare_runs(made("a", "x", first), made("a", "x", second)).summary()
        assert summary["model"]["name"] == told
        assert summary["dataset"]["name"] == "d"


def test_what_holds_no_run_or_several_is_refused(tmp_path):
    first = side(make_folder(tmp_path / "a", names=2, command="simulate"))
    out = tmp_path / "out"
    out.mkdir()
    compare_runs(first, first).write(out)
    with pytest.raises(ConfigError, match="out holds a comparison; give a folder of audit, simulate, bounds or train"):
        side(out)
    (tmp_path / "a" / "trajectory.parquet").unlink()
    with pytest.raises(ConfigError, match=r"a holds no trajectory\.parquet"):
        side(tmp_path / "a")
    with pytest.raises(StoreError, match="is no folder"):
        side(tmp_path / "nowhere")
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"comparison": None, "grid": {"cells": []}}))
    with pytest.raises(ConfigError, match="out holds a grid of settings"):
        side(out)
