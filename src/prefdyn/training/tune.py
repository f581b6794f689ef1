"""What of a model is trained: its head, adapters, or all of it; and how the result is saved."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from prefdyn._cache import beside
from prefdyn._files import shown_bytes
from prefdyn.errors import ConfigError, ModelError, StoreError
from prefdyn.models.load import LanguageModel, quiet
from prefdyn.training.adaptable import unadaptable
from prefdyn.training.checkpoints import sync
from prefdyn.training.settings import ALL_LINEAR, LoRA

Parameters = dict[str, torch.nn.Parameter]
"""Trained parameters by the name that their module gives them, each once."""


def unfreeze(lm: LanguageModel) -> Parameters:
    """Train everything. Tied weights are one parameter.

    Raises:
        ModelError: The weights are held in half precision, which small steps would not change.
    """
    _refuse_half(lm, "every weight")
    lm.model.requires_grad_(True)
    _without_dropout(lm.model)
    return {name: each for name, each in lm.model.named_parameters() if each.requires_grad}


def add_adapters(lm: LanguageModel, lora: LoRA, *, seed: int) -> tuple[Any, Parameters]:
    """Put adapters into the model, in place; its own weights stay as they are, and so do its outputs.

    Where every linear layer is to have one, those on which none can sit are left out (see `unadaptable`).

    Returns:
        The model as peft sees it, for saving, and the adapters' parameters.

    Raises:
        ConfigError: A target names no module.
    """
    import peft

    everything = lora.targets == ALL_LINEAR
    targets: Any = lora.targets[0] if everything else list(lora.targets)
    left_off = sorted(unadaptable(lm.model)) if everything else []
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=left_off or None,
        task_type="CAUSAL_LM",
    )
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wrapped = peft.get_peft_model(lm.model, config)
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        names = sorted({name.rsplit(".", 1)[-1] for name, part in lm.model.named_modules() if hasattr(part, "weight")})
        raise ConfigError(
            f"lora targets {list(lora.targets)} do not fit {lm.name} ({said}); its modules: {', '.join(names[:12])}"
        ) from error
    _without_dropout(lm.model, keep="lora_dropout")
    parameters = {name: each for name, each in lm.model.named_parameters() if each.requires_grad}
    for (
        each
    ) in parameters.values():  # adapters of a half-precision model are trained in float32, as peft does by itself
        if each.dtype in (torch.float16, torch.bfloat16):
            each.data = each.data.float()
    return wrapped, parameters


def checkpoint_activations(lm: LanguageModel) -> None:
    """Keep the input of each layer alone, and compute the rest of it again in the backward pass.

    Raises:
        ModelError: The architecture cannot.
    """
    model, options = lm.model, {"use_reentrant": False}
    try:
        if hasattr(model, "activation_checkpointing_enable"):  # the newer name
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    except ValueError as error:
        raise ModelError(
            f"{lm.name} cannot compute its layers again ({error}); leave --gradient-checkpointing out"
        ) from error


def _refuse_half(lm: LanguageModel, what: str) -> None:
    if lm.dtype != "float32":
        raise ModelError(
            f"{lm.name} is held in {lm.dtype}, in which a small step changes nothing, and {what} would be trained; use "
            "dtype float32 (with --precision bfloat16 the forward pass is still bfloat16)"
        )


def _without_dropout(model: torch.nn.Module, keep: str = "") -> None:
    """Dropout of the model's own is off, as in TRL: it would drown the margins of the first steps."""
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Dropout) and not (keep and keep in name):
            part.p = 0.0
    for part in model.modules():
        for name in ("attention_dropout", "attn_dropout", "resid_dropout", "dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


# saving --------------------------------------------------------------------------------------------------------------


def save_model(
    lm: LanguageModel, folder: Path, *, wrapped: Any = None, state: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the model, or the adapters alone, as `from_pretrained` reads them, with the tokenizer.

    The folder appears under its name when all of it is written, or never.

    Args:
        lm: The trained model.
        folder: Where to. A model that stands there is replaced, if it is of the same files.
        wrapped: What `add_adapters` gave, for a folder of adapters.
        state: Weights gathered from several processes; without it, those of the model.

    Raises:
        StoreError: A file cannot be written, or the folder holds others.
    """
    target = lm.model if wrapped is None else wrapped
    try:
        partial = beside(folder, "partial")
        partial.mkdir(parents=True)
        try:
            with quiet():
                options: dict[str, Any] = {} if state is None else {"state_dict": dict(state)}
                if wrapped is not None:  # or peft asks the hub for the vocabulary of the base, and waits
                    options["save_embedding_layers"] = False
                target.save_pretrained(partial, **options)
                lm.tokenizer.save_pretrained(partial)
            if wrapped is not None:
                _settle_config(partial / "adapter_config.json")
            for path in partial.iterdir():
                sync(path)
            _put_in_place(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except Exception as error:
        said = _of_the_disk(error)
        if said is None:
            raise
        trained = (each for each in target.parameters() if wrapped is None or each.requires_grad)
        size = sum(each.numel() * each.element_size() for each in trained)
        room = next(place for place in folder.absolute().parents if place.exists())
        raise StoreError(
            f"the model cannot be written to {folder} ({said}): it takes {shown_bytes(size)} or more, and "
            f"{shown_bytes(shutil.disk_usage(room).free)} are free"
        ) from error


def _of_the_disk(error: Exception) -> str | None:
    """What a library says of a file that cannot be written, in a line; None where that is not what happened."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = " ".join(str(error).split())
    # safetensors and tokenizers hand on what Rust says
    return said if isinstance(error, OSError | safetensors.SafetensorError) or "(os error " in said else None


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename a whole model to its place; what stood there goes afterwards."""
    if not folder.is_dir():
        os.rename(partial, folder)
        return
    others = sorted({path.name for path in folder.iterdir()} - {path.name for path in partial.iterdir()})
    if others:
        raise StoreError(f"{folder} holds {others[0]!r}, which is no file of this model; move it away")
    old = beside(folder, "old")
    os.rename(folder, old)
    os.rename(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def _settle_config(path: Path) -> None:
    """Where the base model is, in full: a place relative to this folder would be lost; and sets in one order."""
    config = json.loads(path.read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if base and Path(base).is_dir():
        config["base_model_name_or_path"] = str(Path(base).resolve())
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def put_head(lm: LanguageModel, token_ids: np.ndarray, rows: torch.Tensor) -> None:
    """Give the model's head new rows for some tokens. A tied head becomes a copy of its own first.

    Args:
        lm: The model, changed in place.
        token_ids: (k,) vocabulary ids.
        rows: (k, d) rows as the model holds them, without `head_scale`.
    """
    head = lm.model.get_output_embeddings()
    if lm.tied_head:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        for config in {id(each): each for each in (lm.model.config, lm.model.config.get_text_config())}.values():
            config.tie_word_embeddings = False
    with torch.no_grad():
        index = torch.from_numpy(np.asarray(token_ids, dtype=np.int64)).to(head.weight.device)
        head.weight[index] = rows.detach().to(head.weight)
