"""Claims as rows: statistics and tests against naive twins, and every rule a sentence made of its claim's fields."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prefdyn._json import plain
from prefdyn._shape import misfit
from prefdyn.errors import DataError
from prefdyn.experiments import claims
from prefdyn.experiments.claims import KINDS, QUANTITIES, UNITS, Claim, numbers
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.recipes import recipes_named
from prefdyn.experiments.rows import CODE, Row, Rows
from prefdyn.experiments.separability import moved
from prefdyn.experiments.shared_rules import BEYOND, BEYOND_BELOW
from prefdyn.experiments.statistics import over_seeds
from prefdyn.report.summary_shape import CLAIMS
from tests.experiments.conftest import beside_twin, learned, measured, ordered, twin_of

FIGURE = "2403.18742-fig03"
scipy_stats: Any = stats
EVERY = [claim for recipe in recipes_named(["all"]) for claim in recipe.claims]
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.5, 3.0, (2, 8)).tolist()


def best_slope(x, y):
    """By trying slopes, finer and finer."""
    low, high = -100.0, 100.0
    for _ in range(200):
        one, other = low + (high - low) / 3, high - (high - low) / 3
        errors = [sum((b - slope * a) ** 2 for a, b in zip(x, y, strict=True)) for slope in (one, other)]
        low, high = (low, other) if errors[0] < errors[1] else (one, high)
    return low


def explained(x, y):
    slope, middle = best_slope(x, y), sum(y) / len(y)
    left = sum((b - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return 1 - left / sum((b - middle) ** 2 for b in y)


def straight(x, y):
    found: Any = stats.linregress(x, y)
    return math.copysign(found.rvalue**2, found.slope)


TWINS = [
    (claims.rank("K", "margin"), lambda x, y: scipy_stats.spearmanr(x, y).statistic),
    (claims.mean("K"), lambda x: sum(x) / len(x)),
    (claims.single("K"), lambda x: sum(x) / len(x)),
    (claims.greatest("K"), lambda x: sorted(x)[-1]),
    (claims.share_above("K"), lambda x: len([each for each in x if each > 0]) / len(x)),
    (claims.multiple("K", "margin"), explained),
    (claims.through_origin("K", "margin"), best_slope),
    (claims.power("K", "margin"), lambda x, y: scipy_stats.linregress(np.log(x), np.log(y)).slope),
    (claims.line("K", "margin"), straight),
    (claims.line("K", "margin", log=True), lambda x, y: straight(np.log(x), y)),
    (claims.distance("K", "margin"), lambda x, y: sum(abs(a - b) for a, b in zip(x, y, strict=True)) / len(x)),
    (claims.distance("K", "margin", largest=True), lambda x, y: max(abs(a - b) for a, b in zip(x, y, strict=True))),
    (moved("trace_ratio"), lambda x: math.prod(math.exp(each) for each in x) ** (1 / len(x))),
    (moved("trace_ratio", fold="greatest"), lambda x: max(math.exp(each) for each in x)),
    (moved("probe", fold="least"), min),
]  # fmt: skip


@pytest.mark.parametrize(("statistic", "naive"), TWINS)
def test_a_statistic_is_what_a_naive_reading_of_it_gives(statistic, naive):
    lists = (X, Y)[: len(statistic.quantities)]
    assert statistic.of(*lists) == pytest.approx(naive(*lists), rel=1e-6)
    rows = []
    for quantity, values in zip(statistic.quantities, lists, strict=True):
        rows += measured(quantity, [dict(enumerate(values))] * 2, figure=FIGURE)
    assert statistic(Rows(rows), {"figure": FIGURE}, MODEL) == pytest.approx([naive(*lists)] * 2, rel=1e-6)
    assert statistic(Rows(rows), {"figure": "another"}, MODEL) == []


def test_a_statistic_pairs_units_by_their_name_and_takes_those_that_have_all():
    rows = [
        *measured("distinguishability", [{"a": 1.0, "b": 2.0, "c": 3.0, "d": 9.0}]),
        *measured("fall", [{"c": 1.0, "b": 2.0, "a": 3.0}], figure=FIGURE, split="train", step="late"),
    ]
    rank = claims.rank("distinguishability", "fall")
    assert rank(Rows(rows), {"figure": FIGURE, "split": "train", "step": "late"}, MODEL) == [-1.0]
    assert rank(Rows(rows), {"figure": FIGURE, "split": "held_out"}, MODEL) == []


def test_two_rows_for_one_place_are_refused():
    rows = Rows([Row(quantity="fall", value=1.0, step=step) for step in ("early", "late")])
    assert rows.pick("fall", {"step": "late"}) == {0: {"": 1.0}}
    with pytest.raises(DataError, match="two rows of 'fall', '' and seed 0 fit"):
        rows.pick("fall", {})


def claim(**rest):
    common = {"id": f"{FIGURE}-x", "figure": FIGURE, "statement": "It is so.", "twin": "learned", "unit": "run"}
    return Claim(**{**common, "statistic": claims.mean("drift"), **rest})


def interval(values):
    """By scipy, not by our formula."""
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return float(low), float(high)


TESTS = {
    "above": (0.5, lambda low, high: low > 0.5),
    "below": (0.5, lambda low, high: high < 0.5),
    "under": (0.5, lambda low, high: high < 0.5),
    "inside": ((0.3, 0.7), lambda low, high: low > 0.3 and high < 0.7),
}


@pytest.mark.parametrize("test", TESTS)
def test_a_verdict_is_where_the_interval_lies(test):
    threshold, naive = TESTS[test]
    seen = set()
    for middle, width in itertools.product(np.linspace(0.2, 0.9, 15), (0.005, 0.02, 0.1)):
        values = [middle - width, middle + 0.3 * width, middle + 0.7 * width]
        rows = [*beside_twin("drift", values, [0.4, 0.41, 0.42], figure=FIGURE), *learned(FIGURE)]
        found = claim(test=test, threshold=threshold).judge(Rows(rows))
        assert found.holds is naive(*interval(values)), (middle, width)
        assert found.evidence["values"] == pytest.approx(values)
        seen.add(found.holds)
        few = claim(test=test, threshold=threshold).judge(Rows([row for row in rows if row.seed < 2]))
        assert few.holds is None
    assert seen == {True, False}


def test_at_most_asks_every_number_of_every_source():
    one = claim(
        test="at most", threshold=1e-6, statistic=claims.greatest("drift"), told="off by {0:.1g}", unknown="nothing",
        because="over {many} runs, at most {0:g}", sources=(MODEL, TWIN), facts=("beta",),
    )  # fmt: skip
    facts = {FIGURE: {"many": 4, "beta": 0.1}}
    rows = beside_twin("drift", [1e-9, 1e-8], [1e-7, 1e-9], figure=FIGURE)
    found = one.judge(Rows(rows, facts=facts))
    assert (found.holds, found.measured, found.because) == (True, "off by 1e-07", "over 4 runs, at most 1e-06")
    assert found.evidence == {"largest_difference": 1e-7, "beta": 0.1}
    worse = beside_twin("drift", [1e-9, 1e-8], [1e-5, 1e-9], figure=FIGURE)
    assert one.judge(Rows(worse, facts=facts)).holds is False
    assert replace(one, sources=(MODEL,)).judge(Rows(worse, facts=facts)).holds is True
    for none in ([], measured("drift", [math.nan], figure=FIGURE)):
        assert (one.judge(Rows(none, facts=facts)).holds, one.judge(Rows(none)).because) == (None, "nothing")


def test_what_is_taken_off_is_taken_off_seed_by_seed_and_widens_the_limits():
    rows = [
        *(row for step in ("early", "late") for row in ordered("K", "fall", [1.0, 0.9, 0.8], figure=FIGURE, step=step)),
        *learned(FIGURE),
    ]
    rows = [row._replace(value=-row.value) if (row.quantity, row.step) == ("fall", "early") else row for row in rows]
    one = claim(statistic=claims.rank("K", "fall"), select={"step": "late"}, less={"step": "early"})
    assert numbers(one, Rows(rows), MODEL) == pytest.approx([2.0, 1.8, 1.6])
    assert numbers(one, Rows(rows), MODEL, {"statistic": claims.rank("K", "fall")}) == pytest.approx([1.0, 0.9, 0.8])
    statistic = one.judge(Rows([*rows, *(row._replace(source=TWIN) for row in rows if row.quantity != "accuracy")]))
    assert statistic.evidence["statistic"]["high"] == 2.0  # no further than two rank correlations can be apart


def test_the_twin_is_held_against_what_the_claim_says():
    rows = [*beside_twin("drift", [1.0, 1.1, 1.2], [0.1, 0.2, 0.15], figure=FIGURE)]
    poor = learned(FIGURE, (0.5, 0.49, 0.51))
    assert twin_of(claim(twin="statistic").judge(Rows([*rows, *poor]))).beyond is True
    assert twin_of(claim().judge(Rows([*rows, *poor]))).beyond is False
    assert twin_of(claim().judge(Rows([*rows, *learned(FIGURE)]))).beyond is True


def test_evidence_is_of_other_columns_of_single_units_and_of_facts():
    rows = [
        *measured("drift", [{"a": 1.0, "b": 3.0}] * 3, figure=FIGURE),
        *measured("drift", [{"a": 1.0, "b": 3.0}] * 3, figure=FIGURE, source=TWIN),
        *measured("drift", [{"a": 5.0, "b": 7.0}] * 3, figure=FIGURE, source=CODE),
    ]
    one = claim(
        twin="statistic", each="only {}", facts=("known", "unknown"), printed={"there": 2.0},
        beside={"code": {"source": CODE}, "largest": {"statistic": claims.greatest("drift")}, "none": {"step": "late"}},
    )  # fmt: skip
    rows = [row._replace(step="early") for row in rows]
    found = replace(one, select={"step": "early"}).judge(Rows(rows, facts={FIGURE: {"known": 4}}))
    told = {name: value["value"] if isinstance(value, dict) else value for name, value in found.evidence.items()}
    assert told == {
        "statistic": 2.0, "values": [2.0] * 3, "code": 6.0, "largest": 3.0, "only a": 1.0, "only b": 3.0, "there": 2.0,
        "known": 4,
    }  # fmt: skip


@pytest.mark.parametrize(("statistic", "unit", "fewest"), [
    (claims.rank("K", "fall"), "behaviour", 4), (claims.rank("K", "fall"), "couple", 10),
    (claims.mean("fall"), "value", 5), (claims.power("K", "fall"), "number of values", 4),
    (claims.single("fall"), "couple", 10),
])  # fmt: skip
def test_too_few_units_are_no_verdict(statistic, unit, fewest):
    for count in (fewest - 1, fewest):
        names = [f"b{place} | b{place + 1}" for place in range(count)]
        values = [{name: float(place + 1) for place, name in enumerate(names)}] * 3
        rows = [*measured("K", values), *measured("fall", values, figure=FIGURE)]
        rows += [row._replace(source=TWIN) for row in rows]
        one = claim(statistic=statistic, unit=unit, twin="statistic")
        if statistic.kind == "whole":
            one = replace(one, select={"group": names[0]})
        found = one.judge(Rows(rows))
        assert f"takes {fewest}, and there are {count}" in found.because if count < fewest else found.holds is not None


def behaviours(values, *, quantity="drift", **rest):
    """One number per seed and behaviour, from what each behaviour has and three seeds' noise."""
    each = [{f"b{place}": value + off for place, value in enumerate(values)} for off in (-0.01, 0.0, 0.01)]
    return measured(quantity, each, figure=FIGURE, **rest)


