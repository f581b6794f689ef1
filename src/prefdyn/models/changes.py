"""What a chat template and a tokenizer make of texts, where it is not what the texts say, with counts and an example.

Nothing is changed here: TRL trains on the same tokens. But who reads figures about system prompts should know that the
template drops them.
"""

import datetime
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefdyn.data.conversation import ARGUMENTS, REASONING, TOOLS
from prefdyn.data.pairs import Conversation
from prefdyn.data.rows import common_prefix
from prefdyn.models.load import LanguageModel
from prefdyn.models.texts import SIDES, RenderedTexts, pair_name

_SAMPLE = 16
"""Conversations that are rendered once more at another time."""
_PART = 24
"""Characters at either end of a text by which a part of it is known again."""
_SHOWN = 60
_CHANGING = re.compile(r"strftime_now|random|lipsum")
_LATER = (
    (datetime.timedelta(), "each time, at random"),
    (datetime.timedelta(seconds=1), "from one second to the next"),
    (datetime.timedelta(days=1, hours=1, minutes=1), "from one day or hour to the next"),
)


@dataclass(slots=True)
class _Counted:
    """Pairs that something is true of, and the text of the first."""

    rows: set[int] = field(default_factory=set)
    example: str = ""

    def add(self, row: int, example: str) -> None:
        if not self.rows:
            self.example = example
        self.rows.add(row)


def changes(texts: RenderedTexts, rows: Sequence[int]) -> tuple[str, ...]:
    """What a chat template does to conversations beside writing them down.

    Text that it drops, cuts or moves, tools and arguments that it does not read, prompts that it makes equal, a last
    turn of the prompt that it closes, and renderings that differ from one time to another.

    Args:
        texts: The pairs, rendered for a model.
        rows: Those that are used.
    """
    talks = {row: talk for row in rows if (talk := texts.talks[row]) is not None}
    if not talks:
        return ()
    return (
        *_lost(texts, talks),
        *_made_equal(texts, talks),
        *_closed(texts, talks),
        *_of_the_time(texts, talks),
    )


