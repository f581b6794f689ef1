"""What many pairs and many groups cost: work and memory in proportion, the same numbers, and a page that says what it
leaves out."""

import cProfile
import math
import pstats
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import prefdyn.dynamics.descent as descending
from prefdyn import features as features_module
from prefdyn.diagnostics.many import SHOWN_GROUPS, shown_groups
from prefdyn.diagnostics.orthogonality import orthogonality
from prefdyn.diagnostics.prioritization import pair_pushes, prioritization
from prefdyn.diagnostics.separation import FOR_HOLM, separation
from prefdyn.dynamics.descent import descent
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.maths.optimizers import optimizer
from prefdyn.planning.audit import audit
from prefdyn.planning.simulate import simulate
from prefdyn.report.folders import RunFolder, read_folder
from prefdyn.report.html import write_report
from prefdyn.report.many import drawn, drawn_words
from prefdyn.report.panels import panels
from prefdyn.report.tables import verdict_table
from prefdyn.store import load_features, save_features
from prefdyn.theory.bounds import bounds
from tests.report.test_html import Page, browse, needs_chromium


def answers(groups, each=2, width=8, seed=0, gap=2.0):
    """Groups of one-token answers, each told apart along a direction of its own."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    yes = np.tile(np.arange(each) % 2 == 0, groups)
    states = (
        rng.normal(size=(groups * each, width))
        + gap * rng.normal(size=(groups, width))[group] * np.where(yes, 0.5, -0.5)[:, None]
    )
    return FeatureSet.from_arrays(
        states,
        chosen=np.where(yes, "Yes", "No"),
        rejected=np.where(yes, "No", "Yes"),
        tokens=["Yes", "No"],
        group=[f"group {code}" for code in group],
    )


def replies(pairs, groups=3, width=6, seed=0):
    """Longer responses."""
    rng = np.random.default_rng(seed)
    return FeatureSet.from_arrays(
        rng.normal(size=(pairs, 4)),
        chosen_features=rng.normal(size=(pairs, width)),
        rejected_features=rng.normal(size=(pairs, width)),
        group=np.arange(pairs) % groups,
        held_out=np.arange(pairs) % 7 == 0,
        weight=rng.uniform(0.5, 2, pairs),
        ref_chosen_logps=np.full(pairs, -9.0),
        ref_rejected_logps=np.full(pairs, -9.0),
    )


def all_calls(work):
    """How many functions a piece of work calls: a measure of it that no other program disturbs."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return pstats.Stats(profile).total_calls  # pyright: ignore[reportAttributeAccessIssue]


