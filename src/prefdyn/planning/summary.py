"""The files that `audit` and `simulate` write besides figures: plain data, assembled from finished results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from pyarrow import parquet

from prefdyn._csv import write_csv
from prefdyn._json import SCHEMA_VERSION, plain, write_json
from prefdyn.diagnostics.inference import share_interval
from prefdyn.dynamics.order import learning_area, places
from prefdyn.features import FeatureSet, describe
from prefdyn.maths.objectives import Objective
from prefdyn.maths.units import mean_of
from prefdyn.planning.group_row import GroupRow
from prefdyn.planning.values import PairValues
from prefdyn.trajectory import Trajectory

PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("ref_chosen_logps", pa.float64()),
        ("ref_rejected_logps", pa.float64()),
        ("agreement", pa.float64()),
        ("group_agreement", pa.float64()),
        ("chosen_push", pa.float64()),
        ("rejected_push", pa.float64()),
        ("ches", pa.float64()),
        ("margin", pa.float64()),
        ("value_own", pa.float64()),
        ("value_all", pa.float64()),
        ("value_worst", pa.float64()),
        ("value_sign", pa.int64()),
        ("label_score", pa.float64()),
        ("agreement_controlled", pa.float64()),
        ("chosen_push_controlled", pa.float64()),
        ("value_own_controlled", pa.float64()),
        ("value_all_controlled", pa.float64()),
        ("findings", pa.list_(pa.string())),
    ]
)
"""Columns of pairs.parquet. `ref_*_logps` are named as TRL reads precomputed references. `ches`: responses only."""
VALUES = ("own", "all", "worst", "sign")
"""Fields of `PairValues` that are columns of pairs.parquet, with `value_` before their names."""


def predictions(
    feats: FeatureSet, run: Trajectory, objective: Objective, unit: Int[np.ndarray, " n"] | None = None
) -> list[GroupRow]:
    """What the joint run does to each group, with the same group alone beside it; NaN where not measurable.

    `predicted_rank` orders groups by the area under their held-out loss, smallest first (ties share the better rank);
    where no pair is held out, by that of the training loss. Errors and intervals of held-out figures are those of
    units (`feats.cluster` unless given), of this very run.
    """
    split = "held_out" if feats.held_out.any() else "train"
    known, areas = feats.cluster if unit is None else unit, []
    rows: list[GroupRow] = []
    last = max(run.margins) if run.margins else None
    for name, inside in zip(feats.groups, feats.by_group(), strict=True):
        held_out = inside[feats.held_out[inside]]
        errors, right = math.nan, (math.nan, math.nan)
        if last is not None and len(held_out):
            margins, own = run.margins[last][held_out], known[held_out]
            errors = mean_of(objective.loss(margins), own).error
            share = mean_of((margins > 0).astype(np.float64), own)
            right = share_interval(share.value, share.units, 0.0 if math.isnan(share.error) else share.error)
        areas.append(learning_area(run, name, split=split))
        rows.append(
            GroupRow(
                name=name,
                pairs=len(inside),
                train_pairs=len(inside) - len(held_out),
                held_out_pairs=len(held_out),
                predicted_final_loss=run.final("loss", group=name),
                predicted_final_margin=run.final("margin", group=name),
                predicted_held_out_loss=run.final("loss", group=name, split="held_out"),
                predicted_held_out_loss_error=errors,
                predicted_held_out_accuracy=run.final("reward_accuracy", group=name, split="held_out"),
                predicted_held_out_accuracy_low=right[0],
                predicted_held_out_accuracy_high=right[1],
                predicted_alone_loss=run.final("loss", group=name, run="alone"),
                predicted_chosen_change=run.final("chosen_change", group=name),
                predicted_rejected_change=run.final("rejected_change", group=name),
                predicted_chosen_falling=run.final("chosen_falling", group=name),
            )
        )
    ranks = places(np.array(areas)).tolist()
    return [
        replace(row, predicted_rank=rank if math.isnan(rank) else int(rank))
        for row, rank in zip(rows, ranks, strict=True)
    ]


def pairs_table(
    feats: FeatureSet,
    *,
    agreement: np.ndarray | None = None,
    group_agreement: np.ndarray | None = None,
    chosen_push: np.ndarray | None = None,
    rejected_push: np.ndarray | None = None,
    ches: np.ndarray | None = None,
    margin: np.ndarray | None = None,
    values: PairValues | None = None,
    label_score: np.ndarray | None = None,
    controlled: Mapping[str, np.ndarray] | None = None,
    findings: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """pairs.parquet: one row per pair, in the order of the features. What was not measured is null."""
    return pairs_columns(
        ids=[str(name) for name in feats.id],
        groups=[feats.groups[code] for code in feats.group],
        held_out=feats.held_out,
        chosen_tokens=feats.chosen_length,
        rejected_tokens=feats.rejected_length,
        ref_chosen_logps=feats.ref_chosen_logps,
        ref_rejected_logps=feats.ref_rejected_logps,
        agreement=agreement,
        group_agreement=group_agreement,
        chosen_push=chosen_push,
        rejected_push=rejected_push,
        ches=ches,
        margin=margin,
        label_score=label_score,
        findings=findings,
        **({} if values is None else {f"value_{name}": getattr(values, name) for name in VALUES}),
        **{f"{name}_controlled": column for name, column in (controlled or {}).items()},
    )


def pairs_columns(
    *,
    ids: Sequence[str],
    groups: Sequence[str],
    held_out: np.ndarray,
    chosen_tokens: np.ndarray,
    rejected_tokens: np.ndarray,
    findings: Mapping[str, Sequence[str]] | None = None,
    **numbers: np.ndarray | None,
) -> pa.Table:
    """The same from columns; those of `PAIRS` that are not given, or None, are null."""
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "group": pa.array(groups, pa.string()),
        "split": pa.array(np.where(held_out, "held_out", "train").tolist(), pa.string()),
        "chosen_tokens": pa.array(chosen_tokens, pa.int32()),
        "rejected_tokens": pa.array(rejected_tokens, pa.int32()),
        "findings": pa.array([list((findings or {}).get(name, ())) for name in ids], pa.list_(pa.string())),
    }
    for name in PAIRS.names:
        if name not in columns:
            values, kind = numbers.get(name), PAIRS.field(name).type
            columns[name] = pa.nulls(len(ids), kind) if values is None else pa.array(values, kind, from_pandas=True)
    return pa.table({name: columns[name] for name in PAIRS.names}, schema=PAIRS)


def header(
    feats: FeatureSet, *, command: str, settings: Mapping[str, Any], left_out: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The parts of summary.json that say what was measured: schema to settings. `left_out`: bad rows of the source."""
    origin = feats.provenance
    return {
        "schema": SCHEMA_VERSION,
        "command": command,
        "provenance": origin.to_json() | {"settings": dict(settings), "seed": settings.get("seed")},
        "dataset": {
            "name": origin.data.get("name", "features"),
            "pairs": len(feats),
            "groups": len(feats.groups),
            "sha256": origin.data.get("sha256"),
            "left_out": [*left_out, *origin.settings.get("left_out", [])],
        },
        "model": dict(origin.model),
        "features": {**describe(feats), "double_norm": bool(origin.settings.get("double_norm", False))},
        "settings": dict(settings),
    }


