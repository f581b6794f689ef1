"""Learning curves alone: features in, a trajectory and its files out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from prefdyn.diagnostics.prioritization import Prioritization, prioritization
from prefdyn.dynamics.descent import descent
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, Objective
from prefdyn.planning.summary import header, pairs_table, plain, predictions, resolved_settings, write_files
from prefdyn.trajectory import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """One simulated run with its predictions per group. `rows()` for tables, `write(folder)` for files."""

    features: FeatureSet
    trajectory: Trajectory
    prioritization: Prioritization
    predicted: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: sizes, priority and what the joint run does to it; NaN becomes None."""
        levels = self.prioritization.level
        return [plain({**row, "priority": levels[code]}) for code, row in enumerate(self.predicted)]

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
    steps: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Simulation:
    """`descent` with its predictions per group, ready to be written.

    Args:
        feats: Features of either kind, with their split.
        objective: The preference objective; `DPO(beta=0.1)` if not given.
        learning_rate: Step size, or "auto": half of the largest stable step.
        steps: Full-batch steps.
        seed: Recorded with the settings; full-batch descent draws nothing at random.
        progress: Show bars on stderr where it is a terminal.
    """
    objective = objective or DPO()
    run = descent(feats, objective, learning_rate=learning_rate, steps=steps, margins_at=[steps], progress=progress)
    return Simulation(
        features=feats,
        trajectory=run,
        prioritization=prioritization(feats, beta=objective.beta, learning_rate=run.settings["learning_rate"]),
        predicted=tuple(predictions(feats, run, objective)),
        settings=resolved_settings(feats, run, seed=seed),
    )