def memory(work):
    """Most bytes that a piece of work holds at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def whole_audit(feats):
    found = audit(feats, steps=3, progress=False)
    found.summary()
    found.pairs()


@pytest.mark.slow
@pytest.mark.parametrize("measure", [all_calls, memory])
def test_an_audit_of_twice_the_groups_is_twice_the_work(measure):
    """A matrix of all groups against all, or a search through all for each, would be four times."""
    small, large = (answers(groups) for groups in (400, 800))
    whole_audit(answers(300))  # what is done once
    assert measure(lambda: whole_audit(large)) < 2.3 * measure(lambda: whole_audit(small))


@pytest.mark.slow  # under a profiler CPython 3.11 may spin for ever in a process that has run much before
def test_a_simulation_of_twice_the_groups_is_twice_the_work():
    def work(groups):
        feats = answers(groups)
        return all_calls(lambda: simulate(feats, steps=1, progress=False).summary())

    work(1)  # what is done once
    assert work(2 * SHOWN_GROUPS + 4) < 2.2 * work(SHOWN_GROUPS + 2)


def test_a_run_alone_is_measured_on_its_own_group_only(monkeypatch):
    """One cell per group and split in every run alone, whatever the number of groups."""
    cells = []
    measure = descending.solve

    def watched(route, pairs, runs, **options):
        cells.append((len(pairs.groups), len(runs)))
        return measure(route, pairs, runs, **options)

    monkeypatch.setattr(descending, "solve", watched)
    descent(answers(300), steps=1)
    joint, *alone = cells
    assert joint == (300, 1)
    assert all(groups == runs for groups, runs in alone)
    assert sum(runs for _, runs in alone) == 300
    assert len(alone) < 30  # together, not one after another


@pytest.mark.parametrize("of", [answers, lambda groups: replies(3 * groups, groups)])
def test_groups_alone_in_one_solve_are_those_in_a_solve_each(monkeypatch, of):
    feats = of(9)
    apart = descent(feats, DPO(beta=0.3), steps=20)
    monkeypatch.setattr(descending, "MANY_GROUPS", 3)
    together = descent(feats, DPO(beta=0.3), steps=20)
    assert together.table.drop_columns(["run"]).num_rows == apart.table.num_rows
    for name in together.table.schema.names:
        ours, theirs = together.table[name], apart.table[name]
        if str(ours.type) == "double":
            np.testing.assert_allclose(
                ours.to_numpy(), theirs.to_numpy(), rtol=1e-9, atol=1e-12, err_msg=name, equal_nan=True
            )
        else:
            assert ours.to_pylist() == theirs.to_pylist()
    assert together.alone_heads.keys() == apart.alone_heads.keys()
    for name, head in together.alone_heads.items():
        np.testing.assert_allclose(head, apart.alone_heads[name], rtol=1e-9, atol=1e-12)


def test_minibatch_runs_alone_are_the_same_among_many_groups(monkeypatch):
    feats = answers(5, each=9)
    common = {"optimizer": optimizer("adam"), "learning_rate": 0.01, "batch_size": 4, "steps": 6, "progress": False}
    few = simulate(feats, **common)
    monkeypatch.setattr("prefdyn.planning.simulate.SHOWN_GROUPS", 2)
    many = simulate(feats, **common)
    assert few.trajectory.table.drop_columns(["drift"]).equals(many.trajectory.table.drop_columns(["drift"]))


def test_rows_of_a_cell_are_those_that_a_search_finds():
    run = descent(answers(4, each=6).with_held_out(np.arange(24) % 3 == 0), steps=5)
    for which in ("joint", "alone", "strange"):
        for group in (*run.groups, "strange"):
            for split in ("train", "held_out"):
                found = run.cell(run=which, group=group, split=split)
                assert found.equals(run.where(run=which, group=group, split=split).combine_chunks())


# groups held against each other --------------------------------------------------------------------------------------


@pytest.mark.parametrize("feats", [answers(9, each=4), replies(40, groups=9)], ids=["answers", "responses"])
def test_some_groups_have_the_numbers_that_they_have_among_all(feats):
    shown = np.array([1, 4, 7])
    every, some = (prioritization(feats, beta=0.2, learning_rate=3.0, shown=codes) for codes in (None, shown))
    np.testing.assert_allclose(some.level, every.level, rtol=1e-11)
    np.testing.assert_allclose(some.first_step_margin, every.first_step_margin, rtol=1e-11)
    np.testing.assert_allclose(some.influence, every.influence[shown], rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(some.gap, every.gap[np.ix_(shown, shown)], rtol=1e-11)
    whole, part = orthogonality(feats), orthogonality(feats, shown=shown)
    assert part.groups == tuple(feats.groups[code] for code in shown)
    for name in ("cosine", "cosine_without_self", "cosine_centred", "cosine_centred_without_self"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[np.ix_(shown, shown)], rtol=1e-11)
    assert (part.effective_rank, part.shared_norm, part.spread) == pytest.approx(
        (whole.effective_rank, whole.shared_norm, whole.spread), nan_ok=True
    )
    assert set(part.distance_labels) < set(whole.distance_labels)


def test_the_largest_groups_are_shown_in_the_order_of_the_data():
    feats = FeatureSet.from_arrays(np.eye(6), chosen=[1] * 6, rejected=[0] * 6, group=["a", "b", "b", "c", "d", "d"])
    assert shown_groups(feats, most=2).tolist() == [1, 3]
    assert shown_groups(feats, most=3).tolist() == [0, 1, 3]
    assert shown_groups(feats).tolist() == [0, 1, 2, 3]


def test_many_states_are_sampled_with_as_many_of_each_group():
    feats = answers(4, each=50, gap=6.0)
    part, whole = orthogonality(feats, cells=80 * 8, rows="all"), orthogonality(feats, rows="all")
    assert (part.pairs_used, whole.pairs_used) == (80, 200)
    assert np.abs(part.cosine - whole.cosine).max() < 0.2
    assert orthogonality(feats, cells=80 * 8, rows="all", seed=1).cosine[0, 1] != part.cosine[0, 1]


# features larger than memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("feats", [replies(60), answers(3, each=20, width=6)], ids=["responses", "answers"])
def test_features_read_in_pieces_give_what_they_give_in_one(monkeypatch, feats):
    monkeypatch.setattr(features_module, "_FLOAT64_BYTES", 60 * 6 * 4)  # float32, and just in one piece
    assert not feats.in_pieces
    run = descent(feats, steps=4)

    def numbers():
        order, pushes = prioritization(feats), pair_pushes(feats, beta=0.1, learning_rate=1.0)
        found = [order.level, order.influence, order.gap, order.first_step_margin, pushes.agreement]
        found += [pushes.group_agreement]
        found += [each for each in (pushes.chosen_push, pushes.rejected_push) if each is not None]
        return [*found, np.array([bound.value for bound in bounds(feats, run)])]

    whole = numbers()
    monkeypatch.setattr(features_module, "_FLOAT64_BYTES", 60 * 6 * 4 - 1)
    monkeypatch.setattr(features_module, "_PIECE_BYTES", 7 * 6 * 4)
    assert feats.in_pieces
    assert max(len(kernel) for _, kernel in feats.kernel_blocks(np.arange(60))) == 7
    for one, other in zip(whole, numbers(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-6)


def test_read_only_arrays_are_taken_as_they_are_and_others_are_copied(tmp_path):
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(5, 3)).astype(np.float32) for _ in range(2)]
    for place, values in enumerate(sides):
        np.save(tmp_path / f"{place}.npy", values)
    mapped = [np.load(tmp_path / f"{place}.npy", mmap_mode="r") for place in range(2)]
    feats = FeatureSet.from_arrays(chosen_features=mapped[0], rejected_features=mapped[1])
    assert feats.chosen_features is mapped[0]
    copied = FeatureSet.from_arrays(chosen_features=sides[0], rejected_features=sides[1])
    sides[0][:] = 0  # still the caller's own
    np.testing.assert_array_equal(copied.kernel().dense(), feats.kernel().dense())


def test_a_row_that_is_not_finite_is_found_beyond_the_first_rows_looked_at(monkeypatch):
    monkeypatch.setattr("prefdyn._arrays._CELLS", 6)
    states = np.zeros((7, 3))
    states[5, 1] = np.nan
    with pytest.raises(DataError, match="features has 1 rows with NaN or infinity, the first is row 5"):
        FeatureSet.from_arrays(states, chosen=[1] * 7, rejected=[0] * 7)


def test_features_without_a_reference_come_back(tmp_path):
    feats = answers(2)
    found = load_features(save_features(feats, tmp_path / "features"))
    assert found.ref_chosen_logps is None
    assert found.ref_rejected_logps is None
    assert found.group.tolist() == feats.group.tolist()


# the null among many groups ------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_many_groups_of_noise_are_not_called_real_and_real_ones_are():
    """Relabellings per group do not grow with the groups, and one real group among hundreds still stands out."""
    noise = answers(FOR_HOLM + 49, each=12, width=4, gap=0.0)
    states = np.concatenate([noise.states, answers(1, each=12, width=4, gap=9.0, seed=1).states])
    side = np.tile(np.arange(12) % 2 == 0, FOR_HOLM + 50)
    feats = FeatureSet.from_arrays(
        states,
        chosen=np.where(side, "Yes", "No"),
        rejected=np.where(side, "No", "Yes"),
        tokens=["Yes", "No"],
        group=np.repeat(np.arange(FOR_HOLM + 50), 12),
    )
    found = separation(feats, bootstraps=1)
    adjusted = np.array([group.null_p_adjusted for group in found.groups])
    raw = np.array([group.null_p for group in found.groups])
    assert (found.adjustment, found.permutations) == ("max-z", 999)
    assert adjusted[:-1].min() > 0.05
    assert raw[:-1].min() < 0.05  # some would be called real without the adjustment
    assert (adjusted >= raw).all()
    few = separation(feats.select(slice(0, 24)), bootstraps=1)
    assert few.adjustment == "max-z"  # by the groups there are, also those without pairs
    assert adjusted[-1] < 0.05


def test_large_groups_are_measured_on_a_sample_that_says_so():
    feats = answers(2, each=60, width=4)
    found = separation(feats, cells=40 * 4).groups[0]
    assert (found.pairs, found.pairs_used, found.classes) == (60, 40, (30, 30))
    assert separation(feats).groups[0].pairs_used == 60
    summary = audit(feats, steps=2, progress=False).summary()
    assert not any("sample" in text for text in summary["warnings"])


# the page ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A written audit of more groups than a page draws: the first are the largest."""
    groups = SHOWN_GROUPS + 50
    feats = answers(groups, each=4, width=4)
    keep = np.flatnonzero((np.arange(len(feats)) % 4 < 2) | (feats.group >= 50))
    found = audit(feats.select(keep), steps=3, progress=False)
    folder = tmp_path_factory.mktemp("crowd")
    found.write(folder)
    run = read_folder(folder)
    write_report(run, folder / "report.html", static=False)
    return run


