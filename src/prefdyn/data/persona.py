"""Anthropic's Persona evaluations: a statement per row, the answer that fits the behaviour and the one that does not.

Reference: Perez et al. (2022), "Discovering Language Model Behaviors with Model-Written Evaluations"; files
`persona/*.jsonl` of anthropics/evals.
"""

from collections.abc import Mapping
from typing import Any

from prefdyn._checks import one_of
from prefdyn.data.rows import GROUP_NAMES, Parser, Texts, texts_of

TEMPLATES = {"question": ("question", ""), "question+newline": ("question", "\n"), "statement": ("statement", "")}
"""Template → the field that is the prompt, and what is appended to it. `question` is what last-layer runs of
arXiv:2403.18742 use; the answers follow as " Yes" and " No"."""
CHOSEN, REJECTED = "answer_matching_behavior", "answer_not_matching_behavior"
USED = frozenset({"question", "statement", CHOSEN, REJECTED, "id", "weight", "split", *GROUP_NAMES})


def persona_parser(template: str | None) -> Parser:
    r"""The reader of one Persona row under a template (`question` unless given).

    Raises:
        ConfigError: The template is unknown.

    Example:
        >>> row = {"question": "Q?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
        >>> persona_parser("question+newline")(row).prompt
        'Q?\n'
    """
    field, ending = TEMPLATES[one_of(template or "question", TEMPLATES, name="template")]

    def texts(row: Mapping[str, Any]) -> Texts:
        prompt, chosen, rejected = texts_of(row, field, CHOSEN, REJECTED)
        return Texts(prompt=prompt + ending, chosen=chosen, rejected=rejected)

    return texts
