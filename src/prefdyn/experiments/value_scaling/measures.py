"""What comes of the runs, in numbers: by way of training, source, number of values and seed."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefdyn.dynamics.order import area
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.clusters import clusters
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.recipe import Done
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.statistics import at_step, over_seeds, straight_line
from prefdyn.experiments.value_scaling.runs import HEADS, WHOLES, counts
from prefdyn.experiments.values import Company, Sets, by_count, mean_at, mean_curve, ring, value_sets
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import LOG2
from prefdyn.theory.measured import ValuesFound, values_found
from prefdyn.theory.value_scaling import (
    ClusterModel,
    horizon,
    irreducible_error,
    margin_lines,
    mean_early_error,
    scaled_time,
)
from prefdyn.trajectory import Trajectory

SPLITS = {"train": "training", "held_out": "test"}
MORE = 1000
"""Times the pairs, for what more pairs would bring."""
_COLUMNS = {
    "margin": "margin", "fall": "loss", "reward accuracy": "reward_accuracy", "policy accuracy": "policy_accuracy",
}  # fmt: skip
_STEPS = 50
"""Steps of training on the paper's own clusters."""

Runs = Mapping[tuple[str, int], Sequence[Trajectory]]
"""Source and seed → one run per number of values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What the runs left, read once."""

    sets: Sets
    seeds: tuple[int, ...]
    heads: Mapping[str, Runs]
    wholes: Mapping[str, Runs]
    rings: Mapping[tuple[str, str, int], Company]
    """Way, source and seed → runs of every company."""
    feats: Mapping[int, FeatureSet]
    """Of the model, by seed."""
    shapes: Mapping[int, Mapping[int, ValuesFound | None]]
    """Seed → number of values → its training pairs as the paper's clusters; None where they cannot be seen so."""

    @classmethod
    def of(cls, context: Context, done: Done) -> "Landed":
        """Read the outcomes under a recipe's own names."""
        sets, seeds = value_sets(context), context.seeds
        each = [(source, seed) for source in SOURCES for seed in seeds]
        companies = ring(sets)
        feats = {seed: done["features", MODEL, seed].features for seed in seeds}
        return cls(
            sets=sets,
            seeds=seeds,
            heads={
                way: {key: done[way, *key].trajectories for key in each}
                for way in (*HEADS, "adam, code")
                if (way, *each[0]) in done
            },
            wholes={
                name: {key: [done[name, *key, count].trajectory for count in counts(sets, way)] for key in each}
                for way in WHOLES
                for name in (way, f"{way}, code")
                if (name, *each[0], min(sets)) in done
            },
            rings={
                (way, *key): by_count(done["ring", way, *key].trajectories, companies) for way in HEADS for key in each
            },
            feats=feats,
            shapes={
                seed: {
                    count: values_found(found.select(np.concatenate([found.members(name) for name in names])))
                    for count, names in sets.items()
                }
                for seed, found in feats.items()
            },
        )


def measured_of(landed: Landed, one_model: bool) -> Rows:
    """What the claims are judged by; K is the unit of all rows."""
    rows = [row for seed in landed.seeds for source in SOURCES for row in _axis(landed, source, seed)]
    facts: dict[str, Any] = {"clusters": _on_clusters(list(landed.sets), landed.seeds), "theorem": _theorem(landed)}
    for way, runs in {**landed.heads, **landed.wholes}.items():
        for source, seed in runs:
            rows += _series(way, runs[source, seed], source, seed)
        if len(landed.sets) > 1:
            facts[way] = _fitted([_errors(runs[MODEL, seed]) for seed in landed.seeds], landed.sets)
    for (way, source, seed), company in landed.rings.items():
        rows += _in_company(company, len(landed.sets), max(landed.sets), way, source, seed)
    laws = _laws(landed)
    lacking = {}
    if one_model:
        lacking |= dict.fromkeys(("other", "other table"), "one model was given; give a second --model")
    for seed, found in zip(landed.seeds, laws, strict=True):
        mine = {"figure": LAWS, "seed": seed}
        for name, values in found.items():
            rows += [Row(quantity=name, value=value, group=str(count), **mine) for count, value in values.items()]
            rows.append(Row(quantity=name, value=list(values.values())[-1], figure=MORE_PAIRS, seed=seed))
    facts[LAWS] = {name: np.mean([list(found[name].values()) for found in laws], axis=0).tolist() for name in PREDICTED}
    facts[MORE_PAIRS] = {"floor_told": over_seeds([list(found["floor"].values())[-1] for found in laws]).value}
    without = [list(found["shared"].values()) for found in laws]
    if not np.isfinite(without).all(axis=1).any():
        lacking[LAWS] = _NO_GAPS
    if not any(row[-1] > 0 for row in without):
        nothing = any(row[-1] == 0 for row in without)
        lacking[MORE_PAIRS] = "by the law there is no error that more pairs could lower" if nothing else _NO_GAPS
    return Rows(rows, lacking=lacking, facts=facts)


