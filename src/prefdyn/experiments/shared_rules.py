"""Rules that several recipes share. None of them knows a preset, a model or data; all thresholds are here or in words.

A finding *holds* where its statistic passes the rule on the model at hand. It goes *beyond* the untrained twin where,
seed by seed, the statistic is larger than the twin's by more than its 95 % interval, and where besides the run's
held-out accuracy is above one half, and above the twin's, by more than theirs. The second part is there because orders
of learning follow the features of the training pairs whatever their labels are: with labels drawn by lot they come
out as clear as with true ones, and only what is held out shows that nothing was learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefdyn.experiments.statistics import Estimate, difference, over_seeds

FEWEST_SEEDS = 3
"""Under these the interval says next to nothing (of two seeds it is 18 times as wide as their standard error), and
nothing is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The same statistic where the finding could not come from what the model knows."""

    kind: str
    """Such as "untrained twin"."""
    value: Estimate
    difference: Estimate
    """The model's less the control's, seed by seed."""
    beyond: bool | None
    """Whether the finding goes beyond it; None where that cannot be told."""
    because: str

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return {
            "kind": self.kind,
            "value": self.value.to_json(),
            "difference": self.difference.to_json(),
            "beyond": self.beyond,
            "because": self.because,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of a claim."""

    holds: bool | None
    """None: not testable here."""
    measured: str
    """Our number in a few words."""
    because: str
    """What the rule found, or why it could not be applied."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Numbers behind it, plain JSON."""
    control: Control | None = None
    p: float | None = None
    """Chance that what is claimed comes out so where nothing is there, one-sided; None of what is no test."""


