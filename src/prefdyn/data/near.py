"""Near duplicates among texts, found exactly: those that share most of their pairs of neighbouring words.

No pair of texts is missed and none is guessed: two sets with a Jaccard index of at least t share one of their rarest
few members (the prefix filter of Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007), so that only texts which
do are compared at all. Everything is sorting and counting of integers; time grows little faster than the texts.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from prefdyn.maths.units import in_order, linked

THRESHOLD = 0.7
"""Share of word pairs, of all that either text has, from which two texts are near duplicates."""
COMMON = 20
"""Texts up to which a word pair may be shared, or the share `RARE` of all, before it is a phrase of the dataset."""
RARE = 0.01
LEAST = 3
"""Word pairs that two texts must share at least: fewer are chance, where most of a text are phrases of the dataset."""
FEW = 8
"""Of few texts, half may share a word pair, but at least so many."""
_WORD = re.compile(r"[^\W\d_]+|\d+|-(?=[\s\d]|$)|[^\w\s\-.,;:!?\"'“”‘’`´()\[\]…·¿¡。，、！？；：]")
_WIDE = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])")
"""Letters of languages that put no blanks between words: each is a word."""
_TOGETHER = 1 << 20
"""Comparisons, or words, that are in memory together."""


def words(text: str) -> list[str]:
    """The words of a text without case and punctuation; signs that mean something, such as + and -, are words.

    Example:
        >>> words("Is 2 + 2 = 4? It's so.")
        ['is', '2', '+', '2', '=', '4', 'it', 's', 'so']
    """
    text = text.casefold()
    return _WORD.findall(text if text.isascii() else _WIDE.sub(r" \1 ", text))


def near_duplicates(texts: Sequence[str], *, threshold: float = THRESHOLD) -> Int[np.ndarray, " n"]:
    """Which texts are near duplicates: equal integers mark texts of one cluster.

    Two texts are near duplicates where they are equal but for case and punctuation, or where they share three pairs of
    neighbouring words at least, and the Jaccard index of their sets of such pairs is at least the threshold; a cluster
    is what is joined by such steps. Word pairs that many of the texts have (more than 20 and 1 % of them; of fewer than
    40 texts more than half, but 8 at least) are phrases of the dataset, such as a template or a system text, and are
    not counted.

    Args:
        texts: Distinct texts. Texts without words are alone.
        threshold: In (0, 1].

    Returns:
        From 0, in order of first appearance.

    Example:
        >>> near_duplicates(["Is tea good?", "Is coffee good?", "is tea good"]).tolist()
        [0, 1, 0]
    """
    n = len(texts)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    form, flat, ends = _forms(texts)
    pairs = _WordPairs.of(flat, ends)
    steps = [_spanning(*found) for found in pairs.found(threshold)]
    first, second = np.concatenate([np.zeros((2, 0), dtype=np.int64), *steps], axis=1)
    count = len(ends) - 1
    return in_order(linked(first, second, count)[form])


def _spanning(first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"]) -> Int[np.ndarray, "2 k"]:
    """Steps that join the same texts and are no more than there are texts, where large clusters have many pairs."""
    nodes, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    label = linked(ends[: len(first)], ends[len(first) :], len(nodes))
    _, lead = np.unique(label, return_index=True)
    return np.stack([nodes, nodes[lead[label]]]).astype(np.int64)


def _forms(texts: Sequence[str]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " words"], Int[np.ndarray, " ends"]]:
    """Which form each text has; the words of the distinct forms, as numbers, and where each form ends."""
    number: dict[str, int] = {}
    seen: dict[object, int] = {}
    form = np.empty(len(texts), dtype=np.int64)
    parts: list[np.ndarray] = []
    sizes = [0]
    for place, text in enumerate(texts):
        code = np.array([number.setdefault(word, len(number)) for word in words(text)], dtype=np.int32)
        key: object = code.tobytes() or (place,)
        known = seen.get(key)
        if known is None:
            known = seen[key] = len(seen)
            parts.append(code)
            sizes.append(len(code))
        form[place] = known
    return form, np.concatenate(parts), np.cumsum(sizes)


class _WordPairs:
    """The sets of word pairs of n texts as one sparse matrix, without those that many texts share."""

    def __init__(self, owner: Int[np.ndarray, " k"], member: Int[np.ndarray, " k"], n: int) -> None:
        self.member = member
        self.ends = np.searchsorted(owner, np.arange(n + 1))
        self.size = np.diff(self.ends)
        self.owner, self.n = owner, n

    @classmethod
    def of(cls, flat: Int[np.ndarray, " words"], ends: Int[np.ndarray, " ends"]) -> "_WordPairs":
        """From the words of all texts."""
        n = len(ends) - 1
        owner = np.repeat(np.arange(n, dtype=np.int32), np.diff(ends))
        code = flat.astype(np.int64) << 32 | np.r_[flat[1:], 0].astype(np.int64)
        within = np.r_[owner[1:] == owner[:-1], False] if len(owner) else np.zeros(0, dtype=bool)
        alone = np.diff(ends) == 1  # a text of one word is that word
        lonely = ends[:-1][alone]
        code[lonely] = flat[lonely].astype(np.int64) << 32 | (1 << 31)
        within[lonely] = True
        owner, code = owner[within], code[within]
        order = np.argsort(code, kind="stable")  # stable, so that owners ascend inside of each code
        code, owner = code[order], owner[order]
        fresh = (
            np.r_[True, (code[1:] != code[:-1]) | (owner[1:] != owner[:-1])] if len(code) else np.zeros(0, dtype=bool)
        )
        code, owner = code[fresh], owner[fresh]
        kind = np.cumsum(np.r_[0, code[1:] != code[:-1]]) if len(code) else code
        homes = np.bincount(kind)
        limit = max(min(COMMON, max(FEW, n // 2)), int(RARE * n))
        rarity = np.empty(len(homes), dtype=np.int64)
        rarity[np.argsort(homes, kind="stable")] = np.arange(len(homes))  # the rarest first
        kept = homes[kind] <= limit
        owner, member = owner[kept], rarity[kind[kept]]
        order = np.lexsort((member, owner))
        return cls(owner[order], member[order].astype(np.int32 if len(homes) < 2**31 else np.int64), n)

    def found(self, threshold: float) -> Iterator[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]:
        """Pairs of texts whose Jaccard index reaches the threshold, piece by piece; some of them more than once."""
        rank = np.arange(len(self.owner)) - self.ends[self.owner]
        size = self.size[self.owner]
        prefix = (rank <= size - np.ceil(threshold * size - 1e-9)) & (size >= LEAST)
        owner, member = self.owner[prefix], self.member[prefix]
        if not len(member):
            return
        order = np.lexsort((size[prefix], member))  # inside of a word pair the shortest text first
        owner, member = owner[order], member[order]
        starts = np.flatnonzero(np.r_[True, member[1:] != member[:-1]])
        last = np.repeat(np.r_[starts[1:], len(member)], np.diff(np.r_[starts, len(member)]))
        # Texts longer than size / threshold cannot reach it: each is compared with those behind it up to that.
        ceiling = np.floor(self.size[owner] / threshold + 1e-9)
        width = int(self.size.max(initial=0)) + 2
        place = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(member)])) * width
        reach = np.minimum(
            last, np.searchsorted(place + self.size[owner], place + np.minimum(ceiling, width - 1), "right")
        )
        count = np.maximum(reach - np.arange(len(owner)) - 1, 0)
        done = 0
        total = np.cumsum(count)
        bits = self._bits()
        while done < len(owner):
            base = total[done - 1] if done else 0
            until = max(done + 1, int(np.searchsorted(total, base + _TOGETHER, "right")))
            some = count[done:until]
            left = np.repeat(np.arange(done, until), some)
            right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(some) - some, some)
            yield self._verified(owner[left], owner[right], threshold, bits)
            done = until

    def _bits(self) -> np.ndarray:
        """(n, 4) of 64 bits: which of 256 classes of word pairs each text has, to tell most strangers at once."""
        found = np.zeros((self.n, 4), dtype=np.uint64)
        mixed = (self.member.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)
        np.bitwise_or.at(
            found, (self.owner, (mixed >> np.uint64(6)).astype(np.int64)), np.uint64(1) << (mixed & np.uint64(63))
        )
        return found

    def _verified(
        self, first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"], threshold: float, bits: np.ndarray
    ) -> tuple[Int[np.ndarray, " found"], Int[np.ndarray, " found"]]:
        both = self.size[first] + self.size[second]
        differ = np.bitwise_count(bits[first] ^ bits[second]).sum(axis=1)
        likely = differ <= (1 - threshold) / (1 + threshold) * both + 1e-9
        first, second, both = first[likely], second[likely], both[likely]
        if not len(first):
            return first, second
        code = np.sort(first.astype(np.int64) * self.n + second)
        code = code[np.r_[True, code[1:] != code[:-1]]]
        first, second = code // self.n, code % self.n
        keep = np.concatenate([self._enough(first[at], second[at], threshold) for at in self._pieces(first, second)])
        return first[keep], second[keep]

    def _pieces(self, first: np.ndarray, second: np.ndarray) -> Iterator[slice]:
        total = np.cumsum(self.size[first] + self.size[second])
        done = 0
        while done < len(first):
            until = max(
                done + 1, int(np.searchsorted(total, (total[done - 1] if done else 0) + 8 * _TOGETHER, "right"))
            )
            yield slice(done, until)
            done = until

    def _enough(self, first: np.ndarray, second: np.ndarray, threshold: float) -> Bool[np.ndarray, " m"]:
        """Whether the Jaccard index itself reaches the threshold."""
        pair, member = [], []
        for side in (first, second):
            size = self.size[side]
            at = np.repeat(self.ends[side] - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
            pair.append(np.repeat(np.arange(len(side)), size))
            member.append(self.member[at])
        row, held = np.concatenate(pair), np.concatenate(member).astype(np.int64)
        code = np.sort(row * (int(held.max(initial=0)) + 1) + held)
        same = code[1:][code[1:] == code[:-1]] // (int(held.max(initial=0)) + 1)
        shared = np.bincount(same, minlength=len(first))
        near = shared >= threshold * (self.size[first] + self.size[second] - shared) - 1e-9
        return near & (shared >= LEAST)
