r"""What the theorems of 2403.18742 ask of real states, by the width of the model, and two of its errors.

A part of the first check: Theorem 4.2 covers gaps up to $\sqrt d / 16$ only, so whether it speaks of a model at all is
a matter of its width. With one model its states cut to some of their coordinates stand in for smaller ones.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit

from prefdyn._random import stream
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, every, single
from prefdyn.experiments.context import MODEL
from prefdyn.experiments.recipe import Figure, Line, Panel, mean_line, shades
from prefdyn.experiments.robustness_of_claims.settings import FIGURE, REFERENCE, Feats
from prefdyn.experiments.rows import Row
from prefdyn.experiments.sides import sides, trained_rows
from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import cosine, mean_gap
from prefdyn.theory.bound import Bound
from prefdyn.theory.learning_dynamics import (
    Constants,
    accuracy_bound,
    constants,
    margin_ceiling,
    published_accuracy_margin,
    published_alignment_bound,
    published_alignment_limit,
    smallest_variance_exponent,
)
from prefdyn.theory.measured import boundary

PARTS = (4, 2, 1)
"""Shares of the states' coordinates that stand in for smaller models: a fourth, half and all."""
_ROUNDING = 1e-12
_STARTS = (-1.0, -0.9, -0.8, -0.5, 0.0, 0.5, 0.9)
_PRINTED: Mapping[str, float] = {"beta": 1 / 64, "learning_rate": 0.01}
_PRINTED_WIDTH, _PRINTED_V = 4096, 0.36


# what is measured ----------------------------------------------------------------------------------------------------


def _measured(feats: FeatureSet, name: str) -> tuple[Constants, float, float]:
    """Constants of the pairs trained on, the length of the boundary, and its cosine with the gap."""
    rows = trained_rows(feats, name)
    states, positive = sides(feats, rows)
    answers = feats.two_answers(rows)
    head = None if answers is None else boundary(feats, answers)
    assert head is not None
    return constants(states, positive), float(np.linalg.norm(head)), cosine(head, mean_gap(states, positive))


def _alignment(c: Constants, length: float, phi: float) -> Bound:
    beta, rate = REFERENCE
    return published_alignment_bound(c, boundary_norm=length, phi=phi, beta=beta, learning_rate=rate, steps=1)


