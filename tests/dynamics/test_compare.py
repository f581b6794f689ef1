"""Two runs side by side: against itself, a slower copy, a naive twin; and nothing is dropped without being named."""

import math
from typing import Any

import numpy as np
import pytest

import prefdyn as pdy
from prefdyn.dynamics.compare import compare, differing_settings, steps_to, steps_to_undo
from prefdyn.dynamics.descent import descent
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import DPO
from prefdyn.synthetic import gaussian_groups
from prefdyn.trajectory import Trajectory
from tests.naive import compare as naive

LOG = [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 16, 19, 23, 28, 33, 40, 48, 58, 69, 83, 100]
GAPS = [2.0, 1.2, 0.8, 0.5, 0.3, 1.6]


def made(rates, *, steps: Any = LOG, splits: Any = ("train", "held_out"), pairs: Any = 40, settings=None, **columns):
    """A run whose groups' losses fall from log 2, each at its rate, held-out ones less far."""
    rows = []
    for step in steps:
        for name, rate in rates.items():
            for split in splits:
                gone = 1 - math.exp(-rate * step)
                row = {"run": "joint", "step": step, "time": float(step), "group": name, "split": split}
                row |= {"pairs": pairs[name] if isinstance(pairs, dict) else pairs, "margin": 2 * gone}
                row |= {"loss": math.log(2) - (0.5 if split == "train" else 0.4) * gone}
                row |= {key: value(name, split, step) for key, value in columns.items()}
                rows.append(row)
    return Trajectory.from_rows(rows, settings=settings or {})


RATES = {"a": 0.1, "b": 0.05, "c": 0.02, "d": 0.01, "e": 0.2, "f": 0.03}


def features(**change):
    return gaussian_groups(60, groups=6, width=16, half_gap=GAPS, held_out=0.25, **change)


# against itself and against slower copies ---------------------------------------------------------------------------


def test_a_run_and_itself_are_the_same():
    run = descent(features(), DPO(beta=0.5), steps=40, alone=False)
    found = compare(run, run)
    for errors in (*found.errors.values(), *(item.errors for item in found.groups)):
        assert {name: error.rms for name, error in errors.items()} == dict.fromkeys(errors, 0.0)
        assert all(error.relative == 0 for error in errors.values())
    assert found.rescaling.factor == 1.0
    assert found.order.value == 1.0
    assert found.order.p_value == pytest.approx(2 / math.factorial(6))
    assert found.split == "held_out"
    assert (found.only_first, found.only_second, found.settings, found.notes) == ((), (), (), ())
    assert all(item.first == item.second or not math.isfinite(item.first.spread_before) for item in found.groups)
    assert len(found.groups) == 12


def test_a_run_against_its_slower_copy():
    steps = range(201)
    fast, slow = made(RATES, steps=steps), made({name: rate / 4 for name, rate in RATES.items()}, steps=steps)
    found = compare(fast, slow)
    assert found.rescaling.factor == pytest.approx(4, rel=5e-3)
    assert found.rescaling.share_first == pytest.approx(0.25, rel=5e-3)
    for split in ("train", "held_out"):
        assert found.errors[split]["loss"].relative > 0.3
        assert found.errors[split]["loss_rescaled"].relative < 5e-3
        assert found.errors[split]["margin_rescaled"].relative < 5e-3
    assert compare(slow, fast).rescaling.factor == pytest.approx(1 / 4, rel=5e-3)
    for item in found.groups:
        assert item.second.steps_to_half > item.first.steps_to_half > 0


def test_a_quarter_of_the_learning_rate_takes_four_times_the_steps():
    """Small steps follow the flow of the margins, whose time is the learning rate times the steps."""
    feats = features()
    runs = [
        descent(feats, DPO(beta=0.5), learning_rate=rate, steps=steps, alone=False, record="all")
        for rate, steps in ((0.02, 100), (0.005, 400))
    ]
    found = compare(*runs)
    assert found.rescaling.factor == pytest.approx(4, rel=2e-2)
    assert found.rescaling.share_second == pytest.approx(1, rel=2e-2)
    assert found.errors["train"]["loss_rescaled"].relative < 2e-3 < found.errors["train"]["loss"].relative
    assert [item.name for item in found.settings] == ["learning_rate", "steps"]


