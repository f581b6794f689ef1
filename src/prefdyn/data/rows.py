"""One row of TRL's preference format, standard or conversational, with an explicit or an implicit prompt."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prefdyn.data.bad_rows import BadRow, kind, listed, shown
from prefdyn.data.codes import HEAVIEST
from prefdyn.data.conversation import ARGUMENTS, TOOLS, Conversation, conversation, readable

SCORES = (
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("rating_chosen", "rating_rejected"),
    ("chosen_rating", "rejected_rating"), ("chosen-rating", "rejected-rating"), ("reward_chosen", "reward_rejected"),
    ("chosen_reward", "rejected_reward"),
)  # fmt: skip
"""Names under which the scores of the two responses stand beside them."""
GROUP_NAMES = ("group", "behavior", "behaviour", "persona", "subset", "source", "category", "channel", "dataset")
"""Names under which a group column is looked for, in this order."""
USED = frozenset({
    "prompt", "chosen", "rejected", TOOLS, ARGUMENTS, "id", "weight", "split", "cluster", *GROUP_NAMES,
})  # fmt: skip

NO_TEXT, SAME = "a response needs text", "is the same as chosen"
"""Of the reasons why a row cannot be used."""


class Texts(NamedTuple):
    """What a row says: three texts, and the messages behind them where it is a conversation."""

    prompt: str
    chosen: str
    rejected: str
    conversation: Conversation | None = None


Parser = Callable[[Mapping[str, Any]], Texts]
"""Reads the texts of one row, or raises `BadRow`."""


def texts_of(row: Mapping[str, Any], *fields: str) -> list[str]:
    """The text fields of a row.

    Raises:
        BadRow: One is missing, null, no text, or not UTF-8.
    """
    found = [row.get(field) for field in fields]
    return [
        value if type(value) is str and value.isascii() else text(row, field)
        for field, value in zip(fields, found, strict=True)
    ]


def text(row: Mapping[str, Any], field: str) -> str:
    """One text field of a row.

    Raises:
        BadRow: It is missing, null, no text, or not UTF-8.
    """
    value = row.get(field)
    if isinstance(value, str):
        value = str(value)
    else:
        if field not in row:
            raise BadRow(field, f"is missing; the fields are {listed(row, most=20)}")
        if kind(value) == "null":
            raise BadRow(field, "is null; give text")
        raise BadRow(field, f"is {kind(value)} ({shown(value)}), but must be text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code = ord(value[error.start])
            if 0xDC80 <= code <= 0xDCFF:
                where = f"byte {code - 0xDC00:#04x} at character {error.start + 1}"
                raise BadRow(field, f"is not UTF-8 ({where}); save the file as UTF-8") from error
            raise BadRow(field, f"holds {value[error.start]!r}, half of a surrogate pair; mend the text") from error
    return value


def trl_texts(row: Mapping[str, Any]) -> Texts:
    """The texts of one row in TRL's preference format.

    Raises:
        BadRow: A field is missing, null or of the wrong type, or the sides have different forms.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, list) or isinstance(rejected, list):
        for field, value in (("chosen", chosen), ("rejected", rejected)):
            if field not in row or kind(value) == "null":
                text(row, field)
        talk = conversation(row.get("prompt"), chosen, rejected, explicit="prompt" in row, given=row)
        return Texts(*readable(talk), conversation=talk)
    first, second = texts_of(row, "chosen", "rejected")
    if "prompt" in row:
        if isinstance(row["prompt"], list):
            raise BadRow("prompt", "is a list of messages, but chosen and rejected are text; give all in one form")
        return Texts(prompt=text(row, "prompt"), chosen=first, rejected=second)
    cut = implicit_prompt(first, second)
    return Texts(prompt=first[:cut], chosen=first[cut:], rejected=second[cut:])


