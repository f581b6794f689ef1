r"""How many labels are wrong, from how often the model disagrees with them where it is most sure.

With m the cross-fitted margin of a pair, the chance that the label agrees with the sign of m is taken to be
$\rho + (1 - 2\rho)\,\sigma(a_g |m|)$: the model errs ever more rarely the surer it is, at a pace of its own in every
group, and a share $\rho$ of the labels was turned round by lot. Pairs with little margin say nothing of $\rho$; those
with the largest say nearly all.

**What it takes.** Wrong labels fall alike on sure and unsure pairs, and on both sides; the model is nearly always right
where it is surest. A group that the run learns the wrong way round, because another group pulls against it, or one with
two kinds of people in it, looks like one with wrong labels. The share is therefore told per group, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit
from scipy.stats import chi2

_SHARES = np.linspace(0.0, 0.5, 101)
_PACES = np.concatenate([[0.0], np.geomspace(0.05, 50.0, 60)])
"""Per typical margin of the group."""
FEWEST = 20
"""Units that a group needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongShare:
    """A share of wrong labels with its profile-likelihood interval."""

    share: float
    low: float
    high: float


def wrong_share(
    margins: Float[np.ndarray, " n"],
    members: Sequence[Int[np.ndarray, " size"]],
    unit: Int[np.ndarray, " n"],
    *,
    level: float = 0.9,
) -> WrongShare | None:
    """The share that all these groups have in common; None where none has enough units.

    Args:
        margins: Of the chosen answer over the rejected one, in runs that did not train on the pair; NaN: not known.
        members: Pairs of every group.
        unit: Equal integers for pairs that hang together: they count once.
        level: Of the interval.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> margins = rng.normal(size=4000)
        >>> agrees = rng.random(4000) < expit(4 * np.abs(margins))
        >>> agrees ^= rng.random(4000) < 0.1
        >>> found = wrong_share(np.where(agrees, 1, -1) * np.abs(margins), [np.arange(4000)], np.arange(4000))
        >>> bool(found.low < 0.1 < found.high), bool(found.high - found.low < 0.06)
        (True, True)
    """
    total = np.zeros(len(_SHARES))
    known = False
    for rows in members:
        inside = rows[np.isfinite(margins[rows])]
        units = len(np.unique(unit[inside]))
        if units >= FEWEST:
            known = True
            total += _profile(margins[inside]) * units / len(inside)
    if not known:
        return None
    limit = total.max() - chi2.ppf(level, 1) / 2
    inside = np.flatnonzero(total >= limit)
    low, high = _crossing(total, limit, int(inside[0]), -1), _crossing(total, limit, int(inside[-1]), 1)
    return WrongShare(share=float(_SHARES[np.argmax(total)]), low=low, high=high)


def _crossing(total: Float[np.ndarray, " shares"], limit: float, last: int, way: int) -> float:
    """Where the line through the last share inside and the next one outside meets the limit."""
    beyond = last + way
    if not 0 <= beyond < len(total):
        return float(_SHARES[last])
    part = (total[last] - limit) / (total[last] - total[beyond])
    return float(_SHARES[last] + part * (_SHARES[beyond] - _SHARES[last]))


def _profile(margins: Float[np.ndarray, " n"]) -> Float[np.ndarray, " shares"]:
    """Log-likelihood of every share, at the pace that suits it best."""
    size = np.abs(margins)
    typical = float(np.median(size)) or float(size.max()) or 1.0
    right = expit(np.outer(_PACES, size / typical))  # (paces, n)
    agrees = margins > 0
    found = np.empty(len(_SHARES))
    for place, share in enumerate(_SHARES):
        chance = np.clip(share + (1 - 2 * share) * right, 1e-12, 1 - 1e-12)
        found[place] = np.where(agrees, np.log(chance), np.log1p(-chance)).sum(axis=1).max()
    return found
