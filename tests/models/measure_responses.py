"""Run as a program: the peak of a process that extracts pairs of long responses with a head of 128,256 rows."""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from prefdyn._random import stream
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.models.extract import extract
from prefdyn.models.load import quiet
from tests.models.conftest import byte_tokenizer
from tests.peak import peak

VOCABULARY, TOKENS = 128256, 300


def model(folder: Path) -> Path:
    """A random Llama, two layers of width 64 under a head of 128,256 rows, which is all but 110,000 of its weights."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    with quiet():
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def pairs(count: int) -> PreferenceDataset:
    """Responses of 300 tokens: random digits, each a token of its own, and the end token."""
    digits = stream(0, "digits").integers(0, 10, (count, 2, TOKENS - 1))
    return PreferenceDataset.from_rows(
        {"prompt": f"Digits of row {row}:", "chosen": _text(one), "rejected": _text(two)}
        for row, (one, two) in enumerate(digits)
    )


def _text(digits: np.ndarray) -> str:
    return "".join(map(str, digits.tolist()))


def main(count: int) -> None:
    """Print the peak, and what was read."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFDYN_CACHE"] = str(Path(folder) / "cache")
        feats = extract(pairs(count), str(model(Path(folder) / "model")), device="cpu", progress=False)
    lengths = np.unique(np.concatenate([feats.chosen_length, feats.rejected_length]))
    found = {
        "peak": peak(), "pairs": len(feats),
        "lengths": lengths.tolist(), "vocabulary": feats.provenance.model["vocabulary"],
    }  # fmt: skip
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
