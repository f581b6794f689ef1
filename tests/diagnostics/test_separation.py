"""Separation against explicit loops, laws, and controls that must say no."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, ortho_group
from sklearn.covariance import ledoit_wolf

from prefdyn.diagnostics.separation import GroupSeparation, separation
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from tests.naive import diagnostics as naive

quick = settings(max_examples=15, deadline=None)
FEW: dict[str, Any] = {"permutations": 39, "bootstraps": 20, "folds": 3}


def two_answers(x, positive, **more):
    answers = np.where(positive, "Yes", "No"), np.where(positive, "No", "Yes")
    return FeatureSet.from_arrays(x, chosen=answers[0], rejected=answers[1], tokens=["Yes", "No"], **more)


def cloud(seed=0, n=14, d=4, positives=5, gap=1.0):
    rng = np.random.default_rng(seed)
    positive = np.zeros(n, dtype=bool)
    positive[rng.permutation(n)[:positives]] = True
    x = (rng.normal(size=(n, d)) + 0.5).astype(np.float32).astype(float)
    x[positive, 0] += gap
    return x.astype(np.float32).astype(float), positive


def many_groups(groups, n, d, gap, seed, deviations=None):
    """Groups of n pairs with equal classes, Gaussian states, and the gap along the first axis."""
    rng = np.random.default_rng(seed)
    positive = np.tile(np.arange(n) % 2 == 0, groups)
    x = rng.normal(size=(groups * n, d)) * (1 if deviations is None else deviations)
    x[positive, 0] += gap
    return two_answers(x, positive, group=np.repeat(np.arange(groups), n))


def same(a: GroupSeparation, b: GroupSeparation, names, scale=1.0, **tolerance):
    for name in names:
        assert np.asarray(getattr(a, name)) == pytest.approx(scale * np.asarray(getattr(b, name)), **tolerance), name


# twins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [4, 30])
def test_two_answer_figures_equal_the_explicit_twin(d):
    x, positive = cloud(d=d)
    found = separation(two_answers(x, positive), **FEW).groups[0]
    covariances = [naive.covariance(x[rows]) for rows in (positive, ~positive)]
    traces = [np.trace(c) for c in covariances]
    distance = naive.gap_length(x, positive)
    assert found.classes == (5, 9)
    assert found.distinguishability == pytest.approx(distance)
    assert found.distinguishability_exponent == pytest.approx(math.log(distance) / math.log(d))
    assert found.debiased_squared == pytest.approx(distance**2 - traces[0] / 5 - traces[1] / 9)
    assert found.debiased == pytest.approx(math.sqrt(max(0, found.debiased_squared)))
    assert found.concentration == pytest.approx(max(np.linalg.norm(c, 2) for c in covariances))
    assert found.trace == pytest.approx(max(traces))
    assert found.concentration_ratio == pytest.approx(found.concentration / distance)
    assert found.trace_ratio == pytest.approx(found.trace / distance**2)
    assert found.fisher_ratio == pytest.approx(distance**2 / sum(traces))
    signs = np.where(positive, 1, -1)[:, None]
    assert found.raw_mean_norm == pytest.approx(2 * np.linalg.norm((signs * x).mean(axis=0)))
    centred = np.concatenate([x[positive] - x[positive].mean(axis=0), x[~positive] - x[~positive].mean(axis=0)])
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    gap = x[positive].mean(axis=0) - x[~positive].mean(axis=0)
    assert found.gaussian_kl == pytest.approx(0.5 * gap @ np.linalg.inv(covariance) @ gap)
    assert found.kl_shrinkage == pytest.approx(shrinkage)
    every = np.array(naive.all_relabellings(x, 5))
    assert found.null_rms == pytest.approx(math.sqrt(np.mean(every**2)))


@pytest.mark.parametrize("d", [3, 20])
def test_the_permutation_null_approaches_every_relabelling(d):
    x, positive = cloud(d=d, n=10, positives=4)
    every = np.array(naive.all_relabellings(x, 4))
    distance = naive.gap_length(x, positive)
    found = separation(two_answers(x, positive), permutations=20_000, bootstraps=5, folds=2).groups[0]
    assert found.null_p == pytest.approx(np.mean(every >= distance - 1e-9), abs=0.012)
    assert found.null_z == pytest.approx((distance - every.mean()) / every.std(), abs=0.06)


def test_every_relabelling_as_far_apart_gives_p_one():
    x = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    found = separation(two_answers(x, np.array([True, True, False, False])), **FEW).groups[0]
    assert found.null_p == 1.0
    assert found.distinguishability == 0.0
    assert math.isnan(found.null_z)
    assert math.isnan(found.distinguishability_exponent)


def three_answers(x, seed=0, tokens=("A", "B", "C")):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, 3, len(x))
    chosen[:3] = [0, 1, 2]
    rejected = (chosen + rng.integers(1, 3, len(x))) % 3
    names = np.array(tokens)
    return FeatureSet.from_arrays(x, chosen=names[chosen], rejected=names[rejected], tokens=tokens), chosen, rejected


@pytest.mark.parametrize("d", [2, 9])
def test_more_than_two_answers_equal_the_explicit_twin(d):
    x = np.random.default_rng(3).normal(size=(9, d)).astype(np.float32).astype(float)
    feats, chosen, rejected = three_answers(x)
    phi = naive.flat_features(x, chosen, rejected, 3)
    check_paired(separation(feats, permutations=20_000, bootstraps=20, folds=3).groups[0], phi, 2 * d)


@pytest.mark.parametrize("d", [3, 30])
def test_responses_equal_the_explicit_twin(d):
    rng = np.random.default_rng(4)
    first, second = (rng.normal(size=(9, d)).astype(np.float32) for _ in range(2))
    feats = FeatureSet.from_arrays(chosen_features=first + 1, rejected_features=second)
    phi = (first + np.float32(1)).astype(np.float32).astype(float) - second
    check_paired(separation(feats, permutations=20_000, bootstraps=20, folds=3).groups[0], phi, d)


def check_paired(found, phi, ambient):
    n = len(phi)
    square = 2 * naive.off_diagonal_mean(phi)
    assert found.classes is None
    assert found.debiased_squared == pytest.approx(square, abs=1e-5)
    assert found.distinguishability == pytest.approx(math.sqrt(max(0.0, square)), abs=1e-5)
    assert found.raw_mean_norm == pytest.approx(math.sqrt(2) * np.linalg.norm(phi.mean(axis=0)), rel=1e-5)
    deviation, sums = naive.swap_deviation(phi)
    total = n * (n - 1) * naive.off_diagonal_mean(phi)
    assert found.null_z == pytest.approx(total / deviation, rel=1e-4)
    assert found.null_rms == pytest.approx(math.sqrt(2 * deviation / (n * (n - 1))), rel=1e-4)
    assert found.null_p == pytest.approx(np.mean(np.array(sums) >= total - 1e-6), abs=0.012)
    covariance = np.cov((phi / math.sqrt(2)).T, ddof=1)
    assert found.trace == pytest.approx(np.trace(covariance), rel=1e-5)
    assert found.concentration == pytest.approx(np.linalg.norm(covariance, 2), rel=1e-5)
    assert 0 <= found.probe_accuracy <= 1
    assert found.probe_chance == 0.5
    assert found.gaussian_kl > 0


def test_mirrored_two_answer_data_has_one_distance_under_both_definitions():
    """For classes mirrored at 0 the two ways to debias measure the same thing."""
    x, _ = cloud(n=400, positives=200, gap=0.0)
    positive = np.arange(400) % 2 == 0
    x = np.where(positive[:, None], 1, -1) * x
    both = two_answers(x, positive)
    as_pairs = FeatureSet.from_arrays(
        chosen_features=math.sqrt(2) * np.where(positive[:, None], x, -x), rejected_features=0 * x
    )
    first, second = separation(both, **FEW).groups[0], separation(as_pairs, **FEW).groups[0]
    same(first, second, ["debiased", "raw_mean_norm"], rel=0.01)
    same(first, second, ["trace", "concentration", "fisher_ratio"], rel=0.2)
    assert first.distinguishability == pytest.approx(first.raw_mean_norm)


# laws ---------------------------------------------------------------------------------------------------------------

DISTANCES = ["distinguishability", "debiased", "interval", "null_rms", "raw_mean_norm"]
RATIOS = ["fisher_ratio", "gaussian_kl", "kl_shrinkage", "trace_ratio", "null_z", "null_p"]


@given(st.integers(0, 5000))
@quick
def test_rotation_changes_nothing(seed):
    x, positive = cloud(seed)
    y = x @ ortho_group.rvs(4, random_state=seed)
    a, b = (separation(two_answers(z, positive), **FEW).groups[0] for z in (x, y))
    same(a, b, [*DISTANCES, *RATIOS, "trace", "concentration"], rel=2e-4, abs=2e-4)  # the probe scales its columns


@given(st.integers(0, 5000), st.sampled_from([0.25, 8.0]))
@quick
def test_scale_scales_distances_only(seed, scale):
    x, positive = cloud(seed)
    a, b = (separation(two_answers(z, positive), **FEW).groups[0] for z in (scale * x, x))
    same(a, b, DISTANCES, scale, rel=1e-9, abs=1e-9)
    same(a, b, ["trace", "concentration"], scale**2, rel=1e-9)
    same(a, b, [*RATIOS, "probe_accuracy", "auc"], rel=1e-9)


@given(st.integers(0, 5000))
@quick
def test_flipping_labels_changes_no_distance_and_no_probe(seed):
    x, positive = cloud(seed, positives=5)
    a, b = (separation(two_answers(x, labels), **FEW).groups[0] for labels in (positive, ~positive))
    same(a, b, ["distinguishability", "debiased", "trace", "concentration", "null_rms", "gaussian_kl"], rel=1e-9)
    same(a, b, ["probe_accuracy", "auc", "null_p", "null_z"], rel=1e-9)


@given(st.integers(0, 5000))
@quick
def test_order_of_the_pairs_changes_no_distance(seed):
    x, positive = cloud(seed)
    order = np.random.default_rng(seed).permutation(len(x))
    a, b = (separation(two_answers(x[o], positive[o]), **FEW).groups[0] for o in (np.arange(len(x)), order))
    same(a, b, ["distinguishability", "debiased", "trace", "concentration", "null_rms", "gaussian_kl"], rel=1e-9)


def test_swapping_chosen_and_rejected_changes_no_figure_of_responses():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(20, 6)), rng.normal(size=(20, 6)) + 0.5
    a = separation(FeatureSet.from_arrays(chosen_features=first, rejected_features=second), **FEW).groups[0]
    b = separation(FeatureSet.from_arrays(chosen_features=second, rejected_features=first), **FEW).groups[0]
    same(a, b, [*DISTANCES, *RATIOS, "probe_accuracy", "auc"], rel=1e-6)


def test_same_seed_same_numbers_and_groups_do_not_disturb_each_other():
    feats = many_groups(3, 20, 5, 0.5, seed=0)
    whole = separation(feats, **FEW)
    assert whole == separation(feats, **FEW)
    assert whole != separation(feats, **FEW, seed=1)
    rows = feats.members(1)
    alone = two_answers(feats.states[rows], np.arange(20) % 2 == 0, group=["1"] * 20)
    found = separation(alone, **FEW).groups[0]
    kept = [name for name in GroupSeparation.__slots__ if name not in ("null_p_adjusted", "signal_p")]
    same(found, whole.groups[1], [name for name in kept if name != "name"], rel=1e-12)


# controls -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_labels_that_mean_nothing_give_uniform_p_and_the_null_level():
    feats = many_groups(200, 24, 6, 0.0, seed=1)
    found = separation(feats, permutations=199, bootstraps=2, folds=2).groups
    p = [group.null_p for group in found]
    assert kstest(p, "uniform").pvalue > 0.01
    ratio = np.mean([g.distinguishability**2 / g.null_rms**2 for g in found])
    assert ratio == pytest.approx(1.0, abs=0.1)
    assert abs(np.mean([g.debiased_squared for g in found])) < 0.1
    assert abs(np.mean([g.null_z for g in found])) < 0.25
    assert np.mean([g.probe_accuracy for g in found]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.thorough
def test_swaps_of_meaningless_responses_give_uniform_p():
    rng = np.random.default_rng(2)
    n, groups = 20, 200
    first, second = rng.normal(size=(2, groups * n, 8))
    feats = FeatureSet.from_arrays(
        chosen_features=first, rejected_features=second, group=np.repeat(np.arange(groups), n)
    )
    found = separation(feats, permutations=199, bootstraps=2, folds=2).groups
    assert kstest([group.null_p for group in found], "uniform").pvalue > 0.01
    assert np.std([group.null_z for group in found]) == pytest.approx(1.0, abs=0.2)
    assert np.mean([g.debiased_squared for g in found]) == pytest.approx(0.0, abs=0.1)


def test_one_real_group_among_sixty_is_found_after_adjustment():
    feats = many_groups(60, 40, 5, 0.0, seed=3)
    states = feats.states.copy()
    rows = feats.members(17)
    states[rows[::2], 2] += 3.0
    feats = two_answers(states, np.arange(len(states)) % 2 == 0, group=feats.group)
    found = separation(feats, bootstraps=50)
    assert found.permutations == 4800
    assert found.groups[17].null_p_adjusted < 0.05
    assert found.groups[17].interval[0] > 0
    assert found.groups[17].probe_interval[0] > 0.5
    assert sum(group.null_p_adjusted < 0.05 for group in found.groups) == 1
    assert [place for place, group in enumerate(found.groups) if group.signal_p <= 0.05] == [17]


def test_a_real_preference_in_responses_is_found():
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(2, 200, 50))
    found = separation(FeatureSet.from_arrays(chosen_features=first + 0.25, rejected_features=second)).groups[0]
    assert found.null_p == 0.001
    assert found.debiased == pytest.approx(math.sqrt(2 * 50 * 0.25**2), rel=0.15)
    assert found.interval[0] < math.sqrt(2 * 50) * 0.25 < found.interval[1]
    assert found.probe_interval[0] > 0.5
    assert found.auc > 0.7


def coverage(groups, n, d, gap, deviations=None):
    found = separation(many_groups(groups, n, d, gap, 11, deviations), permutations=1, bootstraps=300, folds=2).groups
    return np.mean([g.interval[0] <= gap + 1e-9 and gap <= g.interval[1] + 1e-9 for g in found])


@pytest.mark.thorough
@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
def test_the_interval_covers_the_true_distance(gap):
    assert coverage(120, 60, 8, gap) >= 0.89


@pytest.mark.slow
def test_the_interval_covers_the_true_distance_in_many_worlds():
    """Nominal 95 %: with few or many directions of noise, and gaps from nothing to far above it."""
    falling = np.arange(1, 65) ** -0.7
    found = [
        coverage(200, n, 64, gap, deviations)
        for n in (40, 200)
        for deviations in (None, falling)
        for gap in (0.0, 0.3, 0.8, 2.0, 5.0)
    ]
    assert min(found) >= 0.9
    assert np.mean(found) >= 0.94


# clusters -----------------------------------------------------------------------------------------------------------


def copied(seed, gap=0.0, units=24, copies=5, d=6, groups=1):
    """Prompts with one label each, by lot, and copies whose states differ a little: half of the spread is the
    prompt's own."""
    rng = np.random.default_rng(seed)
    text = np.repeat(np.arange(units * groups), copies)
    label = np.concatenate([rng.permutation(np.arange(units) % 2) for _ in range(groups)])[text] == 0
    x = (rng.normal(size=(units * groups, d))[text] + rng.normal(size=(len(text), d))) / math.sqrt(2)
    x[label, 0] += gap
    group = np.repeat(np.arange(groups), units * copies)
    return two_answers(x, label, text=text, group=group), x, label, text


