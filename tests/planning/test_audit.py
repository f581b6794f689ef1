"""The audit on data whose answer is known: each verdict earned and narrowly missed, and random labels called noise."""

import json
from typing import Any

import numpy as np
import pytest

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.planning.audit import audit, rank_agreement
from prefdyn.planning.simulate import simulate
from prefdyn.planning.summary import PAIRS
from prefdyn.synthetic import gaussian_groups


def verdicts(feats, **settings):
    """Verdict of each group, in order."""
    return [item.verdict for item in audit(feats, **settings).judgements]


def with_words(feats, revealing):
    """The same pairs with prompts whose words give the answer away in a share `revealing` of them."""
    rng = np.random.default_rng(0)
    assert feats.chosen is not None
    rows = []
    for place, chosen in enumerate(feats.chosen):
        honest = rng.random() < revealing
        word = ("warm" if chosen == 0 else "cold") if honest else str(rng.choice(["warm", "cold"]))
        answers = (" Yes", " No") if chosen == 0 else (" No", " Yes")
        rows.append(
            {"id": str(feats.id[place]), "group": feats.groups[feats.group[place]], "prompt": f"a {word} day {place}"}
            | {"chosen": answers[0], "rejected": answers[1]}
        )
    return PreferenceDataset.from_rows(rows)


APART: dict[str, Any] = {"groups": 4, "width": 12, "half_gap": 2.0, "held_out": 0.3}
"""Four groups with orthogonal gaps of four standard deviations: all learnable, none in the way of another."""

OPPOSED = np.zeros((3, 12))
OPPOSED[0, 1], OPPOSED[1, 1], OPPOSED[2, 2] = 1, -1, 1
ASIDE = np.zeros((3, 12))
ASIDE[0, 1], ASIDE[1, 3], ASIDE[2, 2] = 1, 1, 1


@pytest.mark.parametrize(
    ("verdict", "earns", "misses"),
    [
        ("too few", gaussian_groups([400, 400, 400, 19], **APART), gaussian_groups([400, 400, 400, 80], **APART)),
        (
            "noise",
            gaussian_groups(400, **dict(APART, half_gap=[2, 2, 2, 0.0])),
            gaussian_groups(400, **dict(APART, half_gap=[2, 2, 2, 0.5])),
        ),
        (
            "conflicting",
            gaussian_groups(
                [600, 200, 200], groups=3, width=12, noise=0.3, directions=OPPOSED[[0, 2, 1]], held_out=0.3
            ),
            gaussian_groups([600, 200, 200], groups=3, width=12, noise=0.3, directions=ASIDE, held_out=0.3),
        ),
        (
            "left behind",
            gaussian_groups([2000, 2000, 2000, 100], **APART),
            gaussian_groups([2000, 2000, 2000, 2000], **APART),
        ),
        (
            "memorised",
            gaussian_groups(600, groups=1, width=150, half_gap=0.35, held_out=0.3),
            gaussian_groups(600, groups=1, width=150, half_gap=2.0, held_out=0.3),
        ),
    ],
)
def test_each_verdict_on_features_made_for_it(verdict, earns, misses):
    """The last group earns the verdict; with the one cause taken away it does not, and no other group has it."""
    steps = {"left behind": 30, "memorised": 2000}.get(verdict, 100)
    *others, last = verdicts(earns, steps=steps)
    assert last == verdict
    assert verdict not in others
    assert verdict not in verdicts(misses, steps=steps)


def test_trivial_needs_words_that_give_the_answer_away():
    feats = gaussian_groups(300, groups=1, width=12, half_gap=4.0, held_out=0.3)
    assert verdicts(feats, texts=with_words(feats, 1.0)) == ["trivial"]
    assert verdicts(feats, texts=with_words(feats, 0.9)) == ["learned"]
    assert verdicts(feats) == ["learned"]  # without texts the rule cannot fire


def test_the_order_follows_the_gaps():
    """Orthogonal groups of equal size: a larger gap is learned earlier, and the correlations say so."""
    feats = gaussian_groups(1000, groups=6, width=12, noise=0.5, half_gap=[3, 2.5, 2, 1.5, 1.2, 1], held_out=0.3)
    found = audit(feats, steps=20)
    assert [item.verdict for item in found.judgements] == ["early"] * 2 + ["middle"] * 2 + ["late"] * 2
    order = found.summary()["diagnostics"]["order"]
    assert order["distinguishability"]["spearman"] == 1.0
    assert order["priority"]["spearman"] == 1.0


def shuffled(seed):
    """Real-looking features whose labels were drawn at random."""
    feats = gaussian_groups(200, groups=5, width=24, shared_norm=3.0, half_gap=1.5, seed=seed)
    rng = np.random.default_rng(1000 + seed)
    answers = np.where(rng.permutation(np.arange(len(feats)) % 2) == 0, "Yes", "No")
    return FeatureSet.from_arrays(
        feats.states,
        chosen=answers,
        rejected=np.where(answers == "Yes", "No", "Yes"),
        tokens=["Yes", "No"],
        group=[feats.groups[code] for code in feats.group],
        held_out=feats.held_out,
    )


