"""How much is run: a smoke test in seconds, a small real model in minutes, a larger one in hours, or as published."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefdyn._checks import one_of
from prefdyn.experiments.published import SETTINGS
from prefdyn.experiments.run import RecipeSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Sizes and settings of all recipes. Rules and thresholds of claims are not among them: those never change."""

    name: str
    says: str
    setups: Mapping[str, RecipeSetup]
    """By the names of `published.SETTINGS`."""
    seeds: int
    """Repetitions: each draws rows, split, batches and fresh weights anew."""
    rows: int | None
    """Pairs per group, drawn by the seed; None: all."""
    split: float
    """Share of them to train on."""
    behaviours: int
    """How many behaviours stand in for the five of 2403.18742."""
    many: int | None
    """How many groups stand in for all personas; None: all."""
    evaluations: int | None
    """Steps after the first at which whole models are measured, log-spaced; None: every step, as published."""
    measured_pairs: int | None
    """Pairs per group and split that whole models are measured on; None: all, as published."""
    relabellings: int
    """Random labels per group that distinguishability is held against."""
    jobs: int | None
    """Processes unless asked for; None: one per core."""
    left_out: tuple[str, ...] = ()
    """Setups whose figures are not run; claims on them are not testable."""


def _over(**changes: Mapping[str, Any]) -> dict[str, RecipeSetup]:
    """The published setups with some fields changed, by family of names; "*" changes all of a way to tune."""
    found = {}
    for name, published in SETTINGS.items():
        setup = published.setup
        for family in (setup.tune, name):
            setup = replace(setup, **changes.get(family.replace("-", "_").replace(".", "_"), {}))
        found[name] = setup
    return found


_ALL_LINEAR = {"lora_rank": 8, "lora_dropout": 0.0, "lora_targets": ("all-linear",)}
"""Small models name their layers otherwise."""
_VALUES_HEAD = {"batch_size": "full", "learning_rate": 1e-2}
_VALUES_WHOLE = ("values_full", "values_full_llama_2", "values_full_mistral", "values_full_qwen")

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        name="smoke",
        says="the built-in model and data, or others, in seconds: shows that it runs, not what is true",
        setups=_over(
            last_layer={"learning_rate": "auto", "steps": 20, "batch_size": 16},
            full={"learning_rate": 3e-4, "epochs": None, "steps": 4, "batch_size": 8},
            lora={"learning_rate": 1e-3, "epochs": None, "steps": 3, "batch_size": 4, **_ALL_LINEAR},
            values_last_layer=_VALUES_HEAD,
            full_beta_1={"learning_rate": 3e-5},
        ),
        seeds=1,
        rows=30,
        split=0.8,
        behaviours=3,
        many=6,
        evaluations=2,
        measured_pairs=10,
        relabellings=99,
        jobs=1,
    ),
    "small": Preset(
        name="small",
        says="a small real model, at most 200 rows per persona, rates and steps at which its runs learn",
        setups=_over(
            last_layer={"learning_rate": "auto", "batch_size": 24},
            full={"learning_rate": 1e-4, "epochs": None, "steps": 16, "batch_size": 16},
            full_long={"steps": 24},
            full_long_other={"steps": 24},
            lora={"learning_rate": 1e-3, "epochs": None, "steps": 12, "batch_size": 8, **_ALL_LINEAR},
            values_last_layer=_VALUES_HEAD,
            **{key: {"steps": 40} for key in _VALUES_WHOLE},
            full_beta_1={"learning_rate": 1e-5},
        ),
        seeds=3,
        rows=200,
        split=0.8,
        behaviours=5,
        many=None,
        evaluations=4,
        measured_pairs=40,
        relabellings=999,
        jobs=None,
    ),
    "medium": Preset(
        name="medium",
        says="a real model of some hundred million weights in hours: 40 rows per persona, LoRA for whole models",
        setups=_over(
            last_layer={"learning_rate": "auto", "batch_size": 8},
            full={"tune": "lora", "learning_rate": 1e-3, "epochs": None, "steps": 6, "batch_size": 4, **_ALL_LINEAR},
            full_long={"steps": 8},
            full_long_other={"steps": 8},
            lora={"learning_rate": 1e-3, "epochs": None, "steps": 4, "batch_size": 4, **_ALL_LINEAR},
            values_last_layer=_VALUES_HEAD,
            **{key: {"steps": 12} for key in _VALUES_WHOLE},
            full_beta_1={"learning_rate": 1e-4},
        ),
        seeds=3,
        rows=40,
        split=0.8,
        behaviours=5,
        many=8,
        evaluations=3,
        measured_pairs=8,
        relabellings=999,
        jobs=1,
        left_out=("full-beta-0.001", "full-beta-0.1", "full-beta-1"),
    ),
    "paper": Preset(
        name="paper",
        says="the published models, personas, rows and settings",
        setups={name: published.setup for name, published in SETTINGS.items()},
        seeds=3,
        rows=None,
        split=0.9,
        behaviours=5,
        many=None,
        evaluations=None,
        measured_pairs=None,
        relabellings=999,
        jobs=1,
    ),
}


def preset_named(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ConfigError: It is unknown; names the nearest.

    Example:
        >>> preset_named("paper").setups["full"].learning_rate
        1e-05
    """
    return PRESETS[one_of(name, PRESETS, name="preset")]


def beside_published(preset: Preset, name: str) -> list[dict[str, Any]]:
    """What a preset changes of a published setup, field by field; nothing where it is run as published.

    Example:
        >>> beside_published(preset_named("paper"), "full")
        []
        >>> beside_published(preset_named("small"), "full-beta-1")[0]
        {'setup': 'full-beta-1', 'field': 'learning_rate', 'here': 1e-05, 'published': 1e-06}
    """
    here, there = preset.setups[name].to_json(), SETTINGS[name].setup.to_json()
    return [
        {"setup": name, "field": field, "here": here.get(field), "published": there.get(field)}
        for field in dict.fromkeys([*here, *there])
        if here.get(field) != there.get(field)
    ]