def untestable(because: str, *, measured: str = "not measured", **evidence: Any) -> Judged:
    """A claim that cannot be tested here, why, and what was measured all the same.

    Example:
        >>> untestable("one model was given").holds is None
        True
    """
    return Judged(holds=None, measured=measured, because=because, evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithTwin:
    """One statistic on the model and on its twin, one number per seed."""

    model: Sequence[float]
    twin: Sequence[float]
    """Empty where it plays no part."""
    accuracy: Sequence[float] | None = None
    """Held-out reward accuracy at the end of the model's runs, mean over groups; None where labels play no part."""
    twin_accuracy: Sequence[float] | None = None


BEYOND_TWIN = (
    "Beyond the twin: the paired difference from the twin's statistic has a 95 % interval over seeds on the side that "
    "the rule asks for."
)
BEYOND = (
    "Beyond the twin: the paired difference of the statistic, the held-out accuracy less one half, and the paired "
    "difference of the held-out accuracies all have the lower end of their 95 % interval over seeds above 0."
)
BEYOND_BELOW = (
    "Beyond the twin: the twin's statistic less this one, seed by seed, the held-out accuracy less one half, and the "
    "paired difference of the held-out accuracies all have the lower end of their 95 % interval over seeds above 0."
)


def above(
    found: WithTwin, threshold: float, *, what: str, least: float = float("-inf"), most: float = float("inf")
) -> Judged:
    """Holds where the lower end of the 95 % interval over seeds is above a threshold.

    Args:
        found: The statistic, on the model and on its twin.
        threshold: What it must be above.
        what: Its name, for people.
        least: Smallest value that it can have.
        most: Largest.

    Example:
        >>> found = WithTwin(model=[0.9, 1.0, 0.8], twin=[0.9, 1.0, 1.0], accuracy=[0.9] * 3, twin_accuracy=[0.6] * 3)
        >>> judged = above(found, 0.0, what="rank correlation", least=-1, most=1)
        >>> judged.holds, judged.control.beyond
        (True, False)
    """
    return _beside(found, threshold, what, least, most, sign=1)


def below(
    found: WithTwin, threshold: float, *, what: str, least: float = float("-inf"), most: float = float("inf")
) -> Judged:
    """Holds where the upper end of the 95 % interval over seeds is below a threshold; see `above`.

    Example:
        >>> judged = below(WithTwin(model=[0.1, 0.1, 0.11], twin=[0.4, 0.4, 0.4]), 0.25, what="ratio", least=0)
        >>> judged.holds, judged.control.beyond
        (True, True)
    """
    return _beside(found, threshold, what, least, most, sign=-1)


def _beside(found: WithTwin, threshold: float, what: str, least: float, most: float, *, sign: int) -> Judged:
    estimate = over_seeds(found.model, least=least, most=most)
    if estimate.seeds < FEWEST_SEEDS:
        return untestable(
            f"measured with {estimate.seeds} of {len(found.model)} seeds, and a verdict takes {FEWEST_SEEDS}",
            measured=_told(found, what, estimate, least, most),
            statistic=estimate.to_json(),
        )
    control = twin_control(found, least=least, most=most, sign=sign) if len(found.twin) else None
    end = estimate.low if sign > 0 else estimate.high
    holds = sign * (end - threshold) > 0
    side, name = ("above", "lower") if sign > 0 else ("below", "upper")
    evidence: dict[str, Any] = {"statistic": estimate.to_json(), "values": list(found.model)}
    if found.accuracy is not None:
        evidence["held_out_accuracy"] = over_seeds(found.accuracy, least=0, most=1).to_json()
    return Judged(
        holds=holds,
        measured=_told(found, what, estimate, least, most),
        because=f"the {name} end {end:.3g} is {'' if holds else 'not '}{side} {threshold:g}",
        evidence=evidence,
        control=control,
    )


def _told(found: WithTwin, what: str, estimate: Estimate, least: float, most: float) -> str:
    twin = f"; untrained twin {over_seeds(found.twin, least=least, most=most)}" if len(found.twin) else ""
    return f"{what} {estimate}{twin}"


def twin_control(
    found: WithTwin, *, least: float = float("-inf"), most: float = float("inf"), sign: int = 1
) -> Control:
    """The twin's statistic, and whether the model's goes beyond it: above it, or with sign -1 below."""
    gap = difference(found.model, found.twin)
    way = "larger" if sign > 0 else "smaller"
    parts: list[tuple[str, Estimate]] = [
        (f"the statistic is not {way} than the twin's", gap if sign > 0 else difference(found.twin, found.model))
    ]
    if found.accuracy is not None and found.twin_accuracy is not None:
        parts += [
            ("the held-out accuracy is not above one half", over_seeds([value - 0.5 for value in found.accuracy])),
            ("the held-out accuracy is not above the twin's", difference(found.accuracy, found.twin_accuracy)),
        ]
    common: dict[str, Any] = {
        "kind": "untrained twin", "value": over_seeds(found.twin, least=least, most=most), "difference": gap,
    }  # fmt: skip
    if any(part.seeds < FEWEST_SEEDS for _, part in parts):
        return Control(**common, beyond=None, because="too few seeds to compare")
    lacking = [words for words, part in parts if not part.low > 0]
    exceeds = f"the statistic is {way} than the twin's" + (", and so is the accuracy" if len(parts) > 1 else "")
    return Control(**common, beyond=not lacking, because=" and ".join(lacking) if lacking else exceeds)


def inside(found: WithTwin, low: float, high: float, *, what: str) -> Judged:
    """Holds where the 95 % interval over seeds lies between two numbers. The twin's is told, and decides nothing.

    Args:
        found: The statistic, on the model and on its twin.
        low: What the interval must be above.
        high: What it must be below.
        what: Its name, for people.

    Example:
        >>> inside(WithTwin(model=[0.9, 1.0, 0.95], twin=[0.5] * 3), 0.8, 1.2, what="exponent").holds
        True
    """
    estimate = over_seeds(found.model)
    holds = estimate.low > low and estimate.high < high
    told = f"{estimate.low:.3g} to {estimate.high:.3g} is {'' if holds else 'not '}within {low:g} and {high:g}"
    few = f"measured with {estimate.seeds} of {len(found.model)} seeds, and a verdict takes {FEWEST_SEEDS}"
    return Judged(
        holds=None if estimate.seeds < FEWEST_SEEDS else holds,
        measured=_told(found, what, estimate, float("-inf"), float("inf")),
        because=few if estimate.seeds < FEWEST_SEEDS else told,
        evidence={"statistic": estimate.to_json(), "values": list(found.model), "twin": list(found.twin)},
    )


def unless_few(judged: Judged, seeds: int) -> Judged:
    """The same, or no verdict where there are too few seeds for one.

    Example:
        >>> unless_few(Judged(holds=True, measured="1", because="it is"), 1).holds is None
        True
    """
    if seeds >= FEWEST_SEEDS:
        return judged
    many = "1 seed was" if seeds == 1 else f"{seeds} seeds were"
    return replace(judged, holds=None, because=f"{many} run, and a verdict takes {FEWEST_SEEDS}")


def as_evidence(estimates: dict[str, Estimate]) -> dict[str, Any]:
    """Estimates as evidence.

    Example:
        >>> as_evidence({"a": over_seeds([1.0])})
        {'a': {'value': 1.0, 'low': None, 'high': None, 'seeds': 1}}
    """
    return {name: estimate.to_json() for name, estimate in estimates.items()}
