"""What recipes measure, in tidy rows: one number each, with all that it is of."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prefdyn.errors import DataError
from prefdyn.experiments.context import MODEL

CODE = "code"
"""Source of what the published code does where it differs from the text."""


class Row(NamedTuple):
    """One number that was measured. A column that is empty is no condition: the row is for every figure, split, step.

    Example:
        >>> Row(quantity="fall", value=0.1, figure="2403.18742-fig03", split="train", group="a", step="early").source
        'model'
    """

    quantity: str
    value: float
    figure: str = ""
    """Id of the figure that shows it; a name of the runs, where several figures do."""
    source: str = MODEL
    seed: int = 0
    split: str = ""
    group: str = ""
    """The unit: a behaviour, a couple, a number of values, a setting."""
    step: str = ""
    """A phase of the run, as `falls.PHASES` names them."""


class Rows:
    """What a recipe measured."""

    def __init__(
        self,
        rows: Iterable[Row] = (),
        *,
        lacking: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Rows in the order of their groups and seeds.

        Args:
            rows: As they were measured.
            lacking: Figure → why it has no rows.
            facts: What claims tell besides, and what is no number: by name, or by figure and name.
        """
        self._all = tuple(rows)
        self.lacking, self.facts = dict(lacking or {}), dict(facts or {})
        self._by_quantity: dict[str, list[Row]] = {}
        for row in self._all:
            self._by_quantity.setdefault(row.quantity, []).append(row)
        self.figures = tuple(dict.fromkeys(row.figure for row in self._all))
        """Ids of the figures that have rows, as they came."""

    def __iter__(self) -> Iterator[Row]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def pick(self, quantity: str, select: Mapping[str, str], source: str = MODEL) -> dict[int, dict[str, float]]:
        """Seed → group → value of the rows of one source that fit.

        Raises:
            DataError: Two rows of one seed and group fit.

        Example:
            >>> found = Row(quantity="d", value=1.0, group="a"), Row(quantity="d", value=2.0, group="b", split="s")
            >>> Rows(found).pick("d", {"split": "s"}), Rows(found).pick("d", {"split": "t"})
            ({0: {'a': 1.0, 'b': 2.0}}, {0: {'a': 1.0}})
        """
        found: dict[int, dict[str, float]] = {}
        for row in self._by_quantity.get(quantity, ()):
            if row.source != source or any(getattr(row, name) not in ("", wanted) for name, wanted in select.items()):
                continue
            mine = found.setdefault(row.seed, {})
            if row.group in mine:
                raise DataError(f"two rows of {quantity!r}, {row.group!r} and seed {row.seed} fit {dict(select)}")
            mine[row.group] = row.value
        return found

    def by_seed(self, quantity: str, select: Mapping[str, str], source: str = MODEL) -> list[list[float]]:
        """Values of all groups, seed by seed."""
        return [list(groups.values()) for groups in self.pick(quantity, select, source).values()]

    def values(self, quantity: str, select: Mapping[str, str], source: str = MODEL) -> list[float]:
        """Values of all seeds and groups in a row."""
        return [value for row in self.by_seed(quantity, select, source) for value in row]

    def table(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        return [row._asdict() for row in self._all]
