r"""Is a behaviour learned faster, the farther apart the model holds its two sides? 2403.18742, Figures 1 to 19 in part.

Each behaviour is trained alone: the head on states read once (Figures 3 and 4), and the whole model (6, 10, 17 to 19).
Distinguishability $D = \lVert \hat\mu_+ - \hat\mu_- \rVert$ is measured before training on all pairs of the run. How
fast a behaviour is learned is told three times, since curves that start in order need not end in it: by the fall of the
loss at a tenth of the steps, by the area above the curve, and by the fall at the end.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.diagnostics.separation import separation
from prefdyn.dynamics.order import spearman
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import SPLIT_WORDS, Claim, judged, mean, multiple, rank, through_origin
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.falls import PHASES, rows_alone
from prefdyn.experiments.published import PERSONAS, STATED_EXAMPLES
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line, shades
from prefdyn.experiments.rows import CODE, Row, Rows
from prefdyn.experiments.run import ModelChoice, RecipeRun
from prefdyn.experiments.shared_rules import Judged, as_evidence, untestable
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
_HEAD, _DRIFT, _OTHER = f"{_A}-fig03", f"{_A}-fig04", f"{_A}-fig10"
_MANY = f"{_HEAD}b"
_NULL, _UPDATE = f"{_A}-experiment01", f"{_A}-experiment02"
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
    plan: dict[Any, RecipeRun] = {}
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
            for key in _whole_setups(context):
                for name in names:
                    plan[key, source, seed, name] = _whole(
                        context, apart[name], context.source(source, seed), key, seed
                    )
        if (other := context.other_model()) is not None:
            for source in SOURCES:
                model = other if source == MODEL else replace(other, untrained=seed)
                plan["features", f"other {source}", seed] = context.features(together, model)
                for name in names:
                    plan["full-other", source, seed, name] = _whole(context, apart[name], model, "full-other", seed)
    return plan


def _many(context: Context) -> tuple[str, ...]:
    """Behaviours that the order is told over besides the few that the figures show; none where those are all."""
    return crowd(context) if len(context.answers().groups) > len(context.behaviours()) else ()


def _whole_setups(context: Context) -> dict[str, str]:
    """Setups of whole models that the preset runs, and their figures."""
    return {setup: figure for setup, figure in _FULL.items() if setup not in context.preset.left_out}


def _whole(context: Context, pairs: Any, model: ModelChoice, key: str, seed: int) -> RecipeRun:
    return context.train(pairs, model, context.setup(key), seed=seed, title="whole-model")


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    names, seeds, many = context.behaviours(), context.seeds, _many(context)
    each = [(source, seed) for source in SOURCES for seed in seeds]
    feats = {key: done["features", *key].features for key in each}
    far = {key: _distances(found, names) for key, found in feats.items()}
    head = {
        (variant, *key): dict(zip(names, done["last-layer", variant, *key].trajectories, strict=True))
        for variant in context.variants
        for key in each
    }
    descent = {key: dict(zip(names, done["full batch", *key].trajectories, strict=True)) for key in each}
    whole = {
        figure: {key: {name: done[setup, *key, name].trajectory for name in names} for key in each}
        for setup, figure in _whole_setups(context).items()
    }
    rows, notes = [], []
    lacking = {
        figure: f"the preset {context.preset.name} leaves this beta out"
        for setup, figure in _FULL.items()
        if setup in context.preset.left_out
    }
    for key in each:
        rows += [*_head_rows(head["text", *key], far[key], *key), *_null(feats[key], context, *key)]
        rows += _updates(feats[key], descent[key], *key)
        for figure, runs in whole.items():
            rows += _order_rows(runs[key], far[key], figure, *key)
    if context.compat:
        for seed in seeds:
            rows += _order_rows(head["code", MODEL, seed], far[MODEL, seed], _HEAD, CODE, seed)
    crowded = {}
    if many:
        for key in each:
            runs = dict(zip(many, done["many", *key].trajectories, strict=True))
            distances = _distances(done["features, many", *key].features, many)
            rows += _order_rows(runs, distances, _MANY, *key)
            crowded |= {(*key, split): _by_step(runs, distances, split) for split in SPLIT_WORDS}
    else:
        lacking[_MANY] = "the data has no more behaviours than the figure shows"
    other = None
    if context.other_model() is None:
        lacking[_OTHER] = "one model was given; give a second --model"
        notes.append("One model was given, so Figure 10 is drawn from it, and its claim is not testable.")
    else:
        other = {key: {name: done["full-other", *key, name].trajectory for name in names} for key in each}
        for source, seed in each:
            theirs = _distances(done["features", f"other {source}", seed].features, names)
            rows += _order_rows(other[source, seed], theirs, _OTHER, source, seed)
    if context.compat and not context.source(MODEL, 0, "last-layer").rms_norm:
        notes.append("The final norm of this model is no RMSNorm, so the code's second norm does not apply to it.")
    order = sorted(names, key=lambda name: float(np.mean([far[MODEL, seed][name] for seed in seeds])))
    if list(order) != list(names):
        notes.append("Colours follow the order of distinguishability on this model, purple the least.")
    measured = Rows(
        rows,
        lacking=lacking,
        facts={"theorem": _theorem(feats, descent, names, seeds), "counts": _counts(context)},
    )
    figures = [
        _examples(context),
        *_head_figures(context, head, order, seeds),
        *([_many_figure(crowded, seeds, len(many))] if many else []),
        *(_loss_figure(figure, runs, order, seeds, ("train", "held_out")) for figure, runs in whole.items()),
        _loss_figure(_OTHER, other or whole[_FULL["full"]], order, seeds, ("train",)),
        _null_figure(measured, names),
        _update_figure(measured),
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


def _order_rows(
    runs: Mapping[str, Trajectory], far: Mapping[str, float], figure: str, source: str, seed: int
) -> list[Row]:
    """How far the loss of each behaviour fell, what was learned, and its distinguishability."""
    mine = {"figure": figure, "source": source, "seed": seed}
    found = [Row(quantity="distinguishability", value=far[name], group=name, **mine) for name in runs]
    return [*found, *rows_alone(runs, **mine)]


def _head_rows(runs: Mapping[str, Trajectory], far: Mapping[str, float], source: str, seed: int) -> list[Row]:
    """Of the head: falls, and how far the weights went; what it learned stands under every figure drawn from it."""
    found = _order_rows(runs, far, _HEAD, source, seed)
    for name, run in runs.items():
        mine = {"source": source, "seed": seed, "group": name}
        steps, drift = run.curve("drift", group=name)
        tenth = max(1.0, 0.1 * float(steps[-1]))
        rate = at_step(steps, drift, tenth) / tenth
        straight = float(drift[-1]) / float(steps[-1]) / rate if rate > 0 else float("nan")
        found += [
            Row(quantity="distinguishability", value=far[name], figure=_DRIFT, **mine),
            Row(quantity="drift", value=float(drift[-1]), figure=_DRIFT, **mine),
            Row(quantity="straightness", value=straight, figure=_DRIFT, **mine),
        ]
    learned = [row for row in found if row.quantity == "accuracy"]
    return found + [row._replace(figure=figure) for figure in (_DRIFT, _NULL, _UPDATE) for row in learned]


def _by_step(runs: Mapping[str, Trajectory], far: Mapping[str, float], split: str) -> tuple[list[float], list[float]]:
    """The order over many behaviours at every step that was recorded."""
    curves = {name: run.curve("loss", group=name, split=split) for name, run in runs.items()}
    steps = next(iter(curves.values()))[0][1:]
    fallen = np.array([LOG2 - losses[1:] for _, losses in curves.values()])
    return steps.tolist(), [spearman([far[name] for name in runs], column) for column in fallen.T.tolist()]


def _theorem(
    feats: Mapping[tuple[str, int], FeatureSet],
    runs: Mapping[tuple[str, int], Mapping[str, Trajectory]],
    names: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Weight change over the published and over the repaired bound of Theorem 4.1, at every step of full-batch runs."""
    published, repaired, failing, applies = [], [], set(), []
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
                if not theirs.applies:
                    failing |= {condition.says for condition in theirs.conditions if condition.holds is False}
                applies.append(theirs.applies)
    return {
        "published": max(published),
        "repaired": max(repaired),
        "applies": all(applies),
        "failing": sorted(failing),
    }


