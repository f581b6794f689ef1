"""Which pairs to leave out, turn round or count half: every rule simulated on this data against random pairs.

Whole units are dealt into folds. In turn one fold judges, the next one chooses, three train and are scored
(`prefdyn.planning.rules`). What is proposed is what the choosing fold found best, and it is proposed only where, on
pairs that had no say, it is better than all pairs as given, and than as many random pairs left out, with whole
intervals. Pairs that the features hold out take no part.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from prefdyn._checks import between
from prefdyn._csv import write_csv
from prefdyn._json import plain, write_json
from prefdyn._random import stream
from prefdyn._showing import Tabular
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.write import write
from prefdyn.diagnostics.units import units
from prefdyn.diagnostics.wrong_labels import WrongShare, wrong_share
from prefdyn.dynamics.adjoint import HeadRun
from prefdyn.dynamics.crossfit import FOLDS, deal
from prefdyn.dynamics.datamodel import reweighted
from prefdyn.dynamics.grid import Setting
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.planning.judging import Spanned, mean_gain
from prefdyn.planning.recipe import described, plan_setting, train_flags
from prefdyn.planning.rules import RuleScores, scores, trained_folds
from prefdyn.planning.summary import header
from prefdyn.settings import opened

SHARES = (0.05, 0.1, 0.2)
ACTIONS = {"drop": 0.0, "half": 0.5, "flip": -1.0}
"""What becomes of a pair's weight; below 0 its label is turned round."""
_TURNED = ("value_all", "loss_after")
"""Rules by which pairs are also turned round or counted half."""
RANDOM = "random"
_DRAWS = 4
WORTH = 0.05
"""Least gain that is worth a change, of the mean loss as given."""
_FEWEST_UNITS = 50
_MOST_WRONG = 0.4
"""Beyond it what allows for wrong labels is all noise."""


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """One thing to do: an action on the share of the training pairs that a rule names first."""

    action: str
    rule: str
    share: float

    def __str__(self) -> str:
        return f"{self.action} {self.share:.0%} by {self.rule}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One way on the judging pairs."""

    way: Way
    gain: Spanned
    """Over all pairs as given."""
    over_random: Spanned
    """Over as many random pairs left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectPlan(Tabular):
    """A proposal of pairs to leave out, turn round or count half. `rows()` per group; `write(folder)`."""

    features: FeatureSet
    change: bool
    because: str
    way: Way | None
    """What the folds found best on choosing pairs; None: nothing."""
    picked: tuple[Way | None, ...]
    """What each fold chose by itself."""
    gain: Spanned
    """Of what each fold chose, on its judging pairs."""
    over_random: Spanned
    tried: tuple[Tried, ...]
    named: Bool[np.ndarray, " n"]
    """Pairs that the best way is about, whether or not it is worth it."""
    scores: Mapping[str, Float[np.ndarray, " n"]]
    """Of every rule; higher is named first. NaN for pairs that took no part."""
    margin: Float[np.ndarray, " n"]
    """Cross-fitted."""
    wrong: WrongShare | None
    believed: float
    """Share of wrong labels that the judging losses allow for: the estimate where its interval leaves out 0, else 0."""
    wrong_by_group: Mapping[str, WrongShare]
    loss: Float[np.ndarray, "2 groups"]
    """As given, and as the folds chose; on judging pairs."""
    setting: Setting
    steps: int
    settings: Mapping[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group: pairs, named pairs, agreement, share of wrong labels, losses."""
        feats, rows = self.features, []
        for code, name in enumerate(feats.groups):
            inside = (feats.group == code) & ~feats.held_out
            known = self.margin[inside & np.isfinite(self.margin)]
            row: dict[str, Any] = {
                "name": name, "pairs": int(inside.sum()), "named": int(self.named[inside].sum()),
                "agrees": float((known > 0).mean()) if len(known) else None,
            }  # fmt: skip
            if name in self.wrong_by_group:
                row |= _shares(self.wrong_by_group[name])
            row |= {"loss_as_given": self.loss[0, code], "loss_plan": self.loss[1, code]}
            rows.append(plain(row))
        return rows

    def pairs(self) -> list[dict[str, Any]]:
        """One dictionary per named pair, the first to go first: id, group, margin, what each rule says."""
        if self.way is None:
            return []
        order = np.flatnonzero(self.named)
        order = order[np.argsort(-self.scores[self.way.rule][order], kind="stable")]
        return [
            plain({
                "id": str(self.features.id[row]), "group": self.features.groups[self.features.group[row]],
                "action": self.way.action if self.change else "keep", "margin": self.margin[row],
                **{name: values[row] for name, values in self.scores.items()},
            })
            for row in order
        ]  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        part = {
            "change": self.change, "because": self.because,
            "way": None if self.way is None else _way(self.way),
            "picked": [None if way is None else str(way) for way in self.picked],
            **self.gain.row("gain"), **self.over_random.row("over_random"),
            "tried": [
                {**_way(one.way), **one.gain.row("gain"), **one.over_random.row("over_random")}
                for one in self.tried
            ],
            "wrong": None if self.wrong is None else _shares(self.wrong), "believed": self.believed,
            "pairs": self.pairs()[:200],
        }  # fmt: skip
        return plain({
            **header(self.features, command="plan", settings=self.settings),
            "groups": self.rows(), "plan": {"select": part}, "bounds": [], "warnings": [], "timings": {},
        })  # fmt: skip

    def write(
        self,
        folder: Path,
        *,
        texts: PreferenceDataset | None = None,
        flags: Mapping[str, Any] | None = None,
        final: Path | None = None,
    ) -> None:
        """Write summary.json, select.csv and, where texts are known, dataset.jsonl with plan.yaml to train on it.

        Args:
            folder: An existing folder.
            texts: The pairs.
            flags: Of the command, that say which model; plan.yaml holds them.
            final: Where the folder will lie; plan.yaml names the dataset there.
        """
        write_json(folder / "summary.json", self.summary())
        if rows := self.pairs():
            write_csv(pa.Table.from_pylist(rows), folder / "select.csv")
        if texts is None:
            return
        write(self.selected(texts), folder / "dataset.jsonl")
        if flags is None or flags.get("features") is not None:
            return
        kept = {name: value for name, value in flags.items() if name not in _READ}
        kept["data"] = [str((final or folder) / "dataset.jsonl")]
        (folder / "plan.yaml").write_text(
            train_flags({}, self.setting, self.steps, kept, change=False), encoding="utf-8"
        )

    def selected(self, texts: PreferenceDataset) -> PreferenceDataset:
        """The pairs after the proposal; all of them where nothing is to be changed."""
        if not self.change or self.way is None:
            return texts
        ids = np.isin(np.asarray(texts.table["id"].to_pylist()), self.features.id[self.named])
        match self.way.action:
            case "drop":
                return texts.select(mask=~ids)
            case "flip":
                return texts.flipped(rows=ids)
            case _:
                return texts.reweighted(np.where(ids, ACTIONS[self.way.action], 1.0))


