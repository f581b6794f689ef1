"""The built-in replies are chosen for what their groups say, and for nothing else that can be counted."""

import functools
import itertools
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from prefdyn.data import builtin_responses as module
from prefdyn.data.builtin import AXES, SITUATIONS, contents, gerund
from prefdyn.data.builtin_responses import (
    ADVISE_DEED,
    ADVISE_THING,
    ASIDES,
    ASK_DEED,
    ASK_THING,
    CLOSERS,
    CURT,
    GROUPS,
    NEAR,
    OPENERS,
    PAIRS,
    PAIRS_AGAINST,
    PAIRS_STYLE,
    SENTENCES,
    STYLE_STRENGTH,
    WARM,
    builtin_responses,
    spoken_to,
)
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.wording import word_weights, wording
from prefdyn.errors import ConfigError
from prefdyn.models.load import load_model
from prefdyn.models.token_pairs import tokenize_pairs
from scripts.builtin_corpus import Writer
from tests.data.test_builtin import clauses_in

SEEDS = range(10)
ROWS = builtin_responses()
SIDES = ("chosen", "rejected")


@functools.cache
def sets():
    return [builtin_responses(seed) for seed in SEEDS]


def by_group(rows):
    return {group.name: group for group in wording(PreferenceDataset.from_rows(rows)).groups}


@functools.cache
def wordings():
    return [by_group(rows) for rows in sets()]


def rows_of(name, rows=ROWS):
    return [row for row in rows if row["group"] == name]


def words_in(text):
    return re.findall(r"\w+", text.lower())


def sentences(text):
    return text.strip().removesuffix(".").split(". ")


def styles(text):
    """The style of every opener, aside and closer of a reply, in this order, and its advice without them."""
    found, plain = [], []
    for said in sentences(text):
        known = [style for style in (WARM, CURT) if f"{said}." in OPENERS[style] + CLOSERS[style]]
        for style in (WARM, CURT):
            known += [style for aside in ASIDES[style] if said.endswith(f", {aside}")]
        assert len(known) <= 1, said
        found += known
        if f"{said}." not in {*itertools.chain(*OPENERS, *CLOSERS)}:
            plain.append(said.rpartition(", ")[0] if known else said)
    return found, plain


def all_contents(topic):
    return [(words, thing) for thing in (False, True) for words in contents(topic, 1, things=thing)]


# what there is -------------------------------------------------------------------------------------------------------


def test_four_groups_of_the_stated_sizes():
    assert Counter(row["group"] for row in ROWS) == {"style": 300, "length": 200, "random": 200, "against": 120}
    assert (PAIRS_STYLE, PAIRS, PAIRS_AGAINST) == (300, 200, 120)
    for row in ROWS:
        assert list(row) == ["prompt", "chosen", "rejected", "group"]


def test_every_group_is_explained():
    for group in GROUPS:
        assert f"``{group.name}``" in str(module.__doc__)


def test_topics_are_traits_and_belong_to_one_group_each():
    topics = [topic for group in GROUPS for topic in group.topics]
    assert len(topics) == len(set(topics))
    assert set(topics) <= set(AXES)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_prompt_occurs_twice_and_no_reply_twice_in_a_pair(seed):
    rows = sets()[seed]
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_texts_are_whole_sentences():
    for row in ROWS:
        assert re.fullmatch(r"[A-Z][^.?]*[.?]( [A-Z][^.?]*\?)?", row["prompt"]), row
        for side in SIDES:
            assert re.fullmatch(r"( [A-Z][^.?]*\.){1,5}", row[side]), row
        text = "\n".join(row.values())
        assert not any(mark in text for mark in ('"', "{", "}", "  ", ",,", " ,")), row


