r"""How far the head moves: Theorem 4.1 as published, and why it is false. `drift` has what is true.

Drift is $\lVert W_U(t) - W_U(0) \rVert_{op} = \sqrt2 \lVert w(t) \rVert$ after t full-batch steps (`Trajectory`'s
`drift`). As every pull is below 1 it is at most $\sqrt2\, \eta\beta t \cdot \frac1n \sum_i \lVert g_i \rVert$ without
any theorem; that is `trivial` here.
"""

import math

from prefdyn._checks import at_least, between, positive
from prefdyn.errors import ConfigError
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.learning_dynamics.conditions import (
    IID,
    equal_classes,
    exp,
    gaussian_norm_tail,
    power,
    published_step,
    quotient,
    two_rows,
)
from prefdyn.theory.learning_dynamics.constants import Constants

THEOREM = "2403.18742, Theorem 4.1"


def published_drift_limit(gap: float, *, beta: float, learning_rate: float, steps: int) -> float:
    r"""The right-hand side of Theorem 4.1: $6 \beta' \eta\, t\, d^{\Delta - 1/2} = 6 \eta \beta\, t D$.

    Args:
        gap: D, the distance of the class means.
        beta: DPO's temperature; $\beta' = \beta\sqrt d$.
        learning_rate: Step size.
        steps: Full-batch steps t.

    Returns:
        The limit on the drift, in the unit of head weights.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, Theorem 4.1; THEORY 2.2.

    Found:
        Wrong. See `published_drift_bound`. It does not depend on d once written with D.

    Example:
        >>> round(published_drift_limit(4096**0.4, beta=1 / 64, learning_rate=0.5, steps=10), 12)
        13.058258449442
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    return 6 * learning_rate * beta * at_least(steps, 0, name="steps") * gap


def published_drift_failure(
    c: Constants, *, alpha: float = 2.0, tail_constant: float | None = None, variance_exponent: float = 0.0
) -> float:
    r"""Failure probability that Theorems 4.1 to 4.3 state.

    $2n \exp(-c' d^{\alpha/4}) + 4 \exp(-\gamma d^{\alpha\Delta} / 4 c_v)$; the second term is
    $4 \exp(-n D^\alpha d^{-2v} / 4 \lVert \Sigma \rVert_{op})$ in measured quantities.

    Args:
        c: Constants, of the distributions as the theorem reads, or plug-in.
        alpha: Tail exponent of the features in (0, 2].
        tail_constant: The theorem's unnamed $c'$. None takes for Gaussian features (α = 2) the explicit
            $n \exp(-c_n^2 \sqrt d / 2 c_v)$ in place of the first term, that is
            $n \exp(-R^2 / 2 \lVert\Sigma\rVert_{op})$ with the radius R.
        variance_exponent: v of Theorem 4.2, where $\lVert\Sigma\rVert_{op} \le c_v d^{1/2 - 2v}$; 0 for Theorem 4.1.

    Returns:
        The sum as stated; above 1 it is no probability. NaN where a class has no covariance.

    Raises:
        ConfigError: alpha is out of range, or below 2 without a tail constant.

    Reference:
        2403.18742, Theorem 4.1 (probability) and Eq. 12; THEORY 2.2.

    Found:
        Wrong. Eq. 12 bounds the length of a mean's error by the tail of one fixed direction; its square is
        $2\,\mathrm{Tr}\,\Sigma/n$, not $2 \lVert\Sigma\rVert_{op}/n$. And for α below 2 the exponent changes with the
        unit of the features, so Eq. 12 cannot hold in general. `population_drift_bound` has the right one. In Theorem
        4.2 the first term must be read with other constants too (THEORY X-23): its exponent is α/4 only at
        $v = 1/2 - \Delta$. In measured quantities both theorems have the same Gaussian term.

    Example:
        >>> c = Constants(n_plus=450, n_minus=450, width=4096, gap=4096**0.3, weighted_gap=4096**0.3,
        ...               trace_plus=4096.0, trace_minus=4096.0, op_norm=128.0, radius=64.0)
        >>> round(published_drift_failure(c, alpha=1, tail_constant=9.0) / 1e-9, 4)
        2.214
    """
    if alpha != 2:
        between(alpha, 0, 2, name="alpha")
    mean_term = math.log(4) - c.n * quotient(power(c.gap, alpha), 4 * c.op_norm * c.width ** (2 * variance_exponent))
    if tail_constant is None:
        if alpha != 2:
            raise ConfigError(f"alpha is {alpha!r}, but c' is known only for 2 (Gaussian); give tail_constant")
        tail_term = gaussian_norm_tail(c)
    else:
        tail_term = math.log(2 * c.n) - positive(tail_constant, name="tail_constant") * c.width ** (alpha / 4)
    return exp(mean_term) + exp(tail_term)


def published_drift_bound(
    c: Constants,
    *,
    beta: float,
    learning_rate: float,
    steps: int,
    alpha: float = 2.0,
    tail_constant: float | None = None,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Theorem 4.1 as published: drift at most $6 \beta' \eta\, t\, d^{\Delta - 1/2}$ with high probability.

    Its constants $c_v$ and $c_n$ are the smallest that the data allow, so its first two conditions hold by definition.

    Args:
        c: Constants; the theorem means those of the distributions (see Found).
        beta: DPO's temperature.
        learning_rate: Step size.
        steps: Full-batch steps t.
        alpha: Tail exponent of the features.
        tail_constant: The theorem's $c'$; None for Gaussian features.
        measured: Drift in a run.
        group: The group that it speaks of.

    Returns:
        The statement with its conditions and stated failure probability.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, Theorem 4.1; THEORY 2.2.

    Found:
        Wrong. For d = 4096, n = 40, identity covariances and means one apart it allows a failure of 1.8e-4 and fails
        in 50 of 50 draws, by a factor 1.19 at the first step; for d = 65536, n = 64 by 3.8. The unnamed $c'$ cannot
        save it: no $c'$ enters the limit on the drift. Its induction (appendix A.2) also fails at t = 3, where a sum
        that must stay below 3 is 3.19. With the measured gap in place of the true one it is true again for equal
        classes (see `sufficient_drift_bound`), but 16.97 times too large from the first step on, and empty wherever
        D is above 0.236 of the mean length of a state.

    Example:
        >>> c = Constants(n_plus=20, n_minus=20, width=4096, gap=1.0, weighted_gap=1.0, trace_plus=4096.0,
        ...               trace_minus=4096.0, op_norm=1.0, radius=64.5)
        >>> bound = published_drift_bound(c, beta=1 / 64, learning_rate=0.24, steps=1, measured=0.0268)
        >>> round(bound.value, 4), round(bound.failure, 5), bound.kept
        (0.0225, 0.00018, False)
    """
    return Bound(
        statement=THEOREM,
        quantity=drift_quantity(steps),
        direction="at most",
        value=published_drift_limit(c.gap, beta=beta, learning_rate=learning_rate, steps=steps),
        trivial=unproved_drift(c, beta=beta, learning_rate=learning_rate, steps=steps),
        conditions=(
            Condition(says="Delta <= 1/2", measured=c.exponent, limit=0.5),
            equal_classes(c),
            published_step(c, beta=beta, learning_rate=learning_rate),
            two_rows(c),
            IID,
        ),
        failure=published_drift_failure(c, alpha=alpha, tail_constant=tail_constant),
        measured=measured,
        group=group,
        note="false where the class means are noisy (d/n large): D must be the true gap, not the measured one; "
        "see the repaired form",
    )


def drift_quantity(steps: int) -> str:
    """What the bounds on drift speak of, in words."""
    return f"drift of the head after {steps} step{'s' if steps != 1 else ''}"


def drift_line(gap: float, *, beta: float, learning_rate: float, steps: int) -> float:
    r"""$\frac{\sqrt2}{4} \eta\beta\, t \lVert b_w \rVert$: the drift if every step were as long as the first.

    Example:
        >>> round(drift_line(5**0.5, beta=0.5, learning_rate=0.4, steps=1), 12)
        0.158113883008
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    return math.sqrt(2) / 4 * learning_rate * beta * at_least(steps, 0, name="steps") * gap


def unproved_drift(c: Constants, *, beta: float, learning_rate: float, steps: int) -> float:
    r"""$\sqrt2\, \eta\beta\, t \cdot \frac1n \sum_i \lVert g_i \rVert$: no run exceeds it, as no pull is above 1."""
    return 4 * drift_line(c.mean_norm, beta=beta, learning_rate=learning_rate, steps=steps)
