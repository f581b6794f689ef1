r"""Errors of the sources that need no run: signs, units, a tail's exponent, and two words that a summary adds.

They are judged on the states of the pairs trained on, at weights drawn by lot.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf

from prefdyn._random import stream
from prefdyn.experiments.claims import Claim, every, greatest, rank
from prefdyn.experiments.context import MODEL, SOURCES
from prefdyn.experiments.robustness_of_claims.settings import FIGURE, REFERENCE, Feats
from prefdyn.experiments.rows import Row
from prefdyn.experiments.sides import sides, trained_rows
from prefdyn.maths.geometry import mean_gap
from prefdyn.theory.learning_dynamics import constants, descent_direction, smallest_variance_exponent

_BETA, _ = REFERENCE
_DIRECTIONS = 8
_STEP = 1e-5
"""Of central differences, in units of the length of the weights."""
_AGREES = 1e-6
_CONVEX = 1e-12
_SCALE = 2.0
"""By which all states are multiplied, to see what hangs on their unit."""
_HEAVY = 1.0
"""Tail exponent alpha of the theorem's heavier case; 2 is the Gaussian one."""
_EXPONENT = 0.01
"""How far the exponent of the norm's tail may be from alpha/4."""
_ORDER = 0.9
"""Rank correlation from which on two measures order behaviours alike."""


# what is measured ----------------------------------------------------------------------------------------------------


