"""Write docs/commands.md from the --help of every command (run with `uv run python`)."""

import re
from pathlib import Path

from typer.testing import CliRunner

from prefdyn.cli import COMMANDS, app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"


def page() -> str:
    """The whole page; made from --help at a fixed width, so that it is the same everywhere."""
    parts = [
        "# Commands\n",
        "One verb each. The result goes to stdout or files, progress and advice to stderr. Exit 0: done; 1: an error,"
        "\ntold in one line (`--debug` shows the traceback); 2: usage. This page is generated from `--help`.\n",
    ]
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    for name in COMMANDS:
        result = runner.invoke(app, [name, "--help"], prog_name="prefdyn", catch_exceptions=False)
        text = re.sub(r"[ \t]+\n", "\n", result.stdout).strip()
        parts.append(f"## prefdyn {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
