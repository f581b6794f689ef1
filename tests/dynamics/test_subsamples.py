"""Learning curves against runs made one by one on data that was truly cut."""

import numpy as np
import pytest

from prefdyn.dynamics.adjoint import one_setting
from prefdyn.dynamics.crossfit import FOLDS, deal
from prefdyn.dynamics.subsamples import _places, curves
from prefdyn.errors import DataError
from prefdyn.planning.weights import weighted_losses
from prefdyn.synthetic import Dependence, gaussian_groups

STEPS = 12


@pytest.fixture(scope="module")
def feats():
    return gaussian_groups([80, 60], groups=2, width=8, half_gap=[1.0, 0.6], held_out=0.0)


@pytest.fixture(scope="module")
def found(feats):
    return curves(feats, one_setting(feats), STEPS, np.arange(len(feats)), draws=2)


def test_points_are_the_losses_of_runs_on_data_that_was_cut(feats, found):
    """One by one, where the pairs left out are not there at all."""
    setting, unit = one_setting(feats), np.arange(len(feats))
    fold, places = deal(feats, unit, FOLDS, 0), _places(feats, unit, deal(feats, unit, FOLDS, 0), 2, 0)
    size = 1
    for judged in (0, 3):
        mine, ends = np.flatnonzero(fold == judged), []
        for draw in range(2):
            kept = (fold != judged) & (places[judged, draw] < found.share[size])
            rows = np.concatenate([np.flatnonzero(kept), mine])
            alone = feats.select(rows).with_held_out(np.arange(len(rows)) >= kept.sum())
            ends.append(weighted_losses(alone, setting, STEPS, np.ones((len(rows), 1)))[kept.sum() :, 0])
        np.testing.assert_allclose(found.loss[mine, size], np.mean(ends, axis=0), rtol=1e-9)


def test_parts_are_nested_and_keep_the_mix(feats, found):
    fold = deal(feats, np.arange(len(feats)), FOLDS, 0)
    places = _places(feats, np.arange(len(feats)), fold, 1, 0)
    assert (np.diff(found.share) > 0).all()
    assert found.share[-1] == 1.0
    share = found.pairs / found.pairs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share[:, 0], 80 / 140, atol=0.03)
    assert (places[0][0][fold == 0] == 1).all()  # what is judged is never trained on


def test_units_stay_whole():
    feats = gaussian_groups([120, 120], groups=2, width=8, dependence=Dependence(size=3, correlation=1.0), held_out=0.0)
    unit = feats.cluster
    fold = deal(feats, unit, FOLDS, 0)
    place = _places(feats, unit, fold, 2, 0)[1, 1]
    for one in np.unique(unit):
        assert len(np.unique(fold[unit == one])) == 1
        assert len(np.unique(place[unit == one])) == 1


def test_the_same_seed_gives_the_same_curves(feats, found):
    again = curves(feats, one_setting(feats), STEPS, np.arange(len(feats)), draws=2)
    np.testing.assert_array_equal(again.loss, found.loss)
    other = curves(feats, one_setting(feats), STEPS, np.arange(len(feats)), draws=2, seed=1)
    assert (other.loss[:, 0] != found.loss[:, 0]).any()


def test_too_few_units_are_refused():
    feats = gaussian_groups(16, groups=2, width=8)
    with pytest.raises(DataError, match="the typical group has 16 units"):
        curves(feats, one_setting(feats), STEPS, np.arange(32))
