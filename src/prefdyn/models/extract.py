"""extract: a preference dataset and a model in, the FeatureSet out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from prefdyn._checks import at_least
from prefdyn._progress import step
from prefdyn.data.codes import encode
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, TokenError
from prefdyn.features import FeatureSet
from prefdyn.models.forward import Reader, Sequences
from prefdyn.models.load import LanguageModel, load_model, untrained_twin
from prefdyn.models.responses import read_responses
from prefdyn.models.shards import load_shard, plan, read_shards, settle_prefix
from prefdyn.models.team import Team, together
from prefdyn.models.token_pairs import TokenPairs, pair_digests, token_marks, tokenize_pairs
from prefdyn.provenance import Provenance, versions
from prefdyn.settings import SKETCH, Extraction, opened


@opened(reading=Extraction)
@together()
def extract(
    data: PreferenceDataset,
    model: str | LanguageModel = "builtin",
    *,
    reading: Extraction,
    untrained: int | None = None,
    progress: bool = True,
) -> FeatureSet:
    """What the head of a model sees of each pair.

    Main arguments:

    Args:
        data: The pairs.
        model: "builtin", a local folder, a LoRA adapter's folder, a hub id, or a loaded `LanguageModel`.
        reading: How the model reads them (see `prefdyn.settings.Extraction`); its fields are keywords here, too, as
            `eos=False` is.
        untrained: Seed of an untrained twin to read instead of the model itself.
        progress: Show a bar where stderr is a terminal.

    Returns:
        A FeatureSet, pairs in the order of `data`: of kind `answers` where every answer is one token, else of kind
        `responses`. Its `provenance.settings` lists `left_out` pairs as {"id", "reason"}, `warnings` as sentences, and
        of longer responses the `sketch_error` that was measured.

    Raises:
        TokenError: An answer of a two-answer dataset is not a single token of this model.
        DataError: No pair can be used.
        ConfigError: `double_norm` was asked for longer responses, or too many pairs without a sketch.
        ModelError: The model cannot be read, or a number that it gives is not finite.
        StoreError: The cache cannot be written.

    Reference:
        The states are those of THEORY 1.1, after the final norm, once. `double_norm` is the deviation X-19. Features of
        longer responses: THEORY 3.10 in the form of `prefdyn.models.sketch`.
    """
    team = Team(reading.device, cache=reading.cache)
    if isinstance(model, LanguageModel):
        lm = model
    else:
        with step(f"Loading {model}", shown=progress and team.main):
            lm = load_model(model, **reading.loading(team.device(reading.device)))
    lm.require_linear_head("features")
    if untrained is not None:
        lm = untrained_twin(lm, at_least(untrained, 0, name="untrained"))
    try:
        with step(f"Tokenizing {len(data):,} pairs", shown=progress and team.main):
            pairs = tokenize_pairs(data, lm, **reading.tokens(), strict=True)
    except TokenError as error:
        also = "" if reading.answers is not None else "; or read them as texts with --eos"
        raise TokenError(f"{error.typed}{also}") from None

    def limit(fraction: float) -> str:
        size = int(np.bincount(encode(data.table["group"])[0]).max())
        return f"--limit {max(1, math.floor(size * fraction))} would take ten minutes; what is done is kept either way."

    work: dict[str, Any] = {"cache": reading.cache, "team": team, "progress": progress and team.main, "limit": limit}
    work |= {"batch_tokens": reading.batch_tokens}
    settings: dict[str, Any] = {"max_length": reading.max_length, "untrained": untrained}
    if pairs.kind == "answers":
        if reading.sketch != SKETCH:
            raise ConfigError(
                f"sketch is {reading.sketch}, but changes nothing here: one-token answers are kept whole; leave it out"
            )
        arrays, found = _answers(data, lm, pairs, double_norm=reading.double_norm, check=reading.check, **work)
    elif reading.double_norm:
        raise ConfigError(
            "double_norm reproduces figures of one-token answers; these responses are longer: leave it off"
        )
    else:
        ids = data.table["id"].to_pylist()
        kept = [str(ids[row]) for row in pairs.row]
        arrays, found = read_responses(lm, pairs, sketch=reading.sketch, ids=kept, check=reading.check, **work)
        settings |= {"eos": reading.eos is not False}
    return _assemble(data, lm, pairs, arrays, {**settings, **found})


def _answers(
    data: PreferenceDataset,
    lm: LanguageModel,
    pairs: TokenPairs,
    *,
    double_norm: bool,
    check: str,
    batch_tokens: int | None,
    cache: bool,
    team: Team,
    progress: bool,
    limit: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """States and labels of one-token answers, by the FeatureSet's names, and what is to be told of the reading."""
    prompts = pairs.answered
    assert prompts is not None
    sequences = Sequences.sort(pairs.prompts)
    place_of = sequences.rank[pairs.prompt]

    reader = Reader(lm, double_norm=double_norm, batch_tokens=batch_tokens)
    work = plan(lm, sequences, double_norm=double_norm, check=check, cache=cache)
    prefix, reason = settle_prefix(reader, work, check=check)

    def name(row: int) -> str:
        return f"pair {data.table['id'][int(pairs.row[np.flatnonzero(place_of == row)[0]])].as_py()!r}"

    found = read_shards(reader, work, name=name, share=team.share, progress=progress, limit=limit)
    team.wait()

    order = np.argsort(place_of, kind="stable")
    states = np.empty((len(pairs), lm.hidden_size), dtype=np.float32)
    normaliser = np.empty(len(pairs))
    ordered = place_of[order]
    for shard, (low, high) in enumerate(work.bounds):
        arrays = found.pop(shard) if work.folder is None else load_shard(work, shard)
        rows = order[np.searchsorted(ordered, low) : np.searchsorted(ordered, high)]
        states[rows] = arrays["states"][place_of[rows] - low]
        normaliser[rows] = arrays["log_normalisers"][place_of[rows] - low]

    head, bias = lm.head_rows(list(prompts.token_ids))
    code = {token: place for place, token in enumerate(prompts.token_ids)}
    chosen, rejected = (
        np.asarray([code[token] for (token,) in side], dtype=np.int32) for side in (pairs.chosen, pairs.rejected)
    )
    return {
        "states": states,
        "ref_chosen_logps": _log_probs(states, head, bias, normaliser, chosen),
        "ref_rejected_logps": _log_probs(states, head, bias, normaliser, rejected),
        "chosen": chosen,
        "rejected": rejected,
        "tokens": prompts.tokens,
        "token_ids": prompts.token_ids,
        "head": head,
        "head_bias": bias,
    }, {
        "answers": dict(prompts.answers) or None,
        "double_norm": double_norm,
        "prompts": len(sequences),
        "prompt_tokens": int(sequences.offsets[-1]),
        "shared_prefix": prefix,
        "shared_prefix_reason": reason,
    }


