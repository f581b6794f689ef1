"""What a run trains: a head over states read once, adapters, or a whole model; and its pairs with their reference."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefdyn._files import shown_bytes
from prefdyn.data.codes import encode
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.descent import stable_learning_rate
from prefdyn.errors import ConfigError, DataError, ModelError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.maths.optimizers import SGD
from prefdyn.models.extract import extract
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.score import score_pairs
from prefdyn.models.team import Team
from prefdyn.models.token_pairs import TokenPairs, pair_digests, token_marks, tokenize_pairs
from prefdyn.provenance import Provenance, versions
from prefdyn.settings import Extraction, Reading
from prefdyn.training.adaptable import told_of_adapters, unadaptable
from prefdyn.training.heads import AnswerHead, head_settings, response_head
from prefdyn.training.memory import MemoryEstimate, check_fits, of_model
from prefdyn.training.probes import Drift, PairTable
from prefdyn.training.references import other_reference
from prefdyn.training.settings import ALL_LINEAR, TrainingSettings, resolve
from prefdyn.training.tune import Parameters, add_adapters, checkpoint_activations, unfreeze


@dataclass(slots=True, kw_only=True)
class Subject:
    """What is trained, by one way to tune."""

    scorer: torch.nn.Module
    parameters: Parameters
    pairs: PairTable
    lengths: np.ndarray
    kind: str
    drift: Callable[[Mapping[str, torch.nn.Parameter]], Drift] | None
    """Makes what measures weights."""
    lm: LanguageModel | None = None
    wrapped: Any = None
    """peft's model, for adapters."""
    feats: FeatureSet | None = None
    left_out: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The model that a run trains, how it and others are read, and by whom."""

    model: str | LanguageModel
    reading: Reading
    device: str
    """The settled one."""
    share: bool
    team: Team
    progress: bool
    tell: Callable[[str], None] = lambda line: None
    """Told, in a line, what is about to happen."""

    @classmethod
    def of(
        cls,
        model: str | LanguageModel,
        reading: Reading,
        *,
        share: bool,
        progress: bool,
        tell: Callable[[str], None] | None,
    ) -> "Models":
        """As these processes read them, on the device that they settle on."""
        team = Team(reading.device, cache=reading.cache)
        return cls(
            model=model, reading=reading, device=team.device(reading.device), share=share, team=team, progress=progress,
            tell=tell or (lambda line: None),
        )  # fmt: skip

    def load(self, *, dtype: str) -> LanguageModel:
        """The model to train."""
        if isinstance(self.model, LanguageModel):
            return self.model
        return self.other(self.model, dtype=dtype)

    def other(self, name: str, *, dtype: str) -> LanguageModel:
        """Another model, read alike."""
        return load_model(name, **{**self.reading.loading(self.device), "dtype": dtype})

    def scored(self, lm: LanguageModel, pairs: TokenPairs, precision: str) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities of both responses, as training computes them."""
        found = score_pairs(
            lm, pairs, autocast="bfloat16" if precision == "bfloat16" else None, share=self.share,
            batch_tokens=self.reading.batch_tokens, cache=self.reading.cache, team=self.team, progress=self.progress,
        )  # fmt: skip
        return found.chosen, found.rejected


# last layer ----------------------------------------------------------------------------------------------------------


def last_layer(
    data: PreferenceDataset | FeatureSet,
    models: Models,
    objective: Objective,
    reference: str | Path | None,
    chosen: dict[str, Any],
) -> tuple[Subject, TrainingSettings]:
    """The head, of features or of a model read once; `chosen`: fields of `TrainingSettings`."""
    if isinstance(data, FeatureSet):
        marks = data.provenance.data.get("tokens", {}).get("pairs", {})
        return _head_of_features(data, None, models, objective, reference, chosen, marks)
    lm = models.load(dtype=models.reading.dtype)
    lm.require_linear_head("a head's training")
    tokens = tokenize_pairs(data, lm, **models.reading.tokens())
    if tokens.kind == "responses":
        return _head_of_responses(data, tokens, lm, models, objective, reference, chosen)
    feats = extract(
        data, lm, reading=Extraction(**vars(models.reading)), progress=models.progress,
    )  # fmt: skip
    marks = dict(zip(_ids(data, tokens).tolist(), pair_digests(tokens), strict=True))
    return _head_of_features(feats, lm, models, objective, reference, chosen, marks)