def test_a_mean_is_tested_over_behaviours_and_not_over_seeds():
    """Four behaviours above and one below: seeds agree, behaviours do not."""
    up, mixed = [1.0, 2.0, 1.5, 0.5, 0.8], [1.0, 2.0, 1.5, 0.5, -0.8]
    over = claim(statistic=claims.mean("drift"), unit="behaviour", twin="")
    assert over.judge(Rows(behaviours(up))).p == 1 / 32
    assert over.judge(Rows(behaviours(up))).holds is True
    found = over.judge(Rows(behaviours(mixed)))
    assert (found.holds, found.p) == (False, pytest.approx(3 / 32))  # all signs, and those of ±0.5 turned, are as large
    assert replace(over, unit="run").judge(Rows(behaviours(mixed))).holds is True
    assert over.judge(Rows(behaviours([value + 1 for value in up]))).holds is True
    assert replace(over, threshold=1.6).judge(Rows(behaviours([value + 1 for value in up]))).holds is False


def test_an_order_is_tested_over_behaviours():
    x = [1.0, 2.0, 3.0, 4.0, 5.0]
    for y, p in (
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1 / 120),
        ([2.0, 1.0, 3.0, 4.0, 5.0], 5 / 120),
        ([2.0, 1.0, 3.0, 5.0, 4.0], 8 / 120),
    ):
        rows = [*behaviours(x, quantity="K"), *behaviours(y)]
        one = claim(statistic=claims.rank("K", "drift"), unit="behaviour", twin="")
        found = one.judge(Rows(rows))
        exact = scipy_stats.permutation_test(
            (y,), lambda each: scipy_stats.spearmanr(x, each).statistic, permutation_type="pairings",
            alternative="greater", n_resamples=np.inf,
        )  # fmt: skip
        assert found.p == pytest.approx(exact.pvalue)
        assert found.p == pytest.approx(p)
        assert found.holds is (p <= 0.05)
        assert replace(one, test="below").judge(Rows(rows)).p == pytest.approx(1, abs=0.1)


