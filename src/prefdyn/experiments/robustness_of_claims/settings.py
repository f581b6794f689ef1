r"""Does distinguishability decide what is learned early at other betas, learning rates, draws and sizes of model?

The first check proposed for 2403.18742. Under plain descent beta and rate act through rate · beta² alone, so that
product is what the sweep walks along, from a straight line to far beyond what is stable.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.dynamics.descent import stability
from prefdyn.dynamics.order import spearman
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
from prefdyn.experiments.falls import PHASES, accuracy_alone, falls
from prefdyn.experiments.judging import BEYOND, Judged, Measured, above, as_evidence, untestable
from prefdyn.experiments.published import BETAS
from prefdyn.experiments.recipe import Done, Panel, mean_line
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.separability import folded
from prefdyn.experiments.sides import distance
from prefdyn.experiments.statistics import over_seeds
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.trajectory import Trajectory

FIGURE = "2403.18742-check01"
REFERENCE = (0.01, 0.1)
"""The published beta and rate of the last layer."""
SETTINGS = tuple((beta, rate) for beta in BETAS for rate in ((0.01, 0.1, 1.0) if beta < 1 else (1e-4, 1e-3, 1e-2)))
"""Beta and rate: the published rate, a tenth and ten times of it; a hundredth of these for beta 1, at which the paper
lowers its rate too."""
WHEN: Mapping[str, str] = {phase: PHASES[phase] for phase in ("early", "late")}
LOSSES: Mapping[str, str] = {"train": "training", "held_out": "held-out"}
_ALIKE = 0.5
"""Rank correlation from which on two orders count as alike."""
_EQUAL = 1e-9
"""Nats by which two equal loss curves may differ."""

Feats = Mapping[tuple[str, int], FeatureSet]
"""Of the first model, by source and seed."""


# what is measured ----------------------------------------------------------------------------------------------------


def fallen(run: Trajectory, name: str, split: str) -> dict[str, float]:
    """How far the loss of a behaviour fell, by phase; a run that ended early stays where it ended."""
    steps, losses = run.curve("loss", group=name, split=split)
    last = run.settings["steps"]
    if steps[-1] < last:
        steps, losses = np.append(steps, last), np.append(losses, losses[-1])
    return falls(steps, losses)


def over_settings(done: Done, feats: Feats, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """At every beta and rate: how the fall of the loss follows distinguishability, and the order of learning.

    Args:
        done: Runs under ("sweep", beta, rate, source, seed).
        feats: What they were trained on.
        names: Behaviours.
        seeds: Repetitions.
    """
    limits = {seed: min(_limit(feats[source, seed], name) for source in SOURCES for name in names) for seed in seeds}
    stable = [[beta**2 * rate <= limits[seed] for seed in seeds] for beta, rate in SETTINGS]
    return {
        "stable": stable,
        "equal": _largest_difference(done, stable, names, seeds),
        **{source: _laws(done, feats, source, names, seeds) for source in SOURCES},
    }


def _limit(feats: FeatureSet, name: str) -> float:
    """Largest stable rate · beta² of a behaviour alone."""
    found = stability(feats, DPO(beta=1.0), [name])
    return math.inf if found is None else found


def _laws(done: Done, feats: Feats, source: str, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    far = {
        seed: [distance(feats[source, seed], rows) for rows in map(feats[source, seed].members, names)]
        for seed in seeds
    }
    found = {
        (setting, seed, split): [
            fallen(run, name, split)
            for name, run in zip(names, done["sweep", *setting, source, seed].trajectories, strict=True)
        ]
        for setting in SETTINGS
        for seed in seeds
        for split in LOSSES
    }
    order = {
        (setting, seed): [fall["area"] for fall in found[setting, seed, "train"]]
        for setting in SETTINGS
        for seed in seeds
    }
    return {
        "laws": {
            split: {
                phase: [
                    [spearman(far[seed], [fall[phase] for fall in found[setting, seed, split]]) for seed in seeds]
                    for setting in SETTINGS
                ]
                for phase in WHEN
            }
            for split in LOSSES
        },
        "orders": [
            [spearman(order[setting, seed], order[REFERENCE, seed]) for seed in seeds] for setting in SETTINGS
        ],
        "draws": folded(
            [
                [
                    spearman(order[REFERENCE, seed], order[REFERENCE, other]) if other != seed else math.nan
                    for seed in seeds
                ]
                for other in seeds
            ]
        ),
        "accuracy": [
            accuracy_alone(dict(zip(names, done["sweep", *REFERENCE, source, seed].trajectories, strict=True)))
            for seed in seeds
        ],
    }  # fmt: skip


def _largest_difference(
    done: Done, stable: Sequence[Sequence[bool]], names: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Largest difference of loss, nats, between stable runs whose rate · beta² is the same."""
    found, compared = 0.0, 0
    for (i, first), (j, second) in itertools.combinations(enumerate(SETTINGS), 2):
        if not math.isclose(first[0] ** 2 * first[1], second[0] ** 2 * second[1], rel_tol=1e-9):
            continue
        for place, seed in enumerate(seeds):
            if not (stable[i][place] and stable[j][place]):
                continue
            runs = (done["sweep", *setting, MODEL, seed].trajectories for setting in (first, second))
            for name, one, other in zip(names, *runs, strict=True):
                mine, theirs = (run.curve("loss", group=name)[1] for run in (one, other))
                found, compared = max(found, float(np.abs(mine - theirs).max())), compared + 1
    return {"difference": found, "compared": compared}


