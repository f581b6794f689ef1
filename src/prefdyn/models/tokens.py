"""Prompts and answers as tokens of one model.

A one-token answer is the token that continues the prompt when both are tokenised together, without an end token.
Tokenised apart, SentencePiece models would put a stray piece before the answer. Where the two ways differ, or where the
boundary moves a token of the prompt, the difference is counted and told.

Of a conversation the prompt is all that stands before the answer in the rendered conversation, which need not be what
the generation prompt ends with, and the answer is the token that stands there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.rows import common_prefix
from prefdyn.errors import DataError, ModelError, TokenError
from prefdyn.models.answers import polarity, with_answers
from prefdyn.models.load import LanguageModel
from prefdyn.models.places import answer_place
from prefdyn.models.texts import SIDES, RenderedTexts, pair_name

_PAIRS = (("Yes", "No"), ("Y", "N"), ("True", "False"), ("A", "B"), ("1", "2"), ("+", "-"), ("1", "0"))
"""Spellings to try where the given answers are several tokens, besides variations of the answers themselves."""
_SAMPLE = 64
"""Prompts after which a spelling is tried before it is proposed."""
_FEW = 8
"""Conversations in which a spelling is tried once more, as its template writes it."""
_OFFERED = 8
"""Pairs of spellings that are tried so."""
_CHUNK = 8192
_SHORT = 40
"""Characters up to which a text can be one of two answers, and up to which it is shown whole."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredPrompts:
    """The n pairs of a dataset as u different prompts and two answer tokens each."""

    sequences: tuple[tuple[int, ...], ...]
    """Token ids of each different prompt."""
    sequence: Int[np.ndarray, " n"]
    """Index into `sequences` of each pair; -1 where the pair is left out."""
    chosen: Int[np.ndarray, " n"]
    """Vocabulary id of the token that the chosen answer is; -1 where the pair is left out."""
    rejected: Int[np.ndarray, " n"]
    token_ids: tuple[int, ...]
    """The answer tokens that occur, the positive one first."""
    tokens: tuple[str, ...]
    """The same as text, as the dataset (or `answers`) spells them."""
    left_out: tuple[tuple[int, str], ...]
    """Row and reason of each pair that cannot be used."""
    warnings: tuple[str, ...]
    answers: Mapping[str, str]
    """Answer of the dataset → the word that stands for it, where `answers` was given."""


class NotOneToken(Exception):
    """An answer is not one token, or not the same token boundary for both: not an error where texts are welcome."""

    def __init__(self, error: DataError, advice: str = "") -> None:
        """Args: what to raise where answers must be one token; how two answers could be, such as "--answers Yes,No"."""
        super().__init__(str(error))
        self.error, self.advice = error, advice