LAWS, MORE_PAIRS = "error laws", "error law of the largest K"
PREDICTED = ("measured", "shared", "own", "floor")
_NO_GAPS = "the gaps of these values are no larger than sampling noise, so the law has no numbers"


def _axis(landed: Landed, source: str, seed: int) -> list[Row]:
    return [Row(quantity="K", value=float(count), source=source, seed=seed, group=str(count)) for count in landed.sets]


# by number of values -------------------------------------------------------------------------------------------------


def _series(way: str, runs: Sequence[Trajectory], source: str, seed: int) -> Iterator[Row]:
    """What the runs of one way came to, by quantity, split and phase. `fall`: of the loss below log 2."""
    for run in runs:
        count = str(len(run.groups))
        mine = {"figure": way, "source": source, "seed": seed, "group": count}
        for quantity, split in itertools.product(_COLUMNS, SPLITS):
            steps, values = mean_curve(run, _COLUMNS[quantity], split)
            values = LOG2 - values if quantity == "fall" else values
            early, late = at_step(steps, values, max(1.0, 0.1 * float(steps[-1]))), float(values[-1])
            for step, value in (("early", early), ("area", area(steps, values)), ("late", late)):
                yield Row(quantity=quantity, value=value, split=split, step=step, **mine)
            if (quantity, split) == ("reward accuracy", "held_out"):
                yield Row(quantity="accuracy", value=late, **mine)
                yield Row(quantity="error", value=1 - late, **mine)


def _errors(runs: Sequence[Trajectory]) -> list[float]:
    return [1 - float(mean_curve(run, "reward_accuracy", "held_out")[1][-1]) for run in runs]


def _fitted(errors: Sequence[Sequence[float]], counts: Iterable[int]) -> dict[str, float]:
    """The straight line through the test errors, mean of the seeds."""
    mean = np.mean(errors, axis=0).tolist()
    slope, start, share = straight_line(list(counts)[: len(mean)], mean)
    return {"slope": slope, "intercept": start, "r_squared_of_the_mean": share}


def ring_of(way: str) -> str:
    """What rows of a way call its runs in the company of neighbours on a ring."""
    return f"{way}, on a ring"


def _in_company(company: Company, numbers: int, most: int, way: str, source: str, seed: int) -> Iterator[Row]:
    """Of the ring: margins by K at a tenth of the steps and at the end, and errors of values together and apart."""
    mine = {"figure": ring_of(way), "source": source, "seed": seed}
    for count, group in company.items():
        for split in SPLITS:
            for phase, share in (("early", 0.1), ("late", 1.0)):
                value = mean_at(group, "margin", split, share)
                yield Row(quantity="margin", value=value, split=split, step=phase, group=str(count), **mine)
        accuracy = mean_at(group, "reward_accuracy", "held_out", 1.0)
        yield Row(quantity="accuracy", value=accuracy, group=str(count), **mine)
        if count == most:
            yield Row(quantity="shared", value=1 - accuracy, **mine)
        if count == 1:
            yield Row(quantity="own", value=1 - mean_at(group, "reward_accuracy", "held_out", 1 / most), **mine)


# the theorem ---------------------------------------------------------------------------------------------------------


