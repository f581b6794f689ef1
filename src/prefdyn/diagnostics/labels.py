r"""Labels to check: pairs whose label speaks against what the others teach a reader, and how far that can be trusted.

Four readers look at a pair: at the lengths of its two sides, at their words, at the reference's log-probabilities and
at the model's states. Each is a kernel ridge regression of the label that never saw the pair, nor any pair that hangs
together with it (exact leave-one-unit-out). Pairs of one group count four times as much for each other as pairs of two.

Which reader is worth anything is tried on these very data: a tenth of the labels is turned round on purpose, many
times over, and each reader is asked for them. Changing chosen and rejected over turns a pair's kernel row, so that a
label turned round is a target turned round, and all drawings share one factorisation. Labels that are wrong already
count against a reader that finds them, so what is said of it is rather too little.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import get_lapack_funcs
from scipy.sparse import csr_matrix

from prefdyn._checks import at_least
from prefdyn._json import plain
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn._threads import small_work
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.units import units
from prefdyn.diagnostics.wording import reference_gaps, refuse_other_pairs, text_lengths, word_weights
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order, joined

LISTED = 10
"""Labels that are named."""
PLANTED = 0.1
"""Share of the labels that is turned round on purpose."""
DRAWS = 20
WORTH = 0.25
"""Average precision on planted labels from which on a reader is worth asking; by lot it is `PLANTED`."""
_CLEARLY = 0.05
"""By how much a reader's average precision must be above that of all together for it to be asked by itself."""
FEWEST = 40
"""Pairs under which nothing is tried."""
_UNITS = 5
"""Units under which nothing is tried: readers are fitted on the others."""
_PENALTY = 7.5
"""Of kernels whose mean diagonal is 1; what held up best on ten sets (docs/statistics.md)."""
_ACROSS = 0.25
"""What a pair of another group counts, of one of the same."""
_FARTHEST = 4.0
"""Root mean squares to which a length or log-probability counts."""
_PART, _PART_OF_MANY = 1000, 750
"""Pairs that are read together, about; of many the fewer, since the work grows with the square."""
_MANY = 6000
"""Pairs."""
_DRAWN = 2_000_000
"""Pairs × drawings, about."""

