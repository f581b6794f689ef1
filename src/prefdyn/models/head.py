"""Log-probabilities of a few tokens per state, by a head of any size, without the logits of the whole vocabulary.

logit(y) = scale · (state · W[y] + bias[y]), where a model has a cap bent to cap · tanh(logit / cap); log-probability =
logit(y) − log Σ_v exp(logit(v)). Logits exist for one block of states at a time, in float32 or better whatever the
dtypes of states and head, and never in the backward of a head that is frozen: its slopes are found beside the
log-normaliser, while the block is there.
"""

from typing import Any

import torch

from prefdyn.models.tiles import Exponentials, Head, bend, slope


def head_log_probs(
    states: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    *,
    cap: float | None = None,
    normaliser_gradient: bool = True,
) -> torch.Tensor:
    """Log-probabilities of some tokens at each of some states.

    Args:
        states: Final states (n, d).
        targets: Tokens (n, k) whose log-probabilities are wanted at each state.
        weight: The head (V, d).
        bias: Its bias (V,).
        scale: Constant factor on its logits.
        cap: Bound of the logits, approached as tanh does; None for none.
        normaliser_gradient: Whether gradients flow through the log-normaliser. Where only differences between the k
            tokens of one state matter it cancels, and without it the whole head is read once, and written never.

    Returns:
        (n, k), nats, float32, or float64 for states in float64. Gradients reach states, weight and bias, exactly.

    Example:
        >>> states, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> head_log_probs(states, torch.tensor([[0, 1]]), weight).exp()
        tensor([[0.0474, 0.9526]])
    """
    wanted = torch.is_grad_enabled()
    found: Any = _HeadLogProbs.apply(states, weight, bias, targets, float(scale), cap, normaliser_gradient, wanted)
    return found


class _HeadLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        scale: float,
        cap: float | None,
        through: bool,
        wanted: bool,
    ) -> torch.Tensor:
        kind = torch.promote_types(states.dtype, torch.float32)
        trained = wanted and any(ctx.needs_input_grad[1:3])
        slopes_now = wanted and ctx.needs_input_grad[0] and not trained
        with torch.autocast(states.device.type, enabled=False):
            given = states.detach().to(kind)
            head = Head(weight=weight, bias=bias, scale=scale, cap=cap)
            rows, logits = _target_logits(given, targets, head)
            pulls = torch.zeros_like(given) if slopes_now and through else None
            normalisers = given.new_empty(len(given))
            for low, high in head.rows(len(given)):
                sums = Exponentials()
                for first, block in head.tiles(given[low:high]):
                    bent = None if pulls is None or cap is None else slope(block, cap)
                    shrunk = sums.add(block)
                    if pulls is None:
                        continue
                    if bent is not None:
                        block *= bent
                    if shrunk is not None:
                        pulls[low:high] *= shrunk
                    head.add_back(block, first, to=pulls[low:high])
                normalisers[low:high] = sums.log()[:, 0]
                if pulls is not None:
                    pulls[low:high] /= sums.total
            if slopes_now:
                if cap is not None:
                    rows *= slope(logits, cap)[..., None]
                slopes = rows if pulls is None else rows - pulls[:, None]
                ctx.save_for_backward(slopes)
            elif trained:
                ctx.save_for_backward(states, weight, bias, targets, normalisers)
        ctx.scale, ctx.cap, ctx.through, ctx.trained = scale, cap, through, trained
        return logits - normalisers[:, None]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,) = grads
        if torch.is_grad_enabled():
            raise RuntimeError("gradients of head_log_probs cannot be differentiated again")
        with torch.autocast(grad.device.type, enabled=False):
            if not ctx.trained:
                (slopes,) = ctx.saved_tensors
                return torch.einsum("nk,nkd->nd", grad * ctx.scale, slopes), *[None] * 7
            states, weight, bias, targets, normalisers = ctx.saved_tensors
            found = _through if ctx.through else _rows_only
            parts = found(grad, states, weight, bias, targets, normalisers, ctx.scale, ctx.cap, ctx.needs_input_grad)
        kept = [
            part.to(like.dtype) if part is not None else None
            for part, like in zip(parts, (states, weight, bias), strict=True)
        ]
        return *kept, *[None] * 5


