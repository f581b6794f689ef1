"""How well derivatives foretell what leaving pairs out does: the linear datamodelling score on built-in and real data.

    uv run python scripts/lds.py [--data SPEC …] [--model MODEL] [--groups 8] [--pairs 250] [--steps 100]

For each dataset: features of the model, a fifth of the pairs of each group held out, DPO on the head, then random 1, 10
and 50 % of the training pairs left out, simulated, and compared with what the exact derivative and the first step's say
of each group's held-out loss. Prints the table of docs/whatif.md, one line per dataset, optimizer and share.
Without `--data`: `builtin` and `builtin:responses` under the built-in model. `--groups` and `--pairs` bound the size:
the first groups of the data, and so many pairs of each.
"""

import argparse
import time
from typing import Any

from prefdyn.data.loaders import load_dataset
from prefdyn.dynamics.datamodel import lds
from prefdyn.models.extract import extract

SHARES = (0.01, 0.1, 0.5)
COLUMNS = (
    "data", "pairs, groups", "optimizer", "left out", "exact: mean", "lowest", "first step: mean", "lowest",
    "spread, nats",
)  # fmt: skip


def one(spec: str, model: str, given: argparse.Namespace) -> None:
    """The lines of one dataset."""
    data = load_dataset(spec, skip_bad_rows=True)
    if len(data.groups) > given.groups:
        data = data.select(groups=list(data.groups[: given.groups]))
    data = data.sample(given.pairs, seed=0).with_held_out(0.8, seed=0)
    feats = extract(data, model, progress=False)
    name = spec.split("/")[-1]
    for optimizer, rate in (("sgd", "auto"), ("adam", given.adam_rate)):
        settings: dict[str, Any] = {"optimizer": optimizer, "learning_rate": rate, "steps": given.steps}
        start = time.perf_counter()
        for score in lds(feats, shares=SHARES, subsets=given.subsets, **settings):
            exact, first = score.rows()
            print(
                f"| {name} | {len(feats)}, {len(score.targets)} | {optimizer} | {score.share:.0%} | "
                f"{exact['score']:.3f} | {exact['lowest']:.3f} | {first['score']:.3f} | {first['lowest']:.3f} | "
                f"{score.spread.mean():.1g} |",
                flush=True,
            )
        print(f"<!-- {name} {optimizer}: {time.perf_counter() - start:.0f} s -->", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=250)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--adam-rate", type=float, default=1e-3)
    given = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for spec in given.data or ("builtin", "builtin:responses"):
        one(spec, given.model, given)


if __name__ == "__main__":
    main()