def _on_clusters(numbers: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    """The same training on the paper's clusters: margins over the lines of Theorem 4.2, the least of each."""
    beta = 0.1
    rate = horizon(1, beta=beta, learning_rate=1.0) / _STEPS
    shares = []
    for seed in seeds:
        for count in numbers:
            feats = clusters(count, tokens="distinct", seed=seed)
            run = sweep(feats, beta=beta, learning_rate=count * rate, steps=_STEPS, margins_at=range(1, _STEPS + 1))[0]
            shares.append(beside_lines(run, np.arange(len(feats)), count, 1.0))
    return {"lines": np.min(shares, axis=0).tolist()}


def beside_lines(run: Trajectory, rows: np.ndarray, count: int, half_gap: float) -> tuple[float, float]:
    """Single margins over the lines of Theorem 4.2: the least of margin over r_L, and of r_U over margin.

    Args:
        run: Gradient descent that kept every pair's margin at some steps.
        rows: Pairs that were trained on.
        count: K.
        half_gap: In the unit of the features.

    Returns:
        Two numbers, 1 or above where no margin leaves the lines at a kept step up to tau_1; NaN without such a step.
    """
    setting = {"beta": run.settings["beta"], "learning_rate": run.settings["learning_rate"], "half_gap": half_gap}
    last = horizon(count, **setting) * (1 + 1e-9)
    low, high = [], []
    for step, margins in run.margins.items():
        if 0 < step <= last:
            lower, upper = margin_lines(scaled_time(count, steps=step, **setting))
            largest = float(margins[rows].max())
            low.append(float(margins[rows].min() / lower))
            high.append(float(upper) / largest if largest > 0 else math.inf)
    return min(low, default=math.nan), min(high, default=math.nan)


def _theorem(landed: Landed) -> dict[str, Any]:
    """Theorem 4.2 beside the runs by gradient descent: its conditions, and single margins over its lines."""
    failing: set[str] = set()
    found: dict[str, Any] = {"low": {}, "high": {}, "horizon": {}}
    seen = 0
    for place, (count, names) in enumerate(landed.sets.items()):
        shares = [(math.nan, math.nan)]
        for seed in landed.seeds:
            shape, run = landed.shapes[seed][count], landed.heads["descent"][MODEL, seed][place]
            if shape is None:
                continue
            seen += 1
            rows = np.concatenate([landed.feats[seed].members(name) for name in names])
            shares.append(beside_lines(run, rows[~landed.feats[seed].held_out[rows]], count, shape.half_gap))
            conditions = (*shape.model.conditions(), *shape.conditions)
            failing |= {condition.says for condition in conditions if condition.holds is False}
            setting = {name: run.settings[name] for name in ("beta", "learning_rate")}
            found["horizon"][count] = horizon(count, half_gap=shape.half_gap, **setting)
        found["low"][count], found["high"][count] = np.fmin.reduce(shares, axis=0).tolist()
    return found | {"applies": seen > 0 and not failing, "failing": sorted(failing)}


# the laws ------------------------------------------------------------------------------------------------------------


def _laws(landed: Landed) -> list[dict[str, dict[int, float]]]:
    """Test errors of the early head by seed and K: as measured, and by the laws at the geometry that is measured."""
    found = []
    for seed in landed.seeds:
        mine: dict[str, dict[int, float]] = {name: {} for name in (*PREDICTED, "more")}
        for place, count in enumerate(landed.sets):
            run = landed.heads["descent"][MODEL, seed][place]
            error = 1 - mean_at([run], "reward_accuracy", "held_out", 0.1)
            for name, value in zip(mine, (error, *_predicted(landed.shapes[seed][count], count)), strict=True):
                mine[name][count] = value
        shared, more = mine["shared"][max(landed.sets)], mine["more"][max(landed.sets)]
        mine["left"] = {max(landed.sets): more / shared if shared > 0 else math.nan}
        found.append(mine)
    return found


def _predicted(shape: ValuesFound | None, count: int) -> tuple[float, ...]:
    """Error with shared answers, with answers of their own, for ever so many pairs, and for more pairs."""
    if shape is None or math.isnan(noise := without_sampling(shape.model)):
        return (math.nan,) * 4
    model = shape.model
    given: dict[str, Any] = {
        "noise": noise, "width": model.width, "shared_norm": model.shared_norm * noise / model.noise,
    }  # fmt: skip
    return (
        mean_early_error(count, per_cluster=model.per_cluster, shared=True, **given),
        mean_early_error(per_cluster=model.per_cluster, **given),
        irreducible_error(count, noise),
        mean_early_error(count, per_cluster=MORE * model.per_cluster, shared=True, **given),
    )


def without_sampling(model: ClusterModel) -> float:
    r"""Noise v in units of the true half gap, not of the sample's as the model has it; NaN where all of that is noise.

    Sampling adds $d\sigma^2/2Q$ to the square of a half gap: $v^2 = \hat v^2/(1 - d \hat v^2/2Q)$.

    Example:
        >>> model = ClusterModel(values=1, per_cluster=50, width=100, noise=0.5, shared_norm=1.0)
        >>> round(without_sampling(model), 6)  # 0.25/(1 - 0.25)
        0.57735
    """
    left = 1 - model.total_variance / (2 * model.per_cluster)
    return model.noise / math.sqrt(left) if left > 0 else math.nan
