r"""Held-out linear probes: what a linear reader gets right on pairs that it was not fitted on.

Every pair is predicted once, by a ridge classifier fitted on the other folds. Pairs with the same prompt share a
fold. The penalty is chosen inside each training part by generalised cross-validation, so the held-out pairs never
have a say in it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import eigh
from scipy.stats import rankdata

from prefdyn.diagnostics.inference import wilson_interval
from prefdyn.maths.kernel import PairKernel

PENALTIES = np.geomspace(1e-4, 1e2, 13)
"""Ridge penalties that are tried, in units of the mean eigenvalue of the training Gram matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a held-out linear probe found. NaN where it could not be fitted."""

    accuracy: float
    """Share of pairs predicted rightly while held out."""
    interval: tuple[float, float]
    """Wilson 95 % interval of the accuracy."""
    chance: float
    """What always naming the larger class would score; 0.5 where chosen and rejected are told apart."""
    auc: float
    """Area under the ROC curve along the mean gap of the other folds."""


UNKNOWN = Probe(accuracy=math.nan, interval=(math.nan, math.nan), chance=math.nan, auc=math.nan)


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
    text: Int[np.ndarray, " n"],
    *,
    folds: int,
    rng: np.random.Generator,
) -> Probe:
    """Can a linear reader of the states tell which of two answers is the chosen one?

    Columns are standardised on the training part; the classifier is ridge regression on ±1 with an intercept.

    Args:
        states: One row per pair.
        positive: True where the first answer is chosen.
        text: Equal integers for pairs with the same prompt.
        folds: How many folds, at least 2.
        rng: Decides the folds.

    Returns:
        Accuracy with interval, the share of the larger class, and the AUC along the mean gap. `UNKNOWN` for one
        class, fewer than 4 pairs, or a single text.
    """
    n, count = len(positive), int(positive.sum())
    if min(count, n - count) == 0 or n < 4 or len(np.unique(text)) < 2:
        return UNKNOWN
    fold = assign_folds(text, positive, folds, rng)
    signs = np.where(positive, 1.0, -1.0)
    right, wins, contests = 0.0, 0.0, 0
    for fit, test in splits(fold):
        part = states[fit].astype(np.float64)
        centre = part.mean(axis=0)
        part -= centre
        rows = states[test] - centre
        first, second = positive[fit], positive[test]
        if 0 < first.sum() < len(fit) and 0 < second.sum() < len(test):
            gap = part[first].mean(axis=0) - part[~first].mean(axis=0)
            along = rows @ gap
            contests += int(second.sum() * (~second).sum())
            wins += _rank_wins(along[second], along[~second])
        scale = column_scale(part)
        part /= scale
        rows /= scale
        scores = ridge_scores(part, signs[fit], rows, intercept=True)
        right += hits(scores, signs[test])
    return Probe(
        accuracy=right / n,
        interval=wilson_interval(right, n),
        chance=max(count, n - count) / n,
        auc=wins / contests if contests else math.nan,
    )


def probe_pairs(kernel: PairKernel, text: Int[np.ndarray, " n"], *, folds: int, rng: np.random.Generator) -> Probe:
    r"""Can a linear reader of the pair features tell chosen from rejected?

    Swapping the two turns $\phi$ into $-\phi$, so the reader has no intercept and its answers do not depend on which
    side each pair is shown from: a pair is right where $w \cdot \phi > 0$. Columns are scaled by their root mean
    square on the training part, never centred.

    Args:
        kernel: Pair features in product form.
        text: Equal integers for pairs with the same prompt.
        folds: How many folds, at least 2.
        rng: Decides the folds.

    Returns:
        Accuracy with interval, chance 0.5, and the AUC along the other folds' mean $\phi$ between the pairs and
        their swapped selves. `UNKNOWN` for fewer than 4 pairs or a single text.
    """
    n = len(kernel)
    if n < 4 or len(np.unique(text)) < 2:
        return UNKNOWN
    fold = assign_folds(text, np.ones(n, dtype=bool), folds, rng)
    right, wins, contests = 0.0, 0.0, 0
    for fit, test in splits(fold):
        ones = np.ones(len(fit))
        mean = kernel.rows(fit).adjoint(ones)
        along = kernel.rows(test).forward(mean)
        contests += len(test) * (len(test) - 1)
        wins += _rank_wins(along, -along) - _self_wins(along)
        scale = column_scale(np.asarray(kernel.features[fit], dtype=np.float64))
        scaled = PairKernel(answers=kernel.answers, features=kernel.features / scale)
        known, asked = scaled.rows(fit), scaled.rows(test)
        if kernel.answers.shape[1] == 1 and len(fit) > kernel.features.shape[1]:
            scores = ridge_scores(known.answers * known.features, ones, asked.answers * asked.features, intercept=False)
        else:
            scores = _dual_scores(known.dense(), ones, asked.cross(known))
        right += hits(scores, np.ones(len(test)))
    return Probe(
        accuracy=right / n,
        interval=wilson_interval(right, n),
        chance=0.5,
        auc=wins / contests if contests else math.nan,
    )


def ridge_scores(
    rows: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, " n"],
    asked: Float[np.ndarray, "k d"],
    *,
    intercept: bool,
) -> Float[np.ndarray, " k"]:
    """Ridge regression with the penalty of `PENALTIES` that generalised cross-validation prefers.

    Works on the smaller of the two Gram matrices.

    Args:
        rows: Training rows; centred if there is an intercept.
        targets: What to predict, ±1.
        asked: Rows to predict, shifted by the same centre.
        intercept: Whether to fit one: the mean target, as rows are centred.

    Returns:
        A score per asked row; its sign is the prediction.

    Reference:
        Golub, Heath and Wahba (1979), "Generalized cross-validation as a method for choosing a good ridge parameter".
    """
    n, d = rows.shape
    if n <= d:
        return _dual_scores(rows @ rows.T, targets, asked @ rows.T, intercept=intercept)
    mean = float(targets.mean()) if intercept else 0.0
    values, vectors = eigh(rows.T @ rows, driver="evd", check_finite=False)
    values, vectors = _kept(values, vectors)
    pulls = vectors.T @ (rows.T @ (targets - mean))
    penalty = _best_penalty(values, pulls / np.sqrt(values), targets - mean, intercept=intercept)
    return asked @ (vectors @ (pulls / (values + penalty))) + mean


def _dual_scores(
    gram: Float[np.ndarray, "n n"],
    targets: Float[np.ndarray, " n"],
    cross: Float[np.ndarray, "k n"],
    *,
    intercept: bool = False,
) -> Float[np.ndarray, " k"]:
    mean = float(targets.mean()) if intercept else 0.0
    values, vectors = eigh(gram, driver="evd", check_finite=False)
    values, vectors = _kept(values, vectors)
    loads = vectors.T @ (targets - mean)
    penalty = _best_penalty(values, loads, targets - mean, intercept=intercept)
    return cross @ (vectors @ (loads / (values + penalty))) + mean


def _kept(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions that rounding did not make up; none where every row is zero."""
    kept = values > 1e-12 * max(float(values[-1]), 0.0)
    return values[kept], vectors[:, kept]


