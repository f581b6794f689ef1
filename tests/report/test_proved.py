"""The chapter on what is proved: drawn from a folder alone, whole where the folder is, silent where it is not."""

import json
import math

import numpy as np
import pytest

from prefdyn.dynamics.descent import descent, recorded_steps
from prefdyn.maths.objectives import DPO
from prefdyn.picture import Picture
from prefdyn.planning.bounds import check_bounds
from prefdyn.planning.field import field_study
from prefdyn.report.figures import figure_of, write_figures
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.report.proved import drawings, proved_chapter
from prefdyn.report.theory_figures import drift_plots, fan_plot, values_plot
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.value_scaling import ClusterModel, horizon, sharp_margin_lines
from tests.report.make_folder import HOSTILE, make_folder


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The folder of a run on three groups with reference probabilities."""
    feats = gaussian_groups(40, groups=3, width=12, noise=0.4, shared_norm=0.5, seed=1)
    rng = np.random.default_rng(0)
    logps = {name: -rng.uniform(0.5, 3, len(feats)) for name in ("ref_chosen_logps", "ref_rejected_logps")}
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("checked") / "run"
    folder.mkdir()
    check_bounds(replace(feats, **logps), DPO(beta=0.2), steps=20, progress=False).write(folder)
    return folder


def change(folder, target, **parts):
    """A copy of the folder with other parts in its summary."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    summary = json.loads((target / "summary.json").read_text()) | parts
    (target / "summary.json").write_text(json.dumps(summary))
    return read_folder(target)


def test_every_picture_is_there_and_the_statements_lead_the_page(checked):
    run = read_folder(checked)
    names = [drawing.id for drawing in drawings(run)]
    assert names == ["drift", "margin-fan", "values-needed", "field-plane", "field-surface"]
    page = render([run])
    chapter = proved_chapter(run)
    assert chapter is not None
    assert page.count('<li class="statement') == len(chapter["statements"]) > 20
    assert page.index("What is proved about this run") < page.index('id="r0-groups"')
    assert page.count("data:image/") > len(names)


def test_pictures_are_files_of_fixed_names(checked, tmp_path):
    written = write_figures(drawings(read_folder(checked))[:2], tmp_path / "figures")
    assert [path.name for path in written] == ["drift.svg", "drift.png", "margin-fan.svg", "margin-fan.png"]
    assert all(path.stat().st_size > 5000 for path in written)


@pytest.mark.parametrize(
    ("theory", "left"),
    [
        (None, ["drift"]),
        ({"values": {"values": "many"}, "margins": {"step": [1]}, "path": {"x1": [1, 2], "x2": [1]}}, ["drift"]),
        ({"values": None, "margins": None, "path": {"x1": [1.0, 2.0], "x2": [1.0, -1.0]}}, ["drift"]),
        ({"values": {"values": 1.5}, "margins": {"step": "x"}, "path": {}}, ["drift"]),
        ({"path": {"x1": [1.0, 2.0], "x2": [1.0, 0.5]}}, ["drift", "field-plane", "field-surface"]),
    ],
)
def test_a_folder_without_the_numbers_draws_what_it_has(checked, tmp_path, theory, left):
    run = change(checked, tmp_path / "other", theory=theory)
    assert [drawing.id for drawing in drawings(run)] == left
    render([run])


def test_a_page_without_any_of_it_has_no_chapter(tmp_path):
    run = read_folder(make_folder(tmp_path / "run"))
    assert proved_chapter(run) is None
    assert "What is proved" not in render([run])


def test_hostile_statements_are_text(checked, tmp_path):
    bounds = json.loads((checked / "summary.json").read_text())["bounds"][:2]
    odd = [
        row | {"note": name, "group": name, "statement": name, "meaning": name} for name in HOSTILE for row in bounds
    ]
    page = render([change(checked, tmp_path / "hostile", bounds=odd)], static=False)
    assert "<script>alert" not in page
    assert "onerror=alert(2)>" not in page.replace("&gt;", ">").split("<li class")[0]


