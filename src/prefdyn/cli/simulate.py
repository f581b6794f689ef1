"""`prefdyn simulate`: learning curves from features."""

from typing import Annotated

import typer

from prefdyn.cli import options as o

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

_List = "; a comma list makes a grid."


def run(
    data: o.Data = None,
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    groups: o.Groups = None,
    limit: o.Limit = None,
    group_column: o.GroupColumn = None,
    columns: o.Columns = None,
    template: o.Template = None,
    skip_bad_rows: o.SkipBadRows = False,
    split: o.Split = 0.9,
    answers: o.Answers = None,
    max_length: o.MaxLength = None,
    eos: o.Eos = None,
    sketch: o.Sketch = 4096,
    objective: Annotated[
        str, typer.Option(help="sigmoid, sigmoid_norm, robust, ipo, hinge, gpo_ipo or sft" + _List)
    ] = "sigmoid",
    label_smoothing: Annotated[float, typer.Option(help="Share of wrong labels, for sigmoid (cDPO) and robust.")] = 0.0,
    beta: Annotated[str, typer.Option(help="DPO temperature" + _List)] = "0.1",
    learning_rate: Annotated[
        str, typer.Option(help="Step size, or auto: half of the largest stable step of plain descent" + _List)
    ] = "auto",
    optimizer: Annotated[str, typer.Option(help="sgd, momentum, nesterov, adam, adamw or rmsprop" + _List)] = "sgd",
    schedule: Annotated[str, typer.Option(help="constant, linear or cosine" + _List)] = "constant",
    warmup: Annotated[int, typer.Option(help="Steps of linear rise.", min=0)] = 0,
    batch_size: Annotated[str, typer.Option(help="Pairs per step, or full" + _List)] = "full",
    scheme: Annotated[
        str, typer.Option(help="Minibatches: epochs (shuffled anew), or replacement (a fresh batch each step).")
    ] = "epochs",
    steps: Annotated[str, typer.Option(help="Steps" + _List)] = "100",
    target: Annotated[
        float | None,
        typer.Option(
            help="Grids: held-out loss to reach, nats.", show_default="half of the way to the best of the objective"
        ),
    ] = None,
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
    """Simulate one setting or a grid of them, and write the folder."""
    options = dict(locals())
    import json

    from prefdyn.cli import common
    from prefdyn.maths.objectives import objective as by_name
    from prefdyn.maths.optimizers import Schedule
    from prefdyn.maths.optimizers import optimizer as optimizer_by_name
    from prefdyn.outputs import output_folder
    from prefdyn.planning.grid import grid
    from prefdyn.planning.simulate import simulate
    from prefdyn.report.grid import grid_table
    from prefdyn.report.tables import verdict_table

    objectives = [
        by_name(name, beta=each, label_smoothing=label_smoothing)
        for name in common.words(objective) or []
        for each in common.numbers(beta, name="--beta")
    ]
    rates = common.rates(learning_rate)
    optimizers = [optimizer_by_name(name) for name in common.words(optimizer) or []]
    kinds = common.schedules(schedule)
    lengths = common.counts(steps, name="--steps")
    sizes = common.batch_sizes(batch_size)
    common.some_of_each(
        objective=objectives, learning_rate=rates, optimizer=optimizers, schedule=kinds, steps=lengths, batch_size=sizes
    )
    share = common.share(split)
    runs = len(objectives) * len(rates) * len(optimizers) * len(kinds) * len(lengths) * len(sizes)
    with output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, _ = common.stored_features(features, options)
        else:
            from prefdyn.models.extract import extract  # a framework, which features do not need

            pairs = common.dataset(options).with_held_out(share, seed=seed)
            feats = extract(pairs, model, **common.extraction(options))
        if runs == 1:
            falls = kinds[0] != "constant" or warmup > 0
            found = simulate(
                feats,
                objectives[0],
                learning_rate=rates[0],
                optimizer=optimizers[0],
                schedule=Schedule(kind=kinds[0], steps=lengths[0], warmup=warmup) if falls else None,
                batch_size=sizes[0],
                scheme=scheme,
                steps=lengths[0],
                seed=seed,
            )
        else:
            found = grid(
                feats,
                objectives,
                learning_rates=rates,
                optimizers=optimizers,
                schedules=kinds,
                warmup=warmup,
                batch_sizes=sizes,
                scheme=scheme,
                steps=lengths,
                seeds=[seed],
                target=target,
            )
        found.write(folder.path)
        common.save_config(folder.path, options)
        common.write_pictures(folder.path)
        summary = found.summary()
    table = verdict_table if runs == 1 else grid_table
    print(json.dumps(summary, ensure_ascii=False) if json_output else table(summary))
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