def _head_of_features(
    feats: FeatureSet,
    lm: LanguageModel | None,
    models: Models,
    objective: Objective,
    reference: str | Path | None,
    chosen: dict[str, Any],
    marks: Mapping[str, str],
) -> tuple[Subject, TrainingSettings]:
    if chosen["flip"]:
        feats = feats.flipped()
    trained = int((~feats.held_out).sum())
    _refuse_nothing(trained, len(feats))
    rule = "given"
    rate = chosen.pop("learning_rate", None)
    if rate in (None, "auto"):
        optimizer, size = chosen.get("optimizer") or SGD(), chosen.get("batch_size") or "full"
        if optimizer != SGD() or size != "full":
            raise ConfigError(
                "the learning rate 'auto' is half of the largest stable step of full-batch gradient descent; give a "
                "number here, such as --learning-rate 0.01"
            )
        rate, rule = stable_learning_rate(feats, objective), "half of the largest stable step"
    precision = chosen.pop("precision", None) or str(feats.working_dtype)
    settings = resolve(
        trained, tune="last-layer", objective=objective, learning_rate=rate, learning_rate_rule=rule,
        precision=precision, **chosen,
    )  # fmt: skip
    head_settings(feats, settings.optimizer)
    scorer = AnswerHead(
        feats, precision=precision, device="cpu" if models.reading.device == "auto" else models.reading.device,
        normaliser_gradient=objective.reads == "log_probs",
    )  # fmt: skip
    decays = settings.optimizer.weight_decay > 0
    if decays and objective.reads == "log_probs":
        raise ConfigError("weight decay moves every row of the head, which SFT's normaliser would need; set it to 0")
    notes: list[str] = []
    if reference is None:
        references = dict(zip(("ref_chosen", "ref_rejected"), scorer.start_log_probs(), strict=True))
    else:
        first, second = feats.ref_chosen_logps, feats.ref_rejected_logps
        references, notes = other_reference(
            reference, feats.id, (feats.chosen_length, feats.rejected_length), digests=marks, whole=_whole(feats),
            model=feats.provenance.model.get("sha256"),
            rescored=None if first is None or second is None else lambda rows: (first[rows], second[rows]),
            flip=chosen["flip"],
        )  # fmt: skip
    pairs = _pairs_of_features(feats, known=scorer.has_log_probs and not decays, **references)
    return Subject(
        scorer=scorer,
        parameters={"head": scorer.head},
        pairs=pairs,
        lengths=np.ones(len(pairs), dtype=np.int64),
        kind="answers",
        drift=Drift if "drift" in settings.probes else None,
        lm=lm,
        feats=feats,
        left_out=feats.provenance.settings.get("left_out", []),
        warnings=[*feats.provenance.settings.get("warnings", []), *notes],
        provenance=feats.provenance,
    ), settings


def _whole(feats: FeatureSet) -> str | None:
    """Digest of the tokens of all these pairs, where they are all that was extracted."""
    extracted = feats.provenance.data.get("pairs", 0) - len(feats.provenance.settings.get("left_out", []))
    return feats.provenance.data.get("tokens", {}).get("sha256") if extracted == len(feats) else None


