"""What words, length and the reference give away: planted signs are found, noise is not, copies do not leak."""

import gzip
import json
import math

import numpy as np
import pytest

from prefdyn._random import stream
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.probe import PENALTIES, assign_folds
from prefdyn.diagnostics.wording import reference_gaps, text_lengths, word_weights, wording
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from tests.conftest import PERSONA, needs_shared
from tests.naive import diagnostics as naive

WORDS = [f"word{i}" for i in range(80)]


def sentences(count, seed, length=8):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(count)]


def yes_no(prompts, positive, group="g"):
    return PreferenceDataset.from_rows(
        {
            "prompt": prompt,
            "chosen": " Yes" if yes else " No",
            "rejected": " No" if yes else " Yes",
            "group": group,
            "id": f"{group}{place}",
        }
        for place, (prompt, yes) in enumerate(zip(prompts, positive, strict=True))
    )


def free(chosen, rejected, prompts=None):
    prompts = prompts or [f"ask {i}" for i in range(len(chosen))]
    return PreferenceDataset.from_rows(
        {"prompt": p, "chosen": c, "rejected": r} for p, c, r in zip(prompts, chosen, rejected, strict=True)
    )


def test_a_telling_word_is_found_and_length_is_not():
    positive = np.arange(200) % 2 == 0
    prompts = [f"{s} {'alpha' if yes else 'omega'}" for s, yes in zip(sentences(200, 0), positive, strict=True)]
    found = wording(yes_no(prompts, positive)).groups[0]
    assert found.words_accuracy > 0.97
    assert found.words_interval[0] > 0.9
    assert found.length_interval[0] < 0.55
    assert found.chance == 0.5


def test_word_order_is_seen_through_neighbouring_words():
    rng = np.random.default_rng(0)
    positive = np.arange(300) % 2 == 0
    prompts = [f"{rng.choice(WORDS)} {'do not' if yes else 'not do'} {rng.choice(WORDS)}" for yes in positive]
    assert wording(yes_no(prompts, positive)).groups[0].words_accuracy > 0.95


def test_length_is_found():
    positive = np.arange(200) % 2 == 0
    rng = np.random.default_rng(1)
    prompts = [" ".join(rng.choice(WORDS, 12 if yes else 5)) for yes in positive]
    found = wording(yes_no(prompts, positive)).groups[0]
    assert found.length_accuracy > 0.97


