r"""The plane of the field theory: the DPO loss of one pair over $x_1 = \pi(w)/\pi_{ref}(w)$ and $x_2$, and its pulls.

Everything is computed from $\log x_1$ and $\log x_2$, so that no ratio, power or exponential overflows on the way.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_expit

from prefdyn._checks import between, positive
from prefdyn.errors import ConfigError, DataError


def field_loss(x1: Any, x2: Any, *, beta: float) -> Any:
    r"""$L = -\log \frac{x_1^\beta}{x_1^\beta + x_2^\beta}$, as softplus of $-\beta(\log x_1 - \log x_2)$.

    Args:
        x1: Chosen probability over its reference, above 0; any shape.
        x2: Rejected probability over its reference, above 0.
        beta: Temperature of DPO, above 0.

    Returns:
        The loss in nats, of the common shape; log 2 on the diagonal.

    Raises:
        DataError: A ratio is not a finite number above 0.
        ConfigError: beta is not above 0.

    Reference:
        2404.04626, the loss over the plane; THEORY 4.1.

    Found:
        Confirmed. The loss of one pair depends on the two ratios alone, and on them only through $x_1/x_2$: it is the
        same all along a ray from the origin.

    Example:
        >>> round(float(field_loss(2.0, 0.5, beta=1.0)), 10)
        0.2231435513
    """
    positive(beta, name="beta")
    first, second = _logs(x1, x2)
    return np.logaddexp(0.0, -beta * (first - second))


def field_gradient(x1: Any, x2: Any, *, beta: float) -> tuple[Any, Any]:
    r"""$\partial_1 L = -\frac{\beta}{x_1}\sigma(-r)$ and $\partial_2 L = +\frac{\beta}{x_2}\sigma(-r)$.

    Here $r = \beta \log(x_1/x_2)$. The products are formed as sums of logarithms: $\sigma(-r)$ may underflow where its
    quotient by $x_2$ does not.

    Args:
        x1: Chosen probability over its reference, above 0; any shape.
        x2: Rejected probability over its reference, above 0.
        beta: Temperature of DPO, above 0.

    Returns:
        The two partial derivatives, the first at most 0, the second at least 0. ∓infinity only where the true value
        is beyond the largest float64.

    Raises:
        DataError: A ratio is not a finite number above 0.
        ConfigError: beta is not above 0.

    Reference:
        2404.04626, Theorem 1; THEORY 4.2.

    Found:
        Confirmed. Exact, at every point and every beta: complex-step derivatives agree to 1e-8. Read it in this form:
        the fractions of powers as printed overflow or give 0/0 from $x^\beta$ beyond 1e308. A transcription in
        circulation has $x_1^\beta$ in the first numerator, which gives −0.1667 instead of −0.0833 at (2, 0.5) with
        beta 0.5.

    Example:
        >>> [round(float(d), 10) for d in field_gradient(2.0, 0.5, beta=1.0)]
        [-0.1, 0.4]
    """
    positive(beta, name="beta")
    first, second = _logs(x1, x2)
    pull = math.log(beta) + log_expit(-beta * (first - second))
    with np.errstate(over="ignore"):
        return -np.exp(pull - first), np.exp(pull - second)


def gradient_ratio(x1: Any, x2: Any) -> Any:
    r"""$\lvert\partial L/\partial x_1\rvert / \lvert\partial L/\partial x_2\rvert = x_2/x_1$, for every beta.

    Args:
        x1: Chosen probability over its reference, above 0; any shape.
        x2: Rejected probability over its reference, above 0.

    Returns:
        The ratio without unit: below 1 once any progress has been made. Infinity beyond the largest float64.

    Reference:
        2404.04626, Corollary 1; THEORY 4.3.

    Found:
        Confirmed. Exact for every beta. It is 1 at the start (1, 1): the rejected side is pulled harder only after the
        first progress, and the ratio says how two numbers of the plane move, not how a model's probabilities do (see
        `speed_ratio`).

    Example:
        >>> float(gradient_ratio(2.0, 0.5))
        0.25
    """
    first, second = _logs(x1, x2)
    with np.errstate(over="ignore"):
        return np.exp(second - first)


def gradient_norm(x1: Any, x2: Any, *, beta: float) -> Any:
    r"""$\lVert\nabla L\rVert = \beta x_2^{\beta-1}\sqrt{x_1^2 + x_2^2} / (x_1 (x_1^\beta + x_2^\beta))$.

    Args:
        x1: Chosen probability over its reference, above 0; any shape.
        x2: Rejected probability over its reference, above 0.
        beta: Temperature of DPO, above 0.

    Returns:
        The length of the arrow at each point, in nats per unit of the plane.

    Reference:
        2404.04626, Figure 1; THEORY 4.3.

    Found:
        Confirmed. For beta below 1 it grows without limit towards x2 = 0 (20 076 at (1, 1e-6) with beta 0.1), so a
        picture must clip the arrows there, and gradient descent in the plane steps over the edge.

    Example:
        >>> round(float(gradient_norm(2.0, 0.5, beta=1.0)), 6)
        0.412311
    """
    return np.hypot(*field_gradient(x1, x2, beta=beta))


def probability_sensitivity(pi_w: Any, pi_l: Any) -> Any:
    r"""$\lvert\partial L/\partial \pi_w\rvert / \lvert\partial L/\partial \pi_l\rvert = \pi_l/\pi_w$, no reference.

    Args:
        pi_w: Probability of the chosen answer under the policy, in (0, 1]; any shape.
        pi_l: Probability of the rejected answer, in (0, 1].

    Returns:
        The ratio: above 1 where the start prefers the rejected answer.

    Reference:
        2404.04626, Remarks (sensitivity to the SFT model); THEORY 4.3.

    Found:
        Confirmed. A model that already prefers the chosen answer mostly pushes the rejected one down; the reference
        cancels. Exact in raw probabilities, but only there: in logits the two sides are always pulled equally.

    Example:
        >>> float(probability_sensitivity(0.5, 0.25))
        0.5
    """
    return gradient_ratio(pi_w, pi_l)


# edges --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimit:
    """What both partial derivatives tend to on one edge of the plane."""

    edge: str
    """Which ratio goes where, such as `x2 -> 0`; the other stays fixed."""
    chosen: float
    """Limit of dL/dx1."""
    chosen_formula: str
    rejected: float
    """Limit of dL/dx2."""
    rejected_formula: str


def edge_limits(beta: float, *, other: float = 1.0) -> tuple[EdgeLimit, ...]:
    """The limits of both derivatives on the four edges of the plane.

    Args:
        beta: Temperature of DPO, above 0.
        other: The ratio that stays fixed, above 0.

    Returns:
        One entry for each of x1 → 0, x2 → 0, x1 → ∞ and x2 → ∞, with the limits as numbers and as formulas.

    Reference:
        2404.04626, Corollary 1 and its remarks; THEORY 4.3.

    Found:
        Confirmed. Learning of the chosen answer stalls as x2 → 0, for every beta. But the pull on the rejected one
        explodes there for beta < 1 only: at beta = 1 it tends to 1/x1, above it vanishes as well.

    Example:
        >>> [(edge.edge, edge.chosen, edge.rejected) for edge in edge_limits(0.5)][1]
        ('x2 -> 0', -0.0, inf)
    """
    positive(beta, name="beta")
    positive(other, name="other")
    if beta < 1:
        vanishing, formula = math.inf, "beta x2^(beta-1) / x1^beta -> inf"
    elif beta == 1:
        vanishing, formula = 1 / other, "1/x1"
    else:
        vanishing, formula = 0.0, "beta x2^(beta-1) / x1^beta -> 0"
    return (
        EdgeLimit(
            edge="x1 -> 0",
            chosen=-math.inf,
            chosen_formula="-beta/x1 -> -inf",
            rejected=beta / other,
            rejected_formula="beta/x2",
        ),
        EdgeLimit(
            edge="x2 -> 0",
            chosen=-0.0,
            chosen_formula="-beta x2^beta / x1^(1+beta) -> 0",
            rejected=vanishing,
            rejected_formula=formula,
        ),
        EdgeLimit(
            edge="x1 -> inf",
            chosen=-0.0,
            chosen_formula="-beta x2^beta / x1^(1+beta) -> 0",
            rejected=0.0,
            rejected_formula="beta x2^(beta-1) / x1^beta -> 0",
        ),
        EdgeLimit(
            edge="x2 -> inf",
            chosen=-beta / other,
            chosen_formula="-beta/x1",
            rejected=0.0,
            rejected_formula="beta/x2 -> 0",
        ),
    )


# what probabilities allow -------------------------------------------------------------------------------------------


def feasible(x1: Any, x2: Any, *, ref_chosen: float, ref_rejected: float) -> Any:
    r"""Whether probabilities can be there: $x_1, x_2 > 0$ and $x_1 \pi_{ref}(w) + x_2 \pi_{ref}(l) \le 1$.

    Args:
        x1: Chosen probability over its reference; any shape, may be 0 or below.
        x2: Rejected probability over its reference.
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).

    Returns:
        Truth values of the common shape.

    Raises:
        ConfigError: A reference probability is out of range, or both together are above 1.

    Reference:
        2404.04626, the plane of Figure 1; THEORY 4.1.

    Found:
        Sharper. The plane is drawn for any two ratios, but two answers share one unit of probability, which cuts off
        everything beyond a line; the box $x_1 \le 1/\pi_{ref}(w)$ alone is weaker.

    Example:
        >>> feasible(np.array([1.0, 2.0, 1.2]), 1.0, ref_chosen=0.5, ref_rejected=0.25).tolist()
        [True, False, True]
    """
    references(ref_chosen, ref_rejected)
    first, second = np.asarray(x1, dtype=np.float64), np.asarray(x2, dtype=np.float64)
    return (first > 0) & (second > 0) & (first * ref_chosen + second * ref_rejected <= 1 + 1e-12)


def feasible_boundary(x1: Any, *, ref_chosen: float, ref_rejected: float) -> Any:
    r"""The largest $x_2$ that leaves room for $x_1$: $(1 - x_1 \pi_{ref}(w))/\pi_{ref}(l)$.

    Args:
        x1: Chosen probability over its reference, any shape.
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).

    Returns:
        The boundary; NaN where x1 alone takes more than all probability, or is below 0.

    Raises:
        ConfigError: A reference probability is out of range, or both together are above 1.

    Reference:
        THEORY 4.1; the region within which 2404.04626 speaks of probabilities.

    Example:
        >>> feasible_boundary(np.array([0.0, 1.0, 2.0, 3.0]), ref_chosen=0.5, ref_rejected=0.25).tolist()
        [4.0, 2.0, 0.0, nan]
    """
    references(ref_chosen, ref_rejected)
    first = np.asarray(x1, dtype=np.float64)
    room = 1 - first * ref_chosen
    return np.where((room >= 0) & (first >= 0), room / ref_rejected, np.nan)[()]


def references(ref_chosen: float, ref_rejected: float) -> None:
    """Raise a `ConfigError` unless both can be probabilities of two answers to one prompt."""
    between(ref_chosen, 0, 1, name="ref_chosen")
    between(ref_rejected, 0, 1, name="ref_rejected")
    if ref_chosen + ref_rejected > 1 + 1e-12:
        raise ConfigError(
            f"ref_chosen {ref_chosen!r} and ref_rejected {ref_rejected!r} are together above 1, but two answers to one"
            f" prompt share one unit of probability; give both for the same prompt"
        )


def _logs(x1: Any, x2: Any) -> tuple[Any, Any]:
    """Logarithms of both, after a check that both are finite and above 0."""
    found = []
    for name, values in (("x1", x1), ("x2", x2)):
        array = np.asarray(values, dtype=np.float64)
        bad = ~(np.isfinite(array) & (array > 0))
        if bad.any():
            raise DataError(
                f"{name} has {int(bad.sum())} values that are no ratio, the first is {float(array[bad][0])!r}; give"
                f" finite numbers above 0, or work in logarithms"
            )
        found.append(np.log(array))
    return found[0], found[1]
