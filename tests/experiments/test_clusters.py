"""The head on the paper's own clusters, against what theory has for it."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.clusters import PER_CLUSTER, clusters
from prefdyn.experiments.published import VALUES
from prefdyn.experiments.statistics import exponent
from prefdyn.experiments.values import mean_at
from prefdyn.theory.measured import values_found
from prefdyn.theory.value_scaling import noiseless_margin


def test_clusters_are_at_the_limits_of_the_theorem():
    feats = clusters(4, tokens="distinct", seed=1)
    assert feats.states.shape == (4 * 2 * PER_CLUSTER, 5 * PER_CLUSTER)
    gaps = []
    for name in feats.groups:
        signs = np.asarray(feats.signs(name))
        states = feats.states[feats.members(name)].astype(float)
        gaps.append((states[signs > 0].mean(axis=0) - states[signs < 0].mean(axis=0)) / 2)
    assert np.array(gaps) @ np.array(gaps).T == pytest.approx(np.eye(4), abs=0.01)
    assert np.abs(np.array(gaps)[:, 0]).max() < 0.01  # at right angles to the offset
    found = values_found(feats)
    assert found is not None
    assert found.model.shared_norm == pytest.approx(0.25, abs=0.01)
    assert found.model.noise == pytest.approx(1 / (32 * np.sqrt(PER_CLUSTER)), rel=0.05)


def early_margins(counts, *, turned=False, seed=0, **settings):
    """Mean margin at a tenth of the steps for each K; directions along axes, or all states turned about the offset."""
    found = []
    for count in counts:
        feats = clusters(count, seed=seed)
        if turned:
            width = feats.states.shape[1]
            turn = np.eye(width)
            turn[1:, 1:] = np.linalg.qr(np.random.default_rng(seed).normal(size=(width - 1, width - 1)))[0]
            feats = replace(feats, states=feats.states @ turn)
        found.append(mean_at([sweep(feats, **settings)[0]], "margin", "train", 0.1))
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_margins_by_gradient_descent_are_those_without_noise(turned):
    settings = {"optimizer": "sgd", "learning_rate": 2.0, "beta": 0.1, "steps": 100}
    found = early_margins([1, 4, 16], turned=turned, **settings)
    time = 0.1**2 * 2.0 * 10 / np.array([1, 4, 16])
    assert found == pytest.approx(noiseless_margin(time), rel=0.02)


@pytest.mark.parametrize(
    ("optimizer", "turned", "rate"), [("sgd", False, -1.0), ("adam", False, 0.0), ("adam", True, -0.5)]
)
def test_the_rate_on_clusters_is_a_matter_of_optimizer_and_axes(optimizer, turned, rate):
    """2408.03459, Theorem 4.2 and code (X-15): 1/K by descent, 1 by Adam along axes, 1/sqrt K by Adam elsewhere."""
    settings = {"optimizer": optimizer, "learning_rate": 2.0 if optimizer == "sgd" else 1e-3, "beta": 0.1, "steps": 100}
    assert exponent(VALUES, early_margins(VALUES, turned=turned, **settings)) == pytest.approx(rate, abs=0.1)
