"""Factors on groups that are found in linear runs of the LoRA or full run that will be made (THEORY 13).

The training pairs are dealt into folds, unit by unit. Every try at factors is as many linear runs, each without one
fold, whose losses it is judged by: so a search reads every training pair, and never one that its run was trained on.
All runs of a seed are columns of one solve over one set of gradients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.maths.objectives import Objective
from prefdyn.maths.units import mean_of
from prefdyn.planning.forecast import sample_of
from prefdyn.planning.goals import Goal, Measure, start_loss
from prefdyn.planning.mirror import mirror
from prefdyn.training.linear import Linearised, linear_margins, linear_modules, linearise, starts
from prefdyn.training.loop import Loop
from prefdyn.training.probes import PairTable, probe_rows
from prefdyn.training.rehearse import Bench, Sample
from prefdyn.training.settings import TrainingSettings
from prefdyn.training.subjects import Models, whole_model

FOLDS = 3
SEEDS = 2
"""Batch orders and adapter starts that a search looks at."""
ROUNDS = 8
_APART = 0.1
"""Change of a log factor by which slopes are taken."""
_COLUMNS = 64
"""Runs in one solve at most."""
_PAIRS = 2_000
"""Pairs that are looked at: all where there are no more."""
_FEWEST = 8
"""And at least of each group in each split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRuns:
    """Linear runs from one set of gradients, with several batch orders and adapter starts."""

    begun: Sequence[tuple[Loop, Linearised]]
    """One for each seed."""
    pairs: PairTable
    """All pairs."""
    sample: Sample
    """Held-out pairs, which are measured; they are the last rows."""
    unit: Int[np.ndarray, " k"]
    """Of the training pairs: equal integers for pairs that hang together."""
    objective: Objective

    @classmethod
    def of(
        cls,
        data: PreferenceDataset,
        models: Models,
        settings: TrainingSettings,
        *,
        seeds: int,
        progress: bool = True,
    ) -> "LinearRuns":
        """Gradients at the start of a LoRA or full run, once for all.

        Args:
            data: The pairs, with their split.
            models: What is trained.
            settings: Of the run.
            seeds: Batch orders and adapter starts, from the run's own seed on.
            progress: Show bars on stderr where it is a terminal.

        Raises:
            DataError: No usable pair is held out.
        """
        per_cell = "all" if len(data) <= _PAIRS else max(_FEWEST, _PAIRS // (2 * len(data.groups)))
        chosen = {each.name: getattr(settings, each.name) for each in fields(settings)}
        for name in ("tune", "objective"):
            del chosen[name]
        chosen |= {"probes": (), "probe_pairs": per_cell}
        subject, settings = whole_model(data, models, settings.objective, None, settings.tune, chosen)
        looked = probe_rows(subject.pairs, None if per_cell == "all" else int(per_cell), seed=settings.seed)
        sample = sample_of(data, subject, looked)
        train = looked[~subject.pairs.held_out[looked]]
        bench, modules = Bench.of(subject, settings, sample), linear_modules(subject, settings.tune)[0]
        models.tell(f"Gradients of {len(looked)} pairs, for linear runs of {settings.tune}.")
        found = linearise(subject, bench.loop(settings), np.concatenate([train, sample.rows]), progress=progress)
        begun = []
        for seed in range(settings.seed, settings.seed + seeds):
            loop = bench.loop(replace(settings, seed=seed))
            begun.append((loop, replace(found, start=starts(subject, modules, settings))))
        unit = data.clusters.of[subject.scorer.pairs.row[train]]  # type: ignore[union-attr,index]
        return cls(begun=begun, pairs=subject.pairs, sample=sample, unit=unit, objective=settings.objective)

    @property
    def group(self) -> Int[np.ndarray, " rows"]:
        """Of every row, training pairs first, as `pairs.groups` numbers them."""
        return self.pairs.group[self.begun[0][1].rows]

    def ends(
        self, factors: Float[np.ndarray, "rows R"], *, stretch: int, seeds: int | None = None
    ) -> Float[np.ndarray, "seeds R rows"]:
        """Margins of all rows at the end of runs whose pairs' weights are multiplied by these columns.

        Args:
            factors: Not below 0.
            stretch: How many times the run's steps they take.
            seeds: How many of the seeds; None: all.
        """
        found = []
        for loop, begun in self.begun[:seeds]:
            last, measured = stretch * loop.settings.steps, len(self.sample.rows)
            parts = [
                linear_margins(begun, loop, measured, stretch=stretch, records=[last], factors=some, every=True)[1][0]
                for some in np.array_split(factors, math.ceil(factors.shape[1] / _COLUMNS), axis=1)
            ]
            found.append(np.concatenate(parts))
        return np.stack(found)


def dealt(
    group: Int[np.ndarray, " k"], unit: Int[np.ndarray, " k"], names: Sequence[str], *, folds: int, seed: int
) -> Int[np.ndarray, " k"]:
    """Fold of each pair, whole units at a time; -1 for pairs of groups with fewer units than folds.

    Example:
        >>> fold = dealt(np.array([0, 0, 0, 1]), np.array([5, 6, 6, 7]), ("a", "b"), folds=2, seed=0)
        >>> bool(fold[1] == fold[2] != fold[0]), fold[3].item()
        (True, -1)
    """
    place = np.full(int(unit.max(initial=-1)) + 1, -1)
    few = []
    for code, name in enumerate(names):
        mine = np.unique(unit[group == code])
        if len(mine) < folds:
            few.append(code)
            continue
        left = stream(seed, "run-search", name).permutation(mine[place[mine] < 0])
        place[left] = np.arange(len(left)) % folds
    found = place[unit]
    found[np.isin(unit, unit[np.isin(group, few)])] = -1
    return found


def run_search(
    runs: LinearRuns,
    goal: Goal,
    starting: Float[np.ndarray, "m starts"],
    *,
    floor: float,
    ceiling: float,
    seed: int,
    rounds: int = ROUNDS,
    progress: bool = True,
) -> Float[np.ndarray, " m"]:
    """Factors of each group for a goal, with mean 1 over the training weight.

    Args:
        runs: Linear runs of the run that will be made.
        goal: Not `equal`, which takes runs of each group alone.
        starting: Factors to begin with, groups as `runs.pairs.groups` has them; the first are those as given.
        floor: Smallest factor.
        ceiling: Largest.
        seed: Deals units into folds.
        rounds: At most.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        Factors; those of groups with fewer units than folds move only with the others.
    """
    names, unit, table = runs.pairs.groups, runs.unit, runs.pairs
    m, k, group = len(names), len(unit), runs.group
    weight = table.weight[table.train]
    shares = np.bincount(table.group[table.train], weights=weight, minlength=m) / weight.sum()
    fold = dealt(group[:k], unit, names, folds=FOLDS, seed=seed)
    inside = [np.flatnonzero((fold >= 0) & (group[:k] == code)) for code in range(m)]
    as_given = _crossed(runs, np.ones((len(group), 1)), fold)
    measure = goal.measure(runs.objective, list(names), group[:k], as_given.mean(axis=0)[0])
    losses = partial(_losses, runs, measure, fold, inside)
    score = goal.score(list(names), losses(np.ones((m, 1)))[:, 0], start=start_loss(runs.objective))
    read = measure(as_given).mean(axis=0)[0]
    errors = [
        abs(score.scale[code]) * mean_of(read[rows], unit[rows]).error
        for code, rows in enumerate(inside) if np.isfinite(score.scale[code])
    ]  # fmt: skip
    bar = iter(track(range(rounds), "Search in linear runs", unit="rounds", shown=progress))

    def slopes(factors: Float[np.ndarray, " m"], sums: Float[np.ndarray, "sums m"]) -> Float[np.ndarray, "sums m"]:
        next(bar, None)
        log = np.log(factors)[:, None] + np.concatenate([np.zeros((m, 1)), _APART * np.eye(m)], axis=1)
        found = losses(np.exp(log))
        return sums @ np.nan_to_num((found[:, 1:] - found[:, :1]) / _APART)

    best = mirror(
        losses, slopes, score, shares, np.array([len(rows) > 0 for rows in inside]) & (shares > 0), starting,
        error=float(np.median(errors)), floor=floor, ceiling=ceiling, rounds=rounds,
    )  # fmt: skip
    for _ in bar:
        pass
    return best.factors


def _crossed(
    runs: LinearRuns, factors: Float[np.ndarray, "rows tried"], fold: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "seeds tried k"]:
    """Margins of the training pairs in runs without their fold; of those in no fold, in the first run."""
    k, tried = len(fold), factors.shape[1]
    columns = np.repeat(factors, FOLDS, axis=1)
    columns[:k] *= np.tile(fold[:, None] != np.arange(FOLDS), (1, tried))
    found = runs.ends(columns, stretch=1, seeds=SEEDS)
    return found.reshape(len(found), tried, FOLDS, -1)[:, :, np.maximum(fold, 0), np.arange(k)]


def _losses(
    runs: LinearRuns,
    measure: Measure,
    fold: Int[np.ndarray, " k"],
    inside: Sequence[Int[np.ndarray, " n"]],
    columns: Float[np.ndarray, "m tried"],
) -> Float[np.ndarray, "m tried"]:
    """Means over each group's training pairs and over seeds of what is read; NaN for groups in no fold."""
    read = measure(_crossed(runs, columns[runs.group], fold)).mean(axis=0)
    return np.stack([
        read[:, rows].mean(axis=1) if len(rows) else np.full(len(read), math.nan) for rows in inside
    ])  # fmt: skip
