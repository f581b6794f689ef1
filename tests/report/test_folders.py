"""Reading an output folder back, and every way in which it can be unreadable."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn._json import number
from prefdyn.errors import StoreError
from prefdyn.report.folders import read_folder
from tests.report.make_folder import HOSTILE, make_folder, make_trained_folder


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


def rewritten(folder, change):
    """summary.json after a change to what it holds."""
    path = folder / "summary.json"
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: body.update(groups="many"), "groups is text ('many'), but must be a list or null"),
        (lambda body: body["groups"][1].pop("name"), "groups[1].name is missing"),
        (lambda body: body["groups"][0].update(name=5), "groups[0].name is a number (5), but must be text"),
        (lambda body: body["groups"][0].update(trace=[1]), "groups[0].trace is a list, but must be text or a number"),
        (lambda body: body.update(settings=[1]), "settings is a list, but must be an object or null"),
        (lambda body: body.update(warnings=[5]), "warnings[0] is a number (5), but must be text"),
        (lambda body: body.update(timings={"x": "long"}), "timings.x is text ('long'), but must be a number or null"),
        (lambda body: body["dataset"].update(left_out={}), "dataset.left_out is an object, but must be a list or null"),
        (
            lambda body: body["provenance"].update(seed="one"),
            "provenance.seed is text ('one'), but must be a whole numb",
        ),
        (lambda body: body["diagnostics"]["cosine"].update(raw=[1]), "diagnostics.cosine.raw[0] is a number (1), but"),
        (lambda body: body["diagnostics"].update(embedding={"x": ["a"]}), "diagnostics.embedding.x[0] is text ('a')"),
    ],
)
def test_a_summary_of_another_shape_is_refused_at_the_place(tmp_path, change, says):
    """And one with parts that this version does not know is read."""
    folder = make_folder(tmp_path / "run", names=2)
    rewritten(folder, lambda body: body.update(later={"a": [{}]}))
    read_folder(folder)
    rewritten(folder, change)
    with pytest.raises(StoreError) as raised:
        read_folder(folder)
    assert str(raised.value).startswith(f"{folder / 'summary.json'}: {says}")
    assert str(raised.value).endswith("; run the command that wrote it again")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"schema": 1, "schema": 1}', "holds the key 'schema' twice in one object"),
        (b"[" * 100_000, "is nested more than 100 deep"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "holds a number of 5,000 digits"),
    ],
)
def test_a_summary_without_limits_is_refused(tmp_path, text, says):
    (tmp_path / "summary.json").write_bytes(text)
    with pytest.raises(StoreError, match=rf"summary\.json cannot be read as JSON: it {says}.*; run the command"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "column", "values", "says"),
    [
        ("trajectory.parquet", "loss", "x", "the column 'loss' is string, but must be double"),
        ("trajectory.parquet", "group", None, "the column 'group' is null, but must be string"),
        ("pairs.parquet", "id", None, "does not hold the column 'id', a text for every pair"),
        ("pairs.parquet", "agreement", "x", "the column 'agreement' is string, but must be numbers"),
    ],
)
def test_a_table_of_another_type_is_refused(tmp_path, name, column, values, says):
    folder = make_folder(tmp_path / "run", names=2)
    read_folder(folder)
    table = pq.read_table(folder / name)
    changed = pa.array([values] * table.num_rows)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, changed), folder / name)
    with pytest.raises(StoreError) as raised:
        read_folder(folder)
    assert f"{folder / name}" in str(raised.value)
    assert says in str(raised.value)


def test_steps_that_are_no_table_say_so(tmp_path):
    folder = make_trained_folder(tmp_path / "run", names=2)
    read_folder(folder)
    for raw in (b"a,b\n1\n", b"caf\xe9,b\n1,2\n"):
        (folder / "steps.csv").write_bytes(raw)
        with pytest.raises(StoreError, match=r"steps\.csv cannot be read as CSV \(.*\); run the command") as raised:
            read_folder(folder)
        assert "\n" not in str(raised.value)


def test_numbers_without_end_are_no_numbers():
    assert math.isnan(number(10**400))
    assert number(10**300) == 1e300


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(StoreError, match="is no folder"):
        read_folder(tmp_path / "nothing")


def test_a_folder_with_a_summary_alone_can_be_read(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"schema": 1, "command": "audit"}))
    run = read_folder(tmp_path)
    assert run.trajectory is None
    assert run.pairs is None
    assert run.groups == []
