r"""Full-batch gradient descent on the head, exactly, from features alone.

With features frozen, margins are linear in the head's change $\theta$ (THEORY 1.2, 1.3):

$$ r_i = \beta \langle \phi_i, \theta \rangle, \qquad
   \theta \leftarrow \theta + \frac{\eta \beta}{\sum_j w_j} \sum_i w_i\, h(r_i)\, \phi_i, \qquad h = -f'. $$

For one-token answers this *is* DPO on the unembedding matrix, step by step, and log-probabilities are exact too. For
longer responses it is first order in the head's movement.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from prefdyn._checks import at_least, positive
from prefdyn._progress import track
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.kernel import PairKernel
from prefdyn.maths.objectives import DPO, Objective
from prefdyn.trajectory import Trajectory

SPLITS = ("train", "held_out")


def descent(
    feats: FeatureSet,
    objective: Objective | None = None,
    *,
    learning_rate: float | Literal["auto"] = "auto",
    steps: int = 100,
    alone: bool = True,
    record: Literal["log", "all"] | Sequence[int] = "log",
    margins_at: Iterable[int] = (),
    progress: bool = False,
) -> Trajectory:
    r"""Simulated last-layer training: all groups jointly, and each group by itself.

    Trains on the pairs that are not held out; measures both splits. Same input, same bytes.

    Args:
        feats: Features of either kind.
        objective: The loss of the margin; `DPO(beta=0.1)` if not given.
        learning_rate: Step size $\eta$ of plain gradient descent, or "auto": `stable_learning_rate`.
        steps: Full-batch steps, at least 1.
        alone: Also run every group by itself (rows with run "alone").
        record: Steps to measure: "log" (0, 1, 2, … thinning out, and the last), "all", or the steps themselves.
        margins_at: Steps at which to keep the margin and chosen change of every pair in the joint run.
        progress: Show bars on stderr where it is a terminal.

    Returns:
        A Trajectory. Quantities that need reference log-probabilities are null where the features carry none.

    Raises:
        ConfigError: A setting is out of range, or a step to record lies beyond the last.
        DataError: No pair is left to train on.

    Reference:
        2403.18742, Eq. 11 with the sign of THEORY X-1; 2408.03459, Lemma 4.1 in its exact discrete form.

    Example:
        >>> feats = FeatureSet.from_arrays(
        ...     [[1, 0], [2, 1], [-1, 0], [0, -1]], chosen=["Yes", "Yes", "No", "No"],
        ...     rejected=["No", "No", "Yes", "Yes"], tokens=["Yes", "No"])
        >>> run = descent(feats, DPO(beta=0.5), learning_rate=0.4, steps=3, margins_at=[3])
        >>> run.margins[3].round(6).tolist()
        [0.27477, 0.688729, 0.27477, 0.13919]
        >>> round(run.final("loss", group="all"), 9)
        0.540812999
    """
    objective = objective or DPO()
    steps = at_least(steps, 1, name="steps")
    if feats.held_out.all():
        raise DataError(
            f"all {len(feats)} pairs are held out, so nothing is left to train on; lower the held-out share"
        )
    rate = stable_learning_rate(feats, objective) if learning_rate == "auto" else learning_rate
    positive(rate, name="learning_rate", fix="give a number above 0 or 'auto'")
    recorded = recorded_steps(steps, record)
    kept = sorted({at_least(step, 0, name="margins_at") for step in margins_at})
    if kept and kept[-1] > steps:
        raise ConfigError(f"margins_at asks for step {kept[-1]}, but the run ends at step {steps}")

    problem = _Problem.of(feats)
    joint = _run(problem, "joint", objective, rate, steps, recorded, kept, progress=progress)
    rows = joint.rows
    heads = {}
    if alone:
        for code in track(range(len(feats.groups)), "Groups alone", unit="groups", shown=progress):
            members = feats.members(code)
            if len(members) and not feats.held_out[members].all():
                by_itself = _run(problem.rows(members), "alone", objective, rate, steps, recorded, [])
                rows += by_itself.rows
                heads[feats.groups[code]] = by_itself.head
    settings = {
        "objective": objective.name,
        "beta": objective.beta,
        "learning_rate": float(rate),
        "learning_rate_rule": "half of the largest stable step" if learning_rate == "auto" else "given",
        "optimizer": "sgd",
        "schedule": "constant",
        "batch_size": "full",
        "steps": steps,
        "compute_dtype": str(problem.kernel.features.dtype),
    }
    return Trajectory.from_rows(
        rows,
        settings=settings,
        margins=joint.margins,
        chosen_changes=joint.chosen_changes,
        joint_head=joint.head,
        alone_heads=heads,
        provenance=feats.provenance,
    )


def stable_learning_rate(feats: FeatureSet, objective: Objective) -> float:
    r"""Half of the largest step that is stable for the joint run and for every group alone.

    Full-batch descent on a loss with curvature at most $\kappa$ never increases while
    $\eta \le 2 \sum w / (\kappa \beta^2 \lambda_{\max}(C_w))$ with $C_w = \sqrt{w_i w_j}\, C_{ij}$; for DPO
    $\kappa = 1/4$, so $8 n / (\beta^2 \lambda_{\max}(C))$, for GPO's IPO $\kappa = 2$ (THEORY 9).

    Raises:
        ConfigError: The loss has a kink (SLiC), so that no step is small enough.
        DataError: Every training feature is zero, so no step changes anything.

    Example:
        >>> feats = FeatureSet.from_arrays([[1.0, 0], [0, 1]], chosen=[0, 1], rejected=[1, 0])
        >>> round(stable_learning_rate(feats, DPO(beta=1.0)), 9)  # C = 2 I and n = 2, so the limit is 8
        4.0
    """
    if math.isinf(objective.curvature):
        raise ConfigError(
            f"the loss {objective.name!r} has a kink, so no step is small enough to be stable; give learning_rate a "
            "number in place of 'auto'"
        )
    kernel, weight = feats.working_kernel(), feats.weight
    train = np.flatnonzero(~feats.held_out)
    runs = [train] + [rows for code in range(len(feats.groups)) if len(rows := train[feats.group[train] == code])]
    limits = []
    for rows in runs:
        part = kernel.rows(rows)
        scaled = PairKernel(
            answers=part.answers * np.sqrt(weight[rows])[:, None].astype(part.answers.dtype), features=part.features
        )
        largest = scaled.largest_eigenvalue()
        if largest > 0:
            limits.append(2 * weight[rows].sum() / (objective.curvature * objective.beta**2 * largest))
    if not limits:
        raise DataError("every training feature is zero, so no step changes anything; check the model's weights")
    return float(min(limits) / 2)


def recorded_steps(steps: int, record: Literal["log", "all"] | Sequence[int] = "log") -> list[int]:
    """The steps at which a run of `steps` steps is measured; 0 and the last are always among them.

    Example:
        >>> recorded_steps(100)
        [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 16, 19, 23, 28, 33, 40, 48, 58, 69, 83, 100]
    """
    if record == "all":
        return list(range(steps + 1))
    if record == "log":
        count = 2 + round(12 * np.log10(steps))
        chosen = np.unique(np.round(np.geomspace(1, steps, count)).astype(int)) if steps > 1 else np.array([1])
        return [0, *chosen.tolist()]
    asked = sorted({at_least(step, 0, name="record") for step in record} | {0, steps})
    if asked[-1] > steps:
        raise ConfigError(f"record asks for step {asked[-1]}, but the run ends at step {steps}")
    return asked


# one run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """Everything a run needs of its pairs, as arrays."""

    kernel: PairKernel
    basis: Float[np.ndarray, "k p"]
    group: Int[np.ndarray, " n"]
    groups: tuple[str, ...]
    held_out: np.ndarray
    weight: Float[np.ndarray, " n"]
    chosen: np.ndarray | None
    rejected: np.ndarray | None
    answer_log_probs: Float[np.ndarray, "n k"] | None
    ref_chosen: Float[np.ndarray, " n"] | None
    ref_rejected: Float[np.ndarray, " n"] | None
    chosen_features: np.ndarray | None
    rejected_features: np.ndarray | None

    @classmethod
    def of(cls, feats: FeatureSet) -> "_Problem":
        return cls(
            kernel=feats.working_kernel(),
            basis=feats.coordinates()[1],
            group=feats.group,
            groups=feats.groups,
            held_out=feats.held_out,
            weight=feats.weight,
            chosen=feats.chosen,
            rejected=feats.rejected,
            answer_log_probs=feats.answer_log_probs(),
            ref_chosen=feats.ref_chosen_logps,
            ref_rejected=feats.ref_rejected_logps,
            chosen_features=feats.chosen_features,
            rejected_features=feats.rejected_features,
        )

    def rows(self, index: np.ndarray) -> "_Problem":
        def pick(value: np.ndarray | None) -> np.ndarray | None:
            return None if value is None else value[index]

        return _Problem(
            kernel=self.kernel.rows(index),
            basis=self.basis,
            group=self.group[index],
            groups=self.groups,
            held_out=self.held_out[index],
            weight=self.weight[index],
            chosen=pick(self.chosen),
            rejected=pick(self.rejected),
            answer_log_probs=pick(self.answer_log_probs),
            ref_chosen=pick(self.ref_chosen),
            ref_rejected=pick(self.ref_rejected),
            chosen_features=pick(self.chosen_features),
            rejected_features=pick(self.rejected_features),
        )

    def log_prob_changes(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Change of log-probability of the chosen and of the rejected response, nats; None if not measurable."""
        if self.chosen_features is not None and self.rejected_features is not None:
            flat = theta[0].astype(self.chosen_features.dtype)
            return self.chosen_features @ flat, self.rejected_features @ flat
        if self.answer_log_probs is None or self.chosen is None or self.rejected is None:
            return None
        logits = self.kernel.features @ (self.basis @ theta).T.astype(self.kernel.features.dtype)
        return answer_log_prob_changes(logits.astype(np.float64), self.answer_log_probs, self.chosen, self.rejected)


