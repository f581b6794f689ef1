"""A broken run goes on to the same bytes, and what stops a run leaves its last checkpoint whole."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefdyn.cli.common import write_pictures
from prefdyn.errors import ConfigError, StoreError, TrainingError
from prefdyn.maths.objectives import IPO
from prefdyn.maths.optimizers import Adam
from prefdyn.planning.training import TrainingReport
from prefdyn.training import checkpoints
from prefdyn.training.checkpoints import latest_checkpoint
from prefdyn.training.settings import LoRA
from prefdyn.training.train import run_training
from tests.models.conftest import yes_no
from tests.training.test_whole_model import texts

WAYS = {
    "full": {"tune": "full", "learning_rate": 0.003, "batch_size": 5, "schedule": "cosine", "warmup": 2},
    "lora": {
        "tune": "lora",
        "learning_rate": 0.01,
        "batch_size": 5,
        "lora": LoRA(rank=4, dropout=0.2),
        "accumulate": 2,
    },
    "last-layer": {"tune": "last-layer", "learning_rate": 0.1, "batch_size": 5, "optimizer": Adam()},
}


class Broken(Exception):
    """Stands for a process that dies."""


def break_at(step):
    def told(done, rows, last):
        if done == step:
            raise Broken

    return told


def files(folder):
    """Bytes of every result, by name."""
    names = ("trajectory.parquet", "trajectory.json", "modules.parquet", "steps.csv")
    found = {name: (folder / name).read_bytes() for name in names}
    for path in sorted((folder / "model").glob("*.safetensors")):
        found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("broken", [1, 4, 7])
def test_a_resumed_run_ends_in_the_same_bytes(tiny, tmp_path, options, broken):
    common: dict[str, Any] = {**options, "steps": 9, "record": "all", "checkpoint_every": 2, "seed": 3}
    data, model = yes_no(16), str(tiny("gpt2"))
    run_training(data, model, **common, out=tmp_path / "whole")
    with pytest.raises(Broken):
        run_training(data, model, **common, out=tmp_path / "broken", track=break_at(broken))
    kept = latest_checkpoint(tmp_path / "broken" / "checkpoints")
    assert (0 if kept is None else kept.step) == 2 * ((broken - 1) // 2)  # at most the steps since the last are lost
    run_training(data, model, **common, out=tmp_path / "broken", resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "broken")
    assert len(files(tmp_path / "whole")) == 5


EVERYTHING = {
    "last-layer": (WAYS["last-layer"], yes_no, True),
    "last-layer-auto": ({"tune": "last-layer"}, yes_no, False),
    "last-layer-responses": ({**WAYS["last-layer"], "learning_rate": 0.01}, texts, False),
    "lora": (WAYS["lora"], yes_no, False),
    "lora-responses": (WAYS["lora"], texts, True),
    "full": (WAYS["full"], yes_no, True),
    "full-responses": (WAYS["full"], texts, False),
}
"""Options, data, and whether to draw the pictures."""


def results(folder: Path) -> dict[str, bytes]:
    """Every byte that a command writes of a run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("checkpoints/"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.thorough
@pytest.mark.parametrize(("options", "made", "drawn"), EVERYTHING.values(), ids=EVERYTHING)
def test_nothing_tells_a_resumed_run_from_an_unbroken_one(tiny, tmp_path, options, made, drawn):
    """Summary, tables, weights, figures and page, but for how long it took. What was measured first stays."""
    common: dict[str, Any] = {**options, "steps": 6, "record": "all", "checkpoint_every": 2, "seed": 3}
    data, model = made(16), str(tiny("gpt2"))
    folders = [tmp_path / way / "run" for way in ("whole", "broken")]
    whole = run_training(data, model, **common, out=folders[0])
    with pytest.raises(Broken):
        run_training(data, model, **common, out=folders[1], track=break_at(5))
    resumed = run_training(data, model, **common, out=folders[1], resume=True)
    assert resumed.start_margin == whole.start_margin
    assert whole.start_margin is not None
    for found, folder in zip((whole, resumed), folders, strict=True):
        assert set(found.timings) == {"read_s", "train_s"}
        TrainingReport(training=replace(found, timings={"read_s": 1.0, "train_s": 2.0})).write(folder)
        if drawn:
            write_pictures(folder, "screen")
    first, second = map(results, folders)
    assert {"summary.json", "groups.csv", "pairs.parquet", "steps.csv", "modules.parquet"} <= set(first)
    assert ("report.html" in first) is drawn
    assert [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)] == []
    assert json.loads(first["summary.json"])["settings"]["start_margin"] == whole.start_margin


