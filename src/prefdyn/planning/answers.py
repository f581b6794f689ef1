"""Five answers of an audit, in words with their amounts: each is given only where its rule holds.

What is learned first and how much of it is given away; what gets worse; which labels to check; what to change and what
that is worth; what cannot be told and how much more data would tell. Rules rest on the verdicts, whose tests are
adjusted over the groups; how often each answer is given where nothing is there stands in docs/statistics.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from prefdyn._json import plain
from prefdyn.diagnostics.labels import LISTED, NAMES, PLANTED, LabelCheck
from prefdyn.maths.objectives import LOG2
from prefdyn.maths.units import Z95, Mean
from prefdyn.planning.group_row import GroupRow
from prefdyn.planning.verdicts import NO_EVIDENCE, Evidence, Thresholds, more, power

Kind = Literal["first", "worse", "labels", "change", "open"]

QUESTIONS: Mapping[Kind, str] = {
    "first": "Learned first",
    "worse": "What gets worse",
    "labels": "Labels to check",
    "change": "What to change",
    "open": "What cannot be told",
}
"""What each answer is about, in the order in which they are given."""
_NAMED = 3
"""Groups that a sentence names."""
_MOST_FALL = 2 / 3
"""Share of chosen responses that must lose before it is said that they fall,"""
_LOST = 1.0
"""how much they must lose on average, nats,"""
_LOST_PER_TOKEN = 0.1
"""or as much per token, where that is more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of the five."""

    kind: Kind
    sentence: str
    groups: tuple[str, ...] = ()
    """That it is about, the first one that the amount belongs to."""
    amount: float = math.nan
    low: float = math.nan
    high: float = math.nan
    """95 % interval of the amount, NaN where there is none (labels turned round on purpose: 90 % of the drawings)."""
    unit: str = ""
    """Of the amount."""
    prompts: int | None = None
    """How many prompts would tell, of the first group."""
    pairs: tuple[str, ...] = ()
    """Ids of the pairs that it is about, the first to look at first."""
    evidence: str = ""
    """Id of the section of the page that shows it."""

    @property
    def title(self) -> str:
        """What it is about."""
        return QUESTIONS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return plain({each.name: getattr(self, each.name) for each in fields(self)} | {"title": self.title})


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerGround:
    """What the answers rest on; groups in the same order everywhere."""

    rows: Sequence[GroupRow]
    evidence: Sequence[Evidence]
    gained_alone: Sequence[Mean]
    """By how much each group's held-out loss ends lower where it trains by itself, pair by pair."""
    labels: LabelCheck | None
    ids: Sequence[str]
    """Of the pairs."""
    groups_of: Sequence[str]
    """Name of the group of each pair."""
    contradicting: Sequence[str] = ()
    """Ids of pairs that another pair contradicts outright,"""
    nearly: Sequence[str] = ()
    """and of those that near-equal texts contradict."""
    responses: bool = False
    steps: int = 0


def answers(found: AnswerGround, limits: Thresholds | None = None) -> tuple[Answer, ...]:
    """The answers whose rules hold, in the order of `QUESTIONS`.

    Args:
        found: What was measured.
        limits: Of the verdicts; the published defaults if not given.

    Example:
        >>> row = GroupRow(name="rare", pairs=7, units=7, verdict="cannot tell")
        >>> nothing = Mean(value=math.nan, error=math.nan, units=0)
        >>> found = AnswerGround(rows=[row], evidence=[Evidence(name="rare", pairs=7, units=7)], gained_alone=[nothing],
        ...               labels=None, ids=[], groups_of=[])
        >>> [(each.kind, each.sentence) for each in answers(found)]
        [('open', 'Nothing can be told of “rare”: it has 7 of at least 20 prompts.')]
    """
    limits = limits or Thresholds()
    given = (_first(found), _worse(found), _labels(found), _change(found, limits), _open(found, limits))
    return tuple(each for each in given if each is not None)


def named(names: Sequence[str], most: int = _NAMED) -> str:
    """Names in a sentence, of many the first `most` and how many more there are.

    Example:
        >>> named(["a"]), named(["a", "b"]), named(["a", "b", "c", "d", "e"])
        ('“a”', '“a” and “b”', '“a”, “b”, “c” and 2 more')
    """
    *first, last = _few([f"“{name}”" for name in names], most)
    return f"{', '.join(first)} and {last}" if first else last


def _few(parts: Sequence[str], most: int = _NAMED) -> list[str]:
    """The first few, and how many more there are."""
    return [*parts[:most], *([f"{len(parts) - most} more"] if len(parts) > most else [])]


# learned first ------------------------------------------------------------------------------------------------------


