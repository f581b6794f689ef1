"""How good forecasts are: real LoRA runs with several seeds, and what each way to foretell them was off by.

    uv run python scripts/forecast_runs.py DATA MODEL OUT [--seeds 3] [--steps 200] [--groups 8] [--first 0]
                                           [--measured 64] [--baselines]

The rules, fixed before any run was made:

- Data: so many personas of DATA by name, from the one that `--first` counts to, 150 pairs of each: 100 to train on and
  50 held out. LoRA on all linear layers, learning rate 3e-4, AdamW, batches of 16, DPO with beta 0.1, 200 steps (four
  epochs). Defaults of the forecast are chosen on the first eight (`--first 0`) and measured on the next (`--first 8`).
- Runs: seeds 0, 100, 200, … change batch order and adapter start, nothing else. Each is measured at 16 steps on
  `--measured` held-out pairs of each group, the same ones in every run and forecast (64: all 50).
- For every run, every way foretells the groups' held-out losses at 25, 50, 75 and 100 % of that run's fall of the mean
  held-out loss. Told: mean absolute error over groups, and rank correlation of groups; means over runs. Where a way
  does not reach a level, it has no entry there and the number of runs that it has is told.
- Ways: all groups equal; with `--baselines` the head alone, trained by full-batch descent on the same pairs, and a
  linear run from the start; a linear run from the end of the probe; the mean of the rehearsals; the forecast as
  shipped; another seed (mean over the other runs).
- Bands: share of groups inside the 90 % band at the records of a run that brought progress, past a tenth of the
  vouched fall: of the run that the probe began, and of the other seeds, whose band is wider by the spread of seeds.
- Clock: foretold over real step at the level where the forecast ends or the run does.
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from prefdyn.data.loaders import load_dataset
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.progress import ProgressBand, apart, at_levels, progress
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.models.team import Team
from prefdyn.planning.forecast import Forecast, forecast, run_at, sample_of
from prefdyn.settings import Reading
from prefdyn.training.linear import foretell, linearise, records_between
from prefdyn.training.probes import probe_rows
from prefdyn.training.rehearse import Bench, RunPart
from prefdyn.training.settings import LoRA
from prefdyn.training.subjects import Models, whole_model

SHARES = (0.25, 0.5, 0.75, 1.0)
PAIRS, RATE, BATCH = 150, 3e-4, 16


def personas(path: Path, first: int, count: int) -> Any:
    """The pairs, with their split."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        names = sorted({json.loads(line)["persona"] for line in file})
    found = load_dataset(f"persona:{path}").select(names[first : first + count])
    return found.sample(PAIRS, seed=0).with_held_out(2 / 3, seed=0)


def chosen(steps: int, seed: int) -> dict[str, Any]:
    """Settings of one run."""
    return {"learning_rate": RATE, "steps": steps, "batch_size": BATCH, "lora": LoRA(), "seed": seed}


def looked_at(pairs: Any, count: Any, *, seed: int) -> np.ndarray:
    """Pairs of every run and forecast, whichever its seed."""
    return probe_rows(pairs, count, seed=0)


def real(
    data: Any, model: str, steps: int, seed: int, *, measured: int, baselines: bool
) -> tuple[RunPart, RunPart | None]:
    """A run to its end, and a linear one from its start where that is asked for."""
    team = Team("auto", cache=True)
    models = Models(model=model, reading=Reading(), device=team.device("auto"), share=True, team=team, progress=False)
    rest = {**chosen(steps, seed), "flip": False, "probes": (), "probe_pairs": measured}
    subject, settings = whole_model(data, models, DPO(), None, "lora", rest)
    looked = looked_at(subject.pairs, measured, seed=seed)
    sample = sample_of(data, subject, looked)
    bench = Bench.of(subject, settings, sample)
    loop = bench.loop(settings)
    rows = np.concatenate([looked[~subject.pairs.held_out[looked]], sample.rows])
    linear = None
    if baselines:
        begun = linearise(subject, loop, rows)
        linear = foretell(begun, loop, sample, stretch=2, records=records_between(0, 2 * steps, 20))
    run = bench.run(loop, steps, records_between(0, steps, 16), label="Run", progress=False)
    return run, linear


def head(data: Any, model: str) -> RunPart:
    """The head alone, by full-batch descent."""
    feats = extract(data, model)
    run = descent(feats, DPO(), steps=2000, alone=False)
    names = sorted(feats.groups)
    curves = [run.curve("loss", group=name, split="held_out") for name in names]
    return RunPart(steps=curves[0][0], values={"loss": np.stack([values for _, values in curves], axis=1)})


def kept(path: Path, make: Callable[[], list[RunPart | None]]) -> list[RunPart]:
    """Results that stand on disk, or are made now."""
    if not path.exists():
        found = [each for each in make() if each is not None]
        arrays = {f"{at}-steps": run.steps for at, run in enumerate(found)}
        np.savez(path, **arrays, **{f"{at}-loss": run.values["loss"] for at, run in enumerate(found)})  # type: ignore[arg-type]
    held = np.load(path)
    count = len(held.files) // 2
    return [RunPart(steps=held[f"{at}-steps"], values={"loss": held[f"{at}-loss"]}) for at in range(count)]


def score(foretold: np.ndarray, run: np.ndarray) -> list[tuple[float, float]]:
    """Mean absolute error and rank correlation at every share."""
    errors = apart(foretold, run)
    ranks = [
        spearman(one, other) if np.isfinite(one).all() and np.ptp(one) > 1e-12 else np.nan
        for one, other in zip(foretold, run, strict=True)
    ]
    return list(zip(errors.tolist(), ranks, strict=True))


