"""Theorem 4.2 of 2403.18742: where it is false, what repairs it, and the sharper statement."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError
from prefdyn.theory.learning_dynamics import (
    Constants,
    alignment_bound,
    alignment_failure,
    alignment_horizon,
    constants,
    largest_variance_exponent,
    published_alignment_bound,
    published_alignment_limit,
    published_drift_failure,
    sharp_alignment_bound,
    smallest_variance_exponent,
)
from tests.theory.test_last_layer import descend, problem

SETTINGS: dict[str, Any] = {"boundary_norm": 1.0, "beta": 1 / 64, "learning_rate": 0.01, "steps": 2}


def but(settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**settings, **changes}


def of_t9(noise=0.0, gap=4096**0.1):
    """T9: d = 4096, Delta = 0.1, c_n' = 0.7."""
    return Constants(
        n_plus=2,
        n_minus=2,
        width=4096,
        gap=gap,
        weighted_gap=gap,
        trace_plus=noise,
        trace_minus=noise,
        op_norm=noise / 4096,
        radius=0.7 * gap,
    )


def cosine(first, second):
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


# as published -------------------------------------------------------------------------------------------------------


def test_numbers_of_theory_t9():
    c = of_t9()
    horizon = alignment_horizon(c, beta=1 / 64, learning_rate=0.01, variance_exponent=0.36)
    assert horizon == pytest.approx(2.767348544346043, rel=1e-12)
    eps = 1 - 13 * 4096**-0.36 - 0.2
    assert eps == pytest.approx(0.14913072445843206, rel=1e-12)
    limit = published_alignment_limit(c, phi=0.2, variance_exponent=0.36, **SETTINGS)
    assert limit == pytest.approx(0.20001328445559516, rel=1e-14)
    # Eq. 32 is the limit at the horizon itself; the limit is linear in t
    at_horizon = 0.2 + (limit - 0.2) * horizon / 2
    beta_scaled, c_scaled = c.scaled_beta(1 / 64), c.c_n_scaled
    assert at_horizon == pytest.approx(0.2 + eps * 4096**-0.36 / (576 * beta_scaled * c_scaled + 3), rel=1e-14)
    assert at_horizon == pytest.approx(0.20001838135942682, rel=1e-14)


@pytest.mark.parametrize(("width", "largest"), [(64, -1 / 6), (256, 0.0), (768, 0.0827), (4096, 1 / 6)])
def test_only_small_gaps_are_covered(width, largest):
    assert 0.5 - smallest_variance_exponent(width) == pytest.approx(largest, abs=5e-5)
    assert width ** -smallest_variance_exponent(width) == pytest.approx(1 / 16)
    assert smallest_variance_exponent(1) == math.inf


@pytest.mark.parametrize(("phi", "kept"), [(-1.0, False), (-0.9, False), (-0.8, True), (0.0, True), (0.2, True)])
def test_a_start_against_the_gap_breaks_the_promise(phi, kept):
    """THEORY X-22, without any noise: all published conditions hold."""
    c = of_t9()
    states = np.zeros((4, 4096))
    states[:, 0] = np.array([1, 1, -1, -1]) * c.gap / 2
    states[:, 1] = math.sqrt(0.49 - 0.25) * c.gap  # so that every state has length 0.7 D
    boundary = np.zeros(4096)
    boundary[0], boundary[2] = phi, math.sqrt(1 - phi**2)
    path = descend(states, np.array([1, 1, -1, -1]), 1 / 64, 0.01, 2)
    measured = cosine(boundary + 2 * path[2], np.eye(1, 4096)[0])
    published = published_alignment_bound(c, phi=phi, variance_exponent=0.36, measured=measured, **SETTINGS)
    assert published.applies
    assert published.failure == 0.0
    gain = published.value - phi
    assert gain > 1e-6
    # the cosine of so short a walk moves by 1e-4 or less: compare gains, not values
    assert (measured - phi >= gain) is kept
    repaired = alignment_bound(c, phi=phi, variance_exponent=0.36, measured=measured, **SETTINGS)
    assert repaired.applies is (phi >= 0)
    if phi < 0:
        assert [condition.says for condition in repaired.failed] == ["phi >= 0"]