def test_learning_rate_times_beta_squared_is_all_that_descent_depends_on():
    feats = features()
    one = descent(feats, DPO(beta=0.5), learning_rate=0.04, steps=50, alone=False)
    two = descent(feats, DPO(beta=1.0), learning_rate=0.01, steps=50, alone=False)
    found = compare(one, two)
    assert found.rescaling.factor == pytest.approx(1, rel=1e-6)
    for errors in found.errors.values():
        assert errors["loss"].rms < 1e-12
        assert errors["margin"].rms < 1e-12
    assert any("beta differs (0.5, 1.0): margins include it" in note for note in found.notes)


# the order ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_shuffled_groups_agree_no_more_than_chance_and_groups_in_order_do():
    """The control: 30 shuffles of 12 groups; the interval must hold 0 in most of them."""
    rng = np.random.default_rng(0)
    names = [f"g{k}" for k in range(12)]
    rates = rng.uniform(0.01, 0.2, 12)
    steps = [0, 3, 30, 100]
    first = made(dict(zip(names, rates, strict=True)), steps=steps, splits=("train",))
    misses = 0
    for _ in range(30):
        mixed = made(dict(zip(names, rng.permutation(rates), strict=True)), steps=steps, splits=("train",))
        order = compare(first, mixed, resamples=300, permutations=300).order
        misses += not order.low <= 0 <= order.high
    assert misses <= 5
    near = made(dict(zip(names, rates * rng.uniform(0.8, 1.25, 12), strict=True)), steps=steps, splits=("train",))
    assert compare(first, near).order.low > 0.5


@pytest.mark.parametrize("count", [2, 3])
def test_few_groups_give_no_interval_and_say_why(count):
    some = dict(list(RATES.items())[:count])
    order = compare(made(some), made(some)).order
    assert math.isnan(order.low)
    assert math.isnan(order.value) == (count == 2)
    assert f"{count} groups" in order.because


def test_the_control_by_size_stands_beside_it():
    """Where the largest group is always learned first, its number of pairs says as much as the first run."""
    sizes = {name: 10 + round(1000 * rate) for name, rate in RATES.items()}
    found = compare(made(RATES, pairs=sizes), made(RATES, pairs=sizes))
    assert found.order_by_size.value == found.order.value == 1
    upside_down = {name: 500 - size for name, size in sizes.items()}
    assert compare(made(RATES, pairs=upside_down), made(RATES, pairs=upside_down)).order_by_size.value == -1
    same = compare(made(RATES), made(RATES)).order_by_size
    assert math.isnan(same.value)
    assert "all 6 groups have the same value" in same.because


def test_without_held_out_pairs_the_training_loss_judges():
    found = compare(made(RATES), made(RATES, splits=("train",)))
    assert found.split == "train"
    assert any(note.startswith("Only first has held-out pairs of 'a', 'b', 'c' and 3 more") for note in found.notes)
    assert {item.split for item in found.groups} == {"train"}


def test_half_of_the_way_is_a_loss_that_neither_run_has_at_its_start():
    """From 0.7 to 0.3 and from 1.0 to 0.2: half of the smaller fall under the lower start, 0.5, is between."""
    rows = [
        [
            {"run": "joint", "group": "a", "split": "train", "pairs": 9, "step": step, "loss": loss, "margin": 0.0}
            for step, loss in zip((0, 10, 20), losses, strict=True)
        ]
        for losses in ((0.7, 0.5, 0.3), (1.0, 0.6, 0.2))
    ]
    (row,) = compare(*(Trajectory.from_rows(each, settings={}) for each in rows)).rows()
    assert (row["first_loss_fall"], row["second_loss_fall"]) == pytest.approx((0.4, 0.8))
    assert row["half_loss"] == pytest.approx(0.5)
    assert row["first_steps_to_half"] == pytest.approx(10)
    assert row["second_steps_to_half"] == pytest.approx(12.5)


# the naive twin -----------------------------------------------------------------------------------------------------


