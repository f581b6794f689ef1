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

SPELLINGS = {"sigmoid": "sigmoid", "dpo": "sigmoid", "hinge": "hinge", "slic": "hinge", "gpo_ipo": "gpo_ipo"}
"""Accepted spellings of each objective. `gpo_ipo` is 2408.03459's IPO, which is not TRL's `ipo`."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SLiC:
    r"""Sequence likelihood calibration: $f(r) = \max(0, 1 - r)$, TRL's `hinge`.

    A pair pulls with full strength until its margin is 1, then not at all. The slope jumps there, so no step size is
    small enough to keep the loss from rising: give a learning rate of your own.

    Reference:
        2408.03459, section 7 (GPO); THEORY 1.6.
    Found:
        Confirmed. As printed; at the kink, r = 1, where any slope from -1 to 0 would do, the pull is taken as 0.

    Example:
        >>> import numpy as np
        >>> SLiC(beta=0.1).push(np.array([-1.0, 0.5, 1.0, 2.0])).tolist()
        [1.0, 1.0, 0.0, 0.0]
    """

    name: ClassVar[str] = "hinge"
    curvature: ClassVar[float] = math.inf
    r"""$f'$ jumps at $r = 1$: there is no largest stable step."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive(self.beta, name="beta", fix="TRL's default is 0.1")

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$\max(0, 1 - r)$ per pair."""
        xp = array_namespace(margins)
        return xp.maximum(xp.zeros_like(margins), 1 - margins)

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        """1 where the margin is below 1, else 0."""
        xp = array_namespace(margins)
        return xp.astype(margins < 1, margins.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class GPOIPO:
    r"""IPO as the GPO family has it: $f(r) = (r - 1)^2$.

    The pull turns back beyond $r = 1$. The original IPO aims at the plain log-ratio $1/(2\tau)$, which is this with
    $\beta = 2\tau$ and the loss divided by $\beta^2$: the same path where its steps are $\beta^2$ times as long.

    Reference:
        2408.03459, section 7 (GPO); THEORY 1.6.
    Found:
        Confirmed. As printed. Its pull starts at 2, four times that of DPO, so equal step sizes are not comparable.

    Example:
        >>> import numpy as np
        >>> GPOIPO(beta=0.1).push(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist()
        [4.0, 2.0, 1.0, 0.0, -2.0]
    """

    name: ClassVar[str] = "gpo_ipo"
    curvature: ClassVar[float] = 2.0

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive(self.beta, name="beta", fix="TRL's default is 0.1")

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$(r - 1)^2$ per pair."""
        return (margins - 1) ** 2

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$2(1 - r)$ per pair; below 0 beyond the target."""
        return 2 * (1 - margins)


Objective = DPO | SLiC | GPOIPO
"""Any of them: a name, a beta, a largest curvature, a loss of the margin and its push."""

_BY_NAME = {cls.name: cls for cls in (DPO, SLiC, GPOIPO)}


def objective(name: str, *, beta: float) -> Objective:
    """The objective of that name, by TRL's spelling or an accepted one.

    Raises:
        ConfigError: The name is unknown; the message names the nearest.

    Example:
        >>> objective("dpo", beta=0.1) == DPO(beta=0.1)
        True
    """
    if name not in SPELLINGS:
        raise ConfigError(f"objective {name!r} is unknown{nearest(name, SPELLINGS)}")
    return _BY_NAME[SPELLINGS[name]](beta=beta)
