"""Every verdict has evidence that earns it and a near miss that does not; the rules keep their order."""

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import norm, t

from prefdyn.maths.objectives import LOG2
from prefdyn.maths.units import Mean
from prefdyn.planning.verdicts import (
    ADVICE,
    NO_EVIDENCE,
    NOTHING,
    Evidence,
    Thresholds,
    Verdict,
    followed,
    judge,
    power,
)

UNITS, ERROR = 200, 0.01


def at(fall, error=ERROR):
    """A held-out loss that far below log 2."""
    return Mean(value=LOG2 - fall, error=error, units=UNITS)


PLAIN = Evidence(
    name="plain",
    pairs=UNITS,
    units=UNITS,
    null_z=9.0,
    signal_p=0.001,
    area=0.8,
    area_low=0.74,
    area_high=0.85,
    area_error=0.03,
    area_null_error=0.04,
    probe_accuracy=0.73,
    words_accuracy=0.7,
    held_out_accuracy=0.8,
    train_loss=LOG2 - 0.2,
    loss=at(0.15),
    alone=at(0.2),
    area_under_loss=at(0.08, 0.0005),
)
"""A group that no special rule catches, the first of six to be learned."""
OTHERS = [replace(PLAIN, name=f"other {k}", area_under_loss=at(0.07 - 0.01 * k, 0.0005)) for k in range(5)]

SURE = float(t.isf(0.05 / 6, UNITS - 1)) * ERROR
"""How far beyond a limit the loss of one of six groups must lie, at 5 % and adjusted by Holm."""
BOTH = float(t.isf(0.025 / 6, UNITS - 1)) * ERROR
"""The same for its start, which is asked two-sided, as the interval that is shown is."""
A_LITTLE = 0.0002


def verdict(item, *others):
    """The verdict of `item` among `others` (or alone)."""
    return judge([item, *others], resamples=0)[0].verdict


CASES: dict[str, Any] = {
    "few units": ("cannot tell", {"units": 19}, {"units": 20}, "early"),
    "many pairs of few units": ("cannot tell", {"units": 19, "pairs": 4000}, {"units": 20, "pairs": 20}, "early"),
    "one class": ("cannot tell", {"one_class": True}, {"one_class": False}, "early"),
    "nothing found, much possible": (
        "cannot tell",
        {"signal_p": 0.0501, "area_high": 0.6},
        {"signal_p": 0.05, "area_high": 0.6},
        "early",
    ),
    "nothing found, nothing possible": (
        "looks random",
        {"signal_p": 0.0501, "area_high": 0.5999},
        {"signal_p": 0.0501, "area_high": 0.6},
        "cannot tell",
    ),
    "nothing possible, but something found": (
        "looks random",
        {"signal_p": 0.0501, "area_high": 0.59},
        {"signal_p": 0.05, "area_high": 0.59},
        "early",
    ),
    "length decides": (
        "giveaway",
        {"length_p": 0.05, "length_behind": 0.0},
        {"length_p": 0.0501, "length_behind": 0.0},
        "early",
    ),
    "length decides and nothing else is found": (
        "giveaway",
        {"length_p": 0.05, "length_behind": 0.0, "signal_p": 0.9},
        {"length_p": 0.0501, "length_behind": 0.0, "signal_p": 0.9, "area_high": 0.59},
        "looks random",
    ),
    "the probe knows more than length": (
        "giveaway",
        {"length_p": 1e-9, "length_behind": 0.0},
        {"length_p": 1e-9, "length_behind": 0.001},
        "early",
    ),
    "words decide": (
        "trivial",
        {"held_out_accuracy": 0.98, "words_accuracy": 0.98},
        {"held_out_accuracy": 0.98, "words_accuracy": 0.979},
        "early",
    ),
    "words decide but the model does not": (
        "trivial",
        {"held_out_accuracy": 0.98, "words_accuracy": 1.0},
        {"held_out_accuracy": 0.979, "words_accuracy": 1.0},
        "early",
    ),
    "ends above log 2, alone below": (
        "conflicting",
        {"loss": at(-BOTH - A_LITTLE), "train_loss": LOG2},
        {"loss": at(-BOTH + A_LITTLE), "train_loss": LOG2, "alone": at(0.1)},
        "early",
    ),
    "ends above log 2, alone not surely below": (
        "conflicting",
        {"loss": at(-0.1), "train_loss": LOG2, "alone": at(1.96 * ERROR + A_LITTLE)},
        {"loss": at(-0.1), "train_loss": LOG2, "alone": at(1.96 * ERROR - A_LITTLE)},
        "early",
    ),
    "crowded out": (
        "left behind",
        {"loss": at(0.25 * 0.15 - SURE - A_LITTLE), "alone": at(0.151)},
        {"loss": at(0.25 * 0.15 - SURE + A_LITTLE), "alone": at(0.151)},
        "early",
    ),
    "not learnable alone either": (
        "left behind",
        {"loss": at(0.01), "alone": at(0.1501)},
        {"loss": at(0.01), "alone": at(0.1499)},
        "early",
    ),
    "fits pairs": (
        "memorised",
        {"train_loss": LOG2 - 0.3, "loss": at(0.03 - SURE - A_LITTLE), "alone": at(0.1)},
        {"train_loss": LOG2 - 0.3, "loss": at(0.03 - SURE + A_LITTLE), "alone": at(0.1)},
        "early",
    ),
    "too little fitted to speak of": (
        "memorised",
        {"train_loss": LOG2 - 0.1001, "loss": at(0.0, 0.002), "alone": at(0.1)},
        {"train_loss": LOG2 - 0.0999, "loss": at(0.0, 0.002), "alone": at(0.1)},
        "early",
    ),
}