def _first(found: AnswerGround) -> Answer | None:
    """The groups that can be first, where fewer than half can, and what gives them away."""
    known = [
        (row, item)
        for row, item in zip(found.rows, found.evidence, strict=True)
        if row.verdict not in NO_EVIDENCE and item.fall - Z95 * item.loss.error > 0
    ]
    if not known:
        return None
    known.sort(key=lambda pair: (_rank(pair[0]), -pair[1].fall))
    first = [pair for pair in known if pair[0].predicted_rank_low == 1] or known[:1]
    told = len(known) == 1 or 2 * len(first) <= len(known)
    if told:
        row, item = first[0]
        names = [each.name for each, _ in first]
        fall = f"held-out loss falls by {item.fall:.2f} ± {Z95 * item.loss.error:.2f} nats in {found.steps} steps"
        if len(found.rows) == 1:
            sentence = f"The preference is learned: its {fall}."
        elif len(first) == 1:
            sentence = f"“{row.name}” is learned first: its {fall}."
        else:
            sentence = f"{named(names)} are learned first, in an order that is open; in “{row.name}” {fall}."
        sentence += " " + _given_away(row, found.responses)
        amount, low, high = _trivial(row)[1:]
        return Answer(
            kind="first", sentence=sentence, groups=tuple(names), amount=amount, low=low, high=high,
            unit="held-out accuracy without the model's states", evidence="curves",
        )  # fmt: skip
    row = max((row for row, _ in first), key=lambda row: _trivial(row)[1])
    sentence = (
        f"{len(known)} of {len(found.rows)} groups are learned, and {len(first)} of them could be the first. "
        f"{_given_away(row, found.responses)}"
    )
    amount, low, high = _trivial(row)[1:]
    return Answer(
        kind="first", sentence=sentence, groups=tuple(each.name for each, _ in first), amount=amount, low=low,
        high=high, unit="held-out accuracy without the model's states", evidence="curves",
    )  # fmt: skip


def _rank(row: GroupRow) -> float:
    return math.inf if math.isnan(row.predicted_rank) else row.predicted_rank


def _trivial(row: GroupRow) -> tuple[str, float, float, float]:
    """What gives most away without the model's states: its name, accuracy and interval."""
    tried = [
        ("words alone", row.words_accuracy, row.words_low, row.words_high),
        ("length alone", row.length_accuracy, row.length_low, row.length_high),
        ("the model's own preference before training", row.reference_accuracy, row.reference_low, row.reference_high),
    ]
    known = [each for each in tried if not math.isnan(each[1])]
    return max(known, key=lambda each: each[1]) if known else ("", math.nan, math.nan, math.nan)


def _given_away(row: GroupRow, responses: bool) -> str:
    """How much of what a reader of the states gets right is there without them."""
    name, right, low, high = _trivial(row)
    if not name:
        return ""
    probe = row.probe_accuracy
    what = name if responses or name != "words alone" else "words of the prompt alone"
    if not low > 0.5:
        return (
            f"Of “{row.name}”, words{', length and the reference' if responses else ' and length'} give nothing away."
        )
    start = what[0].upper() + what[1:]
    sentence = f"{start} {'tells' if name != 'words alone' else 'tell'} {right:.0%} of held-out pairs of “{row.name}” "
    sentence += f"({low:.0%} to {high:.0%})"
    if math.isnan(probe):
        return sentence + "."
    return f"{sentence}; a reader of the model's states {probe:.0%}."


# what gets worse ----------------------------------------------------------------------------------------------------


def _worse(found: AnswerGround) -> Answer | None:
    """Groups whose held-out loss the joint run raises, and chosen responses that it makes less likely."""
    wrong = [
        item
        for row, item in zip(found.rows, found.evidence, strict=True)
        if row.verdict == "conflicting" and item.loss.value > LOG2
    ]
    wrong.sort(key=lambda item: -item.loss.value)
    parts, groups = [], [item.name for item in wrong]
    amount, low, high, unit, evidence = math.nan, math.nan, math.nan, "", "groups"
    if wrong:
        item = wrong[0]
        amount, reach = item.loss.value - LOG2, Z95 * item.loss.error
        low, high, unit = amount - reach, amount + reach, "nats of held-out loss above the start"
        of = "" if len(wrong) == 1 else f" of “{item.name}”"
        pushed = [f"“{each.name}”{f' by {named(each.opposed_by[:2])}' if each.opposed_by else ''}" for each in wrong]
        parts.append(
            f"Pushed the wrong way: {'; '.join(_few(pushed))}. The held-out loss{of} ends {amount:.2f} ± {reach:.2f} "
            "nats above where it began."
        )
    groups += _rising(found, parts)
    falling = [row for row in found.rows if _falls(row)] if found.responses else []
    falling.sort(key=lambda row: row.predicted_chosen_change)
    if falling:
        row, names = falling[0], [row.name for row in falling]
        parts.append(
            f"Chosen responses of {named(names)} become less likely: {row.predicted_chosen_falling:.0%} of "
            f"{f'those of “{row.name}”' if len(falling) > 1 else 'them'} fall, by "
            f"{-row.predicted_chosen_change:.1f} nats on average (rejected {row.predicted_rejected_change:+.1f}), "
            "first order."
        )
        evidence = evidence if wrong else "head"
        groups += names
    if not parts:
        return None
    return Answer(
        kind="worse", sentence=" ".join(parts), groups=tuple(dict.fromkeys(groups)), amount=amount, low=low,
        high=high, unit=unit, evidence=evidence,
    )  # fmt: skip


