"""The page, the pictures and the table of two runs: they hold the folder's numbers, and no word lies on another."""

import html
import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from prefdyn.errors import DataError
from prefdyn.picture import Picture
from prefdyn.planning.compare import compare_runs
from prefdyn.report import figures
from prefdyn.report.compare import compare_chapter, compare_drawings, compare_table, lead, order_places, side
from prefdyn.report.figures import figure_bytes, figure_of
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.report.panels import panels, pictures
from tests.report.make_folder import HOSTILE, make_folder, make_trained_folder
from tests.report.test_field_figures import words_apart, words_in_picture
from tests.report.test_html import CHROMIUM, browse


def compared(tmp_path, names: Any = 5, *, slower=1.0, held_out=True, **options):
    """A folder of a simulation against a training run of the same groups."""
    first = make_folder(tmp_path / "simulate-1", names=names, command="simulate")
    second = make_trained_folder(tmp_path / "train-1", names=names, speed=slower, held_out=held_out)
    out = tmp_path / "compare-1"
    out.mkdir()
    compare_runs(side(first), side(second), **options).write(out)
    return read_folder(out)


def test_the_page_leads_with_the_answer_and_shows_what_it_rests_on(tmp_path):
    run = compared(tmp_path, losses=[0.5])
    page = html.unescape(render([run]))
    part = run.part("comparison")
    marks = ["Predicted against trained", "Prediction against training", lead(run), "Errors over all groups"]
    marks.append("Group by group")
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)
    assert f"rank correlation {part['order']['value']:.2f}" in lead(run).replace("−", "-")
    assert "The number of pairs alone, in place of predicted, gives rank correlation" in lead(run)
    assert f"is as much as {part['rescaling']['factor']:.3g} of trained" in lead(run)
    assert "Settings that differ" in page
    assert "Steps to 0.5" in page
    for missing in ("What this simulation says", "Pairs most at odds", "How to read these curves"):
        assert missing not in page
    assert all(row["name"] in page for row in run.groups)
    drawn = ["compare-order", "compare-distinguishability", "compare-spread"]
    assert [panel.id for panel in panels(run)] == drawn
    assert all(f'data-panel="{name}"' in page for name in drawn)


def test_the_tables_hold_the_numbers_of_the_folder(tmp_path):
    run = compared(tmp_path)
    chapter = compare_chapter(run)
    assert chapter is not None
    rows = {row["group"]: row for row in run.part("comparison", "rows") if row["split"] == "held_out"}
    assert [name for name, _ in chapter["rows"]] == sorted(rows, key=lambda name: rows[name]["second_place"])
    column = chapter["columns"].index("Place")
    for name, entries in chapter["rows"]:
        assert entries[column] == f"{rows[name]['first_place']:.0f} / {rows[name]['second_place']:.0f}"
    errors = dict(chapter["errors"])
    kinds = run.part("comparison", "errors", "held_out")
    assert errors["Loss, held-out pairs"][0] == f"{kinds['loss']['rms']:.3g}"
    assert errors["Margin, held-out pairs"][3] == f"{100 * kinds['margin_rescaled']['relative']:.3g} %"
    text = compare_table(run.summary)
    for name in rows:
        assert name[:20] in text
    lines = text.splitlines()[: 2 + len(rows)]
    assert len({len(line) for line in lines[1:]}) == 1, "columns end at the same place in every line"
    assert "error: root mean square, nats" in text
    assert max(map(len, text.splitlines())) <= 130


def test_no_interval_and_no_factor_say_why(tmp_path):
    few = compared(tmp_path, names=3)
    assert "without an interval: 3 groups are too few" in lead(few)
    summary = json.loads((few.path / "summary.json").read_text())
    summary["comparison"]["rescaling"] |= {"factor": None, "because": "no loss moves in either run"}
    summary["comparison"]["order"] |= {"value": None, "because": "2 groups are known in both runs"}
    (few.path / "summary.json").write_text(json.dumps(summary))
    told = lead(read_folder(few.path))
    assert "No rescaling of time was fitted: No loss moves in either run." in told
    assert "none (2 groups are known in both runs)." in told
    assert "number of pairs" not in told


def test_a_factor_at_the_edge_is_no_estimate_and_is_not_drawn(tmp_path):
    run = compared(tmp_path, slower=1e-6)
    assert run.part("comparison", "rescaling", "at_edge")
    assert "(an end of what was tried, so no estimate)" in lead(run)
    assert any("is an end of the range tried" in text for text in run.part("warnings"))
    curves = next(drawing for drawing in compare_drawings(run) if drawing.id == "compare-loss")
    assert "steps divided by" not in words(figure_of(curves))


def test_without_held_out_pairs_the_training_curves_are_shown(tmp_path):
    run = compared(tmp_path, held_out=False)
    assert run.part("comparison", "split") == "train"
    titles = [drawing.title for drawing in compare_drawings(run)]
    assert titles[0] == "Loss of both runs, training pairs"


def test_curves_are_those_of_the_runs(tmp_path):
    run = compared(tmp_path)
    picture = next(each for each in compare_drawings(run) if each.id == "compare-loss")
    factor = run.part("comparison", "rescaling", "factor")
    trained, simulated = (read_folder(tmp_path / name) for name in ("train-1", "simulate-1"))
    for plot in picture.plots:
        code = trained.names.index(plot.title)
        second, dashed, first = plot.lines
        assert (first.label, second.label) == ("predicted", "trained")
        np.testing.assert_array_equal(second.x, trained.steps())
        np.testing.assert_array_equal(second.y, trained.curves("loss", split="held_out")[code])
        np.testing.assert_array_equal(first.y, simulated.curves("loss", split="held_out")[code])
        inside = second.x / factor
        np.testing.assert_allclose(dashed.x, inside[inside <= 300])
    drawn = [np.asarray(line.get_xdata()) for line in figure_of(picture).axes[0].get_lines()[:3]]
    for line, places in zip(picture.plots[0].lines, drawn, strict=True):
        np.testing.assert_allclose(places, np.log10(1 + line.x))