@pytest.mark.thorough
def test_labels_by_lot_per_prompt_give_uniform_p():
    feats, *_ = copied(1, groups=150)
    found = separation(feats, permutations=199, bootstraps=2, folds=2).groups
    assert {group.units for group in found} == {24}
    assert kstest([group.null_p for group in found], "uniform").pvalue > 0.01
    assert abs(np.mean([group.null_z for group in found])) < 0.25
    pairs = separation(two_answers(feats.states, feats.chosen == 0, group=feats.group), permutations=199, bootstraps=2)
    assert kstest([group.null_p for group in pairs.groups], "uniform").pvalue < 1e-6  # the control: pairs trade labels


@pytest.mark.thorough
@pytest.mark.parametrize("gap", [0.0, 1.5])
def test_the_debiased_square_is_unbiased_with_copies(gap):
    """300 sets of 24 prompts with five copies; debiasing by pairs would leave about a fifth of a square more."""
    feats, *_ = copied(2, gap=gap, groups=300)
    found = separation(feats, permutations=1, bootstraps=1, folds=2).groups
    squares = np.array([group.debiased_squared for group in found])
    assert squares.mean() == pytest.approx(gap**2, abs=3 * squares.std() / math.sqrt(300))
    naively = np.array([group.distinguishability**2 - 2 * group.trace / 60 for group in found])
    assert naively.mean() > gap**2 + 0.3