def _assemble(
    data: PreferenceDataset,
    lm: LanguageModel,
    pairs: TokenPairs,
    arrays: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> FeatureSet:
    table, kept = data.table, pairs.row
    ids = np.asarray(table["id"].to_pylist(), dtype=np.str_)
    names = table["group"].to_pylist()
    codes, groups = _codes([names[row] for row in kept.tolist()])
    lost = [name for name in dict.fromkeys(names) if name not in groups]
    warnings = list(pairs.warnings)
    if pairs.left_out:
        warnings.append(f"{len(pairs.left_out)} of {len(table)} pairs are left out; the first: {pairs.left_out[0][1]}.")
    if lost:
        warnings.append(
            f"No pair is left of {len(lost)} groups: {', '.join(lost[:5])}{', …' if len(lost) > 5 else ''}."
        )
    return FeatureSet(
        kind=pairs.kind,
        group=codes,
        groups=groups,
        held_out=np.asarray([side == "held_out" for side in table["split"].to_pylist()])[kept],
        id=ids[kept],
        weight=np.asarray(table["weight"].to_numpy(), dtype=np.float64)[kept],
        text=pairs.prompt.astype(np.int64),
        cluster=data.clusters.of[kept],
        chosen_length=np.asarray([len(ids) for ids in pairs.chosen], dtype=np.int32),
        rejected_length=np.asarray([len(ids) for ids in pairs.rejected], dtype=np.int32),
        **arrays,
        provenance=Provenance(
            data={
                "name": data.name,
                "pairs": len(data),
                "sha256": data.sha256,
                "tokens": token_marks(ids[kept].tolist(), pair_digests(pairs)),
            },
            model=lm.describe(),
            settings={
                **settings,
                "left_out": [{"id": str(ids[row]), "reason": reason} for row, reason in pairs.left_out],
                "warnings": warnings,
            },
            versions=versions(),
        ),
    )


def _log_probs(
    states: np.ndarray, head: np.ndarray, bias: np.ndarray | None, normaliser: np.ndarray, token: np.ndarray
) -> np.ndarray:
    """Log-probability of one token per row, float64, at most 0."""
    logits = np.empty(len(states))
    for start in range(0, len(states), 8192):
        part = slice(start, start + 8192)
        logits[part] = np.einsum("nd,nd->n", states[part].astype(np.float64), head[token[part]].astype(np.float64))
    if bias is not None:
        logits += bias[token]
    return np.minimum(logits - normaliser, 0.0)


def _codes(names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Index of each name among the names in order of first appearance."""
    place: dict[str, int] = {}
    codes = np.asarray([place.setdefault(name, len(place)) for name in names], dtype=np.int32)
    return codes, tuple(place)
