"""A run is known by everything its numbers depend on, and by nothing else."""

from dataclasses import replace

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.errors import ConfigError
from prefdyn.experiments.run import ModelChoice, RecipeRun, RecipeSetup, store_pairs, with_starts
from tests.experiments.conftest import GROUPS, HEAD, WHOLE

MODEL = ModelChoice(name="somewhere", fingerprint="f" * 64, dtype="float32", device="cpu")


@pytest.fixture
def train(pairs) -> RecipeRun:
    return RecipeRun(kind="train", title="a run", pairs=pairs, model=MODEL, setup=WHOLE)


def test_the_key_follows_everything_that_numbers_depend_on(train, pairs):
    other = store_pairs(load_dataset("builtin", groups=list(GROUPS), limit=9).with_held_out(0.8, seed=0))
    start = replace(train, seed=7, keep_model=True)
    changed = [
        replace(train, seed=1), replace(train, record="all"), replace(train, record=(0, 2)), replace(train, flip=True),
        replace(train, probes=("states",)), replace(train, probe_pairs=3), replace(train, pairs=other),
        replace(train, start=start), replace(train, start=replace(start, seed=8)),
        replace(train, model=replace(MODEL, fingerprint="e" * 64)), replace(train, model=replace(MODEL, untrained=0)),
        replace(train, model=replace(MODEL, answers=("Y", "N"))), replace(train, model=replace(MODEL, device="cuda")),
        replace(train, model=replace(MODEL, dtype="bfloat16")),
        *(
            replace(train, setup=replace(WHOLE, **change))
            for change in (
                {"beta": 0.2}, {"learning_rate": 1e-4}, {"steps": 3}, {"batch_size": 5}, {"clip": None},
                {"optimizer": "sgd"}, {"objective": "ipo"}, {"schedule": "linear"}, {"warmup": 1},
                {"tune": "lora", "lora_rank": 4}, {"tune": "lora", "lora_rank": 8},
                {"scheme": "replacement"},
            )
        ),
        RecipeRun(kind="features", title="a run", pairs=pairs, model=MODEL),
        RecipeRun(kind="features", title="a run", pairs=pairs, model=MODEL, double_norm=True),
    ]  # fmt: skip
    keys = [run.key for run in (train, *changed)]
    assert len(set(keys)) == len(keys)


def test_the_key_knows_no_title_no_place_and_no_wish_to_keep_the_model(train):
    same = [
        replace(train, title="another name"), replace(train, keep_model=True),
        replace(train, model=replace(MODEL, name="elsewhere")),
        replace(train, setup=replace(WHOLE, template="question+newline")),  # the text is in the pairs
    ]  # fmt: skip
    assert {run.key for run in same} == {train.key}


def test_pairs_are_known_by_content_and_split():
    data = load_dataset("builtin", groups=[GROUPS[0]], limit=10)
    first, again, resplit = (store_pairs(data.with_held_out(0.8, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first.key != resplit.key
    assert (first.train, first.held_out, first.groups) == (8, 2, (GROUPS[0],))
    loaded = first.load()
    assert loaded.sha256 == data.sha256
    assert loaded.table["split"].to_pylist() == data.with_held_out(0.8, seed=0).table["split"].to_pylist()


def test_pairs_that_left_the_cache_are_told(pairs, own_cache):
    (own_cache / "pairs" / pairs.key / "dataset.json").unlink()
    with pytest.raises(ConfigError, match=r"are no longer in .*; run the same again"):
        pairs.load()


def test_starts_come_first_and_equal_runs_once_with_their_model_kept_where_anyone_wants_it(train):
    kept = replace(train, title="kept", keep_model=True)
    after = replace(train, title="after", start=kept, seed=3)
    found = list(with_starts([train, after, replace(after, title="twice")]).values())
    assert [run.title for run in found] == ["kept", "after"]
    assert found[0].keep_model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dream"}, "kind 'dream' is unknown"),
        ({"seed": -1}, "seed is -1"),
        ({"setup": None}, "features have no setup, and all others one"),
        ({"kind": "features"}, "features have no setup"),
        ({"kind": "simulate", "setup": HEAD}, "of kind 'simulate' cannot start from nothing"),
    ],
)
def test_runs_that_cannot_be_are_refused(train, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(train, **change)


def test_a_run_starts_only_from_what_gives_it_something(train, pairs):
    features = RecipeRun(kind="features", title="states", pairs=pairs, model=MODEL)
    with pytest.raises(ConfigError, match="cannot start from features"):
        replace(train, start=features)
    with pytest.raises(ConfigError, match="starts from 'a run', which does not keep its model"):
        replace(train, start=train)
    with pytest.raises(ConfigError, match="cannot start from train"):
        RecipeRun(
            kind="simulate", title="s", pairs=pairs, model=MODEL, setup=HEAD, start=replace(train, keep_model=True)
        )


def test_a_setup_says_how_long_it_is_once():
    with pytest.raises(ConfigError, match="a setup has steps 3 and epochs 1; give one of them"):
        RecipeSetup(tune="full", beta=0.1, learning_rate=1e-5, steps=3, epochs=1, batch_size=4)
    with pytest.raises(ConfigError, match="steps None and epochs None"):
        RecipeSetup(tune="full", beta=0.1, learning_rate=1e-5, batch_size=4)
    epochs = RecipeSetup(tune="full", beta=0.1, learning_rate=1e-5, epochs=2, batch_size=4)
    assert [epochs.updates(pairs) for pairs in (8, 9, 3)] == [4, 6, 2]
    assert replace(epochs, batch_size="full").updates(9) == 2


def test_a_model_is_called_by_its_last_name(tmp_path):
    folder = tmp_path / "tiny-3M"
    folder.mkdir()
    assert ModelChoice(name=str(folder)).shown == "tiny-3M"
    assert ModelChoice(name="meta-llama/Llama-2-7b-hf").shown == "meta-llama/Llama-2-7b-hf"
    assert ModelChoice(name="builtin", untrained=3).shown == "builtin (untrained, seed 3)"
