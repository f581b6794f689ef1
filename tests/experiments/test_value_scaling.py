"""The recipe end to end on built-in data, its rules on both sides, and its numbers against other ways to get them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments import presets
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.launch import launch
from prefdyn.experiments.published import VALUE_TABLES
from prefdyn.experiments.reproduce import _Landed, run_recipe
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.statistics import straight_line
from prefdyn.experiments.value_scaling import RECIPE, measures
from prefdyn.experiments.value_scaling.figures import figures_of
from prefdyn.experiments.value_scaling.measures import (
    LAWS,
    MORE_PAIRS,
    Landed,
    _predicted,
    beside_lines,
    ring_of,
    without_sampling,
)
from prefdyn.experiments.value_scaling.runs import plan
from prefdyn.report.reproduce import reproduced_figure
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.measured import values_found
from prefdyn.theory.value_scaling import ClusterModel, head_error
from prefdyn.trajectory import Trajectory
from tests.experiments.conftest import measured

B = "2408.03459"
CLAIMS = {claim.id.removeprefix(f"{B}-"): claim for claim in RECIPE.claims}
COUNTS = [1, 2, 4, 8, 16]
GROUPS = ("tells the truth", "takes risks", "rises early", "leads the way")
# rules ---------------------------------------------------------------------------------------------------------------


NUMBERS = ("margin", "fall", "reward accuracy", "policy accuracy")
AXIS = [row for source in (MODEL, TWIN) for row in measured("K", [{k: float(k) for k in COUNTS}] * 3, source=source)]


def series(way, model, twin, learned=(0.8, 0.81, 0.82)):
    """Rows as `_series` gives them with one row of numbers, by K, for every seed, and the same in every quantity."""
    rows = []
    for source, values, accuracies in ((MODEL, model, learned), (TWIN, twin, (0.6, 0.61, 0.62))):
        by_count = [dict(zip(COUNTS, values, strict=False))] * 3
        for quantity in NUMBERS:
            rows += measured(quantity, by_count, figure=way, source=source)
        errors = [{count: 1 - value for count, value in row.items()} for row in by_count]
        rows += measured("error", errors, figure=way, source=source)
        rows += measured("accuracy", accuracies, figure=way, source=source)
    return rows


DOWN = [0.9, 0.8, 0.7, 0.6, 0.5]
FLAT = [0.6, 0.5, 0.6, 0.5, 0.6]
UP = DOWN[::-1]


def beyond_twin(found):
    assert found.control is not None
    return found.control.beyond


def judged(id, *rows, **rest):
    return CLAIMS[id].judge(Rows([*AXIS, *(row for each in rows for row in each)], **rest))


@pytest.mark.parametrize(
    ("id", "way"),
    [
        ("fig05-head-training-early", "adam"), ("fig05-head-test-late", "adam"), ("fig05-whole-training-late", "whole"),
        ("fig05-whole-test-early", "whole"), ("fig07-training", "whole"), ("fig07-test", "whole"),
        ("fig08-training", "whole"), ("fig08-test", "whole"), ("fig09-training", "other"), ("fig10-test", "other"),
        ("fig11-training", "other"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("model", "twin", "learned", "holds", "beyond"),
    [
        (DOWN, UP, (0.8, 0.81, 0.82), True, True),
        (DOWN, DOWN, (0.8, 0.81, 0.82), True, False),
        (DOWN, UP, (0.5, 0.49, 0.51), True, False),
        (DOWN, FLAT, (0.8, 0.81, 0.82), True, False),  # five numbers of values cannot tell these two apart
        (FLAT, FLAT, (0.8, 0.81, 0.82), False, False),
        (UP, FLAT, (0.8, 0.81, 0.82), False, False),
    ],
)
def test_what_falls_with_the_number_of_values_is_held(id, way, model, twin, learned, holds, beyond):
    found = judged(id, series(way, model, twin, learned))
    assert (found.holds, beyond_twin(found)) == (holds, beyond)


def test_the_head_tells_gradient_descent_and_the_code_and_accuracy_the_other_definition():
    ways = [series("adam", DOWN, FLAT), series("descent", UP, FLAT), series("adam, code", FLAT, FLAT)]
    found = judged("fig05-head-test-late", *ways)
    assert found.evidence["gradient descent"]["value"] == 1
    assert found.evidence["as the published code does"]["value"] == pytest.approx(0, abs=0.5)
    found = judged("fig08-test", series("whole", DOWN, FLAT))
    assert found.evidence["policy accuracy in place of reward accuracy"]["value"] == -1


@pytest.mark.parametrize("id", ["fig09-test", "fig10-training", "fig11-test", "table02-error", "fit01-linear-other"])
def test_one_model_tells_nothing_of_another(id):
    lacking = dict.fromkeys(("other", "other table"), "one model was given")
    found = judged(id, series("whole", DOWN, FLAT), lacking=lacking)
    assert (found.holds, found.because) == (None, "one model was given")


@pytest.mark.parametrize(
    "id", ["fig05-head-test-late", "fig07-test", "table01-error", "fit01-linear", "fit01-not-log", "fig05-rate",
           "fig05-company-test"],
)  # fmt: skip
def test_two_numbers_of_values_are_no_trend(id):
    ways = ("adam", "whole", "table", "descent, on a ring", "adam, on a ring")
    found = judged(id, *(series(way, [0.9, 0.5], [0.9, 0.5]) for way in ways))
    assert found.holds is None
    assert found.because.endswith("takes 4, and there are 2")


def company(way, margins, shared=(0.3,) * 3, own=(0.3,) * 3):
    """Rows as `_in_company` gives them, with one row of margins for every seed; the twin has the same."""
    rows, figure = [], ring_of(way)
    for source, learned in ((MODEL, (0.8, 0.81, 0.82)), (TWIN, (0.6, 0.61, 0.62))):
        rows += measured("margin", [dict(zip(COUNTS, margins, strict=True))] * 3, figure=figure, source=source)
        rows += measured("accuracy", learned, figure=figure, source=source)
        rows += measured("shared", shared if source == MODEL else (0.3,) * 3, figure=figure, source=source)
        rows += measured("own", own if source == MODEL else (0.3,) * 3, figure=figure, source=source)
    return rows


@pytest.mark.parametrize(("margins", "holds"), [(DOWN, True), (FLAT, False), (UP, False)])
@pytest.mark.parametrize("word", ["training", "test"])
def test_company_slows_where_margins_fall_over_the_ring(margins, holds, word):
    found = judged(f"fig05-company-{word}", company("adam", margins), company("descent", UP))
    assert (found.holds, beyond_twin(found)) == (holds, False)  # the twin has the same
    assert found.evidence["gradient descent"]["value"] == 1


@pytest.mark.parametrize(
    ("power", "descent", "adam"), [(-1.0, True, False), (-0.75, False, False), (-0.5, False, True), (0.0, False, True),
                                   (0.3, False, False)],
)  # fmt: skip
def test_rates_are_told_by_exponents(power, descent, adam):
    margins = [0.2 * count**power for count in COUNTS]
    assert judged("fig05-rate", company("descent", margins)).holds is descent
    assert judged("fig05-adam", company("adam", margins)).holds is adam


def test_margins_below_zero_have_no_exponent():
    found = judged("fig05-rate", company("descent", [0.1, 0.1, 0.1, -0.1, 0.1]))
    assert (found.holds, found.because) == (None, "measured with 0 of 3 seeds, and a verdict takes 3")


@pytest.mark.parametrize(("lines", "holds"), [([7.4, 5.2], True), ([0.9, 5.2], False), ([7.4, 0.9], False)])
def test_lines_are_kept_where_no_margin_leaves_them(lines, holds):
    assert judged("fig05-theorem-clusters", facts={"clusters": {"lines": lines}}).holds is holds


THEOREM = {"low": {1: math.nan, 2: 3.0}, "high": {1: math.nan, 2: 2.0}, "applies": True, "failing": []}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"low": {1: 0.5, 2: 3.0}}, False),
        ({"high": {1: 5.0, 2: 0.9}}, False),
    ],
)
def test_the_theorem_is_judged_where_it_speaks(change, holds):
    assert judged("fig05-theorem", facts={"theorem": THEOREM | change}).holds is holds


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"applies": False, "failing": ["d <= 5 Q"]}, "its conditions fail here, so it says nothing: d <= 5 Q"),
        ({"applies": False}, "its conditions fail here, so it says nothing: values cannot be seen as clusters"),
        ({"low": {1: math.nan}, "high": {1: math.nan}}, "its time is over before the first step"),
    ],
)
def test_the_theorem_is_not_judged_where_it_says_nothing(change, because):
    found = judged("fig05-theorem", facts={"theorem": THEOREM | change})
    assert (found.holds, found.because) == (None, because)


def test_the_condition_as_summarised_is_met_by_no_number_of_values():
    found = judged("fig05-sharing")
    assert (found.holds, found.evidence["right_form"]) == (False, [1.0, 4.0])
    for shared_norm, most in ((0.5, 1), (0.25, 4)):
        for sharing in (1, 4, 5):
            model = ClusterModel(
                values=5, per_cluster=40, width=200, noise=0.001, shared_norm=shared_norm, sharing=sharing
            )
            assert model.conditions()[0].holds is (sharing <= most)


@pytest.mark.parametrize(("accuracies", "rises"), [(DOWN, True), ([0.5, 0.6, 0.6, 0.5], False)])
def test_tables_have_errors_that_rise_and_margins_that_fall(accuracies, rises):
    for way, number in (("table", 1), ("other table", 2)):
        rows = series(way, accuracies[:4], FLAT[:4])
        assert judged(f"table{number:02d}-error", rows).holds is rises
        assert judged(f"table{number:02d}-margin", rows).holds is rises


@pytest.mark.parametrize(("power", "holds"), [(-1.0, True), (-0.5, False)])
def test_margins_of_whole_models_are_held_against_one_over_k(power, holds):
    found = judged("table01-inverse", series("table", [count**power for count in COUNTS[:4]], FLAT[:4]))
    assert found.holds is holds
    assert found.evidence["printed_exponent"] == pytest.approx(-0.063, abs=0.002)


@pytest.mark.parametrize(
    ("accuracies", "linear", "not_log"),
    [
        ([1 - 0.01 * count for count in COUNTS], True, True),
        ([1 - 0.1 * math.log(count) ** 0.5 for count in COUNTS], False, False),
        ([0.5 + 0.01 * count for count in COUNTS], False, False),
    ],
)
def test_a_line_is_one_that_rises(accuracies, linear, not_log):
    rows = series("whole", accuracies, FLAT)
    assert judged("fit01-linear", rows).holds is linear
    assert judged("fit01-not-log", rows).holds is not_log
    assert judged("fit01-linear-other", series("other table", accuracies[:4], FLAT[:4])).holds is linear


@pytest.mark.parametrize(("own", "holds", "beyond"), [(0.1, True, True), (0.3, False, False), (0.4, False, False)])
def test_sharing_costs_what_values_err_more_together(own, holds, beyond):
    found = judged("fit01-shared", company("descent", DOWN, own=[own] * 3))
    assert (found.holds, beyond_twin(found)) == (holds, beyond)


def laws(shared, more=0.001):
    """Errors as measured and by the law at three K, and what more pairs leave at the largest."""
    figure = {"figure": LAWS}
    rows = measured("measured", [{1: 0.1, 2: 0.1, 4: 0.2}] * 3, **figure)
    rows += measured("shared", [{1: shared, 2: shared, 4: shared}] * 3, **figure)
    rows += measured("left", [more / shared if shared else math.nan] * 3, figure=MORE_PAIRS)
    return rows


def test_laws_are_held_against_the_errors_measured():
    facts = {MORE_PAIRS: {"floor_told": 0.1}}
    assert judged("fit01-law", laws(0.13)).holds is True  # off by 0.03, 0.03, 0.07
    assert judged("fit01-law", laws(0.3)).holds is False
    assert judged("fit01-more-pairs", laws(0.13), facts=facts).holds is True
    found = judged("fit01-more-pairs", laws(0.13, more=0.12), facts=facts)
    assert (found.holds, found.measured[:5]) == (False, "0.923")
    assert found.measured.endswith("of the error; floor 0.1")


# printed numbers -----------------------------------------------------------------------------------------------------


def test_printed_tables_fit_as_the_specification_has_it():
    mistral, qwen = (straight_line(table.values, table.test_error) for table in VALUE_TABLES.values())
    assert mistral == pytest.approx((0.00810435, -0.0053913, 0.9460486), rel=1e-5)
    assert qwen == pytest.approx((0.02626087, -0.02147826, 0.9861214), rel=1e-6)
    assert straight_line(np.log([1, 2, 4, 8]).tolist(), VALUE_TABLES[1].test_error)[2] == pytest.approx(
        0.9623, abs=5e-5
    )
    assert judged("fit01-printed").holds is True
    found = judged("fit01-printed-log")
    assert (found.holds, found.evidence["table_2"][0] > found.evidence["table_2"][1]) == (False, True)
    assert [table.r_squared for table in VALUE_TABLES.values()] == [0.95, 0.99]
    assert VALUE_TABLES[2].train_margin[3] / VALUE_TABLES[2].train_margin[0] == pytest.approx(0.357, abs=5e-4)


# numbers -------------------------------------------------------------------------------------------------------------


def test_answers_of_their_own_are_each_value_alone_at_a_rate_k_times_smaller():
    """Why the error of values with answers of their own is read from values trained alone."""
    feats = gaussian_groups(40, groups=4, width=12, noise=0.4, shared_norm=0.5, tokens="distinct", held_out=0.2, seed=2)
    together = sweep(feats, beta=0.3, learning_rate=2.0, steps=30)[0]
    for name, alone in zip(
        feats.groups,
        sweep(feats, beta=0.3, learning_rate=0.5, steps=30, groups=[(n,) for n in feats.groups]),
        strict=True,
    ):
        for split in ("train", "held_out"):
            one, other = (run.curve("margin", group=name, split=split)[1] for run in (together, alone))
            assert one == pytest.approx(other, rel=1e-9)


def test_sampling_is_taken_off_the_gap():
    found = [
        values_found(gaussian_groups(80, groups=20, width=60, noise=0.5, shared_norm=1.0, held_out=0.0, seed=seed))
        for seed in range(4)
    ]
    models = [shape.model for shape in found if shape is not None]
    assert np.mean([model.noise for model in models]) < 0.47  # the gap is too long by what sampling adds
    assert np.mean([without_sampling(model) for model in models]) == pytest.approx(0.5, rel=0.02)
    assert math.isnan(without_sampling(replace(models[0], noise=2.0)))


def test_the_law_gives_the_error_of_a_trained_head_on_the_papers_clusters():
    errors, laws = [], []
    for seed in range(8):
        feats = gaussian_groups(80, groups=4, width=50, noise=0.4, shared_norm=0.5, held_out=0.0, seed=seed)
        run = sweep(feats, beta=0.1, learning_rate=1.0, steps=1)[0]
        assert run.joint_head is not None
        basis = feats.coordinates()[1]
        change = (basis[0] - basis[1]) @ run.joint_head
        directions, offset = np.eye(4, 50, k=1), 0.5 * np.eye(1, 50)[0]
        errors.append(head_error(np.tile(change, (4, 1)), directions, offset, 0.4).mean())
        laws.append(_predicted(values_found(feats), 4))
    shared, own, floor, more = np.mean(laws, axis=0)
    assert shared == pytest.approx(np.mean(errors), rel=0.05)
    assert own < floor < more < shared
    assert more == pytest.approx(floor, rel=0.01)


def test_single_margins_are_held_against_both_lines():
    setting = {"beta": 1.0, "learning_rate": 0.01}
    margins = {1: np.array([0.01, 0.02, -9.0]), 2: np.array([0.04, 0.01, -9.0]), 64: np.array([9.0, -9.0, 0.0])}
    run = Trajectory.from_rows([], settings=setting, margins=margins)
    low, high = beside_lines(run, np.array([0, 1]), 1, 1.0)
    assert low == pytest.approx(0.01 / (0.02 / 8))
    assert high == pytest.approx(min(0.05 / 0.02, 0.1 / 0.04))  # step 64 is beyond tau_1 = 22
    assert all(math.isnan(share) for share in beside_lines(run, np.array([0, 1]), 1, 10.0))
    assert beside_lines(run, np.array([2]), 1, 1.0)[1] == math.inf


# end to end ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(builtin_model, tmp_path_factory):
    """The recipe on four built-in behaviours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFDYN_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = load_dataset("builtin", groups=list(load_dataset("builtin").groups[:4]), limit=20)
        context = Context(preset=presets.preset_named("smoke"), data=(data,), models=(builtin_model,))
        runs = plan(context)
        done = _Landed(runs, launch(list(runs.values()), progress=False)[0])
        return context, done, Landed.of(context, done), RECIPE.results(context, done)


