"""Descent on features against printed numbers, closed forms, and three independent routes to the same margins."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import wrightomega

from prefdyn.dynamics.descent import (
    _SOLVE,
    MANY_GROUPS,
    descent,
    recorded_steps,
    stable_learning_rate,
    together,
)
from prefdyn.dynamics.measure import log_rest, shifts
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, IPO
from tests.naive.descent import autograd, gram_margins

T1 = {
    "features": [[1, 0], [2, 1], [-1, 0], [0, -1]],
    "chosen": ["Yes", "Yes", "No", "No"],
    "rejected": ["No", "No", "Yes", "Yes"],
    "tokens": ["Yes", "No"],
}


def random_problem(seed, n=12, d=4, vocabulary=6, held_out=3, groups=2):
    """Pairs over several tokens with a full head, so that log-probabilities are exact."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, d))
    head = rng.normal(size=(vocabulary, d)).astype(np.float32).astype(float)
    chosen = rng.integers(0, vocabulary - 1, n)
    rejected = (chosen + rng.integers(1, vocabulary - 1, n)) % (vocabulary - 1)  # the last token never occurs
    logits = states.astype(np.float32).astype(float) @ head.T
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    tokens = sorted(set(chosen) | set(rejected))
    weight = rng.uniform(0.5, 2.0, n)
    mask = np.arange(n) >= n - held_out
    feats = FeatureSet.from_arrays(
        states,
        chosen=chosen,
        rejected=rejected,
        tokens=tokens,
        head=head[tokens],
        ref_chosen_logps=log_probs[np.arange(n), chosen],
        ref_rejected_logps=log_probs[np.arange(n), rejected],
        weight=weight,
        held_out=mask,
        group=np.arange(n) % groups,
    )
    return feats, states.astype(np.float32).astype(float), head, chosen, rejected, weight, np.flatnonzero(~mask)


def test_the_printed_path_of_theory_t1():
    """THEORY T1: margins, loss and head change after 0, 1, 2 and 3 steps."""
    run = descent(FeatureSet.from_arrays(**T1), DPO(beta=0.5), learning_rate=0.4, steps=3, margins_at=range(4))
    table = {
        0: ((0, 0, 0, 0), 0.6931471805599453, 0.0),
        1: ((0.1, 0.25, 0.1, 0.05), 0.6332980970098179, 0.158113883008419),
        2: ((0.19128443, 0.47883517, 0.19128443, 0.09626631), 0.5831089317109237, 0.3028429794769058),
        3: ((0.27476957, 0.68872941, 0.27476957, 0.13919027), 0.5408129992939306, 0.43559671044164894),
    }
    _, losses = run.curve("loss", group="all")
    _, drifts = run.curve("drift", group="all")
    for step, (margins, loss, drift) in table.items():
        np.testing.assert_allclose(run.margins[step], margins, atol=5e-9)
        assert losses[step] == pytest.approx(loss, abs=1e-15)
        assert drifts[step] == pytest.approx(drift, abs=1e-15)


