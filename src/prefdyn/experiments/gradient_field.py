r"""What becomes of the chosen and of the rejected probability? 2404.04626, Figure 1 and its claims, on real runs.

The paper draws the loss and its field over $x_1 = \pi(w)/\pi_{ref}(w)$ and $x_2 = \pi(l)/\pi_{ref}(l)$ and concludes
that DPO lowers the rejected probability faster than it raises the chosen one, and that the start decides. It ran
nothing. Here DPO starts from the base model, after fine-tuning on the chosen and after fine-tuning on the rejected
answers; it trains the whole model, or the head alone; and how far each side moved is told in ratios, probabilities and
logarithms, all as geometric means over the training pairs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn._random import stream
from prefdyn.errors import DataError
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, single
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.shared_rules import Judged, as_evidence, unless_few
from prefdyn.experiments.statistics import over_seeds
from prefdyn.theory.gradient_field import field_gradient, field_loss, gradient_ratio
from prefdyn.theory.measured import PlanePath, plane_path
from prefdyn.trajectory import Trajectory

_C = "2404.04626"
_FIGURE, _EXPERIMENT = f"{_C}-fig01", f"{_C}-experiment01"
STARTS = {"base": "from the base model", "chosen": "after SFT on the chosen", "rejected": "after SFT on the rejected"}
_SHADES = {"base": 0.1, "chosen": 0.5, "rejected": 0.9}
WAYS = {"whole": "whole model", "head": "head alone"}
COORDINATES = {"ratios": "probability ratios x1 and x2", "probabilities": "probabilities", "logs": "log-probabilities"}
_SHARE = 0.25
"""Of the preset's rows: all behaviours are trained on at once."""
_POINTS = 1000
_EXACT = 1e-6
"""Relative difference up to which a formula counts as equal to its finite difference."""
_FROM_BASE: dict[str, str] = {"figure": _EXPERIMENT, "split": "whole", "group": STARTS["base"]}
_CIRCLE = 0.1
"""Share by which x1² + x2² may move while a path still counts as a circle of the field."""


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    sft, dpo = context.setup("sft-start"), context.setup("dpo-after")
    head = replace(context.setup("last-layer"), beta=dpo.beta, batch_size="full", scheme="epochs", learning_rate="auto")
    plan: dict[Any, Any] = {}
    for seed in context.seeds:
        pairs = context.pairs(context.behaviours(), seed, template=dpo.template, share=_SHARE)
        model = context.source(MODEL, seed, "dpo-after")
        for start in STARTS:
            before = None
            if start != "base":
                before = context.train(
                    pairs, model, sft, seed=seed, title=f"SFT on the {start}", flip=start == "rejected", keep_model=True
                )
                plan["sft", start, seed] = before
            plan["whole", start, seed] = context.train(
                pairs, model, dpo, seed=seed, title=f"DPO {STARTS[start]}", start=before
            )
            plan["features", start, seed] = context.features(pairs, model, start=before)
            plan["head", start, seed] = context.simulate(plan["features", start, seed], head, seed=seed)
        twin = context.source(TWIN, seed, "dpo-after")
        plan["twin", seed] = context.train(pairs, twin, dpo, seed=seed, title="DPO")
    return plan


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    seeds = context.seeds
    paths = {
        way: {start: [_path(done[way, start, seed].trajectory) for seed in seeds] for start in STARTS} for way in WAYS
    }
    twins = [_path(done["twin", seed].trajectory) for seed in seeds]
    beta = context.setup("dpo-after").beta
    rows = [
        row for way, starts in paths.items() for start, found in starts.items() for row in _moved(found, way, start)
    ]
    rows += _moved(twins, "whole", "base", source=TWIN)
    falling = [_falling(done["whole", "base", seed].trajectory) for seed in seeds]
    rows += [Row(quantity="falling", value=value, seed=seed, **_FROM_BASE) for seed, value in enumerate(falling)]
    along = _along(paths["whole"])
    for name, off in _theorem(beta).items():
        if name == "derivatives" or along["points"]:
            rows.append(Row(quantity=name, value=off, figure=_FIGURE))
    references = {
        start: [[path.ref_chosen, path.ref_rejected] for path in found] for start, found in paths["whole"].items()
    }
    facts = {_FIGURE: along | {"beta": beta}, _EXPERIMENT: {"reference_probabilities": references}}
    figures = (
        Figure(
            spec=spec_of(_FIGURE), part="a", panels=(Panel(kind="surface", options={"beta": beta}),),
            caption=f"The loss of one pair over both probability ratios, beta {beta:g}.",
        ),
        Figure(
            spec=spec_of(_FIGURE), part="b",
            panels=(Panel(kind="plane", options={"beta": beta}, lines=(_line(paths["whole"]["base"], "base"),)),),
            caption="The same from above, with the descent direction as arrows, and the path of the whole-model run "
            "from the base (mean of the seeds).",
        ),
        _experiment(paths),
    )  # fmt: skip
    return Results(measured=Rows(rows, facts=facts), figures=figures)


