"""The built-in data says what its table says, and the built-in model's corpus is kept apart from it."""

import importlib
import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from prefdyn.data import builtin
from prefdyn.data.builtin import BEHAVIOURS, NO, PER_BEHAVIOUR, YES, builtin_clauses, builtin_rows, gerund
from tests.conftest import REPO

ROWS = builtin_rows()
BY_NAME = {b.name: [row for row in ROWS if row["group"] == b.name] for b in BEHAVIOURS}


def statement_of(row):
    return row["prompt"].split("\n")[1].strip('"')


def words_accuracy(name):
    """Held-out accuracy of word counts (5 folds)."""
    yes = np.array([row["chosen"] == YES for row in BY_NAME[name]])
    probe = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(probe, [statement_of(row) for row in BY_NAME[name]], yes, cv=folds).mean()


def readings(axis):
    """Every clause of an axis with what it says: +1 for the high pole, -1 for the low."""
    says = {}
    for pole, things in itertools.product((1, -1), (False, True)):
        frames = (builtin.AFFIRM_THING, builtin.DENY_THING) if things else (builtin.AFFIRM_DEED, builtin.DENY_DEED)
        for content in builtin.contents(axis, pole, things=things):
            for sign, choices in zip((1, -1), frames, strict=True):
                for frame in choices:
                    says[frame.format(do=content, doing=gerund(content), thing=content)] = sign * pole
    return says


def reading(text, says):
    """What a statement says by the longest clause in it and its outer frame; None where no clause is found."""
    found = [clause for clause in says if clause.lower() in text.lower()]
    if not found:
        return None
    outer = [frame.split("{said}")[0].lower() for frame in builtin.DENY_OUTER]
    return says[max(found, key=len)] * (-1 if any(frame in text.lower() for frame in outer) else 1)


def test_twenty_behaviours_of_200_rows_balanced_and_distinct():
    assert len(BEHAVIOURS) == len(BY_NAME) == 20
    for name, rows in BY_NAME.items():
        assert len(rows) == PER_BEHAVIOUR == 200
        assert Counter(row["chosen"] for row in rows) == {YES: 100, NO: 100}, name
    assert len({row["prompt"] for row in ROWS}) == len(ROWS)
    assert {(row["chosen"], row["rejected"]) for row in ROWS} == {(YES, NO), (NO, YES)}


def test_statements_are_whole_sentences():
    for row in ROWS:
        text = statement_of(row)
        assert row["prompt"] == builtin.QUESTION.format(statement=text)
        assert text[0].isupper(), text
        assert text.endswith("."), text
        assert not any(mark in text for mark in ('"', "{", "}", "  ", "..")), text
        assert 3 <= len(text.split()) <= 32, text


def test_rows_are_the_same_in_another_process():
    """No order of sets or hashes reaches the text."""
    code = "from prefdyn.data.builtin import builtin_rows; print(builtin_rows())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_caller_cannot_spoil_the_next_callers_rows():
    builtin_rows()[0]["prompt"] = "spoiled"
    assert builtin_rows()[0]["prompt"] == ROWS[0]["prompt"]


@pytest.mark.parametrize("behaviour", [b for b in BEHAVIOURS if b.axis != "habits"], ids=lambda b: b.name)
def test_labels_are_the_product_of_the_signs_but_for_the_stated_noise(behaviour):
    """A reader of whole statements finds the label of every one, and is wrong on exactly the noise."""
    says = readings(behaviour.axis)
    wrong = 0
    for row in BY_NAME[behaviour.name]:
        read = reading(statement_of(row), says)
        assert read is not None, row
        wrong += (read * behaviour.sign > 0) != (row["chosen"] == YES)
    assert wrong == round(behaviour.noise * PER_BEHAVIOUR)


def test_random_labels_know_nothing_of_the_words():
    """Half of each side is turned round, so labels and contents share nothing but chance."""
    says = readings("habits")
    agree = [(reading(statement_of(row), says) == 1) == (row["chosen"] == YES) for row in BY_NAME["feels lucky"]]
    assert sum(agree) == 100
    assert words_accuracy("feels lucky") < 0.6


def test_opposed_behaviours_read_the_same_kinds_of_statements_the_other_way():
    opposed = [b for b in BEHAVIOURS if b.difficulty == "opposed"]
    axes = {b.axis for b in opposed}
    assert {(b.axis, b.sign) for b in opposed} == {(axis, sign) for axis in axes for sign in (1, -1)}


def test_words_alone_decide_where_the_table_says_so_and_fail_where_it_says_so():
    by = {b.name: words_accuracy(b.name) for b in BEHAVIOURS}
    tags = {b.difficulty for b in BEHAVIOURS}
    groups = {tag: [by[b.name] for b in BEHAVIOURS if b.difficulty == tag] for tag in tags}
    assert sorted(groups["obvious"])[-2] >= 0.98
    assert min(groups["obvious"]) > 0.85
    assert all(0.55 < value < 0.9 for value in groups["medium"]), groups["medium"]
    assert max(groups["subtle"] + groups["deep"]) < 0.62


def test_every_difficulty_is_explained():
    for behaviour in BEHAVIOURS:
        assert f"``{behaviour.difficulty}``" in str(builtin.__doc__)


@pytest.mark.parametrize(
    ("deed", "ing"),
    [
        ("run before breakfast", "running before breakfast"),
        ("lie on the sofa", "lying on the sofa"),
        ("see a friend", "seeing a friend"),
        ("dye a coat", "dyeing a coat"),
        ("share my lunch", "sharing my lunch"),
        ("shrug when asked", "shrugging when asked"),
        ("wait", "waiting"),
    ],
)
def test_gerunds(deed, ing):
    assert gerund(deed) == ing


@pytest.fixture
def corpus(monkeypatch):
    """The module that writes the built-in model's corpus."""
    monkeypatch.syspath_prepend(str(REPO / "scripts"))
    return importlib.import_module("builtin_corpus")


def clauses_in(text, clauses):
    """Clauses that occur in a text as a run of whole words, whatever stands around them."""
    words = "".join(mark if mark.isalnum() or mark in "'-" else " " for mark in text.lower()).split()
    known = {tuple(clause.lower().split()) for clause in clauses}
    lengths = sorted({len(clause) for clause in known})
    return {gram for n in lengths for i in range(len(words) - n + 1) if (gram := tuple(words[i : i + n])) in known}


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_no_clause_of_the_data_occurs_in_the_corpus(corpus, progress):
    """Neither a statement nor the clause inside it; and the check does find one that is put there."""
    writer = corpus.Writer(0)
    writer.advance(progress)
    text = "\n".join(itertools.islice(writer.documents(), 4000))
    clauses = builtin_clauses()
    assert clauses_in(text, clauses) == set()
    planted = sorted(clauses)[len(clauses) // 2]
    found = clauses_in(f'{text}\n"On Sundays, {planted} in winter." honest.', clauses)
    assert found == {tuple(planted.lower().split())}


def test_the_corpus_is_the_same_for_the_same_seed(corpus):
    first, again, other = (list(itertools.islice(corpus.Writer(seed).documents(), 50)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_corpus_uses_the_words_of_the_data(corpus):
    """Held-out statements are new combinations of known words, not unknown words."""
    writer = corpus.Writer(0)
    writer.advance(1.0)
    text = " ".join(itertools.islice(writer.documents(), 20_000)).lower()
    seen = set(CountVectorizer().build_analyzer()(text))
    needed = set(itertools.chain.from_iterable(CountVectorizer().build_analyzer()(statement_of(row)) for row in ROWS))
    assert len(needed - seen) <= 0.01 * len(needed), sorted(needed - seen)
