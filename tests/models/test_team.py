"""Processes meet before anything is decided, and one that does not come, fails or cannot meet is told in one line."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time

import pytest
import torch

from prefdyn.errors import ConfigError, DataError, ProcessError
from prefdyn.models import team as room
from prefdyn.models.peers import Peers
from prefdyn.models.team import Team, join, together


@pytest.fixture
def launcher(monkeypatch):
    """Sets the variables of one of two processes that have not met; returns the port."""

    def set_variables(rank: int, **further: str) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in {**given, "PREFDYN_PEER_TIMEOUT": "1", **further}.items():
            monkeypatch.setenv(name, value)
        return port

    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(room._Met, "peers", None)
    monkeypatch.setattr(room._Met, "store", None)
    yield set_variables
    room._Met.peers = None


class Told(Peers):
    """Stands for the connection to the others."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.waited = 0
        self.ending = False

    def fail(self, reason: str) -> None:
        self.failed.append(reason)
        self.ending = True

    def await_verdict(self) -> None:
        self.waited += 1


@pytest.fixture
def told(monkeypatch):
    made = Told()
    monkeypatch.setattr(room._Met, "peers", made)
    return made


def test_one_process_meets_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() is None
    found = Team("cpu", cache=False)
    assert (found.share, found.main, found.of_first("x"), found.device("auto")) == ((0, 1), True, "x", "auto")


def test_who_does_not_come_is_named(launcher):
    port = launcher(0)
    said = (
        r"1 of 2 processes did not come within 1.5 s \(rank 1\); start all of them, with MASTER_ADDR 127.0.0.1 and "
        rf"MASTER_PORT {port}, or set PREFDYN_PEER_TIMEOUT"
    )
    with pytest.raises(ProcessError, match=said):
        join()


def test_a_first_process_that_does_not_come(launcher):
    port = launcher(1)
    began = time.monotonic()
    with pytest.raises(ProcessError, match=rf"rank 0 of 2 was not met at 127.0.0.1:{port} .* within 1.5 s, so rank 1"):
        join()
    assert time.monotonic() - began < 30


def test_a_port_where_somebody_else_listens(launcher):
    port = launcher(0)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", port))
        taken.listen()
        with pytest.raises(
            ConfigError, match=rf"MASTER_PORT {port} cannot be opened .* \(another program has it, such"
        ):
            join()


def test_somebody_else_who_answers_nothing(launcher, monkeypatch):
    """A process that was stopped while it opened its port looks like this too."""
    port = launcher(1)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", port))
        mute.listen()
        with pytest.raises(ProcessError, match=rf"rank 0 of 2 was not met at 127.0.0.1:{port}"):
            join()


def test_after_the_end_all_start_anew(launcher, told):
    launcher(0)
    told.ending = True
    with pytest.raises(ProcessError, match="the work of these processes has ended, with an error or at its end; start"):
        join()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("no pair is left"), "no pair is left"),
        (ValueError("oh"), "ValueError: oh"),
        (RuntimeError("shapes differ"), "RuntimeError: shapes differ"),
        (KeyboardInterrupt(), "it was told to stop"),
        (SystemExit(2), "it was told to stop"),
    ],
)
def test_the_others_are_told_why_this_one_fails(told, error, reason):
    @together()
    def inner() -> None:
        raise error

    with pytest.raises(type(error)), together():
        inner()
    assert told.failed == [reason]
    assert told.waited == 0


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit()])
def test_an_end_that_is_no_error_is_none_for_the_others(told, error):
    with pytest.raises(SystemExit), together():
        raise error
    assert told.failed == []


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"),
        torch.distributed.DistNetworkError("Broken pipe"),
    ],
)
def test_a_broken_connection_waits_for_who_is_lost(told, error):
    """The watching thread ends the process meanwhile, unless all are alive."""
    with (
        pytest.raises(ProcessError, match="the connection between the processes broke, though all are alive"),
        together(),
    ):
        raise error
    assert told.waited == 1
    assert len(told.failed) == 1


def test_without_others_errors_are_as_they_are(monkeypatch):
    monkeypatch.setattr(room._Met, "peers", None)
    with pytest.raises(RuntimeError, match=r"^gloo$"), together():
        raise RuntimeError("gloo")


PROGRAM = """
import sys, time
from prefdyn.models.team import Team, together
from prefdyn.errors import DataError
team = Team("cpu", cache=True)
print(team.share, team.main, team.of_first(["said", team.share[0]]), flush=True)
team.wait()
if sys.argv[1] == "raise" and team.main:
    raise DataError("no pair is left")
if sys.argv[1] == "raise":
    team.wait()
"""


def two(word: str, **further: str) -> list[tuple[int, str, str]]:
    """Exit code and words of two processes that use `Team`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in (1, 0):
        team = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        team |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", PROGRAM, word]
        started.append(
            subprocess.Popen(
                command,
                env={**os.environ, **team, **further},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = []
    for process in reversed(started):
        with contextlib.ExitStack() as stack:
            stack.callback(process.kill)
            out, said = process.communicate(timeout=200)
            found.append((process.returncode, out, said))
    return found


@pytest.mark.thorough
def test_two_processes_meet_agree_and_part():
    found = two("go on")
    for rank, (code, out, said) in enumerate(found):
        assert code == 0, said
        assert out == f"({rank}, 2) {rank == 0} ['said', 0]\n"
        assert "prefdyn:" not in said


@pytest.mark.thorough
def test_an_uncaught_error_in_one_ends_the_other_with_its_reason():
    """It waits in a collective operation, which would last for ever."""
    first, second = two("raise")
    assert first[0] == 1
    assert "DataError: no pair is left" in first[2]
    assert second[0] == 1
    assert re.search(r"prefdyn: rank 0 of 2 failed \(no pair is left\); rank 1 of 2 ends too; what is done", second[2])
