"""The recipes that there are. A new one is a module of this room with a `RECIPE`, and a line here."""

import functools
import importlib
from collections.abc import Sequence

from prefdyn._checks import one_of
from prefdyn.experiments.recipe import Recipe

MODULES = (
    "distinguishability",
    "prioritization",
    "cluster_structure",
    "gradient_field",
    "misalignment",
    "sample_complexity",
    "distribution_shift",
    "sft_versus_dpo",
    "robustness_of_claims",
    "value_scaling",
    "objectives",
)
"""In the order in which they are run and shown."""


@functools.cache
def names() -> tuple[str, ...]:
    """Names of all recipes.

    Example:
        >>> "gradient-field" in names()
        True
    """
    return tuple(module.replace("_", "-") for module in MODULES)


def recipe_named(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        ConfigError: It is unknown; names the nearest.
    """
    one_of(name, names(), name="recipe")
    return importlib.import_module(f"prefdyn.experiments.{name.replace('-', '_')}").RECIPE


def recipes_named(wanted: Sequence[str]) -> tuple[Recipe, ...]:
    """Several recipes, each once, in the order of the list; "all" for every one.

    Raises:
        ConfigError: One is unknown.
    """
    asked = set(names()) if "all" in wanted else set(wanted)
    for name in sorted({*wanted} - {"all"}):
        one_of(name, names(), name="recipe")
    return tuple(recipe_named(name) for name in names() if name in asked)
