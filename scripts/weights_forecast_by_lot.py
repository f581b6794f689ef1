"""How often `prefdyn plan weights --forecast` says to change where nothing is to be gained, and where something is.

uv run python scripts/weights_forecast_by_lot.py [DRAWS [NAME [SHARE]]]

Groups of known law whose replies a small network reads: states x, of which a reply's score is w (x + U tanh(V x)). The
plan is that of the last layer w; the judge's linear runs are of LoRA on U and V. What a plan is truly worth is told by
real runs of the network (U and V move together, nothing is linear) on the same training pairs with other batch orders
and adapter starts, as given and with the proposal, and by many further pairs of the same law. SHARE of the pairs is
trained on, the others judge. Prints the table of docs/plan.md, or its rows whose law has NAME in it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.tangent import Adapter, LayerSignals, Signals, Trained, tangent
from prefdyn.features import FeatureSet
from prefdyn.planning.weights import plan_weights
from prefdyn.planning.weights_forecast import SEEDS, STRETCH, judged_in_runs, ways_of
from prefdyn.training.rehearse import Sample
from prefdyn.training.settings import LoRA, TrainingSettings, resolve

WIDTH, RANK, SCALE = 32, 4, 2.0
STEPS, RATE = 60, 1e-2
JUDGED = 500
"""Further pairs per group."""
TRUE = 8
"""Real runs of each way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Replies as states, one row per pair; the last ones are the further pairs, which nobody sees."""

    chosen: Float[np.ndarray, "n d"]
    rejected: Float[np.ndarray, "n d"]
    group: Int[np.ndarray, " n"]
    unit: Int[np.ndarray, " n"]
    further: Bool[np.ndarray, " n"]


Replies = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]
"""From a group and a number of prompts to the chosen and rejected replies of each, (prompts, pairs of a prompt, d)."""


def replies(
    rng: np.random.Generator, group: int, prompts: int, *, gap: float = 1.0, copies: int = 1, skew: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """One pair of each prompt, its copies; `skew`: a trait that nine of ten chosen replies have and the others lack."""
    chosen, rejected = rng.normal(size=(2, prompts, 1, WIDTH))
    chosen[..., group] += gap
    trait = skew * np.where(rng.random((prompts, 1)) < 0.9, 0.5, -0.5)
    chosen[..., -1] += trait
    rejected[..., -1] -= trait
    return np.repeat(chosen, copies, axis=1), np.repeat(rejected, copies, axis=1)


def rankings(rng: np.random.Generator, group: int, prompts: int, *, gap: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Four replies of each prompt, ranked by the group's direction and as much luck: six pairs."""
    each = rng.normal(size=(prompts, 4, WIDTH))
    worth = gap * each[..., group] + rng.normal(size=(prompts, 4))
    each = np.take_along_axis(each, np.argsort(-worth, axis=1)[..., None], axis=1)
    first, second = np.triu_indices(4, 1)
    return each[:, first], each[:, second]


