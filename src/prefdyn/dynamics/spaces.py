"""How R heads are held: as numbers that meet the features in matrix products, or as coefficients of the pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.streaming import FeatureRows

Pull = Callable[[Any, Any], Any]
"""What pairs pull: takes their log-ratio changes (b, R), or for SFT logit changes (b, R, k), and which pairs they are
(a slice or an index among the trained pairs); returns an array of the same shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What R heads make of some pairs, NumPy float64."""

    places: Int[np.ndarray, " b"]
    """Places in `Pairs`."""
    ratios: Float[np.ndarray, "b R"]
    """Change of the log-ratio of chosen over rejected, nats."""
    logits: Float[np.ndarray, "b R k"] | None
    """Change of the logits of the k tokens."""
    responses: tuple[np.ndarray, np.ndarray] | None
    """First-order change of the log-probability of the chosen and of the rejected longer response, (b, R) each."""


@runtime_checkable
class Route(Protocol):
    """What the engine asks of a route."""

    @property
    def name(self) -> str:
        """One of `prefdyn.dynamics.routes.ROUTES`."""
        ...

    @property
    def like(self) -> Any:
        """An array of the library, device and dtype of the products."""
        ...

    def start(self, runs: int) -> Any:
        """(R, …) zeros: no change of any head."""
        ...

    def gradient(self, state: Any, pull: Pull, batch: Int[np.ndarray, " b"] | None) -> Any:
        """Gradient of the R losses, shaped like the state, over all trained pairs or over a batch of them."""
        ...

    def seen(self, state: Any, *, logits: bool) -> Iterator[Seen]:
        """What the heads make of every pair, trained or held out, block by block."""
        ...

    def drifts(self, state: Any) -> Float[np.ndarray, " R"]:
        """Frobenius norm of each head's change."""
        ...

    def heads(self, state: Any) -> Float[np.ndarray, "R p d"]:
        """Each head's change in the coordinates of the features' kernel."""
        ...


