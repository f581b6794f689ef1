"""`prefdyn simulate`: learning curves from features."""

from dataclasses import replace
from typing import Annotated

from prefdyn.cli import options as o
from prefdyn.cli.command import Axes, Given, Only
from prefdyn.settings import Extraction, Flag, Setup, Source

NAME = "simulate"
SUMMARY = "Learning curves from features; grids of settings."
HELP = (
    "Learning curves of last-layer training, per group. One setting: jointly and each group alone. Comma lists of "
    "settings make a grid: what each would do, which one to take and why, and whether the order of learning holds."
)
EXAMPLES = """Examples:

prefdyn simulate

prefdyn simulate --features features --beta 0.01,0.1 --learning-rate auto,0.1 --steps 200

prefdyn simulate --features features --objective sigmoid,ipo,hinge --optimizer sgd,adam --learning-rate 0.01,0.1"""


def run(
    given: Given,
    axes: Axes,
    source: Source = Source(),
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    figure_style: o.FigureStyle = None,
    setup: Annotated[
        Setup,
        Only(
            "label_smoothing",
            "warmup",
            "scheme",
            lists=("objective", "beta", "learning_rate", "optimizer", "schedule", "batch_size", "steps"),
        ),
    ] = Setup(learning_rate="auto", optimizer="sgd", batch_size="full", steps=100),
    target: Annotated[
        float | None,
        Flag("Grids: held-out loss to reach, nats.", default="half of the way to the best of the objective"),
    ] = None,
    reading: Extraction = Extraction(),
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Simulate one setting or a grid of them, and write the folder."""
    from prefdyn._checks import one_of
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.maths.optimizers import SCHEDULES
    from prefdyn.maths.optimizers import optimizer as optimizer_by_name
    from prefdyn.outputs import output_folder

    setups = [replace(setup, objective=name, beta=beta) for name in axes["objective"] for beta in axes["beta"]]
    objectives = [each.loss for each in setups]
    optimizers = [optimizer_by_name(name) for name in axes["optimizer"]]
    for name in axes["schedule"]:
        one_of(name, SCHEDULES, name="--schedule")
    alone = all(len(values) == 1 for values in axes.values())
    setup = replace(setup, **{name: values[0] for name, values in axes.items()})
    if all(size == "full" for size in axes["batch_size"]):
        setup.idle()
    if alone and target is not None:
        raise ConfigError(f"--target {target} changes nothing here; it is used in grids: leave it out")

    from prefdyn.planning.grid import grid
    from prefdyn.planning.simulate import simulate
    from prefdyn.report.grid import grid_table
    from prefdyn.report.tables import verdict_table

    with output_folder(out, command=NAME, force=force) as folder:
        feats = common.features(features, source, model, reading, given, seed=seed)
        if alone:
            steps = axes["steps"][0]
            simulated = simulate(
                feats,
                objectives[0],
                learning_rate=axes["learning_rate"][0],
                optimizer=optimizers[0],
                schedule=setup.falls(steps),
                batch_size=axes["batch_size"][0],
                scheme=setup.scheme,
                steps=steps,
                seed=seed,
            )
        else:
            simulated = grid(
                feats,
                objectives,
                learning_rates=axes["learning_rate"],
                optimizers=optimizers,
                schedules=axes["schedule"],
                warmup=setup.warmup,
                batch_sizes=axes["batch_size"],
                scheme=setup.scheme,
                steps=axes["steps"],
                seeds=[seed],
                target=target,
            )
        simulated.write(folder.path)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
    common.tell_result(simulated.summary(), verdict_table if alone else grid_table, as_json=json_output)
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
