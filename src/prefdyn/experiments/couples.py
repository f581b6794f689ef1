r"""Two behaviours trained at once: which has priority, how far it leads, and what the first step gives each.

With $b_i = \frac2n \sum s g$ over the training pairs of behaviour i and $\bar b$ the mean of both, weighted by their
pairs, the first full-batch step improves reward margins by $\frac{\eta\beta^2}{4}\,\bar b \cdot b_i$ on average, and
logits by $\frac{\eta\beta}{4}\,\bar b \cdot b_i$ (THEORY 1.2 and 2.6).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prefdyn._random import stream
from prefdyn.diagnostics.prioritization import prioritization
from prefdyn.errors import DataError
from prefdyn.experiments.falls import PHASES, falls
from prefdyn.experiments.sides import trained_rows
from prefdyn.experiments.statistics import at_step
from prefdyn.features import FeatureSet
from prefdyn.theory.learning_dynamics import first_step_logits, first_step_margins
from prefdyn.trajectory import Trajectory

Couple = tuple[str, str]
"""Names of two behaviours."""
MANY = 100
"""Couples drawn by lot."""


def drawn(names: Sequence[str], seed: int) -> tuple[Couple, ...]:
    """Couples drawn by lot without replacement; all where there are no more than `MANY`.

    Example:
        >>> drawn(["a", "b", "c"], 0)
        (('a', 'b'), ('a', 'c'), ('b', 'c'))
    """
    every = list(itertools.combinations(names, 2))
    order = stream(seed, "prioritization", "couples").permutation(len(every))[:MANY]
    return tuple(every[place] for place in sorted(order.tolist()))


def gaps_of(feats: FeatureSet, couples: Sequence[Couple]) -> dict[Couple, float]:
    """Priority level of the first behaviour less that of the second, where only these two are trained."""
    found = prioritization(feats)
    place = {name: code for code, name in enumerate(found.groups)}
    return {couple: float(found.gap[place[couple[0]], place[couple[1]]]) for couple in couples}


def higher_first(couple: Couple, gap: float) -> Couple:
    """The same two, the one of higher priority first.

    Example:
        >>> higher_first(("a", "b"), -0.5)
        ('b', 'a')
    """
    return couple if gap >= 0 else (couple[1], couple[0])


def lead(run: Trajectory, couple: Couple) -> dict[str, float]:
    """How much further the first one's training loss has fallen than the second's, nats, in each of `PHASES`.

    `fall` is how far the two have fallen over the whole run, on average.
    """
    first, second = (falls(*run.curve("loss", group=name)) for name in couple)
    return {phase: first[phase] - second[phase] for phase in PHASES} | {"fall": (first["area"] + second["area"]) / 2}


def held_out_accuracy(run: Trajectory) -> float:
    """Reward accuracy on held-out pairs at the end, mean over the behaviours of a joint run."""
    return float(np.mean([run.final("reward_accuracy", group=name, split="held_out") for name in run.groups]))


# the first step ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """What the training pairs of a behaviour pull at."""

    vector: Float[np.ndarray, " d"]
    r"""$b = \frac2n \sum s g$."""
    pairs: int


def pulls_of(feats: FeatureSet) -> dict[str, Pull]:
    """The pull of every behaviour.

    Raises:
        DataError: A behaviour has no pair to train on, or answers beyond two.
    """
    found = {}
    for name in feats.groups:
        rows = trained_rows(feats, name)
        answers = feats.two_answers(rows)
        if answers is None:
            raise DataError(f"{name} has no training pairs with two answers of one token; give more of its pairs")
        signs = np.where(answers.positive, 1.0, -1.0)
        found[name] = Pull(vector=2 / len(rows) * signs @ feats.states[rows].astype(np.float64), pairs=len(rows))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStep:
    """A run's first step beside that of theory."""

    margins: Mapping[str, float]
    """Average reward margin of each behaviour after it, by theory."""
    off: float
    """Largest difference of the run's margins from these, or of its log-ratios from the logits of theory, as a share of
    the largest margin, or logit, by theory; NaN where log-probabilities are unknown."""
    off_printed: float
    """The same of the log-ratios from what Equation 24 prints for logits."""


def first_step(pulls: Mapping[str, Pull], run: Trajectory) -> FirstStep:
    """The first step of a full-batch run of some behaviours.

    Reference:
        2403.18742, Eq. 24, which gives logits the number of the margins; THEORY 2.6, X-6.
    """
    vectors, sizes = (
        np.stack([each.vector for each in pulls.values()]),
        np.array([each.pairs for each in pulls.values()]),
    )
    settings = {"beta": float(run.settings["beta"]), "learning_rate": float(run.settings["learning_rate"])}
    margins, logits = (law(vectors, sizes, **settings) for law in (first_step_margins, first_step_logits))
    found = {
        quantity: np.array([at_step(*run.curve(quantity, group=name), 1.0) for name in pulls])
        for quantity in ("margin", "chosen_change", "rejected_change")
    }
    ratios = found["chosen_change"] - found["rejected_change"]
    return FirstStep(
        margins=dict(zip(pulls, margins.tolist(), strict=True)),
        off=float(np.maximum(_share(found["margin"], margins), _share(ratios, logits))),
        off_printed=_share(ratios, margins),
    )


def _share(values: Float[np.ndarray, " m"], law: Float[np.ndarray, " m"]) -> float:
    """Largest difference over the largest of the law; NaN where a value is."""
    return float(np.abs(values - law).max() / np.abs(law).max())
