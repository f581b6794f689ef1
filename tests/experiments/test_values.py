"""Which values are trained together, and how what they come to goes with their number."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.errors import DataError
from prefdyn.experiments.context import Context
from prefdyn.experiments.presets import preset_named
from prefdyn.experiments.published import PERSONAS, VALUE_SETS, VALUES, persona
from prefdyn.experiments.run import ModelChoice
from prefdyn.experiments.statistics import exponent, straight_line
from prefdyn.experiments.values import mean_at, mean_curve, members, ring, value_sets
from prefdyn.trajectory import Trajectory


def personas(names) -> Context:
    rows = [
        {"prompt": f"{name} {number}?", "chosen": chosen, "rejected": rejected, "group": name}
        for name in names
        for number, (chosen, rejected) in enumerate(((" Yes", " No"), (" No", " Yes")))
    ]
    return Context(
        preset=preset_named("small"), data=(load_dataset(rows, group_column="group"),), models=(ModelChoice(name="m"),)
    )


def test_published_sets_are_used_where_the_data_has_them_all():
    assert value_sets(personas(PERSONAS.values())) == {
        count: tuple(persona(place) for place in VALUE_SETS[count]) for count in VALUES
    }


def test_without_one_of_them_each_set_is_a_part_of_the_next():
    context = personas(name for place, name in PERSONAS.items() if place != 112)
    sets = value_sets(context)
    assert list(sets) == list(VALUES)
    assert all(sets[few] == sets[more][:few] for few in VALUES for more in VALUES if few <= more)
    assert value_sets(context) == sets


def test_the_preset_and_the_data_limit_the_number_of_values():
    assert list(value_sets(replace(personas("abcdefgh"), preset=preset_named("smoke")))) == [1, 2, 4]
    assert list(value_sets(personas("abc"))) == [1, 2]


def test_one_group_is_told():
    with pytest.raises(DataError, match="take 2 groups, and the data has 1; add data with more"):
        value_sets(personas("a"))


def test_on_the_ring_every_value_is_in_as_many_sets_for_every_number():
    sets = {count: tuple("abcdefgh"[:count]) for count in (1, 2, 4, 8)}
    companies = ring(sets)
    for count, group in companies.items():
        seen = [name for names in group for name in names]
        assert {seen.count(name) for name in sets[8]} == {count if count < 8 else 1}
        assert all(len(set(names)) == count for names in group)
    assert companies[8] == (sets[8],)


def test_members_are_named_once_in_order():
    assert members({1: ("b",), 2: ("a", "b"), 4: ("c", "a", "d", "e")}) == ("b", "a", "c", "d", "e")


def made_up() -> Trajectory:
    rows = [
        {"run": run, "step": step, "group": group, "split": split, "pairs": pairs, "margin": float(step * size + shift)}
        for run, shift in (("joint", 0), ("alone", 100))
        for step in (0, 1, 10)
        for group, pairs, size in (("a", 1, 4), ("b", 3, 8))
        for split in ("train", "held_out")
    ]
    return Trajectory.from_rows(rows, settings={})


def test_means_are_over_pairs_of_the_joint_run():
    steps, values = mean_curve(made_up(), "margin", "train")
    assert steps.tolist() == [0, 1, 10]
    assert values.tolist() == [0.0, 7.0, 70.0]
    assert mean_at([made_up(), made_up()], "margin", "train", 0.5) == 35.0
    assert mean_at([made_up()], "margin", "train", 0.01) == 7.0  # not before the first step


def test_exponents_are_those_of_power_laws():
    counts = [1, 2, 4, 8, 16]
    assert exponent(counts, [3 * count**-0.7 for count in counts]) == pytest.approx(-0.7)
    assert np.isnan(exponent(counts, [1.0, 1.0, 1.0, 0.0, 1.0]))
    assert np.isnan(exponent([1], [1.0]))


def test_a_line_through_equal_numbers_has_no_r_squared():
    assert np.isnan(straight_line([1, 2, 3], [2.0, 2.0, 2.0])[2])
