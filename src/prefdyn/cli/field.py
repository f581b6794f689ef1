"""`prefdyn field`: the gradient field of DPO over the two probability ratios."""

from pathlib import Path
from typing import Annotated

from prefdyn.cli import options as o
from prefdyn.cli.command import Given
from prefdyn.settings import Flag

NAME = "field"
SUMMARY = "Loss surface, gradient field and flow lines over (x1, x2); a run's own path over it."
HELP = (
    "Loss surface, gradient field and flow lines over x1 = π(chosen)/reference and x2 = π(rejected)/reference. "
    "--run lays the path of a run's average pair over it."
)
EXAMPLES = """Examples:

prefdyn field

prefdyn field --beta 0.5 --ref-chosen 0.1 --ref-rejected 0.4

prefdyn field --run prefdyn-out/audit-1"""


def run(
    given: Given,
    beta: Annotated[float | None, Flag("DPO temperature.", default="0.1, or the run's")] = None,
    ref_chosen: Annotated[float | None, Flag("Reference probability of the chosen answer.")] = None,
    ref_rejected: Annotated[float | None, Flag("Reference probability of the rejected answer.")] = None,
    run: Annotated[Path | None, Flag("Output folder of audit, simulate or bounds.")] = None,
    out: o.Out = None,
    figure_style: o.FigureStyle = None,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Draw the plane and write the folder."""
    import json

    from prefdyn.cli import common
    from prefdyn.errors import ConfigError, DataError
    from prefdyn.outputs import output_folder
    from prefdyn.planning.field import field_study
    from prefdyn.report.statements import field_table, statement_table

    if run is not None and beta is not None:
        raise ConfigError(f"--beta {beta} cannot be used with --run; the run has a beta of its own")
    source, origin = common.stored_run(run) if run is not None else (None, None)
    try:
        found = field_study(
            beta=0.1 if beta is None else beta,
            ref_chosen=ref_chosen,
            ref_rejected=ref_rejected,
            run=source,
            provenance=origin,
        )
    except (ConfigError, DataError) as error:
        raise error if run is None else type(error)(f"{run}: {error.typed}") from error
    with output_folder(out, command=NAME, force=force) as folder:
        found.write(folder.path)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
        summary = found.summary()
    if json_output:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print(field_table(summary))
        if summary["bounds"]:
            print("\n" + statement_table(summary))
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
