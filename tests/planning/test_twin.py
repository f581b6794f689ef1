"""An audit on real data and a real model equals its slow twin: one prompt at a time, NumPy loops."""

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.planning.simulate import simulate
from tests.conftest import CHAT_3M, PERSONA, needs_shared
from tests.naive import audit as naive

FIVE = ["agreeableness", "openness", "subscribes-to-Buddhism", "neuroticism", "risk-seeking"]


@pytest.mark.thorough
@needs_shared
@pytest.mark.parametrize("limit", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_distinguishability_and_the_joint_loss_after_50_steps_equal_the_twin(limit, tmp_path, monkeypatch):
    from prefdyn.diagnostics.separation import separation

    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path))
    data = load_dataset(f"persona:{PERSONA}", groups=FIVE, limit=limit).split(0.9, seed=0)
    feats = extract(data, str(CHAT_3M), progress=False)
    beta, rate, steps = 0.1, 0.15, 50
    run = simulate(feats, DPO(beta=beta), learning_rate=rate, steps=steps, progress=False).trajectory
    found = separation(feats, permutations=19, bootstraps=5)

    rows = data.to_rows()
    states = naive.last_states(CHAT_3M, [row["prompt"] for row in rows])
    signs = [1 if row["chosen"] == " Yes" else -1 for row in rows]
    groups = [row["group"] for row in rows]
    losses = naive.joint_losses(states, signs, groups, [row["split"] == "train" for row in rows], beta, rate, steps)
    for place, name in enumerate(feats.groups):
        inside = [k for k, group in enumerate(groups) if group == name]
        expected = naive.distinguishability(states[inside], [signs[k] for k in inside])
        assert found.groups[place].distinguishability == pytest.approx(expected, abs=1e-4)
        assert run.final("loss", group=name) == pytest.approx(losses[name, True], abs=1e-4)
        assert run.final("loss", group=name, split="held_out") == pytest.approx(losses[name, False], abs=1e-4)
        assert np.isfinite(expected)
