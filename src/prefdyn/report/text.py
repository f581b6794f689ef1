"""Text that others wrote, made safe to show: no control characters, no reordering marks, one line where one is due."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_REORDERS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BREAK = re.compile("\r\n|[\n\x0b\x0c\r\x85\u2028\u2029]")
_UNSEEN = re.compile(f"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff{_REORDERS}]|[\ufffe\uffff]|[^\x00-\uffff]")
"""What may have to be replaced; characters beyond the first plane are looked at one by one."""


def readable(text: str) -> str:
    r"""The same text without characters that hide, reorder or break other text; its line breaks and tabs stay.

    Example:
        >>> readable("one\r\ntwo\x1b[31m")
        'one\ntwo␛[31m'
    """
    return _UNSEEN.sub(_replaced, _BREAK.sub("\n", text))


def visible(text: Any) -> str:
    r"""A name as one line: as `readable`, with line breaks shown as ⏎; an empty one says so.

    Example:
        >>> visible("two\nlines")
        'two⏎lines'
        >>> visible("")
        '(empty name)'
    """
    line = readable(str(text)).replace("\n", "⏎").replace("\t", "␉")
    return line if line.strip() else "(empty name)"


def as_markdown(text: str) -> str:
    r"""Text in one line of Markdown, or in a cell of its tables, in which nothing of it is markup.

    Example:
        >>> print(as_markdown("a | <b>b</b> *c*"))
        a \| \<b\>b\</b\> \*c\*
    """
    flat = " ".join(readable(text).split())
    return _MARKUP.sub(r"\\\g<0>", flat)


_MARKUP = re.compile(r"[\\|`*_\[\]<>&~$]")


def _replaced(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if code > 0xFFFF and code & 0xFFFE != 0xFFFE:
        return found.group()
    return "\ufffd"


def cells(text: str) -> int:
    r"""How many columns of a terminal the text takes.

    Example:
        >>> cells("abc"), cells("日本"), cells("e\u0301")
        (3, 4, 1)
    """
    return sum(map(_cell, text))


def _cell(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """The text in at most `width` columns; what is too long loses its middle, since ends tell names apart.

    Example:
        >>> shorten("desire-for-no-human-monitoring", 15)
        'desire-…itoring'
    """
    if cells(text) <= width:
        return text
    room = max(width, 1) - 1
    head = _start(text, (room + 1) // 2)
    tail = _start(text[::-1], room - cells(head))[::-1]
    return f"{head}…{tail}"


def _start(text: str, width: int) -> str:
    """As much of the start of the text as takes up to `width` columns."""
    used = 0
    for place, character in enumerate(text):
        used += _cell(character)
        if used > width:
            return text[:place]
    return text


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns; what is too long loses its end.

    Example:
        >>> cut("held-out loss falls", 10)
        'held-out…'
    """
    if cells(text) <= width:
        return text
    return _start(text, max(width, 1) - 1).rstrip() + "…"


def telling(texts: Sequence[str]) -> list[str]:
    """The texts in one line each, without a long start and end that all of them share.

    Example:
        >>> telling(['Would you say this of yourself? "I am early."', 'Would you say this of yourself? "It rains."'])
        ['… "I am early."', '… "It rains."']
        >>> telling(["One text alone stays as it is."])
        ['One text alone stays as it is.']
    """
    lines = [" ".join(text.split()) for text in texts]
    if len(set(lines)) < 2:
        return lines
    start, end = _common(lines), _common([line[::-1] for line in lines])[::-1]
    start = start[: start.rfind(" ") + 1]
    end = end[end.find(" ") :] if " " in end else ""
    head, tail = (len(part) if len(part) >= _SHARED else 0 for part in (start, end))
    return [
        ("… " if head else "") + line[head : max(head, len(line) - tail)].strip() + (" …" if tail else "")
        for line in lines
    ]


def _common(lines: Sequence[str]) -> str:
    """What all lines start with."""
    low, high = min(lines), max(lines)  # whatever these two share, all do
    size = next(
        (place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    return low[:size]


_SHARED = 20
"""Characters from which on what all texts share is left out."""


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text filled with spaces to `width` columns."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` columns; a word that is longer is cut.

    Example:
        >>> wrapped("the first to be learned", 12)
        ['the first to', 'be learned']
    """
    lines, line = [], ""
    for word in text.split():
        word = cut(word, width)
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def sentence(text: Any) -> str:
    """The text with a capital first and a full stop last; nothing stays nothing.

    Example:
        >>> sentence("true but says nothing"), sentence(None)
        ('True but says nothing.', '')
    """
    text = readable(str(text or "")).strip()
    return text and text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
