"""Rules that look at a run's curves, each for one thing that people ask about DPO's curves.

A rule names the groups it is about, what was measured and what to do, and is silent where there is nothing to say. A
negative chosen reward alone is no alarm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binom

from prefdyn.diagnostics.inference import wilson_interval
from prefdyn.planning.verdicts import Thresholds
from prefdyn.report.folders import number
from prefdyn.report.run_curves import (
    GroupCurves,
    Row,
    RunCurves,
    counted,
    largest,
    names,
    percent,
    shares,
    signed,
    since,
    told,
)
from prefdyn.report.tables import shown

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers that the rules compare with; those of `planning.verdicts` beside them."""

    still: float = 0.01
    """Nats. A loss that moves by less stands still."""
    moving: float = 0.1
    """Nats. Where the middle group's loss moves by more, the run learns something."""
    falls_far: float = 1.0
    """Nats. A chosen response that loses more has lost two thirds of its probability."""
    falls_far_per_token: float = 0.1
    """The same per token of the response, where that is more."""
    most: float = 2 / 3
    """Share of pairs from which on it is most of them."""
    together: float = 0.25
    """From this share of the rejected response's fall on, the chosen one falls along with it."""
    told: float = 0.05
    """Nats. Smaller changes of log-probability are not spoken of."""
    collapsed: float = 0.05
    """Nats. Below it a loss has nothing left to say."""
    early: float = 0.1
    """Share of the run within which a group that is then right on nearly every pair was no task."""
    rises: float = 0.02
    """Nats. A held-out loss that ends this far above its least value has turned,"""
    turned: float = 0.25
    """if that is also this share of its fall; the same for a chosen response that has risen."""
    far: float = 10.0
    """Nats. A log-ratio that has moved this far has left the reference behind."""
    unfinished: float = 0.3
    """Nats. A sigmoid loss above it still pushes hard,"""
    finished: float = 0.1
    """and below it hardly."""
    near: float = 2.0
    """Nats. A log-ratio that has moved less has hardly moved."""
    drowned: float = 0.05
    """Share of the largest margin's movement that margins before the first step may have."""


LIMITS = Limits()
RULES = Thresholds()
_SATURATE = ("sigmoid", "robust", "hinge")
"""Objectives whose loss near 0 means that nothing is left to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing about a run's curves."""

    severity: Severity
    code: str
    """Fixed name of the rule."""
    title: str
    groups: tuple[str, ...]
    """Names as in the data; empty: the whole run."""
    says: str
    """With this run's numbers."""
    advice: str


# what cannot be right -----------------------------------------------------------------------------------------------


def _not_finite(run: RunCurves) -> Remark | None:
    """A loss or a log-probability is NaN or infinite, or the simulation diverged."""
    groups, steps = run.table["group"].to_pylist(), run.table["step"].to_pylist()
    first: dict[str, tuple[int, str]] = {}
    for quantity in ("loss", "margin", "chosen_log_prob", "rejected_log_prob", "gradient_norm"):
        for name, step, value in zip(groups, steps, run.table[quantity].to_pylist(), strict=True):
            if value is not None and not math.isfinite(value) and step < first.get(name, (math.inf, ""))[0]:
                first[name] = (step, quantity.replace("_", " ").replace("log prob", "log-probability"))
    diverged = run.settings.get("diverged_at")
    if not first and diverged is None:
        return None
    rows = [(float(step), name, f"{quantity}, step {step:,}") for name, (step, quantity) in first.items()]
    says = f"From the step named on, a number is NaN or infinite: {told(rows)}." if first else ""
    if diverged is not None:
        says = f"The run diverged at step {diverged}. {says}".strip()
    return Remark(
        severity="problem",
        code="not-finite",
        title="Numbers that are no numbers",
        groups=names(rows),
        says=says,
        advice="Nothing after that step means anything. Lower the learning rate; take bfloat16 or float32 where the "
        "run was in float16, whose log-softmax overflows; look for pairs with an empty response.",
    )


