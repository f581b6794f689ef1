r"""The clusters of 2408.03459 itself, where theory says what must come out.

K pairs of Gaussian clusters at the limits of Theorem 4.2's conditions, $v = 1/(32\sqrt Q)$ and $d = 5Q$, with an offset
of 1/4 and directions along the axes.
"""

from prefdyn.features import FeatureSet
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.value_scaling import ClusterModel

PER_CLUSTER = 20
"""Q."""


def clusters(values: int, *, tokens: str = "shared", seed: int = 0) -> FeatureSet:
    """K values as the paper models them.

    Args:
        values: K.
        tokens: How values share their answers; see `gaussian_groups`.
        seed: Of the noise.

    Example:
        >>> clusters(2)
        FeatureSet(answers, 80 pairs, 2 groups, width 100)
    """
    model = ClusterModel.at_the_limits(values, PER_CLUSTER)
    return gaussian_groups(
        2 * PER_CLUSTER, groups=values, width=model.width, noise=model.noise, shared_norm=model.shared_norm,
        tokens=tokens, held_out=0.0, seed=seed,
    )  # fmt: skip
