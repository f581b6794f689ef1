r"""How each pair was learned, from its margin path: confidence, variability, first-learned step, forgetting.

After dataset cartography (Swayamdipta et al. 2020), with $\sigma(r)$, the probability that the preference model gives
to the stated preference, in the place of the probability of the gold label; and after Toneva et al. (2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from jaxtyping import Float, Int

from prefdyn._checks import at_least, one_of
from prefdyn._showing import Tabular
from prefdyn.errors import DataError

WEIGHTS = ("spacing", "equal")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairStatistics(Tabular):
    """One number per pair and statistic. NaN where a pair was never recorded, or a step was never reached."""

    records: Int[np.ndarray, " n"]
    """At how many steps the pair's margin was recorded."""
    confidence: Float[np.ndarray, " n"]
    r"""Mean of $\sigma(r)$ over the recorded steps, in (0, 1); 1/2 for a pair that never moves."""
    variability: Float[np.ndarray, " n"]
    r"""Standard deviation of $\sigma(r)$ over the recorded steps, in [0, 1/2]."""
    correctness: Float[np.ndarray, " n"]
    """Share of the recorded steps with a margin above 0, in [0, 1]. The start, at 0, is not above."""
    first_above: Float[np.ndarray, " n"]
    """First recorded step with a margin above 0."""
    learned: Float[np.ndarray, " n"]
    """First recorded step from which the margin is above 0 and stays there; NaN if it ends at or below 0."""
    forgettings: Int[np.ndarray, " n"]
    """How often a margin above 0 was next recorded at or below 0."""

    def __len__(self) -> int:
        return len(self.records)

    def rows(self, ids: Any = None) -> list[dict[str, Any]]:
        """One dictionary per pair, in order; None for NaN. `pair` is its number, or its id where given."""
        if ids is not None and len(ids) != len(self):
            raise DataError(f"ids has {len(ids)} entries for {len(self)} pairs; give one per pair")
        columns = {name: getattr(self, name).tolist() for name in _STATISTICS}
        return [
            {"pair": row if ids is None else str(ids[row])}
            | {name: None if values[row] != values[row] else values[row] for name, values in columns.items()}
            for row in range(len(self))
        ]

    def by_group(self, group: Int[np.ndarray, " n"], groups: Sequence[str]) -> list[dict[str, Any]]:
        """Means over the pairs of each group that has recorded ones, each pair counted once however it was batched.

        Args:
            group: Index of each pair into `groups`.
            groups: Names.

        Returns:
            Rows with `group`, `pairs` (those recorded), means of `confidence`, `variability`, `correctness` and
            `forgettings`, `learned_share`, `forgotten_share` (pairs forgotten at least once, of those ever above 0;
            None if there is none), and `learned`, the median step among the learned pairs (None if there is none).
        """
        if len(group) != len(self):
            raise DataError(f"group has {len(group)} entries for {len(self)} pairs; give one per pair")
        found = []
        for code, name in enumerate(groups):
            inside = np.flatnonzero((group == code) & (self.records > 0))
            if not len(inside):
                continue
            learned = self.learned[inside]
            kept, above = learned[np.isfinite(learned)], np.isfinite(self.first_above[inside])
            row: dict[str, Any] = {"group": name, "pairs": len(inside)}
            row |= {each: float(np.mean(getattr(self, each)[inside])) for each in _AVERAGED}
            row |= {
                "learned_share": len(kept) / len(inside),
                "forgotten_share": float(np.mean(self.forgettings[inside][above] > 0)) if above.any() else None,
                "learned": float(np.median(kept)) if len(kept) else None,
            }
            found.append(row)
        return found


_STATISTICS = ("records", "confidence", "variability", "correctness", "first_above", "learned", "forgettings")
_AVERAGED = ("confidence", "variability", "correctness", "forgettings")


def pair_statistics(margins_by_step: Mapping[Any, Any], *, weights: str = "spacing") -> PairStatistics:
    r"""Statistics of margin paths that are in memory, such as `Trajectory.margins`.

    Args:
        margins_by_step: Step (or time) → (n,) margins of all pairs, in any order.
        weights: What a recorded step counts in mean, deviation and correctness. "spacing": the trapezoid rule, half of
            the distance between its neighbours, so that steps recorded ever more thinly give the mean over all steps;
            "equal": every recorded step once, as the paper does with epochs.

    Raises:
        ConfigError: The weights are unknown.
        DataError: No step is given, a margin is not finite, or the number of pairs changes.

    Reference:
        Swayamdipta et al. (2020), Dataset Cartography, arXiv:2009.10795, section 2; Toneva et al. (2019),
        arXiv:1812.05159. Ours: weights for uneven steps, and the step from which a pair stays learned.

    Example:
        >>> paths = {0: np.zeros(2), 1: np.array([1.0, 0.5]), 4: np.array([2.0, -0.5])}
        >>> found = pair_statistics(paths)
        >>> found.learned.tolist(), found.forgettings.tolist(), found.confidence.round(3).tolist()
        ([1.0, nan], [0, 1], [0.758, 0.515])
    """
    if not margins_by_step:
        raise DataError("no step is given, so nothing is known of any pair; record margins, as with margins_at")
    steps = sorted(margins_by_step)
    stream = MarginStream(len(margins_by_step[steps[0]]), weights=weights)
    for step in steps:
        stream.update(step, margins_by_step[step])
    return stream.statistics()


