"""Results show themselves: a table in a notebook, a data frame, a figure."""

import contextlib
import io
from typing import get_type_hints
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import image
from matplotlib.figure import Figure

import prefdyn as pdy
from prefdyn import _showing
from prefdyn._showing import Tabular, as_html, by_column
from prefdyn.errors import ConfigError, DataError, MissingExtra
from prefdyn.experiments.catalogue import CATALOGUE
from prefdyn.experiments.recipes import recipe_named
from prefdyn.experiments.reproduce import RecipeResult
from prefdyn.experiments.rows import Rows
from prefdyn.picture import Line, Plot
from prefdyn.planning.audit import audit
from prefdyn.synthetic import gaussian_groups


@pytest.fixture(scope="module")
def audited():
    return audit(gaussian_groups(60, groups=3, width=8, held_out=0.2), steps=5, progress=False)


def test_every_result_of_a_public_function_that_is_a_table_shows_itself():
    returned = {name: get_type_hints(getattr(pdy, name)).get("return") for name in pdy.__all__ if name.islower()}
    tables = {name: kind for name, kind in returned.items() if isinstance(kind, type) and hasattr(kind, "rows")}
    assert {"audit", "check", "compare", "descent", "plan_weights", "separation", "sensitivity"} <= tables.keys()
    assert {name for name, kind in tables.items() if not issubclass(kind, Tabular)} == set()


def test_a_frame_holds_what_rows_holds(audited):
    for result in (audited, audited.trajectory, audited.separation, audited.prioritization):
        frame, rows = result.frame(), result.rows()
        assert isinstance(frame, pd.DataFrame)
        assert len(frame) == len(rows)
        assert list(frame.columns) == list(by_column(rows))
        name = next(name for name, value in rows[0].items() if isinstance(value, float))
        np.testing.assert_array_equal(frame[name].to_numpy(float), [row[name] for row in rows])


def test_a_library_that_is_missing_is_named_with_what_to_install(audited, monkeypatch):
    with pytest.raises(ConfigError, match="library"):
        audited.frame("numpy")
    monkeypatch.setattr(_showing, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install polars"):
        audited.frame("polars")
    with pytest.raises(MissingExtra, match="pip install pandas"):
        audited.frame()


def test_a_cell_is_well_formed_whatever_the_data_are_called():
    rows = [{"<b>name": f'"{k}" <script> & \x1b[31m', "x_y": -0.123456, "n": 12345, "on": True, "no": None}
            for k in range(30)]  # fmt: skip
    page = as_html(rows, title="<i>")
    root = ElementTree.fromstring(page)
    assert not root.findall(".//script")
    assert [cell.text for cell in root.findall(".//th")] == ["<b>name", "x y", "n", "on"]
    first = [cell.text for cell in root.findall(".//tbody/tr")[0]]
    assert first[1:] == ["−0.1235", "12,345", "yes"]
    assert len(root.findall(".//tbody/tr")) == 20
    assert "10 more rows and 1 more columns" in "".join(root.itertext())


def test_a_cell_of_few_rows_says_nothing_of_more():
    assert ".frame()" not in as_html([{"a": 1}])
    assert ElementTree.fromstring(as_html([])) is not None


def test_an_audit_shows_verdicts_and_draws_the_pictures_of_its_page(audited):
    assert "not told apart" in audited._repr_html_() or "early" in audited._repr_html_()
    assert isinstance(audited.plot(), Figure)
    assert isinstance(audited.plot("margin-curves"), Figure)
    with pytest.raises(ConfigError, match="did you mean 'loss-curves'"):
        audited.plot("loss-curve")


def test_a_trajectory_draws_what_it_holds(audited):
    figure = audited.trajectory.plot("margin", split="train")
    drawn = [line.get_ydata() for axes in figure.axes for line in axes.get_lines()]
    for group in audited.features.groups:
        _, values = audited.trajectory.curve("margin", group=group)
        assert any(len(line) == len(values) and np.array_equal(line, values) for line in drawn)
    with pytest.raises(DataError, match="did you mean 'margin'"):
        audited.trajectory.plot("margins")


def test_parts_of_a_trajectory_by_name(audited):
    run = audited.trajectory
    part = run.select(run="joint", group=["group 0", "group 2"], split="train", step=slice(1, 4))
    expected = [
        row
        for row in run.rows()
        if row["run"] == "joint" and row["group"] != "group 1" and row["split"] == "train" and row["step"] in (1, 2, 3)
    ]
    assert part.rows() == expected
    assert part.settings == run.settings
    assert run.select(step=5).rows() == [row for row in run.rows() if row["step"] == 5]
    assert run.select().rows() == run.rows()
    with pytest.raises(DataError, match="no group 'group 9'; did you mean 'group"):
        run.select(group="group 9")
    with pytest.raises(DataError, match="no step 77"):
        run.select(step=[1, 77])
    with pytest.raises(DataError, match="no split 'test'"):
        run.select(split="test")


def test_a_figure_shows_itself_where_nobody_set_matplotlib_up(audited):
    for figure in (audited.plot(), audited.trajectory.plot("margin")):
        shown = image.imread(io.BytesIO(figure._repr_png_()))
        wide, high = figure.get_size_inches() * figure.dpi
        assert shown.shape[:2] == (pytest.approx(high, abs=1), pytest.approx(wide, abs=1))
        assert len(np.unique(shown.reshape(-1, shown.shape[2]), axis=0)) > 10  # it is not blank


def test_a_result_says_what_it_is_in_a_few_words(audited):
    for result in (audited, audited.trajectory, audited.separation, audited.prioritization):
        assert len(repr(result)) < 300
    assert repr(audited) == str(audited)
    assert repr(audited.separation) == f"Separation of {len(audited.separation.rows())} rows"


def test_columns_that_a_cell_shows_first_are_columns(audited):
    compared = pdy.compare(audited.trajectory, audited.trajectory, resamples=10, permutations=10)
    plan = pdy.plan_weights(audited.features, steps=5, rounds=1, progress=False)
    for result in (audited, compared, plan):
        assert result._FIRST
        assert set(result._FIRST) <= set(by_column(result.rows()))


def test_a_recipe_draws_its_figures_by_their_names():
    from prefdyn.experiments.recipe import Figure as Numbers

    spec = CATALOGUE[0]
    panel = Plot(kind="lines", title="here", lines=(Line(label="a", x=np.arange(2.0), y=2 * np.arange(2.0)),))
    found = RecipeResult(
        recipe=recipe_named(spec.recipe), preset="smoke", judged=(), measured=Rows([]), notes=(), failed=None, runs=0,
        seconds=0.0, figures=(Numbers(spec=spec, panels=(panel,), caption=""),),
    )  # fmt: skip
    (axes,) = found.plot(spec.id).axes
    assert axes.get_lines()[0].get_ydata().tolist() == [0.0, 2.0]
    with pytest.raises(ConfigError, match="no picture 'fig99'"):
        found.plot("fig99")


def test_an_error_in_ipython_is_one_line():
    shell = InteractiveShell.instance()
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            shell.run_cell("from prefdyn.errors import DataError\nraise DataError('group 7 is empty')")
    finally:
        InteractiveShell.clear_instance()
    assert printed.getvalue().strip() == "DataError: group 7 is empty"
