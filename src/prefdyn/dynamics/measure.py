"""What runs do to groups: exact sums per group and split, block by block, and the tables made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from array_api_compat import array_namespace
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.spaces import Route, Seen
from prefdyn.trajectory import SCHEMA

SPLITS = ("train", "held_out")

SUMMED = ("loss", "margin", "reward_accuracy", "policy_accuracy", "chosen_change", "rejected_change", "chosen_falling")
"""What is summed over the pairs of a cell; a cell is one split of one group."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one run did. Filled in while it runs."""

    steps: list[int] = field(default_factory=list)
    """Recorded steps."""
    means: list[np.ndarray] = field(default_factory=list)
    """(quantities, cells) per recorded step; NaN where a quantity cannot be measured."""
    drifts: list[float] = field(default_factory=list)
    margins: dict[int, np.ndarray] = field(default_factory=dict)
    chosen_changes: dict[int, np.ndarray] = field(default_factory=dict)
    head: Float[np.ndarray, "p d"] | None = None
    stopped_at: int | None = None
    """Step at which the run ended early; None where it went to its end."""
    stop_reason: str | None = None
    """The target that was reached, or "diverged"."""

    def add(self, step: int, found: "Measured", column: int, *, recorded: bool) -> None:
        """Keep one column of what was measured at a step."""
        if recorded:
            self.steps.append(step)
            self.means.append(found.means[column])
            self.drifts.append(float(found.drifts[column]))
        if found.margins is not None:
            self.margins[step] = found.margins[:, column].copy()
        if found.chosen_changes is not None:
            self.chosen_changes[step] = found.chosen_changes[:, column].copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One setting that a solved run stands for: its own objective, and its heads as a multiple of the solved ones."""

    objective: Any
    scale: float = 1.0
    column: int = 0
    """Which of the solved runs; the engine keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All members at one step."""

    means: Float[np.ndarray, "members quantities cells"]
    drifts: Float[np.ndarray, " members"]
    train_loss: Float[np.ndarray, " members"]
    """Mean over all trained pairs as weighted in training, nats; what a divergence or a target is judged by."""
    train_margin: Float[np.ndarray, " members"]
    margins: Float[np.ndarray, "n members"] | None
    chosen_changes: Float[np.ndarray, "n members"] | None


def slices(objectives: Sequence[Any]) -> list[tuple[slice, Any]]:
    """Neighbours that differ in beta alone, as one objective with an array of betas.

    Example:
        >>> from prefdyn.maths.objectives import DPO, SLiC
        >>> [(part.stop, each.beta.tolist()) for part, each in slices([DPO(beta=0.1), DPO(beta=0.2), SLiC(beta=1.0)])]
        [(2, [0.1, 0.2]), (3, [1.0])]
    """
    found, start = [], 0
    for stop in range(1, len(objectives) + 1):
        if stop == len(objectives) or replace(objectives[stop], beta=1.0) != replace(objectives[start], beta=1.0):
            betas = np.array([each.beta for each in objectives[start:stop]], dtype=np.float64)
            found.append((slice(start, stop), replace(objectives[start], beta=betas)))
            start = stop
    return found


def measure(
    route: Route,
    state: Any,
    pairs: Pairs,
    members: Sequence[Member],
    shares: Float[np.ndarray, "n members"] | Float[np.ndarray, "n 1"],
    *,
    keep: bool = False,
    log_probs: bool = True,
) -> Measured:
    """Every member at the solved runs' present state.

    Args:
        route: The route that holds the state.
        state: Changes of the solved heads.
        pairs: The pairs of the route.
        members: Settings, each with the solved run that it is a multiple of.
        shares: Weight of each pair in the training loss, adding up to 1 over a column; 0 for pairs not trained on.
        keep: Also keep margins and chosen changes of every pair.
        log_probs: Whether changes of log-probability follow from what is held.
    """
    cells, count = 2 * pairs.group + pairs.held_out, 2 * len(pairs.groups)
    columns, scales = [m.column for m in members], np.array([m.scale for m in members])
    betas = np.array([m.objective.beta for m in members])
    parts = slices([m.objective for m in members])
    sums = np.zeros((len(SUMMED), count, len(members)))
    totals = np.zeros((2, len(members)))
    margins = np.zeros((len(pairs), len(members))) if keep else None
    moved = np.zeros((len(pairs), len(members))) if keep else None
    known = True
    wanted = log_probs and (pairs.log_probs is not None or pairs.tokens == 0)
    for seen in route.seen(state, logits=wanted):
        places = seen.places
        ratios = seen.ratios[:, columns] * scales
        part = ratios * betas
        changes = _changes(seen, pairs, columns, scales) if wanted else None
        quantities: list[Any] = [np.empty_like(part), part, part > 0, None, None, None, None]
        for where, objective in parts:
            if objective.reads == "log_probs":
                quantities[0][:, where] = _negative_log_probs(pairs, places, changes, where)
            else:
                quantities[0][:, where] = objective.loss(part[:, where])
        if pairs.ref_chosen is not None and pairs.ref_rejected is not None:
            summed = ratios
            if pairs.per_token:
                summed = np.full_like(ratios, np.nan) if changes is None else changes[0] - changes[1]
            quantities[3] = summed + (pairs.ref_chosen - pairs.ref_rejected)[places, None] > 0
        if changes is not None:
            quantities[4:] = [*changes, changes[0] < 0]
        sorter = csr_matrix((np.ones(len(places)), (cells[places], np.arange(len(places)))), shape=(count, len(places)))
        for place, values in enumerate(quantities):
            sums[place] += np.nan if values is None else sorter @ np.asarray(values, dtype=np.float64)
        share = np.broadcast_to(shares[places], part.shape)
        totals += np.stack([np.sum(share * quantities[0], axis=0), np.sum(share * part, axis=0)])
        if margins is not None and moved is not None:
            margins[places] = part
            known = changes is not None
            if changes is not None:
                moved[places] = changes[0]
    pairs_per_cell = np.maximum(np.bincount(cells, minlength=count), 1)
    return Measured(
        means=np.moveaxis(sums / pairs_per_cell[:, None], 2, 0),
        drifts=route.drifts(state)[columns] * np.abs(scales),
        train_loss=totals[0],
        train_margin=totals[1],
        margins=margins,
        chosen_changes=moved if known else None,
    )


def shifts(logits: Any, rest: Any, log_probs: Any) -> Any:
    r"""Change of the log-normaliser when only k of the vocabulary's logits move, nats.

    $\Delta \log Z = \log\big(1 - \sum_k p_k + \sum_k p_k e^{\Delta z_k}\big)$, without overflow for any finite change.

    Args:
        logits: (b, R, k) changes $\Delta z$ of the k tokens, per pair and run.
        rest: (b, 1) log of the probability that the k tokens leave, from `log_rest`.
        log_probs: (b, k) log-probabilities before.

    Example:
        >>> half = np.log(np.array([[0.25, 0.25]]))
        >>> np.exp(shifts(np.log(np.array([[[1.0, 3.0]]])), log_rest(half), half)).round(9).tolist()
        [[1.5]]
    """
    xp = array_namespace(logits)

    def total(terms: list[Any]) -> Any:
        top = terms[0]
        for term in terms[1:]:
            top = xp.maximum(top, term)
        return top + xp.log(sum((xp.exp(term - top) for term in terms[1:]), xp.exp(terms[0] - top)))

    before = [rest, *(log_probs[:, k : k + 1] for k in range(logits.shape[2]))]
    after = [rest, *(log_probs[:, k : k + 1] + logits[:, :, k] for k in range(logits.shape[2]))]
    # the two maxima need shapes that broadcast: (b, 1) before, (b, R) after
    return total(after) - total(before)


def log_rest(log_probs: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b 1"]:
    """Log of the probability that the k tokens leave to all others; -inf where they hold all."""
    rest = np.clip(1.0 - np.exp(log_probs).sum(axis=1, keepdims=True), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return np.log(rest)


def _changes(
    seen: Seen, pairs: Pairs, columns: Sequence[int], scales: Float[np.ndarray, " members"]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Change of log-probability of chosen and rejected per pair and member, nats; None if not measurable."""
    if seen.responses is not None:
        return seen.responses[0][:, columns] * scales, seen.responses[1][:, columns] * scales
    if seen.logits is None or pairs.log_probs is None or pairs.chosen is None or pairs.rejected is None:
        return None
    logits = seen.logits[:, columns] * scales[:, None]
    before = pairs.log_probs[seen.places]
    shift = shifts(logits, log_rest(before), before)
    rows = np.arange(len(seen.places))
    chosen, rejected = pairs.chosen[seen.places], pairs.rejected[seen.places]
    return logits[rows, :, chosen] - shift, logits[rows, :, rejected] - shift


