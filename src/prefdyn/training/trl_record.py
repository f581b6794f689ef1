"""What the TRL plug-in keeps of a run on the host: scored pairs, their means per group, and the Trajectory's rows.

No TRL and no torch here: scores arrive as a table of pairs, from however many processes, and leave as numbers.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from prefdyn._files import atomic_write
from prefdyn.data.codes import encode
from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import Objective, objective
from prefdyn.trajectory import SCHEMA

SPLITS = ("train", "held_out")

VALUES = (
    "chosen",
    "rejected",
    "ref_chosen",
    "ref_rejected",
    "chosen_tokens",
    "rejected_tokens",
    "chosen_scored",
)
"""Numbers of each scored pair: log-probabilities under policy and reference, nats; tokens of both responses; and
tokens of the chosen one that have a log-probability (all but the first token of a sequence)."""

SCORED = pa.schema(
    [("step", pa.int64()), ("row", pa.int64()), ("id", pa.string()), ("group", pa.string()), ("weight", pa.float64())]
    + [(name, pa.float64()) for name in VALUES]
)
"""`step`: updates made before the pair was scored. `row`: row of its dataset; -1 where the dataset streams."""

MARGINS = pa.schema(
    [
        ("step", pa.int64()),
        ("split", pa.string()),
        ("set", pa.string()),
        ("id", pa.string()),
        ("group", pa.string()),
        ("margin", pa.float64()),
        ("chosen_change", pa.float64()),
        ("rejected_change", pa.float64()),
    ]
)
"""`set`: "train", or the prefix of an evaluation's metrics ("eval", "eval_NAME"). Changes of log-probability: nats,
against the reference."""

_FILES = {"rows": "prefdyn_trajectory.parquet", "pairs": "prefdyn_margins.parquet", "window": "prefdyn_window.parquet"}
_OURS = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "sft")
"""Losses whose names and formulas TRL and `maths.objectives` share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How pairs are judged: beta, and the loss as far as it is a sum of losses of pairs."""

    beta: float
    terms: tuple[tuple[float, Objective], ...] | None
    """Weights and objectives; None where the loss of a group cannot be told."""
    reason: str | None = None
    """Why not."""

    @classmethod
    def of(
        cls,
        *,
        loss_types: Sequence[str],
        loss_weights: Sequence[float],
        beta: float,
        label_smoothing: float,
        blocked: Sequence[str] = (),
    ) -> "Score":
        """From the settings of a DPOTrainer.

        Args:
            loss_types: TRL's names.
            loss_weights: One per name.
            beta: As in TRL.
            label_smoothing: As in TRL; its `sigmoid` ignores it.
            blocked: Settings that make the loss another function of the pairs, as they should be named.

        Example:
            >>> Score.of(loss_types=["sigmoid"], loss_weights=[1.0], beta=0.1, label_smoothing=0.2).terms
            ((1.0, DPO(beta=0.1, label_smoothing=0.0)),)
            >>> Score.of(loss_types=["apo_zero"], loss_weights=[1.0], beta=0.1, label_smoothing=0.0).reason
            "loss_type 'apo_zero' is none of sigmoid, sigmoid_norm, hinge, ipo, robust, sft"
        """
        foreign = [name for name in loss_types if name not in _OURS]
        if foreign:
            return cls(beta=beta, terms=None, reason=f"loss_type {foreign[0]!r} is none of {', '.join(_OURS)}")
        if blocked:
            return cls(beta=beta, terms=None, reason=f"{blocked[0]} changes the loss of a pair")
        try:
            terms = tuple(
                (
                    float(weight),
                    objective(name, beta=beta, label_smoothing=label_smoothing if name == "robust" else 0.0),
                )
                for name, weight in zip(loss_types, loss_weights, strict=True)
            )
        except ConfigError as error:
            return cls(beta=beta, terms=None, reason=str(error))
        return cls(beta=beta, terms=terms)

    @property
    def per_token(self) -> bool:
        """Whether the loss reads log-probabilities per token, as `ipo` does."""
        return self.terms is not None and len(self.terms) == 1 and self.terms[0][1].per_token

    @property
    def name(self) -> str | None:
        """Name of the loss; None where it is not ours."""
        return None if self.terms is None else "+".join(each.name for _, each in self.terms)


def no_pairs() -> pa.Table:
    """A table of scored pairs without any."""
    return SCORED.empty_table()


def once(scored: pa.Table) -> pa.Table:
    """The first of every row of a dataset: processes repeat pairs to fill their last batch, and repeats are no pairs.

    Example:
        >>> rows = [{"row": 4, "id": "a"}, {"row": 7, "id": "b"}, {"row": 4, "id": "a"}]
        >>> once(pa.Table.from_pylist(rows, schema=SCORED))["id"].to_pylist()
        ['a', 'b']
    """
    _, first = np.unique(scored["row"].to_numpy(), return_index=True)
    return scored.take(pa.array(np.sort(first)))


def group_means(scored: pa.Table, score: Score) -> dict[str, dict[str, Any]]:
    """Sums over the pairs of each group by their count, groups in order of first appearance.

    Args:
        scored: At least one pair.
        score: How to judge them.

    Returns:
        Group → the quantities of a Trajectory's row, and `summed_margin` and `summed_accuracy`, which differ from
        `margin` and `reward_accuracy` for `ipo` alone: its margin is per token, TRL's metric is not. `loss` is None
        where it cannot be told; that of `sft` is per token of the whole group.
    """
    codes, names = encode(scored["group"])
    counts = np.bincount(codes, minlength=len(names))
    pairs = _PairColumns(scored, score)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(codes, weights=values, minlength=len(names)) / counts

    means: dict[str, Any] = {
        "loss": _losses(pairs, score, codes, len(names)),
        "margin": mean(pairs.margin),
        "summed_margin": mean(pairs.summed_margin),
        "reward_accuracy": mean(pairs.margin > 0),
        "summed_accuracy": mean(pairs.summed_margin > 0),
        "policy_accuracy": mean(pairs.chosen > pairs.rejected),
        "chosen_log_prob": mean(pairs.chosen),
        "rejected_log_prob": mean(pairs.rejected),
        "chosen_change": mean(pairs.chosen_change),
        "rejected_change": mean(pairs.rejected_change),
        "chosen_falling": mean(pairs.chosen_change < 0),
    }
    return {
        name: {"pairs": int(counts[place])}
        | {key: None if values is None else float(values[place]) for key, values in means.items()}
        for place, name in enumerate(names)
    }


def weighted_loss(scored: pa.Table, score: Score) -> float | None:
    """The mean over updates of each one's weighted mean; None where the loss of a pair cannot be told by itself."""
    if score.terms is None or any(each.reads == "log_probs" for _, each in score.terms):
        return None
    pairs, weights = _PairColumns(scored, score), scored["weight"].to_numpy()
    losses = sum(part * each.loss(pairs.token_margin if each.per_token else pairs.summed_margin)
                 for part, each in score.terms)  # fmt: skip
    _, steps = np.unique(scored["step"].to_numpy(), return_inverse=True)
    return float(np.mean(np.bincount(steps, weights=weights * losses) / np.bincount(steps, weights=weights)))


