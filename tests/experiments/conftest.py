"""A cache of its own for every test, a few pairs, and the setups that tests train with."""

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.experiments.context import Context, looked_at
from prefdyn.experiments.presets import preset_named
from prefdyn.experiments.recipe import Control, Judged
from prefdyn.experiments.run import ModelChoice, RecipeSetup, StoredPairs, store_pairs


def twin_of(judged: Judged) -> Control:
    """What stands beside a judged claim."""
    assert judged.control is not None
    return judged.control


GROUPS = ("tells the truth", "takes risks", "rises early")
HEAD = RecipeSetup(tune="last-layer", beta=0.1, optimizer="sgd", learning_rate=0.05, steps=6, batch_size="full")
WHOLE = RecipeSetup(tune="full", beta=0.1, learning_rate=3e-4, steps=2, batch_size=4, clip=1.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pairs() -> StoredPairs:
    """Ten pairs of each of three built-in behaviours, two of them held out."""
    return store_pairs(load_dataset("builtin", groups=list(GROUPS), limit=10).with_held_out(0.8, seed=0))


@pytest.fixture(scope="session")
def builtin_model() -> ModelChoice:
    return looked_at("builtin", answers=None, device="cpu", dtype="auto", revision=None)


@pytest.fixture
def context(builtin_model) -> Context:
    """What `prefdyn reproduce --preset smoke` gives its recipes."""
    return Context(preset=preset_named("smoke"), data=("builtin",), models=(builtin_model,))
