r"""Grids of runs in one solve: every objective, beta, rate, optimizer, schedule, batch size, subset and seed.

Settings that are one and the same run are solved once. Where the path of the heads is linear in past gradients (SGD,
momentum, Nesterov), margins obey $r \leftarrow r + \eta\beta^2 C\,(w h(r))$, memory and schedule included. So the
margin path depends on $\eta$ and $\beta$ through the function $\eta\beta^2 h(\cdot)$ alone: through $\eta\beta^2$ for
losses of the margin, through $\eta$ for TRL's `ipo`, whose $h(r) = (1 - 2r)/\beta^2$. Then
$\theta = r / (\beta\phi)$ says that the heads, their drift and all changes of log-probability are those of the solved
run times $\beta_{\text{solved}} / \beta$, and each setting's loss is its own function of the shared margins. SFT does
not see $\beta$ at all: the heads are the same, the margins scale. With Adam no two settings are merged.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from prefdyn._checks import at_least, one_of
from prefdyn._showing import Tabular
from prefdyn.dynamics.descent import allowed, kept_steps, recorded_steps
from prefdyn.dynamics.engine import DIVERGED, Run, Stop, solve
from prefdyn.dynamics.grid import Setting, decays, grid, optimizer_name
from prefdyn.dynamics.measure import Member, Outcome, final_means, table
from prefdyn.dynamics.problem import Arrays, Pairs, as_seen
from prefdyn.dynamics.routes import ROUTES, build, cheapest
from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.streaming import HELD_BYTES
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.maths.optimizers import Optimizer, Schedule
from prefdyn.trajectory import Trajectory

_STATE_BYTES = 2**28
"""Heads that go together take at most this; larger grids are carried in turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Sequence[Trajectory], Tabular):
    """Many runs, one Trajectory each, in the order of the grid. Tables are built when asked for."""

    settings: tuple[Mapping[str, Any], ...]
    """Resolved settings of each run."""
    same_as: tuple[int, ...]
    """For each run the first that is one and the same; its own number where it was solved itself."""
    outcomes: tuple[Outcome, ...] = field(repr=False)
    pairs: tuple[Pairs, ...] = field(repr=False)
    total: int = field(repr=False)
    provenance: Any = field(repr=False)

    def __len__(self) -> int:
        return len(self.settings)

    def __getitem__(self, index: Any) -> Any:
        """The Trajectory of one run, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        outcome, pairs, settings = self.outcomes[index], self.pairs[index], self.settings[index]
        return Trajectory(
            table=table(outcome, pairs, run="joint", learning_rate=settings["learning_rate"]),
            settings=settings,
            margins={step: self._whole(values, pairs) for step, values in outcome.margins.items()},
            chosen_changes={step: self._whole(values, pairs) for step, values in outcome.chosen_changes.items()},
            joint_head=outcome.head,
            provenance=self.provenance,
        )

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[place] for place in range(len(self)))

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per run: settings, and loss, margin and accuracy over all pairs at its last recorded step."""
        return [
            {"run": place, "same_as": self.same_as[place], **settings}
            | {"last_step": outcome.steps[-1] if outcome.steps else None}
            | dict(final_means(outcome, pairs))
            for place, (settings, outcome, pairs) in enumerate(
                zip(self.settings, self.outcomes, self.pairs, strict=True)
            )
        ]

    def _whole(self, values: np.ndarray, pairs: Pairs) -> np.ndarray:
        """One value per pair of the features; NaN for pairs of groups that the run does not know."""
        if len(pairs) == self.total:
            return values
        found = np.full(self.total, np.nan)
        found[pairs.number] = values
        return found


