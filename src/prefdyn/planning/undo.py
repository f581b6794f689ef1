r"""What it takes to undo: how many pairs and steps of the opposite labels bring a group back to where it began.

A run is made (or given), and then each group's pairs are trained on once more with their labels turned round. As when
somebody fine-tunes a trained model, the reference is the model that this begins from, so margins against it begin at 0;
with frozen features the head's path is then that of a run of its own, and margins against the *first* reference are
those of the two runs, one minus the other. A group is back where its mean loss on pairs of neither run is at least what
it was before training.

Without a given run everything is cross-fitted: whole units are dealt into folds, and each is judged by runs that never
saw it. A given run is judged by the pairs that it held out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from prefdyn._csv import write_csv
from prefdyn._json import plain, write_json
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn._showing import Tabular, by_column
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.adjoint import HeadRun
from prefdyn.dynamics.crossfit import FOLDS, deal
from prefdyn.dynamics.datamodel import reweighted
from prefdyn.dynamics.grid import Setting
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.units import redrawn
from prefdyn.planning.goals import start_loss
from prefdyn.planning.judging import LEVEL, Spanned
from prefdyn.planning.recipe import described, plan_setting
from prefdyn.planning.summary import header
from prefdyn.settings import opened

LONGEST = 4
"""Steps of the opposite labels that are looked at, over those of the run."""
_POINTS = 40
_SIZES = 7
"""Steps, and numbers of pairs, that are looked at."""
RESAMPLES = 400
_FEWEST = 5
"""Units that judge a group at least."""
_WORK = 6e10
"""Multiplications up to which it is measured what undoing one group does to the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What it takes to undo one group."""

    pairs: int
    """That the run trains on (without a given run: four fifths of the group's)."""
    after: Spanned
    """Held-out loss after training, nats."""
    accuracy: float
    """Share of held-out margins above 0 after training."""
    steps: Spanned
    """Of the opposite labels of all pairs until the loss is what it was before training; NaN: more than looked at."""
    accuracy_steps: float
    """The same until half of the margins are above 0."""
    needed: Spanned
    """Fewest pairs that bring it back within twice as many steps as all of them take."""
    forward: float
    """Steps of the head, in training, to the loss after training; NaN where it does not come there."""
    opposite: float
    """Held-out loss after as many opposite steps as training took, with all pairs."""
    opposite_accuracy: float
    harmed: str
    """The other group whose loss rises most at the step where this one is back; empty: not measured, or none."""
    harm: float

    @property
    def ease(self) -> Spanned:
        """Steps to undo over steps to learn; small: fragile."""
        value, low, high = (number / self.forward for number in (self.steps.value, self.steps.low, self.steps.high))
        return Spanned(value=value, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoPlan(Tabular):
    """What it takes to undo each group. `rows()` per group, the most fragile first; `write(folder)`."""

    features: FeatureSet
    groups: Mapping[str, Undone | None]
    """By name; None where too few units judge, or nothing was learned."""
    start: float
    """Loss before training, nats."""
    exact: bool
    """Whether the head's own path is told; else it stands for adapters, or is first order, of longer answers."""
    run: str | None
    """What was trained: the `tune` of a given run; None where the run is simulated."""
    steps: int
    settings: Mapping[str, Any]

    @property
    def fragile(self) -> list[str]:
        """Names of the groups that are undone at all, the most fragile first."""
        known = {name: each.ease.value for name, each in self.groups.items() if each is not None}
        return sorted((name for name, ease in known.items() if math.isfinite(ease)), key=lambda name: known[name])

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: loss before, after and undone, steps and pairs to undo it with intervals."""
        order = self.fragile
        rest = [name for name in self.features.groups if name not in order]
        return [plain(self._row(name)) for name in [*order, *rest]]

    def _row(self, name: str) -> dict[str, Any]:
        code = self.features.groups.index(name)
        count = int(((self.features.group == code) & ~self.features.held_out).sum())
        each = self.groups[name]
        row: dict[str, Any] = {"name": name, "pairs": count, "loss_before": self.start}
        if each is None:
            return row
        return row | {
            "trained_pairs": each.pairs, **each.after.row("loss_after"), "accuracy_after": each.accuracy,
            **each.steps.row("steps"), **each.ease.row("ease"), "accuracy_steps": each.accuracy_steps,
            **each.needed.row("needed"), "steps_to_learn": each.forward, "loss_undone": each.opposite,
            "accuracy_undone": each.opposite_accuracy, "harmed": each.harmed, "harm": each.harm,
        }  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        part = {
            "fragile": self.fragile, "exact": self.exact, "run": self.run, "steps": self.steps,
            "most_steps": LONGEST * self.steps, "start": self.start,
        }  # fmt: skip
        return plain({
            **header(self.features, command="plan", settings=self.settings),
            "groups": self.rows(), "plan": {"undo": part}, "bounds": [], "warnings": [], "timings": {},
        })  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write summary.json and undo.csv into an existing folder."""
        write_json(folder / "summary.json", self.summary())
        write_csv(pa.table(by_column(self.rows())), folder / "undo.csv")


@opened(run=HeadRun)
def plan_undo(
    feats: FeatureSet,
    *,
    margins: Float[np.ndarray, " n"] | None = None,
    tune: str | None = None,
    run: HeadRun,
    progress: bool = True,
) -> UndoPlan:
    """How many pairs and steps of the opposite labels bring each group back to its loss before training.

    Args:
        feats: Features of either kind. Without `margins`, pairs that they hold out take no part.
        margins: Of every pair at the end of a run that was trained; it is judged by the pairs that `feats` holds out.
        tune: What that run trained, such as "lora"; "last-layer" is the head.
        run: How the head is trained, by a loss of the margin; objective, beta, learning_rate, steps, seed and its other
            fields can be given as keywords. Full batches and a constant rate alone: what is undone has no known length.
            Opposite labels are looked at for four times as many steps; the seed deals units into folds, draws parts and
            resamples.
        progress: Show a bar on stderr where it is a terminal.

    Raises:
        ConfigError: A setting is out of range, or not one that can be undone; or the run diverges.
        DataError: No group has five units that judge it.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(100, groups=2, width=8, half_gap=[2.0, 1.0], held_out=0.0)
        >>> plan_undo(feats, steps=30, progress=False).fragile
        ['group 0', 'group 1']
    """
    learning_rate, steps, seed = run.learning_rate, run.steps, run.seed
    if run.schedule is not None or run.batch_size != "full":
        raise ConfigError("how far labels are undone is told for full batches at a constant rate: leave "
                          "--batch-size and --schedule")  # fmt: skip
    setting = plan_setting(feats, "what undoes a run is told", run)
    used = feats if margins is not None else feats.select(~feats.held_out)
    unit = units(used)
    if margins is None:
        fold = deal(used, unit, FOLDS, seed)
    else:
        fold = np.where(feats.held_out, 0, -1)
    bare = used.with_held_out(np.zeros(len(used), dtype=bool))
    undoing = _Undoing(bare, unit, fold, setting, steps, seed)
    judging = [len(np.unique(unit[rows[fold[rows] >= 0]])) for rows in used.by_group()]
    if max(judging) < _FEWEST:
        raise DataError(
            f"no group has {_FEWEST} units to judge by"
            + ("" if margins is None else "; the run must hold pairs out (--split)")
        )
    undoing.learn(margins)
    found: dict[str, Undone | None] = {}
    for code, name in enumerate(track(used.groups, "Groups", unit="groups", shown=progress)):
        found[name] = undoing.group(code) if judging[code] >= _FEWEST else None
    return UndoPlan(
        features=feats,
        groups=found,
        start=undoing.start,
        exact=feats.kind == "answers" and tune in (None, "last-layer"),
        run=tune,
        steps=steps,
        settings=described(setting, learning_rate, steps=steps, seed=seed, folds=1 if margins is not None else FOLDS),
    )


class _Undoing:
    """Runs there and back, and what is read off them."""

    def __init__(
        self,
        feats: FeatureSet,
        unit: Int[np.ndarray, " n"],
        fold: Int[np.ndarray, " n"],
        setting: Setting,
        steps: int,
        seed: int,
    ) -> None:
        self.feats, self.unit, self.fold = feats, unit, fold
        self.setting, self.steps, self.seed = setting, steps, seed
        self.turned = feats.flipped(np.ones(len(feats), dtype=bool))
        self.start = start_loss(setting.objective)
        self.folds = sorted({int(each) for each in fold if each >= 0})
        at = np.geomspace(1, LONGEST * steps, _POINTS).round().astype(int)
        self.at = np.unique(np.concatenate([[0, steps], at])).astype(np.float64)
        self.there = np.zeros((0, 0))
        self.margin = np.zeros(0)

    def learn(self, margins: Float[np.ndarray, " n"] | None) -> None:
        """Margins of every pair after training in runs that did not see it, and its loss on the way there."""
        kept = [int(step) for step in self.at if step <= self.steps]
        masks = (self.fold[:, None] != self.folds).astype(np.float64)
        outcomes = reweighted(self.feats, self.setting, self.steps, masks, kept=kept)[1]
        self.there = np.full((len(kept), len(self.feats)), math.nan)
        own = np.full(len(self.feats), math.nan)
        for code, outcome in zip(self.folds, outcomes, strict=True):
            mine = self.fold == code
            if self.steps not in outcome.margins:
                raise ConfigError(f"the run diverges with learning rate {self.setting.learning_rate:g}; lower the rate")
            for place, step in enumerate(kept):
                self.there[place, mine] = self.setting.objective.loss(outcome.margins[step][mine])
            own[mine] = outcome.margins[self.steps][mine]
        self.margin = own if margins is None else margins

    def group(self, code: int) -> Undone | None:
        """One group there and back; None where its loss did not fall with the whole interval."""
        rows = np.flatnonzero(self.feats.group == code)
        judged = rows[self.fold[rows] >= 0]
        again = _Resampled(self.unit[judged], stream(self.seed, "undo", self.feats.groups[code]))
        after = again.mean(self.setting.objective.loss(self.margin[judged])[:, None])
        low, high = np.percentile(after[1:, 0], LEVEL)
        if not high < self.start:
            return None
        sizes, parts = self._parts(rows)
        curves, hits = self._back(rows, [part[-1:] for part in parts], [int(step) for step in self.at])
        curves, hits = curves[..., 0].T, hits[..., 0].T
        back = _reached(self.at, again.mean(curves), self.start)
        needed = np.full(len(back), math.nan)
        if math.isfinite(back[0]):
            ends, _ = self._back(rows, parts, [math.ceil(2 * back[0])])
            needed = _reached(np.log(sizes), again.mean(ends[0]), self.start)
        fell, went = -self.there[:, judged].mean(axis=1), self.at[self.at <= self.steps]
        forward = _reached(went, fell[None], -float(after[0, 0]) - 1e-12)[0]
        place = int(np.flatnonzero(self.at == self.steps)[0])
        steps = _spanned(back)
        harmed, harm = self._harm(code, rows, steps.value)
        return Undone(
            pairs=round(float(np.mean([part[-1].sum() for part in parts]))),
            after=Spanned(value=float(after[0, 0]), low=float(low), high=float(high)),
            accuracy=float((self.margin[judged] > 0).mean()),
            steps=steps,
            accuracy_steps=float(_reached(self.at, -hits.mean(axis=0)[None], -0.5)[0]),
            needed=_spanned(np.exp(needed)),
            forward=float(forward),
            opposite=float(curves[:, place].mean()),
            opposite_accuracy=float(hits[:, place].mean()),
            harmed=harmed,
            harm=harm,
        )

    def _parts(
        self, rows: Int[np.ndarray, " g"]
    ) -> tuple[Float[np.ndarray, " sizes"], list[list[Bool[np.ndarray, " g"]]]]:
        """Mean numbers of pairs, and for each fold nested parts of the group's other pairs, whole units by lot."""
        found, name = [], self.feats.groups[self.feats.group[rows[0]]]
        for code in self.folds:
            trained = self.fold[rows] != code
            order = stream(self.seed, "undo", "parts", name, str(code)).permutation(np.unique(self.unit[rows[trained]]))
            counts = np.unique(np.geomspace(1, len(order), _SIZES).round().astype(int))
            counts = np.concatenate([counts, np.full(_SIZES - len(counts), counts[-1])])
            found.append([trained & np.isin(self.unit[rows], order[:count]) for count in counts])
        sizes = np.array([[part.sum() for part in parts] for parts in found]).mean(axis=0)
        return sizes, found

    def _back(
        self, rows: Int[np.ndarray, " g"], parts: Sequence[Sequence[np.ndarray]], at: Sequence[int]
    ) -> tuple[Float[np.ndarray, "steps j parts"], Float[np.ndarray, "steps j parts"]]:
        """Loss and hits of the judged pairs at some steps of the opposite labels of each part, fold by fold."""
        own, width = self.turned.select(rows), len(parts[0])
        masks = np.stack([each for part in parts for each in part], axis=1).astype(np.float64)
        outcomes = reweighted(own, self.setting, max(1, at[-1]), masks, kept=at)[1]
        losses = np.full((len(at), len(rows), width), math.nan)
        hits = losses.copy()
        for place, code in enumerate(self.folds):
            mine = self.fold[rows] == code
            for column, outcome in enumerate(outcomes[place * width : (place + 1) * width]):
                for moment, step in enumerate(at):
                    if step in outcome.margins:
                        left = self.margin[rows[mine]] - outcome.margins[step][mine]
                        losses[moment, mine, column] = self.setting.objective.loss(left)
                        hits[moment, mine, column] = left > 0
        inside = self.fold[rows] >= 0
        return losses[:, inside], hits[:, inside]

    def _harm(self, code: int, rows: Int[np.ndarray, " g"], steps: float) -> tuple[str, float]:
        """The other group whose judged loss rises most where this one is back, by the first fold's run."""
        feats, mine = self.feats, self.fold == self.folds[0]
        if not math.isfinite(steps) or len(feats.groups) < 2:
            return "", math.nan
        count = max(1, round(steps))
        if len(feats.groups) * 4.0 * len(feats) * feats.kernel_width * count > _WORK:
            return "", math.nan
        mask = np.zeros(len(feats))
        mask[rows] = ~mine[rows]
        outcome = reweighted(self.turned, self.setting, count, mask[:, None])[1][0]
        if count not in outcome.margins:
            return "", math.nan
        f = self.setting.objective.loss
        rise = f(self.margin[mine] - outcome.margins[count][mine]) - f(self.margin[mine])
        group = feats.group[mine]
        means = {
            other: float(rise[group == other].mean()) for other in np.unique(group) if other != code
        }  # fmt: skip
        if not means:
            return "", math.nan
        worst = max(means, key=lambda other: means[other])
        return (feats.groups[worst], means[worst]) if means[worst] > 0 else ("", means[worst])


class _Resampled:
    """Means over pairs, and over redraws of their units."""

    def __init__(self, unit: Int[np.ndarray, " j"], rng: np.random.Generator) -> None:
        _, self.code = np.unique(unit, return_inverse=True)
        count = int(self.code.max()) + 1
        self.times = redrawn(count, RESAMPLES, rng)

    def mean(self, values: Float[np.ndarray, "j k"]) -> Float[np.ndarray, "draws k"]:
        """The mean of all pairs first, then those of the redraws."""
        sums = np.stack([np.bincount(self.code, weights=column) for column in values.T], axis=1)
        size = np.bincount(self.code)
        drawn = (self.times @ sums) / (self.times @ size)[:, None]
        return np.concatenate([values.mean(axis=0)[None], drawn])


def _reached(
    at: Float[np.ndarray, " k"], values: Float[np.ndarray, "draws k"], level: float
) -> Float[np.ndarray, " draws"]:
    """Where each row first comes up to a level, by straight lines between its points; NaN where it never does.

    Example:
        >>> _reached(np.array([0.0, 1, 3]), np.array([[0.0, 1, 3], [5, 0, 0], [0, 0, 0]]), 2.0).tolist()
        [2.0, 0.0, nan]
    """
    over = values >= level
    place = over.argmax(axis=1)
    row = np.arange(len(values))
    before = np.maximum(place - 1, 0)
    low, high = values[row, before], values[row, place]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(place > 0, (level - low) / (high - low), 0.0)
    part = np.where(np.isfinite(part), part, 1.0)
    return np.where(over.any(axis=1), at[before] + part * (at[place] - at[before]), math.nan)


def _spanned(drawn: Float[np.ndarray, " draws"]) -> Spanned:
    """The first as the value, percentiles of the others; those that are not reached count as beyond every number."""
    low, high = np.quantile(np.where(np.isnan(drawn[1:]), np.inf, drawn[1:]), np.array(LEVEL) / 100, method="nearest")
    return Spanned(value=float(drawn[0]), low=_finite(low), high=_finite(high))


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else math.nan
