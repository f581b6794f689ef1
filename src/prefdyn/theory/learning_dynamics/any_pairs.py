r"""The drift bound for any pair features: several answers, longer responses, weighted pairs, groups together.

With pair features $\phi_i$ (THEORY 1.3, 3.10) margins are $r_i = \beta\langle\phi_i, \theta\rangle$ and the head moves
by $\theta(t)$; its drift is $\lVert\theta(t)\rVert$. For two answers $\phi_i = \sqrt2\, s_i g_i$ in the one token
direction, and everything here is `drift_bound`.
"""

import math

from prefdyn._checks import at_least, positive
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.learning_dynamics.published_drift import THEOREM, drift_quantity


def pair_drift_bound(
    *,
    mean_feature: float,
    mean_length: float,
    smoothness: float,
    beta: float,
    learning_rate: float,
    steps: int,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Drift at most $\frac{\eta\beta}{2}\, t\, \lVert \bar\phi \rVert$, for any pairs, weights and features.

    Proof: the weighted mean loss is convex in $\theta$ with curvature at most $\beta^2\lambda/4$, where $\lambda$ is
    the largest eigenvalue of the weighted kernel. At steps $\eta \le 8/(\beta^2\lambda)$ the increments of descent have
    non-increasing norm, and the first is $\frac{\eta\beta}{2}\bar\phi$.

    Args:
        mean_feature: $\lVert\bar\phi\rVert$, length of the weighted mean of the pair features.
        mean_length: Weighted mean of the $\lVert\phi_i\rVert$; what bounds the drift without a theorem.
        smoothness: $\lambda_{\max}$ of the kernel with shares: $\sqrt{p_i p_j}\, C_{ij}$, shares p summing to 1.
        beta: DPO's temperature.
        learning_rate: Step size.
        steps: Full-batch steps t.
        measured: Drift in a run.
        group: The group that it speaks of; None for all groups together.

    Returns:
        The statement, deterministic; its condition is the stable step.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        THEORY 2.3 and 9; extends 2403.18742, Theorem 4.1 to any token pairs.

    Found:
        Sharper. An equality at the first step and never violated in random problems with several tokens and weights;
        half the constant always is.

    Example:
        >>> found = pair_drift_bound(mean_feature=2**0.5 * 5**0.5 / 2, mean_length=2.0, smoothness=2 * 1.70710678,
        ...                          beta=0.5, learning_rate=0.4, steps=1, measured=0.158113883)
        >>> round(found.value, 9), found.kept, found.applies
        (0.158113883, True, True)
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    walked = learning_rate * beta * at_least(steps, 0, name="steps")
    limit = 8 / (beta**2 * smoothness) if smoothness > 0 else math.inf
    return Bound(
        statement=THEOREM,
        quantity=f"{drift_quantity(steps)}, all groups together" if group is None else drift_quantity(steps),
        direction="at most",
        value=walked * mean_feature / 2,
        trivial=walked * mean_length,
        conditions=(
            Condition(
                says="eta <= 8/(beta^2 lambda_max(C)), pairs by their share", measured=learning_rate, limit=limit
            ),
        ),
        form="sharper",
        measured=measured,
        group=group,
        note="for any pair features and weights; an equality at the first step",
    )
