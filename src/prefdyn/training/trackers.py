"""Runs in the trackers that accelerate keeps (trackio, wandb, MLflow, …): settings, metrics by TRL's names, page."""

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefdyn._checks import nearest
from prefdyn.errors import ConfigError, MissingExtra, StoreError
from prefdyn.models.team import accelerate_state
from prefdyn.training.tracking import merged, metric_names, tag
from prefdyn.trajectory import Trajectory

_PACKAGES = {"comet_ml": "comet-ml"}
"""What to install, where it is not called as the tracker is."""
_ODD = re.compile(r"[^\w\-. :/]")
"""Letters that MLflow takes in no name of a metric."""


def known() -> tuple[str, ...]:
    """Names of the trackers; TensorBoard has a flag of its own."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return tuple(sorted(name for name in map(str, LOGGER_TYPE_TO_CLASS) if name != "tensorboard"))


def check_installed(name: str) -> None:
    """Refuse a tracker whose package is not there, before any work is done for it.

    Raises:
        MissingExtra: It is not.
    """
    if find_spec(name) is None:
        package = _PACKAGES.get(name, name)
        raise MissingExtra(f"report_to {name} needs the package {package}: pip install {package}")


def _aside() -> contextlib.AbstractContextManager[Any]:
    """What a tracker prints goes to stderr: stdout holds the result alone."""
    return contextlib.redirect_stdout(sys.stderr)


class Tracker:
    """One run in one tracker. `close` ends it."""

    def __init__(
        self,
        name: str,
        *,
        run: str,
        folder: Path,
        beta: float | None,
        settings: Mapping[str, Any],
        device: str = "auto",
    ) -> None:
        """Start the run; its project is "prefdyn", or what the tracker's own variables of the environment say.

        Args:
            name: One of `known`.
            run: What to call the run.
            folder: Where trackers that write files write them.
            beta: Of the objective, for `rewards/chosen` and `rewards/rejected`; None: they are left out.
            settings: Shown beside the run; what is no text, number or truth value goes as text.
            device: Of the run, as asked for.

        Raises:
            ConfigError: There is no such tracker, or it cannot be started.
            MissingExtra: Its package is not installed.
        """
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        if name not in known():
            raise ConfigError(f"report_to {name!r} is no tracker{nearest(name, known())}")
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        called = {"name": run} if name in ("wandb", "trackio") else {"run_name": run} if name == "mlflow" else {}
        where = [str(folder)] if kind.requires_logging_directory else []
        self.name, self.beta = name, beta
        accelerate_state(device)
        plain = {key: value if isinstance(value, str | int | float | bool) else str(value)
                 for key, value in settings.items() if value is not None}  # fmt: skip
        try:
            with _aside():
                self._tracker = kind("prefdyn", *where, **called)
                self._tracker.start()
                self._tracker.store_init_configuration(plain)
        except ImportError as error:
            check_installed(name)
            raise MissingExtra(f"report_to {name} could not be started: {error}") from error
        except Exception as error:
            raise ConfigError(f"report_to {name} could not be started: {error}") from error

    def track(self, step: int, rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> None:
        """Log what a run tells of a recorded step, as `tracking.EventWriter.track` does."""
        self.log(step, merged(metric_names(rows, beta=self.beta), figures))

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Log the values of one step; None is left out.

        Raises:
            StoreError: The tracker does not take them.
        """
        told = {self._named(name): float(value) for name, value in metrics.items() if value is not None}
        try:
            with _aside():
                self._tracker.log(told, step=step)
        except Exception as error:
            raise StoreError(
                f"report_to {self.name} did not take step {step}: {error}; leave --report-to out"
            ) from error

    def page(self, path: Path) -> bool:
        """Keep the page as an artifact of the run; False where the tracker has no place for one.

        Raises:
            StoreError: The tracker does not take it.
        """
        holder, about = self._tracker, {}
        if self.name in ("wandb", "trackio"):
            holder, about = self._tracker.tracker, {"name": "report", "type": "report"}
        if self.name not in ("wandb", "trackio", "mlflow") or not hasattr(holder, "log_artifact"):
            return False
        try:
            with _aside():
                holder.log_artifact(str(path), **about)
        except Exception as error:
            raise StoreError(f"report_to {self.name} did not take the page {path}: {error}; it stays a file") from error
        return True

    def close(self) -> None:
        """End the run."""
        with _aside():
            if self.name == "trackio":  # by accelerate it would stay the current run, and be ended once more at exit
                importlib.import_module("trackio").finish()
            else:
                self._tracker.finish()

    def _named(self, name: str) -> str:
        return _ODD.sub("_", name) if self.name == "mlflow" else name


@contextlib.contextmanager
def trackers(
    names: Sequence[str],
    *,
    run: str,
    folder: Path,
    beta: float | None,
    settings: Mapping[str, Any],
    device: str = "auto",
) -> Iterator[list[Tracker]]:
    """Some trackers, each ended with the block."""
    with contextlib.ExitStack() as stack:
        started = []
        for name in names:
            each = Tracker(name, run=run, folder=folder, beta=beta, settings=settings, device=device)
            stack.callback(each.close)
            started.append(each)
        yield started


def report(each: Tracker, trajectory: Trajectory | None, groups: Sequence[Mapping[str, Any]]) -> None:
    """Log a finished run: its recorded steps by TRL's names, and the table of groups as `groups/COLUMN/GROUP`."""
    last = 0
    if trajectory is not None:
        joint = [row for row in trajectory.rows() if row["run"] == "joint"]
        for last in sorted({row["step"] for row in joint}):
            each.track(last, [row for row in joint if row["step"] == last], {})
    table = {
        f"groups/{column}/{tag(str(row['name']))}": value
        for row in groups
        for column, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    each.log(last, table)
