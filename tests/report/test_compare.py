"""The page, the pictures and the table of two runs: they hold the folder's numbers, and no word lies on another."""

import html
import itertools
import json
import math
import re
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from prefdyn.errors import DataError
from prefdyn.planning.compare import compare_runs
from prefdyn.report.compare import compare_chapter, compare_drawings, compare_table, lead, side
from prefdyn.report.compare_figures import CurvePair, curves_figure, order_figure, separability_figure
from prefdyn.report.figures import drawing_bytes
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.report.panels import panels
from tests.report.make_folder import HOSTILE, make_folder, make_trained_folder
from tests.report.test_field_figures import word_boxes
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
    assert panels(run) == []


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
    assert "steps divided by" not in words(curves.draw())


def test_without_held_out_pairs_the_training_curves_are_shown(tmp_path):
    run = compared(tmp_path, held_out=False)
    assert run.part("comparison", "split") == "train"
    titles = [drawing.title for drawing in compare_drawings(run)]
    assert titles[0] == "Loss of both runs, training pairs"


def test_curves_are_those_of_the_runs(tmp_path):
    run = compared(tmp_path)
    drawing = next(drawing for drawing in compare_drawings(run) if drawing.id == "compare-loss")
    (pairs, names), options = drawing.draw.args, drawing.draw.keywords  # type: ignore[attr-defined]
    assert names == ("predicted", "trained")
    trained, simulated = (read_folder(tmp_path / name) for name in ("train-1", "simulate-1"))
    for pair in pairs:
        code = trained.names.index(pair.name)
        np.testing.assert_array_equal(pair.second_steps, trained.steps())
        np.testing.assert_array_equal(pair.second, trained.curves("loss", split="held_out")[code])
        np.testing.assert_array_equal(pair.first, simulated.curves("loss", split="held_out")[code])
    axes = drawing.draw().axes[0]
    solid, dashed = axes.get_lines()[-2], axes.get_lines()[-3]
    np.testing.assert_allclose(np.asarray(solid.get_xdata()), np.log10(1 + pairs[0].second_steps))
    inside = pairs[0].second_steps / options["factor"]
    np.testing.assert_allclose(np.asarray(dashed.get_xdata()), np.log10(1 + inside[inside <= 300]))


def test_of_many_groups_the_ends_and_the_worst_are_drawn(tmp_path):
    run = compared(tmp_path, names=40)
    drawing = next(drawing for drawing in compare_drawings(run) if drawing.id == "compare-loss")
    pairs = [pair.name for pair in drawing.draw.args[0]]  # type: ignore[attr-defined]
    rows = sorted(
        (row for row in run.part("comparison", "rows") if row["split"] == "held_out"),
        key=lambda row: row["second_place"],
    )
    worst = max(rows, key=lambda row: row["loss_error_rescaled_relative"] or 0)
    assert len(pairs) == 12
    assert {rows[0]["group"], rows[-1]["group"], worst["group"]} <= set(pairs)
    assert "12 of 40 groups, from the first learned to the last, with those whose curves fit least." in drawing.caption
    assert len(next(d for d in compare_drawings(run) if d.id == "compare-order").draw.args[0]) == 40  # type: ignore[attr-defined]


def test_hostile_names_are_text(tmp_path):
    run = compared(tmp_path, names=list(HOSTILE))
    page = render([run])
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in compare_table(run.summary)
    for drawing in compare_drawings(run):
        assert re.fullmatch(r"[a-z-]+", drawing.id)
        assert b"\x1b" not in drawing_bytes(drawing.draw)["svg"]


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


def pair(name, *, last=100, note="error 7 % rescaled", level=0.5):
    steps = np.unique(np.geomspace(1, last + 1, 20).round()) - 1
    other = np.unique(np.geomspace(1, 3 * last + 1, 20).round()) - 1
    return CurvePair(
        name=name,
        first_steps=steps,
        first=0.69 - level * (1 - np.exp(-steps / 20)),
        second_steps=other,
        second=0.69 - level * (1 - np.exp(-other / 60)),
        note=note,
    )


LONG = ["agreeableness", "desire-for-no-human-monitoring", "W" * 60, "日本の価値", "x"]
CURVES = partial(
    curves_figure, title="Loss of both runs, held-out pairs", axis="Mean loss (nats)", names=("predicted", "trained")
)
SPREAD = np.abs(np.random.default_rng(0).normal(2, 1, (5, 4)))
RUNS = ("predicted", "trained")
DRAWN = {
    "curves": partial(CURVES, [pair(name) for name in LONG], factor=3.0, line=("log 2", math.log(2))),
    "one curve": partial(CURVES, [pair("all", last=10_000_000)], factor=0.001),
    "two curves": partial(CURVES, [pair("a"), pair("b", note="")]),
    "twelve curves": partial(CURVES, [pair(f"{name} {k}") for k, name in enumerate(LONG * 3)][:12], factor=1e6),
    "still": partial(CURVES, [pair("flat", level=0.0)]),
    "order": partial(
        order_figure,
        LONG,
        np.array([1.0, 2, 3, 4, 5]),
        np.array([2.0, 1, 5, 3, 4]),
        RUNS,
        note="Dotted: the same order. " * 6,
    ),
    "order, ties": partial(
        order_figure, LONG, np.array([1.0, 1, 1, 4, 5]), np.array([1.0, 2, 2, 2, 5]), ("a" * 60, "b" * 60)
    ),
    "order, one": partial(order_figure, ["all"], np.ones(1), np.ones(1), ("a", "b")),
    "order, 135": partial(
        order_figure, [f"behaviour {k}" for k in range(135)], np.arange(1.0, 136), np.arange(135.0, 0, -1), RUNS
    ),
    "separability": partial(separability_figure, LONG, [("predicted", SPREAD), ("trained", SPREAD[::-1] * 30)]),
    "separability, one": partial(separability_figure, LONG, [("predicted", SPREAD * math.nan), ("trained", SPREAD)]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_words_lie_on_others_or_leave_the_picture(name):
    figure = DRAWN[name]()
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        boxes = word_boxes(figure)
    assert len(boxes) >= 4
    width, height = figure.get_size_inches() * figure.get_dpi()
    for text, box, _ in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    for (one, first, _), (other, second, _) in itertools.combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        up = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert not (across > 1.5 and up > 1.5), (one, other)


def test_dots_stand_at_the_places_and_lines_reach_to_the_same_order():
    first, second = np.array([3.0, 1, 2]), np.array([1.0, 2, 3])
    axes = order_figure(["a", "b", "c"], first, second, ("p", "t")).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    dots = axes.get_lines()[-1]
    np.testing.assert_array_equal(dots.get_xdata(), [3, 1, 2])
    ends = [np.asarray(line.get_xdata()).tolist() for line in axes.get_lines()[1:-1]]
    assert ends == [[1, 3], [2, 1], [3, 2]]


def test_the_same_pictures_are_the_same_bytes():
    for name in ("curves", "order", "separability"):
        assert drawing_bytes(DRAWN[name]) == drawing_bytes(DRAWN[name])


def test_pictures_of_nothing_are_refused():
    with pytest.raises(DataError, match="no group is given"):
        CURVES([])
    with pytest.raises(DataError, match="2 groups have 1 and 2 places"):
        order_figure(["a", "b"], np.ones(1), np.ones(2), ("p", "t"))
    with pytest.raises(DataError, match="no run measured distinguishability"):
        separability_figure(["a"], [("p", np.full((1, 4), math.nan))])
