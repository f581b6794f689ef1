"""Bound: what a statement says here, on which conditions, and whether it says anything at all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Relation = Literal["<=", "<", ">=", ">", "="]
Form = Literal["published", "repaired", "sharper"]

LOOSE = 10.0
"""A bound this many times what was measured is true, but of no use to anyone who plans by it."""

_TOLD = 3
"""How many failing conditions a sentence tells; the rest is counted."""
_ROUNDING = 1e-9
"""Relative room for rounding where a statement holds with equality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing a statement asks of the data or the settings, as measured.

    Example:
        >>> print(Condition(says="d <= 5 Q", measured=4096, relation="<=", limit=4375))
        holds  d <= 5 Q: 4.1e+03 <= 4.38e+03
        >>> print(Condition(says="objective", measured="hinge", relation="=", limit="sigmoid"))
        FAILS  objective: hinge = sigmoid
        >>> Condition(says="features are i.i.d.").holds is None
        True
    """

    says: str
    """The condition as the source puts it, in plain letters, such as `eta beta'^2 c_n^2 <= 1/4`."""
    measured: float | str = math.nan
    relation: Relation = "<="
    limit: float | str = math.nan

    def __post_init__(self) -> None:
        for name in ("measured", "limit"):
            if not isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, float(value))

    @property
    def holds(self) -> bool | None:
        """Whether it holds; None where nothing in the data can tell (no limit), False where it was not measured."""
        if isinstance(self.measured, str) or isinstance(self.limit, str):
            return self.measured == self.limit
        if math.isnan(self.limit):
            return None
        room = _ROUNDING * max(abs(self.limit), abs(self.measured)) if math.isfinite(self.measured) else 0.0
        match self.relation:
            case "<=":
                return self.measured <= self.limit + room
            case "<":
                return self.measured < self.limit
            case ">=":
                return self.measured >= self.limit - room
            case ">":
                return self.measured > self.limit
            case "=":
                return abs(self.measured - self.limit) <= room

    @property
    def comparison(self) -> str:
        """`measured relation limit`, three digits each; empty where nothing can be measured."""
        return "" if self.holds is None else f"{_number(self.measured)} {self.relation} {_number(self.limit)}"

    def __str__(self) -> str:
        word = {True: "holds", False: "FAILS", None: "taken"}[self.holds]
        return f"{word}  {self.says}" + (f": {self.comparison}" if self.comparison else "")

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"says": self.says, "measured": self.measured, "limit": self.limit, "holds": self.holds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    r"""One side of a theorem, with the conditions it stands on and, where a run was given, what really happened.

    A condition that fails does not raise: the value is still there, `applies` says that it proves nothing here.

    Example:
        >>> bound = Bound(
        ...     statement="2408.03459, Theorem 4.3", quantity="held-out error", direction="at most", value=0.05501,
        ...     trivial=1.0, conditions=(Condition(says="d <= 5 Q", measured=4096, limit=4375),
        ...                              Condition(says="v <= 1/(32 sqrt Q)", measured=0.02, limit=0.00106)))
        >>> print(bound)
        2408.03459, Theorem 4.3: held-out error at most 0.05501
          holds  d <= 5 Q: 4.1e+03 <= 4.38e+03
          FAILS  v <= 1/(32 sqrt Q): 0.02 <= 0.00106
        >>> bound.applies, bound.is_vacuous
        (False, False)
    """

    statement: str
    """Paper and number, such as `2408.03459, Theorem 4.3`."""
    quantity: str
    """What is bounded, in words, such as `held-out error` or `drift of the head after 100 steps`."""
    direction: Literal["at most", "at least", "equal to"]
    value: float
    """The bound itself, in the unit of the quantity."""
    trivial: float
    """The value at which the bound says nothing: 1 for an error rate, what always holds for the rest; NaN if none."""
    conditions: tuple[Condition, ...] = ()
    failure: float = 0.0
    """Probability with which the statement may fail although its conditions hold; 0 where it is deterministic. As
    the source states it: above 1 it is no probability, and the statement is empty."""
    form: Form = "published"
    """As published, the repaired statement, or a sharper one of ours."""
    measured: float = math.nan
    """The same quantity in a run, NaN where no run was given or it cannot be measured."""
    group: str | None = None
    """The group it speaks of; None: the whole dataset."""
    note: str = ""
    """What is wrong with the published form, or what the value leaves out."""

    def __post_init__(self) -> None:
        for name in ("value", "trivial", "failure", "measured"):  # NumPy's numbers would make comparisons not bool
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def failed(self) -> tuple[Condition, ...]:
        """The conditions that do not hold."""
        return tuple(condition for condition in self.conditions if condition.holds is False)

    @property
    def applies(self) -> bool:
        """True where no condition that can be measured fails."""
        return not self.failed

    @property
    def is_vacuous(self) -> bool:
        """True where the statement holds of anything: no better than `trivial`, or its failure probability is 1."""
        if math.isnan(self.value) or self.failure >= 1:
            return True
        match self.direction:
            case "at most":
                return self.value >= self.trivial
            case "at least":
                return self.value <= self.trivial
            case "equal to":
                return False

    @property
    def kept(self) -> bool | None:
        """Whether what was measured obeys the statement, to rounding; None where nothing was measured."""
        if math.isnan(self.measured) or math.isnan(self.value):
            return None
        room = _ROUNDING * max(abs(self.value), abs(self.measured))
        match self.direction:
            case "at most":
                return self.measured <= self.value + room
            case "at least":
                return self.measured >= self.value - room
            case "equal to":
                return abs(self.measured - self.value) <= 1e-3 * max(abs(self.value), abs(self.measured))

    @property
    def looseness(self) -> float:
        """How many times the measured value the bound is (or the other way round for a lower one), 1 where tight.

        NaN where nothing was measured, or one of the two is not above 0.
        """
        if not (self.measured > 0 and self.value > 0) or self.direction == "equal to":
            return math.nan
        ratio = self.value / self.measured
        return ratio if self.direction == "at most" else 1 / ratio

    @property
    def standing(self) -> Literal["broken", "informative", "empty", "outside"]:
        """`outside` its conditions; `empty`: true of anything, or too loose; `broken` by what was measured; or not."""
        if not self.applies:
            return "outside"
        if self.kept is False and self.failure < 1:
            return "broken"
        return "empty" if self.is_vacuous or self.looseness >= LOOSE else "informative"

    def meaning(self) -> str:
        """One sentence: what the statement means for whoever has this data and these settings."""
        seen = "" if math.isnan(self.measured) else f"; measured {_number(self.measured)}"
        claim = f"{self.quantity} {self.direction} {_number(self.value)}"
        match self.standing:
            case "outside":
                broken = [f"{c.says} ({c.comparison})" for c in self.failed]
                verb = "condition fails" if len(broken) == 1 else f"{len(broken)} conditions fail"
                more = f"; and {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
                promise = "" if math.isnan(self.value) else f"; it would say {self.direction} {_number(self.value)}"
                return f"does not apply, {verb}: {'; '.join(broken[:_TOLD])}{more}{promise}{seen}"
            case "broken":
                return f"its conditions hold and yet it is false here: {claim}{seen}"
            case "empty" if self.failure >= 1:
                return (
                    f"says nothing: it may fail with probability {_number(self.failure)}, which is no probability{seen}"
                )
            case "empty" if math.isnan(self.value):
                return f"says nothing: {self.quantity} cannot be bounded from so few data{seen}"
            case "empty" if self.is_vacuous:
                return f"true but says nothing: {claim}, and {_number(self.trivial)} holds of anything{seen}"
            case "empty":
                side = "the bound is" if self.direction == "at most" else "what was measured is"
                other = "what was measured" if self.direction == "at most" else "the bound"
                return f"true but says nothing: {side} {_number(self.looseness)} times {other} ({claim}{seen})"
            case _:
                sure = f", with probability at least {1 - self.failure:.3g}" if self.failure > 1e-3 else ""
                taken = [condition.says for condition in self.conditions if condition.holds is None]
                granted = f"; taken for granted: {'; '.join(taken)}" if taken else ""
                return f"applies: {claim}{sure}{seen}{granted}"

    def __str__(self) -> str:
        subject = "" if self.group is None else f" [{self.group}]"
        head = f"{self.statement}{subject}: {self.quantity} {self.direction} {self.value:.4g}"
        return "\n".join([head, *(f"  {condition}" for condition in self.conditions)])

    def rows(self) -> list[dict[str, Any]]:
        """One row per condition, or one without a condition where there is none."""
        common = {"statement": self.statement, "form": self.form, "group": self.group, "value": self.value}
        parts: list[Mapping[str, Any]] = [condition.as_dict() for condition in self.conditions]
        return [common | dict(part) for part in parts or [{"says": "", "measured": None, "limit": None, "holds": None}]]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form (DESIGN section 4), with what it speaks of and what it means."""
        return {
            "statement": self.statement,
            "form": self.form,
            "group": self.group,
            "quantity": self.quantity,
            "direction": self.direction,
            "value": self.value,
            "measured": self.measured,
            "trivial": self.trivial,
            "failure": self.failure,
            "looseness": self.looseness,
            "applies": self.applies,
            "vacuous": self.is_vacuous,
            "kept": self.kept,
            "standing": self.standing,
            "meaning": self.meaning(),
            "note": self.note,
            "conditions": [condition.as_dict() for condition in self.conditions],
        }


def _number(value: float | str) -> str:
    """Three digits, as people write them: `0.05`, `18`, `1.78e+08`; words as they are, NaN as `unknown`."""
    if isinstance(value, str):
        return value
    return "unknown" if math.isnan(value) else f"{value:.3g}"
