r"""Closed forms of training dynamics that need no integration."""

import math
from typing import Any

import numpy as np
from scipy.special import wrightomega

from prefdyn._checks import positive
from prefdyn.errors import ConfigError, DataError

_TINY_OVERLAP = 40.0
"""From this margin on $r e^{-r}$ is below the rounding of 1."""


def single_flow(a: Any, t: Any, tau: float = 1.0, start: float = 0.0) -> Any:
    r"""The margin that solves $\tau\,\dot r = a\,\sigma(-r)$, $r(0) = r_0$: one pair, or a group that moves as one.

    $$ e^r + r = c = r_0 + e^{r_0} + a t/\tau, \qquad r = \log \omega(c) = c - \omega(c) $$

    with Wright's $\omega$. The logarithm is used for c >= 1, the difference below, and one Newton step on
    $r - r_0$ recovers the digits that small times lose.

    Args:
        a: Speed, 0 or above, any shape; $2\beta^2 \lVert g \rVert^2$ for one pair and a trained head.
        t: Time, 0 or above, in the unit of tau; broadcasts against a.
        tau: Time constant $1/\eta$, above 0.
        start: $r_0$, any finite margin.

    Returns:
        The margins, in the common shape.

    Raises:
        ConfigError: tau is not above 0, or the start is not finite.
        DataError: a times t is below 0 or not finite.

    Reference:
        2408.03459, Lemma 4.1, solved for one pair; THEORY 1.4. Equal to an ODE solver to 1e-8.

    Example:
        >>> round(float(single_flow(1.0, 1.0)), 12)
        0.442854401002
    """
    positive(tau, name="tau", fix="give 1 / learning_rate")
    if not math.isfinite(start):
        raise ConfigError(f"start is {start!r}, but must be a finite margin")
    with np.errstate(over="ignore"):
        pushed = np.asarray(a, dtype=np.float64) * np.asarray(t, dtype=np.float64) / tau
    if not (np.isfinite(pushed).all() and (pushed >= 0).all()):
        raise DataError("a times t must be finite and 0 or above; the flow is not run backwards")
    if start > _TINY_OVERLAP:
        with np.errstate(divide="ignore"):
            return start + np.logaddexp(0.0, np.log(pushed) - start)
    level = math.exp(start)
    c = start + level + pushed
    margin = np.where(c >= 1, np.log(wrightomega(np.maximum(c, 1.0))), c - wrightomega(np.minimum(c, 1.0)))
    gained = np.maximum(margin - start, 0.0)
    small = np.minimum(gained, 1.0)
    sharper = small - (small + level * np.expm1(small) - pushed) / (1 + level * np.exp(small))
    return start + np.where(gained < 1, sharper, gained)