def sweep(
    feats: FeatureSet,
    *,
    objective: str | Objective | Sequence[str | Objective] = "sigmoid",
    beta: float | Sequence[float] = 0.1,
    learning_rate: float | Sequence[float],
    optimizer: str | Optimizer | Sequence[str | Optimizer] = "sgd",
    schedule: Schedule | Sequence[Schedule | None] | None = None,
    batch_size: int | Literal["full"] | Sequence[int | Literal["full"]] = "full",
    scheme: str = "epochs",
    groups: Sequence[Sequence[str] | None] | None = None,
    seed: int | Sequence[int] = 0,
    steps: int = 100,
    record: Literal["log", "all"] | Sequence[int] = "log",
    margins_at: Iterable[int] = (),
    stop: Stop | None = None,
    route: str = "auto",
    dtype: Literal["float32", "float64"] | None = None,
    arrays: Arrays | None = None,
    progress: bool = False,
) -> Sweep:
    r"""Simulated last-layer training under every combination of settings, in as few solves as possible.

    The order of the runs is that of `itertools.product(objective, beta, learning_rate, optimizer, schedule,
    batch_size, groups, seed)`.

    Args:
        feats: Features of either kind. Features of two-answer data train exactly as the user's head would; sketched
            features of longer responses follow first order, and under Adam in the sketch's own coordinates.
        objective: Names or objectives. A name takes each `beta`; an objective brings its own.
        beta: Strengths for objectives given by name.
        learning_rate: Step sizes.
        optimizer: Names or optimizers.
        schedule: Factors on the learning rate; constant if not given.
        batch_size: Pairs per step, or "full".
        scheme: How minibatches are drawn; see `prefdyn.dynamics.sampling.batches`.
        groups: Subsets of groups to train on, one run each; a run knows no other pairs. None: all groups.
        seed: Seeds of the minibatches.
        steps: Steps of every run.
        record: Steps to measure: "log", "all", or the steps themselves.
        margins_at: Steps at which to keep the margin and chosen change of every pair.
        stop: When to end a run early; `Stop()` if not given, which ends what diverges.
        route: How to compute: "auto", the cheapest, or one of `prefdyn.dynamics.routes.ROUTES`.
        dtype: float64, or float32 where float64 features would take over 2 GiB, unless given.
        arrays: Takes a NumPy array to the library and device that computes, such as `torch.as_tensor`.
        progress: Show bars on stderr where it is a terminal.

    Returns:
        A sequence of Trajectories. Their settings name the `route`, and `diverged_at`, `stopped_at` and
        `stop_reason` where a run ended early.

    Raises:
        ConfigError: A setting is out of range or unknown, or a route is not exact for an optimizer.
        DataError: A subset has no pair to train on, or SFT is asked for without reference log-probabilities.

    Warns:
        RuntimeWarning: Runs diverged; names them and the largest stable rate of plain descent on this data.

    Example:
        >>> feats = FeatureSet.from_arrays(np.eye(4), chosen=[1, 1, 0, 0], rejected=[0, 0, 1, 1])
        >>> many = sweep(feats, beta=[0.1, 0.2], learning_rate=[4.0, 1.0], steps=5)
        >>> many.same_as  # 4 × 0.1² = 1 × 0.2²
        (0, 1, 2, 0)
        >>> many[3].final("margin", group="all") == many[0].final("margin", group="all")
        True
    """
    steps = at_least(steps, 1, name="steps")
    recorded = recorded_steps(steps, record)
    kept = kept_steps(steps, margins_at)
    if route != "auto":
        one_of(route, ROUTES, name="route")
    settings = grid(feats, objective, beta, learning_rate, optimizer, schedule, batch_size, scheme, groups, seed)
    pairs = Pairs.of(feats)
    used = np.dtype(dtype) if dtype is not None else feats.working_dtype
    stop = stop or Stop()
    solver = _Solver(feats, pairs, steps, recorded, kept, stop, route, used, arrays, progress)

    first: dict[Any, int] = {}
    same_as = tuple(first.setdefault(setting.same_run(stop), place) for place, setting in enumerate(settings))
    found: dict[int, tuple[Outcome, str, Pairs]] = {}
    for places in solver.together(settings, sorted(set(same_as))):
        found |= solver.carry(settings, same_as, places)
    described = tuple(
        setting.describe()
        | {"steps": steps, "compute_dtype": str(used), "route": found[place][1]}
        | _ending(found[place][0])
        for place, setting in enumerate(settings)
    )
    _warn(feats, settings, described)
    return Sweep(
        settings=described,
        same_as=same_as,
        outcomes=tuple(found[place][0] for place in range(len(settings))),
        pairs=tuple(found[place][2] for place in range(len(settings))),
        total=len(feats),
        provenance=feats.provenance,
    )