def one_token_answers(
    texts: RenderedTexts, *, mapping: Mapping[str, str] | None = None, max_length: int | None = None
) -> AnsweredPrompts:
    """Tokenise every prompt with its two answers.

    Args:
        texts: The pairs, rendered for a model.
        mapping: The dataset's own answers → the words that the texts have in their place, the positive one first.
        max_length: Leave out prompts longer than this many tokens; the model's context is always a limit.

    Raises:
        NotOneToken: An answer is not one token. Holds the `TokenError` (two answers in all; names spellings that are)
            or `DataError` (longer responses) to raise where it must be.
        DataError: No prompt is short enough.
        ModelError: The tokenizer cannot do what the data needs, or does not belong to the model.
    """
    data, lm = texts.data, texts.lm
    scribe = Scribe(lm)
    mapping = mapping or {}
    read = _as_read(texts)
    pairs = _IndexedPairs.of(read.prompts, read.chosen, read.rejected, [talk is not None for talk in texts.talks])
    joined = _join(pairs, scribe, texts, mapping, read.lost)
    _refuse_lost(texts, read, pairs, joined, scribe)

    lengths = np.asarray([len(ids) for ids in joined.prompts])[pairs.prompt]
    left_out = _left_out(lengths, joined.chosen == joined.rejected, lm.context, max_length)
    kept = np.ones(len(data), dtype=bool)
    kept[[row for row, _ in left_out]] = False
    if not kept.any():
        raise DataError(
            f"none of the {len(kept)} pairs can be used: {left_out[0][1]} (the first); raise --max-length, or use a "
            "model with a longer context"
        )
    used, sequence = np.unique(pairs.prompt[kept], return_inverse=True)
    sequences = tuple(joined.prompts[row] for row in used.tolist())
    refuse_foreign(lm, max(max(ids) for ids in sequences), int(max(joined.chosen.max(), joined.rejected.max())))
    token_ids, names = _order(joined, pairs, kept, first=next(iter(mapping.values())) if mapping else None)
    place = np.full(len(data), -1)
    place[kept] = sequence
    return AnsweredPrompts(
        sequences=sequences,
        sequence=place,
        chosen=np.where(kept, joined.chosen, -1),
        rejected=np.where(kept, joined.rejected, -1),
        token_ids=token_ids,
        tokens=names,
        left_out=tuple(left_out),
        warnings=(*_warnings(joined, pairs, kept, scribe), *_written_between(texts, read, kept)),
        answers=mapping,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _IndexedPairs:
    """Pairs as indices into different prompts and different answers."""

    texts: list[str]
    """Each different prompt."""
    special: list[bool]
    """Whether the tokenizer's own special tokens go around it: not where a chat template has written them."""
    words: list[str]
    """Each different answer."""
    prompt: Int[np.ndarray, " n"]
    chosen: Int[np.ndarray, " n"]
    rejected: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, prompts: list[str], chosen: list[str], rejected: list[str], templated: list[bool]) -> "_IndexedPairs":
        index: dict[tuple[bool, str], int] = {}
        prompt = [index.setdefault(key, len(index)) for key in zip(templated, prompts, strict=True)]
        words = {word: place for place, word in enumerate(dict.fromkeys([*chosen, *rejected]))}
        return cls(
            texts=[text for _, text in index],
            special=[not by_template for by_template, _ in index],
            words=list(words),
            prompt=np.asarray(prompt),
            chosen=np.asarray([words[word] for word in chosen]),
            rejected=np.asarray([words[word] for word in rejected]),
        )

    @property
    def two_answers(self) -> bool:
        """Whether these are two answers to choose from, rather than texts of their own."""
        different = {word.strip() for word in self.words}
        return len(different) == 2 and max(map(len, different)) <= _SHORT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Joined:
    """Every prompt and answer tokenised together."""

    prompts: list[tuple[int, ...]]
    """Token ids of each different prompt, as its answers leave them."""
    chosen: Int[np.ndarray, " n"]
    rejected: Int[np.ndarray, " n"]
    moved: Bool[np.ndarray, " n"]
    """Whether an answer of the pair changed the prompt's own tokens."""


