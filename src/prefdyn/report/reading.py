"""How to read the curves of a run: what each is, and what in them asks for a look, with this run's own numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from prefdyn.report.remarks import RULES_OF_CURVES, SEVERITIES, Remark
from prefdyn.report.run_curves import RunCurves
from prefdyn.report.stuck import stuck


def reading(
    summary: Mapping[str, Any],
    trajectory: pa.Table,
    *,
    updates: pa.Table | None = None,
    pairs: pa.Table | None = None,
) -> list[Remark]:
    """What in a run's curves asks for a look, the most serious first; nothing where nothing does.

    Args:
        summary: The content of summary.json; its settings and kind of features are read.
        trajectory: The run, with the columns of a Trajectory.
        updates: One row per update with TRL's names of metrics (steps.csv of a training run), where there is one.
        pairs: pairs.parquet, for the lengths of responses.
    """
    run = RunCurves.of(summary, trajectory, updates, pairs)
    found = [remark for rule in (stuck, *RULES_OF_CURVES) if (remark := rule(run)) is not None]
    return sorted(found, key=lambda remark: SEVERITIES.index(remark.severity))


def remark_sentence(remarks: Sequence[Remark]) -> str:
    """How many remarks of each kind there are, with the titles of those that are more than a note.

    Example:
        >>> remark_sentence([])
        'Nothing in these curves asks for a look.'
    """
    if not remarks:
        return "Nothing in these curves asks for a look."
    counts = [(kind, sum(remark.severity == kind for remark in remarks)) for kind in SEVERITIES]
    told = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts if count)
    serious = [remark.title[0].lower() + remark.title[1:] for remark in remarks if remark.severity != "note"]
    return f"On these curves: {told}" + (f" ({'; '.join(serious)})." if serious else ".")
