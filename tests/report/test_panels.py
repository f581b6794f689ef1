"""Panels: which there are, that they hold the folder's numbers, and which groups are coloured."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn.picture import Picture
from prefdyn.report.chart_json import chart_json
from prefdyn.report.diagnosis import agreement
from prefdyn.report.folders import read_folder
from prefdyn.report.palette import MOST_COLOURED
from prefdyn.report.panels import panels
from prefdyn.report.shown_groups import similar_together, sorted_codes, telling
from tests.report.make_folder import HOSTILE, make_folder

ALWAYS = {"loss-curves", "accuracy-curves", "margin-curves", "log-prob-curves", "chosen-falling"}
AUDIT = ALWAYS | {"distinguishability", "probe", "embedding", "agreement"}
SEVERAL = AUDIT | {"priority", "cosine", "influence"}


def found(folder) -> dict[str, Picture]:
    return {panel.id: panel for panel in panels(read_folder(folder))}


@pytest.mark.parametrize(("names", "expected"), [(1, AUDIT), (2, SEVERAL), (5, SEVERAL | {"order"})])
def test_what_is_drawn_depends_on_how_many_groups_there_are(tmp_path, names, expected):
    assert set(found(make_folder(tmp_path / "run", names=names))) == expected


def test_a_simulation_has_curves_and_nothing_that_it_did_not_measure(tmp_path):
    assert set(found(make_folder(tmp_path / "run", names=4, command="simulate"))) == ALWAYS | {"agreement"}


def test_panels_hold_the_numbers_of_the_folder(tmp_path):
    folder = make_folder(tmp_path / "run", names=7)
    run, drawn = read_folder(folder), found(folder)
    summary = json.loads((folder / "summary.json").read_text())
    np.testing.assert_array_equal(drawn["loss-curves"].arrays["held_out"], run.curves("loss", split="held_out"))
    np.testing.assert_array_equal(drawn["loss-curves"].arrays["train_alone"], run.curves("loss", run="alone"))
    np.testing.assert_array_equal(drawn["influence"].arrays["influence"], summary["diagnostics"]["influence"]["matrix"])
    np.testing.assert_array_equal(drawn["priority"].arrays["priority"], [row["priority"] for row in summary["groups"]])
    fall = run.curves("loss")[:, 0] - run.curves("loss")[:, -1]
    np.testing.assert_array_equal(drawn["order"].arrays["decrease"], fall)
    assert "Spearman 0.95, Kendall 0.83, over 7 groups" in drawn["order"].layers[0].note


def test_shares_of_moved_pairs_start_with_the_first_step(tmp_path):
    drawn = found(make_folder(tmp_path / "run", names=3))
    falling = drawn["chosen-falling"].arrays["train"]
    assert np.isnan(falling[:, 0]).all()
    assert np.isfinite(falling[:, 1:]).all()
    assert np.isfinite(drawn["margin-curves"].arrays["train"]).all()


def test_ids_are_plain_and_fixed_whatever_the_data(tmp_path):
    drawn = found(make_folder(tmp_path / "run", names=list(HOSTILE), missing=True))
    assert all(re.fullmatch(r"[a-z-]+", name) for name in drawn)
    assert set(drawn) == set(found(make_folder(tmp_path / "plain", names=14)))


def test_few_groups_are_all_coloured_and_of_many_the_telling_ones(tmp_path):
    few = read_folder(make_folder(tmp_path / "few", names=MOST_COLOURED))
    assert telling(few) == tuple(range(MOST_COLOURED))
    many = read_folder(make_folder(tmp_path / "many", names=60))
    chosen = telling(many)
    assert len(chosen) == 8
    verdicts = [many.verdicts[code] for code in chosen]
    assert {"conflicting", "left behind", "looks random", "early", "late"} <= set(verdicts)
    rank = many.column("predicted_rank")
    first = min((code for code in range(60) if many.verdicts[code] == "early"), key=lambda code: rank[code])
    assert chosen[0] == first


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(-5, 5)), min_size=1, max_size=12))
def test_sorting_keeps_every_group_and_puts_the_unknown_last(values):
    numbers = np.array(values)
    order = sorted_codes(numbers)
    assert sorted(order) == list(range(len(values)))
    unknown = np.isnan(numbers[list(order)])
    assert (np.diff(unknown.astype(int)) >= 0).all()
    known = numbers[list(order)][~unknown]
    assert (np.diff(known) <= 0).all()


def test_similar_groups_stand_together():
    block = np.array([0, 1, 0, 1, 0, 1])
    order = similar_together(np.where(block[:, None] == block, 0.9, -0.4))
    assert np.count_nonzero(np.diff(block[list(order)])) == 1


def test_json_of_a_panel_has_no_nan_and_knows_every_array(tmp_path):
    for panel in found(make_folder(tmp_path / "run", names=5, missing=True)).values():
        text = json.dumps(chart_json(panel), allow_nan=False)
        arrays = json.loads(text)["arrays"]
        for layer in panel.layers:
            for name in (layer.values, layer.low, layer.high, layer.alone):
                assert name is None or name in arrays


def test_arrays_of_a_panel_cannot_be_written_to(tmp_path):
    panel = found(make_folder(tmp_path / "run", names=2))["loss-curves"]
    with pytest.raises(ValueError, match="read-only"):
        panel.arrays["train"][0, 0] = 1.0


def test_matrices_of_the_wrong_size_are_not_drawn(tmp_path):
    folder = make_folder(tmp_path / "run", names=3)
    summary = json.loads((folder / "summary.json").read_text())
    summary["diagnostics"]["influence"]["matrix"] = [[1.0]]
    summary["diagnostics"]["cosine"] = None
    summary["diagnostics"]["embedding"]["y"].pop()
    (folder / "summary.json").write_text(json.dumps(summary))
    assert not {"influence", "cosine", "embedding"} & set(found(folder))


def test_pairs_are_counted_in_forty_bars_that_have_an_edge_at_0(tmp_path):
    run = read_folder(make_folder(tmp_path / "run", names=3))
    panel = agreement(run)
    assert panel is not None
    assert run.pairs is not None
    edges, values = panel.arrays["edges"], np.array(run.pairs["agreement"].to_pylist(), dtype=float)
    assert 40 <= len(edges) - 1 <= 42
    assert np.abs(edges).min() < 1e-12
    assert edges[0] <= np.quantile(values, 0.01)
    assert edges[-1] >= np.quantile(values, 0.99)
    assert panel.arrays["share"].sum() == pytest.approx(1.0)
