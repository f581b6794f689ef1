"""The forward pass: token sequences in, the final state of each out; and the log-normaliser of the head at a state.

Sequences are padded on the right. Attention is causal, so what stands after a token cannot reach it, and no mask is
needed; `load` checks that on every model. Logits are formed at the last position only, in chunks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from prefdyn.errors import ModelError
from prefdyn.models.load import LanguageModel
from prefdyn.models.mates import LOOSE, deviation, lengths_apart

_VOCABULARY_CHUNK = 16384
_LOGITS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Numbers in one block of logits."""
_BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
_PASS_COST = {"cpu": 128, "cuda": 2048}
"""Tokens that could be read in the time that a pass takes besides reading its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Token sequences end to end, sorted by length and then by content."""

    flat: Int[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " u_plus_1"]
    rank: Int[np.ndarray, " u"]
    """Place of the i-th given sequence in the sorted order."""

    @classmethod
    def sort(cls, given: Sequence[tuple[int, ...]]) -> "Sequences":
        """Sort and join. Any order of the same sequences gives the same result, but for `rank`."""
        order = sorted(range(len(given)), key=lambda at: (len(given[at]), given[at]))
        rank = np.empty(len(given), dtype=np.int64)
        rank[order] = np.arange(len(given))
        lengths = np.asarray([len(given[at]) for at in order], dtype=np.int64)
        flat = np.fromiter((token for at in order for token in given[at]), dtype=np.int32, count=int(lengths.sum()))
        return cls(flat=flat, offsets=np.concatenate([[0], np.cumsum(lengths)]), rank=rank)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, " u"]:
        """Tokens in each."""
        return np.diff(self.offsets)

    def one(self, row: int) -> Int[np.ndarray, " length"]:
        """Tokens of one sequence."""
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def shared_prefix(self) -> int:
        """How many tokens all sequences begin with, at most all but the last token of the shortest."""
        first = self.one(0)
        length = len(first) - 1
        starts = self.offsets[:-1]
        for at in range(length):
            if (self.flat[starts + at] != first[at]).any():
                return at
        return max(0, length)


