"""Every example runs as it stands and says what it claims."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from prefdyn.store import load_features, load_trajectory
from tests import slurm
from tests.conftest import REPO
from tests.fuzz.flags import COMMANDS

EXAMPLES = {
    "adam_exponent.py": ["-0.997", "exponent", "Gradient descent learns K values"],
    "audit_a_list.py": ["steady: ", "fickle: conflicting", "report: "],
    "counterexample_theorem_4_1.py": ["broken in 3 of 5 problems"],
    "empty_theorem_4_3.py": ["at least 0%", "97.8%"],
    "field_coordinates.py": ["the two probability ratios", "a property of the coordinates, not of DPO"],
    "more_values.py": ["1.13x", "not 1.5x", "5974"],
    "trl_groups.py": ["the same bytes", "TRL says: margin 0.8", "under 1e-4"],
}


def test_every_example_is_listed():
    assert {path.name for path in (REPO / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "says"), EXAMPLES.items())
def test_the_example_runs(name, says, tmp_path):
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, Path("examples") / name], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for line in says:
        assert line in result.stdout


STUBS = {
    "scontrol": "echo 127.0.0.1; echo 127.0.0.1\n",
    "srun": 'for node in 0 1; do SLURM_NODEID=$node "$@" & jobs="${jobs:-} $!"; done\n'
    'for job in $jobs; do wait "$job" || exit 1; done\n',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"\n',
}
"""A cluster of two nodes on this machine: what the job file calls, as far as it calls it."""


@pytest.mark.thorough
def test_the_slurm_job_runs_on_two_nodes(tmp_path):
    tools, out = tmp_path / "tools", tmp_path / "run"
    tools.mkdir()
    for name, body in STUBS.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}")
        (tools / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "here[0-1]",
        "PER_NODE": "1", "PORT": port, "OMP_NUM_THREADS": "1",
        "PREFDYN_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    job = ["bash", str(REPO / "examples" / "train.sbatch"), "extract", "--limit", "4", "--out", str(out)]
    done = subprocess.run(job, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = [sys.executable, "-m", "prefdyn", "extract", "--limit", "4", "--out", str(tmp_path / "alone")]
    subprocess.run(alone, cwd=tmp_path, env={**environment, "PREFDYN_CACHE": str(tmp_path / "other")}, check=True)
    two, one = load_features(out), load_features(tmp_path / "alone")
    assert two.id.tolist() == one.id.tolist()
    assert two.chosen is not None
    assert one.chosen is not None
    assert np.allclose(two.chosen, one.chosen, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(bool(slurm.missing()), reason=f"no SLURM here: {', '.join(slurm.missing())} not on the path")
def test_the_slurm_job_under_a_real_scheduler(tmp_path):
    """As it stands, submitted to two nodes of this machine: the losses of one process, all cores of a node for a
    node's processes, and a wrong input that ends the job with one line."""
    tools, train = (
        tmp_path / "tools",
        ["train", "--limit", "4", "--tune", "lora", "--steps", "6", "--learning-rate", "0.001"],
    )
    tools.mkdir()
    seen = 'scontrol show step "$SLURM_JOB_ID.$SLURM_STEP_ID" > step-$SLURM_NODEID.txt\n'
    (tools / "torchrun").write_text(f"#!/bin/bash\n{seen}{STUBS['torchrun']}")
    (tools / "torchrun").chmod(0o755)
    with slurm.cluster(tmp_path / "c") as environment:
        environment |= {"PER_NODE": "1", "OMP_NUM_THREADS": "1", "PREFDYN_CACHE": str(tmp_path / "cache")}
        environment |= {"PATH": f"{tools}:{environment['PATH']}"}

        def submit(*arguments: str) -> tuple[int, list[str]]:
            job = ["sbatch", "--wait", "-o", "told.txt", str(REPO / "examples" / "train.sbatch"), *arguments]
            done = subprocess.run(job, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
            assert done.stderr == ""
            return done.returncode, (tmp_path / "told.txt").read_text().splitlines()

        code, told = submit(*train, "--out", "run")
        assert code == 0, told
        steps = [(tmp_path / f"step-{node}.txt").read_text() for node in (0, 1)]
        code, wrong = submit("train", "--data", "nosuch.jsonl", "--out", "other")
    assert all("TresPerTask=cpu:32" in step and "Nodes=2" in step for step in steps)
    assert sum(line.startswith("Memory: about") for line in told) == 1
    assert code == 1
    assert wrong[0].startswith("prefdyn: there is no file or folder nosuch.jsonl")
    assert not (tmp_path / "other").exists()

    alone = [sys.executable, "-m", "prefdyn", *train, "--out", "alone"]
    subprocess.run(alone, cwd=tmp_path, env={**environment, "PREFDYN_CACHE": str(tmp_path / "d")}, check=True)
    two, one = (load_trajectory(tmp_path / name) for name in ("run", "alone"))
    assert [(row["split"], row["group"], row["step"]) for row in two.rows()] == [
        (row["split"], row["group"], row["step"]) for row in one.rows()
    ]
    margins = [np.array([row["margin"] for row in run.rows()]) for run in (two, one)]
    assert np.abs(margins[1]).max() > 0.01
    assert np.allclose(*margins, rtol=0, atol=1e-5)


def test_the_ray_job_names_a_command_that_there_is():
    held = yaml.safe_load((REPO / "examples" / "ray-job.yaml").read_text())
    program, command, *flags = held["entrypoint"].split()
    assert program == "prefdyn"
    known = {name for parameter in COMMANDS[command].params for name in parameter.opts}
    assert {flag for flag in flags if flag.startswith("--")} <= known
    assert flags[flags.index("--launcher") + 1] == "ray"
