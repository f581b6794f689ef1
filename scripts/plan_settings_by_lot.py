"""How often `prefdyn plan settings` changes something where all settings are equal, and where some are better.

uv run python scripts/plan_settings_by_lot.py [DRAWS]

Gaussian groups of known law. What is truly gained is told by 500 further pairs per group: runs on all pairs at hand
with the settings as given and with those that the plan found best. `best there is` is what the setting of the grid that
is best on the further pairs would gain, which no plan can know. Prints the table of docs/plan.md.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import numpy as np

from prefdyn._random import stream
from prefdyn.planning.settings import _margins, plan_settings, scaled_losses
from prefdyn.synthetic import gaussian_groups

FURTHER, STEPS = 500, 40
CASES = {
    "one direction: all settings equal": ([1.0] * 4, 100, 1, 0.0),
    "labels that mean nothing": ([0.0] * 4, 150, 24, 0.0),
    "150 pairs, 24 directions, hard": ([0.8, 1.0, 1.2, 1.5], 150, 24, 0.0),
    "150 pairs, 24 directions, easy": ([2.0, 2.0, 2.5, 3.0], 150, 24, 0.0),
    "60 pairs, 128 directions, a tenth wrong": ([2.0, 2.0, 2.5, 3.0], 60, 128, 0.1),
    "150 pairs, 128 directions, a fifth wrong": ([2.0, 2.0, 2.5, 3.0], 150, 128, 0.2),
}


def one(name: str, seed: int) -> tuple[float, float, float, float]:
    """Whether the plan changes anything, its gain as judged and in truth, and what the best setting would gain."""
    gaps, size, width, rate = CASES[name]
    feats = gaussian_groups(
        size + FURTHER, groups=4, width=width, directions=np.ones((4, 1)) if width == 1 else None, half_gap=gaps,
        held_out=0.0, seed=seed,
    )  # fmt: skip
    further = np.tile(np.arange(size + FURTHER) >= size, 4)
    wrong = (stream(seed, "settings", "wrong").random(len(feats)) < rate) & ~further
    feats = replace(feats.flipped(wrong), held_out=further)
    plan = plan_settings(feats, steps=STEPS, seed=seed, progress=False)
    losses = scaled_losses(_margins(feats, plan.candidates), feats.group, further)
    means = np.mean([losses[:, rows[further[rows]]].mean(axis=1) for rows in feats.by_group()], axis=0)
    gains = means[0] - means
    return float(plan.change), plan.judged.score_gain, float(gains[plan.best]), float(gains.max())


def main() -> None:
    """Print one row per law."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    heads = ("law", "plans that change", "gained truly where changed: mean", "least", "truly better",
             "what was found where kept", "best there is")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name in CASES:
            change, _, gain, top = np.array(list(pool.map(partial(one, name), range(1000, 1000 + draws)))).T
            real, kept = gain[change > 0], gain[change == 0]
            told = [f"{real.mean():+.4f}", f"{real.min():+.4f}", f"{np.mean(real > 0):.0%}"] if len(real) else 3 * ["–"]
            row = [
                name,
                f"{change.mean():.0%}",
                *told,
                f"{kept.mean():+.4f}" if len(kept) else "–",
                f"{top.mean():+.4f}",
            ]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
