"""A seeded split that never puts equal prompts, or others that hang together, on both sides."""

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from prefdyn._random import stream
from prefdyn.data.codes import encode
from prefdyn.errors import ConfigError, DataError


def held_out_mask(group: np.ndarray, text: Int[np.ndarray, " n"], fraction: float, seed: int) -> Bool[np.ndarray, " n"]:
    """Which pairs to keep from training: per group the share 1 - fraction, equal texts on one side everywhere.

    Every group holds out `round((1 - fraction) * pairs)` pairs, but at least one and at most all but one where it has
    two or more distinct texts, and none where it has one. Whole texts are held out, in an order drawn per group: a
    group whose texts occur in no other group is split in the same way whatever else is loaded. A text with several
    pairs is held out only where it fits into what every one of its groups still has to hold out, so a group with
    repeated texts may hold out fewer pairs than its share. A group that would hold out none takes its rarest text that
    leaves every group something to train on; where there is no such text, all of its pairs stay in training.

    Args:
        group: (n,) name of the group of each pair.
        text: Equal integers for pairs that must stay on one side: of the same prompt, or of one cluster.
        fraction: Share to train on, above 0 and at most 1.
        seed: Decides which texts are held out.

    Returns:
        True where the pair is held out.

    Raises:
        ConfigError: The fraction is out of range.
        DataError: Nothing can be held out, since every prompt is all that some group has.

    Example:
        >>> held_out_mask(np.array(["a"] * 10), np.arange(10), 0.8, 0).sum()
        np.int64(2)
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"split is {fraction!r}, but must be above 0 and at most 1, such as 0.9")
    n = len(text)
    if fraction == 1 or n == 0:
        return np.zeros(n, dtype=bool)
    group_code, names = encode(pa.chunked_array([pa.array(group.tolist(), pa.string())]))
    _, text_code = np.unique(text, return_inverse=True)
    texts = int(text_code.max()) + 1

    # One entry per group and distinct text in it, ordered by group, then by first appearance.
    entry, first_row, size = np.unique(group_code * texts + text_code, return_index=True, return_counts=True)
    order = np.lexsort((first_row, entry // texts))
    home, member, size = entry[order] // texts, entry[order] % texts, size[order]
    distinct = np.bincount(home, minlength=len(names))
    key = np.concatenate(
        [stream(seed, "split", name).random(count) for name, count in zip(names, distinct, strict=True)]
    )

    pairs = np.bincount(group_code, minlength=len(names))
    quota = np.clip(np.floor((1 - fraction) * pairs + 0.5 + 1e-9).astype(np.int64), 1, pairs - 1)
    quota[distinct < 2] = 0
    held = _fill(home, member, size, key, quota, pairs)
    if not held.any():
        raise DataError(
            f"a split of {fraction:g} cannot hold any of the {n} pairs out: equal and nearly equal prompts stay "
            f"on one side, and to hold out any of the {texts} distinct ones would leave a group nothing to train on; "
            "give more prompts, or split=1"
        )
    return held[text_code]


def _fill(
    home: Int[np.ndarray, " entries"],
    member: Int[np.ndarray, " entries"],
    size: Int[np.ndarray, " entries"],
    key: np.ndarray,
    quota: Int[np.ndarray, " groups"],
    pairs: Int[np.ndarray, " groups"],
) -> Bool[np.ndarray, " texts"]:
    """Hold texts out in the order of their keys while every group that has them has room."""
    by_text = np.lexsort((home, member))
    starts = np.flatnonzero(np.diff(member[by_text], prepend=-1))
    ends = np.append(starts[1:], len(member)).tolist()
    lead = key[by_text[starts]]  # a text that several groups share goes by the key of the first of them
    groups_of, sizes_of = home[by_text].tolist(), size[by_text].tolist()
    starts = starts.tolist()
    room, held = quota.tolist(), np.zeros(len(starts), dtype=bool)
    open_groups = int((quota > 0).sum())
    for t in np.argsort(lead, kind="stable").tolist():
        if open_groups == 0:
            break
        span = range(starts[t], ends[t])
        if all(sizes_of[i] <= room[groups_of[i]] for i in span):
            held[t] = True
            for i in span:
                room[groups_of[i]] -= sizes_of[i]
                open_groups -= room[groups_of[i]] == 0
    taken = quota - np.asarray(room)
    for g in np.flatnonzero((quota > 0) & (taken == 0)).tolist():
        if taken[g] > 0:
            continue  # a group repaired before it took a text of this one with it
        mine = np.flatnonzero(home == g)
        for entry in mine[np.lexsort((key[mine], size[mine]))].tolist():
            t = int(member[entry])
            span = range(starts[t], ends[t])
            if all(taken[groups_of[i]] + sizes_of[i] < pairs[groups_of[i]] for i in span):
                held[t] = True
                for i in span:
                    taken[groups_of[i]] += sizes_of[i]
                break
    return held
