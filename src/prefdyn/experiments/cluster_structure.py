"""Do personas lie in directions of their own, once what all share is taken off? 2408.03459, Figures 3 and 6.

States of the statements that fit each persona, by the published notebook: rows of length 1, the mean cosine between the
rows of two personas, raw and after the mean of all rows is removed (THEORY 3.12). Cosines between rows are small for
noise alone; what tells structure is how alike rows of different personas are beside rows of one, self pairs left out.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn._random import stream
from prefdyn.diagnostics.orthogonality import Orthogonality, orthogonality
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, single
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.published import SEED
from prefdyn.experiments.recipe import Done, Figure, Panel, Plan, Recipe, Results
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.shared_rules import Judged
from prefdyn.features import FeatureSet

_B = "2408.03459"
_TEMPLATE = "statement"
_SHARE = 0.5
"""Of the preset's rows: there are many groups."""
_TEN = 10
_SHARED = 0.5
"""Likeness of rows of different personas over that of rows of one, from which on what they share outweighs the rest."""
_ORTHOGONAL = 0.25
"""The same ratio, under which personas count as lying in directions of their own: a cosine of 1/4 is 76 degrees."""
_SHARING = 1
"""Z of THEORY 3.9 at its most lenient: every token in one pair of clusters."""
_FIGURES = {f"{_B}-fig03": "ten", f"{_B}-fig06": "all"}


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    plan: dict[Any, Any] = {}
    for seed in context.seeds:
        pairs = context.pairs(context.many(), seed, template=_TEMPLATE, share=_SHARE)
        for source in SOURCES:
            model = context.source(source, seed, "values-last-layer")
            plan[source, seed] = context.features(pairs, model)
    return plan


def _ten(names: list[str]) -> list[str]:
    """Ten of the personas, always the same; all where there are no more."""
    drawn = stream(SEED, "cluster-structure", "ten").permutation(len(names))[:_TEN]
    return [names[int(place)] for place in sorted(drawn.tolist())]


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    names = sorted(context.many())
    subsets = {"ten": _ten(names), "all": names}
    rows: list[Row] = []
    matrices: dict[str, list[Orthogonality]] = {which: [] for which in subsets}
    for (figure, which), source, seed in itertools.product(_FIGURES.items(), SOURCES, context.seeds):
        feats = _some(done[source, seed].features, subsets[which])
        shape = orthogonality(feats, rows="positive")
        mine = {"figure": figure, "source": source, "seed": seed}
        rows += [Row(quantity=quantity, value=value, **mine) for quantity, value in _numbers(feats, shape).items()]
        if source == MODEL:
            matrices[which].append(shape)
    lacking = {
        figure: f"{len(subsets[which])} groups are too few for cosines between groups"
        for figure, which in _FIGURES.items()
        if len(subsets[which]) < 3
    }
    data = context.answers(_TEMPLATE)
    notes = []
    if len(subsets["all"]) < len(data.groups):
        notes.append(f"“All” are {len(subsets['all'])} of the {len(data.groups)} groups of this data.")
    notes.append(
        "Only rows whose first answer is chosen are used, as published; self pairs are on the diagonals shown."
    )
    figures = tuple(_figure(id, subsets[which], matrices[which]) for id, which in _FIGURES.items())
    return Results(measured=Rows(rows, lacking=lacking), figures=figures, notes=tuple(notes))


def _some(feats: FeatureSet, names: Sequence[str]) -> FeatureSet:
    """The pairs of some groups, in the order of those names."""
    part = feats.select(np.concatenate([feats.members(name) for name in names]))
    place = {feats.groups.index(name): code for code, name in enumerate(names)}
    codes = np.array([place[code] for code in part.group.tolist()], dtype=np.int32)
    return replace(part, group=codes, groups=tuple(names))


def _numbers(feats: FeatureSet, shape: Orthogonality) -> dict[str, float]:
    """The statistics of one seed."""
    return {
        "likeness": _alike(shape.cosine_without_self),
        "raw_off": shape.raw_off_diagonal_mean,
        "centred_off": shape.centred_off_diagonal_mean,
        "likeness, centred": _alike(shape.cosine_centred_without_self),
        "directions": _closest(feats),
        "null": shape.null_cosine,
    }


