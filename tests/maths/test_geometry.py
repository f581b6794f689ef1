"""Measured constants against their definitions, printed numbers, and laws of rotation and scale."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, ortho_group
from sklearn.covariance import ledoit_wolf

from prefdyn.errors import ConfigError, DataError
from prefdyn.maths import geometry
from prefdyn.maths.kernel import PairKernel
from tests.naive import diagnostics as naive

seeds = st.integers(0, 2**16)
quick = settings(max_examples=25, deadline=None)


def cloud(seed, n=9, d=4, positives=4):
    rng = np.random.default_rng(seed)
    positive = np.zeros(n, dtype=bool)
    positive[rng.permutation(n)[:positives]] = True
    return rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d) + rng.normal(size=d), positive


@pytest.mark.parametrize("shape", [(9, 4), (6, 11)])
def test_measured_constants_equal_their_definitions(shape):
    x, positive = cloud(0, *shape)
    first, second = x[positive], x[~positive]
    covariances = [naive.covariance(part) for part in (first, second)]
    distance = naive.gap_length(x, positive)
    assert geometry.distinguishability(x, positive) == pytest.approx(distance)
    for part, matrix in zip((first, second), covariances, strict=True):
        assert geometry.covariance_trace(part) == pytest.approx(np.trace(matrix))
        assert geometry.covariance_operator_norm(part) == pytest.approx(np.linalg.norm(matrix, 2))
    traces = [np.trace(matrix) for matrix in covariances]
    assert geometry.fisher_ratio(x, positive) == pytest.approx(distance**2 / sum(traces))
    expected = distance**2 - traces[0] / len(first) - traces[1] / len(second)
    assert geometry.debiased_square(x, positive) == pytest.approx(expected)
    eigenvalues = np.linalg.eigvalsh(naive.covariance(x))
    assert geometry.effective_rank(x) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


@pytest.mark.parametrize("positives", [1, 3, 4])
def test_the_null_level_is_the_root_mean_square_over_every_relabelling(positives):
    x, _ = cloud(3, n=8, d=3)
    every = naive.all_relabellings(x, positives)
    assert geometry.null_root_mean_square(x, positives) == pytest.approx(math.sqrt(np.mean(np.square(every))))


def test_the_null_level_of_equal_classes_is_the_formula_of_theory_5():
    x = np.random.default_rng(0).normal(size=(900, 64))
    expected = math.sqrt(4 * np.cov(x.T, ddof=1).trace() / 900)
    assert geometry.null_root_mean_square(x, 450) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(0.53349, rel=0.01)  # the printed sample's value; 0.5333 for a trace of 64


def test_the_debiased_square_is_unbiased_over_draws():
    rng = np.random.default_rng(1)
    shift = np.array([0.3, 0, 0, 0, 0])
    found = []
    for _ in range(3000):
        x = rng.normal(size=(12, 5))
        x[:4] += shift
        found.append(geometry.debiased_square(x, np.arange(12) < 4))
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - 0.09) < 3.5 * error


def test_wide_rows_never_need_a_square_matrix_of_their_width():
    x = np.random.default_rng(2).normal(size=(6, 200_000))  # d × d would be 320 GB
    positive = np.arange(6) < 3
    assert geometry.covariance_operator_norm(x) <= geometry.covariance_trace(x)
    assert 1 <= geometry.effective_rank(x) <= 5
    rotated = geometry.rotate_to_row_space(x)
    assert rotated.shape == (6, 6)
    assert geometry.distinguishability(rotated, positive) == pytest.approx(geometry.distinguishability(x, positive))


@given(seeds, st.floats(0.01, 100))
@quick
def test_rotation_shift_and_scale(seed, scale):
    x, positive = cloud(seed)
    rotation = ortho_group.rvs(4, random_state=seed)
    y = scale * (x @ rotation + 3.0)
    assert geometry.distinguishability(y, positive) == pytest.approx(scale * geometry.distinguishability(x, positive))
    assert geometry.debiased_square(y, positive) == pytest.approx(
        scale**2 * geometry.debiased_square(x, positive), rel=1e-7, abs=1e-9 * scale**2
    )
    assert geometry.covariance_operator_norm(y) == pytest.approx(scale**2 * geometry.covariance_operator_norm(x))
    assert geometry.effective_rank(y) == pytest.approx(geometry.effective_rank(x))
    assert geometry.fisher_ratio(y, positive) == pytest.approx(geometry.fisher_ratio(x, positive))


@given(seeds)
@quick
def test_flipping_labels_negates_the_gap(seed):
    x, positive = cloud(seed)
    np.testing.assert_allclose(geometry.mean_gap(x, ~positive), -geometry.mean_gap(x, positive))
    assert 1 - 1e-9 <= geometry.effective_rank(x) <= min(len(x) - 1, x.shape[1]) + 1e-9


def test_undefined_numbers_are_nan_and_a_missing_class_is_an_error():
    x = np.ones((4, 2))
    assert math.isnan(geometry.effective_rank(x))
    assert math.isnan(geometry.effective_rank(x[:1]))
    assert math.isnan(geometry.covariance_trace(x[:1]))
    assert math.isnan(geometry.covariance_operator_norm(x[:1]))
    assert geometry.covariance_operator_norm(x) == 0.0
    assert math.isnan(geometry.fisher_ratio(x, np.array([True, True, False, False])))
    assert geometry.distinguishability_exponent(0.0, 8) == -math.inf
    assert math.isnan(geometry.distinguishability_exponent(2.0, 1))
    assert geometry.distinguishability_exponent(4096**0.3, 4096) == pytest.approx(0.3)
    with pytest.raises(DataError, match="needs both classes, but 4 of 4 rows are positive"):
        geometry.mean_gap(x, np.ones(4, dtype=bool))
    with pytest.raises(DataError, match="the null level needs both classes, but 0 of 4"):
        geometry.null_root_mean_square(x, 0)


@pytest.mark.parametrize("shape", [(30, 5), (12, 40)])
def test_ledoit_wolf_and_the_divergence_equal_scikit_learn_and_a_dense_inverse(shape):
    rng = np.random.default_rng(5)
    d = shape[1]
    x = rng.normal(size=shape) * rng.uniform(0.2, 2, d)
    x -= x.mean(axis=0)
    gap = x[0] + x[1] - 0.3 * x[2]  # in the row space, as every mean gap is
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True)
    assert geometry.ledoit_wolf_shrinkage(x, d) == pytest.approx(shrinkage)
    expected = 0.5 * gap @ np.linalg.inv(covariance) @ gap
    assert geometry.gaussian_divergence(x, gap, d) == pytest.approx((expected, shrinkage))
    rotated = geometry.rotate_to_row_space(np.vstack([x, gap]))
    assert geometry.gaussian_divergence(rotated[:-1], rotated[-1], d) == pytest.approx((expected, shrinkage))


def test_the_divergence_of_a_known_gaussian():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(200_000, 2)) * [1.0, 2.0]
    divergence, shrinkage = geometry.gaussian_divergence(x - x.mean(axis=0), np.array([1.0, 2.0]), 2)
    assert divergence == pytest.approx(1.0, rel=0.02)  # ½ (1 + 4/4)
    assert shrinkage < 1e-3


def test_a_singular_covariance_has_no_divergence():
    x = np.array([[1.0, 0], [-1, 0]] * 4)
    singular = np.concatenate([x, np.zeros((2, 2))])
    assert math.isnan(geometry.gaussian_divergence(0 * singular, np.array([1.0, 0]), 2)[0])


def test_the_cluster_model_gives_back_its_constants():
    rng = np.random.default_rng(7)
    groups, width, per_class, lb, v = 5, 40, 3000, 0.4, 0.3
    rows, group, positive = [], [], []
    for code in range(groups):
        for sign in (1, -1):
            mean = np.zeros(width)
            mean[0], mean[code + 1] = lb, sign
            rows.append(7.0 * (mean + v * rng.normal(size=(per_class, width))))  # the scale must not matter
            group += [code] * per_class
            positive += [sign > 0] * per_class
    found = geometry.shared_norm_and_spread(np.concatenate(rows), np.array(group), np.array(positive))
    assert found == pytest.approx((lb, v), rel=0.01)


def test_the_cluster_model_needs_two_classes_and_a_gap():
    x = np.ones((4, 2))
    assert all(map(math.isnan, geometry.shared_norm_and_spread(x, np.zeros(4, int), np.ones(4, dtype=bool))))
    halves = np.array([True, False, True, False])
    assert all(map(math.isnan, geometry.shared_norm_and_spread(x, np.zeros(4, int), halves)))


@pytest.mark.parametrize(("n", "p", "d"), [(12, 1, 3), (5, 1, 20), (30, 2, 4), (9, 3, 8)])
def test_pair_coordinates_keep_every_inner_product(n, p, d):
    rng = np.random.default_rng(n)
    kernel = PairKernel(answers=rng.normal(size=(n, p)), features=rng.normal(size=(n, d)))
    rows = geometry.pair_coordinates(kernel)
    np.testing.assert_allclose(rows @ rows.T, kernel.dense(), atol=1e-10)
    assert rows.shape[1] <= max(n, 1) * max(p, 1)


def test_pair_coordinates_of_a_deficient_kernel():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(3, 8)), 3, axis=0)  # 9 rows, 3 different
    kernel = PairKernel(answers=np.ones((9, 2)), features=features)
    rows = geometry.pair_coordinates(kernel)
    assert rows.shape == (9, 3)
    np.testing.assert_allclose(rows @ rows.T, kernel.dense(), atol=1e-9)


# psi norm -----------------------------------------------------------------------------------------------------------


def test_psi_norm_of_theory_t7():
    assert geometry.psi_norm(np.array([1.0, -2, 0.5]), 1) == pytest.approx(1.8397825645280177, rel=1e-12)
    assert geometry.psi_norm(np.array([1.0, -2, 0.5]), 2) == pytest.approx(1.7777439933154071, rel=1e-12)
    assert geometry.psi_norm(np.array([3.0]), 2) == pytest.approx(3.6033672263593495, rel=1e-14)


@pytest.mark.parametrize(
    ("quantiles", "alpha", "expected"),
    [
        (norm.ppf, 1, 1.3724949919103484),
        (lambda u: math.sqrt(3) * (2 * u - 1), 2, 1.3383691554),
        (lambda u: math.sqrt(3) * (2 * u - 1), 1, 1.3785480619),
        (np.sign, 1, 1.4426950408889634),
        (np.sign, 2, 1.2011224087864498),
    ],
)
def test_psi_norm_of_known_laws(quantiles, alpha, expected):
    grid = (np.arange(400_000) + 0.5) / 400_000
    assert geometry.psi_norm(quantiles(grid), alpha) == pytest.approx(expected, rel=2e-4)


NUMBERS = st.floats(-1e3, 1e3).filter(lambda value: value == 0 or abs(value) > 1e-200)
"""Below, quotients and products have fewer digits than are compared."""


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.floats(0.2, 2), st.floats(1e-3, 1e3))
@quick
def test_psi_norm_solves_its_equation_and_scales(values, alpha, scale):
    x = np.array(values)
    found = geometry.psi_norm(x, alpha)
    if not np.any(x):
        assert found == 0.0
        return
    largest = np.abs(x).max()
    assert largest / math.log(2 * len(x)) ** (1 / alpha) <= found * (1 + 1e-12)
    assert found <= largest / math.log(2) ** (1 / alpha) * (1 + 1e-12)
    assert found == pytest.approx(naive.psi_norm(values, alpha), rel=1e-9)
    assert geometry.psi_norm(scale * x, alpha) == pytest.approx(scale * found, rel=1e-9)


def test_psi_norm_refuses_what_has_no_norm():
    with pytest.raises(DataError, match="psi_norm was given 0 values"):
        geometry.psi_norm(np.array([]), 1)
    with pytest.raises(DataError, match="values has 1 rows with NaN or infinity, the first is row 1"):
        geometry.psi_norm(np.array([1.0, math.nan]), 1)
    with pytest.raises(ConfigError, match="alpha is 3, but must lie between 0 and 2"):
        geometry.psi_norm(np.array([1.0]), 3)
