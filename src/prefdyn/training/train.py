"""train: a preference dataset and a model in, what training did to every group out, and the trained model."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from prefdyn._files import atomic_write
from prefdyn._processes import is_main_process
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, StoreError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, Objective
from prefdyn.maths.optimizers import Optimizer
from prefdyn.models.load import LanguageModel
from prefdyn.models.team import Team, join, together
from prefdyn.outputs import run_folder, run_path
from prefdyn.provenance import content_hash
from prefdyn.settings import Reading, opened
from prefdyn.store import save_trajectory
from prefdyn.training.checkpoints import Checkpoint, latest_checkpoint
from prefdyn.training.heads import AnswerHead, ResponseHead
from prefdyn.training.loop import Loop, Processes, check_start, whole
from prefdyn.training.probes import PairTable, changes, losses
from prefdyn.training.settings import LoRA, TrainingSettings
from prefdyn.training.subjects import Models, Subject, last_layer, whole_model
from prefdyn.training.tune import put_head, save_model
from prefdyn.trajectory import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """A finished run: what it did, with what, and where the trained model is."""

    trajectory: Trajectory
    pairs: PairTable
    settings: TrainingSettings
    steps: pa.Table
    """One row per update, with the columns of `loop.STEPS`."""
    chosen: Float[np.ndarray, " m"]
    """Log-probability of each chosen response at the end, nats."""
    rejected: Float[np.ndarray, " m"]
    kind: str
    """`answers` or `responses`."""
    start_margin: float | None
    """Largest margin before the first step; None where the reference is another model than the one that starts."""
    left_out: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    timings: Mapping[str, float]
    model: Path | None
    """Folder of the trained model or adapter; None where none was asked for."""


def train(
    data: PreferenceDataset | FeatureSet,
    model: str | LanguageModel = "builtin",
    *,
    tune: Literal["last-layer", "lora", "full"] = "lora",
    objective: Objective | None = None,
    reference: str | Path | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | Literal["auto"] | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | Literal["full"] | None = None,
    lora: LoRA | None = None,
    flip: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> Trajectory:
    """Train a model on preference pairs, and measure every group while it learns.

    Main arguments:

    Args:
        data: The pairs, with their split; or features, for "last-layer" alone.
        model: "builtin", a local folder, an adapter's folder, a hub id, or a loaded model (which is then changed).
        tune: "last-layer": the head, over states read once. "lora": adapters. "full": everything.
        objective: `DPO(beta=0.1)` if not given.
        reference: What margins are taken against: None for the model as it starts, another model's name, or a folder
            that `prefdyn score` wrote.
        optimizer: Plain gradient descent for "last-layer", else AdamW.
        learning_rate: "auto" (for "last-layer" with plain full-batch descent: half of the largest stable step) or a
            number; 1e-4 for "lora" and 1e-5 for "full" if not given.
        steps: Updates; or
        epochs: passes over the training pairs; 1, or 100 steps for "last-layer", if neither is given.
        batch_size: Pairs per update; "full" for "last-layer", else 32.
        lora: Rank, alpha, dropout and targets of the adapters.
        flip: Chosen and rejected change places.
        out: Folder for checkpoints, the trained model and the trajectory; None: nothing is written.
        force: Replace a run of ours that stands in `out`, once the new one is whole.
        resume: Go on from the newest checkpoint in `out`, if there is one.
        options: Those of `run_training` and the fields of `TrainingSettings`.

    Returns:
        The Trajectory, as a simulation gives it, with the margins of all pairs at the end.

    Raises:
        ConfigError: Settings contradict each other or the data, or the run would not fit into memory.
        DataError: No pair is left to train on.
        ModelError: The model cannot be read, or cannot be trained as asked.
        TrainingError: Reference and model disagree before the first step, or the loss is no longer finite.
        StoreError: The folder exists, or cannot be written.

    Reference:
        2403.18742 Eq. 4 and 6 for loss and margin; THEORY 2.7 and 4.6 for what is measured.
    """
    join()
    with together(), contextlib.ExitStack() as stack:
        folder, path = None, None if out is None else run_path(Path(out), command="train", resume=resume)
        if out is not None and is_main_process():
            folder = stack.enter_context(run_folder(Path(out), command="train", force=force, resume=resume))
            path = folder.path
        return run_training(
            data,
            model,
            tune=tune,
            objective=objective,
            reference=reference,
            optimizer=optimizer,
            learning_rate=learning_rate,
            steps=steps,
            epochs=epochs,
            batch_size=batch_size,
            lora=lora,
            flip=flip,
            out=path,
            results=None if folder is None else folder.results,
            resume=resume,
            **options,
        ).trajectory


@opened(reading=Reading)
@together()
def run_training(
    data: PreferenceDataset | FeatureSet,
    model: str | LanguageModel = "builtin",
    *,
    tune: str = "lora",
    objective: Objective | None = None,
    reference: str | Path | None = None,
    flip: bool = False,
    out: str | Path | None = None,
    results: Path | None = None,
    resume: bool = False,
    save: bool = True,
    reading: Reading,
    share: bool = True,
    track: Any = None,
    tell: Callable[[str], None] | None = None,
    progress: bool = True,
    **chosen: Any,
) -> Training:
    """The same as `train`, with all that was found on the way.

    Args:
        data: See `train`, as for all that is not named here.
        model: The model to train.
        tune: What of it to train.
        objective: The preference objective.
        reference: What margins are taken against.
        flip: Chosen and rejected change places.
        out: Folder to write into. It may exist; the caller sees to what is in it.
        results: Folder for what is written at the end: trajectory, model, steps; `out` unless given.
        resume: Go on from the newest checkpoint in `out`, if there is one.
        save: Write the trained model.
        reading: How models read the pairs (see `prefdyn.settings.Reading`); its fields are keywords here, too.
            `dtype` "auto": float32 on a CPU and for "full", else bfloat16.
        share: Encode what pairs share once, where the model allows it.
        track: Told of every recorded step, with its rows and the last batch's figures; see `tracking.EventWriter`.
        tell: Told, in a line each, what is about to happen.
        progress: Show bars where stderr is a terminal.
        chosen: Fields of `TrainingSettings`.
    """
    began = time.monotonic()
    objective = objective or DPO()
    models = Models.of(model, reading, share=share, progress=progress, tell=tell)
    team = models.team
    chosen |= {"flip": flip, "max_length": reading.max_length}
    if tune == "last-layer":
        subject, settings = last_layer(data, models, objective, reference, chosen)
    else:
        if isinstance(data, FeatureSet):
            raise ConfigError(f"features are for tune='last-layer'; to tune {tune!r} give the data and the model")
        subject, settings = whole_model(data, models, objective, reference, tune, chosen)
    read = time.monotonic()

    folder = _of_first(team, None if out is None else Path(out))
    origin = {
        **{name: value for name, value in settings.to_json().items() if name != "checkpoint_every"},
        "data": subject.provenance.data.get("sha256"),
        "model": subject.provenance.model.get("sha256"),
        "reference": content_hash([subject.pairs.ref_chosen.tobytes(), subject.pairs.ref_rejected.tobytes()]),
    }
    _refuse_another(team, origin)
    loop = Loop(
        subject.scorer,
        subject.parameters,
        subject.pairs,
        settings,
        lengths=subject.lengths,
        processes=_processes(team),
        drift=subject.drift,
        checkpoints=None if folder is None else folder / "checkpoints",
        origin=origin,
        log=track,
    )
    found = _checkpoint(team, folder) if folder is not None and resume else None
    if found is not None:
        loop.restore(found)
    elif reference is None:
        loop.progress.start_margin = check_start(loop.start(), settings)
    loop.run(progress=progress)
    up, down, _ = loop.score(np.arange(len(subject.pairs)))
    trained = time.monotonic()

    run = _trajectory(loop, subject, settings, up, down)
    place = None
    state = _gathered(subject) if save and folder is not None and team.share[1] > 1 else None
    if folder is not None and team.main:
        with keeping(settings.steps, folder):
            place = _write(results or folder, subject, run, loop, save=save, state=state)
    team.wait()
    return Training(
        trajectory=run,
        pairs=subject.pairs,
        settings=settings,
        steps=loop.progress.tables()["steps"],
        chosen=up,
        rejected=down,
        kind=subject.kind,
        start_margin=loop.progress.start_margin,
        left_out=subject.left_out,
        warnings=subject.warnings,
        timings={"read_s": read - began, "train_s": trained - read},
        model=place,
    )


# several processes ---------------------------------------------------------------------------------------------------


def _of_first(team: Team, folder: Path | None) -> Path | None:
    """The run's folder as the first process has it, which alone decides about folders."""
    given = team.of_first(None if folder is None else str(folder.absolute()))
    return folder if team.main else None if given is None else Path(given)


