r"""How long the plane's flow takes, how a margin grows, and what steps in place of flow add.

Time is that of the flow $\dot u = -\nabla L(u)$ in the stated coordinates with $\tau = 1$: gradient descent with step
size $\eta$ takes $t/\eta$ steps.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import beta as beta_function
from scipy.special import betainc, expit

from prefdyn._checks import positive
from prefdyn.errors import ConfigError
from prefdyn.maths.closed_form import single_flow
from prefdyn.theory.gradient_field.flow import ratios
from prefdyn.theory.gradient_field.plane import field_gradient


def flow_time(*, beta: float, start: tuple[float, float] = (1.0, 1.0), until: float = 0.0) -> float:
    r"""Time in which the plane's flow takes $u = x_2/x_1$ from the start's down to `until`.

    $$t = \frac{R^2}{\beta} \int_{u_1}^{u_0} u^{1-\beta}\, \frac{1 + u^\beta}{(1+u^2)^2}\, du$$

    Here $R^2 = x_1^2 + x_2^2$. The whole way to $u_1 = 0$ has a closed form for beta < 2: with $v = u_0^2/(1+u_0^2)$,
    $t = \frac{R^2}{2\beta}\left[ B(v;\, 1-\beta/2,\, 1+\beta/2) + v \right]$, B the incomplete beta function.

    Args:
        beta: Temperature of DPO, above 0.
        start: The point (x1, x2) from which the flow starts, both above 0.
        until: $x_2/x_1$ at the end, from 0 to the start's.

    Returns:
        Time with τ = 1. Infinity where the end is never reached: `until` 0 and beta at least 2.

    Raises:
        ConfigError: beta is not above 0, or `until` lies behind the start.

    Reference:
        2404.04626, Theorem 2 (text not found: this stands in its place); THEORY 4.4.

    Found:
        Ours. Agrees with the integrated flow to 1e-7. The closed form is sharper than quadrature and shows why the time
        is finite exactly for beta below 2.

    Example:
        >>> round(flow_time(beta=1.0), 10), round(flow_time(beta=2.0, until=0.01), 6), flow_time(beta=2.0)
        (1.7853981634, 4.258647, inf)
    """
    positive(beta, name="beta")
    a, b = (float(x) for x in ratios(*start))
    begin = math.log(b) - math.log(a)
    if not (until >= 0 and (until == 0 or math.log(until) <= begin + 1e-12)):
        raise ConfigError(
            f"until is {until!r}, but must lie between 0 and the start's x2/x1, {math.exp(min(begin, 700)):.6g}:"
            f" the flow goes towards x2 = 0"
        )
    if until == 0 and beta >= 2:
        return math.inf
    with np.errstate(over="ignore"):
        scale = np.square(np.hypot(a, b)) / beta
        if until == 0:
            v = expit(2 * begin)
            first = beta_function(1 - beta / 2, 1 + beta / 2) * betainc(1 - beta / 2, 1 + beta / 2, v) / 2
            return float(scale * (first + v / 2))
        end = min(math.log(until), begin)
        first = _peaked_integral(beta, end, begin)
        return float(scale * (first + (expit(2 * begin) - expit(2 * end)) / 2))


def extinction_time(beta: float, *, start: tuple[float, float] = (1.0, 1.0)) -> float:
    r"""Time in which the plane's flow takes the rejected probability to exactly 0: finite iff beta < 2.

    Args:
        beta: Temperature of DPO, above 0.
        start: The point (x1, x2) from which the flow starts, both above 0.

    Returns:
        Time with τ = 1; about $1/\beta$ from (1, 1) for small beta, infinity from beta = 2 on.

    Reference:
        2404.04626, Theorem 2 (text not found: this stands in its place); THEORY 4.4.

    Found:
        Ours. No softmax can give an answer probability 0 in finite time, so the plane's flow is no model of training
        near x2 = 0: at beta 0.1 it claims so after a time of 10.37.

    Example:
        >>> round(extinction_time(0.5), 10)
        2.4874954944
    """
    return flow_time(beta=beta, start=start, until=0.0)


def log_flow_margin(time: Any, *, beta: float, start: float = 0.0) -> Any:
    r"""The reward margin where $\log x_1$ and $\log x_2$ themselves flow: $\dot r = 2\beta^2\sigma(-r)$.

    Args:
        time: In units of τ, at least 0; any shape.
        beta: Temperature of DPO, above 0.
        start: The margin at time 0, beta included; 0 at (1, 1).

    Returns:
        The reward margin $r = \beta \log(x_1/x_2)$ at each time.

    Raises:
        ConfigError: beta is not above 0, or the start is not finite.
        DataError: A time is below 0 or not finite.

    Reference:
        2404.04626, Abstract ("at a faster rate"); THEORY 4.5 and 1.4.

    Found:
        Ours. In log-ratios both sides move alike, x1 x2 stays 1, and neither ever ends: r grows like log t.

    Example:
        >>> round(float(log_flow_margin(1000.0, beta=0.5 ** 0.5)), 10)
        6.9018359584
    """
    positive(beta, name="beta")
    return single_flow(2 * beta * beta, time, start=start)


def gradient_descent_drift(x1: Any, x2: Any, *, beta: float, learning_rate: float) -> Any:
    r"""How much one step of gradient descent adds to $x_1^2 + x_2^2$: exactly $\eta^2 \lVert\nabla L\rVert^2$.

    Args:
        x1: Chosen probability over its reference, above 0; any shape.
        x2: Rejected probability over its reference, above 0.
        beta: Temperature of DPO, above 0.
        learning_rate: Step size η, above 0.

    Returns:
        The outward drift of the squared radius, above 0.

    Reference:
        2404.04626, Theorem 2 (text not found: this stands in its place); THEORY 4.4.

    Found:
        Ours. The field has no radial part (Euler), so steps along it always leave the circle outwards; the identity
        holds to rounding. Near x2 = 0 a step crosses into x2 < 0 when beta < 1.

    Example:
        >>> round(float(gradient_descent_drift(1.0, 1.0, beta=1.0, learning_rate=0.1)), 12)
        0.005
    """
    positive(learning_rate, name="learning_rate")
    first, second = field_gradient(x1, x2, beta=beta)
    with np.errstate(over="ignore"):
        return np.square(learning_rate * np.hypot(first, second))


def _peaked_integral(beta: float, low: float, high: float) -> float:
    r"""$\int e^{(2-\beta)s}/(1+e^{2s})^2\,ds$ from low to high, split around its one peak, with the peak taken out."""

    def height(s: float) -> float:
        return (2 - beta) * s - 2 * float(np.logaddexp(0.0, 2 * s))

    peak = (math.log(2 - beta) - math.log(2 + beta)) / 2 if beta < 2 else low
    peak = min(max(peak, low), high)
    top = height(peak)
    cuts = {low, peak, high}
    for rate in (max(abs(2 - beta), 1e-3), 2 + beta):
        for reach in (1, 4, 16, 64):
            cuts |= {s for s in (peak - reach / rate, peak + reach / rate) if low < s < high}
    ends = sorted(cuts)
    total = 0.0
    for left, right in pairwise(ends):
        part = quad(
            lambda s: math.exp(max(height(s) - top, -745.0)),
            left,
            right,
            epsabs=1e-14 / (2 + beta),
            epsrel=1e-11,
            limit=200,
        )
        total += part[0]
    if top > _LARGEST:  # beyond any number, however narrow the peak is
        return math.inf if total == 0 or top + math.log(total) > _LARGEST else math.exp(top + math.log(total))
    return math.exp(top) * total


_LARGEST = 709.0
"""Of what an exponential is still a number."""