def test_the_field_page_shows_the_plane_alone(tmp_path):
    folder = tmp_path / "field"
    folder.mkdir()
    field_study(beta=0.5).write(folder)
    run = read_folder(folder)
    assert [drawing.id for drawing in drawings(run)] == ["field-plane", "field-surface", "field-speeds"]
    page = render([run], static=False)
    assert "The gradient field of DPO" in page
    for absent in ("Pairs at odds", "Findings in the data", "What this simulation says"):
        assert absent not in page


def axes_of(*plots):
    return figure_of(Picture(id="one", title="One", caption="", plots=plots)).axes


def lines_of(plot, axes):
    """What is drawn, by the label of its line."""
    drawn = [np.array(line.get_data()) for line in axes.get_lines()]
    return {line.label: data for line, data in zip(plot.lines, drawn, strict=False) if line.label}


def test_the_drift_picture_shows_the_bound_over_the_drift():
    steps = np.array([0, 1, 10, 100])
    drifts = np.array([[0, 1.0, 8.0, 40.0], [0, 2.0, 15.0, 60.0], [0, math.nan, math.nan, math.nan]])
    bounds = {"repaired": np.array([100.0, 200.0, math.nan]), "published": np.array([1700.0, 3400.0, math.nan])}
    plots = drift_plots(steps, drifts, bounds, joint=np.array([0, 1.0, 9.0, 50.0, 110.0]))
    left, right = map(lines_of, plots, axes_of(*plots))
    ratio = right["Theorem 4.1 repaired"]
    np.testing.assert_allclose(ratio[1], np.median([[1, 1.25, 2.5], [1, 20 / 15, 200 / 60]], axis=0))
    np.testing.assert_allclose(left["measured"][1], [1, 9, 50])
    np.testing.assert_allclose(left["Theorem 4.1 repaired"][1], [1.1, 11, 110])


def test_the_fan_holds_both_pairs_of_lines_and_the_run():
    times = np.linspace(0, 1.2, 13)
    seen = {"least": 0.4 * times, "mean": 0.7 * times, "largest": times}
    plot = fan_plot(sharing=1, times=times, margins=seen)
    drawn = lines_of(plot, *axes_of(plot))
    published = drawn["published lines, to τ₁"]
    assert published[0, -1] == pytest.approx(horizon(1, beta=1.0, learning_rate=1.0))
    sharp = drawn["sharper lines (Z = 1)"]
    np.testing.assert_allclose(sharp[1], sharp_margin_lines(sharp[0], sharing=1)[0])
    run = drawn["this run: mean, and all its pairs"]
    np.testing.assert_allclose(run[1], 0.7 * run[0])
    (short,) = axes_of(fan_plot(sharing=1, times=times / 100, margins=seen))
    assert short.get_xlim()[1] < 0.02


def test_the_need_for_data_grows_slowly_and_the_users_point_is_marked():
    plot = values_plot(model=ClusterModel.at_the_limits(10, 880))
    drawn = lines_of(plot, *axes_of(plot))
    values, needed = drawn["error bound below 5 %"]
    assert needed[values == 1] == 764
    assert drawn["your data"][:, 0].tolist() == [10, 880]
    assert (drawn["stated probability at least 95 %"][1] > 1e5).all()
    several, pairs = drawn["room for K orthogonal values (K + 1 ≤ 5 Q)"]
    np.testing.assert_allclose(5 * pairs[several >= 4], several[several >= 4] + 1)
    assert (pairs[several < 4] == 1).all()


def test_check_bounds_keeps_margins_and_warns_of_a_wild_rate():
    feats = gaussian_groups(20, groups=2, width=8)
    found = check_bounds(feats, DPO(beta=0.2), steps=12, progress=False)
    assert list(found.trajectory.margins) == recorded_steps(12)
    run = descent(feats, DPO(beta=0.2), steps=12)
    assert found.trajectory.final("loss", group="group 0") == run.final("loss", group="group 0")
    assert found.warnings == ()
    assert found.settings["seed"] == 0
    assert len(found.rows()) == len(found.bounds)
    assert "holds" in str(found)
    wild = check_bounds(feats, DPO(beta=0.2), steps=2, learning_rate=1e9, progress=False)
    assert "above the largest stable one" in wild.warnings[0]
    assert any("eta <=" in condition.says for bound in wild.bounds for condition in bound.failed)
