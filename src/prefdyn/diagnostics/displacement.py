r"""Likelihood displacement, before any training: will the log-probability of a chosen response fall?

Three measures stand side by side. The pushes say what the joint first step does to each response's log-probability, all
other pairs included. CHES looks at one pair alone, and beyond the head: responses whose states lie close to each other
share what raises and lowers them. The band looks at a group: which slopes of a loss on the chosen and on the rejected
side let the one rise and the other fall at all.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._random import stream
from prefdyn._showing import Tabular
from prefdyn.diagnostics.prioritization import PairPushes
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order, redrawn, sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    r"""Logarithms of $d_w / d_l$ with which a group's chosen responses rise and its rejected ones fall, first order.

    $d_w, d_l$ are the loss's slopes on the log-probability of the chosen and of the rejected response. Every loss of
    the margin has $d_w = d_l$, logarithm 0; a term of supervised fine-tuning on the chosen response raises it.
    """

    low: float
    r"""Below it the chosen responses fall; $-\infty$ where they cannot."""
    high: float
    r"""Above it the rejected responses rise; $\infty$ where they cannot."""
    cosine: float
    r"""$\rho$, between the mean gradients of both sides."""
    stability: float
    """Share of resamples of the group's units whose band says the same of a loss of the margin."""

    def says(self, log_slopes: float = 0.0) -> str:
        """What becomes of the two sides under a loss with this logarithm of $d_w / d_l$.

        Example:
            >>> band(np.array([1.0, 0.0]), np.array([3.0, 0.1])).says()
            'chosen falls'
        """
        if math.isnan(self.cosine):
            return "unknown"
        if log_slopes < self.low:
            return "chosen falls"
        return "rejected rises" if log_slopes > self.high else "apart"


def band(chosen: Float[np.ndarray, " f"], rejected: Float[np.ndarray, " f"], *, stability: float = math.nan) -> Band:
    r"""The band of two mean gradients.

    A step moves the head by $d_w s_w - d_l s_l$ (times the learning rate), with $s_w, s_l$ the mean gradients of the
    chosen and of the rejected log-probability. The mean of the first then moves by
    $d_w \lVert s_w \rVert^2 - d_l \rho \lVert s_w \rVert \lVert s_l \rVert$, which is above 0 iff
    $\log(d_w / d_l) > \log(\lVert s_l \rVert / \lVert s_w \rVert) + \log \rho$, and that of the second by
    $d_w \rho \lVert s_w \rVert \lVert s_l \rVert - d_l \lVert s_l \rVert^2$, below 0 iff
    $\log(d_w / d_l) < \log(\lVert s_l \rVert / \lVert s_w \rVert) - \log \rho$. For $\rho \le 0$ both hold always.

    Args:
        chosen: Mean gradient of the chosen responses' log-probability.
        rejected: The same of the rejected ones.
        stability: What a caller found by drawing units anew.

    Reference:
        arXiv:2604.18239, the disentanglement band, derived again here.

    Example:
        >>> found = band(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
        >>> round(found.low, 6) + 0.0, round(found.high, 6)  # log sqrt 2 plus and minus log cos 45 degrees
        (0.0, 0.693147)
    """
    lengths = float(np.linalg.norm(chosen)), float(np.linalg.norm(rejected))
    return _band(lengths[0] ** 2, lengths[1] ** 2, float(chosen @ rejected), stability)


def _band(chosen: float, rejected: float, product: float, stability: float) -> Band:
    """From squared lengths and the product."""
    if not (chosen > 0 and rejected > 0):
        return Band(low=math.nan, high=math.nan, cosine=math.nan, stability=math.nan)
    cosine, ratio = product / math.sqrt(chosen * rejected), 0.5 * math.log(rejected / chosen)
    if cosine <= 0:
        return Band(low=-math.inf, high=math.inf, cosine=cosine, stability=stability)
    reach = math.log(cosine)
    return Band(low=ratio + reach, high=ratio - reach, cosine=cosine, stability=stability)


