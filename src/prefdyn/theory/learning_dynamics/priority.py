r"""Which group the first step serves: appendix A.3 and Eq. 5, for groups of any size.

Rows of `gaps` are $b_i = \hat\mu_+^i - \hat\mu_-^i$, or $b_{w,i} = \frac{2}{n_i}\sum s g$ where classes are unequal.
The joint first step moves the first answer's row along their mean $\bar b$, weighted by the groups' sizes.
"""

import numpy as np
from jaxtyping import Float, Num

from prefdyn._checks import positive
from prefdyn.maths import geometry


def priority_of_gaps(
    gaps: Float[np.ndarray, "m d"], sizes: Num[np.ndarray, " m"] | None = None
) -> Float[np.ndarray, " m"]:
    r"""Priority level of each group: $P_i = \bar b \cdot b_i / (\lVert\bar b\rVert \max_k \lVert b_k\rVert)$.

    Args:
        gaps: One gap per group.
        sizes: Pairs of each group; None for equal groups.

    Returns:
        Levels in [-1, 1]. All NaN where the gaps cancel.

    Reference:
        2403.18742, Eq. 5; THEORY 2.6.

    Found:
        Confirmed. The level times $\frac{\eta\beta}{4}\lVert\bar b\rVert\lVert b_*\rVert$ is the average improvement of
        the group after one real step, to rounding. For groups of unequal size, or with unequal classes, the weighted
        mean and the weighted gaps must be used; the plain ones are then wrong.

    Example:
        >>> priority_of_gaps(np.array([[3.0, 0], [0, 1]])).round(6).tolist()
        [0.948683, 0.105409]
    """
    return geometry.priority_levels(gaps @ gaps.T, _mass(gaps, sizes))


def first_update(
    gaps: Float[np.ndarray, "m d"],
    sizes: Num[np.ndarray, " m"] | None = None,
    *,
    beta: float,
    learning_rate: float,
) -> Float[np.ndarray, " d"]:
    r"""$w(1) = \frac{\eta\beta}{4} \bar b$: what the joint first step adds to the first answer's row.

    Args:
        gaps: One gap per group.
        sizes: Pairs of each group; None for equal groups.
        beta: DPO's temperature.
        learning_rate: Step size.

    Returns:
        The first update; the drift is $\sqrt2$ times its length.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, Eq. 21 and Eq. 18; THEORY 1.2 and 2.6.

    Found:
        Confirmed. Up to the sign of Eqs. 20 and 21 (see `descent_direction`), to rounding in full descent on the
        matrix. Eq. 18 bounds its length by $\frac34\eta\beta D$, which stands on Eq. 17 and is false with noisy means:
        in the counterexample the measured gap is 20 times the true one where 3 times is allowed.

    Example:
        >>> first_update(np.array([[3.0, 0], [0, 1]]), beta=0.5, learning_rate=0.4).round(9).tolist()
        [0.075, 0.025]
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    mass = _mass(gaps, sizes)
    return learning_rate * beta / 4 * (mass @ gaps) / mass.sum()


def first_step_logits(
    gaps: Float[np.ndarray, "m d"],
    sizes: Num[np.ndarray, " m"] | None = None,
    *,
    beta: float,
    learning_rate: float,
) -> Float[np.ndarray, " m"]:
    r"""Average improvement of each group's logit difference after one step: $\frac{\eta\beta}{4}\, \bar b \cdot b_j$.

    Args:
        gaps: One gap per group.
        sizes: Pairs of each group; None for equal groups.
        beta: DPO's temperature.
        learning_rate: Step size.

    Returns:
        Nats of log-ratio between the chosen and the rejected answer, one per group.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, Eq. 24; THEORY 2.6.

    Found:
        Wrong. Eq. 24 prints $\beta^2$ and calls it logits; logits improve by $\beta$ times, reward margins by $\beta^2$
        times (`first_step_margins`). 0.25 and 0.125 in the printed problem, where $\beta = 1/2$.

    Example:
        >>> first_step_logits(np.array([[2.0, 1.0]]), beta=0.5, learning_rate=0.4).round(9).tolist()
        [0.25]
    """
    return gaps @ first_update(gaps, sizes, beta=beta, learning_rate=learning_rate)


def first_step_margins(
    gaps: Float[np.ndarray, "m d"],
    sizes: Num[np.ndarray, " m"] | None = None,
    *,
    beta: float,
    learning_rate: float,
) -> Float[np.ndarray, " m"]:
    r"""Average reward margin of each group after the joint first step: $\frac{\eta\beta^2}{4}\, \bar b \cdot b_j$.

    Args:
        gaps: One gap per group.
        sizes: Pairs of each group; None for equal groups.
        beta: DPO's temperature.
        learning_rate: Step size.

    Returns:
        Reward margins (β inside), one per group.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, Eq. 24; THEORY 2.6 and X-6.

    Found:
        Repaired. What Eq. 24 computes, under its right name.

    Example:
        >>> first_step_margins(np.array([[2.0, 1.0]]), beta=0.5, learning_rate=0.4).round(9).tolist()
        [0.125]
    """
    return beta * first_step_logits(gaps, sizes, beta=beta, learning_rate=learning_rate)


def pairwise_priority_gap(length: float, other: float, mean_length: float) -> float:
    r"""The gap $P_1 - P_2$ of two equal groups from three lengths.

    $(\lVert b_1\rVert^2 - \lVert b_2\rVert^2) / (2 \lVert\bar b\rVert \max_k\lVert b_k\rVert)$.

    Args:
        length: $\lVert b_1 \rVert$.
        other: $\lVert b_2 \rVert$.
        mean_length: $\lVert \bar b \rVert$ with $\bar b = (b_1 + b_2)/2$.

    Returns:
        The gap without unit; NaN where $\bar b$ is 0.

    Reference:
        THEORY 2.6; follows from 2403.18742, Eq. 5.

    Found:
        Ours. An identity: the longer gap always has priority, and the angle between the two enters through the length
        of their mean only. At given lengths the priority gap is *smallest* for aligned groups.

    Example:
        >>> round(pairwise_priority_gap(3.0, 1.0, 2.5**0.5), 12)
        0.843274042712
    """
    largest = max(length, other)
    if mean_length == 0 or largest == 0:
        return float("nan")
    return (length - other) * (length + other) / (2 * mean_length * largest)


def _mass(gaps: Float[np.ndarray, "m d"], sizes: Num[np.ndarray, " m"] | None) -> Float[np.ndarray, " m"]:
    return np.ones(len(gaps)) if sizes is None else np.asarray(sizes, dtype=np.float64)