def _join(
    pairs: _IndexedPairs, scribe: "Scribe", texts: RenderedTexts, mapping: Mapping[str, str], lost: Mapping[int, str]
) -> _Joined:
    """Args: the pairs; the tokenizer; the texts; other words for the answers; rows that are not looked at."""
    count, data = len(pairs.words), texts.data
    kept = np.ones(len(data), dtype=bool)
    kept[list(lost)] = False
    sides = [np.where(kept, pairs.prompt * count + side, -1) for side in (pairs.chosen, pairs.rejected)]
    combos = np.unique(np.concatenate(sides)[np.tile(kept, 2)])
    token = np.empty(len(combos), dtype=np.int64)
    moved = np.zeros(len(combos), dtype=bool)
    prompts: list[tuple[int, ...]] = [()] * len(pairs.texts)
    differs: set[int] = set()
    seen: set[int] = set()
    start = 0
    while start < len(combos):  # a small first part, so that long answers are told before all of them are tokenised
        part = combos[start : start + (_CHUNK if start else _SAMPLE)]
        rows, cols = (part // count).tolist(), (part % count).tolist()
        fresh = list(dict.fromkeys(rows))
        special = [pairs.special[row] for row in fresh]
        alone = dict(zip(fresh, scribe.ids([pairs.texts[row] for row in fresh], special), strict=True))
        joint = [pairs.texts[row] + pairs.words[col] for row, col in zip(rows, cols, strict=True)]
        for at, ids in enumerate(scribe.ids(joint, [pairs.special[row] for row in rows])):
            row, before = rows[at], alone[rows[at]]
            if ids[:-1] != before:
                moved[start + at] = True
                if not scribe.is_one_token(ids, before, pairs.texts[row], joint[at], pairs.special[row]):
                    raise _not_single(texts, scribe, pairs, row, cols[at], ids[agree(ids, before) :], mapping)
            token[start + at] = ids[-1]
            if row in seen and prompts[row] != ids[:-1]:
                differs.add(row)
            seen.add(row)
            prompts[row] = ids[:-1]
        start += len(part)
    if differs:
        first = int(np.flatnonzero(pairs.prompt == min(differs))[0])
        error = TokenError(
            f"{len(differs)} prompts join with one answer but not the other in {scribe.lm.name} (the first is pair "
            f"{pair_name(data, first)}), so the two answers do not continue the same tokens; end the prompts without "
            "a space, or use other --answers"
        )
        raise NotOneToken(error)
    if not len(combos):
        nowhere = np.full(len(data), -1)
        return _Joined(prompts=prompts, chosen=nowhere, rejected=nowhere, moved=nowhere == 0)
    won, against = (np.searchsorted(combos, np.where(kept, side, combos[0])) for side in sides)
    return _Joined(prompts=prompts, chosen=token[won], rejected=token[against], moved=moved[won] | moved[against])


def agree(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    if tuple(two[: len(one)]) == tuple(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def refuse_foreign(lm: LanguageModel, highest: int, highest_answer: int) -> None:
    """Refuse token ids of prompts and of answers that the model has no row for.

    Raises:
        ModelError: One is too high.
    """
    rows = lm.model.get_input_embeddings().weight.shape[0]
    if highest >= rows or highest_answer >= lm.vocabulary:
        raise ModelError(
            f"the tokenizer of {lm.name} gives token {max(highest, highest_answer)}, but the model has {rows} "
            "embeddings; tokenizer and model do not belong together"
        )


# the tokenizer -------------------------------------------------------------------------------------------------------


class Scribe:
    """A tokenizer as this room needs it: lists of texts to tuples of ids, its end tokens taken off unless wanted."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm, self.tokenizer = lm, lm.tokenizer
        bare = list(self._call(["x"], special=False)[0])
        whole = list(self._call(["x"], special=True)[0])
        starts = [at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare]
        self.tail = len(whole) - (starts[0] + len(bare)) if starts else 0

    def _call(self, texts: list[str], *, special: bool, **more: Any) -> Any:
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        found = self.tokenizer(texts, add_special_tokens=special, **options, **more)
        return found if more else found["input_ids"]

    def ids(self, texts: Sequence[str], special: Sequence[bool], *, tail: bool = False) -> list[tuple[int, ...]]:
        """Token ids of each text, with its tokenizer's special tokens where `special`, at the end only if `tail`."""
        found: list[tuple[int, ...]] = [()] * len(texts)
        for wanted in (True, False):
            rows = [row for row, flag in enumerate(special) if flag is wanted]
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                cut = -self.tail if wanted and self.tail and not tail else None
                for row, ids in zip(part, self._call([texts[row] for row in part], special=wanted), strict=True):
                    found[row] = tuple(ids[:cut])
        return found

    def is_one_token(self, ids: Sequence[int], before: Sequence[int], prompt: str, text: str, special: bool) -> bool:
        """Whether the last token of the joint text holds the whole answer, though the prompt's own tokens moved."""
        if agree(ids, before) == len(ids) - 1:
            return True
        if not getattr(self.tokenizer, "is_fast", False) or len(ids) < 2:
            return False
        spans = self._call([text], special=special, return_offsets_mapping=True)["offset_mapping"][0]
        spans = spans[: len(ids)]
        return spans[-1][0] <= len(prompt) and spans[-1][1] >= len(text) and spans[-2][1] <= len(prompt)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The tokens as the tokenizer spells them."""
        return [str(piece) for piece in self.tokenizer.convert_ids_to_tokens(list(ids))]

    def text(self, ids: Sequence[int]) -> str:
        """The tokens as the text they stand for."""
        return str(self.tokenizer.decode(list(ids)))


# conversations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Prompt and answers of every pair as the model reads them."""

    prompts: list[str]
    """Of a conversation all that stands before its answers."""
    chosen: list[str]
    rejected: list[str]
    lost: dict[int, str]
    """Conversations whose answers are short but not to be found, and why."""


def _as_read(texts: RenderedTexts) -> _Read:
    prompts, chosen, rejected = list(texts.prompts), list(texts.chosen), list(texts.rejected)
    lost: dict[int, str] = {}
    for row, talk in enumerate(texts.talks):
        if talk is None:
            continue
        prompts[row] = texts.prompt(row)
        said = [texts.content(row, side) for side in SIDES]
        if None in said:  # several turns, reasoning or calls: the text for people, which is no single token either
            continue
        wholes = [texts.whole(row, side) for side in SIDES]
        if wholes[0] == wholes[1]:  # left out further on
            chosen[row] = rejected[row] = str(said[0]).strip()
        elif place := answer_place(*wholes, *map(str, said)):
            prompts[row], chosen[row], rejected[row] = place
        else:
            lost[row] = "the two conversations differ in more than the answers, or in other words than theirs"
            chosen[row], rejected[row] = map(str, said)
    return _Read(prompts=prompts, chosen=chosen, rejected=rejected, lost=lost)


def _refuse_lost(texts: RenderedTexts, read: _Read, pairs: _IndexedPairs, joined: _Joined, scribe: Scribe) -> None:
    """Refuse answers that are one token each but not to be found in the rendered conversation.

    Raises:
        DataError: There are such.
        NotOneToken: Of those that are not to be found, one is longer.
    """
    lost = dict(read.lost)
    for row in lost:
        prompt = read.prompts[row]
        (alone,) = scribe.ids([prompt], [False])
        for side, text in (("chosen", read.chosen[row]), ("rejected", read.rejected[row])):
            (ids,) = scribe.ids([prompt + text.strip()], [False])
            if not scribe.is_one_token(ids, alone, prompt, prompt + text.strip(), False):
                raise _longer(texts.data, row, side, text, len(ids) - agree(ids, alone))
    rows = [row for row, talk in enumerate(texts.talks) if talk is not None and row not in read.lost]
    for side, tokens in zip(SIDES, (joined.chosen, joined.rejected), strict=True):
        for start in range(0, len(rows), _CHUNK):
            part = {row: texts.whole(row, side) for row in rows[start : start + _CHUNK]}
            different = list(dict.fromkeys(part.values()))
            ids = dict(zip(different, scribe.ids(different, [False] * len(different)), strict=True))
            for row, whole in part.items():
                expected = (*joined.prompts[pairs.prompt[row]], int(tokens[row]))
                if ids[whole][: len(expected)] != expected:
                    lost.setdefault(row, f"its {side} answer joins with what follows into other tokens")
    if lost:
        row = min(lost)
        raise DataError(
            f"pair {pair_name(texts.data, row)} and {len(lost) - 1} others: where the answer "
            f"{_short(read.chosen[row])!r} stands in the conversation as the chat template of {texts.lm.name} writes "
            f"it cannot be told ({lost[row]}); read the answers as replies with --eos"
        )


def _written_between(texts: RenderedTexts, read: _Read, kept: np.ndarray) -> Iterator[str]:
    """What the template writes before answers that it does not write at the end of the prompt."""
    rows = [row for row, talk in enumerate(texts.talks) if talk is not None and kept[row]]
    between = [row for row in rows if read.prompts[row] != texts.prompt(row)]
    if between:
        prompt, before = texts.prompt(between[0]), read.prompts[between[0]]
        alike = common_prefix(prompt, before)
        without = f" and without {prompt[alike:]!r} there" if prompt[alike:] else ""
        yield (
            f"In {len(between)} of {len(rows)} conversations the answer follows {before[alike:]!r}{without}, which the "
            "generation prompt does not end with (the first): answers are read where the rendered conversation has "
            "them, as in training, and a model that is asked with the generation prompt alone stands elsewhere."
        )


# answers -------------------------------------------------------------------------------------------------------------


def _order(
    joined: _Joined, pairs: _IndexedPairs, kept: np.ndarray, *, first: str | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Answer tokens that occur with their spelling: the positive first, then by spelling."""
    spelled: dict[int, str] = {}
    for tokens, words in ((joined.chosen, pairs.chosen), (joined.rejected, pairs.rejected)):
        ids, rows = np.unique(np.where(kept, tokens, -1), return_index=True)
        for token, row in zip(ids.tolist(), rows.tolist(), strict=True):
            if token >= 0:
                spelled.setdefault(token, pairs.words[words[row]])
    ranked = sorted(spelled.items(), key=lambda item: (item[1] != first, -polarity(item[1]), item[1], item[0]))
    return tuple(token for token, _ in ranked), tuple(text for _, text in ranked)


def _not_single(
    texts: RenderedTexts,
    scribe: "Scribe",
    pairs: _IndexedPairs,
    prompt: int,
    word: int,
    tokens: Sequence[int],
    mapping: Mapping[str, str],
) -> NotOneToken:
    """The error for an answer that is not one token: for two-answer data with spellings that are."""
    answer, pieces = pairs.words[word], scribe.pieces(tokens)
    if pairs.two_answers:
        sample = range(0, len(pairs.texts), max(1, len(pairs.texts) // _SAMPLE))
        found = single_spellings(
            scribe,
            [pairs.texts[at] for at in sample],
            [pairs.special[at] for at in sample],
            list(mapping) or pairs.words,
        )
        if texts.data.conversational:
            found = [pair for pair in found[:_OFFERED] if _stands(texts, scribe, pair)]
        shown = f"{answer!r} is {len(pieces)} tokens {pieces}" if pieces else f"{answer!r} is no token of its own"
        options = " or ".join(f"--answers {_quoted(pair)}" for pair in found[:4])
        if found:
            fix = f"single tokens here: {options}"
        else:
            fix = "no usual spelling is one token in this model; choose another model"
        error = TokenError(f"answer {shown} after these prompts in {scribe.lm.name}, but must be one; {fix}")
        return NotOneToken(error, options)
    hit = int(np.flatnonzero(((pairs.chosen == word) | (pairs.rejected == word)) & (pairs.prompt == prompt))[0])
    return _longer(texts.data, hit, "chosen" if pairs.chosen[hit] == word else "rejected", answer, len(pieces))


def _stands(texts: RenderedTexts, scribe: Scribe, pair: tuple[str, str]) -> bool:
    """Whether two spellings are one token each as the template writes them, in the first few pairs."""
    few = texts.data.select(mask=np.arange(len(texts.data)) < _FEW)
    given = sorted(
        {word.strip() for word in (*texts.chosen, *texts.rejected)}, key=lambda word: (-polarity(word), word)
    )
    answers = [f"{old}={new}" for old, new in zip(given, pair, strict=True)]
    read = _as_read(RenderedTexts(with_answers(few, answers), texts.lm))
    special = [talk is None for talk in few.conversations]
    alone = scribe.ids(read.prompts, special)
    for words in (read.chosen, read.rejected):
        whole = [prompt + word for prompt, word in zip(read.prompts, words, strict=True)]
        if any(ids[:-1] != before for ids, before in zip(scribe.ids(whole, special), alone, strict=True)):
            return False
    return not read.lost


def _longer(data: PreferenceDataset, row: int, side: str, answer: str, tokens: int) -> NotOneToken:
    """The error for an answer of several tokens where answers are texts of their own."""
    error = DataError(
        f"pair {pair_name(data, row)}: its {side} answer {_short(answer)!r} is {tokens} tokens, but "
        "one-token answers were asked for; without --answers longer responses are read as texts"
    )
    return NotOneToken(error)


def single_spellings(
    scribe: "Scribe", prompts: Sequence[str], special: Sequence[bool], given: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs of answer spellings (positive, negative) that are one token each after all of these prompts."""
    old = sorted({word.strip() for word in given}, key=lambda word: (-polarity(word), word))
    pairs: list[tuple[str, str]] = []
    for shape in (str, str.capitalize, str.lower, str.upper):
        for lead in ("", " "):
            pairs.append((lead + shape(old[0]), lead + shape(old[1])))
    initials = (old[0][:1], old[1][:1])
    for first, second in (initials, *_PAIRS):
        for lead in ("", " "):
            pairs.append((lead + first, lead + second))
    alone = scribe.ids(prompts, special)
    verdict: dict[str, list[int] | None] = {}

    def tokens(word: str) -> list[int] | None:
        if word not in verdict:
            joint = scribe.ids([prompt + word for prompt in prompts], special)
            clean = all(ids[:-1] == before for ids, before in zip(joint, alone, strict=True))
            verdict[word] = [ids[-1] for ids in joint] if clean else None
        return verdict[word]

    found = []
    for pair in dict.fromkeys(pairs):
        if pair[0].strip() and pair[0] != pair[1]:
            first, second = tokens(pair[0]), tokens(pair[1])
            if first and second and all(a != b for a, b in zip(first, second, strict=True)):
                found.append(pair)
    return found


def _quoted(pair: tuple[str, str]) -> str:
    text = ",".join(pair)
    return f"'{text}'" if " " in text else text


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def _left_out(
    lengths: np.ndarray, same: np.ndarray, context: int | None, max_length: int | None
) -> list[tuple[int, str]]:
    limit = min((size for size in (context, max_length) if size is not None), default=np.iinfo(np.int64).max)
    whose = f"the model's context of {limit}" if limit == context else f"--max-length {limit}"
    found = []
    for row in np.flatnonzero((lengths > limit) | (lengths == 0) | same).tolist():
        if lengths[row] == 0:
            found.append((row, "prompt has no tokens"))
        elif lengths[row] > limit:
            found.append((row, f"prompt of {lengths[row]} tokens is longer than {whose}"))
        else:
            found.append((row, "chosen and rejected are the same token"))
    return found


def _warnings(joined: _Joined, pairs: _IndexedPairs, kept: np.ndarray, scribe: "Scribe") -> tuple[str, ...]:
    total, moved = int(kept.sum()), int(joined.moved[kept].sum())
    apart = scribe.ids(pairs.words, [False] * len(pairs.words))
    single = np.asarray([ids[0] if len(ids) == 1 else -1 for ids in apart])
    differs = joined.moved | (single[pairs.chosen] != joined.chosen) | (single[pairs.rejected] != joined.rejected)
    found = []
    if moved:
        found.append(
            f"In {moved} of {total} pairs the answer joins with the end of the prompt into other tokens; "
            "the joint tokens were used. Prompts that end without a space avoid this."
        )
    if count := int(differs[kept].sum()):
        split = [(word, ids) for word, ids in zip(pairs.words, apart, strict=True) if len(ids) > 1]
        example = f" ({split[0][0]!r} alone is {scribe.pieces(split[0][1])})" if split else ""
        found.append(
            f"In {count} of {total} pairs, prompt and answer tokenised apart, as older TRL does, give other tokens "
            f"than together{example}; the reference log-probabilities here are those of the joint form."
        )
    return tuple(found)
