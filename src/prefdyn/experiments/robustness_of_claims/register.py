r"""Errors of the sources that need no run: signs, units, a tail's exponent, and two words that a summary adds.

They are judged on the states of the pairs trained on, at weights drawn by lot.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf

from prefdyn._random import stream
from prefdyn.dynamics.order import spearman
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.judging import Judged, Measured, above
from prefdyn.experiments.robustness_of_claims.settings import FIGURE, REFERENCE, Feats
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.sides import sides, trained_rows
from prefdyn.maths.geometry import mean_gap
from prefdyn.theory.learning_dynamics import constants, descent_direction, smallest_variance_exponent

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


def of_states(feats: Feats, names: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """All of it, over behaviours and seeds, on the model and, for the order by KL divergence, on its twin."""
    found: dict[str, Any] = {"as printed": [], "turned": [], "over the chord": [], "unit": [], "tail": []}
    for seed in seeds:
        for name in names:
            states, signs = _trained(feats, MODEL, seed, name)
            rng = stream(seed, "robustness-of-claims", "register", name)
            printed, turned = against_differences(states, signs, rng)
            found["as printed"].append(printed)
            found["turned"].append(turned)
            found["over the chord"].append(over_the_chord(states, signs, rng))
            found["unit"].append(tail_exponent(_SCALE * states, signs) / tail_exponent(states, signs))
            c = constants(states, signs > 0)
            found["tail"].append(_HEAVY * (c.exponent + smallest_variance_exponent(c.width) - 0.25))
    found["order by divergence"] = {
        source: [
            spearman(*zip(*(_apart(*_trained(feats, source, seed, name)) for name in names), strict=True))
            for seed in seeds
        ]
        for source in (MODEL, TWIN)
    }
    return found


def _trained(feats: Feats, source: str, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """States of the pairs trained on, and +1 where the first answer is chosen, −1 where the second is."""
    mine = feats[source, seed]
    states, positive = sides(mine, trained_rows(mine, name))
    return states, np.where(positive, 1.0, -1.0)


def _loss(states: np.ndarray, signs: np.ndarray, boundary: np.ndarray, beta: float) -> float:
    """DPO's loss where the first answer's row less the second's has moved by `boundary`."""
    return float(np.mean(np.logaddexp(0.0, -beta * signs * (states @ boundary))))


