"""Clusters drawn from the model of value scaling, and their margins by an ODE solver that knows no formula."""

import math

import numpy as np
from scipy.integrate import solve_ivp


def answers(pattern, values):
    """The two tokens of each value: `distinct`, `common` (one token in all), `ring` (each shared with the next)."""
    match pattern:
        case "distinct":
            return [(2 * k, 2 * k + 1) for k in range(values)]
        case "common":
            return [(0, k + 1) if k % 2 else (k + 1, 0) for k in range(values)]
        case "ring":
            return [(k, (k + 1) % values) for k in range(values)]
        case _:
            return [(0, 1)] * values


def clusters(seed, *, values, per_cluster, width, noise, shared_norm, tokens, directions=None):
    """Features, chosen and rejected tokens of all 2KQ pairs, cluster by cluster."""
    rng = np.random.default_rng(seed)
    offset = shared_norm * np.eye(width)[0]
    directions = np.eye(width)[1 : values + 1] if directions is None else directions
    states, chosen, rejected = [], [], []
    for k in range(values):
        for sign in (1, -1):
            for _ in range(per_cluster):
                states.append(sign * directions[k] + offset + noise * rng.normal(size=width))
                won, lost = tokens[k] if sign > 0 else tokens[k][::-1]
                chosen.append(won)
                rejected.append(lost)
    return np.array(states), np.array(chosen), np.array(rejected)


def pull(margin, objective="sigmoid"):
    """-f'(r) of one margin."""
    if objective == "gpo_ipo":
        return 2 * (1 - margin)
    if objective == "hinge":
        return 1.0 if margin < 1 else 0.0
    return 1 / (1 + math.exp(margin)) if margin > -700 else 1.0


def margin_flow(kernel, *, beta, times, tau=1.0, start=0.0, objective="sigmoid"):
    """tau dr/dt = (beta^2/n) C h(r), one row of margins per time; times begin at 0."""
    n = len(kernel)

    def rates(_, margins):
        pulls = np.array([pull(r, objective) for r in margins])
        return beta**2 / (n * tau) * (kernel @ pulls)

    found = solve_ivp(
        rates, (0.0, times[-1]), np.full(n, float(start)), t_eval=times, method="DOP853", rtol=1e-11, atol=1e-12
    )
    assert found.success, found.message
    return found.y.T
