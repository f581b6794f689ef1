"""Priority, influence and pushes against printed numbers, explicit loops and the simulated first step."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from prefdyn.diagnostics.prioritization import pair_pushes, prioritization
from prefdyn.dynamics.descent import descent
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from tests.naive import diagnostics as naive

quick = settings(max_examples=20, deadline=None)


def of_gaps(*gaps):
    """One balanced pair of states ±b/2 per group, so that the mean gap of each is b."""
    states = np.concatenate([[np.array(b) / 2, -np.array(b) / 2] for b in gaps])
    m = len(gaps)
    return FeatureSet.from_arrays(
        states,
        chosen=["Yes", "No"] * m,
        rejected=["No", "Yes"] * m,
        group=np.repeat(np.arange(m), 2),
        tokens=["Yes", "No"],
    )


def random_feats(seed, n=12, d=3, answers=4, groups=3, held_out=3, weights=True):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, d)).astype(np.float32).astype(float)
    head = rng.normal(size=(answers + 2, d)).astype(np.float32).astype(float)
    chosen = rng.integers(0, answers, n)
    rejected = (chosen + rng.integers(1, answers, n)) % answers
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, n - groups)])
    weight = rng.uniform(0.5, 2, n) if weights else np.ones(n)
    mask = np.arange(n) >= n - held_out
    tokens = sorted(set(chosen) | set(rejected))
    log_probs = naive.log_prob(states, head)
    feats = FeatureSet.from_arrays(
        states,
        chosen=chosen,
        rejected=rejected,
        tokens=tokens,
        head=head[tokens],
        group=group,
        weight=weight,
        held_out=mask,
        ref_chosen_logps=log_probs[np.arange(n), chosen],
        ref_rejected_logps=log_probs[np.arange(n), rejected],
    )
    codes = np.array([feats.groups.index(str(g)) for g in group])
    return feats, states, head, chosen, rejected, weight, codes, mask


def either_kind(kind, seed):
    if kind == "answers":
        return random_feats(seed)[0]
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 12, 6))
    return FeatureSet.from_arrays(
        chosen_features=first,
        rejected_features=second,
        group=np.arange(12) % 3,
        held_out=np.arange(12) > 8,
        weight=rng.uniform(0.5, 2, 12),
    )


# printed numbers ----------------------------------------------------------------------------------------------------


def test_levels_and_gap_of_theory_t11():
    two = prioritization(of_gaps((3, 0), (0, 1)))
    np.testing.assert_allclose(two.level, [0.9486832980505137, 0.10540925533894598], rtol=1e-12)
    assert two.gap[0, 1] == pytest.approx(0.8432740427115677, rel=1e-12)
    three = prioritization(of_gaps((3, 0), (0, 1), (-1, 2)))
    np.testing.assert_allclose(three.level, [0.5547001962, 0.2773500981, 0.3698001308], atol=1e-10)
    assert three.gap[0, 1] == pytest.approx(0.8432740427115677, rel=1e-12)  # only the two of them


def test_first_step_of_theory_t12():
    feats = FeatureSet.from_arrays(
        [[1, 0], [2, 1], [-1, 0], [0, -1]],
        chosen=["Yes", "Yes", "No", "No"],
        rejected=["No", "No", "Yes", "Yes"],
        tokens=["Yes", "No"],
    )
    found = prioritization(feats, beta=0.5, learning_rate=0.4)
    assert found.first_step_margin[0] == pytest.approx(0.125, rel=1e-12)
    assert found.influence[0, 0] == pytest.approx(0.125, rel=1e-12)
    assert found.level[0] == pytest.approx(1.0)


def test_chosen_falls_while_the_margin_grows_as_in_theory_t19():
    probabilities = np.array([0.05, 0.05, 0.85])
    head = np.stack([np.log(probabilities), [0.0, 0.0, 0.0]], axis=1)
    feats = FeatureSet.from_arrays(
        [[1, 0], [4, 0]],
        chosen=[0, 2],
        rejected=[1, 1],
        tokens=[0, 1, 2],
        head=head,
        ref_chosen_logps=[math.log(0.05), -1.0],
        ref_rejected_logps=[math.log(0.05), -1.0],
    )
    found = pair_pushes(feats, beta=0.1, learning_rate=0.1)
    assert found.chosen_push is not None
    assert found.chosen_push[0] == pytest.approx(-0.0055, abs=1e-9)
    assert found.rejected_push is not None
    assert found.rejected_push[0] == pytest.approx(-0.0205, abs=1e-9)
    others = 0.1 * 0.1**2 / 2 * 0.5 * 4  # P = 1, Σ = 4, N = 2
    assert found.agreement[0] == pytest.approx(others, rel=1e-9)
    assert others + 0.1 * 0.1**2 / 2 * 0.5 * 2 == pytest.approx(0.0015)  # with its own pull: the printed margin


# twins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_everything_equals_the_explicit_twin(seed):
    feats, states, head, chosen, rejected, weight, group, held_out = random_feats(seed)
    phi = naive.flat_features(states, chosen, rejected, len(head))
    train = ~held_out
    level, gap = naive.priority(phi[train], weight[train], group[train], 3)
    beta, rate = 0.3, 0.7
    found = prioritization(feats, beta=beta, learning_rate=rate)
    np.testing.assert_allclose(found.level, level, atol=1e-10)
    np.testing.assert_allclose(found.gap, gap, atol=1e-10)
    agreement, own, influence = naive.pushes(phi, weight, group, held_out, beta, rate)
    np.testing.assert_allclose(found.influence, influence, atol=1e-12)
    np.testing.assert_allclose(found.first_step_margin, influence.sum(axis=0), atol=1e-12)
    pushes = pair_pushes(feats, beta=beta, learning_rate=rate)
    np.testing.assert_allclose(pushes.agreement, agreement, atol=1e-12)
    np.testing.assert_allclose(pushes.group_agreement, own, atol=1e-12)
    # either side: the derivative of log-softmax under one small step on the whole head
    small = 1e-6
    step = small * beta / weight[train].sum() * 0.5 * (weight[train, None] * phi[train]).sum(axis=0)
    rows = np.arange(len(states))
    moved = naive.log_prob(states, head + step.reshape(head.shape)) - naive.log_prob(states, head)
    slopes = pair_pushes(feats, beta=beta, learning_rate=1.0)
    for slope, side in ((slopes.chosen_push, chosen), (slopes.rejected_push, rejected)):
        assert slope is not None
        np.testing.assert_allclose(slope, moved[rows, side] / small, atol=1e-5)


@pytest.mark.parametrize("kind", ["answers", "responses"])
def test_the_first_simulated_step_agrees(kind):
    feats = either_kind(kind, 5)
    beta, rate = 0.2, 1e-6
    run = descent(feats, DPO(beta=beta), learning_rate=rate, steps=1, margins_at=[1])
    found = prioritization(feats, beta=beta, learning_rate=rate)
    for place, name in enumerate(feats.groups):
        assert found.first_step_margin[place] == pytest.approx(run.final("margin", group=name), rel=1e-9)
    pushes = pair_pushes(feats, beta=beta, learning_rate=rate)
    train = ~feats.held_out
    own = rate * beta**2 * 0.5 * feats.weight * feats.kernel().diagonal() / feats.weight[train].sum()
    np.testing.assert_allclose(pushes.agreement + np.where(train, own, 0.0), run.margins[1], rtol=1e-8)
    assert pushes.chosen_push is not None
    np.testing.assert_allclose(pushes.chosen_push, run.chosen_changes[1], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("kind", ["answers", "responses"])
@given(st.integers(0, 5000))
@quick
def test_the_two_sides_pushes_make_the_margins_push(kind, seed):
    """β · (chosen - rejected) is what all others and, in training, the pair itself do to its reward margin."""
    feats = either_kind(kind, seed)
    beta, rate = 0.2, 0.7
    found = pair_pushes(feats, beta=beta, learning_rate=rate)
    pull = np.where(feats.held_out, 0.0, feats.weight)
    own = rate * beta**2 * 0.5 * pull / pull.sum() * feats.kernel().diagonal()
    assert found.chosen_push is not None
    assert found.rejected_push is not None
    np.testing.assert_allclose(beta * (found.chosen_push - found.rejected_push), found.agreement + own, atol=1e-12)


def test_pushes_on_responses_equal_explicit_sums():
    feats = either_kind("responses", 3)
    assert feats.chosen_features is not None
    assert feats.rejected_features is not None
    won, lost = feats.chosen_features.astype(float), feats.rejected_features.astype(float)
    train = np.flatnonzero(~feats.held_out)
    found = pair_pushes(feats, beta=0.3, learning_rate=0.7)
    for push, side in ((found.chosen_push, won), (found.rejected_push, lost)):
        expected = [
            sum(0.7 * 0.3 * 0.5 * feats.weight[j] * float(psi @ (won[j] - lost[j])) for j in train)
            / feats.weight[train].sum()
            for psi in side
        ]
        assert push is not None
        np.testing.assert_allclose(push, expected, atol=1e-12)


def test_group_agreements_with_everyone_add_up():
    feats = random_feats(2)[0]
    whole = pair_pushes(feats, beta=0.1, learning_rate=1.0)
    one = pair_pushes(
        FeatureSet.from_arrays(
            feats.states, chosen=feats.chosen, rejected=feats.rejected, held_out=feats.held_out, weight=feats.weight
        ),
        beta=0.1,
        learning_rate=1.0,
    )
    np.testing.assert_allclose(one.group_agreement, one.agreement, atol=1e-12)
    np.testing.assert_allclose(one.agreement, whole.agreement, atol=1e-12)


# laws ---------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 5000), st.floats(0.1, 50))
@quick
def test_levels_lie_between_minus_one_and_one_and_ignore_scale_and_rotation(seed, scale):
    feats, states, *_ = random_feats(seed)
    level = prioritization(feats).level
    assert (np.abs(level) <= 1).all()
    rotation = ortho_group.rvs(3, random_state=seed)
    other = FeatureSet.from_arrays(
        scale * states @ rotation,
        chosen=feats.chosen,
        rejected=feats.rejected,
        group=feats.group,
        weight=feats.weight,
        held_out=feats.held_out,
    )
    np.testing.assert_allclose(prioritization(other, beta=0.7, learning_rate=3.0).level, level, atol=1e-5)


@given(st.integers(0, 5000))
@quick
def test_the_gap_of_two_equal_groups_is_the_identity_of_theory(seed):
    rng = np.random.default_rng(seed)
    b = rng.normal(size=(3, 4)).astype(np.float32).astype(float)
    found = prioritization(of_gaps(*b))
    for i in range(3):
        for j in range(3):
            if i != j:
                squares, mean = (b[i] @ b[i], b[j] @ b[j]), np.linalg.norm((b[i] + b[j]) / 2)
                expected = (squares[0] - squares[1]) / (2 * mean * math.sqrt(max(squares)))
                assert found.gap[i, j] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found.gap, -found.gap.T, atol=1e-12)


def test_unequal_classes_count_as_in_the_loss():
    """THEORY 1.2: with unequal classes b_w takes the place of the mean gap."""
    states = np.array([[1, 0], [2, 1], [-1, 0]], dtype=float)
    feats = FeatureSet.from_arrays(states, chosen=["Y", "Y", "N"], rejected=["N", "N", "Y"], tokens=["Y", "N"])
    b_w = 2 / 3 * (states[0] + states[1] - states[2])
    found = prioritization(feats, beta=0.5, learning_rate=0.4)
    assert found.first_step_margin[0] == pytest.approx(0.4 * 0.25 / 4 * b_w @ b_w)


def test_a_group_against_the_rest_has_a_negative_level():
    found = prioritization(of_gaps((1, 0), (1, 0), (-0.5, 0.1)))
    assert found.level[2] < 0 < found.level[0]
    assert found.first_step_margin[2] < 0
    assert found.influence[0, 2] < 0


# edges --------------------------------------------------------------------------------------------------------------


def test_groups_that_cancel_have_no_level():
    found = prioritization(of_gaps((1.3, 0.7), (-1.3, -0.7)))
    assert found.vanishing_mean
    assert np.isnan(found.level).all()
    assert np.isnan(found.gap[0, 1])
    np.testing.assert_allclose(found.first_step_margin, 0.0, atol=1e-12)
    nothing = prioritization(of_gaps((0, 0), (0, 0)))
    assert nothing.vanishing_mean
    json.dumps(nothing.rows(), allow_nan=False)


def test_a_group_without_training_pairs_is_nan_and_disturbs_no_other():
    feats = of_gaps((3, 0), (5, 5), (0, 1))
    found = prioritization(feats.with_held_out(feats.group == 1))
    np.testing.assert_allclose(found.level[[0, 2]], [0.9486832980505137, 0.10540925533894598], rtol=1e-12)
    assert np.isnan(found.level[1])
    assert np.isnan(found.gap[1]).all()
    assert np.isnan(found.influence[:, 1]).all()
    expected = dict.fromkeys(("priority", "priority_low", "priority_high", "first_step_margin"))
    assert found.rows()[1] == {"name": "1", **expected}


def test_unknown_reference_probabilities_leave_the_pushes_on_each_side_out():
    feats = FeatureSet.from_arrays(np.eye(3), chosen=[0, 1, 2], rejected=[1, 2, 0])
    found = pair_pushes(feats, beta=0.1, learning_rate=1.0)
    assert (found.chosen_push, found.rejected_push) == (None, None)


def test_pushes_of_many_pairs_never_form_their_square():
    rng = np.random.default_rng(0)
    n = 100_000  # n × n would be 80 GB
    feats = FeatureSet.from_arrays(
        rng.normal(size=(n, 8)), chosen=rng.integers(0, 2, n) * 2, rejected=np.ones(n, dtype=int), tokens=[0, 1, 2]
    )
    found = pair_pushes(feats, beta=0.1, learning_rate=1.0)
    some = np.array([0, 77_777])
    kernel = feats.kernel()
    expected = kernel.rows(some).cross(kernel).sum(axis=1) - kernel.diagonal()[some]
    np.testing.assert_allclose(found.agreement[some], 0.01 * 0.5 / n * expected, rtol=1e-8)


@pytest.mark.parametrize("function", [prioritization, pair_pushes])
def test_settings_and_splits_that_leave_nothing_are_refused(function):
    feats = of_gaps((1, 0))
    with pytest.raises(DataError, match="all 2 pairs are held out, so no pair pulls; lower the held-out share"):
        function(feats.with_held_out(np.ones(2, dtype=bool)), beta=0.1, learning_rate=1.0)
    with pytest.raises(ConfigError, match="beta is 0, but must be a finite number above 0"):
        function(feats, beta=0, learning_rate=1.0)
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        function(feats, beta=0.1, learning_rate=-1)
