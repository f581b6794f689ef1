"""A whole simulated run as one torch graph: the head a matrix over the vocabulary, every optimizer written out."""

import torch

from tests.naive.sweep import loss_of


def final(problem, *, name, beta, smoothing, optimizer, options, rate, factors, batches, weight):
    """Margins and chosen log-probability changes at the end, still in the graph of weight, beta, smoothing and rate.

    `problem` holds states (n, d), head (V, d), chosen and rejected (n,) vocabulary ids; or, for longer responses,
    `chosen_features` and `rejected_features` (n, d), whose head is one row.
    """
    changes, matrix = of_tokens(problem) if "head" in problem else of_responses(problem, name)
    memory = (torch.zeros_like(matrix), torch.zeros_like(matrix))
    for step, (factor, batch) in enumerate(zip(factors, batches, strict=True)):
        picked = torch.as_tensor(batch)
        leaf = matrix if matrix.requires_grad else matrix.detach().requires_grad_()
        up, down, log_probs = changes(leaf)
        losses = loss_of(name, (up - down)[picked], beta, smoothing, log_probs[picked])
        loss = (weight[picked] * losses).sum() / weight[picked].sum()
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        matrix, memory = update(optimizer, leaf, gradient, memory, step, rate * factor, options)
    up, down, log_probs = changes(matrix)
    return up - down, log_probs


def of_tokens(problem):
    """What changes with the rows of the tokens that occur, and no change."""
    states = torch.tensor(problem["states"], dtype=torch.float64)
    head = torch.tensor(problem["head"], dtype=torch.float64)
    chosen, rejected = torch.as_tensor(problem["chosen"]), torch.as_tensor(problem["rejected"])
    moves = torch.zeros(len(head), 1, dtype=torch.float64)
    moves[torch.cat([chosen, rejected]).unique()] = 1.0
    rows = torch.arange(len(states))
    start = torch.log_softmax(states @ head.T, dim=1)

    def changes(matrix):
        now = torch.log_softmax(states @ (head + moves * matrix).T, dim=1)
        up, down = now[rows, chosen], now[rows, rejected]
        return up - start[rows, chosen], down - start[rows, rejected], up

    return changes, torch.zeros_like(head)


def of_responses(problem, name):
    """The same to first order in one row."""
    first, second = (torch.tensor(problem[f"{side}_features"]) for side in ("chosen", "rejected"))
    lengths = [torch.as_tensor(problem[f"{side}_length"]) for side in ("chosen", "rejected")]

    def changes(matrix):
        up, down = first @ matrix, second @ matrix
        if name == "ipo":
            return up / lengths[0], down / lengths[1], up
        return up, down, up

    return changes, torch.zeros(first.shape[1], dtype=torch.float64)


def update(optimizer, weights, gradient, memory, step, rate, options):
    """The formulas of torch.optim's documentation, out of place."""
    first, second = memory
    match optimizer:
        case "sgd":
            mu = options.get("momentum", 0.0)
            first = gradient if step == 0 else mu * first + gradient
            return weights - rate * (gradient + mu * first if options.get("nesterov") else first), (first, second)
        case "adam":
            b1, b2 = 0.9, 0.999
            first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
            mean, square = first / (1 - b1 ** (step + 1)), second / (1 - b2 ** (step + 1))
            seen = square > 0  # a row that never moves has a root without a slope
            root = torch.where(
                seen, torch.where(seen, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square)
            )
            return weights - rate * mean / (root + 1e-8), (first, second)
        case "rmsprop":
            second = 0.99 * second + 0.01 * gradient**2
            seen = second > 0
            root = torch.where(
                seen, torch.where(seen, second, torch.ones_like(second)).sqrt(), torch.zeros_like(second)
            )
            return weights - rate * gradient / (root + 1e-8), (first, second)
    raise AssertionError(optimizer)
