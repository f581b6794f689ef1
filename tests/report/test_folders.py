"""Reading an output folder back, and every way in which it can be unreadable."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn.errors import StoreError
from prefdyn.report.folders import read_folder
from tests.report.make_folder import HOSTILE, make_folder


def test_curves_are_the_rows_of_the_file(tmp_path):
    run = read_folder(make_folder(tmp_path / "run", names=3))
    assert run.trajectory is not None
    steps, loss = run.steps(), run.curves("loss", split="held_out")
    rows = [row for row in run.trajectory.to_pylist() if row["run"] == "joint" and row["split"] == "held_out"]
    assert len(rows) == loss.size
    for row in rows:
        assert loss[run.names.index(row["group"]), list(steps).index(row["step"])] == row["loss"]


def test_null_becomes_nan_and_never_zero(tmp_path):
    run = read_folder(make_folder(tmp_path / "run", names=6, missing=True))
    curves = run.curves("chosen_change")
    assert np.isnan(curves[1]).all()
    assert np.isfinite(curves[0]).all()
    assert math.isnan(run.column("probe_accuracy")[0])


def test_names_stay_as_they_are_and_labels_are_one_line(tmp_path):
    run = read_folder(make_folder(tmp_path / "run", names=list(HOSTILE)))
    assert run.names == HOSTILE
    assert all("\n" not in label and "\x1b" not in label and "\u202e" not in label for label in run.labels)
    assert run.labels[HOSTILE.index("")] == "(empty name)"


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "holds no summary.json"),
        (lambda folder: (folder / "summary.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "summary.json").write_bytes(b"\xff\xfe"), "cannot be read as JSON"),
        (
            lambda folder: (folder / "summary.json").write_text('{"schema": 7}'),
            "has schema 7, but this version reads 1",
        ),
        (lambda folder: (folder / "summary.json").write_text("[]"), "has schema None"),
        (
            lambda folder: (folder / "summary.json").write_text('{"schema": 1, "groups": [3]}'),
            r"summary.json: groups\[0\] is a number \(3\), but must be an object; run the command that wrote it again",
        ),
        (lambda folder: (folder / "trajectory.parquet").write_bytes(b"PAR1"), "cannot be read as Parquet"),
        (
            lambda folder: pq.write_table(pa.table({"run": ["joint"]}), folder / "trajectory.parquet"),
            "lacks the columns",
        ),
    ],
)
def test_what_cannot_be_read_says_so_in_one_line(tmp_path, break_it, says):
    folder = make_folder(tmp_path / "run", names=2)
    break_it(folder)
    with pytest.raises(StoreError, match=says) as raised:
        read_folder(folder)
    assert str(folder) in str(raised.value)


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(StoreError, match="is no folder"):
        read_folder(tmp_path / "nothing")


def test_a_folder_with_a_summary_alone_can_be_read(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"schema": 1, "command": "audit"}))
    run = read_folder(tmp_path)
    assert run.trajectory is None
    assert run.pairs is None
    assert run.groups == []
