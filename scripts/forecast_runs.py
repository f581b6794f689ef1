"""How good forecasts are: real LoRA and full runs with five seeds, and what each way to foretell them was off by.

    uv run python -m scripts.forecast_runs MODEL OUT --persona FILE --hh FILE [--answers Yes,No] [--rates gemma]
        [--device cuda] [--processes 8] [--seconds 500] [--only 'first eight/lora']

The rules, fixed before any of these runs was made (earlier runs, on two choices of eight personas and one model, chose
what a forecast is made of; docs/forecast.md):

- Data: the first eight personas by name, the next eight, and HH by the turns of a dialogue in three groups (one, two,
  more); 150 pairs of each: 100 to train on, 50 held out, whole units at a time.
- Runs: LoRA of rank 16 on all linear layers, or the whole model; AdamW, batches of 16, 100 steps, clip 1, DPO with beta
  0.1, float32. Seeds 0, 100, 200, 300, 400 change batch order and adapter start, nothing else. Measured at 16 steps, on
  all held-out pairs.
- Rates: a ladder of four for each way to tune, each run once (seed 0). What can be learned is the largest fall of
  the mean held-out loss that any of them reaches. *Half*: the rate whose fall is nearest to half of it. *Nearly all*:
  the smallest whose fall is at least nine tenths of it. Where these are one rate, it stands once.
- The forecast is `prefdyn forecast` with its defaults and seed 0. It is held against the mean over the five runs, at
  25, 50, 75 and 100 % of the fall that every run reaches: mean absolute error over groups, error of the worst group,
  and rank correlation of groups. D is the mean absolute difference between two of the runs there.
- Beside it: all groups equal; the head alone by full-batch descent; a linear run from the start; every group's losses
  in the probe carried on by an exponential with a floor, and by a power law; the mean of the rehearsals; each other
  seed (against the mean of the rest).
- Bands: share of (run, group, level) inside the 90 % band over the vouched levels past a tenth of the fall; seed 0 is
  the run that was begun, the others are other seeds. Clock: foretold step over the median real one at the last level
  that is told. Order: what the held-out pairs themselves allow is the rank correlation of two draws with their standard
  errors.
"""

import argparse
import gzip
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.optimize import curve_fit

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.progress import apart, at_levels, progress
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.planning.forecast import forecast, sample_of
from prefdyn.settings import Reading
from prefdyn.training.linear import foretell, linearise, records_between
from prefdyn.training.loop import check_start
from prefdyn.training.probes import probe_rows
from prefdyn.training.rehearse import Bench, RunPart, run_at
from prefdyn.training.settings import LoRA
from prefdyn.training.subjects import Models, whole_model
from scripts.workers import Job, side_by_side

SHARES = (0.25, 0.5, 0.75, 1.0)
PAIRS, BATCH, STEPS, LONGEST = 150, 16, 100, 256
SEEDS = (0, 100, 200, 300, 400)
RATES = {
    "small": {"lora": (1e-4, 3e-4, 1e-3, 3e-3), "full": (1e-5, 3e-5, 1e-4, 3e-4)},
    "gemma": {"lora": (3e-5, 1e-4, 3e-4, 1e-3), "full": (3e-6, 1e-5, 3e-5, 1e-4)},
}
DATA = ("first eight", "next eight", "HH")
WAYS = ("half", "nearly all")


@dataclass(frozen=True)
class Case:
    """One run but for its seed."""

    data: str
    tune: str
    rate: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.data.replace(' ', '-')}-{self.tune}-{self.rate:g}"


@dataclass(frozen=True)
class Place:
    """Where everything lies, and on what it is run."""

    model: str
    out: Path
    persona: Path
    hh: Path
    answers: tuple[str, ...] | None
    device: str

    def pairs(self, name: str) -> PreferenceDataset:
        """The pairs, with their split."""
        if name == "HH":
            found = by_turns(load_dataset(f"hh:{self.hh}", skip_bad_rows=True))
        else:
            with gzip.open(self.persona, "rt", encoding="utf-8") as file:
                names = sorted({json.loads(line)["persona"] for line in file})
            first = 8 * DATA.index(name)
            found = load_dataset(f"persona:{self.persona}").select(names[first : first + 8])
        return found.sample(PAIRS, seed=0).with_held_out(2 / 3, seed=0)

    def reading(self, data: str) -> dict[str, Any]:
        """How the model reads it."""
        answers = {"answers": self.answers} if self.answers and data != "HH" else {}
        return {"device": self.device, "dtype": "float32", "max_length": LONGEST, **answers}


