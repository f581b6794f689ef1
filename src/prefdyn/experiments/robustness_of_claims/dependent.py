r"""What becomes of the findings where rows are not independent? The third check proposed for 2403.18742.

Real rows are drawn so that they repeat or resemble each other, each with the law that it had. Class means then err as
those of fewer rows would, and a behaviour with many copies looks more distinguishable than it is. On Gaussian classes
that meet its conditions the bound of Theorem 4.1 fails even for independent rows; the repaired one never does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn._random import stream
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
from prefdyn.experiments.judging import BEYOND, Judged, above, as_evidence, unless_few
from prefdyn.experiments.recipe import Figure, Line, Panel, mean_line
from prefdyn.experiments.robustness_of_claims.draws import (
    PAIRS,
    WIDTH,
    Violations,
    at_least_share,
    drawn,
    mean_error,
    worth,
)
from prefdyn.experiments.robustness_of_claims.settings import (
    LOSSES,
    REFERENCE,
    SHADES,
    Feats,
    beside,
    too_few,
)
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.sides import distance, sides, trained_rows
from prefdyn.experiments.statistics import over_seeds
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import LOG2
from prefdyn.synthetic import Dependence

FIGURE = "2403.18742-check03"
LEVELS = (1, 2, 4, 8, 16)
KINDS: Mapping[str, str] = {"copies": "copies", "clusters": "clusters, correlation 1/2", "chain": "AR(1) chain"}
COPIES = (1, 2, 4, 5, 10)
"""Of each row of the Gaussian classes."""
SAMPLES, STEPS = 25, 10
_ROWS = 64
"""Per class and draw: a multiple of every level."""
_DRAWS = 100
_UNEVEN = 8
"""Draws of which behaviour gets how many copies."""
_CLOSE = 0.1
"""Share by which a predicted error may be off."""
_ROUNDING = 1e-6


# what is measured ----------------------------------------------------------------------------------------------------


def dependence(kind: str, level: int) -> Dependence:
    """Rows that hang together the more, the higher the level; at level 1 they are independent.

    Example:
        >>> round(64 / worth(dependence("chain", 4), 64), 2), 64 / worth(dependence("clusters", 4), 64)
        (3.88, 2.5)
    """
    match kind:
        case "copies":
            return Dependence(size=level, correlation=1.0)
        case "clusters":
            return Dependence(size=level, correlation=0.5)
        case _:
            return Dependence(kind="chain", correlation=(level - 1) / (level + 1))


_MEANS = ("error", "predicted", "distance", "predicted_distance")


def mean_errors(feats: Feats, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Errors of class means, and D, on dependent draws of real rows, by kind and level, root mean squares.

    Errors are in units of what independent rows would err, D in units of that of all rows; squares are averaged over
    behaviours.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        levels = [dependence(kind, level) for level in LEVELS]
        rows: dict[str, list[list[float]]] = {name: [] for name in _MEANS}
        for each in levels:
            cells = [_one_seed(feats[MODEL, seed], names, each, seed) for seed in seeds]
            for name in _MEANS:
                rows[name].append([math.sqrt(cell[name]) for cell in cells])
        found[kind] = {"times": [_ROWS / worth(each, _ROWS) for each in levels], **rows}
    return found


def _one_seed(feats: FeatureSet, names: Sequence[str], how: Dependence, seed: int) -> dict[str, float]:
    cells: dict[str, list[float]] = {name: [] for name in _MEANS}
    for name in names:
        first, second = _classes(feats, name)
        states = feats.states.astype(np.float64)
        rng = stream(seed, "robustness-of-claims", "errors", name, str(how))
        one = mean_error(states[first], states[second], how, rows=_ROWS, draws=_DRAWS, rng=rng)
        cells["error"].append(one.error / one.independent)
        cells["predicted"].append(one.predicted / one.independent)
        cells["distance"].append(one.distance / one.true_distance)
        cells["predicted_distance"].append(one.predicted_distance / one.true_distance)
    return {name: float(np.mean(values)) for name, values in cells.items()}


def _classes(feats: FeatureSet, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training pairs of a behaviour that choose the first answer, and the second."""
    rows = trained_rows(feats, name)
    _, positive = sides(feats, rows)
    return rows[positive], rows[~positive]


