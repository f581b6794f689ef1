"""A cache of its own for every test, a few pairs, the setups that tests train with, and rows made by hand."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.dynamics.order import spearman
from prefdyn.experiments.context import MODEL, TWIN, Context, looked_at
from prefdyn.experiments.presets import preset_named
from prefdyn.experiments.rows import Row
from prefdyn.experiments.run import ModelChoice, RecipeSetup, StoredPairs, store_pairs
from prefdyn.experiments.shared_rules import Control, Judged


def twin_of(judged: Judged) -> Control:
    """What stands beside a judged claim."""
    assert judged.control is not None
    return judged.control


def measured(
    quantity: str,
    values: Sequence[float] | Sequence[Mapping[Any, float]],
    *,
    figure: str = "",
    source: str = MODEL,
    **rest: str,
) -> list[Row]:
    """Rows of one quantity: one number per seed, or one per seed and group."""
    return [
        Row(quantity=quantity, value=value, figure=figure, source=source, seed=seed, group=str(group), **rest)
        for seed, each in enumerate(values)
        for group, value in (each if isinstance(each, Mapping) else {"": each}).items()
    ]


def beside_twin(quantity: str, model: Sequence[float], twin: Sequence[float], **rest: str) -> list[Row]:
    """The same of the model and of its twin."""
    return [*measured(quantity, model, **rest), *measured(quantity, twin, source=TWIN, **rest)]


def learned(figure: str, model=(0.9, 0.91, 0.92), twin=(0.6, 0.61, 0.62)) -> list[Row]:
    """Held-out accuracies under a figure."""
    return beside_twin("accuracy", model, twin, figure=figure)


@functools.cache
def in_order(correlation: float, count: int = 5) -> tuple[float, ...]:
    """Numbers whose rank correlation with 0, 1, 2 … is nearest to this; all the same for NaN."""
    if math.isnan(correlation):
        return (0.0,) * count
    every = itertools.permutations(map(float, range(count)))
    return min(every, key=lambda each: abs(spearman(list(map(float, range(count))), list(each)) - correlation))


def ordered(first: str, second: str, correlations: Sequence[float], *, source: str = MODEL, **rest: str) -> list[Row]:
    """Five groups in whose order two quantities agree so far, seed by seed."""
    groups = "abcde"
    found = measured(first, [dict(zip(groups, range(5), strict=True))] * len(correlations), source=source, **rest)
    values = [dict(zip(groups, in_order(each), strict=True)) for each in correlations]
    return [*found, *measured(second, values, source=source, **rest)]


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


def spread(rows: Sequence[Row], count: int = 5) -> list[Row]:
    """So many units that have the numbers of the seeds in turn, the same in every seed: what differs is the units."""
    places: dict[Row, list[float]] = {}
    for row in rows:
        places.setdefault(row._replace(value=0.0, seed=0), []).append(row.value)
    return [
        place._replace(value=values[unit % len(values)], seed=seed, group=f"unit {unit}")
        for place, values in places.items()
        for seed in range(len(values))
        for unit in range(count)
    ]
