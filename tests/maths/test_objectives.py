"""Every objective against its printed pulls, its own derivative and its curvature; what descent makes of each."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prefdyn.dynamics.descent import descent, stable_learning_rate
from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import DPO, GPOIPO, IPO, LOG2, SFT, SPELLINGS, RobustDPO, SLiC, objective
from prefdyn.planning.audit import audit
from prefdyn.planning.simulate import simulate
from prefdyn.synthetic import gaussian_groups

ALL = (DPO(beta=0.1), SLiC(beta=0.1), GPOIPO(beta=0.1))
WIDE = (*ALL, DPO(label_smoothing=0.2), RobustDPO(label_smoothing=0.2), IPO(beta=0.5))


def test_pulls_of_theory_t6():
    margins = np.array([-1, 0, 0.5, 1, 2])
    expected = [0.7310585786, 0.5, 0.3775406688, 0.2689414214, 0.1192029220]
    np.testing.assert_allclose(DPO().push(margins), expected, atol=5e-11)
    assert GPOIPO().push(margins).tolist() == [4, 2, 1, 0, -2]
    assert SLiC().push(margins).tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("each", WIDE, ids=repr)
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


@pytest.mark.parametrize("each", WIDE, ids=repr)
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
    with pytest.raises(
        ConfigError,
        match="objective 'orpo' is unknown; known: dpo, gpo_ipo, hinge, ipo, robust, sft, sigmoid, sigmoid_norm, slic",
    ):
        objective("orpo", beta=0.1)
    assert objective("ipo", beta=0.2) == IPO(beta=0.2)  # TRL's, which is not the unit-target one
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


def printed(each, margins):
    """Each loss as its source prints it, in torch."""
    torch = pytest.importorskip("torch")
    nll = -torch.nn.functional.logsigmoid(margins)
    flipped = -torch.nn.functional.logsigmoid(-margins)
    share = getattr(each, "label_smoothing", 0.0)
    match each:
        case DPO():
            return nll * (1 - share) + flipped * share
        case RobustDPO():
            return (nll * (1 - share) - flipped * share) / (1 - 2 * share)
        case IPO():
            return (margins / each.beta - 1 / (2 * each.beta)) ** 2  # of the log-ratio, as TRL writes it
        case SLiC():
            return torch.relu(1 - margins)
        case _:
            return (margins - 1) ** 2


@pytest.mark.parametrize("each", WIDE, ids=repr)
def test_loss_push_and_curvature_are_those_of_the_printed_loss(each):
    torch = pytest.importorskip("torch")
    margins = torch.linspace(-30, 30, 241, dtype=torch.float64).requires_grad_()
    loss = printed(each, margins)
    np.testing.assert_allclose(each.loss(margins.detach().numpy()), loss.detach().numpy(), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(loss.sum(), margins, create_graph=True)
    np.testing.assert_allclose(each.push(margins.detach().numpy()), -slope.detach().numpy(), rtol=1e-10, atol=1e-13)
    if slope.requires_grad and np.isfinite(each.curvature):
        (bend,) = torch.autograd.grad(slope.sum(), margins)
        assert float(bend.max()) <= each.curvature * (1 + 1e-12)
        assert float(bend.max()) > 0.99 * each.curvature


def test_betas_of_many_runs_are_one_call():
    """One column per run: each column is what its own objective gives."""
    margins = np.random.default_rng(0).normal(size=(7, 3))
    betas = np.array([0.1, 0.5, 2.0])
    for kind in (IPO, DPO, GPOIPO, RobustDPO):
        many = kind(beta=betas)
        for run, beta in enumerate(betas):
            np.testing.assert_allclose(many.push(margins)[:, run], kind(beta=float(beta)).push(margins[:, run]))
            np.testing.assert_allclose(many.loss(margins)[:, run], kind(beta=float(beta)).loss(margins[:, run]))


def test_smoothed_labels_stop_at_their_margin_and_robust_ones_never():
    share = 0.1
    stop = np.array([np.log((1 - share) / share)])
    np.testing.assert_allclose(DPO(label_smoothing=share).push(stop), 0, atol=1e-15)
    assert RobustDPO(label_smoothing=share).push(np.array([1e4]))[0] == pytest.approx(share / (1 - 2 * share))
    rng = np.random.default_rng(1)
    margins = rng.normal(size=5)
    flipped = (1 - share) * RobustDPO(label_smoothing=share).loss(margins) + share * RobustDPO(
        label_smoothing=share
    ).loss(-margins)
    np.testing.assert_allclose(flipped, DPO().loss(margins))  # unbiased: the mean over flips is the clean loss


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.5, but must be at least 0 and below 0.5"):
        DPO(label_smoothing=0.5)
    with pytest.raises(ConfigError, match="label_smoothing means nothing to 'ipo'"):
        objective("ipo", beta=0.1, label_smoothing=0.1)
    assert objective("robust", beta=0.1, label_smoothing=0.2) == RobustDPO(beta=0.1, label_smoothing=0.2)
    assert SFT().loss(np.array([-0.5])).tolist() == [0.5]
    with pytest.raises(ConfigError, match="beta is -1"):
        IPO(beta=-1)


@pytest.mark.parametrize("each", WIDE, ids=repr)
@pytest.mark.parametrize(("dtype", "room"), [("float64", 1e-12), ("float32", 2e-6)])
def test_both_libraries_and_dtypes_give_what_autograd_makes_of_the_printed_loss(each, dtype, room):
    """From -30 to 30 and at ±1e4; warnings are errors here, and the dtype stays."""
    torch = pytest.importorskip("torch")
    margins = np.concatenate([np.linspace(-30, 30, 241), [-1e4, 1e4]]).astype(dtype)
    exact = torch.tensor(margins.astype(np.float64)).requires_grad_()
    loss = printed(each, exact)
    (slope,) = torch.autograd.grad(loss.sum(), exact)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = {"loss": each.loss(margins), "push": each.push(margins)}
    for name, expected in (("loss", loss.detach().numpy()), ("push", -slope.numpy())):
        by_torch = getattr(each, name)(torch.tensor(margins))
        assert str(by_torch.dtype) == f"torch.{dtype}"
        assert found[name].dtype == np.dtype(dtype)
        for values in (found[name], by_torch.numpy()):
            np.testing.assert_allclose(values, expected, rtol=room, atol=room)
            assert not np.allclose(values * (1 + 10 * room) + 10 * room, expected, rtol=room, atol=room)


@pytest.mark.parametrize("each", [*WIDE, IPO(beta=0.1), RobustDPO()], ids=repr)
def test_the_push_at_the_start_is_that_of_margin_0(each):
    assert float(each.push(np.zeros(1))[0]) == pytest.approx(each.start_push, rel=1e-15)


def test_the_two_conventions_of_ipo():
    """The original aims at 1/(2 tau) in the log-ratio, which TRL calls beta; 2408.03459 at 1 in the margin."""
    ratios = np.linspace(-20, 20, 9)
    trl, unit = IPO(beta=0.1), GPOIPO(beta=0.2)
    np.testing.assert_allclose(trl.loss(0.1 * ratios), (ratios - 1 / (2 * 0.1)) ** 2, rtol=1e-13)
    np.testing.assert_allclose(trl.loss(0.1 * ratios), unit.loss(0.2 * ratios) / 0.2**2, rtol=1e-13)
    assert not np.allclose(trl.loss(0.1 * ratios), GPOIPO(beta=0.1).loss(0.1 * ratios) / 0.1**2)
    assert trl.push(np.array([0.5]))[0] == 0
    assert GPOIPO(beta=0.1).push(np.array([0.5]))[0] == 1


def test_an_array_of_betas_follows_the_library_and_dtype_of_the_margins():
    torch = pytest.importorskip("torch")
    betas = np.array([0.1, 0.5])
    margins = torch.tensor([[0.0, 0.0], [0.25, 1.0]], dtype=torch.float32)
    pushes = IPO(beta=betas).push(margins)
    assert pushes.dtype == torch.float32
    np.testing.assert_allclose(pushes.numpy(), [[100, 4], [50, -4]], rtol=1e-6)
    np.testing.assert_allclose(IPO(beta=betas).curvature, [200, 8])
    np.testing.assert_allclose(IPO(beta=betas).start_push, [100, 4])
    with pytest.raises(ConfigError, match=r"beta is -0\.5, but must be a finite number above 0"):
        DPO(beta=np.array([0.1, -0.5]))


def test_sft_has_no_pull_on_a_margin():
    assert {each.reads for each in WIDE} == {"margins"}
    assert SFT.reads == "log_probs"
    with pytest.raises(
        ConfigError, match=r"'sft' reads log-probabilities.*choose one of sigmoid, sigmoid_norm, robust, ipo, hinge"
    ):
        SFT().push(np.zeros(1))


def test_no_curvature_of_a_softmax_is_above_that_of_sft():
    """diag(p) - p p' has no eigenvalue above 1/2, which two equal tokens reach."""
    rng = np.random.default_rng(0)
    shares = [rng.dirichlet(np.full(5, strength)) for strength in (0.1, 1.0, 10.0) for _ in range(50)]
    largest = [np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[-1] for p in shares]
    assert max(largest) <= SFT.curvature
    half = np.array([0.5, 0.5])
    assert np.linalg.eigvalsh(np.diag(half) - np.outer(half, half))[-1] == pytest.approx(SFT.curvature)


def test_a_margin_that_is_not_a_number_is_not_hidden():
    for each in WIDE:
        for formula in (each.loss, each.push):
            assert np.isnan(formula(np.array([np.nan]))).all()
