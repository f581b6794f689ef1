"""Run as a program: the peak that a real training run takes beyond what the process had before, and the estimate."""

import gc
import json
import sys

import numpy as np
import psutil
import torch
import transformers

from prefdyn.maths.optimizers import SGD, AdamW
from prefdyn.models.load import _examined, quiet
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.token_pairs import TokenPairs
from prefdyn.training.memory import MemoryEstimate, of_model
from prefdyn.training.settings import LoRA
from prefdyn.training.tune import add_adapters, checkpoint_activations, unfreeze
from tests.peak import peak

PAIRS, LENGTH = 32, 64


def model(width: int, layers: int, *, tied: bool, eager: bool):
    """A random Llama; 23M weights at 256 x 8, of which 16M in embedding and head, or 8M where these are tied."""
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=width, intermediate_size=43 * width // 16, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=tied,
    )  # fmt: skip
    with quiet():
        made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager" if eager else "sdpa")
    made.eval().requires_grad_(False)
    return _examined(made, None, name="random", fingerprint="0", revision=None)


def pairs() -> TokenPairs:
    """One batch of prompts that share nothing, with answers of one token."""
    draw = np.random.default_rng(0)
    prompts = tuple(tuple(row) for row in draw.integers(10, 30000, (PAIRS, LENGTH)).tolist())
    return TokenPairs(
        kind="answers", prompts=prompts, prompt=np.arange(PAIRS), chosen=((5,),) * PAIRS, rejected=((6,),) * PAIRS,
        row=np.arange(PAIRS), left_out=(), warnings=(),
    )  # fmt: skip


def train(lm, *, tune: str, checkpointing: bool, autocast: bool, sgd: bool, accumulate: int) -> MemoryEstimate:
    """Some steps as the loop does them."""
    parameters = list((unfreeze(lm) if tune == "full" else add_adapters(lm, LoRA(rank=16), seed=0)[1]).values())
    optimizer = torch.optim.SGD(parameters) if sgd else torch.optim.AdamW(parameters, fused=True)
    found = of_model(
        lm, tune=tune, optimizer=SGD() if sgd else AdamW(), batch_tokens=PAIRS * LENGTH // accumulate,
        batch_pairs=PAIRS // accumulate, predicted=PAIRS // accumulate, autocast=autocast, accumulate=accumulate,
        trainable=sum(each.numel() for each in parameters), gradient_checkpointing=checkpointing,
    )  # fmt: skip
    if checkpointing:
        checkpoint_activations(lm)
    scorer = PairScorer(lm, pairs(), share=False).train()
    start = [each.detach().clone() for each in parameters] if tune == "full" else []
    for _ in range(4):
        optimizer.zero_grad(set_to_none=True)
        for part in np.array_split(np.arange(PAIRS), accumulate):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                scores = scorer(part)
                loss = -torch.nn.functional.logsigmoid(scores.chosen - scores.rejected).mean()
            loss.backward()
        optimizer.step()
    assert all(float((each.detach() - first).abs().sum()) > 0 for each, first in zip(parameters, start, strict=False))
    return found


def main(*, tied: bool, eager: bool, **run) -> None:
    """Print both figures. A small model goes first, so that libraries are not counted."""
    torch.manual_seed(0)
    train(model(32, 2, tied=tied, eager=eager), **run)
    gc.collect()
    before = psutil.Process().memory_info().rss
    found = train(model(256, 8, tied=tied, eager=eager), **run)
    json.dump({"measured": peak() - before, "parts": dict(found.parts), "least": found.least}, sys.stdout)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
