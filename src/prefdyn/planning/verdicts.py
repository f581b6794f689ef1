r"""The verdict per group: rules in a fixed order, the first that holds, with every threshold in one place.

Every rule is a test at one stated level, adjusted over the groups; the unit of all its errors is the prompt, or the
cluster of near-equal prompts. Losses are cross-fitted (`dynamics.crossfit`): each pair is judged by a run that did not
train on it. How often each rule speaks where nothing is there stands in docs/statistics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from prefdyn._random import stream
from prefdyn.diagnostics.inference import holm
from prefdyn.dynamics.order import Ranks, critical, open_ranks, ranks
from prefdyn.maths.objectives import LOG2
from prefdyn.maths.units import Z95, Mean

Verdict = Literal[
    "cannot tell",
    "looks random",
    "giveaway",
    "trivial",
    "conflicting",
    "left behind",
    "memorised",
    "early",
    "early or middle",
    "middle",
    "middle or late",
    "late",
    "not told apart",
    "learned",
]
NO_EVIDENCE: tuple[Verdict, Verdict] = ("cannot tell", "looks random")
"""Verdicts that say that nothing was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Numbers that the rules compare with. Set before any run that they judge."""

    few_units: int = 20
    """Under this many units (prompts, or clusters of near-equal ones) no claim is made."""
    small_units: int = 50
    """Under this many units a reason says first how few there are."""
    level: float = 0.05
    """How often a rule may speak in an audit in which it holds for no group."""
    worth: float = 0.6
    """Area under the curve from which on an effect is worth having; chance is 0.5."""
    trivial_accuracy: float = 0.98
    """From this held-out accuracy on, by the model and by words alone, there is little left to learn."""
    left_behind_share: float = 0.25
    """Share of the median group's fall in held-out loss under which a group counts as left behind."""
    memorised_fall: float = 0.1
    """Training loss must fall by more than this, in nats, before memorising is spoken of."""
    memorised_share: float = 0.1
    """Held-out loss falls by less than this share of the training loss's fall: memorised."""
    ranked_groups: int = 3
    """Under this many ranked groups there is no early, middle or late."""
    stable: float = 0.8
    """Under this share of resamples with the same verdict, the verdict is said with "could be"."""

    def rules(self) -> list[dict[str, str]]:
        """Each verdict's rule in words, in the order in which they are tried."""
        at = f"beyond chance at the level {self.level:g}, adjusted over the groups by Holm's method"
        return [
            {
                "verdict": "cannot tell",
                "rule": f"under {self.few_units} units, or one class; or neither the mean gap, the held-out probe nor "
                f"(replies) length tells the two sides {at}, and the 95 % interval of the probe's area under the curve "
                f"still holds {self.worth:g}",
            },
            {
                "verdict": "looks random",
                "rule": f"the same, and the interval excludes {self.worth:g}: every effect worth having",
            },
            {
                "verdict": "giveaway",
                "rule": f"length alone tells chosen from rejected {at}, and the model's probe is not right more often "
                "by more than its interval (not asked of one-token answers)",
            },
            {
                "verdict": "trivial",
                "rule": f"held-out accuracy ≥ {self.trivial_accuracy}, and of the wording baseline too",
            },
            {
                "verdict": "conflicting",
                "rule": f"held-out loss ends above log 2 {at}, though alone it ends below by more than its interval",
            },
            {
                "verdict": "left behind",
                "rule": f"held-out loss falls less than {self.left_behind_share:g} of the median group's fall {at}, "
                "though alone, in the same steps, it falls as far as that group did",
            },
            {
                "verdict": "memorised",
                "rule": f"training loss falls by more than {self.memorised_fall}, "
                f"held-out loss by less than {self.memorised_share:g} of that {at}",
            },
            {
                "verdict": "early · middle · late",
                "rule": "the third of the order by area under the held-out loss, smallest first, in which the group's "
                f"95 % interval of ranks lies; two of them, or not told apart, where it does not "
                f"(under {self.ranked_groups} groups: learned)",
            },
        ]


