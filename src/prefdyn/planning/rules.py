"""Rules for which pairs to leave out, each a number per pair that is measured without the pairs that judge it.

| rule | leaves out first |
|---|---|
| `value_own`, `value_all`, `value_worst` | pairs whose leaving lowers the held-out loss of their group, of all groups, of the worst one most: exact derivatives through the run |
| `loss_after` | pairs with the largest loss in runs that did not train on them (as SelectiveDPO) |
| `agreement` | pairs that the first step of the others pulls against most |
| `ref_margin` | pairs whose rejected answer the reference prefers most, per token |
| `small_gap` | pairs between which the reference sees least difference, per token |
| `length_gap` | pairs whose chosen answer is longest against the rejected one |
"""  # noqa: E501

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prefdyn._progress import track
from prefdyn.dynamics.adjoint import sensitivity_of
from prefdyn.dynamics.crossfit import FOLDS
from prefdyn.dynamics.datamodel import reweighted
from prefdyn.dynamics.grid import Setting
from prefdyn.features import FeatureSet

RULES = ("value_own", "value_all", "value_worst", "loss_after", "agreement", "ref_margin", "small_gap", "length_gap")
_WORK = 6e10
"""Multiplications up to which every group's derivative is taken, for `value_own`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleScores:
    """What each rule says of every pair; higher is left out first."""

    by_fold: Mapping[str, Float[np.ndarray, "folds n"]]
    """Measured on three folds alone: not the one that judges, nor the next one, which chooses. NaN for their pairs."""
    margin: Float[np.ndarray, "folds n"]
    """Cross-fitted within the same three folds."""


def trained_folds(judged: int) -> tuple[int, ...]:
    """The three folds that train where one judges and the next one chooses.

    Example:
        >>> trained_folds(3)
        (0, 1, 2)
    """
    return tuple(sorted((judged + step) % FOLDS for step in range(2, FOLDS)))


def scores(
    feats: FeatureSet, setting: Setting, steps: int, fold: Int[np.ndarray, " n"], *, progress: bool = False
) -> RuleScores:
    """Every rule that tells pairs apart, within the three training folds of every judging fold.

    Args:
        feats: Features of either kind; which pairs they hold out has no say.
        setting: Of every run.
        steps: Of every run.
        fold: 0 to 4 per pair, whole units; -1 for pairs that take no part.
        progress: Show a bar on stderr where it is a terminal.
    """
    couples = list(itertools.combinations(range(FOLDS), 2))
    train = np.stack([np.isin(fold, couple) for couple in couples], axis=1).astype(np.float64)
    bare = feats.with_held_out(np.zeros(len(feats), dtype=bool))
    ends = [outcome.margins.get(steps) for outcome in reweighted(bare, setting, steps, train)[1]]
    firsts = [outcome.margins.get(1) for outcome in reweighted(bare, setting, 1, train)[1]]
    empty = np.full((FOLDS, len(feats)), np.nan)
    found = {name: empty.copy() for name in ("value_own", "value_all", "value_worst", "loss_after", "agreement")}
    margin = empty.copy()
    for place, couple in enumerate(track(couples, "Values of pairs", unit="sweeps", shown=progress)):
        end, first = ends[place], firsts[place]
        if end is None or first is None:
            continue
        loss = setting.objective.loss(end)
        for judged in range(FOLDS):
            trained = trained_folds(judged)
            if not set(couple) <= set(trained):
                continue
            (left,) = set(trained) - set(couple)
            mine, rows = fold == left, np.isin(fold, couple)
            margin[judged, mine] = end[mine]
            found["loss_after"][judged, mine] = loss[mine]
            found["agreement"][judged, mine] = -first[mine]
            for name, values in _values(bare, setting, steps, rows, mine, loss).items():
                old = found[name][judged, rows]
                found[name][judged, rows] = np.where(np.isnan(old), 0.0, old) + values[rows] / 2
    known = np.isfinite(margin)
    found |= {name: np.where(known, values, np.nan) for name, values in _of_reference(feats).items()}
    return RuleScores(
        by_fold={name: found[name] for name in RULES if name in found and _tells(found[name])}, margin=margin
    )


def _values(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    rows: np.ndarray,
    judge: np.ndarray,
    loss: Float[np.ndarray, " n"],
) -> dict[str, Float[np.ndarray, " n"]]:
    """What more weight for each pair adds to losses of the judging fold, times its weight."""
    inside = feats.select(rows | judge)
    inside = inside.with_held_out(judge[rows | judge])
    members = [(feats.group == code) & judge for code in range(len(feats.groups))]
    codes = [code for code, mask in enumerate(members) if mask.any()]
    means = np.stack([members[code] / members[code].sum() for code in codes])
    worst = int(np.argmax(means @ np.where(np.isfinite(loss), loss, np.inf)))
    of = np.stack([means.mean(axis=0), means[worst]])
    own = len(codes) * 2 * FOLDS * 2 * len(feats) * (4 * feats.kernel_width + 500) * steps <= _WORK
    if own:
        of = np.concatenate([of, means])
    slopes = np.full((len(of), len(feats)), np.nan)
    slopes[:, rows | judge] = sensitivity_of(inside, setting, steps, of=of[:, rows | judge]).pair * inside.weight
    found = {"value_all": slopes[0], "value_worst": slopes[1]}
    if own:
        place = {code: number for number, code in enumerate(codes)}
        known = np.array([place.get(int(code), -1) for code in feats.group])
        mine = np.where(known >= 0, slopes[2 + np.maximum(known, 0), np.arange(len(feats))], np.nan)
        found["value_own"] = np.where(np.isnan(mine), 0.0, mine)
    return found


def _of_reference(feats: FeatureSet) -> dict[str, Float[np.ndarray, " n"]]:
    """Rules that need no run."""
    found = {"length_gap": (feats.chosen_length - feats.rejected_length).astype(np.float64)}
    if feats.ref_chosen_logps is not None and feats.ref_rejected_logps is not None:
        gap = feats.ref_chosen_logps / feats.chosen_length - feats.ref_rejected_logps / feats.rejected_length
        found |= {"ref_margin": -gap, "small_gap": -np.abs(gap)}
    return found


def _tells(values: Float[np.ndarray, "folds n"]) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 0 and bool(known.max() > known.min())