def uneven_copies(feats: Feats, names: Sequence[str], seeds: Sequence[int], *, steps: int) -> dict[str, Any]:
    """Training pairs drawn with more copies for some behaviours: does D of the draw still tell what is learned?

    Args:
        feats: By source and seed.
        names: Behaviours.
        seeds: Repetitions.
        steps: After which the fall of the loss is taken.

    Returns:
        Source and split to one row per level, of one rank correlation per seed, mean over the draws.
    """
    found: dict[str, Any] = {source: {split: [] for split in LOSSES} for source in SOURCES}
    for source in SOURCES:
        for most in LEVELS:
            cells = [_orders(feats[source, seed], names, most, seed, steps) for seed in seeds]
            for split in LOSSES:
                found[source][split].append([cell[split] for cell in cells])
    return found


def _orders(feats: FeatureSet, names: Sequence[str], most: int, seed: int, steps: int) -> dict[str, float]:
    beta, rate = REFERENCE
    orders: dict[str, list[float]] = {split: [] for split in LOSSES}
    for draw in range(_UNEVEN):
        part = with_copies(feats, names, most, stream(seed, "robustness-of-claims", "copies", str(most), str(draw)))
        runs = sweep(
            part, beta=beta, learning_rate=rate, groups=[(name,) for name in names], steps=steps, record=[0, steps]
        )
        far = [distance(part, np.concatenate(_classes(part, name))) for name in names]
        for split in LOSSES:
            fallen = [LOG2 - run.final("loss", group=name, split=split) for name, run in zip(names, runs, strict=True)]
            orders[split].append(spearman(far, fallen))
    return {split: float(np.mean(values)) for split, values in orders.items()}


def with_copies(feats: FeatureSet, names: Sequence[str], most: int, rng: np.random.Generator) -> FeatureSet:
    """As many training pairs of each behaviour and answer as there are, drawn anew, in 1 to `most` copies each.

    How many copies a behaviour gets is drawn too. Held-out pairs stay.
    """
    sizes = np.round(np.geomspace(1, most, len(names))).astype(int)[rng.permutation(len(names))]
    kept = []
    for name, size in zip(names, sizes.tolist(), strict=True):
        rows = feats.members(name)
        kept.append(rows[feats.held_out[rows]])
        for side in _classes(feats, name):
            kept.append(side[drawn(Dependence(size=size, correlation=1.0), len(side), len(side), rng)])
    return feats.select(np.concatenate(kept))


# figures -------------------------------------------------------------------------------------------------------------


def figures(measured: Mapping[str, Any]) -> tuple[Figure, Figure]:
    """Errors and distinguishability of dependent draws; then bounds and the law where rows are copies."""
    errors = measured["errors"]
    return (
        Figure(
            spec=spec_of(FIGURE),
            part="a",
            panels=(
                _errors_panel(errors, "error", "(a) Error of a class mean", "Over that of independent rows"),
                _errors_panel(errors, "distance", "(b) Distinguishability of a draw", "Over that of all rows"),
            ),
            caption=f"{_ROWS} rows of each class drawn from the real ones so that they hang together: root mean square "
            f"over {_DRAWS} draws, classes and behaviours, mean of the seeds.",
        ),
        Figure(
            spec=spec_of(FIGURE),
            part="b",
            panels=(_bounds_panel(measured["theorem"]), _law_panel(measured["copies"])),
            caption=f"(a): Gaussian classes with {PAIRS} rows and gap 1, {SAMPLES} samples each, mean over them. (b): "
            "training pairs drawn with more copies for some behaviours than for others; lines: mean of the seeds, "
            "bands: their range.",
        ),
    )