def _start(run: RunCurves) -> Remark | None:
    """Margins are not 0 before the first step."""
    most = max((largest(group.seen.columns["margin"]) for group in run.groups), default=0.0)
    means = {group.name: group.seen.columns["margin"][0] for group in run.groups if group.seen.steps[0] == 0}
    measured = number(run.settings.get("start_margin"))
    worst = max([0.0 if math.isnan(measured) else measured, *(abs(v) for v in means.values() if math.isfinite(v))])
    if worst <= 1e-6 or worst <= LIMITS.drowned * most:
        return None
    off = [(-abs(v), name, shown(v, 2)) for name, v in means.items() if abs(v) > max(1e-6, LIMITS.drowned * most)]
    single = f"Single margins before the first step are up to {worst:.2g}."
    where = f"Mean margins at step 0: {told(off)}." if off else single
    return Remark(
        severity="warning",
        code="start",
        title="Margins do not start at 0",
        groups=names(off),
        says=f"{where} The largest mean margin of the run is {shown(most)}.",
        advice="Where the reference is the model as it starts, margins start at 0, and anything else is rounding: "
        "reference and policy were not computed in the same precision and batches. Where it is another model, this "
        "is how far the two are apart, and curves are to be read against their start.",
    )


# probabilities ------------------------------------------------------------------------------------------------------


def _displaced(run: RunCurves) -> Remark | None:
    """The chosen responses lose much, along with the rejected ones, in most pairs."""
    rows: list[Row] = []
    for group in run.groups:
        if _falls_far(group, run) and _along(group) and not group.falling < LIMITS.most:
            rows.append((group.moved("chosen_change"), group.name, _changes(group)))
    if not rows:
        return None
    return Remark(
        severity="problem",
        code="displaced",
        title="The chosen responses become much less likely",
        groups=names(rows),
        says=f"Chosen and rejected fall together, and the margin is only what is left between them. {told(rows)}.",
        advice="Where both responses of a pair fall, their probability goes to responses that are in no pair. Look at "
        "what chosen and rejected share (near duplicates push each other down), take fewer steps, a smaller learning "
        "rate or a larger beta, or add a likelihood term on the chosen responses (in TRL: loss_type sigmoid and sft "
        "together).",
    )


def _reversed(run: RunCurves) -> Remark | None:
    """Chosen falls much and rejected rises."""
    rows: list[Row] = []
    for group in run.groups:
        if _falls_far(group, run) and group.moved("rejected_change") >= 0:
            rows.append((group.moved("chosen_change"), group.name, _changes(group)))
    if not rows:
        return None
    return Remark(
        severity="problem",
        code="reversed",
        title="Chosen falls and rejected rises",
        groups=names(rows),
        says=f"The run teaches these groups the opposite of their labels. {told(rows)}.",
        advice="Chosen and rejected may be swapped in these groups, or the other groups pull against them: `prefdyn "
        "audit` names who.",
    )


def _torn(run: RunCurves) -> Remark | None:
    """Means fall far on both sides, though about as many pairs win as lose: one answer for all of the group."""
    rows: list[Row] = []
    for group in run.groups:
        if _falls_far(group, run) and _along(group) and group.falling < LIMITS.most:
            rows.append((group.moved("chosen_change"), group.name, _changes(group)))
    if not rows:
        return None
    return Remark(
        severity="warning",
        code="torn",
        title="Pairs pulled both ways",
        groups=names(rows),
        says="Both mean log-probabilities fall far, though about as many chosen responses gain as lose: what some "
        f"pairs of a group win, the others lose many times over. {told(rows)}.",
        advice="The model comes to give all of such a group one answer, as it does where labels contradict each "
        "other or look random to it. `prefdyn audit` tells which.",
    )


def _falls_far(group: GroupCurves, run: RunCurves) -> bool:
    per_token = 0.0 if math.isnan(group.tokens) or run.answers else LIMITS.falls_far_per_token * group.tokens
    return group.moved("chosen_change") <= -max(LIMITS.falls_far, per_token)


def _along(group: GroupCurves) -> bool:
    """The rejected response falls, and the chosen one not much less far."""
    rejected = group.moved("rejected_change")
    return rejected < 0 and group.moved("chosen_change") <= LIMITS.together * rejected


