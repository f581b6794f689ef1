"""`prefdyn score`: log-probabilities of both responses, in the columns of TRL's precomputed references."""

from typing import Annotated

import typer

from prefdyn.cli import options as o

NAME = "score"
SUMMARY = "Log-probabilities of chosen and rejected under a model, for TRL."
HELP = (
    "Log-probabilities of chosen and rejected under a model, beside the pairs, in the columns that TRL reads as "
    "precomputed references. Cached and resumable."
)
EXAMPLES = """Examples:

prefdyn score --out scores

prefdyn score --data hf:OWNER/NAME --model meta-llama/Llama-3.2-1B-Instruct --dtype float32 --autocast bfloat16

accelerate launch -m prefdyn score --data hf:OWNER/NAME --model meta-llama/Llama-3.1-8B-Instruct --out scores"""


def run(
    data: o.Data = None,
    model: o.Model = "builtin",
    out: o.Out = None,
    groups: o.Groups = None,
    limit: o.Limit = None,
    group_column: o.GroupColumn = None,
    columns: o.Columns = None,
    template: o.Template = None,
    skip_bad_rows: o.SkipBadRows = False,
    split: o.Split = 0.9,
    answers: o.Answers = None,
    eos: Annotated[
        bool, typer.Option("--eos/--no-eos", help="End token after plain responses, as TRL appends it.")
    ] = True,
    max_length: Annotated[
        int | None, typer.Option(help="Leave out pairs of which one side has more tokens, prompt included.", min=1)
    ] = None,
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    autocast: Annotated[
        str | None,
        typer.Option(help="bfloat16 or float16: mixed precision, which TRL uses unless told otherwise."),
    ] = None,
    device: o.Device = "auto",
    attn: o.Attn = "sdpa",
    batch_tokens: o.BatchTokens = None,
    trust_remote_code: o.TrustRemoteCode = False,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Score pairs and write their folder."""
    options = dict(locals())
    import json
    import time

    from prefdyn._processes import is_main_process
    from prefdyn.cli import common
    from prefdyn.models.score import score
    from prefdyn.outputs import output_folder
    from prefdyn.planning.score import score_summary, write_scores
    from prefdyn.report.tables import score_table

    pairs = common.dataset(options).with_held_out(common.share(split), seed=seed)
    reading = common.reading(options)
    if not is_main_process():
        score(pairs, model, autocast=autocast, **reading)
        return
    with output_folder(out, command=NAME, force=force) as folder:
        began = time.monotonic()
        found = score(pairs, model, autocast=autocast, **reading)
        summary = score_summary(
            found,
            left_out=[item.to_json() for item in pairs.left_out],
            settings={"seed": seed, "split": split},
            timings={"score_s": time.monotonic() - began},
        )
        write_scores(folder.path, found, summary)
        common.save_config(folder.path, options)
    print(json.dumps(summary, ensure_ascii=False) if json_output else score_table(summary))
    for line in summary["warnings"]:
        common.tell(f"warning: {line}")
    same = f"{'--eos' if eos else '--no-eos'} --reference {folder.final}"
    common.last_words(folder.final, next_command=f"prefdyn train {same} with the same data and model, or with TRL")
    precision = f'model_init_kwargs={{"dtype": "{summary["model"]["dtype"]}"}}, '
    if summary["model"]["dtype"] == "float32":
        precision = {None: "bf16=False, ", "bfloat16": "bf16=True, ", "float16": "fp16=True, "}[autocast]
    common.tell(
        "  from prefdyn.training.trl import GroupDPOTrainer",
        f'  pairs = datasets.load_dataset("parquet", data_files="{folder.final / "scores.parquet"}", split="train")',
        f"  GroupDPOTrainer(model, DPOConfig({precision}precompute_ref_log_probs=True, max_length=None), "
        "train_dataset=pairs)",
    )
