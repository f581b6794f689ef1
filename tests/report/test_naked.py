"""Every number of the built-in audit's summary.json and page is exact, or has an interval, error or null beside it.

Exact are counts, settings, and what is computed of these very pairs and this model without saying anything of others. A
number that is in neither table fails, and so does one whose interval is gone: a new estimate must come with one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.planning.audit import audit
from prefdyn.report.folders import read_folder
from prefdyn.report.group_table import ENDS, columns, group_rows
from prefdyn.report.html import render
from prefdyn.report.panels import panels

COUNT, SETTING = "a count", "a setting, or what was read"
SAMPLE = "a statistic of these very pairs in this model; nothing is said of other pairs"
STEP = "what the first step does to these very pairs: an inner product of their features"
RUN = "what the simulated run does to these very pairs: it is computed to the end"
ALGEBRA = "a side of a proved statement, or of its conditions, for these numbers"
NULL = "it is a null, a p-value or a constant of one itself"
SURE = "it says how sure another number is"

EXACT: dict[str, str] = {
    "schema": SETTING, "dataset.*": COUNT, "model.*": SETTING, "features.*": COUNT, "settings.*": SETTING,
    "provenance.*": SETTING, "timings.*": "seconds", "findings.[].count": COUNT,
    "groups.[].pairs": COUNT, "groups.[].train_pairs": COUNT, "groups.[].held_out_pairs": COUNT,
    "groups.[].units": COUNT, "groups.[].chosen_tokens": COUNT, "groups.[].rejected_tokens": COUNT,
    "groups.[].concentration": SAMPLE, "groups.[].trace": SAMPLE, "groups.[].concentration_ratio": SAMPLE,
    "groups.[].trace_ratio": SAMPLE, "groups.[].fisher_ratio": SAMPLE, "groups.[].gaussian_kl": SAMPLE,
    "groups.[].kl_shrinkage": SAMPLE, "groups.[].distinguishability_exponent": SAMPLE,
    "groups.[].null_rms": NULL, "groups.[].null_z": NULL, "groups.[].null_p": NULL,
    "groups.[].null_p_adjusted": NULL, "groups.[].auc_p": NULL, "groups.[].signal_p": NULL,
    "groups.[].probe_chance": NULL, "groups.[].stability": SURE,
    "groups.[].first_step_margin": STEP, "groups.[].chosen_push": STEP,
    "groups.[].rejected_push": STEP, "groups.[].chosen_falls_first": STEP,
    "groups.[].predicted_final_loss": RUN, "groups.[].predicted_final_margin": RUN,
    "groups.[].predicted_alone_loss": RUN, "groups.[].predicted_chosen_change": RUN,
    "groups.[].predicted_rejected_change": RUN, "groups.[].predicted_chosen_falling": RUN,
    "diagnostics.order.*.groups": COUNT, "diagnostics.order.*.p": NULL, "diagnostics.order.*.kendall_p": NULL,
    "diagnostics.order.*.low": SURE, "diagnostics.order.*.high": SURE,
    "diagnostics.priority_gap.*": STEP, "diagnostics.influence.*": STEP, "diagnostics.cosine.null": NULL,
    "diagnostics.distances.*": SAMPLE, "diagnostics.geometry.*": SAMPLE, "diagnostics.embedding.*": SAMPLE,
    "answers.[].low": SURE, "answers.[].high": SURE,
    "left_out_by_value.pairs": COUNT, "left_out_by_value.draws": SETTING,
    "labels.planted": SETTING, "labels.first": SETTING,
    "examples.*": STEP, "bounds.*": ALGEBRA, "theory.*": ALGEBRA,
}  # fmt: skip
"""Path → why it needs nothing beside it. `[]`: any place of a list; `*`: any name, at the end all below."""

_HERE = "groups.[]."
BESIDE: dict[str, tuple[str, ...]] = {
    "groups.[].distinguishability": ("debiased_low", "debiased_high", "null_rms"),
    "groups.[].debiased": ("debiased_low", "debiased_high"),
    "groups.[].raw_mean_norm": ("null_rms",),
    "groups.[].probe_accuracy": ("probe_low", "probe_high"),
    "groups.[].auc": ("auc_low", "auc_high"),
    "groups.[].priority": ("priority_low", "priority_high"),
    "groups.[].words_accuracy": ("words_low", "words_high"),
    "groups.[].length_accuracy": ("length_low", "length_high"),
    "groups.[].predicted_rank": ("predicted_rank_low", "predicted_rank_high"),
    "groups.[].predicted_held_out_loss": ("predicted_held_out_loss_error",),
    "groups.[].predicted_held_out_accuracy": ("predicted_held_out_accuracy_low", "predicted_held_out_accuracy_high"),
    "groups.[].cross_fitted_loss": ("cross_fitted_loss_error",),
    "groups.[].cross_fitted_alone_loss": ("cross_fitted_alone_loss_error",),
    "answers.[].amount": ("low", "high"),
    "labels.tried.[].found": ("found_low", "found_high"),
    "labels.tried.[].average_precision": ("average_precision_low", "average_precision_high"),
    "left_out_by_value.random": ("random_low", "random_high"),
    "left_out_by_value.lowest": ("lowest_error", "random_low", "random_high"),
    "left_out_by_value.highest": ("highest_error", "random_low", "random_high"),
    "diagnostics.order.*.spearman": ("p",),  # and an interval, from five groups on
    "diagnostics.order.*.kendall": ("kendall_p",),
    "diagnostics.cosine.*": ("^diagnostics.cosine.null",),
}
"""Path of an estimate → what must stand beside it, in the same dictionary; `^`: in another place."""

ENDS_OF = {f"{path.rpartition('.')[0]}.{key}" for path, keys in BESIDE.items() for key in keys}
"""Paths of what stands beside them."""

PICTURES: dict[str, str] = {
    "loss-curves": RUN, "margin-curves": RUN, "accuracy-curves": RUN, "log-prob-curves": RUN, "chosen-falling": RUN,
    "influence": STEP, "agreement": STEP, "embedding": SAMPLE,
    "order": "it says the rank correlations with their p", "cosine": "it says what random directions have",
}  # fmt: skip
"""Pictures without intervals, and why; all others must draw or tell one."""


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Path of every number below a value, with the dictionary that it stands in."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            inner = f"{path}.{name}" if path else name
            if isinstance(each, int | float) and not isinstance(each, bool):
                yield inner, value
            else:
                yield from numbers(each, inner)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, int | float) and not isinstance(each, bool):
                yield f"{path}.[]", {}
            else:
                yield from numbers(each, f"{path}.[]")


def fits(path: str, pattern: str) -> bool:
    """Whether a path is what a pattern means."""
    parts, wanted = path.split("."), pattern.split(".")
    if wanted[-1] == "*":
        parts, wanted = parts[: len(wanted) - 1], wanted[:-1]
    return len(parts) == len(wanted) and all(name in ("*", part) for part, name in zip(parts, wanted, strict=True))


def naked(summary: Mapping[str, Any]) -> set[str]:
    """Paths of numbers that are neither exact nor have anything beside them."""
    known = {path for path, _ in numbers(summary)}
    found = set()
    for path, around in numbers(summary):
        if path in ENDS_OF or any(fits(path, pattern) for pattern in EXACT):
            continue
        needed = next((keys for pattern, keys in BESIDE.items() if fits(path, pattern)), None)
        if needed is None or not all(
            key[1:] in known if key.startswith("^") else around.get(key) is not None for key in needed
        ):
            found.add(path)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small part of the built-in data, audited and written."""
    data = load_dataset("builtin", limit=40)
    path = tmp_path_factory.mktemp("built-in")
    audit(data.select(list(data.groups[:6])), "builtin", steps=20, progress=False).write(path)
    return path


