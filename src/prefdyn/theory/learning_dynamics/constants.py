r"""Constants: the numbers through which the theorems on last-layer training see a dataset of two-answer pairs."""

import math
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float

from prefdyn._arrays import finite
from prefdyn._checks import at_least
from prefdyn._checks import positive as check_positive
from prefdyn.errors import ConfigError
from prefdyn.maths import geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    r"""What a dataset, or the two distributions that it came from, looks like to the theorems.

    `constants` measures all of it in a sample ("plug-in"). With known distributions give their numbers instead; the
    three that only a sample has may stay NaN. The difference matters: the published theorems speak of the *true* gap
    $\lVert \mu_+ - \mu_- \rVert$, which where d/n is large is far below the measured one.

    Example:
        >>> c = Constants(n_plus=20, n_minus=20, width=4096, gap=1.0, weighted_gap=1.0, trace_plus=4096.0,
        ...               trace_minus=4096.0, op_norm=1.0, radius=64.5)
        >>> c.n, c.exponent, c.c_v, c.gamma
        (40, 0.0, 0.015625, 0.625)
        >>> round(c.noise, 3)  # how far the measured gap is from the true one: twenty times its length
        20.239
    """

    n_plus: int
    """Pairs with the first answer chosen ($s = +1$)."""
    n_minus: int
    """Pairs with the second answer chosen ($s = -1$)."""
    width: int
    """Dimension d of the states."""
    gap: float
    r"""$D = \lVert \mu_+ - \mu_- \rVert$."""
    weighted_gap: float
    r"""$\lVert b_w \rVert$ with $b_w = \frac2n \sum_i s_i g_i$, or in distribution
    $\lVert 2 (p_+ \mu_+ - p_- \mu_-) \rVert$; D where the classes are equal."""
    trace_plus: float
    r"""$\mathrm{Tr}\,\Sigma_+$, ddof 1 in a sample; NaN where the class has one row."""
    trace_minus: float
    r"""$\mathrm{Tr}\,\Sigma_-$."""
    op_norm: float
    r"""$\max_\pm \lVert \Sigma_\pm \rVert_{op}$."""
    radius: float
    r"""$\max_\pm \big( \lVert \mu_\pm \rVert + \sqrt{\mathrm{Tr}\,\Sigma_\pm} \big)$."""
    largest_norm: float = math.nan
    r"""$\max_i \lVert g_i \rVert$ in the sample."""
    mean_norm: float = math.nan
    r"""$\frac1n \sum_i \lVert g_i \rVert$ in the sample."""
    smoothness: float = math.nan
    r"""$\lambda_{\max}(G^\top G / n)$ in the sample: curvature of the loss up to $\beta^2$."""

    def __post_init__(self) -> None:
        for name in ("n_plus", "n_minus", "width"):
            at_least(getattr(self, name), 1, name=name)
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value < 0:
                raise ConfigError(f"{field.name} is {value!r}, but is a length or a variance; give 0 or more")

    @property
    def n(self) -> int:
        """Pairs in all."""
        return self.n_plus + self.n_minus

    @property
    def exponent(self) -> float:
        r"""$\Delta = \log D / \log d$. $-\infty$ for D = 0, NaN for d = 1."""
        return geometry.distinguishability_exponent(self.gap, self.width)

    @property
    def noise(self) -> float:
        r"""$\sqrt{\mathrm{Tr}\,\Sigma_+/n_+ + \mathrm{Tr}\,\Sigma_-/n_-}$: rms error of the measured gap."""
        return math.sqrt(self.trace_plus / self.n_plus + self.trace_minus / self.n_minus)

    @property
    def class_noise(self) -> float:
        r"""$\max_\pm \sqrt{\mathrm{Tr}\,\Sigma_\pm / n_\pm}$: rms error of the worse class mean."""
        return float(np.sqrt(np.max([self.trace_plus / self.n_plus, self.trace_minus / self.n_minus])))

    @property
    def weighted_noise(self) -> float:
        r"""$\sqrt{\tfrac4n (p_+ \mathrm{Tr}\,\Sigma_+ + p_- \mathrm{Tr}\,\Sigma_-)}$: rms error of $b_w$."""
        return 2 / self.n * math.sqrt(self.n_plus * self.trace_plus + self.n_minus * self.trace_minus)

    @property
    def c_v(self) -> float:
        r"""The smallest $c_v$ with $\lVert \Sigma_\pm \rVert_{op} \le c_v \sqrt d$."""
        return self.op_norm / math.sqrt(self.width)

    @property
    def c_n(self) -> float:
        r"""The smallest $c_n$ with $\lVert \mu_\pm \rVert + \sqrt{\mathrm{Tr}\,\Sigma_\pm} \le c_n \sqrt d$."""
        return self.radius / math.sqrt(self.width)

    @property
    def c_n_scaled(self) -> float:
        r"""$c_n' = c_n d^{1/2 - \Delta}$, the radius in units of the gap; infinite for D = 0. At least 1/2."""
        return self.radius / self.gap if self.gap > 0 else math.inf

    @property
    def gamma(self) -> float:
        r"""$\gamma = n / \sqrt d$, with n the number of pairs of both classes."""
        return self.n / math.sqrt(self.width)

    def scaled_beta(self, beta: float) -> float:
        r"""$\beta' = \beta \sqrt d$."""
        return check_positive(beta, name="beta") * math.sqrt(self.width)


