"""The plane of 2404.04626: derivatives, edges, flow lines in four kinds of coordinates, times, and what it claims."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from prefdyn.errors import ConfigError, DataError
from prefdyn.theory import gradient_field as field
from tests.naive import field as naive

quick = settings(max_examples=60, deadline=None)
ratios = st.floats(-3, 3).map(math.exp)
betas = st.floats(0.01, 3)

REFERENCES = st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.99)).map(lambda p: (p[0], p[1] * (1 - p[0])))


# derivatives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "beta", "loss", "gradient"),
    [
        ((1, 1), 0.1, 0.6931471806, (-0.05, 0.05)),
        ((2, 0.5), 0.1, 0.6262328064, (-0.0232699019, 0.0930796077)),
        ((0.5, 2), 0.1, None, (-0.1069203923, 0.0267300981)),
        ((2, 0.5), 1, 0.2231435513, (-0.1, 0.4)),
        ((3, 1), 0.5, None, (-0.0610042340, 0.1830127019)),
    ],
)
def test_loss_and_gradient_of_theory_t17(point, beta, loss, gradient):
    assert field.field_gradient(*point, beta=beta) == pytest.approx(gradient, abs=6e-11)
    if loss is not None:
        assert field.field_loss(*point, beta=beta) == pytest.approx(loss, abs=6e-11)


@given(ratios, ratios, betas)
@quick
def test_theorem_1_is_the_derivative_of_the_loss(x1, x2, beta):
    exact = naive.partials(lambda p: naive.loss(p[0], p[1], beta), (x1, x2))
    found = np.array(field.field_gradient(x1, x2, beta=beta))
    np.testing.assert_allclose(found, exact, rtol=1e-8)
    assert field.field_loss(x1, x2, beta=beta) == pytest.approx(naive.loss(x1, x2, beta), rel=1e-8)
    assert not np.allclose(-found, exact, rtol=1e-6)  # the control: minus the gradient
    assert field.gradient_norm(x1, x2, beta=beta) == pytest.approx(
        beta * x2 ** (beta - 1) * math.sqrt(x1**2 + x2**2) / (x1 * (x1**beta + x2**beta)), rel=1e-12
    )


def test_the_transcription_in_circulation_is_wrong():
    x1, x2, beta = 2.0, 0.5, 0.5
    transcribed = -beta * x1**beta / (x1 * (x1**beta + x2**beta))
    exact = naive.partials(lambda p: naive.loss(p[0], p[1], beta), (x1, x2))[0]
    assert transcribed == pytest.approx(-0.1667, abs=5e-5)
    assert exact == pytest.approx(-0.08333, abs=5e-6)
    assert field.field_gradient(x1, x2, beta=beta)[0] == pytest.approx(exact, rel=1e-12)


@given(ratios, ratios, betas, st.floats(0.1, 10))
@quick
def test_corollary_1_and_the_law_of_euler(x1, x2, beta, scale):
    d1, d2 = field.field_gradient(x1, x2, beta=beta)
    assert -d1 / d2 == pytest.approx(field.gradient_ratio(x1, x2), rel=1e-12)
    assert x1 * d1 + x2 * d2 == pytest.approx(0, abs=1e-12 * abs(x1 * d1))
    assert x1 * d1 - x2 * d2 != pytest.approx(0, abs=1e-3 * abs(x1 * d1))  # the control: a turned sign
    assert field.field_loss(scale * x1, scale * x2, beta=beta) == pytest.approx(
        field.field_loss(x1, x2, beta=beta), rel=1e-12
    )


@given(REFERENCES, st.floats(0.1, 0.9), st.floats(0.1, 0.9), betas)
@quick
def test_the_sensitivity_to_the_sft_model_has_no_reference_in_it(references, share, of_rest, beta):
    chosen = share
    rejected = of_rest * (1 - share)
    slopes = naive.partials(lambda p: naive.loss(p[0] / references[0], p[1] / references[1], beta), (chosen, rejected))
    assert -slopes[0] / slopes[1] == pytest.approx(field.probability_sensitivity(chosen, rejected), rel=1e-8)


def test_learning_of_the_chosen_answer_stalls():
    d1, d2 = field.field_gradient(1.0, 1e-6, beta=0.1)
    assert (d1, d2) == (pytest.approx(-0.020076, abs=5e-7), pytest.approx(20076.0, abs=0.5))
    assert field.gradient_norm(1.0, 1e-6, beta=0.1) == pytest.approx(20076.0, abs=0.5)


def approached(limit, values):
    """Whether values towards the edge tend to the limit."""
    if math.isinf(limit):
        return all(np.diff(np.abs(values)) > 0) and abs(values[-1]) > 100 and math.copysign(1, limit) * values[-1] > 0
    if limit == 0:
        return all(np.diff(np.abs(values)) < 0) and abs(values[-1]) < 0.01
    return values[-1] == pytest.approx(limit, rel=1e-2)


@pytest.mark.parametrize("beta", [0.4, 1.0, 1.6])
@pytest.mark.parametrize("other", [0.5, 1.0, 3.0])
def test_every_edge_is_approached(beta, other):
    for edge in field.edge_limits(beta, other=other):
        towards = np.array([1e4, 1e5, 1e6, 1e7])
        moving = towards if edge.edge.endswith("inf") else 1 / towards
        x1, x2 = (moving, other) if edge.edge.startswith("x1") else (other, moving)
        d1, d2 = field.field_gradient(x1, x2, beta=beta)
        assert approached(edge.chosen, d1), edge
        assert approached(edge.rejected, d2), edge
        assert not approached(edge.rejected + 1 if math.isfinite(edge.rejected) else 0.0, d2)  # a spoiled limit
    vanishing = {0.4: math.inf, 1.0: 1 / other, 1.6: 0.0}[beta]
    assert field.edge_limits(beta, other=other)[1].rejected == vanishing


def test_the_plane_survives_every_number_that_float64_has():
    far = np.array([1e-300, 1e-30, 1.0, 1e30, 1e300])
    x1, x2 = np.meshgrid(far, far)
    for beta in (1e-4, 1.0, 30.0):
        d1, d2 = field.field_gradient(x1, x2, beta=beta)
        assert not np.isnan(d1).any()
        assert not np.isnan(d2).any()
        assert (d1 <= 0).all()
        assert (d2 >= 0).all()
        assert np.isfinite(field.field_loss(x1, x2, beta=beta)).all()
    assert field.field_gradient(1e300, 1e-300, beta=1.0)[1] == pytest.approx(1e-300, rel=1e-9)  # sigma alone is 0
    assert field.field_loss(math.exp(500), math.exp(-500), beta=10.0) == 0.0  # r = 1e4
    assert field.field_loss(math.exp(-500), math.exp(500), beta=10.0) == pytest.approx(1e4)
    assert math.isinf(field.gradient_ratio(1e-300, 1e300))
    assert field.gradient_norm(1e-300, 1e300, beta=1.0) == pytest.approx(1e300)


def test_points_that_are_no_ratios_and_settings_out_of_range_are_refused():
    with pytest.raises(DataError, match=r"x2 has 1 values that are no ratio, the first is 0\.0; give finite numbers"):
        field.field_loss(1.0, np.array([1.0, 0.0]), beta=0.1)
    with pytest.raises(DataError, match="x1 has 1 values that are no ratio, the first is nan"):
        field.field_gradient(math.nan, 1.0, beta=0.1)
    with pytest.raises(ConfigError, match="beta is 0"):
        field.field_loss(1.0, 1.0, beta=0)
    with pytest.raises(ConfigError, match=r"ref_chosen 0\.8 and ref_rejected 0\.3 are together above 1"):
        field.feasible(1.0, 1.0, ref_chosen=0.8, ref_rejected=0.3)


@given(REFERENCES, st.floats(0, 1), st.floats(0, 1))
@quick
def test_every_pair_of_probabilities_is_feasible_and_nothing_else(references, first, second):
    ref_w, ref_l = references
    pi_w, pi_l = first, second * (1 - first)
    inside = pi_w > 0 and pi_l > 0
    known: dict[str, Any] = {"ref_chosen": ref_w, "ref_rejected": ref_l}
    assert bool(field.feasible(pi_w / ref_w, pi_l / ref_l, **known)) == inside
    edge = field.feasible_boundary(pi_w / ref_w, **known)
    assert edge == pytest.approx((1 - pi_w) / ref_l, abs=1e-9 / ref_l)
    if inside and edge > 1e-6:
        assert field.feasible(pi_w / ref_w, edge * (1 - 1e-9), **known)
        assert not field.feasible(pi_w / ref_w, edge * 1.01 + 1e-6, **known)


# four kinds of coordinates ------------------------------------------------------------------------------------------

LINES = [
    ("ratios", (0.1, 0.1), (1.4056, 0.1562)),
    ("log-ratios", (0.1, 0.1), (3.0, 0.3333)),
    ("logits", (0.1, 0.1), (2.6471, 0.2941)),
    ("logits", (0.1, 0.4), (3.2143, 0.3571)),
    ("probabilities", (0.1, 0.1), (1.4056, 0.1562)),  # equal references: the same circle
    ("probabilities", (0.1, 0.4), None),
]


@pytest.mark.parametrize(("coordinates", "references", "printed"), LINES)
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_flow_lines_equal_the_integrated_flow_and_keep_what_they_should(coordinates, references, printed, beta):
    known: dict[str, Any] = {"ref_chosen": references[0], "ref_rejected": references[1]}
    found = field.flow_point(coordinates, ratio=9.0, **known)
    if printed:
        assert found == pytest.approx(printed, abs=6e-5)
    _, path, end = naive.flow(coordinates, ratio=9.0, beta=beta, references=references)
    assert end == pytest.approx(found, rel=1e-8)
    kept = field.conserved(coordinates, path[:, 0], path[:, 1])
    assert np.ptp(kept) < 1e-8
    if coordinates == "ratios":
        assert np.ptp(path[:, 0] ** 2 - path[:, 1] ** 2) == pytest.approx(1.951, abs=1e-3)  # the control
        assert np.ptp(field.conserved("log-ratios", *np.log(path).T)) > 1  # another coordinate's law


@pytest.mark.parametrize("coordinates", field.COORDINATES)
@pytest.mark.parametrize("point", [(1.0, 1.0), (2.0, 0.3), (0.6, 1.9)])
def test_speeds_are_those_of_the_gradient(coordinates, point):
    references = (0.2, 0.35)
    known: dict[str, Any] = {"ref_chosen": references[0], "ref_rejected": references[1]}
    to_ratios, value = naive.loss_in(coordinates, 0.7, references)
    at = np.array(naive.begin(coordinates, point, references))
    velocity = -naive.partials(value, at)
    moved = [
        np.array([part.imag for part in to_ratios(at + 1j * naive.STEP * velocity)]) / naive.STEP,
        velocity[:2],
    ]
    speeds: dict[Any, float] = {
        "ratios": -moved[0][1] / moved[0][0],
        "own": -velocity[1] / velocity[0],
        "log-ratios": -(moved[0][1] / point[1]) / (moved[0][0] / point[0]),
    }
    for unit, expected in speeds.items():
        assert field.speed_ratio(coordinates, *point, unit=unit, **known) == pytest.approx(expected, rel=1e-9), unit


def test_the_speed_claim_depends_on_the_coordinates():
    known: dict[str, Any] = {"ref_chosen": 0.1, "ref_rejected": 0.1}
    at = {name: field.flow_point(name, ratio=9.0, **known) for name in field.COORDINATES}
    speeds = {name: field.speed_ratio(name, *at[name], **known) for name in field.COORDINATES}
    assert speeds["ratios"] == pytest.approx(9)
    assert speeds["log-ratios"] == pytest.approx(1 / 9)
    assert speeds["logits"] == pytest.approx(0.1795, abs=1e-4)
    assert field.speed_ratio("log-ratios", *at["log-ratios"], unit="log-ratios") == 1
    losses = [float(field.field_loss(*point, beta=0.1)) for point in at.values()]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)


@given(REFERENCES, st.floats(-2, 2).map(math.exp), st.sampled_from(field.COORDINATES))
@quick
def test_flow_points_lie_on_the_ray_and_flow_back_to_the_start(references, ratio, coordinates):
    known: dict[str, Any] = {"ref_chosen": references[0], "ref_rejected": references[1]}
    x1, x2 = field.flow_point(coordinates, ratio=ratio, **known)
    assert x1 / x2 == pytest.approx(ratio, rel=1e-9)
    assert field.flow_point(coordinates, ratio=1.0, **known) == pytest.approx((1, 1), rel=1e-9)
    if coordinates != "probabilities" and coordinates != "ratios":
        assert coordinates == "log-ratios" or field.feasible(x1, x2, **known)
    if field.feasible(x1, x2, **known):
        back = field.flow_point(coordinates, ratio=1.0, start=(float(x1), float(x2)), **known)
        assert back == pytest.approx((1, 1), rel=1e-7)


def test_extreme_flow_lines():
    for coordinates in field.COORDINATES:
        x1, x2 = field.flow_point(coordinates, ratio=np.array([1e-300, 1e300]), ref_chosen=0.1, ref_rejected=0.4)
        assert np.isfinite(x1).all()
        assert np.isfinite(x2).all()
        assert (x1 >= 0).all()
        assert (x2 >= 0).all()
    assert field.flow_point("ratios", ratio=1e300) == pytest.approx((math.sqrt(2), math.sqrt(2) * 1e-300))
    logits = field.flow_point("logits", ratio=1e300, ref_chosen=0.1, ref_rejected=0.4)
    assert logits[0] == pytest.approx(10)  # all probability goes to the chosen answer
    full = field.flow_point("logits", ratio=9.0, ref_chosen=0.5, ref_rejected=0.5)
    assert full == pytest.approx((1.8, 0.2))  # nothing but the two answers
    assert field.speed_ratio("ratios", 1e300, 1e-300) == math.inf


def test_missing_references_and_impossible_points_are_refused():
    with pytest.raises(ConfigError, match="these coordinates need the reference probabilities"):
        field.flow_point("logits", ratio=2.0)
    with pytest.raises(DataError, match=r"the two answers would have probability 1\.5 together"):
        field.speed_ratio("logits", 2.0, 1.0, ref_chosen=0.5, ref_rejected=0.5)
    with pytest.raises(DataError, match=r"a ratio of probabilities is -1\.0"):
        field.flow_point("ratios", ratio=-1.0)


# times --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (1, 1.7853981633974483),
        (0.5, 2.48749549439936),
        (0.1, 10.368324584045084),
        (0.01, 100.34864108664193),  # THEORY prints …109908719, wrong from the eighth decimal: 30 digits say this
    ],
)
def test_extinction_times_of_theory_t18(beta, expected):
    assert field.extinction_time(beta) == pytest.approx(expected, rel=1e-13)
    assert field.extinction_time(beta) == pytest.approx(1 / beta, rel={1: 1, 0.5: 0.5, 0.1: 0.05, 0.01: 0.005}[beta])


def test_no_extinction_from_beta_2_on():
    assert field.extinction_time(2.0) == math.inf
    assert field.extinction_time(2.5) == math.inf
    assert field.extinction_time(1.999) > 500
    assert field.flow_time(beta=2.0, until=0.01) == pytest.approx(4.258646593, abs=6e-10)
    assert field.flow_time(beta=2.0, until=1e-300) == pytest.approx(2 * math.log(10) * 150, rel=0.01)


@given(betas, st.floats(0.01, 0.99), ratios, ratios)
@settings(max_examples=40, deadline=None)
def test_flow_time_is_the_integral_and_adds_up(beta, share, x1, x2):
    begin = x2 / x1
    middle = share * begin

    def slowness(u):
        return (x1**2 + x2**2) / beta * u ** (1 - beta) * (1 + u**beta) / (1 + u * u) ** 2

    found = field.flow_time(beta=beta, start=(x1, x2), until=middle)
    assert found == pytest.approx(quad(slowness, middle, begin, epsrel=1e-11)[0], rel=1e-8)
    radius = math.hypot(x1, x2)
    on = (radius / math.hypot(1, middle), radius * middle / math.hypot(1, middle))
    rest, whole = field.flow_time(beta=beta, start=on), field.flow_time(beta=beta, start=(x1, x2))
    assert math.isinf(whole) if beta >= 2 else found + rest == pytest.approx(whole, rel=1e-8)


@pytest.mark.parametrize("beta", [0.2, 1.0, 2.5])
def test_flow_time_is_that_of_the_integrated_flow(beta):
    time, _, _ = naive.flow("ratios", ratio=9.0, beta=beta, start=(1.2, 1.5))
    assert field.flow_time(beta=beta, start=(1.2, 1.5), until=1 / 9) == pytest.approx(time, rel=1e-7)
    assert field.flow_time(beta=beta, start=(1.0, 1.0), until=1 / 9) != pytest.approx(time, rel=1e-2)


def test_extreme_times():
    assert field.extinction_time(1e-4) == pytest.approx(1e4, rel=1e-3)
    assert field.flow_time(beta=1e4, until=0.5) == math.inf  # 2^9998
    assert field.flow_time(beta=1e-4, until=1e-300) == pytest.approx(field.extinction_time(1e-4), rel=1e-9)
    assert field.flow_time(beta=0.5, start=(1e-150, 1e150)) > 1e290
    assert field.flow_time(beta=0.5, start=(1e-200, 1e200)) == math.inf
    assert field.flow_time(beta=0.5, until=1.0) == 0.0
    with pytest.raises(ConfigError, match=r"until is 1\.5, but must lie between 0 and the start's x2/x1, 1:"):
        field.flow_time(beta=0.5, until=1.5)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_log_flow_is_the_closed_form(beta):
    time, _, end = naive.flow("log-ratios", ratio=9.0, beta=beta)
    assert field.log_flow_margin(time, beta=beta) == pytest.approx(beta * math.log(9), rel=1e-9)
    assert end[0] * end[1] == pytest.approx(1, rel=1e-9)
    assert field.log_flow_margin(time, beta=1.1 * beta) != pytest.approx(beta * math.log(9), rel=1e-2)  # the control


@given(ratios, ratios, betas, st.floats(1e-3, 0.5))
@quick
def test_gradient_descent_drifts_outwards_by_the_square_of_its_step(x1, x2, beta, rate):
    d1, d2 = naive.partials(lambda p: naive.loss(p[0], p[1], beta), (x1, x2))
    after = (x1 - rate * d1) ** 2 + (x2 - rate * d2) ** 2
    drift = field.gradient_descent_drift(x1, x2, beta=beta, learning_rate=rate)
    assert after - x1**2 - x2**2 == pytest.approx(drift, rel=1e-9, abs=1e-12 * after)
    assert drift > 0


def test_gradient_descent_can_cross_the_edge():
    x1, x2 = 1.4, 0.01
    assert x2 - 0.5 * field.field_gradient(x1, x2, beta=0.5)[1] < 0


# what probabilities allow on the way --------------------------------------------------------------------------------


@given(REFERENCES, st.floats(0.05, 1), st.floats(0.05, 1))
@quick
def test_the_largest_mass_is_found_on_the_way(references, first, second):
    ref_w, ref_l = references
    scale = 1 / max(1.0, first * ref_w + second * ref_l)
    start = (first * scale, second * scale)
    known: dict[str, Any] = {"ref_chosen": ref_w, "ref_rejected": ref_l, "start": start}
    angles = np.linspace(math.atan2(start[1], start[0]), 0, 20_001)
    masses = math.hypot(*start) * (np.cos(angles) * ref_w + np.sin(angles) * ref_l)
    found = field.largest_mass(**known)
    assert found == pytest.approx(masses.max(), rel=1e-7)
    if abs(found - 1) > 1e-6:
        assert field.leaves_simplex(**known) == (masses.max() > 1)
    if field.leaves_simplex(**known) and found > 1 + 1e-6:
        x1, x2 = field.leaving_point(**known)
        assert x1 * ref_w + x2 * ref_l == pytest.approx(1)
        assert math.hypot(x1, x2) == pytest.approx(math.hypot(*start))
        before = angles[(angles > math.atan2(x2, x1) + 1e-3)]
        inside = math.hypot(*start) * (np.cos(before) * ref_w + np.sin(before) * ref_l)
        assert (inside <= 1 + 1e-9).all()


@given(REFERENCES)
@quick
def test_when_the_circle_from_the_reference_leaves_the_simplex(references):
    ref_w, ref_l = references
    square = ref_w**2 + ref_l**2
    if abs(square - 0.5) < 1e-6 or abs(ref_w - ref_l) < 1e-6:
        return
    expected = ref_w > ref_l and square > 0.5
    assert field.leaves_simplex(ref_chosen=ref_w, ref_rejected=ref_l) == expected


def test_the_condition_needs_both_of_its_halves():
    assert field.leaves_simplex(ref_chosen=0.75, ref_rejected=0.2)
    assert not field.leaves_simplex(ref_chosen=0.2, ref_rejected=0.75)  # the squares alone
    assert not field.leaves_simplex(ref_chosen=0.4, ref_rejected=0.2)  # the order alone
    assert all(map(math.isnan, field.leaving_point(ref_chosen=0.4, ref_rejected=0.2)))
    assert field.largest_mass(ref_chosen=0.7, ref_rejected=0.3) == pytest.approx(1.077, abs=5e-4)
    best: Any = minimize_scalar(lambda angle: -(0.7 * math.cos(angle) + 0.3 * math.sin(angle)), bounds=(0, 1.5))
    assert math.tan(best.x) == pytest.approx(0.3 / 0.7, rel=1e-4)
    assert field.leaving_point(ref_chosen=0.7, ref_rejected=0.3) == pytest.approx((1, 1))


def test_the_start_fixes_what_the_plane_can_reach():
    assert field.largest_preferred_ratio() == pytest.approx(math.sqrt(2))
    _, path, _ = naive.flow("ratios", ratio=1e3, beta=2.0, start=(0.4, 0.9))
    assert path[-1, 0] == pytest.approx(field.largest_preferred_ratio((0.4, 0.9)), rel=1e-6)
    assert np.sum(path[-1] ** 2) == pytest.approx(0.97, abs=2e-9)


# statements ---------------------------------------------------------------------------------------------------------


def test_the_ratio_statement_is_kept_by_the_derivatives_of_the_loss():
    d1, d2 = naive.partials(lambda p: naive.loss(p[0], p[1], 0.3), (2.0, 0.5))
    assert field.ratio_statement(2.0, 0.5, measured=-d1 / d2).kept
    assert field.ratio_statement(2.0, 0.5, measured=-d2 / d1).standing == "broken"  # the control: turned round
    assert field.ratio_statement(2.0, 0.5, group="g").group == "g"


def ended(coordinates, references=(0.1, 0.4)):
    return naive.flow(coordinates, ratio=9.0, beta=0.5, references=references)[2]


def test_the_circle_holds_in_its_plane_and_in_no_other():
    plane, logits = ended("ratios"), ended("logits")
    found = field.circle_statement(trains="ratios", measured=plane[0] ** 2 + plane[1] ** 2)
    assert found.standing == "informative"
    assert field.circle_statement(trains="ratios", measured=plane[0] ** 2 - plane[1] ** 2).standing == "broken"
    outside = field.circle_statement(trains="logits", measured=logits[0] ** 2 + logits[1] ** 2)
    assert outside.standing == "outside"
    assert outside.measured == pytest.approx(10.459, abs=1e-3)
    assert outside.kept is False
    assert "steps" in field.circle_statement(trains="ratios", descent_drift=0.1).failed[0].says


def test_the_speed_claim_holds_in_its_plane_alone():
    speeds = {}
    for coordinates in ("ratios", "log-ratios", "logits"):
        x1, x2 = ended(coordinates)
        speeds[coordinates] = (1 - x2) / (x1 - 1)
    assert field.speed_statement(trains="ratios", measured=speeds["ratios"]).standing == "informative"
    assert speeds["ratios"] == pytest.approx(2.08, abs=5e-3)
    assert speeds["log-ratios"] == pytest.approx(1 / 3, rel=1e-6)
    assert speeds["logits"] == pytest.approx(0.2903, abs=1e-4)
    for coordinates in ("log-ratios", "logits"):
        found = field.speed_statement(trains=coordinates, measured=speeds[coordinates])
        assert (found.standing, found.kept) == ("outside", False)
        assert field.speed_statement(trains="ratios", measured=speeds[coordinates]).standing == "broken"


@given(ratios, ratios, st.floats(1.1, 100))
@quick
def test_the_speed_statement_bounds_every_stretch_of_the_plane(x1, x2, further):
    end = field.flow_point("ratios", ratio=further * x1 / x2, start=(x1, x2))
    found = field.speed_statement((x1, x2), trains="ratios", measured=float((x2 - end[1]) / (end[0] - x1)))
    assert found.kept
    if abs(x1 - x2) > 1e-6 * x1:
        assert found.applies == (x1 >= x2)


def test_feasibility_speaks_of_the_plane_only_where_probabilities_can_follow():
    x1, _ = ended("ratios")
    known: dict[str, Any] = {"ref_chosen": 0.1, "ref_rejected": 0.4}
    assert field.feasibility_statement(**known, trains="ratios", measured=x1).standing == "informative"
    reached, _ = ended("logits")
    found = field.feasibility_statement(**known, trains="logits", measured=reached)
    assert (found.standing, found.kept) == ("outside", False)
    assert field.feasibility_statement(ref_chosen=0.72, ref_rejected=0.01, trains="ratios").is_vacuous
    failed = field.feasibility_statement(ref_chosen=0.7, ref_rejected=0.3, trains="ratios").failed
    assert [condition.says for condition in failed] == ["π(chosen) + π(rejected) <= 1 along the flow line"]


@pytest.mark.parametrize("beta", [1e4, 1e30, 1e300])
def test_the_time_of_a_flow_that_ends_beyond_any_number_is_infinite_without_a_warning(beta):
    assert field.flow_time(beta=beta, until=0.1) == math.inf
