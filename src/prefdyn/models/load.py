"""Any Hugging Face causal language model, by folder, hub id or LoRA adapter, checked before it is believed.

A model is taken apart into its trunk and its head, and at load a few random tokens show that the final hidden state,
normalised exactly once, times the head gives the model's own logits. Where a model puts a constant factor on its
logits, the factor is folded into the head; where it bends them (soft-capping), it is refused with the reason.
"""

import contextlib
import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float

from prefdyn._checks import nearest, one_of
from prefdyn._files import atomic_write
from prefdyn.errors import ConfigError, ModelError, StoreError
from prefdyn.provenance import content_hash
from prefdyn.store import cache_root, file_sha256

BUILTIN = Path(__file__).parent / "tiny"
"""The folder of the built-in model."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logit_softcapping")
"""Names under which configurations keep the cap of a bounded, and so not linear, head."""
_SMALL = 1 << 20
"""Bytes under which a file is hashed rather than remembered."""
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


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
    """sha256 of weights, configuration and tokenizer, or of hub id and commit."""
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
        trust_remote_code: Run Python code that the model's folder ships.

    Returns:
        A LanguageModel in evaluation mode, on its device.

    Raises:
        ModelError: The model cannot be read, is broken, is no causal language model, or has a head that is not linear.
        ConfigError: A setting is unknown.
    """
    place = _device(device)
    kind = _dtype(dtype, place)
    source = _Source.find(name, revision=revision)
    options: dict[str, Any] = {"dtype": kind, "use_safetensors": True}
    if attn != "sdpa":
        options["attn_implementation"] = attn
    with quiet(), torch.random.fork_rng(devices=[]):
        model, tokenizer, commit = source.load(options, trust_remote_code=trust_remote_code)
        model.to(place)
    model.eval().requires_grad_(False)
    _refuse_broken_weights(model, source.shown)
    fingerprint = source.fingerprint(commit)
    return _examined(
        model, tokenizer, name=source.shown, fingerprint=fingerprint, revision=commit if source.folder is None else None
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


# where a model is ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A place to load from: a folder, or a hub id and revision; with the base model below a LoRA adapter."""

    shown: str
    folder: Path | None
    hub_id: str | None
    revision: str | None
    base: "_Source | None" = None

    @classmethod
    def find(cls, name: str, *, revision: str | None) -> "_Source":
        if name == "builtin":
            if not (BUILTIN / "config.json").is_file():
                raise ModelError(f"the built-in model is not in {BUILTIN}; install prefdyn again")
            return cls(shown="builtin", folder=BUILTIN, hub_id=None, revision=None)
        folder = Path(name).expanduser()
        if folder.is_dir():
            source = cls(shown=folder.resolve().name, folder=folder, hub_id=None, revision=None)
            if (folder / "adapter_config.json").is_file():
                return replace(source, base=source._base())
            _refuse_incomplete(folder)
            return source
        if folder.is_file():
            raise ModelError(f"model {name!r} is a file; give the folder that holds config.json and the weights")
        if _looks_like_path(name):
            raise ModelError(f"model folder {name!r} does not exist{_neighbours(folder)}")
        if nearest(name, ["builtin"]).startswith("; did"):
            raise ModelError(f"model {name!r} is unknown; did you mean 'builtin'?")
        return cls(shown=name, folder=None, hub_id=name, revision=revision)

    def _base(self) -> "_Source":
        assert self.folder is not None
        path = self.folder / "adapter_config.json"
        try:
            named = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read as JSON ({error}); copy the adapter's folder again") from error
        if not named:
            raise ModelError(
                f"{path} names no base_model_name_or_path; write the base model's folder or hub id into it"
            )
        if not (self.folder / "adapter_model.safetensors").is_file():
            raise ModelError(f"{self.folder} holds no adapter_model.safetensors; save the adapter again as safetensors")
        beside = self.folder / named
        return _Source.find(str(beside) if beside.is_dir() else named, revision=None)

    def load(self, options: Mapping[str, Any], *, trust_remote_code: bool) -> tuple[Any, Any, str | None]:
        """Model, tokenizer and hub commit."""
        if self.base is not None:
            model, tokenizer, commit = self.base.load(options, trust_remote_code=trust_remote_code)
            return _with_adapter(model, self.folder), self._own_tokenizer() or tokenizer, commit
        target = str(self.folder) if self.folder is not None else str(self.hub_id)
        common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        if self.folder is not None:
            common["local_files_only"] = True
        elif self.revision is not None:
            common["revision"] = self.revision
        config = self._guarded(transformers.AutoConfig, target, common)
        if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and not trust_remote_code:
            shown = (getattr(config, "architectures", None) or [type(config).__name__])[0]
            raise ModelError(f"{self.shown} is a {shown}, not a causal language model; choose a model of the GPT kind")
        loaded = self._guarded(
            transformers.AutoModelForCausalLM, target, {**common, **options, "output_loading_info": True}
        )
        model, info = loaded
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ModelError(
                f"the checkpoint of {self.shown} lacks {len(missing)} tensors of a {type(model).__name__}, the first "
                f"is {missing[0]!r}; the weights do not belong to config.json, or are not complete"
            )
        tokenizer = self._guarded(transformers.AutoTokenizer, target, common, what="tokenizer")
        return model, tokenizer, getattr(model.config, "_commit_hash", None)

    def _own_tokenizer(self) -> Any:
        if self.folder is None or not any((self.folder / name).is_file() for name in _TOKENIZER_FILES):
            return None
        return self._guarded(transformers.AutoTokenizer, str(self.folder), {"local_files_only": True}, what="tokenizer")

    def _guarded(self, kind: Any, target: str, options: Mapping[str, Any], what: str = "model") -> Any:
        """`kind.from_pretrained`, with whatever it raises told in one line."""
        try:
            return kind.from_pretrained(target, **options)
        except Exception as error:
            raise ModelError(self._told(error, what)) from error

    def _told(self, error: Exception, what: str) -> str:
        said = " ".join(str(error).split())
        short = said if len(said) <= 240 else said[:239] + "…"
        if "trust_remote_code" in said:
            return f"{self.shown} ships Python code of its own; read it, then add --trust-remote-code to run it"
        if isinstance(error, ImportError):
            return f"{self.shown} needs a library that is not installed: {short}"
        if isinstance(error, torch.OutOfMemoryError):
            return f"{self.shown} does not fit into memory ({short}); use --dtype bfloat16 or a smaller model"
        if self.folder is None:
            return self._told_of_hub(said, short, what)
        if "attn_implementation" in said or ("attention" in said and "implementation" in said):
            return f"{self.shown} cannot use the attention asked for ({short}); use --attn eager"
        return f"the {what} in {self.folder} cannot be read ({type(error).__name__}: {short}); copy the folder again"

    def _told_of_hub(self, said: str, short: str, what: str) -> str:
        low = said.lower()
        if "gated" in low or ("401" in low and "invalid" not in low):
            return (
                f"hub model {self.hub_id!r} is gated or private; run `hf auth login` with an account that may read it"
            )
        if "revision" in low and ("not a valid" in low or "not found" in low):
            return f"hub model {self.hub_id!r} has no revision {self.revision!r}; see its Files page for what it has"
        if "safetensors" in low:
            return f"hub model {self.hub_id!r} has no safetensors weights; convert it, or choose a model that has them"
        if "offline" in low or "connect" in low or "cached files" in low or "resolve" in low or "retries" in low:
            return (
                f"hub model {self.hub_id!r} is not in the local hub cache and the hub cannot be reached; "
                "give a local folder, or go online once"
            )
        return f"the {what} of hub model {self.hub_id!r} cannot be read ({short}); check the id, or give a local folder"

    def fingerprint(self, commit: str | None) -> str:
        """sha256 of what the numbers depend on."""
        if self.base is not None:
            assert self.folder is not None
            return content_hash([self.base.fingerprint(commit), _folder_sha256(self.folder)])
        if self.folder is not None:
            return _folder_sha256(self.folder)
        return content_hash([str(self.hub_id), commit or str(self.revision)])


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or name.endswith("/")
        or "\\" in name
        or ("/" in name and Path(name).parent.is_dir())
    )


