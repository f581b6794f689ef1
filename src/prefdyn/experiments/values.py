"""Values trained together, 1 to 16 at a time: which ones, in what company, and how what they come to goes with K."""

from collections.abc import Mapping, Sequence

import numpy as np

from prefdyn._random import stream
from prefdyn.errors import DataError
from prefdyn.experiments.context import Context
from prefdyn.experiments.published import SEED, VALUE_SETS, VALUES, persona
from prefdyn.experiments.run import ModelChoice, RecipeRun, RecipeSetup
from prefdyn.experiments.statistics import at_step
from prefdyn.trajectory import Trajectory

MEASURED = 4
"""Pairs that whole models are measured on, of all values of a run together: so many times the preset's per group."""

Sets = Mapping[int, tuple[str, ...]]
"""Number of values → their names."""
Ring = Mapping[int, tuple[tuple[str, ...], ...]]
"""Number of values → every run of so many neighbours on a ring."""
Company = Mapping[int, Sequence[Trajectory]]
"""Number of values → training runs of all its sets on the ring."""


def value_sets(context: Context) -> Sets:
    """The published sets where the data has them and the preset asks for all groups; else each a part of the next.

    Published sets are drawn apart, so that a trend over them is one of values as well as of their number. Where the
    data has fewer groups, K ends at what there is.

    Raises:
        DataError: There is one group alone.
    """
    names = sorted(context.answers().groups)
    published = {count: tuple(persona(place) for place in VALUE_SETS[count]) for count in VALUES}
    if context.preset.many is None and all(name in names for group in published.values() for name in group):
        return published
    if len(names) < 2:
        raise DataError(f"values trained together take 2 groups, and the data has {len(names)}; add --data with more")
    most = len(names) if context.preset.many is None else min(context.preset.many, len(names))
    order = stream(SEED, "values", "order").permutation(len(names))
    return {count: tuple(names[place] for place in order[:count]) for count in VALUES if count <= most}


def members(sets: Sets) -> tuple[str, ...]:
    """Every value that is in some set, once.

    Example:
        >>> members({1: ("b",), 2: ("a", "b")})
        ('b', 'a')
    """
    return tuple(dict.fromkeys(name for names in sets.values() for name in names))


def crowd(context: Context) -> tuple[str, ...]:
    """Many behaviours for laws over behaviours: those that values are trained with, whose states are read anyway."""
    return members(value_sets(context)) if context.preset.many is None else context.many()


def ring(sets: Sets) -> Ring:
    """The values of the largest set in every company of neighbours: for each K, every value is in as many sets.

    A mean over the sets of one K, and over their values, is a mean over the same values for every K: what changes with
    K is their number alone.

    Example:
        >>> ring({1: ("a",), 2: ("a", "b"), 3: ("a", "b", "c")})[2]
        (('a', 'b'), ('b', 'c'), ('c', 'a'))
    """
    names = sets[max(sets)]
    return {
        count: tuple(
            tuple(names[(start + place) % len(names)] for place in range(count))
            for start in range(1 if count == len(names) else len(names))
        )
        for count in sets
    }


def by_count(runs: Sequence[Trajectory], companies: Ring) -> Company:
    """Runs of every company in turn, by number of values."""
    left = iter(runs)
    return {count: [next(left) for _ in group] for count, group in companies.items()}


def train_values(
    context: Context, names: Sequence[str], model: ModelChoice, setup: RecipeSetup, *, seed: int
) -> RecipeRun:
    """A whole model trained on some values together, measured on as many pairs whatever their number."""
    measured = context.preset.measured_pairs
    return context.train(
        context.pairs(names, seed, template=setup.template),
        model,
        setup,
        seed=seed,
        title="whole-model",
        probe_pairs=None if measured is None else -(-MEASURED * measured // len(names)),
    )


def mean_curve(run: Trajectory, quantity: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean of a quantity over all pairs of a joint run.

    Example:
        >>> rows = [{"run": "joint", "step": 0, "group": g, "split": "train", "pairs": n, "margin": m}
        ...         for g, n, m in (("a", 1, 4.0), ("b", 3, 0.0))]
        >>> mean_curve(Trajectory.from_rows(rows, settings={}), "margin", "train")
        (array([0]), array([1.]))
    """
    rows = run.where(run="joint", split=split)
    step, pairs = rows["step"].to_numpy(), rows["pairs"].to_numpy().astype(np.float64)
    values = np.asarray(rows[quantity].to_numpy(zero_copy_only=False), dtype=np.float64)
    places, code = np.unique(step, return_inverse=True)
    return places, np.bincount(code, weights=values * pairs) / np.bincount(code, weights=pairs)


def mean_at(runs: Sequence[Trajectory], quantity: str, split: str, share: float) -> float:
    """Mean over several runs of a mean over pairs, at a share of the steps, and not before the first step."""
    found = []
    for run in runs:
        steps, values = mean_curve(run, quantity, split)
        found.append(at_step(steps, values, max(1.0, share * float(steps[-1]))))
    return float(np.mean(found))
