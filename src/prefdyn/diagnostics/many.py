"""How many groups are shown against each other, and which those are where there are more."""

import numpy as np
from jaxtyping import Int

from prefdyn.features import FeatureSet

SHOWN_GROUPS = 200
"""Groups up to which every group is held against every other, drawn and listed on the page. Tables hold all."""


def shown_groups(feats: FeatureSet, most: int = SHOWN_GROUPS) -> Int[np.ndarray, " k"]:
    """Codes of the groups with most pairs, the first among equals, in the order of the data; all while they are few.

    Example:
        >>> feats = FeatureSet.from_arrays(np.eye(4), chosen=[1] * 4, rejected=[0] * 4, group=["a", "b", "c", "b"])
        >>> shown_groups(feats, most=2).tolist()
        [0, 1]
    """
    sizes = np.bincount(feats.group, minlength=len(feats.groups))
    return np.sort(np.argsort(-sizes, kind="stable")[:most])