def test_the_printed_margins_of_theory_t3_and_its_unseen_pair():
    """THEORY T3: three tokens, and a pair that is never trained on."""
    feats = FeatureSet.from_arrays(
        [[1, 0], [0, 1], [1, 1], [2, 0]], chosen=[0, 1, 0, 0], rejected=[1, 0, 2, 1], held_out=[0, 0, 0, 1]
    )
    run = descent(feats, DPO(beta=0.5), learning_rate=1.0, steps=3, margins_at=[1, 3])
    np.testing.assert_allclose(run.margins[1][:3], [0.125, 0.0416667, 0.1666667], atol=5e-8)
    np.testing.assert_allclose(run.margins[3][:3], [0.34976264, 0.12975077, 0.45491975], atol=5e-9)
    assert run.margins[3][3] == pytest.approx(0.6995252763846267, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_weight_path_equals_gram_path_and_torch_autograd(seed):
    """Linear margins make all three the same descent; log-probabilities agree with the full softmax too."""
    feats, states, head, chosen, rejected, weight, train = random_problem(seed)
    run = descent(feats, DPO(beta=0.7), learning_rate=0.3, steps=60, margins_at=[60])

    gram = gram_margins(states, chosen, rejected, weight, train, 0.7, 0.3, 60)
    margins, up, down, drift = autograd(states, head, chosen, rejected, weight, train, 0.7, 0.3, 60)

    np.testing.assert_allclose(run.margins[60], gram, atol=1e-12)
    np.testing.assert_allclose(run.margins[60], margins, atol=1e-12)
    np.testing.assert_allclose(run.chosen_changes[60], up, atol=1e-9)
    assert run.final("drift", group="0") == pytest.approx(drift, abs=1e-12)
    for split, rows in (("train", train), ("held_out", np.setdiff1d(np.arange(len(states)), train))):
        for group in (0, 1):
            members = rows[rows % 2 == group]
            assert run.final("rejected_change", group=str(group), split=split) == pytest.approx(
                down[members].mean(), abs=1e-9
            )
            assert run.final("chosen_falling", group=str(group), split=split) == np.mean(up[members] < 0)
            assert run.final("loss", group=str(group), split=split) == pytest.approx(
                np.logaddexp(0, -margins[members]).mean(), abs=1e-12
            )


def test_two_answers_need_no_head_for_exact_log_probabilities():
    """With two tokens their reference log-probabilities are all the softmax that moves."""
    rng = np.random.default_rng(0)
    states, head = rng.normal(size=(8, 3)).astype(np.float32).astype(float), rng.normal(size=(5, 3))
    logits = states @ head.T
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    chosen = rng.integers(0, 2, 8)
    feats = FeatureSet.from_arrays(
        states,
        chosen=chosen,
        rejected=1 - chosen,
        ref_chosen_logps=log_probs[np.arange(8), chosen],
        ref_rejected_logps=log_probs[np.arange(8), 1 - chosen],
    )
    run = descent(feats, DPO(beta=0.5), learning_rate=0.5, steps=20, margins_at=[20])
    _, up, _, _ = autograd(states, head, chosen, 1 - chosen, np.ones(8), list(range(8)), 0.5, 0.5, 20)
    np.testing.assert_allclose(run.chosen_changes[20], up, atol=1e-10)


def test_a_group_alone_is_the_joint_run_of_that_group():
    """Rows with run 'alone' equal a joint run on the group's pairs only."""
    feats, *_ = random_problem(3)
    both = descent(feats, DPO(beta=0.7), learning_rate=0.3, steps=10)
    only = descent(feats.select(feats.members("1")), DPO(beta=0.7), learning_rate=0.3, steps=10, alone=False)
    for split in ("train", "held_out"):
        _, alone = both.curve("loss", group="1", run="alone", split=split)
        _, single = only.curve("loss", group="1", split=split)
        np.testing.assert_allclose(alone, single, atol=1e-14)
    _, joint = both.curve("loss", group="1")
    assert np.abs(joint - only.curve("loss", group="1")[1]).max() > 1e-3  # the control: joint training differs


def test_the_heads_that_a_run_ends_with_give_its_margins_and_drifts():
    """Margins are linear in the head's change, whose norm is the drift: of the joint run and of each group alone."""
    feats, *_ = random_problem(3)
    run = descent(feats, DPO(beta=0.3), learning_rate=0.2, steps=7, margins_at=[7])
    assert run.joint_head is not None
    np.testing.assert_allclose(0.3 * feats.kernel().forward(run.joint_head), run.margins[7], rtol=1e-12)
    assert np.linalg.norm(run.joint_head) == pytest.approx(run.final("drift", group=feats.groups[0]), rel=1e-12)
    assert set(run.alone_heads) == set(feats.groups)
    for name, head in run.alone_heads.items():
        assert np.linalg.norm(head) == pytest.approx(run.final("drift", group=name, run="alone"), rel=1e-12)


def test_identical_pairs_follow_the_flow_as_the_step_shrinks():
    """exp(r) + r = 1 + 2 beta^2 |g|^2 t for identical pairs (THEORY 1.4); Euler's error is of first order."""
    beta, norm2, horizon = 0.5, 3.0, 8.0
    states = np.full((6, 3), 1.0)
    exact = np.log(wrightomega(1 + 2 * beta**2 * norm2 * horizon).real)
    errors = []
    for steps in (40, 80, 160):
        feats = FeatureSet.from_arrays(states, chosen=[0] * 6, rejected=[1] * 6)
        run = descent(feats, DPO(beta=beta), learning_rate=horizon / steps, steps=steps)
        errors.append(abs(run.final("margin", group="all") - exact))
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    np.testing.assert_allclose(slopes, 1.0, atol=0.05)


def test_responses_follow_first_order_in_the_same_lines():
    """psi features: margin = beta <psi_w - psi_l, theta>, chosen change = <psi_w, theta>, by an explicit loop."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(10, 4)).astype(np.float32), rng.normal(size=(10, 4)).astype(np.float32)
    feats = FeatureSet.from_arrays(chosen_features=first, rejected_features=second, held_out=np.arange(10) > 7)
    run = descent(feats, DPO(beta=0.4), learning_rate=0.2, steps=15, margins_at=[15])
    phi, theta = (first.astype(float) - second), np.zeros(4)
    for _ in range(15):
        pulls = 1 / (1 + np.exp(0.4 * phi[:8] @ theta))
        theta = theta + 0.2 * 0.4 / 8 * phi[:8].T @ pulls
    np.testing.assert_allclose(run.margins[15], 0.4 * phi @ theta, atol=1e-12)
    np.testing.assert_allclose(run.chosen_changes[15], first @ theta, atol=1e-5)
    assert run.final("policy_accuracy", group="all") != run.final("policy_accuracy", group="all")  # NaN: no reference


@pytest.mark.parametrize("objective", [DPO(beta=0.4), IPO(beta=0.4)], ids=lambda each: each.name)
def test_policy_accuracy_compares_whole_responses_whatever_the_objective_averages(objective):
    """log pi = reference + <psi, head>, summed over tokens, of chosen against rejected."""
    rng = np.random.default_rng(4)
    psi, lengths = rng.normal(size=(2, 60, 4)), rng.integers(1, 40, (2, 60))
    psi[0, :, 0] += 1
    reference = rng.normal(-9, 3, (2, 60))
    feats = FeatureSet.from_arrays(
        chosen_features=psi[0],
        rejected_features=psi[1],
        chosen_length=lengths[0],
        rejected_length=lengths[1],
        ref_chosen_logps=reference[0],
        ref_rejected_logps=reference[1],
    )
    run = descent(feats, objective, steps=200, alone=False)
    assert run.joint_head is not None
    assert feats.chosen_features is not None
    assert feats.rejected_features is not None
    moved = np.stack([feats.chosen_features @ run.joint_head[0], feats.rejected_features @ run.joint_head[0]])
    right = np.greater(*(reference + moved)).mean()
    assert run.final("policy_accuracy", group="all") == pytest.approx(right)
    averaged = ((moved / lengths)[0] - (moved / lengths)[1] + reference[0] - reference[1] > 0).mean()
    assert abs(averaged - right) > 0.05  # the control: per token it is another number


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5.0), st.floats(0.05, 2.0))
def test_margins_depend_on_rate_beta_and_scale_only_together(seed, scale, beta):
    """(g, beta, eta) → (k g, beta, eta / k²) and → (g, k beta, eta / k²) leave the margin path unchanged."""
    rng = np.random.default_rng(seed)
    states, chosen = rng.normal(size=(6, 3)), np.array([0, 0, 1, 1, 0, 1])

    def path(factor, b, rate):
        feats = FeatureSet.from_arrays((factor * states).astype(np.float32), chosen=chosen, rejected=1 - chosen)
        return descent(feats, DPO(beta=b), learning_rate=rate, steps=5, margins_at=[5]).margins[5]

    start = path(1.0, beta, 0.3)
    room = 2e-6 * np.abs(start).max()  # scaled states are rounded to float32 anew, and a margin near 0 is a difference
    np.testing.assert_allclose(path(scale, beta, 0.3 / scale**2), start, rtol=2e-5, atol=room)
    np.testing.assert_allclose(path(1.0, scale * beta, 0.3 / scale**2), start, rtol=1e-9, atol=1e-12)


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_flipping_every_label_leaves_the_margins_and_order_does_not_matter(seed):
    """All labels flipped: the head moves the other way and every margin follows the same path."""
    feats, *_ = random_problem(seed)
    assert feats.chosen is not None
    assert feats.rejected is not None
    flipped = FeatureSet.from_arrays(
        feats.states, chosen=feats.rejected, rejected=feats.chosen, weight=feats.weight, held_out=feats.held_out
    )
    shuffled = np.random.default_rng(seed).permutation(len(feats))
    path = descent(feats, learning_rate=0.5, steps=7, margins_at=[7]).margins[7]
    np.testing.assert_allclose(
        descent(flipped, learning_rate=0.5, steps=7, margins_at=[7]).margins[7], path, atol=1e-12
    )
    moved = descent(feats.select(shuffled), learning_rate=0.5, steps=7, margins_at=[7]).margins[7]
    np.testing.assert_allclose(moved, path[shuffled], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_auto_rate_never_lets_a_training_loss_rise_and_is_half_of_the_limit(seed):
    """At "auto" the weighted training loss falls at every step, and the rate is half of 8 n / (beta^2 lambda_max)."""
    feats, *_ = random_problem(seed, n=20, d=3, held_out=4)
    rate = stable_learning_rate(feats, DPO(beta=0.5))
    limits = []
    for rows in [~feats.held_out, *[(feats.group == code) & ~feats.held_out for code in range(len(feats.groups))]]:
        part = feats.select(rows)
        root = np.sqrt(part.weight)
        limits.append(
            8 * part.weight.sum() / (0.5**2 * np.linalg.eigvalsh(root[:, None] * part.kernel().dense() * root)[-1])
        )
    assert rate == pytest.approx(min(limits) / 2, rel=1e-9)
    run = descent(feats, DPO(beta=0.5), learning_rate="auto", steps=50, margins_at=range(51))
    train, weight = ~feats.held_out, feats.weight[~feats.held_out]
    losses = [np.average(np.logaddexp(0, -run.margins[step][train]), weights=weight) for step in range(51)]
    assert (np.diff(losses) < 0).all()


def test_too_large_a_step_does_make_the_loss_rise():
    """The control of the stability limit: two pairs against one over the same state, at eight times the limit."""
    feats = FeatureSet.from_arrays(np.ones((3, 1)), chosen=[0, 0, 1], rejected=[1, 1, 0])
    rate = 16 * stable_learning_rate(feats, DPO(beta=1.0))
    _, losses = descent(feats, DPO(beta=1.0), learning_rate=rate, steps=6, record="all").curve("loss", group="all")
    assert (np.diff(losses) > 0).any()


def test_equal_input_gives_equal_bytes():
    feats, *_ = random_problem(0)
    first, second = (descent(feats, steps=9).table for _ in range(2))
    assert first.equals(second)


def test_log_probability_changes_survive_extreme_logits():
    """±1e4 nats neither overflow nor warn, and a token with all the mass cannot gain."""
    log_probs = np.log([[0.5, 0.5], [1 - 1e-12, 1e-13]])
    moves = np.array([[1e4, -1e4], [1e4, -1e4]])
    shift = shifts(moves[:, None, :], log_rest(log_probs), log_probs)[:, 0]
    assert np.isfinite(shift).all()
    np.testing.assert_allclose(moves[:, 0] - shift, [np.log(2), 1e-12], atol=1e-11)


def test_recorded_steps_are_sorted_unique_and_hold_both_ends():
    for steps in (1, 2, 3, 10, 99, 100, 5000):
        chosen = recorded_steps(steps)
        assert chosen[0] == 0
        assert chosen[-1] == steps
        assert chosen == sorted(set(chosen))
    assert recorded_steps(5, "all") == [0, 1, 2, 3, 4, 5]
    assert recorded_steps(9, [4]) == [0, 4, 9]


def test_bad_settings_are_refused_with_the_value():
    feats = FeatureSet.from_arrays(**T1)
    with pytest.raises(ConfigError, match="steps is 0"):
        descent(feats, steps=0)
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        descent(feats, learning_rate=-1.0)
    with pytest.raises(ConfigError, match="beta is 0"):
        DPO(beta=0.0)
    with pytest.raises(ConfigError, match="margins_at asks for step 9"):
        descent(feats, steps=3, margins_at=[9])
    with pytest.raises(ConfigError, match="record asks for step 7"):
        recorded_steps(5, [7])
    with pytest.raises(DataError, match="all 4 pairs are held out"):
        descent(feats.with_held_out(np.ones(4, dtype=bool)))
    with pytest.raises(DataError, match="every training feature is zero"):
        descent(FeatureSet.from_arrays(np.zeros((2, 2)), chosen=[0, 1], rejected=[1, 0]))


def test_many_small_groups_share_solves_up_to_their_size_and_few_do_not():
    """A solve of k groups costs 4 k products over all its pairs: never more than the limit, and no two fit into one."""
    sizes = np.random.default_rng(0).integers(1, 9, MANY_GROUPS + 1)
    members = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
    width = 256
    shared = together(members, width)

    def cost(*solves):
        groups = [rows for solve in solves for rows in solve]
        return 4 * len(groups) * sum(map(len, groups)) * width

    np.testing.assert_array_equal(np.concatenate([rows for solve in shared for rows in solve]), np.arange(sizes.sum()))
    assert 1 < len(shared) < len(members)
    assert all(cost(solve) <= _SOLVE for solve in shared)
    assert all(cost(solve, [later[0]]) > _SOLVE for solve, later in itertools.pairwise(shared))
    assert [len(solve) for solve in together(members[:-1], width)] == [1] * MANY_GROUPS