@pytest.mark.thorough
def test_figures_are_whole_and_can_be_drawn(found):
    results = found[3]
    assert [figure.id.removeprefix(f"{B}-") for figure in results.figures] == [
        "fig01a", "fig01b", "fig02", "fig05", "fig05e", "fig05f", "fig05g", "fig07", "fig08", "fig09", "fig10", "fig11",
        "table01", "table02", "fit01", "fit01b",
    ]  # fmt: skip
    assert {figure.spec for figure in results.figures} == set(RECIPE.figures)
    for figure in results.figures:
        assert figure.table().num_rows > 0
        assert reproduced_figure(figure).get_figwidth() < 20
    assert any(note.startswith("One model was given") for note in results.notes)
    assert any(note.endswith("so the figures end there.") for note in results.notes)


@pytest.mark.thorough
def test_figure_five_has_the_papers_panels_and_those_of_the_code_beside_them(found):
    context, _, landed, results = found
    with_code = replace(
        landed,
        heads={**landed.heads, "adam, code": landed.heads["adam"]},
        wholes={**landed.wholes, "whole, code": landed.wholes["whole"]},
    )
    figures = {figure.id: figure for figure in figures_of(context, with_code, results.measured)}
    panels = figures[f"{B}-fig05"].panels
    assert [panel.title for panel in panels] == [
        "(a) last layer, training", "(b) last layer, test", "(c) whole model, training", "(d) whole model, test",
        "(e) last layer, norm twice as in the code, training", "(f) last layer, norm twice as in the code, test",
        "(g) whole model, rate of the plots, training", "(h) whole model, rate of the plots, test",
    ]  # fmt: skip
    assert [line.label for line in panels[0].lines] == ["K = 1", "K = 2", "K = 4"]
    assert [line.shade for line in panels[0].lines] == pytest.approx([0.1, 0.5, 0.9])
    drawn = next(figure for figure in results.figures if figure.id == f"{B}-fig05")
    assert [panel.title for panel in drawn.panels] == [panel.title for panel in panels[:4]]


