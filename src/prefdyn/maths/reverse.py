r"""One step of an optimizer, backwards: from what a number depends on after the step to what it depends on before.

Reverse mode by hand. If $\bar x$ is the derivative of some final number in $x$, a step
$(w, g, m) \mapsto (w', m')$ with rate $\eta$ takes $(\bar w', \bar m')$ back to $(\bar w, \bar g, \bar m, \bar\eta)$.
Everything is differentiated, Adam's and RMSprop's denominators too. T final numbers go back at once: cotangents have a
leading axis of T, the values of the one run a leading axis of 1.
"""

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from prefdyn.maths.optimizers import SGD, Adam, Optimizer, RMSprop, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """Derivatives of T numbers in what a step was given."""

    weights: Any
    """(T, …)."""
    gradient: Any
    """(T, …)."""
    memory: State
    """(T, …) each."""
    rate: Any
    """(T,)."""


def step_back(
    optimizer: Optimizer,
    weights: Any,
    gradient: Any,
    memory: State,
    *,
    rate: float,
    step: int,
    after: Any,
    memory_after: State,
) -> Before:
    r"""`optimizer.update`, backwards.

    Args:
        optimizer: Which.
        weights: (1, …) weights that the step was given.
        gradient: (1, …) gradient that it was given.
        memory: Memory that it was given.
        rate: Learning rate $\eta$ of the step.
        step: Number of the step, from 0.
        after: (T, …) derivatives in the weights after the step.
        memory_after: (T, …) derivatives in the memory after the step.

    Example:
        >>> import numpy as np
        >>> one = np.ones((1, 2))
        >>> found = step_back(SGD(), one, 3 * one, (), rate=0.1, step=0, after=one, memory_after=())
        >>> found.gradient.tolist(), found.rate.tolist()
        ([[-0.1, -0.1]], [-6.0])
    """
    decay = float(optimizer.weight_decay)
    decoupled = isinstance(optimizer, Adam) and optimizer.name == "adamw"
    pulled = gradient + decay * weights if decay and not decoupled else gradient
    match optimizer:
        case SGD():
            moved, to_gradient, to_memory = _sgd(optimizer, pulled, memory, rate, step, after, memory_after)
        case Adam():
            moved, to_gradient, to_memory = _adam(optimizer, pulled, memory, rate, step, after, memory_after)
        case RMSprop():
            moved, to_gradient, to_memory = _rmsprop(optimizer, pulled, memory, rate, after, memory_after)
    to_weights = after
    if decay and decoupled:
        moved = moved + decay * weights
        to_weights = (1 - rate * decay) * after
    elif decay:
        to_weights = after + decay * to_gradient
    return Before(weights=to_weights, gradient=to_gradient, memory=to_memory, rate=-_totals(after * moved))


def _sgd(
    optimizer: SGD, gradient: Any, memory: State, rate: float, step: int, after: Any, memory_after: State
) -> tuple[Any, Any, State]:
    if not optimizer.momentum:
        return gradient, -rate * after, ()
    velocity = gradient if step == 0 else optimizer.momentum * memory[0] + gradient
    to_moved = -rate * after
    if optimizer.nesterov:
        moved = gradient + optimizer.momentum * velocity
        to_velocity = memory_after[0] + optimizer.momentum * to_moved
        to_gradient = to_velocity + to_moved
    else:
        moved, to_velocity = velocity, memory_after[0] + to_moved
        to_gradient = to_velocity
    carried = 0.0 if step == 0 else optimizer.momentum
    return moved, to_gradient, (carried * to_velocity,)


def _adam(
    optimizer: Adam, gradient: Any, memory: State, rate: float, step: int, after: Any, memory_after: State
) -> tuple[Any, Any, State]:
    xp = array_namespace(gradient)
    first, second = optimizer.betas
    mean = memory[0] + (1 - first) * (gradient - memory[0])
    square = second * memory[1] + (1 - second) * gradient * gradient
    grown = math.sqrt(1 - second ** (step + 1))
    root = xp.sqrt(square) / grown + optimizer.eps
    share = 1 / (1 - first ** (step + 1))
    moved = share * mean / root
    to_mean = memory_after[0] - (rate * share) * after / root
    to_root = rate * after * moved / root
    to_square = memory_after[1] + _over(xp, to_root, 2 * grown * xp.sqrt(square))
    to_gradient = (1 - first) * to_mean + 2 * (1 - second) * gradient * to_square
    return moved, to_gradient, (first * to_mean, second * to_square)


def _rmsprop(
    optimizer: RMSprop, gradient: Any, memory: State, rate: float, after: Any, memory_after: State
) -> tuple[Any, Any, State]:
    xp = array_namespace(gradient)
    square = optimizer.alpha * memory[0] + (1 - optimizer.alpha) * gradient * gradient
    root = xp.sqrt(square) + optimizer.eps
    quotient = gradient / root
    to_quotient, moved, rest = -rate * after, quotient, ()
    if optimizer.momentum:
        moved = optimizer.momentum * memory[1] + quotient
        to_quotient = memory_after[1] + to_quotient
        rest = (optimizer.momentum * to_quotient,)
    to_root = -to_quotient * quotient / root
    to_square = memory_after[0] + _over(xp, to_root, 2 * xp.sqrt(square))
    to_gradient = to_quotient / root + 2 * (1 - optimizer.alpha) * gradient * to_square
    return moved, to_gradient, (optimizer.alpha * to_square, *rest)


def _over(xp: Any, values: Any, divisor: Any) -> Any:
    """Quotients; 0 where the divisor is 0, which is where no gradient was ever seen."""
    none = divisor == 0
    return xp.where(none, xp.zeros_like(divisor), values / xp.where(none, xp.ones_like(divisor), divisor))


def _totals(values: Any) -> Any:
    """Sums over all axes but the first."""
    xp = array_namespace(values)
    return xp.sum(xp.reshape(values, (values.shape[0], -1)), axis=1)
