"""`prefdyn train`: instrumented training of the last layer, adapters or the whole model."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefdyn import _stopping
from prefdyn.cli import options as o
from prefdyn.cli.command import Given
from prefdyn.settings import Flag, Reading, Setup, Source

if TYPE_CHECKING:
    from prefdyn.outputs import TrainingFolder

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
    given: Given,
    source: Source = Source(),
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    reference: Annotated[
        str | None, Flag("Another model, or a folder of `prefdyn score`.", default="the model as it starts")
    ] = None,
    setup: Setup = Setup(tune="lora"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    report_to: o.ReportTo = (),
    figure_style: o.FigureStyle = None,
    tensorboard: Annotated[bool, Flag("Also write TensorBoard events.")] = False,
    watch: Annotated[
        Path | None, typer.Option(help="Folder of `prefdyn forecast`: tell when a group leaves its band.")
    ] = None,
    reading: Reading = Reading(),
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Train, and write the run's folder."""
    from prefdyn._processes import is_main_process
    from prefdyn._progress import frameworks
    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.outputs import put, run_folder, run_path
    from prefdyn.training.settings import chosen

    if resume and out is None:
        raise ConfigError("--resume needs the folder of the run: add --out DIR")
    setup.idle()
    settings = {**chosen(setup), "seed": seed}

    with frameworks(for_good=True):
        from prefdyn.planning.training import TrainingReport
        from prefdyn.report.tables import trained_table
        from prefdyn.training.train import keeping, run_training
        from prefdyn.training.watching import Watch, foretold_in

    common.check_trackers(report_to)
    watcher = None if watch is None else Watch(foretold_in(watch), common.tell, seed=seed)
    if features is not None:
        pairs, _ = common.stored_features(features, source, given, texts=False, but=("device",))
    else:
        pairs = common.split_dataset(source, seed=seed)
    with contextlib.ExitStack() as stack:
        folder = None
        if is_main_process():
            folder = stack.enter_context(run_folder(out, command=NAME, force=force, resume=resume))
            _stopping.keeps(lambda: _kept(folder))
            if folder.step is None:  # what a run was started with stays
                put(folder.path, "config.yaml", given.text(resume=None).encode())
        path = run_path(out or Path(), command=NAME, resume=resume) if folder is None else folder.path
        listeners: list[Callable[..., None]] = [] if watcher is None else [watcher.track]
        if tensorboard and folder is not None:
            from prefdyn.training.tracking import EventWriter

            at = folder.step if resume else None
            listeners.append(stack.enter_context(EventWriter(path / "events", beta=setup.beta, resumed=at)).track)
        started = []
        if report_to and folder is not None:
            from prefdyn.training.trackers import trackers

            where = {"run": folder.final.name, "folder": path / "events", "beta": setup.beta, "settings": settings}
            started = stack.enter_context(trackers(report_to, device=reading.device, **where))
            listeners += [each.track for each in started]
        trained = run_training(
            pairs,
            model,
            reference=reference,
            out=path,
            results=None if folder is None else folder.results,
            resume=resume,
            tell=common.tell,
            track=_all_told(listeners),
            reading=reading,
            **settings,
        )
        if folder is None:
            return
        report = TrainingReport(training=trained)
        with keeping(trained.settings.steps, folder.path):
            report.write(folder.results)
            common.write_pictures(folder.results, figure_style)
            for each in started:
                common.keep_page(each, folder.results / "report.html")
    common.tell_result(report.summary(), trained_table, as_json=json_output)
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")


def _all_told(listeners: Sequence[Callable[..., None]]) -> Callable[..., None] | None:
    """One who tells all of them."""
    if not listeners:
        return None

    def told(*given: Any) -> None:
        for each in listeners:
            each(*given)

    return told


def _kept(folder: "TrainingFolder") -> str:
    """What an interruption leaves of a run, and how it goes on."""
    go_on = f"prefdyn train --config {folder.path / 'config.yaml'} --out {folder.final} --resume"
    if folder.step is None:
        return f"no checkpoint was written yet; the same command, or {go_on}, starts it again"
    return f"the checkpoint of step {folder.step} is kept; go on with: {go_on}"
