"""The processes that `accelerate launch` or torchrun started: how they meet, share work, and end together.

`launched` is around a whole command, `together` around a function that all of them call, `Team` is what such a function
works with. Who is lost or fails is found out by `prefdyn.models.peers`.
"""

import atexit
import contextlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed

from prefdyn._processes import arrival_timeout, meeting_point, peer_timeout, processes
from prefdyn.errors import ConfigError, PrefdynError, ProcessError
from prefdyn.models.peers import Hub, Peers, Spoke, reach

_PATIENCE = timedelta(days=7)
"""How long a collective operation may take: who dies or stops is found out otherwise, and long work is no fault."""
_BROKEN = ("gloo", "nccl", "c10d", "connection", "socket")
"""Words of errors by which torch says that a process cannot be reached."""


class _Met:
    """What this process has of the others, once it has met them."""

    peers: Peers | None = None
    store: Any = None
    """Kept, because the first process serves it to the others."""
    inside = False
    """Whether a function that all of them call is at work."""


class Team:
    """The processes that share one piece of work; alone unless a launcher started several."""

    def __init__(self, device: str, *, cache: bool) -> None:
        """Meet the others, if there are any.

        Args:
            device: As asked for: "auto", "cpu", "cuda" or "cuda:N".
            cache: Whether what is computed is kept on disk, which is how the others get it.

        Raises:
            ConfigError: There are several processes and no cache, or the launcher's variables are wrong.
            ProcessError: One of them does not come.
        """
        rank, count = processes()
        self.state: Any = None
        self.share = (0, 1)
        """This process's number and how many there are."""
        self.main = rank == 0
        """Whether this process writes results and shows progress."""
        if count == 1:
            return
        if not cache:
            raise ConfigError("several processes share their work through the cache; use cache=True, or one process")
        join()
        self.state = accelerate_state(device)
        self.share = (rank, count)

    def device(self, device: str) -> str:
        """The device of this process."""
        return str(self.state.device) if self.state is not None and device in ("auto", "cuda") else device

    def wait(self) -> None:
        """Until every process has done its share."""
        if self.state is not None:
            self.state.wait_for_everyone()

    def of_first(self, value: Any) -> Any:
        """A value of plain JSON as the first process has it. All must ask."""
        return value if self.state is None or _Met.peers is None else _Met.peers.share(value)


def accelerate_state(device: str) -> Any:
    """What accelerate knows of the processes, made by the first who asks; its trackers do not start without it."""
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)


