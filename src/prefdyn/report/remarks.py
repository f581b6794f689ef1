"""Rules that look at a run's curves, each for one thing that people ask about DPO's curves.

A rule names the groups it is about, what was measured and what to do, and is silent where there is nothing to say. Most
are a line of the table `RULES_OF_CURVES`: a predicate of one group, and the sentence for the groups that it holds of. A
negative chosen reward alone is no alarm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binom

from prefdyn._json import number
from prefdyn.diagnostics.inference import wilson_interval
from prefdyn.planning.verdicts import Thresholds
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


Words = str | Callable[[RunCurves], str]
"""A sentence, or what makes it from the run."""
Held = tuple[float, str] | None
"""None where a rule does not hold of a group, else how far up the list it belongs (the least come first), and its
numbers."""
Predicate = Callable[[GroupCurves, RunCurves], Held]


@dataclass(frozen=True, slots=True)
class GroupFinding:
    """Something else that a rule looks for in every group, and how it is told."""

    of: Predicate
    says: Words
    """With `{}` where the groups and their numbers stand."""
    advice: Words = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A remark that is made where one of its findings holds of a group."""

    severity: Severity
    code: str
    title: str
    of: Predicate = lambda *_: None
    says: Words = ""
    """With `{}` where the groups and their numbers stand; without, it stands before what else was found."""
    more: tuple[GroupFinding, ...] = ()
    advice: Words = ""
    when: Callable[[RunCurves], bool] = lambda _: True
    """Runs that it is about."""

    def __call__(self, run: RunCurves) -> Remark | None:
        """The remark; None where there is nothing to say."""
        if not self.when(run):
            return None
        own = _rows(self.of, run)
        found = [(each, rows) for each in self.more if (rows := _rows(each.of, run))]
        if not own and not found:
            return None
        says = [_told(self.says, run, own)] if own or "{}" not in _words(self.says, run) else []
        groups = [name for rows in (own, *(rows for _, rows in found)) for name in names(rows)]
        return Remark(
            severity=self.severity,
            code=self.code,
            title=self.title,
            groups=tuple(groups),
            says=" ".join([*says, *(_told(each.says, run, rows) for each, rows in found)]),
            advice=" ".join(filter(None, [_words(self.advice, run), *(_words(each.advice, run) for each, _ in found)])),
        )


def _rows(of: Predicate, run: RunCurves) -> list[Row]:
    return [(found[0], group.name, found[1]) for group in run.groups if (found := of(group, run)) is not None]


def _told(text: Words, run: RunCurves, rows: Sequence[Row]) -> str:
    return _words(text, run).replace("{}", told(rows))


def _words(text: Words, run: RunCurves) -> str:
    return text if isinstance(text, str) else text(run)


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


def _changed(holds: Callable[[GroupCurves, RunCurves], bool]) -> Predicate:
    """Groups that this holds of, with both changes of their log-probabilities, the chosen that fell furthest first."""
    return lambda group, run: (group.moved("chosen_change"), _changes(group)) if holds(group, run) else None


def _no_alarm(group: GroupCurves, run: RunCurves) -> bool:
    """The chosen reward is negative, and that is all."""
    chosen, rejected = group.moved("chosen_change"), group.moved("rejected_change")
    return rejected < chosen <= -LIMITS.told and not _both_fall(group, run)


def _turn(group: GroupCurves, _: RunCurves) -> Held:
    """The chosen response first rises, then falls."""
    curve = group.seen.curve("chosen_change")
    if len(curve.steps) < 3:
        return None
    values = curve.values - curve.values[0]
    top = int(np.argmax(values))
    rise, fall = float(values[top]), float(values[top] - values[-1])
    if not (0 < top < len(values) - 1 and rise >= LIMITS.told and fall >= max(LIMITS.told, LIMITS.turned * rise)):
        return None
    end = f"to {signed(float(values[-1]))} at step {curve.steps[-1]:,.0f}"
    return -fall, f"{signed(rise)} nats until step {curve.steps[top]:,.0f}, then down {end}"


def _far(group: GroupCurves, _: RunCurves) -> Held:
    """The log-ratio has moved far and the loss still pushes."""
    ratio, loss = group.log_ratio, group.seen.last("loss")
    holds = ratio >= LIMITS.far and loss > LIMITS.unfinished
    return (-ratio, f"{shown(ratio)} nats, loss {loss:.2f}") if holds else None