_READ = ("data", "groups", "limit", "group_column", "columns", "template", "skip_bad_rows", "group_weights", "split")
"""Flags of reading that dataset.jsonl makes idle."""


@opened(run=HeadRun)
def plan_select(
    feats: FeatureSet,
    *,
    shares: Sequence[float] = SHARES,
    run: HeadRun,
    progress: bool = True,
) -> SelectPlan:
    """Pairs to leave out, turn round or count half, if that is better on pairs that had no say.

    Args:
        feats: Features of either kind. Pairs that they hold out take no part.
        shares: Of the training pairs, that are tried.
        run: How the head is trained in every run, by a loss of the margin; objective, beta, learning_rate, steps, seed
            and its other fields can be given as keywords. The rate "auto" is half of the largest stable step of
            the data as given; the seed deals units into folds, draws random pairs and minibatches.
        progress: Show bars on stderr where it is a terminal.

    Raises:
        ConfigError: A setting is out of range, or the run as given diverges.
        DataError: There are fewer than 50 units.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(100, groups=2, width=8, half_gap=[1.5, 1.0])
        >>> plan_select(feats, steps=20, progress=False).change
        False
    """
    for share in shares:
        between(share, 0.0, 0.5, name="share")
    learning_rate, steps, seed = run.learning_rate, run.steps, run.seed
    setting = plan_setting(feats, "pairs are selected", run)
    used = feats.select(~feats.held_out)
    unit = units(used)
    if (count := len(np.unique(unit))) < _FEWEST_UNITS:
        raise DataError(
            f"{count} units (pairs that hang together count once) are too few to select by; give at least "
            f"{_FEWEST_UNITS}"
        )
    fold = deal(used, unit, FOLDS, seed)
    scored = scores(used, setting, steps, fold, progress=progress)
    margin = np.full(len(feats), np.nan)
    margin[~feats.held_out] = _mean(scored.margin)
    everyone = np.full(len(feats), -1)
    everyone[~feats.held_out] = unit
    members = [rows[~feats.held_out[rows]] for rows in feats.by_group()]
    wrong = wrong_share(margin, members, everyone)
    ways = _ways(scored, shares)
    believed = wrong.share if wrong is not None and wrong.low > 0 else 0.0
    judge, choose = _runs(used, setting, steps, fold, scored, ways, min(believed, _MOST_WRONG), seed)
    if not np.isfinite(judge[0][fold >= 0]).all():
        raise ConfigError(f"the run as given diverges with learning rate {setting.learning_rate:g}; lower the rate")
    board = _Board(used, unit, fold, ways, judge, choose)
    picked = tuple(board.best(fold == (judged + 1) % FOLDS) for judged in range(FOLDS))
    way = board.best(fold >= 0)
    planned, random = board.as_picked(picked)
    gain, over = board.gain(judge[0], planned), board.gain(random, planned)
    change, because = _decision(way, gain, over, WORTH * board.mean(judge[0], fold >= 0))
    final = {name: np.full(len(feats), np.nan) for name in scored.by_fold}
    for name, values in final.items():
        values[~feats.held_out] = _mean(scored.by_fold[name])
    found = {
        name: each
        for name, rows in zip(feats.groups, members, strict=True)
        if (each := wrong_share(margin, [rows], everyone)) is not None
    }
    return SelectPlan(
        features=feats,
        change=change,
        because=because,
        way=way,
        picked=picked,
        gain=gain,
        over_random=over,
        tried=tuple(board.tried()),
        named=np.zeros(len(feats), dtype=bool) if way is None else _first(final[way.rule], way.share),
        scores=final,
        margin=margin,
        wrong=wrong,
        believed=believed,
        wrong_by_group=found,
        loss=np.stack([board.by_group(judge[0]), board.by_group(planned)]),
        setting=setting,
        steps=steps,
        settings=described(setting, learning_rate, steps=steps, seed=seed, folds=FOLDS, shares=list(shares)),
    )


