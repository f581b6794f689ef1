r"""How much memory a run needs, before it starts, and what to change where that is too much.

Per token and layer, the backward pass keeps (d: width of the states, q and k: widths of all queries and of all keys
together, I: width of the feed-forward layer, c: how many copies of I its activation keeps, 4 where it is gated)

$$4\,(n_d\,d + 2q + 2k + c\,I)\ \text{bytes},\qquad n_d = 6\ (\text{RMSNorm})\ \text{or}\ 4\ (\text{LayerNorm}),$$

or in bfloat16 autocast $2\,(n'_d\,d + 2\,(2q + 2k) + c\,I)$ with $n'_d = 10$ or 6, as norms and rotations stay float32,
and once per layer a copy of its weights. Eager attention keeps 4 bytes more per head and token that is seen. With
gradient checkpointing only 4 d bytes per token and layer are kept, and one layer at a time is done again.

Besides these: weights; gradients and the optimizer's state of trained weights, in their own type; their start, where
drift is measured; a block of logits; the states that a last-layer run or the probes hold; and on a CPU what the C
allocator holds without need. The sum is an upper figure: gradients appear while activations are freed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from prefdyn._checks import one_of
from prefdyn._files import shown_bytes
from prefdyn._memory import free_bytes
from prefdyn.errors import ConfigError
from prefdyn.maths.optimizers import Optimizer
from prefdyn.models.load import LanguageModel, quiet
from prefdyn.models.tiles import COLUMNS, LOGITS
from prefdyn.training.settings import TUNES

UNSURE = 1.5
"""Factor within which the estimate is tested against what real runs took."""
_HOARD = 0.8
"""What glibc's allocator was seen to hold of blocks that torch had freed, over a step's activations: 0.5 to 1.1."""
_HOARDED = 32 << 20
"""Bytes from which a freed block always goes back to the system."""
_COPIES = {"gelu_new": 5, "gelu_fast": 6, "quick_gelu": 3}
"""Copies of the feed-forward width that an activation of several operations keeps; 2 for one that is fused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A language model in numbers."""

    parameters: int
    hidden: int
    layers: int
    intermediate: int
    """Width of the feed-forward layers."""
    query: int
    """Heads times width of a head."""
    key: int
    """Key heads times width of a head."""
    heads: int
    vocabulary: int
    weight_bytes: int = 4
    """Of one weight."""
    copies: int = 4
    """Copies of `intermediate` that are kept: 4 of a gated layer, else by activation."""
    rms_norm: bool = True
    tied: bool = False
    """Whether the head is the input embedding."""
    eager: bool = False
    """Whether attention keeps its matrix."""
    correction: float = 1.0
    """What the backward pass of this model was seen to keep, over the formula's figure."""

    @property
    def linear(self) -> int:
        """Weights of the linear layers of one block."""
        return (
            2 * self.hidden * (self.query + self.key) + (3 if self.copies == 4 else 2) * self.hidden * self.intermediate
        )

    def adapters(self, rank: int) -> int:
        """Weights of adapters of a rank on all linear layers but the head."""
        d, wide = self.hidden, self.intermediate
        ends = 2 * (d + self.query) + 2 * (d + self.key) + (3 if self.copies == 4 else 2) * (d + wide)
        return rank * ends * self.layers

    def kept(self, longest: int, *, autocast: bool = False) -> float:
        """Bytes that one layer keeps of one token for the backward pass."""
        attention = 2 * self.query + 2 * self.key
        seen = 4 * self.heads * longest if self.eager else 0
        if autocast:
            norms = (10 if self.rms_norm else 6) * self.hidden
            return self.correction * (2 * (norms + 2 * attention + self.copies * self.intermediate)) + seen
        norms = (6 if self.rms_norm else 4) * self.hidden
        return self.correction * (4 * (norms + attention + self.copies * self.intermediate)) + seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run puts on a model, in numbers."""

    tune: str
    optimizer: Optimizer
    batch_tokens: int
    """Tokens of the largest part of a batch that goes through the model at once, what fills it up included."""
    batch_pairs: int = 1
    """Pairs of that part."""
    predicted: int | None = None
    """States of that part that reach the head; None: all."""
    accumulate: int = 1
    trainable: int | None = None
    """Trained weights; None: all, or those of adapters of `rank`."""
    rank: int = 16
    autocast: bool = False
    gradient_checkpointing: bool = False
    drift: bool = True
    """Whether the start of trained weights is kept to measure how far they move."""
    cached_states: int = 0
    """States that are held at once: of all pairs (or response tokens) for last-layer runs, else of those probed."""
    state_bytes: int = 4
    """Of one number of a state in a last-layer run."""
    reference_parameters: int = 0
    """Weights of a reference that is another model."""
    processes: int = 1
    """Processes that share weights, gradients and optimizer state (FSDP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes that a run needs at its peak, part by part."""

    parts: Mapping[str, int]
    """In the order in which they are listed; what is not needed is 0."""
    device: str
    available: int | None
    """Bytes that the run may use; None: unknown."""
    size: ModelSize
    load: Load

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def least(self) -> int:
        """What it takes even where the uncertain parts are as small as can be, and gradients come as they go."""
        passing = ("activations", "head block", "allocator", "gradients", "reference model")
        fixed = sum(size for name, size in self.parts.items() if name not in passing)
        passed = (self.parts["activations"] + self.parts["head block"]) / UNSURE
        return fixed + int(max(passed, self.parts["gradients"]))

    def rows(self) -> list[dict[str, Any]]:
        """One row per part that is needed, and the total."""
        parts = {name: size for name, size in self.parts.items() if size} | {"total": self.total}
        return [{"part": name, "bytes": size, "shown": shown_bytes(size)} for name, size in parts.items()]


def estimate(size: ModelSize, load: Load, *, device: str = "cpu", available: int | None = None) -> MemoryEstimate:
    """The peak of a run, from plain numbers; the formula is at the top of this module.

    Args:
        size: The model.
        load: The run.
        device: Where it runs.
        available: Bytes that it may use, those that its weights have taken already included.

    Raises:
        ConfigError: The way to tune is unknown.

    Example:
        >>> from prefdyn.maths.optimizers import AdamW
        >>> llama = ModelSize(
        ...     parameters=8_030_000_000, hidden=4096, layers=32, intermediate=14336, query=4096, key=1024, heads=32,
        ...     vocabulary=128256,
        ... )
        >>> whole = estimate(llama, Load(tune="full", optimizer=AdamW(), batch_tokens=2048, autocast=True))
        >>> [(row["part"], row["shown"]) for row in whole.rows()][:3]
        [('weights', '29.9 GiB'), ('gradients', '29.9 GiB'), ('optimizer state', '59.8 GiB')]
    """
    head = one_of(load.tune, TUNES, name="tune") == "last-layer"
    trained = _trained(size, load)
    trained_bytes = (
        trained * (size.weight_bytes if load.tune == "full" else max(4, size.weight_bytes)) // load.processes
    )
    slots = len(load.optimizer.start(np.zeros(1)))
    added = trained * 4 if load.tune == "lora" else 0
    weights = size.parameters * size.weight_bytes
    parts = {
        "weights": (weights + added) // load.processes,
        "gradients": trained_bytes,
        "optimizer state": slots * trained_bytes,
        "start weights": trained_bytes if load.drift and load.tune == "full" else 0,
        "activations": _activations(size, load),
        "head block": _head_block(size, load, device),
        "reference model": 0,
        "allocator": _hoard(size, load) if device.startswith("cpu") else 0,
        "cached states": load.cached_states * size.hidden * (4 + load.state_bytes if head else 4),
    }
    if not head and not device.startswith("cpu"):
        parts["cached states"] = 0  # probes hold theirs on the host
    # another reference has been read and freed before training takes the rest
    rest = sum(parts.values()) - parts["weights"]
    parts["reference model"] = max(0, load.reference_parameters * size.weight_bytes - rest)
    return MemoryEstimate(parts=parts, device=device, available=available, size=size, load=load)


def of_model(
    lm: LanguageModel,
    *,
    tune: str,
    optimizer: Optimizer,
    batch_tokens: int,
    available: int | None = None,
    **load: Any,
) -> MemoryEstimate:
    """The peak of a run with a loaded model, on its device.

    Args:
        lm: The model, with or without adapters. What its backward pass keeps is looked at on a few tokens.
        tune: "last-layer", "lora" or "full".
        optimizer: Of the run.
        batch_tokens: Tokens that go through the model at once.
        available: Bytes that the run may use; None: what is free now, and what the model has taken.
        load: Further fields of `Load`.
    """
    size = model_size(lm)
    held = sum(each.numel() * each.element_size() for each in lm.model.parameters())
    if available is None and (free := available_bytes(lm.device)) is not None:
        available = free + held
    work = Load(tune=tune, optimizer=optimizer, batch_tokens=batch_tokens, **load)
    return estimate(size, work, device=lm.device, available=available)


def check_fits(found: MemoryEstimate) -> str | None:
    """Refuse a run that cannot fit, and say what would help.

    Returns:
        The same advice where the run may or may not fit, as the estimate is an upper figure; None where it fits.

    Raises:
        ConfigError: It cannot fit: even `found.least` is more than there is.
    """
    if found.available is None or found.total <= found.available:
        return None
    largest = sorted(found.parts.items(), key=lambda item: -item[1])[:3]
    shown = ", ".join(f"{name} {shown_bytes(size)}" for name, size in largest if size)
    helps = [
        f"{flag} saves {shown_bytes(found.total - other.total)}"
        + (" and fits" if other.total <= found.available else "")
        for flag, other in alternatives(found)
    ]
    advice = ", ".join(helps) if helps else "take a smaller model or another device"
    refused = found.least > found.available
    text = (
        f"this run {'needs' if refused else 'may need'} about {shown_bytes(found.total)} ({shown}), and "
        f"{found.device} has {shown_bytes(found.available)}: {advice}"
    )
    if refused:
        raise ConfigError(text)
    return text


def alternatives(found: MemoryEstimate) -> list[tuple[str, MemoryEstimate]]:
    """What could be changed, as flags, and what the run would need then; only what saves a hundredth or more."""
    size, load = found.size, found.load
    options: list[tuple[str, ModelSize, Load]] = []
    if load.tune == "last-layer":
        if load.state_bytes > 4:
            options.append(("--precision float32", size, replace(load, state_bytes=4)))
        if load.cached_states > 1:
            half = replace(load, cached_states=-(-load.cached_states // 2))
            options.append(("half of the pairs (see --limit)", size, half))
    else:
        if load.batch_pairs > 1:
            options.append(_in_parts(found))
        if not load.gradient_checkpointing:
            options.append(("--gradient-checkpointing", size, replace(load, gradient_checkpointing=True)))
        if not load.autocast and size.weight_bytes > 2:
            options.append(("--precision bfloat16", size, replace(load, autocast=True)))
        if (longest := load.batch_tokens // load.batch_pairs) > 32:
            fewer = load.batch_tokens // 2
            options.append((f"--max-length {longest // 2}", size, replace(load, batch_tokens=fewer)))
        if load.tune == "full":
            options.append(("--tune lora", size, replace(load, tune="lora", trainable=None)))
        light = replace(load, tune="last-layer", trainable=None, gradient_checkpointing=False)
        options.append(("--tune last-layer", size, light))
    if load.tune != "full" and size.weight_bytes > 2:
        options.append(("--dtype bfloat16", replace(size, weight_bytes=2), load))
    kept = []
    for flag, one, other in options:
        changed = estimate(one, other, device=found.device, available=found.available)
        if changed.total < 0.99 * found.total:
            kept.append((flag, changed))
    return kept


# parts ---------------------------------------------------------------------------------------------------------------


def _trained(size: ModelSize, load: Load) -> int:
    if load.trainable is not None:
        return load.trainable
    return {"full": size.parameters, "lora": size.adapters(load.rank), "last-layer": 0}[load.tune]


def _activations(size: ModelSize, load: Load) -> int:
    longest = -(-load.batch_tokens // load.batch_pairs)
    kept = size.kept(longest, autocast=load.autocast)
    if load.tune == "last-layer":
        # nothing is kept: one layer is at work while states are read; a step holds those of its batch
        return int(max(load.batch_tokens * kept, load.cached_states * size.hidden * load.state_bytes))
    copies = 2 * size.linear * size.layers if load.autocast and size.weight_bytes > 2 else 0
    ends = 3 * 4 * size.hidden  # the embedded token, the final state, and the gradient that comes back
    if load.gradient_checkpointing:
        return int(load.batch_tokens * (size.layers * 4 * size.hidden + 1.5 * kept + ends)) + copies // size.layers
    return int(load.batch_tokens * ((size.layers + 0.5) * kept + ends)) + copies


def _hoard(size: ModelSize, load: Load) -> int:
    if load.tune == "last-layer" or load.batch_tokens * size.hidden * 4 >= _HOARDED:
        return 0
    longest = -(-load.batch_tokens // load.batch_pairs)
    return int(_HOARD * load.batch_tokens * size.layers * size.kept(longest, autocast=load.autocast))


def _head_block(size: ModelSize, load: Load, device: str) -> int:
    """Blocks of logits, and the gradients of the head that wait to be added up."""
    states = load.batch_tokens if load.predicted is None else load.predicted
    room = LOGITS.get(torch.device(device).type, LOGITS["cpu"])
    block = 4 * min(states * size.vocabulary, room)
    if size.weight_bytes < 4:
        block += min(COLUMNS, size.vocabulary) * size.hidden * 4
    twice = load.tune == "full" and (size.tied or load.accumulate > 1)
    return block + (size.vocabulary * size.hidden * 4 if twice else 0)


def _in_parts(found: MemoryEstimate) -> tuple[str, ModelSize, Load]:
    """The fewest parts of a batch with which it fits; one pair each where it does not."""
    size, load = found.size, found.load
    parts = 2
    while True:
        pairs = -(-load.batch_pairs // parts)
        share = pairs / load.batch_pairs
        fewer = replace(
            load,
            batch_pairs=pairs,
            batch_tokens=int(load.batch_tokens * share),
            predicted=None if load.predicted is None else int(load.predicted * share),
            accumulate=load.accumulate * parts,
        )
        changed = estimate(size, fewer, device=found.device, available=found.available)
        if pairs == 1 or found.available is None or changed.total <= found.available:
            return f"--accumulate {fewer.accumulate} (parts of {pairs} pairs, or a smaller --batch-size)", size, fewer
        parts *= 2


# a loaded model ------------------------------------------------------------------------------------------------------


def model_size(lm: LanguageModel, *, look: bool = True) -> ModelSize:
    """The numbers of a loaded model.

    Args:
        lm: With or without adapters, which are not counted.
        look: See on a few tokens what its backward pass keeps. False: believe the formula.
    """
    config = lm.model.config.get_text_config()
    own = {name: each for name, each in lm.model.named_parameters() if ".lora_" not in name}
    hidden = lm.hidden_size if (width := getattr(config, "hidden_size", None)) is None else int(width)
    heads = _number(config, "num_attention_heads", 1)
    width = _number(config, "head_dim", max(1, hidden // heads))
    gated = any("gate_proj" in name or "gate_up_proj" in name for name in own)
    activation = str(getattr(config, "hidden_act", None) or getattr(config, "activation_function", None))
    found = ModelSize(
        parameters=sum(each.numel() for each in own.values()),
        hidden=hidden,
        layers=_number(config, "num_hidden_layers", 1),
        intermediate=_number(config, "intermediate_size", 0)
        or _number(config, "ffn_dim", 0)
        or _number(config, "n_inner", 4 * hidden),
        query=heads * width,
        key=_number(config, "num_key_value_heads", heads) * width,
        heads=heads,
        vocabulary=lm.vocabulary,
        weight_bytes=lm.head_weight.element_size(),
        copies=4 if gated else _COPIES.get(activation, 2),
        rms_norm=any("RMSNorm" in type(part).__name__ for part in lm.model.modules()),
        tied=lm.tied_head,
        eager=lm.attention == "eager",
    )
    return replace(found, correction=_correction(lm, found)) if look else found


def _number(config: Any, name: str, otherwise: int) -> int:
    value = getattr(config, name, None)
    return int(value) if isinstance(value, int) and value > 0 else otherwise


def _correction(lm: LanguageModel, size: ModelSize) -> float:
    """What the model keeps of each further token, over the formula's figure."""
    few, many = (min(length, lm.context or length) for length in (8, 24))
    if few == many:
        return 1.0
    kept = (_kept_bytes(lm, many) - _kept_bytes(lm, few)) / (many - few)
    kept -= 3 * size.weight_bytes * size.hidden  # the final norm
    kept -= 4 * size.heads * (many + few) * size.layers if size.eager else 0
    formula = replace(size, eager=False).kept(1) * size.weight_bytes / 4
    return max(0.1, kept / (formula * size.layers))


def _never(_: None) -> torch.Tensor:
    raise AssertionError("a graph that is only weighed is never gone back through")


def _kept_bytes(lm: LanguageModel, length: int) -> int:
    """Bytes that autograd keeps of one sequence, weights aside, if all of the model were trained."""
    weights = {each.untyped_storage().data_ptr() for each in lm.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> None:  # the graph keeps nothing: of its own outputs it would never let go
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.detach()

    ids = torch.zeros((1, length), dtype=torch.int64, device=lm.device)
    frozen = [each for each in lm.model.parameters() if not each.requires_grad]
    training = lm.model.training
    lm.model.train(not any(getattr(part, "gradient_checkpointing", False) for part in lm.model.modules()))
    try:
        for each in frozen:
            each.requires_grad_(True)
        with (
            quiet(),
            torch.random.fork_rng(),
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(keep, _never),
        ):
            _ = lm.trunk(input_ids=ids, use_cache=False).last_hidden_state
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    finally:
        for each in frozen:
            each.requires_grad_(False)
        lm.model.train(training)


# what there is -------------------------------------------------------------------------------------------------------


def available_bytes(device: str) -> int | None:
    """Bytes that this process can still take on a device; None where that cannot be known.

    On a CPU: what the system has left, or the control group where that is less. On a GPU: what is free, and what torch
    has reserved and does not use.
    """
    place = torch.device(device)
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        return free + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    if place.type != "cpu":
        return None
    return free_bytes()
