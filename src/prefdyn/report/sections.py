"""The sections of a page: what `panels` lists for its kind of folder, with everything that their templates need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefdyn._json import number
from prefdyn.diagnostics.slices import said
from prefdyn.picture import Picture
from prefdyn.report.answers import answers_part
from prefdyn.report.chart_json import chart_json
from prefdyn.report.compare import compare_chapter
from prefdyn.report.facts import dataset_name, facts, files, left_out, model_name, settings_tables
from prefdyn.report.figures import address
from prefdyn.report.folders import RunFolder
from prefdyn.report.forecast import forecast_chapter, real_run_chapter
from prefdyn.report.grid import grid_chapter
from prefdyn.report.group_table import columns, group_rows, verdict_shares
from prefdyn.report.many import drawn, drawn_words
from prefdyn.report.one_group import group_chapter, group_sentence
from prefdyn.report.pair_lists import at_odds, pair_lists
from prefdyn.report.palette import VERDICTS, look
from prefdyn.report.panels import CHAPTERS, DRAWINGS, LEADING, sections
from prefdyn.report.plan import overview, weights_chapter
from prefdyn.report.plan_data import data_chapter
from prefdyn.report.plan_select import select_chapter
from prefdyn.report.plan_settings import settings_chapter
from prefdyn.report.plan_undo import undo_chapter
from prefdyn.report.proved import proved_chapter
from prefdyn.report.says import says
from prefdyn.report.tables import verdict_sentence
from prefdyn.report.text import readable, visible
from prefdyn.report.training import reading_chapter

_FINDINGS_SHOWN = 200
_LEVEL = 0.05
"""Adjusted p up to which a slice is said to differ."""
_UNFOLDED = 12
"""Groups, and findings, that stand open on a page,"""
_GROUPS_OPEN, _FINDINGS_OPEN = 6, 4
"""and on one with answers, which is to be short."""
_SEVERITIES = ("problem", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a page."""

    id: str
    heading: str
    """As the contents on top name it."""
    template: str
    """Name of the macro that writes it."""
    holds: Any
    """What that macro shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What the sections of a page are made from."""

    whole: RunFolder
    run: RunFolder
    """Without the groups that are too many to be shown."""
    panels: Mapping[str, Sequence[Picture | None]]
    """By the name of their chapter."""
    static: bool


def section(whole: RunFolder, place: int, *, static: bool) -> dict[str, Any]:
    """Everything that the page shows of one folder."""
    run = drawn(whole)
    names = sections(run)
    found = {name: CHAPTERS[name].drawn(run) if run.groups else [] for name in names if name in CHAPTERS}
    sheet = Sheet(whole=whole, run=run, panels=found, static=static)
    made = {name: part for name in names if (part := _part(sheet, name)) is not None}
    parts, decides = list(made.values()), whole.part("answers") is not None
    folded = [part for name, part in made.items() if decides and name not in LEADING]
    holds = {part.id: part.holds for part in parts}
    compared, reading = holds.get("compared"), holds.get("reading")
    bar = verdict_shares(whole) if len(run.groups) > 1 else []
    return {
        "id": f"r{place}",
        "command": visible(run.part("command") or "run"),
        "folder": visible(run.path.name or str(run.path)),
        "heading": _HEADINGS.get(run.kind, dataset_name)(run) if run.group is None else visible(run.group),
        "about": compared["heading"] if compared else _group_of(run),
        "learner": "" if compared or run.kind == "field" else model_name(run),
        "facts": facts(whole),
        "sentence": verdict_sentence(whole.summary) if run.group is None else group_sentence(run),
        "decides": decides,
        "answers": answers_part(whole, [part.id for part in parts]),
        "lead": compared["lead"] if compared else "",
        "remarks": reading["sentence"] if reading and reading["remarks"] else "",
        "bar": bar,
        "warnings": [
            *(readable(str(text)) for text in run.part("warnings") or []),
            *([words] if (words := drawn_words(whole)) else []),
        ],
        "parts": [part for part in parts if part not in folded],
        "appendices": folded,
        "json": _numbers(sheet),
    }


def _group_of(run: RunFolder) -> str:
    """What the group of a page of its own is one of; empty on other pages."""
    if run.group is None:
        return ""
    return f"one of {len(run.all_groups):,} groups of {dataset_name(run)}, learned by {model_name(run)}"


