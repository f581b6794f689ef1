r"""Preference objectives: a loss of the reward margin, with its derivative and curvature.

Names follow TRL's `loss_type`. Every formula takes margins $r$ with $\beta$ inside (THEORY 1.1).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace
from jaxtyping import Float

from prefdyn._checks import nearest, positive
from prefdyn.errors import ConfigError

LOG2 = math.log(2)
"""Loss of every pair before the first step, nats: all margins are 0."""

SPELLINGS = {"sigmoid": "sigmoid", "dpo": "sigmoid"}
"""Accepted spellings of each objective, by TRL's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DPO:
    r"""Direct preference optimisation: $f(r) = \log(1 + e^{-r})$, TRL's `sigmoid`.

    Reference:
        Rafailov et al. (2023), arXiv:2305.18290, Eq. 7; margin form as in 2403.18742, Eq. 4 and 6.

    Example:
        >>> import numpy as np
        >>> DPO(beta=0.1).loss(np.array([0.0])).round(6)
        array([0.693147])
        >>> DPO(beta=0.1).push(np.array([-1.0, 0.0, 0.5])).round(10)
        array([0.73105858, 0.5       , 0.37754067])
    """

    name: ClassVar[str] = "sigmoid"
    curvature: ClassVar[float] = 0.25
    r"""Largest $f''$, reached at $r = 0$; sets the largest stable step (THEORY 9)."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive(self.beta, name="beta", fix="TRL's default is 0.1")

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$f(r)$ per pair, in nats. No overflow for any finite margin."""
        xp = array_namespace(margins)
        return xp.logaddexp(xp.zeros_like(margins), -margins)

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$h(r) = -f'(r) = \sigma(-r)$ per pair, in (0, 1): how hard the pair still pulls. Exact in both tails."""
        xp = array_namespace(margins)
        return xp.exp(-xp.logaddexp(xp.zeros_like(margins), margins))


def objective(name: str, *, beta: float) -> DPO:
    """The objective of that name, by TRL's spelling or an accepted one.

    Raises:
        ConfigError: The name is unknown; the message names the nearest.

    Example:
        >>> objective("dpo", beta=0.1) == DPO(beta=0.1)
        True
    """
    if name not in SPELLINGS:
        raise ConfigError(f"objective {name!r} is unknown{nearest(name, SPELLINGS)}")
    return DPO(beta=beta)
