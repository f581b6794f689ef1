r"""How far the margin kernel strays from its noiseless value, and with which probability it strays further.

On the cluster model every entry of $C_{ij} = P_{ij}\,(g_i \cdot g_j)$ lies near one of five centres. Every theorem of
the paper holds on the event that all entries lie within the radii below, so its failure probability is theirs.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from prefdyn._checks import positive
from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.value_scaling.model import ClusterModel

GAUSSIAN_CONSTANT = 0.125
r"""A constant $c$ that does for Gaussian data where the source leaves it open: see `stated_kernel_failure`."""


class Ball(NamedTuple):
    """Where a kind of kernel entry lies."""

    centre: float
    """The entry without noise; of |C| where a token is shared between values."""
    radius: float
    """How far from it, at most."""


class Tails(NamedTuple):
    """Natural logarithms of two-sided tail probabilities, each for one entry."""

    linear: float
    r"""$|(sc+b)\cdot(a+a')| > \epsilon$ for two features."""
    quadratic: float
    r"""$v |a \cdot a'| > \epsilon$ for two features."""
    own_linear: float
    r"""$2|(sc+b)\cdot a| > \epsilon$ for one feature."""
    own_quadratic: float
    r"""$v |\,\|a\|^2 - d\,| > \epsilon$ for one feature."""


def concentration_radii(model: ClusterModel, eps: float | None = None) -> dict[str, Ball]:
    r"""Centre and radius of every kind of kernel entry.

    | kind | centre of C | radius |
    |---|---|---|
    | same cluster | $2(1+l_b^2)$ | $4\epsilon v$ |
    | same pair (diagonal) | $2(1+l_b^2+dv^2)$ | $4\epsilon v$ |
    | opposite cluster of the same value | $2(1-l_b^2)$ | $4\epsilon v$ |
    | one shared token | $\lvert C \rvert$: $l_b^2$ | $2\epsilon v$ |
    | no shared token | 0 | 0 |

    Args:
        model: The constants of the data.
        eps: The deviation $\epsilon$, above 0; by default the largest the theorems allow, $1/(16v(Z+2))$.

    Reference:
        2408.03459, Lemma B.1 and B.2 (radii); THEORY 3.3.
    Found:
        Confirmed. Each entry is a centre, a Gaussian and a product of Gaussians; where both stay below eps in
        units of v the radius follows. `explicit_kernel_failure` says with which probability they do.

    Example:
        >>> model = ClusterModel.at_the_limits(2, 40, shared_norm=0.5)
        >>> concentration_radii(model)["same cluster"]
        Ball(centre=2.5, radius=0.08333333333333333)
    """
    square = model.shared_norm * model.shared_norm
    stray = _checked(model, eps) * model.noise
    return {
        "same cluster": Ball(2 * (1 + square), 4 * stray),
        "same pair": Ball(2 * (1 + square + model.total_variance), 4 * stray),
        "opposite cluster": Ball(2 * (1 - square), 4 * stray),
        "one shared token": Ball(square, 2 * stray),
        "no shared token": Ball(0.0, 0.0),
    }


def kernel_deviation(
    kernel: Float[np.ndarray, "n n"],
    answer_sharing: Int[np.ndarray, "n n"],
    model: ClusterModel,
    eps: float | None = None,
) -> float:
    r"""The largest distance of a kernel entry from its centre, in radii: at most 1 on the event of Lemma B.1.

    Args:
        kernel: C, `prefdyn.maths.kernel.PairKernel.dense`.
        answer_sharing: P, `prefdyn.maths.kernel.preference_sharing` of the pairs with themselves. Where no two
            values have the same two tokens it tells the kind: 2 the same cluster, -2 the opposite one, ±1 a token
            shared between values, 0 none.
        model: The constants of the data.
        eps: As in `concentration_radii`.

    Raises:
        DataError: An entry of the kernel is not finite.

    Reference:
        THEORY 3.3; what Lemma B.1 of 2408.03459 bounds.

    Example:
        >>> model = ClusterModel.at_the_limits(1, 1, shared_norm=0.5)
        >>> round(kernel_deviation(np.array([[2.5, 1.5], [1.5, 2.5]]), np.array([[2, -2], [-2, 2]]), model), 3)
        0.117
    """
    if not np.isfinite(kernel).all():
        raise DataError("the kernel has entries with NaN or infinity; leave such pairs out")
    balls = concentration_radii(model, eps)
    diagonal = np.eye(len(kernel), dtype=bool)
    kinds = {
        "same cluster": (answer_sharing == 2) & ~diagonal,
        "same pair": diagonal,
        "opposite cluster": answer_sharing == -2,
        "one shared token": np.abs(answer_sharing) == 1,
    }
    shares = [0.0]
    for kind, mask in kinds.items():
        if mask.any():
            entries = np.abs(kernel[mask]) if kind == "one shared token" else kernel[mask]
            shares.append(float(np.abs(entries - balls[kind].centre).max()) / balls[kind].radius)
    return max(shares)


def kernel_tails(model: ClusterModel, eps: float | None = None) -> Tails:
    r"""Explicit two-sided tails of the four random parts of a kernel entry, for Gaussian clusters.

    With $g = sc + b + va$ and $a \sim N(0, I_d)$, two features of one value have
    $g \cdot g' = \text{centre} + v\,L + v^2\,a \cdot a'$, $L \sim N(0, 2(1+l_b^2))$, hence
    $P(|L| > \epsilon) \le 2 e^{-\epsilon^2/(4(1+l_b^2))}$. The product has
    $\log E e^{\lambda a \cdot a'} = -\tfrac d2 \log(1-\lambda^2) \le \tfrac{d\lambda^2}{2(1-\lambda)}$: sub-gamma, so
    $P(v|a \cdot a'| > \epsilon) \le 2 e^{-\epsilon^2/(2(dv^2+\epsilon v))}$. One feature with itself has twice the
    linear part, of variance $4(1+l_b^2)$, and a centred chi-square, sub-gamma with variance $2d$ and scale 2.

    Reference:
        2408.03459, Lemma B.1 (tails, ours); THEORY 3.3.
    Found:
        Ours. Each holds for drawn features at three standard deviations; with twice the exponent each is broken.

    Example:
        >>> tails = kernel_tails(ClusterModel.at_the_limits(1, 100, shared_norm=0.5))
        >>> [round(tail, 3) for tail in tails]
        [-8.196, -863.442, -3.751, -431.374]
    """
    eps = _checked(model, eps)
    spread = 1 + model.shared_norm * model.shared_norm
    curved = model.total_variance + eps * model.noise
    log2 = math.log(2)
    return Tails(
        linear=log2 - eps * eps / (4 * spread),
        quadratic=log2 - eps * (eps / (2 * curved)),
        own_linear=log2 - eps * eps / (8 * spread),
        own_quadratic=log2 - eps * (eps / (4 * curved)),
    )


def explicit_kernel_failure(model: ClusterModel, eps: float | None = None) -> float:
    r"""Probability, at most, that an entry leaves its radius, with every constant known: for Gaussian clusters.

    The union of `kernel_tails` over $KQ(Q-1)$ pairs within a cluster, $KQ^2$ across the two clusters of a value,
    $4ZKQ^2$ that share one token with another value, and $2KQ$ diagonal entries. ($4(Z-1)KQ^2$ sharing pairs would
    do: a token of one value appears in at most $Z-1$ others. The diagonal decides; it saves no more than 2 pairs.)

    Args:
        model: The constants of the data.
        eps: The deviation, above 0; by default $1/(16v(Z+2))$.

    Returns:
        A sum of probabilities: may be above 1, and then says nothing.

    Reference:
        2408.03459, Lemma B.1 (failure probability, ours); THEORY 3.3.
    Found:
        Sharper. The source leaves a constant c open; with these the event has probability .95 from Q = 278 (Z = 1,
        l_b = .5, K = 10) or 1044 (Z = 4, l_b = .25), where the stated expression asks for 1.84e5.

    Example:
        >>> round(explicit_kernel_failure(ClusterModel.at_the_limits(10, 278, shared_norm=0.5)), 3)
        0.048
    """
    tails = kernel_tails(model, eps)
    log_k, log_q = math.log(model.values), math.log(model.per_cluster)
    log_pairs = log_k + log_q + math.log((2 + 4 * model.sharing) * model.per_cluster - 1)
    log_diagonals = math.log(2) + log_k + log_q
    return _probability(
        log_pairs + tails.linear,
        log_pairs + tails.quadratic,
        log_diagonals + tails.own_linear,
        log_diagonals + tails.own_quadratic,
    )


def stated_kernel_failure(model: ClusterModel, eps: float | None = None, *, constant: float = math.inf) -> float:
    r"""$(8Z+4) K Q^2 [e^{-\epsilon^2/16} + e^{-c (\epsilon/v) \min(1,\, \epsilon/(dv))}]$, as the source has it.

    Args:
        model: The constants of the data.
        eps: The deviation, above 0; by default $1/(16v(Z+2))$.
        constant: c, which the source leaves open. Infinite: the second term is left out, which favours the source.
            `GAUSSIAN_CONSTANT` is one that is true for Gaussian clusters.

    Reference:
        2408.03459, Lemma B.1 (failure probability); THEORY 3.3.
    Found:
        Confirmed. For Gaussian clusters and l_b <= 1/2 it is true with c = 1/8: wherever it is below 1 it is no
        smaller than `explicit_kernel_failure`. The source names no value for c.

    Example:
        >>> model = ClusterModel.at_the_limits(10, 758)
        >>> round(stated_kernel_failure(model), 4)
        0.0495
    """
    if not constant > 0:
        raise ConfigError(f"constant is {constant!r}, but must be above 0; math.inf leaves the term out")
    eps = _checked(model, eps)
    ratio = eps / model.noise
    count = math.log(8 * model.sharing + 4) + math.log(model.values) + 2 * math.log(model.per_cluster)
    return _probability(
        count - eps * eps / 16, count - constant * (ratio * min(1.0, eps / (model.width * model.noise)))
    )


def stated_failure(values: int, pairs: int, *, constant: float = math.inf) -> float:
    r"""$8 K Q^{9/4} \exp(-\min(c\sqrt Q/5,\ Q^{3/4}/256))$: how often the theorems may fail, as the source says.

    Args:
        values: K, at least 1.
        pairs: Q per cluster, at least 1.
        constant: c, which the source leaves open; infinite by default, which favours the source.

    Reference:
        2408.03459, Theorem 4.2 (probability); THEORY 3.4, X-10.
    Found:
        Empty. Above 1 at every Q the paper works with: 1.78e8 at K = 10, Q = 875, and below .05 only from
        Q = 1.84e5. A left-over of an older version with a larger noise; `refined_failure` is what the proof gives,
        `explicit_failure` has its constants.

    Example:
        >>> f"{stated_failure(10, 875):.3g}"
        '1.78e+08'
    """
    k, q = _counts(values, pairs)
    if not constant > 0:
        raise ConfigError(f"constant is {constant!r}, but must be above 0; math.inf leaves the term out")
    decay = min(constant * math.sqrt(q) / 5, q**0.75 / 256)
    return _probability(math.log(8) + math.log(k) + 2.25 * math.log(q) - decay)


def refined_failure(model: ClusterModel, *, constant: float = math.inf) -> float:
    r"""Lemma B.1 at the largest $\epsilon$: $(8Z+4) K Q^2 e^{-Q/(4(Z+2)^2)}$ at $c = \infty$.

    The exponent is for $v = 1/(32\sqrt Q)$; a smaller spread makes it larger.

    Reference:
        2408.03459, Theorem B.3 (probability); THEORY 3.5, X-10.
    Found:
        Confirmed. Below .05 from Q = 758 (Z = 1, K = 10) or 3641 (Z = 4): no left-over of another version.

    Example:
        >>> refined_failure(ClusterModel.at_the_limits(10, 758)) <= 0.05
        True
    """
    return stated_kernel_failure(model, constant=constant)


def explicit_failure(model: ClusterModel) -> float:
    """`explicit_kernel_failure` at the largest eps: how often the theorems may fail on Gaussian clusters.

    Reference:
        THEORY 3.3 and 3.5; repairs the probability of Theorem 4.2 of 2408.03459.

    Example:
        >>> round(explicit_failure(ClusterModel.at_the_limits(1, 860, sharing=4)), 3)
        0.05
    """
    return explicit_kernel_failure(model)


def kernel_concentration(
    model: ClusterModel,
    eps: float | None = None,
    *,
    constant: float | None = None,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Lemma B.1 as a bound on `kernel_deviation`: no kernel entry is further than one radius from its centre.

    Args:
        model: The constants of the data.
        eps: The deviation, above 0; by default $1/(16v(Z+2))$.
        constant: c of the stated failure probability; None: the explicit probability for Gaussian clusters.
        measured: `kernel_deviation` of the data at hand.
        group: The group it speaks of.

    Reference:
        2408.03459, Lemma B.1; THEORY 3.3.
    Found:
        Confirmed. Holds in every random draw in which its explicit failure probability is small. With v at its limit
        and Q below 30 most draws leave the radii, by up to 8 times, and the training lines hold all the same.

    Example:
        >>> kernel_concentration(ClusterModel.at_the_limits(4, 1500, shared_norm=0.5), measured=0.4).standing
        'informative'
    """
    known = constant is None
    return Bound(
        statement="2408.03459, Lemma B.1",
        quantity="distance of a kernel entry from its centre (in radii)",
        direction="at most",
        value=1.0,
        trivial=math.nan,
        conditions=(
            Condition(says="l_b <= 1/2", measured=model.shared_norm, limit=0.5),
            *model.structure_conditions(),
        ),
        failure=explicit_kernel_failure(model, eps)
        if constant is None
        else stated_kernel_failure(model, eps, constant=constant),
        form="sharper" if known else "published",
        measured=measured,
        group=group,
        note="the constant of the failure probability is not in the source; ours is for Gaussian clusters"
        if known
        else "",
    )


def _checked(model: ClusterModel, eps: float | None) -> float:
    if eps is None:
        return model.largest_eps
    return positive(eps, name="eps", fix="give a deviation in units of the spread")


def _counts(values: int, pairs: int) -> tuple[int, int]:
    if values < 1 or pairs < 1:
        raise ConfigError(f"values is {values!r} and pairs {pairs!r}, but both must be at least 1")
    return values, pairs


def _probability(*logs: float) -> float:
    """A sum of probabilities from their logarithms; infinite where it does not fit, which is as vacuous as 1."""
    total = float(np.logaddexp.reduce(logs))
    return math.exp(total) if total < 700 else math.inf
