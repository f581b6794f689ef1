"""Short and cheap real runs of a subject that is started over: probes, rehearsals, and what they measured."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from prefdyn._progress import track
from prefdyn.dynamics.progress import at_levels, progress
from prefdyn.maths.objectives import Objective
from prefdyn.maths.units import mean_of
from prefdyn.training.loop import Loop
from prefdyn.training.probes import PairTable, changes, losses, right
from prefdyn.training.settings import TrainingSettings
from prefdyn.training.subjects import Subject

SHORTER, SMALLER = 4, 4
"""How many times fewer steps a rehearsal has than the run, and smaller batches."""
COST = 1 / (SHORTER * SMALLER)
"""Pairs that a rehearsal trains on, of the run's."""
QUANTITIES = ("loss", "margin", "reward_accuracy", "chosen_change", "rejected_change")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Held-out pairs that every run is measured on."""

    rows: Int[np.ndarray, " n"]
    """Their places among all pairs."""
    group: Int[np.ndarray, " n"]
    """Group of each, numbered from 0 without gaps."""
    unit: Int[np.ndarray, " n"]
    """Equal integers for pairs that hang together."""
    names: tuple[str, ...]
    """Of the groups."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunPart:
    """A run's groups at its records, on pairs that are the same in every run."""

    steps: Int[np.ndarray, " s"]
    values: Mapping[str, Float[np.ndarray, "s g"]]
    """Each of `QUANTITIES`, means over a group's pairs, the changes where they are known; `error` and `chosen_error`:
    standard errors of the loss and of `chosen_change` over its units."""
    modules: Mapping[str, Float[np.ndarray, " n"]] = field(default_factory=dict)
    """What each module has added to every pair's margin in a linear run, from step `since` to the run's last; of a real
    run none."""
    since: int = 0

    @classmethod
    def of(
        cls,
        steps: Iterable[int],
        margins: Float[np.ndarray, "s n"],
        objective: Objective,
        sample: Sample,
        correct: Float[np.ndarray, "s n"] | None = None,
        changes: Mapping[str, Float[np.ndarray, "s n"]] | None = None,
    ) -> "RunPart":
        """From margins of every pair.

        Args:
            steps: Of the records.
            margins: With beta.
            objective: Of the run.
            sample: The pairs.
            correct: Which margins are above 0 by more than rounding, where that is known.
            changes: `chosen_change` and `rejected_change` of every pair, where they are known.

        Example:
            >>> from prefdyn.maths.objectives import DPO
            >>> sample = Sample(rows=np.arange(2), group=np.arange(2), unit=np.arange(2), names=("a", "b"))
            >>> found = RunPart.of([0, 1], np.array([[0.0, 0.0], [1.0, -1.0]]), DPO(), sample)
            >>> found.values["margin"].tolist(), found.values["loss"].round(3).tolist()
            ([[0.0, 0.0], [1.0, -1.0]], [[0.693, 0.693], [0.313, 1.313]])
        """
        loss, group = np.asarray(objective.loss(margins)), sample.group
        counts = np.bincount(group)
        shares = np.zeros((len(group), len(counts)))
        shares[np.arange(len(group)), group] = 1 / counts[group]
        known = {"loss": loss, "margin": margins, "reward_accuracy": margins > 0 if correct is None else correct}
        known |= changes or {}
        values = {name: np.asarray(each, dtype=np.float64) @ shares for name, each in known.items()}
        for name, of in (("error", "loss"), ("chosen_error", "chosen_change")):
            if of in known:
                values[name] = np.array(
                    [[mean_of(row[group == code], sample.unit[group == code]).error for code in range(len(counts))]
                     for row in known[of]]
                )  # fmt: skip
        return cls(steps=np.asarray(list(steps)), values=values)


