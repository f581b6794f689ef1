"""Progress of what takes long, on stderr.

Loops have a bar with rate and time left where stderr is a terminal, and elsewhere a line after two seconds and then
ever more seldom. Steps that are no loops have a line, once they have lasted two seconds.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
FRAMEWORKS = "Loading torch and transformers (5 to 15 seconds where they were not used lately)"
QUIET = 2.0
"""Seconds that anything may last without a word."""
_SELDOM = 3.0
"""Factor between the times at which a loop says where it is."""


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
    if not shown:
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
    if not shown:
        yield from items
        return
    if not sys.stderr.isatty():
        yield from _told(items, label, unit)
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


def _told(items: Sequence[T], label: str, unit: str) -> Iterator[T]:
    teller = Teller(label, len(items), unit)
    for done, item in enumerate(items, start=1):
        yield item
        teller.at(done)


class Teller:
    """A line on stderr where a loop takes long: after two seconds, and then at times that grow by a factor."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.started, self.due = time.monotonic(), QUIET

    def at(self, done: int) -> None:
        """So much is done."""
        spent = time.monotonic() - self.started
        if spent <= self.due or done >= self.total:
            return
        left = duration(spent * (self.total - done) / done)
        _say(f"{self.label}: {done:,} of {self.total:,} {self.unit}, about {left} left")
        self.due = _SELDOM * spent


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
