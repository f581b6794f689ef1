"""Exports of annotation tools: what people answered, nested beside the texts, laid out so that a mapping can name it.

Argilla: `records.to_json` and `to_list` (`fields`, `responses`, `suggestions`), and `to_datasets` and `to_hub`
(`QUESTION.responses` beside the fields). Label Studio: JSON (`data`, `annotations`) and JSON_MIN (a column per tag).
Every row keeps what it had; the texts and one column per question, a list with each person's answer, come to it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefdyn.data.columns import parsed, unpacked
from prefdyn.data.layouts import PROMPTS, field_text, twins, words_of
from prefdyn.data.readers import Row, RowSource

_ANSWERS, _STATUS, _SUGGESTED = ".responses", ".responses.status", ".suggestion"
_ARGILLA = frozenset({"fields", "responses", "suggestions"})
_STUDIO = frozenset({"data", "annotations"})
_STUDIO_FLAT = frozenset({"annotation_id", "lead_time"})
_SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Export:
    """An export, laid out."""

    tool: str
    source: RowSource
    says: str | None
    """The mapping that reads it, where what was asked and of which texts tells; else None."""
    suggests: str | None = None
    """A mapping to try where it does not."""


@dataclass(slots=True)
class _Task:
    """One row of an export."""

    texts: dict[str, Any]
    answers: dict[str, list[Any]] = field(default_factory=dict)
    """Of people, by question; only what was handed in."""
    proposed: dict[str, list[Any]] = field(default_factory=dict)
    """Of models, by question."""
    compared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of which texts a question asks, where the export says so."""


def is_export(names: Collection[str]) -> bool:
    """Whether columns are those of an export that is known here.

    Example:
        >>> is_export(["id", "fields", "responses", "suggestions"]), is_export(["prompt", "chosen", "rejected"])
        (True, False)
    """
    return _tool(set(names)) is not None


def _tool(names: set[str]) -> str | None:
    beside = ((_STATUS, ".status"), (f"{_SUGGESTED}.agent", ".agent"))
    flat = any(name.endswith(end) and name.removesuffix(cut) in names for name in names for end, cut in beside)
    if flat or names >= _ARGILLA:
        return "Argilla"
    return "Label Studio" if names >= _STUDIO or names >= _STUDIO_FLAT else None


def laid_out(source: RowSource) -> Export | None:
    """An export with its texts and answers as columns; None where the source is none.

    Answers that people began and never handed in, or discarded, are left out, and so are rows without an answer; both
    are told in the notes. Where nobody answered anything, what a model proposed is read instead.
    """
    names = set(source.names())
    tool = _tool(names)
    if tool is None:
        return None
    tasks = [_task(row, names, tool) for _, row in source.rows]
    questions = {name for task in tasks for name in (*task.answers, *task.proposed)}
    by_model = not any(task.answers for task in tasks) and any(task.proposed for task in tasks)
    rows: list[Row] = []
    for (line, row), task in zip(source.rows, tasks, strict=True):
        answers = task.proposed if by_model else task.answers
        if answers:
            rows.append((line, {**row, **task.texts, **{name: [] for name in questions}, **answers}))
    if not rows:
        return Export(tool, source, None)
    rows, says, hint = _mapping(rows, tasks, by_model=by_model, places=tool == "Label Studio")
    notes = list(source.notes)
    if left := len(source.rows) - len(rows):
        notes.append(f"{left:,} of {len(source.rows):,} rows of {source.label} have no answer and are left out.")
    if by_model:
        notes.append(f"Nobody answered in {source.label}, so what a model proposed there is read as the preference.")
    return Export(tool, replace(source, rows=rows, columns=None, notes=tuple(notes)), says, hint)


# one row --------------------------------------------------------------------------------------------------------------


def _task(row: Mapping[str, Any], names: Collection[str], tool: str) -> _Task:
    if tool == "Argilla":
        return _nested_record(row) if set(names) >= _ARGILLA else _flat_record(row, names)
    return _studio_task(row) if set(names) >= _STUDIO else _studio_row(row)


