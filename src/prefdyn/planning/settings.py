"""Which objective, learning rate, number of steps and beta: a grid of runs, chosen on some pairs and judged on others.

Whole units are dealt into folds. In turn one fold judges, the next one chooses, three train. What is compared is the
*scaled loss* of a run: the log loss of its margins times one factor, fitted on the choosing pairs. So no setting gains
by the size of its margins alone, which beta and the objective set, and which a calibration could; what counts is how
well margins tell the better answer, and how evenly. Pairs that the features hold out take no part.

Plain descent and momentum see beta and learning rate through eta beta^2 alone (`prefdyn.dynamics.sweep`), so beta is
searched for other optimizers only.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from prefdyn._csv import write_csv
from prefdyn._json import plain, write_json
from prefdyn._progress import track
from prefdyn._showing import Tabular, by_column
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.adjoint import HeadRun
from prefdyn.dynamics.crossfit import FOLDS, deal
from prefdyn.dynamics.descent import stable_learning_rate
from prefdyn.dynamics.grid import Setting
from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, IPO, LOG2, Objective, RobustDPO, SLiC
from prefdyn.maths.optimizers import AdamW, Schedule
from prefdyn.planning.goals import OF_SETTINGS, Goal, hits
from prefdyn.planning.grid import best_cell
from prefdyn.planning.judging import JudgedWays, Spanned, decision, judged, mean_gain
from prefdyn.planning.recipe import described, plan_setting, write_recipe
from prefdyn.planning.summary import header
from prefdyn.settings import opened

RATES, LENGTHS, BETAS = (0.25, 0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 2.0, 4.0), (0.2, 1.0, 5.0)
"""Factors on what is given that are tried; beta where margins do not depend on eta beta^2 alone."""
SMOOTHING = 0.1
"""Label smoothing of the robust loss that is tried."""
WORTH = 0.01
"""Least gain that is worth a change, nats of the score."""
OTHERS = ("trl", "simple")
"""TRL's defaults, and the rule of `prefdyn simulate` for grids: fewest steps within a standard error of the best."""
_TRL = {"learning_rate": 1e-6, "batch_size": 8, "epochs": 3, "beta": 0.1}
"""Of TRL's `DPOConfig`, with AdamW and a linear schedule."""
_TRL_STEPS = 20_000
"""Beyond so many steps TRL's defaults are not run."""
_FEWEST_UNITS = 50
_LARGEST = 50.0
"""Of the factor on margins, over one by their root mean square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One setting of the grid."""

    setting: Setting
    steps: int

    def row(self) -> dict[str, Any]:
        """Objective, label smoothing, beta, learning rate, optimizer, schedule, batch size and steps."""
        said = self.setting.describe() | {"steps": self.steps}
        return {name: said[name] for name in _NAMED if name in said}


