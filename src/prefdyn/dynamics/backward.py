r"""One run, backwards: from derivatives in the head it ends with to those in everything it was made of.

Forward, a step is $u = F\theta$, $v_i = \beta s_i h(\beta u_i)$, $g = -A^\top v$ and an optimizer's update, with shares
$s_i = w_i / \sum_j w_j$ over the pairs that the step sees. Backward, with $\bar g$ from the update, $z = A \bar g$:

$$ \bar s_i \mathrel{+}= -z_i\, \beta h(r_i), \qquad
   \bar\theta \mathrel{+}= F^\top (\beta^2 s \circ f''(r) \circ z), \qquad
   \bar w_i \mathrel{+}= \frac{\bar s_i - \sum_j s_j \bar s_j}{\sum_j w_j}. $$

For full-batch descent this is the closed sweep of THEORY 12. States are needed in the order opposite to that in which
they come. Of T, every $\lceil\sqrt{T}\rceil$-th is kept, and so are the last $3 \lceil\sqrt{T}\rceil$; steps in between
are done again when their turn comes: $O(\sqrt T)$ states at any time, for less than one more forward run.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from prefdyn._progress import track
from prefdyn._threads import brief_products
from prefdyn.dynamics.engine import moved
from prefdyn.dynamics.measure import shifts
from prefdyn.dynamics.problem import Arrays, Pairs
from prefdyn.dynamics.pull import RunColumns, WatchedPull
from prefdyn.dynamics.spaces import Route, as_numpy
from prefdyn.dynamics.transpose import gradient_back, transposed
from prefdyn.maths.objectives import DPO, IPO, RobustDPO
from prefdyn.maths.optimizers import Optimizer, Schedule, State, factor_of
from prefdyn.maths.reverse import step_back
from prefdyn.maths.slopes import bend, by_beta, by_smoothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a step was given, and what it saw."""

    step: int
    state: Any
    memory: State
    gradient: Any
    signal: Any
    """(b, 1) log-ratio changes of the pairs that it saw, or (b, 1, k) logit changes."""
    pulls: Any
    """What these pairs pulled, shaped like the signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """Derivatives of T numbers in what a run was made of."""

    pair: Float[np.ndarray, "T trained"]
    """In the weight of each trained pair, the shares of the others with it."""
    pair_fixed: Float[np.ndarray, "T trained"]
    """The same with the sum of weights in each step held."""
    learning_rate: Float[np.ndarray, " T"]
    beta: Float[np.ndarray, " T"]
    r"""Through the path alone: what $\beta$ does to the numbers at its end is not in it."""
    smoothing: Float[np.ndarray, " T"]


class Walk:
    """One run that can be walked forward once and then back.

    Args:
        route: How the head is held; exact for the optimizer.
        pairs: The pairs of the route.
        objective: The loss.
        learning_rate: Base rate.
        optimizer: Which.
        schedule: Factors on the rate; None: constant.
        steps: How many.
        batches: Places among the trained pairs, per step; None for all of them.
        reference: Reference rows as a state, which weight decay needs.
        put: Takes a NumPy array to the library and device that computes.
    """

    def __init__(
        self,
        route: Route,
        pairs: Pairs,
        objective: Any,
        learning_rate: float,
        optimizer: Optimizer,
        schedule: Schedule | None,
        *,
        steps: int,
        batches: Sequence[Int[np.ndarray, " _"]] | None = None,
        reference: Any = None,
        put: Arrays | None = None,
    ) -> None:
        self.turned = transposed(route)
        self.route, self.pairs, self.objective, self.optimizer = route, pairs, objective, optimizer
        self.learning_rate, self.schedule, self.steps, self.batches = learning_rate, schedule, steps, batches
        self.reference, self.put = reference, put or (lambda values: values)
        weights = (pairs.weight * ~pairs.held_out)[:, None]
        self.total_weight = float(weights.sum())
        self.columns = RunColumns.of(route.like, self.put, pairs, weights / weights.sum(axis=0), [(objective, 0)])
        self.every = math.ceil(math.sqrt(steps))
        self.again = range(0, max(0, math.ceil(steps / self.every) - _LAST) * self.every, self.every)
        """First steps of the stretches that are done again."""
        self.kept: dict[int, tuple[Any, State]] = {}
        self.last: list[Moment] = []
        self.most_states = 0
        """The most states held at once so far."""

    # forward --------------------------------------------------------------------------------------------------------

    def forward(self, *, progress: bool = False) -> Any:
        """Walk to the end; the last state."""
        state = self.route.start(1)
        memory = self.optimizer.start(state)
        with self._threads(state):
            for step in track(range(self.steps), "Forward", unit="steps", shown=progress):
                if step in self.again:
                    self.kept[step] = (state, memory)
                moment, state, memory = self._step(step, state, memory)
                if step >= self.again.stop:
                    self.last.append(moment)
                self._count(len(self.last))
        return state

    def _threads(self, state: Any) -> AbstractContextManager[object]:
        """As many as the products of all pairs with these numbers are worth."""
        return brief_products(len(self.pairs) * math.prod(state.shape))

    def _count(self, beside: int) -> None:
        self.most_states = max(self.most_states, len(self.kept) + beside)

    def _rate(self, step: int) -> float:
        return self.learning_rate * factor_of(self.schedule, step)

    def _batch(self, step: int) -> Int[np.ndarray, " b"] | None:
        return None if self.batches is None else self.batches[step]

    def _step(self, step: int, state: Any, memory: State) -> tuple[Moment, Any, State]:
        watch = WatchedPull(self.columns, self.batches is None, with_loss=False)
        signals: list[Any] = []
        pulls: list[Any] = []

        def pull(signal: Any, where: Any) -> Any:
            signals.append(signal + 0.0)  # a copy: a route may write over its products
            pulls.append(watch(signal, where))
            return pulls[-1]

        gradient = self.route.gradient(state, pull, self._batch(step))
        signal, pulled = _joined(signals), _joined(pulls)
        moment = Moment(step=step, state=state, memory=memory, gradient=gradient, signal=signal, pulls=pulled)
        after = moved(
            self.optimizer, state, gradient, memory, rate=self._rate(step), step=step, reference=self.reference
        )  # fmt: skip
        return moment, *after

    # back -----------------------------------------------------------------------------------------------------------

    def _moments(self) -> Iterator[Moment]:
        """Every step from the last to the first; what is behind is let go."""
        while self.last:
            yield self.last.pop()
        for start in reversed(self.again):
            state, memory = self.kept[start]
            moments = []
            for step in range(start, start + self.every):
                moment, state, memory = self._step(step, state, memory)
                moments.append(moment)
                self._count(len(moments))
            del self.kept[start]
            while moments:
                yield moments.pop()

    def back(self, cotangent: Any, *, progress: bool = False) -> Gradients:
        """Walk back from the end.

        Args:
            cotangent: (T, …) derivatives of T numbers in the last state.
            progress: Show a bar on stderr where it is a terminal.
        """
        xp, targets = array_namespace(cotangent), cotangent.shape[0]
        found = _Sums(self, targets)
        memory = tuple(xp.zeros_like(cotangent) for _ in self.last[-1].memory)
        rates: Any = xp.zeros_like(found.beta)
        moments = self._moments()
        with self._threads(cotangent):
            for _ in track(range(self.steps), "Backward", unit="steps", shown=progress):
                moment = next(moments)
                weights = moment.state if self.reference is None else moment.state + self.reference
                before = step_back(
                    self.optimizer, weights, moment.gradient, moment.memory, rate=self._rate(moment.step),
                    step=moment.step, after=cotangent, memory_after=memory,
                )  # fmt: skip
                rates = rates + factor_of(self.schedule, moment.step) * before.rate
                batch = self._batch(moment.step)
                turned = gradient_back(self.turned, before.gradient, found.pull(moment, batch is None), batch)
                cotangent, memory = before.weights - turned, before.memory
        return found.gradients(as_numpy(rates))


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else array_namespace(parts[0]).concat(parts, axis=0)


_LAST = 3
"""Stretches at the end whose steps are kept in the first pass."""


class _Sums:
    """What the steps add to the derivatives, while the sweep goes through them."""

    def __init__(self, walk: Walk, targets: int) -> None:
        self.walk, self.columns = walk, walk.columns
        xp, like = array_namespace(walk.route.like), walk.route.like
        shape = (len(walk.pairs.train), targets)
        device = {} if isinstance(like, np.ndarray) else {"device": like.device}
        self.fixed = xp.zeros(shape, dtype=xp.float64, **device)
        self.mean = xp.zeros(shape, dtype=xp.float64, **device)
        """Of minibatches: what the sum of weights takes back from each pair."""
        self.beta: Any = xp.zeros(targets, dtype=xp.float64, **device)
        self.smoothing: Any = xp.zeros(targets, dtype=xp.float64, **device)

    def pull(self, moment: Moment, full: bool) -> Any:
        """The map between both passes over the features of one step."""

        def of_margins(z: Any, where: Any) -> Any:
            objective = self.walk.objective
            shares, total = self._shares(where, full)
            beta = float(objective.beta)
            margins = beta * (moment.signal[where, :] if full else moment.signal)
            push = (moment.pulls[where, :] if full else moment.pulls) / (beta * shares)
            bent = bend(objective, margins)
            self._add(where, full, z * (-beta / total * push), shares)
            direct = push - margins * bent
            if isinstance(objective, IPO):
                direct = direct + beta * by_beta(objective, margins)[1]
            self.beta = self.beta - (z.T @ (shares * direct))[:, 0]
            if isinstance(objective, DPO | RobustDPO):
                self.smoothing = self.smoothing - (z.T @ (shares * beta * by_smoothing(objective, margins)[1]))[:, 0]
            return z * (shares * beta**2 * bent)

        def of_logits(z: Any, where: Any) -> Any:
            xp, columns = array_namespace(z), self.columns
            shares, total = self._shares(where, full)
            logits = moment.signal[where, :, :] if full else moment.signal
            before, rest = columns.log_probs[where, :], columns.log_rest[where, :]
            now = xp.exp(before[:, None, :] + logits - shifts(logits, rest, before)[:, :, None])
            chosen = columns.chosen[where, :][:, None, :]
            self._add(where, full, -xp.sum(z * (chosen - now), axis=2) / total, shares)
            return shares[:, :, None] * now * (z - xp.sum(now * z, axis=2)[:, :, None])

        return of_logits if self.columns.log_probs is not None else of_margins

    def _shares(self, where: Any, full: bool) -> tuple[Any, float]:
        """(b, 1) shares of the loss in this step, and the sum of the weights of the pairs that it sees."""
        shares = self.columns.weights[where, :]
        if full:
            return shares, self.walk.total_weight
        seen = array_namespace(shares).sum(shares)
        return shares / seen, float(seen) * self.walk.total_weight

    def _add(self, where: Any, full: bool, to_weights: Any, shares: Any) -> None:
        """Add derivatives in weights, the sum of weights held, and what that sum takes back from each."""
        self.fixed[where, :] += to_weights
        if not full:
            self.mean[where, :] += (shares.T @ to_weights)[0, :]

    def gradients(self, rates: np.ndarray) -> Gradients:
        """The derivatives, as NumPy."""
        fixed, mean = as_numpy(self.fixed), as_numpy(self.mean)
        if self.walk.batches is None:
            weight = self.walk.pairs.weight[self.walk.pairs.train]
            mean = (weight @ fixed)[None, :] / self.walk.total_weight
        return Gradients(
            pair=np.ascontiguousarray((fixed - mean).T),
            pair_fixed=np.ascontiguousarray(fixed.T),
            learning_rate=rates,
            beta=as_numpy(self.beta),
            smoothing=as_numpy(self.smoothing),
        )
