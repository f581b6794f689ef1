r"""The head trained on the clusters of 2408.03459 itself, where theory says what must come out.

K pairs of Gaussian clusters at the limits of Theorem 4.2's conditions, $v = 1/(32\sqrt Q)$ and $d = 5Q$, with an offset
of 1/4. The directions lie along the axes, as the paper has them, or anywhere: only Adam sees the difference.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prefdyn._random import stream
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.values import mean_at
from prefdyn.features import FeatureSet
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.value_scaling import ClusterModel

PER_CLUSTER = 20
"""Q."""


def clusters(values: int, *, dense: bool = False, tokens: str = "shared", seed: int = 0) -> FeatureSet:
    """K values as the paper models them.

    Args:
        values: K.
        dense: Whether directions have parts along all axes but that of the offset, in place of one axis each.
        tokens: How values share their answers; see `gaussian_groups`.
        seed: Of noise and directions.

    Example:
        >>> clusters(2)
        FeatureSet(answers, 80 pairs, 2 groups, width 100)
    """
    model = ClusterModel.at_the_limits(values, PER_CLUSTER)
    directions = None
    if dense:
        drawn = stream(seed, "clusters", "directions").normal(size=(model.width - 1, values))
        directions = np.zeros((values, model.width))
        directions[:, 1:] = np.linalg.qr(drawn)[0].T
    return gaussian_groups(
        2 * PER_CLUSTER, groups=values, width=model.width, noise=model.noise, shared_norm=model.shared_norm,
        tokens=tokens, directions=directions, held_out=0.0, seed=seed,
    )  # fmt: skip


def cluster_margins(counts: Sequence[int], *, dense: bool, seed: int, **settings: Any) -> list[float]:
    """Mean margin of the training pairs at a tenth of the steps, for each K.

    Args:
        counts: Numbers of values.
        dense: As in `clusters`.
        seed: Of the clusters.
        settings: Arguments of `sweep`, one value each.
    """
    return [
        mean_at([sweep(clusters(count, dense=dense, seed=seed), **settings)[0]], "margin", "train", 0.1)
        for count in counts
    ]
