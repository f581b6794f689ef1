"""Trajectory: what a run did, simulated or trained. One table, one row per run, step, group and split."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefdyn._checks import nearest
from prefdyn._showing import Tabular
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
        ("gradient_norm", pa.float64()),
        ("distinguishability", pa.float64()),
        ("concentration", pa.float64()),
        ("trace", pa.float64()),
    ]
)
"""`time` = learning rate × step. `loss` and log-probabilities in nats, means over the group's pairs of that split.
`margin` includes beta. `drift`: Frobenius norm of the head's change, the same for every group of one joint run.
`run`: "joint", or "alone" for each group trained by itself. `split`: "train" or "held_out". Null: not measured.

Training alone measures the rest. `drift` is then that of all trained weights together. `gradient_norm`: Frobenius norm
of the gradient of the group's mean loss in the head. `distinguishability`, `concentration` (largest eigenvalue of a
class covariance) and `trace` describe the group's states at that step, as `separation` does those of the features."""

QUANTITIES = tuple(SCHEMA.names[6:])
"""Columns of what is measured."""

MODULES = pa.schema([("step", pa.int64()), ("module", pa.string()), ("drift", pa.float64()), ("norm", pa.float64())])
"""`drift`: Frobenius norm of a module's change since step 0. `norm`: that of its weights at step 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory(Tabular):
    """A run's measurements, its settings, and per-pair margins at chosen steps where asked for."""

    _FIRST = ("run", "step", "group", "split", "pairs", "loss", "margin", "reward_accuracy")

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
    modules: pa.Table | None = None
    """Drift of every trained module, with the columns of `MODULES`. None where the run was simulated."""
    provenance: Provenance = field(default_factory=Provenance)
    _cells: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)
    """(run, group, split) → its rows, in order; filled when first asked for, so that no group searches the table."""

    def __post_init__(self) -> None:
        if self.table.schema != SCHEMA:
            raise DataError(
                f"a trajectory needs the columns {SCHEMA.names}, but got {self.table.schema.names}; "
                "build it with Trajectory.from_rows"
            )
        if self.modules is not None and self.modules.schema != MODULES:
            raise DataError(f"modules need the columns {MODULES.names}, but got {self.modules.schema.names}")

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

    def select(self, *, run: Any = None, group: Any = None, split: Any = None, step: Any = None) -> "Trajectory":
        """The same run, of these runs, groups, splits and steps alone.

        Args:
            run: "joint" or "alone", or several.
            group: Its name, or several.
            split: "train" or "held_out", or several.
            step: A step, several, or a slice of steps, whose end is left out as in Python.

        Raises:
            DataError: The run holds none of this name, or was not measured at this step.

        Example:
            >>> rows = [{"run": "joint", "step": s, "group": g, "split": "train"} for s in (0, 1, 9) for g in "ab"]
            >>> found = Trajectory.from_rows(rows, settings={}).select(group="a", step=slice(1, None))
            >>> found.table["step"].to_pylist()
            [1, 9]
        """
        table = self.table
        for name, wanted in (("run", run), ("group", group), ("split", split), ("step", step)):
            if wanted is None:
                continue
            if isinstance(wanted, slice):
                steps = table["step"].to_numpy()
                ends = -math.inf if wanted.start is None else wanted.start, wanted.stop
                inside = (steps >= ends[0]) & (steps < (math.inf if ends[1] is None else ends[1]))
                table = table.filter(pa.array(inside))
                continue
            values = [wanted] if isinstance(wanted, str | int) else list(wanted)
            known = pc.unique(table[name]).to_pylist()
            missing = next((value for value in values if value not in known), None)
            if missing is not None:
                held = nearest(str(missing), [str(each) for each in known])
                raise DataError(f"this trajectory has no {name} {missing!r}{held}")
            table = table.filter(pc.is_in(table[name], value_set=pa.array(values, table.schema.field(name).type)))
        return replace(self, table=table)

    def plot(self, quantity: str = "loss", *, split: str = "held_out", run: str = "joint") -> Any:
        """Curves of one quantity, a line per group, as a matplotlib figure.

        Args:
            quantity: A column of numbers, such as "loss", "margin" or "chosen_log_prob".
            split: "train" or "held_out".
            run: "joint" or "alone".

        Raises:
            DataError: The run holds no such column, or no rows of this split.
        """
        if quantity not in QUANTITIES:
            raise DataError(f"quantity {quantity!r} is no column of a trajectory{nearest(quantity, QUANTITIES)}")
        report = importlib.import_module("prefdyn.report")  # drawing lies above what is drawn, and takes a second
        return report.figure_of(report.curves_of(self.select(run=run, split=split), quantity, run=run, split=split))

    def cell(self, *, run: str, group: str, split: str) -> pa.Table:
        """The rows of one run, group and split: what `where` finds, without a search of the whole table each time."""
        return self.table.take(pa.array(self._places(run, group, split)))

    def _places(self, run: str, group: str, split: str) -> np.ndarray:
        if not self._cells and self.table.num_rows:
            columns = [self.table[name].combine_chunks().dictionary_encode() for name in ("run", "group", "split")]
            names = [column.dictionary.to_pylist() for column in columns]
            codes = [pc.fill_null(column.indices, len(names[at])).to_numpy() for at, column in enumerate(columns)]
            sizes = [len(each) + 1 for each in names]
            code = (codes[0].astype(np.int64) * sizes[1] + codes[1]) * sizes[2] + codes[2]
            order = np.argsort(code, kind="stable")
            starts = np.flatnonzero(np.diff(code[order], prepend=-1))
            for rows in np.split(order, starts[1:]):
                at = [int(each[rows[0]]) for each in codes]
                key = [known[place] if place < len(known) else "" for known, place in zip(names, at, strict=True)]
                self._cells[key[0], key[1], key[2]] = rows
        return self._cells.get((run, group, split), _NOWHERE)

    def curve(
        self, quantity: str, *, group: str, run: str = "joint", split: str = "train"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one quantity for one group. Null becomes NaN.

        Raises:
            DataError: The run holds no such group or split.
        """
        rows = self.cell(run=run, group=group, split=split)
        if rows.num_rows == 0:
            raise DataError(f"no rows for run {run!r}, group {group!r}, split {split!r} in this trajectory")
        values = pc.fill_null(rows[quantity], float("nan")).to_numpy()
        return rows["step"].to_numpy(), np.asarray(values, dtype=np.float64)

    def final(self, quantity: str, *, group: str, run: str = "joint", split: str = "train") -> float:
        """The last value of one quantity for one group; NaN where it could not be measured or the split is empty."""
        rows = self._places(run, group, split)
        if len(rows) == 0:
            return float("nan")
        value = self.table[quantity][int(rows[-1])].as_py()
        return float("nan") if value is None else value

    @property
    def groups(self) -> tuple[str, ...]:
        """Group names in order of first appearance."""
        return tuple(dict.fromkeys(self.table["group"].to_pylist()))


_NOWHERE = np.zeros(0, dtype=np.int64)