def _near(group: GroupCurves, _: RunCurves) -> Held:
    """The loss is done though the log-ratio has hardly moved."""
    ratio, loss = group.log_ratio, group.seen.last("loss")
    holds = 0 < ratio <= LIMITS.near and loss < LIMITS.finished
    return (ratio, f"{shown(ratio)} nats, loss {loss:.2f}") if holds else None


def _falls_far(group: GroupCurves, run: RunCurves) -> bool:
    per_token = 0.0 if math.isnan(group.tokens) or run.answers else LIMITS.falls_far_per_token * group.tokens
    return group.moved("chosen_change") <= -max(LIMITS.falls_far, per_token)


def _both_fall(group: GroupCurves, run: RunCurves) -> bool:
    """Chosen falls far, and rejected falls, not much further."""
    chosen, rejected = group.moved("chosen_change"), group.moved("rejected_change")
    return _falls_far(group, run) and rejected < 0 and chosen <= LIMITS.together * rejected


def _changes(group: GroupCurves) -> str:
    chosen, rejected = group.moved("chosen_change"), group.moved("rejected_change")
    text = f"chosen {signed(chosen)}, rejected {signed(rejected)} nats: {shares(chosen, rejected)}"
    if math.isnan(group.falling):
        return text
    return f"{text}; chosen falls in {percent(group.falling)} of {group.seen.pairs:,} pairs"


def _much(run: RunCurves) -> str:
    """How much of the chosen response's log-probability is far, in words."""
    limit = f"{LIMITS.falls_far:g} nat"
    return limit if run.answers else f"{limit} (or {LIMITS.falls_far_per_token:g} nats per token, where that is more)"


# accuracy -----------------------------------------------------------------------------------------------------------


def _below_chance(group: GroupCurves, run: RunCurves) -> Held:
    """The run moved a group's pairs the wrong way, beyond what chance does in one of so many groups."""
    cell = group.judge
    share = cell.last("reward_accuracy")
    if not (largest(cell.columns["margin"]) > 1e-9 and _below(share, cell.pairs) * len(run.groups) < RULES.level):
        return None
    return share, f"{counted(share, cell.pairs)} {group.which} pairs, mean margin {shown(cell.last('margin'))}"


def _below(share: float, pairs: int) -> float:
    """How probable so few right pairs are at even odds; NaN where nothing was measured."""
    return math.nan if math.isnan(share) else float(binom.cdf(round(share * pairs), pairs, 0.5))


def _behind(group: GroupCurves, _: RunCurves) -> Held:
    """Moved the right way, and the model still prefers the rejected response."""
    cell = group.judge
    reward, policy = cell.last("reward_accuracy"), cell.last("policy_accuracy")
    right = wilson_interval(reward * cell.pairs, cell.pairs)[0] > 0.5
    if not (right and wilson_interval(policy * cell.pairs, cell.pairs)[1] < 0.5):
        return None
    text = f"reward {percent(reward)}, policy {percent(policy)} of {cell.pairs:,} {group.which} pairs"
    return policy, f"{text}, at the start {percent(cell.first('policy_accuracy'))}"


def _coarse(group: GroupCurves, _: RunCurves) -> Held:
    """An accuracy that is only ever 0 or 1, over few pairs."""
    curve, pairs = group.judge.curve("reward_accuracy"), group.judge.pairs
    values = curve.values[curve.steps > 0]
    holds = len(values) and pairs < RULES.few_units and np.isin(values, (0.0, 1.0)).all()
    return (pairs, f"{counted(float(values[-1]), pairs)} {group.which} pairs") if holds else None


def _right_before(group: GroupCurves, _: RunCurves) -> Held:
    """Right on nearly every pair before any training."""
    cell = group.judge
    known = cell.first("policy_accuracy")
    holds = cell.pairs >= RULES.few_units and known >= RULES.trivial_accuracy
    return (-known, f"{percent(known)} of {cell.pairs:,}") if holds else None


def _right_soon(group: GroupCurves, run: RunCurves) -> Held:
    """Right on nearly every pair almost at once, and not before."""
    cell, curve = group.judge, group.judge.curve("reward_accuracy")
    if cell.pairs < RULES.few_units or _right_before(group, run) is not None:
        return None
    wrong = np.flatnonzero(curve.values < RULES.trivial_accuracy)
    place = int(wrong[-1]) + 1 if len(wrong) else 0
    if place == len(curve.steps) or curve.steps[place] > LIMITS.early * run.last:
        return None
    step = curve.steps[place]
    return float(step), f"step {step:,.0f} of {run.last:,.0f}, {cell.pairs:,} {group.which} pairs"


