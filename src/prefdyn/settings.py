"""Every setting, said once: its name, its values, its default, and what there is to say of it.

`Source` is what is read, `Reading` (and `Extraction`) how a model reads it, `Setup` how something is trained or
simulated. The command line, YAML files, config.yaml, refusals and docs/commands.md are made from the fields here
(`prefdyn.cli.command`); functions in Python take such an object, or its fields as keywords (`opened`).

A new setting is one field here and the code that uses it.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from prefdyn import _typed
from prefdyn._checks import at_least, nearest, one_of
from prefdyn.errors import ConfigError

if TYPE_CHECKING:
    from prefdyn.maths.objectives import Objective
    from prefdyn.maths.optimizers import Optimizer, Schedule

DTYPES = ("float32", "bfloat16", "float16", "auto")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""Kinds of attention that libraries know; where they know more, they are asked."""
_DEVICES = (
    "cpu", "cuda", "xpu", "mps", "hpu", "mtia", "xla", "hip", "ipu", "maia", "ve", "vulkan", "privateuseone", "npu",
)  # fmt: skip
CHECKS = ("none", "quick", "full")
SKETCH = 4096
"""Numbers that are kept of each longer response unless told otherwise."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Flag:
    """What is said of a setting wherever people meet it."""

    help: str
    default: str | None = None
    """The default in words, where the value itself does not say it."""
    typed: Any = None
    """What a command line reads before `read`; the field's own type unless given."""
    read: _typed.Read | None = None
    """From what was typed to the value."""
    least: int | None = None
    lists: bool = False
    """Whether it is a comma list, for which a YAML file may hold a list."""
    only: "tuple[str, Callable[[Any], bool]] | None" = None
    """Where it means something: in words, and of all the settings that it stands among."""


_LIST = {"typed": str, "lists": True}
_LORA = ("with --tune lora", lambda setup: setup.tune == "lora")
_MODELS = ("with --tune lora or full", lambda setup: setup.tune in ("lora", "full"))
_BATCHES = (
    "with a --batch-size that is not full",
    lambda setup: setup.batch_size != "full" and (setup.batch_size is not None or setup.tune in ("lora", "full")),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that belong together."""

    @classmethod
    def flags(cls) -> dict[str, tuple[Any, Flag]]:
        """Type and flag of every field, by name, in order."""
        hints = get_type_hints(cls, include_extras=True)
        found = {}
        for entry in fields(cls):
            if get_origin(hints[entry.name]) is Annotated:
                kind, *notes = get_args(hints[entry.name])
                found[entry.name] = (kind, next(note for note in notes if isinstance(note, Flag)))
        return found

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, by name."""
        return {entry.name: value for entry in fields(self) if (value := getattr(self, entry.name)) != entry.default}

    def idle(self) -> None:
        """Refuse what was set and would change nothing, because of what is set beside it.

        Raises:
            ConfigError: Names the setting, and where it means something.
        """
        flags = self.flags()
        for name, value in self.changed().items():
            only = flags[name][1].only if name in flags else None
            if only is not None and not only[1](self):
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {value} changes nothing here; it is used {only[0]}: leave it out")


@dataclass(frozen=True, kw_only=True)
class Source(Settings):
    """Which pairs are read."""

    data: Annotated[
        tuple[str, ...],
        Flag(
            "builtin, a .jsonl[.gz] / .json / .csv / .tsv / .parquet file or folder, persona:PATH, hh:PATH, "
            "hf:OWNER/NAME[/CONFIG][:SPLIT]. Several times, also as NAME=SPEC: each is a group unless it has groups.",
            default="builtin",
            typed=list[str],
        ),
    ] = ()
    groups: Annotated[
        str | None, Flag("Only these groups: a,b,c; a name with a comma in double quotes.", lists=True)
    ] = None
    group_weights: Annotated[
        Mapping[str, float] | None,
        Flag("What pairs of a group count in training: a=2,b=0.5; 1 for the others.", typed=str, read=_typed.factors),
    ] = None
    limit: Annotated[
        int | None, Flag("At most this many pairs of each group, not in all (a seeded sample).", least=1)
    ] = None
    group_column: Annotated[str | None, Flag("Column that holds the group.")] = None
    columns: Annotated[
        str | None,
        Flag(
            "Which field is what, where the layout is not known: prompt=question,first=a,second=b,winner=label; "
            "or a YAML file of it (docs/data.md)."
        ),
    ] = None
    template: Annotated[str | None, Flag("Persona text: question, question+newline or statement.")] = None
    skip_bad_rows: Annotated[bool, Flag("Leave bad rows out and list them.")] = False
    split: Annotated[float, Flag("Share of each group to train on; the rest is held out.", read=_typed.split)] = 0.9


@dataclass(frozen=True, kw_only=True)
class Reading(Settings):
    """How a model reads pairs."""

    answers: Annotated[
        Sequence[str] | None,
        Flag("POS,NEG: other words for a two-answer dataset whose own are several tokens.", read=_typed.answer_pair,
             **_LIST),
    ] = None  # fmt: skip
    eos: Annotated[
        bool | None,
        Flag(
            "End token after plain responses, as TRL appends it. --eos also reads one-token answers as texts.",
            default="eos, but none after one-token answers",
        ),
    ] = None
    max_length: Annotated[
        int | None, Flag("Leave out pairs of which one side has more tokens, prompt included.", least=1)
    ] = None
    revision: Annotated[str | None, Flag("Revision of a hub model.")] = None
    dtype: Annotated[str, Flag("auto (float32 on CPU, bfloat16 on GPU), float32, bfloat16 or float16.")] = "auto"
    device: Annotated[str, Flag("auto, cpu, cuda or cuda:N.")] = "auto"
    attn: Annotated[str, Flag("Attention of the forward pass: sdpa, eager or flash_attention_2.")] = "sdpa"
    batch_tokens: Annotated[int | None, Flag("Tokens per forward pass.", least=1)] = None
    trust_remote_code: Annotated[bool, Flag("Run code that the model's folder ships.")] = False
    cache: bool = True
    """Keep what was read, and use what was kept."""

    def loading(self, device: str) -> dict[str, Any]:
        """Keywords of `load_model`, for a device that was settled."""
        return {
            "device": device, "revision": self.revision, "dtype": self.dtype, "attn": self.attn,
            "trust_remote_code": self.trust_remote_code,
        }  # fmt: skip

    def refuse_unknown(self) -> None:
        """Refuse names that no library knows, before one is loaded.

        Raises:
            ConfigError: A dtype, device or kind of attention is none.
        """
        one_of(self.dtype, DTYPES, name="dtype")
        if re.fullmatch(rf"auto|({'|'.join(_DEVICES)})(:\d+)?", self.device) is None:
            raise ConfigError(f"device {self.device!r} is unknown; use auto, cpu, cuda or cuda:N")
        if re.search(r"[/|]|^(flash|flex|paged)", self.attn) is None:
            one_of(self.attn, ATTENTIONS, name="attn")

    def tokens(self) -> dict[str, Any]:
        """Keywords of `tokenize_pairs`."""
        return {"answers": self.answers, "eos": self.eos, "max_length": self.max_length}

    def __post_init__(self) -> None:
        for name in ("max_length", "batch_tokens"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), 1, name=name)