def _compared_heading(run: RunFolder) -> str:
    told = " against ".join(visible(name) for name in run.part("comparison", "names") or ["first", "second"])
    return told[0].upper() + told[1:]


_HEADINGS: Mapping[str, Callable[[RunFolder], str]] = {
    "field": lambda _: "The gradient field of DPO",
    "comparison": _compared_heading,
}
"""Of pages that are not about one dataset."""


def _numbers(sheet: Sheet) -> dict[str, Any]:
    """What the page's script draws from."""
    run = sheet.run
    shown = [panel for chapter in sheet.panels.values() for panel in chapter if panel is not None]
    return {
        "groups": [
            {
                "name": label,
                "verdict": look(verdict).key,
                "shape": look(verdict).shape,
                "filled": look(verdict).filled,
                "says": visible(verdict) if verdict else "",
                "place": list(VERDICTS).index(verdict) if verdict in VERDICTS else len(VERDICTS),
            }
            for label, verdict in zip(run.labels, run.verdicts, strict=True)
        ],
        "colours": list(shown[0].colours) if shown else [],
        "panels": [chart_json(panel) for panel in shown],
    }


# sections -----------------------------------------------------------------------------------------------------------


def _part(sheet: Sheet, name: str) -> Section | None:
    """A section by its name in `panels.PAGES`; None where there is nothing to show in it."""
    if name in _PARTS:
        return _PARTS[name](sheet)
    chapter = CHAPTERS[name]
    charts, absent = _charts(sheet, name), chapter.absent(sheet.run, sheet.panels[name]) if sheet.run.groups else ""
    if not charts and not absent:
        return None
    return Section(
        id=chapter.id,
        heading=chapter.heading,
        template="chapter",
        holds={"charts": charts, "pictures": _pictures(sheet, name), "absent": absent},
    )


def _charts(sheet: Sheet, name: str) -> list[dict[str, Any]]:
    """What the template of a chart needs, for every picture of a chapter."""
    return [_chart(panel, static=sheet.static) for panel in sheet.panels.get(name, []) if panel is not None]


def _chart(panel: Picture, *, static: bool) -> dict[str, Any]:
    still = address(panel, formats=("svg",)) if static else None
    return {"id": panel.id, "title": panel.title, "caption": panel.caption, "still": still}


def _pictures(sheet: Sheet, name: str) -> list[dict[str, Any]]:
    """What the template of a still picture needs, for every other picture of a section."""
    found = DRAWINGS[name](sheet.run) if name in DRAWINGS else []
    return [{"id": each.id, "title": each.title, "caption": each.caption, "src": address(each)} for each in found]


def _fold(sheet: Sheet, short: int) -> int:
    """How many rows of a list stand open."""
    return _UNFOLDED if sheet.whole.part("answers") is None else short


def _groups(sheet: Sheet) -> Section | None:
    rows, judged = group_rows(sheet.run), any(sheet.run.verdicts)
    if not rows:
        return None
    one = len(rows) == 1 and sheet.run.group is None
    holds = {
        "rows": rows, "columns": columns(rows, one=one), "judged": judged, "shares": verdict_shares(sheet.whole),
        "fold": _fold(sheet, _GROUPS_OPEN),
    }  # fmt: skip
    return Section(id="groups", heading="Verdicts" if judged else "Groups", template="groups", holds=holds)


def _chapter(template: str, heading: str, make: Callable[[Sheet], Any]) -> Callable[[Sheet], Section | None]:
    """A section that is left out where there is nothing to show in it; it may bring its own heading."""

    def part(sheet: Sheet) -> Section | None:
        holds, drawn = make(sheet), {"charts": _charts(sheet, template), "pictures": _pictures(sheet, template)}
        if holds is None:
            return None
        return Section(id=template, heading=holds.get("heading", heading), template=template, holds={**holds, **drawn})

    return part


def _plan(name: str, heading: str, make: Callable[[RunFolder], Any]) -> Callable[[Sheet], Section | None]:
    """One part of a plan."""

    def part(sheet: Sheet) -> Section | None:
        holds = make(sheet.run)
        if holds is None:
            return None
        return Section(
            id=name, heading=heading, template="plan_part", holds={**holds, "pictures": _pictures(sheet, name)}
        )

    return part