def together(feats: FeatureSet, parts: Mapping[str, Mapping[str, Any]], without: Mapping[str, str]) -> dict[str, Any]:
    """One summary.json of several parts of a plan on the same features; each part brings its rows of the groups.

    Args:
        feats: The features.
        parts: The summary of each part by its name.
        without: Why a part could not be planned.
    """
    settings = {name: value for one in parts.values() for name, value in one["settings"].items()}
    count = np.bincount(feats.group[~feats.held_out], minlength=len(feats.groups))
    groups = [{"name": name, "pairs": int(many)} for name, many in zip(feats.groups, count, strict=True)]
    plan = {
        name: {**one["plan"][name], "goal": one["settings"].get("goal"), "groups": one["groups"]}
        for name, one in parts.items()
    }
    warnings = [line for one in parts.values() for line in one["warnings"]]
    warnings += [f"no plan of {name}: {why}" for name, why in without.items()]
    settings.pop("goal", None)
    return plain({
        **header(feats, command="plan", settings=settings), "groups": groups, "plan": plan, "bounds": [],
        "warnings": warnings, "timings": {},
    })  # fmt: skip


def resolved_settings(feats: FeatureSet, run: Trajectory, **further: Any) -> dict[str, Any]:
    """Settings of the run, of the extraction that made its features, and `further` ones, in one flat mapping."""
    extraction = {name: value for name, value in feats.provenance.settings.items() if name not in _NOT_SETTINGS}
    return {**extraction, **run.settings, **further}


_NOT_SETTINGS = ("left_out", "warnings", "sketch_error")


def write_files(
    folder: Path, *, summary: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], pairs: pa.Table, run: Trajectory
) -> None:
    """Write summary.json, groups.csv, pairs.parquet and trajectory.parquet into a folder not yet in its final place."""
    write_json(folder / "summary.json", summary)
    write_csv(pa.Table.from_pylist([plain(row) for row in groups]), folder / "groups.csv")
    parquet.write_table(pairs, folder / "pairs.parquet")
    parquet.write_table(run.table, folder / "trajectory.parquet")
