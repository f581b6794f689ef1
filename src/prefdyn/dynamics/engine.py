r"""R runs as one: every step reads the features once for all of them.

A run trains the change $\theta$ of the head. With frozen features margins are linear in it (THEORY 1.2, 1.3),

$$ r_i = \beta \langle \phi_i, \theta \rangle, \qquad
   -\nabla_\theta L = \frac{\beta}{\sum_j w_j} \sum_i w_i\, h(r_i)\, \phi_i, \qquad h = -f', $$

so R runs of any objectives, betas, rates, optimizers, schedules and subsets of pairs differ in elementwise work alone
and share both products with the features. Each block of features meets all heads forward and backward while it is in
the cache. Runs that end early leave the batch; runs that diverge do so without touching the others, for no number of
one run ever enters another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from prefdyn._progress import track
from prefdyn._threads import brief_products
from prefdyn.dynamics.measure import Measured, Member, Outcome, measure
from prefdyn.dynamics.problem import Arrays, Pairs
from prefdyn.dynamics.pull import RunColumns, WatchedPull
from prefdyn.dynamics.routes import Route
from prefdyn.errors import ConfigError
from prefdyn.maths.optimizers import SGD, Optimizer, Schedule, State, factor_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When a run ends before its last step. Targets hold for the training pairs as weighted in training.

    Full-batch runs are judged at every step, minibatch runs at recorded ones.
    """

    loss: float | None = None
    """Stop where the mean training loss is at most this, nats."""
    margin: float | None = None
    """Stop where the mean training margin is at least this."""
    divergence: float = 100.0
    """A loss above so many times its start ends the run as diverged; a number that is not finite always does."""

    def __post_init__(self) -> None:
        if not self.divergence > 1:
            raise ConfigError(f"divergence is {self.divergence!r}, but must be above 1: a multiple of the first loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a batch."""

    objective: Any
    learning_rate: float
    members: tuple[Member, ...]
    """Settings that this run stands for, itself first."""
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule | None = None
    """None: constant."""


def solve(
    route: Route,
    pairs: Pairs,
    runs: Sequence[Run],
    *,
    steps: int,
    recorded: Sequence[int],
    kept: Sequence[int] = (),
    stop: Stop | None = None,
    batches: Sequence[Int[np.ndarray, " _"]] | None = None,
    masks: Float[np.ndarray, "n subsets"] | None = None,
    subset: Sequence[int] | None = None,
    head: Float[np.ndarray, "k d"] | None = None,
    arrays: Arrays | None = None,
    label: str = "Runs",
    progress: bool = False,
) -> list[list[Outcome]]:
    """Carry all runs to their end, together.

    Args:
        route: How heads are held; exact for the optimizers of all runs.
        pairs: The pairs of the route.
        runs: What differs between the runs.
        steps: Steps of each.
        recorded: Steps at which to measure; 0 among them.
        kept: Steps at which to keep every pair's margin.
        stop: When to end a run early; None: only where a number is not finite.
        batches: Places among the trained pairs, per step, without repeats in a step; None for all of them.
        masks: 1 where a pair belongs to a subset, else 0; without it there is one subset, all pairs.
        subset: Column of `masks` per run.
        head: Reference head rows, which weight decay needs.
        arrays: Where to compute; NumPy if not given.
        label: Name of the bar.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        Per run, one outcome per member.
    """
    outcomes = [[Outcome() for _ in run.members] for run in runs]
    weights = (pairs.weight * ~pairs.held_out)[:, None] * (np.ones((len(pairs), 1)) if masks is None else masks)
    columns = subset or [0] * len(runs)
    going = _Going(
        route=route,
        pairs=pairs,
        stop=stop or Stop(divergence=math.inf),
        full=batches is None,
        shares=weights / weights.sum(axis=0),
        put=arrays or (lambda values: values),
        started=[_Started(run, found, column) for run, found, column in zip(runs, outcomes, columns, strict=True)],
        head=head,
    )
    with brief_products(len(pairs) * math.prod(going.state.shape)):
        for step in track(range(steps + 1), label, unit="steps", shown=progress):
            with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is found by what is not finite
                if going.started and (step in recorded or step in kept or step == steps):
                    going.record(step, recorded=step in recorded, kept=step in kept, last=step == steps)
                if going.started and step < steps:
                    going.advance(step, None if batches is None else batches[step], measured=step in recorded)
    return outcomes


@dataclass(slots=True)
class _Started:
    """A run of the batch and what is known of it."""

    run: Run
    outcomes: list[Outcome]
    subset: int
    first_loss: float = math.nan

    @property
    def kind(self) -> tuple[str, str]:
        """What makes neighbours share one call of the optimizer and of the objective."""
        return repr(self.run.optimizer), _kind(self.run.objective)


class _Going:
    """The runs that are still going, in columns; those of one optimizer and one objective are neighbours."""

    def __init__(
        self,
        *,
        route: Route,
        pairs: Pairs,
        stop: Stop,
        full: bool,
        shares: np.ndarray,
        put: Arrays,
        started: list[_Started],
        head: np.ndarray | None,
    ) -> None:
        self.route, self.pairs, self.stop, self.full, self.shares, self.put = route, pairs, stop, full, shares, put
        self.started = sorted(started, key=lambda each: each.kind)
        self.state = route.start(len(started))
        self.reference = None
        if any(getattr(each.run.optimizer, "weight_decay", 0.0) for each in started):
            self.reference = reference_state(route, head)
        self.pieces: list[tuple[slice, Any, tuple[Any, ...]]] = []
        for start, stop_at in _stretches([each.run.optimizer for each in self.started]):
            optimizer = self.started[start].run.optimizer
            self.pieces.append((slice(start, stop_at), optimizer, optimizer.start(self.state[start:stop_at, ...])))
        self.columns: RunColumns | None = None

    # one step -------------------------------------------------------------------------------------------------------

    def advance(self, step: int, batch: np.ndarray | None, *, measured: bool) -> None:
        """One step of every run; full-batch runs that reach a target or diverge end before it."""
        if self.columns is None:
            runs = [(each.run.objective, each.subset) for each in self.started]
            self.columns = RunColumns.of(self.route.like, self.put, self.pairs, self.shares, runs)
        watch = WatchedPull(self.columns, self.full, with_loss=self._judges_loss(step))
        gradient = self.route.gradient(self.state, watch, batch)
        if self.full:
            losses, margins = watch.means()
            verdicts = [self._verdict(*each) for each in zip(self.started, losses, margins, strict=True)]
            ended = {place: verdict for place, verdict in enumerate(verdicts) if verdict is not None}
            if ended:
                if not measured:
                    self._measure(step, sorted(ended), recorded=True, kept=False)
                gradient = _pick(gradient, [place for place in range(len(verdicts)) if place not in ended], self.put)
                self._end(ended, step)
        if self.started:
            self._update(gradient, step)

    def _judges_loss(self, step: int) -> bool:
        """Whether this step looks at the loss: always for a target, now and then for a divergence."""
        return self.full and (
            self.stop.loss is not None or (math.isfinite(self.stop.divergence) and step % _LOOK_EVERY == 0)
        )

    def _update(self, gradient: Any, step: int) -> None:
        xp = array_namespace(self.state)
        changed, pieces = [], []
        for where, optimizer, memory in self.pieces:
            runs = [each.run for each in self.started[where]]
            rates = [run.learning_rate * factor_of(run.schedule, step) for run in runs]
            reference = self.reference if getattr(optimizer, "weight_decay", 0.0) else None
            state, memory = moved(
                optimizer, self.state[where, ...], gradient[where, ...], memory, rate=self.put(np.array(rates)),
                step=step, reference=reference,
            )  # fmt: skip
            changed.append(state)
            pieces.append((where, optimizer, memory))
        self.state = changed[0] if len(changed) == 1 else xp.concat(changed, axis=0)
        self.pieces = pieces

    # measuring and ending -------------------------------------------------------------------------------------------

    def record(self, step: int, *, recorded: bool, kept: bool, last: bool) -> None:
        """Measure every run at this step, and end those that reached a target or diverged, or all at the last."""
        found = self._measure(step, range(len(self.started)), recorded=recorded, kept=kept)
        ended: dict[int, str] = {}
        for place, (loss, margin) in found.items():
            if step == 0:
                self.started[place].first_loss = loss
            verdict = self._verdict(self.started[place], loss, margin)
            if verdict is not None:
                ended[place] = verdict
            elif last:
                ended[place] = ""
        self._end(ended, step)

    def _measure(
        self, step: int, places: Sequence[int], *, recorded: bool, kept: bool
    ) -> dict[int, tuple[float, float]]:
        """Write what is finite into the outcomes; training loss and margin of each run."""
        flat = [
            (place, outcome, replace(member, column=place))
            for place in places
            for outcome, member in zip(self.started[place].outcomes, self.started[place].run.members, strict=True)
        ]
        flat.sort(key=lambda entry: _kind(entry[2].objective))
        shares = self.shares
        if shares.shape[1] > 1:
            shares = shares[:, [self.started[place].subset for place, _, _ in flat]]
        found: Measured = measure(
            self.route,
            self.state,
            self.pairs,
            [member for _, _, member in flat],
            shares,
            keep=kept,
            log_probs=self.reference is None,
        )
        for column, (_, outcome, _) in enumerate(flat):
            if math.isfinite(found.train_loss[column]) and math.isfinite(found.drifts[column]):
                outcome.add(step, found, column, recorded=recorded)
        return {
            place: (float(found.train_loss[column]), float(found.train_margin[column]))
            for column, (place, _, _) in reversed(list(enumerate(flat)))
        }

    def _verdict(self, each: _Started, loss: float | None, margin: float) -> str | None:
        """Why the run ends here, or None."""
        if not math.isfinite(margin) or (loss is not None and not math.isfinite(loss)):
            return DIVERGED
        if loss is not None and loss > self.stop.divergence * abs(each.first_loss):
            return DIVERGED
        if loss is not None and self.stop.loss is not None and loss <= self.stop.loss:
            return f"loss at most {self.stop.loss:g}"
        if self.stop.margin is not None and margin >= self.stop.margin:
            return f"margin at least {self.stop.margin:g}"
        return None

    def _end(self, ended: dict[int, str], step: int) -> None:
        """Write down why these runs ended, keep their heads, and let the others go on."""
        if not ended:
            return
        heads = self.route.heads(_pick(self.state, sorted(ended), self.put))
        for place, head in zip(sorted(ended), heads, strict=True):
            run = self.started[place].run
            for outcome, member in zip(self.started[place].outcomes, run.members, strict=True):
                outcome.head = None if ended[place] == DIVERGED else head * member.scale
                if ended[place]:
                    outcome.stopped_at, outcome.stop_reason = step, ended[place]
        going = [place for place in range(len(self.started)) if place not in ended]
        self.state, self.columns = _pick(self.state, going, self.put), None
        pieces, start = [], 0
        for where, optimizer, memory in self.pieces:
            inside = [place - where.start for place in going if where.start <= place < where.stop]
            if inside:
                left = tuple(_pick(part, inside, self.put) for part in memory)
                pieces.append((slice(start, start + len(inside)), optimizer, left))
                start += len(inside)
        self.pieces, self.started = pieces, [self.started[place] for place in going]


def moved(
    optimizer: Optimizer, state: Any, gradient: Any, memory: State, *, rate: Any, step: int, reference: Any
) -> tuple[Any, State]:
    """A state, a change of the head, after an update, and the optimizer's memory.

    Args:
        optimizer: Which.
        state: Before it.
        gradient: Of the loss.
        memory: Of the optimizer.
        rate: Of this step.
        step: Number of the step, from 0.
        reference: Head that the state is a change of, where the optimizer decays weights; else None.
    """
    weights = state if reference is None else state + reference
    weights, memory = optimizer.update(weights, gradient, memory, rate=rate, step=step)
    return weights if reference is None else weights - reference, memory


DIVERGED = "diverged"
"""Stop reason of a run with a number that is not finite or a loss beyond the limit."""
_LOOK_EVERY = 16
"""Between two looks at the loss of full-batch runs for a divergence, where no target asks for it at every step."""


def _kind(objective: Any) -> str:
    """What stays of an objective without its beta."""
    return repr(replace(objective, beta=1.0))


def _stretches(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Starts and ends of neighbours that are equal."""
    ends = [place for place in range(1, len(values)) if values[place] != values[place - 1]]
    return list(zip([0, *ends], [*ends, len(values)], strict=True))


def _pick(values: Any, places: Sequence[int], put: Arrays) -> Any:
    """Some rows of an array of either library."""
    if list(places) == list(range(values.shape[0])):
        return values
    return array_namespace(values).take(values, put(np.array(places, dtype=np.int64)), axis=0)


def reference_state(route: Route, head: np.ndarray | None) -> Any:
    """Reference head rows as a state of the route, which weight decay pulls towards 0 with the change.

    Raises:
        ConfigError: The features carry no head rows.
    """
    reference = getattr(route, "reference", None)
    if reference is None or head is None:
        raise ConfigError(
            "weight decay pulls the head itself towards 0, and these features carry no head rows; extract them from a "
            "model, or set weight_decay to 0"
        )
    return reference(head)
