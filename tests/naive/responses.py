"""Features of responses the slow way: automatic differentiation of a log-probability, and the sketch entry by entry."""

import numpy as np
import torch


def gradients(states, targets, lengths, weight, *, bias=None, scale=1.0):
    """d log-probability / d head of each response (r, V, d) and the log-probabilities (r,), by autograd in float64."""
    head = weight.double().clone().requires_grad_(True)
    found, sums, start = [], [], 0
    for length in lengths:
        total = torch.zeros((), dtype=torch.float64)
        for at in range(start, start + int(length)):
            logits = head @ states[at].double()
            if bias is not None:
                logits = logits + bias.double()
            total = total + torch.log_softmax(scale * logits, 0)[targets[at]]
        found.append(torch.autograd.grad(total, head)[0].numpy())
        sums.append(float(total.detach()))
        start += int(length)
    return np.stack(found), np.array(sums)


def sketch(matrix, buckets):
    """Sum over the entries of a (V, d) matrix, each into its bucket with its sign."""
    size = buckets.size
    bucket_of_place = {int(place): bucket for bucket, place in enumerate(buckets.places)}
    found = np.zeros(size)
    for row_place, row in enumerate(buckets.order):
        for column_place, column in enumerate(buckets.columns):
            bucket = (bucket_of_place[row_place % size] + column_place) % size
            sign = buckets.signs[row_place] * buckets.column_signs[column_place]
            found[bucket] += sign * matrix[row, column]
    return found