def test_debiasing_by_clusters_equals_the_loops():
    """What each pair adds to the gap, summed over its unit; the spread of those sums within each class, squared."""
    _, x, label, text = copied(3, gap=1.0, units=8, copies=3)
    x, label, text = x[:-1].astype(np.float32).astype(float), label[:-1], text[:-1]  # units of different sizes
    found = separation(two_answers(x, label, text=text), **FEW).groups[0]
    noise = 0.0
    for side in (True, False):
        rows = [i for i in range(len(x)) if label[i] == side]
        mean = sum(x[i] for i in rows) / len(rows)
        names = sorted({int(text[i]) for i in rows})
        each = [sum((x[i] - mean) / len(rows) for i in rows if text[i] == name) for name in names]
        middle = sum(each) / len(each)
        noise += len(each) / (len(each) - 1) * sum(float(np.sum((row - middle) ** 2)) for row in each)
    assert found.debiased_squared == pytest.approx(naive.gap_length(x, label) ** 2 - noise)


def test_debiasing_responses_by_clusters_leaves_out_products_within_a_cluster():
    rng = np.random.default_rng(4)
    phi, text = rng.normal(size=(14, 3)).astype(np.float32).astype(float) + 0.5, np.array([0] * 5 + [1] * 3 + [2] * 6)
    feats = FeatureSet.from_arrays(chosen_features=phi, rejected_features=0 * phi, text=text)
    phi = phi.astype(np.float32).astype(float)
    apart = [float(phi[i] @ phi[j]) for i in range(14) for j in range(14) if text[i] != text[j]]
    found = separation(feats, **FEW).groups[0]
    assert found.debiased_squared == pytest.approx(2 * sum(apart) / len(apart), rel=1e-5)


