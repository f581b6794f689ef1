"""Groups, pairs and a Trajectory for TRL's DPOTrainer, with three added lines and no other loss.

    from prefdyn.training.trl import GroupDPOTrainer

    trainer = GroupDPOTrainer(…as DPOTrainer…, group_column="group")
    trainer.train()
    trainer.save_trajectory("run")

Nothing is computed twice and nothing is changed: hooks read the log-probabilities that TRL's own forward passes
return, and groups travel beside the batch. Losses and weights keep their bytes, unless pairs or groups are weighted:
then the gradient of each pair counts as much as it was told to (`trl_weights`), or batches are drawn that way.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from prefdyn._files import atomic_write
from prefdyn.errors import ConfigError, DataError
from prefdyn.models.score import TOKENS_DIGEST
from prefdyn.provenance import Provenance, versions
from prefdyn.store import save_trajectory
from prefdyn.training.references import far_off, looked_at
from prefdyn.training.trl_data import (
    ROW,
    TAGS,
    ProcessScores,
    TaggingCollator,
    group_names,
    numbered,
    pair_numbers,
    pair_of,
    parameter_names,
    refuse_other_tokens,
    without_tags,
)
from prefdyn.training.trl_record import (
    Record,
    Score,
    group_means,
    middle,
    no_pairs,
    once,
    overall_means,
    trl_metrics,
    weighted_loss,
)
from prefdyn.training.trl_settings import further_versions, model_name, resolved_settings
from prefdyn.training.trl_versions import require_trl
from prefdyn.training.trl_weights import PairWeights, scale
from prefdyn.training.watching import Watch, foretold_in
from prefdyn.trajectory import Trajectory

if TYPE_CHECKING:
    from trl.trainer.dpo_trainer import DPOTrainer

    _Base = DPOTrainer
else:
    DPOTrainer, _Base = require_trl(), object

__all__ = ["GroupDPOTrainer", "GroupMetrics"]


@dataclass(slots=True, kw_only=True)
class _Round:
    """One evaluation, of one set or of several."""

    prefix: str
    sets: dict[str, tuple[pa.Table, float]] = field(default_factory=dict)
    """Prefix of each set's metrics → its pairs and the loss that the trainer measured."""


