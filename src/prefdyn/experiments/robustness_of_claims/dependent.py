r"""What becomes of the findings where rows are not independent? The third check proposed for 2403.18742.

Real rows are drawn so that they repeat or resemble each other, each with the law that it had. Class means then err as
those of fewer rows would, and a behaviour with many copies looks more distinguishable than it is. On Gaussian classes
that meet its conditions the bound of Theorem 4.1 fails even for independent rows; the repaired one never does.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn._random import stream
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, numbers, rank, single
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
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
)
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.sides import distance, sides, trained_rows
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
_AS_STATED = f"{FIGURE}, as stated"


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


def uneven_copies(feats: Feats, names: Sequence[str], seeds: Sequence[int], *, steps: int) -> Iterator[Row]:
    """Training pairs drawn with more copies for some behaviours: D of the draw, and how far losses fell.

    Args:
        feats: By source and seed.
        names: Behaviours.
        seeds: Repetitions.
        steps: After which the fall of the loss is taken.

    Yields:
        Rows under a figure for every level and draw.
    """
    beta, rate = REFERENCE
    for source, most, seed, draw in itertools.product(SOURCES, LEVELS, seeds, range(_UNEVEN)):
        rng = stream(seed, "robustness-of-claims", "copies", str(most), str(draw))
        part = with_copies(feats[source, seed], names, most, rng)
        alone = [(name,) for name in names]
        runs = sweep(part, beta=beta, learning_rate=rate, groups=alone, steps=steps, record=[0, steps])
        for name, run in zip(names, runs, strict=True):
            place = {"figure": f"{up_to(most)}{draw}", "source": source, "seed": seed, "group": name}
            yield Row(quantity="D of the draw", value=distance(part, np.concatenate(_classes(part, name))), **place)
            for split in LOSSES:
                fallen = LOG2 - run.final("loss", group=name, split=split)
                yield Row(quantity="fall of the draw", value=fallen, split=split, **place)


def up_to(most: int) -> str:
    """How figures of the rows of a level begin."""
    return f"{FIGURE}, up to {most} copies, draw "


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


def figures(errors: Mapping[str, Any], cases: Sequence[Violations], copies: Rows) -> tuple[Figure, Figure]:
    """Errors and distinguishability of dependent draws; then bounds and the law where rows are copies."""
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
            panels=(_bounds_panel(cases), _law_panel(copies)),
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


def _law_panel(copies: Rows) -> Panel:
    looks = {MODEL: ("model", "solid"), TWIN: ("untrained twin", "dashed")}
    lines = []
    for (source, (told, style)), (split, word) in itertools.product(looks.items(), LOSSES.items()):
        law = next(claim for claim in CLAIMS if claim.id.endswith(f"law-{split.replace('_', '-')}"))
        curves = [numbers(law, copies, source, {"across": up_to(level)}) for level in LEVELS]
        lines.append(
            mean_line(
                f"{told}, {word} loss", [math.log2(level) for level in LEVELS], np.transpose(curves).tolist(),
                shade=SHADES[split], style=style,
            )
        )  # fmt: skip
    return Panel(
        kind="lines", title="(b) D of the draw against the early fall", x_label="Most copies of a row, power of two",
        y_label="Rank correlation", lines=tuple(lines), marks=(("none", 0.0),),
    )  # fmt: skip


# claims --------------------------------------------------------------------------------------------------------------


def rows(cases: Sequence[Violations]) -> tuple[list[Row], dict[str, Any]]:
    """What the claim on bounds is judged by, and what is told of it."""
    case = cases[0]
    share = at_least_share(case.published, case.draws)
    found = [Row(quantity="share over what is allowed", value=share - case.stated, figure=_AS_STATED)]
    told = {
        "broken": case.published, "of": case.draws, "chance": case.stated, "share": share, "excess": case.excess,
        **{f"broken, {each.copies} copies": [each.published, each.draws] for each in cases},
        "largest share of the repaired bound": max(each.repaired for each in cases),
    }  # fmt: skip
    return found, {_AS_STATED: told}


CLAIMS = (
    Claim(
        id=f"{FIGURE}-theorem",
        figure=FIGURE,
        kind="algebra",
        unit="run",
        place="Theorem 4.1, source error X-2",
        statement="The weight change stays below 6 beta' rate t d^(Delta − 1/2) with the probability that is stated.",
        setting=f"Gaussian classes that meet all conditions (d = {WIDTH}, n = {PAIRS}, gap 1), {SAMPLES} samples",
        statistic=single("share over what is allowed"),
        select={"figure": _AS_STATED},
        test="at most",
        threshold=0,
        twin="",
        told="broken in {broken} of {of} samples; stated chance {chance:.2g}",
        because="a share of {share:.3g} or more, where the weight change is {excess:.3g} of the bound on average",
        evidence="most",
        facts=(*(f"broken, {copies} copies" for copies in COPIES), "largest share of the repaired bound"),
    ),
    *(
        Claim(
            id=f"{FIGURE}-law-{split.replace('_', '-')}",
            kind="ours",
            figure=FIGURE,
            statement="Where behaviours have unequal numbers of copies, distinguishability still tells how fast their "
            f"{word} loss falls.",
            setting=f"Training pairs drawn in 1 to {LEVELS[-1]} copies, by lot more for some behaviours",
            statistic=rank("D of the draw", "fall of the draw"),
            select={"split": split},
            across=up_to(LEVELS[-1]),
            fold=("mean", "draws"),
            short=f"rank correlation, up to {LEVELS[-1]} copies",
            beside={f"up to {level} copies": {"across": up_to(level)} for level in LEVELS},
        )
        for split, word in LOSSES.items()
    ),
)
