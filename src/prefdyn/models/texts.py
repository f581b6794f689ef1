"""What a model reads of each pair: plain text, or a conversation as the model's chat template writes it."""

import contextlib
import datetime
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jinja2

from prefdyn.data.conversation import ARGUMENTS, REASONING, TOOLS, content_text
from prefdyn.data.pairs import Conversation, PreferenceDataset
from prefdyn.errors import DataError, ModelError
from prefdyn.models.load import LanguageModel
from prefdyn.models.rendering import RATIO, TOTAL, Renderer, RenderingError, characters, limited

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
_BATCH = 256
"""Pairs that are rendered under one setting of the limits."""


class RenderedTexts:
    """The texts of a dataset under one model's chat template, every conversation rendered once, all at one moment."""

    def __init__(self, data: PreferenceDataset, lm: LanguageModel) -> None:
        """Args: the pairs, and the model whose chat template is used for conversations.

        Raises:
            DataError: There are no pairs.
            ModelError: A pair is a conversation and the tokenizer has no chat template.
        """
        if len(data) == 0:
            raise DataError(f"dataset {data.name!r} has no pairs; give at least one")
        self.data, self.lm = data, lm
        self.prompts, self.chosen, self.rejected = (
            data.table[name].to_pylist() for name in ("prompt", "chosen", "rejected")
        )
        self.talks = data.conversations
        """What the template reads of each pair; None where it is plain text."""
        self.moment = datetime.datetime.now()
        """What templates that ask for the time are told."""
        self._seen: dict[bytes, str] = {}
        self._rows: list[tuple[str, str, str] | None] = [None] * len(data)
        self._given = self._made = 0
        if getattr(lm.tokenizer, "chat_template", None) is None:
            self._refuse_conversations()

    def _refuse_conversations(self) -> None:
        for row, talk in enumerate(self.talks):
            if talk is not None and not talk.get(ARGUMENTS, {}).get("chat_template"):
                raise ModelError(
                    f"pair {pair_name(self.data, row)} is a conversation, but the tokenizer of {self.lm.name} has no "
                    "chat template; use a chat model, or give the prompt as plain text (for conversations of one turn "
                    'docs/data.md, "Conversations", has the line)'
                )

    def prompt(self, row: int) -> str:
        """The prompt of one pair; of a conversation up to where the assistant begins."""
        talk = self.talks[row]
        return self.prompts[row] if talk is None else self._rendered(row)[0]

    def whole(self, row: int, side: Side) -> str:
        """Prompt and response of one pair together; of a conversation with the template's end marks."""
        if self.talks[row] is None:
            return self.prompts[row] + (self.chosen if side == "chosen" else self.rejected)[row]
        return self._rendered(row)[1 if side == "chosen" else 2]

    def content(self, row: int, side: Side) -> str | None:
        """The response of one pair where it is one text: not several turns, nor a turn with reasoning or tool calls."""
        talk = self.talks[row]
        if talk is None:
            return (self.chosen if side == "chosen" else self.rejected)[row]
        (message, *more) = talk[side]
        return None if more or any(message.get(key) for key in (*REASONING, "tool_calls")) else content_text(message)

    def again(self, row: int, moment: datetime.datetime) -> str:
        """The prompt of one conversation, rendered anew at another moment."""
        talk = self.talks[row]
        assert talk is not None
        with limited(self.lm.tokenizer, moment=moment) as render, self._told(row):
            return _render(render, talk, None)

    def _rendered(self, row: int) -> tuple[str, str, str]:
        """Prompt, and prompt with chosen and with rejected, of one conversation."""
        if self._rows[row] is None:
            with limited(self.lm.tokenizer, moment=self.moment) as render:
                for at in range(row, min(row + _BATCH, len(self.talks))):
                    if (talk := self.talks[at]) is not None:
                        prompt, chosen, rejected = (self._once(at, talk, side, render) for side in (None, *SIDES))
                        self._rows[at] = prompt, chosen, rejected
        found = self._rows[row]
        assert found is not None
        return found

    def _once(self, row: int, talk: Conversation, side: Side | None, render: Renderer) -> str:
        """One rendering, unless the same was made before."""
        read = _read(talk, side)
        key = hashlib.blake2b(repr((side is None, read)).encode(), digest_size=16).digest()
        if key not in self._seen:
            with self._told(row):
                self._seen[key] = _render(render, talk, side)
                self._given += characters(*read)
                self._made += len(self._seen[key])
                if self._made > TOTAL and self._made > RATIO * self._given:
                    raise RenderingError(f"makes {self._made:,} characters of {self._given:,} in all pairs so far")
        return self._seen[key]

    @contextlib.contextmanager
    def _told(self, row: int) -> Iterator[None]:
        template = f"the chat template of {self.lm.name}"
        try:
            yield
        except RenderingError as error:
            raise ModelError(
                f"{template} {error} at pair {pair_name(self.data, row)}, so it was stopped; correct "
                f"{_template_file(self.lm)}, or use another model"
            ) from None
        except jinja2.TemplateSyntaxError as error:
            said = f"line {error.lineno}: {' '.join(str(error.message).split())[:160]}"
            raise ModelError(
                f"{template} cannot be read ({said}); correct {_template_file(self.lm)}, or use another model"
            ) from error
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"{template} refuses pair {pair_name(self.data, row)} ({said}); fix its turns") from error


def _read(talk: Conversation, side: Side | None) -> tuple[list[Any], Any, Any]:
    """Messages, tools and arguments that are rendered: of the prompt alone, or with a response."""
    turns = talk["prompt"] if side is None else [*talk["prompt"], *talk[side]]
    return turns, talk.get(TOOLS), talk.get(ARGUMENTS)


def _render(render: Renderer, talk: Conversation, side: Side | None) -> str:
    messages, tools, arguments = _read(talk, side)
    return render(messages, add_generation_prompt=side is None, tools=tools, arguments=arguments)


def _template_file(lm: LanguageModel) -> str:
    """Where the chat template of a model is written."""
    folder = Path(str(getattr(lm.tokenizer, "name_or_path", "")))
    found = next((name for name in ("chat_template.jinja", "tokenizer_config.json") if (folder / name).is_file()), None)
    return "it" if found is None else str(folder / found)


def pair_name(data: PreferenceDataset, row: int) -> str:
    """How an error calls a pair: its id, and where it was read."""
    one = data.table.slice(row, 1).to_pylist()[0]
    return f"{one['id']!r} ({one['source']}:{one['line']})" if one.get("source") else repr(one["id"])