NAMES = {
    "length": "length",
    "words": "words",
    "reference": "the reference's log-probabilities",
    "states": "the model's states",
    "without states": "all but the states together",
    "together": "all readers together",
}
"""Readers, the simplest first, and what they read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReader:
    """How well one reader finds labels that were turned round on purpose."""

    name: str
    """Of `NAMES`."""
    found: float
    """Mean share of them among the first `LISTED`."""
    found_low: float
    """Fifth percentile over the drawings."""
    found_high: float
    """The ninety-fifth."""
    average_precision: float
    """Mean over the drawings; by lot it is `PLANTED`."""
    average_precision_low: float
    average_precision_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCheck:
    """The reader that finds planted labels best, and what it says of every label."""

    reader: str
    """Of `NAMES`."""
    tried: tuple[LabelReader, ...]
    """All of them, in the order of `NAMES`."""
    scores: Mapping[str, Float[np.ndarray, " n"]] = field(compare=False, repr=False)
    """What each reader says of every label, in its own root mean squares; below 0: it would choose the other side."""

    @property
    def score(self) -> Float[np.ndarray, " n"]:
        """What the reader that is asked says."""
        return self.scores[self.reader]

    @property
    def best(self) -> LabelReader:
        """The reader that is asked."""
        return next(each for each in self.tried if each.name == self.reader)

    @property
    def worth(self) -> bool:
        """Whether it finds enough of the planted labels for a list to be of use."""
        return self.best.average_precision >= WORTH

    def listed(self) -> Int[np.ndarray, " k"]:
        """Rows of the labels to check, the most doubtful first; none where the reader is not worth asking."""
        if not self.worth:
            return np.zeros(0, dtype=np.int64)
        order = np.argsort(self.score, kind="stable")[:LISTED]
        return order[self.score[order] < 0]

    def to_json(self) -> dict[str, Any]:
        """All but the scores, which are a column of pairs.parquet."""
        tried = [{name: getattr(each, name) for name in LabelReader.__slots__} for each in self.tried]
        return plain({"reader": self.reader, "worth": self.worth, "planted": PLANTED, "first": LISTED, "tried": tried})


def check_labels(
    data: PreferenceDataset | None,
    feats: FeatureSet,
    *,
    unit: Int[np.ndarray, " n"] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> LabelCheck | None:
    """Ask four readers, and what they say together, for labels turned round on purpose; keep what finds most.

    All together are kept unless one is clearly better: they are the least likely to be misled by what one alone sees.

    Args:
        data: Texts of the same pairs in the same order; without them states and reference alone are read.
        feats: Features of either kind.
        unit: Equal integers for pairs that hang together; found if not given.
        draws: How often a tenth of the labels is turned round; of very many labels fewer times.
        seed: Of the drawings, and of the parts in which many pairs are read.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        The check; None for under 40 pairs or 5 units.

    Raises:
        ConfigError: No drawing is asked for.
        DataError: The features are of other pairs, or of the same in another order.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(60, groups=2, width=8, half_gap=4.0)
        >>> wrong = np.arange(120) % 40 == 0
        >>> found = check_labels(None, feats.flipped(wrong))
        >>> found.reader, found.worth, sorted(found.listed()[:3].tolist())
        ('states', True, [0, 40, 80])
    """
    at_least(draws, 1, name="draws")
    if data is not None:
        refuse_other_pairs(data, feats)
    unit = units(feats) if unit is None else unit
    unit = in_order(unit if data is None else joined(data.clusters.of, unit))
    n = len(feats)
    if n < FEWEST or int(unit.max()) + 1 < _UNITS:
        return None
    draws = min(draws, max(2, _DRAWN // n))
    planted = _planted(n, draws, seed)
    targets = np.concatenate([np.ones((n, 1)), np.where(planted, -1.0, 1.0)], axis=1)
    looks, said = Looks.of(data, feats), {}
    for rows in track(parts(unit, seed), "Labels", unit="parts", shown=progress):
        for name, kernel in looks.kernels(rows):
            column = said.setdefault(name, np.zeros((n, draws + 1)))
            column[rows] = targets[rows] * left_out(kernel, targets[rows], in_order(unit[rows]))
    said = {name: _scaled(column) for name, column in said.items()}
    simple = [said[name] for name in ("length", "words", "reference") if name in said]
    if len(simple) > 1:
        said["without states"] = _scaled(np.sum(simple, axis=0))
    if simple:
        said["together"] = _scaled(np.sum([*simple, said["states"]], axis=0))
    tried = tuple(_tried(name, said[name][:, 1:], planted) for name in NAMES if name in said)
    best = max(tried, key=lambda each: each.average_precision + _CLEARLY * (each.name == "together"))
    return LabelCheck(
        reader=best.name, tried=tried, scores={name: column[:, 0].copy() for name, column in said.items()}
    )


def left_out(
    kernel: Float[np.ndarray, "n n"], targets: Float[np.ndarray, "n draws"], unit: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n draws"]:
    r"""What kernel ridge regression predicts for every row from all rows of other units.

    With $A = (K + \lambda I)^{-1}$ and U the rows of a unit, the residual without it is $(A_{UU})^{-1} (A y)_U$.

    Args:
        kernel: Products of the rows.
        targets: Columns to be fitted.
        unit: Equal integers, from 0, for rows that are left out together.

    Example:
        >>> kernel = np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> left_out(kernel, np.array([[1.0], [1.0]]), np.array([0, 1])).round(6).ravel().tolist()  # 0.5 / (1 + 7.5)
        [0.058824, 0.058824]
    """
    with small_work(kernel.size):
        inverse = _inverse(kernel + _PENALTY * np.eye(len(kernel)))
        weights = inverse @ targets
        residual = weights / np.diag(inverse)[:, None]
        order = np.argsort(unit, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1):
            if len(rows) > 1:
                residual[rows] = np.linalg.solve(inverse[np.ix_(rows, rows)], weights[rows])
    return targets - residual


def _inverse(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Of a symmetric positive definite matrix, in a third of the operations of solving for the identity."""
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (matrix,))
    factor, failed = potrf(matrix, lower=1)
    if failed:
        raise np.linalg.LinAlgError(f"a kernel with its penalty is not positive definite at row {failed}")
    half, _ = potri(factor, lower=1)
    lower = np.tril(half)
    return lower + np.tril(lower, -1).T


def average_precision(score: Float[np.ndarray, " n"], wanted: Bool[np.ndarray, " n"]) -> float:
    """Mean over the wanted rows of the share of wanted ones among those that score as low or lower.

    Example:
        >>> average_precision(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, True, False]))
        0.8333333333333333
    """
    found = wanted[np.argsort(score, kind="stable")].astype(np.float64)
    return float((np.cumsum(found) / np.arange(1, len(found) + 1))[found == 1].mean())


def _planted(n: int, draws: int, seed: int) -> Bool[np.ndarray, "n draws"]:
    rng, found = stream(seed, "labels", "planted"), np.zeros((n, draws), dtype=bool)
    for draw in range(draws):
        found[rng.permutation(n)[: max(1, round(PLANTED * n))], draw] = True
    return found