def setup_of(run) -> Any:
    return run.setup


def test_the_published_code_has_two_norms_and_another_rate(context):
    runs = plan(replace(context, compat=True))
    assert [runs[f"features{code}", MODEL, 0].double_norm for code in ("", ", code")] == [False, True]
    assert runs["adam, code", MODEL, 0].start == runs["features, code", MODEL, 0]
    text, code = (setup_of(runs[name, MODEL, 0, 1]).learning_rate for name in ("whole", "whole, code"))
    assert code == pytest.approx(text / math.sqrt(10))
    without = plan(context)
    assert set(without) < set(runs)
    assert not any("code" in key[0] for key in without)


@pytest.mark.thorough
def test_claims_are_judged_and_one_seed_gives_no_verdict(found):
    results = found[3]
    verdicts = {id: claim.judge(results.measured) for id, claim in CLAIMS.items()}
    told = {"fig05-theorem-clusters", "fig05-sharing", "fit01-printed", "fit01-printed-log"}
    assert {id for id, verdict in verdicts.items() if verdict.holds is not None} == told
    assert verdicts["fig05-theorem-clusters"].holds is True
    low, high = (
        verdicts["fig05-theorem-clusters"].evidence[key] for key in ("margin_over_lower_line", "upper_line_over_margin")
    )
    assert 6 < low < 8  # THEORY 3.4: 7.1 to 7.5, and 5.0 to 5.2
    assert 4 < high < 6
    assert "d <= 5 Q" in verdicts["fig05-theorem"].because