def _trained(feats: FeatureSet, name: str) -> Any:
    """Constants of the pairs of a behaviour that are trained on."""
    return constants(*sides(feats, trained_rows(feats, name)))


def _updates(feats: FeatureSet, runs: Mapping[str, Trajectory], source: str, seed: int) -> Iterator[Row]:
    """First full-batch update, gap of the pairs trained on, and weighted gap, of each behaviour."""
    for name, run in runs.items():
        c = _trained(feats, name)
        factor = np.sqrt(2) / 4 * run.settings["learning_rate"] * run.settings["beta"]
        update = at_step(*run.curve("drift", group=name), 1.0) / factor
        for quantity, value in (("gap", c.gap), ("weighted gap", c.weighted_gap), ("update", update)):
            yield Row(quantity=quantity, value=value, figure=_UPDATE, source=source, seed=seed, group=name)


def _null(feats: FeatureSet, context: Context, source: str, seed: int) -> Iterator[Row]:
    """Distinguishability beside that of random labels."""
    apart = separation(feats, permutations=context.preset.relabellings, bootstraps=1, folds=2, seed=seed)
    for group in apart.groups:
        numbers = {
            "distinguishability": group.distinguishability, "random labels": group.null_rms, "z": group.null_z,
            "significant": float(group.null_p_adjusted < _SIGNIFICANT),
        }  # fmt: skip
        for quantity, value in numbers.items():
            yield Row(quantity=quantity, value=value, figure=_NULL, source=source, seed=seed, group=group.name)


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


