"""Processes that watch each other: who dies or stops ends all, who is only busy ends nobody, and everybody says why.

Each process is a real one, without torch, so that it starts at once.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from prefdyn.errors import ProcessError
from prefdyn.models.peers import Hub, Spoke, reach

pytestmark = pytest.mark.thorough

TIMEOUT = 2.0
PROGRAM = """
import socket, sys, time
from prefdyn.models.peers import Hub, Spoke
rank, count, port, timeout, *does = sys.argv[1:]
rank, count = int(rank), int(count)
if rank:
    hub = socket.create_connection(("127.0.0.1", int(port)))
    peers = Spoke(rank, count, timeout=float(timeout), key="k", connection=hub)
else:
    peers = Hub(count, timeout=float(timeout), key="k")
    print(peers.port, flush=True)
peers.start()
assert peers.everybody.wait(60)
print("all", flush=True)
for each in does:
    what, _, how = each.partition(":")
    if what == "sleep":
        time.sleep(float(how))
    elif what == "count":  # holds the interpreter as much as pure Python can
        end = time.monotonic() + float(how)
        while time.monotonic() < end:
            sum(range(1000))
    elif what == "share":
        print(peers.share({"from": rank, "name": how}), flush=True)
    elif what == "leave":
        peers.leave()
    elif what == "fail":
        peers.fail(how)
        sys.exit(7)
