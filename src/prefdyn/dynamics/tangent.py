r"""Training of a network that is linear in its weights: what adapters, or the weights themselves, do to every pair.

A module's weight $W$ reaches the value $q_i$ of row i (a log-probability, or a pair's margin without beta) through its
inputs $x_{it}$ and the signals $\delta_{it} = \partial q_i / \partial (\text{output at token } t)$, both held as they
are at the start:

$$q_i = q_{i0} + \sum_{\text{modules}} \sum_t \delta_{it}^\top (W - W_0)\, x_{it}.$$

An adapter has $W - W_0 = s (B A - B_0 A_0)$, and A and B move as they do in training, not linearly. What is left out is
that x and δ themselves change (features are learned): a real run is faster than this one, so groups are to be compared
at equal mean loss, not at equal steps.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float, Int

from prefdyn.dynamics.spaces import as_numpy
from prefdyn.errors import ConfigError, TrainingError
from prefdyn.maths.objectives import Objective
from prefdyn.maths.optimizers import Optimizer, Schedule, State, factor_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSignals:
    r"""What one module's weight is to each of n rows: $G_i = \sum_t \delta_{it} x_{it}^\top$, term by term."""

    inputs: Float[Any, "terms d_in"]
    """x, those of a row one after the other."""
    signals: Float[Any, "terms d_out"]
    """δ."""
    starts: Int[np.ndarray, " n"]
    """First term of each row."""
    counts: Int[np.ndarray, " n"]
    """Terms of each row."""
    lost: float = 0.0
    """Norm of what was cut off from all $G_i$, of their norm."""

    def row(self, row: int) -> tuple[Any, Any]:
        """Inputs (k, d_in) and signals (k, d_out) of one row."""
        part = slice(int(self.starts[row]), int(self.starts[row] + self.counts[row]))
        return self.inputs[part], self.signals[part]

    @property
    def size(self) -> int:
        """Numbers held."""
        return math.prod(self.inputs.shape) + math.prod(self.signals.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signals:
    """What every row hears of every module's weight."""

    layers: Mapping[str, LayerSignals]
    sides: bool
    """Rows are the m log-probabilities of the chosen responses, then those of the rejected ones; else m margins without
    beta, per token where the objective averages over tokens, and other rows that are measured and never trained on."""
    left_out: tuple[str, ...] = ()
    """Trained weights that are not among the layers, so that the run is foretold without what they do."""

    @property
    def pairs(self) -> int:
        """M."""
        rows = len(next(iter(self.layers.values())).starts)
        return rows // 2 if self.sides else rows

    @property
    def lost(self) -> float:
        """Largest share of any layer's norm that was cut off."""
        return max(layer.lost for layer in self.layers.values())

    def rows(self, pairs: Any) -> Any:
        """Rows of some pairs."""
        return np.concatenate([pairs, pairs + self.pairs]) if self.sides else pairs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """A LoRA module's two matrices: it adds `scale` · up · down to the weight."""

    down: Float[Any, "r d_in"]
    """A."""
    up: Float[Any, "d_out r"]
    """B."""
    scale: float

    @property
    def parts(self) -> dict[str, Any]:
        """What the optimizer moves."""
        return {"down": self.down, "up": self.up}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """A weight that is trained itself."""

    weight: Float[Any, "d_out d_in"]

    @property
    def parts(self) -> dict[str, Any]:
        """What the optimizer moves."""
        return {"weight": self.weight}


Trained = Adapter | Dense
"""What of a module is trained."""
Part = tuple[str, str]
"""Module and part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerMemory:
    """Where a run stood when the linear one starts: the optimizer's state of each part after `steps` steps."""

    steps: int = 0
    states: Mapping[Part, State] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TangentRun:
    """What R runs did to the values of all rows."""

    steps: tuple[int, ...]
    """Recorded steps, counted from the start of the run, S of them."""
    values: Float[np.ndarray, "S R rows"]
    """Change of the rows' values since the reference, nats."""
    weights: Mapping[str, Mapping[str, Any]]
    """Each module's parts at the end, with R in front."""
    modules: Mapping[str, Float[np.ndarray, "R rows"]]
    """What each module has added to every row's value since the start at the step that was asked for, nats."""


def tangent(
    signals: Signals,
    start: Mapping[str, Trained],
    objective: Objective,
    optimizer: Optimizer,
    *,
    learning_rate: float | Float[np.ndarray, " R"],
    batches: Sequence[Int[np.ndarray, " b"]],
    share: Float[np.ndarray, " m"] | Float[np.ndarray, "m R"],
    values: Float[np.ndarray, " rows"] | None = None,
    lengths: Int[np.ndarray, "two m"] | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    recorded: Iterable[int] = (),
    apart_at: int | None = None,
    rows: Int[np.ndarray, " k"] | None = None,
    memory: OptimizerMemory = OptimizerMemory(),
) -> TangentRun:
    r"""Train, the network being linear in its weights.

    Args:
        signals: Of all m pairs.
        start: What each of its layers' modules starts with.
        objective: Of the margin; its beta may be an array of R, one per run.
        optimizer: Steps as torch's does.
        learning_rate: A number, or one per run.
        batches: Pairs of each step of the whole run; those before `memory.steps` are not used.
        share: What each pair counts in the mean loss of its batch; one column per run where runs differ in it.
        values: Of all rows at the start, less the reference's, nats; 0 unless given.
        lengths: Tokens of the chosen and the rejected responses, for objectives that average over them where signals
            are those of the two sides.
        schedule: What the rate is multiplied with.
        clip: Largest norm of the gradient.
        recorded: Steps after which values are wanted, from `memory.steps` on.
        apart_at: Step after which it is wanted what each module has done: their sum is the change of the values.
        rows: Which rows' values are wanted; all unless given. Those that are trained on alone need not be measured.
        memory: Where the run stands.

    Returns:
        Values at the recorded steps.

    Raises:
        ConfigError: The objective reads no margins, a layer has no start, or lengths are missing.
        TrainingError: A loss is no longer finite.

    Reference:
        Hu et al. (2021), arXiv:2106.09685, for the adapter; Malladi et al. (2022), arXiv:2210.05643, for the linear
        view of fine-tuning. $\partial q_i / \partial B = s \sum_t \delta_{it} (A x_{it})^\top$,
        $\partial q_i / \partial A = s \sum_t (B^\top \delta_{it}) x_{it}^\top$.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> from prefdyn.maths.optimizers import SGD
        >>> layer = LayerSignals(
        ...     inputs=np.array([[2.0]]), signals=np.array([[1.0]]), starts=np.array([0]), counts=np.array([1]))
        >>> run = tangent(
        ...     Signals(layers={"a": layer}, sides=False), {"a": Dense(weight=np.zeros((1, 1)))}, DPO(beta=0.1), SGD(),
        ...     learning_rate=1.0, batches=[np.array([0])], share=np.ones(1), recorded=[1])
        >>> run.values.ravel().round(12).tolist()  # the push 1/2, times beta, times the squared norm of the gradient
        [0.2]
    """
    if objective.reads != "margins":
        raise ConfigError(f"the linear network is trained on margins, which {objective.name!r} does not read; choose "
                          "another objective")  # fmt: skip
    missing = [name for name in signals.layers if name not in start]
    if missing:
        raise ConfigError(f"module {missing[0]!r} has signals, but nothing to start with")
    network = _Network(signals, start, runs=_runs(objective, learning_rate, share), values=values)
    reader = _Margins(signals, objective, share, lengths)
    states = {
        key: _states(memory.states.get(key), part, optimizer) for key, part in network.parts.items()
    }  # fmt: skip
    wanted = sorted({int(step) for step in recorded if step >= memory.steps})
    found: dict[int, np.ndarray] = {}
    modules: dict[str, np.ndarray] = {}
    looked = np.arange(network.rows) if rows is None else rows
    first = network.apart(looked) if apart_at is not None else {}
    for step in range(memory.steps, len(batches) + 1):
        if step in wanted:
            found[step] = network.measure(looked)
        if step == apart_at:
            modules = {name: each - first[name] for name, each in network.apart(looked).items()}
        if step == len(batches):
            break
        pairs = np.asarray(batches[step])
        batch = network.batch(signals.rows(pairs))
        pulls = reader.pulls(batch.values(), pairs)
        gradient = batch.gradient(pulls)
        if clip is not None:
            gradient = _clipped(gradient, clip)
        rate = learning_rate * factor_of(schedule, step)
        rate = batch.like(rate) if isinstance(rate, np.ndarray) else rate
        for key, part in network.parts.items():
            network.parts[key], states[key] = optimizer.update(part, gradient[key], states[key], rate=rate, step=step)
    return TangentRun(
        steps=tuple(found),
        values=np.stack(list(found.values())) if found else np.zeros((0, network.runs, len(looked))),
        weights={
            name: {part: network.parts[name, part] for part in trained.parts} for name, trained in start.items()
        },
        modules=modules,
    )  # fmt: skip


def margins(signals: Signals, objective: Objective, values: Any, lengths: Any = None) -> Any:
    """Margins (…, m) of the objective, with beta, from values (…, rows); see `tangent` for the lengths."""
    if signals.sides:
        chosen, rejected = values[..., : signals.pairs], values[..., signals.pairs :]
        if objective.per_token:
            chosen, rejected = chosen / lengths[0], rejected / lengths[1]
        values = chosen - rejected
    return objective.beta * values


class _Margins:
    """From values of a batch's rows to the derivative of its mean loss in them."""

    def __init__(self, signals: Signals, objective: Objective, share: np.ndarray, lengths: np.ndarray | None) -> None:
        self.sides, self.objective = signals.sides, objective
        self.share = np.reshape(share, (len(share), -1))
        self.lengths = None
        if signals.sides and objective.per_token:
            if lengths is None:
                raise ConfigError(f"{objective.name!r} averages over tokens; give the lengths of the responses")
            self.lengths = lengths

    def pulls(self, values: Float[Any, "rows R"], pairs: np.ndarray) -> Float[Any, "rows R"]:
        """Derivative of the mean loss of the pairs in each value."""
        xp = array_namespace(values)
        like = {"dtype": values.dtype, "device": device(values)}
        count = len(pairs)
        share = xp.asarray(self.share[pairs] / self.share[pairs].sum(axis=0), **like)
        beta = self.objective.beta
        beta = xp.asarray(beta, **like) if hasattr(beta, "shape") else beta
        if not self.sides:
            return self._pushed(beta * values) * beta * share
        per = np.ones((2, count)) if self.lengths is None else 1 / self.lengths[:, pairs]
        counted = xp.asarray(per[:, :, None], **like)
        ratios = counted[0] * values[:count] - counted[1] * values[count:]
        pulled = self._pushed(beta * ratios) * beta * share
        return xp.concat([counted[0] * pulled, -counted[1] * pulled])

    def _pushed(self, margins: Any) -> Any:
        """Derivative of the loss of each pair in its margin."""
        xp, push = array_namespace(margins), self.objective.push(margins)
        if not bool(xp.all(xp.isfinite(push))):
            raise TrainingError("the loss is no longer finite; lower the learning rate")
        return -push


class _Network:
    """Weights of R runs, and what they make of the rows."""

    def __init__(self, signals: Signals, start: Mapping[str, Trained], *, runs: int, values: np.ndarray | None) -> None:
        self.layers, self.start, self.runs = signals.layers, start, runs
        layer = next(iter(self.layers.values()))
        self.xp = array_namespace(layer.inputs)
        self.like = {"dtype": layer.inputs.dtype, "device": device(layer.inputs)}
        self.rows = len(layer.starts)
        self.parts: dict[Part, Any] = {}
        for name in self.layers:
            for part, given in start[name].parts.items():
                self.parts[name, part] = self.xp.stack([self.xp.asarray(given, **self.like)] * runs)
        self.first = dict(self.parts)
        self.base = (0 if values is None else np.asarray(values)[:, None]) - self._raw(np.arange(self.rows))

    def batch(self, rows: np.ndarray) -> "_Batch":
        """Some rows."""
        return _Batch(self, rows)

    def measure(self, rows: np.ndarray) -> Float[np.ndarray, "R k"]:
        """Values of some rows under the weights as they are."""
        return (self.base[rows] + self._raw(rows)).T

    def apart(self, rows: np.ndarray) -> dict[str, Float[np.ndarray, "R k"]]:
        """What `_Batch.by_module` finds for some rows."""
        found = {name: np.zeros((self.runs, len(rows))) for name in self.layers}
        for places, batch in self._batches(rows):
            for name, values in batch.by_module(keep=False):
                found[name][:, places] = as_numpy(values).T
        return found

    def _raw(self, rows: np.ndarray) -> Float[np.ndarray, "k R"]:
        """What `_Batch.raw` finds for some rows."""
        found = np.zeros((len(rows), self.runs))
        for places, batch in self._batches(rows):
            found[places] = as_numpy(batch.raw(keep=False))
        return found

    def _batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, "_Batch"]]:
        """Places of some rows and their batch, some at a time and equally long ones together."""
        counts = np.max([layer.counts[rows] for layer in self.layers.values()], axis=0)
        order, at = np.argsort(counts, kind="stable"), 0
        while at < len(rows):
            sizes = np.arange(1, len(rows) - at + 1) * counts[order[at:]]
            places = order[at : at + max(1, int(np.searchsorted(sizes, _TERMS, side="right")))]
            yield places, _Batch(self, rows[places])
            at += len(places)


