"""The page of a plan: change this, expect that, how sure; then every group and every way that was tried."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefdyn._json import number
from prefdyn.planning.real_run import tune_name
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
_SCORES = {"worst": "worst loss", "mean": "mean loss", "equal": "least share", "target": "shortfall"}
_LISTED = 6
"""Groups that one sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """One table of a part of a plan: rows of a name and its entries."""

    heading: str
    intro: str
    first: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    fold: int = 15
    """Rows that stand open; 0: all."""


def part_of(run: RunFolder, name: str) -> tuple[RunFolder, Mapping[str, Any] | None]:
    """One part of a plan, and its folder with that part's rows of the groups; None where the folder holds none."""
    part = run.part("plan", name)
    if not isinstance(part, Mapping):
        return run, None
    if part.get("groups"):
        run = replace(run, summary={**run.summary, "groups": part["groups"]})
    return run, part


def weights_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a plan of weights; None where the folder holds none."""
    run, part = part_of(run, "weights")
    if part is None:
        return None
    kept = "" if part.get("change") else " They are what the search found, and not worth a change."
    tables = (
        PlanTable(heading="Every way that was tried", intro=_WAYS_INTRO, first="Weights", columns=_columns(part),
                  rows=_methods(part), fold=0),
        PlanTable(
            heading="Group by group", first="Group", rows=_groups(run),
            intro="The group with the largest loss as given first. Factors multiply the weight of each pair; their "
            "mean over the training weight is 1. Of a batch: the group's share, to draw by in place of weights." + kept,
            columns=("Pairs", "Factor", "Folds say", "Of a batch", "As given", "This plan", "Better by",
                     "90 % interval"),
        ),
    )  # fmt: skip
    notes: list[tuple[str, Any]] = [("What it is worth elsewhere", _FORETOLD if part.get("in_the_run") else _ELSEWHERE)]
    if (run.path / "dataset.jsonl").exists():
        notes.insert(0, ("With TRL, in this folder", TRL_LINES))
    return {"points": points(run, part), "tables": tables, "notes": notes}


_WAYS_INTRO = (
    "Loss in nats on pairs that took no part in training or choosing, over groups. The plan is better by a number "
    "above 0. Intervals draw whole units again, the same ones for both; what another draw of the training pairs would "
    "do is not in them."
)
_ELSEWHERE = (
    "These are runs of the last layer on frozen states, re-run with every proposal. LoRA and full tuning change the "
    "states, too; there such weights have made the worst group worse (docs/plan.md): give --forecast, or make a run "
    "beside one as given."
)
_FORETOLD = (
    "The search ran the last layer on frozen states; what it found was then held against linear runs of what will be "
    "trained, on pairs that took no part. Features move in a real run, too, so make one beside one as given."
)


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Change this, expect that, how sure."""
    rows = sorted(run.groups, key=lambda row: -abs(math.log(number(row.get("found_factor")) or 1.0)))
    named = [
        f"{visible(row.get('name', ''))} × {minus(row.get('found_factor'))} ({interval_of(row, 'found')} over folds)"
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
    wanted = [
        f"{visible(row.get('name', ''))} {_share(row.get('accuracy_as_given'))} → {_share(row.get('accuracy_plan'))} "
        f"(wanted {_share(row.get('wanted_accuracy'))})"
        for row in run.groups
        if not math.isnan(number(row.get("wanted_accuracy")))
    ]
    if wanted:
        expect = f"Right pairs: {', '.join(wanted)}. {expect}"
    said = [("Change", change), ("Expect", expect), ("How sure", f"{_sure(part, methods)}")]
    real = part.get("in_the_run")
    return [*said, ("In runs", _in_the_run(real))] if isinstance(real, Mapping) else said


def _in_the_run(run: Mapping[str, Any]) -> str:
    """What linear runs of the run that was foretold make of every way."""
    rows = [row for row in run.get("methods") or [] if isinstance(row, Mapping)]
    gains = [number(each) for each in run.get("gains") or []]
    told = "; ".join(
        f"{_NAMES.get(str(row.get('name')), visible(row.get('name')))} {minus(row.get('worst'))} and "
        f"{minus(row.get('mean'))}"
        for row in rows
    )
    kind = visible(tune_name(run.get("tune")))
    return (
        f"Worst group and mean over groups at the end of {minus(run.get('steps'))} steps of a linear {kind} run, over "
        f"{len(gains)} seeds, nats on held-out pairs: {told}. The plan's gain, seed by seed: "
        f"{minus(min(gains, default=math.nan))} to {minus(max(gains, default=math.nan))}."
    )


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
    shown = (score,) if score in ("least share", "shortfall") else ()
    return ("Worst", "Mean", "Spread", *(each.capitalize() for each in shown), "Plan better by", "90 % interval")


def _methods(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in part.get("methods") or []:
        if not isinstance(row, Mapping):
            continue
        entries = [minus(row.get(key)) for key in ("worst", "mean", "spread")]
        if part.get("goal") in ("equal", "target"):
            entries.append(minus(number(row.get("score")) * (-1 if part["goal"] == "equal" else 1)))
        alone = row.get("name") == "plan"
        entries += ["", ""] if alone else [minus(row.get("plan_better_by")), interval_of(row, "plan_better")]
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
                interval_of(row, "found"),
                f"{_share(row.get('given_share'))} → {_share(row.get('found_share'))}",
                minus(row.get("loss_as_given")),
                minus(row.get("loss_plan")),
                minus(row.get("gain")),
                interval_of(row, "gain"),
            ],
        )
        for row in rows
    ]