def _path(run: Trajectory) -> PlanePath:
    found = plane_path(run)
    if found is None:
        raise DataError("a run measured no log-probabilities, so it has no path in the plane")
    return found


def _moved(paths: Sequence[PlanePath], way: str, start: str, *, source: str = MODEL) -> list[Row]:
    """What became of one kind of run, seed by seed."""
    found = [{**leads(path), "circle": _circle(path)} for path in paths]
    place: dict[str, Any] = {"figure": _EXPERIMENT, "source": source, "split": way, "group": STARTS[start]}
    return [
        Row(quantity=name, value=value, seed=seed, **place)
        for seed, each in enumerate(found)
        for name, value in each.items()
    ]


def leads(path: PlanePath) -> dict[str, float]:
    r"""How much further the rejected side fell than the chosen side rose, over a whole path, in three coordinates.

    Args:
        path: Geometric means over the training pairs.

    Returns:
        `ratios` $(1 - x_2) - (x_1 - 1)$; `probabilities` the same times each side's reference; `logs`
        $-\log x_2 - \log x_1$, nats. Above 0 where the rejected side moved further down than the chosen side up.

    Example:
        >>> path = PlanePath(np.array([0, 1]), np.array([1.0, 2.0]), np.array([1.0, 0.25]), 0.1, 0.8)
        >>> {name: round(value, 6) for name, value in leads(path).items()}
        {'ratios': -0.25, 'probabilities': 0.5, 'logs': 0.693147}
    """
    rise, fall = float(path.x1[-1]) - 1, 1 - float(path.x2[-1])
    return {
        "ratios": fall - rise,
        "probabilities": path.ref_rejected * fall - path.ref_chosen * rise,
        "logs": -math.log(float(path.x2[-1])) - math.log(float(path.x1[-1])),
    }


def _circle(path: PlanePath) -> float:
    """x1² + x2² at the end over its value at the start, which is 2."""
    return float(path.x1[-1] ** 2 + path.x2[-1] ** 2) / 2


def _falling(run: Trajectory) -> float:
    """Share of training pairs whose chosen answer ends less likely than it began."""
    rows = run.where(run="joint", split="train")
    last = rows["step"].to_numpy() == rows["step"].to_numpy().max()
    share = np.asarray(rows["chosen_falling"].to_numpy(zero_copy_only=False), dtype=np.float64)[last]
    return float(np.average(share, weights=rows["pairs"].to_numpy()[last]))


