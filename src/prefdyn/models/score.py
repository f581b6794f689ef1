"""score: log-probabilities of chosen and rejected under a model, cached, and a table of them that TRL reads."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from prefdyn._checks import one_of
from prefdyn._showing import Tabular
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.write import conversation_columns
from prefdyn.errors import DataError
from prefdyn.models.answers import with_answers
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.pair_shards import PairReader, SortedPairs, read_pairs
from prefdyn.models.team import Team, together
from prefdyn.models.texts import SIDES
from prefdyn.models.token_pairs import TokenPairs, pair_digests, token_marks, tokenize_pairs
from prefdyn.provenance import Provenance, versions
from prefdyn.settings import Reading, opened

AUTOCASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENS_DIGEST, MODEL_DIGEST = "tokens_sha256", "model_sha256"
"""Columns of scores: `pair_digest` of what was scored, and the fingerprint of the model."""
TRL_LENGTH = 1024
"""Tokens at which TRL's DPOConfig cuts sequences unless it is told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Log-probabilities of m pairs under one model, nats, summed over the tokens of each response."""

    chosen: Float[np.ndarray, " m"]
    """float64, at most 0."""
    rejected: Float[np.ndarray, " m"]


def score_pairs(
    lm: LanguageModel,
    pairs: TokenPairs,
    *,
    autocast: str | None = None,
    share: bool = True,
    batch_tokens: int | None = None,
    cache: bool = True,
    team: Team | None = None,
    progress: bool = True,
    ids: Sequence[str] | None = None,
    limit: Callable[[float], str] | None = None,
) -> ScoredPairs:
    """Log-probabilities of both responses of every pair, without gradient.

    Args:
        lm: The model, with the weights that it was loaded with: they are what its fingerprint stands for.
        pairs: What to score.
        autocast: "bfloat16" or "float16" for the mixed precision of training; None for the model's own dtype.
        share: Read tokens that are shared once, as `PairScorer` does.
        batch_tokens: Tokens per forward pass; by device unless given. Results do not depend on it beyond rounding.
        cache: Keep what was scored, and use what was kept.
        team: The processes that share the work; None for this one alone.
        progress: Show a bar where stderr is a terminal.
        ids: Name of each pair, for errors; its row in the dataset otherwise.
        limit: Fraction of the work that takes ten minutes → the advice to give for long work.

    Raises:
        ModelError: A log-probability is not finite; names its pair.
        ConfigError: `autocast` is unknown.
        StoreError: The cache cannot be written.
    """
    if autocast is not None:
        one_of(autocast, AUTOCASTS, name="autocast")
    given = SortedPairs.of(pairs)
    worker = _Scorer(lm, given, autocast=autocast, share=share, batch_tokens=batch_tokens)
    settings = f"{pairs.kind} autocast={autocast} share={share}"
    found = read_pairs(
        worker, given, "scores", settings=settings, cache=cache, team=team, progress=progress, ids=ids, limit=limit
    )
    return ScoredPairs(chosen=found["chosen"], rejected=found["rejected"])