NOTHING = Mean(value=math.nan, error=math.nan, units=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rules look at, for one group. NaN: could not be measured; a rule that needs the number is skipped."""

    name: str
    pairs: int
    units: int
    """Prompts, or clusters of near-equal ones."""
    one_class: bool = False
    """A two-answer group whose pairs all choose the same answer."""
    null_z: float = math.nan
    """The mean gap in standard deviations of what relabelling gives."""
    signal_p: float = math.nan
    """Of the mean gap and of the probe's area together, adjusted for both in all groups."""
    area: float = math.nan
    """Held-out area under the curve of the probe."""
    area_low: float = math.nan
    """Lower end of its 95 % interval."""
    area_high: float = math.nan
    area_error: float = math.nan
    area_null_error: float = math.nan
    """Standard deviation of the area where labels mean nothing."""
    probe_accuracy: float = math.nan
    length_accuracy: float = math.nan
    """Held-out accuracy of length alone; NaN for one-token answers, which have none to compare."""
    length_p: float = math.nan
    """Two-sided p of it against one half; 1 where it is below."""
    length_behind: float = math.nan
    """Lower end of the 95 % interval of the probe's accuracy less that of length: above 0 the probe knows more."""
    words_accuracy: float = math.nan
    """Held-out accuracy of words alone."""
    held_out_accuracy: float = math.nan
    """Share of pairs with a margin above 0 in the cross-fitted joint run."""
    train_loss: float = math.nan
    """Of the same runs, on pairs they trained on."""
    loss: Mean = NOTHING
    """Cross-fitted held-out loss at the end of the joint run."""
    alone: Mean = NOTHING
    """The same of the group trained by itself."""
    area_under_loss: Mean = NOTHING
    """Cross-fitted held-out loss over the steps of the joint run, its mean: what the order is made of."""
    best_step: int = -1
    """Step at which the held-out loss is least; -1: not known."""
    best_loss: float = math.nan
    """The held-out loss there."""
    late_speed: float = math.nan
    """Nats per step by which the held-out loss falls in the second half of the joint run."""
    push: float = math.nan
    """Mean reward margin after the joint first step,"""
    own_push: float = math.nan
    """and what of it the group's own pairs add."""
    part: float = math.nan
    """The group's share of the weight of all training pairs."""
    opposed_by: tuple[str, ...] = ()
    """Groups whose first step pushes this one's margin down, strongest first."""

    @property
    def fall(self) -> float:
        """How far the held-out loss falls, nats."""
        return LOG2 - self.loss.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict with its reason, what to do about it, and how sure it is."""

    name: str
    verdict: Verdict
    because: str
    advice: str
    changes_if: str
    """What would change it."""
    rank: float
    """Place by area under the held-out loss, 1 = first learned; NaN where not ranked."""
    rank_low: float
    rank_high: float
    """95 % interval of it, for all groups together."""
    stability: float = math.nan
    """Share of resamples that give the same verdict; NaN where none were drawn."""
    could_be: tuple[Verdict, ...] = ()
    """Other verdicts that a tenth or more of the resamples give, the most frequent first."""


def judge(
    evidence: Sequence[Evidence], thresholds: Thresholds | None = None, *, resamples: int = 200, seed: int = 0
) -> tuple[Judgement, ...]:
    """One judgement per group, in the order given.

    Stability: every group's losses, areas and gaps are drawn anew within their errors (which are those of whole units)
    and judged by the same rules, ranks included.

    Args:
        evidence: One per group.
        thresholds: Of the rules; the published defaults if not given.
        resamples: For the stability of the verdicts; 0: none. With many groups fewer are drawn.
        seed: Of the resamples.

    Example:
        >>> few = Evidence(name="rare", pairs=7, units=7, signal_p=0.001, area=0.9)
        >>> judge([few])[0].verdict
        'cannot tell'
    """
    limits = thresholds or Thresholds()
    if not evidence:
        return ()
    limit = critical([item.area_under_loss for item in evidence], level=limits.level, seed=seed)
    order = ranks([item.area_under_loss for item in evidence], level=limits.level, seed=seed, limit=limit)
    shared = _decided(_Figures.of(evidence, order), limits)
    count = min(resamples, max(20, _JUDGED // len(evidence))) if len(evidence) <= _JUDGED // 20 else 0
    drawn = None
    if count:
        figures = _Figures.of(evidence, order, stream(seed, "verdicts", "resamples"), count, limit)
        drawn = _decided(figures, limits).verdict
    found = []
    for place, item in enumerate(evidence):
        verdict = _NAMES[int(shared.verdict[0, place])]
        rank = float(order.rank[place]), float(order.low[place]), float(order.high[place])
        because, changes_if = _reason(verdict, item, place, limits, shared, rank)
        if verdict not in NO_EVIDENCE and item.units < limits.small_units:
            because = f"rests on only {item.units} units: {because}"
        stability, others = math.nan, ()
        if drawn is not None:
            shares = np.bincount(drawn[:, place], minlength=len(_NAMES)) / count
            stability = float(shares[_NAMES.index(verdict)])
            others = tuple(
                _NAMES[code]
                for code in np.argsort(-shares, kind="stable")
                if shares[code] >= 0.1 and _NAMES[code] != verdict
            )
        found.append(
            Judgement(
                name=item.name,
                verdict=verdict,
                because=because,
                advice=_advice(verdict, item, limits, len(evidence), float(shared.median_fall[0])),
                changes_if=changes_if,
                rank=rank[0],
                rank_low=rank[1],
                rank_high=rank[2],
                stability=stability,
                could_be=others,
            )
        )
    return tuple(found)


_NAMES: tuple[Verdict, ...] = get_args(Verdict)
_JUDGED = 10_000
"""Groups × resamples that are judged for the stability of the verdicts, at most; beyond a twentieth, none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What the rules compare, one row per draw (the first and only one: as measured) and one column per group."""

    evidence: Sequence[Evidence]
    signal_p: np.ndarray
    area_high: np.ndarray
    loss: np.ndarray
    alone: np.ndarray
    low: np.ndarray
    """Ranks that are left open."""
    high: np.ndarray

    @classmethod
    def of(
        cls,
        evidence: Sequence[Evidence],
        order: Ranks,
        rng: np.random.Generator | None = None,
        draws: int = 1,
        limit: float = math.inf,
    ) -> "_Figures":
        """As measured, or drawn anew within their errors."""
        if rng is None:
            return cls(
                evidence=evidence,
                signal_p=_column(evidence, "signal_p")[None],
                area_high=_column(evidence, "area_high")[None],
                loss=_values(evidence, "loss")[None],
                alone=_values(evidence, "alone")[None],
                low=order.low[None],
                high=order.high[None],
            )
        m = len(evidence)
        noise = rng.normal(size=(5, draws, m))
        gone = noise[1] * _column(evidence, "area_error")
        null_error = _column(evidence, "area_null_error")
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.stack(
                [_column(evidence, "null_z") + noise[0], (_column(evidence, "area") + gone - 0.5) / null_error]
            )
        known = np.flatnonzero(~np.isnan(order.rank))
        error = _errors(evidence, "area_under_loss")[known]
        # the loss at the end and the one over the steps are of the same pairs
        mixed = 0.8 * noise[2] + 0.6 * noise[4]
        low, high = np.full((2, draws, m), math.nan)
        if len(known):
            values = _values(evidence, "area_under_loss")[known] + mixed[:, known] * error
            low[:, known], high[:, known] = open_ranks(values, error, limit)
        return cls(
            evidence=evidence,
            signal_p=np.minimum(1.0, 2 * m * norm.sf(np.fmax(*z))),
            area_high=_column(evidence, "area_high") + gone,
            loss=_values(evidence, "loss") + noise[2] * _errors(evidence, "loss"),
            alone=_values(evidence, "alone") + noise[3] * _errors(evidence, "alone"),
            low=low,
            high=high,
        )


def _column(evidence: Sequence[Evidence], name: str) -> np.ndarray:
    return np.array([getattr(item, name) for item in evidence], dtype=np.float64)


def _values(evidence: Sequence[Evidence], name: str) -> np.ndarray:
    return np.array([getattr(item, name).value for item in evidence], dtype=np.float64)


def _errors(evidence: Sequence[Evidence], name: str) -> np.ndarray:
    return np.array([getattr(item, name).error for item in evidence], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """What the rules give, and the figures that a reason repeats; rows and columns as in `_Figures`."""

    verdict: np.ndarray
    """Place in `Verdict`."""
    median_fall: np.ndarray
    ranked: int
    conflict_p: np.ndarray
    behind_p: np.ndarray
    memorised_p: np.ndarray


def _decided(figures: _Figures, limits: Thresholds) -> _Decided:
    """The first rule that holds, for every group of every draw. Comparisons with NaN are false: no such rule fires."""
    evidence = figures.evidence
    few = np.array([item.units < limits.few_units or item.one_class for item in evidence])
    falls = LOG2 - figures.loss
    known = ~np.isnan(falls)
    median = np.full((len(falls), 1), math.nan)
    if known.any():
        median = np.nanmedian(falls, axis=-1, keepdims=True)
    train_fall = LOG2 - _column(evidence, "train_loss")
    conflict_p = np.minimum(1.0, 2 * _above(figures, LOG2))  # two-sided, as the interval that is shown
    behind_p = _above(figures, LOG2 - limits.left_behind_share * median)
    memorised_p = _above(figures, LOG2 - limits.memorised_share * np.maximum(train_fall, 0.0))
    by_length = holm(_column(evidence, "length_p")) <= limits.level
    nothing = (figures.signal_p > limits.level) & ~by_length
    alone_below = figures.alone + Z95 * _errors(evidence, "alone") < LOG2
    ranked = int(np.sum(~np.isnan(figures.low[0])))
    thirds = [np.minimum(2, np.nan_to_num(3 * (ends - 1) // max(1, ranked))) for ends in (figures.low, figures.high)]
    unordered = np.isnan(figures.low) | (ranked < limits.ranked_groups)
    trivial = np.minimum(_column(evidence, "held_out_accuracy"), _column(evidence, "words_accuracy"))
    rules: list[tuple[Verdict, Any]] = [
        ("cannot tell", few),
        ("looks random", nothing & (figures.area_high < limits.worth)),
        ("cannot tell", nothing),
        ("giveaway", by_length & ~(_column(evidence, "length_behind") > 0)),
        ("trivial", trivial >= limits.trivial_accuracy),
        ("conflicting", (conflict_p <= limits.level) & alone_below),
        ("left behind", (median > 0) & (behind_p <= limits.level) & (LOG2 - figures.alone >= median)),
        ("memorised", (train_fall > limits.memorised_fall) & (memorised_p <= limits.level)),
        ("learned", unordered),
        *((name, (thirds[0] == first) & (thirds[1] == last)) for (first, last), name in _THIRDS.items()),
    ]
    verdict = np.select(
        [np.broadcast_to(holds, falls.shape) for _, holds in rules],
        [_NAMES.index(name) for name, _ in rules],
        _NAMES.index("learned"),
    )
    return _Decided(
        verdict=verdict,
        median_fall=median[:, 0],
        ranked=ranked,
        conflict_p=conflict_p,
        behind_p=behind_p,
        memorised_p=memorised_p,
    )


def _above(figures: _Figures, limit: Any) -> np.ndarray:
    """One-sided p that the true loss is not above a limit, adjusted over the groups."""
    error = _errors(figures.evidence, "loss")
    units = np.array([item.loss.units for item in figures.evidence])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where((error > 0) & (units > 1), (figures.loss - limit) / error, math.nan)
    return holm(student.sf(ratio, np.maximum(units - 1, 1)))


def _reason(
    verdict: Verdict, item: Evidence, place: int, limits: Thresholds, shared: _Decided, rank: Sequence[float]
) -> tuple[str, str]:
    """Why the verdict holds, and what would change it."""
    if verdict in NO_EVIDENCE:
        return _nothing_found(verdict, item, limits, len(shared.conflict_p[0]))
    if verdict == "giveaway":
        return (
            f"length alone tells chosen from rejected on {item.length_accuracy:.3f} of held-out pairs, "
            f"the probe of the model on {item.probe_accuracy:.3f}",
            "a probe of the model that is right more often than length, by more than the interval of the difference",
        )
    if verdict == "trivial":
        return (
            f"held-out accuracy {item.held_out_accuracy:.3f}, and {item.words_accuracy:.3f} from word counts alone",
            f"an accuracy of words alone below {limits.trivial_accuracy:g}",
        )
    if verdict == "conflicting":
        return (
            f"held-out loss ends at {_shown(item.loss)}, above log 2 = {LOG2:.4f} (adjusted p "
            f"{shared.conflict_p[0, place]:.2g}), though alone it ends at {_shown(item.alone)}",
            f"a held-out loss below {LOG2:.4f}",
        )
    if verdict == "left behind":
        median = float(shared.median_fall[0])
        return (
            f"{_moves(item)}, a fall under {limits.left_behind_share:g} of "
            f"the median group's {median:.4f} (adjusted p {shared.behind_p[0, place]:.2g}), though alone it falls by "
            f"{LOG2 - item.alone.value:.4f}",
            f"a fall of {limits.left_behind_share * median:.4f} or more",
        )
    if verdict == "memorised":
        train_fall = LOG2 - item.train_loss
        return (
            f"training loss falls by {train_fall:.4f}, held-out loss by {item.fall:.4f} ± {item.loss.error:.2g}, under "
            f"{limits.memorised_share:g} of that (adjusted p {shared.memorised_p[0, place]:.2g})",
            f"a fall of the held-out loss of {limits.memorised_share * train_fall:.4f} or more",
        )
    if verdict == "learned":
        return _moves(item), f"{limits.ranked_groups} groups or more, which can be put in order"
    middle, low, high = rank
    between = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return (
        f"ranks {middle:g} (95 % interval {between}) of {shared.ranked} by area under its held-out loss; "
        f"{_moves(item)}",
        "an interval of ranks that crosses a third of the order"
        if verdict in ("early", "middle", "late")
        else "more prompts",
    )


def _nothing_found(verdict: Verdict, item: Evidence, limits: Thresholds, groups: int) -> tuple[str, str]:
    """Nothing tells the two sides: because there is nothing worth having, or because there are too few units."""
    units = f"{item.units} {'unit' if item.units == 1 else 'units'}"
    if item.units < limits.few_units:
        return (
            f"only {units}, under {limits.few_units}" + (f" ({item.pairs} pairs)" if item.pairs != item.units else ""),
            f"{limits.few_units} prompts or more",
        )
    if item.one_class:
        return f"all {item.pairs} pairs choose the same answer", "pairs of the other answer"
    seen = (
        f"neither the mean gap nor a held-out probe tells the two sides (adjusted p {item.signal_p:.2g}); "
        f"the probe's area is {item.area:.2f} ({item.area_low:.2f} to {item.area_high:.2f})"
    )
    if verdict == "looks random":
        return (
            f"{seen}, which excludes {limits.worth:g} and more",
            f"an adjusted p below {limits.level:g}, or an interval of the area that reaches {limits.worth:g}",
        )
    least, needed = power(item, limits, groups)
    if math.isnan(least):
        return seen, "more prompts"
    found = (
        f"{seen}; with {units} an area of {least:.2f} would have been found in 8 of 10 such groups"
        if least < 1
        else f"{seen}; {units} are too few to find any area"
    )
    return found, f"about {needed:,} prompts, which find an area of {limits.worth:g} in 8 of 10 groups"


def power(item: Evidence, limits: Thresholds, groups: int) -> tuple[float, int]:
    """The least area that would have been found in 8 of 10 such groups, and the units that would find `worth`.

    The error of the area where labels mean nothing shrinks with the square root of the units.

    Example:
        >>> item = Evidence(name="a", pairs=100, units=100, area_null_error=0.08)
        >>> least, units = power(item, Thresholds(), 1)
        >>> round(least, 3), units
        (0.724, 503)
    """
    reach = float(norm.isf(limits.level / (2 * groups)) + norm.isf(0.2)) * item.area_null_error
    if not reach > 0:
        return math.nan, 0
    return min(1.0, 0.5 + reach), math.ceil(item.units * (reach / (limits.worth - 0.5)) ** 2)


def more(item: Evidence, fall: float) -> tuple[float, float]:
    r"""What would bring a group's held-out loss down by as much, in first order: times its weight, and further steps.

    Early in a run the fall is proportional to the margin. With the group's weight times $1 + x$ the first step moves
    its mean margin by $(m + x\,m_{own}) / (1 + x p)$, where m is the margin of that step, $m_{own}$ what the group's
    own pairs add, and p its share of the weight. Further steps go on as in the second half of the run.

    Args:
        item: Of the group; its held-out loss falls by less.
        fall: What is asked for, nats.

    Returns:
        NaN where the group's own pull is not enough, its loss does not fall, or the first step goes against it.

    Example:
        >>> item = Evidence(name="a", pairs=9, units=9, loss=Mean(value=LOG2 - 0.02, error=0.01, units=9),
        ...                 push=1.0, own_push=0.5, part=0.1, late_speed=0.001)
        >>> tuple(round(value, 3) for value in more(item, 0.04))  # (1 + 3.333 * 0.5) / (1 + 3.333 * 0.1) = 2
        (4.333, 20.0)
    """
    times = fall / item.fall if item.fall > 0 else math.nan
    room = item.own_push - times * item.push * item.part
    weight = 1 + (times - 1) * item.push / room if room > 0 and item.push > 0 else math.nan
    steps = (fall - item.fall) / item.late_speed if item.late_speed > 0 else math.nan
    return weight, steps


def followed(area: float) -> float:
    r"""The share of labels that follow what a reader tells apart, where all the others are drawn by lot.

    If the reader is always right about what a share s of the labels follow, a label agrees with it in $(1 + s)/2$ of
    the pairs of either class, and the area under the curve is $(1 + s)/2$.

    Example:
        >>> round(followed(0.58), 3)
        0.16
    """
    return min(1.0, max(0.0, 2 * area - 1))


_THIRDS: dict[tuple[int, int], Verdict] = {
    (0, 0): "early", (0, 1): "early or middle", (1, 1): "middle", (1, 2): "middle or late", (2, 2): "late",
    (0, 2): "not told apart",
}  # fmt: skip


_ORDERED: tuple[Verdict, ...] = (*_THIRDS.values(), "learned")


def _shown(mean: Mean) -> str:
    return f"{mean.value:.4f} ± {mean.error:.2g}"


def _moves(item: Evidence) -> str:
    if math.isnan(item.fall):
        return "no pair of it can be held out"
    by = f"{abs(item.fall):.4f} ± {item.loss.error:.2g}"
    return f"held-out loss falls by {by}" if item.fall > 0 else f"held-out loss does not fall: it rises by {by}"


ADVICE: dict[Verdict, str] = {
    "cannot tell": "No claim is made; add pairs.",
    "looks random": "The labels look random to this model: check them, the prompt and the model.",
    "giveaway": "Length will be learned, whatever else is: match the lengths of the two sides, or use an objective "
    "that controls for length or averages over tokens.",
    "trivial": "Words alone decide; expect saturation and little learned.",
    "conflicting": "Others push it the wrong way: look at which, and at the pairs most at odds.",
    "left behind": "Learnable but crowded out: give it more weight, more pairs or more steps.",
    "memorised": "Descent fits the pairs, not the preference: more data, fewer steps.",
    "early": "Expect it among the first to be learned in a joint run.",
    "early or middle": "Expect it before the last third in a joint run; its place among the first is open.",
    "middle": "Expect it to follow the first groups in a joint run.",
    "middle or late": "Expect it after the first third in a joint run; its place there is open.",
    "late": "Expect it last among the learned; stopping early costs it most.",
    "not told apart": "Its place in the order is open: these pairs do not tell it from the others.",
    "learned": "Expect the joint run to learn it.",
}


def _advice(verdict: Verdict, item: Evidence, limits: Thresholds, groups: int, median_fall: float) -> str:
    """What to do, with the amount where one is known."""
    advice = ADVICE[verdict]
    if verdict == "cannot tell" and not item.one_class:
        _, needed = power(item, limits, groups)
        more = max(limits.few_units, needed) - item.units
        if more > 0:
            advice = f"No claim is made; about {more:,} more prompts would tell."
    elif verdict == "conflicting" and item.opposed_by:
        advice += f" Strongest against it: {', '.join(item.opposed_by[:3])}."
    elif verdict == "looks random" and not math.isnan(item.area_high):
        advice += (
            f" At most {100 * followed(item.area_high):.0f} % of them can follow something that it tells apart, if the "
            "rest are drawn by lot."
        )
    elif verdict == "left behind":
        advice = _crowded_out(item, limits.left_behind_share * median_fall)
    elif verdict == "memorised" and item.best_step >= 0:
        advice += f" Its held-out loss is least at step {item.best_step}"
        gained = item.loss.value - item.best_loss
        advice += f": {item.best_loss:.4f}, {gained:.4f} below where it ends." if gained > 0 else "."
    elif verdict in _ORDERED and item.fall <= 0:  # no word of stopping early for a loss that rises
        advice = "Its held-out loss does not fall in this run: " + (
            f"it is least at step {item.best_step}; stop there, or add pairs."
            if item.best_step > 0
            else "the joint run teaches it nothing that carries over; add pairs or weight."
        )
    return advice


def _crowded_out(item: Evidence, fall: float) -> str:
    """How much more a group that is left behind needs."""
    weight, steps = more(item, fall)
    ways = []
    if not math.isnan(weight):
        ways.append(f"{weight:.2g} times its weight")
        ways.append(f"about {math.ceil((weight - 1) * item.pairs):,} pairs more like its own")
    if not math.isnan(steps):
        ways.append(f"about {math.ceil(steps):,} further steps")
    if not ways:
        return ADVICE["left behind"]
    either = ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} or {ways[-1]}"
    return f"Learnable but crowded out: {either} would bring its fall to {fall:.4f}, in first order."
