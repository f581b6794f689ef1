"""Every objective against its printed pulls, its own derivative and its curvature; what descent makes of each."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prefdyn.dynamics.descent import descent, stable_learning_rate
from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import DPO, GPOIPO, LOG2, SPELLINGS, SLiC, objective
from prefdyn.planning.audit import audit
from prefdyn.planning.simulate import simulate
from prefdyn.synthetic import gaussian_groups

ALL = (DPO(beta=0.1), SLiC(beta=0.1), GPOIPO(beta=0.1))


def test_pulls_of_theory_t6():
    margins = np.array([-1, 0, 0.5, 1, 2])
    expected = [0.7310585786, 0.5, 0.3775406688, 0.2689414214, 0.1192029220]
    np.testing.assert_allclose(DPO().push(margins), expected, atol=5e-11)
    assert GPOIPO().push(margins).tolist() == [4, 2, 1, 0, -2]
    assert SLiC().push(margins).tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
@given(st.floats(-50, 50))
def test_the_push_is_minus_the_slope_and_changes_no_faster_than_the_curvature(each, margin):
    assume(abs(margin - 1) > 1e-3)  # the kink
    step = 1e-4
    below, here, above = (np.array([margin + change]) for change in (-step, 0.0, step))
    slope = (each.loss(above) - each.loss(below)) / (2 * step)
    push = each.push(here)
    np.testing.assert_allclose(push, -slope, atol=1e-6, rtol=1e-7)
    assert not np.allclose(2 * push + 1e-3, -slope, atol=1e-6, rtol=1e-7)
    assert abs(each.push(above) - each.push(below)) <= each.curvature * 2 * step * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_extreme_margins_neither_overflow_nor_warn_and_torch_agrees(each):
    torch = pytest.importorskip("torch")
    margins = np.array([-1e4, -1.0, 0.0, 1.0, 1e4])
    for formula in (each.loss, each.push):
        found = formula(margins)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(formula(torch.tensor(margins)).numpy(), found, rtol=1e-15)
    assert each.push(margins).dtype == np.float64


def test_the_losses_at_the_start():
    zero = np.zeros(1)
    assert [float(each.loss(zero)[0]) for each in ALL] == [LOG2, 1.0, 1.0]
    assert SLiC().loss(np.array([0.25, 3.0])).tolist() == [0.75, 0.0]
    assert GPOIPO().loss(np.array([0.0, 3.0])).tolist() == [1.0, 4.0]


def test_names_and_their_spellings():
    assert {name: objective(name, beta=0.3).name for name in SPELLINGS} == SPELLINGS
    assert objective("slic", beta=0.2) == SLiC(beta=0.2)
    assert objective("gpo_ipo", beta=0.2) == GPOIPO(beta=0.2)
    with pytest.raises(ConfigError, match="objective 'orpo' is unknown; known: dpo, gpo_ipo, hinge, sigmoid, slic"):
        objective("orpo", beta=0.1)
    with pytest.raises(ConfigError, match="objective 'ipo' is unknown"):  # TRL's ipo is another loss
        objective("ipo", beta=0.1)
    for kind in (SLiC, GPOIPO):
        with pytest.raises(ConfigError, match="beta is 0"):
            kind(beta=0.0)


def test_descent_stops_at_the_margin_that_slic_asks_for_and_ipo_aims_at():
    """One pair of clusters without noise to speak of: every pair moves as one, r <- r + step * push(r)."""
    feats = gaussian_groups(4, groups=1, width=2, noise=1e-9, held_out=0.0)
    gain = 0.06  # rate beta^2 2: all four pairs share one kernel value, 2
    expected = {"sigmoid": 0.0, "hinge": 0.0, "gpo_ipo": 0.0}
    for each in ALL:
        for _ in range(60):
            expected[each.name] += float(gain * each.push(np.array([expected[each.name]]))[0])
        run = descent(feats, each, learning_rate=gain / (2 * 0.1**2), steps=60, margins_at=[60])
        np.testing.assert_allclose(run.margins[60], expected[each.name], atol=1e-6)
        assert run.settings["objective"] == each.name
    assert 1 <= expected["hinge"] < 1 + gain
    assert expected["gpo_ipo"] == pytest.approx(1 - 0.88**60)
    assert expected["gpo_ipo"] < 1 < expected["sigmoid"] + 0.2


def test_the_stable_step_of_ipo_is_an_eighth_of_dpos_and_slic_has_none():
    feats = gaussian_groups(20, groups=1, width=5, held_out=0.0)
    dpo, ipo = (stable_learning_rate(feats, each) for each in (DPO(beta=0.3), GPOIPO(beta=0.3)))
    assert ipo == pytest.approx(dpo / 8)
    _, losses = descent(feats, GPOIPO(beta=0.3), learning_rate=1.99 * ipo, steps=30, record="all").curve(
        "loss", group="group 0"
    )
    assert (np.diff(losses) <= 1e-12).all()
    _, wild = descent(feats, GPOIPO(beta=0.3), learning_rate=2.2 * ipo, steps=200, record="all").curve(
        "loss", group="group 0"
    )
    assert wild[-1] > wild[0]
    with pytest.raises(
        ConfigError, match=r"the loss 'hinge' has a kink.*give learning_rate a number in place of 'auto'"
    ):
        descent(feats, SLiC(beta=0.3))


def test_simulate_takes_every_objective_and_audit_only_dpo():
    feats = gaussian_groups(40, groups=3, width=8)
    for each in ALL:
        found = simulate(feats, each, learning_rate=0.5, steps=5, progress=False)
        assert found.settings["objective"] == each.name
        start = found.trajectory.curve("loss", group="group 1")[1][0]
        assert start == pytest.approx(float(each.loss(np.zeros(1))[0]))
    for each in ALL[1:]:
        with pytest.raises(ConfigError, match=f"the objective is '{each.name}'.*prefdyn simulate"):
            audit(feats, objective=each, learning_rate=0.5, steps=5, progress=False)
