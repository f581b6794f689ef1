"""The drift bound on any pair features: random tokens, weights and groups, against descent on the whole head."""

from typing import Any

import numpy as np
import pytest

from prefdyn.dynamics.descent import descent
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.theory.learning_dynamics import constants, drift_bound, pair_drift_bound


def problem(seed):
    """Pairs over up to five tokens with weights, and what the bound asks of them, from the dense kernel."""
    rng = np.random.default_rng(seed)
    n, d, k = int(rng.integers(2, 15)), int(rng.integers(1, 8)), int(rng.integers(2, 6))
    chosen = rng.integers(0, k, n)
    feats = FeatureSet.from_arrays(
        rng.normal(size=(n, d)) * rng.uniform(0.2, 3) + rng.normal(size=d) * rng.uniform(0, 2),
        chosen=chosen,
        rejected=(chosen + rng.integers(1, k, n)) % k,
        tokens=list(range(k)),
        weight=rng.uniform(0.2, 2, n),
    )
    kernel = feats.kernel()
    dense, share = kernel.dense(), feats.weight / feats.weight.sum()
    asked: dict[str, Any] = {
        "mean_feature": float(np.sqrt(max(0.0, share @ dense @ share))),
        "mean_length": float(share @ np.sqrt(np.diag(dense))),
        "smoothness": float(np.linalg.eigvalsh(np.sqrt(np.outer(share, share)) * dense)[-1]),
    }
    return feats, asked, rng


@pytest.mark.parametrize("seed", range(60))
def test_the_drift_stays_below_its_line_and_touches_it_at_the_first_step(seed):
    """Up to the largest stable step; half the constant fails at once, and the no-theorem bound is never beaten."""
    feats, asked, rng = problem(seed)
    beta = float(rng.uniform(0.05, 2))
    rate = float(rng.uniform(0.05, 1) * 8 / (beta**2 * asked["smoothness"]))
    run = descent(feats, DPO(beta=beta), learning_rate=rate, steps=40, record="all", alone=False)
    _, drift = run.curve("drift", group="all")
    for step in (1, 2, 5, 40):
        bound = pair_drift_bound(**asked, beta=beta, learning_rate=rate, steps=step, measured=float(drift[step]))
        assert bound.applies
        assert bound.kept
        assert drift[step] <= bound.trivial
    first = pair_drift_bound(**asked, beta=beta, learning_rate=rate, steps=1)
    assert first.value == pytest.approx(float(drift[1]), rel=1e-9)
    assert drift[1] > first.value / 2


def test_two_answers_give_the_bound_of_one_group():
    rng = np.random.default_rng(5)
    states, positive = rng.normal(size=(12, 3)), np.arange(12) < 7
    chosen = np.where(positive, "Yes", "No")
    feats = FeatureSet.from_arrays(
        states, chosen=chosen, rejected=np.where(positive, "No", "Yes"), tokens=["Yes", "No"]
    )
    kernel = feats.kernel()
    asked: dict[str, Any] = {
        "mean_feature": float(np.sqrt(kernel.dense().mean())),
        "mean_length": float(np.sqrt(kernel.diagonal()).mean()),
        "smoothness": float(np.linalg.eigvalsh(kernel.dense() / 12)[-1]),
    }
    settings: dict[str, Any] = {"beta": 0.3, "learning_rate": 0.7, "steps": 9}
    one = drift_bound(constants(feats.states.astype(float), positive), **settings)
    any_pairs = pair_drift_bound(**asked, **settings)
    assert any_pairs.value == pytest.approx(one.value, rel=1e-12)
    assert any_pairs.trivial == pytest.approx(one.trivial, rel=1e-12)
    assert any_pairs.conditions[0].limit == pytest.approx(one.conditions[0].limit, rel=1e-12)


def test_a_step_beyond_the_stable_one_is_outside():
    asked: dict[str, Any] = {"mean_feature": 1.0, "mean_length": 1.0, "smoothness": 4.0}
    assert pair_drift_bound(**asked, beta=1.0, learning_rate=2.0, steps=1).applies
    assert not pair_drift_bound(**asked, beta=1.0, learning_rate=2.1, steps=1).applies