class Reader:
    """Reads final states with one model, a prefix of all sequences being encoded once where it pays."""

    doing = "reading prompts"
    measured = "state at the end of"

    def __init__(self, lm: LanguageModel, *, double_norm: bool = False, batch_tokens: int | None = None) -> None:
        """Args: the model; whether to apply its final RMSNorm once more; tokens per forward pass (None: by device)."""
        if double_norm and lm.final_norm is None:
            raise ModelError(
                "double_norm repeats the final RMSNorm, as the published scripts did, but the final norm of "
                f"{lm.name} is no RMSNorm; leave double_norm off"
            )
        self.lm = lm
        self.double_norm = double_norm
        self.kind = torch.device(lm.device).type
        self.batch_tokens, _ = batch_room(self.kind, batch_tokens)
        self.prefix = 0
        self.cache: Any = None
        self.equal_lengths = False
        """Whether a pass holds sequences of one length only, since others would change the states."""

    # sequences beside each other ------------------------------------------------------------------------------------

    def check_mates(self, sequences: Sequences) -> None:
        """Part lengths where a state depends on sequences of another length beside it.

        Raises:
            ModelError: It depends on sequences of its own length, too.
        """

        def read(rows: np.ndarray, apart: bool) -> list[torch.Tensor]:
            self.equal_lengths = apart
            return [self._batch(sequences, rows)]

        if len(sequences) > 1:
            depends = f"states of {self.lm.name} depend on the prompts that are read beside each one"
            with torch.inference_mode():
                self.equal_lengths = lengths_apart(sequences.lengths, read, lm=self.lm, depends=depends)

    # a shared prefix ------------------------------------------------------------------------------------------------

    def share_prefix(self, sequences: Sequences) -> str | None:
        """Encode the common prefix once, if the model can and the result agrees with the plain pass.

        Args:
            sequences: All that will be read. A few of the shortest and longest are read both ways.

        Returns:
            None if the prefix is shared from now on, else why it is not.
        """
        length = sequences.shared_prefix()
        if length < 2 or len(sequences) < 4:
            return "the prompts share no prefix"
        few = np.unique(
            np.concatenate([np.arange(4), np.arange(len(sequences) - 4, len(sequences))]).clip(0, len(sequences) - 1)
        )
        try:
            with torch.inference_mode():
                plain = self._batch(sequences, few)
                reason = self._encode(sequences.one(0)[:length])
                if reason is not None:
                    return reason
                shared = self._batch(sequences, few)
        except Exception as error:
            self.forget_prefix()
            return (
                f"the model fails with a cached prefix ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
            )
        off = deviation([plain], [shared])
        if not off <= LOOSE[self.lm.dtype]:
            self.forget_prefix()
            return f"states with a cached prefix deviate by {off:.1g} from the plain pass"
        return None

    def use_prefix(self, tokens: Int[np.ndarray, " p"]) -> None:
        """Share a prefix that was checked before."""
        with torch.inference_mode():
            self._encode(tokens)

    def forget_prefix(self) -> None:
        """Read every sequence from its first token."""
        self.prefix, self.cache = 0, None

    def _encode(self, tokens: Int[np.ndarray, " p"]) -> str | None:
        ids = torch.from_numpy(tokens.astype(np.int64))[None].to(self.lm.device)
        kept = getattr(self.lm.trunk(input_ids=ids, use_cache=True), "past_key_values", None)
        layers = getattr(kept, "layers", None)
        if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
            return "the model keeps more than keys and values of past tokens"
        if any(layer.keys.shape[-2] != len(tokens) for layer in layers):
            return "the prefix is longer than the model's attention window"
        self.cache = Cache(layers=[_SharedLayer(layer.keys, layer.values) for layer in layers])
        self.prefix = len(tokens)
        return None

    # reading --------------------------------------------------------------------------------------------------------

    def batches(self, sequences: Sequences, start: int, stop: int) -> Iterator[np.ndarray]:
        """Rows start to stop in runs, each within the token budget.

        A run goes on into the next length only where the padding that this adds costs less than one more pass.
        """
        lengths = sequences.lengths[start:stop] - self.prefix
        for rows in runs(lengths, budget=self.batch_tokens, pass_cost=batch_room(self.kind)[1]):
            yield rows + start

    def read(self, sequences: Sequences, rows: np.ndarray) -> dict[str, np.ndarray]:
        """States (len(rows), d) in float32 and log-normalisers (len(rows),) of some sequences."""
        states = self.states(sequences, rows)
        return {"states": states.float().cpu().numpy(), "log_normalisers": self.log_normalisers(states)}

    def states(self, sequences: Sequences, rows: np.ndarray) -> torch.Tensor:
        """Final states (len(rows), d) of some sequences, in the model's dtype, on its device.

        Halves the batch where a GPU's memory does not hold it.
        """
        with torch.inference_mode():
            try:
                return self._batch(sequences, rows)
            except torch.OutOfMemoryError as error:
                if len(rows) == 1:
                    raise ModelError(
                        f"a sequence of {int(sequences.lengths[rows[0]])} tokens does not fit into the memory of "
                        f"{self.lm.device}; use --max-length, --dtype bfloat16 or a smaller model"
                    ) from error
            torch.cuda.empty_cache()
            self.batch_tokens = max(1, self.batch_tokens // 2)
            half = len(rows) // 2
            return torch.cat([self.states(sequences, rows[:half]), self.states(sequences, rows[half:])])

    def _batch(self, sequences: Sequences, rows: np.ndarray) -> torch.Tensor:
        lengths = sequences.lengths[rows] - self.prefix
        different = np.unique(lengths)
        if self.equal_lengths and len(different) > 1:
            parts = [np.flatnonzero(lengths == length) for length in different]
            states = torch.cat([self._batch(sequences, rows[part]) for part in parts])
            return states[torch.from_numpy(np.argsort(np.concatenate(parts))).to(states.device)]
        starts = sequences.offsets[rows] + self.prefix
        longest = int(lengths.max())
        at = np.arange(longest)
        inside = at < lengths[:, None]
        ids = np.where(inside, sequences.flat[np.where(inside, starts[:, None] + at, 0)], 0)
        tensor = torch.from_numpy(ids.astype(np.int64)).to(self.lm.device, non_blocking=True)
        if self.cache is None:
            out = self.lm.trunk(input_ids=tensor, use_cache=False).last_hidden_state
        else:
            out = self.lm.trunk(input_ids=tensor, past_key_values=self.cache, use_cache=True).last_hidden_state
        last = torch.from_numpy(lengths - 1).to(out.device)
        states = out[torch.arange(len(rows), device=out.device), last]
        return self.lm.final_norm(states) if self.double_norm else states

    def log_normalisers(self, states: torch.Tensor) -> Float[np.ndarray, " rows"]:
        """Log Σ exp(logits) at each state, from float32 logits, in chunks of rows and of the vocabulary."""
        weight, bias, scale = self.lm.head_weight, self.lm.head_bias, self.lm.head_scale
        block = _LOGITS.get(self.kind, _LOGITS["cpu"])
        columns = min(len(weight), _VOCABULARY_CHUNK)
        step = max(1, block // columns)
        found = []
        with torch.inference_mode():
            for row in range(0, len(states), step):
                part = states[row : row + step].float()
                total = None
                for low in range(0, len(weight), columns):
                    logits = part @ weight[low : low + columns].float().T
                    if bias is not None:
                        logits += bias[low : low + columns].float()
                    if scale != 1.0:
                        logits *= scale
                    one = torch.logsumexp(logits, dim=1)
                    total = one if total is None else torch.logaddexp(total, one)
                assert total is not None
                found.append(total)
            return torch.cat(found).double().cpu().numpy()


def batch_room(kind: str, batch_tokens: int | None = None) -> tuple[int, int]:
    """Tokens per forward pass on a kind of device, unless given; and the padding that costs as much as one more."""
    return batch_tokens or _BATCH_TOKENS.get(kind, 4096), _PASS_COST.get(kind, 256)


def runs(lengths: Int[np.ndarray, " n"], *, budget: int, pass_cost: int) -> Iterator[np.ndarray]:
    """Ascending lengths in runs of consecutive rows, each within a budget of tokens, padding included.

    Args:
        lengths: Tokens of each row, ascending.
        budget: Most tokens in a run of more than one row.
        pass_cost: Tokens of padding that cost as much as one more run.

    Example:
        >>> [rows.tolist() for rows in runs(np.asarray([2, 2, 3, 90]), budget=100, pass_cost=10)]
        [[0, 1, 2], [3]]
    """
    row = first = longest = 0
    for length, count in zip(*(part.tolist() for part in np.unique(lengths, return_counts=True)), strict=True):
        padding = (row - first) * (length - longest)
        if row > first and padding > pass_cost:
            yield np.arange(first, row)
            first = row
        longest = length
        for _ in range(count):
            if row > first and (row - first + 1) * length > budget:
                yield np.arange(first, row)
                first = row
            row += 1
    yield np.arange(first, row)


class _SharedLayer(DynamicLayer):
    """Keys and values of the prefix, put before those of each batch and kept as they are."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys: Any = keys
        self.values: Any = values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Prefix and batch together; nothing is stored."""
        size = (len(key_states), -1, -1, -1)
        keys = torch.cat([self.keys.expand(size), key_states], dim=-2)
        return keys, torch.cat([self.values.expand(size), value_states], dim=-2)
