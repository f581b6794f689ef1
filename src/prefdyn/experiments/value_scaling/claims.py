"""What is judged, and by which rules; none of them knows a preset, a model or data."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from prefdyn.experiments.catalogue import figures_of
from prefdyn.experiments.claims import SPLIT_WORDS, Claim, Statistic, distance, line, power, rank, single, unbounded
from prefdyn.experiments.clusters import PER_CLUSTER
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.published import VALUE_TABLES
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.shared_rules import Judged
from prefdyn.experiments.statistics import exponent, straight_line
from prefdyn.experiments.value_scaling.measures import LAWS, MORE, MORE_PAIRS, PREDICTED, ring_of

_B = "2408.03459"
_FIGURE, _FIT = f"{_B}-fig05", f"{_B}-fit01"
_LINEAR = 0.9
"""R² from which on the line counts as a fit; printed are 0.95 to 0.99."""
_RATE = 0.1
"""How far an exponent may be from the one that theory gives."""
_LAW = 0.05
"""How far the law may be from the error measured, mean over K."""
_SAME_ACCURACY = 0.01
"""Difference of two accuracies up to which they count as one number."""


# what fits no row ----------------------------------------------------------------------------------------------------


def _judge_cluster_lines(_: Claim, rows: Rows) -> Judged:
    low, high = rows.facts["clusters"]["lines"]
    return Judged(
        holds=low >= 1 and high >= 1,
        measured=f"smallest margin {low:.2f} times the lower line, upper line {high:.2f} times the largest",
        because="over all pairs, numbers of values, seeds and steps up to tau_1",
        evidence={"margin_over_lower_line": low, "upper_line_over_margin": high},
    )


def _judge_theorem(_: Claim, rows: Rows) -> Judged:
    found = rows.facts["theorem"]
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
        because = "; ".join(found["failing"]) or "values cannot be seen as clusters"
        why = f"its conditions fail here, so it says nothing: {because}"
        return Judged(holds=None, measured=told, because=why, evidence=evidence)
    if not known:
        return Judged(holds=None, measured=told, because="its time is over before the first step", evidence=evidence)
    over = "over all pairs, K, seeds and steps up to tau_1"
    return Judged(holds=min(known) >= 1, measured=told, because=over, evidence=evidence)


def _judge_sharing(*_: Any) -> Judged:
    largest = 0.5**2 / 4
    return Judged(
        holds=largest >= 1,
        measured=f"at most {largest:g} for l_b up to 1/2, and Z is 1 or more",
        because="no number of values meets it; the paper and its proof have Z ≤ 1/(4 l_b²), which is 1 to 4",
        evidence={"largest_z": largest, "right_form": [1 / (4 * 0.5**2), 1 / (4 * 0.25**2)]},
    )


def _judge_printed(*_: Any) -> Judged:
    found = {number: straight_line(table.values, table.test_error)[2] for number, table in VALUE_TABLES.items()}
    return Judged(
        holds=all(round(found[number], 2) == table.r_squared for number, table in VALUE_TABLES.items()),
        measured="; ".join(f"Table {number}: {share:.4f}" for number, share in found.items()),
        because="least squares on the printed errors, to two digits",
        evidence={f"table_{number}": share for number, share in found.items()},
    )


def _judge_printed_log(*_: Any) -> Judged:
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


# rows ----------------------------------------------------------------------------------------------------------------


def _row(id: str, says: str, statistic: Statistic | None = None, /, **rest: Any) -> Claim:
    """A claim about numbers of values; its figure is the head of its id unless told."""
    figure = "-".join(id.split("-")[:1])
    return Claim(
        **{
            "id": f"{_B}-{id}", "figure": f"{_B}-{figure}", "statement": says, "statistic": statistic,
            "unit": "run" if statistic is not None and statistic.kind == "whole" else "number of values", **rest,
        }
    )  # fmt: skip


def _trend(id: str, says: str, way: str, quantity: str, split: str, step: str, **rest: Any) -> Claim:
    """That something falls with the number of values."""
    beside: dict[str, Any] = {"as the published code does": {"figure": f"{way}, code"}}
    if way == "adam":
        beside["gradient descent"] = {"figure": "descent"}
    if quantity == "reward accuracy":
        beside["policy accuracy in place of reward accuracy"] = {"statistic": rank("K", "policy accuracy")}
    where = {"figure": way, "split": split, "step": step}
    return _row(id, says, rank("K", quantity), test="below", select=where, beside=beside, short=_WITH_K, **rest)


_WITH_K = "rank correlation with K"
_RING = "Last layer, every K over the same values"
_SHOWN = (
    ("fig07", "whole", "fall", "loss falls more slowly"),
    ("fig08", "whole", "reward accuracy", "accuracy rises more slowly"),
    ("fig09", "other", "margin", "margin grows more slowly"),
    ("fig10", "other", "fall", "loss falls more slowly"),
    ("fig11", "other", "reward accuracy", "accuracy rises more slowly"),
)


def _trends() -> Iterator[Claim]:
    for way, what, kind in (("adam", "Last layer", "head"), ("whole", "Whole model", "whole")):
        for split, word in SPLIT_WORDS.items():
            for phase in ("early", "late"):
                says = f"{what}: the {word} margin is smaller for more values, {PHASES[phase]}."
                id, printed = f"fig05-{kind}-{word}-{phase}", "“grows more rapidly for smaller K”"
                yield _trend(id, says, way, "margin", split, phase, paper_value=printed)
    for figure, way, quantity, verb in _SHOWN:
        who = "Other model: the" if way == "other" else "The"
        for split, word in SPLIT_WORDS.items():
            says = f"{who} {word} {verb} the more values there are."
            yield _trend(f"{figure}-{word}", says, way, quantity, split, "area", paper_value="“at a slower rate”")


def _tables() -> Iterator[Claim]:
    for (number, printed), way in zip(VALUE_TABLES.items(), ("table", "other table"), strict=True):
        id, there = f"table{number:02d}", exponent(printed.values, printed.train_margin)
        says = "The test error rises with the number of values."
        errors = ", ".join(f"{error:g}" for error in printed.test_error)
        yield _row(f"{id}-error", says, rank("K", "error"), select={"figure": way}, short=_WITH_K, paper_value=errors)
        says = "The training margin at the end falls with the number of values."
        margins = ", ".join(f"{margin:g}" for margin in printed.train_margin)
        yield _trend(f"{id}-margin", says, way, "margin", "train", "late", paper_value=margins)
        yield _row(
            f"{id}-inverse",
            "The training margin is inversely proportional to the number of values.",
            power("K", "margin"),
            test="inside",
            threshold=(-1 - _RATE, -1 + _RATE),
            twin="",
            place="Theorem 4.2, source error X-15",
            select={"figure": way, "split": "train", "step": "late"},
            printed={"printed_exponent": there},
            paper_value=f"exponent {there:.2f} in the printed table",
        )


def _rate(id: str, says: str, way: str, low: float, high: float, **rest: Any) -> Claim:
    where = {"figure": ring_of(way), "split": "train", "step": "early"}
    ends = (low - _RATE, high + _RATE)
    return _row(
        id, says, power("K", "margin"), test="inside", threshold=ends, twin="", select=where, setting=_RING, **rest
    )


_LINE = line("K", "error")
_ALL = (
    *_trends(),
    *(
        _row(
            f"fig05-company-{word}",
            f"The same values have a smaller {word} margin in larger company.",
            rank("K", "margin"),
            test="below",
            setting=f"{_RING}, Adam",
            select={"figure": ring_of("adam"), "split": split, "step": "late"},
            short=_WITH_K,
            beside={"gradient descent": {"figure": ring_of("descent")}},
            paper_value="its sets of values for different K are drawn apart",
        )
        for split, word in SPLIT_WORDS.items()
    ),
    _row(
        "fig08-definitions",
        "The share of margins above 0, which is accuracy here, is the share of chosen answers that the model prefers, "
        "which is accuracy in 2403.18742.",
        distance("reward accuracy", "policy accuracy", largest=True),
        test="under",
        threshold=_SAME_ACCURACY,
        twin="",
        setting="Last layer, Adam",
        select={"figure": "adam", "split": "held_out", "step": "late"},
        told="largest difference {0}",
        place="Section 5 and 2403.18742, section 5, source error X-14",
    ),
    _rate(
        "fig05-rate",
        "Under gradient descent margins grow at a rate of 1/K.",
        "descent",
        -1,
        -1,
        place="Theorem 4.2",
        paper_value="r_L and r_U are both ∝ 1/K",
    ),
    _rate(
        "fig05-adam",
        "Under Adam, which the experiments use, margins grow at a rate between 1/√K and 1.",
        "adam",
        -0.5,
        0,
        place="Section 5 and code, source error X-15",
        note=f"That is -1/2 to 0, with {_RATE:g} to spare on both sides.",
    ),
    _row(
        "fig05-theorem",
        "Every training margin lies between β²t/(8Kτ) and 5β²t/(Kτ) up to tau_1.",
        place="Theorem 4.2",
        said="Last layer by gradient descent: holds where no single margin leaves the two lines at a recorded step up "
        "to tau_1, over K and seeds; not testable where a condition of the theorem fails.",
        twin="",
        code=_judge_theorem,
    ),
    _row(
        "fig05-theorem-clusters",
        "On the paper's clusters every training margin lies between the two lines up to tau_1.",
        place="Theorem 4.2",
        said=f"Clusters with answers of their own at the limits of the conditions, Q = {PER_CLUSTER}, gradient "
        "descent: holds where no margin leaves the lines, over K, seeds and steps.",
        twin="",
        code=_judge_cluster_lines,
        kind="algebra",
    ),
    _row(
        "fig05-sharing",
        "Theorem 4.2 asks that a token is shared by at most l_b²/4 values.",
        place="Theorem 4.2 as summarised, source error X-8",
        said="Holds where Z = 1, the least there is, meets it for some l_b of at most 1/2.",
        twin="",
        code=_judge_sharing,
        kind="algebra",
        paper_value="Z ≤ (1/4) l_b² in the summary, Z ≤ 1/(4 l_b²) in the paper",
    ),
    *_tables(),
    *(
        _row(
            f"fit01-{id}",
            f"{who} the test error of the whole model is linear in the number of values.",
            _LINE,
            threshold=_LINEAR,
            select={"figure": way},
            facts=("slope", "intercept", "r_squared_of_the_mean"),
            paper_value=printed,
        )
        for id, way, who, printed in (
            ("linear", "whole", "First model:", "R² = 0.97 (Llama-3.1-8B)"),
            ("linear-other", "other table", "Other model:", "R² = 0.99 (Qwen3-8B)"),
        )
    ),
    _row(
        "fit01-not-log",
        "A line in K fits the test error better than one in log K.",
        unbounded(_LINE),
        less={"statistic": line("K", "error", log=True)},
        select={"figure": "whole"},
        short="R² in K less that in log K",
    ),
    _row(
        "fit01-printed",
        "The printed tables give the printed R².",
        place="Tables 1 and 2",
        said="Least squares on the printed test errors: holds where R² agrees to two digits in both tables.",
        twin="",
        code=_judge_printed,
        kind="algebra",
        paper_value="0.95 and 0.99",
    ),
    _row(
        "fit01-printed-log",
        "In the printed tables the test error goes with K rather than with log K.",
        place="Tables 1 and 2",
        said="Holds where the line in K has a larger R² than the line in log K in both tables.",
        twin="",
        code=_judge_printed_log,
        kind="algebra",
        paper_value="a linear fit is all that is reported",
    ),
    _row(
        "fit01-shared",
        "Part of the test error of many values comes from sharing one Yes and one No.",
        single("shared", least=0, most=1),
        less={"statistic": single("own", least=0, most=1)},
        select={"figure": ring_of("descent")},
        setting="Last layer by gradient descent, the same values",
        short="test error together less alone",
        note="Answers of its own at the same scaled time are those of each value alone, K times earlier.",
        beside={name: {"statistic": single(name, least=0, most=1)} for name in ("shared", "own")},
        place="Section 5, THEORY 3.6",
        kind="ours",
    ),
    _row(
        "fit01-law",
        "The error law of the paper's clusters with shared answers gives the test error of these values.",
        distance("measured", "shared", short="mean distance of law and error,"),
        test="under",
        threshold=_LAW,
        twin="",
        setting="Law at the measured gap, spread, width and pairs, against the test error at a tenth of the steps by "
        "gradient descent",
        select={"figure": LAWS},
        told="mean distance {0}",
        facts=PREDICTED,
        place="Section 5, THEORY 3.6",
        kind="ours",
    ),
    _row(
        "fit01-more-pairs",
        "More pairs per value bring the test error of values with shared answers down to nothing.",
        single("left", short="error with more pairs over error,", least=0),
        test="under",
        threshold=0.5,
        twin="",
        setting=f"Error law at the measured geometry of the largest K, with {MORE} times the pairs",
        select={"figure": MORE_PAIRS},
        told="{0} of the error; floor {floor_told:.3g}",
        beside={name: {"statistic": single(name)} for name in ("shared", "floor", "own")},
        place="Theorem 4.3, THEORY 3.6",
        paper_value="2KQ²exp(-Q/45) goes to 0",
    ),
)

_PLACES = [spec.id for spec in figures_of("value-scaling")]
CLAIMS = tuple(sorted(_ALL, key=lambda claim: _PLACES.index(claim.figure)))
"""In the order of the figures."""
