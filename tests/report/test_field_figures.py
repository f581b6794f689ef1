"""Pictures of the plane show its numbers, keep their words apart, and are the same bytes each time."""

import io
import itertools
import math
import sys
import xml.etree.ElementTree as ET
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.quiver import Quiver

from prefdyn.errors import DataError
from prefdyn.picture import Picture
from prefdyn.report import figures
from prefdyn.report.field_figures import field_plane, field_speeds, field_surface
from prefdyn.report.figures import figure_bytes
from prefdyn.theory import gradient_field as field

KNOWN: dict[str, Any] = {"ref_chosen": 0.7, "ref_rejected": 0.25}


def a_run(**known):
    return np.stack(field.flow_point("logits", ratio=np.geomspace(1, 9, 30), **known), axis=1)


def curves(figure):
    return [np.stack(line.get_data(), axis=1) for line in figure.axes[0].get_lines()]


def test_arrows_point_downhill_and_are_as_long_as_the_pull():
    plane = field_plane(beta=0.1).axes[0]
    arrows: list[Any] = [found for found in plane.collections if isinstance(found, Quiver)]
    whole, cut = arrows
    d1, d2 = field.field_gradient(whole.X, whole.Y, beta=0.1)
    np.testing.assert_allclose(np.arctan2(whole.V, whole.U), np.arctan2(-d2, -d1), atol=1e-9)
    shares = np.hypot(whole.U, whole.V) / np.hypot(d1, d2)
    assert np.ptp(shares) < 1e-9 * shares.max()
    lengths = np.hypot(cut.U, cut.V)
    assert np.ptp(lengths) < 1e-9 * lengths.max()
    assert (np.minimum(cut.X, cut.Y) < 0.5).all()  # near the two edges where the pull has no limit
    assert whole.X.size + cut.X.size == 196


def test_the_flow_line_of_the_start_and_the_runs_own_path_are_drawn():
    path = a_run(**KNOWN)
    drawn = curves(field_plane(beta=0.1, path=path, **KNOWN))
    radii = [np.hypot(*line.T) for line in drawn if len(line) == 400]
    assert any(np.allclose(found, math.sqrt(2)) for found in radii)
    assert all(np.ptp(found) < 1e-9 for found in radii)
    assert any(line.shape == path.shape and np.array_equal(line, path) for line in drawn)
    assert any(np.array_equal(line, path[-1:]) for line in drawn)


def test_what_probabilities_do_not_allow_is_cut_off():
    with_line, without = curves(field_plane(beta=0.1, **KNOWN)), curves(field_plane(beta=0.1))
    assert len(with_line) == len(without) + 1
    border = next(line for line in with_line if len(line) > 1 and np.ptp(np.hypot(*line.T)) > 0.1)
    np.testing.assert_allclose(border @ [0.7, 0.25], 1)


def test_four_flows_meet_at_one_loss():
    figure = field_speeds(beta=0.5, **KNOWN)
    dots = np.concatenate([line for line in curves(figure) if len(line) == 1 and not np.array_equal(line[0], [1, 1])])
    assert len(dots) == 4
    np.testing.assert_allclose(dots[:, 0] / dots[:, 1], 9)
    losses = field.field_loss(*dots.T, beta=0.5)
    assert np.ptp(losses) < 1e-12
    words = "".join(text.get_text() for text in figure.legends[0].get_texts())
    assert "x₂ falls 2.08" in words


def test_probabilities_of_long_responses_do_not_move_and_no_speed_is_made_up():
    """Where descent moves probabilities themselves, only the ratio of the far smaller one moves."""
    figure = DRAWN["speeds, long responses"]()
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [" falls alone" in each for each in words].count(True) == 1
    assert "the two probabilities" in next(each for each in words if " falls alone" in each)


DRAWN = {
    "plane": lambda: field_plane(beta=0.1),
    "plane, run": lambda: field_plane(beta=1.0, path=a_run(ref_chosen=0.1, ref_rejected=0.4), **KNOWN),
    "weak": lambda: field_plane(beta=1e-4),
    "strong": lambda: field_plane(beta=1e3, path=np.array([[1.0, 1.0], [1e9, 1e-9]]), **KNOWN),
    "surface": lambda: field_surface(beta=0.1),
    "speeds": lambda: field_speeds(beta=0.5),
    "speeds, sure": lambda: field_speeds(beta=3.0, **KNOWN),
    "speeds, long responses": lambda: field_speeds(beta=0.1, ref_chosen=5e-65, ref_rejected=8e-84),
}


