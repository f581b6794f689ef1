"""`prefdyn report`: one page from any set of output folders."""

from pathlib import Path
from typing import Annotated

import typer

from prefdyn.cli import options as o

NAME = "report"
SUMMARY = "One HTML page from any set of output folders."
HELP = "One HTML page from any set of output folders of audit and simulate."
EXAMPLES = """Examples:

prefdyn report prefdyn-out/audit-1

prefdyn report prefdyn-out/audit-1 prefdyn-out/simulate-1 --out both.html"""


def run(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace the page if it exists.")] = False,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Write the page."""
    from prefdyn.cli import common
    from prefdyn.report.folders import read_folder
    from prefdyn.report.html import write_report
    from prefdyn.store import refuse_existing

    runs = [read_folder(inner) for folder in folders for inner in _runs_in(folder)]
    refuse_existing(out, force=force)
    write_report(runs, out)
    print(out)
    common.tell(f"Next: open {out}")


def _runs_in(folder: Path) -> list[Path]:
    """The folder itself, or the runs of a grid that `simulate` wrote into it."""
    inner = sorted(path.parent for path in folder.glob("*/summary.json"))
    return inner if inner and not (folder / "summary.json").exists() else [folder]
