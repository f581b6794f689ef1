"""Claims as data: what recipes measure is tidy rows, and a claim is a row that says what is made of them.

A claim selects rows, makes one number of each seed of them by a statistic, and puts those numbers to a test against a
threshold, beside the untrained twin or not. Its rule in words, its verdict and its place on the pages are all made from
these fields, so that words and deeds cannot differ. What does not fit has `code`, with words of its own.

| field | says |
|---|---|
| `select` | which rows: figure, split, step, group |
| `statistic` | what is made of the rows of one seed: a number of the units |
| `less` | the same on other rows, or another statistic, taken off |
| `test`, `threshold` | what the numbers of all seeds must do |
| `twin` | what the untrained twin is held against |
| `kind`, `unit` | whose claim it is, and what its statistic is taken over |
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from prefdyn.dynamics.order import spearman
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.chance import by_repetition
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.shared_rules import (
    BEYOND,
    BEYOND_BELOW,
    BEYOND_TWIN,
    Judged,
    WithTwin,
    above,
    as_evidence,
    below,
    inside,
    untestable,
)
from prefdyn.experiments.statistics import exponent, over_seeds, straight_line
from prefdyn.experiments.tested import FEWEST, beyond_twin, chance_of, learned_more, over_units, passes, places

# statistics ----------------------------------------------------------------------------------------------------------

QUANTITIES: dict[str, str] = {
    "K": "K",
    "DPO's area": "that under DPO",
    "area": "the area under the training margin",
    "accuracy": "the held-out accuracy",
    "ahead": "how much further the loss has fallen {step} from the aligned model than from the base",
    "ahead on states": "how much further its loss has fallen over the whole run on the aligned states",
    "distance ratio": "distinguishability of the states of all pairs after alignment over that before",
    "distinguishability": "distinguishability",
    "circle": "x1² + x2² at the end over that at the start",
    "derivatives": "relative difference of the derivatives from central differences at random points",
    "ratio": "relative difference of the ratio of the derivatives from x2/x1 at random points",
    "ratios": "the fall of x2 less the rise of x1",
    "probabilities": "the fall of the probability of the rejected side less the rise of that of the chosen side",
    "logs": "the fall of the log-probability of the rejected side less the rise of that of the chosen side",
    "drift": "the norm of the weight change at the end",
    "end error": "the test error at the end",
    "end margin": "the training margin at the end",
    "equation 24": "difference of the change of the log-ratio from this, as a share of the largest value",
    "error": "the test error at the end",
    "fall": "the fall of the {split} loss {step}",
    "gap": "distinguishability (of the pairs trained on)",
    "first step": "difference of the margins after the first step, or of the log-ratios, from these, as a share of "
    "the largest",
    "first step gap": "the gap of the margins after the first step",
    "lead": "the lead of the higher priority {step}",
    "level gap": "the gap of the two priority levels without sign",
    "priority gap": "the priority gap",
    "left": "what is left of the error",
    "likeness": "mean |cosine| between rows of different personas over the mean between different rows of one",
    "likeness, centred": "after the mean of all rows is removed, mean |cosine| between rows of different personas over "
    "the mean between different rows of one",
    "margin": "the mean {split} margin {step}",
    "crowded": "the number of K at which the law asks for fewer pairs than K directions need",
    "early error": "the held-out error of the early head",
    "failing": "number of conditions that fail in some seed",
    "failure": "the stated probability of failure",
    "law": "what the law tells of it",
    "law in few": "what the law tells of it in as many directions as the effective rank",
    "straight": "R² of the line of the pairs on log K",
    "ten": "the pairs that the bound asks for",
    "times": "the pairs that the bound asks for with a hundred values over those with ten",
    "as printed": "difference of the printed form from them, as a share of the largest slope",
    "D of the draw": "distinguishability of the draw",
    "divergence": "the KL divergence",
    "failing cases": "the number of behaviours and seeds in which some condition that can be measured fails",
    "fall of the draw": "the fall of the {split} loss at a tenth of the steps",
    "fall there": "the area above the training loss at the published setting",
    "likeness of draws": "Spearman's rank correlation, over behaviours, of the area above the training loss with that "
    "of other seeds, mean over these",
    "margin asked for": "the least margin that the theorem asks for over the longest that its conditions allow",
    "over the chord": "nats by which the loss half-way is above the mean of the ends",
    "room": "the cosine less what is promised, the least over the steps",
    "share over what is allowed": "the exact one-sided 95 % limit of the share of samples above the bound at the first "
    "step, less the chance that is stated or allowed",
    "tail": "alpha (Delta + v − 1/4), which the same argument gives, with measured Delta, the least v and alpha = 1",
    "unit": "the exponent of the mean's tail with all states in another unit, over that without",
    "own": "that of each with answers of its own at the same scaled time",
    "policy accuracy": "the share of chosen answers that the model prefers, {split} pairs {step}",
    "reward accuracy": "the reward accuracy of the {split} pairs {step}",
    "measured": "the error measured",
    "shared": "the test error with shared answers",
    "similarity": "distance of the two areas above the loss curves over their mean",
    "straightness": "growth of the weight change per step over the whole run, over that of its first tenth",
    "undone": "steps until the difference of the log-probabilities of truly chosen and truly rejected answers, over "
    "the training pairs, is down to the base model's and a tenth of what alignment added, over the steps of the "
    "alignment",
    "update": "the first full-batch update",
    "z": "the z of distinguishability among random relabellings",
}
"""Quantity → what it is called in a rule, where its name does not say it."""
SPLIT_WORDS = {"train": "training", "held_out": "test"}
PAIR_WORDS = {"all": "all pairs", "train": "the pairs trained on", "held_out": "held-out pairs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """What is made of the rows of one seed."""

    says: str
    """In a rule; {0} and {1} stand for its quantities, {units} and {pairs} for what it is taken over."""
    short: str
    """In what was measured."""
    quantities: tuple[str, ...]
    of: Callable[..., float]
    """From one list per quantity, over the units that have all of them."""
    least: float = -math.inf
    """Smallest value that it can have."""
    most: float = math.inf
    kind: Literal["order", "mean", "fit", "whole"] = "whole"
    """How it is tested over units: by their orders, by their signs, by leaving each out, or not."""
    of_one: Callable[[float], float] = float
    """Of a mean: what a unit adds."""
    log: bool = False
    """Whether its rows are logarithms of what it tells."""

    def scaled(self, threshold: float) -> float:
        """On the scale of the rows."""
        return math.log(threshold) if self.log else threshold

    def __call__(self, rows: Rows, select: Mapping[str, str], source: str) -> list[float]:
        """One number per seed."""
        return list(self.by_seed(rows, select, source).values())

    def by_seed(self, rows: Rows, select: Mapping[str, str], source: str) -> dict[int, float]:
        """Seed → number."""
        picked = [rows.pick(quantity, select, source) for quantity in self.quantities]
        found = {}
        for seed in picked[0]:
            groups = [group for group in picked[0][seed] if all(group in one.get(seed, {}) for one in picked)]
            if groups:
                found[seed] = float(self.of(*([one[seed][group] for group in groups] for one in picked)))
        return found

    def words(self, select: Mapping[str, str], units: str) -> str:
        """As a rule says it of some rows."""
        split, step = select.get("split", ""), select.get("step", "")
        filled = {"split": SPLIT_WORDS.get(split, split), "step": PHASES.get(step, step)}
        told = [QUANTITIES.get(quantity, quantity).format(**filled) for quantity in self.quantities]
        pairs = PAIR_WORDS.get(split, split)
        return self.says.format(*told, units=units, pairs=pairs) + (f", {select['group']}" if "group" in select else "")


def rank(first: str, second: str) -> Statistic:
    """How one quantity follows another, over the units.

    Example:
        >>> rank("distinguishability", "fall").of([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
        0.5
    """
    says = "Spearman's rank correlation, over {units}, of {0} with {1}"
    return Statistic(
        says=says, short="rank correlation", quantities=(first, second), of=spearman, least=-1, most=1, kind="order"
    )


def mean(quantity: str, *, short: str = "", least: float = -math.inf, most: float = math.inf) -> Statistic:
    """Mean over the units; NaN where one of them is.

    Example:
        >>> mean("fall").of([1.0, 2.0])
        1.5
    """
    return Statistic(
        says="{0}, mean over {units}", short=short or quantity, quantities=(quantity,), of=_mean, kind="mean",
        least=least, most=most,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def single(quantity: str, *, short: str = "", least: float = -math.inf, most: float = math.inf) -> Statistic:
    """The one number that a seed has."""
    return replace(mean(quantity, short=short, least=least, most=most), says="{0}", kind="whole")


def greatest(quantity: str, *, short: str = "") -> Statistic:
    """The largest of the units; NaN where one of them is.

    Example:
        >>> greatest("fall").of([1.0, 2.0])
        2.0
    """
    return Statistic(
        says="the largest {0}, over {units}",
        short=short or quantity,
        quantities=(quantity,),
        of=lambda values: float(np.max(values)),
    )


def every(quantity: str) -> Statistic:
    """Each unit's own number, for a test that asks every one; their mean, where one number is asked for."""
    return replace(mean(quantity), says="{0}, of each of the {units}", kind="whole")


def multiple(first: str, second: str) -> Statistic:
    """R² of the best multiple of the first quantity for the second; below 0 where the mean of it does better.

    Example:
        >>> multiple("distinguishability", "drift").of([1.0, 2.0], [2.0, 4.0])
        1.0
    """
    return Statistic(
        says="R² of the best multiple of {0} for {1}, over {units}",
        short="R²",
        quantities=(first, second),
        of=_explained,
        most=1,
        kind="fit",
    )


def _explained(first: Sequence[float], second: Sequence[float]) -> float:
    y = np.array(second)
    return 1 - float(np.sum((y - slope(first, second) * np.array(first)) ** 2) / np.sum((y - y.mean()) ** 2))


def slope(first: Sequence[float], second: Sequence[float]) -> float:
    """Of the straight line through the origin that is nearest to a second quantity.

    Example:
        >>> slope([1.0, 2.0], [2.0, 4.0])
        2.0
    """
    x, y = np.array(first), np.array(second)
    return float(x @ y / (x @ x))


def power(first: str, second: str) -> Statistic:
    """Exponent of the first quantity in the second.

    Example:
        >>> round(power("K", "margin").of([1.0, 2.0, 4.0], [8.0, 4.0, 2.0]), 12)
        -1.0
    """
    says = "exponent of {0} in {1}, by least squares of logarithms"
    return Statistic(says=says, short="exponent of {units}", quantities=(first, second), of=exponent, kind="fit")


def line(first: str, second: str, *, log: bool = False) -> Statistic:
    """R² of the straight line of the second quantity on the first, or on its logarithm, with the sign of its slope.

    Example:
        >>> round(line("K", "error").of([1.0, 2.0, 3.0], [0.3, 0.2, 0.1]), 12)
        -1.0
    """

    def of(x: Sequence[float], y: Sequence[float]) -> float:
        slope, _, share = straight_line(np.log(x).tolist() if log else x, y)
        return math.copysign(share, slope)

    return Statistic(
        says=f"R² of the straight line of {{1}} on {'log ' if log else ''}{{0}}, with the sign of its slope",
        short="R² with the sign of the slope",
        quantities=(first, second),
        of=of,
        least=-1,
        most=1,
        kind="fit",
    )


def distance(first: str, second: str, *, largest: bool = False, short: str = "") -> Statistic:
    """Difference of two quantities without sign: its mean over the units, or the largest.

    Example:
        >>> distance("a", "b").of([1.0, 2.0], [1.0, 4.0]), distance("a", "b", largest=True).of([1.0, 2.0], [1.0, 4.0])
        (1.0, 2.0)
    """
    merge, word = (np.max, "largest") if largest else (np.mean, "mean")
    return Statistic(
        says=f"{word} difference without sign, over {{units}}, of {{0}} and {{1}}",
        short=short or f"{word} difference",
        quantities=(first, second),
        of=lambda one, other: float(merge(np.abs(np.array(one) - np.array(other)))),
        least=0,
    )


def through_origin(first: str, second: str) -> Statistic:
    """Slope of the best multiple, as in `multiple`."""
    return replace(multiple(first, second), says="slope of {1} on {0}", short="slope", of=slope, most=math.inf)


def unbounded(statistic: Statistic) -> Statistic:
    """The same, its interval not cut off."""
    return replace(statistic, least=-math.inf, most=math.inf)


def share_above(quantity: str) -> Statistic:
    """Share of the units whose number is above 0.

    Example:
        >>> share_above("lead").of([1.0, -1.0, 2.0, 0.0])
        0.5
    """
    return Statistic(
        says="share of {units} with {0} above 0",
        short="share of {units}",
        quantities=(quantity,),
        of=lambda values: float(np.mean([value > 0 for value in values])),
        least=0,
        most=1,
        kind="mean",
        of_one=lambda value: float(value > 0),
    )


# claims --------------------------------------------------------------------------------------------------------------

Kind = Literal["algebra", "replication", "ours"]
"""No model or data can change it; a finding of the papers; a finding that the papers do not tell of."""
KINDS: Mapping[str, str] = {
    "replication": "what the papers find",
    "ours": "what they do not tell of",
    "algebra": "what no model or data can change",
}
Unit = Literal["behaviour", "couple", "value", "number of values", "setting", "model", "run"]


class UnitWords(NamedTuple):
    """How a unit is spoken of."""

    many: str
    fewest: int = 0
    """Under which nothing is judged over them, whatever the test."""


UNITS: Mapping[str, UnitWords] = {
    "behaviour": UnitWords("behaviours"),
    "couple": UnitWords("couples", 10),
    "value": UnitWords("values"),
    "number of values": UnitWords("K"),
    "setting": UnitWords("settings"),
    "model": UnitWords("models"),
    "run": UnitWords("runs"),
}
_FEW: Mapping[str, str] = {
    "order": "an order of {} takes {}, and there are {}",
    "mean": "a mean over {} takes {}, and there are {}",
    "fit": "a trend over {} takes {}, and there are {}",
}

Test = Literal["above", "below", "under", "inside", "at most", "at least", "between"]
"""All but the first two have no twin; "under" is "below" for a distance. The last three ask every number."""
TEST_WORDS: Mapping[str, str] = {
    "under": "holds where the upper end of its 95 % interval over seeds is below {0:g}",
    "above": "holds where the lower end of its 95 % interval over seeds is above {0:g}",
    "below": "holds where the upper end of its 95 % interval over seeds is below {0:g}",
    "inside": "holds where its 95 % interval over seeds lies between {0:g} and {1:g}",
    "at most": "holds where it is at most {0:g} in every seed",
    "at least": "holds where it is at least {0:g} in every seed",
    "between": "holds where it is {0:g} to {1:g} in every seed",
}
UNIT_WORDS: Mapping[str, str] = {
    "order, above": "holds where at most 5 % of all orders of the {units} give a mean over seeds as large",
    "order, below": "holds where at most 5 % of all orders of the {units} give a mean over seeds as small",
    "mean, above": "holds where at most 5 % of all signs that the {units} could have give a mean so far above {0:g}",
    "mean, below": "holds where at most 5 % of all signs that the {units} could have give a mean so far below {0:g}",
    "fit, above": "holds where the lower end of its 90 % jackknife interval over the {units} is above {0:g}",
    "fit, below": "holds where the upper end of its 90 % jackknife interval over the {units} is below {0:g}",
    "fit, inside": "holds where its 90 % jackknife interval over the {units} lies between {0:g} and {1:g}",
}
"""The same of a test over units; repetitions lie inside."""
_BESIDES = ", and the lower end of its 95 % interval over seeds is above {0:g}"
_LASTS = ", and at most 5 % of all orders of the {units} give so large a correlation to begin with"
BEYOND_UNITS: Mapping[str, str] = {
    "statistic": " Beyond the twin: the difference from the twin's statistic passes a test of the same level.",
    "learned": " Beyond the twin: the difference from the twin's statistic, the held-out accuracy less one half, and "
    "its difference from the twin's each pass a test of the same level.",
}
FOLDS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "least": ("the least over {}", np.min), "mean": ("mean over {}", np.mean)
}  # fmt: skip
"""What is made of the numbers of several figures: in a rule, and deed."""
Twin = Literal["", "statistic", "learned"]
"""Whether the untrained twin is held against: not, by the statistic alone, or by what was learned as well."""
TWIN_WORDS: Mapping[tuple[str, bool], str] = {
    ("statistic", False): f" {BEYOND_TWIN}", ("statistic", True): f" {BEYOND_TWIN}",
    ("learned", False): f" {BEYOND}", ("learned", True): f" {BEYOND_BELOW}",
}  # fmt: skip
"""By what the twin is held against, and whether the statistic must be smaller than the twin's."""
Code = Callable[["Claim", Rows], Judged]
"""From a claim and what its recipe measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One thing that is said, with the rule by which it is judged. The rule knows no preset, model or data."""

    id: str
    figure: str
    """Id of the figure under which it stands; its paper and place are those of the figure unless told."""
    statement: str
    paper_value: str | None = None
    """The paper's number, as printed; None where it has none."""
    place: str = ""
    """Where the paper says it, where that is not the figure."""
    kind: Kind = "replication"
    unit: Unit = "behaviour"
    """What its statistic is taken over."""

    statistic: Statistic | None = None
    select: Mapping[str, str] = field(default_factory=dict)
    """Columns of the rows; the figure is the claim's own unless told."""
    across: str = ""
    """Its statistic is taken on every figure of the rows whose name begins so, and folded."""
    fold: tuple[str, str] = ("least", "settings")
    """How, by a name of `FOLDS`, and what those figures are."""
    less: Mapping[str, Any] = field(default_factory=dict)
    """Columns, or `statistic`, that differ in what is taken off; what it `says` in a rule, where they do not tell."""
    test: Test = "above"
    threshold: float | tuple[float, float] = 0.0
    given: bool = False
    """Whether a source gives the threshold."""
    twin: Twin = "learned"
    setting: str = ""
    """What was run, where the rule has to say so."""
    note: str = ""
    """What the rule says besides."""
    short: str = ""
    """Its statistic in what was measured, where that has a name of its own."""
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Evidence: label → columns, `source` or `statistic` that differ; what has no rows is left out."""
    each: str | None = None
    """Evidence: the statistic of each unit by itself, under this name of it."""
    facts: tuple[str, ...] = ()
    """Evidence: facts of the rows."""
    printed: Mapping[str, Any] = field(default_factory=dict)
    """Evidence: what follows from what is printed."""

    told: str = ""
    """What was measured, in words with a place for the number or estimate, where its name does not say it."""
    because: str = ""
    """Over what that number is."""
    evidence: str = "largest_difference"
    """What the evidence calls it."""
    unknown: str = ""
    """Why there may be no such number."""
    sources: tuple[str, ...] = (MODEL,)
    """Whose numbers must be at most a threshold."""

    said: str = ""
    """The rule in words, of a claim without a statistic; {0} stands for the threshold."""
    code: Code | None = None
    """What judges it, where its fields do not say it all."""

    @property
    def over(self) -> Unit:
        """What its statistic is taken over: behaviours, where their order is folded over settings or models."""
        return "behaviour" if self.across else self.unit

    @property
    def paper(self) -> str:
        """Its number on arXiv."""
        return spec_of(self.figure).paper

    @property
    def where(self) -> str:
        """Place in the paper."""
        return self.place or spec_of(self.figure).where

    @property
    def chosen(self) -> dict[str, str]:
        """Which rows it takes."""
        return {"figure": self.figure, **self.select}

    @property
    def rule(self) -> str:
        """In words."""
        ends = self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)
        if self.statistic is None:
            return self.said.format(*ends)
        what = self.statistic.words(self.chosen, UNITS[self.over].many) + self._less_words()
        if self.across:
            what += f", {FOLDS[self.fold[0]][0].format(self.fold[1])}"
        what = f"{self.setting}: {what}; " if self.setting else f"{what[:1].upper()}{what[1:]}: "
        note = f" {self.note}" if self.note else ""
        if over_units(self):
            return f"{what}{self._test_over_units(ends)}.{note}{BEYOND_UNITS.get(self.twin, '')}"
        twin = TWIN_WORDS.get((self.twin, self.test == "below"), "")
        return f"{what}{TEST_WORDS[self.test].format(*ends)}.{note}{twin}"

    def _test_over_units(self, ends: Sequence[float]) -> str:
        assert self.statistic is not None
        plain = self.unit != "couple" and not self.less
        kind = self.statistic.kind if plain else "fit"
        words = UNIT_WORDS[f"{kind}, {self.test}"]
        if self.statistic.kind == "order" and any(ends):
            words += _BESIDES if plain else _LASTS
        units = "behaviours of the couples" if self.unit == "couple" else UNITS[self.over].many
        return words.format(*ends, units=units)

    def _less_words(self) -> str:
        if not self.less:
            return ""
        assert self.statistic is not None
        other = self.less.get("statistic", self.statistic)
        changed = {name: word for name, word in self.less.items() if name != "statistic"}
        if "says" in changed:
            return f", less {changed['says']}"
        if changed.keys() == {"step"}:
            return f", less that {PHASES[changed['step']]}"
        if changed.keys() == {"group"}:
            return f", less the same, {changed['group']}"
        return f", less {other.words({**self.chosen, **changed}, UNITS[self.unit].many)}"

    def judge(self, rows: Rows) -> Judged:
        """What came of it, from what its recipe measured; pure."""
        return judged(self, rows) if self.code is None else self.code(self, rows)


def judged(claim: Claim, rows: Rows) -> Judged:
    """A claim that is judged by its fields."""
    statistic = claim.statistic
    assert statistic is not None
    if (why := untold(claim, rows)) is not None:
        had = over_seeds(numbers(claim, rows, MODEL), least=statistic.least, most=statistic.most)
        if not had.seeds:
            return untestable(why, **claim.printed)
        told = claim.told.format(had, **told_of(claim, rows)) if claim.told else f"{_named(claim)} {had}"
        return untestable(why, measured=told, statistic=had.to_json(), **beside(claim, rows))
    reach = statistic.most - statistic.least
    limits = {"least": -reach, "most": reach} if claim.less else {"least": statistic.least, "most": statistic.most}
    if claim.test in ("at most", "at least", "between"):
        return _every(claim, rows)
    found = measured(claim, rows)
    if not found.model and claim.unknown:
        return untestable(claim.unknown)
    what = _named(claim)
    match claim.test:
        case "inside":
            assert isinstance(claim.threshold, tuple)
            came = inside(found, *claim.threshold, what=what)
        case "under":
            assert isinstance(claim.threshold, float | int)
            came = inside(replace(found, twin=[]), -1.0, claim.threshold, what=what)
        case "below":
            assert isinstance(claim.threshold, float | int)
            came = below(found, claim.threshold, what=what, **limits)
        case _:
            assert isinstance(claim.threshold, float | int)
            came = above(found, claim.threshold, what=what, **limits)
    came = _tested(claim, rows, found, came)
    if claim.told:
        came = replace(came, measured=claim.told.format(over_seeds(found.model, **limits), **told_of(claim, rows)))
    return replace(came, evidence={**came.evidence, **beside(claim, rows)})


def _named(claim: Claim) -> str:
    """Its statistic in what was measured."""
    assert claim.statistic is not None
    return claim.short or claim.statistic.short.format(units=UNITS[claim.unit].many)


def _tested(claim: Claim, rows: Rows, found: WithTwin, came: Judged) -> Judged:
    """The verdict over the units that a claim speaks of, or the chance that belongs to that over repetitions."""
    if came.holds is None:
        return came
    if not over_units(claim):
        return replace(came, p=_over_repetitions(claim, found.model))
    chance, units = chance_of(claim, rows), UNITS[claim.over].many
    assert claim.statistic is not None
    if claim.statistic.kind == "order" and claim.threshold and not claim.less:
        seeds = _over_repetitions(claim, found.model) or 0.0  # of one end of an interval of 95 %, beside one of 90 %
        chance = chance._replace(p=max(chance.p, min(1.0, 2 * seeds)))
    if math.isnan(chance.p):
        return untestable(f"{units} are too few or too alike for a test", measured=came.measured, **came.evidence)
    told = f"p {chance.p:.2g} over {chance.units} {'behaviours' if claim.unit == 'couple' else units}"
    control = came.control
    if control is not None and claim.twin:
        parts = {"the statistic": beyond_twin(claim, rows)}
        if claim.twin == "learned":
            half, more = learned_more(claim, rows)
            parts |= {"the held-out accuracy above one half": half, "the held-out accuracy above the twin's": more}
        because = ", ".join(f"{name}: p {p:.2g}" for name, p in parts.items())
        control = replace(control, beyond=all(passes(p) for p in parts.values()), because=because)
    return replace(came, holds=passes(chance.p), because=f"{told}; 0.05 is asked for", p=chance.p, control=control)


def _over_repetitions(claim: Claim, values: Sequence[float]) -> float | None:
    """One-sided; an interval of 95 % has the verdict, so it holds from 0.025 down."""
    ends = claim.threshold if isinstance(claim.threshold, tuple) else (claim.threshold,)
    sides = {"above": (1,), "below": (-1,), "under": (-1,), "inside": (1, -1)}[claim.test]
    found = [by_repetition([s * (value - end) for value in values]).p for s, end in zip(sides, ends, strict=True)]
    return None if any(math.isnan(p) for p in found) else max(found)


def at_other_thresholds(claim: Claim, rows: Rows) -> list[dict[str, Any]]:
    """What would come of a claim at half and at twice a threshold that we chose: none where 0, 1 or the paper gives it.

    Of a share or correlation near 1 its distance from 1 is halved and doubled; of two ends, their distance.
    """
    statistic = claim.statistic
    if claim.code or statistic is None or claim.test not in ("above", "below", "under", "inside") or claim.given:
        return []
    others: list[float | tuple[float, float]]
    if isinstance(claim.threshold, tuple):
        middle, half = sum(claim.threshold) / 2, (claim.threshold[1] - claim.threshold[0]) / 2
        others = [(middle - times * half, middle + times * half) for times in (0.5, 2.0)]
    elif claim.threshold in (0, 1):
        return []
    elif statistic.most == 1 and claim.threshold > 0.5:
        others = [1 - times * (1 - claim.threshold) for times in (0.5, 2.0)]
    else:
        others = [times * claim.threshold for times in (0.5, 2.0)]
    return [{"threshold": other, "holds": replace(claim, threshold=other).judge(rows).holds} for other in others]


def told_of(claim: Claim, rows: Rows) -> Mapping[str, Any]:
    """Facts that a claim's sentences have places for."""
    return rows.facts.get(claim.chosen["figure"], {})


def _every(claim: Claim, rows: Rows) -> Judged:
    assert claim.statistic is not None
    (quantity,) = claim.statistic.quantities
    found = [number for source in claim.sources for number in rows.values(quantity, claim.chosen, source)]
    if not found:
        return untestable(claim.unknown)
    ends = claim.threshold if isinstance(claim.threshold, tuple) else (claim.threshold,)
    least, most = float(np.min(found)), float(np.max(found))
    worst = least if claim.test == "at least" else most
    told = claim.told.format(worst, least, **told_of(claim, rows))
    if math.isnan(worst):
        return untestable(claim.unknown, measured=told)
    return Judged(
        holds=(claim.test == "at most" or least >= ends[0]) and (claim.test == "at least" or most <= ends[-1]),
        measured=told,
        because=claim.because.format(*ends, **told_of(claim, rows)),
        evidence={claim.evidence: worst, **beside(claim, rows)},
    )


def untold(claim: Claim, rows: Rows) -> str | None:
    """Why nothing can be said of a claim here; None where it can."""
    assert claim.statistic is not None
    if (why := rows.lacking.get(claim.chosen["figure"])) is not None:
        return why
    if claim.unit == "couple" and claim.statistic.kind == "whole" and claim.test != "at most":
        every = {name: column for name, column in claim.chosen.items() if name != "group"}
        picked = [rows.pick(quantity, every) for quantity in claim.statistic.quantities]
        few = "a sentence on {} takes {}, and there are {}"
    elif over_units(claim):
        picked = [rows.pick(claim.statistic.quantities[-1], each) for each in places(claim, rows, claim.chosen)]
        few = _FEW[claim.statistic.kind]
    else:
        return None
    words = UNITS[claim.over]
    need = max(words.fewest, FEWEST.get(claim.statistic.kind, 0))
    count = min((len(groups) for one in picked for groups in one.values()), default=0)
    return few.format(words.many, need, count) if count < need else None


def measured(claim: Claim, rows: Rows) -> WithTwin:
    """The statistic of each seed, on the model and on its twin, and what was learned."""
    accuracy = {source: [] if claim.twin != "learned" else learned(claim, rows, source) for source in SOURCES}
    return WithTwin(
        model=numbers(claim, rows, MODEL),
        twin=numbers(claim, rows, TWIN),
        accuracy=accuracy[MODEL] or None,
        twin_accuracy=accuracy[TWIN] or None,
    )


def learned(claim: Claim, rows: Rows, source: str) -> list[float]:
    """Held-out accuracy of each seed, over the units of a claim."""
    return mean("accuracy")(rows, {"figure": claim.chosen["figure"]}, source)


def numbers(claim: Claim, rows: Rows, source: str, changes: Mapping[str, Any] = MappingProxyType({})) -> list[float]:
    """The statistic of each seed, less what is taken off.

    Args:
        claim: Says which.
        rows: As they were measured.
        source: The model, or its twin.
        changes: Columns, `source` or `statistic` in place of the claim's; another statistic has nothing taken off.
    """
    chosen: dict[str, Any] = {"statistic": claim.statistic, "source": source, **claim.chosen, **changes}
    if claim.across and "group" not in changes:
        return _folded(claim, rows, chosen)
    found = _numbers(rows, chosen)
    if not claim.less or "statistic" in changes:
        return found
    return np.subtract(found, _numbers(rows, {**chosen, **claim.less})).tolist()


def _folded(claim: Claim, rows: Rows, chosen: Mapping[str, Any]) -> list[float]:
    """One number per seed, of what is known on the figures that a claim goes across."""
    columns = {name: value for name, value in chosen.items() if name not in ("statistic", "source", "says")}
    found: dict[int, list[float]] = {}
    for each in places(claim, rows, columns):
        for seed, number in chosen["statistic"].by_seed(rows, each, chosen["source"]).items():
            found.setdefault(seed, []).extend([number] if math.isfinite(number) else [])
    merge = FOLDS[claim.fold[0]][1]
    return [float(merge(values)) if values else math.nan for values in found.values()]


def _numbers(rows: Rows, chosen: Mapping[str, Any]) -> list[float]:
    columns = {name: value for name, value in chosen.items() if name not in ("statistic", "source", "says")}
    return chosen["statistic"](rows, columns, chosen["source"])


def beside(claim: Claim, rows: Rows) -> dict[str, Any]:
    """Evidence besides the statistic."""
    assert claim.statistic is not None
    found: dict[str, Any] = {}
    for label, changes in claim.beside.items():
        statistic: Statistic = changes.get("statistic", claim.statistic)
        values = numbers(claim, rows, MODEL, changes)
        if values:
            found[label] = over_seeds(values, least=statistic.least, most=statistic.most)
    if claim.each is not None and claim.across:
        for each in places(claim, rows, claim.chosen):
            name = claim.each.format(each["figure"].removeprefix(claim.across))
            found[name] = over_seeds(claim.statistic(rows, each, MODEL), least=claim.statistic.least)
    elif claim.each is not None:
        picked = rows.pick(claim.statistic.quantities[-1], claim.chosen)
        for group in dict.fromkeys(group for groups in picked.values() for group in groups if group):
            values = numbers(claim, rows, MODEL, {"group": group})
            found[claim.each.format(group)] = over_seeds(values)
    facts = told_of(claim, rows)
    return {**as_evidence(found), **claim.printed, **{name: facts[name] for name in claim.facts if name in facts}}
