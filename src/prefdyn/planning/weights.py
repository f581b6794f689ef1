"""Which weight each group should have: proposed on some pairs, judged on others, beside the best known alternatives.

Whole units are dealt into folds. For each fold in turn, the runs train on three fifths of the pairs, the factors are
chosen by the losses of one fifth, and all of them are judged by the losses of the last. Every pair is judged once, in
runs that neither trained on it nor chose by it. Pairs that the features hold out take no part at all: they are left
for judging the training that follows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from prefdyn._checks import between
from prefdyn._csv import write_csv
from prefdyn._json import plain, write_json
from prefdyn._progress import track
from prefdyn._shape import of_many
from prefdyn._showing import Tabular
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.adjoint import HeadRun, sensitivity_of
from prefdyn.dynamics.crossfit import FOLDS, deal
from prefdyn.dynamics.datamodel import reweighted
from prefdyn.dynamics.grid import Setting
from prefdyn.dynamics.robust import group_robust
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.units import mean_of
from prefdyn.planning.goals import Goal, GoalScore, Measure, finite_losses, hits, start_loss
from prefdyn.planning.judging import JudgedWays, decision, judged
from prefdyn.planning.mirror import ROUNDS, balanced, linear_programme, mirror
from prefdyn.planning.recipe import described, plan_setting, write_recipe
from prefdyn.planning.summary import header
from prefdyn.settings import opened

GIVEN, PLAN = "as_given", "plan"
BASELINES = ("stratified", "tempered", "linear", "group_robust")
"""Every group the same total weight (for pairs of equal weight: inverse size); the square root of that factor; a linear
programme on the first slopes; group-robust training online, arXiv:2405.20304."""
_PACES = (0.03, 0.1, 0.3, 1.0)
"""Of group-robust training; the best on the choosing pairs is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InTheRun:
    """What linear runs make of the ways to weigh groups."""

    judged: JudgedWays
    """On held-out pairs; losses are means over seeds."""
    gains: Float[np.ndarray, " seeds"]
    """How much better the proposal's score is than as given, seed by seed."""
    holds: bool
    """Whether the gain is above 0 with its whole interval over held-out units, and in every seed."""
    because: str
    tune: str
    steps: int
    """Of each linear run."""

    def to_json(self) -> dict[str, Any]:
        """As in summary.json."""
        return {
            "tune": self.tune, "steps": self.steps, "holds": self.holds, "because": self.because,
            "gains": self.gains.tolist(), "methods": self.judged.rows(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan(Tabular):
    """A proposal of group weights with what stands for and against it. `rows()` per group; `write(folder)`."""

    _FIRST = ("name", "pairs", "found_factor", "found_low", "found_high", "loss_as_given", "loss_plan", "gain")

    features: FeatureSet
    goal: Goal
    factors: Float[np.ndarray, " groups"]
    """What the weights of each group are to be multiplied by; all 1 where nothing is to be changed. Their mean over the
    training weight is 1."""
    found: Float[np.ndarray, "folds groups"]
    """The factors that each fold found by itself."""
    change: bool
    """Whether the proposal is to change anything: the judged gain is above 0 with its whole interval."""
    because: str
    judged: JudgedWays
    accuracy: Float[np.ndarray, "M groups"]
    """Share of judged pairs whose margin is above 0 (half of those at 0), for each way of `judged`; NaN: not judged."""
    rounds: tuple[int, ...]
    """Rounds of the search, per fold."""
    learns: Bool[np.ndarray, " groups"]
    """Groups with enough units to be chosen and judged by; the others keep what they count."""
    setting: Setting
    steps: int
    settings: Mapping[str, Any]
    run: InTheRun | None = None
    """What linear runs of the real kind make of it, where a forecast of that run was given."""

    @property
    def proposed(self) -> Float[np.ndarray, " groups"]:
        """The factors that the folds agree on, whether or not they are worth it."""
        return _agreed(self.found, shares_of(self.features))

    def weights(self) -> dict[str, float]:
        """The factor of each group by name, as `--group-weights` and `GroupDPOTrainer(group_weights=)` take them."""
        return {name: round(float(each), 4) for name, each in zip(self.features.groups, self.factors, strict=True)}

    def mixture(self) -> dict[str, float]:
        """Share of each group in what is drawn, with replacement: sampling of the same mean gradient as the weights."""
        shares = shares_of(self.features) * self.factors
        return {name: round(float(each), 4) for name, each in zip(self.features.groups, shares, strict=True)}

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: pairs, factor with its spread, share of a batch, judged losses and the gain.

        `given_share` and `found_share`: of the loss, or of what is drawn with replacement; `found_draws`: pairs of the
        group in as many draws as there are pairs.
        """
        proposed, feats = self.proposed, self.features
        shares = shares_of(feats)
        count = np.bincount(feats.group[~feats.held_out], minlength=len(feats.groups))
        rows = []
        for code, name in enumerate(feats.groups):
            row: dict[str, Any] = {
                "name": name,
                "pairs": int(count[code]),
                "factor": self.factors[code],
                "found_factor": proposed[code],
                "found_low": self.found[:, code].min(),
                "found_high": self.found[:, code].max(),
                "given_share": shares[code],
                "found_share": shares[code] * proposed[code],
                "found_draws": round(float(shares[code] * proposed[code] * count.sum())),
            }
            row |= {f"loss_{how}": self.judged.loss[place, code] for place, how in enumerate(self.judged.methods)}
            if self.goal.accuracy:
                row |= {f"accuracy_{how}": self.accuracy[place, code] for place, how in enumerate(self.judged.methods)}
                row["wanted_accuracy"] = self.goal.accuracy.get(name, math.nan)
            low, high = self.judged.gain_interval[code]
            rows.append(plain({**row, "gain": self.judged.gain[code], "gain_low": low, "gain_high": high}))
        return rows

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        part = {
            "goal": self.goal.name,
            "limits": dict(self.goal.limits),
            "slack": self.goal.slack,
            "accuracy": dict(self.goal.accuracy),
            "change": self.change,
            "because": self.because,
            "weights": self.weights(),
            "mixture": self.mixture(),
            "methods": self.judged.rows(),
            "rounds": list(self.rounds),
            **({} if self.run is None else {"in_the_run": self.run.to_json()}),
        }
        few = [name for name, known in zip(self.features.groups, self.learns, strict=True) if not known]
        warnings = []
        if few:
            warnings.append(
                f"too few units to choose and judge by (under {FOLDS}), so their weight is kept: {of_many(few, 5)}"
            )
        return plain(
            {
                **header(self.features, command="plan", settings=self.settings),
                "groups": self.rows(),
                "plan": {"weights": part},
                "bounds": [],
                "warnings": warnings,
                "timings": {},
            }
        )

    def write(
        self, folder: Path, *, texts: PreferenceDataset | None = None, flags: Mapping[str, Any] | None = None
    ) -> None:
        """Write summary.json, weights.csv, plan.yaml, trl.yaml and, where there are texts, dataset.jsonl.

        Args:
            folder: An existing folder.
            texts: The pairs, for a dataset with a column `weight`.
            flags: Of `prefdyn train`, that say which data and model; plan.yaml holds them.
        """
        write_json(folder / "summary.json", self.summary())
        write_csv(pa.Table.from_pylist(self.rows()), folder / "weights.csv")
        write_recipe(
            folder,
            self.weights(),
            self.setting,
            self.steps,
            texts=texts,
            flags=flags or {},
            change=self.change,
            mixture=self.mixture(),
        )


@opened(run=HeadRun)
def plan_weights(
    feats: FeatureSet,
    goal: str | Goal = "worst",
    *,
    floor: float = 0.1,
    ceiling: float = 10.0,
    run: HeadRun,
    rounds: int = ROUNDS,
    progress: bool = True,
) -> WeightPlan:
    """Group weights for a goal, chosen by exact slopes and re-runs, judged on pairs that had no say.

    Args:
        feats: Features of either kind. Pairs that they hold out take no part.
        goal: `worst`, `mean`, `equal`, `protect=GROUP:LOSS` or `target=GROUP:ACCURACY,…`, or a `Goal`.
        floor: Smallest factor on a group, of the mean weight.
        ceiling: Largest.
        run: How the head is trained in every run, by a loss of the margin; objective, beta, learning_rate, steps, seed
            and its other fields can be given as keywords. The rate "auto" is half of the largest stable step of
            the data as given; the seed deals units into folds, draws minibatches and resamples.
        rounds: Of the search, at most.
        progress: Show a bar on stderr where it is a terminal.

    Returns:
        The proposal: factors, how they were found, and what they do beside the alternatives.

    Raises:
        ConfigError: A setting is out of range, or the run as given diverges.
        DataError: Fewer than two groups have the five units that choosing and judging take.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups([100, 20], groups=2, width=8, half_gap=[1.0, 1.0], tokens="shared")
        >>> plan = plan_weights(feats, steps=20, progress=False)
        >>> plan.judged.methods[:2], len(plan.rows())
        (('as_given', 'plan'), 2)
    """
    wanted = Goal.read(goal) if isinstance(goal, str) else goal
    wanted.check(feats.groups)
    between(floor, 0.0, 1.0, name="floor")
    if not ceiling > 1:
        raise ConfigError(f"the ceiling {ceiling:g} must be above 1, the mean weight")
    learning_rate, steps, seed = run.learning_rate, run.steps, run.seed
    setting = plan_setting(feats, "weights are planned", run)
    if wanted.name == "equal" and run.batch_size != "full":
        raise ConfigError(
            "the goal 'equal' needs runs of each group alone, which take full batches: leave --batch-size"
        )
    used = feats.select(~feats.held_out)
    unit = units(used)
    fold, learns = _dealt(used, unit, seed)
    if learns.sum() < 2:
        raise DataError(
            f"{int(learns.sum())} of {len(feats.groups)} groups have {FOLDS} units or more (pairs that hang together "
            "count once); weights are chosen between two groups at least"
        )
    splits = [
        Split(feats=used, unit=unit, fold=fold, place=place, learns=learns, setting=setting, steps=steps)
        for place in range(FOLDS)
    ]
    alone = None
    if wanted.name == "equal":
        each_alone = np.stack([split.alone() for split in splits])
        pooled = np.where(np.isnan(each_alone), 0.0, each_alone).sum(axis=0)
        alone = np.array([
            pooled[rows].mean() if known else math.nan for rows, known in zip(used.by_group(), learns, strict=True)
        ])  # fmt: skip
    found = [
        split.solved(wanted, alone, floor=floor, ceiling=ceiling, rounds=rounds)
        for split in track(splits, "Folds", unit="folds", shown=progress)
    ]
    methods = (GIVEN, PLAN, *BASELINES)
    margins = np.full((len(methods), len(used)), math.nan)
    for split, each in zip(splits, found, strict=True):
        margins[:, split.judge] = each.margins[:, split.judge]
    known = (fold >= 0)[None, :]
    reads = wanted.measure(setting.objective, used.groups, used.group, margins[0]).hard
    result = judged(
        np.where(known, finite_losses(setting.objective, margins), math.nan), methods, used.group, used.groups, unit,
        wanted, start=start_loss(setting.objective), alone=alone, scored=np.where(known, reads(margins), math.nan),
        seed=seed,
    )  # fmt: skip
    factors = np.stack([each.factors for each in found])
    change, because = decision(result, wanted, keep="the weights")
    agreed = _agreed(factors, shares_of(feats))
    return WeightPlan(
        features=feats,
        goal=wanted,
        factors=agreed if change else np.ones(len(feats.groups)),
        found=factors,
        change=change,
        because=because,
        judged=result,
        accuracy=_accuracies(margins[:, fold >= 0], used.group[fold >= 0], len(used.groups)),
        rounds=tuple(each.rounds for each in found),
        learns=learns,
        setting=setting,
        steps=steps,
        settings=described(
            setting, learning_rate, steps=steps, seed=seed, goal=wanted.name, floor=floor, ceiling=ceiling, folds=FOLDS
        ),
    )


# one split ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What one split found."""

    factors: Float[np.ndarray, " groups"]
    margins: Float[np.ndarray, "methods n"]
    """Of every pair, at the end of each method's run."""
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One fold judges, the next one chooses, the others train."""

    feats: FeatureSet
    unit: Int[np.ndarray, " n"]
    fold: Int[np.ndarray, " n"]
    place: int
    learns: Bool[np.ndarray, " groups"]
    setting: Setting
    steps: int

    @property
    def judge(self) -> Bool[np.ndarray, " n"]:
        """The pairs that judge."""
        return self.fold == self.place

    @property
    def choose(self) -> Bool[np.ndarray, " n"]:
        """The pairs that choose."""
        return self.fold == (self.place + 1) % FOLDS

    @property
    def trained(self) -> FeatureSet:
        """The features, with all but the training pairs held out."""
        return self.feats.with_held_out(self.judge | self.choose)

    def alone(self) -> Float[np.ndarray, " n"]:
        """Loss of every judging pair where its group trains by itself; NaN where it cannot."""
        feats, found = self.trained, np.full(len(self.feats), math.nan)
        able = np.flatnonzero((shares_of(feats) > 0) & self.learns)
        ends = weighted_losses(feats, self.setting, self.steps, (feats.group[:, None] == able).astype(np.float64))
        for column, code in enumerate(able):
            inside = self.judge & (feats.group == code)
            found[inside] = ends[inside, column]
        return found

    def solved(
        self,
        goal: Goal,
        alone: Float[np.ndarray, " groups"] | None,
        *,
        floor: float,
        ceiling: float,
        rounds: int,
    ) -> Solved:
        """Search, the alternatives, and what all of them do to every pair."""
        feats, groups = self.trained, self.feats.groups
        shares, m = shares_of(feats), len(groups)
        run = partial(weighted_margins, feats, self.setting, self.steps)
        as_given = run(np.ones((len(feats), 1))).T[0]
        if not np.isfinite(as_given).all():
            raise ConfigError(
                f"the run as given diverges with learning rate {self.setting.learning_rate:g}; lower the rate"
            )
        reads = goal.measure(self.setting.objective, groups, feats.group, as_given)
        slopes = partial(self._slopes, feats, reads)

        def losses(columns: Float[np.ndarray, "m tried"]) -> Float[np.ndarray, "m tried"]:
            return self._means(reads(run(columns[feats.group]).T)).T

        given = self._means(reads(as_given[None]))[0]
        score = goal.score(groups, given, start=start_loss(self.setting.objective), alone=alone)
        free = self.learns & (shares > 0)
        simple = np.stack([np.ones(m), *evened(shares, free).values()], axis=1)
        linear = linear_programme(
            given, slopes(np.ones(m), np.eye(m)), score, shares, free, floor=floor, ceiling=ceiling
        )
        error = self._error(reads(as_given), score)
        robust, belief = self._robust(feats, reads, score, error)
        known = np.where(free & (belief > 0), belief / np.maximum(shares, 1e-300), 1.0)
        starts = np.column_stack([simple, linear, known])
        best = mirror(
            losses, slopes, score, shares, free, starts, error=error, floor=floor, ceiling=ceiling, rounds=rounds
        )  # fmt: skip
        columns = np.stack([best.factors, simple[:, 1], simple[:, 2], linear], axis=1)
        rows = [as_given, *run(columns[feats.group]).T, robust]
        return Solved(factors=best.factors, margins=np.stack(rows), rounds=len(best.scores) - 2)

    def _means(self, losses: Float[np.ndarray, "tried n"]) -> Float[np.ndarray, "tried m"]:
        """Means over the choosing pairs of each group; NaN where there is none, or the group is not chosen by."""
        found = np.full((len(losses), len(self.learns)), math.nan)
        for code, rows in enumerate(self.feats.by_group()):
            inside = rows[self.choose[rows]]
            if len(inside) and self.learns[code]:
                found[:, code] = losses[:, inside].mean(axis=1)
        return found

    def _slopes(
        self, feats: FeatureSet, reads: Measure, factors: Float[np.ndarray, " m"], sums: Float[np.ndarray, "sums m"]
    ) -> Float[np.ndarray, "sums m"]:
        m = len(factors)
        rows = np.stack([self.choose & (feats.group == code) & self.learns[code] for code in range(m)]).astype(float)
        known = rows.sum(axis=1) > 0
        means = rows[known] / rows[known].sum(axis=1, keepdims=True)
        weighted = feats.weighted(dict(zip(feats.groups, factors, strict=True)))
        of = sums[:, known] @ means
        if not reads.wanted.any():
            return sensitivity_of(weighted, self.setting, self.steps, of=of).group
        margins = weighted_margins(weighted, self.setting, self.steps, np.ones((len(feats), 1)))[:, 0]
        return sensitivity_of(weighted, self.setting, self.steps, of=of * reads.slope(margins), quantity="margin").group

    def _error(self, losses: Float[np.ndarray, " n"], score: GoalScore) -> float:
        """Standard error over units of a typical group's part of the score, on the choosing pairs."""
        errors = []
        for code, rows in enumerate(self.feats.by_group()):
            inside = rows[self.choose[rows]]
            if np.isfinite(score.scale[code]):
                errors.append(abs(score.scale[code]) * mean_of(losses[inside], self.unit[inside]).error)
        known = np.array(errors)[np.isfinite(errors)]
        return float(np.median(known)) if len(known) else 1.0

    def _robust(
        self, feats: FeatureSet, reads: Measure, score: GoalScore, error: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
        """Margins of the best group-robust run by the choosing pairs, and its groups' weights."""
        runs = [group_robust(feats, self.setting, self.steps, pace=pace) for pace in _PACES]
        values = self._means(reads(np.stack([margins for margins, _ in runs])))
        place = int(np.argmin(score.smooth(values, score.sharpest(error))[0]))
        return runs[place]


def weighted_margins(
    feats: FeatureSet, setting: Setting, steps: int, factors: Float[np.ndarray, "n runs"]
) -> Float[np.ndarray, "n runs"]:
    """Margin of every pair at the end of runs whose pairs' weights are multiplied by these factors, all in one solve.

    Args:
        feats: Features of either kind; pairs that they hold out are not trained on.
        setting: Of every run; an objective of the margin.
        steps: Of every run.
        factors: Not below 0, one column per run.

    Returns:
        Margins; NaN where a run diverges.
    """
    found = np.full(factors.shape, math.nan)
    for column, outcome in enumerate(reweighted(feats, setting, steps, factors)[1]):
        if steps in outcome.margins:
            found[:, column] = outcome.margins[steps]
    return found


def weighted_losses(
    feats: FeatureSet, setting: Setting, steps: int, factors: Float[np.ndarray, "n runs"]
) -> Float[np.ndarray, "n runs"]:
    """Loss of every pair, in nats, likewise; infinite where a run diverges."""
    return finite_losses(setting.objective, weighted_margins(feats, setting, steps, factors))


# small parts --------------------------------------------------------------------------------------------------------


def _dealt(
    feats: FeatureSet, unit: Int[np.ndarray, " n"], seed: int
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " groups"]]:
    """Fold of each pair, -1 for those of groups with too few units; and which groups have enough."""
    fold = deal(feats, unit, FOLDS, seed)
    learns = np.zeros(len(feats.groups), dtype=bool)
    for code, rows in enumerate(feats.by_group()):
        learns[code] = len(np.unique(unit[rows])) >= FOLDS
    fold[np.isin(unit, unit[~learns[feats.group]])] = -1
    return fold, learns


def _accuracies(
    margins: Float[np.ndarray, "ways n"], group: Int[np.ndarray, " n"], m: int
) -> Float[np.ndarray, "ways m"]:
    """Share of each group's pairs with a margin above 0, half of those at 0; NaN where there is none."""
    inside = group[:, None] == np.arange(m)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits(margins) @ inside / inside.sum(axis=0)


def evened(
    shares: Float[np.ndarray, " m"], free: Bool[np.ndarray, " m"]
) -> dict[Literal["stratified", "tempered"], Float[np.ndarray, " m"]]:
    """Factors that need no search: the same total for every free group, and the square root of that.

    Example:
        >>> found = evened(np.array([0.8, 0.2]), np.ones(2, dtype=bool))
        >>> {name: each.round(2).tolist() for name, each in found.items()}
        {'stratified': [0.62, 2.5], 'tempered': [0.83, 1.67]}
    """
    even = np.where(free, 1 / np.maximum(shares, 1e-300), 1 / (shares[free].sum() / free.sum()))
    return {
        "stratified": balanced(even, shares, 1e-9, 1e9),
        "tempered": balanced(even**0.5, shares, 1e-9, 1e9),
    }


def shares_of(feats: FeatureSet) -> Float[np.ndarray, " groups"]:
    """Of each group in the training weight."""
    train = ~feats.held_out
    mass = np.bincount(feats.group[train], weights=feats.weight[train], minlength=len(feats.groups))
    return mass / mass.sum()


def _agreed(found: Float[np.ndarray, "folds m"], shares: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Geometric mean over folds, with mean 1 over the training weight."""
    factors = np.exp(np.log(found).mean(axis=0))
    return factors / float(shares @ factors)
