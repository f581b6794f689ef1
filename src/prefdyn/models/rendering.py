"""Chat templates, which come with a model and are programs: rendered within limits of time, memory and length.

The library runs them in a sandbox that keeps them from files and from Python, but not from running for ever or from
building gigabytes. Only the rendering is limited; tokenizers, with threads of their own, never work under these limits.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None

SECONDS = 10.0
"""Most time for one conversation."""
MEMORY = 1 << 30
"""Most bytes for one conversation, beyond what the process has taken already. On Linux only."""
LENGTH = 1_000_000
"""Characters up to which any rendering is taken."""
RATIO = 100
"""Most characters of a longer rendering, for each one of the conversation."""
_LOCK = threading.Lock()
"""The limits are the process's: one rendering at a time."""


class RenderingError(Exception):
    """A template that was stopped; says at which limit."""


class _Stopped(BaseException):
    """The time is over. Not an Exception, so that nothing below takes it for an error of its own."""


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
    """A conversation as a tokenizer's chat template writes it.

    Args:
        tokenizer: With a chat template.
        messages: The turns.
        add_generation_prompt: End where the assistant begins to speak.

    Raises:
        RenderingError: A limit was reached.
        Exception: Whatever the template raises.
    """
    started = time.monotonic()
    try:
        with _LOCK, _within_memory(), _within_time():
            found = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except _Stopped:
        raise RenderingError(f"is not done after {time.monotonic() - started:.0f} seconds") from None
    except MemoryError:
        raise RenderingError(f"needs more than {MEMORY / 2**30:g} GiB of memory") from None
    if not isinstance(found, str):
        raise TypeError(f"it gives a {type(found).__name__}, not a text")
    if len(found) > LENGTH:
        given = sum(len(str(value)) for message in messages for value in message.values())
        if len(found) > RATIO * given:
            raise RenderingError(f"makes {len(found):,} characters of {given:,}, more than {RATIO} times as many")
    return found


@contextlib.contextmanager
def _within_memory() -> Iterator[None]:
    """The process's address space may grow by `MEMORY` and no more, where the system can be told so."""
    taken = _taken()
    if resource is None or taken is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = min([taken + MEMORY, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _taken() -> int | None:
    """Bytes of the process's address space; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _within_time() -> contextlib.AbstractContextManager[None]:
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _alarm()
    return _watched()


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """`_Stopped` is raised in the block after `SECONDS`, by the system's alarm, which is put back as it was."""
    live = True

    def ring(*_: Any) -> None:
        if live:
            raise _Stopped

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        try:
            yield
        finally:
            live = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if waiting:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, waiting - (time.monotonic() - started)), interval)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """The same outside the main thread, which alone receives signals: another thread raises `_Stopped` in this one."""
    here = ctypes.c_ulong(threading.get_ident())
    lock, live, rang = threading.Lock(), True, False

    def ring() -> None:
        nonlocal rang
        with lock:
            if live:
                rang = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(_Stopped))

    watcher = threading.Timer(SECONDS, ring)
    watcher.daemon = True
    watcher.start()
    try:
        yield
    finally:
        with lock:
            live = False
        watcher.cancel()
        if rang:  # not delivered yet, or it would not have come here
            ctypes.pythonapi.PyThreadState_SetAsyncExc(here, None)
