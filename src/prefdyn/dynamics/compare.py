"""Two runs of the same groups, side by side: prediction against training, base against aligned, DPO against SFT."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from prefdyn._checks import one_of, positive
from prefdyn._shape import of_many
from prefdyn._showing import Tabular
from prefdyn.dynamics.order import RankCorrelation, area, places, rank_correlation
from prefdyn.dynamics.pace import (
    Cell,
    Curve,
    CurveError,
    Rescaling,
    cells,
    curve_error,
    on_common_steps,
    rescaling,
)
from prefdyn.errors import DataError
from prefdyn.trajectory import SCHEMA, Trajectory

SPLITS = ("train", "held_out")
CURVES = ("loss", "margin")
"""Quantities whose curves are held against each other."""

_FIRST = (
    "objective", "label_smoothing", "beta", "learning_rate", "optimizer", "schedule", "warmup", "batch_size", "steps",
    "tune", "flip", "precision", "seed",
)  # fmt: skip
"""Settings that are told first."""

_POOR = 0.1
"""Misfit from which a rescaling is told to bring the curves not together: a third of the way that they move, apart."""

_SHORT = 0.1
"""Share of a run's steps below which a rescaled comparison is told to see little of it."""

Key = tuple[str, str]
Cells = Mapping[Key, Cell]


class SettingDifference(NamedTuple):
    """A setting in which two runs differ; None where a run does not have it."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRun:
    """One group and split in one of the runs, at its end where nothing else is said. NaN: not measured."""

    pairs: int
    loss: float
    loss_fall: float
    """From the first recorded step to the last."""
    margin: float
    area: float
    """Mean loss over the run; what the order of learning goes by."""
    place: float
    """In the order of learning of this split, 1 first, among the groups that both runs have."""
    steps_to_half: float
    """Until half of the way that the run with the smaller fall goes in all."""
    chosen_change: float
    rejected_change: float
    distinguishability_before: float
    distinguishability_after: float
    spread_before: float
    """Trace of the larger class covariance over squared distinguishability: the lower, the clearer apart."""
    spread_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupComparison:
    """One group and split in both runs."""

    group: str
    split: str
    first: GroupRun
    second: GroupRun
    last_common_step: float
    half_loss: float
    """The loss that `steps_to_half` is about; NaN where one of the losses does not fall."""
    steps_to_undo: float
    """Where one of the runs has its labels flipped: see `steps_to_undo`. NaN elsewhere."""
    errors: Mapping[str, CurveError]
    """"loss", "loss_rescaled", "margin", "margin_rescaled" → how far the curves are apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Tabular):
    """Two runs side by side. `rows()` for tables, `curves(group)` for pictures."""

    _FIRST = (
        "group",
        "split",
        "first_loss",
        "second_loss",
        "first_margin",
        "second_margin",
        "loss_error",
        "loss_error_rescaled",
    )

    first: Trajectory
    second: Trajectory
    names: tuple[str, str]
    groups: tuple[GroupComparison, ...]
    """One per group and split that both runs have."""
    errors: Mapping[str, Mapping[str, CurveError]]
    """Split → "loss", "loss_rescaled", "margin", "margin_rescaled" → that error over all groups together."""
    rescaling: Rescaling
    split: str
    """What the order and the rescaling are judged by: held-out pairs where both runs have any."""
    order: RankCorrelation
    """Of the areas under both runs' losses: does the first say in which order the second learns?"""
    order_by_size: RankCorrelation
    """The control: with groups by their number of training pairs, most first, in place of the first run's order."""
    losses: tuple[float, ...]
    """Losses asked for; `rows()` has each run's steps to them."""
    only_first: tuple[str, ...]
    """Groups that the second run does not have."""
    only_second: tuple[str, ...]
    settings: tuple[SettingDifference, ...]
    notes: tuple[str, ...]
    """What to know before reading the figures."""

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group and split; NaN becomes None.

        `group`, `split`, `last_common_step`, `half_loss`, `steps_to_undo`; the fields of `GroupRun` with `first_` and
        `second_` before them; `loss_error`, `loss_error_relative`, `loss_error_rescaled`,
        `loss_error_rescaled_relative`, the same of the margin; and for each loss L asked for `first_steps_to_L` and
        `second_steps_to_L`.
        """
        sides = (("first", self.first), ("second", self.second))
        found = []
        for item in self.groups:
            row: dict[str, Any] = {"group": item.group, "split": item.split, "last_common_step": item.last_common_step}
            for side, _ in sides:
                half = getattr(item, side)
                row |= {f"{side}_{entry.name}": getattr(half, entry.name) for entry in fields(half)}
            row |= {"half_loss": item.half_loss, "steps_to_undo": item.steps_to_undo}
            for kind, error in item.errors.items():
                quantity, _, scaled = kind.partition("_")
                name = f"{quantity}_error" + (f"_{scaled}" if scaled else "")
                row |= {name: error.rms, f"{name}_relative": error.relative}
            for loss in self.losses:
                for side, run in sides:
                    row[f"{side}_steps_to_{loss:g}"] = steps_to(run, item.group, loss, split=item.split)
            found.append({name: _plain(value) for name, value in row.items()})
        return found

    def curves(
        self, group: str, quantity: str = "loss", *, split: str | None = None, rescaled: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One quantity of one group at common steps: steps of the first run, its values, the second's.

        Args:
            group: Name.
            quantity: Column of a Trajectory.
            split: That of the comparison if not given.
            rescaled: After the best common rescaling of time.

        Raises:
            DataError: One of the runs has no such group and split.
        """
        key, sides = (group, split or self.split), []
        for name, run in zip(self.names, (self.first, self.second), strict=True):
            cell = cells(run).get(key)
            if cell is None:
                raise DataError(f"{name} has no group {group!r} with split {key[1]!r}; give one that both runs have")
            sides.append(cell.curve(quantity))
        return on_common_steps(sides[0], sides[1], self.rescaling.factor if rescaled else 1.0)

    def __str__(self) -> str:
        one, two = self.names
        scaled = self.rescaling
        lines = [
            f"{one} against {two}, order of learning by {self.split.replace('_', '-')} loss: {self.order}",
            f"by the number of pairs alone: {self.order_by_size}",
        ]
        if math.isnan(scaled.factor):
            lines.append(f"no rescaling of time: {scaled.because}")
        else:
            lines.append(f"one step of {one} is as much as {scaled.factor:.3g} of {two}")
        for split, kinds in self.errors.items():
            told = ", ".join(f"{kind.replace('_', ' ')} {error.rms:.3g}" for kind, error in kinds.items())
            lines.append(f"{split.replace('_', '-')} curves, root mean square error: {told}")
        return "\n".join([*lines, *self.notes])