def answer_log_prob_changes(
    logit_changes: Float[np.ndarray, "n k"],
    log_probs: Float[np.ndarray, "n k"],
    chosen: Int[np.ndarray, " n"],
    rejected: Int[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    r"""Exact change of log-probability when only k of the vocabulary's logits move.

    $\Delta \log Z = \log\big(1 - \sum_k p_k + \sum_k p_k e^{\Delta z_k}\big)$, so no other logit is needed.

    Args:
        logit_changes: $\Delta z$ of the k tokens.
        log_probs: Their log-probabilities before.
        chosen: Column of the chosen token.
        rejected: Column of the rejected token.

    Returns:
        $\Delta z - \Delta \log Z$ for the chosen and for the rejected token, nats.
    """
    rest = np.clip(1.0 - np.exp(log_probs).sum(axis=1), 0.0, 1.0)
    with np.errstate(divide="ignore"):  # log 0 = -inf is right: these tokens hold all the mass
        log_rest = np.log(rest)
    normaliser = np.logaddexp(log_rest, np.logaddexp.reduce(log_probs + logit_changes, axis=1))
    before = np.logaddexp(log_rest, np.logaddexp.reduce(log_probs, axis=1))
    rows = np.arange(len(chosen))
    shift = normaliser - before
    return logit_changes[rows, chosen] - shift, logit_changes[rows, rejected] - shift


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    rows: list[dict[str, Any]]
    margins: dict[int, np.ndarray]
    chosen_changes: dict[int, np.ndarray]
    head: Float[np.ndarray, "p d"]


def _run(
    problem: _Problem,
    name: str,
    objective: Objective,
    learning_rate: float,
    steps: int,
    recorded: Sequence[int],
    kept: Sequence[int],
    *,
    progress: bool = False,
) -> _Outcome:
    train = np.flatnonzero(~problem.held_out)
    kernel = problem.kernel if len(train) == len(problem.held_out) else problem.kernel.rows(train)
    dtype = problem.kernel.features.dtype
    scale = learning_rate * objective.beta * problem.weight[train] / problem.weight[train].sum()
    theta = np.zeros((problem.basis.shape[1], problem.kernel.features.shape[1]))
    rows: list[dict[str, Any]] = []
    kept_margins: dict[int, np.ndarray] = {}
    kept_changes: dict[int, np.ndarray] = {}
    measured = set(recorded)
    for step in track(range(steps + 1), "Joint run", unit="steps", shown=progress):
        if step in measured or step in kept:
            margins = objective.beta * problem.kernel.forward(theta.astype(dtype)).astype(np.float64)
            changes = problem.log_prob_changes(theta)
            if step in measured:
                common = {
                    "run": name,
                    "step": step,
                    "time": learning_rate * step,
                    "drift": float(np.linalg.norm(theta)),
                }
                rows.extend({**common, **row} for row in _measure(problem, objective, margins, changes))
            if step in kept:
                kept_margins[step] = margins
                if changes is not None:
                    kept_changes[step] = changes[0]
        if step < steps:
            pulled = objective.beta * kernel.forward(theta.astype(dtype)).astype(np.float64)
            theta = theta + kernel.adjoint((scale * objective.push(pulled)).astype(dtype))
    return _Outcome(rows=rows, margins=kept_margins, chosen_changes=kept_changes, head=theta)


def _measure(
    problem: _Problem, objective: Objective, margins: np.ndarray, changes: tuple[np.ndarray, np.ndarray] | None
) -> list[Mapping[str, Any]]:
    cell = 2 * problem.group + problem.held_out
    size = 2 * len(problem.groups)
    pairs = np.bincount(cell, minlength=size)

    def mean(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.bincount(cell, weights=values, minlength=size) / np.maximum(pairs, 1)

    policy = chosen_log_prob = rejected_log_prob = falling = None
    if problem.ref_chosen is not None and problem.ref_rejected is not None:
        policy = (margins / objective.beta + problem.ref_chosen - problem.ref_rejected > 0).astype(float)
        if changes is not None:
            chosen_log_prob = problem.ref_chosen + changes[0]
            rejected_log_prob = problem.ref_rejected + changes[1]
    if changes is not None:
        falling = (changes[0] < 0).astype(float)
    quantities = {
        "loss": mean(objective.loss(margins)),
        "margin": mean(margins),
        "reward_accuracy": mean((margins > 0).astype(float)),
        "policy_accuracy": mean(policy),
        "chosen_log_prob": mean(chosen_log_prob),
        "rejected_log_prob": mean(rejected_log_prob),
        "chosen_change": mean(None if changes is None else changes[0]),
        "rejected_change": mean(None if changes is None else changes[1]),
        "chosen_falling": mean(falling),
    }
    return [
        {"group": problem.groups[place // 2], "split": SPLITS[place % 2], "pairs": int(pairs[place])}
        | {name: None if values is None else float(values[place]) for name, values in quantities.items()}
        for place in range(size)
        if pairs[place]
    ]
