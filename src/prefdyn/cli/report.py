"""`prefdyn report`: one page from any set of output folders, or a section for a card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefdyn import _typed
from prefdyn.settings import Flag

if TYPE_CHECKING:
    from prefdyn.report.folders import RunFolder

NAME = "report"
SUMMARY = "One HTML page from any set of output folders, a section for a dataset or model card, or figures."
HELP = (
    "One HTML page from any set of output folders; with --card a section of Markdown for a dataset or model card; with "
    "--figure-style a folder of figures."
)
EXAMPLES = """Examples:

prefdyn report prefdyn-out/audit-1

prefdyn report prefdyn-out/audit-1 prefdyn-out/simulate-1 --out both.html

prefdyn report prefdyn-out/audit-1 --group honesty --out honesty.html

prefdyn report prefdyn-out/audit-1 --card dataset > section.md

prefdyn report prefdyn-out/audit-1 --figure-style paper --out figures"""
_PAGE = Path("report.html")


def run(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output folders.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write, or the Markdown.", show_default="report.html; --card prints")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="The page of this one group of one folder: its verdict, curve, pairs and labels to check."),
    ] = None,
    card: Annotated[
        str | None,
        typer.Option(
            help="Write the section for the card of a `dataset` or a `model`, of one folder of audit or train."
        ),
    ] = None,
    figure_style: Annotated[
        _typed.Style | None,
        Flag(
            "Draw every figure of one folder instead: screen (SVG and PNG, with titles) or paper (SVG and PDF, "
            "without). --out is a folder then.",
            default="a page",
            typed=str,
            read=_typed.style,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the page, the section, or the figures."""
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.outputs import output_file
    from prefdyn.report.folders import read_folder

    runs = [read_folder(folder) for folder in folders]
    if group is not None:
        runs = [_one_group(runs, group, by_itself=card is None and figure_style is None)]
    if card is not None:
        _card(runs, card, out, force=force)
        return
    if figure_style is not None:
        _figures(runs, figure_style, out, force=force)
        return
    reproduced = [run.path for run in runs if run.part("command") == "reproduce"]
    if reproduced and len(runs) > 1:
        raise ConfigError(f"{reproduced[0]} is of `prefdyn reproduce`, whose page is of another kind; give it alone")

    from prefdyn.report.html import write_report
    from prefdyn.report.reproduce import write_reproduced_page

    out = _PAGE if out is None else out
    with output_file(out, force=force) as page:
        if reproduced:
            write_reproduced_page(reproduced[0], page)
        else:
            write_report(runs, page)
    print(out)
    common.tell(f"Next: open {out}")


def _one_group(runs: "list[RunFolder]", name: str, *, by_itself: bool) -> "RunFolder":
    from prefdyn.errors import ConfigError
    from prefdyn.report.one_group import one_group

    if len(runs) > 1 or not by_itself:
        raise ConfigError(
            "--group makes the page of one group of one folder; leave out the other folders, --card and --figure-style"
        )
    return one_group(runs[0], name)


def _figures(runs: "list[RunFolder]", style: _typed.Style, out: Path | None, *, force: bool) -> None:
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.outputs import output_folder

    if len(runs) > 1 or runs[0].part("command") == "reproduce":
        raise ConfigError("--figure-style draws the figures of one folder, which `prefdyn reproduce` did not write")
    with output_folder(out, command=NAME, force=force) as folder:
        common.write_styled(runs[0], folder.path, style)
    print(folder.final)


def _card(runs: "list[RunFolder]", kind: str, out: Path | None, *, force: bool) -> None:
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.outputs import output_file
    from prefdyn.report.card import card

    if len(runs) > 1:
        raise ConfigError(f"--card is of one folder, but {len(runs)} are given; give one of audit or train")
    if out is None and force:
        raise ConfigError("--force changes nothing with --card and without --out, which prints; leave it out")
    text = card(runs[0], kind)
    if out is None:
        print(text, end="")
        return
    with output_file(out, force=force) as file:
        file.write_text(text, encoding="utf-8", newline="\n")
    print(out)
    common.tell(f"Next: paste it into README.md of the {kind}, its metadata into the block on top")