def _neighbours(folder: Path) -> str:
    """Folders that stand where a missing one was looked for."""
    parent = folder.absolute().parent
    if not parent.is_dir():
        return f", nor does {parent}; check the path"
    found = [entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not found:
        return f"; {parent} holds no folders"
    return nearest(folder.name, found).replace("; known:", f"; {parent} holds:")


def _refuse_incomplete(folder: Path) -> None:
    names = sorted(entry.name for entry in folder.iterdir())
    if "config.json" not in names:
        inner = next((name for name in names if (folder / name / "config.json").is_file()), None)
        hint = f"; did you mean {str(folder / inner)!r}?" if inner else "; give the folder of a Hugging Face model"
        raise ModelError(f"{folder} holds no config.json{hint}")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = next((name for name in names if name.endswith((".bin", ".pt", ".pth"))), None)
        if pickled is None:
            raise ModelError(f"{folder} holds no weights (*.safetensors); copy the whole folder")
        raise ModelError(
            f"{folder} holds {pickled} but no safetensors, and pickled weights can run code, so they are not read; "
            'if you trust them, convert once: python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    if not any(name in _TOKENIZER_FILES for name in names):
        raise ModelError(
            f"{folder} holds no tokenizer ({', '.join(_TOKENIZER_FILES[:3])}, …); copy it from the model's page"
        )


def _with_adapter(model: Any, folder: Path | None) -> Any:
    import peft

    try:
        return peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True).merge_and_unload()
    except Exception as error:
        said = " ".join(str(error).split())[:240]
        raise ModelError(f"the adapter in {folder} cannot be put on its base model ({said})") from error


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
    for key in _SOFT_CAPS:
        if cap := getattr(model.config.get_text_config(), key, None):
            raise ModelError(
                f"{name} bounds its logits ({key} = {cap} in config.json), so its head is not linear and the formulas "
                "do not hold; choose a model without soft-capping"
            )
    trunk = _trunk(model)
    tied = model.get_input_embeddings().weight is head.weight
    with quiet():
        scale, norm = _self_check(model, trunk, head, name)
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
        final_norm=norm,
    )


