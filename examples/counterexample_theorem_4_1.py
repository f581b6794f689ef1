"""Break a published theorem on your own machine, and see the bound that does not break.

Theorem 4.1 of "Understanding the Learning Dynamics of Alignment with Human Feedback" (arXiv 2403.18742) bounds how far
DPO moves the head after t steps by the distance D of the two classes' means. Where there are more dimensions than
examples the measured means are far apart even if the true ones are not, and the head follows the measured ones.

Run: uv run python examples/counterexample_theorem_4_1.py
"""

import math

import numpy as np

from prefdyn.theory.learning_dynamics import (
    Constants,
    constants,
    descent_direction,
    drift_bound,
    published_drift_bound,
)

PROBLEMS = [(64, 4096), (1024, 100), (4096, 40), (16384, 48), (65536, 64)]


def classes(width: int, n: int) -> tuple[Constants, np.ndarray, np.ndarray]:
    """Two unit Gaussians whose means are 1 apart: what the theorem is told, and a sample of them."""
    told = Constants(
        n_plus=n // 2,
        n_minus=n // 2,
        width=width,
        gap=1.0,
        weighted_gap=1.0,
        trace_plus=float(width),
        trace_minus=float(width),
        op_norm=1.0,
        radius=0.5 + math.sqrt(width),
    )
    signs = np.repeat([1, -1], n // 2)
    states = np.random.default_rng(0).normal(size=(n, width))
    states[:, 0] += signs / 2
    return told, states, signs


def main() -> None:
    """One step of DPO per problem; drift against both bounds."""
    print("dimensions  examples  conditions  may fail with  published    measured    repaired")
    broken = 0
    for width, n in PROBLEMS:
        told, states, signs = classes(width, n)
        beta = 1 / math.sqrt(width)
        rate = 0.24 / told.c_n**2
        step = rate * descent_direction(states, signs, np.zeros(width), beta=beta)
        drift = math.sqrt(2) * float(np.linalg.norm(step))
        published = published_drift_bound(told, beta=beta, learning_rate=rate, steps=1, measured=drift)
        seen = constants(states, signs > 0)
        repaired = drift_bound(seen, beta=beta, learning_rate=rate, steps=1, measured=drift)
        false_here = published.applies and published.kept is False
        broken += false_here
        print(
            f"{width:10d}  {n:8d}  {'all hold' if published.applies else 'fail':10s}  {published.failure:13.1e}  "
            f"{published.value:9.5f}  {drift:8.5f}{' !' if false_here else '  '}  {repaired.value:9.5f}"
        )
    print(
        f"The published bound is broken in {broken} of {len(PROBLEMS)} problems; the repaired one is exact at this "
        "first step and holds for any data."
    )


if __name__ == "__main__":
    main()
