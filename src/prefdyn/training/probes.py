"""What a run is measured by, and when: the same quantities per group and split as in a simulation, and a few more.

*When* is a list of steps, *what* a set of pairs and of names; neither knows of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int

from prefdyn._random import stream
from prefdyn.maths.geometry import covariance_operator_norm, covariance_trace, distinguishability
from prefdyn.maths.kernel import answer_coordinates
from prefdyn.maths.objectives import Objective
from prefdyn.trajectory import MODULES, SCHEMA

SPLITS = ("train", "held_out")
_ROUNDINGS = 8
"""What a log-probability may be off by, in units of its last place, when it is computed in another batch."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairTable:
    """What training knows of each of its m pairs besides their tokens. The order is that of the scorer's rows."""

    id: np.ndarray
    group: Int[np.ndarray, " m"]
    groups: tuple[str, ...]
    held_out: Bool[np.ndarray, " m"]
    weight: Float[np.ndarray, " m"]
    chosen_length: Int[np.ndarray, " m"]
    """Tokens of the chosen response."""
    rejected_length: Int[np.ndarray, " m"]
    ref_chosen: Float[np.ndarray, " m"]
    """Log-probability of the chosen response under the reference, nats."""
    ref_rejected: Float[np.ndarray, " m"]
    known: bool = True
    """Whether scores are log-probabilities: else their difference alone means something."""
    chosen: Int[np.ndarray, " m"] | None = None
    """Index of the answer token, where answers are one token each."""
    rejected: Int[np.ndarray, " m"] | None = None

    def __len__(self) -> int:
        return len(self.id)

    @property
    def train(self) -> Int[np.ndarray, " trained"]:
        """Places of the pairs that are trained on."""
        return np.flatnonzero(~self.held_out)


def changes(scores: Float[Any, " b"], reference: Float[Any, " b"], length: Any, objective: Objective) -> Any:
    """Log-probability less the reference's, nats; per token where the objective averages over tokens."""
    moved = scores - reference
    return moved / length if objective.per_token else moved


def losses(chosen: Any, chosen_moved: Any, rejected_moved: Any, length: Any, objective: Objective) -> tuple[Any, Any]:
    """Loss and margin of each pair, from NumPy or torch.

    Args:
        chosen: (b,) log-probability of the chosen response; what SFT reads, per token as TRL has it.
        chosen_moved: (b,) its change as the objective sees it; see `changes`.
        rejected_moved: (b,) the same of the rejected response.
        length: (b,) tokens of the chosen response.
        objective: Of the run.
    """
    margins = objective.beta * (chosen_moved - rejected_moved)
    if objective.reads == "log_probs":
        return objective.loss(chosen / length), margins
    return objective.loss(margins), margins


def right(chosen: Any, rejected: Any, margins: Any, objective: Objective, eps: float) -> Any:
    """Which margins are above 0 by more than rounding: before the first step none, as in TRL.

    Args:
        chosen: (b,) log-probabilities, from NumPy or torch.
        rejected: (b,) the same of the rejected responses.
        margins: (b,) with beta.
        objective: Of the run.
        eps: Of the dtype in which they were computed.
    """
    return margins > _ROUNDINGS * eps * objective.beta * (abs(chosen) + abs(rejected))


