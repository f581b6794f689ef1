"""`--columns`: what a mapping says, how votes are read, and what becomes of rows under it."""

import json
from typing import Any

import pandas as pd
import pytest

from prefdyn.data.columns import Columns, Field, columns, lookup
from prefdyn.data.layouts import LAYOUTS
from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import ConfigError, DataError

TWO = "prompt=q,first=a,second=b,winner=w"


def load(rows, mapping: Any, **options):
    return load_dataset(rows, columns=mapping, **options)


def texts(data):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in data.to_rows()]


def rows_of(*winners, **more):
    return [{"q": f"question {i}", "a": "one", "b": "two", "w": w, **more} for i, w in enumerate(winners)]


# what a mapping says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_mapping_as_text_says_the_same_when_it_is_read_again(layout):
    assert columns(str(layout.columns)) == layout.columns


def test_text_yaml_and_dictionary_are_one_mapping(tmp_path):
    text = 'prompt=instruction+input?,first="x,y",second="p.q",winner=v1+v2,values=1/2/0'
    flat = tmp_path / "flat.yaml"
    lines = ["prompt:", "  - instruction", "  - input?", "first: '\"x,y\"'", "second: '\"p.q\"'", "winner: [v1, v2]"]
    flat.write_text("\n".join([*lines, "values: [1, 2, 0]"]))
    inside = tmp_path / "inside.yml"
    inside.write_text(json.dumps({"columns": text}))
    held = {
        "prompt": ["instruction", "input?"],
        "first": '"x,y"',
        "second": '"p.q"',
        "winner": ["v1", "v2"],
        "values": "1/2/0",
    }
    expected = columns(text)
    assert expected.first == (Field("x,y", ("x,y",)),)
    assert expected.prompt[1].optional
    for given in (str(flat), flat, inside, held, expected):
        assert columns(given) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("prompt=a", "names 'prompt', which makes no pairs; give chosen and rejected, or first, second and winner"),
        ("prompt=a,chosen=b", "which makes no pairs"),
        ("chosen=a,rejected=b,winner=c", "which makes no pairs"),
        ("responses=a", "which makes no pairs"),
        ("responses=a,ratings=b,ranking=c", "which makes no pairs"),
        ("promt=a,chosen=b,rejected=c", "'promt' is no role; did you mean 'prompt'?"),
        ("prompt=a,prompt=b,chosen=c,rejected=d", "prompt is said twice; give several fields as prompt=one+other"),
        ("question", "'question' is no role=field; write such as prompt=question"),
        ('prompt="a,chosen=b,rejected=c', "is not closed"),
        ("prompt=@fil,chosen=b,rejected=c", "prompt=@fil is no field; did you mean '@file'?"),
        (f"{TWO},votes=some", "votes=some is unknown"),
        (f"{TWO},pairs=worst", "pairs=worst is unknown"),
        (f"{TWO},values=1", "values=1 must be two or three with '/' between"),
        ({"chosen": 5.5, "rejected": "b"}, "chosen is a number (5.5), but must name fields"),
        ("missing.yaml", "cannot be read: No such file or directory; give a YAML file of `role: field` lines"),
    ],
)
def test_a_mapping_that_says_nothing_is_refused(given, says):
    with pytest.raises(ConfigError) as caught:
        columns(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_yaml_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match="holds a list, but must hold `role: field` lines"):
        columns(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plain", 1),
        ("a.b", "dotted name"),  # a column that is called so goes before a path
        ("deep.x.1", 20),
        ("deep.x", [10, 20]),
        ("items.t", ["p", "q"]),
        ("items.0.t", "p"),
        ("deep.*", [[10, 20]]),
        ("json.k", "inside"),
    ],
)
def test_paths_lead_into_nested_rows(path, value):
    row = {"plain": 1, "a.b": "dotted name", "a": {"b": "path"}, "deep": {"x": [10, 20]},
           "items": [{"t": "p"}, {"t": "q"}], "json": '{"k": "inside"}'}  # fmt: skip
    assert lookup(row, columns(f"chosen={path},rejected=x").chosen[0]) == value


