r"""How groups lie to each other: cosines, centroid distances, and the constants of the cluster model.

The cosine between two groups is the mean over all pairs of rows, one from each, of the rows' cosine. It is taken raw
and with the component that all rows share removed; with and without pairs of a row with itself.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.spatial.distance import cdist

from prefdyn._checks import at_least, one_of
from prefdyn._random import stream
from prefdyn._showing import Tabular
from prefdyn._threads import small_work
from prefdyn.diagnostics.inference import json_number
from prefdyn.errors import DataError, MissingExtra
from prefdyn.features import Answers, FeatureSet
from prefdyn.maths.geometry import effective_rank, shared_norm_and_spread

_CELLS = 2**26
"""Numbers, pairs × width, up to which all states are measured: 16,384 pairs of width 4,096, a million of width 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthogonality(Tabular):
    """Cosines between groups and what stands beside them. NaN: could not be measured."""

    groups: tuple[str, ...]
    """Names of the groups that are held against each other: all, unless fewer were asked for."""
    rows_used: str
    """Rows that the cosines use: "all", or "positive", those whose first answer is chosen."""
    pairs_used: int
    """Pairs that everything here rests on: all, or a sample with as many of each group as fit."""
    cosine: Float[np.ndarray, "m m"]
    """Mean cosine between rows, self pairs included on the diagonal, as published."""
    cosine_without_self: Float[np.ndarray, "m m"]
    cosine_centred: Float[np.ndarray, "m m"]
    """The same after the shared mean is removed."""
    cosine_centred_without_self: Float[np.ndarray, "m m"]
    raw_off_diagonal_mean: float
    """Mean over pairs of different groups of |cosine|."""
    raw_off_diagonal_max: float
    """Largest |cosine| between different groups."""
    centred_off_diagonal_mean: float
    centred_off_diagonal_max: float
    null_cosine: float
    r"""Mean |cosine| of two random directions: $\sqrt{2 / (\pi d)}$."""
    mean_squared_norm: float
    """Mean squared length of the rows used, before normalisation."""
    distance_labels: tuple[str, ...]
    """Names of the centroids: one per group and answer, one per group outside two-answer data."""
    distances: Float[np.ndarray, "c c"]
    """Euclidean distances between the centroids, in the unit of the features."""
    effective_rank: float
    """How many directions share the variance of all rows."""
    shared_norm: float
    """$l_b$: length of the shared centre after scaling to a unit mean half-gap."""
    spread: float
    """v: within-class standard deviation per dimension on the same scale."""

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per pair of groups, the diagonal included."""
        return [
            {
                "group": first,
                "other": second,
                "cosine": json_number(self.cosine[i, j]),
                "cosine_without_self": json_number(self.cosine_without_self[i, j]),
                "cosine_centred": json_number(self.cosine_centred[i, j]),
                "cosine_centred_without_self": json_number(self.cosine_centred_without_self[i, j]),
            }
            for i, first in enumerate(self.groups)
            for j, second in enumerate(self.groups[: i + 1])
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A picture of the states in two dimensions, one entry per point."""

    method: str
    """Either `pca` or `umap`."""
    explained: tuple[float, ...]
    """Share of the points' variance along each axis; empty for UMAP, which has no such number."""
    x: Float[np.ndarray, " k"]
    y: Float[np.ndarray, " k"]
    group: np.ndarray
    """Index into the FeatureSet's groups."""
    positive: tuple[bool | None, ...]
    """Whether the first answer is chosen; None outside two-answer groups."""
    id: np.ndarray
    of: int
    """Pairs that the points were drawn from."""

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per point."""
        return [
            {"id": str(i), "group": int(g), "positive": p, "x": float(x), "y": float(y)}
            for i, g, p, x, y in zip(self.id, self.group, self.positive, self.x, self.y, strict=True)
        ]


def orthogonality(
    feats: FeatureSet,
    *,
    rows: str | None = None,
    centre: str = "unit",
    shown: Int[np.ndarray, " k"] | None = None,
    cells: int = _CELLS,
    seed: int = 0,
) -> Orthogonality:
    r"""Cosines between groups, distances of their centroids, effective rank, $l_b$ and v.

    Args:
        feats: Features of either kind. For `responses` the states are mean chosen minus mean rejected.
        rows: Rows that the cosines use: "positive" (those whose first answer is chosen, as published), "all", or
            None: positive where every group has two answers, else all.
        centre: What the shared mean is taken of: "unit" rows of length 1 (as the published code does), or the "raw"
            rows (as its text says).
        shown: Codes of the groups that are held against each other; all if not given. The shared mean, the effective
            rank, $l_b$ and v are of all groups all the same.
        cells: Where the states are more numbers than this, a sample of as many pairs as fit is measured, with as many
            of each group.
        seed: Decides the sample.

    Returns:
        Matrices in the order of the groups. A group without such rows has NaN, and so has a self-free diagonal
        where a group has one row.

    Raises:
        ConfigError: An option is unknown.
        DataError: "positive" was asked for where a group has no two answers.

    Reference:
        2408.03459, section 5 and its notebook persona_structure; THEORY 3.12, 3.1.

    Example:
        >>> feats = FeatureSet.from_arrays(np.eye(4)[[0, 0, 1, 1]], chosen=[1] * 4, rejected=[0] * 4,
        ...                                group=["a", "a", "b", "b"], tokens=[1, 0])
        >>> orthogonality(feats).cosine.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    one_of(centre, ("unit", "raw"), name="centre")
    picked_rows = np.arange(len(feats))
    if feats.states.size > cells:
        picked_rows = _sample(feats, max(1, cells // feats.states.shape[1]), seed)
    by_group = _parts(feats.group[picked_rows], len(feats.groups))
    found = [feats.two_answers(picked_rows[members]) for members in by_group]
    missing = [
        name
        for name, answers, members in zip(feats.groups, found, by_group, strict=True)
        if answers is None and len(members)
    ]
    if rows is None:
        rows = "all" if missing else "positive"
    one_of(rows, ("positive", "all"), name="rows")
    if rows == "positive" and missing:
        raise DataError(
            f"rows='positive' needs groups with two answers, but group {missing[0]!r} has none or more; use rows='all'"
        )
    positive = np.zeros(len(picked_rows), dtype=bool)
    paired = np.zeros(len(picked_rows), dtype=bool)
    for members, answers in zip(by_group, found, strict=True):
        if answers is not None:
            positive[members] = answers.positive
            paired[members] = True
    used = np.flatnonzero(positive) if rows == "positive" else np.arange(len(picked_rows))
    m, width = len(feats.groups), feats.states.shape[1]
    codes = np.arange(m) if shown is None else np.asarray(shown)
    states = feats.states[picked_rows].astype(np.float64)
    group = feats.group[picked_rows]
    with small_work(states.size):
        picked = states[used]
        unit = _unit(picked)
        base = unit if centre == "unit" else picked
        parts = _parts(group[used], m)
        parts = [parts[code] for code in codes]
        raw, raw_free = _mean_cosines(unit, parts)
        shared = _unit(base - base.mean(axis=0) if len(base) else base)
        del unit, base
        centred, centred_free = _mean_cosines(shared, parts)
        del shared
        labels, centroids = _centroids(feats, states, [(code, by_group[code], found[code]) for code in codes.tolist()])
        norm, spread = shared_norm_and_spread(states[paired], group[paired], positive[paired])
        rank = effective_rank(states)
    return Orthogonality(
        groups=tuple(feats.groups[code] for code in codes),
        rows_used=rows,
        pairs_used=len(picked_rows),
        cosine=raw,
        cosine_without_self=raw_free,
        cosine_centred=centred,
        cosine_centred_without_self=centred_free,
        raw_off_diagonal_mean=_off_diagonal(raw)[0],
        raw_off_diagonal_max=_off_diagonal(raw)[1],
        centred_off_diagonal_mean=_off_diagonal(centred)[0],
        centred_off_diagonal_max=_off_diagonal(centred)[1],
        null_cosine=math.sqrt(2 / (math.pi * width)),
        mean_squared_norm=float(np.mean(np.einsum("ij,ij->i", picked, picked))) if len(picked) else math.nan,
        distance_labels=labels,
        distances=cdist(centroids, centroids),
        effective_rank=rank,
        shared_norm=norm,
        spread=spread,
    )


def embedding(
    feats: FeatureSet,
    *,
    points: int = 2000,
    method: str = "pca",
    seed: int = 0,
    shown: Int[np.ndarray, " k"] | None = None,
) -> Embedding:
    """The states in two dimensions, with as many points of each group as fit.

    Args:
        feats: Features of either kind.
        points: At most this many points in all (and at least one per group).
        method: "pca", exact and with a fixed sign, or "umap", as in the papers' figures.
        seed: Decides which pairs are drawn, and UMAP's start.
        shown: Codes of the groups whose pairs are drawn; all if not given.

    Returns:
        Coordinates with group, class and id of every point, in the order of the FeatureSet.

    Raises:
        ConfigError: The method is unknown or points is below 1.
        MissingExtra: UMAP was asked for and is not installed.

    Reference:
        2403.18742, Fig. 2, 8, 13, 14 (UMAP with its defaults).

    Example:
        >>> feats = FeatureSet.from_arrays([[2.0, 0], [-2, 0], [0, 1], [0, -1]], chosen=[1] * 4, rejected=[0] * 4)
        >>> picture = embedding(feats)
        >>> (picture.x + 0.0).round(6).tolist(), tuple(round(share, 6) for share in picture.explained)
        ([2.0, -2.0, 0.0, 0.0], (0.8, 0.2))
    """
    at_least(points, 1, name="points")
    one_of(method, ("pca", "umap"), name="method")
    chosen = _sample(feats, points, seed, shown)
    states = feats.states[chosen].astype(np.float64)
    if method == "umap":
        try:
            umap = importlib.import_module("umap")
        except ImportError as error:
            raise MissingExtra(
                "the UMAP picture needs umap-learn: pip install umap-learn, or use method='pca'"
            ) from error
        placed = np.asarray(umap.UMAP(random_state=seed, n_jobs=1).fit_transform(states), dtype=np.float64)
        explained: tuple[float, ...] = ()
    else:
        with small_work(states.size):
            placed, explained = principal_axes(states)
    positive: dict[int, bool | None] = {}
    for rows in feats.by_group():
        answers = feats.two_answers(rows)
        values = [None] * len(rows) if answers is None else answers.positive.tolist()
        positive |= dict(zip(rows.tolist(), values, strict=True))
    return Embedding(
        method=method,
        explained=explained,
        x=placed[:, 0],
        y=placed[:, 1],
        group=feats.group[chosen],
        positive=tuple(positive[row] for row in chosen.tolist()),
        id=feats.id[chosen],
        of=len(feats),
    )


def principal_axes(states: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n 2"], tuple[float, float]]:
    """Coordinates along the two directions of largest variance, and the share of variance that each explains.

    The sign of an axis is fixed: its component of largest size is positive.

    Example:
        >>> placed, explained = principal_axes(np.array([[-1.0, 0], [1, 0]]))
        >>> placed.tolist(), explained
        ([[-1.0, 0.0], [1.0, 0.0]], (1.0, 0.0))
    """
    n, d = states.shape
    centred = states - states.mean(axis=0)
    total = float(np.vdot(centred, centred))
    placed, explained = np.zeros((n, 2)), [0.0, 0.0]
    if total == 0:
        return placed, (0.0, 0.0)
    side = min(n, d)
    gram = centred @ centred.T if n < d else centred.T @ centred
    last = (max(side - 2, 0), side - 1)
    values, vectors = eigh(gram, subset_by_index=last, check_finite=False)
    for axis, column in enumerate(range(len(values) - 1, -1, -1)):
        value = max(float(values[column]), 0.0)
        if value <= 1e-12 * total:
            continue
        direction = centred.T @ vectors[:, column] / math.sqrt(value) if n < d else vectors[:, column]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        placed[:, axis] = centred @ direction
        explained[axis] = value / total
    return placed, (explained[0], explained[1])


def _sample(feats: FeatureSet, points: int, seed: int, shown: np.ndarray | None = None) -> np.ndarray:
    """Row numbers: small groups whole, the others alike, `points` in all; of some groups only, where given."""
    sizes = np.bincount(feats.group, minlength=len(feats.groups))
    if shown is not None:
        sizes = np.where(np.isin(np.arange(len(sizes)), shown), sizes, 0)
    quota = np.zeros_like(sizes)
    left = max(points, int((sizes > 0).sum()))
    for place, code in enumerate(order := np.argsort(sizes, kind="stable")):
        quota[code] = min(sizes[code], left // (len(order) - place))
        left -= int(quota[code])
    kept = []
    for code, (name, rows) in enumerate(zip(feats.groups, feats.by_group(), strict=True)):
        if quota[code]:
            kept.append(stream(seed, "embedding", name).permutation(rows)[: quota[code]])
    return np.sort(np.concatenate(kept))


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.where(lengths > 0, lengths, 1.0)[:, None]


def _parts(group: Int[np.ndarray, " n"], m: int) -> list[np.ndarray]:
    """Places of each of m groups."""
    return np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group, minlength=m))[:-1])


def _mean_cosines(
    unit: Float[np.ndarray, "n d"], parts: Sequence[np.ndarray]
) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, "k k"]]:
    """Mean inner product between the rows of two groups, with and without pairs of a row with itself."""
    count = np.array([len(rows) for rows in parts])
    means = np.full((len(parts), unit.shape[1]), np.nan)
    selves = np.zeros(len(parts))
    for place in np.flatnonzero(count).tolist():
        part = unit[parts[place]]
        means[place] = part.mean(axis=0)
        selves[place] = np.vdot(part, part)
    cosine = means @ means.T
    free = cosine.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        diagonal = (count**2 * np.diag(cosine) - selves) / (count * (count - 1.0))
    np.fill_diagonal(free, np.where(count > 1, diagonal, np.nan))
    return cosine, free


def _off_diagonal(cosine: Float[np.ndarray, "m m"]) -> tuple[float, float]:
    values = np.abs(cosine[~np.eye(len(cosine), dtype=bool)])
    values = values[~np.isnan(values)]
    return (float(values.mean()), float(values.max())) if len(values) else (math.nan, math.nan)


def _centroids(
    feats: FeatureSet, states: Float[np.ndarray, "n d"], groups: Sequence[tuple[int, np.ndarray, Answers | None]]
) -> tuple[tuple[str, ...], Float[np.ndarray, "c d"]]:
    """Centroids of groups, given by code, places among the states and answers; of both classes where there are two."""
    labels, centroids = [], [np.zeros((0, states.shape[1]))]
    for code, rows, answers in groups:
        if len(rows) == 0:
            continue
        if answers is None:
            labels.append(feats.groups[code])
            centroids.append(states[rows].mean(axis=0)[None])
            continue
        for token, side in ((answers.low, answers.positive), (answers.high, ~answers.positive)):
            if side.any():
                labels.append(f"{feats.groups[code]}: {feats.tokens[token].strip()}")
                centroids.append(states[rows[side]].mean(axis=0)[None])
    return tuple(labels), np.concatenate(centroids)
