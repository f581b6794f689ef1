"""Groups beside TRL's batches: which pairs a batch holds, and what became of them, until somebody asks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate.utils import gather_object

from prefdyn._checks import nearest
from prefdyn.errors import DataError, ModelError
from prefdyn.models.score import TOKENS_DIGEST
from prefdyn.models.token_pairs import pair_digest
from prefdyn.training.trl_record import SCORED, VALUES
from prefdyn.training.trl_weights import PairWeights

ROW = "prefdyn_row"
"""Column that numbers the rows of every dataset, so that no pair is counted twice."""
TAGS = "prefdyn_pairs"
"""Key of a batch that holds (row, id, group, weight) of its pairs, on the host."""


def numbered(data: Any, *, name: str, group_column: str, id_column: str | None) -> Any:
    """A dataset, or every one of several, with its rows numbered and its groups checked.

    Anything that is no dataset comes back as it is, for the trainer to refuse.

    Args:
        data: A `Dataset`, an `IterableDataset` (whose rows stay without numbers), a mapping of them, or None.
        name: What to call it in an error.
        group_column: Column that names the group.
        id_column: Column that names the pair, if any.

    Raises:
        DataError: A column is missing, or a pair has no group.
    """
    if isinstance(data, Mapping):
        options: dict[str, Any] = {"group_column": group_column, "id_column": id_column}
        return {key: numbered(each, name=f"{name}[{key!r}]", **options) for key, each in data.items()}
    columns = getattr(data, "column_names", None)
    for column in (group_column, id_column):
        if columns is not None and column is not None and column not in columns:
            kind = "group" if column == group_column else "id"
            raise DataError(f"{name} has no column {column!r}{nearest(column, columns)}; name it with {kind}_column")
    if not isinstance(data, datasets.Dataset):
        return data
    kind = data.features[group_column]
    if isinstance(kind, datasets.ClassLabel):
        names = [None if code is None else kind.int2str(code) for code in data[group_column]]
        data = data.remove_columns(group_column).add_column(group_column, names)  # type: ignore[reportCallIssue]
    if None in data.unique(group_column):
        row = list(data[group_column]).index(None)
        raise DataError(f"row {row} of {name} has no value in the column {group_column!r}; give every pair a group")
    return data if ROW in data.column_names else data.add_column(ROW, np.arange(len(data)))  # type: ignore[reportCallIssue]


def group_names(data: Any, group_column: str) -> list[str]:
    """Groups of a dataset, or of several, in order of first appearance; none of what streams."""
    if isinstance(data, Mapping):
        return list(dict.fromkeys(name for each in data.values() for name in group_names(each, group_column)))
    return [str(name) for name in data.unique(group_column)] if isinstance(data, datasets.Dataset) else []


def parameter_names(function: Callable[..., Any], fallback: Callable[..., Any], count: int) -> list[str]:
    """Names of the first positional arguments of a function; of the fallback's where it takes them unnamed."""
    for each in (function, fallback):
        named = [
            name
            for name, parameter in inspect.signature(each).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
        ]
        if len(named) >= count:
            return named[:count]
    raise TypeError(f"the trainer takes no {count} positional arguments; pass them by name")


def pair_of(data: Any, at: int, row: int, id_column: str | None) -> str:
    """How an error calls a pair: by its id, else by its row."""
    return f"row {row}" if id_column is None else f"pair {str(data[at][id_column])!r}"


