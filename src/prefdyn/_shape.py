"""What a value is, in the words of JSON, and whether one that comes back from disk has the shape that it should."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SHOWN = 60

Shape = Any
"""A type (`float` also takes whole numbers, `int` and `float` take no true or false), `None`, `object` for anything; a
tuple of shapes, of which one must fit; `[shape]` for a list of such; or a dictionary from key to shape, where `"key?"`
may be missing, `"*"` stands for every other key, and keys without a shape may hold anything."""


def shown(value: object) -> str:
    """A value on one line, cut to a readable length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists without end
        return f"{kind(value)} too long to show"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names of fields or columns, each as `shown`, of many the first.

    Example:
        >>> listed(["a", "b"]), listed([])
        ("'a', 'b'", '(none)')
    """
    every = list(names)
    return (", ".join(map(shown, every[:most])) + (", …" if len(every) > most else "")) or "(none)"


def of_many(names: Sequence[str], most: int) -> str:
    """Names in a sentence, of many the first and how many more there are.

    Example:
        >>> of_many(["a", "b"], 3), of_many(["a", "b", "c"], 2)
        ('a, b', 'a, b and 1 more')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def kind(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None or (isinstance(value, float) and value != value):
        return "null"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


_KINDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def misfit(held: Any, shape: Shape, at: str = "") -> str | None:
    """Where a value does not have a shape, and what stands there instead; None where it fits.

    Example:
        >>> misfit({"groups": [{"name": "a"}, {"name": 5}]}, {"groups": [{"name": str, "pairs?": int}]})
        'groups[1].name is a number (5), but must be text'
        >>> misfit({}, {"seed": (int, None)})
        'seed is missing'
    """
    if isinstance(shape, tuple):
        if any(misfit(held, each, at) is None for each in shape):
            return None
        same = [each for each in shape if type(each) is type(held)]
        return misfit(held, same[0], at) if len(same) == 1 else _wrong(held, shape, at)
    if isinstance(shape, list):
        if not isinstance(held, list):
            return _wrong(held, shape, at)
        places = ((item, f"{at}[{place}]") for place, item in enumerate(held))
        return next((found for item, place in places if (found := misfit(item, shape[0], place))), None)
    if isinstance(shape, dict):
        return _misfit_object(held, shape, at) if isinstance(held, Mapping) else _wrong(held, shape, at)
    fits = held is None if shape is None else isinstance(held, _TAKES.get(shape, shape))
    if isinstance(held, bool) and shape in {int, float}:
        fits = False
    return None if fits else _wrong(held, shape, at)


def _misfit_object(held: Mapping[str, Any], shape: Mapping[str, Shape], at: str) -> str | None:
    before = f"{at}." if at else ""
    named = {name.removesuffix("?") for name in shape}
    for name, inner in shape.items():
        key = name.removesuffix("?")
        if name == "*":
            rest = [(f"{before}{other}", value) for other, value in held.items() if other not in named]
            found = next((found for place, value in rest if (found := misfit(value, inner, place))), None)
        elif key in held:
            found = misfit(held[key], inner, f"{before}{key}")
        else:
            found = None if name.endswith("?") else f"{before}{key} is missing"
        if found:
            return found
    return None


def _wrong(held: Any, shape: Shape, at: str) -> str:
    value = "" if held is None or isinstance(held, list | dict) else f" ({shown(held)})"
    return f"{at or 'it'} is {kind(held)}{value}, but must be {_named(shape)}"


def _named(shape: Shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(dict.fromkeys(map(_named, shape)))
    if isinstance(shape, list | dict):
        return _KINDS[type(shape)]
    if shape is int:
        return "a whole number"
    return "null" if shape is None else _KINDS.get(shape, "anything")


_TAKES: Mapping[Any, Any] = {float: (int, float), dict: Mapping}


def json_schema(shape: Shape) -> dict[str, Any]:
    """The same shape as JSON Schema (2020-12) says it.

    Example:
        >>> json_schema({"name": str, "pairs?": (int, None)})["properties"]["pairs"]
        {'type': ['integer', 'null']}
    """
    if isinstance(shape, tuple):
        parts = [json_schema(each) for each in shape]
        if all(set(part) == {"type"} and isinstance(part["type"], str) for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    if isinstance(shape, list):
        return {"type": "array", "items": json_schema(shape[0])}
    if isinstance(shape, Mapping):
        named = {name.removesuffix("?"): json_schema(inner) for name, inner in shape.items() if name != "*"}
        needed = [name for name in shape if name != "*" and not name.endswith("?")]
        rest = {"additionalProperties": json_schema(shape["*"])} if "*" in shape else {}
        return {"type": "object", "properties": named, **({"required": needed} if needed else {}), **rest}
    return {} if shape is object else {"type": _JSON_TYPES[shape]}


_JSON_TYPES: Mapping[Any, str] = {
    str: "string", float: "number", int: "integer", bool: "boolean", dict: "object", list: "array", None: "null",
}  # fmt: skip