def _changes(group: GroupCurves) -> str:
    chosen, rejected = group.moved("chosen_change"), group.moved("rejected_change")
    text = f"chosen {signed(chosen)}, rejected {signed(rejected)} nats: {shares(chosen, rejected)}"
    if math.isnan(group.falling):
        return text
    return f"{text}; chosen falls in {percent(group.falling)} of {group.seen.pairs:,} pairs"


def _negative(run: RunCurves) -> Remark | None:
    """A negative chosen reward that is no alarm: said so, with what the margin is made of."""
    rows: list[Row] = []
    for group in run.groups:
        chosen, rejected = group.moved("chosen_change"), group.moved("rejected_change")
        if rejected < chosen <= -LIMITS.told and not (_falls_far(group, run) and _along(group)):
            rows.append((chosen, group.name, _changes(group)))
    if not rows:
        return None
    limit = f"{LIMITS.falls_far:g} nat"
    if not run.answers:
        limit += f" (or {LIMITS.falls_far_per_token:g} nats per token, where that is more)"
    return Remark(
        severity="note",
        code="negative",
        title="Both rewards are negative, which alone is no alarm",
        groups=names(rows),
        says="DPO sees the difference alone, and lowering rejected further than chosen raises the margin as well as "
        f"raising chosen does. {told(rows)}.",
        advice=f"Look again if the chosen response loses more than {limit} and falls at least a quarter as far as the "
        "rejected one.",
    )


def _turn(run: RunCurves) -> Remark | None:
    """The chosen response first rises, then falls."""
    rows: list[Row] = []
    for group in run.groups:
        curve = group.seen.curve("chosen_change")
        if len(curve.steps) < 3:
            continue
        values = curve.values - curve.values[0]
        top = int(np.argmax(values))
        rise, fall = float(values[top]), float(values[top] - values[-1])
        if 0 < top < len(values) - 1 and rise >= LIMITS.told and fall >= max(LIMITS.told, LIMITS.turned * rise):
            end = f"to {signed(float(values[-1]))} at step {curve.steps[-1]:,.0f}"
            rows.append((-fall, group.name, f"{signed(rise)} nats until step {curve.steps[top]:,.0f}, then down {end}"))
    if not rows:
        return None
    return Remark(
        severity="note",
        code="turn",
        title="The chosen reward rises, then falls",
        groups=names(rows),
        says=f"Change of the chosen log-probability: {told(rows)}.",
        advice="The margin goes on growing after the turn, from the rejected side. If the chosen responses "
        "themselves are wanted, stop near it.",
    )


def _way_of_beta(run: RunCurves) -> Remark | None:
    """Which way beta works, where it is far from what this run needs."""
    if run.objective not in ("sigmoid", "robust") or not run.beta > 0:
        return None
    far: list[Row] = []
    near: list[Row] = []
    for group in run.groups:
        ratio, loss = group.log_ratio, group.seen.last("loss")
        if ratio >= LIMITS.far and loss > LIMITS.unfinished:
            far.append((-ratio, group.name, f"{shown(ratio)} nats, loss {loss:.2f}"))
        elif 0 < ratio <= LIMITS.near and loss < LIMITS.finished:
            near.append((ratio, group.name, f"{shown(ratio)} nats, loss {loss:.2f}"))
    if not far and not near:
        return None
    says, advice = [], []
    if far:
        says.append(f"The log-ratio has moved far and the loss still pushes: {told(far)}.")
        advice.append(f"A larger beta than {shown(run.beta)} holds the policy nearer to its reference.")
    if near:
        says.append(f"The loss is done though the log-ratio has hardly moved: {told(near)}.")
        advice.append(f"A smaller beta than {shown(run.beta)} lets it go further.")
    return Remark(
        severity="note",
        code="beta",
        title="Which way beta works here",
        groups=(*names(far), *names(near)),
        says=f"The margin is beta, {shown(run.beta)}, times how far the log-ratio of chosen to rejected has moved. "
        + " ".join(says),
        advice=" ".join(advice),
    )


# accuracy -----------------------------------------------------------------------------------------------------------


