r"""Values whose directions are almost orthogonal: what changes, and how orthogonal "almost" has to be."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._arrays import finite
from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.value_scaling.concentration import stated_kernel_failure
from prefdyn.theory.value_scaling.generalization import refined_error
from prefdyn.theory.value_scaling.model import ClusterModel
from prefdyn.theory.value_scaling.training import horizon, margin_lines, scaled_time


def delta_orthogonality(directions: Float[np.ndarray, "k d"]) -> float:
    r"""A $\delta$ for which the directions are almost orthogonal: $\lvert c_i \cdot e_i \rvert \ge 1 - \delta^2/8$.

    The orthonormal $e_i$ are the nearest ones, the polar factor of the matrix of unit directions, so that
    $\delta = 2 \max_i \lVert c_i - e_i \rVert$. They minimise the sum of squared distances, not the largest one:
    another choice can make $\delta$ smaller, never a worse statement. For two directions, and for any number at
    equal angles, it is the smallest.

    Args:
        directions: One row per value; lengths do not matter. Append the offset b as a row where it is not exactly
            orthogonal to the values.

    Returns:
        $\delta$; infinite where there are more directions than coordinates. The definition asks for less than 1/2.

    Raises:
        DataError: No direction, one of length 0, or one that is not finite.

    Reference:
        2408.03459, Definition C.1; THEORY 3.9.
    Found:
        Confirmed. It is what Lemma C.2 needs. But 32 random directions in 4096 coordinates have δ = .11, forty times
        what the theorems of the appendix allow (`largest_delta`).

    Example:
        >>> delta_orthogonality(np.eye(3))
        0.0
        >>> round(delta_orthogonality(np.array([[1.0, 0.0], [0.1, 1.0]])), 4)
        0.0997
    """
    if len(directions) == 0:
        raise DataError("delta_orthogonality was given 0 directions; give at least one")
    rows = finite(np.asarray(directions, dtype=np.float64), name="directions", fix="leave such values out")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if (lengths == 0).any():
        bad = int(np.flatnonzero(lengths == 0)[0])
        raise DataError(f"direction {bad} has length 0; leave out values whose class means are equal")
    k, d = rows.shape
    if k > d:
        return math.inf
    rows = rows / lengths
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    return float(2 * np.linalg.norm(rows - left @ right, axis=1).max())


def worst_cosine(delta: Any) -> Any:
    r"""The largest $\lvert c_i \cdot c_j \rvert$ that δ allows: $\sin(2\arccos(1-\delta^2/8))$, no more than δ.

    Args:
        delta: In [0, 2], any shape; beyond 1.53 two directions may coincide, and it is 1.

    Reference:
        2408.03459, Lemma C.2; THEORY 3.9.
    Found:
        Confirmed. The lemma's δ is the tangent at 0; the exact worst case, attained by two directions that lean
        towards each other, is .48058 at δ = .5.

    Example:
        >>> [round(float(worst_cosine(delta)), 5) for delta in (0.1, 0.25, 0.5)]
        [0.09984, 0.24756, 0.48058]
    """
    delta = np.asarray(delta, dtype=np.float64)
    if not ((delta >= 0) & (delta <= 2)).all():
        raise DataError("delta must lie between 0 and 2 and not be NaN")
    near = 1 - delta**2 / 8
    leaning = delta * np.sqrt(1 - delta**2 / 16) * near
    return np.where(near**2 >= 0.5, leaning, 1.0)


def largest_delta(sharing: int) -> float:
    r"""$1/(128(Z+2))$: the δ that Appendix C allows at the largest $\epsilon$, from $\delta \le \epsilon v/8$.

    Reference:
        2408.03459, Theorem C.5 (condition on delta); THEORY 3.9.
    Found:
        Loose. .0026 for Z = 1, .0013 for Z = 4, while two random directions in 4096 coordinates have a cosine of
        .0156: real values never meet it.

    Example:
        >>> round(largest_delta(1), 4), round(largest_delta(4), 4)
        (0.0026, 0.0013)
    """
    if sharing < 1:
        raise ConfigError(f"sharing is {sharing!r}, but must be at least 1: a token appears in its own value")
    return 1 / (128 * (sharing + 2))


def almost_orthogonal_failure(model: ClusterModel, eps: float | None = None, *, constant: float = math.inf) -> float:
    r"""$(16Z+8) K Q^2 e^{-\epsilon^2/16} + (8Z+4) K Q^2 e^{-c(\epsilon/v)\min(1,\, \epsilon/(dv))}$.

    Args:
        model: The constants of the data.
        eps: The deviation, above 0; by default $1/(16v(Z+2))$.
        constant: c, which the source leaves open; infinite by default, which favours the source.

    Reference:
        2408.03459, Theorem C.5 (probability); THEORY 3.9.
    Found:
        Loose. Twice the Gaussian term of Lemma B.1. The lines held in every draw, also at Q where it is far above 1.

    Example:
        >>> model = ClusterModel.at_the_limits(10, 758)
        >>> round(almost_orthogonal_failure(model) / stated_kernel_failure(model), 6)
        2.0
    """
    both = stated_kernel_failure(model, eps, constant=constant)
    return both + stated_kernel_failure(model, eps)


def almost_orthogonal_guarantee(
    model: ClusterModel,
    *,
    delta: float,
    beta: float,
    learning_rate: float,
    steps: float,
    half_gap: float = 1.0,
    constant: float = math.inf,
    measured_least: float = math.nan,
    measured_largest: float = math.nan,
    group: str | None = None,
) -> tuple[Bound, Bound]:
    r"""Theorem C.5: Theorem 4.2 for almost orthogonal values, with the lower line halved.

    Args:
        model: The constants of the data.
        delta: `delta_orthogonality` of the values' directions.
        beta: Above 0.
        learning_rate: $\eta = 1/\tau$, above 0.
        steps: t, 0 or above.
        half_gap: $h$ of the features that were trained on.
        constant: c of the failure probability; infinite by default, which favours the source.
        measured_least: The smallest training margin of a run.
        measured_largest: The largest.
        group: The group it speaks of.

    Returns:
        The lower bound $\beta^2 t/(16K\tau)$ and the upper bound $5\beta^2 t/(K\tau)$.

    Reference:
        2408.03459, Theorem C.5; THEORY 3.9.
    Found:
        Loose. True in 60 random draws at the limit of δ, 14 to 15 times below and 5 times above the margins; random
        directions in 4096 coordinates fail the condition on δ.

    Example:
        >>> low, _ = almost_orthogonal_guarantee(
        ...     ClusterModel.at_the_limits(10, 2000), delta=0.0156, beta=0.1, learning_rate=1.0, steps=200)
        >>> low.failed[0].comparison
        '0.0156 <= 0.0026'
    """
    s = float(scaled_time(model.values, beta=beta, learning_rate=learning_rate, steps=steps, half_gap=half_gap))
    last = horizon(model.values, beta=beta, learning_rate=learning_rate, half_gap=half_gap)
    lower, upper = margin_lines(s)
    common: dict[str, Any] = {
        "conditions": (
            *model.conditions(),
            _delta_condition(model, delta),
            Condition(says="t <= K tau log 3/(5 beta^2)", measured=steps, limit=last),
        ),
        "failure": almost_orthogonal_failure(model, constant=constant),
        "group": group,
    }
    low = Bound(
        statement="2408.03459, Theorem C.5 (lower)",
        quantity="smallest training margin",
        direction="at least",
        value=float(lower) / 2,
        trivial=0.0,
        measured=measured_least,
        **common,
    )
    high = Bound(
        statement="2408.03459, Theorem C.5 (upper)",
        quantity="largest training margin",
        direction="at most",
        value=float(upper),
        trivial=math.nan,
        measured=measured_largest,
        **common,
    )
    return low, high


def almost_orthogonal_error_bound(
    model: ClusterModel,
    *,
    delta: float,
    constant: float = math.inf,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Theorem C.6: the refined held-out error with $\tfrac52 \epsilon v$ in place of $2\epsilon v$.

    Args:
        model: The constants of the data.
        delta: `delta_orthogonality` of the values' directions.
        constant: c of the failure probability; infinite by default, which favours the source.
        measured: Held-out share of pairs whose margin is not above 0.
        group: The group it speaks of.

    Reference:
        2408.03459, Theorem C.6; THEORY 3.9.
    Found:
        Loose. As Theorem B.4, and outside its condition on δ for any real directions.

    Example:
        >>> model = ClusterModel.at_the_limits(10, 900)
        >>> almost_orthogonal_error_bound(model, delta=0.002).value > refined_error(model)
        True
    """
    return Bound(
        statement="2408.03459, Theorem C.6",
        quantity="held-out error",
        direction="at most",
        value=refined_error(model, share=2.5),
        trivial=1.0,
        conditions=(
            *model.conditions(),
            _delta_condition(model, delta),
            Condition(says="Q >= 40", measured=model.per_cluster, relation=">=", limit=40),
        ),
        failure=almost_orthogonal_failure(model, constant=constant),
        measured=measured,
        group=group,
    )


def _delta_condition(model: ClusterModel, delta: float) -> Condition:
    limit = min(model.largest_eps * model.noise / 8, 0.25)
    return Condition(says="delta <= min(eps v/8, 1/4)", measured=delta, limit=limit)
