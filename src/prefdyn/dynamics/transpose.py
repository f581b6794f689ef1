r"""The linear maps of a route, backwards: from derivatives in what heads do to derivatives in what is held of them.

A route takes a state to log-ratio changes $u = F\theta$ and pulls back to a gradient $g = -A^\top v$. Its coordinates
decide $F$ and $A$, which need not be equal: of two tokens one row is held, $F = 2 s\,x$ and $A = s\,x$. Going back
through a step takes $A\,\bar g$ and $F^\top \bar u$: the same passes over the features with both changed over.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from prefdyn.dynamics.problem import Arrays
from prefdyn.dynamics.spaces import Gram, Products, Pull, Route
from prefdyn.dynamics.streaming import FeatureRows


def transposed(route: Route) -> Route:
    """The route that goes from pulls on log-ratios to states, and back, the other way round; a kernel is symmetric."""
    return replace(route, forward=route.adjoint, adjoint=route.forward) if isinstance(route, Products) else route


def gradient_back(route: Route, cotangent: Any, pull: Pull, batch: Int[np.ndarray, " b"] | None) -> Any:
    r"""$-F^\top p(A \bar g)$: the transpose of `Route.gradient` around any map p of one number per pair.

    Args:
        route: Which, `transposed`.
        cotangent: (T, …) derivatives $\bar g$ in the gradient.
        pull: Takes $A \bar g$, (b, T), or (b, T, k) where pairs pull on logits, and which pairs; gives the like.
        batch: Places among the trained pairs; None for all.

    Returns:
        (T, …), shaped like a state.
    """
    if isinstance(route, Products):
        return route.gradient(cotangent, pull, batch)
    assert isinstance(route, Gram)
    xp = array_namespace(route.kernel)
    flat = xp.astype(cotangent, route.kernel.dtype).T
    if batch is None:
        where = slice(0, route.kernel.shape[1])
        return -xp.astype((route.kernel[where, :].T @ pull(flat, where)).T, xp.float64)
    index: Any = batch if route.products.train.arrays is None else route.products.train.arrays(np.asarray(batch))
    return -xp.astype((route.kernel[index, :].T @ pull(flat[index, :], index)).T, xp.float64)


def seen_back(
    route: Route,
    put: Arrays,
    *,
    ratios: Float[np.ndarray, "n T"] | None = None,
    logits: Float[np.ndarray, "n T k"] | None = None,
    responses: tuple[Float[np.ndarray, "n T"], Float[np.ndarray, "n T"]] | None = None,
) -> Any:
    r"""`Route.seen`, backwards: from T numbers' derivatives in what the head makes of the pairs to those in its state.

    Args:
        route: Which.
        put: Takes a NumPy array to the library and device of the route.
        ratios: Derivatives in the log-ratio change of every pair, trained or held out.
        logits: Derivatives in the changes of the logits of the k tokens.
        responses: Derivatives in the change of log-probability of every chosen and every rejected longer response.

    Returns:
        (T, …) cotangents of a state, float64.
    """
    if isinstance(route, Products):
        return _of_products(route, put, ratios, logits, responses)
    assert isinstance(route, Gram)
    xp = array_namespace(route.kernel)
    pairs, found = route.products.pairs, 0.0
    if logits is not None and pairs.tokens == 2:
        assert pairs.chosen is not None
        through = 0.5 * np.where(pairs.chosen == 0, 1.0, -1.0)[:, None] * (logits[:, :, 0] - logits[:, :, 1])
        ratios, logits = through if ratios is None else ratios + through, None
    if ratios is not None:
        order = np.concatenate([pairs.train, np.flatnonzero(pairs.held_out)])
        found = xp.astype((route.kernel.T @ _cast(put, ratios[order], route.kernel)).T, xp.float64)
    if logits is not None or responses is not None:
        found = found + _inner(route.products, _of_products(route.products, put, None, logits, responses))
    return found


def _of_products(route: Products, put: Arrays, ratios: Any, logits: Any, responses: Any) -> Any:
    xp = array_namespace(route.forward)
    targets = next(each.shape[1] for each in (ratios, logits, (responses or [None])[0]) if each is not None)
    c, width = route.forward.shape[1], route.train.width
    total = xp.zeros_like(route.start(targets))
    held_out = np.flatnonzero(route.pairs.held_out)
    parts: tuple[tuple[FeatureRows | None, Any, np.ndarray], ...] = (
        (route.train, route.forward, route.pairs.train),
        (route.held, route.forward_held, held_out),
    )
    for source, forward, places in parts if ratios is not None or logits is not None else ():
        if source is None:
            continue
        for start, stop in source.blocks(targets * c):
            rows, products = places[start:stop], 0.0
            if ratios is not None:
                products = _cast(put, ratios[rows], forward)[:, :, None] * forward[start:stop, None, :]
            if logits is not None:
                products = products + _cast(put, logits[rows] @ route.to_logits, forward)
            flat = xp.reshape(products, (stop - start, targets * c))
            total += xp.astype(xp.reshape(flat.T @ source.block(start, stop), (targets, c, width)), xp.float64)
    if responses is None:
        return total
    assert route.responses is not None
    head: Any = 0.0
    for rows, values in zip(route.responses, responses, strict=True):
        for start, stop in rows.blocks(targets):
            block = rows.block(start, stop)
            head = head + xp.astype(_cast(put, values[start:stop], block).T @ block, xp.float64)
    if route.rotation is not None:
        head = head @ put(route.rotation)
    weights = put(np.ascontiguousarray(route.to_answers[0]))  # longer responses have one row
    return total + head[:, None, :] * weights[None, :, None]


def _inner(route: Products, cotangent: Any) -> Any:
    r"""(T, trained) derivatives in the coefficients of $\theta = \sum_j \alpha_j \phi_j$ from those in $\theta$."""
    xp = array_namespace(route.forward)
    found = xp.zeros((cotangent.shape[0], len(route.train)), dtype=xp.float64, device=cotangent.device)

    def read(signal: Any, where: Any) -> Any:
        found[:, where] = xp.astype(signal.T, xp.float64)
        return xp.zeros_like(signal)

    transposed(route).gradient(cotangent, read, None)
    return found


def _cast(put: Arrays, values: np.ndarray, like: Any) -> Any:
    return put(np.ascontiguousarray(values, dtype=np.dtype(str(like.dtype).rsplit(".", 1)[-1])))