# winners -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("winners", "chosen", "ties"),
    [
        ([1, 2, 0], ["one", "two"], 1),
        ([1.0, 2.0], ["one", "two"], 0),  # as pandas makes them beside nulls
        (["1", "2", "tie"], ["one", "two"], 1),
        ([0, 1], ["one", "two"], 0),
        (["A", "b", "Tie"], ["one", "two"], 1),
        (["model_a", "model_b", "tie (bothbad)"], ["one", "two"], 1),
        (["[[A]]", "[[B]]", "[[C]]"], ["one", "two"], 1),
        (["left", "right", "both"], ["one", "two"], 1),
    ],
)
def test_winners_are_read_as_people_write_them(winners, chosen, ties):
    data = load(rows_of(*winners), TWO)
    assert data.table["chosen"].to_pylist() == chosen
    assert data.table["slot"].to_pylist() == [1 if text == "one" else 2 for text in chosen]
    assert data.readings[0].ties == ties
    assert data.left_out == ()


def test_winners_may_be_the_names_of_the_columns():
    rows = [{"q": "x", "good": "one", "other": "two", "w": w} for w in ("other", "GOOD")]
    data = load(rows, "prompt=q,first=good,second=other,winner=w")
    assert data.table["chosen"].to_pylist() == ["two", "one"]


@pytest.mark.parametrize("names", [("r1", "r2"), ("response_1", "response_2")])
def test_numbered_columns_tell_what_a_single_number_means(names):
    rows = [{"q": f"x{i}", names[0]: "one", names[1]: "two", "w": 1} for i in range(3)]
    assert set(load(rows, f"prompt=q,first={names[0]},second={names[1]},winner=w").table["chosen"].to_pylist()) == {
        "one"
    }
    zero = [{"q": f"x{i}", "r_0": "one", "r_1": "two", "w": 1} for i in range(3)]
    assert set(load(zero, "prompt=q,first=r_0,second=r_1,winner=w").table["chosen"].to_pylist()) == {"two"}


@pytest.mark.parametrize("winners", [[1, 1], [0, 0], [-1, 1], [-1, 0, 1], [True, False], ["x", "y"], [3, 4], [0.5, 1]])
def test_winners_that_do_not_tell_are_refused_with_what_to_write(winners):
    with pytest.raises(DataError) as caught:
        load(rows_of(*winners), TWO)
    assert "field 'w' holds" in str(caught.value)
    assert "add to columns values=FIRST/SECOND/TIE, such as values=1/2/0" in str(caught.value)


@pytest.mark.parametrize(
    ("winners", "values", "chosen", "ties"),
    [
        ([1, 1, 0], "1/0", ["one", "one", "two"], 0),
        ([True, False], "true/false", ["one", "two"], 0),
        ([-2, 0, 3], "negative/positive", ["one", "two"], 1),
        ([-2, 0, 3], "positive/negative", ["two", "one"], 1),
        (["yes", "no", "dunno", "eh"], "yes/no/dunno|eh", ["one", "two"], 2),
        ([0, 1, 2], "0/1/2", ["one", "two"], 1),
    ],
)
def test_values_say_what_winners_mean(winners, values, chosen, ties):
    data = load(rows_of(*winners), f"{TWO},values={values}")
    assert data.table["chosen"].to_pylist() == chosen
    assert data.readings[0].ties == ties


def test_a_winner_that_is_none_of_the_others_is_a_bad_row():
    with pytest.raises(DataError, match=r"line 3, field 'w': is 'banana', but the others say"):
        load(rows_of("a", "b", "banana"), TWO)
    data = load(rows_of("a", "b", "banana", None), TWO, skip_bad_rows=True)
    assert [(item.line, item.field) for item in data.left_out] == [(3, "w"), (4, "w")]
    assert "nobody says which is better" in data.left_out[1].reason


# several people ------------------------------------------------------------------------------------------------------


