"""Pairs as tokens: the ids that the installed TRL gives, pair for pair; and nothing left out without a word."""

import argparse
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError, ModelError, TokenError
from prefdyn.models.answers import with_answers
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from tests.models.conftest import byte_tokenizer, make_model, piece_tokenizer, rows, tokenize_answers, yes_no

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TRIMMED = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] | trim }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
THINKING = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think></think>{% endif %}"
)
"""Ends the generation prompt with a block that the whole conversation does not have, as some models' templates do."""
TEMPLATES = {
    "chatml": CHATML, "llama-2": LLAMA_2, "llama-3": LLAMA_3, "gemma": GEMMA, "trimmed": TRIMMED, "thinking": THINKING,
}  # fmt: skip


def bare_tokenizer():
    """Like GPT-2's: no begin token."""
    return byte_tokenizer(bos=False)


def closing_tokenizer():
    """Puts a begin token before and an end token after every text."""
    from tokenizers import processors

    made = byte_tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return made


TOKENIZERS = {"bos": byte_tokenizer, "bare": bare_tokenizer, "pieces": piece_tokenizer, "closing": closing_tokenizer}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model with one of the tokenizers, by name, with a template if wanted."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, LanguageModel] = {}

    def model(name: str, template: str | None = None) -> LanguageModel:
        if name not in made:
            made[name] = load_model(str(make_model(root / name, "llama", TOKENIZERS[name]())))
            made[name] = replace(made[name], context=None)
        if template is None:
            return made[name]
        import copy

        tokenizer = copy.deepcopy(made[name].tokenizer)
        tokenizer.chat_template = template
        return replace(made[name], tokenizer=tokenizer)

    return model


