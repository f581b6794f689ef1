"""The cells of a grid: every combination of settings, checked, and which of them are one and the same run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Literal

import numpy as np

from prefdyn._checks import at_least, one_of, positive
from prefdyn.dynamics.engine import Stop
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.maths.objectives import objective as named_objective
from prefdyn.maths.optimizers import SGD, Optimizer, Schedule
from prefdyn.maths.optimizers import optimizer as named_optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One cell of a grid."""

    objective: Objective
    learning_rate: float
    optimizer: Optimizer
    schedule: Schedule | None
    batch_size: int | Literal["full"]
    scheme: str
    seed: int
    groups: tuple[str, ...] | None
    """Groups trained on; None: all."""

    def describe(self) -> dict[str, Any]:
        """As a Trajectory's settings name it."""
        rest = {entry.name: getattr(self.optimizer, entry.name) for entry in fields(self.optimizer)}
        smoothing = getattr(self.objective, "label_smoothing", 0.0)
        return {
            "objective": self.objective.name,
            "beta": float(self.objective.beta),
            **({"label_smoothing": smoothing} if smoothing else {}),
            "learning_rate": float(self.learning_rate),
            "learning_rate_rule": "given",
            "optimizer": optimizer_name(self.optimizer),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in rest.items() if value},
            "schedule": schedule_name(self.schedule),
            **({"warmup": self.schedule.warmup} if self.schedule is not None and self.schedule.warmup else {}),
            "batch_size": self.batch_size,
            **({} if self.batch_size == "full" else {"scheme": self.scheme, "seed": self.seed}),
            **({} if self.groups is None else {"groups": list(self.groups)}),
        }

    @property
    def data(self) -> tuple[Any, ...]:
        """What decides which pairs each step sees; full batches draw nothing, so their seed does not matter."""
        if self.batch_size == "full":
            return (self.groups, "full")
        return (self.groups, self.batch_size, self.scheme, self.seed)

    def same_run(self, stop: Stop) -> tuple[Any, ...]:
        """Equal for settings that are one and the same run up to the scale of the heads, and end at the same step."""
        kind = repr(replace(self.objective, beta=1.0))
        schedule = None if self.schedule is None else repr(self.schedule)
        strength: Any = (float(self.objective.beta), float(self.learning_rate))
        if self.objective.reads == "log_probs":
            strength = (float(self.learning_rate), None if stop.margin is None else float(self.objective.beta))
        elif self.optimizer.linear:
            scale = self.learning_rate * self.objective.beta**2
            margins = np.array([-1.0, 0.0, 0.75, 2.5])
            one: Any = self.objective
            numbers = [*(scale * one.push(margins))]
            if stop.loss is not None:
                numbers += [*one.loss(margins)]
            strength = tuple(f"{number:.10e}" for number in numbers)
        return (kind, repr(self.optimizer), schedule, strength, self.data)


def grid(
    feats: FeatureSet,
    objective: Any,
    beta: Any,
    learning_rate: Any,
    optimizer: Any,
    schedule: Any,
    batch_size: Any,
    scheme: str,
    groups: Any,
    seed: Any,
) -> list[Setting]:
    """Every combination, in the order of the arguments of `prefdyn.dynamics.sweep.sweep`, which documents them.

    Raises:
        ConfigError: A setting is out of range or unknown, or the features lack what it needs.
        DataError: A subset has no pair to train on, or SFT lacks reference log-probabilities.
    """
    objectives = [
        each
        for one in _listed(objective)
        for each in ([named_objective(one, beta=b) for b in _listed(beta)] if isinstance(one, str) else [one])
    ]
    optimizers = [named_optimizer(one) if isinstance(one, str) else one for one in _listed(optimizer)]
    subsets = [None if names is None else tuple(names) for names in ([None] if groups is None else groups)]
    for rate in _listed(learning_rate):
        positive(rate, name="learning_rate", fix="give a number above 0")
    for size in _listed(batch_size):
        if size != "full":
            at_least(size, 1, name="batch_size")
    for names in subsets:
        for name in names or ():
            one_of(name, feats.groups, name="group")
        inside = np.ones(len(feats), dtype=bool)
        if names is not None:
            inside = np.isin(feats.group, [feats.groups.index(name) for name in names])
        if not (inside & ~feats.held_out).any():
            raise DataError(
                f"{'all groups' if names is None else f'groups {list(names)}'}: all {int(inside.sum())} pairs are held "
                "out, so nothing is left to train on; lower the held-out share"
            )
    settings = [
        Setting(
            objective=each,
            learning_rate=float(rate),
            optimizer=how,
            schedule=when,
            batch_size=size,
            scheme=scheme,
            seed=at_least(number, 0, name="seed"),
            groups=names,
        )
        for each, rate, how, when, size, names, number in product(
            objectives,
            _listed(learning_rate),
            optimizers,
            _listed(schedule),
            _listed(batch_size),
            subsets,
            _listed(seed),
        )
    ]
    if not settings:
        raise ConfigError("the grid is empty; give at least one value for every setting")
    _check_needs(feats, settings)
    return settings


def _check_needs(feats: FeatureSet, settings: Sequence[Setting]) -> None:
    """Refuse what these features cannot give."""
    if any(setting.objective.reads == "log_probs" for setting in settings):
        if feats.chosen is None:
            raise DataError("SFT on the head needs one-token answers; for longer responses train the model itself")
        if feats.ref_chosen_logps is None or (len(feats.tokens) > 2 and feats.head is None):
            raise DataError(
                "SFT needs the reference log-probability of every answer token, and these features carry none; "
                "extract them from a model"
            )
    for setting in settings:
        if decays(setting) and feats.head is None:
            raise ConfigError(
                f"weight_decay is {setting.optimizer.weight_decay!r}, which pulls the head itself towards "
                "0, and these features carry no head rows; extract them from a model, or set weight_decay to 0"
            )
        if decays(setting) and setting.objective.reads == "log_probs":
            raise ConfigError(
                "weight decay moves every row of the head, which SFT's normaliser would need; set it to 0"
            )


def _listed(values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    return list(values)


def optimizer_name(how: Optimizer) -> str:
    """Plain descent alone is called `sgd`, so that nothing else is taken for it."""
    name = how.name
    if isinstance(how, SGD) and how.momentum:
        name = "nesterov" if how.nesterov else "momentum"
    return f"{name} with weight decay" if how.weight_decay else name


def schedule_name(schedule: Schedule | None) -> str:
    """A constant rate alone is called `constant`."""
    if schedule is None:
        return "constant"
    return f"{schedule.kind} with warm-up" if schedule.warmup else schedule.kind


def decays(setting: Setting) -> bool:
    """Whether the optimizer pulls the head itself towards 0."""
    return bool(getattr(setting.optimizer, "weight_decay", 0.0))
