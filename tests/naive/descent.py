"""Three ways to train a last layer by DPO that share nothing with the package."""

import math

import numpy as np
import torch


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def gram_margins(states, chosen, rejected, weight, train, beta, rate, steps):
    """The recursion of THEORY 1.3 with an explicit n × n matrix, pair by pair; unseen pairs ride along."""
    n = len(states)
    gram = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            sharing = (
                int(chosen[i] == chosen[j])
                + int(rejected[i] == rejected[j])
                - int(chosen[i] == rejected[j])
                - int(rejected[i] == chosen[j])
            )
            gram[i, j] = sharing * float(np.dot(states[i], states[j]))
    total = sum(weight[j] for j in train)
    margins = np.zeros(n)
    for _ in range(steps):
        pulls = [weight[j] * sigmoid(-float(margins[j])) for j in train]
        margins = margins + rate * beta**2 / total * np.array(
            [sum(gram[i, j] * pull for j, pull in zip(train, pulls, strict=True)) for i in range(n)]
        )
    return margins


def autograd(states, head, chosen, rejected, weight, train, beta, rate, steps):
    """SGD on the whole unembedding matrix through torch's log-softmax; returns margins and log-prob changes."""
    features = torch.tensor(states, dtype=torch.float64)
    reference = torch.tensor(head, dtype=torch.float64)
    weights = torch.tensor(weight, dtype=torch.float64)[train]
    w = reference.clone().requires_grad_()
    start = torch.log_softmax(features @ reference.T, dim=1)
    rows = torch.arange(len(states))
    chosen, rejected = torch.as_tensor(chosen), torch.as_tensor(rejected)

    def ratios(matrix):
        change = torch.log_softmax(features @ matrix.T, dim=1) - start
        return change[rows, chosen], change[rows, rejected]

    for _ in range(steps):
        up, down = ratios(w)
        losses = -torch.nn.functional.logsigmoid(beta * (up - down))[train]
        loss = (weights * losses).sum() / weights.sum()
        (gradient,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            w -= rate * gradient
    up, down = ratios(w.detach())
    return (beta * (up - down)).numpy(), up.numpy(), down.numpy(), float(torch.linalg.norm(w.detach() - reference))
