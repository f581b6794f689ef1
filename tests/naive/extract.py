"""Extraction the slow, obvious way: one prompt at a time through the whole model, one full softmax each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers


def extract(
    rows: Sequence[Mapping[str, str]], folder: Path, answers: Mapping[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Final states (n, d) and log-probabilities (n,) of the chosen and the rejected answer token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    states, chosen, rejected = [], [], []
    for row in rows:
        prompt = tokenizer(row["prompt"]).input_ids
        with torch.no_grad():
            out = model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
        states.append(out.hidden_states[-1][0, -1].numpy())
        log_probs = torch.log_softmax(out.logits[0, -1].double(), dim=0).numpy()
        for side, found in (("chosen", chosen), ("rejected", rejected)):
            answer = row[side] if answers is None else answers[row[side].strip()]
            joint = tokenizer(row["prompt"] + answer).input_ids
            assert joint[:-1] == prompt, "the naive twin knows only answers of one token"
            found.append(log_probs[joint[-1]])
    return np.stack(states), np.asarray(chosen), np.asarray(rejected)
