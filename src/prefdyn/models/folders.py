"""A model's folder, looked at before any library opens it: what is missing, broken or dangerous is named by file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from prefdyn._checks import nearest
from prefdyn.errors import ModelError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_JSON_BYTES = 64 << 20
"""Most bytes of a JSON file of settings."""
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_MOST_LAYERS = 10_000
_MERGED = (
    "LORA", "ADALORA", "BOFT", "FOURIERFT", "HRA", "IA3", "LOHA", "LOKR", "MISS", "OFT", "RANDLORA", "VBLORA", "VERA",
)  # fmt: skip
"""Kinds of adapters that can be merged into a model, and that load nothing but themselves."""


def refuse_unreadable(folder: Path, *, trust_remote_code: bool) -> None:
    """Refuse the folder of a whole model that cannot be read, or not without running what nobody asked for.

    Raises:
        ModelError: A file is missing, cannot be read, or names what must not be loaded.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    if "config.json" not in names:
        inner = next((name for name in names if (folder / name / "config.json").is_file()), None)
        hint = f"; did you mean {str(folder / inner)!r}?" if inner else "; give the folder of a Hugging Face model"
        raise ModelError(f"{folder} holds no config.json{hint}")
    refuse_config(folder / "config.json", trust_remote_code=trust_remote_code)
    if not any(name.endswith(".safetensors") for name in names):
        _refuse_no_weights(folder, names)
    _refuse_weights(folder)
    if not any(name in TOKENIZER_FILES for name in names):
        raise ModelError(
            f"{folder} holds no tokenizer ({', '.join(TOKENIZER_FILES[:3])}, …); copy it from the model's page"
        )
    refuse_settings(folder)


def refuse_settings(folder: Path) -> None:
    """Refuse a folder whose tokenizer or generation settings are no JSON objects.

    Raises:
        ModelError: One cannot be read; names it.
    """
    for name in ("generation_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            read_json(folder / name)
    path = folder / "tokenizer_config.json"
    if path.exists():
        template = read_json(path).get("chat_template")
        listed = isinstance(template, list) and all(
            isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("template"), str)
            for one in template
        )
        if not (template is None or isinstance(template, str) or listed):
            raise ModelError(
                f"{path}: chat_template is a {type(template).__name__}, not a text; copy it from the model's page"
            )


def adapter_base(folder: Path) -> str:
    """The model that an adapter names as its base.

    Raises:
        ModelError: The adapter is broken, of a kind that is not merged, or would load more than itself.
    """
    path = folder / ADAPTER
    config = read_json(path)
    named = config.get("base_model_name_or_path")
    if not named or not isinstance(named, str):
        raise ModelError(f"{path} names no base_model_name_or_path; write the base model's folder or hub id into it")
    kind = config.get("peft_type")
    if kind not in _MERGED:
        raise ModelError(
            f"{path}: adapters of the type {_shown(kind)} cannot be merged into a model; known: {', '.join(_MERGED)}"
        )
    if config.get("megatron_config"):
        raise ModelError(f"{path} asks for Megatron's own code (megatron_config); save the adapter without it")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{folder} holds no adapter_model.safetensors; save the adapter again as safetensors")
    _refuse_header(weights)
    refuse_settings(folder)
    return named


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: It is no readable JSON, or no object.
    """
    try:
        if not path.is_file():
            raise OSError("not a file")
        if path.stat().st_size > _JSON_BYTES:
            raise OSError(f"{path.stat().st_size} bytes are too many for settings")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} cannot be read as JSON ({said}); copy the folder again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}, not a JSON object; copy the folder again")
    return found


def refuse_config(path: Path, *, trust_remote_code: bool) -> None:
    """Refuse a config.json that cannot be followed, or not without running what nobody asked for.

    Raises:
        ModelError: It is no JSON object, or names what must not be loaded.
    """
    config = read_json(path)
    weights = config.get("transformers_weights")
    if weights is not None and (not isinstance(weights, str) or "/" in weights or "\\" in weights):
        raise ModelError(
            f"{path}: transformers_weights = {_shown(weights)} is no file beside it; copy the folder again"
        )
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        for key in _LAYERS:
            if isinstance(part.get(key), int) and part[key] > _MOST_LAYERS:
                shown = _shown(part[key])
                raise ModelError(f"{path}: {key} = {shown} is more than {_MOST_LAYERS} layers; copy the folder again")
        for key in ("attn_implementation", "_attn_implementation"):
            if "/" in str(part.get(key)) and not trust_remote_code:
                raise ModelError(
                    f"{path}: {key} = {_shown(part[key])} is code from the hub; read it, then add --trust-remote-code "
                    "to run it"
                )


def _refuse_no_weights(folder: Path, names: list[str]) -> None:
    pickled = next((name for name in names if name.endswith(_PICKLED)), None)
    if pickled is None:
        raise ModelError(f"{folder} holds no weights (*.safetensors); copy the whole folder")
    raise ModelError(
        f"{folder} holds {pickled} but no safetensors, and pickled weights can run code, so they are not read; "
        'if you trust them, convert once: python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )


def _refuse_weights(folder: Path) -> None:
    """Look at the header of each file of weights that will be read, and at the index that names them."""
    if (folder / "model.safetensors").is_file():
        _refuse_header(folder / "model.safetensors")
    elif (folder / INDEX).exists():
        path = folder / INDEX
        parts = read_json(path).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
            raise ModelError(f"{path} has no weight_map from tensors to files; copy the folder again")
        for name in sorted(set(parts.values())):
            if not name.endswith(".safetensors"):
                raise ModelError(
                    f"{path} names {_shown(name)}, which is no safetensors file: pickled weights can run code, so they "
                    "are not read; convert them"
                )
            if "/" in name or "\\" in name:
                raise ModelError(f"{path} names {_shown(name)}, which is not right beside it; copy the folder again")
            if not (folder / name).is_file():
                raise ModelError(f"{path} names {_shown(name)}, which is missing; copy the whole folder")
            _refuse_header(folder / name)


def _refuse_header(path: Path) -> None:
    try:
        with safe_open(path, framework="np"):
            pass
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} is not a whole safetensors file ({said}); copy it again") from error


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:59] + "…"


def neighbours(folder: Path) -> str:
    """Folders that stand where a missing one was looked for."""
    parent = folder.absolute().parent
    if not parent.is_dir():
        return f", nor does {parent}; check the path"
    found = [entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not found:
        return f"; {parent} holds no folders"
    return nearest(folder.name, found).replace("; known:", f"; {parent} holds:")
