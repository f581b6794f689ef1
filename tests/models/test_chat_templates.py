"""Every chat template on every kind of conversation: the token ids of TRL, and one-token answers in their place."""

import argparse
import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from prefdyn.data.loaders import load_dataset
from prefdyn.errors import DataError, ModelError, TokenError
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.score import score_pairs
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from tests.models.chat_templates import CHAT_TEMPLATES, HIDDEN, MARKS, PROMPTS, REPLIES, answered, talks
from tests.models.conftest import byte_tokenizer, make_model, piece_tokenizer

Ids = tuple[tuple[int, ...], ...]


class Rows(list[dict[str, Any]]):
    """What TRL needs of a dataset, with rows as a file of JSON lines has them."""

    def map(self, function: Callable[..., Any], fn_kwargs: Any = None, **_: Any) -> "Rows":
        return Rows({**row, **function(copy.deepcopy(row), **(fn_kwargs or {}))} for row in self)


def by_trl(rows: list[dict[str, Any]], tokenizer: Any) -> list[Ids]:
    """Prompt, chosen and rejected ids of each row, by the trainer's own method."""
    from trl.trainer.dpo_trainer import DPOTrainer

    args: Any = argparse.Namespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    trainer: Any = argparse.Namespace(_tokenizer=tokenizer)
    made: Any = DPOTrainer._prepare_dataset(trainer, Rows(rows), tokenizer, args, "train")  # type: ignore[reportArgumentType]
    return [tuple(tuple(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")) for row in made]


def ours(found: TokenPairs) -> list[Ids]:
    return [
        (found.prompts[at], found.chosen[pair], found.rejected[pair]) for pair, at in enumerate(found.prompt.tolist())
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Callable[[str, str | None], LanguageModel]:
    """A tiny model with a kind of tokenizer, under a template."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, LanguageModel] = {}
    kinds = {"bytes": byte_tokenizer, "bare": lambda: byte_tokenizer(bos=False), "pieces": piece_tokenizer}

    def model(kind: str, template: str | None = None) -> LanguageModel:
        if kind not in made:
            tokenizer = kinds[kind]()
            tokenizer.add_tokens(MARKS, special_tokens=True)
            made[kind] = replace(load_model(str(make_model(root / kind, "llama", tokenizer))), context=None)
        tokenizer = copy.deepcopy(made[kind].tokenizer)
        tokenizer.chat_template = None if template is None else CHAT_TEMPLATES[template]
        return replace(made[kind], tokenizer=tokenizer)

    return model


# replies -------------------------------------------------------------------------------------------------------------


def rendered(rows: list[dict[str, Any]], tokenizer: Any) -> tuple[list[dict[str, Any]], list[Ids]]:
    """The rows that TRL can render, and the ids that it gives them."""
    found = []
    for row in rows:
        with contextlib.suppress(Exception):
            found.append((row, by_trl([row], tokenizer)[0]))
    return [row for row, _ in found], [ids for _, ids in found]


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_conversations_give_the_ids_of_trl(models, template):
    """Whatever the row holds, prompt given or implied; what TRL cannot render is refused, and nothing else."""
    lm = models("bytes", template)
    rows = [
        row
        for kind in PROMPTS
        for replies in REPLIES
        for implicit in (False, True)
        for row in talks(kind, replies, implicit=implicit)
    ]
    kept, expected = rendered(rows, lm.tokenizer)
    found = tokenize_pairs(load_dataset(kept), lm, eos=True)
    assert dict(zip(found.row.tolist(), ours(found), strict=True)) == {
        at: pair for at, pair in enumerate(expected) if all(pair) and pair[1] != pair[2]
    }
    assert len(found) > 50
    for row in [row for row in rows if row not in kept][::5]:
        with pytest.raises(ModelError, match="refuses pair"):
            tokenize_pairs(load_dataset([row]), lm, eos=True)


@pytest.mark.parametrize("tokenizer", ["bare", "pieces"])
@pytest.mark.parametrize("template", ["a thought is added to the last turn", "headers, trimmed", "words and colons"])
def test_so_they_do_under_other_tokenizers(models, template, tokenizer):
    lm = models(tokenizer, template)
    for kind in ("one question", "several turns", "tool turns", "arguments"):
        rows = talks(kind, "replies", implicit=True)
        assert ours(tokenize_pairs(load_dataset(rows), lm, eos=True)) == by_trl(rows, lm.tokenizer)


TEXTS = {
    "a prompt": [
        {"prompt": "Would you eat cold rice?", "chosen": " Yes, at night.", "rejected": " No"},
        {"prompt": "Do you sing? ", "chosen": "Never loud", "rejected": "Yes</s>"},
        {"prompt": "", "chosen": " Yes", "rejected": " No"},
    ],
    "an implied prompt": [{"chosen": "Would you eat? Yes, I would", "rejected": "Would you eat? No, never"}],
    "tools that are not read": [{"prompt": "Walk?", "chosen": " Yes", "rejected": " No", "tools": "[]"}],
}


@pytest.mark.parametrize("tokenizer", ["bytes", "bare", "pieces"])
@pytest.mark.parametrize("form", TEXTS)
def test_plain_texts_give_the_ids_of_trl(models, tokenizer, form):
    lm = models(tokenizer, "chatml")
    expected = [pair for pair in by_trl(TEXTS[form], lm.tokenizer) if all(pair)]
    assert ours(tokenize_pairs(load_dataset(TEXTS[form]), lm, eos=True)) == expected


# one-token answers ---------------------------------------------------------------------------------------------------


def in_place(pair: Ids) -> tuple[tuple[int, ...], int, int] | None:
    """The one place at which TRL's two sequences differ, by one token each: what is before, and the two tokens."""
    prompt, chosen, rejected = pair
    at = next((at for at, (one, two) in enumerate(zip(chosen, rejected, strict=False)) if one != two), len(chosen))
    if chosen[at + 1 :] != rejected[at + 1 :]:
        return None
    return prompt + chosen[:at], chosen[at], rejected[at]


@pytest.mark.parametrize("tokenizer", ["bytes", "pieces"])
@pytest.mark.parametrize("template", [name for name in CHAT_TEMPLATES if name not in HIDDEN])
def test_one_token_answers_stand_where_trl_has_them(models, template, tokenizer):
    """Their prompt is all that stands before them in TRL's sequences, thought blocks and all."""
    lm = models(tokenizer, template)
    kept, expected = rendered([row for kind in PROMPTS for row in answered(kind)], lm.tokenizer)
    places = [in_place(pair) for pair in expected]
    found = tokenize_pairs(load_dataset(kept), lm)
    if None in places:  # one answer is several tokens
        assert (found.kind, tokenizer) == ("responses", "pieces")
        return
    assert found.answered is not None
    assert [(one, *two, *three) for one, two, three in ours(found)] == places
    assert {lm.tokenizer.decode([token]).strip() for token in found.answered.token_ids} == {"Yes", "No"}
    assert len(found) >= 8


@pytest.mark.parametrize("template", HIDDEN)
def test_answers_that_are_not_to_be_found_are_refused(models, template):
    """Not read somewhere else; as replies they are what TRL reads."""
    lm = models("bytes", template)
    words, why = HIDDEN[template]
    rows = answered("one question", words)
    with pytest.raises(DataError, match=rf"pair 'row:1' .*: where the answer '{words[0]}'.*{why}.*eos=True"):
        tokenize_pairs(load_dataset(rows), lm)
    assert ours(tokenize_pairs(load_dataset(rows), lm, eos=True)) == by_trl(rows, lm.tokenizer)


@pytest.mark.parametrize("template", HIDDEN)
def test_longer_replies_need_no_place(models, template):
    data = load_dataset(talks("one question", "thoughts within", implicit=False))
    assert tokenize_pairs(data, models("bytes", template)).kind == "responses"


@pytest.mark.parametrize("template", [name for name in CHAT_TEMPLATES if name not in HIDDEN])
def test_replies_and_answers_differ_by_what_the_template_writes_around(models, template):
    """Log-probabilities of the same words, read as replies and as answers: the end's, and what opens the turn."""
    lm = models("bytes", template)
    rows = answered("one question")
    data = load_dataset(rows)
    answers, replies = tokenize_pairs(data, lm), tokenize_pairs(data, lm, eos=True)
    scored = [score_pairs(lm, pairs, cache=False, progress=False) for pairs in (answers, replies)]
    for pair, ids in enumerate(ours(replies)):
        before = len(answers.prompts[answers.prompt[pair]])
        for side, response in zip(("chosen", "rejected"), ids[1:], strict=True):
            whole = torch.tensor([ids[0] + response])
            with torch.no_grad():
                logits = lm.model(whole).logits[0, :-1].double()
            each = torch.log_softmax(logits, -1).gather(1, whole[0, 1:, None])[:, 0]
            around = each[len(ids[0]) - 1 :].sum() - each[before - 1]
            difference = getattr(scored[1], side)[pair] - getattr(scored[0], side)[pair]
            assert difference == pytest.approx(float(around), abs=1e-4)


def test_what_stands_before_the_answer_is_told(models):
    (said,) = [
        text
        for text in tokenize_pairs(
            load_dataset(answered("one question")), models("bytes", "a thought is added to the last turn")
        ).warnings
        if "generation prompt" in text
    ]
    assert said.startswith(r"In 2 of 2 conversations the answer follows '<think>\n\n</think>\n\n', which the")
    (said,) = [
        text
        for text in tokenize_pairs(
            load_dataset(answered("one question")),
            models("bytes", "a thought is closed by the generation prompt alone"),
        ).warnings
        if "generation prompt" in text
    ]
    assert "the answer follows '' and without '<think></think>' there" in said
    plain = tokenize_pairs(load_dataset(answered("one question")), models("bytes", "chatml"))
    assert not [text for text in plain.warnings if "generation prompt" in text]


@pytest.mark.parametrize("template", ["chatml", "shouted"])
def test_spellings_are_offered_as_the_template_writes_them(models, template):
    """Under a template that writes capitals, only capitals are found again."""
    lm = models("bytes", template)
    data = load_dataset(answered("one question", ("NOPE", "YEAH")) + answered("several turns", ("NOPE", "YEAH")))
    with pytest.raises(TokenError, match="single tokens here: answers ") as told:
        tokenize_pairs(data, lm, strict=True)
    assert ("Yes,No" in str(told.value)) == (template == "chatml")
