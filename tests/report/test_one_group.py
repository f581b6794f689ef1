"""The page of one group: what is about it, all of it, and nothing of another."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn.errors import ConfigError
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.report.one_group import group_chapter, one_group
from tests.report.make_folder import HOSTILE, make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("one") / "run", names=["alpha", "beta", "gamma ray", "delta"])


def test_the_page_says_what_the_folder_says_of_the_group_and_nothing_of_others(folder):
    run = read_folder(folder)
    found = one_group(run, "beta")
    assert found.names == ("beta",)
    assert found.groups[0] == run.groups[1]
    assert found.pairs is not None
    assert run.pairs is not None
    assert set(found.pairs["group"].to_pylist()) == {"beta"}
    assert len(found.pairs) == run.pairs["group"].to_pylist().count("beta")
    np.testing.assert_array_equal(found.curves("loss"), run.curves("loss")[1:2])
    assert {row["group"] for row in found.part("bounds")} <= {"beta"}
    text = render([found], static=False)
    assert "<h1><bdi>beta</bdi></h1>" in text
    assert f"It is {found.verdicts[0]}" in text
    assert "one of 4 groups" in text
    for other in ("alpha", "gamma ray", "delta"):
        assert other in text or other not in _neighbours(run, "beta"), "a group that pushes it is named"
    assert "What comes first" not in text


def chapter(run):
    found = group_chapter(run)
    assert found is not None
    return found


def _neighbours(run, name):
    (table,) = [each for each in chapter(one_group(run, name))["tables"] if each.heading == "Who pushes it"]
    return [row[0] for row in table.rows]


def test_who_pushes_it_is_the_groups_column_of_the_influence_and_whom_it_pushes_its_row(folder, tmp_path):
    run = read_folder(folder)
    summary = json.loads(json.dumps(run.summary))
    summary["diagnostics"]["influence"]["matrix"] = [[10 * a + b + 1 for b in range(4)] for a in range(4)]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (table,) = chapter(one_group(read_folder(tmp_path), "beta"))["tables"]
    assert table.rows == [
        ("beta (itself)", ["12", "12"]), ("delta", ["32", "14"]), ("gamma ray", ["22", "13"]), ("alpha", ["2", "11"]),
    ]  # fmt: skip


def test_a_pair_more_is_the_mean_of_what_leaving_one_out_adds(folder, tmp_path):
    pairs = {
        "id": ["a", "b", "c", "d"], "group": ["beta", "beta", "beta", "alpha"],
        "split": ["train", "train", "held_out", "train"],
        "value_own": [0.25, 0.75, math.nan, 9.0], "value_all": [-0.125, -0.125, math.nan, 9.0],
        "label_score": [1.0, -0.5, -2.0, -9.0], "findings": [[], [], [], []],
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    summary["labels"] = {"reader": "words", "worth": True, "planted": 0.1, "first": 10, "tried": []}
    summary["examples"] = {"labels": [{"id": "b", "group": "beta", "prompt": "Why?", "chosen": "So", "rejected": "No"}]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    found = one_group(read_folder(tmp_path), "beta")
    own = chapter(found)
    ((label, says),) = own["points"]
    assert label == "A pair more"
    assert "lowers the group's own held-out loss by 0.5 nats on average" in says
    assert "raises that of all pairs by 0.125 nats" in says
    listed = own["tables"][-1]
    assert [name for name, _ in listed.rows] == ["c", "b", "a"], "those that others speak against most first"
    doubted = found.part("examples", "labels")
    assert [row["id"] for row in doubted] == ["c", "b"], "its own labels below 0, whatever the whole list has room for"
    assert doubted[1]["prompt"] == "Why?", "with texts where the folder holds them"
    text = render([found], static=False)
    assert text.count("pair <bdi>c</bdi>") == 1

    summary["labels"]["worth"] = False
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert one_group(read_folder(tmp_path), "beta").part("examples", "labels") == [], "no list that would mislead"

    summary["examples"]["costly"] = [{"id": "z", "group": "alpha"}]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    costly = one_group(read_folder(tmp_path), "beta").part("examples", "costly")
    assert [row["id"] for row in costly] == ["a", "b"], "its own, where the whole list has none of it"


def test_findings_are_those_of_the_group_and_those_that_its_pairs_have(folder, tmp_path):
    summary = json.loads((folder / "summary.json").read_text())
    found = {"says": "x", "severity": "note", "count": 1, "pairs": []}
    summary["findings"] = [
        {**found, "code": "one", "group": "beta"}, {**found, "code": "two", "group": "alpha"},
        {**found, "code": "three", "group": None}, {**found, "code": "four", "group": None},
    ]  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    rows = {"id": ["a", "b"], "group": ["beta", "alpha"], "split": ["train"] * 2, "findings": [["three"], ["four"]]}
    pq.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    assert [row["code"] for row in one_group(read_folder(tmp_path), "beta").part("findings")] == ["one", "three"]


def test_every_hostile_name_has_its_page(tmp_path):
    run = read_folder(make_folder(tmp_path / "run", names=list(HOSTILE), missing=True))
    for name in HOSTILE:
        text = render([one_group(run, name)], static=False)
        assert "<script>alert" not in text
        assert "<img src=x" not in text


@pytest.mark.parametrize("command", ["simulate", "bounds", "train"])
def test_groups_of_other_runs_have_pages_too(tmp_path, command):
    run = read_folder(make_folder(tmp_path / "run", names=3, command=command))
    assert f"<h1><bdi>{run.labels[1]}</bdi></h1>" in render([one_group(run, run.names[1])], static=False)


def test_a_group_that_is_not_there_is_answered_with_those_that_are_close(folder):
    with pytest.raises(ConfigError, match=r"run has no group 'gama ray'; close: 'gamma ray'$"):
        one_group(read_folder(folder), "gama ray")
    with pytest.raises(ConfigError, match=r"no group 'zzz'; known: alpha, beta, delta, gamma ray$"):
        one_group(read_folder(folder), "zzz")


def test_a_folder_of_another_kind_is_refused(folder, tmp_path):
    summary = json.loads((folder / "summary.json").read_text()) | {"command": "plan"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(
        ConfigError, match="holds plan, whose groups have no pages of their own; give a folder of audit"
    ):
        one_group(read_folder(tmp_path), "beta")
