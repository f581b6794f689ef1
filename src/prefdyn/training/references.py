"""Reference log-probabilities from a file, believed only for the tokens that they were made from."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prefdyn._random import stream
from prefdyn.errors import ConfigError, DataError
from prefdyn.models.score import MODEL_DIGEST, TOKENS_DIGEST
from prefdyn.models.token_pairs import token_marks

LOOKED = 8
"""Pairs that are scored anew where a file does not say which tokens it scored."""
SIDES = ("chosen", "rejected")
Rescored = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Rows → log-probabilities of chosen and rejected under the model that the reference is to be of."""


def other_reference(
    folder: str | Path,
    ids: np.ndarray,
    lengths: tuple[np.ndarray, np.ndarray],
    *,
    digests: Mapping[str, str],
    whole: str | None = None,
    model: str | None,
    rescored: Rescored | None = None,
    flip: bool,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reference log-probabilities that `prefdyn score` wrote, by pair id, and what to tell of them.

    Args:
        folder: What `score` wrote.
        ids: Pairs (m,) that are wanted.
        lengths: Tokens of their chosen and rejected responses.
        digests: Id → `pair_digest` of the tokens here, of some pairs at least, chosen and rejected as in the file.
        whole: Digest of all their tokens, as `token_marks` makes it, where it is known; for pairs without one each.
        model: Fingerprint of the model that is trained.
        rescored: Scores pairs (by place) with that model, for files that carry no digests; None where it cannot.
        flip: Whether the run has chosen and rejected swapped.

    Raises:
        ConfigError: The folder holds no scores.
        DataError: A pair is missing or was scored with other tokens, or whether it was cannot be told.
    """
    path = Path(folder) / "scores.parquet"
    if not path.is_file():
        raise ConfigError(
            f"reference {str(folder)!r} is no folder that `prefdyn score` wrote: it holds no scores.parquet"
        )
    sides = ("rejected", "chosen") if flip else SIDES
    table = pq.read_table(path)
    place = {name: at for at, name in enumerate(table["id"].to_pylist())}
    missing = [str(name) for name in ids.tolist() if name not in place]
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of {len(ids)} pairs, the first is {missing[0]!r}; score the same data"
        )
    order = np.asarray([place[name] for name in ids.tolist()])
    for side, ours in zip(sides, lengths, strict=True):
        theirs = table[f"{side}_tokens"].to_numpy()[order]
        if (theirs != ours).any():
            row = int(np.flatnonzero(theirs != ours)[0])
            why = "these are scores of other texts, or of another tokenizer; score this data"
            if abs(int(theirs[row]) - int(ours[row])) == 1:
                why = "the end token is counted in one of them only; add --eos, or score again with --no-eos"
            raise DataError(
                f"{path} scored pair {str(ids[row])!r} with {theirs[row]} {side} tokens, and here it has {ours[row]}: "
                + why
            )
    columns = [np.asarray(table[f"ref_{side}_logps"].to_numpy()[order]) for side in sides]
    source = _model_of(path, table)
    notes = []
    if TOKENS_DIGEST in table.column_names and digests:
        held = table[TOKENS_DIGEST].take(pa.array(order)).to_pylist()
        _refuse_other_tokens(path, held, ids, digests)
        known = sum(name in digests for name in ids.tolist())
        if known < len(ids) and whole is None:
            notes.append(
                f"Whether {path} scored the tokens of these features was looked at for {known} of {len(ids)} pairs."
            )
        elif known < len(ids) and token_marks(ids.tolist(), held)["sha256"] != whole:
            raise DataError(
                f"{path} scored some pairs with other tokens than these features were made from, beyond the {known} of "
                f"{len(ids)} that they know one by one; extract the features and score the data anew"
            )
    elif rescored is not None and source == model and model is not None:
        _refuse_other_numbers(path, ids, columns, rescored)
    else:
        raise DataError(
            f"{path} does not say which tokens it scored, and its model is not the one that is trained, which could "
            "score some pairs anew to see; score the data again"
        )
    if source is not None and model is not None and source != model:
        notes.append(
            f"The reference in {path} is of another model than the one that is trained (sha256 {source[:12]})."
        )
    return dict(zip(("ref_chosen", "ref_rejected"), columns, strict=True)), notes


def differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """The first pair that both know and that has other tokens in each, in the order of the second."""
    return next((name for name, digest in ours.items() if theirs.get(name, digest) != digest), None)


def looked_at(count: int) -> np.ndarray:
    """Places of the pairs that are scored anew, drawn always alike."""
    return np.sort(stream(0, "reference").permutation(count)[:LOOKED])


def far_off(theirs: np.ndarray, ours: np.ndarray, *, loose: float) -> np.ndarray:
    """Which log-probabilities differ by more than rounding explains: `loose` of their size, and of one nat at least."""
    return ~(np.abs(theirs - ours) <= loose * np.maximum(1.0, np.abs(ours)))


def _model_of(path: Path, table: pa.Table) -> str | None:
    """Fingerprint of the model that made a table; None where nothing says."""
    if MODEL_DIGEST in table.column_names and len(table):
        return table[MODEL_DIGEST][0].as_py()
    try:
        summary: Any = json.loads((path.parent / "summary.json").read_bytes())
        found = summary["model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _refuse_other_tokens(path: Path, held: list[str], ids: np.ndarray, digests: Mapping[str, str]) -> None:
    theirs = dict(zip(ids.tolist(), held, strict=True))
    ours = {name: digests[name] for name in ids.tolist() if name in digests}
    name = differing(theirs, ours)
    if name is not None:
        count = sum(theirs[each] != digest for each, digest in ours.items())
        raise DataError(
            f"{path} scored pair {str(name)!r} with other tokens than it has here, and {count - 1} others of "
            f"{len(ours)} (prompt, response, template or tokenizer differ); score this data with this model's tokenizer"
        )


def _refuse_other_numbers(path: Path, ids: np.ndarray, columns: list[np.ndarray], rescored: Rescored) -> None:
    places = looked_at(len(ids))
    for theirs, ours in zip(columns, rescored(places), strict=True):
        off = far_off(theirs[places], ours, loose=1e-3)
        if off.any():
            at = int(np.flatnonzero(off)[0])
            raise DataError(
                f"{path} has {theirs[places][at]:.4f} for pair {str(ids[places[at]])!r}, and the same model gives "
                f"{ours[at]:.4f} for what it holds here: these are scores of other tokens; score the data again"
            )