"""


class Group:
    """Processes by rank; what each does is a list of words."""

    def __init__(self, *does: list[str], timeout: float = TIMEOUT) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        port = "0"
        for rank, words in enumerate(does):
            command = [sys.executable, "-c", PROGRAM, str(rank), str(len(does)), port, str(timeout), *words]
            started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.processes.append(started)
            if rank == 0:
                port = self.line(0)
        for rank in range(len(does)):
            assert self.line(rank) == "all"
        self.began = time.monotonic()

    def line(self, rank: int) -> str:
        out: Any = self.processes[rank].stdout
        return out.readline().strip()

    def signal(self, rank: int, kind: int) -> None:
        self.processes[rank].send_signal(kind)
        self.began = time.monotonic()

    def end(self, rank: int) -> tuple[int, str, float]:
        """Exit code, what it said, and seconds since the signal."""
        _, said = self.processes[rank].communicate(timeout=60)
        return self.processes[rank].returncode, said, time.monotonic() - self.began


@pytest.fixture
def group() -> Iterator[Any]:
    made: list[Group] = []

    def start(*does: list[str], **options: Any) -> Group:
        made.append(Group(*does, **options))
        return made[-1]

    yield start
    for each in made:
        for process in each.processes:
            with contextlib.suppress(OSError):
                process.kill()
            process.communicate()


LONG = ["sleep:100", "leave"]


@pytest.mark.parametrize("victim", [0, 1])
def test_who_is_killed_ends_the_others_at_once(group, victim):
    found = group(LONG, LONG, LONG)
    found.signal(victim, signal.SIGKILL)
    for rank in {0, 1, 2} - {victim}:
        code, said, waited = found.end(rank)
        assert code == 1
        assert waited < 10
        assert re.fullmatch(
            rf"prefdyn: rank {victim} of 3 has ended without a word, as a process that is killed does; rank {rank} of "
            r"3 ends too; what is done is kept: give the same command again \(train: with --resume\)\n",
            said,
        )


@pytest.mark.parametrize("victim", [0, 2])
def test_who_is_stopped_ends_the_others_once_patience_is_over(group, victim):
    found = group(LONG, LONG, LONG)
    found.signal(victim, signal.SIGSTOP)
    for rank in {0, 1, 2} - {victim}:
        code, said, waited = found.end(rank)
        assert code == 1
        assert TIMEOUT * 0.9 < waited < 20
        assert f"prefdyn: rank {victim} of 3 has given no sign of life for 2 s (stopped, starved or out of rea" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("does", ["sleep:5", "count:5"])
def test_who_is_only_busy_ends_nobody(group, does):
    """Longer than patience, in C or in Python, as a long shard is."""
    found = group([does, "leave"], ["leave"], [does, "leave"])
    for rank in (1, 0, 2):
        assert found.end(rank)[:2] == (0, "")


def test_a_short_stop_ends_nobody(group):
    found = group(["sleep:6", "leave"], ["sleep:6", "leave"], timeout=8)
    for rank in (0, 1):
        found.signal(rank, signal.SIGSTOP)
    time.sleep(3)
    for rank in (0, 1):
        found.signal(rank, signal.SIGCONT)
    assert [found.end(rank)[:2] for rank in (0, 1)] == [(0, ""), (0, "")]


@pytest.mark.parametrize("first", [0, 1])
def test_who_is_done_is_missed_by_nobody(group, first):
    does = [["sleep:3", "leave"], ["sleep:3", "leave"]]
    does[first] = ["leave"]
    found = group(*does)
    assert [found.end(rank)[:2] for rank in (first, 1 - first)] == [(0, ""), (0, "")]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_ends_the_others_with_its_reason(group, failing):
    does = [list(LONG) for _ in range(3)]
    does[failing] = ["fail:out exists already;\nadd --force"]
    found = group(*does)
    assert found.end(failing)[:2] == (7, "")
    for rank in {0, 1, 2} - {failing}:
        code, said, waited = found.end(rank)
        assert code == 1
        assert waited < 15
        assert (
            f"prefdyn: rank {failing} of 3 failed (out exists already; add --force); rank {rank} of 3 ends too" in said
        )


def test_who_comes_to_the_same_failure_tells_it_in_its_own_words(group):
    found = group(["fail:mine"], ["sleep:1", "fail:mine too"], ["sleep:0.5", "fail:and mine"])
    assert [found.end(rank)[:2] for rank in range(3)] == [(7, "")] * 3


def test_the_first_process_decides(group):
    found = group(
        ["share:a", "share:b", "leave"], ["sleep:1", "share:x", "share:y", "leave"], ["share:", "share:", "leave"]
    )
    for rank in range(3):
        assert [found.line(rank) for _ in range(2)] == ["{'from': 0, 'name': 'a'}", "{'from': 0, 'name': 'b'}"]
        assert found.end(rank)[0] == 0


def test_who_waits_for_a_decision_that_does_not_come_is_told(group):
    found = group(["leave"], ["share:x"])
    assert found.end(0)[0] == 0
    code, said, _ = found.end(1)
    assert code == 1
    assert "ProcessError: rank 0 of 2 is done before rank 1 of 2; start all anew" in said


def test_a_decision_that_never_comes_raises():
    mine, theirs = socket.socketpair()
    with mine, theirs:
        spoke = Spoke(1, 2, timeout=5, key="k", connection=mine)
        spoke._over = True
        with pytest.raises(ProcessError, match="rank 0 of 2 is done before rank 1 of 2; start all anew"):
            spoke.share(None)
        spoke.close()


def test_strangers_are_shown_out():
    """What is not ours, or has no key, neither joins nor disturbs."""
    hub = Hub(2, timeout=60, key="k")
    hub.start()
    for word in (b"GET / HTTP/1.1\r\n\r\n", b'{"hello": 1, "key": "other"}\n', b'{"hello": 5, "key": "k"}\n', b"3\n"):
        with socket.create_connection(("127.0.0.1", hub.port)) as stranger:
            stranger.sendall(word)
            stranger.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
    assert hub.missing == [1]
    with socket.create_connection(("127.0.0.1", hub.port)) as one:
        one.sendall(b'{"hello": 1, "key": "k"}\n')
        assert hub.everybody.wait(20)
        with socket.create_connection(("127.0.0.1", hub.port)) as twin:
            twin.sendall(b'{"hello": 1, "key": "k"}\n')
            said = twin.recv(1000)
        assert b"another process came as rank 1 of 2 before; give each its own RANK" in said
        one.sendall(b'{"left": true}\n')
        hub.ending = True
        hub.close()


def test_nobody_there_to_reach():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        began = time.monotonic()
        assert reach("127.0.0.1", taken.getsockname()[1], seconds=0.5) is None
        assert time.monotonic() - began < 10
        taken.listen()
        found = reach("127.0.0.1", taken.getsockname()[1], seconds=5)
        assert found is not None
        found.close()


def test_no_torch_is_needed():
    code = "import sys, prefdyn.models.peers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
