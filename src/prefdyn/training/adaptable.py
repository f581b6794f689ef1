"""Which linear layers of a model an adapter cannot sit on, though they are linear layers by their class."""

import contextlib
import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_STATE_SPACE = "A_log"
"""What a block with a state space calls the decay of its states."""


def unadaptable(model: torch.nn.Module) -> dict[str, str]:
    """Linear layers that adapters are left off, by full name, each with the reason.

    Two kinds: layers of a class of their own that give something else than a linear layer does, as routers of experts
    give their choice; and layers of a state-space block whose weight its fused kernels take without calling the layer,
    so that an adapter would be passed by untold. Whether the kernels are installed makes no difference.
    """
    found: dict[str, str] = {}
    for owner_name, owner in model.named_modules():
        code = _code(type(owner)) if hasattr(owner, _STATE_SPACE) else ""
        for name, layer in owner.named_children():
            if not isinstance(layer, torch.nn.Linear):
                continue
            where = f"{owner_name}.{name}" if owner_name else name
            if type(layer).forward is not torch.nn.Linear.forward and not _is_linear(layer):
                found[where] = f"{type(layer).__name__} gives more than a linear layer does"
            elif re.search(rf"self\.{name}\.weight\b(?!\.(dtype|device))", code):
                found[where] = f"{type(owner).__name__} takes the weight without calling the layer"
    return found


def told_of_adapters(found: Mapping[str, str], targets: Sequence[str] | None = None) -> list[str]:
    """A sentence per reason: of what is left off, or of targets that were asked for by name all the same.

    Args:
        found: What `unadaptable` found.
        targets: Names that the user gave; None where every linear layer was to have an adapter.
    """
    reasons: dict[str, set[str]] = {}
    for where, why in found.items():
        name = where.rpartition(".")[2]
        if targets is None or name in targets or where in targets:
            reasons.setdefault(why, set()).add(name)
    what = "Adapters are left off" if targets is None else "Adapters may not count on"
    return [f"{what} {', '.join(sorted(names))}: {why}." for why, names in reasons.items()]


def _is_linear(layer: Any) -> bool:
    """Whether a layer does with an input what its weight and bias say."""
    given = torch.linspace(-1, 1, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device)[None]
    with torch.no_grad(), contextlib.suppress(Exception):
        made = layer(given)
        return isinstance(made, torch.Tensor) and torch.allclose(
            made, torch.nn.functional.linear(given, layer.weight, layer.bias), rtol=0.02, atol=1e-3
        )
    return False


@functools.cache
def _code(kind: type) -> str:
    """What a class does in its own methods, but for setting weights up; nothing where its source is not there."""
    texts = []
    for name, method in vars(kind).items():
        if not inspect.isfunction(method) or name.lstrip("_").startswith("init"):
            continue
        with contextlib.suppress(OSError, TypeError):
            texts.append(inspect.getsource(inspect.unwrap(method)))
    return "\n".join(texts)
