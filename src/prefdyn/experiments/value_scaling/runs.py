"""What is run: heads with each set of values and with each company on the ring, and whole models with each set."""

from dataclasses import replace
from typing import Any

from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.published import VALUE_TABLES
from prefdyn.experiments.recipe import Plan
from prefdyn.experiments.run import ModelChoice, RecipeRun, RecipeSetup
from prefdyn.experiments.values import Sets, members, ring, train_values, value_sets

HEADS = {"adam": "Adam", "descent": "gradient descent"}
"""Ways to train the head, the published one first."""
WHOLES = {
    "whole": "values-full", "other": "values-full-llama-2", "table": "values-full-mistral",
    "other table": "values-full-qwen",
}  # fmt: skip
"""Ways to train whole models, by their setup; those of the second model are named so."""
OFF_TAG = 10**-0.5
"""Rate of the runs that the published plots read, over the rate that the paper states: source error X-21."""


def plan(context: Context) -> Plan:
    """Every run, by way, source, seed and, for whole models, number of values."""
    sets = value_sets(context)
    setup = context.setup("values-last-layer")
    companies = tuple(names for group in ring(sets).values() for names in group)
    found: dict[Any, RecipeRun] = {}
    for seed in context.seeds:
        together = context.pairs(members(sets), seed, template=setup.template)
        for source in SOURCES:
            model = context.source(source, seed, "values-last-layer")
            states = found["features", source, seed] = context.features(together, model)
            for way in HEADS:
                head = setup if way == "adam" else replace(setup, optimizer="sgd", learning_rate="auto")
                kept = _powers_of_two(setup.updates(together.train)) if way == "descent" else ()
                found[way, source, seed] = context.simulate(
                    states, head, seed=seed, subsets=tuple(sets.values()), margins_at=kept
                )
                found["ring", way, source, seed] = context.simulate(states, head, seed=seed, subsets=companies)
            if "code" in context.variants and model.rms_norm:
                twice = found["features, code", source, seed] = context.features(together, model, double_norm=True)
                found["adam, code", source, seed] = context.simulate(
                    twice, setup, seed=seed, subsets=tuple(sets.values())
                )
            for way in WHOLES:
                if (whole := _model(context, way)) is None:
                    continue
                for name, trained in _setups(context, way).items():
                    for count in counts(sets, way):
                        found[name, source, seed, count] = train_values(
                            context,
                            sets[count],
                            whole if source == MODEL else replace(whole, untrained=seed),
                            trained,
                            seed=seed,
                        )
    return found


def counts(sets: Sets, way: str) -> tuple[int, ...]:
    """Numbers of values that are run in one way: the printed tables end at 8."""
    return tuple(count for count in sets if "table" not in way or count in VALUE_TABLES[1].values)


def _powers_of_two(last: int) -> tuple[int, ...]:
    """Steps at which every pair's margin is kept.

    Example:
        >>> _powers_of_two(20)
        (1, 2, 4, 8, 16)
    """
    return tuple(2**power for power in range(last.bit_length()))


def _model(context: Context, way: str) -> ModelChoice | None:
    return context.other_model(WHOLES[way]) if "other" in way else context.model(WHOLES[way])


def _setups(context: Context, way: str) -> dict[str, RecipeSetup]:
    """How a way trains, and for Figure 5 also at the rate whose runs the published plots read."""
    setup = context.setup(WHOLES[way])
    if way != "whole" or not context.compat:
        return {way: setup}
    assert isinstance(setup.learning_rate, float)
    return {way: setup, f"{way}, code": replace(setup, learning_rate=setup.learning_rate * OFF_TAG)}
