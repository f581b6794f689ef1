"""Pictures of grids say what the numbers say, keep their words apart, and are the same bytes each time."""

import io
import itertools
import sys
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr

from prefdyn.errors import DataError
from prefdyn.picture import Picture
from prefdyn.report import figures
from prefdyn.report.figures import figure_bytes, figure_of
from prefdyn.report.grid_figures import (
    counts_words,
    learning_order_plot,
    most_moving,
    order_stability_plot,
    rank_correlations,
    stability_words,
    steps_plot,
)
from tests.report.test_field_figures import words_apart, words_in_picture

BETAS = [0.01, 0.03, 0.1, 0.3, 1.0]
RATES = [1e-3, 0.0123, 0.1, 1.0, 12.5, 1.25e-05]
SETTINGS = [f"sigmoid, β={beta:g}, η={rate:g}" for beta in BETAS for rate in RATES[:4]]
GROUPS = ["agreeableness", "desire-for-no-human-monitoring", "openness", "risk", "日本の価値", "W" * 60, "a", "b"]


def grid():
    steps = np.round(1 + 40 / (np.array(BETAS)[:, None] ** 2 * np.array(RATES)[None, :]))
    steps[steps > 5e6] = np.nan
    diverged = np.zeros(steps.shape, dtype=bool)
    diverged[-1, 3:5] = True
    return steps, diverged


def some_ranks(groups, settings, *, gaps=True, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(groups, 1)) + 0.4 * np.cumsum(rng.normal(size=(groups, settings)), axis=1)
    ranks = scores.argsort(axis=0).argsort(axis=0) + 1.0
    if gaps:
        ranks[groups // 2, -1] = np.nan
        ranks[0, 1 % settings] = np.nan
    return ranks


def one(plot, **options):
    return Picture(id="one", title="One", caption="", plots=(plot,), **options)


STEPS = steps_plot(grid()[0], BETAS, RATES, diverged=grid()[1], best=(3, 4))


def cell_words(plot):
    """What is written in the cells, by row from the top and column."""
    inside = (len(plot.names), len(plot.columns or plot.names))
    found = {}
    for text in figure_of(one(plot)).axes[0].texts:
        column, row = text.get_position()
        if 0 <= row < inside[0] and 0 <= column < inside[1] and text.get_rotation() == 0 and text.get_text():
            found[round(row), round(column)] = text
    return found


def test_every_cell_says_its_steps_or_why_it_has_none():
    steps, diverged = grid()
    words = cell_words(STEPS)
    assert len(words) == steps.size
    for row, column in np.ndindex(steps.shape):
        said = words[len(BETAS) - 1 - row, column].get_text()
        if diverged[row, column]:
            assert said == "div."
        elif np.isnan(steps[row, column]):
            assert said == "–"
        else:
            value = float(said.translate(str.maketrans("", "", ",kM"))) * {"k": 1e3, "M": 1e6}.get(said[-1], 1)
            assert value == pytest.approx(steps[row, column], rel=6e-3)


def test_diverged_cells_have_no_colour_and_the_best_is_framed():
    axes = figure_of(one(STEPS)).axes[0]
    shown: Any = axes.images[0].get_array()
    missing = np.ma.getmaskarray(np.ma.masked_invalid(shown))[::-1]
    np.testing.assert_array_equal(missing, grid()[1] | np.isnan(grid()[0]))
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(p.get_y() + 0.5, p.get_x() + 0.5) for p in frames] == [(len(BETAS) - 1 - 3, 4)]
    assert [label for label in STEPS.names] == [f"{beta:g}" for beta in BETAS[::-1]]
    assert not figure_of(one(steps_plot(grid()[0], BETAS, RATES))).axes[0].patches


def test_fewer_steps_are_darker():
    steps, diverged = grid()
    image = figure_of(one(STEPS)).axes[0].images[0]
    known = sorted(
        (steps[place], sum(image.cmap(image.norm(steps[place]))[:3]))
        for place in np.ndindex(steps.shape)
        if np.isfinite(steps[place]) and not diverged[place]
    )
    assert all(first[1] <= second[1] + 1e-9 for first, second in itertools.pairwise(known))
    assert known[-1][1] > known[0][1] + 0.5


def test_words_tell_the_target_and_the_counts():
    words = counts_words(*grid(), target="held-out loss 0.35 nats")
    assert "Until held-out loss 0.35 nats" in words
    assert "diverged (2 of 30)" in words
    assert f"not reached within the run ({int(np.isnan(grid()[0]).sum())})" in words
    nothing = np.full((1, 2), np.nan)
    assert "No setting reaches accuracy 0.9." in counts_words(nothing, np.zeros((1, 2), bool), target="accuracy 0.9")
    assert len(figure_of(one(steps_plot(nothing, [0.1], [1.0, 2.0]))).axes) == 1  # no colour bar without a number


def test_rank_correlations_are_spearmans_over_shared_groups():
    ranks = some_ranks(9, 6)
    found = rank_correlations(ranks)
    for one, other in itertools.product(range(6), repeat=2):
        both = np.isfinite(ranks[:, one]) & np.isfinite(ranks[:, other])
        assert found[one, other] == pytest.approx(spearmanr(ranks[both, one], ranks[both, other])[0], abs=1e-12)
    assert np.isnan(rank_correlations(np.array([[1.0, 2.0], [2.0, 1.0]]))).all()
    assert np.isnan(rank_correlations(np.ones((4, 2)))).all()


