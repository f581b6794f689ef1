"""Pairs read by a model in shards: sorted by what their tokens alone decide, cached, shared out, put back in order."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int

from prefdyn._checks import at_least
from prefdyn.errors import ModelError
from prefdyn.models.forward import batch_room, runs
from prefdyn.models.load import LanguageModel
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.shards import cut, load_shard, read_shards
from prefdyn.models.team import Team
from prefdyn.models.token_pairs import TokenPairs
from prefdyn.provenance import content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedPairs:
    """Pairs in the order that their tokens alone decide: by length, then by content."""

    pairs: TokenPairs
    order: Int[np.ndarray, " m"]
    """Place in the given pairs of each of these."""
    offsets: Int[np.ndarray, " m_plus_1"]
    digest: str

    @classmethod
    def of(cls, pairs: TokenPairs) -> "SortedPairs":
        """Sort pairs. Any order of the same pairs gives the same result, but for `order`."""
        texts = [pairs.prompts[at] for at in pairs.prompt.tolist()]
        read = [0] * len(pairs)
        if pairs.kind == "responses":
            read = [len(one) + len(two) - 2 for one, two in zip(pairs.chosen, pairs.rejected, strict=True)]
        keys = [
            (len(text) + more, text, one, two)
            for text, more, one, two in zip(texts, read, pairs.chosen, pairs.rejected, strict=True)
        ]
        order = sorted(range(len(pairs)), key=keys.__getitem__)
        index: dict[tuple[int, ...], int] = {}
        prompt = np.asarray([index.setdefault(texts[at], len(index)) for at in order], dtype=np.int64)
        places = np.asarray(order, dtype=np.int64)
        ordered = replace(
            pairs,
            prompts=tuple(index),
            prompt=prompt,
            chosen=tuple(pairs.chosen[at] for at in order),
            rejected=tuple(pairs.rejected[at] for at in order),
            row=pairs.row[places],
        )
        parts = [hashlib.sha256(prompt.astype("<i8").tobytes()).digest()]
        parts += [_digest(texts) for texts in (ordered.prompts, ordered.chosen, ordered.rejected)]
        lengths = [keys[at][0] for at in order]
        return cls(
            pairs=ordered, order=places, offsets=np.concatenate([[0], np.cumsum(lengths)]), digest=content_hash(parts)
        )

    @property
    def lengths(self) -> Int[np.ndarray, " m"]:
        """Tokens that are read of each pair where it shares its prompt."""
        return np.diff(self.offsets)


def _digest(texts: Sequence[tuple[int, ...]]) -> bytes:
    lengths = np.fromiter(map(len, texts), dtype="<i8", count=len(texts))
    flat = np.fromiter((token for text in texts for token in text), dtype="<i4", count=int(lengths.sum()))
    return hashlib.sha256(lengths.tobytes() + flat.tobytes()).digest()


class PairReader:
    """A `Worker` that reads pairs; what it measures of a batch is `measure`."""

    doing: str
    measured: str

    def __init__(
        self,
        lm: LanguageModel,
        pairs: SortedPairs,
        *,
        share: bool = True,
        check: str = "quick",
        batch_tokens: int | None = None,
    ) -> None:
        self.lm, self.pairs, self.share, self.check = lm, pairs.pairs, share, check
        self.kind = torch.device(lm.device).type
        if batch_tokens is not None:
            at_least(batch_tokens, 1, name="batch_tokens")
        self.batch_tokens, self.pass_cost = batch_room(self.kind, batch_tokens)

    def measure(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Arrays with one row per pair."""
        raise NotImplementedError

    @cached_property
    def scorer(self) -> PairScorer:
        """Made where there is something to read, since it scores a few pairs to check itself."""
        return PairScorer(self.lm, self.pairs, share=self.share, check=self.check)

    def batches(self, items: SortedPairs, start: int, stop: int, /) -> Iterator[np.ndarray]:
        """Rows start to stop in batches within the token budget."""
        assert self.scorer is not None  # made before threads ask for it
        for rows in runs(items.lengths[start:stop], budget=self.batch_tokens, pass_cost=self.pass_cost):
            yield rows + start

    def read(self, items: SortedPairs, rows: np.ndarray, /) -> Mapping[str, np.ndarray]:
        """What is measured of some pairs. Halves the batch where a GPU's memory does not hold it."""
        try:
            with torch.no_grad():
                return self.measure(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise ModelError(
                    f"a pair of {int(items.lengths[rows[0]])} tokens does not fit into the memory of {self.lm.device}; "
                    "use --max-length, --dtype bfloat16 or a smaller model"
                ) from error
        torch.cuda.empty_cache()
        self.batch_tokens = max(1, self.batch_tokens // 2)
        half = len(rows) // 2
        first, second = self.read(items, rows[:half]), self.read(items, rows[half:])
        return {key: np.concatenate([first[key], second[key]]) for key in first}


def read_pairs(
    worker: PairReader,
    given: SortedPairs,
    what: str,
    *,
    settings: str,
    cache: bool = True,
    team: Team | None = None,
    progress: bool = True,
    ids: Sequence[str] | None = None,
    limit: Callable[[float], str] | None = None,
) -> dict[str, np.ndarray]:
    """What a worker measures of every pair, in the order in which the pairs were given.

    Pairs are read in batches of about one length, in an order that their tokens alone decide, so neither the order of
    the dataset nor the number of processes changes a byte.

    Args:
        worker: The model, and what is measured. It is read in evaluation mode.
        given: The pairs.
        what: Name of the cache's folder.
        settings: Everything that the numbers depend on, beside model and tokens.
        cache: Keep what was measured, and use what was kept.
        team: The processes that share the work; None for this one alone.
        progress: Show a bar where stderr is a terminal.
        ids: Name of each pair, for errors; its row in the dataset otherwise.
        limit: Fraction of the work that takes ten minutes → the advice to give for long work.

    Raises:
        ModelError: A number is not finite; names its pair.
        StoreError: The cache cannot be written.
    """
    lm = worker.lm
    work = cut(lm, given, what, settings=settings, content=[given.digest], cache=cache)

    def name(row: int) -> str:
        place = int(given.order[row])
        if ids is not None:
            return f"pair {ids[place]!r}"
        return f"the pair in row {int(worker.pairs.row[row])} of the dataset"

    training = lm.model.training
    lm.model.eval()
    try:
        share = team.share if team is not None else (0, 1)
        found = read_shards(worker, work, name=name, share=share, progress=progress, limit=limit)
    finally:
        lm.model.train(training)
    if team is not None:
        team.wait()
    whole: dict[str, np.ndarray] = {}
    for shard, (low, high) in enumerate(work.bounds):
        arrays = found.pop(shard) if work.folder is None else load_shard(work, shard)
        for key, part in arrays.items():
            if key not in whole:
                whole[key] = np.empty((len(given.order), *part.shape[1:]), dtype=part.dtype)
            whole[key][given.order[low:high]] = part
    return whole
