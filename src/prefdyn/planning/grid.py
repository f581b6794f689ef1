"""Grids of settings: what each would do, which one to take and why, and whether the order of learning holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from pyarrow import parquet

from prefdyn._csv import write_csv
from prefdyn._json import plain, write_json
from prefdyn._showing import Tabular, by_column
from prefdyn.dynamics.descent import stable_learning_rate
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.maths.optimizers import Optimizer, Schedule, optimizer
from prefdyn.planning.summary import header
from prefdyn.trajectory import Trajectory

_HALF = 0.5
"""Without a target: half of the way from an objective's start loss to the best that any of its settings reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid(Tabular):
    """Many simulated runs side by side. `rows()` gives one row per setting, `write(folder)` the files."""

    features: FeatureSet
    runs: tuple[Trajectory, ...]
    cells: tuple[Mapping[str, Any], ...]
    """Per run: its settings and what came of it; see `rows`."""
    ranks: Float[np.ndarray, "m runs"]
    """Place of each group in the order of learning: area under its loss, 1 first; NaN where the run diverged."""
    best: int | None
    """The setting to take; None where no pair is held out or every run diverged."""
    because: str
    settings: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per setting.

        `cell`, the settings, `route`, `same_as` (the cell that is one and the same run), `diverged_at`,
        `held_out_loss`, `held_out_accuracy`, `held_out_error` (standard error of that accuracy), `held_out_margin`,
        `train_loss` at the last recorded step, `target` (the loss asked for), `steps_to_target`, `order_agreement`
        (rank correlation of its learning order with the median order).
        """
        return [plain(dict(cell)) for cell in self.cells]

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        parts = header(self.features, command="simulate", settings=self.settings)
        groups = [{"name": name, "ranks": list(self.ranks[code])} for code, name in enumerate(self.features.groups)]
        return plain(
            {
                **parts,
                "groups": groups,
                "grid": {"cells": list(self.cells), "best": self.best, "because": self.because},
                "bounds": [],
                "warnings": [],
                "timings": {},
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json, cells.csv and trajectory.parquet (with the column `cell`) into an existing folder."""
        write_json(folder / "summary.json", self.summary())
        flat = [{key: _flat(value) for key, value in row.items()} for row in self.rows()]
        write_csv(pa.table(by_column(flat)), folder / "cells.csv")
        tables = [
            run.table.append_column("cell", pa.array(np.full(run.table.num_rows, place), pa.int64()))
            for place, run in enumerate(self.runs)
        ]
        parquet.write_table(pa.concat_tables(tables), folder / "trajectory.parquet")