def test_labels_that_mean_nothing_are_at_chance():
    found = [
        wording(yes_no(sentences(150, seed), np.random.default_rng(seed + 100).random(150) < 0.5)).groups[0]
        for seed in range(8)
    ]
    assert np.mean([g.words_accuracy for g in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([g.length_accuracy for g in found]) == pytest.approx(0.5, abs=0.06)
    assert sum(g.words_interval[0] > g.chance for g in found) <= 1


def test_copies_of_a_prompt_do_not_leak():
    prompts = sentences(60, 3)
    labels = np.random.default_rng(4).random(60) < 0.5
    found = wording(yes_no(prompts * 4, np.tile(labels, 4))).groups[0]
    assert found.words_accuracy < 0.68


def test_flipping_every_label_changes_nothing():
    positive = np.random.default_rng(5).random(90) < 0.4
    prompts = [f"{s} {'alpha' if yes else ''}" for s, yes in zip(sentences(90, 5), positive, strict=True)]
    data = yes_no(prompts, positive)
    assert wording(data).rows() == wording(data.flipped()).rows()


def test_responses_are_told_apart_by_their_own_words_and_length():
    chosen = [f"{s} sorry" for s in sentences(120, 6)]
    rejected = sentences(120, 7)
    found = wording(free(chosen, rejected)).groups[0]
    assert found.words_accuracy > 0.9
    assert found.length_accuracy > 0.97  # one word more, always
    assert found.chance == 0.5
    noise = wording(free(sentences(200, 8), sentences(200, 9))).groups[0]
    assert noise.words_interval[0] < 0.5 < noise.words_interval[1]


def test_swapping_sides_of_responses_changes_nothing():
    data = free([f"{s} sorry" for s in sentences(60, 6)], sentences(60, 7))
    first, second = wording(data).groups[0], wording(data.flipped()).groups[0]
    assert first.words_accuracy == pytest.approx(second.words_accuracy)
    assert first.length_accuracy == pytest.approx(second.length_accuracy)


def test_responses_of_equal_words_and_length_score_one_half():
    texts = sentences(40, 1)
    backwards = [" ".join(reversed(t.split())) for t in texts]
    found = wording(free(texts, backwards)).groups[0]
    assert found.length_accuracy == 0.5


def referenced(data, chosen_logps, rejected_logps, lengths=None):
    n = len(data)
    chosen_length, rejected_length = (np.full(n, 4), np.full(n, 4)) if lengths is None else lengths
    return FeatureSet.from_arrays(
        chosen_features=np.ones((n, 1)),
        rejected_features=np.zeros((n, 1)),
        group=data.table["group"].to_pylist(),
        id=data.table["id"].to_pylist(),
        ref_chosen_logps=chosen_logps,
        ref_rejected_logps=rejected_logps,
        chosen_length=chosen_length,
        rejected_length=rejected_length,
    )


def test_a_reference_that_prefers_the_chosen_is_found_and_one_that_does_not_care_is_not():
    data = free(sentences(200, 8), sentences(200, 9))
    rng = np.random.default_rng(0)
    won, lost = rng.normal(-40, 4, (2, 200))
    telling = wording(data, referenced(data, np.maximum(won, lost) + 1, np.minimum(won, lost) - 1)).groups[0]
    assert telling.reference_accuracy > 0.97
    assert telling.reference_interval[0] > 0.9
    noise = wording(data, referenced(data, won, lost)).groups[0]
    assert noise.reference_interval[0] < 0.5 < noise.reference_interval[1]
    assert (noise.words_accuracy, noise.length_accuracy) == (telling.words_accuracy, telling.length_accuracy)


def test_a_reference_that_prefers_per_token_only_is_found():
    """Equal in all, so that the difference is 0 everywhere, but chosen has more tokens and so more for each."""
    data = free(sentences(120, 8), sentences(120, 9))
    total = np.random.default_rng(1).normal(-60, 5, 120)
    found = wording(data, referenced(data, total, total, (np.full(120, 9), np.full(120, 6)))).groups[0]
    assert found.reference_accuracy == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_the_references_accuracy_equals_the_explicit_twin_on_the_same_folds(seed):
    data = free(sentences(60, seed), sentences(60, seed + 50), prompts=[f"ask {i // 2}" for i in range(60)])
    rng = np.random.default_rng(seed)
    won, lost = rng.normal(-40, 4, 60), rng.normal(-42, 4, 60)
    lengths = rng.integers(1, 20, (2, 60))
    fold = assign_folds(np.arange(60) // 2, np.ones(60, dtype=bool), 5, stream(0, "wording folds", "all"))
    columns = np.array([[w - r, w / a - r / b] for w, r, a, b in zip(won, lost, *lengths, strict=True)])
    expected, _ = naive.probe(columns, np.ones(60), fold, PENALTIES, False)
    feats = referenced(data, won, lost, lengths)
    gaps = reference_gaps(feats)
    assert gaps is not None
    np.testing.assert_allclose(gaps, columns)
    found = wording(data, feats).groups[0]
    assert found.reference_accuracy == pytest.approx(expected, abs=1e-12)
    flipped = wording(data.flipped(), referenced(data, lost, won, lengths[::-1])).groups[0]
    assert flipped.reference_accuracy == pytest.approx(expected, abs=1e-12)


def test_every_group_and_sample_takes_the_reference_of_its_own_pairs():
    """Every third pair, and only those, is one that the reference prefers."""
    texts = zip(sentences(240, 1), sentences(240, 2), strict=True)
    data = PreferenceDataset.from_rows(
        {"prompt": f"ask {i}", "chosen": c, "rejected": r, "group": "told" if i % 3 == 1 else "open"}
        for i, (c, r) in enumerate(texts)
    )
    gap = np.where(np.arange(240) % 3 == 1, 3.0, np.random.default_rng(2).normal(0, 3, 240))
    feats = referenced(data, np.full(240, -40.0), -40 - gap)
    for limit in (1000, 50):
        untold, told = wording(data, feats, limit=limit).groups
        assert (told.name, told.reference_accuracy) == ("told", 1.0)
        assert untold.reference_accuracy < 0.7


def test_without_a_reference_its_accuracy_is_unknown():
    data = free(sentences(40, 8), sentences(40, 9))
    unknown = FeatureSet.from_arrays(
        chosen_features=np.ones((40, 1)), rejected_features=np.zeros((40, 1)), id=data.table["id"].to_pylist()
    )
    positive = np.arange(40) % 2 == 0
    two_answers = yes_no(sentences(40, 0), positive)
    answers = FeatureSet.from_arrays(
        np.ones((40, 1)),
        chosen=np.where(positive, " Yes", " No"),
        rejected=np.where(positive, " No", " Yes"),
        id=two_answers.table["id"].to_pylist(),
        ref_chosen_logps=np.full(40, -0.5),
        ref_rejected_logps=np.full(40, -2.5),
    )
    for found in (wording(data), wording(data, unknown), wording(two_answers, answers)):
        row = found.rows()[0]
        assert row["words_accuracy"] is not None
        assert [row[f"reference_{name}"] for name in ("accuracy", "low", "high")] == [None] * 3
    assert {"reference_accuracy", "reference_low", "reference_high"} <= set(wording(data).rows()[0])


def test_features_of_other_pairs_are_refused_by_the_first_id_that_differs():
    data = free(sentences(6, 8), sentences(6, 9))
    feats = referenced(data, np.full(6, -3.0), np.full(6, -4.0))
    order = [0, 1, 3, 2, 4, 5]
    with pytest.raises(DataError, match=r"row 2: the id is 'rows:3' in the data but 'rows:4' in the features"):
        wording(data, feats.select(order))
    with pytest.raises(DataError, match=r"row 5: the id is 'rows:6' in the data but None in the features \(None: no"):
        wording(data, feats.select(slice(5)))
    with pytest.raises(
        DataError, match=r"row 4: the id is None in the data but 'rows:5' .*data.select\(ids=feats.id\)"
    ):
        wording(data.select(ids=feats.id[:4]), feats)
    assert wording(data.select(ids=feats.id[:4]), feats.select(slice(4))).groups[0].pairs == 4


def test_unspaced_scripts_are_read_character_by_character():
    weights = word_weights(["我很好", "我不好", "好"])
    assert weights.shape == (3, 2)  # 我 and 好 occur twice; every pair of neighbours once


def test_word_weights_are_unit_rows_of_shared_words():
    weights = word_weights(["a a b", "a c", "b"])
    np.testing.assert_allclose(np.sqrt(weights.power(2).sum(axis=1)), 1.0)
    assert weights.shape == (3, 2)
    assert word_weights(["?!", "..."]).shape == (2, 0)
    assert word_weights(["one", "two"]).shape == (2, 0)


def test_lengths_count_characters_and_words():
    assert text_lengths(["a bc", "dé"]).tolist() == [[4, 2], [2, 1]]


def test_groups_that_cannot_be_measured_are_nan():
    parts = [
        yes_no(sentences(6, 0), [True] * 6, "one class"),
        yes_no(sentences(3, 0), [True, False, True], "three"),
        yes_no(["same"] * 6, [True, False] * 3, "one prompt"),
        yes_no(["?", "!", "??", "!!"] * 3, [True, False, True, False] * 3, "no words"),
    ]
    found = wording(PreferenceDataset.concat(parts))
    assert [g.name for g in found.groups] == ["one class", "three", "one prompt", "no words"]
    for group in found.groups[:3]:
        assert math.isnan(group.words_accuracy)
        assert math.isnan(group.length_accuracy)
        assert math.isnan(group.chance)
    assert found.groups[3].words_accuracy <= 0.75
    rows = json.loads(json.dumps(found.rows(), allow_nan=False))
    assert rows[0]["words_accuracy"] is None
    assert rows[3]["pairs"] == 12


def test_large_groups_are_sampled():
    positive = np.arange(100) % 2 == 0
    prompts = [f"{s} {'alpha' if yes else 'omega'}" for s, yes in zip(sentences(100, 0), positive, strict=True)]
    data = yes_no(prompts, positive)
    found = wording(data, limit=40)
    assert (found.groups[0].pairs, found.groups[0].pairs_used) == (100, 40)
    assert found.rows() == wording(data, limit=40).rows()
    assert found.groups[0].words_accuracy > 0.8


def test_counts_that_are_too_small_are_refused():
    data = yes_no(sentences(4, 0), [True, False] * 2)
    with pytest.raises(ConfigError, match="folds is 1, but must be a whole number of at least 2"):
        wording(data, folds=1)
    with pytest.raises(ConfigError, match="limit is 3, but must be a whole number of at least 4"):
        wording(data, limit=3)


@needs_shared
def test_words_alone_decide_much_of_persona():
    names = ("agreeableness", "interest-in-art")
    rows = []
    with gzip.open(PERSONA, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["persona"] in names:
                rows.append(
                    {
                        "prompt": row["question"],
                        "chosen": row["answer_matching_behavior"],
                        "rejected": row["answer_not_matching_behavior"],
                        "group": row["persona"],
                    }
                )
    found = wording(PreferenceDataset.from_rows(rows)).groups
    for group in found:
        assert group.words_interval[0] > 0.75
        assert group.words_accuracy > group.length_accuracy
