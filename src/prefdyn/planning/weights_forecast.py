"""Planned weights in the run that people make: linear runs of the adapters, as given and with each way to weigh groups.

Weights are found on runs of the last layer. A LoRA or full run moves the states too, so what it would do is asked of
the network that is linear in its weights (THEORY 13): one set of gradients serves every way and every seed. It is asked
on the pairs that the plan held out, which took no part in finding the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._checks import one_of
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.foretold import Foretold
from prefdyn.errors import ConfigError
from prefdyn.planning.forecast import sample_of
from prefdyn.planning.goals import start_loss
from prefdyn.planning.judging import decision, judged
from prefdyn.planning.real_run import refuse_other_data, tune_name
from prefdyn.planning.weights import GIVEN, PLAN, InTheRun, WeightPlan, evened, shares_of
from prefdyn.settings import Reading
from prefdyn.training.linear import linear_margins, linear_modules, linearise, starts
from prefdyn.training.probes import probe_rows
from prefdyn.training.rehearse import Bench, Sample
from prefdyn.training.settings import TrainingSettings
from prefdyn.training.subjects import Models, whole_model

SEEDS = 4
"""Batch orders and adapter starts that every way is run with."""
STRETCH = 2
"""Steps of a linear run, of the real run's: it is slower."""
_PAIRS = 2_000
"""Pairs that are looked at: all where there are no more."""
_FEWEST = 8
"""And at least of each group in each split."""


