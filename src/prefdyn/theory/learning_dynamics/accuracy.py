r"""How many pairs the turned boundary gets right: Theorem 4.3, why it promises nothing, and a certificate that does.

A pair is right where $s_i\, W_B(t) \cdot g_i > 0$ with $W_B(t) = W_U(t)[y_+] - W_U(t)[y_-]$: the policy prefers the
chosen answer ("policy accuracy").
"""

import math

import numpy as np
from jaxtyping import Float, Num

from prefdyn.maths.geometry import cosine
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.learning_dynamics.conditions import IID, power
from prefdyn.theory.learning_dynamics.constants import Constants
from prefdyn.theory.learning_dynamics.published_alignment import (
    alignment_horizon,
    largest_variance_exponent,
    published_conditions,
)
from prefdyn.theory.learning_dynamics.published_drift import published_drift_failure

THEOREM = "2403.18742, Theorem 4.3"


def published_accuracy_margin(
    c: Constants, *, boundary_norm: float, phi: float, beta: float, variance_exponent: float
) -> float:
    r"""The margin $s_i\, g_i \cdot (\mu_+ - \mu_-) / D$ that Theorem 4.3 asks of a sample.

    $2 R d^v (576 \beta' c_n' \lVert W_B\rVert + 3) / (3\varphi d^v + \epsilon)$ with
    $\epsilon = 1 - 13 d^{-v} - \varphi$.

    Args:
        c: Constants; $R = c_n' d^\Delta$ is the radius.
        boundary_norm: $\lVert W_B \rVert$.
        phi: $\varphi$, the cosine between $W_B$ and the gap.
        beta: DPO's temperature.
        variance_exponent: v.

    Returns:
        The margin, in the unit of the states. Infinite or negative outside the theorem's conditions.

    Raises:
        ConfigError: beta is not above 0.

    Reference:
        2403.18742, Theorem 4.3 and Eq. 38; THEORY 2.5.

    Found:
        Empty. See `accuracy_bound`: no state that the theorem covers has so large a margin.

    Example:
        >>> c = Constants(n_plus=9, n_minus=9, width=4096, gap=4096**0.1, weighted_gap=4096**0.1, trace_plus=1.0,
        ...               trace_minus=1.0, op_norm=0.01, radius=0.7 * 4096**0.1)
        >>> margin = published_accuracy_margin(c, boundary_norm=1.0, phi=0.2, beta=1 / 64, variance_exponent=0.36)
        >>> round(margin, 6), round(margin_ceiling(c), 6)
        (2150.708794, 3.216355)
    """
    scale = power(c.width, variance_exponent)
    shift = 3 * phi * scale + 1 - 13 / scale - phi
    top = 2 * c.radius * scale * (576 * c.scaled_beta(beta) * c.c_n_scaled * boundary_norm + 3)
    return top / shift if shift != 0 else math.inf


def margin_ceiling(c: Constants) -> float:
    r"""The largest margin that a state can have where Theorem 4.3 speaks: $\lVert g \rVert \le 2 c_n \sqrt d = 2R$.

    Reference:
        2403.18742, appendix A.5 (before Eq. 37); THEORY 2.5.

    Found:
        Empty. Smaller than `published_accuracy_margin` wherever the theorem applies: by a factor 669 in the printed
        example, by 1.001 at least on a grid up to d = 2^30.

    Example:
        >>> c = Constants(n_plus=9, n_minus=9, width=4, gap=1.0, weighted_gap=1.0, trace_plus=1.0, trace_minus=1.0,
        ...               op_norm=1.0, radius=1.5)
        >>> margin_ceiling(c)
        3.0
    """
    return 2 * c.radius


