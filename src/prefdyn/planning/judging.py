"""Several ways to train, judged on the same pairs: means per group, scores, and paired intervals over whole units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.stats import t as student

from prefdyn._random import stream
from prefdyn.maths.units import in_order, redrawn
from prefdyn.planning.goals import Goal

RESAMPLES = 1000
LEVEL = (5.0, 95.0)
"""Percentiles of the resamples that an interval spans: 90 %."""
_BLOCK = 100
_SCORES = {
    "worst": "worst group's {}loss", "mean": "mean {}loss over groups", "equal": "least share",
    "target": "mean share of right pairs that groups fall short of what is wanted",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Spanned:
    """A number with its 90 % interval over judged units; NaN where it is not reached. Gains are better above 0."""

    value: float
    low: float
    high: float

    def row(self, name: str) -> dict[str, float]:
        """Three columns."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWays:
    """M ways to train on m groups, the first as given, the second the proposal. Losses in nats; better is less."""

    methods: tuple[str, ...]
    loss: Float[np.ndarray, "M m"]
    """Mean held-out loss; NaN where a group is not judged."""
    gain: Float[np.ndarray, " m"]
    """As given minus the proposal: above 0 where the proposal is better."""
    gain_interval: Float[np.ndarray, "m 2"]
    score: Float[np.ndarray, " M"]
    """Of the goal; less is better."""
    score_interval: Float[np.ndarray, "M 2"]
    over: Float[np.ndarray, " M"]
    """The score of each way minus that of the proposal, on the same pairs: above 0 where the proposal is better."""
    over_interval: Float[np.ndarray, "M 2"]
    units: int

    @property
    def score_gain(self) -> float:
        """How much better the proposal's score is than as given."""
        return float(self.over[0])

    @property
    def score_gain_interval(self) -> tuple[float, float]:
        """90 % interval of that."""
        return float(self.over_interval[0, 0]), float(self.over_interval[0, 1])

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per way: worst and mean loss, spread of the groups, score, and the proposal's lead over it."""
        return [
            {
                "name": name,
                "worst": float(np.nanmax(self.loss[place])),
                "mean": float(np.nanmean(self.loss[place])),
                "spread": float(np.nanmax(self.loss[place]) - np.nanmin(self.loss[place])),
                "score": float(self.score[place]),
                "score_low": float(self.score_interval[place, 0]),
                "score_high": float(self.score_interval[place, 1]),
                "plan_better_by": float(self.over[place]),
                "plan_better_low": float(self.over_interval[place, 0]),
                "plan_better_high": float(self.over_interval[place, 1]),
            }
            for place, name in enumerate(self.methods)
        ]


