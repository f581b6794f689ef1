r"""Held-out linear probes: what a linear reader gets right on pairs that it was not fitted on.

Every pair is predicted once, by a ridge classifier fitted on the other folds. Pairs that hang together share a fold.
The penalty is chosen inside each training part by generalised cross-validation, so the held-out pairs never have a say
in it. Both classes count alike, however unequal they are: chance is one half.

Two things make the figures less sure than their number of pairs says. Pairs that hang together are one unit, so what
each unit adds is summed before it is squared. And the folds' readers share most of what they were fitted on: under
labels that mean nothing the area's variance is known by drawing them anew, and where there is a difference its errors
are widened by `SHARED` (see docs/statistics.md for how often the intervals then hold the truth).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import eigh
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from prefdyn.diagnostics.inference import area_interval, share_interval, share_p
from prefdyn.diagnostics.units import relabelled
from prefdyn.maths.kernel import PairKernel
from prefdyn.maths.units import in_order, mean_of, sums

PENALTIES = np.geomspace(1e-4, 1e2, 13)
"""Ridge penalties that are tried, in units of the mean eigenvalue of the training Gram matrix."""
SHARED = 1.3
"""How much wider than that of independent pairs an error of a cross-validated share or area is."""
_RELABELLED = 199
"""Relabellings that give the null variance of the area; fewer of very many pairs, at least `_FEWEST`."""
_FEWEST = 29
_LABELS = 2**24
"""Labels that all relabellings of a group hold at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a held-out linear probe found. NaN where it could not be fitted."""

    accuracy: float
    """Share predicted rightly while held out, of each class alike (balanced accuracy)."""
    interval: tuple[float, float]
    """95 % interval of the accuracy."""
    auc: float
    """Area under the ROC curve of the held-out scores, compared within folds. For pairs: between them and their
    swapped selves."""
    auc_interval: tuple[float, float]
    """95 % interval of the area."""
    auc_error: float
    """Standard error of the area."""
    p_value: float
    """One-sided, of an area as large where labels mean nothing: from its mean and deviation over relabellings."""
    null_error: float
    """Standard deviation of the area over the relabellings."""
    right: Float[np.ndarray, " n"] = field(compare=False, repr=False)
    """1 where a pair is predicted rightly, 0 where not, one half where the score is exactly 0."""

    @property
    def chance(self) -> float:
        """What no knowledge gives."""
        return math.nan if math.isnan(self.accuracy) else 0.5


UNKNOWN = Probe(
    accuracy=math.nan, interval=(math.nan, math.nan), auc=math.nan, auc_interval=(math.nan, math.nan),
    auc_error=math.nan, p_value=math.nan, null_error=math.nan, right=np.zeros(0),
)  # fmt: skip


def assign_folds(
    text: Int[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """A fold for every pair: equal texts together, classes spread as evenly as that allows.

    Texts are dealt out like cards, those with the most pairs first, in random order among texts with the same
    counts of both classes.

    Args:
        text: Equal integers for pairs with the same prompt.
        positive: Class of each pair.
        folds: How many folds.
        rng: Decides the order.

    Returns:
        Fold of each pair, 0 to folds - 1.

    Example:
        >>> f = assign_folds(np.array([7, 7, 1, 2]), np.array([True, False, True, False]), 2, np.random.default_rng(0))
        >>> bool(f[0] == f[1])
        True
    """
    _, code = np.unique(text, return_inverse=True)
    size = np.bincount(code)
    positives = np.bincount(code, weights=positive != positive[0]).astype(np.int64)  # flipped labels, same folds
    order = np.lexsort((rng.permutation(len(size)), positives, -size))
    fold_of_text = np.empty(len(size), dtype=np.int64)
    fold_of_text[order] = np.arange(len(size)) % folds
    return fold_of_text[code]


def splits(fold: Int[np.ndarray, " n"]) -> Iterator[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]]:
    """Row numbers to fit on and to predict, for every fold that has both."""
    for held_out in np.unique(fold):
        fit, test = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        if len(fit):
            yield fit, test


def probe_classes(
    states: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
    *,
    folds: int,
    rng: np.random.Generator,
) -> Probe:
    """Can a linear reader of the states tell which of two answers is the chosen one?

    Columns are standardised on the training part; the classifier is ridge regression on ±1 with an intercept. Its
    threshold lies halfway between the means that the two classes have while each pair is left out of the fit, so that
    it does not lean towards the larger class.

    Args:
        states: One row per pair.
        positive: True where the first answer is chosen.
        unit: Equal integers for pairs that hang together.
        folds: How many folds, at least 2.
        rng: Decides the folds and the relabellings.

    Returns:
        Balanced accuracy and area with their intervals. `UNKNOWN` for one class, fewer than 4 pairs, or a single unit.
    """
    n, count = len(positive), int(positive.sum())
    if min(count, n - count) == 0 or n < 4 or len(np.unique(unit)) < 2:
        return UNKNOWN
    fold = assign_folds(unit, positive, folds, rng)
    _, dense = np.unique(unit, return_inverse=True)
    draws = _draws(n)
    columns = np.repeat(positive[:, None], 1 + draws, axis=1)  # the true ones first
    for _, test in splits(fold):  # drawn within folds, whose classes are spread evenly by the true labels
        columns[test, 1:] = relabelled(positive[test], dense[test], draws, rng).T
    right, tally = np.zeros(n), _Tally.of(n, columns.shape[1])
    for fit, test in splits(fold):
        part = states[fit].astype(np.float64)
        centre = part.mean(axis=0)
        part -= centre
        rows = states[test] - centre
        scale = column_scale(part)
        ridge = Ridge.of(part / scale, intercept=True)
        signs = 2.0 * columns[fit] - 1.0
        scores = ridge.scores(rows / scale, signs)
        threshold = halfway(ridge.left_out(signs[:, :1])[:, 0], positive[fit])
        right[test] = is_right(scores[:, 0] - threshold, np.where(positive[test], 1.0, -1.0))
        tally.classes(scores, columns[test], test)
    counts = _units(dense[positive]), _units(dense[~positive])
    return tally.probe(right, held_out_share(right, dense, positive), dense, counts)


def probe_pairs(kernel: PairKernel, unit: Int[np.ndarray, " n"], *, folds: int, rng: np.random.Generator) -> Probe:
    r"""Can a linear reader of the pair features tell chosen from rejected?

    Swapping the two turns $\phi$ into $-\phi$, so the reader has no intercept and its answers do not depend on which
    side each pair is shown from: a pair is right where $w \cdot \phi > 0$. Columns are scaled by their root mean
    square on the training part, never centred.

    Args:
        kernel: Pair features in product form.
        unit: Equal integers for pairs that hang together.
        folds: How many folds, at least 2.
        rng: Decides the folds and the swaps of the null, which turn whole units around.

    Returns:
        Accuracy and area between the pairs and their swapped selves, with their intervals. `UNKNOWN` for fewer than 4
        pairs or a single unit.
    """
    n = len(kernel)
    if n < 4 or len(np.unique(unit)) < 2:
        return UNKNOWN
    fold = assign_folds(unit, np.ones(n, dtype=bool), folds, rng)
    _, dense = np.unique(unit, return_inverse=True)
    turned = 2.0 * rng.integers(0, 2, size=(int(dense.max()) + 1, _draws(n))) - 1.0
    signs = np.concatenate([np.ones((n, 1)), turned[dense]], axis=1)
    right, tally = np.zeros(n), _Tally.of(n, signs.shape[1])
    for fit, test in splits(fold):
        scale = column_scale(np.asarray(kernel.features[fit], dtype=np.float64))
        scaled = PairKernel(answers=kernel.answers, features=kernel.features / scale)
        known, asked = scaled.rows(fit), scaled.rows(test)
        if kernel.answers.shape[1] == 1 and len(fit) > kernel.features.shape[1]:
            ridge = Ridge.of(known.answers * known.features, intercept=False)
            scores = ridge.scores(asked.answers * asked.features, signs[fit])
        else:
            ridge = Ridge.of_gram(known.dense(), intercept=False)
            scores = ridge.scores(asked.cross(known), signs[fit])
        right[test] = is_right(scores[:, 0], np.ones(len(test)))
        tally.pairs(scores * signs[test], test)
    units = _units(dense)
    return tally.probe(right, held_out_share(right, dense), dense, (units, units))


def _draws(n: int) -> int:
    return max(_FEWEST, min(_RELABELLED, _LABELS // n))


@dataclass(slots=True)
class _Tally:
    """Wins of the chosen over the rejected within folds, under the true labels (column 0) and under drawn ones."""

    wins: Float[np.ndarray, " draws"]
    """Beyond half of the contests."""
    contests: float
    influence: Float[np.ndarray, " n"]
    """What each pair adds to the wins, under the true labels, and in how many contests it takes part."""
    part: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, n: int, draws: int) -> "_Tally":
        return cls(wins=np.zeros(draws), contests=0.0, influence=np.zeros(n), part=np.zeros(n))

    def classes(
        self, scores: Float[np.ndarray, "t draws"], positive: Bool[np.ndarray, "t draws"], test: np.ndarray
    ) -> None:
        """Count one fold of two classes, which have the same numbers in every column."""
        ranks, true = rankdata(scores, axis=0), positive[:, 0]
        first = int(true.sum())
        second = len(test) - first
        if first * second == 0:
            return
        self.wins += np.where(positive, ranks, 0.0).sum(axis=0) - first * (first + 1) / 2 - first * second / 2
        self.contests += first * second
        lower = ranks[:, 0] - np.where(true, _within(scores[:, 0], true), _within(scores[:, 0], ~true))
        self.influence[test] = np.where(true, lower, first - lower)
        self.part[test] = np.where(true, second, first)

    def pairs(self, along: Float[np.ndarray, "t draws"], test: np.ndarray) -> None:
        """Count one fold of pairs against the swapped selves of the others."""
        size = len(test)
        ranks = rankdata(np.concatenate([along, -along]), axis=0)[:size]
        above = ranks - rankdata(along, axis=0) - (along > 0) - 0.5 * (along == 0)
        self.wins += above.sum(axis=0) - size * (size - 1) / 2
        self.contests += size * (size - 1)
        self.influence[test] = 2 * above[:, 0]  # a pair is in the wins as itself and as its swapped self
        self.part[test] = 2.0 * (size - 1)

    def probe(
        self,
        right: np.ndarray,
        share: tuple[float, tuple[float, float]],
        unit: np.ndarray,
        counts: tuple[int, int],
    ) -> Probe:
        """The figures of the whole."""
        if self.contests == 0:
            nothing = (math.nan, math.nan)
            area, interval, error, p_value, null_error = math.nan, nothing, math.nan, math.nan, math.nan
        else:
            drawn = 0.5 + self.wins / self.contests
            area, null = float(drawn[0]), drawn[1:]
            own = sums((self.influence - area * self.part) / self.contests, unit)
            error = SHARED * float(np.sqrt(len(own) / max(1, len(own) - 1) * (own @ own)))
            null_error = float(null.std(ddof=1))
            p_value = float(norm.sf((area - float(null.mean())) / null_error)) if null_error > 0 else 1.0
            interval = area_interval(area, counts, error)
        return Probe(
            accuracy=share[0],
            interval=share[1],
            auc=area,
            auc_interval=interval,
            auc_error=error,
            p_value=p_value,
            null_error=null_error,
            right=right,
        )


def held_out_share(
    right: Float[np.ndarray, " n"], unit: Int[np.ndarray, " n"], positive: Bool[np.ndarray, " n"] | None = None
) -> tuple[float, tuple[float, float]]:
    """Share of held-out pairs that are right, and its 95 % interval.

    Args:
        right: 1, 0, or one half for each pair.
        unit: Units numbered from 0, which count as one observation each.
        positive: Two classes, which then count alike whatever their numbers; None: all pairs alike.

    Example:
        >>> share, (low, high) = held_out_share(np.array([1.0] * 90 + [0.0] * 10), np.arange(100))
        >>> share, low < 0.85, 0.93 < high
        (0.9, True, True)
    """
    share, units, error = _held_out(right, unit, positive)
    return share, share_interval(share, units, error)


def _held_out(
    right: Float[np.ndarray, " n"], unit: Int[np.ndarray, " n"], positive: Bool[np.ndarray, " n"] | None
) -> tuple[float, float, float]:
    """The share, as many units as it may count for, and its standard error."""
    classes = [np.ones(len(right), dtype=bool)] if positive is None else [positive, ~positive]
    influence, share, rarity = np.zeros(len(right)), 0.0, 0.0
    for inside in classes:
        part = right[inside]
        share += float(part.mean()) / len(classes)
        influence[inside] = (part - part.mean()) / (len(part) * len(classes))
        rarity += 1 / (len(classes) ** 2 * _units(unit[inside]))
    each = sums(influence, unit)
    error = SHARED * math.sqrt(len(each) / max(1, len(each) - 1) * float(each @ each))
    return share, 1 / (rarity * SHARED**2), error


def share_test(right: Float[np.ndarray, " n"], unit: Int[np.ndarray, " n"]) -> float:
    """Two-sided p of a held-out share of one half, 1 where it is not above; NaN under two units.

    At most 0.05 just where the interval that `held_out_share` gives lies above one half.

    Example:
        >>> share_test(np.array([1.0] * 90 + [0.0] * 10), np.arange(100)) < 1e-6
        True
    """
    known = np.isfinite(right)
    right, unit = right[known], in_order(unit[known])
    if _units(unit) < 2:
        return math.nan
    found = _held_out(right, unit, None)
    return share_p(*found) if found[0] > 0.5 else 1.0


def behind(right: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"], unit: Int[np.ndarray, " n"]) -> float:
    """Lower end of the 95 % interval of how much more often one probe is right than another on the same pairs.

    Example:
        >>> behind(np.ones(50), np.tile([1.0, 0.0], 25), np.arange(50)) > 0.2
        True
    """
    found = mean_of(right - other, unit, wider=SHARED)
    return found.value - float(student.ppf(0.975, max(1, found.units - 1))) * found.error


def _within(scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Rank of each score among those inside; anything for the others."""
    found = np.zeros(len(scores))
    found[inside] = rankdata(scores[inside])
    return found