def ways(at: int, runs: list[RunPart], linear: RunPart | None, told: Forecast, alone: RunPart | None) -> dict[str, Any]:
    """Every way's errors on one run, at `SHARES` of its fall."""
    mean = progress(runs[at].values["loss"])
    levels = mean[0] - np.array(SHARES) * (mean[0] - mean[-1])
    run = run_at(runs[at], levels)
    band = told.band
    centre = at_levels(band.levels, band.centre, levels)
    found = {
        "all groups equal": score(np.repeat(run.mean(axis=1)[:, None], run.shape[1], axis=1), run),
        "head alone": score(run_at(alone, levels), run) if alone else [],
        "linear from the start": score(run_at(linear, levels), run) if linear else [],
        "linear from the probe": score(run_at(told.linear, levels), run) if told.linear else [],
    }
    if told.rehearsals:
        rehearsed = np.stack([run_at(each, levels) for each in told.rehearsals])
        found["mean of the rehearsals"] = score(rehearsed.mean(axis=0), run)
    found["**forecast**"] = score(centre, run)
    for other, each in enumerate(runs):
        if other != at:
            found[f"another seed/{other}"] = score(run_at(each, levels), run)
    return found


def inside(band: ProgressBand, run: RunPart, known: np.ndarray) -> tuple[int, int]:
    """Groups inside their bands and all, over the records that brought progress within the known levels."""
    if known.sum() < 2:
        return 0, 0
    levels, reached = band.levels[known], progress(run.values["loss"])
    use = np.r_[False, np.diff(reached) < 0] & (levels[0] - reached > 0.1 * (levels[0] - levels[-1]))
    centre, half = (at_levels(levels, each[known], reached[use]) for each in (band.centre, band.half_width))
    there = np.isfinite(centre).all(axis=1)
    near = np.abs(run.values["loss"][use] - centre)[there] <= half[there]
    return int(near.sum()), int(near.size)


def clock(told: Forecast, run: RunPart) -> tuple[float, bool]:
    """Foretold over real step where forecast or run ends, and whether the real one lies in the interval."""
    levels = told.band.levels
    real_steps = at_levels(progress(run.values["loss"]), run.steps.astype(float), levels)
    known = np.flatnonzero(np.isfinite(real_steps) & np.isfinite(told.clock.step))
    at = known[-1]
    return float(told.clock.step[at] / real_steps[at]), bool(
        told.clock.low[at] <= real_steps[at] <= told.clock.high[at]
    )


def table(found: list[dict[str, Any]]) -> str:
    """The ways as Markdown: error (rank correlation) at each share, means over runs."""
    names = list(dict.fromkeys(name.split("/")[0] for each in found for name in each))
    lines = ["| foretold by | 25 % | 50 % | 75 % | 100 % |", "|---|---|---|---|---|"]
    for name in names:
        rows = [rows for each in found for key, rows in each.items() if key.split("/")[0] == name and rows]
        if not rows:
            continue
        values = np.array(rows)
        entries = []
        for share in range(len(SHARES)):
            known = np.isfinite(values[:, share, 0])
            if not known.any():
                entries.append("not reached")
                continue
            rank = values[known, share, 1]
            shown = "" if np.isnan(rank).all() else f" ({np.nanmean(rank):.2f})"
            some = "" if known.all() else f", {known.sum()} of {len(known)}"
            entries.append(f"{values[known, share, 0].mean():.4f}{shown}{some}")
        lines.append(f"| {name} | {' | '.join(entries)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the runs that are not there, then the table."""
    parser = argparse.ArgumentParser(description="How good forecasts are.")
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--told", type=int, nargs="*", help="Places of the seeds that are foretold; all if not given.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--measured", type=int, default=64)
    parser.add_argument("--baselines", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = personas(given.data, given.first, given.groups)
    seeds = [100 * at for at in range(given.seeds)]
    alone = kept(given.out / "head.npz", lambda: [head(data, given.model)])[0] if given.baselines else None
    how = {"measured": given.measured, "baselines": given.baselines}
    runs, lines, told, shown = [], [], [], []
    for seed in seeds:
        began = time.monotonic()
        run, *linear = kept(
            given.out / f"run-{seed}.npz", lambda seed=seed: [*real(data, given.model, given.steps, seed, **how)]
        )
        runs.append(run)
        lines.append(linear[0] if linear else None)
        print(f"run {seed}: {time.monotonic() - began:.0f} s, mean {progress(run.values['loss'])[[0, -1]]}", flush=True)
    for at, seed in enumerate(seeds):
        if given.told is not None and at not in given.told:
            continue
        began = time.monotonic()
        with patch("prefdyn.planning.forecast.probe_rows", looked_at):
            told.append(
                forecast(data, given.model, probe_pairs=given.measured, progress=False, **chosen(given.steps, seed))
            )
        folder = given.out / f"forecast-{seed}"
        folder.mkdir(exist_ok=True)
        told[-1].write(folder)
        band = told[-1].band
        near, every = inside(band, runs[at], band.vouched)
        others = np.array([inside(band, run, band.vouched) for other, run in enumerate(runs) if other != at]).sum(
            axis=0
        )
        print(
            f"forecast {seed}: {time.monotonic() - began:.0f} s, cost {told[-1].cost}, inside {near} of {every}, other "
            f"seeds {others}, clock {clock(told[-1], runs[at])}, vouched {told[-1].band.vouched.mean():.2f} of "
            f"{told[-1].band.levels[[0, -1]]}, linear weight {told[-1].band.linear.round(2).tolist()}, error "
            f"{told[-1].band.error.round(4).tolist()}, lost {told[-1].lost:.3f}, {dict(told[-1].timings)}: "
            f"{told[-1].says()}",
            flush=True,
        )
        shown.append(ways(at, runs, lines[at], told[-1], alone))
        print(table(shown), flush=True)


if __name__ == "__main__":
    main()
