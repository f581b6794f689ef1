"""Cosines, distances and pictures against explicit loops, laws and a stand-in for UMAP."""

import json
import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.decomposition import PCA

from prefdyn.diagnostics.orthogonality import embedding, orthogonality, principal_axes
from prefdyn.errors import ConfigError, DataError, MissingExtra
from prefdyn.features import FeatureSet
from tests.naive import diagnostics as naive

quick = settings(max_examples=20, deadline=None)


def feats_of(seed=0, n=15, d=4, groups=3, states=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 0.7 if states is None else states
    positive = np.arange(n) % 5 < 3
    return FeatureSet.from_arrays(
        x.astype(np.float32),
        chosen=np.where(positive, " Yes", " No"),
        rejected=np.where(positive, " No", " Yes"),
        tokens=[" Yes", " No"],
        group=np.arange(n) % groups,
    )


@pytest.mark.parametrize("rows", ["positive", "all"])
@pytest.mark.parametrize("centre", ["unit", "raw"])
def test_cosines_equal_the_explicit_twin(rows, centre):
    feats = feats_of()
    used = np.arange(15) if rows == "all" else np.flatnonzero(feats.chosen == 0)
    x, group = feats.states[used].astype(float), feats.group[used]
    found = orthogonality(feats, rows=rows, centre=centre)
    np.testing.assert_allclose(found.cosine, naive.mean_cosines(x, group, 3, self_pairs=True))
    np.testing.assert_allclose(found.cosine_without_self, naive.mean_cosines(x, group, 3, self_pairs=False))
    base = x / np.linalg.norm(x, axis=1, keepdims=True) if centre == "unit" else x
    shifted = base - base.mean(axis=0)
    np.testing.assert_allclose(found.cosine_centred, naive.mean_cosines(shifted, group, 3, self_pairs=True), atol=1e-9)
    np.testing.assert_allclose(
        found.cosine_centred_without_self, naive.mean_cosines(shifted, group, 3, self_pairs=False), atol=1e-9
    )
    off = [abs(found.cosine[i, j]) for i in range(3) for j in range(3) if i != j]
    assert found.raw_off_diagonal_mean == pytest.approx(np.mean(off))
    assert found.raw_off_diagonal_max == pytest.approx(max(off))
    centred = np.abs(found.cosine_centred[~np.eye(3, dtype=bool)])
    assert (found.centred_off_diagonal_mean, found.centred_off_diagonal_max) == pytest.approx(
        (centred.mean(), centred.max())
    )
    assert found.mean_squared_norm == pytest.approx((x**2).sum(axis=1).mean())


def test_distances_lie_between_centroids_of_group_and_answer():
    feats = feats_of()
    found = orthogonality(feats)
    assert found.distance_labels == ("0: Yes", "0: No", "1: Yes", "1: No", "2: Yes", "2: No")
    x = feats.states.astype(float)
    centroids = [x[(feats.group == g) & (feats.chosen == a)].mean(axis=0) for g in range(3) for a in (0, 1)]
    for i in range(6):
        for j in range(6):
            assert found.distances[i, j] == pytest.approx(np.linalg.norm(centroids[i] - centroids[j]))


def test_the_null_level_is_the_mean_cosine_of_random_directions():
    found = orthogonality(feats_of(n=4000, d=64, groups=2, states=np.random.default_rng(0).normal(size=(4000, 64))))
    x = np.random.default_rng(1).normal(size=(4000, 64))
    cosines = np.abs((x[::2] * x[1::2]).sum(axis=1)) / np.linalg.norm(x[::2], axis=1) / np.linalg.norm(x[1::2], axis=1)
    assert found.null_cosine == pytest.approx(cosines.mean(), rel=0.05)
    assert math.sqrt(2 / (math.pi * 4096)) == pytest.approx(0.0125, abs=5e-5)
    assert np.abs(found.cosine_without_self).max() < found.null_cosine  # random groups have no structure
    assert found.effective_rank > 60


def test_a_shared_component_is_removed_by_centring():
    rng = np.random.default_rng(2)
    axes = np.eye(40)
    groups, each = 4, 200
    x = np.concatenate([10 * axes[0] + 2 * axes[g + 1] + 0.02 * rng.normal(size=(each, 40)) for g in range(groups)])
    feats = FeatureSet.from_arrays(
        x, chosen=[1] * len(x), rejected=[0] * len(x), tokens=[1, 0], group=np.repeat(np.arange(groups), each)
    )
    found = orthogonality(feats)
    assert found.raw_off_diagonal_mean > 0.9
    assert found.centred_off_diagonal_max == pytest.approx(1 / 3, abs=0.02)  # four directions less their mean: -1/3
    assert found.cosine_centred[0, 1] < 0
    assert np.diag(found.cosine_centred).min() > 0.9


@given(st.integers(0, 5000), st.floats(0.1, 20))
@quick
def test_rotation_and_scale(seed, scale):
    feats = feats_of(seed)
    rotation = ortho_group.rvs(4, random_state=seed)
    other = feats_of(seed, states=scale * feats.states.astype(float) @ rotation)
    a, b = orthogonality(feats), orthogonality(other)
    for name in ("cosine", "cosine_without_self", "cosine_centred", "cosine_centred_without_self"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-4)
    np.testing.assert_allclose(scale * a.distances, b.distances, atol=1e-4 * scale)
    assert b.effective_rank == pytest.approx(a.effective_rank, rel=1e-3)
    assert (b.shared_norm, b.spread) == pytest.approx((a.shared_norm, a.spread), rel=1e-3)


def test_responses_use_every_row_and_have_no_classes():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 8, 5))
    feats = FeatureSet.from_arrays(chosen_features=first, rejected_features=second, group=["a", "b"] * 4)
    found = orthogonality(feats)
    assert found.rows_used == "all"
    assert found.distance_labels == ("a", "b")
    assert math.isnan(found.shared_norm)
    with pytest.raises(DataError, match="rows='positive' needs groups with two answers, but group 'a' has none"):
        orthogonality(feats, rows="positive")


