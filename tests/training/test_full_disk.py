"""A full disk while a model is saved: one line, nothing half-written under its name, and the run goes on afterwards."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import transformers

from prefdyn.errors import StoreError
from prefdyn.models.load import load_model
from prefdyn.training import train as training
from prefdyn.training import tune
from prefdyn.training.settings import LoRA
from prefdyn.training.train import keeping, run_training
from prefdyn.training.tune import add_adapters, save_model
from tests.conftest import REPO
from tests.models.conftest import yes_no


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may grow beyond a size: what fails then is what fails on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with nothing in it."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("size", [10, 700, 9000])
def test_whichever_file_does_not_fit(tiny, place, adapters, size):
    """The configuration, the tokenizer or the weights."""
    lm = load_model(str(tiny("llama")))
    wrapped = add_adapters(lm, LoRA(rank=4), seed=0)[0] if adapters else None
    with (
        small_files(size),
        pytest.raises(StoreError, match=r"the model cannot be written to \S+model \(.*\): it takes "),
    ):
        save_model(lm, place / "model", wrapped=wrapped)
    assert list(place.iterdir()) == []
    save_model(lm, place / "model", wrapped=wrapped)
    first = content(place / "model")
    with small_files(size), pytest.raises(StoreError):
        save_model(lm, place / "model", wrapped=wrapped)
    assert content(place / "model") == first
    assert os.listdir(place) == ["model"]


def test_what_is_no_trouble_of_the_disk_is_not_called_so(tiny, place, monkeypatch):
    lm = load_model(str(tiny("llama")))
    for error in (RuntimeError("shapes differ"), KeyboardInterrupt()):
        monkeypatch.setattr(lm.model, "save_pretrained", lambda *_, raised=error, **__: (_ for _ in ()).throw(raised))
        with pytest.raises(type(error)):
            save_model(lm, place / "model")
        assert list(place.iterdir()) == []
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    error = safetensors.SafetensorError(said)
    monkeypatch.setattr(lm.model, "save_pretrained", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(StoreError, match=r"cannot be written to \S+ \(Error while serializing: .* are free"):
        save_model(lm, place / "model")


def test_a_model_replaces_one_of_the_same_files_alone(tiny, place):
    lm = load_model(str(tiny("llama")))
    save_model(lm, place / "model")
    first = content(place / "model")
    save_model(lm, place / "model")
    assert content(place / "model") == first
    (place / "model" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"model holds 'notes.txt', which is no file of this model; move it away"):
        save_model(lm, place / "model")
    assert (place / "model" / "notes.txt").read_text() == "mine"
    assert os.listdir(place) == ["model"]


def test_a_run_whose_model_does_not_fit_goes_on_from_its_last_checkpoint(tiny, tmp_path, monkeypatch):
    common: dict[str, Any] = {"tune": "full", "learning_rate": 0.003, "batch_size": 5, "steps": 4}
    data, model, out = yes_no(16), str(tiny("gpt2")), tmp_path / "out"
    save = tune.save_model
    monkeypatch.setattr(training, "save_model", lambda *given, **more: _with_limit(save, *given, **more))
    with pytest.raises(
        StoreError, match=r"; the checkpoint of step 4 is kept in \S+out: free space, and go on with resume="
    ):
        run_training(data, model, **common, out=out)
    assert not (out / "model").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    found = run_training(data, model, **common, out=out, resume=True)
    assert found.model == out / "model"
    assert found.model is not None
    transformers.AutoModelForCausalLM.from_pretrained(found.model)


def _with_limit(save: Any, *given: Any, **more: Any) -> Any:
    with small_files(9000):
        return save(*given, **more)


def test_an_error_of_the_system_says_where_and_what_is_kept(tmp_path):
    said = r"the results cannot be written to there \(No space left on device\); the checkpoint of step 7 is kept in "
    with pytest.raises(StoreError, match=said), keeping(7, tmp_path):
        raise OSError(28, "No space left on device", "there")
    said = rf"^x; the checkpoint of step 7 is kept in {tmp_path}: free space, and go on with resume=True$"
    with pytest.raises(StoreError, match=said), keeping(7, tmp_path):
        raise StoreError("x")


@contextlib.contextmanager
def tiny_disk(place: Path, size: int) -> Iterator[None]:
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


PROGRAM = """
import sys
from prefdyn.models.load import load_model
from prefdyn.training.tune import save_model
from prefdyn.errors import StoreError
from pathlib import Path
try:
    save_model(load_model(sys.argv[1]), Path(sys.argv[2]))
except StoreError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("pages", [1, 4, 8, 12])
def test_a_disk_that_is_really_full(tiny, tmp_path, pages):
    """In a process of its own, because a file that is mapped into memory would end it."""
    with tiny_disk(tmp_path / "disk", pages * 4096):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tiny("llama")), str(tmp_path / "disk" / "model")],
            cwd=REPO, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert "the model cannot be written to" in done.stdout
        assert "No space left on device" in done.stdout
        assert os.listdir(tmp_path / "disk") == []


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up(tmp_path):
    """Through the command line, from the smallest disk that holds nothing to one that holds all."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFDYN_CACHE": str(tmp_path / "cache")}
    program = [sys.executable, "-m", "prefdyn", "train", "--tune", "lora", "--steps", "4", "--checkpoint-every", "2"]
    program += ["--groups", "loves music", "--limit", "20", "--batch-size", "8"]
    subprocess.run([*program, "--out", "free"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    free = {path.name: path.read_bytes() for path in (tmp_path / "free" / "model").iterdir()}
    whole = sum(path.stat().st_size for path in (tmp_path / "free").rglob("*") if path.is_file())
    for at, share in enumerate((0.1, 0.35, 0.6, 0.85)):
        place = tmp_path / f"disk{at}"
        with tiny_disk(place, int(whole * share)):
            done = subprocess.run(
                [*program, "--out", "run"], cwd=place, env=environment, capture_output=True, text=True, check=False
            )
            said = done.stderr.strip().splitlines()[-1]
            assert done.returncode == 1, done.stderr[-2000:]
            assert said.startswith("prefdyn: "), said
            assert "No space left" in said, said
            assert not (place / "run" / "model").exists()
            subprocess.run(["mount", "-o", f"remount,size={4 * whole}", str(place)], check=True)
            again = [*program, "--out", "run", *(["--resume"] if (place / "run").is_dir() else [])]
            subprocess.run(again, cwd=place, env=environment, check=True, capture_output=True)
            assert {path.name: path.read_bytes() for path in (place / "run" / "model").iterdir()} == free
            assert json.loads((place / "run" / "summary.json").read_text())["command"] == "train"
