"""How fast a loss falls, told three times, since curves that start in order need not end in it; what was learned."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Real

from prefdyn.dynamics.order import area
from prefdyn.experiments.statistics import at_step
from prefdyn.maths.objectives import LOG2
from prefdyn.trajectory import Trajectory

PHASES: Mapping[str, str] = {
    "early": "at a tenth of the steps",
    "area": "over the whole run",
    "late": "at the end",
}


def falls(steps: Real[np.ndarray, " s"], losses: Float[np.ndarray, " s"]) -> dict[str, float]:
    """How far a loss is below log 2, nats, in each of `PHASES`: over the whole run, the area above the curve.

    Raises:
        DataError: The curve has one step alone.

    Example:
        >>> found = falls(np.array([0, 10, 20]), LOG2 - np.array([0.0, 0.1, 0.4]))
        >>> {phase: round(fall, 6) for phase, fall in found.items()}
        {'early': 0.02, 'area': 0.15, 'late': 0.4}
    """
    return {
        "early": LOG2 - at_step(steps, losses, max(1.0, 0.1 * float(steps[-1]))),
        "area": LOG2 - area(steps, losses),
        "late": LOG2 - float(losses[-1]),
    }


def accuracy_alone(runs: Mapping[str, Trajectory]) -> float:
    """Held-out reward accuracy at the end, mean over behaviours, each trained alone."""
    return float(np.mean([run.final("reward_accuracy", group=name, split="held_out") for name, run in runs.items()]))
