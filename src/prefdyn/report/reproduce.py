"""What a reproduction shows: its figures in the papers' arrangement, and one page with the claims on top."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from prefdyn._files import atomic_write
from prefdyn._json import NotJSON, read_json
from prefdyn._shape import Shape
from prefdyn.errors import StoreError
from prefdyn.experiments import recipe
from prefdyn.experiments.claims import KINDS
from prefdyn.experiments.reproduce import counts_of
from prefdyn.report.figures import Format, figure_of, smallest, write_figures
from prefdyn.report.html import _hash, colour_rules
from prefdyn.report.summary_shape import CLAIMS, REPRODUCED
from prefdyn.report.tables import minus
from prefdyn.report.text import readable, visible
from prefdyn.store import fits

_WORDS = {True: "held", False: "failed", None: "not testable"}


def write_reproduced_figures(figures: Iterable[recipe.Figure], folder: str | Path) -> list[Path]:
    """Draw figures of recipes as SVG, PNG and PDF files, named by paper and figure.

    Args:
        figures: As a recipe gives them.
        folder: Made if missing.

    Returns:
        The paths written, in order.

    Raises:
        StoreError: A file cannot be written.
    """
    return write_figures((figure.picture for figure in figures), folder, formats=("svg", "png", "pdf"))


def reproduced_figure(figure: recipe.Figure) -> Figure:
    """A figure of a recipe as matplotlib has it. All panels of one figure are of one kind."""
    return figure_of(figure.picture)


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
        if (chance := _chance(row)) and row["holds"]:
            lines.append(f"{'':16}{chance}")
    many = "1 claim" if len(claims) == 1 else f"{len(claims)} claims"
    return "\n".join([*lines, "", f"{many}: {_counted(counts_of(claims))} here{_apart(claims)}"])


def _counted(counts: Mapping[str, Any]) -> str:
    stand = f" (of {counts['tested']} by a test {counts['stand']} after correction)" if counts.get("tested") else ""
    return f"{counts['held']} held{stand}, {counts['failed']} failed, {counts['not_testable']} not testable"


def _chance(row: Mapping[str, Any]) -> str:
    """The p of a claim, and what the correction makes of it."""
    if row.get("p") is None:
        return ""
    beside = row.get("corrected")
    told = f"p {row['p']:.2g}, one-sided"
    if beside:
        told += f"; {beside['p']:.2g} among {beside['among']} claims of the paper (Benjamini–Hochberg)"
    return told


def _thresholds(row: Mapping[str, Any]) -> str:
    """What would come of a claim at other thresholds."""

    def ends(value: Any) -> str:
        return " to ".join(f"{end:.3g}" for end in value) if isinstance(value, list) else f"{value:.3g}"

    return "; ".join(f"at {ends(each['threshold'])}: {_WORDS[each['holds']]}" for each in row.get("thresholds") or [])


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
    counts, model = counts_of(claims), visible(summary["model"]["name"] or "the published models")
    return environment.get_template("reproduce.html.j2").render(
        title=f"Reproduction ({visible(summary['preset']['name'])}) · {model}",
        model=model,
        dataset=visible(summary["dataset"]["name"]),
        preset={name: readable(str(summary["preset"][name])) for name in ("name", "says")},
        lead=f"Of {len(claims)} claims {_counted(counts)} here{_apart(claims)}.",
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
        "chance": _chance(row),
        "thresholds": _thresholds(row),
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
        return minus(value)
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
    raw: dict[Format, bytes] = {}
    if Path(name).name != name:
        raise StoreError(f"{folder} holds no picture {name!r}; reproduce it again")
    kinds: tuple[Format, ...] = ("svg", "png")
    for kind in kinds:
        try:
            raw[kind] = (folder / f"{name}.{kind}").read_bytes()
        except OSError as error:
            raise StoreError(f"{folder / name}.{kind} is missing ({error.strerror}); reproduce it again") from error
    return smallest(raw)


def _setting(value: Any) -> str:
    if isinstance(value, float) and not math.isinf(value):
        return f"{value:g}"
    return "–" if value is None else visible(value)