def test_most_votes_decide_and_their_share_is_kept():
    votes = [(1, 1, 1), (1, 1, 2), (2, 0, 2), (1, 2, 0), (0, 0, 1), (2, None, None), (1, 2, None)]
    rows = [
        {"q": f"question {i}", "a": "one", "b": "two", "x": v[0], "y": v[1], "z": v[2]} for i, v in enumerate(votes)
    ]
    data = load(rows, "prompt=q,first=a,second=b,winner=x+y+z,weight=@votes")
    assert data.table["chosen"].to_pylist() == ["one", "one", "two", "two"]
    assert data.table["agreement"].to_pylist() == pytest.approx([1, 2 / 3, 2 / 3, None])
    assert data.table["weight"].to_pylist() == pytest.approx([1, 2 / 3, 2 / 3, 1])
    assert (data.readings[0].ties, data.readings[0].divided) == (3, 2)
    codes = {finding.code: finding for finding in preflight(data)}
    assert codes["ties"].count == 3
    assert codes["divided_votes"].says.startswith("2 pairs decided by most of the votes")


def test_votes_may_be_a_list_and_may_each_be_a_pair():
    rows = [{"q": "same", "a": "one", "b": "two", "votes": [{"who": "ann", "v": 1}, {"who": "bob", "v": 2}]}]
    mapping = "prompt=q,first=a,second=b,winner=votes.v,raters=votes.who,votes=each,group=@rater"
    data = load(rows, mapping)
    assert data.groups == ("ann", "bob")
    assert data.table["chosen"].to_pylist() == ["one", "two"]
    assert data.table["id"].to_pylist() == ["row:1/ann", "row:1/bob"]
    assert len(set(data.table["cluster"].to_pylist())) == 1
    with pytest.raises(DataError, match="none of the 1 rows of rows can be used; 1 pairs are ties"):
        load(rows, "prompt=q,first=a,second=b,winner=votes.v")


# one against several, rankings, comparisons --------------------------------------------------------------------------


def test_one_against_several_is_all_pairs_or_the_first():
    rows = [{"q": "x", "good": "g", "bad": ["b1", "b2", "b3"]}, {"q": "y", "good": "g", "bad": ["b4"]}]
    data = load(rows, "prompt=q,chosen=good,rejected=bad")
    assert data.table["rejected"].to_pylist() == ["b1", "b2", "b3", "b4"]
    assert data.table["cluster"].to_pylist() == ["row:1"] * 3 + [None]
    assert data.table["id"].to_pylist() == ["row:1/1", "row:1/2", "row:1/3", "row:2"]
    assert load(rows, "prompt=q,chosen=good,rejected=bad,pairs=best").table["rejected"].to_pylist() == ["b1", "b4"]


def test_one_bad_pair_of_a_row_does_not_take_the_others_with_it():
    rows = [{"q": "x", "good": "g", "bad": ["b1", "g", ""]}]
    data = load(rows, "prompt=q,chosen=good,rejected=bad", skip_bad_rows=True)
    assert data.table["rejected"].to_pylist() == ["b1"]
    assert [item.line for item in data.left_out] == [1, 1]


@pytest.mark.parametrize("role", ["ratings=s", "ranking=r"])
def test_ratings_are_better_high_and_ranks_low(role):
    rows = [{"q": "x", "all": ["p", "q", "r"], "s": [5, 9, 1], "r": [2, 1, 3]}]
    best = load(rows, f"prompt=q,responses=all,{role}")
    assert texts(best) == [("x", "q", "r")]
    every = load(rows, f"prompt=q,responses=all,{role},pairs=all")
    assert [(c, r) for _, c, r in texts(every)] == [("q", "p"), ("p", "r"), ("q", "r")]
    assert every.table["slot"].to_pylist() == [2, 1, 1]
    assert len(set(every.table["cluster"].to_pylist())) == 1


def test_equal_ratings_are_ties_and_missing_ones_are_left_out():
    rows = [
        {"q": "x", "all": ["p", "q"], "s": [5, 5]},
        {"q": "y", "all": ["p", "q", "r"], "s": [5, None, 4]},
        {"q": "z", "all": ["p", "q", "r"], "s": ["7", "7", "2.5"]},
    ]
    data = load(rows, "prompt=q,responses=all,ratings=s")
    assert texts(data) == [("y", "p", "r"), ("z", "p", "r")]
    assert (data.readings[0].ties, data.readings[0].shared_best) == (1, 1)
    assert {"ties", "shared_best"} <= {finding.code for finding in preflight(data)}


