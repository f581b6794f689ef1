r"""How far apart a model holds the two sides of each group, and whether noise alone could do it.

Groups with two answers are measured as published: distinguishability $D = \lVert \hat\mu_+ - \hat\mu_- \rVert$
between the states of the two classes. All other groups are measured on the pair features $\phi$: debiased
$D^2 = 2\, \mathrm{mean}_{i \ne j} C_{ij}$, which is the same number for two equal classes without noise. In both
cases the null, the interval, the held-out probe and the debiased value stand beside D.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._checks import at_least
from prefdyn._json import plain
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn._showing import Tabular
from prefdyn._threads import small_work
from prefdyn.diagnostics.inference import flat, holm
from prefdyn.diagnostics.probe import UNKNOWN, Probe, probe_classes, probe_pairs
from prefdyn.diagnostics.units import relabelled, units
from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import (
    distinguishability_exponent,
    gaussian_divergence,
    largest_square,
    null_root_mean_square,
    pair_coordinates,
    rotate_to_row_space,
)
from prefdyn.maths.kernel import PairKernel
from prefdyn.maths.units import in_order, sums

_NAN = math.nan
CELLS = 2**25
"""Numbers of one group, pairs × width, that are looked at: 8,192 pairs of a sketch of 4,096, 524,288 of width 64."""
_CELLS = 2**22
"""Random weights are drawn in blocks of about this many numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSeparation:
    """What was measured of one group. Distances are in the unit of the features. NaN: could not be measured."""

    name: str
    pairs: int
    units: int
    """Independent units among the pairs used: one pair each, or several that hang together (`diagnostics.units`)."""
    pairs_used: int
    """Pairs that all the rest but `pairs` and `classes` rests on: all, or a sample."""
    classes: tuple[int, int] | None
    """Pairs in which the first answer is chosen, and in which the second is; None outside two-answer groups."""
    distinguishability: float
    """D: as published for two answers, else debiased (below 0 counts as 0)."""
    distinguishability_exponent: float
    r"""$\Delta$ with $D = d^\Delta$; d is the width of the features (one response, for `responses`)."""
    debiased: float
    """Square root of the debiased squared distance, 0 where that is negative."""
    debiased_squared: float
    """Unbiased for the squared distance of the true means; negative where the gap is below the noise."""
    interval: tuple[float, float]
    """95 % interval of the true distance: bootstrap of the debiased square, inverted; on the scale of D."""
    concentration: float
    r"""Largest $\lVert S \rVert_{op}$ of the classes, ddof 1; outside two-answer groups, of $\phi/\sqrt2$."""
    trace: float
    r"""Largest $\mathrm{Tr}\\,S$ of the classes, ddof 1; outside two-answer groups, of $\phi/\sqrt2$."""
    concentration_ratio: float
    """concentration / D."""
    trace_ratio: float
    """trace / D², free of scale."""
    fisher_ratio: float
    """D² over the sum of both classes' traces."""
    gaussian_kl: float
    """½ Δμᵀ Σ⁻¹ Δμ in nats, with one shrunk covariance for both classes."""
    kl_shrinkage: float
    """The Ledoit-Wolf shrinkage in it, 0 to 1."""
    null_rms: float
    """What D is without any signal: root mean square over relabellings; outside two-answer groups, the square root
    of the null standard deviation of D²."""
    null_z: float
    """D (outside two-answer groups D²) in null standard deviations above the null mean."""
    null_p: float
    """Share of relabellings (outside two-answer groups: of random swaps) that reach what was measured."""
    null_p_adjusted: float
    """The same after an adjustment for the number of groups: Holm's, or that of `Separation.adjustment`."""
    probe_accuracy: float
    """Held-out accuracy of a linear probe, of both classes alike; chance is one half."""
    probe_interval: tuple[float, float]
    """95 % interval of it."""
    probe_chance: float
    """0.5, NaN where there is no probe."""
    auc: float
    """Held-out area under the curve of the probe's scores."""
    auc_interval: tuple[float, float]
    """95 % interval of it."""
    auc_error: float
    """Its standard error."""
    auc_null_error: float
    """Standard deviation of the area where labels mean nothing."""
    auc_p: float
    """One-sided p of the area, from relabellings."""
    signal_p: float
    """The smaller of `null_p` and `auc_p`, adjusted for both tests in every group: does anything tell the two sides?"""
    raw_mean_norm: float
    r"""$\sqrt2 \lVert \mathrm{mean}\, \phi \rVert$, biased by noise: D for two equal classes."""

    def row(self) -> dict[str, Any]:
        """All of it; `interval` is that of `debiased`."""
        found = flat(self)
        return {"debiased_low": found.pop("low"), "debiased_high": found.pop("high"), **found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation(Tabular):
    """One `GroupSeparation` per group, in the order of the FeatureSet."""

    _FIRST = ("name", "pairs", "units", "distinguishability", "debiased_low", "debiased_high", "probe_accuracy", "auc")

    groups: tuple[GroupSeparation, ...]
    permutations: int
    """Relabellings per group."""
    right: tuple[np.ndarray, ...] = field(compare=False, repr=False)
    """Per group, whether the held-out probe is right on each pair used (`Probe.right`); empty where there is none."""
    unit: tuple[np.ndarray, ...] = field(compare=False, repr=False)
    """Per group, the unit of each pair used, from 0."""
    bootstraps: int
    """Resamples per group."""
    adjustment: Literal["holm", "max-z"] = "holm"
    """How p-values are adjusted: "max-z" where there are more than `FOR_HOLM` groups."""

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group; intervals as `*_low` and `*_high`, unknown numbers as None."""
        return [plain(group.row()) for group in self.groups]


def separation(
    feats: FeatureSet,
    *,
    permutations: int | None = None,
    bootstraps: int = 500,
    folds: int = 5,
    cells: int = CELLS,
    unit: Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Separation:
    """Distinguishability of every group, with the null, the interval and the held-out figures that go with it.

    Uses every pair, held out or not, and no weights: it describes the data, not a run.

    Args:
        feats: Features of either kind.
        permutations: Relabellings per group for the null. Without it 999, or 80 per group where that is more, so
            that one real group among many can still reach an adjusted p below 0.05; 999 beyond `FOR_HOLM` groups,
            where relabellings for Holm would grow with the square of the groups. There a group's adjusted p is the
            share of relabellings in which *any* group reaches its `null_z`, which needs no more of them.
        bootstraps: Resamples per group for the interval.
        folds: Folds of the held-out probe.
        cells: Groups whose pairs × width are more than this are measured on a sample of as many pairs as fit.
        unit: Equal integers for pairs that are one unit; `diagnostics.units` finds them if not given.
        seed: Decides relabellings, resamples and folds. A group's figures do not depend on which others are there,
            save for the number of permutations and the adjusted p.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        One row per group. Groups with one class or fewer than 4 pairs have NaN for what cannot be measured.

    Raises:
        ConfigError: A count is too small.

    Reference:
        2403.18742, section 4; THEORY 2.1, 5, 6.2. The published code has the first three columns and no null.
        Westfall and Young (1993), "Resampling-based multiple testing", for the largest statistic of all groups.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(60, 3)) + 2 * np.repeat([[1.0, 0, 0], [-1, 0, 0]], 30, axis=0)
        >>> yes_first = ["Yes"] * 30 + ["No"] * 30, ["No"] * 30 + ["Yes"] * 30
        >>> found = separation(FeatureSet.from_arrays(x, chosen=yes_first[0], rejected=yes_first[1])).groups[0]
        >>> 3.5 < found.distinguishability < 4.5, found.null_p, found.probe_accuracy > 0.9
        (True, 0.001, True)
    """
    groups = len(feats.groups)
    together = groups > FOR_HOLM
    if permutations is None:
        permutations = 999 if together else max(999, 80 * groups)
    at_least(permutations, 1, name="permutations")
    at_least(bootstraps, 1, name="bootstraps")
    at_least(folds, 2, name="folds")
    unit = units(feats) if unit is None else unit
    found, by_group = [], feats.by_group()
    right: list[np.ndarray] = []
    unit_of: list[np.ndarray] = []
    answers: Any = None
    largest = np.full(permutations, -math.inf) if together else None
    at_least(cells, 1, name="cells")
    most = max(4, cells // feats.kernel_width)
    for code in track(range(groups), "Separation", unit="groups", shown=progress):
        name, rows = feats.groups[code], by_group[code]
        given_answers = feats.two_answers(rows)
        known: dict[str, Any] = {"pairs": len(rows), "classes": None}
        if given_answers is not None:
            count = int(given_answers.positive.sum())
            known["classes"] = (count, len(rows) - count)
        if len(rows) > most:
            kept = np.sort(stream(seed, "separation sample", name).permutation(len(rows))[:most])
            rows = rows[kept]
            given_answers = feats.two_answers(rows) if given_answers is not None else None
        of = in_order(unit[rows])
        unit_of.append(of)
        known |= {"units": int(of.max(initial=-1)) + 1}
        settings = _Settings(
            permutations=permutations, bootstraps=bootstraps, folds=folds, seed=seed, name=name, largest=largest
        )
        with small_work(len(rows) * feats.states.shape[1]):
            if given_answers is not None:
                states = feats.states[rows].astype(np.float64)
                measured, probe = _two_answers(states, given_answers.positive, of, settings)
                found.append(measured | known)
                right.append(probe.right)
                continue
            dtype = (feats.states if feats.chosen_features is None else feats.chosen_features).dtype
            answers = feats.coordinates()[0].astype(dtype) if answers is None else answers
            part = PairKernel(answers=answers[rows], features=feats.pair_features(rows, dtype))
            if feats.kind == "responses":  # what the model represents, as in the cosines and the picture
                seen = PairKernel(answers=np.ones((len(rows), 1)), features=feats.states[rows])
            else:
                seen = part
            measured, probe = _paired(part, seen, of, settings)
            found.append(measured | known)
            right.append(probe.right)
    null_p, auc_p = (np.array([group[name] for group in found], dtype=np.float64) for name in ("null_p", "auc_p"))
    if largest is None:
        adjusted = holm(null_p)
        both = np.fmin(*np.split(holm(np.concatenate([null_p, auc_p])), 2))
    else:
        adjusted = _reached([group["null_z"] for group in found], null_p, largest)
        both = np.minimum(1.0, 2 * np.fmin(adjusted, holm(auc_p)))
    return Separation(
        groups=tuple(
            GroupSeparation(**group, null_p_adjusted=float(p), signal_p=float(any_p))
            for group, p, any_p in zip(found, adjusted, both, strict=True)
        ),
        permutations=permutations,
        right=tuple(right),
        unit=tuple(unit_of),
        bootstraps=bootstraps,
        adjustment="max-z" if together else "holm",
    )


FOR_HOLM = 250
"""Groups up to which p-values are adjusted by Holm's method, which takes 80 relabellings per group in every group."""


