"""What `prefdyn score` writes: the scored pairs as TRL reads them, and a summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import parquet

from prefdyn._json import SCHEMA_VERSION, plain, write_json
from prefdyn.models.score import Scores


def score_summary(
    scores: Scores,
    *,
    left_out: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    timings: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        scores: The scored pairs.
        left_out: Bad rows of the source, beside the pairs that could not be scored.
        settings: Settings of the command besides those of the scores.
        timings: Seconds by name.
    """
    origin = scores.provenance
    chosen = {**origin.settings, **(settings or {})}
    return plain(
        {
            "schema": SCHEMA_VERSION,
            "command": "score",
            "provenance": {**origin.to_json(), "settings": chosen, "seed": chosen.get("seed")},
            "dataset": {
                "name": origin.data.get("name", "pairs"),
                "pairs": len(scores),
                "groups": len(scores.groups),
                "sha256": origin.data.get("sha256"),
                "left_out": [*left_out, *scores.left_out],
            },
            "model": dict(origin.model),
            "settings": chosen,
            "groups": scores.rows(),
            "warnings": list(scores.warnings),
            "timings": dict(timings or {}),
        }
    )


def write_scores(folder: Path, scores: Scores, summary: Mapping[str, Any]) -> None:
    """Write scores.parquet and summary.json into a folder not yet in its final place."""
    parquet.write_table(scores.table, folder / "scores.parquet")
    write_json(folder / "summary.json", summary)
