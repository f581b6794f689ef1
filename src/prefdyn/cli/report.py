"""`prefdyn report`: one page from any set of output folders."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "report"
SUMMARY = "One HTML page from any set of output folders."
HELP = "One HTML page from any set of output folders."
EXAMPLES = """Examples:

prefdyn report prefdyn-out/audit-1

prefdyn report prefdyn-out/audit-1 prefdyn-out/simulate-1 --out both.html"""


def run(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace the page if it exists.")] = False,
) -> None:
    """Write the page."""
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.outputs import output_file
    from prefdyn.report.folders import read_folder
    from prefdyn.report.html import write_report
    from prefdyn.report.reproduce import write_reproduced_page

    runs = [read_folder(folder) for folder in folders]
    reproduced = [run.path for run in runs if run.part("command") == "reproduce"]
    if reproduced and len(runs) > 1:
        raise ConfigError(f"{reproduced[0]} is of `prefdyn reproduce`, whose page is of another kind; give it alone")
    with output_file(out, force=force) as page:
        if reproduced:
            write_reproduced_page(reproduced[0], page)
        else:
            write_report(runs, page)
    print(out)
    common.tell(f"Next: open {out}")
