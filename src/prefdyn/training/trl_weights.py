"""Weights of pairs and groups in TRL's loss, or in the draw of its batches.

TRL's loss of a batch is a mean over pairs, whatever the objective. It is read through the log-probabilities of the
policy alone, so a pair counts for k times as much when the gradient that reaches its log-probabilities is k times as
large. No loss is written anew, and one that mixes pairs is refused.
"""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from prefdyn._checks import nearest, one_of
from prefdyn.errors import ConfigError, DataError

_MIXES = frozenset({"aot", "aot_unpaired"})
"""Losses that sort the pairs of a batch, so that none has a share of its own."""


@dataclass(slots=True, kw_only=True)
class PairWeights:
    """What each training pair counts, from a column and from its group."""

    column: str | None
    groups: Mapping[str, float]
    by: str
    in_step: float = field(default=0.0)
    """Sum of the weights of the pairs of the update at hand, over all batches and processes."""

    @classmethod
    def of(
        cls, data: Any, *, column: str | None, groups: Mapping[str, float] | None, by: str, names: Sequence[str]
    ) -> "PairWeights | None":
        """What a trainer was given; None where every pair counts the same.

        Args:
            data: The training set.
            column: Column of weights; None: "weight" where the set has one.
            groups: Factor per group; 1 for those that are not named.
            by: "loss" or "sampling".
            names: Groups of the set; empty where they are not known.

        Raises:
            ConfigError: A group is unknown, a factor is not above 0, or `by` is none of the two.
            DataError: The set lacks the column, or a weight in it is not above 0.
        """
        one_of(by, ("loss", "sampling"), name="weighting")
        columns = getattr(data, "column_names", None) or ()
        if column is not None and columns and column not in columns:
            raise DataError(f"train_dataset has no column {column!r}{nearest(column, columns)}; name weight_column")
        column = "weight" if column is None and "weight" in columns else column
        factors = {str(name): float(value) for name, value in (groups or {}).items()}
        for name, value in factors.items():
            if names and name not in names:
                raise ConfigError(f"group_weights names {name!r}, which is no group{nearest(name, names)}")
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"group_weights[{name!r}] is {value:g}; give a number above 0, or leave its rows out")
        if column is not None and isinstance(data, Sized):
            for row, value in enumerate(data[column]):  # type: ignore[reportIndexIssue]
                _above_0(value, f"row {row} of train_dataset", column)
        found = cls(column=column, groups=factors, by=by)
        if isinstance(data, Sized) and found.equal(data, names):
            return None
        return found if column is not None or factors else None

    def settings(self) -> dict[str, Any]:
        """What a Trajectory says of it."""
        column = {} if self.column is None else {"weight_column": self.column}
        return {"weighting": self.by, **column, **({"group_weights": dict(self.groups)} if self.groups else {})}

    def equal(self, data: Any, names: Sequence[str]) -> bool:
        """Whether no pair counts for more than another."""
        values = {1.0} if self.column is None else {float(value) for value in data[self.column]}
        return len(values) == 1 and len({self.groups.get(name, 1.0) for name in names}) == 1

    def one(self, example: Mapping[str, Any], group: str) -> float:
        """The weight of a pair."""
        value = 1.0
        if self.column is not None and example.get(self.column) is not None:
            value = _above_0(example[self.column], "a pair", self.column)
        return value * self.groups.get(group, 1.0)

    def sampler(self, data: Any, group_column: str, seed: int) -> "WeightedSampler":
        """Draws pairs in proportion to their weights."""
        values = np.ones(len(data)) if self.column is None else np.asarray(data[self.column], dtype=np.float64)
        factors = np.array([self.groups.get(str(name), 1.0) for name in data[group_column]])
        return WeightedSampler(values * factors, seed=seed)

    def refuse(self, loss_types: Sequence[str], gpus: int, strategy: str) -> None:
        """What cannot be weighted.

        Raises:
            ConfigError: The loss mixes pairs, torch splits batches over GPUs, or batches are drawn by another rule.
        """
        mixing = [name for name in loss_types if name in _MIXES]
        if self.by == "loss" and mixing:
            raise ConfigError(f"loss_type {mixing[0]!r} sorts the pairs of a batch, so none has a weight of its own")
        if self.by == "loss" and gpus > 1:
            raise ConfigError(f"{gpus} GPUs share one process, which weights cannot follow; start with accelerate")
        if self.by == "sampling" and strategy != "random":
            raise ConfigError(f"train_sampling_strategy {strategy!r} draws batches by another rule than weights do")


class WeightedSampler(Sampler[int]):
    """As many rows as there are, drawn with replacement in proportion to their weights; anew in every epoch.

    Args:
        weights: (n,), above 0.
        seed: With the number of the epoch, it settles the draw, on every process and after a resumption.

    Example:
        >>> sampler = WeightedSampler(np.array([1.0, 1.0, 1000.0]), seed=0)
        >>> len(sampler), set(sampler)
        (3, {2})
    """

    def __init__(self, weights: np.ndarray, *, seed: int) -> None:
        self.weights, self.seed, self.epoch = torch.from_numpy(np.asarray(weights, dtype=np.float64)), seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Accelerate calls this before every pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        )
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist()

    def __len__(self) -> int:
        return len(self.weights)


def scale(log_probs: torch.Tensor, weights: Sequence[float], factor: float) -> None:
    """Let the gradient that reaches the log-probabilities of a pair be `factor` times its weight as large.

    Args:
        log_probs: (2 b, tokens), chosen responses before rejected ones, as the policy's forward pass returns them.
        weights: Of the b pairs.
        factor: Of all of them.
    """
    shares = torch.tensor(weights, dtype=torch.float64).mul(factor).repeat(2)
    log_probs.register_hook(lambda gradient: gradient * shares.to(gradient)[:, None])


def _above_0(value: Any, what: str, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (np.isfinite(value) and value > 0):
        raise DataError(f"{what} has {value!r} in the column {column!r}; weights are numbers above 0")
    return float(value)
