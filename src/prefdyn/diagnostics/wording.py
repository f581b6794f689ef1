"""What the text alone gives away, without any model: held-out accuracy of word counts and of length.

Two-answer groups: which answer is chosen, told from the words (or the length) of the prompt. All other groups: which
response is chosen, told from the difference between the words (or lengths) of the two. A model's probe that does not
beat these has read no more than the words.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import Ridge

from prefdyn._checks import at_least
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.inference import json_number, wilson_interval
from prefdyn.diagnostics.probe import assign_folds, column_scale, hits, ridge_scores, splits
from prefdyn.diagnostics.threads import small_work

_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
TOKEN = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"
"""A word is a run of letters and digits; in scripts without spaces each character is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupWording:
    """What the text of one group gives away. NaN: could not be measured."""

    name: str
    pairs: int
    pairs_used: int
    """Pairs that the accuracies rest on: all, or a sample of `limit`."""
    words_accuracy: float
    """Held-out accuracy from words and pairs of neighbouring words."""
    words_interval: tuple[float, float]
    """Wilson 95 % interval."""
    length_accuracy: float
    """Held-out accuracy from the number of characters and of words."""
    length_interval: tuple[float, float]
    """Wilson 95 % interval."""
    chance: float
    """Share of the larger class; 0.5 outside two-answer groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One `GroupWording` per group, in the order of the dataset."""

    groups: tuple[GroupWording, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group; intervals as `*_low` and `*_high`, unknown numbers as None."""
        return [
            {
                "name": group.name,
                "pairs": group.pairs,
                "pairs_used": group.pairs_used,
                "words_accuracy": json_number(group.words_accuracy),
                "words_low": json_number(group.words_interval[0]),
                "words_high": json_number(group.words_interval[1]),
                "length_accuracy": json_number(group.length_accuracy),
                "length_low": json_number(group.length_interval[0]),
                "length_high": json_number(group.length_interval[1]),
                "words_chance": json_number(group.chance),
            }
            for group in self.groups
        ]


def wording(
    data: PreferenceDataset, *, folds: int = 5, limit: int = 10_000, seed: int = 0, progress: bool = False
) -> Wording:
    """Held-out accuracy of word counts and of length, per group.

    Words: ridge regression on tf-idf of words and pairs of neighbouring words, lower case, penalty 1. Length: ridge
    regression on the number of characters and of words. Pairs with the same prompt share a fold.

    Args:
        data: The pairs; conversations are read in their plain-text form.
        folds: How many folds, at least 2.
        limit: Groups with more pairs are measured on a sample of this many.
        seed: Decides folds and samples.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        One row per group. NaN for groups with one class, fewer than 4 pairs or one prompt.

    Raises:
        ConfigError: A count is too small.
    """
    at_least(folds, 2, name="folds")
    at_least(limit, 4, name="limit")
    names = np.asarray(data.table.column("group").to_pylist(), dtype=object)
    columns = {name: data.table.column(name) for name in ("prompt", "chosen", "rejected")}
    found = []
    for name in track(data.groups, "Wording", unit="groups", shown=progress):
        rows = np.flatnonzero(names == name)
        used = rows
        if len(rows) > limit:
            used = np.sort(stream(seed, "wording sample", name).permutation(rows)[:limit])
        texts = {key: column.take(used).to_pylist() for key, column in columns.items()}
        rng = stream(seed, "wording folds", name)
        with small_work(0):
            found.append(_group(name, len(rows), texts, folds, rng))
    return Wording(groups=tuple(found))


def _group(name: str, pairs: int, texts: dict[str, list[str]], folds: int, rng: np.random.Generator) -> GroupWording:
    prompts, chosen, rejected = texts["prompt"], texts["chosen"], texts["rejected"]
    n = len(prompts)
    answers = sorted(set(chosen) | set(rejected))
    two_answers = len(answers) == 2 and all(won != lost for won, lost in zip(chosen, rejected, strict=True))
    positive = np.array([won == answers[0] for won in chosen]) if two_answers else np.ones(n, dtype=bool)
    count = int(positive.sum())
    text = np.unique(np.asarray(prompts, dtype=object), return_inverse=True)[1]
    chance = max(count, n - count) / n if two_answers else 0.5
    if n < 4 or text.max() == 0 or (two_answers and min(count, n - count) == 0):
        nothing = (math.nan, math.nan)
        return GroupWording(
            name=name,
            pairs=pairs,
            pairs_used=n,
            words_accuracy=math.nan,
            words_interval=nothing,
            length_accuracy=math.nan,
            length_interval=nothing,
            chance=math.nan,
        )
    fold = assign_folds(text, positive, folds, rng)
    signs = np.where(positive, 1.0, -1.0)
    if two_answers:
        words, lengths = word_weights(prompts), text_lengths(prompts)
    else:
        both = word_weights([*chosen, *rejected])
        words, lengths = both[:n] - both[n:], text_lengths(chosen) - text_lengths(rejected)
    right_words = right_lengths = 0.0
    for fit, test in splits(fold):
        right_words += hits(_word_scores(words, signs, fit, test, intercept=two_answers), signs[test])
        right_lengths += hits(_length_scores(lengths, signs, fit, test, intercept=two_answers), signs[test])
    return GroupWording(
        name=name,
        pairs=pairs,
        pairs_used=n,
        words_accuracy=right_words / n,
        words_interval=wilson_interval(right_words, n),
        length_accuracy=right_lengths / n,
        length_interval=wilson_interval(right_lengths, n),
        chance=chance,
    )


def word_weights(texts: list[str]) -> csr_matrix:
    """tf-idf of words and pairs of neighbouring words, rows of length 1; what occurs in one text only is left out.

    Example:
        >>> word_weights(["so so", "so it is", "it is"]).shape  # it, is, so, it is
        (3, 4)
    """
    vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=TOKEN)
    try:
        counts = csr_matrix(vectorizer.fit_transform(texts))
    except ValueError:  # no text holds a word
        return csr_matrix((len(texts), 0))
    shared = np.flatnonzero(np.bincount(counts.indices) > 1)
    if len(shared) == 0:
        return csr_matrix((len(texts), 0))
    return csr_matrix(TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, shared]))


def text_lengths(texts: list[str]) -> Float[np.ndarray, "n 2"]:
    """Characters and words of each text.

    Example:
        >>> text_lengths(["so it is", ""]).tolist()
        [[8.0, 3.0], [0.0, 0.0]]
    """
    return np.array([[len(text), len(text.split())] for text in texts], dtype=np.float64)


def _word_scores(
    words: csr_matrix,
    signs: Float[np.ndarray, " n"],
    fit: Int[np.ndarray, " a"],
    test: Int[np.ndarray, " b"],
    *,
    intercept: bool,
) -> Float[np.ndarray, " b"]:
    if words.nnz == 0:
        return np.full(len(test), signs[fit].mean() if intercept else 0.0)
    model = Ridge(alpha=1.0, solver="sparse_cg", tol=1e-4, fit_intercept=intercept)
    return np.asarray(model.fit(words[fit], signs[fit]).predict(words[test]), dtype=np.float64)


def _length_scores(
    lengths: Float[np.ndarray, "n 2"],
    signs: Float[np.ndarray, " n"],
    fit: Int[np.ndarray, " a"],
    test: Int[np.ndarray, " b"],
    *,
    intercept: bool,
) -> Float[np.ndarray, " b"]:
    rows, asked = lengths[fit], lengths[test]
    if intercept:
        centre = rows.mean(axis=0)
        rows, asked = rows - centre, asked - centre
    scale = column_scale(rows)
    return ridge_scores(rows / scale, signs[fit], asked / scale, intercept=intercept)