def _head_of_responses(
    data: PreferenceDataset,
    tokens: TokenPairs,
    lm: LanguageModel,
    models: Models,
    objective: Objective,
    reference: str | Path | None,
    chosen: dict[str, Any],
) -> tuple[Subject, TrainingSettings]:
    if models.team.share[1] > 1:
        raise ConfigError("the last layer of longer responses is trained by one process; start it without a launcher")
    if chosen["flip"]:
        tokens = replace(tokens, chosen=tokens.rejected, rejected=tokens.chosen)
    rate = chosen.pop("learning_rate", None)
    if rate in (None, "auto"):
        raise ConfigError(
            "no stable step is known for the head over longer responses; give a learning rate, such as "
            "--learning-rate 0.01"
        )
    trained = _trained(data, tokens)
    precision = chosen.pop("precision", None) or "float32"
    settings = resolve(
        trained, tune="last-layer", objective=objective, learning_rate=rate, precision=precision, **chosen
    )
    scorer = response_head(lm, tokens, precision=precision, progress=models.progress)
    notes: list[str] = []
    if reference is None:
        references = dict(zip(("ref_chosen", "ref_rejected"), scorer.start_log_probs(), strict=True))
    else:
        references, notes = _scores(reference, data, tokens, lm, models, precision, flip=chosen["flip"])
    return Subject(
        scorer=scorer,
        parameters={"head": scorer.head},
        pairs=_pairs_of_tokens(data, tokens, **references),
        lengths=np.asarray([len(a) + len(b) for a, b in zip(tokens.chosen, tokens.rejected, strict=True)]),
        kind="responses",
        drift=Drift if "drift" in settings.probes else None,
        lm=lm,
        **_told(data, tokens, lm, settings, *notes),
    ), settings


def _pairs_of_features(feats: FeatureSet, **further: Any) -> PairTable:
    return PairTable(
        id=feats.id,
        group=feats.group,
        groups=feats.groups,
        held_out=feats.held_out,
        weight=feats.weight,
        chosen_length=feats.chosen_length,
        rejected_length=feats.rejected_length,
        chosen=feats.chosen,
        rejected=feats.rejected,
        **further,
    )


# LoRA and all of it --------------------------------------------------------------------------------------------------


def whole_model(
    data: PreferenceDataset,
    models: Models,
    objective: Objective,
    reference: str | Path | None,
    tune: str,
    chosen: dict[str, Any],
) -> tuple[Subject, TrainingSettings]:
    """Adapters, or all of a model; `chosen`: fields of `TrainingSettings`."""
    if chosen["flip"]:
        data = data.flipped()
    rate = chosen.pop("learning_rate", None)
    if rate == "auto":
        raise ConfigError(f"the learning rate 'auto' is for tune 'last-layer'; give a number to tune {tune!r}")
    dtype = "float32" if models.reading.dtype == "auto" and tune == "full" else models.reading.dtype
    lm = models.load(dtype=dtype)
    tokens = tokenize_pairs(data, lm, **models.reading.tokens())
    trained = _trained(data, tokens)
    precision = chosen.pop("precision", None) or ("float32" if torch.device(lm.device).type == "cpu" else "bfloat16")
    settings = resolve(
        trained,
        groups=len(data.groups),
        tune=tune,
        objective=objective,
        learning_rate=rate,
        precision=precision,
        **chosen,
    )

    wrapped = None
    notes: list[str] = []
    if tune == "lora":
        assert settings.lora is not None
        targets = settings.lora.targets
        notes = told_of_adapters(unadaptable(lm.model), None if targets == ALL_LINEAR else targets)
        wrapped, parameters = add_adapters(lm, settings.lora, seed=settings.seed)
        drift = functools.partial(Drift, adapters=True, scale=settings.lora.alpha / settings.lora.rank)
    else:
        parameters, drift = unfreeze(lm), Drift
    if settings.gradient_checkpointing:
        checkpoint_activations(lm)
    memory = _memory(lm, tokens, settings, trained, models, another=isinstance(reference, str))
    doubt = check_fits(memory)
    models.tell(f"Memory: about {shown_bytes(memory.total)} at the peak ({_largest(memory)}).")
    references: dict[str, Any]
    notes += [] if doubt is None else [doubt]
    if reference is None:
        ref_chosen, ref_rejected = models.scored(lm, tokens, precision)
        references = {"ref_chosen": ref_chosen, "ref_rejected": ref_rejected}
    elif Path(reference).is_dir() and (Path(reference) / "scores.parquet").is_file():
        references, told = _scores(reference, data, tokens, lm, models, precision, flip=chosen["flip"])
        notes += told
    else:
        references = _reference_model(data, models, tokens, str(reference), dtype, precision)
    pairs = _pairs_of_tokens(data, tokens, **references)
    scorer = PairScorer(lm, tokens, share=models.share, normaliser_gradient=objective.reads == "log_probs")
    longest = np.maximum(pairs.chosen_length, pairs.rejected_length)
    lengths = np.asarray([len(each) for each in tokens.prompts])[tokens.prompt] + longest
    return Subject(
        scorer=scorer,
        parameters={f"model.{name}": each for name, each in parameters.items()},
        pairs=pairs,
        lengths=lengths,
        kind=tokens.kind,
        drift=drift if "drift" in settings.probes else None,
        lm=lm,
        wrapped=wrapped,
        **_told(data, tokens, lm, settings, *notes),
    ), settings