def _alike(cosine: np.ndarray) -> float:
    """Mean |cosine| between rows of different groups over the mean between different rows of one group.

    NaN for a single group, and where the rows of one group are not alike at all. Above 1 where groups say nothing.

    Example:
        >>> _alike(np.array([[0.5, 0.1], [0.1, 0.3]]))
        0.25
    """
    off = np.abs(cosine[~np.eye(len(cosine), dtype=bool)])
    inside = float(np.mean(np.diag(cosine)))
    return float(off.mean()) / inside if len(off) and inside > 0 else float("nan")


def _closest(feats: FeatureSet) -> float:
    """Largest |cosine| between the directions of two groups: their mean positive state less the mean of all."""
    means = []
    for code in range(len(feats.groups)):
        signs = feats.signs(code)
        assert signs is not None
        means.append(feats.states[feats.members(code)][signs > 0].mean(axis=0, dtype=np.float64))
    directions = np.stack(means) - np.mean(means, axis=0)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    off = np.abs(unit @ unit.T)[~np.eye(len(unit), dtype=bool)]
    return float(off.max()) if len(off) else float("nan")


# figures -------------------------------------------------------------------------------------------------------------


def _figure(id: str, names: Sequence[str], shapes: Sequence[Orthogonality]) -> Figure:
    raw = np.mean([shape.cosine for shape in shapes], axis=0)
    centred = np.mean([shape.cosine_centred for shape in shapes], axis=0)
    return Figure(
        spec=spec_of(id),
        panels=(
            Panel(kind="heat", title="(a) raw", matrix=raw, names=tuple(names), limit=1.0),
            Panel(kind="heat", title="(b) shared component removed", matrix=centred, names=tuple(names), limit=1.0),
        ),
        caption=f"Mean cosine between the statements of {len(names)} personas; mean of the seeds.",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _judge_condition(claim: Claim, rows: Rows) -> Judged:
    found, null = rows.values("directions", claim.chosen), float(np.mean(rows.values("null", claim.chosen)))
    limit = 1 / (128 * (_SHARING + 2))
    least = float(np.min(found))
    return Judged(
        holds=least <= limit,
        measured=f"largest |cosine| {least:.3g} in the best seed, {null:.3g} on average between random directions",
        because=f"the theorem asks for at most {limit:.2g}",
        evidence={"largest_cosine": found, "limit": limit, "random_directions": null},
    )


_SHORT = "likeness of different personas over one:"


def _claims(figure: str, who: str) -> Iterator[Claim]:
    common: dict[str, Any] = {"figure": figure, "twin": "statistic", "unit": "run"}
    yield Claim(
        id=f"{figure}-shared",
        statement=f"States of {who} share a component that outweighs what is their own.",
        statistic=single("likeness", short=_SHORT),
        threshold=_SHARED,
        paper_value="bright everywhere in (a)",
        **common,
    )
    yield Claim(
        id=f"{figure}-orthogonal",
        statement=f"With the shared component removed, {who} are nearly orthogonal.",
        statistic=single("likeness, centred", short=_SHORT, least=0),
        test="below",
        threshold=_ORTHOGONAL,
        paper_value="dark off the diagonal in (b)",
        **common,
    )


CLAIMS = (
    *(claim for figure, which in _FIGURES.items() for claim in _claims(figure, f"{which} personas")),
    Claim(
        id=f"{_B}-fig06-condition",
        figure=f"{_B}-fig06",
        place="Appendix C, Theorem C.5",
        statement="Personas are orthogonal enough for the theorem on almost orthogonal clusters.",
        said="Largest |cosine| between the mean positive states of two personas, less the mean of all: holds where in "
        "some seed it is at most 1/(128 (Z + 2)) with Z = 1, the most lenient the theorem can be.",
        twin="",
        unit="value",
        code=_judge_condition,
    ),
)

RECIPE = Recipe(
    name="cluster-structure",
    summary="Do personas lie in directions of their own, once what all share is taken off?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
)