def test_every_figure_against_the_naive_twin():
    first = made(RATES, chosen_change=lambda name, split, step: -0.01 * step)
    slower = {
        name: rate * scale for (name, rate), scale in zip(RATES.items(), (0.5, 0.2, 1.1, 0.4, 0.5, 0.9), strict=True)
    }
    second = made(slower, steps=[0, 1, 2, 4, 7, 15, 33, 64, 120, 250], rejected_change=lambda *_: -2.0)
    found = compare(first, second)
    twins = {
        (name, split, quantity): [naive.curve(run, name, split, quantity) for run in (first, second)]
        for name in RATES
        for split in ("train", "held_out")
        for quantity in ("loss", "margin")
    }
    factor = found.rescaling.factor
    judged = [tuple(twins[name, "held_out", "loss"]) for name in RATES]
    assert found.rescaling.misfit == pytest.approx(naive.misfit(judged, factor), rel=1e-4)
    for other in (factor * 0.97, factor * 1.03):
        assert naive.misfit(judged, other) > found.rescaling.misfit
    rows = {(row["group"], row["split"]): row for row in found.rows()}
    for (name, split, quantity), (one, two) in twins.items():
        row = rows[name, split]
        for end, scale in (("", 1.0), ("_rescaled", factor)):
            rms, relative = naive.error(one, two, scale)
            assert row[f"{quantity}_error{end}"] == pytest.approx(rms, rel=1e-3)
            assert row[f"{quantity}_error{end}_relative"] == pytest.approx(relative, rel=1e-3)
    areas = [
        [
            np.trapezoid(twins[name, "held_out", "loss"][side][1], twins[name, "held_out", "loss"][side][0])
            for name in RATES
        ]
        for side in (0, 1)
    ]
    assert found.order.value == pytest.approx(naive.spearman(*areas), abs=1e-12)
    for name, row in ((name, rows[name, "train"]) for name in RATES):
        assert row["first_place"] == 1 + sum(rate > RATES[name] for rate in RATES.values())
        assert row["second_place"] == 1 + sum(rate > slower[name] for rate in slower.values())
        assert row["last_common_step"] == 100
        assert row["first_chosen_change"] == pytest.approx(-1.0)
        assert row["second_chosen_change"] is None
        assert (row["first_rejected_change"], row["second_rejected_change"]) == (None, -2.0)
        falls = [0.5 * (1 - math.exp(-rate * last)) for rate, last in ((RATES[name], 100), (slower[name], 250))]
        assert row["first_loss_fall"] == pytest.approx(falls[0])
        assert row["half_loss"] == pytest.approx(math.log(2) - min(falls) / 2)
        exact = -math.log(1 - min(falls) / 2 / 0.5) / RATES[name]
        assert row["first_steps_to_half"] == pytest.approx(exact, rel=2e-2)


def test_pooled_errors_are_over_all_groups_of_a_split():
    found = compare(made(RATES), made({name: rate / 3 for name, rate in RATES.items()}))
    own = [item.errors["loss"].rms for item in found.groups if item.split == "train"]
    assert found.errors["train"]["loss"].rms == pytest.approx(math.sqrt(np.mean(np.square(own))))


def test_curves_are_both_runs_at_common_steps():
    first, second = made(RATES), made(RATES, steps=[0, 7, 14, 50])
    found = compare(first, second)
    steps, one, two = found.curves("a", "margin", split="train")
    assert steps.tolist() == sorted({*(s for s in LOG if s <= 50), 7, 14, 50})
    np.testing.assert_allclose(one, np.interp(steps, *first.curve("margin", group="a")))
    np.testing.assert_allclose(two, np.interp(steps, *second.curve("margin", group="a")))
    scaled, _, there = found.curves("a", rescaled=True)
    at = np.interp(scaled * found.rescaling.factor, *second.curve("loss", group="a", split="held_out"))
    np.testing.assert_allclose(there, at)
    with pytest.raises(DataError, match="first has no group 'z' with split 'held_out'"):
        found.curves("z")


# what is told -------------------------------------------------------------------------------------------------------


def test_groups_and_splits_of_one_run_alone_are_named():
    first = made({name: RATES[name] for name in "abcde"})
    second = made({name: RATES[name] for name in "bcdf"})
    found = compare(first, second, names=("predicted", "trained"))
    assert (found.only_first, found.only_second) == (("a", "e"), ("f",))
    assert {item.group for item in found.groups} == {"b", "c", "d"}
    assert "Only predicted has 'a', 'e': left out of every figure." in found.notes
    assert "Only trained has 'f': left out of every figure." in found.notes
    with pytest.raises(DataError, match="the runs share no group: first has 'a', second has 'b'"):
        compare(made({"a": 0.1}), made({"b": 0.1}))
    with pytest.raises(DataError, match="share no group"):
        compare(made({"a": 0.1}, splits=("train",)), made({"a": 0.1}, splits=("held_out",)))


