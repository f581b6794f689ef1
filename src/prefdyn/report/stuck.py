"""Why a loss stands still: the usual causes, each ruled in or out by the run's own numbers."""

import math
from collections.abc import Callable

import numpy as np

from prefdyn._json import number
from prefdyn.report.remarks import LIMITS, Remark
from prefdyn.report.run_curves import RunCurves, largest
from prefdyn.report.tables import shown


def stuck(run: RunCurves) -> Remark | None:
    """No group's loss moves; which of the usual causes this run's numbers rule in or out."""
    moved = [far for group in run.groups if not math.isnan(far := group.distance("loss"))]
    if not moved or max(moved) >= LIMITS.still:
        return None
    start = float(np.mean([group.seen.first("loss") for group in run.groups]))
    level = "log 2 = 0.693" if abs(start - math.log(2)) < 1e-3 else f"{start:.3f}"
    causes = [text for cause in _CAUSES if (text := cause(run))]
    return Remark(
        severity="problem",
        code="stuck",
        title=f"The loss stays at {level.split(' =')[0]}",
        groups=(),
        says=f"In {run.last:,.0f} steps no group's training loss moves by more than {shown(max(moved), 2)} nats from "
        f"{level}. " + " ".join(causes),
        advice="Act on the first cause that is not ruled out: something trainable that the loss reaches, a beta "
        "above 0, a learning rate that moves the margin, then the pairs themselves (`prefdyn audit` says whether "
        "their labels look random to the model, and whether groups pull against each other).",
    )


def _gradient(run: RunCurves) -> str:
    norms = np.zeros(0)
    if run.updates is not None and "grad_norm" in run.updates.schema.names:
        norms = np.array([number(value) for value in run.updates["grad_norm"].to_pylist()])
        whose = "of all that is trained"
    else:
        parts = [group.seen.columns["gradient_norm"] for group in run.groups]
        norms, whose = np.concatenate(parts) if parts else norms, "in the head"
    norms = norms[np.isfinite(norms)]
    if not len(norms):
        return ""
    if norms.max() == 0:
        return (
            f"The gradient {whose} is 0 at every step: nothing that is trained reaches the loss, because no "
            "parameter is trainable, or because chosen and rejected are the same text."
        )
    return f"The gradient {whose} is not 0 (norm {shown(norms.max())} at most), so the pairs do pull."


def _weights(run: RunCurves) -> str:
    drift = max((largest(group.seen.columns["drift"]) for group in run.groups), default=0.0)
    if all(np.isnan(group.seen.columns["drift"]).all() for group in run.groups):
        return ""
    if drift == 0:
        return "The weights did not move at all: the optimizer does not hold them, or the learning rate is 0."
    return f"The weights moved (by {shown(drift)}, Frobenius norm)."


def _rate(run: RunCurves) -> str:
    """How many steps the loss would take at its pace, where it goes one way."""
    fall = -float(np.nanmedian([group.moved("loss") for group in run.groups]))
    if not fall > 1e-9:
        return "The middle group's loss does not fall, so more steps alone change nothing."
    needed = LIMITS.moving * run.last / fall
    return (
        f"At its pace ({shown(fall / run.last, 2)} nats per step) the middle group's loss takes {needed:,.0f} steps "
        f"to fall by {LIMITS.moving:g}: the learning rate, {shown(run.settings.get('learning_rate'))}, is too small "
        f"for {run.last:,.0f} steps by a factor of about {needed / run.last:,.0f}."
    )


def _too_small_beta(run: RunCurves) -> str:
    ratios = [abs(group.log_ratio) for group in run.groups if math.isfinite(group.log_ratio)]
    if run.beta == 0:
        return "beta is 0, so no margin can move."
    if ratios and max(ratios) >= 1:
        return (
            f"The policy did move: the log-ratio of chosen to rejected by up to {shown(max(ratios))} nats, of which "
            f"beta = {shown(run.beta)} leaves a margin of {shown(run.beta * max(ratios), 2)}. beta is what is too "
            "small."
        )
    return f"beta is {shown(run.beta)}, and log-ratios moved by {shown(max(ratios), 2)} nats at most." if ratios else ""


def _noise(run: RunCurves) -> str:
    start = number(run.settings.get("start_margin"))
    most = max((largest(group.seen.columns["margin"]) for group in run.groups), default=0.0)
    if math.isnan(start) or start <= 1e-6:
        return ""
    verb = "drowns" if start >= most else "does not drown"
    return (
        f"Rounding before the first step, up to {shown(start, 2)} per margin, {verb} mean margins of up to "
        f"{shown(most, 2)}."
    )


_CAUSES: tuple[Callable[[RunCurves], str], ...] = (_gradient, _weights, _too_small_beta, _rate, _noise)
