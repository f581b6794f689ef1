"""Pairs laid out in rows of tokens, so that nothing is read twice and little is padding.

A row begins with the tokens that all prompts of the batch begin with, and holds the rest of several pairs one after the
other. Which of the tokens before it a token sees, and which position it has, is as if its own text stood alone.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

ATTENTION = 4.0
"""Widths of the model at which a row is so long that attention costs about as much as all the rest."""
_TRIED = 8
"""Numbers of rows for which the rows are laid out, of those that would cost least if every row could be filled."""
PROMPT, CHOSEN, REJECTED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLayout:
    """Where the tokens of a batch stand."""

    ids: Int[np.ndarray, "rows length"]
    places: Int[np.ndarray, "rows length"]
    """Position of each token in its own text."""
    owner: Int[np.ndarray, "rows length"]
    """Number of the pair that a token belongs to; -1: the common prefix, which all see; -2: padding."""
    part: Int[np.ndarray, "rows length"]
    """PROMPT, CHOSEN or REJECTED."""
    index: Int[np.ndarray, " states"]
    """Flat place of the state that predicts each response token: all chosen ones, then all rejected ones, in the order
    of the pairs. One-token answers: of one state per pair."""
    prefix: int
    """Tokens that each row begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A pair's tokens: those that predict something, so each response is without its last token."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


def lay_out(
    texts: Sequence[Text], *, width: int, room: int | None, share_prefix: bool, answers: bool, rows: int | None = None
) -> BatchLayout:
    """Put pairs into rows at about the least cost.

    Args:
        texts: The pairs.
        width: The model's, which decides how long a row is worth its attention.
        room: Most tokens in a row; None for any number. A pair that is longer alone makes a longer row.
        share_prefix: Whether what all prompts begin with is written once per row, or with every pair.
        answers: Whether one state per pair is wanted, or one per token of a response.
        rows: Their number, if it is not to be chosen.
    """
    skip = common_prefix([text.prompt for text in texts]) if share_prefix and len(texts) > 1 else 0
    sizes = np.asarray([len(text) - skip for text in texts])
    if rows is None:
        bins = cheapest(sizes, skip=skip, width=width, room=room)
    else:
        bins = distribute(sizes, rows, None if room is None else room - skip)
    length = skip + max(int(sizes[held].sum()) for held in bins)
    ids = np.zeros((len(bins), length), dtype=np.int64)
    places = np.zeros_like(ids)
    owner = np.full_like(ids, -2)
    part = np.zeros_like(ids)
    ids[:, :skip] = texts[0].prompt[:skip]
    places[:, :skip] = np.arange(skip)
    owner[:, :skip] = -1
    by_chosen: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(texts)
    by_rejected = list(by_chosen)
    for row, held in enumerate(bins):
        at = skip
        for pair in held:
            text = texts[pair]
            own = len(text.prompt) - skip
            turn, second = at + own, at + own + len(text.chosen)
            end = second + len(text.rejected)
            ids[row, at:end] = (*text.prompt[skip:], *text.chosen, *text.rejected)
            places[row, at:second] = np.arange(skip, skip + second - at)
            places[row, second:end] = np.arange(skip + own, skip + own + end - second)
            owner[row, at:end] = pair
            part[row, turn:second] = CHOSEN
            part[row, second:end] = REJECTED
            start = row * length
            by_chosen[pair] = start + np.arange(turn - 1, second)
            by_rejected[pair] = start + np.concatenate([[turn - 1], np.arange(second, end)])
            at = end
    index = by_chosen if answers else [*by_chosen, *by_rejected]
    return BatchLayout(ids=ids, places=places, owner=owner, part=part, index=np.concatenate(index), prefix=skip)


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, at most all but the last token of the shortest.

    Example:
        >>> common_prefix([(7, 7, 1), (7, 7, 2, 3), (7, 7)])
        1
    """
    low, high = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    return next((at for at in range(limit) if low[at] != high[at]), limit)


def row_length(longest: int, skip: int, width: int) -> int:
    """The most tokens that are of use in a row: what a shared prefix asks for, or room beside the longest pair."""
    return max(int(skip + np.sqrt(skip * (skip + ATTENTION * width))), longest + min(longest, 256))


def cheapest(sizes: Int[np.ndarray, " pairs"], *, skip: int, width: int, room: int | None = None) -> list[list[int]]:
    """Numbers of the pairs in each row, at about the least cost.

    Every row repeats the prefix, and a token in a row of length R costs 1 + R / (ATTENTION · width).

    Args:
        sizes: Tokens of each pair after the prefix.
        skip: Tokens of the prefix.
        width: Of the model.
        room: Most tokens in a row, with the prefix.
    """
    longest, total = int(sizes.max()), int(sizes.sum())
    hoped = []
    for rows in range(1, len(sizes) + 1):
        length = skip + max(longest, -(-total // rows))
        if room is None or length <= max(room, skip + longest):
            hoped.append((_cost(rows, length, width), rows))
    tried = [
        distribute(sizes, rows, None if room is None else room - skip) for _, rows in heapq.nsmallest(_TRIED, hoped)
    ]
    return min(tried, key=lambda held: _cost(len(held), skip + max(int(sizes[row].sum()) for row in held), width))


def _cost(rows: int, length: int, width: int) -> float:
    """Of rows of equally many tokens, in tokens without attention."""
    return rows * length * (1 + length / (ATTENTION * width))


def distribute(sizes: Int[np.ndarray, " pairs"], rows: int, room: int | None) -> list[list[int]]:
    """Numbers of the pairs in each row: longest first, each to the row that holds least, one row more if none has room.

    Example:
        >>> distribute(np.asarray([5, 1, 4, 2]), 2, None)
        [[0, 1], [2, 3]]
    """
    order = np.argsort(-sizes, kind="stable").tolist()
    most = None if room is None else max(room, int(sizes.max()))
    held: list[list[int]] = [[] for _ in range(rows)]
    loads = [(0, row) for row in range(rows)]
    for pair in order:
        load, row = loads[0]
        if most is not None and held[row] and load + sizes[pair] > most:
            held.append([pair])
            heapq.heappush(loads, (int(sizes[pair]), len(held) - 1))
        else:
            held[row].append(pair)
            heapq.heapreplace(loads, (load + int(sizes[pair]), row))
    return [row for row in held if row]
