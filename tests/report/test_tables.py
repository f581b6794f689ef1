"""The verdict table for the terminal and the sentence of counts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn.report.tables import trained_table, verdict_sentence, verdict_table
from prefdyn.report.text import cells, readable, shorten, visible
from tests.report.make_folder import HOSTILE, make_folder, make_responses_folder


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("width", [100, 120])
@pytest.mark.parametrize("make", [make_folder, make_responses_folder])
@pytest.mark.parametrize("names", [1, 5, 88, list(HOSTILE)])
def test_the_table_fits_its_width_and_shows_every_group(tmp_path, names, width, make):
    summary = summary_of(make(tmp_path / "run", names=names, missing=True))
    lines = verdict_table(summary, width=width).split("\n")
    table = lines[: lines.index("")]
    assert max(map(cells, table)) <= width
    for row in summary["groups"]:
        assert any(line.startswith(shorten(visible(row["name"]), 30)) for line in table)
    assert lines[-1] == verdict_sentence(summary)


def test_columns_are_aligned_and_rows_follow_the_predicted_rank(tmp_path):
    summary = summary_of(make_folder(tmp_path / "run", names=5))
    summary["groups"].reverse()
    lines = verdict_table(summary, width=400).split("\n")
    header, rows = lines[0], lines[2:7]
    assert [row["name"] for row in sorted(summary["groups"], key=lambda row: row["predicted_rank"])] == [
        next(found["name"] for found in summary["groups"] if line.startswith(shorten(found["name"], 30)))
        for line in rows
    ]
    for title in ("verdict", "because"):
        start = header.index(title)
        assert all(line[start - 2 : start] == "  " and line[start] != " " for line in rows)


def test_no_control_character_reaches_the_terminal(tmp_path):
    text = verdict_table(summary_of(make_folder(tmp_path / "run", names=list(HOSTILE))))
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "\u202e" not in text


def test_unknown_numbers_are_dashes_and_columns_without_any_are_left_out(tmp_path):
    summary = summary_of(make_folder(tmp_path / "run", names=3, command="simulate"))
    table = verdict_table(summary)
    assert "priority" not in table.split("\n")[0]
    assert "nan" not in table.lower()


def test_long_responses_show_what_gives_them_away_best(tmp_path):
    summary = summary_of(make_responses_folder(tmp_path / "run"))
    lines = verdict_table(summary, width=110).split("\n")
    start, end = lines[0].index("probe") + len("probe"), lines[0].index("priority")
    assert lines[0][start:end].strip() == "given away"
    for row in summary["groups"]:
        (line,) = [line for line in lines if line.startswith(f"{row['name']} ")]
        best = max(("words", "length", "reference"), key=lambda name: row[f"{name}_accuracy"])
        assert line[start:].split()[:2] == [best, f"{row[f'{best}_accuracy']:.2f}"]
    assert any(line.startswith("given away: ") for line in lines)
    assert any("first order in the head's movement" in line for line in lines)
    assert max(map(cells, lines)) <= 110
    plain = verdict_table(summary_of(make_folder(tmp_path / "answers", names=4)))
    assert "given away" not in plain
    assert "first order" not in plain


def test_where_reasons_need_the_room_the_giveaway_is_left_to_the_page(tmp_path):
    summary = summary_of(make_responses_folder(tmp_path / "run"))
    assert "given away" in verdict_table(summary, width=110)
    narrow = verdict_table(summary, width=80)
    assert "given away" not in narrow
    assert max(map(cells, narrow.split("\n")[: narrow.split("\n").index("")])) <= 80


def test_a_trained_table_says_which_side_fell():
    summary = {"groups": [{"name": "a", "chosen_falling": 0.2}], "features": {"kind": "responses"}}
    assert "share of pairs whose chosen response lost" in trained_table(summary)
    assert "share of pairs whose chosen answer lost" in trained_table(summary | {"features": {"kind": "answers"}})


def test_no_groups_is_said():
    assert verdict_table({"groups": []}) == "No groups."
    assert not verdict_sentence({"groups": []})


def test_counts_add_up_to_the_groups(tmp_path):
    summary = summary_of(make_folder(tmp_path / "run", names=40))
    sentence = verdict_sentence(summary)
    counts = [int(part.split()[0]) for part in sentence.removeprefix("Of 40 groups: ").split(", ")]
    assert sum(counts) == 40


@given(st.text(max_size=60), st.integers(1, 40))
def test_shortened_text_fits_and_short_text_stays(text, width):
    text = visible(text)
    short = shorten(text, width)
    assert cells(short) <= max(width, 1)
    assert short == text or cells(text) > width


@given(st.text(st.characters(codec=None), max_size=80))
def test_shown_text_has_nothing_that_hides_or_breaks(text):
    for shown in (visible(text), readable(text)):
        shown.encode("utf-8")
        assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
        assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in shown)
    assert len(visible(text).splitlines()) == 1
