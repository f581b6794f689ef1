"""Heads trained the slow way: sums over pairs, one by one, and automatic differentiation of the loss itself."""

import math

import numpy as np
import torch

from tests.naive import margin_flow


def early_head(states, chosen, rejected):
    """One step from 0 with all pulls alike, up to a factor: one row per token."""
    rows = np.zeros((max(*chosen, *rejected) + 1, states.shape[1]))
    for state, won, lost in zip(states, chosen, rejected, strict=True):
        rows[won] += state
        rows[lost] -= state
    return rows


def error_of(w, centre, noise):
    """P(w.x <= 0) for x ~ N(centre, noise^2 I)."""
    length = math.sqrt(sum(float(value) ** 2 for value in w))
    return 0.5 * math.erfc(float(w @ centre) / (noise * length * math.sqrt(2)))


def early_errors(draws, *, values, per_cluster, width, noise, shared_norm, pattern):
    """The error of the early head in each of `draws` training sets, averaged over all clusters."""
    tokens = margin_flow.answers(pattern, values)
    offset, found = shared_norm * np.eye(width)[0], []
    for draw in range(draws):
        head = early_head(
            *margin_flow.clusters(
                draw, values=values, per_cluster=per_cluster, width=width, noise=noise, shared_norm=shared_norm,
                tokens=tokens,
            )
        )  # fmt: skip
        errors = []
        for k, (first, second) in enumerate(tokens):
            for sign in (1, -1):
                centre = sign * np.eye(width)[k + 1] + offset
                errors.append(error_of(sign * (head[first] - head[second]), centre, noise))
        found.append(np.mean(errors))
    return np.array(found)


def sequence_rates(head, pairs, asked, *, beta, reference):
    """Rate of the reward of each (state, token) under gradient flow on the DPO loss of whole responses, by autograd.

    `pairs`: per pair two lists of (state, token), the chosen response and the rejected one.
    """
    weights = torch.tensor(head, dtype=torch.float64, requires_grad=True)
    base = torch.tensor(reference, dtype=torch.float64)

    def reward(state, token):
        state = torch.tensor(state, dtype=torch.float64)
        return beta * (torch.log_softmax(weights @ state, 0)[token] - torch.log_softmax(base @ state, 0)[token])

    def slope(value):
        return torch.autograd.grad(value, weights)[0]

    margins = [
        torch.stack([reward(*at) for at in won]).sum() - torch.stack([reward(*at) for at in lost]).sum()
        for won, lost in pairs
    ]
    loss = torch.nn.functional.softplus(-torch.stack(margins)).mean()
    velocity = -slope(loss)
    rates = [float((slope(reward(*at)) * velocity).sum()) for at in asked]
    return np.array(rates), torch.stack(margins).detach().numpy()


def reward_after(head, velocity, time, state, token, *, beta):
    """beta log-probability of a token once the head has moved along a straight line."""
    logits = (head + time * velocity) @ state
    return beta * (logits[token] - np.logaddexp.reduce(logits))
