"""`prefdyn forecast`: what a LoRA or full run will do to every group, before it is made."""

from typing import Annotated, Literal

from prefdyn import _typed
from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Flag, Reading, Setup, Source

NAME = "forecast"
SUMMARY = "What a LoRA or full run will do to every group, before it is made, and how much of it is luck."
HELP = (
    "Foretell the held-out loss of every group in the LoRA or full run that these flags would make, against the run's "
    "mean held-out loss (progress), with bands that hold what is not known of it; and, apart, which step "
    "reaches which loss (the clock). Made of the run's own first steps and of a few cheap beginnings with other seeds, "
    "each carried on by a linear run. `prefdyn compare "
    "FORECAST RUN` says how good it was; `prefdyn train --watch FORECAST` tells when a group leaves its band."
)
EXAMPLES = """Examples:

prefdyn forecast

prefdyn forecast --model meta-llama/Llama-3.2-1B --data hf:OWNER/NAME --tune lora --learning-rate 1e-4 --epochs 1

prefdyn forecast --tune full --steps 200 --batch-size 16 --probe 20 --rehearse 0.25"""
_OF_REAL_RUNS = ("record", "probes", "checkpoint_every")
"""Settings of a run that a forecast of it has no use for."""


def run(
    given: Given,
    source: Source = Source(),
    model: o.Model = "builtin",
    out: o.Out = None,
    reference: Annotated[
        str | None, Flag("Another model, or a folder of `prefdyn score`.", default="the model as it starts")
    ] = None,
    setup: Annotated[
        Setup,
        Only(*(name for name in Setup.flags() if name not in _OF_REAL_RUNS)),
    ] = Setup(tune="lora"),
    probe: Annotated[
        int | Literal["auto"],
        Flag(
            "Real first steps of the run to make: auto (7.5 % of them), 0 for none, or N.",
            typed=str,
            read=_typed.steps_or_auto,
        ),
    ] = "auto",
    rehearse: Annotated[
        float | Literal["auto"],
        Flag(
            "What cheap runs with other seeds may cost, of the run's pairs: auto (two of a sixteenth each), 0 for "
            "none, or a share.",
            typed=str,
            read=_typed.rate,
        ),
    ] = "auto",
    map: Annotated[
        bool,
        Flag("Where other betas and learning rates would take the run, by linear runs from the same gradients, too."),
    ] = False,
    reading: Reading = Reading(),
    report_to: o.ReportTo = (),
    figure_style: o.FigureStyle = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Forecast, and write the folder."""
    from prefdyn._checks import one_of
    from prefdyn._progress import frameworks
    from prefdyn.cli import common
    from prefdyn.outputs import output_folder
    from prefdyn.training.settings import chosen

    one_of(setup.tune, ("lora", "full"), name="--tune")
    setup.idle()
    settings = {**chosen(setup), "seed": seed}
    for name in _OF_REAL_RUNS:
        settings.pop(name)

    with frameworks(for_good=True):
        from prefdyn.planning.forecast import forecast
        from prefdyn.report.forecast import forecast_table

    common.check_trackers(report_to)
    with output_folder(out, command=NAME, force=force) as folder:
        pairs = common.split_dataset(source, seed=seed)
        found = forecast(
            pairs, model, reference=reference, probe=probe, rehearse=rehearse, map=map, out=folder.path,
            tell=common.tell, reading=reading, **settings,
        )  # fmt: skip
        found.write(folder.path)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
    common.tell_result(found.summary(), forecast_table, as_json=json_output)
    common.log_to(report_to, folder.final, command=NAME, beta=setup.beta)
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
