"""Do group weights that the head finds hold up in real LoRA runs? Worst group, mean and spread at several seeds.

    uv run python -m scripts.plan_in_training MODEL OUT --persona FILE --hh FILE --public FOLDER [--only 1 2]

Fixed before any run was made:

- Five problems: two mixes of eight Persona behaviours (one with four behaviours a quarter as large), the built-in data,
  LLMBar by part, QA feedback with HH. (Of the convincing arguments a topic side is one prompt, so one unit: no plan.)
  Of every group up to 120 pairs train and 40 are held out,
  whole units at a time; the groups made small keep all their held-out pairs.
- Weights: as given; stratified (every group the same total weight); group-robust (what arXiv:2405.20304 comes to on
  the head, the mean of its weights over the run, the pace of least worst training loss); the plan: `plan weights
  --goal worst` on the training pairs with its defaults, its proposal taken even where it says to keep the weights
  (which is told).
- Runs: LoRA of rank 8 on all linear layers, AdamW, 3e-4, batches of 16, 120 steps, DPO with beta 0.1; seeds 0 to 4
  change batch order and adapter start. Held-out losses of all groups at 12 records.
- Told: the worst group's held-out loss, the mean over groups and the spread, at the last step, and where the mean loss
  is what every way of that seed reaches. The plan is better where its worst group at the last step is below that of
  the best other way (the least by the mean over seeds) with the whole 95 % t-interval over seeds.
- Reliability: rank correlation over (way, group) of the changes against as given, between seeds 0, 2, 4 and 1, 3.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.progress import at_levels, progress
from prefdyn.dynamics.robust import group_robust
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.planning.weights import plan_weights
from prefdyn.training.settings import LoRA
from prefdyn.training.train import train
from scripts.flipped_labels import QA
from scripts.workers import side_by_side

TRAINED, HELD_OUT, SMALL = 120, 40, 30
STEPS, RATE, BATCH = 120, 3e-4, 16
RECORDS = [0, *range(10, STEPS + 1, 10)]
PACES = (0.03, 0.1, 0.3, 1.0)
WAYS = ("as given", "stratified", "group-robust", "plan")
LONGEST = 256
"""Tokens of a prompt with its longer reply; pairs beyond are left out."""


def cut(data: PreferenceDataset, small: int = 0) -> PreferenceDataset:
    """So many pairs of every group, a quarter of them held out; the last `small` groups keep few to train on."""
    share = TRAINED / (TRAINED + HELD_OUT)
    data = data.sample(TRAINED + HELD_OUT, seed=0).with_held_out(share, seed=0)
    if not small:
        return data
    few, left, ids = set(data.groups[-small:]), dict.fromkeys(data.groups, SMALL), []
    for row in data.table.select(["id", "group", "split"]).to_pylist():
        if row["group"] in few and row["split"] == "train":
            left[row["group"]] -= 1
            if left[row["group"]] < 0:
                continue
        ids.append(row["id"])
    return data.select(ids=ids)


def problems(given: argparse.Namespace) -> dict[str, Callable[[], PreferenceDataset]]:
    """By name, read when they are wanted."""

    def behaviours(first: int, small: int) -> PreferenceDataset:
        data = load_dataset(f"persona:{given.persona}")
        return cut(data.select(list(data.groups[first::11][:8])), small)

    def feedback() -> PreferenceDataset:
        answers = load_dataset(given.public / "qa_feedback", columns=QA, skip_bad_rows=True, limit=320)
        talks = load_dataset(f"hh:{given.hh}", skip_bad_rows=True, limit=160)
        return cut(PreferenceDataset.concat([answers, talks], name="QA feedback and HH"))

    return {
        "Persona, eight alike": lambda: behaviours(0, 0),
        "Persona, four of eight small": lambda: behaviours(5, 4),
        "built-in": lambda: cut(load_dataset("builtin")),
        "LLMBar": lambda: cut(load_dataset(given.public / "llmbar")),
        "QA feedback and HH": feedback,
    }


def read_as(data: PreferenceDataset, answers: tuple[str, ...] | None) -> dict[str, Any]:
    """Which tokens the model reads for Yes and No, where these are the answers."""
    return {"answers": answers} if answers and one_token(data) else {}


def one_token(data: PreferenceDataset) -> bool:
    """Whether Yes and No are all that is chosen between."""
    return set(data.table["chosen"].to_pylist()) <= {" Yes", " No"}


def weights(
    data: PreferenceDataset, model: str, answers: tuple[str, ...] | None
) -> tuple[dict[str, dict[str, float]], str]:
    """Factors of every way, and what the plan says of its own."""
    replies = {} if one_token(data) else {"sketch": 1024}
    feats = extract(data, model, max_length=LONGEST, progress=False, **read_as(data, answers), **replies)
    plan = plan_weights(feats, progress=False)
    train, names = ~feats.held_out, feats.groups
    shares = np.bincount(feats.group[train], weights=feats.weight[train], minlength=len(names))
    shares = shares / shares.sum()
    best, least = np.ones(len(names)), np.inf
    for pace in PACES:
        margins, belief = group_robust(feats, plan.setting, plan.steps, pace=pace)
        losses = plan.setting.objective.loss(margins)
        worst = max(losses[rows[train[rows]]].mean() for rows in feats.by_group() if train[rows].any())
        if worst < least:
            best, least = belief / shares, worst
    ways = (np.ones(len(names)), 1 / shares / len(names), best, plan.proposed)
    return {
        way: dict(zip(names, (factors / float(shares @ factors)).round(4).tolist(), strict=True))
        for way, factors in zip(WAYS, ways, strict=True)
    }, plan.because


ADAPTERS = LoRA(rank=8, dropout=0.0, targets=("all-linear",))


def run(given: argparse.Namespace, place: int, way: str, seed: int) -> None:
    """Keep the held-out losses of all groups at every record."""
    data = list(problems(given).values())[place - 1]()
    factors = json.loads(_path(given, place).read_text())["factors"][way]
    found = train(
        data.weighted(factors), given.model, tune="lora", objective=DPO(beta=0.1), learning_rate=RATE, steps=STEPS,
        batch_size=BATCH, lora=ADAPTERS, seed=seed, record=RECORDS,
        probes=(), max_length=LONGEST, dtype="float32", precision="float32", device=given.device, progress=False,
        **read_as(data, given.answers),
    )  # fmt: skip
    names = sorted(factors)
    losses = np.stack([found.curve("loss", group=name, split="held_out")[1] for name in names], axis=1)
    _path(given, place, way, seed).write_text(json.dumps(losses.tolist()))


def _path(given: argparse.Namespace, place: int, *run: Any) -> Path:
    return given.out / f"{'-'.join(map(str, ('problem', place, *run))).replace(' ', '-')}.json"


def told(losses: Mapping[str, np.ndarray]) -> list[str]:
    """Lines of the table of one problem; losses: (seeds, records, groups) of every way."""
    seeds = len(losses["plan"])
    level = np.array([max(progress(losses[way][at])[-1] for way in losses) for at in range(seeds)])

    def numbers(values: np.ndarray) -> tuple[str, str, str]:
        parts = values.max(axis=1), values.mean(axis=1), np.ptp(values, axis=1)
        return tuple(f"{each.mean():.4f} ± {each.std(ddof=1):.4f}" for each in parts)  # type: ignore[return-value]

    lines = []
    for way, values in losses.items():
        equal = np.stack([at_levels(progress(one), one, level[at : at + 1])[0] for at, one in enumerate(values)])
        lines.append(f"| {way} | {' | '.join(numbers(values[:, -1]))} | {equal.max(axis=1).mean():.4f} |")
    worst = {way: values[:, -1].max(axis=1) for way, values in losses.items()}
    other = min((way for way in worst if way != "plan"), key=lambda way: worst[way].mean())
    lead = worst[other] - worst["plan"]
    half = student.ppf(0.975, seeds - 1) * lead.std(ddof=1) / np.sqrt(seeds)
    changes = np.stack([(values - losses["as given"])[:, -1] for way, values in losses.items() if way != "as given"])
    reliable = spearman(changes[:, ::2].mean(axis=1).ravel(), changes[:, 1::2].mean(axis=1).ravel())
    lines.append(
        f"\nPlan against {other}: worst group better by {lead.mean():.4f} ({lead.mean() - half:.4f} to "
        f"{lead.mean() + half:.4f}). Reliability of the changes between halves of the seeds: {reliable:.2f}.\n"
    )
    return lines


def main() -> None:
    """Make the runs that are not there, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--persona", type=Path, required=True)
    parser.add_argument("--hh", type=Path, required=True)
    parser.add_argument("--public", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", help="problems by their place, from 1")
    parser.add_argument("--answers", type=lambda text: tuple(text.split(",")), help="tokens for Yes and No, as Yes,No")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="no run is begun later than this")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    places = {
        at: read for at, read in enumerate(problems(given).items(), start=1) if not given.only or at in given.only
    }
    for place, (_, read) in places.items():
        path = _path(given, place)
        if not path.exists():
            factors, because = weights(read(), given.model, given.answers)
            path.write_text(json.dumps({"factors": factors, "because": because}))
    jobs = [
        (run, (given, place, way, seed))
        for seed in range(given.seeds) for place in places for way in WAYS
        if not _path(given, place, way, seed).exists()
    ]  # fmt: skip
    for line in side_by_side(jobs, given.processes, seconds=given.seconds):
        print(line, flush=True)
    for place, (name, read) in places.items():
        paths = {way: [_path(given, place, way, seed) for seed in range(given.seeds)] for way in WAYS}
        if not given.seeds or not all(path.exists() for each in paths.values() for path in each):
            continue
        losses = {way: np.array([json.loads(path.read_text()) for path in each]) for way, each in paths.items()}
        data, kept = read(), json.loads(_path(given, place).read_text())
        print(f"\n**{name}** ({len(data)} pairs, {len(data.groups)} groups). The plan: {kept['because']}.")
        print(kept["factors"])
        print("| weights | worst | mean | spread | worst at equal mean |\n|---|---|---|---|---|")
        print("\n".join(told(losses)), flush=True)


if __name__ == "__main__":
    main()