def probe_rows(pairs: PairTable, per_cell: int | None, *, seed: int) -> Int[np.ndarray, " probed"]:
    """At most so many pairs of each group and split, drawn once, in order. None: all."""
    if per_cell is None:
        return np.arange(len(pairs))
    kept = []
    for cell in range(2 * len(pairs.groups)):
        rows = np.flatnonzero(2 * pairs.group + pairs.held_out == cell)
        if len(rows) > per_cell:
            draw = stream(seed, "probe", pairs.groups[cell // 2], SPLITS[cell % 2])
            rows = np.sort(draw.choice(rows, per_cell, replace=False))
        kept.append(rows)
    return np.sort(np.concatenate(kept))


def group_rows(
    pairs: PairTable,
    rows: Int[np.ndarray, " b"],
    objective: Objective,
    chosen: Float[np.ndarray, " b"],
    rejected: Float[np.ndarray, " b"],
    *,
    step: int,
    time: float,
    states: Float[np.ndarray, "b d"] | None = None,
    drift: float | None = None,
    gradients: bool = True,
    geometry: bool = True,
    eps: float = 2.0**-52,
) -> list[dict[str, Any]]:
    r"""The rows of a Trajectory at one step, one per group and split that has pairs here.

    Args:
        pairs: All pairs of the run.
        rows: Those measured.
        objective: Of the run.
        chosen: Log-probability of the chosen response of each under the policy, nats.
        rejected: The same of the rejected one.
        step: Updates so far.
        time: Learning rate times step.
        states: Final states of `answers`, or mean states, chosen minus rejected.
        drift: Frobenius norm of the change of all trained weights.
        gradients: Measure the gradient in the head, where states and answer tokens are known.
        geometry: Measure distinguishability, concentration and trace, for groups with two answers.
        eps: Of the dtype in which the log-probabilities were computed.

    Reference:
        Quantities: THEORY 2.7, 4.6; the gradient norm is that of
        $\frac{1}{n}\sum_i h(r_i)\,\beta\,(e_w - e_l) g_i^\top$, 2403.18742 Eq. 9 with the sign of THEORY X-1.
    """
    ref_chosen, ref_rejected = pairs.ref_chosen[rows], pairs.ref_rejected[rows]
    length = pairs.chosen_length[rows]
    moved = changes(chosen, ref_chosen, length, objective)
    down = changes(rejected, ref_rejected, pairs.rejected_length[rows], objective)
    loss, margin = losses(chosen, moved, down, length, objective)
    measured: dict[str, np.ndarray] = {"loss": loss, "margin": margin}
    measured["reward_accuracy"] = right(chosen, rejected, margin, objective, eps)
    measured["policy_accuracy"] = chosen > rejected
    if pairs.known:
        up, down = chosen - ref_chosen, rejected - ref_rejected
        measured |= {"chosen_log_prob": chosen, "rejected_log_prob": rejected, "chosen_change": up}
        measured |= {"rejected_change": down, "chosen_falling": up < -_ROUNDINGS * eps * abs(chosen)}
    cells = 2 * pairs.group[rows] + pairs.held_out[rows]
    found = []
    for cell in np.unique(cells).tolist():
        inside = np.flatnonzero(cells == cell)
        row: dict[str, Any] = {
            "run": "joint",
            "step": step,
            "time": time,
            "group": pairs.groups[cell // 2],
            "split": SPLITS[cell % 2],
            "pairs": len(inside),
            "drift": drift,
        }
        row |= {name: float(np.mean(values[inside], dtype=np.float64)) for name, values in measured.items()}
        if objective.reads == "log_probs":  # a mean over tokens, as it is trained and as TRL has it
            row["loss"] = float(np.average(loss[inside], weights=length[inside]))
        if states is not None and pairs.chosen is not None and pairs.rejected is not None:
            at = rows[inside]
            if gradients and objective.reads == "margins":
                row["gradient_norm"] = head_gradient_norm(
                    states[inside],
                    pairs.chosen[at],
                    pairs.rejected[at],
                    margin[inside],
                    objective,
                )
            if geometry:
                row |= separability(states[inside], pairs.chosen[at], pairs.rejected[at])
        found.append(row)
    return found


def head_gradient_norm(
    states: Float[np.ndarray, "b d"],
    chosen: Int[np.ndarray, " b"],
    rejected: Int[np.ndarray, " b"],
    margins: Float[np.ndarray, " b"],
    objective: Objective,
) -> float:
    r"""$\lVert \frac{\beta}{b} \sum_i h(r_i) (e_w - e_l) g_i^\top \rVert_F$, of the mean loss of these pairs.

    Example:
        >>> from prefdyn.maths.objectives import DPO
        >>> one, other, margin = np.array([0]), np.array([1]), np.array([0.0])
        >>> head_gradient_norm(np.array([[3.0, 4.0]]), one, other, margin, DPO(beta=0.1)) / 2**0.5
        0.25
    """
    signs, _ = answer_coordinates(chosen, rejected, int(max(chosen.max(), rejected.max())) + 1)
    push = np.asarray(objective.push(margins))
    pulled = states.astype(np.float64) * (push * objective.beta / len(push))[:, None]
    return float(np.linalg.norm(signs.T @ pulled))


def separability(
    states: Float[np.ndarray, "b d"], chosen: Int[np.ndarray, " b"], rejected: Int[np.ndarray, " b"]
) -> dict[str, float]:
    """Distinguishability, concentration and trace of two answers' states; nothing where there are not two, twice each.

    Reference:
        2403.18742, section 4; THEORY 2.1.
    """
    low, high = np.minimum(chosen, rejected), np.maximum(chosen, rejected)
    positive = chosen == low
    if (low != low[0]).any() or (high != high[0]).any() or min(positive.sum(), (~positive).sum()) < 2:
        return {}
    parts = [states[side].astype(np.float64) for side in (positive, ~positive)]
    return {
        "distinguishability": distinguishability(states, positive),
        "concentration": max(map(covariance_operator_norm, parts)),
        "trace": max(map(covariance_trace, parts)),
    }


# weights -------------------------------------------------------------------------------------------------------------


class Drift:
    """How far trained weights have moved, module by module."""

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], *, adapters: bool = False, scale: float = 1.0
    ) -> None:
        """Args: trained weights by name; whether they are LoRA's A and B, whose product times `scale` is the change."""
        self.parameters, self.adapters, self.scale = parameters, adapters, scale
        self.start = {} if adapters else {name: each.detach().clone() for name, each in parameters.items()}
        self.norms = {name: _norm(each) for name, each in self.start.items()}

    def measure(self, step: int) -> tuple[float, pa.Table]:
        """Norm of the whole change, and one row per module."""
        squares: dict[str, float] = {}
        norms: dict[str, float] = {}
        if self.adapters:
            for name, down in self.parameters.items():
                if ".lora_A." in name:
                    up = self.parameters[name.replace(".lora_A.", ".lora_B.")]
                    module = name.split(".lora_A.")[0]
                    # the norm of a product of thin matrices, without forming it: tr(AᵀA... ) through r × r ones
                    inner = (_plain(up).T @ _plain(up)) * (_plain(down) @ _plain(down).T)
                    squares[module] = self.scale**2 * float(inner.sum().clamp_min(0))
        else:
            for name, each in self.parameters.items():
                module = name.rpartition(".")[0] or name
                squares[module] = squares.get(module, 0.0) + _norm(each.detach() - self.start[name]) ** 2
                norms[module] = float(np.hypot(norms.get(module, 0.0), self.norms[name]))
        rows = {
            "step": [step] * len(squares),
            "module": list(squares),
            "drift": [square**0.5 for square in squares.values()],
            "norm": [norms.get(module) for module in squares],
        }
        return float(np.sqrt(sum(squares.values()))), pa.table(rows, schema=MODULES)


def _plain(values: Any) -> torch.Tensor:
    values = values.detach()
    return (values.full_tensor() if hasattr(values, "full_tensor") else values).double()


def _norm(values: Any) -> float:
    found = torch.linalg.vector_norm(values.detach(), dtype=torch.float64)
    return float(found.full_tensor() if hasattr(found, "full_tensor") else found)


def trajectory_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of a Trajectory as its table."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
