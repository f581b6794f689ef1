"""How often a claim holds where nothing is there, and where something is: rows made by lot, no model.

uv run python scripts/claims_by_lot.py [REPETITIONS]

Every unit (behaviour, value, number of values, couple) has two numbers of its own that do not depend on each other, or,
where something is there, do; every repetition adds noise. The rules are those of `prefdyn reproduce`, with three
repetitions; beside them the rule of before, an interval over repetitions alone. Prints the table of docs/statistics.md.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prefdyn.experiments.chance import LEVEL
from prefdyn.experiments.claims import Claim, line, mean, power, rank
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.rows import Row, Rows

FIGURE = "2403.18742-fig03"
SEEDS = 3
Numbers = dict[str, np.ndarray]
"""Quantity → (seeds, units)."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of claim, and rows for it."""

    says: str
    claim: Claim
    draw: Callable[[np.random.Generator, float, float], Numbers]
    """From a generator, the noise of a repetition and how much is there, 0 for nothing, to rows of one source."""
    names: tuple[str, ...]
    something: float


def _noisy(rng: np.random.Generator, true: np.ndarray, noise: float) -> np.ndarray:
    return true + noise * rng.normal(size=(SEEDS, len(true)))


def _two(count: int) -> Callable[..., Numbers]:
    def draw(rng: np.random.Generator, noise: float, there: float) -> Numbers:
        x = rng.normal(size=count)
        y = there * x + np.sqrt(1 - there**2) * rng.normal(size=count)
        return {"distinguishability": _noisy(rng, x, noise), "fall": _noisy(rng, y, noise)}

    return draw


def _one(count: int) -> Callable[..., Numbers]:
    def draw(rng: np.random.Generator, noise: float, there: float) -> Numbers:
        return {"ahead": _noisy(rng, there + rng.normal(size=count), noise)}

    return draw


def _lasting(count: int) -> Callable[..., Numbers]:
    """Two phases of one fall, nearly alike."""

    def draw(rng: np.random.Generator, noise: float, there: float) -> Numbers:
        both = _two(count)(rng, noise, there)
        late = both["fall"] + 0.3 * rng.normal(size=count)
        return {"distinguishability": both["distinguishability"], "early": both["fall"], "late": late}

    return draw


def _trend(rng: np.random.Generator, noise: float, there: float) -> Numbers:
    counts = np.tile(2.0 ** np.arange(5), (SEEDS, 1))
    sets = rng.normal(size=5)  # which values are in the sets
    return {"K": counts, "margin": np.exp(0.2 * _noisy(rng, sets, noise)) * counts**-there}


def _close(otherwise: float) -> Callable[..., Numbers]:
    def draw(rng: np.random.Generator, noise: float, there: float) -> Numbers:
        counts = np.tile(2.0 ** np.arange(5), (SEEDS, 1))
        return {
            "K": counts,
            "margin": np.exp(0.02 * _noisy(rng, rng.normal(size=5), noise)) * counts ** -(there or otherwise),
        }

    return draw


def _straight(rng: np.random.Generator, noise: float, there: float) -> Numbers:
    found = _trend(rng, noise, 0.0)
    return {"K": found["K"], "margin": found["margin"] + 3 * there * np.log(found["K"])}


def _couples(count: int) -> Callable[..., Numbers]:
    """Every behaviour has a level and a speed; the lead of the higher level in a couple is that of its speed."""

    def draw(rng: np.random.Generator, noise: float, there: float) -> Numbers:
        level = rng.normal(size=count)
        speed = there * level + np.sqrt(1 - there**2) * rng.normal(size=count)
        first, second = np.array(list(itertools.combinations(range(count), 2))).T
        gap = level[first] - level[second]
        lead = np.sign(gap) * (speed[first] - speed[second])
        return {"priority gap": np.tile(np.abs(gap), (SEEDS, 1)), "lead": _noisy(rng, lead, noise)}

    return draw


def _claim(**rest: Any) -> Claim:
    return Claim(**{"id": f"{FIGURE}-x", "figure": FIGURE, "statement": "It is so.", "twin": "", **rest})


def _behaviours(count: int) -> tuple[str, ...]:
    return tuple(f"b{place}" for place in range(count))


