"""The two answers of a two-answer dataset: which says yes, and other words for them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from prefdyn._shape import listed
from prefdyn.data.conversation import with_contents
from prefdyn.data.pairs import SCHEMA, PreferenceDataset
from prefdyn.errors import TokenError

_POSITIVE = frozenset((
    "yes", "y", "true", "t", "agree", "agreed", "agrees", "correct", "right", "good", "positive", "pos", "accept",
    "accepted", "approve", "ok", "okay", "1", "+", "+1",
))  # fmt: skip
_NEGATIVE = frozenset((
    "no", "n", "false", "f", "disagree", "disagreed", "disagrees", "incorrect", "wrong", "bad", "negative", "neg",
    "reject", "rejected", "deny", "0", "-", "-1",
))  # fmt: skip


def polarity(word: str) -> int:
    """+1 for a word that says yes, -1 for one that says no, 0 for any other.

    Example:
        >>> polarity(" Yes"), polarity("disagree."), polarity("blue")
        (1, -1, 0)
    """
    plain = word.strip().strip("()[].!\"'").lower() or word.strip()
    return int(plain in _POSITIVE) - int(plain in _NEGATIVE)


def answer_mapping(answers: Sequence[str], words: Iterable[str]) -> dict[str, str]:
    """The dataset's two answers → the words to use instead, positive first.

    Args:
        answers: Positive and negative word, or each as "OLD=NEW".
        words: Every answer of the dataset; blanks around it do not count.

    Raises:
        TokenError: There are not two answers on either side, or which is which cannot be told.
    """
    return _mapping(answers, sorted({word.strip() for word in words}))


def _mapping(answers: Sequence[str], given: list[str]) -> dict[str, str]:
    if len(answers) != 2:
        raise TokenError(f"answers {list(answers)!r} must be two words, positive then negative, such as Yes,No")
    if len(given) != 2:
        few = listed(given, most=4)
        raise TokenError(
            f"--answers is for data with two different answers, but this has {len(given)} ({few}); leave it out"
        )
    renamed = [word.partition("=") for word in answers]
    if (
        all(old.strip() in given and new.strip() for old, _, new in renamed)
        and renamed[0][0].strip() != renamed[1][0].strip()
    ):
        return {old.strip(): new for old, _, new in renamed}
    first, second = answers
    if first.strip() == second.strip():
        raise TokenError(
            f"answers {list(answers)!r} are the same word; give two, positive then negative, such as Yes,No"
        )
    folded = {word.lower(): word for word in given}
    if len(folded) == 2 and {first.strip().lower(), second.strip().lower()} == set(folded):
        return {folded[first.strip().lower()]: first, folded[second.strip().lower()]: second}
    lean, wanted = polarity(given[0]) - polarity(given[1]), polarity(first) - polarity(second)
    if lean:
        positive, negative = given if lean > 0 else given[::-1]
        return {negative: first, positive: second} if wanted < 0 else {positive: first, negative: second}
    initials = {word[0].lower(): word for word in given if word}
    if len(initials) == 2 and {first.strip()[0].lower(), second.strip()[0].lower()} == set(initials):
        return {initials[first.strip()[0].lower()]: first, initials[second.strip()[0].lower()]: second}
    raise TokenError(
        f"which of the answers {given[0]!r} and {given[1]!r} is {first!r} cannot be told; say it: "
        f"--answers '{given[0]}={first},{given[1]}={second}'"
    )


def with_answers(data: PreferenceDataset, answers: Sequence[str]) -> PreferenceDataset:
    """The dataset with other words for its two answers.

    Args:
        data: Pairs with two different answers in all.
        answers: Positive and negative answer to use instead, or each as "OLD=NEW".

    Raises:
        TokenError: There are not two answers on either side, or which is which cannot be told.

    Example:
        >>> data = PreferenceDataset.from_rows([{"prompt": "Do you?", "chosen": " agree", "rejected": " disagree"}])
        >>> with_answers(data, (" Yes", " No")).table["rejected"].to_pylist()
        [' No']
    """
    table = data.table
    sides = {side: table[side].to_pylist() for side in ("chosen", "rejected")}
    words = answer_mapping(answers, (*sides["chosen"], *sides["rejected"]))
    for side, texts in sides.items():
        at = SCHEMA.get_field_index(side)
        table = table.set_column(at, SCHEMA.field(at), pa.array([words[text.strip()] for text in texts], pa.string()))
    found = replace(data, table=table)
    if not data.conversational:
        return found
    return found.with_conversations(
        None if talk is None else with_contents(talk, lambda text: words.get(text.strip(), text))
        for talk in data.conversations
    )
