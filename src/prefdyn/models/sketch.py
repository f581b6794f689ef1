r"""TensorSketch of the gradient of a response's log-probability in the head, and the same gradient unsketched.

The gradient is $\psi(y|x) = c \sum_t (e_{y_t} - \pi_t)\, g_t^\top$ (V × d): c the head's logit scale, $g_t$ the state
that predicts token t, $\pi_t$ the head's distribution there. A sketch keeps k numbers of it. Residual and state are
each count-sketched to k buckets and multiplied in the Fourier domain, where the sum over tokens is taken as well, so
that no V × d array, and nothing of the size tokens × vocabulary, is ever held.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from prefdyn._checks import at_least
from prefdyn._progress import track
from prefdyn._random import stream
from prefdyn.models.tiles import Exponentials, Head
from prefdyn.settings import SKETCH

_EXACT = {"cpu": 1 << 24, "cuda": 1 << 27}
"""Numbers in one slice of the unsketched gradients, or of the residuals of all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    r"""Where each token of the vocabulary and each coordinate of the state goes, and with which sign.

    $\mathrm{sketch}(A)_b = \sum_{v,j:\, h(v) + h'(j) \equiv b} s(v)\, s'(j)\, A_{vj}$ with independent signs, so that
    for any A and B, exactly,

    $$\mathbb{E}\,\langle \mathrm{sketch}(A), \mathrm{sketch}(B) \rangle = \langle A, B \rangle .$$

    As few coordinates as possible share a bucket, and which ones is chance. Then, up to terms of order $1/k^2$,

    $$\mathrm{Var} \le \frac1k \big(\lVert A \rVert^2 \lVert B \rVert^2 + \langle A, B \rangle^2 + 2 \lVert A B^\top
    \rVert_F^2 + 2 \lVert A^\top B \rVert_F^2\big) \le \frac6k \lVert A \rVert^2 \lVert B \rVert^2 .$$

    The terms with $A B^\top$ fall away where V ≤ k, those with $A^\top B$ where d ≤ k, as nothing then shares a bucket.

    Reference:
        Pham and Pagh (2013), "Fast and scalable polynomial kernels via explicit feature maps"; the law with
        permutations in place of independent buckets is ours.
    """

    size: int
    """k."""
    order: Int[np.ndarray, " V"]
    """Token at each place."""
    signs: Float[np.ndarray, " V"]
    """Of the token at each place."""
    places: Int[np.ndarray, " k"]
    """Which places go to each bucket: those that are this number modulo k. A random order, so that the buckets of any
    two tokens are as far from each other as chance has it."""
    columns: Int[np.ndarray, " d"]
    """Coordinate of the state at each place; the one at place p goes to bucket p modulo k."""
    column_signs: Float[np.ndarray, " d"]
    """Of the coordinate at each place."""

    @classmethod
    def draw(cls, vocabulary: int, width: int, *, size: int = SKETCH, seed: int = 0) -> "Buckets":
        """Buckets and signs of one seed.

        Example:
            >>> buckets = Buckets.draw(10, 3, size=4)
            >>> sorted(buckets.order.tolist()) == list(range(10)), sorted(buckets.columns.tolist())
            (True, [0, 1, 2])
        """
        at_least(size, 1, name="sketch")
        rows, columns = stream(seed, "sketch rows"), stream(seed, "sketch columns")
        return cls(
            size=size,
            order=rows.permutation(vocabulary),
            signs=(2.0 * rows.integers(0, 2, vocabulary) - 1).astype(np.float32),
            places=rows.permutation(size),
            columns=columns.permutation(width),
            column_signs=(2.0 * columns.integers(0, 2, width) - 1).astype(np.float32),
        )


