"""Synthetic features have the sizes, means, tails, answers and dependence that they were asked for."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefdyn._random import stream
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.geometry import distinguishability, effective_size, psi_norm, shared_norm_and_spread
from prefdyn.synthetic import (
    PSI_NORMS,
    Dependence,
    almost_orthogonal_directions,
    answer_pairs,
    gaussian_groups,
    subexponential_classes,
)
from prefdyn.theory.value_scaling.almost_orthogonal import delta_orthogonality, worst_cosine
from prefdyn.theory.value_scaling.model import token_sharing
from tests.naive import margin_flow

# answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "sharing", "distinct"),
    [("shared", 5, False), ("distinct", 1, True), ("common", 5, True), ("ring", 2, True)],
)
def test_token_patterns_share_as_they_say(tokens, sharing, distinct):
    """Z and distinctness of 2408.03459 by its own counting, and the sharing of answers in the kernel itself."""
    found = token_sharing(answer_pairs(tokens, 5))
    assert (found.sharing, found.distinct) == (sharing, distinct)
    feats = gaussian_groups(6, groups=5, width=8, tokens=tokens, held_out=0.0)
    answers = feats.kernel().answers
    overlap = np.rint(answers @ answers.T)
    pattern = margin_flow.answers(tokens, 5)
    for first in range(len(feats)):
        for second in range(len(feats)):
            here, there = (pattern[feats.group[row]][:: 1 if row % 2 == 0 else -1] for row in (first, second))
            expected = sum((a == b) * s for a, s in zip(here, (1, -1), strict=True) for b in there[:1])
            expected -= sum((a == b) * s for a, s in zip(here, (1, -1), strict=True) for b in there[1:])
            if tokens == "common":  # the slow twin lets the common token change sides
                assert abs(overlap[first, second]) == abs(expected)
            else:
                assert overlap[first, second] == expected


def test_exact_sizes_and_classes():
    feats = gaussian_groups([5, 8], groups=2, width=4, tokens="distinct", held_out=0.25)
    assert [len(feats.members(k)) for k in (0, 1)] == [5, 8]
    assert [int(feats.held_out[feats.members(k)].sum()) for k in (0, 1)] == [1, 2]
    for k, first in ((0, 3), (1, 4)):
        signs = feats.signs(k)
        assert signs is not None
        assert int((signs > 0).sum()) == first
    assert feats.tokens == ("+0", "-0", "+1", "-1")
    given = gaussian_groups(2, groups=2, width=3, tokens=[("a", "b"), ("b", "c")])
    assert given.tokens == ("a", "b", "c")
    assert feats.provenance.seed == 0


def test_answers_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="tokens 'rong' is unknown; did you mean 'ring'"):
        gaussian_groups(2, groups=3, width=4, tokens="rong")
    with pytest.raises(ConfigError, match="a ring of tokens needs at least 3 groups, but groups is 2"):
        gaussian_groups(2, groups=2, width=4, tokens="ring")
    with pytest.raises(ConfigError, match="must hold two different answers for each of 2 groups"):
        gaussian_groups(2, groups=2, width=4, tokens=[("a", "a"), ("b", "c")])
    with pytest.raises(ConfigError, match="must hold two different answers for each of 2 groups"):
        gaussian_groups(2, groups=2, width=4, tokens=[("a", "b")])


def test_the_tokens_do_not_move_the_features_and_the_model_gives_back_its_constants():
    model: dict[str, Any] = {"groups": 3, "width": 20, "noise": 0.3, "shared_norm": 0.4, "seed": 3}
    first, second = (gaussian_groups(2000, **model, tokens=tokens) for tokens in ("shared", "ring"))
    np.testing.assert_array_equal(first.states, second.states)
    np.testing.assert_array_equal(first.held_out, second.held_out)
    positive = first.chosen == 0
    found = shared_norm_and_spread(first.states.astype(float), first.group, positive)
    assert found == pytest.approx((0.4, 0.3), rel=0.02)
    model["seed"] = 4
    other = gaussian_groups(2000, **model)
    assert not np.array_equal(first.states, other.states)


# dependence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dependence", "expected"),
    [
        (Dependence(size=5, correlation=0.3), effective_size(40, 5, 0.3)),
        (Dependence(size=8, correlation=1.0), 5.0),
        (Dependence(size=1, correlation=0.7), 40.0),
        (Dependence(size=40, correlation=0.2), effective_size(40, 40, 0.2)),
        (Dependence(kind="chain", correlation=0.6), None),
        (Dependence(kind="chain", correlation=0.0), 40.0),
    ],
    ids=str,
)
def test_dependent_rows_are_worth_their_effective_size(dependence, expected):
    """Mean square of the mean of 40 rows of unit variance is 1/n_eff; rows by themselves stay standard normal."""
    n, width = 40, 6000
    noise = dependence.noise(n, width, stream(1, "test"))
    if expected is None:  # AR(1): n / (1 + 2 sum (1 - k/n) rho^k)
        lags = np.arange(1, n)
        expected = n / (1 + 2 * np.sum((1 - lags / n) * dependence.correlation**lags))
    found = 1 / np.mean(noise.mean(axis=0) ** 2)
    assert found == pytest.approx(expected, rel=4 * math.sqrt(2 / width))
    np.testing.assert_allclose(noise.std(axis=1), 1.0, atol=0.06)
    if expected < 35:
        assert found != pytest.approx(40, rel=0.1)
    if dependence.correlation in (0.3, 0.6):
        correlation = np.corrcoef(noise)
        assert correlation[0, 1] == pytest.approx(dependence.correlation, abs=0.06)
        assert correlation[0, 2] == pytest.approx(
            dependence.correlation ** (2 if dependence.kind == "chain" else 1), abs=0.06
        )
        assert correlation[0, 20] == pytest.approx(0.0, abs=0.06)


def test_copies_stay_within_a_class_and_share_their_prompt():
    feats = gaussian_groups(12, groups=2, width=5, dependence=Dependence(size=3, correlation=1.0), held_out=0.0)
    for group in (0, 1):
        rows = feats.members(group)
        for mine in (rows[::2], rows[1::2]):
            states, text = feats.states[mine], feats.text[mine]
            np.testing.assert_array_equal(states[0], states[1])
            np.testing.assert_array_equal(states[3], states[5])
            assert (states[2] != states[3]).all()
            assert text.tolist() == [text[0]] * 3 + [text[3]] * 3
    assert len(np.unique(feats.text)) == 8
    for text in np.unique(feats.text):
        assert len(np.unique(feats.states[feats.text == text], axis=0)) == 1
    loose = gaussian_groups(12, groups=2, width=5, dependence=Dependence(size=3, correlation=0.9))
    assert len(np.unique(loose.text)) == 24


def test_dependence_moves_the_mean_gap_as_effective_size_predicts():
    """The gap's error over draws, with 24 rows per class in blocks of 6: as from 24/(1 + 5 rho) independent rows."""
    errors = []
    for seed in range(60):
        feats = gaussian_groups(
            48, groups=1, width=40, held_out=0.0, seed=seed, dependence=Dependence(size=6, correlation=0.5)
        )
        difference = feats.states[::2].mean(axis=0) - feats.states[1::2].mean(axis=0) - 2 * np.eye(1, 40, k=1)[0]
        errors.append(float(np.sum(difference**2)))
    expected = 2 * 40 / effective_size(24, 6, 0.5)
    room = 4 * np.std(errors) / math.sqrt(60)
    assert abs(np.mean(errors) - expected) < room
    assert abs(np.mean(errors) - 2 * 40 / 24) > room


