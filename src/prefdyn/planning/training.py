"""What a training run wrote down: its summary, one row per group, one row per pair."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prefdyn._json import SCHEMA_VERSION, plain
from prefdyn._showing import Pictured
from prefdyn.dynamics.order import learning_area, places
from prefdyn.planning.summary import pairs_columns, write_files
from prefdyn.training.probes import group_rows
from prefdyn.training.train import Training

_FINAL = {
    "loss": "final_loss",
    "margin": "final_margin",
    "reward_accuracy": "reward_accuracy",
    "policy_accuracy": "policy_accuracy",
    "chosen_change": "chosen_change",
    "rejected_change": "rejected_change",
    "chosen_falling": "chosen_falling",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport(Pictured):
    """A finished run, ready to be written."""

    training: Training

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: what the run did to all of its pairs, and in which order it was learned."""
        found, pairs, run = self.training, self.training.pairs, self.training.trajectory
        everything = np.arange(len(pairs))
        last = {
            (row["group"], row["split"]): row
            for row in group_rows(
                pairs,
                everything,
                found.settings.objective,
                found.chosen,
                found.rejected,
                step=found.settings.steps,
                time=0.0,
                eps=2.0**-52 if found.settings.precision == "float64" else 2.0**-23,
            )
        }
        split = "held_out" if pairs.held_out.any() else "train"
        areas = [learning_area(run, name, split=split) for name in pairs.groups]
        rows = []
        for code, (name, rank) in enumerate(zip(pairs.groups, places(np.array(areas)).tolist(), strict=True)):
            inside = pairs.group == code
            row: dict[str, Any] = {
                "name": name,
                "pairs": int(inside.sum()),
                "held_out_pairs": int((inside & pairs.held_out).sum()),
                "rank": rank,
            }
            for prefix, side in (("", "train"), ("held_out_", "held_out")):
                measured = last.get((name, side), {})
                for quantity, key in _FINAL.items():
                    row[f"{prefix}{key}"] = measured.get(quantity)
            for quantity in ("distinguishability", "concentration", "trace"):
                values = [
                    value for value in run.where(group=name, split="train")[quantity].to_pylist() if value is not None
                ]
                row[f"{quantity}_before"] = values[0] if values else None
                row[quantity] = values[-1] if values else None
            rows.append(plain(row))
        return rows

    def pairs(self) -> pa.Table:
        """One row per pair, as in pairs.parquet."""
        pairs, run = self.training.pairs, self.training.trajectory
        return pairs_columns(
            ids=[str(name) for name in pairs.id],
            groups=[pairs.groups[code] for code in pairs.group],
            held_out=pairs.held_out,
            chosen_tokens=pairs.chosen_length,
            rejected_tokens=pairs.rejected_length,
            ref_chosen_logps=pairs.ref_chosen if pairs.known else None,
            ref_rejected_logps=pairs.ref_rejected if pairs.known else None,
            margin=run.margins[max(run.margins)],
        )

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        found, origin = self.training, self.training.trajectory.provenance
        settings = {**found.settings.to_json(), "start_margin": found.start_margin}
        steps = found.steps.to_pylist()
        return plain(
            {
                "schema": SCHEMA_VERSION,
                "command": "train",
                "provenance": {**origin.to_json(), "settings": settings},
                "dataset": {
                    "name": origin.data.get("name", "features"),
                    "pairs": len(found.pairs),
                    "groups": len(found.pairs.groups),
                    "sha256": origin.data.get("sha256"),
                    "left_out": list(found.left_out),
                },
                "model": dict(origin.model),
                "features": {"kind": found.kind},
                "settings": settings,
                "groups": self.rows(),
                "bounds": [],
                "training": {
                    "first_batch": steps[0] if steps else None,
                    "last_batch": steps[-1] if steps else None,
                    "trained_pairs": len(found.pairs.train),
                    "model": None if found.model is None else found.model.name,
                },
                "warnings": list(found.warnings),
                "timings": dict(found.timings),
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv, pairs.parquet and trajectory.parquet into the run's folder."""
        write_files(
            folder, summary=self.summary(), groups=self.rows(), pairs=self.pairs(), run=self.training.trajectory
        )
