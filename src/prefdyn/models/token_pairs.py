"""The tokens of preference pairs as training and scoring need them: prompts, and what follows each.

Of kind `responses` they are the ids that TRL's DPOTrainer gives: prompt and response are tokenised together, with an
end token after plain text, and the response begins where the joint tokens leave those of the prompt alone.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError, ModelError, TokenError
from prefdyn.models.answers import answer_mapping, with_answers
from prefdyn.models.changes import changes, doubled
from prefdyn.models.load import LanguageModel
from prefdyn.models.texts import RenderedTexts
from prefdyn.models.tokens import (
    AnsweredPrompts,
    NotOneToken,
    Scribe,
    agree,
    one_token_answers,
    refuse_foreign,
)
from prefdyn.provenance import content_hash

_MARKED = 64
"""Pairs whose digests a result keeps one by one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenPairs:
    """The m usable pairs of a dataset as tokens of one model."""

    kind: Literal["answers", "responses"]
    """`answers`: chosen and rejected are one token each, everywhere, without an end token."""
    prompts: tuple[tuple[int, ...], ...]
    """Token ids of each different prompt, at least one token each."""
    prompt: Int[np.ndarray, " m"]
    """Index into `prompts` of each pair."""
    chosen: tuple[tuple[int, ...], ...]
    """Token ids that continue the prompt, per pair, at least one."""
    rejected: tuple[tuple[int, ...], ...]
    row: Int[np.ndarray, " m"]
    """Row of the dataset that each pair is."""
    left_out: tuple[tuple[int, str], ...]
    """Row and reason of each pair that cannot be used."""
    warnings: tuple[str, ...]
    answered: AnsweredPrompts | None = None
    """Of kind `answers`: the answer tokens and their spellings."""

    def __len__(self) -> int:
        return len(self.prompt)


