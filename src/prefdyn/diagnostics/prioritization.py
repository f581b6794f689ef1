r"""Who is learned first: priority levels, influence between groups, and the first step's push on every pair.

The first full-batch step moves the head by $\theta(1) = \frac{\eta\beta}{N} h(0) \sum_i w_i \phi_i$ with
$N = \sum_i w_i$ over the training pairs and $h(0) = \tfrac12$ (the sigmoid loss). Everything here is an inner
product with a part of that sum, and no n × n matrix is formed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefdyn._checks import positive
from prefdyn._showing import Tabular
from prefdyn.diagnostics.inference import json_number
from prefdyn.diagnostics.levels import level_intervals
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import levels_along, priority_gaps, priority_levels
from prefdyn.maths.kernel import PairKernel

_PUSH = 0.5
r"""$h(0)$ of the sigmoid loss: how hard every pair pulls before the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prioritization(Tabular):
    """Priority of each group, measured on the training pairs. NaN: undefined."""

    groups: tuple[str, ...]
    level: Float[np.ndarray, " m"]
    r"""$P_i = \langle \bar\phi, \bar\phi_i \rangle / (\lVert \bar\phi \rVert \max_k \lVert \bar\phi_k \rVert)$, in
    [-1, 1]. Below 0: the joint first step goes against the group."""
    interval: Float[np.ndarray, "m 2"]
    """95 % interval of what other units would show, which need not hold the level of these: noise in a mean goes along
    itself. NaN of groups that are not in `shown`, and where no units were given."""
    shown: Int[np.ndarray, " k"]
    """Codes of the groups that are held against others: all, unless fewer were asked for."""
    gap: Float[np.ndarray, "k k"]
    """Level of i minus level of j, of the groups in `shown`, where only the two train together."""
    influence: Float[np.ndarray, "k m"]
    """Row i, column j: what the pairs of the i-th group in `shown` add, in the joint first step, to the average reward
    margin of group j. The sum of a column, over all groups, is `first_step_margin`."""
    first_step_margin: Float[np.ndarray, " m"]
    """Average reward margin of each group's training pairs after the joint first step."""
    vanishing_mean: bool
    """True where the groups' pulls cancel (or no pair has a feature), so that levels are undefined."""
    beta: float
    learning_rate: float

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group; unknown numbers are None."""
        return [
            {
                "name": name,
                "priority": json_number(level),
                "priority_low": json_number(low),
                "priority_high": json_number(high),
                "first_step_margin": json_number(margin),
            }
            for name, level, (low, high), margin in zip(
                self.groups, self.level, self.interval, self.first_step_margin, strict=True
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPushes:
    """What the joint first step does to every pair."""

    agreement: Float[np.ndarray, " n"]
    """Push of all other training pairs on this pair's reward margin."""
    group_agreement: Float[np.ndarray, " n"]
    """The same from its own group only; the sum over groups of such terms is `agreement`."""
    chosen_push: Float[np.ndarray, " n"] | None
    """Change of the chosen response's log-probability in nats, first order, the pair's own pull included if it is
    trained on. Below 0 it starts by falling. None where the reference probabilities are unknown."""
    rejected_push: Float[np.ndarray, " n"] | None
    """The same of the rejected response; β times the difference of the two is the change of the reward margin."""


