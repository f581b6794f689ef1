"""Every verdict has evidence that earns it and a near miss that does not; the rules keep their order."""

import math
from dataclasses import replace

import pytest

from prefdyn.maths.objectives import LOG2
from prefdyn.planning.verdicts import ADVICE, Evidence, Thresholds, judge

PLAIN = Evidence(
    name="plain",
    pairs=200,
    one_class=False,
    null_p=0.001,
    probe_low=0.7,
    probe_chance=0.5,
    held_out_accuracy=0.8,
    words_accuracy=0.7,
    priority=0.6,
    priority_error=0.02,
    train_loss=LOG2 - 0.2,
    held_out_loss=LOG2 - 0.15,
    held_out_loss_error=0.01,
    alone_held_out_loss=LOG2 - 0.2,
    rank=1,
)
"""A group that no special rule catches."""


def verdict(item, *others):
    """The verdict of `item` among `others` (or alone)."""
    return judge([item, *others])[0].verdict


OTHERS = [replace(PLAIN, name=f"other {k}", rank=k + 2) for k in range(5)]

CASES = {
    "too few pairs": ("too few", {"pairs": 19}, {"pairs": 20}),
    "one class": ("too few", {"one_class": True}, {"one_class": False}),
    "random labels by the null": ("noise", {"null_p": 0.0501}, {"null_p": 0.05}),
    "random labels by the probe": ("noise", {"probe_low": 0.5}, {"probe_low": 0.501}),
    "chance is the larger class": ("noise", {"probe_low": 0.7, "probe_chance": 0.75}, {"probe_chance": 0.69}),
    "length decides": ("giveaway", {"length_accuracy": 0.9}, {"length_accuracy": 0.899}),
    "words decide": (
        "trivial",
        {"held_out_accuracy": 0.98, "words_accuracy": 0.98},
        {"held_out_accuracy": 0.98, "words_accuracy": 0.979},
    ),
    "words decide but the model does not": (
        "trivial",
        {"held_out_accuracy": 0.99, "words_accuracy": 1.0},
        {"held_out_accuracy": 0.979, "words_accuracy": 1.0},
    ),
    "negative priority": ("conflicting", {"priority": -0.021}, {"priority": -0.02}),
    "ends above log 2, alone below": (
        "conflicting",
        {"held_out_loss": LOG2 + 0.011},
        {"held_out_loss": LOG2 + 0.009, "train_loss": LOG2 - 0.05, "alone_held_out_loss": LOG2 - 0.1},
    ),
    "ends above log 2, alone too": (
        "conflicting",
        {"held_out_loss": LOG2 + 0.011, "train_loss": LOG2},
        {"held_out_loss": LOG2 + 0.011, "alone_held_out_loss": LOG2 + 0.001, "train_loss": LOG2},
    ),
    "crowded out": (
        "left behind",
        {"held_out_loss": LOG2 - 0.027, "alone_held_out_loss": LOG2 - 0.151},
        {"held_out_loss": LOG2 - 0.028, "alone_held_out_loss": LOG2 - 0.151},
    ),
    "not learnable alone either": (
        "left behind",
        {"held_out_loss": LOG2 - 0.02, "alone_held_out_loss": LOG2 - 0.151},
        {"held_out_loss": LOG2 - 0.02, "alone_held_out_loss": LOG2 - 0.149},
    ),
    "fits pairs": (
        "memorised",
        {"train_loss": LOG2 - 0.3, "held_out_loss": LOG2 - 0.019, "alone_held_out_loss": LOG2 - 0.03},
        {"train_loss": LOG2 - 0.3, "held_out_loss": LOG2 - 0.021, "alone_held_out_loss": LOG2 - 0.03},
    ),
    "too little fitted to speak of": (
        "memorised",
        {"train_loss": LOG2 - 0.101, "held_out_loss": LOG2, "alone_held_out_loss": LOG2},
        {"train_loss": LOG2 - 0.1, "held_out_loss": LOG2, "alone_held_out_loss": LOG2},
    ),
}


@pytest.mark.parametrize(("expected", "earns", "misses"), CASES.values(), ids=CASES.keys())
def test_each_verdict_is_earned_and_narrowly_missed(expected, earns, misses):
    assert verdict(replace(PLAIN, **earns), *OTHERS) == expected
    assert verdict(replace(PLAIN, **misses), *OTHERS) == "early"


def test_thirds_of_the_rank_name_the_order():
    ranked = [replace(PLAIN, name=str(k), rank=k + 1) for k in range(7)]
    assert [item.verdict for item in judge(ranked)] == ["early"] * 3 + ["middle"] * 2 + ["late"] * 2


@pytest.mark.parametrize("count", [1, 2])
def test_under_three_groups_there_is_no_order(count):
    assert {item.verdict for item in judge([replace(PLAIN, rank=k + 1) for k in range(count)])} == {"learned"}


def test_earlier_rules_win():
    """A group that meets every rule is 'too few'; without that 'noise'; and so on down the table."""
    worst = replace(
        PLAIN, pairs=3, null_p=0.9, length_accuracy=1.0, held_out_accuracy=1.0, words_accuracy=1.0, priority=-1.0,
        held_out_loss=LOG2 + 0.5,
    )  # fmt: skip
    for expected, cure in (
        ("too few", {"pairs": 100}),
        ("noise", {"null_p": 0.001}),
        ("giveaway", {"length_accuracy": 0.5}),
        ("trivial", {"words_accuracy": 0.5}),
        ("conflicting", {}),
    ):
        assert verdict(worst, *OTHERS) == expected
        worst = replace(worst, **cure)


def test_numbers_that_could_not_be_measured_never_earn_a_verdict():
    """NaN everywhere but the size: no rule fires, and the group is not ranked."""
    names = [name for name, value in vars_of(PLAIN).items() if isinstance(value, float)]
    unknown = replace(PLAIN, **dict.fromkeys(names, math.nan), rank=math.nan)
    assert verdict(unknown, *OTHERS) == "learned"


def vars_of(item):
    return {name: getattr(item, name) for name in item.__slots__}


def test_conflict_names_who_opposes_and_reasons_carry_numbers():
    judged = judge([replace(PLAIN, priority=-0.25, opposed_by=("a", "b", "c", "d")), *OTHERS])[0]
    assert judged.because == "its priority is -0.250 ± 0.02: the first joint step raises its loss"
    assert judged.advice.endswith("Strongest against it: a, b, c.")
    assert "only 7 pairs, under 20" in judge([replace(PLAIN, pairs=7)])[0].because


def test_a_giveaway_names_length_beside_the_probe_where_there_is_one():
    unprobed, probed = judge([replace(PLAIN, length_accuracy=0.9567, probe_accuracy=p) for p in (math.nan, 0.9712)])
    assert unprobed.because == "length alone tells chosen from rejected on 0.957 of held-out pairs"
    assert probed.because == f"{unprobed.because}, the probe of the model on 0.971"
    assert "match the lengths" in probed.advice


def test_every_verdict_has_advice_and_every_rule_is_printed_with_its_threshold():
    limits = Thresholds(few_pairs=33, null_p=0.07, giveaway_accuracy=0.87, trivial_accuracy=0.91)
    printed = " ".join(rule["rule"] for rule in limits.rules())
    assert all(number in printed for number in ("33", "0.07", "0.87", "0.91"))
    assert [rule["verdict"] for rule in limits.rules()][1:4] == ["noise", "giveaway", "trivial"]
    assert set(ADVICE) == {
        "too few", "noise", "giveaway", "trivial", "conflicting", "left behind", "memorised", "early", "middle", "late",
        "learned",
    }  # fmt: skip