def against(rng: np.random.Generator, group: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """The second group mostly wants the opposite of the first."""
    chosen, rejected = rng.normal(size=(2, prompts, 1, WIDTH))
    chosen[..., :2] += (1.0, 0.0) if group == 0 else (-0.8, 0.6)
    return chosen, rejected


CASES: dict[str, tuple[list[int], Replies]] = {
    "four groups, labels by lot": ([100] * 4, partial(replies, gap=0.0)),
    "four groups, rankings by lot": ([102] * 4, partial(rankings, gap=0.0)),
    "four equal groups": ([100] * 4, replies),
    "four equal groups, five copies of each prompt": ([100] * 4, partial(replies, copies=5)),
    "four equal groups, a trait at 90/10": ([100] * 4, partial(replies, skew=2.0)),
    "four equal groups, rankings of four": ([102] * 4, rankings),
    "one of four a quarter as large": ([200, 200, 200, 50], replies),
    "one of four a quarter as large, twice the pairs": ([400, 400, 400, 100], replies),
    "a small group against a large one": ([300, 60], against),
    "a small group against a large one, twice the pairs": ([600, 120], against),
}


def drawn(name: str, seed: int) -> Pairs:
    """Pairs to plan with, and further ones of the same law."""
    rng = np.random.default_rng(seed)
    sizes, law = CASES[name]
    parts: list[tuple[np.ndarray, ...]] = []
    prompts = 0
    for further in (False, True):
        for group, size in enumerate(sizes):
            per = law(rng, group, 1)[0].shape[1]
            many = (JUDGED if further else size) // per
            chosen, rejected = law(rng, group, many)
            unit = np.repeat(prompts + np.arange(many), per)
            prompts += many
            shape = (many * per, WIDTH)
            parts.append((chosen.reshape(shape), rejected.reshape(shape), np.full(len(unit), group), unit,
                          np.full(len(unit), further)))  # fmt: skip
    chosen, rejected, group, unit, further = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Pairs(chosen=chosen, rejected=rejected, group=group, unit=unit, further=further)


class Network:
    """w (x + U tanh(V x)), as trained before anybody asks for preferences."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.v, self.u = rng.normal(size=(2, WIDTH, WIDTH)) / np.sqrt(WIDTH)
        self.w = rng.normal(size=WIDTH) / np.sqrt(WIDTH)

    def states(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """What the last layer reads."""
        return x + np.tanh(x @ self.v.T) @ self.u.T

    def signals(self, pairs: Pairs) -> Signals:
        """Of every pair's margin in U and V: a term of each reply."""
        n = len(pairs.group)
        x = np.stack([pairs.chosen, pairs.rejected], axis=1).reshape(2 * n, WIDTH)
        hidden = np.tanh(x @ self.v.T)
        sign = np.tile([1.0, -1.0], n)[:, None]
        places = {"starts": 2 * np.arange(n), "counts": np.full(n, 2)}
        return Signals(
            layers={
                "U": LayerSignals(inputs=hidden, signals=sign * self.w, **places),
                "V": LayerSignals(inputs=x, signals=sign * (1 - hidden**2) * (self.w @ self.u), **places),
            },
            sides=False,
        )

    def real(
        self,
        pairs: Pairs,
        start: Mapping[str, Trained],
        order: Sequence[np.ndarray],
        share: Float[np.ndarray, "n R"],
        settings: TrainingSettings,
    ) -> Float[np.ndarray, "R n"]:
        """Margins of all pairs after real runs of the adapters, one per column of the share."""
        x = torch.tensor(np.stack([pairs.chosen, pairs.rejected]))
        u, v, w = (torch.tensor(each) for each in (self.u, self.v, self.w))
        counts, shapes = torch.tensor(share), {"U": start["U"], "V": start["V"]}
        parts = {
            (name, part): torch.tensor(np.stack([each] * share.shape[1]), requires_grad=True)
            for name, adapter in shapes.items() for part, each in adapter.parts.items()
        }  # fmt: skip
        memory = {key: settings.optimizer.start(each) for key, each in parts.items()}

        def adapted(x: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor:
            down, up = parts[name, "down"].mT[:, None], parts[name, "up"].mT[:, None]
            return x @ weight.T + SCALE * (x @ down) @ up

        def margins(rows: np.ndarray | slice) -> torch.Tensor:
            chosen, rejected = (adapted(torch.tanh(adapted(x[:, rows], v, "V")), u, "U") @ w).unbind(1)
            return settings.objective.beta * (chosen - rejected - began[rows])

        began = torch.zeros(x.shape[1], dtype=x.dtype)
        with torch.no_grad():
            began = margins(slice(None))[0] / settings.objective.beta
        for step, rows in enumerate(order):
            mass = counts[rows] / counts[rows].sum(dim=0)
            loss = (mass.T * settings.objective.loss(margins(rows))).sum()
            slopes = torch.autograd.grad(loss, list(parts.values()))
            length = torch.sqrt(sum((each**2).sum(dim=(1, 2)) for each in slopes))  # type: ignore[reportArgumentType]
            factor = torch.clamp((settings.clip or np.inf) / (length + 1e-6), max=1.0)[:, None, None]
            for key, slope in zip(list(parts), slopes, strict=True):
                moved, memory[key] = settings.optimizer.update(
                    parts[key].detach(), factor * slope, memory[key], rate=settings.learning_rate, step=step
                )
                parts[key] = moved.requires_grad_()
        with torch.no_grad():
            return margins(slice(None)).numpy()


NETWORK = Network()


def adapters(seed: int) -> dict[str, Trained]:
    """As `peft` starts them: A by lot, B nothing."""
    rng = np.random.default_rng([seed, 1])
    bound = 1 / np.sqrt(WIDTH)
    return {
        name: Adapter(down=rng.uniform(-bound, bound, (RANK, WIDTH)), up=np.zeros((WIDTH, RANK)), scale=SCALE)
        for name in ("U", "V")
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one draw gave."""

    head: bool
    """The last layer's plan changes something."""
    runs: bool
    """The linear runs alone would change it to the proposal."""
    rule: bool
    """Both, the rule that ships."""
    gain: float
    """Of the proposal in real runs, nats of the worst group's loss on further pairs."""


def one(name: str, share: float, seed: int) -> Told:
    """One draw of a law."""
    torch.set_num_threads(1)
    pairs = drawn(name, seed)
    seen = np.flatnonzero(~pairs.further)
    states = [NETWORK.states(each[seen]) for each in (pairs.chosen, pairs.rejected)]
    feats = FeatureSet.from_arrays(
        states[0] - states[1], chosen_features=states[0], rejected_features=states[1],
        group=[f"group {code}" for code in pairs.group[seen]], text=pairs.unit[seen],
    )  # fmt: skip
    feats = feats.with_held_out(held_out(pairs, seen, share, seed))
    plan = plan_weights(feats, steps=30, seed=seed, progress=False)
    train, judge = np.flatnonzero(~feats.held_out), np.flatnonzero(feats.held_out)
    settings = resolve(
        len(train),
        tune="lora",
        steps=STEPS,
        batch_size=16,
        learning_rate=RATE,
        lora=LoRA(rank=RANK, alpha=SCALE * RANK),
    )
    ways = ways_of(plan)
    code = feats.group
    factors = np.stack([column[code] for column in ways.values()], axis=1)
    signals = NETWORK.signals(replace(pairs, **{at: getattr(pairs, at)[seen] for at in pairs.__slots__}))
    ends = []
    for each in range(SEEDS):
        order = [train[rows] for rows in batches(len(train), 16, STEPS, seed=each)]
        run = tangent(
            signals, adapters(each), settings.objective, settings.optimizer, learning_rate=settings.learning_rate,
            batches=order * STRETCH, share=factors, clip=settings.clip, recorded=[STRETCH * STEPS],
        )  # fmt: skip
        ends.append(settings.objective.beta * run.values[0][:, judge])
    sample = Sample(rows=judge, group=code[judge], unit=feats.cluster[judge], names=feats.groups)
    after = judged_in_runs(replace(plan, change=True), np.stack(ends), list(ways), sample, settings, STRETCH * STEPS)
    assert after.run is not None
    both = np.ones((len(pairs.group), 2))
    both[:, 1] = plan.proposed[pairs.group]
    losses = []
    for each in range(SEEDS, SEEDS + TRUE):
        order = [seen[train[rows]] for rows in batches(len(train), 16, STEPS, seed=each)]
        losses.append(settings.objective.loss(NETWORK.real(pairs, adapters(each), order, both, settings)))
    mean = np.mean(losses, axis=0)[:, pairs.further]
    worst = [max(row[pairs.group[pairs.further] == group].mean() for group in np.unique(pairs.group)) for row in mean]
    return Told(
        head=plan.change,
        runs=after.run.holds,
        rule=plan.change and after.run.holds,
        gain=worst[0] - worst[1],
    )


def held_out(pairs: Pairs, seen: np.ndarray, share: float, seed: int) -> Bool[np.ndarray, " n"]:
    """Whole units, of every group the same share."""
    rng, found = np.random.default_rng([seed, 2]), np.zeros(len(seen), dtype=bool)
    for group in np.unique(pairs.group):
        units = rng.permutation(np.unique(pairs.unit[seen][pairs.group[seen] == group]))
        found |= np.isin(pairs.unit[seen], units[: max(1, round((1 - share) * len(units)))])
    return found


def main() -> None:
    """Print one row per law."""
    draws, part = int(sys.argv[1]) if len(sys.argv) > 1 else 40, "".join(sys.argv[2:3])
    share = float(sys.argv[3]) if len(sys.argv) > 3 else 0.9
    heads = ("law", "last layer", "linear runs", "both: changes",
             "gained truly where changed: mean", "least", "truly better", "where kept")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}")
    for name in (name for name in CASES if part in name):
        found = [one(name, share, seed) for seed in range(draws)]
        gains, kept = (np.array([each.gain for each in found if each.rule == which]) for which in (True, False))
        row = [name, *(f"{np.mean([getattr(each, key) for each in found]):.0%}" for key in ("head", "runs", "rule"))]
        told = [f"{gains.mean():+.4f}", f"{gains.min():+.4f}", f"{np.mean(gains > 0):.0%}"] if len(gains) else ["–"] * 3
        print(f"| {' | '.join((*row, *told, f'{kept.mean():+.4f}' if len(kept) else '–'))} |", flush=True)


if __name__ == "__main__":
    main()
