"""One group as `groups` of summary.json and groups.csv have it: every column, declared once, written and read back."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from prefdyn._json import number, plain

_NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """What was measured and foretold of one group. NaN: could not be measured; empty: nothing to say."""

    name: str
    pairs: int | None = None
    train_pairs: int | None = None
    held_out_pairs: int | None = None
    units: float = _NAN
    """Independent units among the pairs (`diagnostics.units`)."""
    distinguishability: float = _NAN
    """This and the next, up to `raw_mean_norm`: see `diagnostics.separation.GroupSeparation`."""
    distinguishability_exponent: float = _NAN
    debiased: float = _NAN
    debiased_low: float = _NAN
    debiased_high: float = _NAN
    concentration: float = _NAN
    trace: float = _NAN
    concentration_ratio: float = _NAN
    trace_ratio: float = _NAN
    fisher_ratio: float = _NAN
    gaussian_kl: float = _NAN
    kl_shrinkage: float = _NAN
    null_rms: float = _NAN
    null_z: float = _NAN
    null_p: float = _NAN
    null_p_adjusted: float = _NAN
    probe_accuracy: float = _NAN
    probe_low: float = _NAN
    probe_high: float = _NAN
    probe_chance: float = _NAN
    auc: float = _NAN
    auc_low: float = _NAN
    auc_high: float = _NAN
    auc_p: float = _NAN
    signal_p: float = _NAN
    raw_mean_norm: float = _NAN
    pairs_measured: float = _NAN
    """Pairs of the sample that the columns above rest on; NaN, and no column, where no group is sampled."""
    words_accuracy: float = _NAN
    """This and the next eight: see `diagnostics.wording.GroupWording`; no columns where there are no texts."""
    words_low: float = _NAN
    words_high: float = _NAN
    length_accuracy: float = _NAN
    length_low: float = _NAN
    length_high: float = _NAN
    reference_accuracy: float = _NAN
    reference_low: float = _NAN
    reference_high: float = _NAN
    untrained_distinguishability: float = _NAN
    """This and the next four: of the untrained twin; no columns where it was not asked for."""
    untrained_null_z: float = _NAN
    untrained_probe_accuracy: float = _NAN
    untrained_probe_low: float = _NAN
    untrained_probe_high: float = _NAN
    priority: float = _NAN
    priority_low: float = _NAN
    priority_high: float = _NAN
    first_step_margin: float = _NAN
    chosen_push: float = _NAN
    """This and the next, up to `band_per_token_stability`: see `diagnostics.displacement`."""
    rejected_push: float = _NAN
    chosen_falls_first: float = _NAN
    ches: float = _NAN
    band_low: float = _NAN
    band_high: float = _NAN
    band_cosine: float = _NAN
    band_says: str | None = None
    band_stability: float = _NAN
    band_per_token_low: float = _NAN
    band_per_token_high: float = _NAN
    band_per_token_cosine: float = _NAN
    band_per_token_says: str | None = None
    band_per_token_stability: float = _NAN
    chosen_tokens: float = _NAN
    """Mean length."""
    rejected_tokens: float = _NAN
    predicted_rank: float = _NAN
    """Place by area under the held-out loss, smallest first."""
    predicted_final_loss: float = _NAN
    """This and the next, up to `predicted_chosen_falling`: of the simulated run, at its end; training pairs unless
    named."""
    predicted_final_margin: float = _NAN
    predicted_held_out_loss: float = _NAN
    predicted_held_out_loss_error: float = _NAN
    predicted_held_out_accuracy: float = _NAN
    predicted_held_out_accuracy_low: float = _NAN
    predicted_held_out_accuracy_high: float = _NAN
    predicted_alone_loss: float = _NAN
    predicted_chosen_change: float = _NAN
    predicted_rejected_change: float = _NAN
    predicted_chosen_falling: float = _NAN
    predicted_rank_low: float = _NAN
    predicted_rank_high: float = _NAN
    cross_fitted_loss: float = _NAN
    """This and the next three: each pair in a run without a fifth of the pairs, it among them."""
    cross_fitted_loss_error: float = _NAN
    cross_fitted_alone_loss: float = _NAN
    cross_fitted_alone_loss_error: float = _NAN
    verdict: str = ""
    verdict_because: str = ""
    advice: str = ""
    changes_if: str = ""
    stability: float = _NAN
    could_be: str = ""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "GroupRow":
        """From an entry of `groups`, whichever command wrote it; what it does not have stays unknown.

        Example:
            >>> row = GroupRow.read({"name": "a", "pairs": 5, "probe_low": None, "verdict": "late", "rank": 3})
            >>> row.verdict, row.probe_low, row.units
            ('late', nan, nan)
        """
        known = {"name": ""} | {name: row[name] for name in COLUMNS if row.get(name) is not None}
        return cls(**{name: _READ.get(_TYPES[name], number)(value) for name, value in known.items()})

    def to_json(self, columns: Iterable[str]) -> dict[str, Any]:
        """These columns; None for what is not known."""
        return {name: plain(getattr(self, name)) for name in columns}

    @property
    def judged_loss(self) -> float:
        """Held-out loss that the verdict rests on: cross-fitted where it was, else of the joint run's own split."""
        return self.predicted_held_out_loss if math.isnan(self.cross_fitted_loss) else self.cross_fitted_loss


COLUMNS = tuple(each.name for each in fields(GroupRow))
"""Of an audit, in the order of the file."""
PREDICTED = (
    "name", "pairs", "train_pairs", "held_out_pairs",
    *(name for name in COLUMNS if name.startswith("predicted") and not name.startswith("predicted_rank_")),
)  # fmt: skip
"""Of a simulated run."""
_TYPES: Mapping[str, Any] = {each.name: each.type for each in fields(GroupRow)}
_READ: Mapping[Any, Any] = {
    str: str,
    str | None: str,
    int | None: lambda value: None if math.isnan(number(value)) else value,
}
_SIZES = {"name", "pairs", "units"}
"""What a part measured of a group says of it on its own account."""


def columns_of(found: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What is known of a group, as far as it has a column, as `GroupRow` takes it.

    Example:
        >>> columns_of({"name": "a", "probe_accuracy": 0.5, "probe_low": None, "auc_error": 0.1}, "untrained_")
        {'untrained_probe_accuracy': 0.5}
    """
    known = {prefix + name: value for name, value in found.items() if name not in _SIZES and value is not None}
    return {name: value for name, value in known.items() if name in COLUMNS}