def test_the_threshold_without_noise_is_three_quarters():
    """As d^-v -> 0 the promised gain exceeds the real one, (1 - phi^2) of a quarter, below phi = -3/4."""
    for phi, kept in ((-0.76, False), (-0.74, True)):
        promised, real = (1 - phi) / 8, (1 - phi**2) / 2  # per unit of beta eta t D, small
        assert (real >= promised) is kept


def test_conditions_name_what_fails():
    bound = published_alignment_bound(of_t9(gap=6.0), phi=0.2, variance_exponent=0.2, **but(SETTINGS, steps=50))
    said = [condition.says.split(" ")[0] for condition in bound.failed]
    assert said == ["Delta", "v", "t"]
    unstable = published_alignment_bound(of_t9(), phi=0.2, variance_exponent=0.36, **but(SETTINGS, learning_rate=1e4))
    assert "eta beta'^2 c_n^2 <= 1/4" in [condition.says for condition in unstable.failed]
    noisy = alignment_bound(of_t9(noise=1.0), phi=0.2, variance_exponent=0.36, **SETTINGS)
    assert [condition.says for condition in noisy.failed] == ["max sqrt(Tr Sigma/n_class) <= d^(Delta - v)"]
    assert noisy.failure == pytest.approx(2.0)
    assert published_drift_failure(of_t9(noise=1.0), variance_exponent=0.36) < 0.05  # the published one sees nothing


# repaired -----------------------------------------------------------------------------------------------------------


