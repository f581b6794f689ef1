"""Theorem 4.3 of 2403.18742: empty as published, and the certificate that takes its place."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.theory.learning_dynamics import (
    Constants,
    accuracy_bound,
    accuracy_certificate,
    certified_share,
    margin_ceiling,
    published_accuracy_margin,
    smallest_variance_exponent,
)

seeds = st.integers(0, 2**16)


def of_t9(width=4096, gap=4096**0.1, radius=0.7):
    return Constants(
        n_plus=2,
        n_minus=2,
        width=width,
        gap=gap,
        weighted_gap=gap,
        trace_plus=0.0,
        trace_minus=0.0,
        op_norm=0.0,
        radius=radius * gap,
    )


def policy_accuracy(states, signs, boundary):
    right = sum(
        1 for g, s in zip(states, signs, strict=True) if s * sum(a * b for a, b in zip(g, boundary, strict=True)) > 0
    )
    return right / len(states)


# as published -------------------------------------------------------------------------------------------------------


def test_numbers_of_theory_t10():
    c = of_t9()
    margin = published_accuracy_margin(c, boundary_norm=1.0, phi=0.2, beta=1 / 64, variance_exponent=0.36)
    assert margin == pytest.approx(2150.7087936625203, rel=1e-12)
    assert margin_ceiling(c) == pytest.approx(3.216355393991698, rel=1e-12)
    bound = accuracy_bound(c, boundary_norm=1.0, phi=0.2, beta=1 / 64, learning_rate=0.01, variance_exponent=0.36)
    assert bound.applies
    assert bound.value == 0.0
    assert bound.is_vacuous
    assert bound.standing == "empty"
    assert "asks for a margin of 2151, but no state it covers has more than 3.216" in bound.note


def test_no_state_has_the_margin_it_asks_for_anywhere_on_a_grid():
    smallest = math.inf
    for power in (8, 12, 16, 20, 26, 30):
        width = 2**power
        for v in np.linspace(smallest_variance_exponent(width), 0.5, 30):
            for phi in (0.0, 0.1, 0.5, 0.9, 0.99, 0.999):
                if not width ** -float(v) < (1 - phi) / 13:
                    continue
                c = of_t9(width=width, gap=1.0, radius=0.5)
                for norm in (0.0, 1e-6, 1.0):
                    margin = published_accuracy_margin(
                        c, boundary_norm=norm, phi=phi, beta=1e-3, variance_exponent=float(v)
                    )
                    smallest = min(smallest, margin / margin_ceiling(c))
    assert 1.0 < smallest == pytest.approx(1.001, abs=1e-3)


@given(st.floats(0.0, 0.9999), st.floats(4.0, 60.0), st.floats(0.0, 1e3), st.floats(1e-4, 10.0), st.floats(0.5, 50.0))
@settings(max_examples=100, deadline=None)
def test_nor_anywhere_else(phi, doublings, norm, beta, radius):
    """d^v = 2^doublings of 16 or more, at any width that allows it."""
    width = 2**62
    if not 2.0**-doublings < (1 - phi) / 13:
        return
    c = of_t9(width=width, gap=2.0, radius=radius)
    margin = published_accuracy_margin(
        c, boundary_norm=norm, phi=phi, beta=beta / math.sqrt(width), variance_exponent=doublings / 62
    )
    assert margin > margin_ceiling(c)


def test_outside_its_conditions_it_says_so():
    c = of_t9()
    used: dict[str, Any] = {"boundary_norm": 1.0, "beta": 1 / 64, "variance_exponent": 0.36}
    bound = accuracy_bound(c, phi=-0.5, learning_rate=0.01, **used)
    assert [condition.says for condition in bound.failed] == ["phi >= 0"]
    bound = accuracy_bound(c, phi=0.5, learning_rate=0.01, **used)
    assert [condition.says for condition in bound.failed] == ["d^-v < (1 - phi)/13"]
    bound = accuracy_bound(c, phi=0.2, learning_rate=0.1, **used)
    assert [condition.says for condition in bound.failed] == ["t_max >= 1"]
    assert published_accuracy_margin(of_t9(width=1), boundary_norm=1.0, phi=1.0, beta=1.0, variance_exponent=0.0) < 0


# repaired -----------------------------------------------------------------------------------------------------------


def test_a_certificate_is_never_above_the_accuracy_in_500_problems():
    informative = without_sign = eq_36 = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(2, 40)), int(rng.integers(1, 12))
        signs = np.where(rng.random(n) < 0.5, 1, -1)
        gap = rng.normal(size=d)
        states = 10.0 ** rng.uniform(-4, 4) * (signs[:, None] * gap * rng.uniform(0, 3) + rng.normal(size=(n, d)))
        boundary = gap * rng.choice([-1, 1, 1, 1]) + rng.normal(size=d) * rng.uniform(0, 1)
        accuracy = policy_accuracy(states, signs, boundary)
        share = certified_share(states, signs, boundary, gap)
        bound = accuracy_certificate(states, signs, boundary, gap, measured=accuracy)
        assert bound.value == share <= accuracy + 1e-12
        assert bound.kept
        cosine = boundary @ gap / np.linalg.norm(boundary) / np.linalg.norm(gap)
        assert bound.applies is bool(cosine > 0)
        informative += bound.standing == "informative"
        margins = signs * (states @ gap) / np.linalg.norm(gap)
        across = math.sqrt(max(0.0, 1 - cosine**2)) * np.linalg.norm(states, axis=1)
        if cosine <= 0:
            assert share == 0.0
            without_sign += np.mean(margins > across) > accuracy
        else:
            published = np.mean(margins >= across / cosine + 1e-9 * np.abs(margins))
            assert published <= share + 1e-12
            eq_36 += published < share
    assert informative > 200
    assert without_sign > 20  # control: S > 0 is needed
    assert eq_36 > 50  # and the condition is weaker than the paper's


@pytest.mark.parametrize(("cosine", "needed"), [(0.5, 0.8660), (0.8, 0.6), (0.99, 0.1411)])
def test_the_margin_that_is_needed(cosine, needed):
    """In units of the state's length (THEORY 2.5), and not a hair more: turned the other way the state is lost."""
    boundary, gap = np.array([cosine, math.sqrt(1 - cosine**2)]), np.array([1.0, 0.0])
    for margin, sure in ((needed + 1e-4, 1.0), (needed - 1e-4, 0.0)):
        state = 7.0 * np.array([[margin, -math.sqrt(1 - margin**2)]])
        assert certified_share(state, np.array([1]), boundary, gap) == sure
        assert policy_accuracy(state, [1], boundary) == sure


@given(seeds, st.floats(1e-4, 1e4))
@settings(max_examples=25, deadline=None)
def test_the_certificate_ignores_every_length(seed, scale):
    rng = np.random.default_rng(seed)
    states, signs = rng.normal(size=(9, 3)), np.where(np.arange(9) < 4, 1, -1)
    gap = rng.normal(size=3)
    boundary = gap + 0.3 * rng.normal(size=3)
    share = certified_share(states, signs, boundary, gap)
    assert certified_share(scale * states, signs, boundary / scale, gap * scale) == share
    assert certified_share(states, -signs, -boundary, -gap) == share


def test_undefined_directions_certify_nothing():
    states, signs = np.eye(2), np.array([1, -1])
    for boundary, gap in ((np.zeros(2), np.ones(2)), (np.ones(2), np.zeros(2))):
        bound = accuracy_certificate(states, signs, boundary, gap)
        assert bound.value == 0.0
        assert not bound.applies
    edge = np.array([[0.0, 1.0]])  # at right angles to a boundary that is the gap itself
    assert certified_share(edge, np.array([1]), np.array([1.0, 0]), np.array([1.0, 0])) == 0.0
