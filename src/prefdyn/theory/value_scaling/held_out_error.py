r"""The held-out error of a trained head, exactly, and how it goes with values, pairs, noise and shared answers.

Model and letters as in `prefdyn.theory.value_scaling.model`: $x \sim N(s\,c_k + b, v^2 I_d)$, K values, Q pairs per
cluster, lengths in units of the half gap. After the first steps of a run all pairs still pull alike, and the head
stands at $w_k \propto u_k + \sum_j \tfrac12 P_{kj} u_j$ over the other values j, where
$u_k = c_k + \sqrt{v^2/2Q}\,\epsilon_k$ is half the sample gap of value k and $P$ the sharing of answers. What is said
of "the early head" holds for this direction.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.stats import norm

from prefdyn._checks import at_least, between, positive
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.kernel import answer_coordinates
from prefdyn.theory.bound import Bound, Condition

_SURE = 1e-3
"""Probability that a share counted on held-out pairs falls below the statement by chance."""


# one head -----------------------------------------------------------------------------------------------------------


def log_head_error(
    differences: Float[np.ndarray, "k d"],
    directions: Float[np.ndarray, "k d"],
    offset: Float[np.ndarray, " d"],
    noise: float,
) -> Float[np.ndarray, "k 2"]:
    r"""Logarithm of `head_error`, exact where the error itself is below the smallest float.

    Example:
        >>> w = c = np.eye(1, 3, k=1)
        >>> log_head_error(w, c, np.zeros(3), 0.01).round(2).tolist()
        [[-5005.52, -5005.52]]
    """
    positive(noise, name="noise", fix="give the standard deviation of a coordinate within a cluster")
    largest = np.abs(differences).max(axis=1, keepdims=True)
    w = differences / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(w, axis=1)
    along, aside = np.einsum("kd,kd->k", w, directions), w @ offset
    margins = np.stack([along + aside, along - aside], axis=1)  # s w.(s c + b) for s = 1 and -1
    errors = norm.logcdf(-margins / (noise * np.where(lengths > 0, lengths, 1.0))[:, None])
    return np.where(lengths[:, None] > 0, errors, 0.0)


def head_error(
    differences: Float[np.ndarray, "k d"],
    directions: Float[np.ndarray, "k d"],
    offset: Float[np.ndarray, " d"],
    noise: float,
) -> Float[np.ndarray, "k 2"]:
    r"""$\Phi\left(-\frac{s\,w_k\cdot(s\,c_k+b)}{v\lVert w_k\rVert}\right)$: the error of a given head, exactly.

    Args:
        differences: $w_k = M[p_k] - M[q_k]$, the change of the head between the two answers of each value: the one
            preferred in the cluster $s = 1$ minus the other.
        directions: $c_k$, half the gap between the means of the two clusters of each value. Any length and angles.
        offset: $b$, the common midpoint.
        noise: $v$, in the same unit, above 0.

    Returns:
        P(margin <= 0) in the cluster $s = 1$ and in the cluster $s = -1$ of each value. 1 where a head has not moved:
        a margin of 0 counts as an error.

    Raises:
        ConfigError: The noise is not above 0.

    Reference:
        2408.03459, section 4 (population risk); THEORY 3.6.
    Found:
        Ours. The source bounds this error; on its own data model it is one value of the normal distribution function
        for any head, whatever trained it.

    Example:
        >>> w = c = np.eye(1, 3, k=1)
        >>> head_error(w, c, np.zeros(3), 0.5).round(6).tolist()
        [[0.02275, 0.02275]]
    """
    return np.exp(log_head_error(differences, directions, offset, noise))


# the early head -----------------------------------------------------------------------------------------------------


def crowding(answers: Sequence[tuple[Hashable, Hashable]]) -> Float[np.ndarray, " k"]:
    r"""$\kappa_k = \sum_j (P_{kj}/2)^2$: how many values' worth of other directions the early head of value k carries.

    1 where its answers are its own, K where all values share both, 1 + (K-1)/4 where all share one, 3/2 in a ring.

    Args:
        answers: The (first, second) answers of each value: preferred in the cluster $s = 1$, and the other.

    Returns:
        One number per value, 1 or above. The laws below hold with it in place of K.

    Reference:
        2408.03459, Lemma 4.1 (sharing factor); THEORY 3.6.
    Found:
        Ours. The error laws for distinct and for shared answers are the two ends of one law in this number.

    Example:
        >>> crowding([("a", "b"), ("a", "c"), ("d", "e")]).tolist()
        [1.25, 1.25, 1.0]
    """
    if not answers:
        raise DataError("crowding was given 0 values; give the two answers of each value")
    names = list(dict.fromkeys(token for pair in answers for token in pair))
    chosen, rejected = (np.array([names.index(pair[side]) for pair in answers]) for side in (0, 1))
    if (chosen == rejected).any():
        bad = int(np.flatnonzero(chosen == rejected)[0])
        raise DataError(f"value {bad} has the same answer {answers[bad][0]!r} twice; give two different ones")
    coordinates, _ = answer_coordinates(chosen, rejected, len(names))
    return ((np.rint(coordinates @ coordinates.T) / 2) ** 2).sum(axis=1)


def early_error(values: Any = 1, *, noise: Any, width: Any, per_cluster: Any, shared: bool = False) -> Any:
    r"""$\Phi\left(-1/\big(v\sqrt{\kappa\,(1+dv^2/2Q)}\big)\right)$: error of the early head for many pairs.

    $\kappa = 1$ for answers of their own, whatever K; $\kappa = K$ where all values share their two answers.

    Args:
        values: K, or, with `shared`, the `crowding` of a value whose answers are shared in part.
        noise: v, above 0.
        width: d, 1 or above.
        per_cluster: Q, above 0; may be infinite.
        shared: Whether all values share the same two answers.

    Returns:
        The error, in the common shape of the arguments. It leaves out how the mean margin varies from one training
        set to the next, and so is too low for few pairs: see `early_error_small_sample` and `mean_early_error`.

    Raises:
        DataError: An argument is out of range.

    Reference:
        2408.03459, Theorem 4.3 (what it is about); THEORY 3.6.
    Found:
        Sharper. The theorem's 2KQ²e^(-Q/45) is above 1 where this is 0.09 (d = 200, Q = 20, v = 0.5). The error of
        answers of their own does not depend on K at all; shared ones leave an error that no Q removes.

    Example:
        >>> round(float(early_error(4, noise=0.5, width=200, per_cluster=20)), 4)
        0.0912
        >>> early_error(np.array([4, 8, 16]), noise=0.5, width=200, per_cluster=20, shared=True).round(4).tolist()
        [0.2525, 0.3187, 0.3694]
    """
    k, v, spread = _laws(values, noise, width, per_cluster, shared)
    return norm.cdf(-1 / (v * np.sqrt(k * spread)))


def early_error_small_sample(
    values: Any = 1, *, noise: Any, width: Any, per_cluster: Any, shared_norm: Any = 0.0, shared: bool = False
) -> Any:
    r"""`early_error` with the spread of the mean margin over training sets, to the first order in 1/Q.

    $$ \Phi\left(-\frac{1}{v\sqrt{\kappa S + \tfrac{\kappa}{2Q}\left(1 - \tfrac{2}{\kappa S} +
       \tfrac{1}{\kappa S^2} + l_b^2\right)}}\right), \qquad S = 1 + dv^2/2Q $$

    Args:
        values: K, or, with `shared`, the `crowding` of a value whose answers are shared in part.
        noise: v, above 0.
        width: d, 1 or above.
        per_cluster: Q, above 0; may be infinite.
        shared_norm: $l_b$, 0 or above.
        shared: Whether all values share the same two answers.

    Returns:
        The mean error over training sets, in the common shape of the arguments.

    Raises:
        DataError: An argument is out of range.

    Reference:
        2408.03459, Theorem 4.3 (what it is about); THEORY 3.6.
    Found:
        Ours. Within 4 % of the exact mean (`mean_early_error`) from Q = 1 on, where `early_error` is up to 23 % low;
        it leaves out how the length of the head varies, and the second order.

    Example:
        >>> round(float(early_error_small_sample(noise=0.2, width=200, per_cluster=1, shared_norm=0.5)), 5)
        0.01607
    """
    k, v, spread = _laws(values, noise, width, per_cluster, shared)
    lb, q = np.asarray(shared_norm, dtype=np.float64), np.asarray(per_cluster, dtype=np.float64)
    if not (np.isfinite(lb).all() and (lb >= 0).all()):
        raise DataError("shared_norm must be finite, 0 or above")
    varies = (k - 2 / spread + 1 / spread**2 + k * lb**2) / (2 * q)
    return norm.cdf(-1 / (v * np.sqrt(k * spread + varies)))


def _laws(values: Any, noise: Any, width: Any, per_cluster: Any, shared: bool) -> tuple[Any, Any, Any]:
    k, v, d, q = (np.asarray(x, dtype=np.float64) for x in (values, noise, width, per_cluster))
    for name, given, low in (("values", k, 1), ("width", d, 1)):
        if not (np.isfinite(given).all() and (given >= low).all()):
            raise DataError(f"{name} must be finite and at least {low}")
    if not (np.isfinite(v).all() and (v > 0).all()):
        raise DataError("noise must be finite and above 0")
    if not (q > 0).all():
        raise DataError("per_cluster must be above 0 and not NaN")
    return k if shared else np.ones_like(k), v, 1 + d * v * v / (2 * q)


def log_mean_early_error(
    values: float = 1, *, noise: float, width: int, per_cluster: float, shared_norm: float = 0.0, shared: bool = False
) -> float:
    r"""Logarithm of `mean_early_error`, with its relative digits where the error is below the smallest float.

    Example:
        >>> round(log_mean_early_error(noise=0.005, width=200, per_cluster=40), 1)
        -20005.0
    """
    for name, value in (("noise", noise), ("per_cluster", per_cluster)):
        positive(value, name=name)
    k = _count(values) if shared else 1.0
    at_least(width, 1, name="width")
    if not (math.isfinite(shared_norm) and shared_norm >= 0):
        raise ConfigError(f"shared_norm is {shared_norm!r}, but must be a finite number, 0 or above")
    own = (2 * per_cluster + 1 + shared_norm**2) / 2
    cross = math.sqrt(2 * per_cluster / k)
    apart = ((math.sqrt(2 * per_cluster) - 1) ** 2 + 2 * math.sqrt(2 * per_cluster) * (1 - 1 / math.sqrt(k))) / 2
    return _log_first_smaller(width, (own + cross) / noise**2, (apart + shared_norm**2 / 2) / noise**2)


def mean_early_error(
    values: float = 1, *, noise: float, width: int, per_cluster: float, shared_norm: float = 0.0, shared: bool = False
) -> float:
    r"""The error of the early head, averaged over training sets: exact for every Q, d and v.

    With $w = \mu_w + \tau z$ (half gaps summed up, $\tau^2 = \kappa v^2/2Q$) and a held-out $x = \mu_x + v z'$,

    $$ w \cdot x \propto \lVert p \rVert^2 - \lVert q \rVert^2, \qquad p, q = \tfrac{w}{\tau} \pm \tfrac{x}{v}, $$

    and $p, q$ are independent: the error is the probability that one non-central $\chi^2_d$ is at most another, with
    non-centralities $\tfrac12\lVert \mu_w/\tau \pm \mu_x/v \rVert^2 = \tfrac{1}{2v^2}\big(2Q + 1 + l_b^2 \pm
    2\sqrt{2Q/\kappa}\big)$. It is computed by a contour integral through the saddle point.

    Args:
        values: K, or, with `shared`, the `crowding` of a value whose answers are shared in part.
        noise: v, above 0.
        width: d, 1 or above.
        per_cluster: Q, above 0.
        shared_norm: $l_b$, 0 or above.
        shared: Whether all values share the same two answers.

    Raises:
        ConfigError: An argument is out of range.

    Reference:
        2408.03459, Theorem 4.3 (what it is about); THEORY 3.6.
    Found:
        Ours. The theorem bounds this number; here it is, to rounding, for shared and distinct answers and any Q.
        For Q = 40 at the limits of its conditions it is 10^-8868 (K = 1), the bound 1316.

    Example:
        >>> round(mean_early_error(noise=0.2, width=200, per_cluster=1, shared_norm=0.5), 5)
        0.01653
    """
    return math.exp(
        log_mean_early_error(
            values, noise=noise, width=width, per_cluster=per_cluster, shared_norm=shared_norm, shared=shared
        )
    )


# what no number of pairs removes --------------------------------------------------------------------------------------


def irreducible_error(values: float = 1, noise: float = 1.0) -> float:
    r"""$\Phi(-1/(v\sqrt K))$: the least mean error of K values that share their two answers, for any head.

    Args:
        values: K, the number of values that share one pair of answers; 1 where answers are its own.
        noise: v, above 0.

    Raises:
        ConfigError: An argument is out of range.

    Reference:
        2408.03459, Theorem 4.3 (its limit for many pairs); THEORY 3.6.
    Found:
        Ours. The theorem lets the error go to 0 with Q; its conditions exclude shared answers, but its experiments
        share Yes and No among all values, and there no head whatever falls below this (`irreducible_error_bound`).

    Example:
        >>> [round(irreducible_error(k, 0.25), 7) for k in (1, 4, 16)]
        [3.17e-05, 0.0227501, 0.1586553]
    """
    positive(noise, name="noise")
    return float(norm.cdf(-1 / (noise * math.sqrt(_count(values)))))


def pairs_needed_for_error(error: float, *, noise: float, width: int, values: float = 1, shared: bool = False) -> float:
    r"""$Q = \frac{dv^2}{2\,(1/(\kappa v^2 z^2) - 1)}$, $z = \Phi^{-1}(1-e)$: the Q at which `early_error` is e.

    Args:
        error: e, between 0 and 1.
        noise: v, above 0.
        width: d.
        values: K, or, with `shared`, the `crowding` of a value whose answers are shared in part.
        shared: Whether all values share the same two answers.

    Returns:
        Q, not rounded: take the next whole number, at least 1. 0 for e >= 1/2. Infinite where no number of pairs is
        enough, that is $v z \sqrt\kappa \ge 1$: the error wanted is not above the irreducible one.

    Raises:
        ConfigError: An argument is out of range.

    Reference:
        2408.03459, Theorem 4.3 (its scaling law); THEORY 3.6.
    Found:
        Ours. The law Q = Θ(log K) of the source is that of its bound. On its data Q depends on d and v, not on K, where
        answers are distinct; where they are shared it grows with K and is infinite from K = 1/(v z)^2 on.

    Example:
        >>> round(pairs_needed_for_error(0.05, noise=0.3, width=4096), 3)
        59.328
        >>> pairs_needed_for_error(0.05, noise=0.3, width=4096, values=16, shared=True)
        inf
    """
    between(error, 0, 1, name="error")
    positive(noise, name="noise")
    at_least(width, 1, name="width")
    if error >= 0.5:
        return 0.0
    reach = noise * float(norm.isf(error)) * math.sqrt(_count(values) if shared else 1.0)
    if reach >= 1:
        return math.inf
    return width * noise**2 / 2 * reach**2 / ((1 - reach) * (1 + reach))


def irreducible_error_bound(
    values: int,
    noise: float,
    *,
    held_out_pairs: int | None = None,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Statement: K values with one pair of answers leave a mean error of at least $\Phi(-1/(v\sqrt K))$.

    Let the head move by any w between the two answers, and $a_k = w \cdot c_k/\lVert w \rVert$, so that
    $\sum a_k^2 \le 1$. The two clusters of a value err by $\Phi(-(a_k \pm e)/v)$ with one $e$ from the offset and the
    head's bias. Their mean grows with $\lvert e \rvert$ where $a_k \ge 0$, so it is at least $\Phi(-a_k/v)$; a negative
    $a_k$ errs more than $\lvert a_k \rvert$. $\Phi(-a/v)$ is convex for $a \ge 0$ and falls, so the mean over values is
    at least $\Phi(-\bar a/v)$ with $\bar a \le 1/\sqrt K$. No loss, optimiser, number of steps or of pairs enters.

    It is a floor, and a floor is all that a one-sided statement can hold: the laws above give the mean over training
    sets, and a single head lies on either side of it.

    Args:
        values: K, the values that share one pair of answers; 1 for a value with answers of its own.
        noise: v, above 0.
        held_out_pairs: Where the error was counted on held-out pairs: how many. The floor is lowered by what chance
            takes off a count in one case of a thousand (Hoeffding). None: `measured` is the error itself, as from
            `head_error`.
        measured: Held-out error, the mean over the values.
        group: What it speaks of.

    Raises:
        ConfigError: An argument is out of range.

    Reference:
        2408.03459, Theorem 4.3 (its limit for many pairs); THEORY 3.6.
    Found:
        Repaired. Attained by the head along the sum of the directions, and never passed by 3000 others nor by a
        numerical optimiser; the head of a long run approaches it as Q grows (K = 8, v = 0.5: 0.2398).

    Example:
        >>> print(irreducible_error_bound(8, 0.5, measured=0.2656))
        2408.03459, Theorem 4.3, shared answers: held-out error at least 0.2398
          taken  all values have the same two answers
          taken  Gaussian clusters of equal size, directions orthogonal to each other and to b
    """
    value = irreducible_error(at_least(values, 1, name="values"), noise)
    chance = 0.0
    if held_out_pairs is not None:
        chance = math.sqrt(-math.log(_SURE) / (2 * at_least(held_out_pairs, 1, name="held_out_pairs")))
    return Bound(
        statement="2408.03459, Theorem 4.3, shared answers",
        quantity="held-out error",
        direction="at least",
        value=max(value - chance, 0.0),
        trivial=0.0,
        conditions=(
            Condition(says="all values have the same two answers"),
            Condition(says="Gaussian clusters of equal size, directions orthogonal to each other and to b"),
        ),
        failure=_SURE if chance else 0.0,
        form="repaired",
        measured=measured,
        group=group,
        note="the published bound goes to 0 with Q and excludes shared answers; this floor holds for any linear head",
    )