def within_conditions(seed, width=4096, gap=1.65, n=200, steps=40, phi=0.0, trace_share=0.5):
    """Gaussian features that meet the conditions of the repaired theorem, trained to its horizon."""
    rng = np.random.default_rng(seed)
    v = smallest_variance_exponent(width)
    trace = trace_share * n / 2 * (gap / 16) ** 2
    signs = np.repeat([1, -1], n // 2)
    states = math.sqrt(trace / width) * rng.normal(size=(n, width))
    states[:, 0] += signs * gap / 2
    c = Constants(
        n_plus=n // 2,
        n_minus=n // 2,
        width=width,
        gap=gap,
        weighted_gap=gap,
        trace_plus=trace,
        trace_minus=trace,
        op_norm=trace / width,
        radius=gap / 2 + math.sqrt(trace),
    )
    beta = 1 / math.sqrt(width)
    rate = alignment_horizon(c, beta=beta, learning_rate=1.0, variance_exponent=v) / steps
    boundary = np.zeros(width)
    boundary[0], boundary[1] = phi, math.sqrt(1 - phi**2)
    path = descend(states, signs, beta, rate, steps)
    used: dict[str, Any] = {"boundary_norm": 1.0, "beta": beta, "learning_rate": rate, "steps": steps}
    return c, states, signs, boundary, path, v, used


@pytest.mark.parametrize("phi", [0.0, 0.1, 0.3])
def test_the_repaired_theorem_is_kept_and_how_loose_it_is(phi):
    for seed in range(4):
        c, _, _, boundary, path, v, used = within_conditions(seed, phi=phi)
        measured = cosine(boundary + 2 * path[-1], np.eye(1, c.width)[0])
        bound = alignment_bound(c, phi=phi, variance_exponent=v, measured=measured, **used)
        assert bound.applies
        assert bound.failure < 1e-20
        assert bound.kept
        promised = bound.value - phi
        eps = 1 - 13 / 16 - phi
        assert promised * eps >= 0  # beyond phi = 1 - 13 d^-v it promises a loss
        assert (measured - phi) / promised == pytest.approx(4 * (1 - phi**2) / eps, rel=0.03)
        if phi == 0.0:
            assert (measured - phi) / promised == pytest.approx(21.4, abs=0.7)
            assert not measured - phi >= 25 * promised  # control: a promise 25 times as large is broken


def test_noisy_means_break_what_the_appendix_promises_of_the_increments():
    """The error of Theorem 4.1 again: every published condition holds, and the increments point elsewhere."""
    c, _, _, _, path, v, used = within_conditions(0, width=65536, trace_share=8000.0, n=20, steps=3)
    measured = cosine(path[-1], np.eye(1, c.width)[0])
    used |= {"boundary_norm": 0.0, "phi": math.nan}  # no start: the boundary is the sum of the increments
    published = published_alignment_bound(c, variance_exponent=v, measured=measured, **used)
    assert published.applies
    assert published.failure == pytest.approx(0.07, abs=0.02)
    assert published.value == pytest.approx(1 - 13 / 16)
    assert measured == pytest.approx(0.125, abs=0.02)
    assert published.kept is False
    assert not alignment_bound(c, variance_exponent=v, **used).applies
    # Control: with quiet means the same reading is kept.
    c, _, _, _, path, v, used = within_conditions(0)
    used |= {"boundary_norm": 0.0, "phi": math.nan}
    measured = cosine(path[-1], np.eye(1, c.width)[0])
    assert alignment_bound(c, variance_exponent=v, measured=measured, **used).standing == "informative"


def test_the_failure_of_the_repaired_theorem_is_an_upper_bound():
    """How often a class mean lies further than d^(Delta - v) from the true one, against the stated chance."""
    rng = np.random.default_rng(0)
    width, n = 64, 20
    c = Constants(
        n_plus=n // 2,
        n_minus=n // 2,
        width=width,
        gap=2.0,
        weighted_gap=2.0,
        trace_plus=float(width),
        trace_minus=float(width),
        op_norm=1.0,
        radius=60.0,  # so that the norm term vanishes
    )
    for reach in (2.7, 2.9, 3.1):
        v = -math.log(reach / 2.0) / math.log(width)
        stated = alignment_failure(c, variance_exponent=v)
        lengths = np.linalg.norm(rng.normal(size=(2000, 2, width)) / math.sqrt(n / 2), axis=2)
        assert np.mean((lengths > reach).any(axis=1)) <= stated
    assert 0.05 < alignment_failure(c, variance_exponent=-math.log(3.1 / 2) / math.log(64)) < 1.0
    tail = Constants(
        n_plus=10,
        n_minus=10,
        width=4,
        gap=1e3,
        weighted_gap=1e3,
        trace_plus=4.0,
        trace_minus=4.0,
        op_norm=1.0,
        radius=4.0,
    )
    assert alignment_failure(tail, variance_exponent=0.0) == pytest.approx(20 * math.exp(-8.0))


def test_x23_the_norm_term_in_the_papers_constants():
    c, _, _, _, _, v, _ = within_conditions(0)
    c_v = c.op_norm * c.width ** (2 * v - 0.5)
    delta = c.exponent
    written = -(c.c_n_scaled**2) * c.width ** (2 * delta + 2 * v - 0.5) / (2 * c_v)
    assert written == pytest.approx(-(c.radius**2) / (2 * c.op_norm), rel=1e-9)
    assert 2 * (delta + v - 0.25) != pytest.approx(0.5)  # alpha/4 for alpha = 2 only at v = 1/2 - Delta


# sharper ------------------------------------------------------------------------------------------------------------


def test_the_sharp_statement_holds_in_300_problems_and_its_spoiled_form_does_not():
    spoiled = informative = 0
    for seed in range(300):
        states, signs, beta, limit, rng = problem(seed)
        rate = limit * 10.0 ** rng.uniform(-3, 0)
        c = constants(states, signs > 0)
        gap = 2 / len(states) * signs @ states
        path = descend(states, signs, beta, rate, 4)
        boundary = rng.normal(size=len(gap)) * 10.0 ** rng.uniform(-2, 2) * np.linalg.norm(path[1])
        if seed % 5 == 0:
            boundary = -boundary.std() * gap / np.linalg.norm(gap) if len(gap) > 1 else boundary
        norm = float(np.linalg.norm(boundary))
        phi = max(-1.0, min(1.0, cosine(boundary, gap))) if norm > 0 else math.nan
        for step in (1, 2, 4):
            reached = boundary + 2 * path[step]
            measured = cosine(reached, gap)
            bound = sharp_alignment_bound(
                c, boundary_norm=norm, phi=phi, beta=beta, learning_rate=rate, steps=step, measured=measured
            )
            assert bound.applies
            assert measured >= bound.value - 1e-7
            informative += bound.value > -1
            walked = rate * beta * step * c.weighted_gap / 2
            along, across = phi * norm + walked, math.sqrt(1 - phi**2) * norm
            straight = along / math.hypot(along, across) if math.hypot(along, across) > 0 else 1.0
            spoiled += measured < straight - 1e-6
    assert informative > 300
    assert spoiled > 30


def test_the_sharp_statement_has_nearly_the_whole_gain_where_theorem_4_2_has_a_twentieth():
    for phi in (0.0, 0.3, -0.9):
        _, states, signs, boundary, path, _, used = within_conditions(1, phi=phi)
        sample = constants(states, signs > 0)
        gap = 2 / len(states) * signs @ states
        start, measured = cosine(boundary, gap), cosine(boundary + 2 * path[-1], gap)
        bound = sharp_alignment_bound(sample, phi=start, measured=measured, **used)
        assert bound.applies
        assert bound.kept
        assert (bound.value - start) / (measured - start) > 1 - 1e-5


def test_no_start_and_no_step():
    c = of_t9()
    assert sharp_alignment_bound(c, phi=math.nan, **but(SETTINGS, boundary_norm=0.0, steps=1)).is_vacuous  # no sample
    sample = constants(np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), np.array([True, True, False, False]))
    free: dict[str, Any] = {"boundary_norm": 0.0, "phi": math.nan, "beta": 0.5, "learning_rate": 0.4}
    assert sharp_alignment_bound(sample, **free, steps=1).value == pytest.approx(1.0)
    assert math.isnan(sharp_alignment_bound(sample, **free, steps=0).value)
    assert math.isnan(published_alignment_limit(c, **free, steps=0, variance_exponent=0.36))
    assert published_alignment_limit(c, **free, steps=1, variance_exponent=0.36) == pytest.approx(1 - 13 * 4096**-0.36)
    still = sharp_alignment_bound(sample, boundary_norm=2.0, phi=-0.3, beta=0.5, learning_rate=0.4, steps=0)
    assert still.value == pytest.approx(-0.3)
    far = sharp_alignment_bound(sample, boundary_norm=1e-9, phi=0.0, beta=0.5, learning_rate=9.0, steps=9)
    assert far.value == -1.0
    assert far.is_vacuous


