"""States before and after DPO: which runs, both sides of each rule, and the recipe end to end against other code."""

import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.experiments import distinguishability
from prefdyn.experiments import distribution_shift as recipe
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.launch import launch
from prefdyn.experiments.presets import preset_named
from prefdyn.experiments.published import CONTRASTED, FIVE, PICTURED, persona
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import CODE, Row, Rows
from prefdyn.experiments.run import ModelChoice
from prefdyn.experiments.separability import CLOUDS, READERS, SPLITS
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.report.reproduce import reproduced_figure
from prefdyn.training.train import run_training
from tests.experiments.conftest import beside_twin, learned, measured, twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
A = "2403.18742"
LEARNED = {MODEL: [0.9, 0.91, 0.92], TWIN: [0.6, 0.61, 0.62]}
RATIOS = ("distinguishable", "trace", "variance")


def personas(names) -> PreferenceDataset:
    return PreferenceDataset.from_rows(
        [
            {"prompt": f"{name} {number}?", "group": name, "chosen": chosen, "rejected": rejected}
            for name in names
            for number, (chosen, rejected) in enumerate([(" Yes", " No"), (" No", " Yes")] * 10)
        ],
        name="personas",
    )


# rules ---------------------------------------------------------------------------------------------------------------


NUMBERS = {f"{A}-fig{number}": (number,) for number in PICTURED} | {
    recipe._ALL: recipe._BEHAVIOURS, recipe._EVERY_BETA: recipe._BETAS,
}  # fmt: skip


def shifted(values, learned=None, *, pictures=tuple(PICTURED), code=None) -> list[Row]:
    """Every measure of some pictures moved by the same, model and twin: logarithms of ratios, or differences."""
    rows = []
    for figure, numbers in NUMBERS.items():
        for number in set(numbers) & set(pictures):
            for source, each in (values | ({CODE: code} if code else {})).items():
                mine = {"figure": figure, "source": source}
                for split in SPLITS:
                    for name in (*CLOUDS, *(READERS if split == "held_out" else ())):
                        rows += measured(name, [{number: value} for value in each], split=split, **mine)
                if source in LEARNED:
                    accuracies = (learned or LEARNED)[source]
                    rows += measured("accuracy", [{number: value} for value in accuracies], **mine)
    return rows


def judged(id, rows, **rest):
    return CLAIMS[f"{A}-{id}"].judge(Rows(rows, **rest))


UP = {MODEL: [0.5, 0.6, 0.55], TWIN: [0.1, 0.12, 0.11]}
DOWN = {source: [-value for value in values] for source, values in UP.items()}
WIDE = {MODEL: [1.5, -0.6, 0.75], TWIN: [0.1, 0.12, 0.11]}


@pytest.mark.parametrize("number", sorted(PICTURED))
@pytest.mark.parametrize("short", RATIOS)
def test_distances_must_grow_and_variances_fall(number, short):
    falls, id = short != "distinguishable", f"fig{number}-{short}"
    right, wrong = (DOWN, UP) if falls else (UP, DOWN)
    held = judged(id, shifted(right))
    assert held.holds is True
    assert twin_of(held).beyond is True
    assert f"{math.exp(np.mean([-0.5, -0.6, -0.55]) if falls else 0.55):.2f}"[:3] in held.measured
    assert judged(id, shifted(wrong)).holds is False
    assert judged(id, shifted(WIDE)).holds is False
    few = judged(id, shifted({source: values[:2] for source, values in right.items()},
                             {source: values[:2] for source, values in LEARNED.items()}))  # fmt: skip
    assert few.holds is None


def test_pictures_of_the_other_model_need_one():
    lacking = {f"{A}-fig13": "one model was given", f"{A}-fig14": "one model was given"}
    for number in ("13", "14"):
        found = judged(f"fig{number}-distinguishable", shifted(UP), lacking=lacking)
        assert (found.holds, found.because) == (None, "one model was given")
    assert judged("fig08-distinguishable", shifted(UP), lacking=lacking).holds is True


@pytest.mark.parametrize("name", ["gap", "probe"])
def test_held_out_pairs_must_come_apart_too(name):
    id = f"fig08-held-out-{name}"
    assert [judged(id, shifted(values)).holds for values in (UP, DOWN)] == [True, False]
    assert "after less before 0.550" in judged(id, shifted(UP)).measured


def test_held_out_variance_must_fall():
    assert [judged("fig08-held-out-trace", shifted(values)).holds for values in (DOWN, UP)] == [True, False]


