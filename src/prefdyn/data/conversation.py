"""Conversational pairs: messages with all that a chat template reads, checked, cut into prompt and responses, readable.

A pair is a dictionary with the messages of `prompt`, `chosen` and `rejected`, and with `tools` and
`chat_template_kwargs` where the row has them: what TRL hands to the chat template, and nothing else.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefdyn.data.bad_rows import BadRow, kind, listed, shown
from prefdyn.data.pairs import Conversation

Message = dict[str, Any]
"""`role`, mostly `content` (text, or a list of text parts), and any other keys. No value is null."""
SIDES = ("prompt", "chosen", "rejected")
TOOLS, ARGUMENTS = "tools", "chat_template_kwargs"
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys under which a message's reasoning is written."""
READABLE = ("content", *REASONING, "tool_calls")
"""Keys of a message that people are shown."""
_SET_BY_TRL = frozenset({"conversation", "tokenize", "add_generation_prompt", "return_dict", "continue_final_message"})
_OF_TOKENS = frozenset({
    "padding", "truncation", "max_length", "return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs",
    "sanitize_control_tokens",
})  # fmt: skip
_ASKING = frozenset({"system", "developer", "user", "tool"})
"""Roles whose messages are no responses."""
_LONGEST = 4096
"""Bits of a whole number that is kept."""
_DEEPEST = 64
"""Levels of nesting down to which a value is kept."""


def messages(value: Any, field: str) -> list[Message]:
    """The messages of one field, checked, with every key but those whose value is null.

    Null values are left out as the library leaves them out before a template sees them. A message may be an object, or
    the text of one, as `datasets` keeps messages of mixed keys in Parquet.

    Raises:
        BadRow: It is no list of messages, or a message holds something that cannot be kept or is no text.
    """
    if not isinstance(value, list):
        raise BadRow(field, f"is {kind(value)} where the other fields are lists of messages; give all in one form")
    found = []
    for number, item in enumerate(value, start=1):
        where = f"message {number}"
        if isinstance(item, str) and item.lstrip()[:1] == "{":
            item = _parsed(item, field, where)
        if not isinstance(item, dict):
            raise BadRow(field, f"{where} is {kind(item)} ({shown(item)}), but must have role and content")
        item = _kept(item, field, where)
        role = item.get("role")
        if not isinstance(role, str) or not role.strip():
            keys = listed(item)
            raise BadRow(field, f"{where} has no role (its keys: {keys}); give every message role and content")
        _check_content(item, field, where)
        found.append({key: part for key, part in item.items() if part is not None})
    return found


def _check_content(item: Mapping[str, Any], field: str, where: str) -> None:
    content = item.get("content")
    if isinstance(content, list):
        for part in content:
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                what = part.get("type") if isinstance(part, dict) else part
                raise BadRow(field, f"{where} holds a part that is not text ({shown(what)}); give text only")
    elif not isinstance(content, str) and not (content is None and any(item.get(key) for key in READABLE)):
        raise BadRow(field, f"{where} has a content that is {kind(content)} ({shown(content)}), but must be text")


def tools(value: Any) -> list[dict[str, Any]] | None:
    """A row's tools as TRL reads them: a list of descriptions, or the JSON text of one; None where it has none.

    Raises:
        BadRow: It is no list of objects, or one holds something that cannot be kept.
    """
    value = _unwrapped(value, TOOLS)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRow(TOOLS, f"is {kind(value)} ({shown(value)}), but must be a list of tools, each an object")
    return _kept(value, TOOLS, "the list")


def template_arguments(value: Any) -> dict[str, Any] | None:
    """A row's `chat_template_kwargs`; None where it has none.

    Raises:
        BadRow: It is no object, holds something that cannot be kept, or an argument that is not the template's.
    """
    value = _unwrapped(value, ARGUMENTS)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRow(ARGUMENTS, f"is {kind(value)} ({shown(value)}), but must be an object of template arguments")
    for key in value:
        if key in _SET_BY_TRL:
            raise BadRow(ARGUMENTS, f"holds {key!r}, which TRL sets itself and refuses to be given; leave it out")
        if key in _OF_TOKENS:
            raise BadRow(ARGUMENTS, f"holds {key!r}, which would change the tokens themselves; leave it out")
    return _kept(value, ARGUMENTS, "the object")


