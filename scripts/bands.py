"""Does the band of a group foretell what training does to its chosen replies, in the head and in adapters?

`uv run python scripts/bands.py MODEL DATA…` trains every group of each dataset by itself, the head exactly and with
LoRA, and prints per group where the band begins (every loss of the margin stands at 0), the first step's push, CHES,
and the mean change of the chosen log-probability after training, with the rank correlations over the groups of all
datasets. Set before the runs: 40 pairs per group, 20 full-batch steps, the head at the stable rate, LoRA (r = 8) at
1e-3 with AdamW.
"""

import argparse
import math
from collections import Counter

import numpy as np

from prefdyn.data.loaders import load_dataset
from prefdyn.diagnostics.displacement import displacement
from prefdyn.diagnostics.prioritization import pair_pushes
from prefdyn.dynamics.descent import stable_learning_rate
from prefdyn.dynamics.order import rank_correlation
from prefdyn.maths.objectives import DPO
from prefdyn.maths.optimizers import SGD, AdamW
from prefdyn.models.extract import extract
from prefdyn.training.train import run_training

PAIRS, STEPS = 40, 20


def main() -> None:
    """Train group by group and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--groups", type=int, help="the largest so many of each dataset")
    given = parser.parse_args()
    rows: list[list[float]] = []
    print(
        "| group | pairs | low end | says | first step | CHES | head | LoRA |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for source in given.data:
        data = load_dataset(source, skip_bad_rows=True)
        sizes = Counter(data.table["group"].to_pylist())
        for group in [name for name, _ in sizes.most_common(given.groups)]:
            part = data.select(groups=[group]).sample(given.pairs)
            feats = extract(part, given.model, progress=False, sketch=1024)
            part = part.select(ids=feats.id)
            rate = stable_learning_rate(feats, DPO())
            pushes = pair_pushes(feats, beta=0.1, learning_rate=rate)
            (row,) = displacement(feats, pushes).rows()
            changes = []
            for tune, learning_rate, optimizer in (("last-layer", rate, SGD()), ("lora", 1e-3, AdamW())):
                run = run_training(
                    part, given.model, tune=tune, objective=DPO(), learning_rate=learning_rate, optimizer=optimizer,
                    steps=STEPS, batch_size="full", save=False, progress=False,
                )  # fmt: skip
                changes.append(float(np.mean(run.chosen - run.pairs.ref_chosen)))
            low = -math.inf if row["band_low"] is None else row["band_low"]
            rows.append([low, row["chosen_push"], row["ches"], *changes])
            shown = [f"{value:.3g}" for value in (row["chosen_push"], row["ches"], *changes)]
            print(f"| {group} | {len(part)} | {low:.3g} | {row['band_says']} | {' | '.join(shown)} |", flush=True)
    low, push, ches, head, lora = np.array(rows).T
    for name, foretold in (("band (minus its low end)", -low), ("first step", push), ("CHES, sign turned", -ches)):
        for what, found in (("head", head), ("LoRA", lora)):
            print(f"{name} and the change of the chosen reply, {what}: {rank_correlation(foretold, found)}")


if __name__ == "__main__":
    main()