def _errors_panel(errors: Mapping[str, Any], key: str, title: str, label: str) -> Panel:
    predicted = {"error": "predicted", "distance": "predicted_distance"}[key]
    lines, spots = [], []
    for (kind, says), shade in zip(KINDS.items(), (0.1, 0.5, 0.9), strict=True):
        found = errors[kind]
        values = np.array([np.mean(row) for row in found[key]])
        lines.append(Line(label=says, x=np.array(found["times"]), y=values, shade=shade, style="points"))
        spots += [(x, float(np.mean(row))) for x, row in zip(found["times"], found[predicted], strict=True)]
    x, y = (np.array(column) for column in zip(*sorted(spots), strict=True))
    lines += [
        Line(label="predicted with n_eff", x=x, y=y),
        Line(label="as if independent", x=x, y=np.full(len(x), y[0]), style="dashed"),
    ]
    return Panel(
        kind="lines", title=title, x_label="Rows that are worth one, n / n_eff", y_label=label, lines=tuple(lines)
    )


def _bounds_panel(cases: Sequence[Violations]) -> Panel:
    x = np.array([float(case.copies) for case in cases])
    return Panel(
        kind="lines", title=f"(a) Weight change over bounds, d = {WIDTH}", x_label="Copies of each row",
        y_label="Weight change over the bound",
        lines=(
            Line(label="Theorem 4.1, first step", x=x, y=np.array([case.excess for case in cases]), shade=0.3),
            Line(label="repaired, most of all steps", x=x, y=np.array([case.repaired for case in cases]), shade=0.8),
        ),
        marks=(("bound", 1.0),),
    )  # fmt: skip


def _law_panel(copies: Mapping[str, Any]) -> Panel:
    lines = [
        mean_line(
            f"{told}, {word} loss", [math.log2(level) for level in LEVELS], np.array(copies[source][split]).T.tolist(),
            shade=SHADES[split], style=style,
        )
        for source, told, style in ((MODEL, "model", "solid"), (TWIN, "untrained twin", "dashed"))
        for split, word in LOSSES.items()
    ]  # fmt: skip
    return Panel(
        kind="lines", title="(b) D of the draw against the early fall", x_label="Most copies of a row, power of two",
        y_label="Rank correlation", lines=tuple(lines), marks=(("none", 0.0),),
    )  # fmt: skip


# claims --------------------------------------------------------------------------------------------------------------


def _judge_error(kind: str) -> Any:
    def judge(_: Claim, rows: Rows) -> Judged:
        measured = rows.facts
        found = measured["errors"][kind]
        ratios = np.array(found["error"]) / np.array(found["predicted"])
        farthest = int(np.abs(np.log(ratios.mean(axis=1))).argmax())
        estimate = over_seeds(ratios[farthest].tolist(), least=0)
        independent = over_seeds(found["error"][-1], least=0)
        judged = Judged(
            holds=estimate.low > 1 - _CLOSE and estimate.high < 1 + _CLOSE,
            measured=f"measured over predicted error {estimate}, where {found['times'][farthest]:.3g} rows are worth "
            "one",
            because=f"the level at which it is farthest from 1; it must lie within {_CLOSE:g} of it. Taken for "
            f"independent, where {found['times'][-1]:.3g} rows are worth one: {independent}",
            evidence={
                "rows_worth_one": found["times"],
                "measured_over_predicted": ratios.mean(axis=1).tolist(),
                **as_evidence({"taken for independent": independent}),
            },
        )
        return unless_few(judged, estimate.seeds)

    return judge