def _theorem(beta: float) -> dict[str, float]:
    """Largest relative difference of Theorem 1's derivatives, and of Corollary 1's ratio, from central differences."""
    rng = stream(0, "gradient-field", "points")
    x1, x2 = np.exp(rng.uniform(-2, 2, (2, _POINTS)))
    first, second = field_gradient(x1, x2, beta=beta)
    h = 1e-5
    numeric = (
        (field_loss(x1 * (1 + h), x2, beta=beta) - field_loss(x1 * (1 - h), x2, beta=beta)) / (2 * h * x1),
        (field_loss(x1, x2 * (1 + h), beta=beta) - field_loss(x1, x2 * (1 - h), beta=beta)) / (2 * h * x2),
    )
    off = [np.abs(ours / theirs - 1).max() for ours, theirs in zip((first, second), numeric, strict=True)]
    ratio = np.abs(numeric[0] / numeric[1]) / (x2 / x1) - 1
    return {"derivatives": float(max(off)), "ratio": float(np.abs(ratio).max())}


def _along(paths: Mapping[str, Sequence[PlanePath]]) -> dict[str, int]:
    """Along real runs: at how many recorded points with x1 above x2 the field pulls the rejected side harder."""
    points = [
        (float(x1), float(x2))
        for found in paths.values()
        for path in found
        for x1, x2 in zip(path.x1[1:], path.x2[1:], strict=True)
        if x1 > x2
    ]
    harder = sum(float(gradient_ratio(x1, x2)) < 1 for x1, x2 in points)
    return {"points": len(points), "harder": harder}


# figures -------------------------------------------------------------------------------------------------------------


def _line(paths: Sequence[PlanePath], start: str) -> Line:
    x1, x2 = (np.exp(np.mean([np.log(getattr(path, name)) for path in paths], axis=0)) for name in ("x1", "x2"))
    return Line(label=STARTS[start], x=x1, y=x2, shade=_SHADES[start])


