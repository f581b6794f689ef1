r"""Likelihood displacement, before any training: will the log-probability of a chosen response fall?

Two measures stand side by side. The pushes say what the joint first step does to each response's log-probability, all
other pairs included. CHES looks at one pair alone, and beyond the head: responses whose states lie close to each other
share what raises and lowers them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn.diagnostics.prioritization import PairPushes
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Displacement:
    """What is known of each pair's displacement. None: unknown for all pairs."""

    groups: tuple[str, ...]
    group: Int[np.ndarray, " n"]
    """Index into `groups`."""
    chosen_push: Float[np.ndarray, " n"] | None
    """Change of the chosen response's log-probability by the joint first step, nats, first order."""
    rejected_push: Float[np.ndarray, " n"] | None
    """The same of the rejected response."""
    ches: Float[np.ndarray, " n"] | None
    """Length-normalised CHES; higher: more displacement is predicted. None for one-token answers."""

    def rows(self) -> list[dict[str, Any]]:
        """Means of each group, and the share of its pairs whose chosen response starts by falling; None: unknown."""
        falls = None if self.chosen_push is None else self.chosen_push < 0
        sizes = np.bincount(self.group, minlength=len(self.groups))
        by_group = np.split(np.argsort(self.group, kind="stable"), np.cumsum(sizes)[:-1])
        return [
            {
                "name": name,
                "chosen_push": _mean(self.chosen_push, rows),
                "rejected_push": _mean(self.rejected_push, rows),
                "chosen_falls_first": _mean(falls, rows),
                "ches": _mean(self.ches, rows),
            }
            for name, rows in zip(self.groups, by_group, strict=True)
        ]


def displacement(feats: FeatureSet, pushes: PairPushes) -> Displacement:
    """The first step's push on both responses of every pair, and CHES, with means per group.

    Uses every pair, held out or not. The pushes are of the first step alone: over many steps the log-probabilities of
    long responses leave their first-order course sooner than the margin does, so read signs and order, not sizes.

    Args:
        feats: Features of either kind.
        pushes: What `pair_pushes` found for the same pairs.

    Returns:
        One number per pair and measure.

    Raises:
        DataError: The pushes are of another number of pairs.

    Reference:
        THEORY 4.6 (b) for the pushes; see `ches`.

    Example:
        >>> from prefdyn.diagnostics.prioritization import pair_pushes
        >>> feats = FeatureSet.from_arrays([[-1.0, 1]], chosen_features=[[1.0, 0]], rejected_features=[[3.0, 0]],
        ...                                chosen_states=[[1.0, 1]])
        >>> row = displacement(feats, pair_pushes(feats, beta=1.0, learning_rate=1.0)).rows()[0]
        >>> row["chosen_push"], row["rejected_push"], row["chosen_falls_first"], abs(row["ches"])
        (-1.0, -3.0, 1.0, 0.0)
    """
    if len(pushes.agreement) != len(feats):
        raise DataError(
            f"the pushes are of {len(pushes.agreement)} pairs and the features of {len(feats)}; give the pushes that "
            "pair_pushes(feats, …) found for these features"
        )
    return Displacement(
        groups=feats.groups,
        group=feats.group,
        chosen_push=pushes.chosen_push,
        rejected_push=pushes.rejected_push,
        ches=None if feats.chosen_states is None else ches(feats.chosen_states, feats.states),
    )


def ches(chosen_states: Float[np.ndarray, "n d"], differences: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    r"""Length-normalised centered hidden embedding similarity of every pair.

    $$ \mathrm{CHES} = \langle \bar h_+, \bar h_- \rangle - \lVert \bar h_+ \rVert^2
       = -\langle \bar h_+, \bar h_+ - \bar h_- \rangle, $$

    with $\bar h_\pm$ the mean over a response's tokens of the final state that predicts the token: the first is the
    state at the last prompt token, the state at the last response token takes no part. Summed in float64.

    Args:
        chosen_states: $\bar h_+$ of each pair.
        differences: $\bar h_+ - \bar h_-$ of each pair.

    Returns:
        One score per pair, in the squared unit of the states. The higher, the more the chosen response is predicted to
        lose; scores compare pairs of one model, never two models.

    Reference:
        Razin et al. (2024), "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
        arXiv:2410.08847: the CHES score, in the length-normalised form that it filters data by.

    Example:
        >>> ches(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]) - np.array([[3.0, 2.0]])).tolist()  # 7 - 5
        [2.0]
    """
    return -np.einsum("ij,ij->i", chosen_states, differences, dtype=np.float64)


def _mean(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"] | None, rows: Int[np.ndarray, " size"]
) -> float | None:
    return None if values is None or len(rows) == 0 else float(values[rows].mean())