def _refuse_another(team: Team, origin: Mapping[str, Any]) -> None:
    """See that all processes train the same: data, model and settings. A reference may differ by rounding."""
    ours = json.loads(json.dumps({name: value for name, value in origin.items() if name != "reference"}))
    theirs = team.of_first(ours)
    names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if names:
        shown = ", ".join(f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in names[:3])
        raise ConfigError(
            f"rank {team.share[0]} would train another run than rank 0 ({shown}); give all processes the same command, "
            "data, model and library versions"
        )


def _checkpoint(team: Team, folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from, which the first process chooses."""
    found = latest_checkpoint(folder / "checkpoints") if team.main else None
    name = team.of_first(None if found is None else found.path.name)
    if team.main or name is None:
        return found
    found = latest_checkpoint(folder / "checkpoints")
    if found is None or found.path.name != name:
        seen = "none" if found is None else found.path.name
        raise StoreError(
            f"rank 0 goes on from the checkpoint {name} in {folder / 'checkpoints'}, where rank {team.share[0]} sees "
            f"{seen}; the folder must be the same for all processes"
        )
    return found


# results -------------------------------------------------------------------------------------------------------------


def _processes(team: Team) -> Processes:
    index, count = team.share
    if count == 1:
        return Processes()
    from accelerate import Accelerator

    return Processes(index=index, count=count, accelerator=Accelerator(cpu=not torch.cuda.is_available()))


def _trajectory(
    loop: Loop, subject: Subject, settings: TrainingSettings, up: np.ndarray, down: np.ndarray
) -> Trajectory:
    tables, pairs = loop.progress.tables(), subject.pairs
    _, margins = losses(
        up,
        changes(up, pairs.ref_chosen, pairs.chosen_length, settings.objective),
        changes(down, pairs.ref_rejected, pairs.rejected_length, settings.objective),
        pairs.chosen_length,
        settings.objective,
    )
    head = None
    if isinstance(subject.scorer, AnswerHead) and subject.feats is not None:
        _, basis = subject.feats.coordinates()
        moved = (subject.scorer.head - subject.scorer.start).detach().double().cpu().numpy()
        head = basis.T @ moved
    return Trajectory(
        table=tables["trajectory"].combine_chunks(),
        settings=settings.to_json(),
        margins={settings.steps: margins},
        chosen_changes={settings.steps: up - pairs.ref_chosen} if pairs.known else {},
        joint_head=head,
        modules=tables["modules"] if subject.drift is not None else None,
        provenance=replace(subject.provenance, seed=settings.seed),
    )


def _gathered(subject: Subject) -> dict[str, torch.Tensor] | None:
    """The weights to save, put together from all processes; None where every process has them whole."""
    if subject.lm is None or isinstance(subject.scorer, AnswerHead | ResponseHead):
        return None
    target = subject.lm.model if subject.wrapped is None else subject.wrapped
    found = {name: whole(each) for name, each in target.state_dict().items()}
    twins = set(getattr(target, "_tied_weights_keys", None) or ()) if subject.lm.tied_head else set()
    return {name: each for name, each in found.items() if name not in twins}


@contextlib.contextmanager
def keeping(step: int, folder: Path) -> Iterator[None]:
    """Where results cannot be written, say that the last checkpoint is kept.

    Args:
        step: Of the checkpoint.
        folder: Of the run.

    Raises:
        StoreError: As the block, or for its OSError, with what is kept and how to go on.
    """
    try:
        yield
    except (StoreError, OSError) as error:
        if isinstance(error, StoreError):
            said = error.typed
        else:
            said = f"the results cannot be written to {error.filename or folder} ({error.strerror or error})"
        raise StoreError(
            f"{said}; the checkpoint of step {step} is kept in {folder}: free space, and go on with --resume"
        ) from error


def _write(
    folder: Path,
    subject: Subject,
    run: Trajectory,
    loop: Loop,
    *,
    save: bool,
    state: Mapping[str, torch.Tensor] | None,
) -> Path | None:
    from prefdyn._csv import write_csv

    folder.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    write_csv(loop.progress.tables()["steps"], sink)
    atomic_write(folder / "steps.csv", sink.getvalue().to_pybytes())
    place = None
    if save and subject.lm is not None:
        place = folder / "model"
        if subject.feats is not None and isinstance(subject.scorer, AnswerHead):
            put_head(subject.lm, np.asarray(subject.feats.token_ids), subject.scorer.head / subject.lm.head_scale)
        elif isinstance(subject.scorer, ResponseHead):
            put_head(subject.lm, np.arange(subject.lm.vocabulary), subject.scorer.head)
        save_model(subject.lm, place, wrapped=subject.wrapped, state=state)
    save_trajectory(run, folder)
    return place