def run_at(run: RunPart, levels: Float[np.ndarray, " l"], quantity: str = "loss") -> Float[np.ndarray, "l g"]:
    """A run's groups at each level of progress."""
    return at_levels(progress(run.values["loss"]), run.values[quantity], levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A subject that can be started over as often as wanted, and the pairs that every run is measured on."""

    subject: Subject
    settings: TrainingSettings
    """Of the run that will be made."""
    sample: Sample
    start: Mapping[str, torch.Tensor]
    """The trained parameters before the first step."""

    @classmethod
    def of(cls, subject: Subject, settings: TrainingSettings, sample: Sample) -> "Bench":
        """Of a subject that has not been trained yet."""
        start = {name: each.detach().clone() for name, each in subject.parameters.items()}
        return cls(subject=subject, settings=settings, sample=sample, start=start)

    def loop(self, settings: TrainingSettings, *, checkpoints: Path | None = None) -> Loop:
        """A run from the start: with the seed of the run that will be made, its own adapters; else new ones."""
        with torch.no_grad():
            for name, each in self.subject.parameters.items():
                each.copy_(self.start[name])
        if settings.seed != self.settings.seed and settings.tune == "lora":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)
                for part in self.subject.scorer.modules():
                    if hasattr(part, "reset_lora_parameters"):
                        for name in part.lora_A:  # type: ignore[union-attr]
                            part.reset_lora_parameters(name, True)  # type: ignore[operator]
        subject = self.subject
        return Loop(
            subject.scorer, subject.parameters, subject.pairs, settings, lengths=subject.lengths,
            checkpoints=checkpoints, origin={"settings": settings.to_json(), "data": subject.provenance.data["sha256"]},
        )  # fmt: skip

    def run(
        self,
        loop: Loop,
        steps: int,
        records: Iterable[int],
        *,
        label: str,
        progress: bool,
        at: Mapping[int, Callable[[], Any]] | None = None,
    ) -> RunPart:
        """Advance to a step, measuring on the way.

        Args:
            loop: From `loop`.
            steps: Where to stop.
            records: Steps to measure at; 0 and the last are among them.
            label: What the bar says.
            progress: Whether to show one.
            at: What is to be done after some steps.
        """
        wanted, told = {0, steps, *records}, dict(at or {})
        objective, table = self.settings.objective, self.subject.pairs
        kept, found = [0], [measured(loop, table, self.sample.rows, objective)]
        if 0 in told:
            told[0]()
        for _ in track(range(loop.progress.step, steps), label, unit="steps", shown=progress):
            loop.advance()
            if loop.progress.step in wanted:
                loop.flush()
                kept.append(loop.progress.step)
                found.append(measured(loop, table, self.sample.rows, objective))
            if loop.progress.step in told:
                told[loop.progress.step]()
        loop.flush()
        return RunPart.of(
            kept,
            np.stack([each.margin for each in found]),
            objective,
            self.sample,
            np.stack([each.right for each in found]).astype(float),
            {
                "chosen_change": np.stack([each.chosen for each in found]),
                "rejected_change": np.stack([each.rejected for each in found]),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairsNow:
    """Some pairs under a run's weights as they are."""

    margin: Float[np.ndarray, " n"]
    """With beta."""
    right: np.ndarray
    """Which margins are above 0 by more than rounding."""
    chosen: Float[np.ndarray, " n"]
    """Change of the chosen response's log-probability since the reference, nats, whatever the objective averages."""
    rejected: Float[np.ndarray, " n"]


def measured(loop: Loop, pairs: PairTable, rows: Int[np.ndarray, " n"], objective: Objective) -> PairsNow:
    """Margins of some pairs under the weights as they are, and how far log-probabilities have moved."""
    chosen, rejected, _ = loop.score(rows)
    moved = chosen - pairs.ref_chosen[rows], rejected - pairs.ref_rejected[rows]
    up = changes(chosen, pairs.ref_chosen[rows], pairs.chosen_length[rows], objective)
    down = changes(rejected, pairs.ref_rejected[rows], pairs.rejected_length[rows], objective)
    _, found = losses(chosen, up, down, pairs.chosen_length[rows], objective)
    above = right(chosen, rejected, found, objective, torch.finfo(loop.dtype).eps)
    return PairsNow(margin=found, right=above, chosen=moved[0], rejected=moved[1])


def rehearsal(settings: TrainingSettings, seed: int, pairs: int) -> tuple[TrainingSettings, int]:
    """The settings of a cheap run that begins as the run would with another seed, and where it stops.

    It has the run's learning rate and schedule, and smaller batches. From where it stops a linear run goes on.

    Args:
        settings: Of the run.
        seed: Of the rehearsal, another than the run's.
        pairs: Pairs to train on.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> from prefdyn.maths.optimizers import AdamW
        >>> run = TrainingSettings(objective=DPO(), optimizer=AdamW(), learning_rate=1e-4, steps=90, batch_size=32)
        >>> cheap, stop = rehearsal(run, 1, 1000)
        >>> cheap.learning_rate, cheap.batch_size, stop
        (0.0001, 8, 23)
    """
    size = pairs if settings.batch_size == "full" else settings.batch_size
    stop = max(1, math.ceil(settings.steps / SHORTER))
    return replace(settings, seed=seed, batch_size=max(1, size // SMALLER), accumulate=1), stop