@pytest.mark.thorough
def test_what_is_drawn_is_capped_and_what_is_written_is_not(crowd):
    run, total = crowd, SHOWN_GROUPS + 50
    assert len(run.groups) == total
    assert (run.path / "groups.csv").read_text().count("\n") == total + 1
    part = drawn(run)
    assert part.names == tuple(f"group {code}" for code in range(50, total))  # those with most pairs
    pictures = panels(run)
    assert "cosine" in {panel.id for panel in pictures}
    for panel in pictures:
        assert len(panel.groups) == SHOWN_GROUPS
        for layer in panel.layers:
            if panel.kind in ("lines", "heat", "dots", "scatter"):
                assert len(panel.arrays[layer.values]) == SHOWN_GROUPS
    assert len(run.part("diagnostics", "influence", "matrix")) == SHOWN_GROUPS


@pytest.mark.thorough
def test_curves_and_points_of_a_capped_page_are_of_the_groups_named(crowd):
    run = crowd
    part, names = drawn(run), run.names
    kept = part.names
    rows = [names.index(name) for name in kept]
    np.testing.assert_array_equal(part.curves("loss"), run.curves("loss")[rows])
    cloud, whole = part.part("diagnostics", "embedding"), run.part("diagnostics", "embedding")
    assert [kept[code] for code in cloud["group"]] == [names[code] for code in whole["group"]]
    assert {row["group"] for row in part.part("bounds") if row["group"]} <= set(kept)


