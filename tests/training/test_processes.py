"""Two CPU processes train as one does: data parallel and sharded, with batches and parts that do not divide by two."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from prefdyn.errors import ConfigError, ProcessError, StoreError
from prefdyn.models.team import Team
from prefdyn.training import train
from prefdyn.training.checkpoints import save_checkpoint
from prefdyn.training.loop import _Interrupts
from tests.conftest import REPO


def launch(model: Path, out: Path, kind: str, tune: str, *, processes: int, **environment: str) -> dict:
    """Run `several.py`, alone or under torchrun, and read what it wrote down."""
    several = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [sys.executable, *several, "-m", "tests.training.several", str(model), str(out), kind, tune],
        cwd=REPO, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "found.json").read_text())


def agree(one: dict, other: dict) -> None:
    """The same losses, gradients, measurements and scores, to what float32 sums in another order allow."""
    for name in ("loss", "grad_norm", "rewards/margins", "rewards/accuracies", "pairs"):
        first, second = (np.array([row[name] for row in found["steps"]]) for found in (one, other))
        assert np.allclose(first, second, rtol=1e-4, atol=1e-6), (name, first, second)
    assert [row["pairs"] for row in one["steps"]] == [5, 5, 3, 5, 5, 3, 5]
    assert len({row["loss"] for row in one["steps"]}) == 7
    assert np.allclose(one["chosen"], other["chosen"], rtol=0, atol=1e-4)
    for first, second in zip(one["rows"], other["rows"], strict=True):
        for name, value in first.items():
            if isinstance(value, float):
                assert np.isclose(value, second[name], rtol=1e-3, atol=1e-4), (name, value, second[name])
            else:
                assert value == second[name]


class Second(Team):
    """The team as a second process sees it, with what the first one said."""

    def __init__(self, said: Any) -> None:
        super().__init__("cpu", cache=True)
        self.said, self.main, self.share = said, False, (1, 2)

    def of_first(self, value: Any) -> Any:
        return self.said


def test_a_process_that_would_train_something_else_is_refused():
    """A reference may differ by rounding; data, model and settings may not."""
    origin = {"data": "a", "seed": 0, "reference": "x"}
    train._refuse_another(Second({"data": "a", "seed": 0}), origin)
    said = (
        r"rank 1 would train another run than rank 0 \(data 'b' there, 'a' here, seed 1 there, 0 here\); give all proc"
    )
    with pytest.raises(ConfigError, match=said):
        train._refuse_another(Second({"data": "b", "seed": 1}), origin)


def test_the_first_process_chooses_the_folder_and_the_checkpoint(tmp_path):
    assert train._of_first(Second(str(tmp_path)), Path("mine")) == tmp_path
    assert train._of_first(Second(None), Path("mine")) is None
    assert train._checkpoint(Second(None), tmp_path) is None
    with pytest.raises(
        StoreError, match=r"goes on from the checkpoint step-000002 in \S+, where rank 1 sees none; the fol"
    ):
        train._checkpoint(Second("step-000002"), tmp_path)
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", step=step, tensors={"a": torch.ones(1)}, state={})
    found = train._checkpoint(Second("step-000002"), tmp_path)
    assert found is not None
    assert found.step == 2
    with pytest.raises(
        StoreError, match="where rank 1 sees step-000002; the folder must be the same for all processes"
    ):
        train._checkpoint(Second("step-000001"), tmp_path)


def test_who_stops_because_another_was_told_to_says_so():
    with pytest.raises(
        ProcessError, match="another process was told to stop, after step 3; its checkpoint is kept: go"
    ):
        _Interrupts().stop(3)


CASES = [
    pytest.param("answers", "full", {}, id="answers-full"),
    pytest.param("responses", "full", {}, id="responses-full", marks=pytest.mark.slow),
    pytest.param("responses", "lora", {}, id="responses-lora", marks=pytest.mark.slow),
    pytest.param("answers", "last-layer", {}, id="answers-last-layer", marks=pytest.mark.slow),
    pytest.param("answers", "full", {"SHARDED": "1"}, id="answers-sharded", marks=pytest.mark.slow),
    pytest.param("responses", "lora", {"SHARDED": "1"}, id="responses-lora-sharded", marks=pytest.mark.slow),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "tune", "environment"), CASES)
def test_two_processes_train_as_one(tiny, tmp_path, kind, tune, environment):
    model = tiny("llama-tied")
    one = launch(model, tmp_path / "one", kind, tune, processes=1)
    two = launch(model, tmp_path / "two", kind, tune, processes=2, **environment)
    agree(one, two)
    for path in (tmp_path / "one" / "model").glob("*.safetensors"):
        first, second = (safetensors.torch.load_file(each) for each in (path, tmp_path / "two" / "model" / path.name))
        assert first.keys() == second.keys()
        assert all(np.allclose(first[name], second[name], rtol=0, atol=1e-5) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"SHARDED": "1"}], ids=["data-parallel", "sharded"])
def test_a_run_of_two_processes_goes_on_from_its_checkpoint(tiny, tmp_path, environment):
    model, out = tiny("llama-tied"), tmp_path / "out"
    whole = launch(model, out, "answers", "full", processes=2, **environment)
    for place in sorted((out / "checkpoints").glob("step-*"))[1:]:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-000006"]
    again = launch(model, out, "answers", "full", processes=2, RESUME="1", **environment)
    assert again == whole
