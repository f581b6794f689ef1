r"""The margin kernel $C_{ij} = \langle \phi_i, \phi_j \rangle$ of pair features, as an operator.

Both kinds of features share one algebra. The pair feature is a product
$\phi_i = a_i \otimes g_i$ of token coordinates $a_i \in \mathbb{R}^p$ and a feature $g_i \in \mathbb{R}^d$, so

$$ C_{ij} = (a_i \cdot a_j)\,(g_i \cdot g_j). $$

One-token answers: $a_i$ holds $e_{w_i} - e_{l_i}$ in an orthonormal basis of the differences that occur, and
$a_i \cdot a_j$ is the preference sharing $P_{ij}$ (THEORY 1.3). Yes/No data: $p = 1$, $a_i = \pm\sqrt2$. Longer
responses: $p = 1$, $a_i = 1$ and $g_i = \psi(\text{chosen}) - \psi(\text{rejected})$. Nothing n × n and nothing
n × p·d is formed unless `dense` is asked for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from prefdyn._random import stream
from prefdyn._threads import small_work

_DENSE_SIDE = 64
"""Up to this many rows or columns the spectrum comes from a dense matrix; beyond it from Lanczos iterations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairKernel:
    """Pair features in product form, and the linear maps that descent needs."""

    answers: Float[Any, "n p"]
    """Token coordinates of each pair."""
    features: Float[Any, "n d"]
    """Feature of each pair."""

    def __len__(self) -> int:
        return self.features.shape[0]

    def rows(self, index: Any) -> "PairKernel":
        """The kernel of some pairs, by slice, mask or integer index."""
        return PairKernel(answers=self.answers[index], features=self.features[index])

    def weighted(self, weight: Float[Any, " n"]) -> "PairKernel":
        r"""The kernel $\sqrt{w_i w_j}\, C_{ij}$, whose largest eigenvalue sets the stable step of a weighted loss."""
        xp = array_namespace(self.features)
        scale = xp.astype(xp.sqrt(weight), self.answers.dtype)
        return PairKernel(answers=self.answers * scale[:, None], features=self.features)

    def forward(self, weights: Float[Any, "p d"]) -> Float[Any, " n"]:
        r"""$\langle \phi_i, \theta \rangle$ for every pair: its log-ratio change under head weights $\theta$."""
        xp = array_namespace(self.features)
        return xp.sum(self.answers * (self.features @ weights.T), axis=1)

    def adjoint(self, values: Float[Any, " n"]) -> Float[Any, "p d"]:
        r"""$\sum_i v_i \phi_i$: the head weights that pairs with pulls $v$ add up to."""
        return (self.answers * values[:, None]).T @ self.features

    def matvec(self, values: Float[Any, " n"]) -> Float[Any, " n"]:
        r"""$C v$ without forming $C$."""
        return self.forward(self.adjoint(values))

    def diagonal(self) -> Float[Any, " n"]:
        r"""$C_{ii} = \lVert \phi_i \rVert^2$."""
        xp = array_namespace(self.features)
        return xp.sum(self.answers**2, axis=1) * xp.sum(self.features**2, axis=1)

    def cross(self, other: "PairKernel") -> Float[Any, "n m"]:
        r"""$\langle \phi_i, \phi'_j \rangle$ against other pairs in the same coordinates."""
        return (self.answers @ other.answers.T) * (self.features @ other.features.T)

    def dense(self) -> Float[Any, "n n"]:
        r"""$C$ itself: n² numbers. Symmetric, positive semidefinite."""
        return self.cross(self)

    def largest_eigenvalue(self) -> float:
        r"""$\lambda_{\max}(C)$: from the n × n or p·d × p·d Gram matrix if one is small, else by Lanczos iterations."""
        n, (p, d) = len(self), (self.answers.shape[1], self.features.shape[1])
        answers, features = np.asarray(self.answers, dtype=np.float64), np.asarray(self.features)
        if min(n, p * d) <= _DENSE_SIDE:
            with small_work(n * p * d):
                flat = (answers[:, :, None] * features[:, None, :]).reshape(n, p * d).astype(np.float64)
                gram = flat @ flat.T if n <= p * d else flat.T @ flat
                return float(np.linalg.eigvalsh(gram)[-1]) if len(gram) else 0.0

        def product(vector: np.ndarray) -> np.ndarray:
            weights = vector.reshape(p, d).astype(features.dtype)
            pulls = np.sum(answers * (features @ weights.T), axis=1, keepdims=True)
            return ((answers * pulls).T.astype(features.dtype) @ features).reshape(-1).astype(np.float64)

        with small_work(features.size):
            return _lanczos(product, p * d, 1e-12 if features.dtype == np.float64 else 1e-6)


