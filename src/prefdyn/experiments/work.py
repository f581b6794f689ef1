"""How a run is done. Its outcome is a folder that appears whole and is checked when read; nothing is done twice."""

import copy
import functools
import os
import shutil
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefdyn._cache import beside, cache_root
from prefdyn.errors import ConfigError, StoreError
from prefdyn.experiments.run import RecipeRun
from prefdyn.features import FeatureSet
from prefdyn.store import (
    load_features,
    load_trajectory,
    read_manifest,
    save_features,
    save_trajectory,
    write_manifest,
)
from prefdyn.trajectory import Trajectory

if TYPE_CHECKING:
    from prefdyn.models.load import LanguageModel

_AGAIN = "delete the folder; the run is then done again"
_KEPT = 2 << 30
"""Bytes of weights up to which a model is kept for the next run; a larger one is read anew each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a run left behind."""

    run: RecipeRun
    folder: Path
    seconds: float
    """How long it took when it was done."""
    warnings: tuple[str, ...]
    settings: dict[str, Any]
    """Resolved settings of the training, or of the first simulated run."""

    @property
    def features(self) -> FeatureSet:
        """Of a `features` run."""
        return load_features(self.folder / "features")

    @property
    def trajectory(self) -> Trajectory:
        """Of a `train` run, or the first of a `simulate` run."""
        return load_trajectory(self.folder / "trajectory-0")

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """Of a `simulate` run: one per subset."""
        count = len(self.run.subsets or (None,))
        return tuple(load_trajectory(self.folder / f"trajectory-{place}") for place in range(count))

    @property
    def model(self) -> Path:
        """Folder of the trained model.

        Raises:
            ConfigError: The run did not keep it.
        """
        if not (self.folder / "model").is_dir():
            raise ConfigError(f"run {self.run.title!r} kept no model; plan it with keep_model=True")
        return self.folder / "model"


def folder_of(run: RecipeRun) -> Path:
    """Where a run's outcome stands."""
    return cache_root() / "runs" / run.key


def finished(run: RecipeRun) -> RunOutcome | None:
    """The outcome of a run that was done before; None where it is still to be done.

    A damaged outcome is told, and counts as none.
    """
    folder = folder_of(run)
    if not (folder / "outcome.json").is_file():
        return None
    try:
        body = read_manifest(folder / "outcome.json", kind="run", fix=_AGAIN)
        if body["run"].get("key") != run.key:
            raise StoreError(f"{folder / 'outcome.json'} is of another run, whatever its folder is called; {_AGAIN}")
    except StoreError as error:
        warnings.warn(f"{error}; doing {run.title} again", RuntimeWarning, stacklevel=2)
        return None
    if run.keep_model and not (folder / "model").is_dir():
        return None
    return RunOutcome(
        run=run,
        folder=folder,
        seconds=body["run"]["seconds"],
        warnings=tuple(body["run"]["warnings"]),
        settings=body["run"]["settings"],
    )