def test_a_chance_is_at_most_one():
    """Also where every repetition is far under the threshold, whose chance counts twice beside that over behaviours."""
    rows = [*behaviours([1.0, 2.0, 3.0, 4.0, 5.0], quantity="K"), *behaviours([5.0, 4.0, 3.0, 1.0, 2.0])]
    rows = [row._replace(value=row.value - 1.5 * (row.seed == 0)) if row.group == "b2" else row for row in rows]
    found = claim(statistic=claims.rank("K", "drift"), unit="behaviour", twin="", threshold=0.9).judge(Rows(rows))
    assert found.holds is False
    assert found.p is not None
    assert 0.9 < found.p <= 1


def test_an_order_across_settings_must_be_there_at_each():
    rows = []
    for name, y in (("a", [1.0, 2.0, 3.0, 4.0, 5.0]), ("b", [2.0, 1.0, 3.0, 5.0, 4.0])):
        each = [*behaviours([1.0, 2.0, 3.0, 4.0, 5.0], quantity="K"), *behaviours(y)]
        rows += [row._replace(figure=f"at {name}") for row in each]
    one = claim(statistic=claims.rank("K", "drift"), twin="", across="at ", unit="setting")
    assert one.judge(Rows(rows)).p == pytest.approx(8 / 120)
    assert replace(one, across="at a").judge(Rows(rows)).p == pytest.approx(1 / 120)
    mean = replace(one, fold=("mean", "draws")).judge(Rows(rows))
    assert mean.p is not None
    assert mean.p < 0.05


