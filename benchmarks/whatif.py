"""What a derivative of a whole run costs, as a multiple of the run: `sensitivity` against `sweep`, in one process.

    OMP_NUM_THREADS=1 uv run python benchmarks/whatif.py [--small] [--rounds 3]

Both take turns on the same features and settings; every figure is a median of the rounds, the first left out. Time is
the processor's, with one thread, so that other programs matter little. `sweep` makes the one run and measures it at its
start and end, as `sensitivity` must; both copy the features into their dtype. Columns: seconds of the run, and how many
times as long one target, and every group's at once, take.
`--small` shrinks every size so that all rows run in seconds: a check that the script works, no measurement.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from prefdyn.dynamics.adjoint import sensitivity
from prefdyn.dynamics.sweep import sweep
from prefdyn.features import FeatureSet

GROUPS = 20


def features(kind: str, n: int, d: int) -> FeatureSet:
    """Random pairs of either kind in 20 groups, a tenth held out."""
    rng = np.random.default_rng(0)
    common: dict[str, Any] = {"group": np.arange(n) % GROUPS, "held_out": np.arange(n) % 10 == 0}
    drawn = rng.standard_normal((n, d), dtype=np.float32) * np.float32(4 / np.sqrt(d))
    if kind == "responses":
        return FeatureSet.from_arrays(chosen_features=drawn, rejected_features=np.zeros_like(drawn), **common)
    chosen = rng.integers(0, 2, n)
    return FeatureSet.from_arrays(drawn, chosen=chosen, rejected=1 - chosen, tokens=[0, 1], **common)


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def row(name: str, feats: FeatureSet, steps: int, rounds: int, **settings: Any) -> dict[str, Any]:
    """Run, one target, all groups, in turns."""
    common: dict[str, Any] = {"steps": steps, "learning_rate": 1e-3, **settings}
    works: dict[str, Callable[[], Any]] = {
        "run": lambda: sweep(feats, record=[steps], **common),
        "one": lambda: sensitivity(feats, of="all", **common),
        "groups": lambda: sensitivity(feats, of="groups", **common),
    }
    spent: dict[str, list[float]] = {each: [] for each in works}
    for turn in range(rounds + 1):
        for each, work in works.items():
            took = seconds(work)
            if turn:
                spent[each].append(took)
    run = float(np.median(spent["run"]))
    found = sensitivity(feats, of="all", **common)
    return {
        "row": name,
        "route": found.settings["route"],
        "steps": steps,
        "states_held": found.states_held,
        "run_s": run,
        "one_target": float(np.median([one / base for one, base in zip(spent["one"], spent["run"], strict=True)])),
        "twenty_groups": float(np.median([g / base for g, base in zip(spent["groups"], spent["run"], strict=True)])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cut, rounds = (8, 1) if args.small else (1, args.rounds)
    wide, long = features("answers", 2000 // cut, 1024 // cut), features("responses", 2000 // cut, 4096 // cut)
    narrow = features("answers", 8000 // cut, 128)
    for name, feats, steps, settings in (
        ("answers 2000 × 1024, sgd", wide, 100, {}),
        ("answers 2000 × 1024, momentum", wide, 100, {"optimizer": "momentum"}),
        ("answers 2000 × 1024, adam", wide, 100, {"optimizer": "adam"}),
        ("answers 2000 × 1024, adam, batches of 64", wide, 400, {"optimizer": "adam", "batch_size": 64}),
        ("answers 8000 × 128, sgd", narrow, 400, {}),
        ("responses 2000 × 4096, sgd", long, 100, {}),
        ("responses 2000 × 4096, adam", long, 100, {"optimizer": "adam"}),
    ):
        found = row(name, feats, steps, rounds, **settings)
        print(
            json.dumps(
                {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in found.items()}, ensure_ascii=False
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
