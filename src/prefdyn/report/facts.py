"""What stands on top of a page and at its end: facts, settings, files, and the rows left out."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from prefdyn._json import number
from prefdyn.report.folders import RunFolder
from prefdyn.report.responses import sketch_fact
from prefdyn.report.tables import minus
from prefdyn.report.text import visible

Fact = tuple[str, str]
"""A label and what is said."""
_LEFT_OUT_SHOWN = 50
_TRAINED = {
    "tune": "Tuned", "objective": "Objective", "optimizer": "Optimizer", "steps": "Steps", "batch_size": "Batch",
    "learning_rate": "Learning rate", "beta": "Beta", "flip": "Labels flipped",
}  # fmt: skip
_SIMULATED = {"steps": "Steps", "learning_rate": "Learning rate", "beta": "Beta"}
_GRID = {"runs": "Settings", "solved": "Different runs"}
_FIELD = {"beta": "Beta", "ref_chosen": "Reference, chosen", "ref_rejected": "Reference, rejected"}
_FILES = ("summary.json", "groups.csv", "weights.csv", "data.csv", "curves.csv", "growth.csv", "select.csv",
          "settings.csv", "undo.csv", "plan.yaml", "dataset.jsonl", "trl.yaml", "trajectory.parquet", "pairs.parquet",
          "modules.parquet", "steps.csv", "config.yaml", "figures", "checkpoints", "model")  # fmt: skip


def facts(run: RunFolder) -> list[Fact]:
    """What was run, in a few numbers."""
    return _FACTS.get(run.kind, lambda run: [*_data(run), *_given(run, _SIMULATED)])(run)


def dataset_name(run: RunFolder) -> str:
    """What the data is called, else the folder."""
    return visible(run.part("dataset", "name") or run.path.name)


def model_name(run: RunFolder) -> str:
    """What the model is called."""
    return visible(run.part("model", "name") or "unknown model")


def settings_tables(run: RunFolder) -> list[tuple[str, list[Fact]]]:
    """Every setting and where the run came from, by heading."""
    parts = (
        ("Settings", run.part("settings")),
        ("Dataset", {k: v for k, v in (run.part("dataset") or {}).items() if k != "left_out"}),
        ("Model", run.part("model")),
        ("Features", {k: v for k, v in (run.part("features") or {}).items() if k != "answers" or v}),
        ("Versions", run.part("provenance", "versions")),
        ("Time", {k.removesuffix("_s"): f"{number(v):.1f} s" for k, v in (run.part("timings") or {}).items()}),
    )
    return [(heading, _rows(values)) for heading, values in parts if isinstance(values, Mapping) and values]


def left_out(run: RunFolder) -> list[str]:
    """Rows of the data that were left out, one line each."""
    lines = []
    for row in run.part("dataset", "left_out") or []:
        if not isinstance(row, Mapping):
            continue
        place = row.get("id") if row.get("id") is not None else f"{row.get('source')}, line {row.get('line')}"
        field = f", {row['field']}" if row.get("field") else ""
        lines.append(visible(f"{place}{field}: {row.get('reason', '')}"))
    if len(lines) > _LEFT_OUT_SHOWN:
        more = f"… and {len(lines) - _LEFT_OUT_SHOWN:,} more; summary.json lists all {len(lines):,}"
        return [*lines[:_LEFT_OUT_SHOWN], more]
    return lines


def files(run: RunFolder) -> list[str]:
    """Names of the files beside the page."""
    listed = run.part("files")
    if isinstance(listed, list) and listed:
        return [visible(name) for name in listed]
    return [f"{name}/" if (run.path / name).is_dir() else name for name in _FILES if (run.path / name).exists()]


# pieces -------------------------------------------------------------------------------------------------------------


def _data(run: RunFolder) -> list[Fact]:
    """How much data there is, and of what kind."""
    pairs, held_out, kind = run.part("dataset", "pairs"), run.part("features", "held_out"), run.part("features", "kind")
    if run.group is not None:
        pairs, held_out = (run.groups[0].get(name) for name in ("pairs", "held_out_pairs"))
    found = [
        ("Pairs", f"{pairs:,}" if isinstance(pairs, int) else "–"),
        ("Groups", f"{len(run.all_groups) or len(run.groups):,}"),
    ]
    if isinstance(held_out, int):
        found.append(("Held out", f"{held_out:,}"))
    if run.responses:
        found += [("Kind", "long responses"), ("Sketch", sketch_fact(run))]
    elif kind:
        answers = [visible(repr(text)) for text in run.part("features", "answers") or []]
        found.append(("Answers", " / ".join(answers[:4]) if answers and kind == "answers" else visible(kind)))
    return found


def _given(run: RunFolder, labels: Mapping[str, str]) -> list[Fact]:
    """Those of the settings that were given and are not off."""
    given = [(label, run.part("settings", key)) for key, label in labels.items()]
    return [
        (label, minus(value) if isinstance(value, float) else "yes" if value is True else visible(value))
        for label, value in given
        if value is not None and value is not False
    ]


def _compared(run: RunFolder) -> list[Fact]:
    """What the two folders are, and what they share."""
    part = run.part("comparison")
    names, folders, commands = (part.get(key) or ["", ""] for key in ("names", "folders", "commands"))
    found = [
        (visible(name), f"{visible(command)}, {visible(folder)}")
        for name, command, folder in zip(names, commands, folders, strict=False)
    ]
    return [*found, ("Data", dataset_name(run)), ("Groups compared", f"{len(run.groups):,}")]


_FACTS: Mapping[str, Callable[[RunFolder], list[Fact]]] = {
    "train": lambda run: [*_data(run), *_given(run, _TRAINED)],
    "grid": lambda run: [*_data(run), *_given(run, _GRID)],
    "field": lambda run: _given(run, _FIELD),
    "comparison": _compared,
}
"""Kinds of folders with facts of their own."""


def _rows(values: Mapping[str, Any]) -> list[Fact]:
    rows = []
    for key, value in values.items():
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif value is None:
            text = "–"
        elif isinstance(value, float):
            text = minus(value, 4)
        elif isinstance(value, int) and key not in {"seed"}:
            text = f"{value:,}"
        elif isinstance(value, list | dict):
            text = visible(json.dumps(value, ensure_ascii=False))
        else:
            text = visible(value)
        rows.append((visible(key).replace("_", " "), text if len(text) <= 300 else text[:299] + "…"))
    return rows
