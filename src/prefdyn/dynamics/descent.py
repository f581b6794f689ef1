r"""Full-batch gradient descent on the head, exactly, from features alone.

With features frozen, margins are linear in the head's change $\theta$ (THEORY 1.2, 1.3):

$$ r_i = \beta \langle \phi_i, \theta \rangle, \qquad
   \theta \leftarrow \theta + \frac{\eta \beta}{\sum_j w_j} \sum_i w_i\, h(r_i)\, \phi_i, \qquad h = -f'. $$

For one-token answers this *is* DPO on the unembedding matrix, step by step, and log-probabilities are exact too. For
longer responses it is first order in the head's movement.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from scipy.sparse.linalg import LinearOperator, eigsh

from prefdyn._checks import at_least, positive
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn.dynamics.engine import DIVERGED, Run, solve
from prefdyn.dynamics.measure import Member, Outcome, table, tables
from prefdyn.dynamics.problem import Pairs, as_seen
from prefdyn.dynamics.routes import build, cheapest
from prefdyn.dynamics.streaming import HELD_BYTES
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.kernel import PairKernel
from prefdyn.maths.objectives import DPO, Objective
from prefdyn.maths.optimizers import SGD
from prefdyn.trajectory import Trajectory


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
    feats = as_seen(feats, objective)
    steps = at_least(steps, 1, name="steps")
    if feats.held_out.all():
        raise DataError(
            f"all {len(feats)} pairs are held out, so nothing is left to train on; lower the held-out share"
        )
    rate = stable_learning_rate(feats, objective) if learning_rate == "auto" else learning_rate
    positive(rate, name="learning_rate", fix="give a number above 0 or 'auto'")
    recorded = recorded_steps(steps, record)
    kept = kept_steps(steps, margins_at)

    pairs = Pairs.of(feats)
    joint, route = _alone(feats, pairs, objective, rate, steps, recorded, kept, progress=progress)
    parts, heads = [table(joint, pairs, run="joint", learning_rate=rate)], {}
    diverged = [("the joint run", joint)] if joint.stop_reason == DIVERGED else []
    if alone:
        by_itself = _each_alone(feats, pairs, objective, rate, steps, recorded, progress=progress)
        parts.append(tables([(found, part) for _, found, part in by_itself], run="alone", learning_rate=rate))
        heads = {name: found.head for name, found, _ in by_itself if found.head is not None}
        diverged += [(f"group {name!r} alone", found) for name, found, _ in by_itself if found.stop_reason == DIVERGED]
    settings: dict[str, Any] = {
        "objective": objective.name,
        "beta": objective.beta,
        "learning_rate": float(rate),
        "learning_rate_rule": "half of the largest stable step" if learning_rate == "auto" else "given",
        "optimizer": "sgd",
        "schedule": "constant",
        "batch_size": "full",
        "steps": steps,
        "compute_dtype": str(feats.working_dtype),
        "route": route,
    }
    if diverged:
        name, outcome = diverged[0]
        settings["diverged_at"] = outcome.stopped_at
        warnings.warn(
            f"{name} diverged at step {outcome.stopped_at} with learning rate {rate:g}; on this data "
            f"{allowed(feats, objective)}. Lower the rate",
            RuntimeWarning,
            stacklevel=2,
        )
    return Trajectory(
        table=pa.concat_tables(parts).combine_chunks(),
        settings=settings,
        margins=joint.margins,
        chosen_changes=joint.chosen_changes,
        joint_head=joint.head,
        alone_heads=heads,
        provenance=feats.provenance,
    )


def _each_alone(
    feats: FeatureSet,
    pairs: Pairs,
    objective: Objective,
    rate: float,
    steps: int,
    recorded: Sequence[int],
    *,
    progress: bool,
) -> list[tuple[str, Outcome, Pairs]]:
    """A run of every group with training pairs by itself: its name, what it did, and its pairs.

    One after another; beyond `MANY_GROUPS` groups, small ones go together in one solve, each on its own pairs.
    """
    members = [rows for rows in feats.by_group() if len(rows) and not feats.held_out[rows].all()]
    width = feats.kernel_width
    found: list[tuple[str, Outcome, Pairs]] = []
    for some in track(together(members, pairs.answers.shape[1] * width), "Groups alone", unit="solves", shown=progress):
        parts = [pairs.of_group(rows) for rows in some]
        if len(some) == 1:
            outcomes = [_alone(feats, parts[0], objective, rate, steps, recorded, [])[0]]
        else:
            outcomes = _beside(feats, pairs, some, objective, rate, steps, recorded)
        found += [(part.groups[0], outcome, part) for part, outcome in zip(parts, outcomes, strict=True)]
    return found


MANY_GROUPS = 200
"""Up to so many groups, each is run alone in a solve of its own."""
_SOLVE = 2**21
"""Operations of a step up to which small groups share a solve: about what the step costs besides its products."""


def together(members: Sequence[np.ndarray], width: int) -> list[list[np.ndarray]]:
    """Groups in the order given, as many in one solve as keeps products small; each by itself while there are few."""
    if len(members) <= MANY_GROUPS:
        return [[rows] for rows in members]
    found: list[list[np.ndarray]] = []
    pairs = 0
    for rows in members:
        if not found or 4 * (pairs + len(rows)) * (len(found[-1]) + 1) * width > _SOLVE:
            found.append([])
            pairs = 0
        found[-1].append(rows)
        pairs += len(rows)
    return found


def _beside(
    feats: FeatureSet,
    pairs: Pairs,
    members: Sequence[np.ndarray],
    objective: Objective,
    rate: float,
    steps: int,
    recorded: Sequence[int],
) -> list[Outcome]:
    """Some groups, each trained by itself, in one solve: a run each, which pulls on its own pairs alone."""
    index = np.concatenate(members)
    owner = np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    names = tuple(pairs.groups[pairs.group[rows[0]]] for rows in members)
    part = replace(pairs.rows(index), group=owner, groups=names)
    run = Run(objective=objective, learning_rate=rate, optimizer=SGD(), members=(Member(objective=objective),))
    sft = objective.reads == "log_probs"
    route = build(feats, part, "rows" if sft else "weights", dtype=feats.working_dtype, sft=sft)
    masks = (owner[:, None] == np.arange(len(members))).astype(np.float64)
    found = solve(
        route, part, [run] * len(members), steps=steps, recorded=recorded, masks=masks, subset=range(len(members))
    )
    return [
        replace(outcome, means=[means[:, 2 * place : 2 * place + 2] for means in outcome.means])
        for place, (outcome,) in enumerate(found)
    ]


def _alone(
    feats: FeatureSet,
    pairs: Pairs,
    objective: Objective,
    rate: float,
    steps: int,
    recorded: Sequence[int],
    kept: Sequence[int],
    *,
    progress: bool = False,
) -> tuple[Outcome, str]:
    """One full-batch run, and the route it took."""
    dtype, sft = feats.working_dtype, objective.reads == "log_probs"
    width = feats.kernel_width
    name = cheapest(
        pairs,
        width,
        linear=not sft,
        runs=1,
        steps=steps,
        batch=None,
        itemsize=dtype.itemsize,
        streamed=len(pairs) * width * dtype.itemsize > HELD_BYTES,
    )
    run = Run(objective=objective, learning_rate=rate, optimizer=SGD(), members=(Member(objective=objective),))
    route = build(feats, pairs, name, dtype=dtype, sft=sft)
    found = solve(route, pairs, [run], steps=steps, recorded=recorded, kept=kept, label="Joint run", progress=progress)
    return found[0][0], name


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
    if objective.reads == "log_probs":
        raise ConfigError(
            f"no stable step follows from the features alone for {objective.name!r}; give learning_rate a number in "
            "place of 'auto'"
        )
    if math.isinf(objective.curvature):
        raise ConfigError(
            f"the loss {objective.name!r} has a kink, so no step is small enough to be stable; give learning_rate a "
            "number in place of 'auto'"
        )
    seen = as_seen(feats, objective)
    subsets = [np.flatnonzero(~feats.held_out), *(rows[~feats.held_out[rows]] for rows in feats.by_group())]
    limits = [limit for rows in subsets if len(rows) and (limit := _limit(seen, objective, rows)) is not None]
    if not limits:
        raise DataError("every training feature is zero, so no step changes anything; check the model's weights")
    return float(min(limits) / 2)


def stability(feats: FeatureSet, objective: Objective, groups: Sequence[str] | None = None) -> float | None:
    r"""The largest step at which full-batch descent is sure to be stable.

    It is $2 \sum w / (\kappa \beta^2 \lambda_{\max}(C_w))$; see `stable_learning_rate`.

    Args:
        feats: Features of either kind.
        objective: The loss of the margin.
        groups: The groups trained on; None: all.

    Returns:
        The step; None where the loss has a kink or no feature moves anything, so that there is no such limit.

    Example:
        >>> feats = FeatureSet.from_arrays([[1.0, 0], [0, 1]], chosen=[0, 1], rejected=[1, 0])
        >>> round(stability(feats, DPO(beta=1.0)), 9)
        8.0
    """
    inside = ~feats.held_out
    if groups is not None:
        inside = inside & np.isin(feats.group, [feats.groups.index(name) for name in groups])
    return _limit(as_seen(feats, objective), objective, np.flatnonzero(inside))


def _limit(feats: FeatureSet, objective: Objective, rows: Int[np.ndarray, " trained"]) -> float | None:
    """`stability` for a run on these rows of features as the objective sees them."""
    curvature = float(np.asarray(objective.curvature))
    if math.isinf(curvature):
        return None
    largest = _largest(feats, rows)
    if largest <= 0:
        return None
    return float(2 * feats.weight[rows].sum() / (curvature * objective.beta**2 * largest))


def allowed(feats: FeatureSet, objective: Objective, groups: Sequence[str] | None = None) -> str:
    """The largest stable rate of plain descent on this data, in words."""
    if objective.reads == "log_probs":
        return "no stable rate is known for SFT"
    limit = stability(feats, objective, groups)
    if limit is None:
        return f"no rate is sure to be stable, because the loss {objective.name!r} has a kink"
    return f"full-batch descent is stable up to a rate of {limit:.4g}"


def _largest(feats: FeatureSet, rows: Int[np.ndarray, " trained"]) -> float:
    """Largest eigenvalue of the weighted kernel of some pairs; of features beyond memory by passes over the file."""
    dtype = feats.working_dtype
    if len(rows) * feats.kernel_width * dtype.itemsize <= HELD_BYTES:
        if feats.kind == "responses":
            ones = np.ones((len(rows), 1), dtype=dtype)
            kernel = PairKernel(answers=ones, features=feats.pair_features(rows, dtype))
            return kernel.weighted(feats.weight[rows]).largest_eigenvalue()
        return feats.select(rows).kernel(dtype).weighted(feats.weight[rows]).largest_eigenvalue()
    pairs = Pairs.of(feats).rows(rows)
    route = build(feats, pairs, "weights", dtype=dtype)
    shape = route.start(1).shape

    def matvec(vector: np.ndarray) -> np.ndarray:
        state = vector.reshape(shape)
        return -route.gradient(state, lambda ratios, where: ratios * weight[where, :], None).reshape(-1)

    weight = pairs.weight[:, None].astype(dtype)
    size = int(np.prod(shape))
    operator = LinearOperator((size, size), matvec=matvec, dtype=np.dtype(np.float64))  # pyright: ignore[reportCallIssue]
    start = stream(0, "kernel", "lanczos").normal(size=size)
    return float(eigsh(operator, k=1, v0=start, tol=1e-4, return_eigenvectors=False)[0])  # pyright: ignore[reportArgumentType]


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


def kept_steps(steps: int, margins_at: Iterable[int]) -> list[int]:
    """The steps at which every pair's margin is kept, sorted, each once.

    Raises:
        ConfigError: One is below 0 or beyond the last step.
    """
    kept = sorted({at_least(step, 0, name="margins_at") for step in margins_at})
    if kept and kept[-1] > steps:
        raise ConfigError(f"margins_at asks for step {kept[-1]}, but the run ends at step {steps}")
    return kept


def beyond_stable(feats: FeatureSet, objective: Objective, learning_rate: float | str) -> str | None:
    """A warning where a given learning rate is above the largest stable one; None where it is not, or "auto"."""
    if isinstance(learning_rate, str) or learning_rate <= (limit := 2 * stable_learning_rate(feats, objective)):
        return None
    return f"The learning rate {learning_rate:g} is above the largest stable one, {limit:.3g}: curves may oscillate."
