"""How many threads the linear algebra of one group may use."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

_SMALL = 2**24
"""Matrices up to this many numbers are worked on by one thread."""


def small_work(cells: int) -> AbstractContextManager[object]:
    """One BLAS thread for small matrices, all of them for large ones.

    Many small factorisations on several threads spend their time waiting for each other: on two busy cores, 88
    groups of 1000 × 128 took 15 times as long as on one thread.

    Args:
        cells: Rows × columns of the largest matrix at hand.

    Example:
        >>> with small_work(10):
        ...     pass
    """
    if cells > _SMALL:
        return nullcontext()
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    """Looked for once: going through all loaded libraries takes milliseconds, and there may be thousands of groups."""
    return ThreadpoolController()