# losses -------------------------------------------------------------------------------------------------------------


def _still(group: GroupCurves, _: RunCurves) -> Held:
    """A loss that does not move."""
    far = group.distance("loss")
    return (far, f"{far:.2g}") if far < LIMITS.still else None


def _middle(run: RunCurves) -> float:
    """How far the middle group's loss moves; NaN under two groups."""
    moved = [far for group in run.groups if not math.isnan(far := group.distance("loss"))]
    return float(np.median(moved)) if len(moved) > 1 else math.nan


def _collapsed(group: GroupCurves, _: RunCurves) -> Held:
    """A training loss near 0."""
    curve = group.seen.curve("loss")
    if not (len(curve.steps) and curve.values[-1] < LIMITS.collapsed and curve.values[0] > LIMITS.moving):
        return None
    last, step = float(curve.values[-1]), since(curve, LIMITS.collapsed)
    return last, f"{shown(last, 2)}, below {LIMITS.collapsed:g} since step {step:,.0f}"


def _memorised(group: GroupCurves, _: RunCurves) -> Held:
    """Training loss falls, held-out loss does not."""
    if group.train is None or group.held_out is None or group.held_out.pairs < RULES.few_units:
        return None
    train, held = (cell.first("loss") - cell.last("loss") for cell in (group.train, group.held_out))
    if not (train > RULES.memorised_fall and held < RULES.memorised_share * train):
        return None
    pairs = f"{group.held_out.pairs:,} held-out pairs"
    return held - train, f"training {signed(-train)}, held-out {signed(-held)} nats, {pairs}"


def _overfit(group: GroupCurves, _: RunCurves) -> Held:
    """The held-out loss has turned."""
    if group.train is None or group.held_out is None or group.held_out.pairs < RULES.few_units:
        return None
    curve = group.held_out.curve("loss")
    if len(curve.steps) < 3:
        return None
    low = int(np.argmin(curve.values))
    fall, rise = float(curve.values[0] - curve.values[low]), float(curve.values[-1] - curve.values[low])
    if not (low > 0 and fall >= LIMITS.rises and rise >= max(LIMITS.rises, LIMITS.turned * fall)):
        return None
    return -rise, f"{curve.values[low]:.3f} at step {curve.steps[low]:,.0f}, {curve.values[-1]:.3f} at the end"


# the table ----------------------------------------------------------------------------------------------------------

