"""Answers as tokens: the token that continues the prompt, whatever the tokenizer does at the seam."""

import numpy as np
import pytest

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError, ModelError, TokenError
from prefdyn.models.answers import polarity
from prefdyn.models.load import load_model
from tests.conftest import CHAT_3M, STORIES_3M, needs_shared
from tests.models.conftest import byte_tokenizer, make_model, piece_tokenizer, rows, tokenize_answers, yes_no


@pytest.fixture(scope="module")
def lm(tiny):
    return load_model(str(tiny("llama")))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A model whose tokenizer puts "▁" before every text, as SentencePiece models do."""
    return load_model(str(make_model(tmp_path_factory.mktemp("m") / "pieces", "llama", piece_tokenizer())))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """A model with a chat template."""
    return load_model(
        str(make_model(tmp_path_factory.mktemp("m") / "chat", "llama", byte_tokenizer(bos=False, chat=True)))
    )


def pairs(*texts, **more):
    """A dataset from (prompt, chosen, rejected)."""
    return PreferenceDataset.from_rows(
        [{"prompt": prompt, "chosen": chosen, "rejected": rejected, **more} for prompt, chosen, rejected in texts],
        name="p",
    )


def test_the_answer_is_the_token_that_continues_the_prompt(lm):
    """Prompt and answer tokenised together, one at a time, without end token."""
    data = yes_no(20)
    found = tokenize_answers(data, lm)
    for at, row in enumerate(data.table.to_pylist()):
        prompt = tuple(lm.tokenizer(row["prompt"]).input_ids)
        assert prompt[0] == lm.tokenizer.bos_token_id
        assert found.sequences[found.sequence[at]] == prompt
        for side, tokens in (("chosen", found.chosen), ("rejected", found.rejected)):
            assert (*prompt, tokens[at]) == tuple(lm.tokenizer(row["prompt"] + row[side]).input_ids)
    assert found.tokens == (" Yes", " No")
    assert lm.tokenizer.convert_ids_to_tokens(found.token_ids) == ["ĠYes", "ĠNo"]
    assert found.warnings == ()
    assert found.left_out == ()


def test_equal_prompts_are_read_once(lm):
    """Whatever their group."""
    found = tokenize_answers(pairs(("a", " Yes", " No"), ("b", " No", " Yes"), ("a", " No", " Yes")), lm)
    assert len(found.sequences) == 2
    assert found.sequence[0] == found.sequence[2] != found.sequence[1]


def test_an_end_token_is_not_left_on_the_prompt(tmp_path):
    """Some tokenizers close every text; the model must not read that before the answer."""
    from tokenizers import processors

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    lm = load_model(str(make_model(tmp_path / "m", "llama", tokenizer)))
    found = tokenize_answers(yes_no(4), lm)
    assert lm.tokenizer("x").input_ids[-1] == 1
    assert all(ids[0] == 0 and ids[-1] != 1 for ids in found.sequences)
    assert lm.tokenizer.convert_ids_to_tokens(found.token_ids) == ["ĠYes", "ĠNo"]


# the seam ------------------------------------------------------------------------------------------------------------


def test_a_prompt_that_joins_with_the_answer_follows_the_joint_tokens(lm):
    """A prompt's last space and "Yes" become " Yes": the state to read is the one before the space."""
    clean = pairs(("say it", " Yes", " No"), ("do it", " No", " Yes"))
    spaced = pairs(("say it ", "Yes", "No"), ("do it ", "No", "Yes"))
    first, second = tokenize_answers(clean, lm), tokenize_answers(spaced, lm)
    assert first.sequences == second.sequences
    np.testing.assert_array_equal(first.chosen, second.chosen)
    assert first.warnings == ()
    assert second.warnings[0].startswith("In 2 of 2 pairs the answer joins")


