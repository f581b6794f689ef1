"""What each curve of a run is, with what this run made of it: means over all pairs of the joint run."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from prefdyn.report.run_curves import RunCurves, signed
from prefdyn.report.tables import shown


def explained(summary: Mapping[str, Any], trajectory: pa.Table) -> list[tuple[str, str]]:
    """A term and a paragraph for each quantity that the run measured.

    Args:
        summary: The content of summary.json.
        trajectory: The run, with the columns of a Trajectory.
    """
    run = RunCurves.of(summary, trajectory, None, None)
    return [] if not run.groups else [*_loss(run), *_rewards(run), *_log_probs(run), *_accuracies(run), *_weights(run)]


def _loss(run: RunCurves) -> Iterator[tuple[str, str]]:
    start, end, held = (
        _mean(run, "loss", "train", 0),
        _mean(run, "loss", "train", -1),
        _mean(run, "loss", "held_out", -1),
    )
    if math.isnan(end):
        return
    level = " = log 2, where policy and reference agree" if abs(start - math.log(2)) < 1e-6 else ""
    text = f"It starts at {start:.3f}{level}, and ends at {end:.3f} on training pairs"
    text += f" and {held:.3f} on held-out ones" if not math.isnan(held) else ""
    yield "Loss", text + ". Equal losses of different objectives do not mean the same."


def _rewards(run: RunCurves) -> Iterator[tuple[str, str]]:
    margin, beta = _mean(run, "margin", "train", -1), run.beta
    if math.isnan(margin):
        return
    parts = [_mean(run, f"{side}_change", "train", -1) for side in ("chosen", "rejected")]
    text = (
        "The reward of a response is beta times the change of its log-probability against the reference; the margin is "
    )
    if math.isnan(beta) or any(map(math.isnan, parts)) or run.objective in ("ipo", "sigmoid_norm"):
        text += f"chosen less rejected, here {signed(margin)} at the end."
    else:
        text += (
            f"chosen less rejected. Here beta is {shown(beta)}: {signed(beta * parts[0])} for chosen, "
            f"{signed(beta * parts[1])} for rejected, a margin of {signed(margin)}."
        )
    yield "Rewards and margin", text + " Only the margin enters the loss."


def _log_probs(run: RunCurves) -> Iterator[tuple[str, str]]:
    chosen, rejected = (_mean(run, f"{side}_change", "train", -1) for side in ("chosen", "rejected"))
    if math.isnan(chosen) or math.isnan(rejected):
        return
    falling = _mean(run, "chosen_falling", "train", -1)
    text = (
        f"Chosen moved by {signed(chosen)} nats, rejected by {signed(rejected)}: "
        f"{signed((chosen + rejected) / 2)} that both share, which the loss does not see, and "
        f"{signed((chosen - rejected) / 2)} each way between them, which it does."
    )
    if not math.isnan(falling):
        text += (
            f" {100 * falling:.3g} % of training pairs have a chosen response that is less likely than at the start."
        )
    yield "Log-probabilities", text


def _accuracies(run: RunCurves) -> Iterator[tuple[str, str]]:
    split, word = ("held_out", "held-out") if any(group.held_out for group in run.groups) else ("train", "training")
    reward, policy = _mean(run, "reward_accuracy", split, -1), _mean(run, "policy_accuracy", split, -1)
    if math.isnan(reward):
        return
    pairs = sum(cell.pairs for group in run.groups if (cell := getattr(group, split)) is not None)
    text = (
        f"Reward accuracy is the share of pairs whose margin is above 0, that is, that training moved the right way: "
        f"{100 * reward:.3g} % of {pairs:,} {word} pairs. It is 0 before the first step."
    )
    if not math.isnan(policy):
        start = _mean(run, "policy_accuracy", split, 0)
        text += (
            " Policy accuracy is the share whose chosen response the model itself finds the likelier: "
            f"{100 * policy:.3g} %, {100 * start:.3g} % at the start. The two need not agree."
        )
    yield "Two accuracies", text


def _weights(run: RunCurves) -> Iterator[tuple[str, str]]:
    drift = max((group.seen.last("drift") for group in run.groups), default=math.nan)
    if math.isnan(drift):
        return
    text = f"The Frobenius norm of the change of all that is trained: {shown(drift)} at the end."
    first, last = (_mean(run, "gradient_norm", "train", place) for place in (0, -1))
    if not math.isnan(first) and not math.isnan(last):
        text += (
            f" The gradient of a group's mean loss in the head has norm {shown(first)} at the start and "
            f"{shown(last)} at the end (mean over groups): it fades as the margins grow."
        )
    yield "Drift and gradient" if "gradient" in text else "Drift", text


def _mean(run: RunCurves, quantity: str, split: Literal["train", "held_out"], place: Literal[0, -1]) -> float:
    """Mean over all pairs of a split at the first or the last step that each group has it measured."""
    found = [cell for group in run.groups if (cell := getattr(group, split)) is not None]
    values = np.array([cell.last(quantity) if place else cell.first(quantity) for cell in found])
    pairs = np.array([cell.pairs for cell in found], dtype=np.float64)
    known = np.isfinite(values)
    return float(np.average(values[known], weights=pairs[known])) if pairs[known].sum() > 0 else math.nan
