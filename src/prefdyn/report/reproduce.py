"""What a reproduction shows: its figures in the papers' arrangement, and one page with the claims on top."""

import base64
import functools
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prefdyn._files import atomic_write
from prefdyn._json import NotJSON, read_json
from prefdyn._shape import Shape
from prefdyn.errors import StoreError
from prefdyn.experiments import recipe
from prefdyn.experiments.claims import KINDS
from prefdyn.experiments.reproduce import counts_of
from prefdyn.report.field_figures import field_plane, field_surface
from prefdyn.report.figures import (
    _DIVERGING,
    DPI,
    FAINT,
    INK,
    SETTINGS,
    SOFT,
    _plain,
    _widest,
    axes_at,
    drawing_bytes,
    heading,
    legend,
)
from prefdyn.report.html import _hash, colour_rules
from prefdyn.report.summary_shape import CLAIMS, REPRODUCED
from prefdyn.report.tables import shown
from prefdyn.report.text import readable, visible
from prefdyn.store import fits

_GREY = "#77756e"
_DASHES: Mapping[str, Any] = {"solid": "-", "dashed": (0, (5, 2.5)), "dotted": (0, (1.2, 1.8))}
_WIDE, _HIGH, _STRIDE, _LEFT = 3.6, 2.6, 4.75, 0.92
_COLUMNS = 2
_WORDS = {True: "held", False: "failed", None: "not testable"}
_SMALLEST = 4.5
"""Points of the smallest letters on a heat map."""


# files ---------------------------------------------------------------------------------------------------------------