# products with the features -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """The routes `weights`, `rows` and `reduced`: (R, c, d) numbers that meet the features in matrix products."""

    name: str
    pairs: Pairs
    train: FeatureRows
    held: FeatureRows | None
    forward: Any
    """(trained, c): $u = \\sum_c$ forward × (features @ state)."""
    adjoint: Any
    """(trained, c): how a pull on $u$ reaches the c numbers per feature."""
    forward_held: Any
    to_answers: Float[np.ndarray, "p c"]
    to_logits: Float[np.ndarray, "k c"]
    rotation: Float[np.ndarray, "d r"] | None = None
    responses: tuple[FeatureRows, FeatureRows] | None = None
    on_logits: bool = False
    """True for SFT: pairs pull on the logits themselves."""

    @property
    def like(self) -> Any:
        """See `Route`."""
        return self.forward

    def start(self, runs: int) -> Any:
        """(R, c, d) zeros, in float64."""
        xp = array_namespace(self.forward)
        return xp.zeros((runs, self.forward.shape[1], self.train.width), dtype=xp.float64, **_device(self.forward))

    def gradient(self, state: Any, pull: Pull, batch: Int[np.ndarray, " b"] | None) -> Any:
        """One pass: each block meets the heads and takes the pulls while it is in the cache."""
        xp = array_namespace(self.forward)
        runs, c, width = state.shape
        flat = xp.astype(xp.reshape(state, (runs * c, width)), self.forward.dtype).T
        total, part, products = xp.zeros_like(flat.T), xp.empty_like(flat.T), None
        for where, features, forward, adjoint in self._passes(runs * c, batch):
            rows = features.shape[0]
            if products is None:
                products = xp.empty((rows, runs * c), dtype=flat.dtype, **_device(flat))
            product = xp.matmul(features, flat, out=products[:rows, :])
            if self.on_logits:
                pulls = xp.reshape(pull(xp.reshape(product, (rows, runs, c)), where), (rows, runs * c))
            else:
                pulls = _spread(pull(_ratios(product, forward, runs), where), adjoint)
            xp.matmul(pulls.T, features, out=part)
            total += part
        return -xp.astype(xp.reshape(total, (runs, c, width)), xp.float64)

    def seen(self, state: Any, *, logits: bool) -> Iterator[Seen]:
        """See `Route`."""
        xp = array_namespace(self.forward)
        runs, c, width = state.shape
        flat = xp.astype(xp.reshape(state, (runs * c, width)), self.forward.dtype).T
        held_out = np.flatnonzero(self.pairs.held_out)
        parts = ((self.train, self.forward, self.pairs.train), (self.held, self.forward_held, held_out))
        whole = None
        if logits and self.responses is not None:
            theta = self._theta(state)
            whole = theta.T if self.responses[0].arrays is None else self.responses[0].arrays(theta.T.copy())
        for source, forward, places in parts:
            if source is None:
                continue
            for start, stop in source.blocks(runs * c):
                product = source.block(start, stop) @ flat
                ratios = as_numpy(_ratios(product, forward[start:stop, :], runs))
                moved = two = None
                if logits and len(self.to_logits):
                    moved = as_numpy(product).reshape(stop - start, runs, c) @ self.to_logits.T
                if whole is not None and self.responses is not None:
                    first, second = (rows.take(places[start:stop]) for rows in self.responses)
                    two = (as_numpy(first @ whole), as_numpy(second @ whole))
                yield Seen(places=places[start:stop], ratios=ratios, logits=moved, responses=two)

    def sum_of(self, coefficients: Any) -> Any:
        r"""$\sum_j \alpha_j \phi_j$ for (R, trained) coefficients: a state of this route."""
        xp = array_namespace(self.forward)
        cast = xp.astype(coefficients.T, self.forward.dtype)
        return -self.gradient(self.start(coefficients.shape[0]), lambda _, where: cast[where, :], None)

    def drifts(self, state: Any) -> Float[np.ndarray, " R"]:
        """See `Route`."""
        form = self.to_logits.T @ self.to_logits if len(self.to_logits) else np.eye(state.shape[1])
        numbers = as_numpy(state)
        return np.sqrt(np.sum(np.einsum("ce,red->rcd", form, numbers) * numbers, axis=(1, 2)))

    def heads(self, state: Any) -> Float[np.ndarray, "R p d"]:
        """See `Route`."""
        found = np.einsum("pc,rcd->rpd", self.to_answers, as_numpy(state))
        return found if self.rotation is None else found @ self.rotation.T

    def reference(self, head: Float[np.ndarray, "k d"]) -> Any:
        """Reference head rows as a state of one run: what weight decay pulls towards 0 with the change."""
        found = np.linalg.pinv(self.to_logits) @ head.astype(np.float64)
        return found[None] if self.train.arrays is None else self.train.arrays(found[None])

    def _theta(self, state: Any) -> Float[np.ndarray, "R d"]:
        return self.heads(state)[:, 0, :].astype(np.dtype(str(self.forward.dtype).rsplit(".", 1)[-1]))

    def _passes(self, columns: int, batch: Int[np.ndarray, " b"] | None) -> Iterator[tuple[Any, Any, Any, Any]]:
        if batch is None:
            for start, stop in self.train.blocks(columns):
                where = slice(start, stop)
                yield where, self.train.block(start, stop), self.forward[where, :], self.adjoint[where, :]
            return
        index: Any = batch if self.train.arrays is None else self.train.arrays(np.asarray(batch))
        yield index, self.train.take(batch), self.forward[index, :], self.adjoint[index, :]


