"""Where the one-token answers of a pair stand in the two conversations that hold them, as a template wrote them."""

from typing import NamedTuple

from prefdyn.data.rows import common_prefix

_SPELLINGS = (str, str.strip, str.lstrip, str.rstrip)
"""How templates write a content: as it is, or without the blanks around it."""


class AnswerPlace(NamedTuple):
    """The place of two answers."""

    before: str
    """What stands before both of them."""
    chosen: str
    """The answer as it is written."""
    rejected: str


def answer_place(chosen_whole: str, rejected_whole: str, chosen: str, rejected: str) -> AnswerPlace | None:
    """The only place at which the two conversations differ, if what stands there are the answers.

    Args:
        chosen_whole: The conversation with the chosen answer.
        rejected_whole: The same with the rejected one.
        chosen: The chosen answer, which need not be written with the blanks around it.
        rejected: The rejected answer.

    Returns:
        The place; None where the answers are written otherwise, twice, or with other words around them.

    Example:
        >>> answer_place("<think></think>Yes</s>", "<think></think>No</s>", " Yes", " No")
        AnswerPlace(before='<think></think>', chosen='Yes', rejected='No')
        >>> answer_place("YES</s>", "NO</s>", "Yes", "No") is None
        True
    """
    alike = common_prefix(chosen_whole, rejected_whole)
    for spelling in _SPELLINGS:
        first, second = spelling(chosen), spelling(rejected)
        if not first or not second:
            continue
        for at in range(max(0, alike - min(len(first), len(second))), alike + 1):
            rests = [
                whole[at + len(word) :] if whole.startswith(word, at) else None
                for whole, word in ((chosen_whole, first), (rejected_whole, second))
            ]
            if rests[0] is not None and rests[0] == rests[1]:
                return AnswerPlace(chosen_whole[:at], first, second)
    return None
