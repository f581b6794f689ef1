"""Conversational pairs: messages with a role and a text, checked, cut into prompt and responses, made readable."""

from typing import Any

from prefdyn.data.bad_rows import BadRow, kind, listed, shown

Message = dict[str, str]


def messages(value: Any, field: str) -> list[Message]:
    """The messages of one field as role and content, checked.

    A content given as a list of text parts is joined. Other keys of a message are dropped, except tool calls, which
    are refused, because the text alone would not be what the chat template shows.

    Raises:
        BadRow: It is no list of messages, or a message holds something other than text.
    """
    if not isinstance(value, list):
        raise BadRow(field, f"is {kind(value)} where the other fields are lists of messages; give all in one form")
    found = []
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            raise BadRow(field, f"message {number} is {kind(item)} ({shown(item)}), but must have role and content")
        role, content = item.get("role"), item.get("content")
        if not isinstance(role, str) or not role.strip():
            keys = listed(item)
            raise BadRow(field, f"message {number} has no role (its keys: {keys}); give every message role and content")
        if item.get("tool_calls"):
            raise BadRow(field, f"message {number} holds tool calls, which are not text; give text messages only")
        found.append({"role": _utf8(role, field), "content": _utf8(_text(content, field, number), field)})
    return found


def _text(content: Any, field: str, number: int) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = []
        for part in content:
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                what = part.get("type") if isinstance(part, dict) else part
                raise BadRow(field, f"message {number} holds a part that is not text ({shown(what)}); give text only")
            parts.append(part["text"])
        return "".join(parts)
    raise BadRow(field, f"message {number} has a content that is {kind(content)} ({shown(content)}), but must be text")


def _utf8(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(field, f"holds {text[error.start]!r}, half of a surrogate pair; mend the text") from error
    return text


def shared_messages(chosen: list[Message], rejected: list[Message]) -> int:
    """How many leading messages are equal on both sides.

    Example:
        >>> ask = {"role": "user", "content": "Hi"}
        >>> shared_messages([ask, {"role": "a", "content": "Yo"}], [ask, {"role": "a", "content": "No"}])
        1
    """
    count = 0
    for first, second in zip(chosen, rejected, strict=False):
        if first != second:
            break
        count += 1
    return count


def conversation(prompt: Any, chosen: Any, rejected: Any, *, explicit: bool) -> dict[str, list[Message]]:
    """Prompt, chosen and rejected messages of one pair.

    Args:
        prompt: The prompt's messages; text beside conversational responses is taken for a copy of what the responses
            begin with, as TRL does, and not used.
        chosen: The chosen messages.
        rejected: The rejected messages.
        explicit: There is a prompt field.

    Raises:
        BadRow: The sides have different forms, a message is not text, or there is no prompt or no response.
    """
    first, second = messages(chosen, "chosen"), messages(rejected, "rejected")
    if explicit and not isinstance(prompt, str):
        if prompt is None:
            raise BadRow("prompt", "is null; give messages, or leave the field out")
        head = messages(prompt, "prompt")
    else:
        cut = shared_messages(first, second)
        if cut == len(first) == len(second):
            raise BadRow("rejected", "is the same conversation as chosen; a pair needs two different responses")
        if cut == 0:
            raise BadRow(
                "chosen", "shares no leading message with rejected, so there is no prompt; give a prompt field"
            )
        head, first, second = first[:cut], first[cut:], second[cut:]
    if not head:
        raise BadRow("prompt", "has no messages; give at least one")
    for field, side in (("chosen", first), ("rejected", second)):
        if not any(message["content"].strip() for message in side):
            raise BadRow(field, "has no text after the prompt; give a response")
    return {"prompt": head, "chosen": first, "rejected": second}


def rendering(side: list[Message], *, speaker: str) -> str:
    r"""Messages as text for people: a single message of the expected speaker is its content, others are named.

    Example:
        >>> rendering([{"role": "user", "content": "Hi"}], speaker="user")
        'Hi'
        >>> rendering([{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}], speaker="user")
        'system: Be kind\n\nuser: Hi'
    """
    if len(side) == 1 and side[0]["role"] == speaker:
        return side[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in side)
