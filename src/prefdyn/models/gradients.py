r"""What every pair's log-probabilities hear of the weights of linear modules, from batched passes of the model.

A module gives $y_t = W x_t$. For each pair, token and module this reads the input $x_t$ and the signal
$\delta_t = \partial (\log\text{-probability}) / \partial y_t$; the gradient in W is $\sum_t \delta_t x_t^\top$,
which is never formed. One forward pass serves all modules and all pairs of a batch, with one backward pass, or one for
each of the two responses.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from prefdyn._progress import track
from prefdyn.dynamics.tangent import LayerSignals, Signals
from prefdyn.errors import ModelError
from prefdyn.models.forward import batch_room, runs
from prefdyn.models.log_probs import PairScorer, evaluating, texts_of
from prefdyn.models.packing import CHOSEN, REJECTED

_GRAPH_TOKENS = {"cuda": 4096}
"""Tokens per pass where what the backward pass needs is kept: some 15 MB a token of an 8B model in bfloat16."""
_TURNS, _COLUMNS = 3, 8
"""Turns of the subspace iteration, and directions that it follows at least."""


def gradients(
    scorer: PairScorer,
    modules: Sequence[str],
    *,
    sides: bool = True,
    chosen: bool = False,
    per_token: bool = False,
    rank: int | None = None,
    biases: bool = False,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> Signals:
    """Inputs and signals of linear modules, for all pairs of a scorer.

    Args:
        scorer: Of the model as it is. With `sides` or `chosen` and one-token answers its `normaliser_gradient` must be
            on.
        modules: Full names of the modules in the model: linear layers, GPT-2's `Conv1D` among them, or what an adapter
            library put around them.
        sides: Chosen and rejected log-probabilities apart, from two backward passes. Else margins without beta, from
            one.
        chosen: Without `sides`: after the margins of all pairs, rows of their chosen log-probabilities, too, from a
            second backward pass.
        per_token: Without `sides`: each log-probability is divided by the tokens of its response.
        rank: Most terms kept of each row's gradient in each module, the best by its singular values; None: one term
            per token, and nothing is lost.
        biases: Add a last input that is 1, so that the weight's last column is the module's bias.
        batch_tokens: Tokens per pass; None: by device.
        progress: Show a bar where stderr is a terminal.

    Returns:
        Signals, in the order of the scorer's pairs, on the model's device.

    Raises:
        ModelError: A name is no such module, a module is not called by the model, or it reads other tokens than the
            model does, as an expert does that is given some of them.
    """
    lm, pairs = scorer.lm, scorer.pairs
    known = dict(lm.model.named_modules())
    for name in modules:
        _refuse_other(name, known, lm.name)
    sizes = np.asarray([len(text) for text in texts_of(pairs, np.arange(len(pairs)))])
    order = np.argsort(sizes, kind="stable")
    kind = torch.device(lm.device).type
    budget, cost = batch_room(kind, batch_tokens or _GRAPH_TOKENS.get(kind))
    batches = [order[part] for part in runs(sizes[order], budget=budget, pass_cost=cost)]
    wanted = ("chosen", "rejected") if sides else ("margin", "chosen") if chosen else ("margin",)
    store = _Store(len(pairs) * len(wanted), rank=rank)
    with evaluating(lm.model), _frozen(lm.model), _Tapped(lm.trunk, {name: known[name] for name in modules}) as tapped:

        def read(batch: np.ndarray) -> Iterator[_Entry]:
            tapped.clear()
            with torch.enable_grad():
                read = scorer.read_apart(batch)
                for place, what in enumerate(wanted):
                    values = _values(read.scores, what, pairs, batch, per_token=per_token)
                    found = tapped.signals(values.sum(), keep=place + 1 < len(wanted))
                    rows, skipped = batch + place * len(pairs), _SKIPPED.get(what)
                    owners = [
                        np.where(part == skipped, -2, owner) for owner, part in zip(read.owner, read.part, strict=True)
                    ]
                    while found:
                        name, calls = found.popitem()
                        yield _Entry.of(name, rows, _by_row(name, calls, owners, len(batch), ones=biases), rank)

        for batch in track(batches, "Reading gradients", unit="batches", shown=progress):
            for entries in _fitting(read, batch, sizes, tapped, lm):
                store.put(entries)
    unread = [name for name in modules if name not in store.parts]
    if unread:
        raise ModelError(f"module {unread[0]!r} of {lm.name} is not called when the model reads; leave it out")
    return Signals(layers={name: store.layer(name) for name in modules}, sides=sides)


def _fitting(
    read: "Callable[[np.ndarray], Iterator[_Entry]]", batch: np.ndarray, sizes: np.ndarray, tapped: "_Tapped", lm: Any
) -> "Iterator[list[_Entry]]":
    """What is read of a batch; of its halves where a GPU's memory does not hold it, as of later batches then."""
    if len(batch) == 1 or sizes[batch].sum() <= tapped.room:
        try:
            found = list(read(batch))
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ModelError(
                    f"the gradients of a pair of {int(sizes[batch[0]])} tokens do not fit into the memory of "
                    f"{lm.device}; use --max-length, --dtype bfloat16 or a smaller model"
                ) from error
        else:
            yield found
            return
        tapped.clear()
        torch.cuda.empty_cache()
        tapped.room = int(sizes[batch].sum()) // 2
    for half in np.array_split(batch, 2):
        yield from _fitting(read, half, sizes, tapped, lm)