@pytest.mark.parametrize("kind", ["answers", "responses"])
def test_with_one_pair_per_unit_every_figure_equals_that_without_clusters(kind):
    """Names of the clusters do not matter either."""
    rng = np.random.default_rng(5)
    plain_and_named: tuple[dict[str, Any], dict[str, Any]]
    x, positive = cloud(seed=5, n=30, positives=13)
    plain_and_named = {}, {"cluster": rng.permutation(1000)[:30]}
    if kind == "answers":
        plain, named = (two_answers(x, positive, **more) for more in plain_and_named)
    else:
        other = rng.normal(size=x.shape)
        plain, named = (
            FeatureSet.from_arrays(chosen_features=x, rejected_features=other, **more) for more in plain_and_named
        )
    a, b = (separation(feats, **FEW).groups[0] for feats in (plain, named))
    assert a.units == b.units == 30
    same(a, b, [name for name in GroupSeparation.__slots__ if name not in ("name", "classes")], nan_ok=True)


@pytest.mark.thorough
def test_the_interval_covers_the_true_distance_with_copies():
    feats, *_ = copied(6, gap=1.5, groups=120, copies=3)
    found = separation(feats, permutations=1, bootstraps=300, folds=2).groups
    assert np.mean([g.interval[0] <= 1.5 <= g.interval[1] for g in found]) >= 0.88