def in_the_run(
    plan: WeightPlan,
    data: PreferenceDataset,
    model: str,
    settings: TrainingSettings,
    *,
    reading: Reading,
    seeds: int = SEEDS,
    share: bool = True,
    tell: Callable[[str], None] | None = None,
    progress: bool = True,
) -> WeightPlan:
    """The plan, judged by linear runs of a LoRA or full run; it changes nothing where they do not gain.

    Args:
        plan: Of the same pairs.
        data: The pairs, with those held out that the plan held out.
        model: "builtin", a local folder or a hub id.
        settings: Of the run that will be made; see `settings_foretold`.
        reading: How the model reads the pairs.
        seeds: How many batch orders and adapter starts.
        share: Encode what pairs share once, where the model allows it.
        tell: Told, in a line each, what is about to happen.
        progress: Show bars where stderr is a terminal.

    Raises:
        ConfigError: The goal is `equal`, which takes runs of each group alone, or the run is of the last layer.
        DataError: No usable pair is held out.

    Reference:
        THEORY 13. A linear run's worst group and its order of ways agree with real LoRA runs where the last layer's do
        not (docs/plan.md).
    """
    if plan.goal.name == "equal":
        raise ConfigError(
            "the goal 'equal' takes runs of each group alone, which a forecast has not; leave the forecast out, or "
            "take another goal"
        )
    one_of(settings.tune, ("lora", "full"), name="tune")
    models = Models.of(model, reading, share=share, progress=progress, tell=tell)
    per_cell = "all" if len(data) <= _PAIRS else max(_FEWEST, _PAIRS // (2 * len(data.groups)))
    chosen = {each.name: getattr(settings, each.name) for each in fields(settings)}
    for name in ("tune", "objective"):
        del chosen[name]
    chosen |= {"probes": (), "probe_pairs": per_cell}
    subject, settings = whole_model(data, models, settings.objective, None, settings.tune, chosen)
    looked = probe_rows(subject.pairs, None if per_cell == "all" else per_cell, seed=settings.seed)
    sample = sample_of(data, subject, looked)
    train = looked[~subject.pairs.held_out[looked]]
    bench, names = Bench.of(subject, settings, sample), linear_modules(subject, settings.tune)[0]
    models.tell(f"Gradients of {len(looked)} pairs, for linear runs of {settings.tune}.")
    found = linearise(subject, bench.loop(settings), np.concatenate([train, sample.rows]), progress=progress)
    ways = ways_of(plan)
    rows = {name: code for code, name in enumerate(plan.features.groups)}
    code = np.array([rows[subject.pairs.groups[group]] for group in subject.pairs.group[found.rows]])
    factors = np.stack([column[code] for column in ways.values()], axis=1)
    last = STRETCH * settings.steps
    ends = []
    for seed in range(settings.seed, settings.seed + seeds):
        loop = bench.loop(replace(settings, seed=seed))
        begun = replace(found, start=starts(subject, names, settings))
        ends.append(
            linear_margins(begun, loop, len(sample.rows), stretch=STRETCH, records=[last], factors=factors)[1][0]
        )
    return judged_in_runs(plan, np.stack(ends), list(ways), sample, settings, last)


def judged_in_runs(
    plan: WeightPlan,
    ends: Float[np.ndarray, "seeds M n"],
    methods: list[str],
    sample: Sample,
    settings: TrainingSettings,
    steps: int,
) -> WeightPlan:
    """The plan after its ways were run: it changes something only where its own gain holds.

    Args:
        plan: As the last layer has it.
        ends: Margins of the measured pairs, beta included, at the end of each run of each way.
        methods: Names of the ways, those of `ways_of`.
        sample: The measured pairs.
        settings: Of the run that will be made.
        steps: Of each run.
    """
    objective, goal = settings.objective, plan.goal
    reads = goal.measure(objective, sample.names, sample.group, ends[0, 0]).hard
    losses, scored = np.asarray(objective.loss(ends)).mean(axis=0), np.asarray(reads(ends))
    start = start_loss(objective)
    result = judged(
        losses, methods, sample.group, sample.names, sample.unit, goal, start=start, scored=scored.mean(axis=0),
        seed=settings.seed,
    )  # fmt: skip
    means = np.stack([scored[..., sample.group == code].mean(axis=-1) for code in range(len(sample.names))], axis=-1)
    score = goal.score(list(sample.names), means[:, 0].mean(axis=0), start=start).hard(means)
    gains = score[:, 0] - score[:, 1]
    holds, because = decision(result, goal, keep="the weights")
    if holds and not (gains > 0).all():
        holds = False
        because = f"{because}, but with {int((gains <= 0).sum())} of {len(gains)} seeds it does not: keep the weights"
    told = InTheRun(judged=result, gains=gains, holds=holds, because=because, tune=settings.tune, steps=steps)
    kept = plan.change and not holds
    return replace(
        plan,
        run=told,
        change=plan.change and holds,
        factors=np.ones(len(plan.factors)) if kept else plan.factors,
        because=f"{plan.because}. In linear runs of the {tune_name(settings.tune)} run that was foretold {because}",
    )


def ways_of(plan: WeightPlan) -> dict[str, Float[np.ndarray, " groups"]]:
    """Factors of each way that one set of weights stands for: as given, the proposal, and two without a search."""
    shares = shares_of(plan.features)
    return {GIVEN: np.ones(len(shares)), PLAN: plan.proposed, **evened(shares, shares > 0)}


def settings_foretold(
    foretold: Foretold, folder: str, data: PreferenceDataset, model: Mapping[str, Any]
) -> TrainingSettings:
    """Settings of the run that a forecast foretells.

    Args:
        foretold: The forecast.
        folder: Where it was read from.
        data: The pairs at hand.
        model: Provenance of the model at hand.

    Raises:
        ConfigError: The forecast is of other pairs, another model, another reference or turned labels, or its settings
            are not whole.
    """
    refuse_other_data(foretold, folder, {"name": data.name, "sha256": data.sha256})
    theirs, ours = foretold.summary.get("model") or {}, dict(model)
    if theirs.get("sha256") != ours.get("sha256"):
        raise ConfigError(
            f"the forecast in {folder} is of another model ({theirs.get('name')}) than this ({ours.get('name')}); give "
            "the same model"
        )
    settings = TrainingSettings.read(foretold.summary["settings"])
    for odd, what in (
        ((foretold.summary.get("forecast") or {}).get("reference"), "--reference"),
        (settings.flip, "--flip"),
    ):
        if odd:
            raise ConfigError(
                f"the forecast in {folder} was made with {what}, which a plan of weights has not; make one without"
            )
    return settings
