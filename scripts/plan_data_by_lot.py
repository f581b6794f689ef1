"""How often the intervals of `prefdyn plan data` hold what four times the pairs then show.

uv run python scripts/plan_data_by_lot.py [FEATURES]

FEATURES: a folder of `prefdyn extract` with groups of about 1,000 pairs, such as Persona behaviours
(`--limit 1000 --split 1.0`); without it only the synthetic part runs. Mixes of four groups give n0 pairs each to plan
with; further pairs are trained on up to four times as many, and those left over judge. A few minutes. Prints the tables
of docs/plan.md.

Targets are what twice n0 pairs truly reach, so that the number of pairs asked for is 2 n0. "Truth's error" adds that of
the judging pairs to the interval: what four times the pairs show on 200 pairs is itself no exact number. The baseline
is c + a exp(-n/tau) by `scipy.optimize.curve_fit` on the same measured points, with its own covariance.
"""

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit

from prefdyn._random import stream
from prefdyn.features import FeatureSet
from prefdyn.maths.units import mean_of
from prefdyn.planning.data import GroupCurve, plan_data
from prefdyn.planning.weights import weighted_losses
from prefdyn.store import load_features
from prefdyn.synthetic import gaussian_groups

SIZES, FARTHER, MIX = (50, 100, 200), 4, 4
STEPS = 100
JUDGES = 2000
"""Of each synthetic group."""


def gaussian(size: int, part: int) -> FeatureSet:
    """Four groups of known law, from hard to easy, with correlated directions in every other mix."""
    gaps = stream(part, "coverage").uniform(0.2, 2.0, MIX)
    return gaussian_groups(
        FARTHER * size + JUDGES, groups=MIX, width=48, half_gap=list(gaps), held_out=0.0, seed=part,
        tokens="shared" if part % 2 else "distinct",
    )  # fmt: skip


def persona(folder: Path, size: int, part: int) -> FeatureSet:
    """Four groups of the folder, others for every part."""
    feats = load_features(folder)
    large = np.flatnonzero(np.bincount(feats.group) >= (FARTHER + 0.9) * max(SIZES))
    mine = stream(0, "coverage", "mix").permutation(large)[MIX * part : MIX * (part + 1)]
    return feats.select(np.isin(feats.group, mine))


def one(source: str, folder: Path | None, size: int, part: int) -> list[dict[str, float]]:
    """One row per group of a mix: forecasts, intervals and truths."""
    feats = gaussian(size, part) if folder is None else persona(folder, size, part)
    rng, shown, more, judges = stream(part, "coverage", source, str(size)), [], [], []
    codes = [code for code, rows in enumerate(feats.by_group()) if len(rows)]
    for code in codes:
        rows = rng.permutation(feats.members(code))
        shown.append(rows[:size])
        more.append(rows[: FARTHER * size])
        judges.append(rows[FARTHER * size :])
    plan = plan_data(feats.select(np.concatenate(shown)), steps=STEPS, progress=False, seed=part)
    truth, error = _truth(feats, plan.setting, more, judges, size)
    found = []
    for place, code in enumerate(codes):
        curve = plan.curve[feats.groups[code]]
        at = int(np.argmin(np.abs(np.log(curve.at / (FARTHER * size)))))
        need = curve.needed(truth[place, 0])
        exp_low, exp_high = exponential(curve, FARTHER * size)
        found.append({
            "truth": truth[place, 1], "error": error[place, 1], "loss": curve.loss[at], "low": curve.low[at],
            "high": curve.high[at], "last": curve.measured[-1], "exp_low": exp_low, "exp_high": exp_high,
            "pairs_low": need.low / (2 * size), "pairs_high": need.high / (2 * size),
        })  # fmt: skip
    return found


def _truth(feats: FeatureSet, setting, more: list, judges: list, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the judging pairs of every group after 2 and 4 times the pairs, and their errors over units."""
    everyone = np.concatenate([*more, *judges])
    counts = np.concatenate([[len(rows) for rows in more], [len(rows) for rows in judges]])
    owner = np.repeat(np.arange(len(counts)), counts)
    part = feats.select(everyone).with_held_out(owner >= len(more))
    place = np.concatenate([np.arange(count) for count in counts])
    columns = np.stack([place < 2 * size, place < FARTHER * size], axis=1).astype(float)
    losses = weighted_losses(part, setting, STEPS, columns)
    means = [[mean_of(losses[owner == len(more) + k, c], part.cluster[owner == len(more) + k]) for c in (0, 1)]
             for k in range(len(more))]  # fmt: skip
    return np.array([[m.value for m in row] for row in means]), np.array([[m.error for m in row] for row in means])


def exponential(curve: GroupCurve, at: float) -> tuple[float, float]:
    """90 % interval of c + a exp(-n/tau) by its own covariance; NaN where the fit fails."""
    n, y = curve.measured_at, curve.measured

    def law(n, c, a, rate):
        return c + a * np.exp(-n * rate)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best, spread = curve_fit(law, n, y, p0=(y[-1], y[0] - y[-1], 2 / n[-1]), maxfev=5000)
    except RuntimeError:
        return np.nan, np.nan
    slope = np.array([1.0, np.exp(-at * best[2]), -at * best[1] * np.exp(-at * best[2])])
    half = 1.645 * np.sqrt(max(0.0, slope @ spread @ slope)) if np.isfinite(spread).all() else np.nan
    return float(law(at, *best) - half), float(law(at, *best) + half)


def told(rows: list[dict[str, float]]) -> Iterator[str]:
    """Entries of one row of the table."""
    v = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    held = (v["low"] <= v["truth"]) & (v["truth"] <= v["high"])
    wide = np.hypot((v["high"] - v["low"]) / 2, 1.645 * v["error"])
    middle = (v["low"] + v["high"]) / 2
    base = (v["exp_low"] <= v["truth"]) & (v["truth"] <= v["exp_high"])
    yield f"{len(rows)}"
    yield f"{np.sqrt(np.mean((v['loss'] - v['truth']) ** 2)):.3f}"
    yield f"{np.sqrt(np.mean((v['last'] - v['truth']) ** 2)):.3f}"
    yield f"{np.mean(v['high'] - v['low']):.3f}"
    yield f"{np.mean(held):.0%}"
    yield f"{np.mean(np.abs(v['truth'] - middle) <= wide):.0%}"
    yield f"{np.mean((v['pairs_low'] <= 1) & (v['pairs_high'] >= 1)):.0%}"
    yield f"{np.mean(np.isfinite(v['pairs_high'])):.0%}"
    yield f"{np.nanmedian(v['exp_high'] - v['exp_low']):.3f}"
    yield f"{np.mean(base):.0%}"


def main() -> None:
    """Print one row per source and size."""
    heads = ("groups", "n0", "of them", "error of the forecast", "of the last point", "width", "hold the loss",
             "with truth's error", "hold the pairs", "bounded above", "exponential: width", "holds")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}")
    sources: list[tuple[str, Path | None]] = [("Gaussian", None)]
    if len(sys.argv) > 1:
        sources.append(("Persona", Path(sys.argv[1])))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for source, folder in sources:
            for size in SIZES:
                rows = [row for part in pool.map(partial(one, source, folder, size), range(11)) for row in part]
                print(f"| {source} | {size} | {' | '.join(told(rows))} |", flush=True)


if __name__ == "__main__":
    main()