def interval_of(row: Mapping[str, Any], name: str) -> str:
    """The interval of a number in a row, from its two columns."""
    return f"{minus(row.get(f'{name}_low'))} to {minus(row.get(f'{name}_high'))}"


def _share(value: Any) -> str:
    found = number(value)
    return "–" if math.isnan(found) else f"{found:.1%}"


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def plan_table(summary: Mapping[str, Any]) -> str:
    """The plan of weights as plain text: change this, expect that, how sure; every way that was tried."""
    return part_table(summary, "weights", points, lambda part, run: ("weights", _columns(part), _methods(part)), 10)


def told(run: RunFolder) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Of every part that the folder holds: its name, what it is about, and its points."""
    from prefdyn.report import plan_data, plan_select, plan_settings, plan_undo

    about = {
        "weights": ("Weights", points), "data": ("More pairs", plan_data.points),
        "select": ("Which pairs", plan_select.points), "settings": ("Settings", plan_settings.points),
        "undo": ("Fragile", plan_undo.points),
    }  # fmt: skip
    found = []
    for name, (label, each) in about.items():
        own, part = part_of(run, name)
        if part is not None:
            found.append((name, label, each(own, part)))
    return found


def overview(run: RunFolder) -> dict[str, Any] | None:
    """The first screen of a plan of several parts; None where there is one."""
    parts = told(run)
    if len(parts) < 2:
        return None
    rest = (
        "Each part is judged by itself, with all else as given; what the changes of two parts do together is not told "
        "here. Take one, train, and plan again. The files of each part are in the folder of its name. "
    )
    notes = (("What they rest on", rest + _ELSEWHERE),)
    lines = [(label, f"{said[0][1]} {_why(said)}") for _, label, said in parts]
    return {"points": lines, "tables": (), "notes": notes}


def _why(said: Sequence[tuple[str, str]]) -> str:
    return next((text for label, text in said if label == "How sure"), "")


def all_table(summary: Mapping[str, Any]) -> str:
    """A plan of several parts as plain text: of each, what to change, what to expect, how sure."""
    lines = []
    for name, label, said in told(RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None)):
        lines += [f"{label} (prefdyn plan {name})", *(f"  {point + ':':<14}{text}" for point, text in said), ""]
    return "\n".join(lines).rstrip()


def part_table(
    summary: Mapping[str, Any],
    name: str,
    told: Callable[[RunFolder, Mapping[str, Any]], list[tuple[str, str]]],
    tabled: Callable[[Mapping[str, Any], RunFolder], tuple[str, Sequence[str], Sequence[tuple[str, Sequence[str]]]]],
    width: int,
) -> str:
    """One part of a plan as plain text: its points, then a table.

    Args:
        summary: The content of summary.json.
        name: Of the part.
        told: Its points.
        tabled: Name of the first column, the others, and rows.
        width: Of the labels of points.
    """
    run, part = part_of(RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None), name)
    if part is None:
        return "No plan."
    lines = [f"{label + ':':<{width}}{text}" for label, text in told(run, part)]
    first, columns, rows = tabled(part, run)
    titles = [first, *(each.lower() for each in columns)]
    return "\n".join([*lines, "", *aligned([titles, *([cut(row, 50), *entries] for row, entries in rows)])])
