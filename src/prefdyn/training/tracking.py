"""TensorBoard events of a run, under TRL's metric names, and the same per group as `NAME/<group>`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefdyn.errors import DataError, MissingExtra, StoreError

MEANS = {
    "loss": "loss",
    "margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
    "chosen_log_prob": "logps/chosen",
    "rejected_log_prob": "logps/rejected",
    "policy_accuracy": "policy_accuracies",
    "chosen_falling": "chosen_falling",
}
"""Column of a Trajectory → name, for means over pairs, which the mean over all groups follows from. The last two are
ours alone."""
REWARDS = {"chosen_change": "rewards/chosen", "rejected_change": "rewards/rejected"}
"""The same for changes of a log-probability, which TRL's rewards are beta times."""
OTHERS = ("gradient_norm", "distinguishability", "concentration", "trace")
"""Columns that mean something for one group alone."""
_PREFIXES = {"train": "", "held_out": "eval_"}


class EventWriter:
    """Writes scalars as TensorBoard reads them. What is logged is on the disk when `log` returns.

    Where the folder holds events of a run that was broken off, those from the first step that is logged now, or beyond
    the step that was resumed from, are no longer shown.
    """

    def __init__(self, folder: Path, *, beta: float | None = None, resumed: int | None = None) -> None:
        """Open a folder for events; the file in it begins with what is logged first.

        Args:
            folder: Made if absent.
            beta: Of the objective, for `rewards/chosen` and `rewards/rejected`; None: they are left out.
            resumed: Step of the checkpoint that the run continues from, where it does.

        Raises:
            MissingExtra: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra(
                "TensorBoard events need the package tensorboard: pip install tensorboard, or leave --tensorboard out"
            ) from error
        self.folder, self.beta = Path(folder), beta
        self._kind: Any = SummaryWriter
        self._writer: Any = None
        self._purge = None if resumed is None else resumed + 1

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Write the values of one step; None is left out.

        Raises:
            StoreError: They cannot be written.
        """
        try:
            if self._writer is None:
                old = self.folder.is_dir() and any(self.folder.iterdir())
                purge = (step if self._purge is None else self._purge) if old else None
                self._writer = self._kind(str(self.folder), purge_step=purge)
            for name, value in metrics.items():
                if value is not None:
                    self._writer.add_scalar(name, float(value), step)
            self._writer.flush()
        except OSError as error:
            raise StoreError(
                f"TensorBoard events cannot be written to {self.folder} ({error.strerror}); free space, or leave "
                "--tensorboard out"
            ) from error

    def track(self, step: int, rows: Iterable[Mapping[str, Any]], figures: Mapping[str, Any]) -> None:
        """Write what a run tells of a recorded step; `train` and `run_training` take this as `track`.

        Args:
            step: Updates so far.
            rows: Those of the Trajectory at this step.
            figures: Of the last batch. Where `rows` have a metric of the same name, it becomes `batch/NAME`.
        """
        self.log(step, merged(metric_names(rows, beta=self.beta), figures))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def merged(metrics: Mapping[str, float], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of groups, and figures of the last batch: those that share a name, and its pairs, as `batch/NAME`.

    Example:
        >>> merged({"loss": 0.5}, {"step": 3, "loss": 0.6, "lr": 0.1})
        {'loss': 0.5, 'batch/loss': 0.6, 'lr': 0.1}
    """
    found: dict[str, Any] = dict(metrics)
    for name, value in figures.items():
        if name != "step":
            found[f"batch/{name}" if name in metrics or name == "pairs" else name] = value
    return found


def metric_names(rows: Iterable[Mapping[str, Any]], *, beta: float | None = None) -> dict[str, float]:
    """Rows of a Trajectory at one step as metrics: TRL's names per group, and over all groups.

    Training pairs give `rewards/margins/<group>`, held-out ones `eval_rewards/margins/<group>`; without the group, the
    mean over all pairs, where every group was measured. What was not measured is left out.

    Args:
        rows: Of one step; those of groups trained alone are passed over.
        beta: Of the objective, for `rewards/chosen` and `rewards/rejected`; None: they are left out.

    Raises:
        DataError: The rows are of several steps, or a split is unknown.

    Example:
        >>> same = {"run": "joint", "step": 5, "split": "train"}
        >>> metric_names([
        ...     {**same, "group": "kind", "pairs": 3, "margin": 1.0},
        ...     {**same, "group": "true", "pairs": 1, "margin": 0.0},
        ... ])
        {'rewards/margins/kind': 1.0, 'rewards/margins/true': 0.0, 'rewards/margins': 0.75}
    """
    rows = [row for row in rows if row.get("run", "joint") == "joint"]
    if len(steps := {row["step"] for row in rows}) > 1:
        raise DataError(f"metrics are of one step, but these rows are of {sorted(steps)}; give those of one")
    columns = {column: (name, 1.0) for column, name in MEANS.items()}
    if beta is not None:
        columns |= {column: (name, beta) for column, name in REWARDS.items()}
    found: dict[str, float] = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        if split not in _PREFIXES:
            raise DataError(f"split {split!r} is unknown; known: {', '.join(_PREFIXES)}")
        found |= _of_split([row for row in rows if row["split"] == split], _PREFIXES[split], columns)
    drift = next((row["drift"] for row in rows if row.get("drift") is not None), None)
    return found if drift is None else {**found, "drift": drift}


def tag(group: str) -> str:
    """A group's name as the last part of a metric's name: one part, printable, and another one for every group.

    Example:
        >>> tag("very kind"), tag("a/b"), tag("100%"), tag("")
        ('very kind', 'a%2Fb', '100%25', '%')
    """
    coded = (
        char if char.isprintable() and char not in "/%" else quote(char, safe="", errors="surrogatepass")
        for char in group
    )
    return "".join(coded) or "%"


def _of_split(rows: list[Mapping[str, Any]], prefix: str, columns: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    whole = sum(row["pairs"] for row in rows)
    for column, (name, factor) in columns.items():
        known = [(row, factor * row[column]) for row in rows if row.get(column) is not None]
        found |= {f"{prefix}{name}/{tag(row['group'])}": value for row, value in known}
        if known and len(known) == len(rows):
            found[f"{prefix}{name}"] = sum(row["pairs"] * value for row, value in known) / whole
    for column in OTHERS:
        measured = (row for row in rows if row.get(column) is not None)
        found |= {f"{prefix}{column}/{tag(row['group'])}": row[column] for row in measured}
    return found
