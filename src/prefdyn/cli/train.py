"""`prefdyn train`: instrumented training of the last layer, adapters or the whole model."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefdyn import _stopping
from prefdyn.cli import options as o

if TYPE_CHECKING:
    from prefdyn.outputs import RunFolder

NAME = "train"
SUMMARY = "Train with DPO and its relatives, measured per group."
HELP = (
    "Train the last layer, LoRA adapters or a whole model on preference pairs, and measure every group while it "
    "learns: losses, margins, accuracies, log-probabilities, weights, gradients and states. Resumable; the model in "
    "OUT/model loads with from_pretrained."
)
EXAMPLES = """Examples:

prefdyn train --tune last-layer

prefdyn train --model meta-llama/Llama-3.2-1B --data hf:OWNER/NAME --tune lora --beta 0.1 --epochs 1 --out run

prefdyn train --config run/config.yaml --out run --resume

prefdyn train --model run/model --data hf:OWNER/NAME --flip --out undone

accelerate launch -m prefdyn train --tune full --data hf:OWNER/NAME --model meta-llama/Llama-3.2-1B --out run"""


def run(
    data: o.Data = None,
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    tune: Annotated[str, typer.Option(help="last-layer, lora or full.")] = "lora",
    groups: o.Groups = None,
    limit: o.Limit = None,
    group_column: o.GroupColumn = None,
    columns: o.Columns = None,
    template: o.Template = None,
    skip_bad_rows: o.SkipBadRows = False,
    split: o.Split = 0.9,
    answers: o.Answers = None,
    eos: o.Eos = None,
    max_length: o.MaxLength = None,
    flip: Annotated[bool, typer.Option("--flip", help="Train towards the rejected answers.")] = False,
    reference: Annotated[
        str | None,
        typer.Option(help="Another model, or a folder of `prefdyn score`.", show_default="the model as it starts"),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="sigmoid, sigmoid_norm, robust, ipo, hinge, gpo_ipo or sft.")
    ] = "sigmoid",
    label_smoothing: Annotated[float, typer.Option(help="Share of wrong labels, for sigmoid (cDPO) and robust.")] = 0.0,
    beta: o.Beta = 0.1,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, momentum, nesterov, adam, adamw or rmsprop.", show_default="sgd for last-layer, else adamw"
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of the optimizer.", min=0)] = 0.0,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            help="Step size, or auto for last-layer: half of the largest stable step.",
            show_default="auto; 1e-4 for lora, 1e-5 for full",
        ),
    ] = None,
    schedule: Annotated[str, typer.Option(help="constant, linear or cosine.")] = "constant",
    warmup: Annotated[int, typer.Option(help="Steps of linear rise.", min=0)] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Updates.", min=1, show_default="by --epochs; last-layer: 100")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training pairs.", show_default="1")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            help="Pairs per update, over all processes; or full.", show_default="full for last-layer, else 32"
        ),
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Parts in which a batch is worked through.", min=1)] = 1,
    clip: Annotated[
        float | None, typer.Option(help="Largest gradient norm; 0 for none.", show_default="1; none for last-layer")
    ] = None,
    lora_rank: Annotated[int, typer.Option(help="Rank of the adapters.", min=1)] = 16,
    lora_alpha: Annotated[float, typer.Option(help="Adapters count alpha / rank.")] = 32.0,
    lora_dropout: Annotated[float, typer.Option(help="Dropout before the adapters.")] = 0.0,
    lora_targets: Annotated[str, typer.Option(help="Modules with adapters: a,b,c.")] = "all-linear",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the forward pass: float32, bfloat16 (autocast), float64 (last-layer).",
            show_default="float32 on a CPU, bfloat16 on a GPU",
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False,
    record: Annotated[str, typer.Option(help="Steps at which groups are measured: log, all, or 1,10,100.")] = "log",
    probe_pairs: Annotated[
        str | None,
        typer.Option(
            help="Pairs measured per group and split, or all.",
            show_default="at most 200, and about 2,000 in all; last-layer: all",
        ),
    ] = None,
    probes: Annotated[
        str, typer.Option(help="Measured besides losses and log-probabilities: any of drift,gradients,states, or none.")
    ] = "drift,gradients,states",
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", min=1, show_default="at the end alone")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")] = False,
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
    """Train, and write the run's folder."""
    options = dict(locals())
    import json

    from prefdyn._processes import is_main_process
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.maths.objectives import objective as by_name
    from prefdyn.maths.optimizers import optimizer as optimizer_by_name
    from prefdyn.outputs import put, run_folder, run_path

    if resume and out is None:
        raise ConfigError("--resume needs the folder of the run: add --out DIR")
    trained = by_name(objective, beta=beta, label_smoothing=label_smoothing)
    stepper = None
    if optimizer is not None or weight_decay:
        stepper = optimizer_by_name(
            optimizer or ("sgd" if tune == "last-layer" else "adamw"), weight_decay=weight_decay
        )
    settings = {
        "objective": trained,
        "optimizer": stepper,
        "learning_rate": None if learning_rate is None else common.rate(learning_rate),
        "schedule": common.schedules(schedule)[0],
        "warmup": warmup,
        "steps": steps,
        "epochs": epochs,
        "batch_size": None if batch_size is None else common.batch_sizes(batch_size)[0],
        "accumulate": accumulate,
        "precision": precision,
        "gradient_checkpointing": gradient_checkpointing,
        "record": record if record in ("log", "all") else common.counts(record, name="--record"),
        "probe_pairs": common.pair_count(probe_pairs, name="--probe-pairs"),
        "probes": () if probes == "none" else tuple(common.words(probes) or ()),
        "checkpoint_every": checkpoint_every,
        "seed": seed,
    }
    if clip is not None:
        settings["clip"] = clip or None
    share = common.share(split)

    from prefdyn.planning.training import TrainingReport
    from prefdyn.report.tables import trained_table
    from prefdyn.training.settings import LoRA
    from prefdyn.training.train import keeping, run_training

    if tune == "lora":
        targets = tuple(common.words(lora_targets) or ())
        settings["lora"] = LoRA(rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout, targets=targets)
    if features is not None:
        source, _ = common.stored_features(features, options, texts=False)
    else:
        source = common.dataset(options).with_held_out(share, seed=seed)
    with contextlib.ExitStack() as stack:
        folder = None
        if is_main_process():
            folder = stack.enter_context(run_folder(out, command=NAME, force=force, resume=resume))
            _stopping.keeps(lambda: _kept(folder))
            if folder.step is None:  # what a run was started with stays
                put(folder.path, "config.yaml", common.config_text({**options, "resume": None}).encode())
        path = run_path(out or Path(), command=NAME, resume=resume) if folder is None else folder.path
        writer = None
        if tensorboard and folder is not None:
            from prefdyn.training.tracking import EventWriter

            at = folder.step if resume else None
            writer = stack.enter_context(EventWriter(path / "events", beta=beta, resumed=at))
        found = run_training(
            source,
            model,
            tune=tune,
            reference=reference,
            flip=flip,
            out=path,
            results=None if folder is None else folder.results,
            resume=resume,
            tell=common.tell,
            track=None if writer is None else writer.track,
            **settings,
            **common.reading(options),
        )
        if folder is None:
            return
        report = TrainingReport(training=found)
        with keeping(found.settings.steps, folder.path):
            report.write(folder.results)
            common.write_pictures(folder.results)
        summary = report.summary()
    print(json.dumps(summary, ensure_ascii=False) if json_output else trained_table(summary))
    for line in summary["warnings"]:
        common.tell(f"warning: {line}")
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")


def _kept(folder: "RunFolder") -> str:
    """What an interruption leaves of a run, and how it goes on."""
    go_on = f"prefdyn train --config {folder.path / 'config.yaml'} --out {folder.final} --resume"
    if folder.step is None:
        return f"no checkpoint was written yet; the same command, or {go_on}, starts it again"
    return f"the checkpoint of step {folder.step} is kept; go on with: {go_on}"
