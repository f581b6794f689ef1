"""Laws of learning curves against closed forms, and pooled forecasts against curves of known law."""

import numpy as np
import pytest
from scipy.optimize import curve_fit, least_squares

from prefdyn.maths.forecast import crossing, half_width, pooled
from prefdyn.maths.laws import SHAPES, Shape, rows_of

SIZES = 8 * 2.0 ** (np.arange(9) / 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_law_continues_its_own_curve(shape):
    largest = SIZES[-1]
    losses = 0.4 + 0.3 * shape.at(SIZES, largest)
    far = np.array([2.0, 16.0]) * largest
    np.testing.assert_allclose(rows_of(shape, SIZES, far) @ losses, 0.4 + 0.3 * shape.at(far, largest), rtol=1e-9)


@pytest.mark.parametrize("shape", [each for each in SHAPES if each.name != "flat"], ids=str)
def test_coefficients_are_those_of_an_iterative_fit(shape):
    losses = 0.5 + np.random.default_rng(0).normal(size=len(SIZES)) / 10
    weight = (SIZES / SIZES[-1]) ** (shape.recent / 2)
    found = least_squares(lambda p: weight * (p[0] + p[1] * shape.at(SIZES, SIZES[-1]) - losses), [0.5, 0.0])
    far = np.array([700.0])
    expected = found.x[0] + found.x[1] * shape.at(far, SIZES[-1])
    np.testing.assert_allclose(rows_of(shape, SIZES, far) @ losses, expected, atol=1e-6)


def test_a_flat_law_is_the_weighted_mean():
    losses = np.linspace(1.0, 0.5, len(SIZES))
    said = rows_of(Shape(name="flat", recent=3.0), SIZES, np.array([1.0, 1e6])) @ losses
    np.testing.assert_allclose(said, np.average(losses, weights=SIZES**3))


def test_rows_sum_to_one_so_that_a_constant_stays():
    pool = pooled([SIZES], [0.5 + 1 / SIZES])
    np.testing.assert_allclose(pool.rows(SIZES, np.array([10.0, 1e4])).sum(axis=1), 1.0)
    assert pool.share.sum() == pytest.approx(1.0)


def test_the_pool_turns_to_the_law_that_foretold_the_larger_sizes():
    rng = np.random.default_rng(1)
    curves = [c + a / SIZES for c, a in rng.uniform(0.2, 3.0, (6, 2))]
    pool = pooled([SIZES] * 6, curves)
    right = np.array([shape.name == "power" and shape.exponent == 1.0 for shape in SHAPES])
    assert pool.share[right].sum() > 0.99
    wrong = pooled([SIZES] * 6, [0.3 + np.exp(-SIZES / SIZES[-1])] * 6)
    assert wrong.share[right].sum() < 0.2


def test_forecasts_and_their_intervals_hold_noisy_curves_of_known_law():
    """Noise of known size on the points: truths lie inside, nearer than the last point."""
    rng, far, held, ours, last = np.random.default_rng(2), np.array([4 * SIZES[-1]]), [], [], []
    for _ in range(60):
        truths = [0.3 + 2.0 / SIZES, 0.5 + 1.0 / SIZES**0.75, 0.4 + 0.0 * SIZES]
        ends = np.array([0.3 + 2.0 / far[0], 0.5 + 1.0 / far[0] ** 0.75, 0.4])
        common = rng.normal(0, 0.02, 3)  # the luck of the judging pairs moves the whole curve
        curves = [y + s + rng.normal(0, 0.003, len(y)) for y, s in zip(truths, common, strict=True)]
        pool = pooled([SIZES] * 3, curves)
        said = np.array([(pool.rows(SIZES, far) @ y)[0] for y in curves])
        half = half_width(np.array([0.02]), 10_000, pool.misses(0.9), np.log(far / SIZES[-1]))
        held.append(np.abs(said - ends) <= half)
        ours.append(said - ends)
        last.append([y[-1] for y in curves] - ends)
    assert 0.87 <= np.mean(held) <= 1.0
    assert np.mean(np.square(ours)) < np.mean(np.square(last))


def test_misses_grow_with_the_root_of_the_distance():
    half = half_width(np.array([0.0, 0.0, 0.0]), 50, 0.1, np.array([-1.0, 1.0, 4.0]))
    np.testing.assert_allclose(half, [0.0, 0.1, 0.2])


def test_few_units_widen_by_student_t():
    wide, narrow = (half_width(np.array([0.01]), units, 0.0, np.array([0.0]))[0] for units in (5, 5000))
    assert wide == pytest.approx(0.02132, abs=1e-5)
    assert narrow == pytest.approx(0.01645, abs=1e-5)


def test_a_crossing_is_where_the_curve_comes_down_on_a_log_scale():
    at = np.array([10.0, 20.0, 40.0])
    assert crossing(at, np.array([0.6, 0.5, 0.4]), 0.45) == pytest.approx(20 * np.sqrt(2))
    assert crossing(at, np.array([0.6, 0.5, 0.4]), 0.7) == 10.0
    assert crossing(at, np.array([0.6, 0.5, 0.4]), 0.3) == np.inf


def test_scipy_finds_the_same_exponential():
    losses = 0.3 + 0.4 * np.exp(-SIZES / SIZES[-1])
    best, _ = curve_fit(lambda n, c, a, rate: c + a * np.exp(-n * rate), SIZES, losses, p0=(0.3, 0.4, 1 / SIZES[-1]))
    far = np.array([4 * SIZES[-1]])
    ours = rows_of(Shape(name="exponential", bend=1.0), SIZES, far) @ losses
    np.testing.assert_allclose(ours, best[0] + best[1] * np.exp(-far * best[2]), rtol=1e-6)
