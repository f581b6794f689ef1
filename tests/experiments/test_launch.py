"""Many runs: each once, those that start from others after them, one failure alone, and no process left behind."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from prefdyn.errors import ConfigError, MissingExtra, PrefdynError
from prefdyn.experiments import launch as room
from prefdyn.experiments.launch import cores, launch
from prefdyn.experiments.run import RecipeRun
from prefdyn.experiments.work import RunOutcome, folder_of
from tests.experiments.conftest import HEAD, WHOLE


@pytest.fixture
def features(pairs, builtin_model) -> RecipeRun:
    return RecipeRun(kind="features", title="states", pairs=pairs, model=builtin_model)


@pytest.fixture
def heads(features) -> list[RecipeRun]:
    """Two simulations of one set of features."""
    common = {"pairs": features.pairs, "model": features.model, "start": features}
    return [
        RecipeRun(kind="simulate", title=f"beta {beta}", setup=replace(HEAD, beta=beta), **common)
        for beta in (0.1, 0.2)
    ]


@pytest.fixture
def broken(features) -> RecipeRun:
    """A training run whose loss is not finite after a step."""
    setup = replace(WHOLE, learning_rate=1e30, optimizer="sgd", clip=None)
    return RecipeRun(
        kind="train", title="broken", pairs=features.pairs, model=features.model, setup=setup, keep_model=True
    )


def test_every_run_and_what_it_starts_from_is_done_once(heads, features, monkeypatch):
    done = []
    real = room.do
    monkeypatch.setattr(room, "do", lambda run: done.append(run.title) or real(run))
    found, before = launch([*heads, heads[0]], progress=False)
    assert done == ["states", "beta 0.1", "beta 0.2"]
    assert (set(found), before) == ({features.key, *(run.key for run in heads)}, 0)
    again, before = launch(heads, progress=False)
    assert (len(done), before, set(again)) == (3, 3, set(found))


def test_a_failure_ends_what_starts_from_it_and_nothing_else(heads, broken):
    after = RecipeRun(kind="features", title="after", pairs=broken.pairs, model=broken.model, start=broken)
    found, _ = launch([after, broken, heads[0]], progress=False)
    assert isinstance(found[heads[0].key], RunOutcome)
    failed, followed = found[broken.key], found[after.key]
    assert isinstance(failed, PrefdynError)
    assert "lower the learning rate" in str(failed)
    assert str(followed) == f"after starts from a run that failed: {failed}"
    assert not folder_of(broken).exists()


@pytest.mark.thorough
def test_processes_give_what_one_process_gives(heads, broken, own_cache):
    found: Any = launch([*heads, broken], jobs=2, progress=False)[0]
    assert isinstance(found[broken.key], PrefdynError)
    tables = [found[run.key].trajectory.table for run in heads]
    for run in heads:
        folder_of(run).rename(own_cache / run.key)
    again: Any
    again, before = launch(heads, jobs=1, progress=False)
    assert before == 1  # the features alone
    assert all(again[run.key].trajectory.table.equals(table) for run, table in zip(heads, tables, strict=True))


def test_unknown_launchers_and_no_jobs_are_refused(heads):
    with pytest.raises(ConfigError, match="launcher 'slurm' is unknown"):
        launch(heads, launcher="slurm")
    with pytest.raises(ConfigError, match="jobs is 0"):
        launch(heads, jobs=0)
    assert cores() >= 1


def test_without_ray_one_line_says_what_to_install(heads, monkeypatch):
    real = importlib.import_module

    def without(name, *rest):
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *rest)

    monkeypatch.setattr(room.importlib, "import_module", without)
    with pytest.raises(MissingExtra, match=r"launcher ray needs Ray: pip install ray, or"):
        launch(heads, launcher="ray", progress=False)


@pytest.mark.slow
def test_a_local_ray_cluster_gives_the_same(heads, broken, own_cache):
    if importlib.util.find_spec("ray") is None:  # imported only by the launcher, which sets it up before
        pytest.skip("Ray is not installed: uv sync --extra cluster")
    found: Any = launch([*heads, broken], launcher="ray", progress=False)[0]
    assert isinstance(found[broken.key], PrefdynError)
    table = found[heads[0].key].trajectory.table
    folder_of(heads[0]).rename(own_cache / "aside")
    again: Any = launch([heads[0]], progress=False)[0]
    assert again[heads[0].key].trajectory.table.equals(table)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_no_process_and_no_half_outcome_and_the_rest_is_done_later(tmp_path, how):
    """The command is stopped once a first run is finished; its processes go too, and it goes on from there."""
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "prefdyn", "reproduce", "gradient-field", "--jobs", "2", "--out", "out"]
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    runs = tmp_path / "cache" / "runs"
    deadline = time.monotonic() + 240
    while not list(runs.glob("*/outcome.json")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.1)
    children = _children(first.pid)
    first.send_signal(how)
    first.wait(60)
    deadline = time.monotonic() + 60
    while any(_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    kept = {path.parent.name for path in runs.glob("*/outcome.json")}
    assert not (tmp_path / "out").exists()
    assert [path for path in runs.iterdir() if not (path / "outcome.json").is_file()] == []
    stamps = {name: (runs / name / "outcome.json").stat().st_mtime_ns for name in kept}
    subprocess.run([*command[:6], "1", *command[7:]], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert {name: (runs / name / "outcome.json").stat().st_mtime_ns for name in kept} == stamps
    assert (tmp_path / "out" / "claims.json").is_file()


def _children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
