"""`prefdyn compare`: two output folders side by side."""

from pathlib import Path
from typing import Annotated

import typer

from prefdyn.cli import options as o

NAME = "compare"
SUMMARY = "Two output folders side by side: prediction against training, base against aligned."
HELP = (
    "Two runs of the same groups side by side, such as a simulation and a training run: curves, order of learning with "
    "an interval and chance beside it, errors of losses and margins step for step and after the best common rescaling "
    "of time, steps to given losses."
)
EXAMPLES = """Examples:

prefdyn compare prefdyn-out/simulate-1 prefdyn-out/train-1

prefdyn compare aligned misaligned --loss 0.5,0.3 --out undone"""


def run(
    first: Annotated[Path, typer.Argument(metavar="A", help="Output folder of audit, simulate, bounds or train.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another, held against it.")],
    loss: Annotated[str | None, typer.Option(help="Losses whose first step is told: 0.5,0.3.")] = None,
    out: o.Out = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Compare, and write the folder."""
    options = dict(locals())
    import json

    from prefdyn.cli import common
    from prefdyn.outputs import output_folder
    from prefdyn.planning.compare import compare_runs
    from prefdyn.report.compare import compare_table, side

    losses = [] if loss is None else common.numbers(loss, name="--loss")
    found = compare_runs(side(first), side(second), losses=losses, seed=seed)
    with output_folder(out, command=NAME, force=force) as folder:
        found.write(folder.path)
        common.save_config(folder.path, options)
        common.write_pictures(folder.path)
        summary = found.summary()
    print(json.dumps(summary, ensure_ascii=False) if json_output else compare_table(summary))
    for line in summary["warnings"]:
        common.tell(f"warning: {line}")
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
