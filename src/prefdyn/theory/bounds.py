"""Every statement of the three papers, applied to features and to what a run on them did."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from prefdyn._threads import small_work
from prefdyn.features import Answers, FeatureSet
from prefdyn.maths.geometry import cosine
from prefdyn.maths.kernel import largest_eigenvalue_in_pieces
from prefdyn.theory import gradient_field as plane
from prefdyn.theory import learning_dynamics as head
from prefdyn.theory import value_scaling as scaling
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.measured import (
    RunConditions,
    boundary,
    boundary_change,
    first_step_rates,
    plane_path,
    values_found,
    without_noise,
)
from prefdyn.trajectory import Trajectory


def bounds(feats: FeatureSet, run: Trajectory, *, shown: Sequence[int] | None = None) -> list[Bound]:
    r"""What every theorem says of these features and this run: value, conditions, what was measured.

    Constants are measured from the training pairs (plug-in). The statements of 2403.18742 are about one group and are
    checked for each group trained alone; those of 2408.03459 about all groups together, each group a value; those of
    2404.04626 about the joint run's average pair.

    Args:
        feats: Features of either kind. Longer responses have no two classes of states: what speaks of them is left
            out, and the statements on any pair features and on the plane remain.
        run: A run on these features: it gives beta, learning rate and steps, and what was measured. Margins kept by
            `descent(margins_at=…)` and the heads it ends with are compared where they are there.

        shown: Codes of the groups whose own statements are made; all if not given.

    Returns:
        Bounds: the first paper group by group, then the second, then the third.

    Raises:
        DataError: The run was not made on these features, or its settings lack beta, learning rate or steps.

    Example:
        >>> from prefdyn.dynamics.descent import descent
        >>> from prefdyn.maths.objectives import DPO
        >>> feats = FeatureSet.from_arrays(
        ...     [[1, 0], [2, 1], [-1, 0], [0, -1]], chosen=["Yes", "Yes", "No", "No"],
        ...     rejected=["No", "No", "Yes", "Yes"], tokens=["Yes", "No"])
        >>> found = bounds(feats, descent(feats, DPO(beta=0.5), learning_rate=0.4, steps=3))
        >>> next(bound for bound in found if bound.form == "repaired").meaning()
        'applies: drift of the head after 3 steps at most 0.474; measured 0.436'
    """
    setting = RunConditions.of(feats, run)
    found: list[Bound] = []
    by_group = feats.by_group()
    with small_work(len(feats) * feats.kernel_width):
        for code in range(len(feats.groups)) if shown is None else shown:
            found += _one_group(feats, run, setting, feats.groups[code], by_group[code])
        found += [_all_pairs(feats, run, setting), *_values(feats, run, setting)]
    found += [*plane_bounds(run), *_forecast(feats, run)]
    return _under(setting.unlike, found)


def _under(conditions: Sequence[Condition], found: Sequence[Bound]) -> list[Bound]:
    """The statements with further conditions, which come first."""
    return [replace(bound, conditions=(*conditions, *bound.conditions)) for bound in found]


# 2403.18742: one group, trained alone --------------------------------------------------------------------------------


def _one_group(
    feats: FeatureSet, run: Trajectory, setting: RunConditions, name: str, rows: Int[np.ndarray, " size"]
) -> list[Bound]:
    """The statements on two classes; where there are none, or pairs differ in weight, the one on any pairs."""
    rows = rows[~feats.held_out[rows]]
    answers = feats.two_answers(rows)
    classes = answers is not None and 0 < answers.positive.sum() < len(rows)
    found = _two_classes(feats, run, setting, name, rows, answers) if answers is not None and classes else []
    if len(rows) and (setting.unequal or not classes):
        found.append(_any_pairs(feats, setting, rows, run.final("drift", group=name, run="alone"), name))
    return found


def _two_classes(
    feats: FeatureSet,
    run: Trajectory,
    setting: RunConditions,
    name: str,
    rows: Int[np.ndarray, " size"],
    answers: Answers,
) -> list[Bound]:
    states = feats.states[rows].astype(np.float64)
    c = head.constants(states, answers.positive)
    steps: dict[str, Any] = {"beta": setting.beta, "learning_rate": setting.learning_rate, "steps": setting.steps}
    drift = run.final("drift", group=name, run="alone")
    straight, drift_there = _straight(c, run, setting, name)
    found = [
        head.published_drift_bound(c, **steps, measured=drift, group=name),
        head.drift_bound(c, **steps, measured=drift, group=name),
        head.population_drift_bound(without_noise(c), **steps, measured=drift, group=name),
        head.drift_at_least(c, **(steps | {"steps": straight}), measured=drift_there, group=name),
    ]
    start = boundary(feats, answers)
    if start is None:
        return _under(setting.unequal, found)
    signs = np.where(answers.positive, 1.0, -1.0)
    gap = states[answers.positive].mean(axis=0) - states[~answers.positive].mean(axis=0)
    weighted = 2 * (signs @ states) / len(states)
    change = run.alone_heads.get(name)
    end = None if change is None else start + boundary_change(setting.basis, answers, change)
    length = float(np.linalg.norm(start))

    def angle(to: np.ndarray) -> float:
        return math.nan if end is None else cosine(end, to)

    begun: dict[str, Any] = {"boundary_norm": length, "phi": cosine(start, gap), "group": name}
    found += [
        head.published_alignment_bound(c, **begun, **steps, measured=angle(gap)),
        head.alignment_bound(c, **begun, **steps, measured=angle(gap)),
        head.sharp_alignment_bound(
            c,
            boundary_norm=length,
            phi=cosine(start, weighted),
            group=name,
            **steps,
            measured=angle(weighted),
        ),
        head.accuracy_bound(
            c,
            **begun,
            beta=setting.beta,
            learning_rate=setting.learning_rate,
        ),
    ]
    if end is not None:
        certificate = head.accuracy_certificate(
            states, signs, end, gap, measured=run.final("policy_accuracy", group=name, run="alone"), group=name
        )
        bias = 0.0 if feats.head_bias is None else float(np.ptp(feats.head_bias))
        no_bias = Condition(says="the head has no bias: difference of biases", measured=bias, limit=0.0)
        found.append(replace(certificate, conditions=(*certificate.conditions, no_bias)))
    return _under(setting.unequal, found)


def _straight(c: head.Constants, run: Trajectory, setting: RunConditions, name: str) -> tuple[int, float]:
    """The last measured step at which the head's path is proved to be straight to a half, and the drift there."""
    rows = run.cell(run="alone", group=name, split="train")
    found = setting.steps, run.final("drift", group=name, run="alone")
    for step, drift in zip(rows["step"].to_pylist(), rows["drift"].to_pylist(), strict=True):
        rate: dict[str, Any] = {"beta": setting.beta, "learning_rate": setting.learning_rate}
        if step and head.departure_from_line(c.smoothness, **rate, steps=step) <= _HALF:
            found = step, drift
    return found