def bands(
    feats: FeatureSet, *, per_token: bool = False, resamples: int = 200, seed: int = 0
) -> tuple[Band | None, ...]:
    """The band of every group over its training pairs; None for one-token answers and groups without any.

    The gradients are those of the model's head, in sketched coordinates. Of the group trained alone: others move it,
    too, which the pushes count.

    Args:
        feats: Features of longer responses.
        per_token: Of a loss of means over tokens in place of sums.
        resamples: For the stability; of units, or of `_BINS` random parts of them where there are more.
        seed: Of the resamples.
    """
    won, lost = feats.chosen_features, feats.rejected_features
    if won is None or lost is None:
        return (None,) * len(feats.groups)
    found: list[Band | None] = []
    for name, rows in zip(feats.groups, feats.by_group(), strict=True):
        inside = rows[~feats.held_out[rows]]
        if len(inside) == 0:
            found.append(None)
            continue
        rng, unit = stream(seed, "band", name), in_order(feats.cluster[inside])
        count = min(_BINS, int(unit.max()) + 1)
        part = (rng.permutation(int(unit.max()) + 1) % count)[unit]
        totals = [
            _part_sums(side, lengths if per_token else None, feats.weight, inside, part, count)
            for side, lengths in ((won, feats.chosen_length), (lost, feats.rejected_length))
        ]
        products = totals[0] @ totals[0].T, totals[1] @ totals[1].T, totals[0] @ totals[1].T
        whole = _band(*(float(each.sum()) for each in products), stability=math.nan)
        drawn = redrawn(count, resamples, rng).astype(np.float64)
        squares = [((drawn @ each) * drawn).sum(axis=1) for each in products]
        says = [_band(*map(float, each), stability=math.nan).says() for each in zip(*squares, strict=True)]
        found.append(replace(whole, stability=says.count(whole.says()) / resamples))
    return tuple(found)


_BINS = 200
_ROWS = 4096


def _part_sums(
    side: Float[np.ndarray, "n f"],
    lengths: Int[np.ndarray, " n"] | None,
    weight: Float[np.ndarray, " n"],
    rows: Int[np.ndarray, " size"],
    part: Int[np.ndarray, " size"],
    count: int,
) -> Float[np.ndarray, "parts f"]:
    """Weighted sums of one side's gradients over parts of a group, some rows at a time."""
    found = np.zeros((count, side.shape[1]))
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        by = weight[some] if lengths is None else weight[some] / np.maximum(lengths[some], 1)
        found += sums(by[:, None] * side[some].astype(np.float64), part[start : start + _ROWS], count)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Displacement(Tabular):
    """What is known of each pair's displacement. None: unknown for all pairs."""

    groups: tuple[str, ...]
    group: Int[np.ndarray, " n"]
    """Index into `groups`."""
    chosen_push: Float[np.ndarray, " n"] | None
    """Change of the chosen response's log-probability by the joint first step, nats, first order."""
    rejected_push: Float[np.ndarray, " n"] | None
    """The same of the rejected response."""
    ches: Float[np.ndarray, " n"] | None
    """Length-normalised CHES; higher: more displacement is predicted. None for one-token answers."""
    bands: tuple[Band | None, ...]
    """Per group, of a loss of sums over tokens; None: unknown."""
    bands_per_token: tuple[Band | None, ...]
    """The same of a loss of means over tokens."""

    def rows(self) -> list[dict[str, Any]]:
        """Means of each group, and the share of its pairs whose chosen response starts by falling; None: unknown."""
        falls = None if self.chosen_push is None else self.chosen_push < 0
        sizes = np.bincount(self.group, minlength=len(self.groups))
        by_group = np.split(np.argsort(self.group, kind="stable"), np.cumsum(sizes)[:-1])
        return [
            {
                "name": name,
                "chosen_push": _mean(self.chosen_push, rows),
                "rejected_push": _mean(self.rejected_push, rows),
                "chosen_falls_first": _mean(falls, rows),
                "ches": _mean(self.ches, rows),
                **_shown("band", whole),
                **_shown("band_per_token", averaged),
            }
            for name, rows, whole, averaged in zip(self.groups, by_group, self.bands, self.bands_per_token, strict=True)
        ]


