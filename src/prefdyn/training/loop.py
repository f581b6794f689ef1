"""The training loop: one for every way to tune, in one process or many, resumable to the same bytes."""

import contextlib
import math
import signal
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int

from prefdyn._progress import track
from prefdyn.dynamics.descent import recorded_steps
from prefdyn.dynamics.sampling import batches
from prefdyn.errors import ConfigError, ProcessError, TrainingError
from prefdyn.maths.optimizers import SGD, Adam, RMSprop
from prefdyn.models.mates import LOOSE
from prefdyn.training.checkpoints import Checkpoint, save_checkpoint
from prefdyn.training.probes import Drift, PairTable, changes, group_rows, losses, probe_rows, right, trajectory_table
from prefdyn.training.settings import TrainingSettings
from prefdyn.trajectory import MODULES

STEPS = pa.schema(
    [
        ("step", pa.int64()),
        ("learning_rate", pa.float64()),
        ("pairs", pa.int64()),
        ("loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("rewards/chosen", pa.float64()),
        ("rewards/rejected", pa.float64()),
        ("rewards/accuracies", pa.float64()),
        ("rewards/margins", pa.float64()),
        ("logps/chosen", pa.float64()),
        ("logps/rejected", pa.float64()),
    ]
)
"""One row per update, over its batch and before it, by TRL's names. `step` counts from 1, `grad_norm` is before
clipping."""
_SUMS = ("loss", "share", "pairs", "margins", "right", "chosen", "rejected", "chosen_moved", "rejected_moved")
_FLUSH = {"cpu": 1}
"""Steps whose sums stay on the device before they are looked at."""
_PROBE_TOKENS = {"cpu": 4096, "cuda": 32768}
_START_PAIRS, _START_SINGLES = 64, 8
"""Pairs on which the margins before the first step are looked at, and how many of them once more by themselves."""
_ROUNDING = LOOSE["float32"]
"""Log-probabilities that are read in other batches deviate up to this, as for `mates`: a model that has learned its
pairs has large logits, and those are rounded."""
_GROSS = 0.1
"""Share of a pair's log-probabilities that no rounding is off by, bfloat16's among it."""
_DROWNED = 0.02 * math.log(2)
"""Start margin that moves DPO's loss by one percent: r / 2 = 0.01 log 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The processes that train together. Alone unless told."""

    index: int = 0
    count: int = 1
    accelerator: Any = None

    def mine(self, rows: Int[np.ndarray, " b"]) -> tuple[Int[np.ndarray, " mine"], bool]:
        """This process's rows; where there are none for it, a row to go through the motions with, and False."""
        rows_here = rows[self.index :: self.count]
        return (rows_here, True) if len(rows_here) else (rows[:1], False)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        return values if self.accelerator is None else self.accelerator.reduce(values, reduction="sum")

    def together(self, values: Float[np.ndarray, "b c"]) -> Float[np.ndarray, "b c"]:
        """Every process's rows, put together; each has 0 in those of the others."""
        if self.accelerator is None:
            return values
        return self.total(torch.from_numpy(values).to(self.accelerator.device)).cpu().numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the margins of some pairs are before the first step. In exact arithmetic they would all be 0."""

    margins: Float[np.ndarray, " b"]
    sizes: Float[np.ndarray, " b"]
    r"""$\beta(1 + |\log \pi(w)| + |\log \pi(l)|)$ of each: in float32 a margin is known to 1e-4 of this."""
    noise: float = 0.0
    """What margins were seen to change by when the same pairs are scored in smaller batches: rounding alone."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a run has measured so far."""

    step: int = 0
    start_margin: float | None = None
    """Largest margin before the first step; None where it need not be 0."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the Trajectory."""
    modules: list[pa.Table] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def tables(self) -> dict[str, pa.Table]:
        """The same as tables."""
        modules = (
            pa.concat_tables(self.modules).combine_chunks() if self.modules else pa.table([[]] * 4, schema=MODULES)
        )
        return {
            "trajectory": trajectory_table(self.rows),
            "modules": modules,
            "steps": pa.Table.from_pylist(self.steps, schema=STEPS),
        }

    @classmethod
    def of(cls, found: Checkpoint) -> "Progress":
        """What a checkpoint holds."""
        tables = found.tables()
        return cls(
            step=found.step,
            start_margin=found.state.get("start_margin"),
            rows=tables["trajectory"].to_pylist(),
            modules=[tables["modules"].cast(MODULES)],
            steps=tables["steps"].to_pylist(),
        )


class Loop:
    """A run: `start`, then `advance` until the last step."""

    def __init__(
        self,
        scorer: torch.nn.Module,
        parameters: Mapping[str, torch.nn.Parameter],
        pairs: PairTable,
        settings: TrainingSettings,
        *,
        lengths: Int[np.ndarray, " m"],
        processes: Processes | None = None,
        drift: Callable[[Mapping[str, torch.nn.Parameter]], Drift] | None = None,
        checkpoints: Path | None = None,
        origin: Mapping[str, Any] | None = None,
        log: Callable[[int, Sequence[Mapping[str, Any]], Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Take what is trained and what it is trained on.

        Args:
            scorer: Rows of `pairs` → `PairScores`.
            parameters: What the optimizer moves, by name.
            pairs: All pairs, with their reference.
            settings: Everything else.
            lengths: Tokens of each pair, by which batches are sorted inside.
            processes: The others that train along.
            drift: Makes what measures weights, once they are where they will stay; None: not measured.
            checkpoints: Folder for checkpoints; None: none are written.
            origin: What a checkpoint must agree with to be resumed: data, model, settings.
            log: Told of each recorded step: the step, its rows, and the last batch's figures.
        """
        self.scorer, self.parameters, self.pairs, self.settings = scorer, dict(parameters), pairs, settings
        self.lengths, self.processes, self.checkpoints = lengths, processes or Processes(), checkpoints
        self.origin, self.log = dict(origin or {}), log
        first = next(iter(self.parameters.values()))
        self.device, self.dtype = first.device, first.dtype
        self.optimizer = torch_optimizer(settings, list(self.parameters.values()))
        if self.processes.accelerator is not None:
            self.scorer, self.optimizer = self.processes.accelerator.prepare(scorer, self.optimizer)
            self.parameters = _renamed(self.scorer, self.parameters)
        self.drift = None if drift is None else drift(self.parameters)
        size = settings.batch_size
        self.order = batches(
            len(pairs.train),
            len(pairs.train) if size == "full" else size,
            settings.steps,
            seed=settings.seed,
            scheme="full" if size == "full" else settings.scheme,
        )
        self.recorded = set(recorded_steps(settings.steps, settings.record))
        self.probed = probe_rows(pairs, settings.probe_pairs, seed=settings.seed)
        self.progress = Progress()
        self.interrupts = _Interrupts()
        self.asked = False
        """Whether some process was told to stop, as all of them know it."""
        self.pending: list[torch.Tensor] = []
        self.chance = any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in scorer.modules())
        share = pairs.weight * (pairs.chosen_length if settings.objective.reads == "log_probs" else 1.0)
        self.share = torch.from_numpy(np.asarray(share, dtype=np.float64))
        self.references = torch.from_numpy(np.stack([pairs.ref_chosen, pairs.ref_rejected]))
        self.token_counts = torch.from_numpy(np.stack([pairs.chosen_length, pairs.rejected_length]))

    # one step -------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """One update.

        Raises:
            TrainingError: Loss or gradient is no longer finite.
        """
        step, settings = self.progress.step, self.settings
        parts = self._parts(step)
        whole = float(self.share[torch.from_numpy(np.concatenate(parts))].sum())
        rate = settings.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=self.device)
        self.scorer.train()
        for place, part in enumerate(parts):
            sums += self._accumulate(part, whole, seed=(step, place), sync=place == len(parts) - 1)
        norm = _grad_norm(self.parameters.values())
        self.pending.append(torch.cat([sums, norm.to(sums)[None]]))
        if len(self.pending) >= _FLUSH.get(self.device.type, 16):
            self.flush()
        if settings.clip is not None:
            factor = (settings.clip / (norm + 1e-6)).clamp(max=1.0)
            for each in self.parameters.values():
                if each.grad is not None:
                    each.grad.mul_(factor.to(each.grad.dtype))
        self.optimizer.step()
        self.progress.step += 1

    def _parts(self, step: int) -> list[Int[np.ndarray, " b"]]:
        """The pairs of a step, by length, in the parts in which they are worked through; none is empty."""
        rows = self.pairs.train[self.order[step]]
        if self.settings.batch_size != "full":
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        return np.array_split(rows, min(self.settings.accumulate, len(rows)))

    def _accumulate(
        self, part: Int[np.ndarray, " b"], whole: float, *, seed: tuple[int, int], sync: bool
    ) -> torch.Tensor:
        rows, alive = self.processes.mine(part)
        quiet = contextlib.nullcontext()
        if self.processes.accelerator is not None and not sync:
            quiet = self.processes.accelerator.no_sync(self.scorer)
        with quiet, self._precision(), self._chance(*seed):
            scores = self.scorer(rows)
            chosen, rejected, up, down, lengths = self._moved(rows, scores)
            loss, margins = losses(chosen, up, down, lengths[0], self.settings.objective)
            share = self.share[torch.from_numpy(rows)].to(loss) * float(alive)
            mean = (share * loss).sum() / whole
            (mean * self.processes.count).backward()
        with torch.no_grad():
            beta = self.settings.objective.beta
            one = torch.ones_like(loss) * float(alive)
            good = right(chosen, rejected, margins, self.settings.objective, torch.finfo(chosen.dtype).eps)
            columns = [share * loss, share, one, one * margins, one * good, one * chosen, one * rejected]
            columns += [one * beta * up, one * beta * down]
            return torch.stack([column.double().sum() for column in columns]).to(self.device)

    def _moved(self, rows: Int[np.ndarray, " b"], scores: Any) -> tuple[Any, Any, Any, Any, Any]:
        index, objective = torch.from_numpy(rows), self.settings.objective
        reference = self.references[:, index].to(device=scores.chosen.device, dtype=scores.chosen.dtype)
        lengths = self.token_counts[:, index].to(scores.chosen.device)
        up = changes(scores.chosen, reference[0], lengths[0], objective)
        down = changes(scores.rejected, reference[1], lengths[1], objective)
        return scores.chosen, scores.rejected, up, down, lengths

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self.settings.precision != "bfloat16":
            yield
            return
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            yield

    @contextlib.contextmanager
    def _chance(self, *place: int) -> Iterator[None]:
        """Dropout that depends on the seed and the place in the run alone, so that a resumed run draws the same."""
        if not self.chance:
            yield
            return
        name = "/".join(map(str, (self.settings.seed, *place, self.processes.index)))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(zlib.crc32(name.encode()))
            yield

    def flush(self) -> None:
        """Turn what the device has summed into rows, and see that it is finite."""
        if not self.pending:
            return
        stack = torch.stack(self.pending)
        told = torch.full_like(stack[:, :1], float(bool(self.interrupts)))
        summed = self.processes.total(torch.cat([told, stack[:, :-1]], dim=1))
        self.asked = bool((summed[:, 0] > 0).any())
        found = torch.cat([summed[:, 1:], stack[:, -1:]], dim=1).cpu().numpy()
        first = len(self.progress.steps)
        self.pending.clear()
        for offset, values in enumerate(found):
            step = first + offset
            sums = dict(zip(_SUMS, values[:-1].tolist(), strict=True))
            norm, count = float(values[-1]), sums["pairs"]
            loss = sums["loss"] / sums["share"]
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(self._not_finite(step, loss, norm))
            known = self.pairs.known
            self.progress.steps.append(
                {
                    "step": step + 1,
                    "learning_rate": self.settings.rate(step),
                    "pairs": round(count),
                    "loss": loss,
                    "grad_norm": norm,
                    "rewards/chosen": sums["chosen_moved"] / count if known else None,
                    "rewards/rejected": sums["rejected_moved"] / count if known else None,
                    "rewards/accuracies": sums["right"] / count,
                    "rewards/margins": sums["margins"] / count,
                    "logps/chosen": sums["chosen"] / count if known else None,
                    "logps/rejected": sums["rejected"] / count if known else None,
                }
            )

    def _not_finite(self, step: int, loss: float, norm: float) -> str:
        rows = self.pairs.train[self.order[step]]
        groups = sorted({self.pairs.groups[code] for code in self.pairs.group[rows].tolist()})
        what = f"loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        kept = "" if self.checkpoints is None else "; the last checkpoint is from before"
        shown = ", ".join(groups[:3]) + (", …" if len(groups) > 3 else "")
        return (
            f"step {step + 1}: {what}, in a batch of {len(rows)} pairs of {shown} (the first is "
            f"{str(self.pairs.id[rows[0]])!r}); lower the learning rate ({self.settings.rate(step):g}){kept}"
        )

    # measuring ------------------------------------------------------------------------------------------------------

    def score(
        self, rows: Int[np.ndarray, " b"], *, states: bool = False
    ) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"], Float[np.ndarray, "b d"] | None]:
        """Log-probabilities of both responses of some pairs under the weights as they are, and their states."""
        order = np.argsort(self.lengths[rows], kind="stable")
        budget = _PROBE_TOKENS.get(self.device.type, 4096)
        found = np.zeros((len(rows), 2))
        kept: np.ndarray | None = None
        self.scorer.eval()
        start = 0
        while start < len(rows):
            longest, stop = 1, start
            while stop < len(rows):
                longest = max(longest, int(self.lengths[rows[order[stop]]]))
                if stop > start and (stop - start + 1) * longest > budget * self.processes.count:
                    break
                stop += 1
            places = order[start:stop]
            mine, alive = self.processes.mine(rows[places])
            with torch.no_grad(), self._precision():
                scores = self.scorer(mine)
            part = np.zeros((len(places), 2))
            here = slice(self.processes.index, None, self.processes.count)
            if alive:
                part[here] = torch.stack([scores.chosen, scores.rejected], 1).double().cpu().numpy()
            found[places] = self.processes.together(part)
            if states:
                width = scores.states.shape[1]
                kept = np.zeros((len(rows), width), dtype=np.float32) if kept is None else kept
                piece = np.zeros((len(places), width), dtype=np.float32)
                if alive:
                    piece[here] = scores.states.float().cpu().numpy()
                kept[places] = self.processes.together(piece)
            start = stop
        return found[:, 0], found[:, 1], kept

    def probe(self) -> None:
        """Measure now."""
        step, settings = self.progress.step, self.settings
        wanted = bool({"gradients", "states"} & set(settings.probes)) and self.pairs.chosen is not None
        chosen, rejected, states = self.score(self.probed, states=wanted)
        if step == 0 and self.progress.start_margin is not None:
            self._check_measured(chosen, rejected)
        whole = None
        if self.drift is not None:
            whole, modules = self.drift.measure(step)
            self.progress.modules.append(modules)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told below
            rows = group_rows(
                self.pairs,
                self.probed,
                settings.objective,
                chosen,
                rejected,
                step=step,
                time=settings.learning_rate * step,
                states=states,
                drift=whole,
                gradients="gradients" in settings.probes,
                geometry="states" in settings.probes,
                eps=torch.finfo(self.dtype).eps,
            )
        bad = next((row for row in rows if not math.isfinite(row["loss"])), None)
        if bad is not None:
            raise TrainingError(
                f"after step {step} the loss of group {bad['group']!r} ({bad['split']}) is {bad['loss']}; lower the "
                f"learning rate ({settings.learning_rate:g})"
            )
        self.progress.rows += rows
        if self.log is not None:
            self.log(step, rows, self.progress.steps[-1] if self.progress.steps else {})

    def _check_measured(self, chosen: Float[np.ndarray, " n"], rejected: Float[np.ndarray, " n"]) -> None:
        """Refuse a pair whose log-probabilities before the first step are grossly other than the reference's."""
        known = self.pairs.ref_chosen[self.probed], self.pairs.ref_rejected[self.probed]
        off = np.maximum(np.abs(chosen - known[0]), np.abs(rejected - known[1]))
        bad = np.flatnonzero(off > _GROSS * (1 + np.abs(known[0]) + np.abs(known[1])))
        if len(bad):
            raise TrainingError(
                f"before the first step {len(bad)} of {len(off)} pairs have other log-probabilities than under the "
                f"reference, which is the same model (the first is {str(self.pairs.id[self.probed[bad[0]]])!r}, off by "
                f"{off[bad[0]]:.2g} nats): what was read once cannot be relied on here; read again with another "
                "PREFDYN_CACHE, and run fewer programs on this device"
            )

    def start(self) -> "Start":
        """Margins before the first update, of the first pairs to be trained on, in training's own batches."""
        settings = self.settings
        mine, _ = self.processes.mine(self._parts(0)[0][: _START_PAIRS * self.processes.count])
        self.scorer.train()

        def margins_of(rows: Int[np.ndarray, " b"]) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad(), self._precision(), self._chance(0, 0):
                chosen, rejected, up, down, lengths = self._moved(rows, self.scorer(rows))
                _, margins = losses(chosen, up, down, lengths[0], settings.objective)
            sizes = (1 + chosen.abs() + rejected.abs()) * settings.objective.beta
            return margins.double().cpu().numpy(), sizes.double().cpu().numpy()

        found, sizes = margins_of(mine)
        half, places = max(1, len(mine) // 2), np.arange(len(mine))
        parts = [places[:half], places[-half:], *(places[at % len(mine)][None] for at in range(_START_SINGLES))]
        noise = max(float(np.abs(margins_of(mine[each])[0] - found[each]).max()) for each in parts)
        return Start(margins=found, sizes=sizes, noise=noise)

    # state ----------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of now."""
        self.flush()
        if self.checkpoints is None:
            return
        tensors = {f"weights/{name}": whole(each) for name, each in self.parameters.items()}
        for name, each in self.parameters.items():
            for key, value in self.optimizer.state.get(each, {}).items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer/{name}/{key}"] = whole(value)
        if self.processes.index == 0:
            save_checkpoint(
                self.checkpoints,
                step=self.progress.step,
                tensors=tensors,
                state={"origin": self.origin, "start_margin": self.progress.start_margin},
                tables=self.progress.tables(),
            )
        if self.processes.accelerator is not None:
            self.processes.accelerator.wait_for_everyone()

    def restore(self, found: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: It is of a run with other data, another model or other settings.
        """
        if found.state["origin"] != self.origin:
            raise ConfigError(f"{found.path} is of another run: {_difference(found.state['origin'], self.origin)}")
        tensors = found.tensors()
        with torch.no_grad():
            for name, each in self.parameters.items():
                each.copy_(_like(tensors[f"weights/{name}"], each))
        for name, each in self.parameters.items():
            prefix = f"optimizer/{name}/"
            kept = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if kept:
                self.optimizer.state[each] = {
                    key: _like(value, each) if value.shape == each.shape else value for key, value in kept.items()
                }
        self.progress = Progress.of(found)

    def run(self, *, progress: bool = True) -> None:
        """Go on to the last step, measuring and saving on the way; an interrupt is obeyed between steps, once saved."""
        settings = self.settings
        if self.progress.step == 0 and not self.progress.rows:
            self.probe()
        with self.interrupts as told:
            left = range(self.progress.step, settings.steps)
            for _ in track(
                left, f"Training ({settings.tune})", unit="steps", shown=progress and self.processes.index == 0
            ):
                self.advance()
                done = self.progress.step
                if done in self.recorded:
                    self.flush()
                    self.probe()
                every, asked = settings.checkpoint_every, self.asked if self.processes.count > 1 else bool(told)
                if done == settings.steps or (every is not None and done % every == 0) or asked:
                    self.save()
                if asked and done < settings.steps:
                    told.stop(done)
        self.flush()


def check_start(start: Start, settings: TrainingSettings) -> float:
    """See that policy and reference agree before the first step.

    Returns:
        The largest margin in absolute value.

    Raises:
        TrainingError: One is above 1e-4 of its size and above four times `noise` in float32; in bfloat16, above what
            moves the loss by one percent, so that the first steps would drown in it.
    """
    margins = np.abs(start.margins)
    worst = float(np.max(margins, initial=0.0))
    if settings.precision == "bfloat16":
        if worst > _DROWNED:
            raise TrainingError(
                f"before the first step margins are up to {worst:.2g}, and should be 0; in bfloat16 that would drown "
                "the first steps: reference and policy were not computed alike (dtype, batches or model differ); use "
                "--precision float32, or let the reference be computed here"
            )
    elif bool((margins > np.maximum(_ROUNDING * start.sizes, 4 * start.noise)).any()):
        raise TrainingError(
            f"before the first step margins are up to {worst:.2g}, and should be 0: the reference's log-probabilities "
            "are not those of the start model (another model, dtype or tokenisation); compute them again, or name the "
            "model they belong to with --reference"
        )
    return worst


def torch_optimizer(settings: TrainingSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The torch optimizer that steps as `maths.optimizers` has it."""
    chosen, rate = settings.optimizer, settings.learning_rate
    common: dict[str, Any] = {"lr": rate, "weight_decay": chosen.weight_decay}
    match chosen:
        case SGD():
            return torch.optim.SGD(parameters, momentum=chosen.momentum, nesterov=chosen.nesterov, **common)
        case Adam():
            kind = torch.optim.AdamW if chosen.name == "adamw" else torch.optim.Adam
            return kind(parameters, betas=chosen.betas, eps=chosen.eps, fused=True, **common)
        case RMSprop():
            return torch.optim.RMSprop(
                parameters, alpha=chosen.alpha, eps=chosen.eps, momentum=chosen.momentum, **common
            )


def _grad_norm(parameters: Any) -> torch.Tensor:
    grads = [each.grad for each in parameters if each.grad is not None]
    if not grads:
        raise TrainingError("no weight has a gradient; nothing is being trained")
    norm = torch.nn.utils.get_total_norm(grads)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # type: ignore[union-attr]


def whole(values: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, put together where it lies in shards. Every process must ask."""
    values = values.detach()
    return (values.full_tensor() if hasattr(values, "full_tensor") else values).cpu()  # type: ignore[operator]


def _like(values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    values = values.to(device=other.device, dtype=values.dtype)
    if hasattr(other, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(values, other.device_mesh, other.placements)  # type: ignore[attr-defined]
    return values


def _renamed(scorer: torch.nn.Module, before: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """The same parameters after a wrapper may have replaced them, by the names they had."""
    wanted = list(before)
    found = {}
    for name, each in scorer.named_parameters():
        plain = name.replace("module.", "").replace("_fsdp_wrapped_module.", "")
        short = next((known for known in wanted if plain == known or plain.endswith("." + known)), None)
        if short is not None:
            found[short] = each
    if len(found) != len(wanted):
        raise TrainingError(f"{len(wanted) - len(found)} trained weights were lost when the model was distributed")
    return {name: found[name] for name in wanted}


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    shown = ", ".join(f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in names[:3])
    return f"{shown}; give the settings it was started with, or start anew with --force"


class _Interrupts:
    """Ctrl-C and SIGTERM as a wish to stop after this step; a second one stops at once. True once asked."""

    def __init__(self) -> None:
        self.kind: int | None = None
        """The signal that came."""
        self.before: dict[int, Any] = {}
        self.waker = -1

    def __bool__(self) -> bool:
        return self.kind is not None

    def __enter__(self) -> "_Interrupts":
        if threading.current_thread() is threading.main_thread():
            self.waker = signal.set_wakeup_fd(-1)  # a step and its checkpoint take as long as they take
            for kind in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(kind) is not signal.SIG_IGN:  # as of a process that was started to go on regardless
                    self.before[kind] = signal.signal(kind, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self.before:
            for kind, handler in self.before.items():
                signal.signal(kind, handler)
            signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
            self.before = {}

    def stop(self, step: int) -> NoReturn:
        """Stop as who listened before would, now that all is saved; as Ctrl-C does where nobody did."""
        if self.kind is None:
            raise ProcessError(
                f"another process was told to stop, after step {step}; its checkpoint is kept: go on with --resume"
            )
        self._at_once(self.kind)

    def _at_once(self, kind: int) -> NoReturn:
        listener = self.before.get(kind)
        if callable(listener):
            listener(kind, None)
        raise KeyboardInterrupt

    def _hear(self, kind: int, _: Any) -> None:
        if self.kind is not None:
            self._at_once(kind)
        self.kind = kind
        warnings.warn("stopping after this step; once more to stop at once", RuntimeWarning, stacklevel=2)
