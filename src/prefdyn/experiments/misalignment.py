r"""Is an aligned model misaligned faster than the base? 2403.18742, Figures 9, 11, 15 and 16, and labels flipped.

A model is aligned by DPO on true labels, and then it, and the base beside it, is trained on the same pairs with labels
flipped. As in the published code the reference is the model that training starts from, so both losses begin at log 2;
margins taken against the base model are the other reading. The paper gives as reason that states of the aligned model
hold the two sides farther apart. A head alone on the states of one model cannot show that: margins depend on states and
on the kernel of the pairs, not on the head they start from, so base and aligned head are misaligned along one path. So
a head is trained on the states of both models.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.descent import descent, stable_learning_rate
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, mean, numbers
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.falls import PHASES, falls
from prefdyn.experiments.published import MISALIGNED, persona
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.run import ModelChoice, RecipeRun, StoredPairs
from prefdyn.experiments.shared_rules import Judged, as_evidence, unless_few, untestable
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
_REFERENCE = "margins against the base"
"""Source of rows of runs from the aligned model that have the base for reference."""
_STEPS = ("steps_of_the_alignment",)
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
    plan: dict[Any, RecipeRun] = {}
    dialogues, other = _dialogues(context), context.other_model("full-long-other")
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
    return plan


def _three(
    context: Context, key: tuple[str, str, int, str], pairs: StoredPairs, model: ModelChoice, setup: str, seed: int
) -> dict[Any, RecipeRun]:
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
    dialogues, lacking, notes = _dialogues(context), {}, []
    rows = _misaligned(done, "here", names, seeds)
    rows += [row for source in SOURCES for seed in seeds for row in _states(done, source, names, seed)]
    facts: dict[str, Any] = {_FIGURES["here"]: _told(done, "here", names, seeds)}
    for seed in seeds:
        rows += [
            Row(
                quantity="undone",
                value=_undone(done, "here", MODEL, seed, name, done["against base", seed, name].trajectory),
                figure=_FIGURES["here"],
                source=_REFERENCE,
                seed=seed,
                group=name,
            )
            for name in names
        ]
    figures = [_loss_figure("here", done, names, seeds)]
    if context.other_model("full-long-other") is None:
        lacking[_FIGURES["other"]] = "one model was given; give a second --model"
        notes.append("One model was given, so Figure 11 is drawn from it, and its claims are not testable.")
        figures.append(_loss_figure("here", done, names, seeds, id=_FIGURES["other"]))
    else:
        theirs = _behaviours(context, "mistral")
        rows += _misaligned(done, "other", theirs, seeds)
        facts[_FIGURES["other"]] = _told(done, "other", theirs, seeds)
        figures.append(_loss_figure("other", done, theirs, seeds))
    if dialogues is None:
        lacking[_FIGURES["dialogues"]] = "none of the data has dialogues; add --data hh:PATH"
        notes.append("None of the data has dialogues, so Figures 15 and 16 stay empty; add --data hh:PATH.")
        figures += [_nothing(_FIGURES["dialogues"]), _nothing(_LOG_PROBS)]
    else:
        rows += _misaligned(done, "dialogues", ("",), seeds)
        facts[_FIGURES["dialogues"]] = _told(done, "dialogues", ("",), seeds)
        facts["two prompts"] = _two_prompts(context)
        figures += [_loss_figure("dialogues", done, ("",), seeds), _log_prob_figure(done, seeds)]
        if context.preset.rows is not None:
            notes.append(
                f"Dialogues are those of at most {_LONGEST} characters, {len(dialogues)} in all; the others take "
                "longer."
            )
        if dialogues.left_out:
            notes.append(f"{len(dialogues.left_out)} rows of {dialogues.name} are broken and were left out.")
    figures.append(_check_figure(done, names, seeds))
    return Results(measured=Rows(rows, lacking=lacking, facts=facts), figures=tuple(figures), notes=tuple(notes))


def _two_prompts(context: Context) -> tuple[int, int]:
    """Rows of the dialogues whose two sides have different prompts, and all rows; as they were read."""
    data = context.dialogues()
    assert data is not None
    return sum(row.reason.startswith("has another prompt") for row in data.left_out), len(data) + len(data.left_out)


def _told(done: Done, what: str, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    run = done["aligned", what, MODEL, seeds[-1], names[0]].trajectory
    return {"steps_of_the_alignment": int(run.settings["steps"])}


def _misaligned(done: Done, what: str, names: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """How much further each loss falls from the aligned model, what alignment learned, and what it takes to undo it."""
    rows: list[Row] = []
    for source, seed, name in itertools.product(SOURCES, seeds, names):
        key = (what, source, seed, name)
        mine = {"figure": _FIGURES[what], "source": source, "seed": seed, "group": name}
        base, aligned = (
            falls(*mean_curve(done["flipped", start, *key].trajectory, "loss", "train")) for start in STARTS
        )
        rows += [Row(quantity="ahead", value=aligned[phase] - base[phase], step=phase, **mine) for phase in PHASES]
        learned = mean_curve(done["aligned", *key].trajectory, "reward_accuracy", "held_out")[1][-1]
        back = _undone(done, *key, done["flipped", "aligned", *key].trajectory)
        rows += [
            Row(quantity="accuracy", value=float(learned), **mine),
            Row(quantity="undone", value=back, **mine),
        ]
    return rows


def _undone(done: Done, what: str, source: str, seed: int, name: str, run: Trajectory) -> float:
    """Steps of a run that take the aligned model back, over those of its alignment."""
    key = (what, source, seed, name)
    base = float(_difference(done["flipped", "base", *key].trajectory)[1][0])
    return undone(*_difference(run), base) / int(done["aligned", *key].trajectory.settings["steps"])


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


def _states(done: Done, source: str, names: Sequence[str], seed: int) -> Iterator[Row]:
    """Distinguishability after alignment over before, and what a head makes of both states.

    The head is trained on flipped labels by full batches, at one rate on both states.
    """
    for name in names:
        base, aligned = (done["features", start, source, seed, name].features for start in STARTS)
        curves = _heads((base, aligned), done["aligned", "here", source, seed, name].run)
        before, after = (falls(*curve)["area"] for curve in curves)
        mine = {"figure": _FIGURES["here"], "source": source, "seed": seed, "group": name}
        yield Row(quantity="distance ratio", value=distance(aligned) / distance(base), **mine)
        yield Row(quantity="ahead on states", value=after - before, **mine)


def _heads(pair: Sequence[FeatureSet], run: RecipeRun) -> list[tuple[np.ndarray, np.ndarray]]:
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


def _how(run: RecipeRun) -> str:
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


def _judge_against_base(claim: Claim, rows: Rows) -> Judged:
    found, start = (over_seeds(numbers(claim, rows, source), least=0) for source in (_REFERENCE, MODEL))
    if not found.seeds:
        return untestable("the alignment had added nothing")
    came = Judged(
        holds=found.high < 1,
        measured=f"{_TO_UNDO} {found}; with margins against the start {start}",
        because=f"the upper end {found.high:.3g} is {'' if found.high < 1 else 'not '}below 1",
        evidence=as_evidence({"against_the_base": found, "against_the_start": start}),
    )
    return unless_few(came, found.seeds)


def _judge_misprint(_: Claim, rows: Rows) -> Judged:
    if (why := rows.lacking.get(_FIGURES["dialogues"])) is not None:
        return untestable(why)
    ids = {figure: f"{figure}-faster-area" for what, figure in _FIGURES.items() if what != "other"}
    found = {figure: next(claim for claim in CLAIMS if claim.id == id).judge(rows) for figure, id in ids.items()}
    if any(came.holds is None for came in found.values()):
        return untestable("; ".join(f"{figure}: {came.because}" for figure, came in found.items()))
    told = {figure: "held" if came.holds else "failed" for figure, came in found.items()}
    return Judged(
        holds=all(came.holds for came in found.values()),
        measured="; ".join(f"{id} {word}" for id, word in told.items()),
        because="the claim over the whole run of both figures",
        evidence=told,
    )


def _judge_prompts(_: Claim, rows: Rows) -> Judged:
    if (why := rows.lacking.get(_FIGURES["dialogues"])) is not None:
        return untestable(why)
    differ, count = rows.facts["two prompts"]
    return Judged(
        holds=differ == 0,
        measured=f"{differ} of {count} rows have two prompts",
        because="cut at the same place, the rejected reply would lose words or keep some of its prompt"
        if differ
        else "none differs",
        evidence={"differ": differ, "rows": count},
    )


_OF = {
    "here": "two behaviours, whole model",
    "other": "two behaviours, whole model, the second one",
    "dialogues": "dialogues, adapters",
}
_PLACES = {"here": "Section 5.3 (printed as Figure 15, source error X-7)", "other": "", "dialogues": "Appendix C"}
_UNDONE: dict[str, Any] = {
    "statistic": mean("undone", short=_TO_UNDO, least=0), "test": "below", "threshold": 1.0,
    "note": "The last step counts where a run ends before.",
}  # fmt: skip
_HERE, _TALKS = {"figure": _FIGURES["here"]}, {"figure": _FIGURES["dialogues"]}

CLAIMS = (
    *(
        Claim(
            id=f"{figure}-faster-{phase}",
            figure=figure,
            place=_PLACES[what],
            unit="run",
            statement=f"With labels flipped, the training loss falls faster from the aligned model, {when}.",
            setting=f"Training on flipped labels, {_OF[what]}, reference the start",
            statistic=mean("ahead", short="lead in nats"),
            select={"step": phase},
            note="The accuracy is that of the alignment.",
            each="{}",
            paper_value="“at a significantly faster rate”" if what == "here" else None,
        )
        for what, figure in _FIGURES.items()
        for phase, when in PHASES.items()
    ),
    Claim(
        id=f"{_FIGURES['dialogues']}-prompts",
        figure=_FIGURES["dialogues"],
        place="Code, source error X-20",
        statement="Both sides of a row of dialogues have one prompt, so that one may be cut where the other is.",
        said="All rows, before any is left out: holds where none has a prompt on one side that the other side has not.",
        twin="",
        code=_judge_prompts,
        unit="run",
        paper_value="the script cuts both sides at the place found in the chosen one",
    ),
    Claim(
        id=f"{_FIGURES['here']}-misprint",
        figure=_FIGURES["here"],
        place="Section 5.3, source error X-7",
        statement="What section 5.3 says of Figure 15 is true of that figure as of Figure 9, which it means.",
        said="Holds where the claim over the whole run holds for both figures, behaviours and dialogues.",
        twin="",
        code=_judge_misprint,
        paper_value="“In Figure 15”",
    ),
    Claim(
        id=f"{_LOG_PROBS}-early",
        figure=_LOG_PROBS,
        place="Appendix C",
        statement="The log-probability difference is near that of the base model within the first 100 of the 1258 "
        "steps.",
        setting="Dialogues",
        select=_TALKS,
        facts=_STEPS,
        unit="run",
        paper_value="“within the first 100 steps”",
        **{
            **_UNDONE,
            "threshold": _PUBLISHED_SHARE,
            "given": True,
            "note": f"That is 100 of 1258, the published share. {_UNDONE['note']}",
        },
    ),
    Claim(
        id=f"{_LOG_PROBS}-undone",
        figure=_LOG_PROBS,
        place="Section 5.3",
        statement="Alignment on dialogues is undone in fewer steps than it took.",
        setting="Dialogues",
        select=_TALKS,
        facts=_STEPS,
        unit="run",
        paper_value="“mostly undone in the early steps”",
        **_UNDONE,
    ),
    Claim(
        id=f"{_CHECK}-undone",
        figure=_CHECK,
        place="Section 5.3",
        unit="run",
        statement="Alignment on behaviours is undone in fewer steps than it took.",
        setting="Behaviours, whole model",
        select=_HERE,
        facts=_STEPS,
        paper_value="“mostly undone in the early steps”",
        **_UNDONE,
    ),
    Claim(
        id=f"{_CHECK}-reference",
        figure=_CHECK,
        place="Section 5.3 (ours)",
        unit="run",
        statement="It is so as well where margins are taken against the base model.",
        setting="Behaviours, whole model, reference the base",
        select=_HERE,
        twin="",
        code=_judge_against_base,
        kind="ours",
        **_UNDONE,
    ),
    Claim(
        id=f"{_CHECK}-states",
        figure=_CHECK,
        place="Section 5.3",
        unit="run",
        statement="An aligned model holds the two sides farther apart.",
        statistic=mean("distance ratio", short="distinguishability after over before:"),
        select=_HERE,
        threshold=1.0,
        paper_value="“a larger preference distinguishability”",
    ),
    Claim(
        id=f"{_CHECK}-head",
        figure=_CHECK,
        place="Section 5.3 (ours)",
        unit="run",
        statement="That is enough: a head alone learns flipped labels faster on the states of the aligned model.",
        setting="Head on states of the base and of the aligned model, flipped labels, full batches, one rate",
        statistic=mean("ahead on states", short="lead in nats"),
        select=_HERE,
        kind="ours",
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