@pytest.mark.thorough
def test_a_capped_page_says_what_it_leaves_out(crowd):
    text = (crowd.path / "report.html").read_text()
    total = SHOWN_GROUPS + 50
    assert f"lists and draws {SHOWN_GROUPS} of {total} groups" in text
    assert "groups.csv has a row for every group" in text
    assert f"Of {total} groups: " in text  # verdicts are counted over all
    assert text.count('<th scope="row">') == SHOWN_GROUPS
    assert len(text) < 10e6
    assert Page(text).of("table")


def test_a_page_of_few_groups_leaves_nothing_out(tmp_path):
    found = audit(answers(3, each=8), steps=3, progress=False)
    found.write(tmp_path)
    run = read_folder(tmp_path)
    assert drawn(run) is run
    assert drawn_words(run) == ""
    assert "shown_groups" not in run.part("diagnostics")


def test_a_folder_that_names_no_groups_to_show_shows_the_largest():
    rows = [{"name": f"g{code}", "pairs": code} for code in range(7)]
    run = RunFolder(path=Path(), summary={"groups": rows}, trajectory=None, pairs=None)
    assert drawn(run, most=2).names == ("g5", "g6")
    assert drawn_words(run, most=2).startswith("This page lists and draws 2 of 7 groups, those with most pairs")


@pytest.mark.thorough
def test_a_table_of_many_groups_ends_with_how_many_more(crowd):
    lines = verdict_table(crowd.summary).splitlines()
    assert f"… and 50 more; groups.csv lists all {SHOWN_GROUPS + 50}" in lines
    assert len(lines) < SHOWN_GROUPS + 20


@pytest.mark.thorough
@needs_chromium
def test_a_browser_opens_a_page_of_many_groups(crowd, tmp_path):
    document, console = browse(crowd.path / "report.html", tmp_path / "profile")
    assert console == []
    state = {key: int(value) for key, value in re.findall(r'data-(charts|charts-drawn|errors)="(\d+)"', document)}
    assert state["errors"] == 0
    assert state["charts"] == state["charts-drawn"] > 5


@pytest.mark.slow
def test_ten_thousand_groups_of_two_pairs(tmp_path):
    found = audit(answers(10_000), progress=False)
    found.write(tmp_path)
    page = write_report(tmp_path, tmp_path / "report.html")
    assert len(found.rows()) == 10_000
    assert page.stat().st_size < 10e6
    assert all(math.isfinite(row["predicted_final_loss"]) for row in found.rows() if row["train_pairs"])
