"""What comes of the runs, in numbers: by way of training, source, number of values and seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefdyn.dynamics.order import area
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.clusters import cluster_margins, clusters
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.published import VALUES
from prefdyn.experiments.recipe import Done
from prefdyn.experiments.statistics import at_step
from prefdyn.experiments.value_scaling.runs import HEADS, WHOLES, counts
from prefdyn.experiments.values import Company, Sets, by_count, exponent, mean_at, mean_curve, ring, value_sets
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
_COLUMNS = {"margin": "margin", "fall": "loss", "accuracy": "reward_accuracy", "policy": "policy_accuracy"}
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


def measured_of(landed: Landed) -> dict[str, Any]:
    """What the claims are judged by."""
    return {
        "values": list(landed.sets),
        "ways": {name: _series(runs, landed.seeds) for name, runs in {**landed.heads, **landed.wholes}.items()},
        "ring": {way: {source: _in_company(landed, way, source) for source in SOURCES} for way in HEADS},
        "clusters": _on_clusters(list(landed.sets), landed.seeds),
        "theorem": _theorem(landed),
        "laws": _laws(landed),
    }


# by number of values -------------------------------------------------------------------------------------------------


def _series(runs: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    """Per source, quantity, split and phase: one number per K, seed by seed; and what was learned."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        rows = [[_came_to(run) for run in runs[source, seed]] for seed in seeds]
        found[source] = {key: [[each[key] for each in row] for row in rows] for key in rows[0][0]}
        found[source]["accuracies"] = [float(np.mean(row)) for row in found[source]["accuracy", "held_out", "late"]]
    return found


def _came_to(run: Trajectory) -> dict[tuple[str, str, str], float]:
    """What a run came to, by quantity, split and phase. `fall`: of the loss below log 2."""
    found = {}
    for quantity, column in _COLUMNS.items():
        for split in SPLITS:
            steps, values = mean_curve(run, column, split)
            values = LOG2 - values if quantity == "fall" else values
            found[quantity, split, "early"] = at_step(steps, values, max(1.0, 0.1 * float(steps[-1])))
            found[quantity, split, "area"] = area(steps, values)
            found[quantity, split, "late"] = float(values[-1])
    return found


def _in_company(landed: Landed, way: str, source: str) -> dict[Any, Any]:
    """Of the ring: margins by K at a tenth of the steps and at the end, and errors of values together and apart."""
    found: dict[Any, Any] = {("margin", split, phase): [] for split in SPLITS for phase in ("early", "late")}
    found |= {"accuracies": [], "shared": [], "own": []}
    for seed in landed.seeds:
        company = landed.rings[way, source, seed]
        for split in SPLITS:
            for phase, share in (("early", 0.1), ("late", 1.0)):
                margins = [mean_at(group, "margin", split, share) for group in company.values()]
                found["margin", split, phase].append(margins)
        accuracies = [mean_at(group, "reward_accuracy", "held_out", 1.0) for group in company.values()]
        found["accuracies"].append(float(np.mean(accuracies)))
        found["shared"].append(1 - accuracies[-1])
        found["own"].append(1 - mean_at(company[1], "reward_accuracy", "held_out", 1 / max(landed.sets)))
    return found


# the theorem ---------------------------------------------------------------------------------------------------------


def _on_clusters(numbers: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    """The same training on the paper's clusters: exponents of K, and margins over the lines of Theorem 4.2."""
    beta = 0.1
    rate = horizon(1, beta=beta, learning_rate=1.0) / _STEPS
    ways = {
        "descent": {"dense": False, "optimizer": "sgd", "learning_rate": rate},
        "adam, axes": {"dense": False, "optimizer": "adam", "learning_rate": 1e-3},
        "adam, dense": {"dense": True, "optimizer": "adam", "learning_rate": 1e-3},
    }
    found: dict[str, Any] = {
        name: [
            exponent(VALUES, cluster_margins(VALUES, seed=seed, beta=beta, steps=_STEPS, **settings)) for seed in seeds
        ]
        for name, settings in ways.items()
    }
    shares = []
    for seed in seeds:
        for count in numbers:
            feats = clusters(count, tokens="distinct", seed=seed)
            run = sweep(feats, beta=beta, learning_rate=count * rate, steps=_STEPS, margins_at=range(1, _STEPS + 1))[0]
            shares.append(beside_lines(run, np.arange(len(feats)), count, 1.0))
    return found | {"lines": np.min(shares, axis=0).tolist()}


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


def _laws(landed: Landed) -> dict[str, list[list[float]]]:
    """Test errors of the early head by seed and K: as measured, and by the laws at the geometry that is measured."""
    found: dict[str, list[list[float]]] = {name: [] for name in ("measured", "shared", "own", "floor", "more")}
    for seed in landed.seeds:
        rows = []
        for place, count in enumerate(landed.sets):
            run = landed.heads["descent"][MODEL, seed][place]
            error = 1 - mean_at([run], "reward_accuracy", "held_out", 0.1)
            rows.append((error, *_predicted(landed.shapes[seed][count], count)))
        for name, column in zip(found, zip(*rows, strict=True), strict=True):
            found[name].append(list(column))
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
