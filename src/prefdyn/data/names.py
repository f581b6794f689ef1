"""Group names that look the same and are not: which are alike, and how to show them so that the difference is seen."""

import unicodedata
from collections.abc import Sequence

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}
"""Unicode's categories of characters that nobody sees: controls, marks of direction and width, unassigned ones."""
_VARIANTS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), 0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0}
"""Variation selectors, the grapheme joiner and the Hangul fillers, which are no controls and are as invisible."""


def plain_name(name: str) -> str:
    """What is left of a name without case, form of writing, invisible characters and blanks around it.

    Example:
        >>> plain_name(" Caf\u0065\u0301 ") == plain_name("CAF\u00c9"), plain_name("a\u200bb"), plain_name("a-b")
        (True, 'ab', 'a-b')
    """
    text = unicodedata.normalize("NFKC", name)
    seen = (" " if each.isspace() else each for each in text if each.isspace() or not _unseen(each))
    folded = unicodedata.normalize("NFKC", "".join(seen).casefold())
    return " ".join(folded.split())


def alike(names: Sequence[str]) -> list[list[str]]:
    """Names of which two or more are the same to the eye, in order of first appearance.

    Example:
        >>> alike(["code", "safety", "Code", "code "])
        [['code', 'Code', 'code ']]
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain_name(name), []).append(name)
    return [same for same in found.values() if len(same) > 1]


def told_apart(names: Sequence[str]) -> list[str]:
    r"""Each name in quotes, with what nobody sees as escapes; all that is not ASCII where that is the whole difference.

    Example:
        >>> told_apart(["code", "code\u200b"]), told_apart(["\u00e9", "e\u0301"])
        (["'code'", "'code\\u200b'"], ["'\\xe9'", "'e\\u0301'"])
    """
    shown = ["".join(map(_revealed, name)) for name in names]
    forms = [unicodedata.normalize("NFKC", text) for text in shown]
    if len(set(forms)) < len(forms):
        shown = [text.encode("ascii", "backslashreplace").decode() for text in shown]
    return [f"'{text}'" for text in shown]


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN or ord(character) in _VARIANTS


def _revealed(character: str) -> str:
    if character == " " or not (_unseen(character) or character.isspace()):
        return "\\\\" if character == "\\" else character
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 0x7E else repr(character)[1:-1]
