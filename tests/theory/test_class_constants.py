"""What the theorems of 2403.18742 see of a dataset: plug-in constants, tails, and the population's own numbers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.learning_dynamics import Constants, constants, subexponential_norm
from tests.naive import diagnostics as naive

seeds = st.integers(0, 2**16)
T1 = np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), np.array([True, True, False, False])


def cloud(seed, n=11, d=4, positives=5):
    rng = np.random.default_rng(seed)
    positive = rng.permutation(n) < positives
    return rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d) + rng.normal(size=d), positive


@pytest.mark.parametrize(("n", "d", "positives"), [(11, 4, 5), (6, 20, 3), (9, 1, 2)])
def test_plug_in_constants_equal_their_definitions(n, d, positives):
    x, positive = cloud(n, n, d, positives)
    c = constants(x, positive)
    classes = [x[positive], x[~positive]]
    covariances = [naive.covariance(rows).reshape(d, d) for rows in classes]
    means = [rows.mean(axis=0) for rows in classes]
    assert (c.n_plus, c.n_minus, c.n, c.width) == (positives, n - positives, n, d)
    assert c.gap == pytest.approx(np.linalg.norm(means[0] - means[1]))
    signed = 2 / n * sum(row if up else -row for row, up in zip(x, positive, strict=True))
    assert c.weighted_gap == pytest.approx(np.linalg.norm(signed))
    shares = positives / n, 1 - positives / n
    assert c.weighted_gap == pytest.approx(np.linalg.norm(2 * (shares[0] * means[0] - shares[1] * means[1])))
    assert c.op_norm == pytest.approx(max(np.linalg.norm(s, 2) for s in covariances))
    radius = max(np.linalg.norm(m) + math.sqrt(np.trace(s)) for m, s in zip(means, covariances, strict=True))
    assert c.radius == pytest.approx(radius)
    assert c.noise == pytest.approx(
        math.sqrt(sum(np.trace(s) / len(r) for s, r in zip(covariances, classes, strict=True)))
    )
    assert c.class_noise == pytest.approx(
        math.sqrt(max(np.trace(s) / len(r) for s, r in zip(covariances, classes, strict=True)))
    )
    spread = sum(share * np.trace(s) for share, s in zip(shares, covariances, strict=True))
    assert c.weighted_noise == pytest.approx(math.sqrt(4 / n * spread))
    assert c.smoothness == pytest.approx(np.linalg.norm(x.T @ x / n, 2))
    assert c.largest_norm == pytest.approx(max(np.linalg.norm(row) for row in x))
    assert c.mean_norm == pytest.approx(sum(np.linalg.norm(row) for row in x) / n)


def test_constants_of_theory_t1():
    c = constants(*T1)
    assert c.gap == pytest.approx(math.sqrt(5), rel=1e-12)
    assert c.smoothness == pytest.approx(1.70710678, abs=5e-9)


def test_derived_constants_are_the_papers():
    c = Constants(
        n_plus=450,
        n_minus=450,
        width=4096,
        gap=4096**0.3,
        weighted_gap=4096**0.3,
        trace_plus=1.0,
        trace_minus=1.0,
        op_norm=128.0,
        radius=64.0,
    )
    assert c.exponent == pytest.approx(0.3)
    assert (c.c_v, c.c_n) == (2.0, 1.0)
    assert c.gamma == 900 / 64
    assert c.c_n_scaled == pytest.approx(c.c_n * 4096 ** (0.5 - 0.3))
    assert c.scaled_beta(0.01) == pytest.approx(0.64)


def test_equal_classes_have_equal_gaps_and_unequal_ones_do_not():
    x, positive = cloud(2, n=10, positives=5)
    c = constants(x, positive)
    assert c.weighted_gap == pytest.approx(c.gap, rel=1e-12)
    assert c.weighted_noise == pytest.approx(c.noise, rel=1e-12)
    x, positive = cloud(2, n=10, positives=3)
    c = constants(x, positive)
    assert abs(c.weighted_gap - c.gap) > 0.01 * c.gap


def test_the_errors_of_the_means_are_the_rms_over_draws():
    rng = np.random.default_rng(0)
    sizes, n = (4, 12), 16
    scales = (np.array([2.0, 0.5, 0.1]), np.array([1.0, 1.0, 0.3]))
    gaps, weighted, worst = [], [], []
    for _ in range(4000):
        errors = [scale * rng.normal(size=(size, 3)).mean(axis=0) for size, scale in zip(sizes, scales, strict=True)]
        gaps.append(np.sum((errors[0] - errors[1]) ** 2))
        weighted.append(np.sum((2 / n * (sizes[0] * errors[0] - sizes[1] * errors[1])) ** 2))
        worst.append(np.sum(errors[0] ** 2))
    c = Constants(
        n_plus=4,
        n_minus=12,
        width=3,
        gap=0.0,
        weighted_gap=0.0,
        trace_plus=float(np.sum(scales[0] ** 2)),
        trace_minus=float(np.sum(scales[1] ** 2)),
        op_norm=4.0,
        radius=2.1,
    )
    for found, squares in ((c.noise, gaps), (c.weighted_noise, weighted), (c.class_noise, worst)):
        assert found**2 == pytest.approx(np.mean(squares), abs=float(4 * np.std(squares)) / math.sqrt(len(squares)))


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_constants_turn_with_the_space_and_scale_with_the_unit(seed, scale):
    x, positive = cloud(seed)
    before, after = constants(x, positive), constants(scale * x @ ortho_group.rvs(4, random_state=seed), positive)
    for name, power in {
        "gap": 1,
        "weighted_gap": 1,
        "op_norm": 2,
        "radius": 1,
        "smoothness": 2,
        "mean_norm": 1,
    }.items():
        assert getattr(after, name) == pytest.approx(scale**power * getattr(before, name), rel=1e-9)
    assert after.c_n_scaled == pytest.approx(before.c_n_scaled)
    assert after.c_n_scaled >= 0.5  # the radius is at least half of the gap


def test_half_precision_states_are_measured_in_double():
    x, positive = cloud(4)
    wide, narrow = constants(x.astype(np.float32), positive), constants(x, positive)
    assert wide.gap == pytest.approx(narrow.gap, rel=1e-6)
    assert isinstance(wide.gap, float)


def test_classes_too_small_or_without_spread():
    x, positive = cloud(0, n=5, positives=1)
    c = constants(x, positive)
    assert math.isnan(c.op_norm)
    assert math.isnan(c.radius)
    assert math.isnan(c.noise)
    assert c.weighted_gap > 0
    flat = constants(np.ones((4, 3)), T1[1])
    assert (flat.gap, flat.op_norm, flat.exponent, flat.c_n_scaled) == (0.0, 0.0, -math.inf, math.inf)
    assert math.isnan(constants(np.array([[1.0], [2], [3], [4]]), T1[1]).exponent)  # d = 1
    huge = constants(1e4 * np.ones((4, 3)) * np.array([[1], [1], [-1], [-1]]), T1[1])
    assert huge.gap == pytest.approx(2e4 * math.sqrt(3))


def test_what_cannot_be_measured_is_refused():
    x, positive = cloud(0)
    with pytest.raises(DataError, match="needs both classes, but 11 of 11"):
        constants(x, np.ones(11, dtype=bool))
    x[3, 1] = np.nan
    with pytest.raises(DataError, match="states has 1 rows with NaN or infinity, the first is row 3"):
        constants(x, positive)
    good: dict[str, Any] = {"n_plus": 1, "n_minus": 1, "width": 2, "gap": 1.0, "weighted_gap": 1.0, "trace_plus": 1.0}
    good |= {"trace_minus": 1.0, "op_norm": 1.0, "radius": 1.0}
    with pytest.raises(ConfigError, match=r"op_norm is -1.0, but is a length or a variance; give 0 or more"):
        Constants(**{**good, "op_norm": -1.0})
    with pytest.raises(ConfigError, match="n_plus is 0, but must be a whole number of at least 1"):
        Constants(**{**good, "n_plus": 0})
    with pytest.raises(ConfigError, match="beta is 0"):
        Constants(**good).scaled_beta(0)


# tails --------------------------------------------------------------------------------------------------------------


def test_gaussian_classes_have_the_norm_of_a_gaussian_whatever_their_covariance():
    rng = np.random.default_rng(0)
    n, mixing = 4000, np.array([[3.0, 0.0], [2.9, 0.05]])
    x = rng.normal(size=(n, 2)) @ mixing.T + 7
    positive = np.arange(n) < n // 2
    assert subexponential_norm(x, positive, 1.0) == pytest.approx(1.3725, abs=0.05)
    assert subexponential_norm(x, positive, 2.0) == pytest.approx(1.633, abs=0.12)
    # Control: without whitening the norm would be that of the raw scale, and heavy tails are seen.
    assert subexponential_norm(100 * x, positive, 1.0) == pytest.approx(subexponential_norm(x, positive, 1.0), rel=1e-6)
    heavy = rng.standard_t(2, size=(n, 2))
    assert subexponential_norm(heavy, positive, 1.0) > 2


def test_directions_without_variance_are_left_out():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(200, 2)), np.full((200, 1), 5.0)], axis=1)
    positive = np.arange(200) % 2 == 0
    assert subexponential_norm(x, positive, 1.0) == pytest.approx(subexponential_norm(x[:, :2], positive, 1.0))
    assert math.isnan(subexponential_norm(np.ones((4, 2)), T1[1], 2.0))
    wide = rng.normal(size=(6, 50))
    assert math.isfinite(subexponential_norm(wide, np.arange(6) < 3, 2.0))


def test_bad_tails_are_refused():
    x, positive = cloud(0)
    with pytest.raises(ConfigError, match="alpha is 3"):
        subexponential_norm(x, positive, 3.0)
    with pytest.raises(DataError, match="needs both classes"):
        subexponential_norm(x, np.zeros(11, dtype=bool), 2.0)
    x[0] = np.inf
    with pytest.raises(DataError, match="the first is row 0"):
        subexponential_norm(x, positive, 2.0)
