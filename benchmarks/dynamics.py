"""The dynamics engine against the best loops that a careful user would write: ratios, in one script.

    OMP_NUM_THREADS=2 uv run python benchmarks/dynamics.py [published adam sgd step file] [--small] [--rounds 3]

Both sides take turns, every figure is a median of the rounds, first steps are left out. The loops have the engine's
dtype and threads, allocate outside the loop, and do `X @ w`, the pull, `X.T @ h` with one row for the two answers.
`--small` shrinks every size so that all rows run in seconds: a check that the script works, no measurement.

- published: last-layer DPO with Adam as 2408.03459 ran it (THEORY 3.11): the full head as a parameter, logits and
  log-softmax over the vocabulary, a one-hot label matrix, autograd, torch.optim.Adam. Losses must agree.
- adam: 64 settings × 100 Adam steps, float32, by `sweep` against 64 loops.
- sgd: 64 settings × 1,000 SGD steps, no two of the same run, by `sweep` against 64 loops; float64, which `sweep`
  picks at this size, and float32.
- step: one full-batch step against reading the features twice from memory, at the fastest rate of several readers.
- file: full-batch steps from a mapped feature file against reading the file as often with large reads, page cache in
  the same state (warm for both if the file fits memory); anonymous memory of the process that runs it.
- gpu: the whole of `sweep` on a GPU, with the memory bandwidth that it reaches. Only where asked for by name.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn.dynamics.engine import Stop
from prefdyn.dynamics.sweep import sweep
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO

BETA = 0.1
NEVER = Stop(divergence=float("inf"))


def two_answers(n: int, d: int, *, states: np.ndarray | None = None) -> FeatureSet:
    """Yes/No pairs with random states; a state vector is about as long as in a normalised model."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 2, n)
    if states is None:
        drawn = rng.standard_normal((n, d), dtype=np.float32)
        drawn *= 4 / np.sqrt(d)
        return FeatureSet.from_arrays(drawn, chosen=chosen, rejected=1 - chosen, tokens=[0, 1])
    small = FeatureSet.from_arrays(np.zeros((n, 1)), chosen=chosen, rejected=1 - chosen, tokens=[0, 1])
    return replace(small, states=states)


