"""Figure files: every panel as SVG and PNG, the same bytes each time, nothing left behind, names never from data."""

import re
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from prefdyn.errors import StoreError
from prefdyn.picture import Line, Plot
from prefdyn.report import figures
from prefdyn.report.figures import STYLES, figure_bytes, figure_of, write_figures
from prefdyn.report.folders import read_folder
from prefdyn.report.palette import GROUPS
from prefdyn.report.panels import panels
from prefdyn.report.plots import _ends
from prefdyn.report.sheet import log_ticks
from tests.report.make_folder import HOSTILE, make_folder


def drawn(folder):
    return panels(read_folder(folder))


@pytest.mark.parametrize("names", [1, 5, 30])
def test_every_panel_becomes_a_readable_svg_and_png(tmp_path, names):
    found = drawn(make_folder(tmp_path / "run", names=names, twin=True))
    files = write_figures(found, tmp_path / "figures")
    assert [path.name for path in files] == [f"{panel.id}.{kind}" for panel in found for kind in ("svg", "png")]
    for path in files:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            assert np.ptp(imread(path)[..., :3]) > 0.5


def test_hostile_names_are_text_in_figures_and_no_part_of_a_file_name(tmp_path):
    files = write_figures(drawn(make_folder(tmp_path / "run", names=list(HOSTILE), missing=True)), tmp_path / "figures")
    assert {path.parent for path in files} == {tmp_path / "figures"}
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in files)
    assert all(re.fullmatch(r"[a-z-]+\.(svg|png)", path.name) for path in files)
    tags, texts = set(), ""
    for path in files:
        if path.suffix == ".svg":
            root = ET.parse(path).getroot()
            tags |= {node.tag.split("}")[-1] for node in root.iter()}
            texts += "".join(root.itertext())
    assert "<script>alert(1)</script>" in texts
    assert r"$\frac{1}{0}$ & <b>bold</b>" in texts
    assert not {"script", "b", "img", "foreignObject", "a"} & tags


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    folder = make_folder(tmp_path / "run", names=6)
    first = [figure_bytes(panel) for panel in drawn(folder)]
    kept = [figure_bytes(panel, formats=("svg",))["svg"] for panel in drawn(folder)]
    figures._KEPT.clear()
    second = [figure_bytes(panel) for panel in drawn(folder)]
    assert first == second
    assert kept == [found["svg"] for found in first]
    assert not any(re.search(rb"20\d\d-\d\d-\d\d", found["svg"]) for found in first)


def test_a_figure_for_a_paper_is_the_same_drawing_without_its_title_cut_to_what_is_drawn(tmp_path):
    found = drawn(make_folder(tmp_path / "run", names=5))
    files = write_figures(found, tmp_path / "paper", formats=STYLES["paper"], titled=False)
    assert {path.suffix for path in files} == {".svg", ".pdf"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in files if path.suffix == ".pdf")
    for panel in found:
        titled, bare = (
            ET.fromstring(figure_bytes(panel, formats=("svg",), titled=way)["svg"]) for way in (True, False)
        )
        texts = [" ".join("".join(root.itertext()).split()) for root in (titled, bare)]
        assert texts[0].count(panel.title) == texts[1].count(panel.title) + 1
        high = [float(root.attrib["height"].removesuffix("pt")) for root in (titled, bare)]
        assert high[1] < high[0]
        words = [word for word in texts[1].split() if word not in texts[0].split()]
        assert not words  # nothing else was changed


def test_a_drawing_that_was_kept_is_not_given_for_another_panel(tmp_path):
    first, second = (drawn(make_folder(tmp_path / str(seed), names=4, seed=seed))[0] for seed in (0, 1))
    assert first.id == second.id
    assert figure_bytes(first, formats=("svg",)) != figure_bytes(second, formats=("svg",))


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/figures cannot be made \(Not a directory\); give another folder"):
        write_figures([], tmp_path / "file" / "figures")


def test_no_setting_is_left_behind_and_pyplot_is_not_used(tmp_path):
    before = dict(matplotlib.rcParams)
    pyplot = "matplotlib.pyplot" in sys.modules
    write_figures(drawn(make_folder(tmp_path / "run", names=2)), tmp_path / "figures")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_a_figure_draws_the_numbers_of_its_panel(tmp_path):
    panel = next(found for found in drawn(make_folder(tmp_path / "run", names=4)) if found.id == "loss-curves")
    axes = figure_of(panel).axes[0]
    heights = [np.asarray(line.get_ydata()) for line in axes.get_lines()]
    for values in panel.arrays["held_out"]:
        assert any(len(found) == len(values) and np.array_equal(found, values) for found in heights)


def test_points_have_the_colour_of_their_group_and_are_filled_where_positive(tmp_path):
    panel = next(each for each in drawn(make_folder(tmp_path / "run", names=4)) if each.kind == "points")
    places = np.array(panel.colours)[panel.arrays["group"].astype(int)]
    expected = {
        (GROUPS[place].light, positive): sorted(
            zip(
                *(panel.arrays[axis][(places == place) & (panel.arrays["positive"] == positive)] for axis in "xy"),
                strict=True,
            )
        )
        for place in range(4)
        for positive in (False, True)
    }
    found = {
        (str(line.get_markeredgecolor()), line.get_markerfacecolor() != "none"): sorted(
            zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
        )
        for line in figure_of(panel).axes[0].get_lines()
    }
    assert found == expected
    assert all(expected.values())


@pytest.mark.parametrize("last", [1, 7, 100, 5000, 10**6])
def test_marks_of_the_step_axis_lie_on_it_and_are_few(last):
    ticks = log_ticks(last)
    assert ticks[0] == 0
    assert ticks == sorted(set(ticks))
    assert ticks[-1] <= last
    assert len(ticks) <= 12


def test_a_plot_ends_where_its_lines_do():
    lines = tuple(Line(label="", x=np.array(x), y=np.zeros(len(x))) for x in ([2.0, 5.0], [], [3.0, 9.0]))
    assert _ends(Plot(lines=lines)) == (2.0, 9.0)
    assert _ends(Plot()) == (0.0, 1.0)
