"""The five answers of an audit: on top of its page, and as text above the table on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefdyn.diagnostics.slices import said
from prefdyn.report.folders import RunFolder
from prefdyn.report.forecast import real_run_text
from prefdyn.report.pair_lists import example_pair
from prefdyn.report.tables import minus_signs, verdict_table
from prefdyn.report.text import cells, cut, padded, readable, shorten, telling, visible, wrapped


def answers_part(run: RunFolder, sections: list[str]) -> list[dict[str, Any]]:
    """The answers as the page has them, each with the section that shows its evidence, and the labels as pairs.

    Args:
        run: The folder of an audit; one without answers has none.
        sections: Ids of the sections that the page has.
    """
    found = []
    for row in run.part("answers") or []:
        evidence = row.get("evidence")
        found.append(
            {
                "kind": visible(row.get("kind", "")),
                "title": visible(row.get("title", "")),
                "sentence": minus_signs(readable(str(row.get("sentence", "")))),
                "section": evidence if evidence in sections else None,
                "pairs": _checked(run) if row.get("kind") == "labels" else [],
            }
        )
    return found


def answers_text(summary: Mapping[str, Any], *, width: int = 110) -> str:
    """The answers as lines of plain text, the labels to check below theirs; empty where there are none.

    Example:
        >>> row = {"title": "Learned first", "kind": "first", "sentence": "Manners: held-out loss falls by 0.3 nats."}
        >>> print(answers_text({"answers": [row]}))
        Learned first  Manners: held-out loss falls by 0.3 nats.
    """
    rows = summary.get("answers") or []
    if not rows:
        return ""
    titles = [visible(row.get("title", "")) for row in rows]
    size = max(map(cells, titles)) + 2
    lines = []
    for row, title in zip(rows, titles, strict=True):
        first, *rest = wrapped(visible(row["sentence"]), max(40, width - size))
        lines.append(padded(title, size) + first)
        lines += [" " * size + part for part in rest]
        if row.get("kind") == "labels":
            examples = (summary.get("examples") or {}).get("labels") or []
            lines += [" " * size + line for line in _label_lines(examples, max(40, width - size))]
    return "\n".join(lines)


def audit_text(summary: Mapping[str, Any]) -> str:
    """What an audit prints: the answers, the verdict per group, and what a forecast of the real run says beside it."""
    rows = summary.get("slices") or []
    cut_up = "\n".join(wrapped(visible(said(rows)), 110)) if rows else ""
    parts = (answers_text(summary), verdict_table(summary), cut_up, real_run_text(summary))
    return "\n\n".join(part for part in parts if part)


def _checked(run: RunFolder) -> list[dict[str, Any]]:
    """The labels to check as pairs, each with an excerpt of what tells it from the others."""
    rows = run.part("examples", "labels") or []
    prompts = telling([readable(str(row.get("prompt") or "")) for row in rows])
    found = []
    for row, prompt in zip(rows, prompts, strict=True):
        pair = example_pair(row)
        sides = [cut(side.strip(), _SIDE) for side in pair["sides"]]
        room = max(_SIDE, _EXCERPT - sum(map(cells, (visible(row.get("group", "")), *sides))))
        found.append({**pair, "sides": sides, "excerpt": cut(prompt, room)})
    return found


def _label_lines(examples: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """One line per label to check: the pair, what it asks, and what is chosen over what."""
    prompts = telling([str(example.get("prompt") or "") for example in examples])
    found = []
    for example, prompt in zip(examples, prompts, strict=True):
        head = f"{visible(example.get('id'))} ({shorten(visible(example.get('group')), _GROUP)})"
        sides = [visible(" ".join(str(example.get(side) or "").split())) for side in ("chosen", "rejected")]
        room = max(8, width - cells(head) - 2)
        third = max(6, room // 3 - 4)
        texts = f"{cut(visible(prompt), max(third, room - sum(map(cells, sides)) - 12))} → "
        found.append(cut(f"{head}: {texts}{cut(sides[0], third)} over {cut(sides[1], third)}", width))
    return found


_GROUP = 22
_SIDE = 17
"""Columns of one side in an excerpt,"""
_EXCERPT = 50
"""and of group, prompt and both sides together."""