def of_model(done: Done, feats: Feats, place: int, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """What one model shows at the published setting.

    Args:
        done: Runs under ("features", place, source, seed), and ("reference", place, source, seed) but for the first.
        feats: Of this model.
        place: Of the model among those given.
        names: Behaviours.
        seeds: Repetitions.
    """
    found: dict[str, Any] = {
        "name": done["features", place, MODEL, seeds[0]].run.model.shown,
        "width": feats[MODEL, seeds[0]].states.shape[1],
    }
    for source in SOURCES:
        key = ("sweep", *REFERENCE) if place == 0 else ("reference", place)
        runs = {seed: done[*key, source, seed].trajectories for seed in seeds}
        far = {
            seed: [distance(feats[source, seed], rows) for rows in map(feats[source, seed].members, names)]
            for seed in seeds
        }
        found[source] = {
            phase: [
                spearman(
                    far[seed], [fallen(run, name, "train")[phase] for name, run in zip(names, runs[seed], strict=True)]
                )
                for seed in seeds
            ]
            for phase in WHEN
        }
        found[source]["accuracy"] = [accuracy_alone(dict(zip(names, runs[seed], strict=True))) for seed in seeds]
    return found


# panels --------------------------------------------------------------------------------------------------------------

_TOLD = ((MODEL, "model", "solid"), (TWIN, "untrained twin", "dashed"))
SHADES = {"train": 0.1, "held_out": 0.7}


def panels(found: Mapping[str, Any]) -> tuple[Panel, ...]:
    """The law early and late, and the order of learning, along rate · beta²."""
    products: dict[float, int] = {}
    for place, (beta, rate) in enumerate(SETTINGS):
        products.setdefault(round(math.log10(beta**2 * rate), 6), place)
    x = sorted(products)
    at = [products[value] for value in x]
    drawn = []
    for letter, phase in zip("ab", WHEN, strict=True):
        lines = [
            mean_line(
                f"{told}, {word} loss", x, _curves(found[source]["laws"][split][phase], at), shade=SHADES[split],
                style=style,
            )
            for source, told, style in _TOLD
            for split, word in LOSSES.items()
        ]  # fmt: skip
        drawn.append((f"({letter}) D against the fall {WHEN[phase]}", lines))
    lines = [
        mean_line(f"{told}, training loss", x, _curves(found[source]["orders"], at), shade=0.1, style=style)
        for source, told, style in _TOLD
    ]
    drawn.append(("(c) Order of learning against the published setting's", lines))
    return tuple(
        Panel(
            kind="lines", title=title, x_label="Rate · beta², power of ten", y_label="Rank correlation",
            lines=tuple(lines), marks=(("none", 0.0),),
        )
        for title, lines in drawn
    )  # fmt: skip


def _curves(rows: Sequence[Sequence[float]], at: Sequence[int]) -> list[list[float]]:
    """One curve per seed from one row per setting."""
    return np.array([rows[place] for place in at], dtype=np.float64).T.tolist()


def largest_stable(found: Mapping[str, Any]) -> float | None:
    """Largest rate · beta² of the sweep at which every behaviour and seed is stable; None where none is."""
    kept = [beta**2 * rate for (beta, rate), row in zip(SETTINGS, found["stable"], strict=True) if all(row)]
    return max(kept, default=None)


# claims --------------------------------------------------------------------------------------------------------------


def too_few(measured: Mapping[str, Any]) -> Judged | None:
    """Not testable, where there are too few behaviours for an order."""
    count = len(measured["groups"])
    return None if count >= 3 else untestable(f"an order takes 3 behaviours, and there are {count}")


def beside(found: Mapping[str, Any], values: Mapping[str, Sequence[float]]) -> Measured:
    """A statistic of both sources, with their held-out accuracies."""
    return Measured(
        model=values[MODEL], twin=values[TWIN], accuracy=found[MODEL]["accuracy"], twin_accuracy=found[TWIN]["accuracy"]
    )


def _judge_law(phase: str, *, stable: bool) -> Any:
    def judge(_: Claim, rows: Rows) -> Judged:
        measured = rows.facts
        if (told := too_few(measured)) is not None:
            return told
        found = measured["sweep"]

        def least(source: str, split: str) -> list[float]:
            rows = found[source]["laws"][split][phase]
            if stable:
                rows = [
                    [value if kept else math.nan for value, kept in zip(row, keep, strict=True)]
                    for row, keep in zip(rows, found["stable"], strict=True)
                ]
            return folded(rows, "least")

        values = {source: least(source, "train") for source in SOURCES}
        judged = above(beside(found, values), 0.0, what="least rank correlation", least=-1, most=1)
        rest = as_evidence({"held-out loss": over_seeds(least(MODEL, "held_out"), least=-1, most=1)})
        return replace(judged, evidence={**judged.evidence, **rest})

    return judge


def _judge_alike(key: str, what: str) -> Any:
    def judge(_: Claim, rows: Rows) -> Judged:
        measured = rows.facts
        if (told := too_few(measured)) is not None:
            return told
        found = measured["sweep"]
        values = {
            source: folded(found[source]["orders"], "least") if key == "orders" else found[source][key]
            for source in SOURCES
        }
        return above(beside(found, values), _ALIKE, what=what, least=-1, most=1)

    return judge


def _judge_product(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["sweep"]["equal"]
    if not found["compared"]:
        return untestable("no two stable settings of the sweep have the same rate · beta²")
    return Judged(
        holds=found["difference"] <= _EQUAL,
        measured=f"loss curves differ by at most {found['difference']:.2g} nats",
        because=f"{found['compared']} pairs of runs with the same rate · beta²",
        evidence=found,
    )


def _judge_sizes(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    if (told := too_few(measured)) is not None:
        return told
    models = measured["models"]
    widths = {model["width"] for model in models}
    if len(widths) < 2:
        return untestable(f"all models given have width {min(widths)}; give a further --model of another size")
    values = {source: folded([model[source]["early"] for model in models], "least") for source in SOURCES}
    read = {source: {"accuracy": folded([model[source]["accuracy"] for model in models])} for source in SOURCES}
    judged = above(beside(read, values), 0.0, what="least rank correlation", least=-1, most=1)
    rest = {
        f"{model['name']} (width {model['width']}), {when}": over_seeds(model[MODEL][phase], least=-1, most=1)
        for model in models
        for phase, when in WHEN.items()
    }
    return replace(judged, evidence={**judged.evidence, **as_evidence(rest)})


_SWEPT = (
    f"Full-batch descent of the head, each behaviour alone, at {len(SETTINGS)} settings: betas {BETAS[0]:g} to "
    f"{BETAS[-1]:g}, rate · beta² 1e-8 to 1e-2. "
)


def _law_claim(phase: str, *, stable: bool) -> Claim:
    when = WHEN[phase]
    return Claim(
        id=f"{FIGURE}-{phase}{'-stable' if stable else ''}",
        kind="ours",
        unit="setting",
        figure=FIGURE,
        statement=f"The loss of a more distinguishable behaviour falls faster, {when}, at every beta and learning rate"
        f"{' at which descent is stable' if stable else ''}.",
        said=f"{_SWEPT}Spearman's rank correlation, over behaviours, of distinguishability with the fall of the "
        f"training loss {when}, the least over all settings{' that are stable for every behaviour' if stable else ''}: "
        "holds where the lower end of its 95 % interval over seeds is above 0. The held-out accuracy is that of the "
        f"published setting. {BEYOND}",
        code=_judge_law(phase, stable=stable),
    )


CLAIMS = (
    *(_law_claim(phase, stable=stable) for phase in WHEN for stable in (False, True)),
    Claim(
        id=f"{FIGURE}-order",
        kind="ours",
        unit="setting",
        figure=FIGURE,
        statement="Behaviours are learned in the same order at every beta and learning rate.",
        said=f"{_SWEPT}Spearman's rank correlation, over behaviours, of the area above the training loss with that at "
        "the published setting, the least over all settings: holds where the lower end of its 95 % interval over seeds "
        f"is above {_ALIKE:g}. {BEYOND}",
        code=_judge_alike("orders", "least rank correlation"),
    ),
    Claim(
        id=f"{FIGURE}-draws",
        kind="ours",
        figure=FIGURE,
        statement="Behaviours are learned in the same order whatever rows are drawn.",
        said="The same correlation between two seeds at the published setting, for each seed the mean over the others: "
        f"holds where the lower end of its 95 % interval over seeds is above {_ALIKE:g}. {BEYOND}",
        code=_judge_alike("draws", "mean rank correlation with other draws"),
    ),
    Claim(
        id=f"{FIGURE}-product",
        kind="algebra",
        unit="setting",
        figure=FIGURE,
        place="Section 5.1 and Appendix D.1",
        statement="Under plain descent beta and learning rate act through rate · beta² alone, so another beta at "
        "another rate may be no further test.",
        said=f"Holds where the loss curves of all runs with equal rate · beta² are within {_EQUAL:g} nats of each "
        "other, at settings at which descent is stable.",
        code=_judge_product,
    ),
    Claim(
        id=f"{FIGURE}-sizes",
        kind="replication",
        unit="model",
        figure=FIGURE,
        statement="The loss of a more distinguishable behaviour falls faster, at a tenth of the steps, whatever the "
        "size of the model.",
        said="Spearman's rank correlation, over behaviours, of distinguishability with the fall of the training loss "
        "at the published setting, the least over models: holds where the lower end of its 95 % interval over seeds is "
        f"above 0; not testable with models of one width. {BEYOND}",
        code=_judge_sizes,
        paper_value="shown for models of 7B parameters",
    ),
)  # fmt: skip
