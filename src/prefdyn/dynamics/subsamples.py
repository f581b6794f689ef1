r"""Learning curves: the same run on nested parts of the pairs, all sizes, draws and folds in one batched solve.

Whole units are dealt into folds. The run that judges a fold trains on a part of the others: of every group the same
share, so that the mix stays as it is. A part is no copy of the data but a column of weights, 0 for what is left out.

How much of a measured curve is the luck of the draw shows in redraws: the runs on the largest part are made again with
the weights of whole units drawn anew (as `prefdyn.dynamics.crossfit` does), and errors over judged units are widened by
what the groups show together.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prefdyn._random import stream
from prefdyn.dynamics.crossfit import FOLDS, deal, redrawn, redraws, widening
from prefdyn.dynamics.datamodel import reweighted
from prefdyn.dynamics.grid import Setting
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet

_HALVINGS = 10
_FEWEST = 6
"""Pairs of the typical group in the smallest part, about."""
DRAWS = 4
"""Nested draws of parts; the largest part is all there is and needs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Held-out losses of n pairs in runs on S parts of the data, ascending."""

    share: Float[np.ndarray, " S"]
    """Of the pairs outside the judged fold that were trained on; the last is 1."""
    pairs: Float[np.ndarray, "S groups"]
    """Trained pairs of each group, mean over folds and draws."""
    loss: Float[np.ndarray, "n S"]
    """Of every pair in runs that did not train on it, mean over draws, nats; NaN where not judged."""
    unit: Int[np.ndarray, " n"]
    """Equal integers for pairs that were held out together."""
    wider: float
    """How many times as wide as those of independent units the errors of the losses' means are."""


def curves(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    unit: Int[np.ndarray, " n"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> Curves:
    """Runs on nested parts of the data, judged on pairs that took no part. Which pairs are held out has no say.

    Args:
        feats: Features of either kind.
        setting: Of every run.
        steps: Of every run.
        unit: Equal integers for pairs that must stay together.
        draws: Nested draws of the parts.
        seed: Deals units into folds and draws the parts.
        progress: Show a bar on stderr where it is a terminal.

    Raises:
        DataError: The typical group has too few units for a curve.

    Example:
        >>> from prefdyn.dynamics.adjoint import one_setting
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(100, groups=2, width=8)
        >>> found = curves(feats, one_setting(feats), 20, np.arange(200))
        >>> bool(np.nanmean(found.loss[:, -1]) < np.nanmean(found.loss[:, 0]))
        True
    """
    feats = feats.with_held_out(np.zeros(len(feats), dtype=bool))
    fold = deal(feats, unit, FOLDS, seed)
    share = _shares(feats, unit, fold)
    times = [draws] * (len(share) - 1) + [1]
    place = _places(feats, unit, fold, draws, seed)
    columns, of = [], []
    for judged in range(FOLDS):
        inside = (fold != judged) & (fold >= 0)
        for size, part in enumerate(share):
            for draw in range(times[size]):
                columns.append(inside & (place[judged, draw] < part))
                of.append((judged, size))
    weights = [redrawn(unit, stream(seed, "curves", "redraw", str(draw))) for draw in range(redraws(feats))]
    again = [(fold != judged) * (fold >= 0) * weight for weight in weights for judged in range(FOLDS)]
    outcomes = reweighted(
        feats, setting, steps, np.stack([*columns, *again], axis=1).astype(np.float64), label="Subsamples",
        progress=progress,
    )[1]  # fmt: skip
    ends = [
        setting.objective.loss(each.margins[steps]) if steps in each.margins else np.full(len(feats), np.inf)
        for each in outcomes
    ]
    loss, pairs = np.full((len(feats), len(share)), np.nan), np.zeros((len(share), len(feats.groups)))
    loss[fold >= 0] = 0.0
    for (judged, size), column, end in zip(of, columns, ends, strict=False):
        mine = fold == judged
        loss[mine, size] += end[mine] / times[size]
        pairs[size] += np.bincount(feats.group[column], minlength=len(feats.groups)) / times[size] / FOLDS
    anew = np.full((len(weights), len(feats)), np.nan)
    for place_, end in enumerate(ends[len(columns) :]):
        mine = fold == place_ % FOLDS
        anew[place_ // FOLDS, mine] = end[mine]
    wider = widening(feats, unit, loss[:, -1], weights, list(anew))
    return Curves(share=share, pairs=pairs, loss=loss, unit=unit, wider=wider)


def _shares(feats: FeatureSet, unit: Int[np.ndarray, " n"], fold: Int[np.ndarray, " n"]) -> Float[np.ndarray, " S"]:
    """Halving twice per factor of two, down to few pairs of the typical group."""
    sizes = np.array([len(np.unique(unit[rows[fold[rows] >= 0]])) for rows in feats.by_group()])
    typical = float(np.median(sizes[sizes > 0])) * (FOLDS - 1) / FOLDS if (sizes > 0).any() else 0.0
    count = min(_HALVINGS, int(np.floor(2 * np.log2(max(typical, 1.0) / _FEWEST))))
    if count < 4:
        raise DataError(
            f"the typical group has {typical * FOLDS / (FOLDS - 1):.0f} units (pairs that hang together count once), "
            "but a learning curve takes at least 30 of them"
        )
    return 2.0 ** (-np.arange(count, -1, -1) / 2)


def _places(
    feats: FeatureSet, unit: Int[np.ndarray, " n"], fold: Int[np.ndarray, " n"], draws: int, seed: int
) -> Float[np.ndarray, "folds draws n"]:
    """Where each pair's unit comes in the order of its group's units, in [0, 1), anew for every fold and draw."""
    _, code = np.unique(unit, return_inverse=True)
    count = int(code.max()) + 1
    home = np.zeros(count, dtype=np.int64)
    home[code[::-1]] = feats.group[::-1]
    held = np.full(count, -1)
    held[code] = fold
    found = np.zeros((FOLDS, draws, len(feats)))
    for judged in range(FOLDS):
        rng = stream(seed, "curves", "parts", str(judged))
        for draw in range(draws):
            rank = np.ones(count)
            for group in range(len(feats.groups)):
                mine = np.flatnonzero((home == group) & (held != judged) & (held >= 0))
                rank[rng.permutation(mine)] = np.arange(len(mine)) / max(1, len(mine))
            found[judged, draw] = rank[code]
    return found
