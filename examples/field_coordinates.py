"""Does DPO lower the rejected answer faster than it raises the chosen one? That depends on what gradient descent moves.

One pair, one loss, one start: the policy is the reference. Gradient flow runs until the chosen answer has gained a
factor of nine over the rejected one, in four kinds of coordinates.

Run: uv run python examples/field_coordinates.py
"""

from prefdyn.theory import gradient_field as field

CHOSEN, REJECTED = 0.1, 0.4
"""Reference probabilities: this model prefers the rejected answer."""

MOVES = {
    "ratios": "the two probability ratios",
    "probabilities": "the two probabilities",
    "log-ratios": "their logarithms",
    "logits": "two logits of a softmax",
}


def main() -> None:
    """Print where each flow ends, and how far the rejected ratio fell for each unit that the chosen one rose."""
    print(f"{'gradient flow moves':28}{'chosen x1':>10}{'rejected x2':>13}{'fall / rise':>13}{'loss':>8}")
    for coordinates in field.COORDINATES:
        x1, x2 = field.flow_point(coordinates, ratio=9.0, ref_chosen=CHOSEN, ref_rejected=REJECTED)
        loss = field.field_loss(x1, x2, beta=0.5)
        print(f"{MOVES[coordinates]:28}{x1:10.2f}{x2:13.2f}{(1 - x2) / (x1 - 1):13.2f}{loss:8.3f}")
    print(
        "The same loss in every row: how fast the rejected answer falls is a property of the coordinates, not of DPO."
    )


if __name__ == "__main__":
    main()