@contextlib.contextmanager
def _frozen(model: torch.nn.Module) -> Iterator[None]:
    """No parameter wants a gradient, and each as it was afterwards."""
    trained = [each for each in model.parameters() if each.requires_grad]
    for each in trained:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in trained:
            each.requires_grad_(True)


_SKIPPED = {"chosen": REJECTED, "rejected": CHOSEN}
"""Whose tokens a log-probability hears nothing of."""


def _values(scores: Any, what: str, pairs: Any, batch: np.ndarray, *, per_token: bool) -> torch.Tensor:
    if what != "margin":
        return scores.chosen if what == "chosen" else scores.rejected
    if not per_token:
        return scores.chosen - scores.rejected
    counts = [
        torch.tensor([len(side[row]) for row in batch.tolist()], device=scores.chosen.device)
        for side in (pairs.chosen, pairs.rejected)
    ]
    return scores.chosen / counts[0] - scores.rejected / counts[1]


def _refuse_other(name: str, known: dict[str, Any], model: str) -> None:
    if name not in known:
        raise ModelError(f"{model} has no module {name!r}")
    inner = getattr(known[name], "base_layer", known[name])
    if not (isinstance(inner, torch.nn.Linear) or type(inner).__name__ == "Conv1D"):
        raise ModelError(f"module {name!r} of {model} is of class {type(inner).__name__}, which is no linear layer")


# reading -------------------------------------------------------------------------------------------------------------


