"""`prefdyn bounds`: every theorem on these features, with its conditions."""

import functools
from typing import Annotated

from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Extraction, Flag, Setup, Source

NAME = "bounds"
SUMMARY = "Every theorem on these features: value, conditions, and whether it says anything."
HELP = (
    "Every theorem of the three papers on these features: its value, its conditions with what was measured, whether it "
    "says anything here, and what the simulated run really did."
)
EXAMPLES = """Examples:

prefdyn bounds

prefdyn bounds --features features --beta 0.01 --steps 200 --each

prefdyn bounds --data persona:evals/persona --groups agreeableness,openness --model ./my-model --json"""


def run(
    given: Given,
    source: Source = Source(),
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    figure_style: o.FigureStyle = None,
    setup: Annotated[Setup, Only("beta", "learning_rate", "steps")] = Setup(learning_rate="auto", steps=100),
    each: Annotated[bool, Flag("Also one line per group below each statement (always up to 6 groups).")] = False,
    reading: Extraction = Extraction(),
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Simulate one run, check every statement against it, and write the folder."""
    from prefdyn.cli import common
    from prefdyn.maths.objectives import DPO
    from prefdyn.outputs import output_folder
    from prefdyn.planning.bounds import check_bounds
    from prefdyn.report.statements import statement_table

    objective, rate = DPO(beta=setup.beta), setup.learning_rate or "auto"
    with output_folder(out, command=NAME, force=force) as folder:
        feats = common.features(features, source, model, reading, given, seed=seed)
        checked = check_bounds(feats, objective, learning_rate=rate, steps=setup.steps or 100, seed=seed)
        table = functools.partial(statement_table, each=each or len(feats.groups) <= _FEW)
        checked.write(folder.path)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
    common.tell_result(checked.summary(), table, as_json=json_output)
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")


_FEW = 6
"""Up to this many groups each is shown by itself."""
