"""An output folder, read back: everything that a report shows comes from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from prefdyn._csv import read_csv
from prefdyn._json import SCHEMA_VERSION, number
from prefdyn.errors import ConfigError, StoreError
from prefdyn.planning.group_row import GroupRow
from prefdyn.provenance import Provenance
from prefdyn.report.summary_shape import SUMMARY
from prefdyn.report.text import visible
from prefdyn.store import fits, load_trajectory, read_json_file, read_table, steps_table
from prefdyn.trajectory import MODULES, SCHEMA, Trajectory

_AGAIN = "run the command that wrote it again"
_WRITERS = "give an output folder of another command"
_SEVERAL = {"grid": "a grid of settings", "comparison": "a comparison", "forecast": "a forecast"}
"""Parts of a summary that more than one run belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """What one output folder holds."""

    path: Path
    summary: Mapping[str, Any]
    trajectory: pa.Table | None
    """None where the folder has none."""
    pairs: pa.Table | None
    """None where the folder has none."""
    modules: pa.Table | None = None
    """Drift of every trained module; None where nothing was trained."""
    updates: pa.Table | None = None
    """One row per update of a training run, with TRL's names of metrics; None where nothing was trained."""
    group: str | None = None
    """The one group that is shown, of several that the folder has; None for all."""
    all_groups: tuple[str, ...] = ()
    """Names of all groups, where some are left out."""

    def run(self) -> Trajectory:
        """The run as a Trajectory, with its settings and where it came from.

        Raises:
            ConfigError: The folder holds no run, or several.
        """
        several = [what for key, what in _SEVERAL.items() if self.part(key) is not None]
        if self.trajectory is None or several:
            raise ConfigError(
                f"{self.path} holds {several[0] if several else 'no trajectory.parquet'}; give a folder of audit, "
                "simulate, bounds or train with one run"
            )
        origin = self.part("provenance") or {}
        parts = {name: dict(origin.get(name) or {}) for name in ("data", "model", "settings", "versions")}
        return Trajectory(
            table=self.trajectory.select(SCHEMA.names),
            settings=self.part("settings") or {},
            modules=None if self.modules is None else self.modules.select(MODULES.names),
            provenance=Provenance(seed=origin.get("seed"), **parts),
        )

    @property
    def kind(self) -> str:
        """What the folder is about: `grid` or `comparison` where it holds several runs, else the command's name."""
        return next((key for key in _SEVERAL if self.part(key) is not None), str(self.part("command") or "run"))

    @property
    def said(self) -> str:
        """What to call one side of a pair, as `side_of` has it."""
        return side_of(self.summary)

    @property
    def responses(self) -> bool:
        """Whether the features are of responses longer than one token."""
        return self.said == "response"

    @property
    def groups(self) -> Sequence[Mapping[str, Any]]:
        """One mapping per group, as in summary.json."""
        return self.summary.get("groups") or []

    @property
    def rows(self) -> tuple[GroupRow, ...]:
        """The same, each column by its name."""
        return tuple(GroupRow.read(row) for row in self.groups)

    @property
    def names(self) -> tuple[str, ...]:
        """Group names as the data has them."""
        return tuple(str(row.get("name", "")) for row in self.groups)

    @property
    def labels(self) -> tuple[str, ...]:
        """Group names as they can be shown, one line each."""
        return tuple(visible(name) for name in self.names)

    @property
    def verdicts(self) -> tuple[str | None, ...]:
        """The verdict per group; None where the command gives none."""
        return tuple(row.get("verdict") for row in self.groups)

    def part(self, *keys: str) -> Any:
        """A nested part of the summary, or None where any key is missing.

        Example:
            >>> run = RunFolder(path=Path(), summary={"diagnostics": {"cosine": None}}, trajectory=None, pairs=None)
            >>> run.part("diagnostics", "cosine", "raw") is None
            True
        """
        found: Any = self.summary
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def column(self, key: str) -> np.ndarray:
        """(m,) one number per group; NaN where missing or null."""
        return np.array([number(row.get(key)) for row in self.groups], dtype=np.float64)

    def rank(self) -> np.ndarray:
        """(m,) place of each group in the order of learning, predicted or trained; NaN where it is not known."""
        return self.column("rank" if self.part("command") == "train" else "predicted_rank")

    def steps(self) -> np.ndarray:
        """(s,) steps measured in the joint run, ascending; empty where there is no trajectory."""
        if self.trajectory is None:
            return np.zeros(0, dtype=np.int64)
        joint = np.array([name == "joint" for name in self.trajectory["run"].to_pylist()], dtype=bool)
        return np.unique(self.trajectory["step"].to_numpy()[joint])

    def curves(self, quantity: str, *, run: str = "joint", split: str = "train") -> np.ndarray:
        """(m, s) one quantity for every group at `steps()`; NaN where not measured."""
        steps = self.steps()
        values = np.full((len(self.groups), len(steps)), np.nan)
        if self.trajectory is None:
            return values
        codes = {name: code for code, name in enumerate(self.names)}
        places = {int(step): place for place, step in enumerate(steps)}
        columns = [self.trajectory[name].to_pylist() for name in ("run", "split", "group", "step", quantity)]
        for found_run, found_split, group, step, value in zip(*columns, strict=True):
            if found_run == run and found_split == split and group in codes and step in places:
                values[codes[group], places[step]] = number(value)
        return values