@pytest.mark.parametrize(("expected", "earns", "misses", "instead"), CASES.values(), ids=CASES.keys())
def test_each_verdict_is_earned_and_narrowly_missed(expected, earns, misses, instead):
    assert verdict(replace(PLAIN, **earns), *OTHERS) == expected
    assert verdict(replace(PLAIN, **misses), *OTHERS) == instead


@pytest.mark.parametrize("rule", ["length_p", "conflict", "behind", "memorised"])
def test_a_p_that_one_group_may_have_is_not_enough_among_six(rule):
    """The same evidence, judged among five groups that ask the same question: adjusted, it no longer earns."""
    lone, both = (float(t.isf(p, UNITS - 1)) * ERROR for p in (0.04, 0.02))
    change, quiet = {
        "length_p": ({"length_p": 0.04, "length_behind": -0.1}, {"length_p": 0.5}),
        "conflict": ({"loss": at(-both), "train_loss": LOG2, "alone": at(0.1)}, {}),
        "behind": ({"loss": at(0.25 * 0.15 - lone)}, {}),
        "memorised": ({"train_loss": LOG2 - 0.3, "loss": at(0.03 - lone), "alone": at(0.1)}, {}),
    }[rule]
    others = [replace(item, **quiet) for item in OTHERS]
    earned = {"length_p": "giveaway", "conflict": "conflicting", "behind": "left behind", "memorised": "memorised"}
    known = others if rule == "behind" else others[:0]  # the median needs company
    if rule != "behind":
        assert verdict(replace(PLAIN, **change), *known) == earned[rule]
    assert verdict(replace(PLAIN, **change), *others) == "early"


def ordered(values, error=0.0005):
    return [
        replace(PLAIN, name=str(k), area_under_loss=Mean(value=value, error=error, units=UNITS))
        for k, value in enumerate(values)
    ]


def names(items):
    return [item.verdict for item in judge(items, resamples=0)]


def test_thirds_of_the_rank_name_the_order():
    assert names(ordered([0.5 + 0.01 * k for k in range(7)])) == ["early"] * 3 + ["middle"] * 2 + ["late"] * 2


def test_a_rank_whose_interval_crosses_a_third_is_said_with_both():
    """Six groups; the second and third are alike, as are the fourth and fifth: each pair straddles a third."""
    found = judge(ordered([0.50, 0.51, 0.51, 0.53, 0.53, 0.55]), resamples=0)
    assert [item.verdict for item in found] == [
        "early", "early or middle", "early or middle", "middle or late", "middle or late", "late",
    ]  # fmt: skip
    assert [(item.rank_low, item.rank_high) for item in found[1:3]] == [(2, 3)] * 2
    assert "ranks 2 (95 % interval 2 to 3) of 6" in found[1].because


def test_groups_that_differ_by_less_than_their_errors_are_not_told_apart():
    assert names(ordered([0.5 + 0.001 * k for k in range(6)], error=0.01)) == ["not told apart"] * 6
    assert names(ordered([0.5 + 0.1 * k for k in range(6)], error=0.01))[::5] == ["early", "late"]  # the control