RULES_OF_CURVES: tuple[Callable[[RunCurves], Remark | None], ...] = (
    Rule(
        severity="warning",
        code="some-stuck",
        title="Some groups do not move",
        when=lambda run: _middle(run) >= LIMITS.moving,
        of=_still,
        says=lambda run: (
            f"The middle group's training loss moves by {_middle(run):.2f} nats, these by less than {LIMITS.still:g}: "
            "{}."
        ),
        advice="Their labels look random to the model, or the other groups pull against them. `prefdyn audit` tells "
        "the two apart; trained alone, a crowded-out group moves.",
    ),
    _not_finite,
    Rule(
        severity="problem",
        code="displaced",
        title="The chosen responses become much less likely",
        of=_changed(lambda group, run: _both_fall(group, run) and not group.falling < LIMITS.most),
        says="Chosen and rejected fall together, and the margin is only what is left between them. {}.",
        advice="Where both responses of a pair fall, their probability goes to responses that are in no pair. Look at "
        "what chosen and rejected share (near duplicates push each other down), take fewer steps, a smaller learning "
        "rate or a larger beta, or add a likelihood term on the chosen responses (in TRL: loss_type sigmoid and sft "
        "together).",
    ),
    Rule(
        severity="problem",
        code="reversed",
        title="Chosen falls and rejected rises",
        of=_changed(lambda group, run: _falls_far(group, run) and group.moved("rejected_change") >= 0),
        says="The run teaches these groups the opposite of their labels. {}.",
        advice="Chosen and rejected may be swapped in these groups, or the other groups pull against them: `prefdyn "
        "audit` names who.",
    ),
    Rule(
        severity="problem",
        code="below-chance",
        title="Reward accuracy below chance",
        of=_below_chance,
        says=lambda run: (
            "The run moved most of these pairs the wrong way: {}."
            + (
                " The run was trained towards the rejected answers (flip), and these are flipped as well."
                if run.settings.get("flip")
                else ""
            )
        ),
        advice="Chosen and rejected may be swapped in these groups, or other groups pull against them: `prefdyn "
        "audit` names who. A group that is wrong on held-out pairs alone fits its training pairs by what does not "
        "carry over.",
    ),
    Rule(
        severity="warning",
        code="torn",
        title="Pairs pulled both ways",
        of=_changed(lambda group, run: _both_fall(group, run) and group.falling < LIMITS.most),
        says="Both mean log-probabilities fall far, though about as many chosen responses gain as lose: what some "
        "pairs of a group win, the others lose many times over. {}.",
        advice="The model comes to give all of such a group one answer, as it does where labels contradict each "
        "other or look random to it. `prefdyn audit` tells which.",
    ),
    _start,
    Rule(
        severity="warning",
        code="memorised",
        title="Training pairs are memorised",
        of=_memorised,
        says="The training loss falls, the held-out loss by less than a tenth of that: {}.",
        advice="The run fits pairs, not the preference: more data, fewer steps, or see whether the labels are noise.",
    ),
    Rule(
        severity="warning",
        code="overfit",
        title="The held-out loss has turned",
        of=_overfit,
        says="Its least value and its last: {}.",
        advice="Stop near the least value; what comes after fits the training pairs.",
    ),
    Rule(
        severity="warning",
        code="collapsed",
        title="The loss has collapsed to 0",
        when=lambda run: run.objective in _SATURATE and not number(run.settings.get("label_smoothing")) > 0,
        of=_collapsed,
        says="Training loss at the end: {}. Steps after that change little, or only fit what is left.",
        advice="Stop near that step. If it came at once, the pairs are trivial or the learning rate is large; if "
        "the model is no better for it, the pairs are told apart by something that the answers themselves do not "
        "need.",
    ),
    Rule(
        severity="note",
        code="coarse",
        title="Accuracies that are only 0 or 1",
        of=_coarse,
        says="They rest on a few pairs: {}.",
        advice="Read the interval, not the share. Hold more pairs out (a smaller --split), or take groups together.",
    ),
    Rule(
        severity="note",
        code="negative",
        title="Both rewards are negative, which alone is no alarm",
        of=_changed(_no_alarm),
        says="DPO sees the difference alone, and lowering rejected further than chosen raises the margin as well as "
        "raising chosen does. {}.",
        advice=lambda run: (
            f"Look again if the chosen response loses more than {_much(run)} and falls at least a "
            "quarter as far as the rejected one."
        ),
    ),
    Rule(
        severity="note",
        code="turn",
        title="The chosen reward rises, then falls",
        of=_turn,
        says="Change of the chosen log-probability: {}.",
        advice="The margin goes on growing after the turn, from the rejected side. If the chosen responses "
        "themselves are wanted, stop near it.",
    ),
    Rule(
        severity="note",
        code="trivial",
        title="Trivially separable",
        of=_right_soon,
        says=f"From the step named on, at least {percent(RULES.trivial_accuracy)} are right: {{}}.",
        more=(GroupFinding(_right_before, "The model prefers chosen before any training: {}."),),
        advice="Such pairs teach little, and a loss near 0 on them is no sign that behaviour changed. `prefdyn "
        "audit` shows whether words or length alone tell chosen from rejected.",
    ),
    Rule(
        severity="note",
        code="behind",
        title="Moved the right way, not there yet",
        of=_behind,
        says="Most margins are above 0, but the model still gives the rejected response the higher probability: {}.",
        advice="Reward accuracy says that training moved a pair the right way, policy accuracy which response the "
        "model now prefers. The start preferred rejected; more steps or a smaller beta go further.",
    ),
    Rule(
        severity="note",
        code="beta",
        title="Which way beta works here",
        when=lambda run: run.objective in ("sigmoid", "robust") and run.beta > 0,
        says=lambda run: (
            f"The margin is beta, {shown(run.beta)}, times how far the log-ratio of chosen to rejected has moved."
        ),
        more=(
            GroupFinding(
                _far,
                "The log-ratio has moved far and the loss still pushes: {}.",
                lambda run: f"A larger beta than {shown(run.beta)} holds the policy nearer to its reference.",
            ),
            GroupFinding(
                _near,
                "The loss is done though the log-ratio has hardly moved: {}.",
                lambda run: f"A smaller beta than {shown(run.beta)} lets it go further.",
            ),
        ),
    ),
)
"""What is looked for, in the order in which remarks of one severity are told."""