def prioritization(
    feats: FeatureSet,
    *,
    beta: float = 0.1,
    learning_rate: float = 1.0,
    shown: Int[np.ndarray, " k"] | None = None,
    unit: Int[np.ndarray, " n"] | None = None,
) -> Prioritization:
    r"""Priority level of every group, pairwise gaps, and the influence of each group on each other.

    Group means $\bar\phi_i$ and the overall mean $\bar\phi$ weigh pairs by their weight, so that unequal groups and
    classes count as the loss counts them. For groups of equal size with equal classes the levels are those of the
    paper: $\bar\phi_i$ is then the mean gap of the group up to a common factor.

    Args:
        feats: Features of either kind; only pairs that are not held out count.
        beta: DPO's temperature.
        learning_rate: Step size of the first step. Levels and gaps do not depend on it or on beta.
        shown: Codes of the groups that are held against others; all if not given. With these alone, time and memory
            grow with the number of groups and not with its square.
        unit: Equal integers for pairs that are drawn together, for the intervals of the levels
            (`prefdyn.diagnostics.levels`); none are made without it.

    Returns:
        Levels, gaps and influence. A group without training pairs has NaN; where the mean vanishes all levels are
        NaN and `vanishing_mean` is set.

    Raises:
        ConfigError: beta or the learning rate is not above 0.
        DataError: No pair is left to train on.

    Reference:
        2403.18742, Eq. 5 and appendix A.3, weighted as in THEORY 2.6; Eq. 24 with the unit of THEORY X-6.

    Example:
        >>> feats = FeatureSet.from_arrays([[3.0, 0], [0, 1]], chosen=[1, 1], rejected=[0, 0], group=["a", "b"])
        >>> found = prioritization(feats)
        >>> found.level.round(6).tolist(), round(float(found.gap[0, 1]), 6)
        ([0.948683, 0.105409], 0.843274)
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    train = _train_rows(feats)
    group, weight = feats.group[train], feats.weight[train]
    m = len(feats.groups)
    mass = np.bincount(group, weights=weight, minlength=m)
    count = np.bincount(group, minlength=m)
    with np.errstate(divide="ignore"):
        pulling = np.where(count[group] > 0, weight / mass[group], 0.0)
        plain = 1.0 / count[group]
    shares = mass / mass.sum()
    empty = count == 0
    noise = 1e-12 if feats.working_dtype == np.float64 else 1e-5
    weights = [pulling] if _equal(pulling, plain) else [pulling, plain]
    codes = np.arange(m) if shown is None else np.asarray(shown)
    k, whole = len(codes), shown is None or len(codes) == m
    weighted, mixed = np.zeros((k, k)), np.zeros((k, m))
    along, squares, served, square = np.zeros(m), np.zeros(m), np.zeros(m), 0.0
    for left, *others in _group_sums(feats, train, group, weights):
        right, some = others[0] if others else left, left if whole else left[codes]
        weighted += some @ some.copy().T  # a copy: one product in one way, whether the two sides are the same or not
        if others or not whole:
            mixed += some @ right.T
        if not whole:
            mean = shares @ left
            along += left @ mean
            served += right @ mean
            squares += np.einsum("ij,ij->i", left, left)
            square += float(mean @ mean)
    mixed = weighted if whole and len(weights) == 1 else mixed
    scale = learning_rate * beta**2 * _PUSH
    gap = priority_gaps(weighted, mass[codes], noise=noise)
    influence = scale * shares[codes, None] * mixed
    if whole:
        level, first = priority_levels(weighted, mass, noise=noise), influence.sum(axis=0)
    else:
        level, first = levels_along(along, squares, shares, square, noise=noise), scale * served
    vanishing = bool(np.isnan(level).all())
    level[empty] = np.nan
    gap[empty[codes], :] = np.nan
    gap[:, empty[codes]] = np.nan
    influence[empty[codes], :] = np.nan
    influence[:, empty] = np.nan
    first[empty] = np.nan
    interval = np.full((m, 2), np.nan)
    if unit is not None and not vanishing:
        interval[codes] = level_intervals(feats, unit, codes)
    return Prioritization(
        groups=feats.groups,
        level=level,
        interval=interval,
        shown=codes,
        gap=gap,
        influence=influence,
        first_step_margin=first,
        vanishing_mean=vanishing,
        beta=beta,
        learning_rate=learning_rate,
    )


def pair_pushes(feats: FeatureSet, *, beta: float, learning_rate: float) -> PairPushes:
    r"""Push of the joint first step on every pair, held out or not.

    $\mathrm{agreement}_i = \frac{\eta\beta^2}{N} h(0) \sum_{j \ne i} w_j C_{ij}$ over the training pairs j, in reward
    margin. A pair far below 0 is at odds with the rest: its label, its prompt or its group may be wrong.

    Args:
        feats: Features of either kind.
        beta: DPO's temperature.
        learning_rate: Step size of the first step.

    Returns:
        Four numbers per pair (see `PairPushes`), linear in the learning rate.

    Raises:
        ConfigError: beta or the learning rate is not above 0.
        DataError: No pair is left to train on.

    Reference:
        THEORY 1.3 (margins) and 4.6 (b) (log-probabilities).

    Example:
        >>> feats = FeatureSet.from_arrays([[1.0, 0], [1, 0], [-1, 0]], chosen=[1, 1, 1], rejected=[0, 0, 0])
        >>> (pair_pushes(feats, beta=1.0, learning_rate=3.0).agreement + 0.0).round(9).tolist()
        [0.0, 0.0, -2.0]
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    train = _train_rows(feats)
    n = len(feats)
    pull = np.where(feats.held_out, 0.0, feats.weight)
    scale = learning_rate * beta**2 * _PUSH / pull.sum()
    dtype = feats.working_dtype
    theta: Any = 0.0
    for where, kernel in feats.kernel_blocks(train):
        theta = theta + kernel.adjoint(pull[train[where]].astype(dtype))
    heads = list(_group_sums(feats, np.arange(n), feats.group, [pull])) if feats.in_pieces else None
    agreement, group_agreement = np.zeros(n), np.zeros(n)
    sides: list[tuple[Any, Any]] = []
    for where, kernel in feats.kernel_blocks(np.arange(n)):
        own = pull[where] * kernel.diagonal()
        agreement[where] = kernel.forward(theta) - own
        part_agreement = np.zeros(len(kernel))
        for rows in _by_code(feats.group[where]):
            part = kernel.rows(rows)
            if heads is None:
                head: Any = part.adjoint(pull[rows].astype(dtype))
            else:
                code = feats.group[where][rows[0]]
                head = np.stack([column[code] for (column,) in heads]).astype(dtype)
            part_agreement[rows] = part.forward(head) - own[rows]
        group_agreement[where] = part_agreement
        sides.append(_side_pushes(feats, where, kernel, scale / beta * theta))
    chosen_push, rejected_push = (
        None if any(each is None for each in side) else np.concatenate(side) for side in zip(*sides, strict=True)
    )
    return PairPushes(
        agreement=scale * agreement,
        group_agreement=scale * group_agreement,
        chosen_push=chosen_push,
        rejected_push=rejected_push,
    )


