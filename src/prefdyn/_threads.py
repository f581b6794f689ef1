"""How many threads linear algebra may use: one where the work is small.

Threads that share a small matrix mostly wait for each other, and where other processes want the processors, too, they
wait long: an audit of 4,000 pairs beside one busy process spent six times the processor seconds, and as much longer. On
one thread the last digits of a sum are the same on a machine of any number of processors, besides.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

_SMALL = 2**24
"""Matrices up to this many numbers are worked on by one thread,"""
_BRIEF = 2**26
"""and so are products of up to this many multiplications: a few milliseconds."""


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
    return nullcontext() if cells > _SMALL else _one_thread()


def brief_products(multiplications: int) -> AbstractContextManager[object]:
    """One BLAS thread for many products that take little time each, all of them for long ones.

    Args:
        multiplications: Of the largest product at hand: rows × inner width × columns.

    Example:
        >>> with brief_products(4000 * 128 * 5):
        ...     pass
    """
    return nullcontext() if multiplications > _BRIEF else _one_thread()


def _one_thread() -> AbstractContextManager[object]:
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    """Looked for once: going through all loaded libraries takes milliseconds, and there may be thousands of groups."""
    import scipy.linalg  # noqa: F401  # its BLAS is not NumPy's, and is only seen once it is there

    return ThreadpoolController()