# sums -----------------------------------------------------------------------------------------------------------------


def _count(values: float) -> float:
    if not (math.isfinite(values) and values >= 1):
        raise ConfigError(f"values is {values!r}, but must be a finite number of at least 1")
    return float(values)


def _log_first_smaller(d: int, first: float, second: float) -> float:
    r"""$\log P(X_1 \le X_2)$ for independent non-central $\chi^2_d$ variables, the first with the larger mean.

    $P = \frac{1}{2\pi i} \int_{c - i\infty}^{c + i\infty} e^{\phi(t)}\,dt$ with $\phi = \log E\,e^{t(X_1-X_2)} -
    \log(-t)$, through the minimum c of $\phi$ on the real line; along it $\phi(t) - \phi(c)$ is summed from
    second-order remainders, so nothing cancels.
    """

    def slope(log_u: float) -> float:  # phi'(t) at u = 1 + 2t
        u = math.exp(log_u)
        rest = 2 - u
        return d / rest + first / rest**2 - d / u - second / u**2 - 2 / math.expm1(log_u)

    low = -1.0
    while slope(low) > 0:
        low *= 2
    root: Any = brentq(slope, low, -1e-13, xtol=1e-15)
    u, c = math.exp(root), math.expm1(root) / 2
    rest = 2 - u
    height = -d / 2 * (math.log(u) + math.log(rest)) + c * (first / rest - second / u) - math.log(-c)
    curvature = 2 * d / rest**2 + 4 * first / rest**3 + 2 * d / u**2 + 4 * second / u**3 + 1 / c**2
    step = np.arange(0, 3200) * 0.0125
    y = np.sinh(step) / math.sqrt(curvature)
    t = 1j * y
    fall = -2 * y**2 * (first / (rest**2 * (rest - 2 * t)) + second / (u**2 * (u + 2 * t)))
    fall -= d / 2 * (_beyond_linear(-2 * t / rest) + _beyond_linear(2 * t / u)) + _beyond_linear(t / c)
    weight = np.where(step == 0, 0.5, 1.0) * np.cosh(step)
    total = float(np.sum(weight * np.exp(fall.real) * np.cos(fall.imag))) * 0.0125 / math.sqrt(curvature) / math.pi
    return min(height + math.log(total), 0.0)


def _beyond_linear(z: np.ndarray) -> np.ndarray:
    """log(1 + z) - z."""
    series = z**2 * (-1 / 2 + z * (1 / 3 + z * (-1 / 4 + z * (1 / 5 - z / 6))))
    return np.where(np.abs(z) < 1e-3, series, np.log1p(z) - z)
