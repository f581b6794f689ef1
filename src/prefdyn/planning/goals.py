"""What a plan is to reach: a score of the groups' held-out losses, smaller is better, and what it must not do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, softmax

from prefdyn._checks import nearest, one_of
from prefdyn.errors import ConfigError, DataError

GOALS = ("worst", "mean", "equal")
"""Least loss of the worst group; least mean over groups; the largest of the least shares of what each reaches alone."""
_HARD = 10.0
"""What a nat beyond a limit costs in the score."""
_REACHES = 0.02
"""A group must fall by this share of its first loss when it trains alone, or it has no share of that to reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is asked for."""

    name: str = "worst"
    limits: Mapping[str, float] = field(default_factory=dict)
    """Held-out loss in nats that a group must keep below, by group."""
    slack: float | None = None
    """By how many nats any group may become worse than as given; None: any."""

    @classmethod
    def read(cls, text: str, *, slack: float | None = None) -> "Goal":
        """From `worst`, `mean`, `equal` or `protect=GROUP:LOSS` (the mean, one group held below a loss).

        Raises:
            ConfigError: It is none of these, or `slack` is below 0.

        Example:
            >>> Goal.read("protect=a:b:0.5").limits
            {'a:b': 0.5}
        """
        if slack is not None and not slack >= 0:
            raise ConfigError(f"--no-worse {slack} is below 0; give the nats that a group may lose")
        if not text.startswith("protect="):
            return cls(name=one_of(text, GOALS, name="--goal"), slack=slack)
        group, _, loss = text.removeprefix("protect=").rpartition(":")
        try:
            limit = float(loss)
        except ValueError:
            limit = np.nan
        if not group or not np.isfinite(limit):
            raise ConfigError(f"--goal {text!r} must be protect=GROUP:LOSS, such as --goal protect=rare:0.4")
        return cls(name="mean", limits={group: limit}, slack=slack)

    def check(self, groups: Sequence[str]) -> None:
        """Refuse limits of groups that are not there.

        Raises:
            DataError: One is no group.
        """
        for name in self.limits:
            if name not in groups:
                raise DataError(f"--goal protects {name!r}, which is no group{nearest(name, groups)}")

    def score(
        self,
        groups: Sequence[str],
        given: Float[np.ndarray, " m"],
        *,
        start: float,
        alone: Float[np.ndarray, " m"] | None = None,
    ) -> "GoalScore":
        """The score on one split, from the groups' losses as given and, for `equal`, alone; NaN: not in the split.

        Raises:
            DataError: No group has what the goal is about.
        """
        limit = np.full(len(groups), np.inf) if self.slack is None else given + self.slack
        for name, value in self.limits.items():
            limit[groups.index(name)] = min(limit[groups.index(name)], value)
        scale, offset = np.ones(len(groups)), np.zeros(len(groups))
        if self.name == "equal":
            assert alone is not None
            reach = start - alone
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.where(reach > _REACHES * abs(start), 1 / reach, np.nan)
            offset = -start * scale
            limit = np.where(np.isnan(scale), np.fmin(limit, given), limit)  # what learns nothing alone may not pay
        scale = np.where(np.isfinite(given), scale, np.nan)
        if not np.isfinite(scale).any():
            raise DataError(f"no group can be judged by the goal {self.name!r}: none learns anything alone")
        return GoalScore(scale=scale, offset=offset, limit=limit, mean=self.name == "mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalScore:
    r"""Largest or mean of $a_g L_g + b_g$ over the groups with a finite $a_g$, and a price on losses over limits."""

    scale: Float[np.ndarray, " m"]
    offset: Float[np.ndarray, " m"]
    limit: Float[np.ndarray, " m"]
    mean: bool

    def hard(self, losses: Float[np.ndarray, "... m"]) -> Float[np.ndarray, "..."]:
        """The score of losses; infinite where one is not finite."""
        inside = np.isfinite(self.scale)
        with np.errstate(invalid="ignore"):
            parts = losses[..., inside] * self.scale[inside] + self.offset[inside]
        found = parts.mean(axis=-1) if self.mean else parts.max(axis=-1)
        found = found + self._over(losses).sum(axis=-1)
        return np.where(np.isfinite(found), found, np.inf)

    def smooth(
        self, losses: Float[np.ndarray, "... m"], sharpness: float
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "... m"]]:
        r"""The score with $\frac1\tau \log \sum \exp \tau x$ in place of the largest, and its slope in each loss."""
        inside = np.isfinite(self.scale)
        parts = losses[..., inside] * self.scale[inside] + self.offset[inside]
        slope = np.zeros(losses.shape)
        if self.mean:
            value = parts.mean(axis=-1)
            slope[..., inside] = self.scale[inside] / inside.sum()
        else:
            value = np.asarray(logsumexp(sharpness * parts, axis=-1)) / sharpness
            slope[..., inside] = softmax(sharpness * parts, axis=-1) * self.scale[inside]
        over = self._over(losses)
        value = value + over.sum(axis=-1)
        return np.where(np.isfinite(value), value, np.inf), slope + _HARD * (over > 0)

    def _over(self, losses: Float[np.ndarray, "... m"]) -> Float[np.ndarray, "... m"]:
        with np.errstate(invalid="ignore"):
            over = _HARD * np.maximum(losses - self.limit, 0.0)
        return np.where(np.isnan(over), 0.0, over)