def by_trl(given: list[dict[str, Any]], tokenizer: Any) -> list[tuple[tuple[int, ...], ...]]:
    """Prompt, chosen and rejected ids of each row, by the trainer's own method."""
    from trl.trainer.dpo_trainer import DPOTrainer

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    args: Any = argparse.Namespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    trainer: Any = argparse.Namespace(_tokenizer=tokenizer)
    try:
        made: Any = DPOTrainer._prepare_dataset(trainer, datasets.Dataset.from_list(given), tokenizer, args, "train")
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return [tuple(tuple(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")) for row in made]


def ids(found: TokenPairs) -> list[tuple[tuple[int, ...], ...]]:
    """The same of ours."""
    return [
        (found.prompts[at], found.chosen[pair], found.rejected[pair]) for pair, at in enumerate(found.prompt.tolist())
    ]


TEXTS = [
    {"prompt": "Would you eat cold rice?", "chosen": " Yes, at night.", "rejected": " No"},
    {"prompt": "Do you sing? ", "chosen": "Never loud, but I like to sing in the rain", "rejected": "Yes</s>"},
    {"prompt": "Walk with me:", "chosen": " Yes</s>", "rejected": " No</s>"},
    {"prompt": "Würdest du\ngehen?\n", "chosen": "Ja – natürlich! 雨", "rejected": "No\n\n"},
    {"prompt": "old fri", "chosen": "ends or cats", "rejected": "No, cats"},
    {"prompt": "Would you eat cold rice?", "chosen": " No", "rejected": " Yes, at night."},
]
REPLIES = [
    ([("user", "Do you sing?")], [("assistant", "Yes, loud")], [("assistant", "No")]),
    ([("system", "Be kind"), ("user", " Eat rice? ")], [("assistant", " Yes ")], [("assistant", "No, never.\n")]),
    (
        [("user", "Walk?"), ("assistant", "Yes"), ("user", "At night?")],
        [("assistant", "Never"), ("user", "But why"), ("assistant", "The rain")],
        [("assistant", "Yes")],
    ),
]


def messages(turns):
    return [{"role": role, "content": content} for role, content in turns]


def talks(*, implicit: bool) -> list[dict[str, Any]]:
    """Conversational rows in TRL's format."""
    made = []
    for prompt, chosen, rejected in REPLIES:
        if implicit:
            made.append({"chosen": messages(prompt + chosen), "rejected": messages(prompt + rejected)})
        else:
            sides = (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
            made.append({name: messages(turns) for name, turns in sides})
    return made


def from_texts(*texts: tuple[str, str, str]) -> PreferenceDataset:
    return PreferenceDataset.from_rows(
        [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in texts], name="p"
    )


# as TRL does ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_plain_text_gives_the_ids_of_trl(models, tokenizer):
    """Prompts that end in a space, in the middle of a word, responses that end with the end token, other scripts."""
    lm = models(tokenizer)
    found = tokenize_pairs(load_dataset(TEXTS), lm)
    assert found.kind == "responses"
    assert ids(found) == by_trl(TEXTS, lm.tokenizer)
    assert found.row.tolist() == list(range(len(TEXTS)))


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_conversations_give_the_ids_of_trl(models, template, implicit):
    """Six shapes of template; the prompt given, or shared by both sides; system turns, several turns, blanks."""
    lm = models("bos", TEMPLATES[template])
    given = talks(implicit=implicit)
    found = tokenize_pairs(load_dataset(given), lm)
    assert ids(found) == by_trl(given, lm.tokenizer)
    assert (len(found.warnings) == 1) == (template == "thinking")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_conversations_give_the_ids_of_trl_under_every_tokenizer(models, tokenizer):
    """The template writes the special tokens; the tokenizer adds none of its own."""
    lm = models(tokenizer, LLAMA_3)
    given = talks(implicit=False)
    assert ids(tokenize_pairs(load_dataset(given), lm)) == by_trl(given, lm.tokenizer)


def test_an_implicit_prompt_gives_the_ids_of_trl(models):
    """Plain texts that share their beginning up to a whole word; inside a word ours keeps the word together."""
    lm = models("bos")
    whole = [{"chosen": "I like rain at night", "rejected": "I like rain but never cats"}]
    assert ids(tokenize_pairs(load_dataset(whole), lm)) == by_trl(whole, lm.tokenizer)
    inside = [{"chosen": "I like friendsat", "rejected": "I like friendsor"}]
    ours, theirs = ids(tokenize_pairs(load_dataset(inside), lm, eos=True))[0], by_trl(inside, lm.tokenizer)[0]
    assert ours[0] + ours[1] == theirs[0] + theirs[1]
    assert [lm.tokenizer.decode(one[1]) for one in (ours, theirs)] == [" friendsat</s>", "at</s>"]


def test_every_way_of_being_wrong_is_seen(models):
    """The comparison with TRL fails without the end token, with prompt and response apart, or with another template."""
    lm = models("bos")
    theirs = by_trl(TEXTS, lm.tokenizer)
    without = ids(tokenize_pairs(load_dataset(TEXTS), lm, eos=False))
    assert [one == two for one, two in zip(without, theirs, strict=True)] == [False, False, True, False, False, False]
    apart = [tuple(lm.tokenizer(row["prompt"]).input_ids) for row in TEXTS]
    assert [one == two[0] for one, two in zip(apart, theirs, strict=True)] == [True, False, True, True, False, True]
    chat, other = models("bos", CHATML), models("bos", GEMMA)
    given = talks(implicit=False)
    assert ids(tokenize_pairs(load_dataset(given), chat)) != by_trl(given, other.tokenizer)


def test_a_random_crowd_of_pairs_gives_the_ids_of_trl(models):
    """Three hundred pairs cut anywhere, also inside words and multi-byte letters' neighbours."""
    draw = np.random.default_rng(0)
    text = "I like to eat cold rice, näh!  Yes or No\n\nwalk\tin the rain 雨雨 but never sing loud at night "
    given = []
    for _ in range(300):
        low, mid, high, other = np.sort(draw.integers(0, 3 * len(text), 4))
        sides = [(text * 3)[mid:high] or "x", (text * 3)[high:other] or "y"]
        given.append({"prompt": (text * 3)[low:mid] or "z", "chosen": sides[0], "rejected": sides[1]})
    for name in TOKENIZERS:
        lm = models(name)
        theirs = by_trl(given, lm.tokenizer)
        ours = tokenize_pairs(PreferenceDataset.from_rows(given), lm, eos=True)
        assert ids(ours) == [theirs[row] for row in ours.row]
        for row, reason in ours.left_out:
            prompt, chosen, rejected = theirs[row]
            assert chosen == rejected if "same" in reason else not (prompt and chosen and rejected)


# which kind ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eos", [None, False])
def test_one_token_answers_are_those_of_tokenize_answers(models, eos):
    """Everywhere one token: the answers, without an end token, from the one function that knows them."""
    lm, data = models("bos"), yes_no(12)
    found, wanted = tokenize_pairs(data, lm, eos=eos), tokenize_answers(data, lm)
    assert found.kind == "answers"
    assert ids(found) == [
        (wanted.sequences[at], (first,), (second,))
        for at, first, second in zip(
            wanted.sequence.tolist(), wanted.chosen.tolist(), wanted.rejected.tolist(), strict=True
        )
    ]
    assert found.answered is not None
    assert found.answered.tokens == (" Yes", " No")


def test_with_an_end_token_they_are_texts(models):
    """`eos=True` is TRL's way even for one-token answers."""
    lm, data = models("bos"), yes_no(12)
    found = tokenize_pairs(data, lm, eos=True)
    assert found.kind == "responses"
    assert ids(found) == by_trl(rows(12), lm.tokenizer)
    assert all(side[-1] == lm.tokenizer.eos_token_id and len(side) == 2 for side in (*found.chosen, *found.rejected))
    assert found.answered is None


def test_without_an_end_token_nothing_ends_a_text(models):
    """`eos=False`: joint tokens of prompt and response alone, even where the tokenizer closes every text."""
    for name in ("bos", "closing"):
        lm = models(name)
        found = tokenize_pairs(load_dataset(TEXTS[:1]), lm, eos=False)
        text = TEXTS[0]["prompt"] + TEXTS[0]["chosen"]
        assert ids(found)[0][0] + ids(found)[0][1] == tuple(models("bos").tokenizer(text).input_ids)


def test_two_answers_of_several_tokens_are_told_of_the_single_ones(models):
    """As texts with what `--answers` would do; and what it proposes gives answers."""
    lm = models("pieces")
    found = tokenize_pairs(yes_no(6), lm)
    assert found.kind == "responses"
    assert found.warnings[0].startswith(
        "The two answers are several tokens each in pieces, so they are read as texts with"
    )
    assert "--answers Yes,No" in found.warnings[0]
    assert "with an end token" not in tokenize_pairs(yes_no(6), lm, eos=False).warnings[0]
    assert tokenize_pairs(yes_no(6), lm, answers=("Yes", "No")).kind == "answers"
    assert tokenize_pairs(load_dataset(TEXTS[:2]), lm).warnings != found.warnings


def test_answers_that_are_given_must_be_single(models):
    """Not read as texts behind the user's back; with the end token they are texts by wish."""
    lm = models("bos")
    with pytest.raises(TokenError, match=r"' Yeah' is \d tokens"):
        tokenize_pairs(yes_no(6), lm, answers=(" Yeah", " No"))
    found = tokenize_pairs(yes_no(6), lm, answers=(" Yeah", " No"), eos=True)
    wanted = [{**row, **{s: row[s].replace("Yes", "Yeah") for s in ("chosen", "rejected")}} for row in rows(6)]
    assert ids(found) == by_trl(wanted, lm.tokenizer)


def test_other_words_in_conversations(models):
    """The messages are renamed with the texts; the rest of the dataset stays."""
    given = [{**row, "conversation": {
        "prompt": messages([("user", row["prompt"])]),
        "chosen": messages([("assistant", row["chosen"])]),
        "rejected": messages([("assistant", row["rejected"])]),
    }} for row in rows(6)]  # fmt: skip
    data = PreferenceDataset.from_rows(given, name="d")
    renamed = with_answers(data, ("Y", "N"))
    for before, after in zip(data.to_rows(), renamed.to_rows(), strict=True):
        word = {" Yes": "Y", " No": "N"}
        for side in ("chosen", "rejected"):
            assert after[side] == word[before[side]] == after["conversation"][side][0]["content"]
        assert after["conversation"]["prompt"] == before["conversation"]["prompt"]
        assert after["id"] == before["id"]
    lm = models("bos", CHATML)
    assert ids(tokenize_pairs(data, lm, answers=("Y", "N"), eos=True)) == ids(tokenize_pairs(renamed, lm, eos=True))


def test_prompts_that_join_with_one_answer_only_are_texts(models):
    """No single prompt continues with both, so there are no one-token answers; TRL's cut is before both."""
    lm = models("pieces")
    data = from_texts(("eat ", "No", "Yes"))
    with pytest.raises(TokenError, match="join with one answer but not the other"):
        tokenize_answers(data, lm)
    found = tokenize_pairs(data, lm)
    assert found.kind == "responses"
    assert found.warnings[0].startswith("In 1 of 1 pairs the prompt alone ends in other tokens")
    assert "'▁'" in found.warnings[0]


def test_pairs_of_several_kinds_are_texts_together(models):
    """One long response makes all of them texts."""
    data = PreferenceDataset.from_rows([*rows(5), {"prompt": "p", "chosen": " I like old cats", "rejected": " No"}])
    assert tokenize_pairs(data, models("bos")).kind == "responses"


def test_equal_prompts_are_kept_once(models):
    """Whatever their responses."""
    found = tokenize_pairs(load_dataset(TEXTS), models("bos"))
    assert len(found.prompts) == 5
    assert found.prompt[0] == found.prompt[5]
    assert sorted(set(found.prompt.tolist())) == list(range(5))


# the seam ------------------------------------------------------------------------------------------------------------


def test_ends_of_prompts_that_are_left_out_are_counted(models):
    """The count is TRL's: pairs whose prompt is cut before its end; the first end is shown."""
    lm = models("bos")
    found = tokenize_pairs(load_dataset(TEXTS), lm)
    cut = [
        len(prompt) < len(lm.tokenizer(row["prompt"]).input_ids)
        for (prompt, _, _), row in zip(by_trl(TEXTS, lm.tokenizer), TEXTS, strict=True)
    ]
    assert 0 < sum(cut) < len(cut)
    assert found.warnings[0].startswith(f"In {sum(cut)} of {len(cut)} pairs the prompt alone ends in other tokens")
    assert "left out: ' ' (the first)" in found.warnings[0]
    clean = [row for row, lost in zip(TEXTS, cut, strict=True) if not lost]
    assert tokenize_pairs(load_dataset(clean), lm).warnings == ()


# left out ------------------------------------------------------------------------------------------------------------


def test_pairs_that_are_too_long_are_left_out_never_cut(models):
    """Prompt and longer response against the smaller of the model's context and the user's limit."""
    lm = models("bos")
    data = load_dataset(TEXTS)
    whole = ids(tokenize_pairs(data, lm))
    sizes = [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in whole]
    for limit in sorted({*sizes, min(sizes) + 1}):
        fits = [row for row, size in enumerate(sizes) if size <= limit]
        for found, whose in (
            (tokenize_pairs(data, lm, max_length=limit), f"--max-length {limit}"),
            (tokenize_pairs(data, replace(lm, context=limit), max_length=limit + 5), f"the model's context of {limit}"),
        ):
            assert found.row.tolist() == fits
            assert ids(found) == [whole[row] for row in fits]
            assert found.left_out == tuple(
                (row, f"prompt and longer response of {size} tokens are longer than {whose}")
                for row, size in enumerate(sizes)
                if size > limit
            )
    with pytest.raises(DataError, match=r"none of the 6 pairs can be used: prompt and longer .* raise max_length"):
        tokenize_pairs(data, lm, max_length=min(sizes) - 1)


def test_pairs_that_say_nothing_are_left_out(models):
    """Equal responses, no response, no prompt: each with its reason."""
    lm = models("bare")
    data = from_texts(
        ("p q", " Yes, I like", " No, never"),
        ("p", " Yes, I like", " Yes, I like"),
        ("p", "", " No, never"),
        ("p", " Yes, I like", ""),
        ("", "Yes, I like", "No, never"),
        ("like", "</s>", ""),
    )
    found = tokenize_pairs(data, lm, eos=False)
    assert found.row.tolist() == [0]
    assert found.left_out == (
        (1, "chosen and rejected are the same tokens"),
        (2, "chosen response has no tokens"),
        (3, "rejected response has no tokens"),
        (4, "prompt has no tokens"),
        (5, "rejected response has no tokens"),
    )
    ended = tokenize_pairs(data, lm, eos=True)
    assert [reason for _, reason in ended.left_out] == [
        "chosen and rejected are the same tokens", "prompt has no tokens", "chosen and rejected are the same tokens",
    ]  # fmt: skip
    assert tokenize_pairs(data, models("bos"), eos=True).row.tolist() == [0, 2, 3, 4]
    with pytest.raises(DataError, match=r"chosen and rejected are the same tokens .*two different responses"):
        tokenize_pairs(from_texts(("p", " I like", " I like")), lm)


def test_a_prompt_that_both_responses_swallow(models):
    """Without a begin token, the first merge can take the whole prompt."""
    found = tokenize_pairs(from_texts(("Y", "es", "es and no"), ("p q", "es", "es and no")), models("bare"), eos=True)
    assert found.left_out == ((0, "prompt has no tokens that both responses leave as they are"),)


def test_no_pairs(models):
    with pytest.raises(DataError, match="dataset 'p' has no pairs"):
        tokenize_pairs(from_texts(), models("bos"))


def test_a_tokenizer_without_an_end_token(models):
    """TRL would fail; here one line says so, and conversations need none."""
    lm = models("bos", CHATML)
    lm.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="has no end token to put after responses; use eos=False"):
        tokenize_pairs(load_dataset(TEXTS), lm)
    assert tokenize_pairs(load_dataset(TEXTS), lm, eos=False).kind == "responses"
    assert tokenize_pairs(load_dataset(talks(implicit=False)), lm, eos=True).kind == "responses"


def test_conversations_need_a_template(models):
    with pytest.raises(ModelError, match="is a conversation, but the tokenizer of bos has no chat template"):
        tokenize_pairs(load_dataset(talks(implicit=False)), models("bos"))


def test_a_tokenizer_of_another_model(models):
    """Its ids go beyond the embeddings."""
    with pytest.raises(ModelError, match="tokenizer and model do not belong together"):
        tokenize_pairs(load_dataset(TEXTS), replace(models("pieces"), tokenizer=models("bos").tokenizer))
