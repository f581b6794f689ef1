"""Write the page of each paper from finished reproductions: its figures, its claims on every model, how to rerun each.

uv run python scripts/reproduced_pages.py NAME[=FOLDER] [NAME[=FOLDER] ...]
uv run python scripts/reproduced_pages.py --rules

Each folder is what `prefdyn reproduce all --out FOLDER` wrote; a name without one is a model whose verdicts are kept
beside the pages, from an earlier call. The first one gives the pictures. Figures that quote statements of the data are
left out. `--rules` keeps the verdicts of the pages that stand, writes today's rules under them, and drops claims that
are none any more.
"""

import csv
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prefdyn.experiments.catalogue import CATALOGUE, FigureSpec
from prefdyn.experiments.claims import KINDS
from prefdyn.experiments.presets import beside_published, preset_named
from prefdyn.experiments.published import SETTINGS
from prefdyn.experiments.recipes import recipe_named

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reproduced"
PICTURES = ROOT / "docs" / "images" / "reproduced"
KEPT = PAGES / "verdicts"
PAPERS = {
    "2403.18742": "Learning dynamics of alignment",
    "2408.03459": "Diverse values and the reward margin",
    "2404.04626": "The gradient field of DPO",
}
EARLIER = (
    "† The rule is another one since that run; the one below is today's. "
    "[What changed](index.md#rules-that-changed-since-these-runs)."
)
WORDS = {True: "held", False: "failed", None: "not testable"}
_SORTS = ("figure", "table", "fit", "experiment", "check")
_COUNTS, _TABLE, _HEAD = "| model | kind", "| claim", '??? note "How they are judged"'
_WIDEST, _COLOURS = 1500, 64


