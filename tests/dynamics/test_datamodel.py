"""The linear datamodelling score: what is run again is run without the pairs, and a wrong forecast scores nothing."""

import numpy as np
import pytest

from prefdyn.dynamics.adjoint import one_setting, sensitivity
from prefdyn.dynamics.datamodel import _left_out, lds, resimulated
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.targets import targets
from prefdyn.errors import DataError
from prefdyn.synthetic import gaussian_groups


def features():
    feats = gaussian_groups(60, groups=3, width=10, half_gap=[1.5, 0.8, 0.3])
    return feats.with_held_out(np.arange(len(feats)) % 4 == 0)


@pytest.mark.parametrize("quantity", ["loss", "margin"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_runs_without_pairs_are_runs_of_the_other_pairs(optimizer, quantity):
    feats = features()
    settings = {"optimizer": optimizer, "learning_rate": 0.05}
    masks = _left_out(feats, 0.3, 4, seed=1)
    assert (masks.sum(axis=0) == round(0.3 * (~feats.held_out).sum())).all()
    assert not masks[feats.held_out].any()
    wanted = targets(feats, "groups", quantity=quantity)
    ends = resimulated(feats, masks, wanted, one_setting(feats, **settings), 20)
    for column, mask in enumerate(masks.T):
        alone = sensitivity(feats.select(~mask), steps=20, quantity=quantity, **settings)
        np.testing.assert_allclose(ends[:, column], alone.value, rtol=1e-11)


def test_exact_derivatives_foretell_and_first_steps_fall_behind():
    """Long training, so that the first step is no longer what happens; a forecast of other subsets is no forecast."""
    feats = features()
    settings = {"learning_rate": 6.0, "steps": 400, "of": "groups"}
    few, half = lds(feats, shares=[0.05, 0.5], subsets=40, **settings)
    assert few.score["exact"].min() > 0.95
    assert few.score["exact"].mean() > few.score["first_step"].mean() + 0.1
    assert few.score["exact"].mean() > half.score["exact"].mean() > 0.5
    found = sensitivity(feats, **settings)
    masks, others = (_left_out(feats, 0.05, 40, seed=seed) for seed in (0, 1))
    ends = resimulated(feats, masks, targets(feats, "groups"), one_setting(feats, learning_rate=6.0), 400)
    control = [spearman(said, end) for said, end in zip(found.dropped(others), ends, strict=True)]
    assert np.abs(control).max() < 0.5
    rows = few.rows()
    assert [row["forecast"] for row in rows] == ["exact", "first_step"]
    assert rows[0]["score"] == pytest.approx(few.score["exact"].mean())
    assert (few.spread > 0).all()


def test_a_share_that_leaves_out_nothing_is_refused():
    with pytest.raises(DataError, match=r"a share of 0\.001 of 135 training pairs leaves out 0; give a share"):
        lds(features(), shares=[0.001], subsets=5, steps=2)