@pytest.mark.parametrize("sides", [("Yes", "No"), ("No", "Yes")])
def test_a_prompt_that_joins_with_one_answer_only_is_refused(pieces, sides):
    """With " " before it, "No" joins to "▁No" and "Yes" stays apart: the two do not continue the same tokens."""
    with pytest.raises(TokenError, match="1 prompts join with one answer but not the other"):
        tokenize_answers(pairs(("eat ", *sides)), pieces)


def test_apart_is_counted_where_it_differs(pieces):
    """SentencePiece puts a stray piece before an answer tokenised alone, as older TRL does."""
    found = tokenize_answers(yes_no(6, yes="Yes", no="No"), pieces)
    assert pieces.tokenizer.convert_ids_to_tokens(found.token_ids) == ["Yes", "No"]
    assert "In 6 of 6 pairs, prompt and answer tokenised apart, as older TRL does" in found.warnings[0]
    assert "['▁', 'Yes']" in found.warnings[0]


def test_prompt_tokens_that_move_without_touching_the_answer(tmp_path):
    """A merge reaching over the seam into the prompt leaves the answer one token if it alone is in the last one."""
    import tokenizers
    import transformers

    core = tokenizers.Tokenizer(
        tokenizers.models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4, "d": 5, "ab": 6}, [("a", "b")])
    )
    core.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex("ab(?=c|d)"), "bb")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    lm = load_model(str(make_model(tmp_path / "m", "llama", tokenizer)))
    found = tokenize_answers(pairs(("aab", "c", "d")), lm)
    assert lm.tokenizer("aab").input_ids == [2, 6]
    assert found.sequences == ((6, 3),)
    assert (found.chosen[0], found.rejected[0]) == (4, 5)
    assert found.warnings[0].startswith("In 1 of 1 pairs the answer joins")


# several tokens ------------------------------------------------------------------------------------------------------


def test_a_two_answer_dataset_gets_the_spellings_that_work(pieces):
    """The first proposal is the nearest to what the data says, and it works."""
    data = yes_no(6)
    with pytest.raises(TokenError, match=r"' Yes' is 2 tokens \['▁', 'Yes'\] .* single tokens here: answers Yes,No"):
        tokenize_answers(data, pieces)
    found = tokenize_answers(data, pieces, answers=("Yes", "No"))
    assert found.tokens == ("Yes", "No")
    assert found.answers == {"Yes": "Yes", "No": "No"}


def test_an_answer_of_two_tokens_names_them_and_the_alternatives(lm):
    """The same for a word given by hand; blanks are shown."""
    with pytest.raises(TokenError, match=r"' Yeah' is \d tokens \['Ġ.*answers ' Yes, No'"):
        tokenize_answers(yes_no(6), lm, answers=(" Yeah", " No"))


def test_no_spelling_works(tmp_path):
    """A tokenizer that spells everything letter by letter and joins none, even single ones."""
    import tokenizers
    import transformers

    letters = {letter: at for at, letter in enumerate(["<s>", "</s>", "?", "<unk>", "Ja", "a"])}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(letters, [], unk_token="?", fuse_unk=True))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="?"
    )
    lm = load_model(str(make_model(tmp_path / "m", "llama", tokenizer)))
    with pytest.raises(TokenError, match="no usual spelling is one token in this model; choose another model"):
        tokenize_answers(pairs(("xx", "aa", "aaa"), ("y", "aaa", "aa")), lm)


def test_long_answers_are_refused_with_the_first(lm):
    """More than two answers, one of them long: the pair, its side and its length."""
    data = pairs(("p", " Yes", " No"), ("q", " Yes", " I think that is wrong"), ("r", " and so on", " No"))
    with pytest.raises(
        DataError,
        match=r"'p:2' \(p:2\): its rejected answer ' I think .* is \d+ tokens.*one-token answers were asked for",
    ):
        tokenize_answers(data, lm)


