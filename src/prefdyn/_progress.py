"""Progress of what takes long, on stderr, and nothing where stderr is no terminal.

Loops have a bar with rate and time left. Steps that are no loops have a line, once they have lasted two seconds.
"""

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_FRAMEWORKS = "Loading torch and transformers (5 to 15 seconds where they were not used lately)"
QUIET = 2.0
"""Seconds that anything may last without a word."""


@contextlib.contextmanager
def step(label: str, *, shown: bool = True) -> Iterator[None]:
    """Say on stderr what is being done, where it takes longer than two seconds, and then what it took.

    Args:
        label: What is done, and where it can be said how long or how much of it.
        shown: False for not a word.

    Example:
        >>> with step("Counting"):
        ...     pass
    """
    if not (shown and sys.stderr.isatty()):
        yield
        return
    start = time.monotonic()
    timer = threading.Timer(QUIET, lambda: _say(f"{label} …"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if (spent := time.monotonic() - start) > QUIET:
        _say(f"{label.partition(' (')[0]}: took {duration(spent)}")


@contextlib.contextmanager
def frameworks(*, shown: bool = True, for_good: bool = False) -> Iterator[None]:
    """A step around the imports of torch and transformers, in which no garbage is looked for.

    They make half a million objects, all of which stay; to go through these again and again is a seventh of the work.

    Args:
        shown: False for not a word.
        for_good: Never look through what is there by then again: in a process of our own, in which all of it stays.

    Example:
        >>> with frameworks():
        ...     gc.isenabled()
        False
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with step(_FRAMEWORKS, shown=shown):
            yield
        if for_good:
            gc.freeze()
    finally:
        if collects:
            gc.enable()


def track(items: Sequence[T], label: str, *, unit: str, shown: bool = True) -> Iterator[T]:
    """The items one by one, with a bar that names what is done, how many a second, and the time left.

    Args:
        items: What is worked through.
        label: What is being done, such as "Separation".
        unit: What one item is, in the plural, such as "groups".
        shown: False for no bar at all.

    Example:
        >>> list(track([1, 2], "Counting", unit="numbers"))  # not a terminal: no bar
        [1, 2]
    """
    if not (shown and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}, {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=len(items), unit=unit, rate="–")
        for item in items:
            yield item
            progress.advance(task)
            speed = progress.tasks[task].speed
            progress.update(task, rate=f"{speed:.3g}/s" if speed else "–")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(3.4), duration(300), duration(20_000)
        ('3 s', '5 min', '6 h')
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{round(seconds / 3600)} h"
