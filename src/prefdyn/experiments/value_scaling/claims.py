"""What is judged, and by which rules; none of them knows a preset, a model or data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.dynamics.order import spearman
from prefdyn.experiments.catalogue import figures_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.clusters import PER_CLUSTER
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.judging import BEYOND, Judged, Measured, above, as_evidence, below, inside, untestable
from prefdyn.experiments.published import VALUE_TABLES
from prefdyn.experiments.statistics import over_seeds
from prefdyn.experiments.value_scaling.measures import MORE, SPLITS
from prefdyn.experiments.values import exponent, straight_line, too_few

_B = "2408.03459"
_FIGURE, _FIT = f"{_B}-fig05", f"{_B}-fit01"
_QUANTITIES = {"margin": "reward margin", "fall": "fall of the loss", "accuracy": "reward accuracy"}
_LINEAR = 0.9
"""R² from which on the line counts as a fit; printed are 0.95 to 0.99."""
_RATE = 0.1
"""How far an exponent may be from the one that theory gives."""
_LAW = 0.05
"""How far the law may be from the error measured, mean over K."""
_SAME_ACCURACY = 0.01
"""Difference of two accuracies up to which they count as one number."""
_NO_GAPS = "the gaps of these values are no larger than sampling noise, so the law has no numbers"


# by number of values -------------------------------------------------------------------------------------------------


def _errors(measured: Mapping[str, Any], way: str, source: str) -> list[list[float]]:
    """Test errors at the end, by seed and K."""
    return [[1 - value for value in row] for row in measured["ways"][way][source]["accuracy", "held_out", "late"]]


def _beside_twin(measured: Mapping[str, Any], way: str, statistic: Callable[[str], list[float]]) -> Measured:
    """A statistic of each seed, on the model and on its twin."""
    runs = measured["ways"][way]
    return Measured(
        model=statistic(MODEL), twin=statistic(TWIN), accuracy=runs[MODEL]["accuracies"],
        twin_accuracy=runs[TWIN]["accuracies"],
    )  # fmt: skip


def _lacking(measured: Mapping[str, Any], way: str) -> str | None:
    if way not in measured["ways"]:
        return "one model was given; give a second --model"
    return too_few([count for count in measured["values"] if "table" not in way or count in VALUE_TABLES[1].values])


def _trends(measured: Mapping[str, Any], way: str, source: str, key: tuple[str, str, str]) -> list[float]:
    return [spearman(_axis(measured, row), row) for row in measured["ways"][way][source][key]]


def _axis(measured: Mapping[str, Any], row: Sequence[float]) -> list[float]:
    """The numbers of values that a row has a number for."""
    return [float(count) for count in measured["values"][: len(row)]]


def _judge_trend(way: str, quantity: str, split: str, phase: str) -> Any:
    key = (quantity, split, phase)

    def judge(measured: Mapping[str, Any]) -> Judged:
        if (why := _lacking(measured, way)) is not None:
            return untestable(why)
        judged = below(
            _beside_twin(measured, way, lambda source: _trends(measured, way, source, key)),
            0.0, what="rank correlation with K", least=-1, most=1,
        )  # fmt: skip
        beside = {"as the published code does": f"{way}, code"} | (
            {"gradient descent": "descent"} if way == "adam" else {}
        )
        rest = {
            words: over_seeds(_trends(measured, other, MODEL, key), least=-1, most=1)
            for words, other in beside.items()
            if other in measured["ways"]
        }
        if quantity == "accuracy":
            policy = _trends(measured, way, MODEL, ("policy", split, phase))
            rest["policy accuracy in place of reward accuracy"] = over_seeds(policy, least=-1, most=1)
        return replace(judged, evidence={**judged.evidence, **as_evidence(rest)})

    return judge


def _judge_company(split: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if (why := too_few(measured["values"])) is not None:
            return untestable(why)
        found = {
            way: {
                source: [spearman(_axis(measured, row), row) for row in runs[source]["margin", split, "late"]]
                for source in SOURCES
            }
            for way, runs in measured["ring"].items()
        }
        judged = below(
            Measured(
                model=found["adam"][MODEL], twin=found["adam"][TWIN],
                accuracy=measured["ring"]["adam"][MODEL]["accuracies"],
                twin_accuracy=measured["ring"]["adam"][TWIN]["accuracies"],
            ),
            0.0, what="rank correlation with K", least=-1, most=1,
        )  # fmt: skip
        rest = as_evidence({"gradient descent": over_seeds(found["descent"][MODEL], least=-1, most=1)})
        return replace(judged, evidence={**judged.evidence, **rest})

    return judge


def _judge_power(way: str, low: float, high: float) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if (why := too_few(measured["values"])) is not None:
            return untestable(why)
        runs = measured["ring"][way]
        powers = {
            source: [exponent(measured["values"], row) for row in runs[source]["margin", "train", "early"]]
            for source in SOURCES
        }
        return inside(Measured(model=powers[MODEL], twin=powers[TWIN]), low, high, what="exponent of K")

    return judge


def _judge_clusters(measured: Mapping[str, Any]) -> Judged:
    found = {name: over_seeds(measured["clusters"][name]) for name in ("descent", "adam, axes", "adam, dense")}
    wanted = {"descent": -1.0, "adam, axes": 0.0, "adam, dense": -0.5}
    holds = all(abs(found[name].value - wanted[name]) <= _RATE for name in wanted)
    told = "; ".join(f"{name} {found[name].value:.3f}" for name in wanted)
    return Judged(
        holds=holds,
        measured=f"exponent of K: {told}",
        because=f"theory gives -1, 0 and -1/2, each to be met within {_RATE:g}",
        evidence=as_evidence(found),
    )


def _judge_cluster_lines(measured: Mapping[str, Any]) -> Judged:
    low, high = measured["clusters"]["lines"]
    return Judged(
        holds=low >= 1 and high >= 1,
        measured=f"smallest margin {low:.2f} times the lower line, upper line {high:.2f} times the largest",
        because="over all pairs, numbers of values, seeds and steps up to tau_1",
        evidence={"margin_over_lower_line": low, "upper_line_over_margin": high},
    )


def _judge_theorem(measured: Mapping[str, Any]) -> Judged:
    found = measured["theorem"]
    known = [value for key in ("low", "high") for value in found[key].values() if not math.isnan(value)]
    told = "no K has a step before tau_1"
    if known:
        low, high = (min(v for v in found[key].values() if not math.isnan(v)) for key in ("low", "high"))
        told = f"smallest margin {low:.3g} times the lower line, upper line {high:.3g} times the largest"
    evidence = {
        "margin_over_lower_line": {f"K = {count}": value for count, value in found["low"].items()},
        "upper_line_over_margin": {f"K = {count}": value for count, value in found["high"].items()},
        "conditions_that_fail": found["failing"],
    }
    if not found["applies"]:
        why = "; ".join(found["failing"]) or "values cannot be seen as clusters"
        return Judged(
            holds=None, measured=told, because=f"its conditions fail here, so it says nothing: {why}", evidence=evidence
        )
    if not known:
        return Judged(holds=None, measured=told, because="its time is over before the first step", evidence=evidence)
    return Judged(
        holds=min(known) >= 1, measured=told, because="over all pairs, K, seeds and steps up to tau_1",
        evidence=evidence,
    )  # fmt: skip


def _judge_sharing(measured: Mapping[str, Any]) -> Judged:
    del measured
    largest = 0.5**2 / 4
    return Judged(
        holds=largest >= 1,
        measured=f"at most {largest:g} for l_b up to 1/2, and Z is 1 or more",
        because="no number of values meets it; the paper and its proof have Z ≤ 1/(4 l_b²), which is 1 to 4",
        evidence={"largest_z": largest, "right_form": [1 / (4 * 0.5**2), 1 / (4 * 0.25**2)]},
    )


def _judge_error(way: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if (why := _lacking(measured, way)) is not None:
            return untestable(why)

        def rises(source: str) -> list[float]:
            return [spearman(_axis(measured, row), row) for row in _errors(measured, way, source)]

        return above(_beside_twin(measured, way, rises), 0.0, what="rank correlation with K", least=-1, most=1)

    return judge


def _judge_inverse(way: str, number: int) -> Any:
    printed = VALUE_TABLES[number]

    def judge(measured: Mapping[str, Any]) -> Judged:
        there = exponent(printed.values, printed.train_margin)
        if (why := _lacking(measured, way)) is not None:
            return untestable(why, printed_exponent=there)
        powers = {
            source: [
                exponent(_axis(measured, row), row) for row in measured["ways"][way][source]["margin", "train", "late"]
            ]
            for source in SOURCES
        }
        judged = inside(Measured(model=powers[MODEL], twin=powers[TWIN]), -1 - _RATE, -1 + _RATE, what="exponent of K")
        return replace(judged, evidence={**judged.evidence, "printed_exponent": there})

    return judge


def _signed(counts: Sequence[float], errors: Sequence[float]) -> float:
    """R² of the straight line, with the sign of its slope.

    Example:
        >>> _signed([1, 2, 3], [0.3, 0.2, 0.1])
        -1.0
    """
    slope, _, share = straight_line(counts, errors)
    return math.copysign(share, slope)


def _judge_line(way: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if (why := _lacking(measured, way)) is not None:
            return untestable(why)

        def shares(source: str) -> list[float]:
            return [_signed(_axis(measured, row), row) for row in _errors(measured, way, source)]

        judged = above(
            _beside_twin(measured, way, shares), _LINEAR, what="R² with the sign of the slope", least=-1, most=1
        )
        mean = np.mean(_errors(measured, way, MODEL), axis=0).tolist()
        slope, start, share = straight_line(_axis(measured, mean), mean)
        fitted = {"slope": slope, "intercept": start, "r_squared_of_the_mean": share}
        return replace(judged, evidence={**judged.evidence, **fitted})

    return judge


def _judge_not_log(measured: Mapping[str, Any]) -> Judged:
    if (why := _lacking(measured, "whole")) is not None:
        return untestable(why)

    def gains(source: str) -> list[float]:
        return [
            _signed(_axis(measured, row), row) - _signed(np.log(_axis(measured, row)).tolist(), row)
            for row in _errors(measured, "whole", source)
        ]

    return above(_beside_twin(measured, "whole", gains), 0.0, what="R² in K less that in log K")


def _judge_printed(measured: Mapping[str, Any]) -> Judged:
    del measured
    found = {number: straight_line(table.values, table.test_error)[2] for number, table in VALUE_TABLES.items()}
    return Judged(
        holds=all(round(found[number], 2) == table.r_squared for number, table in VALUE_TABLES.items()),
        measured="; ".join(f"Table {number}: {share:.4f}" for number, share in found.items()),
        because="least squares on the printed errors, to two digits",
        evidence={f"table_{number}": share for number, share in found.items()},
    )


def _judge_printed_log(measured: Mapping[str, Any]) -> Judged:
    del measured
    found = {
        number: [straight_line(axis, table.test_error)[2] for axis in (table.values, np.log(table.values).tolist())]
        for number, table in VALUE_TABLES.items()
    }
    return Judged(
        holds=all(linear > log for linear, log in found.values()),
        measured="; ".join(
            f"Table {number}: {pair[0]:.4f} in K, {pair[1]:.4f} in log K" for number, pair in found.items()
        ),
        because="a line in K must explain more than one in log K in both tables",
        evidence={f"table_{number}": pair for number, pair in found.items()},
    )


def _judge_shared(measured: Mapping[str, Any]) -> Judged:
    runs = measured["ring"]["descent"]
    costs = {
        source: [joint - own for joint, own in zip(runs[source]["shared"], runs[source]["own"], strict=True)]
        for source in SOURCES
    }
    judged = above(
        Measured(
            model=costs[MODEL], twin=costs[TWIN], accuracy=runs[MODEL]["accuracies"],
            twin_accuracy=runs[TWIN]["accuracies"],
        ),
        0.0, what="test error together less alone", least=-1, most=1,
    )  # fmt: skip
    rest = {key: over_seeds(runs[MODEL][key], least=0, most=1) for key in ("shared", "own")}
    return replace(judged, evidence={**judged.evidence, **as_evidence(rest)})


def _judge_law(measured: Mapping[str, Any]) -> Judged:
    laws = measured["laws"]
    off = [
        float(np.mean(np.abs(np.array(here) - np.array(there))))
        for here, there in zip(laws["measured"], laws["shared"], strict=True)
    ]
    if not np.isfinite(off).any():
        return untestable(_NO_GAPS)
    estimate = over_seeds(off, least=0)
    judged = inside(Measured(model=off, twin=[]), -1.0, _LAW, what="mean distance of law and error,")
    means = {name: np.mean(laws[name], axis=0).tolist() for name in ("measured", "shared", "own", "floor")}
    return replace(judged, measured=f"mean distance {estimate}", evidence={**judged.evidence, **means})


def _judge_more_pairs(measured: Mapping[str, Any]) -> Judged:
    laws = measured["laws"]
    ratios = [
        row[-1] / base[-1] if base[-1] > 0 else math.nan for row, base in zip(laws["more"], laws["shared"], strict=True)
    ]
    if not np.isfinite(ratios).any():
        nothing = any(base[-1] == 0 for base in laws["shared"])
        return untestable("by the law there is no error that more pairs could lower" if nothing else _NO_GAPS)
    judged = inside(Measured(model=ratios, twin=[]), -1.0, 0.5, what="error with more pairs over error,")
    rest = {name: over_seeds([row[-1] for row in laws[name]]) for name in ("shared", "floor", "own")}
    told = f"{over_seeds(ratios, least=0)} of the error; floor {rest['floor'].value:.3g}"
    return replace(judged, measured=told, evidence={**judged.evidence, **as_evidence(rest)})


def _judge_definitions(measured: Mapping[str, Any]) -> Judged:
    runs = measured["ways"]["adam"][MODEL]
    reward, policy = (runs[kind, "held_out", "late"] for kind in ("accuracy", "policy"))
    apart = [float(np.abs(np.subtract(*rows)).max()) for rows in zip(reward, policy, strict=True)]
    judged = inside(Measured(model=apart, twin=[]), -1.0, _SAME_ACCURACY, what="largest difference")
    return replace(judged, measured=f"largest difference {over_seeds(apart, least=0, most=1)}")


_TREND_RULE = (
    "Spearman's rank correlation, over K, of K with the {quantity} of the {split} pairs {phase}: holds where the "
    "upper end of its 95 % interval over seeds is below 0. Beyond the twin: the same rank correlation is lower than "
    "the twin's, the held-out accuracy is above one half and above the twin's, each by more than its 95 % interval "
    "over seeds."
)


def _trend_claim(id: str, way: str, quantity: str, split: str, phase: str, *, says: str, printed: str) -> Claim:
    word = SPLITS[split]
    kind = {"adam": "head-", "whole": "whole-" if id == "fig05" else ""}.get(way, "")
    return Claim(
        id=f"{_B}-{id}-{kind}{word}" + ("" if phase == "area" else f"-{phase}"),
        figure=f"{_B}-{id}",
        statement=says,
        said=_TREND_RULE.format(quantity=_QUANTITIES[quantity], split=word, phase=PHASES[phase]),
        judge_measured=_judge_trend(way, quantity, split, phase),
        paper_value=printed,
    )


def _trend_claims() -> list[Claim]:
    found = []
    for way, what in (("adam", "Last layer"), ("whole", "Whole model")):
        for split, word in SPLITS.items():
            for phase in ("early", "late"):
                says = f"{what}: the {word} margin is smaller for more values, {PHASES[phase]}."
                printed = "“grows more rapidly for smaller K”"
                found.append(_trend_claim("fig05", way, "margin", split, phase, says=says, printed=printed))
    for id, way, quantity, verb in (
        ("fig07", "whole", "fall", "loss falls more slowly"),
        ("fig08", "whole", "accuracy", "accuracy rises more slowly"),
        ("fig09", "other", "margin", "margin grows more slowly"), ("fig10", "other", "fall", "loss falls more slowly"),
        ("fig11", "other", "accuracy", "accuracy rises more slowly"),
    ):  # fmt: skip
        who = "Other model: the" if way == "other" else "The"
        for split, word in SPLITS.items():
            says = f"{who} {word} {verb} the more values there are."
            found.append(_trend_claim(id, way, quantity, split, "area", says=says, printed="“at a slower rate”"))
    return found


def _table_claims() -> list[Claim]:
    found = []
    for number, way in ((1, "table"), (2, "other table")):
        printed, id = VALUE_TABLES[number], f"{_B}-table{number:02d}"
        found += [
            Claim(
                id=f"{id}-error",
                figure=id,
                statement="The test error rises with the number of values.",
                said="Spearman's rank correlation, over K, of K with the test error at the end: holds where the lower "
                "end of its 95 % interval over seeds is above 0. " + BEYOND,
                judge_measured=_judge_error(way),
                paper_value=", ".join(f"{error:g}" for error in printed.test_error),
            ),
            replace(
                _trend_claim(
                    f"table{number:02d}", way, "margin", "train", "late", printed="",
                    says="The training margin at the end falls with the number of values.",
                ),
                id=f"{id}-margin",
                paper_value=", ".join(f"{margin:g}" for margin in printed.train_margin),
            ),
            Claim(
                id=f"{id}-inverse",
                figure=id,
                place="Theorem 4.2, source error X-15",
                statement="The training margin is inversely proportional to the number of values.",
                said="Exponent of K in the mean training margin at the end, by least squares of logarithms: holds "
                f"where its 95 % interval over seeds lies within {_RATE:g} of -1.",
                judge_measured=_judge_inverse(way, number),
                paper_value=f"exponent {exponent(printed.values, printed.train_margin):.2f} in the printed table",
            ),
        ]  # fmt: skip
    return found


_ALL = (
    *_trend_claims(),
    *(
        Claim(
            id=f"{_FIGURE}-company-{word}",
            figure=_FIGURE,
            statement=f"The same values have a smaller {word} margin in larger company.",
            said="Last layer, Adam, every K over the same values: Spearman's rank correlation of K with the mean "
            f"{word} margin at the end; holds where the upper end of its 95 % interval over seeds is below 0. Beyond "
            "the twin as for the figure's other claims.",
            judge_measured=_judge_company(split),
            paper_value="its sets of values for different K are drawn apart",
        )
        for split, word in SPLITS.items()
    ),
    Claim(
        id=f"{_B}-fig08-definitions",
        figure=f"{_B}-fig08",
        place="Section 5 and 2403.18742, section 5, source error X-14",
        statement="The share of margins above 0, which is accuracy here, is the share of chosen answers that the model "
        "prefers, which is accuracy in 2403.18742.",
        said="Last layer, Adam, test pairs at the end: the largest difference of the two over K; holds where the upper "
        f"end of its 95 % interval over seeds is below {_SAME_ACCURACY:g}.",
        judge_measured=_judge_definitions,
    ),
    Claim(
        id=f"{_FIGURE}-rate",
        figure=_FIGURE,
        place="Theorem 4.2",
        statement="Under gradient descent margins grow at a rate of 1/K.",
        said="Last layer, every K over the same values: exponent of K in the mean training margin at a tenth of the "
        f"steps; holds where its 95 % interval over seeds lies within {_RATE:g} of -1.",
        judge_measured=_judge_power("descent", -1 - _RATE, -1 + _RATE),
        paper_value="r_L and r_U are both ∝ 1/K",
    ),
    Claim(
        id=f"{_FIGURE}-adam",
        figure=_FIGURE,
        place="Section 5 and code, source error X-15",
        statement="Under Adam, which the experiments use, margins grow at a rate between 1/√K and 1.",
        said="The same with Adam: holds where the interval of the exponent lies between -1/2 and 0, with "
        f"{_RATE:g} to spare on both sides.",
        judge_measured=_judge_power("adam", -0.5 - _RATE, _RATE),
    ),
    Claim(
        id=f"{_FIGURE}-clusters",
        figure=_FIGURE,
        place="Theorem 4.2 and code, source error X-15",
        statement="On the paper's clusters the rate is 1/K by gradient descent, 1 by Adam where directions are axes, "
        "and 1/√K by Adam where they are not.",
        said=f"K = 1, 2, 4, 8, 16 clusters drawn as the paper has them, Q = {PER_CLUSTER}: holds where the mean "
        f"exponents over seeds are within {_RATE:g} of -1, 0 and -1/2.",
        judge_measured=_judge_clusters,
    ),
    Claim(
        id=f"{_FIGURE}-theorem",
        figure=_FIGURE,
        place="Theorem 4.2",
        statement="Every training margin lies between β²t/(8Kτ) and 5β²t/(Kτ) up to tau_1.",
        said="Last layer by gradient descent: holds where no single margin leaves the two lines at a recorded step up "
        "to tau_1, over K and seeds; not testable where a condition of the theorem fails.",
        judge_measured=_judge_theorem,
    ),
    Claim(
        id=f"{_FIGURE}-theorem-clusters",
        figure=_FIGURE,
        place="Theorem 4.2",
        statement="On the paper's clusters every training margin lies between the two lines up to tau_1.",
        said=f"Clusters with answers of their own at the limits of the conditions, Q = {PER_CLUSTER}, gradient "
        "descent: holds where no margin leaves the lines, over K, seeds and steps.",
        judge_measured=_judge_cluster_lines,
    ),
    Claim(
        id=f"{_FIGURE}-sharing",
        figure=_FIGURE,
        place="Theorem 4.2 as summarised, source error X-8",
        statement="Theorem 4.2 asks that a token is shared by at most l_b²/4 values.",
        said="Holds where Z = 1, the least there is, meets it for some l_b of at most 1/2.",
        judge_measured=_judge_sharing,
        paper_value="Z ≤ (1/4) l_b² in the summary, Z ≤ 1/(4 l_b²) in the paper",
    ),
    *_table_claims(),
    *(
        Claim(
            id=f"{_FIT}-{id}",
            figure=_FIT,
            statement=f"{who} the test error of the whole model is linear in the number of values.",
            said="R² of the straight line through the test errors at the end, with the sign of its slope: holds where "
            f"the lower end of its 95 % interval over seeds is above {_LINEAR:g}. " + BEYOND,
            judge_measured=_judge_line(way),
            paper_value=printed,
        )
        for id, way, who, printed in (
            ("linear", "whole", "First model:", "R² = 0.97 (Llama-3.1-8B)"),
            ("linear-other", "other table", "Other model:", "R² = 0.99 (Qwen3-8B)"),
        )
    ),
    Claim(
        id=f"{_FIT}-not-log",
        figure=_FIT,
        statement="A line in K fits the test error better than one in log K.",
        said="R² in K less R² in log K, each with the sign of its slope: holds where the lower end of its 95 % "
        "interval over seeds is above 0. " + BEYOND,
        judge_measured=_judge_not_log,
    ),
    Claim(
        id=f"{_FIT}-printed",
        figure=_FIT,
        place="Tables 1 and 2",
        statement="The printed tables give the printed R².",
        said="Least squares on the printed test errors: holds where R² agrees to two digits in both tables.",
        judge_measured=_judge_printed,
        paper_value="0.95 and 0.99",
    ),
    Claim(
        id=f"{_FIT}-printed-log",
        figure=_FIT,
        place="Tables 1 and 2",
        statement="In the printed tables the test error goes with K rather than with log K.",
        said="Holds where the line in K has a larger R² than the line in log K in both tables.",
        judge_measured=_judge_printed_log,
        paper_value="a linear fit is all that is reported",
    ),
    Claim(
        id=f"{_FIT}-shared",
        figure=_FIT,
        place="Section 5, THEORY 3.6",
        statement="Part of the test error of many values comes from sharing one Yes and one No.",
        said="Last layer by gradient descent, the same values: test error of all together at the end, less that of "
        "each with answers of its own at the same scaled time (which is that of each alone, K times earlier); holds "
        "where the lower end of its 95 % interval over seeds is above 0. " + BEYOND,
        judge_measured=_judge_shared,
    ),
    Claim(
        id=f"{_FIT}-law",
        figure=_FIT,
        place="Section 5, THEORY 3.6",
        statement="The error law of the paper's clusters with shared answers gives the test error of these values.",
        said="Law at the measured gap, spread, width and pairs, against the test error at a tenth of the steps by "
        "gradient descent, mean distance over K: holds where the upper end of its 95 % interval over seeds is below "
        f"{_LAW:g}.",
        judge_measured=_judge_law,
    ),
    Claim(
        id=f"{_FIT}-more-pairs",
        figure=_FIT,
        place="Theorem 4.3, THEORY 3.6",
        statement="More pairs per value bring the test error of values with shared answers down to nothing.",
        said=f"Error law at the measured geometry of the largest K: error with {MORE} times the pairs over that with "
        "the present ones; holds where the upper end of its 95 % interval over seeds is below 1/2.",
        judge_measured=_judge_more_pairs,
        paper_value="2KQ²exp(-Q/45) goes to 0",
    ),
)

_PLACES = [spec.id for spec in figures_of("value-scaling")]
CLAIMS = tuple(sorted(_ALL, key=lambda claim: _PLACES.index(claim.figure)))
"""In the order of the figures."""
