"""What is given away without any model's states: held-out accuracy of word counts, of length and of the reference.

Two-answer groups: which answer is chosen, told from the words (or the length) of the prompt. All other groups: which
response is chosen, told from the difference between the words (or lengths) of the two, and, where the reference's
log-probabilities are known, from the difference between those. A model's probe that does not beat these has read no
more than the words, or than what the reference prefers anyway.
"""

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import Ridge as SparseRidge

from prefdyn._checks import at_least
from prefdyn._json import plain
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn._showing import Tabular
from prefdyn._threads import small_work
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.inference import flat
from prefdyn.diagnostics.probe import Ridge, assign_folds, column_scale, halfway, held_out_share, is_right, splits
from prefdyn.diagnostics.units import units
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order, joined

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
    """95 % interval."""
    length_accuracy: float
    """Held-out accuracy from the number of characters and of words."""
    length_interval: tuple[float, float]
    """95 % interval."""
    reference_accuracy: float
    """Held-out accuracy from the reference's log-probabilities, in all and per token; NaN for two-answer groups."""
    reference_interval: tuple[float, float]
    """95 % interval."""
    chance: float
    """0.5; NaN where nothing could be measured."""
    words_right: Float[np.ndarray, " used"] = field(compare=False, repr=False)
    """Whether words are right on each pair used (one half where they say nothing); empty where not measured."""
    length_right: Float[np.ndarray, " used"] = field(compare=False, repr=False)
    """The same of length."""

    def row(self) -> dict[str, Any]:
        """All but what is known of each pair."""
        found = flat(self)
        return {"words_chance": found.pop("chance"), **found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording(Tabular):
    """One `GroupWording` per group, in the order of the dataset."""

    groups: tuple[GroupWording, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group; intervals as `*_low` and `*_high`, unknown numbers as None."""
        return [plain(group.row()) for group in self.groups]


def wording(
    data: PreferenceDataset,
    feats: FeatureSet | None = None,
    *,
    folds: int = 5,
    limit: int = 10_000,
    unit: Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Wording:
    """Held-out accuracy of word counts, of length and of the reference's log-probabilities, per group.

    Words: ridge regression on tf-idf of words and pairs of neighbouring words, lower case, penalty 1. Length: ridge
    regression on the number of characters and of words. Reference: ridge regression on the log-probability of the
    chosen minus that of the rejected response, and on the same per token. Pairs that hang together share a fold, and
    all three use the same folds. Of two answers both count alike, however unequal their numbers: chance is one half.

    Args:
        data: The pairs; conversations are read in their plain-text form.
        feats: Features of the same pairs in the same order, for the reference's log-probabilities and for near-equal
            states, which hang together beside those that the data's clusters hold together.
        folds: How many folds, at least 2.
        limit: Groups with more pairs are measured on a sample of this many.
        unit: The features' units, where `diagnostics.units` has found them already.
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
        refuse_other_pairs(data, feats)
        reference = reference_gaps(feats)
    members: dict[str, list[int]] = {name: [] for name in data.groups}
    for row, name in enumerate(data.table.column("group").to_pylist()):
        members[name].append(row)
    columns = {name: data.table.column(name) for name in ("prompt", "chosen", "rejected")}
    if unit is None and feats is not None:
        unit = units(feats)
    unit = data.clusters.of if unit is None else joined(data.clusters.of, unit)
    found = []
    for name in track(data.groups, "Wording", unit="groups", shown=progress):
        rows = np.array(members[name], dtype=np.int64)
        used = rows
        if len(rows) > limit:
            used = np.sort(stream(seed, "wording sample", name).permutation(rows)[:limit])
        texts = {key: column.take(used).to_pylist() for key, column in columns.items()}
        rng = stream(seed, "wording folds", name)
        with small_work(0):
            known = None if reference is None else reference[used]
            found.append(_group(name, len(rows), texts, in_order(unit[used]), known, folds, rng))
    return Wording(groups=tuple(found))


def refuse_other_pairs(data: PreferenceDataset, feats: FeatureSet) -> None:
    """Refuse a dataset that does not hold the pairs of the features, in their order.

    Raises:
        DataError: An id differs; names the first.
    """
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
    unit: Int[np.ndarray, " n"],
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
    if n < 4 or unit.max() == 0 or (two_answers and min(count, n - count) == 0):
        nothing, empty = (math.nan, math.nan), np.zeros(0)
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
            words_right=empty,
            length_right=empty,
        )
    fold = assign_folds(unit, positive, folds, rng)
    if two_answers:
        words, lengths, reference = word_weights(prompts), text_lengths(prompts), None
    else:
        both = word_weights([*chosen, *rejected])
        words, lengths = both[:n] - both[n:], text_lengths(chosen) - text_lengths(rejected)
    right_words, right_lengths, right_reference = np.zeros(n), np.zeros(n), np.zeros(n)
    for fit, test in splits(fold):
        right_words[test] = _words(words, positive, fit, test, two_answers=two_answers)
        right_lengths[test] = _columns(lengths, positive, fit, test, two_answers=two_answers)
        if reference is not None:
            right_reference[test] = _columns(reference, positive, fit, test, two_answers=False)
    classes = positive if two_answers else None
    words_share, words_interval = held_out_share(right_words, unit, classes)
    length_share, length_interval = held_out_share(right_lengths, unit, classes)
    reference_share, reference_interval = held_out_share(right_reference, unit, None)
    return GroupWording(
        name=name,
        pairs=pairs,
        pairs_used=n,
        words_accuracy=words_share,
        words_interval=words_interval,
        length_accuracy=length_share,
        length_interval=length_interval,
        reference_accuracy=math.nan if reference is None else reference_share,
        reference_interval=(math.nan, math.nan) if reference is None else reference_interval,
        chance=0.5,
        words_right=right_words,
        length_right=right_lengths,
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


def _words(
    words: csr_matrix,
    positive: Bool[np.ndarray, " n"],
    fit: Int[np.ndarray, " a"],
    test: Int[np.ndarray, " b"],
    *,
    two_answers: bool,
) -> Float[np.ndarray, " b"]:
    """Whether words are right on the pairs of a fold. Both classes weigh alike in the fit."""
    signs = np.where(positive, 1.0, -1.0)
    if words.nnz == 0:
        return np.full(len(test), 0.5)
    model = SparseRidge(alpha=1.0, solver="sparse_cg", tol=1e-4, fit_intercept=two_answers)
    weight = None
    if two_answers:
        first = positive[fit]
        if first.all() or not first.any():
            return np.full(len(test), 0.5)
        weight = np.where(first, 0.5 / first.mean(), 0.5 / (1 - first.mean()))
    model.fit(words[fit], signs[fit], sample_weight=weight)
    return is_right(np.asarray(model.predict(words[test]), dtype=np.float64), signs[test])


def _columns(
    columns: Float[np.ndarray, "n 2"],
    positive: Bool[np.ndarray, " n"],
    fit: Int[np.ndarray, " a"],
    test: Int[np.ndarray, " b"],
    *,
    two_answers: bool,
) -> Float[np.ndarray, " b"]:
    """Whether a few numbers are right on the pairs of a fold."""
    rows, asked, signs = columns[fit], columns[test], np.where(positive, 1.0, -1.0)
    if two_answers:
        centre = rows.mean(axis=0)
        rows, asked = rows - centre, asked - centre
    scale = column_scale(rows)
    ridge, targets = Ridge.of(rows / scale, intercept=two_answers), signs[fit][:, None]
    threshold = halfway(ridge.left_out(targets)[:, 0], positive[fit]) if two_answers else 0.0
    return is_right(ridge.scores(asked / scale, targets)[:, 0] - threshold, signs[test])