def test_advice_does_not_speak_of_the_one_who_gives_it():
    """Nothing of the first person is left, whichever deed, thing or situation is drawn."""
    own = {"i", "me", "my", "mine", "myself", "am", "our", "we", "us"}
    topics = [topic for group in GROUPS for topic in group.topics]
    drawn = [words for topic in topics for words, _ in all_contents(topic)] + list(SITUATIONS)
    assert any(own & set(words_in(words)) for words in drawn)
    for words in drawn:
        said = spoken_to(words)
        assert not own & set(words_in(said)), said


def test_replies_do_not_advise_what_they_were_asked_about():
    for group in GROUPS:
        known = {words: {words, gerund(words)} for topic in group.topics for words, _ in all_contents(topic)}
        for row in rows_of(group.name):
            asked = max((w for w, forms in known.items() if any(form in row["prompt"] for form in forms)), key=len)
            for said in itertools.chain(*(styles(row[side])[1] for side in SIDES)):
                assert not any(spoken_to(form) in said for form in known[asked]), row


def test_the_same_seed_gives_the_same_texts_in_another_process_and_other_seeds_give_others():
    """No order of sets or hashes reaches the text."""
    code = "from prefdyn.data.builtin_responses import builtin_responses; print(builtin_responses())"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    }
    assert printed == {f"{builtin_responses()}\n"}
    for one, two in itertools.combinations(sets(), 2):
        replies = [
            {row[side] for row in rows for side in SIDES if len(sentences(row[side])) > 2} for rows in (one, two)
        ]
        assert not replies[0] & replies[1]


def test_a_caller_cannot_spoil_the_next_callers_rows():
    builtin_responses()[0]["prompt"] = "spoiled"
    assert builtin_responses()[0]["prompt"] == ROWS[0]["prompt"]


def test_a_seed_below_zero_is_refused():
    with pytest.raises(ConfigError, match="seed"):
        builtin_responses(-1)


def test_the_loader_gives_the_rows_of_seed_zero_alone_and_beside_the_other_set():
    data = load_dataset("builtin:responses")
    assert [(row["prompt"], row["chosen"], row["rejected"], row["group"]) for row in data.to_rows()] == [
        tuple(row.values()) for row in ROWS
    ]
    assert data.table["id"].to_pylist()[:2] == ["responses:1", "responses:2"]
    both = load_dataset(["builtin", "builtin:responses"])
    assert both.groups == (*load_dataset("builtin").groups, *data.groups)


# style and length ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phrases", [OPENERS, ASIDES, CLOSERS], ids=["openers", "asides", "closers"])
def test_both_styles_have_phrases_of_the_same_lengths(phrases):
    """So that the lengths of warm and curt replies have one distribution, whatever is drawn."""
    warm, curt = phrases
    assert len(set(warm)) == len(set(curt)) == len(warm) >= 20
    assert not set(warm) & set(curt)
    lengths = [Counter((len(phrase.split()), len(phrase)) for phrase in side) for side in (warm, curt)]
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("group", ["style", "against"])
def test_phrases_are_in_the_style_of_their_reply_as_often_as_stated(group):
    """Within four standard deviations of a share; every reply has one phrase of each kind that it has room for."""
    own, count = 0, 0
    for row in itertools.chain(*(rows_of(group, rows) for rows in sets())):
        for side in SIDES:
            found, advice = styles(row[side])
            assert len(found) == min(len(sentences(row[side])), 3)
            assert len(advice) == max(len(sentences(row[side])) - 2, 1)
            style = WARM if (side == "chosen") == (group == "style") else CURT
            own += found.count(style)
            count += len(found)
    assert abs(own - STYLE_STRENGTH * count) < 4 * np.sqrt(count * STYLE_STRENGTH * (1 - STYLE_STRENGTH))


@pytest.mark.parametrize("group", ["length", "random"])
def test_styles_come_in_turn_where_they_are_not_what_is_chosen(group):
    """Of the replies that open with a style, as many are warm among the chosen as among the rejected, but for noise."""
    rows = list(itertools.chain(*(rows_of(group, rows) for rows in sets())))
    for side in SIDES:
        warm = sum(styles(row[side])[0][0] == WARM for row in rows)
        assert abs(warm - len(rows) / 2) < 4 * np.sqrt(len(rows) * STYLE_STRENGTH * (1 - STYLE_STRENGTH))


