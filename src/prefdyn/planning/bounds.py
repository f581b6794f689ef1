"""What is proved about a run: every theorem on the features, beside what the run really did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from prefdyn._json import plain
from prefdyn._shape import of_many
from prefdyn._showing import Pictured
from prefdyn.dynamics.descent import beyond_stable, descent, recorded_steps
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.planning.group_row import PREDICTED, GroupRow
from prefdyn.planning.summary import header, pairs_table, predictions, resolved_settings, write_files
from prefdyn.theory.bound import Bound
from prefdyn.theory.bounds import bounds
from prefdyn.theory.measured import plane_path, values_found
from prefdyn.trajectory import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundsCheck(Pictured):
    """One simulated run and every statement on it. `rows()` for tables, `write(folder)` for files."""

    features: FeatureSet
    trajectory: Trajectory
    bounds: tuple[Bound, ...]
    predicted: tuple[GroupRow, ...]
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join(str(item) for item in self.bounds)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per statement and group, as in `bounds` of summary.json; NaN becomes None."""
        return [plain(item.as_dict()) for item in self.bounds]

    def pairs(self) -> pa.Table:
        """One row per pair, as in pairs.parquet."""
        return pairs_table(self.features, margin=self.trajectory.margins[max(self.trajectory.margins)])

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        parts = header(self.features, command="bounds", settings=self.settings)
        proved = proved_parts(self.features, self.trajectory, self.bounds)
        return plain({**parts, "groups": self._groups(), **proved, "warnings": list(self.warnings), "timings": {}})

    def _groups(self) -> list[dict[str, Any]]:
        return [row.to_json(PREDICTED) for row in self.predicted]

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv, pairs.parquet and trajectory.parquet into an existing folder."""
        write_files(folder, summary=self.summary(), groups=self._groups(), pairs=self.pairs(), run=self.trajectory)


def check_bounds(
    feats: FeatureSet,
    objective: DPO | None = None,
    *,
    learning_rate: float | Literal["auto"] = "auto",
    steps: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> BoundsCheck:
    """Simulate one run on the features and check every statement against it.

    Args:
        feats: Features of either kind, with their split.
        objective: `DPO(beta=0.1)` if not given.
        learning_rate: Step size, or "auto": half of the largest stable step.
        steps: Full-batch steps.
        seed: Recorded with the settings; full-batch descent draws nothing at random.
        progress: Show bars on stderr where it is a terminal.
    """
    objective = objective or DPO()
    run = descent(
        feats,
        objective,
        learning_rate=learning_rate,
        steps=steps,
        margins_at=recorded_steps(steps),
        progress=progress,
    )
    found = tuple(bounds(feats, run))
    told = beyond_stable(feats, objective, learning_rate)
    return BoundsCheck(
        features=feats,
        trajectory=run,
        bounds=found,
        predicted=tuple(predictions(feats, run, objective)),
        settings=resolved_settings(feats, run, seed=seed),
        warnings=(*_left_out(feats, found), *([] if told is None else [told])),
    )


def _left_out(feats: FeatureSet, found: Sequence[Bound]) -> tuple[str, ...]:
    """Which groups the statements on two classes do not speak of."""
    spoken = {bound.group for bound in found if bound.form == "published"}
    missing = [name for name in feats.groups if name not in spoken]
    if not missing:
        return ()
    return (
        f"{len(missing)} of {len(feats.groups)} groups ({of_many(missing, 3)}) have no two classes of training pairs: "
        "of them only the drift bound on any pairs speaks.",
    )


def proved_parts(feats: FeatureSet, run: Trajectory, found: Sequence[Bound]) -> dict[str, Any]:
    """`bounds` and `theory` of summary.json: the statements, and what their pictures are drawn from."""
    values, path = values_found(feats), plane_path(run)
    train = ~feats.held_out
    margins = {step: kept[train] for step, kept in run.margins.items()}
    return {
        "bounds": [item.as_dict() for item in found],
        "theory": {
            "values": None if values is None else values.as_dict(),
            "margins": {
                "step": list(margins),
                "least": [float(kept.min()) for kept in margins.values()],
                "mean": [float(kept.mean()) for kept in margins.values()],
                "largest": [float(kept.max()) for kept in margins.values()],
            },
            "path": None if path is None else path._asdict(),
        },
    }