@pytest.mark.thorough
def test_numbers_are_those_of_the_trajectories(found):
    _, done, landed, results = found
    rows = results.measured
    assert rows.by_seed("K", {}) == [[1, 2, 4]]
    head = done["adam", MODEL, 0].trajectories[1]
    names = landed.sets[2]
    pairs = [head.where(run="joint", group=name, split="held_out")["pairs"][0].as_py() for name in names]
    mean = np.average([head.final("margin", group=name, split="held_out") for name in names], weights=pairs)
    there = {"split": "held_out", "step": "late"}
    assert rows.by_seed("margin", {"figure": "adam", **there})[0][1] == pytest.approx(mean)
    whole = done["whole", TWIN, 0, 4].trajectory
    errors = [whole.final("reward_accuracy", group=name, split="held_out") for name in landed.sets[4]]
    accuracies = rows.by_seed("reward accuracy", {"figure": "whole", **there}, TWIN)[0]
    assert accuracies[2] == pytest.approx(np.mean(errors))
    ring = done["ring", "descent", MODEL, 0].trajectories
    assert len(ring) == 4 + 4 + 1
    alone = [run.final("margin", group=name, split="train") for run, name in zip(ring, landed.sets[4], strict=False)]
    together = [ring[-1].final("margin", group=name, split="train") for name in landed.sets[4]]
    margins = rows.by_seed("margin", {"figure": ring_of("descent"), "split": "train", "step": "late"})[0]
    assert margins[0] == pytest.approx(np.mean(alone), rel=0.02)  # groups have 15 to 17 training pairs
    assert margins[2] == pytest.approx(np.mean(together), rel=0.05)