class _Scorer(PairReader):
    doing = "scoring pairs"
    measured = "log-probability of"

    def __init__(self, lm: LanguageModel, pairs: SortedPairs, *, autocast: str | None, **further: Any) -> None:
        super().__init__(lm, pairs, **further)
        self.autocast = autocast

    def measure(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Log-probabilities of some pairs."""
        with self._precision():
            scores = self.scorer(rows)
        return {"chosen": scores.chosen.double().cpu().numpy(), "rejected": scores.rejected.double().cpu().numpy()}

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.kind, dtype=AUTOCASTS[self.autocast])


# the table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Tabular):
    """Log-probabilities of a dataset's pairs under a model, beside the pairs as TRL reads them."""

    table: pa.Table
    """One row per pair: `prompt`, `chosen`, `rejected` (texts, or lists of messages), `tools` and
    `chat_template_kwargs` of conversations that have them, `id`, `group`, `split`, `chosen_tokens`, `rejected_tokens`,
    `ref_chosen_logps`, `ref_rejected_logps` (float64, nats), `tokens_sha256`, `model_sha256`."""
    left_out: tuple[Mapping[str, str], ...]
    """`id` and `reason` of each pair that could not be scored."""
    warnings: tuple[str, ...]
    provenance: Provenance = field(default_factory=Provenance)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def groups(self) -> tuple[str, ...]:
        """Group names in order of first appearance."""
        return tuple(dict.fromkeys(self.table["group"].to_pylist()))

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: its pairs, mean log-probabilities of both responses, and both per token.

        `policy_accuracy` is the share of pairs whose chosen response is the more likely one.
        """
        group = np.asarray(self.table["group"].to_pylist(), dtype=np.str_)
        log_probs = {side: self.table[f"ref_{side}_logps"].to_numpy() for side in SIDES}
        lengths = {side: self.table[f"{side}_tokens"].to_numpy() for side in SIDES}
        found = []
        for name in self.groups:
            inside = group == name
            row: dict[str, Any] = {"name": name, "pairs": int(inside.sum())}
            for side in SIDES:
                row[f"{side}_tokens"] = float(lengths[side][inside].mean())
                row[f"{side}_logps"] = float(log_probs[side][inside].mean())
            for side in SIDES:
                row[f"{side}_logps_per_token"] = float((log_probs[side] / lengths[side])[inside].mean())
            row["policy_accuracy"] = float((log_probs["chosen"] > log_probs["rejected"])[inside].mean())
            found.append(row)
        return found


@opened(reading=Reading)
@together()
def score(
    data: PreferenceDataset,
    model: str | LanguageModel = "builtin",
    *,
    reading: Reading,
    autocast: str | None = None,
    progress: bool = True,
) -> Scores:
    """Log-probabilities of chosen and rejected under a model, in the columns that TRL reads as precomputed references.

    Main arguments:

    Args:
        data: The pairs.
        model: "builtin", a local folder, a LoRA adapter's folder, a hub id, or a loaded `LanguageModel`.
        reading: How the model reads them (see `prefdyn.settings.Reading`); its fields are keywords here, too.
            `eos` False ends plain responses without the end token, and one-token answers are then scored as one.
        autocast: "bfloat16" or "float16": mixed precision, as a trainer that is told `bf16=True` uses it.
        progress: Show a bar where stderr is a terminal.

    Returns:
        The scored pairs in the order of `data`, and those left out.

    Raises:
        DataError: Some pairs are conversations and others plain text, or no pair can be used.
        TokenError: `answers` cannot be used.
        ModelError: The model cannot be read, or a log-probability is not finite.
        StoreError: The cache cannot be written.
    """
    if 0 < data.conversational < len(data):
        raise DataError(
            f"{data.conversational} of the {len(data)} pairs of {data.name!r} are conversations and the others plain "
            "text, but TRL reads one form per dataset; score them apart"
        )
    team = Team(reading.device, cache=reading.cache)
    lm = (
        model if isinstance(model, LanguageModel) else load_model(model, **reading.loading(team.device(reading.device)))
    )
    read = data if reading.answers is None else with_answers(data, reading.answers)
    eos = reading.eos is not False
    pairs = tokenize_pairs(read, lm, eos=eos, max_length=reading.max_length)
    ids = [str(name) for name in data.table["id"].to_pylist()]

    def limit(fraction: float) -> str:
        size = max(count["counts"] for count in data.table["group"].value_counts().to_pylist())
        return f"--limit {max(1, math.floor(size * fraction))} would take ten minutes; what is done is kept either way."

    found = score_pairs(
        lm, pairs, autocast=autocast, batch_tokens=reading.batch_tokens, cache=reading.cache, team=team,
        progress=progress and team.main, ids=[ids[row] for row in pairs.row.tolist()], limit=limit,
    )  # fmt: skip
    digests = pair_digests(pairs)
    return Scores(
        table=_table(read, pairs, found, digests, lm.fingerprint),
        left_out=tuple({"id": ids[row], "reason": reason} for row, reason in pairs.left_out),
        warnings=tuple(_warnings(pairs, len(data), eos=eos)),
        provenance=Provenance(
            data={
                "name": data.name,
                "pairs": len(data),
                "sha256": data.sha256,
                "tokens": token_marks([ids[row] for row in pairs.row.tolist()], digests),
            },
            model=lm.describe(),
            settings={
                "kind": pairs.kind,
                "eos": eos,
                "answers": None if reading.answers is None else list(reading.answers),
                "max_length": reading.max_length,
                "autocast": autocast,
            },
            versions=versions(),
        ),
    )


def _table(
    data: PreferenceDataset, pairs: TokenPairs, found: ScoredPairs, digests: Sequence[str], model: str
) -> pa.Table:
    table = data.table.take(pa.array(pairs.row))
    columns: dict[str, Any] = {name: table[name] for name in ("prompt", *SIDES)}
    if data.conversational:
        columns = conversation_columns(replace(data, table=table))
    return pa.table(
        {
            **columns,
            **{name: table[name] for name in ("id", "group", "split")},
            "chosen_tokens": pa.array([len(text) for text in pairs.chosen], pa.int32()),
            "rejected_tokens": pa.array([len(text) for text in pairs.rejected], pa.int32()),
            "ref_chosen_logps": pa.array(found.chosen, pa.float64()),
            "ref_rejected_logps": pa.array(found.rejected, pa.float64()),
            TOKENS_DIGEST: pa.array(digests, pa.string()),
            MODEL_DIGEST: pa.array([model] * len(pairs), pa.string()),
        }
    )


def _warnings(pairs: TokenPairs, total: int, *, eos: bool) -> Iterator[str]:
    yield from pairs.warnings
    if pairs.left_out:
        yield f"{len(pairs.left_out)} of {total} pairs are left out; the first: {pairs.left_out[0][1]}."
    sizes = [
        len(pairs.prompts[prompt]) + max(len(one), len(two))
        for prompt, one, two in zip(pairs.prompt.tolist(), pairs.chosen, pairs.rejected, strict=True)
    ]
    if long := sum(size > TRL_LENGTH for size in sizes):
        yield (
            f"{long} pairs are longer than {TRL_LENGTH} tokens, where TRL cuts unless told otherwise: train with "
            "DPOConfig(max_length=None), or these references are not those of what it trains on."
        )
    if not eos:
        yield "Without end tokens these are not the references of a TRL run on plain text, which appends them."
