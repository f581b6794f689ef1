"""Adapters folded into their base, and the proof that the model is still the one that the adapter makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from prefdyn.errors import ModelError

_LOOSE = {"float32": 1e-4, "float64": 1e-6, "bfloat16": 0.05, "float16": 0.01}
"""Difference of logits, of the largest logit, up to which a merged adapter is the unmerged one, by dtype."""
_PROMPTS, _LENGTH = 3, 8


def merged(load_base: Callable[[], Any], folder: Path) -> Any:
    """The base with an adapter folded into its weights, or beside them where folding changes what the model says.

    A base whose vocabulary was resized for the adapter is resized alike. Where the adapter touches a head that is tied
    to the embeddings, the two are untied, since folding into one would move the other.

    Args:
        load_base: Gives the base anew.
        folder: The adapter's.

    Raises:
        ModelError: The adapter holds no weights for tokens that it adds.
        Exception: Whatever peft raises.
    """
    model = _put_on(load_base(), folder)
    ids = _random_ids(model)
    before = _logits(model, ids)
    found = model.merge_and_unload()
    after = _logits(found, ids)
    loose = _LOOSE[str(next(found.parameters()).dtype).removeprefix("torch.")]
    if bool((after - before).abs().max() <= loose * before.abs().max().clamp_min(1e-6)):
        return found
    return _put_on(load_base(), folder).get_base_model()


def _put_on(base: Any, folder: Path) -> Any:
    import peft

    _resize(base, folder)
    adapted = peft.PeftModel.from_pretrained(base, str(folder), local_files_only=True).eval()
    _untie(adapted.get_base_model())
    return adapted


def _resize(base: Any, folder: Path) -> None:
    """Give the base the rows of the embeddings and head that the adapter was saved with."""
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        return
    ends = [
        name.rpartition(".")[2]
        for name, module in base.named_modules()
        if module is base.get_input_embeddings() or module is base.get_output_embeddings()
    ]
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    whole = {
        shape[0]
        for name, shape in shapes.items()
        if name.endswith(".weight") and ".lora_" not in name and len(shape) == 2 and {*name.split(".")} & {*ends}
    }
    own = base.get_input_embeddings().weight.shape[0]
    if len(whole) > 1:
        raise ModelError(
            f"the adapter in {folder} holds embeddings and head of {sorted(whole)} tokens, which belong to no one "
            "vocabulary; save it again"
        )
    if whole and whole != {own}:
        base.resize_token_embeddings(whole.pop(), mean_resizing=False)


def _untie(model: Any) -> None:
    """Part head and embeddings that are one tensor, if an adapter sits on either."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    inner = [getattr(module, "base_layer", module) for module in (head, embeddings)]
    if inner[0] is head and inner[1] is embeddings:
        return
    if getattr(inner[0], "weight", None) is getattr(inner[1], "weight", None):
        inner[0].weight = torch.nn.Parameter(inner[0].weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _random_ids(model: Any) -> torch.Tensor:
    rows = model.get_input_embeddings().weight.shape[0]
    draw = np.random.default_rng(0).integers(0, rows, size=(_PROMPTS, _LENGTH))
    return torch.from_numpy(draw).to(next(model.parameters()).device)


@torch.inference_mode()
def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model.eval()(input_ids=ids, use_cache=False).logits.double()