def test_of_many_groups_the_ends_and_the_worst_are_drawn(tmp_path):
    run = compared(tmp_path, names=40)
    picture = next(each for each in compare_drawings(run) if each.id == "compare-loss")
    names = [plot.title for plot in picture.plots]
    rows = sorted(
        (row for row in run.part("comparison", "rows") if row["split"] == "held_out"),
        key=lambda row: row["second_place"],
    )
    worst = max(rows, key=lambda row: row["loss_error_rescaled_relative"] or 0)
    assert len(names) == 12
    assert {rows[0]["group"], rows[-1]["group"], worst["group"]} <= set(names)
    assert "12 of 40 groups, from the first learned to the last, with those whose curves fit least." in picture.caption
    order = order_places(run)
    assert order is not None
    assert np.isfinite(order.arrays["first"]).sum() == 40


def test_hostile_names_are_text(tmp_path):
    run = compared(tmp_path, names=list(HOSTILE))
    page = render([run])
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in compare_table(run.summary)
    for picture in pictures(run):
        assert re.fullmatch(r"[a-z-]+", picture.id)
        assert b"\x1b" not in figure_bytes(picture)["svg"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_both_pages_without_an_error(tmp_path):
    run = compared(tmp_path, names=list(HOSTILE))
    page = tmp_path / "page.html"
    page.write_text(render([run, read_folder(tmp_path / "train-1")]))
    document, console = browse(page, tmp_path / "profile", "--window-size=1200,900")
    assert console == []
    state = {key: int(value) for key, value in re.findall(r'data-(charts|charts-drawn|errors)="(\d+)"', document)}
    assert state["errors"] == 0
    assert state["charts"] == state["charts-drawn"] > 5
    assert document.count("How to read these curves") >= 2


# pictures -----------------------------------------------------------------------------------------------------------


def words(figure):
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


LONG = ["agreeableness", "desire-for-no-human-monitoring", "W" * 60, "日本の価値", "x"]
NAMED: dict[str, Any] = {
    "long names": LONG,
    "one": ["all"],
    "two": ["a", "b"],
    "twelve": [f"{name} {k}" for k, name in enumerate(LONG * 3)][:12],
    "135": [f"behaviour {k}" for k in range(135)],
}


@pytest.mark.parametrize("name", NAMED)
def test_no_words_lie_on_others_or_leave_the_picture(name, tmp_path):
    for picture in pictures(compared(tmp_path, NAMED[name])):
        figure = figure_of(picture)
        words_apart(itertools.combinations(words_in_picture(figure, 3), 2))


def test_dots_stand_at_the_places_and_lines_reach_to_the_other_run(tmp_path):
    run = compared(tmp_path)
    panel = order_places(run)
    assert panel is not None
    rows = {row["group"]: row for row in run.part("comparison", "rows") if row["split"] == "held_out"}
    for which in ("first", "second"):
        places = [rows[name][f"{which}_place"] for name in run.names]
        np.testing.assert_array_equal(panel.arrays[which], places)
    np.testing.assert_array_equal(panel.arrays["low"], np.minimum(panel.arrays["first"], panel.arrays["second"]))
    codes = list(panel.orders[0][1])
    axes = figure_of(panel).axes[0]
    dots, ticks = axes.get_lines()[:2]
    np.testing.assert_array_equal(dots.get_xdata(), panel.arrays["first"][codes])
    np.testing.assert_array_equal(ticks.get_xdata(), sorted(panel.arrays["second"]))
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_before_and_after_are_the_numbers_of_the_folder_and_far_apart_they_are_logarithmic(tmp_path):
    run = compared(tmp_path)
    found = {panel.id: panel for panel in panels(run)}
    rows = {row["group"]: row for row in run.part("comparison", "rows") if row["split"] == "train"}
    for what in ("distinguishability", "spread"):
        panel = found[f"compare-{what}"]
        for layer in panel.layers:
            np.testing.assert_array_equal(panel.arrays[layer.values], [rows[name][layer.values] for name in run.names])
        values = np.concatenate(list(panel.arrays.values()))
        far = what == "spread" and values.max() > 10 * values.min()
        assert (figure_of(panel).axes[0].get_xscale() == "log") == far


def test_the_same_pictures_are_the_same_bytes(tmp_path):
    run = compared(tmp_path)
    first = [figure_bytes(picture) for picture in pictures(run)]
    figures._KEPT.clear()
    assert [figure_bytes(picture) for picture in pictures(run)] == first


def test_nothing_is_drawn_of_nothing(tmp_path):
    run = compared(tmp_path, ["all"])
    assert order_places(run) is None
    summary = json.loads((run.path / "summary.json").read_text())
    for row in summary["comparison"]["rows"]:
        row |= {key: None for key in row if "distinguishability" in key or "spread" in key}
    (run.path / "summary.json").write_text(json.dumps(summary))
    assert panels(read_folder(run.path)) == []
    with pytest.raises(DataError, match="the picture 'x' has no plot; give at least one"):
        Picture(id="x", title="", caption="")