def test_sentences_are_as_many_as_the_groups_say():
    counts = {
        group.name: [
            tuple(len(sentences(row[side])) for side in SIDES) for rows in sets() for row in rows_of(group.name, rows)
        ]
        for group in GROUPS
    }
    every = set(range(1, SENTENCES + 1))
    for name in ("style", "against"):
        assert all(chosen == rejected for chosen, rejected in counts[name])
        assert {chosen for chosen, _ in counts[name]} == every
    assert set(counts["length"]) == {(3, 1), (4, 1), (4, 2), (5, 2)}
    assert Counter(counts["random"]) == dict.fromkeys(itertools.product(every, every), PAIRS * len(sets()) // 25)


def test_matched_lengths_differ_by_a_few_words_and_to_both_sides_alike():
    """Paired t statistics of characters and words of every seed and of all seeds, and as many longer as shorter."""
    pooled = []
    for rows in sets():
        pairs = [[row["chosen"], row["rejected"]] for row in rows_of("style", rows) + rows_of("against", rows)]
        apart = np.array([[len(won) - len(lost), len(won.split()) - len(lost.split())] for won, lost in pairs])
        assert np.abs(apart[:, 1]).max() <= NEAR
        assert np.abs(apart.mean(axis=0) / apart.std(axis=0, ddof=1) * np.sqrt(len(apart))).max() < 3.5
        pooled.append(apart)
    apart = np.concatenate(pooled)
    assert apart.std(axis=0).min() > 1
    assert np.abs(apart.mean(axis=0) / apart.std(axis=0, ddof=1) * np.sqrt(len(apart))).max() < 3
    above, below = (apart > 0).sum(axis=0), (apart < 0).sum(axis=0)
    assert (np.abs(above - below) < 3 * np.sqrt(above + below)).all()


# what words and lengths give away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["style", "against"])
def test_words_tell_the_style_and_lengths_do_not(name):
    """In the set that users get the interval of length holds one half; it reaches down to it in 9 of 10 seeds."""
    assert all(found[name].words_accuracy >= 0.9 for found in wordings())
    assert wordings()[0][name].length_interval[0] <= 0.5 <= wordings()[0][name].length_interval[1]
    assert sum(found[name].length_interval[0] <= 0.5 for found in wordings()) >= 9


@pytest.mark.parametrize("name", ["style", "against"])
def test_no_single_word_tells_the_style(name):
    """The best word, counted in both replies and left to chance where it is in both as often, is right on few pairs."""
    score = Counter()
    for row in rows_of(name):
        won, lost = (Counter(words_in(row[side])) for side in SIDES)
        for word in won.keys() | lost.keys():
            score[word] += int(np.sign(won[word] - lost[word]))
    assert 0.5 + max(map(abs, score.values())) / len(rows_of(name)) / 2 <= 0.7


def transferred(learned, asked):
    """Accuracy on some pairs of word weights that were fitted to others."""
    rows = learned + asked
    both = word_weights([row["chosen"] for row in rows] + [row["rejected"] for row in rows])
    words = both[: len(rows)] - both[len(rows) :]
    fitted = Ridge(alpha=1.0, fit_intercept=False).fit(words[: len(learned)], np.ones(len(learned)))
    return np.mean(fitted.predict(words[len(learned) :]) > 0)


def test_the_advice_alone_does_not_tell_what_is_chosen_for_its_style():
    """Without openers, asides and closers, words learned from five seeds are at chance on five others.

    As a check of the check, the same with them is nearly always right.
    """
    whole = [list(itertools.chain(*(rows_of("style", rows) for rows in half))) for half in (sets()[:5], sets()[5:])]
    bare = [[{**row, **{side: " ".join(styles(row[side])[1]) for side in SIDES}} for row in half] for half in whole]
    assert abs(transferred(*bare) - 0.5) < 3 * np.sqrt(0.25 / len(bare[1]))
    assert transferred(*whole) > 0.95


def test_words_learned_where_warm_is_chosen_are_wrong_where_curt_is_chosen():
    assert transferred(rows_of("style"), rows_of("against")) <= 0.2


def test_length_tells_what_is_chosen_for_its_length():
    assert all(found["length"].length_accuracy >= 0.95 for found in wordings())


def test_neither_words_nor_lengths_tell_what_is_chosen_at_random():
    """The intervals reach down to one half in at least 9 of 10 seeds, and no mean over the seeds is above it."""
    found = [groups["random"] for groups in wordings()]
    assert sum(group.words_interval[0] <= 0.5 for group in found) >= 9
    assert sum(group.length_interval[0] <= 0.5 for group in found) >= 9
    above = 0.5 + 3 * np.sqrt(0.25 / (PAIRS * len(sets())))
    assert np.mean([group.words_accuracy for group in found]) < above
    assert np.mean([group.length_accuracy for group in found]) < above


def test_the_style_strength_is_what_makes_the_style_learnable(monkeypatch):
    """With phrases of both styles alike in every reply nothing is left to learn."""
    monkeypatch.setattr(module, "STYLE_STRENGTH", 0.5)
    assert by_group(builtin_responses())["style"].words_interval[0] <= 0.5


# the built-in model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus():
    """A sample of the built-in model's corpus, from its easy beginning to its hard end."""
    texts = []
    for progress in (0.0, 0.5, 1.0):
        writer = Writer(0)
        writer.advance(progress)
        texts += itertools.islice(writer.documents(), 4000)
    return "\n".join(texts)


def test_no_clause_occurs_in_the_texts_of_the_built_in_model(corpus):
    """Neither a deed or thing in any frame of a question or of advice; and the check finds one that is put there."""
    clauses = set()
    for topic in itertools.chain(*(group.topics for group in GROUPS)):
        for words, thing in all_contents(topic):
            for frame in ASK_THING if thing else ASK_DEED:
                clauses.add(re.split(r"[.?]", frame.format(do=words, doing=gerund(words), thing=words))[0])
            said = spoken_to(words)
            for frame in ADVISE_THING if thing else ADVISE_DEED:
                clauses.add(frame.format(do=said, doing=gerund(said), thing=said))
    used = {said.lower() for row in ROWS for side in SIDES for said in styles(row[side])[1]}
    assert all(any(clause.lower() in said for clause in clauses) for said in used)
    assert clauses_in(corpus, clauses) == set()
    planted = sorted(clauses)[len(clauses) // 2]
    assert clauses_in(f'{corpus}\n"On Sundays, {planted}." honest.', clauses) == {tuple(planted.lower().split())}


def test_nearly_all_words_occur_in_the_texts_of_the_built_in_model(corpus):
    seen = set(words_in(corpus))
    replies = [word for row in ROWS for side in SIDES for word in words_in(row[side])]
    assert np.mean([word in seen for word in replies]) > 0.9


@pytest.fixture(scope="module")
def lm():
    return load_model("builtin", device="cpu")


def test_every_reply_has_between_5_and_60_tokens_and_none_unknown(lm):
    """The end token counts; and the tokens spell the texts, which they could not with an unknown one among them."""
    data = load_dataset("builtin:responses")
    tokens = tokenize_pairs(data, lm)
    assert tokens.kind == "responses"
    assert len(tokens) == len(data)
    assert lm.tokenizer.unk_token_id is None
    for side, ids in (("chosen", tokens.chosen), ("rejected", tokens.rejected)):
        assert all(5 <= len(each) <= 60 for each in ids)
        assert [lm.tokenizer.decode(each, skip_special_tokens=True) for each in ids] == [row[side] for row in ROWS]