def word_boxes(figure):
    """Places of every text that is seen, by its words."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += axes.texts
        kinds = [axes.xaxis, axes.yaxis] + ([axes.zaxis] if hasattr(axes, "zaxis") else [])
        for axis in kinds:
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1
                for tick in axis.get_major_ticks()
                if low <= tick.get_loc() <= high and tick.label1.get_visible()
            ]
            texts += [axis.label]
        texts += [tick.label2 for tick in axes.yaxis.get_major_ticks() if tick.label2.get_visible()]
    return [
        (text.get_text(), text.get_window_extent(renderer), text.get_rotation() % 90 != 0)
        for text in texts
        if text.get_text().strip() and text.get_visible()
    ]


def words_in_picture(figure, least):
    """Boxes of all words, of which there are more than `least` and none leaves the picture."""
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"]}):
        boxes = word_boxes(figure)
    assert len(boxes) > least
    width, height = figure.get_size_inches() * figure.get_dpi()
    for words, box, _ in boxes:
        assert box.x0 >= -1, words
        assert box.y0 >= -1, words
        assert box.x1 <= width + 1, words
        assert box.y1 <= height + 1, words
    return boxes


def words_apart(couples):
    """No two boxes of a couple lie on each other."""
    for (one, first, _), (other, second, _) in couples:
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        up = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert not (across > 1.5 and up > 1.5), (one, other)


@pytest.mark.parametrize("name", DRAWN)
def test_no_words_lie_on_others_or_leave_the_picture(name):
    figure = DRAWN[name]()
    boxes = words_in_picture(figure, 12)
    level = [box for box in boxes if not box[2]]  # the box of slanted words is wider than they are
    captions = [box for box in boxes if box[0] in {text.get_text() for text in figure.texts}]
    slanted = [box for box in boxes if box[2]]
    words_apart([*itertools.combinations(level, 2), *itertools.product(captions, slanted)])


def test_captions_say_what_is_cut_and_edges_what_they_do():
    figure = field_plane(beta=0.1)
    words = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    assert "pale ones are cut to fit, as the pull has no limit towards either edge" in words
    assert "B x₂ → 0: chosen not at all, rejected without limit" in words
    words = " ".join(" ".join(text.get_text().split()) for text in field_plane(beta=1.0).texts)
    assert "no limit towards x₁ = 0" in words
    assert "B x₂ → 0: chosen not at all, rejected 1/x₁" in words


def drawn(draw):
    return Picture(id="one", title="One", caption="", draw=draw)


@pytest.mark.parametrize("draw", [partial(field_plane, **KNOWN), field_surface, partial(field_speeds, **KNOWN)])
def test_files_are_readable_the_same_each_time_and_leave_nothing_behind(draw):
    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    first = figure_bytes(drawn(partial(draw, beta=0.1)))
    figures._KEPT.clear()
    assert figure_bytes(drawn(partial(draw, beta=0.1))) == first
    assert "x₁" in "".join(ET.fromstring(first["svg"]).itertext())
    assert np.ptp(imread(io.BytesIO(first["png"]))[..., :3]) > 0.5
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    assert set(figure_bytes(drawn(partial(draw, beta=0.2)), formats=("png",))) == {"png"}


def test_a_path_that_is_none_is_refused():
    for bad in ([0.0, 1.0], [1.0, 0.0], [math.nan, 1.0], [1.0, math.inf], [-1.0, 1.0]):
        with pytest.raises(DataError, match="path has point 2 with a ratio not above 0; give finite"):
            field_plane(beta=0.1, path=np.array([[1.0, 1.0], [1.0, 0.5], bad, [1.0, 1.0]]))
    with pytest.raises(DataError, match="path has no points"):
        field_plane(beta=0.1, path=np.zeros((0, 2)))