def pair_digest(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> str:
    """What tells the tokens of one pair from any other's: 32 hexadecimal digits.

    Example:
        >>> pair_digest([1, 2], [3], [4]) == pair_digest([1], [2, 3], [4])
        False
    """
    lengths = np.asarray([len(prompt), len(chosen), len(rejected)], dtype="<i8")
    ids = np.asarray([*prompt, *chosen, *rejected], dtype="<i8")
    return hashlib.sha256(lengths.tobytes() + ids.tobytes()).hexdigest()[:32]


def pair_digests(pairs: TokenPairs, *, flip: bool = False) -> list[str]:
    """The digest of each pair, or of each with chosen and rejected swapped."""
    sides = (pairs.rejected, pairs.chosen) if flip else (pairs.chosen, pairs.rejected)
    return [
        pair_digest(pairs.prompts[prompt], one, two)
        for prompt, one, two in zip(pairs.prompt.tolist(), *sides, strict=True)
    ]


def token_marks(ids: Sequence[str], digests: Sequence[str]) -> dict[str, Any]:
    """What a result keeps of the tokens that it was made from: a digest of all, and of some pairs each its own.

    Which pairs is decided by their ids alone, so that results on parts of the same data know of the same ones.

    Args:
        ids: Of each pair.
        digests: Of each pair.
    """
    ordered = sorted(zip(ids, digests, strict=True))
    drawn = sorted(ordered, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())[:_MARKED]
    return {"sha256": content_hash(part for pair in ordered for part in pair), "pairs": dict(sorted(drawn))}


def tokenize_pairs(
    data: PreferenceDataset,
    lm: LanguageModel,
    *,
    eos: bool | None = None,
    answers: Sequence[str] | None = None,
    max_length: int | None = None,
    strict: bool = False,
) -> TokenPairs:
    """Tokenise every pair.

    Args:
        data: The pairs.
        lm: The model whose tokenizer and chat template are used.
        eos: None: one token per answer where every answer is one token, else texts with TRL's end token. True: texts
            with the end token, always. False: one token per answer where possible, else texts without an end token.
            Conversations end as their chat template ends them, whatever this is.
        answers: Positive and negative answer to use in place of the dataset's two, or each as "OLD=NEW". Unless `eos`
            is True they must be one token each.
        max_length: Leave out pairs whose prompt and longer response together are longer than this many tokens (of
            kind `answers`: whose prompt is). The model's context is always a limit. Nothing is ever cut.
        strict: Where `eos` is None and the dataset has two answers in all, refuse to read them as texts.

    Returns:
        The usable pairs in the order of the dataset, and the others with the reason.

    Raises:
        TokenError: An answer that was given by `answers` is not a single token, or one of two answers under `strict`;
            names spellings that are.
        DataError: There are no pairs, or none can be used.
        ModelError: The tokenizer has no end token or chat template where one is needed, or is not the model's.
    """
    mapping = None
    if answers is not None:
        mapping = answer_mapping(answers, (*data.table["chosen"].to_pylist(), *data.table["rejected"].to_pylist()))
        data = with_answers(data, answers)
    texts = RenderedTexts(data, lm)
    found = _tokenized(texts, eos=eos, mapping=mapping, max_length=max_length, strict=strict)
    told = doubled(lm, found.prompts, found.prompt, (*found.chosen, *found.rejected))
    return replace(found, warnings=(*found.warnings, *told, *changes(texts, found.row.tolist())))


def _tokenized(
    texts: RenderedTexts, *, eos: bool | None, mapping: Mapping[str, str] | None, max_length: int | None, strict: bool
) -> TokenPairs:
    if eos:
        return _responses(texts, eos=True, max_length=max_length, warnings=())
    try:
        return _answers(one_token_answers(texts, mapping=mapping, max_length=max_length))
    except NotOneToken as found:
        if mapping is not None or (strict and eos is None and isinstance(found.error, TokenError)):
            raise found.error from None
        told = []
        if found.advice:
            told.append(
                f"The two answers are several tokens each in {texts.lm.name}, so they are read as texts"
                f"{'' if eos is False else ' with an end token'}; {found.advice} makes them single tokens, which takes "
                "one pass of the model for both."
            )
    return _responses(texts, eos=eos is None, max_length=max_length, warnings=told)


def _answers(found: AnsweredPrompts) -> TokenPairs:
    kept = np.flatnonzero(found.sequence >= 0)
    return TokenPairs(
        kind="answers",
        prompts=found.sequences,
        prompt=found.sequence[kept],
        chosen=tuple((token,) for token in found.chosen[kept].tolist()),
        rejected=tuple((token,) for token in found.rejected[kept].tolist()),
        row=kept,
        left_out=found.left_out,
        warnings=found.warnings,
        answered=found,
    )


def _responses(texts: RenderedTexts, *, eos: bool, max_length: int | None, warnings: Iterable[str]) -> TokenPairs:
    scribe = Scribe(texts.lm)
    joint = _joint(texts, scribe, eos=eos)
    limit = min((size for size in (texts.lm.context, max_length) if size is not None), default=None)
    whose = f"the model's context of {limit}" if limit == texts.lm.context else f"--max-length {limit}"
    index: dict[tuple[int, ...], int] = {}
    prompt, chosen, rejected, kept = [], [], [], []
    left_out: list[tuple[int, str]] = []
    lost: list[int] = []
    for row, (alone, *sides) in enumerate(zip(*joint, strict=True)):
        cut = min(agree(alone, ids) for ids in sides)
        first, second = (ids[cut:] for ids in sides)
        longer = cut + max(len(first), len(second))
        if not first or not second:
            left_out.append((row, f"{'chosen' if not first else 'rejected'} response has no tokens"))
        elif first == second:
            left_out.append((row, "chosen and rejected are the same tokens"))
        elif cut == 0:
            left_out.append((row, "prompt has no tokens" + (" that both responses leave as they are" if alone else "")))
        elif limit is not None and longer > limit:
            left_out.append((row, f"prompt and longer response of {longer} tokens are longer than {whose}"))
        else:
            kept.append(row)
            prompt.append(index.setdefault(alone[:cut], len(index)))
            chosen.append(first)
            rejected.append(second)
            if cut < len(alone):
                lost.append(row)
    if not kept:
        fits = "raise --max-length, or use a model with a longer context"
        fix = fits if "longer" in left_out[0][1] else "give pairs with a prompt and two different responses"
        raise DataError(f"none of the {len(left_out)} pairs can be used: {left_out[0][1]} (the first); {fix}")
    every = (*index, *chosen, *rejected)
    highest = max(map(max, every))
    refuse_foreign(texts.lm, highest, highest)
    told = list(warnings)
    if lost:
        alone, *sides = (ids[lost[0]] for ids in joint)
        end = scribe.text(alone[min(agree(alone, ids) for ids in sides) :])
        told.append(
            f"In {len(lost)} of {len(kept)} pairs the prompt alone ends in other tokens than before its responses, so, "
            f"as in TRL, the responses begin where the tokens differ and this end of the prompt is left out: {end!r} "
            "(the first). End prompts at a token boundary, or use a chat template that writes them alike."
        )
    return TokenPairs(
        kind="responses",
        prompts=tuple(index),
        prompt=np.asarray(prompt),
        chosen=tuple(chosen),
        rejected=tuple(rejected),
        row=np.asarray(kept),
        left_out=tuple(left_out),
        warnings=tuple(told),
    )


def _joint(texts: RenderedTexts, scribe: Scribe, *, eos: bool) -> list[list[tuple[int, ...]]]:
    """Token ids of every prompt alone, with the chosen and with the rejected response: equal texts read once."""
    end = str(getattr(texts.lm.tokenizer, "eos_token", None) or "")
    plain = [talk is None for talk in texts.talks]
    if eos and not end and any(plain):
        raise ModelError(f"the tokenizer of {texts.lm.name} has no end token to put after responses; use --no-eos")
    index: dict[tuple[bool, str], int] = {}
    places: list[list[int]] = [[], [], []]
    for row, special in enumerate(plain):
        wholes = [texts.whole(row, "chosen"), texts.whole(row, "rejected")]
        if eos and special:
            sides = (texts.chosen[row], texts.rejected[row])
            wholes = [whole if side.endswith(end) else whole + end for whole, side in zip(wholes, sides, strict=True)]
        for place, text in zip(places, (texts.prompt(row), *wholes), strict=True):
            place.append(index.setdefault((special, text), len(index)))
    found = scribe.ids([text for _, text in index], [special for special, _ in index], tail=eos)
    return [[found[at] for at in place] for place in places]