# edges --------------------------------------------------------------------------------------------------------------


def test_groups_that_cannot_be_measured_are_nan_without_a_word():
    x = np.random.default_rng(0).normal(size=(17, 3))
    group = ["one class"] * 5 + ["three"] * 3 + ["lonely"] * 4 + ["fine"] * 5
    positive = np.array([True] * 5 + [True, False, True] + [True, False, False, False] + [True, False] * 2 + [True])
    found = separation(two_answers(x, positive, group=group), **FEW).groups
    assert [g.classes for g in found] == [(5, 0), (2, 1), (1, 3), (3, 2)]
    for g in found[:2]:
        assert math.isnan(g.distinguishability)
        assert math.isnan(g.null_p)
        assert math.isnan(g.null_p_adjusted)
        assert math.isnan(g.probe_accuracy)
        assert all(map(math.isnan, g.interval))
    lonely, fine = found[2:]
    assert lonely.distinguishability > 0
    assert math.isnan(lonely.debiased)  # a class of one has no covariance
    assert math.isnan(lonely.trace)
    assert lonely.null_p > 0
    assert fine.debiased >= 0
    json.dumps(separation(two_answers(x, positive, group=group), **FEW).rows(), allow_nan=False)


def test_an_emptied_group_and_tiny_responses_are_nan():
    feats = many_groups(2, 8, 3, 1.0, seed=0)
    found = separation(feats.select(feats.group == 1), **FEW).groups
    assert found[0].pairs == 0
    assert math.isnan(found[0].distinguishability)
    assert found[1].null_p_adjusted == found[1].null_p
    tiny = FeatureSet.from_arrays(chosen_features=np.eye(3), rejected_features=np.zeros((3, 3)))
    only = separation(tiny, **FEW).groups[0]
    assert math.isnan(only.debiased)
    assert only.raw_mean_norm == pytest.approx(math.sqrt(2 / 3))


