"""Signals, two commands at once and the folder scripts, in real processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

pytestmark = pytest.mark.thorough

TRAIN = (
    "train", "--groups", "likes company,keeps promises", "--limit", "12", "--tune", "last-layer",
    "--learning-rate", "0.01", "--checkpoint-every", "2",
)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """`start("train", …)` → the process, in an empty folder with a cache of its own."""
    environment = {**os.environ, "PREFDYN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    (tmp_path / "work").mkdir()
    running = []

    def begin(*command):
        process = subprocess.Popen(
            [sys.executable, "-m", "prefdyn", *map(str, command)],
            cwd=tmp_path / "work", env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run in the background
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(there, process):
    """Until something is there, or the process has ended."""
    for _ in range(6000):
        if there() or process.poll() is not None:
            return
        time.sleep(0.02)
    raise AssertionError("nothing happened within two minutes")


def test_a_signal_while_libraries_load_ends_in_one_line(start, tmp_path):
    """And leaves nothing."""
    process = start("audit", "--out", "out")
    time.sleep(0.6)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (143, -signal.SIGTERM)  # the latter: before the first line of ours
    assert len(err.splitlines()) <= 1
    assert os.listdir(tmp_path / "work") == []


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_says_what_is_kept_and_goes_on(start, tmp_path, how):
    """The line names the checkpoint and the command that goes on, and that command does."""
    run = tmp_path / "work" / "run"
    process = start(*TRAIN, "--steps", 4000, "--out", "run")
    wait_for(lambda: list((run / "checkpoints").glob("step-*")), process)
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + how
    line = err.splitlines()[-1]
    assert "Traceback" not in err
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[how]
    assert line.startswith(f"prefdyn: {said}; the checkpoint of step ")
    command = line.partition("go on with: prefdyn ")[2].split()
    assert command == ["train", "--config", "run/config.yaml", "--out", "run", "--resume"]
    assert sorted(os.listdir(tmp_path / "work")) == ["run"]
    assert not [name for name in os.listdir(run) if name.endswith(".partial")]
    again = start(*TRAIN, "--steps", 4000, "--out", "run")
    _, err = again.communicate(timeout=120)
    assert (again.returncode, err.count("prefdyn: ")) == (1, 1)
    assert "add --resume to go on with it" in err


def test_two_runs_at_once(start, tmp_path):
    """Without --out each has its own folder; with one --out the second is refused and the first's config.yaml stays."""
    work = tmp_path / "work"
    first = start(*TRAIN, "--steps", 3000, "--beta", 0.2, "--out", "same")
    wait_for(lambda: (work / "same" / "config.yaml").exists(), first)
    second = start(*TRAIN, "--steps", 4, "--beta", 0.3, "--out", "same", "--force")
    _, err = second.communicate(timeout=240)
    assert (second.returncode, err.count("prefdyn: ")) == (1, 1)
    assert "another prefdyn is writing to same" in err
    assert yaml.safe_load((work / "same" / "config.yaml").read_text())["beta"] == 0.2
    first.kill()
    first.wait()
    both = [start(*TRAIN, "--steps", 4, "--learning-rate", rate) for rate in (0.01, 0.02)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert sorted(os.listdir(work / "prefdyn-out")) == ["train-1", "train-2"]
    for folder in (work / "prefdyn-out").iterdir():
        rate = json.loads((folder / "summary.json").read_text())["settings"]["learning_rate"]
        assert yaml.safe_load((folder / "config.yaml").read_text())["learning_rate"] == str(rate)


def test_a_wrong_model_costs_neither_the_finished_run_nor_somebodys_folder(prefdyn, tmp_path):
    """Scripts that lost files: a finished run under --force, a thesis under --resume, a project with a config.yaml."""
    quick = (*TRAIN, "--steps", 2)
    assert prefdyn(*quick, "--out", "run").code == 0
    before = (tmp_path / "run" / "summary.json").read_bytes()
    answer = prefdyn(*quick, "--out", "run", "--force", "--model", "/nope")
    assert (answer.code, "'/nope' does not exist" in answer.err) == (1, True)
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    for name, text in (
        ("precious/thesis.tex", "thesis"),
        ("project/config.yaml", "a: 1"),
        ("project/src/main.py", "x"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "notes.txt").write_text("notes")
    assert "is no run of `prefdyn train`" in prefdyn(*quick, "--resume", "--out", "precious").err
    for command in (quick, ("extract", "--limit", 5)):
        assert "that says prefdyn wrote it" in prefdyn(*command, "--out", "project", "--force").err
        assert "notes.txt is a file" in prefdyn(*command, "--out", "notes.txt", "--force").err
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "thesis"
    assert (tmp_path / "project" / "src" / "main.py").read_text() == "x"
    assert (tmp_path / "notes.txt").read_text() == "notes"
    assert prefdyn(*quick, "--beta", 0.3, "--out", "run", "--force").code == 0
    assert (tmp_path / "run" / "summary.json").read_bytes() != before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
