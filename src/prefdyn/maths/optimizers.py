r"""Optimizers as pure functions of arrays, step for step those of torch.optim; R runs are one call.

Weights have a leading run axis, and the rate may be one number per run. An optimizer holds no arrays: `start` makes its
memory, `update` takes weights, gradient and memory and gives the next ones. Written against the array API.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from array_api_compat import array_namespace

from prefdyn._checks import at_least, nearest, one_of
from prefdyn.errors import ConfigError

State = tuple[Any, ...]
"""Arrays in the shape of the weights; empty where nothing is remembered."""


def _share(value: float, *, name: str) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{name} is {value!r}, but must be at least 0 and below 1")


def _not_negative(value: float, *, name: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} is {value!r}, but must be a finite number of at least 0")


def _column(rate: Any, weights: Any) -> Any:
    """One rate per run as an array that broadcasts against the weights, in their dtype; a number stays one."""
    xp = array_namespace(weights)
    shape = getattr(rate, "shape", ())
    if not shape:
        return float(rate)
    return xp.reshape(xp.astype(rate, weights.dtype), (shape[0],) + (1,) * (len(weights.shape) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    r"""Gradient descent, with momentum and Nesterov's look ahead: $v \leftarrow \mu v + g$, $w \leftarrow w - \eta v$.

    The memory starts with the first gradient, undamped, as in torch. Nesterov takes $g + \mu v$ in place of v.

    Reference:
        `torch.optim.SGD`; Sutskever et al. (2013) for the two momenta.

    Example:
        >>> import numpy as np
        >>> w, g = np.zeros((2, 1)), np.ones((2, 1))
        >>> SGD().update(w, g, (), rate=np.array([0.1, 0.5]), step=0)[0].tolist()
        [[-0.1], [-0.5]]
    """

    name: ClassVar[str] = "sgd"

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    """Added to the gradient, times the weights."""

    def __post_init__(self) -> None:
        _share(self.momentum, name="momentum")
        _not_negative(self.weight_decay, name="weight_decay")
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs a momentum above 0; set momentum, such as 0.9")

    @property
    def linear(self) -> bool:
        """Whether the path is a linear function of past gradients with numbers for coefficients."""
        return self.weight_decay == 0

    def start(self, weights: Any) -> State:
        """The memory before the first step."""
        return (array_namespace(weights).zeros_like(weights),) if self.momentum else ()

    def update(self, weights: Any, gradient: Any, state: State, *, rate: Any, step: int) -> tuple[Any, State]:
        """Weights and memory after one step; `step` counts from 0, `rate` is a number or one per run."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        if not self.momentum:
            return weights - _column(rate, weights) * gradient, ()
        velocity = gradient if step == 0 else self.momentum * state[0] + gradient
        moved = gradient + self.momentum * velocity if self.nesterov else velocity
        return weights - _column(rate, weights) * moved, (velocity,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    r"""Adam: steps of the mean gradient over its root mean square, coordinate by coordinate.

    Not invariant under a rotation of the weights: it must run on the coordinates that the user's training has.

    Reference:
        Kingma and Ba (2015), arXiv:1412.6980; `torch.optim.Adam`.

    Example:
        >>> import numpy as np
        >>> adam = Adam()
        >>> w = np.zeros((1, 2))
        >>> adam.update(w, np.array([[1.0, -100.0]]), adam.start(w), rate=0.1, step=0)[0].round(6).tolist()
        [[-0.1, 0.1]]
    """

    name: ClassVar[str] = "adam"
    linear: ClassVar[bool] = False
    _decoupled: ClassVar[bool] = False

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Added to the gradient, times the weights (L2); see `AdamW` for the other kind."""

    def __post_init__(self) -> None:
        for place, value in enumerate(self.betas):
            _share(value, name=f"betas[{place}]")
        _not_negative(self.eps, name="eps")
        _not_negative(self.weight_decay, name="weight_decay")

    def start(self, weights: Any) -> State:
        """Both means before the first step."""
        xp = array_namespace(weights)
        return xp.zeros_like(weights), xp.zeros_like(weights)

    def update(self, weights: Any, gradient: Any, state: State, *, rate: Any, step: int) -> tuple[Any, State]:
        """Weights and memory after one step; `step` counts from 0, `rate` is a number or one per run."""
        xp = array_namespace(weights)
        speed = _column(rate, weights)
        if self.weight_decay and self._decoupled:
            weights = weights * (1 - speed * self.weight_decay)
        elif self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        first, second = self.betas
        mean = state[0] + (1 - first) * (gradient - state[0])
        square = second * state[1] + (1 - second) * gradient * gradient
        root = xp.sqrt(square) / math.sqrt(1 - second ** (step + 1)) + self.eps
        return weights - speed / (1 - first ** (step + 1)) * mean / root, (mean, square)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(Adam):
    r"""Adam with decay apart from the gradient: $w \leftarrow (1 - \eta\lambda) w$ before each step.

    The decay defaults to 0, as in transformers' training arguments, not to torch's 0.01.

    Reference:
        Loshchilov and Hutter (2019), arXiv:1711.05101; `torch.optim.AdamW`.

    Example:
        >>> import numpy as np
        >>> adam = AdamW(weight_decay=0.1)
        >>> w = np.ones((1, 1))
        >>> float(adam.update(w, np.zeros((1, 1)), adam.start(w), rate=0.5, step=0)[0][0, 0])
        0.95
    """

    name: ClassVar[str] = "adamw"
    _decoupled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSprop:
    r"""RMSprop: the gradient over the root of its running mean square, with momentum on the quotient.

    Reference:
        Tieleman and Hinton (2012), lecture 6.5; `torch.optim.RMSprop`, not centred.

    Example:
        >>> import numpy as np
        >>> rms = RMSprop()
        >>> w = np.zeros((1, 1))
        >>> rms.update(w, np.ones((1, 1)), rms.start(w), rate=0.01, step=0)[0].round(6).tolist()
        [[-0.1]]
    """

    name: ClassVar[str] = "rmsprop"
    linear: ClassVar[bool] = False

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    """Added to the gradient, times the weights."""

    def __post_init__(self) -> None:
        _share(self.alpha, name="alpha")
        _share(self.momentum, name="momentum")
        _not_negative(self.eps, name="eps")
        _not_negative(self.weight_decay, name="weight_decay")

    def start(self, weights: Any) -> State:
        """The mean square, and the velocity where there is momentum."""
        zeros = array_namespace(weights).zeros_like(weights)
        return (zeros, zeros) if self.momentum else (zeros,)

    def update(self, weights: Any, gradient: Any, state: State, *, rate: Any, step: int) -> tuple[Any, State]:
        """Weights and memory after one step; `step` counts from 0, `rate` is a number or one per run."""
        xp = array_namespace(weights)
        if self.weight_decay:
            gradient = gradient + self.weight_decay * weights
        square = self.alpha * state[0] + (1 - self.alpha) * gradient * gradient
        moved = gradient / (xp.sqrt(square) + self.eps)
        if not self.momentum:
            return weights - _column(rate, weights) * moved, (square,)
        velocity = self.momentum * state[1] + moved
        return weights - _column(rate, weights) * velocity, (square, velocity)


Optimizer = SGD | Adam | AdamW | RMSprop
"""Any of them: `start`, `update`, a name, and whether its path is linear in past gradients."""

OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "nesterov": SGD(momentum=0.9, nesterov=True),
    "adam": Adam(),
    "adamw": AdamW(),
    "rmsprop": RMSprop(),
}
"""What the names on the command line stand for."""


def optimizer(name: str, **options: Any) -> Optimizer:
    """The optimizer of that name, with torch's defaults (momentum 0.9; no weight decay) where no option says otherwise.

    Args:
        name: One of `OPTIMIZERS`.
        options: Fields of the optimizer, such as `weight_decay`.

    Raises:
        ConfigError: The name or an option is unknown (the message names the nearest), or a value is out of range.

    Example:
        >>> optimizer("nesterov", momentum=0.8)
        SGD(momentum=0.8, nesterov=True, weight_decay=0.0)
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer {name!r} is unknown{nearest(name, OPTIMIZERS)}")
    known = [entry.name for entry in fields(OPTIMIZERS[name])]
    for option in options:
        if option not in known:
            raise ConfigError(f"optimizer {name!r} has no option {option!r}{nearest(option, known)}")
    return replace(OPTIMIZERS[name], **options)


def factor_of(schedule: "Schedule | None", step: int) -> float:
    """The factor on the learning rate of the update that follows `step` others; 1 without a schedule.

    Example:
        >>> factor_of(None, 3), factor_of(Schedule(kind="linear", steps=4), 3)
        (1.0, 0.25)
    """
    return 1.0 if schedule is None else schedule.factor(step)


SCHEDULES: Sequence[str] = ("constant", "linear", "cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a learning rate is multiplied with at each step: a rise over `warmup` steps, then constant or a fall to 0.

    Reference:
        `transformers.get_scheduler`, with the same names.

    Example:
        >>> [round(Schedule(kind="linear", steps=4, warmup=2).factor(step), 3) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    steps: int
    """Steps of the run, at the end of which a fall has reached 0."""
    warmup: int = 0
    """Steps of the linear rise from 0."""

    def __post_init__(self) -> None:
        one_of(self.kind, SCHEDULES, name="schedule")
        at_least(self.steps, 1, name="steps")
        at_least(self.warmup, 0, name="warmup")
        if self.warmup > self.steps:
            raise ConfigError(f"warmup is {self.warmup} of {self.steps} steps; give at most as many as there are")

    def factor(self, step: int) -> float:
        """The factor of the update that follows `step` others."""
        if step < self.warmup:
            return step / self.warmup
        left = max(1, self.steps - self.warmup)
        match self.kind:
            case "constant":
                return 1.0
            case "linear":
                return max(0.0, (self.steps - step) / left)
            case "cosine":
                return max(0.0, (1 + math.cos(math.pi * (step - self.warmup) / left)) / 2)