def largest_eigenvalue_in_pieces(
    pieces: Callable[[], Iterable[tuple[slice, PairKernel]]], weight: Float[np.ndarray, " n"]
) -> float:
    r"""$\lambda_{\max}$ of $\sqrt{w_i w_j}\, C_{ij}$, by Lanczos iterations that go through the pieces again and again.

    Args:
        pieces: Gives where the pairs of a piece stand, and their kernel, from the first to the last.
        weight: Of all pairs.

    Returns:
        The eigenvalue, to 1e-4 of itself.

    Example:
        >>> whole = PairKernel(answers=np.ones((90, 1)), features=np.eye(90)[:, :80])
        >>> halves = [(where, whole.rows(where)) for where in (slice(0, 50), slice(50, 90))]
        >>> round(largest_eigenvalue_in_pieces(lambda: halves, np.full(90, 3.0)), 3)
        3.0
    """
    first = next(iter(pieces()))[1]
    shape = (first.answers.shape[1], first.features.shape[1])

    def product(vector: np.ndarray) -> np.ndarray:
        head, total = vector.reshape(shape).astype(first.features.dtype), np.zeros(shape)
        for where, kernel in pieces():
            total += kernel.adjoint((weight[where] * kernel.forward(head)).astype(first.features.dtype))
        return total.reshape(-1)

    return _lanczos(product, shape[0] * shape[1], 1e-4)


def _lanczos(product: Callable[[np.ndarray], np.ndarray], size: int, tolerance: Any) -> float:
    """Largest eigenvalue of a symmetric product, to so much of itself."""
    from scipy.sparse.linalg import LinearOperator, eigsh  # a slow import

    operator = LinearOperator((size, size), matvec=product, dtype=np.dtype(np.float64))  # pyright: ignore[reportCallIssue]
    start = stream(0, "kernel", "lanczos").normal(size=size)
    return float(eigsh(operator, k=1, v0=start, tol=tolerance, return_eigenvectors=False)[0])


def preference_sharing(
    chosen: Int[np.ndarray, " n"],
    rejected: Int[np.ndarray, " n"],
    other_chosen: Int[np.ndarray, " m"],
    other_rejected: Int[np.ndarray, " m"],
) -> Int[np.ndarray, "n m"]:
    r"""$P_{ij} = (e_{w_i} - e_{l_i}) \cdot (e_{w_j} - e_{l_j})$, in {-2, -1, 0, 1, 2}.

    2 for the same pair of tokens, -2 for the swapped pair, ±1 where one token is shared in the same or in
    opposite roles, 0 for disjoint pairs.

    Reference:
        2408.03459, Lemma 4.1 ("preference sharing"); THEORY 1.3.

    Example:
        >>> P = preference_sharing(*map(np.array, ([0, 0], [1, 1], [1, 2], [0, 1])))
        >>> P[0].tolist()
        [-2, 1]
    """
    won, lost, other_won, other_lost = (
        chosen[:, None],
        rejected[:, None],
        other_chosen[None, :],
        other_rejected[None, :],
    )
    return (won == other_won).astype(int) + (lost == other_lost) - (won == other_lost) - (lost == other_won)


def answer_coordinates(
    chosen: Int[np.ndarray, " n"], rejected: Int[np.ndarray, " n"], size: int
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "size p"]]:
    r"""Coordinates of $e_{w_i} - e_{l_i}$ in an orthonormal basis of the differences that occur.

    Args:
        chosen: Index of the chosen token among the `size` tokens that occur.
        rejected: Index of the rejected token.
        size: How many tokens occur.

    Returns:
        Coordinates, one row per pair, with `coordinates @ coordinates.T` the preference sharing; and the basis
        (orthonormal columns), with `coordinates @ basis.T` the differences. Two tokens: one column, ±√2, positive
        where the first token is chosen.

    Example:
        >>> a, basis = answer_coordinates(np.array([0, 1]), np.array([1, 0]), 2)
        >>> a.round(4).tolist()
        [[1.4142], [-1.4142]]
    """
    low, high = np.minimum(chosen, rejected), np.maximum(chosen, rejected)
    pairs = np.stack(np.divmod(np.unique(low.astype(np.int64) * size + high), size), axis=1)
    columns = np.zeros((size, len(pairs)))
    columns[pairs[:, 0], np.arange(len(pairs))] = 1.0
    columns[pairs[:, 1], np.arange(len(pairs))] -= 1.0
    # Gram-Schmidt in the order of the pairs: a basis that does not hang on a library's sign convention.
    basis: list[np.ndarray] = []
    for column in columns.T:
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for vector in basis:
                column = column - (vector @ column) * vector
        norm = np.linalg.norm(column)
        if norm > 1e-9:
            basis.append(column / norm)
    matrix = np.stack(basis, axis=1) if basis else np.zeros((size, 0))
    return matrix[chosen] - matrix[rejected], matrix
