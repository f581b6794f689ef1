"""The processes of one launch watch each other: where one fails, dies or falls silent, all end, and say why.

The first process is the hub, the others are connected to it, and a thread in each of them sends a sign of life every
second. A connection that closes without a farewell is a process that was killed. One that stays silent is a process
that was stopped, or a machine that is gone; how long the main thread is busy does not matter. Seconds are counted while
the watching thread itself is awake, so a process that was held up blames nobody for it.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from prefdyn.errors import ProcessError

_BEAT = 1.0
"""Seconds between two signs of life, and less where patience is short."""
_GRACE = 3.0
"""Seconds for a process to come to another's error by itself, and to tell it in its own words."""
_FAREWELL = 10.0
"""Seconds at most for the others to hear the last word."""
_HELLO = 10.0
"""Seconds after which a connection that does not introduce itself is closed."""
_LONGEST = 1 << 20
"""Bytes of a message at most."""
KEPT = "what is done is kept: give the same command again (train: with --resume)"


class Connection:
    """A connection that carries one JSON value per line. An empty line is a sign of life."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.silent = 0.0
        """Seconds since anything came."""
        self.closed = self.left = False
        """Whether the other end is gone, and whether it said so before."""
        self._incoming, self._outgoing = b"", b""
        self._lock = threading.Lock()

    def send(self, value: Any = None) -> None:
        """Send a value, or a sign of life. What does not go now goes with the next."""
        with self._lock:
            self._outgoing += (b"" if value is None else json.dumps(value).encode()) + b"\n"
            with contextlib.suppress(OSError):
                self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]

    def receive(self) -> list[Any]:
        """The values that came."""
        found: list[bytes] = []
        try:
            while not self.closed:
                part = self.socket.recv(65536)
                self.closed = not part or len(self._incoming) > _LONGEST
                if part:
                    self.silent = 0.0
                *whole, self._incoming = (self._incoming + part).split(b"\n")
                found += whole
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        try:
            return [json.loads(each) for each in found if each]
        except ValueError:  # nobody of ours
            self.closed = True
            return []

    def close(self) -> None:
        """Say no more."""
        self.closed = True
        with contextlib.suppress(OSError):
            self.socket.close()


class Peers:
    """The others, as one of the processes sees them. `Hub` for the first, `Spoke` for the others."""

    def __init__(self, rank: int, count: int, *, timeout: float) -> None:
        """Args: this process's number; how many there are; seconds of silence after which one counts as dead."""
        self.rank, self.count, self.timeout = rank, count, timeout
        self.everybody = threading.Event()
        """Set once all have come."""
        self.ending = False
        """Whether the main thread is on its way out, so that nothing is to be told or ended any more."""
        self._beat = min(_BEAT, timeout / 8)
        self._selector = selectors.DefaultSelector()
        self._changed = threading.Condition()
        self._wakes, self._waker = socket.socketpair()
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="prefdyn-peers", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def share(self, value: Any) -> Any:
        """A value of plain JSON that the first process decides on: its own there, the same in all others."""
        raise NotImplementedError

    def fail(self, reason: str) -> None:
        """Tell the others that this process fails, before it ends."""
        raise NotImplementedError

    def leave(self) -> None:
        """Tell the others that this process is done, so that nobody misses it."""
        raise NotImplementedError

    def await_verdict(self) -> None:
        """Wait for the watching thread to find out who is lost, where the connection to somebody broke.

        It ends the process. Returns where everybody is there.
        """
        time.sleep(self.timeout + 5 * self._beat)

    def called(self, rank: int) -> str:
        """A process's name in messages."""
        return f"rank {rank} of {self.count}"

    def close(self) -> None:
        """Watch no more, and let go of all connections."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._waker.send(b".")
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2 * self._beat)
        self._selector.close()
        for each in (self._wakes, self._waker):
            each.close()

    # the thread ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        before = beaten = time.monotonic()
        while not self._stopped:
            try:
                self._selector.select(self._beat)
            except (OSError, ValueError):  # a connection was closed meanwhile
                time.sleep(self._beat / 10)
            now = time.monotonic()
            if now - beaten >= self._beat:
                beaten = now
                self._each(None)
            self._round(min(now - before, 2 * self._beat))
            before = now

    def _round(self, awake: float) -> None:
        raise NotImplementedError

    def _each(self, value: Any) -> None:
        """Send a value, or a sign of life, to all."""
        raise NotImplementedError

    def _drop(self, line: Connection) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(line.socket)
        line.close()

    def _add(self, line: Connection) -> None:
        self._selector.register(line.socket, selectors.EVENT_READ)

    def _end(self, said: str, *, grace: float = 0.0) -> None:
        """End this process, unless it is about to end by itself."""
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and not self.ending:
            time.sleep(0.05)
        if self.ending:
            self._stopped = True
            return
        line = f"prefdyn: {said}; {self.called(self.rank)} ends too; {KEPT}\n"
        with contextlib.suppress(OSError):
            if sys.stderr is not None and os.isatty(2):  # a bar may stand there
                line = "\n" + line
            os.write(2, line.encode(errors="replace"))
        os._exit(1)

    def _failed(self, rank: int, reason: str) -> str:
        return f"{self.called(rank)} failed ({' '.join(reason.split())})"

    def _closed(self, rank: int) -> str:
        return f"{self.called(rank)} has ended without a word, as a process that is killed does"

    def _silent(self, rank: int) -> str:
        return (
            f"{self.called(rank)} has given no sign of life for {self.timeout:g} s (stopped, starved or out of reach; "
            "PREFDYN_PEER_TIMEOUT gives it longer)"
        )


class Hub(Peers):
    """The first process, to which all others are connected."""

    def __init__(self, count: int, *, timeout: float, key: str) -> None:
        """Args: how many processes there are; seconds of silence; what those who come must know."""
        super().__init__(0, count, timeout=timeout)
        self._key = key
        self._listener = _listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]
        self._strangers: list[Connection] = []
        self._lines: dict[int, Connection] = {}
        self._said: list[Any] = []

    @property
    def missing(self) -> list[int]:
        """Numbers of those who have not come."""
        return [rank for rank in range(1, self.count) if rank not in self._lines]

    def share(self, value: Any) -> Any:
        """Tell it to all others."""
        self._each({"say": value})
        return value

    def fail(self, reason: str) -> None:
        """As `Peers.fail`."""
        self.ending = True
        self._each({"failed": [0, reason]})
        self._farewell(_FAREWELL)

    def leave(self) -> None:
        """As `Peers.leave`; waits until all have heard it, since they lose their connection."""
        self.ending = True
        self._each({"over": True})
        self._farewell(_FAREWELL)

    def _farewell(self, seconds: float) -> None:
        """Until the others have closed their ends, so that no last word is lost."""
        for _ in _until(seconds):
            if self._stopped or all(line.closed for line in self._lines.values()):
                break
        self.close()

    def close(self) -> None:
        """As `Peers.close`."""
        super().close()
        for line in [*self._strangers, *self._lines.values()]:
            line.close()
        self._listener.close()

    def _each(self, value: Any) -> None:
        for line in list(self._lines.values()):
            if not line.closed and not (value is None and line.left):
                line.send(value)

    def _round(self, awake: float) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._strangers.append(line := Connection(connection))
                self._add(line)
        for line in list(self._strangers):
            line.silent += awake
            for message in line.receive()[:1]:
                self._introduced(line, message)
            if line in self._strangers and (line.closed or line.silent > _HELLO):
                self._strangers.remove(line)
                self._drop(line)
        for rank, line in list(self._lines.items()):
            if not line.closed:
                self._hear(rank, line, awake)

    def _introduced(self, line: Connection, message: Any) -> None:
        rank = message.get("hello") if isinstance(message, dict) and message.get("key") == self._key else None
        if not isinstance(rank, int) or not 0 < rank < self.count:
            line.closed = True
            return
        if rank in self._lines:
            line.send({"failed": [0, f"another process came as {self.called(rank)} before; give each its own RANK"]})
            return
        self._strangers.remove(line)
        self._lines[rank] = line
        if not self.missing:
            self.everybody.set()
            self._each({"all": True})

    def _hear(self, rank: int, line: Connection, awake: float) -> None:
        line.silent += awake
        for message in line.receive():
            match message:
                case {"left": _}:
                    line.left = True
                    line.send({"bye": True})
                case {"failed": [_, str(reason)]}:
                    line.left = True
                    line.send({"bye": True})
                    self._end_all({"failed": [rank, reason]}, self._failed(rank, reason), grace=_GRACE)
        if line.closed:
            self._drop(line)
            if not line.left:
                self._end_all({"closed": rank}, self._closed(rank))
        elif line.silent > self.timeout and not line.left:
            self._drop(line)
            self._end_all({"silent": rank}, self._silent(rank))

    def _end_all(self, verdict: Any, said: str, *, grace: float = 0.0) -> None:
        if self.ending:
            return
        self._each(verdict)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and any(not line.closed for line in self._lines.values()):
            for line in self._lines.values():
                line.receive()
            time.sleep(0.02)
        self._end(said, grace=grace)


class Spoke(Peers):
    """Any other process, connected to the first."""

    def __init__(self, rank: int, count: int, *, timeout: float, key: str, connection: socket.socket) -> None:
        """Args: its number; how many; seconds of silence; what the hub asks for; the connection to it."""
        super().__init__(rank, count, timeout=timeout)
        self._line = Connection(connection)
        self._add(self._line)
        self._heard: list[Any] = []
        self._shared = 0
        self._over = False
        self._line.send({"hello": rank, "key": key})

    def share(self, value: Any) -> Any:
        """What the first process says, once it has said it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._heard) > self._shared or self._over)
            if len(self._heard) == self._shared:
                raise ProcessError(f"{self.called(0)} is done before {self.called(self.rank)}; start all anew")
            self._shared += 1
            return self._heard[self._shared - 1]

    def fail(self, reason: str) -> None:
        """As `Peers.fail`."""
        self._last_word({"failed": [self.rank, reason]})

    def leave(self) -> None:
        """As `Peers.leave`."""
        self._last_word({"left": True})

    def _last_word(self, word: Any) -> None:
        self.ending = True
        self._line.send(word)
        for _ in _until(_FAREWELL):
            if self._line.closed:
                break
        self.close()

    def close(self) -> None:
        """As `Peers.close`."""
        super().close()
        self._line.close()

    def _each(self, value: Any) -> None:
        if not self._line.closed:
            self._line.send(value)

    def _round(self, awake: float) -> None:
        line = self._line
        if line.closed:
            return
        line.silent += awake
        for message in line.receive():
            self._hear(message)
        if line.closed:
            self._done()
            if not self._over:
                self._end(self._closed(0))
        elif line.silent > self.timeout:
            self._done()
            self._end(self._silent(0))

    def _hear(self, message: Any) -> None:
        match message:
            case {"all": _}:
                self.everybody.set()
            case {"say": value}:
                with self._changed:
                    self._heard.append(value)
                    self._changed.notify_all()
            case {"over": _} | {"bye": _}:
                self._over = True
                self._done()
            case {"failed": [int(rank), str(reason)]}:
                self._done()
                self._end(self._failed(rank, reason), grace=_GRACE)
            case {"closed": int(rank)}:
                self._done()
                self._end(self._closed(rank))
            case {"silent": int(rank)}:
                self._done()
                self._end(self._silent(rank))

    def _done(self) -> None:
        """Close this end, which tells the hub that its last word was heard."""
        self._drop(self._line)
        with self._changed:
            self._changed.notify_all()


def _listen() -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            made = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            made.setblocking(False)
            return made
    made = socket.create_server(("", 0))
    made.setblocking(False)
    return made


def reach(host: str, port: int, *, seconds: float) -> socket.socket | None:
    """A connection to a port, once somebody listens there; None where nobody does in time."""
    for left in _until(seconds):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port), timeout=max(0.1, min(left, 5.0)))
    return None


def _until(seconds: float) -> Iterator[float]:
    """Seconds left, again and again."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(0.05, left))
