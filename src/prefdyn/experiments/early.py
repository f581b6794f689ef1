r"""The head after the first steps of joint training, on some pairs of some values, and its error on held-out pairs.

All pairs still pull alike, so the head stands along $w = \sum_k u_k$ with $u_k$ half the sample gap of value k: the
values share their two answers. Nothing is trained: sums of states say it all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from prefdyn._random import stream
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.geometry import covariance_trace, debiased_square, effective_rank
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.value_scaling import early_error_small_sample, head_error

_NO_GAP = 0.5
"""Error of every head on clusters without a gap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Clusters as 2408.03459 models them, in units of the half gap: its root mean square, with noise taken off."""

    noise: float
    """v: standard deviation of a coordinate within a cluster, if all were alike; infinite where no gap is left."""
    width: int
    """d."""
    shared_norm: float
    """l_b: length of the offset that all values share."""
    effective_rank: float
    """In how many directions the noise would spread, if it spread in all of them alike."""

    def along_few(self) -> "Geometry":
        """The same total variance in as many directions as the effective rank.

        Example:
            >>> Geometry(noise=0.5, width=100, shared_norm=0.0, effective_rank=25.0).along_few().noise
            1.0
        """
        few = max(1, round(self.effective_rank))
        return replace(self, noise=self.noise * math.sqrt(self.width / few), width=few)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """Some values of a dataset, ready for heads."""

    half_gaps: Mapping[str, Float[np.ndarray, "pairs d"]]
    """Name → row Q - 1: half the gap of the means of the first Q training pairs of both clusters, in a drawn order."""
    held_out: Mapping[str, Float[np.ndarray, "h d"]]
    """Name → states of its held-out pairs, signed so that a head along the gap has them above 0."""
    pairs: int
    """Training pairs in the smallest cluster."""
    geometry: Geometry

    def error(self, groups: Sequence[Sequence[str]], pairs: int) -> float:
        """Share of held-out pairs whose margin is not above 0: mean over the values of a group, and over groups.

        Args:
            groups: Values trained together, each group by itself.
            pairs: Training pairs per cluster.
        """
        found = []
        for names in groups:
            head = np.sum([self.half_gaps[name][pairs - 1] for name in names], axis=0)
            found.append(np.mean([np.mean(self.held_out[name] @ head <= 0) for name in names]))
        return float(np.mean(found))


def values_measured(feats: FeatureSet, names: Sequence[str], *, seed: int) -> Values:
    """Half gaps, held-out pairs and geometry of some values that share their two answers.

    Args:
        feats: Of one-token answers.
        names: Groups.
        seed: Of the order in which training pairs are taken.

    Raises:
        DataError: A value has a cluster with fewer than two training pairs, or no held-out pair.
    """
    half_gaps, held_out, squares, traces, middles, ranks = {}, {}, [], [], [], []
    for name in names:
        rows = feats.members(name)
        answers = feats.two_answers(rows)
        if answers is None:
            raise DataError(f"{name} has not two answers of one token; give --data with two answers")
        states, positive, out = feats.states[rows].astype(np.float64), answers.positive, feats.held_out[rows]
        sides = [states[side & ~out] for side in (positive, ~positive)]
        if min(map(len, sides)) < 2 or not out.any():
            raise DataError(
                f"{name} has {len(sides[0])} and {len(sides[1])} training pairs in its two clusters, and "
                f"{int(out.sum())} held out; give at least 2 in each and one held out"
            )
        sums = []
        for side, part in zip("+-", sides, strict=True):
            order = stream(seed, "early", name, side).permutation(len(part))
            sums.append(np.cumsum(part[order], axis=0))
        count = min(map(len, sides))
        half_gaps[name] = (sums[0][:count] - sums[1][:count]) / (2 * np.arange(1, count + 1)[:, None])
        held_out[name] = np.where(positive[out], 1.0, -1.0)[:, None] * states[out]
        squares.append(debiased_square(states[~out], positive[~out]))
        traces += [covariance_trace(part) for part in sides]
        middles.append(sum(part.mean(axis=0) for part in sides) / 2)
        ranks.append(np.concatenate([part - part.mean(axis=0) for part in sides]))
    unit = math.sqrt(max(0.0, float(np.mean(squares)))) / 2
    noise, offset = math.sqrt(np.mean(traces) / feats.states.shape[1]), float(np.linalg.norm(np.mean(middles, axis=0)))
    return Values(
        half_gaps=half_gaps,
        held_out=held_out,
        pairs=min(map(len, half_gaps.values())),
        geometry=Geometry(
            noise=noise / unit if unit > 0 else math.inf,
            width=feats.states.shape[1],
            shared_norm=offset / unit if unit > 0 else math.inf,
            effective_rank=effective_rank(np.concatenate(ranks)),
        ),
    )


def law(geometry: Geometry, values: int, pairs: int) -> float:
    """Error of the early head by the law for shared answers, with the spread over training sets.

    One half where there is no gap.

    Reference:
        THEORY 3.6; `prefdyn.theory.value_scaling.early_error_small_sample`.

    Example:
        >>> round(law(Geometry(noise=0.5, width=50, shared_norm=0.0, effective_rank=50.0), 4, 1000), 4)
        0.1595
    """
    if math.isinf(geometry.noise):
        return _NO_GAP
    return float(
        early_error_small_sample(
            values, noise=geometry.noise, width=geometry.width, per_cluster=pairs, shared_norm=geometry.shared_norm,
            shared=True,
        )
    )  # fmt: skip


def simulated(geometry: Geometry, values: int, pairs: int, *, seed: int, draws: int = 20) -> float:
    """Error of the early head on clusters drawn by the paper's model: exact for each head, mean over draws.

    One half where there is no gap; NaN where the width has no room for so many directions and the offset.
    """
    if math.isinf(geometry.noise):
        return _NO_GAP
    if geometry.width < values + 1:
        return math.nan
    directions = np.eye(values, geometry.width, k=1)
    offset = geometry.shared_norm * np.eye(1, geometry.width)[0]
    found = []
    for draw in range(draws):
        feats = gaussian_groups(
            2 * pairs, groups=values, width=geometry.width, noise=geometry.noise, shared_norm=geometry.shared_norm,
            held_out=0.0, seed=int(stream(seed, "early", "clusters", str(draw)).integers(2**31)),
        )  # fmt: skip
        sign = np.where(feats.chosen == 0, 1.0, -1.0)
        head = np.repeat((sign @ feats.states.astype(np.float64))[None], values, axis=0)
        found.append(np.mean(head_error(head, directions, offset, geometry.noise)))
    return float(np.mean(found))