@dataclass(frozen=True, kw_only=True)
class Extraction(Reading):
    """How a model reads pairs into features."""

    sketch: Annotated[int, Flag("Numbers to keep of each longer response; 0: no sketch, for few pairs.", least=0)] = (
        SKETCH
    )
    double_norm: Annotated[bool, Flag("Apply the final norm twice, as the published scripts did.")] = False
    check: Annotated[
        str,
        Flag(
            "Self-checks of the reading: quick (within some seconds), full (the sketch on whole responses), or none: "
            "then nothing is shared between texts, which is slower and right for every model."
        ),
    ] = "quick"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.sketch, 0, name="sketch")
        one_of(self.check, CHECKS, name="check")


@dataclass(frozen=True, kw_only=True)
class Setup(Settings):
    """How something is trained or simulated."""

    tune: Annotated[str, Flag("last-layer, lora or full.")] = "last-layer"
    objective: Annotated[str, Flag("sigmoid, sigmoid_norm, robust, ipo, hinge, gpo_ipo or sft, by TRL's names.")] = (
        "sigmoid"
    )
    label_smoothing: Annotated[float, Flag("Share of wrong labels, for sigmoid (cDPO) and robust.")] = 0.0
    beta: Annotated[float, Flag("DPO temperature.")] = 0.1
    optimizer: Annotated[
        str | None,
        Flag("sgd, momentum, nesterov, adam, adamw or rmsprop.", default="sgd for last-layer, else adamw"),
    ] = None
    weight_decay: Annotated[float, Flag("Weight decay of the optimizer.", least=0)] = 0.0
    learning_rate: Annotated[
        float | Literal["auto"] | None,
        Flag(
            "Step size; for the head under plain descent also auto: half of the largest stable step.",
            default="auto; 1e-4 for lora, 1e-5 for full",
            typed=str,
            read=_typed.rate,
        ),
    ] = None
    schedule: Annotated[str, Flag("constant, linear or cosine.")] = "constant"
    warmup: Annotated[int, Flag("Steps of linear rise.", least=0)] = 0
    batch_size: Annotated[
        int | Literal["full"] | None,
        Flag("Pairs per step, over all processes; or full.", default="full for last-layer, else 32", typed=str,
             read=_typed.batch_size),
    ] = None  # fmt: skip
    scheme: Annotated[
        str,
        Flag(
            "Minibatches: epochs (shuffled anew), or replacement (a fresh batch each step).",
            only=_BATCHES,
        ),
    ] = "epochs"
    steps: Annotated[int | None, Flag("Steps.", default="by --epochs; last-layer: 100", least=1)] = None
    epochs: Annotated[float | None, Flag("Passes over the training pairs.", default="1")] = None
    accumulate: Annotated[int, Flag("Parts in which a batch is worked through.", least=1)] = 1
    clip: Annotated[
        float | None,
        Flag("Largest gradient norm; 0 for none.", default="1; none for last-layer"),
    ] = None
    lora_rank: Annotated[int, Flag("Rank of the adapters.", least=1, only=_LORA)] = 16
    lora_alpha: Annotated[float, Flag("Adapters count alpha / rank.", only=_LORA)] = 32.0
    lora_dropout: Annotated[float, Flag("Dropout before the adapters.", only=_LORA)] = 0.0
    lora_targets: Annotated[
        tuple[str, ...], Flag("Modules with adapters: a,b,c.", read=_typed.names, only=_LORA, **_LIST)
    ] = ("all-linear",)
    precision: Annotated[
        str | None,
        Flag(
            "Of the forward pass: float32, bfloat16 (autocast), float64 (last-layer).",
            default="float32 on a CPU, bfloat16 on a GPU",
        ),
    ] = None
    gradient_checkpointing: Annotated[bool, Flag("Less memory, a third more time.", only=_MODELS)] = False
    record: Annotated[
        Literal["log", "all"] | tuple[int, ...],
        Flag("Steps at which groups are measured: log, all, or 1,10,100.", read=_typed.recorded, **_LIST),
    ] = "log"
    probe_pairs: Annotated[
        int | Literal["all"] | None,
        Flag(
            "Pairs measured per group and split, or all.",
            default="at most 200, and about 2,000 in all; last-layer: all",
            typed=str,
            read=_typed.pair_count,
        ),
    ] = None
    probes: Annotated[
        tuple[str, ...],
        Flag(
            "Measured besides losses and log-probabilities: any of drift,gradients,states, or none.",
            read=_typed.names_or_none,
            **_LIST,
        ),
    ] = ("drift", "gradients", "states")
    checkpoint_every: Annotated[int | None, Flag("Steps between checkpoints.", default="at the end alone", least=1)] = (
        None
    )
    flip: Annotated[bool, Flag("Train towards the rejected answers.")] = False

    @property
    def loss(self) -> "Objective":
        """The preference objective."""
        from prefdyn.maths.objectives import objective

        return objective(self.objective, beta=self.beta, label_smoothing=self.label_smoothing)

    def falls(self, steps: int) -> "Schedule | None":
        """The schedule over so many steps; None where the rate is constant."""
        from prefdyn.maths.optimizers import SCHEDULES, Schedule

        if self.schedule == "constant" and not self.warmup:
            return None
        kind: Any = one_of(self.schedule, SCHEDULES, name="--schedule")
        return Schedule(kind=kind, steps=steps, warmup=self.warmup)

    @property
    def stepper(self) -> "Optimizer | None":
        """The optimizer, where one is named or decay asks for one."""
        from prefdyn.maths.optimizers import optimizer

        if self.optimizer is None and not self.weight_decay:
            return None
        name = self.optimizer or ("adamw" if self.tune in ("lora", "full") else "sgd")
        return optimizer(name, weight_decay=self.weight_decay)


