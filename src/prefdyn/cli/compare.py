"""`prefdyn compare`: two output folders side by side."""

from pathlib import Path
from typing import Annotated

import typer

from prefdyn import _typed
from prefdyn.cli import options as o
from prefdyn.cli.command import Given
from prefdyn.settings import Flag

NAME = "compare"
SUMMARY = "Two output folders side by side: prediction against training, base against aligned."
HELP = (
    "Two runs of the same groups side by side, such as a simulation and a training run: curves, order of learning with "
    "an interval and chance beside it, errors of losses and margins step for step and after the best common rescaling "
    "of time, steps to given losses. A forecast and the run of it: how good the forecast was, by progress."
)
EXAMPLES = """Examples:

prefdyn compare prefdyn-out/simulate-1 prefdyn-out/train-1

prefdyn compare aligned misaligned --loss 0.5,0.3 --out undone

prefdyn compare prefdyn-out/forecast-1 prefdyn-out/train-1"""


def run(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="Output folder of audit, simulate, bounds, forecast or train.")
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another, held against it.")],
    given: Given,
    loss: Annotated[
        tuple[float, ...], Flag("Losses whose first step is told: 0.5,0.3.", read=_typed.numbers, lists=True)
    ] = (),
    out: o.Out = None,
    figure_style: o.FigureStyle = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Compare, and write the folder."""
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.outputs import output_folder
    from prefdyn.report.folders import read_folder

    folders = [read_folder(each) for each in (first, second)]

    from prefdyn.planning.compare import compare_runs
    from prefdyn.planning.forecast_check import check_forecast
    from prefdyn.report.compare import compare_table, side
    from prefdyn.report.forecast import forecast_table

    table = compare_table
    if folders[0].part("command") == "forecast":
        if loss:
            raise ConfigError("--loss changes nothing where a forecast is held against a run: leave it out")
        told = folders[0].summary
        compared = check_forecast(told, side(second).run, folders=(str(first), str(second)))
        table = forecast_table
    else:
        compared = compare_runs(side(first), side(second), losses=loss, seed=seed)
    with output_folder(out, command=NAME, force=force) as folder:
        compared.write(folder.path)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
    common.tell_result(compared.summary(), table, as_json=json_output)
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