@contextlib.contextmanager
def launched() -> Iterator[None]:
    """A whole command in several processes: they meet before anything is decided or written, and end together.

    Raises:
        ConfigError: The launcher's variables are wrong, or its port is taken.
        ProcessError: One of the processes does not come, or is lost.
    """
    patience = arrival_timeout()
    # whoever is to come was started when this process was, and has the same to load
    peers = join(max(patience - _age(), patience / 3))
    with together():
        yield
    if peers is not None:
        peers.leave()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A piece of work of all processes, or a function that all call: where it fails in one, the others end as well."""
    if _Met.inside:
        yield
        return
    _Met.inside = True
    try:
        yield
    except BaseException as error:
        if _Met.peers is not None and not _is_success(error):
            _failed(_Met.peers, error)
        raise
    finally:
        _Met.inside = False


def join(seconds: float | None = None) -> Peers | None:
    """Meet the other processes, once; None where there are none.

    Args:
        seconds: To wait for those that have not come yet; `arrival_timeout` unless given.

    Raises:
        ConfigError: The launcher's variables are wrong, or its port is taken.
        ProcessError: One of the processes does not come.
    """
    rank, count = processes()
    if count == 1:
        return None
    if _Met.peers is None:
        seconds = arrival_timeout() if seconds is None else seconds
        _Met.peers = _meet_as_first(count, seconds) if rank == 0 else _meet_first(rank, count, seconds)
        atexit.register(_leave_at_exit)
    if _Met.peers.ending:
        raise ProcessError("the work of these processes has ended, with an error or at its end; start all of them anew")
    return _Met.peers


def _failed(peers: Peers, error: BaseException) -> None:
    """Tell the others, unless it was one of them who failed first."""
    if peers.ending:
        return
    if isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, PrefdynError)
        and any(word in str(error).lower() for word in _BROKEN)
    ):
        peers.await_verdict()  # ends this process, unless everybody is alive
        said = " ".join(str(error).split())[:240]
        peers.fail(said)
        raise ProcessError(f"the connection between the processes broke, though all are alive ({said})") from error
    said = error.typed if isinstance(error, PrefdynError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt) or not isinstance(error, Exception):
        said = "it was told to stop"
    peers.fail(said)


def _is_success(error: BaseException) -> bool:
    """Whether an exception is how a command line ends where all is well."""
    code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", 1)
    return code in (0, None)


def _leave_at_exit() -> None:
    if _Met.peers is not None and not _Met.peers.ending:
        error = getattr(sys, "last_value", None)
        if error is None:
            _Met.peers.leave()
        else:
            _failed(_Met.peers, error)


# meeting -------------------------------------------------------------------------------------------------------------


def _meet_as_first(count: int, seconds: float) -> Peers:
    host, port = meeting_point()
    key = secrets.token_hex(16)
    _Met.store = _store(host, port, serve=not _served_by_launcher(), seconds=seconds)
    hub = Hub(count, timeout=peer_timeout(), key=key)
    hub.start()
    _Met.store.set(_name(), json.dumps([hub.port, key]))
    if not hub.everybody.wait(seconds):
        missing = hub.missing
        who = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        said = (
            f"{len(missing)} of {count} processes did not come within {seconds:.3g} s (rank {who}); start all of them, "
            f"with MASTER_ADDR {host} and MASTER_PORT {port}, or set PREFDYN_PEER_TIMEOUT to give them longer"
        )
        hub.fail(said)
        raise ProcessError(said)
    return hub


def _meet_first(rank: int, count: int, seconds: float) -> Peers:
    host, port = meeting_point()
    said = (
        f"rank 0 of {count} was not met at {host}:{port} (MASTER_ADDR, MASTER_PORT) within {seconds:.3g} s, so rank "
        f"{rank} ends; start all processes, or set PREFDYN_PEER_TIMEOUT to give them longer"
    )
    first = reach(host, port, seconds=seconds)
    if first is None:
        raise ProcessError(said)
    first.close()

    def meet() -> Spoke | None:
        store = _store(host, port, serve=False, seconds=seconds)
        hub, key = json.loads(store.get(_name()))
        connection = reach(host, hub, seconds=seconds)
        if connection is None:
            return None
        return Spoke(rank, count, timeout=peer_timeout(), key=key, connection=connection)

    spoke = _within(seconds, meet)
    if spoke is None:
        raise ProcessError(said)
    spoke.start()
    if not spoke.everybody.wait(seconds + 5):
        raise ProcessError(said)
    return spoke


def _age() -> float:
    """Seconds since this process was started."""
    return max(0.0, time.time() - psutil.Process().create_time())


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """What some work gives; None where it fails or takes longer, as where the other end was stopped."""
    found: list[Any] = []

    def run() -> None:
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            found.append(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _store(host: str, port: int, *, serve: bool, seconds: float) -> Any:
    """The meeting point of torch, by which the address of the hub is told; collectives use the same later."""
    try:
        return torch.distributed.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=serve, timeout=timedelta(seconds=seconds), wait_for_workers=False, multi_tenant=serve
        )
    except RuntimeError as error:
        if not serve:
            raise
        said = " ".join(str(error).split("\n")[0].split())[:240]
        taken = "address already in use" in said.lower() or "EADDRINUSE" in said
        why = "another program has it, such as another run" if taken else said
        raise ConfigError(
            f"MASTER_PORT {port} cannot be opened on this machine, where rank 0 runs ({why}); give another port"
        ) from error


def _served_by_launcher() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _name() -> str:
    """Where the address stands; a launcher that starts its processes again keeps its store."""
    return f"prefdyn/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