def _rising(found: AnswerGround, parts: list[str]) -> list[str]:
    """Other groups of which something is known, but whose held-out loss ends above its start: tells of the worst."""
    reach = float(norm.isf(0.025 / len(found.rows)))  # of one group the interval that is shown
    rising = [
        item
        for row, item in zip(found.rows, found.evidence, strict=True)
        if row.verdict not in (*NO_EVIDENCE, "conflicting") and item.loss.value - reach * item.loss.error > LOG2
    ]
    rising.sort(key=lambda item: -item.loss.value)
    if rising:
        item, names = rising[0], [item.name for item in rising]
        least = f", and is least at step {item.best_step}" if 0 < item.best_step < found.steps else ""
        parts.append(
            f"Held-out loss of {named(names)} rises: {'it' if len(rising) == 1 else f'that of “{item.name}”'} ends "
            f"{item.loss.value - LOG2:.2f} ± {Z95 * item.loss.error:.2f} nats above where it began{least}."
        )
    return [item.name for item in rising]


def _falls(row: GroupRow) -> bool:
    """Whether most chosen responses of a group of which something is known become much less likely."""
    least = max(_LOST, _LOST_PER_TOKEN * row.chosen_tokens)
    return (
        row.verdict not in NO_EVIDENCE
        and row.predicted_chosen_change < -least
        and row.predicted_chosen_falling >= _MOST_FALL
    )


# labels to check ----------------------------------------------------------------------------------------------------


