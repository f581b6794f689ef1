"""The audit on data whose answer is known: each verdict earned and missed, and random labels never called learned."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.crossfit import crossfit
from prefdyn.dynamics.order import ranks
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2
from prefdyn.planning.audit import audit
from prefdyn.planning.audited import rank_agreement
from prefdyn.planning.simulate import simulate
from prefdyn.planning.summary import PAIRS
from prefdyn.planning.verdicts import NO_EVIDENCE, Thresholds
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


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("verdict", "earns", "misses"),
    [
        ("cannot tell", gaussian_groups([400, 400, 400, 19], **APART), gaussian_groups([400, 400, 400, 80], **APART)),
        (
            "looks random",
            gaussian_groups([400, 400, 400, 2000], **dict(APART, half_gap=[2, 2, 2, 0.0])),
            gaussian_groups([400, 400, 400, 2000], **dict(APART, half_gap=[2, 2, 2, 0.5])),
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
            gaussian_groups([2000, 2000, 2000, 100], **APART, noise=0.3),
            gaussian_groups([2000, 2000, 2000, 2000], **APART, noise=0.3),
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
    steps = {"left behind": 10, "memorised": 2000}.get(verdict, 100)
    *others, last = verdicts(earns, steps=steps)
    assert last == verdict
    assert verdict not in others
    assert verdict not in verdicts(misses, steps=steps)


def test_what_a_group_that_is_left_behind_is_told_to_add_brings_it_where_it_was_said_to_come():
    """The advice is taken, so many times the weight or so many further steps, and the cross-fit is done again."""
    feats = gaussian_groups([2000, 2000, 2000, 100], **APART, noise=0.3)
    found, steps = audit(feats, steps=10, progress=False), 10
    rows = feats.members(3)
    loss = [row["cross_fitted_loss"] for row in found.rows()]
    asked = Thresholds().left_behind_share * (LOG2 - float(np.median(loss)))
    (weight, pairs, further, told) = re.findall(
        r"crowded out: ([\d.]+) times its weight, about ([\d,]+) pairs more like its own or about ([\d,]+) "
        r"further steps would bring its fall to ([\d.]+), in first order",
        found.judgements[3].advice,
    )[0]
    assert float(told) == pytest.approx(asked, abs=1e-4)
    assert int(pairs.replace(",", "")) == pytest.approx((float(weight) - 1) * 100, rel=0.06)  # two digits of the weight
    settings: dict[str, Any] = {"learning_rate": found.settings["learning_rate"], "seed": 0}
    heavier = replace(feats, weight=np.where(feats.group == 3, float(weight), 1.0))
    again = crossfit(heavier, DPO(), units(feats), steps=steps, **settings)
    assert LOG2 - again.loss[rows].mean() == pytest.approx(asked, rel=0.15)
    longer = crossfit(feats, DPO(), units(feats), steps=steps + int(further), **settings)
    assert LOG2 - longer.loss[rows].mean() == pytest.approx(asked, rel=0.15)


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
    feats = gaussian_groups(120, groups=3, width=24, shared_norm=3.0, half_gap=1.5, seed=seed)
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


@pytest.mark.thorough
def test_shuffled_labels_are_told_by_nothing_in_18_of_20_seeds():
    """No group of a shuffled dataset has a verdict that says more; the same features with their own labels do."""
    nothing = [set(verdicts(shuffled(seed), steps=20)) <= set(NO_EVIDENCE) for seed in range(20)]
    assert sum(nothing) >= 18
    own = verdicts(gaussian_groups(120, groups=3, width=24, shared_norm=3.0, half_gap=1.5), steps=20)
    assert not set(own) & set(NO_EVIDENCE)


def test_a_group_of_few_prompts_cannot_be_told_however_many_pairs_it_has():
    """Fifteen prompts, eight copies of each: 120 pairs are 15 units. As 120 prompts they are learned."""
    copies = gaussian_groups(120, groups=1, width=6, half_gap=2.0, noise=0.3, held_out=0.3)
    chosen = copies.chosen
    assert chosen is not None
    answers = np.array(["Yes", "No"])
    same: dict[str, Any] = {"chosen": answers[chosen], "rejected": answers[1 - chosen], "held_out": copies.held_out}
    few = audit(FeatureSet.from_arrays(copies.states, **same, text=np.arange(120) % 15), steps=20)
    assert (few.judgements[0].verdict, few.judgements[0].because) == (
        "cannot tell",
        "only 15 units, under 20 (120 pairs)",
    )
    (more,) = re.findall(r"No claim is made; about (\d+) more prompts would tell\.", few.judgements[0].advice)
    assert int(more) >= 5
    assert few.rows()[0]["units"] == 15
    assert verdicts(FeatureSet.from_arrays(copies.states, **same), steps=20) == ["learned"]


def test_what_hangs_together_in_the_texts_is_one_unit_though_the_features_do_not_say_so():
    """The same 120 features, each of an own cluster, with texts of 15 prompts: 15 units in every part of the audit."""
    feats = gaussian_groups(120, groups=1, width=6, half_gap=2.0, noise=0.3, held_out=0.0)
    prompts = [f"{'abcdefghijklmno'[place % 15] * 9} is the word of day" for place in range(120)]
    rows = with_words(feats, 0.5).to_rows()
    texts = PreferenceDataset.from_rows([row | {"prompt": text} for row, text in zip(rows, prompts, strict=True)])
    assert len(np.unique(feats.cluster)) == 120
    found = audit(feats, texts=texts, steps=20, progress=False)
    assert (found.judgements[0].verdict, found.judgements[0].because) == (
        "cannot tell",
        "only 15 units, under 20 (120 pairs)",
    )
    assert found.separation.groups[0].units == found.rows()[0]["units"] == 15
    held = found.features.held_out
    assert 0 < held.sum() < 120
    assert not {prompts[row] for row in np.flatnonzero(held)} & {prompts[row] for row in np.flatnonzero(~held)}
    assert verdicts(feats, texts=with_words(feats, 0.5), steps=20) == ["learned"]  # the control: prompts of their own


def test_texts_of_other_pairs_are_refused():
    feats = gaussian_groups(40, groups=1, width=4)
    with pytest.raises(DataError, match="row 39: the id is None in the data"):
        audit(feats, texts=with_words(feats.select(np.arange(39)), 1.0), steps=2)


def test_a_group_of_one_class_cannot_be_told_and_the_other_is_judged():
    feats = gaussian_groups(160, groups=2, width=6, noise=0.3, held_out=0.3)
    assert feats.chosen is not None
    one = audit(feats.select((feats.group == 0) | (feats.chosen == 0)), steps=20).judgements
    assert one[0].verdict != "cannot tell"
    assert (one[1].verdict, one[1].because) == ("cannot tell", "all 80 pairs choose the same answer")


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
    assert [row["verdict"] for row in summary["groups"]][-1] == "cannot tell"
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
    losses = [[row["predicted_held_out_loss"] for row in rows] for rows in (summary["groups"], found.rows())]
    assert losses[0] == losses[1]


def test_simulate_and_audit_are_as_sure_of_a_priority():
    feats = gaussian_groups(60, groups=2, width=8, half_gap=[4.0, 1.0], noise=1.0)
    there, here = (run(feats, steps=5, progress=False).rows() for run in (audit, simulate))
    for one, other in zip(there, here, strict=True):
        ends = [one[f"priority_{end}"] for end in ("low", "high")]
        assert None not in ends
        assert ends == [other[f"priority_{end}"] for end in ("low", "high")]


def test_a_sample_of_any_group_has_its_column(tmp_path):
    result = audit(gaussian_groups(60, groups=2, width=8, half_gap=[4.0, 1.0], noise=1.0), steps=5, progress=False)
    first, second = result.separation.groups
    apart = replace(result.separation, groups=(first, replace(second, pairs_used=50)))
    sampled = replace(result, separation=apart)
    assert [row["pairs_measured"] for row in sampled.rows()] == [None, 50]
    sampled.write(tmp_path)
    assert "pairs_measured" in (tmp_path / "groups.csv").read_text().splitlines()[0]


def test_the_table_holds_the_cross_fitted_losses_ranks_and_the_stability_of_each_verdict():
    """What the verdicts rest on, beside the curves of the one split: by the functions that make them."""
    feats = gaussian_groups([60, 80, 70], groups=3, width=8, half_gap=[2.0, 1.0, 1.5], noise=0.7)
    found = audit(feats, steps=10, seed=4)
    cross = crossfit(
        found.features, DPO(), units(found.features), learning_rate=found.settings["learning_rate"], steps=10, seed=4
    )
    order = ranks([cross.mean(rows, "area") for rows in found.features.by_group()], seed=4)
    for code, (row, rows) in enumerate(zip(found.rows(), found.features.by_group(), strict=True)):
        joint, alone = cross.mean(rows), cross.mean(rows, "alone")
        assert (row["cross_fitted_loss"], row["cross_fitted_loss_error"]) == (joint.value, joint.error)
        assert (row["cross_fitted_alone_loss"], row["cross_fitted_alone_loss_error"]) == (alone.value, alone.error)
        assert (row["predicted_rank"], row["predicted_rank_low"], row["predicted_rank_high"]) == (
            order.rank[code], order.low[code], order.high[code],
        )  # fmt: skip
        assert 0 <= row["stability"] <= 1
        assert row["auc_low"] < row["auc"] <= row["auc_high"]
        assert row["changes_if"]
        assert row["probe_chance"] == 0.5
    assert [row["could_be"] for row in found.rows()] == [", ".join(item.could_be) for item in found.judgements]


def test_held_out_figures_of_the_run_count_units():
    """Every held-out prompt twice: the error of the loss is that of half as many observations, the interval too."""
    feats = gaussian_groups(80, groups=1, width=6, half_gap=0.6, held_out=0.5)
    twice = feats.select(np.repeat(np.arange(80), 2))
    twice = replace(twice, id=np.array([str(place) for place in range(160)]))
    once, again = (audit(each, steps=10, progress=False).rows()[0] for each in (feats, twice))
    key = "predicted_held_out"
    assert again[f"{key}_loss"] == pytest.approx(once[f"{key}_loss"], rel=1e-6)
    assert again[f"{key}_loss_error"] == pytest.approx(once[f"{key}_loss_error"], rel=1e-6)
    for name in ("accuracy", "accuracy_low", "accuracy_high"):
        assert again[f"{key}_{name}"] == pytest.approx(once[f"{key}_{name}"], rel=1e-6)
    held = feats.held_out
    run = audit(feats, steps=10, progress=False).simulation
    loss = np.logaddexp(0, -run.margins[max(run.margins)][held])
    assert once[f"{key}_loss_error"] == pytest.approx(loss.std(ddof=1) / math.sqrt(held.sum()))
    assert once[f"{key}_accuracy_low"] < once[f"{key}_accuracy"] < once[f"{key}_accuracy_high"]


def test_rank_agreement_needs_three_groups_and_some_spread():
    assert np.isnan(rank_agreement(np.array([1.0, 2]), np.array([1.0, 2]))["spearman"])
    assert np.isnan(rank_agreement(np.ones(4), np.arange(4.0))["kendall"])
    found = rank_agreement(np.array([1.0, np.nan, 2, 3]), np.array([3.0, 0, 2, 1]))
    assert (found["spearman"], found["kendall"], found["groups"]) == (-1.0, -1.0, 3)
