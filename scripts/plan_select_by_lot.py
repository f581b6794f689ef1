"""How often `prefdyn plan select` changes something where no label is wrong, and where some are; and what it gains.

uv run python -m scripts.plan_select_by_lot [DRAWS [NAME]]

Gaussian groups of known law, labels turned round by lot. What is truly gained is told by 500 further pairs per group
with right labels. A few minutes. Prints the table of docs/plan.md, or its rows whose law has NAME in it.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import numpy as np
from jaxtyping import Bool

from prefdyn._random import stream
from prefdyn.features import FeatureSet
from prefdyn.planning.select import ACTIONS, SelectPlan, plan_select
from prefdyn.planning.weights import weighted_losses
from prefdyn.synthetic import Dependence, gaussian_groups
from scripts.plan_by_lot import ranked

FURTHER, STEPS = 500, 40
CASES = {
    "easy groups of 150": ([2.0, 2.0, 2.5, 3.0], 150, (0.0, 0.05, 0.1, 0.2)),
    "hard groups of 150": ([0.8, 1.0, 1.2, 1.5], 150, (0.0,)),
    "labels that mean nothing": ([0.0] * 4, 150, (0.0,)),
    "easy groups of 150, three copies of each prompt": ([2.0, 2.0, 2.5, 3.0], 150, (0.0,)),
}
RANKED = {"groups of 25 rankings of four": 2.0, "groups of 25 rankings by lot": 0.0}
"""How far the group's direction, and not luck, decides."""


def one(name: str, rate: float, seed: int) -> tuple[bool, float, float, float, float, float]:
    """Whether the plan changes anything, its true gain, the share of wrong labels, and how many of the named are."""
    if name in RANKED:
        feats = ranked(seed, prompts=25, width=24, gap=RANKED[name])
        return told(feats, np.zeros(len(feats), dtype=bool), seed)
    gaps, size, _ = CASES[name]
    copies = Dependence(size=3, correlation=1.0) if "copies" in name else None
    feats = gaussian_groups(
        size + FURTHER, groups=4, width=24, half_gap=gaps, held_out=0.0, dependence=copies, seed=seed
    )
    further = np.tile(np.arange(size + FURTHER) >= size, 4)
    if copies is not None:  # no unit on both sides
        further = further | np.isin(feats.text, feats.text[further])
    wrong = (stream(seed, "select", "wrong").random(len(feats)) < rate) & ~further
    return told(replace(feats.flipped(wrong), held_out=further), wrong, seed)


def told(feats: FeatureSet, wrong: Bool[np.ndarray, " n"], seed: int) -> tuple[bool, float, float, float, float, float]:
    """What `one` gives, of pairs of which these are wrong."""
    plan = plan_select(feats, steps=STEPS, seed=seed, progress=False)
    assert plan.wrong is not None
    named = float(wrong[plan.named].mean()) if plan.named.any() else np.nan
    return plan.change, gained(plan), plan.wrong.share, plan.wrong.low, plan.wrong.high, named


def gained(plan: SelectPlan) -> float:
    """What the best way truly gains in the mean over groups, on pairs that are held out."""
    feats, ones = plan.features, np.ones((len(plan.features), 1))
    if plan.way is None:
        return 0.0
    factor = ACTIONS[plan.way.action]
    before = weighted_losses(feats, plan.setting, plan.steps, ones)
    changed = feats.flipped(plan.named) if factor < 0 else feats
    weight = np.where(plan.named[:, None], abs(factor), ones)
    after = weighted_losses(changed, plan.setting, plan.steps, weight)
    return float(np.mean([(before - after)[rows[feats.held_out[rows]]].mean() for rows in feats.by_group()]))


def main() -> None:
    """Print one row per law and share."""
    draws, part = int(sys.argv[1]) if len(sys.argv) > 1 else 40, "".join(sys.argv[2:3])
    rates_of = {name: rates for name, (_, _, rates) in CASES.items()} | dict.fromkeys(RANKED, (0.0,))
    heads = ("law", "wrong labels", "plans that change", "gained truly where changed: mean", "least", "truly better",
             "estimate of the share", "interval holds it", "leaves out 0", "wrong among the named")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name in (name for name in rates_of if part in name):
            for rate in rates_of[name]:
                found = np.array(list(pool.map(partial(one, name, rate), range(draws))), dtype=float)
                change, gain, share, low, high, named = found.T
                real = gain[change > 0]
                truly = 3 * ["–"]
                if len(real):
                    truly = [f"{real.mean():+.4f}", f"{real.min():+.4f}", f"{np.mean(real > 0):.0%}"]
                inside = (low <= rate + 1e-9) & (high >= rate - 1e-9)
                row = [name, f"{rate:.0%}", f"{change.mean():.0%}", *truly, f"{share.mean():.1%}"]
                row += [f"{inside.mean():.0%}", f"{np.mean(low > 0):.0%}", f"{np.nanmean(named):.0%}" if rate else "–"]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
