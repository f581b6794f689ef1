"""Learning curves alone: features in, a trajectory and its files out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from prefdyn._json import plain
from prefdyn._showing import Pictured
from prefdyn.diagnostics.many import SHOWN_GROUPS, shown_groups
from prefdyn.diagnostics.prioritization import Prioritization, prioritization
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.problem import as_seen
from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, Objective
from prefdyn.maths.optimizers import SGD, Optimizer, Schedule
from prefdyn.planning.group_row import PREDICTED, GroupRow, columns_of
from prefdyn.planning.summary import header, pairs_table, predictions, resolved_settings, write_files
from prefdyn.trajectory import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation(Pictured):
    """One simulated run with its predictions per group. `rows()` for tables, `write(folder)` for files."""

    features: FeatureSet
    trajectory: Trajectory
    prioritization: Prioritization
    predicted: tuple[GroupRow, ...]
    settings: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: sizes, priority and what the joint run does to it; NaN becomes None."""
        return [row.to_json((*PREDICTED, "priority", "priority_low", "priority_high")) for row in self.predicted]

    def pairs(self) -> pa.Table:
        """One row per pair, as in pairs.parquet."""
        return pairs_table(self.features, margin=self.trajectory.margins[max(self.trajectory.margins)])

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        parts = header(self.features, command="simulate", settings=self.settings)
        return plain({**parts, "groups": self.rows(), "bounds": [], "warnings": [], "timings": {}})

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv, pairs.parquet and trajectory.parquet into an existing folder."""
        write_files(folder, summary=self.summary(), groups=self.rows(), pairs=self.pairs(), run=self.trajectory)


def simulate(
    feats: FeatureSet,
    objective: Objective | None = None,
    *,
    learning_rate: float | Literal["auto"] = "auto",
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    batch_size: int | Literal["full"] = "full",
    scheme: str = "epochs",
    steps: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Simulation:
    """One simulated run, jointly and each group alone, with its predictions per group, ready to be written.

    Args:
        feats: Features of either kind, with their split.
        objective: The preference objective; `DPO(beta=0.1)` if not given.
        learning_rate: Step size, or "auto": half of the largest stable step (plain descent alone).
        optimizer: Plain gradient descent if not given.
        schedule: Constant if not given.
        batch_size: Pairs per step. Of a group with fewer training pairs, its run alone takes all of them each step.
        scheme: How minibatches are drawn.
        steps: Steps of the run.
        seed: Of the minibatches; full batches draw nothing.
        progress: Show bars on stderr where it is a terminal.
    """
    objective = objective or DPO()
    plain_descent = optimizer in (None, SGD()) and schedule is None and batch_size == "full"
    if plain_descent and objective.reads == "margins":
        run = descent(feats, objective, learning_rate=learning_rate, steps=steps, margins_at=[steps], progress=progress)
    else:
        if isinstance(learning_rate, str):
            raise ConfigError(
                "the learning rate 'auto' is half of the largest stable step of full-batch gradient descent on a loss "
                "of the margin; give a number here, such as 0.01"
            )
        common: dict[str, Any] = {"objective": objective, "learning_rate": learning_rate, "schedule": schedule}
        common |= {"optimizer": optimizer or SGD(), "scheme": scheme, "seed": seed, "steps": steps}
        run = _joint_and_alone(feats, batch_size, common, progress=progress)
    priority = prioritization(
        as_seen(feats, objective),
        beta=objective.beta,
        learning_rate=run.settings["learning_rate"],
        shown=shown_groups(feats),
        unit=units(feats),
    )
    return Simulation(
        features=feats,
        trajectory=run,
        prioritization=priority,
        predicted=tuple(
            replace(row, **columns_of(first))
            for row, first in zip(predictions(feats, run, objective), priority.rows(), strict=True)
        ),
        settings=resolved_settings(feats, run, seed=seed),
    )


def _joint_and_alone(
    feats: FeatureSet, batch_size: int | Literal["full"], common: dict[str, Any], *, progress: bool
) -> Trajectory:
    """The joint run and one of each group by itself, in one Trajectory."""
    steps, dtype = common["steps"], "float32" if feats.working_dtype == np.float32 else "float64"
    joint = sweep(feats, **common, batch_size=batch_size, margins_at=[steps], progress=progress)[0]
    tables, heads = [joint.table], {}
    many = len(feats.groups) > SHOWN_GROUPS
    for name, members in zip(feats.groups, feats.by_group(), strict=True):
        count = int((~feats.held_out[members]).sum())
        if count:
            size = batch_size if batch_size == "full" or batch_size <= count else "full"
            if many:  # what a run of few pairs costs then does not grow with the others
                alone = sweep(only(feats, members, name), **common, batch_size=size, dtype=dtype)[0]
            else:
                alone = sweep(feats, **common, batch_size=size, groups=[[name]])[0]
            place = alone.table.schema.get_field_index("run")
            tables.append(alone.table.set_column(place, "run", pa.array(["alone"] * alone.table.num_rows)))
            if alone.joint_head is not None:
                heads[name] = alone.joint_head
    return Trajectory(
        table=pa.concat_tables(tables).combine_chunks(),
        settings=joint.settings,
        margins=joint.margins,
        chosen_changes=joint.chosen_changes,
        joint_head=joint.joint_head,
        alone_heads=heads,
        provenance=joint.provenance,
    )


def only(feats: FeatureSet, rows: np.ndarray, name: str) -> FeatureSet:
    """The pairs of one group, and no other group's name beside them."""
    part = feats.select(rows)
    return replace(part, group=np.zeros(len(rows), dtype=feats.group.dtype), groups=(name,))