def test_equal_states_everywhere_are_quiet():
    feats = two_answers(np.ones((12, 3)), np.arange(12) % 2 == 0)
    found = separation(feats, **FEW)
    assert found.groups[0].distinguishability == 0.0
    assert found.groups[0].probe_accuracy == 0.5
    json.dumps(found.rows(), allow_nan=False)
    nothing = FeatureSet.from_arrays(chosen_features=np.ones((6, 3)), rejected_features=np.ones((6, 3)))
    assert separation(nothing, **FEW).groups[0].distinguishability == 0.0


def test_rows_have_one_entry_per_group_with_split_intervals():
    rows = separation(many_groups(2, 12, 3, 1.0, seed=0), **FEW).rows()
    assert [row["name"] for row in rows] == ["0", "1"]
    assert rows[0]["debiased_low"] <= rows[0]["debiased_high"]
    assert rows[0]["probe_low"] <= rows[0]["probe_accuracy"] <= rows[0]["probe_high"]
    assert rows[0]["classes"] == [6, 6]


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        ({"permutations": 0}, "permutations is 0, but must be a whole number of at least 1"),
        ({"bootstraps": 0}, "bootstraps is 0"),
        ({"folds": 1}, "folds is 1, but must be a whole number of at least 2"),
    ],
)
def test_counts_that_are_too_small_are_refused(argument, match):
    with pytest.raises(ConfigError, match=match):
        separation(many_groups(1, 8, 2, 1.0, seed=0), **argument)
