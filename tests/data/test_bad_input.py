"""Bad input: each gives one clear line that names the place, the value and the fix. Every message is seen here."""

import gzip
import json
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn._json import flaw_in, read_json
from prefdyn.data.loaders import load_dataset
from prefdyn.errors import ConfigError, DataError
from tests.conftest import SHARED
from tests.data.test_loaders import dataset_dict

FILES = SHARED.parent / "cases" / "files"
needs_shared = pytest.mark.skipif(not FILES.is_dir(), reason=f"files that went wrong are absent: no folder {FILES}")

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
USER, BOT, OTHER = ({"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Yo"), ("assistant", "No")))
TALK = {"prompt": [USER], "chosen": [BOT], "rejected": [OTHER]}
PERSONA = {"question": "q", "statement": "s", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
HH = "\n\nHuman: Hi\n\nAssistant:"


def lines(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def refused(path: Path, *says: str, prefix: str = "", **options) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(f"{prefix}{path}", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for part in (str(path), *says):
        assert part in message


# rows that can be left out: content of a .jsonl file whose line 2 is bad ---------------------------------------------


def brackets(depth) -> bytes:
    return b'{"prompt": "p", "chosen": "a", "rejected": "b", "more": ' + b"[" * depth + b"]" * depth + b"}\n"


BAD_LINES = {
    "malformed": (b'{"prompt": "p", "chosen": ,}\n', None, "is not valid JSON: Expecting value at column 27"),
    "not UTF-8": (b'{"prompt": "p\xff"}\n', None, "is not UTF-8 (byte 0xff) at column 14; mend the line"),
    "no object": (b"[1, 2]\n", None, "holds a list ([1, 2]), but each line must be an object"),
    "too deep": (b"[" * 100_000 + b"\n", None, "is nested more than 100 deep; make it flatter"),
    "nested 100 deep": (brackets(100), None, "is nested more than 100 deep; make it flatter"),
    "nested 900 deep": (brackets(900), None, "is nested more than 100 deep; make it flatter"),
    "a number without end": (
        b'{"prompt": "p", "chosen": "a", "rejected": "b", "score": ' + b"9" * 5000 + b"}\n",
        None,
        "holds a number of 5,000 digits; write it as text, or shorter",
    ),
    "a key twice": (
        b'{"prompt": "p", "chosen": "a", "chosen": "c", "rejected": "b"}\n',
        None,
        "holds the key 'chosen' twice in one object; keep one",
    ),
    "a key twice inside": (
        b'{"chosen": [{"role": "user", "role": "assistant", "content": "c"}], "rejected": []}\n',
        None,
        "holds the key 'role' twice in one object",
    ),
    "missing field": (
        lines({"prompt": "p", "chosen": "a"}),
        "rejected",
        "is missing; the fields are 'prompt', 'chosen'",
    ),
    "null": (lines({**GOOD, "chosen": None}), "chosen", "is null; give text"),
    "null prompt": (lines({**GOOD, "prompt": None}), "prompt", "is null; give text"),
    "a number": (lines({**GOOD, "rejected": 5}), "rejected", "is a number (5), but must be text"),
    "an object": (lines({**GOOD, "prompt": {"a": 1}}), "prompt", "is an object ({'a': 1}), but must be text"),
    "half a pair": (b'{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}\n', "chosen", "half of a surrogate pair"),
    "empty": (lines({**GOOD, "chosen": ""}), "chosen", "is empty (''); a response needs text"),
    "blank": (lines({**GOOD, "rejected": " \n"}), "rejected", "is empty (' \\n'); a response needs text"),
    "equal": (lines({**GOOD, "rejected": "a"}), "rejected", "is the same as chosen ('a')"),
    "odd id": (lines({**GOOD, "id": [1]}), "id", "is a list ([1]), but must be text or a number"),
    "weight 0": (lines({**GOOD, "weight": 0}), "weight", "is 0, but must be a finite number above 0"),
    "weight 1e300": (lines({**GOOD, "weight": 1e300}), "weight", "is 1e+300, but must lie between 1e-50 and 1e+50"),
    "weight text": (lines({**GOOD, "weight": "heavy"}), "weight", "is 'heavy', but must be a finite number above 0"),
    "weight true": (lines({**GOOD, "weight": True}), "weight", "is True, but must be a finite number"),
    "weight NaN": (b'{"prompt": "p", "chosen": "a", "rejected": "b", "weight": NaN}\n', "weight", "is nan, but must"),
    "null group": (lines({**GOOD, "group": None}), "group", "is null, but every pair needs a group"),
    "empty group": (lines({**GOOD, "group": " "}), "group", "is empty (' '), but every pair needs a group"),
    "odd group": (lines({**GOOD, "group": ["a"]}), "group", "is a list (['a']), but a group must be one name"),
    "forms mixed": (
        lines({**GOOD, "prompt": [USER]}),
        "prompt",
        "is a list of messages, but chosen and rejected are text",
    ),
    "sides mixed": (lines({**GOOD, "chosen": [USER, BOT]}), "rejected", "is text where the other fields are lists"),
    "null side": (lines({"chosen": [USER, BOT], "rejected": None}), "rejected", "is null; give text"),
    "null messages": (
        lines({"prompt": None, "chosen": [BOT], "rejected": [OTHER]}),
        "prompt",
        "is null; give messages",
    ),
    "no messages": (lines({**TALK, "prompt": []}), "prompt", "has no messages"),
    "no message": (
        lines({"prompt": ["Hi"], "chosen": [BOT], "rejected": [OTHER]}),
        "prompt",
        "message 1 is text ('Hi')",
    ),
    "no role": (
        lines({**TALK, "prompt": [{"by": "user", "value": "Hi"}]}),
        "prompt",
        "message 1 has no role (its keys: 'by', 'value'); give every message role and content",
    ),
    "picture": (
        lines({**TALK, "prompt": [{"role": "user", "content": [{"type": "image"}]}]}),
        "prompt",
        "message 1 holds a part that is not text ('image')",
    ),
    "null content": (
        lines({"chosen": [USER, {"role": "assistant", "content": None}], "rejected": [USER, BOT]}),
        "chosen",
        "message 2 has a content that is null (None), but must be text",
    ),
    "nothing said": (
        lines({**TALK, "chosen": [{"role": "assistant", "content": None, "tool_calls": []}]}),
        "chosen",
        "message 1 has a content that is null (None), but must be text",
    ),
    "number in a key": (
        b'{"prompt": [{"role": "user", "content": "a", "seen": {"at": [NaN]}}], "chosen": [], "rejected": []}\n',
        "prompt",
        "message 1 holds 'seen.at[0]', which is nan, which JSON cannot hold",
    ),
    "tools": (lines({**TALK, "tools": {"name": "f"}}), "tools", "is an object ({'name': 'f'}), but must be a list"),
    "tools no JSON": (lines({**TALK, "tools": "[{"}), "tools", "the text is not JSON"),
    "arguments": (lines({**TALK, "chat_template_kwargs": [1]}), "chat_template_kwargs", "is a list ([1]), but must be"),
    "argument of TRL": (
        lines({**TALK, "chat_template_kwargs": {"add_generation_prompt": False}}),
        "chat_template_kwargs",
        "holds 'add_generation_prompt', which TRL sets itself",
    ),
    "argument of the tokenizer": (
        lines({**TALK, "chat_template_kwargs": {"truncation": True}}),
        "chat_template_kwargs",
        "holds 'truncation', which would change the tokens themselves",
    ),
    "half in a message": (
        b'{"chosen": [{"role": "user", "content": "\\udc00"}], "rejected": []}\n',
        "chosen",
        "half of a surrogate pair",
    ),
    "no shared message": (lines({"chosen": [BOT], "rejected": [OTHER]}), "chosen", "shares no leading message"),
    "same conversation": (
        lines({"chosen": [USER, BOT], "rejected": [USER, BOT]}),
        "rejected",
        "is the same conversation",
    ),
    "no response": (lines({"chosen": [USER], "rejected": [USER, BOT]}), "chosen", "has no text after the prompt"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_or_left_out(tmp_path, name):
    content, field, reason = BAD_LINES[name]
    path = tmp_path / "data.jsonl"
    first = {**GOOD, "id": "x", "group": "g"}
    path.write_bytes(
        lines(first) + (content if b'"group"' in content else content.replace(b"}\n", b', "group": "g"}\n'))
    )
    place = f"{path}, line 2" + (f", field {field!r}" if field else "")
    refused(path, place, reason, "skip_bad_rows=True")
    data = load_dataset(path, skip_bad_rows=True)
    assert data.table["id"].to_pylist() == ["x"]
    (left,) = data.left_out
    assert (left.source, left.line, left.field) == (str(path), 2, field)
    assert reason in left.reason
    assert left.to_json() == {"source": str(path), "line": 2, "field": field, "reason": left.reason}


def test_json_within_the_limits_is_read(tmp_path):
    path = tmp_path / "data.jsonl"
    long = (
        b'{"prompt": "p", "chosen": "a", "rejected": "b", "score": '
        + b"9" * 4000
        + b', "role": 1, "more": {"role": 2}}\n'
    )
    path.write_bytes(b"\xef\xbb\xbf" + brackets(99) + long)
    assert len(load_dataset(path)) == 2


@pytest.mark.parametrize("name", ["a number without end", "a key twice", "a key twice inside"])
def test_a_bad_item_of_a_json_list_is_named_or_left_out(tmp_path, name):
    content, _, reason = BAD_LINES[name]
    path = tmp_path / "data.json"
    path.write_bytes(b'{"data": [' + lines(GOOD).strip() + b"," + content.strip() + b"," + lines(GOOD).strip() + b"]}")
    refused(path, f"{path}, line 2: {reason}", "skip_bad_rows=True")
    data = load_dataset(path, skip_bad_rows=True)
    assert len(data) == 2
    (left,) = data.left_out
    assert left.line == 2
    assert reason in left.reason


def test_every_bad_row_is_listed_and_the_good_ones_stay(tmp_path):
    path = tmp_path / "data.jsonl"

    content = [lines({**GOOD, "chosen": None}), b"{\n", lines(GOOD), b"\xff\n", lines({**GOOD, "weight": -1})]
    path.write_bytes(b"".join(content))
    data = load_dataset(path, skip_bad_rows=True)
    assert len(data) == 1
    found = {item.line: item.field for item in data.left_out}
    assert found == {1: "chosen", 2: None, 4: None, 5: "weight"}


# damage to a whole file: an error even where bad rows are skipped ----------------------------------------------------

GZIPPED = gzip.compress(lines(*({**GOOD, "prompt": f"{i} {i**9}"} for i in range(2000))), mtime=0)

BAD_FILES = {
    "whole.json": (b'{"data": [], "data": []}', "holds the key 'data' twice in one object; keep one"),
    "digits.json": (b"1" * 5000, "holds a number of 5,000 digits; write it as text, or shorter"),
    "empty.jsonl": (b"", "is empty: it holds no rows"),
    "blank.jsonl": (b"\n \n", "is empty: it holds no rows"),
    "empty.json": (b" ", "is empty"),
    "none.json": (b"[]", "is empty"),
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"prompt,chosen,rejected\n", "is empty"),
    "empty.jsonl.gz": (b"", "is empty"),
    "cut.jsonl.gz": (GZIPPED[:-2000], "is a truncated or damaged gzip file: "),
    "no.jsonl.gz": (lines(GOOD), "is no gzip file, or a damaged one"),
    "sum.jsonl.gz": (GZIPPED[:-8] + b"\0" * 8, "2000 whole lines could be read"),
    "wide.jsonl": ("\ufeff{}".encode("utf-16-le"), "is UTF-16, but must be UTF-8"),
    "only.jsonl": (b"{\n{\n", "none of the 2 rows of"),
    "array.jsonl": (b'[{"a": 1},\n', "line 2: is not valid JSON"),
    "array2.jsonl": (b'[{"a": 1}]\n', "no column 'chosen'"),
    "all.jsonl": (lines({**GOOD, "chosen": "b"}), "none of the 1 rows of", "the first: ", "is the same as chosen"),
    "typo.jsonl": (lines({"prompt": "p", "chosen": "a", "rejcted": "b"}), "no column 'rejected'", "rename 'rejcted'"),
    "case.csv": (b"Prompt,Chosen,Rejected\na,b,c\n", "has no column 'chosen'", "rename 'Chosen' to 'chosen'"),
    "promt.csv": (b"promt,chosen,rejected\na,b,c\n", "has no column 'prompt' but 'promt'"),
    "other.csv": (b"a,b\n1,2\n", "has no column 'chosen'; its columns are 'a', 'b'"),
    "persona.jsonl": (lines(PERSONA), "this looks like Persona data: give it as persona:PATH"),
    "cut.json": (b'[{"a": 1},\n {"b"', "line 2: is not valid JSON: Expecting ':' delimiter at column 6"),
    "object.json": (json.dumps({"rows": []}).encode(), "holds an object with the keys 'rows', but must hold a list"),
    "number.json": (b"5", "holds a number, but must hold a list of objects"),
    "latin.json": (b'[\n"\xe9"]', "line 2: is not UTF-8 (byte 0xe9) at column 2; mend the file"),
    "deep.json": (b"[" * 100_000, "is nested more than 100 deep"),
    "twice.csv": (b"prompt,chosen,chosen\na,b,c\n", "line 1: column 'chosen' occurs more than once"),
    "quote.csv": (b'prompt,chosen,rejected\na,b,c\nd,"e"f,g\n', "line 3: is not valid CSV"),
    "open.csv": (b'prompt,chosen,rejected\na,b,"c\n', "line 2: is not valid CSV"),
    "text.parquet": (b"not parquet", "is not a readable Parquet file"),
    "x.txt": (b"hello", "is of no kind that can be read; give a file that ends in .jsonl"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_damaged_file_is_an_error_even_where_bad_rows_are_skipped(tmp_path, name):
    content, *says = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *says, skip_bad_rows=True)


def test_a_truncated_gzip_says_how_many_rows_were_readable(tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(GZIPPED[: len(GZIPPED) // 2])
    with pytest.raises(DataError, match=r"file: (\d+) whole lines") as caught:
        load_dataset(path)
    assert 500 < int(str(caught.value).split("file: ")[1].split()[0]) < 1500


def test_an_empty_parquet_file_is_refused(tmp_path):
    pd.DataFrame({"prompt": [], "chosen": [], "rejected": []}).to_parquet(tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "is empty")


def test_an_unreadable_file_and_folder_are_named(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(GOOD))

    def no(*args, **rest):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", no)
        refused(path, "cannot be read: Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", no)
        refused(tmp_path, "cannot be listed: Permission denied")


def spoilt_parquet(path: Path, rows: list, old: bytes, new: bytes) -> Path:
    """A Parquet file in which some text's bytes are changed behind the back of its writer."""
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", use_dictionary=False, write_statistics=False)
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def test_a_parquet_text_that_is_not_utf8_is_named_or_left_out(tmp_path):
    rows = [GOOD, {**GOOD, "prompt": "cafe!!"}, GOOD]
    path = spoilt_parquet(tmp_path / "x.parquet", rows, b"cafe!!", b"caf\xe9!!")
    reason = "is not UTF-8 (byte 0xe9 at byte 4 of the text); write it as UTF-8"
    refused(path, f"{path}, line 2, field 'prompt': {reason}", "skip_bad_rows=True")
    data = load_dataset(path, skip_bad_rows=True)
    assert len(data) == 2
    assert [(item.line, item.field, item.reason) for item in data.left_out] == [(2, "prompt", reason)]
    sound = spoilt_parquet(tmp_path / "y.parquet", rows, b"cafe!!", "café!".encode())
    assert load_dataset(sound).table["prompt"].to_pylist() == ["p", "café!", "p"]


def test_a_parquet_message_that_is_not_utf8_is_named(tmp_path):
    rows = [{**TALK, "chosen": [{**BOT, "content": "cafe!!"}]}, TALK]
    path = spoilt_parquet(tmp_path / "x.parquet", rows, b"cafe!!", b"caf\xe9!!")
    refused(path, "line 1, field 'chosen': is not UTF-8 (byte 0xe9 at byte 4 of the text)")
    assert len(load_dataset(path, skip_bad_rows=True)) == 1


def test_a_parquet_column_whose_name_is_not_utf8_is_refused(tmp_path):
    rows = [{**GOOD, "cafe!!": "x"}]
    path = spoilt_parquet(tmp_path / "x.parquet", rows, b"cafe!!", b"caf\xe9!!")
    refused(path, "the column name 'caf\\\\xe9!!' is not UTF-8; write the file again")


def test_a_parquet_time_that_python_cannot_hold_is_named(tmp_path):
    times = pa.array([2**60, 5], pa.timestamp("ms"))
    table = pa.table({"prompt": ["p", "q"], "chosen": ["a", "a"], "rejected": ["b", "b"], "group": times})
    pq.write_table(table, tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "line 1, field 'group': is a timestamp[", "out of range")
    assert len(load_dataset(tmp_path / "x.parquet", skip_bad_rows=True)) == 1


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([["p"], ["a"], ["c"], ["b"]], names=["prompt", "chosen", "chosen", "rejected"])
    pq.write_table(table, tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "column 'chosen' occurs more than once; give every column its own name")
    with pytest.raises(DataError, match="table: column 'chosen' occurs more than once"):
        load_dataset(table)


@needs_shared
def test_the_shared_files_that_went_wrong():
    path = FILES / "five_thousand_digits.jsonl"
    refused(path, "line 4: holds a number of 5,000 digits", prefix="hh:")
    data = load_dataset(f"hh:{path}", skip_bad_rows=True)
    assert len(data) + len(data.left_out) == 6
    path = FILES / "bad_utf8.parquet"
    refused(path, "the column name 'l\\\\xe9st' is not UTF-8; write the file again", skip_bad_rows=True)


CSV_ROWS = {
    "short": (b"a,b\n", None, "has 2 fields, but the header has 3"),
    "long": (b"a,b,c,d\n", None, "has 4 fields, but the header has 3; quote fields that hold commas"),
    "latin": (b"caf\xe9,b,c\n", "prompt", "is not UTF-8 (byte 0xe9 at character 4)"),
}


@pytest.mark.parametrize("name", CSV_ROWS)
def test_a_bad_csv_row_is_named_by_the_line_where_it_begins(tmp_path, name):
    content, field, reason = CSV_ROWS[name]
    path = tmp_path / "x.csv"
    path.write_bytes(b'prompt,chosen,rejected\n"two\nlines",a,b\n' + content + b"x,y,z\n")
    refused(path, f"{path}, line 4", reason)
    data = load_dataset(path, skip_bad_rows=True)
    assert len(data) == 2
    assert [(item.line, item.field) for item in data.left_out] == [(4, field)]


def test_an_item_of_a_json_list_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([GOOD, "b"]))
    refused(path, "line 2: holds text ('b'), but each item must be an object")
    assert len(load_dataset(path, skip_bad_rows=True)) == 1


# Persona and HH ------------------------------------------------------------------------------------------------------


def test_bad_persona_data(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(lines(PERSONA, {**PERSONA, "question": None}))
    refused(path, "line 2, field 'question': is null", prefix="persona:")
    assert load_dataset(f"persona:{path}", skip_bad_rows=True).groups == ("p",)
    path.write_bytes(lines(GOOD))
    refused(path, "has no column 'question'", prefix="persona:")
    with pytest.raises(ConfigError, match="template 'questoin' is unknown; did you mean 'question'"):
        load_dataset(f"persona:{path}", template="questoin")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no .jsonl file", prefix="persona:")


HH_ROWS = {
    "prompts differ": (
        (HH + " a", HH.replace("Hi", "Hello") + " b"),
        "rejected",
        "has another prompt than chosen (23 characters in chosen, 26 in rejected, first difference at character 11)",
    ),
    "longer dialogue": ((HH + " a" + HH + " b", HH + " c"), "rejected", "first difference at character 24"),
    "no turn": (("Hello", HH + " b"), "chosen", "has no turn that begins with '\\n\\nAssistant:' ('Hello')"),
    "human turn": ((HH + " a", HH + " b\n\nHuman: more"), "rejected", "ends with a human turn"),
    "empty answer": ((HH + " ", HH + " b"), "chosen", "is empty (' ')"),
    "not text": ((5, HH + " b"), "chosen", "is a number (5), but must be text"),
}


@pytest.mark.parametrize("name", HH_ROWS)
def test_a_bad_dialogue_is_never_cut_wrongly(tmp_path, name):
    (chosen, rejected), field, reason = HH_ROWS[name]
    path = tmp_path / "h.jsonl"
    path.write_bytes(lines({"chosen": HH + " x", "rejected": HH + " y"}, {"chosen": chosen, "rejected": rejected}))
    refused(path, f"line 2, field {field!r}: ", reason, prefix="hh:")
    data = load_dataset(f"hh:{path}", skip_bad_rows=True)
    assert len(data) == 1
    assert data.left_out[0].field == field


def test_an_hh_folder_without_files_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    refused(tmp_path, "holds no .jsonl[.gz] file, nor do its folders", prefix="hh:")


# specs and settings --------------------------------------------------------------------------------------------------


def test_the_first_flaw_is_found_however_deep_it_lies():
    held = read_json(b'{"a": [1, {"b": [null, {"c": 1, "c": 2}]}], "d": {"e": 1, "e": 2}}', flaws=True)
    assert str(flaw_in(held)) == "holds the key 'c' twice in one object; keep one"
    assert "'e'" in str(flaw_in({"d": held["d"]}))
    assert flaw_in({"a": [1, None, "x"], "b": {}}) is None
    assert flaw_in([]) is None


def test_a_missing_path_names_three_files_at_most(tmp_path):
    for name in ("pairs-a", "pairs-b", "pairs-c", "pairs-d", "pairs-e"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(GOOD))
    for missing, near in (("pairs-x.jsonl", "pairs-"), ("0", "pairs-a.jsonl, pairs-b.jsonl, pairs-c.jsonl")):
        with pytest.raises(DataError, match="near names in") as found:
            load_dataset(tmp_path / missing)
        assert near in str(found.value)
        assert str(found.value).count(".jsonl") == 3 + missing.count(".jsonl")


def test_a_missing_path_names_what_is_near(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(lines(GOOD))
    refused(tmp_path / "trian.jsonl", "there is no file or folder", "near names in", "train.jsonl")

    with pytest.raises(DataError, match=r"there is no file or folder .*nowhere; near names in .*: train.jsonl"):
        load_dataset(tmp_path / "nowhere" / "deep" / "train.jsonl")
    for prefix in ("persona:", "hh:", "hf:"):
        refused(tmp_path / "trian.jsonl", "train.jsonl", prefix=prefix)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no .jsonl, .json, .csv, .parquet file")
    with pytest.raises(DataError, match=r"folder .*empty is empty"):
        load_dataset(tmp_path / "empty" / "x.jsonl")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("builtin:other", "'builtin:other' is unknown; the built-in data is data builtin or builtin:responses"),
        ("builtin:", "'builtin:' is unknown"),
        ("personas:x.jsonl", "begins with 'personas', which is no kind of data; did you mean 'persona'"),
        ("persona:", "'persona:' names no path; write persona:PATH"),
        ("owner/name", "for a dataset of the Hugging Face hub write hf:owner/name"),
        ("hf:name", "'hf:name' is no hub dataset; write hf:OWNER/NAME"),
        ("hf:a/b/c/d", "'hf:a/b/c/d' is no hub dataset"),
        ([GOOD, "x.jsonl"], "must hold specs only or rows only"),
        ([GOOD, 5], "row 2 of the list is 5, but must be a dictionary"),
        ([{**GOOD, 5: "x"}], "row 1 of the list has the key 5, but every key must be text"),
        ([{**GOOD, "id": 10**5000}], "field 'id': is a number too long to show, but must be text or a shorter number"),
        ([{**GOOD, "group": 10**5000}], "field 'group': is a number too long to show"),
        ("x" * 5000, "names no file or folder: File name too long; give a path"),
        ("a\0b.jsonl", r"'a\\x00b.jsonl' names no file or folder: .*null"),
        ("~nobody-here/x.jsonl", "names no file or folder: .*home directory"),
        ([], "the list of rows is empty"),
        (5, "cannot read pairs from builtins.int"),
        ({"prompt": ["p"]}, "cannot read pairs from builtins.dict"),
        (pd.DataFrame({"chosen": [], "rejected": []}), "the DataFrame is empty"),
        (pd.DataFrame([["a", "b", "c"]], columns=["chosen", "chosen", "rejected"]), "has two columns 'chosen'"),
        (pd.DataFrame({"prompt": ["p"], "chosen": ["a"]}), "DataFrame has no column 'rejected'"),
        (
            pd.DataFrame({"prompt": ["p"], "chosen": ["a"], "rejected": [None]}),
            "DataFrame, line 1, field 'rejected': is null",
        ),
        (pa.table({"chosen": pa.array([], pa.string())}), "table is empty"),
        (
            dataset_dict(train=datasets.Dataset.from_list([GOOD])),
            r"a DatasetDict holds the splits train; .* d\['train'\]",
        ),
        (datasets.Dataset.from_list([GOOD]).to_iterable_dataset(), "a streaming dataset .* without streaming=True"),
    ],
)
def test_data_that_cannot_be_found_or_understood(spec, says):
    with pytest.raises(DataError, match=says):
        load_dataset(spec)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"groups": ["opennes"]}, DataError, "group 'opennes' is not in dataset 'rows'; did you mean 'openness'"),
        ({"group_column": "knid"}, DataError, "group column 'knid' is not in rows; did you mean 'kind'"),
        ({"limit": 0}, ConfigError, "limit .* is 0, but must be a whole number of at least 1"),
        ({"template": "question"}, ConfigError, "template 'question' is for persona:PATH data"),
    ],
)
def test_settings_that_make_no_sense(options, error, says):
    with pytest.raises(error, match=says):
        load_dataset([{**GOOD, "group": "openness", "kind": "x"}], **options)


def test_two_unnamed_files_of_one_name_are_not_merged_silently(tmp_path):
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "train.jsonl")
        paths[-1].write_bytes(lines(GOOD))
    with pytest.raises(DataError, match="would both be the group 'train'; name them"):
        load_dataset(paths)
    assert load_dataset([f"a={paths[0]}", f"b={paths[1]}"]).groups == ("a", "b")


def test_saved_datasets_that_do_not_fit(tmp_path, monkeypatch):
    made = datasets.Dataset.from_list([GOOD])
    dataset_dict(first=made, second=made).save_to_disk(str(tmp_path / "two"))
    made.save_to_disk(str(tmp_path / "one"))
    (tmp_path / "none").mkdir()
    refused(tmp_path / "two", "needs one of the splits ['first', 'second']", prefix="hf:")
    with pytest.raises(DataError, match="has no split 'secnd'; did you mean 'second'"):
        load_dataset(f"hf:{tmp_path}/two:secnd")
    with pytest.raises(DataError, match="holds one dataset without splits, so :train names nothing"):
        load_dataset(f"hf:{tmp_path}/one:train")
    refused(tmp_path / "none", "cannot be loaded", "give a folder saved by save_to_disk", prefix="hf:")
    refused(tmp_path / "two", "needs one of the splits ['first', 'second']")
    assert len(load_dataset(tmp_path / "one")) == 1

    def offline(*args, **rest):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match="'hf:o/n' cannot be loaded: no network; check the name and the network"):
        load_dataset("hf:o/n")
