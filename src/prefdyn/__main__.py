"""`prefdyn`, and `python -m prefdyn`, which is also what `accelerate launch -m prefdyn` starts."""

import atexit
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command line; signals are answered from the first line on, and the end is short."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from prefdyn import _stopping

    _stopping.install()
    from prefdyn.cli import main as run

    codes: list[int] = []
    atexit.register(_leave, codes)  # first of all, so that it comes after all else that is to be done at the end
    try:
        run()
    except SystemExit as stop:
        if isinstance(stop.code, int):
            codes.append(stop.code)
        raise


def _leave(codes: list[int]) -> None:
    """End the process without taking down what it made, which takes a second and a tenth of a gigabyte.

    Args:
        codes: The exit code; none where the interpreter is to end as it does, as on an error that is shown whole.
    """
    if not codes:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return  # the interpreter says so, and has a code of its own for it
    os._exit(codes[0])


def _end(number: int, _: Any) -> None:
    os.write(2, b"prefdyn: stopped before it began\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
