"""The five answers on data whose truth is built in: right sentence, group and amount, and none where nothing holds."""

import math
import re
from typing import Any

import numpy as np
import pytest

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.crossfit import crossfit
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2
from prefdyn.maths.units import Mean
from prefdyn.planning.answers import AnswerGround, answers
from prefdyn.planning.audit import audit
from prefdyn.planning.audited import Audit
from prefdyn.planning.group_row import GroupRow
from prefdyn.planning.verdicts import Evidence
from prefdyn.synthetic import gaussian_groups
from scripts.answers_by_lot import by_lot, conflict, replies


def given(found: Audit) -> dict[str, Any]:
    """The answers by kind."""
    return {each.kind: each for each in found.answers}


def test_a_length_giveaway_is_named_with_its_group_and_accuracy():
    feats, data = replies(240, groups=2, apart=1.5, longer=6)
    found = given(audit(feats, texts=data, steps=20, progress=False))
    first, change = found["first"], found["change"]
    assert first.groups == ("group 1",)
    assert first.sentence.startswith("“group 1” is learned first")
    assert "Length alone tells" in first.sentence
    assert first.amount > 0.95
    assert first.low < first.amount <= first.high
    assert change.groups == ("group 1",)
    assert "Match the lengths of both sides in “group 1”" in change.sentence
    assert change.amount == pytest.approx(first.amount)


def test_flipped_labels_are_the_labels_to_check_with_their_texts():
    feats, data = replies(200, apart=6.0)
    wrong = np.arange(200) % 40 == 7
    made = audit(feats.flipped(wrong), texts=data, steps=10, progress=False)
    labels = given(made)["labels"]
    assert {f"pair {place}" for place in np.flatnonzero(wrong)} <= set(labels.pairs[:6])
    assert labels.amount > 7
    listed, tried = labels.sentence.split("How well such a list finds wrong labels where there are was tried")
    assert listed.endswith("They may be right: only reading them tells. ")  # what was planted says nothing of these
    assert f"{labels.amount:.0f} of its first 10 were turned ones" in tried
    shown = made.summary()["examples"]["labels"]
    assert [row["id"] for row in shown] == list(labels.pairs)
    assert all(row["prompt"].startswith("question") for row in shown)
    assert all(row["label_score"] < 0 for row in shown)


def test_a_conflict_is_named_with_who_pushes_and_by_how_much():
    feats = conflict(0)
    made = audit(feats, steps=40, progress=False)
    found = given(made)
    worse, change = found["worse"], found["change"]
    assert worse.groups == ("group 1",)
    assert "“group 1” by “group 0”" in worse.sentence
    cross = crossfit(feats, DPO(), units(feats), learning_rate=made.settings["learning_rate"], steps=40, seed=0)
    rows = feats.by_group()[1]
    assert worse.amount == pytest.approx(cross.loss[rows].mean() - LOG2)
    assert worse.low > 0
    assert change.groups[0] == "group 1"
    assert change.amount == pytest.approx((cross.loss - cross.alone)[rows].mean())
    assert change.low < change.amount < change.high
    assert f"{change.amount:.2f} nats lower" in change.sentence


def test_pairs_that_contradict_come_first_among_the_labels():
    rng = np.random.default_rng(0)
    sides = [(" Yes", " No") if rng.random() < 0.5 else (" No", " Yes") for _ in range(60)]
    rows = [
        {"id": f"pair {n}", "prompt": f"Is {n} odd?", "chosen": won, "rejected": lost}
        for n, (won, lost) in enumerate(sides)
    ]
    rows.append({**rows[7], "id": "pair 60", "chosen": sides[7][1], "rejected": sides[7][0]})
    data = PreferenceDataset.from_rows(rows)
    label = np.array([row["chosen"] == " Yes" for row in rows]).astype(int)
    feats = FeatureSet.from_arrays(
        rng.normal(size=(61, 8)), chosen=1 - label, rejected=label, id=[row["id"] for row in rows]
    )
    labels = given(audit(feats, texts=data, steps=5, progress=False))["labels"]
    assert labels.pairs == ("pair 7", "pair 60")
    assert labels.sentence.startswith("2 pairs contradict others outright")


def test_chosen_that_falls_is_named_with_the_amount():
    """Both sides share most of their states, so that one step lowers both."""
    rng = np.random.default_rng(0)
    shared = 4 * rng.normal(size=12)
    chosen = shared + rng.normal(size=(200, 12))
    rejected = 1.2 * shared + 0.5 * np.eye(12)[0] + rng.normal(size=(200, 12))
    feats = FeatureSet.from_arrays(
        chosen_features=chosen, rejected_features=rejected, chosen_length=np.full(200, 3),
        rejected_length=np.full(200, 3), ref_chosen_logps=np.full(200, -9.0), ref_rejected_logps=np.full(200, -9.0),
    )  # fmt: skip
    made = audit(feats, steps=50, progress=False)
    worse = given(made)["worse"]
    row = made.groups[0]
    assert row.predicted_chosen_change < -1
    assert f"fall, by {-row.predicted_chosen_change:.1f} nats on average" in worse.sentence