def opened(**kinds: type[Settings]) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """A function with parameters that are settings takes their fields, too, as keywords.

    A keyword that there is not raises a `ConfigError` that names the nearest, unless the function takes any.

    Args:
        kinds: The class of each such parameter, by its name.

    Example:
        >>> @opened(reading=Reading)
        ... def answers(*, reading: Reading) -> Reading:
        ...     return reading
        >>> answers(eos=False) == answers(reading=Reading(), eos=False) == answers(reading=Reading(eos=False))
        True
    """

    def of(function: Callable[..., _Result]) -> Callable[..., _Result]:
        shown = _with_fields(inspect.signature(function), kinds)
        anything = any(each.kind is each.VAR_KEYWORD for each in shown.parameters.values())

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> _Result:
            for name in () if anything else named:
                if name not in shown.parameters:
                    raise ConfigError(f"{function.__name__} has no setting {name!r}{nearest(name, shown.parameters)}")
            for parameter, kind in kinds.items():
                parts = {entry.name: named.pop(entry.name) for entry in fields(kind) if entry.name in named}
                named[parameter] = replace(named.get(parameter) or kind(), **parts)
            return function(*given, **named)

        call.__signature__ = shown  # type: ignore[attr-defined]
        return call

    return of


def _with_fields(signature: inspect.Signature, kinds: Mapping[str, type[Settings]]) -> inspect.Signature:
    """The signature with the fields among the keywords, as help() and editors show it."""
    several, parameters = [], []
    for parameter in signature.parameters.values():
        if parameter.name in kinds:
            parameter = parameter.replace(default=kinds[parameter.name]())
            several += [
                inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default)
                for entry in fields(kinds[parameter.name])
            ]
        (several if parameter.kind is parameter.VAR_KEYWORD else parameters).append(parameter)
    return signature.replace(parameters=[*parameters, *sorted(several, key=lambda one: one.kind)])
