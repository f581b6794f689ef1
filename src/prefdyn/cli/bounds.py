"""`prefdyn bounds`: every theorem on these features, with its conditions."""

from typing import Annotated

import typer

from prefdyn.cli import options as o

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
    beta: o.Beta = 0.1,
    learning_rate: o.LearningRate = "auto",
    steps: o.Steps = 100,
    each: Annotated[
        bool, typer.Option("--each", help="Also one line per group below each statement (always up to 6 groups).")
    ] = False,
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
    """Simulate one run, check every statement against it, and write the folder."""
    options = dict(locals())
    import json

    from prefdyn.cli import common
    from prefdyn.maths.objectives import DPO
    from prefdyn.outputs import output_folder
    from prefdyn.planning.bounds import check_bounds
    from prefdyn.report.statements import statement_table

    objective, rate, share = DPO(beta=beta), common.rate(learning_rate), common.share(split)
    with output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, _ = common.stored_features(features, options, texts=False)
        else:
            from prefdyn.models.extract import extract  # a framework, which features do not need

            pairs = common.dataset(options).with_held_out(share, seed=seed)
            feats = extract(pairs, model, **common.extraction(options))
        found = check_bounds(feats, objective, learning_rate=rate, steps=steps, seed=seed)
        summary = found.summary()
        each = each or len(feats.groups) <= _FEW
        print(
            json.dumps(summary, ensure_ascii=False) if json_output else statement_table(summary, each=each), flush=True
        )
        found.write(folder.path)
        common.save_config(folder.path, options)
        common.write_pictures(folder.path)
    for line in summary["warnings"]:
        common.tell(f"warning: {line}")
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")


_FEW = 6
"""Up to this many groups each is shown by itself."""