def test_a_second_model_has_runs_of_its_own_and_equal_setups_are_one_run(context, builtin_model):
    other = replace(builtin_model, fingerprint="f" * 64)
    runs = plan(replace(context, models=(builtin_model, other)))
    of_other = {key for key, run in runs.items() if run.model.fingerprint == "f" * 64}
    assert {key[0] for key in of_other} == {"other", "other table"}
    assert runs["whole", MODEL, 0, 2].key == runs["table", MODEL, 0, 2].key
    assert runs["other", TWIN, 0, 2].key != runs["whole", TWIN, 0, 2].key
    assert not any(key[0] in {"other", "other table"} for key in plan(context))


def test_the_published_plan_has_the_published_models_rates_and_numbers(context):
    paper = presets.preset_named("paper")
    runs = plan(replace(context, preset=paper, models=()))
    wholes = {key[0]: run for key, run in runs.items() if len(key) == 4 and key[1] == MODEL}
    assert {way: (run.model.name, setup_of(run).learning_rate, setup_of(run).steps) for way, run in wholes.items()} == {
        "whole": ("meta-llama/Llama-3.1-8B", 1e-5, 60), "other": ("meta-llama/Llama-2-7b-hf", 1e-5, 60),
        "table": ("mistralai/Mistral-7B-v0.3", 10**-6.5, 60), "other table": ("Qwen/Qwen3-8B-Base", 10**-6.5, 60),
    }  # fmt: skip
    numbers = {way: sorted({key[3] for key in runs if key[0] == way}) for way in wholes}
    assert numbers["whole"] == numbers["other"] == COUNTS
    assert numbers["table"] == numbers["other table"] == COUNTS[:4]
    assert setup_of(runs["adam", MODEL, 0]).optimizer == "adam"
    assert setup_of(runs["descent", MODEL, 0]).optimizer == "sgd"


