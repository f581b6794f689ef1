r"""Numbers of pairs with what length, words and the reference explain taken out: what is left is what they do not say.

A push or a value of a pair that is sorted by is first of all sorted by length: long replies push and are pushed. Here a
kernel ridge regression on lengths, words and log-probabilities, which saw neither the pair nor what hangs together with
it (exact leave-one-unit-out), says what a number would be by these alone, and what it says is taken away.

What is left finds fewer wrong labels than the number itself (docs/statistics.md), for a wrong label shows in its words
too: these columns say *why* a pair stands out, not whether its label is wrong. For that see `diagnostics.labels`.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.labels import FEWEST, Looks, bounded, left_out, parts, scaled_products
from prefdyn.diagnostics.wording import text_lengths, word_weights
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order

_FREE = 100.0
"""What a kernel of a few columns counts, of one of words, so that these few are hardly penalised."""
Explains = Callable[[Int[np.ndarray, " size"]], Float[np.ndarray, "size size"]]
"""Kernel of what explains a number, of some pairs."""


def controlled(
    data: PreferenceDataset | None,
    feats: FeatureSet,
    numbers: Mapping[str, Float[np.ndarray, " n"]],
    *,
    unit: Int[np.ndarray, " n"],
    seed: int = 0,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Numbers that change sign with the label, less what length, words and reference explain of them.

    Args:
        data: Texts of the same pairs in the same order; None: only what features know of length and reference.
        feats: Features of either kind.
        numbers: By name; NaN where not known.
        unit: Equal integers for pairs that hang together.
        seed: Deals many pairs into the parts that are fitted together.

    Returns:
        By the same names; NaN where not known, and everywhere under 40 known pairs or where nothing could explain
        them.

    Example:
        >>> rng, n = np.random.default_rng(0), 200
        >>> sides = {f"{side}_features": rng.normal(size=(n, 4)) for side in ("chosen", "rejected")}
        >>> known = {f"ref_{side}_logps": -9 * rng.random(n) for side in ("chosen", "rejected")}
        >>> feats = FeatureSet.from_arrays(**sides, **known)
        >>> gap = known["ref_chosen_logps"] - known["ref_rejected_logps"]
        >>> push = gap + 0.1 * rng.normal(size=n)
        >>> left = controlled(None, feats, {"push": push}, unit=np.arange(n))["push"]
        >>> bool(np.corrcoef(push, gap)[0, 1] > 0.9), bool(abs(np.corrcoef(left, gap)[0, 1]) < 0.2)
        (True, True)
    """
    looks = Looks.of(data, feats)
    lengths = _token_gaps(feats)
    if not looks.columns and lengths is None:  # nothing is known that could explain them
        return {name: np.full(len(feats), np.nan) for name in numbers}

    def explains(rows: Int[np.ndarray, " size"]) -> Float[np.ndarray, "size size"]:
        kernel = np.zeros((len(rows), len(rows))) if lengths is None else _FREE * scaled_products(lengths[rows])
        for name, each in looks.kernels(rows, states=False):
            kernel += each if name == "words" else _FREE * each
        return kernel

    return _less(numbers, explains, unit, seed)


def controlled_chosen(
    data: PreferenceDataset | None,
    feats: FeatureSet,
    numbers: Mapping[str, Float[np.ndarray, " n"]],
    *,
    unit: Int[np.ndarray, " n"],
    seed: int = 0,
) -> dict[str, Float[np.ndarray, " n"]]:
    """The same of numbers of the chosen response alone, less what its own length, words and log-probability explain.

    Args:
        data: As in `controlled`.
        feats: Features of longer responses.
        numbers: By name; NaN where not known.
        unit: As in `controlled`.
        seed: As in `controlled`.
    """
    columns = [np.ones((len(feats), 1)), bounded(feats.chosen_length[:, None].astype(np.float64))]
    words: csr_matrix | None = None
    if data is not None:
        texts = data.table["chosen"].to_pylist()
        columns.append(bounded(text_lengths(texts)))
        words = word_weights(texts)
    if feats.ref_chosen_logps is not None:
        per_token = feats.ref_chosen_logps / np.maximum(feats.chosen_length, 1)
        columns.append(bounded(np.stack([feats.ref_chosen_logps, per_token], axis=1)))
    few = np.concatenate(columns, axis=1)

    def explains(rows: Int[np.ndarray, " size"]) -> Float[np.ndarray, "size size"]:
        kernel = _FREE * scaled_products(few[rows])
        return kernel if words is None else kernel + scaled_products(words[rows])

    return _less(numbers, explains, unit, seed)


def _token_gaps(feats: FeatureSet) -> Float[np.ndarray, "n 1"] | None:
    """Tokens of chosen minus those of rejected, over their root mean square; None for one-token answers."""
    if feats.kind != "responses":
        return None
    return bounded((feats.chosen_length.astype(np.float64) - feats.rejected_length)[:, None])


def _less(
    numbers: Mapping[str, Float[np.ndarray, " n"]], explains: Explains, unit: Int[np.ndarray, " n"], seed: int
) -> dict[str, Float[np.ndarray, " n"]]:
    """Numbers less what a kernel says of them; those that are known of the same pairs are fitted together."""
    found = {name: np.full(len(values), np.nan) for name, values in numbers.items()}
    known = {name: np.isfinite(values) for name, values in numbers.items()}
    for mask in {mask.tobytes(): mask for mask in known.values()}.values():
        rows, names = np.flatnonzero(mask), [name for name, each in known.items() if (each == mask).all()]
        if len(rows) < FEWEST:
            continue
        inside = in_order(unit[rows])
        for part in parts(inside, seed):
            targets = np.stack([numbers[name][rows[part]] for name in names], axis=1)
            told = left_out(explains(rows[part]), targets, in_order(inside[part]))
            for name, column in zip(names, (targets - told).T, strict=True):
                found[name][rows[part]] = column
    return found
