"""Inputs on which columns and files were misread, each beside a control of the same shape that must still pass.

The inputs lie in shared/cases/reading; its README lists kinds, inputs and right behaviour.
"""

import json
from collections import Counter

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import DataError
from tests.conftest import SHARED

CASES = SHARED.parent / "cases" / "reading"
pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason=f"cases are absent: no folder {CASES}"),
    pytest.mark.thorough,
]


def load(name, **options):
    return load_dataset(CASES / name, **options)


def lines(name):
    return (CASES / name).read_bytes().split(b"\n")[:-1]


def prompts(data):
    return data.table["prompt"].to_pylist()


def written(tmp_path, name, rows):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset(path)


# columns misread -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "prompt", "chosen", "rejected", "conversational"),
    [
        ("20/alpaca.jsonl", "Say if tea is good", "Sure, tea is.", "No way.", 0),
        ("20/orca.jsonl", "system: You are kind.\n\nuser: Is tea good?", "Sure, tea is.", "No way.", 12),
        ("20/llamafactory.json", "Is tea good?", "Sure.", "No.", 12),
        ("20/swift.jsonl", "Is tea good?", "Sure.", "No way.", 12),
        ("21/messages.csv", "Is tea good?", "Sure.", "No.", 12),
        ("21/messages-json.jsonl", "tea", "Sure.", "No.", 12),
    ],
)
def test_columns_are_read_as_they_are_meant(name, prompt, chosen, rejected, conversational):
    data = load(name)
    row = data.to_rows()[0]
    assert (row["prompt"], row["chosen"], row["rejected"]) == (prompt, chosen, rejected)
    assert (len(data), data.conversational) == (12, conversational)
    assert len(set(prompts(data))) == 12
    assert not {finding.code for finding in preflight(data)} & {"empty_prompt", "left_out"}


def test_the_same_columns_with_a_prompt_are_trl(tmp_path):
    """The control: prompt, chosen and rejected beside the same columns are read as TRL reads them."""
    for name in ("20/alpaca.jsonl", "20/orca.jsonl"):
        rows = [json.loads(line) | {"prompt": f"p{i}"} for i, line in enumerate(lines(name))]
        data = written(tmp_path, "x.jsonl", rows)
        assert prompts(data)[:2] == ["p0", "p1"]
        assert data.readings[0].layout is None
        assert data.conversational == 0


def test_class_labels_are_names():
    for name in ("23/labels.parquet", "23/saved"):
        assert load(name).groups == ("honest", "harmless")
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = pq.read_table(CASES / "23" / "labels.parquet").replace_schema_metadata(None)  # the control: just numbers
    assert load_dataset(plain).groups == ("0", "1")
    table = pq.read_table(CASES / "23" / "labels.parquet")
    at = table.schema.get_field_index("category")
    odd = table.set_column(at, table.schema.field(at), pa.array([-1, 7, *[0] * 10], table.schema.field(at).type))
    with pytest.raises(DataError, match="line 1, field 'category': is null"):
        load_dataset(odd)


def test_repeated_ids_are_made_unique_and_told():
    data = load("25/ids.jsonl")
    ids = data.table["id"].to_pylist()
    assert (len(data), len(set(ids))) == (12, 12)
    assert ids[:3] == ["p0", "ids:p0", "p1"]
    told = {finding.code: finding for finding in preflight(data)}["repeated_ids"]
    assert (told.severity, told.count) == ("warning", 6)
    assert load("25/ids.jsonl").sha256 == data.sha256


def test_ids_of_their_own_are_left_as_they_are(tmp_path):
    rows = [{**json.loads(line), "id": f"q{i}"} for i, line in enumerate(lines("25/ids.jsonl"))]
    data = written(tmp_path, "x.jsonl", rows)
    assert data.table["id"].to_pylist() == [f"q{i}" for i in range(12)]
    assert "repeated_ids" not in {finding.code for finding in preflight(data)}


def test_numbers_are_one_name_however_they_are_written():
    assert load("26/floatid.jsonl").table["id"].to_pylist() == [str(i) for i in range(12)]
    data = load("26/bigid.jsonl")
    assert data.groups == ("1", "True")  # 1, "1" and 1.0 are one group
    assert data.table["id"].to_pylist()[0] == "1180591620717411303424"
    half = load_dataset([{"prompt": "p", "chosen": "a", "rejected": "b", "id": 1.5}])
    assert half.table["id"].to_pylist() == ["1.5"]


def test_odd_group_names_are_kept_as_they_are():
    data = load("29/odd.jsonl")
    rows = [json.loads(line) for line in lines("29/odd.jsonl")]
    assert Counter(data.table["group"].to_pylist()) == Counter(row["group"] for row in rows)
    assert data.table["id"].to_pylist() == [row["id"] for row in rows]


# files misread -------------------------------------------------------------------------------------------------------


def test_json_lines_may_be_called_json():
    data = load("22/pairs.json")
    assert prompts(data)[:2] == ["Is tea good?", "Is coffee good?"]
    assert data.table["line"].to_pylist() == list(range(1, 13))


def test_a_key_twice_is_told_and_its_row_can_be_left_out():
    with pytest.raises(DataError, match="line 1: holds the key 'chosen' twice in one object; keep one"):
        load("24/dupkeys.jsonl")
    data = load("24/dupkeys.jsonl", skip_bad_rows=True)
    assert [item.line for item in data.left_out] == [1]
    assert len(data) == 12


def test_other_oddities_of_the_same_files_are_read():
    assert len(load("24/bomcrlf.jsonl")) == 12
    assert load("24/nan.jsonl").groups == ("all",)  # a group that is NaN or missing everywhere is none
    pretty = load("24/pretty.jsonl")
    assert (prompts(pretty), pretty.table["line"].to_pylist()) == (["Is tea good?"], [1])


def test_a_cloned_repository_keeps_its_own_split():
    for name in ("27", "27/data"):
        data = load(name)
        sides = dict(zip(data.table["source"].to_pylist(), data.table["split"].to_pylist(), strict=True))
        assert {("test" in source, side) for source, side in sides.items()} == {(True, "held_out"), (False, "train")}
        assert data.groups == ("all",)
        assert data.with_held_out().table["split"] == data.table["split"]


def test_one_file_alone_has_no_split(tmp_path):
    """The control: a file that is called train, without another, is all of the data."""
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes((CASES / "27" / "data" / path.name).read_bytes())
    assert load_dataset(path).splits == ("train",)
    assert load_dataset(tmp_path).splits == ("train",)