def of_states(feats: Feats, names: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """All of it, over behaviours and seeds, on the model and, for the order by KL divergence, on its twin."""
    rows: list[Row] = []
    for source, seed, name in itertools.product(SOURCES, seeds, names):
        states, signs = _trained(feats, source, seed, name)
        far, divergence = _apart(states, signs)
        found = {"distinguishability": far, "divergence": divergence}
        if source == MODEL:
            rng = stream(seed, "robustness-of-claims", "register", name)
            found["as printed"], found["turned"] = against_differences(states, signs, rng)
            found["over the chord"] = over_the_chord(states, signs, rng)
            found["unit"] = tail_exponent(_SCALE * states, signs) / tail_exponent(states, signs)
            c = constants(states, signs > 0)
            found["tail"] = _HEAVY * (c.exponent + smallest_variance_exponent(c.width) - 0.25)
        place = {"figure": FIGURE, "source": source, "seed": seed, "group": name}
        rows += (Row(quantity=quantity, value=value, **place) for quantity, value in found.items())
    return rows


def facts(rows: Sequence[Row]) -> dict[str, Any]:
    """What is told besides."""
    turned = max(row.value for row in rows if row.quantity == "turned")
    return {
        "sign_turned": turned,
        "which": "it is the direction of descent, minus the gradient" if turned < _AGREES else "neither sign agrees",
    }


def _trained(feats: Feats, source: str, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """States of the pairs trained on, and +1 where the first answer is chosen, −1 where the second is."""
    mine = feats[source, seed]
    states, positive = sides(mine, trained_rows(mine, name))
    return states, np.where(positive, 1.0, -1.0)


def _loss(states: np.ndarray, signs: np.ndarray, boundary: np.ndarray) -> float:
    """DPO's loss where the first answer's row less the second's has moved by `boundary`."""
    return float(np.mean(np.logaddexp(0.0, -_BETA * signs * (states @ boundary))))


def _weights(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A change of the first answer's row by lot, as large as gives margins of about one."""
    drawn = rng.standard_normal(states.shape[1])
    return drawn / (2 * _BETA * float(np.std(states @ drawn)))


def against_differences(states: np.ndarray, signs: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Largest distance of Eq. 11, as printed and with its sign turned, from central differences of the loss.

    Along directions by lot, at weights by lot; over the largest of the differences.

    Reference:
        2403.18742, Eqs. 9 to 11; THEORY 1.2 (X-1).
    """
    weights = _weights(states, rng)
    printed = descent_direction(states, signs, weights, beta=_BETA)
    size = _STEP * float(np.linalg.norm(weights))
    along = rng.standard_normal((_DIRECTIONS, len(weights)))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    slopes = np.array(
        [
            (_loss(states, signs, 2 * weights + size * way) - _loss(states, signs, 2 * weights - size * way))
            / (2 * size)
            for way in along
        ]
    )
    said, largest = along @ printed, np.abs(slopes).max()
    return float(np.abs(said - slopes).max() / largest), float(np.abs(said + slopes).max() / largest)


def over_the_chord(states: np.ndarray, signs: np.ndarray, rng: np.random.Generator) -> float:
    """How far the loss half-way between two weights is above the mean of their losses, the largest of some pairs."""
    found = []
    for _ in range(_DIRECTIONS):
        one, two = (2 * _weights(states, rng) for _ in range(2))
        middle = _loss(states, signs, (one + two) / 2)
        found.append(middle - (_loss(states, signs, one) + _loss(states, signs, two)) / 2)
    return max(found)


def tail_exponent(states: np.ndarray, signs: np.ndarray) -> float:
    r"""$n D^\alpha / (4 \lVert \Sigma \rVert_{op})$: the exponent of the mean's tail in Theorem 4.1, for alpha = 1.

    Reference:
        2403.18742, Theorem 4.1 and Eq. 12; THEORY 2.2 (X-3).
    """
    c = constants(states, signs > 0)
    return c.n * c.gap**_HEAVY / (4 * c.op_norm)


def _apart(states: np.ndarray, signs: np.ndarray) -> tuple[float, float]:
    """Distinguishability, and the KL divergence of two Gaussians with the classes' common covariance (Ledoit-Wolf)."""
    positive = signs > 0
    gap = mean_gap(states, positive)
    centred = states - np.where(positive[:, None], states[positive].mean(axis=0), states[~positive].mean(axis=0))
    covariance = ledoit_wolf(centred, assume_centered=True)[0]
    return float(np.linalg.norm(gap)), float(gap @ np.linalg.solve(covariance, gap)) / 2


# claims --------------------------------------------------------------------------------------------------------------


_COMMON: dict[str, Any] = {"figure": FIGURE, "kind": "algebra", "twin": "", "evidence": "worst"}

CLAIMS = (
    Claim(
        id=f"{FIGURE}-gradient",
        place="Equations 9 to 11, source error X-1",
        statement="Equations 9 to 11 are the gradient of the loss.",
        setting=f"Central differences along {_DIRECTIONS} directions by lot, weights by lot with margins of about one",
        statistic=greatest("as printed"),
        test="at most",
        threshold=_AGREES,
        told="as printed it is off by {0:.3g} of the largest slope, with its sign turned by {sign_turned:.1g}",
        because="{which}",
        facts=("sign_turned",),
        paper_value="printed as the gradient",
        **{**_COMMON, "evidence": "as_printed"},
    ),
    Claim(
        id=f"{FIGURE}-unit",
        place="Equation 12, source error X-3",
        statement="For features with heavier tails (alpha = 1) the failure probability does not hang on their unit.",
        statistic=every("unit"),
        test="between",
        threshold=(1 - _AGREES, 1 + _AGREES),
        told=f"states times {_SCALE:g} multiply the exponent by {{1:.3g}} to {{0:.3g}}",
        because=f"it goes with the unit to the power alpha − 2, here {_HEAVY - 2:g}",
        **_COMMON,
    ),
    Claim(
        id=f"{FIGURE}-tail",
        place="Theorem 4.2, source error X-23",
        statement="The tail of the norms in Theorem 4.2 has the exponent alpha/4 of d, as in Theorem 4.1.",
        statistic=every("tail"),
        test="between",
        threshold=(_HEAVY / 4 - _EXPONENT, _HEAVY / 4 + _EXPONENT),
        told=f"exponent {{1:.3g}} to {{0:.3g}}, printed {_HEAVY / 4:g}",
        because="alpha (Delta + v − 1/4) is alpha/4 at v = 1/2 − Delta only",
        paper_value="alpha/4",
        **{**_COMMON, "kind": "replication"},  # data with another Delta could change it
    ),
    Claim(
        id=f"{FIGURE}-convex",
        place="Summary of the paper, source error X-17 (the paper does not say it)",
        statement="The loss is convex in the weights of the last layer.",
        setting=f"{_DIRECTIONS} pairs of weights by lot with margins of about one",
        statistic=greatest("over the chord"),
        test="at most",
        threshold=_CONVEX,
        told="half-way at most {0:.2g} nats over the mean of the ends",
        because="over behaviours and seeds, at most {0:g}",
        paper_value="“convex loss landscapes” in the summary",
        **{**_COMMON, "evidence": "most"},
    ),
    Claim(
        id=f"{FIGURE}-divergence",
        kind="ours",
        figure=FIGURE,
        place="Summary of the paper, source error X-17 (the paper does not say it)",
        statement="Distinguishability can be checked by the KL divergence between the two distributions.",
        statistic=rank("distinguishability", "divergence"),
        threshold=_ORDER,
        twin="statistic",
        note="The divergence is that of Gaussians of one shrunken covariance.",
        paper_value="“by computing KL divergence” in the summary",
    ),
)