def do(run: RecipeRun, *, progress: bool = False) -> RunOutcome:
    """Do a run, unless it was done before.

    Raises:
        PrefdynError: What extraction, simulation or training raise.
    """
    if (found := finished(run)) is not None:
        return found
    final = folder_of(run)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = beside(final, "partial")
    partial.mkdir()
    try:
        began = time.monotonic()
        told, settings = {"features": _features, "simulate": _simulate, "train": _train}[run.kind](
            run, partial, progress=progress
        )
        _seal(partial, run, seconds=time.monotonic() - began, told=told, settings=settings)
        _put(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = finished(run)
    assert found is not None
    return found


def _seal(folder: Path, run: RecipeRun, *, seconds: float, told: list[str], settings: dict[str, Any]) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    body = {"key": run.key, "title": run.title, "seconds": round(seconds, 3), "warnings": told, "settings": settings}
    write_manifest(folder / "outcome.json", {"kind": "run", "files": names, "run": body})


def _put(partial: Path, final: Path) -> None:
    """Rename into place; what stands there is damaged, lacks a model, or was made by another process just now."""
    if final.exists():
        old = beside(final, "old")
        os.rename(final, old)
        shutil.rmtree(old, ignore_errors=True)
    os.rename(partial, final)


# the three kinds -----------------------------------------------------------------------------------------------------


def _features(run: RecipeRun, folder: Path, *, progress: bool) -> tuple[list[str], dict[str, Any]]:
    from prefdyn.models.extract import extract

    feats = extract(
        run.pairs.load(), _loaded(run, run.model.dtype), double_norm=run.double_norm, progress=progress, **_reading(run)
    )
    save_features(feats, folder / "features")
    return list(feats.provenance.settings.get("warnings", [])), {}


def _simulate(run: RecipeRun, folder: Path, *, progress: bool) -> tuple[list[str], dict[str, Any]]:
    from prefdyn.dynamics.descent import stable_learning_rate
    from prefdyn.dynamics.sweep import sweep
    from prefdyn.maths.objectives import objective
    from prefdyn.maths.optimizers import SGD

    assert run.setup is not None
    assert run.start is not None
    feats, setup = do(run.start).features, run.setup
    if run.flip:
        feats = feats.flipped()
    rate, rule = setup.learning_rate, "given"
    if rate is None:
        raise ConfigError(f"run {run.title!r} has no learning rate; give a number, or 'auto'")
    if rate == "auto":
        stepped = setup.loss if setup.rate_of is None else objective(setup.rate_of, beta=setup.beta)
        rate, rule = stable_learning_rate(feats, stepped), "half of the largest stable step"
    trained = int((~feats.held_out).sum())
    size = setup.batch_size or "full"
    if size != "full" and run.subsets is not None:
        smallest = min(
            int((~feats.held_out & (feats.group == feats.groups.index(name))).sum())
            for names in run.subsets
            for name in names
        )
        size = min(size, smallest)
    steps = setup.updates(trained)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        many = sweep(
            feats,
            objective=setup.loss,
            learning_rate=float(rate),
            optimizer=setup.stepper or SGD(),
            schedule=setup.falls(steps),
            batch_size=size if size == "full" else min(size, trained),
            scheme=setup.scheme,
            groups=run.subsets,
            seed=run.seed,
            steps=steps,
            record=run.record if isinstance(run.record, str) else list(run.record),
            margins_at=run.margins_at,
            progress=progress,
        )
    for place, found in enumerate(many):
        save_trajectory(found, folder / f"trajectory-{place}")
    return [str(item.message) for item in caught], {**many.settings[0], "learning_rate_rule": rule}


def _train(run: RecipeRun, folder: Path, *, progress: bool) -> tuple[list[str], dict[str, Any]]:
    from prefdyn.training.settings import chosen
    from prefdyn.training.train import run_training

    assert run.setup is not None
    setup = run.setup
    whole = setup.tune == "full" and run.model.dtype == "auto"
    if isinstance(setup.learning_rate, str) and setup.tune != "last-layer":
        raise ConfigError(f"run {run.title!r} has the learning rate 'auto', which is for the last layer alone")
    found = run_training(
        run.pairs.load(),
        _loaded(run, "float32" if whole else run.model.dtype, to_train=True),
        reference=run.model.name if run.reference == "base" else None,
        seed=run.seed,
        out=folder / "run" if run.keep_model else None,
        save=run.keep_model,
        progress=progress,
        **chosen(
            replace(setup, flip=run.flip, record=run.record, probes=run.probes, probe_pairs=run.probe_pairs or "all")
        ),
        **_reading(run),
    )
    save_trajectory(found.trajectory, folder / "trajectory-0")
    if run.keep_model:
        os.rename(folder / "run" / "model", folder / "model")
        shutil.rmtree(folder / "run")
    return list(found.warnings), found.settings.to_json()


def _loaded(run: RecipeRun, dtype: str, *, to_train: bool = False) -> "LanguageModel":
    """The model that a run begins with; for training a copy, as a small model itself serves the next run."""
    from prefdyn.training.memory import model_size

    model = run.model
    if run.start is None:
        lm = _read(model.name, model.fingerprint, model.revision, dtype, model.device, model.untrained)
    else:
        lm = _read(str(do(run.start).model), run.start.key, None, dtype, model.device, None)
    size = model_size(lm)
    if size.parameters * size.weight_bytes > _KEPT:
        _read.cache_clear()
        return lm
    return copy.deepcopy(lm, {id(lm.tokenizer): lm.tokenizer}) if to_train else lm


@functools.lru_cache(maxsize=2)
def _read(
    name: str, known_by: str, revision: str | None, dtype: str, device: str, untrained: int | None
) -> "LanguageModel":
    """A model and its twin are kept: runs on the same ones follow each other, and reading takes longer than many."""
    from prefdyn.models.load import load_model, untrained_twin

    lm = load_model(name, revision=revision, dtype=dtype, device=device)
    return lm if untrained is None else untrained_twin(lm, untrained)


def _reading(run: RecipeRun) -> dict[str, Any]:
    """How a run reads its pairs, and a reference model."""
    model = run.model
    found: dict[str, Any] = {"answers": model.answers, "dtype": model.dtype, "device": model.device}
    return found if run.start is not None else {**found, "revision": model.revision}