@given(st.integers(1, 1000), st.integers(1, 100), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_effective_size_lies_between_the_blocks_and_the_rows(rows, size, correlation):
    found = effective_size(rows * size, size, correlation)
    assert rows * (1 - 1e-9) <= found <= rows * size * (1 + 1e-9)
    covariance = np.full((size, size), correlation) + (1 - correlation) * np.eye(size)
    assert found == pytest.approx(rows * size**2 / covariance.sum())


def test_dependence_that_means_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"correlation is 1\.5"):
        Dependence(correlation=1.5)
    with pytest.raises(ConfigError, match="size is 0"):
        Dependence(size=0)
    with pytest.raises(ConfigError, match="kind 'chian' is unknown; did you mean 'chain'"):
        Dependence(kind="chian")
    with pytest.raises(ConfigError, match=r"correlation is 1\.1"):
        effective_size(10, 2, 1.1)
    with pytest.raises(ConfigError, match="rows is 0"):
        effective_size(0, 2, 0.1)


# almost orthogonal --------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(0, 20), st.floats(0, 0.499), st.booleans(), st.integers(0, 99))
@example(2, 0, 1e-9, True, 0)
@settings(max_examples=60, deadline=None)
def test_almost_orthogonal_directions_are_exactly_at_the_limit(values, more, delta, worst, seed):
    width = max(values + 1, 3) + more
    found = almost_orthogonal_directions(values, width, delta, worst=worst, seed=seed)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-12)
    along = found[np.arange(values), np.arange(values) + 1]
    np.testing.assert_allclose(along, 1 - delta**2 / 8, rtol=1e-12)
    assert (found[:, 0] == 0).all()
    cosines = np.abs(found @ found.T - np.eye(values) * np.sum(found**2, axis=1))
    assert cosines.max() <= worst_cosine(delta) + 1e-12
    if worst and values > 1:
        assert cosines.max() == pytest.approx(float(worst_cosine(delta)), abs=1e-12)