def _weights(states: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """A change of the first answer's row by lot, as large as gives margins of about one."""
    drawn = rng.standard_normal(states.shape[1])
    return drawn / (2 * beta * float(np.std(states @ drawn)))


def against_differences(states: np.ndarray, signs: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Largest distance of Eq. 11, as printed and with its sign turned, from central differences of the loss.

    Along directions by lot, at weights by lot; over the largest of the differences.

    Reference:
        2403.18742, Eqs. 9 to 11; THEORY 1.2 (X-1).
    """
    beta, _ = REFERENCE
    weights = _weights(states, beta, rng)
    printed = descent_direction(states, signs, weights, beta=beta)
    size = _STEP * float(np.linalg.norm(weights))
    along = rng.standard_normal((_DIRECTIONS, len(weights)))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    slopes = np.array(
        [
            (
                _loss(states, signs, 2 * weights + size * way, beta)
                - _loss(states, signs, 2 * weights - size * way, beta)
            )
            / (2 * size)
            for way in along
        ]
    )
    said, largest = along @ printed, np.abs(slopes).max()
    return float(np.abs(said - slopes).max() / largest), float(np.abs(said + slopes).max() / largest)


def over_the_chord(states: np.ndarray, signs: np.ndarray, rng: np.random.Generator) -> float:
    """How far the loss half-way between two weights is above the mean of their losses, the largest of some pairs."""
    beta, _ = REFERENCE
    found = []
    for _ in range(_DIRECTIONS):
        one, two = (2 * _weights(states, beta, rng) for _ in range(2))
        middle = _loss(states, signs, (one + two) / 2, beta)
        found.append(middle - (_loss(states, signs, one, beta) + _loss(states, signs, two, beta)) / 2)
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


def _judge_gradient(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["register"]
    printed, turned = max(found["as printed"]), max(found["turned"])
    return Judged(
        holds=printed < _AGREES,
        measured=f"as printed it is off by {printed:.3g} of the largest slope, with its sign turned by {turned:.1g}",
        because="it is the direction of descent, minus the gradient" if turned < _AGREES else "neither sign agrees",
        evidence={"as_printed": printed, "sign_turned": turned},
    )


def _judge_unit(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    ratios = measured["register"]["unit"]
    low, high = min(ratios), max(ratios)
    return Judged(
        holds=abs(low - 1) < _AGREES and abs(high - 1) < _AGREES,
        measured=f"states times {_SCALE:g} multiply the exponent by {low:.3g} to {high:.3g}",
        because=f"it goes with the unit to the power alpha − 2, here {_HEAVY - 2:g}",
        evidence={"ratios": ratios},
    )


def _judge_tail(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["register"]["tail"]
    low, high = min(found), max(found)
    asked = _HEAVY / 4
    return Judged(
        holds=asked - _EXPONENT < low and high < asked + _EXPONENT,
        measured=f"exponent {low:.3g} to {high:.3g}, printed {asked:g}",
        because="alpha (Delta + v − 1/4) is alpha/4 at v = 1/2 − Delta only",
        evidence={"exponents": found},
    )


def _judge_convex(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    most = max(measured["register"]["over the chord"])
    return Judged(
        holds=most <= _CONVEX,
        measured=f"half-way at most {most:.2g} nats over the mean of the ends",
        because="below 0 at every pair of weights"
        if most < 0
        else "above it somewhere"
        if most > _CONVEX
        else "never above",
        evidence={"most": most},
    )


def _judge_divergence(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    orders = measured["register"]["order by divergence"]
    return above(Measured(model=orders[MODEL], twin=orders[TWIN]), _ORDER, what="rank correlation", least=-1, most=1)


CLAIMS = (
    Claim(
        id=f"{FIGURE}-gradient",
        kind="algebra",
        figure=FIGURE,
        place="Equations 9 to 11, source error X-1",
        statement="Equations 9 to 11 are the gradient of the loss.",
        said=f"Central differences of the loss along {_DIRECTIONS} directions by lot, at weights by lot with margins "
        f"of about one: holds where the printed form is within {_AGREES:g} of the largest slope, over behaviours and "
        "seeds.",
        code=_judge_gradient,
        paper_value="printed as the gradient",
    ),
    Claim(
        id=f"{FIGURE}-unit",
        kind="algebra",
        figure=FIGURE,
        place="Equation 12, source error X-3",
        statement="For features with heavier tails (alpha = 1) the failure probability does not hang on their unit.",
        said=f"The exponent of the mean's tail, in measured quantities, with all states times {_SCALE:g} over that "
        f"without: holds where it is within {_AGREES:g} of 1 for every behaviour and seed.",
        code=_judge_unit,
    ),
    Claim(
        id=f"{FIGURE}-tail",
        kind="algebra",
        figure=FIGURE,
        place="Theorem 4.2, source error X-23",
        statement="The tail of the norms in Theorem 4.2 has the exponent alpha/4 of d, as in Theorem 4.1.",
        said="alpha (Delta + v − 1/4), which the same argument gives, with measured Delta, the least v that the "
        f"theorem allows and alpha = 1: holds where it is within {_EXPONENT:g} of 1/4 for every behaviour and seed.",
        code=_judge_tail,
        paper_value="alpha/4",
    ),
    Claim(
        id=f"{FIGURE}-convex",
        kind="algebra",
        figure=FIGURE,
        place="Summary of the paper, source error X-17 (the paper does not say it)",
        statement="The loss is convex in the weights of the last layer.",
        said=f"{_DIRECTIONS} pairs of weights by lot with margins of about one: holds where the loss half-way is never "
        f"above the mean of the ends by more than {_CONVEX:g}, over behaviours and seeds.",
        code=_judge_convex,
        paper_value="“convex loss landscapes” in the summary",
    ),
    Claim(
        id=f"{FIGURE}-divergence",
        kind="ours",
        figure=FIGURE,
        place="Summary of the paper, source error X-17 (the paper does not say it)",
        statement="Distinguishability can be checked by the KL divergence between the two distributions.",
        said="Rank correlation, over behaviours, of the distance of the class means with the KL divergence of "
        "Gaussians of one shrunken covariance: holds where the lower end of its 95 % interval over seeds is above "
        f"{_ORDER:g}.",
        code=_judge_divergence,
        paper_value="“by computing KL divergence” in the summary",
    ),
)
