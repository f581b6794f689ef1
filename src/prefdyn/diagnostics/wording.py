"""What is given away without any model's states: held-out accuracy of word counts, of length and of the reference.

Two-answer groups: which answer is chosen, told from the words (or the length) of the prompt. All other groups: which
response is chosen, told from the difference between the words (or lengths) of the two, and, where the reference's
log-probabilities are known, from the difference between those. A model's probe that does not beat these has read no
more than the words, or than what the reference prefers anyway.
"""

import math
from dataclasses import dataclass
from itertools import zip_longest
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
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet

_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
TOKEN = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"
"""A word is a run of letters and digits; in scripts without spaces each character is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupWording:
    """What one group gives away. NaN: could not be measured."""

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
    reference_accuracy: float
    """Held-out accuracy from the reference's log-probabilities, in all and per token; NaN for two-answer groups."""
    reference_interval: tuple[float, float]
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
                "reference_accuracy": json_number(group.reference_accuracy),
                "reference_low": json_number(group.reference_interval[0]),
                "reference_high": json_number(group.reference_interval[1]),
                "words_chance": json_number(group.chance),
            }
            for group in self.groups
        ]


def wording(
    data: PreferenceDataset,
    feats: FeatureSet | None = None,
    *,
    folds: int = 5,
    limit: int = 10_000,
    seed: int = 0,
    progress: bool = False,
) -> Wording:
    """Held-out accuracy of word counts, of length and of the reference's log-probabilities, per group.

    Words: ridge regression on tf-idf of words and pairs of neighbouring words, lower case, penalty 1. Length: ridge
    regression on the number of characters and of words. Reference: ridge regression on the log-probability of the
    chosen minus that of the rejected response, and on the same per token. Pairs with the same prompt share a fold, and
    all three use the same folds.

    Args:
        data: The pairs; conversations are read in their plain-text form.
        feats: Features of the same pairs in the same order, for the reference's log-probabilities.
        folds: How many folds, at least 2.
        limit: Groups with more pairs are measured on a sample of this many.
        seed: Decides folds and samples.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        One row per group. NaN for groups with one class, fewer than 4 pairs or one prompt. The reference's accuracy is
        also NaN for two-answer groups, without features and without reference log-probabilities.

    Raises:
        ConfigError: A count is too small.
        DataError: The features are of other pairs, or of the same in another order.
    """
    at_least(folds, 2, name="folds")
    at_least(limit, 4, name="limit")
    reference = None
    if feats is not None:
        _refuse_other_pairs(data, feats)
        reference = reference_gaps(feats)
    members: dict[str, list[int]] = {name: [] for name in data.groups}
    for row, name in enumerate(data.table.column("group").to_pylist()):
        members[name].append(row)
    columns = {name: data.table.column(name) for name in ("prompt", "chosen", "rejected")}
    found = []
    for name in track(data.groups, "Wording", unit="groups", shown=progress):
        rows = np.array(members[name], dtype=np.int64)
        used = rows
        if len(rows) > limit:
            used = np.sort(stream(seed, "wording sample", name).permutation(rows)[:limit])
        texts = {key: column.take(used).to_pylist() for key, column in columns.items()}
        rng = stream(seed, "wording folds", name)
        with small_work(0):
            found.append(_group(name, len(rows), texts, None if reference is None else reference[used], folds, rng))
    return Wording(groups=tuple(found))


def _refuse_other_pairs(data: PreferenceDataset, feats: FeatureSet) -> None:
    ids = zip_longest(data.table.column("id").to_pylist(), feats.id.tolist())
    for row, (expected, found) in enumerate(ids):
        if expected != found:
            raise DataError(
                f"row {row}: the id is {expected!r} in the data but {found!r} in the features (None: no such row); "
                "give features of the same pairs in the same order; data.select(ids=feats.id) leaves out of the data "
                "what the features lack"
            )


def _group(
    name: str,
    pairs: int,
    texts: dict[str, list[str]],
    reference: Float[np.ndarray, "n 2"] | None,
    folds: int,
    rng: np.random.Generator,
) -> GroupWording:
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
            reference_accuracy=math.nan,
            reference_interval=nothing,
            chance=math.nan,
        )
    fold = assign_folds(text, positive, folds, rng)
    signs = np.where(positive, 1.0, -1.0)
    if two_answers:
        words, lengths, reference = word_weights(prompts), text_lengths(prompts), None
    else:
        both = word_weights([*chosen, *rejected])
        words, lengths = both[:n] - both[n:], text_lengths(chosen) - text_lengths(rejected)
    right_words = right_lengths = 0.0
    right_reference = math.nan if reference is None else 0.0
    for fit, test in splits(fold):
        right_words += hits(_word_scores(words, signs, fit, test, intercept=two_answers), signs[test])
        right_lengths += hits(_column_scores(lengths, signs, fit, test, intercept=two_answers), signs[test])
        if reference is not None:
            right_reference += hits(_column_scores(reference, signs, fit, test, intercept=False), signs[test])
    return GroupWording(
        name=name,
        pairs=pairs,
        pairs_used=n,
        words_accuracy=right_words / n,
        words_interval=wilson_interval(right_words, n),
        length_accuracy=right_lengths / n,
        length_interval=wilson_interval(right_lengths, n),
        reference_accuracy=right_reference / n,
        reference_interval=wilson_interval(right_reference, n),
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


def reference_gaps(feats: FeatureSet) -> Float[np.ndarray, "n 2"] | None:
    """Reference log-probability of chosen minus rejected in nats, and the same per token; None where not known.

    Example:
        >>> feats = FeatureSet.from_arrays(chosen_features=[[1.0]], rejected_features=[[0.0]], ref_chosen_logps=[-6],
        ...                                ref_rejected_logps=[-8], chosen_length=[3], rejected_length=[2])
        >>> reference_gaps(feats).tolist()
        [[2.0, 2.0]]
    """
    if feats.ref_chosen_logps is None or feats.ref_rejected_logps is None:
        return None
    chosen, rejected = feats.ref_chosen_logps, feats.ref_rejected_logps
    per_token = chosen / np.maximum(feats.chosen_length, 1) - rejected / np.maximum(feats.rejected_length, 1)
    return np.stack([chosen - rejected, per_token], axis=1)


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


def _column_scores(
    columns: Float[np.ndarray, "n 2"],
    signs: Float[np.ndarray, " n"],
    fit: Int[np.ndarray, " a"],
    test: Int[np.ndarray, " b"],
    *,
    intercept: bool,
) -> Float[np.ndarray, " b"]:
    rows, asked = columns[fit], columns[test]
    if intercept:
        centre = rows.mean(axis=0)
        rows, asked = rows - centre, asked - centre
    scale = column_scale(rows)
    return ridge_scores(rows / scale, signs[fit], asked / scale, intercept=intercept)
