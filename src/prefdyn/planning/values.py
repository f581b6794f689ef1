r"""What each training pair is worth to held-out pairs: what leaving it out would add to their loss.

One walk back through the joint run (`prefdyn.dynamics.adjoint`) gives, for every training pair, the derivative of every
group's held-out loss in its weight; minus that, times the weight, is what the loss gains when the pair is left out, to
first order and with the mean taken over the rest. **Positive: the pair helps. Negative: the loss would be lower without
it.**

A value rests on the held-out units that it is measured on. They are dealt into blocks, each block is a target of the
same walk, and a resample draws blocks with replacement: it costs a weighted sum.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._random import stream
from prefdyn.dynamics.adjoint import one_setting, sensitivity
from prefdyn.dynamics.datamodel import reweighted
from prefdyn.dynamics.descent import MANY_GROUPS
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.maths.units import Z95, Mean, mean_of, redrawn

BLOCKS = 5
"""Parts that a group's held-out units are dealt into, at most."""
_FEWEST = 4
"""With fewer parts nothing is drawn: a group is one part, and no sign is known."""
RESAMPLES = 100
_WORK = 1.2e11
"""Operations that the walk may take: some five seconds of one core, for an audit is not to wait for it. They decide how
many parts a group has; where not even one each fits no value is given."""
_DROPPED, _LEAST, _DRAWS = 0.01, 10, 40
"""Share of the training pairs that is left out to see what values are good for, and at least so many; random sets of as
many pairs beside them."""
_ELEMENTWISE = 500
"""Operations beside the products that a step costs per pair and target, as time goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairValues:
    """What leaving a pair out would add to a held-out loss at the end of the run, nats; NaN where not trained on."""

    own: Float[np.ndarray, " n"]
    """To the mean held-out loss of the pair's own group; NaN where the group holds none out."""
    all: Float[np.ndarray, " n"]
    """To the mean held-out loss over all pairs."""
    worst: Float[np.ndarray, " n"]
    """To that of the group whose held-out loss is highest."""
    sign: Float[np.ndarray, " n"]
    """In how many of the resamples of its group's held-out units `own` keeps its sign; NaN where they are one unit."""
    worst_group: str
    resamples: int
    halves: Float[np.ndarray, "2 n"]
    """As `all`, by one half of every group's held-out units each; NaN where no group has two blocks of them."""
    judges: Bool[np.ndarray, "2 n"]
    """Held-out pairs of the other half each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCheck:
    """What leaving pairs out truly does, by runs without them, to held-out pairs that their values did not see.

    Changes of the mean held-out loss, nats: values of one half of the held-out units choose, the other half judges, and
    the two are averaged.
    """

    pairs: int
    """Left out each time."""
    lowest: Mean
    """Without the pairs of lowest value: below 0 where that is better. With its error over held-out units."""
    highest: Mean
    """Without those of highest value."""
    random: Float[np.ndarray, " draws"]
    """Without as many random pairs."""

    @property
    def worth(self) -> bool:
        """Whether it is better without the pairs of lowest value, by a 95 % interval, and than 95 % of the random sets.

        Those sets alone are no null: pairs of extreme value pull more than others, whichever way.
        """
        reach = Z95 * self.lowest.error
        return self.lowest.value + reach < 0 and self.lowest.value < float(np.percentile(self.random, 5.0))

    def to_json(self) -> dict[str, float | bool]:
        """As plain JSON, the random sets by their mean and the middle 90 %."""
        low, high = np.percentile(self.random, (5.0, 95.0))
        return {
            "worth": self.worth, "pairs": self.pairs, "lowest": self.lowest.value, "lowest_error": self.lowest.error,
            "highest": self.highest.value, "highest_error": self.highest.error, "draws": len(self.random),
            "random": float(self.random.mean()), "random_low": float(low), "random_high": float(high),
        }  # fmt: skip


def pair_values(
    feats: FeatureSet,
    objective: Objective,
    unit: Int[np.ndarray, " n"],
    *,
    learning_rate: float,
    steps: int,
    seed: int = 0,
    progress: bool = False,
) -> PairValues | None:
    """Values of all training pairs in one full-batch run, in one walk back.

    Args:
        feats: Features of either kind, as the objective sees them.
        objective: The loss of the margin.
        unit: Equal integers for pairs that hang together.
        learning_rate: Step size of the run.
        steps: Steps of the run.
        seed: Deals units into blocks, and draws blocks.
        progress: Show bars on stderr where it is a terminal.

    Returns:
        The values; None where no pair is held out, beyond 200 groups, or where the walk would take long, as with many
        pairs times many groups (see `affordable`).

    Raises:
        ConfigError: The run diverges.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(60, groups=2, width=8, half_gap=[2.0, 0.5], held_out=0.5)
        >>> found = pair_values(feats, DPO(), np.arange(120), learning_rate=2.0, steps=20)
        >>> bool(np.nanmean(found.own) > 0), found.worst_group
        (True, 'group 1')
    """
    blocks = _blocks(feats, unit, affordable(feats, steps), seed)
    if not len(blocks.masks):
        return None
    found = sensitivity(
        feats, of=blocks.masks.astype(np.float64), objective=objective, learning_rate=learning_rate, steps=steps,
        progress=progress,
    )  # fmt: skip
    share = feats.weight / feats.weight[~feats.held_out].sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        gained = -found.pair * feats.weight / (1 - share)  # (blocks, n): added to the sum of a block's losses
    sizes = blocks.masks.sum(axis=1)
    groups = np.unique(blocks.group)
    count = np.array([sizes[blocks.group == code].sum() for code in groups])
    lost = np.array([found.value[blocks.group == code].sum() for code in groups]) / count
    worst = int(groups[np.argmax(lost)])
    own, sign = np.full(len(feats), math.nan), np.full(len(feats), math.nan)
    rng = stream(seed, "pair-values", "resamples")
    for code, size in zip(groups, count, strict=True):
        rows = np.flatnonzero((feats.group == code) & ~feats.held_out)
        mine = np.flatnonzero(blocks.group == code)
        of_blocks = gained[np.ix_(mine, rows)]
        own[rows] = of_blocks.sum(axis=0) / size
        if len(mine) > 1:
            drawn = redrawn(len(mine), RESAMPLES, rng)
            sign[rows] = (np.sign(drawn @ of_blocks) == np.sign(own[rows])).sum(axis=0)
    turn = np.array([np.sum(blocks.group[:at] == code) % 2 for at, code in enumerate(blocks.group)])
    halves, judges = np.full((2, len(feats)), math.nan), np.zeros((2, len(feats)), dtype=bool)
    for half in range(2) if (turn == 1).any() else ():
        mine = turn == half
        halves[half] = gained[mine].sum(axis=0) / sizes[mine].sum()
        judges[half] = blocks.masks[~mine].any(axis=0)
    return PairValues(
        own=own,
        all=gained.sum(axis=0) / sizes.sum(),
        worst=gained[blocks.group == worst].sum(axis=0) / sizes[blocks.group == worst].sum(),
        sign=sign,
        worst_group=feats.groups[worst],
        resamples=RESAMPLES,
        halves=halves,
        judges=judges,
    )


def drop_check(
    feats: FeatureSet,
    objective: Objective,
    unit: Int[np.ndarray, " n"],
    values: PairValues,
    *,
    learning_rate: float,
    steps: int,
    seed: int = 0,
    progress: bool = False,
) -> DropCheck | None:
    """Leave out the pairs of lowest value, those of highest, and random ones, and run again: all in one solve.

    Args:
        feats: What `pair_values` was given, as for all arguments but the values.
        objective: The loss of the margin.
        unit: Equal integers for pairs that hang together.
        values: What it found.
        learning_rate: Step size of the run.
        steps: Steps of the run.
        seed: Draws the random pairs.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        The changes; None where held-out units were not cut into halves, fewer than twice the pairs that are left out
        are trained on, or the runs would take long.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(60, groups=2, width=8, half_gap=[2.0, 0.5], held_out=0.5)
        >>> run = {"learning_rate": 2.0, "steps": 20}
        >>> unit = np.arange(120)
        >>> found = drop_check(feats, DPO(), unit, pair_values(feats, DPO(), unit, **run), **run)
        >>> bool(found.lowest.value < found.random.mean() < found.highest.value)
        True
    """
    trained = np.flatnonzero(~feats.held_out)
    count = max(_LEAST, round(_DROPPED * len(trained)))
    runs = 5 + _DRAWS
    if np.isnan(values.halves[:, trained]).any() or len(trained) < 2 * count or affordable(feats, steps) < runs:
        return None
    kept = np.ones((len(feats), runs))
    for half in range(2):
        order = trained[np.argsort(values.halves[half, trained], kind="stable")]
        kept[order[:count], 1 + half] = 0.0
        kept[order[-count:], 3 + half] = 0.0
    rng = stream(seed, "pair-values", "random")
    for column in range(5, runs):
        kept[rng.choice(trained, count, replace=False), column] = 0.0
    setting = one_setting(feats, objective=objective, learning_rate=learning_rate)
    outcomes = reweighted(feats, setting, steps, kept, label="Runs without pairs", progress=progress)[1]
    if any(steps not in outcome.margins for outcome in outcomes):
        return None
    losses = np.stack([objective.loss(outcome.margins[steps]) for outcome in outcomes])
    changes, held = losses - losses[0], feats.held_out
    lowest, highest = (np.where(values.judges[0], changes[at], changes[at + 1])[held] for at in (1, 3))
    return DropCheck(
        pairs=count,
        lowest=mean_of(lowest, unit[held]),
        highest=mean_of(highest, unit[held]),
        random=changes[5:, held].mean(axis=1),
    )


@dataclass(frozen=True, slots=True)
class _Blocks:
    masks: Bool[np.ndarray, "blocks n"]
    """Held-out pairs of each block: whole units."""
    group: Int[np.ndarray, " blocks"]


def affordable(feats: FeatureSet, steps: int) -> int:
    """How many targets one walk back through so many steps may carry.

    Example:
        >>> feats = FeatureSet.from_arrays(np.eye(4, 100), chosen=[0, 1, 0, 1], rejected=[1, 0, 1, 0])
        >>> affordable(feats, 100), affordable(feats, 10**6)
        (590551, 59)
    """
    products = min(4 * feats.coordinates()[1].shape[1] * feats.kernel_width, 2 * len(feats))
    return int(_WORK / (len(feats) * (products + _ELEMENTWISE) * steps))


def _blocks(feats: FeatureSet, unit: Int[np.ndarray, " n"], targets: int, seed: int) -> _Blocks:
    """The held-out units of every group, dealt into blocks: as many as so many targets allow, or none at all."""
    members = [(code, rows[feats.held_out[rows]]) for code, rows in enumerate(feats.by_group())]
    members = [(code, rows) for code, rows in members if len(rows)]
    most = min(BLOCKS, targets // max(1, len(members)))
    most = min(most, 1) if most < _FEWEST else most
    masks, group = [], []
    for code, rows in members if most and len(members) <= MANY_GROUPS else ():
        _, place = np.unique(unit[rows], return_inverse=True)
        count = int(place.max()) + 1
        # by lot alone: halves made alike would share what is by chance in the held-out units
        dealt = stream(seed, "pair-values", feats.groups[code]).permutation(count) % min(most, count)
        for block in range(min(most, count)):
            mask = np.zeros(len(feats), dtype=bool)
            mask[rows[dealt[place] == block]] = True
            masks.append(mask)
            group.append(code)
    return _Blocks(np.array(masks, dtype=bool).reshape(len(masks), len(feats)), np.array(group, dtype=np.int64))
