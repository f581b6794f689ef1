r"""Are more values learned more slowly and less well? 2408.03459, Figures 1, 2, 5, 7 to 11, Tables 1 and 2 and the fit.

K = 1, 2, 4, 8 and 16 values are trained together under one Yes and one No: the head alone with Adam as published and
with plain gradient descent beside it (source error X-15), and the whole model. Published sets of values are drawn
apart, so a trend over K is one of their values as well; a ring of neighbours, in which every K has the same values,
tells the two apart. Beside the runs stand Theorem 4.2 with its conditions as measured, the same training on the paper's
own clusters, the printed tables fitted anew, and the error laws for shared answers (THEORY 3.6).

| module | holds |
|---|---|
| `runs` | what is run |
| `measures` | what comes of it, in numbers |
| `figures` | what is drawn |
| `claims` | what is judged |
"""

from prefdyn.experiments.context import Context
from prefdyn.experiments.recipe import Done, Recipe, Results
from prefdyn.experiments.value_scaling.claims import CLAIMS
from prefdyn.experiments.value_scaling.figures import figures_of, notes_of
from prefdyn.experiments.value_scaling.measures import Landed, measured_of
from prefdyn.experiments.value_scaling.runs import WHOLES, plan


def _results(context: Context, done: Done) -> Results:
    landed = Landed.of(context, done)
    measured = measured_of(landed, one_model=context.other_model(WHOLES["other"]) is None)
    return Results(
        measured=measured,
        figures=figures_of(context, landed, measured),
        notes=notes_of(context, landed),
    )


RECIPE = Recipe(
    name="value-scaling",
    summary="Are more values learned more slowly and less well, and why?",
    claims=CLAIMS,
    runs=plan,
    results=_results,
    setups=("values-last-layer", *WHOLES.values()),
)