def _units(unit: np.ndarray) -> int:
    return len(np.unique(unit))


def halfway(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Halfway between the mean scores of the two classes; 0 where there is one."""
    return float(scores[positive].mean() + scores[~positive].mean()) / 2 if 0 < positive.sum() < len(positive) else 0.0


def is_right(scores: Float[np.ndarray, " n"], signs: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1 where the score has the sign, 0 where not, one half where it is exactly 0."""
    return np.where(scores == 0, 0.5, (scores * signs > 0).astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """Ridge regressions on the same rows, one per column of targets, each with the penalty of `PENALTIES` that
    generalised cross-validation prefers. Works on the smaller of the two Gram matrices.

    Reference:
        Golub, Heath and Wahba (1979), "Generalized cross-validation as a method for choosing a good ridge parameter".
    """

    values: Float[np.ndarray, " r"]
    """Eigenvalues of the Gram matrix that rounding did not make up."""
    left: Float[np.ndarray, "n r"]
    """Their eigenvectors among the rows."""
    right: Float[np.ndarray, "d r"] | None
    """Their eigenvectors among the columns, where scores are asked of rows; None: of products with the rows."""
    intercept: bool

    @classmethod
    def of(cls, rows: Float[np.ndarray, "n d"], *, intercept: bool) -> "Ridge":
        """Of training rows; centred if there is an intercept."""
        n, d = rows.shape
        if n <= d:
            found = cls.of_gram(rows @ rows.T, intercept=intercept)
            right = rows.T @ found.left / np.sqrt(found.values)
            return cls(values=found.values, left=found.left, right=right, intercept=intercept)
        values, vectors = _kept(*eigh(rows.T @ rows, driver="evd", check_finite=False))
        left = rows @ (vectors / np.sqrt(values))
        return cls(values=values, left=left, right=vectors, intercept=intercept)

    @classmethod
    def of_gram(cls, gram: Float[np.ndarray, "n n"], *, intercept: bool) -> "Ridge":
        """Of the products of the training rows with each other."""
        values, vectors = _kept(*eigh(gram, driver="evd", check_finite=False))
        return cls(values=values, left=vectors, right=None, intercept=intercept)

    def scores(self, asked: np.ndarray, targets: Float[np.ndarray, "n draws"]) -> Float[np.ndarray, "k draws"]:
        """Predictions of rows (shifted by the same centre), or of rows given as products with the training rows."""
        means, loads, penalties = self._fitted(targets)
        if self.right is None:
            weights = loads / (self.values[:, None] + penalties)
            return (asked @ self.left) @ weights + means
        weights = np.sqrt(self.values)[:, None] * loads / (self.values[:, None] + penalties)
        return (asked @ self.right) @ weights + means

    def left_out(self, targets: Float[np.ndarray, "n draws"]) -> Float[np.ndarray, "n draws"]:
        """What each training row is predicted to be by the fit without it, at the penalty of the whole fit."""
        means, loads, penalties = self._fitted(targets)
        kept = self.values[:, None] / (self.values[:, None] + penalties)
        fitted = self.left @ (kept * loads) + means
        own = self.left**2 @ kept + (1 / len(targets) if self.intercept else 0.0)
        return (fitted - own * targets) / np.maximum(1 - own, 1e-12)

    def _fitted(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per column of targets: the mean, the loads on the eigenvectors, and the penalty."""
        means = targets.mean(axis=0) if self.intercept else np.zeros(targets.shape[1])
        loads = self.left.T @ (targets - means)
        if len(self.values) == 0:
            return means, loads, np.ones(targets.shape[1])
        n = len(targets)
        tried = np.sort(PENALTIES * float(self.values.mean()))[::-1]
        outside = np.maximum(((targets - means) ** 2).sum(axis=0) - (loads**2).sum(axis=0), 0.0)
        shrink = self.values[:, None] / (self.values[:, None] + tried)  # (r, penalties)
        residual = outside + ((1 - shrink) ** 2).T @ loads**2
        freedom = n - shrink.sum(axis=0) - (1 if self.intercept else 0)
        return means, loads, tried[np.argmin(residual / (freedom**2)[:, None], axis=0)]


def ridge_scores(
    rows: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, " n"],
    asked: Float[np.ndarray, "k d"],
    *,
    intercept: bool,
) -> Float[np.ndarray, " k"]:
    """What a `Ridge` of the rows predicts for the asked ones; the sign is the prediction."""
    return Ridge.of(rows, intercept=intercept).scores(asked, targets[:, None])[:, 0]


def _kept(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions that rounding did not make up; none where every row is zero."""
    kept = values > 1e-12 * max(float(values[-1]), 0.0)
    return values[kept], vectors[:, kept]


def column_scale(part: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Root mean square of each column; 1 for a column of zeros."""
    scale = np.sqrt(np.einsum("ij,ij->j", part, part) / len(part))
    return np.where(scale > 0, scale, 1.0)