_NAMED = ("objective", "label_smoothing", "beta", "learning_rate", "optimizer", "schedule", "batch_size", "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsPlan(Tabular):
    """A proposal of settings with what stands for and against it. `rows()` per group; `write(folder)`."""

    features: FeatureSet
    goal: Goal
    change: bool
    because: str
    candidates: tuple[Candidate, ...]
    """The grid; the one as given is first."""
    best: int
    """The candidate that is best on all choosing pairs together; what is proposed where anything is to change."""
    picked: tuple[int, ...]
    """The candidate that each fold chose by itself."""
    judged: JudgedWays
    """As given, what each fold chose, and the alternatives; scaled losses."""
    accuracy: Float[np.ndarray, " M"]
    """Of each of these ways, mean over groups of the share of judging pairs with a margin above 0."""
    loss: Float[np.ndarray, " candidates"]
    """Scaled loss of each candidate, mean over groups, on the judging pairs; infinite where a run diverges."""
    gain: tuple[Spanned, ...]
    """Of each candidate over the one as given."""
    correct: Float[np.ndarray, " candidates"]
    """Accuracy of each candidate, mean over groups."""
    settings: Mapping[str, Any]

    @property
    def proposal(self) -> Candidate:
        """What to run: the best candidate where anything is to change, else the one as given."""
        return self.candidates[self.best if self.change else 0]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: pairs, scaled loss of every way, gain of the plan with its interval."""
        feats, found = self.features, []
        count = np.bincount(feats.group[~feats.held_out], minlength=len(feats.groups))
        for code, name in enumerate(feats.groups):
            row: dict[str, Any] = {"name": name, "pairs": int(count[code])}
            row |= {f"loss_{how}": self.judged.loss[place, code] for place, how in enumerate(self.judged.methods)}
            low, high = self.judged.gain_interval[code]
            found.append(plain({**row, "gain": self.judged.gain[code], "gain_low": low, "gain_high": high}))
        return found

    def cells(self) -> list[dict[str, Any]]:
        """One dictionary per candidate, the best first: settings, scaled loss, accuracy, gain with interval."""
        order = sorted(range(len(self.candidates)), key=lambda place: (self.loss[place], place))
        return [
            plain({
                **self.candidates[place].row(), "loss": self.loss[place], "accuracy": self.correct[place],
                **self.gain[place].row("gain"),
                "given": place == 0, "best": place == self.best, "picked": self.picked.count(place),
            })
            for place in order
        ]  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        part = {
            "goal": self.goal.name, "limits": dict(self.goal.limits), "slack": self.goal.slack, "change": self.change,
            "because": self.because, "given": self.candidates[0].row(), "best": self.candidates[self.best].row(),
            "picked": [self.candidates[place].row() for place in self.picked],
            "methods": [
                {**row, "accuracy": float(share)} for row, share in zip(self.judged.rows(), self.accuracy, strict=True)
            ],
            "beta_tied": bool(self.candidates[0].setting.optimizer.linear),
            "most_steps": max(one.steps for one in self.candidates),
            "diverged": int(np.isinf(self.loss).sum()), "cells": self.cells(),
        }  # fmt: skip
        return plain({
            **header(self.features, command="plan", settings=self.settings),
            "groups": self.rows(), "plan": {"settings": part}, "bounds": [], "warnings": [], "timings": {},
        })  # fmt: skip

    def write(self, folder: Path, *, flags: Mapping[str, Any] | None = None) -> None:
        """Write summary.json, settings.csv, plan.yaml and trl.yaml.

        Args:
            folder: An existing folder.
            flags: Of `prefdyn train`, that say which data and model; plan.yaml holds them.
        """
        write_json(folder / "summary.json", self.summary())
        table = by_column(self.cells())
        write_csv(pa.table({**table, "batch_size": list(map(str, table["batch_size"]))}), folder / "settings.csv")
        one = self.proposal
        write_recipe(folder, {}, one.setting, one.steps, texts=None, flags=flags or {}, change=False)


@opened(run=HeadRun)
def plan_settings(
    feats: FeatureSet,
    goal: str | Goal = "mean",
    *,
    run: HeadRun,
    progress: bool = True,
) -> SettingsPlan:
    """Objective, learning rate, steps and beta, if others than those given are better on pairs that had no say.

    Args:
        feats: Features of either kind. Pairs that they hold out take no part.
        goal: `mean`, `worst` or `protect=GROUP:LOSS`, or a `Goal`; of scaled losses.
        run: How the head is trained as given, by a loss of the margin; objective, beta, learning_rate, steps, seed and
            its other fields can be given as keywords. The rate "auto" is half of the largest stable step, of each
            objective its own; from a quarter to four times as many steps are tried, and the schedule follows; the seed
            deals units into folds, draws minibatches and resamples.
        progress: Show a bar on stderr where it is a terminal.

    Raises:
        ConfigError: A setting is out of range, the goal is `equal`, or the run as given diverges.
        DataError: There are fewer than 50 units.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(100, groups=2, width=8, half_gap=[1.5, 1.0])
        >>> plan_settings(feats, steps=20, progress=False).change
        False
    """
    wanted = Goal.read(goal) if isinstance(goal, str) else goal
    if wanted.name not in OF_SETTINGS:
        raise ConfigError(f"settings are planned for the goals mean, worst and protect, not for {wanted.name!r}")
    wanted.check(feats.groups)
    learning_rate, steps, seed, batch_size = run.learning_rate, run.steps, run.seed, run.batch_size
    setting = plan_setting(feats, "settings are planned", run)
    used = feats.select(~feats.held_out)
    unit = units(used)
    if (count := len(np.unique(unit))) < _FEWEST_UNITS:
        raise DataError(
            f"{count} units (pairs that hang together count once) are too few to choose settings by; give at least "
            f"{_FEWEST_UNITS}"
        )
    fold = deal(used, unit, FOLDS, seed)
    if batch_size != "full":
        small = int((fold >= 0).sum() * (FOLDS - 2) / FOLDS)
        if int(batch_size) > small:
            raise ConfigError(f"--batch-size {batch_size} is more than the {small} pairs that a run trains on here")
    candidates = _candidates(used, setting, steps, learning_rate)
    board = _Trials(used, unit, fold, candidates, steps)
    for place in track(range(FOLDS), "Folds", unit="folds", shown=progress):
        board.solve(place)
    if not np.isfinite(board.judge[0][fold >= 0]).all():
        raise ConfigError(f"the run as given diverges with learning rate {setting.learning_rate:g}; lower the rate")
    start_goal = {"start": LOG2, "seed": seed}
    picked = tuple(board.best(wanted, fold == (place + 1) % FOLDS) for place in range(FOLDS))
    best = board.best(wanted, fold >= 0)
    names, losses, hits = board.ways(picked)
    result = judged(losses, names, used.group, used.groups, unit, wanted, **start_goal)
    change, because = decision(result, wanted, keep="the settings", worth=WORTH, kind="scaled ")
    if best == 0:
        change = False
    return SettingsPlan(
        features=feats,
        goal=wanted,
        change=change,
        because=because,
        candidates=candidates,
        best=best,
        picked=picked,
        judged=result,
        accuracy=np.array([board.mean(each) for each in hits]),
        loss=np.array([board.mean(each) for each in board.judge[: len(candidates)]]),
        gain=tuple(mean_gain(board.judge[0], each, used.group, unit, fold >= 0) for each in board.judge),
        correct=np.array([board.mean(each) for each in board.hit[: len(candidates)]]),
        settings=described(setting, learning_rate, steps=steps, seed=seed, goal=wanted.name, folds=FOLDS),
    )


# the grid -----------------------------------------------------------------------------------------------------------


def _candidates(
    feats: FeatureSet, setting: Setting, steps: int, learning_rate: float | Literal["auto"]
) -> tuple[Candidate, ...]:
    """As given first, then every other combination of objective, beta, rate and length."""
    given: Any = setting.objective
    betas = (1.0,) if setting.optimizer.linear else BETAS
    base = [given, DPO(beta=given.beta), RobustDPO(beta=given.beta, label_smoothing=SMOOTHING)]
    base += [IPO(beta=given.beta), SLiC(beta=given.beta)]
    kinds: dict[str, Objective] = {repr(one): one for one in base}
    lengths = sorted({max(1, round(factor * steps)) for factor in LENGTHS})
    found = [Candidate(setting=setting, steps=steps)]
    for kind in kinds.values():
        for factor in betas:
            one = kind if factor == 1 else replace(kind, beta=kind.beta * factor)  # type: ignore[reportCallIssue]
            rate = setting.learning_rate
            if learning_rate == "auto" and one != given and math.isfinite(one.curvature):
                rate = stable_learning_rate(feats, one)
            found += [
                Candidate(setting=replace(setting, objective=one, learning_rate=rate * times), steps=length)
                for times in RATES
                for length in lengths
            ]
    return tuple(dict.fromkeys(found))


def _trl(feats: FeatureSet, seed: int) -> Candidate | None:
    """TRL's defaults on these pairs; None where they would take very many steps."""
    count = int((~feats.held_out).sum())
    size = min(int(_TRL["batch_size"]), count)
    steps = int(_TRL["epochs"]) * math.ceil(count / size)
    if steps > _TRL_STEPS:
        return None
    return Candidate(
        setting=Setting(
            objective=DPO(beta=_TRL["beta"]), learning_rate=_TRL["learning_rate"], optimizer=AdamW(),
            schedule=Schedule(kind="linear", steps=steps, warmup=0), batch_size=size, scheme="epochs", seed=seed,
            groups=None,
        ),
        steps=steps,
    )  # fmt: skip


def _margins(feats: FeatureSet, candidates: Sequence[Candidate]) -> Float[np.ndarray, "candidates n"]:
    """Margins of every pair at the end of every candidate's run; NaN where it diverges."""
    found = np.full((len(candidates), len(feats)), math.nan)
    piles: dict[Any, list[int]] = {}
    for place, one in enumerate(candidates):
        length = None if one.setting.schedule is None else one.steps
        piles.setdefault((repr(replace(one.setting, learning_rate=1.0, schedule=None)), length), []).append(place)
    for places in piles.values():
        first = candidates[places[0]].setting
        rates = list(dict.fromkeys(candidates[place].setting.learning_rate for place in places))
        longest = max(candidates[place].steps for place in places)
        when = None if first.schedule is None else replace(first.schedule, steps=longest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # what diverges is not chosen, and counted on the page
            runs = sweep(
                feats, objective=first.objective, learning_rate=rates, optimizer=first.optimizer, schedule=when,
                batch_size=first.batch_size, scheme=first.scheme, seed=first.seed, steps=longest, record=[0, longest],
                margins_at=sorted({candidates[place].steps for place in places}),
            )  # fmt: skip
        for place in places:
            run = runs[rates.index(candidates[place].setting.learning_rate)]
            if candidates[place].steps in run.margins:
                found[place] = run.margins[candidates[place].steps]
    return found


# judging ------------------------------------------------------------------------------------------------------------


class _Trials:
    """Scaled losses of all candidates and of TRL's defaults, where each pair judges and where it chooses."""

    def __init__(
        self,
        feats: FeatureSet,
        unit: Int[np.ndarray, " n"],
        fold: Int[np.ndarray, " n"],
        candidates: Sequence[Candidate],
        steps: int,
    ) -> None:
        self.feats, self.unit, self.fold = feats, unit, fold
        self.candidates, self.steps = candidates, steps
        shape = (len(candidates) + 1, len(feats))
        self.judge, self.choose, self.hit, self.hit_choose = (np.full(shape, math.nan) for _ in range(4))
        self.trl = True

    def solve(self, place: int) -> None:
        """Run everything where one fold judges and the next one chooses."""
        judge, choose = self.fold == place, self.fold == (place + 1) % FOLDS
        trained = self.feats.with_held_out(judge | choose)
        extra = _trl(trained, self.candidates[0].setting.seed)
        self.trl = extra is not None
        margins = _margins(trained, [*self.candidates, *([extra] if extra else [])])
        losses = scaled_losses(margins, self.feats.group, choose)
        for found, values, mine in (
            (self.judge, losses, judge), (self.choose, losses, choose),
            (self.hit, hits(margins), judge), (self.hit_choose, hits(margins), choose),
        ):  # fmt: skip
            found[: len(values), mine] = values[:, mine]

    def best(self, goal: Goal, inside: Bool[np.ndarray, " n"]) -> int:
        """The candidate of least score on these choosing pairs; the one as given wins ties."""
        means = np.stack([self.by_group(losses, inside) for losses in self.choose[: len(self.candidates)]])
        score = goal.score(list(self.feats.groups), means[0], start=LOG2)
        return int(np.argmin(score.hard(means)))

    def ways(self, picked: Sequence[int]) -> tuple[list[str], Float[np.ndarray, "M n"], Float[np.ndarray, "M n"]]:
        """Names, losses and hits of the ways that are judged."""
        simple = [self._simple(self.fold == (place + 1) % FOLDS) for place in range(FOLDS)]
        names, last = ["as_given", "plan", "simple"], len(self.candidates)
        rows = [np.zeros(FOLDS, dtype=int), np.array(picked), np.array(simple)]
        if self.trl:
            names, rows = [*names, "trl"], [*rows, np.full(FOLDS, last)]
        known, fold = self.fold >= 0, np.maximum(self.fold, 0)
        at = np.arange(len(self.feats))
        losses = np.stack([np.where(known, self.judge[row[fold], at], math.nan) for row in rows])
        return names, losses, np.stack([np.where(known, self.hit[row[fold], at], math.nan) for row in rows])

    def by_group(self, values: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
        """Means over some pairs; NaN where there are none."""
        group, m = self.feats.group[inside], len(self.feats.groups)
        with np.errstate(invalid="ignore"):
            return np.bincount(group, weights=values[inside], minlength=m) / np.bincount(group, minlength=m)

    def mean(self, values: Float[np.ndarray, " n"]) -> float:
        """Over groups, of what is judged."""
        known = self.by_group(values, self.fold >= 0)
        known = known[~np.isnan(known)]
        return float(known.mean()) if len(known) else math.nan

    def _simple(self, inside: Bool[np.ndarray, " n"]) -> int:
        """What `prefdyn simulate` would propose of the grid by the choosing pairs."""
        cells, count = [], int(inside.sum())
        for place, one in enumerate(self.candidates):
            share = float(self.hit_choose[place, inside].mean())
            cells.append({
                "cell": place, "diverged_at": None if math.isfinite(share) else 0, "held_out_accuracy": share,
                "held_out_error": math.sqrt(share * (1 - share) / count), "steps_to_target": one.steps,
            })  # fmt: skip
        found, _ = best_cell(cells)
        return 0 if found is None else found


def scaled_losses(
    margins: Float[np.ndarray, "runs n"], group: Int[np.ndarray, " n"], fitted: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "runs n"]:
    r"""Log losses $-\log \sigma(a r)$ with one $a \ge 0$ per run, the best for some pairs; groups count alike.

    Two further pairs, one right and one wrong with the typical margin, keep $a$ finite.

    Args:
        margins: Of every pair in every run; a run that is not finite everywhere has infinite losses.
        group: Of each pair.
        fitted: The pairs that $a$ is fitted on.

    Example:
        >>> margins = np.array([[1.0, 2.0, -1.0, 3.0]])
        >>> same = [scaled_losses(scale * margins, np.zeros(4, int), np.ones(4, bool)) for scale in (0.001, 1.0)]
        >>> bool(np.allclose(*same))
        True
    """
    found = np.full(margins.shape, math.inf)
    fine = np.isfinite(margins).all(axis=1)
    if not fine.any():
        return found
    own = margins[fine][:, fitted]
    scale = np.sqrt((own**2).mean(axis=1, keepdims=True))
    scale = np.where(scale > 0, scale, 1.0)
    own = own / scale
    _, code = np.unique(group[fitted], return_inverse=True)
    count = np.bincount(code)
    weight = len(code) / (len(count) * count[code])
    low, high = np.zeros(len(own)), np.full(len(own), _LARGEST)
    for _ in range(40):
        middle = (low + high) / 2
        slope = -(weight * own * expit(-middle[:, None] * own)).sum(axis=1) + 2 * expit(middle) - 1
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    found[fine] = np.logaddexp(0.0, -low[:, None] / scale * margins[fine])
    return found
