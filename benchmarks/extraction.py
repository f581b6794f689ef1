"""Tokens per second of a whole extraction against the trunk alone.

    uv run python benchmarks/extraction.py MODEL_FOLDER DATA_SPEC [--answers Yes,No] [--limit 50] [--rounds 3]

Both read the same different prompts. The trunk alone runs them in length-sorted batches of one length each: no padding,
no shared prefix, no head, no tokenizer, nothing kept. The extraction is `prefdyn.extract` from texts to FeatureSet,
without the cache of earlier runs: tokenisation, shared prefix, states, log-normalisers, checks. Every prompt token
counts once for either, also those of the shared prefix. Best of the rounds, the two taking turns in one process.

A third side is the trunk alone and then one plain pass of the head over the last states, in chunks of the vocabulary:
what a large vocabulary (Gemma: 262,144) costs in any case.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.models.extract import extract
from prefdyn.models.forward import Sequences
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.token_pairs import tokenize_pairs


def trunk_seconds(lm: LanguageModel, sequences: Sequences, batch_tokens: int) -> float:
    """Seconds for the trunk over every sequence, in batches of equal length."""
    batches = []
    for length in np.unique(sequences.lengths):
        rows = np.flatnonzero(sequences.lengths == length)
        ids = np.stack([sequences.one(int(row)) for row in rows]).astype(np.int64)
        step = max(1, batch_tokens // int(length))
        batches += [torch.from_numpy(ids[at : at + step]).to(lm.device) for at in range(0, len(ids), step)]
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            lm.trunk(input_ids=batch, use_cache=False)
    if lm.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def head_seconds(lm: LanguageModel, states: int) -> float:
    """Seconds for the log-normalisers of so many states, in chunks of 16,384 tokens and 256 states."""
    given = torch.randn(states, lm.hidden_size, device=lm.device)
    weight = lm.head_weight
    start = time.perf_counter()
    with torch.inference_mode():
        for part in given.split(256):
            total = torch.full((len(part),), -torch.inf, device=lm.device)
            for chunk in weight.split(16384):
                total = torch.logaddexp(total, torch.logsumexp(part @ chunk.float().T, dim=1))
    if lm.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extract_seconds(lm: LanguageModel, data: PreferenceDataset, answers: list[str] | None, *, cache: bool) -> float:
    """Seconds for a whole extraction with nothing known before."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFDYN_CACHE"] = folder
        start = time.perf_counter()
        extract(data, lm, answers=answers, cache=cache, progress=False)
        return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--answers")
    parser.add_argument("--limit", type=int, default=50, help="pairs per group")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[1024, 2048, 4096], help="of the trunk alone")
    options = parser.parse_args()
    answers = options.answers.split(",") if options.answers else None

    lm = load_model(str(options.model))
    data = load_dataset(options.data, limit=options.limit)
    sequences = Sequences.sort(tokenize_pairs(data, lm, answers=answers).prompts)
    tokens = int(sequences.offsets[-1])
    threads = torch.get_num_threads()
    print(
        f"{lm.name}: {len(data)} pairs, {len(sequences)} prompts, {tokens} tokens, vocabulary {lm.vocabulary:,}, "
        f"{threads} threads"
    )

    trunk: dict[int, list[float]] = {size: [] for size in options.batch_tokens}
    whole: list[float] = []
    kept: list[float] = []
    head: list[float] = []
    for _ in range(options.rounds):
        for size, found in trunk.items():
            found.append(trunk_seconds(lm, sequences, size))
        head.append(head_seconds(lm, len(sequences)))
        whole.append(extract_seconds(lm, data, answers, cache=False))
        kept.append(extract_seconds(lm, data, answers, cache=True))
    for size, found in trunk.items():
        print(f"trunk alone, batches of {size} tokens: {tokens / min(found):,.0f} tokens/s")
    best = min(min(found) for found in trunk.values())
    both = best + min(head)
    print(f"trunk and one pass of the head of {lm.vocabulary:,} tokens: {tokens / both:,.0f} tokens/s")
    for name, found in (("nothing kept on disk", whole), ("with a fresh cache", kept)):
        took = min(found)
        print(
            f"extract, {name}: {tokens / took:,.0f} tokens/s, {best / took:.2f} x the best trunk, takes "
            f"{took / both:.2f} x the time of trunk and head"
        )


if __name__ == "__main__":
    main()