class MarginStream:
    r"""The same statistics step by step, without keeping margins: a few numbers per pair, in the margins' library.

    Pairs may be recorded at different steps, as in minibatch training: each is weighted by its own spacing.

    Args:
        pairs: How many there are.
        weights: As for `pair_statistics`.

    Example:
        >>> stream = MarginStream(2)
        >>> stream.update(0, np.zeros(2))
        >>> stream.update(1, np.array([0.5]), index=np.array([1]))
        >>> stream.statistics().records.tolist()
        [1, 2]
    """

    def __init__(self, pairs: int, *, weights: str = "spacing") -> None:
        self.pairs = at_least(pairs, 1, name="pairs")
        self.by_spacing = one_of(weights, WEIGHTS, name="weights") == "spacing"
        self._state: dict[str, Any] | None = None

    def update(self, step: float, margins: Any, *, index: Any = None) -> None:
        """Take in the margins of all pairs, or of those at `index` (unique numbers), at a step after their last.

        Raises:
            DataError: A margin is not finite, the number of margins is wrong, or the step does not come after the
                last one of every pair it updates.
        """
        expected = self.pairs if index is None else len(index)
        if tuple(margins.shape) != (expected,):
            raise DataError(
                f"step {step} has margins of shape {tuple(margins.shape)}, but {expected} pairs; give one margin each"
            )
        xp = array_namespace(margins)
        if not bool(xp.all(xp.isfinite(margins))):
            bad = int(xp.argmax(xp.astype(~xp.isfinite(margins), xp.int64)))
            raise DataError(
                f"step {step}, place {bad}: margin {float(margins[bad])} is not finite; end at the last sound step"
            )
        state = self._state = self._state or _start(xp, self.pairs, margins)
        where = slice(None) if index is None else index
        old = {name: values[where] for name, values in state.items()}
        fresh, last = old["records"] == 0, old["last"]
        if bool(xp.any(~fresh & (last >= step))):
            raise DataError(
                f"step {step} does not come after step {float(xp.max(last))}, already taken in; sort the steps"
            )
        chance = 0.5 + 0.5 * xp.tanh(xp.astype(margins, xp.float64) / 2)
        above = margins > 0
        now = xp.zeros_like(last) + float(step)
        never = xp.zeros_like(last) + xp.nan

        if self.by_spacing:
            half = xp.where(fresh, xp.zeros_like(last), (now - xp.where(fresh, now, last)) / 2)
            new = _add(xp, old, old["chance"], old["above"], half)
            new = _add(xp, new, chance, above, half)
        else:
            new = _add(xp, old, chance, above, xp.ones_like(last))
        new |= {
            "records": old["records"] + 1,
            "last": now,
            "chance": chance,
            "first": xp.where(above & xp.isnan(old["first"]), now, old["first"]),
            "since": xp.where(above, xp.where(xp.isnan(old["since"]), now, old["since"]), never),
            "forgettings": old["forgettings"] + xp.astype(old["above"] & ~above, xp.int64),
            "above": above,
        }
        for name, values in new.items():
            state[name][where] = values

    def statistics(self) -> PairStatistics:
        """What is known so far."""
        if self._state is None:
            raise DataError("no step was taken in yet; call update first")
        state = {name: _numpy(values) for name, values in self._state.items()}
        unknown = state["records"] == 0
        # A pair recorded once has no spacing: its one value is its mean.
        single = ~unknown & (state["weight"] == 0)
        weight = np.where(state["weight"] > 0, state["weight"], 1.0)
        mean = np.where(single, state["chance"], state["mean"])
        correct = np.where(single, state["above"].astype(np.float64), state["correct"] / weight)

        def known(values: np.ndarray) -> np.ndarray:
            return np.where(unknown, np.nan, values)

        return PairStatistics(
            records=state["records"],
            confidence=known(mean),
            variability=known(np.sqrt(np.maximum(state["squares"] / weight, 0.0))),
            correctness=known(correct),
            first_above=state["first"],
            learned=state["since"],
            forgettings=state["forgettings"],
        )


def _start(xp: Any, pairs: int, like: Any) -> dict[str, Any]:
    where: dict[str, Any] = {"device": device(like)}

    def zeros(dtype: Any) -> Any:
        return xp.zeros(pairs, dtype=dtype, **where)

    floats = {name: zeros(xp.float64) for name in ("weight", "mean", "squares", "correct", "chance", "last")}
    counts = {name: zeros(xp.int64) for name in ("records", "forgettings")}
    steps = {name: zeros(xp.float64) + xp.nan for name in ("first", "since")}
    return {**floats, **counts, **steps, "above": zeros(xp.bool)}


def _add(xp: Any, old: Mapping[str, Any], chance: Any, above: Any, weight: Any) -> dict[str, Any]:
    """One weighted value more per pair (West 1979): stable where values lie close together."""
    total = old["weight"] + weight
    share = weight / xp.where(total > 0, total, xp.ones_like(total))
    gap = chance - old["mean"]
    return {
        "weight": total,
        "mean": old["mean"] + share * gap,
        "squares": old["squares"] + share * old["weight"] * gap**2,
        "correct": old["correct"] + weight * xp.astype(above, xp.float64),
    }


def _numpy(values: Any) -> np.ndarray:
    """A copy as a NumPy array."""
    return np.array(values if isinstance(values, np.ndarray) else values.cpu().numpy())
