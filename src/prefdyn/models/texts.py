"""What a model reads of each pair: plain text, or a conversation as the model's chat template writes it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jinja2

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError, ModelError
from prefdyn.models.load import LanguageModel
from prefdyn.models.rendering import RATIO, TOTAL, Renderer, RenderingError, limited

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
_BATCH = 256
"""Pairs that are rendered under one setting of the limits."""


class Texts:
    """The texts of a dataset under one model's chat template, every conversation rendered once."""

    def __init__(self, data: PreferenceDataset, lm: LanguageModel) -> None:
        """Args: the pairs, and the model whose chat template is used for conversations.

        Raises:
            DataError: There are no pairs.
            ModelError: A pair is a conversation and the tokenizer has no chat template.
        """
        if len(data) == 0:
            raise DataError(f"dataset {data.name!r} has no pairs; give at least one")
        self.data, self.lm = data, lm
        table = data.table
        self.prompts, self.chosen, self.rejected = (
            table[name].to_pylist() for name in ("prompt", "chosen", "rejected")
        )
        self.talks: list[Any] = table["conversation"].to_pylist() if data.conversational else [None] * len(data)
        """The messages of each pair; None where it is plain text."""
        self._seen: dict[str, str] = {}
        self._given = self._made = 0
        if data.conversational and getattr(lm.tokenizer, "chat_template", None) is None:
            row = next(row for row, talk in enumerate(self.talks) if talk is not None)
            raise ModelError(
                f"pair {pair_name(data, row)} is a conversation, but the tokenizer of {lm.name} has no chat template; "
                "use a chat model, or give the prompt as plain text"
            )

    def prompt(self, row: int) -> str:
        """The prompt of one pair; of a conversation up to where the assistant begins."""
        talk = self.talks[row]
        return self.prompts[row] if talk is None else self._rendered(row, talk["prompt"], add_generation_prompt=True)

    def whole(self, row: int, side: Side) -> str:
        """Prompt and response of one pair together; of a conversation with the template's end marks."""
        talk = self.talks[row]
        if talk is None:
            return self.prompts[row] + (self.chosen if side == "chosen" else self.rejected)[row]
        return self._rendered(row, [*talk["prompt"], *talk[side]], add_generation_prompt=False)

    def _rendered(self, row: int, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        key = _key(messages, add_generation_prompt)
        if key not in self._seen:
            with limited(self.lm.tokenizer) as render:
                for at in range(row, min(row + _BATCH, len(self.talks))):
                    self._render(at, render)
        return self._seen[key]

    def _render(self, row: int, render: Renderer) -> None:
        """Prompt and both sides of one pair, unless they were seen before."""
        talk = self.talks[row]
        if talk is None:
            return
        wholes = ((talk["prompt"] + talk[side], False) for side in SIDES)
        for messages, add_generation_prompt in ((talk["prompt"], True), *wholes):
            key = _key(messages, add_generation_prompt)
            if key not in self._seen:
                with self._told(row):
                    self._seen[key] = render(messages, add_generation_prompt=add_generation_prompt)
                    self._given += sum(len(str(value)) for message in messages for value in message.values())
                    self._made += len(self._seen[key])
                    if self._made > TOTAL and self._made > RATIO * self._given:
                        raise RenderingError(f"makes {self._made:,} characters of {self._given:,} in all pairs so far")

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


def _key(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    return repr((add_generation_prompt, messages))


def _template_file(lm: LanguageModel) -> str:
    """Where the chat template of a model is written."""
    folder = Path(str(getattr(lm.tokenizer, "name_or_path", "")))
    found = next((name for name in ("chat_template.jinja", "tokenizer_config.json") if (folder / name).is_file()), None)
    return "it" if found is None else str(folder / found)


def pair_name(data: PreferenceDataset, row: int) -> str:
    """How an error calls a pair: its id, and where it was read."""
    one = data.table.slice(row, 1).to_pylist()[0]
    return f"{one['id']!r} ({one['source']}:{one['line']})" if one.get("source") else repr(one["id"])
