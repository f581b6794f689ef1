"""What a plan would take, before anything is run: floating point operations and memory, run by run."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdyn._files import shown_bytes
from prefdyn.dynamics.descent import recorded_steps
from prefdyn.experiments.published import MODELS
from prefdyn.experiments.run import RecipeRun, with_starts
from prefdyn.experiments.work import finished

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, about; used where no tokenizer is at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One run, as planned."""

    run: RecipeRun
    done: bool
    """Whether it was done before."""
    steps: int | None
    flops: float | None
    """Floating point operations: 2 per weight and token forward, 4 more backward (2 where weights are frozen); None:
    the size of the model is not known here."""
    memory: int | None
    """Bytes at the peak; None: not known, or too little to tell."""

    def row(self) -> dict[str, Any]:
        """The same as plain JSON."""
        setup = self.run.setup
        return {
            "run": self.run.title,
            "kind": self.run.kind,
            "model": self.run.model.shown,
            "pairs": self.run.pairs.train + self.run.pairs.held_out,
            "groups": len(self.run.pairs.groups),
            "seed": self.run.seed,
            "steps": self.steps,
            "settings": None if setup is None else setup.to_json(),
            "flops": self.flops,
            "memory": self.memory,
            "done": self.done,
            "key": self.run.key,
        }


def costs(runs: Sequence[RecipeRun], *, look: bool = True) -> list[Cost]:
    """Every run of a plan, those that they start from included, with what it takes.

    Args:
        runs: In any order.
        look: Whether to see which were done before; False where models were not looked at, so that none can be known.
    """
    return [_cost(run, look) for run in with_starts(runs).values()]


def _cost(run: RecipeRun, look: bool) -> Cost:
    size = _size(run.model.name)
    tokens = run.pairs.characters / CHARACTERS_PER_TOKEN
    steps = None if run.setup is None else run.setup.updates(run.pairs.train)
    flops = memory = None
    if size is not None:
        flops = _flops(run, size.parameters, tokens, steps)
        memory = _memory(run, size, tokens)
    return Cost(run=run, done=look and finished(run) is not None, steps=steps, flops=flops, memory=memory)


def _flops(run: RecipeRun, parameters: int, tokens: float, steps: int | None) -> float:
    pairs = run.pairs.train + run.pairs.held_out
    forward = 2.0 * parameters * tokens
    if run.kind == "features":
        return forward * pairs
    assert run.setup is not None
    assert steps is not None
    if run.kind == "simulate":  # no model is run: products of the states with the head's few rows
        return 0.0
    size = run.setup.batch(run.pairs.train)
    learned = (3 if run.setup.tune == "full" else 2) * forward * size * steps
    cells = 2 * len(run.pairs.groups)
    measured = pairs if run.probe_pairs is None else min(pairs, cells * run.probe_pairs)
    record: Any = run.record if isinstance(run.record, str) else list(run.record)
    return learned + forward * (measured * len(recorded_steps(steps, record)) + 2 * pairs)


def _memory(run: RecipeRun, size: Any, tokens: float) -> int | None:
    from prefdyn.maths.optimizers import AdamW
    from prefdyn.training.memory import Load, estimate

    if run.kind == "simulate":
        return None
    if run.kind == "features" or run.setup is None:
        return size.parameters * size.weight_bytes
    batch = run.setup.batch(run.pairs.train)
    load = Load(
        tune=run.setup.tune,
        optimizer=run.setup.stepper or AdamW(),
        batch_tokens=round(batch * tokens),
        batch_pairs=batch,
        rank=run.setup.lora_rank,
        autocast=run.model.device.startswith("cuda"),
        drift="drift" in run.probes,
    )
    return estimate(size, load, device="cuda" if run.model.device == "auto" else run.model.device).total


@functools.cache
def _size(name: str) -> Any:
    """The model in numbers: published ones from their table, local ones from what they are; else None."""
    from prefdyn.training.memory import ModelSize, model_size

    for known in MODELS.values():
        if known.hub_id == name:
            return ModelSize(
                parameters=known.parameters, hidden=known.hidden, layers=known.layers,
                intermediate=known.intermediate, query=known.query, key=known.key, heads=known.heads,
                vocabulary=known.vocabulary,
            )  # fmt: skip
    if name != "builtin" and not Path(name).is_dir():
        return None
    from prefdyn.models.load import load_model

    return model_size(load_model(name))


def plan_table(found: Sequence[Cost]) -> str:
    """A plan for the terminal: one line per kind of run, and the sums.

    Example:
        >>> plan_table([])
        'nothing to run'
    """
    if not found:
        return "nothing to run"
    piles: dict[tuple[Any, ...], list[Cost]] = {}
    for cost in found:
        setup = cost.run.setup
        words = "" if setup is None else _told(cost)
        piles.setdefault((cost.run.kind, cost.run.model.shown.partition(" (untrained")[0], words), []).append(cost)
    lines = [f"{'runs':>5}  {'done':>4}  {'each, PFLOP':>11}  {'memory':>9}  what"]
    for (kind, model, words), pile in piles.items():
        flops = [cost.flops for cost in pile if cost.flops is not None]
        memory = [cost.memory for cost in pile if cost.memory is not None]
        shown = "?" if not flops else f"{max(flops) / 1e15:.3g}"
        held = "–" if not memory else shown_bytes(max(memory))
        done = sum(cost.done for cost in pile)
        lines.append(f"{len(pile):>5}  {done:>4}  {shown:>11}  {held:>9}  {kind} of {model}{words}")
    known = [cost.flops for cost in found if cost.flops is not None and not cost.done]
    rest = sum(cost.flops is None for cost in found)
    done, left = sum(cost.done for cost in found), f"{sum(known) / 1e15:.3g}"
    unknown = f" ({rest} runs of models whose size is not known here)" if rest else ""
    lines.append(f"{len(found):>5}  {done:>4}  {left:>11}  {'':>9}  in all, still to do{unknown}")
    return "\n".join(lines)


def _told(cost: Cost) -> str:
    setup = cost.run.setup
    assert setup is not None
    rate = setup.learning_rate if isinstance(setup.learning_rate, str) else f"{setup.learning_rate:.3g}"
    return (
        f", {setup.tune}, {setup.objective}, beta {setup.beta:g}, {setup.optimizer} {rate}, batch {setup.batch_size}, "
        f"{cost.steps} steps"
    )
