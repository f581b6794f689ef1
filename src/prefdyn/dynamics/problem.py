r"""What a run needs to know of its pairs beside their features: small columns, one value per pair."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn.features import FeatureSet

_BLOCK_ROWS = 8192

Arrays = Callable[[np.ndarray], Any]
"""Takes a NumPy array to the library and device that computes, such as `torch.as_tensor`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Labels, weights, reference log-probabilities and token coordinates of n pairs."""

    number: Int[np.ndarray, " n"]
    """Row of the pair in the FeatureSet."""
    answers: Float[np.ndarray, "n p"]
    basis: Float[np.ndarray, "k p"]
    """Columns: orthonormal differences of the k tokens. No rows for longer responses."""
    group: Int[np.ndarray, " n"]
    groups: tuple[str, ...]
    held_out: Bool[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    chosen: Int[np.ndarray, " n"] | None
    rejected: Int[np.ndarray, " n"] | None
    log_probs: Float[np.ndarray, "n k"] | None
    """Reference log-probability of each of the k tokens, nats; None where it is not known."""
    ref_chosen: Float[np.ndarray, " n"] | None
    ref_rejected: Float[np.ndarray, " n"] | None
    per_token: bool
    """Whether log-ratios are means over tokens."""

    @classmethod
    def of(cls, feats: FeatureSet) -> "Pairs":
        """The columns of all pairs of the features."""
        answers, basis = feats.coordinates()
        return cls(
            number=np.arange(len(feats)),
            answers=answers,
            basis=basis,
            group=feats.group,
            groups=feats.groups,
            held_out=feats.held_out,
            weight=feats.weight,
            chosen=feats.chosen,
            rejected=feats.rejected,
            log_probs=_log_probs(feats),
            ref_chosen=feats.ref_chosen_logps,
            ref_rejected=feats.ref_rejected_logps,
            per_token=feats.per_token,
        )

    def __len__(self) -> int:
        return len(self.number)

    @property
    def tokens(self) -> int:
        """How many tokens occur; 0 for longer responses."""
        return self.basis.shape[0]

    @property
    def train(self) -> Int[np.ndarray, " trained"]:
        """Places of the pairs that are trained on."""
        return np.flatnonzero(~self.held_out)

    def rows(self, index: Any) -> "Pairs":
        """The columns of some pairs. Coordinates, groups and row numbers stay those of the whole."""

        def pick(value: np.ndarray | None) -> Any:
            return None if value is None else value[index]

        return Pairs(
            number=self.number[index],
            answers=self.answers[index],
            basis=self.basis,
            group=self.group[index],
            groups=self.groups,
            held_out=self.held_out[index],
            weight=self.weight[index],
            chosen=pick(self.chosen),
            rejected=pick(self.rejected),
            log_probs=pick(self.log_probs),
            ref_chosen=pick(self.ref_chosen),
            ref_rejected=pick(self.ref_rejected),
            per_token=self.per_token,
        )

    def of_group(self, index: Int[np.ndarray, " size"]) -> "Pairs":
        """The columns of the pairs of one group, and no other group beside it: what is measured has its cells alone."""
        (code,) = np.unique(self.group[index])
        part = self.rows(index)
        return replace(part, group=np.zeros(len(index), dtype=self.group.dtype), groups=(self.groups[code],))

    def differences(self) -> Float[np.ndarray, "n k"]:
        """$e_w - e_l$ among the k tokens, one row per pair."""
        assert self.chosen is not None
        assert self.rejected is not None
        rows = np.arange(len(self))
        found = np.zeros((len(self), self.tokens))
        found[rows, self.chosen] = 1.0
        found[rows, self.rejected] = -1.0
        return found


def as_seen(feats: FeatureSet, objective: Any) -> FeatureSet:
    """The features as an objective sees them: averaged over tokens where its margin is."""
    return feats.averaged() if objective.per_token else feats


def _log_probs(feats: FeatureSet) -> np.ndarray | None:
    """`feats.answer_log_probs()`, some rows at a time: never a copy of all states."""
    if len(feats) <= _BLOCK_ROWS or len(feats.tokens) == 2:
        return feats.answer_log_probs()
    parts = []
    for start in range(0, len(feats), _BLOCK_ROWS):
        part = feats.select(slice(start, start + _BLOCK_ROWS)).answer_log_probs()
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts)


def spread(values: Float[np.ndarray, "*m some"], places: Int[np.ndarray, " some"], n: int) -> Float[np.ndarray, "*m n"]:
    """Numbers of some of n pairs as numbers of all; NaN for the others.

    Example:
        >>> spread(np.array([5.0, 7.0]), np.array([2, 0]), 3).tolist()
        [7.0, nan, 5.0]
    """
    found = np.full((*values.shape[:-1], n), np.nan)
    found[..., places] = values
    return found
