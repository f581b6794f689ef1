r"""Descent in continuous time: the margin flow that gradient descent follows as its steps shrink.

With features frozen, the head's change $\theta$ obeys

$$ \dot\theta = \frac{\beta}{\sum_j w_j} \sum_i w_i\, h(r_i)\, \phi_i, \qquad r_i = \beta\langle\phi_i, \theta\rangle,
   \qquad\text{so}\qquad \dot r = \frac{\beta^2}{\sum_j w_j}\, C\,(w \odot h(r)). $$

Time is learning rate × step: descent reaches the flow's margins at time $\eta k$ with an error that halves with
$\eta$. The state is the head, or in Gram space one coefficient per trained pair ($\theta = \sum_j \alpha_j \phi_j$,
$\dot\alpha_j = \beta w_j h(r_j) / \sum w$), whichever `routes.cheapest` finds to cost less; both give held-out pairs
exactly. The solver is SciPy's DOP853 (explicit, order 8). At these tolerances RK45 took 0.6 to 1 times as long with the
larger error in three of four cases, and LSODA was faster at 64 columns but 4 to 7 times slower along the kernel.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from prefdyn._checks import positive
from prefdyn.dynamics.flow_events import Event, crossings
from prefdyn.dynamics.flow_solver import KINK_WIDTH, FlowSolver
from prefdyn.dynamics.measure import Member, Outcome, measure, table
from prefdyn.dynamics.problem import Pairs, as_seen
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, Objective, SLiC
from prefdyn.trajectory import Trajectory


def flow(
    feats: FeatureSet,
    objective: Objective | None = None,
    *,
    until: float,
    alone: bool = False,
    record: Literal["log"] | Sequence[float] = "log",
    margins_at: Iterable[float] = (),
    events: Sequence[Event] = (),
    rtol: float = 1e-8,
    atol: float = 1e-10,
    kink_width: float = KINK_WIDTH,
    max_evaluations: int = 100_000,
) -> Trajectory:
    r"""Last-layer training in continuous time: all groups jointly, and on request each group by itself.

    Trains on the pairs that are not held out; measures both splits.

    Args:
        feats: Features of either kind.
        objective: The loss of the margin; `DPO(beta=0.1)` if not given.
        until: Last time, above 0, in units of learning rate × step: 100 steps at 0.1 end at 10.
        alone: Also run every group by itself (rows with run "alone").
        record: Times to measure: "log" (0, then thinning out from until/1000, and the last) or the times themselves.
        margins_at: Times at which to keep the margin and chosen change of every pair in the joint run.
        events: What to watch for: `PairCrosses`, `GroupReaches`. What happened is in `settings["events"]`, a list of
            rows in order of time; what is not listed did not happen until the end.
        rtol: Relative tolerance of the solver.
        atol: Absolute tolerance of the solver, in margins that all pairs would have if they agreed.
        kink_width: For SLiC alone: over how much margin its pull falls to 0, see `KINK_WIDTH`.
        max_evaluations: Give up after so many passes over the pairs.

    Returns:
        A Trajectory. `step` numbers the measured times from 0, and `settings["times"]` lists them.

    Raises:
        ConfigError: A setting is out of range, a time lies beyond the last, an event cannot be watched, the loss is no
            function of the margin, or the flow takes more than `max_evaluations`.
        DataError: No pair is left to train on.

    Reference:
        2408.03459, Lemma 4.1; THEORY 1.3. DOP853: Hairer, Nørsett and Wanner (1993), Solving Ordinary Differential
        Equations I, section II.5.

    Example:
        >>> from prefdyn.dynamics.flow_events import PairCrosses
        >>> feats = FeatureSet.from_arrays([[1.0, 0.0]], chosen=["Yes"], rejected=["No"])
        >>> run = flow(feats, DPO(beta=1.0), until=2.0, events=[PairCrosses(quantity="reward", level=1.0)])
        >>> round(run.final("margin", group="all"), 8)  # exp(r) + r = 1 + 2 t, see `closed_form.single_flow`
        1.30655864
        >>> round(run.settings["events"][0]["time"], 6)  # e / 2
        1.359141
    """
    trained = checked(objective or DPO(), feats)
    feats = as_seen(feats, trained)
    positive(until, name="until", fix="give the last time, learning rate × step")
    asked = [float(time) for time in margins_at]
    times = recorded_times(until, record, also=asked)
    kept = {int(np.searchsorted(times, time)) for time in asked}
    options = {"rtol": rtol, "atol": atol, "kink_width": kink_width, "max_evaluations": max_evaluations}

    whole = Pairs.of(feats)
    joint = _run(feats, whole, "joint", trained, times, kept, events, options)
    tables, happened, heads = [joint.table], joint.happened, {}
    if alone:
        for code, name in enumerate(feats.groups):
            members = whole.rows(feats.members(code))
            if len(members.train):
                single = _run(feats, members, "alone", trained, times, set(), events, options)
                tables.append(single.table)
                happened = happened + single.happened
                heads[name] = single.outcome.head
    settings = {
        "objective": trained.name,
        "beta": float(trained.beta),
        "optimizer": "flow",
        "schedule": "constant",
        "batch_size": "full",
        "until": float(until),
        "times": times,
        "steps": len(times) - 1,
        "solver": "DOP853",
        "rtol": joint.solver.rtol,
        "atol": joint.solver.atol,
        "kink_width": kink_width if isinstance(trained, SLiC) else None,
        "evaluations": joint.solver.evaluations,
        "route": joint.route,
        "compute_dtype": str(feats.working_dtype),
        "events": sorted(happened, key=lambda row: row["time"]),
    }
    return Trajectory(
        table=pa.concat_tables(tables),
        settings=settings,
        margins=joint.outcome.margins,
        chosen_changes=joint.outcome.chosen_changes,
        joint_head=joint.outcome.head,
        alone_heads=heads,
        provenance=feats.provenance,
    )


def recorded_times(
    until: float, record: Literal["log"] | Sequence[float] = "log", *, also: Sequence[float] = ()
) -> list[float]:
    """The times at which a flow is measured; 0 and the last are always among them.

    Example:
        >>> [round(time, 3) for time in recorded_times(1.0)[:4]], recorded_times(2.0, [0.5], also=[1.5])
        ([0.0, 0.001, 0.001, 0.001], [0.0, 0.5, 1.5, 2.0])
    """
    chosen = np.geomspace(until / 1000, until, 37)[:-1].tolist() if isinstance(record, str) else record
    asked = sorted({float(time) for time in [*chosen, *also]} | {0.0, float(until)})
    wrong = next((time for time in asked if not 0 <= time <= until), None)
    if wrong is not None or not all(map(math.isfinite, asked)):
        raise ConfigError(f"time {wrong!r} is asked for, but the flow runs from 0 until {until}; raise until")
    return asked


def checked(objective: Any, feats: FeatureSet) -> Any:
    """The objective, if a margin flow exists for it and the features leave pairs to train on."""
    if objective.reads != "margins":
        raise ConfigError(
            f"objective {objective.name!r} is no function of the margin, so it has no margin flow; use descent with a "
            "small learning rate"
        )
    if np.ndim(objective.beta):
        raise ConfigError(f"beta has {np.size(objective.beta)} values, but a flow takes one; call flow once for each")
    if feats.held_out.all():
        raise DataError(
            f"all {len(feats)} pairs are held out, so nothing is left to train on; lower the held-out share"
        )
    return objective


# dense output -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginFlow:
    """A solved joint flow that answers for any time: what `flow` measures, before it is measured."""

    until: float
    pairs: Pairs
    solver: FlowSolver
    pieces: Sequence[Any]
    """SciPy's interpolant of every step, of order 7, as accurate as the steps themselves."""

    def margins(self, times: Float[np.ndarray, " t"]) -> Float[np.ndarray, "n t"]:
        """Margin of every pair, trained or held out, at any times from 0 to `until`."""
        return self.solver.margins(self._states(times))

    def head(self, time: float) -> Float[np.ndarray, "p d"]:
        r"""Change $\theta$ of the head at one time: margin = $\beta\langle\phi, \theta\rangle$."""
        return self.solver.route.heads(self._states(np.array([float(time)])))[0]

    def _states(self, times: Float[np.ndarray, " t"]) -> Any:
        if len(times) and not (np.min(times) >= 0 and np.max(times) <= self.until):
            raise ConfigError(
                f"times from {np.min(times)} to {np.max(times)} are asked for, of a flow until {self.until}"
            )
        ends = np.array([piece.t for piece in self.pieces])
        places = np.minimum(np.searchsorted(ends, times), len(ends) - 1)
        return self.solver.states(
            [self.pieces[place](time) for place, time in zip(places, times.tolist(), strict=True)]
        )


