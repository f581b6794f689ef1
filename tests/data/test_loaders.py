"""Every form that data comes in, read to the same pairs."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn.data.loaders import load_dataset
from prefdyn.data.rows import common_prefix, implicit_prompt
from prefdyn.errors import DataError

ROWS = [
    {"prompt": "The sky is", "chosen": " blue, mostly", "rejected": ' "green"\n', "category": "sky", "weight": 2.0},
    {"prompt": "Das Gras ist", "chosen": " grün", "rejected": " rot", "category": "gras", "weight": 0.5},
]
TEXTS = [(row["prompt"], row["chosen"], row["rejected"]) for row in ROWS]


def dataset_dict(**splits: datasets.Dataset) -> Any:
    return datasets.DatasetDict(splits)  # pyright: ignore[reportCallIssue, reportArgumentType]


def texts(data):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in data.to_rows()]


def write_lines(path: Path, rows=ROWS) -> Path:
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


def write_any(path: Path) -> Path:
    if ".jsonl" in path.name:
        return write_lines(path)
    if path.name == "wrapped.json":
        path.write_text(json.dumps({"data": ROWS}))
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(ROWS))
    elif path.name.endswith(".csv"):
        pd.DataFrame(ROWS).to_csv(path, index=False)
    else:
        pd.DataFrame(ROWS).to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "wrapped.json", "x.csv", "x.parquet"])
def test_every_file_format_says_the_same(tmp_path, name):
    path = write_any(tmp_path / name)
    data = load_dataset(str(path))
    assert texts(data) == TEXTS
    assert data.groups == ("sky", "gras")
    assert data.table["weight"].to_pylist() == [2.0, 0.5]
    assert data.table["source"].to_pylist() == [str(path)] * 2
    assert data.table["id"].to_pylist()[0] == f"{data.name}:{data.table['line'].to_pylist()[0]}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: pd.DataFrame(ROWS),
        lambda: datasets.Dataset.from_list(ROWS),
        lambda: datasets.Dataset.from_list(ROWS[::-1]).select([1, 0]),
        lambda: dataset_dict(train=datasets.Dataset.from_list(ROWS))["train"],
        lambda: pa.Table.from_pylist(ROWS),
        lambda: load_dataset(ROWS),
        lambda: iter(ROWS),
    ],
)
def test_every_object_in_memory_says_the_same(make):
    data = load_dataset(make())
    assert texts(data) == TEXTS
    assert data.groups == ("sky", "gras")


def test_the_line_is_where_the_row_begins(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,chosen,rejected\r\n"two\r\nlines",a,b\r\n\r\nq,c,d\r\n')
    data = load_dataset(path)
    assert data.table["line"].to_pylist() == [2, 5]
    assert texts(data) == [("two\r\nlines", "a", "b"), ("q", "c", "d")]


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\n\n  \n" + json.dumps(ROWS[1]).encode())
    assert load_dataset(path).table["line"].to_pylist() == [1, 4]


def test_a_csv_field_may_be_longer_than_the_default_limit_of_the_csv_module(tmp_path):
    import csv

    path, before = tmp_path / "x.csv", csv.field_size_limit()
    path.write_text(f"prompt,chosen,rejected\np,{'x' * 200_000},b\n")
    assert len(load_dataset(path).to_rows()[0]["chosen"]) == 200_000
    assert csv.field_size_limit() == before


# prompts -------------------------------------------------------------------------------------------------------------

ASK = {"role": "user", "content": "What colour is the sky?"}
BLUE, GREEN = {"role": "assistant", "content": "Blue."}, {"role": "assistant", "content": "Green."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [ASK, BLUE], "rejected": [ASK, GREEN]},
        {"prompt": "What colour is the sky?", "chosen": [ASK, BLUE], "rejected": [ASK, GREEN]},
        {"prompt": [{**ASK, "name": None}], "chosen": [{**BLUE, "tool_calls": None}], "rejected": [GREEN]},
        {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN], "tools": None, "chat_template_kwargs": None},
    ],
)
def test_the_forms_of_a_conversation_are_one(row, tmp_path):
    for made in (load_dataset([row]), load_dataset(datasets.Dataset.from_list([row]))):
        found = made.to_rows()[0]
        assert found["conversation"] == {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN]}
        assert (found["prompt"], found["chosen"], found["rejected"]) == (ASK["content"], "Blue.", "Green.")
    assert load_dataset([row]).conversational == 1


def test_contents_in_parts_stay_parts_and_read_as_one_text():
    parts = [{"type": "text", "text": "What colour "}, {"type": "text", "text": "is the sky?"}]
    found = load_dataset([{"prompt": [{**ASK, "content": parts}], "chosen": [BLUE], "rejected": [GREEN]}]).to_rows()[0]
    assert found["conversation"]["prompt"] == [{**ASK, "content": parts}]
    assert found["prompt"] == ASK["content"]


def test_conversations_come_out_of_a_frame_that_pandas_read_from_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"chosen": [ASK, BLUE], "rejected": [ASK, GREEN]}]), tmp_path / "x.parquet")
    for given_data in (pd.read_parquet(tmp_path / "x.parquet"), tmp_path / "x.parquet"):
        assert load_dataset(given_data).to_rows()[0]["conversation"]["prompt"] == [ASK]


def test_all_shared_leading_messages_are_the_prompt():
    more = [{"role": "system", "content": "Be brief."}, ASK, BLUE, {"role": "user", "content": "Sure?"}]
    found = load_dataset([{"chosen": [*more, BLUE], "rejected": [*more, GREEN]}]).to_rows()[0]
    assert found["conversation"]["prompt"] == more
    assert found["prompt"] == "system: Be brief.\n\nuser: What colour is the sky?\n\nassistant: Blue.\n\nuser: Sure?"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),  # as TRL
        ("The sky is green.", "The sky is grey.", "The sky is"),  # TRL: "The sky is gre"
        ("Q: 2+2?\nA: 4", "Q: 2+2?\nA: 5", "Q: 2+2?\nA:"),
        ("Pick (A)", "Pick (B)", "Pick ("),
        ("The sky is", "The sky is blue", "The sky"),
        ("It isn't so", "It isn", "It"),
        ("Yes", "Yellow", ""),
        ("Yes", "No", ""),
        ("a b\n\nYes", "a b\n\nNo", "a b\n\n"),
    ],
)
def test_the_implicit_prompt_ends_between_words(chosen, rejected, prompt):
    row = [{"chosen": chosen, "rejected": rejected}]
    if not prompt:
        with pytest.raises(DataError, match="in 1 of 1 pairs chosen and rejected share no beginning"):
            load_dataset(row)
    found = load_dataset(row, columns=None if prompt else "chosen=chosen,rejected=rejected").to_rows()[0]
    assert found["prompt"] == prompt
    assert (prompt + found["chosen"], prompt + found["rejected"]) == (chosen, rejected)


words = st.text("ab .'\n", max_size=12)


@given(words, words, words)
def test_an_implicit_prompt_is_shared_and_cuts_no_word(head, first, second):
    chosen, rejected = head + first, head + second
    assert common_prefix(chosen, rejected) == next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    cut = implicit_prompt(chosen, rejected)
    assert chosen[:cut] == rejected[:cut]
    if cut:
        for side in (chosen, rejected):
            assert not (side[cut - 1] in "ab'" and side[cut : cut + 1] in {"a", "b", "'"})
    if chosen.strip() and rejected.strip() and not chosen.isspace():
        assert len(chosen) == 0 or cut < len(chosen)


# groups, ids, splits -------------------------------------------------------------------------------------------------


def pair(i: int = 0, **rest: Any) -> dict[str, Any]:
    return {"prompt": f"p{i}", "chosen": "a", "rejected": "b", **rest}


def test_group_columns_are_found_in_their_order():
    names = ["group", "behavior", "behaviour", "persona", "subset", "source", "category", "channel", "dataset"]
    for place, name in enumerate(names):
        row = {**pair(), **{other: f"in {other}" for other in reversed(names[place:])}}
        assert load_dataset([row]).groups == (f"in {name}",)


def test_a_group_column_can_be_named_and_need_not_hold_text():
    rows = [pair(0, group="x", level=1), pair(1, group="x", level=True), pair(2, group="x", level=2.5)]
    assert load_dataset(rows, group_column="level").groups == ("1", "True", "2.5")


def test_without_a_group_column_there_is_one_group():
    assert load_dataset([pair(0), pair(1)]).groups == ("all",)


def test_several_sources_are_groups_unless_they_have_groups(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_lines(tmp_path / f"{name}.jsonl", [pair(0, **({"group": "own"} if name == "c" else {}))])
    specs = [f"first={tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl", f"third={tmp_path}/c.jsonl", f"f o={tmp_path}/d.jsonl"]
    data = load_dataset(specs)
    assert data.groups == ("first", "b", "own", "f o")
    assert data.name == "first+b+third+f o"
    assert data.table["id"].to_pylist() == ["a:1", "b:1", "c:1", "d:1"]
    assert load_dataset(specs[:1]).groups == ("first",)


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lines(Path("run=1.jsonl"), [pair()])
    assert load_dataset("run=1.jsonl").name == "run=1"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / "x.jsonl")
    assert texts(load_dataset("~/x.jsonl")) == TEXTS


def test_a_folder_is_all_of_its_files_and_ids_stay_unique(tmp_path):
    write_lines(tmp_path / "x.jsonl", [pair(0, id=1), pair(1)])
    write_lines(tmp_path / "x.jsonl.gz", [pair(2, id=1), pair(3)])
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / ".hidden.jsonl").write_text("no data")
    assert load_dataset(tmp_path).table["id"].to_pylist() == ["1", "x:2", "x~2:1", "x~2:2"]


def test_an_id_that_looks_generated_does_not_clash(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [pair(0, id="x:2"), pair(1)])
    assert load_dataset(path).table["id"].to_pylist() == ["x:2", "x:2~2"]


def test_null_ids_and_weights_are_filled():
    data = load_dataset([pair(0, id=None, weight=None), pair(1, id="", weight="3")])
    assert data.table["id"].to_pylist() == ["row:1", "row:2"]
    assert data.table["weight"].to_pylist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("given_sides", "expected"),
    [
        (["train", "test"], ["train", "held_out"]),
        (["Validation", "train_prefs"], ["held_out", "train"]),
        (["test", "test"], ["train", "train"]),  # one side alone is no split
        (["train", "banana"], ["train", "train"]),
        (["held_out", None], ["train", "train"]),
    ],
)
def test_a_split_column_counts_where_it_tells_two_sides_apart(given_sides, expected):
    data = load_dataset([pair(i, split=side) for i, side in enumerate(given_sides)])
    assert data.table["split"].to_pylist() == expected


def test_groups_and_limit(tmp_path):
    rows = [pair(i, group="ab"[i % 2]) for i in range(40)]
    data = load_dataset(rows, groups=["b"], limit=5, seed=3)
    assert data.groups == ("b",)
    assert len(data) == 5
    assert data.sha256 == load_dataset(rows, limit=5, seed=3).select("b").sha256


# Persona and HH ------------------------------------------------------------------------------------------------------


def persona(i: int = 0, **rest):
    return {
        "question": f'Would you say this?\n"S{i}"',
        "statement": f"S{i}",
        "label_confidence": 0.9,
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": " No",
        **rest,
    }


def test_persona_files_are_groups_by_name_and_a_packed_file_by_its_field(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    write_lines(folder / "openness.jsonl", [persona(0)])
    write_lines(folder / "anti.power.jsonl", [persona(1), persona(2)])
    (folder / "names.json").write_text('["no", "rows"]')
    packed = write_lines(tmp_path / "p.jsonl.gz", [persona(1, persona="anti.power"), persona(0, persona="openness")])
    assert load_dataset(f"persona:{folder}").groups == ("anti.power", "openness")
    assert load_dataset(f"persona:{packed}").groups == ("anti.power", "openness")
    assert load_dataset(f"persona:{folder / 'openness.jsonl'}").groups == ("openness",)
    found = load_dataset(f"persona:{packed}").to_rows()[0]
    assert (found["prompt"], found["chosen"], found["rejected"]) == ('Would you say this?\n"S1"', " Yes", " No")


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("question", 'Would you say this?\n"S0"'),
        ("question+newline", 'Would you say this?\n"S0"\n'),
        ("statement", "S0"),
    ],
)
def test_persona_templates(tmp_path, template, prompt):
    path = write_lines(tmp_path / "p.jsonl", [persona()])
    assert load_dataset(f"persona:{path}", template=template).to_rows()[0]["prompt"] == prompt


HEAD = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: A dog?\n\nAssistant:"


def test_hh_prompts_end_with_the_last_assistant_turn_and_answers_keep_common_beginnings(tmp_path):
    path = write_lines(tmp_path / "h.jsonl.gz", [{"chosen": HEAD + " I like dogs", "rejected": HEAD + " I like cats"}])
    assert texts(load_dataset(f"hh:{path}")) == [(HEAD, " I like dogs", " I like cats")]


def test_hh_folders_of_folders_are_groups(tmp_path):
    for name in ("harmless", "helpful"):
        (tmp_path / name).mkdir()
        for split in ("test", "train"):
            write_lines(tmp_path / name / f"{split}.jsonl", [{"chosen": f"{HEAD} a {split}", "rejected": f"{HEAD} b"}])
    data = load_dataset(f"hh:{tmp_path}")
    assert data.groups == ("harmless", "helpful")
    assert data.table["id"].to_pylist() == ["harmless:1", "harmless~2:1", "helpful:1", "helpful~2:1"]


# the built-in data and Hugging Face ----------------------------------------------------------------------------------


def test_the_built_in_data_loads():
    data = load_dataset("builtin")
    assert len(data.groups) >= 16
    assert set(data.table["chosen"].to_pylist()) == {" Yes", " No"}


@pytest.mark.parametrize("split", ["", ":train", ":test"])
def test_a_saved_dataset_of_splits(tmp_path, split):
    made = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    dataset_dict(**made).save_to_disk(str(tmp_path / "saved"))
    assert texts(load_dataset(f"hf:{tmp_path / 'saved'}{split}")) == (TEXTS[:1] if split == ":test" else TEXTS)


@pytest.mark.parametrize("local", [True, False])
def test_several_splits_keep_their_sides(tmp_path, monkeypatch, local):
    """And ids of both, which may be equal, stay apart."""
    train, test = (datasets.Dataset.from_list([{**row, "id": str(place)} for place, row in enumerate(rows)])
                   for rows in (ROWS, ROWS[:1]))  # fmt: skip
    if local:
        dataset_dict(train=train, test=test).save_to_disk(str(tmp_path / "saved"))
    else:
        monkeypatch.setattr(
            datasets, "load_dataset", lambda *_, split: [{"train": train, "test": test}[n] for n in split]
        )
    data = load_dataset(f"hf:{tmp_path / 'saved' if local else 'o/n'}:train+test")
    assert texts(data) == [*TEXTS, *TEXTS[:1]]
    assert data.table["split"].to_pylist() == ["train"] * len(ROWS) + ["held_out"]
    assert len(set(data.table["id"].to_pylist())) == len(data)
    if local:
        with pytest.raises(DataError, match=r"has no split 'tset'; did you mean 'test'"):
            load_dataset(f"hf:{tmp_path / 'saved'}:train+tset")


def test_a_saved_single_dataset(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    data = load_dataset(f"hf:{tmp_path / 'saved'}")
    assert texts(data) == TEXTS
    assert data.name == "saved"


def test_a_folder_of_configurations_as_distilabel_saves_it(tmp_path):
    """One configuration is taken, of several one must be named; a pipeline's own files are no data."""
    made = datasets.Dataset.from_list(ROWS)
    dataset_dict(train=made).save_to_disk(str(tmp_path / "mine" / "default"))
    (tmp_path / "mine" / "distiset_configs").mkdir()
    (tmp_path / "mine" / "distiset_configs" / "pipeline.yaml").write_text("pipeline: {}\n")
    for spec in ("mine", "hf:mine", "hf:mine:train", "mine/default"):
        data = load_dataset(str(tmp_path / spec) if ":" not in spec else f"hf:{tmp_path / spec.removeprefix('hf:')}")
        assert texts(data) == TEXTS
        assert data.name == ("default" if "/" in spec else "mine")
    dataset_dict(train=made).save_to_disk(str(tmp_path / "mine" / "leaf"))
    for spec in ("", "hf:"):
        with pytest.raises(
            DataError, match=r"mine holds several saved datasets \(default, leaf\); give one, such as /"
        ):
            load_dataset(f"{spec}{tmp_path / 'mine'}")
    assert texts(load_dataset(str(tmp_path / "mine" / "leaf"))) == TEXTS


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("hf:o/n", (("o/n",), {})),
        ("hf:o/n:test", (("o/n",), {"split": ["test"]})),
        ("hf:o/n/c:train[:10%]", (("o/n", "c"), {"split": ["train[:10%]"]})),
    ],
)
def test_a_hub_spec_is_taken_apart(monkeypatch, spec, asked):
    calls = []

    def load(*args, **kwargs):
        calls.append((args, kwargs))
        found = datasets.Dataset.from_list(ROWS)
        return [found for _ in kwargs["split"]] if kwargs else dataset_dict(train=found, test=found.select([0]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert texts(load_dataset(spec)) == TEXTS
    assert calls == [asked]
