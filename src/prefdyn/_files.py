"""Files that appear whole or not at all."""

import contextlib
import os
from pathlib import Path

from prefdyn._cache import beside
from prefdyn.errors import StoreError

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that its name holds the old content or the whole new one, never a part.

    Raises:
        StoreError: The file cannot be written.
    """
    try:
        partial = beside(path, "partial")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); free space or choose another folder") from error


def shown_bytes(count: float) -> str:
    """A number of bytes with three digits and its unit.

    Example:
        >>> shown_bytes(512), shown_bytes(3 << 20), shown_bytes(5.43e9)
        ('512 bytes', '3 MiB', '5.06 GiB')
    """
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.3g} {_UNITS[power]}"