def test_a_checkpoint_of_another_run_is_refused(tiny, tmp_path):
    options = {**WAYS["full"], "steps": 4, "checkpoint_every": 2}
    run_training(yes_no(16), str(tiny("gpt2")), **options, out=tmp_path)
    with pytest.raises(ConfigError, match=r"another run: seed 0 there, 1 here"):
        run_training(yes_no(16), str(tiny("gpt2")), **options, seed=1, out=tmp_path, resume=True)
    with pytest.raises(ConfigError, match=r"another run: data"):
        run_training(yes_no(17), str(tiny("gpt2")), **options, out=tmp_path, resume=True)


def test_a_finished_run_is_finished(tiny, tmp_path):
    options = {**WAYS["full"], "steps": 4}
    first = run_training(yes_no(16), str(tiny("gpt2")), **options, out=tmp_path)
    again = run_training(yes_no(16), str(tiny("gpt2")), **options, out=tmp_path, resume=True)
    assert again.steps.equals(first.steps)
    assert np.array_equal(again.trajectory.margins[4], first.trajectory.margins[4])


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_obeyed_after_a_checkpoint(request, tiny, tmp_path, kind):
    def interrupt(done, rows, last):
        if done == 3:
            os.kill(os.getpid(), kind)

    common: dict[str, Any] = {**WAYS["full"], "steps": 9, "record": "all"}
    ours = signal.getsignal(kind)
    before = (
        signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL
    )  # tests in the background ignore it
    request.addfinalizer(lambda: signal.signal(kind, ours))
    signal.signal(kind, before)
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="after this step"):
        run_training(yes_no(16), str(tiny("gpt2")), **common, out=tmp_path / "a", track=interrupt)
    assert signal.getsignal(kind) == before
    kept = latest_checkpoint(tmp_path / "a" / "checkpoints")
    assert kept is not None
    assert kept.step in (3, 4)
    run_training(yes_no(16), str(tiny("gpt2")), **common, out=tmp_path / "a", resume=True)
    run_training(yes_no(16), str(tiny("gpt2")), **common, out=tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(tiny, tmp_path):
    common: dict[str, Any] = {
        "tune": "full",
        "objective": IPO(beta=0.01),
        "learning_rate": 1e4,
        "clip": None,
        "batch_size": 4,
    }
    common |= {"steps": 40}
    with pytest.raises(TrainingError, match="lower the learning rate") as caught:
        run_training(yes_no(16), str(tiny("gpt2")), **common, checkpoint_every=1, out=tmp_path, record=[40])
    kept = latest_checkpoint(tmp_path / "checkpoints")
    step = int(str(caught.value).split()[1].rstrip(":"))
    assert (0 if kept is None else kept.step) == step - 1
    if kept is not None:
        assert all(np.isfinite(kept.tables()["steps"]["loss"].to_numpy()))


def test_a_full_disk_is_told_and_the_last_good_checkpoint_stays(tiny, tmp_path, monkeypatch):
    common: dict[str, Any] = {**WAYS["full"], "steps": 6, "checkpoint_every": 2}
    saves = []

    def full(*arguments, **options):
        if len(saves) == 1:
            raise OSError(28, "No space left on device")
        saves.append(1)
        return write(*arguments, **options)

    write = checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", full)
    with pytest.raises(StoreError, match="space"):
        run_training(yes_no(16), str(tiny("gpt2")), **common, out=tmp_path)
    kept = latest_checkpoint(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.step == 2
    monkeypatch.undo()
