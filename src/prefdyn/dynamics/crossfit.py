r"""What the joint run does to pairs that it did not train on, for every pair: five runs, each without a fifth of them.

One split judges a group by the few pairs that it holds out, and another split by others. Here whole units (pairs that
hang together) are dealt into folds, group by group; a run is made without each fold, all of them in one solve, and
every pair is measured in the run that did not see it. A group's figures then rest on all of its pairs, at the price of
runs that train on four fifths of them.

Their errors are not those of independent pairs, for another draw of prompts would also train other runs. How much wider
they are depends on the data: hardly where many groups train together, by half and more where a group trains alone. So
the whole is done again a few times with the weights of units drawn anew, each in its own fold, and all errors are
widened by the ratio that the groups show together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from prefdyn._checks import at_least
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn.dynamics.descent import recorded_steps, together
from prefdyn.dynamics.engine import Run, solve
from prefdyn.dynamics.measure import Member, Outcome
from prefdyn.dynamics.problem import Pairs, spread
from prefdyn.dynamics.routes import build, cheapest
from prefdyn.dynamics.streaming import HELD_BYTES
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.maths.optimizers import SGD
from prefdyn.maths.units import Mean, mean_of

FOLDS = 5
ALONE = 1.6
"""How much wider than that of independent pairs the error of a group's loss is where it trains by itself, which is not
measured (docs/statistics.md)."""
_REDRAWN = 48
"""Groups × redraws that the widening rests on, about."""
_PAIRS = 50_000
"""Beyond so many pairs nothing is drawn anew; errors are then widened by `ALONE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFit:
    """Losses in nats of n pairs in runs that did not train on them; NaN where a pair could not be held out."""

    loss: Float[np.ndarray, " n"]
    """At the last step of the joint run."""
    area: Float[np.ndarray, " n"]
    """Mean over the steps of the joint run."""
    alone: Float[np.ndarray, " n"]
    """At the last step of the run of the pair's group by itself."""
    trained: Float[np.ndarray, " n"]
    """At the last step of the joint runs that did train on the pair, their mean."""
    best_step: Int[np.ndarray, " groups"]
    """Recorded step at which the group's held-out loss is least; -1 where it is not known."""
    best_loss: Float[np.ndarray, " groups"]
    """The group's held-out loss at that step, nats; NaN where it is not known."""
    late_speed: Float[np.ndarray, " groups"]
    """Nats per step by which the group's held-out loss falls in the second half of the run; below 0 it rises."""
    unit: Int[np.ndarray, " n"]
    """Equal integers for pairs that were held out together."""
    wider: float
    """How many times as wide as those of independent units the errors of the joint run's means are."""

    def mean(self, rows: Int[np.ndarray, " size"], which: Literal["loss", "area", "alone"] = "loss") -> Mean:
        """Mean over some pairs, such as those of a group, with its error over units."""
        return mean_of(getattr(self, which)[rows], self.unit[rows], wider=ALONE if which == "alone" else self.wider)


def crossfit(
    feats: FeatureSet,
    objective: Objective,
    unit: Int[np.ndarray, " n"],
    *,
    learning_rate: float,
    steps: int,
    folds: int = FOLDS,
    seed: int = 0,
    progress: bool = False,
) -> CrossFit:
    """Full-batch runs without each fold, jointly and group by group. Which pairs the features hold out has no say.

    Args:
        feats: Features of either kind, as the objective sees them.
        objective: The loss of the margin.
        unit: Equal integers for pairs that must be held out together.
        learning_rate: Step size of every run.
        steps: Steps of every run.
        folds: How many runs, at least 2.
        seed: Deals units into folds.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        Losses of every pair. A group with one unit has none: it cannot be trained on and held out.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(60, groups=2, width=8, half_gap=[2.0, 0.5])
        >>> found = crossfit(feats, DPO(), np.arange(120), learning_rate=2.0, steps=20)
        >>> bool(found.loss[feats.group == 0].mean() < found.loss[feats.group == 1].mean())
        True
    """
    at_least(folds, 2, name="folds")
    n = len(feats)
    sample = _sample(feats, unit, seed)
    if len(sample) < n:
        some = crossfit(
            feats.select(sample), objective, unit[sample], learning_rate=learning_rate, steps=steps, folds=folds,
            seed=seed, progress=progress,
        )  # fmt: skip
        return replace(some, unit=unit, **{name: spread(getattr(some, name), sample, n) for name in _PER_PAIR})
    fold = deal(feats, unit, folds, seed)
    pairs = replace(Pairs.of(feats), held_out=np.zeros(n, dtype=bool))
    dtype = feats.working_dtype
    width = feats.kernel_width
    run = Run(objective=objective, learning_rate=learning_rate, optimizer=SGD(), members=(Member(objective=objective),))
    recorded = _thinned(recorded_steps(steps), n * folds)
    name = cheapest(
        pairs, width, linear=True, runs=folds, steps=steps, batch=None, itemsize=dtype.itemsize,
        streamed=False,
    )  # fmt: skip
    route = build(feats, pairs, name, dtype=dtype)

    def without_each(weight: Float[np.ndarray, " n"], **shown: Any) -> tuple[np.ndarray, np.ndarray]:
        """Held-out loss of every pair at the recorded steps, and its mean loss where it is trained on."""
        masks = (fold[:, None] != np.arange(folds)) * weight[:, None]
        used = np.flatnonzero(masks.sum(axis=0) > 0)
        outcomes = solve(
            route, pairs, [run] * len(used), steps=steps, recorded=[0], kept=recorded, masks=masks[:, used],
            subset=range(len(used)), **shown,
        )  # fmt: skip
        paths, trained, times = np.full((len(recorded), n), math.nan), np.zeros(n), np.zeros(n)
        for code, (outcome,) in zip(used, outcomes, strict=True):
            inside = fold == code
            for place, step in enumerate(recorded):
                if step in outcome.margins:
                    paths[place, inside] = objective.loss(outcome.margins[step][inside])
            if steps in outcome.margins:
                trained[~inside] += objective.loss(outcome.margins[steps][~inside])
                times[~inside] += 1
        return paths, np.divide(trained, times, out=np.full(n, math.nan), where=times > 0)

    paths, trained = without_each(np.ones(n), label="Cross-fit", progress=progress)
    wider = ALONE
    if n <= _PAIRS:
        drawn = [redrawn(unit, stream(seed, "cross-fit", "redraw", str(draw))) for draw in range(redraws(feats))]
        wider = widening(feats, unit, paths[-1], drawn, [without_each(weight)[0][-1] for weight in drawn])
        if len(feats.groups) == 1:  # which trains by itself
            wider = max(wider, ALONE)
    best_step, best_loss, late_speed = _courses(feats, paths, recorded)
    return CrossFit(
        loss=paths[-1],
        area=np.trapezoid(paths, recorded, axis=0) / steps,
        alone=_alone(feats, pairs, run, fold, folds, steps, width, progress=progress),
        trained=trained,
        best_step=best_step,
        best_loss=best_loss,
        late_speed=late_speed,
        unit=unit,
        wider=wider,
    )


_PER_PAIR = ("loss", "area", "alone", "trained")


def _sample(feats: FeatureSet, unit: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " sampled"]:
    """Rows of whole units, as many as fit into memory: all, but of features that are read from a file at every step."""
    most = HELD_BYTES // (feats.kernel_width * feats.working_dtype.itemsize)
    if len(feats) <= most:
        return np.arange(len(feats))
    _, code = np.unique(unit, return_inverse=True)
    order = stream(seed, "cross-fit", "sample").permutation(int(code.max()) + 1)
    taken = np.cumsum(np.bincount(code)[order]) <= most
    return np.flatnonzero(np.isin(code, order[taken]))


def redraws(feats: FeatureSet) -> int:
    """How often units are drawn anew: more often where there are few groups to tell by."""
    return min(16, max(3, math.ceil(_REDRAWN / len(feats.groups))))


def redrawn(unit: Int[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Weight of each pair: 1, and a part of how often its unit is in a sample with replacement beyond once."""
    _, code = np.unique(unit, return_inverse=True)
    count = int(code.max()) + 1
    return 1.0 + _PART * (np.bincount(rng.integers(0, count, count), minlength=count)[code] - 1.0)


_PART = 0.25
"""Part of a resample's weights that is given. Whole resamples hold every third unit twice or more, which runs learn by
heart; a part of them shows the same errors to first order."""


def widening(
    feats: FeatureSet,
    unit: Int[np.ndarray, " n"],
    loss: Float[np.ndarray, " n"],
    weights: Sequence[Float[np.ndarray, " n"]],
    losses: Sequence[Float[np.ndarray, " n"]],
) -> float:
    """Deviation of the groups' means over redraws, as a multiple of what independent units would show; at least 1."""
    seen, expected = [], []
    for rows in feats.by_group():
        error = mean_of(loss[rows], unit[rows]).error
        means = []
        for weight, values in zip(weights, losses, strict=True):
            inside = rows[np.isfinite(values[rows])]
            if len(inside):
                means.append(np.average(values[inside], weights=weight[inside]))
        if error > 0 and len(means) > 1:
            seen.append(float(np.var(means, ddof=1)) / _PART**2)
            expected.append(error**2)
    return max(1.0, math.sqrt(sum(seen) / sum(expected))) if expected else ALONE


_MARGINS = 2**25
"""Margins that all runs keep at most, save for five steps of each."""


def _thinned(recorded: Sequence[int], pairs: int) -> list[int]:
    """The recorded steps, or fewer where there are many pairs; the first and the last among them.

    Example:
        >>> _thinned([0, 1, 2, 4, 8, 16], 10), len(_thinned(range(101), 2**30))
        ([0, 1, 2, 4, 8, 16], 5)
    """
    most = max(5, _MARGINS // max(1, pairs))
    if len(recorded) <= most:
        return list(recorded)
    return [recorded[round(place)] for place in np.linspace(0, len(recorded) - 1, most)]


def deal(feats: FeatureSet, unit: Int[np.ndarray, " n"], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Fold of each pair; -1 for pairs of groups with one unit, which every run trains on.

    Units are dealt like cards, group by group in the order of the data; a unit of several groups goes with the first.
    """
    _, code = np.unique(unit, return_inverse=True)
    fold = np.full(int(code.max(initial=-1)) + 1, -1)
    start, alone = 0, []
    for name, rows in zip(feats.groups, feats.by_group(), strict=True):
        mine = np.unique(code[rows])
        if len(mine) < 2:
            alone.append(rows)
            continue
        left = stream(seed, "cross-fit", name).permutation(mine[fold[mine] < 0])
        fold[left] = (start + np.arange(len(left))) % folds
        start += len(left)
    found = fold[code]
    for rows in alone:
        found[rows] = -1
    return found


def _alone(
    feats: FeatureSet,
    pairs: Pairs,
    run: Run,
    fold: Int[np.ndarray, " n"],
    folds: int,
    steps: int,
    width: int,
    *,
    progress: bool,
) -> Float[np.ndarray, " n"]:
    """Last held-out loss of every pair where its group trains by itself."""
    found = np.full(len(pairs), math.nan)
    members = [rows for rows in feats.by_group() if len(np.unique(fold[rows])) > 1]
    for some in track(
        together(members, folds * pairs.answers.shape[1] * width), "Cross-fit alone", unit="solves", shown=progress
    ):
        rows = np.concatenate(some)
        owner = np.repeat(np.arange(len(some)), [len(each) for each in some])
        part = replace(pairs.rows(rows), group=owner, groups=tuple(map(str, range(len(some)))))
        columns = [(place, code) for place in range(len(some)) for code in np.unique(fold[some[place]])]
        masks = np.stack([(owner == place) & (fold[rows] != code) for place, code in columns], axis=1)
        route = "weights"
        if len(some) == 1:
            route = cheapest(
                part, width, linear=True, runs=len(columns), steps=steps, batch=None,
                itemsize=feats.working_dtype.itemsize, streamed=False,  # what does not fit has been sampled
            )  # fmt: skip
        outcomes: list[list[Outcome]] = solve(
            build(feats, part, route, dtype=feats.working_dtype), part, [run] * len(columns), steps=steps,
            recorded=[0], kept=[steps], masks=masks.astype(np.float64), subset=range(len(columns)),
        )  # fmt: skip
        for (place, code), (outcome,) in zip(columns, outcomes, strict=True):
            inside = (owner == place) & (fold[rows] == code)
            if steps in outcome.margins:
                found[rows[inside]] = run.objective.loss(outcome.margins[steps][inside])
    return found


def _courses(
    feats: FeatureSet, paths: Float[np.ndarray, "recorded n"], recorded: Sequence[int]
) -> tuple[Int[np.ndarray, " groups"], Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """Per group: the step of the least held-out loss, that loss, and how fast it falls in the second half."""
    steps, losses, speeds = [], [], []
    half = int(np.argmin(np.abs(np.array(recorded[:-1]) - recorded[-1] / 2)))
    for rows in feats.by_group():
        known = rows[np.isfinite(paths[:, rows]).all(axis=0)]
        if len(known) == 0:
            steps.append(-1)
            losses.append(math.nan)
            speeds.append(math.nan)
            continue
        course = paths[:, known].mean(axis=1)
        best = int(np.argmin(course))
        steps.append(int(recorded[best]))
        losses.append(float(course[best]))
        speeds.append(float(course[half] - course[-1]) / (recorded[-1] - recorded[half]))
    return np.array(steps, dtype=np.int64), np.array(losses), np.array(speeds)
