"""Many runs side by side, for scripts that make more of them than one process can."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

Job = tuple[Callable[..., Any], tuple[Any, ...]]


def _threads() -> None:
    import torch

    torch.set_num_threads(1)


def side_by_side(
    jobs: Iterable[Job], processes: int, *, seconds: float | None, then: Callable[[], Iterable[Job]] = lambda: ()
) -> Iterator[str]:
    """Do jobs in so many processes of one thread each, in their order; a line for each that fails or is not begun.

    Args:
        jobs: Functions at the top of a module, and their arguments. They keep what they find themselves.
        processes: With 1, everything is done in this process.
        seconds: No job is begun later than this; None: no limit.
        then: Asked for more jobs whenever one has ended; they go before those that wait.
    """
    until = time.monotonic() + (seconds if seconds is not None else float("inf"))
    waiting = list(jobs)
    if processes == 1:
        while waiting:
            if time.monotonic() > until:
                yield f"not begun: {len(waiting)} jobs"
                return
            work, given = waiting.pop(0)
            work(*given)
            waiting = [*then(), *waiting]
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_threads) as pool:
        running: dict[Future[Any], Job] = {}
        while waiting or running:
            while waiting and len(running) < processes and time.monotonic() < until:
                job = waiting.pop(0)
                running[pool.submit(job[0], *job[1])] = job
            if not running:
                yield f"not begun: {len(waiting)} jobs"
                return
            for each in wait(running, return_when=FIRST_COMPLETED).done:
                work, given = running.pop(each)
                if (error := each.exception()) is not None:
                    yield f"{work.__name__}{given[1:]}: {type(error).__name__}: {error}"
                waiting = [*then(), *waiting]
