"""The group curves of the LoRA or full run that will be made, before it is made, and how sure they are.

The run's own first steps and those of a few cheap real runs with other seeds, each made linear where it ends, say how
groups stand at each mean held-out loss: that is progress. Which step reaches it is the clock, a second forecast with
its own interval.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from pyarrow import parquet
from scipy.stats import t as student

from prefdyn._checks import one_of
from prefdyn._csv import write_csv
from prefdyn._json import SCHEMA_VERSION, plain, write_json
from prefdyn._shape import of_many
from prefdyn._showing import Tabular
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.order import places
from prefdyn.dynamics.progress import (
    ProgressBand,
    apart,
    at_levels,
    before,
    combined,
    growth,
    levels_to,
    mean_run,
    progress,
    spread_of_seeds,
    tiers,
)
from prefdyn.errors import ConfigError, DataError, TrainingError
from prefdyn.maths.objectives import DPO, Objective
from prefdyn.planning.forecast_check import SHARES
from prefdyn.planning.forecast_map import SettingsMap, settings_map
from prefdyn.planning.forecast_modules import ByModule
from prefdyn.planning.forecast_sides import Sides
from prefdyn.provenance import Provenance
from prefdyn.settings import Reading, opened
from prefdyn.training.linear import Linearised, foretell, linearise, records_between
from prefdyn.training.loop import Loop, check_start
from prefdyn.training.probes import PairTable, probe_rows
from prefdyn.training.rehearse import COST, QUANTITIES, Bench, RunPart, Sample, rehearsal, run_at
from prefdyn.training.settings import TrainingSettings
from prefdyn.training.subjects import Models, Subject, whole_model

_PER_CELL, _IN_ALL, _FEWEST = 64, 640, 8
"""Pairs that are looked at in one split of one group, of all groups together, and at least of each group."""
_PROBE = 0.075
"""Steps of the probe, of the run's, where nothing else is said."""
_LEAST_PROBE = 5
_BACKTEST = 3
"""The probe is made linear at one over this many of its steps, too: what follows is known, so that errors are."""
_REHEARSALS = 2
_RECORDS, _LINEAR_RECORDS = 10, 20
"""Records of a real run, and of a linear one, whose are cheap: far apart, they miss where the mean loss turns."""
_STUCK = 0.5
_AS_FAR = 2.0
"""How many times the fall of the rehearsals is foretold at most."""
_LAG_FREEDOM = 3.0
"""Degrees of freedom of the clock's error: it is one curve's."""
_STRETCH = 2
"""How many times the run's steps a linear run may take, for it is slower than the real one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clock:
    """Which step reaches each level; NaN where it is not known."""

    step: Float[np.ndarray, " l"]
    low: Float[np.ndarray, " l"]
    """Lower end of the 90 % interval."""
    high: Float[np.ndarray, " l"]
    by: str
    """`rehearsals`, or `linear`: then it is late, for a linear run is slower than a real one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast(Tabular):
    """What a run will do to its groups. `rows()` for tables, `write(folder)` for files."""

    names: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]
    """Training and measured held-out pairs of each group."""
    settings: TrainingSettings
    probe: RunPart
    """The run's own first steps; one record where there was no probe."""
    rehearsals: tuple[RunPart, ...]
    """Other seeds: a cheap real beginning, and where a linear run goes from its end."""
    linear: RunPart | None
    backtest: RunPart | None
    """A linear run from early in the probe, whose end is known."""
    band: ProgressBand
    values: Mapping[str, Float[np.ndarray, "l g"]]
    """The other quantities at each level, mixed as the losses are."""
    clock: Clock
    order: Float[np.ndarray, "g g"]
    """Share of runs in which the row's group is learned before the column's."""
    left_out: Sequence[Mapping[str, Any]]
    trained_left_out: tuple[str, ...]
    """Trained weights that the linear run does not follow."""
    lost: float
    cost: Mapping[str, float]
    """Of the run's pairs: what `probe` and `rehearsals` trained on."""
    warnings: tuple[str, ...]
    timings: Mapping[str, float]
    provenance: Provenance
    reference: str | None = None
    """What margins are taken against; None: the model as it starts."""
    by_module: ByModule | None = None
    """Which layers learn which group; None without a linear run."""
    sides: Sides | None = None
    """Chosen and rejected responses apart; None where nothing is vouched for."""
    settings_map: SettingsMap | None = None
    """Other betas and learning rates, where that was asked for."""

    @property
    def area(self) -> Float[np.ndarray, " g"]:
        """Mean loss of each group over the levels, as `ProgressBand.area` has it."""
        return self.band.area

    @property
    def tiers(self) -> list[list[str]]:
        """Names from the first learned to the last; those of a tier are not told apart."""
        if not self.band.vouched.any():
            return []
        return [[self.names[at] for at in each] for each in tiers(self.area, self.order)]

    def shares(self) -> dict[float, int]:
        """Place of the level at each of `SHARES` of the vouched fall."""
        last = int(self.band.vouched.sum()) - 1
        return {share: round(share * last) for share in SHARES} if last > 0 else {}

    def says(self) -> str:
        """What is told of the order, in a sentence or two."""
        return order_sentence(self.names, self.area, self.order, vouched=bool(self.band.vouched.any()))

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group, the first learned first."""
        ranks = places(self.area)
        tier = {name: at + 1 for at, each in enumerate(self.tiers) for name in each}
        found = []
        for code in np.argsort(self.area, kind="stable").tolist():
            name = self.names[code]
            train, held_out = self.sizes[name]
            row: dict[str, Any] = {
                "name": name, "pairs": train + held_out, "held_out_pairs": held_out, "rank": ranks[code],
                "tier": tier.get(name), "start_loss": float(self.probe.values["loss"][0, code]),
            }  # fmt: skip
            half = self.band.half_width
            for share, at in self.shares().items():
                loss = float(self.band.centre[at, code])
                key = round(100 * share)
                row |= {
                    f"loss_{key}": loss,
                    f"loss_{key}_low": loss - half[at, code],
                    f"loss_{key}_high": loss + half[at, code],
                }
            row |= {f"{name}_100": self._end(values, code) for name, values in self.values.items()}
            found.append(plain(row))
        return found

    def _end(self, values: np.ndarray, code: int) -> float:
        shares = self.shares()
        return float(values[shares[1.0], code]) if shares else math.nan

    def curves(self) -> pa.Table:
        """One row per curve, level and group: `kind` is forecast, linear, probe, or rehearsal-1 and so on."""
        levels, band = self.band.levels, self.band
        half, vouched = band.half_width, band.vouched
        rows = []
        for kind, losses in {"forecast": band.centre, **self._drawn()}.items():
            for at in np.flatnonzero(np.isfinite(losses).all(axis=1)).tolist():
                for code, name in enumerate(self.names):
                    row = {"kind": kind, "level": levels[at], "group": name, "loss": losses[at, code]}
                    if kind == "forecast":
                        row |= {"low": losses[at, code] - half[at, code], "high": losses[at, code] + half[at, code]}
                        row |= {key: values[at, code] for key, values in self.values.items()}
                        row |= {"step": self.clock.step[at], "step_low": self.clock.low[at]}
                        row |= {"step_high": self.clock.high[at], "vouched": bool(vouched[at])}
                    rows.append(plain(row))
        return pa.Table.from_pylist(rows, schema=CURVES)

    def _drawn(self) -> dict[str, np.ndarray]:
        """Groups of every run at every level, by what it is."""
        runs = {"linear": self.linear, "probe": self.probe if len(self.probe.steps) > 1 else None}
        runs |= {f"rehearsal-{at + 1}": run for at, run in enumerate(self.rehearsals)}
        return {kind: run_at(run, self.band.levels) for kind, run in runs.items() if run is not None}

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        origin = self.provenance
        settings = self.settings.to_json()
        return plain(
            {
                "schema": SCHEMA_VERSION,
                "command": "forecast",
                "provenance": {**origin.to_json(), "settings": settings},
                "dataset": {
                    "name": origin.data.get("name"),
                    "pairs": sum(map(sum, self.sizes.values())),
                    "groups": len(self.names),
                    "sha256": origin.data.get("sha256"),
                    "left_out": list(self.left_out),
                },
                "model": dict(origin.model),
                "features": {},
                "settings": settings,
                "groups": self.rows(),
                "forecast": self._part(),
                "bounds": [],
                "warnings": list(self.warnings),
                "timings": dict(self.timings),
            }
        )

    def _part(self) -> dict[str, Any]:
        band, clock = self.band, self.clock
        levels = band.levels
        last = int(band.vouched.sum()) - 1
        tested = None if self.backtest is None else apart(run_at(self.backtest, levels), run_at(self.probe, levels))
        return {
            "says": self.says(),
            "tiers": self.tiers,
            "order": self.order,
            "names": self.names,
            "levels": levels,
            "centre": band.centre,
            "error": band.error,
            "scale": band.scale,
            "freedom": band.freedom,
            "linear_weight": band.linear,
            "horizon": levels[last] if last > 0 else None,
            "between_seeds": spread_of_seeds(np.stack([run_at(run, levels) for run in self.rehearsals]))
            if len(self.rehearsals) > 1
            else None,
            "linear_off": tested,
            "curves": self._drawn(),
            "clock": {"step": clock.step, "low": clock.low, "high": clock.high, "by": clock.by},
            "probe": {"steps": int(self.probe.steps[-1]), "loss": float(progress(self.probe.values["loss"])[-1])},
            "rehearsals": len(self.rehearsals),
            "cost": dict(self.cost),
            "lost": self.lost,
            "trained_left_out": list(self.trained_left_out),
            "reference": self.reference,
            **({} if self.by_module is None else {"by_module": self.by_module.to_json()}),
            **({} if self.sides is None else {"sides": self.sides.to_json()}),
            **({} if self.settings_map is None else {"map": self.settings_map.to_json()}),
        }

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv, curves.parquet and, of a linear run, modules.csv into an existing folder."""
        write_json(folder / "summary.json", self.summary())
        write_csv(pa.Table.from_pylist(self.rows()), folder / "groups.csv")
        parquet.write_table(self.curves(), folder / "curves.parquet")
        if self.by_module is not None:
            write_csv(pa.Table.from_pylist(self.by_module.rows()), folder / "modules.csv")