def displacement(feats: FeatureSet, pushes: PairPushes) -> Displacement:
    """The first step's push on both responses of every pair, CHES, and each group's band.

    Pushes and CHES use every pair, held out or not. The pushes are of the first step alone: over many steps the
    log-probabilities of long responses leave their first-order course sooner than the margin does, so read signs and
    order, not sizes.

    Args:
        feats: Features of either kind.
        pushes: What `pair_pushes` found for the same pairs.

    Returns:
        One number per pair and measure, and a band per group.

    Raises:
        DataError: The pushes are of another number of pairs.

    Reference:
        THEORY 4.6 (b) for the pushes; see `ches`.

    Example:
        >>> from prefdyn.diagnostics.prioritization import pair_pushes
        >>> feats = FeatureSet.from_arrays([[-1.0, 1]], chosen_features=[[1.0, 0]], rejected_features=[[3.0, 0]],
        ...                                chosen_states=[[1.0, 1]])
        >>> row = displacement(feats, pair_pushes(feats, beta=1.0, learning_rate=1.0)).rows()[0]
        >>> row["chosen_push"], row["rejected_push"], row["chosen_falls_first"], abs(row["ches"])
        (-1.0, -3.0, 1.0, 0.0)
    """
    if len(pushes.agreement) != len(feats):
        raise DataError(
            f"the pushes are of {len(pushes.agreement)} pairs and the features of {len(feats)}; give the pushes that "
            "pair_pushes(feats, …) found for these features"
        )
    return Displacement(
        groups=feats.groups,
        group=feats.group,
        chosen_push=pushes.chosen_push,
        rejected_push=pushes.rejected_push,
        ches=None if feats.chosen_states is None else ches(feats.chosen_states, feats.states),
        bands=bands(feats),
        bands_per_token=bands(feats, per_token=True),
    )


def _shown(stem: str, found: Band | None) -> dict[str, Any]:
    """A band as entries of a row; None: unknown, or without a limit on that side."""
    if found is None or math.isnan(found.cosine):
        return {f"{stem}_{name}": None for name in ("low", "high", "cosine", "says", "stability")}
    ends = {name: getattr(found, name) if math.isfinite(getattr(found, name)) else None for name in ("low", "high")}
    return {
        f"{stem}_low": ends["low"],
        f"{stem}_high": ends["high"],
        f"{stem}_cosine": found.cosine,
        f"{stem}_says": found.says(),
        f"{stem}_stability": found.stability,
    }


def ches(chosen_states: Float[np.ndarray, "n d"], differences: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    r"""Length-normalised centered hidden embedding similarity of every pair.

    $$ \mathrm{CHES} = \langle \bar h_+, \bar h_- \rangle - \lVert \bar h_+ \rVert^2
       = -\langle \bar h_+, \bar h_+ - \bar h_- \rangle, $$

    with $\bar h_\pm$ the mean over a response's tokens of the final state that predicts the token: the first is the
    state at the last prompt token, the state at the last response token takes no part. Summed in float64.

    Args:
        chosen_states: $\bar h_+$ of each pair.
        differences: $\bar h_+ - \bar h_-$ of each pair.

    Returns:
        One score per pair, in the squared unit of the states. The higher, the more the chosen response is predicted to
        lose; scores compare pairs of one model, never two models.

    Reference:
        Razin et al. (2024), "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
        arXiv:2410.08847: the CHES score, in the length-normalised form that it filters data by.

    Example:
        >>> ches(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]) - np.array([[3.0, 2.0]])).tolist()  # 7 - 5
        [2.0]
    """
    return -np.einsum("ij,ij->i", chosen_states, differences, dtype=np.float64)


def _mean(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"] | None, rows: Int[np.ndarray, " size"]
) -> float | None:
    return None if values is None or len(rows) == 0 else float(values[rows].mean())
