"""What a plan is to reach: a score of the groups' held-out losses or accuracies, smaller is better, and its limits."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit, logsumexp, softmax

from prefdyn._checks import nearest, one_of
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import Objective

GOALS = ("worst", "mean", "equal")
OF_SETTINGS = ("worst", "mean")
"""Goals that settings can be planned for: those of losses alone."""
"""Least loss of the worst group; least mean over groups; the largest of the least shares of what each reaches alone."""
_HARD = 10.0
"""What a nat beyond a limit costs in the score."""
_REACHES = 0.02
"""A group must fall by this share of its first loss when it trains alone, or it has no share of that to reach."""
_WIDTH = 0.1
"""How soft a wrong pair is while weights are searched for, of the margins' root mean square as given."""
_TARGET = re.compile(r"(.+?):([^:,]+)(?:,|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is asked for."""

    name: str = "worst"
    limits: Mapping[str, float] = field(default_factory=dict)
    """Held-out loss in nats that a group must keep below, by group."""
    slack: float | None = None
    """By how many nats any group may become worse than as given, those with a wanted accuracy aside; None: any."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Of the goal `target`: the share of held-out pairs that a group is to get right, by group."""

    @classmethod
    def read(cls, text: str, *, slack: float | None = None) -> "Goal":
        """From `worst`, `mean`, `equal`, `protect=GROUP:LOSS` (the mean, one group held below a loss) or
        `target=GROUP:ACCURACY,…` (the mean of what groups fall short of a share of held-out pairs that are right).

        Raises:
            ConfigError: It is none of these, an accuracy is not above 0 and at most 1, or `slack` is below 0.

        Example:
            >>> Goal.read("protect=a:b:0.5").limits
            {'a:b': 0.5}
            >>> Goal.read("target=rare:0.9,a,b:0.8").accuracy
            {'rare': 0.9, 'a,b': 0.8}
        """
        if slack is not None and not slack >= 0:
            raise ConfigError(f"--no-worse {slack} is below 0; give the nats that a group may lose")
        if text.startswith("target="):
            return cls(name="target", accuracy=_accuracies(text), slack=slack)
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
        """Refuse groups that are not there.

        Raises:
            DataError: One is no group.
        """
        for name in (*self.limits, *self.accuracy):
            if name not in groups:
                raise DataError(f"--goal names {name!r}, which is no group{nearest(name, groups)}")

    def measure(
        self,
        objective: Objective,
        groups: Sequence[str],
        group: Int[np.ndarray, " n"],
        margins: Float[np.ndarray, " n"],
    ) -> "Measure":
        """What the search reads of pairs.

        Args:
            objective: Whose losses count.
            groups: Names of the groups.
            group: Of each pair.
            margins: In the run as given.
        """
        wanted = np.isin(group, [place for place, name in enumerate(groups) if name in self.accuracy])
        width = _WIDTH * float(np.sqrt(np.mean(margins[wanted] ** 2))) if wanted.any() else 0.0
        return Measure(objective=objective, wanted=wanted, width=width)

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
        scale, offset, least = np.ones(len(groups)), np.zeros(len(groups)), -np.inf
        if self.name == "target":
            wrong = np.array([1 - self.accuracy.get(name, np.nan) for name in groups])
            limit = np.where(np.isnan(wrong), limit, np.inf)
            scale, offset, least = scale + 0 * wrong, -wrong, 0.0
        if self.name == "equal":
            assert alone is not None
            reach = start - alone
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.where(reach > _REACHES * abs(start), 1 / reach, np.nan)
            offset = -start * scale
            limit = np.where(np.isnan(scale), np.fmin(limit, given), limit)  # what learns nothing alone may not pay
        scale = np.where(np.isfinite(given), scale, np.nan)
        if not np.isfinite(scale).any():
            why = (
                "none learns anything alone" if self.name == "equal" else "none has pairs enough to choose and judge by"
            )
            raise DataError(f"no group can be judged by the goal {self.name!r}: {why}")
        return GoalScore(scale=scale, offset=offset, limit=limit, mean=self.name in ("mean", "target"), least=least)


def _accuracies(text: str) -> dict[str, float]:
    body, found = text.removeprefix("target="), {}
    parts = list(_TARGET.finditer(body))
    for part in parts:
        try:
            found[part[1]] = float(part[2])
        except ValueError:
            found[part[1]] = np.nan
    whole = "".join(part[0] for part in parts) == body and len(found) == len(parts)
    if not found or not whole or not all(0 < share <= 1 for share in found.values()):
        raise ConfigError(
            f"--goal {text!r} must be target=GROUP:ACCURACY,…, each group once and accuracies above 0 and at most 1, "
            "such as --goal target=rare:0.9"
        )
    return found


def hits(margins: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "... n"]:
    """1 for margins above 0, a half at 0; NaN where the run diverged (its margins are not finite)."""
    return np.where(np.isfinite(margins), (np.sign(margins) + 1) / 2, np.nan)


def start_loss(objective: Objective) -> float:
    """Loss of every pair before the first step, whose margin is 0, nats."""
    return float(np.asarray(objective.loss(np.zeros(1)))[0])


def finite_losses(objective: Objective, margins: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "... n"]:
    """Loss of every pair, in nats; infinite where the run diverged."""
    losses = objective.loss(margins)
    return np.where(np.isfinite(margins) & np.isfinite(losses), losses, np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    r"""What a score reads of n pairs: the loss; of groups with a wanted accuracy, how wrong the pair is.

    A pair is wrong by $\sigma(-r / h)$, which has a slope, and for width $h = 0$ by 1, ½ or 0 as its margin $r$ is
    below, at or above 0.
    """

    objective: Objective
    wanted: Bool[np.ndarray, " n"]
    """Pairs of groups with a wanted accuracy."""
    width: float = 0.0

    @property
    def hard(self) -> "Measure":
        """The same with pairs that are wrong or right."""
        return replace(self, width=0.0)

    def __call__(self, margins: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "... n"]:
        """Of every pair; infinite where a run diverged."""
        losses = finite_losses(self.objective, margins)
        if not self.wanted.any():
            return losses
        wrong = expit(-margins / self.width) if self.width else 1 - hits(margins)
        return np.where(self.wanted & np.isfinite(losses), wrong, losses)

    def slope(self, margins: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Of every pair, in its margin."""
        wrong = expit(-margins / self.width) if self.width else np.zeros(len(margins))
        steep = -wrong * (1 - wrong) / (self.width or 1.0)
        return np.where(self.wanted, steep, -self.objective.push(margins))


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalScore:
    r"""Largest or mean of $\max(a_g L_g + b_g, c)$ over groups of finite $a_g$, and a price on losses over limits."""

    scale: Float[np.ndarray, " m"]
    offset: Float[np.ndarray, " m"]
    limit: Float[np.ndarray, " m"]
    mean: bool
    least: float = -np.inf
    """The number $c$: what lies below counts no more."""

    def hard(self, losses: Float[np.ndarray, "... m"]) -> Float[np.ndarray, "..."]:
        """The score of losses; infinite where one is not finite."""
        inside = np.isfinite(self.scale)
        with np.errstate(invalid="ignore"):
            parts = np.maximum(losses[..., inside] * self.scale[inside] + self.offset[inside], self.least)
        found = parts.mean(axis=-1) if self.mean else parts.max(axis=-1)
        found = found + self._over(losses).sum(axis=-1)
        return np.where(np.isfinite(found), found, np.inf)

    def smooth(
        self, losses: Float[np.ndarray, "... m"], sharpness: float
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "... m"]]:
        r"""The score with $\frac1\tau \log \sum \exp \tau x$ in place of the largest, and its slope in each loss."""
        inside = np.isfinite(self.scale)
        parts = np.maximum(losses[..., inside] * self.scale[inside] + self.offset[inside], self.least)
        slope = np.zeros(losses.shape)
        if self.mean:
            value = parts.mean(axis=-1)
            slope[..., inside] = self.scale[inside] * (parts > self.least) / inside.sum()
        else:
            value = np.asarray(logsumexp(sharpness * parts, axis=-1)) / sharpness
            slope[..., inside] = softmax(sharpness * parts, axis=-1) * self.scale[inside]
        over = self._over(losses)
        value = value + over.sum(axis=-1)
        return np.where(np.isfinite(value), value, np.inf), slope + _HARD * (over > 0)

    def sharpest(self, error: float) -> float:
        """A sharpness at which the smooth largest is above the largest by one error of a group's mean at most, which
        takes log m of it for m groups. A sharper one would chase errors; a duller one prefers a worse worst group among
        few to a better one among many.

        Example:
            >>> score = GoalScore(scale=np.ones(4), offset=np.zeros(4), limit=np.full(4, np.inf), mean=False)
            >>> tau = score.sharpest(0.1)
            >>> round(float(score.smooth(np.full(4, 0.5), tau)[0]), 6)
            0.6
        """
        return max(1.0, math.log(int(np.isfinite(self.scale).sum()))) / max(error, 1e-6)

    def _over(self, losses: Float[np.ndarray, "... m"]) -> Float[np.ndarray, "... m"]:
        with np.errstate(invalid="ignore"):
            over = _HARD * np.maximum(losses - self.limit, 0.0)
        return np.where(np.isnan(over), 0.0, over)