def test_stability_shows_each_correlation_and_sums_them_up():
    ranks = some_ranks(9, 6)
    found = rank_correlations(ranks)
    words = cell_words(order_stability_plot(ranks, SETTINGS[:6]))
    assert len(words) == 36
    for (row, column), text in words.items():
        assert text.get_text() == f"{found[row, column]:.2f}".replace("-", "−")
    off = found[~np.eye(6, dtype=bool)]
    assert f"median {np.median(off):.2f}, lowest {off.min():.2f}" in stability_words(ranks).replace("−", "-")
    assert "Empty: 1 pair of settings" in stability_words(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_lines_of_groups_pass_through_their_places_and_break_where_unlearned():
    ranks = some_ranks(8, 5)
    axes = figure_of(one(learning_order_plot(ranks, GROUPS, SETTINGS[:5]))).axes[0]
    drawn = [line.get_ydata() for line in axes.get_lines() if line.get_marker() == "o"]
    for row in ranks:
        assert any(np.array_equal(row, line, equal_nan=True) for line in drawn)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first learned on top


def test_with_many_groups_the_most_moving_are_named():
    ranks = some_ranks(40, 6, gaps=False)
    names = [f"group-{row}" for row in range(40)]
    named = {line.label for line in learning_order_plot(ranks, names, SETTINGS[:6]).lines if line.label}
    spread = np.ptp(ranks, axis=1)
    assert named == {names[row] for row in most_moving(ranks)}
    assert len(named) == 12
    least = min(spread[int(name.removeprefix("group-"))] for name in named)
    assert all(spread[row] <= least for row, name in enumerate(names) if name not in named)


ALL = [f"{setting} {row}" for row in range(4) for setting in SETTINGS][:64]
DRAWN = {
    "steps": one(STEPS),
    "one cell": one(steps_plot(np.array([[5.0]]), [0.1], [1.0], best=(0, 0))),
    "none": one(steps_plot(np.full((2, 3), np.nan), [0.1, 0.2], [1.0, 2.0, 3.0])),
    "near": one(steps_plot(np.array([[5.0, 6.0], [7.0, 7.5]]), [0.1, 0.2], [1.0, 2e-5])),
    "wide": one(
        steps_plot(
            np.geomspace(1, 1e6, 400).reshape(20, 20),
            np.geomspace(1e-3, 9, 20).tolist(),
            np.geomspace(1.11e-5, 1, 20).tolist(),
        )
    ),
    "stability": one(order_stability_plot(some_ranks(9, 12), SETTINGS[:12])),
    "stability, 2": one(order_stability_plot(some_ranks(2, 2, gaps=False), SETTINGS[:2])),
    "stability, 20": one(order_stability_plot(some_ranks(20, 20), SETTINGS)),
    "stability, 64": one(order_stability_plot(some_ranks(20, 64), ALL)),
    "order": one(learning_order_plot(some_ranks(8, 12), GROUPS, SETTINGS[:12])),
    "order, 1": one(learning_order_plot(some_ranks(2, 1, gaps=False), GROUPS[:2], SETTINGS[:1])),
    "order, many": one(learning_order_plot(some_ranks(60, 64), [f"group {i}" for i in range(60)], ALL)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_words_lie_on_others_or_leave_the_picture(name):
    figure = figure_of(DRAWN[name])
    words_apart(itertools.combinations(words_in_picture(figure, 4), 2))
    assert figure.get_size_inches()[0] <= 16


@pytest.mark.parametrize("name", ["steps", "stability", "order"])
def test_files_are_readable_the_same_each_time_and_leave_nothing_behind(name):
    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    first = figure_bytes(DRAWN[name])
    figures._KEPT.clear()
    assert figure_bytes(DRAWN[name]) == first
    said = "".join(ET.fromstring(first["svg"]).itertext())
    assert {"steps": "div.", "stability": "rank correlation", "order": "agreeableness"}[name] in said
    assert np.ptp(imread(io.BytesIO(first["png"]))[..., :3]) > 0.5
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"steps has shape \(1, 2\), diverged \(1, 1\)"):
        steps_plot(np.ones((1, 2)), [0.1], [1.0])
    with pytest.raises(DataError, match="steps holds 0, but a target is reached after more than 0"):
        steps_plot(np.zeros((1, 1)), [0.1], [1.0])
    with pytest.raises(DataError, match=r"best is \(1, 0\), outside a grid of 1 betas and 1 learning rates"):
        steps_plot(np.ones((1, 1)), [0.1], [1.0], best=(1, 0))
    with pytest.raises(DataError, match=r"ranks has shape \(3, 2\) for 1 settings"):
        order_stability_plot(np.ones((3, 2)), ["a"])
    with pytest.raises(DataError, match="groups has 1 names for 3 rows of ranks"):
        learning_order_plot(np.ones((3, 2)), ["a"], ["b", "c"])
