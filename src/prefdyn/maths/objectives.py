r"""Preference objectives: a loss of the reward margin, with its derivative and curvature.

Names follow TRL's `loss_type`. Every formula takes margins $r$ with $\beta$ inside (THEORY 1.1), of any shape, from
NumPy or torch, and keeps their dtype. `beta` may be an array along the last axis of the margins, so that R runs in R
columns are one call. Weights of pairs are no part of an objective.

| name | $f(r)$ | $h = -f'$ | largest $f''$ |
|---|---|---|---|
| `sigmoid` | $\log(1 + e^{-r})$ | $\sigma(-r)$ | 1/4 |
| `sigmoid`, smoothed (cDPO) | $\log(1 + e^{-r}) + \varepsilon r$ | $\sigma(-r) - \varepsilon$ | 1/4 |
| `sigmoid_norm` | $\log(1 + e^{-r})$, $r$ per token | $\sigma(-r)$ | 1/4 |
| `robust`, $c = \varepsilon / (1 - 2 \varepsilon)$ | $\log(1 + e^{-r}) - c r$ | $\sigma(-r) + c$ | 1/4 |
| `ipo` | $(r - 1/2)^2 / \beta^2$ | $(1 - 2 r) / \beta^2$ | $2 / \beta^2$ |
| `hinge` | $\max(0, 1 - r)$ | 1 below 1, else 0 | none: a kink |
| `gpo_ipo` | $(r - 1)^2$ | $2 (1 - r)$ | 2 |
| `sft` | $-\log \pi(\text{chosen})$, no margin | | 1/2, in logits |
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from array_api_compat import array_namespace, device, is_array_api_obj
from jaxtyping import Float

from prefdyn._checks import nearest, positive
from prefdyn.errors import ConfigError

LOG2 = math.log(2)
"""Loss of every pair before the first step, nats: all margins are 0."""

SPELLINGS = {
    "sigmoid": "sigmoid",
    "dpo": "sigmoid",
    "sigmoid_norm": "sigmoid_norm",
    "robust": "robust",
    "ipo": "ipo",
    "hinge": "hinge",
    "slic": "hinge",
    "gpo_ipo": "gpo_ipo",
    "sft": "sft",
}
"""Accepted spellings of each objective. `ipo` is TRL's; `gpo_ipo` is 2408.03459's IPO, another loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempered:
    """What every objective has: the temperature that its margins hold, above 0."""

    beta: float | Float[Any, " R"] = 0.1

    def __post_init__(self) -> None:
        fix = "TRL's default is 0.1"
        beta: Any = self.beta
        for each in beta.tolist() if hasattr(beta, "tolist") else [beta]:
            positive(each, name="beta", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed(Tempered):
    """One that takes some labels to be wrong."""

    label_smoothing: float = 0.0
    """Probability that a label is wrong, from 0 to below 1/2."""

    def __post_init__(self) -> None:
        Tempered.__post_init__(self)
        _check_smoothing(self.label_smoothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPO(Smoothed):
    r"""Direct preference optimisation: $f(r) = \log(1 + e^{-r})$, TRL's `sigmoid`; with smoothing, cDPO.

    With smoothing $\varepsilon$ the label is taken to be wrong with that probability,
    $f(r) = (1 - \varepsilon) \log(1 + e^{-r}) + \varepsilon \log(1 + e^{r}) = \log(1 + e^{-r}) + \varepsilon r$: every
    pair aims at the finite margin $\log((1 - \varepsilon) / \varepsilon)$ and is pulled back beyond it.

    Reference:
        Rafailov et al. (2023), arXiv:2305.18290, Eq. 7; margin form as in 2403.18742, Eq. 4 and 6.
        Smoothing: Mitchell (2023), "A note on DPO with noisy preferences". TRL 1.16 ignores smoothing here.

    Example:
        >>> import numpy as np
        >>> DPO(beta=0.1).loss(np.array([0.0])).round(6)
        array([0.693147])
        >>> DPO(beta=0.1).push(np.array([-1.0, 0.0, 0.5])).round(10)
        array([0.73105858, 0.5       , 0.37754067])
        >>> DPO(beta=0.1, label_smoothing=0.1).push(np.array([0.0, np.log(3.0)])).round(12).tolist()
        [0.4, 0.15]
    """

    name: ClassVar[str] = "sigmoid"
    reads: ClassVar[str] = "margins"
    per_token: ClassVar[bool] = False
    curvature: ClassVar[float] = 0.25
    r"""Largest $f''$, reached at $r = 0$; sets the largest stable step (THEORY 9)."""

    @property
    def start_push(self) -> float:
        """Push of every pair before the first step."""
        return 0.5 - self.label_smoothing

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$f(r)$ per pair, in nats. No overflow for any finite margin."""
        loss = _softplus(-margins)
        return loss + self.label_smoothing * margins if self.label_smoothing else loss

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$h(r) = -f'(r) = \sigma(-r) - \varepsilon$ per pair: how hard it still pulls. Exact in both tails."""
        push = _sigmoid(-margins)
        return push - self.label_smoothing if self.label_smoothing else push


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedDPO(Tempered):
    r"""DPO of length-normalised margins, TRL's `sigmoid_norm`: each response's log-ratio is divided by its tokens.

    The formula is DPO's. That the margin is a mean over tokens is a matter of the features; of one-token answers the
    two are the same.

    Reference:
        TRL, `DPOTrainer`, `loss_type="sigmoid_norm"`.

    Example:
        >>> import numpy as np
        >>> NormalisedDPO(beta=2.0).push(np.array([0.0])).tolist()
        [0.5]
    """

    name: ClassVar[str] = "sigmoid_norm"
    reads: ClassVar[str] = "margins"
    per_token: ClassVar[bool] = True
    curvature: ClassVar[float] = 0.25
    start_push: ClassVar[float] = 0.5

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$\log(1 + e^{-r})$ per pair, nats."""
        return _softplus(-margins)

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$\sigma(-r)$ per pair."""
        return _sigmoid(-margins)


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustDPO(Smoothed):
    r"""DPO made unbiased under labels that are wrong with probability $\varepsilon$, TRL's `robust`.

    $f(r) = \big[(1 - \varepsilon) \log(1 + e^{-r}) - \varepsilon \log(1 + e^{r})\big] / (1 - 2 \varepsilon)$, which is
    DPO's loss less $\varepsilon r / (1 - 2 \varepsilon)$: on top of DPO every pair pulls with a constant that no margin
    wears off. The loss falls below 0 and has no least value; its curvature is that of DPO. TRL's smoothing is 0 unless
    given, which is DPO.

    Reference:
        Chowdhury, Kini and Natarajan (2024), "Provably robust DPO", arXiv:2403.00409; TRL, `DPOTrainer`.

    Example:
        >>> import numpy as np
        >>> RobustDPO(label_smoothing=0.1).push(np.array([-40.0, 0.0, 40.0])).round(9).tolist()
        [1.125, 0.625, 0.125]
    """

    name: ClassVar[str] = "robust"
    reads: ClassVar[str] = "margins"
    per_token: ClassVar[bool] = False
    curvature: ClassVar[float] = 0.25

    @property
    def start_push(self) -> float:
        """Push of every pair before the first step."""
        return 0.5 + self._constant

    @property
    def _constant(self) -> float:
        return self.label_smoothing / (1 - 2 * self.label_smoothing)

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$f(r)$ per pair, in nats; may be below 0."""
        return _softplus(-margins) - self._constant * margins

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$\sigma(-r) + \varepsilon / (1 - 2 \varepsilon)$ per pair, never 0."""
        return _sigmoid(-margins) + self._constant


@dataclass(frozen=True, slots=True, kw_only=True)
class IPO(Tempered):
    r"""Identity preference optimisation as TRL's `ipo`: $f(r) = (r/\beta - 1/(2\beta))^2$, the target $r = 1/2$.

    In the plain log-ratio $h = r / \beta$ this is the paper's $(h - 1/(2\tau))^2$ with $\tau = \beta$. TRL divides the
    log-probability of each answer by its number of tokens first; that is a matter of the features (of one-token
    answers the average is the sum), not of this formula.

    Reference:
        Azar et al. (2023), arXiv:2310.12036, Eq. 17; TRL, `DPOTrainer`, `loss_type="ipo"`.
    Found:
        It is `gpo_ipo` at twice the beta with the loss divided by 4 beta². Its pull starts at 1/beta², at beta 0.1
        two hundred times that of DPO.

    Example:
        >>> import numpy as np
        >>> IPO(beta=0.5).push(np.array([-1.0, 0.0, 0.5, 1.0])).tolist()
        [12.0, 4.0, 0.0, -4.0]
    """

    name: ClassVar[str] = "ipo"
    reads: ClassVar[str] = "margins"
    per_token: ClassVar[bool] = True

    @property
    def curvature(self) -> Any:
        r"""$f'' = 2/\beta^2$, everywhere; an array where beta is one."""
        return 2 / self.beta**2

    @property
    def start_push(self) -> Any:
        r"""$1/\beta^2$; an array where beta is one."""
        return 1 / self.beta**2

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$(r/\beta - 1/(2\beta))^2$ per pair."""
        return ((margins - 0.5) / _like(self.beta, margins)) ** 2

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$(1 - 2r)/\beta^2$ per pair; below 0 beyond the target."""
        return (1 - 2 * margins) / _like(self.beta, margins) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SLiC(Tempered):
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
    reads: ClassVar[str] = "margins"
    per_token: ClassVar[bool] = False
    curvature: ClassVar[float] = math.inf
    r"""$f'$ jumps at $r = 1$: there is no largest stable step."""
    start_push: ClassVar[float] = 1.0

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$\max(0, 1 - r)$ per pair."""
        xp = array_namespace(margins)
        return xp.maximum(xp.zeros_like(margins), 1 - margins)

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        """1 where the margin is below 1, else 0; NaN stays NaN."""
        xp = array_namespace(margins)
        return xp.astype(margins < 1, margins.dtype) + 0 * margins


@dataclass(frozen=True, slots=True, kw_only=True)
class GPOIPO(Tempered):
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
    reads: ClassVar[str] = "margins"
    per_token: ClassVar[bool] = False
    curvature: ClassVar[float] = 2.0
    start_push: ClassVar[float] = 2.0

    def loss(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$(r - 1)^2$ per pair."""
        return (margins - 1) ** 2

    def push(self, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
        r"""$2(1 - r)$ per pair; below 0 beyond the target."""
        return 2 * (1 - margins)


@dataclass(frozen=True, slots=True, kw_only=True)
class SFT(Tempered):
    r"""Supervised fine-tuning on the chosen answers, the baseline without preferences: $-\log \pi(\text{chosen})$.

    Not a function of the margin: it raises the chosen answer against all others, not against the rejected one. `beta`
    has no part in training; it scales the margins that are reported, so that they compare with those of a preference
    run.

    Reference:
        TRL, `DPOTrainer`, `loss_type="sft"`, for one-token answers; of longer ones TRL averages over all tokens.

    Example:
        >>> import numpy as np
        >>> SFT().loss(np.log([0.25, 0.5])).round(6).tolist()
        [1.386294, 0.693147]
    """

    name: ClassVar[str] = "sft"
    reads: ClassVar[str] = "log_probs"
    per_token: ClassVar[bool] = False
    curvature: ClassVar[float] = 0.5
    r"""Largest eigenvalue of $\operatorname{diag}(p) - p p^\top$, the second derivative in the logits, over all p."""

    def loss(self, log_probs: Float[Any, "*n"]) -> Float[Any, "*n"]:
        """Minus the log-probability of each chosen answer, nats."""
        return -log_probs

    def push(self, margins: Float[Any, "*n"]) -> NoReturn:
        """None: raises a ConfigError, so that nothing takes SFT for a loss of the margin."""
        raise ConfigError(
            "the loss 'sft' reads log-probabilities of the chosen answer, so it has no pull on a margin; "
            f"choose one of {', '.join(name for name, each in OBJECTIVES.items() if each.reads == 'margins')}"
        )


Objective = DPO | NormalisedDPO | RobustDPO | IPO | SLiC | GPOIPO | SFT
"""Any of them: a name, a beta, a largest curvature, a loss and its push. Where `per_token` is true, the log-ratio of a
longer response is divided by its number of tokens before it enters the margin."""

OBJECTIVES: dict[str, type[Objective]] = {
    each.name: each for each in (DPO, NormalisedDPO, RobustDPO, IPO, SLiC, GPOIPO, SFT)
}
"""Class by name."""


def objective(name: str, *, beta: float | Float[Any, " R"], label_smoothing: float = 0.0) -> Objective:
    """The objective of that name, by TRL's spelling or an accepted one.

    Args:
        name: One of `SPELLINGS`.
        beta: Above 0; or an array, one per run.
        label_smoothing: Probability that a label is wrong, from 0 to below 1/2; for `sigmoid` and `robust` alone.

    Raises:
        ConfigError: The name is unknown (the message names the nearest), beta or the smoothing is out of range, or
            the objective knows no smoothing.

    Example:
        >>> objective("dpo", beta=0.1) == DPO(beta=0.1)
        True
    """
    if name not in SPELLINGS:
        raise ConfigError(f"objective {name!r} is unknown{nearest(name, SPELLINGS)}")
    kind = OBJECTIVES[SPELLINGS[name]]
    if kind is DPO or kind is RobustDPO:
        return kind(beta=beta, label_smoothing=label_smoothing)
    if label_smoothing:
        raise ConfigError(
            f"label_smoothing means nothing to {name!r}, but is {label_smoothing!r}; set it to 0, or choose "
            "'sigmoid' or 'robust'"
        )
    return kind(beta=beta)


def _softplus(values: Any) -> Any:
    """log(1 + e^x), for any finite x and with few roundings in both tails."""
    xp = array_namespace(values)
    return xp.maximum(values, xp.zeros_like(values)) + xp.log1p(xp.exp(-xp.abs(values)))


def _sigmoid(values: Any) -> Any:
    """1 / (1 + e^-x), exact in both tails; two exponentials of what is never above 0 beat `logaddexp` tenfold."""
    xp = array_namespace(values)
    return xp.exp(xp.minimum(values, xp.zeros_like(values))) / (1 + xp.exp(-xp.abs(values)))


def _like(value: Any, margins: Any) -> Any:
    """A number as it is, an array in the library, dtype and place of the margins."""
    if not is_array_api_obj(value):
        return float(value)
    return array_namespace(margins).asarray(value, dtype=margins.dtype, device=device(margins))


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 0.5:
        raise ConfigError(
            f"label_smoothing is {smoothing!r}, but must be at least 0 and below 0.5: the probability that a label is "
            "wrong"
        )


def refuse_to_judge(objective: Objective) -> None:
    """Refuse an objective for an audit, whose verdicts compare losses with where DPO starts: log 2.

    Raises:
        ConfigError: It is none of DPO, or DPO of length-normalised margins.
    """
    if objective.name not in (DPO.name, NormalisedDPO.name):
        raise ConfigError(
            f"an audit judges by the loss of DPO, whose start is log 2, but the objective is {objective.name!r}; for "
            "its learning curves use `prefdyn simulate` (`prefdyn.planning.simulate`)"
        )