def common_prefix(first: str, second: str) -> int:
    """Length of the longest common prefix, by bisection, so that long texts cost little.

    Example:
        >>> common_prefix("green", "grey")
        3
    """
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def implicit_prompt(chosen: str, rejected: str) -> int:
    """Where the prompt ends that two texts share: their common prefix, without a word begun and without a last space.

    As TRL's `extract_prompt`, with one difference: where the responses begin with the same letters, TRL cuts inside the
    word, and here the word stays whole in the responses. Each response keeps at least one word.

    Example:
        >>> cut = implicit_prompt("The sky is green.", "The sky is grey.")
        >>> "The sky is green."[:cut], "The sky is grey."[cut:]
        ('The sky is', ' grey.')
    """
    cut = common_prefix(chosen, rejected)
    if cut == min(len(chosen), len(rejected)):
        cut = len(chosen[:cut].rstrip()) - 1
    while cut > 0 and _in_word(chosen[cut - 1]) and any(_in_word(side[cut : cut + 1]) for side in (chosen, rejected)):
        cut -= 1
    return max(cut - 1 if chosen[cut - 1 : cut] == " " else cut, 0)


def _in_word(character: str) -> bool:
    return character.isalnum() or (character != "" and character in "_'’-")


def check_pair(texts: Texts) -> None:
    """Refuse what no preference can be learned from.

    Raises:
        BadRow: A response is empty, or both are the same.
    """
    for field, value in (("chosen", texts.chosen), ("rejected", texts.rejected)):
        if not value or value.isspace():
            raise BadRow(field, f"is empty ({shown(value)}); {NO_TEXT}")
    if texts.chosen == texts.rejected:
        raise BadRow("rejected", f"{SAME} ({shown(texts.chosen)}); a pair needs two different responses")


def group_name(row: Mapping[str, Any], field: str) -> str:
    """The row's group as text; numbers and true/false become text.

    Raises:
        BadRow: It is null, missing, empty, or no single value.
    """
    value = row.get(field)
    if type(value) is not str:
        if kind(value) == "null":
            raise BadRow(field, "is null, but every pair needs a group; give a name")
        if isinstance(value, (list, dict, tuple, set, bytes)):
            raise BadRow(field, f"is {kind(value)} ({shown(value)}), but a group must be one name")
        value = _written(value, field)
    if not value.strip():
        raise BadRow(field, f"is empty ({shown(value)}), but every pair needs a group; give a name")
    return text({field: value}, field)


def weight(row: Mapping[str, Any]) -> float:
    """The row's weight; 1 where it has none.

    Raises:
        BadRow: It is no finite number above 0.
    """
    value = row.get("weight")
    if value is None or value == "":
        return 1.0
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise BadRow("weight", f"is {shown(value)}, but must be a finite number above 0; mend it or drop the column")
    if not 1 / HEAVIEST <= number <= HEAVIEST:
        raise BadRow(
            "weight", f"is {shown(value)}, but must lie between {1 / HEAVIEST:g} and {HEAVIEST:g}; mend it or drop the "
            "column"
        )  # fmt: skip
    return number


def identifier(row: Mapping[str, Any]) -> str | None:
    """The row's own id as text; None where it has none.

    Raises:
        BadRow: It is neither text nor a whole number.
    """
    value = row.get("id")
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadRow("id", f"is {kind(value)} ({shown(value)}), but must be text or a number")
    return text({"id": _written(value, "id")}, "id")


def cluster_name(row: Mapping[str, Any]) -> str | None:
    """What the row says that it belongs to; None where it says nothing.

    Raises:
        BadRow: It is no single value.
    """
    value = row.get("cluster")
    if kind(value) == "null" or value == "":
        return None
    if isinstance(value, (list, dict, tuple, set, bytes)):
        raise BadRow("cluster", f"is {kind(value)} ({shown(value)}), but must be one name or number")
    return text({"cluster": _written(value, "cluster")}, "cluster")


def is_null(value: object) -> bool:
    """Whether a cell holds nothing: null, NaN, or a text without characters."""
    return value is None or value == "" or (isinstance(value, float) and value != value)


def _written(value: object, field: str) -> str:
    """A value as text; a whole number that a table made a float of is whole again."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return str(value)
    except ValueError as error:
        raise BadRow(field, f"is {shown(value)}, but must be text or a shorter number") from error