# coefficients of the pairs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Gram:
    """The route `gram`: one coefficient per run and trained pair, and the kernel between all pairs and the trained."""

    products: Products
    kernel: Any
    """(n, trained): the trained pairs first, then the held-out ones."""
    name: str = "gram"

    @property
    def like(self) -> Any:
        """See `Route`."""
        return self.kernel

    @classmethod
    def of(cls, products: Products) -> "Gram":
        """From the features of the route `weights`, in their library and dtype."""
        xp = array_namespace(products.forward)
        first = products.train.block(0, len(products.train))
        kernel = xp.round(products.forward @ products.forward.T) * (first @ first.T)  # preference sharing is whole
        if products.held is not None:
            other = products.held.block(0, len(products.held))
            sharing = xp.round(products.forward_held @ products.forward.T)
            kernel = xp.concat([kernel, sharing * (other @ first.T)], axis=0)
        return cls(products=products, kernel=kernel)

    def start(self, runs: int) -> Any:
        """(R, trained) zeros, in float64."""
        xp = array_namespace(self.kernel)
        return xp.zeros((runs, self.kernel.shape[1]), dtype=xp.float64, **_device(self.kernel))

    def gradient(self, state: Any, pull: Pull, batch: Int[np.ndarray, " b"] | None) -> Any:
        r"""In coefficients the gradient is minus the pulls themselves: no second product."""
        xp = array_namespace(self.kernel)
        flat = xp.astype(state, self.kernel.dtype).T
        if batch is None:
            where = slice(0, self.kernel.shape[1])
            return -xp.astype(pull(self.kernel[where, :] @ flat, where).T, xp.float64)
        index: Any = batch if self.products.train.arrays is None else self.products.train.arrays(np.asarray(batch))
        pulls = pull(self.kernel[index, :] @ flat, index)
        found = xp.zeros_like(state)
        found[:, index] = -xp.astype(pulls.T, xp.float64)
        return found

    def seen(self, state: Any, *, logits: bool) -> Iterator[Seen]:
        """See `Route`. Two tokens move by plus and minus half the log-ratio; otherwise the heads are summed up."""
        pairs = self.products.pairs
        if logits and (pairs.tokens > 2 or self.products.responses is not None):
            yield from self.products.seen(self.products.sum_of(state), logits=True)
            return
        xp = array_namespace(self.kernel)
        flat = xp.astype(state, self.kernel.dtype).T
        places = np.concatenate([pairs.train, np.flatnonzero(pairs.held_out)])
        for start, stop in FeatureRows.held(self.kernel).blocks(flat.shape[1]):
            ratios = as_numpy(self.kernel[start:stop, :] @ flat)
            rows, moved = places[start:stop], None
            if logits and pairs.chosen is not None:
                first = np.where(pairs.chosen[rows] == 0, 0.5, -0.5)[:, None] * ratios
                moved = np.stack([first, -first], axis=2)
            yield Seen(places=rows, ratios=ratios, logits=moved, responses=None)

    def drifts(self, state: Any) -> Float[np.ndarray, " R"]:
        r"""$\sqrt{\alpha^\top C \alpha}$."""
        xp = array_namespace(self.kernel)
        moved = xp.astype(self.kernel[: self.kernel.shape[1], :], xp.float64, copy=False) @ state.T
        return np.sqrt(np.maximum(as_numpy(xp.sum(state * moved.T, axis=1)), 0.0))

    def heads(self, state: Any) -> Float[np.ndarray, "R p d"]:
        """See `Route`."""
        return self.products.heads(self.products.sum_of(state))


# array work ----------------------------------------------------------------------------------------------------------


def _ratios(product: Any, forward: Any, runs: int) -> Any:
    """Log-ratio changes (b, R) from the products (b, R × c) of features and heads."""
    if forward.shape[1] == 1:
        return product * forward
    xp = array_namespace(product)
    return xp.sum(xp.reshape(product, (product.shape[0], runs, forward.shape[1])) * forward[:, None, :], axis=2)


def _spread(pulls: Any, adjoint: Any) -> Any:
    """Pulls on log-ratios (b, R) as pulls on the products (b, R × c)."""
    if adjoint.shape[1] == 1:
        return pulls * adjoint
    xp = array_namespace(pulls)
    return xp.reshape(pulls[:, :, None] * adjoint[:, None, :], (pulls.shape[0], -1))


def as_numpy(values: Any) -> Any:
    """Values of either library as NumPy float64."""
    if not isinstance(values, np.ndarray):
        values = values.cpu().numpy()
    return values.astype(np.float64, copy=False)


def _device(like: Any) -> dict[str, Any]:
    return {} if isinstance(like, np.ndarray) else {"device": like.device}
