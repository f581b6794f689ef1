"""Bound and Condition: what holds, what says anything, and the sentence that follows."""

import json
import math

import numpy as np
import pytest

from prefdyn.theory.bound import Bound, Condition


def bound(**changes):
    """A bound that applies and says something, with changes."""
    given = {
        "statement": "S",
        "quantity": "the error",
        "direction": "at most",
        "value": 0.2,
        "trivial": 1.0,
        "conditions": (Condition(says="d <= 5", measured=4, limit=5),),
    }
    return Bound(**(given | changes))


@pytest.mark.parametrize(
    ("measured", "relation", "limit", "holds"),
    [
        (1.0, "<=", 1.0, True),
        (1.0 + 1e-12, "<=", 1.0, True),
        (1.001, "<=", 1.0, False),
        (1.0, "<", 1.0, False),
        (0.999, "<", 1.0, True),
        (1.0 - 1e-12, ">=", 1.0, True),
        (0.999, ">=", 1.0, False),
        (1.0, ">", 1.0, False),
        (2.0, ">", 1.0, True),
        (1.0, "=", 1.0, True),
        (1.1, "=", 1.0, False),
        (math.nan, "<=", 1.0, False),
        (math.inf, "<=", 1.0, False),
        (-math.inf, "<=", 1.0, True),
        (1.0, "<=", math.inf, True),
        (1.0, "<=", math.nan, None),
        ("hinge", "=", "sigmoid", False),
        ("sigmoid", "=", "sigmoid", True),
        (np.float64(2.0), "<=", np.float64(1.0), False),
    ],
)
def test_a_condition_holds_to_rounding_fails_when_unmeasured_and_is_taken_without_a_limit(
    measured, relation, limit, holds
):
    condition = Condition(says="c", measured=measured, relation=relation, limit=limit)
    assert condition.holds is holds
    assert str(condition).split()[0] == {True: "holds", False: "FAILS", None: "taken"}[holds]


def test_numbers_of_numpy_give_plain_truths():
    """np.bool is not False by identity: with it a broken bound would have counted as kept."""
    one = bound(value=np.float64(0.2), measured=np.float64(0.5))
    assert one.kept is False
    assert one.standing == "broken"
    assert bound(conditions=(Condition(says="c", measured=np.float64(2), limit=1),)).applies is False


@pytest.mark.parametrize(
    ("changes", "standing", "says"),
    [
        ({"measured": 0.1}, "informative", "applies: the error at most 0.2; measured 0.1"),
        ({}, "informative", "applies: the error at most 0.2"),
        ({"failure": 0.05}, "informative", "applies: the error at most 0.2, with probability at least 0.95"),
        ({"measured": 0.3}, "broken", "its conditions hold and yet it is false here"),
        ({"value": 1.0}, "empty", "true but says nothing: the error at most 1, and 1 holds of anything"),
        ({"failure": 4.0}, "empty", "says nothing: it may fail with probability 4, which is no probability"),
        ({"measured": 0.01}, "empty", "true but says nothing: the bound is 20 times what was measured"),
        ({"value": 0.2, "measured": 0.021}, "informative", "applies"),
        ({"direction": "at least", "trivial": 0.0, "value": 0.01, "measured": 0.2}, "empty", "true but says nothing"),
        ({"direction": "at least", "trivial": 0.0, "value": 0.1, "measured": 0.05}, "broken", "its conditions hold"),
        ({"direction": "at least", "trivial": 0.5}, "empty", "true but says nothing"),
        ({"direction": "equal to", "measured": 0.2001}, "informative", "applies: the error equal to 0.2"),
        ({"direction": "equal to", "measured": 0.25}, "broken", "its conditions hold"),
        ({"value": math.nan}, "empty", "says nothing: the error cannot be bounded from so few data"),
        (
            {"conditions": (Condition(says="d <= 5", measured=6, limit=5),), "measured": 0.9},
            "outside",
            "does not apply, condition fails: d <= 5 (6 <= 5); it would say at most 0.2; measured 0.9",
        ),
    ],
)
def test_each_standing_has_its_sentence(changes, standing, says):
    found = bound(**changes)
    assert found.standing == standing
    assert found.meaning().startswith(says)


def test_a_broken_bound_whose_probability_is_empty_is_not_called_broken():
    """It never promised anything."""
    assert bound(measured=0.9, failure=2.0).standing == "empty"


def test_many_failing_conditions_are_counted():
    failing = tuple(Condition(says=f"c{i}", measured=2, limit=1) for i in range(5))
    told = bound(conditions=failing).meaning()
    assert told.startswith("does not apply, 5 conditions fail: c0 (2 <= 1); c1 (2 <= 1); c2 (2 <= 1); and 2 more; ")
    assert told.endswith("it would say at most 0.2")


def test_rows_and_json_hold_what_design_asks():
    found = bound(measured=0.1, group="g", conditions=(Condition(says="a"), Condition(says="b", measured=1, limit=2)))
    assert [(row["says"], row["holds"], row["group"]) for row in found.rows()] == [("a", None, "g"), ("b", True, "g")]
    assert len(bound(conditions=()).rows()) == 1
    written = found.as_dict()
    assert {"statement", "value", "measured", "applies", "vacuous", "conditions"} <= set(written)
    assert set(written["conditions"][0]) == {"says", "measured", "limit", "holds"}
    json.dumps(written)


def test_looseness_is_one_where_tight_and_unknown_without_two_positive_numbers():
    assert bound(measured=0.2).looseness == pytest.approx(1.0)
    assert bound(measured=0.1).looseness == pytest.approx(2.0)
    assert bound(direction="at least", value=0.1, measured=0.2).looseness == pytest.approx(2.0)
    for changes in (
        {},
        {"measured": 0.0},
        {"value": -1.0, "measured": 0.1},
        {"direction": "equal to", "measured": 1.0},
    ):
        assert math.isnan(bound(**changes).looseness)