# runs ---------------------------------------------------------------------------------------------------------------


def _ways(scored: RuleScores, shares: Sequence[float]) -> list[Way | None]:
    """As given, everything that may be proposed, and random pairs left out, which may not."""
    found: list[Way | None] = [None]
    for rule in scored.by_fold:
        for action in ACTIONS if rule in _TURNED else ("drop",):
            found += [Way(action, rule, share) for share in shares]
    return found + [Way("drop", RANDOM, share) for share in shares]


def _runs(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    fold: Int[np.ndarray, " n"],
    scored: RuleScores,
    ways: Sequence[Way | None],
    wrong: float,
    seed: int,
) -> tuple[Float[np.ndarray, "ways n"], Float[np.ndarray, "ways n"]]:
    """Loss of every pair under every way, in the run that it judges and in the one that it chooses by."""
    rng = stream(seed, "select", "random")
    columns: dict[bool, list[np.ndarray]] = {False: [], True: []}
    of: dict[bool, list[tuple[int, int, float]]] = {False: [], True: []}
    for judged in range(FOLDS):
        trained = np.isin(fold, trained_folds(judged))
        for place, way in enumerate(ways):
            for _ in range(_DRAWS if way is not None and way.rule == RANDOM else 1):
                weight = trained.astype(np.float64)
                turned = way is not None and way.action == "flip"
                if way is not None:
                    score = rng.random(len(feats)) if way.rule == RANDOM else scored.by_fold[way.rule][judged]
                    weight[_first(np.where(trained, score, np.nan), way.share)] = ACTIONS[way.action]
                columns[turned].append(weight)
                of[turned].append((judged, place, 1 / _DRAWS if way is not None and way.rule == RANDOM else 1.0))
    judge, choose = np.zeros((len(ways), len(feats))), np.zeros((len(ways), len(feats)))
    judge[:, fold < 0] = choose[:, fold < 0] = np.nan
    for turned, weights in columns.items():
        if not weights:
            continue
        ends = _ends(feats, setting, steps, np.stack(weights, axis=1), wrong, turned=turned)
        for (judged, place, part), end in zip(of[turned], ends, strict=True):
            for role, code in ((judge, judged), (choose, (judged + 1) % FOLDS)):
                mine = fold == code
                role[place, mine] += part * end[mine]
    return judge, choose


