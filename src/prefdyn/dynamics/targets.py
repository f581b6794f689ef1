r"""Numbers about held-out pairs that a run ends with, and their derivatives in what its head makes of those pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._checks import one_of
from prefdyn.dynamics.measure import SPLITS, log_rest, shifts
from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.spaces import Route
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.maths.slopes import by_beta, by_smoothing

QUANTITIES = ("loss", "margin", "soft_accuracy", "chosen_log_prob")
r"""Of each pair: its loss (nats), its margin $r$, $\sigma(r)$ (a smooth stand-in for accuracy: the probability that the
margin gives to the stated preference), or the log-probability of its chosen response (nats)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """T weighted sums of one quantity over pairs."""

    names: tuple[str, ...]
    weights: Float[np.ndarray, "T n"]
    quantity: str

    def rows(self, places: Sequence[int]) -> "Targets":
        """Some of them."""
        return Targets(
            names=tuple(self.names[place] for place in places),
            weights=self.weights[list(places)],
            quantity=self.quantity,
        )


def targets(feats: FeatureSet, of: Any, *, quantity: str = "loss", split: str = "held_out") -> Targets:
    """Targets by name, or by weights of one's own.

    Args:
        feats: The pairs.
        of: "groups", every group's mean over its pairs of the split; "all", the mean over all pairs of the split; a
            group's name or several; ids of pairs as `["id:…"]`; or weights of all n pairs, (n,) or (T, n), of any sign.
        quantity: One of `QUANTITIES`.
        split: "held_out" or "train", for targets by name; every pair where a pair is named.

    Raises:
        ConfigError: The quantity, split, group or id is unknown.
        DataError: No pair is in the split, or weights have another shape or a number that is not finite.
    """
    one_of(quantity, QUANTITIES, name="quantity")
    one_of(split, SPLITS, name="split")
    inside = feats.held_out if split == "held_out" else ~feats.held_out
    if isinstance(of, np.ndarray) and of.dtype.kind == "f":
        weights = np.atleast_2d(of).astype(np.float64)
        if weights.ndim != 2 or weights.shape[1] != len(feats) or not np.isfinite(weights).all():
            raise DataError(
                f"`of` has shape {of.shape}; weights of targets are finite numbers, (n,) or (targets, n) with "
                f"n = {len(feats)} pairs"
            )
        return Targets(names=tuple(map(str, range(len(weights)))), weights=weights, quantity=quantity)
    if isinstance(of, str) and of == "all":
        rows = {"all": inside}
    else:
        members = {name: inside & (feats.group == code) for code, name in enumerate(feats.groups)}
        if isinstance(of, str) and of == "groups":
            rows = {name: mask for name, mask in members.items() if mask.any()}
        else:
            rows = {name: _named(feats, members, name) for name in ([of] if isinstance(of, str) else of)}
    empty = [name for name, mask in rows.items() if not mask.any()]
    if empty or not rows:
        raise DataError(
            f"{', '.join(map(repr, empty)) or 'every group'} has no pair in the split {split!r}, so there is nothing "
            "to take a derivative of; hold some pairs out, or give split='train'"
        )
    weights = np.stack([mask / mask.sum() for mask in rows.values()])
    return Targets(names=tuple(rows), weights=weights, quantity=quantity)


def _named(feats: FeatureSet, members: dict[str, Any], name: str) -> np.ndarray:
    if name in members:
        return members[name]
    if name.startswith("id:"):
        found = feats.id == name[3:]
        if not found.any():
            raise ConfigError(f"no pair has the id {name[3:]!r}; ids look like {str(feats.id[0])!r}")
        return found
    one_of(name, feats.groups, name="of")
    raise AssertionError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """T targets at the end of a run, and their derivatives in what the head makes of n pairs."""

    values: Float[np.ndarray, " T"]
    ratios: Float[np.ndarray, "n T"] | None
    """In the log-ratio changes."""
    logits: Float[np.ndarray, "n T k"] | None
    """In the changes of the k tokens' logits."""
    responses: tuple[Float[np.ndarray, "n T"], Float[np.ndarray, "n T"]] | None
    """In the log-probability changes of chosen and rejected longer responses."""
    beta: Float[np.ndarray, " T"]
    r"""In $\beta$, the head held."""
    smoothing: Float[np.ndarray, " T"]
    """In the label smoothing, the head held."""


