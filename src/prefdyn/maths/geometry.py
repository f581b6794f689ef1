r"""What two clouds of features look like: gaps, spreads, ranks and distances. Pure formulas on arrays.

A group of two-answer pairs has two classes, the states $g$ where the first answer is chosen and those where the
second is. Everything here is measured from samples ("plug-in") with covariances of ddof 1, in float64, and needs
no d × d matrix where there are fewer rows than columns.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve, get_lapack_funcs
from scipy.optimize import brentq

from prefdyn._arrays import finite
from prefdyn._checks import at_least, between
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.kernel import PairKernel

# the gap ------------------------------------------------------------------------------------------------------------


def mean_gap(states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    r"""$\hat\mu_+ - \hat\mu_-$: mean of the positive class minus mean of the other.

    Raises:
        DataError: One class is empty.

    Example:
        >>> mean_gap(np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), np.array([True, True, False, False])).tolist()
        [2.0, 1.0]
    """
    count = int(positive.sum())
    if count == 0 or count == len(positive):
        raise DataError(f"the mean gap needs both classes, but {count} of {len(positive)} rows are positive")
    return states[positive].mean(axis=0, dtype=np.float64) - states[~positive].mean(axis=0, dtype=np.float64)


def distinguishability(states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> float:
    r"""$D = \lVert \hat\mu_+ - \hat\mu_- \rVert$, as published. Biased upwards by noise: see `debiased_square`.

    Reference:
        2403.18742, section 4; THEORY 2.1.

    Example:
        >>> round(distinguishability(np.eye(2), np.array([True, False])), 6)
        1.414214
    """
    return float(np.linalg.norm(mean_gap(states, positive)))


def distinguishability_exponent(distance: float, width: int) -> float:
    r"""$\Delta = \log D / \log d$, so that $D = d^\Delta$. $-\infty$ for D = 0, NaN where d < 2 or D is NaN.

    Example:
        >>> distinguishability_exponent(8.0, 64)
        0.5
    """
    if width < 2 or math.isnan(distance):
        return math.nan
    return math.log(distance) / math.log(width) if distance > 0 else -math.inf


def debiased_square(states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> float:
    r"""$\hat D^2 - \mathrm{Tr}\,S_+/n_+ - \mathrm{Tr}\,S_-/n_-$: unbiased for the squared distance of the true means.

    May be below 0, which says that the gap is no larger than noise. NaN where a class has one row.

    Reference:
        THEORY 5.

    Example:
        >>> debiased_square(np.array([[1.0], [3.0], [0.0], [0.0]]), np.array([True, True, False, False]))
        3.0
    """
    noise = sum(covariance_trace(states[rows]) / rows.sum() for rows in (positive, ~positive))
    return float(distinguishability(states, positive) ** 2 - noise)


def null_root_mean_square(states: Float[np.ndarray, "n d"], positives: int) -> float:
    r"""Root mean square of D over all relabellings: $\sqrt{\mathrm{Tr}\,S_{tot}\,(1/n_+ + 1/n_-)}$, exactly.

    $S_{tot}$ is the covariance of all rows, labels ignored. Equal classes: $\sqrt{4\,\mathrm{Tr}\,S_{tot}/n}$.

    Args:
        states: All rows of the group.
        positives: Rows in the positive class, at least 1 and fewer than n.

    Reference:
        THEORY 5; the mean square of a difference of means under sampling without replacement.

    Example:
        >>> round(null_root_mean_square(np.array([[1.0], [1.0], [-1.0], [-1.0]]), 2), 6)  # D is 2, 0, 0, 0, 0 or 2
        1.154701
    """
    n = len(states)
    if not 0 < positives < n:
        raise DataError(f"the null level needs both classes, but {positives} of {n} rows are positive")
    return math.sqrt(covariance_trace(states) * (1 / positives + 1 / (n - positives)))


def cosine(first: Float[np.ndarray, " d"], second: Float[np.ndarray, " d"]) -> float:
    """Cosine of the angle between two vectors; NaN where one of them vanishes.

    Example:
        >>> cosine(np.array([1.0, 0.0]), np.array([3.0, 4.0]))
        0.6
    """
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(first @ second) / lengths if lengths > 0 else math.nan


# spread -------------------------------------------------------------------------------------------------------------


def covariance_trace(rows: Float[np.ndarray, "n d"]) -> float:
    r"""$\mathrm{Tr}\,S$ of the sample covariance, ddof 1. NaN for fewer than two rows.

    Example:
        >>> covariance_trace(np.array([[0.0, 0.0], [2.0, 4.0]]))
        10.0
    """
    n = len(rows)
    if n < 2:
        return math.nan
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    return float(np.vdot(centred, centred) / (n - 1))


def covariance_operator_norm(rows: Float[np.ndarray, "n d"]) -> float:
    r"""$\lVert S \rVert_{op}$ of the sample covariance, ddof 1, from the smaller of the d × d and the n × n matrix.

    NaN for fewer than two rows. This is "Concentration" in the published code (the larger of the two classes).

    Example:
        >>> round(covariance_operator_norm(np.array([[0.0, 0.0], [2.0, 4.0]])), 9)
        10.0
    """
    n = len(rows)
    if n < 2:
        return math.nan
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    return largest_square(centred) / (n - 1)


def largest_square(rows: Float[np.ndarray, "n d"]) -> float:
    """The square of the largest singular value, from the smaller Gram matrix, or Lanczos where both are large.

    Example:
        >>> largest_square(np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
        9.0
    """
    if not rows.any():
        return 0.0
    return max(0.0, PairKernel(answers=np.ones((len(rows), 1)), features=rows).largest_eigenvalue())


def effective_rank(rows: Float[np.ndarray, "n d"]) -> float:
    r"""$(\mathrm{Tr}\,S)^2 / \lVert S \rVert_F^2$: how many directions share the variance. Between 1 and min(n-1, d).

    NaN for fewer than two rows, or no variance.

    Example:
        >>> effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
        2.0
    """
    n, d = rows.shape
    if n < 2:
        return math.nan
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    total = float(np.vdot(centred, centred))
    if total <= 1e-24 * float(np.vdot(rows, rows)):
        return math.nan
    gram = centred @ centred.T if n <= d else centred.T @ centred
    return float(total**2 / np.vdot(gram, gram))


def fisher_ratio(states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> float:
    r"""$\lVert \Delta\mu \rVert^2 / (\mathrm{Tr}\,S_+ + \mathrm{Tr}\,S_-)$.

    NaN where a class has one row, or no class has variance.

    Example:
        >>> fisher_ratio(np.array([[1.0], [3.0], [0.0], [-2.0]]), np.array([True, True, False, False]))
        2.25
    """
    spread = covariance_trace(states[positive]) + covariance_trace(states[~positive])
    return distinguishability(states, positive) ** 2 / spread if spread > 0 else math.nan


def shared_norm_and_spread(
    states: Float[np.ndarray, "n d"], group: Int[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> tuple[float, float]:
    r"""$l_b$ and $v$ of the cluster model, after scaling so that the mean half-gap is 1.

    The model is $x \sim N(s\,c_k + b,\; v^2 I)$ with unit $c_k$: groups share the centre b. Plug-in: $\hat b$ is the
    mean of the groups' midpoints, $\hat c_k$ half of the gap, $\hat v^2$ the mean within-class variance per dimension.
    Groups in which a class has fewer than two rows are left out.

    Args:
        states: Rows of all groups.
        group: Which group each row is in.
        positive: Which class each row is in.

    Returns:
        $(l_b, v)$, both without unit. NaN where no group has two classes, or no gap.

    Reference:
        2408.03459, section 4 (the data model); THEORY 3.1.

    Example:
        >>> x = np.array([[3.0, 4], [3, 4], [-1, 4], [-1, 4]])  # half-gap 2, centre (1, 4)
        >>> lb, v = shared_norm_and_spread(x, np.zeros(4, int), np.array([True, True, False, False]))
        >>> round(lb, 6), v
        (2.061553, 0.0)
    """
    midpoints, halves, variances = [], [], []
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        first, second = states[rows[positive[rows]]], states[rows[~positive[rows]]]
        if min(len(first), len(second)) < 2:
            continue
        up, down = first.mean(axis=0, dtype=np.float64), second.mean(axis=0, dtype=np.float64)
        midpoints.append((up + down) / 2)
        halves.append(float(np.linalg.norm(up - down)) / 2)
        variances.append((covariance_trace(first) + covariance_trace(second)) / (2 * states.shape[1]))
    scale = float(np.mean(halves)) if halves else 0.0
    if scale == 0:
        return math.nan, math.nan
    return float(np.linalg.norm(np.mean(midpoints, axis=0))) / scale, math.sqrt(np.mean(variances)) / scale


def effective_size(rows: int, block: int, correlation: float) -> float:
    r"""$n/(1 + (m-1)\rho)$: independent rows that are worth as much to a mean as n rows in blocks of m.

    Args:
        rows: n, at least 1; a multiple of m, or many times it.
        block: m, the rows in a block, at least 1.
        correlation: $\rho$ of any two rows of one block, from 0 to 1; 1: copies.

    Returns:
        The variance of one row over the variance of the mean, between n/m and n.

    Raises:
        ConfigError: A count is below 1, or the correlation out of range.

    Reference:
        THEORY 5 (non-iid row); Kish's design effect.

    Example:
        >>> effective_size(100, 5, 1.0), effective_size(100, 5, 0.25)
        (20.0, 50.0)
    """
    n, m = at_least(rows, 1, name="rows"), at_least(block, 1, name="block")
    if not 0 <= correlation <= 1:
        raise ConfigError(f"correlation is {correlation!r}, but must lie between 0 and 1")
    return n / (1 + (m - 1) * correlation)


# exact rotations ----------------------------------------------------------------------------------------------------


def rotate_to_row_space(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
    """The same rows in min(n, d) coordinates: every inner product, and so every distance, is kept exactly.

    Example:
        >>> x = np.array([[3.0, 0, 4], [0, 1, 0]])
        >>> y = rotate_to_row_space(x)
        >>> y.shape, bool(np.allclose(y @ y.T, x @ x.T))
        ((2, 2), True)
    """
    n, d = rows.shape
    rows = rows.astype(np.float64, copy=False)
    if d <= n:
        return rows
    factor: Any = np.linalg.qr(rows.T, mode="r")
    return factor.T


def pair_coordinates(kernel: PairKernel) -> Float[np.ndarray, "n r"]:
    r"""Rows whose inner products are the margin kernel C, in as few columns as are at hand.

    p = 1: the signed features, rotated. p > 1: the flattened products $a_i \otimes g_i$ where p·d is no more than n,
    else a pivoted Cholesky factor of C.
    """
    n, p = kernel.answers.shape
    d = kernel.features.shape[1]
    answers = np.asarray(kernel.answers, dtype=np.float64)
    features = np.asarray(kernel.features, dtype=np.float64)
    if p == 1:
        return rotate_to_row_space(answers * features)
    if p * d <= n:
        return (answers[:, :, None] * features[:, None, :]).reshape(n, p * d)
    gram = (answers @ answers.T) * (features @ features.T)
    (pivoted_cholesky,) = get_lapack_funcs(("pstrf",), (gram,))
    factor, pivots, rank, _ = pivoted_cholesky(gram, lower=1)
    rows = np.empty((n, rank))
    rows[pivots - 1] = np.tril(factor)[:, :rank]
    return rows


# Gaussian divergence ------------------------------------------------------------------------------------------------


def ledoit_wolf_shrinkage(
    centred: Float[np.ndarray, "n r"], width: int, *, gram: Float[np.ndarray, "k k"] | None = None
) -> float:
    r"""Ledoit-Wolf's weight of the target $\mu I$ in $(1-\lambda) S + \lambda \mu I$, $\mu = \mathrm{Tr}\,S/d$.

    Depends on the rows through inner products only, so rows may come rotated into fewer columns than `width`.

    Args:
        centred: Rows with their mean taken away; S = centredᵀ centred / n.
        width: The dimension d of the space in which the covariance lives, at least r.
        gram: The smaller of both Gram matrices of the rows, where it is known.

    Returns:
        λ in [0, 1].

    Reference:
        Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices", as in
        `sklearn.covariance.ledoit_wolf_shrinkage`.

    Example:
        >>> x = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
        >>> round(ledoit_wolf_shrinkage(x, 2), 4)
        0.9444
    """
    n, r = centred.shape
    squares = np.einsum("ij,ij->i", centred, centred)
    mean_variance = squares.sum() / n / width
    if gram is None:
        gram = centred @ centred.T if n <= r else centred.T @ centred
    squared_norm = float(np.vdot(gram, gram)) / n**2
    noise = ((squares**2).sum() / n - squared_norm) / n
    distance = squared_norm - width * mean_variance**2
    if min(noise, distance) <= 0:
        return 0.0
    return min(float(noise / distance), 1.0)


def gaussian_divergence(
    centred: Float[np.ndarray, "n r"], gap: Float[np.ndarray, " r"], width: int
) -> tuple[float, float]:
    r"""$\tfrac12 \Delta\mu^\top \Sigma^{-1} \Delta\mu$ in nats, with one shared, shrunk covariance.

    The Kullback-Leibler divergence between two Gaussians with that covariance, the same in both directions. Rows
    and gap may come rotated together into r < d columns: the shrunk covariance acts on the rest as a multiple of I.

    Args:
        centred: Rows of both classes, each with its class mean taken away.
        gap: $\Delta\mu$, in the same coordinates.
        width: The dimension d of the original space.

    Returns:
        The divergence, and the Ledoit-Wolf shrinkage that was used. The divergence is NaN where the covariance is
        singular even after shrinkage.

    Reference:
        THEORY 5.

    Example:
        >>> x = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])  # S = I/2
        >>> divergence, shrinkage = gaussian_divergence(x, np.array([2.0, 0.0]), 2)
        >>> round(divergence, 9), shrinkage
        (4.0, 0.0)
    """
    n, r = centred.shape
    products = centred.T @ centred
    shrinkage = ledoit_wolf_shrinkage(centred, width, gram=products if n > r else None)
    target = float(np.vdot(centred, centred)) / n / width
    covariance = (1 - shrinkage) / n * products
    covariance.flat[:: r + 1] += shrinkage * target
    try:
        factor = cho_factor(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return math.nan, shrinkage
    if np.diagonal(factor[0]).min() < 1e-7 * np.diagonal(factor[0]).max():
        return math.nan, shrinkage
    return float(gap @ cho_solve(factor, gap, check_finite=False)) / 2, shrinkage


# tails --------------------------------------------------------------------------------------------------------------


def psi_norm(values: Float[np.ndarray, " n"], alpha: float) -> float:
    r"""Plug-in sub-exponential norm: the t with $\frac1n \sum_i \exp((|x_i|/t)^\alpha) = 2$.

    The root lies between $M/(\log 2n)^{1/\alpha}$ and $M/(\log 2)^{1/\alpha}$, $M = \max |x_i|$. The ends are tested
    first: for one value, or equal ones, the root is an end.

    Args:
        values: A sample, at least one value.
        alpha: In (0, 2]; 2 is sub-Gaussian, 1 sub-exponential.

    Returns:
        The norm, in the unit of the values; 0 where all are 0. Biased low for α = 2 on Gaussian data.

    Raises:
        DataError: No value, or one that is not finite.
        ConfigError: alpha is out of range.

    Reference:
        THEORY 1.7; the definition in 2403.18742, section 4.

    Example:
        >>> round(psi_norm(np.array([1.0, -2.0, 0.5]), 1), 9)
        1.839782565
    """
    if alpha != 2:
        between(alpha, 0, 2, name="alpha")
    if len(values) == 0:
        raise DataError("psi_norm was given 0 values; give at least one")
    sizes = np.abs(finite(np.asarray(values, dtype=np.float64), name="values", fix="leave such rows out"))
    largest = float(sizes.max())
    if largest == 0:
        return 0.0
    scaled = sizes / largest

    def excess(t: float) -> float:
        return float(np.mean(np.exp((scaled / t) ** alpha))) - 2.0

    low, high = math.log(2 * len(sizes)) ** (-1 / alpha), math.log(2) ** (-1 / alpha)
    if excess(high) >= 0:
        return largest * high
    if excess(low) <= 0:
        return largest * low
    root: Any = brentq(excess, low, high, xtol=1e-15)
    return largest * float(root)


# priority -----------------------------------------------------------------------------------------------------------

_CANCELLED = 1e-12
"""Rounding leaves a little of a mean that cancels; a mean this much shorter than its parts has no direction."""


def priority_levels(
    gram: Float[np.ndarray, "m m"], mass: Float[np.ndarray, " m"], *, noise: float = _CANCELLED
) -> Float[np.ndarray, " m"]:
    r"""How much of the first joint step serves each group.

    $P_i = \bar b \cdot b_i / (\lVert \bar b \rVert \max_k \lVert b_k \rVert)$ with
    $\bar b = \sum_k m_k b_k / \sum_k m_k$. Needs the inner products $b_i \cdot b_k$ only.

    Args:
        gram: $b_i \cdot b_k$ of the groups' pulls: mean gaps, weighted gaps, or mean pair features.
        mass: Weight $m_k \ge 0$ of each group, such as its number of pairs.
        noise: A mean below this share of its parts' lengths counts as cancelled: 1e-12 for float64, 1e-5 for float32.

    Returns:
        Levels in [-1, 1], without unit. All NaN where the pulls cancel or none pulls.

    Reference:
        2403.18742, Eq. 5; weighted as in THEORY 2.6.

    Example:
        >>> b = np.array([[3.0, 0], [0, 1], [-1, 2]])
        >>> priority_levels(b @ b.T, np.ones(3)).round(6).tolist()
        [0.5547, 0.27735, 0.3698]
    """
    shares = mass / mass.sum()
    return levels_along(gram @ shares, np.diag(gram), shares, float(shares @ gram @ shares), noise=noise)


def levels_along(
    along: Float[np.ndarray, " m"],
    squares: Float[np.ndarray, " m"],
    shares: Float[np.ndarray, " m"],
    square: float,
    *,
    noise: float = _CANCELLED,
) -> Float[np.ndarray, " m"]:
    r"""`priority_levels` without the matrix of all inner products: what it takes of it grows with m, not with m².

    Args:
        along: $b_i \cdot \bar b$.
        squares: $\lVert b_i \rVert^2$.
        shares: $m_k$ over their sum.
        square: $\lVert \bar b \rVert^2$.
        noise: As for `priority_levels`.

    Example:
        >>> b = np.array([[3.0, 0], [0, 1], [-1, 2]])
        >>> mean = b.mean(axis=0)
        >>> levels_along(b @ mean, (b**2).sum(axis=1), np.full(3, 1 / 3), mean @ mean).round(6).tolist()
        [0.5547, 0.27735, 0.3698]
    """
    lengths = np.sqrt(np.maximum(squares, 0.0))
    if square <= (noise * float(shares @ lengths)) ** 2:
        return np.full(len(along), np.nan)
    return np.clip(along / (math.sqrt(square) * lengths.max()), -1.0, 1.0)


def priority_gaps(
    gram: Float[np.ndarray, "m m"], mass: Float[np.ndarray, " m"], *, noise: float = _CANCELLED
) -> Float[np.ndarray, "m m"]:
    r"""Level of i minus level of j (`priority_levels`) where only these two train together, for every two groups.

    Args:
        gram: $b_i \cdot b_k$, as for `priority_levels`.
        mass: Weight of each group.
        noise: As for `priority_levels`.

    Returns:
        An antisymmetric matrix without unit; NaN where two pulls cancel.

    Reference:
        2403.18742, section 5.1 (pairs of behaviours); THEORY 2.6.

    Example:
        >>> b = np.array([[3.0, 0], [0, 1]])
        >>> priority_gaps(b @ b.T, np.ones(2)).round(6).tolist()
        [[0.0, 0.843274], [-0.843274, 0.0]]
    """
    squares = np.diag(gram)
    total = mass[:, None] + mass[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        own, other = mass[:, None] / total, mass[None, :] / total
        along_own = own * squares[:, None] + other * gram
        along_other = own * gram + other * squares[None, :]
        square = own**2 * squares[:, None] + other**2 * squares[None, :] + 2 * own * other * gram
        lengths = np.sqrt(np.maximum(squares, 0.0))
        largest = np.maximum(lengths[:, None], lengths[None, :])
        gaps = (along_own - along_other) / (np.sqrt(np.maximum(square, 0.0)) * largest)
    gaps[~(square > (noise * largest) ** 2)] = np.nan
    return gaps
