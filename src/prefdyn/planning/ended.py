"""What a run that was made says of its end: margins, held-out pairs, and what it trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.training.settings import read_objective


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """The end of a run, in the order of the features; `plan_undo` takes it from there."""

    margins: Float[np.ndarray, " n"]
    """After the last step, by the run's own beta; NaN where a pair it trained on was not measured."""
    held_out: Bool[np.ndarray, " n"]
    tune: str
    """"last-layer", "lora" or "full"."""
    objective: Objective


def ended_run(feats: FeatureSet, pairs: pa.Table | None, settings: Mapping[str, Any], *, folder: Path) -> EndedRun:
    """Read the end of a run for the pairs of some features.

    Args:
        feats: Pairs that the run knows.
        pairs: pairs.parquet of the run: `id`, `split` and `margin` after its last step.
        settings: Those of the run, as its summary has them.
        folder: Where it is from, for messages.

    Raises:
        DataError: The run was of other pairs, or measured none that it held out.
        ConfigError: Its objective is none of ours.
    """
    if pairs is None or "margin" not in pairs.column_names:
        raise DataError(f"{folder} has no pairs.parquet with margins; give a folder of `prefdyn train`")
    place = {str(name): row for row, name in enumerate(pairs["id"].to_pylist())}
    missing = [str(name) for name in feats.id if str(name) not in place]
    if missing:
        raise DataError(
            f"{folder} was trained on other pairs: it does not know {missing[0]!r} and {len(missing) - 1} more; give "
            "the same --data, --groups and --limit"
        )
    order = [place[str(name)] for name in feats.id]
    margins = np.asarray(pairs["margin"].to_numpy(zero_copy_only=False), dtype=np.float64)[order]
    held_out = (np.asarray(pairs["split"].to_pylist()) == "held_out")[order]
    known = np.isfinite(margins) | ~held_out
    if not held_out.any() or not known.all():
        raise DataError(f"{folder} measured no pairs that it held out; hold some out with --split, and train again")
    tune = str(settings.get("tune") or "last-layer")
    return EndedRun(margins=margins, held_out=held_out, tune=tune, objective=read_objective(settings))