def parts(unit: Int[np.ndarray, " n"], seed: int) -> list[Int[np.ndarray, " size"]]:
    """Rows in as many parts as keep the work small, whole units in each.

    Args:
        unit: Equal integers, from 0, for pairs that hang together.
        seed: Deals them.

    Example:
        >>> [len(rows) for rows in parts(np.arange(2000), 0)]
        [1000, 1000]
    """
    count = math.ceil(len(unit) / (_PART if len(unit) <= _MANY else _PART_OF_MANY))
    dealt = stream(seed, "labels", "parts").permutation(int(unit.max()) + 1) % count
    return [rows for part in range(count) if len(rows := np.flatnonzero(dealt[unit] == part))]


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Columns over their root mean square."""
    size = np.sqrt(np.mean(columns**2, axis=0))
    return columns / np.where(size > 0, size, 1.0)


def _tried(name: str, score: Float[np.ndarray, "n draws"], planted: Bool[np.ndarray, "n draws"]) -> LabelReader:
    first = np.argsort(score, axis=0, kind="stable")[:LISTED]
    shares = np.take_along_axis(planted, first, axis=0).mean(axis=0)
    low, high = np.quantile(shares, [0.05, 0.95])
    precision = [average_precision(score[:, draw], planted[:, draw]) for draw in range(score.shape[1])]
    return LabelReader(
        name=name,
        found=float(shares.mean()),
        found_low=float(low),
        found_high=float(high),
        average_precision=float(np.mean(precision)),
        average_precision_low=float(np.quantile(precision, 0.05)),
        average_precision_high=float(np.quantile(precision, 0.95)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What can be seen of a pair: kernels whose rows change sign with the label."""

    columns: Mapping[str, np.ndarray | csr_matrix]
    """Of texts and reference; of one-token answers without the label's sign, which the kernel brings."""
    feats: FeatureSet
    centre: Float[np.ndarray, " d"] | float
    """Of the states of one-token answers."""

    @classmethod
    def of(cls, data: PreferenceDataset | None, feats: FeatureSet) -> "Looks":
        """Of the same pairs in the same order; without texts what features know."""
        columns, long = dict[str, Any](), feats.kind == "responses"
        if data is not None:
            prompt, chosen, rejected = (data.table[name].to_pylist() for name in ("prompt", "chosen", "rejected"))
            if long:
                both = word_weights([*chosen, *rejected])
                columns["length"] = bounded(text_lengths(chosen) - text_lengths(rejected))
                columns["words"] = both[: len(data)] - both[len(data) :]
            else:
                lengths = text_lengths(prompt)
                columns["length"] = bounded(lengths - lengths.mean(axis=0))
                columns["words"] = word_weights(prompt)
        reference = reference_gaps(feats) if long else None
        if reference is not None:
            columns["reference"] = bounded(reference)
        return cls(columns=columns, feats=feats, centre=0.0 if long else feats.states.mean(axis=0, dtype=np.float64))

    def kernels(
        self, rows: Int[np.ndarray, " size"], *, states: bool = True
    ) -> Iterator[tuple[str, Float[np.ndarray, "size size"]]]:
        """Reader by reader, that of the states only if wanted; mean diagonal 1 (0 where a reader sees nothing)."""
        sides = _directions(self.feats.coordinates()[0][rows])
        group = self.feats.group[rows]
        near = np.where(group[:, None] == group, 1.0, _ACROSS)
        near *= sides @ sides.T
        for name, columns in self.columns.items():
            yield name, near * scaled_products(columns[rows])
        if states:
            seen = _directions(self.feats.pair_features(rows, np.float64) - self.centre)
            yield "states", near * scaled_products(seen)


def scaled_products(columns: np.ndarray | csr_matrix) -> Float[np.ndarray, "size size"]:
    """Products of rows over their mean square length.

    Example:
        >>> scaled_products(np.array([[2.0], [-2.0]])).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    with small_work(columns.size):
        product = columns @ columns.T
    products = np.asarray(product.todense() if isinstance(product, csr_matrix) else product, dtype=np.float64)
    size = float(np.mean(np.diag(products))) if len(products) else 0.0
    return products / (size if size > 0 else 1.0)


def _directions(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def bounded(columns: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Columns over their root mean square, far ones drawn in.

    Example:
        >>> bounded(np.array([[1.0], [-1.0], [1.0]])).ravel().tolist()
        [1.0, -1.0, 1.0]
    """
    size = np.sqrt(np.mean(columns**2, axis=0))
    return np.clip(columns / np.where(size > 0, size, 1.0), -_FARTHEST, _FARTHEST)