_TERMS = 2**13
"""Terms that are looked at together where all rows are measured."""


class _Batch:
    """Some rows of all layers."""

    def __init__(self, network: _Network, rows: np.ndarray) -> None:
        self.network, self.rows, self.xp = network, rows, network.xp
        self.kept: dict[str, tuple[Any, ...]] = {}
        self.known: dict[tuple[int, int], tuple[Any, Any]] = {}

    def like(self, values: np.ndarray) -> Any:
        """An array in the library of the network."""
        return self.xp.asarray(values, **self.network.like)

    def values(self) -> Float[Any, "rows R"]:
        """Values under the weights as they are."""
        return self.like(self.network.base[self.rows]) + self.raw()

    def raw(self, *, keep: bool = True) -> Float[Any, "rows R"]:
        """Σ δᵀ W x over layers and terms, W being the adapter's product, or the weight's change.

        `keep`: what `gradient` needs of every layer.
        """
        total = None
        for _, found in self.by_module(keep=keep):
            total = found if total is None else total + found
        return total

    def by_module(self, *, keep: bool = True) -> Iterator[tuple[str, Float[Any, "rows R"]]]:
        """The same, layer by layer."""
        xp, network = self.xp, self.network
        for name, layer in network.layers.items():
            at, inside = self._places(layer)
            x = xp.take(layer.inputs, at, axis=0)
            delta = xp.take(layer.signals, at, axis=0) * inside
            trained = network.start[name]
            if isinstance(trained, Adapter):
                seen = _through(xp, x, network.parts[name, "down"])
                heard = _through(xp, delta, xp.permute_dims(network.parts[name, "up"], (0, 2, 1)))
                products = trained.scale * xp.sum(seen * heard, axis=2)
            else:
                seen, heard = None, None  # the change alone, which drowns in the weight where numbers are short
                moved = _through(xp, x, network.parts[name, "weight"] - network.first[name, "weight"])
                products = xp.sum(moved * delta[:, None, :], axis=2)
            if keep:
                self.kept[name] = (x, delta, seen, heard)
            yield name, xp.sum(xp.reshape(products, (len(self.rows), -1, network.runs)), axis=1)

    def _places(self, layer: LayerSignals) -> tuple[Any, Any]:
        """Where the terms of the rows stand (rows · k,), filled up to the longest row; and 0 for filling, else 1."""
        key = (id(layer.starts), id(layer.counts))
        if key not in self.known:
            starts, counts = layer.starts[self.rows, None], layer.counts[self.rows, None]
            place = np.arange(max(1, int(counts.max())))
            inside = place < counts
            at = np.where(inside, starts + place, 0).reshape(-1)
            self.known[key] = (
                self.xp.asarray(at, device=self.network.like["device"]),
                self.like(inside.reshape(-1, 1).astype(float)),
            )
        return self.known[key]

    def gradient(self, pulls: Float[Any, "rows R"]) -> dict[Part, Any]:
        """Gradient of Σ pulls · values in every part, with R in front; `values` was called before."""
        xp, found, (count, runs) = self.xp, {}, pulls.shape
        for name, (x, delta, seen, heard) in self.kept.items():
            trained, terms = self.network.start[name], x.shape[0] // count
            weights = xp.reshape(xp.broadcast_to(pulls[:, None, :], (count, terms, runs)), (-1, runs, 1))
            if isinstance(trained, Adapter):
                weights = trained.scale * weights
                found[name, "up"] = xp.permute_dims(_against(xp, weights * seen, delta), (0, 2, 1))
                found[name, "down"] = _against(xp, weights * heard, x)
            else:
                found[name, "weight"] = _against(xp, weights * delta[:, None, :], x)
        return found