CURVES = pa.schema(
    [
        ("kind", pa.string()),
        ("level", pa.float64()),
        ("group", pa.string()),
        ("loss", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("margin", pa.float64()),
        ("reward_accuracy", pa.float64()),
        ("chosen_change", pa.float64()),
        ("rejected_change", pa.float64()),
        ("step", pa.float64()),
        ("step_low", pa.float64()),
        ("step_high", pa.float64()),
        ("vouched", pa.bool_()),
    ]
)
"""Columns of curves.parquet. `level`: mean held-out loss over groups, nats. `low`, `high`: ends of the 90 % band of one
run. `step`: the clock."""


def joined(first: RunPart, then: RunPart | None) -> RunPart | None:
    """A probe and what goes on from its end, as one run; None where nothing does."""
    if then is None:
        return None
    later = then.steps > first.steps[-1]
    values = {name: np.concatenate([first.values[name], then.values[name][later]]) for name in then.values}
    return replace(then, steps=np.concatenate([first.steps, then.steps[later]]), values=values)


def order_sentence(
    names: Sequence[str], area: Float[np.ndarray, " g"], shares: Float[np.ndarray, "g g"], *, vouched: bool
) -> str:
    """What may be said of the order of groups.

    Example:
        >>> shares = np.array([[0.0, 0.96, 0.99], [0.04, 0.0, 0.7], [0.01, 0.3, 0.0]])
        >>> order_sentence(["a", "b", "c"], np.array([0.1, 0.5, 0.6]), shares, vouched=True)
        'a before b in 19 of 20 runs; b and c are not told apart.'
    """
    if not vouched or len(names) < 2:
        return "Nothing is told of the order of groups."
    found = tiers(area, shares)
    if len(found) == 1:
        return "No order of groups is told: another seed, or other held-out pairs, would change it."
    said = []
    for at, tier in enumerate(found):
        if at:
            first, then = found[at - 1][0], tier[0]
            said.append(f"{names[first]} before {names[then]} in {_of_twenty(float(shares[first, then]))}")
        if len(tier) > 1:
            said.append(f"{_listed([names[code] for code in tier])} are not told apart")
    return "; ".join(said) + "."


def _of_twenty(share: float) -> str:
    count = math.floor(20 * share + 1e-9)
    return "20 of 20 runs" if count >= 20 else f"{count} of 20 runs"


def _listed(names: Sequence[str], most: int = 4) -> str:
    return of_many(names, most) if len(names) > most else f"{', '.join(names[:-1])} and {names[-1]}"


@opened(reading=Reading)
def forecast(
    data: PreferenceDataset,
    model: str = "builtin",
    *,
    tune: Literal["lora", "full"] = "lora",
    objective: Objective | None = None,
    reference: str | Path | None = None,
    probe: int | Literal["auto"] = "auto",
    rehearse: float | Literal["auto"] = "auto",
    map: bool = False,
    out: Path | None = None,
    reading: Reading,
    share: bool = True,
    tell: Callable[[str], None] | None = None,
    progress: bool = True,
    **chosen: Any,
) -> Forecast:
    """Foretell what a LoRA or full run will do to every group of held-out pairs.

    Args:
        data: The pairs, with their split; what is foretold are held-out losses.
        model: "builtin", a local folder or a hub id.
        tune: "lora" or "full".
        objective: One that reads margins; `DPO(beta=0.1)` if not given.
        reference: What margins are taken against; see `train`.
        probe: Real steps of the run that are made first, 0 for none; "auto": 7.5 % of them, at least 5.
        rehearse: What cheap real runs with other seeds may cost, of the run's own pairs; each takes a sixteenth (a
            quarter of the steps, a quarter of the batch). 0 for none; "auto": two of them.
        map: Whether linear runs with other betas and learning rates are made, too.
        out: Folder for the probe's checkpoint; None: it is not kept.
        reading: How models read the pairs; its fields are keywords here, too.
        share: Encode what pairs share once, where the model allows it.
        tell: Told, in a line each, what is about to happen.
        progress: Show bars where stderr is a terminal.
        chosen: Fields of `TrainingSettings`, as `train` takes them; `probe_pairs` is how many pairs are looked at per
            group and split.

    Returns:
        A Forecast.

    Raises:
        ConfigError: Settings contradict each other, or the objective reads no margins.
        DataError: No group has held-out pairs, or no pair is left to train on.
        ModelError: The model cannot be read, or cannot be trained as asked.

    Reference:
        THEORY 13; Hu et al. (2021), arXiv:2106.09685; Malladi et al. (2022), arXiv:2210.05643.
    """
    began = time.monotonic()
    tell = tell or (lambda line: None)
    objective = objective or DPO()
    _refuse(tune, objective, probe, rehearse)
    models = Models.of(model, reading, share=share, progress=progress, tell=tell)
    per_cell = chosen.pop("probe_pairs", None) or min(_PER_CELL, max(_FEWEST, _IN_ALL // len(data.groups)))
    chosen = {"flip": False, **chosen, "max_length": reading.max_length, "probes": (), "probe_pairs": per_cell}
    subject, settings = whole_model(data, models, objective, reference, tune, chosen)
    looked = probe_rows(subject.pairs, None if per_cell == "all" else per_cell, seed=settings.seed)
    sample = sample_of(data, subject, looked)
    bench = Bench.of(subject, settings, sample)
    train = looked[~subject.pairs.held_out[looked]]
    steps = _probe_steps(probe, settings.steps)
    maker = _Maker(bench, np.concatenate([train, sample.rows]), steps, tell, progress, [*subject.warnings])
    if reference is None:
        check_start(bench.loop(settings).start(), settings)
    read = time.monotonic()
    maker.rehearse(rehearse)
    rehearsed = time.monotonic()
    maker.go(out)
    ended = time.monotonic()
    timings = {"read_s": read - began, "rehearse_s": rehearsed - read, "probe_s": ended - rehearsed}
    mapped = maker.map() if map else None
    if map:
        timings["map_s"] = time.monotonic() - ended
    found = replace(_assembled(maker, subject, settings, timings), settings_map=mapped)
    return found if reference is None else replace(found, reference=str(reference))


def _refuse(tune: str, objective: Objective, probe: Any, rehearse: Any) -> None:
    one_of(tune, ("lora", "full"), name="tune")
    if objective.reads != "margins":
        raise ConfigError(
            f"a forecast is of losses of the margin, which {objective.name!r} does not read; choose another objective"
        )
    if probe != "auto" and not (isinstance(probe, int) and probe >= 0):
        raise ConfigError(f"probe is {probe!r}; give a number of steps, 0 for none, or auto")
    if rehearse != "auto" and not 0 <= rehearse <= 1:
        raise ConfigError(f"rehearse is {rehearse!r}, but must be a share of the run's cost from 0 to 1, or auto")
    if probe == 0 and rehearse == 0:
        raise ConfigError("with probe 0 and rehearse 0 nothing real is run, so no error is known; allow one of them")


def sample_of(data: PreferenceDataset, subject: Subject, looked: Int[np.ndarray, " k"]) -> Sample:
    """The held-out ones of the pairs that are looked at."""
    pairs = subject.pairs
    rows = looked[pairs.held_out[looked]]
    if not len(rows):
        raise DataError(
            "no usable pair is held out, and what is foretold are held-out losses; hold some out with --split"
        )
    codes, group = np.unique(pairs.group[rows], return_inverse=True)
    places_in_data = subject.scorer.pairs.row[rows]  # type: ignore[union-attr,index]
    return Sample(
        rows=rows, group=group, unit=data.clusters.of[places_in_data],
        names=tuple(pairs.groups[code] for code in codes.tolist()),
    )  # fmt: skip


def _probe_steps(probe: int | str, steps: int) -> int:
    if probe == "auto":
        return min(max(_LEAST_PROBE, math.ceil(_PROBE * steps)), max(steps // 2, 1))
    if int(probe) >= steps:
        raise ConfigError(f"probe is {probe} steps, but the run has {steps}; give fewer, or auto")
    return int(probe)


class _Maker:
    """Makes the runs that a forecast is made of."""

    def __init__(
        self,
        bench: Bench,
        rows: Int[np.ndarray, " k"],
        steps: int,
        tell: Callable[[str], None],
        progress: bool,
        warnings: list[str],
    ) -> None:
        self.bench, self.rows, self.steps, self.tell, self.shown = bench, rows, steps, tell, progress
        self.warnings = warnings
        self.rehearsals: list[RunPart] = []
        self.backtest: RunPart | None = None
        self.from_loss = math.nan
        """Progress at which the backtest's linear run begins."""
        self.probe: RunPart | None = None
        self.linear: RunPart | None = None
        self.signals: Linearised | None = None
        self.follows = True

    def rehearse(self, cost: float | Literal["auto"]) -> None:
        """Cheap runs with other seeds; the first is made linear on its way, as the run itself will be."""
        count = _REHEARSALS if cost == "auto" else round(cost / COST)
        if cost and not count:
            count = 1
        run = self.bench.settings
        for number in range(count):
            settings, stop = rehearsal(run, run.seed + 1 + number, len(self.bench.subject.pairs.train))
            self.tell(f"Rehearsal {number + 1} of {count}: {stop} steps of {settings.batch_size} pairs.")
            loop, records = self.bench.loop(settings), records_between(0, stop, _RECORDS)
            try:
                found = self.bench.run(loop, stop, records, label=f"Rehearsal {number + 1}", progress=self.shown)
            except TrainingError as error:
                self.warnings.append(f"A rehearsal was left out, as it did not hold its learning rate: {error.typed}")
                continue
            signals = self._linearised(loop)
            if signals is not None:  # it goes on as the run itself would with this seed
                on = self.bench.loop(replace(run, seed=settings.seed))
                found = joined(found, self._foretold(signals, on)) or found
            self.rehearsals.append(found)

    def go(self, out: Path | None) -> None:
        """The run's own first steps, and where a linear run goes from their end."""
        loop = self.bench.loop(self.bench.settings, checkpoints=None if out is None else out / "checkpoints")
        first: list[Linearised | None] = []
        early, at = self.steps // _BACKTEST, {}
        if self.steps:
            at = {early: lambda: first.append(self._linearised(loop, apart=False))}
            self.tell(f"Probe: the first {self.steps} of {self.bench.settings.steps} steps.")
        records = sorted({early, *records_between(0, self.steps, _RECORDS)})
        self.probe = self.bench.run(loop, self.steps, records, label="Probe", progress=self.shown, at=at)
        if self.steps and out is not None:
            loop.save()
        self.signals = self._linearised(loop)
        if self.signals is not None:
            self.linear = joined(self.probe, self._foretold(self.signals, loop))
        if first and first[0] is not None:
            self.backtest = self._foretold(first[0], loop)
            self.from_loss = float(progress(self.probe.values["loss"])[list(self.probe.steps).index(early)])

    def map(self) -> SettingsMap | None:
        """Other betas and learning rates, from the gradients of the run's own linear run."""
        if self.signals is None:
            self.warnings.append("No map of settings was made, as there is no linear run.")
            return None
        self.tell("Map: linear runs with other betas and learning rates.")
        try:
            return settings_map(self.signals, self.bench)
        except TrainingError as error:
            self.warnings.append(f"No map of settings was made: {error.typed}")
            return None

    def _linearised(self, loop: Loop, *, apart: bool = True) -> Linearised | None:
        if not self.follows:
            return None
        self.tell(f"Gradients of {len(self.rows)} pairs after step {loop.progress.step}.")
        try:
            return linearise(
                self.bench.subject, loop, self.rows, apart=len(self.bench.sample.rows) if apart else 0,
                progress=self.shown,
            )  # fmt: skip
        except ConfigError as error:
            self.follows = False
            self.warnings.append(f"No linear run was made: {error.typed}")
            return None

    def _foretold(self, found: Linearised, loop: Loop) -> RunPart | None:
        first, last = found.memory.steps, _STRETCH * loop.settings.steps
        try:
            return foretell(
                found, loop, self.bench.sample, stretch=_STRETCH, records=records_between(first, last, _LINEAR_RECORDS)
            )
        except TrainingError as error:
            self.warnings.append(f"A linear run was left out: {error.typed}")
            return None


def _assembled(maker: _Maker, subject: Subject, settings: TrainingSettings, timings: Mapping[str, float]) -> Forecast:
    probe, sample = maker.probe, maker.bench.sample
    assert probe is not None
    levels = _levels(maker, probe)
    stacked = _rehearsed(maker, levels, "loss", len(sample.names))
    linear = None if maker.linear is None else run_at(maker.linear, levels)
    at_probe = float(progress(probe.values["loss"])[-1])
    band = combined(levels, linear, _linear_error(maker, levels, at_probe), stacked)
    held_out_error = _held_out_error(maker, band)
    pairs = subject.pairs
    sizes = {name: _sizes(pairs, name, int((sample.group == code).sum())) for code, name in enumerate(sample.names)}
    warnings = list(maker.warnings)
    fall = levels[0] - levels[-1]
    if len(sample.names) == 1:
        warnings.append("There is one group, so progress is its own loss: only the clock says anything here.")
    if not band.vouched.any():
        warnings.append("Nothing is vouched for: the errors of the forecast are as large as what groups differ by.")
    if not fall > 0:
        warnings.append("The mean held-out loss does not fall, so there is no progress to foretell groups by.")
    visits = settings.steps * (len(pairs.train) if settings.batch_size == "full" else settings.batch_size)
    cheap, stop = rehearsal(settings, settings.seed + 1, len(pairs.train))
    signals = maker.signals
    values = {name: _mixed(maker, levels, band, name) for name in QUANTITIES if name != "loss"}
    return Forecast(
        names=sample.names,
        sizes=sizes,
        settings=settings,
        probe=probe,
        rehearsals=tuple(maker.rehearsals),
        linear=maker.linear,
        backtest=maker.backtest,
        band=band,
        values=values,
        clock=_clock(maker, probe, levels),
        order=before(band, held_out_error, seed=settings.seed),
        left_out=subject.left_out,
        trained_left_out=() if signals is None else signals.signals.left_out,
        lost=math.nan if signals is None else signals.signals.lost,
        cost={
            "probe": maker.steps / settings.steps,
            "rehearsals": len(maker.rehearsals) * stop * int(cheap.batch_size) / visits,
        },
        warnings=tuple(warnings),
        timings=timings,
        provenance=subject.provenance,
        by_module=ByModule.of(maker.linear, maker.rehearsals, sample, settings.steps),
        sides=Sides.of(band, values, maker.rehearsals, maker.linear or probe),
    )


def _levels(maker: _Maker, probe: RunPart) -> np.ndarray:
    """From the start to where the rehearsals ended, or as far again with the linear run; to its end without any."""
    start = float(probe.values["loss"][0].mean())
    ends = [start]
    if maker.rehearsals:
        ends.append(_end(maker, start))
    if maker.linear is not None:
        end = float(progress(maker.linear.values["loss"])[-1])
        ends.append(max(end, start - _AS_FAR * (start - ends[-1])) if maker.rehearsals else end)
    return levels_to(start, min(ends))


def _linear_error(maker: _Maker, levels: np.ndarray, begins: float) -> np.ndarray:
    """What the linear run is off by at each level, by the law that its backtest followed; NaN without one.

    Nowhere less than one level beyond where it begins, for between levels nothing is known better.
    """
    return _grown(maker, levels, begins, lambda tested, real, fine: run_at(tested, fine) - run_at(real, fine))


def _linear_lag(maker: _Maker, levels: np.ndarray, begins: float) -> np.ndarray:
    """By what factor the clock of the linear run may be off at each level, nine times of ten, by its backtest's law."""

    def late(tested: RunPart, real: RunPart, fine: np.ndarray) -> np.ndarray:
        ours, theirs = (np.maximum(_step_at(run, fine), 1.0) for run in (tested, real))
        return np.log(ours / theirs)[:, None]

    return np.exp(student.ppf(0.95, _LAG_FREEDOM) * _grown(maker, levels, begins, late))


def _grown(
    maker: _Maker,
    levels: np.ndarray,
    begins: float,
    off: Callable[[RunPart, RunPart, np.ndarray], np.ndarray],
) -> np.ndarray:
    """What the backtest was off by, carried on by the law that it followed; NaN without a backtest."""
    tested, real = maker.backtest, maker.probe
    if tested is None or real is None:
        return np.full(len(levels), math.nan)
    end = max(float(progress(run.values["loss"])[-1]) for run in (tested, real))
    fine = levels_to(maker.from_loss, end)
    first, second = growth(off(tested, real, fine), maker.from_loss - fine)
    fallen = np.maximum(begins - levels, 0.0) + (levels[0] - levels[1])
    return first * fallen + second * fallen**2


def _step_at(run: RunPart, levels: np.ndarray) -> np.ndarray:
    return at_levels(progress(run.values["loss"]), run.steps.astype(float), levels)


def _held_out_error(maker: _Maker, band: ProgressBand) -> np.ndarray:
    """Standard error of each group's mean loss over the vouched levels, of its held-out units."""
    runs = maker.rehearsals or ([] if maker.linear is None else [maker.linear])
    use = band.levels[band.vouched]
    if not runs or not len(use):
        return np.full(band.centre.shape[1], math.nan)
    found = np.stack([run_at(run, use, "error") for run in runs])
    known = np.isfinite(found)
    count = np.maximum(known.sum(axis=(0, 1)), 1)
    return np.where(known.any(axis=(0, 1)), np.where(known, found, 0.0).sum(axis=(0, 1)) / count, math.nan)


def _rehearsed(maker: _Maker, levels: np.ndarray, quantity: str, groups: int) -> np.ndarray:
    """The rehearsals at each level, down to where the first has ended: a mean must not change its runs."""
    if not maker.rehearsals:
        return np.full((0, len(levels), groups), math.nan)
    runs = np.stack([run_at(run, levels, quantity) for run in maker.rehearsals])
    runs[:, _ended(maker, levels)] = math.nan
    return runs


def _ended(maker: _Maker, levels: np.ndarray) -> np.ndarray:
    """Levels below the end of the rehearsals."""
    return levels < _end(maker, float(levels[0])) - 1e-12


def _end(maker: _Maker, start: float) -> float:
    """Where the first rehearsal ends, but for one that got stuck: that fell less than half as far as their median."""
    ends = np.array([float(progress(run.values["loss"])[-1]) for run in maker.rehearsals])
    return float(ends[start - ends >= _STUCK * np.median(start - ends)].max())


def _mixed(maker: _Maker, levels: np.ndarray, band: ProgressBand, quantity: str) -> np.ndarray:
    """Another quantity, linear run and rehearsals weighted as for the loss."""
    runs = _rehearsed(maker, levels, quantity, band.centre.shape[1])
    centre, count = mean_run(runs)
    if maker.linear is None:
        return centre
    linear = run_at(maker.linear, levels, quantity)
    share = band.linear[:, None]
    found = np.where(share > 0, share * linear, 0.0) + np.where(share < 1, (1 - share) * centre, 0.0)
    rehearsed = np.flatnonzero(count > 0)
    if len(rehearsed):
        last = rehearsed[-1]
        found[last + 1 :] = linear[last + 1 :] + (found[last] - linear[last])
    return found


def _clock(maker: _Maker, probe: RunPart, levels: np.ndarray) -> Clock:
    """Steps of the rehearsals, stretched so that each passes the probe's end when the run did.

    The interval is that of one more run: on the log scale, spread between rehearsals × √(1 + 1/n) × t.
    """
    lost = np.full(len(levels), math.nan)
    if not maker.rehearsals:
        if maker.linear is None:
            return Clock(step=lost, low=lost, high=lost, by="linear")
        steps = _step_at(maker.linear, levels)
        wide = _linear_lag(maker, levels, float(progress(probe.values["loss"])[-1]))
        return Clock(step=steps, low=steps / wide, high=steps * wide, by="linear")
    paces = []
    level = progress(probe.values["loss"])[-1:]
    for run in maker.rehearsals:
        reached, steps = progress(run.values["loss"]), run.steps.astype(float)
        seen = float(at_levels(reached, steps, level)[0])
        stretch = maker.steps / seen if maker.steps and seen > 0 else 1.0
        paces.append(stretch * at_levels(reached, steps, levels))
    pace = np.stack(paces)
    pace[:, _ended(maker, levels)] = math.nan
    there = np.isfinite(pace) & (pace > 0)
    count = there.sum(axis=0)
    logs = np.where(there, np.log(np.where(there, pace, 1.0)), 0.0)
    mean = logs.sum(axis=0) / np.maximum(count, 1)
    squares = np.where(there, (logs - mean) ** 2, 0.0).sum(axis=0)
    step = np.where(count > 0, np.exp(mean), np.where(levels >= levels[0], 0.0, math.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(squares / (count - 1) * (1 + 1 / np.maximum(count, 1)))
        wide = np.exp(student.ppf(0.95, np.maximum(count - 1, 1)) * spread)
    wide = np.where(count > 1, wide, math.nan)
    return Clock(step=step, low=step / wide, high=step * wide, by="rehearsals")


def _sizes(pairs: PairTable, name: str, measured: int) -> tuple[int, int]:
    code = pairs.groups.index(name)
    return int(((pairs.group == code) & ~pairs.held_out).sum()), measured