def test_shuffled_labels_are_called_noise_in_18_of_20_seeds():
    """Every group of a shuffled dataset is noise; the same features with their own labels are not (control)."""
    all_noise = [set(verdicts(shuffled(seed))) == {"noise"} for seed in range(20)]
    assert sum(all_noise) >= 18
    assert "noise" not in verdicts(gaussian_groups(200, groups=5, width=24, shared_norm=3.0, half_gap=1.5))


def test_a_group_of_one_class_is_too_few_and_the_other_is_judged():
    feats = gaussian_groups(160, groups=2, width=6, noise=0.3, held_out=0.3)
    assert feats.chosen is not None
    one = audit(feats.select((feats.group == 0) | (feats.chosen == 0)), steps=20).judgements
    assert one[0].verdict != "too few"
    assert (one[1].verdict, one[1].because) == ("too few", "all 80 pairs choose the same answer")


def test_a_dataset_of_one_class_is_refused():
    feats = gaussian_groups(40, groups=2, width=4)
    signs = feats.chosen
    assert signs is not None
    with pytest.raises(DataError, match="all 40 pairs choose the same answer, 'Yes'"):
        audit(feats.select(signs == 0))


def test_the_files_say_what_the_result_says(tmp_path):
    """summary.json, groups.csv, pairs.parquet and trajectory.parquet agree with each other and hold no NaN."""
    import pyarrow.csv
    import pyarrow.parquet

    feats = gaussian_groups([60, 40, 5], groups=3, width=8, half_gap=1.5)
    found = audit(feats, steps=10)
    found.write(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    summary = json.loads(text)
    assert summary["groups"] == found.rows()
    assert [row["verdict"] for row in summary["groups"]][-1] == "too few"
    table = pyarrow.csv.read_csv(tmp_path / "groups.csv")
    assert table.column_names == list(found.rows()[0])
    pairs = pyarrow.parquet.read_table(tmp_path / "pairs.parquet")
    assert pairs.schema == PAIRS
    assert pairs["id"].to_pylist() == [str(name) for name in feats.id]
    run = pyarrow.parquet.read_table(tmp_path / "trajectory.parquet")
    assert run.equals(found.simulation.table)
    last = found.simulation.final("loss", group="group 1", split="held_out")
    assert summary["groups"][1]["predicted_held_out_loss"] == last
    assert str(found).startswith("Audit of 105 pairs in 3 groups: ")


def test_a_report_needs_no_folder(tmp_path):
    """In Python a result can be shown as it is, several on one page."""
    from prefdyn.report.html import write_report

    found = audit(gaussian_groups(60, groups=3, width=8), steps=5)
    page = write_report([found, simulate(found.features, steps=5)], tmp_path / "page.html").read_text()
    assert "group 2" in page
    assert "simulate" in page


def test_no_pair_held_out_is_said_and_nothing_is_ranked_on_what_is_not_there():
    feats = gaussian_groups(60, groups=3, width=8, half_gap=2.0, held_out=0.0)
    found = audit(feats, split=1.0, steps=5)
    assert any("No pair is held out" in line for line in found.warnings)
    assert found.rows()[0]["predicted_held_out_loss"] is None
    assert {row["predicted_rank"] for row in found.rows()} == {1, 2, 3}


def test_same_seed_same_files(tmp_path):
    feats = gaussian_groups(60, groups=3, width=8)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        audit(feats, steps=5, seed=7).write(tmp_path / name)
    for file in ("groups.csv", "pairs.parquet", "trajectory.parquet"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("first", "second")]
    for summary in summaries:
        del summary["timings"]
    assert summaries[0] == summaries[1]


def test_simulate_gives_the_curves_of_the_audit(tmp_path):
    feats = gaussian_groups(60, groups=3, width=8)
    found, curves = audit(feats, steps=7), simulate(feats, steps=7)
    assert curves.trajectory.table.equals(found.simulation.table)
    curves.write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["command"] == "simulate"
    assert [row["predicted_rank"] for row in summary["groups"]] == [row["predicted_rank"] for row in found.rows()]


def test_rank_agreement_needs_three_groups_and_some_spread():
    assert np.isnan(rank_agreement(np.array([1.0, 2]), np.array([1.0, 2]))["spearman"])
    assert np.isnan(rank_agreement(np.ones(4), np.arange(4.0))["kendall"])
    found = rank_agreement(np.array([1.0, np.nan, 2, 3]), np.array([3.0, 0, 2, 1]))
    assert (found["spearman"], found["kendall"], found["groups"]) == (-1.0, -1.0, 3)