def _ends(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    weights: Float[np.ndarray, "n runs"],
    wrong: float,
    *,
    turned: bool,
) -> list[Float[np.ndarray, " n"]]:
    """Last loss of every pair, run by run; pairs of a weight below 0 train with their label turned round."""
    n, both = len(feats), feats.with_held_out(np.zeros(len(feats), dtype=bool))
    if turned:
        both = both.select(np.tile(np.arange(n), 2)).flipped(np.arange(2 * n) >= n)
        weights = np.concatenate([np.maximum(weights, 0.0), np.maximum(-weights, 0.0)])
    outcomes = reweighted(both, setting, steps, weights)[1]
    return [
        allowing(setting.objective, each.margins[steps][:n], wrong) if steps in each.margins else np.full(n, np.inf)
        for each in outcomes
    ]


def allowing(objective: Objective, margins: Float[np.ndarray, " n"], wrong: float) -> Float[np.ndarray, " n"]:
    r"""Losses whose mean is that of the true labels, if a share of the labels was turned round by lot.

    $((1 - \rho)\,f(r) - \rho\,f(-r)) / (1 - 2\rho)$. Judged by labels some of which are wrong, a run that is less sure
    looks better than it is, and leaving wrong labels out looks harmful.

    Reference:
        Natarajan et al. (2013), "Learning with noisy labels", Lemma 1.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> r, noisy = np.array([2.0]), lambda r: 0.9 * allowing(DPO(), r, 0.1) + 0.1 * allowing(DPO(), -r, 0.1)
        >>> bool(np.isclose(noisy(r), DPO().loss(r)))
        True
    """
    if wrong == 0:
        return objective.loss(margins)
    return ((1 - wrong) * objective.loss(margins) - wrong * objective.loss(-margins)) / (1 - 2 * wrong)