def test_the_worst_directions_have_the_delta_they_were_made_with_and_fill_a_feature_set():
    found = almost_orthogonal_directions(6, 30, 0.3, worst=True)
    assert delta_orthogonality(found) == pytest.approx(0.3)
    feats = gaussian_groups(4, groups=6, width=30, noise=1e-6, directions=found, held_out=0.0)
    np.testing.assert_allclose(feats.states[feats.members(2)[0]], found[2], atol=1e-5)
    with pytest.raises(ConfigError, match=r"delta is 0\.5"):
        almost_orthogonal_directions(2, 5, 0.5)
    with pytest.raises(DataError, match="width 2 holds no 2 leaning directions"):
        almost_orthogonal_directions(2, 2, 0.1)


# tails --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PSI_NORMS)
def test_each_family_has_unit_variance_and_its_norm(family):
    """psi_1 by the estimator, which is well behaved; psi_2 where the tail is bounded; none where there is none."""
    feats = subexponential_classes(4000, width=50, gap=3.0, family=family, scale=0.5, shared_norm=2.0)
    states = feats.states.astype(float)
    signs = feats.signs("all")
    assert signs is not None
    assert distinguishability(states, signs > 0) == pytest.approx(3.0, abs=0.06)
    assert np.linalg.norm(states.mean(axis=0)) == pytest.approx(2.0, abs=0.05)
    centre = (states[signs > 0].mean(axis=0) + states[signs < 0].mean(axis=0)) / 2
    clean = np.full(50, 3 / 2 / math.sqrt(50))
    assert centre @ clean == pytest.approx(0, abs=0.05)
    z = (states - signs[:, None] * clean - centre) / 0.5
    assert z.std() == pytest.approx(1.0, abs=0.02)
    first, second = PSI_NORMS[family]
    if math.isinf(first):
        grown = psi_norm(z.ravel(), 1.0) / psi_norm(z.ravel()[:2000], 1.0)
        assert grown > 1.05  # no norm: the estimate grows with the sample
        return
    assert psi_norm(z.ravel(), 1.0) == pytest.approx(first, rel=0.02)
    if family in ("uniform", "rademacher"):
        assert psi_norm(z.ravel(), 2.0) == pytest.approx(second, rel=0.03)
    if math.isinf(second):
        assert psi_norm(z.ravel(), 2.0) > 1.08 * psi_norm(z.ravel()[:200], 2.0)


def test_psi_norms_solve_their_equations():
    """E exp((|X|/t)^alpha) = 2 at the tabled norms, in closed form or by a fine grid of quantiles."""
    grid = (np.arange(2_000_000) + 0.5) / 2_000_000
    uniform = math.sqrt(3) * (2 * grid - 1)
    for alpha, norm in zip((1, 2), PSI_NORMS["uniform"], strict=True):
        assert np.mean(np.exp((np.abs(uniform) / norm) ** alpha)) == pytest.approx(2, abs=1e-8)
    for alpha, norm in zip((1, 2), PSI_NORMS["rademacher"], strict=True):
        assert math.exp(norm**-alpha) == pytest.approx(2)
    t = PSI_NORMS["gaussian"][0]
    assert 2 * math.exp(1 / (2 * t * t)) * 0.5 * math.erfc(-1 / t / math.sqrt(2)) == pytest.approx(2)
    assert 1 / math.sqrt(1 - 2 / PSI_NORMS["gaussian"][1] ** 2) == pytest.approx(2)
    assert 1 / (1 - 1 / math.sqrt(2) / PSI_NORMS["laplace"][0]) == pytest.approx(2)


def test_classes_that_mean_nothing_are_refused_and_splits_are_even():
    feats = subexponential_classes(10, width=3, gap=1.0, held_out=0.2)
    signs = feats.signs("all")
    assert signs is not None
    assert [int(feats.held_out[signs == side].sum()) for side in (1, -1)] == [2, 2]
    with pytest.raises(ConfigError, match="family 'gausian' is unknown; did you mean 'gaussian'"):
        subexponential_classes(2, width=2, gap=1.0, family="gausian")
    with pytest.raises(ConfigError, match="gap is -1"):
        subexponential_classes(2, width=2, gap=-1.0)
    with pytest.raises(ConfigError, match="width is 1, but must be a whole number of at least 2"):
        subexponential_classes(2, width=1, gap=1.0, shared_norm=1.0)
    with pytest.raises(ConfigError, match="scale is 0"):
        subexponential_classes(2, width=2, gap=1.0, scale=0.0)
