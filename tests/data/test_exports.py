"""Exports of annotation tools in miniature, as their documentation lays them out: the same pairs come out of each.

Argilla: docs.argilla.io, "Importing and exporting datasets and records". Label Studio: labelstud.io/guide/export, JSON
and JSON_MIN, with the Pairwise tag's value `{"selected": "left"}`.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import DataError

TEA, RAIN, SNOW = "Is tea good?", "Is rain wet?", "Is snow white?"
SHOWN = [(TEA, "Sure.", "Never."), (RAIN, "Hardly.", "Very.")]
"""Prompt, and the two texts in the order in which people saw them; of the first row the first is better."""
PAIRS = [(TEA, "Sure.", "Never."), (RAIN, "Very.", "Hardly.")]


def pairs(data):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in data.to_rows()]


def record(fields, responses=None, suggestions=None, metadata=None):
    """An Argilla record as `to_json` writes it."""
    return {
        "id": fields.get("prompt", "x"), "fields": fields, "metadata": metadata or {}, "vectors": {},
        "suggestions": {name: {"value": value, "score": None, "agent": "m"}
                        for name, value in (suggestions or {}).items()},
        "responses": {name: [{"value": value, "user_id": f"u{at}"} for at, value in enumerate(given)]
                      for name, given in (responses or {}).items()},
        "status": "completed", "_server_id": "s",
    }  # fmt: skip


def flat(held):
    """The same record as `to_datasets` lays it out."""
    row = {"id": held["id"], "status": held["status"], "_server_id": "s", **held["fields"], **held["metadata"]}
    for name, given in held["responses"].items():
        row[f"{name}.responses"] = [one["value"] for one in given]
        row[f"{name}.responses.users"] = [one["user_id"] for one in given]
        row[f"{name}.responses.status"] = ["submitted"] * len(given)
    for name, given in held["suggestions"].items():
        row |= {f"{name}.suggestion": given["value"], f"{name}.suggestion.score": None, f"{name}.suggestion.agent": "m"}
    return row


def two(prompt, one, other):
    return {"prompt": prompt, "response-1": one, "response-2": other}


LABELS = [record(two(*shown), {"preference": [f"response-{at}"] * 2}, metadata={"source": "web"})
          for at, shown in enumerate(SHOWN, start=1)]  # fmt: skip
RANKED = [
    record(two(*shown), {"order": [[{"value": "response-1", "rank": at}, {"value": "response-2", "rank": 3 - at}]]})
    for at, shown in enumerate(SHOWN, start=1)
]
RATED = [
    record({"id": "x", "instruction": prompt, "generations-0": one, "generations-1": other},
           {"generations-0-rating": [rate], "generations-1-rating": [6 - rate], "generations-0-rationale": ["So."]})
    for (prompt, one, other), rate in zip(SHOWN, (5, 1), strict=True)
]  # fmt: skip
PROPOSED = [record(two(*shown), {}, {"preference": at}) for at, shown in enumerate(SHOWN, start=1)]
SIDES = [record({"prompt": prompt, "chosen": one, "rejected": other}, {"really": ["chosen" if at == 1 else "rejected"]})
         for at, (prompt, one, other) in enumerate(SHOWN, start=1)]  # fmt: skip


def task(at, shown, *selected, names=("text1", "text2"), **more):
    """A Label Studio task as JSON exports it."""
    return {
        "id": at, "project": 1, "created_at": "2026-01-01T00:00:00Z",
        "data": {"prompt": shown[0], "text1": shown[1], "text2": shown[2]},
        "annotations": [
            {"id": 10 * at + number, "completed_by": number, "was_cancelled": False, "lead_time": 4.2,
             "result": [{"id": "a", "from_name": "pw", "to_name": ",".join(names), "type": "pairwise",
                         "value": {"selected": side}}], **more}
            for number, side in enumerate(selected)
        ],
        "predictions": [],
    }  # fmt: skip


STUDIO = [task(1, SHOWN[0], "left"), task(2, SHOWN[1], "right", "right")]
EXPORTS = {
    "Argilla, label": LABELS, "Argilla, ranking": RANKED, "Argilla of distilabel, ratings": RATED,
    "Argilla, a model's label": PROPOSED, "Argilla, chosen or rejected": SIDES, "Label Studio": STUDIO,
    **{f"Argilla flat, {name}": list(map(flat, held)) for name, held in
       (("label", LABELS), ("ratings", RATED), ("a model's label", PROPOSED), ("chosen or rejected", SIDES))},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_read_without_a_flag(tmp_path, name):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(EXPORTS[name]))
    data = load_dataset(path)
    assert pairs(data) == PAIRS
    assert data.left_out == ()
    assert data.readings[0].layout in ("Argilla", "Label Studio")
    assert [finding.code for finding in preflight(data) if finding.code == "layout"] == ["layout"]


def test_an_export_to_parquet_is_read_alike_and_its_metadata_are_groups(tmp_path):
    rows = list(map(flat, LABELS))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    data = load_dataset(tmp_path / "x.parquet")
    assert pairs(data) == PAIRS
    assert data.groups == ("web",)
    assert data.table["agreement"].to_pylist() == [1.0, 1.0]
    again = load_dataset(tmp_path / "x.parquet", columns=data.readings[0].columns)
    assert pairs(again) == PAIRS


def test_only_answers_that_were_handed_in_count():
    rows = [flat(each) for each in LABELS]
    for row in rows:  # two who are wrong, of whom one threw the record away and one never finished
        right = row["preference.responses"][0]
        wrong = "response-1" if right == "response-2" else "response-2"
        row["preference.responses"] = [wrong, right, wrong]
        row["preference.responses.status"] = ["discarded", "submitted", "draft"]
    assert pairs(load_dataset(rows)) == PAIRS
    cancelled = [*STUDIO, task(3, (SNOW, "Yes.", "No."), "left", was_cancelled=True)]
    data = load_dataset(cancelled)
    assert pairs(data) == PAIRS
    assert any("1 of 3 rows" in note for note in data.readings[0].notes)


def test_a_model_speaks_only_where_no_person_does():
    unread = record(two(SNOW, "Yes.", "No."), {}, {"preference": "response-2"})
    data = load_dataset([*LABELS, unread])
    assert pairs(data) == PAIRS
    assert not any("model" in note for note in data.readings[0].notes)
    assert any("model proposed" in note for note in load_dataset(PROPOSED).readings[0].notes)


def test_people_who_differ_are_votes_and_a_draw_is_a_tie():
    data = load_dataset([task(1, SHOWN[0], "left", "left", "right"), task(2, SHOWN[1], "left", "right")])
    assert pairs(data) == PAIRS[:1]
    assert data.table["agreement"].to_pylist() == pytest.approx([2 / 3])
    assert data.readings[0].ties == 1


def test_left_is_the_first_that_the_tag_names():
    data = load_dataset([task(1, SHOWN[0], "left", names=("text2", "text1"))])
    assert pairs(data) == [(TEA, "Never.", "Sure.")]


def flat_tasks():
    """JSON_MIN: one row for each annotation."""
    return [
        {"id": at, "prompt": p, "text1": one, "text2": other, "pw": [{"selected": side}], "annotator": 1,
         "annotation_id": at, "created_at": "", "updated_at": "", "lead_time": 3.0}
        for at, ((p, one, other), side) in enumerate(zip(SHOWN, ("left", "right"), strict=True), start=1)
    ]  # fmt: skip


UNTOLD = {
    "Label Studio, JSON_MIN": (flat_tasks(), {}),
    "Label Studio, tags named otherwise": (
        [task(1, SHOWN[0], "left", names=("a", "b")), task(2, SHOWN[1], "right", names=("a", "b"))], {}
    ),
    "Argilla, two questions": (
        [record(two(*shown), {"helpful": [f"response-{at}"], "harmless": ["response-1"]})
         for at, shown in enumerate(SHOWN, start=1)],
        {"winner": "helpful"},
    ),
    "Argilla, names of no use": (
        [record({"prompt": p, "Eins": one, "Zwei": other}, {"preference": [at]})
         for at, (p, one, other) in enumerate(SHOWN, start=1)],
        {"first": "Eins", "second": "Zwei"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNTOLD)
def test_what_an_export_does_not_tell_is_asked_with_a_mapping_to_try(name):
    held, changes = UNTOLD[name]
    with pytest.raises(DataError, match=r"export of .* say which is which") as caught:
        load_dataset(held)
    asked = caught.value.typed.partition("--columns ")[2].strip("'")
    mapping = dict(piece.split("=") for piece in asked.split(","))
    assert pairs(load_dataset(held, columns={**mapping, **changes})) == PAIRS


def test_a_row_that_answers_only_another_question_is_left_out_and_told():
    aside = record(two(SNOW, "Yes.", "No."), {"comment": ["A long remark, such as people write beside their answers."]})
    data = load_dataset([*LABELS, aside])
    assert pairs(data) == PAIRS
    assert any("1 of 3 rows" in note for note in data.readings[0].notes)


@pytest.mark.parametrize("odd", [None, 3, "text", [3], {"value": None}, {"preference": 3}])
def test_odd_values_where_answers_should_be_give_a_message(odd):
    """No traceback of another library, whatever stands there."""
    for key in ("responses", "suggestions", "fields"):
        with pytest.raises(DataError):
            load_dataset([{**LABELS[0], "responses": {}, "suggestions": {}, key: odd}])
    for key in ("data", "annotations"):
        with pytest.raises(DataError):
            load_dataset([{**STUDIO[0], key: odd}])


def test_an_export_without_answers_says_so():
    with pytest.raises(DataError, match="nobody answered"):
        load_dataset([record(two(*SHOWN[0]))])


def test_a_confidence_in_numbers_is_no_choice():
    """A question answered 1 or 2 is no preference unless its name says so."""
    held = [record(two(*shown), {"difficulty": [at]}) for at, shown in enumerate(SHOWN, start=1)]
    with pytest.raises(DataError, match="winner=FIELD"):
        load_dataset(held)
