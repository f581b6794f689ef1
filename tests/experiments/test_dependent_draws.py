"""Rows that hang together: what they are worth, how they are drawn, and the samples that break Theorem 4.1."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from prefdyn._random import stream
from prefdyn.dynamics.descent import descent
from prefdyn.experiments.robustness_of_claims.draws import (
    BETA,
    PAIRS,
    WIDTH,
    at_least_share,
    drawn,
    mean_error,
    violations,
    worth,
)
from prefdyn.maths.objectives import DPO
from prefdyn.synthetic import Dependence, gaussian_groups
from prefdyn.theory.learning_dynamics import Constants, population_drift_bound

COPIES = Dependence(size=4, correlation=1.0)
CLUSTERS = Dependence(size=4, correlation=0.5)
CHAIN = Dependence(kind="chain", correlation=0.6)


def correlations(dependence, rows):
    """The correlation of every two rows."""
    apart = np.abs(np.arange(rows)[:, None] - np.arange(rows)[None])
    if dependence.kind == "chain":
        return dependence.correlation**apart
    block = np.arange(rows) // dependence.size
    return np.where(apart == 0, 1.0, np.where(block[:, None] == block[None], dependence.correlation, 0.0))


@pytest.mark.parametrize("dependence", [COPIES, CLUSTERS, CHAIN, Dependence(), Dependence(kind="chain")])
@pytest.mark.parametrize("rows", [4, 24])
def test_rows_are_worth_what_the_variance_of_their_mean_says(dependence, rows):
    """Variance of the mean over that of one row: 1ᵀR1/n²."""
    assert worth(dependence, rows) == pytest.approx(rows**2 / correlations(dependence, rows).sum())


@pytest.mark.parametrize("dependence", [COPIES, CLUSTERS, CHAIN])
def test_draws_have_the_law_and_the_correlations_that_were_asked_for(dependence):
    """Two rows are the same one with the chance that is their correlation (and one in the population else)."""
    rng, population, rows, draws = np.random.default_rng(0), 5, 8, 6000
    found = np.array([drawn(dependence, rows, population, rng) for _ in range(draws)])
    share = np.array([(found == value).mean(axis=0) for value in range(population)])
    assert np.abs(share - 1 / population).max() < 5 * math.sqrt(0.16 / draws)
    same = (found[:, :, None] == found[:, None, :]).mean(axis=0)
    wanted = correlations(dependence, rows)
    assert np.abs(same - (wanted + (1 - wanted) / population)).max() < 5 * math.sqrt(0.25 / draws)


@pytest.mark.parametrize("dependence", [Dependence(), COPIES, CLUSTERS, CHAIN])
def test_means_err_as_predicted_with_the_rows_that_they_are_worth(dependence):
    """Standard error of the ratio over 2,000 draws: about sqrt(2/20/4000) = 0.5 %."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(30, 20)), rng.normal(size=(40, 20)) + 0.2
    found = mean_error(first, second, dependence, rows=24, draws=2000, rng=rng)
    assert found.error == pytest.approx(found.predicted, rel=0.03)
    assert found.distance == pytest.approx(found.predicted_distance, rel=0.03)
    assert found.true_distance == pytest.approx(np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2))
    times = 24 / worth(dependence, 24)
    assert found.error / found.independent == pytest.approx(times, rel=0.03)


def test_the_counterexample_is_that_of_theory():
    """THEORY 2.2: claimed failure 1.8e-4, violated in every run, measured over bound 1.19; the repaired bound is an
    equality at the first step."""
    found = violations(1, draws=6, steps=4)
    assert found.stated == pytest.approx(1.8e-4, rel=0.02)
    assert found.published == found.draws == 6
    assert found.excess == pytest.approx(1.19, abs=0.02)
    assert 1 - 1e-6 <= found.repaired <= 1 + 1e-6


@pytest.mark.parametrize("copies", [1, 5])
def test_the_first_step_is_the_weighted_gap_in_closed_form(copies):
    """√2/4 eta beta ‖b_w‖ over 6 eta beta D, D = 1."""
    lengths = []
    for seed in range(3):
        feats = gaussian_groups(
            PAIRS, groups=1, width=WIDTH, half_gap=0.5, dependence=Dependence(size=copies, correlation=1.0),
            held_out=0.0, seed=seed,
        )  # fmt: skip
        signs = feats.signs(0)
        assert signs is not None
        lengths.append(np.linalg.norm(2 / PAIRS * signs @ feats.states.astype(float)))
    expected = math.sqrt(2) / 4 / 6 * np.mean(lengths)
    assert violations(copies, draws=3, steps=1).excess == pytest.approx(expected, rel=1e-6)
    assert BETA == 1 / 64


@pytest.mark.parametrize("copies", [1, 10])
def test_a_new_sample_keeps_the_bound_of_the_rows_that_it_is_worth(copies):
    """Three deviations, chance exp(-4.5) = 0.011 a draw; with every copy counted the bound is broken in all draws."""
    settings = {"beta": BETA, "learning_rate": 0.2, "steps": 1}

    def bound(rows):
        truth = Constants(
            n_plus=rows, n_minus=rows, width=WIDTH, gap=1.0, weighted_gap=1.0, trace_plus=float(WIDTH),
            trace_minus=float(WIDTH), op_norm=1.0, radius=0.5 + math.sqrt(WIDTH),
        )  # fmt: skip
        found = population_drift_bound(truth, **settings, deviations=3.0)
        assert found.failure == pytest.approx(math.exp(-4.5))
        return found.value

    broken = {rows: 0 for rows in (PAIRS // 2, PAIRS // 2 // copies)}
    for seed in range(4):
        feats = gaussian_groups(
            PAIRS, groups=1, width=WIDTH, half_gap=0.5, dependence=Dependence(size=copies, correlation=1.0),
            held_out=0.0, seed=seed,
        )  # fmt: skip
        walked = descent(feats, DPO(beta=BETA), learning_rate=0.2, steps=1).curve("drift", group=feats.groups[0])[1][-1]
        for rows in broken:
            broken[rows] += walked > bound(rows)
    assert broken[PAIRS // 2 // copies] == 0
    assert broken[PAIRS // 2] == (0 if copies == 1 else 4)


def test_the_exact_limit_of_a_share():
    assert at_least_share(20, 20) == pytest.approx(0.05 ** (1 / 20))
    limit = at_least_share(7, 30)
    assert binom.sf(6, 30, limit) == pytest.approx(0.05, rel=1e-6)
    assert at_least_share(0, 9) == 0.0


def test_streams_decide_the_draws():
    one, other = (drawn(CHAIN, 12, 50, stream(seed, "a")).tolist() for seed in (0, 0))
    assert one == other
