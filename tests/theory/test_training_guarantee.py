"""The margins' flow in closed form, and the lines around it: printed numbers, solver twins, draws and adversaries."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.closed_form import single_flow
from prefdyn.maths.kernel import PairKernel, preference_sharing
from prefdyn.theory.value_scaling.concentration import concentration_radii, explicit_failure
from prefdyn.theory.value_scaling.model import ClusterModel, token_sharing
from prefdyn.theory.value_scaling.training import (
    LOG3,
    horizon,
    margin_lines,
    margin_rates,
    noiseless_margin,
    noiseless_time,
    scaled_time,
    sharp_constants,
    sharp_horizon,
    sharp_margin_lines,
    sharp_training_guarantee,
    training_guarantee,
)
from tests.naive import descent as naive_descent
from tests.naive import margin_flow as naive

quick = settings(max_examples=60, deadline=None)
S1 = LOG3 / 5
RUN: dict[str, Any] = {"beta": 0.1, "learning_rate": 1.0}


def kernel_of(seed, model, tokens, directions=None):
    states, chosen, rejected = naive.clusters(
        seed,
        values=model.values,
        per_cluster=model.per_cluster,
        width=model.width,
        noise=model.noise,
        shared_norm=model.shared_norm,
        tokens=tokens,
        directions=directions,
    )
    sharing = preference_sharing(chosen, rejected, chosen, rejected)
    return sharing * (states @ states.T), sharing


def descend(kernel, values, end, steps):
    """Margins after whole gradient steps of plain descent that reach scaled time `end`."""
    margins = np.zeros(len(kernel))
    time_constant = steps / (end * values)  # with beta = 1, one step adds end / steps to s
    for _ in range(steps):
        margins = margins + margin_rates(kernel, margins, beta=1.0, time_constant=time_constant)
    return margins


def random_model(seed):
    """A model that meets every condition of Theorem 4.2, with its tokens."""
    rng = np.random.default_rng(seed)
    pattern = ["distinct", "common", "ring"][seed % 3]
    values = int(rng.integers({"distinct": 1, "common": 2, "ring": 3}[pattern], 5))
    tokens = naive.answers(pattern, values)
    sharing = token_sharing(tokens).sharing
    most = min(0.5, 1 / (2 * math.sqrt(sharing)))
    pairs = int(rng.integers(max(1, math.ceil((values + 1) / 5)), 25))
    return tokens, ClusterModel(
        values=values,
        per_cluster=pairs,
        width=5 * pairs if seed % 4 else int(rng.integers(values + 1, 5 * pairs + 1)),
        noise=1 / (32 * math.sqrt(pairs)),
        shared_norm=most if seed % 2 else float(rng.uniform(0.25, most)),
        sharing=sharing,
        distinct=True,
    )


# Lemma 4.1 ----------------------------------------------------------------------------------------------------------


def test_rates_reproduce_theory_t3_and_carry_an_unseen_pair():
    kernel = np.array([[2.0, 0, 1], [0, 2, -1], [1, -1, 4]])
    states, chosen, rejected = np.array([[1.0, 0], [0, 1], [1, 1]]), np.array([0, 1, 0]), np.array([1, 0, 2])
    unseen = preference_sharing(np.array([0]), np.array([1]), chosen, rejected) * (np.array([[2.0, 0]]) @ states.T)
    margins, held_out = np.zeros(3), np.zeros(1)
    for step in range(3):
        rates = margin_rates(kernel, margins, beta=0.5)
        held_out = held_out + margin_rates(unseen, margins, beta=0.5)
        margins = margins + rates
        if step == 0:
            np.testing.assert_allclose(margins, [0.125, 0.0416667, 0.1666667], atol=1e-7)
    np.testing.assert_allclose(margins, [0.34976264, 0.12975077, 0.45491975], atol=1e-8)
    assert held_out[0] == pytest.approx(0.6995252763846267, rel=1e-12)


def test_rates_equal_automatic_differentiation_of_a_whole_head():
    rng = np.random.default_rng(0)
    states, head = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    chosen, rejected = np.array([0, 1, 2, 0, 3, 4]), np.array([1, 0, 3, 4, 2, 0])
    kernel = preference_sharing(chosen, rejected, chosen, rejected) * (states @ states.T)
    margins = np.zeros(6)
    for _ in range(4):
        margins = margins + margin_rates(kernel, margins, beta=0.7, time_constant=2.0)
    expected = naive_descent.autograd(states, head, chosen, rejected, np.ones(6), np.arange(6), 0.7, 0.5, 4)[0]
    np.testing.assert_allclose(margins, expected, atol=1e-10)
    assert not np.allclose(2 * margins, expected)


def test_a_kernel_in_product_form_has_the_rates_of_its_matrix():
    rng = np.random.default_rng(1)
    kernel = PairKernel(answers=rng.normal(size=(7, 2)), features=rng.normal(size=(7, 3)))
    margins = rng.normal(size=7)
    expected = margin_rates(kernel.dense(), margins, beta=0.3, time_constant=5.0)
    np.testing.assert_allclose(margin_rates(kernel, margins, beta=0.3, time_constant=5.0), expected)
    with pytest.raises(DataError, match="the kernel has 7 training pairs, but there are 2 margins"):
        margin_rates(kernel, margins[:2], beta=0.3)


@pytest.mark.parametrize(("objective", "pulls"), [("gpo_ipo", [4.0, 2.0, -2.0]), ("hinge", [1.0, 1.0, 0.0])])
def test_rates_of_other_objectives_use_their_pull(objective, pulls):
    margins = np.array([-1.0, 0.0, 2.0])
    rates = margin_rates(np.eye(3), margins, beta=1.0, objective=objective)
    np.testing.assert_allclose(rates, np.array(pulls) / 3)
    np.testing.assert_allclose(rates, [naive.pull(r, objective) / 3 for r in margins])


def test_rates_of_far_margins():
    rates = margin_rates(np.eye(2), np.array([-1e4, 1e4]), beta=1e-4)
    np.testing.assert_allclose(rates, [1e-8 / 2, 0.0])


# closed forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "t", "start", "expected"),
    [
        (1, 1, 0, 0.4428544010023885),
        (2, 3, 0, 1.6728216986289066),
        (0.5, 10, -2, 0.8336441347140744),
        (1, 1000, 0, 6.901835958361589),
    ],
)
def test_single_flow_of_theory_t4(a, t, start, expected):
    assert float(single_flow(a, t, 1.0, start)) == pytest.approx(expected, rel=1e-14)


@given(st.floats(0.01, 3), st.floats(0.01, 50), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_single_flow_equals_a_solver(a, t, tau, start):
    found = naive.margin_flow(np.array([[a]]), beta=1.0, times=np.array([0.0, t]), tau=tau, start=start)[-1, 0]
    assert float(single_flow(a, t, tau, start)) == pytest.approx(found, rel=1e-8, abs=1e-9)


@given(st.floats(0, 1e6), st.floats(-50, 60))
@quick
def test_single_flow_solves_its_equation_from_any_start(time, start):
    end = float(single_flow(1.0, time, 1.0, start))
    gained = end - start
    assert gained >= 0
    scale = math.exp(-max(start, 0.0))
    left = gained * scale + math.exp(start - max(start, 0.0)) * math.expm1(gained)
    assert left == pytest.approx(time * scale, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("start", [-1e4, -746.0, 0.0, 39.0, 41.0, 709.0, 1e4])
@pytest.mark.parametrize("time", [0.0, 1e-300, 1e-9, 1.0, 1e5, 1e300])
def test_single_flow_survives_everything(start, time):
    end = float(single_flow(1.0, time, 1.0, start))
    assert math.isfinite(end)
    assert start <= end <= start + time * (1 + 1e-12)


def test_small_times_keep_their_digits():
    assert float(noiseless_margin(1e-12)) == pytest.approx(1e-12, rel=1e-10)
    assert float(single_flow(1.0, 1e-12, 1.0, 5.0)) == pytest.approx(5.0)


def test_single_flow_broadcasts_and_refuses():
    assert single_flow(np.array([1.0, 2.0]), np.ones((3, 1))).shape == (3, 2)
    with pytest.raises(DataError, match="a times t must be finite and 0 or above"):
        single_flow(1.0, -1.0)
    with pytest.raises(DataError, match="a times t must be finite"):
        single_flow(1e200, 1e200)
    with pytest.raises(ConfigError, match="start is inf, but must be a finite margin"):
        single_flow(1.0, 1.0, 1.0, math.inf)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (0.1, 0.09754212184966855),
        (S1, 0.2081038624549679),
        (0.5, 0.4428544010023885),
        (1, 0.7920599684306769),
        (1.549306144334055, 1.0986122886681098),
        (5, 2.177325100614029),
        (50, 4.568829494840816),
    ],
)
def test_noiseless_margins_of_theory_t13(s, expected):
    assert float(noiseless_margin(s)) == pytest.approx(expected, rel=1e-14)
    assert float(noiseless_time(expected)) == pytest.approx(s, rel=1e-12)


def test_other_objectives_and_whole_steps_of_theory_t13():
    assert float(noiseless_margin(S1, "gpo_ipo")) == pytest.approx(0.5847563534614942, rel=1e-14)
    assert float(noiseless_margin(S1, "hinge")) == pytest.approx(0.4394449154672439, rel=1e-14)
    margin = 0.0
    for _ in range(22):
        margin += 2 * 0.01 * naive.pull(margin)
    assert margin == pytest.approx(0.20884529964321363, rel=1e-14)
    assert margin > float(noiseless_margin(0.22))  # steps of a falling speed run ahead of the flow


def test_the_true_time_to_log_three_is_seven_horizons():
    assert float(noiseless_time(LOG3)) / S1 == pytest.approx(7.051, abs=5e-4)
    low, high = margin_lines(S1)
    assert float(noiseless_margin(S1) / low) == pytest.approx(7.58, abs=0.005)
    assert float(high / noiseless_margin(S1)) == pytest.approx(5.28, abs=0.005)
    assert float(noiseless_margin(S1)) == pytest.approx(0.208, abs=5e-4)


@pytest.mark.parametrize("objective", ["sigmoid", "gpo_ipo", "hinge"])
@pytest.mark.parametrize("pattern", ["distinct", "common", "ring", "one pair for all"])
def test_without_noise_all_margins_follow_the_closed_form_whatever_the_tokens(objective, pattern):
    values = 3
    model = ClusterModel(values=values, per_cluster=2, width=4, noise=1e-12, shared_norm=0.5)
    kernel, _ = kernel_of(0, model, naive.answers(pattern, values))
    ends = np.array([0.0, 0.1, 0.3, 0.45])  # the hinge stops at 0.5
    found = naive.margin_flow(kernel, beta=1.0, times=ends * values, objective=objective)
    expected = np.tile(noiseless_margin(ends, objective)[:, None], len(kernel))
    np.testing.assert_allclose(found, expected, atol=1e-8)
    uneven, _ = kernel_of(0, model, naive.answers(pattern, values))
    uneven = uneven[:-1, :-1]  # one pair fewer: clusters of unequal size are not what the formula is for
    found = naive.margin_flow(uneven, beta=1.0, times=ends * values, objective=objective)
    assert np.abs(found - expected[:, :-1]).max() > 1e-3


@given(st.floats(0, 100), st.floats(0, 100), st.sampled_from(["sigmoid", "gpo_ipo", "hinge"]))
@quick
def test_noiseless_margins_never_fall_and_times_invert_them(first, second, objective):
    early, late = sorted((first, second))
    assert float(noiseless_margin(early, objective)) <= float(noiseless_margin(late, objective))
    margin = float(noiseless_margin(early, objective))
    if margin < 0.999 or objective == "sigmoid":
        assert float(noiseless_time(margin, objective)) == pytest.approx(early, rel=1e-9, abs=1e-9)


def test_times_and_margins_at_the_ends():
    np.testing.assert_array_equal(
        noiseless_time(np.array([0.0, 0.5, 1.0, 1.5, 1e4]), "hinge")[[0, 2, 3]], [0, 0.5, np.inf]
    )
    assert float(noiseless_time(1.0, "gpo_ipo")) == math.inf
    assert float(noiseless_time(1e4)) == math.inf
    assert float(noiseless_margin(1e300)) == pytest.approx(math.log(2e300), rel=1e-3)
    assert float(noiseless_margin(1e300, "gpo_ipo")) == float(noiseless_margin(1e300, "hinge")) == 1.0
    for refused in (noiseless_time, noiseless_margin):
        with pytest.raises(ConfigError, match="objective 'sigmiod' is unknown; did you mean 'sigmoid'"):
            refused(1.0, "sigmiod")
    with pytest.raises(DataError, match="margin must be 0 or above and not NaN"):
        noiseless_time(-1e4)
    with pytest.raises(DataError, match="s must be 0 or above"):
        noiseless_margin(math.nan)


# time ---------------------------------------------------------------------------------------------------------------


def test_horizons_of_theory_3_4():
    assert pytest.approx(0.21972245773362195, rel=1e-15) == S1
    assert horizon(10, beta=0.1, learning_rate=1.0) == pytest.approx(219.72, abs=0.005)
    assert horizon(10, beta=0.01, learning_rate=1.0) == pytest.approx(21972.2, abs=0.05)
    assert float(scaled_time(10, steps=horizon(10, **RUN), **RUN)) == pytest.approx(S1)
    assert [float(line) for line in margin_lines(S1)] == pytest.approx([0.027465307216702744, 1.0986122886681098])
    older = 40 * 0.1**2 * 7 / (4 * 2 * 3 * 40), 10 * 40 * 0.1**2 * 7 / (2 * 3 * 40)  # Q beta^2 t/(4N), 10 Q beta^2 t/N
    assert [float(line) for line in margin_lines(scaled_time(3, steps=7, **RUN))] == pytest.approx(older)


@pytest.mark.parametrize(("sharing", "lower", "upper", "end"), [(1, 0.75, 2.2967, 0.9567), (4, 0.6875, 2.3383, 0.9397)])
def test_sharp_constants_of_theory_3_4(sharing, lower, upper, end):
    assert sharp_constants(sharing) == pytest.approx((lower, upper), abs=5e-5)
    steps = sharp_horizon(10, sharing=sharing, **RUN)
    assert float(scaled_time(10, steps=steps, **RUN)) == pytest.approx(end, abs=5e-5)
    assert float(sharp_margin_lines(end, sharing=sharing)[1]) == pytest.approx(LOG3, abs=1e-4)
    assert steps / horizon(10, **RUN) > 4.27
    assert float(sharp_margin_lines(end, sharing=4)[0]) >= 0.2939 * LOG3


@given(st.integers(1, 10**6))
@quick
def test_sharp_lines_lie_between_the_published_ones(sharing):
    lower, upper = sharp_margin_lines(1.0, sharing=sharing)
    outer = margin_lines(1.0)
    assert outer[0] < lower < upper < outer[1]
    assert sharp_horizon(1, sharing=sharing, **RUN) > 4 * horizon(1, **RUN)


@given(st.floats(0.01, 5), st.floats(1e-3, 10), st.floats(0.1, 100), st.integers(1, 50))
@quick
def test_time_knows_only_beta_squared_gap_squared_rate_over_values(beta, rate, gap, values):
    s = scaled_time(values, beta=beta, learning_rate=rate, steps=3.0, half_gap=gap)
    same = scaled_time(values, beta=beta * gap, learning_rate=rate, steps=3.0)
    assert float(s) == pytest.approx(float(same))
    assert float(scaled_time(2 * values, beta=beta, learning_rate=2 * rate, steps=3.0, half_gap=gap)) == pytest.approx(
        float(s)
    )
    assert horizon(values, beta=beta, learning_rate=rate, half_gap=gap) * float(s) / 3 == pytest.approx(S1)


def test_features_in_another_unit_move_as_the_half_gap_says():
    """Features three times as long: nine times the kernel, so the time of half gap 3."""
    model = ClusterModel(values=2, per_cluster=3, width=6, noise=1e-12, shared_norm=0.3)
    kernel, _ = kernel_of(0, model, naive.answers("distinct", 2))
    steps = np.array([0.0, 10.0])
    found = naive.margin_flow(9 * kernel, beta=0.2, times=steps, tau=4.0)[-1]
    s = scaled_time(2, beta=0.2, learning_rate=0.25, steps=10.0, half_gap=3.0)
    np.testing.assert_allclose(found, float(noiseless_margin(s)), atol=1e-9)


# Theorem 4.2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "pairs", "shared_norm", "pattern", "low", "mean", "high"),
    [
        (1, 40, 0.5, "distinct", 0.2052, 0.2078, 0.2100),
        (10, 40, 0.25, "distinct", 0.2036, 0.2080, 0.2109),
        (4, 40, 0.25, "common", 0.2041, 0.2080, 0.2124),
        (3, 40, 0.35, "ring", 0.2030, 0.2083, 0.2114),
        (16, 40, 0.25, "one pair for all", 0.1946, 0.2082, 0.2204),
        (2, 200, 0.5, "distinct", 0.2065, 0.2081, 0.2094),
    ],
)
def test_the_simulated_margins_of_theory_3_4(values, pairs, shared_norm, pattern, low, mean, high):
    """Another draw than the printed one: the mean to four digits and a half, the extremes to .003."""
    tokens = naive.answers(pattern, values)
    model = ClusterModel(
        values=values,
        per_cluster=pairs,
        width=5 * pairs,
        noise=1 / (32 * math.sqrt(pairs)),
        shared_norm=shared_norm,
        sharing=token_sharing(tokens).sharing,
    )
    kernel, _ = kernel_of(0, model, tokens)
    margins = descend(kernel, values, S1, 200)
    assert margins.mean() == pytest.approx(mean, abs=6e-4)
    assert (margins.min(), margins.max()) == pytest.approx((low, high), abs=3e-3)
    np.testing.assert_allclose(margins, float(noiseless_margin(S1)), rtol=0.1)
    lines = margin_lines(S1)
    assert 7.0 < margins.min() / lines[0] < 7.6
    assert 4.9 < lines[1] / margins.max() < 5.3


def test_both_lines_hold_in_200_draws_and_spoiled_lines_do_not():
    closest = np.full(4, np.inf)
    for seed in range(200):
        tokens, model = random_model(seed)
        kernel, _ = kernel_of(seed, model, tokens)
        for place, (statement, last, steps) in enumerate(
            [
                (training_guarantee, horizon(model.values, **RUN), 10),
                (sharp_training_guarantee, sharp_horizon(model.values, sharing=model.sharing, **RUN), 20),
            ]
        ):
            s = float(scaled_time(model.values, steps=last, **RUN))
            margins = descend(kernel, model.values, s, steps)
            low, high = statement(
                model, **RUN, steps=last, measured_least=float(margins.min()), measured_largest=float(margins.max())
            )
            assert low.applies
            assert high.applies
            assert low.kept
            assert high.kept
            closest[2 * place : 2 * place + 2] = np.minimum(
                closest[2 * place : 2 * place + 2], [low.looseness, high.looseness]
            )
    assert closest == pytest.approx([6.22, 4.7, 1.86, 1.31], abs=0.1)  # what is quoted where the lines are defined
    assert closest[0] < 10  # so the lower line times ten is broken,
    assert closest[3] < 2  # and half of the sharper upper line


def test_the_sharper_lines_hold_against_an_adversary_on_the_event_of_the_lemma():
    """Entries anywhere in their balls, chosen to slow the first pair down or to speed it up; no Gaussian draw is so."""
    model = ClusterModel.at_the_limits(4, 3, sharing=4, shared_norm=0.25)
    tokens = naive.answers("common", 4)
    _, sharing = kernel_of(0, model, tokens)
    balls = concentration_radii(model)
    end = float(scaled_time(4, steps=sharp_horizon(4, sharing=4, **RUN), **RUN))
    lower, upper = sharp_margin_lines(end, sharing=4)
    reached = []
    for sign in (-1, 1):
        kernel = np.zeros(sharing.shape)
        for i in range(len(sharing)):
            push = sign if i == 0 else -sign
            for j in range(len(sharing)):
                kind = {2: "same cluster", -2: "opposite cluster", 0: "no shared token"}.get(
                    int(sharing[i, j]), "one shared token"
                )
                ball = balls["same pair" if i == j else kind]
                if kind == "one shared token":
                    side = int(sharing[i, j])
                    kernel[i, j] = side * max(0.0, ball.centre + side * push * ball.radius)
                else:
                    kernel[i, j] = ball.centre + push * ball.radius
        margins = descend(kernel, 4, end, 200)
        assert lower <= margins.min()
        assert margins.max() <= upper
        reached.append(margins[0])
    assert reached[0] < 0.9 * reached[1]
    assert reached[0] < 2.3 * lower  # lines that much sharper would be broken
    assert reached[1] > 0.7 * upper


def test_the_rate_is_one_over_values():
    ends = {}
    for values in (1, 2, 8):
        model = ClusterModel(values=values, per_cluster=2, width=values + 1, noise=1e-12, shared_norm=0.4)
        kernel, _ = kernel_of(0, model, naive.answers("one pair for all", values))
        ends[values] = margin_rates(kernel, np.zeros(len(kernel)), beta=0.1)
        np.testing.assert_allclose(ends[values], 0.01 / values)
    assert ends[8][0] != pytest.approx(ends[1][0] / math.sqrt(8))


def test_the_statement_says_when_it_does_not_apply_or_says_nothing():
    model = ClusterModel.at_the_limits(10, 875)
    low, high = training_guarantee(model, **RUN, steps=230, group="all")
    assert not low.applies
    assert low.standing == "outside"
    assert [c.says for c in low.failed] == ["t <= K tau log 3/(5 beta^2)"]
    assert low.group == high.group == "all"
    low, high = training_guarantee(model, **RUN, steps=100)
    assert low.applies
    assert low.is_vacuous
    assert high.is_vacuous
    assert low.failure == pytest.approx(1.78e8, rel=0.005)
    assert training_guarantee(model, **RUN, steps=100, constant=0.1)[0].failure > low.failure
    few_noise = ClusterModel(values=10, per_cluster=875, width=4096, noise=0.001, shared_norm=0.1, distinct=True)
    low, high = sharp_training_guarantee(few_noise, **RUN, steps=900, measured_least=0.7, measured_largest=0.8)
    assert low.standing == high.standing == "informative"
    assert low.failure == explicit_failure(few_noise) < 0.05
    assert "applies: smallest training margin at least 0.338" in low.meaning()
    assert not training_guarantee(few_noise, **RUN, steps=100)[0].applies  # it asks l_b >= 1/4; the proof does not


def test_extreme_settings():
    tiny = ClusterModel(values=1, per_cluster=1, width=1, noise=1e-6, shared_norm=0.3)
    huge = ClusterModel(values=1, per_cluster=10**12, width=1, noise=1e-9, shared_norm=0.3)
    for model in (tiny, huge):
        for statement in (training_guarantee, sharp_training_guarantee):
            for steps in (0, 1, 1e12):
                low, high = statement(model, beta=1e-4, learning_rate=1e-3, steps=steps)
                assert 0 <= low.value <= high.value < math.inf
                assert low.as_dict()["meaning"]
    assert horizon(1, beta=1e-4, learning_rate=1.0) == pytest.approx(LOG3 / 5 * 1e8)


def test_what_is_no_setting_is_refused():
    with pytest.raises(ConfigError, match="beta is 0, but must be a finite number above 0"):
        scaled_time(1, beta=0, learning_rate=1.0, steps=1)
    with pytest.raises(ConfigError, match="half_gap is -1, but must be a finite number above 0"):
        horizon(1, beta=1, learning_rate=1, half_gap=-1)
    with pytest.raises(ConfigError, match="values is 0, but must be at least 1"):
        horizon(0, beta=1, learning_rate=1)
    with pytest.raises(ConfigError, match="sharing is 0, but must be at least 1"):
        sharp_constants(0)
    with pytest.raises(DataError, match="steps must be 0 or above"):
        scaled_time(1, beta=1, learning_rate=1, steps=-1)
