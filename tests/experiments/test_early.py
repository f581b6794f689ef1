"""The early head: against sums by hand, against the paper's model, and what it cannot be given."""

import math
from typing import Any

import numpy as np
import pytest

from prefdyn.errors import DataError
from prefdyn.experiments.early import Geometry, law, simulated, values_measured
from prefdyn.features import FeatureSet
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.value_scaling import mean_early_error


def clusters(values=3, pairs=40, noise=0.4, width=30, shared_norm=0.5, half_gap=2.0, seed=0):
    """The paper's model, in features twice as long as its unit."""
    feats = gaussian_groups(
        2 * pairs, groups=values, width=width, noise=noise * half_gap, half_gap=half_gap,
        shared_norm=shared_norm * half_gap, held_out=0.25, seed=seed,
    )  # fmt: skip
    return feats, [f"group {code}" for code in range(values)]


def test_the_error_is_that_of_a_head_summed_up_pair_by_pair():
    """Clusters of one size, so that the head on all pairs is the sum of signed states."""
    feats, names = clusters()
    late = np.tile(np.arange(80) >= 60, 3)  # pairs of the two clusters take turns
    feats = feats.with_held_out(late)
    found = values_measured(feats, names, seed=0)
    assert found.pairs == 30
    signs = np.where(feats.chosen == 0, 1.0, -1.0)
    head = (signs[~late, None] * feats.states[~late]).sum(axis=0)
    wrong = signs[late] * (feats.states[late] @ head) <= 0
    assert 0 < wrong.mean() < 0.5
    assert found.error([names], 30) == pytest.approx(wrong.mean())
    alone = [found.error([[name]], 30) for name in names]
    assert found.error([[name] for name in names], 30) == pytest.approx(np.mean(alone))


def test_half_gaps_grow_by_one_pair_of_each_cluster():
    feats: Any
    feats, names = clusters(values=1)
    found = values_measured(feats, names, seed=0).half_gaps[names[0]]
    one, two = found[0], found[1]
    states = feats.states.astype(np.float64)
    first = [row for row in range(len(feats)) if not feats.held_out[row] and feats.chosen[row] == 0]
    second = [row for row in range(len(feats)) if not feats.held_out[row] and feats.chosen[row] == 1]
    pairs = {(row, other): (states[row] - states[other]) / 2 for row in first for other in second}
    start = next(key for key, gap in pairs.items() if np.allclose(gap, one))
    rest = 2 * two - one
    end = next(key for key, gap in pairs.items() if np.allclose(gap, rest))
    assert start[0] != end[0]
    assert start[1] != end[1]


def test_the_geometry_is_that_of_the_clusters():
    feats, names = clusters(pairs=2000)
    found = values_measured(feats, names, seed=0).geometry
    assert (found.noise, found.shared_norm) == (pytest.approx(0.4, rel=0.02), pytest.approx(0.5, rel=0.05))
    assert (found.width, found.effective_rank) == (30, pytest.approx(30, rel=0.02))
    few = found.along_few()
    assert few.noise**2 * few.width == pytest.approx(found.noise**2 * found.width)


def test_noise_is_taken_off_the_gaps():
    """With 10 pairs a cluster and v = 0.8 in 200 dimensions the plain half gap is 2.6 times too long."""
    feats, names = clusters(values=16, pairs=10, noise=0.8, width=200)
    found = values_measured(feats, names, seed=0)
    plain = np.mean([np.linalg.norm(found.half_gaps[name][-1]) for name in names]) / 2.0
    assert plain > 2
    assert found.geometry.noise == pytest.approx(0.8, rel=0.25)


@pytest.mark.parametrize(("values", "pairs"), [(1, 2), (4, 10), (8, 40)])
def test_simulated_error_law_and_exact_mean_agree(values, pairs):
    geometry = Geometry(noise=0.4, width=40, shared_norm=0.5, effective_rank=40.0)
    exact = mean_early_error(
        values, noise=0.4, width=40, per_cluster=pairs, shared_norm=0.5, shared=True
    )  # fmt: skip
    drawn = [simulated(geometry, values, pairs, seed=seed, draws=50) for seed in range(4)]
    assert np.mean(drawn) == pytest.approx(exact, abs=2 * float(np.std(drawn, ddof=1)))
    assert law(geometry, values, pairs) == pytest.approx(exact, rel=0.05)


def test_a_law_of_another_noise_is_seen():
    geometry = Geometry(noise=0.4, width=40, shared_norm=0.5, effective_rank=40.0)
    drawn = simulated(geometry, 4, 10, seed=0)
    assert abs(law(Geometry(noise=0.5, width=40, shared_norm=0.5, effective_rank=40.0), 4, 10) - drawn) > 0.03


def test_clusters_need_room():
    assert math.isnan(simulated(Geometry(noise=0.4, width=4, shared_norm=0.5, effective_rank=4.0), 4, 3, seed=0))


def test_what_cannot_be_measured_is_named():
    eye = np.eye(4)
    with pytest.raises(DataError, match="all has 2 and 2 training pairs in its two clusters, and 0 held out"):
        values_measured(
            FeatureSet.from_arrays(eye, chosen=[0, 0, 1, 1], rejected=[1, 1, 0, 0]), ["all"], seed=0
        )  # fmt: skip
    three = FeatureSet.from_arrays(eye, chosen=[0, 0, 1, 1], rejected=[1, 2, 0, 0])
    with pytest.raises(DataError, match="all has not two answers of one token"):
        values_measured(three, ["all"], seed=0)


def test_without_a_gap_every_head_errs_on_half():
    """Two classes of the same law: the squared gap less its noise is about 0, and here below it."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(40, 30))
    bare = FeatureSet.from_arrays(
        np.concatenate([states, states]), chosen=[0] * 40 + [1] * 40, rejected=[1] * 40 + [0] * 40,
        held_out=([False] * 30 + [True] * 10) * 2,
    )  # fmt: skip
    found = values_measured(bare, ["all"], seed=0).geometry
    assert (found.noise, found.shared_norm) == (math.inf, math.inf)
    assert (law(found, 4, 10), simulated(found, 4, 10, seed=0)) == (0.5, 0.5)
    assert found.along_few().noise == math.inf
