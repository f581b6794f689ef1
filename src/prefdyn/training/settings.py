"""How a model is trained: every choice in one place, checked once, and written beside the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from prefdyn._checks import at_least, nearest, one_of, positive
from prefdyn._json import number
from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import DPO, Objective, objective
from prefdyn.maths.optimizers import OPTIMIZERS, SCHEDULES, SGD, AdamW, Optimizer, Schedule, optimizer
from prefdyn.settings import Setup

TUNES = ("last-layer", "lora", "full")
PRECISIONS = ("float32", "float64", "bfloat16")
SCHEMES = ("epochs", "replacement")
PROBES = ("drift", "gradients", "states")
ALL_LINEAR = ("all-linear",)
"""Targets of adapters that name no modules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    r"""Low-rank adapters: $W + (\alpha / r)\, B A$ with A and B trained. None of it for other ways to tune.

    Reference:
        Hu et al. (2021), arXiv:2106.09685; `peft.LoraConfig`. 2403.18742's HH-RLHF runs have rank 8, alpha 32, dropout
        0.05 on `q_proj` and `v_proj`.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    """Above 0 the training loss is that of a thinned network, and probes are those of the whole one."""
    targets: tuple[str, ...] = ALL_LINEAR
    """Names of modules, or "all-linear": every linear layer but the head, and but those on which no adapter can sit."""

    def __post_init__(self) -> None:
        at_least(self.rank, 1, name="lora rank")
        positive(self.alpha, name="lora alpha")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora dropout is {self.dropout!r}, but must be at least 0 and below 1")
        if not self.targets:
            raise ConfigError("lora targets name nothing; give module names, or all-linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """A training run but for its data and its model."""

    tune: Literal["last-layer", "lora", "full"] = "lora"
    objective: Objective
    optimizer: Optimizer
    learning_rate: float
    learning_rate_rule: str = "given"
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    steps: int
    batch_size: int | Literal["full"]
    """Pairs per step, over all processes and accumulated parts."""
    scheme: Literal["epochs", "replacement"] = "epochs"
    accumulate: int = 1
    """Parts in which a step's batch is worked through."""
    clip: float | None = None
    """Largest norm of the gradient; None: as it is."""
    precision: str = "float32"
    """Of the forward pass. `bfloat16`: autocast; head, log-softmax and loss stay in float32."""
    gradient_checkpointing: bool = False
    seed: int = 0
    record: Literal["log", "all"] | tuple[int, ...] = "log"
    """Steps at which the probes measure."""
    probe_pairs: int | None = None
    """Pairs per group and split that the probes look at; None: all."""
    probes: tuple[str, ...] = PROBES
    """What they measure besides losses and log-probabilities."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; None: none but on an interrupt."""
    lora: LoRA | None = None
    flip: bool = False
    """Chosen and rejected change places: training towards the opposite."""
    max_length: int | None = None

    def __post_init__(self) -> None:
        one_of(self.tune, TUNES, name="tune")
        one_of(self.precision, PRECISIONS, name="precision")
        one_of(self.scheme, SCHEMES, name="scheme")
        for name in self.probes:
            one_of(name, PROBES, name="probe")
        positive(self.learning_rate, name="learning_rate")
        at_least(self.steps, 1, name="steps")
        at_least(self.warmup, 0, name="warmup")
        at_least(self.accumulate, 1, name="accumulate")
        at_least(self.seed, 0, name="seed")
        if self.batch_size != "full":
            at_least(self.batch_size, 1, name="batch_size")
            if self.accumulate > self.batch_size:
                raise ConfigError(
                    f"accumulate is {self.accumulate} parts of a batch of {self.batch_size}; give at most one per pair"
                )
        if self.clip is not None:
            positive(self.clip, name="clip", fix="give a number above 0, or leave it out")
        for name in ("probe_pairs", "checkpoint_every", "max_length"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), 1, name=name)
        if self.tune == "last-layer" and self.precision == "bfloat16":
            raise ConfigError(
                "precision bfloat16 is for a model's forward pass; last-layer runs take float32 or float64"
            )
        if self.tune != "last-layer" and self.precision == "float64":
            raise ConfigError("precision float64 is for last-layer runs; models train in float32 or bfloat16")
        if self.tune == "last-layer" and self.gradient_checkpointing:
            raise ConfigError("gradient checkpointing means nothing to a last-layer run: its body is not trained")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "TrainingSettings":
        """From what `to_json` wrote.

        Raises:
            ConfigError: A setting is missing, unknown or out of range.

        Example:
            >>> settings = resolve(100, tune="lora", optimizer=AdamW(weight_decay=0.1), lora=LoRA(rank=8))
            >>> TrainingSettings.read(settings.to_json()) == settings
            True
        """
        try:
            kind = str(told["optimizer"])
            options = {entry.name: _tuple(told[entry.name]) for entry in fields(OPTIMIZERS[kind]) if entry.name in told}
            adapters = None
            if "lora_rank" in told:
                adapters = LoRA(
                    rank=told["lora_rank"], alpha=told["lora_alpha"], dropout=told["lora_dropout"],
                    targets=tuple(told["lora_targets"]),
                )  # fmt: skip
            same: dict[str, Any] = {
                entry.name: _tuple(told[entry.name])
                for entry in fields(cls)
                if entry.name not in ("objective", "optimizer", "lora") and entry.name in told
            }
            return cls(
                objective=read_objective(told),
                optimizer=optimizer(kind, **options),
                lora=adapters,
                **same,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the settings of that run are not whole ({error!r}); make it again") from error

    @property
    def rates(self) -> Schedule:
        """The schedule, over all steps."""
        return Schedule(kind=self.schedule, steps=self.steps, warmup=self.warmup)

    def rate(self, step: int) -> float:
        """Learning rate of the update that follows `step` others."""
        return self.learning_rate * self.rates.factor(step)

    def to_json(self) -> dict[str, Any]:
        """Flat and plain: the names that every command's settings have."""
        further = {
            entry.name: value
            for entry in fields(self.optimizer)
            if (value := getattr(self.optimizer, entry.name)) != entry.default
        }
        found: dict[str, Any] = {
            "tune": self.tune,
            "objective": self.objective.name,
            "beta": self.objective.beta,
            "optimizer": self.optimizer.name,
        }
        if smoothing := getattr(self.objective, "label_smoothing", 0.0):
            found["label_smoothing"] = smoothing
        skipped = ("tune", "objective", "optimizer", "lora")
        found |= {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in skipped}
        found |= {name: list(value) if isinstance(value, tuple) else value for name, value in further.items()}
        if self.lora is not None:
            found |= {
                "lora_rank": self.lora.rank,
                "lora_alpha": self.lora.alpha,
                "lora_dropout": self.lora.dropout,
                "lora_targets": list(self.lora.targets),
            }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def read_objective(told: Mapping[str, Any]) -> Objective:
    """The objective of settings as a summary has them.

    Raises:
        ConfigError: It is none of ours, or its beta is no number.
    """
    smoothing = number(told.get("label_smoothing"))
    return objective(
        str(told.get("objective")), beta=number(told.get("beta")), label_smoothing=smoothing if smoothing > 0 else 0.0
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def chosen(setup: Setup) -> dict[str, Any]:
    """Keywords of `run_training` for a setup."""
    one_of(setup.schedule, SCHEDULES, name="schedule")
    same = (
        "tune", "learning_rate", "schedule", "warmup", "steps", "epochs", "batch_size", "scheme", "accumulate",
        "precision", "gradient_checkpointing", "record", "probe_pairs", "probes", "checkpoint_every", "flip",
    )  # fmt: skip
    found: dict[str, Any] = {name: getattr(setup, name) for name in same}
    found |= {"objective": setup.loss, "optimizer": setup.stepper}
    if setup.clip is not None:
        found["clip"] = setup.clip or None
    if setup.tune == "lora":
        found["lora"] = LoRA(
            rank=setup.lora_rank, alpha=setup.lora_alpha, dropout=setup.lora_dropout, targets=setup.lora_targets
        )
    return found


_PROBED_PER_CELL, _PROBED = 200, 2000
"""Pairs that the probes look at by default, in one split of one group and in all: many groups must not cost more than
the training that they describe."""


def resolve(
    pairs: int,
    *,
    groups: int = 1,
    tune: str,
    objective: Objective | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    learning_rate_rule: str = "given",
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | Literal["full"] | None = None,
    lora: LoRA | None = None,
    record: Literal["log", "all"] | Sequence[int] = "log",
    probe_pairs: int | Literal["all"] | None = None,
    **rest: Any,
) -> TrainingSettings:
    """Settings with what was left open filled in, by way of tuning.

    | | last-layer | lora | full |
    |---|---|---|---|
    | optimizer | plain gradient descent | AdamW | AdamW |
    | learning rate | to be given | 1e-4 | 1e-5 |
    | batch size | full | 32 | 32 |
    | length | 100 steps | 1 epoch | 1 epoch |
    | clip | none | 1 | 1 |
    | probes look at | all pairs | at most 200 per group and split, 2,000 in all | the same |

    Args:
        pairs: Pairs to train on.
        groups: Groups that they are in.
        tune: "last-layer", "lora" or "full".
        objective: `DPO(beta=0.1)` if not given.
        optimizer: See the table.
        learning_rate: See the table.
        learning_rate_rule: How it was found.
        steps: Updates; or
        epochs: passes over the training pairs. Not both.
        batch_size: Pairs per update, at most all of them.
        lora: Adapters; for "lora" alone.
        record: Steps at which to measure: "log", "all", or a list.
        probe_pairs: Pairs per group and split to measure, or "all".
        rest: Fields of `TrainingSettings`.

    Raises:
        ConfigError: A setting is unknown, out of range, or contradicts another.

    Example:
        >>> resolve(100, tune="full", epochs=2).steps
        8
        >>> resolve(100, tune="full", batch_size=200).batch_size
        100
    """
    one_of(tune, TUNES, name="tune")
    one_of(rest.get("scheme", SCHEMES[0]), SCHEMES, name="scheme")
    head = tune == "last-layer"
    if steps is not None and epochs is not None:
        raise ConfigError(f"steps is {steps} and epochs is {epochs}; give one of them")
    if epochs is not None:
        positive(epochs, name="epochs")
    if lora is not None and tune != "lora":
        raise ConfigError(f"lora settings are given, but tune is {tune!r}; use tune='lora'")
    size: int | Literal["full"] = ("full" if head else 32) if batch_size is None else batch_size
    if size != "full":
        size = min(at_least(size, 1, name="batch_size"), pairs)
    per_epoch = 1 if size == "full" else -(-pairs // size)
    if steps is None:
        steps = 100 if head and epochs is None else max(1, round((1 if epochs is None else epochs) * per_epoch))
    if "clip" not in rest:
        rest["clip"] = None if head else 1.0
    if probe_pairs is None:
        probe_pairs = "all" if head else min(_PROBED_PER_CELL, max(1, _PROBED // (2 * groups)))
    if learning_rate is None:
        if head:
            raise ConfigError("learning_rate is missing; give a number")
        learning_rate = 1e-4 if tune == "lora" else 1e-5
        learning_rate_rule = "default"
    known = {entry.name for entry in fields(TrainingSettings)}
    for name in rest:
        if name not in known:
            raise ConfigError(f"train has no setting {name!r}{nearest(name, known)}")
    found = TrainingSettings(
        tune=tune,  # type: ignore[arg-type]
        objective=objective or DPO(),
        optimizer=optimizer or (SGD() if head else AdamW()),
        learning_rate=learning_rate,
        learning_rate_rule=learning_rate_rule,
        steps=steps,
        batch_size=size,
        lora=(lora or LoRA()) if tune == "lora" else None,
        record=record if isinstance(record, str) else tuple(int(step) for step in record),  # type: ignore[arg-type]
        probe_pairs=None if probe_pairs == "all" else probe_pairs,
        **rest,
    )
    return replace(found, accumulate=min(found.accumulate, pairs)) if found.accumulate > pairs else found
