"""What is typed for a setting: texts into values, with an error that names the flag."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from prefdyn._checks import one_of
from prefdyn._shape import shown
from prefdyn.errors import ConfigError

_LARGEST = 2**53
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|$)')

_FACTOR = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,="]+?))\s*=([^,=]+)(?:,|$)')

Style = Literal["screen", "paper"]
Read = Callable[[str, str], Any]
"""A reader: the text, and the flag that it stands after."""


def words(text: str | None) -> list[str] | None:
    """A comma list as typed, or None. Blanks around the commas stay out, blanks inside names stay in.

    A name in double quotes may hold commas, and keeps its blanks: `"a, b",c`.

    Example:
        >>> words('a, b c ,"d, e"')
        ['a', 'b c', 'd, e']
    """
    if text is None:
        return None
    return [part for part, quoted in _parts(text) if quoted or part]


def _parts(text: str, *, strip: bool = True) -> list[tuple[str, bool]]:
    """What stands between the commas outside of double quotes, and whether it was quoted, as in CSV."""
    parts, rest = [], text
    while True:
        quoted = _QUOTED.match(rest)
        if quoted is not None:
            parts.append((quoted[1].replace('""', '"'), True))
            end = quoted.end()
        else:
            part = rest.partition(",")[0]
            parts.append((part.strip() if strip else part, False))
            end = len(part) + 1
        if end > len(rest) or (quoted is not None and not quoted[0].endswith(",")):
            return parts
        rest = rest[end:]


def names(text: str, flag: str) -> tuple[str, ...]:
    """A comma list of names."""
    return tuple(words(text) or ())


def names_or_none(text: str, flag: str) -> tuple[str, ...]:
    """A comma list of names, or "none"."""
    return () if text == "none" else names(text, flag)


def answer_pair(text: str, flag: str) -> tuple[str, str]:
    """`POS,NEG` as two answers. Blanks are kept: " Yes" and "Yes" are different tokens.

    Example:
        >>> answer_pair(" Yes,No", "--answers")
        (' Yes', 'No')
        >>> answer_pair("Yes,No,", "--answers")
        Traceback (most recent call last):
        prefdyn.errors.ConfigError: answers 'Yes,No,' must be two words with a comma between, such as answers Yes,No
    """
    parts = [part for part, _ in _parts(text, strip=False)]
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ConfigError(f"{flag} {shown(text)} must be two words with a comma between, such as {flag} Yes,No")
    return parts[0], parts[1]


def factors(text: str, flag: str) -> dict[str, float]:
    """Numbers by name, as `a=2,"b, c"=0.5`.

    Example:
        >>> factors('a=2, "b, c"=0.5', "--group-weights")
        {'a': 2.0, 'b, c': 0.5}
    """
    found, at = {}, 0
    while at < len(text):
        part = _FACTOR.match(text, at)
        if part is None:
            raise ConfigError(f"{flag} {shown(text)} must be names with numbers, such as {flag} a=2,b=0.5")
        name = part[2].strip() if part[1] is None else part[1].replace('""', '"')
        if name in found:
            raise ConfigError(f"{flag} {shown(text)} names {shown(name)} twice")
        found[name] = number(part[3].strip(), flag)
        at = part.end()
    return found


def factors_text(given: Mapping[str, float]) -> str:
    """What `factors` reads: every name in double quotes.

    Example:
        >>> factors(factors_text({"b, c": 0.5, 'say "a"': 2.0}), "--group-weights")
        {'b, c': 0.5, 'say "a"': 2.0}
    """
    quoted = {name.replace('"', '""'): value for name, value in given.items()}
    return ",".join(f'"{name}"={value!r}' for name, value in quoted.items())


def rate(text: str, flag: str) -> float | Literal["auto"]:
    """A learning rate: a number, or "auto"."""
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} {shown(text)} is neither a number nor 'auto'") from None


def steps_or_auto(text: str, flag: str) -> int | Literal["auto"]:
    """A number of steps, 0 for none, or "auto"."""
    value = whole(text)
    if text == "auto":
        return "auto"
    if value is None or value < 0:
        raise ConfigError(f"{flag} {shown(text)} must be a whole number of at least 0, or 'auto'")
    return value


def number(text: str, flag: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} {shown(text)} must be a number, or numbers with commas between") from None


def numbers(text: str, flag: str) -> tuple[float, ...]:
    """A comma list of numbers."""
    return tuple(number(part, flag) for part in words(text) or ())


def count(text: str, flag: str) -> int:
    """A whole number."""
    value = whole(text)
    if value is None:
        raise ConfigError(f"{flag} {shown(text)} must be a whole number, or several with commas between")
    return value


def recorded(text: str, flag: str) -> Literal["log", "all"] | tuple[int, ...]:
    """Steps: "log", "all", or a comma list."""
    return text if text in ("log", "all") else tuple(count(part, flag) for part in words(text) or ())  # type: ignore[return-value]


def pair_count(text: str, flag: str) -> int | Literal["all"]:
    """A number of pairs, or "all"."""
    value = "all" if text == "all" else whole(text)
    if value is None or (value != "all" and value < 1):
        raise ConfigError(f"{flag} {shown(text)} must be a whole number above 0, or all")
    return value


def batch_size(text: str, flag: str) -> int | Literal["full"]:
    """Pairs per step: a whole number of at least 1, or "full"."""
    value = "full" if text == "full" else whole(text)
    if value is None or (value != "full" and value < 1):
        raise ConfigError(f"{flag} {shown(text)} must be a whole number above 0, or full")
    return value


def clip(text: str, flag: str) -> float:
    """A largest norm; 0 for none."""
    value = number(text, flag)
    if not value >= 0:
        raise ConfigError(f"{flag} {shown(text)} must be a number above 0, or 0 for none")
    return value


def style(text: str, flag: str) -> Style:
    """How figures are drawn."""
    return one_of(text, get_args(Style), name=flag)  # type: ignore[return-value]


def whole(text: str) -> int | None:
    """A whole number as typed, also as 100.0 or 1e3; None where it is none, or larger than any count."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) <= _LARGEST else None


def split(text: Any, flag: str) -> float:
    """A share above 0 and at most 1."""
    if not 0 < text <= 1:
        raise ConfigError(f"{flag} is {text}, but must be above 0 and at most 1, such as 0.9")
    return text