def margin_flow(
    feats: FeatureSet,
    objective: Objective | None = None,
    *,
    until: float,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    kink_width: float = KINK_WIDTH,
    max_evaluations: int = 100_000,
) -> MarginFlow:
    """The joint flow as a function of time. Arguments and errors as for `flow`.

    Holds eight states per step of the solver; `flow` holds one step at a time.

    Example:
        >>> feats = FeatureSet.from_arrays([[1.0, 0.0]], chosen=["Yes"], rejected=["No"])
        >>> margin_flow(feats, DPO(beta=1.0), until=2.0).margins(np.array([0.0, 2.0])).round(6).tolist()
        [[0.0, 1.306559]]
    """
    trained = checked(objective or DPO(), feats)
    feats = as_seen(feats, trained)
    positive(until, name="until", fix="give the last time, learning rate × step")
    pairs = Pairs.of(feats)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "kink_width": kink_width, "max_evaluations": max_evaluations}
    solver = FlowSolver(feats, pairs, trained, **options)
    return MarginFlow(
        until=until, pairs=pairs, solver=solver, pieces=[step.dense_output() for step in solver.steps(until)]
    )


# one run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    table: pa.Table
    outcome: Outcome
    happened: list[dict[str, Any]]
    solver: FlowSolver
    route: str


