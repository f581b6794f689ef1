r"""The cluster model: K values, each a pair of Gaussian clusters around $\pm c_k$ with a common offset $b$.

$x \sim N(s\,c_k + b,\ v^2 I_d)$, $s = \pm1$; the $c_k$ are unit vectors, orthogonal to each other and to $b$. The
clusters of one value prefer the same two tokens, in opposite order. Lengths are in units of the half gap: features
whose class means lie $2h$ apart are divided by $h$ first (`prefdyn.maths.geometry.shared_norm_and_spread` does).
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prefdyn._checks import at_least, positive
from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.bound import Condition


class TokenSharing(NamedTuple):
    """How the answers of the values overlap."""

    sharing: int
    """Z: the largest number of values in which one token appears."""
    distinct: bool
    """Whether no two values have the same two tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterModel:
    r"""The constants of 2408.03459: everything its theorems ask about the data.

    Raises:
        ConfigError: A count below 1, a spread that is not above 0, or a negative offset.

    Reference:
        2408.03459, section 3 (data model); THEORY 3.1.

    Example:
        >>> model = ClusterModel(values=10, per_cluster=880, width=4096, noise=0.001, shared_norm=0.25)
        >>> model.pairs
        17600
        >>> all(condition.holds is not False for condition in model.conditions())
        True
    """

    values: int
    """K, the number of values: pairs of clusters."""
    per_cluster: int
    """Q, the preference pairs in each of the 2K clusters."""
    width: int
    """d, the number of coordinates of a feature."""
    noise: float
    """v, the standard deviation of every coordinate, in units of the half gap; above 0."""
    shared_norm: float
    """l_b, the norm of the offset that all values share, in units of the half gap."""
    sharing: int = 1
    """Z, the number of values in which one token appears, or more; 1: every value has tokens of its own."""
    distinct: bool | None = None
    """Whether no two values have the same two tokens; None where unknown."""

    def __post_init__(self) -> None:
        for name in ("values", "per_cluster", "width", "sharing"):
            at_least(getattr(self, name), 1, name=name)
        positive(self.noise, name="noise", fix="give the standard deviation of a coordinate within a cluster")
        if not (math.isfinite(self.shared_norm) and self.shared_norm >= 0):
            raise ConfigError(f"shared_norm is {self.shared_norm!r}, but must be a finite number, 0 or above")

    @classmethod
    def at_the_limits(
        cls, values: int, per_cluster: int, *, sharing: int = 1, shared_norm: float = 0.25
    ) -> "ClusterModel":
        r"""The least favourable model that Theorem 4.2 allows: $v = 1/(32\sqrt Q)$ and $d = 5Q$.

        Example:
            >>> ClusterModel.at_the_limits(10, 100).noise
            0.003125
        """
        return cls(
            values=values,
            per_cluster=per_cluster,
            width=5 * per_cluster,
            noise=1 / (32 * math.sqrt(per_cluster)),
            shared_norm=shared_norm,
            sharing=sharing,
        )

    @property
    def pairs(self) -> int:
        """N = 2KQ, the number of preference pairs."""
        return 2 * self.values * self.per_cluster

    @property
    def largest_eps(self) -> float:
        r"""$1/(16 v (Z+2))$: how many standard deviations the proof lets an inner product stray."""
        return 1 / (16 * (self.sharing + 2)) / self.noise

    @property
    def total_variance(self) -> float:
        r"""$d v^2$: squared distance of a feature from its cluster's centre, on average."""
        return self.width * self.noise * self.noise

    def conditions(self, eps: float | None = None) -> tuple[Condition, ...]:
        r"""What Theorem 4.2 asks, each with its measured value.

        Args:
            eps: The deviation $\epsilon$ of the refined form; without it, the largest that is allowed is meant.

        Reference:
            2408.03459, Theorem 4.2 (conditions); THEORY 3.4, X-8.
        Found:
            Wrong. The summary of the paper asks Z <= l_b^2/4, which no number of values meets (l_b <= 1/2 would
            force Z <= 1/16); what its proof uses is Z <= 1/(4 l_b^2), which is asked here.
        """
        found = (
            Condition(says="Z <= 1/(4 l_b^2)", measured=self.sharing, limit=_sharing_limit(self.shared_norm)),
            Condition(says="l_b >= 1/4", measured=self.shared_norm, relation=">=", limit=0.25),
            Condition(says="l_b <= 1/2", measured=self.shared_norm, limit=0.5),
            *self.size_conditions(),
            *self.structure_conditions(),
        )
        return found if eps is None else (*found, self._eps_condition(eps))

    def size_conditions(self) -> tuple[Condition, ...]:
        """What the theorems ask of width and spread: few coordinates and small clusters beside Q."""
        return (
            Condition(says="d <= 5 Q", measured=self.width, limit=5 * self.per_cluster),
            Condition(says="v <= 1/(32 sqrt Q)", measured=self.noise, limit=1 / (32 * math.sqrt(self.per_cluster))),
        )

    def structure_conditions(self) -> tuple[Condition, ...]:
        """What makes data a cluster model at all: orthogonal directions, answers of their own, Gaussian clusters."""
        repeats = math.nan if self.distinct is None else float(not self.distinct)
        return (
            Condition(says="d >= K + 1", measured=self.width, relation=">=", limit=self.values + 1),
            Condition(
                says="no two values have the same two tokens",
                measured=repeats,
                limit=math.nan if self.distinct is None else 0,
            ),
            Condition(says="Gaussian clusters of equal size, directions orthogonal to each other and to b"),
        )

    def _eps_condition(self, eps: float) -> Condition:
        return Condition(says="eps <= 1/(16 v (Z + 2))", measured=eps, limit=self.largest_eps)


def _sharing_limit(shared_norm: float) -> float:
    square = 4 * shared_norm * shared_norm
    return 1 / square if square > 0 else math.inf


def token_sharing(answers: Sequence[tuple[Hashable, Hashable]]) -> TokenSharing:
    """Z, and whether the answers are distinct, from the (chosen, rejected) tokens of each value.

    Counted per value, not per cluster, as the union bounds of Lemma B.1 need it. Order within a value is of no
    account: its other cluster has the two tokens swapped.

    Raises:
        DataError: No value, or one whose two tokens are the same.

    Reference:
        2408.03459, section 4 (Z); THEORY 3.1.

    Example:
        >>> token_sharing([("a", "b"), ("b", "c"), ("d", "e")])
        TokenSharing(sharing=2, distinct=True)
        >>> token_sharing([("Yes", "No"), ("No", "Yes")])
        TokenSharing(sharing=2, distinct=False)
    """
    if not answers:
        raise DataError("token_sharing was given 0 values; give the two tokens of each value")
    for place, (chosen, rejected) in enumerate(answers):
        if chosen == rejected:
            raise DataError(
                f"value {place} has the same token {chosen!r} as chosen and rejected; give two different tokens"
            )
    counts = Counter(token for pair in answers for token in pair)
    return TokenSharing(max(counts.values()), len({frozenset(pair) for pair in answers}) == len(answers))