@given(st.floats(1e-4, 1e4), st.integers(1, 5000), st.floats(0.0, 1e4))
@settings(max_examples=50, deadline=None)
def test_extreme_inputs_give_numbers(scale, width, norm):
    c = Constants(
        n_plus=2,
        n_minus=3,
        width=width,
        gap=scale,
        weighted_gap=scale,
        trace_plus=0.0,
        trace_minus=scale,
        op_norm=scale,
        radius=scale,
        smoothness=scale,
    )
    used: dict[str, Any] = {"boundary_norm": norm, "phi": 0.1, "beta": 1e-4, "learning_rate": 1e-3, "steps": 1000}
    for statement in (published_alignment_bound, alignment_bound, sharp_alignment_bound):
        bound = statement(c, **used)
        assert isinstance(bound.applies, bool)
        assert math.isfinite(bound.value) or width == 1


def test_the_variance_exponent_fits_the_data():
    c = within_conditions(0)[0]
    v = largest_variance_exponent(c, c_v=1.0)
    assert v == pytest.approx(min(0.5 - c.exponent, 0.25 - math.log(c.op_norm) / (2 * math.log(c.width))))
    assert c.op_norm <= c.width ** (0.5 - 2 * v) * (1 + 1e-9)
    assert largest_variance_exponent(of_t9()) == pytest.approx(0.4)  # no variance: capped by the gap
    loud = of_t9(noise=4096.0 * 64)
    assert largest_variance_exponent(loud) == pytest.approx(0.0)
    assert largest_variance_exponent(loud, c_v=16.0) == pytest.approx(1 / 6)
    with pytest.raises(ConfigError, match="c_v is 0"):
        largest_variance_exponent(loud, c_v=0)