def _labels(found: AnswerGround) -> Answer | None:
    """Pairs that contradict each other outright, then labels that the reader of this data doubts most."""
    parts, check, against = [], found.labels, list(dict.fromkeys(found.contradicting))
    nearly = [name for name in dict.fromkeys(found.nearly) if name not in set(against)]
    ids, groups = [], []
    if against:
        parts.append(f"{len(against)} pairs contradict others outright: they cannot all be right.")
        ids += against[:LISTED]
    if nearly:
        parts.append(f"{len(nearly)} pairs nearly contradict another: near-equal texts, preferred the other way round.")
        ids += nearly[: LISTED - len(ids)]
    amount, low, high, unit = math.nan, math.nan, math.nan, ""
    rows = [] if check is None else [row for row in check.listed() if found.ids[row] not in set(ids)]
    if check is not None and rows:
        ids = ids[: max(LISTED // 2, LISTED - len(rows))]
        shown = [found.ids[row] for row in rows][: LISTED - len(ids)]
        ids += shown
        best, one = check.best, len(shown) == 1
        amount, low, high = LISTED * best.found, LISTED * best.found_low, LISTED * best.found_high
        unit = f"turned labels in the first {LISTED}, where {PLANTED:.0%} are turned round on purpose"
        others = [each for each in check.tried if each.name in ("length", "words", "reference") and each is not best]
        beside = ", ".join(f"{NAMES[each.name]} alone {LISTED * each.found:.0f}" for each in others)
        these, are, they, them = (
            ("This label", "is", "It", "it") if one else (f"These {len(shown)} labels", "are", "They", "them")
        )
        parts.append(
            f"{these}, read by {NAMES[best.name]}, {are} what the other pairs speak against most. {they} may be right: "
            f"only reading {them} tells. How well such a list finds wrong labels where there are was tried with "
            f"{PLANTED:.0%} of these labels turned round on purpose: {amount:.0f} of its first {LISTED} were turned "
            f"ones ({low:.0f} to {high:.0f}; by chance {LISTED * PLANTED:.0f}{'; ' + beside if beside else ''})."
        )
    random = [row.name for row in found.rows if row.verdict == "looks random"]
    if random:
        parts.append(f"Labels of {named(random)} look random to this model.")
        groups += random
    if not parts:
        return None
    where = dict(zip(found.ids, found.groups_of, strict=True)) if ids else {}
    groups = [*dict.fromkeys([*(where[name] for name in ids if name in where), *groups])]
    return Answer(
        kind="labels", sentence=" ".join(parts), groups=tuple(groups), amount=amount, low=low, high=high, unit=unit,
        pairs=tuple(ids), evidence="odds" if ids else "groups",
    )  # fmt: skip


# what to change -----------------------------------------------------------------------------------------------------


def _change(found: AnswerGround, limits: Thresholds) -> Answer | None:
    """Train a crowded group apart, or weigh it more; match lengths; stop earlier: whichever the verdicts ask for."""
    parts: list[str] = []
    groups: list[str] = []
    amount, low, high, unit = math.nan, math.nan, math.nan, ""
    crowded = [
        (row, item, gain)
        for row, item, gain in zip(found.rows, found.evidence, found.gained_alone, strict=True)
        if row.verdict in ("conflicting", "left behind") and gain.value - Z95 * gain.error > 0
    ]
    crowded.sort(key=lambda each: -each[2].value)
    if crowded:
        row, item, gain = crowded[0]
        groups += [each[0].name for each in crowded]
        amount, low, high = gain.value, gain.value - Z95 * gain.error, gain.value + Z95 * gain.error
        unit = "nats of held-out loss"
        one = len(crowded) == 1
        parts.append(
            f"Train {named(groups)} apart from the rest: by {'itself' if one else 'themselves'}, "
            f"{'its held-out loss' if one else f'the held-out loss of “{row.name}”'} ends {amount:.2f} nats lower "
            f"({low:.2f} to {high:.2f})."
        )
        behind = [each for each in crowded if each[0].verdict == "left behind"]
        if behind:
            parts.append(_weigh(behind[0][1], found, limits))
    lengths = [row for row in found.rows if row.verdict == "giveaway"]
    if lengths:
        names = [row.name for row in lengths]
        if not parts:
            row = lengths[0]
            amount, low, high = row.length_accuracy, row.length_low, row.length_high
            unit = "held-out accuracy of length alone"
        parts.append(
            f"Match the lengths of both sides in {named(names)}, where length decides, or use an objective that "
            "averages over tokens (--objective sigmoid_norm)."
        )
        groups += names
    fitted = [item for row, item in zip(found.rows, found.evidence, strict=True) if row.verdict == "memorised"]
    if fitted:
        item = max(fitted, key=lambda item: item.loss.value - item.best_loss)
        gained = item.loss.value - item.best_loss
        if 0 < item.best_step < found.steps and gained > 0:
            parts.append(
                f"“{item.name}” is learned by heart: its held-out loss is least at step {item.best_step}, {gained:.2f} "
                "nats below the end."
            )
            groups.append(item.name)
    parts = [part for part in parts if part]
    if not parts:
        return None
    if crowded:
        parts.append("prefdyn plan searches weights and re-runs them.")
    return Answer(
        kind="change", sentence=" ".join(parts), groups=tuple(dict.fromkeys(groups)), amount=amount, low=low, high=high,
        unit=unit, evidence="groups",
    )  # fmt: skip


def _weigh(item: Evidence, found: AnswerGround, limits: Thresholds) -> str:
    """How much more weight would bring a group that is left behind up to the share of the median that counts."""
    falls = [each.fall for each in found.evidence if not math.isnan(each.fall)]
    weight, _ = more(item, limits.left_behind_share * float(np.median(falls)))
    if math.isnan(weight) or not weight > 1:
        return ""
    return f"Or weigh “{item.name}” {weight:.2g} times, in first order."


# what cannot be told ------------------------------------------------------------------------------------------------


def _open(found: AnswerGround, limits: Thresholds) -> Answer | None:
    """Groups of which nothing is told, and how many prompts would tell."""
    few, short, one_sided = [], [], []
    for row, item in zip(found.rows, found.evidence, strict=True):
        if row.verdict != "cannot tell":
            continue
        needed = limits.few_units if item.units < limits.few_units else power(item, limits, len(found.rows))[1]
        (one_sided if item.one_class else few if item.units < limits.few_units else short).append((item, needed))
    if not few and not short and not one_sided:
        return None
    every = [*short, *few, *one_sided]
    names = [item.name for item, _ in every]
    item, needed = every[0]
    if len(every) == len(found.rows) > 1:
        sentence = f"Nothing can be told of any of the {len(every)} groups"
    else:
        sentence = f"Nothing can be told of {named(names)}"
    whose = "it" if len(every) == 1 else f"“{item.name}”"
    if short:
        sentence += (
            f": {whose} has {item.units:,} prompts, and about {needed:,} would find an effect worth having (an area of "
            f"{limits.worth:g}) in 8 of 10."
        )
    elif few:
        sentence += f": {whose} has {item.units:,} of at least {needed:,} prompts."
    else:
        sentence += f": all pairs of {whose} choose the same answer."
    return Answer(
        kind="open", sentence=sentence, groups=tuple(names), prompts=needed if short or few else None, evidence="groups"
    )
