"""What was foretold of a run's groups by progress, as the summary of a forecast has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._json import number
from prefdyn.dynamics.progress import ProgressBand
from prefdyn.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foretold:
    """What a forecast's summary.json says of groups by progress."""

    names: tuple[str, ...]
    band: ProgressBand
    clock: Float[np.ndarray, "three l"]
    """Step at each level, and the ends of its interval."""
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, summary: Mapping[str, Any]) -> "Foretold":
        """From the content of summary.json.

        Raises:
            DataError: It is of no forecast.
        """
        part = summary.get("forecast")
        if not isinstance(part, Mapping):
            raise DataError("this folder holds no forecast; give one that `prefdyn forecast` wrote")
        clock = part.get("clock") or {}
        band = ProgressBand(
            levels=_numbers(part["levels"]),
            centre=np.array([_numbers(row) for row in part["centre"]]),
            error=_numbers(part["error"]),
            scale=_numbers(part["scale"]),
            linear=_numbers(part["linear_weight"]),
            freedom=number(part["freedom"]),
        )
        steps = np.stack([_numbers(clock.get(key) or [None] * len(band.levels)) for key in ("step", "low", "high")])
        return cls(names=tuple(map(str, part["names"])), band=band, clock=steps, summary=summary)

    @property
    def seeds(self) -> bool:
        """Whether the forecast knows how far runs with other seeds are apart."""
        return bool((self.summary["forecast"].get("between_seeds")) or ())


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([number(each) for each in values], dtype=np.float64)