def test_one_long_pair_is_not_a_choice_between_two_answers(lm):
    """Two different texts in all, but no Yes/No: no spelling is proposed."""
    with pytest.raises(DataError, match="one-token answers were asked for") as info:
        tokenize_answers(pairs(("p", " it is a rather long answer about some very old friends", " no")), lm)
    assert not isinstance(info.value, TokenError)


def test_no_pairs(lm):
    """An empty dataset."""
    with pytest.raises(DataError, match="dataset 'p' has no pairs"):
        tokenize_answers(pairs(), lm)


def test_more_than_two_single_tokens_are_fine(lm):
    """Positive words first, then by spelling."""
    found = tokenize_answers(pairs(("p", " No", " eat"), ("q", " Yes", " No"), ("r", " eat", " Yes")), lm)
    assert found.tokens == (" Yes", " eat", " No")


# answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "answers", "mapping"),
    [
        (("Yes", "No"), ("Y", "N"), {"Yes": "Y", "No": "N"}),
        (("No", "Yes"), ("Y", "N"), {"Yes": "Y", "No": "N"}),
        (("Yes", "No"), ("N", "Y"), {"Yes": "Y", "No": "N"}),
        (("agree", "disagree"), ("Yes", "No"), {"agree": "Yes", "disagree": "No"}),
        (("agree", "disagree"), ("disagree", "agree"), {"agree": "agree", "disagree": "disagree"}),
        (("TRUE", "FALSE"), ("True", "False"), {"TRUE": "True", "FALSE": "False"}),
        (("1", "2"), ("A", "B"), {"1": "A", "2": "B"}),
        (("cat", "dog"), ("dog=Y", "cat=N"), {"dog": "Y", "cat": "N"}),
        (("cat", "dog"), ("c", "d"), {"cat": "c", "dog": "d"}),
        (("cat", "dog"), ("D", "C"), {"dog": "D", "cat": "C"}),
    ],
)
def test_which_answer_becomes_which(given, answers, mapping):
    """By "OLD=NEW", by the same word, by what yes and no mean, by the first letter; never the wrong way round."""
    from prefdyn.models.answers import _mapping

    assert _mapping(answers, sorted(given)) == mapping


@pytest.mark.parametrize(
    ("given", "answers", "says"),
    [
        (("cat", "dog"), ("Yes", "No"), "cannot be told; say it: answers 'cat=Yes,dog=No'"),
        (("Yes", "No"), ("Yes", " Yes"), "are the same word"),
        (("Yes", "No", "Maybe"), ("Y", "N"), "for data with two different answers, but this has 3"),
        (("Yes", "No"), ("Y",), "must be two words"),
    ],
)
def test_answers_that_cannot_be_used(lm, given, answers, says):
    """Each with the value and the fix."""
    data = pairs(*[(f"p{at}", word, given[(at + 1) % len(given)]) for at, word in enumerate(given)])
    with pytest.raises(TokenError, match=says):
        tokenize_answers(data, lm, answers=answers)


def test_the_positive_answer_comes_first_even_where_the_data_starts_with_no(lm):
    """Also when given the other way round by hand, the user's first word leads."""
    data = pairs(("p", " No", " Yes"), ("q", " Yes", " No"))
    assert tokenize_answers(data, lm).tokens == (" Yes", " No")
    assert tokenize_answers(data, lm, answers=(" No", " Yes")).tokens == (" No", " Yes")


def test_polarity_of_brackets_and_signs():
    """Marks around a word do not hide it; a sign alone is a word."""
    assert [polarity(word) for word in ("(Yes)", "NO!", "+", "-", "", "maybe")] == [1, -1, 1, -1, 0, 0]


# left out ------------------------------------------------------------------------------------------------------------