def _reached(
    z: Sequence[float], p: Sequence[float] | np.ndarray, largest: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " m"]:
    """Share of relabellings whose largest z over all groups reaches each group's own; never below its own p.

    Example:
        >>> _reached([3.0, 0.5, math.nan], [0.2, 0.4, math.nan], np.array([1.0, 2.0, 0.6, 2.5])).round(2).tolist()
        [0.2, 1.0, nan]
    """
    measured, rising = np.array(z, dtype=np.float64), np.sort(largest)
    above = len(rising) - np.searchsorted(rising, measured - 1e-9 * np.maximum(np.abs(measured), 1.0))
    found = np.maximum((1 + above) / (1 + len(rising)), np.array(p, dtype=np.float64))
    return np.where(np.isnan(measured), p, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    permutations: int
    bootstraps: int
    folds: int
    seed: int
    name: str
    largest: Float[np.ndarray, " b"] | None = None
    """Where given: the largest z of every relabelling over the groups so far, which each group raises."""

    def stream(self, purpose: str) -> np.random.Generator:
        return stream(self.seed, purpose, self.name)


# two answers --------------------------------------------------------------------------------------------------------


def _two_answers(
    states: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"], unit: Int[np.ndarray, " n"], settings: _Settings
) -> tuple[dict[str, Any], Probe]:
    (n, width), count = states.shape, int(positive.sum())
    known: dict[str, Any] = {"name": settings.name, "pairs_used": n}
    signed = np.where(positive, 1.0, -1.0) @ states / n
    known["raw_mean_norm"] = 2 * float(np.linalg.norm(signed))
    if n < 4 or min(count, n - count) == 0:
        return _unmeasured(known), UNKNOWN
    probe = probe_classes(states, positive, unit, folds=settings.folds, rng=settings.stream("probe folds"))

    # Distances ignore where the origin is, and rotations: centre once, and keep no more columns than rows.
    points = rotate_to_row_space(states - states.mean(axis=0))
    first, second = points[positive], points[~positive]
    gap = first.mean(axis=0) - second.mean(axis=0)
    within = first - first.mean(axis=0), second - second.mean(axis=0)
    traces = [float(np.vdot(part, part)) / (len(part) - 1) if len(part) > 1 else _NAN for part in within]
    norms = [largest_square(part) / (len(part) - 1) if len(part) > 1 else _NAN for part in within]
    divergence, shrinkage = gaussian_divergence(np.concatenate(within), gap, width)
    null = _relabelled(points, positive, unit, settings)
    square = float(gap @ gap)
    known |= _null_figures(math.sqrt(square), null, settings.largest)
    independent = int(unit.max()) + 1 == n
    known["null_rms"] = null_root_mean_square(points, count) if independent else float(np.sqrt(np.mean(null**2)))
    parts = np.empty_like(points)
    parts[positive], parts[~positive] = within[0] / len(first), -within[1] / len(second)
    return known | _distances(
        distance=math.sqrt(square),
        error=_error(parts, unit, _stratum(positive, unit), settings, ("first", "second", "mixed")),
        square=square,
        gap=gap,
        trace=max(traces),
        concentration=max(norms),
        spread=sum(traces),
        width=width,
        kl=(divergence, shrinkage),
        probe=probe,
    ), probe


def _stratum(positive: Bool[np.ndarray, " n"], unit: Int[np.ndarray, " n"]) -> Int[np.ndarray, " units"]:
    """0 for units of the first class alone, 1 for those of the second, 2 for units with both."""
    shares = np.bincount(unit, weights=positive) / np.bincount(unit)
    return np.select([shares == 1, shares == 0], [0, 1], 2)


def _relabelled(
    points: Float[np.ndarray, "n r"], positive: Bool[np.ndarray, " n"], unit: Int[np.ndarray, " n"], settings: _Settings
) -> Float[np.ndarray, " b"]:
    """D where whole units trade their labels. The rows' mean must be 0."""
    n, count = len(points), int(positive.sum())
    rng = settings.stream("permutations")
    fewer = positive if 2 * count <= n else ~positive
    found = []
    for size in _blocks(settings.permutations, n):
        total = relabelled(fewer, unit, size, rng).astype(np.float64) @ points
        found.append(np.sqrt(np.einsum("ij,ij->i", total, total)))
    return np.concatenate(found) * (1 / count + 1 / (n - count))


# everything else ----------------------------------------------------------------------------------------------------


def _paired(
    kernel: PairKernel, seen: PairKernel, unit: Int[np.ndarray, " n"], settings: _Settings
) -> tuple[dict[str, Any], Probe]:
    n, width = len(kernel), kernel.features.shape[1]
    known: dict[str, Any] = {"name": settings.name, "pairs_used": n}
    ambient = width * kernel.answers.shape[1]
    if n < 4 or unit.max() == 0:
        total = kernel.adjoint(np.ones(n)) / max(n, 1)
        known["raw_mean_norm"] = math.sqrt(2) * float(np.linalg.norm(total)) if n else _NAN
        return _unmeasured(known), UNKNOWN
    probe = probe_pairs(seen, unit, folds=settings.folds, rng=settings.stream("probe folds"))

    # In these coordinates half of the gap is the mean, as for two equal classes mirrored at 0.
    points = pair_coordinates(kernel) / math.sqrt(2)
    mean = points.mean(axis=0)
    within = points - mean
    trace = float(np.vdot(within, within)) / (n - 1)
    norm = largest_square(within) / (n - 1)
    known["raw_mean_norm"] = 2 * float(np.linalg.norm(mean))

    # Of the products of all couples only those between units say something of the mean.
    bundles = sums(points, unit)
    lengths = np.einsum("ij,ij->i", bundles, bundles)
    scale = 4 / (n * n - float(np.sum(np.bincount(unit) ** 2)))
    debiased = scale * (n * n * float(mean @ mean) - float(lengths.sum()))
    distance = math.sqrt(max(0.0, debiased))
    gram = bundles @ bundles.T if len(bundles) <= bundles.shape[1] else bundles.T @ bundles
    off_diagonal = max(float(np.vdot(gram, gram) - lengths @ lengths), 0.0)
    null = _swapped(bundles, lengths, settings)
    deviation = scale * math.sqrt(2 * off_diagonal)
    known |= _null_figures(debiased, scale * null, settings.largest, (0.0, deviation))
    known["null_rms"] = math.sqrt(deviation)
    error = _error(2 * within / n, unit, np.zeros(len(bundles), dtype=np.int64), settings, ("pairs",))
    return known | _distances(
        distance=distance,
        error=error,
        square=None,
        debiased_squared=debiased,
        gap=2 * mean,
        trace=trace,
        concentration=norm,
        spread=2 * trace,
        width=width,
        kl=gaussian_divergence(within, 2 * mean, ambient),
        probe=probe,
    ), probe


def _swapped(
    points: Float[np.ndarray, "units r"], lengths: Float[np.ndarray, " units"], settings: _Settings
) -> Float[np.ndarray, " b"]:
    r"""$\sum_{a \ne b} s_a s_b C_{ab}$ over units under random signs."""
    n = len(points)
    rng = settings.stream("swaps")
    found = []
    for size in _blocks(settings.permutations, n):
        signs = 2.0 * rng.integers(0, 2, size=(size, n), dtype=np.int8) - 1.0
        total = signs @ points
        found.append(np.einsum("ij,ij->i", total, total))
    return np.concatenate(found) - lengths.sum()


# shared by both -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """How far the measured gap may lie from the true one."""

    shift: Float[np.ndarray, "b r"]
    """How far each resample's gap lies from the sample's."""
    noise: Float[np.ndarray, " b"]
    """Trace of the gap's covariance, of each resample."""
    own: float
    """The same of the sample: what debiasing takes from the squared gap."""
    worst: float
    """Variance of the gap in the direction where it is largest."""


def _error(
    parts: Float[np.ndarray, "n r"],
    unit: Int[np.ndarray, " n"],
    stratum: Int[np.ndarray, " units"],
    settings: _Settings,
    names: Sequence[str],
) -> _Error:
    """From what each pair adds to the error of the gap: summed over units, which are drawn anew within strata."""
    rows = sums(parts, unit)
    shift = np.zeros((settings.bootstraps, rows.shape[1]))
    noise, own, worst = np.zeros(settings.bootstraps), 0.0, 0.0
    for code, name in enumerate(names):
        inside = rows[stratum == code]
        m = len(inside)
        if m == 0:
            continue
        if m == 1 and name != "mixed":  # one unit of a class says nothing of how units differ
            noise[:], own, worst = _NAN, _NAN, _NAN
            continue
        factor = m / (m - 1) if m > 1 else 1.0
        lengths, mean = np.einsum("ij,ij->i", inside, inside), inside.mean(axis=0)
        own += factor * (float(lengths.sum()) - m * float(mean @ mean))
        worst += factor * largest_square(inside - mean)
        rng, start = settings.stream(f"bootstrap {name}"), 0
        for size in _blocks(settings.bootstraps, m):
            picked = rng.integers(0, m, size=(size, m)) + m * np.arange(size)[:, None]
            weights = np.bincount(picked.ravel(), minlength=size * m).reshape(size, m).astype(np.float64)
            moved, block = weights @ inside, slice(start, start + size)
            shift[block] += moved - m * mean
            noise[block] += factor * (weights @ lengths - np.einsum("ij,ij->i", moved, moved) / m)
            start += size
    return _Error(shift=shift, noise=noise, own=own, worst=worst)


def _interval(
    gap: Float[np.ndarray, " r"],
    debiased: float,
    shift: Float[np.ndarray, "b r"],
    noise: Float[np.ndarray, " b"],
    worst: float,
) -> tuple[float, float]:
    r"""95 % interval of the true distance: every t that the debiased square does not speak against.

    If the true gap had length t in the direction of the measured one, the debiased square would be
    $t^2 + 2t\,\hat u \cdot e + \lVert e \rVert^2 - \mathrm{noise}$ with e the error of the gap, which the resamples
    show. t is in the interval where the measured square lies between the 2.5 % and 97.5 % quantiles of that. (The
    usual pivotal interval takes the error at the measured length, which noise makes too long: it is up to twice as
    wide where there is no signal and too narrow where noise has few directions.) As far as the measured gap is
    noise, its direction is too: that share of the error along it is taken in the direction of largest variance.

    Args:
        gap: The measured gap.
        debiased: Its debiased square.
        shift: Error of the gap in each resample.
        noise: What debiasing takes away in each resample.
        worst: Variance of the gap in the direction where it is largest.
    """
    if not math.isfinite(debiased):
        return _NAN, _NAN
    length = float(np.linalg.norm(gap))
    along = 2 * shift @ (gap / length) if length > 0 else np.zeros(len(shift))
    variance, signal = float(along.var()) / 4, min(1.0, max(0.0, debiased) / length**2) if length > 0 else 0.0
    if variance > 0:
        along *= max(1.0, math.sqrt(signal + (1 - signal) * worst / variance))
    own = np.einsum("ij,ij->i", shift, shift) - noise
    largest = float(np.abs(along).max()) + math.sqrt(max(0.0, debiased - float(own.min())))
    lengths = np.linspace(0.0, largest, 257)
    low, high = np.quantile(lengths[:, None] * along + own, [0.025, 0.975], axis=1)
    above, below = lengths**2 + high - debiased, lengths**2 + low - debiased
    inside = np.flatnonzero(above >= 0)
    first = int(inside[0]) if len(inside) else len(lengths) - 1
    start = _crossing(lengths, above, first - 1) if first > 0 else 0.0
    inside = np.flatnonzero(below <= 0)
    if len(inside) == 0:
        return 0.0, 0.0
    last = int(inside[-1])
    return start, max(start, _crossing(lengths, below, last) if last + 1 < len(lengths) else largest)


def _crossing(x: np.ndarray, y: np.ndarray, place: int) -> float:
    """Where the line through two neighbouring points crosses 0."""
    step = y[place + 1] - y[place]
    return float(x[place] if step == 0 else x[place] - y[place] * (x[place + 1] - x[place]) / step)


def _null_figures(
    measured: float,
    null: Float[np.ndarray, " b"],
    largest: Float[np.ndarray, " b"] | None,
    known: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Z and p of what was measured; `known`: mean and standard deviation under the null, where they need no sample."""
    sampled = (float(null.mean()), float(null.std(ddof=1)) if len(null) > 1 else 0.0)
    mean, deviation = sampled if known is None else known
    reached = np.sum(null >= measured - 1e-9 * max(abs(measured), float(np.abs(null).max())))
    if largest is not None and deviation > 0:
        np.maximum(largest, (null - mean) / deviation, out=largest)
    return {
        "null_z": (measured - mean) / deviation if deviation > 0 else _NAN,
        "null_p": float((1 + reached) / (1 + len(null))),
    }


def _distances(
    *,
    distance: float,
    error: _Error,
    gap: Float[np.ndarray, " r"],
    square: float | None,
    trace: float,
    concentration: float,
    spread: float,
    width: int,
    kl: tuple[float, float],
    probe: Probe,
    debiased_squared: float = _NAN,
) -> dict[str, Any]:
    if square is not None:
        debiased_squared = square - error.own
    return {
        "distinguishability": distance,
        "distinguishability_exponent": distinguishability_exponent(distance, width) if distance > 0 else _NAN,
        "debiased": math.sqrt(max(0.0, debiased_squared)) if math.isfinite(debiased_squared) else _NAN,
        "debiased_squared": debiased_squared,
        "interval": _interval(gap, debiased_squared, error.shift, error.noise, error.worst),
        "concentration": concentration,
        "trace": trace,
        "concentration_ratio": concentration / distance if distance > 0 else _NAN,
        "trace_ratio": trace / distance**2 if distance > 0 else _NAN,
        "fisher_ratio": distance**2 / spread if spread > 0 else _NAN,
        "gaussian_kl": kl[0],
        "kl_shrinkage": kl[1],
        "probe_accuracy": probe.accuracy,
        "probe_interval": probe.interval,
        "probe_chance": probe.chance,
        "auc": probe.auc,
        "auc_interval": probe.auc_interval,
        "auc_error": probe.auc_error,
        "auc_null_error": probe.null_error,
        "auc_p": probe.p_value,
    }


def _unmeasured(known: dict[str, Any]) -> dict[str, Any]:
    nothing = _distances(
        distance=_NAN,
        error=_Error(shift=np.zeros((0, 0)), noise=np.zeros(0), own=_NAN, worst=_NAN),
        gap=np.zeros(0),
        square=None,
        trace=_NAN,
        concentration=_NAN,
        spread=_NAN,
        width=0,
        kl=(_NAN, _NAN),
        probe=UNKNOWN,
    )
    return nothing | {"null_rms": _NAN, "null_z": _NAN, "null_p": _NAN} | known


def _blocks(count: int, n: int) -> list[int]:
    """`count` split into blocks of about `_CELLS` / n."""
    size = max(1, _CELLS // max(n, 1))
    return [min(size, count - start) for start in range(0, count, size)]
