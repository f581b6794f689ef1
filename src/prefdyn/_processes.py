"""How many processes a launcher started for one command, and which of them this one is.

`accelerate launch` and torchrun say so in RANK and WORLD_SIZE, and where the first process is to be met in MASTER_ADDR
and MASTER_PORT. Everybody who wants to know reads it here, so that no two parts of a process think differently of it.
"""

import math
import os

from prefdyn.errors import ConfigError

PEER_TIMEOUT = 40.0
"""Seconds after which a process that gives no sign of life counts as dead."""
_TIMEOUT_VARIABLE = "PREFDYN_PEER_TIMEOUT"
_ARRIVAL = 1.5
"""Time to wait for processes that have not come yet, in units of the same: 60 s."""
_LAUNCH = "start it with `accelerate launch` or torchrun, which set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
_ALONE = "or unset WORLD_SIZE for one process"


def processes() -> tuple[int, int]:
    """This process's number, from 0, and how many there are: (0, 1) unless a launcher started several.

    Raises:
        ConfigError: The launcher's variables are missing or contradict each other.
    """
    count = _whole("WORLD_SIZE", low=1, fix=f"give the number of processes, {_ALONE}")
    if count is None:
        return 0, 1
    rank = _whole("RANK", low=0, fix=f"give this process's number, from 0 to {count - 1}, {_ALONE}")
    if rank is None:
        if count == 1:
            return 0, 1
        raise ConfigError(
            f"WORLD_SIZE is {count}, but RANK is not set, so no process is the first; {_LAUNCH}, {_ALONE}"
        )
    if rank >= count:
        raise ConfigError(
            f"RANK is {rank}, but with WORLD_SIZE {count} it must be from 0 to {count - 1}; give this process's "
            f"number, {_ALONE}"
        )
    if count > 1:
        meeting_point()
    return rank, count


def is_main_process() -> bool:
    """Whether this is the first process, which alone decides about folders and writes results.

    Raises:
        ConfigError: As `processes`.
    """
    return processes()[0] == 0


def meeting_point() -> tuple[str, int]:
    """Host and port where the first process is met.

    Raises:
        ConfigError: MASTER_ADDR or MASTER_PORT is missing or means nothing.
    """
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name, "").strip():
            raise ConfigError(
                f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but {name} is not set, so the processes cannot meet; "
                f"{_LAUNCH}, {_ALONE}"
            )
    port = _whole("MASTER_PORT", low=1, fix="give a free port of the first process's machine, such as 29500")
    if port is None or port > 65535:
        raise ConfigError(
            f"MASTER_PORT is {port}, but ports end at 65535; give a free port of the first process's machine, such as "
            "29500"
        )
    return os.environ["MASTER_ADDR"].strip(), port


def refuse_several(command: str) -> None:
    """See that this is the only process.

    Args:
        command: As typed, for the error.

    Raises:
        ConfigError: A launcher started several, or its variables are wrong.
    """
    _, count = processes()
    if count > 1:
        raise ConfigError(
            f"`{command}` runs in one process, but WORLD_SIZE is {count}; start it without a launcher, {_ALONE}"
        )


def peer_timeout() -> float:
    """Seconds without a sign of life after which a process counts as dead: $PREFDYN_PEER_TIMEOUT, or 40.

    Raises:
        ConfigError: The variable is no number above 0.
    """
    given = os.environ.get(_TIMEOUT_VARIABLE, "").strip()
    if not given:
        return PEER_TIMEOUT
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(
            f"{_TIMEOUT_VARIABLE} is {given!r}, but must be a number of seconds above 0; give one such as 300 for a "
            f"slow cluster, or unset it for {PEER_TIMEOUT:g}"
        )
    return seconds


def arrival_timeout() -> float:
    """Seconds to wait for processes that have not come yet: 60, longer or shorter with `peer_timeout`."""
    return _ARRIVAL * peer_timeout()


def _whole(name: str, *, low: int, fix: str) -> int | None:
    """A variable's whole number; None where it is not set."""
    given = os.environ.get(name, "").strip()
    if not given:
        return None
    try:
        value = int(given)
    except ValueError:
        value = low - 1
    if value < low:
        raise ConfigError(f"{name} is {given!r}, but must be a whole number of at least {low}; {fix}")
    return value
