"""The margin flow of some pairs as an initial value problem, in the coordinates of the cheapest route."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.integrate import DOP853

from prefdyn._checks import at_least, positive
from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.routes import Route, build, cheapest
from prefdyn.dynamics.streaming import HELD_BYTES
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import SLiC

KINK_WIDTH = 0.01
"""SLiC's pull falls from 1 to 0 over this much margin below 1, where the true one jumps; margins are off by about as
much. Pairs that others pull down from 1 rest there, which a jump would let no solver pass; half the width takes about
twice the time."""

_TYPICAL_EVALUATIONS = 500
_FLOAT32_TOLERANCE = 1e-5
"""Rounding in float32 features hides anything finer from the solver."""


class FlowSolver:
    """The flow of some pairs as an initial value problem. Counts how often it looked at the pairs."""

    def __init__(
        self,
        feats: FeatureSet,
        pairs: Pairs,
        objective: Any,
        *,
        rtol: float,
        atol: float,
        kink_width: float,
        max_evaluations: int,
    ) -> None:
        dtype = feats.working_dtype
        floor = _FLOAT32_TOLERANCE if dtype == np.float32 else 0.0
        self.rtol = max(positive(rtol, name="rtol"), floor, 100 * np.finfo(np.float64).eps)
        self.atol = max(positive(atol, name="atol"), floor)
        self.limit = at_least(max_evaluations, 1, name="max_evaluations")
        self.evaluations = 0
        self.pairs, self.objective = pairs, objective
        width = feats.states.shape[1] if feats.chosen_features is None else feats.chosen_features.shape[1]
        name = cheapest(
            pairs,
            width,
            linear=True,
            runs=1,
            steps=_TYPICAL_EVALUATIONS,
            batch=None,
            itemsize=dtype.itemsize,
            streamed=len(pairs) * width * dtype.itemsize > HELD_BYTES,
        )
        self.route: Route = build(feats, pairs, name, dtype=dtype)
        self.share = pairs.weight[pairs.train] / pairs.weight[pairs.train].sum()
        self.shape = self.route.start(1).shape
        self.pull = _pull(objective, positive(kink_width, name="kink_width"))
        # One unit of the solver's state is one unit of margin, were all pairs to agree: what tolerances are meant in.
        largest = _largest_norm(self.route, pairs, self.shape)
        gram = len(self.shape) == 2
        self.unit = float(objective.beta) * (largest**2 * len(self.share) if gram else largest) or 1.0

    def rates(self, _: float, values: np.ndarray) -> np.ndarray:
        """How fast the solver's values change: what all pairs pull."""
        self.evaluations += 1
        beta, share = float(self.objective.beta), self.share

        def pulled(ratios: Any, where: Any) -> Any:
            return (beta * share[where, None] * self.pull(beta * ratios)).astype(ratios.dtype, copy=False)

        gradient = self.route.gradient(values.reshape(self.shape) / self.unit, pulled, None)
        return -self.unit * gradient.reshape(-1)

    def states(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Values of the solver as one state of the route, a run for each."""
        return np.stack([value.reshape(self.shape[1:]) / self.unit for value in values])

    def margins(self, states: np.ndarray) -> Float[np.ndarray, "n R"]:
        """Margins of all pairs under R states."""
        found = np.empty((len(self.pairs), len(states)))
        for seen in self.route.seen(states, logits=False):
            found[seen.places] = float(self.objective.beta) * seen.ratios
        return found

    def steps(self, until: float) -> Iterator[DOP853]:
        """SciPy's solver after each of its steps: `t_old`, `t` and, for three passes more, `dense_output()`.

        Raises:
            ConfigError: The limit of passes is reached, or a step fails.
        """
        solver = DOP853(self.rates, 0.0, np.zeros(math.prod(self.shape)), until, rtol=self.rtol, atol=self.atol)
        while solver.status == "running":
            if self.evaluations > self.limit:
                raise ConfigError(
                    f"the flow is at time {solver.t:.4g} of {until:g} after {self.evaluations} passes over the pairs, "
                    f"in steps of {solver.step_size or 0:.2g}: it is stiff, as {self._stiffest()}; lower until, or "
                    f"raise max_evaluations ({self.limit})"
                )
            message = solver.step()
            if solver.status == "failed":
                raise ConfigError(
                    f"the flow fails at time {solver.t:.4g} of {until:g} ({message}): the pull of "
                    f"{self.objective.name!r} is not finite there or jumps; lower until, or raise rtol and atol"
                )
            yield solver

    def _stiffest(self) -> str:
        if isinstance(self.objective, SLiC):
            return f"pairs rest at the kink of {self.objective.name!r}, whose kink_width can be raised"
        return "some directions of the features settle much faster than others"


def _pull(objective: Any, kink_width: float) -> Callable[[Any], Any]:
    if isinstance(objective, SLiC):
        return lambda margins: np.clip((1 - margins) / kink_width, 0.0, 1.0)
    return objective.push


def _largest_norm(route: Route, pairs: Pairs, shape: tuple[int, ...]) -> float:
    """Largest norm of a trained pair feature."""
    if len(shape) == 2:
        return math.sqrt(max(np.diagonal(route.kernel[: shape[1]]).max(), 0.0))  # pyright: ignore[reportAttributeAccessIssue]
    features: Any = route.train  # pyright: ignore[reportAttributeAccessIssue]
    answers, largest = np.sum(pairs.answers[pairs.train] ** 2, axis=1), 0.0
    for start, stop in features.blocks(1):
        block = features.block(start, stop)
        largest = max(largest, float((answers[start:stop] * np.einsum("ij,ij->i", block, block)).max()))
    return math.sqrt(largest)