def test_runs_alone_are_not_the_joint_run():
    run = descent(features(), steps=5)
    assert len(compare(run, run).groups) == 12


def test_a_loss_that_is_no_number_is_named_and_stepped_over():
    broken = made(RATES, loss=lambda name, split, step: math.nan if name == "b" and step == 100 else 0.7 - step / 1000)
    found = compare(made(RATES), broken)
    assert any("second has losses that are no finite number, of 'b'" in note for note in found.notes)
    assert any("Not in the order" in note and "'b'" in note for note in found.notes)
    assert found.order.groups == 5
    assert np.isfinite([item.errors["loss"].rms for item in found.groups]).all()
    assert {item.last_common_step for item in found.groups if item.group == "b"} == {83.0}


def test_unlike_objectives_pairs_and_edges_are_told():
    first = made(RATES, settings={"objective": "sigmoid", "steps": 100})
    still = made(dict.fromkeys(RATES, 1e-7), settings={"objective": "ipo", "tune": "lora"}, pairs=7)
    found = compare(first, still)
    assert [tuple(item) for item in found.settings] == [
        ("objective", "sigmoid", "ipo"),
        ("steps", 100, None),
        ("tune", None, "lora"),
    ]
    told = " ".join(found.notes)
    assert "The objectives differ (sigmoid, ipo)" in told
    assert "12 of 12 curves are means over different numbers of pairs, such as 'a', train: 40 in first, 7 in" in told
    assert found.rescaling.at_edge
    assert "is an end of the range tried" in told
    assert "No rescaling of time brings" not in told


def test_curves_of_unlike_shape_are_told_to_stay_apart():
    """Two groups dip one after the other; in the second run the other one comes first."""

    def dips(early):
        return lambda name, split, step: 0.7 - 0.3 * math.exp(-(((step - (30 if name == early else 60)) / 10) ** 2))

    found = compare(made({"a": 1, "b": 1}, loss=dips("a")), made({"a": 1, "b": 1}, loss=dips("b")))
    assert found.rescaling.misfit > 0.3
    assert not found.rescaling.at_edge
    assert any("No rescaling of time brings the curves together" in note for note in found.notes)
    assert not any("brings the curves together" in note for note in compare(found.first, found.first).notes)


def test_a_run_of_which_little_is_compared_is_told():
    """A second run that is 20 times slower and as long gets as far as the first in 5 % of its steps."""
    first = made(RATES, steps=range(101))
    slow, slower = (made({name: rate / by for name, rate in RATES.items()}, steps=range(101)) for by in (5, 20))
    notes = compare(first, slower, names=("predicted", "trained")).notes
    assert any("only the first 5 % of the steps of predicted are compared" in note for note in notes)
    assert compare(first, slow).notes == ()


def test_settings_that_matter_come_first():
    assert [
        item.name for item in differing_settings({"a": 1, "seed": 1, "beta": 2}, {"a": 2, "seed": 2, "beta": 1})
    ] == [
        "beta",
        "seed",
        "a",
    ]
    assert differing_settings({"a": [1]}, {"a": [1]}) == ()
    assert differing_settings({"flip": False, "warmup": 0}, {}) == ()
    assert len(differing_settings({"flip": True}, {})) == 1


def test_separability_before_and_after_where_it_was_measured():
    first = made(RATES)
    second = made(RATES, distinguishability=lambda *at: 1 + at[2] / 100, trace=lambda *at: 3.0)
    row = compare(first, second).rows()[0]
    assert (row["second_distinguishability_before"], row["second_distinguishability_after"]) == (1.0, 2.0)
    assert (row["second_spread_before"], row["second_spread_after"]) == (3.0, 0.75)
    assert row["first_distinguishability_before"] is None
    assert row["first_spread_after"] is None


# steps to -----------------------------------------------------------------------------------------------------------


