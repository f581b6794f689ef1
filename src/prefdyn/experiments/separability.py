r"""How apart a model holds the two classes of a behaviour: on the pairs trained on, on held-out pairs, and on all.

A body that was trained may pull apart the very pairs that it saw and no others. So every measure is taken on each
split, and two readers are fitted on the training pairs and asked about held-out ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score, silhouette_score

from prefdyn.diagnostics.probe import column_scale, is_right, ridge_scores
from prefdyn.experiments.claims import Statistic
from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import (
    covariance_operator_norm,
    covariance_trace,
    distinguishability,
    fisher_ratio,
    mean_gap,
)

SPLITS: Mapping[str, str] = {"all": "all pairs", "train": "the pairs trained on", "held_out": "held-out pairs"}
CLOUDS: Mapping[str, str] = {
    "distinguishability": "distinguishability D",
    "trace_ratio": "total variance over D²",
    "concentration_ratio": "largest variance over D",
    "fisher_ratio": "Fisher ratio",
    "silhouette": "silhouette",
}
"""Measured on every split."""
READERS: Mapping[str, str] = {
    "along": "gap along the training gap",
    "auc": "AUC along the training gap",
    "probe": "accuracy of a linear probe",
}
"""Fitted on the training pairs, measured on held-out ones."""
MEASURES: Mapping[str, str] = {**CLOUDS, **READERS}
RATIOS = ("distinguishability", "trace_ratio", "concentration_ratio", "fisher_ratio")
"""Measures of one sign that two models are compared in by their ratio; the others by their difference."""
_WORDS = {
    "trace_ratio": "larger trace of the classes over D²",
    "concentration_ratio": "largest variance of the classes along one direction over D",
    "along": "length of the mean gap along that of the training pairs",
    "probe": "accuracy of a ridge classifier fitted on the training pairs",
}
"""How a rule says what a measure is, where its name is too short for that."""


def separability(feats: FeatureSet) -> dict[str, dict[str, float]]:
    r"""All measures of one behaviour, by split.

    Args:
        feats: Pairs of one group with two answers.

    Returns:
        Split to measure to number; NaN where a class has fewer than two pairs. `along`: the length of the held-out
        gap $\hat\mu_+ - \hat\mu_-$ along the direction of the training pairs' gap, which noise does not make longer
        as it does D.

    Reference:
        2403.18742, section 5.2 (ratio of variance to distinguishability); THEORY 2.1 and 5.

    Example:
        >>> states = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]] * 2)
        >>> feats = FeatureSet.from_arrays(states, chosen=[1, 1, 0, 0] * 2, rejected=[0, 0, 1, 1] * 2, tokens=[1, 0],
        ...                                held_out=[False] * 4 + [True] * 4)
        >>> found = separability(feats)["held_out"]
        >>> round(found["distinguishability"], 6), round(found["trace_ratio"], 6), found["along"], found["probe"]
        (2.0, 0.5, 2.0, 1.0)
    """
    answers = feats.two_answers(np.arange(len(feats)))
    states = feats.states.astype(np.float64)
    found: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        rows = np.ones(len(feats), dtype=bool) if split == "all" else feats.held_out == (split == "held_out")
        found[split] = dict.fromkeys(CLOUDS, math.nan)
        if answers is not None and _both(answers.positive[rows]):
            found[split] = _clouds(states[rows], answers.positive[rows])
    found["held_out"] |= dict.fromkeys(READERS, math.nan)
    if answers is not None and _both(answers.positive[feats.held_out]) and _both(answers.positive[~feats.held_out]):
        found["held_out"] |= _readers(states, answers.positive, feats.held_out)
    return found


def change(measure: str, before: float, after: float) -> float:
    """How far a measure moved: the logarithm of the ratio for `RATIOS`, else the difference.

    Example:
        >>> round(change("distinguishability", 1.0, 2.0), 6), change("probe", 0.5, 0.75)
        (0.693147, 0.25)
    """
    if measure not in RATIOS:
        return after - before
    return math.log(after / before) if before > 0 and after > 0 else math.nan


def folded(rows: Sequence[Sequence[float]], fold: str = "mean") -> list[float]:
    """One number per seed from several rows of one number per seed, of what was measured.

    Args:
        rows: One per behaviour or setting; NaN: not measured.
        fold: "mean", "least" or "greatest".

    Example:
        >>> folded([[1.0, 2.0], [3.0, math.nan]]), folded([[1.0], [3.0]], "greatest"), folded([[math.nan]])
        ([2.0, 2.0], [3.0], [nan])
    """
    merge = {"mean": np.mean, "least": np.min, "greatest": np.max}[fold]
    columns = [[value for value in column if math.isfinite(value)] for column in zip(*rows, strict=True)]
    return [float(merge(known)) if known else math.nan for known in columns]


def moved(measure: str, *, after: str = "after", before: str = "before", fold: str = "mean") -> Statistic:
    """How far a measure moved, over the units: a ratio for `RATIOS`, else a difference.

    Args:
        measure: Its rows are of `change`.
        after: What it was measured on.
        before: What that is held against.
        fold: As in `folded`.

    Example:
        >>> round(moved("distinguishability").of([math.log(2.0), math.log(8.0)]), 6), moved("probe").of([0.5, math.nan])
        (4.0, 0.5)
    """
    ratio = measure in RATIOS
    how, geometric = ("over", "geometric ") if ratio else ("less", "")
    told = {"mean": f"{geometric}mean over", "least": "the smallest of", "greatest": "the largest of"}[fold]

    def of(values: Sequence[float]) -> float:
        (one,) = folded([[value] for value in values], fold)
        return math.exp(one) if ratio else one

    return Statistic(
        says=f"{_WORDS.get(measure, MEASURES[measure])} of {{pairs}}, {after} {how} {before}, {told} {{units}}",
        short=f"{MEASURES[measure]} {after} {how} {before}",
        quantities=(measure,),
        of=of,
        least=0.0 if ratio else -math.inf,
        kind="mean" if fold == "mean" else "whole",
        log=ratio,
    )


FALLING = ("trace_ratio", "concentration_ratio")
"""Smaller where the sides are farther apart."""


def farther(measure: str) -> dict[str, Any]:
    """The test by which two sides are farther apart.

    Example:
        >>> farther("trace_ratio"), farther("probe")
        ({'test': 'below', 'threshold': 1.0}, {'test': 'above', 'threshold': 0.0})
    """
    return {"test": "below" if measure in FALLING else "above", "threshold": 1.0 if measure in RATIOS else 0.0}


def _both(positive: Bool[np.ndarray, " n"]) -> bool:
    """Whether each class has a covariance."""
    return min(int(positive.sum()), int((~positive).sum())) >= 2


def _clouds(states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> dict[str, float]:
    classes = states[positive], states[~positive]
    distance = distinguishability(states, positive)
    return {
        "distinguishability": distance,
        "trace_ratio": _over(max(map(covariance_trace, classes)), distance**2),
        "concentration_ratio": _over(max(map(covariance_operator_norm, classes)), distance),
        "fisher_ratio": fisher_ratio(states, positive),
        "silhouette": float(silhouette_score(states, positive)),
    }


def _readers(
    states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"], held_out: Bool[np.ndarray, " n"]
) -> dict[str, float]:
    gap = mean_gap(states[~held_out], positive[~held_out])
    theirs = mean_gap(states[held_out], positive[held_out])
    centre = states[~held_out].mean(axis=0)
    fit, asked = states[~held_out] - centre, states[held_out] - centre
    scale = column_scale(fit)
    signs: Any = np.where(positive, 1.0, -1.0)
    scores = ridge_scores(fit / scale, signs[~held_out], asked / scale, intercept=True)
    return {
        "along": _over(float(gap @ theirs), float(np.linalg.norm(gap))),
        "auc": float(roc_auc_score(positive[held_out], asked @ gap)),
        "probe": float(is_right(scores, signs[held_out]).mean()),
    }


def _over(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else math.nan
