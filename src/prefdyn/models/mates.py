"""Whether what a model says of one text depends on the texts that are read beside it."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from prefdyn.errors import ModelError
from prefdyn.models.load import LanguageModel

LOOSE = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Relative deviation up to which two ways of reading are one, by dtype of the model. Models that are float64 still
compute norms and softmax in float32."""


def deviation(one: Sequence[torch.Tensor], two: Sequence[torch.Tensor], *, least: float = 1e-30) -> float:
    """Largest difference of two sets of numbers, of the largest in the first; infinite where one is NaN.

    Args:
        one: Numbers, set by set.
        two: As many others.
        least: What the largest is taken to be at least: 1 for log-probabilities, which are rounded as the logits are,
            however near to 0 the model has driven them.

    Example:
        >>> one, two = [torch.tensor([-0.01, -0.002])], [torch.tensor([-0.010002, -0.002])]
        >>> f"{deviation(one, two):.0e}", f"{deviation(one, two, least=1.0):.0e}"
        ('2e-04', '2e-06')
    """
    off = [float((a - b).abs().max() / a.abs().max().clamp_min(least)) for a, b in zip(one, two, strict=True)]
    return max(math.inf if math.isnan(each) else each for each in off)


def lengths_apart(
    lengths: np.ndarray,
    read: Callable[[np.ndarray, bool], Sequence[torch.Tensor]],
    *,
    lm: LanguageModel,
    depends: str,
    least: float = 1e-30,
) -> bool:
    """Whether a batch must hold one length only; told by a short, two middling and a long text, alone and together.

    Args:
        lengths: Of all texts (n,).
        read: Rows, and whether each length is read apart → numbers of these rows, which are the first dimension.
        lm: The model.
        depends: Says of the model that it depends on mates, for the error.
        least: Of `deviation`.

    Raises:
        ModelError: What the model says depends on texts of the same length, too.
    """
    order = np.argsort(lengths, kind="stable")
    middle = len(order) // 2
    few = order[np.unique([0, max(0, middle - 1), middle, len(order) - 1])]  # the two in the middle: of one length
    alone = [read(few[at : at + 1], True) for at in range(len(few))]
    each = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    if not all(bool(part.isfinite().all()) for part in each):
        return False  # told with its pair where it is met
    off = math.inf
    for apart in (False, True):
        off = deviation(each, read(few, apart), least=least)
        if off <= LOOSE[lm.dtype]:
            return apart
    raise ModelError(
        f"{depends}, even of the same length (they deviate by {off:.1g}), so no figure would be a pair's own; use "
        "--dtype float32, --attn eager, or another model"
    )