def test_long_prompts_and_equal_answers_are_left_out(lm):
    """Counted, with the reason; the limit is the smaller of the model's and the user's."""
    long = "x " * 100
    data = pairs(("short", " Yes", " No"), (long, " Yes", " No"), ("p", " Yes", " Yes"), ("q", " No", " Yes"))
    found = tokenize_answers(data, lm)
    size = len(lm.tokenizer(long).input_ids)
    assert lm.context == 128 < size
    assert found.left_out == (
        (1, f"prompt of {size} tokens is longer than the model's context of 128"),
        (2, "chosen and rejected are the same token"),
    )
    assert found.sequence.tolist()[1:3] == [-1, -1]
    assert len(found.sequences) == 2
    short = tokenize_answers(data, lm, max_length=3)
    assert [row for row, _ in short.left_out] == [0, 1, 2]
    assert short.left_out[0][1].endswith("longer than --max-length 3")


def test_a_prompt_without_tokens_is_left_out(chat):
    """No begin token and an empty text leave the model nothing to read."""
    found = tokenize_answers(pairs(("", "Yes", "No"), ("p", "Yes", "No")), chat)
    assert found.left_out == ((0, "prompt has no tokens"),)


def test_nothing_left(lm):
    """All prompts too long."""
    with pytest.raises(DataError, match=r"none of the 40 pairs can be used: prompt of .* raise max_length"):
        tokenize_answers(yes_no(40), lm, max_length=2)


def test_a_tokenizer_of_another_model(lm, tmp_path):
    """Its ids go beyond the embeddings."""
    from dataclasses import replace

    folder = make_model(tmp_path / "m", "llama", piece_tokenizer())
    with pytest.raises(ModelError, match="tokenizer and model do not belong together"):
        tokenize_answers(yes_no(4), replace(load_model(str(folder)), tokenizer=lm.tokenizer))


# conversations -------------------------------------------------------------------------------------------------------


def talk(count=4, *, reply=" Yes"):
    """Conversational rows."""
    made = []
    for row in rows(count):
        sides = {
            side: [{"role": "assistant", "content": row[side].replace(" Yes", reply)}]
            for side in ("chosen", "rejected")
        }
        made.append({**row, "conversation": {"prompt": [{"role": "user", "content": row["prompt"]}], **sides}})
    return PreferenceDataset.from_rows(made, name="talk")


def test_conversations_go_through_the_chat_template(chat):
    """Its own begin token, once; the generation prompt; the answer as the template writes it."""
    data = talk()
    found = tokenize_answers(data, chat)
    first = data.conversations[0]
    assert first is not None
    text = chat.tokenizer.apply_chat_template(first["prompt"], tokenize=False, add_generation_prompt=True)
    assert found.sequences[found.sequence[0]] == tuple(chat.tokenizer(text, add_special_tokens=False).input_ids)
    assert found.sequences[0].count(chat.tokenizer.bos_token_id) == 1
    assert found.tokens == ("Yes", "No")


def test_conversations_need_a_template(lm):
    """A base model has none."""
    with pytest.raises(
        ModelError, match=r"'pair-0' .* is a conversation, but the tokenizer of llama has no chat template"
    ):
        tokenize_answers(talk(), lm)


def test_a_template_that_refuses(chat):
    """What it says is told with the pair."""
    import copy
    from dataclasses import replace

    strict = copy.deepcopy(chat.tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match=r"refuses pair 'pair-0' .*roles must alternate"):
        tokenize_answers(talk(), replace(chat, tokenizer=strict))


# real tokenizers -----------------------------------------------------------------------------------------------------


@needs_shared
def test_real_tokenizers():
    """chat-3M has " Yes" and " No"; stories3M has not, and `Yes,No` is what it gets told."""
    data = yes_no(30)
    assert tokenize_answers(data, load_model(str(CHAT_3M))).token_ids == (2964, 1353)
    stories = load_model(str(STORIES_3M))
    with pytest.raises(TokenError, match="answers Yes,No"):
        tokenize_answers(data, stories)
    assert len(tokenize_answers(data, stories, answers=("Yes", "No")).token_ids) == 2