def test_beyond_the_twin_is_tested_over_behaviours_too():
    up = [1.0, 2.0, 1.5, 0.9, 0.8]
    rows = [*behaviours(up), *behaviours([0.9, 0.7, 0.5, 0.4, 0.3], source=TWIN), *learned_by_each(0.9, 0.6)]
    one = claim(statistic=claims.mean("drift"), unit="behaviour")
    assert twin_of(one.judge(Rows(rows))).beyond is True
    equal = [row._replace(value=row.value + 0.5 * (row.group == "b4")) if row.source == TWIN else row for row in rows]
    assert twin_of(one.judge(Rows(equal))).beyond is False
    poor = [row for row in rows if row.quantity != "accuracy"] + learned_by_each(0.9, 0.9)
    assert twin_of(one.judge(Rows(poor))).beyond is False
    assert twin_of(replace(one, twin="statistic").judge(Rows(poor))).beyond is True


def learned_by_each(model, twin):
    return [row for source, value in ((MODEL, model), (TWIN, twin))
            for row in behaviours([value] * 5, quantity="accuracy", source=source)]  # fmt: skip


def test_a_threshold_of_ours_is_moved_and_one_of_the_paper_is_not():
    one = claim(statistic=claims.mean("drift"), unit="behaviour", twin="", threshold=0.6)
    rows = Rows(behaviours([1.0, 1.1, 1.2, 0.9, 0.8]))
    assert claims.at_other_thresholds(one, rows) == [
        {"threshold": 0.3, "holds": True},
        {"threshold": 1.2, "holds": False},
    ]
    assert claims.at_other_thresholds(replace(one, given=True), rows) == []
    assert claims.at_other_thresholds(replace(one, threshold=0.0), rows) == []
    near = replace(one, statistic=claims.rank("K", "drift"), threshold=0.9)
    assert [each["threshold"] for each in claims.at_other_thresholds(near, rows)] == pytest.approx([0.95, 0.8])
    band = replace(one, test="inside", unit="run", threshold=(0.9, 1.1))
    ends = [each["threshold"] for each in claims.at_other_thresholds(band, rows)]
    assert ends == [pytest.approx((0.95, 1.05)), pytest.approx((0.8, 1.2))]
    for each in (one, near, band):  # as a page takes them
        assert misfit(plain(claims.at_other_thresholds(each, rows)), CLAIMS[0]["thresholds?"]) is None