def judged(
    losses: Float[np.ndarray, "M n"],
    methods: Sequence[str],
    group: Int[np.ndarray, " n"],
    groups: Sequence[str],
    unit: Int[np.ndarray, " n"],
    goal: Goal,
    *,
    start: float,
    alone: Float[np.ndarray, " m"] | None = None,
    scored: Float[np.ndarray, "M n"] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> JudgedWays:
    """Means, scores and paired intervals: whole units are drawn again, the same ones for every way to train.

    Units are drawn within the group that their first pair belongs to, so that no group is ever empty. The runs stay:
    what another draw of the training pairs would do is not in the intervals.

    Args:
        losses: Of every pair in the runs of each way; NaN for pairs that are not judged.
        methods: What the ways are called: as given, the proposal, others.
        group: Of each pair.
        groups: Their names.
        unit: Equal integers for pairs that are drawn together.
        goal: Whose score is told.
        start: Loss before the first step, nats.
        alone: Of the goal `equal`: held-out loss of each group that trains alone. Held in the resamples.
        scored: What the goal's score reads of every pair; None: the losses.
        seed: Of the resamples.
        resamples: How many.
    """
    known = np.isfinite(losses).all(axis=0)
    m, ways = len(groups), len(losses)
    code, owner = in_order(unit[known]), group[known]
    values = (losses if scored is None else np.concatenate([losses, scored]))[:, known]
    count, total = np.bincount(owner, minlength=m), np.full((len(values), m), np.nan)
    for place in np.flatnonzero(count):
        total[:, place] = values[:, owner == place].mean(axis=1)
    score = goal.score(list(groups), total[-ways], start=start, alone=alone)
    rng = stream(seed, "plan", "judge")
    size = int(code.max()) + 1
    home = np.zeros(size, dtype=np.int64)
    home[code[::-1]] = owner[::-1]
    cells = csr_array((np.ones(len(code)), (owner * size + code, np.arange(len(code)))), shape=(m * size, len(code)))
    mass = np.asarray(cells.sum(axis=1)).reshape(m, size)
    sums = (cells @ values.T).reshape(m, size, len(values))
    drawn = []
    for first in range(0, resamples, _BLOCK):
        times = _redrawn(home, min(_BLOCK, resamples - first), rng)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(np.einsum("bu,guk->bkg", times, sums, optimize=True) / (times @ mass.T)[:, None, :])
    means = np.concatenate(drawn)
    scores = score.hard(means[:, -ways:])
    gains, leads = means[:, 0] - means[:, 1], scores - scores[:, 1:2]
    points = score.hard(total[-ways:])

    def interval(many: np.ndarray) -> np.ndarray:
        found = np.full((many.shape[1], 2), np.nan)
        fine = np.isfinite(many).all(axis=0)
        found[fine] = np.percentile(many[:, fine], LEVEL, axis=0).T
        return found

    return JudgedWays(
        methods=tuple(methods),
        loss=total[:ways],
        gain=total[0] - total[1],
        gain_interval=interval(gains),
        score=points,
        score_interval=interval(scores),
        over=points - points[1],
        over_interval=interval(leads),
        units=size,
    )


def mean_gain(
    old: Float[np.ndarray, " n"],
    new: Float[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, " n"],
) -> Spanned:
    """How much less the mean over groups of the second losses is, on the same pairs.

    Args:
        old: Losses of every pair.
        new: Of the other way.
        group: Of each pair.
        unit: Equal integers for pairs that are drawn together.
        inside: The pairs that judge. Where a loss of theirs is not finite, so is no part of the gain.
    """
    with np.errstate(invalid="ignore"):
        better = (old - new)[inside]
    if not np.isfinite(better).all():
        return Spanned(value=-math.inf, low=-math.inf, high=-math.inf)
    _, owner = np.unique(group[inside], return_inverse=True)
    count = np.bincount(owner)
    part = 1 / (count[owner] * len(count))
    means = np.bincount(owner, weights=better) / count
    _, code = np.unique(unit[inside], return_inverse=True)
    each = np.bincount(code, weights=part * (better - means[owner]))
    error = math.sqrt(len(each) / (len(each) - 1) * float(each @ each))
    half = float(student.ppf((LEVEL[1] - LEVEL[0] + 100) / 200, len(each) - 1)) * error
    value = float(part @ better)
    return Spanned(value=value, low=value - half, high=value + half)


def decision(result: JudgedWays, goal: Goal, *, keep: str, worth: float = 0.0, kind: str = "") -> tuple[bool, str]:
    """Whether to change anything, and why.

    Args:
        result: As given first, the proposal second.
        goal: Whose score is told.
        keep: What stays as it is where nothing is to be changed, such as "the weights".
        worth: Least gain that is worth a change, of the score.
        kind: Of losses, with a space behind it.
    """
    low, high = result.score_gain_interval
    what = _SCORES[goal.name].format(kind)
    told, stay = f"by {abs(result.score_gain):.4f} on pairs that took no part", f"keep {keep} as they are"
    if high < 0:
        return False, f"the {what} becomes worse {told}: {stay}"
    if low > 0 and result.score_gain < worth:
        return False, f"the {what} becomes better {told}, under {worth:g} nats: {stay}"
    if low > 0:
        return True, f"the {what} becomes better {told}, 90 % interval {low:.4f} to {high:.4f}"
    if result.score_gain == 0 and low == high == 0:
        return False, f"what the pairs that choose find best is what is given: {stay}"
    better = "better" if result.score_gain >= 0 else "worse"
    return False, (
        f"the {what} becomes {better} {told}, which is not told from 0 (90 % interval of the gain {low:+.4f} to "
        f"{high:+.4f}): {stay}"
    )


def _redrawn(home: Int[np.ndarray, " U"], draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draws U"]:
    """How often each unit is in samples with replacement of as many units of its home."""
    times = np.zeros((draws, len(home)))
    for code in np.unique(home):
        inside = np.flatnonzero(home == code)
        times[:, inside] = redrawn(len(inside), draws, rng)
    return times
