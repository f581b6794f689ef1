"""The plane of the third paper, for a beta alone or with a run's own path laid over it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn._checks import positive
from prefdyn._json import SCHEMA_VERSION, plain, write_json
from prefdyn.errors import ConfigError, DataError
from prefdyn.provenance import Provenance, versions
from prefdyn.theory import gradient_field as plane
from prefdyn.theory.bound import Bound
from prefdyn.theory.bounds import plane_bounds
from prefdyn.theory.gradient_field.plane import references
from prefdyn.theory.measured import PlanePath, plane_path
from prefdyn.trajectory import Trajectory

RATIOS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
"""Values of x1/x2 at which the field is told."""
BETAS = (1e-12, 1e100)
"""Below, the loss is one number over the whole plane to the digits of a double; above, it leaves their range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldStudy:
    """The field at one beta: loss, pulls and time along the circle from the start, and what they say of a run."""

    beta: float
    ref_chosen: float | None
    ref_rejected: float | None
    path: PlanePath | None
    bounds: tuple[Bound, ...]
    provenance: Provenance = field(default_factory=lambda: Provenance(versions=versions()))

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per ratio x1/x2 along the circle through (1, 1), on which gradient flow stays.

        `time`: units of flow time since (1, 1); below the start it is None.
        """
        rows = []
        for ratio in RATIOS:
            x1 = float(np.sqrt(2) * ratio / np.hypot(1, ratio))
            x2 = x1 / ratio
            first, second = plane.field_gradient(x1, x2, beta=self.beta)
            time = plane.flow_time(beta=self.beta, until=1 / ratio) if ratio >= 1 else None
            rows.append(
                {
                    "ratio": ratio,
                    "x1": x1,
                    "x2": x2,
                    "loss": float(plane.field_loss(x1, x2, beta=self.beta)),
                    "pull_chosen": -float(first),
                    "pull_rejected": -float(second),
                    "time": time,
                }
            )
        return rows

    def edges(self) -> list[dict[str, Any]]:
        """One dictionary per edge of the plane: what both derivatives tend to."""
        return [
            {
                "edge": edge.edge,
                "dx1": edge.chosen_formula,
                "dx2": edge.rejected_formula,
            }
            for edge in plane.edge_limits(self.beta)
        ]

    def leaves(self) -> bool | None:
        """Whether the flow from (1, 1) passes a point where both probabilities sum to more than 1; None if unknown."""
        if self.ref_chosen is None or self.ref_rejected is None:
            return None
        return plane.leaves_simplex(ref_chosen=self.ref_chosen, ref_rejected=self.ref_rejected)

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        settings: Mapping[str, Any] = {
            "beta": self.beta,
            "ref_chosen": self.ref_chosen,
            "ref_rejected": self.ref_rejected,
        }
        return plain(
            {
                "schema": SCHEMA_VERSION,
                "command": "field",
                "provenance": self.provenance.to_json() | {"settings": dict(settings)},
                "dataset": {"name": self.provenance.data.get("name", "field")},
                "model": dict(self.provenance.model),
                "features": {},
                "settings": settings,
                "groups": [],
                "field": {
                    "rows": self.rows(),
                    "edges": self.edges(),
                    "leaves": self.leaves(),
                    "extinction_time": plane.extinction_time(self.beta),
                },
                "bounds": [item.as_dict() for item in self.bounds],
                "theory": {"values": None, "margins": None, "path": None if self.path is None else self.path._asdict()},
                "warnings": [],
                "timings": {},
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json into an existing folder."""
        write_json(folder / "summary.json", self.summary())


def field_study(
    *,
    beta: float = 0.1,
    ref_chosen: float | None = None,
    ref_rejected: float | None = None,
    run: Trajectory | None = None,
    provenance: Provenance | None = None,
) -> FieldStudy:
    """The plane at one beta, with a run's path and what the paper says of it where a run is given.

    Args:
        beta: DPO's temperature; the run's own where a run is given.
        ref_chosen: Reference probability of the chosen answer; by default the run's geometric mean, or unknown.
        ref_rejected: The same of the rejected answer; both or neither.
        run: A run that measured log-probabilities.
        provenance: Where the run came from.

    Raises:
        ConfigError: beta is not above 0 or not within `BETAS`, or the two probabilities are no probabilities, or only
            one is given.
        DataError: The run measured no log-probabilities, so it has no path in the plane.
    """
    positive(beta, name="beta")
    if (ref_chosen is None) != (ref_rejected is None):
        raise ConfigError("only one reference probability is given; give both, of the chosen and the rejected answer")
    path, found = None, []
    if run is not None:
        path, beta = plane_path(run), float(run.settings.get("beta", beta))
        if path is None:
            raise DataError("this run measured no log-probabilities, so it has no path to lay over the field")
        found = plane_bounds(run)
        if ref_chosen is None and np.isfinite([path.ref_chosen, path.ref_rejected]).all():
            ref_chosen, ref_rejected = path.ref_chosen, path.ref_rejected
    if not BETAS[0] <= beta <= BETAS[1]:
        raise ConfigError(
            f"beta is {beta:g}, and the plane can be drawn from {BETAS[0]:g} to {BETAS[1]:g}: beyond, a double holds "
            "no difference between its points, or not the loss itself; give a beta between them"
        )
    if ref_chosen is not None and ref_rejected is not None:
        references(ref_chosen, ref_rejected)
    return FieldStudy(
        beta=beta,
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
        path=path,
        bounds=tuple(found),
        provenance=provenance or Provenance(versions=versions()),
    )