def write_reproduced_figures(figures: Iterable[recipe.Figure], folder: str | Path) -> list[Path]:
    """Draw figures as SVG, PNG and PDF files, named by paper and figure.

    Args:
        figures: As a recipe gives them.
        folder: Made if missing.

    Returns:
        The paths written, in order.

    Raises:
        StoreError: A file cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made ({error.strerror or error}); give another folder") from error
    written = []
    for figure in figures:
        draw = functools.partial(reproduced_figure, figure)
        for kind, raw in {**drawing_bytes(draw), "pdf": _pdf(draw)}.items():
            path = folder / f"{figure.id}.{kind}"
            atomic_write(path, raw)
            written.append(path)
    return written


def _pdf(draw: Callable[[], Figure]) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({**SETTINGS, "pdf.fonttype": 42}):
        FigureCanvasPdf(draw()).print_pdf(buffer, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()


# drawing -------------------------------------------------------------------------------------------------------------


def reproduced_figure(figure: recipe.Figure) -> Figure:
    """A figure of a recipe as matplotlib has it. All panels of one figure are of one kind."""
    with matplotlib.rc_context(SETTINGS):
        return _DRAW[figure.panels[0].kind](figure)


def _title(figure: recipe.Figure) -> str:
    return f"{figure.spec.paper}, {figure.spec.where}: {figure.spec.title}"


def _sheet(figure: recipe.Figure, width: float, height: float) -> Figure:
    title = _title(figure)
    drawn = Figure(figsize=(max(width, 0.3 + _widest([title], 12.8)), height), dpi=DPI, facecolor="white")
    heading(drawn, title)
    return drawn


def _colour(line: recipe.Line) -> Any:
    if line.colour is not None:
        return line.colour
    return _GREY if line.shade is None else colormaps["plasma"](line.shade)


def _lines(figure: recipe.Figure) -> Figure:
    panels = figure.panels
    named = {line.label: line for panel in panels for line in panel.lines}
    labels = [_plain(label, 46) for label in named]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    high = max(_HIGH, 0.2 * len(labels) / rows)
    above = 0.45 if any(panel.title for panel in panels) else 0.15
    tall = high + above + 0.6
    drawn = _sheet(figure, _STRIDE * columns + _LEFT + _widest(labels, 8), tall * rows + 0.45)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        axes = axes_at(drawn, _LEFT + _STRIDE * column, tall * (rows - 1 - row) + 0.6, _WIDE, high)
        _curves(axes, panel)
    handles = [
        Line2D([], [], color=_colour(line), linewidth=2, linestyle=_DASHES[line.style])
        if line.style != "points"
        else Line2D([], [], color=_colour(line), linestyle="none", marker="o")
        for line in named.values()
    ]
    legend(drawn, handles, labels, 0.2 + _STRIDE * columns, tall * rows - above)
    return drawn


def _curves(axes: Axes, panel: recipe.Panel) -> None:
    for line in panel.lines:
        colour = _colour(line)
        if line.style == "points":
            axes.plot(line.x, line.y, linestyle="none", marker="o", markersize=4.5, color=colour, zorder=3)
            continue
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0, zorder=1)
        axes.plot(line.x, line.y, color=colour, linewidth=1.7, linestyle=_DASHES[line.style], zorder=3)
    for label, height in panel.marks:
        axes.axhline(height, color=SOFT, linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            _plain(label), (1, height), (0, 2), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", fontsize=7.5, color=SOFT,
        )  # fmt: skip
    axes.set_title(_plain(panel.title))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(True, axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.ticklabel_format(axis="y", useOffset=False)
    if panel.x_label == "Step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _clouds(figure: recipe.Figure) -> Figure:
    panels = figure.panels
    named = {line.label: line for panel in panels for line in panel.lines}
    labels = [_plain(label, 40) for label in named]
    drawn = _sheet(figure, _STRIDE * len(panels) + _LEFT + _widest(labels, 8), 4.9)
    for place, panel in enumerate(panels):
        axes = axes_at(drawn, _LEFT + _STRIDE * place, 0.6, _WIDE, _WIDE)
        for line in panel.lines:
            axes.plot(
                line.x, line.y, linestyle="none", marker="o", markersize=3, alpha=0.7, markeredgewidth=0,
                color=_colour(line), rasterized=True,
            )  # fmt: skip
        if panel.limit is not None:
            axes.set_xlim(-panel.limit, panel.limit)
            axes.set_ylim(-panel.limit, panel.limit)
        axes.set_title(_plain(panel.title))
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        axes.tick_params(length=0)
    handles = [Line2D([], [], color=_colour(line), linestyle="none", marker="o") for line in named.values()]
    legend(drawn, handles, labels, 0.2 + _STRIDE * len(panels), 4.2)
    return drawn


def _heat(figure: recipe.Figure) -> Figure:
    many = max(len(panel.names) for panel in figure.panels)
    side = min(9.0, max(2.2, 0.12 * many))
    font = max(_SMALLEST, min(8.0, 0.8 * 72 * side / many))
    names = [_plain(name, 34) for name in figure.panels[0].names]
    room = _widest(names, font) + 0.2
    stride = side + 1.05
    drawn = _sheet(figure, room + stride * len(figure.panels) + 0.3, side + room + 0.95)
    for place, panel in enumerate(figure.panels):
        assert panel.matrix is not None
        axes = axes_at(drawn, room + stride * place, room, side, side)
        limit = panel.limit or float(np.nanmax(np.abs(panel.matrix)))
        image = axes.imshow(panel.matrix, cmap=_DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        gap = 0.05 / side * many
        axes.set_axis_off()
        axes.text(-0.5, -0.5 - 0.14 / side * many, _plain(panel.title), ha="left", va="bottom", fontsize=9.5)
        for at, name in enumerate(names):
            if place == 0:
                axes.text(-0.5 - gap, at, name, ha="right", va="center", fontsize=font)
            axes.text(at, many - 0.5 + gap, name, ha="center", va="top", rotation=90, fontsize=font)
        bar = drawn.colorbar(
            image, cax=axes_at(drawn, room + stride * place + side + 0.14, room + 0.2 * side, 0.1, 0.6 * side)
        )
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(length=0, labelsize=7.5)
    return drawn


def _table(figure: recipe.Figure) -> Figure:
    panel = figure.panels[0]
    cells = [[_plain(cell, 60) for cell in row] for row in (panel.columns, *panel.rows)]
    widths = [_widest([row[column] for row in cells], 8.5) + 0.3 for column in range(len(panel.columns))]
    height = 0.7 + 0.24 * len(cells)
    drawn = _sheet(figure, 0.3 + sum(widths), height)
    across = drawn.get_figwidth()
    for number, row in enumerate(cells):
        left = 0.15
        for column, cell in enumerate(row):
            right = column > 0
            drawn.text(
                (left + (widths[column] - 0.2 if right else 0)) / across, 1 - (0.62 + 0.24 * number) / height, cell,
                ha="right" if right else "left", va="center", fontsize=8.5, color=SOFT if number == 0 else INK,
            )  # fmt: skip
            left += widths[column]
    return drawn


def _texts(figure: recipe.Figure) -> Figure:
    panel = figure.panels[0]
    blocks = [
        (head, [line for part in readable(text).splitlines() for line in textwrap.wrap(part, 96) or [""]][:6])
        for head, text in panel.rows
    ]
    height = 0.75 + sum(0.34 + 0.19 * len(lines) for _, lines in blocks)
    drawn = _sheet(figure, 8.6, height)
    drawn.text(0.15 / drawn.get_figwidth(), 1 - 0.52 / height, _plain(panel.title), fontsize=9.5, va="center")
    top = 0.85
    for head, lines in blocks:
        drawn.text(0.15 / drawn.get_figwidth(), 1 - top / height, _plain(head), fontsize=8.5, color=SOFT, va="center")
        for line in lines:
            top += 0.19
            drawn.text(0.35 / drawn.get_figwidth(), 1 - top / height, _plain(line), fontsize=8.5, va="center")
        top += 0.34
    return drawn


def _surface(figure: recipe.Figure) -> Figure:
    return field_surface(beta=figure.panels[0].options["beta"])


def _plane(figure: recipe.Figure) -> Figure:
    panel = figure.panels[0]
    path = np.column_stack([panel.lines[0].x, panel.lines[0].y]) if panel.lines else None
    return field_plane(beta=panel.options["beta"], path=path)


_DRAW: Mapping[str, Callable[[recipe.Figure], Figure]] = {
    "lines": _lines,
    "clouds": _clouds,
    "heat": _heat,
    "table": _table,
    "texts": _texts,
    "surface": _surface,
    "plane": _plane,
}


# words ---------------------------------------------------------------------------------------------------------------


def claims_table(claims: Sequence[Mapping[str, Any]]) -> str:
    """Claims as text for the terminal: what came of each, in the order of the papers.

    Example:
        >>> print(claims_table([{"where": "Figure 3", "paper": "2403.18742", "statement": "It falls.", "holds": True,
        ...                      "measured": "1.0", "control": None, "recipe": "r"}]))
        2403.18742, Figure 3
          held          It falls.
                        1.0
        <BLANKLINE>
        1 claim: 1 held, 0 failed, 0 not testable here
    """
    lines: list[str] = []
    place = None
    for row in claims:
        here = f"{visible(row['paper'])}, {visible(row['where'])}"
        if here != place:
            lines += [here]
            place = here
        lines += [f"  {_WORDS[row['holds']]:12}  {visible(row['statement'])}", f"{'':16}{visible(row['measured'])}"]
        if (beyond := _beyond(row)) and row["holds"]:
            lines.append(f"{'':16}{beyond}")
    many = "1 claim" if len(claims) == 1 else f"{len(claims)} claims"
    return "\n".join([*lines, "", f"{many}: {_counted(counts_of(claims))} here{_apart(claims)}"])


def _counted(counts: Mapping[str, Any]) -> str:
    return f"{counts['held']} held, {counts['failed']} failed, {counts['not_testable']} not testable"


def _apart(claims: Sequence[Mapping[str, Any]]) -> str:
    """The same by kind; nothing where all claims are of one, or of none that is known."""
    piles = {words: [row for row in claims if row.get("kind") == kind] for kind, words in KINDS.items()}
    told = [f"{words}: {_counted(counts_of(pile))}" for words, pile in piles.items() if pile]
    return f". Of {'; of '.join(told)}" if len(told) > 1 else ""


def _beyond(row: Mapping[str, Any]) -> str:
    control = row.get("control") or {}
    beyond = control.get("beyond")
    return "" if beyond is None else f"{'' if beyond else 'not '}beyond the untrained twin"


# page ----------------------------------------------------------------------------------------------------------------


def write_reproduced_page(folder: str | Path, path: str | Path) -> Path:
    """Write the page of a reproduction, from its folder alone: claims on top, each figure under its claims.

    Args:
        folder: Holds claims.json, summary.json and figures/.
        path: The HTML file.

    Raises:
        StoreError: The folder lacks a file, or the page cannot be written.
    """
    folder, path = Path(folder), Path(path)
    atomic_write(path, reproduced_page(folder).encode("utf-8"))
    return path


def reproduced_page(folder: Path) -> str:
    """The page as text."""
    claims = _read(folder / "claims.json", CLAIMS)
    summary = _read(folder / "summary.json", REPRODUCED)
    loader = PackageLoader("prefdyn.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = colour_rules() + "".join(
        loader.get_source(environment, name)[0] for name in ("report.css", "reproduce.css")
    )
    counts, model = summary["claims"], visible(summary["model"]["name"] or "the published models")
    return environment.get_template("reproduce.html.j2").render(
        title=f"Reproduction ({visible(summary['preset']['name'])}) · {model}",
        model=model,
        dataset=visible(summary["dataset"]["name"]),
        preset={name: readable(str(summary["preset"][name])) for name in ("name", "says")},
        lead=f"{counts['held']} claims held, {counts['failed']} failed, {counts['not_testable']} not testable here"
        f"{_apart(claims)}.",
        facts=_facts(summary),
        warnings=[readable(str(text)) for text in summary["warnings"]],
        claims=[_claim(row) for row in claims],
        recipes=_recipes(folder, claims, summary),
        changed=[
            {**row, "here": _setting(row["here"]), "published": _setting(row["published"])}
            for row in summary["published_and_here"]
        ],
        versions=[(visible(name), visible(value)) for name, value in summary["provenance"]["versions"].items()],
        style=Markup(style),
        style_hash=_hash(style),
    )


def _read(path: Path, shape: Shape) -> Any:
    fix = "give the folder of a `prefdyn reproduce`"
    try:
        held = read_json(path.read_bytes())
    except (OSError, NotJSON) as error:
        raise StoreError(f"{path} cannot be read ({error}); {fix}") from error
    fits(held, shape, path, fix=fix)
    return held


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    preset, runs = summary["preset"], summary["runs"]
    return [
        ("Data", visible(summary["dataset"]["name"])),
        ("Model", visible(summary["model"]["name"] or "published")),
        ("Preset", visible(preset["name"])),
        ("Seeds", str(len(preset["seeds"]))),
        ("Rows per group", "all" if preset["rows"] is None else str(preset["rows"])),
        ("Runs", f"{runs['all']}, {runs['done_before']} of them done before"),
        ("Time", f"{summary['timings']['reproduce_s']:.0f} s"),
    ]


def _claim(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": visible(row["id"]),
        "figure": visible(row["figure"]),
        "place": f"{visible(row['paper'])}, {visible(row['where'])}",
        "statement": readable(str(row["statement"])),
        "paper_value": readable(str(row["paper_value"] or "–")),
        "measured": readable(str(row["measured"])),
        "because": readable(str(row["because"])),
        "rule": readable(str(row["rule"])),
        "word": _WORDS[row["holds"]],
        "key": _WORDS[row["holds"]].replace(" ", "-"),
        "beyond": _beyond(row),
        "beyond_because": readable(str((row.get("control") or {}).get("because", ""))),
        "evidence": _evidence(row.get("evidence") or {}),
    }


def _evidence(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Numbers behind a claim, in a line each; an estimate in one."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        label = f"{before}{visible(name)}".replace("_", " ")
        if isinstance(value, Mapping) and value.keys() >= {"value", "low", "high", "seeds"}:
            ends = "" if value["low"] is None else f" ({_short(value['low'])} to {_short(value['high'])})"
            found.append((label, f"{_short(value['value'])}{ends}, {value['seeds']} seeds"))
        elif isinstance(value, Mapping):
            found += _evidence(value, f"{label}: ")
        elif isinstance(value, list):
            found.append((label, ", ".join(_short(item) for item in value) or "none"))
        else:
            found.append((label, _short(value)))
    return found


def _short(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int | float):
        return shown(value, 3).replace("-", "−")
    if isinstance(value, list):
        return "(" + ", ".join(_short(item) for item in value) + ")"
    return readable(str(value))


def _recipes(folder: Path, claims: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for row in summary["recipes"]:
        figures = [
            {
                "id": visible(figure["id"]),
                "anchor": visible(figure["spec" if _is_first(figure, summary["figures"]) else "id"]),
                "heading": f"{visible(figure['paper'])}, {visible(figure['where'])}: {visible(figure['title'])}",
                "caption": readable(figure["caption"]),
                "src": _source(folder / "figures", figure["id"]),
                "claims": [_claim(claim) for claim in claims if claim["figure"] == figure["spec"]]
                if _is_first(figure, summary["figures"])
                else [],
            }
            for figure in summary["figures"]
            if figure["recipe"] == row["name"]
        ]
        found.append(
            {
                "name": visible(row["name"]),
                "summary": readable(row["summary"]),
                "notes": [readable(text) for text in row["notes"]],
                "failed": None if row["failed"] is None else readable(row["failed"]),
                "figures": figures,
                "cost": f"{row['runs']} runs, {row['seconds']:.0f} s of work",
            }
        )
    return found


def _is_first(figure: Mapping[str, Any], figures: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is the first file of its figure."""
    return next(other["id"] for other in figures if other["spec"] == figure["spec"]) == figure["id"]


def _source(folder: Path, name: str) -> str:
    """A picture as a data address: SVG, or PNG where that is smaller."""
    raw = {}
    if Path(name).name != name:
        raise StoreError(f"{folder} holds no picture {name!r}; reproduce it again")
    for kind in ("svg", "png"):
        try:
            raw[kind] = (folder / f"{name}.{kind}").read_bytes()
        except OSError as error:
            raise StoreError(f"{folder / name}.{kind} is missing ({error.strerror}); reproduce it again") from error
    kind = min(raw, key=lambda each: len(raw[each]))
    media = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{media};base64,{base64.b64encode(raw[kind]).decode()}"


def _setting(value: Any) -> str:
    if isinstance(value, float) and not math.isinf(value):
        return f"{value:g}"
    return "–" if value is None else visible(value)
