"""extract: a preference dataset and a model in, the FeatureSet out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from prefdyn._checks import at_least
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.features import FeatureSet
from prefdyn.models.forward import Reader, Sequences
from prefdyn.models.load import LanguageModel, load_model, untrained_twin
from prefdyn.models.shards import load_shard, plan, read_shards, settle_prefix
from prefdyn.models.team import Team
from prefdyn.models.tokens import AnsweredPrompts, tokenize_answers
from prefdyn.provenance import Provenance, versions
from prefdyn.store import is_main_process

__all__ = ["extract", "is_main_process"]


def extract(
    data: PreferenceDataset,
    model: str | LanguageModel = "builtin",
    *,
    answers: Sequence[str] | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attn: str = "sdpa",
    batch_tokens: int | None = None,
    max_length: int | None = None,
    double_norm: bool = False,
    trust_remote_code: bool = False,
    untrained: int | None = None,
    cache: bool = True,
    progress: bool = True,
) -> FeatureSet:
    """What the head of a model sees of each pair whose answers are one token each.

    Main arguments:

    Args:
        data: The pairs.
        model: "builtin", a local folder, a LoRA adapter's folder, a hub id, or a loaded `LanguageModel`.
        answers: Other words for the two answers of a two-answer dataset, positive first, each as "NEW" or "OLD=NEW".
        revision: Branch, tag or commit of a hub model.
        dtype: "float32", "bfloat16", "float16" or "auto" (float32 on a CPU, bfloat16 on a GPU).
        device: "cpu", "cuda", "cuda:N" or "auto".
        attn: "sdpa", "eager" or another attention that transformers knows.
        batch_tokens: Tokens per forward pass; by device unless given. Results do not depend on it beyond rounding.
        max_length: Leave out prompts longer than this many tokens. The model's context is always a limit.
        double_norm: Apply the final RMSNorm twice, as the published scripts did. To reproduce their figures only.
        trust_remote_code: Run Python code that the model's folder ships.
        untrained: Seed of an untrained twin to read instead of the model itself.
        cache: Keep what was read, and use what was kept.
        progress: Show a bar where stderr is a terminal.

    Returns:
        A FeatureSet of kind `answers`, pairs in the order of `data`. Its `provenance.settings` lists `left_out` pairs
        as {"id", "reason"} and `warnings` as sentences.

    Raises:
        TokenError: An answer of a two-answer dataset is not a single token of this model.
        DataError: Responses are longer than a token, or no pair can be used.
        ModelError: The model cannot be read, or a state is not finite.
        StoreError: The cache cannot be written.

    Reference:
        The states are those of THEORY 1.1, after the final norm, once. `double_norm` is the deviation X-19.
    """
    if batch_tokens is not None:
        at_least(batch_tokens, 1, name="batch_tokens")
    if max_length is not None:
        at_least(max_length, 1, name="max_length")
    team = Team(device, cache=cache)
    lm = model
    if not isinstance(lm, LanguageModel):
        place = team.device(device)
        lm = load_model(
            lm, revision=revision, dtype=dtype, device=place, attn=attn, trust_remote_code=trust_remote_code
        )
    if untrained is not None:
        lm = untrained_twin(lm, at_least(untrained, 0, name="untrained"))
    prompts = tokenize_answers(data, lm, answers=answers, max_length=max_length)
    kept = np.flatnonzero(prompts.sequence >= 0)
    sequences = Sequences.sort(prompts.sequences)
    place_of = sequences.rank[prompts.sequence[kept]]

    reader = Reader(lm, double_norm=double_norm, batch_tokens=batch_tokens)
    work = plan(lm, sequences, double_norm=double_norm, cache=cache)
    prefix, reason = settle_prefix(reader, work)

    def name(row: int) -> str:
        return f"pair {data.table['id'][int(kept[np.flatnonzero(place_of == row)[0]])].as_py()!r}"

    def limit(fraction: float) -> str:
        size = max(np.unique(_codes(data.table["group"].to_pylist())[0], return_counts=True)[1].tolist())
        return f"--limit {max(1, math.floor(size * fraction))} would take ten minutes; what is done is kept either way."

    found = read_shards(reader, work, name=name, share=team.share, progress=progress and team.main, limit=limit)
    team.wait()

    order = np.argsort(place_of, kind="stable")
    states = np.empty((len(kept), lm.hidden_size), dtype=np.float32)
    normaliser = np.empty(len(kept))
    ordered = place_of[order]
    for shard, (low, high) in enumerate(work.bounds):
        arrays = found.pop(shard) if work.folder is None else load_shard(work, shard)
        rows = order[np.searchsorted(ordered, low) : np.searchsorted(ordered, high)]
        states[rows] = arrays["states"][place_of[rows] - low]
        normaliser[rows] = arrays["log_normalisers"][place_of[rows] - low]
    settings = {
        "answers": dict(prompts.answers) or None,
        "double_norm": double_norm,
        "max_length": max_length,
        "untrained": untrained,
        "prompts": len(sequences),
        "prompt_tokens": int(sequences.offsets[-1]),
        "shared_prefix": prefix,
        "shared_prefix_reason": reason,
    }
    return _assemble(data, lm, prompts, kept, states, normaliser, settings)


def _assemble(
    data: PreferenceDataset,
    lm: LanguageModel,
    prompts: AnsweredPrompts,
    kept: np.ndarray,
    states: np.ndarray,
    normaliser: np.ndarray,
    settings: dict[str, Any],
) -> FeatureSet:
    table = data.table
    head, bias = lm.head_rows(list(prompts.token_ids))
    code = {token: place for place, token in enumerate(prompts.token_ids)}
    chosen, rejected = (
        np.asarray([code[token] for token in side[kept].tolist()], dtype=np.int32)
        for side in (prompts.chosen, prompts.rejected)
    )
    ids = np.asarray(table["id"].to_pylist(), dtype=np.str_)
    codes, groups = _codes(
        [name for name, at in zip(table["group"].to_pylist(), prompts.sequence, strict=True) if at >= 0]
    )
    lost = [name for name in dict.fromkeys(table["group"].to_pylist()) if name not in groups]
    warnings = list(prompts.warnings)
    if prompts.left_out:
        warnings.append(
            f"{len(prompts.left_out)} of {len(table)} pairs are left out; the first: {prompts.left_out[0][1]}."
        )
    if lost:
        warnings.append(
            f"No pair is left of {len(lost)} groups: {', '.join(lost[:5])}{', …' if len(lost) > 5 else ''}."
        )
    one = np.ones(len(kept), dtype=np.int32)
    return FeatureSet(
        kind="answers",
        states=states,
        group=codes,
        groups=groups,
        held_out=np.asarray([side == "held_out" for side in table["split"].to_pylist()])[kept],
        id=ids[kept],
        weight=np.asarray(table["weight"].to_numpy(), dtype=np.float64)[kept],
        text=prompts.sequence[kept].astype(np.int64),
        ref_chosen_logps=_log_probs(states, head, bias, normaliser, chosen),
        ref_rejected_logps=_log_probs(states, head, bias, normaliser, rejected),
        chosen_length=one,
        rejected_length=one.copy(),
        chosen=chosen,
        rejected=rejected,
        tokens=prompts.tokens,
        token_ids=prompts.token_ids,
        head=head,
        head_bias=bias,
        provenance=Provenance(
            data={"name": data.name, "pairs": len(data), "sha256": data.sha256},
            model=lm.describe(),
            settings={
                **settings,
                "left_out": [{"id": str(ids[row]), "reason": reason} for row, reason in prompts.left_out],
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
