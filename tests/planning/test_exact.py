"""Exact head training on a sample, beside the first-order curve of the same sample."""

import math

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, NormalisedDPO
from prefdyn.models.extract import extract
from prefdyn.planning.audit import audit
from prefdyn.planning.exact import affordable, exact_head, sample_rows
from prefdyn.provenance import Provenance
from prefdyn.settings import Extraction
from prefdyn.training.train import run_training


@pytest.fixture(scope="module")
def data() -> PreferenceDataset:
    return load_dataset("builtin:responses", limit=24).with_held_out(0.75, seed=0)


@pytest.fixture(scope="module")
def feats(data) -> FeatureSet:
    return extract(data, "builtin", sketch=0, progress=False)


def exactly(data, feats, objective=None, *, rate, steps, pairs=12):
    return exact_head(
        data, "builtin", feats, objective or DPO(), pairs=pairs, why="as asked", learning_rate=rate, steps=steps,
        progress=False, reading=Extraction(sketch=0),
    )  # fmt: skip


def test_a_sample_takes_from_every_group_and_no_held_out_pair(feats):
    rows = sample_rows(feats, 12)
    assert len(rows) == 12
    assert not feats.held_out[rows].any()
    assert (np.bincount(feats.group[rows]) == 3).all()
    assert sample_rows(feats, 12).tolist() == rows.tolist()
    assert sample_rows(feats, 12, seed=1).tolist() != rows.tolist()
    assert len(sample_rows(feats, 10_000)) == (~feats.held_out).sum()


def test_it_is_the_last_layer_run_of_the_same_pairs(data, feats):
    """`train --tune last-layer` on the sample: the same margins."""
    found = exactly(data, feats, rate=1e-3, steps=4)
    few = data.select(ids=feats.id[sample_rows(feats, 12)])
    run = run_training(few, "builtin", tune="last-layer", objective=DPO(), learning_rate=1e-3, steps=4, progress=False)
    np.testing.assert_allclose(found.trained.margins[4], run.trajectory.margins[4], rtol=0, atol=1e-6)
    assert found.pairs == 12


def test_the_gap_closes_at_second_order(data, feats):
    """A tenth of the rate, about a hundredth of the gap, without a sketch; log-probabilities leave first."""
    wide, narrow = (exactly(data, feats, rate=rate, steps=3).gap() for rate in (1e-2, 1e-3))
    for quantity in ("margin", "chosen_change", "rejected_change"):
        assert narrow[quantity] < wide[quantity] / 40
    assert wide["chosen_change"] > 10 * wide["loss"]


def test_what_is_written(data, feats):
    found = exactly(data, feats, rate=0.01, steps=5)
    told = found.to_json()
    assert [row["name"] for row in told["groups"]] == ["style", "length", "random", "against"]
    assert {len(row["exact_loss"]) for row in told["groups"]} == {len(told["recorded"])}
    assert abs(told["groups"][0]["exact_loss"][0] - math.log(2)) < 1e-6
    worst = max(
        np.abs(np.subtract(row["exact_loss"], row["first_order_loss"])).max() for row in told["groups"]
    )  # fmt: skip
    assert told["gap"]["loss"] == worst
    foreseen = found.displacement_json()
    assert -1 <= foreseen["ches"]["spearman"] <= 1
    assert foreseen["pairs"] == 12


def test_the_first_step_foresees_what_small_steps_do(data, feats):
    """Two steps of exact training move the chosen log-probabilities as the push says; chance would not."""
    found = exactly(data, feats, rate=1e-3, steps=2, pairs=40)
    assert found.first_step.value > 0.95
    assert found.first_step.p_value < 0.001


def test_the_gap_closes_for_margins_per_token_too(data, feats):
    wide, narrow = (
        exactly(data, feats.averaged(), NormalisedDPO(beta=1.0), rate=rate, steps=3).gap() for rate in (1e-1, 1e-2)
    )
    assert narrow["margin"] < wide["margin"] / 40


def test_as_many_as_can_be_afforded():
    def sized(tokens: int, vocabulary: int) -> FeatureSet:
        return FeatureSet.from_arrays(
            chosen_features=np.eye(300), rejected_features=np.zeros((300, 300)), chosen_length=[tokens] * 300,
            rejected_length=[tokens] * 300, provenance=Provenance(model={"vocabulary": vocabulary, "hidden_size": 10}),
        )  # fmt: skip

    each = 6 * 1000 * 10 * 40 * 100
    assert affordable(sized(20, 1000), steps=100, budget=50 * each) == 50
    assert affordable(sized(20, 1000), steps=100, budget=1e6 * each) == 200
    assert affordable(sized(20, 1000), steps=100, budget=15 * each) == 0
    assert affordable(sized(40, 1000), steps=100, budget=50 * each) == 25


def test_the_audit_asks_for_what_it_needs(data, feats):
    with pytest.raises(ConfigError, match="exact training on 5 pairs reads their tokens"):
        audit(feats, exact=5, progress=False)
    with pytest.raises(ConfigError, match="exact"):
        audit(data, exact=-1, progress=False)
    assert audit(feats, texts=data, steps=5, progress=False).exact is None
