"""The page of a plan: change this, expect that, how sure; then every group and every way that was tried."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefdyn._json import number
from prefdyn.planning.recipe import TRL_LINES
from prefdyn.report.folders import RunFolder
from prefdyn.report.tables import aligned, minus
from prefdyn.report.text import cut, sentence, visible

_NAMES = {
    "as_given": "as given",
    "plan": "this plan",
    "stratified": "every group the same total",
    "tempered": "half way to that",
    "linear": "linear programme on first slopes",
    "group_robust": "group-robust, online",
}
_SCORES = {"worst": "worst loss", "mean": "mean loss", "equal": "least share"}
_LISTED = 6
"""Groups that one sentence names."""


def plan_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a plan; None where the folder holds none."""
    part = run.part("plan", "weights")
    if not isinstance(part, Mapping):
        return None
    return {
        "points": points(run, part),
        "columns": [*_columns(part)],
        "methods": _methods(part),
        "group_columns": ["Pairs", "Factor", "Folds say", "As given", "This plan", "Better by", "90 % interval"],
        "groups": _groups(run),
        "changes": bool(part.get("change")),
        "lines": TRL_LINES if (run.path / "dataset.jsonl").exists() else (),
    }


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Change this, expect that, how sure."""
    rows = sorted(run.groups, key=lambda row: -abs(math.log(number(row.get("found_factor")) or 1.0)))
    named = [
        f"{visible(row.get('name', ''))} × {minus(row.get('found_factor'))} "
        f"({minus(row.get('found_low'))} to {minus(row.get('found_high'))} over folds)"
        for row in rows[:_LISTED]
    ]
    more = f", and {len(rows) - _LISTED} more in weights.csv" if len(rows) > _LISTED else ""
    told = ", ".join(named) + more
    change = f"Weigh pairs by their group: {told}." if part.get("change") else f"Nothing. The search found {told}."
    methods = {str(row.get("name")): row for row in part.get("methods") or []}
    given, plan = methods.get("as_given", {}), methods.get("plan", {})
    expect = (
        f"Worst group {minus(given.get('worst'))} → {minus(plan.get('worst'))}, mean over groups "
        f"{minus(given.get('mean'))} → {minus(plan.get('mean'))}, spread {minus(given.get('spread'))} → "
        f"{minus(plan.get('spread'))} (nats on held-out pairs, last-layer runs on three fifths of the pairs)."
    )
    return [("Change", change), ("Expect", expect), ("How sure", f"{_sure(part, methods)}")]


def _sure(part: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> str:
    others = [row for name, row in methods.items() if name not in ("as_given", "plan")]
    words = sentence(visible(part.get("because") or ""))
    if not others:
        return words
    best = min(others, key=lambda row: _or(number(row.get("score")), math.inf))
    low, high = number(best.get("plan_better_low")), number(best.get("plan_better_high"))
    name = _NAMES.get(str(best.get("name")), visible(best.get("name")))
    lead = f"{minus(best.get('plan_better_by'))} ({minus(low)} to {minus(high)})"
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
    return f"{words} It is {verdict} the best alternative, {name}: its lead is {lead}."


def _columns(part: Mapping[str, Any]) -> tuple[str, ...]:
    score = _SCORES.get(str(part.get("goal")), "score")
    shown = (score,) if score == "least share" else ()
    return ("Worst", "Mean", "Spread", *(each.capitalize() for each in shown), "Plan better by", "90 % interval")


def _methods(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in part.get("methods") or []:
        if not isinstance(row, Mapping):
            continue
        entries = [minus(row.get(key)) for key in ("worst", "mean", "spread")]
        if part.get("goal") == "equal":
            entries.append(minus(-number(row.get("score"))))
        alone = row.get("name") == "plan"
        span = f"{minus(row.get('plan_better_low'))} to {minus(row.get('plan_better_high'))}"
        entries += ["", ""] if alone else [minus(row.get("plan_better_by")), span]
        found.append((_NAMES.get(str(row.get("name")), visible(row.get("name"))), entries))
    return found


def _groups(run: RunFolder) -> list[tuple[str, list[str]]]:
    rows = sorted(run.groups, key=lambda row: -_or(number(row.get("loss_as_given")), -math.inf))
    return [
        (
            visible(row.get("name", "")),
            [
                minus(row.get("pairs")),
                minus(row.get("found_factor")),
                f"{minus(row.get('found_low'))} to {minus(row.get('found_high'))}",
                minus(row.get("loss_as_given")),
                minus(row.get("loss_plan")),
                minus(row.get("gain")),
                f"{minus(row.get('gain_low'))} to {minus(row.get('gain_high'))}",
            ],
        )
        for row in rows
    ]


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def plan_table(summary: Mapping[str, Any]) -> str:
    """The plan as plain text: change this, expect that, how sure; every way that was tried; how TRL takes it."""
    run = RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None)
    part = run.part("plan", "weights")
    if not isinstance(part, Mapping):
        return "No plan."
    lines = [f"{label + ':':<10}{text}" for label, text in points(run, part)]
    titles = ["weights", *(each.lower() for each in _columns(part))]
    rows = [[cut(name, 40), *entries] for name, entries in _methods(part)]
    return "\n".join([*lines, "", *aligned([titles, *rows])])
