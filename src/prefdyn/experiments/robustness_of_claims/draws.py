r"""Rows that are not independent of each other: how many independent ones they are worth, and what that does to means.

`prefdyn.synthetic.Dependence` says how rows hang together. Here real rows are drawn in that way, each with the same law
as before, and Gaussian classes are, to hold the published and the repaired bound on weight change against both.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest

from prefdyn.dynamics.descent import descent
from prefdyn.experiments.sides import sides
from prefdyn.maths.geometry import effective_size
from prefdyn.maths.objectives import DPO
from prefdyn.synthetic import Dependence, gaussian_groups
from prefdyn.theory.learning_dynamics import (
    Constants,
    constants,
    drift_bound,
    published_drift_bound,
    published_step_limit,
)


def worth(dependence: Dependence, rows: int) -> float:
    r"""How many independent rows are worth as much to a mean.

    Blocks: $n/(1 + (m-1)\rho)$. Chain: $n / (1 + 2 \sum_{k=1}^{n-1} (1 - k/n) \rho^k)$, exactly.

    Args:
        dependence: How they hang together.
        rows: n; for blocks a multiple of their size.

    Reference:
        THEORY 5 (non-iid row).

    Example:
        >>> worth(Dependence(size=4, correlation=1.0), 8), worth(Dependence(kind="chain", correlation=0.5), 2)
        (2.0, 1.3333333333333333)
    """
    if dependence.kind == "blocks":
        return effective_size(rows, dependence.size, dependence.correlation)
    lags = np.arange(1, rows)
    return rows / (1 + 2 * float(np.sum((1 - lags / rows) * dependence.correlation**lags)))


def drawn(dependence: Dependence, rows: int, population: int, rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    r"""Row numbers of a population, each equally likely, that hang together so.

    Blocks: a row is its block's with chance $\sqrt\rho$, so two of a block are the same with chance $\rho$. Chain: a
    row is the last one again with chance $\rho$.

    Example:
        >>> first, second = drawn(Dependence(size=2, correlation=1.0), 2, 100, np.random.default_rng(0)).tolist()
        >>> first == second
        True
    """
    own = rng.integers(population, size=rows)
    if dependence.kind == "chain":
        fresh = rng.random(rows) >= dependence.correlation
        fresh[0] = True
        return own[np.maximum.accumulate(np.where(fresh, np.arange(rows), 0))]
    shared = rng.integers(population, size=-(-rows // dependence.size)).repeat(dependence.size)[:rows]
    return np.where(rng.random(rows) < math.sqrt(dependence.correlation), shared, own)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanError:
    """Squares of what a sample of dependent rows gets wrong, means over draws, and what theory says of them."""

    error: float
    r"""$\lVert \hat\mu - \mu \rVert^2$, mean over both classes."""
    predicted: float
    r"""$\mathrm{Tr}\,\Sigma / n_{\mathrm{eff}}$, with the covariance of the population, ddof 0."""
    independent: float
    r"""$\mathrm{Tr}\,\Sigma / n$: as if the rows were independent."""
    distance: float
    r"""$\hat D^2$."""
    predicted_distance: float
    true_distance: float


def mean_error(
    first: Float[np.ndarray, "a d"],
    second: Float[np.ndarray, "b d"],
    dependence: Dependence,
    *,
    rows: int,
    draws: int,
    rng: np.random.Generator,
) -> MeanError:
    """Draw rows of two classes again and again, and compare their means with those of all rows.

    Args:
        first: All rows of one class: the population.
        second: Those of the other.
        dependence: How the rows of a draw hang together.
        rows: Rows of a draw, in each class.
        draws: How many.
        rng: Decides the draws.
    """
    classes = [states - states.mean(axis=0) for states in (first, second)]
    gap = first.mean(axis=0) - second.mean(axis=0)
    spread = [float(np.vdot(states, states)) / len(states) for states in classes]
    errors, distances = [], []
    for _ in range(draws):
        off = [states[drawn(dependence, rows, len(states), rng)].mean(axis=0) for states in classes]
        errors += [float(each @ each) for each in off]
        moved = gap + off[0] - off[1]
        distances.append(float(moved @ moved))
    effective = worth(dependence, rows)
    square = float(gap @ gap)
    return MeanError(
        error=float(np.mean(errors)),
        predicted=float(np.mean(spread)) / effective,
        independent=float(np.mean(spread)) / rows,
        distance=float(np.mean(distances)),
        predicted_distance=square + sum(spread) / effective,
        true_distance=square,
    )


# the counterexample to Theorem 4.1 -----------------------------------------------------------------------------------

WIDTH, PAIRS = 4096, 40
BETA = 1 / 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Violations:
    """Draws of Gaussian classes, each trained for some steps, against two bounds on the weight change."""

    copies: int
    """Of each row; 1: independent rows."""
    draws: int
    published: int
    """Draws above the bound of Theorem 4.1 at the first step."""
    stated: float
    """The chance of that, as the theorem has it."""
    repaired: float
    """Largest weight change over the repaired bound, over draws and steps."""
    excess: float
    """Mean weight change over the published bound, first step."""


def violations(copies: int, *, draws: int, steps: int) -> Violations:
    r"""Classes one apart with identity covariances in 4,096 dimensions, 20 rows each: where Theorem 4.1 fails.

    Every condition of the theorem but independence holds by construction, and that too for one copy of each row.

    Args:
        copies: Of each row; must divide 20.
        draws: Samples, each with a seed of its own.
        steps: Full-batch steps of each run.

    Reference:
        2403.18742, Theorem 4.1; THEORY 2.2 (X-2) and 2.3.
    """
    truth = Constants(
        n_plus=PAIRS // 2, n_minus=PAIRS // 2, width=WIDTH, gap=1.0, weighted_gap=1.0, trace_plus=float(WIDTH),
        trace_minus=float(WIDTH), op_norm=1.0, radius=0.5 + math.sqrt(WIDTH),
    )  # fmt: skip
    rate = published_step_limit(truth.radius, beta=BETA)
    published = published_drift_bound(truth, beta=BETA, learning_rate=rate, steps=1)
    first, shares = [], []
    for seed in range(draws):
        feats = gaussian_groups(
            PAIRS, groups=1, width=WIDTH, half_gap=0.5, dependence=Dependence(size=copies, correlation=1.0),
            held_out=0.0, seed=seed,
        )  # fmt: skip
        found = constants(*sides(feats))
        run = descent(feats, DPO(beta=BETA), learning_rate=rate, steps=steps)
        walked, drift = run.curve("drift", group=feats.groups[0])
        first.append(float(drift[walked == 1][0]))
        shares += [
            size / drift_bound(found, beta=BETA, learning_rate=rate, steps=step).value
            for step, size in zip(walked[1:].tolist(), drift[1:].tolist(), strict=True)
        ]
    return Violations(
        copies=copies,
        draws=draws,
        published=sum(size > published.value for size in first),
        stated=min(1.0, published.failure),
        repaired=max(shares),
        excess=float(np.mean(first)) / published.value,
    )


def at_least_share(count: int, of: int) -> float:
    """Lower end of the exact one-sided 95 % interval of a share.

    Reference:
        Clopper and Pearson (1934).

    Example:
        >>> at_least_share(0, 20), round(at_least_share(20, 20), 4)  # 0.05 ** (1 / 20)
        (0.0, 0.8609)
    """
    return float(binomtest(count, of, alternative="greater").proportion_ci(0.95, method="exact").low)