# sentences -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [claim for claim in EVERY if claim.statistic], ids=lambda one: one.id)
def test_a_rule_is_made_of_its_claim_and_changes_with_it(one):
    """The threshold, the test, the twin and what is measured stand in the sentence, whatever they are."""
    ends = one.threshold if isinstance(one.threshold, tuple) else (one.threshold,)
    moved_on = tuple(end + 0.125 for end in ends)
    other = replace(one, threshold=moved_on if isinstance(one.threshold, tuple) else moved_on[0])
    if claims.over_units(one):
        for each, its in ((one, ends), (other, moved_on)):
            assert each.statistic is not None
            assert (each.statistic.kind == "order" and not any(its)) or f"{its[0]:g}" in each.rule
        assert ("Beyond the twin" in one.rule) is bool(one.twin)
    else:
        assert claims.TEST_WORDS[one.test].format(*ends) in one.rule
        assert claims.TEST_WORDS[one.test].format(*moved_on) in other.rule
        assert one.rule.endswith(BEYOND_BELOW if one.test == "below" else BEYOND) is (
            one.twin == "learned" and one.test in ("above", "below")
        )
    assert "{" not in one.rule
    assert one.note in one.rule
    assert one.setting in one.rule
    if one.chosen.get("step") in PHASES:
        assert replace(one, select={**one.select, "step": "midway"}).rule != one.rule or one.test == "at most"


def test_every_claim_has_a_rule_a_kind_and_a_unit():
    assert {claim.kind for claim in EVERY} == set(KINDS)
    for claim in EVERY:
        if claim.statistic and claim.statistic.kind == "whole" and claim.test in ("above", "below", "under", "inside"):
            assert claim.unit in ("run", "setting", "model", "couple"), claim.id  # one number has no units within
    for claim in EVERY:
        assert claim.unit in UNITS
        assert bool(claim.statistic) is not bool(claim.said), claim.id
        assert claim.code or claim.statistic, claim.id
        if claim.statistic is None:
            assert claim.twin == "" or claim.said.rstrip().endswith("."), claim.id


def test_quantities_have_words_without_gaps():
    for words in QUANTITIES.values():
        assert "  " not in words.format(split="training", step="at the end")


def test_most_claims_are_rows():
    """What does not fit is code, and few."""
    coded = [claim.id for claim in EVERY if claim.code]
    assert len(coded) < len(EVERY) / 8
    assert over_seeds([1.0]).seeds == 1