_LAW = rank("distinguishability", "fall")
_LATE = {"statistic": rank("distinguishability", "early")}
_COUPLES = tuple(" | ".join(couple) for couple in itertools.combinations(_behaviours(14), 2))
_OF_K: dict[str, Any] = {"unit": "number of values"}
_BAND: dict[str, Any] = {"statistic": power("K", "margin"), "test": "inside", "threshold": (-1.1, -0.9), **_OF_K}
_LASTING = {"statistic": rank("distinguishability", "late"), "less": _LATE, "threshold": -0.1}
CASES = (
    *(
        Case(f"order, {count} behaviours", _claim(statistic=_LAW), _two(count), _behaviours(count), 0.9)
        for count in (5, 28)
    ),
    Case(
        "order above 0.9, 16 values",
        _claim(statistic=_LAW, threshold=0.9, unit="value"),
        _two(16),
        _behaviours(16),
        0.995,
    ),
    *(
        Case(f"mean above 0, {count} behaviours", _claim(statistic=mean("ahead")), _one(count), _behaviours(count), 1.5)
        for count in (5, 28)
    ),
    Case("order that lasts, 28 behaviours", _claim(**_LASTING), _lasting(28), _behaviours(28), 0.95),
    Case(
        "trend with K, 5 numbers",
        _claim(statistic=rank("K", "margin"), test="below", **_OF_K),
        _trend,
        _behaviours(5),
        0.5,
    ),
    Case(
        "R² of a line above 0.9, 5 numbers",
        _claim(statistic=line("K", "margin", log=True), threshold=0.9, **_OF_K),
        _straight,
        _behaviours(5),
        1.0,
    ),
    Case("exponent −1.1 to −0.9, 5 numbers; nothing: 0", _claim(**_BAND), _close(0.0), _behaviours(5), 1.0),
    Case("the same; nothing: −0.9, the edge", _claim(**_BAND), _close(0.9), _behaviours(5), 1.0),
    Case(
        "order, 91 couples of 14",
        _claim(statistic=rank("priority gap", "lead"), unit="couple"),
        _couples(14),
        _COUPLES,
        0.9,
    ),
    Case("mean lead, 91 couples of 14", _claim(statistic=mean("lead"), unit="couple"), _couples(14), _COUPLES, 0.9),
)


def rows_of(case: Case, numbers: Mapping[str, np.ndarray], source: str = MODEL) -> Iterator[Row]:
    """As a recipe gives them."""
    for quantity, values in numbers.items():
        for seed, each in enumerate(values.tolist()):
            for name, value in zip(case.names, each, strict=True):
                yield Row(quantity=quantity, value=value, figure=FIGURE, source=source, seed=seed, group=name)


def before(case: Case, rows: Rows) -> bool:
    """By the interval over repetitions alone."""
    assert case.claim.statistic is not None
    whole = replace(case.claim.statistic, kind="whole")
    less = {
        name: replace(value, kind="whole") if name == "statistic" else value for name, value in case.claim.less.items()
    }
    return bool(replace(case.claim, unit="run", statistic=whole, less=less).judge(rows).holds)


def shares(case: Case, *, noise: float, there: float, repetitions: int, seed: int = 0) -> tuple[float, float]:
    """Share held by the rule of today and by that of before."""
    rng = np.random.default_rng([seed, CASES.index(case), round(1000 * noise), round(1000 * there)])
    found = []
    for _ in range(repetitions):
        rows = Rows(rows_of(case, case.draw(rng, noise, there)))
        found.append((bool(case.claim.judge(rows).holds), before(case, rows)))
    today, old = np.mean(found, axis=0)
    return float(today), float(old)


def beyond(case: Case, *, noise: float, repetitions: int, seed: int = 0) -> float:
    """Share beyond a twin that is drawn by the same law, where something is there in both."""
    rng, claim = np.random.default_rng([seed, CASES.index(case), 7]), _with_twin(case.claim)
    found = 0
    for _ in range(repetitions):
        rows = [row for source in (MODEL, TWIN)
                for row in rows_of(case, case.draw(rng, noise, case.something), source)]  # fmt: skip
        control = claim.judge(Rows(rows)).control
        found += control is not None and bool(control.beyond)
    return found / repetitions


def _with_twin(claim: Claim) -> Claim:
    return replace(claim, twin="statistic")


def main(repetitions: int) -> None:
    """Print the table."""
    print("| claim | held, nothing there | by repetitions alone | held, something there | beyond an equal twin |")
    print("|---|--:|--:|--:|--:|")
    for case in CASES:
        none = [shares(case, noise=noise, there=0.0, repetitions=repetitions) for noise in (0.05, 0.5)]
        some, _ = shares(case, noise=0.1, there=case.something, repetitions=repetitions // 2)
        twin = "–" if case.claim.test == "inside" else f"{beyond(case, noise=0.1, repetitions=repetitions // 2):.1%}"
        cells = (f"{low:.1%} / {high:.1%}" for low, high in zip(*none, strict=True))
        print(f"| {case.says} | {' | '.join(cells)} | {some:.0%} | {twin} |", flush=True)
    print(f"\nLevel {LEVEL:g}; {repetitions} draws each; noise of a repetition 0.05 / 0.5 of the spread of the units.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