def _trunk(model: Any) -> Any:
    trunk = model.base_model
    return model.get_decoder() if trunk is model else trunk


def _self_check(model: Any, trunk: Any, head: Any, name: str) -> tuple[float, Any]:
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

    loose = 1e-4 if states.dtype == torch.float32 else 0.05
    drift = float((states[0, :-1] - states[1, :-1]).abs().max()) if length > 1 else 0.0
    if drift > loose * float(states.abs().max()):
        raise ModelError(
            f"{name} ({type(model).__name__}) is not causal: changing the last token changed earlier states by "
            f"{drift:.2g}; choose a model of the GPT kind"
        )
    ours = states.double() @ head.weight.double().T
    if getattr(head, "bias", None) is not None:
        ours = ours + head.bias.double()
    if ours.shape[-1] > logits.shape[-1]:
        ours = ours[..., : logits.shape[-1]]
    size = float(ours.abs().max())
    scale = float((ours * logits).sum() / (ours * ours).sum().clamp_min(1e-300))
    scale = _known_scale(config, scale, loose)
    off = float((logits - scale * ours).abs().max())
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
    except RuntimeError:
        raise ConfigError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    return place


def _dtype(dtype: str, place: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if place.type == "cpu" else torch.bfloat16
    return _DTYPES[one_of(dtype, [*_DTYPES, "auto"], name="dtype")]


# fingerprints --------------------------------------------------------------------------------------------------------


def _folder_sha256(folder: Path) -> str:
    """sha256 over the weights, configuration and tokenizer files of a folder, by content."""
    kept = sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in (".safetensors", ".json", ".model")
    )
    skipped = ("generation_config.json", "README.json", "trainer_state.json")
    memory = _Memory.open()
    parts: list[str] = []
    for path in kept:
        if path.name not in skipped:
            parts += [path.name, memory.sha256(path)]
    memory.close()
    return content_hash(parts)


class _Memory:
    """What files hashed to before, by path, size and time of change. A hint: losing it costs time only."""

    def __init__(self, path: Path | None, known: dict[str, str]) -> None:
        self.path, self.known, self.changed = path, known, False

    @classmethod
    def open(cls) -> "_Memory":
        try:
            path = cache_root() / "fingerprints.json"
        except StoreError:
            return cls(None, {})
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, known if isinstance(known, dict) else {})
        except (OSError, ValueError):
            return cls(path, {})

    def sha256(self, path: Path) -> str:
        state = path.stat()
        if state.st_size < _SMALL:
            return file_sha256(path)
        key = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"
        if key not in self.known:
            self.known[key], self.changed = file_sha256(path), True
        return self.known[key]

    def close(self) -> None:
        if self.changed and self.path is not None:
            with contextlib.suppress(StoreError):
                atomic_write(self.path, json.dumps(self.known, indent=1).encode())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers without log lines, progress bars or warnings, for as long as the block lasts."""
    talk = transformers.utils.logging
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(50)
    talk.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()