@pytest.mark.parametrize("count", [1, 2])
def test_under_three_groups_there_is_no_order(count):
    assert names(ordered([0.5, 0.6][:count])) == ["learned"] * count
    assert names(ordered([0.5, 0.6, 0.7])) == ["early", "middle", "late"]


def test_earlier_rules_win():
    """A group that meets every rule cannot be told; with each cause taken away the next rule has its turn."""
    worst = replace(
        PLAIN, units=3, signal_p=0.9, area_high=0.55, length_p=1e-9, length_behind=-0.1, held_out_accuracy=1.0,
        words_accuracy=1.0, loss=at(-0.5), train_loss=LOG2 - 0.3,
    )  # fmt: skip
    for expected, cure in (
        ("cannot tell", {"units": 100}),
        ("giveaway", {"length_p": 0.9}),  # found by length, so it does not look random
        ("looks random", {"signal_p": 0.001}),
        ("trivial", {"words_accuracy": 0.5}),
        ("conflicting", {"loss": at(-0.001)}),
        ("left behind", {"alone": at(0.1)}),
        ("memorised", {"loss": at(0.1)}),
        ("early", {}),
    ):
        assert verdict(worst, *OTHERS) == expected
        worst = replace(worst, **cure)


def test_numbers_that_could_not_be_measured_never_earn_a_verdict():
    """NaN everywhere but the size: no rule fires, and the group is not ranked."""
    unknown = Evidence(name="unknown", pairs=200, units=200)
    found = judge([unknown, *OTHERS])[0]
    assert (found.verdict, found.because) == ("learned", "no pair of it can be held out")
    assert math.isnan(found.rank)
    assert found.stability == 1.0
    assert names([unknown]) == ["learned"]


# stability ----------------------------------------------------------------------------------------------------------


def test_far_from_every_threshold_a_verdict_is_stable():
    for item in judge([PLAIN, *OTHERS]):
        assert item.stability > 0.95
        assert item.could_be == ()
    far = judge([replace(PLAIN, loss=at(-0.3), train_loss=LOG2), *OTHERS])[0]
    assert (far.verdict, far.stability) == ("conflicting", 1.0)


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({"loss": at(-BOTH), "train_loss": LOG2, "alone": at(0.1)}, {"conflicting", "early"}),
        ({"loss": at(0.03 - SURE), "train_loss": LOG2 - 0.3, "alone": at(0.1)}, {"memorised", "early"}),
        (
            {"null_z": float(norm.isf(0.05 / 12)), "signal_p": 0.05, "area": 0.5, "area_error": 0.0, "area_high": 0.58},
            {"looks random", "early"},
        ),
    ],
)
def test_at_a_threshold_a_verdict_holds_in_half_of_the_resamples(change, verdicts):
    """400 resamples of evidence that lies on the limit of one rule, by its own error."""
    found = judge([replace(PLAIN, **change), *OTHERS], resamples=400)[0]
    assert found.verdict in verdicts
    assert found.stability == pytest.approx(0.5, abs=0.1)
    assert {found.verdict, *found.could_be} == verdicts


def test_stability_says_how_often_the_same_verdict_would_come_again():
    """Against drawing the measured loss anew and judging it: one and two errors beyond the limit."""
    rng = np.random.default_rng(0)
    for beyond in (1.0, 2.0):
        loss = at(-BOTH - beyond * ERROR)
        item = replace(PLAIN, loss=loss, train_loss=LOG2, alone=at(0.1))
        again = np.mean(loss.value + ERROR * rng.normal(size=20_000) > LOG2 + BOTH)
        assert judge([item, *OTHERS], resamples=400)[0].stability == pytest.approx(again, abs=0.07)


def test_no_resamples_no_stability_and_many_groups_have_fewer():
    assert all(math.isnan(item.stability) for item in judge([PLAIN, *OTHERS], resamples=0))
    many = ordered([0.5 + 0.01 * k for k in range(301)])
    assert {round(item.stability * 33, 6) % 1 for item in judge(many)} == {0.0}  # 10,000 / 301


