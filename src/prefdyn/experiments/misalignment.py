r"""Is an aligned model misaligned faster than the base? 2403.18742, Figures 9, 11, 15 and 16, and labels flipped.

A model is aligned by DPO on true labels, and then it, and the base beside it, is trained on the same pairs with labels
flipped. As in the published code the reference is the model that training starts from, so both losses begin at log 2;
margins taken against the base model are the other reading. The paper gives as reason that states of the aligned model
hold the two sides farther apart. With the head alone nothing of that kind can happen: margins depend on states and on
the kernel of the pairs, not on the head they start from, so base and aligned head are misaligned along one path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.descent import descent, stable_learning_rate
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.falls import PHASES, falls
from prefdyn.experiments.judging import BEYOND, Judged, Measured, above, as_evidence, below, unless_few, untestable
from prefdyn.experiments.published import MISALIGNED, persona
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line
from prefdyn.experiments.run import ModelChoice, Run, StoredPairs
from prefdyn.experiments.sides import distance
from prefdyn.experiments.statistics import over_seeds
from prefdyn.experiments.values import mean_curve
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2
from prefdyn.trajectory import Trajectory

_A = "2403.18742"
_FIGURES = {"here": f"{_A}-fig09", "other": f"{_A}-fig11", "dialogues": f"{_A}-fig15"}
_LOG_PROBS, _CHECK = f"{_A}-fig16", f"{_A}-check02"
STARTS = {"base": "from the base model", "aligned": "from the aligned model"}
_SHADES = {"base": 0.1, "aligned": 0.7}
_AGAINST_BASE = "the same, margins against the base"
_SHARE = 0.5
"""Of the preset's rows: dialogues are long."""
_LONGEST = 400
"""Characters of prompt and both answers of the dialogues kept, where a preset does not take all."""
_MEASURED = 0.5
"""Of the preset's pairs per split that a run on dialogues is measured on."""
_NEAR = 0.1
"""Share of what alignment added to the difference of log-probabilities, under which it counts as undone."""
_PUBLISHED_SHARE = 100 / (161_000 / 128)
"""The first 100 steps of one epoch: 161,000 pairs in batches of 128 (THEORY 2.7)."""
_HEAD_STEPS = 100
"""Of the head alone on states: as many as the published last-layer runs have."""
_SAME = 1e-6
"""Difference of two margin paths, as a share of the largest margin, up to which they count as one."""
_TO_UNDO = "steps to undo over steps of the alignment"


# what is run ---------------------------------------------------------------------------------------------------------


def _behaviours(context: Context, which: str) -> tuple[str, ...]:
    """The published two, low distinguishability first, where the data has them; else two that stand for five."""
    names = context.answers().groups
    published = tuple(persona(place) for place in MISALIGNED[which])
    if all(name in names for name in published):
        return published
    chosen = context.behaviours()
    return tuple(dict.fromkeys((chosen[0], chosen[-1])))


def _dialogues(context: Context) -> PreferenceDataset | None:
    """Dialogues to train on; of a preset that draws rows, short ones alone. None where the data has none."""
    data = context.dialogues()
    if data is None or context.preset.rows is None:
        return data
    texts = (data.table[name].to_pylist() for name in ("prompt", "chosen", "rejected"))
    short = np.array([sum(map(len, row)) <= _LONGEST for row in zip(*texts, strict=True)])
    return data.select(mask=short) if short.any() else data


