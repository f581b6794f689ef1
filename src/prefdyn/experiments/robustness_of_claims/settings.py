r"""Does distinguishability decide what is learned early at other betas, learning rates, draws and sizes of model?

The first check proposed for 2403.18742. Under plain descent beta and rate act through rate · beta² alone, so that
product is what the sweep walks along, from a straight line to far beyond what is stable.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn.dynamics.descent import stability
from prefdyn.dynamics.order import spearman
from prefdyn.experiments.claims import Claim, rank, single
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
from prefdyn.experiments.falls import PHASES, rows_alone
from prefdyn.experiments.published import BETAS
from prefdyn.experiments.recipe import Done, Panel, mean_line
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.sides import distance
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

EVERY, STABLE, MODELS = (f"{FIGURE}, {word} " for word in ("at", "stable at", "model"))
SIZES = f"{FIGURE}, sizes"
"""How figures of the rows begin: all settings, those at which descent is stable, and models at the published one."""

Feats = Mapping[tuple[str, int], FeatureSet]
"""Of the first model, by source and seed."""


# what is measured ----------------------------------------------------------------------------------------------------


def over_settings(
    done: Done, feats: Feats, names: Sequence[str], seeds: Sequence[int]
) -> tuple[list[Row], dict[str, Any]]:
    """At every beta and rate: distinguishability, and falls of the losses; and what is told of it.

    Args:
        done: Runs under ("sweep", beta, rate, source, seed).
        feats: What they were trained on.
        names: Behaviours.
        seeds: Repetitions.
    """
    rows: list[Row] = []
    limits = {seed: min(_limit(feats[source, seed], name) for source in SOURCES for name in names) for seed in seeds}
    stable = {(setting, seed): setting[0] ** 2 * setting[1] <= limits[seed] for setting in SETTINGS for seed in seeds}
    for source, setting, seed in itertools.product(SOURCES, SETTINGS, seeds):
        runs = dict(zip(names, done["sweep", *setting, source, seed].trajectories, strict=True))
        found = _of_runs(runs, feats[source, seed], figure=named(setting), source=source, seed=seed)
        rows += found
        if stable[setting, seed]:
            rows += (row._replace(figure=row.figure.replace(EVERY, STABLE)) for row in found)
    reference = {"figure": named(REFERENCE), "split": "train", "step": "area"}
    picked = {source: Rows(rows).pick("fall", reference, source) for source in SOURCES}
    for source, there in picked.items():
        for seed, falls in there.items():
            rows += (
                Row(quantity="fall there", value=fall, source=source, seed=seed, group=name)
                for name, fall in falls.items()
            )
            others = [spearman([*falls.values()], [*there[other].values()]) for other in seeds if other != seed]
            if others:
                likeness = float(np.mean(others))
                rows.append(Row(quantity="likeness of draws", value=likeness, figure=FIGURE, source=source, seed=seed))
    rows += (
        row._replace(figure=FIGURE) for row in rows if (row.quantity, row.figure) == ("accuracy", named(REFERENCE))
    )
    kept = [beta**2 * rate for beta, rate in SETTINGS if all(stable[(beta, rate), seed] for seed in seeds)]
    return rows, {"stable": max(kept, default=None)}


def named(setting: tuple[float, float]) -> str:
    """Figure of the rows of a setting."""
    return f"{EVERY}beta {setting[0]:g}, rate {setting[1]:g}"


def _limit(feats: FeatureSet, name: str) -> float:
    """Largest stable rate · beta² of a behaviour alone."""
    found = stability(feats, DPO(beta=1.0), [name])
    return math.inf if found is None else found


def _of_runs(runs: Mapping[str, Trajectory], feats: FeatureSet, **place: Any) -> list[Row]:
    """Of behaviours alone: falls, what was learned, and distinguishability."""
    far = [
        Row(quantity="distinguishability", value=distance(feats, feats.members(name)), group=name, **place)
        for name in runs
    ]
    return [*rows_alone(runs, **place), *far]


def of_model(done: Done, feats: Feats, place: int, names: Sequence[str], seeds: Sequence[int]) -> Iterator[Row]:
    """What one model shows at the published setting.

    Args:
        done: Runs under ("features", place, source, seed), and ("reference", place, source, seed) but for the first.
        feats: Of this model.
        place: Of the model among those given.
        names: Behaviours.
        seeds: Repetitions.
    """
    who = done["features", place, MODEL, seeds[0]].run.model.shown
    figure = f"{MODELS}{who} (width {feats[MODEL, seeds[0]].states.shape[1]})"
    key = ("sweep", *REFERENCE) if place == 0 else ("reference", place)
    for source, seed in itertools.product(SOURCES, seeds):
        runs = dict(zip(names, done[*key, source, seed].trajectories, strict=True))
        for row in _of_runs(runs, feats[source, seed], figure=figure, source=source, seed=seed):
            yield row
            if row.quantity == "accuracy":
                yield row._replace(figure=SIZES, group=f"{row.group}, model {place}")


# panels --------------------------------------------------------------------------------------------------------------

_TOLD = ((MODEL, "model", "solid"), (TWIN, "untrained twin", "dashed"))
SHADES = {"train": 0.1, "held_out": 0.7}


def panels(found: Rows) -> tuple[Panel, ...]:
    """The law early and late, and the order of learning, along rate · beta²."""
    products: dict[float, tuple[float, float]] = {}
    for setting in SETTINGS:
        products.setdefault(round(math.log10(setting[0] ** 2 * setting[1]), 6), setting)
    x = sorted(products)

    def curves(first: str, source: str, split: str, step: str) -> list[list[float]]:
        places = ({"figure": named(products[value]), "split": split, "step": step} for value in x)
        return np.transpose([rank(first, "fall")(found, place, source) for place in places]).tolist()

    drawn = []
    for letter, phase in zip("ab", WHEN, strict=True):
        lines = [
            mean_line(
                f"{told}, {word} loss", x, curves("distinguishability", source, split, phase), shade=SHADES[split],
                style=style,
            )
            for source, told, style in _TOLD
            for split, word in LOSSES.items()
        ]  # fmt: skip
        drawn.append((f"({letter}) D against the fall {WHEN[phase]}", lines))
    lines = [
        mean_line(f"{told}, training loss", x, curves("fall there", source, "train", "area"), shade=0.1, style=style)
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


# claims --------------------------------------------------------------------------------------------------------------

_SWEPT = (
    f"Full-batch descent of the head, each behaviour alone, at {len(SETTINGS)} settings, betas {BETAS[0]:g} to "
    f"{BETAS[-1]:g}, rate · beta² 1e-8 to 1e-2"
)
_LEAST: dict[str, Any] = {
    "figure": FIGURE, "unit": "setting", "kind": "ours", "setting": _SWEPT, "short": "least rank correlation",
    "note": "The held-out accuracy is that of the published setting.",
}  # fmt: skip
_STABLE_ONLY = ("least", "settings that are stable for every behaviour")


CLAIMS = (
    *(
        Claim(
            id=f"{FIGURE}-{phase}{'-stable' if stable else ''}",
            statement=f"The loss of a more distinguishable behaviour falls faster, {when}, at every beta and learning "
            f"rate{' at which descent is stable' if stable else ''}.",
            statistic=rank("distinguishability", "fall"),
            select={"split": "train", "step": phase},
            across=STABLE if stable else EVERY,
            fold=_STABLE_ONLY if stable else ("least", "settings"),
            beside={"held-out loss": {"split": "held_out"}},
            unknown="descent is stable at none of the settings",
            **_LEAST,
        )
        for phase, when in WHEN.items()
        for stable in (False, True)
    ),
    Claim(
        id=f"{FIGURE}-order",
        statement="Behaviours are learned in the same order at every beta and learning rate.",
        statistic=rank("fall there", "fall"),
        select={"split": "train", "step": "area"},
        across=EVERY,
        threshold=_ALIKE,
        **_LEAST,
    ),
    Claim(
        id=f"{FIGURE}-draws",
        kind="ours",
        unit="run",
        figure=FIGURE,
        statement="Behaviours are learned in the same order whatever rows are drawn.",
        statistic=single("likeness of draws", short="mean rank correlation with other draws", least=-1, most=1),
        threshold=_ALIKE,
        unknown="one seed alone was run",
    ),
    Claim(
        id=f"{FIGURE}-sizes",
        unit="model",
        figure=FIGURE,
        statement="The loss of a more distinguishable behaviour falls faster, at a tenth of the steps, whatever the "
        "size of the model.",
        statistic=rank("distinguishability", "fall"),
        select={"figure": SIZES, "split": "train", "step": "early"},
        across=MODELS,
        fold=("least", "models"),
        short="least rank correlation",
        each="{}, at a tenth of the steps",
        beside={"the least, at the end": {"step": "late"}},
        note="Not testable with models of one width.",
        paper_value="shown for models of 7B parameters",
    ),
)
