r"""What every pair's log-probabilities hear of the weights of linear modules, from batched passes of the model.

A module gives $y_t = W x_t$. For each pair, token and module this reads the input $x_t$ and the signal
$\delta_t = \partial (\log\text{-probability}) / \partial y_t$; the gradient in W is $\sum_t \delta_t x_t^\top$,
which is never formed. One forward pass serves all modules and all pairs of a batch, with one backward pass, or one for
each of the two responses.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from prefdyn._progress import track
from prefdyn.dynamics.tangent import LayerSignals, Signals
from prefdyn.errors import ModelError
from prefdyn.models.forward import batch_room, runs
from prefdyn.models.log_probs import PairScorer, evaluating, texts_of
from prefdyn.models.packing import CHOSEN, REJECTED


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
    budget, cost = batch_room(torch.device(lm.device).type, batch_tokens)
    batches = [order[part] for part in runs(sizes[order], budget=budget, pass_cost=cost)]
    wanted = ("chosen", "rejected") if sides else ("margin", "chosen") if chosen else ("margin",)
    store = _Store(len(pairs) * len(wanted), rank=rank)
    with evaluating(lm.model), _frozen(lm.model), _Tapped(lm.trunk, {name: known[name] for name in modules}) as tapped:
        for batch in track(batches, "Reading gradients", unit="batches", shown=progress):
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
                    for name, calls in found.items():
                        store.put(name, rows, _by_row(name, calls, owners, len(batch), ones=biases))
    unread = [name for name in modules if name not in store.parts]
    if unread:
        raise ModelError(f"module {unread[0]!r} of {lm.name} is not called when the model reads; leave it out")
    return Signals(layers={name: store.layer(name) for name in modules}, sides=sides)


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


class _Store:
    """Layers as they fill up, batch by batch."""

    def __init__(self, rows: int, *, rank: int | None) -> None:
        self.rows, self.rank = rows, rank
        self.parts: dict[str, list[tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]]] = {}
        self.places: list[tuple[np.ndarray, np.ndarray]] = []
        """Starts and counts of layers, which layers share where they are the same."""
        self.whole: dict[str, float] = {}
        self.lost: dict[str, float] = {}

    def put(self, name: str, rows: np.ndarray, found: tuple[torch.Tensor, torch.Tensor, np.ndarray]) -> None:
        """Keep a batch's rows of one module."""
        inputs, signals, counts = found
        if self.rank is not None and counts.max() > self.rank:
            wide = filled(inputs, counts), filled(signals, counts)
            inputs, signals, whole, lost = compressed(*wide, self.rank)
            counts = np.full(len(rows), inputs.shape[1])
            inputs, signals = inputs.flatten(0, 1), signals.flatten(0, 1)
            self.lost[name] = self.lost.get(name, 0.0) + lost
            self.whole[name] = self.whole.get(name, 0.0) + whole
        elif self.rank is not None:
            squares = filled(inputs, counts), filled(signals, counts)
            self.whole[name] = self.whole.get(name, 0.0) + _square(*squares)
        self.parts.setdefault(name, []).append((rows, counts, inputs, signals))

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


def _square(inputs: torch.Tensor, signals: torch.Tensor) -> float:
    """Σ over rows of ‖Σ_t δ_t x_tᵀ‖²."""
    return float(((inputs @ inputs.mT) * (signals @ signals.mT)).sum())


def compressed(
    inputs: Float[torch.Tensor, "n t d_in"], signals: Float[torch.Tensor, "n t d_out"], rank: int
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    r"""The best few terms of each row's $\sum_t \delta_t x_t^\top$.

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
    left, one = torch.linalg.qr(signals.mT)
    right, two = torch.linalg.qr(inputs.mT)
    u, values, v = torch.linalg.svd(one @ two.mT, full_matrices=False)
    squares = values.double().square()
    root = values[:, :rank].sqrt()[:, None]
    kept_signals = (left @ u[:, :, :rank]) * root
    kept_inputs = (right @ v.mT[:, :, :rank]) * root
    return kept_inputs.mT, kept_signals.mT, float(squares.sum()), float(squares[:, rank:].sum())
