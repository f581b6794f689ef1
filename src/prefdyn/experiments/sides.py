"""The two sides of behaviours with two answers: whose states choose the first answer, and whose the second."""

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import distinguishability


def trained_rows(feats: FeatureSet, name: str) -> Int[np.ndarray, " n"]:
    """Row numbers of the pairs of a behaviour that are not held out."""
    rows = feats.members(name)
    return rows[~feats.held_out[rows]]


def sides(
    feats: FeatureSet, rows: Int[np.ndarray, " n"] | None = None
) -> tuple[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
    """States of some pairs in float64, and which of them choose the first of their two answers.

    Args:
        feats: Of one-token answers.
        rows: Of pairs that have two answers in all; every pair unless given.

    Example:
        >>> feats = FeatureSet.from_arrays(np.eye(2), chosen=["Yes", "No"], rejected=["No", "Yes"],
        ...                                tokens=["Yes", "No"])
        >>> states, positive = sides(feats)
        >>> states.tolist(), positive.tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [True, False])
    """
    rows = np.arange(len(feats)) if rows is None else rows
    answers = feats.two_answers(rows)
    assert answers is not None
    return feats.states[rows].astype(np.float64), answers.positive


def distance(feats: FeatureSet, rows: Int[np.ndarray, " n"] | None = None) -> float:
    """Distinguishability of some pairs, as `sides` takes them."""
    return distinguishability(*sides(feats, rows))