def _below_chance(run: RunCurves) -> Remark | None:
    """The run moved a group's pairs the wrong way, beyond what chance does in one of so many groups."""
    rows: list[Row] = []
    for group in run.groups:
        cell = group.judge
        share = cell.last("reward_accuracy")
        if largest(cell.columns["margin"]) > 1e-9 and _below(share, cell.pairs) * len(run.groups) < RULES.level:
            text = f"{counted(share, cell.pairs)} {group.which} pairs, mean margin {shown(cell.last('margin'))}"
            rows.append((share, group.name, text))
    if not rows:
        return None
    flipped = (
        " The run was trained towards the rejected answers (flip), and these are flipped as well."
        if run.settings.get("flip")
        else ""
    )
    return Remark(
        severity="problem",
        code="below-chance",
        title="Reward accuracy below chance",
        groups=names(rows),
        says=f"The run moved most of these pairs the wrong way: {told(rows)}.{flipped}",
        advice="Chosen and rejected may be swapped in these groups, or other groups pull against them: `prefdyn "
        "audit` names who. A group that is wrong on held-out pairs alone fits its training pairs by what does not "
        "carry over.",
    )


def _below(share: float, pairs: int) -> float:
    """How probable so few right pairs are at even odds; NaN where nothing was measured."""
    return math.nan if math.isnan(share) else float(binom.cdf(round(share * pairs), pairs, 0.5))


def _behind(run: RunCurves) -> Remark | None:
    """Moved the right way, and the model still prefers the rejected response."""
    rows: list[Row] = []
    for group in run.groups:
        cell = group.judge
        reward, policy = cell.last("reward_accuracy"), cell.last("policy_accuracy")
        right = wilson_interval(reward * cell.pairs, cell.pairs)[0] > 0.5
        if right and wilson_interval(policy * cell.pairs, cell.pairs)[1] < 0.5:
            text = f"reward {percent(reward)}, policy {percent(policy)} of {cell.pairs:,} {group.which} pairs"
            rows.append((policy, group.name, f"{text}, at the start {percent(cell.first('policy_accuracy'))}"))
    if not rows:
        return None
    return Remark(
        severity="note",
        code="behind",
        title="Moved the right way, not there yet",
        groups=names(rows),
        says="Most margins are above 0, but the model still gives the rejected response the higher probability: "
        f"{told(rows)}.",
        advice="Reward accuracy says that training moved a pair the right way, policy accuracy which response the "
        "model now prefers. The start preferred rejected; more steps or a smaller beta go further.",
    )


def _coarse(run: RunCurves) -> Remark | None:
    """An accuracy that is only ever 0 or 1, over few pairs."""
    rows: list[Row] = []
    for group in run.groups:
        curve, pairs = group.judge.curve("reward_accuracy"), group.judge.pairs
        values = curve.values[curve.steps > 0]
        if len(values) and pairs < RULES.few_units and np.isin(values, (0.0, 1.0)).all():
            rows.append((pairs, group.name, f"{counted(float(values[-1]), pairs)} {group.which} pairs"))
    if not rows:
        return None
    return Remark(
        severity="note",
        code="coarse",
        title="Accuracies that are only 0 or 1",
        groups=names(rows),
        says=f"They rest on a few pairs: {told(rows)}.",
        advice="Read the interval, not the share. Hold more pairs out (a smaller --split), or take groups together.",
    )


def _trivial(run: RunCurves) -> Remark | None:
    """Right on nearly every held-out pair almost at once, or before any training."""
    soon: list[Row] = []
    before: list[Row] = []
    for group in run.groups:
        cell, bound = group.judge, RULES.trivial_accuracy
        if cell.pairs < RULES.few_units:
            continue
        known = cell.first("policy_accuracy")
        if known >= bound:
            before.append((-known, group.name, f"{percent(known)} of {cell.pairs:,}"))
            continue
        curve = cell.curve("reward_accuracy")
        wrong = np.flatnonzero(curve.values < bound)
        place = int(wrong[-1]) + 1 if len(wrong) else 0
        if place < len(curve.steps) and curve.steps[place] <= LIMITS.early * run.last:
            text = f"step {curve.steps[place]:,.0f} of {run.last:,.0f}, {cell.pairs:,} {group.which} pairs"
            soon.append((float(curve.steps[place]), group.name, text))
    if not soon and not before:
        return None
    says = []
    if soon:
        says.append(f"From the step named on, at least {percent(RULES.trivial_accuracy)} are right: {told(soon)}.")
    if before:
        says.append(f"The model prefers chosen before any training: {told(before)}.")
    return Remark(
        severity="note",
        code="trivial",
        title="Trivially separable",
        groups=(*names(soon), *names(before)),
        says=" ".join(says),
        advice="Such pairs teach little, and a loss near 0 on them is no sign that behaviour changed. `prefdyn "
        "audit` shows whether words or length alone tell chosen from rejected.",
    )