def test_same_seed_same_judgements():
    item = replace(PLAIN, loss=at(-SURE), train_loss=LOG2)
    first, again, other = (judge([item, *OTHERS], resamples=50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first[0].stability != other[0].stability


# power --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("units", [40, 300])
def test_the_least_area_is_found_in_eight_of_ten_and_so_is_worth_with_the_units_asked_for(groups, units):
    """Areas drawn around the truth with their null error, and tested as separation does: two tests in every group."""
    limits, null = Thresholds(), 0.5 / math.sqrt(units)
    least, needed = power(Evidence(name="a", pairs=units, units=units, area_null_error=null), limits, groups)
    draws = np.random.default_rng(0).normal(size=40_000)

    def found(truth, error):
        return np.mean(2 * groups * norm.sf((truth + error * draws - 0.5) / error) <= limits.level)

    assert found(least, null) == pytest.approx(0.8, abs=0.01)
    assert found(limits.worth, null * math.sqrt(units / needed)) == pytest.approx(0.8, abs=0.02)
    assert found(limits.worth, null * math.sqrt(units / (0.8 * needed))) < 0.75


def test_without_an_error_nothing_is_said_of_power():
    least, needed = power(Evidence(name="a", pairs=9, units=9), Thresholds(), 1)
    assert (math.isnan(least), needed) == (True, 0)


# words --------------------------------------------------------------------------------------------------------------


def judged(*others, **change):
    return judge([replace(PLAIN, **change), *others], resamples=0)[0]


def test_reasons_carry_numbers():
    found = judged(*OTHERS, loss=at(-0.1), train_loss=LOG2, opposed_by=("a", "b", "c", "d"))
    assert found.because.startswith("held-out loss ends at 0.7931 ± 0.01, above log 2 = 0.6931 (adjusted p ")
    assert found.because.endswith("though alone it ends at 0.4931 ± 0.01")
    assert found.advice.endswith("Strongest against it: a, b, c.")
    assert found.changes_if == "a held-out loss below 0.6931"
    assert judged(units=7).because == "only 7 units, under 20 (200 pairs)"
    assert judged(units=1, pairs=1).because == "only 1 unit, under 20"
    assert judged(one_class=True).because == "all 200 pairs choose the same answer"


def test_a_group_that_cannot_be_told_hears_how_many_prompts_would_tell():
    """The amount is that of `power`, less what is there; for a group that is too small, at least up to the limit."""
    change: dict[str, Any] = {
        "signal_p": 0.3,
        "area": 0.55,
        "area_low": 0.45,
        "area_high": 0.65,
        "area_null_error": 0.05,
    }
    least, needed = power(replace(PLAIN, **change), Thresholds(), 1)
    found = judged(**change)
    assert found.advice == f"No claim is made; about {needed - UNITS:,} more prompts would tell."
    assert f"with 200 units an area of {least:.2f} would have been found in 8 of 10 such groups" in found.because
    assert "the probe's area is 0.55 (0.45 to 0.65)" in found.because
    assert found.changes_if == f"about {needed:,} prompts, which find an area of 0.6 in 8 of 10 groups"
    assert (
        judged(units=12, pairs=12, area_null_error=math.nan).advice
        == "No claim is made; about 8 more prompts would tell."
    )
    assert judged(one_class=True).advice == ADVICE["cannot tell"]
    assert "too few to find any area" in judged(**(change | {"area_null_error": 0.5})).because


def test_looks_random_says_what_is_excluded_and_what_would_change_it():
    found = judged(signal_p=0.4, area=0.52, area_low=0.47, area_high=0.57)
    assert "the probe's area is 0.52 (0.47 to 0.57), which excludes 0.6 and more" in found.because
    assert found.changes_if == "an adjusted p below 0.05, or an interval of the area that reaches 0.6"
    assert found.advice.endswith(
        "At most 14 % of them can follow something that it tells apart, if the rest are drawn by lot."
    )


def test_a_memorised_group_hears_where_to_stop():
    change: dict[str, Any] = {"train_loss": LOG2 - 0.3, "loss": at(-0.05), "alone": at(-0.05), "best_step": 8}
    assert judged(**change).verdict == "memorised"
    assert judged(**change).advice.endswith("Its held-out loss is least at step 8.")
    told = judged(**change, best_loss=LOG2 - 0.07).advice
    assert told.endswith("Its held-out loss is least at step 8: 0.6231, 0.1200 below where it ends.")


def test_a_group_that_is_left_behind_hears_how_much_more_it_needs():
    """Its fall is 0.01 and the median 0.15; a quarter of that is 3.75 times as much."""
    change: dict[str, Any] = {"loss": at(0.01, 0.001), "alone": at(0.2), "train_loss": LOG2 - 0.02}
    pull = {"push": 1.0, "own_push": 0.5, "part": 0.04, "late_speed": 0.0005}

    def told(**more):
        found = judge([replace(PLAIN, **change, **more), *OTHERS], resamples=0)[0]
        assert found.verdict == "left behind"
        return found.advice

    # 1 + 2.75 / (0.5 - 3.75 * 0.04) = 8.857 times the weight; 0.0275 / 0.0005 = 55 steps
    assert told(**pull) == (
        "Learnable but crowded out: 8.9 times its weight, about 1,572 pairs more like its own or about 55 further "
        "steps would bring its fall to 0.0375, in first order."
    )
    assert "weight" not in told(**pull | {"own_push": 0.1})  # its own pull is too weak
    assert "further steps" not in told(**pull | {"late_speed": -0.0005})
    assert told() == ADVICE["left behind"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_share_of_labels_that_follow_is_that_of_a_reader_who_is_always_right_about_them(share):
    """Labels that follow an attribute in a share of the pairs and chance elsewhere; the score is the attribute."""
    rng = np.random.default_rng(5)
    attribute = rng.integers(0, 2, 40_000)
    label = np.where(rng.random(40_000) < share, attribute, rng.integers(0, 2, 40_000))
    positive, negative = attribute[label == 1].mean(), attribute[label == 0].mean()
    area = positive * (1 - negative) + 0.5 * (positive * negative + (1 - positive) * (1 - negative))
    assert abs(followed(area) - share) < 0.02


@pytest.mark.parametrize(("best_step", "told"), [(16, "it is least at step 16; stop there"), (0, "teaches it nothing")])
def test_a_loss_that_rises_earns_no_advice_about_what_stopping_early_costs(best_step, told):
    late = ordered([0.5, 0.6, 0.7])
    late[2] = replace(late[2], loss=at(-0.01), alone=at(-0.01), train_loss=LOG2 - 0.05, best_step=best_step)
    found = judge(late, resamples=0)[2]
    assert found.verdict == "late"
    assert "stopping early costs" not in found.advice
    assert told in found.advice
    assert "held-out loss does not fall: it rises by 0.0100" in found.because
    assert "stopping early costs it most" in judge(ordered([0.5, 0.6, 0.7]), resamples=0)[2].advice  # the control


def test_a_giveaway_names_length_beside_the_probe():
    found = judged(length_p=1e-6, length_behind=-0.02, length_accuracy=0.9567, probe_accuracy=0.9712)
    assert found.because == (
        "length alone tells chosen from rejected on 0.957 of held-out pairs, the probe of the model on 0.971"
    )
    assert "match the lengths" in found.advice


def test_every_verdict_has_advice_and_every_rule_is_printed_with_its_threshold():
    limits = Thresholds(few_units=33, level=0.07, worth=0.61, trivial_accuracy=0.91, left_behind_share=0.21)
    printed = " ".join(rule["rule"] for rule in limits.rules())
    assert all(number in printed for number in ("33", "0.07", "0.61", "0.91", "0.21"))
    assert [rule["verdict"] for rule in limits.rules()] == [
        "cannot tell", "looks random", "giveaway", "trivial", "conflicting", "left behind", "memorised",
        "early · middle · late",
    ]  # fmt: skip
    assert set(ADVICE) == set(get_args(Verdict))
    assert set(NO_EVIDENCE) < set(ADVICE)


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [
        ("few_units", 201, "cannot tell"),
        ("level", 0.0009, "cannot tell"),
        ("trivial_accuracy", 0.7, "trivial"),
        ("left_behind_share", 1.5, "left behind"),
        ("memorised_share", 0.9, "memorised"),
        ("ranked_groups", 7, "learned"),
    ],
)
def test_every_threshold_has_a_say(limit, value, expected):
    assert judge([PLAIN, *OTHERS], Thresholds(**{limit: value}), resamples=0)[0].verdict == expected
    assert judge([PLAIN, *OTHERS], resamples=0)[0].verdict == "early"


def test_a_group_without_pairs_says_so():
    found = judge([Evidence(name="gone", pairs=0, units=0, loss=NOTHING)])[0]
    assert (found.verdict, found.because) == ("cannot tell", "only 0 units, under 20")
