"""What a gate found: lines for a terminal, JUnit XML, Markdown, and annotations of GitHub Actions."""

from collections.abc import Iterator
from xml.etree import ElementTree

from prefdyn.planning.check import Checked, CheckFinding, Result
from prefdyn.report.text import as_markdown, readable, visible

CHECKED = {
    "schema": int,
    "dataset": str,
    "pairs": int,
    "failed": bool,
    "not_run": (str, None),
    "checks": [
        {
            "code": str,
            "name": str,
            "outcome": str,
            "count": int,
            "limit": int,
            "found": [{"group": (str, None), "says": str, "count": int, "pairs": [str], "ignored": bool}],
        }
    ],
}
"""What `prefdyn check --json` prints (see `prefdyn._shape`)."""


def line(item: CheckFinding) -> str:
    """Something found, in one line."""
    place = "" if item.group is None else f" [{visible(item.group)}]"
    return f"{item.code} {item.name}{place}: {visible(item.says)}"


def lines(checked: Checked) -> list[str]:
    """For a terminal: what failed, what is worth a look, and the sum."""
    told = []
    for result, item in _spoken(checked):
        told.append(f"{'failed ' if result.outcome == 'failed' else 'warning'}  {line(item)}")
    told += [
        f"         {result.check.code} {result.check.name}: {result.beyond}"
        for result in checked.of("failed", "warning")
        if result.limit
    ]
    if checked.not_run is not None:
        told.append(f"failed   {visible(checked.not_run)}")
    return [*told, str(checked)]


def junit(checked: Checked) -> bytes:
    """A JUnit XML file: one test case per check, failed, skipped (ignored) or passed."""
    skipped, stopped = len(checked.of("ignored")), int(checked.not_run is not None)
    counts = {"tests": len(checked.results) + stopped, "failures": len(checked.of("failed")), "errors": stopped}
    shared = {name: str(value) for name, value in counts.items()} | {"time": "0"}
    root = ElementTree.Element("testsuites", {"name": "prefdyn check", **shared})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _xml(checked.dataset) or "dataset", **shared, "skipped": str(skipped)}
    )
    for result in checked.results:
        case = _case(suite, f"{result.check.code} {result.check.name}")
        told = "\n".join(_xml(line(item)) for item in result.found)
        if result.outcome == "failed":
            part = ElementTree.SubElement(case, "failure", {"message": result.beyond, "type": result.check.name})
            part.text = f"{told}\n{result.check.mend}"
        elif result.outcome == "ignored":
            ElementTree.SubElement(case, "skipped", {"message": "ignored"})
        elif told:
            ElementTree.SubElement(case, "system-out").text = told
    if checked.not_run is not None:
        part = ElementTree.SubElement(_case(suite, "audit"), "error", {"message": "not made", "type": "DataError"})
        part.text = _xml(checked.not_run)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def markdown(checked: Checked) -> str:
    """A section of Markdown: the sum, and a table of what failed and what is worth a look."""
    told = [f"### prefdyn check: {'failed' if checked.failed else 'passed'}", "", str(checked), ""]
    rows = [
        (result.outcome, f"{item.code} {item.name}", item.group or "", item.says, result.check.mend)
        for result, item in _spoken(checked)
    ]
    if rows:
        told += ["| | check | group | what | what to do |", "|---|---|---|---|---|"]
        told += ["| " + " | ".join(map(as_markdown, row)) + " |" for row in rows]
    if checked.not_run is not None:
        told += ["", as_markdown(checked.not_run)]
    return "\n".join(told) + "\n"


def annotations(checked: Checked) -> list[str]:
    """Workflow commands of GitHub Actions, one per line."""
    told = []
    for result, item in _spoken(checked):
        kind = "error" if result.outcome == "failed" else "warning"
        place = "" if item.group is None else f"[{visible(item.group)}] "
        told.append(f"::{kind} title={item.code} {item.name}::{_escaped(place + item.says)}")
    if checked.not_run is not None:
        told.append(f"::error title=prefdyn check::{_escaped(checked.not_run)}")
    return told


def _spoken(checked: Checked) -> Iterator[tuple[Result, CheckFinding]]:
    for result in checked.of("failed", "warning"):
        yield from ((result, item) for item in result.found if not item.ignored)


def _case(suite: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": "prefdyn.check", "name": name, "time": "0"})


def _xml(text: str) -> str:
    """Text without what XML 1.0 cannot write."""
    return "".join(letter for letter in readable(text) if _has_place(ord(letter)))


def _has_place(number: int) -> bool:
    return number in (0x9, 0xA, 0xD) or 0x20 <= number <= 0xD7FF or 0xE000 <= number <= 0xFFFD or number >= 0x10000


def _escaped(text: str) -> str:
    """Text of a workflow command, in one line."""
    return readable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
