r"""Do the findings of 2403.18742 stand when its choices change? The first and the third check proposed for it.

Other betas, learning rates, draws of rows and sizes of model; what the theorems ask of real states; and rows that are
not independent.

| module | holds |
|---|---|
| `settings` | the order of learning at other settings, draws and sizes |
| `theorems` | conditions of Theorems 4.2 and 4.3, and two of their errors |
| `register` | errors of the sources that need no run |
| `dependent` | the findings on rows that are not independent |
| `draws` | how such rows are drawn, what they are worth, and samples that break Theorem 4.1 |

All but `draws` hold measures and claims of their own, and figures where they have some.
"""

from dataclasses import replace
from typing import Any

from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.recipe import Done, Figure, Plan, Recipe, Results
from prefdyn.experiments.robustness_of_claims import dependent, register, settings, theorems
from prefdyn.experiments.robustness_of_claims.draws import violations
from prefdyn.experiments.robustness_of_claims.settings import REFERENCE, SETTINGS
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.run import ModelChoice, RecipeSetup


def _runs(context: Context) -> Plan:
    names, setup = context.behaviours(), context.setup("last-layer")
    alone = tuple((name,) for name in names)
    plan: dict[Any, Any] = {}
    for seed in context.seeds:
        pairs = context.pairs(names, seed, template=setup.template)
        for source in SOURCES:
            features = context.features(pairs, context.source(source, seed, "last-layer"))
            plan["features", 0, source, seed] = features
            for setting in SETTINGS:
                plan["sweep", *setting, source, seed] = context.simulate(
                    features, _full_batch(setup, setting), seed=seed, subsets=alone
                )
            for place, model in enumerate(_further(context), start=1):
                theirs = context.features(pairs, model if source == MODEL else replace(model, untrained=seed))
                plan["features", place, source, seed] = theirs
                plan["reference", place, source, seed] = context.simulate(
                    theirs, _full_batch(setup, REFERENCE), seed=seed, subsets=alone
                )
    return plan


def _full_batch(setup: RecipeSetup, setting: tuple[float, float]) -> RecipeSetup:
    beta, rate = setting
    return replace(setup, beta=beta, learning_rate=rate, batch_size="full", scheme="epochs")


def _further(context: Context) -> tuple[ModelChoice, ...]:
    """All models but the first."""
    other = context.other_model()
    return context.models[1:] or (() if other is None else (other,))


def _results(context: Context, done: Done) -> Results:
    names, seeds = context.behaviours(), context.seeds
    count = 1 + len(_further(context))
    feats = [
        {(source, seed): done["features", place, source, seed].features for source in SOURCES for seed in seeds}
        for place in range(count)
    ]
    shown = [done["features", place, MODEL, seeds[0]].run.model.shown for place in range(count)]
    first = feats[0]
    steps = context.setup("last-layer").updates(int((~first[MODEL, seeds[0]].held_out).sum()))
    swept, facts = settings.over_settings(done, first, names, seeds)
    models = [row for place in range(count) for row in settings.of_model(done, feats[place], place, names, seeds)]
    widths = [
        *(theorems.at_width(first, names, seeds, model=shown[0], first=True, part=part) for part in theorems.PARTS),
        *(
            theorems.at_width(theirs, names, seeds, model=name, first=False)
            for theirs, name in zip(feats[1:], shown[1:], strict=True)
        ),
    ]
    proved, told = theorems.rows(widths[len(theorems.PARTS) - 1])
    errors = dependent.mean_errors(first, names, seeds)
    cases = [violations(copies, draws=dependent.SAMPLES, steps=dependent.STEPS) for copies in dependent.COPIES]
    bounds, places = dependent.rows(cases)
    ours = register.of_states(first, names, seeds)
    copies = list(dependent.uneven_copies(first, names, seeds, steps=max(1, round(0.1 * steps))))
    copies += (
        row._replace(figure=dependent.FIGURE)
        for row in swept
        if (row.quantity, row.figure) == ("accuracy", settings.FIGURE)
    )
    lacking = {}
    if len(known := {each[MODEL, seeds[0]].states.shape[1] for each in feats}) < 2:
        lacking[settings.SIZES] = f"all models given have width {min(known)}; give a further --model of another size"
    measured = Rows(
        [*swept, *models, *proved, *bounds, *ours, *copies],
        lacking=lacking,
        facts={settings.FIGURE: facts | told | register.facts(ours), **places},
    )
    stable = facts["stable"]
    limit = "" if stable is None else f"Descent is stable for every behaviour and seed up to {stable:.1g}."
    wider = Figure(
        spec=spec_of(settings.FIGURE),
        part="a",
        panels=settings.panels(measured),
        caption="Full-batch descent of the head at four betas and three learning rates each, by the product that it "
        f"depends on; lines: mean of the seeds, bands: their range. {limit}",
    )
    notes = []
    if count == 1:
        notes.append(
            "One model was given: its states cut to some of their coordinates stand in for smaller ones in the figure "
            "of Delta and the table, and the claim about sizes is not testable."
        )
    return Results(
        measured=measured,
        figures=(
            wider,
            theorems.exponents_figure(widths, names),
            theorems.conditions_table(widths),
            *dependent.figures(errors, cases, measured),
        ),
        notes=tuple(notes),
    )


RECIPE = Recipe(
    name="robustness-of-claims",
    summary="Do the findings stand at other settings and sizes, and on rows that are not independent?",
    claims=(*settings.CLAIMS, *theorems.CLAIMS, *register.CLAIMS, *dependent.CLAIMS),
    runs=_runs,
    results=_results,
    setups=("last-layer",),
)
