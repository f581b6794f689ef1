"""Write docs/schemas/*.json: JSON Schema of what commands write (run with `uv run python`)."""

import json
from pathlib import Path
from typing import Any

import typer

from prefdyn._json import SCHEMA_VERSION
from prefdyn._shape import json_schema
from prefdyn.cli import app
from prefdyn.report.check import CHECKED
from prefdyn.report.summary_shape import CLAIMS, REPRODUCED, SUMMARY

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"
SHAPES: dict[str, tuple[str, Any]] = {
    "summary": ("summary.json of every command but reproduce", SUMMARY),
    "reproduced": ("summary.json of prefdyn reproduce", REPRODUCED),
    "claims": ("claims.json of prefdyn reproduce", CLAIMS),
    "check": ("prefdyn check --json", CHECKED),
}


def flags_schema(name: str) -> dict[str, Any]:
    """A YAML file of a command's flags, for --config."""
    parameters = typer.main.get_command(app).commands[name].params  # pyright: ignore[reportAttributeAccessIssue]
    known = {
        each.name: {"description": each.help, "type": ["string", "number", "boolean", "array", "null"]}
        for each in parameters
        if each.name != "config" and each.opts[0].startswith("--")
    }
    return {"type": "object", "properties": known, "additionalProperties": False}


def schemas() -> dict[str, str]:
    """Content of each file by its name."""
    found = {name: (title, _OPEN, json_schema(shape)) for name, (title, shape) in SHAPES.items()}
    found["plan"] = ("plan.yaml of prefdyn plan: flags of prefdyn train", "", flags_schema("train"))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.schema.json": json.dumps({**head, "title": title, "description": says, **rest}, indent=1) + "\n"
        for name, (title, says, rest) in found.items()
    }


_OPEN = f"Version {SCHEMA_VERSION} of the files; parts that are not named may be added."


if __name__ == "__main__":
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
