"""Which pairs each step sees: full batches, shuffled epochs, or a fresh random batch every step."""

from typing import Literal

import numpy as np
from jaxtyping import Int

from prefdyn._checks import at_least, one_of
from prefdyn._random import stream
from prefdyn.errors import ConfigError

SCHEMES = ("full", "epochs", "replacement")


def batches(
    pairs: int,
    size: int,
    steps: int,
    *,
    seed: int,
    scheme: Literal["full", "epochs", "replacement"] | str = "epochs",
) -> list[Int[np.ndarray, " batch"]]:
    """The places of the pairs that each step sees.

    Args:
        pairs: How many there are to draw from, at least 1.
        size: Pairs per batch, from 1 to `pairs`.
        steps: How many batches.
        seed: Of the draws; equal seeds, equal batches, whatever library computes with them.
        scheme: "full": all pairs, always. "epochs": every pair once in a new random order, the last batch of an epoch
            as small as it falls, then again (a loader that is exhausted). "replacement": a fresh random batch each
            step, no pair twice in it (what `next(iter(loader))` in a loop does, as the published last-layer script).

    Returns:
        One array of places per step, in the order drawn.

    Raises:
        ConfigError: A number is out of range, or the scheme is unknown.

    Reference:
        THEORY 2.7 for the sampling of the published scripts.

    Example:
        >>> [len(batch) for batch in batches(5, 2, 4, seed=0, scheme="epochs")]
        [2, 2, 1, 2]
    """
    at_least(pairs, 1, name="pairs")
    at_least(size, 1, name="batch_size")
    at_least(steps, 0, name="steps")
    one_of(scheme, SCHEMES, name="scheme")
    if scheme == "full":
        return [np.arange(pairs)] * steps
    if size > pairs:
        raise ConfigError(f"batch_size is {size}, but there are {pairs} pairs to train on; give at most {pairs}")
    rng = stream(seed, "dynamics", "batches", scheme)
    drawn: list[np.ndarray] = []
    while len(drawn) < steps:
        order = rng.permutation(pairs)
        if scheme == "replacement":
            drawn.append(order[:size])
        else:
            drawn += [order[start : start + size] for start in range(0, pairs, size)]
    return drawn[:steps]
