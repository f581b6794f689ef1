"""The report: one HTML file that asks for nothing from outside, made from output folders."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prefdyn._files import atomic_write
from prefdyn._json import number
from prefdyn.report.facts import dataset_name, model_name
from prefdyn.report.folders import RunFolder, run_of
from prefdyn.report.palette import AGAINST, GROUPS, TOWARDS, UNKNOWN, VERDICTS
from prefdyn.report.sections import section
from prefdyn.report.tables import minus

_HEAT_STEPS = 20


def write_report(folders: Any, path: str | Path, *, static: bool = True) -> Path:
    """Write one self-contained HTML page about one or several runs.

    Args:
        folders: The path of an output folder, a RunFolder, what `audit` returned, or a sequence of these: one section
            each, with an index on top.
        path: The HTML file.
        static: Also embed still pictures, for readers without scripts.

    Returns:
        The path written.

    Raises:
        StoreError: A folder cannot be read.
    """
    many = folders if isinstance(folders, Sequence) and not isinstance(folders, str) else [folders]
    runs = [run_of(item) for item in many]
    path = Path(path)
    atomic_write(path, render(runs, static=static).encode("utf-8"))
    return path


def render(runs: Sequence[RunFolder], *, static: bool = True) -> str:
    """The page as text."""
    loader = PackageLoader("prefdyn.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = minus
    environment.filters["formed"] = _formed
    environment.filters["script_json"] = script_json
    style = colour_rules() + loader.get_source(environment, "report.css")[0]
    script = loader.get_source(environment, "report.js")[0]
    return environment.get_template("report.html.j2").render(
        title=_title(runs),
        sections=[section(run, place, static=static) for place, run in enumerate(runs)],
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def colour_rules() -> str:
    """CSS variables of the palette on light and on dark, and one class per group colour, verdict and heat step."""
    looks = [*VERDICTS.values(), UNKNOWN]

    def variables(side: str) -> str:
        shades = {f"g{place}": shade for place, shade in enumerate(GROUPS)}
        shades |= {f"v-{item.key}": item.shade for item in looks}
        shades |= {"against": AGAINST, "towards": TOWARDS}
        return "".join(f"--{name}:{getattr(shade, side)};" for name, shade in shades.items())

    rules = [
        f":root{{{variables('light')}}}",
        f"@media (prefers-color-scheme: dark){{:root{{{variables('dark')}}}}}",
        f"@media print{{:root{{{variables('light')}}}}}",
    ]
    rules += [f".g{place}{{--c:var(--g{place})}}" for place in range(len(GROUPS))]
    rules += [f".v-{item.key}{{--c:var(--v-{item.key})}}" for item in looks]
    for step in range(_HEAT_STEPS + 1):
        share = 100 * step / _HEAT_STEPS
        rules.append(f".hp{step}{{fill:color-mix(in oklab,var(--towards) {share:g}%,var(--mid))}}")
        rules.append(f".hn{step}{{fill:color-mix(in oklab,var(--against) {share:g}%,var(--mid))}}")
    return "\n".join(rules) + "\n"


def script_json(value: Any) -> Markup:
    r"""JSON that can stand inside a script element: no <, > or & in it, so no tag or comment can begin or end there.

    Example:
        >>> print(script_json({"name": "</script><!--"}))
        {"name":"\u003c/script\u003e\u003c!--"}
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _formed(value: Any, form: str) -> str:
    """A number in a column: every row with the same format, an en dash where it is not known."""
    value = number(value)
    return "–" if np.isnan(value) else format(value, form).removesuffix(".").replace("-", "−")


def _title(runs: Sequence[RunFolder]) -> str:
    if len(runs) == 1:
        return f"{dataset_name(runs[0])} · {model_name(runs[0])}"
    return f"{len(runs)} runs"