def overall_means(scored: pa.Table, score: Score) -> dict[str, Any]:
    """The same over all pairs."""
    place = scored.schema.get_field_index("group")
    return group_means(scored.set_column(place, "group", pa.array(["all"] * len(scored), pa.string())), score)["all"]


def trl_metrics(means: Mapping[str, Any], score: Score) -> dict[str, float]:
    """Means of one group under TRL's names.

    Example:
        >>> sorted(trl_metrics({"pairs": 2, "loss": None, "chosen_change": 1.0, "rejected_change": 0.5,
        ...     "summed_accuracy": 1.0, "summed_margin": 0.05, "chosen_log_prob": -3.0, "rejected_log_prob": -4.0},
        ...     Score(beta=0.1, terms=None)).items())[-4:]
        [('rewards/accuracies', 1.0), ('rewards/chosen', 0.1), ('rewards/margins', 0.05), ('rewards/rejected', 0.05)]
    """
    found = {
        "loss": means["loss"],
        "rewards/chosen": score.beta * means["chosen_change"],
        "rewards/rejected": score.beta * means["rejected_change"],
        "rewards/accuracies": means["summed_accuracy"],
        "rewards/margins": means["summed_margin"],
        "logps/chosen": means["chosen_log_prob"],
        "logps/rejected": means["rejected_log_prob"],
        "pairs": means["pairs"],
    }
    return {name: value for name, value in found.items() if value is not None}


class _PairColumns:
    """Columns of scored pairs as arrays, and what follows from them."""

    def __init__(self, scored: pa.Table, score: Score) -> None:
        self.chosen, self.rejected, ref_chosen, ref_rejected, *tokens = (scored[name].to_numpy() for name in VALUES)
        self.chosen_change, self.rejected_change = self.chosen - ref_chosen, self.rejected - ref_rejected
        chosen_tokens, rejected_tokens, self.scored_tokens = tokens
        # at least one, as TRL has it: a response that truncation took away has no tokens
        up = self.chosen_change / np.maximum(chosen_tokens, 1)
        down = self.rejected_change / np.maximum(rejected_tokens, 1)
        self.summed_margin = score.beta * (self.chosen_change - self.rejected_change)
        self.token_margin = score.beta * (up - down)
        self.margin = self.token_margin if score.per_token else self.summed_margin