# which settings go together -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Solver:
    """What all solves of one sweep share."""

    feats: FeatureSet
    pairs: Pairs
    steps: int
    recorded: Sequence[int]
    kept: Sequence[int]
    stop: Stop
    route: str
    dtype: np.dtype
    arrays: Arrays | None
    progress: bool

    def together(self, settings: Sequence[Setting], places: Sequence[int]) -> list[list[int]]:
        """Runs that share one solve: one way of holding heads, one stream of batches, subsets where that is cheaper."""
        piles: dict[Any, list[int]] = {}
        for place in places:
            setting = settings[place]
            sft = setting.objective.reads == "log_probs"
            full = setting.batch_size == "full"
            seen = setting.objective.per_token and self.feats.kind == "responses"
            key = (sft, seen, setting.optimizer.linear, decays(setting), full or setting.data)
            piles.setdefault(key, []).append(place)
        found: list[list[int]] = []
        for pile in piles.values():
            subsets: dict[Any, list[int]] = {}
            for place in pile:
                subsets.setdefault(settings[place].groups, []).append(place)
            alone = sum(self._cost(len(self._members((groups,))), len(runs)) for groups, runs in subsets.items())
            if len(subsets) > 1 and alone < self._cost(len(self._members(subsets)), len(pile)):
                found += subsets.values()
            else:
                found.append(pile)
        size = max(1, _STATE_BYTES // (8 * max(1, self.pairs.tokens) * self.feats.kernel_width))
        return [pile[start : start + size] for pile in found for start in range(0, len(pile), size)]

    def _cost(self, rows: int, runs: int) -> float:
        """Of one step: reading the rows once, and the products of every run."""
        return rows * (5.0 * self.dtype.itemsize + 4.0 * runs)

    def _members(self, subsets: Iterable[Sequence[str] | None]) -> np.ndarray:
        """Rows of the pairs whose group is in one of the subsets."""
        wanted = np.zeros(len(self.pairs), dtype=bool)
        for groups in subsets:
            wanted |= self._mask(groups)
        return np.flatnonzero(wanted)

    def _mask(self, groups: Sequence[str] | None) -> np.ndarray:
        if groups is None:
            return np.ones(len(self.pairs), dtype=bool)
        return np.isin(self.pairs.group, [self.pairs.groups.index(name) for name in groups])

    def carry(
        self, settings: Sequence[Setting], same_as: Sequence[int], places: Sequence[int]
    ) -> dict[int, tuple[Outcome, str, Pairs]]:
        """Solve some runs together; the outcome of every setting that they stand for."""
        one = settings[places[0]]
        subsets = list(dict.fromkeys(settings[place].groups for place in places))
        index = self._members(subsets)
        pairs = self.pairs if len(index) == len(self.pairs) else self.pairs.rows(index)
        sft = one.objective.reads == "log_probs"
        batch = None if one.batch_size == "full" else int(one.batch_size)
        name = self._route(one, pairs, len(places))
        members = [[place for place, first in enumerate(same_as) if first == solved] for solved in places]
        runs = [
            Run(
                objective=settings[solved].objective,
                learning_rate=settings[solved].learning_rate,
                optimizer=settings[solved].optimizer,
                schedule=settings[solved].schedule,
                members=tuple(
                    Member(
                        objective=settings[place].objective,
                        scale=1.0 if sft else settings[solved].objective.beta / settings[place].objective.beta,
                    )
                    for place in stands_for
                ),
            )
            for solved, stands_for in zip(places, members, strict=True)
        ]
        feats = as_seen(self.feats, one.objective)
        pairs = replace(pairs, per_token=feats.per_token)
        route = build(feats, pairs, name, dtype=self.dtype, arrays=self.arrays, sft=sft)
        drawn = None
        if batch is not None:
            drawn = batches(len(pairs.train), batch, self.steps, seed=one.seed, scheme=one.scheme)
        outcomes = solve(
            route,
            pairs,
            runs,
            steps=self.steps,
            recorded=self.recorded,
            kept=self.kept,
            stop=self.stop,
            batches=drawn,
            masks=np.stack([self._mask(groups)[index] for groups in subsets], axis=1).astype(np.float64),
            subset=[subsets.index(settings[place].groups) for place in places],
            head=self.feats.head,
            arrays=self.arrays,
            label=f"{len(places)} runs by {name}",
            progress=self.progress,
        )
        return {
            place: (_within(outcome, part, pairs), name, part)
            for stands_for, outs in zip(members, outcomes, strict=True)
            for part in [self._own(pairs, index, settings[stands_for[0]].groups)]
            for place, outcome in zip(stands_for, outs, strict=True)
        }

    def _own(self, pairs: Pairs, index: np.ndarray, groups: Sequence[str] | None) -> Pairs:
        inside = self._mask(groups)[index]
        return pairs if inside.all() else pairs.rows(np.flatnonzero(inside))

    def _route(self, one: Setting, pairs: Pairs, runs: int) -> str:
        return route_for(
            one, pairs, self.feats.kernel_width, asked=self.route, runs=runs, steps=self.steps, dtype=self.dtype
        )


def route_for(
    one: Setting, pairs: Pairs, width: int, *, asked: str = "auto", runs: int, steps: int, dtype: np.dtype
) -> str:
    """The route asked for if it is exact for runs of this kind, or the cheapest.

    Raises:
        ConfigError: The route is unknown, or not exact for the optimizer or the objective.
    """
    sft = one.objective.reads == "log_probs"
    linear = bool(one.optimizer.linear) and not sft
    exact_off_rows = not sft and (linear or one.optimizer.name == "sgd")
    if asked == "auto":
        chosen = cheapest(
            pairs,
            width,
            linear=linear,
            runs=runs,
            steps=steps,
            batch=None if one.batch_size == "full" else int(one.batch_size),
            itemsize=dtype.itemsize,
            streamed=len(pairs) * width * dtype.itemsize > HELD_BYTES,
        )
        return "weights" if chosen == "rows" and exact_off_rows else chosen
    one_of(asked, ROUTES, name="route")
    if asked != "rows" and not linear and not (asked == "weights" and exact_off_rows):
        what = "SFT" if sft else optimizer_name(one.optimizer)
        raise ConfigError(f"route {asked!r} is not exact for {what}; use route 'rows' or 'auto'")
    return asked


def _within(outcome: Outcome, own: Pairs, solved: Pairs) -> Outcome:
    """The outcome without pairs of groups that the run does not know."""
    if len(own) == len(solved):
        return outcome
    places = np.searchsorted(solved.number, own.number)
    return replace(
        outcome,
        margins={step: values[places] for step, values in outcome.margins.items()},
        chosen_changes={step: values[places] for step, values in outcome.chosen_changes.items()},
    )


# endings ------------------------------------------------------------------------------------------------------------


def _ending(outcome: Outcome) -> dict[str, Any]:
    if outcome.stopped_at is None:
        return {}
    if outcome.stop_reason == DIVERGED:
        return {"diverged_at": outcome.stopped_at}
    return {"stopped_at": outcome.stopped_at, "stop_reason": outcome.stop_reason}


def _warn(feats: FeatureSet, settings: Sequence[Setting], described: Sequence[Mapping[str, Any]]) -> None:
    """One warning that names what diverged and the rate that the data allow."""
    places = [place for place, each in enumerate(described) if "diverged_at" in each]
    if not places:
        return
    place = min(places, key=lambda each: settings[each].learning_rate)
    worst, each = settings[place], described[place]
    warnings.warn(
        f"{len(places)} of {len(settings)} runs diverged, the one of smallest rate at step {each['diverged_at']}: "
        f"{each['objective']}, beta {each['beta']:g}, learning rate {each['learning_rate']:g}, {each['optimizer']}; on "
        f"this data {allowed(feats, worst.objective, worst.groups)}. Lower the rate; the other runs are complete",
        RuntimeWarning,
        stacklevel=3,
    )