def side_of(summary: Mapping[str, Any]) -> Literal["answer", "response"]:
    """What to call one side of a pair: an answer where it is one token, else a response.

    Example:
        >>> side_of({"features": {"kind": "responses"}}), side_of({})
        ('response', 'answer')
    """
    features = summary.get("features")
    return "response" if isinstance(features, Mapping) and features.get("kind") == "responses" else "answer"


@runtime_checkable
class Finished(Protocol):
    """What `audit` and `simulate` return in Python: a result that has not been written to a folder."""

    @property
    def trajectory(self) -> Trajectory:
        """The simulated run."""
        ...

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        ...

    def pairs(self) -> pa.Table:
        """The content of pairs.parquet."""
        ...


def run_of(item: Any) -> RunFolder:
    """A RunFolder from a result of `audit` or `simulate`, or from the path of an output folder."""
    if isinstance(item, RunFolder):
        return item
    if isinstance(item, Finished):
        summary = item.summary()
        return RunFolder(
            path=Path(summary["command"]), summary=summary, trajectory=item.trajectory.table, pairs=item.pairs()
        )
    return read_folder(item)


def read_folder(path: str | Path) -> RunFolder:
    """Read an output folder.

    Args:
        path: The folder, with summary.json and, where the command writes them, trajectory.parquet, pairs.parquet,
            modules.parquet and steps.csv.

    Returns:
        A RunFolder. Of a folder of `GroupDPOTrainer.save_trajectory`: the run, and the names of its groups.

    Raises:
        StoreError: There is no such folder, it holds no summary.json, or a file in it cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise StoreError(f"{path} is no folder; {_WRITERS}")
    source = path / "summary.json"
    if not source.is_file() and (path / "trajectory.json").is_file():
        return _saved(path)
    if not source.is_file():
        raise StoreError(f"{path} holds no summary.json; {_WRITERS}")
    summary = read_json_file(source, fix=_AGAIN)
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA_VERSION:
        found = summary.get("schema") if isinstance(summary, dict) else None
        raise StoreError(
            f"{source} has schema {found!r}, but this version reads {SCHEMA_VERSION}; run the command again"
        )
    fits(summary, SUMMARY, source, fix=_AGAIN)
    trajectory = _steps(path / "trajectory.parquet", SCHEMA)
    pairs = _pairs(path / "pairs.parquet")
    modules = _steps(path / "modules.parquet", MODULES)
    return RunFolder(
        path=path,
        summary=summary,
        trajectory=trajectory,
        pairs=pairs,
        modules=modules,
        updates=_updates(path / "steps.csv"),
    )


def _saved(path: Path) -> RunFolder:
    """A run that was saved by itself, as a trained one."""
    run = load_trajectory(path)
    origin = run.provenance
    summary = {
        "schema": SCHEMA_VERSION,
        "command": "train",
        "provenance": origin.to_json(),
        "dataset": dict(origin.data),
        "model": dict(origin.model),
        "settings": dict(run.settings),
        "groups": [{"name": name} for name in run.groups],
    }
    return RunFolder(path=path, summary=summary, trajectory=run.table, pairs=None, modules=run.modules)


def _updates(path: Path) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        return read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise StoreError(f"{path} cannot be read as CSV ({why}); {_AGAIN}") from error


def _steps(path: Path, schema: pa.Schema) -> pa.Table | None:
    return steps_table(path, schema, fix=_AGAIN) if path.is_file() else None


_PAIRS = ("id", "group", "split")
_PAIR_NUMBERS = (
    "chosen_tokens", "rejected_tokens", "ref_chosen_logps", "ref_rejected_logps", "agreement", "group_agreement",
    "chosen_push", "rejected_push", "ches", "margin", "value_own", "value_all", "value_worst", "value_sign",
    "label_score", "agreement_controlled", "chosen_push_controlled", "value_own_controlled", "value_all_controlled",
)  # fmt: skip
_NUMBER_TYPES = (pa.types.is_floating, pa.types.is_integer, pa.types.is_null)


def _pairs(path: Path) -> pa.Table | None:
    if not path.is_file():
        return None
    table = read_table(path, fix=_AGAIN)
    for name in _PAIRS:
        if table.schema.names.count(name) != 1 or table[name].type != pa.string() or table[name].null_count:
            raise StoreError(f"{path} does not hold the column {name!r}, a text for every pair; {_AGAIN}")
    for field in table.schema:
        if field.name in _PAIR_NUMBERS and not any(are(field.type) for are in _NUMBER_TYPES):
            raise StoreError(f"{path}: the column {field.name!r} is {field.type}, but must be numbers; {_AGAIN}")
    return table