def test_comparisons_are_every_two_in_turn():
    rows = [{"q": f"question {i}", "o 1": "p", "o 2": "q", "o 3": "r", "c": c} for i, c in enumerate([[1, 2, 0]])]
    data = load(rows, "prompt=q,responses=o 1+o 2+o 3,comparisons=c")
    assert [(c, r) for _, c, r in texts(data)] == [("p", "q"), ("r", "p")]
    assert data.table["id"].to_pylist() == ["row:1/1v2", "row:1/1v3"]
    assert data.readings[0].ties == 1
    with pytest.raises(DataError, match="holds 2 comparisons, but 3 responses make 3: 1 with 2, 1 with 3"):
        load([{**rows[0], "c": [1, 2]}], "prompt=q,responses=o 1+o 2+o 3,comparisons=c")


@pytest.mark.parametrize(
    ("row", "mapping", "says"),
    [
        ({"q": "x", "all": "p", "s": 1}, "prompt=q,responses=all,ratings=s", "must be a list of responses"),
        ({"q": "x", "all": ["p"], "s": [1]}, "prompt=q,responses=all,ratings=s", "holds 1 responses"),
        ({"q": "x", "all": ["p", "r"], "s": [1]}, "prompt=q,responses=all,ratings=s", "holds 1 values for 2 responses"),
        ({"q": "x", "all": ["p", "r"], "s": [1, None]}, "prompt=q,responses=all,ratings=s", "rates 1 of the responses"),
        ({"q": "x", "all": ["p", "r"], "s": [1, "hi"]}, "prompt=q,responses=all,ratings=s", "must be a number"),
        ({"q": "x", "all": [{"t": "p"}, {}], "s": [1, 2]}, "prompt=q,responses=all.t,ratings=s", "is missing in an"),
        ({"q": "x", "a": "p", "b": []}, "prompt=q,chosen=a,rejected=b", "holds no response"),
        ({"q": "x", "a": "p", "b": None}, "prompt=q,chosen=a,rejected=b", "holds no response"),
        ({"q": "x", "a": True, "b": "p"}, "prompt=q,chosen=a,rejected=b", "is true or false (True), but must be text"),
        ({"q": ["x"], "a": {"k": 1}, "b": "p"}, "prompt=q,chosen=a,rejected=b", "message 1 has no role"),
        ({"q": "x", "a": "p", "b": "r", "s": 5}, "prompt=q,system=s,chosen=a,rejected=b", "is a number (5)"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_its_mapping_says_why(row, mapping, says):
    with pytest.raises(DataError) as caught:
        load([row], mapping)
    assert says in str(caught.value)
    assert "line 1" in str(caught.value)


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(DataError, match=r"has no column 'qestion'; its columns are .*; did you mean 'question'"):
        load([{"question": "x", "a": "p", "b": "r"}], "prompt=qestion,chosen=a,rejected=b")


# the rest of a row ---------------------------------------------------------------------------------------------------


def test_rows_inside_rows_are_rows():
    rows = [{"doc": "d", "items": {"k1": {"g": "p", "b": "r"}, "k2": {"g": "s", "b": "t"}}, "category": "c"}]
    data = load(rows, "each=items,prompt=doc+@key,chosen=g,rejected=b")
    assert texts(data) == [("d\nk1", "p", "r"), ("d\nk2", "s", "t")]
    assert data.groups == ("c",)
    assert data.table["cluster"].to_pylist() == ["row:1/k1", "row:1/k2"]


def test_group_id_weight_split_and_cluster_come_from_any_column():
    rows = [
        {"q": f"question {i}", "a": "p", "b": "r", "lang": "en", "kind": "x", "n": i, "w": 2, "part": part, "doc": "d"}
        for i, part in enumerate(["train", "test"])
    ]
    mapping = "prompt=q,chosen=a,rejected=b,group=lang+kind,id=n,weight=w,split=part,cluster=doc"
    data = load(rows, mapping)
    assert data.groups == ("en/x",)
    assert data.table["id"].to_pylist() == ["0", "1"]
    assert data.table["weight"].to_pylist() == [2.0, 2.0]
    assert data.splits == ("train", "held_out")
    assert data.clusters.of.tolist() == [0, 0]
    with pytest.raises(ConfigError, match="columns names group=lang, and group_column kind; keep one"):
        load(rows, mapping, group_column="kind")


def test_a_system_text_and_a_history_make_a_conversation():
    row = {"q": "Now?", "a": "Yes.", "b": "No.", "sys": "Be brief.", "past": [["Then?", "No."]]}
    data = load([row], "system=sys,history=past,prompt=q,chosen=a,rejected=b")
    talk = data.to_rows()[0]["conversation"]
    assert [(turn["role"], turn["content"]) for turn in talk["prompt"]] == [
        ("system", "Be brief."),
        ("user", "Then?"),
        ("assistant", "No."),
        ("user", "Now?"),
    ]
    assert talk["chosen"] == [{"role": "assistant", "content": "Yes."}]
    empty = load([{**row, "sys": "", "past": []}], "system=sys,history=past,prompt=q,chosen=a,rejected=b")
    assert empty.conversational == 0


def test_a_function_is_a_mapping_too():
    def read(row):
        if row["w"] == 0:
            return None
        pair = {"prompt": row["q"], "chosen": row["a"], "rejected": row["b"]}
        return [pair, {**pair, "prompt": "again"}] if row["w"] == 2 else pair

    data = load(rows_of(1, 0, 2), read)
    assert data.table["prompt"].to_pylist() == ["question 0", "question 2", "again"]
    assert data.table["id"].to_pylist() == ["row:1", "row:3/1", "row:3/2"]
    with pytest.raises(DataError, match=r"line 1: the function of columns= failed with KeyError: 'nope'"):
        load(rows_of(1), lambda row: row["nope"])
    with pytest.raises(DataError, match=r"returned a number \(5\), but must return rows"):
        load(rows_of(1), lambda row: 5)


@pytest.mark.parametrize("spec", ["builtin", "persona:x", "hh:x"])
def test_data_with_a_layout_of_their_own_take_no_mapping(spec):
    with pytest.raises(ConfigError, match="columns is for files and hf:"):
        load(spec, TWO)


def test_every_kind_of_source_takes_a_mapping(tmp_path):
    import datasets
    import pyarrow as pa

    rows = rows_of(1, 2)
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv", index=False)
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    expected = texts(load(rows, TWO))
    for given in (frame, datasets.Dataset.from_list(rows), pa.Table.from_pylist(rows), tmp_path / "x.parquet",
                  tmp_path / "x.csv", tmp_path / "saved", f"hf:{tmp_path / 'saved'}"):  # fmt: skip
        assert texts(load(given, TWO)) == expected


# slot effects --------------------------------------------------------------------------------------------------------


def test_a_slot_effect_is_found_where_there_is_one_and_only_there():
    fair = load(rows_of(*[1, 2] * 60), TWO)
    unfair = load(rows_of(*[1] * 80, *[2] * 40), TWO)
    assert "slot_effect" not in {finding.code for finding in preflight(fair)}
    found = {finding.code: finding for finding in preflight(unfair)}["slot_effect"]
    assert found.says.startswith("The first of the two places is preferred in 80 of 120 pairs (67%)")


def test_a_slot_effect_of_one_cluster_is_none():
    """120 pairs of one question are one observation: by themselves they say nothing of slots."""
    rows = [{**row, "doc": "d"} for row in rows_of(*[1] * 80, *[2] * 40)]
    assert "slot_effect" not in {finding.code for finding in preflight(load(rows, f"{TWO},cluster=doc"))}


def test_flipped_pairs_stand_in_the_other_slot():
    data = load(rows_of(1, 2), TWO).flipped()
    assert data.table["slot"].to_pylist() == [2, 1]


def test_the_mapping_type_is_the_same_for_layouts_and_users():
    assert all(isinstance(layout.columns, Columns) for layout in LAYOUTS)
