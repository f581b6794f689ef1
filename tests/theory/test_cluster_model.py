"""The data model of value scaling: its conditions, its tokens, and what it refuses."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.value_scaling.model import ClusterModel, token_sharing

quick = settings(max_examples=50, deadline=None)
GOOD: dict[str, Any] = {
    "values": 4,
    "per_cluster": 40,
    "width": 200,
    "noise": 1 / (32 * math.sqrt(40)),
    "shared_norm": 0.25,
}


def good_but(**changes: Any) -> ClusterModel:
    return ClusterModel(**{**GOOD, **changes})


def failing(**changes: Any) -> list[str]:
    return [condition.says for condition in good_but(**changes).conditions() if condition.holds is False]


def test_a_model_at_every_limit_meets_every_condition():
    assert failing(sharing=4, distinct=True) == []
    assert failing(shared_norm=0.5, sharing=1) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sharing": 5}, "Z <= 1/(4 l_b^2)"),
        ({"shared_norm": 0.24}, "l_b >= 1/4"),
        ({"shared_norm": 0.51, "sharing": 1}, "l_b <= 1/2"),
        ({"width": 201}, "d <= 5 Q"),
        ({"noise": 1.001 / (32 * math.sqrt(40))}, "v <= 1/(32 sqrt Q)"),
        ({"width": 4}, "d >= K + 1"),
        ({"distinct": False}, "no two values have the same two tokens"),
    ],
)
def test_each_condition_can_fail(changes, says):
    assert says in failing(**changes)


def test_the_condition_on_sharing_as_summarised_is_one_that_nothing_meets():
    """X-8: Z <= l_b^2/4 with l_b <= 1/2 asks for Z <= 1/16, and a token appears in at least one value."""
    for shared_norm in (0.25, 0.35, 0.5):
        assert shared_norm**2 / 4 <= 1 / 16 < 1
        limit = good_but(shared_norm=shared_norm).conditions()[0].limit
        assert limit == pytest.approx(1 / (4 * shared_norm**2))
        assert float(limit) >= 1


def test_the_deviation_of_the_refined_form_is_a_condition_when_given():
    model = ClusterModel(**GOOD)
    assert model.largest_eps == pytest.approx(1 / (16 * GOOD["noise"] * 3))
    assert model.conditions(model.largest_eps)[-1].holds
    assert model.conditions(1.01 * model.largest_eps)[-1].holds is False
    assert len(model.conditions()) + 1 == len(model.conditions(1.0))


def test_what_cannot_be_measured_is_taken():
    taken = [condition.says for condition in ClusterModel(**GOOD).conditions() if condition.holds is None]
    assert taken == [
        "no two values have the same two tokens",
        "Gaussian clusters of equal size, directions orthogonal to each other and to b",
    ]


def test_counts_and_limits():
    model = ClusterModel.at_the_limits(10, 880, sharing=2, shared_norm=0.3)
    assert model.pairs == 17_600
    assert model.total_variance == pytest.approx(5 / 1024)
    assert all(condition.holds is not False for condition in model.conditions())


def test_sharing_is_counted_per_value_in_both_roles():
    assert token_sharing([("a", "b")]) == (1, True)
    assert token_sharing([("a", "b"), ("c", "a"), ("a", "d")]) == (3, True)
    assert token_sharing([(0, 1), (1, 2), (2, 0)]) == (2, True)
    assert token_sharing([("Yes", "No")] * 16) == (16, False)
    assert not token_sharing([("Yes", "No"), ("No", "Yes")]).distinct


@given(st.lists(st.sampled_from([(a, b) for a in range(6) for b in range(6) if a != b]), min_size=1, max_size=8))
@quick
def test_sharing_lies_between_one_and_the_number_of_values_and_ignores_order(pairs):
    found = token_sharing(pairs)
    assert 1 <= found.sharing <= len(pairs)
    assert token_sharing([(b, a) for a, b in reversed(pairs)]) == found
    assert found.sharing == max(sum(token in pair for pair in pairs) for token in range(6))


def test_what_is_no_model_is_refused():
    with pytest.raises(ConfigError, match="per_cluster is 0, but must be a whole number of at least 1"):
        good_but(per_cluster=0)
    with pytest.raises(ConfigError, match=r"noise is 0.0, but must be a finite number above 0; give the standard"):
        good_but(noise=0.0)
    with pytest.raises(ConfigError, match=r"shared_norm is nan, but must be a finite number, 0 or above"):
        good_but(shared_norm=math.nan)
    with pytest.raises(DataError, match="token_sharing was given 0 values"):
        token_sharing([])
    with pytest.raises(DataError, match="value 1 has the same token 'x' as chosen and rejected"):
        token_sharing([("x", "y"), ("x", "x")])


@pytest.mark.parametrize(("values", "per_cluster"), [(1, 1), (1, 10**12), (10**6, 1), (10**9, 10**12)])
def test_extreme_sizes(values, per_cluster):
    model = ClusterModel(values=values, per_cluster=per_cluster, width=1, noise=1e-300, shared_norm=0.0, sharing=values)
    assert model.pairs == 2 * values * per_cluster
    assert model.conditions()[0].limit == math.inf
    assert all(not math.isnan(float(c.measured)) for c in model.conditions(1.0) if c.holds is not None)