def _best_penalty(
    values: Float[np.ndarray, " r"],
    loads: Float[np.ndarray, " r"],
    targets: Float[np.ndarray, " n"],
    *,
    intercept: bool,
) -> float:
    """The penalty with the least generalised cross-validation error; the largest of equals."""
    if len(values) == 0:
        return 1.0
    n = len(targets)
    penalties = np.sort(PENALTIES * float(values.mean()))[::-1]
    shrink = values[:, None] / (values[:, None] + penalties)
    outside = max(float(targets @ targets - loads @ loads), 0.0)
    residual = outside + (((1 - shrink) * loads[:, None]) ** 2).sum(axis=0)
    freedom = n - shrink.sum(axis=0) - (1 if intercept else 0)
    return float(penalties[int(np.argmin(residual / freedom**2))])


def column_scale(part: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Root mean square of each column; 1 for a column of zeros."""
    scale = np.sqrt(np.einsum("ij,ij->j", part, part) / len(part))
    return np.where(scale > 0, scale, 1.0)


def hits(scores: Float[np.ndarray, " n"], signs: Float[np.ndarray, " n"]) -> float:
    """Right predictions; a score of exactly 0 counts half."""
    return float(np.sum(scores * signs > 0) + 0.5 * np.sum(scores == 0))


def _rank_wins(high: Float[np.ndarray, " a"], low: Float[np.ndarray, " b"]) -> float:
    """How many pairs (h, l) have h > l, ties counting half."""
    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float(ranks.sum() - len(high) * (len(high) + 1) / 2)


def _self_wins(along: Float[np.ndarray, " n"]) -> float:
    return float(np.sum(along > 0) + 0.5 * np.sum(along == 0))