def by_turns(data: PreferenceDataset) -> PreferenceDataset:
    """HH in three groups; dialogues that the model would not read whole are left to `max_length`."""
    turns = [text.count("\n\nHuman:") for text in data.table["prompt"].to_pylist()]
    names = [("one turn", "two turns", "more turns")[min(each, 3) - 1] for each in turns]
    rows = [{**row, "group": name} for row, name in zip(data.to_rows(), names, strict=True)]
    short = [row for row in rows if len(row["prompt"]) + max(len(row["chosen"]), len(row["rejected"])) < 800]
    return PreferenceDataset.from_rows(short, name="HH by turns")


def chosen(case: Case, seed: int) -> dict[str, Any]:
    """Settings of one run."""
    found: dict[str, Any] = {
        "learning_rate": case.rate, "steps": STEPS, "batch_size": BATCH, "seed": seed, "precision": "float32"
    }  # fmt: skip
    return found | ({"lora": LoRA()} if case.tune == "lora" else {})


def looked_at(pairs: Any, count: Any, *, seed: int) -> np.ndarray:
    """Pairs of every run and forecast, whichever its seed."""
    return probe_rows(pairs, count, seed=0)


# making --------------------------------------------------------------------------------------------------------------


def keep(path: Path, **parts: RunPart) -> None:
    """Write runs; a file that is there is whole."""
    arrays = {f"{name}/steps": part.steps for name, part in parts.items()}
    arrays |= {f"{name}/{key}": values for name, part in parts.items() for key, values in part.values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half.npz")
    np.savez(half, **arrays)  # type: ignore[arg-type]
    half.rename(path)


def kept(path: Path) -> dict[str, RunPart]:
    """What `keep` wrote, by name."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as held:
        for key in held.files:
            name, quantity = key.split("/")
            found.setdefault(name, {})[quantity] = held[key]
    return {name: RunPart(steps=part.pop("steps"), values=part) for name, part in found.items()}


def bench_of(place: Place, case: Case, seed: int) -> tuple[Bench, np.ndarray]:
    """What is trained, and the sampled pairs, those that are measured last."""
    data = place.pairs(case.data)
    models = Models.of(place.model, Reading(**place.reading(case.data)), share=True, progress=False, tell=None)
    rest = {**chosen(case, seed), "flip": False, "probes": (), "probe_pairs": 64}
    subject, settings = whole_model(data, models, DPO(beta=0.1), None, case.tune, rest)
    looked = looked_at(subject.pairs, 64, seed=seed)
    sample = sample_of(data, subject, looked)
    rows = np.concatenate([looked[~subject.pairs.held_out[looked]], sample.rows])
    return Bench.of(subject, settings, sample), rows


def real(place: Place, case: Case, seed: int) -> None:
    """A run to its end."""
    began = time.monotonic()
    bench, _ = bench_of(place, case, seed)
    loop = bench.loop(bench.settings)
    check_start(loop.start(), bench.settings)
    parts = {"run": bench.run(loop, STEPS, records_between(0, STEPS, 16), label="Run", progress=False)}
    keep(place.out / case.name / f"run-{seed}.npz", **parts)
    print(f"{case.name}, run {seed}: {time.monotonic() - began:.0f} s", flush=True)


def linear(place: Place, case: Case) -> None:
    """The run made linear at its start."""
    bench, rows = bench_of(place, case, 0)
    loop = bench.loop(bench.settings)
    begun = linearise(bench.subject, loop, rows)
    found = foretell(begun, loop, bench.sample, stretch=2, records=records_between(0, 2 * STEPS, 20))
    keep(place.out / case.name / "linear.npz", linear=found)


def foretold(place: Place, case: Case) -> None:
    """The forecast with its defaults, and how long it took."""
    folder = place.out / case.name / "forecast"
    began = time.monotonic()
    with patch("prefdyn.planning.forecast.probe_rows", looked_at):
        found = forecast(
            place.pairs(case.data), place.model, tune=case.tune, objective=DPO(beta=0.1), probe_pairs=64,  # type: ignore[arg-type]
            progress=False, **place.reading(case.data), **chosen(case, 0),
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    found.write(folder)
    parts = {f"rehearsal-{at}": each for at, each in enumerate(found.rehearsals)}
    parts |= {"probe": found.probe} | ({} if found.linear is None else {"linear": found.linear})
    keep(folder / "parts.npz", **parts)
    print(f"{case.name}, forecast: {time.monotonic() - began:.0f} s, {dict(found.timings)}: {found.says()}", flush=True)


def head(place: Place, data: str) -> None:
    """The head alone, by full-batch descent."""
    replies = {} if data != "HH" else {"sketch": 1024}
    feats = extract(place.pairs(data), place.model, progress=False, **place.reading(data), **replies)
    run = descent(feats, DPO(beta=0.1), steps=2000, alone=False)
    curves = [run.curve("loss", group=name, split="held_out") for name in feats.groups]
    found = RunPart(steps=curves[0][0], values={"loss": np.stack([values for _, values in curves], axis=1)})
    keep(place.out / f"head-{data.replace(' ', '-')}.npz", head=found)


def rates(place: Place, data: str, tune: str, ladder: Sequence[float]) -> dict[str, float] | None:
    """The rates that learn about half of what can be learned, and nearly all; None before the ladder is run."""
    paths = [place.out / Case(data, tune, rate).name / "run-0.npz" for rate in ladder]
    if not all(path.exists() for path in paths):
        return None
    falls = []
    for path in paths:
        reached = progress(kept(path)["run"].values["loss"])
        falls.append(reached[0] - reached[-1])
    most = max(falls)
    half = min(ladder, key=lambda rate: abs(falls[ladder.index(rate)] - most / 2))
    nearly = next(rate for rate, fall in zip(ladder, falls, strict=True) if fall >= 0.9 * most)
    return {"half": half, "nearly all": nearly}


class Work:
    """Jobs as they become known, case by case: a ladder first, then what its rates are run with."""

    def __init__(self, place: Place, ladders: dict[str, tuple[float, ...]], only: Sequence[str]) -> None:
        self.place, self.ladders, self.given = place, ladders, set[Any]()
        every = [f"{data}/{tune}" for tune in ladders for data in DATA]
        self.cases = [tuple(name.split("/")) for name in only or every]

    def jobs(self) -> Iterator[Job]:
        """Those that are not done and were not given before."""
        place = self.place
        for data, tune in self.cases:
            for rate in self.ladders[tune]:
                yield from self._once(Case(data, tune, rate), "run-0.npz", real, 0)
            found = rates(place, data, tune, self.ladders[tune])
            for rate in dict.fromkeys((found or {}).values()):
                case = Case(data, tune, rate)
                yield from self._once(case, "forecast/parts.npz", foretold)
                for seed in SEEDS[1:]:
                    yield from self._once(case, f"run-{seed}.npz", real, seed)
                yield from self._once(case, "linear.npz", linear)

    def _once(self, case: Case, file: str, work: Callable[..., Any], *rest: Any) -> Iterator[Job]:
        key = (case, file)
        if key not in self.given and not (self.place.out / case.name / file).exists():
            self.given.add(key)
            yield work, (self.place, case, *rest)


# judging -------------------------------------------------------------------------------------------------------------


def carried_on(probe: RunPart, law: Callable[..., np.ndarray], most: Sequence[float]) -> RunPart | None:
    """Every group's losses in the probe carried on by a law of the step; None where it cannot be fitted.

    The parameters beside the loss at the start lie between 0 and `most`.
    """
    steps = np.arange(0, 4 * STEPS + 1, 2)
    columns = []
    for column in probe.values["loss"].T:
        high = [2 * column[0], *most]
        first = [column[0], *(0.1 * each for each in most)]
        try:
            found, _ = curve_fit(law, probe.steps, column, p0=first, bounds=(0, high), maxfev=20_000)
        except RuntimeError:
            return None
        columns.append(law(steps, *found))
    return RunPart(steps=steps, values={"loss": np.stack(columns, axis=1)})


def exponential(t: np.ndarray, start: float, floor: float, pace: float) -> np.ndarray:
    """A loss that falls to a floor, or rises to one."""
    return floor + (start - floor) * np.exp(-pace * t)


def power(t: np.ndarray, start: float, pace: float, exponent: float) -> np.ndarray:
    """A loss that falls as a power of the step."""
    return start * (1 + pace * t) ** -exponent


def score(told: np.ndarray, truth: np.ndarray) -> list[list[float]]:
    """Mean absolute error, error of the worst group and rank correlation at every share; NaN where it is not told."""
    errors = apart(told, truth)
    worst = np.abs(told - truth).max(axis=1)
    ranks = [
        spearman(one, other) if np.isfinite(one).all() and np.ptp(one) > 1e-12 else np.nan
        for one, other in zip(told, truth, strict=True)
    ]
    return [list(each) for each in zip(errors.tolist(), worst.tolist(), ranks, strict=True)]


def judge(place: Place, case: Case) -> dict[str, Any] | None:
    """Everything that is told of one case; None where runs or forecast are not there."""
    folder = place.out / case.name
    paths = [folder / f"run-{seed}.npz" for seed in SEEDS]
    if not all(path.exists() for path in paths) or not (folder / "forecast" / "parts.npz").exists():
        return None
    runs = [kept(path)["run"] for path in paths]
    parts = kept(folder / "forecast" / "parts.npz")
    told = Foretold.read(json.loads((folder / "forecast" / "summary.json").read_text()))
    reached = [progress(run.values["loss"]) for run in runs]
    start, end = float(np.mean([each[0] for each in reached])), max(float(each[-1]) for each in reached)
    levels = start - np.array(SHARES) * (start - end)
    at = np.stack([run_at(run, levels) for run in runs])
    truth = at.mean(axis=0)
    ways: dict[str, Any] = {"all groups equal": score(np.repeat(truth.mean(axis=1)[:, None], truth.shape[1], 1), truth)}
    alone = place.out / f"head-{case.data.replace(' ', '-')}.npz"
    begun = folder / "linear.npz"
    others: dict[str, RunPart | None] = {
        "head alone": kept(alone)["head"] if alone.exists() else None,
        "linear from the start": kept(begun)["linear"] if begun.exists() else None,
        "probe, exponential": carried_on(parts["probe"], exponential, (2.0, 1.0)),
        "probe, power law": carried_on(parts["probe"], power, (1.0, 5.0)),
        "linear from the probe": parts.get("linear"),
    }
    ways |= {name: score(run_at(run, levels), truth) for name, run in others.items() if run is not None}
    rehearsed = [run_at(part, levels) for name, part in parts.items() if name.startswith("rehearsal")]
    if rehearsed:
        ways["mean of the rehearsals"] = score(np.mean(rehearsed, axis=0), truth)
    band = told.band
    ways["forecast"] = score(at_levels(band.levels, band.centre, levels), truth)
    rest = [score(one, np.delete(at, place_, axis=0).mean(axis=0)) for place_, one in enumerate(at)]
    ways["another seed"] = np.mean(rest, axis=0).tolist()
    couples = [apart(at[i], at[j]) for i in range(len(at)) for j in range(i)]
    orders = [
        [spearman(at[i][level], at[j][level]) for level in range(len(levels))] for i in range(len(at)) for j in range(i)
    ]
    return {
        "case": case.name, "start": start, "end": end, "seeds_end": [float(each[-1]) for each in reached],
        "D": np.mean(couples, axis=0).tolist(), "order_of_two_runs": np.mean(orders, axis=0).tolist(),
        "order_of_two_samples": allowed(runs, levels), "ways": ways, "bands": bands(told, runs),
        "clock": clock(told, runs), "vouched": vouched(told, start, end), "says": told.summary["forecast"]["says"],
        "cost": told.summary["forecast"]["cost"], "timings": told.summary["timings"],
    }  # fmt: skip


def allowed(runs: list[RunPart], levels: np.ndarray) -> list[float]:
    """Mean rank correlation of the groups' mean losses with themselves on two other draws of held-out pairs."""
    draws = np.random.default_rng(0)
    centre = np.mean([run_at(run, levels) for run in runs], axis=0)
    error = np.mean([run_at(run, levels, "error") for run in runs], axis=0)
    found = []
    for _ in range(200):
        one, two = (centre + error * draws.standard_normal(centre.shape) for _ in range(2))
        found.append([spearman(a, b) for a, b in zip(one, two, strict=True)])
    return np.mean(found, axis=0).tolist()


def bands(told: Foretold, runs: list[RunPart]) -> dict[str, list[int]]:
    """Groups inside their bands, and all, at the vouched levels past a tenth of the fall that a run reaches."""
    band = told.band
    known = np.flatnonzero(band.vouched)
    found = {"own": [0, 0], "others": [0, 0]}
    if len(known) < 2:
        return found
    far = band.levels[0] - band.levels[known] > 0.1 * (band.levels[0] - band.levels[known[-1]])
    use = known[far]
    for place, run in enumerate(runs):
        near = np.abs(run_at(run, band.levels[use]) - band.centre[use]) <= band.half_width[use]
        there = np.isfinite(run_at(run, band.levels[use])).all(axis=1)
        entry = found["own" if place == 0 else "others"]
        entry[0] += int(near[there].sum())
        entry[1] += int(near[there].size)
    return found


def clock(told: Foretold, runs: list[RunPart]) -> dict[str, Any] | None:
    """Foretold step over the median real one at the last level that both have, and the runs inside the interval."""
    levels = told.band.levels
    steps = np.stack([at_levels(progress(run.values["loss"]), run.steps.astype(float), levels) for run in runs])
    known = np.flatnonzero(np.isfinite(steps).all(axis=0) & np.isfinite(told.clock[0]) & (steps > 0).all(axis=0))
    if not len(known):
        return None
    at = known[-1]
    low, high = told.clock[1:, at]
    return {
        "ratio": float(told.clock[0, at] / np.median(steps[:, at])),
        "inside": int(((steps[:, at] >= low) & (steps[:, at] <= high)).sum()),
        "seeds": (float(steps[:, at].min()), float(steps[:, at].max())),
    }


def vouched(told: Foretold, start: float, end: float) -> float:
    """How far the forecast vouches for itself, as a share of the fall that every run reaches."""
    known = np.flatnonzero(told.band.vouched)
    return float((start - told.band.levels[known[-1]]) / (start - end)) if len(known) else 0.0


TOLD = {
    "forecast": "forecast", "own": "linear from the probe", "rehearsals": "mean of the rehearsals",
    "linear": "linear from the start", "head": "head alone", "exponential": "probe, exponential",
    "power law": "probe, power law", "all equal": "all groups equal", "another seed": "another seed",
}  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Every case in a line and all in one, as Markdown: errors over D at 25 / 50 / 75 % of the fall."""

    def shown(values: np.ndarray, digits: int = 2) -> str:
        return " / ".join("–" if not np.isfinite(each) else f"{each:.{digits}f}" for each in values)

    def part(each: dict[str, Any], name: str, column: int) -> np.ndarray:
        known = each["ways"].get(name)
        return np.full(3, np.nan) if known is None else np.array(known)[:3, column]

    over = {
        name: np.array([part(each, way, 0) / np.array(each["D"][:3]) for each in found]) for name, way in TOLD.items()
    }
    order = np.array([part(each, "forecast", 2) for each in found])
    pair = np.array([each["order_of_two_runs"][:3] for each in found])
    inside = np.array([np.add(*each["bands"].values()) for each in found])
    lines = [
        f"| run | mean loss | D | {' | '.join(TOLD)} | order: forecast | two runs | inside bands | reach | clock |",
        "|---" * (len(TOLD) + 8) + "|",
    ]
    for place, each in enumerate(found):
        entries = [each["case"], f"{each['start']:.3f} → {each['end']:.3f}", shown(np.array(each["D"][:3]), 4)]
        entries += [shown(values[place]) for values in over.values()]
        told = each["clock"]
        entries += [shown(order[place]), shown(pair[place]), f"{inside[place, 0]} of {inside[place, 1]}"]
        entries += [f"{100 * each['vouched']:.0f} %", "–" if told is None else f"× {told['ratio']:.2f}"]
        lines.append(f"| {' | '.join(entries)} |")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a way that no case has
        means = [shown(np.nanmean(values, axis=0)) for values in over.values()]
        means += [shown(np.nanmean(order, axis=0)), shown(pair.mean(axis=0))]
    whole = inside.sum(axis=0)
    lines.append(f"| mean | | | {' | '.join(means)} | {100 * whole[0] / max(1, whole[1]):.1f} % | | |")
    return "\n".join(lines)


def main() -> None:
    """Make the runs that are not there, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--persona", type=Path, required=True)
    parser.add_argument("--hh", type=Path, required=True)
    parser.add_argument("--answers", help="tokens to read for Yes and No, as Yes,No")
    parser.add_argument("--rates", choices=list(RATES), default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="no run is begun later than this")
    parser.add_argument("--only", nargs="*", default=(), help="data/tune, as 'HH/full'")
    parser.add_argument("--judge", action="store_true", help="make no run, only the table")
    given = parser.parse_args()
    answers = tuple(given.answers.split(",")) if given.answers else None
    place = Place(given.model, given.out, given.persona, given.hh, answers, given.device)
    work = Work(place, RATES[given.rates], given.only)
    if not given.judge:
        for line in side_by_side(work.jobs(), given.processes, seconds=given.seconds, then=work.jobs):
            print(line, flush=True)
    found = []
    for data, tune in work.cases:
        if not (given.out / f"head-{data.replace(' ', '-')}.npz").exists() and given.judge:
            head(place if place.device != "auto" else replace(place, device="cpu"), data)
        for rate in dict.fromkeys((rates(place, data, tune, work.ladders[tune]) or {}).values()):
            if (one := judge(place, Case(data, tune, rate))) is not None:
                found.append(one)
    (given.out / "judged.json").write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
