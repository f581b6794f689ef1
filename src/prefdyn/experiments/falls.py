"""How fast a loss falls, told three times, since curves that start in order need not end in it; what was learned."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Real

from prefdyn.dynamics.order import area
from prefdyn.experiments.context import MODEL
from prefdyn.experiments.rows import Row
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


def fallen(run: Trajectory, name: str, split: str) -> dict[str, float]:
    """How far the loss of a behaviour fell, by phase; a run that ended early stays where it ended."""
    steps, losses = run.curve("loss", group=name, split=split)
    last = run.settings.get("steps", steps[-1])
    if steps[-1] < last:
        steps, losses = np.append(steps, last), np.append(losses, losses[-1])
    return falls(steps, losses)


def rows_alone(
    runs: Mapping[str, Trajectory],
    *,
    figure: str,
    source: str = MODEL,
    seed: int = 0,
    splits: Sequence[str] = ("train", "held_out"),
) -> Iterator[Row]:
    """Falls of the losses of behaviours, each trained alone, by split and phase, and what was learned.

    Args:
        runs: By behaviour.
        figure: As rows name it.
        source: The model, its twin, or the published code.
        seed: Repetition.
        splits: Of the losses.
    """
    for name, run in runs.items():
        mine = {"figure": figure, "source": source, "seed": seed, "group": name}
        for split in splits:
            for phase, fall in fallen(run, name, split).items():
                yield Row(quantity="fall", value=fall, split=split, step=phase, **mine)
        learned = run.final("reward_accuracy", group=name, split="held_out")
        yield Row(quantity="accuracy", value=learned, **mine)
