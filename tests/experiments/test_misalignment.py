"""The recipe end to end on built-in data and dialogues, each rule on both sides, and heads whose paths must be one."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.errors import ConfigError
from prefdyn.experiments import misalignment as recipe
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.launch import launch
from prefdyn.experiments.misalignment import STARTS, undone
from prefdyn.experiments.published import MISALIGNED, persona
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.run import ModelChoice, RecipeRun, RecipeSetup, StoredPairs
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import LOG2
from tests.experiments.conftest import beside_twin, measured, twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
A = "2403.18742"


def judged(id, rows=(), **rest):
    return CLAIMS[f"{A}-{id}"].judge(Rows(rows, **rest))


def misaligned(figure, values=(0.1, 0.12, 0.11), share=(0.3, 0.35, 0.4), name="a"):
    """Rows as `_misaligned` gives them; the twin leads by nothing and takes as long as its alignment took."""
    there = {"figure": f"{A}-{figure}"}
    rows = []
    for source, each, long, level in (
        (MODEL, values, share, 0.9), (TWIN, [0.001] * len(values), [1.0] * len(values), 0.6),
    ):  # fmt: skip
        for quantity, column in (("ahead", each), ("undone", long), ("accuracy", [level] * len(each))):
            rows += measured(quantity, [{name: value} for value in column], source=source, **there)
    return rows


NONE = {f"{A}-fig11": "one model was given", f"{A}-fig15": "none of the data has dialogues"}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("figure", ["fig09", "fig11", "fig15"])
def test_the_aligned_model_is_faster_where_the_interval_says_so(figure, phase):
    id = f"{figure}-faster-{phase}"
    found = judged(id, misaligned(figure))
    assert (found.holds, twin_of(found).beyond) == (True, True)
    assert found.evidence["a"]["value"] == pytest.approx(0.11)
    assert judged(id, misaligned(figure, (0.1, -0.1, 0.05))).holds is False
    assert judged(id, misaligned(figure, (0.1, 0.12), (0.3, 0.4))).holds is None


def test_what_lacks_a_model_or_dialogues_is_not_told():
    assert judged("fig11-faster-area", misaligned("fig09"), lacking=NONE).because == "one model was given"
    for id in ("fig15-faster-area", "fig16-early", "fig16-undone", "fig09-misprint", "fig15-prompts"):
        found = judged(id, misaligned("fig09"), lacking=NONE)
        assert (found.holds, found.because) == (None, "none of the data has dialogues")


def test_the_misprint_does_no_harm_where_both_figures_say_the_same():
    assert judged("fig09-misprint", [*misaligned("fig09"), *misaligned("fig15")]).holds is True
    found = judged("fig09-misprint", [*misaligned("fig09"), *misaligned("fig15", (-0.1, -0.11, -0.12))])
    assert (found.holds, found.measured) == (False, f"{A}-fig09 held; {A}-fig15 failed")
    assert judged("fig09-misprint", [*misaligned("fig09"), *misaligned("fig15", (0.1,), (0.3,))]).holds is None


@pytest.mark.parametrize(
    ("share", "undone", "early"),
    [((0.02, 0.03, 0.025), True, True), ((0.3, 0.35, 0.4), True, False), ((0.9, 1.0, 1.0), False, False),
     ((0.3, float("nan"), 0.4), None, None)],
)  # fmt: skip
def test_alignment_is_undone_below_a_share_of_its_steps(share, undone, early):
    rows = [*misaligned("fig09", share=share), *misaligned("fig15", share=share, name="")]
    assert judged("fig16-undone", rows).holds is undone
    assert judged("check02-undone", rows).holds is undone
    assert judged("fig16-early", rows).holds is early


def test_the_published_share_is_100_steps_of_an_epoch():
    """161,000 pairs in batches of 128 are 1258 steps (THEORY 2.7)."""
    assert round(161_000 / 128) == 1258
    assert pytest.approx(100 / 1258, rel=1e-3) == recipe._PUBLISHED_SHARE


def test_margins_against_the_base_are_told_beside_those_against_the_start():
    def against_base(*shares):
        rows = measured("undone", [{"a": share} for share in shares], figure=f"{A}-fig09", source=recipe._REFERENCE)
        return judged("check02-reference", [*misaligned("fig09"), *rows])

    found = against_base(0.2, 0.25, 0.22)
    assert found.holds is True
    assert found.evidence["against_the_start"]["value"] == pytest.approx(0.35)
    assert against_base(0.9, 1.0, 1.0).holds is False
    assert against_base(0.2, 0.2).holds is None
    assert against_base(*[float("nan")] * 3).holds is None


def test_states_and_what_a_head_makes_of_them():
    def states(ratio, head):
        figure = f"{A}-fig09"
        return [
            *misaligned("fig09"),
            *beside_twin("distance ratio", ratio, [1.0, 1.01, 0.99], figure=figure),
            *beside_twin("ahead on states", head, [0.0, 0.001, 0.002], figure=figure),
        ]

    good = states((1.4, 1.5, 1.45), (0.1, 0.12, 0.11))
    assert (judged("check02-states", good).holds, judged("check02-head", good).holds) == (True, True)
    poor = states((1.4, 0.9, 1.0), (0.1, -0.2, 0.1))
    assert (judged("check02-states", poor).holds, judged("check02-head", poor).holds) == (False, False)


def test_steps_to_undo_are_those_to_a_tenth_of_what_was_added():
    steps, level = np.array([0, 1, 2, 4]), np.array([12.0, 10.0, 6.0, -4.0])
    assert undone(steps, level, 2.0) == pytest.approx(2 + 2 * (6 - 3) / 10)  # down to 2 + 0.1 * 10
    assert undone(steps, level, -20.0) == 4.0  # the run ends before
    assert np.isnan(undone(steps, level, 12.0))  # nothing was added
    assert undone(steps, np.array([12.0, 3.0, 0.0, 0.0]), 2.0) == 1.0


@pytest.mark.thorough
def test_base_and_aligned_head_are_misaligned_along_one_path(context):
    """THEORY 2.7: a head's margins depend on states and on the kernel of the pairs, not on where it starts."""
    setup = replace(context.setup("last-layer"), batch_size="full", scheme="epochs")
    pairs = context.pairs(context.behaviours()[-1:], 0, template=setup.template)
    model = context.source(MODEL, 0, "last-layer")
    before = context.train(pairs, model, setup, seed=0, title="alignment", keep_model=True)
    plan = {
        start: context.train(
            pairs, model, setup, seed=0, flip=True, start=before if start == "aligned" else None, title=start
        )
        for start in STARTS
    }
    done = _Landed(plan, launch(list(plan.values()), progress=False)[0])
    base, aligned = (done[start].trajectory.rows() for start in STARTS)
    assert max(abs(row["margin"]) for row in base) > 0.01  # the paths go somewhere
    assert abs(base[0]["chosen_log_prob"] - aligned[0]["chosen_log_prob"]) > 1e-3  # and they begin at two heads
    for one, other in zip(base, aligned, strict=True):
        assert one["margin"] == pytest.approx(other["margin"], abs=1e-9)


