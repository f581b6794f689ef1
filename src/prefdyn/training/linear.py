"""A run that stands somewhere, made linear in its weights there, and where that would take it (THEORY 13)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from prefdyn._random import stream
from prefdyn.dynamics.tangent import (
    Adapter,
    Dense,
    LayerSignals,
    OptimizerMemory,
    Signals,
    TangentRun,
    Trained,
    tangent,
)
from prefdyn.errors import ConfigError
from prefdyn.maths.optimizers import Schedule
from prefdyn.models.gradients import gradients
from prefdyn.models.log_probs import PairScorer
from prefdyn.training.loop import Loop
from prefdyn.training.memory import available_bytes
from prefdyn.training.probes import PairTable
from prefdyn.training.rehearse import RunPart, Sample, measured
from prefdyn.training.settings import TrainingSettings
from prefdyn.training.subjects import Subject

_BYTES = 1 << 30
"""What signals may take in a CPU's memory."""
_SHARE = 0.25
"""And of a GPU's, of what is free."""
_TERMS = 8
"""Terms kept of a pair's gradient in a module, at most."""
_DENSE = 32_000_000
"""Weights of linear modules that a full run may train and still be foretold by a linear one."""
_STATES: Mapping[str, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "rmsprop": ("square_avg", "momentum_buffer"),
    "sgd": ("momentum_buffer",),
}
"""What torch calls an optimizer's memory, in the order of `maths.optimizers`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearised:
    """A run at one of its steps, linear in its weights from there on."""

    signals: Signals
    """Of the sampled pairs, their margins; then of the chosen log-probabilities of the last ones, where asked for."""
    start: Mapping[str, Trained]
    memory: OptimizerMemory
    rows: Int[np.ndarray, " k"]
    """Places of the sampled pairs, those that are measured last."""
    values: Float[np.ndarray, " rows"]
    """Their margins without beta, then changes of those log-probabilities since the reference, nats."""

    @property
    def apart(self) -> int:
        """How many pairs, the last of the sampled ones, have their chosen log-probability followed, too."""
        return len(self.values) - len(self.rows)


def linear_modules(subject: Subject, tune: str) -> tuple[list[str], list[str]]:
    """Modules whose training a linear run follows, and trained weights that it leaves out.

    Raises:
        ConfigError: There are none, or they are too many.
    """
    assert subject.lm is not None
    known = dict(subject.lm.model.named_modules())
    if tune == "lora":
        names = [name for name, part in known.items() if getattr(part, "lora_A", None)]
        inside = tuple(f"model.{name}." for name in names)
    else:
        head = subject.lm.model.get_output_embeddings()
        names = [
            name for name, part in known.items()
            if (isinstance(part, torch.nn.Linear) or type(part).__name__ == "Conv1D") and part is not head
        ]  # fmt: skip
        inside = tuple(f"model.{name}.weight" for name in names)
        size = sum(known[name].weight.numel() for name in names)
        if size > _DENSE:
            raise ConfigError(f"{size:,} weights are more than a linear run follows ({_DENSE:,})")
    if not names:
        raise ConfigError("no linear module is trained")
    left = [name.removeprefix("model.") for name in subject.parameters if not name.startswith(inside)]
    return names, left


def linearise(
    subject: Subject, loop: Loop, rows: Int[np.ndarray, " k"], *, apart: int = 0, progress: bool = False
) -> Linearised:
    """Gradients of the sampled pairs where the run stands, its weights there and its optimizer's memory.

    Args:
        subject: What is trained.
        loop: The run.
        rows: Places of the sampled pairs.
        apart: For so many, the last of them, chosen and rejected log-probabilities are to be told apart.
        progress: Show a bar.

    Raises:
        ConfigError: The objective reads no margins, or no module can be followed.
    """
    assert isinstance(subject.scorer, PairScorer)
    assert subject.lm is not None
    settings, lm = loop.settings, subject.lm
    objective = settings.objective
    names, left_out = linear_modules(subject, settings.tune)
    start = starts(subject, names, settings)
    width = sum(sum(_sizes(each)) for each in start.values())
    terms = int(min(_TERMS, max(2, _room(lm.device) // (4 * width * (len(rows) + apart)))))
    tokens = subject.scorer.pairs

    def read(places: Int[np.ndarray, " n"], chosen: bool) -> dict[str, LayerSignals]:
        sides: dict[str, Any] = {
            side: tuple(getattr(tokens, side)[row] for row in places.tolist()) for side in ("chosen", "rejected")
        }
        few = replace(tokens, prompt=tokens.prompt[places], row=tokens.row[places], answered=None, **sides)
        found = gradients(
            PairScorer(lm, few, normaliser_gradient=chosen), names, sides=False, chosen=chosen,
            per_token=objective.per_token, rank=terms, progress=progress,
        )  # fmt: skip
        return dict(found.layers)

    first, last = rows[: len(rows) - apart], rows[len(rows) - apart :]
    parts = [read(places, chosen) for places, chosen in ((first, False), (last, True)) if len(places)]
    found = measured(loop, subject.pairs, rows, objective)
    return Linearised(
        signals=replace(_joined(parts), left_out=tuple(left_out)),
        start=start,
        memory=_memory(subject, loop, start),
        rows=rows,
        values=np.concatenate([found.margin / objective.beta, found.chosen[len(first) :] if apart else []]),
    )


def _room(device: str) -> float:
    """Bytes that signals may take on a device."""
    free = None if torch.device(device).type == "cpu" else available_bytes(device)
    return _BYTES if free is None else max(_BYTES, _SHARE * free)


def _joined(parts: list[dict[str, LayerSignals]]) -> Signals:
    """Rows of one after those of the other. Parts are given away, module by module, so that none is held twice."""
    if len(parts) == 1:
        return Signals(layers=parts[0], sides=False)
    layers: dict[str, LayerSignals] = {}
    places: list[tuple[np.ndarray, np.ndarray]] = []  # which layers share where they are the same
    for name in list(parts[0]):
        one, two = (each.pop(name) for each in parts)
        starts = np.concatenate([one.starts, two.starts + len(one.inputs)])
        counts = np.concatenate([one.counts, two.counts])
        known = next((each for each in places if np.array_equal(each, (starts, counts))), None)
        if known is None:
            places.append(known := (starts, counts))
        starts, counts = known
        layers[name] = LayerSignals(
            inputs=torch.cat([one.inputs, two.inputs]),
            signals=torch.cat([one.signals, two.signals]),
            starts=starts,
            counts=counts,
            lost=max(one.lost, two.lost),
        )
    return Signals(layers=layers, sides=False)


def foretell(
    found: Linearised,
    loop: Loop,
    sample: Sample,
    *,
    stretch: int = 1,
    records: Sequence[int],
) -> RunPart:
    """Where the linear run goes: groups of the measured pairs, the last of the sampled ones; see `linear_margins`.

    What each module has done to them is told of the step where the run itself ends.
    """
    count, objective, table = len(sample.rows), loop.settings.objective, loop.pairs
    run = _run(found, loop, count, stretch=stretch, records=records, apart_at=loop.settings.steps)
    values, changes = run.values[:, 0, :count], {}
    if found.apart:
        assert found.apart == count
        chosen = run.values[:, 0, count:]
        up, down = chosen, 1
        if objective.per_token:
            up, down = chosen / table.chosen_length[sample.rows], table.rejected_length[sample.rows]
        changes = {"chosen_change": chosen, "rejected_change": down * (up - values)}
    told = RunPart.of(run.steps, objective.beta * values, objective, sample, changes=changes)
    modules = {name: objective.beta * each[0, :count] for name, each in run.modules.items()}
    return replace(told, modules=modules, since=found.memory.steps)


def linear_margins(
    found: Linearised,
    loop: Loop,
    measured: int,
    *,
    stretch: int = 1,
    records: Sequence[int],
    factors: Float[np.ndarray, "k R"] | None = None,
) -> tuple[tuple[int, ...], Float[np.ndarray, "S R measured"]]:
    """Margins of the measured pairs, the last of the sampled ones, where linear runs go.

    Args:
        found: Where it starts.
        loop: The run whose batches and settings it has; a training pair that was not sampled is stood in for by one of
            its group.
        measured: How many.
        stretch: How many times the run's steps it takes, for a linear run is slower; its schedule is stretched alike.
        records: Steps to measure at, from `found.memory.steps` on.
        factors: What the weight of each sampled pair is multiplied by, one column per run; one run as given without.

    Returns:
        The recorded steps, S of them, and the margins with beta.
    """
    run = _run(found, loop, measured, stretch=stretch, records=records, factors=factors)
    return run.steps, loop.settings.objective.beta * run.values[:, :, :measured]


def margins_by_setting(
    found: Linearised,
    loop: Loop,
    measured: int,
    *,
    betas: Float[np.ndarray, " R"],
    rates: Float[np.ndarray, " R"],
) -> Float[np.ndarray, "R measured"]:
    """Margins without beta of the measured pairs at the run's last step, in linear runs with other settings.

    Args:
        found: Where they start.
        loop: The run whose batches and other settings they have.
        measured: How many pairs are measured, the last of the sampled ones.
        betas: One per run.
        rates: Learning rates, one per run.
    """
    last = loop.settings.steps
    run = _run(found, loop, measured, stretch=1, records=[last], betas=betas, rates=rates)
    return run.values[0, :, :measured]


def _run(
    found: Linearised,
    loop: Loop,
    measured: int,
    *,
    stretch: int,
    records: Sequence[int],
    factors: Float[np.ndarray, "k R"] | None = None,
    apart_at: int | None = None,
    betas: Float[np.ndarray, " R"] | None = None,
    rates: Float[np.ndarray, " R"] | None = None,
) -> TangentRun:
    settings, table = loop.settings, loop.pairs
    sampled = found.rows[: len(found.rows) - measured]
    place = standins(table, sampled, seed=settings.seed)
    steps = stretch * settings.steps
    order = [loop.order[step % settings.steps] for step in range(steps)]
    schedule = None
    if settings.schedule != "constant" or settings.warmup:
        schedule = Schedule(kind=settings.schedule, steps=steps, warmup=settings.warmup)
    share = table.weight[found.rows] if factors is None else table.weight[found.rows, None] * factors
    return tangent(
        found.signals,
        found.start,
        settings.objective if betas is None else replace(settings.objective, beta=betas),
        settings.optimizer,
        learning_rate=settings.learning_rate if rates is None else rates,
        batches=[place[table.train[rows]] for rows in order[: max(records)]],
        share=np.concatenate([share, np.zeros((found.apart, *share.shape[1:]))]),
        values=found.values,
        schedule=schedule,
        clip=settings.clip,
        recorded=records,
        apart_at=apart_at,
        rows=np.arange(len(sampled), len(found.values) if betas is None else len(found.rows)),
        memory=found.memory,
    )


def standins(pairs: PairTable, sampled: Int[np.ndarray, " k"], *, seed: int) -> Int[np.ndarray, " m"]:
    """Place in the sample of what stands for each pair: itself, or a pair of its group; -1 for groups without any."""
    found = np.full(len(pairs), -1, dtype=np.int64)
    found[sampled] = np.arange(len(sampled))
    for code in np.unique(pairs.group[pairs.train]).tolist():
        inside = np.flatnonzero((pairs.group == code) & ~pairs.held_out & (found < 0))
        known = np.flatnonzero(pairs.group[sampled] == code)
        if len(inside) and len(known):
            found[inside] = stream(seed, "standins", pairs.groups[code]).choice(known, len(inside))
    return found


def _sizes(trained: Trained) -> tuple[int, int]:
    if isinstance(trained, Adapter):
        return int(trained.down.shape[1]), int(trained.up.shape[0])
    return int(trained.weight.shape[1]), int(trained.weight.shape[0])


def _names(subject: Subject, module: str, tune: str) -> dict[str, str]:
    """Name of the parameter that each part of a module is."""
    if tune != "lora":
        return {"weight": f"model.{module}.weight"}
    first = f"model.{module}.lora_A."
    down = next(name for name in subject.parameters if name.startswith(first))
    return {"down": down, "up": down.replace(".lora_A.", ".lora_B.")}


def _turned(subject: Subject, module: str) -> bool:
    assert subject.lm is not None
    return type(subject.lm.model.get_submodule(module)).__name__ == "Conv1D"


def starts(subject: Subject, modules: Sequence[str], settings: TrainingSettings) -> dict[str, Trained]:
    """What the modules' trained parts are now."""
    return {name: _start(subject, name, settings) for name in modules}