def compare(
    first: Trajectory,
    second: Trajectory,
    *,
    names: tuple[str, str] = ("first", "second"),
    losses: Sequence[float] = (),
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    permutations: int = 10_000,
) -> Comparison:
    """Compare two runs group by group: curves, pace, order of learning. Joint runs; groups are the same by name.

    Curves are compared over the steps that both runs cover, as they are and after the best common rescaling of time
    (`prefdyn.dynamics.pace` says how).

    Args:
        first: What the other is held against, such as a simulation.
        second: Such as a training run on the same data.
        names: Of the two, in what is told.
        losses: Losses whose first step is asked for.
        sizes: Training pairs of each group, for the control; None: as many as were measured, of the run with more.
        seed: Of the interval and the permutations of the order's correlation.
        resamples: Draws of groups for its interval.
        permutations: Sample of its p-value.

    Returns:
        A Comparison. Groups that only one run has are named in it; settings may differ, and each difference is listed.

    Raises:
        DataError: The two runs have no group and split in common.
        ConfigError: A loss asked for is not a finite number above 0, or a count is below 1.

    Example:
        >>> def run(pace):
        ...     rows = [{"run": "joint", "split": "train", "group": "a", "pairs": 9, "step": step,
        ...              "loss": 0.7 * 0.9 ** (step * pace)} for step in range(41)]
        ...     return Trajectory.from_rows(rows, settings={})
        >>> found = compare(run(1.0), run(0.5))
        >>> round(found.rescaling.factor, 2), found.errors["train"]["loss_rescaled"].rms < 1e-3
        (2.0, True)
    """
    for loss in losses:
        positive(loss, name="loss", fix="give the loss to reach, in nats")
    sides = cells(first), cells(second)
    shared = [
        key for name in first.groups for split in SPLITS if (key := (name, split)) in sides[0] and key in sides[1]
    ]
    if not shared:
        raise DataError(
            f"the runs share no group: {names[0]} has {_some(first.groups)}, {names[1]} has {_some(second.groups)}; "
            "give two runs of the same groups"
        )
    judges = "held_out" if any(_measured(sides, key) for key in shared if key[1] == "held_out") else "train"
    judged = [key for key in shared if key[1] == judges and _measured(sides, key)]
    pace = rescaling([_curves(sides, key, "loss") for key in judged])
    areas = np.array([[area(side[key].steps, side[key].columns["loss"]) for side in sides] for key in shared])
    order = np.full(areas.shape, math.nan)
    for split in SPLITS:
        inside = [place for place, key in enumerate(shared) if key[1] == split]
        for side in (0, 1):
            order[inside, side] = places(areas[inside, side])
    in_order = np.array([key in judged for key in shared]) & np.isfinite(areas).all(axis=1)
    measured = {name: _train_pairs(sides, name) for name, _ in shared}
    counts = np.array([float((sizes or {}).get(name, measured[name])) for name, _ in shared])
    chance: dict[str, Any] = {"seed": seed, "resamples": resamples, "permutations": permutations}
    settings = differing_settings(first.settings, second.settings)
    return Comparison(
        first=first,
        second=second,
        names=names,
        groups=tuple(
            _group(first, second, sides, key, pace.factor, areas[place], order[place])
            for place, key in enumerate(shared)
        ),
        errors={
            split: _errors(sides, [key for key in shared if key[1] == split], pace.factor)
            for split in SPLITS
            if any(key[1] == split for key in shared)
        },
        rescaling=pace,
        split=judges,
        order=rank_correlation(areas[in_order, 0], areas[in_order, 1], **chance),
        order_by_size=rank_correlation(-counts[in_order], areas[in_order, 1], **chance),
        losses=tuple(float(loss) for loss in losses),
        only_first=_without(sides[0], sides[1]),
        only_second=_without(sides[1], sides[0]),
        settings=settings,
        notes=tuple(
            [
                *_missing(names, sides, shared),
                *_unlike_settings(settings),
                *_unlike_pairs(names, sides, shared),
                *_not_in_order(shared, judges, in_order),
                *_of_pace(names, pace),
            ]
        ),
    )


