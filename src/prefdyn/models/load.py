"""Any Hugging Face causal language model, by folder, hub id or LoRA adapter, checked before it is believed.

A model is taken apart into its trunk and its head, and at load a few random tokens show that the final hidden state,
normalised exactly once, times the head gives the model's own logits. Where a model puts a constant factor on its
logits, the factor is folded into the head; where it bends them (soft-capping), log-probabilities are bent alike, and
what rests on a linear head is refused with the reason.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prefdyn._checks import one_of
from prefdyn.errors import ConfigError, ModelError
from prefdyn.models.source import BUILTIN, ModelSource, quiet
from prefdyn.provenance import content_hash
from prefdyn.settings import DTYPES

__all__ = ["BUILTIN", "LanguageModel", "load_model", "quiet", "untrained_twin"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logit_softcapping")
"""Names under which configurations keep the cap of a bounded, and so not linear, head."""
_VOCABULARY_CHUNK = 16384
"""Rows of the head that are looked at together."""
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageModel:
    """A causal language model that has passed the checks, with its tokenizer."""

    model: Any
    """The transformers model, in evaluation mode."""
    trunk: Any
    """The part of `model` up to and including the final norm."""
    tokenizer: Any
    name: str
    """The folder's name or the hub id."""
    fingerprint: str
    """sha256 of weights, configuration, tokenizer and the code that ran."""
    revision: str | None
    """Commit of a hub model."""
    hidden_size: int
    """Width of the final state, the input of the head."""
    vocabulary: int
    """Rows of the head."""
    context: int | None
    """Longest sequence that the model takes, tokens; None where it states no limit."""
    dtype: str
    device: str
    attention: str
    tied_head: bool
    """Whether the head is the input embedding."""
    head_scale: float
    """Constant factor between head and logits, folded into `head_rows`; 1 for most models."""
    head_cap: float | None
    """Bound of the logits, `cap · tanh(logit / cap)`; None for most models."""
    cap_name: str
    """Name of the bound in the configuration; empty without one."""
    final_norm: Any
    """The final norm where it is an RMSNorm, else None; what `double_norm` applies again."""
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        return f"LanguageModel({self.name}, width {self.hidden_size}, {self.dtype} on {self.device})"

    @property
    def head_weight(self) -> torch.Tensor:
        """The head as the model holds it, (vocabulary, hidden_size), without `head_scale`."""
        return self.model.get_output_embeddings().weight

    @property
    def head_bias(self) -> torch.Tensor | None:
        """The head's bias (vocabulary,), without `head_scale`; None for most models."""
        return getattr(self.model.get_output_embeddings(), "bias", None)

    def require_linear_head(self, what: str) -> None:
        """Refuse what is true of a linear head only.

        Args:
            what: That which needs it.

        Raises:
            ModelError: The model bounds its logits.
        """
        if self.head_cap is not None:
            raise ModelError(
                f"{self.name} bounds its logits ({self.cap_name} = {self.head_cap} in config.json), so its head is not "
                f"linear and the formulas of {what} do not hold; `prefdyn score` and `train --tune lora` or `full` work"
            )

    def head_rows(self, token_ids: list[int]) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"] | None]:
        """Rows and biases of the head for some tokens, scaled so that state · row + bias is the model's logit."""
        index = torch.tensor(token_ids, device=self.head_weight.device)
        rows = self.head_weight.detach()[index].float().cpu().numpy() * np.float32(self.head_scale)
        if self.head_bias is None:
            return rows, None
        return rows, self.head_bias.detach()[index].float().cpu().numpy() * np.float32(self.head_scale)

    def describe(self) -> dict[str, Any]:
        """The `model` part of summary.json."""
        config = self.model.config
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "hidden_size": self.hidden_size,
            "vocabulary": self.vocabulary,
            "layers": getattr(config, "num_hidden_layers", None),
            "parameters": sum(part.numel() for part in self.model.parameters()),
            "dtype": self.dtype,
            "device": self.device,
            "attention": self.attention,
            "tied_head": self.tied_head,
            "revision": self.revision,
            "sha256": self.fingerprint,
        }


