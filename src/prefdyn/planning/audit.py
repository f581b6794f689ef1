"""The audit: a dataset and a model in; what DPO will learn first, what it will leave behind, and how fast, out."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy import stats

from prefdyn._checks import at_least
from prefdyn._progress import frameworks, step
from prefdyn._showing import Pictured
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import CONTRADICTING, NEARLY, Finding, preflight
from prefdyn.data.split import held_out_mask
from prefdyn.diagnostics.controlled import controlled, controlled_chosen
from prefdyn.diagnostics.displacement import Displacement, displacement
from prefdyn.diagnostics.labels import LabelCheck, check_labels
from prefdyn.diagnostics.many import shown_groups
from prefdyn.diagnostics.opposites import Opposites, opposites
from prefdyn.diagnostics.orthogonality import Embedding, Orthogonality, embedding, orthogonality
from prefdyn.diagnostics.prioritization import PairPushes, Prioritization, pair_pushes, prioritization
from prefdyn.diagnostics.probe import behind, share_test
from prefdyn.diagnostics.separation import FOR_HOLM, Separation, separation
from prefdyn.diagnostics.slices import Slices, slices
from prefdyn.diagnostics.units import units
from prefdyn.diagnostics.wording import Wording, refuse_other_pairs, wording
from prefdyn.dynamics.crossfit import ALONE, CrossFit, crossfit
from prefdyn.dynamics.descent import beyond_stable, descent, recorded_steps
from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.order import rank_correlation
from prefdyn.dynamics.problem import as_seen
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2, Objective, refuse_to_judge
from prefdyn.maths.units import Mean, joined, mean_of
from prefdyn.planning.answers import Answer, AnswerGround, answers
from prefdyn.planning.bounds import proved_parts
from prefdyn.planning.exact import ExactHead, affordable, exact_head
from prefdyn.planning.group_row import COLUMNS, GroupRow, columns_of
from prefdyn.planning.real_run import RealRun, refuse_other_data
from prefdyn.planning.summary import (
    header,
    pairs_table,
    plain,
    predictions,
    resolved_settings,
    write_files,
)
from prefdyn.planning.values import DropCheck, PairValues, drop_check, pair_values
from prefdyn.planning.verdicts import Evidence, Judgement, Thresholds, judge
from prefdyn.settings import Extraction, opened
from prefdyn.theory.bound import Bound
from prefdyn.theory.bounds import bounds
from prefdyn.training.watching import foretold_in
from prefdyn.trajectory import Trajectory

_SHOWN_PAIRS = 20
_SHOWN_TEXT = {"answers": 400, "responses": 4000}
"""Characters of a text that an example shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Pictured):
    """Everything an audit found. `rows()` gives one row per group, `write(folder)` the files."""

    _FIRST = ("name", "pairs", "units", "verdict", "stability", "cross_fitted_loss", "predicted_rank", "advice")

    data: PreferenceDataset | None
    """None where the audit started from features without texts."""
    features: FeatureSet
    separation: Separation
    prioritization: Prioritization
    orthogonality: Orthogonality
    embedding: Embedding
    wording: Wording | None
    pushes: PairPushes
    displacement: Displacement
    values: PairValues | None
    """What each training pair is worth to held-out pairs; None where none is held out, or the run diverges."""
    dropped: DropCheck | None
    """What leaving out the pairs of lowest and highest value does; None where there are no values, or few pairs."""
    controlled: Mapping[str, np.ndarray]
    """Pushes and values of the pairs, less what length, words and reference explain of them, by name."""
    opposites: Opposites | None
    """Near duplicates with opposite labels; None for one-token answers."""
    labels: LabelCheck | None
    """Which labels the other pairs speak against; None for under 40 pairs."""
    slices: Slices | None
    """Exploratory groups of data that has one group; None where it has several, or too few pairs."""
    exact: ExactHead | None
    """Exact training of the head on a sample; None for one-token answers, whose curves are exact, and where not run."""
    real_run: RealRun | None
    """What a forecast of the real run says beside the verdicts, where one was given."""
    simulation: Trajectory
    bounds: tuple[Bound, ...]
    """What is proved about the simulated run."""
    untrained: Separation | None
    """The same separation for the model's untrained twin, on request."""
    findings: tuple[Finding, ...]
    evidence: tuple[Evidence, ...]
    """What the verdicts rest on."""
    gained_alone: tuple[Mean, ...]
    """By how much each group's held-out loss ends lower in a run of the group by itself, nats."""
    judgements: tuple[Judgement, ...]
    predicted: tuple[GroupRow, ...]
    thresholds: Thresholds
    settings: Mapping[str, Any]
    warnings: tuple[str, ...]
    timings: Mapping[str, float]

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for item in self.judgements:
            counts[item.verdict] = counts.get(item.verdict, 0) + 1
        shown = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items(), key=lambda kv: -kv[1]))
        return f"Audit of {len(self.features)} pairs in {len(self.judgements)} groups: {shown}"

    @property
    def trajectory(self) -> Trajectory:
        """The simulated run."""
        return self.simulation

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What is learned first, what gets worse, which labels to check, what to change, and what cannot be told."""
        feats = self.features
        told = {code: [name for each in self.findings if each.code == code for name in each.pairs] for code in _TOLD}
        found = AnswerGround(
            rows=self.groups,
            evidence=self.evidence,
            gained_alone=self.gained_alone,
            labels=self.labels,
            ids=[str(name) for name in feats.id],
            groups_of=[feats.groups[code] for code in feats.group],
            contradicting=[name for code in CONTRADICTING for name in told[code]],
            nearly=told[NEARLY],
            responses=feats.kind == "responses",
            steps=int(self.settings["steps"]),
        )
        return answers(found, self.thresholds)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group, as in `groups` of summary.json; NaN becomes None."""
        rows = self.groups
        measured = {"words_": self.wording, "length_": self.wording, "reference_": self.wording}
        absent = [stem for stem, part in {**measured, "untrained_": self.untrained}.items() if part is None]
        if all(math.isnan(row.pairs_measured) for row in rows):
            absent.append("pairs_measured")
        columns = [name for name in COLUMNS if not name.startswith(tuple(absent))]
        return [row.to_json(columns) for row in rows]

    def pairs(self) -> pa.Table:
        """One row per pair, as in pairs.parquet."""
        margins = self.simulation.margins
        named: dict[str, list[str]] = {}
        for finding in self.findings:
            for name in finding.pairs:
                named.setdefault(name, []).append(finding.code)
        for match in () if self.opposites is None else self.opposites.rows():
            for name in (match["first"], match["second"]):
                if "opposite" not in (codes := named.setdefault(name, [])):
                    codes.append("opposite")
        return pairs_table(
            self.features,
            agreement=self.pushes.agreement,
            group_agreement=self.pushes.group_agreement,
            chosen_push=self.pushes.chosen_push,
            rejected_push=self.pushes.rejected_push,
            ches=self.displacement.ches,
            margin=margins[max(margins)],
            values=self.values,
            label_score=None if self.labels is None else self.labels.score,
            controlled=self.controlled,
            findings=named,
        )

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        left_out = [] if self.data is None else [item.to_json() for item in self.data.left_out]
        return plain(
            {
                **header(self.features, command="audit", settings=self.settings, left_out=left_out),
                "answers": [each.to_json() for each in self.answers],
                "groups": self.rows(),
                "diagnostics": self._diagnostics(),
                "verdict_thresholds": self.thresholds.rules(),
                "findings": [item.to_json() for item in self.findings],
                "exact": None if self.exact is None else self.exact.to_json(),
                "displacement": None if self.exact is None else self.exact.displacement_json(),
                "labels": None if self.labels is None else self.labels.to_json(),
                "left_out_by_value": None if self.dropped is None else self.dropped.to_json(),
                **({} if self.slices is None else {"slices": self.slices.rows()}),
                **({} if self.real_run is None else {"real_run": self.real_run.to_json()}),
                "examples": self._examples(),
                **proved_parts(self.features, self.simulation, self.bounds),
                "warnings": list(self.warnings),
                "timings": dict(self.timings),
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv, pairs.parquet and trajectory.parquet into an existing folder."""
        write_files(folder, summary=self.summary(), groups=self.rows(), pairs=self.pairs(), run=self.simulation)

    @property
    def groups(self) -> tuple[GroupRow, ...]:
        """One row per group: everything that was measured, foretold and judged of it."""
        rows, by_group = [], self.features.by_group()
        first, moved = self.prioritization.rows(), self.displacement.rows()
        for code, (apart, predicted, judged) in enumerate(
            zip(self.separation.groups, self.predicted, self.judgements, strict=True)
        ):
            further = columns_of(apart.row()) | columns_of(first[code]) | columns_of(moved[code])
            if self.wording is not None:
                further |= columns_of(self.wording.groups[code].row())
            if self.untrained is not None:
                further |= columns_of(self.untrained.groups[code].row(), "untrained_")
            if apart.pairs_used < apart.pairs:
                further["pairs_measured"] = apart.pairs_used
            for side in ("chosen", "rejected"):
                lengths = getattr(self.features, f"{side}_length")[by_group[code]]
                further[f"{side}_tokens"] = float(lengths.mean()) if len(lengths) else math.nan
            further |= {
                "verdict": judged.verdict,
                "verdict_because": judged.because,
                "advice": judged.advice,
                "changes_if": judged.changes_if,
                "stability": judged.stability,
                "could_be": ", ".join(judged.could_be),
            }
            rows.append(replace(predicted, **further))
        return tuple(rows)

    def _diagnostics(self) -> dict[str, Any]:
        shape, cloud = self.orthogonality, self.embedding
        decrease = LOG2 - np.array([row.predicted_final_loss for row in self.predicted])
        return {
            "order": {
                "distinguishability": rank_agreement(
                    np.array([item.distinguishability for item in self.separation.groups]), decrease
                ),
                "priority": rank_agreement(self.prioritization.level, decrease),
            },
            **self._groups_shown(),
            "priority_gap": self.prioritization.gap,
            "influence": {
                "matrix": self.prioritization.influence[:, self.prioritization.shown],
                "unit": "reward margin, first step",
            },
            "cosine": {
                "raw": shape.cosine,
                "raw_without_self": shape.cosine_without_self,
                "centred": shape.cosine_centred,
                "centred_without_self": shape.cosine_centred_without_self,
                "null": shape.null_cosine,
                "raw_mean": shape.raw_off_diagonal_mean,
                "raw_max": shape.raw_off_diagonal_max,
                "centred_mean": shape.centred_off_diagonal_mean,
                "centred_max": shape.centred_off_diagonal_max,
                "rows": shape.rows_used,
            },
            "distances": {"labels": shape.distance_labels, "matrix": shape.distances},
            "geometry": {
                "effective_rank": shape.effective_rank,
                "shared_norm": shape.shared_norm,
                "spread": shape.spread,
            },
            "embedding": {
                "method": cloud.method,
                "explained": cloud.explained,
                "x": np.round(cloud.x, 4),
                "y": np.round(cloud.y, 4),
                "group": cloud.group,
                "positive": cloud.positive,
                "id": cloud.id,
                "of": cloud.of,
            },
        }

    def _groups_shown(self) -> dict[str, Any]:
        """Names of the groups in the matrices, where those are not all."""
        names, codes = self.features.groups, self.prioritization.shown
        return {} if len(codes) == len(names) else {"shown_groups": [names[code] for code in codes]}

    def _examples(self) -> dict[str, Any]:
        """Pairs to look at, with their texts: the first step of all the others goes against them, and so on."""
        lowest = {"at_odds": self.pushes.agreement}
        if self.values is not None:
            lowest["costly"] = self.values.all
        if self.features.kind == "responses" and self.pushes.chosen_push is not None:
            lowest["chosen_falls"] = self.pushes.chosen_push
        rows = {name: _lowest(values) for name, values in lowest.items()}
        place = {str(name): row for row, name in enumerate(self.features.id)}
        asked = [name for each in self.answers if each.kind == "labels" for name in each.pairs]
        rows["labels"] = np.array([place[name] for name in asked if name in place], dtype=np.int64)
        pairs = [] if self.opposites is None else list(zip(self.opposites.first, self.opposites.second, strict=True))
        pairs = pairs[:_SHOWN_PAIRS]
        wanted = [int(row) for places in rows.values() for row in places] + [int(row) for pair in pairs for row in pair]
        shown = self._shown(sorted(set(wanted)))
        found: dict[str, Any] = {name: [shown[int(row)] for row in places] for name, places in rows.items()}
        if self.opposites is not None:
            found["opposites"] = [
                {"cosine": float(cosine), "first": shown[int(one)], "second": shown[int(two)]}
                for (one, two), cosine in zip(pairs, self.opposites.cosine, strict=False)
            ]
            found["looked_at"] = {
                "opposites": self.opposites.looked_at, "of": self.opposites.of, "found": len(self.opposites)
            }  # fmt: skip
        return found

    def _shown(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Row of the features → what is shown of that pair."""
        texts: dict[str, Mapping[str, Any]] = {}
        if self.data is not None:
            wanted = {str(self.features.id[row]) for row in rows}
            mask = [name in wanted for name in self.data.table["id"].to_pylist()]
            texts = {row["id"]: row for row in self.data.table.filter(pa.array(mask)).to_pylist()}
        limit = _SHOWN_TEXT[self.features.kind]
        found = {}
        for row, pair in zip(rows, self.pairs().take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
            text = texts.get(pair["id"], {})
            sides = {side: text.get(side) for side in ("prompt", "chosen", "rejected")}
            found[row] = {
                **{name: pair[name] for name in ("id", "group", "split")},
                **{side: _cut(words, limit) for side, words in sides.items()},
                "cut": any(words is not None and len(words) > limit for words in sides.values()),
                **{name: pair[name] for name in _MEASURED},
            }
        return found


_MEASURED = (
    "agreement", "group_agreement", "chosen_push", "rejected_push", "margin", "chosen_tokens", "rejected_tokens",
    "label_score", "value_own", "value_all", "findings",
)  # fmt: skip


_TOLD = (*CONTRADICTING, NEARLY)
"""Findings that head the labels to check."""


def _lowest(values: np.ndarray) -> np.ndarray:
    """Rows of the lowest values below 0."""
    order = np.argsort(values, kind="stable")[:_SHOWN_PAIRS]
    return order[values[order] < 0]


@opened(reading=Extraction)
def audit(
    data: Any,
    model: Any = "builtin",
    *,
    objective: Objective | None = None,
    learning_rate: float | Literal["auto"] = "auto",
    steps: int = 100,
    split: float = 0.9,
    seed: int = 0,
    untrained_twin: bool = False,
    embedding_method: Literal["pca", "umap"] = "pca",
    thresholds: Thresholds | None = None,
    texts: PreferenceDataset | None = None,
    exact: int | None = None,
    forecast: str | Path | None = None,
    progress: bool = True,
    reading: Extraction,
) -> Audit:
    """Dataset and model in, an answer per group out: learned early, late, left behind, in conflict, noise, ….

    Args:
        data: A PreferenceDataset, anything that `load_dataset` reads, or a FeatureSet (then `model` is not used).
        model: "builtin", a local folder, a hub id, a LoRA adapter's folder, or a loaded model.
        objective: `DPO(beta=0.1)` if not given. Only DPO, or DPO of length-normalised margins: the verdicts'
            thresholds are nats below log 2.
        learning_rate: Of the simulation; "auto" is half of the largest stable step.
        steps: Full-batch steps of the simulation.
        split: Share of each group to train on; the rest is held out. A dataset or FeatureSet that already holds pairs
            out keeps its own split.
        seed: Of the split, the nulls, the intervals, the probes' folds and the picture's sample.
        untrained_twin: Also measure separation on the same architecture with fresh weights: what words alone give.
        embedding_method: How the 2-D picture is made.
        thresholds: Of the verdicts; the published defaults if not given.
        texts: With a FeatureSet: the dataset it was made from, for the wording baseline and the examples. What hangs
            together in it is one unit, beside what the features' own clusters say.
        exact: Of longer responses: train the whole head exactly on a sample of this many pairs, and show how far the
            first-order curves are off. None: as many as take about twenty seconds on two cores, if at least 16; 0: not.
        forecast: Folder of `prefdyn forecast` on the same pairs: its order of groups, its bands and the groups that are
            still open at its end stand beside the verdicts.
        progress: Show bars on stderr where it is a terminal.
        reading: How the model reads the pairs (see `prefdyn.settings.Extraction`); its fields are keywords here, too.

    Returns:
        An Audit.

    Raises:
        DataError: The data cannot be read or means nothing.
        ConfigError: The objective is not DPO, exact training is asked for without a model, or the forecast is of other
            pairs.
        StoreError: The forecast cannot be read.
        ModelError: The model cannot be read or its head is not covered.
    """
    objective = objective or DPO()
    refuse_to_judge(objective)
    if exact is not None:
        at_least(exact, 0, name="exact")
    if exact and isinstance(data, FeatureSet):
        raise ConfigError(
            f"exact training on {exact} pairs reads their tokens, which features do not hold; give the data and the "
            "model in place of features"
        )
    foretold = None if forecast is None else foretold_in(Path(forecast))
    timings: dict[str, float] = {}
    with _timed(timings, "extract_s"):
        if isinstance(data, FeatureSet):
            dataset, feats = texts, data
            if foretold is not None:
                refuse_other_data(foretold, str(forecast), feats.provenance.data)
            if dataset is not None:
                feats = _clustered(feats, dataset)
            if not feats.held_out.any() and split < 1:
                feats = feats.with_held_out(_hold_out(feats, split, seed))
        else:
            with frameworks(shown=progress):
                from prefdyn.models.extract import extract  # a framework, which features do not need

            dataset = data if isinstance(data, PreferenceDataset) else load_dataset(data, seed=seed)
            if foretold is not None:
                refuse_other_data(foretold, str(forecast), {"name": dataset.name, "sha256": dataset.sha256})
            dataset = dataset.with_held_out(split, seed=seed)
            feats = extract(dataset, model, progress=progress, reading=reading)
            dataset = dataset.select(ids=feats.id)
    _refuse_one_class(feats)
    long = feats.kind == "responses"
    if exact and not long:
        raise ConfigError(
            f"exact is {exact}, but changes nothing here: the curves of one-token answers are exact; leave it out"
        )
    feats = as_seen(feats, objective)
    with _timed(timings, "diagnose_s"):
        unit = units(feats)
        apart = separation(feats, unit=unit, seed=seed, progress=progress)
        shown = shown_groups(feats)
        shape = orthogonality(feats, shown=shown, seed=seed)
        words = None if dataset is None else wording(dataset, feats, unit=unit, seed=seed, progress=progress)
        twin = None
        if untrained_twin and dataset is not None:
            from prefdyn.models.extract import extract

            fresh = extract(dataset, model, untrained=seed, progress=progress, reading=reading)
            twin = separation(as_seen(fresh, objective), seed=seed, progress=progress)
    with _timed(timings, "simulate_s"):
        run = descent(
            feats,
            objective,
            learning_rate=learning_rate,
            steps=steps,
            margins_at=recorded_steps(steps),
            progress=progress,
        )
        rate = run.settings["learning_rate"]
        priority = prioritization(feats, beta=objective.beta, learning_rate=rate, shown=shown, unit=unit)
        pushes = pair_pushes(feats, beta=objective.beta, learning_rate=rate)
        worth, without = None, None
        if steps in run.margins:  # else the run diverged
            how: dict[str, Any] = {"learning_rate": rate, "steps": steps, "seed": seed, "progress": progress}
            worth = pair_values(feats, objective, unit, **how)
            without = None if worth is None else drop_check(feats, objective, unit, worth, **how)
        cross = crossfit(feats, objective, unit, learning_rate=rate, steps=steps, seed=seed, progress=progress)
        limits = thresholds or Thresholds()
        seen = evidence(feats, apart, priority, cross, words)
        judged = judge(seen, limits, seed=seed)
        doubted = check_labels(dataset, feats, unit=unit, seed=seed, progress=progress)
        parts = None
        if len(feats.groups) == 1:
            right = np.where(np.isfinite(cross.loss), cross.loss < LOG2, math.nan)
            parts = slices(dataset, feats, right, cross.unit, seed=seed)
        less = _controlled(dataset, feats, pushes, worth, unit, seed)
        predicted = [
            replace(row, **_foretold(item, cross, rows))
            for row, item, rows in zip(predictions(feats, run, objective, unit), judged, feats.by_group(), strict=True)
        ]
    trained_exactly, untold = None, None
    if exact is None and reading.check == "none":
        exact = 0
    if long and exact != 0 and not isinstance(data, FeatureSet) and dataset is not None:
        with _timed(timings, "exact_s"):
            count, why = exact or affordable(feats, steps=steps), "The size was asked for."
            if not exact:
                why = "As many as take about twenty seconds on two cores."
            if count:
                trained_exactly = exact_head(
                    dataset, model, feats, objective, pairs=count, why=why, learning_rate=rate, steps=steps, seed=seed,
                    progress=progress, reading=reading,
                )  # fmt: skip
            else:
                untold = (
                    "The first-order curves were not checked against exact training of the head, which takes long with "
                    "this model; --exact 50 does it on 50 pairs."
                )
    with _timed(timings, "prove_s"), step("Looking up what is proved about the run", shown=progress):
        proved = tuple(bounds(feats, run, shown=shown.tolist()))
    trained = round(1 - float(feats.held_out.mean()), 6)  # what the features hold, which may have come with a split
    settings = resolved_settings(feats, run, seed=seed, split=trained, untrained_twin=untrained_twin)
    return Audit(
        data=dataset,
        features=feats,
        separation=apart,
        prioritization=priority,
        orthogonality=shape,
        embedding=embedding(
            feats, seed=seed, method=embedding_method, shown=None if len(shown) == len(feats.groups) else shown
        ),
        wording=words,
        pushes=pushes,
        displacement=displacement(feats, pushes),
        values=worth,
        dropped=without,
        controlled=less,
        opposites=opposites(feats, seed=seed) if long else None,
        labels=doubted,
        slices=parts,
        exact=trained_exactly,
        real_run=None if foretold is None else _beside(foretold, str(forecast), seen, judged),
        simulation=run,
        bounds=proved,
        untrained=twin,
        findings=() if dataset is None else preflight(dataset),
        evidence=tuple(seen),
        gained_alone=tuple(
            mean_of((cross.loss - cross.alone)[rows], unit[rows], wider=max(ALONE, cross.wider))
            for rows in feats.by_group()
        ),
        judgements=judged,
        predicted=tuple(predicted),
        thresholds=limits,
        settings=settings,
        warnings=(
            *_warnings(feats, objective, learning_rate),
            *_capped(feats, apart, shape, cross, len(shown)),
            *([untold] if untold else []),
        ),
        timings=timings,
    )


def evidence(
    feats: FeatureSet,
    apart: Separation,
    priority: Prioritization,
    cross: CrossFit,
    words: Wording | None,
) -> list[Evidence]:
    """What the verdict rules look at, group by group."""
    names, long = [feats.groups[code] for code in priority.shown], feats.kind == "responses"
    gathered, place_of = [], {int(code): place for place, code in enumerate(priority.shown)}
    mass = np.bincount(feats.group, weights=feats.weight * ~feats.held_out, minlength=len(feats.groups))
    for code, rows in enumerate(feats.by_group()):
        measured, unit = apart.groups[code], cross.unit[rows]
        by = priority.influence[:, code]
        opposed = [
            names[place] for place in np.argsort(by, kind="stable") if by[place] < 0 and priority.shown[place] != code
        ]
        known = np.isfinite(cross.loss[rows])
        given_away = {} if words is None or not long else _by_length(apart, words, code)
        gathered.append(
            Evidence(
                name=measured.name,
                pairs=measured.pairs,
                units=len(np.unique(unit)),
                one_class=measured.classes is not None and min(measured.classes) == 0,
                null_z=measured.null_z,
                signal_p=measured.signal_p,
                area=measured.auc,
                area_low=measured.auc_interval[0],
                area_high=measured.auc_interval[1],
                area_error=measured.auc_error,
                area_null_error=measured.auc_null_error,
                probe_accuracy=measured.probe_accuracy,
                words_accuracy=math.nan if words is None else words.groups[code].words_accuracy,
                held_out_accuracy=float(np.mean(cross.loss[rows[known]] < LOG2)) if known.any() else math.nan,
                train_loss=float(np.mean(cross.trained[rows[known]])) if known.any() else math.nan,
                loss=cross.mean(rows),
                alone=cross.mean(rows, "alone"),
                area_under_loss=cross.mean(rows, "area"),
                best_step=int(cross.best_step[code]),
                best_loss=float(cross.best_loss[code]),
                late_speed=float(cross.late_speed[code]),
                push=float(priority.first_step_margin[code]),
                own_push=float(by[place_of[code]]) if code in place_of else math.nan,
                part=float(mass[code] / mass.sum()),
                opposed_by=tuple(opposed),
                **given_away,
            )
        )
    return gathered


def _beside(foretold: Foretold, folder: str, seen: Sequence[Evidence], judged: Sequence[Judgement]) -> RealRun:
    """The forecast of the real run beside what the head does."""
    areas = {each.name: each.area_under_loss.value for each in seen}
    verdicts = {each.name: item.verdict for each, item in zip(seen, judged, strict=True)}
    return RealRun.of(foretold, folder, areas, verdicts)


def _controlled(
    data: PreferenceDataset | None,
    feats: FeatureSet,
    pushes: PairPushes,
    values: PairValues | None,
    unit: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """Agreement, values and, of longer responses, chosen pushes, less what length, words and reference explain."""
    numbers = {"agreement": pushes.agreement}
    if values is not None:
        numbers |= {"value_own": values.own, "value_all": values.all}
    found = controlled(data, feats, numbers, unit=unit, seed=seed)
    if feats.kind == "responses" and pushes.chosen_push is not None:
        found |= controlled_chosen(data, feats, {"chosen_push": pushes.chosen_push}, unit=unit, seed=seed)
    return found


def _foretold(item: Judgement, cross: CrossFit, rows: np.ndarray) -> dict[str, Any]:
    """What the runs without a fifth of the pairs say of a group, for the table."""
    loss, alone = cross.mean(rows), cross.mean(rows, "alone")
    return {
        "units": len(np.unique(cross.unit[rows])),
        "predicted_rank": item.rank if math.isnan(item.rank) else int(item.rank),
        "predicted_rank_low": item.rank_low,
        "predicted_rank_high": item.rank_high,
        "cross_fitted_loss": loss.value,
        "cross_fitted_loss_error": loss.error,
        "cross_fitted_alone_loss": alone.value,
        "cross_fitted_alone_loss_error": alone.error,
    }


def _by_length(apart: Separation, words: Wording, code: int) -> dict[str, float]:
    """How well length tells a group's two sides, and whether the probe knows more, on the same held-out pairs."""
    length, probe, unit = words.groups[code].length_right, apart.right[code], apart.unit[code]
    if len(length) != len(probe) or len(unit) != len(probe):  # one of the two is a sample, or was not measured
        return {"length_accuracy": words.groups[code].length_accuracy}
    return {
        "length_accuracy": words.groups[code].length_accuracy,
        "length_p": share_test(length, unit),
        "length_behind": behind(probe, length, unit),
    }


def rank_agreement(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Spearman and Kendall rank correlation over the groups where both numbers are known; NaN under three groups.

    `low` and `high` are the 95 % interval of Spearman's over groups, `p` and `kendall_p` two-sided by permutation and
    by Kendall's null.

    Example:
        >>> found = rank_agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))
        >>> {name: round(found[name], 6) for name in ("spearman", "p", "kendall", "kendall_p", "groups")}
        {'spearman': 0.8, 'p': 0.333333, 'kendall': 0.666667, 'kendall_p': 0.333333, 'groups': 4}
    """
    known = np.isfinite(first) & np.isfinite(second)
    draws = max(199, min(2000, _RANKED // max(1, int(known.sum()))))
    rank = rank_correlation(first, second, resamples=draws, permutations=5 * draws)
    found = {"spearman": rank.value, "low": rank.low, "high": rank.high, "p": rank.p_value}
    if math.isnan(rank.value):
        return {**found, "kendall": math.nan, "kendall_p": math.nan, "groups": rank.groups}
    kendall: Any = stats.kendalltau(first[known], second[known])
    return {**found, "kendall": float(kendall.statistic), "kendall_p": float(kendall.pvalue), "groups": rank.groups}


_RANKED = 400_000
"""Groups × draws of the interval of a rank correlation, about."""


def _refuse_one_class(feats: FeatureSet) -> None:
    if feats.chosen is not None and len(feats.tokens) == 2 and (feats.chosen == feats.chosen[0]).all():
        raise DataError(
            f"all {len(feats)} pairs choose the same answer, {feats.tokens[feats.chosen[0]]!r}, so there is no "
            "preference to learn, only a constant; give pairs of both kinds"
        )


def _clustered(feats: FeatureSet, texts: PreferenceDataset) -> FeatureSet:
    """The features with what hangs together in their texts put together, too."""
    refuse_other_pairs(texts, feats)
    return replace(feats, cluster=joined(feats.cluster, texts.clusters.of))


def _hold_out(feats: FeatureSet, split: float, seed: int) -> np.ndarray:
    """Hold pairs out of features that came without a split: per group, a cluster on one side."""
    return held_out_mask(np.asarray([feats.groups[code] for code in feats.group]), feats.cluster, split, seed)


def _warnings(feats: FeatureSet, objective: Objective, learning_rate: float | str) -> tuple[str, ...]:
    found = list(feats.provenance.settings.get("warnings", []))
    if (told := beyond_stable(feats, objective, learning_rate)) is not None:
        found.append(told)
    if not feats.held_out.any():
        found.append(
            "No pair is held out, so the curves are of training pairs alone; verdicts and ranks rest on further runs, "
            "each without a fifth of the prompts."
        )
    return tuple(found)


def _capped(feats: FeatureSet, apart: Separation, shape: Orthogonality, cross: CrossFit, shown: int) -> Iterator[str]:
    """What was looked at in part only, because there are many groups or many pairs."""
    groups, pairs = len(feats.groups), len(feats)
    if shown < groups:
        yield (
            f"Of {groups:,} groups the {shown:,} with most pairs are held against each other, drawn, and have "
            "statements of their own; verdicts, curves in trajectory.parquet and groups.csv are of all."
        )
    if apart.adjustment == "max-z":
        yield (
            f"With more than {FOR_HOLM} groups, p-values are adjusted by the largest statistic of all groups under "
            f"relabelling (Westfall and Young), and not by Holm's method."
        )
    sampled = [group for group in apart.groups if group.pairs_used < group.pairs]
    if sampled:
        yield (
            f"Distinguishability, nulls and probes of {len(sampled):,} large groups rest on a sample of "
            f"{max(group.pairs_used for group in sampled):,} of their pairs; simulation and training curves use all."
        )
    if (used := int(np.isfinite(cross.loss).sum())) < pairs / 2:
        yield (
            f"Verdicts and ranks rest on runs on a sample of {used:,} of {pairs:,} pairs, as many as fit into memory; "
            "curves use all."
        )
    if shape.pairs_used < pairs:
        yield f"Cosines, distances and the effective rank rest on a sample of {shape.pairs_used:,} of {pairs:,} pairs."


def _cut(text: str | None, limit: int) -> str | None:
    return text if text is None or len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)
