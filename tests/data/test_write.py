"""Describing and writing: numbers of a dataset made by hand, and files that read back to the same content."""

import csv
import json

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefdyn import _files as module
from prefdyn.data.codes import HEAVIEST
from prefdyn.data.describe import describe
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.write import formula_cells, unwritten, write
from prefdyn.errors import ConfigError, DataError, StoreError

FORMATS = ["jsonl", "jsonl.gz", "csv", "parquet"]
TALK = {
    side: [{"role": role, "content": side}]
    for side, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
}
PLAIN = {"prompt": 'p, "q"\r\n', "chosen": " a\r", "rejected": "b\n", "group": "g\t1", "weight": 0.1}
TALKED = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "conversation": TALK, "group": "talk"}


def test_describe_counts_what_is_there():
    rows = [
        {
            "prompt": "x" * n,
            "chosen": (" Yes", " No")[n % 3 == 0],
            "rejected": (" No", " Yes")[n % 3 == 0],
            "group": "g",
        }
        for n in range(1, 101)
    ]
    found = describe(PreferenceDataset.from_rows([*rows, {**rows[0], "rejected": " No way at all", "group": "h"}]))
    assert (found["pairs"], found["kind"], found["prompts"], found["left_out"]) == (101, "responses", 100, 0)
    first, second = found["groups"]
    assert (first["name"], first["pairs"], first["prompts"]) == ("g", 100, 100)
    assert first["answers"] == [{"text": " Yes", "chosen": 67}, {"text": " No", "chosen": 33}]
    assert first["lengths"]["prompt"] == {"median": 50, "p95": 95, "max": 100}
    assert second["answers"] == [{"text": " Yes", "chosen": 1}, {"text": " No way at all", "chosen": 0}]
    json.dumps(found)


@pytest.mark.parametrize(
    ("response", "kind"), [(" No", "answers"), ("(A)", "answers"), ("not so", "responses"), ("x" * 21, "responses")]
)
def test_the_kind_is_answers_where_all_are_one_short_word(response, kind):
    assert (
        describe(PreferenceDataset.from_rows([{"prompt": "p", "chosen": " Yes", "rejected": response}]))["kind"] == kind
    )


def test_three_answers_have_no_class_balance():
    rows = [{"prompt": "p", "chosen": "a", "rejected": other} for other in "bc"]
    assert describe(PreferenceDataset.from_rows(rows))["groups"][0]["answers"] is None


@pytest.mark.parametrize("end", FORMATS)
def test_what_is_written_reads_back(tmp_path, end):
    data = load_dataset([{**PLAIN, "id": f"{i}", "prompt": f"{i}{PLAIN['prompt']}"} for i in range(10)]).split()
    write(data, tmp_path / f"x.{end}")
    back = load_dataset(tmp_path / f"x.{end}")
    assert back.sha256 == data.sha256
    assert back.table["split"].equals(data.table["split"])


@pytest.mark.parametrize("path", ["~nobody-here/x.csv", "x" * 300 + ".csv", "a\0b.csv"])
def test_a_path_that_can_be_none_is_refused(path):
    with pytest.raises(DataError, match=r"names no file or folder: .*; give a path"):
        write(PreferenceDataset.from_rows([PLAIN]), path)


def test_texts_that_look_like_formulas_are_data_and_stay(tmp_path):
    """Through CSV to our reader, to pandas and to datasets; the command line counts them."""
    rows = [{"prompt": "=1+1", "chosen": "@x", "rejected": "'=y", "group": "-a"}, {**PLAIN, "chosen": "-1"}]
    data = PreferenceDataset.from_rows(rows)
    write(data, tmp_path / "x.csv")
    assert load_dataset(tmp_path / "x.csv").sha256 == data.sha256
    frame = pandas.read_csv(tmp_path / "x.csv", dtype=str)
    loaded = datasets.load_dataset("csv", data_files=str(tmp_path / "x.csv"), split="train", cache_dir=str(tmp_path))
    assert isinstance(loaded, datasets.Dataset)
    for name in ("prompt", "chosen", "rejected"):
        assert frame[name].tolist()[0] == loaded[name][0] == rows[0][name]
    assert formula_cells(data) == 3
    assert formula_cells(PreferenceDataset.from_rows([PLAIN])) == 0