def steps_to(
    run: Trajectory, group: str, loss: float, *, split: str = "train", which: str = "joint", quantity: str = "loss"
) -> float:
    """The first step at which a group's loss is at most this, on the straight line between recorded steps.

    Args:
        run: Simulated or trained.
        group: Name.
        loss: To reach.
        split: "train" or "held_out".
        which: "joint" or "alone".
        quantity: Another column of the Trajectory that is to fall.

    Returns:
        Steps, a fraction where it lies between two recorded steps; NaN where it is never reached.

    Raises:
        DataError: The run holds no such group or split.
        ConfigError: A Trajectory has no such quantity.

    Example:
        >>> rows = [{"run": "joint", "group": "a", "split": "train", "step": s, "loss": 1 - s / 8} for s in (0, 2, 4)]
        >>> steps_to(Trajectory.from_rows(rows, settings={}), "a", 0.625)
        3.0
    """
    one_of(quantity, [entry.name for entry in SCHEMA if entry.name not in ("run", "group", "split")], name="quantity")
    return _known(*run.curve(quantity, group=group, run=which, split=split)).first_at_most(loss)


def steps_to_undo(
    first: Trajectory, second: Trajectory, group: str, *, split: str = "train", flipped: bool | None = None
) -> float:
    r"""Steps of the second run until the preference that the first run taught is gone again.

    With the mean g of $\log\pi(\text{chosen}) - \log\pi(\text{rejected})$ in the first run's labels: the first step at
    which the second run's g is at most what it was at the first run's start.

    Args:
        first: The run that aligned.
        second: A run from its end, such as misalignment training.
        group: Name.
        split: "train" or "held_out".
        flipped: Whether the second run's chosen is the first's rejected; None: where one of the two had `flip` set.

    Returns:
        Steps; NaN where it is never undone, or log-probabilities were not measured.

    Raises:
        DataError: A run holds no such group or split.

    Reference:
        2403.18742, section 5.3 and Figure 16; THEORY 2.7.
    """
    if flipped is None:
        flipped = _flipped(first, second)
    gaps = []
    for run in (first, second):
        steps, chosen = run.curve("chosen_log_prob", group=group, split=split)
        gaps.append(_known(steps, chosen - run.curve("rejected_log_prob", group=group, split=split)[1]))
    if not len(gaps[0].steps):
        return math.nan
    later = Curve(gaps[1].steps, -gaps[1].values if flipped else gaps[1].values)
    return later.first_at_most(float(gaps[0].values[0]))


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[SettingDifference, ...]:
    """The settings in which two runs differ, those that matter most first; one that a run lacks is None there.

    A setting that one run lacks and the other has switched off (False, 0 or nothing) is no difference.

    Example:
        >>> differing_settings({"beta": 0.1, "steps": 5}, {"beta": 0.2, "steps": 5, "clip": 1.0})
        (SettingDifference(name='beta', first=0.1, second=0.2), SettingDifference(name='clip', first=None, second=1.0))
    """
    names = [*_FIRST, *sorted({*first, *second} - set(_FIRST))]
    return tuple(
        SettingDifference(name, first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name) and (first.get(name) or second.get(name))
    )


