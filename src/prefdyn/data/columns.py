"""`--columns`: which fields of a row hold the prompt, the responses, and what people said of them.

    prompt=instruction+input?,first=response1,second=response2,winner=annotator1+annotator2+annotator3

Roles and what they take, a field or several with `+` between:

| role | is |
|---|---|
| `prompt`, `system`, `history` | what comes before the response; several texts are joined by a line break |
| `chosen`, `rejected` | the responses; where one is a list of texts, one against several |
| `first`, `second`, `winner` | two responses, and who won; several winners are votes of several people |
| `responses` with `ratings`, `ranking` or `comparisons` | any number: higher is better, 1 is best, every two in turn |
| `group`, `id`, `weight`, `split`, `cluster`, `tools` | as the columns of these names |
| `each` | a list or object inside the row whose items are rows of their own, with the outer fields beside them |
| `raters` | names of those whose votes are apart, as fields or as a list |

and three settings: `values=A/B/TIE` (how a winner is written; several spellings with `|`; `negative/positive` for the
sign of a number), `votes=majority` or `each` (every vote a pair of its own), `pairs=best` or `all`.

A field is a column, or a dotted path into nested rows (`completions.response`, `summaries.0.text`, `*` for all items);
a `?` behind it says that it may be missing; double quotes keep a name with `. + , = ?` whole. `@file`, `@folder`,
`@line`, `@key` (of `each`), `@rater`, `@pair` (the two places) and `@votes` (share of votes for the chosen) stand for
what is in no field.
"""

import ast
import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from prefdyn._checks import nearest
from prefdyn._json import read_json
from prefdyn._shape import kind, listed, shown
from prefdyn.errors import ConfigError

SETTINGS = ("values", "votes", "pairs")
SPECIAL = ("@file", "@folder", "@line", "@key", "@rater", "@pair", "@votes")
_FILES = (".yaml", ".yml")


class Field(NamedTuple):
    """Where a value stands in a row."""

    name: str
    """As it was written, without quotes."""
    steps: tuple[str, ...]
    """From the row inwards."""
    optional: bool = False

    @property
    def column(self) -> str:
        """The outermost column."""
        return self.steps[0]

    def __str__(self) -> str:
        return ".".join(map(_quoted, self.steps)) + ("?" if self.optional else "")


Fields = tuple[Field, ...]
Rows = Callable[[Mapping[str, Any]], Any]
"""A mapping as a function: from a row to a row with prompt, chosen and rejected, a list of such, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A mapping from fields of rows to what they mean; see the module.

    Raises:
        ConfigError: The roles do not go together.
    """

    prompt: Fields = ()
    system: Fields = ()
    history: Fields = ()
    """A list of turns, each a question and its answer."""
    chosen: Fields = ()
    rejected: Fields = ()
    first: Fields = ()
    second: Fields = ()
    winner: Fields = ()
    responses: Fields = ()
    ratings: Fields = ()
    ranking: Fields = ()
    comparisons: Fields = ()
    group: Fields = ()
    id: Fields = ()
    weight: Fields = ()
    split: Fields = ()
    cluster: Fields = ()
    tools: Fields = ()
    each: Fields = ()
    raters: Fields = ()
    values: str | None = None
    votes: str | None = None
    pairs: str | None = None

    def __post_init__(self) -> None:
        judged = [role for role in ("ratings", "ranking", "comparisons") if getattr(self, role)]
        ways = {
            "chosen and rejected": (self.chosen, self.rejected),
            "first, second and winner": (self.first, self.second, self.winner),
            "responses with ratings, ranking or comparisons": (self.responses, tuple(judged)),
        }
        begun = [way for way, parts in ways.items() if any(parts)]
        if len(begun) != 1 or not all(ways[begun[0]]) or len(judged) > 1:
            fix = "give " + ", or ".join(ways)
            given = [role for role in ROLES if getattr(self, role)]
            raise ConfigError(f"--columns names {listed(given, most=20)}, which makes no pairs; {fix}, and one of them")
        for role, known in (("votes", ("majority", "each")), ("pairs", ("best", "all"))):
            value = getattr(self, role)
            if value is not None and value not in known:
                raise ConfigError(f"--columns: {role}={value} is unknown{nearest(value, known)}")
        if self.values is not None and not 2 <= len(self.values.split("/")) <= 3:
            raise ConfigError(
                f"--columns: values={self.values} must be two or three with '/' between: for the first, for the "
                "second, and for ties, such as values=1/2/0"
            )

    def __str__(self) -> str:
        roles = [f"{role}={'+'.join(map(str, found))}" for role in ROLES if (found := getattr(self, role))]
        return ",".join([*roles, *(f"{name}={value}" for name in SETTINGS if (value := getattr(self, name)))])

    @property
    def needed(self) -> frozenset[str]:
        """Outermost columns without which no row can be read; of what lies inside `each`, none is known."""
        inside = (self.each,) if self.each else tuple(getattr(self, role) for role in ROLES)
        found = (field for group in inside for field in group if not field.optional)
        return frozenset(field.column for field in found if not field.column.startswith("@"))

    @property
    def read(self) -> frozenset[str]:
        """Every outermost column that is looked at."""
        found = (field for role in ROLES for field in getattr(self, role))
        return frozenset(name for field in found for name in (field.column, field.name))


ROLES = tuple(item.name for item in fields(Columns) if item.name not in SETTINGS)