@pytest.mark.slow
def test_on_shuffled_labels_nothing_is_held_beyond_the_twin(monkeypatch):
    """The built-in data with every label drawn by lot, under the rules and seeds of `small` at a smaller size."""
    small = presets.PRESETS["small"]
    monkeypatch.setitem(presets.PRESETS, "small", replace(small, rows=60, measured_pairs=10, jobs=1))
    data = load_dataset("builtin").with_noise(0.5, seed=11)
    found = run_recipe("value-scaling", preset="small", data=data)
    assert [row["id"] for row in found.claims if row["control"] and row["holds"] and row["control"]["beyond"]] == []


@pytest.mark.thorough
def test_what_the_laws_cannot_say_is_told(found):
    """No gap beyond noise: no numbers; no error at all: nothing that more pairs could lower."""
    landed = found[2]
    for shared, why in ((math.nan, "the gaps of these values are no larger"), (0.0, "by the law there is no error")):
        laws = {"measured": 0.1, "shared": shared, "own": 0.1, "floor": 0.1, "more": 0.0, "left": math.nan}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measures, "_laws", lambda _, laws=laws: [{name: {4: value} for name, value in laws.items()}])
            rows = measures.measured_of(landed, one_model=True)
        told = CLAIMS["fit01-more-pairs"].judge(rows)
        assert (told.holds, told.because.startswith(why)) == (None, True)
        assert (CLAIMS["fit01-law"].judge(rows).because == told.because) is math.isnan(shared)