def test_missing_rows_and_single_rows_are_nan():
    feats = FeatureSet.from_arrays(
        np.eye(4), chosen=["Y", "Y", "Y", "N"], rejected=["N", "N", "N", "Y"], tokens=["Y", "N"], group=list("aabc")
    )
    found = orthogonality(feats)
    assert np.isnan(found.cosine[2]).all()
    assert math.isnan(found.cosine_without_self[1, 1])
    assert found.cosine[1, 1] == pytest.approx(1.0)
    json.dumps(found.rows(), allow_nan=False)
    assert len(found.rows()) == 6
    one = orthogonality(FeatureSet.from_arrays(np.eye(2), chosen=[1, 1], rejected=[0, 0]))
    assert math.isnan(one.raw_off_diagonal_mean)
    orthogonality(feats.select(feats.group > 0))


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="rows 'positives' is unknown; did you mean 'positive'"):
        orthogonality(feats_of(), rows="positives")
    with pytest.raises(ConfigError, match="centre 'unti' is unknown"):
        orthogonality(feats_of(), centre="unti")
    with pytest.raises(ConfigError, match="method 'tsne' is unknown"):
        embedding(feats_of(), method="tsne")
    with pytest.raises(ConfigError, match="points is 0"):
        embedding(feats_of(), points=0)


# pictures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(40, 6), (10, 30)])
def test_axes_equal_scikit_learn_up_to_sign(n, d):
    x = np.random.default_rng(0).normal(size=(n, d)) * np.linspace(3, 1, d)
    placed, explained = principal_axes(x)
    twin = PCA(2, svd_solver="full").fit(x)
    np.testing.assert_allclose(np.abs(placed), np.abs(twin.transform(x)), atol=1e-8)
    np.testing.assert_allclose(explained, twin.explained_variance_ratio_)
    again, _ = principal_axes(-x)
    np.testing.assert_allclose(again, -placed, atol=1e-8)  # the direction is the same, so the points are mirrored


def test_axes_of_flat_data_are_zero():
    placed, explained = principal_axes(np.ones((3, 4)))
    assert not placed.any()
    assert explained == (0.0, 0.0)
    single, share = principal_axes(np.array([[1.0], [2.0]]))
    assert single[:, 0].tolist() == [-0.5, 0.5]
    assert share == (1.0, 0.0)


@given(st.integers(1, 40), st.integers(0, 100))
@quick
def test_a_sample_takes_from_every_group_and_no_more_than_asked(points, seed):
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(3), rng.integers(0, 3, 27)])
    feats = FeatureSet.from_arrays(rng.normal(size=(30, 3)), chosen=[1] * 30, rejected=[0] * 30, group=group)
    found = embedding(feats, points=points, seed=seed)
    assert len(found.x) == max(3, min(points, 30))
    assert set(found.group) == {0, 1, 2}
    assert found.of == 30
    places = [int(i) for i in found.id]
    assert places == sorted(places)
    assert [feats.group[place] for place in places] == found.group.tolist()


def test_a_picture_names_group_class_and_pair():
    found = embedding(feats_of())
    assert found.method == "pca"
    assert found.positive == tuple(bool(v) for v in np.arange(15) % 5 < 3)
    rows = found.rows()
    assert json.loads(json.dumps(rows[3])) == rows[3]
    again = embedding(feats_of())
    np.testing.assert_array_equal(again.x, found.x)
    responses = FeatureSet.from_arrays(chosen_features=np.eye(3), rejected_features=np.zeros((3, 3)))
    assert embedding(responses).positive == (None, None, None)


def test_umap_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtra, match=r"needs umap-learn: pip install umap-learn"):
        embedding(feats_of(), method="umap")


def test_umap_gets_the_states_and_the_seed(monkeypatch):
    asked = {}

    class Stand:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, states):
            return states[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Stand))
    found = embedding(feats_of(), method="umap", seed=7)
    assert asked == {"random_state": 7, "n_jobs": 1}
    np.testing.assert_allclose(found.y, feats_of().states[:, 1])
    assert (found.method, found.explained) == ("umap", ())
