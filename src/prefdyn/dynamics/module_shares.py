r"""Which part of a network learns which group: a change of margins that is a sum over modules, and what is luck of it.

In a network that is linear in its weights (`prefdyn.dynamics.tangent`) each module adds to every pair's margin by
itself. A group's share $s_{mg}$ of a module m is what it adds to the group's mean margin over what all of them add.
Shares of a group sum to 1; a module that works against the others has a negative one.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import t as student

from prefdyn.maths.units import Z95, sums

_LEVEL = 0.05
"""Share of tables in which chance marks any cell."""
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_OUTER = ("base_model", "model", "transformer", "gpt_neox")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleShares:
    """What each row, a module or several, has of the change of each group's mean margin."""

    rows: tuple[str, ...]
    margin: Float[np.ndarray, "r g"]
    """What it adds to the mean margin, nats."""
    share: Float[np.ndarray, "r g"]
    """Of the group's whole change; NaN where that is no more than two of its errors."""
    error: Float[np.ndarray, "r g"]
    """Standard error of the share over held-out units; NaN under two."""
    between: Float[np.ndarray, " r"]
    """Standard deviation between seeds of how far a group's share is from the mean over groups; NaN under two seeds."""
    told: Bool[np.ndarray, "r g"]
    """Where a share differs from the mean over groups by more than seeds and held-out units explain: in 19 of 20 tables
    without any such difference nothing is marked."""

    @property
    def overall(self) -> Float[np.ndarray, " r"]:
        """Mean share over groups, each of which counts once; NaN where none is known."""
        return overall(self.share)


