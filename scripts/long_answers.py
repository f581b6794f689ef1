"""What an audit of long answers finds on real data: verdicts with their controls, exact against first order, cost.

    uv run python scripts/long_answers.py --hh FILE --demo FILE --model MODEL [--model MODEL] [--exact 50] --out FOLDER

Two datasets: HH-RLHF and a second source as two groups (`sources`), and HH-RLHF by the number of turns of its prompt as
three (`turns`). Every audit stands beside that of the untrained twin. Folders that are there already are not run again;
what is printed are the tables of docs/long_answers.md. With `--sketch-gap 200` only the sketch is looked at: 200 pairs
are simulated with it and without.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset

TURNS = ("1 turn", "2 turns", "3 or more turns")


def datasets(hh: str, demo: str) -> dict[str, PreferenceDataset]:
    """The two datasets by name."""
    rows = load_dataset(f"hh:{hh}", skip_bad_rows=True).table.to_pylist()
    keys = ("prompt", "chosen", "rejected")
    turns = [
        {**{key: row[key] for key in keys}, "group": TURNS[min(row["prompt"].count("\n\nHuman:"), len(TURNS)) - 1]}
        for row in rows
    ]
    return {
        "sources": load_dataset([f"hh=hh:{hh}", f"demo={demo}"], skip_bad_rows=True),
        "turns": PreferenceDataset.from_rows(turns, name="hh by turns"),
    }


def one(name: str, given: argparse.Namespace, model: str, out: Path) -> None:
    """One audit, in a process of its own so that its memory is its own."""
    from prefdyn.planning.audit import audit

    data = datasets(given.hh, given.demo)[name]
    start = time.perf_counter()
    found = audit(data, model, exact=given.exact, untrained_twin=True)
    took = time.perf_counter() - start
    out.mkdir(parents=True)
    found.write(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (out / "cost.json").write_text(json.dumps({"seconds": took, "peak_gib": peak}))


def sketch_gap(data: PreferenceDataset, model: str, pairs: int) -> None:
    """How far the sketched loss curves are from the unsketched ones on the same pairs, in nats."""
    from prefdyn.dynamics.descent import descent, stable_learning_rate
    from prefdyn.maths.objectives import DPO
    from prefdyn.models.extract import extract

    feats = extract(data, model)
    train = np.flatnonzero(~feats.held_out)[:pairs]
    held = np.flatnonzero(feats.held_out)[: pairs // 4]
    some = data.select(ids=feats.id[np.sort(np.concatenate([train, held]))])
    without, sketched = extract(some, model, sketch=0), extract(some, model)
    rate = stable_learning_rate(without, DPO()) / 2
    runs = [descent(each, learning_rate=rate, steps=100, alone=False) for each in (without, sketched)]
    error = sketched.provenance.settings["sketch_error"]
    print(
        f"\nSketch against none on {len(train)} training and {len(held)} held-out pairs, 100 steps at rate {rate:.4g} "
        f"(a quarter of the stable limit). Kernel error {error['rms']:.4f}, by the law {error['expected']:.4f}."
    )
    for split in ("train", "held_out"):
        first, second = (run.where(run="joint").to_pylist() for run in runs)
        apart = [
            abs(one["loss"] - two["loss"]) for one, two in zip(first, second, strict=True) if one["split"] == split
        ]
        print(f"- group losses, {split}: at most {max(apart):.4f} nats apart")


def tables(folder: Path) -> None:
    """Markdown of one audit."""
    summary, cost = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "cost"))
    kept, lost = summary["dataset"]["pairs"], len(summary["dataset"]["left_out"])
    print(f"\n### {folder.name}: {kept} pairs, {lost} left out; {cost['seconds']:.0f} s, {cost['peak_gib']:.2f} GiB\n")
    print(
        "| group | pairs | verdict | z, twin's | probe, twin's | words | length | reference | loss train → held out |"
    )
    print("|---|--:|---|--:|--:|--:|--:|--:|---|")
    for row in summary["groups"]:
        numbers = (
            f"{row['null_z']:.1f}, {row['untrained_null_z']:.1f} | {row['probe_accuracy']:.2f}, "
            f"{row['untrained_probe_accuracy']:.2f} | {row['words_accuracy']:.2f} | {row['length_accuracy']:.2f} | "
            f"{row['reference_accuracy']:.2f} | "
            f"{row['predicted_final_loss']:.3f} → {row['predicted_held_out_loss']:.3f}"
        )
        print(f"| {row['name']} | {row['pairs']} | {row['verdict']} | {numbers} |")
    error = summary["features"]["sketch_error"]
    print(f"\nSketch error {error['rms']:.4f} (law {error['expected']:.4f}); timings {summary['timings']}")
    if summary["exact"] is not None:
        print(f"Exact head training on {summary['exact']['pairs']} pairs: gap {shown(summary['exact']['gap'])}")
        foreseen = summary["displacement"]
        for name in ("first_step", "ches"):
            part = foreseen[name]
            print(f"- {name} against exact change: {part['spearman']:.2f} [{part['low']:.2f}, {part['high']:.2f}]")


def shown(values: dict[str, Any]) -> str:
    """Numbers by name."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def main() -> None:
    """Run what is missing, print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hh", required=True)
    parser.add_argument("--demo", required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--exact", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sketch-gap", type=int, default=0, help="pairs on which sketched curves meet unsketched ones")
    parser.add_argument("--only", nargs=2, metavar=("DATASET", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        one(given.only[0], given, given.model[0], Path(given.only[1]))
        return
    for model in given.model:
        if given.sketch_gap:
            sketch_gap(datasets(given.hh, given.demo)["turns"].with_held_out(0.9, seed=0), model, given.sketch_gap)
            continue
        for name in ("sources", "turns"):
            folder = given.out / f"{name}-{Path(model).name}"
            if not folder.exists():
                again = [sys.executable, __file__, "--hh", given.hh, "--demo", given.demo, "--model", model]
                again += ["--exact", str(given.exact), "--out", str(given.out), "--only", name, str(folder)]
                subprocess.run(again, check=True)
            tables(folder)


if __name__ == "__main__":
    main()