def _negative_log_probs(pairs: Pairs, places: Int[np.ndarray, " b"], changes: Any, where: slice) -> np.ndarray:
    assert changes is not None
    assert pairs.log_probs is not None
    assert pairs.chosen is not None
    return -(pairs.log_probs[places, pairs.chosen[places]][:, None] + changes[0][:, where])


# tables -------------------------------------------------------------------------------------------------------------


def table(outcome: Outcome, pairs: Pairs, *, run: str, learning_rate: float) -> pa.Table:
    """The rows of a Trajectory, one per recorded step, group and split that has pairs, in that order."""
    return tables([(outcome, pairs)], run=run, learning_rate=learning_rate)


def tables(found: Sequence[tuple[Outcome, Pairs]], *, run: str, learning_rate: float) -> pa.Table:
    """The rows of several runs of one name below each other, made in one go: with thousands of runs it matters."""
    parts = [_columns(outcome, pairs, learning_rate) for outcome, pairs in found]
    columns: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts])
        if isinstance(parts[0][name], np.ndarray)
        else [entry for part in parts for entry in part[name]]
        for name in (parts[0] if parts else ())
    }
    rows = len(columns.get("step", ()))
    columns["run"] = [run] * rows
    arrays = [
        pa.array(columns[entry.name], type=entry.type, from_pandas=_nullable(columns[entry.name]))
        if entry.name in columns
        else pa.nulls(rows, entry.type)
        for entry in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


def _columns(outcome: Outcome, pairs: Pairs, learning_rate: float) -> dict[str, Any]:
    sizes = np.bincount(2 * pairs.group + pairs.held_out, minlength=2 * len(pairs.groups))
    cells = np.flatnonzero(sizes)
    steps, count = np.repeat(np.array(outcome.steps, dtype=np.int64), len(cells)), len(outcome.steps)
    means = np.stack(outcome.means)[:, :, cells] if count else np.zeros((0, len(SUMMED), len(cells)))
    columns: dict[str, Any] = {
        "step": steps,
        "time": learning_rate * steps,
        "group": [pairs.groups[cell // 2] for cell in cells] * count,
        "split": [SPLITS[cell % 2] for cell in cells] * count,
        "pairs": np.tile(sizes[cells].astype(np.int64), count),
        "drift": np.repeat(np.array(outcome.drifts, dtype=np.float64), len(cells)),
    }
    columns |= {name: means[:, place].reshape(-1) for place, name in enumerate(SUMMED)}
    for name, reference in (("chosen", pairs.ref_chosen), ("rejected", pairs.ref_rejected)):
        base = np.nan if reference is None else _cell_means(reference, pairs)[cells]
        columns[f"{name}_log_prob"] = (means[:, SUMMED.index(f"{name}_change")] + base).reshape(-1)
    return columns


def _cell_means(values: Float[np.ndarray, " n"], pairs: Pairs) -> Float[np.ndarray, " cells"]:
    cells, count = 2 * pairs.group + pairs.held_out, 2 * len(pairs.groups)
    sums = np.bincount(cells, weights=values, minlength=count)
    return sums / np.maximum(np.bincount(cells, minlength=count), 1)


def _nullable(values: Any) -> bool:
    """Whether NaN means "not measurable" here: recorded numbers are finite, so it can mean nothing else."""
    return isinstance(values, np.ndarray) and values.dtype == np.float64


def final_means(outcome: Outcome, pairs: Pairs) -> Mapping[str, float | None]:
    """Loss, margin and reward accuracy over all pairs of each split at the last recorded step; None without pairs."""
    sizes = np.bincount(2 * pairs.group + pairs.held_out, minlength=2 * len(pairs.groups)).reshape(-1, 2)
    found: dict[str, float | None] = {}
    for split, name in enumerate(SPLITS):
        for quantity in ("loss", "margin", "reward_accuracy"):
            total = sizes[:, split].sum()
            found[f"{name}_{quantity}"] = None
            if total and outcome.means:
                means = outcome.means[-1][SUMMED.index(quantity)].reshape(-1, 2)[:, split]
                found[f"{name}_{quantity}"] = float(means @ sizes[:, split] / total)
    return found
