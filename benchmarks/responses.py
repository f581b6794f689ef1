"""What the sketch of longer responses costs: extraction with it against the same pass without it.

    uv run python benchmarks/responses.py --model FOLDER --data SPEC [--limit 100] [--rounds 3] [--sketch 4096]

Both sides read the same pairs, from the same shards, batches and packed rows, with the same threads, in turns in one
process, and keep nothing on disk. Without the sketch a pass gives log-probabilities (`head_log_probs`, which forms the
logits of a block of states and writes nothing of their size) and mean states; with it, the sketches as well, from one
forming of the same logits. Every token is counted once: the prompt of a pair, both responses. Best of the rounds, and
the median of the ratios within a round. On a CPU the same is said of the processor's time, which other programs on the
machine disturb less. The peak is that of the whole process while one side runs, the model included (on a GPU: what its
allocator held at most).

A third side is what the tokens cost in any case: the trunk on the same packed rows, and one plain pass of the head over
the states that predict a response's token, in chunks of the vocabulary. The whole of `extract`, from texts to features
with all its checks and the measured error, is held against it; for a large vocabulary (Gemma: 262,144) this is the line
to look at.

The error of the sketch, which `extract` measures on up to 64 pairs, is a cost of its own that does not grow with the
data. It is timed by itself, once, and the last line says what the ratio is on just these pairs with it.
"""

import argparse
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.models.extract import extract
from prefdyn.models.head import head_log_probs
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.pair_shards import PairReader, SortedPairs, read_pairs
from prefdyn.models.responses import _by_side, _FeatureReader, _means, measured_sample, sketch_error
from prefdyn.models.sketch import Buckets
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from prefdyn.settings import SKETCH

ASKED = 1.2
"""At most this many times as long with the sketch."""
ASKED_OF_ALL = 1.3
"""At most this many times as long for the whole of `extract` as for the trunk and one pass of the head."""