def _memory(
    lm: LanguageModel,
    tokens: TokenPairs,
    settings: TrainingSettings,
    trained: int,
    models: Models,
    *,
    another: bool,
) -> MemoryEstimate:
    """What the largest part of a batch, made of the longest pairs, would take."""
    prompts = np.asarray([len(ids) for ids in tokens.prompts])[tokens.prompt]
    responses = [np.asarray([len(ids) for ids in side]) for side in (tokens.chosen, tokens.rejected)]
    size = trained if settings.batch_size == "full" else settings.batch_size
    count = -(-size // (settings.accumulate * models.team.share[1]))
    if tokens.kind == "answers":
        row, predicted = prompts, np.ones(len(tokens))
    else:
        row = prompts + sum(responses) if models.share else 2 * (prompts + np.maximum(*responses))
        predicted = sum(responses)
    ends = slice(-min(count, len(tokens)), None)
    return of_model(
        lm,
        tune=settings.tune,
        optimizer=settings.optimizer,
        batch_tokens=int(np.sort(row)[ends].sum()) if models.share else int(count * row.max()),
        batch_pairs=count,
        predicted=int(np.sort(np.asarray(predicted))[ends].sum()),
        accumulate=settings.accumulate,
        rank=settings.lora.rank if settings.lora is not None else 16,
        autocast=settings.precision == "bfloat16",
        gradient_checkpointing=settings.gradient_checkpointing,
        drift="drift" in settings.probes,
        reference_parameters=sum(each.numel() for each in lm.model.parameters()) if another else 0,
    )


def _largest(found: MemoryEstimate) -> str:
    parts = sorted(found.parts.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {shown_bytes(size)}" for name, size in parts if size)


# pairs ---------------------------------------------------------------------------------------------------------------


def _ids(data: PreferenceDataset, tokens: TokenPairs) -> np.ndarray:
    return np.asarray(data.table["id"].to_pylist(), dtype=np.str_)[tokens.row]


def _lengths(tokens: TokenPairs) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each chosen and each rejected response."""
    sides = (tokens.chosen, tokens.rejected)
    chosen, rejected = (np.asarray([len(ids) for ids in side], dtype=np.int32) for side in sides)
    return chosen, rejected


def _held_out(data: PreferenceDataset, tokens: TokenPairs) -> np.ndarray:
    return np.asarray([side == "held_out" for side in data.table["split"].to_pylist()])[tokens.row]


def _trained(data: PreferenceDataset, tokens: TokenPairs) -> int:
    """How many pairs there are to train on."""
    trained = int((~_held_out(data, tokens)).sum())
    _refuse_nothing(trained, len(tokens))
    return trained


def _pairs_of_tokens(data: PreferenceDataset, tokens: TokenPairs, **references: Any) -> PairTable:
    code, groups = encode(data.table["group"])
    used, group = np.unique(code[tokens.row], return_inverse=True)
    answered, lengths = tokens.answered, _lengths(tokens)
    place = {token: at for at, token in enumerate(answered.token_ids)} if answered is not None else {}
    return PairTable(
        id=_ids(data, tokens),
        group=group.astype(np.int32),
        groups=tuple(groups[at] for at in used.tolist()),
        held_out=_held_out(data, tokens),
        weight=np.asarray(data.table["weight"].to_numpy(), dtype=np.float64)[tokens.row],
        chosen_length=lengths[0],
        rejected_length=lengths[1],
        chosen=np.asarray([place[ids[0]] for ids in tokens.chosen], dtype=np.int32) if place else None,
        rejected=np.asarray([place[ids[0]] for ids in tokens.rejected], dtype=np.int32) if place else None,
        **references,
    )


def _told(
    data: PreferenceDataset, tokens: TokenPairs, lm: LanguageModel, settings: TrainingSettings, *further: str
) -> dict[str, Any]:
    """What a run says of its data and model."""
    warnings = [*tokens.warnings, *further]
    if tokens.left_out:
        warnings.append(
            f"{len(tokens.left_out)} of {len(data)} pairs are left out; the first: {tokens.left_out[0][1]}."
        )
    everything = data.table["id"]
    return {
        "left_out": [{"id": everything[row].as_py(), "reason": reason} for row, reason in tokens.left_out],
        "warnings": warnings,
        "provenance": Provenance(
            data={
                "name": data.name,
                "pairs": len(data),
                "sha256": data.sha256,
                "tokens": token_marks(_ids(data, tokens).tolist(), pair_digests(tokens, flip=settings.flip)),
            },
            model=lm.describe(),
            seed=settings.seed,
            versions=versions(),
        ),
    }


def _refuse_nothing(trained: int, pairs: int) -> None:
    if not trained:
        raise DataError(f"all {pairs} pairs are held out, so nothing is left to train on; lower the held-out share")


# references ----------------------------------------------------------------------------------------------------------


def _reference_model(
    data: PreferenceDataset, models: Models, tokens: TokenPairs, name: str, dtype: str, precision: str
) -> dict[str, np.ndarray]:
    other = models.other(name, dtype=dtype)
    theirs = tokenize_pairs(data, other, **models.reading.tokens())
    same = len(theirs) == len(tokens) and all(
        getattr(theirs, part) == getattr(tokens, part) for part in ("prompts", "chosen", "rejected")
    )
    if not same:
        raise ModelError(
            f"the reference {other.name} turns these pairs into other tokens than the model that is trained, so their "
            "log-probabilities cannot be compared; use a reference with the same tokenizer"
        )
    chosen, rejected = models.scored(other, tokens, precision)
    return {"ref_chosen": chosen, "ref_rejected": rejected}


def _scores(
    folder: str | Path,
    data: PreferenceDataset,
    tokens: TokenPairs,
    lm: LanguageModel,
    models: Models,
    precision: str,
    *,
    flip: bool,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What `prefdyn score` wrote of these tokens, as they stand with chosen and rejected swapped if `flip`."""

    def rescored(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = {side: tuple(getattr(tokens, side)[row] for row in rows.tolist()) for side in ("chosen", "rejected")}
        few = replace(tokens, prompt=tokens.prompt[rows], row=tokens.row[rows], answered=None, **sides)
        return models.scored(lm, few, precision)

    ids = _ids(data, tokens)
    return other_reference(
        folder, ids, _lengths(tokens), digests=dict(zip(ids.tolist(), pair_digests(tokens, flip=flip), strict=True)),
        model=lm.fingerprint, rescored=rescored, flip=flip,
    )  # fmt: skip