def constants(states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> Constants:
    r"""Measure the constants of the theorems in a sample. Covariances have ddof 1.

    Never forms a d × d matrix where there are fewer rows than columns.

    Args:
        states: Final hidden state of each prompt.
        positive: Where the first answer is the chosen one.

    Returns:
        The plug-in constants. What needs a class covariance is NaN where a class has one row.

    Raises:
        DataError: One class is empty, or a state is not finite.

    Reference:
        2403.18742, section 4.1 and the conditions of Theorems 4.1 and 4.2; THEORY 2.1.

    Example:
        >>> c = constants(np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), np.array([True, True, False, False]))
        >>> round(c.gap, 6), round(c.weighted_gap, 6), round(c.smoothness, 6)
        (2.236068, 2.236068, 1.707107)
    """
    states = finite(np.asarray(states, dtype=np.float64), name="states", fix="leave such rows out")
    gap = geometry.distinguishability(states, positive)
    n = len(states)
    classes = [states[positive], states[~positive]]
    traces = [geometry.covariance_trace(rows) for rows in classes]
    lengths = [float(np.linalg.norm(rows.mean(axis=0))) for rows in classes]
    norms = np.linalg.norm(states, axis=1)
    return Constants(
        n_plus=len(classes[0]),
        n_minus=len(classes[1]),
        width=states.shape[1],
        gap=gap,
        weighted_gap=float(np.linalg.norm(np.where(positive, 2.0, -2.0) @ states)) / n,
        trace_plus=traces[0],
        trace_minus=traces[1],
        op_norm=float(np.max([geometry.covariance_operator_norm(rows) for rows in classes])),
        radius=float(np.max([length + math.sqrt(trace) for length, trace in zip(lengths, traces, strict=True)])),
        largest_norm=float(norms.max()),
        mean_norm=float(norms.mean()),
        smoothness=geometry.largest_square(states) / n,
    )


def subexponential_norm(
    states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"], alpha: float = 2.0
) -> float:
    r"""K of the model $\mathcal E_\alpha(\mu, \Sigma, K)$: the largest $\psi_\alpha$ norm of a whitened coordinate.

    Each class is whitened by its own covariance; directions with less than 1e-10 of the largest variance are dropped.
    The model also asks for independent coordinates, which no sample can show: report K, do not rely on it. Where a
    class has no more rows than columns the whitened rows are orthonormal whatever the data, and K says little.

    Args:
        states: Final hidden state of each prompt.
        positive: Where the first answer is the chosen one.
        alpha: Tail exponent in (0, 2]; 2 is sub-Gaussian. Biased low for 2 (`geometry.psi_norm`).

    Returns:
        K without unit; standard normal coordinates have 1.633 for α = 2 and 1.372 for α = 1. NaN where no class
        varies.

    Raises:
        DataError: One class is empty, or a state is not finite.
        ConfigError: alpha is out of range.

    Reference:
        2403.18742, section 4.1; THEORY 1.7.

    Example:
        >>> x = np.array([[1.0], [-1], [1], [-1], [5], [3]])
        >>> round(subexponential_norm(x, np.arange(6) < 4, 1.0), 6)  # ±1 whitened with ddof 1: ±sqrt(3)/2
        1.249411
    """
    geometry.mean_gap(states, positive)
    states = finite(np.asarray(states, dtype=np.float64), name="states", fix="leave such rows out")
    found = math.nan
    for rows in (states[positive], states[~positive]):
        centred = geometry.rotate_to_row_space(rows - rows.mean(axis=0))
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        rounding = 1e-24 * float(np.vdot(rows, rows))
        kept = singular**2 > max(1e-10 * float(singular[0]) ** 2, rounding)
        for column in left[:, kept].T * math.sqrt(max(len(rows) - 1, 0)):
            norm = geometry.psi_norm(column, alpha)
            found = norm if math.isnan(found) else max(found, norm)
    return found