def cut(feats: FeatureSet, part: int, seed: int) -> FeatureSet:
    """The same pairs with one `part` of the states' coordinates, drawn by lot, and of the head's."""
    width = feats.states.shape[1]
    kept = np.sort(stream(seed, "robustness-of-claims", "width").permutation(width)[: max(2, width // part)])
    head = None if feats.head is None else np.ascontiguousarray(feats.head[:, kept])
    return replace(feats, states=np.ascontiguousarray(feats.states[:, kept]), head=head)


def at_width(
    feats: Feats, names: Sequence[str], seeds: Sequence[int], *, model: str, first: bool, part: int = 1
) -> dict[str, Any]:
    """Delta, constants and the conditions of Theorem 4.2 at one width.

    Args:
        feats: Of one model.
        names: Behaviours.
        seeds: Repetitions.
        model: Its name.
        first: Whether it is the first model, whose widths are joined by lines.
        part: Of the coordinates that are kept, one in so many.
    """
    found: dict[str, list[tuple[Constants, float, float]]] = {name: [] for name in names}
    for seed in seeds:
        whole = feats[MODEL, seed]
        mine = whole if part == 1 else cut(whole, part, seed)
        for name in names:
            found[name].append(_measured(mine, name))
    every = [c for each in found.values() for c, _, _ in each]
    width = every[0].width
    bounds = [_alignment(*one) for each in found.values() for one in each]
    failing: dict[str, int] = {}
    for bound in bounds:
        for condition in bound.failed:
            failing[condition.says] = failing.get(condition.says, 0) + 1
    beta, rate = REFERENCE
    return {
        "model": model + ("" if part == 1 else f", 1/{part} of its states"), "first": first, "part": part,
        "width": width,
        "exponents": {name: [c.exponent for c, _, _ in each] for name, each in found.items()},
        "gaps": [c.gap for c in every],
        "c_v": max(c.c_v for c in every), "c_n": max(c.c_n for c in every),
        "limit": 0.5 - smallest_variance_exponent(width),
        "met": sum(bound.applies for bound in bounds), "of": len(bounds), "failing": failing,
        "accurate": sum(
            accuracy_bound(c, boundary_norm=length, phi=phi, beta=beta, learning_rate=rate).applies
            for each in found.values()
            for c, length, phi in each
        ),
        "against": sum(phi < 0 for each in found.values() for _, _, phi in each),
    }  # fmt: skip


def from_every_start() -> dict[float, float]:
    r"""Cosine of the boundary with the gap less what Theorem 4.2 promises: the least over the steps, by the start.

    Classes without noise that meet its conditions: $d = 4096$, $\Delta = 0.1$, $v = 0.36$, $\lVert W_B \rVert = 1$ and
    a horizon of two steps. Everything happens in three directions: along the gap, along what both classes share, and
    along neither.

    Reference:
        2403.18742, Theorem 4.2; THEORY 2.4 (X-22, T9).
    """
    gap = _PRINTED_WIDTH**0.1
    c = Constants(
        n_plus=1, n_minus=1, width=_PRINTED_WIDTH, gap=gap, weighted_gap=gap, trace_plus=0.0, trace_minus=0.0,
        op_norm=0.0, radius=0.7 * gap,
    )  # fmt: skip
    shared = math.sqrt(c.radius**2 - (gap / 2) ** 2)
    states, signs = np.array([[gap / 2, shared, 0.0], [-gap / 2, shared, 0.0]]), np.array([1.0, -1.0])
    beta, rate = _PRINTED["beta"], _PRINTED["learning_rate"]
    found = {}
    for phi in _STARTS:
        start, weights, over = np.array([phi, 0.0, math.sqrt(1 - phi**2)]), np.zeros(3), []
        for step in (1, 2):
            pulls = expit(-2 * beta * signs * (states @ weights))
            weights = weights + rate * beta / 2 * (signs * pulls) @ states
            moved = start + 2 * weights
            promised = published_alignment_limit(
                c, boundary_norm=1.0, phi=phi, steps=step, variance_exponent=_PRINTED_V, beta=beta, learning_rate=rate
            )
            over.append(float(moved[0] / np.linalg.norm(moved)) - promised)
        found[phi] = min(over)
    return found


def least_margin() -> tuple[float, int]:
    """The margin that Theorem 4.3 asks for over the longest that its conditions allow: the least on a grid.

    $W_B = 0$ is its most lenient case, in which neither beta nor the constants matter.

    Reference:
        2403.18742, Theorem 4.3; THEORY 2.5 (X-5).
    """
    found = []
    for power, phi in itertools.product(range(8, 31), (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999)):
        c = Constants(
            n_plus=9, n_minus=9, width=2**power, gap=1.0, weighted_gap=1.0, trace_plus=1.0, trace_minus=1.0,
            op_norm=1.0, radius=0.5,
        )  # fmt: skip
        for v in np.linspace(smallest_variance_exponent(c.width), 0.5, 8).tolist():
            if 13 * c.width**-v < 1 - phi:
                asked = published_accuracy_margin(c, boundary_norm=0.0, phi=phi, beta=0.01, variance_exponent=v)
                found.append(asked / margin_ceiling(c))
    return min(found), len(found)


def rows(here: Mapping[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """What the claims are judged by, from `at_width` of the whole states of the first model; and what is told."""
    starts, (margin, grid) = from_every_start(), least_margin()
    found = [
        Row(quantity="failing cases", value=here["of"] - here["met"], figure=FIGURE),
        Row(quantity="margin asked for", value=margin, figure=FIGURE),
        *(Row(quantity="room", value=room, figure=FIGURE, group=f"{start:g}") for start, room in starts.items()),
    ]
    broken = [f"{start:g}" for start, room in starts.items() if room < -_ROUNDING]
    failing = here["failing"]
    facts = {
        "cases": here["of"], "met": here["met"], "accurate": here["accurate"], "grid": grid, "failing": failing,
        "which": "; ".join(f"{says} fails in {count}" for says, count in failing.items()) or "none fails",
        "boundary_against_the_gap": here["against"], "broken": len(broken), "starts": len(starts),
        "broken from": ", ".join(broken) or "none",
    }  # fmt: skip
    return found, facts


# figures -------------------------------------------------------------------------------------------------------------


def exponents_figure(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Delta by width, beside the largest that Theorem 4.2 covers."""
    own = [row for row in rows if row["first"]]
    lines = [
        mean_line(
            name,
            [math.log2(row["width"]) for row in own],
            np.array([row["exponents"][name] for row in own]).T.tolist(),
            shade=shade,
        )
        for name, shade in zip(names, shades(len(names)), strict=True)
    ]
    for row in rows:
        if not row["first"]:
            values = np.array([float(np.mean(each)) for each in row["exponents"].values()])
            lines.append(
                Line(label=row["model"], x=np.full(len(values), math.log2(row["width"])), y=values, style="points")
            )
    limits = sorted({(math.log2(row["width"]), row["limit"]) for row in rows})
    x, y = (np.array(column) for column in zip(*limits, strict=True))
    lines.append(Line(label="largest Delta of Theorem 4.2", x=x, y=y, style="dashed"))
    panel = Panel(kind="lines", x_label="Width of the states, power of two", y_label="Delta", lines=tuple(lines))
    return Figure(
        spec=spec_of(FIGURE),
        part="b",
        panels=(panel,),
        caption="Delta, with D = d^Delta, of the training pairs by the width of the states: lines of the first model, "
        "mean of the seeds, bands their range; points of others. Theorem 4.2 covers what is below the dashed line.",
    )


def conditions_table(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The constants of every width, and how often the conditions hold."""
    cells = [
        (
            row["model"], str(row["width"]), f"{min(row['gaps']):.3g} to {max(row['gaps']):.3g}",
            f"{min(map(min, row['exponents'].values())):.2f} to {max(map(max, row['exponents'].values())):.2f}",
            f"{row['limit']:.2f}", f"{row['c_v']:.3g}", f"{row['c_n']:.3g}", f"{row['met']} of {row['of']}",
        )
        for row in rows
    ]  # fmt: skip
    return Figure(
        spec=spec_of(FIGURE),
        part="c",
        panels=(
            Panel(
                kind="table",
                columns=("model", "width d", "D", "Delta", "largest Delta", "c_v", "c_n", "all conditions hold"),
                rows=tuple(cells),
            ),
        ),
        caption="Constants of the training pairs, range over behaviours and seeds (c_v and c_n: the largest), and how "
        "often all conditions of Theorem 4.2 hold, at the published beta and learning rate.",
    )


# claims --------------------------------------------------------------------------------------------------------------


_COMMON: dict[str, Any] = {"figure": FIGURE, "twin": ""}

CLAIMS = (
    Claim(
        id=f"{FIGURE}-conditions",
        place="Theorem 4.2",
        statement="The conditions of Theorem 4.2 hold on real states.",
        setting="Plug-in constants of the training pairs, published beta and rate, one step",
        statistic=single("failing cases"),
        test="at most",
        threshold=0,
        told="all conditions hold in {met} of {cases} cases",
        because="{which}",
        facts=("failing", "boundary_against_the_gap", "cases"),
        paper_value="“hold with small constant factors” (of Theorem 4.1)",
        **_COMMON,
    ),
    Claim(
        id=f"{FIGURE}-start",
        kind="algebra",
        unit="setting",
        place="Theorem 4.2, source error X-22",
        statement="The bound of Theorem 4.2 holds wherever the boundary starts.",
        setting=f"Two classes without noise that meet its conditions (d = {_PRINTED_WIDTH}), starts at cosines −1 to "
        "0.9, each step of the horizon",
        statistic=every("room"),
        test="at least",
        threshold=-_ROUNDING,
        told="broken from {broken} of {starts} starts",
        because="cosines of the starts from which it is broken: {broken from}",
        evidence="least_room",
        **_COMMON,
    ),
    Claim(
        id=f"{FIGURE}-accuracy",
        kind="algebra",
        unit="setting",
        place="Theorem 4.3, source error X-5",
        statement="Theorem 4.3 guarantees an accuracy above 0.",
        setting="W_B = 0, its most lenient case, on a grid of d, v and cosines that meet its conditions",
        statistic=single("margin asked for"),
        test="at most",
        threshold=1,
        told="it asks for {0:.6g} times the longest margin that it allows, or more",
        because="the least of {grid} settings that meet its conditions; here they hold in {accurate} of {cases} cases",
        evidence="least",
        facts=("grid", "cases", "accurate"),
        **_COMMON,
    ),
)