def test_groups_of_which_nothing_is_told_say_how_many_prompts_would_tell():
    feats = gaussian_groups([300, 12], groups=2, width=12, half_gap=2.0, held_out=0.2)
    told = given(audit(feats, steps=10, progress=False))["open"]
    assert told.groups == ("group 1",)
    assert told.prompts == 20
    assert told.sentence == "Nothing can be told of “group 1”: it has 12 of at least 20 prompts."


@pytest.mark.parametrize("copies", [1, 4])
def test_nothing_but_what_cannot_be_told_is_said_of_labels_by_lot(copies):
    """One and the same label in every copy of a prompt, which is one observation."""
    for seed in range(3):
        feats = by_lot(240, groups=3, copies=copies, seed=seed)
        kinds = {each.kind: each for each in audit(feats, steps=10, seed=seed, progress=False).answers}
        assert set(kinds) <= {"open", "labels"}
        if "labels" in kinds:  # labels that look random, and no pair
            assert kinds["labels"].pairs == ()
            assert "look random" in kinds["labels"].sentence


def test_answers_are_in_the_summary_and_their_numbers_are_numbers():
    rows = audit(gaussian_groups(60, groups=3, width=8, held_out=0.2), steps=5, progress=False).summary()["answers"]
    assert rows
    for row in rows:
        assert row["title"]
        assert row["amount"] is None or math.isfinite(row["amount"])


def test_a_loss_that_rises_is_told_with_the_step_where_it_is_least():
    """A gap that can be told, and many more directions than pairs: descent goes on to fit the noise."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 240)
    states = rng.normal(size=(240, 300)) * 2
    states[:, 0] += 1.5 * (2 * label - 1)
    feats = FeatureSet.from_arrays(states, chosen=label, rejected=1 - label)
    made = audit(feats, learning_rate=20.0, steps=200, progress=False)
    worse, item = given(made)["worse"], made.evidence[0]
    assert item.loss.value > LOG2
    assert "Held-out loss of “all” rises" in worse.sentence
    assert f"least at step {item.best_step}" in worse.sentence
    assert f"{item.loss.value - LOG2:.2f} ±" in worse.sentence


def test_near_contradictions_are_told_as_near():
    feats, data = replies(60, seed=3)
    long = "Put the plant near the window and water it once a week, but not in winter when it is resting."
    other = "Leave the plant where it is: most plants of this kind do well in the dark corner of a quiet room."
    rows = data.to_rows()
    prompt = "How should I keep the old green plant that stands in the north corner of my living room"
    rows[4] |= {"prompt": f"{prompt}?", "chosen": long, "rejected": other}
    rows[9] |= {"prompt": f"{prompt}, please?", "chosen": f"{other} Good luck!", "rejected": long}
    labels = given(audit(feats, texts=PreferenceDataset.from_rows(rows), steps=5, progress=False))["labels"]
    assert labels.sentence.startswith("2 pairs nearly contradict another")
    assert labels.pairs[:2] == ("pair 4", "pair 9")


@pytest.mark.parametrize(("errors", "said"), [(1.8, False), (2.0, True)])
@pytest.mark.parametrize("rises", [False, True])
def test_a_fall_or_rise_is_said_just_where_the_interval_in_the_sentence_leaves_0_out(errors, said, rises):
    """Of one group, whose interval is not adjusted: 1.8 errors are beyond 0 one-sided at 5 %, and not two-sided."""
    error = 0.05
    fall = errors * error * (-1 if rises else 1)
    row = GroupRow(name="one", pairs=99, units=99, verdict="learned", predicted_rank=1.0, predicted_rank_low=1.0)
    item = Evidence(name="one", pairs=99, units=99, loss=Mean(value=LOG2 - fall, error=error, units=99))
    nothing = Mean(value=math.nan, error=math.nan, units=0)
    found = AnswerGround(
        rows=[row], evidence=[item], gained_alone=[nothing], labels=None, ids=[], groups_of=[], steps=10
    )
    kind = "worse" if rises else "first"
    sentences = [each.sentence for each in answers(found) if each.kind == kind]
    assert len(sentences) == said
    if said:
        amount, reach = map(float, re.findall(r"(0\.\d+) ± (0\.\d+)", sentences[0])[0])
        assert amount - reach >= 0.0
        assert (amount, reach) == (0.10, 0.10)
