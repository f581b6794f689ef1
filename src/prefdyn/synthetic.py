"""FeatureSets drawn from the papers' own models, where every answer is known beforehand."""

from collections.abc import Sequence

import numpy as np

from prefdyn._checks import at_least, positive
from prefdyn._random import stream
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance


def gaussian_groups(
    pairs: int | Sequence[int],
    *,
    groups: int,
    width: int,
    noise: float = 1.0,
    half_gap: float | Sequence[float] = 1.0,
    shared_norm: float = 0.0,
    directions: np.ndarray | None = None,
    held_out: float = 0.1,
    seed: int = 0,
) -> FeatureSet:
    r"""K pairs of Gaussian clusters with shared answers "Yes" and "No": $g \sim N(s\, h_i c_i + b,\ v^2 I)$.

    Args:
        pairs: Pairs per group (half of them "Yes"), one number or one per group.
        groups: Number K of groups.
        width: Width d of the features; with default directions at least K + 1.
        noise: Standard deviation $v$ of every coordinate, above 0.
        half_gap: $h_i$: half the distance between the class means of a group, one number or one per group.
        shared_norm: Norm $l_b$ of the offset $b$ that all groups share.
        directions: (K, d) directions $c_i$; without it, orthonormal and orthogonal to $b$.
        held_out: Share of each group to hold out, drawn by the seed.
        seed: Of the noise and the split.

    Raises:
        DataError: The width is too small for orthogonal directions, or `directions` has another shape.

    Reference:
        2408.03459, section 3 (data model, there with $h_i = 1$); THEORY 3.1.

    Example:
        >>> feats = gaussian_groups(40, groups=2, width=8)
        >>> feats
        FeatureSet(answers, 80 pairs, 2 groups, width 8)
        >>> int(feats.held_out.sum())
        8
    """
    groups, width = at_least(groups, 1, name="groups"), at_least(width, 1, name="width")
    positive(noise, name="noise")
    sizes = np.broadcast_to(np.asarray(pairs), groups)
    gaps = np.broadcast_to(np.asarray(half_gap, dtype=float), groups)
    if directions is None:
        if width < groups + 1:
            raise DataError(
                f"width {width} holds no {groups} directions orthogonal to each other and to the offset; "
                f"give at least {groups + 1}"
            )
        directions = np.eye(groups, width, k=1)
    if directions.shape != (groups, width):
        raise DataError(f"directions has shape {directions.shape}, but must be ({groups}, {width})")
    offset = shared_norm * np.eye(1, width)[0]
    rng, split = stream(seed, "synthetic", "noise"), stream(seed, "synthetic", "split")
    states, signs, codes, kept = [], [], [], []
    for code in range(groups):
        sign = np.where(np.arange(sizes[code]) % 2 == 0, 1.0, -1.0)
        clean = sign[:, None] * gaps[code] * directions[code] + offset
        states.append(clean + noise * rng.normal(size=clean.shape))
        signs.append(sign)
        codes.append(np.full(sizes[code], code))
        out = np.zeros(sizes[code], dtype=bool)
        out[split.permutation(sizes[code])[: round(held_out * sizes[code])]] = True
        kept.append(out)
    answer = np.where(np.concatenate(signs) > 0, "Yes", "No")
    return FeatureSet.from_arrays(
        np.concatenate(states),
        chosen=answer,
        rejected=np.where(answer == "Yes", "No", "Yes"),
        tokens=["Yes", "No"],
        group=[f"group {code}" for code in np.concatenate(codes)],
        held_out=np.concatenate(kept),
        provenance=Provenance(data={"name": "synthetic Gaussian groups"}, seed=seed),
    )