def _unwrapped(value: Any, field: str) -> Any:
    """A column's value: JSON text parsed, an array as a list, and None for what tables hold where a row has none."""
    if isinstance(value, str):
        return _parsed(value, field, "the text") if value.strip() else None
    if isinstance(value, float) and math.isnan(value):
        return None
    array: Any = value
    return array.tolist() if hasattr(array, "tolist") else value


def _parsed(text: str, field: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRow(field, f"{where} is not JSON ({error}); mend it") from error


def _kept(value: Any, field: str, where: str, path: str = "", depth: int = 0) -> Any:
    """The value as plain JSON, arrays as lists.

    Raises:
        BadRow: It holds what JSON cannot say, named by its key.
    """
    at = f"{where} holds {path!r}, which" if path else f"{where}"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRow(field, f"holds {value[error.start]!r}, half of a surrogate pair; mend the text") from error
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _LONGEST:
            raise BadRow(field, f"{at} is a number of {value.bit_length()} bits; give it as text")
        return value
    if depth > _DEEPEST:
        raise BadRow(field, f"{at} is nested deeper than {_DEEPEST} levels; flatten it")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRow(field, f"{at} is {value}, which JSON cannot hold; give a finite number, or leave the key out")
        return value
    if isinstance(value, Mapping):
        found = {}
        for key, part in value.items():
            if not isinstance(key, str):
                raise BadRow(field, f"{at} has the key {shown(key)}, but every key must be text")
            found[_kept(key, field, where)] = _kept(part, field, where, f"{path}.{key}" if path else key, depth + 1)
        return found
    if isinstance(value, list | tuple):
        return [_kept(part, field, where, f"{path}[{number}]", depth + 1) for number, part in enumerate(value)]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy, in which pandas keeps nested columns
        return _kept(value.tolist(), field, where, path, depth + 1)
    raise BadRow(field, f"{at} is {kind(value)} ({shown(value)}), which JSON cannot hold; give text, or leave it out")


def shared_messages(chosen: list[Message], rejected: list[Message]) -> int:
    """How many leading messages make the prompt of two whole conversations, as TRL's `extract_prompt` counts.

    Those that are equal on both sides, but of the shorter side the last message at least is its response.

    Example:
        >>> ask = {"role": "user", "content": "Hi"}
        >>> shared_messages([ask, {"role": "a", "content": "Yo"}], [ask, {"role": "a", "content": "No"}])
        1
        >>> shared_messages([ask, {"role": "a", "content": "Yo"}], [ask, {"role": "a", "content": "Yo"}, ask])
        1
    """
    count = 0
    for first, second in zip(chosen, rejected, strict=False):
        if first != second:
            return count
        count += 1
    return max(0, count - 1)


def conversation(
    prompt: Any, chosen: Any, rejected: Any, *, explicit: bool, given: Mapping[str, Any] | None = None
) -> Conversation:
    """What a chat template reads of one pair.

    Args:
        prompt: The prompt's messages; text beside conversational responses is taken for a copy of what the responses
            begin with, as TRL does, and not used.
        chosen: The chosen messages.
        rejected: The rejected messages.
        explicit: There is a prompt field.
        given: The row, of which `tools` and `chat_template_kwargs` are read.

    Raises:
        BadRow: The sides have different forms, a message is not text, there is no prompt or no response, or tools or
            arguments cannot be read.
    """
    first, second = messages(chosen, "chosen"), messages(rejected, "rejected")
    if explicit and not isinstance(prompt, str):
        if prompt is None:
            raise BadRow("prompt", "is null; give messages, or leave the field out")
        head = messages(prompt, "prompt")
    else:
        if first == second:
            raise BadRow("rejected", "is the same conversation as chosen; a pair needs two different responses")
        cut = shared_messages(first, second)
        for field, side, other in (("chosen", first, second), ("rejected", second, first)):
            if side == other[: len(side)] and side and side[-1]["role"] in _ASKING:
                raise BadRow(field, "has no text after the prompt; give a response")
        if cut == 0:
            raise BadRow(
                "chosen", "shares no leading message with rejected, so there is no prompt; give a prompt field"
            )
        head, first, second = first[:cut], first[cut:], second[cut:]
    if not head:
        raise BadRow("prompt", "has no messages; give at least one")
    for field, side in (("chosen", first), ("rejected", second)):
        if not any(_said(message).strip() for message in side):
            raise BadRow(field, "has no text after the prompt; give a response")
    found: Conversation = {"prompt": head, "chosen": first, "rejected": second}
    row = given or {}
    arguments = template_arguments(row.get(ARGUMENTS))
    described = tools(row.get(TOOLS))
    if arguments and TOOLS in arguments:  # TRL lets these win
        described = tools(arguments.pop(TOOLS))
    if described is not None:
        found[TOOLS] = described
    if arguments:
        found[ARGUMENTS] = arguments
    return found


def with_contents(talk: Conversation, change: Callable[[str], str]) -> Conversation:
    """The same conversation with other texts as contents of its responses; a content in parts becomes one part."""
    found = dict(talk)
    for side in ("chosen", "rejected"):
        found[side] = [_with_content(message, change) for message in talk[side]]
    return found


def _with_content(message: Message, change: Callable[[str], str]) -> Message:
    before = content_text(message)
    after = change(before)
    if after == before:
        return message
    parts = isinstance(message.get("content"), list)
    return {**message, "content": [{"type": "text", "text": after}] if parts else after}


# for people ----------------------------------------------------------------------------------------------------------


def content_text(message: Message) -> str:
    """The content of a message as one text."""
    content = message.get("content", "")
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def readable(talk: Conversation) -> tuple[str, str, str]:
    """Prompt, chosen and rejected as text for people, which differ where the conversations differ in what people see.

    Tools and template arguments stand before the prompt. Keys other than content, reasoning and tool calls are shown
    only where chosen and rejected would be the same text without them.
    """
    before = "".join(f"{key}: {_json(talk[key])}\n\n" for key in (TOOLS, ARGUMENTS) if key in talk)
    prompt = before + rendering(talk["prompt"], speaker="user")
    chosen, rejected = (rendering(talk[side], speaker="assistant") for side in ("chosen", "rejected"))
    if chosen == rejected and talk["chosen"] != talk["rejected"]:
        chosen, rejected = (rendering(talk[side], speaker="assistant", every=True) for side in ("chosen", "rejected"))
    return prompt, chosen, rejected


def rendering(side: Iterable[Message], *, speaker: str, every: bool = False) -> str:
    r"""Messages as text for people: a single message of the expected speaker is what it says, others are named.

    Args:
        side: The messages.
        speaker: Whose role need not be said.
        every: Show keys that are no text as well.

    Example:
        >>> rendering([{"role": "user", "content": "Hi"}], speaker="user")
        'Hi'
        >>> rendering([{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}], speaker="user")
        'system: Be kind\n\nuser: Hi'
        >>> rendering([{"role": "assistant", "content": "Hi", "reasoning_content": "A greeting."}], speaker="assistant")
        'reasoning_content: A greeting.\n\nHi'
        >>> rendering([{"role": "user", "content": "Hi", "name": "Ann"}], speaker="user", every=True)
        'Hi\n\nname: Ann'
    """
    said = [(message["role"], _said(message, every=every)) for message in side]
    if len(said) == 1 and said[0][0] == speaker:
        return said[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in said)


def _said(message: Message, *, every: bool = False) -> str:
    """What a message says beside its role: reasoning, content, tool calls."""
    keys = [*REASONING, "content", "tool_calls"]
    if every:
        keys += [key for key in message if key not in keys and key != "role"]
    parts = []
    for key in keys:
        value = content_text(message) if key == "content" else message.get(key)
        if key == "content" and key in message:
            parts.append(value)
        elif value:
            parts.append(f"{key}: {value if isinstance(value, str) else _json(value)}")
    return "\n\n".join(parts)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
