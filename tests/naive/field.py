"""The DPO loss of one pair from its definition, by complex steps and SciPy's integrator; and steps of real heads."""

import math
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

STEP = 1e-30


def loss(x1, x2, beta):
    """Minus the log of x1^beta over the sum of both powers, divided out: complex steps keep their digits. Overflows."""
    return np.log(1 + x2**beta / x1**beta)


def partials(function, point):
    """Derivatives by complex steps, exact to rounding: no difference of nearly equal numbers is formed."""
    found = []
    for place in range(len(point)):
        moved = np.array(point, dtype=complex)
        moved[place] += 1j * STEP
        found.append(function(moved).imag / STEP)
    return np.array(found)


def loss_in(coordinates, beta, references):
    """The loss as a function of the two numbers that flow (three logits for a softmax with one token for the rest)."""
    ref_w, ref_l = references

    def ratios(u):
        if coordinates == "ratios":
            return u[0], u[1]
        if coordinates == "probabilities":
            return u[0] / ref_w, u[1] / ref_l
        if coordinates == "log-ratios":
            return np.exp(u[0]), np.exp(u[1])
        total = np.exp(u).sum()
        return np.exp(u[0]) / total / ref_w, np.exp(u[1]) / total / ref_l

    return ratios, lambda u: loss(*ratios(u), beta)


def begin(coordinates, start, references):
    """The start (x1, x2) in those coordinates."""
    x1, x2 = start
    ref_w, ref_l = references
    return {
        "ratios": [x1, x2],
        "probabilities": [x1 * ref_w, x2 * ref_l],
        "log-ratios": [math.log(x1), math.log(x2)],
        "logits": [math.log(x1 * ref_w), math.log(x2 * ref_l), math.log(max(1 - x1 * ref_w - x2 * ref_l, 1e-300))],
    }[coordinates]


def flow(coordinates, *, ratio, beta, start=(1.0, 1.0), references=(0.1, 0.1)):
    """Gradient flow until x1/x2 is `ratio`: time, the flowing numbers at about 50 moments, and (x1, x2) at the end."""
    ratios, value = loss_in(coordinates, beta, references)

    def reached(_, u):
        x1, x2 = ratios(u)
        return math.log(x1 / x2) - math.log(ratio)

    event: Any = reached
    event.terminal = True
    found = solve_ivp(
        lambda _, u: -partials(value, u),
        (0, 1e6),
        begin(coordinates, start, references),
        method="DOP853",
        events=event,
        rtol=1e-11,
        atol=1e-13,
        max_step=0.5 / beta,
    )
    assert found.status == 1
    return found.t[-1], found.y.T, ratios(found.y[:, -1])


def log_softmax(logits):
    top = max(z.real for z in logits)
    return logits - top - np.log(np.exp(logits - top).sum())


def head_step(weights, states, chosen, rejected, beta, size):
    """Change of every pair's two log-probabilities in one step of gradient descent on the mean DPO loss of a head."""
    n = len(states)
    start = [log_softmax(weights @ g) for g in states]

    def mean_loss(flat):
        matrix = flat.reshape(weights.shape)
        total = 0.0
        for i in range(n):
            now = log_softmax(matrix @ states[i])
            margin = beta * ((now - start[i])[chosen[i]] - (now - start[i])[rejected[i]])
            total = total + np.log(1 + np.exp(-margin)) / n
        return total

    gradient = partials(mean_loss, weights.ravel()).reshape(weights.shape)
    change = [log_softmax((weights - size * gradient) @ g) - s for g, s in zip(states, start, strict=True)]
    picked = [(now[w], now[token]) for now, w, token in zip(change, chosen, rejected, strict=True)]
    return np.array(picked)


def state_rates(head, state, chosen, rejected, size=1e-7):
    """Changes of the two log-probabilities per unit when the hidden state moves along W_w - W_l, by central steps."""
    direction = head[chosen] - head[rejected]
    up, down = (log_softmax(head @ (state + sign * size * direction)) for sign in (1, -1))
    return ((up - down) / (2 * size))[[chosen, rejected]]
