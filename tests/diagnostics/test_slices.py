"""Exploratory slices: their test against a naive twin, nothing where nothing is, and what is built in."""

import json
from dataclasses import replace

import numpy as np
import pytest

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.slices import adjusted, said, slices, telling_words
from prefdyn.dynamics.crossfit import crossfit
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2
from prefdyn.maths.units import mean_of
from prefdyn.report.answers import audit_text
from prefdyn.report.html import write_report
from tests.report.make_folder import make_folder

TOPICS = ("apple pear plum fruit", "goal team ball match", "river stone hill cloud")


def replies(n, *, seed=0, topics=3):
    """Replies about one of three topics, whose states lie apart; lengths and labels mean nothing."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, topics, n)
    centre = 6 * np.eye(topics, 12)[topic]
    chosen, rejected = (centre + rng.normal(size=(n, 12)) for _ in range(2))
    sizes = rng.integers(5, 60, size=(n, 2))
    feats = FeatureSet.from_arrays(
        chosen_features=chosen, rejected_features=rejected, group=["all"] * n, chosen_length=sizes[:, 0],
        rejected_length=sizes[:, 1],
    )  # fmt: skip
    feats = replace(feats, states=chosen - rejected, chosen_states=chosen)
    words = [rng.choice(TOPICS[code].split(), 4) for code in topic]
    rows = [
        {"id": name, "prompt": f"Tell me about {' '.join(said)}", "chosen": f"It is so {at}", "rejected": f"No {at}"}
        for at, (name, said) in enumerate(zip(feats.id.tolist(), words, strict=True))
    ]
    return PreferenceDataset.from_rows(rows), feats, topic


def test_differences_and_errors_are_those_of_a_naive_twin_unit_by_unit():
    rng = np.random.default_rng(1)
    unit = np.repeat(np.arange(40), 3)
    right = rng.integers(0, 2, 120).astype(float)
    right[5] = np.nan
    inside = np.stack([unit < 15, rng.random(120) < 0.4])
    effects, p = adjusted(right, unit, inside)
    known = np.isfinite(right)
    for rows, (difference, error) in zip(inside, effects, strict=True):
        one, two = right[rows & known].mean(), right[~rows & known].mean()
        assert difference == pytest.approx(one - two)
        parts = []
        for code in range(40):
            own = rows & known & (unit == code)
            other = ~rows & known & (unit == code)
            parts.append(
                (right[own] - one).sum() / (rows & known).sum() - (right[other] - two).sum() / (~rows & known).sum()
            )
        assert error == pytest.approx(np.sqrt(40 / 39 * np.sum(np.square(parts))))
    assert ((p > 0) & (p <= 1)).all()
    alone = mean_of(right[unit < 15], unit[unit < 15]).error, mean_of(right[unit >= 15], unit[unit >= 15]).error
    assert effects[0][1] == pytest.approx(np.hypot(*alone), rel=0.05)  # no unit is on both sides


def test_where_nothing_is_there_one_set_in_twenty_says_something_copies_or_not():
    """300 sets of six overlapping slices; 5 % are 15, and more than 24 are rarer than one in a hundred."""
    rng, alarms = np.random.default_rng(2), {1: 0, 4: 0}
    for copies in alarms:
        for seed in range(300):
            unit = np.repeat(np.arange(240 // copies), copies)
            right = np.repeat(rng.integers(0, 2, 240 // copies), copies).astype(float)
            inside = np.repeat(rng.random((6, 240 // copies)) < 0.4, copies, axis=1)
            alarms[copies] += bool(adjusted(right, unit, inside, draws=400, seed=seed)[1].min() <= 0.05)
    assert max(alarms.values()) <= 24
    assert min(alarms.values()) >= 4  # a test that never speaks is none


def test_a_topic_that_is_learned_worse_is_found_with_its_words_and_others_are_not():
    found_it, others = 0, 0
    for seed in range(6):
        data, feats, topic = replies(360, seed=seed)
        right = (np.random.default_rng(seed + 100).random(360) < np.where(topic == 1, 0.5, 0.85)).astype(float)
        found = slices(data, feats, right, np.arange(360), seed=seed)
        assert found is not None
        assert [each.p for each in found.slices] == sorted(each.p for each in found.slices)
        for each, members in zip(found.slices, found.members, strict=True):
            if each.p <= 0.05 and each.difference < 0 and each.words and set(each.words) <= set(TOPICS[1].split()):
                found_it += (topic[members] == 1).mean() > 0.95
            assert each.accuracy_low <= each.accuracy <= each.accuracy_high
        others += sum(each.p <= 0.05 for each in found.slices if each.kind != "topic")
        assert [len(names) for names in found.names()] == found.members.sum(axis=0).tolist()
    assert found_it == 6
    assert others <= 1


def test_which_side_was_chosen_changes_no_slice():
    """Else whatever a run learned by chance would differ between slices."""
    data, feats, _ = replies(200, seed=3)
    right = np.ones(200)
    swapped = feats.flipped(np.random.default_rng(0).random(200) < 0.5)
    one, two = (slices(data, each, right, np.arange(200)) for each in (feats, swapped))
    assert one is not None
    assert two is not None
    assert {(each.kind, each.name) for each in one.slices} == {(each.kind, each.name) for each in two.slices}
    assert np.array_equal(one.members, two.members)


def test_few_units_have_no_slices_and_words_of_one_unit_tell_nothing():
    data, feats, _ = replies(30)
    assert slices(data, feats, np.ones(30), np.arange(30)) is None
    assert slices(None, feats, np.ones(30), np.arange(30)) is None
    texts = ["odd words here"] * 50 + ["plain"] * 50
    assert telling_words(texts, np.repeat([0, 1], 50), np.zeros(100, dtype=int)) == [(), ()]


@pytest.mark.filterwarnings("error")
def test_words_that_only_a_unit_s_later_texts_have_are_not_counted():
    texts = ["red apple"] * 30 + ["green pear"] * 30 + ["plum"]
    unit = np.append(np.arange(60), 59)
    assert telling_words(texts, np.append(np.repeat([0, 1], 30), 1), unit, most=1) == [("apple",), ("green",)]
    row = {"kind": "turns", "name": "one", "p": 0.5, "accuracy": 1.0, "rest": 1.0}
    assert said([row, row]).startswith("None of 2 exploratory slices differs")


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.5], ids=["labels by lot", "learned alike everywhere"])
def test_the_whole_chain_says_nothing_where_slices_are_alike(gap):
    """Cross-fitted runs on pairs of three topics: shared fits make no slice stand out more often than aimed at."""
    assert whole_chain(gap, draws=60) <= 8  # 5 % are 3, and more than 8 are rarer than one in a hundred


def whole_chain(gap, *, draws):
    """In how many sets any slice is said to differ."""
    alarms = 0
    for seed in range(draws):
        data, feats, _ = replies(360, seed=seed)
        chosen = np.array(feats.chosen_features)
        chosen[:, 11] += gap
        feats = replace(feats, chosen_features=chosen, states=chosen - np.asarray(feats.rejected_features))
        unit = np.arange(360)
        cross = crossfit(feats, DPO(), unit, learning_rate=0.5, steps=30, seed=seed)
        found = slices(data, feats, (cross.loss < LOG2).astype(float), unit, seed=seed)
        assert found is not None
        alarms += found.slices[0].p <= 0.05
    return alarms


def test_a_page_and_the_terminal_show_them_where_there_is_one_group(tmp_path):
    folder = make_folder(tmp_path / "run", names=1)
    data, feats, topic = replies(360)
    found = slices(data, feats, (topic != 1).astype(float), np.arange(360))
    assert found is not None
    summary = json.loads((folder / "summary.json").read_text()) | {"slices": found.rows()}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = write_report(folder, tmp_path / "page.html").read_text()
    assert "exploratory, and adjusted for being many" in page
    assert all(f"topic: {', '.join(each.words)}" in page for each in found.slices if each.words)
    said = "exploratory slices, 3 differ from the rest in how often held-out pairs are right"
    assert said in page
    assert said in " ".join(audit_text(summary).split())
