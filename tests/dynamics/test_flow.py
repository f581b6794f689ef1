"""The margin flow against closed forms, an independent solver on the n × n kernel, descent, and its own laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.flow import flow, margin_flow, recorded_times
from prefdyn.dynamics.flow_events import GroupReaches, PairCrosses
from prefdyn.dynamics.flow_solver import KINK_WIDTH, FlowSolver
from prefdyn.dynamics.problem import Pairs
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.closed_form import single_flow
from prefdyn.maths.objectives import DPO, GPOIPO, IPO, SFT, RobustDPO, SLiC
from prefdyn.theory.value_scaling import noiseless_margin
from tests.dynamics.test_descent import random_problem
from tests.naive.margin_flow import margin_flow as naive_flow

OBJECTIVES = {"sigmoid": DPO, "gpo_ipo": GPOIPO, "hinge": SLiC}


def wide_problem(seed, n=14, d=120, tokens=4, held_out=4):
    """More numbers per feature than pairs, so that the flow goes along the kernel."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, tokens, n)
    states = (rng.normal(size=(n, d)) / math.sqrt(d)).astype(np.float32)
    return FeatureSet.from_arrays(
        states,
        chosen=chosen,
        rejected=(chosen + rng.integers(1, tokens, n)) % tokens,
        weight=rng.uniform(0.5, 2.0, n),
        held_out=np.arange(n) >= n - held_out,
        group=np.arange(n) % 2,
    )


def copies(count=6, norm2=3.0):
    return FeatureSet.from_arrays(np.full((count, 3), math.sqrt(norm2 / 3)), chosen=[0] * count, rejected=[1] * count)