def _runs(context: Context) -> Plan:
    plan: dict[Any, Run] = {}
    dialogues, other = _dialogues(context), context.other_model("full-long-other")
    head = replace(context.setup("last-layer"), batch_size="full", scheme="epochs")
    for seed in context.seeds:
        for source in SOURCES:
            for name in _behaviours(context, "llama-2"):
                pairs = context.pairs([name], seed, template=context.setup("full-long").template)
                model = context.source(source, seed)
                plan |= _three(context, ("here", source, seed, name), pairs, model, "full-long", seed)
                plan["features", "base", source, seed, name] = context.features(pairs, model)
                plan["features", "aligned", source, seed, name] = context.features(
                    pairs, model, start=plan["aligned", "here", source, seed, name]
                )
            if other is not None:
                for name in _behaviours(context, "mistral"):
                    pairs = context.pairs([name], seed, template=context.setup("full-long-other").template)
                    model = other if source == MODEL else replace(other, untrained=seed)
                    plan |= _three(context, ("other", source, seed, name), pairs, model, "full-long-other", seed)
            if dialogues is not None:
                pairs = context.pairs(dialogues.groups, seed, share=_SHARE, data=dialogues)
                model = replace(context.source(source, seed, "lora-hh"), answers=None)
                plan |= _three(context, ("dialogues", source, seed, ""), pairs, model, "lora-hh", seed)
        for name in _behaviours(context, "llama-2"):
            aligned = plan["aligned", "here", MODEL, seed, name]
            plan["against base", seed, name] = context.train(
                aligned.pairs, aligned.model, context.setup("full-long"), seed=seed, start=aligned, flip=True,
                reference="base", title="flipped labels, margins against the base, full",
            )  # fmt: skip
        strongest = plan["aligned", "here", MODEL, seed, _behaviours(context, "llama-2")[-1]]
        model = context.source(MODEL, seed, "last-layer")
        before = context.train(strongest.pairs, model, head, seed=seed, title="last-layer", keep_model=True)
        for start in STARTS:
            plan["head", start, seed] = context.train(
                strongest.pairs, model, head, seed=seed, flip=True, start=before if start == "aligned" else None,
                title=f"flipped labels {STARTS[start]}, last-layer",
            )  # fmt: skip
    return plan


def _three(
    context: Context, key: tuple[str, str, int, str], pairs: StoredPairs, model: ModelChoice, setup: str, seed: int
) -> dict[Any, Run]:
    """Alignment, and training on flipped labels from the base and from the aligned model."""
    measured = context.preset.measured_pairs
    rest: dict[str, Any] = {}
    if key[0] == "dialogues" and measured is not None:
        rest["probe_pairs"] = max(1, round(_MEASURED * measured))
    chosen = context.setup(setup)
    aligned = context.train(pairs, model, chosen, seed=seed, title=f"alignment, {chosen.tune}", keep_model=True, **rest)
    return {("aligned", *key): aligned} | {
        ("flipped", start, *key): context.train(
            pairs, model, chosen, seed=seed, flip=True, start=aligned if start == "aligned" else None,
            title=f"flipped labels {STARTS[start]}, {chosen.tune}", **rest,
        )
        for start in STARTS
    }  # fmt: skip


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    names, seeds = _behaviours(context, "llama-2"), context.seeds
    measured: dict[str, Any] = {
        "behaviours": list(names),
        "here": _misaligned(done, "here", names, seeds),
        "states": {source: _states(done, source, names, seeds) for source in SOURCES},
        "against base": [_mean_undone(done, "here", MODEL, seed, names, "against base") for seed in seeds],
        "null": [_apart(*(done["head", start, seed].trajectory for start in STARTS)) for seed in seeds],
    }
    dialogues, notes = _dialogues(context), []
    figures = [_loss_figure("here", done, names, seeds)]
    if context.other_model("full-long-other") is None:
        notes.append("One model was given, so Figure 11 is drawn from it, and its claims are not testable.")
        figures.append(_loss_figure("here", done, names, seeds, id=_FIGURES["other"]))
    else:
        theirs = _behaviours(context, "mistral")
        measured["other"] = _misaligned(done, "other", theirs, seeds)
        figures.append(_loss_figure("other", done, theirs, seeds))
    if dialogues is None:
        notes.append("None of the data has dialogues, so Figures 15 and 16 stay empty; add --data hh:PATH.")
        figures += [_nothing(_FIGURES["dialogues"]), _nothing(_LOG_PROBS)]
    else:
        measured["dialogues"] = _misaligned(done, "dialogues", ("",), seeds)
        measured["two prompts"] = _two_prompts(context)
        figures += [_loss_figure("dialogues", done, ("",), seeds), _log_prob_figure(done, seeds)]
        if context.preset.rows is not None:
            notes.append(
                f"Dialogues are those of at most {_LONGEST} characters, {len(dialogues)} in all; the others take "
                "longer."
            )
        if dialogues.left_out:
            notes.append(f"{len(dialogues.left_out)} rows of {dialogues.name} are broken and were left out.")
    figures.append(_check_figure(done, names, seeds))
    return Results(measured=measured, figures=tuple(figures), notes=tuple(notes))