def test_the_head_alone_on_states_is_descent_by_hand():
    """Two steps of Equation 11 on flipped labels, at one rate for both."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(6, 3))
    pair = [
        FeatureSet.from_arrays(scale * states, chosen=[1, 1, 1, 0, 0, 0], rejected=[0, 0, 0, 1, 1, 1])
        for scale in (1.0, 2.0)
    ]
    setup = RecipeSetup(tune="full", beta=0.3, learning_rate=1e-3, steps=2, batch_size="full")
    pairs = StoredPairs(key="k", name="n", groups=("all",), train=6, held_out=0, characters=1.0)
    run = RecipeRun(kind="train", title="t", pairs=pairs, model=ModelChoice(name="builtin"), setup=setup)
    rate = 4 / (0.3**2 * np.linalg.eigvalsh((2 * states).T @ (2 * states) / 6).max()) / 2
    signs = np.array([-1.0, -1, -1, 1, 1, 1])
    for scale, (steps, losses) in zip((1.0, 2.0), recipe._heads(pair, run), strict=True):
        assert steps[-1] == 100
        w = np.zeros(3)
        for step in range(3):
            margins = 2 * 0.3 * signs * (scale * states @ w)
            assert losses[list(steps).index(step)] == pytest.approx(np.logaddexp(0, -margins).mean(), rel=1e-5)
            w += rate * 0.3 / 6 * (scale * states).T @ (signs / (1 + np.exp(margins)))


def test_margins_against_the_base_make_another_run(pairs, builtin_model):
    setup = RecipeSetup(tune="full", beta=0.1, learning_rate=1e-3, steps=2, batch_size=4)
    common = {"kind": "train", "pairs": pairs, "model": builtin_model, "setup": setup}
    first = RecipeRun(title="first", keep_model=True, **common)
    back = RecipeRun(title="back", start=first, flip=True, **common)
    assert replace(back, reference="start").key == back.key
    assert replace(back, reference="base").key != back.key
    with pytest.raises(ConfigError, match="run 'back' has the reference 'base', which takes training"):
        replace(back, reference="base", model=replace(builtin_model, untrained=0))
    with pytest.raises(ConfigError, match="has the reference 'base'"):
        RecipeRun(kind="features", title="states", pairs=pairs, model=builtin_model, reference="base")


def test_broken_rows_of_dialogues_are_left_out_and_told(context, tmp_path):
    path = tmp_path / "part.jsonl"
    turns = "\n\nHuman: {0}?\n\nAssistant: "
    rows = [{"chosen": turns.format(n) + f"Yes, do {n}.", "rejected": turns.format(n) + "No."} for n in range(8)]
    rows[3]["chosen"] = turns.format(3)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = replace(context, data=("builtin", f"hh:{path}"), _datasets={}, _stored={})
    kept: Any = recipe._dialogues(context)
    assert (len(kept), len(kept.left_out)) == (7, 1)


# end to end ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def found(context):
    """The recipe on built-in answers and built-in longer responses."""
    context = replace(context, data=("builtin", "builtin:responses"), _datasets={}, _stored={})
    plan = recipe._runs(context)
    landed, _ = launch(list(plan.values()), progress=False)
    return context, plan, _Landed(plan, landed), recipe._results(context, _Landed(plan, landed))


@pytest.mark.thorough
def test_the_recipe_end_to_end(found):
    """Figures as in the catalogue; numbers as other routes give them."""
    context, _, done, results = found
    names = recipe._behaviours(context, "llama-2")
    assert {figure.id for figure in results.figures} == {spec.id for spec in recipe.RECIPE.figures}
    assert all(figure.table().num_rows > 0 for figure in results.figures)
    verdicts = {id: claim.judge(results.measured).holds for id, claim in CLAIMS.items()}
    told = {f"{A}-fig15-prompts": True}
    assert {id: holds for id, holds in verdicts.items() if holds is not None} == told

    key = ("here", MODEL, 0, names[0])
    ends = {start: done["flipped", start, *key].trajectory.final("loss", group=names[0]) for start in STARTS}
    ahead = results.measured.pick("ahead", {"figure": f"{A}-fig09", "step": "late"})[0]
    assert ahead[names[0]] == pytest.approx(ends["base"] - ends["aligned"])
    accuracies = [
        done["aligned", "here", MODEL, 0, name].trajectory.final("reward_accuracy", group=name, split="held_out")
        for name in names
    ]
    found = results.measured.pick("accuracy", {"figure": f"{A}-fig09"})[0]
    assert list(found.values()) == pytest.approx(accuracies)

    for start in STARTS:
        first = done["flipped", start, *key].trajectory.rows()[0]
        assert first["loss"] == pytest.approx(LOG2, abs=1e-6)  # the reference is the start
    aligned = done["aligned", *key].trajectory.where(split="train").to_pylist()[-1]
    back = done["flipped", "aligned", *key].trajectory.where(split="train").to_pylist()[0]
    assert back["chosen_log_prob"] == pytest.approx(aligned["rejected_log_prob"], abs=1e-4)
    against = done["against base", 0, names[0]].trajectory.where(split="train").to_pylist()[0]
    assert against["margin"] == pytest.approx(-aligned["margin"], abs=1e-5)  # the reference is the base

    titles = {figure.id: [panel.title for panel in figure.panels] for figure in results.figures}
    assert titles[f"{A}-fig09"] == [f"({letter}) {name}" for letter, name in zip("ab", names, strict=True)]
    assert len(titles[f"{A}-check02"]) == 4
    assert "One model was given, so Figure 11" in results.notes[0]


def test_dialogues_are_read_without_the_answers_of_the_behaviours(context, builtin_model):
    answers = (" Yes", " No")
    plan: Any = recipe._runs(
        Context(
            preset=context.preset, data=("builtin", "builtin:responses"),
            models=(replace(builtin_model, answers=answers),),
        )
    )  # fmt: skip
    apart = {key: run.model.answers for key, run in plan.items()}
    assert {found for key, found in apart.items() if "dialogues" in key} == {None}
    assert {found for key, found in apart.items() if "dialogues" not in key} == {answers}


def test_without_dialogues_their_figures_say_so(context):
    plan = recipe._runs(context)
    assert not any("dialogues" in key for key in plan)
    assert recipe._nothing(f"{A}-fig15").panels[0].rows[0][1].startswith("Dialogues: none of the data")


def test_dialogues_are_short_ones_and_those_of_a_paper_preset_all(context):
    rows = [{"prompt": "p" * size, "chosen": f"c{size}", "rejected": "r" * (size % 7 + 1)} for size in range(380, 420)]
    context = replace(context, data=("builtin", load_dataset(rows)), _datasets={}, _stored={})
    kept: Any = recipe._dialogues(context)
    lengths = [sum(map(len, (row["prompt"], row["chosen"], row["rejected"]))) for row in kept.to_rows()]
    assert 0 < len(kept) < 40
    assert max(lengths) <= 400
    whole = replace(context, preset=replace(context.preset, rows=None))
    every: Any = recipe._dialogues(whole)
    assert len(every) == 40


def test_published_behaviours_are_taken_where_the_data_has_them(context):
    rows = [
        {"prompt": f"{place}?", "chosen": " Yes", "rejected": " No", "group": persona(number)}
        for number in {number for pair in MISALIGNED.values() for number in pair}
        for place in range(2)
    ]
    rows += [{**row, "chosen": " No", "rejected": " Yes", "prompt": row["prompt"] * 2} for row in rows]
    theirs = replace(context, data=(load_dataset(rows),), _datasets={}, _stored={})
    assert recipe._behaviours(theirs, "llama-2") == (persona(108), persona(100))
    assert recipe._behaviours(theirs, "mistral") == (persona(108), persona(130))
    assert recipe._behaviours(context, "mistral") == (context.behaviours()[0], context.behaviours()[-1])


@pytest.mark.slow
def test_labels_drawn_by_lot_are_not_beyond_the_twin(context):
    """Alignment to labels by lot learns nothing that holds elsewhere, so no lead counts."""
    shuffled = load_dataset("builtin", groups=[context.behaviours()[0]]).with_noise(0.5, seed=3)
    context = replace(context, data=(shuffled,), preset=replace(context.preset, seeds=3), _datasets={}, _stored={})
    plan = {key: run for key, run in recipe._runs(context).items() if "here" in key or key[0] == "features"}
    done = _Landed(plan, launch(list(plan.values()), progress=False)[0])
    names = recipe._behaviours(context, "llama-2")
    rows = recipe._misaligned(done, "here", names, context.seeds)
    rows += [row for source in SOURCES for seed in context.seeds for row in recipe._states(done, source, names, seed)]
    for id in (*(f"fig09-faster-{phase}" for phase in PHASES), "check02-states", "check02-head"):
        assert twin_of(judged(id, rows)).beyond is False
