"""Do K values slow each other down as 1/K? Under plain gradient descent yes, under Adam it depends on the coordinates.

Run: uv run python examples/adam_exponent.py
"""

import numpy as np
import torch

from prefdyn.features import FeatureSet
from prefdyn.synthetic import gaussian_groups

VALUES = (1, 2, 4, 8, 16)
WIDTH, PAIRS, NOISE, BETA, STEPS = 256, 40, 0.005, 0.1, 5
RATES = {"SGD": 1.0, "Adam": 1e-3}


def directions(values: int, *, dense: bool) -> np.ndarray:
    """Orthonormal directions of the values: each spread over all coordinates, or along one coordinate of its own."""
    axes = np.eye(values, WIDTH, k=1)
    if not dense:
        return axes
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))
    return axes @ rotation


def early_margin(feats: FeatureSet, optimizer: str) -> float:
    """Mean margin after a few full-batch steps of torch's own optimizer on the head rows of the answers that occur."""
    states = torch.tensor(feats.states)
    chosen, rejected = (torch.tensor(column, dtype=torch.long) for column in (feats.chosen, feats.rejected))
    change = torch.zeros(len(feats.tokens), WIDTH, requires_grad=True)
    descent = getattr(torch.optim, optimizer)([change], lr=RATES[optimizer])

    def margins() -> torch.Tensor:
        return BETA * ((change[chosen] - change[rejected]) * states).sum(dim=1)

    for _ in range(STEPS):
        descent.zero_grad()
        torch.nn.functional.softplus(-margins()).mean().backward()
        descent.step()
    return margins().mean().item()


def main() -> None:
    """Early margins for 1 to 16 values that share Yes and No, and the exponent with which they fall."""
    torch.manual_seed(0)
    print("optimizer  directions  " + "".join(f"{f'K={values}':>11}" for values in VALUES) + "   exponent")
    for optimizer in RATES:
        for dense in (True, False):
            margins = [
                early_margin(
                    gaussian_groups(
                        PAIRS, groups=values, width=WIDTH, noise=NOISE, directions=directions(values, dense=dense),
                        held_out=0.0,
                    ),
                    optimizer,
                )
                for values in VALUES
            ]  # fmt: skip
            exponent = np.polyfit(np.log(VALUES), np.log(margins), 1)[0]
            numbers = "".join(f"{margin:11.2e}" for margin in margins)
            print(f"{optimizer:9}  {'dense' if dense else 'axis':10}  {numbers}   {exponent:8.3f}")
    print(
        "Gradient descent learns K values K times as slowly as one. Adam, whose steps are as long in every coordinate, "
        "only sqrt(K) times, and hardly more slowly at all where each value has a coordinate of its own."
    )


if __name__ == "__main__":
    main()