def _mean(values: Float[np.ndarray, "folds n"]) -> Float[np.ndarray, " n"]:
    """Over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _first(score: Float[np.ndarray, " n"], share: float) -> Bool[np.ndarray, " n"]:
    """The share of the known pairs that a score puts first."""
    known = np.isfinite(score)
    order = np.argsort(np.where(known, -score, np.inf), kind="stable")
    found = np.zeros(len(score), dtype=bool)
    found[order[: round(share * int(known.sum()))]] = True
    return found


# judging ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Board:
    """Losses of all ways, and what follows from them."""

    feats: FeatureSet
    unit: Int[np.ndarray, " n"]
    fold: Int[np.ndarray, " n"]
    ways: Sequence[Way | None]
    judge: Float[np.ndarray, "ways n"]
    choose: Float[np.ndarray, "ways n"]

    def place(self, rule: str, share: float) -> int:
        return self.ways.index(Way("drop", rule, share))

    def best(self, inside: Bool[np.ndarray, " n"]) -> Way | None:
        """The way with the least mean over groups on these choosing pairs, if under as given and random pairs."""
        means = np.array([self.mean(losses, inside) for losses in self.choose])
        found, least = None, means[0]
        for way, mean in zip(self.ways, means, strict=True):
            if way is not None and way.rule != RANDOM and mean < min(least, means[self.place(RANDOM, way.share)]):
                found, least = way, mean
        return found

    def mean(self, losses: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " n"]) -> float:
        """Mean over groups of their means."""
        group = self.feats.group[inside]
        count = np.bincount(group)
        with np.errstate(invalid="ignore"):
            return float(np.mean((np.bincount(group, weights=losses[inside]) / np.maximum(count, 1))[count > 0]))

    def by_group(self, losses: Float[np.ndarray, " n"]) -> Float[np.ndarray, " groups"]:
        """Means of the groups; NaN where none is judged."""
        return np.array([
            losses[rows[self.fold[rows] >= 0]].mean() if (self.fold[rows] >= 0).any() else math.nan
            for rows in self.feats.by_group()
        ])  # fmt: skip

    def as_picked(self, picked: Sequence[Way | None]) -> tuple[np.ndarray, np.ndarray]:
        """Losses of every pair where each fold does what it picked, and where as many random pairs are left out."""
        planned, random = self.judge[0].copy(), self.judge[0].copy()
        for judged, way in enumerate(picked):
            if way is not None:
                mine = self.fold == judged
                planned[mine] = self.judge[self.ways.index(way), mine]
                random[mine] = self.judge[self.place(RANDOM, way.share), mine]
        return planned, random

    def gain(self, old: Float[np.ndarray, " n"], new: Float[np.ndarray, " n"]) -> Spanned:
        """How much less the mean over groups of the second losses is, on the same pairs."""
        return mean_gain(old, new, self.feats.group, self.unit, self.fold >= 0)

    def tried(self) -> list[Tried]:
        """Every way on the judging pairs, the best first."""
        found = [
            Tried(
                way=way, gain=self.gain(self.judge[0], losses),
                over_random=self.gain(self.judge[self.place(RANDOM, way.share)], losses),
            )
            for way, losses in zip(self.ways, self.judge, strict=True)
            if way is not None and way.rule != RANDOM
        ]  # fmt: skip
        return sorted(found, key=lambda one: -one.gain.value)


def _decision(way: Way | None, gain: Spanned, over: Spanned, worth: float) -> tuple[bool, str]:
    """Whether to change anything, and why."""
    if way is None:
        return False, "nothing tried was better than all pairs as given on the pairs that choose"
    told = f"by {abs(gain.value):.4f} on pairs that took no part, 90 % interval {gain.low:+.4f} to {gain.high:+.4f}"
    word = "better" if gain.value >= 0 else "worse"
    if gain.low <= 0:
        return False, f"the mean loss over groups becomes {word} {told}: keep every pair"
    if over.low <= 0:
        return False, (
            f"the mean loss over groups becomes better {told}, but not beyond what as many random pairs left out do: "
            "keep every pair"
        )
    if gain.value < worth:
        return (
            False,
            f"the mean loss over groups becomes better {told}, under {WORTH:.0%} of what it is: keep every pair",
        )
    return True, f"the mean loss over groups becomes better {told}"


def _way(way: Way) -> dict[str, Any]:
    return {"action": way.action, "rule": way.rule, "share": way.share}


def _shares(found: WrongShare) -> dict[str, float]:
    return {"wrong": found.share, "wrong_low": found.low, "wrong_high": found.high}
