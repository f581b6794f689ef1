"""How many pairs of each group a held-out loss takes, and what a pair more in one group does for the others.

Within what is at hand the runs are made again on nested parts of the data (`prefdyn.dynamics.subsamples`); beyond it
laws that foretold the larger parts from the smaller ones go on (`prefdyn.maths.forecast`). The data grow in their mix:
every group by the same factor. Pairs that the features hold out take no part.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from prefdyn._checks import nearest
from prefdyn._csv import write_csv
from prefdyn._json import plain, write_json
from prefdyn._progress import track
from prefdyn._shape import of_many
from prefdyn._showing import Tabular
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.adjoint import HeadRun, sensitivity_of
from prefdyn.dynamics.crossfit import ALONE, FOLDS, deal
from prefdyn.dynamics.descent import MANY_GROUPS
from prefdyn.dynamics.grid import Setting
from prefdyn.dynamics.subsamples import Curves, curves
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.forecast import POINTS, Pool, crossing, half_width, pooled
from prefdyn.maths.laws import SHAPES
from prefdyn.maths.units import mean_of
from prefdyn.planning.recipe import described, plan_setting
from prefdyn.planning.summary import header
from prefdyn.settings import opened

FARTHEST = 16
"""As many times the pairs at hand, forecasts go."""
LEVEL = 0.9
_FEWEST_PAIRS = 4
"""Points with fewer pairs of a group are no part of its curve."""
_FEWEST_UNITS = 20
REACHED, NEAR, MORE, BEYOND = "reached", "near", "more", "out of reach"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCurve:
    """One group's held-out loss over its number of pairs, measured and forecast, nats."""

    pairs: int
    measured_at: Float[np.ndarray, " s"]
    measured: Float[np.ndarray, " s"]
    at: Float[np.ndarray, " k"]
    """Pairs; those at hand times powers of the root of two, up to `FARTHEST`."""
    loss: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]

    def now(self) -> tuple[float, float, float]:
        """Loss at what is at hand with its interval."""
        place = int(np.argmin(np.abs(np.log(self.at / self.pairs))))
        return float(self.loss[place]), float(self.low[place]), float(self.high[place])

    def needed(self, target: float) -> "Needed":
        """Pairs for a loss of at most `target`."""
        found = Needed(
            target=target,
            pairs=crossing(self.at, self.loss, target),
            low=crossing(self.at, self.low, target),
            high=crossing(self.at, self.high, target),
            state=MORE,
        )
        _, low, high = self.now()
        if high <= target:
            return replace(found, state=REACHED)
        if low <= target:
            return replace(found, state=NEAR)
        return replace(found, state=BEYOND) if math.isinf(found.low) else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Pairs of one group for a target; infinite: more than `FARTHEST` times what is at hand."""

    target: float
    pairs: float
    low: float
    high: float
    state: str
    """`reached`: the whole interval at hand is at or under the target. `near`: the interval at hand holds the target.
    `out of reach`: even the lower end stays over it at `FARTHEST` times the pairs. Else `more`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan(Tabular):
    """Pairs per group for target losses. `rows()` per group, `points()` of the curves; `write(folder)`."""

    features: FeatureSet
    curve: Mapping[str, GroupCurve]
    """Of every group with enough units."""
    need: Mapping[str, Needed]
    default_target: bool
    """Whether the targets are our own: what the median group has now."""
    pool: Pool
    wider: float
    growth: Float[np.ndarray, "groups groups"] | None
    """What log n of the column's group does to the row's held-out loss, nats; NaN where not known."""
    growth_sign: Int[np.ndarray, "groups groups"] | None
    """In how many of the folds it has the sign of their mean."""
    setting: Setting
    steps: int
    settings: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: pairs, loss at hand and with more, target, pairs needed, and what is said of it."""
        count = np.bincount(self.features.group[~self.features.held_out], minlength=len(self.features.groups))
        rows = []
        for code, name in enumerate(self.features.groups):
            row: dict[str, Any] = {"name": name, "pairs": int(count[code])}
            if name in self.curve:
                row |= _row(self.curve[name], self.need[name])
            if self.growth is not None:
                row["ten_percent_more"] = self.growth[code, code] * math.log(1.1)
            rows.append(plain(row))
        return rows

    def points(self) -> list[dict[str, Any]]:
        """One dictionary per point of every curve: group, pairs, loss; an interval where it is a forecast."""
        found: list[dict[str, Any]] = []
        for name, each in self.curve.items():
            found += [
                {"group": name, "kind": "measured", "pairs": n, "loss": y, "low": None, "high": None}
                for n, y in zip(each.measured_at, each.measured, strict=True)
            ]
            found += [
                {"group": name, "kind": "forecast", "pairs": n, "loss": y, "low": low, "high": high}
                for n, y, low, high in zip(each.at, each.loss, each.low, each.high, strict=True)
            ]
        return [plain(row) for row in found]

    def growth_rows(self) -> list[dict[str, Any]]:
        """One dictionary per couple of groups: what a tenth more pairs of one does to the other's held-out loss."""
        if self.growth is None or self.growth_sign is None:
            return []
        names = self.features.groups
        return [
            plain({
                "more_of": names[more], "group": names[code], "by_log_pairs": self.growth[code, more],
                "ten_percent_more": self.growth[code, more] * math.log(1.1),
                "folds_agree": int(self.growth_sign[code, more]),
            })
            for code in range(len(names))
            for more in range(len(names))
            if math.isfinite(self.growth[code, more])
        ]  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        laws = sorted(zip(map(str, SHAPES), self.pool.share, strict=True), key=lambda each: -each[1])
        part = {
            "default_target": self.default_target,
            "curves": self.points(),
            "growth": self.growth_rows(),
            "laws": [{"name": name, "share": float(share)} for name, share in laws if share >= 0.01],
            "miss_per_doubling": self.pool.misses(LEVEL) * math.sqrt(math.log(2)),
            "wider": self.wider,
            "farthest": FARTHEST,
        }
        few = [name for name in self.features.groups if name not in self.curve]
        warnings = []
        if few:
            warnings.append(
                f"fewer than {_FEWEST_UNITS} units (pairs that hang together count once), so nothing is forecast: "
                + of_many(few, 5)
            )
        return plain({
            **header(self.features, command="plan", settings=self.settings),
            "groups": self.rows(), "plan": {"data": part}, "bounds": [], "warnings": warnings, "timings": {},
        })  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write summary.json, data.csv, curves.csv and, where it is known, growth.csv into an existing folder."""
        write_json(folder / "summary.json", self.summary())
        write_csv(pa.Table.from_pylist(self.rows()), folder / "data.csv")
        write_csv(pa.Table.from_pylist(self.points()), folder / "curves.csv")
        if rows := self.growth_rows():
            write_csv(pa.Table.from_pylist(rows), folder / "growth.csv")


@opened(run=HeadRun)
def plan_data(
    feats: FeatureSet,
    targets: Mapping[str, float] | None = None,
    *,
    run: HeadRun,
    progress: bool = True,
) -> DataPlan:
    """Pairs of each group for a held-out loss, with 90 % intervals, and what a pair more in one does for the others.

    Args:
        feats: Features of either kind. Pairs that they hold out take no part.
        targets: Held-out loss in nats to reach, by group; the other groups, and all without it, are to reach what the
            median group has now (with a single group: nine tenths of what it has).
        run: How the head is trained in every run, by a loss of the margin; objective, beta, learning_rate, steps, seed
            and its other fields can be given as keywords. The rate "auto" is half of the largest stable step of
            all the data; the seed deals units into folds, draws parts and minibatches.
        progress: Show bars on stderr where it is a terminal.

    Raises:
        ConfigError: A setting is out of range, or runs diverge.
        DataError: A target names no group, or no group has the 20 units that a curve takes.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups([100, 60], groups=2, width=16, half_gap=[1.5, 1.0])
        >>> plan = plan_data(feats, {"group 1": 0.55}, steps=20, progress=False)
        >>> [row["state"] in ("reached", "near", "more", "out of reach") for row in plan.rows()]
        [True, True]
    """
    wanted = dict(targets or {})
    for name, loss in wanted.items():
        if name not in feats.groups:
            raise DataError(f"a target names {name!r}, which is no group{nearest(name, feats.groups)}")
        if not (math.isfinite(loss) and loss > 0):
            raise ConfigError(f"the target {loss!r} of {name!r} must be a finite loss above 0, in nats")
    learning_rate, steps, seed = run.learning_rate, run.steps, run.seed
    setting = plan_setting(feats, "data are planned", run)
    used = feats.select(~feats.held_out)
    unit = units(used)
    measured = curves(used, setting, steps, unit, seed=seed, progress=progress)
    curve, pool, wider = _forecast(used, measured)
    now = [each.now()[0] for each in curve.values()]
    middle = float(np.median(now)) if len(now) > 1 else 0.9 * now[0]
    growth, sign = _growth(used, setting, steps, unit, seed, progress=progress)
    return DataPlan(
        features=feats,
        curve=curve,
        need={name: each.needed(wanted.get(name, middle)) for name, each in curve.items()},
        default_target=not wanted,
        pool=pool,
        wider=wider,
        growth=growth,
        growth_sign=sign,
        setting=setting,
        steps=steps,
        settings=described(
            setting,
            learning_rate,
            steps=steps,
            seed=seed,
            folds=FOLDS,
            median_loss=middle,
            **({"targets": wanted} if wanted else {}),
        ),
    )


# pieces -------------------------------------------------------------------------------------------------------------


def _row(each: GroupCurve, need: Needed) -> dict[str, Any]:
    loss, low, high = each.now()
    last = {"loss": each.loss[-1], "low": each.low[-1], "high": each.high[-1]}
    pairs = {
        key: math.ceil(value) if math.isfinite(value) else None
        for key, value in (("needed", need.pairs), ("needed_low", need.low), ("needed_high", need.high))
    }
    return {
        "loss": loss, "loss_low": low, "loss_high": high,
        **{f"{key}_farthest": value for key, value in last.items()},
        "target": need.target, "state": need.state, **pairs,
    }  # fmt: skip


def _forecast(feats: FeatureSet, measured: Curves) -> tuple[dict[str, GroupCurve], Pool, float]:
    """Curves of all groups with enough units, what they were pooled by, and how much wider their errors are taken."""
    losses, sizes, members = {}, {}, {}
    past = _past_the_hump(measured)
    for code, (name, rows) in enumerate(zip(feats.groups, feats.by_group(), strict=True)):
        inside = rows[np.isfinite(measured.loss[rows]).all(axis=1)]
        n = measured.pairs[:, code]
        first = max(past, int(np.argmax(n >= _FEWEST_PAIRS))) if (n >= _FEWEST_PAIRS).any() else len(n)
        if len(np.unique(measured.unit[inside])) >= _FEWEST_UNITS and len(n) - first >= POINTS:
            members[name], sizes[name], losses[name] = inside, n[first:], measured.loss[inside, first:]
    if not members:
        if not np.isfinite(measured.loss[:, -1]).any():
            raise ConfigError("every run diverges; lower the learning rate")
        raise DataError(f"no group has the {_FEWEST_UNITS} units (pairs that hang together count once) of a curve")
    pool = pooled(list(sizes.values()), [each.mean(axis=0) for each in losses.values()])
    miss, wider = pool.misses(LEVEL), max(measured.wider, 1 + (ALONE - 1) / len(members))
    found = {}
    for name, inside in members.items():
        total = int((feats.group == feats.groups.index(name)).sum())
        down = math.ceil(2 * math.log2(total / sizes[name][0]))
        at = total * 2.0 ** (np.arange(-down, 2 * int(math.log2(FARTHEST)) + 1) / 2)
        each = losses[name] @ pool.rows(sizes[name], at).T
        means = [mean_of(column, measured.unit[inside], wider=wider) for column in each.T]
        centre = np.array([one.value for one in means])
        half = half_width(
            np.array([one.error for one in means]), means[0].units, miss, np.log(at / sizes[name][-1]), LEVEL
        )
        found[name] = GroupCurve(
            pairs=total, measured_at=sizes[name], measured=losses[name].mean(axis=0), at=at,
            loss=np.maximum(centre, 0.0), low=np.maximum(centre - half, 0.0), high=np.maximum(centre + half, 0.0),
        )  # fmt: skip
    return found, pool, wider


def _past_the_hump(measured: Curves) -> int:
    """First point of the curves: where their mean is highest, so long as enough points follow.

    A run that fits its pairs by heart becomes worse with more of them until they are as many as its directions; what
    happens before says nothing of what comes after.
    """
    known = np.isfinite(measured.loss).all(axis=1)
    if not known.any():
        return 0
    return min(int(np.argmax(measured.loss[known].mean(axis=0))), max(0, len(measured.share) - POINTS - 1))


_WORK = 6e11
"""Multiplications beyond which what groups do for each other is not worked out: about half a minute of one core."""


def _growth(
    feats: FeatureSet, setting: Setting, steps: int, unit: Int[np.ndarray, " n"], seed: int, *, progress: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    r"""Derivative of every group's held-out loss in the logarithm of every group's pairs, over folds.

    A further pair of a group adds to the loss what the group's mean pair adds, so to first order
    $dL / d\log n_A = \sum_{i \in A} w_i\,dL/dw_i$ with the mean kept a mean: the derivative in the group's weight.
    """
    m = len(feats.groups)
    if m < 2 or m > MANY_GROUPS or FOLDS * m * len(feats) * (4 * feats.kernel_width + 500) * steps > _WORK:
        return None, None
    fold = deal(feats, unit, FOLDS, seed)
    found = np.full((FOLDS, m, m), np.nan)
    for judged in track(range(FOLDS), "What a pair more does", unit="folds", shown=progress):
        split = feats.with_held_out(fold == judged)
        rows = [split.held_out & (feats.group == code) for code in range(m)]
        known = np.array([mask.any() for mask in rows])
        means = np.stack([mask / mask.sum() for mask, any_ in zip(rows, known, strict=True) if any_])
        found[judged, known] = sensitivity_of(split, setting, steps, of=means).group
    known = np.isfinite(found).any(axis=0)
    mean = np.full((m, m), np.nan)
    mean[known] = np.nanmean(found[:, known], axis=0)
    return mean, np.nansum(np.sign(found) == np.sign(mean), axis=0).astype(np.int64)


def read_targets(texts: Sequence[str]) -> dict[str, float]:
    """Targets from the texts `GROUP:LOSS`.

    Raises:
        ConfigError: One is no such text, or names a group twice.

    Example:
        >>> read_targets(["a:b:0.5", "c:0.4"])
        {'a:b': 0.5, 'c': 0.4}
    """
    found: dict[str, float] = {}
    for text in texts:
        group, _, loss = text.rpartition(":")
        try:
            value = float(loss)
        except ValueError:
            value = math.nan
        if not group or not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--target {text!r} must be GROUP:LOSS with a loss above 0, such as --target rare:0.4")
        if group in found:
            raise ConfigError(f"--target names {group!r} twice; give one loss per group")
        found[group] = value
    return found