class _Keeper(TrainerCallback):
    """Starts the record with the run, and puts it beside every checkpoint."""

    def __init__(self, trainer: "GroupMetrics") -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.trainer._begin_record()

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.trainer._save_record(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class GroupMetrics(_Base):
    """Mixin for DPOTrainer and its subclasses: `class Mine(GroupMetrics, DPOTrainer)`.

    Each log and each evaluation gains TRL's metrics per group, `rewards/margins/<group>` and
    `eval_rewards/margins/<group>`: sums over the pairs of all processes by their exact number, `pairs/<group>`. With
    several evaluation sets, each gains `eval_<set>_rewards/margins` and `eval_<set>_rewards/margins/<group>`, and all
    sets together `eval_loss` and `eval_rewards/margins/<group>`. All of it is in what `evaluate` returns, so that
    `metric_for_best_model` may name it.
    """

    def __init__(
        self,
        *args: Any,
        group_column: str = "group",
        id_column: str | None = None,
        keep_pairs: bool = True,
        weight_column: str | None = None,
        group_weights: Mapping[str, float] | None = None,
        weighting: str = "loss",
        watch: str | Path | None = None,
        **rest: Any,
    ) -> None:
        """The trainer that comes next in line, with groups.

        Args:
            args: As that trainer takes them.
            group_column: Column of every dataset that names the pair's group.
            id_column: Column that names the pair; "id" where the training set has one; else rows are numbered.
            keep_pairs: Whether `margins` keeps every pair of every step, at about 100 bytes each.
            weight_column: Column of the training set with a weight above 0 per pair; "weight" where it has one.
            group_weights: Factor per group, above 0; 1 for groups that are not named. Only ratios matter, of weights
                and factors alike: what is minimised is their weighted mean over each update, of all processes.
            weighting: How: "loss" (the gradient of every pair) or "sampling" (how often it is drawn, with replacement).
                Evaluation and the metrics of groups are not weighted.
            watch: Folder of `prefdyn forecast`: every evaluation is held against it, by progress, and a warning tells
                of a group that leaves its band. `eval_on_start=True` gives it the start.
            rest: As that trainer takes them.

        Raises:
            DataError: A dataset lacks a column, or a pair has no group or a weight that is not above 0.
            ConfigError: The pairs are pictures, a setting splits a pair over processes, or cannot be weighted; `watch`
                is no forecast, or the losses of groups are not known, which it follows.
        """
        foretold = None if watch is None else foretold_in(Path(watch))
        rest = dict(zip(parameter_names(super().__init__, DPOTrainer.__init__, len(args)), args, strict=True)) | rest
        train = rest.get("train_dataset")
        self._asked: dict[str, Any] = {"group_column": group_column, "id_column": id_column}
        if id_column is None and "id" in (getattr(train, "column_names", None) or ()):
            id_column = "id"
        self._columns: dict[str, Any] = {"group_column": group_column, "id_column": id_column}
        """Columns that are read; of `_asked` every dataset has to have them."""
        self._keep_pairs = keep_pairs
        for name in ("train_dataset", "eval_dataset"):
            rest[name] = numbered(rest.get(name), name=name, **self._asked)
        self._weights = PairWeights.of(
            rest["train_dataset"],
            column=weight_column,
            groups=group_weights,
            by=weighting,
            names=group_names(rest["train_dataset"], group_column),
        )
        self._scores, self._window = ProcessScores(), no_pairs()
        """Pairs trained on since the last log: of this process, and of all where they have been gathered."""
        self._evaluated: ProcessScores | None = None
        self._round: _Round | None = None
        self._record, self._resumed = Record(), None
        self._reference = "start" if rest.get("ref_model") is None else "given"
        """What margins are taken against: also "columns" of the dataset, or "moving"."""
        self._schedule_given = (rest.get("optimizers") or (None, None))[1] is not None
        super().__init__(**rest)
        self._refuse_what_splits_pairs()
        if self._weights is not None:
            self._weights.refuse(self.loss_types, self.args.n_gpu, self.args.train_sampling_strategy)
        if self.args.sync_ref_model:  # type: ignore[reportAttributeAccessIssue]
            self._reference = "moving"
        self._score = Score.of(
            loss_types=self.loss_types,
            loss_weights=self.loss_weights,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            blocked=self._blocked(),
        )
        if self._score.reason is not None and self.is_world_process_zero():
            warnings.warn(f"losses per group are left out: {self._score.reason}", UserWarning, stacklevel=2)
        if foretold is not None and self._score.reason is not None:
            raise ConfigError(f"watch follows losses of groups, and there are none: {self._score.reason}")
        self._watched = None if foretold is None else Watch(foretold, self._tell)
        # only now, when TRL has scored its references with the plain one
        self.data_collator = TaggingCollator(collate=self.data_collator, weights=self._weights, **self._columns)
        self.add_callback(_Keeper(self))

    # what the run has shown ------------------------------------------------------------------------------------------

    def trajectory(self) -> Trajectory:
        """The run so far, with the columns that every other Trajectory has.

        Rows of split `train` are means over the pairs of a logging window, each scored before its own update; their
        step is the middle of the window: with `logging_steps=1`, the updates made before, one less than TRL's number.
        Rows of split `held_out` are means over the pairs of `evaluate`, of all its sets together, as long as its
        metrics have their usual prefix. Changes are against the reference, which is the model at the start unless you
        gave another.
        """
        settings = resolved_settings(
            self, objective=self._score.name, reference=self._reference, schedule_given=self._schedule_given
        )
        if self._weights is not None:
            settings |= self._weights.settings()
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
        return Trajectory.from_rows(
            self._record.table(settings["learning_rate"], changes=self._reference != "moving"),
            settings=settings,
            provenance=Provenance(
                data={"pairs": {name: _length(each) for name, each in ({"train": self.train_dataset} | sets).items()}},
                model={"name": model_name(self.model)},
                settings=settings,
                seed=self.args.seed,
                versions=versions() | further_versions(),
            ),
        )

    def margins(self) -> pa.Table:
        """Margin and changes of every pair whenever it was scored: the columns are those of `trl_record.MARGINS`.

        `step` counts the updates made before.

        Raises:
            ConfigError: The trainer was made with `keep_pairs=False`.
        """
        if not self._keep_pairs:
            raise ConfigError("margins of pairs were not kept; make the trainer with keep_pairs=True")
        return self._record.margins()

    def save_trajectory(self, folder: str | Path) -> Path:
        """Write the Trajectory as every command of prefdyn does, and `margins.parquet` where pairs are kept.

        One process writes; the others return at once.

        Raises:
            StoreError: A file cannot be written.
        """
        folder = Path(folder)
        if self.is_world_process_zero():
            save_trajectory(self.trajectory(), folder)
            if self._keep_pairs:
                sink = pa.BufferOutputStream()
                pq.write_table(self.margins(), sink)
                atomic_write(folder / "margins.parquet", sink.getvalue().to_pybytes())
        return folder

    # where TRL is entered --------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, untouched; what its forward passes return is read on the way."""
        if TAGS not in inputs:
            raise DataError(
                "a batch does not say which pairs it holds; give your data_collator to the trainer when you make it, "
                "and leave trainer.data_collator as it is"
            )
        batch = without_tags(inputs)
        seen: list[torch.Tensor] = []
        weighted = self._weights is not None and self._weights.by == "loss" and self._evaluated is None

        def read(module: Any, arguments: Any, output: Any) -> None:
            if getattr(output, "log_probs", None) is not None:
                if weighted and not seen and output.log_probs.requires_grad:
                    self._scale(output.log_probs, inputs[TAGS])
                seen.append(output.log_probs.detach())

        reference = None if self.precompute_ref_logps else self.model if self.ref_model is None else self.ref_model
        hooks = [each.register_forward_hook(read) for each in {model, reference} - {None}]
        try:
            result = super().compute_loss(
                model, batch, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        finally:
            for hook in hooks:
                hook.remove()
        scores = self._scores if self._evaluated is None else self._evaluated
        numbers = pair_numbers(seen, batch, precomputed=self.precompute_ref_logps, ld_alpha=self.ld_alpha)
        scores.add(numbers, inputs[TAGS], self.state.global_step)
        return result

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """TRL's batches of one update; the sum of their weights is taken over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._weights is not None and self._weights.by == "loss":
            own = sum(tag[-1] for batch in batches for tag in batch.get(TAGS, ()))
            if self.accelerator.num_processes > 1:  # one alone need not wait for its device
                own = self.accelerator.reduce(torch.tensor(own, dtype=torch.float32, device=device), reduction="sum")
            self._weights.in_step = float(own)  # type: ignore[reportArgumentType]
        return batches, items

    def _scale(self, log_probs: torch.Tensor, tags: Any) -> None:
        """The mean that TRL takes of this batch becomes its share of the weighted mean over the whole update."""
        assert self._weights is not None
        batches = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        scale(log_probs, [tag[-1] for tag in tags], len(tags) * batches / self._weights.in_step)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._weights is not None and self._weights.by == "sampling":
            data = self.train_dataset if train_dataset is None else train_dataset
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return self._weights.sampler(data, self._columns["group_column"], seed)
        return super()._get_train_sampler(train_dataset)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """TRL's, of the batch without what names its pairs."""
        return super().compute_ref_log_probs(model, without_tags(inputs))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, with the groups of the window that ends here."""
        # the trainer's own calls are made by every process; yours may be made by one, which would wait for the others
        if "loss" in logs or "train_loss" in logs:
            logs.update(self._close_window())
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """TRL's, with the groups of this set among its metrics."""
        self._evaluated = ProcessScores()
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
            )
            scored = self._evaluated.gathered()
        finally:
            self._evaluated = None
        if self.accelerator.num_processes > 1:
            if np.any(scored["row"].to_numpy() < 0):
                raise ConfigError(
                    f"the evaluation set of {metric_key_prefix!r} streams, so {self.accelerator.num_processes} "
                    "processes cannot count its pairs exactly; give a datasets.Dataset"
                )
            scored = once(scored)
        if not len(scored) or output.metrics is None:
            return output
        output.metrics.update(self._by_group(scored, metric_key_prefix))
        if self._round is not None:
            if metric_key_prefix != self._round.prefix:
                overall = trl_metrics(overall_means(scored, self._score), self._score)
                overall.pop("loss", None)  # the trainer's own stays
                output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in overall.items()})
            self._round.sets[metric_key_prefix] = (scored, output.metrics.get(f"{metric_key_prefix}_loss", math.nan))
        return output

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """TRL's, per group, and of several sets also together."""
        if self._round is not None:  # one set of several: the trainer calls itself
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # type: ignore[reportArgumentType]
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = numbered(eval_dataset, name="eval_dataset", **self._asked)
        self._round = _Round(prefix=metric_key_prefix)
        try:
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # type: ignore[reportArgumentType]
            sets = self._round.sets
        finally:
            self._round = None
        if not sets:
            return metrics
        scored = pa.concat_tables([part for part, _ in sets.values()])
        if metric_key_prefix == "eval":
            self._record.add_rows(self.state.global_step, "held_out", scored, self._score)
            self._watch_groups(self.state.global_step)
        if self._keep_pairs:
            for name, (part, _) in sets.items():
                self._record.add_pairs("held_out", name, part, self._score)
        if set(sets) != {metric_key_prefix}:
            loss = sum(len(part) * each for part, each in sets.values()) / len(scored)
            together = {f"{metric_key_prefix}_loss": loss} | self._by_group(scored, metric_key_prefix)
            metrics.update(together)
            self.log(dict(together))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, together)
        return metrics

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **rest: Any) -> Any:
        """TRL's; a resumed run goes on with the record that its checkpoint holds."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(str(self.args.output_dir))
        self._resumed = Record.load(Path(folder)) if folder else None
        if folder and self._resumed is None and self.is_world_process_zero():
            warnings.warn(
                f"{folder} holds no record of groups, so that of this run starts where it resumes",
                UserWarning,
                stacklevel=2,
            )
        return super().train(resume_from_checkpoint, *args, **rest)

    def _set_signature_columns_if_needed(self) -> None:
        # columns that are in no signature are dropped before the collator sees them
        super()._set_signature_columns_if_needed()
        signature: list[str] = self._signature_columns or []
        weight = None if self._weights is None else self._weights.column
        self._signature_columns = list(
            dict.fromkeys([*signature, ROW, *filter(None, [*self._columns.values(), weight])])
        )

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        # TRL would score them once more, and then stop at a second column of the same name
        if {"ref_chosen_logps", "ref_rejected_logps"} <= set(dataset.column_names):
            self._reference = "columns"
            id_column = self._columns["id_column"]
            if TOKENS_DIGEST in dataset.column_names:
                refuse_other_tokens(dataset, name=name, id_column=id_column, max_length=self.args.max_length)  # type: ignore[reportAttributeAccessIssue]
            else:
                self._refuse_other_numbers(dataset, name)
            return dataset
        return super()._precompute_ref_logps(dataset, name, batch_size)

    def _refuse_other_numbers(self, dataset: Any, name: str) -> None:
        """Score a few pairs whose columns do not say what they were made from, on every process the same ones."""
        rows = looked_at(len(dataset)).tolist()
        few = dataset.select(rows)
        batch = self._prepare_inputs(self.data_collator([few[at] for at in range(len(few))]))
        model = self.ref_model or self.model
        scored = self.compute_ref_log_probs(model, batch)
        exact = next(iter(self.model.parameters())).dtype == torch.float32 and not (self.args.bf16 or self.args.fp16)  # type: ignore[reportOptionalMemberAccess]
        for side, ours in zip(("chosen", "rejected"), scored, strict=True):
            theirs = np.asarray(few[f"ref_{side}_logps"], dtype=np.float64)
            off = far_off(theirs, ours.double().cpu().numpy(), loose=1e-3 if exact else 0.05)
            if off.any():
                at = int(np.flatnonzero(off)[0])
                raise DataError(
                    f"{pair_of(few, at, rows[at], self._columns['id_column'])} of the {name} dataset has a "
                    f"ref_{side}_logps of {theirs[at]:.4f}, and the reference gives {float(ours[at]):.4f}: the columns "
                    "are of other tokens or of another model; write them anew with `prefdyn score`"
                )

    # the record -----------------------------------------------------------------------------------------------------

    def _begin_record(self) -> None:
        self._scores, self._window = ProcessScores(), no_pairs()
        if self._resumed is not None:
            self._record, self._window = self._resumed
        elif any(split == "train" for _, split, _ in self._record.rows):  # a run of its own, after another
            self._record = Record()
        for data in (self.train_dataset, self.eval_dataset):
            for name in group_names(data, self._columns["group_column"]):
                self._record.groups.setdefault(name)

    def _save_record(self, folder: Path) -> None:
        self._window = pa.concat_tables([self._window, self._scores.gathered()])
        if self.is_world_process_zero() and folder.is_dir():  # a search over settings keeps its checkpoints elsewhere
            self._record.save(folder, self._window)

    def _close_window(self) -> dict[str, float]:
        scored = pa.concat_tables([self._window, self._scores.gathered()]).combine_chunks()
        self._window = no_pairs()
        if not len(scored):
            return {}
        self._record.add_rows(middle(scored), "train", scored, self._score)
        if self._keep_pairs:
            self._record.add_pairs("train", "train", scored, self._score)
        found = self._by_group(scored, None)
        if self._weights is not None and self._weights.by == "loss":
            loss = weighted_loss(scored, self._score)
            found |= {} if loss is None else {"weighted_loss": loss}
        return found

    def _watch_groups(self, step: int) -> None:
        if self._watched is not None:
            rows = [row for (at, split, _), row in self._record.rows.items() if (at, split) == (step, "held_out")]
            self._watched.track(step, rows, {})

    def _tell(self, line: str) -> None:
        if self.is_world_process_zero():
            warnings.warn(line, UserWarning, stacklevel=2)

    def _by_group(self, scored: pa.Table, prefix: str | None) -> dict[str, float]:
        start = "" if prefix is None else f"{prefix}_"
        return {
            f"{start}{name}/{group}": value
            for group, means in group_means(scored, self._score).items()
            for name, value in trl_metrics(means, self._score).items()
        }

    # settings --------------------------------------------------------------------------------------------------------

    def _blocked(self) -> list[str]:
        """Settings under which a pair's loss is not that of its objective."""
        found = []
        if self.f_divergence_type != "reverse_kl":
            found.append(f"f_divergence_type {self.f_divergence_type!r}")
        if self.use_weighting:
            found.append("use_weighting")
        if self.ld_alpha is not None and "sft" in self.loss_types:
            found.append("ld_alpha")
        return found

    def _refuse_what_splits_pairs(self) -> None:
        if self._is_vision_dataset:
            raise ConfigError("the pairs hold pictures, which the plug-in was not tested with; use DPOTrainer alone")
        layout = self.accelerator.parallelism_config
        for name in ("tp_size", "cp_size", "sp_size"):
            if getattr(layout, name, 1) > 1:
                raise ConfigError(
                    f"{name} is {getattr(layout, name)}, which gives several processes the same pairs or parts of one; "
                    "the plug-in counts pairs of data-parallel processes alone"
                )


class GroupDPOTrainer(GroupMetrics, DPOTrainer):
    """TRL's DPOTrainer with `GroupMetrics`."""


def _length(data: Any) -> int | None:
    return len(data) if hasattr(data, "__len__") else None
