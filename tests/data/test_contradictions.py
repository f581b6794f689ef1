"""Pairs that cannot both be right: found exactly, found where texts are near-equal, across groups, and nothing else."""

import numpy as np

from prefdyn.data.contradictions import Couple, contradictions
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import preflight
from prefdyn.report.listing import data_table

LONG = "Put the plant near the window and water it once a week, but not in winter when it is resting and needs less."
OTHER = "Leave the plant where it is: most plants of this kind do well in the dark corner of a cold and quiet room."


def rows(*pairs):
    """A dataset of (prompt, chosen, rejected, group)."""
    named = ("prompt", "chosen", "rejected", "group")
    return PreferenceDataset.from_rows([dict(zip(named, pair, strict=True)) for pair in pairs])


def naive(data):
    """Rows that some other row contradicts word for word."""
    table = data.table.to_pylist()
    return {
        place
        for place, one in enumerate(table)
        for other in table
        if one["prompt"] == other["prompt"]
        and one["chosen"] == other["rejected"] != one["rejected"] == other["chosen"]
    }  # fmt: skip


def test_every_exact_contradiction_is_found_and_nothing_else():
    rng = np.random.default_rng(0)
    drawn = [(f"q{a}", f"x{b}", f"x{c}", f"g{d}") for a, b, c, d in rng.integers(0, [8, 4, 4, 2], size=(60, 4))]
    data = rows(*drawn)
    found = contradictions(data)
    assert {row for each in found.couples for row in (each.first, each.second)} == naive(data)
    assert not any(each.near for each in found.couples)
    table = data.table.to_pylist()
    for each in found.couples:
        one, other = table[each.first], table[each.second]
        assert (one["prompt"], one["chosen"]) == (other["prompt"], other["rejected"])


def test_near_equal_pairs_across_groups_contradict_each_other():
    question = "How should I keep the old green plant that stands in the north corner of my living room"
    data = rows(
        (f"{question}?", LONG, OTHER, "a"),
        (f"{question}, please?", OTHER + " Good luck!", LONG, "b"),
        ("And what of my cat?", LONG, OTHER, "b"),
    )
    found = contradictions(data)
    assert found.couples == (Couple(first=0, second=1, near=True),)
    assert found.near.tolist() == [0, 1]
    assert "near_conflict" in {each.code for each in preflight(data) if each.severity == "note"}


def test_short_answers_to_near_equal_questions_may_differ():
    question = "Would you say this of yourself? I like to walk along the river on a quiet morning in the early spring"
    data = rows((f"{question}.", " Yes", " No", "a"), (f"{question}!", " No", " Yes", "a"))
    assert contradictions(data).couples == ()


def test_a_text_that_is_chosen_here_and_rejected_there_is_noted():
    data = rows(
        ("One question?", LONG, "b", "a"), ("Quite another matter?", OTHER, LONG, "a"), ("Third", "x", "y", "a")
    )
    assert contradictions(data).both_ways.tolist() == [0, 1]
    (note,) = [each for each in preflight(data) if each.code == "both_ways"]
    assert (note.severity, note.count) == ("note", 2)
    ranking = rows(("One question?", LONG, "b", "a"), ("One question?", OTHER, LONG, "a"))
    assert contradictions(ranking).both_ways.tolist() == []  # the second of three


def test_contradictions_are_told_before_other_problems_with_their_texts():
    data = rows(("q", "", "y", "a"), ("p", LONG, OTHER, "a"), ("p", OTHER, LONG, "b"))
    codes = [each.code for each in preflight(data) if each.severity == "warning"]
    assert codes[0] == "opposed_groups"
    described = {"name": "d", "pairs": 3, "groups": [], "prompts": 2, "kind": "text", "findings": []}
    text = data_table({**described, "contradictions": contradictions(data).rows(data)})
    first, second = data.table["id"].to_pylist()[1:]
    assert f"{first} (a) and {second} (b): the same prompt, “p”" in text
    assert "“Put the plant near the window and water…” over “Leave" in text


def test_clean_data_has_none():
    assert contradictions(load_dataset("builtin:responses", limit=60)).couples == ()
