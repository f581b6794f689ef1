"""A real model with a vocabulary of 262,144: Gemma 3 270M says of real pairs what it says by itself.

Its folder is not part of the project. It is looked for in ~/.cache/models/gemma3-270m, or where GEMMA3_270M says.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefdyn.data.loaders import load_dataset
from prefdyn.models.load import load_model
from prefdyn.models.score import score
from prefdyn.models.texts import SIDES
from tests.conftest import PERSONA, SHARED, needs_shared

FOLDER = Path(os.environ.get("GEMMA3_270M", "~/.cache/models/gemma3-270m")).expanduser()
needs_gemma = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(), reason=f"a real Gemma 3 270M is absent: no weights in {FOLDER}"
)
HH = SHARED / "hh" / "harmless-base-part.jsonl.gz"
SPECS = {"hh": f"hh:{HH}", "persona": f"persona:{PERSONA}"}


@pytest.fixture(scope="module")
def gemma() -> Any:
    return load_model(str(FOLDER))


def as_trl(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[list[int]]]:
    """Prompt and responses as TRL has them: whole texts with their end token, and what follows the tokens that both
    share with the prompt."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    end = tokenizer.eos_token
    whole = [tokenizer(row["prompt"] + row[side].removesuffix(end) + end)["input_ids"] for side in SIDES]
    shared = min(next(at for at in range(len(prompt), -1, -1) if ids[:at] == prompt[:at]) for ids in whole)
    return prompt[:shared], [ids[shared:] for ids in whole]


def alone(model: Any, prompt: list[int], response: list[int]) -> float:
    """Log-probability of one response by the model's own forward: logits in float32, their normaliser in float64."""
    ids = torch.tensor([[*prompt, *response]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(response) + 1).logits[0, :-1]
        wanted = logits.gather(1, torch.tensor(response)[:, None]).double()[:, 0]
        normalisers = torch.stack([torch.logsumexp(row.double(), 0) for row in logits])
    return float((wanted - normalisers).sum())


@needs_gemma
@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("of", SPECS)
def test_scores_are_those_of_the_plain_model_on_the_tokens_of_trl(gemma, of, own_cache, record_property):
    """50 pairs each; the largest relative difference is a property in the report of the test.

    `pytest -m slow tests/models/test_gemma.py --junitxml FILE -o junit_family=xunit1`
    """
    groups = None if of == "hh" else ["agreeableness"]
    data = load_dataset(SPECS[of], limit=50, groups=groups, skip_bad_rows=True)
    found = score(data, gemma, progress=False)
    table = found.table.to_pylist()
    assert len(table) + len(found.left_out) == len(data) == 50
    assert len(table) > 45
    plain, ours = [], []
    for row in table:
        prompt, responses = as_trl(gemma.tokenizer, row)
        for side, response in zip(SIDES, responses, strict=True):
            assert row[f"{side}_tokens"] == len(response)
            plain.append(alone(gemma.model, prompt, response))
            ours.append(row[f"ref_{side}_logps"])
    off = float(np.max(np.abs(np.asarray(ours) - plain) / np.abs(plain)))
    record_property("largest relative difference", off)
    assert np.ptp(plain) > 1
    assert off < 1e-5