def _experiment(paths: Mapping[str, Mapping[str, Sequence[PlanePath]]]) -> Figure:
    panels = []
    for way, name in WAYS.items():
        panels.append(
            Panel(
                kind="lines", title=f"({'ac'[list(WAYS).index(way)]}) {name}: the plane", x_label="x1, chosen",
                y_label="x2, rejected", lines=tuple(_line(found, start) for start, found in paths[way].items()),
            )
        )  # fmt: skip
        lines = []
        for start, found in paths[way].items():
            for quantity, style in (("x1", "solid"), ("x2", "dashed")):
                lines.append(
                    mean_line(
                        f"{STARTS[start]}: {'chosen' if quantity == 'x1' else 'rejected'}",
                        found[0].step.tolist(),
                        [np.log(getattr(path, quantity)).tolist() for path in found],
                        shade=_SHADES[start],
                        style=style,
                    )
                )
        panels.append(
            Panel(
                kind="lines", title=f"({'bd'[list(WAYS).index(way)]}) {name}: logarithms", x_label="Step",
                y_label="Change of log-probability (nats)", lines=tuple(lines), marks=(("start", 0.0),),
            )
        )  # fmt: skip
    return Figure(
        spec=spec_of(_EXPERIMENT),
        panels=tuple(panels),
        caption="DPO from three starts; geometric means over the training pairs, mean of the seeds, bands their range. "
        "The reference of each run is the model that it starts from, so all begin at (1, 1).",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _judge_coordinates(_: Claim, rows: Rows) -> Judged:
    found = {
        f"{name}, {start}": over_seeds(single(name)(rows, {**_FROM_BASE, "group": STARTS[start]}, MODEL))
        for start in STARTS
        for name in COORDINATES
    }
    rejected = [label for label, estimate in found.items() if estimate.low > 0]
    chosen = [label for label, estimate in found.items() if estimate.high < 0]
    judged = Judged(
        holds=bool(rejected and chosen),
        measured=f"rejected moved further in {len(rejected)} of {len(found)}, chosen in {len(chosen)}",
        because=f"rejected: {'; '.join(rejected) or 'none'} — chosen: {'; '.join(chosen) or 'none'}",
        evidence=as_evidence(found),
    )
    return unless_few(judged, min(estimate.seeds for estimate in found.values()))


def _elsewhere(*but: tuple[str, str]) -> dict[str, Any]:
    """Evidence: the same from other starts, and of the head alone."""
    return {
        f"{way}, {start}": {"split": way, "group": STARTS[start]}
        for way in WAYS
        for start in STARTS
        if (way, start) not in but
    }


_RUN: dict[str, Any] = {
    "figure": _EXPERIMENT, "unit": "run", "select": _FROM_BASE, "setting": "Whole-model runs"
}  # fmt: skip

CLAIMS = (
    Claim(
        id=f"{_FIGURE}-derivatives",
        kind="algebra",
        unit="run",
        figure=_FIGURE,
        place="Theorem 1",
        statement="The partial derivatives of the loss are −(β/x1) σ(−β log(x1/x2)) and (β/x2) σ(−β log(x1/x2)).",
        statistic=single("derivatives"),
        test="at most",
        threshold=_EXACT,
        twin="",
        told="off by at most {0:.2g} of the derivative",
        because=f"against central differences at {_POINTS} random points",
        evidence="largest_relative_difference",
    ),
    Claim(
        id=f"{_FIGURE}-ratio",
        kind="algebra",
        unit="run",
        figure=_FIGURE,
        place="Corollary 1",
        statement="The pull on the chosen side over that on the rejected side is x2/x1, so once x1 is above x2 the "
        "rejected side is pulled harder.",
        statistic=single("ratio"),
        test="at most",
        threshold=_EXACT,
        twin="",
        told="off by at most {0:.2g}; rejected pulled harder at {harder} of {points} points of runs",
        because="central differences at random points, and recorded points of whole-model runs at which x1 is above x2",
        evidence="largest_relative_difference",
        facts=("points", "harder", "beta"),
        unknown="no run came to a point with x1 above x2",
    ),
    *(
        Claim(
            id=f"{_EXPERIMENT}-{name}",
            place="Abstract",
            statement=f"DPO decreases the rejected probability faster than it increases the chosen one, in {words}.",
            statistic=single(name, short="fall of rejected less rise of chosen"),
            twin="statistic",
            beside={
                **_elsewhere(("whole", "base")),
                "chosen_falling": {"statistic": single("falling", least=0, most=1)},
            },
            paper_value="“at a faster rate”",
            **_RUN,
        )
        for name, words in COORDINATES.items()
    ),
    Claim(
        id=f"{_EXPERIMENT}-coordinates",
        kind="ours",
        unit="run",
        figure=_EXPERIMENT,
        place="Abstract, source error X-16",
        statement="Which side moves faster depends on the coordinates and on the start, not on the loss alone.",
        said="Whole-model runs, three coordinates by three starts: holds where the difference of the claims above has "
        "an interval wholly above 0 in one and wholly below 0 in another.",
        code=_judge_coordinates,
    ),
    Claim(
        id=f"{_EXPERIMENT}-start",
        place="Abstract",
        statement="DPO is sensitive to SFT: the more likely the chosen answers are at the start, the more of the "
        "change falls on the rejected ones.",
        statistic=single("logs"),
        less={"group": STARTS["rejected"]},
        twin="",
        told="after SFT on the chosen less after SFT on the rejected: {0} nats",
        beside={"head_alone": {"split": "head"}}
        | {start: {"group": words, "statistic": single("logs")} for start, words in STARTS.items()},
        facts=("reference_probabilities",),
        **{**_RUN, "select": {**_FROM_BASE, "group": STARTS["chosen"]}},
    ),
    Claim(
        id=f"{_EXPERIMENT}-circle",
        place="Figure 1, flow lines",
        statement="A training run follows the flow lines of the plane, circles about the origin.",
        statistic=single("circle"),
        test="inside",
        threshold=(1 - _CIRCLE, 1 + _CIRCLE),
        twin="",
        told="x1² + x2² at the end over the start: {0}",
        beside=_elsewhere(),
        **_RUN,
    ),
)

RECIPE = Recipe(
    name="gradient-field",
    summary="What becomes of the chosen and of the rejected probability, and how much does the start decide?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("sft-start", "dpo-after"),
)