def grid(
    feats: FeatureSet,
    objectives: Sequence[Objective],
    *,
    learning_rates: Sequence[float | Literal["auto"]],
    optimizers: Sequence[str | Optimizer] = ("sgd",),
    schedules: Sequence[Literal["constant", "linear", "cosine"]] = ("constant",),
    warmup: int = 0,
    batch_sizes: Sequence[int | Literal["full"]] = ("full",),
    scheme: str = "epochs",
    steps: Sequence[int] = (100,),
    seeds: Sequence[int] = (0,),
    target: float | None = None,
    progress: bool = True,
) -> Grid:
    """Simulate every combination of settings and say which one to take.

    Args:
        feats: Features of either kind, with their split.
        objectives: Objectives, each with its beta.
        learning_rates: Step sizes; "auto" is half of the largest stable step of each objective (plain descent alone).
        optimizers: Names or optimizers.
        schedules: Kinds of schedule.
        warmup: Steps of linear rise.
        batch_sizes: Pairs per step, or "full".
        scheme: How minibatches are drawn.
        steps: Lengths of the runs.
        seeds: Of the minibatches.
        target: Held-out loss to reach, nats; None: half of the way to the best that the objective reaches.
        progress: Show bars on stderr where it is a terminal.

    Returns:
        A Grid.

    Raises:
        ConfigError: "auto" was asked for with an optimizer that has no stable step, or a setting is out of range.
    """
    numbers = [float(rate) for rate in learning_rates if not isinstance(rate, str)]
    chosen = [optimizer(each) if isinstance(each, str) else each for each in optimizers]
    runs: list[Trajectory] = []
    same: list[int] = []
    for length in steps:
        common: dict[str, Any] = {
            "optimizer": chosen,
            "schedule": [
                None if kind == "constant" and not warmup else Schedule(kind=kind, steps=length, warmup=warmup)
                for kind in schedules
            ],
            "batch_size": list(batch_sizes),
            "scheme": scheme,
            "seed": list(seeds),
            "steps": length,
            "progress": progress,
        }
        asked: list[tuple[list[Objective], list[float], str]] = []
        if numbers:
            asked.append((list(objectives), numbers, "given"))
        if len(numbers) < len(learning_rates):
            strange = [each.name for each in chosen if not each.linear]
            if strange:
                raise ConfigError(
                    f"--learning-rate auto is half of the largest stable step of gradient descent, which {strange[0]} "
                    "is not; give numbers, such as 0.001,0.01"
                )
            asked += [
                ([each], [stable_learning_rate(feats, each)], "half of the largest stable step") for each in objectives
            ]
        for some, rates, rule in asked:
            found = sweep(feats, objective=some, learning_rate=rates, **common)
            offset = len(runs)
            for place, run in enumerate(found):
                settings = {**run.settings, "learning_rate_rule": rule}
                runs.append(_with(run, settings))
                same.append(offset + found.same_as[place])
    cells = [_cell(feats, run, place, same[place]) for place, run in enumerate(runs)]
    _add_targets(cells, runs, feats, target)
    ranks = np.column_stack([_ranks(run, feats) for run in runs])
    _add_agreement(cells, ranks)
    best, because = best_cell(cells)
    settings = {
        "objective": sorted({cell["objective"] for cell in cells}),
        "beta": sorted({cell["beta"] for cell in cells}),
        "learning_rate": sorted({cell["learning_rate"] for cell in cells}),
        "optimizer": sorted({cell["optimizer"] for cell in cells}),
        "schedule": sorted({cell["schedule"] for cell in cells}),
        "batch_size": sorted({str(cell["batch_size"]) for cell in cells}),
        "steps": sorted(set(steps)),
        "seed": list(seeds),
        "runs": len(cells),
        "solved": len(set(same)),
    }
    return Grid(
        features=feats,
        runs=tuple(runs),
        cells=tuple(cells),
        ranks=ranks,
        best=best,
        because=because,
        settings=settings,
    )


# one run ------------------------------------------------------------------------------------------------------------


def _with(run: Trajectory, settings: Mapping[str, Any]) -> Trajectory:
    return Trajectory(table=run.table, settings=settings, provenance=run.provenance)


def _split(feats: FeatureSet) -> str:
    """The split that judges: held-out pairs where there are any."""
    return "held_out" if feats.held_out.any() else "train"