def _many_figure(found: Mapping[Any, tuple[list[float], list[float]]], seeds: Sequence[int], many: int) -> Figure:
    """How the order over many behaviours fares while they are learned."""
    looks = {MODEL: ("model", "solid"), TWIN: ("untrained twin", "dashed")}
    lines = []
    for split, shade in (("train", 0.1), ("held_out", 0.7)):
        for source, (who, style) in looks.items():
            curves = [found[source, seed, split] for seed in seeds]
            label = f"{who}, {SPLIT_WORDS[split]} loss"
            lines.append(mean_line(label, curves[-1][0], [rows for _, rows in curves], shade=shade, style=style))
    return Figure(
        spec=spec_of(_HEAD),
        part="b",
        panels=(Panel(kind="lines", x_label="Step", y_label="Rank correlation", lines=tuple(lines)),),
        caption=f"Distinguishability against the fall of the loss so far, over {many} behaviours, each "
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


def _null_figure(measured: Rows, names: Sequence[str]) -> Figure:
    rows = []
    for name in names:
        cells = [name]
        for source, quantity in itertools.product(SOURCES, ("distinguishability", "random labels")):
            mine = measured.pick(quantity, {"figure": _NULL, "group": name}, source)
            cells.append(f"{np.mean([found[name] for found in mine.values()]):.3g}")
        rows.append(tuple(cells))
    return Figure(
        spec=spec_of(_NULL),
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


def _update_figure(measured: Rows) -> Figure:
    lines = []
    for source, label, shade in ((MODEL, "model", 0.1), (TWIN, "untrained twin", 0.7)):
        x, y = (np.array(measured.values(quantity, {"figure": _UPDATE}, source)) for quantity in ("gap", "update"))
        order = np.argsort(x, kind="stable")
        lines.append(Line(label=label, x=x[order], y=y[order], shade=shade, style="points"))
    far = max(float(line.x.max()) for line in lines)
    lines.append(Line(label="equal", x=np.array([0.0, far]), y=np.array([0.0, far]), style="dashed"))
    return Figure(
        spec=spec_of(_UPDATE),
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


def _judge_counts(_: Claim, rows: Rows) -> Judged:
    found = rows.facts["counts"]
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


def _judge_published_bound(_: Claim, rows: Rows) -> Judged:
    found = rows.facts["theorem"]
    told = f"at most {found['published']:.3g} of the bound"
    evidence = {
        "largest_share": found["published"],
        "largest_share_of_the_repaired_bound": found["repaired"],
        "conditions_that_fail": found["failing"],
    }
    if not found["applies"]:
        why = "its conditions fail here, so it says nothing: " + "; ".join(found["failing"])
        return Judged(holds=None, measured=told, evidence=evidence, because=why)
    kept = found["published"] <= 1 + _EQUAL
    return Judged(
        holds=kept, measured=told, because="largest share over behaviours, steps and seeds", evidence=evidence
    )


def _judge_null(claim: Claim, rows: Rows) -> Judged:
    came = judged(claim, rows)
    if came.holds is None:
        return came
    shares = over_seeds(mean("significant")(rows, claim.chosen, MODEL), least=0, most=1)
    return replace(
        came,
        holds=came.holds and shares.value > 0.5,
        because=f"{came.because}, and {shares.value:.0%} of the behaviours reach an adjusted p of {_SIGNIFICANT:g}",
        evidence={**came.evidence, **as_evidence({"share_significant": shares})},
    )


_ORDER = rank("distinguishability", "fall")
_IN_ORDER = "the five curves are in the order of distinguishability"
_BOTH, _WHOLE_RUN = ("train", "held_out"), ("area",)
_SHOWN = (
    (_HEAD, "Last layer", ("train",), tuple(PHASES)),
    (_FULL["full"], "Whole model", _BOTH, tuple(PHASES)),
    (_OTHER, "Whole model, another model", ("train",), _WHOLE_RUN),
    (_FULL["full-beta-0.001"], "Whole model, beta 0.001", _BOTH, _WHOLE_RUN),
    (_FULL["full-beta-0.1"], "Whole model, beta 0.1", _BOTH, _WHOLE_RUN),
    (_FULL["full-beta-1"], "Whole model, beta 1", _BOTH, _WHOLE_RUN),
)
"""Where the paper shows losses in order: figure, in words, splits, and the phases that are judged apart."""

CLAIMS = (
    Claim(
        id=f"{_A}-fig01-counts",
        figure=f"{_A}-fig01",
        place="Section 3, source error X-18",
        statement="Every behaviour has 500 statements of each answer.",
        said=f"Rows of the data, none drawn: holds where every behaviour has {_PER_ANSWER} with either answer.",
        twin="",
        code=_judge_counts,
        paper_value="500 and 500",
    ),
    *(
        Claim(
            id=f"{figure}-{SPLIT_WORDS[split]}-{phase}",
            figure=figure,
            statement=f"{what}: the {SPLIT_WORDS[split]} loss of a more distinguishable behaviour falls faster, "
            f"{PHASES[phase]}.",
            statistic=_ORDER,
            select={"split": split, "step": phase},
            beside={"as the published code does": {"source": CODE}},
            paper_value=_IN_ORDER,
        )
        for figure, what, splits, phases in _SHOWN
        for split in splits
        for phase in phases
    ),
    *(
        claim
        for split, word in SPLIT_WORDS.items()
        for claim in (
            *(
                Claim(
                    id=f"{_HEAD}-many-{word}-{phase}",
                    figure=_HEAD,
                    place="Section 4.2",
                    statement=f"Last layer, many behaviours: the {word} loss of a more distinguishable one falls "
                    f"faster, {PHASES[phase]}.",
                    statistic=_ORDER,
                    select={"figure": _MANY, "split": split, "step": phase},
                )
                for phase in ("early", "late")
            ),
            Claim(
                id=f"{_HEAD}-many-{word}-lasts",
                figure=_HEAD,
                place="Section 4.2",
                statement=f"Last layer, many behaviours: the order of the {word} losses does not fade while they fall.",
                statistic=_ORDER,
                select={"figure": _MANY, "split": split, "step": "late"},
                less={"step": "early"},
                threshold=-_FADED,
                short="change of the rank correlation",
            ),
        )
    ),
    Claim(
        id=f"{_DRIFT}-linear",
        figure=_DRIFT,
        statement="The norm of the weight change increases linearly.",
        statistic=mean("straightness", short="growth per step, whole run over its first tenth:"),
        threshold=_STRAIGHT,
        paper_value="“indeed increases linearly”",
    ),
    Claim(
        id=f"{_DRIFT}-order",
        figure=_DRIFT,
        statement="The weight change is larger for behaviours with stronger distinguishability.",
        statistic=rank("distinguishability", "drift"),
        paper_value="“significantly higher for behaviors with stronger distinguishability”",
    ),
    Claim(
        id=f"{_DRIFT}-theorem",
        figure=_DRIFT,
        place="Theorem 4.1",
        statement="The weight change stays below 6 beta' rate t d^(Delta - 1/2).",
        said="Full-batch runs: holds where no measured change, over behaviours, steps and seeds, is above the bound; "
        "not testable where a condition of the theorem fails.",
        twin="",
        code=_judge_published_bound,
    ),
    Claim(
        id=f"{_NULL}-null",
        kind="ours",
        figure=_NULL,
        statement="Aligned labels are more distinguishable than random ones.",
        statistic=mean("z", short="mean z of distinguishability under random labels"),
        threshold=2.0,
        note="More than half of the behaviours, besides, must have a p, adjusted for their number, under "
        f"{_SIGNIFICANT:g}.",
        code=_judge_null,
    ),
    Claim(
        id=f"{_UPDATE}-proportional",
        kind="ours",
        figure=_UPDATE,
        statement="The size of the weight update is proportional to distinguishability.",
        statistic=multiple("gap", "update"),
        threshold=_PROPORTIONAL,
        beside={"slope_on_weighted_gap": {"statistic": through_origin("weighted gap", "update")}},
    ),
)

RECIPE = Recipe(
    name="distinguishability",
    summary="Is a behaviour learned faster, the farther apart the model holds its two sides?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("last-layer", *_FULL, "full-other"),
)