def accuracy_bound(
    c: Constants,
    *,
    boundary_norm: float,
    phi: float,
    beta: float,
    learning_rate: float,
    variance_exponent: float | None = None,
    alpha: float = 2.0,
    tail_constant: float | None = None,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Theorem 4.3: accuracy p after $t_{\max}$ steps, if a share p of the pairs has a large margin. That p is 0.

    Args:
        c: Constants.
        boundary_norm: $\lVert W_B \rVert$.
        phi: $\varphi$, the cosine between $W_B$ and the gap.
        beta: DPO's temperature.
        learning_rate: Step size.
        variance_exponent: v; None for `largest_variance_exponent`.
        alpha: Tail exponent of the features.
        tail_constant: The theorem's $c'$; None for Gaussian features.
        measured: Policy accuracy in a run after $t_{\max}$ steps.
        group: The group that it speaks of.

    Returns:
        The statement; its value is always 0.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, Theorem 4.3; THEORY 2.5.

    Found:
        Empty. The margin it asks for is larger than the longest state it allows, for every $\varphi < 1$:
        $M_0 d^v > 3\varphi d^v + \epsilon$ since $M_0 \ge 3$ and $3 d^v (1-\varphi) > 1 - \varphi \ge \epsilon$. 2150.7
        against 3.2 in the printed example. The cause: Eq. 37 drops the $\sqrt{1 - S^2}$ of Eq. 36.
        `accuracy_certificate` puts it right.

    Example:
        >>> c = Constants(n_plus=9, n_minus=9, width=4096, gap=4096**0.1, weighted_gap=4096**0.1, trace_plus=0.0,
        ...               trace_minus=0.0, op_norm=0.0, radius=0.7 * 4096**0.1)
        >>> bound = accuracy_bound(c, boundary_norm=1.0, phi=0.2, beta=1 / 64, learning_rate=0.01,
        ...                        variance_exponent=0.36)
        >>> bound.applies, bound.value, bound.standing
        (True, 0.0, 'empty')
    """
    v = largest_variance_exponent(c) if variance_exponent is None else variance_exponent
    horizon = alignment_horizon(c, beta=beta, learning_rate=learning_rate, variance_exponent=v)
    needed = published_accuracy_margin(c, boundary_norm=boundary_norm, phi=phi, beta=beta, variance_exponent=v)
    return Bound(
        statement=THEOREM,
        quantity="policy accuracy after t_max steps",
        direction="at least",
        value=0.0,
        trivial=0.0,
        conditions=(
            *published_conditions(c, beta=beta, learning_rate=learning_rate, steps=horizon, v=v),
            Condition(says="t_max >= 1", measured=horizon, relation=">=", limit=1.0),
            Condition(says="phi >= 0", measured=phi, relation=">=", limit=0.0),
            Condition(says="d^-v < (1 - phi)/13", measured=power(c.width, -v), relation="<", limit=(1 - phi) / 13),
            IID,
        ),
        failure=published_drift_failure(c, alpha=alpha, tail_constant=tail_constant, variance_exponent=v),
        measured=measured,
        group=group,
        note=f"asks for a margin of {needed:.4g}, but no state it covers has more than {margin_ceiling(c):.4g}"
        if needed > 0
        else "",
    )


def certified_share(
    states: Float[np.ndarray, "n d"],
    signs: Num[np.ndarray, " n"],
    boundary: Float[np.ndarray, " d"],
    gap: Float[np.ndarray, " d"],
) -> float:
    r"""Share of pairs that must be right because the boundary is close to the gap.

    With $S = \cos(W_B(t), b) > 0$ a pair is right whenever
    $s_i\, g_i \cdot b/\lVert b\rVert > \sqrt{1-S^2}\,\lVert g_i\rVert$: the two angles to b add up to less than 90°.
    For $S \le 0$ nothing is certified; for $S < 0$ the same inequality would certify mistakes.

    Args:
        states: Final hidden state of each prompt.
        signs: +1 where the first answer is chosen, -1 where the second is.
        boundary: $W_B(t)$, any length.
        gap: b, the direction of the gap, any length.

    Returns:
        A share in [0, 1], never above the policy accuracy of the boundary. 0 for a boundary or a gap of 0.

    Reference:
        THEORY 2.5; repairs 2403.18742, Eqs. 36 and 37.

    Found:
        Repaired. Eq. 36 asks for $\sqrt{1-S^2}\,\lVert g\rVert / S$, more than needed, and Eq. 37 for
        $\lVert g \rVert / S$, which no state has. Never above the measured accuracy in 500 random problems; without
        the condition S > 0 it is.

    Example:
        >>> states, signs = np.array([[3.0, 1], [1, 3], [-3, 1]]), np.array([1, 1, -1])
        >>> round(certified_share(states, signs, np.array([2.0, 1.0]), np.array([1.0, 0.0])), 4)
        0.6667
    """
    alignment = cosine(boundary, gap)
    if not alignment > 0:
        return 0.0
    across = math.sqrt(max(0.0, 1 - alignment**2))
    margins = signs * (states @ (gap / np.linalg.norm(gap)))
    # Rounding must not certify a pair on the edge.
    certain = margins > (across + 1e-12) * np.linalg.norm(states, axis=1)
    return float(np.mean(certain))


def accuracy_certificate(
    states: Float[np.ndarray, "n d"],
    signs: Num[np.ndarray, " n"],
    boundary: Float[np.ndarray, " d"],
    gap: Float[np.ndarray, " d"],
    *,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Theorem 4.3 repaired: policy accuracy at least the `certified_share` of the pairs.

    Args:
        states: Final hidden state of each prompt.
        signs: +1 where the first answer is chosen, -1 where the second is.
        boundary: $W_B(t)$, any length.
        gap: b, any length.
        measured: Policy accuracy in a run.
        group: The group that it speaks of.

    Returns:
        The statement, deterministic, with the cosine S as its condition.

    Reference:
        THEORY 2.5; repairs 2403.18742, Theorem 4.3.

    Found:
        Repaired. Says something where the published theorem says 0: with S = 0.99 a margin of 0.14 of a state's length
        is enough, with S = 0.5 it takes 0.87.

    Example:
        >>> states, signs = np.array([[3.0, 1], [1, 3], [-3, 1]]), np.array([1, 1, -1])
        >>> print(accuracy_certificate(states, signs, np.array([2.0, 1.0]), np.array([1.0, 0.0])))
        2403.18742, Theorem 4.3: policy accuracy at least 0.6667
          holds  S = cos(W_B(t), gap) > 0: 0.894 > 0
    """
    return Bound(
        statement=THEOREM,
        quantity="policy accuracy",
        direction="at least",
        value=certified_share(states, signs, boundary, gap),
        trivial=0.0,
        conditions=(
            Condition(says="S = cos(W_B(t), gap) > 0", measured=cosine(boundary, gap), relation=">", limit=0.0),
        ),
        form="repaired",
        measured=measured,
        group=group,
        note="uses the measured cosine, not the bound on it",
    )
