"""FeatureSets drawn from the papers' own models, where every answer is known beforehand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prefdyn._checks import at_least, one_of, positive
from prefdyn._random import stream
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance

PATTERNS = ("shared", "distinct", "common", "ring")
"""How groups may share their two answers; see `gaussian_groups`."""

PSI_NORMS: dict[str, tuple[float, float]] = {
    "gaussian": (1.3724949919103484, math.sqrt(8 / 3)),
    "laplace": (math.sqrt(2), math.inf),
    "uniform": (1.3785480619, 1.3383691554),
    "rademacher": (1 / math.log(2), 1 / math.sqrt(math.log(2))),
    "student": (math.inf, math.inf),
}
r"""$\psi_1$ and $\psi_2$ norm of each family at unit variance (THEORY 1.7). `student`, with 5 degrees of freedom, has
neither: it is the counter-case, outside what 2403.18742 assumes."""


# groups of Gaussian clusters ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    r"""How the noise of neighbouring rows of one class hangs together. The law of each single row is unchanged.

    `blocks`: rows come in blocks of `size`, and any two of a block have the correlation $\rho$ in every coordinate;
    with $\rho = 1$ they are copies. `chain`: each row carries on from the last, $z_t = \rho z_{t-1} +
    \sqrt{1-\rho^2}\,\epsilon_t$, AR(1).

    Reference:
        THEORY 5 (non-iid row); how many independent rows they are worth: `prefdyn.maths.geometry.effective_size`.

    Example:
        >>> noise = Dependence(size=2, correlation=1.0).noise(4, 1, stream(0, "example"))
        >>> bool(noise[0] == noise[1]), bool(noise[1] == noise[2])
        (True, False)
    """

    kind: str = "blocks"
    """`blocks` or `chain`."""
    size: int = 1
    """Rows in a block; the last one may be smaller. A chain has none."""
    correlation: float = 0.0
    """0 to 1."""

    def __post_init__(self) -> None:
        one_of(self.kind, ("blocks", "chain"), name="kind")
        at_least(self.size, 1, name="size")
        if not 0 <= self.correlation <= 1:
            raise ConfigError(f"correlation is {self.correlation!r}, but must lie between 0 and 1")

    def noise(self, rows: int, width: int, rng: np.random.Generator) -> Float[np.ndarray, "rows width"]:
        """Standard normal rows with this dependence."""
        own = rng.normal(size=(rows, width))
        shared, fresh = self.correlation, math.sqrt(1 - self.correlation**2)
        if self.kind == "chain":
            for row in range(1, rows):
                own[row] = shared * own[row - 1] + fresh * own[row]
            return own
        blocks = rng.normal(size=(-(-rows // self.size), width)).repeat(self.size, axis=0)[:rows]
        return math.sqrt(shared) * blocks + math.sqrt(1 - shared) * own


def gaussian_groups(
    pairs: int | Sequence[int],
    *,
    groups: int,
    width: int,
    noise: float = 1.0,
    half_gap: float | Sequence[float] = 1.0,
    shared_norm: float = 0.0,
    tokens: str | Sequence[tuple[str, str]] = "shared",
    directions: np.ndarray | None = None,
    dependence: Dependence | None = None,
    held_out: float = 0.1,
    seed: int = 0,
) -> FeatureSet:
    r"""K pairs of Gaussian clusters, $g \sim N(s\, h_i c_i + b,\ v^2 I)$: the model of 2408.03459 for $h_i = 1$.

    Each group has two answers; $s = 1$ prefers the first, $s = -1$ the second.

    Args:
        pairs: Pairs per group, one number or one per group. Half of them, the odd one more, have $s = 1$: for Q
            samples per cluster give 2Q.
        groups: Number K of groups.
        width: Width d of the features; with default directions at least K + 1.
        noise: Standard deviation $v$ of every coordinate, above 0.
        half_gap: $h_i$: half the distance between the class means of a group, one number or one per group.
        shared_norm: Norm $l_b$ of the offset $b$ that all groups share, along the first coordinate.
        tokens: The two answers of each group: "shared": Yes and No in all; "distinct": two of its own; "common": one
            of its own, and one that all groups share; "ring": one shared with the group before, one with the group
            after. Or the answers themselves.
        directions: (K, d) directions $c_i$; without it, orthonormal and orthogonal to $b$.
        dependence: How the noise of the rows of one class hangs together; without it, rows are independent. Copies
            share their prompt.
        held_out: Share of each group to hold out, drawn by the seed.
        seed: Of the noise and the split.

    Raises:
        DataError: The width is too small for orthogonal directions, or `directions` has another shape.
        ConfigError: A ring of fewer than three groups, or answers that are not two different ones per group.

    Reference:
        2408.03459, section 3 (data model, there with $h_i = 1$); THEORY 3.1.

    Example:
        >>> feats = gaussian_groups(40, groups=2, width=8)
        >>> feats
        FeatureSet(answers, 80 pairs, 2 groups, width 8)
        >>> int(feats.held_out.sum())
        8
        >>> gaussian_groups(2, groups=3, width=4, tokens="ring").tokens
        ('t0', 't1', 't2')
    """
    groups, width = at_least(groups, 1, name="groups"), at_least(width, 1, name="width")
    positive(noise, name="noise")
    answers = answer_pairs(tokens, groups)
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
    states, chosen, rejected, text, kept = [], [], [], [], []
    for code in range(groups):
        size, (first, second) = int(sizes[code]), answers[code]
        sign = np.where(np.arange(size) % 2 == 0, 1.0, -1.0)
        clean = sign[:, None] * gaps[code] * directions[code] + offset
        states.append(clean + noise * _draws(size, width, dependence, rng))
        chosen += [first if s > 0 else second for s in sign]
        rejected += [second if s > 0 else first for s in sign]
        out = np.zeros(size, dtype=bool)
        out[split.permutation(size)[: round(held_out * size)]] = True
        kept.append(out)
        text.append(_texts(size, dependence) + sum(map(len, text)))
    return FeatureSet.from_arrays(
        np.concatenate(states),
        chosen=chosen,
        rejected=rejected,
        tokens=list(dict.fromkeys(token for pair in answers for token in pair)),
        group=[f"group {code}" for code in np.repeat(np.arange(groups), sizes)],
        held_out=np.concatenate(kept),
        text=np.concatenate(text),
        provenance=Provenance(data={"name": "synthetic Gaussian groups"}, seed=seed),
    )


def answer_pairs(tokens: str | Sequence[tuple[str, str]], groups: int) -> list[tuple[str, str]]:
    """The two answers of each group, for a pattern by name or as given.

    Example:
        >>> answer_pairs("common", 2)
        [('common', 'own 0'), ('common', 'own 1')]
    """
    if not isinstance(tokens, str):
        given = [tuple(pair) for pair in tokens]
        if len(given) != groups or any(len(set(pair)) != 2 or len(pair) != 2 for pair in given):
            raise ConfigError(f"tokens is {given!r}, but must hold two different answers for each of {groups} groups")
        return [(str(first), str(second)) for first, second in given]
    match one_of(tokens, PATTERNS, name="tokens"):
        case "distinct":
            return [(f"+{code}", f"-{code}") for code in range(groups)]
        case "common":
            return [("common", f"own {code}") for code in range(groups)]
        case "ring":
            if groups < 3:
                raise ConfigError(f"a ring of tokens needs at least 3 groups, but groups is {groups}; use 'distinct'")
            return [(f"t{code}", f"t{(code + 1) % groups}") for code in range(groups)]
        case _:
            return [("Yes", "No")] * groups


def _draws(size: int, width: int, dependence: Dependence | None, rng: np.random.Generator) -> np.ndarray:
    if dependence is None:
        return rng.normal(size=(size, width))
    noise = np.empty((size, width))
    for start in (0, 1):  # the two classes take turns
        noise[start::2] = dependence.noise(len(noise[start::2]), width, rng)
    return noise


def _texts(size: int, dependence: Dependence | None) -> np.ndarray:
    rows = np.arange(size)
    if dependence is None or dependence.kind != "blocks" or dependence.correlation < 1:
        return rows
    return rows % 2 + 2 * (rows // (2 * dependence.size))


def almost_orthogonal_directions(
    values: int, width: int, delta: float, *, worst: bool = False, seed: int = 0
) -> Float[np.ndarray, "values width"]:
    r"""Unit directions $c_i$ with $c_i \cdot e_i = 1 - \delta^2/8$ exactly, for `gaussian_groups(directions=…)`.

    The $e_i$ are the second to the (K+1)-th coordinate, and the first, along which the shared offset lies, stays 0.

    Args:
        values: K.
        width: d, at least K + 1, and 3.
        delta: From 0 to below 1/2, as the definition has it.
        worst: Every two neighbours lean towards each other, which gives the largest $c_i \cdot c_j$ there can be.
            Else each leans in a random direction.
        seed: Of the directions in which they lean.

    Raises:
        ConfigError: delta or a count is out of range.
        DataError: The width is too small.

    Reference:
        2408.03459, Definition C.1; THEORY 3.9.

    Example:
        >>> c = almost_orthogonal_directions(2, 8, 0.4, worst=True)
        >>> round(float(c[0] @ c[1]), 6), round(float(c[0, 1]), 6)
        (0.390035, 0.98)
    """
    values, width = at_least(values, 1, name="values"), at_least(width, 1, name="width")
    if not 0 <= delta < 0.5:
        raise ConfigError(f"delta is {delta!r}, but must be at least 0 and below 1/2")
    if width < max(values + 1, 3):
        raise DataError(f"width {width} holds no {values} leaning directions and an offset; give {max(values + 1, 3)}")
    along = 1 - delta**2 / 8
    axes = np.eye(values, width, k=1)
    lean = stream(seed, "synthetic", "directions").normal(size=(values, width))
    lean[:, 0] = 0.0
    lean[np.arange(values), np.arange(values) + 1] = 0.0
    if worst:
        for first in range(0, values - 1, 2):
            lean[[first, first + 1]] = axes[[first + 1, first]]
    lean /= np.linalg.norm(lean, axis=1, keepdims=True)
    return along * axes + delta / 2 * math.sqrt(1 - delta**2 / 16) * lean  # 1 - along² loses a small delta


# two classes with known tails ---------------------------------------------------------------------------------------


def subexponential_classes(
    per_class: int,
    *,
    width: int,
    gap: float,
    family: str = "gaussian",
    scale: float = 1.0,
    shared_norm: float = 0.0,
    held_out: float = 0.0,
    seed: int = 0,
) -> FeatureSet:
    r"""Two classes $g = \mu_\pm + s\,z$ whose coordinates $z$ are independent, of variance 1, with a known $\psi$-norm.

    $\mu_+ - \mu_- = D\,(1, \dots, 1)/\sqrt d$, so that no coordinate is special; $K$ of 2403.18742 is the norm in
    `PSI_NORMS`.

    Args:
        per_class: Pairs in each class.
        width: d.
        gap: $D = \lVert \mu_+ - \mu_- \rVert$, 0 or above.
        family: Law of the coordinates: one of `PSI_NORMS`. `student` (5 degrees of freedom) has no norm at all.
        scale: Standard deviation s of every coordinate, above 0.
        shared_norm: Length of the mean of both classes, at right angles to the gap.
        held_out: Share of each class to hold out, drawn by the seed.
        seed: Of the coordinates and the split.

    Raises:
        ConfigError: A setting is out of range, or the family is unknown.

    Reference:
        2403.18742, section 4 (data model); THEORY 1.7.

    Example:
        >>> feats = subexponential_classes(3, width=4, gap=2.0, family="rademacher", scale=0.5)
        >>> np.unique(feats.states).tolist()  # ±1/2 ± 1/2
        [-1.0, 0.0, 1.0]
    """
    per_class, width = at_least(per_class, 1, name="per_class"), at_least(width, 1, name="width")
    one_of(family, PSI_NORMS, name="family")
    positive(scale, name="scale")
    for name, value in (("gap", gap), ("shared_norm", shared_norm)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} is {value!r}, but must be a finite number, 0 or above")
    if shared_norm:
        at_least(width, 2, name="width")
    n = 2 * per_class
    rng = stream(seed, "synthetic", "classes", family)
    sign = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    states = sign[:, None] * np.full(width, gap / 2 / math.sqrt(width)) + scale * _coordinates(family, (n, width), rng)
    if shared_norm:
        centre = np.zeros(width)
        centre[:2] = shared_norm / math.sqrt(2), -shared_norm / math.sqrt(2)
        states += centre
    out = np.zeros(n, dtype=bool)
    split = stream(seed, "synthetic", "split")
    for first in (0, 1):
        rows = split.permutation(per_class)[: round(held_out * per_class)]
        out[2 * rows + first] = True
    answer = np.where(sign > 0, "Yes", "No")
    return FeatureSet.from_arrays(
        states,
        chosen=answer,
        rejected=np.where(sign > 0, "No", "Yes"),
        tokens=["Yes", "No"],
        held_out=out,
        provenance=Provenance(
            data={"name": f"synthetic {family} classes", "psi_1": PSI_NORMS[family][0], "psi_2": PSI_NORMS[family][1]},
            seed=seed,
        ),
    )


def _coordinates(family: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    match family:
        case "gaussian":
            return rng.normal(size=shape)
        case "laplace":
            return rng.laplace(scale=1 / math.sqrt(2), size=shape)
        case "uniform":
            return rng.uniform(-math.sqrt(3), math.sqrt(3), size=shape)
        case "rademacher":
            return rng.choice([-1.0, 1.0], size=shape)
        case _:
            return rng.standard_t(5, size=shape) * math.sqrt(3 / 5)
