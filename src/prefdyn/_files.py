"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path

from prefdyn.errors import StoreError


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


def beside(path: Path, what: str) -> Path:
    """A hidden name of its own in the same folder, so that a rename is all it takes."""
    return path.parent / f".{path.name}.{secrets.token_hex(6)}.{what}"
