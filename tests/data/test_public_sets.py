"""Seven public sets as their authors lay them out, whole: the counts that their READMEs state, each by one line.

The lines stand in docs/data.md.
"""

import contextlib
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from tests.conftest import REPO, SHARED

PUBLIC = SHARED / "public"
pytestmark = [
    pytest.mark.skipif(not PUBLIC.is_dir(), reason=f"public sets are absent: no folder {PUBLIC}"),
    pytest.mark.thorough,
]


def load(name, *, prefix="", **options):
    return load_dataset(f"{prefix}{PUBLIC / name}", **options)


def found(data):
    return {finding.code: finding for finding in preflight(data)}


def counts(data):
    return Counter(data.table["group"].to_pylist())


def clusters(data):
    return len(np.unique(data.clusters.of))


def test_llmbar_takes_its_groups_from_its_folders():
    data = load("llmbar")
    assert counts(data) == {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
    assert Counter(data.table["slot"].to_pylist()) == {1: 206, 2: 213}
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in data.to_rows()]
    assert round(np.mean(longer), 2) == 0.27
    assert "slot_effect" not in found(data)
    assert data.readings[0].ties == 0


def test_pandalm_has_three_annotators_ties_and_odd_texts():
    data = load("pandalm", skip_bad_rows=True)
    (reading,) = data.readings
    assert reading.ties == 105
    assert len(data) + len(data.left_out) + reading.ties == 999
    odd = Counter(item.reason.split(" (")[0] for item in data.left_out)
    assert odd == {"is empty": 52, "is true or false": 6}  # of 54 empty ones two are ties
    agreement = np.array(data.table["agreement"].to_pylist())
    assert set(agreement.round(3)) == {1.0, 0.667}
    assert reading.divided == (agreement < 1).sum() == 94
    names = load("pandalm", skip_bad_rows=True, columns={**_ITS, "group": "cmp_key"}).groups
    assert len(names) == 10
    each = load("pandalm", skip_bad_rows=True, columns={**_ITS, "votes": "each", "group": "@rater"})
    assert each.groups == ("annotator1", "annotator2", "annotator3")
    assert len(each) + len(each.left_out) + each.readings[0].ties == 3 * 999


_ITS = {
    "prompt": "instruction+input",
    "first": "response1",
    "second": "response2",
    "winner": "annotator1+annotator2+annotator3",
}


def test_qa_feedback_is_six_comparisons_of_four_answers():
    data = load("qa_feedback")
    assert (len(data), data.readings[0].ties, data.left_out) == (2616, 384, ())
    assert Counter(data.table["slot"].to_pylist()) == {1: 1577, 2: 1039}
    assert found(data)["slot_effect"].says.startswith("The first of the two places is preferred in 1,577 of 2,616")
    rows = np.array(data.table["line"].to_pylist())
    of = data.clusters.of
    assert len(np.unique(rows)) == 488  # twelve of the 500 questions have ties alone
    assert all(len(set(of[rows == line])) == 1 for line in np.unique(rows))
    split = data.with_held_out()
    held = np.array(split.table["split"].to_pylist()) == "held_out"
    assert 0.08 < held.mean() < 0.12
    assert not set(of[held]) & set(of[~held])


def test_ai_risk_files_name_the_line_that_reads_them():
    with pytest.raises(Exception, match="this looks like Persona data: give it as persona:PATH"):
        load("ai_risk_human_ab")
    data = load("ai_risk_human_ab", prefix="persona:")
    assert len(data.groups) == 11
    files = {path.stem: len(path.read_bytes().splitlines()) for path in (PUBLIC / "ai_risk_human_ab").glob("*.jsonl")}
    assert counts(data) == files
    assert set(data.table["chosen"].to_pylist()) >= {f" ({letter})" for letter in "ABCD"}
    assert set(data.table["rejected"].to_pylist()) == {" (A)", " (B)"}
    assert data.left_out == ()


def test_convarg_is_tsv_without_quoting_under_a_header_with_a_hash():
    data = load("convarg_strict")
    assert (len(data), len(data.groups), data.left_out) == (2882, 8, ())
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in data.to_rows()]
    assert round(np.mean(longer), 2) == 0.81
    assert sum('"' in row["chosen"] for row in data.to_rows()) > 50
    lines = sum(len(path.read_bytes().splitlines()) - 1 for path in (PUBLIC / "convarg_strict").glob("*.csv"))
    assert lines == len(data)
    topics = load("convarg_strict", columns="prompt=@file,first=a1,second=a2,winner=label")
    assert topics.groups == ("all",)


def test_squality_is_three_systems_ranked_by_three_reviewers():
    data = load("squality_rankings")
    assert (len(data), data.readings[0].ties, clusters(data)) == (900, 0, 100)
    assert len(data.groups) == 4
    mapping = data.readings[0].columns
    assert mapping is not None
    systems = load("squality_rankings", columns=mapping.replace("@rater", "@pair"))
    assert counts(systems) == {"bart or bart-dpr": 300, "bart or human": 300, "bart-dpr or human": 300}
    human = [
        row["slot"] == 2 for row in systems.to_rows() if row["group"].endswith("human")
    ]  # the human stands second in both
    assert (sum(human), len(human)) == (592, 600)
    assert len(load("squality_rankings", columns=mapping.replace("@rater", "passage-id")).groups) == 20


def test_truthfulqa_is_one_against_several():
    data = load("truthfulqa_multi", skip_bad_rows=True)
    assert (len(data), len(data.groups)) == (1633, 38)
    assert [item.reason.split(" (")[0] for item in data.left_out] == ["is the same as chosen"]
    assert "eu_validation" in data.left_out[0].source
    mapping = {"prompt": "question", "chosen": "best_answer", "rejected": "incorrect_answers", "group": "lang"}
    assert counts(load("truthfulqa_multi", skip_bad_rows=True, columns={**mapping, "pairs": "best"})) == {
        "en": 817,
        "eu": 816,
    }
    every = load("truthfulqa_multi", skip_bad_rows=True, columns=mapping)
    assert len(every) > 3 * len(data)
    assert clusters(every) <= 1634


def test_the_lines_of_the_docs_read_them(monkeypatch, capsys):
    """Each line runs as it stands, but for the folder."""
    from prefdyn.cli import main

    text = (REPO / "docs" / "data.md").read_text()
    lines = re.findall(r"^prefdyn data --data \S*public/.*$", text, flags=re.MULTILINE)
    named = {part for line in lines for part in line.split("public/")[1].split()[:1]}
    assert named == {path.name for path in PUBLIC.iterdir()}
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line.replace("public/", f"{PUBLIC}/")))
        with contextlib.suppress(SystemExit):
            main()
        assert "Findings" in capsys.readouterr().out


def test_none_of_them_stands_in_the_repository():
    held = {
        path.name for path in PUBLIC.rglob("*") if path.is_file() and not path.name.startswith(("README", "LICENSE"))
    }
    ours = {path.name for folder in ("tests", "src", "docs") for path in (REPO / folder).rglob("*")}
    assert not held & ours - {Path("dataset.json").name}
