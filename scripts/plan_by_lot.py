"""How often `prefdyn plan weights` says to change where nothing is to be gained, and where something is.

uv run python scripts/plan_by_lot.py [DRAWS [NAME]]

Gaussian groups of known law. Beside the share of plans that change anything stands what the plans that do are truly
worth: the score on many further pairs of the same law, in a run on the same training pairs as given and with the
plan's factors. Prints the table of docs/plan.md, or its rows whose law has NAME in it.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from prefdyn.features import FeatureSet
from prefdyn.planning.goals import Goal
from prefdyn.planning.weights import plan_weights, weighted_margins
from prefdyn.synthetic import Dependence, gaussian_groups

JUDGED = 500
"""Further pairs per group."""
RUN = {"beta": 0.5, "learning_rate": 0.8, "steps": 20, "progress": False}


def drawn(seed: int, pairs: list[int], **law: object) -> FeatureSet:
    """Pairs to plan with, and further ones of the same law held out."""
    feats = gaussian_groups([each + JUDGED for each in pairs], groups=len(pairs), held_out=0.0, seed=seed, **law)  # type: ignore[reportArgumentType]
    rng, held = np.random.default_rng(seed), np.zeros(len(feats), dtype=bool)
    for rows, count in zip(feats.by_group(), pairs, strict=True):
        clusters = np.unique(feats.cluster[rows])
        order = rng.permutation(len(clusters))
        size = len(rows) // len(clusters)
        held[rows[np.isin(feats.cluster[rows], clusters[order[count // size :]])]] = True
    return feats.with_held_out(held)


def skewed(seed: int) -> FeatureSet:
    """Four equal groups in which nine of ten pairs prefer the first answer."""
    feats = drawn(seed, [180] * 4, width=32)
    assert feats.chosen is not None
    rare = feats.chosen == 1
    keep = ~rare | (np.random.default_rng(seed + 1).random(len(feats)) < 1 / 9)
    return feats.select(keep)


def against(seed: int) -> FeatureSet:
    """A small group mostly against a large one."""
    directions = np.zeros((2, 12))
    directions[0, 0], directions[1, :2] = 1.0, (-0.8, 0.6)
    return drawn(seed, [300, 60], width=12, directions=directions)


def ranked(seed: int, *, groups: int = 4, prompts: int = 17, width: int = 32, gap: float = 1.0) -> FeatureSet:
    """Four replies of each prompt, ranked by their group's direction and as much luck: six pairs that hang together."""
    rng, many = np.random.default_rng(seed), prompts + JUDGED // 6
    replies = rng.normal(size=(groups, many, 4, width))
    worth = gap * replies[np.arange(groups), :, :, np.arange(groups)] + rng.normal(size=(groups, many, 4))
    replies = np.take_along_axis(replies, np.argsort(-worth, axis=2)[..., None], axis=2)
    chosen, rejected = (replies[:, :, side].reshape(-1, width) for side in np.triu_indices(4, 1))
    prompt = np.repeat(np.arange(groups * many), 6)
    return FeatureSet.from_arrays(
        chosen - rejected, chosen_features=chosen, rejected_features=rejected, text=prompt,
        group=[f"group {code}" for code in prompt // many], held_out=prompt % many >= prompts,
    )  # fmt: skip


CASES: dict[str, tuple[str, Callable[[int], FeatureSet]]] = {
    "four equal groups": ("worst", lambda seed: drawn(seed, [100] * 4, width=32)),
    "twelve equal groups": ("worst", lambda seed: drawn(seed, [60] * 12, width=32)),
    "four equal groups, goal mean": ("mean", lambda seed: drawn(seed, [100] * 4, width=32)),
    "four equal groups, five copies of each prompt": (
        "worst", lambda seed: drawn(seed, [100] * 4, width=32, dependence=Dependence(size=5, correlation=1.0)),
    ),
    "four equal groups, rankings of four": ("worst", ranked),
    "four groups, rankings by lot": ("worst", partial(ranked, gap=0.0)),
    "four equal groups, answers at 90/10": ("worst", skewed),
    "four groups, labels by lot": ("worst", lambda seed: drawn(seed, [100] * 4, width=32, half_gap=0.0)),
    "one of four a quarter as large": ("worst", lambda seed: drawn(seed, [200, 200, 200, 50], width=32)),
    "a small group against a large one": ("worst", against),
    "four equal groups, all wanted at 95 %": (f"target={','.join(f'group {k}:0.95' for k in range(4))}",
                                              lambda seed: drawn(seed, [100] * 4, width=32)),
    "four groups, labels by lot, one wanted at 60 %": (
        "target=group 0:0.6", lambda seed: drawn(seed, [100] * 4, width=32, half_gap=0.0),
    ),
    "a small group against a large one, wanted at 75 %": ("target=group 1:0.75", against),
}  # fmt: skip


def one(name: str, seed: int) -> tuple[bool, float]:
    """Whether the plan changes anything, and what its factors truly gain in the score."""
    goal, draw = Goal.read(CASES[name][0]), CASES[name][1]
    feats = draw(seed)
    plan = plan_weights(feats, goal, seed=seed, **RUN)  # type: ignore[reportArgumentType]
    factors = np.stack([np.ones(len(feats.groups)), plan.proposed], axis=1)[feats.group]
    margins = weighted_margins(feats, plan.setting, plan.steps, factors).T
    values = goal.measure(plan.setting.objective, feats.groups, feats.group, margins[0]).hard(margins)
    means = np.stack([values[:, rows[feats.held_out[rows]]].mean(axis=1) for rows in feats.by_group()], axis=1)
    score = goal.score(feats.groups, means[0], start=np.log(2)).hard(means)
    return plan.change, float(score[0] - score[1])


def main() -> None:
    """Print one row per law."""
    draws, part = int(sys.argv[1]) if len(sys.argv) > 1 else 100, "".join(sys.argv[2:3])
    heads = ("law", "plans that change", "gained truly where changed: mean", "least", "truly better", "where kept")
    print(f"| {' | '.join(heads)} |\n|---|--:|--:|--:|--:|--:|")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name in (name for name in CASES if part in name):
            found = list(pool.map(partial(one, name), range(draws)))
            gains, kept = ([gain for changed, gain in found if changed == which] for which in (True, False))
            told = ["–"] * 3
            if gains:
                told = [f"{np.mean(gains):+.4f}", f"{min(gains):+.4f}", f"{np.mean(np.array(gains) > 0):.0%}"]
            row = (name, f"{len(gains) / draws:.0%}", *told, f"{np.mean(kept):+.4f}" if kept else "–")
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
