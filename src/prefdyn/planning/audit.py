"""The audit: a dataset and a model in; what DPO will learn first, what it will leave behind, and how fast, out."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prefdyn._checks import at_least
from prefdyn._progress import frameworks, step
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import preflight
from prefdyn.data.split import held_out_mask
from prefdyn.diagnostics.controlled import controlled, controlled_chosen
from prefdyn.diagnostics.displacement import displacement
from prefdyn.diagnostics.labels import check_labels
from prefdyn.diagnostics.many import shown_groups
from prefdyn.diagnostics.opposites import opposites
from prefdyn.diagnostics.orthogonality import Orthogonality, embedding, orthogonality
from prefdyn.diagnostics.prioritization import PairPushes, Prioritization, pair_pushes, prioritization
from prefdyn.diagnostics.probe import behind, share_test
from prefdyn.diagnostics.separation import FOR_HOLM, Separation, separation
from prefdyn.diagnostics.slices import slices
from prefdyn.diagnostics.units import units
from prefdyn.diagnostics.wording import Wording, refuse_other_pairs, wording
from prefdyn.dynamics.crossfit import ALONE, CrossFit, crossfit
from prefdyn.dynamics.descent import beyond_stable, descent, recorded_steps
from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.problem import as_seen
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2, Objective, refuse_to_judge
from prefdyn.maths.units import joined, mean_of
from prefdyn.planning.audited import Audit
from prefdyn.planning.exact import affordable, exact_head
from prefdyn.planning.real_run import RealRun, refuse_other_data
from prefdyn.planning.summary import (
    predictions,
    resolved_settings,
)
from prefdyn.planning.values import PairValues, drop_check, pair_values
from prefdyn.planning.verdicts import Evidence, Judgement, Thresholds, judge
from prefdyn.settings import Extraction, opened
from prefdyn.theory.bounds import bounds
from prefdyn.training.watching import foretold_in

_NOT_CHECKED = (
    "The first-order curves were not checked against exact training of the head, which takes long with this model; "
    "--exact 50 does it on 50 pairs."
)


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
    _refuse_exact(exact, data)
    foretold = None if forecast is None else foretold_in(Path(forecast))

    def same(pairs: Mapping[str, Any]) -> None:
        if foretold is not None:
            refuse_other_data(foretold, str(forecast), pairs)

    timings: dict[str, float] = {}
    with _timed(timings, "extract_s"):
        if isinstance(data, FeatureSet):
            dataset, feats = texts, _given(data, texts, split, seed, same)
        else:
            dataset, feats = _read(data, model, split, seed, same, progress=progress, reading=reading)
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
            count = exact or affordable(feats, steps=steps)
            why = "The size was asked for." if exact else "As many as take about twenty seconds on two cores."
            if count:
                trained_exactly = exact_head(
                    dataset, model, feats, objective, pairs=count, why=why, learning_rate=rate, steps=steps, seed=seed,
                    progress=progress, reading=reading,
                )  # fmt: skip
            else:
                untold = _NOT_CHECKED
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


def _refuse_exact(exact: int | None, data: Any) -> None:
    if exact is not None:
        at_least(exact, 0, name="exact")
    if exact and isinstance(data, FeatureSet):
        raise ConfigError(
            f"exact training on {exact} pairs reads their tokens, which features do not hold; give the data and the "
            "model in place of features"
        )


def _given(
    feats: FeatureSet,
    texts: PreferenceDataset | None,
    split: float,
    seed: int,
    same: Callable[[Mapping[str, Any]], None],
) -> FeatureSet:
    """Features that were given, with their texts' clusters, and with pairs held out where they came without a split."""
    same(feats.provenance.data)
    if texts is not None:
        refuse_other_pairs(texts, feats)
        feats = replace(feats, cluster=joined(feats.cluster, texts.clusters.of))
    if feats.held_out.any() or split == 1:
        return feats
    group = np.asarray([feats.groups[code] for code in feats.group])
    return feats.with_held_out(held_out_mask(group, feats.cluster, split, seed))


def _read(
    data: Any,
    model: Any,
    split: float,
    seed: int,
    same: Callable[[Mapping[str, Any]], None],
    *,
    progress: bool,
    reading: Extraction,
) -> tuple[PreferenceDataset, FeatureSet]:
    """The pairs, split, and what the model makes of those that it can read."""
    with frameworks(shown=progress):
        from prefdyn.models.extract import extract  # a framework, which features do not need

    dataset = data if isinstance(data, PreferenceDataset) else load_dataset(data, seed=seed)
    same({"name": dataset.name, "sha256": dataset.sha256})
    dataset = dataset.with_held_out(split, seed=seed)
    feats = extract(dataset, model, progress=progress, reading=reading)
    return dataset.select(ids=feats.id), feats


def _refuse_one_class(feats: FeatureSet) -> None:
    if feats.chosen is not None and len(feats.tokens) == 2 and (feats.chosen == feats.chosen[0]).all():
        raise DataError(
            f"all {len(feats)} pairs choose the same answer, {feats.tokens[feats.chosen[0]]!r}, so there is no "
            "preference to learn, only a constant; give pairs of both kinds"
        )


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


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)