def _nested_record(row: Mapping[str, Any]) -> _Task:
    task = _Task({**_object(row.get("metadata")), **_object(row.get("fields"))})
    for question, given in _object(row.get("responses")).items():
        _keep(task.answers, question, [item.get("value") for item in _objects(given) if _handed_in(item.get("status"))])
    for question, given in _object(row.get("suggestions")).items():
        _keep(task.proposed, question, [_object(given).get("value")])
    return task


def _flat_record(row: Mapping[str, Any], names: Collection[str]) -> _Task:
    task = _Task({})
    for name in names:
        if name.endswith(_ANSWERS):
            values, states = _list(row.get(name)), _list(row.get(f"{name}.status"))
            states += [None] * (len(values) - len(states))
            kept = [value for value, state in zip(values, states, strict=False) if _handed_in(state)]
            _keep(task.answers, name.removesuffix(_ANSWERS), kept)
        elif name.endswith(_SUGGESTED):
            _keep(task.proposed, name.removesuffix(_SUGGESTED), [row.get(name)])
    return task


def _studio_task(row: Mapping[str, Any]) -> _Task:
    task = _Task(dict(_object(row.get("data"))))
    for kind, held in (("annotations", task.answers), ("predictions", task.proposed)):
        found: dict[str, list[Any]] = {}
        for given in _objects(row.get(kind)):
            if given.get("was_cancelled"):
                continue
            for result in _objects(given.get("result")):
                if result.get("type") == "pairwise" and isinstance(result.get("from_name"), str):
                    question = result["from_name"]
                    found.setdefault(question, []).append(_object(result.get("value")).get("selected"))
                    task.compared[question] = tuple(str(result.get("to_name")).split(","))
        for question, values in found.items():
            _keep(held, question, values)
    return task


def _studio_row(row: Mapping[str, Any]) -> _Task:
    task = _Task({})
    for name, value in row.items():
        values = [item.get("selected") for item in _objects(value) if "selected" in item]
        _keep(task.answers, name, values)
    return task


def _keep(held: dict[str, list[Any]], question: str, values: Sequence[Any]) -> None:
    if known := [value for value in values if value is not None]:
        held[question] = known


def _handed_in(status: Any) -> bool:
    return status in (None, "submitted")


def _value(value: Any) -> Any:
    return unpacked(parsed(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else value)


def _object(value: Any) -> Mapping[str, Any]:
    found = _value(value)
    return found if isinstance(found, Mapping) else {}


def _list(value: Any) -> list[Any]:
    found = _value(value)
    return list(found) if isinstance(found, (list, tuple)) else []


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in _list(value) if isinstance(item, Mapping)]


# what was asked -------------------------------------------------------------------------------------------------------


def _mapping(
    rows: list[Row], tasks: Sequence[_Task], *, by_model: bool, places: bool
) -> tuple[list[Row], str | None, str]:
    """The rows with rankings opened, the mapping that reads them where the export tells it, and one to try.

    Args:
        rows: Laid out, with an answer each.
        tasks: What they hold.
        by_model: What models proposed is read.
        places: Answers are left or right, which only the export can tell; else they name a text, or number it.
    """
    questions = list(dict.fromkeys(name for task in tasks for name in (task.proposed if by_model else task.answers)))
    texts = _texts(rows, questions)
    for question in questions:
        if opened := _ranking(rows, question, texts):
            rows, options = opened
            return rows, *_sure(_several(texts, options, [f"{question} of {name}" for name in options], "ranking"))
    rated = {name: question for question in questions for name in texts if _rates(question, name)}
    if len(rated) > 1:
        return rows, *_sure(_several(texts, list(rated), list(rated.values()), "ratings"))
    compared = {question: names for task in tasks for question, names in task.compared.items()}
    asked = [question for question in questions if _chooses(rows, question)]
    told = compared.get(asked[0]) if len(asked) == 1 else None
    pair = _pair(texts, told)
    winner = "+".join(map(field_text, asked)) or "FIELD"
    if pair is None:
        return rows, None, f"prompt={_prompt(texts, ()) or 'FIELD'},first=FIELD,second=FIELD,winner={winner}"
    says = f"prompt={_prompt(texts, pair) or 'FIELD'},first={field_text(pair[0])},second={field_text(pair[1])}"
    says = f"{says},winner={winner}"
    if len(asked) != 1 or (places and told != pair):
        return rows, None, says
    return [(line, row) for line, row in rows if row[asked[0]]], *_sure(says)