def test_across_betas_the_worst_one_decides_and_across_behaviours_the_mean():
    most = [number for number in PICTURED if number not in ("22", "26")]
    rows = [*shifted(UP, pictures=most), *shifted(DOWN, pictures=("22", "26"))]
    assert judged("fig22-betas-distinguishable", rows).holds is False
    assert judged("fig22-betas-distinguishable", shifted(UP)).holds is True
    assert judged("fig22-betas-trace", rows).holds is False  # the largest is that of the others
    found = judged("fig08-all-distinguishable", rows)
    assert found.holds is False  # the geometric mean is above 1, but signs of four up and one down may come by chance
    assert judged("fig08-all-distinguishable", shifted(UP)).holds is True
    assert found.measured.startswith(f"distinguishability D after over before {math.exp(0.55 * 3 / 5):.2f}")


def test_what_the_published_code_measures_is_told_beside():
    assert "as the published code does" not in judged("fig08-distinguishable", shifted(UP)).evidence
    told = judged("fig08-distinguishable", shifted(UP, code=DOWN[MODEL]))
    assert told.evidence["as the published code does"]["value"] == pytest.approx(math.exp(-0.55), rel=0.01)
    assert told.holds is True  # judged by the text


def test_labels_drawn_by_lot_pull_pairs_apart_but_never_beyond_the_twin():
    """Bodies fit their pairs, the model's more than the twin's; what is held out is read as by chance."""
    rng, held, beyond = np.random.default_rng(0), 0, 0
    for _ in range(12):
        lot = {source: rng.binomial(40, 0.5, 3) / 40 for source in LEARNED}
        up = {MODEL: rng.normal(0.8, 0.1, 3), TWIN: rng.normal(0.3, 0.1, 3)}
        found = judged("fig08-distinguishable", shifted(up, lot, pictures=("08",)))
        held, beyond = held + bool(found.holds), beyond + bool(twin_of(found).beyond)
    assert held > 6
    assert beyond == 0


def test_the_contrast_of_figure_2():
    def contrast(values):
        rows = beside_twin("contrast", values, [0.0, 0.1, -0.1], figure=f"{A}-fig02")
        return judged("fig02-contrast", [*rows, *learned(f"{A}-fig02")])

    assert contrast([1.0, 1.2, 1.1]).holds is True
    assert contrast([-1.0, 1.2, 1.1]).holds is False
    assert judged("fig02-contrast", [], lacking={f"{A}-fig02": "the data lacks it"}).because == "the data lacks it"


def test_states_normalised_twice_are_not_those_of_the_head():
    for twice, holds in (({"once": 0.0, "twice": 0.3}, False), ({"once": 0.0, "twice": 1e-4}, True), (None, None)):
        assert judged("fig02-states", [], facts={"twice": twice}).holds is holds


# runs ----------------------------------------------------------------------------------------------------------------


def test_runs_are_those_of_distinguishability(context):
    plan: Any = recipe._runs(context)
    theirs = {run.key for run in distinguishability._runs(context).values()}
    mine = {number: plan["trained", number, MODEL, 0] for number in PICTURED}
    assert all(run.keep_model for run in mine.values())
    assert {run.key for run in mine.values()} <= theirs
    assert [mine[number].setup.beta for number in ("08", "20", "21", "22", "26")] == [0.01, 0.001, 0.1, 1.0, 0.01]
    assert mine["13"].key == mine["08"].key  # one model: drawn from it
    assert plan["after", "text", "08", MODEL, 0].start == mine["08"]


def test_another_model_draws_figures_13_and_14(context, builtin_model):
    other = replace(builtin_model, fingerprint="f" * 64)
    plan: Any = recipe._runs(replace(context, models=(builtin_model, other)))
    prints = {number: plan["trained", number, MODEL, 0].model.fingerprint for number in PICTURED}
    assert {number for number, found in prints.items() if found == "f" * 64} == {"13", "14"}
    assert plan["trained", "13", TWIN, 0].model == replace(other, untrained=0)


def test_the_second_norm_of_the_code_is_for_rms_norms_alone(context, builtin_model):
    plan: Any = recipe._runs(replace(context, compat=True))
    assert plan["after", "code", "08", MODEL, 0].double_norm
    assert not plan["after", "text", "08", MODEL, 0].double_norm
    assert plan["twice"].double_norm
    plain = replace(context, compat=True, models=(replace(builtin_model, rms_norm=False),))
    assert not any("code" in key or key == "twice" for key in recipe._runs(plain))


