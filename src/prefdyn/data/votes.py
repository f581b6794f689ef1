"""Who won: how people write it, and what several votes come to."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from prefdyn.data.bad_rows import BadRow, kind, listed, shown
from prefdyn.data.columns import MISSING
from prefdyn.errors import DataError

FIRST, SECOND, TIE = 1, 2, 0
Vote = int | None
"""`FIRST`, `SECOND`, `TIE`, or None where nobody voted."""
Reader = Callable[[Any], Vote]

_WORDS: dict[int, frozenset[str]] = {
    FIRST: frozenset({"a", "first", "left", "model_a", "response_a", "answer_a", "assistant_a", "[[a]]", "option_a"}),
    SECOND: frozenset({"b", "second", "right", "model_b", "response_b", "answer_b", "assistant_b", "[[b]]",
                       "option_b"}),
    TIE: frozenset({"tie", "ties", "tie (bothbad)", "tie (both bad)", "both", "both_bad", "bothbad", "both_good",
                    "neither", "same", "equal", "draw", "c", "[[c]]", "no preference", "no_preference"}),
}  # fmt: skip
_NUMBERED = re.compile(r"[12]")
_SIGNS = ("negative", "positive")
_SHOWN = 6


def reader(values: Iterable[Any], *, first: str, second: str, asked: str | None, label: str, field: str) -> Reader:
    """How the winners of a source are written, from all of them.

    Numbers are 1 and 2 with 0 for ties, or 0 and 1; where those that occur do not tell, the names of the two columns
    do if they are numbered. Words are letters, `model_a`, `tie` and the like, and the names of the two columns.

    Args:
        values: Every winner of the source.
        first: Name of the column of the first response.
        second: Name of the column of the second.
        asked: `values=` of the mapping.
        label: The source, for messages.
        field: The winner's field, for messages.

    Raises:
        DataError: The values do not tell which means which; names them, and what to write.

    Example:
        >>> read = reader([1, 2, 0], first="a", second="b", asked=None, label="x.csv", field="winner")
        >>> [read(value) for value in (1, "2", 0.0, None)]
        [1, 2, 0, None]
    """
    if asked is not None:
        return _as_asked(asked, field)
    tokens = {token: None for value in values if (token := _token(value)) is not None}
    numbers = {token for token in tokens if re.fullmatch(r"-?[\d.]+", token)}
    words = {
        **{word: vote for vote, each in _WORDS.items() for word in each},
        _token(first): FIRST,
        _token(second): SECOND,
    }
    ends = [match[0] if (match := re.search(r"\d+$", name)) else None for name in (first, second)]
    whole: dict[str, int] | None = None
    if numbers <= {"0", "1", "2"} and ("2" in numbers or (ends == ["1", "2"] and numbers <= {"1", "2"})):
        whole = {"1": FIRST, "2": SECOND, "0": TIE}
    elif numbers <= {"0", "1"} and (len(numbers) == 2 or ends == ["0", "1"]):
        whole = {"0": FIRST, "1": SECOND}
    told = {**{word: vote for word, vote in words.items() if word is not None}, **(whole or {})}
    odd = [token for token in tokens if token not in told]
    if odd and (numbers or len(odd) == len(tokens)):
        held = listed(list(tokens), most=_SHOWN)
        raise DataError(
            f"{label}: field {field!r} holds {held}, which does not tell whether the first or the second is meant; "
            "add to --columns values=FIRST/SECOND/TIE, such as values=1/2/0, values=true/false or "
            "values=negative/positive"
        )
    return _told(told, field)


def _token(value: Any) -> str | None:
    """One spelling for the same value: 1, 1.0 and "1" are one."""
    if value is MISSING or kind(value) == "null":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().casefold()
    return text or None


def _told(told: dict[str, int], field: str) -> Reader:
    def read(value: Any) -> Vote:
        token = _token(value)
        if token is None:
            return None
        if token not in told:
            raise BadRow(field, f"is {shown(value)}, but the others say {listed(sorted(told), most=_SHOWN)}; mend it")
        return told[token]

    return read


def _as_asked(asked: str, field: str) -> Reader:
    parts = [[_token(word) for word in part.split("|")] for part in asked.split("/")]
    if [part[0] for part in parts[:2]] in (list(_SIGNS), list(_SIGNS[::-1])):
        down = FIRST if parts[0][0] == _SIGNS[0] else SECOND

        def read(value: Any) -> Vote:
            if _token(value) is None:
                return None
            amount = number(value, field)
            return TIE if amount == 0 else down if amount < 0 else FIRST + SECOND - down

        return read
    votes = (FIRST, SECOND, TIE)
    return _told(
        {word: vote for vote, part in zip(votes, parts, strict=False) for word in part if word is not None}, field
    )


def number(value: Any, field: str) -> float:
    """A rating, rank or score as a number.

    Raises:
        BadRow: It is none.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise BadRow(field, f"is {kind(value)} ({shown(value)}), but must be a number") from None
    return found


class Verdict(NamedTuple):
    """What votes come to."""

    winner: int
    """`FIRST`, `SECOND` or `TIE`."""
    share: float
    """Share of the votes that are for the winner, ties among the votes included; in (0, 1]."""
    votes: int


def majority(votes: Sequence[Vote], field: str) -> Verdict:
    """What most of the votes say; a tie where no answer has more than every other.

    Raises:
        BadRow: Nobody voted.

    Example:
        >>> [majority(votes, "winner").winner for votes in ([1, 1, 2], [1, 2], [0, 0, 1])]
        [1, 0, 0]
    """
    cast = [vote for vote in votes if vote is not None]
    if not cast:
        raise BadRow(field, "is null, so nobody says which is better; give a value")
    counts = Counter(cast).most_common()
    winner, most = counts[0]
    if len(counts) > 1 and counts[1][1] == most:
        return Verdict(TIE, cast.count(TIE) / len(cast), len(cast))
    return Verdict(winner, most / len(cast), len(cast))
