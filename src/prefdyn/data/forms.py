"""The forms in which people write prompts and responses, made TRL's: texts, or messages with role and content."""

from collections.abc import Mapping
from typing import Any

from prefdyn.data.bad_rows import BadRow, kind, shown
from prefdyn.data.columns import parsed, unpacked

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""What ShareGPT's layouts write in `from`, and the role that chat templates know."""
Side = str | list[dict[str, Any]]
"""A text, or messages."""


def is_odd(value: Any, *, several: bool) -> bool:
    """Whether a value is written in another form than TRL's that is understood here.

    Args:
        value: A prompt or a response.
        several: Whether a list of texts is understood: as several responses.

    Example:
        >>> is_odd("[{'role': 'user', 'content': 'Hi'}]", several=False), is_odd("[1]", several=False)
        (True, False)
    """
    if type(value) is str:
        return value[:1] == "[" and _looks_like_messages(value)
    if type(value) is list:
        return bool(value) and (_is_foreign(value[0]) or (several and is_list_of_texts(value)))
    return hasattr(value, "tolist") or (isinstance(value, Mapping) and ("role" in value or _is_foreign(value)))


def _is_foreign(item: Any) -> bool:
    return isinstance(item, Mapping) and "from" in item and "value" in item and "role" not in item


def _looks_like_messages(text: str) -> bool:
    head = text[:200].replace(" ", "").replace("\n", "").replace('"', "'")
    return head.startswith(("[{'role':", "[{'content':", "[{'from':", "[{'value':"))


def unwrapped(value: Any, field: str) -> Any:
    """A value out of its wrapping: messages out of a text (JSON, or as pandas writes them into CSV), lists of arrays.

    Raises:
        BadRow: A text begins as messages do and cannot be read as such.
    """
    if isinstance(value, str) and _looks_like_messages(value):
        held = parsed(value)
        if not isinstance(held, list):
            raise BadRow(field, f"looks like messages written as text, but cannot be read ({shown(value)}); mend it")
        return held
    return unpacked(value)


def side(value: Any, field: str, *, speaker: str) -> Side:
    """One side of a pair: a text as it is, a message or several as a list with role and content.

    Args:
        value: A text, a message, a list of messages (also with `from` and `value`), or a list of texts, which are the
            turns of one speaker.
        field: How a message names it.
        speaker: Whose turns a list of texts holds.

    Raises:
        BadRow: It is none of these.
    """
    value = unwrapped(value, field)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if kind(value) == "null":
        raise BadRow(field, "is null; give text")
    if not isinstance(value, (list, tuple)):
        raise BadRow(field, f"is {kind(value)} ({shown(value)}), but must be text")
    if is_list_of_texts(value):
        return [{"role": speaker, "content": item} for item in value]
    return [_message(item, field) for item in value]


def _message(item: Any, field: str) -> Any:
    if not isinstance(item, Mapping) or "role" in item or "from" not in item:
        return item
    said = item["from"]
    role = _SPEAKERS.get(said) if isinstance(said, str) else None
    if role is None:
        raise BadRow(field, f"holds a message from {shown(said)}, which is no speaker of text; write role and content")
    rest = {key: value for key, value in item.items() if key not in ("from", "value", "weight")}
    return {"role": role, "content": item.get("value"), **rest}


def is_list_of_texts(value: Any) -> bool:
    """Whether a value holds several texts, and not messages each written as JSON, as Parquet may hold them."""
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, str) for item in value):
        return False
    return not all(item.startswith("{") and '"role":' in item for item in value)


def pair(
    prompt: Side | None, system: str, history: list[dict[str, Any]], chosen: Side, rejected: Side
) -> dict[str, Any]:
    """A row as TRL reads it, in one form: texts, or messages where any of it is messages or has a system text.

    A response that begins with another speaker than the assistant is a whole conversation, and holds the prompt itself.

    Example:
        >>> pair("Hi", "", [], "Yo", "No")
        {'prompt': 'Hi', 'chosen': 'Yo', 'rejected': 'No'}
        >>> ask, reply = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
        >>> pair(None, "", [], [ask, reply], "No")["prompt"]
        [{'role': 'user', 'content': 'Hi'}]
    """
    head = [{"role": "system", "content": system}] if system else []
    head += history
    if not head and all(value is None or isinstance(value, str) for value in (prompt, chosen, rejected)):
        return {**({} if prompt is None else {"prompt": prompt}), "chosen": chosen, "rejected": rejected}
    sides = [_messages(value, "assistant") for value in (chosen, rejected)]
    whole = [bool(turns) and _role(turns[0]) != "assistant" for turns in sides]
    if all(whole):
        lead = [message for message in head if _role(sides[0][0]) != "system"]
        return {"chosen": [*lead, *sides[0]], "rejected": [*lead, *sides[1]]}
    for at in (0, 1):
        if whole[at]:  # the other holds its reply alone
            cut = max(number for number, turn in enumerate(sides[at]) if number == 0 or _role(turn) != "assistant") + 1
            prompt, sides[at] = sides[at][:cut], sides[at][cut:]
    asked = [] if prompt is None else _messages(prompt, "user")
    if len(asked) > 1 and {_role(turn) for turn in asked} == {"user"} and {len(asked)} == set(map(len, sides)):
        later = asked[1:]  # the turns of either speaker, each in a list of its own
        sides = [
            [turns_[0], *(turn for two in zip(later, turns_[1:], strict=True) for turn in two)] for turns_ in sides
        ]
        asked = asked[:1]
    if asked and _role(asked[0]) == "system":
        head = head[1:] if system else head
    return {"prompt": [*head, *asked], "chosen": sides[0], "rejected": sides[1]}


def _messages(value: Side, speaker: str) -> list[dict[str, Any]]:
    return [{"role": speaker, "content": value}] if isinstance(value, str) else list(value)


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def turns(value: Any, field: str) -> list[dict[str, Any]]:
    """The messages of a history: a list of questions with their answers.

    Raises:
        BadRow: It is something else.
    """
    value = unwrapped(value, field)
    if kind(value) == "null" or value == "":
        return []
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, (list, tuple)) and len(item) == 2 and is_list_of_texts(item) for item in value
    ):
        raise BadRow(field, f"is {kind(value)} ({shown(value)}), but must be a list of [question, answer]")
    return [
        {"role": role, "content": text}
        for item in value
        for role, text in zip(("user", "assistant"), item, strict=True)
    ]
