"""Chat templates, which come with a model and are programs: rendered within limits of time, memory and length.

The library runs them in a sandbox that keeps them from files and from Python, but not from running for ever or from
building gigabytes. Only the rendering is limited; tokenizers, with threads of their own, never work under these limits.
"""

import contextlib
import ctypes
import datetime
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers.utils import chat_template_utils

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
TOTAL = 100_000_000
"""Characters up to which all renderings of a dataset together are taken whatever their share."""
_GLANCE = 0.05
"""Seconds between two looks at the clock by another thread."""
_LOCK = threading.Lock()
"""The limits are the process's: one rendering at a time."""


class RenderingError(Exception):
    """A template that was stopped; says at which limit."""


class _Stopped(BaseException):
    """The time is over. Not an Exception, so that nothing below takes it for an error of its own."""


class Renderer:
    """Renders conversations by a tokenizer's chat template, each within the limits. Made by `limited`."""

    def __init__(self, tokenizer: Any, clock: "_Clock") -> None:
        self.tokenizer, self.clock = tokenizer, clock

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """One conversation as the template writes it.

        Args:
            messages: The turns.
            add_generation_prompt: End where the assistant begins to speak.
            tools: What the template is told of tools.
            arguments: Further variables of the template.

        Raises:
            RenderingError: A limit was reached.
            Exception: Whatever the template raises.
        """
        started = time.monotonic()
        try:
            self.clock.start()
            try:
                found = self.tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **(arguments or {}),
                )
            finally:
                self.clock.stop()
        except _Stopped:
            raise RenderingError(f"is not done after {time.monotonic() - started:.0f} seconds") from None
        except MemoryError:
            raise RenderingError(f"needs more than {MEMORY / 2**30:g} GiB of memory") from None
        if not isinstance(found, str):
            raise TypeError(f"it gives a {type(found).__name__}, not a text")
        if len(found) > LENGTH:
            given = characters(messages, tools, arguments)
            if len(found) > RATIO * given:
                raise RenderingError(f"makes {len(found):,} characters of {given:,}, more than {RATIO} times as many")
        return found


def characters(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, arguments: Mapping[str, Any] | None
) -> int:
    """How many characters a conversation has that a template is given."""
    values = (value for message in messages for value in message.values())
    return sum(len(str(value)) for value in (*values, *(tools or ()), *(arguments or {}).values()))


@contextlib.contextmanager
def limited(tokenizer: Any, *, moment: datetime.datetime | None = None) -> Iterator[Renderer]:
    """For as long as the block lasts, the limits hold. For a few hundred conversations: what they give counts as well.

    Args:
        tokenizer: With a chat template.
        moment: What templates that ask for the time are told; the time that it is unless given.
    """
    with _LOCK, _told(moment), _within_memory(), _clock() as clock:
        yield Renderer(tokenizer, clock)


@contextlib.contextmanager
def _told(moment: datetime.datetime | None) -> Iterator[None]:
    """One moment for every rendering, where the library looks at the clock as it does today."""
    known = getattr(chat_template_utils, "datetime", None)
    if moment is None or not isinstance(known, type):
        yield
        return

    class Standing(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    chat_template_utils.datetime = Standing  # type: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        chat_template_utils.datetime = known  # type: ignore[reportAttributeAccessIssue]


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


class _Clock:
    """Raises `_Stopped` in the thread that it was made in where more than `SECONDS` pass between start and stop."""

    def start(self) -> None:
        """From now on."""
        raise NotImplementedError

    def stop(self) -> None:
        """No longer."""
        raise NotImplementedError


def _clock() -> contextlib.AbstractContextManager[_Clock]:
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _alarm()
    return _watched()


class _Alarm(_Clock):
    """By the system's alarm."""

    def __init__(self) -> None:
        self.live = False

    def ring(self, *_: Any) -> None:
        if self.live:
            self.live = False
            raise _Stopped

    def start(self) -> None:
        self.live = True
        signal.setitimer(signal.ITIMER_REAL, SECONDS)

    def stop(self) -> None:
        self.live = False
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _alarm() -> Iterator[_Clock]:
    """The alarm's handler and a time that it is set to already are put back in the end."""
    clock = _Alarm()
    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, clock.ring)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield clock
    finally:
        clock.stop()
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if waiting:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, waiting - (time.monotonic() - started)), interval)


class _Watched(_Clock):
    """By another thread, since only the main one receives signals. A single long operation is not broken off."""

    def __init__(self) -> None:
        self.thread = ctypes.c_ulong(threading.get_ident())
        self.lock = threading.Lock()
        self.deadline: float | None = None
        self.rang = False
        self.done = threading.Event()

    def watch(self) -> None:
        while not self.done.wait(_GLANCE):
            with self.lock:
                if self.deadline is not None and time.monotonic() > self.deadline:
                    self.deadline, self.rang = None, True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(self.thread, ctypes.py_object(_Stopped))

    def start(self) -> None:
        self.rang, self.deadline = False, time.monotonic() + SECONDS

    def stop(self) -> None:
        with self.lock:
            self.deadline = None
        if self.rang:  # where it comes after the work, it is not to come later still
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self.thread, None)


@contextlib.contextmanager
def _watched() -> Iterator[_Clock]:
    clock = _Watched()
    watcher = threading.Thread(target=clock.watch, daemon=True)
    watcher.start()
    try:
        yield clock
    finally:
        clock.done.set()
        watcher.join()