def _judge_theorem(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    cases: Sequence[Violations] = measured["theorem"]
    case = cases[0]
    least = at_least_share(case.published, case.draws)
    return Judged(
        holds=least <= case.stated,
        measured=f"broken in {case.published} of {case.draws} samples; stated chance {case.stated:.2g}",
        because=f"a share of {least:.3g} or more, where the weight change is {case.excess:.3g} of the bound on average",
        evidence={f"broken, {other.copies} copies": [other.published, other.draws] for other in cases},
    )


def _judge_repaired(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    cases: Sequence[Violations] = measured["theorem"]
    most = max(case.repaired for case in cases)
    return Judged(
        holds=most <= 1 + _ROUNDING,
        measured=f"at most {most:.6g} of the bound",
        because="largest over all samples, copies and steps",
        evidence={f"{case.copies} copies": case.repaired for case in cases},
    )


def _judge_effective(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    cases: Sequence[Violations] = measured["theorem"]
    broken, of = sum(case.effective for case in cases), sum(case.draws for case in cases)
    least = at_least_share(broken, of)
    return Judged(
        holds=least <= cases[0].allowed,
        measured=f"broken in {broken} of {of} samples; allowed chance {cases[0].allowed:.2g}",
        because=f"a share of {least:.3g} or more; with every row counted it is broken in "
        f"{sum(case.counted for case in cases[1:])} of {of - cases[0].draws} samples with copies",
        evidence={f"broken with every row counted, {case.copies} copies": [case.counted, case.draws] for case in cases},
    )


def _judge_law(split: str) -> Any:
    def judge(_: Claim, rows: Rows) -> Judged:
        measured = rows.facts
        if (told := too_few(measured)) is not None:
            return told
        copies = measured["copies"]
        judged = above(
            beside(measured["sweep"], {source: copies[source][split][-1] for source in SOURCES}), 0.0,
            what=f"rank correlation, up to {LEVELS[-1]} copies", least=-1, most=1,
        )  # fmt: skip
        rest = {
            f"up to {level} copies": over_seeds(row, least=-1, most=1)
            for level, row in zip(LEVELS, copies[MODEL][split], strict=True)
        }
        return replace(judged, evidence={**judged.evidence, **as_evidence(rest)})

    return judge


CLAIMS = (
    *(
        Claim(
            id=f"{FIGURE}-{kind}",
            kind="ours",
            figure=FIGURE,
            statement=f"Class means of dependent rows err as those of n_eff independent ones ({says}).",
            said=f"Real rows drawn with replacement so that they hang together, at {len(LEVELS)} levels; root mean "
            "square error of the class means over the predicted one, at the level where its mean is farthest from 1: "
            f"holds where its 95 % interval over seeds lies within {_CLOSE:g} of 1.",
            code=_judge_error(kind),
        )
        for kind, says in KINDS.items()
    ),
    Claim(
        id=f"{FIGURE}-theorem",
        kind="algebra",
        unit="run",
        figure=FIGURE,
        place="Theorem 4.1, source error X-2",
        statement="The weight change stays below 6 beta' rate t d^(Delta − 1/2) with the probability that is stated.",
        said=f"Independent Gaussian rows that meet all conditions (d = {WIDTH}, n = {PAIRS}, gap 1): holds where the "
        "exact one-sided 95 % limit of the share of samples above the bound at the first step is at most the stated "
        "chance.",
        code=_judge_theorem,
    ),
    Claim(
        id=f"{FIGURE}-repaired",
        kind="algebra",
        unit="run",
        figure=FIGURE,
        place="Theorem 4.1, repaired (source errors X-2 and X-4)",
        statement="The weight change stays below √2/4 rate beta t ‖b_w‖, on dependent rows too.",
        said=f"The same classes, each row in {COPIES[0]} to {COPIES[-1]} copies: holds where no weight change is above "
        "the bound by more than a millionth of it, over all samples and steps.",
        code=_judge_repaired,
    ),
    Claim(
        id=f"{FIGURE}-effective",
        kind="algebra",
        unit="run",
        figure=FIGURE,
        place="Theorem 4.1, repaired for a new sample",
        statement="With n_eff in place of n the bound for a new sample holds on copied rows.",
        said="The same samples, three standard deviations: holds where the exact one-sided 95 % limit of the share "
        "above the bound at the first step is at most the chance that the bound allows.",
        code=_judge_effective,
    ),
    *(
        Claim(
            id=f"{FIGURE}-law-{split.replace('_', '-')}",
            kind="ours",
            figure=FIGURE,
            statement="Where behaviours have unequal numbers of copies, distinguishability still tells how fast their "
            f"{word} loss falls.",
            said=f"Training pairs drawn in 1 to {LEVELS[-1]} copies, by lot more for some behaviours; Spearman's rank "
            f"correlation, over behaviours, of D of the draw with the fall of the {word} loss at a tenth of the steps, "
            f"mean over {_UNEVEN} draws: holds where the lower end of its 95 % interval over seeds is above 0. "
            f"{BEYOND}",
            code=_judge_law(split),
        )
        for split, word in LOSSES.items()
    ),
)