def _losses(pairs: _PairColumns, score: Score, codes: np.ndarray, count: int) -> Float[np.ndarray, " groups"] | None:
    """TRL's loss of each group if its pairs were a batch of their own."""
    if score.terms is None:
        return None
    total = np.zeros(count)
    for weight, each in score.terms:
        if each.reads == "log_probs":
            losses, shares = each.loss(pairs.chosen), pairs.scored_tokens
        else:
            losses = each.loss(pairs.token_margin if each.per_token else pairs.summed_margin)
            shares = np.ones(len(losses))
        sums, over = (np.bincount(codes, weights=values, minlength=count) for values in (losses, shares))
        with np.errstate(invalid="ignore", divide="ignore"):
            total += weight * sums / over
    return total


@dataclass(slots=True, kw_only=True)
class Record:
    """What a run has shown so far. The same on every process."""

    groups: dict[str, None] = field(default_factory=dict)
    """Names in the order in which a Trajectory lists them."""
    rows: dict[tuple[int, str, str], dict[str, Any]] = field(default_factory=dict)
    """(step, split, group) → the row of a Trajectory."""
    pairs: list[pa.Table] = field(default_factory=list)
    """Per-pair margins, where they are kept."""

    def add_rows(self, step: int, split: str, scored: pa.Table, score: Score) -> None:
        """Means of every group at a step; a later measurement of a step and split replaces an earlier one."""
        for key in [key for key in self.rows if key[:2] == (step, split)]:
            del self.rows[key]
        for group, means in group_means(scored, score).items():
            self.groups.setdefault(group)
            row = {name: value for name, value in means.items() if name in SCHEMA.names}
            self.rows[step, split, group] = {"run": "joint", "step": step, "group": group, "split": split, **row}

    def add_pairs(self, split: str, name: str, scored: pa.Table, score: Score) -> None:
        """Margins of every pair. Those of a set that was measured at the same step before are replaced."""
        pairs = _PairColumns(scored, score)
        if split != "train":
            step = scored["step"][0].as_py()
            self.pairs = [part.filter((pc.field("set") != name) | (pc.field("step") != step)) for part in self.pairs]
        columns = {
            "step": scored["step"],
            "split": [split] * len(scored),
            "set": [name] * len(scored),
            "id": scored["id"],
            "group": scored["group"],
            "margin": pairs.margin,
            "chosen_change": pairs.chosen_change,
            "rejected_change": pairs.rejected_change,
        }
        self.pairs.append(pa.table(columns, schema=MARGINS))

    def margins(self) -> pa.Table:
        """All per-pair margins, in the order in which they were measured."""
        return pa.concat_tables([MARGINS.empty_table(), *self.pairs]).combine_chunks()

    def table(self, learning_rate: float, *, changes: bool) -> list[dict[str, Any]]:
        """Rows of a Trajectory by step, group and split; without changes where the reference moves."""
        order = {name: place for place, name in enumerate(self.groups)}
        found = []
        for key in sorted(self.rows, key=lambda key: (key[0], order[key[2]], SPLITS.index(key[1]))):
            row = self.rows[key] | {"time": learning_rate * key[0]}
            if not changes:
                row |= dict.fromkeys(("chosen_change", "rejected_change", "chosen_falling"))
            found.append(row)
        return found

    # beside a checkpoint ---------------------------------------------------------------------------------------------

    def save(self, folder: Path, window: pa.Table) -> None:
        """Write what is known, and the pairs of the window that is still open, into the folder of a checkpoint."""
        rows = pa.Table.from_pylist(list(self.rows.values()), schema=SCHEMA)
        rows = rows.replace_schema_metadata({"groups": json.dumps(list(self.groups))})
        for name, table in (("rows", rows), ("pairs", self.margins()), ("window", window)):
            sink = io.BytesIO()
            pq.write_table(table, sink)
            atomic_write(folder / _FILES[name], sink.getvalue())

    @classmethod
    def load(cls, folder: Path) -> tuple["Record", pa.Table] | None:
        """What `save` wrote; None where a checkpoint has none of it."""
        if not all((folder / name).is_file() for name in _FILES.values()):
            return None
        rows, pairs, window = (pq.read_table(folder / _FILES[name]) for name in ("rows", "pairs", "window"))
        if "weight" not in window.column_names:  # written before there were weights
            window = window.append_column("weight", pa.array(np.ones(len(window)))).select(SCORED.names)
        groups = json.loads(rows.schema.metadata[b"groups"])
        record = cls(groups=dict.fromkeys(groups), pairs=[pairs] if len(pairs) else [])
        record.rows = {(row["step"], row["split"], row["group"]): row for row in rows.to_pylist()}
        return record, window


def middle(scored: pa.Table) -> int:
    """The step in the middle of a window: the mean over its pairs of the updates made before each, rounded down.

    Example:
        >>> middle(pa.Table.from_pylist([{"step": step} for step in range(10)], schema=SCORED))
        4
    """
    return math.floor(float(np.mean(scored["step"].to_numpy())) + 1e-9)