@dataclass(frozen=True, slots=True)
class Run:
    """A finished reproduction under the name that the pages give it."""

    name: str
    preset: str
    figures: Sequence[Mapping[str, Any]]
    """Each drawn figure: id, spec, where, title, caption, and whether it quotes the data."""
    claims: Mapping[str, Mapping[str, Any]]
    """By id."""
    folder: Path | None = None
    """Where it was written; None for one that is kept beside the pages."""

    def keep(self) -> None:
        """Keep what the pages say of it beside them."""
        KEPT.mkdir(parents=True, exist_ok=True)
        body = {"preset": self.preset, "figures": self.figures, "claims": list(self.claims.values())}
        text = json.dumps(body, indent=0, ensure_ascii=False, allow_nan=False)
        (KEPT / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")


def read(given: str) -> Run:
    """NAME=FOLDER, or NAME of one that is kept.

    Raises:
        SystemExit: It is not of that form, or the folder holds no reproduction.
    """
    name, _, place = given.partition("=")
    try:
        if not place:
            body = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
            return Run(name, body["preset"], body["figures"], {row["id"]: row for row in body["claims"]})
        folder = Path(place)
        summary, claims = (
            json.loads((folder / file).read_text(encoding="utf-8")) for file in ("summary.json", "claims.json")
        )
    except OSError as error:
        raise SystemExit(f"{given!r}: {error}; give NAME=FOLDER of a finished `prefdyn reproduce all`") from error
    figures = [
        {key: figure[key] for key in ("id", "spec", "where", "title", "caption")}
        | {"quotes": _quotes(folder / "figures" / f"{figure['id']}.csv")}
        for figure in summary["figures"]
    ]
    return Run(name, summary["preset"]["name"], figures, {row["id"]: _told(row) for row in claims}, folder)


def _told(claim: Mapping[str, Any]) -> dict[str, Any]:
    """What the pages say of a claim."""
    found = {name: claim[name] for name in ("id", "paper", "kind", "rule", "measured", "holds", "because")}
    for name, field in (("control", "beyond"), ("corrected", "holds")):
        found[name] = {field: claim[name][field]} if claim.get(name) else None
    return found


def page(paper: str, runs: Sequence[Run]) -> str:
    """One paper's page."""
    specs = sorted(
        (spec for spec in CATALOGUE if spec.paper == paper), key=lambda spec: (_SORTS.index(spec.sort), spec.number)
    )
    parts = [
        f"# {paper}: {PAPERS[paper]}",
        f"Every figure and table of [{paper}](https://arxiv.org/abs/{paper}), redrawn on small models, and what became "
        "of its claims there. The models are thousands of times smaller than the published ones: a claim that fails "
        "here is a finding about these models and these settings, and shows that the test can fail. "
        "[How to read this page](index.md) says what the verdicts, intervals and twins are.",
        _counts(paper, runs),
        *([EARLIER] if _anything_earlier(runs) else []),
    ]
    for spec in specs:
        recipe = recipe_named(spec.recipe)
        parts += [f"## {spec.where}: {spec.title}", *_pictures(spec.id, runs[0])]
        claims = [claim for claim in recipe.claims if claim.figure == spec.id]
        if claims:
            parts.append(_table(claims, runs))
            parts.append(_judged(claims, spec.where))
        else:
            parts.append("It makes no claim of its own.")
        parts.append(f"Rerun: `{_rerun(spec.recipe, runs[0])}`")
    parts.append("## Settings, beside the published ones")
    for preset in dict.fromkeys(run.preset for run in runs):
        whose = ", ".join(run.name for run in runs if run.preset == preset)
        parts += [f"Preset `{preset}` ({whose}): {preset_named(preset).says}.", _settings(paper, preset)]
    return "\n\n".join(parts) + "\n"


def _anything_earlier(runs: Sequence[Run]) -> bool:
    """Whether some verdict is by a rule that is another one today."""
    today = {claim.id: claim.rule for spec in CATALOGUE for claim in recipe_named(spec.recipe).claims}
    return any(row["rule"] != today[id] for run in runs for id, row in run.claims.items() if id in today)


def _judged(claims: Iterable[Any], where: str) -> str:
    rules = "\n".join(_rules(claims, where))
    return f"{_HEAD}\n{rules}"


def restated(page: str, paper: str) -> str:
    """A page that stands, with the rules as they are today, without the claims that are none any more."""
    parts = page.split("\n\n")
    kept: list[tuple[str, list[str]]] = []
    for spec in CATALOGUE:
        claims = [claim for claim in recipe_named(spec.recipe).claims if claim.figure == spec.id]
        if spec.paper != paper or _section(parts, spec, _TABLE) is None:
            continue
        table, rules = _section(parts, spec, _TABLE), _section(parts, spec, _HEAD)
        assert table is not None
        assert rules is not None
        if not claims:
            parts[table : rules + 1] = ["It makes no claim of its own."]
            continue
        parts[rules] = _judged(claims, spec.where)
        stated = {_column(_text(claim.statement)): claim.kind for claim in claims}
        lines = parts[table].splitlines()
        rows = [line for line in lines[2:] if cells_of(line)[0] in stated]
        parts[table] = "\n".join(lines[:2] + rows)
        kept += [(stated[cells_of(line)[0]], cells_of(line)[2:]) for line in rows]
    place = next(at for at, part in enumerate(parts) if part.startswith(_COUNTS))
    parts[place] = _recounted(parts[place], kept)
    return "\n\n".join(parts)


def _section(parts: Sequence[str], spec: FigureSpec, head: str) -> int | None:
    """Where in a figure's section a part begins so."""
    start = parts.index(f"## {spec.where}: {spec.title}")
    for at in range(start + 1, len(parts)):
        if parts[at].startswith("## "):
            return None
        if parts[at].startswith(head):
            return at
    return None


def cells_of(line: str) -> list[str]:
    """Of a row of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _recounted(table: str, rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The counts of a page, from the kinds and cells of its claims; a correction that was not made stays so."""
    lines = table.splitlines()
    models = list(dict.fromkeys(cells_of(line)[0] for line in lines[2:]))
    for at, line in enumerate(lines[2:], start=2):
        model, words, _, corrected, *_ = cells_of(line)
        mine = [cells[models.index(model)] for kind, cells in rows if KINDS[kind] == words]
        held, failed, neither = ([cell for cell in mine if cell.startswith(f"**{word}**")] for word in WORDS.values())
        heads = [cell.partition(":")[0] for cell in held]
        twins = [head for head in heads if "beyond the twin" in head]
        beyond = sum("not beyond the twin" not in head for head in twins)
        if corrected != "–":
            corrected = f"{sum('not after correction' not in head for head in heads)} of {len(held)}"
        cells = (model, words, len(held), corrected, f"{beyond} of {len(twins)}", len(failed), len(neither))
        lines[at] = f"| {' | '.join(map(str, cells))} |"
    return "\n".join(lines)


def _rerun(recipe: str, run: Run) -> str:
    """The command, with the data as users have it."""
    return f"prefdyn reproduce {recipe} --preset {run.preset} --data persona:PATH --data hh:PATH --model MODEL"


def _settings(paper: str, named: str) -> str:
    """What a preset changes of each published setup."""
    preset = preset_named(named)
    lines = ["| setup | as published by | changed: here (published) |", "|---|---|---|"]
    used = {name for spec in CATALOGUE if spec.paper == paper for name in recipe_named(spec.recipe).setups}
    for name, published in SETTINGS.items():
        rows = beside_published(preset, name)
        if name in used and rows:
            told = "; ".join(
                f"{row['field'].replace('_', ' ')} {_value(row['here'])} ({_value(row['published'])})" for row in rows
            )
            lines.append(f"| {name} | {_text(published.source)} | {_text(told)} |")
    return "\n".join(lines)


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _counts(paper: str, runs: Sequence[Run]) -> str:
    heads = ("held", "of them after correction", "beyond the untrained twin", "failed", "not testable")
    lines = [f"{_COUNTS} | {' | '.join(heads)} |", "|---|---|--:|--:|--:|--:|--:|"]
    for run, (kind, words) in itertools.product(runs, KINDS.items()):
        claims = [row for row in run.claims.values() if (row["paper"], row.get("kind", "replication")) == (paper, kind)]
        held, failed, neither = ([row for row in claims if row["holds"] is word] for word in (True, False, None))
        twins = [row["control"]["beyond"] for row in held if row.get("control")]
        fallen = sum(not row["corrected"]["holds"] for row in held if row.get("corrected"))
        corrected = any(row.get("corrected") for row in run.claims.values())
        twin, stand = f"{sum(map(bool, twins))} of {len(twins)}", f"{len(held) - fallen} of {len(held)}"
        stand = stand if corrected else "–"
        lines.append(f"| {run.name} | {words} | {len(held)} | {stand} | {twin} | {len(failed)} | {len(neither)} |")
    return "\n".join(lines)


def _pictures(spec: str, run: Run) -> Iterable[str]:
    for figure in run.figures:
        if figure["spec"] != spec:
            continue
        name = figure["id"]
        if figure["quotes"]:
            yield "The picture quotes statements of the data and is not shown here."
            continue
        yield f"![{figure['where']}, {figure['title']}](../images/reproduced/{name}.png)"
        yield f"*{_text(figure['caption'])}*"


def _quotes(path: Path) -> bool:
    """Whether a figure's numbers have texts of the data among them."""
    if not path.exists():
        return False
    with path.open(encoding="utf-8", newline="") as lines:
        return any(row.get("column") == "text" for row in csv.DictReader(lines))


def _table(claims: Iterable[Any], runs: Sequence[Run]) -> str:
    names = [run.name for run in runs]
    lines = [f"{_TABLE} | paper | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for claim in claims:
        cells = [
            _text(claim.statement),
            _text(claim.paper_value or "–"),
            *(_cell(run.claims.get(claim.id), claim.rule) for run in runs),
        ]
        lines.append("| " + " | ".join(map(_column, cells)) + " |")
    return "\n".join(lines)


def _column(text: str) -> str:
    """As it stands in a table."""
    return text.replace("|", "\\|")


def _cell(row: Mapping[str, Any] | None, rule: str) -> str:
    if row is None:
        return "–"
    word = f"**{WORDS[row['holds']]}**" + ("" if row["rule"] == rule else " †")
    if (beside := row.get("corrected")) and row["holds"] and not beside["holds"]:
        word += ", *not after correction*"
    control = row.get("control") or {}
    if row["holds"] and control.get("beyond") is not None:
        word += ", beyond the twin" if control["beyond"] else ", *not beyond the twin*"
    return f"{word}: {_text(row['because'] if row['holds'] is None else row['measured'])}"


def _rules(claims: Iterable[Any], where: str) -> Iterable[str]:
    """Each rule once, with the places of its claims."""
    places: dict[str, list[str]] = {}
    for claim in claims:
        here = places.setdefault(claim.rule, [])
        if claim.where not in (where, *here):
            here.append(claim.where)
    for rule, others in places.items():
        where = "; ".join(others)
        yield f"    - {f'({_text(where)}) ' if where else ''}{_text(rule)}"


def _text(text: str) -> str:
    """On one line, and nothing in it is markup."""
    plain = " ".join(text.split())
    for mark in ("\\", "*", "_", "<", "`", "[", "$"):
        plain = plain.replace(mark, "\\" + mark)
    return plain


def draw(run: Run, folder: Path) -> None:
    """Copy the pictures that the pages show, in few colours; those of a kept run stand as they are."""
    if run.folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for figure in run.figures:
        if figure["quotes"]:
            continue
        with Image.open(run.folder / "figures" / f"{figure['id']}.png") as image:
            drawn = image.convert("RGB")
        drawn.thumbnail((_WIDEST, 4 * _WIDEST))
        drawn.quantize(_COLOURS).save(folder / f"{figure['id']}.png", optimize=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    if sys.argv[1] == "--rules":
        for PAPER in PAPERS:
            PAGE = PAGES / f"{PAPER}.md"
            PAGE.write_text(restated(PAGE.read_text(encoding="utf-8"), PAPER), encoding="utf-8")
        raise SystemExit
    RUNS = [read(given) for given in sys.argv[1:]]
    for RUN in RUNS:
        if RUN.folder is not None:
            RUN.keep()
    for PAPER in PAPERS:
        (PAGES / f"{PAPER}.md").write_text(page(PAPER, RUNS), encoding="utf-8")
    draw(RUNS[0], PICTURES)