def _run(
    feats: FeatureSet,
    pairs: Pairs,
    name: str,
    objective: Any,
    times: Sequence[float],
    kept: set[int],
    events: Sequence[Event],
    options: dict[str, Any],
) -> _Result:
    solver = FlowSolver(feats, pairs, objective, **options)
    outcome, happened = Outcome(), []
    shares = np.zeros((len(pairs), 1))
    shares[pairs.train, 0] = solver.share
    place, state = 0, solver.route.start(1)

    def look(step: int, state: np.ndarray) -> None:
        members = [Member(objective=objective, column=0)]
        seen = measure(solver.route, state, pairs, members, shares, keep=step in kept)
        outcome.steps.append(step)
        outcome.means.append(seen.means[0])
        outcome.drifts.append(float(seen.drifts[0]))
        if seen.margins is not None:
            outcome.margins[step] = seen.margins[:, 0]
        if seen.chosen_changes is not None:
            outcome.chosen_changes[step] = seen.chosen_changes[:, 0]

    watched = [watch for event in events for watch in event.watches(pairs, objective)]
    for each in solver.steps(times[-1]):
        if not (watched or times[place] <= each.t):
            continue
        piece = each.dense_output()
        while place < len(times) and times[place] <= piece.t:
            state = solver.states([piece(times[place])])
            look(place, state)
            place += 1
        if watched:
            happened += crossings(watched, piece, lambda values: solver.margins(solver.states(values)))
    outcome.head = solver.route.heads(state)[0]
    rows = table(outcome, pairs, run=name, learning_rate=1.0)
    exact = np.asarray(times)[rows["step"].to_numpy()]
    rows = rows.set_column(rows.schema.get_field_index("time"), rows.schema.field("time"), pa.array(exact))
    return _Result(
        table=rows,
        outcome=outcome,
        happened=[{"run": name, **row} for row in happened],
        solver=solver,
        route=solver.route.name,
    )