def doubled(
    lm: LanguageModel, starts: Sequence[Sequence[int]], place: np.ndarray, ends: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """Begin tokens at the start of a text, and end tokens at its end, that stand there twice.

    Args:
        lm: Whose tokenizer made them.
        starts: Token ids of each prompt.
        place: Index into `starts` of each pair.
        ends: Token ids of each pair's chosen response, and of each rejected one.
    """
    found = []
    begin, end = (getattr(lm.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos"))
    twice = np.asarray([begin is not None and [*ids[:2]] == [begin, begin] for ids in starts], dtype=bool)[place]
    if twice.any():
        found.append(
            f"In {int(twice.sum())} of {len(place)} pairs the begin token {lm.tokenizer.bos_token!r} stands twice, "
            "once in the text itself: TRL trains on it so too; take it out of the prompts, or out of the chat template."
        )
    closed = sum(end is not None and [*ids[-2:]] == [end, end] for ids in ends)
    if closed:
        found.append(
            f"{closed} responses end with the end token {lm.tokenizer.eos_token!r} twice, once in the text itself: TRL "
            "trains on it so too; take it out of the responses, or out of the chat template."
        )
    return tuple(found)


# text ----------------------------------------------------------------------------------------------------------------


def _lost(texts: RenderedTexts, talks: dict[int, Conversation]) -> Iterator[str]:
    tallies: dict[tuple[str, str], _Counted] = {}

    def note(row: int, does: str, what: str, example: str) -> None:
        tallies.setdefault((does, what), _Counted()).add(row, example)

    templates: dict[Any, str] = {}
    for row, talk in talks.items():
        prompt = texts.prompt(row)
        for side in SIDES:
            said = [
                (key, text, message["role"], number)
                for number, message in enumerate((*talk["prompt"], *talk[side]))
                for key, text in _texts(message)
            ]
            fates = _fates(texts.whole(row, side), [(text, key == "content") for key, text, _, _ in said])
            for does, (key, text, role, number) in zip(fates, said, strict=True):
                if does is not None and (side == "chosen" or number >= len(talk["prompt"])):
                    note(row, does, f"the {key} of {role!r} messages", text)
        for tool in talk.get(TOOLS) or ():
            if (name := _name(tool)) and name not in prompt:
                note(row, "drops", "the tools", name)
        arguments = talk.get(ARGUMENTS, {})
        key = (repr(arguments.get("chat_template")), bool(talk.get(TOOLS)))
        if arguments and key not in templates:
            templates[key] = _template(texts.lm.tokenizer, arguments.get("chat_template"), talk.get(TOOLS))
        for argument in arguments:
            if argument != "chat_template" and not re.search(rf"\b{re.escape(argument)}\b", templates[key]):
                note(row, "does not read", f"the argument {argument!r} of {ARGUMENTS}", argument)
    for (does, what), tally in tallies.items():
        yield (
            f"In {len(tally.rows)} of {len(talks)} conversations the chat template {does} {what}: "
            f"{_short(tally.example)!r} (the first, pair {pair_name(texts.data, min(tally.rows))})."
        )


def _texts(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and text of what a message says."""
    for key in REASONING:
        if isinstance(text := message.get(key), str) and text.strip():
            yield key, text
    content = message.get("content") or ""
    for text in [content] if isinstance(content, str) else [part["text"] for part in content]:
        if text.strip():
            yield "content", text
    calls = message.get("tool_calls") or ()
    for call in calls if isinstance(calls, list) else ():
        if name := _name(call):
            yield "tool_calls", name


def _name(tool: Any) -> str:
    """What a tool or a call of one is named; empty where it is not said in the usual place."""
    inside = tool.get("function", tool) if isinstance(tool, dict) else None
    name = inside.get("name") if isinstance(inside, dict) else None
    return name if isinstance(name, str) else ""


def _fates(written: str, said: Sequence[tuple[str, bool]]) -> list[str | None]:
    """What a rendering does to each text, None where it writes it in its turn.

    Args:
        written: The rendering.
        said: Texts in the order in which they were said, and whether their order counts.
    """
    found: list[str | None] = []
    places: list[tuple[int, int]] = []
    at, in_order = 0, True
    for number, (text, ordered) in enumerate(said):
        spelled = _spelled(text)
        first = next((place for each in spelled if (place := written.find(each)) >= 0), -1)
        if first < 0:
            found.append(_fate(written, spelled[0]))
            continue
        found.append(None)
        if ordered:
            places.append((first, number))
            after = next((place for each in spelled if (place := written.find(each, at)) >= 0), -1)
            in_order &= after >= 0
            at = max(at, after + len(spelled[0]))
    if not in_order:
        stay = _increasing([place for place, _ in places])
        for _, number in [each for at, each in enumerate(places) if at not in stay]:
            found[number] = "moves"
    return found


def _spelled(text: str) -> list[str]:
    """Ways in which templates write a text: without the blanks around it, or as JSON."""
    bare = text.strip()
    return list(dict.fromkeys([bare, json.dumps(bare, ensure_ascii=False)[1:-1], json.dumps(bare)[1:-1]]))


def _fate(written: str, text: str) -> str:
    """What a rendering does to a text that is not in it as a whole."""
    lines = {line.strip() for line in (text[:_PART], text[-_PART:], *text.splitlines())} - {text}
    part = any(len(line) > 1 and line in written for line in lines)
    return "writes only a part of" if part else "drops or rewrites"


def _increasing(places: Sequence[int]) -> set[int]:
    """Indices of a longest part of the places that rises."""
    best: list[list[int]] = []
    for at, place in enumerate(places):
        before = max((each for each in best if places[each[-1]] <= place), key=len, default=[])
        best.append([*before, at])
    return set(max(best, key=len, default=[]))


def _template(tokenizer: Any, own: Any, tools: Any) -> str:
    return str(tokenizer.get_chat_template(own, tools))


# prompts -------------------------------------------------------------------------------------------------------------


def _made_equal(texts: RenderedTexts, talks: dict[int, Conversation]) -> Iterator[str]:
    """Different prompts that the template writes as the same text."""
    homes: dict[str, dict[str, list[int]]] = {}
    for row, talk in talks.items():
        read = repr([talk["prompt"], talk.get(TOOLS), talk.get(ARGUMENTS)])
        homes.setdefault(texts.prompt(row), {}).setdefault(read, []).append(row)
    several = [list(each.values()) for each in homes.values() if len(each) > 1]
    if not several:
        return
    against = 0
    for each in several:
        rows = [row for same in each for row in same]
        rejected = {texts.whole(row, "rejected") for row in rows}
        against += sum(texts.whole(row, "chosen") in rejected for row in rows)
    first, second = several[0][0][0], several[0][1][0]
    yield (
        f"In {sum(len(same) for each in several for same in each)} of {len(talks)} conversations the chat template "
        f"writes prompts that differ as the same text: those of {pair_name(texts.data, first)} and "
        f"{pair_name(texts.data, second)} (the first) are both {_short(texts.prompt(first))!r}"
        + (f"; {against} of these pairs then prefer what another rejects." if against else ".")
    )


def _closed(texts: RenderedTexts, talks: dict[int, Conversation]) -> Iterator[str]:
    """Prompts whose last turn is the assistant's, and closed before the response."""
    rows = []
    for row, talk in talks.items():
        last = talk["prompt"][-1]
        text = [text for key, text in _texts(last) if key == "content"]
        if last["role"] == "assistant" and text and not texts.prompt(row).rstrip().endswith(text[-1].strip()):
            rows.append(row)
    if rows:
        last = next(text for key, text in _texts(talks[rows[0]]["prompt"][-1]) if key == "content")
        yield (
            f"In {len(rows)} of {len(talks)} conversations the prompt ends with words of the assistant, which the chat "
            f"template closes, so that the response begins a turn of its own and does not go on from {_short(last)!r} "
            "(the first)."
        )


# time ----------------------------------------------------------------------------------------------------------------


def _of_the_time(texts: RenderedTexts, talks: dict[int, Conversation]) -> Iterator[str]:
    """Renderings that another moment, or another try, makes another text."""
    own = [talk.get(ARGUMENTS, {}).get("chat_template") for talk in talks.values()]
    held = " ".join(map(str, [getattr(texts.lm.tokenizer, "chat_template", None), *dict.fromkeys(map(repr, own))]))
    if not _CHANGING.search(held):
        return
    sample = [*talks][:: max(1, len(talks) // _SAMPLE)][:_SAMPLE]
    for later, when in _LATER:
        differ = [row for row in sample if texts.again(row, texts.moment + later) != texts.prompt(row)]
        if differ:
            before, after = texts.prompt(differ[0]), texts.again(differ[0], texts.moment + later)
            at = common_prefix(before, after)
            cut = slice(max(0, at - 20), at + 20)
            yield (
                f"The chat template writes other text {when}, in {len(differ)} of {len(sample)} conversations that "
                f"were rendered again: {before[cut]!r}, then {after[cut]!r}. Here all were rendered at "
                f"{texts.moment:%Y-%m-%d %H:%M:%S}; a later run reads other tokens."
            )
            return


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