def _rows_only(
    grad: torch.Tensor,
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    normalisers: torch.Tensor,
    scale: float,
    cap: float | None,
    needed: tuple[bool, ...],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of the target logits alone."""
    given = states.to(grad.dtype)
    grad = grad * scale
    if cap is not None:
        grad = grad * slope(
            _target_logits(given, targets, Head(weight=weight, bias=bias, scale=scale, cap=cap))[1], cap
        )
    by_states = by_weight = by_bias = None
    if needed[0]:
        by_states = torch.einsum("nk,nkd->nd", grad, torch.nn.functional.embedding(targets, weight).to(grad.dtype))
    if needed[1]:
        by_weight = _scattered(grad[..., None] * given[:, None], targets, len(weight))
    if bias is not None and needed[2]:
        by_bias = _scattered(grad[..., None], targets, len(weight))[:, 0]
    return by_states, by_weight, by_bias


def _through(
    grad: torch.Tensor,
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    normalisers: torch.Tensor,
    scale: float,
    cap: float | None,
    needed: tuple[bool, ...],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of target logits and log-normaliser: blocks of logits are formed again, and turned into slopes."""
    given = states.to(grad.dtype)
    by_states = torch.zeros_like(given) if needed[0] else None
    by_weight = torch.zeros_like(weight, dtype=grad.dtype) if needed[1] else None
    by_bias = torch.zeros_like(bias, dtype=grad.dtype) if bias is not None and needed[2] else None
    totals = grad.sum(1, keepdim=True)
    head = Head(weight=weight, bias=bias, scale=scale, cap=cap)
    for low, high in head.rows(len(given)):
        for first, block in head.tiles(given[low:high]):
            last = first + block.shape[1]
            bent = None if cap is None else slope(block, cap)
            block.sub_(normalisers[low:high, None]).exp_()
            block *= -totals[low:high]
            _put_targets(block, targets[low:high] - first, grad[low:high])
            if bent is not None:
                block *= bent
            if scale != 1.0:
                block *= scale
            if by_states is not None:
                head.add_back(block, first, to=by_states[low:high])
            if by_weight is not None:
                by_weight[first:last].addmm_(block.T, given[low:high])
            if by_bias is not None:
                by_bias[first:last] += block.sum(0)
    return by_states, by_weight, by_bias


# targets -------------------------------------------------------------------------------------------------------------


def _target_logits(given: torch.Tensor, targets: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the head (n, k, d) of the wanted tokens, and their logits (n, k)."""
    rows = torch.nn.functional.embedding(targets, head.weight.detach()).to(given.dtype)
    logits = torch.einsum("nd,nkd->nk", given, rows)
    if head.bias is not None:
        logits += head.bias.detach()[targets].to(given.dtype)
    logits *= head.scale
    if head.cap is not None:
        bend(logits, head.cap)
    return rows, logits


def _put_targets(block: torch.Tensor, places: torch.Tensor, values: torch.Tensor) -> None:
    """Add values (b, k) at their places (b, k) of a block, as far as these lie in it."""
    if places.shape[1] == 0:
        return
    inside = (places >= 0) & (places < block.shape[1])
    block.scatter_add_(1, places.clamp(0, block.shape[1] - 1), values * inside)


def _scattered(rows: torch.Tensor, targets: torch.Tensor, size: int) -> torch.Tensor:
    """Rows (n, k, d) added up by target into (size, d), in an order that does not change from run to run."""
    return torch.ops.aten.embedding_dense_backward(rows, targets, size, -1, False)