# losses -------------------------------------------------------------------------------------------------------------


def _collapsed(run: RunCurves) -> Remark | None:
    """A training loss near 0."""
    if run.objective not in _SATURATE or number(run.settings.get("label_smoothing")) > 0:
        return None
    rows: list[Row] = []
    for group in run.groups:
        curve = group.seen.curve("loss")
        if len(curve.steps) and curve.values[-1] < LIMITS.collapsed and curve.values[0] > LIMITS.moving:
            step = f"below {LIMITS.collapsed:g} since step {since(curve, LIMITS.collapsed):,.0f}"
            rows.append((float(curve.values[-1]), group.name, f"{shown(float(curve.values[-1]), 2)}, {step}"))
    if not rows:
        return None
    return Remark(
        severity="warning",
        code="collapsed",
        title="The loss has collapsed to 0",
        groups=names(rows),
        says=f"Training loss at the end: {told(rows)}. Steps after that change little, or only fit what is left.",
        advice="Stop near that step. If it came at once, the pairs are trivial or the learning rate is large; if "
        "the model is no better for it, the pairs are told apart by something that the answers themselves do not "
        "need.",
    )


def _memorised(run: RunCurves) -> Remark | None:
    """Training loss falls, held-out loss does not."""
    rows: list[Row] = []
    for group in run.groups:
        if group.train is None or group.held_out is None or group.held_out.pairs < RULES.few_units:
            continue
        train, held = (cell.first("loss") - cell.last("loss") for cell in (group.train, group.held_out))
        if train > RULES.memorised_fall and held < RULES.memorised_share * train:
            text = f"training {signed(-train)}, held-out {signed(-held)} nats, {group.held_out.pairs:,} held-out pairs"
            rows.append((held - train, group.name, text))
    if not rows:
        return None
    return Remark(
        severity="warning",
        code="memorised",
        title="Training pairs are memorised",
        groups=names(rows),
        says=f"The training loss falls, the held-out loss by less than a tenth of that: {told(rows)}.",
        advice="The run fits pairs, not the preference: more data, fewer steps, or see whether the labels are noise.",
    )


def _overfit(run: RunCurves) -> Remark | None:
    """The held-out loss has turned."""
    rows: list[Row] = []
    for group in run.groups:
        if group.train is None or group.held_out is None or group.held_out.pairs < RULES.few_units:
            continue
        curve = group.held_out.curve("loss")
        if len(curve.steps) < 3:
            continue
        low = int(np.argmin(curve.values))
        fall, rise = float(curve.values[0] - curve.values[low]), float(curve.values[-1] - curve.values[low])
        if low > 0 and fall >= LIMITS.rises and rise >= max(LIMITS.rises, LIMITS.turned * fall):
            text = f"{curve.values[low]:.3f} at step {curve.steps[low]:,.0f}, {curve.values[-1]:.3f} at the end"
            rows.append((-rise, group.name, text))
    if not rows:
        return None
    return Remark(
        severity="warning",
        code="overfit",
        title="The held-out loss has turned",
        groups=names(rows),
        says=f"Its least value and its last: {told(rows)}.",
        advice="Stop near the least value; what comes after fits the training pairs.",
    )


RULES_OF_CURVES: tuple[Callable[[RunCurves], Remark | None], ...] = (
    _not_finite,
    _displaced,
    _reversed,
    _below_chance,
    _torn,
    _start,
    _memorised,
    _overfit,
    _collapsed,
    _coarse,
    _negative,
    _turn,
    _trivial,
    _behind,
    _way_of_beta,
)