def test_steps_to_a_loss_is_where_the_curve_crosses_it():
    run = made({"a": 0.05}, steps=range(101))
    for loss in (0.69, 0.5, 0.3):
        assert steps_to(run, "a", loss) == pytest.approx(-math.log(1 - (math.log(2) - loss) / 0.5) / 0.05, abs=0.02)
    assert steps_to(run, "a", 1.0) == 0
    assert math.isnan(steps_to(run, "a", 0.1))
    assert steps_to(run, "a", 0.5, split="held_out") > steps_to(run, "a", 0.5)
    row = compare(run, run, losses=[0.5, 0.1]).rows()[0]
    assert row["first_steps_to_0.5"] == steps_to(run, "a", 0.5)
    assert row["second_steps_to_0.1"] is None
    with pytest.raises(DataError, match="no rows for run 'joint', group 'b'"):
        steps_to(run, "b", 0.5)
    with pytest.raises(ConfigError, match="quantity 'los' is unknown; did you mean 'loss'"):
        steps_to(run, "a", 0.5, quantity="los")
    with pytest.raises(ConfigError, match="loss is -1"):
        compare(run, run, losses=[-1.0])


def gaps(values, *, flip):
    """A run whose chosen log-probability is ahead by these at steps 0, 10, 20, …"""
    rows = [
        {
            "run": "joint",
            "step": 10 * k,
            "group": "a",
            "split": "train",
            "pairs": 5,
            "loss": 0.7 - k / 100,
            "margin": 0.0,
        }
        | {"chosen_log_prob": -3 + value, "rejected_log_prob": -3.0}
        for k, value in enumerate(values)
    ]
    return Trajectory.from_rows(rows, settings={"flip": flip})


def test_steps_to_undo_is_when_the_first_runs_preference_is_back_at_its_start():
    aligned = gaps([0.5, 1.0, 4.5], flip=False)
    back = gaps([-4.5, -2.5, 1.5], flip=True)
    # in the labels of the first run: 4.5, 2.5, -1.5; back at 0.5 halfway between steps 10 and 20
    assert steps_to_undo(aligned, back, "a") == pytest.approx(15.0)
    assert compare(aligned, back).rows()[0]["steps_to_undo"] == pytest.approx(15.0)
    assert compare(aligned, aligned).rows()[0]["steps_to_undo"] is None
    assert math.isnan(steps_to_undo(aligned, gaps([-4.5, -4.0, -3.0], flip=True), "a"))
    assert steps_to_undo(aligned, gaps([4.5, 2.5, -1.5], flip=True), "a", flipped=False) == pytest.approx(15.0)
    assert math.isnan(steps_to_undo(made({"a": 0.1}), back, "a"))
    assert math.isnan(steps_to_undo(aligned, made({"a": 0.1}), "a"))


def test_a_head_alone_is_misaligned_as_fast_as_it_was_aligned():
    """Labels flipped and the reference at the start: the same margins, step by step (THEORY 2.7, null test)."""
    feats = features()
    settings: Any = {"learning_rate": 0.02, "steps": 60, "alone": False}
    taught, opposite = (descent(each, DPO(beta=0.5), **settings) for each in (feats, feats.flipped()))
    again = Trajectory(table=opposite.table, settings={**opposite.settings, "flip": True})
    found = compare(taught, again)
    assert found.rescaling.factor == pytest.approx(1, abs=1e-6)
    assert all(errors[name].rms < 1e-12 for errors in found.errors.values() for name in ("loss", "margin"))
    assert found.order.value == 1
    assert [item.name for item in found.settings] == ["flip"]


# as text ------------------------------------------------------------------------------------------------------------


def test_a_comparison_reads_as_text_and_has_a_public_name():
    assert pdy.compare is compare
    text = str(compare(made(RATES), made({name: rate / 2 for name, rate in RATES.items()}), names=("sim", "lora")))
    assert "sim against lora, order of learning by held-out loss: 1.00 (no interval, p = 0.0028, 6 groups)" in text
    assert "one step of sim is as much as 2" in text
    assert "held-out curves, root mean square error: loss 0.0" in text
    short = str(compare(made({"a": 0.1}, steps=[0, 1]), made({"a": 0.1}, steps=[0, 1])))
    assert "no rescaling of time: no group was measured at 3 steps or more in both runs" in short


def test_rows_are_plain_numbers():
    for row in compare(made(RATES), made(RATES, splits=("train",))).rows():
        for name, value in row.items():
            assert value is None or isinstance(value, int | float | str), name
            assert value is None or isinstance(value, str) or math.isfinite(value), name