def _pooled(run: Trajectory, quantity: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Recorded steps, and the mean over all pairs of the split at each."""
    rows = run.where(split=split)
    steps, pairs = rows["step"].to_numpy(), rows["pairs"].to_numpy().astype(float)
    values = np.asarray(rows[quantity].to_numpy(zero_copy_only=False), dtype=np.float64)
    places, inverse = np.unique(steps, return_inverse=True)
    mass = np.bincount(inverse, weights=pairs)
    return places, np.bincount(inverse, weights=pairs * values) / np.maximum(mass, 1)


def _cell(feats: FeatureSet, run: Trajectory, place: int, same: int) -> dict[str, Any]:
    found: dict[str, Any] = {"cell": place, **run.settings, "same_as": same}
    found.setdefault("diverged_at", None)
    for split, quantities in (("held_out", ("loss", "margin")), ("train", ("loss",))):
        for quantity in quantities:
            _, values = _pooled(run, quantity, split)
            found[f"{split}_{quantity}"] = float(values[-1]) if len(values) else math.nan
    steps, accuracy = _pooled(run, "reward_accuracy", "held_out")
    count = int(feats.held_out.sum())
    share = float(accuracy[-1]) if len(accuracy) else math.nan
    if found["diverged_at"] is not None:
        share = math.nan
        found |= {"held_out_loss": math.nan, "held_out_margin": math.nan, "train_loss": math.nan}
    found["held_out_accuracy"] = share
    found["held_out_error"] = math.sqrt(share * (1 - share) / count) if count and not math.isnan(share) else math.nan
    found["last_step"] = int(steps[-1]) if len(steps) else None
    return found


def _add_targets(
    cells: list[dict[str, Any]], runs: Sequence[Trajectory], feats: FeatureSet, target: float | None
) -> None:
    """The loss to reach, per objective and beta-free kind, and the first recorded step at which each run has it."""
    curves = [_pooled(run, "loss", _split(feats)) for run in runs]
    for kind in {cell["objective"] for cell in cells}:
        inside = [place for place, cell in enumerate(cells) if cell["objective"] == kind]
        fine = [place for place in inside if cells[place]["diverged_at"] is None and len(curves[place][1])]
        for place in inside:
            wanted = target
            if wanted is None and fine:
                beta = cells[place]["beta"]
                peers = [
                    p for p in fine if kind != "ipo" or cells[p]["beta"] == beta
                ]  # only ipo's loss scales with beta
                if peers:
                    start = float(curves[peers[0]][1][0])
                    wanted = start - _HALF * (start - min(float(curves[p][1].min()) for p in peers))
            steps, losses = curves[place]
            reached = [] if wanted is None else np.flatnonzero(losses <= wanted + 1e-12)
            known = len(reached) and steps[reached[0]] > 0 and cells[place]["diverged_at"] is None
            cells[place]["target"] = math.nan if wanted is None else wanted
            cells[place]["steps_to_target"] = int(steps[reached[0]]) if known else None


def _ranks(run: Trajectory, feats: FeatureSet) -> Float[np.ndarray, " m"]:
    """Place of each group by the area under its loss on the judging split, ties sharing the better one."""
    areas = np.full(len(feats.groups), math.nan)
    if run.settings.get("diverged_at") is None:
        rows = run.where(split=_split(feats))
        names, steps = np.array(rows["group"].to_pylist()), rows["step"].to_numpy()
        losses = np.asarray(rows["loss"].to_numpy(zero_copy_only=False), dtype=np.float64)
        for code, name in enumerate(feats.groups):
            inside = names == name
            if inside.sum() > 1:
                areas[code] = np.trapezoid(losses[inside], steps[inside])
    known = np.isfinite(areas)
    ranks = np.full(len(areas), math.nan)
    ranks[known] = [1 + np.sum(areas[known] < area) for area in areas[known]]
    return ranks


# all runs -----------------------------------------------------------------------------------------------------------


def _add_agreement(cells: list[dict[str, Any]], ranks: Float[np.ndarray, "m runs"]) -> None:
    """Spearman's correlation of each run's order with the median order; None where it cannot be told."""
    fine = [place for place in range(ranks.shape[1]) if np.isfinite(ranks[:, place]).any()]
    known = np.flatnonzero(np.isfinite(ranks[:, fine]).all(axis=1)) if fine else np.zeros(0, dtype=int)
    middle = np.median(ranks[known][:, fine], axis=1) if len(known) else np.zeros(0)
    for place, cell in enumerate(cells):
        own = ranks[known, place]
        agreement = spearman(own, middle) if place in fine else math.nan
        cell["order_agreement"] = None if math.isnan(agreement) else agreement


def best_cell(cells: Sequence[Mapping[str, Any]]) -> tuple[int | None, str]:
    """The fastest setting whose held-out accuracy is within one standard error of the best: simple beats lucky.

    Args:
        cells: `cell`, `diverged_at`, `held_out_accuracy`, `held_out_error` and `steps_to_target` of each.

    Returns:
        The number of the cell, and why; None where nothing can be proposed.
    """
    fine = [c for c in cells if c["diverged_at"] is None and not math.isnan(c["held_out_accuracy"])]
    if not fine or math.isnan(fine[0]["held_out_error"]):
        return None, "no setting is proposed: no pair is held out, or every run diverged"
    top = max(fine, key=lambda c: c["held_out_accuracy"])
    floor = top["held_out_accuracy"] - top["held_out_error"]
    near = [c for c in fine if c["held_out_accuracy"] >= floor]
    quick = [c for c in near if c["steps_to_target"] is not None]
    pick = min(quick or near, key=lambda c: (c["steps_to_target"] or math.inf, -c["held_out_accuracy"], c["cell"]))
    pace = f", and it is the first of those to reach its target, in {pick['steps_to_target']} steps" if quick else ""
    return int(pick["cell"]), (
        f"its held-out accuracy {pick['held_out_accuracy']:.3f} is within one standard error "
        f"({top['held_out_error']:.3f}) of the best, {top['held_out_accuracy']:.3f}, as is that of {len(near) - 1} of "
        f"{len(fine) - 1} other settings{pace}"
    )


def _flat(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
