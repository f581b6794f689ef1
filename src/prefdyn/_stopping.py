"""Ctrl-C and SIGTERM at any moment: tidy up, one line that says what is kept, and the exit code of the signal.

While a command works, a signal raises `Stopped` where the program stands, so that every `finally` is done. Before that,
while libraries load, there is nothing to tidy up and the process ends at once. A program that does not come to its next
line within a few seconds, as in a long call into C, is ended from a thread of its own, and so is one told twice.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_GRACE = 10.0
"""Seconds that a program has to tidy up."""
_SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_NOTHING = "nothing is kept; the same command starts again"


class Stopped(BaseException):
    """This process is to end. It is no `KeyboardInterrupt`, because libraries make other things of that."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    def __init__(self) -> None:
        self.working = False
        self.number: int | None = None
        """Of the signal that came first."""
        self.kept: Callable[[], str] = lambda: _NOTHING


_state = _State()


def install() -> None:
    """Answer SIGINT and SIGTERM from now on, in the main thread, unless the process was started to ignore them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SAID:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reads,), daemon=True).start()
    sys.unraisablehook = _unraisable
    os.register_at_fork(after_in_child=_forget)


def keeps(kept: Callable[[], str]) -> None:
    """Say what would be kept if the process were stopped now, and which command goes on."""
    _state.kept = kept


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Where a signal raises `Stopped`, so that what was begun is tidied up."""
    before, _state.working = _state.working, True
    try:
        yield
    finally:
        _state.working = before


def stopped_by() -> int | None:
    """The signal that this process was told to end by; None where there was none."""
    return _state.number


def end(number: int) -> None:
    """End the process and its children with the signal's exit code and one line."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    try:
        kept = _state.kept()
    except Exception:
        kept = _NOTHING
    said = f"prefdyn: {_SAID.get(number, 'stopped')}; {kept}\n"  # type: ignore[call-overload]
    with contextlib.suppress(OSError):
        os.write(2, said.encode(errors="replace"))
    _end_children()
    if "prefdyn._cache" in sys.modules:
        sys.modules["prefdyn._cache"].leave()
    os._exit(128 + number)


def _end_children() -> None:
    """Of a pool of processes none is to work on for nobody."""
    with contextlib.suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.terminate()


def _answer(number: int, _: Any) -> None:
    first = _state.number is None
    _state.number = number if first else _state.number
    if not first or not _state.working:
        end(number)
    raise Stopped(number)


def _watch(signals: int) -> None:
    while byte := os.read(signals, 1):
        if byte[0] in _SAID:
            time.sleep(_GRACE)
            if _state.number is None:  # the main thread has not come to its next line
                _state.number = byte[0]
            end(byte[0])


def _unraisable(about: Any) -> None:
    """A signal answered in a destructor goes nowhere: answer it again a moment later."""
    if isinstance(about.exc_value, Stopped):
        number, _state.number = about.exc_value.number, None
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(about)


def _forget() -> None:
    """A forked child answers signals as any process does."""
    signal.set_wakeup_fd(-1)
    for number in _SAID:
        signal.signal(number, signal.SIG_DFL)