def _odds(sheet: Sheet) -> Section:
    lists, charts = pair_lists(sheet.run), _charts(sheet, "odds")
    holds = {"charts": charts, "lists": lists, "pairs": at_odds(sheet.run), "audited": sheet.run.kind == "audit"}
    if lists:
        return Section(id="odds", heading="Pairs to look at", template="look_at", holds=holds)
    return Section(id="odds", heading=CHAPTERS["odds"].heading, template="at_odds", holds=holds)


_CLEAN = (
    "Nothing was found: no empty text, no duplicates, no prompt on both sides of the split, no group that is too small."
)


def _findings(sheet: Sheet) -> Section:
    found = [
        {
            "severity": row.get("severity") if row.get("severity") in _SEVERITIES else "note",
            "group": visible(row["group"]) if row.get("group") is not None else None,
            "says": readable(str(row.get("says", ""))),
            "count": row.get("count"),
            "pairs": [visible(name) for name in row.get("pairs") or []],
        }
        for row in sheet.run.part("findings") or []
    ]
    found = sorted(found, key=lambda row: _SEVERITIES.index(row["severity"]))
    if len(found) > _FINDINGS_SHOWN:
        text = f"{len(found) - _FINDINGS_SHOWN:,} more findings like these are in summary.json, which lists all."
        rest = {"severity": "note", "group": None, "says": text, "count": None, "pairs": []}
        found = [*found[:_FINDINGS_SHOWN], rest]
    none = "This run did not check the data; an audit does."
    if sheet.run.kind == "audit":
        none = _CLEAN if sheet.run.group is None else "Nothing was found in this group's pairs."
    holds = {"found": found, "none": none, "fold": _fold(sheet, _FINDINGS_OPEN)}
    return Section(id="findings", heading="Findings", template="findings", holds=holds)


def _slices(sheet: Sheet) -> Section | None:
    rows = sheet.run.part("slices")
    if not rows:
        return None
    shown = [
        {
            "name": readable(f"{row.get('kind')}: {row.get('name')}"),
            "told": (number(row.get("p")) <= _LEVEL),
            "pairs": row.get("pairs"),
            "units": row.get("units"),
            **{name: row.get(name) for name in ("accuracy", "accuracy_low", "accuracy_high", "rest", "p")},
        }
        for row in rows
    ]
    holds = {"rows": shown, "sentence": readable(said(rows, _LEVEL))}
    return Section(id="slices", heading="Slices", template="slices", holds=holds)


def _says(sheet: Sheet) -> Section:
    return Section(id="says", heading="What it says", template="says", holds=says(sheet.run))


def _settings(sheet: Sheet) -> Section:
    run = sheet.run
    rules = [
        (visible(row.get("verdict", "")), readable(str(row.get("rule", ""))))
        for row in run.part("verdict_thresholds") or []
    ]
    holds = {"tables": settings_tables(run), "rules": rules, "left_out": left_out(run), "files": files(run)}
    return Section(id="settings", heading="Settings", template="settings", holds=holds)


_PARTS: Mapping[str, Callable[[Sheet], Section | None]] = {
    "groups": _groups,
    "reading": _chapter("reading", "How to read these curves", lambda sheet: reading_chapter(sheet.whole)),
    "proved": _chapter("proved", "", lambda sheet: proved_chapter(sheet.run)),
    "grid": _chapter("grid", "Which setting", lambda sheet: grid_chapter(sheet.run)),
    "forecast": _chapter("forecast", "The forecast", lambda sheet: forecast_chapter(sheet.whole)),
    "real_run": _plan("real_run", "The run that will be made", real_run_chapter),
    "plan": _plan("plan", "What to change", overview),
    "plan_weights": _plan("plan_weights", "Weights of groups", weights_chapter),
    "plan_data": _plan("plan_data", "How many pairs", data_chapter),
    "plan_select": _plan("plan_select", "Which pairs", select_chapter),
    "plan_settings": _plan("plan_settings", "Which settings", settings_chapter),
    "plan_undo": _plan("plan_undo", "What undoes it", undo_chapter),
    "own": _plan("own", "A pair more, and its pairs", group_chapter),
    "compared": _chapter("compared", "", lambda sheet: compare_chapter(sheet.run)),
    "odds": _odds,
    "findings": _findings,
    "slices": _slices,
    "says": _says,
    "settings": _settings,
}
"""Sections that are more than charts."""