def _through(xp: Any, given: Float[Any, "T d"], weights: Float[Any, "R p d"]) -> Float[Any, "T R p"]:
    """Every term through every run's weights."""
    runs, out, width = weights.shape
    flat = xp.reshape(weights, (runs * out, width))
    return xp.reshape(xp.matmul(given, xp.permute_dims(flat, (1, 0))), (given.shape[0], runs, out))


def _against(xp: Any, rows: Float[Any, "T R p"], given: Float[Any, "T d"]) -> Float[Any, "R p d"]:
    """Sums over terms of outer products."""
    terms, runs, out = rows.shape
    flat = xp.permute_dims(xp.reshape(rows, (terms, runs * out)), (1, 0))
    return xp.reshape(xp.matmul(flat, given), (runs, out, given.shape[1]))


def _clipped(gradient: Mapping[Part, Any], limit: float) -> dict[Part, Any]:
    """No run's gradient longer than the limit, as torch clips."""
    xp = array_namespace(next(iter(gradient.values())))
    squares = sum(xp.sum(each * each, axis=(1, 2)) for each in gradient.values())
    factor = limit / (xp.sqrt(squares) + 1e-6)
    factor = xp.minimum(factor, xp.ones_like(factor))[:, None, None]
    return {key: each * factor for key, each in gradient.items()}


def _states(kept: State | None, part: Any, optimizer: Optimizer) -> State:
    """The optimizer's memory of a part: what was kept, for every run alike, else as before the first step."""
    if kept is None:
        return optimizer.start(part)
    xp = array_namespace(part)
    like = {"dtype": part.dtype, "device": device(part)}
    return tuple(xp.stack([xp.asarray(each, **like)] * part.shape[0]) for each in kept)


def _runs(objective: Objective, learning_rate: Any, share: np.ndarray) -> int:
    """How many runs are asked for at once."""
    sizes = {len(each) for each in (objective.beta, learning_rate) if not isinstance(each, int | float)}
    sizes |= {share.shape[1]} if share.ndim == 2 else set()
    if len(sizes) > 1:
        raise ConfigError(
            f"beta, learning_rate and share are of {sorted(sizes)} runs; give one number per run in each, or one of all"
        )
    return sizes.pop() if sizes else 1