class _Tapped:
    """Modules whose inputs and outputs are kept while the trunk reads."""

    def __init__(self, trunk: torch.nn.Module, modules: dict[str, torch.nn.Module]) -> None:
        self.trunk, self.modules = trunk, modules
        self.stack = contextlib.ExitStack()
        self.call = -1
        self.room = math.inf
        """Tokens that are read at once, once more of them were too many."""
        self.kept: list[tuple[str, int, torch.Tensor, torch.Tensor]] = []
        """Module, call of the trunk, input and output."""

    def __enter__(self) -> "_Tapped":
        hooks = [self.trunk.register_forward_pre_hook(self._next)]
        for name, module in self.modules.items():
            hooks.append(module.register_forward_hook(self._hook(name)))
        for hook in hooks:
            self.stack.callback(hook.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def clear(self) -> None:
        """Forget the last batch."""
        self.call, self.kept = -1, []

    def _next(self, *_: object) -> None:
        self.call += 1

    def _hook(self, name: str) -> Any:
        def keep(_: Any, given: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
            if not out.requires_grad:
                out.requires_grad_(True)
            self.kept.append((name, self.call, given[0].detach(), out))
            return out.clone()  # what comes after may write into it

        return keep

    def signals(self, total: torch.Tensor, *, keep: bool) -> dict[str, list[tuple[int, torch.Tensor, torch.Tensor]]]:
        """Call, inputs (tokens, d_in) and signals (tokens, d_out) of every module; `keep`: the graph is used again."""
        outs = [out for *_, out in self.kept]
        slopes = torch.autograd.grad(total, outs, retain_graph=keep, allow_unused=True)
        found: dict[str, list[tuple[int, torch.Tensor, torch.Tensor]]] = {}
        for (name, call, given, _), slope in zip(self.kept, slopes, strict=True):
            if slope is not None:
                pair = (call, given.reshape(-1, given.shape[-1]), slope.reshape(-1, slope.shape[-1]))
                found.setdefault(name, []).append(pair)
        return found


def _by_row(
    name: str,
    calls: Sequence[tuple[int, torch.Tensor, torch.Tensor]],
    owners: Sequence[np.ndarray],
    count: int,
    *,
    ones: bool,
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Inputs and signals of a batch's rows, one row after the other, and how many each has."""
    for call, given, slope in calls:
        if not len(given) == len(slope) == len(owners[call]):
            raise ModelError(
                f"module {name!r} reads {len(given)} tokens where the model reads {len(owners[call])}, as an expert "
                "does, so that it is not known whose they are; leave it out of the adapter's targets"
            )
    owner = np.concatenate([owners[call] for call, *_ in calls])
    inside = np.flatnonzero(owner >= 0)
    inside = inside[np.argsort(owner[inside], kind="stable")]
    at = torch.from_numpy(inside).to(calls[0][1].device)
    found = []
    for several in ([given for _, given, _ in calls], [slope for *_, slope in calls]):
        whole = (torch.cat(several) if len(several) > 1 else several[0]).index_select(0, at)
        found.append(whole.to(torch.promote_types(whole.dtype, torch.float32)))
    if ones:
        found[0] = torch.cat([found[0], torch.ones_like(found[0][:, :1])], dim=1)
    return found[0], found[1], np.bincount(owner[inside], minlength=count)


# keeping -------------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """Some rows of one module, as they are kept."""

    name: str
    rows: np.ndarray
    counts: np.ndarray
    inputs: torch.Tensor
    signals: torch.Tensor
    whole: float | torch.Tensor
    """Sum over the rows of the squared norms."""
    lost: float | torch.Tensor
    """The same of what was cut off."""

    @classmethod
    def of(
        cls, name: str, rows: np.ndarray, found: tuple[torch.Tensor, torch.Tensor, np.ndarray], rank: int | None
    ) -> "_Entry":
        """From inputs, signals and how many of them each row has; at most `rank` of each are kept."""
        inputs, signals, counts = found
        if rank is None:
            return cls(name, rows, counts, inputs, signals, 0.0, 0.0)
        wide = filled(inputs, counts), filled(signals, counts)
        if counts.max() <= rank:
            return cls(name, rows, counts, inputs, signals, _square(*wide), 0.0)
        inputs, signals, whole, lost = compressed(*wide, rank)
        counts = np.full(len(rows), inputs.shape[1])
        return cls(name, rows, counts, inputs.flatten(0, 1), signals.flatten(0, 1), whole, lost)


class _Store:
    """Layers as they fill up, batch by batch."""

    def __init__(self, rows: int, *, rank: int | None) -> None:
        self.rows, self.rank = rows, rank
        self.parts: dict[str, list[tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]]] = {}
        self.places: list[tuple[np.ndarray, np.ndarray]] = []
        """Starts and counts of layers, which layers share where they are the same."""
        self.whole: dict[str, float] = {}
        self.lost: dict[str, float] = {}

    def put(self, entries: Sequence[_Entry]) -> None:
        """Keep what was read of a batch."""
        for entry in entries:
            self.whole[entry.name] = self.whole.get(entry.name, 0.0) + float(entry.whole)
            self.lost[entry.name] = self.lost.get(entry.name, 0.0) + float(entry.lost)
            self.parts.setdefault(entry.name, []).append((entry.rows, entry.counts, entry.inputs, entry.signals))

    def layer(self, name: str) -> LayerSignals:
        """A module's rows. They are given away: the store has them no longer."""
        parts = self.parts.pop(name)
        starts, counts = np.zeros(self.rows, dtype=np.int64), np.zeros(self.rows, dtype=np.int64)
        order, each = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
        starts[order], counts[order] = np.cumsum(each) - each, each
        places = next((known for known in self.places if np.array_equal(known, (starts, counts))), (starts, counts))
        if places[0] is starts:
            self.places.append(places)
        whole = self.whole.get(name, 0.0)
        return LayerSignals(
            inputs=torch.cat([part[2] for part in parts]),
            signals=torch.cat([part[3] for part in parts]),
            starts=places[0],
            counts=places[1],
            lost=(self.lost.get(name, 0.0) / whole) ** 0.5 if whole else 0.0,
        )


def filled(values: torch.Tensor, counts: np.ndarray) -> torch.Tensor:
    """Rows (n, longest, d) out of their terms (terms, d) one after the other, filled up with zeros."""
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    wide = values.new_zeros(len(counts), int(counts.max()), values.shape[1])
    wide[torch.from_numpy(row).to(values.device), torch.from_numpy(place).to(values.device)] = values
    return wide


def _square(inputs: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:
    """Σ over rows of ‖Σ_t δ_t x_tᵀ‖², float64, where the rows are."""
    return ((inputs @ inputs.mT) * (signals @ signals.mT)).sum(dtype=torch.float64)


def compressed(
    inputs: Float[torch.Tensor, "n t d_in"], signals: Float[torch.Tensor, "n t d_out"], rank: int
) -> tuple[torch.Tensor, torch.Tensor, float | torch.Tensor, float | torch.Tensor]:
    r"""The best few terms of each row's $\sum_t \delta_t x_t^\top$; nearly the best on a GPU, by `iterated`.

    Args:
        inputs: x.
        signals: δ.
        rank: Terms to keep.

    Returns:
        Inputs and signals (n, rank, d); the sum over rows of the squared norms; and of what was cut off.

    Example:
        >>> x, d = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[3.0], [4.0]]])
        >>> inputs, signals, whole, lost = compressed(x, d, 1)
        >>> (signals.mT @ inputs).round(decimals=5).tolist(), round(whole, 4), round(lost, 4)
        ([[[3.0, 4.0]]], 25.0, 0.0)
    """
    if inputs.is_cuda:  # whose libraries decompose the large matrices of a batch one after the other
        return iterated(inputs, signals, rank)
    left, one = torch.linalg.qr(signals.mT)
    right, two = torch.linalg.qr(inputs.mT)
    u, values, v = torch.linalg.svd(one @ two.mT, full_matrices=False)
    squares = values.double().square()
    root = values[:, :rank].sqrt()[:, None]
    kept_signals = (left @ u[:, :, :rank]) * root
    kept_inputs = (right @ v.mT[:, :, :rank]) * root
    return kept_inputs.mT, kept_signals.mT, float(squares.sum()), float(squares[:, rank:].sum())


def iterated(
    inputs: Float[torch.Tensor, "n t d_in"], signals: Float[torch.Tensor, "n t d_out"], rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""As `compressed`, by a subspace iteration of a few turns: products, and decompositions of matrices as small as
    the rank alone.

    What is kept is the gradient projected onto an orthonormal basis of that many directions of the signals, so that
    what is cut off is known as exactly, and hardly more than the least: the basis is that of the leading singular
    vectors, but for what the turns leave.

    Example:
        >>> x, d = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[3.0], [4.0]]])
        >>> inputs, signals, whole, lost = iterated(x, d, 1)
        >>> (signals.mT @ inputs).round(decimals=5).tolist(), round(float(whole), 4), round(float(lost), 4)
        ([[[3.0, 4.0]]], 25.0, 0.0)

    Reference:
        Halko, Martinsson and Tropp (2011), arXiv:0909.4061, section 4.5.
    """
    basis = _orthonormal(signals.mT @ _drawn(inputs.shape[1], max(rank, _COLUMNS)).to(inputs))
    for turn in range(_TURNS):
        other = inputs.mT @ (signals @ basis)
        other = other / other.abs().amax((1, 2), keepdim=True).clamp_min(1e-30)
        basis = _orthonormal(signals.mT @ (inputs @ other), times=1 + (turn == _TURNS - 1))
    kept = (signals @ basis).mT @ inputs
    if kept.shape[1] > rank:
        _, turned = torch.linalg.eigh((kept @ kept.mT).double())
        turned = turned[:, :, -rank:].to(kept)
        kept, basis = turned.mT @ kept, basis @ turned
    whole, held = _square(inputs, signals), kept.double().square().sum()
    return kept, basis.mT, whole, (whole - held).clamp_min(0.0)


@functools.cache
def _drawn(terms: int, rank: int) -> torch.Tensor:
    """Signs (terms, rank) to begin with, the same every time."""
    return torch.randint(0, 2, (terms, rank), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def _orthonormal(columns: Float[torch.Tensor, "n d k"], *, times: int = 1) -> Float[torch.Tensor, "n d k"]:
    """Columns that span the same, orthonormal; 0 in place of those that add nothing. Twice: also where nearly alike."""
    found, one = columns.double(), torch.eye(columns.shape[2], dtype=torch.float64, device=columns.device)
    for _ in range(times):
        gram = found.mT @ found
        size = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        factor, _ = torch.linalg.cholesky_ex(gram + (1e-14 * size + 1e-300) * one)
        found = found @ torch.linalg.solve_triangular(factor, one.expand_as(factor), upper=False).mT
    return found.to(columns.dtype)
