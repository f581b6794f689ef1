"""Statements over groups: what is counted, what leads, and that text from elsewhere stays text."""

import math
from typing import Any

import pytest

from prefdyn.report.statements import STANDINGS, counted, field_table, guarantee, statement_table, statements
from prefdyn.theory.bound import Bound, Condition
from tests.report.make_folder import HOSTILE


def row(group=None, *, name="P, Theorem 1", form: Any = "published", measured=0.1, value=0.2, fails=(), **changes):
    """One entry of `bounds`, by the class that writes it."""
    conditions = tuple(Condition(says=says, measured=2, limit=1) for says in fails)
    bound = Bound(
        statement=name,
        quantity="the error after 7 steps",
        direction="at most",
        value=value,
        trivial=1.0,
        conditions=(*conditions, Condition(says="taken for granted"), Condition(says="d <= 9", measured=3, limit=9)),
        form=form,
        measured=measured,
        group=group,
        **changes,
    )
    return bound.as_dict()


def test_groups_of_one_statement_are_one_line_with_counts():
    rows = [
        row("a"),
        row("b", measured=0.05),
        row("c", measured=0.002),
        row("d", fails=("n is even", "t is small")),
        row("e", fails=("n is even",)),
        row("f", measured=0.5),
    ]
    (found,) = statements(rows)
    assert found.standing == "broken"
    assert found.sentence == (
        "False in 1 of 6 groups although its conditions hold there (f); applies in 2 of 6 groups (at most 0.2, "
        "measured 0.05 to 0.1, 2 to 4 times apart); true but says nothing in 1 of 6 (at most 0.2, measured 0.002, 100 "
        "times apart); does not apply in 2 of 6 (at most 0.2, measured 0.1, 2 times apart): n is even fails in 2; "
        "t is small fails in 1."
    )
    words = {condition.says: condition.word for condition in found.conditions}
    assert words == {
        "taken for granted": "taken",
        "d <= 9": "holds",
        "n is even": "fails",
        "t is small": "fails",
    }


def test_what_says_something_leads_and_forms_stand_apart():
    rows = [
        row(name="A", fails=("x",)),
        row(name="B", value=1.0),
        row(name="C"),
        row(name="C", form="repaired", measured=0.3),
    ]
    found = statements(rows)
    assert [(item.title, item.standing) for item in found] == [
        ("C (repaired)", "broken"),
        ("C", "informative"),
        ("B", "empty"),
        ("A", "outside"),
    ]
    assert counted(found) == (
        "Of 4 statements: 1 false here although their conditions hold, 1 apply and say something, 1 true but empty, "
        "1 outside their conditions."
    )


def test_the_title_tells_steps_that_differ_and_who_was_trained():
    later = row("b") | {"quantity": "the error after 9 steps"}
    (found,) = statements([row("a"), later])
    assert found.quantity == "the error after 7 to 9 steps, each group trained alone"
    assert statements([row("a")])[0].quantity == "the error after 7 steps, a trained alone"
    assert statements([row()])[0].quantity == "the error after 7 steps"


@pytest.mark.parametrize("each", [False, True])
def test_the_table_fits_and_hides_no_control_characters(each):
    rows = [row(name, fails=(name,)) | {"note": name} for name in HOSTILE] + [row(name=HOSTILE[0] + HOSTILE[2])]
    text = statement_table({"bounds": rows}, width=90, each=each)
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert (max(map(len, lines[1:-2])) <= 240) or not each
    assert lines[-1].startswith("Of 2 statements")
    assert statement_table({"bounds": []}) == "No statements."


def test_every_group_is_listed_when_asked():
    text = statement_table({"bounds": [row("a"), row("b", fails=("n is even",))]}, each=True)
    assert "a  at most 0.2, measured 0.1" in text
    assert "b  at most 0.2, measured 0.1  fails: n is even" in text
    assert set(STANDINGS) == {"broken", "informative", "empty", "outside"}


def test_rows_that_others_wrote_do_not_break_the_table():
    odd = [{"statement": "S"}, {"statement": "S", "group": "a", "conditions": None, "looseness": "x"}]
    assert "S" in statement_table({"bounds": odd}, each=True)


def test_the_field_is_told_with_its_end():
    rows = [{"ratio": 1.0, "x1": 1.0, "x2": 1.0, "loss": math.log(2), "pull_chosen": 0.05, "pull_rejected": -0.05}]
    edges = [{"edge": "x1 -> 0", "dx1": "-beta/x1 -> -inf", "dx2": "beta/x2"}]
    summary = {"settings": {"beta": 0.1}, "field": {"rows": rows, "edges": edges, "extinction_time": 10.37}}
    text = field_table(summary)
    assert "0.693" in text
    assert "x1 -> 0" in text
    assert "to 0 in time 10.4" in text
    assert "The run's average pair" not in text
    path = {"x1": [1.0, 1.2], "x2": [1.0, 0.25], "step": [0, 40]}
    walked = field_table(summary | {"theory": {"path": path}})
    assert walked.endswith("average pair (geometric mean) went from (1, 1) to (1.2, 0.25) in 40 steps.")
    never = field_table({"settings": {"beta": 2.0}, "field": {"rows": [], "edges": [], "extinction_time": None}})
    assert "never brings x2 to 0" in never


def outcome(standing, **more):
    """A published statement about an outcome, of one group."""
    row = {"statement": "T", "form": "published", "quantity": "policy accuracy", "direction": "at least"}
    return {**row, "standing": standing, **more}


def test_the_guarantee_is_none_unless_a_published_statement_about_an_outcome_holds_in_every_group():
    fails = {"conditions": [{"says": "n > 9", "holds": False}, {"says": "d > 2", "holds": True}]}
    both = [outcome("informative", group="a", value=0.8, measured=0.9), outcome("outside", group="b", **fails)]
    assert guarantee(statements(both)) == (
        "No published guarantee about what is learned covers this run: T asks for n > 9 (fails in 1 of 2 groups)."
    )
    repaired = [{**row, "form": "repaired"} for row in both]
    assert guarantee(statements([*both, *repaired])).endswith(
        "In repaired form T gives policy accuracy at least 0.8, measured 0.9 in 1 of 2 groups."
    )
    held = [{**row, "standing": "informative", "value": 0.8, "measured": 0.9} for row in both]
    assert guarantee(statements(held)).startswith("A published guarantee about what is learned covers this run: T, ")
    assert guarantee(statements([{**row, "quantity": "drift of the head"} for row in both])) == ""


def test_what_is_equal_to_something_is_called_an_identity():
    row = {"statement": "T", "form": "published", "quantity": "q", "standing": "informative", "meaning": "applies: 1"}
    assert statements([{**row, "direction": "equal to"}])[0].sentence == "An identity: applies: 1."
    assert statements([{**row, "direction": "at most"}])[0].sentence == "Applies: 1."
