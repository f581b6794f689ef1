"""A dataset's description as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefdyn.data.preflight import plural
from prefdyn.report.text import cells, cut, padded, shorten, visible

_MARKS = {"problem": "✗", "warning": "!", "note": "·"}
_LEFT_OUT_SHOWN = 10
_LISTED = 200
"""Groups, and findings, that the text lists."""


def data_table(described: Mapping[str, Any]) -> str:
    """Sizes, answers and lengths per group, then the rows left out and the findings.

    Args:
        described: The result of `prefdyn.data.describe.describe`, with the keys `findings` and `left_out_rows` added.

    Returns:
        Lines joined by newlines. Names and texts are shown without control characters.
    """
    head = (
        f"{visible(described['name'])}: {plural(described['pairs'])}, {plural(len(described['groups']), 'group')}, "
        f"{described['prompts']} distinct prompts, kind {described['kind']}"
    )
    rows = [["group", "pairs", "prompts", "prompt chars", "chosen chars", "rejected chars", "chosen how often"]]
    for group in described["groups"][:_LISTED]:
        lengths = [f"{group['lengths'][side]['median']:.0f} / {group['lengths'][side]['max']}" for side in _SIDES]
        answers = group["answers"] or []
        balance = ", ".join(f"{visible(item['text'])!r} {item['chosen']}" for item in answers) or "–"
        rows.append(
            [shorten(visible(group["name"]), 44), str(group["pairs"]), str(group["prompts"]), *lengths, balance]
        )
    table, more = _aligned(rows), len(described["groups"]) - _LISTED
    if more > 0:
        table.append(f"… and {more:,} more groups (--json lists all)")
    lines = [head, "", *table, "", "chars: median / longest"]
    left_out: Sequence[Mapping[str, Any]] = described.get("left_out_rows", [])
    if left_out:
        lines += ["", f"{len(left_out)} rows left out:"]
        for row in left_out[:_LEFT_OUT_SHOWN]:
            lines.append(f"  {visible(row['source'])} line {row['line']}: {row['field']} {visible(row['reason'])}")
        if len(left_out) > _LEFT_OUT_SHOWN:
            lines.append(f"  … and {len(left_out) - _LEFT_OUT_SHOWN} more (--json lists all)")
    lines += _contradictions(described.get("contradictions") or [])
    if described["findings"]:
        lines += ["", "Findings:"]
        for finding in described["findings"][:_LISTED]:
            where = f"{visible(finding['group'])}: " if finding["group"] else ""
            lines.append(f"  {_MARKS.get(finding['severity'], '·')} {where}{visible(finding['says'])}")
        if (more := len(described["findings"]) - _LISTED) > 0:
            lines.append(f"  … and {more:,} more findings (--json lists all)")
    return "\n".join(lines)


def _contradictions(couples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Pairs that contradict each other, with the start of their texts."""
    lines = (
        ["", "Contradictions (the first; at most one of two can be right, if what differs does not decide):"]
        if couples
        else []
    )
    for couple in couples:
        one, other = couple["first"], couple["second"]
        same = "nearly the same" if couple["near"] else "the same"
        lines.append(f"  {_name(one)} and {_name(other)}: {same} prompt, {_excerpt(one['prompt'], 60)}")
        lines += [f"    {_excerpt(each['chosen'], 40)} over {_excerpt(each['rejected'], 40)}" for each in (one, other)]
    return lines


def _name(pair: Mapping[str, Any]) -> str:
    return f"{visible(pair['id'])} ({shorten(visible(pair['group']), 24)})"


def _excerpt(text: str, width: int) -> str:
    return f"“{cut(visible(' '.join(text[: 8 * width].split())), width)}”"


_SIDES = ("prompt", "chosen", "rejected")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    sizes = [max(cells(row[place]) for row in rows) for place in range(len(rows[0]))]
    last = len(sizes) - 1
    return [
        "  ".join(
            padded(cell, size, right=0 < place < last)
            for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ).rstrip()
        for row in rows
    ]