def load_model(
    name: str = "builtin",
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attn: str = "sdpa",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a model and check that its head is what the theory is about.

    Args:
        name: "builtin", a local folder, a LoRA adapter's folder, or a hub id.
        revision: Branch, tag or commit of a hub model.
        dtype: "float32", "bfloat16", "float16", or "auto": float32 on a CPU, bfloat16 on a GPU.
        device: "cpu", "cuda", "cuda:N", or "auto": the GPU if there is one.
        attn: Attention of the forward pass. With "sdpa", models that have none of it fall back to "eager".
        trust_remote_code: Run Python code that the model's folder ships. Nothing is run, nor asked, otherwise.

    Returns:
        A LanguageModel in evaluation mode, on its device.

    Raises:
        ModelError: The model cannot be read, is broken, is no causal language model, or has a head that is not linear.
        ConfigError: A setting is unknown.
    """
    place = _device(device)
    kind = _dtype(dtype, place)
    options: dict[str, Any] = {"dtype": kind, "use_safetensors": True}
    if attn != "sdpa":
        options["attn_implementation"] = _attention(attn, trust_remote_code=trust_remote_code)
    source = ModelSource.find(str(name), revision=revision, trust_remote_code=trust_remote_code)
    with quiet(), torch.random.fork_rng(devices=[]):
        loaded = source.load(options, place)
    with source.told("model"):
        loaded.model.eval().requires_grad_(False)
        _refuse_broken_weights(loaded.model, source.shown)
        return _examined(
            loaded.model,
            loaded.tokenizer,
            name=source.shown,
            fingerprint=loaded.fingerprint,
            revision=loaded.commit if source.folder is None else None,
        )


def untrained_twin(lm: LanguageModel, seed: int = 0) -> LanguageModel:
    """The same architecture and tokenizer with fresh random weights: what can be had from the words alone.

    Args:
        lm: The model whose twin is wanted.
        seed: Of the initialisation. The global random state is left as it was.
    """
    config = type(lm.model.config).from_dict(lm.model.config.to_dict())
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=lm.attention
        )
    model = model.to(device=lm.device, dtype=_DTYPES[lm.dtype]).eval().requires_grad_(False)
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return _examined(
        model,
        lm.tokenizer,
        name=f"{lm.name} (untrained, seed {seed})",
        fingerprint=content_hash([digest.hexdigest(), lm.fingerprint]),
        revision=None,
    )


# checks --------------------------------------------------------------------------------------------------------------


def _refuse_broken_weights(model: Any, shown: str) -> None:
    for name, tensor in model.named_parameters():
        if tensor.numel() and not all(map(math.isfinite, (float(end) for end in torch.aminmax(tensor)))):
            bad = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"tensor {name!r} of {shown} has {bad} values that are NaN or infinite (of {tensor.numel()}); "
                "the checkpoint is broken, or overflows in this --dtype: try float32, or another checkpoint"
            )


def _examined(model: Any, tokenizer: Any, *, name: str, fingerprint: str, revision: str | None) -> LanguageModel:
    """Take a model apart into trunk and head, and show on random tokens that the parts are what they seem."""
    head = model.get_output_embeddings()
    if head is None or not isinstance(getattr(head, "weight", None), torch.Tensor):
        raise ModelError(f"{name} ({type(model).__name__}) has no output head; choose a causal language model")
    caps = {key: cap for key in _SOFT_CAPS if (cap := getattr(model.config.get_text_config(), key, None))}
    cap_name, cap = next(iter(caps.items()), ("", None))
    trunk = _trunk(model)
    tied = model.get_input_embeddings().weight is head.weight
    with quiet():
        scale, norm = _self_check(model, trunk, head, name, cap)
    return LanguageModel(
        model=model,
        trunk=trunk,
        tokenizer=tokenizer,
        name=name,
        fingerprint=fingerprint,
        revision=revision,
        hidden_size=head.weight.shape[1],
        vocabulary=head.weight.shape[0],
        context=_context(model.config, tokenizer),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        device=str(next(model.parameters()).device),
        attention=str(model.config._attn_implementation),
        tied_head=tied,
        head_scale=scale,
        head_cap=None if cap is None else float(cap),
        cap_name=cap_name,
        final_norm=norm,
    )


def _trunk(model: Any) -> Any:
    """What stands under the head: by the name that the model gives, else the part that holds the embeddings."""
    for part in (model.base_model, model.get_decoder()):
        if part is not None and part is not model:
            return part
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    for part in model.children():
        if part is not head and any(module is inputs for module in part.modules()):
            return part
    return model


def _self_check(model: Any, trunk: Any, head: Any, name: str, cap: float | None) -> tuple[float, Any]:
    """The factor on the logits, and the final RMSNorm if there is one.

    Raises:
        ModelError: The trunk's last state times the head is not the model's logits up to a constant factor, or a later
            token changes an earlier state.
    """
    config = model.config.get_text_config()
    rows = min(head.weight.shape[0], model.get_input_embeddings().weight.shape[0])
    length = min(8, _context(model.config, None) or 8)
    draw = np.random.default_rng(0).integers(0, rows, size=(2, length))
    draw[1, :-1] = draw[0, :-1]
    draw[1, -1] = (draw[0, -1] + 1 + draw[1, -1] % max(1, rows - 1)) % rows
    ids = torch.from_numpy(draw).to(head.weight.device)
    kept: list[tuple[Any, torch.Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, out: kept.append((module, out)))
        for module in trunk.modules()
        if "RMSNorm" in type(module).__name__
    ]
    try:
        with torch.inference_mode():
            states = trunk(input_ids=ids, use_cache=False).last_hidden_state
            logits = model(input_ids=ids, use_cache=False).logits.double()
    except Exception as error:
        raise ModelError(f"{name} fails on {length} random tokens ({' '.join(str(error).split())[:240]})") from error
    finally:
        for hook in hooks:
            hook.remove()
    norm = next((module for module, out in kept if isinstance(out, torch.Tensor) and torch.equal(out, states)), None)

    full = {states.dtype, head.weight.dtype} <= {torch.float32, torch.float64}
    loose = 1e-4 if full else 0.05  # states may stay in float32 where the head is in bfloat16
    drift = float((states[0, :-1] - states[1, :-1]).abs().max()) if length > 1 else 0.0
    if drift > loose * float(states.abs().max()):
        raise ModelError(
            f"{name} ({type(model).__name__}) is not causal: changing the last token changed earlier states by "
            f"{drift:.2g}; choose a model of the GPT kind"
        )
    given = states.double()  # the head part by part, since in float64 a large one would not fit twice
    ours = torch.cat([given @ part.double().T for part in head.weight.split(_VOCABULARY_CHUNK)], dim=-1)
    if getattr(head, "bias", None) is not None:
        ours = ours + head.bias.double()
    if ours.shape[-1] > logits.shape[-1]:
        ours = ours[..., : logits.shape[-1]]
    size = float(ours.abs().max())
    straight, far = logits, torch.ones_like(logits)
    if cap is not None:  # where the bound is near, logits say little of what they were
        straight = cap * torch.atanh((logits / cap).clamp(-0.9, 0.9))
        far = (logits.abs() < 0.9 * cap).double()
    scale = float((far * ours * straight).sum() / (far * ours * ours).sum().clamp_min(1e-300))
    scale = _known_scale(config, scale, loose)
    ours = scale * ours if cap is None else cap * torch.tanh(scale * ours / cap)
    off = float((logits - ours).abs().max())
    if not math.isfinite(off) or scale <= 0 or off > loose * max(abs(scale) * size, 1e-6):
        raise ModelError(
            f"{name} ({type(model).__name__}): the final hidden state times the head is not the model's logits "
            f"(largest difference {off:.2g} at logits of size {float(logits.abs().max()):.2g}), so its head is not "
            "linear; choose another model"
        )
    return scale, norm


def _known_scale(config: Any, fitted: float, loose: float) -> float:
    """The exact factor: 1, or the configuration's own figure where it explains the fitted one."""
    known = [1.0]
    for key in ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier", "output_multiplier_scale"):
        value = getattr(config, key, None)
        if isinstance(value, int | float) and value > 0:
            known += [float(value), 1.0 / float(value)]
    best = min(known, key=lambda value: abs(value - fitted))
    return best if abs(best - fitted) <= max(loose, 1e-6) * abs(best) else fitted


def _context(config: Any, tokenizer: Any) -> int | None:
    text = config.get_text_config()
    for key in _CONTEXTS:
        value = getattr(text, key, None)
        if isinstance(value, int) and 0 < value < 10**9:
            return value
    stated = getattr(tokenizer, "model_max_length", None)
    return int(stated) if stated is not None and stated < 10**9 else None


# settings ------------------------------------------------------------------------------------------------------------


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        if place.type == "meta":
            raise RuntimeError
    except (RuntimeError, TypeError):
        raise ConfigError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if place.type == "cpu":
        return torch.device("cpu")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    try:
        torch.empty(1, device=place)
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise ModelError(f"device {device!r} cannot be used here ({said}); use --device cpu") from error
    return place


def _dtype(dtype: str, place: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if place.type == "cpu" else torch.bfloat16
    return _DTYPES[one_of(dtype, DTYPES, name="dtype")]


def _attention(attn: str, *, trust_remote_code: bool) -> str:
    if "/" in attn:
        if not trust_remote_code:
            raise ConfigError(f"attn {attn!r} is code from the hub; read it, then add --trust-remote-code to run it")
        return attn
    known = [name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in name]
    return one_of(attn, ["eager", *known], name="attn")
