r"""Is a behaviour learned faster, the farther apart the model holds its two sides? 2403.18742, Figures 1 to 19 in part.

Each behaviour is trained alone: the head on states read once (Figures 3 and 4), and the whole model (6, 10, 17 to 19).
Distinguishability $D = \lVert \hat\mu_+ - \hat\mu_- \rVert$ is measured before training on all pairs of the run. How
fast a behaviour is learned is told three times, since curves that start in order need not end in it: by the fall of the
loss at a tenth of the steps, by the area above the curve, and by the fall at the end.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.diagnostics.separation import separation
from prefdyn.dynamics.order import spearman
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.falls import PHASES, accuracy_alone, falls
from prefdyn.experiments.judging import BEYOND, Measured, above, as_evidence
from prefdyn.experiments.published import PERSONAS, STATED_EXAMPLES
from prefdyn.experiments.recipe import (
    Claim,
    Done,
    Figure,
    Judged,
    Line,
    Panel,
    Plan,
    Recipe,
    Results,
    mean_line,
    shades,
    untestable,
)
from prefdyn.experiments.run import ModelChoice, Run
from prefdyn.experiments.sides import distance, sides, trained_rows
from prefdyn.experiments.statistics import at_step, over_seeds
from prefdyn.experiments.values import crowd
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import LOG2
from prefdyn.theory.learning_dynamics import constants, drift_bound, published_drift_bound
from prefdyn.trajectory import Trajectory

_A = "2403.18742"
_FULL = {"full": f"{_A}-fig06", "full-beta-0.001": f"{_A}-fig17", "full-beta-0.1": f"{_A}-fig18",
         "full-beta-1": f"{_A}-fig19"}  # fmt: skip
_OTHER = "full-other"
_LACKING = {
    _OTHER: "one model was given; give a second --model",
    "many": "the data has no more behaviours than the figure shows",
}
_STRAIGHT = 0.9
"""Growth of the weight change per step over the whole run, as a share of that over its first tenth, from which on it
counts as linear."""
_PROPORTIONAL = 0.9
"""R² from which on one number counts as a multiple of another."""
_FADED = 0.1
"""By how much a rank correlation may fall and still count as lasting."""
_EQUAL = 1e-6
_SIGNIFICANT = 0.05
_PER_ANSWER = 500
"""Statements of each answer that a behaviour has, as the paper says."""


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    names, many = context.behaviours(), _many(context)
    setup = context.setup("last-layer")
    plan: dict[Any, Run] = {}
    for seed in context.seeds:
        together = context.pairs(names, seed, template=setup.template)
        apart = {name: context.pairs([name], seed, template=context.setup("full").template) for name in names}
        for source in SOURCES:
            model = context.source(source, seed, "last-layer")
            plan["features", source, seed] = context.features(together, model)
            for variant in context.variants:
                states = plan["features", source, seed]
                if variant == "code" and model.rms_norm:
                    states = context.features(together, model, double_norm=True)
                    plan["features, code", source, seed] = states
                plan["last-layer", variant, source, seed] = context.simulate(
                    states,
                    replace(setup, scheme="replacement" if variant == "code" else "epochs"),
                    seed=seed,
                    subsets=tuple((name,) for name in names),
                )
            plan["full batch", source, seed] = context.simulate(
                plan["features", source, seed],
                replace(setup, batch_size="full", scheme="epochs"),
                seed=seed,
                subsets=tuple((name,) for name in names),
                record="all",
            )
            if many:
                states = context.features(context.pairs(many, seed, template=setup.template), model)
                plan["features, many", source, seed] = states
                plan["many", source, seed] = context.simulate(
                    states,
                    replace(setup, batch_size="full", scheme="epochs"),
                    seed=seed,
                    subsets=tuple((name,) for name in many),
                )
            for key in _FULL:
                for name in names:
                    plan[key, source, seed, name] = _whole(
                        context, apart[name], context.source(source, seed), key, seed
                    )
        if (other := context.other_model()) is not None:
            for source in SOURCES:
                model = other if source == MODEL else replace(other, untrained=seed)
                plan["features", f"other {source}", seed] = context.features(together, model)
                for name in names:
                    plan[_OTHER, source, seed, name] = _whole(context, apart[name], model, _OTHER, seed)
    return plan


def _many(context: Context) -> tuple[str, ...]:
    """Behaviours that the order is told over besides the few that the figures show; none where those are all."""
    return crowd(context) if len(context.answers().groups) > len(context.behaviours()) else ()


def _whole(context: Context, pairs: Any, model: ModelChoice, key: str, seed: int) -> Run:
    return context.train(pairs, model, context.setup(key), seed=seed, title="whole-model")


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    names, seeds = context.behaviours(), context.seeds
    feats = {(source, seed): done["features", source, seed].features for source in SOURCES for seed in seeds}
    far = {key: _distances(found, names) for key, found in feats.items()}
    head = {
        (variant, source, seed): dict(zip(names, done["last-layer", variant, source, seed].trajectories, strict=True))
        for variant in context.variants
        for source in SOURCES
        for seed in seeds
    }
    descent = {
        (source, seed): dict(zip(names, done["full batch", source, seed].trajectories, strict=True))
        for source in SOURCES
        for seed in seeds
    }
    whole = {
        key: {
            (source, seed): {name: done[key, source, seed, name].trajectory for name in names}
            for source in SOURCES
            for seed in seeds
        }
        for key in _FULL
    }
    measured: dict[str, Any] = {
        "groups": list(names),
        "distinguishability": {name: [far[MODEL, seed][name] for seed in seeds] for name in names},
        "last-layer": {
            variant: _orders({key[1:]: runs for key, runs in head.items() if key[0] == variant}, far, seeds)
            for variant in context.variants
        },
        "drift": _drifts({key[1:]: runs for key, runs in head.items() if key[0] == "text"}, far, seeds),
        "theorem": _theorem(feats, descent, names, seeds),
        "first update": _first_update(feats, descent, names, seeds),
        "null": _null(feats, context),
        "counts": _counts(context),
    }
    measured |= {key: _orders(runs, far, seeds) for key, runs in whole.items()}
    crowded = _crowded(done, _many(context), seeds)
    if crowded is not None:
        measured["many"] = {"behaviours": len(_many(context)), **crowded}
    other, notes = None, []
    if context.other_model() is not None:
        their = {
            (source, seed): _distances(done["features", f"other {source}", seed].features, names)
            for source in SOURCES
            for seed in seeds
        }
        other = {
            (source, seed): {name: done[_OTHER, source, seed, name].trajectory for name in names}
            for source in SOURCES
            for seed in seeds
        }
        measured[_OTHER] = _orders(other, their, seeds)
    else:
        notes.append("One model was given, so Figure 10 is drawn from it, and its claim is not testable.")
    if context.compat and not context.source(MODEL, 0, "last-layer").rms_norm:
        notes.append("The final norm of this model is no RMSNorm, so the code's second norm does not apply to it.")
    order = sorted(names, key=lambda name: float(np.mean(measured["distinguishability"][name])))
    if list(order) != list(names):
        notes.append("Colours follow the order of distinguishability on this model, purple the least.")
    figures = [
        _examples(context),
        *_head_figures(context, head, order, seeds),
        *([] if crowded is None else [_many_figure(measured["many"])]),
        *(_loss_figure(id, whole[key], order, seeds, ("train", "held_out")) for key, id in _FULL.items()),
        _loss_figure(f"{_A}-fig10", other or whole["full"], order, seeds, ("train",)),
        _null_figure(measured["null"], names),
        _update_figure(measured["first update"]),
    ]
    return Results(measured=measured, figures=tuple(figures), notes=tuple(notes))


def _counts(context: Context) -> dict[str, list[int]] | None:
    """Pairs of every persona by their answer, in all of the data; None where it is no Persona data."""
    data = context.answers()
    if not set(data.groups) & set(PERSONAS.values()):
        return None
    found: dict[str, Counter[str]] = {name: Counter() for name in data.groups}
    for name, answer in zip(*(data.table[column].to_pylist() for column in ("group", "chosen")), strict=True):
        found[name][answer] += 1
    return {name: sorted(counts.values()) for name, counts in found.items()}


def _distances(feats: FeatureSet, names: Sequence[str]) -> dict[str, float]:
    """Distinguishability of each behaviour, over all of its pairs."""
    return {name: distance(feats, feats.members(name)) for name in names}


def _orders(
    runs: Mapping[tuple[str, int], Mapping[str, Trajectory]],
    far: Mapping[tuple[str, int], Mapping[str, float]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Per source, split, phase and seed: how the fall of the loss follows distinguishability; and what was learned."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        mine: dict[str, Any] = {"accuracy": [], "train": {}, "held_out": {}}
        for split in ("train", "held_out"):
            mine[split] = {phase: [] for phase in PHASES}
        for seed in seeds:
            trajectories = runs[source, seed]
            distances = [far[source, seed][name] for name in trajectories]
            for split in ("train", "held_out"):
                fallen = [falls(*run.curve("loss", group=name, split=split)) for name, run in trajectories.items()]
                for phase in PHASES:
                    mine[split][phase].append(spearman(distances, [fall[phase] for fall in fallen]))
            mine["accuracy"].append(accuracy_alone(trajectories))
        found[source] = mine
    return found


def _crowded(done: Done, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any] | None:
    """The order over many behaviours, each alone: at the phases, and at every step that was recorded."""
    if not names:
        return None
    keys = [(source, seed) for source in SOURCES for seed in seeds]
    far = {key: _distances(done["features, many", *key].features, names) for key in keys}
    runs = {key: dict(zip(names, done["many", *key].trajectories, strict=True)) for key in keys}
    found = _orders(runs, far, seeds)
    for source, split in itertools.product(SOURCES, ("train", "held_out")):
        steps, rows = np.array([]), []
        for seed in seeds:
            curves = {name: run.curve("loss", group=name, split=split) for name, run in runs[source, seed].items()}
            steps = next(iter(curves.values()))[0][1:]
            fallen = np.array([LOG2 - losses[1:] for _, losses in curves.values()])
            distances = [far[source, seed][name] for name in names]
            rows.append([spearman(distances, column) for column in fallen.T.tolist()])
        found[source][split]["steps"], found[source][split]["by step"] = steps.tolist(), rows
    return found


def _drifts(
    runs: Mapping[tuple[str, int], Mapping[str, Trajectory]],
    far: Mapping[tuple[str, int], Mapping[str, float]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Whether the weight change grows along a straight line, and how its size follows distinguishability."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        straight, order = [], []
        for seed in seeds:
            ends, shares = [], []
            for name, run in runs[source, seed].items():
                steps, drift = run.curve("drift", group=name)
                tenth = max(1.0, 0.1 * float(steps[-1]))
                rate = at_step(steps, drift, tenth) / tenth
                shares.append(float(drift[-1]) / float(steps[-1]) / rate if rate > 0 else float("nan"))
                ends.append(float(drift[-1]))
            straight.append(float(np.mean(shares)))
            order.append(spearman([far[source, seed][name] for name in runs[source, seed]], ends))
        found[source] = {"straight": straight, "order": order}
    found["accuracy"] = {source: [accuracy_alone(runs[source, seed]) for seed in seeds] for source in SOURCES}
    return found


def _theorem(
    feats: Mapping[tuple[str, int], FeatureSet],
    runs: Mapping[tuple[str, int], Mapping[str, Trajectory]],
    names: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Weight change over the published and over the repaired bound of Theorem 4.1, at every step of full-batch runs."""
    published, repaired, first, failing, applies = [], [], [], set(), []
    for seed in seeds:
        for name in names:
            run = runs[MODEL, seed][name]
            found = _trained(feats[MODEL, seed], name)
            steps, drift = run.curve("drift", group=name)
            setting = {"beta": run.settings["beta"], "learning_rate": run.settings["learning_rate"]}
            for step, size in zip(steps.tolist(), drift.tolist(), strict=True):
                if step == 0:
                    continue
                theirs = published_drift_bound(found, **setting, steps=int(step), measured=size)
                ours = drift_bound(found, **setting, steps=int(step), measured=size)
                published.append(size / theirs.value)
                repaired.append(size / ours.value)
                if step == 1:
                    first.append(size / ours.value)
                if not theirs.applies:
                    failing |= {condition.says for condition in theirs.conditions if condition.holds is False}
                applies.append(theirs.applies)
    return {
        "published": max(published),
        "repaired": max(repaired),
        "first": [min(first), max(first)],
        "applies": all(applies),
        "failing": sorted(failing),
    }