@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz", "parquet"])
def test_conversations_keep_their_messages(tmp_path, end):
    data = PreferenceDataset.from_rows([TALKED])
    write(data, tmp_path / f"x.{end}")
    assert load_dataset(tmp_path / f"x.{end}").sha256 == data.sha256


def test_json_lines_hold_both_forms_side_by_side(tmp_path):
    data = PreferenceDataset.from_rows([TALKED, PLAIN])
    write(data, tmp_path / "x.jsonl")
    assert load_dataset(tmp_path / "x.jsonl").sha256 == data.sha256


def test_the_columns_are_those_that_trl_reads(tmp_path):
    write(PreferenceDataset.from_rows([PLAIN]), tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as handle:
        assert next(csv.reader(handle)) == ["prompt", "chosen", "rejected", "group", "id", "weight"]
    write(PreferenceDataset.from_rows([TALKED]), tmp_path / "x.parquet")
    column = pq.read_schema(tmp_path / "x.parquet").field("prompt").type
    assert pa.types.is_list(column)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
response = text.filter(lambda value: value.strip() != "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(text, response, response, response, st.floats(1 / HEAVIEST, HEAVIEST)), min_size=1, max_size=4),
)
def test_any_text_survives_the_way_there_and_back(tmp_path, end, drawn):
    rows = [
        {"prompt": p, "chosen": c, "rejected": c + r, "group": g, "weight": w, "id": str(i)}
        for i, (p, c, r, g, w) in enumerate(drawn)
    ]
    data = PreferenceDataset.from_rows(rows)
    write(data, tmp_path / f"x.{end}", force=True)
    assert load_dataset(tmp_path / f"x.{end}").sha256 == data.sha256


@pytest.mark.parametrize("end", FORMATS)
def test_equal_data_leaves_equal_bytes(tmp_path, end):
    for name in "ab":
        write(PreferenceDataset.from_rows([PLAIN]), tmp_path / f"{name}.{end}")
    assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


def test_a_file_is_not_replaced_unless_forced_and_nothing_is_left_behind(tmp_path, monkeypatch):
    data, path = PreferenceDataset.from_rows([PLAIN]), tmp_path / "x.jsonl"
    path.write_text("mine")
    with pytest.raises(StoreError, match=r"x.jsonl exists already; give another name, or force=True"):
        write(data, path)
    assert path.read_text() == "mine"

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", full)
        with pytest.raises(StoreError, match=r"x.jsonl cannot be written \(No space left on device\)"):
            write(data, path, force=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    write(data, path, force=True)
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("rows", "name", "error", "says"),
    [
        (
            [PLAIN],
            "x.txt",
            ConfigError,
            "ends in no format that can be written; known: .csv, .jsonl, .jsonl.gz, .parquet",
        ),
        ([PLAIN], "nowhere/x.csv", StoreError, r"cannot be written \(No such file or directory\)"),
        ([PLAIN], "folder.csv", StoreError, "is a folder; give the name of a file"),
        ([TALKED], "x.csv", DataError, "CSV cannot hold 1 conversational pairs"),
        (
            [TALKED, PLAIN],
            "x.parquet",
            DataError,
            "Parquet cannot hold 1 conversational and 1 plain pairs in one column",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, rows, name, error, says):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(error, match=says):
        write(PreferenceDataset.from_rows(rows), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_what_a_file_does_not_keep_is_named():
    """Votes and places have no column in TRL's layout; only those that any pair holds are named."""
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert unwritten(PreferenceDataset.from_rows([row])) == ()
    assert unwritten(PreferenceDataset.from_rows([row, {**row, "prompt": "q", "slot": 1}])) == ("slot",)
    both = PreferenceDataset.from_rows([{**row, "agreement": 0.75, "slot": 2}])
    assert unwritten(both) == ("agreement", "slot")