def _start(subject: Subject, module: str, settings: TrainingSettings) -> Trained:
    parts = {
        part: subject.parameters[name].detach().clone()
        for part, name in _names(subject, module, settings.tune).items()
    }  # fmt: skip
    if settings.tune != "lora":
        return Dense(weight=parts["weight"].T.contiguous() if _turned(subject, module) else parts["weight"])
    assert settings.lora is not None
    return Adapter(**parts, scale=settings.lora.alpha / settings.lora.rank)


def _memory(subject: Subject, loop: Loop, start: Mapping[str, Trained]) -> OptimizerMemory:
    states = {}
    for module in start:
        turned = loop.settings.tune != "lora" and _turned(subject, module)
        for part, name in _names(subject, module, loop.settings.tune).items():
            kept = loop.optimizer.state.get(subject.parameters[name], {})
            named = [kept[key] for key in _STATES[loop.settings.optimizer.name] if kept.get(key) is not None]
            if named:
                states[module, part] = tuple((each.T if turned else each).detach().clone() for each in named)
    return OptimizerMemory(steps=loop.progress.step, states=states)


def records_between(first: int, last: int, count: int) -> list[int]:
    """About so many steps from one to another, denser at the start.

    Example:
        >>> records_between(4, 40, 5)
        [4, 9, 17, 28, 40]
    """
    share = np.linspace(0, 1, count) ** 1.5
    return sorted({first + math.ceil((last - first) * each - 1e-9) for each in share.tolist()})