_HALF = 0.5


def _all_pairs(feats: FeatureSet, run: Trajectory, setting: RunConditions) -> Bound:
    """The drift of the joint run."""
    name = next((name for name in feats.groups if run.cell(run="joint", group=name, split="train").num_rows), None)
    drift = math.nan if name is None else run.final("drift", group=name)
    return _any_pairs(feats, setting, np.flatnonzero(~feats.held_out), drift, None)


def _any_pairs(
    feats: FeatureSet, setting: RunConditions, rows: Int[np.ndarray, " size"], measured: float, group: str | None
) -> Bound:
    """The drift of a run on some training pairs, for pair features of any kind."""
    weight = feats.weight[rows]
    share = weight / weight.sum()
    mean, length, whole = np.zeros(0), 0.0, None
    for where, kernel in feats.kernel_blocks(rows):
        pull = kernel.adjoint(share[where].astype(kernel.features.dtype))
        mean = mean + pull if len(mean) else pull
        length += float(share[where] @ np.sqrt(kernel.diagonal()))
        whole = kernel if len(kernel) == len(rows) else None
    if whole is not None:
        smoothness = whole.weighted(share).largest_eigenvalue()
    else:
        every = np.zeros(len(feats))  # rows one after another, those of other pairs at weight 0, read fastest
        every[rows] = share
        smoothness = largest_eigenvalue_in_pieces(lambda: feats.kernel_blocks(np.arange(len(feats))), every)
    return head.pair_drift_bound(
        mean_feature=float(np.linalg.norm(mean)),
        mean_length=length,
        smoothness=smoothness,
        beta=setting.beta,
        learning_rate=setting.learning_rate,
        steps=setting.steps,
        measured=measured,
        group=group,
    )


# 2408.03459: every group a value -------------------------------------------------------------------------------------


def _values(feats: FeatureSet, run: Trajectory, setting: RunConditions) -> list[Bound]:
    found = values_found(feats)
    if found is None:
        return []
    model, half_gap = found.model, found.half_gap
    rate: dict[str, Any] = {"beta": setting.beta, "learning_rate": setting.learning_rate, "half_gap": half_gap}
    last = scaling.horizon(model.values, **rate)
    sharp_last = scaling.sharp_horizon(model.values, sharing=model.sharing, **rate)
    step, least, largest = _margins(feats, run, last)
    sharp_step, sharp_least, sharp_largest = _margins(feats, run, sharp_last)
    seen: dict[str, Any] = {"measured_least": least, "measured_largest": largest}
    sharp_seen: dict[str, Any] = {"measured_least": sharp_least, "measured_largest": sharp_largest}
    tested, error = _held_out_error(run, last)
    timed: dict[str, Any] = {"steps": tested, "last_step": last, "measured": error}
    listed = [
        scaling.kernel_concentration(model, measured=found.deviation),
        *scaling.training_guarantee(model, **rate, steps=step, **seen),
        *scaling.sharp_training_guarantee(model, **rate, steps=sharp_step, **sharp_seen),
        *scaling.almost_orthogonal_guarantee(model, delta=found.delta, **rate, steps=step, **seen),
        scaling.error_bound(model, **timed),
        scaling.refined_error_bound(model, **timed),
        scaling.counted_error_bound(model, **timed),
        scaling.almost_orthogonal_error_bound(model, delta=found.delta, measured=error),
    ]
    if model.sharing == model.values:
        held_out = int(feats.held_out.sum())
        floor = scaling.irreducible_error_bound(
            model.values, model.noise, held_out_pairs=held_out or None, measured=error
        )
        listed.append(floor)
    listed = [replace(bound, conditions=(*bound.conditions, *found.conditions)) for bound in listed]
    listed = _under(setting.unequal, listed)
    flips = _flips(feats, run, setting, last)
    return listed if flips is None else [*listed, flips]


