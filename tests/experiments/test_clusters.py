"""The head on the paper's own clusters, against what theory has for it."""

import numpy as np
import pytest

from prefdyn.experiments.clusters import PER_CLUSTER, cluster_margins, clusters
from prefdyn.theory.measured import values_found
from prefdyn.theory.value_scaling import noiseless_margin


@pytest.mark.parametrize("dense", [False, True])
def test_clusters_are_at_the_limits_of_the_theorem(dense):
    feats = clusters(4, dense=dense, tokens="distinct", seed=1)
    assert feats.states.shape == (4 * 2 * PER_CLUSTER, 5 * PER_CLUSTER)
    gaps = []
    for name in feats.groups:
        signs = np.asarray(feats.signs(name))
        states = feats.states[feats.members(name)].astype(float)
        gaps.append((states[signs > 0].mean(axis=0) - states[signs < 0].mean(axis=0)) / 2)
    assert np.array(gaps) @ np.array(gaps).T == pytest.approx(np.eye(4), abs=0.01)
    assert np.abs(np.array(gaps)[:, 0]).max() < 0.01  # at right angles to the offset
    assert (np.abs(gaps) > 0.02).sum(axis=1).min() >= (50 if dense else 1)
    found = values_found(feats)
    assert found is not None
    assert found.model.shared_norm == pytest.approx(0.25, abs=0.01)
    assert found.model.noise == pytest.approx(1 / (32 * np.sqrt(PER_CLUSTER)), rel=0.05)


@pytest.mark.parametrize("dense", [False, True])
def test_margins_by_gradient_descent_are_those_without_noise(dense):
    settings = {"optimizer": "sgd", "learning_rate": 2.0, "beta": 0.1, "steps": 100}
    found = cluster_margins([1, 4, 16], dense=dense, seed=0, **settings)
    time = 0.1**2 * 2.0 * 10 / np.array([1, 4, 16])
    assert found == pytest.approx(noiseless_margin(time), rel=0.02)