def _sure(says: str) -> tuple[str | None, str]:
    return (None if "FIELD" in says else says), says


def _texts(rows: Sequence[Row], questions: Collection[str]) -> list[str]:
    """Columns that hold texts or messages, without those of questions and of the tools themselves."""
    own = {"id", "status", "_server_id", "external_id", "annotator", "annotation_id", "created_at", "updated_at"}
    names = dict.fromkeys(name for _, row in rows for name in row)
    found = []
    for name in names:
        if name in questions or name in own or any(name.startswith(f"{question}.") for question in questions):
            continue
        if any(isinstance(row.get(name), str) or _says(row.get(name)) for _, row in rows):
            found.append(name)
    return found


def _says(value: Any) -> bool:
    held = unpacked(value)
    return isinstance(held, list) and bool(held) and isinstance(held[0], Mapping) and "role" in held[0]


def _chooses(rows: Sequence[Row], question: str) -> bool:
    """Whether a question asks for one of a few: few answers, all short, and words unless its name says so."""
    found = {value for _, row in rows for value in row[question] if isinstance(value, (str, int))}
    named = bool(words_of(question) & {"preference", "preferred", "winner", "choice", "choose", "better", "best"})
    worded = any(isinstance(value, str) for value in found)
    return 0 < len(found) <= 4 and all(len(str(value)) < 40 for value in found) and (named or worded)


def _rates(question: str, name: str) -> bool:
    """Whether a question is a rating of one text, by its name: `NAME-rating`, `rating_NAME`."""
    rest = words_of(question.replace(name, " ")) if name in question else set()
    return bool(rest & {"rating", "score"})


def _ranking(rows: list[Row], question: str, texts: Collection[str]) -> tuple[list[Row], list[str]] | None:
    """Rows with a column `QUESTION of NAME` for every text that a question ranks; None where it is no such ranking."""
    held = [[_objects(value) for value in row[question]] for _, row in rows]
    ranks = [item for each in held for ranked in each for item in ranked]
    options = list(dict.fromkeys(str(item.get("value")) for item in ranks))
    if not ranks or not all("rank" in item for item in ranks) or not set(options) <= set(texts):
        return None
    options.sort(key=list(texts).index)
    opened: list[Row] = []
    for (line, row), answers in zip(rows, held, strict=True):
        places: dict[str, list[Any]] = {f"{question} of {name}": [] for name in options}
        for ranked in answers:
            known = {str(item.get("value")): item.get("rank") for item in ranked}
            for name in options:
                places[f"{question} of {name}"].append(known.get(name))
        opened.append((line, {**row, **places}))
    return opened, options


def _several(texts: Sequence[str], options: Sequence[str], judged: Sequence[str], role: str) -> str:
    one, two = ("+".join(map(field_text, each)) for each in (options, judged))
    return f"prompt={_prompt(texts, options) or 'FIELD'},responses={one},{role}={two},pairs=best"


def _pair(texts: Sequence[str], compared: Sequence[str] | None) -> tuple[str, str] | None:
    """The two texts of a question: those that the export names, or the two whose names differ by a mark alone."""
    if compared is not None and len(compared) == 2 and set(compared) <= set(texts):
        return compared[0], compared[1]
    if set(_SIDES) <= set(texts):
        return _SIDES
    first, second = twins(texts)
    return (first, second) if first is not None and second is not None else None


def _prompt(texts: Sequence[str], used: Collection[str]) -> str | None:
    """The column of the prompt: the first with a usual name, or the only text that is left."""
    left = [name for name in texts if name not in used]
    usual = (name for word in PROMPTS for name in left if word in words_of(name))
    found = next(usual, left[0] if len(left) == 1 else None)
    return None if found is None else field_text(found)