class PlainReader(PairReader):
    """Mean states and log-probabilities of pairs: the pass that is left when nothing is sketched."""

    doing = "reading responses without a sketch"
    measured = "log-probability of"

    def measure(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Mean states and log-probabilities of some pairs."""
        states, targets, lengths = self.scorer.token_states(rows)
        each = head_log_probs(states, targets[:, None], self.lm.head_weight, self.lm.head_bias, self.lm.head_scale)
        log_probs = torch.segment_reduce(each[:, 0].double(), "sum", lengths=lengths.to(each.device), unsafe=True)
        found = _by_side(log_probs[:, None], _means(states, lengths).float(), log_probs)
        return {name: found[name] for name in found if not name.endswith("features")}


class Pass(NamedTuple):
    """One whole pass that keeps nothing."""

    seconds: float
    cpu_seconds: float
    peak: int
    """Bytes."""
    found: Mapping[str, np.ndarray]


def measured(worker: PairReader, given: SortedPairs) -> Pass:
    """Time and memory of one pass."""
    on_gpu = worker.kind == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak of this process starts anew
    start, start_cpu = time.perf_counter(), time.process_time()
    found = read_pairs(worker, given, "benchmark", settings="", cache=False, progress=False)
    took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return Pass(took, took_cpu, torch.cuda.max_memory_allocated() if on_gpu else _resident_peak(), found)


def _resident_peak() -> int:
    (told,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(told) * 1024


class BareReader(PairReader):
    """The trunk, and the log-normaliser of every response token by a plain chunked pass of the head."""

    doing = "reading responses and normalising"
    measured = "log-normaliser of"

    def measure(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Log-normalisers summed over the tokens of each pair."""
        states, _, lengths = self.scorer.token_states(rows)
        totals = []
        for part in states.float().split(256):
            total = torch.full((len(part),), -torch.inf, device=part.device)
            for chunk in self.lm.head_weight.split(16384):
                total = torch.logaddexp(total, torch.logsumexp(part @ chunk.float().T, dim=1))
            totals.append(total)
        sums = torch.segment_reduce(torch.cat(totals), "sum", lengths=lengths.to(states.device), unsafe=True)
        return {"normalisers": sums.chunk(2)[0].cpu().numpy()}


def whole_extraction(lm: LanguageModel, data: PreferenceDataset, sketch: int) -> tuple[float, float]:
    """Wall-clock and processor seconds of `extract` with nothing known before and nothing kept."""
    start, start_cpu = time.perf_counter(), time.process_time()
    extract(data, lm, sketch=sketch, eos=True, cache=False, progress=False)
    return time.perf_counter() - start, time.process_time() - start_cpu


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """Largest relative difference of what both sides measure."""
    both = first.keys() & second.keys()
    assert len(both) == 4
    return max(float(np.abs(first[name] - second[name]).max() / np.abs(second[name]).max()) for name in both)


def told(passes: Mapping[str, list[Pass]], field: str, name: str) -> None:
    """Print the ratio of a time with the sketch to that without."""
    both = [np.asarray([getattr(one, field) for one in passes[side]]) for side in ("with", "without")]
    ratios = both[0] / both[1]
    print(
        f"ratio of {name}: {both[0].min() / both[1].min():.2f} best to best, {np.median(ratios):.2f} median of "
        f"{len(ratios)} rounds ({ratios.min():.2f} to {ratios.max():.2f}); asked for: at most {ASKED}"
    )


def compare(
    lm: LanguageModel, data: PreferenceDataset, pairs: TokenPairs, *, sketch: int, rounds: int, batch_tokens: int | None
) -> None:
    """Measure both sides in turns and print."""
    given = SortedPairs.of(pairs)
    tokens = int(given.lengths.sum())
    buckets = Buckets.draw(len(lm.head_weight), lm.hidden_size, size=sketch)
    sides: dict[str, PairReader] = {
        "without": PlainReader(lm, given, batch_tokens=batch_tokens),
        "with": _FeatureReader(lm, given, buckets=buckets, batch_tokens=batch_tokens),
    }
    first = {name: measured(worker, given) for name, worker in sides.items()}  # packed rows are checked once, here
    difference = same(first["with"].found, first["without"].found)
    print(f"both sides agree to {difference:.1e} in states and log-probabilities")
    sides["bare"] = BareReader(lm, given, batch_tokens=batch_tokens)
    measured(sides["bare"], given)
    passes: dict[str, list[Pass]] = {name: [] for name in sides}
    whole: list[tuple[float, float]] = []
    for _ in range(rounds):
        for name, worker in sides.items():
            passes[name].append(measured(worker, given)._replace(found={}))
        whole.append(whole_extraction(lm, data, sketch))
    names = {"without": "without the sketch", "with": "with the sketch", "bare": "trunk and one plain pass of the head"}
    for name, each in passes.items():
        best, peak = min(one.seconds for one in each), max(one.peak for one in each)
        print(f"{names[name]}: {best:.2f} s, {tokens / best:,.0f} tokens/s, peak {peak / 2**20:,.0f} MiB")
    told(passes, "seconds", "time")
    if lm.device == "cpu":
        told(passes, "cpu_seconds", "processor time")
    on_cpu = lm.device == "cpu"
    bare = min(one.cpu_seconds if on_cpu else one.seconds for one in passes["bare"])
    took = min(each[on_cpu] for each in whole)
    print(
        f"the whole of extract: {took:.2f} s{' of processors' if on_cpu else ''}, {took / bare:.2f} x trunk and one "
        f"plain pass of the head of {lm.vocabulary:,} tokens; asked for: at most {ASKED_OF_ALL}"
    )
    rows, cut = measured_sample(given.pairs, width=lm.hidden_size, vocabulary=lm.vocabulary)
    start, start_cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        error = sketch_error(lm, given.pairs, buckets, rows, cut=cut)
    took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    tokens_of = "all" if cut is None else f"the first {cut}"
    print(
        f"error of the sketch: {error['rms']:.4f} (expected {error['expected']:.4f}), measured on {tokens_of} "
        f"tokens of {error['pairs']} pairs in {took:.2f} s ({took_cpu:.2f} s of processors), once"
    )
    field, once = ("cpu_seconds", took_cpu) if lm.device == "cpu" else ("seconds", took)
    best = {name: min(getattr(one, field) for one in each) for name, each in passes.items()}
    print(f"ratio with that on these {len(pairs)} pairs alone: {(best['with'] + once) / best['without']:.2f}")


def main() -> None:
    """Read the flags, the pairs and the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=100, help="pairs per group")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sketch", type=int, default=SKETCH)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()

    lm = load_model(options.model, device=options.device, dtype=options.dtype)
    data = load_dataset(options.data, limit=options.limit, skip_bad_rows=True)
    pairs = tokenize_pairs(data, lm, eos=True)
    prompts, responses = (
        sum(len(pairs.prompts[at]) for at in pairs.prompt.tolist()),
        sum(map(len, pairs.chosen)) + sum(map(len, pairs.rejected)),
    )
    print(
        f"{lm.name}: {len(pairs)} of {len(data)} pairs, {prompts:,} prompt tokens, {responses:,} response tokens, head "
        f"{len(lm.head_weight):,} x {lm.hidden_size}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"
    )
    compare(lm, data, pairs, sketch=options.sketch, rounds=options.rounds, batch_tokens=options.batch_tokens)


if __name__ == "__main__":
    main()
