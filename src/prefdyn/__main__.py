"""`prefdyn`, and `python -m prefdyn`, which is also what `accelerate launch -m prefdyn` starts."""

import os
import signal
from typing import Any


def main() -> None:
    """Run the command line; signals are answered from the first line on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from prefdyn import _stopping

    _stopping.install()
    from prefdyn.cli import main as run

    run()


def _end(number: int, _: Any) -> None:
    os.write(2, b"prefdyn: stopped before it began\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