@pytest.fixture(scope="module")
def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_no_number_of_the_summary_is_naked(summary):
    assert naked(summary) == set()


def test_a_new_estimate_is_found_and_so_is_one_that_loses_its_interval(summary):
    """The control: each of these is a number that nobody could tell from noise."""
    row, *rest = summary["groups"]
    assert naked({**summary, "groups": [{**row, "new_accuracy": 0.7}, *rest]}) == {"groups.[].new_accuracy"}
    assert naked({**summary, "groups": [{**row, "new_low": 0.7}, *rest]}) == {"groups.[].new_low"}
    assert naked({**summary, "diagnostics": {**summary["diagnostics"], "new": [0.5]}}) == {"diagnostics.new.[]"}
    for path, keys in BESIDE.items():
        if path.startswith(_HERE):
            bare = {name: value for name, value in row.items() if name not in keys}
            assert path in naked({**summary, "groups": [bare, *rest]}), path
    order = {name: {**each, "p": None} for name, each in summary["diagnostics"]["order"].items()}
    bare = {**summary, "diagnostics": {**summary["diagnostics"], "order": order}}
    assert naked(bare) == {f"diagnostics.order.{name}.spearman" for name in order}


def test_every_entry_of_the_tables_is_met(summary):
    """Nothing stands in them that no audit writes: else a name that changed would be let through."""
    paths = {path for path, _ in numbers(summary)}
    for pattern in (*EXACT, *BESIDE):
        assert any(fits(path, pattern) for path in paths), pattern


def test_every_number_in_the_pages_table_is_exact_or_has_its_interval_under_it(folder):
    run = read_folder(folder)
    rows = group_rows(run)
    page = render([run], static=False)
    for column in columns(rows, one=False):
        exact = any(fits(f"{_HERE}{column.key}", pattern) for pattern in EXACT)
        assert exact != (column.key in ENDS), column.key
        for row in rows:
            if not exact and row.numbers[column.key] is not None:
                assert f'<span class="ends">{row.ends[column.key]}</span>' in page, (row.name, column.key)


def test_every_picture_of_estimates_has_intervals(folder):
    drawn = {picture.id: picture for picture in panels(read_folder(folder))}
    for name, picture in drawn.items():
        sure = any(layer.low and layer.high for layer in picture.layers)
        assert sure != (name in PICTURES), name
    assert set(drawn) == {"distinguishability", "probe", "priority", *PICTURES}
    assert all(re.search(r"\bp [\d.]", layer.note) for layer in drawn["order"].layers)
    assert "Two random directions have about" in drawn["cosine"].caption
    assert "in runs without it, with its interval" in drawn["loss-curves"].caption
