"""Flags that are no settings, and that several commands share. Only typer is imported here, so `--help` stays quick."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from prefdyn import _typed
from prefdyn.settings import Flag


def _config(context: Any, path: Path | None) -> Path | None:
    """Read flat keys from a YAML file as defaults of this command; the command line wins."""
    if path is None:
        return None
    from prefdyn.cli.command import lists
    from prefdyn.cli.config import read_config

    known: dict[str, Any] = {}
    for parameter in context.command.params:
        if parameter.name != "config":
            flags = [flag.lstrip("-") for flag in (*parameter.opts, *parameter.secondary_opts)]
            known |= {name.replace("-", "_"): parameter for name in (parameter.name, *flags)}
    context.default_map = {
        **(context.default_map or {}),
        **read_config(path, context, known, lists(context.command.name)),
    }
    return path


ALWAYS = (
    inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None,
        annotation=Annotated[
            Path | None,
            typer.Option(
                help="YAML file with any of these flags (flat keys); the command line wins.",
                is_eager=True,
                callback=_config,
            ),
        ],
    ),
    inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=False,
        annotation=Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")],
    ),
)  # fmt: skip
"""Flags of every command, which none of them looks at."""
Files = Annotated[
    list[str] | None, typer.Argument(metavar="DATA...", help="What is read, as with --data.", show_default=False)
]
Out = Annotated[Path | None, typer.Option(help="Output folder. Default: the first free prefdyn-out/COMMAND-N.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output folder if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]
Features = Annotated[Path | None, typer.Option(help="Start from a folder that `prefdyn extract` wrote.")]
Model = Annotated[str, Flag("builtin, a local folder, a hub id, or a LoRA adapter's folder.")]
FigureStyle = Annotated[
    _typed.Style | None,
    Flag(
        "Also draw figures/: screen (SVG and PNG, with titles) or paper (SVG and PDF, without).",
        default="none drawn",
        typed=str,
        read=_typed.style,
    ),
]
ReportTo = Annotated[
    tuple[str, ...],
    Flag("Also log to trackers, as a,b: trackio, wandb, mlflow, ….", typed=str, read=_typed.names_or_none, lists=True),
]