def refuse_other_tokens(data: Any, *, name: str, id_column: str | None, max_length: int | None) -> None:
    """Refuse references that were made from other tokens than the trainer has.

    Args:
        data: A dataset as TRL has prepared it, with the digests that `prefdyn score` wrote.
        name: What to call it in an error.
        id_column: Column that names the pair, if any.
        max_length: Tokens at which the trainer cuts; None: not at all.

    Raises:
        DataError: A pair's tokens are others, or would be cut.
    """
    columns = data.select_columns(["prompt_ids", "chosen_ids", "rejected_ids", TOKENS_DIGEST])
    for row, pair in enumerate(columns):
        prompt, chosen, rejected = (pair[f"{part}_ids"] for part in ("prompt", "chosen", "rejected"))
        called = f"{pair_of(data, row, row, id_column)} of the {name} dataset"
        if pair_digest(prompt, chosen, rejected) != pair[TOKENS_DIGEST]:
            raise DataError(
                f"the reference log-probabilities of {called} are of other tokens than the trainer has (prompt, "
                "response, template or tokenizer differ); score this data with `prefdyn score`"
            )
        if max_length is not None and len(prompt) + max(len(chosen), len(rejected)) > max_length:
            raise DataError(
                f"{called} is longer than the {max_length} tokens at which the trainer cuts, and its reference is of "
                "all of them; set max_length=None in DPOConfig, or score with --max-length"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingCollator:
    """A collator that puts beside its batch which pairs are in it."""

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    group_column: str
    id_column: str | None
    weights: PairWeights | None = None

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, and (row, id, group, weight) of each of its pairs under `TAGS`."""
        batch = self.collate(examples)
        batch[TAGS] = [self._tag(example) for example in examples]
        return batch

    def _tag(self, example: Mapping[str, Any]) -> tuple[int, str | None, str, float]:
        group = example.get(self.group_column)
        if not isinstance(group, str | int | float):
            raise DataError(
                f"a pair has {group!r} in the column {self.group_column!r}; give every pair a group, as text"
            )
        row = int(example.get(ROW, -1))
        name = None if self.id_column is None else example.get(self.id_column)
        if name is None and row >= 0:
            name = row
        weight = 1.0 if self.weights is None else self.weights.one(example, str(group))
        return row, None if name is None else str(name), str(group), weight


@dataclass(slots=True, kw_only=True)
class ProcessScores:
    """Scored pairs of this process. Their numbers stay on the device until they are wanted: no step waits for them."""

    numbers: list[torch.Tensor] = field(default_factory=list)
    """(values, b) per batch, float32, in the order of `VALUES`."""
    steps: list[int] = field(default_factory=list)
    tags: list[Sequence[Any]] = field(default_factory=list)

    def add(self, numbers: torch.Tensor, tags: Sequence[Sequence[Any]], step: int) -> None:
        """Keep one batch."""
        self.numbers.append(numbers)
        self.tags.extend(tags)
        self.steps.extend([step] * len(tags))

    def gathered(self) -> pa.Table:
        """The pairs of all processes, rank by rank, and none are left here. Every process has to call it."""
        numbers = torch.cat(self.numbers, dim=1).double().cpu().numpy() if self.numbers else np.zeros((len(VALUES), 0))
        rows, ids, groups, weights = ([tag[place] for tag in self.tags] for place in range(4))
        columns: dict[str, Any] = {"step": self.steps, "row": rows, "id": ids, "group": groups, "weight": weights}
        own = pa.table(columns | dict(zip(VALUES, numbers, strict=True)), schema=SCORED)
        self.numbers, self.steps, self.tags = [], [], []
        return pa.concat_tables(gather_object([own])).combine_chunks()


def without_tags(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as TRL made it."""
    return {name: value for name, value in inputs.items() if name != TAGS}


def pair_numbers(
    seen: Sequence[torch.Tensor], batch: Mapping[str, Any], *, precomputed: bool, ld_alpha: float | None = None
) -> torch.Tensor:
    """`VALUES` of a batch's pairs, from what the forward passes of its loss returned.

    Args:
        seen: (2 b, tokens) log-probabilities of each pass, chosen responses before rejected ones, 0 at tokens of
            prompts: the policy's first, the reference's last, whatever wraps the two in between.
        batch: What TRL's collator made.
        precomputed: Whether the reference is in the batch.
        ld_alpha: What tokens beyond the shorter response of a pair count; None: as much as the others.

    Returns:
        (values, b), float32, on the device of the batch.

    Raises:
        ModelError: A pass is missing.
    """
    if len(seen) < (1 if precomputed else 2):
        raise ModelError(
            f"{len(seen)} forward passes with log-probabilities were seen where DPO has one of the policy and one of "
            "the reference; the model is called in a way that the plug-in does not know: use DPOTrainer alone"
        )
    mask = batch["completion_mask"]
    scored = mask[:, 1:]
    chosen, rejected = _sums(seen[0], scored, ld_alpha).chunk(2)
    if precomputed:
        ref_chosen, ref_rejected = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
    else:
        ref_chosen, ref_rejected = _sums(seen[-1], scored, ld_alpha).chunk(2)
    tokens = (*mask.sum(dim=1).chunk(2), scored.sum(dim=1).chunk(2)[0])
    return torch.stack([each.float() for each in (chosen, rejected, ref_chosen, ref_rejected, *tokens)])


def _sums(log_probs: torch.Tensor, scored: torch.Tensor, ld_alpha: float | None) -> torch.Tensor:
    """Log-probability of each response, as TRL adds it up."""
    per_token = log_probs[:, -scored.shape[1] :].to(scored.device)  # soft prompts put tokens of their own in front
    if ld_alpha is None:
        return per_token.sum(dim=1)
    shared = torch.minimum(*scored.sum(dim=1).chunk(2)).repeat(2)
    within = scored.cumsum(dim=1) <= shared[:, None]
    # two sums, not one of weighted tokens: so that a start margin that is 0 in TRL is 0 here
    return (per_token * within).sum(dim=1) + ld_alpha * (per_token * ~within).sum(dim=1)