def scaled_kernel(feats):
    """A kernel whose plain flow is the weighted one: C diag(n w / sum w)."""
    train = ~feats.held_out
    weight = feats.weight[train]
    return feats.select(train).kernel().dense() * (weight / weight.mean())


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_identical_pairs_follow_the_closed_form_of_dpo(beta):
    """exp(r) + r = 1 + 2 beta² |g|² t, from very early to very late, at every recorded time."""
    run = flow(copies(), DPO(beta=beta), until=3000.0)
    _, margins = run.curve("margin", group="all")
    times = np.array(run.settings["times"])
    np.testing.assert_allclose(margins, single_flow(2 * beta**2 * 3.0, times), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(run.table["time"].to_numpy(), times)


@pytest.mark.parametrize(("name", "tolerance"), [("sigmoid", 1e-8), ("gpo_ipo", 1e-8), ("hinge", KINK_WIDTH)])
def test_opposite_clusters_follow_the_noiseless_margin_of_each_objective(name, tolerance):
    """dr/ds = 2 h(r): log w(1 + 2 s), 1 - exp(-4 s) and min(2 s, 1); SLiC to within the width of its kink."""
    signs = np.array([1, -1, 1, -1])
    feats = FeatureSet.from_arrays(signs[:, None] * [[1.0]], chosen=signs > 0, rejected=signs < 0)
    solved = margin_flow(feats, OBJECTIVES[name](beta=0.5), until=8.0)
    times = np.linspace(0, 8.0, 41)
    expected = noiseless_margin(0.5**2 * times, name)
    for margins in solved.margins(times):
        np.testing.assert_allclose(margins, expected, atol=tolerance)


def test_original_ipo_relaxes_to_half_and_smoothed_dpo_to_where_its_pull_ends():
    """IPO: r = (1 - exp(-4 |g|² t)) / 2 for any beta. cDPO: r goes to log((1 - e) / e)."""
    times = np.linspace(0, 3.0, 13)
    for beta in (0.1, 2.0):
        margins = margin_flow(copies(), IPO(beta=beta), until=3.0).margins(times)[0]
        np.testing.assert_allclose(margins, -np.expm1(-4 * 3.0 * times) / 2, atol=1e-8)
    smoothed = flow(copies(), DPO(beta=1.0, label_smoothing=0.2), until=100.0)
    assert smoothed.final("margin", group="all") == pytest.approx(math.log(4), abs=1e-6)
    robust = flow(copies(), RobustDPO(beta=1.0, label_smoothing=0.2), until=100.0)
    assert robust.final("margin", group="all") > 2 * math.log(4)


def test_slic_is_exact_until_its_kink_and_rests_there():
    solved = margin_flow(copies(norm2=1.0), SLiC(beta=1.0), until=40.0)
    before = np.linspace(0, 0.49, 9)
    np.testing.assert_allclose(solved.margins(before)[0], 2 * before, atol=1e-8)
    at_rest = solved.margins(np.array([1.0, 40.0]))[0]
    np.testing.assert_allclose(at_rest, 1.0, atol=KINK_WIDTH)


@pytest.mark.thorough
def test_slic_pairs_that_others_pull_down_rest_at_the_kink():
    """The second pair still climbs and pulls the first down, which rests inside the kink: no solver passes a jump."""
    feats = FeatureSet.from_arrays([[1.0, 0], [-0.6, 0.2], [0.9, 0.3]], chosen=[0, 0, 0], rejected=[1, 1, 1])
    run = flow(feats, SLiC(beta=1.0), until=20.0, record=[19.0], margins_at=[19.0])
    assert run.margins[1][1] < 0.5
    assert 1 - KINK_WIDTH < run.margins[1][0] < 1
    assert run.settings["evaluations"] < 15_000
    times = np.linspace(0, 10.0, 30)
    finest, fine, coarse = (
        margin_flow(feats, SLiC(beta=1.0), until=10.0, kink_width=width, rtol=1e-6, atol=1e-7).margins(times)
        for width in (0.004, 0.02, 0.1)
    )
    assert np.abs(fine - finest).max() < 0.03
    assert np.abs(coarse - finest).max() > 3 * np.abs(fine - finest).max()  # first order in the width


@pytest.mark.parametrize("name", ["sigmoid", "gpo_ipo"])
@pytest.mark.parametrize(("kind", "route"), [("wide", "gram"), ("narrow", "weights")])
def test_both_routes_equal_an_independent_solver_on_the_dense_kernel(kind, route, name):
    """Weights, groups and several tokens in; margins of trained pairs as dr/dt = (beta²/n) C h(r) has them."""
    feats = wide_problem(0) if kind == "wide" else random_problem(0, n=40, d=3)[0]
    times = np.array([0.0, 0.5, 3.0, 20.0])
    run = flow(feats, OBJECTIVES[name](beta=0.6), until=20.0, record=times.tolist(), margins_at=times.tolist())
    assert run.settings["route"] == route
    naive = naive_flow(scaled_kernel(feats), beta=0.6, times=times, objective=name)
    for step, expected in enumerate(naive):
        np.testing.assert_allclose(run.margins[step][~feats.held_out], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", [wide_problem, lambda seed: random_problem(seed, n=40, d=3)[0]])
def test_held_out_margins_drifts_and_heads_belong_together(make):
    """Every margin is beta <phi, theta> of the head that is given, on either route."""
    feats = make(1)
    run = flow(feats, DPO(beta=0.6), until=20.0, margins_at=[20.0], alone=True)
    solved = margin_flow(feats, DPO(beta=0.6), until=20.0)
    head, last = run.joint_head, run.settings["steps"]
    assert head is not None
    np.testing.assert_allclose(0.6 * feats.kernel().forward(head), run.margins[last], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(solved.head(20.0), head, rtol=1e-9, atol=1e-12)
    assert run.final("drift", group="0") == pytest.approx(np.linalg.norm(head), rel=1e-9)
    assert set(run.alone_heads) == {"0", "1"}
    for name, single in run.alone_heads.items():
        rows = feats.members(name)
        only = flow(feats.select(rows), DPO(beta=0.6), until=20.0)
        assert run.final("drift", group=name, run="alone") == pytest.approx(np.linalg.norm(single), rel=1e-9)
        assert only.final("margin", group=name) == pytest.approx(run.final("margin", group=name, run="alone"), rel=1e-7)
        assert run.final("margin", group=name) != pytest.approx(run.final("margin", group=name, run="alone"), rel=1e-3)


def test_the_table_holds_what_descent_measures():
    """With tiny steps, every column of descent's table is that of the flow, to first order."""
    feats = random_problem(2)[0]
    walked = descent(feats, DPO(beta=0.7), learning_rate=0.01, steps=400, record=[100], margins_at=[400])
    run = flow(feats, DPO(beta=0.7), until=4.0, record=[1.0], margins_at=[4.0], alone=True)
    first, second = walked.rows(), run.rows()
    assert [(r["run"], r["group"], r["split"], r["pairs"]) for r in first] == [
        (r["run"], r["group"], r["split"], r["pairs"]) for r in second
    ]
    assert [r["step"] for r in second[:12]] == [0] * 4 + [1] * 4 + [2] * 4
    for before, after in zip(first, second, strict=True):
        assert after["time"] == pytest.approx(before["time"])
        for name in ("loss", "margin", "chosen_log_prob", "rejected_log_prob", "chosen_change", "drift"):
            assert after[name] == pytest.approx(before[name], abs=0.02), name
    np.testing.assert_allclose(run.chosen_changes[2], walked.chosen_changes[400], atol=0.02)


@pytest.mark.parametrize("make", [wide_problem, lambda seed: random_problem(seed, n=40, d=3)[0]])
def test_descent_goes_to_the_flow_at_first_order(make):
    """The largest distance between the two halves with the learning rate, held-out pairs included."""
    feats, horizon = make(3), 8.0
    exact = margin_flow(feats, DPO(beta=0.8), until=horizon).margins(np.array([horizon]))[:, 0]
    errors = []
    for steps in (50, 100, 200, 400):
        run = descent(feats, DPO(beta=0.8), learning_rate=horizon / steps, steps=steps, alone=False, margins_at=[steps])
        errors.append(np.abs(run.margins[steps] - exact).max())
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    np.testing.assert_allclose(slopes, 1.0, atol=0.05)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 3.0), st.floats(0.3, 3.0))
def test_margins_depend_on_beta_squared_times_time(seed, beta, factor):
    """(beta, t) → (k beta, t / k²) leaves every margin where it is."""
    feats = random_problem(seed % 50)[0]
    one = margin_flow(feats, DPO(beta=beta), until=4.0).margins(np.array([1.0, 4.0]))
    other = margin_flow(feats, DPO(beta=factor * beta), until=4 / factor**2).margins(
        np.array([1.0, 4.0]) / factor**2 * (1 - 1e-15)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_training_loss_falls_all_the_way(seed):
    feats = random_problem(seed % 100)[0]
    times = np.linspace(0, 30.0, 60)
    losses = np.logaddexp(0, -margin_flow(feats, DPO(beta=0.6), until=30.0).margins(times)[~feats.held_out])
    mean = np.average(losses, axis=0, weights=feats.weight[~feats.held_out])
    assert (np.diff(mean) < 0).all()


def test_tighter_tolerances_give_closer_margins():
    feats = random_problem(5)[0]
    exact = margin_flow(feats, DPO(beta=1.0), until=50.0, rtol=1e-12, atol=1e-13).margins(np.array([50.0]))
    errors = [
        np.abs(
            margin_flow(feats, DPO(beta=1.0), until=50.0, rtol=r, atol=r / 10).margins(np.array([50.0])) - exact
        ).max()
        for r in (1e-3, 1e-6, 1e-9)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-7


# events -------------------------------------------------------------------------------------------------------------


def test_a_lone_pair_flips_when_the_closed_form_says():
    """Policy: exp(r) + r = 1 + 2 t beta² at r = -beta (ref_w - ref_l). Reward at level 1: t = e / 2 / beta²."""
    for beta, gap in ((1.0, 0.5), (0.4, 2.0)):
        feats = FeatureSet.from_arrays(
            [[1.0, 0.0]], chosen=[0], rejected=[1], ref_chosen_logps=[-1.0 - gap], ref_rejected_logps=[-1.0]
        )
        level = beta * gap
        run = flow(
            feats, DPO(beta=beta), until=100.0, events=[PairCrosses(), PairCrosses(quantity="reward", level=1.0)]
        )
        happened = run.settings["events"]
        expected = {
            "policy": (math.exp(level) + level - 1) / (2 * beta**2),
            "reward": math.e / (2 * beta**2),
        }
        assert {row["quantity"]: row["time"] for row in happened} == pytest.approx(expected, rel=1e-8)
        assert all(row["rising"] and row["pair"] == 0 and row["run"] == "joint" for row in happened)
        assert [row["time"] for row in happened] == sorted(row["time"] for row in happened)


@pytest.mark.parametrize("make", [wide_problem, lambda seed: random_problem(seed, n=40, d=3)[0]])
def test_every_crossing_is_found_where_a_fine_grid_has_it(make):
    """Pairs up and down, trained or not, against 4,000 points of the dense output and brentq between them."""
    feats = make(7)
    objective, level = DPO(beta=1.0), 0.05
    run = flow(feats, objective, until=60.0, events=[PairCrosses(quantity="reward", level=level)])
    found = sorted((row["pair"], row["time"], row["rising"]) for row in run.settings["events"])
    solved = margin_flow(feats, objective, until=60.0)
    times = np.concatenate([[0], np.geomspace(1e-3, 60, 4000)])
    margins = solved.margins(np.minimum(times, 60.0)) - level
    expected = []
    for pair, values in enumerate(margins):
        for gap in np.flatnonzero((values[1:] > 0) != (values[:-1] > 0)):
            time = brentq(lambda t, pair=pair: solved.margins(np.array([t]))[pair, 0] - level, *times[gap : gap + 2])
            expected.append((pair, time, bool(values[gap + 1] > 0)))
    assert [(pair, up) for pair, _, up in found] == [(pair, up) for pair, _, up in sorted(expected)]
    np.testing.assert_allclose([row[1] for row in found], [row[1] for row in sorted(expected)], rtol=1e-6)
    assert len(found) > 5
    if feats.states.shape[1] == 3:
        assert {up for *_, up in found} == {True, False}  # some pairs are learned and then given up


def test_groups_reach_losses_and_margins_at_the_time_the_closed_form_says():
    """Identical pairs: at margin r the time is (exp(r) + r - 1) / (2 beta² |g|²); a loss is a margin."""
    level, norm2 = 0.7, 3.0
    time = (math.exp(level) + level - 1) / (2 * norm2)
    events = [
        GroupReaches(quantity="margin", level=level),
        GroupReaches(quantity="loss", level=float(np.logaddexp(0, -level)), group="all"),
        GroupReaches(quantity="loss", level=0.001),
        GroupReaches(quantity="margin", level=0.1, split="held_out"),
    ]
    happened = flow(copies(norm2=norm2), DPO(beta=1.0), until=5.0, events=events, alone=True).settings["events"]
    assert [row["time"] for row in happened] == pytest.approx([time] * 4, rel=1e-8)
    assert {(row["run"], row["quantity"]) for row in happened} == set(
        itertools.product(("joint", "alone"), ("margin", "loss"))
    )
    assert all(row["rising"] == (row["quantity"] == "margin") for row in happened)
    assert all(row["pair"] is None and row["split"] == "train" for row in happened)


def test_a_group_alone_reaches_its_loss_at_another_time_than_among_others():
    feats = random_problem(3)[0]
    event = GroupReaches(quantity="loss", level=0.65, group="1")
    happened = flow(feats, DPO(beta=0.7), until=60.0, events=[event], alone=True).settings["events"]
    first = {row["run"]: row["time"] for row in reversed(happened)}
    assert {row["group"] for row in happened} == {"1"}
    assert first["joint"] != pytest.approx(first["alone"], rel=1e-2)


# settings and refusals ----------------------------------------------------------------------------------------------


def test_settings_say_how_it_was_solved_and_equal_input_gives_equal_bytes():
    first, second = (flow(random_problem(0)[0], until=9.0, record=[2.0], margins_at=[5.0]) for _ in range(2))
    assert first.table.equals(second.table)
    assert first.settings["times"] == [0.0, 2.0, 5.0, 9.0]
    assert list(first.margins) == [2]
    expected = {"objective": "sigmoid", "beta": 0.1, "optimizer": "flow", "until": 9.0, "solver": "DOP853", "steps": 3}
    assert {name: first.settings[name] for name in expected} == expected
    assert first.settings["kink_width"] is None
    assert flow(copies(), SLiC(), until=1.0).settings["kink_width"] == KINK_WIDTH


def test_recorded_times_are_sorted_and_hold_both_ends():
    times = recorded_times(50.0)
    assert (times[0], times[-1], len(times)) == (0.0, 50.0, 38)
    assert times == sorted(set(times))
    assert recorded_times(1.0, [0.0, 0.3, 1.0, 0.3]) == [0.0, 0.3, 1.0]


def test_a_pair_with_zero_features_stays():
    feats = FeatureSet.from_arrays(np.zeros((2, 2)), chosen=[0, 1], rejected=[1, 0])
    assert flow(feats, until=3.0).final("margin", group="all") == 0.0


def test_what_has_no_flow_is_refused_with_the_reason():
    feats = copies()
    with pytest.raises(ConfigError, match=r"until is 0\.0, but must be"):
        flow(feats, until=0.0)
    with pytest.raises(ConfigError, match=r"time 9\.0 is asked for, but the flow runs from 0 until 5\.0; raise until"):
        flow(feats, until=5.0, record=[9.0])
    with pytest.raises(ConfigError, match=r"time -1\.0 is asked for"):
        flow(feats, until=5.0, margins_at=[-1.0])
    with pytest.raises(ConfigError, match=r"times from 0\.0 to 6\.0 are asked for"):
        margin_flow(feats, until=5.0).margins(np.array([0.0, 6.0]))
    with pytest.raises(DataError, match="all 6 pairs are held out"):
        flow(feats.with_held_out(np.ones(6, dtype=bool)), until=1.0)
    with pytest.raises(ConfigError, match="rtol is -1"):
        flow(feats, until=1.0, rtol=-1.0)
    with pytest.raises(ConfigError, match="no reference log-probabilities, so when the policy's preference flips"):
        flow(feats, until=1.0, events=[PairCrosses()])
    with pytest.raises(ConfigError, match="group 'al' is unknown; did you mean 'all'"):
        flow(feats, until=1.0, events=[GroupReaches(quantity="loss", level=0.1, group="al")])


def test_a_stiff_flow_stops_and_says_how_far_it_came():
    """One direction settles 1e6 times as fast as the flow is long: an explicit solver takes steps of that length."""
    feats = FeatureSet.from_arrays(np.diag([1000.0, 1.0]), chosen=[0, 0], rejected=[1, 1])
    with pytest.raises(
        ConfigError, match=r"the flow is at time .* of 1e\+06 after \d+ passes .*: it is stiff, as some"
    ):
        flow(feats, GPOIPO(beta=1.0), until=1e6, max_evaluations=2000)
    assert flow(feats, GPOIPO(beta=1.0), until=1e-4, max_evaluations=2000).settings["evaluations"] < 2000


def test_a_pull_that_is_not_finite_is_named():
    class Broken:
        name, beta = "broken", 1.0

        def push(self, margins):
            return np.where(margins < 0.5, 1.0, np.nan)

    feats = copies()
    solver = FlowSolver(feats, Pairs.of(feats), Broken(), rtol=1e-6, atol=1e-8, kink_width=0.01, max_evaluations=10_000)
    with pytest.raises(ConfigError, match=r"the flow fails at time 0\.0.* of 5 .*: the pull of 'broken' is not finite"):
        list(solver.steps(5.0))


def test_several_betas_and_losses_of_no_margin_are_refused():
    with pytest.raises(ConfigError, match="'sft' is no function of the margin"):
        flow(copies(), SFT(), until=1.0)
    with pytest.raises(ConfigError, match="beta has 2 values, but a flow takes one"):
        flow(copies(), DPO(beta=np.array([0.1, 0.2])), until=1.0)


def test_tolerances_are_meant_in_units_of_margin_on_either_route():
    """A unit of the state is a unit of margin, were all pairs to agree: by the largest norm, or n times its square."""
    for feats, gram in ((wide_problem(0), True), (random_problem(0, n=40, d=3)[0], False)):
        pairs, beta = Pairs.of(feats), 0.3
        solver = FlowSolver(
            feats, pairs, DPO(beta=beta), rtol=1e-8, atol=1e-8, kink_width=KINK_WIDTH, max_evaluations=9
        )
        largest = feats.kernel().diagonal()[pairs.train].max()
        assert (len(solver.shape) == 2) == gram
        assert solver.unit == pytest.approx(beta * (largest * len(pairs.train) if gram else math.sqrt(largest)))
