"""Progress of long loops: a bar with rate and time left on stderr, quiet where stderr is no terminal."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


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
