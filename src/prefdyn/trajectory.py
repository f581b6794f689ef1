"""Trajectory: what a run did, simulated or trained. One table, one row per run, step, group and split."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefdyn.errors import DataError
from prefdyn.provenance import Provenance

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("step", pa.int64()),
        ("time", pa.float64()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("pairs", pa.int64()),
        ("loss", pa.float64()),
        ("margin", pa.float64()),
        ("reward_accuracy", pa.float64()),
        ("policy_accuracy", pa.float64()),
        ("chosen_log_prob", pa.float64()),
        ("rejected_log_prob", pa.float64()),
        ("chosen_change", pa.float64()),
        ("rejected_change", pa.float64()),
        ("chosen_falling", pa.float64()),
        ("drift", pa.float64()),
    ]
)
"""`time` = learning rate × step. `loss` and log-probabilities in nats, means over the group's pairs of that split.
`margin` includes beta. `drift`: Frobenius norm of the head's change, the same for every group of one joint run.
`run`: "joint", or "alone" for each group trained by itself. `split`: "train" or "held_out". Null: not measurable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A run's measurements, its settings, and per-pair margins at chosen steps where asked for."""

    table: pa.Table
    settings: Mapping[str, Any]
    """Resolved settings: objective, beta, learning_rate, optimizer, steps, batch_size, seed, …"""
    margins: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Step → (n,) margin of every pair in the joint run, where asked for."""
    chosen_changes: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Step → (n,) change of the chosen log-probability in the joint run, where asked for."""
    joint_head: np.ndarray | None = None
    r"""(p, d) change $\theta$ of the head at the end of the joint run, in the coordinates of the features' kernel:
    margin = $\beta\langle\phi, \theta\rangle$. None where the run did not train a head alone."""
    alone_heads: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Group → the same for the group trained by itself."""
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.table.schema != SCHEMA:
            raise DataError(
                f"a trajectory needs the columns {SCHEMA.names}, but got {self.table.schema.names}; "
                "build it with Trajectory.from_rows"
            )

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], **rest: Any) -> "Trajectory":
        """A trajectory from one mapping per row; a column left out of a row is null."""
        return cls(table=pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), **rest)

    def rows(self) -> list[dict[str, Any]]:
        """All rows as dictionaries, in order."""
        return self.table.to_pylist()

    def where(self, **equal: Any) -> pa.Table:
        """The rows whose columns equal the given values, such as `where(run="joint", split="train")`."""
        table = self.table
        for name, value in equal.items():
            table = table.filter(pc.equal(table[name], pa.scalar(value, table.schema.field(name).type)))
        return table

    def curve(
        self, quantity: str, *, group: str, run: str = "joint", split: str = "train"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one quantity for one group. Null becomes NaN.

        Raises:
            DataError: The run holds no such group or split.
        """
        rows = self.where(run=run, group=group, split=split)
        if rows.num_rows == 0:
            raise DataError(f"no rows for run {run!r}, group {group!r}, split {split!r} in this trajectory")
        values = pc.fill_null(rows[quantity], float("nan")).to_numpy()
        return rows["step"].to_numpy(), np.asarray(values, dtype=np.float64)

    def final(self, quantity: str, *, group: str, run: str = "joint", split: str = "train") -> float:
        """The last value of one quantity for one group; NaN where it could not be measured or the split is empty."""
        rows = self.where(run=run, group=group, split=split)
        if rows.num_rows == 0:
            return float("nan")
        value = rows[quantity][rows.num_rows - 1].as_py()
        return float("nan") if value is None else value

    @property
    def groups(self) -> tuple[str, ...]:
        """Group names in order of first appearance."""
        return tuple(dict.fromkeys(self.table["group"].to_pylist()))
