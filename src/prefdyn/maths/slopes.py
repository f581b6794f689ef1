r"""How a pull changes: derivatives of an objective's loss and push in margin, $\beta$ and label smoothing.

With $h = -f'$ of `prefdyn.maths.objectives`, all at a fixed margin $r$ ($\beta$ inside):

| name | $f''(r)$ | $\partial f / \partial\beta$ | $\partial h / \partial\beta$ | $\partial f / \partial\varepsilon$ | $\partial h / \partial\varepsilon$ |
|---|---|---|---|---|---|
| `sigmoid`, `sigmoid_norm` | $\sigma(r)\,\sigma(-r)$ | 0 | 0 | $r$ | $-1$ |
| `robust` | $\sigma(r)\,\sigma(-r)$ | 0 | 0 | $-r / (1 - 2\varepsilon)^2$ | $1 / (1 - 2\varepsilon)^2$ |
| `ipo` | $2 / \beta^2$ | $-2 f / \beta$ | $-2 h / \beta$ | | |
| `hinge` | 0, the kink left out | 0 | 0 | | |
| `gpo_ipo` | 2 | 0 | 0 | | |

SFT is no function of the margin and has no place here.
"""  # noqa: E501

from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Float

from prefdyn.maths.objectives import DPO, GPOIPO, IPO, NormalisedDPO, Objective, RobustDPO, SLiC


def bend(objective: Objective, margins: Float[Any, "*n"]) -> Float[Any, "*n"]:
    r"""$f''(r) = -h'(r)$ per pair, at least 0; at the kink of `hinge` 0, as beside it.

    Example:
        >>> import numpy as np
        >>> bend(DPO(beta=0.1), np.array([0.0, np.log(3.0)])).round(12).tolist()
        [0.25, 0.1875]
    """
    match objective:
        case DPO() | NormalisedDPO() | RobustDPO():
            xp = array_namespace(margins)
            small = xp.exp(-xp.abs(margins))  # exact in both tails
            return small / (1 + small) ** 2
        case IPO(beta=beta):
            return 0 * margins + 2 / beta**2
        case SLiC():
            return 0 * margins
        case GPOIPO():
            return 0 * margins + 2.0
        case _:
            return objective.push(margins)  # SFT says what is wrong


def by_beta(objective: Objective, margins: Float[Any, "*n"]) -> tuple[Any, Any]:
    r"""Derivatives of loss and push in $\beta$ where it stands beside the margin; 0 but for `ipo`.

    Example:
        >>> import numpy as np
        >>> by_beta(IPO(beta=0.5), np.array([0.0]))[1].tolist()
        [-16.0]
    """
    if isinstance(objective, IPO):
        return -2 * objective.loss(margins) / objective.beta, -2 * objective.push(margins) / objective.beta
    return 0 * margins, 0 * margins


def by_smoothing(objective: Objective, margins: Float[Any, "*n"]) -> tuple[Any, Any]:
    r"""Derivatives of loss and push in the label smoothing $\varepsilon$; 0 where the objective knows none.

    Example:
        >>> import numpy as np
        >>> [each.tolist() for each in by_smoothing(DPO(beta=0.1, label_smoothing=0.2), np.array([3.0]))]
        [[3.0], [-1.0]]
    """
    match objective:
        case DPO():
            return margins, 0 * margins - 1.0
        case RobustDPO(label_smoothing=smoothing):
            rate = 1 / (1 - 2 * smoothing) ** 2
            return -rate * margins, 0 * margins + rate
        case _:
            return 0 * margins, 0 * margins
