"""What a model reads of each pair: plain text, or a conversation as the model's chat template writes it."""

from pathlib import Path
from typing import Any, Literal

import jinja2

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError, ModelError
from prefdyn.models.load import LanguageModel
from prefdyn.models.rendering import RenderingError, render

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")


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
        key = repr((add_generation_prompt, messages))
        if key not in self._seen:
            template = f"the chat template of {self.lm.name}"
            pair = f"pair {pair_name(self.data, row)}"
            try:
                found = render(self.lm.tokenizer, messages, add_generation_prompt=add_generation_prompt)
            except RenderingError as error:
                raise ModelError(
                    f"{template} {error} on {pair}, so it was stopped; correct {_template_file(self.lm)}, or use "
                    "another model"
                ) from None
            except jinja2.TemplateSyntaxError as error:
                said = f"line {error.lineno}: {' '.join(str(error.message).split())[:160]}"
                raise ModelError(
                    f"{template} cannot be read ({said}); correct {_template_file(self.lm)}, or use another model"
                ) from error
            except Exception as error:
                said = " ".join(str(error).split())[:200]
                raise ModelError(f"{template} refuses {pair} ({said}); fix its turns") from error
            self._seen[key] = found
        return self._seen[key]


def _template_file(lm: LanguageModel) -> str:
    """Where the chat template of a model is written."""
    folder = Path(str(getattr(lm.tokenizer, "name_or_path", "")))
    found = next((name for name in ("chat_template.jinja", "tokenizer_config.json") if (folder / name).is_file()), None)
    return "it" if found is None else str(folder / found)


def pair_name(data: PreferenceDataset, row: int) -> str:
    """How an error calls a pair: its id, and where it was read."""
    one = data.table.slice(row, 1).to_pylist()[0]
    return f"{one['id']!r} ({one['source']}:{one['line']})" if one.get("source") else repr(one["id"])
