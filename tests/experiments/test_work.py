"""What a run does is what the rooms below do when asked directly; and it is done once, whole, and checked."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

from prefdyn.dynamics.descent import descent, stable_learning_rate
from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError
from prefdyn.experiments.run import RecipeRun
from prefdyn.experiments.work import do, finished, folder_of
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.training.train import run_training
from tests.experiments.conftest import GROUPS, HEAD, WHOLE


@pytest.fixture
def features(pairs, builtin_model) -> RecipeRun:
    return RecipeRun(kind="features", title="states", pairs=pairs, model=builtin_model)


@pytest.fixture
def train(pairs, builtin_model) -> RecipeRun:
    return RecipeRun(kind="train", title="training", pairs=pairs, model=builtin_model, setup=WHOLE, record="all")


def test_features_are_those_of_extract(features, pairs):
    found, direct = do(features).features, extract(pairs.load(), "builtin", cache=False, progress=False)
    np.testing.assert_array_equal(found.states, direct.states)
    np.testing.assert_array_equal(found.held_out, direct.held_out)
    assert (found.groups, found.id.tolist()) == (direct.groups, direct.id.tolist())


def test_an_untrained_twin_is_read_in_the_models_place(features, pairs):
    twin = do(replace(features, model=replace(features.model, untrained=5))).features
    direct = extract(pairs.load(), "builtin", untrained=5, cache=False, progress=False)
    np.testing.assert_array_equal(twin.states, direct.states)
    assert np.abs(twin.states - do(features).features.states).max() > 0.1


def test_the_second_norm_reaches_the_states(features):
    once, twice = do(features).features, do(replace(features, double_norm=True)).features
    assert np.abs(once.states - twice.states).max() > 0.1


def test_a_simulation_is_descent_on_each_group_alone(features, pairs, builtin_model):
    run = RecipeRun(
        kind="simulate", title="head", pairs=pairs, model=builtin_model, setup=HEAD, start=features, record="all",
        subsets=tuple((name,) for name in GROUPS),
    )  # fmt: skip
    found = do(run)
    direct = descent(do(features).features, DPO(beta=0.1), learning_rate=0.05, steps=6, record="all")
    for name, trajectory in zip(GROUPS, found.trajectories, strict=True):
        for quantity in ("loss", "drift"):
            ours = trajectory.curve(quantity, group=name)[1]
            theirs = direct.curve(quantity, group=name, run="alone")[1]
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_auto_is_the_stable_rate_of_all_groups_and_batches_are_no_larger_than_a_group(features, pairs, builtin_model):
    run = RecipeRun(
        kind="simulate", title="head", pairs=pairs, model=builtin_model, start=features,
        setup=replace(HEAD, learning_rate="auto", batch_size=1000), subsets=tuple((name,) for name in GROUPS), seed=4,
    )  # fmt: skip
    settings = do(run).settings
    rate = stable_learning_rate(do(features).features, DPO(beta=0.1))
    assert settings["learning_rate"] == pytest.approx(rate)
    assert settings["learning_rate_rule"] == "half of the largest stable step"
    assert (settings["batch_size"], settings["seed"]) == (8, 4)


def test_minibatches_adam_and_a_schedule_are_those_of_the_sweep(features, pairs, builtin_model):
    setup = replace(
        HEAD, optimizer="adam", learning_rate=0.01, batch_size=5, scheme="replacement", schedule="cosine", warmup=2
    )
    run = RecipeRun(
        kind="simulate", title="head", pairs=pairs, model=builtin_model, setup=setup, start=features, seed=2,
        margins_at=(6,),
    )  # fmt: skip
    from prefdyn.maths.optimizers import Schedule

    direct = sweep(
        do(features).features, beta=0.1, learning_rate=0.01, optimizer="adam", batch_size=5, scheme="replacement",
        schedule=Schedule(kind="cosine", steps=6, warmup=2), seed=2, steps=6, margins_at=[6],
    )[0]  # fmt: skip
    np.testing.assert_array_equal(do(run).trajectory.margins[6], direct.margins[6])


def test_flipping_turns_the_margins_round(features, pairs, builtin_model):
    common = {"pairs": pairs, "model": builtin_model, "setup": HEAD, "start": features, "margins_at": (6,)}
    ours, turned = (
        do(RecipeRun(kind="simulate", title="head", flip=flip, **common)).trajectory for flip in (False, True)
    )
    feats = do(features).features.flipped()
    direct = descent(feats, DPO(beta=0.1), learning_rate=0.05, steps=6, margins_at=[6])
    np.testing.assert_allclose(turned.margins[6], direct.margins[6], rtol=1e-10)
    np.testing.assert_allclose(turned.margins[6], ours.margins[6], rtol=1e-10)  # two answers: the head is mirrored


def test_training_is_run_training(train, pairs):
    found = do(train)
    direct = run_training(
        pairs.load(), "builtin", tune="full", objective=DPO(beta=0.1), learning_rate=3e-4, steps=2, batch_size=4,
        clip=1.0, record="all", probe_pairs="all", probes=(), progress=False, cache=False,
    )  # fmt: skip
    assert found.trajectory.table.equals(direct.trajectory.table)
    assert found.settings["learning_rate"] == 3e-4


def test_a_run_that_starts_from_a_trained_model_has_it_for_its_reference(train):
    first = replace(train, keep_model=True, seed=1)
    second = do(replace(train, start=first, seed=2, title="again"))
    before, after = do(first).trajectory, second.trajectory
    name = GROUPS[0]
    start = after.curve("chosen_log_prob", group=name)[1][0]
    assert start == pytest.approx(before.curve("chosen_log_prob", group=name)[1][-1], abs=1e-4)
    assert after.curve("loss", group=name)[1][0] == pytest.approx(np.log(2), abs=1e-6)
    states = do(RecipeRun(kind="features", title="after", pairs=train.pairs, model=train.model, start=first)).features
    plain = do(RecipeRun(kind="features", title="before", pairs=train.pairs, model=train.model)).features
    assert np.abs(states.states - plain.states).max() > 1e-3


def test_a_twin_is_trained_from_fresh_weights(train):
    twin = replace(train, model=replace(train.model, untrained=3))
    first = [do(run).trajectory.curve("chosen_log_prob", group=GROUPS[0])[1][0] for run in (train, twin)]
    assert abs(first[0] - first[1]) > 0.5


def test_nothing_is_done_twice(train):
    do(train)
    path = folder_of(train) / "outcome.json"
    before = path.stat().st_mtime_ns
    assert do(replace(train, title="the same under another name")).seconds == do(train).seconds
    assert path.stat().st_mtime_ns == before


def test_a_model_that_is_wanted_later_is_made_later(train):
    do(train)
    with pytest.raises(ConfigError, match="kept no model; plan it with keep_model=True"):
        _ = do(train).model
    kept = replace(train, keep_model=True)
    assert finished(kept) is None
    assert (do(kept).model / "model.safetensors").is_file()
    assert not list(folder_of(kept).glob("**/checkpoints"))
    assert finished(train) is not None


def test_a_damaged_outcome_is_told_and_done_again(features):
    before = do(features).features.states.copy()
    path = folder_of(features) / "features" / "features.json"
    path.write_bytes(path.read_bytes().replace(b"answers", b"answerz", 1))
    with pytest.warns(RuntimeWarning, match="is damaged.*doing states again"):
        again = do(features)
    np.testing.assert_array_equal(again.features.states, before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finished(features) is not None


def test_a_run_that_fails_leaves_no_folder_behind(train, own_cache):
    broken = replace(train, setup=replace(WHOLE, learning_rate="auto"))
    with pytest.raises(ConfigError, match="has the learning rate 'auto', which is for the last layer alone"):
        do(broken)
    assert list((own_cache / "runs").iterdir()) == []


def test_an_outcome_under_another_runs_name_is_told_and_done_again(features):
    """Whole and sound, in a folder that was renamed."""
    other = replace(features, double_norm=True)
    once, twice = do(features).features.states, do(other).features.states
    shutil.rmtree(folder_of(features))
    shutil.copytree(folder_of(other), folder_of(features))
    with pytest.warns(
        RuntimeWarning, match=r"outcome\.json is of another run, whatever its folder is called; .* again"
    ):
        again = do(features).features.states
    np.testing.assert_array_equal(again, once)
    assert np.abs(again - twice).max() > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finished(features) is not None