def _side_pushes(
    feats: FeatureSet, where: slice, kernel: PairKernel, theta: np.ndarray
) -> tuple[Float[np.ndarray, " b"] | None, Float[np.ndarray, " b"] | None]:
    """Change of the chosen and of the rejected log-probability of some pairs under head weights θ."""
    if feats.chosen_features is not None and feats.rejected_features is not None:
        chosen, rejected = feats.chosen_features[where] @ theta[0], feats.rejected_features[where] @ theta[0]
        return chosen.astype(np.float64), rejected.astype(np.float64)
    some = feats.select(where)
    log_probs = some.answer_log_probs()
    if log_probs is None or some.chosen is None or some.rejected is None:
        return None, None
    _, basis = feats.coordinates()
    logits = kernel.features @ (basis @ theta).T
    shared, rows = np.sum(np.exp(log_probs) * logits, axis=1), np.arange(len(some))
    return logits[rows, some.chosen] - shared, logits[rows, some.rejected] - shared


def _train_rows(feats: FeatureSet) -> np.ndarray:
    train = np.flatnonzero(~feats.held_out)
    if len(train) == 0:
        raise DataError(f"all {len(feats)} pairs are held out, so no pair pulls; lower the held-out share")
    return train


_SUMS_BYTES = 2**29
"""Group sums that are held at once: of as many token coordinates as fit, one after another."""


def _group_sums(
    feats: FeatureSet, rows: Int[np.ndarray, " size"], group: Int[np.ndarray, " size"], weights: list[np.ndarray]
) -> Iterator[list[Float[np.ndarray, "m d"]]]:
    """Per token coordinate, the sums of its part of φ over the pairs of each group, once per list of weights."""
    m, p = len(feats.groups), feats.coordinates()[0].shape[1]
    width = feats.pair_features(slice(0, 1), feats.working_dtype).shape[1]
    together = max(1, _SUMS_BYTES // (8 * m * width * len(weights)))
    for start in range(0, p, together):
        columns = range(start, min(p, start + together))
        sums = [[np.zeros((m, width)) for _ in weights] for _ in columns]
        for where, kernel in feats.kernel_blocks(rows):
            parts = _by_code(group[where])
            for found, column in zip(sums, columns, strict=True):
                answers = np.asarray(kernel.answers[:, column], dtype=np.float64)
                for total, by in zip(found, weights, strict=True):
                    values = (answers * by[where]).astype(kernel.features.dtype)
                    for part in parts:
                        total[group[where][part[0]]] += values[part] @ kernel.features[part]
        yield from sums


def _by_code(codes: Int[np.ndarray, " size"]) -> list[Int[np.ndarray, " part"]]:
    """Places of equal codes, those of the least code first."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.all(np.abs(first - second) <= 1e-14 * np.abs(second)))
