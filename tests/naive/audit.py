"""The heart of an audit in slow steps: one prompt at a time through the model, then NumPy loops from THEORY alone."""

import math

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def last_states(folder, prompts):
    """hidden_states[-1] at the last token of each prompt, one forward pass per prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    states = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            out = model(ids, output_hidden_states=True)
        states.append(out.hidden_states[-1][0, -1].double().numpy())
    return np.array(states)


def distinguishability(states, signs):
    """||mean of the Yes states - mean of the No states||, by running sums."""
    sums, counts = {1: np.zeros(states.shape[1]), -1: np.zeros(states.shape[1])}, {1: 0, -1: 0}
    for state, sign in zip(states, signs, strict=True):
        sums[sign] = sums[sign] + state
        counts[sign] += 1
    difference = sums[1] / counts[1] - sums[-1] / counts[-1]
    return math.sqrt(sum(float(x) ** 2 for x in difference))


def joint_losses(states, signs, groups, train, beta, rate, steps):
    """THEORY 1.2 for the Yes row alone: loss per group and split after full-batch descent on the training pairs."""
    w = np.zeros(states.shape[1])
    rows = [i for i in range(len(states)) if train[i]]
    for _ in range(steps):
        step = np.zeros_like(w)
        for i in rows:
            margin = 2 * beta * signs[i] * float(states[i] @ w)
            step += signs[i] * states[i] / (1 + math.exp(margin))
        w = w + rate * beta / len(rows) * step
    losses = {}
    for i in range(len(states)):
        margin = 2 * beta * signs[i] * float(states[i] @ w)
        losses.setdefault((groups[i], bool(train[i])), []).append(math.log1p(math.exp(-margin)))
    return {key: sum(values) / len(values) for key, values in losses.items()}
