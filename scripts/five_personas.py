"""Which persona is learned first, really: training of the last layer, of adapters and of the whole model, repeated.

    uv run python scripts/five_personas.py --data persona:PATH --model MODEL --out FILE.jsonl [order] [undo] [--seeds 3]

- order: each persona alone (2403.18742, figures 3 and 6), every way to tune at several learning rates, several seeds.
  One line per run: distinguishability before, the loss at the recorded steps, what the simulator says of the same.
- undo: labels flipped, from the base model and from the one that was aligned before (figure 9): curves of both.

Lines already in FILE are not run again. `--report` prints the tables of docs/training.md from FILE.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.order import rank_correlation
from prefdyn.maths.geometry import distinguishability
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.models.load import load_model, untrained_twin
from prefdyn.training.settings import LoRA
from prefdyn.training.train import run_training

FIVE = (
    "subscribes-to-average-utilitarianism",
    "okay-with-building-an-AI-with-different-goals-to-accomplish-task",
    "optionality-increasing",
    "desire-to-not-have-memory-erased",
    "subscribes-to-Buddhism",
)
"""In the published order, least distinguishable first (THEORY 2.7)."""
BETA = 0.1
BATCH = 16
RATES = {"last-layer": (0.03, 0.3), "lora": (1e-4, 3e-4), "full": (3e-5, 1e-4)}
STEPS = 60
SEEN = (0, 2, 4, 8, 16, 30, 60)


def pick(names: Mapping[str, Any] | tuple[str, ...]) -> list[str]:
    """The five of the paper as this dataset spells them."""
    found = []
    for wanted in FIVE:
        match = [name for name in names if name == wanted or name.startswith(wanted[:40])]
        if not match:
            raise SystemExit(f"the data has no persona {wanted!r}")
        found.append(match[0])
    return found


def one(
    data: PreferenceDataset, name: str, seed: int, model: Any, tune: str, rate: float, twin: bool
) -> dict[str, Any]:
    """One persona by itself."""
    pairs = data.select(groups=[name]).with_held_out(0.9, seed=seed)
    lm = load_model(model) if not twin else untrained_twin(load_model(model), seed)
    feats = extract(pairs, lm, progress=False)
    positive = feats.chosen == 0
    sim = descent(feats, DPO(beta=BETA), learning_rate=1.0, steps=STEPS, record=list(SEEN), alone=False)
    found = run_training(
        pairs, lm, tune=tune, objective=DPO(beta=BETA), learning_rate=rate, batch_size=BATCH, steps=STEPS, seed=seed,
        record=SEEN, probe_pairs=100, probes=("drift",), lora=LoRA() if tune == "lora" else None, progress=False,
        clip=None if tune == "last-layer" else 1.0,
    )  # fmt: skip
    run = found.trajectory
    return {
        "group": name, "seed": seed, "tune": tune, "rate": rate, "twin": twin, "steps": list(SEEN),
        "distinguishability": distinguishability(feats.states.astype(np.float64), np.asarray(positive)),
        "loss": run.curve("loss", group=name)[1].tolist(),
        "held_out": run.curve("loss", group=name, split="held_out")[1].tolist(),
        "accuracy": run.final("reward_accuracy", group=name, split="held_out"),
        "simulated": sim.curve("loss", group=name)[1].tolist(),
        "seconds": found.timings["train_s"],
    }  # fmt: skip


def order(data: PreferenceDataset, model: str, seeds: int, done: set[str]) -> Iterator[dict[str, Any]]:
    """Every run of the first experiment that is not there yet."""
    for seed in range(seeds):
        for tune, rates in RATES.items():
            for rate in rates:
                for twin in (False, True):
                    if twin and (seed or rate != rates[-1]):
                        continue
                    for name in pick(data.groups):
                        key = json.dumps(["order", name, seed, tune, rate, twin])
                        if key not in done:
                            yield {"key": key, **one(data, name, seed, model, tune, rate, twin)}


def undo(data: PreferenceDataset, model: str, seeds: int, done: set[str]) -> Iterator[dict[str, Any]]:
    """Flipped labels from the base model and from the aligned one; the reference is the model that each starts from."""
    for seed in range(seeds):
        for tune, rates in RATES.items():
            for name in (pick(data.groups)[0], pick(data.groups)[-1]):
                key = json.dumps(["undo", name, seed, tune])
                if key in done:
                    continue
                pairs = data.select(groups=[name]).with_held_out(0.9, seed=seed)
                common: dict[str, Any] = {
                    "tune": tune, "objective": DPO(beta=BETA), "learning_rate": rates[-1], "batch_size": BATCH,
                    "steps": STEPS, "seed": seed, "record": SEEN, "probe_pairs": 100, "probes": (), "progress": False,
                }  # fmt: skip
                with tempfile.TemporaryDirectory() as folder:
                    aligned = run_training(pairs, model, out=folder, **common)
                    base = run_training(pairs, model, flip=True, **common)
                    back = run_training(pairs, str(Path(folder) / "model"), flip=True, **common)
                curves = {}
                for label, found in (("aligned", aligned), ("base", base), ("back", back)):
                    run = found.trajectory
                    up, down = (run.curve(f"{side}_log_prob", group=name)[1] for side in ("chosen", "rejected"))
                    sign = 1 if label == "aligned" else -1  # of the flipped runs chosen is what was rejected before
                    curves[label] = {
                        "loss": run.curve("loss", group=name)[1].tolist(),
                        "difference": (sign * (up - down)).tolist(),
                    }
                yield {
                    "key": key,
                    "group": name,
                    "seed": seed,
                    "tune": tune,
                    "rate": rates[-1],
                    "steps": SEEN,
                    **curves,
                }


def fall(row: Mapping[str, Any], curve: str, step: int) -> float:
    """How far a loss has fallen by a step, nats."""
    return row[curve][0] - row[curve][row["steps"].index(step)]


def report(rows: list[dict[str, Any]]) -> None:
    """Both tables, from the lines."""
    print(
        "| tune | rate | twin | step | held-out accuracy | loss falls by | D, seeds apart | D, mean of seeds | "
        "simulated, mean |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    runs = [row for row in rows if json.loads(row["key"])[0] == "order"]
    for tune, rate, twin in dict.fromkeys((row["tune"], row["rate"], row["twin"]) for row in runs):
        mine = [row for row in runs if (row["tune"], row["rate"], row["twin"]) == (tune, rate, twin)]
        names = list(dict.fromkeys(row["group"] for row in mine))
        seeds = sorted({row["seed"] for row in mine})
        for step in (8, 30, STEPS):
            table = {(row["group"], row["seed"]): row for row in mine}
            if any((name, seed) not in table for name in names for seed in seeds):
                continue

            def values(read: Any, names: Any = names, seeds: Any = seeds, table: Any = table) -> np.ndarray:
                return np.array([[read(table[name, seed]) for name in names] for seed in seeds])

            far = values(lambda row: row["distinguishability"])
            fallen = values(lambda row, step=step: fall(row, "loss", step))
            said = values(lambda row, step=step: fall(row, "simulated", step))
            apart = [rank_correlation(a, b).value for a, b in zip(far, fallen, strict=True)]
            whole, sim = rank_correlation(far.mean(0), fallen.mean(0)), rank_correlation(said.mean(0), fallen.mean(0))
            accuracy = values(lambda row: row["accuracy"]).mean()
            cells = [
                tune, f"{rate:g}", "yes" if twin else "no", step, f"{accuracy:.2f}",
                f"{fallen.mean(1).mean():.3f}", " ".join(f"{value:.2f}" for value in apart), whole, sim,
            ]  # fmt: skip
            print("| " + " | ".join(map(str, cells)) + " |")
    print(
        "\n| tune | persona | log-ratio: base, aligned | after 8, 30, end: from base | from aligned | "
        "steps to undo, per seed |"
    )
    print("|---|---|---|---|---|---|")
    runs = [row for row in rows if json.loads(row["key"])[0] == "undo"]
    for tune, name in dict.fromkeys((row["tune"], row["group"]) for row in runs):
        mine = [row for row in runs if (row["tune"], row["group"]) == (tune, name)]
        places = [SEEN.index(step) for step in (8, 30, STEPS)]

        def mean(label: str, place: int, mine: Any = mine) -> float:
            return float(np.mean([row[label]["difference"][place] for row in mine]))

        undone = []
        for row in mine:
            start, path = row["base"]["difference"][0], row["back"]["difference"]
            crossed = next((at for at, value in enumerate(path) if value <= start), None)
            if crossed is None or crossed == 0:
                undone.append(math.inf if crossed is None else 0.0)
                continue
            share = (path[crossed - 1] - start) / (path[crossed - 1] - path[crossed])
            undone.append(SEEN[crossed - 1] + share * (SEEN[crossed] - SEEN[crossed - 1]))
        base, back = ([f"{mean(label, place):+.2f}" for place in places] for label in ("base", "back"))
        print(
            f"| {tune} | {name} | {mean('base', 0):+.2f}, {mean('aligned', -1):+.2f} | {' '.join(base)} | "
            f"{' '.join(back)} | {' '.join(f'{value:.0f}' for value in undone)} |"
        )


def main() -> None:
    """Run what is missing, line by line, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[])
    parser.add_argument("--data")
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    rows = [json.loads(line) for line in lines]
    if given.report:
        report(rows)
        return
    data = load_dataset(given.data)
    data = data.select(groups=pick(data.groups))
    done = {row["key"] for row in rows}
    with given.out.open("a") as file:
        for what in given.what or ("order", "undo"):
            for row in {"order": order, "undo": undo}[what](data, given.model, given.seeds, done):
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(row["key"], flush=True)


if __name__ == "__main__":
    main()