# one group ----------------------------------------------------------------------------------------------------------


def _group(
    first: Trajectory,
    second: Trajectory,
    sides: tuple[Cells, Cells],
    key: Key,
    factor: float,
    areas: np.ndarray,
    order: np.ndarray,
) -> GroupComparison:
    group, split = key
    losses = _curves(sides, key, "loss")
    falls = [side[key].first("loss") - side[key].last("loss") for side in sides]
    half = math.nan
    if min(falls) > 0:
        half = min(side[key].first("loss") for side in sides) - min(falls) / 2
    runs = [
        GroupRun(
            pairs=cell.pairs,
            loss=cell.last("loss"),
            loss_fall=falls[side],
            margin=cell.last("margin"),
            area=float(areas[side]),
            place=float(order[side]),
            steps_to_half=losses[side].first_at_most(half) if not math.isnan(half) else math.nan,
            chosen_change=cell.last("chosen_change"),
            rejected_change=cell.last("rejected_change"),
            distinguishability_before=cell.first("distinguishability"),
            distinguishability_after=cell.last("distinguishability"),
            spread_before=_spread(cell.first("distinguishability"), cell.first("trace")),
            spread_after=_spread(cell.last("distinguishability"), cell.last("trace")),
        )
        for side, cell in enumerate((sides[0][key], sides[1][key]))
    ]
    return GroupComparison(
        group=group,
        split=split,
        first=runs[0],
        second=runs[1],
        last_common_step=float(min((each.steps[-1] if len(each.steps) else math.nan) for each in losses)),
        half_loss=half,
        steps_to_undo=steps_to_undo(first, second, group, split=split) if _flipped(first, second) else math.nan,
        errors=_errors(sides, [key], factor),
    )


def _errors(sides: tuple[Cells, Cells], keys: Sequence[Key], factor: float) -> dict[str, CurveError]:
    found = {}
    for quantity in CURVES:
        pairs = [_curves(sides, key, quantity) for key in keys]
        found[quantity], found[f"{quantity}_rescaled"] = curve_error(pairs), curve_error(pairs, factor)
    return found


def _curves(sides: tuple[Cells, Cells], key: Key, quantity: str) -> tuple[Curve, Curve]:
    return sides[0][key].curve(quantity), sides[1][key].curve(quantity)


def _known(steps: np.ndarray, values: np.ndarray) -> Curve:
    known = np.isfinite(values)
    return Curve(steps[known].astype(np.float64), values[known])


def _measured(sides: tuple[Cells, Cells], key: Key) -> bool:
    return all(len(curve.steps) >= 2 for curve in _curves(sides, key, "loss"))