def reached(route: Route, state: Any, pairs: Pairs, objective: Any, wanted: Targets) -> Reached:
    """What the targets are in a state of one run.

    Raises:
        DataError: Log-probabilities are asked for, and the features do not carry what they follow from.
    """
    reads_log_probs = wanted.quantity == "chosen_log_prob" or (
        wanted.quantity == "loss" and objective.reads == "log_probs"
    )
    reference = pairs.ref_chosen
    if reads_log_probs and (reference is None or (pairs.tokens > 0 and pairs.log_probs is None)):
        raise DataError(
            "log-probabilities follow from the reference's, and these features carry none; extract them from a model, "
            "or ask for 'margin'"
        )
    ratios = np.zeros(len(pairs))
    logits = np.zeros((len(pairs), pairs.tokens)) if reads_log_probs and pairs.tokens else None
    chosen = np.zeros(len(pairs))
    for seen in route.seen(state, logits=reads_log_probs):
        ratios[seen.places] = seen.ratios[:, 0]
        if logits is not None and seen.logits is not None:
            logits[seen.places] = seen.logits[:, 0, :]
        if reads_log_probs and seen.responses is not None:
            chosen[seen.places] = seen.responses[0][:, 0]
    weights, none = wanted.weights, np.zeros(len(wanted.names))
    if reads_log_probs:
        assert reference is not None
        sign = 1.0 if wanted.quantity == "chosen_log_prob" else -1.0
        to_logits = to_responses = None
        if logits is not None:
            assert pairs.log_probs is not None
            assert pairs.chosen is not None
            before, rows = pairs.log_probs, np.arange(len(pairs))
            shift = shifts(logits[:, None, :], log_rest(before), before)
            slope = -np.exp(before + logits - shift)
            slope[rows, pairs.chosen] += 1.0
            chosen = logits[rows, pairs.chosen] - shift[:, 0]
            to_logits = sign * weights.T[:, :, None] * slope[:, None, :]
        else:
            to_responses = (sign * weights.T, np.zeros((len(pairs), len(wanted.names))))
        values = sign * weights @ (reference + chosen)
        return Reached(
            values=values, ratios=None, logits=to_logits, responses=to_responses, beta=none, smoothing=none
        )  # fmt: skip
    margins = objective.beta * ratios
    value, slope, beta, smoothing = _of_margins(wanted.quantity, objective, margins)
    return Reached(
        values=weights @ value,
        ratios=objective.beta * slope[:, None] * weights.T,
        logits=None,
        responses=None,
        beta=weights @ (slope * ratios + beta),
        smoothing=weights @ smoothing,
    )


def ended(
    wanted: Targets,
    objective: Any,
    pairs: Pairs,
    margins: Float[np.ndarray, " n"],
    chosen_changes: Float[np.ndarray, " n"] | None,
) -> Float[np.ndarray, " T"]:
    """What the targets are where every pair's margin and change of its chosen log-probability are known."""
    if wanted.quantity == "chosen_log_prob" or (wanted.quantity == "loss" and objective.reads == "log_probs"):
        if chosen_changes is None or pairs.ref_chosen is None:
            raise DataError(
                "the run did not measure log-probabilities, for the features carry none of the reference; ask for "
                "'margin'"
            )
        sign = 1.0 if wanted.quantity == "chosen_log_prob" else -1.0
        return sign * wanted.weights @ (pairs.ref_chosen + chosen_changes)
    return wanted.weights @ _of_margins(wanted.quantity, objective, margins)[0]


def _of_margins(quantity: str, objective: Any, margins: np.ndarray) -> tuple[np.ndarray, ...]:
    """A quantity of each pair, its slope in the margin, and its derivatives in beta and smoothing at that margin."""
    none = np.zeros_like(margins)
    if quantity == "margin":
        return margins, none + 1.0, none, none
    if quantity == "soft_accuracy":
        plain = DPO(beta=1.0)
        up = plain.push(-margins)
        return up, up * plain.push(margins), none, none
    loss = objective.loss(margins)
    return loss, -objective.push(margins), by_beta(objective, margins)[0], by_smoothing(objective, margins)[0]