def _two_prompts(context: Context) -> tuple[int, int]:
    """Rows of the dialogues whose two sides have different prompts, and all rows; as they were read."""
    data = context.dialogues()
    assert data is not None
    return sum(row.reason.startswith("has another prompt") for row in data.left_out), len(data) + len(data.left_out)


def _misaligned(done: Done, what: str, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Per source and seed: how much further the loss falls from the aligned model, what it takes to undo alignment."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        mine: dict[str, Any] = {"faster": {phase: [] for phase in PHASES}, "accuracy": [], "undone": [], "steps": 0}
        mine["apart"] = {name: {phase: [] for phase in PHASES} for name in names}
        for seed in seeds:
            for name in names:
                key = (what, source, seed, name)
                base, aligned = (
                    falls(*mean_curve(done["flipped", start, *key].trajectory, "loss", "train")) for start in STARTS
                )
                for phase in PHASES:
                    mine["apart"][name][phase].append(aligned[phase] - base[phase])
            for phase in PHASES:
                mine["faster"][phase].append(float(np.mean([mine["apart"][name][phase][-1] for name in names])))
            runs = [done["aligned", what, source, seed, name].trajectory for name in names]
            mine["accuracy"].append(
                float(np.mean([mean_curve(run, "reward_accuracy", "held_out")[1][-1] for run in runs]))
            )
            mine["undone"].append(_mean_undone(done, what, source, seed, names, "flipped"))
            mine["steps"] = int(runs[0].settings["steps"])
        found[source] = mine
    return found


def _mean_undone(done: Done, what: str, source: str, seed: int, names: Sequence[str], way: str) -> float:
    """Steps that take the aligned model back, over those of its alignment, mean of the behaviours."""
    shares = []
    for name in names:
        key = (what, source, seed, name)
        run = done["flipped", "aligned", *key] if way == "flipped" else done[way, seed, name]
        steps, differences = _difference(run.trajectory)
        base = float(_difference(done["flipped", "base", *key].trajectory)[1][0])
        length = int(done["aligned", *key].trajectory.settings["steps"])
        shares.append(undone(steps, differences, base) / length)
    return float(np.mean(shares))


def _difference(run: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of the truly chosen answers less that of the others, nats, along a run on flipped labels."""
    steps, chosen = mean_curve(run, "chosen_log_prob", "train")
    return steps, mean_curve(run, "rejected_log_prob", "train")[1] - chosen


def undone(steps: np.ndarray, differences: np.ndarray, base: float) -> float:
    """The first step at which a difference of log-probabilities is back near the base model's.

    Near: a tenth of what alignment had added is left. Between recorded steps the difference is taken as a straight
    line.

    Args:
        steps: Recorded steps of a run on flipped labels from the aligned model.
        differences: The difference at each.
        base: That of the base model.

    Returns:
        Steps; the last one where the run ends before; NaN where alignment had added nothing.

    Example:
        >>> undone(np.array([0, 2, 4]), np.array([10.0, 6.0, -4.0]), 0.0)
        3.0
        >>> undone(np.array([0, 2]), np.array([10.0, 6.0]), 0.0), undone(np.array([0, 2]), np.array([1.0, 0.0]), 1.0)
        (2.0, nan)
    """
    added = float(differences[0]) - base
    if not added > 0:
        return float("nan")
    left = differences - (base + _NEAR * added)
    below_it = np.flatnonzero(left <= 0)
    if not len(below_it):
        return float(steps[-1])
    place = int(below_it[0])
    before, after = left[place - 1], left[place]
    return float(steps[place - 1] + (steps[place] - steps[place - 1]) * before / (before - after))


def _apart(base: Trajectory, aligned: Trajectory) -> float:
    """Largest difference of two margin paths over the largest margin, over all steps, groups and splits."""
    first, second = (
        np.asarray(run.table["margin"].to_numpy(zero_copy_only=False), dtype=np.float64) for run in (base, aligned)
    )
    return float(np.abs(first - second).max() / np.abs(first).max())


def _states(done: Done, source: str, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Per seed, mean of the behaviours: distinguishability after alignment over before, and what a head makes of it.

    The head is trained on flipped labels by full batches, at one rate on both states.
    """
    ratios, ahead = [], []
    for seed in seeds:
        found = [
            [done["features", start, source, seed, name].features for start in STARTS] for name in names
        ]  # fmt: skip
        ratios.append(float(np.mean([distance(aligned) / distance(base) for base, aligned in found])))
        curves = [
            _heads(pair, done["aligned", "here", source, seed, name].run)
            for pair, name in zip(found, names, strict=True)
        ]
        ahead.append(float(np.mean([falls(*aligned)["area"] - falls(*base)["area"] for base, aligned in curves])))
    return {"distinguishability": ratios, "head": ahead}


def _heads(pair: Sequence[FeatureSet], run: Run) -> list[tuple[np.ndarray, np.ndarray]]:
    """Loss curves of a head on base and on aligned states, labels flipped, at the smaller of the two stable rates."""
    assert run.setup is not None
    objective = DPO(beta=run.setup.beta)
    flipped = [feats.flipped() for feats in pair]
    rate = min(stable_learning_rate(feats, objective) for feats in flipped)
    return [
        mean_curve(descent(feats, objective, learning_rate=rate, steps=_HEAD_STEPS, alone=False), "loss", "train")
        for feats in flipped
    ]


# figures -------------------------------------------------------------------------------------------------------------


def _loss_figure(what: str, done: Done, names: Sequence[str], seeds: Sequence[int], *, id: str | None = None) -> Figure:
    panels = []
    for letter, name in zip("ab", names, strict=False):
        lines = tuple(
            _line(label, [done["flipped", start, what, MODEL, seed, name].trajectory for seed in seeds], _SHADES[start])
            for start, label in STARTS.items()
        )
        panels.append(
            Panel(
                kind="lines", title=f"({letter}) {name}" if name else "", x_label="Step", y_label="Training loss "
                "(nats)",
                lines=lines, marks=(("log 2", LOG2),),
            )
        )  # fmt: skip
    run = done["flipped", "base", what, MODEL, seeds[0], names[0]].run
    return Figure(
        spec=spec_of(id or _FIGURES[what]),
        panels=tuple(panels),
        caption=f"Loss while labels are flipped, {_how(run)}; the reference is the model that training starts from. "
        "Lines: mean of the seeds; bands: their range.",
    )


def _how(run: Run) -> str:
    assert run.setup is not None
    what = {"full": "whole model", "lora": "adapters", "last-layer": "head alone"}[run.setup.tune]
    return f"{what}, {run.setup.optimizer}, beta {run.setup.beta:g}, learning rate {run.setup.learning_rate:.3g}"


def _line(label: str, runs: Sequence[Trajectory], shade: float, **rest: Any) -> Line:
    curves = [mean_curve(run, "loss", "train") for run in runs]
    return mean_line(label, curves[0][0].tolist(), [values.tolist() for _, values in curves], shade=shade, **rest)


def _differences(label: str, runs: Sequence[Trajectory], shade: float, **rest: Any) -> Line:
    curves = [_difference(run) for run in runs]
    return mean_line(label, curves[0][0].tolist(), [values.tolist() for _, values in curves], shade=shade, **rest)


def _log_prob_panel(done: Done, what: str, name: str, seeds: Sequence[int], title: str) -> Panel:
    lines = [
        _differences(
            label, [done["flipped", start, what, MODEL, seed, name].trajectory for seed in seeds], _SHADES[start]
        )
        for start, label in STARTS.items()
    ]
    if what == "here":
        runs = [done["against base", seed, name].trajectory for seed in seeds]
        lines.append(_differences(_AGAINST_BASE, runs, _SHADES["aligned"], style="dashed"))
    return Panel(
        kind="lines", title=title, x_label="Step", y_label="log π(chosen) − log π(rejected) (nats)", lines=tuple(lines),
        marks=(("base model", float(lines[0].y[0])),),
    )  # fmt: skip


def _log_prob_figure(done: Done, seeds: Sequence[int]) -> Figure:
    run = done["flipped", "base", "dialogues", MODEL, seeds[0], ""].run
    return Figure(
        spec=spec_of(_LOG_PROBS),
        panels=(_log_prob_panel(done, "dialogues", "", seeds, ""),),
        caption="Difference of the log-probabilities of truly chosen and truly rejected answers while labels are "
        f"flipped, training pairs, {_how(run)}. Lines: mean of the seeds; bands: their range.",
    )


def _check_figure(done: Done, names: Sequence[str], seeds: Sequence[int]) -> Figure:
    panels = [
        _log_prob_panel(done, "here", name, seeds, f"({letter}) {name}")
        for letter, name in zip("ab", names, strict=False)
    ]
    for same, letter, name in zip("ab", "cd", names, strict=False):
        curves = [
            _heads(
                [done["features", start, MODEL, seed, name].features for start in STARTS],
                done["aligned", "here", MODEL, seed, name].run,
            )
            for seed in seeds
        ]
        lines = tuple(
            mean_line(
                label, curves[0][place][0].tolist(), [each[place][1].tolist() for each in curves], shade=_SHADES[start],
            )
            for place, (start, label) in enumerate(STARTS.items())
        )  # fmt: skip
        panels.append(
            Panel(
                kind="lines", title=f"({letter}) as ({same}), head alone", x_label="Step",
                y_label="Training loss (nats)", lines=lines, marks=(("log 2", LOG2),),
            )
        )  # fmt: skip
    return Figure(
        spec=spec_of(_CHECK),
        panels=tuple(panels),
        caption="Above: difference of the log-probabilities of truly chosen and truly rejected answers while the whole "
        "model is trained on flipped labels. Below: a head alone, on the states of the base and of the aligned model, "
        "at one rate. Lines: mean of the seeds; bands: their range.",
    )


def _nothing(id: str) -> Figure:
    return Figure(
        spec=spec_of(id),
        panels=(
            Panel(
                kind="texts", title="nothing to draw",
                rows=(("What lacks", "Dialogues: none of the data has longer responses. Add --data hh:PATH."),),
            ),
        ),
        caption="Not drawn: none of the data has dialogues.",
    )  # fmt: skip


# claims --------------------------------------------------------------------------------------------------------------

_LACKING = {
    "other": "one model was given; give a second --model",
    "dialogues": "none of the data has dialogues; add --data hh:PATH",
}


def _judge_faster(what: str, phase: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if what not in measured:
            return untestable(_LACKING[what])
        judged = above(_of(measured[what], lambda mine: mine["faster"][phase]), 0.0, what="lead in nats")
        apart = measured[what][MODEL]["apart"]
        each = {name: over_seeds(apart[name][phase]) for name in apart if name}
        return replace(judged, evidence={**judged.evidence, **as_evidence(each)})

    return judge


def _of(found: Mapping[str, Mapping[str, Any]], pick: Any) -> Measured:
    """A statistic of both sources, with the held-out accuracy of their alignment."""
    model, twin = (found[source] for source in SOURCES)
    return Measured(model=pick(model), twin=pick(twin), accuracy=model["accuracy"], twin_accuracy=twin["accuracy"])


def _judge_undone(what: str, limit: float) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if what not in measured:
            return untestable(_LACKING[what])
        judged = below(_of(measured[what], lambda mine: mine["undone"]), limit, what=_TO_UNDO, least=0)
        return replace(judged, evidence={**judged.evidence, "steps_of_the_alignment": measured[what][MODEL]["steps"]})

    return judge


def _judge_against_base(measured: Mapping[str, Any]) -> Judged:
    found, start = (
        over_seeds(values, least=0) for values in (measured["against base"], measured["here"][MODEL]["undone"])
    )
    if not found.seeds:
        return untestable("the alignment had added nothing")
    judged = Judged(
        holds=found.high < 1,
        measured=f"{_TO_UNDO} {found}; with margins against the start {start}",
        because=f"the upper end {found.high:.3g} is {'' if found.high < 1 else 'not '}below 1",
        evidence=as_evidence({"against_the_base": found, "against_the_start": start}),
    )
    return unless_few(judged, found.seeds)


def _judge_misprint(measured: Mapping[str, Any]) -> Judged:
    if "dialogues" not in measured:
        return untestable(_LACKING["dialogues"])
    found = {what: _judge_faster(what, "area")(measured) for what in ("here", "dialogues")}
    if any(judged.holds is None for judged in found.values()):
        return untestable("; ".join(f"{_FIGURES[what]}: {judged.because}" for what, judged in found.items()))
    words = {True: "held", False: "failed"}
    told = {_FIGURES[what]: words[bool(judged.holds)] for what, judged in found.items()}
    return Judged(
        holds=all(judged.holds for judged in found.values()),
        measured="; ".join(f"{id} {word}" for id, word in told.items()),
        because="the claim over the whole run of both figures",
        evidence=told,
    )


def _judge_states(quantity: str, threshold: float, what: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        values = {source: measured["states"][source][quantity] for source in SOURCES}
        accuracy = {source: measured["here"][source]["accuracy"] for source in SOURCES}
        model, twin = SOURCES
        return above(
            Measured(
                model=values[model], twin=values[twin], accuracy=accuracy[model], twin_accuracy=accuracy[twin]
            ),
            threshold, what=what,
        )  # fmt: skip

    return judge


def _judge_null(measured: Mapping[str, Any]) -> Judged:
    worst = float(np.max(measured["null"]))
    return Judged(
        holds=worst <= _SAME,
        measured=f"paths of all margins differ by at most {worst:.2g} of the largest",
        because=f"over all recorded steps, both splits and {len(measured['null'])} seeds",
        evidence={"largest_difference": list(measured["null"])},
    )


_OF = {
    "here": "two behaviours, whole model",
    "other": "two behaviours, whole model, the second one",
    "dialogues": "dialogues, adapters",
}
_PLACES = {"here": "Section 5.3 (printed as Figure 15, source error X-7)", "other": "", "dialogues": "Appendix C"}


def _faster_claims() -> list[Claim]:
    return [
        Claim(
            id=f"{id}-faster-{phase}",
            figure=id,
            place=_PLACES[what],
            statement=f"With labels flipped, the training loss falls faster from the aligned model, {when}.",
            said=f"Training on flipped labels, {_OF[what]}, reference the start: how much further the loss has fallen "
            f"{when} from the aligned model than from the base, mean over behaviours; holds where the lower end of its "
            "95 % interval over seeds is above 0. The accuracy is that of the alignment. " + BEYOND,
            judge_measured=_judge_faster(what, phase),
            paper_value="“at a significantly faster rate”" if what == "here" else None,
        )
        for what, id in _FIGURES.items()
        for phase, when in PHASES.items()
    ]


def _judge_prompts(measured: Mapping[str, Any]) -> Judged:
    if "two prompts" not in measured:
        return untestable(_LACKING["dialogues"])
    differ, rows = measured["two prompts"]
    return Judged(
        holds=differ == 0,
        measured=f"{differ} of {rows} rows have two prompts",
        because="cut at the same place, the rejected reply would lose words or keep some of its prompt"
        if differ
        else "none differs",
        evidence={"differ": differ, "rows": rows},
    )


_UNDONE = (
    "Steps until the difference of the log-probabilities of truly chosen and truly rejected answers, over the training "
    f"pairs, is down to the base model's and a tenth of what alignment added ({_NEAR:g}), over the steps of the "
    "alignment; the last step where a run ends before. Holds where the upper end of its 95 % interval over seeds is "
    "below {limit}."
)

CLAIMS = (
    *_faster_claims(),
    Claim(
        id=f"{_FIGURES['dialogues']}-prompts",
        figure=_FIGURES["dialogues"],
        place="Code, source error X-20",
        statement="Both sides of a row of dialogues have one prompt, so that one may be cut where the other is.",
        said="All rows, before any is left out: holds where none has a prompt on one side that the other side has not.",
        judge_measured=_judge_prompts,
        paper_value="the script cuts both sides at the place found in the chosen one",
    ),
    Claim(
        id=f"{_FIGURES['here']}-misprint",
        figure=_FIGURES["here"],
        place="Section 5.3, source error X-7",
        statement="What section 5.3 says of Figure 15 is true of that figure as of Figure 9, which it means.",
        said="Holds where the claim over the whole run holds for both figures, behaviours and dialogues.",
        judge_measured=_judge_misprint,
        paper_value="“In Figure 15”",
    ),
    Claim(
        id=f"{_LOG_PROBS}-early",
        figure=_LOG_PROBS,
        place="Appendix C",
        statement="The log-probability difference is near that of the base model within the first 100 of the 1258 "
        "steps.",
        said="Dialogues. " + _UNDONE.format(limit="100 of 1258, the published share") + " " + BEYOND,
        judge_measured=_judge_undone("dialogues", _PUBLISHED_SHARE),
        paper_value="“within the first 100 steps”",
    ),
    Claim(
        id=f"{_LOG_PROBS}-undone",
        figure=_LOG_PROBS,
        place="Section 5.3",
        statement="Alignment on dialogues is undone in fewer steps than it took.",
        said="Dialogues. " + _UNDONE.format(limit="1") + " " + BEYOND,
        judge_measured=_judge_undone("dialogues", 1.0),
        paper_value="“mostly undone in the early steps”",
    ),
    Claim(
        id=f"{_CHECK}-undone",
        figure=_CHECK,
        place="Section 5.3",
        statement="Alignment on behaviours is undone in fewer steps than it took.",
        said="Behaviours, whole model, mean of both. " + _UNDONE.format(limit="1") + " " + BEYOND,
        judge_measured=_judge_undone("here", 1.0),
        paper_value="“mostly undone in the early steps”",
    ),
    Claim(
        id=f"{_CHECK}-reference",
        figure=_CHECK,
        place="Section 5.3 (ours)",
        statement="It is so as well where margins are taken against the base model.",
        said="Behaviours, whole model, mean of both, reference the base. " + _UNDONE.format(limit="1"),
        judge_measured=_judge_against_base,
    ),
    Claim(
        id=f"{_CHECK}-states",
        figure=_CHECK,
        place="Section 5.3",
        statement="An aligned model holds the two sides farther apart.",
        said="Distinguishability of the states of all pairs after alignment over that before, mean over behaviours: "
        "holds where the lower end of its 95 % interval over seeds is above 1. " + BEYOND,
        judge_measured=_judge_states("distinguishability", 1.0, "distinguishability after over before:"),
        paper_value="“a larger preference distinguishability”",
    ),
    Claim(
        id=f"{_CHECK}-head",
        figure=_CHECK,
        place="Section 5.3 (ours)",
        statement="That is enough: a head alone learns flipped labels faster on the states of the aligned model.",
        said="Head on states of the base and of the aligned model, flipped labels, full batches, one rate: how much "
        "further its loss has fallen over the whole run on the aligned states, mean over behaviours; holds where the "
        "lower end of its 95 % interval over seeds is above 0. " + BEYOND,
        judge_measured=_judge_states("head", 0.0, "lead in nats"),
    ),
    Claim(
        id=f"{_CHECK}-null",
        figure=_CHECK,
        place="THEORY 2.7 (ours)",
        statement="Where the head alone is trained, base and aligned head are misaligned along the same path.",
        said="Head aligned by full batches; then it and the base head trained on flipped labels, each with itself for "
        f"reference: holds where all margins of both runs, at every recorded step, differ by at most {_SAME:g} of the "
        "largest.",
        judge_measured=_judge_null,
    ),
)

RECIPE = Recipe(
    name="misalignment",
    summary="Is an aligned model misaligned faster than the base, and how soon is alignment undone?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("full-long", "full-long-other", "lora-hh", "last-layer"),
)