def _trained(feats: FeatureSet, name: str) -> Any:
    """Constants of the pairs of a behaviour that are trained on."""
    return constants(*sides(feats, trained_rows(feats, name)))


def _first_update(
    feats: Mapping[tuple[str, int], FeatureSet],
    runs: Mapping[tuple[str, int], Mapping[str, Trajectory]],
    names: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """First full-batch update against the weighted gap of the pairs trained on, and against distinguishability."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        points, shares, slopes = [], [], []
        for seed in seeds:
            xs, ys, gaps = [], [], []
            for name in names:
                run = runs[source, seed][name]
                c = _trained(feats[source, seed], name)
                steps, drift = run.curve("drift", group=name)
                first = at_step(steps, drift, 1.0)
                factor = np.sqrt(2) / 4 * run.settings["learning_rate"] * run.settings["beta"]
                xs.append(c.gap)
                gaps.append(c.weighted_gap)
                ys.append(first / factor)
                points.append((name, seed, c.gap, first / factor))
            shares.append(_r_squared(np.array(xs), np.array(ys)))
            slopes.append(float(np.array(ys) @ np.array(gaps) / (np.array(gaps) @ np.array(gaps))))
        found[source] = {"points": points, "r_squared": shares, "slope": slopes}
    return found


def _r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance of y that the best multiple of x explains; below 0 where the mean of y does better.

    Example:
        >>> _r_squared(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
        1.0
    """
    slope = float(x @ y / (x @ x))
    return 1 - float(np.sum((y - slope * x) ** 2) / np.sum((y - y.mean()) ** 2))


def _null(feats: Mapping[tuple[str, int], FeatureSet], context: Context) -> dict[str, Any]:
    """Distinguishability beside that of random labels."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        rows, share, z = [], [], []
        for seed in context.seeds:
            apart = separation(
                feats[source, seed], permutations=context.preset.relabellings, bootstraps=1, folds=2, seed=seed
            )
            share.append(float(np.mean([group.null_p_adjusted < _SIGNIFICANT for group in apart.groups])))
            z.append(float(np.mean([group.null_z for group in apart.groups])))
            rows += [(group.name, seed, group.distinguishability, group.null_rms) for group in apart.groups]
        found[source] = {"rows": rows, "share": share, "z": z}
    return found


# figures -------------------------------------------------------------------------------------------------------------


def _examples(context: Context) -> Figure:
    data = context.answers()
    name = STATED_EXAMPLES if STATED_EXAMPLES in data.groups else context.behaviours()[-1]
    pairs = data.select([name]).table.select(["prompt", "chosen"]).to_pylist()
    rows = []
    for answer in sorted({pair["chosen"] for pair in pairs}, reverse=True):
        prompts = [pair["prompt"] for pair in pairs if pair["chosen"] == answer]
        rows += [(f"chosen: {answer.strip()}", prompt) for prompt in prompts[:2]]
    return Figure(
        spec=spec_of(f"{_A}-fig01"),
        panels=(Panel(kind="texts", title=name, rows=tuple(rows)),),
        caption=f"Two prompts of the behaviour “{name}” for each answer that fits it, as the model reads them.",
    )


def _head_figures(
    context: Context, head: Mapping[Any, Mapping[str, Trajectory]], order: Sequence[str], seeds: Sequence[int]
) -> list[Figure]:
    figures = []
    for id, quantity, label in (
        (f"{_A}-fig03", "loss", "Training loss (nats)"),
        (f"{_A}-fig04", "drift", "Norm of the weight change"),
    ):
        panels = []
        for variant in context.variants:
            runs = {seed: head[variant, MODEL, seed] for seed in seeds}
            lines = tuple(
                _curve(name, [runs[seed][name] for seed in seeds], quantity, "train", shade)
                for name, shade in zip(order, shades(len(order)), strict=True)
            )
            title = {"text": "", "code": "as the published code does"}[variant]
            panels.append(
                Panel(kind="lines", title=title, x_label="Step", y_label=label, lines=lines, marks=_start(quantity))
            )
        settings = head["text", MODEL, seeds[0]][order[0]].settings
        what = "Loss of" if quantity == "loss" else "Norm of the change of the head while training"
        figures.append(
            Figure(
                spec=spec_of(id),
                panels=tuple(panels),
                caption=f"{what} each behaviour by itself, SGD on the last layer, beta {settings['beta']:g}, learning "
                f"rate {settings['learning_rate']:.3g}. {_BAND}",
            )
        )
    return figures


def _many_figure(found: Mapping[str, Any]) -> Figure:
    """How the order over many behaviours fares while they are learned."""
    looks = {MODEL: ("model", "solid"), TWIN: ("untrained twin", "dashed")}
    lines = []
    for split, shade in (("train", 0.1), ("held_out", 0.7)):
        for source, (who, style) in looks.items():
            mine = found[source][split]
            label = f"{who}, {_WORD[split]} loss"
            lines.append(mean_line(label, mine["steps"], mine["by step"], shade=shade, style=style))
    return Figure(
        spec=spec_of(f"{_A}-fig03"),
        part="b",
        panels=(Panel(kind="lines", x_label="Step", y_label="Rank correlation", lines=tuple(lines)),),
        caption=f"Distinguishability against the fall of the loss so far, over {found['behaviours']} behaviours, each "
        "by itself: full-batch descent of the last layer at half of the largest stable step of all together. Lines: "
        "mean of the seeds; bands: their range.",
    )


_BAND = "Lines: mean of the seeds; bands: their range. Purple is the least distinguishable behaviour, yellow the most."


def _start(quantity: str) -> tuple[tuple[str, float], ...]:
    return (("log 2", LOG2),) if quantity == "loss" else ()


def _curve(name: str, runs: Sequence[Trajectory], quantity: str, split: str, shade: float) -> Line:
    steps = runs[0].curve(quantity, group=name, split=split)[0]
    curves = [run.curve(quantity, group=name, split=split) for run in runs]
    return mean_line(name, steps.tolist(), [np.interp(steps, *curve).tolist() for curve in curves], shade=shade)


def _loss_figure(
    id: str,
    runs: Mapping[tuple[str, int], Mapping[str, Trajectory]],
    order: Sequence[str],
    seeds: Sequence[int],
    splits: Sequence[str],
) -> Figure:
    titles = {"train": "(a) training", "held_out": "(b) test"} if len(splits) > 1 else {"train": ""}
    panels = []
    for split in splits:
        lines = tuple(
            _curve(name, [runs[MODEL, seed][name] for seed in seeds], "loss", split, shade)
            for name, shade in zip(order, shades(len(order)), strict=True)
        )
        panels.append(
            Panel(
                kind="lines", title=titles[split], x_label="Step", y_label="Loss (nats)", lines=lines,
                marks=_start("loss"),
            )
        )  # fmt: skip
    settings = runs[MODEL, seeds[0]][order[0]].settings
    return Figure(
        spec=spec_of(id),
        panels=tuple(panels),
        caption=f"Each behaviour by itself, whole model, {settings['optimizer']}, beta {settings['beta']:g}, learning "
        f"rate {settings['learning_rate']:.3g}, batches of {settings['batch_size']}. {_BAND}",
    )


def _null_figure(null: Mapping[str, Any], names: Sequence[str]) -> Figure:
    rows = []
    for name in names:
        cells = [name]
        for source in SOURCES:
            mine = [row for row in null[source]["rows"] if row[0] == name]
            cells += [f"{np.mean([row[2] for row in mine]):.3g}", f"{np.mean([row[3] for row in mine]):.3g}"]
        rows.append(tuple(cells))
    return Figure(
        spec=spec_of(f"{_A}-experiment01"),
        panels=(
            Panel(
                kind="table",
                columns=("behaviour", "model: D", "random labels", "untrained twin: D", "random labels "),
                rows=tuple(rows),
            ),
        ),
        caption="Distinguishability with the labels as they are, and its root mean square over random labels; means "
        "over the seeds, in the unit of the states.",
    )


def _update_figure(update: Mapping[str, Any]) -> Figure:
    lines = []
    for source, label, shade in ((MODEL, "model", 0.1), (TWIN, "untrained twin", 0.7)):
        points = sorted(update[source]["points"], key=lambda point: point[2])
        lines.append(
            Line(
                label=label, x=np.array([point[2] for point in points]), y=np.array([point[3] for point in points]),
                shade=shade, style="points",
            )
        )  # fmt: skip
    far = max(float(line.x.max()) for line in lines)
    lines.append(Line(label="equal", x=np.array([0.0, far]), y=np.array([0.0, far]), style="dashed"))
    return Figure(
        spec=spec_of(f"{_A}-experiment02"),
        panels=(
            Panel(
                kind="lines",
                x_label="Distinguishability of the pairs trained on",
                y_label="First update over √2/4 · rate · beta",
                lines=tuple(lines),
            ),
        ),
        caption="Size of the first full-batch update of the head against distinguishability; one point per behaviour "
        "and seed. For equal classes theory puts them on the line.",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _judge_order(key: str, split: str, phase: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if key not in measured:
            return untestable(_LACKING[key])
        found = measured[key] if "text" not in measured[key] else measured[key]["text"]
        if len(measured["groups"]) < 3:
            return untestable(f"an order takes 3 behaviours, and there are {len(measured['groups'])}")
        judged = above(
            Measured(
                model=found[MODEL][split][phase], twin=found[TWIN][split][phase], accuracy=found[MODEL]["accuracy"],
                twin_accuracy=found[TWIN]["accuracy"],
            ),
            0.0, what="rank correlation", least=-1, most=1,
        )  # fmt: skip
        if "code" in measured[key]:
            code = over_seeds(measured[key]["code"][MODEL][split][phase], least=-1, most=1)
            judged = replace(judged, evidence={**judged.evidence, "as the published code does": code.to_json()})
        return judged

    return judge


def _judge_fading(split: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if "many" not in measured:
            return untestable(_LACKING["many"])
        found = measured["many"]
        changes = {
            source: np.subtract(found[source][split]["late"], found[source][split]["early"]).tolist()
            for source in SOURCES
        }
        return above(
            Measured(
                model=changes[MODEL], twin=changes[TWIN], accuracy=found[MODEL]["accuracy"],
                twin_accuracy=found[TWIN]["accuracy"],
            ),
            -_FADED, what="change of the rank correlation", least=-2, most=2,
        )  # fmt: skip

    return judge


_ORDER_RULE = (
    "Spearman's rank correlation, over behaviours, of distinguishability with the fall of the {split} loss {phase}: "
    "holds where the lower end of its 95 % interval over seeds is above 0. " + BEYOND
)


_PLACES = (
    ("last-layer", f"{_A}-fig03", "Last layer", ("train",), tuple(PHASES)),
    ("full", f"{_A}-fig06", "Whole model", ("train", "held_out"), tuple(PHASES)),
    (_OTHER, f"{_A}-fig10", "Whole model, another model", ("train",), ("area",)),
    ("full-beta-0.001", f"{_A}-fig17", "Whole model, beta 0.001", ("train", "held_out"), ("area",)),
    ("full-beta-0.1", f"{_A}-fig18", "Whole model, beta 0.1", ("train", "held_out"), ("area",)),
    ("full-beta-1", f"{_A}-fig19", "Whole model, beta 1", ("train", "held_out"), ("area",)),
)
"""Where the paper shows losses in order: key, figure, in words, splits, and the phases that are judged apart."""


def _order_claims() -> list[Claim]:
    return [
        Claim(
            id=f"{id}-{_WORD[split]}-{phase}",
            figure=id,
            statement=f"{what}: the {_WORD[split]} loss of a more distinguishable behaviour falls faster, "
            f"{PHASES[phase]}.",
            rule=_ORDER_RULE.format(split=_WORD[split], phase=PHASES[phase]),
            judge=_judge_order(key, split, phase),
            paper_value="the five curves are in the order of distinguishability",
        )
        for key, id, what, splits, phases in _PLACES
        for split in splits
        for phase in phases
    ]


_WORD = {"train": "training", "held_out": "test"}


def _judge_drift(quantity: str, threshold: float, what: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        found = measured["drift"]
        return above(
            Measured(
                model=found[MODEL][quantity], twin=found[TWIN][quantity], accuracy=found["accuracy"][MODEL],
                twin_accuracy=found["accuracy"][TWIN],
            ),
            threshold, what=what, **({"least": -1, "most": 1} if quantity == "order" else {}),
        )  # fmt: skip

    return judge


def _judge_published_bound(measured: Mapping[str, Any]) -> Judged:
    found = measured["theorem"]
    kept = found["published"] <= 1 + _EQUAL
    told = f"at most {found['published']:.3g} of the bound"
    evidence = {"largest_share": found["published"], "conditions_that_fail": found["failing"]}
    if not found["applies"]:
        return Judged(
            holds=None, measured=told, evidence=evidence,
            because="its conditions fail here, so it says nothing: " + "; ".join(found["failing"]),
        )  # fmt: skip
    return Judged(
        holds=kept, measured=told, because="largest share over behaviours, steps and seeds", evidence=evidence
    )


def _judge_repaired_bound(measured: Mapping[str, Any]) -> Judged:
    found = measured["theorem"]
    low, high = found["first"]
    holds = found["repaired"] <= 1 + _EQUAL and low >= 1 - _EQUAL
    return Judged(
        holds=holds,
        measured=f"at most {found['repaired']:.6g} of the bound, {low:.6g} to {high:.6g} of it at the first step",
        because="over all behaviours, steps and seeds",
        evidence={"largest_share": found["repaired"], "first_step": [low, high]},
    )


def _judge_null(measured: Mapping[str, Any]) -> Judged:
    found, accuracy = measured["null"], measured["last-layer"]["text"]
    shares = over_seeds(found[MODEL]["share"], least=0, most=1)
    judged = above(
        Measured(
            model=found[MODEL]["z"], twin=found[TWIN]["z"], accuracy=accuracy[MODEL]["accuracy"],
            twin_accuracy=accuracy[TWIN]["accuracy"],
        ),
        2.0, what="mean z of distinguishability under random labels",
    )  # fmt: skip
    if judged.holds is None:
        return judged
    most = shares.value > 0.5
    return replace(
        judged,
        holds=judged.holds and most,
        because=f"{judged.because}, and {shares.value:.0%} of the behaviours reach an adjusted p of {_SIGNIFICANT:g}",
        evidence={**judged.evidence, **as_evidence({"share_significant": shares})},
    )


def _judge_counts(measured: Mapping[str, Any]) -> Judged:
    found = measured["counts"]
    if found is None:
        return untestable("none of the data is Persona")
    others = {name: counts for name, counts in found.items() if counts != [_PER_ANSWER, _PER_ANSWER]}
    told = "; ".join(f"{name}: {' + '.join(map(str, counts))}" for name, counts in others.items())
    return Judged(
        holds=not others,
        measured=f"{len(found) - len(others)} of {len(found)} behaviours",
        because=f"all but {told}" if others else "all of them",
        evidence={"others": others},
    )


def _judge_update(measured: Mapping[str, Any]) -> Judged:
    found, accuracy = measured["first update"], measured["last-layer"]["text"]
    judged = above(
        Measured(
            model=found[MODEL]["r_squared"], twin=found[TWIN]["r_squared"], accuracy=accuracy[MODEL]["accuracy"],
            twin_accuracy=accuracy[TWIN]["accuracy"],
        ),
        _PROPORTIONAL, what="R²", most=1,
    )  # fmt: skip
    slope = over_seeds(found[MODEL]["slope"])
    return replace(judged, evidence={**judged.evidence, **as_evidence({"slope_on_weighted_gap": slope})})


def _many_claims() -> list[Claim]:
    """The order of Figure 3 over many behaviours, where an interval says more than over five, and whether it lasts."""
    found = []
    for split, word in _WORD.items():
        found += [
            Claim(
                id=f"{_A}-fig03-many-{word}-{phase}",
                figure=f"{_A}-fig03",
                place="Section 4.2",
                statement=f"Last layer, many behaviours: the {word} loss of a more distinguishable one falls faster, "
                f"{PHASES[phase]}.",
                rule=_ORDER_RULE.format(split=word, phase=PHASES[phase]),
                judge=_judge_order("many", split, phase),
            )
            for phase in ("early", "late")
        ]
        found.append(
            Claim(
                id=f"{_A}-fig03-many-{word}-lasts",
                figure=f"{_A}-fig03",
                place="Section 4.2",
                statement=f"Last layer, many behaviours: the order of the {word} losses does not fade while they fall.",
                rule="The rank correlation of distinguishability with the fall of the loss at the end, less that at a "
                f"tenth of the steps: holds where the lower end of its 95 % interval over seeds is above -{_FADED:g}. "
                + BEYOND,
                judge=_judge_fading(split),
            )
        )
    return found


CLAIMS = (
    Claim(
        id=f"{_A}-fig01-counts",
        figure=f"{_A}-fig01",
        place="Section 3, source error X-18",
        statement="Every behaviour has 500 statements of each answer.",
        rule=f"Rows of the data, none drawn: holds where every behaviour has {_PER_ANSWER} with either answer.",
        judge=_judge_counts,
        paper_value="500 and 500",
    ),
    *_order_claims(),
    *_many_claims(),
    Claim(
        id=f"{_A}-fig04-linear",
        figure=f"{_A}-fig04",
        statement="The norm of the weight change increases linearly.",
        rule=f"Growth per step over the whole run, over that of its first tenth, mean over behaviours: holds where the "
        f"lower end of its 95 % interval over seeds is above {_STRAIGHT:g}. " + BEYOND,
        judge=_judge_drift("straight", _STRAIGHT, "growth per step, whole run over its first tenth:"),
        paper_value="“indeed increases linearly”",
    ),
    Claim(
        id=f"{_A}-fig04-order",
        figure=f"{_A}-fig04",
        statement="The weight change is larger for behaviours with stronger distinguishability.",
        rule="Spearman's rank correlation, over behaviours, of distinguishability with the norm of the weight change "
        "at the end: holds where the lower end of its 95 % interval over seeds is above 0. " + BEYOND,
        judge=_judge_drift("order", 0.0, "rank correlation"),
        paper_value="“significantly higher for behaviors with stronger distinguishability”",
    ),
    Claim(
        id=f"{_A}-fig04-theorem",
        figure=f"{_A}-fig04",
        place="Theorem 4.1",
        statement="The weight change stays below 6 beta' rate t d^(Delta - 1/2).",
        rule="Full-batch runs: holds where no measured change, over behaviours, steps and seeds, is above the bound; "
        "not testable where a condition of the theorem fails.",
        judge=_judge_published_bound,
    ),
    Claim(
        id=f"{_A}-fig04-repaired",
        figure=f"{_A}-fig04",
        place="Theorem 4.1, repaired (source errors X-2 and X-4)",
        statement="The weight change stays below √2/4 rate beta t ‖b_w‖, and equals it at the first step.",
        rule="Full-batch runs: holds where no measured change is above the bound by more than a millionth of it, and "
        "the first step is within a millionth of it, over behaviours, steps and seeds.",
        judge=_judge_repaired_bound,
    ),
    Claim(
        id=f"{_A}-experiment01-null",
        figure=f"{_A}-experiment01",
        statement="Aligned labels are more distinguishable than random ones.",
        rule="Mean over behaviours of the z of distinguishability among random relabellings: holds where the lower end "
        "of its 95 % interval over seeds is above 2, and more than half of the behaviours have a p, adjusted for "
        f"their number, under {_SIGNIFICANT:g}. " + BEYOND,
        judge=_judge_null,
    ),
    Claim(
        id=f"{_A}-experiment02-proportional",
        figure=f"{_A}-experiment02",
        statement="The size of the weight update is proportional to distinguishability.",
        rule="R² of the best multiple of distinguishability (of the pairs trained on) for the first full-batch update, "
        f"over behaviours: holds where the lower end of its 95 % interval over seeds is above {_PROPORTIONAL:g}. "
        + BEYOND,
        judge=_judge_update,
    ),
)

RECIPE = Recipe(
    name="distinguishability",
    summary="Is a behaviour learned faster, the farther apart the model holds its two sides?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("last-layer", *_FULL, _OTHER),
)
