"""`prefdyn score`: log-probabilities of both responses, in the columns of TRL's precomputed references."""

from typing import Annotated

from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Flag, Reading, Source

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
    given: Given,
    source: Annotated[
        Source, Only("data", "groups", "limit", "group_column", "columns", "template", "skip_bad_rows", "split")
    ] = Source(),
    model: o.Model = "builtin",
    out: o.Out = None,
    reading: Reading = Reading(eos=True),
    autocast: Annotated[
        str | None, Flag("bfloat16 or float16: mixed precision, which TRL uses unless told otherwise.")
    ] = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Score pairs and write their folder."""
    import time

    from prefdyn._processes import is_main_process
    from prefdyn._progress import frameworks
    from prefdyn.cli import common
    from prefdyn.outputs import output_folder
    from prefdyn.planning.score import score_summary, write_scores
    from prefdyn.report.tables import score_table

    pairs = common.split_dataset(source, seed=seed)
    with frameworks(for_good=True):
        from prefdyn.models.score import score
    if not is_main_process():
        score(pairs, model, autocast=autocast, reading=reading)
        return
    with output_folder(out, command=NAME, force=force) as folder:
        began = time.monotonic()
        scores = score(pairs, model, autocast=autocast, reading=reading)
        summary = score_summary(
            scores,
            left_out=[item.to_json() for item in pairs.left_out],
            settings={"seed": seed, "split": source.split},
            timings={"score_s": time.monotonic() - began},
        )
        write_scores(folder.path, scores, summary)
        given.save(folder.path)
    common.tell_result(summary, score_table, as_json=json_output)
    same = f"{'--eos' if reading.eos else '--no-eos'} --reference {folder.final}"
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