def columns(given: "str | Path | Mapping[str, Any] | Columns") -> Columns:
    """The mapping that a text, a YAML file, or a dictionary of roles says.

    Args:
        given: `role=field+field,…`, the path of a `.yaml` file with a line `role: field` or `role: [field, field]` for
            each, or such a dictionary.

    Raises:
        ConfigError: A role is unknown, said twice or empty, a field is none, or the roles do not go together.

    Example:
        >>> str(columns("prompt=question,chosen=good,rejected=bad.0"))
        'prompt=question,chosen=good,rejected=bad.0'
        >>> columns({"prompt": "q", "first": "a", "second": "b", "winner": ["x", "y"]}).winner[1].name
        'y'
    """
    if isinstance(given, Columns):
        return given
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith(_FILES) and "=" not in given):
        return _from_file(Path(given))
    pairs = list(given.items()) if isinstance(given, Mapping) else _pieces(given)
    roles: dict[str, Any] = {}
    for role, value in pairs:
        if role not in ROLES and role not in SETTINGS:
            raise ConfigError(f"--columns: {role!r} is no role{nearest(str(role), [*ROLES, *SETTINGS])}")
        if role in roles:
            raise ConfigError(f"--columns: {role} is said twice; give several fields as {role}=one+other")
        if role in SETTINGS:
            if isinstance(value, (list, tuple)):
                value = "/".join(map(str, value))
            roles[role] = str(value).strip()
            continue
        parts = value if isinstance(value, (list, tuple)) else [value]
        texts = [part for each in parts for part in _split(_text(each, role), "+")]
        roles[role] = tuple(_field(text, role) for text in texts)
    return Columns(**roles)


def _from_file(path: Path) -> Columns:
    import yaml

    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"--columns {path} cannot be read: {why}; give a YAML file of `role: field` lines") from error
    held = held.get("columns", held) if isinstance(held, dict) else held
    if isinstance(held, str):
        return columns(held)
    if not isinstance(held, dict):
        raise ConfigError(f"--columns {path} holds {kind(held)}, but must hold `role: field` lines")
    return columns({str(role): value for role, value in held.items()})


def _text(value: Any, role: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ConfigError(f"--columns: {role} is {kind(value)} ({shown(value)}), but must name fields")
    return str(value)


def _pieces(text: str) -> list[tuple[str, str]]:
    """The `role=fields` of a text, apart."""
    found = []
    for piece in _split(text, ","):
        role, equals, value = piece.partition("=")
        if not equals:
            raise ConfigError(
                f"--columns: {shown(piece)} is no role=field; write such as prompt=question,chosen=good,rejected=bad"
            )
        found.append((role.strip(), value))
    return found


def _split(text: str, mark: str) -> list[str]:
    """Parts of a text between marks that stand outside of double quotes.

    Raises:
        ConfigError: A quote is not closed.
    """
    parts = re.findall(rf'(?:"(?:[^"]|"")*"|[^"{re.escape(mark)}])+|{re.escape(mark)}', text)
    if "".join(parts) != text:
        raise ConfigError(f"--columns: a double quote in {shown(text)} is not closed; close it, or write it twice")
    return [part for part in parts if part != mark]


def _field(text: str, role: str) -> Field:
    text = text.strip()
    optional = text.endswith("?")
    text = text.removesuffix("?").strip()
    steps = tuple(_unquoted(step) for step in _split(text, "."))
    if not steps or not all(steps):
        raise ConfigError(f"--columns: {role}={text} names no field; leave the role out, or name a column")
    if steps[0].startswith("@") and text in SPECIAL:
        return Field(text, (text,), optional)
    if steps[0].startswith("@") and '"' not in text:
        raise ConfigError(f"--columns: {role}={text} is no field{nearest(text, SPECIAL)}")
    return Field(_unquoted(text) if len(steps) == 1 else text.replace('"', ""), steps, optional)


def _unquoted(text: str) -> str:
    if '"' not in text:
        return text.strip()
    return next(csv.reader([text.strip()]))[0]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if re.search(r'[.+,=?"]', text) else text


def lookup(row: Mapping[str, Any], field: Field) -> Any:
    """The value of a field; `MISSING` where there is none. Items of a list are looked at one by one.

    Example:
        >>> lookup({"a": [{"b": 1}, {"b": 2}]}, Field("a.b", ("a", "b")))
        [1, 2]
    """
    if field.name in row:
        return row[field.name]
    return _walk(row, field.steps)


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def _walk(value: Any, steps: tuple[str, ...]) -> Any:
    for at, step in enumerate(steps):
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            value = parsed(value)
        value = unpacked(value)
        if isinstance(value, Mapping):
            if step == "*":
                return [_walk(item, steps[at + 1 :]) for item in value.values()]
            if step not in value:
                return MISSING
            value = value[step]
        elif isinstance(value, (list, tuple)):
            if step.isdecimal():
                if int(step) >= len(value):
                    return MISSING
                value = value[int(step)]
            else:
                return [_walk(item, steps[at + (step == "*") :]) for item in value]
        else:
            return MISSING
    return value


def unpacked(value: Any) -> Any:
    """An array, in which pandas keeps nested columns, as a list; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def parsed(text: str) -> Any:
    """What a text holds that was a list or an object: JSON, or as Python or NumPy write it; the text where it is none.

    Example:
        >>> parsed("[{'role': 'user', 'content': 'Hi'}]")
        [{'role': 'user', 'content': 'Hi'}]
    """
    try:
        return read_json(text.encode())
    except ValueError:
        pass
    for written in (text, re.sub(r"\}\s*\n?\s*\{", "}, {", text)):  # NumPy writes no commas
        try:
            return ast.literal_eval(written.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text