def signed(feats: FeatureSet, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features and signs as a loop would hold them."""
    assert feats.chosen is not None
    return feats.states.astype(dtype), np.where(feats.chosen == 0, 1, -1).astype(dtype)


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sigmoid_pull(margins: np.ndarray) -> np.ndarray:
    """sigma(-r) in place."""
    np.minimum(margins, 80, out=margins)
    np.exp(margins, out=margins)
    margins += 1
    np.reciprocal(margins, out=margins)
    return margins


def loop_sgd(features: np.ndarray, signs: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """One setting: plain descent, nothing allocated in the loop."""
    n, d = features.shape
    weights, gradient, margins = np.zeros(d, features.dtype), np.zeros(d, features.dtype), np.zeros(n, features.dtype)
    forward, back = (2 * BETA * signs).astype(features.dtype), (rate * BETA / n * signs).astype(features.dtype)
    for _ in range(steps):
        np.matmul(features, weights, out=margins)
        margins *= forward
        sigmoid_pull(margins)
        margins *= back
        np.matmul(features.T, margins, out=gradient)
        weights += gradient
    return weights


def loop_adam(features: np.ndarray, signs: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """One setting: Adam on one row, nothing allocated in the loop."""
    n, d = features.shape
    kind = features.dtype
    weights, gradient, first, second, scratch = (np.zeros(d, kind) for _ in range(5))
    margins = np.zeros(n, kind)
    forward, back = (2 * BETA * signs).astype(kind), (-BETA / n * signs).astype(kind)
    for step in range(1, steps + 1):
        np.matmul(features, weights, out=margins)
        margins *= forward
        sigmoid_pull(margins)
        margins *= back
        np.matmul(features.T, margins, out=gradient)
        first *= 0.9
        np.multiply(gradient, 0.1, out=scratch)
        first += scratch
        second *= 0.999
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 0.001
        second += scratch
        np.sqrt(second, out=scratch)
        scratch /= np.sqrt(1 - 0.999**step)
        scratch += 1e-8
        np.divide(first, scratch, out=scratch)
        scratch *= rate / (1 - 0.9**step)
        weights -= scratch
    return weights


# the rows of the table ----------------------------------------------------------------------------------------------


def grid_row(name: str, n: int, d: int, settings: int, steps: int, dtype: Any, rounds: int, ours_steps: int) -> dict:
    """`sweep` over a grid against one loop per setting; a loop's time is that of a few settings, scaled."""
    feats = two_answers(n, d)
    features, signs = signed(feats, dtype)
    rates = np.geomspace(0.05, 5.0, settings) if name == "sgd" else np.geomspace(1e-4, 1e-2, settings)
    loop = loop_sgd if name == "sgd" else loop_adam
    loop_steps = max(2, min(steps, 200))
    ours, theirs, results = [], [], None
    for turn in range(rounds + 1):
        spent = seconds(lambda: loop(features, signs, float(rates[-1]), loop_steps))
        began = time.perf_counter()
        results = sweep(
            feats, beta=BETA, learning_rate=rates.tolist(), optimizer=name, steps=ours_steps, record=[ours_steps],
            dtype=dtype, stop=NEVER, margins_at=[ours_steps],
        )  # fmt: skip
        took = time.perf_counter() - began
        if turn:
            theirs.append(spent / loop_steps * settings * steps)
            ours.append(took * steps / ours_steps)
    assert results is not None
    assert len(set(results.same_as)) == settings
    found = results[settings - 1]
    check = 2 * BETA * signs * (features @ loop(features, signs, float(rates[-1]), ours_steps))
    gap = float(np.abs(found.margins[ours_steps] - check).max() / np.abs(check).max())
    return {
        "row": f"{settings} settings × {steps} {name} steps, n={n}, d={d}, {dtype}",
        "route": found.settings["route"],
        "ours_s": np.median(ours),
        "loops_s": np.median(theirs),
        "ratio": np.median(theirs) / np.median(ours),
        "relative_gap": gap,
    }


def step_row(n: int, d: int, rounds: int) -> dict:
    """One full-batch step of one run, route `weights`, against twice the fastest reading of the features."""
    feats = two_answers(n, d)
    features, _ = signed(feats, "float32")
    vector, row = np.ones(d, np.float32), np.zeros(n, np.float32)
    flat = features.reshape(-1)
    readers = {
        "sum": lambda: flat.sum(),
        "dot": lambda: np.dot(flat, flat),
        "X @ w": lambda: np.matmul(features, vector, out=row),
    }
    reads: dict[str, list[float]] = {name: [] for name in readers}
    ours = []
    few, many = 5, 25

    def run(steps: int) -> float:
        return seconds(
            lambda: sweep(
                feats,
                beta=BETA,
                learning_rate=0.1,
                steps=steps,
                record=[steps],
                dtype="float32",
                route="weights",
                stop=NEVER,
            )
        )

    for turn in range(max(rounds, 3) + 1):
        for name, reader in readers.items():
            spent = [seconds(reader) for _ in range(5)]
            if turn:
                reads[name].append(float(np.median(spent)))
        spent = (run(many) - run(few)) / (many - few)
        if turn:
            ours.append(spent)
    fastest = min(float(np.median(times)) for times in reads.values())
    return {
        "row": f"one full-batch step, n={n}, d={d}, float32",
        "ours_s": np.median(ours),
        "read_twice_s": 2 * fastest,
        "bandwidth_GB_s": features.nbytes / fastest / 1e9,
        "ratio": np.median(ours) / (2 * fastest),
    }


def published_row(n: int, d: int, vocabulary: int, steps: int) -> dict:
    """Full head, one-hot labels, autograd and Adam, against one row of the same run."""
    import torch

    feats = two_answers(n, d)
    assert feats.chosen is not None
    states = torch.from_numpy(feats.states.copy())
    matrix = torch.nn.Parameter(torch.randn(vocabulary, d, generator=torch.Generator().manual_seed(0)) / d**0.5)
    labels = torch.zeros(n, vocabulary)
    rows, chosen = torch.arange(n), torch.from_numpy(feats.chosen.astype(np.int64))
    labels[rows, chosen], labels[rows, 1 - chosen] = 1.0, -1.0
    with torch.no_grad():
        reference = (torch.log_softmax(states @ matrix.T, dim=1) * labels).sum(dim=1)
    adam = torch.optim.Adam([matrix], lr=1e-3)
    theirs, losses, ours = [], [], []
    for _ in range(steps):
        start = time.perf_counter()
        adam.zero_grad()
        ratios = (torch.log_softmax(states @ matrix.T, dim=1) * labels).sum(dim=1) - reference
        loss = -torch.nn.functional.logsigmoid(0.01 * ratios).mean()
        loss.backward()
        adam.step()
        theirs.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))

    def run(count: int) -> Any:
        return sweep(feats, beta=0.01, learning_rate=1e-3, optimizer="adam", steps=count, record="all" if count == steps
                     else [count], dtype="float32", stop=NEVER)  # fmt: skip

    few, many = 20, 220
    for turn in range(4):
        spent = (seconds(lambda: run(many)) - seconds(lambda: run(few))) / (many - few)
        if turn:
            ours.append(spent)
    _, found = run(steps)[0].curve("loss", group="all")
    return {
        "row": f"last-layer DPO, n={n}, d={d}, V={vocabulary}, Adam",
        "ours_s": np.median(ours),
        "published_s": np.median(theirs[1:]),
        "ratio": np.median(theirs[1:]) / np.median(ours),
        "loss_gap": float(np.abs(found[:steps] - losses).max()),
        "loss_moved": losses[0] - losses[-1],
    }


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def file_child(path: Path, n: int, d: int, settings: int, rounds: int) -> dict:
    """Steps on a mapped file and plain reads of it, in turns; run in a process of its own."""
    peak, going = [0], [True]

    def watch() -> None:
        while going[0]:
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    feats = two_answers(n, d, states=np.memmap(path, dtype=np.float32, mode="r", shape=(n, d)))
    buffer = memoryview(bytearray(2**24))

    def read() -> None:
        with path.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass

    steps, passes = 3, 5  # three steps, and the measurements at the first and the last step, each read the file once
    ours, theirs, found = [], [], None
    for turn in range(rounds + 1):
        reading = sum(seconds(read) for _ in range(passes))
        began = time.perf_counter()
        found = sweep(
            feats, beta=BETA, learning_rate=np.geomspace(0.1, 1.0, settings).tolist(), steps=steps, record=[steps],
            stop=NEVER,
        )  # fmt: skip
        took = time.perf_counter() - began
        if turn:
            theirs.append(reading)
            ours.append(took)
    going[0] = False
    watcher.join()
    assert found is not None
    return {
        "row": f"{n * d * 4 / 1e9:.1f} GB feature file, {settings} settings, {passes} passes",
        "route": found.settings[0]["route"],
        "dtype": found.settings[0]["compute_dtype"],
        "ours_s": float(np.median(ours)),
        "read_s": float(np.median(theirs)),
        "ratio": float(np.median(ours) / np.median(theirs)),
        "anonymous_peak_GB": peak[0] / 1e9,
    }


