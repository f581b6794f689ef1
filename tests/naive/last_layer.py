"""The last layer the slow way: the whole matrix, the loss as the paper writes it, differences for slopes."""

import math

import numpy as np


def log_softmax(logits):
    top = max(logits)
    total = math.log(sum(math.exp(z - top) for z in logits)) + top
    return [z - total for z in logits]


def loss(matrix, reference, states, chosen, rejected, beta):
    """Eq. 6 of 2403.18742: log-ratios of two softmax models, one example at a time."""
    total = 0.0
    for g, won, lost in zip(states, chosen, rejected, strict=True):
        policy = log_softmax([float(row @ g) for row in matrix])
        start = log_softmax([float(row @ g) for row in reference])
        margin = beta * ((policy[won] - policy[lost]) - (start[won] - start[lost]))
        total += math.log1p(math.exp(-margin)) if margin > 0 else -margin + math.log1p(math.exp(margin))
    return total / len(states)


def gradient(matrix, reference, states, chosen, rejected, beta, small=1e-5):
    """Central differences in every entry of the matrix."""
    slope = np.zeros_like(matrix)
    for place in np.ndindex(matrix.shape):
        up, down = matrix.copy(), matrix.copy()
        up[place] += small
        down[place] -= small
        slope[place] = (
            loss(up, reference, states, chosen, rejected, beta) - loss(down, reference, states, chosen, rejected, beta)
        ) / (2 * small)
    return slope


def printed_gradient(matrix, reference, states, chosen, rejected, beta):
    """Eq. 9 of 2403.18742 as printed, outer product by outer product."""
    total = np.zeros_like(matrix)
    for g, won, lost in zip(states, chosen, rejected, strict=True):
        difference = np.zeros(len(matrix))
        difference[lost] += 1
        difference[won] -= 1
        push = beta * float(difference @ (matrix - reference) @ g)
        total += 1 / (1 + math.exp(-push)) * np.outer(difference, g)
    return -beta * total / len(states)


def descend(states, signs, beta, rate, steps, vocabulary=4):
    """Change of the first answer's row, the drift of the matrix (its largest singular value), loss and margins."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(vocabulary, states.shape[1]))
    chosen = [0 if s > 0 else 1 for s in signs]
    rejected = [1 if s > 0 else 0 for s in signs]
    matrix = reference.copy()
    rows = []
    for step in range(steps + 1):
        change = matrix - reference
        margins = [beta * float((change[w] - change[k]) @ g) for g, w, k in zip(states, chosen, rejected, strict=True)]
        rows.append(
            {
                "weights": change[0].copy(),
                "drift": float(np.linalg.norm(change, 2)),
                "loss": loss(matrix, reference, states, chosen, rejected, beta),
                "margins": margins,
            }
        )
        if step < steps:
            pull = np.zeros_like(matrix)
            for g, w, k, r in zip(states, chosen, rejected, margins, strict=True):
                push = 1 / (1 + math.exp(r))
                pull[w] += push * g
                pull[k] -= push * g
            matrix = matrix + rate * beta / len(states) * pull
    return rows
