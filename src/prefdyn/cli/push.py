"""`prefdyn push`: the page on a static space, the section in a card."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "push"
SUMMARY = "The page on a static space of the hub, the section in a card; says what it would do unless told to do it."
HELP = (
    "Put the page of a folder on a static space of the Hugging Face hub, and its section into the card of a dataset or "
    "model. Without --no-dry-run it only says what it would do, and asks nothing of the hub. What others wrote is "
    "never overwritten: a space that prefdyn did not write, or a section that was changed by hand, is refused."
)
EXAMPLES = """Examples:

prefdyn push prefdyn-out/audit-1 --space me/audit-of-my-data

prefdyn push prefdyn-out/audit-1 --space me/audit-of-my-data --card dataset:me/my-data --no-dry-run"""


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An output folder.")],
    space: Annotated[
        str | None, typer.Option(help="OWNER/NAME of the space for the page; made where there is none.")
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(
            help="dataset:OWNER/NAME or model:OWNER/NAME, whose card gets the section; several times. Of a folder of "
            "audit or train."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the space private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Only say what would be done.")] = True,
) -> None:
    """Say, or do."""
    import tempfile

    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.report.folders import read_folder
    from prefdyn.report.html import write_report
    from prefdyn.report.push import card_with_section, space_files, target, upload
    from prefdyn.report.reproduce import write_reproduced_page

    if space is None and not card:
        raise ConfigError("push needs a place: --space OWNER/NAME, --card dataset:OWNER/NAME or model:OWNER/NAME")
    if private and space is None:
        raise ConfigError("--private is of a space; leave it out, or name one with --space")
    found = read_folder(folder)
    cards = [target(each) for each in card or ()]
    goals = [*([target(space, kind="space")] if space is not None else []), *cards]
    texts = {goal: card_with_section(None, found, goal.kind) for goal in cards}
    files = {}
    if space is not None:
        with tempfile.TemporaryDirectory() as place:
            page = Path(place) / "index.html"
            if found.part("command") == "reproduce":
                write_reproduced_page(folder, page)
            else:
                write_report([found], page)
            files = space_files(page.read_bytes(), found)
    for goal in goals:
        if dry_run:
            what = (
                ", ".join(f"{name} ({len(body):,} bytes)" for name, body in files.items())
                if goal.kind == "space"
                else f"a section of {len(texts[goal].splitlines())} lines in README.md"
            )
            print(f"would write to {goal.url}: {what}")
        elif goal.kind == "space":
            print(upload(goal, lambda old: files, private=private))
        else:
            print(upload(goal, lambda old, goal=goal: {
                "README.md": card_with_section(old, found, goal.kind).encode()
            }))  # fmt: skip
    if dry_run:
        if space is not None:
            common.tell("The page quotes texts of the data, and a space is public unless --private makes it.")
        common.tell("Nothing was sent. Next: the same command with --no-dry-run")
