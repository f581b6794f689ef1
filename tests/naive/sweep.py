"""A whole unembedding matrix trained by autograd through log-softmax with torch.optim, one run at a time."""

import torch
from torch.nn.functional import logsigmoid, relu


def loss_of(name, ratios, beta, smoothing, chosen_log_probs):
    """TRL's formulas, from log-ratio changes `ratios` and log-probabilities of the chosen tokens."""
    margins = beta * ratios
    match name:
        case "sigmoid":
            return -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)
        case "robust":
            return (-(1 - smoothing) * logsigmoid(margins) + smoothing * logsigmoid(-margins)) / (1 - 2 * smoothing)
        case "ipo":
            return (ratios - 1 / (2 * beta)) ** 2
        case "hinge":
            return relu(1 - margins)
        case "gpo_ipo":
            return (margins - 1) ** 2
        case "sft":
            return -chosen_log_probs
    raise AssertionError(name)


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def train(problem, *, name, beta, smoothing, optimizer, options, rate, factors, batches):
    """Train on the batches, given as row numbers per step; margins, log-probability changes and drift at the end.

    `problem` holds states (n, d), head (V, d), chosen, rejected (n,) vocabulary ids and weight (n,). SFT moves the rows
    of the tokens that occur and holds the others still.
    """
    states = torch.tensor(problem["states"], dtype=torch.float64)
    reference = torch.tensor(problem["head"], dtype=torch.float64)
    chosen, rejected = torch.as_tensor(problem["chosen"]), torch.as_tensor(problem["rejected"])
    weight = torch.tensor(problem["weight"], dtype=torch.float64)
    matrix = torch.nn.Parameter(reference.clone())
    start = torch.log_softmax(states @ reference.T, dim=1)
    moves = torch.zeros(len(reference), 1, dtype=torch.float64)
    moves[torch.cat([chosen, rejected]).unique()] = 1.0
    steps = OPTIMIZERS[optimizer]([matrix], lr=rate, **options)

    def changes(rows):
        now = torch.log_softmax(states[rows] @ matrix.T, dim=1)
        places = torch.arange(len(rows))
        up, down = now[places, chosen[rows]], now[places, rejected[rows]]
        return up - start[rows, chosen[rows]], down - start[rows, rejected[rows]], up

    for factor, batch in zip(factors, batches, strict=True):
        rows = torch.as_tensor(batch)
        for group in steps.param_groups:
            group["lr"] = rate * factor
        steps.zero_grad()
        up, down, log_probs = changes(rows)
        losses = loss_of(name, up - down, beta, smoothing, log_probs)
        ((weight[rows] * losses).sum() / weight[rows].sum()).backward()
        if name == "sft" and matrix.grad is not None:
            matrix.grad *= moves
        steps.step()
    with torch.no_grad():
        up, down, _ = changes(torch.arange(len(states)))
    return {
        "margins": (beta * (up - down)).numpy(),
        "chosen": up.numpy(),
        "rejected": down.numpy(),
        "drift": float(torch.linalg.norm(matrix.detach() - reference)),
    }
