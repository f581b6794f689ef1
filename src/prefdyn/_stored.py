"""Whether the parts of a features folder can be features: shapes, kinds and values, before anything believes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

PROVENANCE = {
    "data": dict, "model": dict, "settings": {"left_out?": [dict], "warnings?": [str]}, "seed": (int, None),
    "versions": {"*": str},
}  # fmt: skip
"""The shape of a `Provenance` on disk, and below that of the FeatureSet's parts that are no arrays."""
FEATURES = {"kind": str, "groups": [str], "tokens": [str], "token_ids": [int], "provenance": PROVENANCE}
_ARRAYS = {
    "states": ("f", "n d"), "group": ("i", "n"), "held_out": ("b", "n"), "weight": ("f", "n"), "text": ("i", "n"),
    "cluster": ("i", "n"),
    "ref_chosen_logps": ("f", "n"), "ref_rejected_logps": ("f", "n"), "chosen_length": ("i", "n"),
    "rejected_length": ("i", "n"), "chosen": ("i", "n"), "rejected": ("i", "n"), "head": ("f", "k d"),
    "head_bias": ("f", "k"), "chosen_features": ("f", "n f"), "rejected_features": ("f", "n f"),
    "chosen_states": ("f", "n d"),
}  # fmt: skip
"""Kind of number and axes of each array of a FeatureSet; axes of one letter are as long everywhere."""
_ALWAYS = ("states", "group", "held_out", "weight", "text", "chosen_length", "rejected_length")
_NEEDED = {"answers": ("chosen", "rejected"), "responses": ("chosen_features", "rejected_features")}


def not_features(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray], ids: list[str]) -> str | None:
    """Why these are no features, in one line; None where they are."""
    if body["kind"] not in _NEEDED:
        return f"the kind is {body['kind']!r}, but must be answers or responses"
    needed = (*_ALWAYS, *_NEEDED[body["kind"]])
    others = _NEEDED["answers" if body["kind"] == "responses" else "responses"]
    sides = {"n": len(ids), "k": len(body["tokens"])}
    for name in (*needed, *arrays):
        if name not in arrays:
            return f"the array {name!r} is missing"
        if name not in _ARRAYS or name in others:
            return f"the array {name!r} is none of those that features of {body['kind']} have"
        numbers, axes = _ARRAYS[name]
        array, names = arrays[name], axes.split()
        whole = len(array.shape) == len(names)
        if array.dtype.kind != numbers or not whole or any(
            size != sides.setdefault(axis, size) for axis, size in zip(names, array.shape, strict=True)
        ):  # fmt: skip
            meant = ", ".join(f"{axis} = {sides[axis]}" for axis in names if axis in sides)
            return (
                f"the array {name!r} has the shape {array.shape} of {array.dtype}, but must have the axes ({axes}; "
                f"{meant}) of {_NUMBERS[numbers]}"
            )
    return _odd_values(body, arrays, ids)


_NUMBERS = {"f": "floating-point numbers", "i": "whole numbers", "b": "true or false"}


def _odd_values(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray], ids: list[str]) -> str | None:
    if not ids:
        return "there are no pairs"
    if len(set(ids)) < len(ids):
        return f"{len(ids)} pairs have {len(set(ids))} different ids"
    if len(set(body["groups"])) < len(body["groups"]):
        return f"{len(body['groups'])} groups have {len(set(body['groups']))} different names"
    if len(body["token_ids"]) not in {0, len(body["tokens"])}:
        return f"there are {len(body['token_ids'])} token_ids for {len(body['tokens'])} tokens"
    for name, codes in (
        ("group", len(body["groups"])),
        ("chosen", len(body["tokens"])),
        ("rejected", len(body["tokens"])),
    ):
        array = arrays.get(name)
        if array is not None and not ((array >= 0) & (array < codes)).all():
            return f"the array {name!r} names what there is not: its numbers must be from 0 to {codes - 1}"
    if body["kind"] == "answers" and (arrays["chosen"] == arrays["rejected"]).any():
        return "a pair has one answer as chosen and as rejected"
    for name in ("chosen_length", "rejected_length"):
        if (arrays[name] < 1).any():
            return f"the array {name!r} holds a number below 1"
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not _finite(array):
            return f"the array {name!r} holds NaN or infinity"
    if (arrays["weight"] <= 0).any():
        return "the array 'weight' holds a number that is not above 0"
    return None


def _finite(array: np.ndarray, rows: int = 1024) -> bool:
    return all(bool(np.isfinite(array[at : at + rows]).all()) for at in range(0, len(array), rows))
