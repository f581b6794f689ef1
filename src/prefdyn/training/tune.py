"""What of a model is trained: its head, adapters, or all of it; and how the result is saved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefdyn.errors import ConfigError, ModelError, StoreError
from prefdyn.models.load import LanguageModel, quiet
from prefdyn.training.settings import LoRA

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

    Returns:
        The model as peft sees it, for saving, and the adapters' parameters.

    Raises:
        ConfigError: A target names no module.
    """
    import peft

    targets: Any = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
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

    Args:
        lm: The trained model.
        folder: Where to; made if it is not there.
        wrapped: What `add_adapters` gave, for a folder of adapters.
        state: Weights gathered from several processes; without it, those of the model.

    Raises:
        StoreError: A file cannot be written.
    """
    try:
        with quiet():
            given = {} if state is None else {"state_dict": dict(state)}
            (lm.model if wrapped is None else wrapped).save_pretrained(folder, **given)
            lm.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise StoreError(
            f"the model cannot be written to {folder} ({error.strerror}); free space, or resume elsewhere"
        ) from error
    if wrapped is not None:
        _name_base(lm, folder / "adapter_config.json")


def _name_base(lm: LanguageModel, path: Path) -> None:
    """Write where the base model is in full: a place relative to this folder would be lost."""
    config = json.loads(path.read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if base and Path(base).is_dir():
        config["base_model_name_or_path"] = str(Path(base).resolve())
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