def file_row(n: int, d: int, settings: int, rounds: int, folder: str | None) -> dict:
    """Write the file, measure in a fresh process, take it away."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "states.f32"
        rng, block = np.random.default_rng(0), 4096
        with path.open("wb") as out:
            for start in range(0, n, block):
                part = rng.standard_normal((min(block, n - start), d), dtype=np.float32)
                out.write((part * np.float32(4 / np.sqrt(d))).tobytes())
        command = [sys.executable, __file__, "--child", json.dumps([str(path), n, d, settings, rounds])]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        return json.loads(done.stdout.splitlines()[-1])


def gpu_row(n: int, d: int, settings: int, steps: int) -> dict:
    """Time and bandwidth of `sweep` on a GPU; needs one."""
    import torch

    feats = two_answers(n, d)

    def run(count: int) -> float:
        torch.cuda.synchronize()
        return seconds(
            lambda: sweep(
                feats,
                objective=[DPO(beta=BETA)],
                learning_rate=np.geomspace(0.05, 5.0, settings).tolist(),
                optimizer="adam",
                steps=count,
                record=[count],
                dtype="float32",
                arrays=lambda values: torch.as_tensor(values).to("cuda"),
                stop=NEVER,
            )
        )

    run(2)
    part = steps // 10
    whole, short = run(steps), run(part)
    per_step = (whole - short) / (steps - part)
    large = torch.zeros(n, d, device="cuda")
    torch.cuda.synchronize()
    reading = []
    for _ in range(5):
        start = time.perf_counter()
        large.sum()
        torch.cuda.synchronize()
        reading.append(time.perf_counter() - start)
    return {
        "row": f"GPU {torch.cuda.get_device_name()}, n={n}, d={d}, {settings} settings, {steps} Adam steps",
        "whole_s": whole,
        "step_s": per_step,
        "read_once_GB_s": n * d * 4 / per_step / 1e9,
        "limit_GB_s": n * d * 4 / np.median(reading[1:]) / 1e9,
        "TFLOP_s": 4 * n * d * settings / per_step / 1e12,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="published adam sgd step file gpu; all but gpu if none is named")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", help="where the feature file is written; the system's temporary folder if not given"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        path, *sizes = json.loads(args.child)
        print(json.dumps(file_child(Path(path), *sizes)))
        return
    cut, rounds = (16 if args.small else 1), (1 if args.small else args.rounds)
    d = 4096 // cut
    rows: dict[str, Callable[[], list[dict]]] = {
        "published": lambda: [published_row(900 // cut, d, 128256 // cut, 3)],
        "adam": lambda: [grid_row("adam", 14400 // cut, d, 64, 100, "float32", rounds, 10 if args.small else 100)],
        "sgd": lambda: [
            grid_row("sgd", 900 // cut, d, 64, 1000, dtype, rounds, 50 if args.small else 1000)
            for dtype in ("float64", "float32")
        ],
        "step": lambda: [step_row(14400 // cut, d, rounds)],
        "file": lambda: [file_row(366_000 // cut, d, 4, rounds, args.folder)],
        "gpu": lambda: [gpu_row(135_000 // cut, d, 64, 1000)],
    }
    for name in args.rows or [name for name in rows if name != "gpu"]:
        for row in rows[name]():
            print(json.dumps({key: float(f"{value:.4g}") if isinstance(value, float) else value
                              for key, value in row.items()}, ensure_ascii=False), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