def _flips(feats: FeatureSet, run: Trajectory, setting: RunConditions, last: float) -> Bound | None:
    """Training pairs whose reference prefers the rejected answer by more than the guaranteed margins can make up."""
    if feats.ref_chosen_logps is None or feats.ref_rejected_logps is None:
        return None
    train = ~feats.held_out
    chosen, rejected = feats.ref_chosen_logps[train], feats.ref_rejected_logps[train]
    step, _, largest = _margins(feats, run, last)
    wrong = math.nan
    if not math.isnan(largest):
        margins = run.margins[int(step)][train]
        wrong = float(np.mean(margins / setting.beta + chosen - rejected <= 0))
    return scaling.flip_statement(chosen, rejected, beta=setting.beta, largest_margin=largest, measured=wrong)


def _margins(feats: FeatureSet, run: Trajectory, last: float) -> tuple[float, float, float]:
    """The last kept step up to `last`, or the first after it, with the least and largest margin of training pairs."""
    kept = [step for step in run.margins if step > 0]
    inside = [step for step in kept if step <= last]
    step = max(inside) if inside else min(kept, default=None)
    if step is None:
        return float(run.settings["steps"]), math.nan, math.nan
    margins = run.margins[step][~feats.held_out]
    return float(step), float(margins.min()), float(margins.max())


def _held_out_error(run: Trajectory, last: float) -> tuple[float, float]:
    """The last measured step up to `last`, or the first after it, with the held-out share of margins not above 0."""
    rows = run.where(run="joint", split="held_out")
    steps = rows["step"].to_numpy()
    known = np.unique(steps[steps > 0])
    if not len(known):
        return math.nan, math.nan
    inside = known[known <= last]
    step = inside.max() if len(inside) else known.min()
    at = steps == step
    accuracy = np.asarray(rows["reward_accuracy"].to_numpy(zero_copy_only=False), dtype=np.float64)[at]
    return float(step), 1 - float(np.average(accuracy, weights=rows["pairs"].to_numpy()[at]))


# 2404.04626: the joint run's average pair ----------------------------------------------------------------------------


def plane_bounds(run: Trajectory) -> list[Bound]:
    """What the third paper's plane says of the joint run's average training pair.

    Args:
        run: A run that measured log-probabilities; without them nothing can be said, and the list is empty.

    Reference:
        2404.04626; THEORY 4.
    """
    path = plane_path(run)
    if path is None:
        return []
    x1, x2 = float(path.x1[-1]), float(path.x2[-1])
    pairs, falling = _joint_end(run)
    rise, fall = x1 - 1, 1 - x2
    found = [
        plane.ratio_statement(x1, x2),
        plane.circle_statement(measured=x1 * x1 + x2 * x2),
        plane.speed_statement(measured=fall / rise if rise > 0 else math.nan),
        plane.displacement_statement(pairs=pairs, measured=falling),
    ]
    if path.ref_chosen > 0 and path.ref_rejected > 0 and path.ref_chosen + path.ref_rejected <= 1:
        first = -np.log(path.x2[1]) / np.log(path.x1[1]) if len(path.x1) > 1 and path.x1[1] > 1 else math.nan
        found += [
            plane.own_speed_statement(path.ref_chosen, path.ref_rejected, pairs=pairs, measured=float(first)),
            plane.feasibility_statement(
                ref_chosen=path.ref_chosen, ref_rejected=path.ref_rejected, measured=float(path.x1.max())
            ),
        ]
    return found


def _forecast(feats: FeatureSet, run: Trajectory) -> list[Bound]:
    """Which chosen responses start by falling, beside the first step of the run where that was a small one."""
    rates = first_step_rates(feats)
    if rates is None:
        return []
    changes = run.chosen_changes.get(1)
    measured = math.nan
    if changes is not None and np.abs(changes[~feats.held_out]).max() <= _SMALL:
        measured = float(np.mean(changes[~feats.held_out] < 0))
    return [plane.displacement_forecast(rates, measured=measured)]


_SMALL = 0.01
"""Nats by which a first step may move a log-probability and still show the rate it started with."""


def _joint_end(run: Trajectory) -> tuple[int, float]:
    """Training pairs of the joint run, and the share of them whose chosen response ends less likely than it began."""
    rows = run.where(run="joint", split="train")
    steps = rows["step"].to_numpy()
    at = steps == steps.max()
    pairs = rows["pairs"].to_numpy()[at]
    share = np.asarray(rows["chosen_falling"].to_numpy(zero_copy_only=False), dtype=np.float64)[at]
    return int(pairs.sum()), float(np.average(share, weights=pairs))
