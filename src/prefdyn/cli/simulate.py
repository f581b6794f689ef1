"""`prefdyn simulate`: learning curves from features."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prefdyn.cli import options as o

if TYPE_CHECKING:
    from prefdyn.maths.objectives import Objective

NAME = "simulate"
SUMMARY = "Learning curves from features; grids of settings."
HELP = "Learning curves of last-layer DPO, per group, jointly and alone. Comma lists of settings make a grid."
EXAMPLES = """Examples:

prefdyn simulate

prefdyn simulate --features features --beta 0.01,0.1 --learning-rate auto,0.1 --steps 200"""


def run(
    data: o.Data = None,
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    groups: o.Groups = None,
    limit: o.Limit = None,
    group_column: o.GroupColumn = None,
    template: o.Template = None,
    skip_bad_rows: o.SkipBadRows = False,
    split: o.Split = 0.9,
    answers: o.Answers = None,
    max_length: o.MaxLength = None,
    objective: Annotated[str, typer.Option(help="Loss: sigmoid (DPO), hinge (SLiC) or gpo_ipo.")] = "sigmoid",
    beta: Annotated[str, typer.Option(help="DPO temperature; a comma list makes a grid.")] = "0.1",
    learning_rate: Annotated[str, typer.Option(help="Step size or auto; a comma list makes a grid.")] = "auto",
    steps: Annotated[str, typer.Option(help="Full-batch steps; a comma list makes a grid.")] = "100",
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    attn: o.Attn = "sdpa",
    batch_tokens: o.BatchTokens = None,
    double_norm: o.DoubleNorm = False,
    trust_remote_code: o.TrustRemoteCode = False,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Simulate every setting of the grid and write one folder each, with one report over all."""
    options = dict(locals())
    import json

    from prefdyn.cli import common
    from prefdyn.maths.objectives import objective as by_name
    from prefdyn.models.extract import extract
    from prefdyn.planning.simulate import simulate
    from prefdyn.report.html import write_report
    from prefdyn.report.tables import verdict_table
    from prefdyn.store import new_output_folder

    grid: list[tuple[Objective, float | Literal["auto"], int]] = [
        (by_name(objective, beta=each_beta), each_rate, each_steps)
        for each_beta in common.numbers(beta, name="--beta")
        for each_rate in common.rates(learning_rate)
        for each_steps in common.counts(steps, name="--steps")
    ]
    with new_output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, _ = common.stored_features(features, options)
        else:
            pairs = common.dataset(options).with_held_out(common.share(split), seed=seed)
            feats = extract(pairs, model, **common.extraction(options))
        summaries, inners = [], []
        for each_objective, each_rate, each_steps in grid:
            found = simulate(feats, each_objective, learning_rate=each_rate, steps=each_steps, seed=seed)
            name = f"beta={each_objective.beta:g},learning_rate={each_rate},steps={each_steps}"
            inner = folder.path if len(grid) == 1 else folder.path / name
            inner.mkdir(exist_ok=True)
            inners.append(inner)
            found.write(inner)
            common.write_pictures(inner)
            summaries.append(found.summary())
        common.save_config(folder.path, options)
        if len(grid) > 1:
            write_report(inners, folder.path / "report.html")
    result = summaries[0] if len(grid) == 1 else summaries
    print(json.dumps(result, ensure_ascii=False) if json_output else "\n\n".join(map(verdict_table, summaries)))
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
