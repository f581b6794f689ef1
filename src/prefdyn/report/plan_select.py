"""The page of a plan of pairs: leave these out or keep all, how sure, what every rule would do, how many are wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefdyn._json import number
from prefdyn.report.folders import RunFolder
from prefdyn.report.tables import aligned, minus
from prefdyn.report.text import cut, sentence, visible

RULES = {
    "value_own": "value to its own group",
    "value_all": "value to all groups",
    "value_worst": "value to the worst group",
    "loss_after": "loss after training on others",
    "agreement": "against the others' first step",
    "ref_margin": "reference prefers the rejected",
    "small_gap": "reference sees little difference",
    "length_gap": "chosen longer than rejected",
}
_DOES = {"drop": "leave out", "half": "count half", "flip": "turn round"}
_SHOWN = 40
COLUMNS = ("Share", "Better by", "90 % interval", "Than random by", "90 % interval")
GROUP_COLUMNS = ("Pairs", "Named", "Labels agree", "Wrong, about", "90 % interval", "As given", "As chosen")


def select_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a plan of pairs; None where the folder holds none."""
    part = run.part("plan", "select")
    if not isinstance(part, Mapping):
        return None
    return {
        "points": points(run, part),
        "columns": COLUMNS,
        "tried": _tried(part),
        "group_columns": GROUP_COLUMNS,
        "groups": _groups(run),
        "pairs": [
            (visible(row.get("id")), visible(row.get("group")), minus(row.get("margin")))
            for row in _rows(part, "pairs")[:_SHOWN]
        ],
        "changes": bool(part.get("change")),
        "allows": minus(part.get("believed")) if number(part.get("believed")) > 0 else "",
    }


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Change this, expect that, how sure."""
    way = part.get("way")
    told = _told(way) if isinstance(way, Mapping) else ""
    count = sum(int(number(row.get("named")) or 0) for row in run.groups)
    if part.get("change"):
        most = sorted(run.groups, key=lambda row: -(number(row.get("named")) or 0))[:3]
        names = ", ".join(f"{visible(row.get('name'))} {minus(row.get('named'))}" for row in most)
        mostly = f", the most from {names}" if len(run.groups) > 3 else ""
        change = f"{told}: {count} pairs{mostly}; select.csv names them"
    else:
        change = "nothing: keep every pair" + (f". The best that was tried: {told}" if told else "")
    span, above = (
        f"{minus(part.get(name))} ({minus(part.get(f'{name}_low'))} to {minus(part.get(f'{name}_high'))})"
        for name in ("gain", "over_random")
    )
    expect = f"Mean loss over groups better by {span}, than with as many random pairs left out by {above}."
    return [
        ("Change", sentence(change)),
        ("Expect", expect),
        ("How sure", sentence(visible(part.get("because") or ""))),
        ("Wrong labels", _wrong(part)),
    ]


def select_table(summary: Mapping[str, Any]) -> str:
    """The plan as plain text."""
    run = RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None)
    part = run.part("plan", "select")
    if not isinstance(part, Mapping):
        return "No plan."
    lines = [f"{label + ':':<14}{text}" for label, text in points(run, part)]
    titles = ["what", *(each.lower() for each in COLUMNS)]
    rows = [[cut(name, 50), *entries] for name, entries in _tried(part)[:10]]
    return "\n".join([*lines, "", *aligned([titles, *rows])])


def _wrong(part: Mapping[str, Any]) -> str:
    wrong = part.get("wrong")
    if not isinstance(wrong, Mapping):
        return "Too few pairs to tell."
    share, low, high = (number(wrong.get(key)) for key in ("wrong", "wrong_low", "wrong_high"))
    sure = "" if low > 0 else ", which is not told from none"
    return (
        f"About {share:.0%} ({low:.0%} to {high:.0%}){sure}, if they fell by lot and the model is nearly always right "
        "where it is surest. Groups that pull against each other look the same."
    )


def _told(way: Mapping[str, Any]) -> str:
    share, rule = number(way.get("share")), str(way.get("rule"))
    return f"{_DOES.get(str(way.get('action')), '')} {share:.0%} by {RULES.get(rule, visible(rule))}"


def _rows(part: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [row for row in part.get(key) or [] if isinstance(row, Mapping)]


def _tried(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in _rows(part, "tried"):
        rule = str(row.get("rule"))
        entries = [f"{number(row.get('share')):.0%}"]
        for name in ("gain", "over_random"):
            entries += [minus(row.get(name)), f"{minus(row.get(name + '_low'))} to {minus(row.get(name + '_high'))}"]
        found.append((f"{_DOES.get(str(row.get('action')), '')}: {RULES.get(rule, visible(rule))}", entries))
    return found


def _groups(run: RunFolder) -> list[tuple[str, list[str]]]:
    def percent(value: Any) -> str:
        return "–" if number(value) != number(value) else f"{number(value):.0%}"

    rows = sorted(run.groups, key=lambda row: -(number(row.get("wrong_low")) or 0.0))
    return [
        (
            visible(row.get("name")),
            [
                minus(row.get("pairs")), minus(row.get("named")), percent(row.get("agrees")), percent(row.get("wrong")),
                f"{percent(row.get('wrong_low'))} to {percent(row.get('wrong_high'))}",
                minus(row.get("loss_as_given")), minus(row.get("loss_plan")),
            ],
        )
        for row in rows
    ]  # fmt: skip
