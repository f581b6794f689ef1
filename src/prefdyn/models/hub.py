"""The model hub: whether it answers at all, decided once and soon, and what the local hub cache holds of a model.

Left to themselves, the libraries try an unreachable hub five times for each file that they look for.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

SECONDS = 4.0
"""Time within which the hub must answer, name lookup included."""


def is_offline(seconds: float = SECONDS) -> bool:
    """Whether the hub is not to be used (HF_HUB_OFFLINE), or does not answer within some seconds."""
    if constants.HF_HUB_OFFLINE:
        return True
    answered: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=seconds)
            answered.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # a name lookup knows no limit of its own
    asking.start()
    asking.join(seconds)
    return not answered


def cached_file(hub_id: str, name: str, revision: str | None) -> Path | None:
    """A file of a model in the local hub cache; None where it is not there."""
    with contextlib.suppress(Exception):
        found = huggingface_hub.try_to_load_from_cache(hub_id, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


@contextlib.contextmanager
def kept_offline(offline: bool) -> Iterator[None]:
    """No library asks the hub for as long as the block lasts, where `offline`."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
