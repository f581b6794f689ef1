r"""Laws of what a loss does with the number of pairs, $L(n) = c + a\,h(n)$, as sums over what was measured.

For a fixed shape $h$ the least-squares $c$ and $a$ are linear in the measured losses, and so is what the law says of
any other $n$: a row of coefficients, the same for every pair's loss and for their mean. Errors of means therefore carry
over to forecasts without another fit.

| name | $h(n)$ | here |
|---|---|---|
| `power` | $n^{-\alpha}$ | with the floor $c$ |
| `mmf` | $1 / (1 + (n/\kappa)^\delta)$ | Morgan, Mercer and Flodin; flat below $\kappa$, a power beyond |
| `exponential` | $e^{-n/\tau}$ | |
| `flat` | 0 | no more pairs help |

Points count as $n^p$: with $p = 1$ as the errors of measured losses have it, with $p = 3$ the last few say nearly all.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

_POWERS = {0.5: 0.3, 0.75: 0.6, 1.0: 1.0, 1.5: 1.0}
"""Exponents and what they count before any test: the slowest laws, which promise most from afar, count least. The
excess loss of a layer with few directions for its pairs falls as 1/n."""
_BENDS = (0.25, 1.0)
"""Of `mmf` and `exponential`: kappa and tau, as multiples of the largest measured number."""
_STEEP = {0.5: 0.3, 1.0: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One $h$: a name, its exponent, and where it bends, as a multiple of the largest measured number."""

    name: str
    exponent: float = 1.0
    bend: float = 1.0
    recent: float = 1.0
    """Points count as this power of their size."""
    prior: float = 1.0
    """What the law counts before any test."""

    def at(self, n: Float[np.ndarray, " k"], largest: float) -> Float[np.ndarray, " k"]:
        """$h(n)$, between 0 and about 1.

        Example:
            >>> Shape(name="power", exponent=0.5).at(np.array([25.0, 100.0]), 100.0).tolist()
            [2.0, 1.0]
        """
        x = np.asarray(n, dtype=np.float64) / largest
        match self.name:
            case "power":
                return x**-self.exponent
            case "mmf":
                return 1 / (1 + (x / self.bend) ** self.exponent)
            case "flat":
                return np.zeros_like(x)
            case _:
                return np.exp(-x / self.bend)

    def __str__(self) -> str:
        detail = {
            "power": f" {self.exponent:g}", "mmf": f" {self.exponent:g} from {self.bend:g}", "flat": "",
            "exponential": f" {self.bend:g}",
        }  # fmt: skip
        return self.name + detail[self.name] + (", last points" if self.recent > 1 else "")


_KINDS = (
    *(Shape(name="power", exponent=exponent, prior=prior) for exponent, prior in _POWERS.items()),
    *(Shape(name="mmf", exponent=exponent, prior=prior, bend=bend) for exponent, prior in _STEEP.items()
      for bend in _BENDS),
    *(Shape(name="exponential", bend=bend) for bend in _BENDS),
    Shape(name="flat"),
)  # fmt: skip
SHAPES = tuple(replace(shape, recent=recent) for shape in _KINDS for recent in (1.0, 3.0))
"""What is pooled."""


def rows_of(shape: Shape, sizes: Float[np.ndarray, " s"], at: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k s"]:
    """Coefficients: what the least-squares law says at each `at` is its row times the losses measured at `sizes`.

    Args:
        shape: The law.
        sizes: Numbers of pairs, ascending, at least two.
        at: Numbers of pairs to forecast.

    Example:
        >>> sizes = np.array([10.0, 20.0, 40.0])
        >>> losses = 0.2 + 3 / sizes  # a power law with a floor
        >>> float((rows_of(Shape(name="power"), sizes, np.array([400.0])) @ losses)[0].round(9))
        0.2075
    """
    root = (sizes / sizes[-1]) ** (shape.recent / 2)
    design = np.stack([np.ones(len(sizes)), shape.at(sizes, sizes[-1])], axis=1)
    solved = np.linalg.pinv(design * root[:, None]) * root
    return np.stack([np.ones(len(at)), shape.at(at, sizes[-1])], axis=1) @ solved
