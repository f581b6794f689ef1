"""Many runs side by side: over processes of this machine, or over a Ray cluster. What is finished is not done again."""

import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

from prefdyn._checks import at_least, one_of
from prefdyn._progress import track
from prefdyn.errors import MissingExtra, PrefdynError, TrainingError
from prefdyn.experiments.run import RecipeRun, with_starts
from prefdyn.experiments.work import RunOutcome, do, finished

LAUNCHERS = ("local", "ray")
_GRACE = 20.0
"""Seconds that a process has to tidy up once the first one is gone."""
Landed = tuple[str, RunOutcome | PrefdynError]
"""A run's key, and what came of it."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launch(
    runs: Sequence[RecipeRun], *, jobs: int = 1, launcher: str = "local", progress: bool = True
) -> tuple[dict[str, RunOutcome | PrefdynError], int]:
    """Do all runs and those that they start from, each once.

    A run that fails does not stop the others; those that start from it fail with the same words.

    Args:
        runs: In any order.
        jobs: Processes of this machine. 1: this one.
        launcher: "local", or "ray" for a cluster whose machines share the cache folder.
        progress: Show a bar with rate and time left where stderr is a terminal.

    Returns:
        Outcome, or the error that ended the run, by key; and how many were found finished.

    Raises:
        ConfigError: The launcher is unknown, or jobs below 1.
        MissingExtra: Ray was asked for and is not installed.
        TrainingError: A process was killed, as the system does where memory runs out.
    """
    at_least(jobs, 1, name="jobs")
    one_of(launcher, LAUNCHERS, name="launcher")
    found: dict[str, RunOutcome | PrefdynError] = {}
    left: dict[str, RecipeRun] = {}
    for key, run in with_starts(runs).items():
        if (outcome := finished(run)) is not None:
            found[key] = outcome
        else:
            left[key] = run
    before = len(found)
    if not left:
        return found, before
    if launcher == "ray":
        landing = _over_ray(left, found)
    elif jobs == 1:
        landing = _here(left, found)
    else:
        landing = _over_processes(left, found, min(jobs, len(left)))
    for _ in track(list(left), "Runs", unit="runs", shown=progress):
        key, came = next(landing)
        found[key] = came
    return found, before


def _here(left: Mapping[str, RecipeRun], found: Mapping[str, Any]) -> Iterator[Landed]:
    for key, run in left.items():
        yield key, _failed_start(run, found) or _tried(run)


def _tried(run: RecipeRun) -> RunOutcome | PrefdynError:
    try:
        return do(run)
    except PrefdynError as error:
        return error


def _failed_start(run: RecipeRun, found: Mapping[str, Any]) -> PrefdynError | None:
    """Why a run cannot begin; None where it can."""
    came = None if run.start is None else found.get(run.start.key)
    if not isinstance(came, PrefdynError):
        return None
    return TrainingError(f"{run.title} starts from a run that failed: {came.typed}")


class _Queue:
    """Runs that wait for what they start from, and those that can go."""

    def __init__(self, left: Mapping[str, RecipeRun], found: Mapping[str, Any]) -> None:
        self.left, self.found = dict(left), found

    def ready(self) -> Iterator[tuple[str, RecipeRun]]:
        """Runs whose start is there, in the order given; each is told once."""
        for key, run in list(self.left.items()):
            if run.start is None or run.start.key in self.found:
                del self.left[key]
                yield key, run


def _gather(
    left: Mapping[str, RecipeRun],
    found: Mapping[str, Any],
    submit: Callable[[RecipeRun], Any],
    await_some: Callable[[list[Any]], list[Any]],
    result: Callable[[Any], RunOutcome | PrefdynError],
) -> Iterator[Landed]:
    """Submit what can go, wait for some, and again."""
    queue, going = _Queue(left, found), {}
    while True:
        for key, run in queue.ready():
            failed = _failed_start(run, found)
            if failed is not None:
                yield key, failed
            else:
                going[submit(run)] = key
        if not going:
            if not queue.left:
                return
            continue
        for done in await_some(list(going)):
            yield going.pop(done), result(done)


# processes -----------------------------------------------------------------------------------------------------------


def _begin(threads: int) -> None:
    """Called in each new process: a share of the cores; the first process alone tells it to stop, and it tidies up."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        given = os.environ.get(name, "")
        os.environ[name] = str(min(threads, int(given)) if given.isdigit() and int(given) else threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    importlib.import_module("torch").set_num_threads(threads)


def _end_with_the_first() -> None:
    """Stop, tidy up, and then stop for good: nobody would read what is done after the first process was killed."""
    first = multiprocessing.parent_process()
    if first is not None:
        multiprocessing.connection.wait([first.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)


def _leave(*_: Any) -> None:
    raise SystemExit(143)


def _worked(run: RecipeRun) -> RunOutcome | PrefdynError:
    """As `_tried`. Told to stop, it ends the process once tidied up, since the pool would make a result of it."""
    try:
        return _tried(run)
    except SystemExit:
        os._exit(143)


def _end(children: Iterable[BaseProcess]) -> None:
    """Ask processes to stop; end those that do not hear, as in a long call into C."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + _GRACE
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()


def _over_processes(left: Mapping[str, RecipeRun], found: Mapping[str, Any], jobs: int) -> Iterator[Landed]:
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(max(1, cores() // jobs),),
    )

    def await_some(futures: list[Future[Any]]) -> list[Future[Any]]:
        return list(wait(futures, return_when=FIRST_COMPLETED).done)

    try:
        yield from _gather(left, found, lambda run: pool.submit(_worked, run), await_some, lambda done: done.result())
    except BrokenProcessPool as error:
        raise TrainingError(
            f"a process ended before its run was done, as happens where memory runs out; take fewer than {jobs} with "
            "--jobs, what is finished is kept"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _end(set(multiprocessing.active_children()) - before)


# ray -----------------------------------------------------------------------------------------------------------------


def _tried_there(run: RecipeRun, environment: Mapping[str, str]) -> RunOutcome | PrefdynError:
    """As `_tried`, on a machine that does not have the first one's environment."""
    os.environ.update(environment)
    return _tried(run)


def _over_ray(left: Mapping[str, RecipeRun], found: Mapping[str, Any]) -> Iterator[Landed]:
    # under `uv run` Ray would have every worker make an environment of its own, without the extras of this one
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("--launcher ray needs Ray: pip install ray, or use --launcher local") from error
    ours = not ray.is_initialized()
    if ours:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    remote = ray.remote(num_cpus=1)(_tried_there)
    environment = {name: os.environ[name] for name in ("PREFDYN_CACHE", "HF_HUB_OFFLINE") if name in os.environ}
    try:
        yield from _gather(
            left,
            found,
            lambda run: remote.remote(run, environment),
            lambda going: ray.wait(going, num_returns=1)[0],
            ray.get,
        )
    finally:
        if ours:
            ray.shutdown()
