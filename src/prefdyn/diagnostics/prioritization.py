r"""Who is learned first: priority levels, influence between groups, and the first step's push on every pair.

The first full-batch step moves the head by $\theta(1) = \frac{\eta\beta}{N} h(0) \sum_i w_i \phi_i$ with
$N = \sum_i w_i$ over the training pairs and $h(0) = \tfrac12$ (the sigmoid loss). Everything here is an inner
product with a part of that sum, and no n × n matrix is formed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._checks import positive
from prefdyn.diagnostics.inference import json_number
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import priority_gaps, priority_levels
from prefdyn.maths.kernel import PairKernel

_PUSH = 0.5
r"""$h(0)$ of the sigmoid loss: how hard every pair pulls before the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prioritization:
    """Priority of each group, measured on the training pairs. NaN: undefined."""

    groups: tuple[str, ...]
    level: Float[np.ndarray, " m"]
    r"""$P_i = \langle \bar\phi, \bar\phi_i \rangle / (\lVert \bar\phi \rVert \max_k \lVert \bar\phi_k \rVert)$, in
    [-1, 1]. Below 0: the joint first step goes against the group."""
    gap: Float[np.ndarray, "m m"]
    """Level of i minus level of j, where only the two train together."""
    influence: Float[np.ndarray, "m m"]
    """Row i, column j: what the pairs of group i add, in the joint first step, to the average reward margin of
    group j. The sum of a column is `first_step_margin`."""
    first_step_margin: Float[np.ndarray, " m"]
    """Average reward margin of each group's training pairs after the joint first step."""
    vanishing_mean: bool
    """True where the groups' pulls cancel (or no pair has a feature), so that levels are undefined."""
    beta: float
    learning_rate: float

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group; unknown numbers are None."""
        return [
            {"name": name, "priority": json_number(level), "first_step_margin": json_number(margin)}
            for name, level, margin in zip(self.groups, self.level, self.first_step_margin, strict=True)
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


def prioritization(feats: FeatureSet, *, beta: float = 0.1, learning_rate: float = 1.0) -> Prioritization:
    r"""Priority level of every group, pairwise gaps, and the influence of each group on each other.

    Group means $\bar\phi_i$ and the overall mean $\bar\phi$ weigh pairs by their weight, so that unequal groups and
    classes count as the loss counts them. For groups of equal size with equal classes the levels are those of the
    paper: $\bar\phi_i$ is then the mean gap of the group up to a common factor.

    Args:
        feats: Features of either kind; only pairs that are not held out count.
        beta: DPO's temperature.
        learning_rate: Step size of the first step. Levels and gaps do not depend on it or on beta.

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
    kernel = feats.working_kernel().rows(train)
    group, weight = feats.group[train], feats.weight[train]
    m = len(feats.groups)
    mass = np.bincount(group, weights=weight, minlength=m)
    count = np.bincount(group, minlength=m)
    with np.errstate(divide="ignore"):
        pulling = np.where(count[group] > 0, weight / mass[group], 0.0)
        plain = 1.0 / count[group]
    shares = mass / mass.sum()
    weighted = _group_gram(kernel, group, pulling, pulling, m)
    mixed = weighted if _equal(pulling, plain) else _group_gram(kernel, group, pulling, plain, m)

    empty = count == 0
    noise = 1e-12 if kernel.features.dtype == np.float64 else 1e-5
    level = priority_levels(weighted, mass, noise=noise)
    vanishing = bool(np.isnan(level).all())
    level[empty] = np.nan
    gap = priority_gaps(weighted, mass, noise=noise)
    influence = learning_rate * beta**2 * _PUSH * shares[:, None] * mixed
    first = influence.sum(axis=0)
    for array in (gap, influence):
        array[empty, :] = np.nan
        array[:, empty] = np.nan
    first[empty] = np.nan
    return Prioritization(
        groups=feats.groups,
        level=level,
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
    kernel = feats.working_kernel()
    pull = np.where(feats.held_out, 0.0, feats.weight)
    scale = learning_rate * beta**2 * _PUSH / pull.sum()
    dtype = kernel.features.dtype
    own = pull * kernel.diagonal()
    theta = kernel.rows(train).adjoint(pull[train].astype(dtype))
    agreement = kernel.forward(theta) - own
    group_agreement = np.zeros(len(feats))
    for code in range(len(feats.groups)):
        rows = feats.members(code)
        part = kernel.rows(rows)
        group_agreement[rows] = part.forward(part.adjoint(pull[rows].astype(dtype))) - own[rows]
    chosen_push, rejected_push = _side_pushes(feats, kernel, scale / beta * theta)
    return PairPushes(
        agreement=scale * agreement.astype(np.float64),
        group_agreement=scale * group_agreement,
        chosen_push=chosen_push,
        rejected_push=rejected_push,
    )


def _side_pushes(
    feats: FeatureSet, kernel: PairKernel, theta: np.ndarray
) -> tuple[Float[np.ndarray, " n"] | None, Float[np.ndarray, " n"] | None]:
    """Change of the chosen and of the rejected log-probability under head weights θ."""
    if feats.chosen_features is not None and feats.rejected_features is not None:
        chosen, rejected = feats.chosen_features @ theta[0], feats.rejected_features @ theta[0]
        return chosen.astype(np.float64), rejected.astype(np.float64)
    log_probs = feats.answer_log_probs()
    if log_probs is None or feats.chosen is None or feats.rejected is None:
        return None, None
    _, basis = feats.coordinates()
    logits = kernel.features @ (basis @ theta).T
    shared, rows = np.sum(np.exp(log_probs) * logits, axis=1), np.arange(len(feats))
    return logits[rows, feats.chosen] - shared, logits[rows, feats.rejected] - shared


def _train_rows(feats: FeatureSet) -> np.ndarray:
    train = np.flatnonzero(~feats.held_out)
    if len(train) == 0:
        raise DataError(f"all {len(feats)} pairs are held out, so no pair pulls; lower the held-out share")
    return train


def _group_gram(
    kernel: PairKernel, group: np.ndarray, left: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"], m: int
) -> Float[np.ndarray, "m m"]:
    """Inner products of group sums of φ, weighted by `left` in the rows and by `right` in the columns."""
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    parts = np.split(order, starts[1:])
    gram = np.zeros((m, m))
    place = np.ix_(present, present)
    for column in range(kernel.answers.shape[1]):
        answers = np.asarray(kernel.answers[:, column], dtype=np.float64)
        sums = [np.stack([_sum(kernel, answers * by, part) for part in parts]) for by in (left, right)]
        gram[place] += sums[0] @ sums[1].T
    return gram


def _sum(kernel: PairKernel, values: Float[np.ndarray, " n"], part: np.ndarray) -> Float[np.ndarray, " d"]:
    return (values[part].astype(kernel.features.dtype) @ kernel.features[part]).astype(np.float64)


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.all(np.abs(first - second) <= 1e-14 * np.abs(second)))
