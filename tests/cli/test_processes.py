"""Under a launcher: who alone decides about folders, which commands take several processes, and what others say."""

import os
import socket
import subprocess
import sys

import pytest

from prefdyn.cli import COMMANDS, SEVERAL

THERE = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}
GIVEN = {"compare": ["a", "b"], "report": ["a"], "push": ["a"], "field": [], "data": []}


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(SEVERAL)))
def test_a_command_for_one_process_refuses_several(prefdyn, monkeypatch, tmp_path, command, rank):
    """Whichever of them it is, and before it looks at anything."""
    for name, value in {**THERE, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    answer = prefdyn(command, *GIVEN.get(command, []))
    assert answer.code == 1
    assert answer.last_line.startswith(
        f"prefdyn: `prefdyn {command}` runs in one process, but WORLD_SIZE is 2; start it"
    )
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"WORLD_SIZE": "two"},
            "prefdyn: WORLD_SIZE is 'two', but must be a whole number of at least 1; give the number",
        ),
        (
            {**THERE, "RANK": "2"},
            "prefdyn: RANK is 2, but with WORLD_SIZE 2 it must be from 0 to 1; give this process's",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "1"},
            "prefdyn: WORLD_SIZE is 2, but MASTER_ADDR is not set, so the processes can",
        ),
    ],
    ids=["words", "beyond", "nowhere"],
)
def test_wrong_variables_are_one_line_and_nothing_written(prefdyn, monkeypatch, tmp_path, command, given, said):
    for name in ("RANK", *THERE):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    answer = prefdyn(command, *GIVEN.get(command, []))
    assert answer.code == 1
    assert answer.last_line.startswith(said)
    assert len(answer.err.strip().splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.thorough
def test_where_the_first_process_refuses_the_others_end_with_its_reason(tmp_path):
    """And only the first touches folders: the other one makes none, though its own name would be free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    pair = []
    for rank in (0, 1):
        team = {**THERE, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
        team |= {"PREFDYN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "prefdyn", "extract", "--groups", "loves music", "--limit", "20"]
        command += ["--out", "out" if rank == 0 else "other"]
        pair.append(
            subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **team}, stderr=subprocess.PIPE, text=True)
        )
    first, second = ((process.communicate(timeout=300)[1], process.returncode) for process in pair)
    assert first[1] == second[1] == 1
    reason = first[0].strip().splitlines()[-1].removeprefix("prefdyn: ")
    assert "no .prefdyn.json that says prefdyn wrote it" in reason
    assert f"prefdyn: rank 0 of 2 failed ({reason}); rank 1 of 2 ends too; what is done is kept: give" in second[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]