class SketchedHead:
    """A model's head with its rows in the order of the buckets, so that folding the logits' buckets is a sum."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, scale: float = 1.0, *, buckets: Buckets
    ) -> None:
        """Take the head (V, d), its bias (V,) and the factor on its logits."""
        self.buckets, self.device = buckets, weight.device
        self.kind = torch.promote_types(weight.dtype, torch.float32)
        order = self._put(buckets.order)
        weight = weight.detach().index_select(0, order)
        self.head = Head(weight=weight, bias=None if bias is None else bias.detach()[order].to(self.kind), scale=scale)
        self.place = torch.empty_like(order)
        self.place[order] = torch.arange(len(order), device=self.device)
        self.signs = self._put(buckets.signs).to(self.kind)
        self.places = self._put(buckets.places)
        self.columns = self._put(buckets.columns)
        self.column_signs = self._put(buckets.column_signs).to(self.kind)

    def _put(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def read(
        self, states: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sketch of each response's gradient, and its log-probability, from the same logits.

        Args:
            states: The states (t, d) that predict the tokens of r responses, one response after the other.
            targets: Those tokens (t,).
            lengths: Tokens of each response (r,).

        Returns:
            (r, k), and (r,) nats, float64.
        """
        size = self.buckets.size
        given = states.detach().to(self.kind)
        wanted, offsets = self.place[targets], np.concatenate([[0], np.cumsum(lengths.cpu().numpy())])
        log_probs = given.new_empty(len(given))
        summed = given.new_zeros(len(lengths), size // 2 + 1, dtype=given.dtype.to_complex())
        for low, high in self.head.rows(len(given), multiple=size):
            part, place, sums = given[low:high], wanted[low:high, None], Exponentials()
            residual, goal = part.new_zeros(high - low, size), part.new_zeros(high - low, 1)
            for first, logits in self.head.tiles(part, multiple=size):
                at = place - first
                inside = (at >= 0) & (at < logits.shape[1])
                goal = torch.where(inside, logits.gather(1, at.clamp(0, logits.shape[1] - 1)), goal)
                shrunk = sums.add(logits)
                if shrunk is not None:
                    residual *= shrunk
                residual += self._folded(logits.mul_(self.signs[first : first + logits.shape[1]]))
            log_probs[low:high] = (goal - sums.log())[:, 0]
            residual = residual.div_(-sums.total).scatter_add_(1, place % size, self.signs[place])[:, self.places]
            spread = self._folded(part[:, self.columns].mul_(self.column_signs))
            product = torch.fft.rfft(residual).mul_(torch.fft.rfft(spread))
            first, last = np.searchsorted(offsets, [low + 1, high]) - 1
            for response in range(int(first), int(last) + 1):
                start, stop = (int(np.clip(at, low, high)) - low for at in offsets[response : response + 2])
                summed[response] += product[start:stop].sum(0)
        whole = torch.segment_reduce(log_probs.double(), "sum", lengths=lengths.to(self.device), unsafe=True)
        return torch.fft.irfft(summed, n=size) * self.head.scale, whole

    def _folded(self, block: torch.Tensor) -> torch.Tensor:
        """Sums (t, k) over the places that are the same modulo k."""
        size, vocabulary = self.buckets.size, block.shape[1]
        whole = vocabulary // size * size
        found = block.new_zeros(len(block), size)
        if whole:
            torch.sum(block[:, :whole].unflatten(1, (-1, size)), dim=1, out=found)
        found[:, : vocabulary - whole] += block[:, whole:]
        return found


# unsketched ----------------------------------------------------------------------------------------------------------


def exact_gram(
    states: torch.Tensor,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    *,
    of_pairs: bool = False,
    progress: bool = False,
) -> Float[np.ndarray, "r r"]:
    r"""Inner products $\langle \psi_a, \psi_b \rangle$ of the gradients of r responses, without a sketch.

    The vocabulary is taken in slices, so that memory is bounded by the tokens given, not by V × d. All in float64 if
    the states are, else products in float32 and their sum in float64.

    Args:
        states: The states (t, d) that predict the tokens of r responses, one response after the other.
        targets: Those tokens (t,).
        lengths: Tokens of each response (r,).
        weight: The head (V, d).
        bias: Its bias (V,).
        scale: Constant factor on its logits.
        of_pairs: The products of the differences between the first half of the responses and the second instead.
        progress: Show a bar where stderr is a terminal.

    Returns:
        (r, r), float64; (r/2, r/2) of pairs.
    """
    kind = torch.promote_types(states.dtype, torch.float32)
    given, sizes = states.detach().to(kind), lengths.tolist()
    vocabulary, width = weight.shape
    few = len(given) <= width  # then every two tokens' residuals cost less than the gradients themselves
    room = _EXACT.get(given.device.type, _EXACT["cpu"])
    step = max(1, room // (len(given) if few else max(len(given), len(sizes) * width)))

    def logits(low: int) -> torch.Tensor:
        found = given @ weight[low : low + step].detach().to(kind).T
        if bias is not None:
            found += bias[low : low + step].detach().to(kind)
        return found.mul_(scale)

    normaliser = given.new_full((len(given),), -torch.inf)
    for low in track(range(0, vocabulary, step), "Normalisers", unit="slices", shown=progress):
        normaliser = torch.logaddexp(normaliser, torch.logsumexp(logits(low), dim=1))
    count = len(sizes) // 2 if of_pairs else len(sizes)
    gram = given.new_zeros(*[len(given) if few else count] * 2, dtype=torch.float64)
    for low in track(range(0, vocabulary, step), "Exact gradients", unit="slices", shown=progress):
        residual = logits(low).sub_(normaliser[:, None]).exp_().neg_()
        inside = torch.nonzero((targets >= low) & (targets < low + residual.shape[1]))[:, 0]
        residual[inside, targets[inside] - low] += 1.0
        if few:
            gram += (residual @ residual.T).double()
            continue
        parts = zip(residual.split(sizes), given.split(sizes), strict=True)
        flat = torch.stack([(one.T @ state).flatten() for one, state in parts])
        if of_pairs:
            flat = flat[:count] - flat[count:]
        gram += (flat @ flat.T).double()
    if few:  # <psi_a, psi_b> is the sum over their tokens of residual times residual, state times state
        gram *= given.double() @ given.double().T
        response = torch.repeat_interleave(torch.arange(len(sizes), device=given.device), lengths.to(given.device))
        sign = torch.where(response < count, 1.0, -1.0).double()
        into = torch.zeros(count, len(given), dtype=torch.float64, device=given.device)
        into[response % count, torch.arange(len(given), device=given.device)] = sign
        gram = into @ gram @ into.T
    return (gram * scale**2).cpu().numpy()


def factor(gram: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r p"]:
    """Rows with these inner products, p the rank of the matrix.

    Example:
        >>> rows = factor(np.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> (rows @ rows.T).round(12).tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-14 * max(float(values[-1]), 0.0)
    return np.ascontiguousarray(vectors[:, kept] * np.sqrt(values[kept]))
