"""Why a published accuracy guarantee promises 0%, and what can be promised instead.

Theorem 4.3 of "Understanding the Learning Dynamics of Alignment with Human Feedback" (arXiv 2403.18742) promises
accuracy p if a share p of the examples has a large enough margin. The margin that it asks for is longer than any
example may be. Two angles that add up to less than 90 degrees give a guarantee that is not empty.

Run: uv run python examples/empty_theorem_4_3.py
"""

import math

import numpy as np

from prefdyn.theory.learning_dynamics import (
    Constants,
    accuracy_bound,
    accuracy_certificate,
    descent_direction,
    smallest_variance_exponent,
)

WIDTH, GAP, PAIRS, START = 4096, 2.0, 400, 0.0
SPREAD = np.full(WIDTH, 0.025)
SPREAD[0] = 0.3


def main() -> None:
    """Train two Gaussian classes that meet the theorem's conditions; compare promises with what happens."""
    signs = np.repeat([1, -1], PAIRS // 2)
    states = np.random.default_rng(0).normal(size=(PAIRS, WIDTH)) * SPREAD
    states[:, 0] += signs * GAP / 2
    trace = float(np.sum(SPREAD**2))
    told = Constants(
        n_plus=PAIRS // 2,
        n_minus=PAIRS // 2,
        width=WIDTH,
        gap=GAP,
        weighted_gap=GAP,
        trace_plus=trace,
        trace_minus=trace,
        op_norm=float(SPREAD.max() ** 2),
        radius=GAP / 2 + math.sqrt(trace),
    )
    beta = 0.1
    published = accuracy_bound(
        told,
        boundary_norm=1.0,
        phi=START,
        beta=beta,
        learning_rate=1e-5,
        variance_exponent=smallest_variance_exponent(WIDTH),
    )
    print(f"{published.statement}: {published.quantity} {published.direction} {published.value:.0%}")
    print(f"  because it {published.note}\n")

    print("step  cosine with the gap  certified  accuracy")
    gap, start, weights = np.eye(WIDTH)[0], np.zeros(WIDTH), np.zeros(WIDTH)
    start[:2] = START, math.sqrt(1 - START**2)
    for step in range(33):
        if step in {0, 1, 2, 4, 8, 16, 32}:
            boundary = start + 2 * weights
            accuracy = float(np.mean(signs * (states @ boundary) > 0))
            bound = accuracy_certificate(states, signs, boundary, gap, measured=accuracy)
            cosine = float(boundary[0] / np.linalg.norm(boundary))
            print(f"{step:4d}  {cosine:19.3f}  {bound.value:9.1%}  {accuracy:8.1%}")
        weights = weights + 1.5 * descent_direction(states, signs, weights, beta=beta)
    print("\nThe theorem promises 0% of any data; the angle that the boundary really has certifies nearly every pair.")


if __name__ == "__main__":
    main()
