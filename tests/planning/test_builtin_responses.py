"""The audit calls the groups of the built-in replies what they were made for, and shuffled labels nothing learned."""

from collections import Counter
from typing import get_args

import pytest

from prefdyn._random import stream
from prefdyn.data.builtin_responses import GROUPS, builtin_responses
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.models.load import load_model
from prefdyn.planning.audit import audit
from prefdyn.planning.verdicts import NO_EVIDENCE, Verdict

LEARNED = set(get_args(Verdict)) - {*NO_EVIDENCE, "giveaway", "trivial", "conflicting", "left behind", "memorised"}
MADE_FOR = {"style": LEARNED, "length": {"giveaway"}, "random": set(NO_EVIDENCE), "against": {"conflicting"}}
"""Verdicts that each group was made to earn."""


@pytest.fixture(scope="module")
def lm():
    return load_model("builtin", device="cpu")


def verdicts(rows, lm, *, seed):
    """Verdict of each group, by its name."""
    found = audit(PreferenceDataset.from_rows(rows), lm, exact=0, seed=seed, cache=False, progress=False)
    return {item.name: item.verdict for item in found.judgements}


def shuffled(rows, *, seed):
    """Chosen and rejected swapped by lot in every pair."""
    lots = stream(seed, "shuffled labels").random(len(rows)) < 0.5
    return [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if swap else row
        for row, swap in zip(rows, lots.tolist(), strict=True)
    ]


FEW = pytest.param(range(2), 0, id="2 seeds")
TEN = pytest.param(range(10), 1, id="10 seeds", marks=pytest.mark.slow)


def test_every_group_has_a_verdict_to_earn():
    assert set(MADE_FOR) == {group.name for group in GROUPS}


@pytest.mark.thorough
@pytest.mark.parametrize(("seeds", "misses"), [FEW, TEN])
def test_every_group_earns_the_verdict_that_it_was_made_for(lm, seeds, misses):
    """Learned, a giveaway, nothing found and conflicting: in at least nine of ten sets, each with its own folds."""
    earned = Counter()
    for seed in seeds:
        found = verdicts(builtin_responses(seed), lm, seed=seed)
        earned.update(name for name, verdict in found.items() if verdict in MADE_FOR[name])
    assert all(earned[name] >= len(seeds) - misses for name in MADE_FOR), earned


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "misses"), [FEW, TEN])
def test_no_group_is_called_learned_once_its_labels_are_shuffled(lm, seeds, misses):
    """In no more than one of ten sets; the same sets with their own labels are the control, in the test above."""
    learned = Counter()
    for seed in seeds:
        found = verdicts(shuffled(builtin_responses(seed), seed=seed), lm, seed=seed)
        learned.update(name for name, verdict in found.items() if verdict in LEARNED)
    assert max(learned.values(), default=0) <= misses, learned
