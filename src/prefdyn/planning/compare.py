"""Two runs held against each other, with what their folders say of them, ready to be written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from prefdyn._csv import write_csv
from prefdyn._json import SCHEMA_VERSION, plain, write_json
from prefdyn._showing import Tabular
from prefdyn.dynamics.compare import Comparison, compare
from prefdyn.errors import DataError
from prefdyn.provenance import versions
from prefdyn.trajectory import Trajectory

_CALLED = {"audit": "predicted", "simulate": "predicted", "bounds": "predicted", "train": "trained"}
"""What a run of each command is called."""
SIDES = ("first", "second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two runs, and where it was read from."""

    folder: str
    command: str
    run: Trajectory
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Training pairs of each group, where the folder says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRuns(Tabular):
    """Two runs side by side. `rows()` for tables, `write(folder)` for files."""

    _FIRST = Comparison._FIRST

    first: Side
    second: Side
    comparison: Comparison
    seed: int
    warnings: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group and split that both runs have; see `Comparison.rows`."""
        return self.comparison.rows()

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        found, sides = self.comparison, (self.first, self.second)
        rows = self.rows()
        settings = {"seed": self.seed, "losses": list(found.losses)}
        data, models = ([getattr(side.run.provenance, part) for side in sides] for part in ("data", "model"))
        judged = [row for row in rows if row["split"] == found.split]
        return plain(
            {
                "schema": SCHEMA_VERSION,
                "command": "compare",
                "provenance": {
                    "data": dict(data[0]),
                    "model": dict(models[0]),
                    "settings": settings,
                    "seed": self.seed,
                    "versions": versions(),
                },
                "dataset": {"name": _either([each.get("name") for each in data])},
                "model": {"name": _either([each.get("name") for each in models])},
                "features": {},
                "settings": settings,
                "groups": [
                    {"name": row["group"], **{key: row[key] for key in row if key != "group"}} for row in judged
                ],
                "comparison": {
                    "names": list(found.names),
                    "folders": [side.folder for side in sides],
                    "commands": [side.command for side in sides],
                    "split": found.split,
                    "order": asdict(found.order),
                    "order_by_size": asdict(found.order_by_size),
                    "rescaling": asdict(found.rescaling),
                    "errors": {
                        split: {kind: asdict(e) for kind, e in kinds.items()} for split, kinds in found.errors.items()
                    },
                    "only_first": list(found.only_first),
                    "only_second": list(found.only_second),
                    "settings": [item._asdict() for item in found.settings],
                    "rows": rows,
                },
                "bounds": [],
                "warnings": list(self.warnings),
                "timings": {},
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv and trajectory.parquet (with the column `side`) into an existing folder."""
        write_json(folder / "summary.json", self.summary())
        write_csv(pa.Table.from_pylist(self.rows()), folder / "groups.csv")
        tables = [
            side.run.table.append_column("side", pa.array(np.full(side.run.table.num_rows, name), pa.string()))
            for name, side in zip(SIDES, (self.first, self.second), strict=True)
        ]
        parquet.write_table(pa.concat_tables(tables), folder / "trajectory.parquet")


def compare_runs(first: Side, second: Side, *, losses: Sequence[float] = (), seed: int = 0) -> ComparedRuns:
    """Compare the runs of two output folders.

    Args:
        first: What the other is held against.
        second: The other.
        losses: Losses whose first step is asked for.
        seed: Of the interval and the permutations of the order's correlation.

    Raises:
        DataError: The two runs have no group in common, or the same model read a pair as other tokens in each.
        ConfigError: A loss asked for is not a finite number above 0.
    """
    names = names_of(first, second)
    _refuse_other_tokens(first, second, names)
    found = compare(first.run, second.run, names=names, losses=losses, sizes={**first.sizes, **second.sizes}, seed=seed)
    return ComparedRuns(
        first=first,
        second=second,
        comparison=found,
        seed=seed,
        warnings=(*_unlike_sources(first, second, names), *found.notes),
    )


def names_of(first: Side, second: Side) -> tuple[str, str]:
    """What the two are called: by their commands where these tell them apart, else by their folders.

    Example:
        >>> run = Trajectory.from_rows([], settings={})
        >>> sim, one, two = (
        ...     Side(folder=folder, command=command, run=run)
        ...     for folder, command in (("simulate-1", "simulate"), ("out/train-1", "train"), ("out/train-2", "train")))
        >>> names_of(sim, one), names_of(one, two)
        (('predicted', 'trained'), ('train-1', 'train-2'))
    """
    called = [_CALLED.get(side.command, side.command) for side in (first, second)]
    if called[0] == called[1]:
        called = [Path(side.folder).name for side in (first, second)]
    if called[0] == called[1]:
        called = [side.folder for side in (first, second)]
    return (called[0], called[1]) if called[0] != called[1] else (f"{called[0]} (first)", f"{called[1]} (second)")


def _refuse_other_tokens(first: Side, second: Side, names: tuple[str, str]) -> None:
    """Refuse runs of one model whose margins are of other tokens under the same ids, as far as both say.

    Raises:
        DataError: A pair that both know differs.
    """
    sources = [side.run.provenance for side in (first, second)]
    marks = [source.data.get("tokens") or {} for source in sources]
    model = sources[0].model.get("sha256")
    if model is None or model != sources[1].model.get("sha256") or marks[0].get("sha256") == marks[1].get("sha256"):
        return
    one, other = (mark.get("pairs") or {} for mark in marks)
    name = next((name for name, digest in other.items() if one.get(name, digest) != digest), None)
    if name is not None:
        raise DataError(
            f"{names[0]} and {names[1]} read pair {name!r} as other tokens under the same model, so their references "
            "are not of the same texts (prompt, response, --eos, --answers or chat template differ); read both alike"
        )


def _unlike_sources(first: Side, second: Side, names: tuple[str, str]) -> list[str]:
    """Data and model in which the two differ, where both say."""
    found = []
    for part, word in (("data", "pairs"), ("model", "model")):
        one, other = (getattr(side.run.provenance, part) for side in (first, second))
        marks = [each.get("sha256") for each in (one, other)]
        if None not in marks and marks[0] != marks[1]:
            called = f"{names[0]}: {one.get('name')}, {names[1]}: {other.get('name')}"
            found.append(f"The two runs have not the same {word} ({called}).")
    return found


def _either(names: Sequence[Any]) -> str:
    """One name for both, or the two."""
    known = list(dict.fromkeys(str(name) for name in names if name is not None))
    return " against ".join(known) or "unknown"
