"""Anthropic's HH-RLHF dialogues: whole conversations on both sides that share all but the last answer, if all is well.

Reference: Bai et al. (2022), arXiv:2204.05862; files `*/train.jsonl.gz` and `*/test.jsonl.gz` of anthropics/hh-rlhf.
"""

from collections.abc import Mapping
from typing import Any

from prefdyn.data.bad_rows import BadRow, shown
from prefdyn.data.rows import GROUP_NAMES, Texts, common_prefix, text

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
USED = frozenset({"chosen", "rejected", "id", "weight", "split", *GROUP_NAMES})


def hh_texts(row: Mapping[str, Any]) -> Texts:
    r"""Prompt and responses of one dialogue pair.

    The prompt is everything up to and including the last `\n\nAssistant:`, found on each side by itself. The common
    prefix of the two sides is no substitute: it would eat the words that both answers begin with.

    Raises:
        BadRow: A side has no assistant turn, the two prompts differ, or a human turn follows the last answer.
    """
    prompts, answers = [], []
    for field in ("chosen", "rejected"):
        dialogue = text(row, field)
        cut = dialogue.rfind(ASSISTANT)
        if cut < 0:
            raise BadRow(
                field, f"has no turn that begins with {ASSISTANT!r} ({shown(dialogue)}); give a whole dialogue"
            )
        cut += len(ASSISTANT)
        if HUMAN in dialogue[cut:]:
            raise BadRow(
                field, f"ends with a human turn, so it has no last answer ({shown(dialogue[-40:])}); cut it off"
            )
        prompts.append(dialogue[:cut])
        answers.append(dialogue[cut:])
    if prompts[0] != prompts[1]:
        raise BadRow(
            "rejected",
            f"has another prompt than chosen ({len(prompts[0])} characters in chosen, {len(prompts[1])} in rejected, "
            f"first difference at character {common_prefix(*prompts) + 1}); a pair needs one prompt",
        )
    return Texts(prompt=prompts[0], chosen=answers[0], rejected=answers[1])
