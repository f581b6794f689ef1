"""The nouns of a recipe: what it runs, what comes of it, what it draws, and the claims that are judged by it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from prefdyn.errors import DataError
from prefdyn.experiments.catalogue import FigureSpec, figures_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.context import Context
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.run import RecipeRun
from prefdyn.experiments.work import RunOutcome
from prefdyn.picture import Line, Picture, Plot

# figures -------------------------------------------------------------------------------------------------------------


Panel = Plot
"""One part of a figure, as the papers have it: (a), (b)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure in numbers, drawn elsewhere."""

    spec: FigureSpec
    panels: tuple[Panel, ...]
    caption: str
    part: str = ""
    """A letter, where one figure of a paper is several files here."""

    @property
    def id(self) -> str:
        """Name of its files."""
        return self.spec.id + self.part

    @property
    def picture(self) -> Picture:
        """The same as a picture, named by paper and place."""
        title = f"{self.spec.paper}, {self.spec.where}: {self.spec.title}"
        return Picture(id=self.id, title=title, caption=self.caption, plots=self.panels)

    def table(self) -> pa.Table:
        """The numbers behind it, one row each.

        Columns: panel, series, row, column (of a heat map or table), x, y, low, high, text; what does not apply is
        null.
        """
        found: list[dict[str, Any]] = []
        for place, panel in enumerate(self.panels):
            found += _numbers(panel, panel.title or f"panel {place + 1}")
        return pa.Table.from_pylist(found, schema=NUMBERS)


NUMBERS = pa.schema(
    [
        ("panel", pa.string()),
        ("series", pa.string()),
        ("row", pa.string()),
        ("column", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("text", pa.string()),
    ]
)


def _numbers(panel: Panel, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in panel.lines:
        for place in range(len(line.x)):
            row = {"panel": name, "series": line.label, "x": float(line.x[place]), "y": float(line.y[place])}
            if line.low is not None and line.high is not None:
                row |= {"low": float(line.low[place]), "high": float(line.high[place])}
            found.append(row)
    found += [{"panel": name, "series": label, "y": height} for label, height in panel.marks]
    found += [{"panel": name, "series": label, "y": value} for label, value in panel.options.items()]
    if panel.matrix is not None:
        found += [
            {"panel": name, "row": first, "column": second, "y": float(panel.matrix[i, j])}
            for i, first in enumerate(panel.names)
            for j, second in enumerate(panel.names)
        ]
    for place, cells in enumerate(panel.rows):
        columns = panel.columns or ("heading", "text")
        found += [
            {"panel": name, "row": str(place), "column": column, "text": cell}
            for column, cell in zip(columns, cells, strict=True)
        ]
    return found


def shades(count: int) -> list[float]:
    """Places in plasma of so many series: the papers' 0.1 + 0.2 i for five, and as wide for any other number.

    Example:
        >>> [round(shade, 3) for shade in shades(5)], shades(1)
        ([0.1, 0.3, 0.5, 0.7, 0.9], [0.1])
    """
    return [0.1 + 0.8 * place / max(1, count - 1) for place in range(count)]


def mean_line(label: str, x: Sequence[float], curves: Sequence[Sequence[float]], **rest: Any) -> Line:
    """The mean of one curve per seed, with the range of the seeds.

    Raises:
        DataError: There is no curve.

    Example:
        >>> line = mean_line("a", [0, 1], [[1.0, 0.0], [1.0, 0.5]])
        >>> line.y.tolist(), line.high.tolist()
        ([1.0, 0.25], [1.0, 0.5])
    """
    if not len(curves):
        raise DataError(f"the line {label!r} has no curve; give one per seed")
    stack = np.asarray(curves, dtype=np.float64)
    return Line(
        label=label,
        x=np.asarray(x, dtype=np.float64),
        y=stack.mean(axis=0),
        low=stack.min(axis=0),
        high=stack.max(axis=0),
        **rest,
    )


# recipes -------------------------------------------------------------------------------------------------------------

Plan = Mapping[Any, RecipeRun]
Done = Mapping[Any, RunOutcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a recipe found."""

    measured: Rows
    """What its claims are judged by."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    """What the reader must know: what stood in for what, and what was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One result of the papers, from the runs it takes to the claims that it judges."""

    name: str
    summary: str
    claims: tuple[Claim, ...]
    runs: Callable[[Context], Plan]
    """Every run that it needs, under names of its own. Runs with equal content are done once, whoever asks."""
    results: Callable[[Context, Done], Results]
    """From the outcomes, under the same names."""
    setups: tuple[str, ...] = ()
    """Names of the setups that it trains with, as `published.SETTINGS` has them."""

    @property
    def figures(self) -> tuple[FigureSpec, ...]:
        """What it draws, as the catalogue says."""
        return figures_of(self.name)

    @property
    def papers(self) -> tuple[str, ...]:
        """Their numbers on arXiv."""
        return tuple(dict.fromkeys(spec.paper for spec in self.figures))

    def describe(self) -> dict[str, Any]:
        """Name, papers, figures with their claims, as `prefdyn reproduce --list` shows them."""
        return {
            "name": self.name,
            "summary": self.summary,
            "papers": list(self.papers),
            "figures": [
                {
                    "id": spec.id,
                    "paper": spec.paper,
                    "where": spec.where,
                    "title": spec.title,
                    "claims": sum(claim.figure == spec.id for claim in self.claims),
                }
                for spec in self.figures
            ],
            "claims": [
                {
                    "id": claim.id, "paper": claim.paper, "where": claim.where, "statement": claim.statement,
                    "rule": claim.rule, "figure": claim.figure, "paper_value": claim.paper_value,
                    "kind": claim.kind, "unit": claim.unit,
                }
                for claim in self.claims
            ],
            "setups": list(self.setups),
        }  # fmt: skip