def module_shares(
    parts: Mapping[str, Float[np.ndarray, " n"]],
    others: Sequence[Mapping[str, Float[np.ndarray, " n"]]],
    group: Int[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
) -> ModuleShares:
    """Shares of the modules in each group, with what other seeds and other held-out units would change.

    Args:
        parts: What each module has added to every pair's margin, nats.
        others: The same of runs with other seeds.
        group: Group of each pair, numbered from 0 without gaps.
        unit: Equal integers for pairs that hang together.

    Example:
        >>> parts = {"a": np.array([3.0, 1.0]), "b": np.array([1.0, 1.0])}
        >>> module_shares(parts, [], np.arange(2), np.arange(2)).share.tolist()
        [[0.75, 0.5], [0.25, 0.5]]
    """
    names, groups = tuple(parts), int(group.max()) + 1
    own = np.stack([parts[name] for name in names])
    margin, share, error = (np.full((len(names), groups), math.nan) for _ in range(3))
    units = np.zeros(groups)
    for code in range(groups):
        inside = group == code
        margin[:, code], share[:, code], error[:, code], units[code] = _shares(own[:, inside], unit[inside])
    runs = [_means(np.stack([each[name] for name in names]), group) for each in others]
    between, freedom = _between([share, *(each / _whole(each) for each in runs)])
    return ModuleShares(
        rows=names, margin=margin, share=share, error=error, between=between,
        told=_told(share, error, between, units, freedom),
    )  # fmt: skip


def overall(share: Float[np.ndarray, "r g"]) -> Float[np.ndarray, " r"]:
    """Mean share over the groups in which every row's is known; NaN where none is.

    Example:
        >>> overall(np.array([[0.75, 0.25, np.nan], [0.25, 0.75, np.nan]])).tolist()
        [0.5, 0.5]
    """
    known = np.isfinite(share).all(axis=0)
    return share[:, known].mean(axis=1) if known.any() else np.full(len(share), math.nan)


def summed(parts: Mapping[str, Float[np.ndarray, " n"]], rows: Mapping[str, str]) -> dict[str, Float[np.ndarray, " n"]]:
    """Modules that go into one row, added up, in the order of `rows`: from each module's name to its row's.

    Example:
        >>> summed({"x": np.array([1.0]), "y": np.array([2.0])}, {"x": "a", "y": "a"})
        {'a': array([3.])}
    """
    found: dict[str, Float[np.ndarray, " n"]] = {}
    for module, row in rows.items():
        found[row] = found[row] + parts[module] if row in found else parts[module]
    return found


def placed(module: str) -> tuple[int | None, str]:
    """The number of a module's layer, None where it is in none; and its kind, which has a star for that number.

    Example:
        >>> placed("base_model.model.transformer.h.3.attn.attention.q_proj")
        (3, 'h.*.attn.attention.q_proj')
        >>> placed("model.embed")
        (None, 'embed')
    """
    layer = _LAYER.search(module)
    kind = short(_LAYER.sub("*", module, count=1))
    return (int(layer.group()), kind) if layer else (None, kind)


def short(module: str) -> str:
    """A module's name without what all modules of a model have before it.

    Example:
        >>> short("base_model.model.transformer.h.*.attn.attention.q_proj")
        'h.*.attn.attention.q_proj'
    """
    parts = module.split(".")
    while len(parts) > 1 and parts[0] in _OUTER:
        parts = parts[1:]
    return ".".join(parts)


# pieces --------------------------------------------------------------------------------------------------------------


def _shares(parts: Float[np.ndarray, "r n"], unit: Int[np.ndarray, " n"]) -> tuple[np.ndarray, ...]:
    """Means over one group's pairs, shares of them, the shares' errors, and how many units there are."""
    mean, whole = parts.mean(axis=1), float(parts.sum(axis=0).mean())
    _, code = np.unique(unit, return_inverse=True)
    count, none = int(code.max()) + 1, np.full(len(parts), math.nan)

    def error(residuals: np.ndarray) -> np.ndarray:
        by_unit = sums(residuals.T, code, count)
        return np.sqrt(count / (count - 1) * (by_unit**2).sum(axis=0)) / parts.shape[1]

    moved = count < 2 or abs(whole) > Z95 * float(error(parts.sum(axis=0, keepdims=True) - whole)[0])
    if whole == 0 or not moved:
        return mean, none, none, np.asarray(count)
    share = mean / whole
    found = none if count < 2 else error((parts - share[:, None] * parts.sum(axis=0)) / whole)
    return mean, share, found, np.asarray(count)


def _means(parts: Float[np.ndarray, "r n"], group: Int[np.ndarray, " n"]) -> Float[np.ndarray, "r g"]:
    return np.stack([parts[:, group == code].mean(axis=1) for code in range(int(group.max()) + 1)], axis=1)


def _whole(margin: Float[np.ndarray, "r g"]) -> Float[np.ndarray, " g"]:
    """Sums over rows; NaN for 0."""
    whole = margin.sum(axis=0)
    return np.where(whole == 0, math.nan, whole)


def _between(shares: list[Float[np.ndarray, "r g"]]) -> tuple[Float[np.ndarray, " r"], int]:
    """Standard deviation between runs of groups' distances from the mean over groups, pooled, and its freedom."""
    runs = np.stack(shares)
    known = np.isfinite(runs).all(axis=(0, 1))
    freedom = (len(runs) - 1) * (int(known.sum()) - 1)
    if freedom < 1:
        return np.full(runs.shape[1], math.nan), 0
    off = runs[:, :, known] - runs[:, :, known].mean(axis=2, keepdims=True)
    return np.sqrt(off.var(axis=0, ddof=1).mean(axis=1)), freedom


def _told(
    share: Float[np.ndarray, "r g"],
    error: Float[np.ndarray, "r g"],
    between: Float[np.ndarray, " r"],
    units: Float[np.ndarray, " g"],
    freedom: int,
) -> Bool[np.ndarray, "r g"]:
    """Student's test of each cell against the mean over groups, as many times as there are cells (Bonferroni)."""
    found = np.zeros(share.shape, dtype=bool)
    known = np.isfinite(error).all(axis=0)
    count = int(known.sum())
    if not freedom or count < 2:
        return found
    off = share[:, known] - share[:, known].mean(axis=1, keepdims=True)
    squared = error[:, known] ** 2
    of_units = (1 - 2 / count) * squared + squared.sum(axis=1, keepdims=True) / count**2
    of_seeds = np.broadcast_to(between[:, None] ** 2, off.shape)
    whole = of_units + of_seeds
    with np.errstate(divide="ignore", invalid="ignore"):
        free = whole**2 / (of_units**2 / (units[known] - 1) + of_seeds**2 / freedom)  # Welch and Satterthwaite
        found[:, known] = np.abs(off) > student.ppf(1 - _LEVEL / (2 * off.size), free) * np.sqrt(whole)
    return found
