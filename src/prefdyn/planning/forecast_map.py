"""Where beta and the learning rate would take a run, from one set of gradients: linear runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn.maths.objectives import Objective
from prefdyn.training.linear import Linearised, linear_modules, margins_by_setting, starts
from prefdyn.training.rehearse import Bench, Sample, measured

BETAS, RATES = (0.03, 0.1, 0.3, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0)
"""Betas that are tried beside the run's own, and factors on its learning rate."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SettingsMap:
    """Held-out losses at the run's last step for other betas (rows, b) and learning rates (columns, r).

    All are of the run's own beta: a larger one makes every loss of a learned pair smaller, whatever was learned.
    """

    betas: tuple[float, ...]
    rates: tuple[float, ...]
    """Factors on the run's."""
    own: tuple[int, int]
    """Row and column of the run itself."""
    names: tuple[str, ...]
    """Of the groups."""
    loss: Float[np.ndarray, "b r g"]
    accuracy: Float[np.ndarray, "b r g"]
    """Share of held-out pairs with a margin above 0."""
    steps: int

    @classmethod
    def of(cls, margins: Float[np.ndarray, "R n"], betas: Sequence[float], objective: Objective, sample: Sample,
           steps: int) -> "SettingsMap":  # fmt: skip
        """From margins without beta of every run, beta by beta and rate by rate."""
        groups = range(len(sample.names))
        loss = np.asarray(objective.loss(objective.beta * margins))
        found = [
            np.stack([each[:, sample.group == code].mean(axis=1) for code in groups], axis=1)
            .reshape(len(betas), len(RATES), -1)
            for each in (loss, (margins > 0).astype(float))
        ]  # fmt: skip
        return cls(
            betas=tuple(betas), rates=RATES, own=(list(betas).index(float(objective.beta)), RATES.index(1.0)),
            names=sample.names, loss=found[0], accuracy=found[1], steps=steps,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """What summary.json says of it."""
        worst = self.loss.argmax(axis=2)
        return {
            "betas": self.betas, "rates": self.rates, "own": self.own, "steps": self.steps,
            "mean": self.loss.mean(axis=2), "worst": self.loss.max(axis=2),
            "worst_group": [[self.names[code] for code in row] for row in worst.tolist()],
            "accuracy": self.accuracy.mean(axis=2),
        }  # fmt: skip


def settings_map(found: Linearised, bench: Bench) -> SettingsMap:
    """Linear runs from the run's start, with gradients from where it was made linear.

    Args:
        found: The run made linear.
        bench: With the run's start.

    Raises:
        TrainingError: One of them diverges.
    """
    settings, sample = bench.settings, bench.sample
    loop = bench.loop(settings)
    names = linear_modules(bench.subject, settings.tune)[0]
    first = measured(loop, bench.subject.pairs, found.rows, settings.objective)
    begun = replace(
        found, start=starts(bench.subject, names, settings), memory=type(found.memory)(),
        values=np.concatenate([first.margin / settings.objective.beta, np.zeros(found.apart)]),
    )  # fmt: skip
    betas = sorted({*BETAS, float(settings.objective.beta)})
    pairs = [(beta, settings.learning_rate * factor) for beta in betas for factor in RATES]
    margins = margins_by_setting(
        begun, loop, len(sample.rows), betas=np.array([beta for beta, _ in pairs]),
        rates=np.array([rate for _, rate in pairs]),
    )  # fmt: skip
    return SettingsMap.of(margins, betas, settings.objective, sample, settings.steps)