def test_behaviours_are_the_published_ones_where_the_data_has_them():
    names = [*(persona(place) for place in (*FIVE, 130)), *CONTRASTED]
    context = Context(preset=preset_named("small"), data=(personas(names),), models=(ModelChoice(name="m"),))
    assert recipe._pictured(context) == {number: persona(place) for number, (place,) in PICTURED.items()}
    assert recipe._contrasted(context) == (CONTRASTED[0], persona(88), CONTRASTED[1])
    plan: Any = recipe._runs(context)
    assert plan["contrast", 2, TWIN, 1].pairs.groups == (CONTRASTED[1],)
    smoke = replace(context, preset=preset_named("smoke"))
    assert [recipe._pictured(smoke)[number] for number in ("08", "23", "24", "25", "26", "14")] == [
        persona(place) for place in (108, 108, 88, 88, 100, 130)
    ]
    few = Context(preset=preset_named("small"), data=(personas("ab"),), models=(ModelChoice(name="m"),))
    assert set(recipe._pictured(few).values()) == {"a", "b"}
    three = Context(preset=preset_named("small"), data=(personas("abc"),), models=(ModelChoice(name="m"),))
    assert recipe._pictured(three)["14"] == "c", "what is not there is stood in for by the last"
    assert recipe._contrasted(few) is None


# pictures ------------------------------------------------------------------------------------------------------------


def test_umap_is_asked_with_the_published_settings_panel_by_panel(monkeypatch):
    asked = []

    class Fake:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, states):
            return states[:, :2]

    module = ModuleType("umap")
    module.UMAP = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setattr(recipe, "_way", lambda: "umap")
    feats = extract(load_dataset("builtin", groups=["rises early"], limit=8), "builtin", cache=False, progress=False)
    panels = recipe._clouds([feats, feats], ["before", "after"])
    assert [settings["random_state"] for settings in asked] == [1234, 1234]
    assert all(set(settings) <= {"random_state", "n_jobs"} for settings in asked)  # the rest: the library's defaults
    assert (panels[0].x_label, panels[0].limit) == ("UMAP 1", None)


def test_principal_axes_share_one_plane_and_scale():
    feats = extract(load_dataset("builtin", groups=["rises early"], limit=20), "builtin", cache=False, progress=False)
    wider = replace(feats, states=3 * feats.states)
    one, other = recipe._clouds([feats, wider], ["before", "after"])
    assert (one.limit, one.x_label) == (other.limit, other.x_label)
    assert "% of the variance" in one.x_label
    for line, far in zip(one.lines, other.lines, strict=True):
        assert far.x == pytest.approx(3 * line.x, abs=1e-4)
        assert far.y == pytest.approx(3 * line.y, abs=1e-4)
    assert [(line.label, line.colour) for line in one.lines] == [("Yes", "yellowgreen"), ("No", "dimgrey")]
    assert sum(len(line.x) for line in one.lines) == len(feats)


# end to end ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_recipe_end_to_end(context, own_cache):
    """Figures as in the catalogue; and one shift trained, read and measured again without any of it."""
    context = replace(context, compat=True)
    plan: Any = recipe._runs(context)
    landed, _ = launch(list(plan.values()), progress=False)
    results = recipe._results(context, _Landed(plan, landed))
    assert [figure.id for figure in results.figures] == [spec.id for spec in recipe.RECIPE.figures]
    for figure in results.figures:
        assert figure.table().num_rows > 0
        assert {len(panel.lines) for panel in figure.panels} == {2}
    assert reproduced_figure(results.figures[1]).get_axes()
    came = {id: claim.judge(results.measured) for id, claim in CLAIMS.items()}
    assert {id for id, each in came.items() if each.holds is not None} == {f"{A}-fig02-states"}
    assert came[f"{A}-fig02-states"].holds is False  # this model's final norm is an RMSNorm
    shown = next(figure for figure in results.figures if figure.id == f"{A}-fig08")
    name = context.behaviours()[0]
    assert [panel.title for panel in shown.panels] == [
        f"{when} DPO{more}: {name}" for more in ("", ", normalised twice") for when in ("Before", "After")
    ]
    assert "stand in for those of the paper: Figure 8: tells the truth" in results.notes[1]

    setup = context.setup("full")
    pairs = plan["trained", "08", MODEL, 0].pairs.load()
    folder = own_cache / "mine"
    run_training(
        pairs, "builtin", tune="full", objective=DPO(beta=setup.beta), learning_rate=setup.learning_rate,
        optimizer=setup.stepper, steps=setup.steps, batch_size=setup.batch_size, clip=setup.clip, out=folder,
        progress=False, cache=False,
    )  # fmt: skip
    ratios = {}
    for when, model in (("before", "builtin"), ("after", str(folder / "model"))):
        feats = extract(pairs, model, cache=False, progress=False)
        states, signs = feats.states.astype(float), feats.signs(0)
        assert signs is not None
        yes = signs > 0
        distance = np.linalg.norm(states[yes].mean(axis=0) - states[~yes].mean(axis=0))
        trace = max(np.trace(np.cov(states[side].T)) for side in (yes, ~yes))
        ratios[when] = np.log([distance, trace / distance**2])
    there = {"figure": f"{A}-fig08", "split": "all"}
    moved = [results.measured.pick(name, there)[0]["08"] for name in ("distinguishability", "trace_ratio")]
    expected = ratios["after"] - ratios["before"]
    assert moved == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0]) > 1e-3
