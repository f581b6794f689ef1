"""What pairs pull on many heads at once, each by its own objective, beta and subset of the pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from prefdyn.dynamics.measure import log_rest, shifts, slices
from prefdyn.dynamics.problem import Arrays, Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class RunColumns:
    """What the pull needs of the running columns, in the library and dtype of the products."""

    objectives: list[tuple[slice, Any]]
    betas: Any
    weights: Any
    """(trained, subsets): shares of the loss."""
    subset: Any
    log_rest: Any
    log_probs: Any
    chosen: Any
    """(trained, k): 1 at the chosen token. SFT alone needs the last three."""
    rejected: Any

    @classmethod
    def of(
        cls, like: Any, put_array: Arrays, pairs: Pairs, shares: Any, runs: Sequence[tuple[Any, int]]
    ) -> "RunColumns":
        """For runs given by objective and subset, in the library and dtype of `like`."""
        dtype = np.dtype(str(like.dtype).rsplit(".", 1)[-1])

        def put(values: Any) -> Any:
            return put_array(np.ascontiguousarray(values, dtype=dtype))

        train, objectives = pairs.train, [objective for objective, _ in runs]
        rest = probs = chosen = rejected = None
        if objectives[0].reads == "log_probs":
            assert pairs.log_probs is not None
            differences = pairs.differences()[train]
            rest, probs = put(log_rest(pairs.log_probs[train])), put(pairs.log_probs[train])
            chosen, rejected = put(differences > 0), put(differences < 0)
        return cls(
            objectives=[(where, replace(each, beta=put(each.beta))) for where, each in slices(objectives)],
            betas=put([each.beta for each in objectives]),
            weights=put(shares[train]),
            subset=put_array(np.array([subset for _, subset in runs])),
            log_rest=rest,
            log_probs=probs,
            chosen=chosen,
            rejected=rejected,
        )


class WatchedPull:
    """The pull of the pairs, which also sums the training loss and margin that it sees on the way."""

    def __init__(self, columns: RunColumns, full: bool, *, with_loss: bool) -> None:
        self.columns, self.full, self.with_loss = columns, full, with_loss
        self.losses: Any = 0.0
        self.margins: Any = 0.0

    def __call__(self, signal: Any, where: Any) -> Any:
        """Pulls (b, R) from log-ratio changes, or (b, R, k) from logit changes for SFT."""
        xp = array_namespace(signal)
        weights = self.columns.weights[where, :]
        if not self.full:
            weights = weights / xp.sum(weights, axis=0)
        if weights.shape[1] > 1:
            weights = xp.take(weights, self.columns.subset, axis=1)
        if self.columns.log_probs is not None:
            return self._softmax(signal, where, weights)
        margins = signal * self.columns.betas
        pushes = [each.push(margins[:, part]) for part, each in self.columns.objectives]
        if self.full:
            self.margins = self.margins + xp.sum(weights * margins, axis=0)
            if self.with_loss:
                losses = [each.loss(margins[:, part]) for part, each in self.columns.objectives]
                self.losses = self.losses + xp.sum(weights * _joined(xp, losses), axis=0)
        return _joined(xp, pushes) * (weights * self.columns.betas)

    def _softmax(self, logits: Any, where: Any, weights: Any) -> Any:
        """SFT: one-hot minus probability, over the k tokens."""
        xp, columns = array_namespace(logits), self.columns
        before, chosen = columns.log_probs[where, :], columns.chosen[where, :][:, None, :]
        rest = columns.log_rest[where, :]
        now = before[:, None, :] + logits - shifts(logits, rest, before)[:, :, None]
        if self.full:
            ratios = xp.sum((chosen - columns.rejected[where, :][:, None, :]) * logits, axis=2)
            self.margins = self.margins + xp.sum(weights * ratios * columns.betas, axis=0)
            self.losses = self.losses - xp.sum(weights * xp.sum(chosen * now, axis=2), axis=0)
        return weights[:, :, None] * (chosen - xp.exp(now))

    def means(self) -> tuple[Sequence[float | None], Sequence[float]]:
        """Mean training loss, where it was looked at, and margin of every run."""
        margins = _listed(self.margins)
        return (_listed(self.losses) if self.with_loss else [None] * len(margins)), margins


def _joined(xp: Any, parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)


def _listed(values: Any) -> list[float]:
    return [float(value) for value in values.tolist()]