def _train_pairs(sides: tuple[Cells, Cells], group: str) -> float:
    """Training pairs of a group, of the run that was measured on more of them."""
    return float(max((side[group, "train"].pairs for side in sides if (group, "train") in side), default=math.nan))


def _spread(gap: float, trace: float) -> float:
    return trace / gap**2 if gap > 0 else math.nan


def _flipped(first: Trajectory, second: Trajectory) -> bool:
    return bool(first.settings.get("flip")) != bool(second.settings.get("flip"))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# what to know -------------------------------------------------------------------------------------------------------


def _without(side: Cells, other: Cells) -> tuple[str, ...]:
    """Groups of one run that the other has under no split."""
    there = {name for name, _ in other}
    return tuple(dict.fromkeys(name for name, _ in side if name not in there))


def _missing(names: tuple[str, str], sides: tuple[Cells, Cells], shared: Sequence[Key]) -> list[str]:
    found = []
    for name, side, other in zip(names, sides, sides[::-1], strict=True):
        groups = _without(side, other)
        if groups:
            found.append(f"Only {name} has {_some(groups)}: left out of every figure.")
        alone = [key for key in side if key not in other and key[0] not in groups]
        if alone:
            which = " and ".join(dict.fromkeys(key[1].replace("_", "-") for key in alone))
            found.append(f"Only {name} has {which} pairs of {_some([key[0] for key in alone])}.")
        lost = [key[0] for key in shared if side[key].lost("loss")]
        if lost:
            found.append(
                f"{name} has losses that are no finite number, of {_some(lost)}: those steps are left out, and its "
                "curve is the straight line across them."
            )
    return found


def _unlike_settings(settings: Sequence[SettingDifference]) -> list[str]:
    found, unlike = [], {item.name: item for item in settings}
    if (item := unlike.get("objective")) is not None:
        found.append(
            f"The objectives differ ({item.first}, {item.second}), so losses are on different scales: read the order "
            "of learning, not the errors."
        )
    if (item := unlike.get("beta")) is not None:
        found.append(
            f"beta differs ({item.first}, {item.second}): margins include it, so equal margins are unequal changes of "
            "log-probability."
        )
    return found


def _unlike_pairs(names: tuple[str, str], sides: tuple[Cells, Cells], shared: Sequence[Key]) -> list[str]:
    unlike = [key for key in shared if sides[0][key].pairs != sides[1][key].pairs]
    if not unlike:
        return []
    key = unlike[0]
    return [
        f"{len(unlike)} of {len(shared)} curves are means over different numbers of pairs, such as {key[0]!r}, "
        f"{key[1].replace('_', '-')}: {sides[0][key].pairs} in {names[0]}, {sides[1][key].pairs} in {names[1]}."
    ]


def _not_in_order(shared: Sequence[Key], judges: str, in_order: np.ndarray) -> list[str]:
    there = {key[0] for key, known in zip(shared, in_order, strict=True) if known}
    missing = [name for name, _ in shared if name not in there]
    if not missing:
        return []
    return [
        f"Not in the order, for want of finite {judges.replace('_', '-')} losses at two steps and more in both runs: "
        f"{_some(missing)}."
    ]


def _of_pace(names: tuple[str, str], pace: Rescaling) -> list[str]:
    if pace.at_edge:
        return [
            f"The best rescaling of time, {pace.factor:.3g}, is an end of the range tried, {pace.tried[0]:.3g} to "
            f"{pace.tried[1]:.3g}: one of the runs hardly moves beside the other, or the curves have unlike shapes."
        ]
    found = []
    if pace.misfit > _POOR:
        found.append(
            "No rescaling of time brings the curves together: at the best one their mean square difference is still "
            f"{100 * pace.misfit:.0f} % of how far they move."
        )
    for name, share in zip(names, (pace.share_first, pace.share_second), strict=True):
        if share < _SHORT:
            found.append(
                f"Rescaled, only the first {100 * share:.2g} % of the steps of {name} are compared: the other run does "
                "not get further."
            )
    return found


def _some(names: Sequence[str], most: int = 3) -> str:
    return of_many([repr(name) for name in dict.fromkeys(names)], most)
