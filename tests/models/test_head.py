"""The chunked head: values and gradients are those of the whole softmax, and its logits never exist at once."""

import math
from typing import Any

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError
from torch.utils._python_dispatch import TorchDispatchMode

from prefdyn.models import tiles
from prefdyn.models.head import head_log_probs

V, D, N = 23, 5, 11


@pytest.fixture(params=[1, 3 * V, 1 << 22])
def block(request, monkeypatch):
    """One state at a time, some at a time (so that the last block is short), of seven tokens each; all at once."""
    monkeypatch.setattr(tiles, "LOGITS", {"cpu": request.param})
    monkeypatch.setattr(tiles, "COLUMNS", 7)
    return request.param


def inputs(*, k=1, dtype=torch.float64, bias=True, seed=0) -> Any:
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(N, D, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    shift = torch.randn(V, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() if bias else None
    targets = torch.randint(0, V, (N, k), generator=draw)
    targets[1] = targets[0]
    return states, targets, weight, shift


def whole(states, targets, weight, bias, scale, *, through=True):
    logits = states @ weight.T
    logits = scale * (logits if bias is None else logits + bias)
    normalisers = torch.logsumexp(logits, 1, keepdim=True)
    return logits.gather(1, targets) - (normalisers if through else normalisers.detach())


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(("bias", "scale"), [(True, 1.0), (True, 0.0625), (False, 1.0)])
@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("trained", ["all", "states", "head"])
def test_values_and_gradients_are_those_of_the_whole_softmax(block, k, bias, scale, through, trained):
    states, targets, weight, shift = inputs(k=k, bias=bias)
    leaves = {
        "all": [states, weight, *([shift] if bias else [])],
        "states": [states],
        "head": [weight, *([shift] if bias else [])],
    }[trained]
    for tensor in (states, weight, shift):
        if tensor is not None:
            tensor.requires_grad_(any(tensor is leaf for leaf in leaves))
    upstream = torch.randn(N, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = head_log_probs(states, targets, weight, shift, scale, normaliser_gradient=through)
    truth = whole(states, targets, weight, shift, scale, through=through)
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((ours * upstream).sum(), leaves, allow_unused=True)
    wanted = torch.autograd.grad((truth * upstream).sum(), leaves, allow_unused=True)
    for one, two in zip(found, wanted, strict=True):
        assert one is not None
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_gradients_are_numerical_derivatives(block):
    states, targets, weight, shift = inputs(k=2)
    assert torch.autograd.gradcheck(lambda s, w, b: head_log_probs(s, targets, w, b, 0.5), (states, weight, shift))
    with pytest.raises(GradcheckError):  # the control: no gradient through the normaliser
        torch.autograd.gradcheck(
            lambda s: head_log_probs(s, targets, weight, shift, normaliser_gradient=False), (states,)
        )


def test_the_normaliser_cancels_from_the_difference_of_two_answers(block):
    """Which is why it needs no gradient there: chosen − rejected has the same one with and without it."""
    states, targets, weight, shift = inputs(k=2)
    grads = []
    for through in (True, False):
        both = head_log_probs(states, targets, weight, shift, normaliser_gradient=through)
        grads.append(torch.autograd.grad((both[:, 0] - both[:, 1]).square().sum(), [states, weight, shift]))
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


def test_a_tied_head_gets_both_gradients():
    """As input embedding and as head, in one tensor."""
    _, targets, weight, _ = inputs()
    ids = torch.arange(N) % V
    found = torch.autograd.grad(head_log_probs(weight[ids].tanh(), targets, weight).sum(), weight)
    truth = torch.autograd.grad(whole(weight[ids].tanh(), targets, weight, None, 1.0).sum(), weight)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(block, dtype):
    """The result is that of the same numbers in float64; a softmax in half precision is far off."""
    states, targets, weight, shift = inputs(dtype=dtype)
    ours = head_log_probs(states, targets, weight, shift)
    exact = whole(states.double(), targets, weight.double(), shift.double(), 1.0)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=2e-6, atol=2e-6)
    assert (whole(states, targets, weight, shift, 1.0).double() - exact).abs().max() > 1e-3
    found = torch.autograd.grad(ours.sum(), [states, weight, shift])
    wanted = torch.autograd.grad(exact.sum(), [states, weight, shift])
    for one, two in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, two.to(dtype), rtol=0.02, atol=0.02)


def test_autocast_does_not_reach_the_head(block):
    states, targets, weight, shift = inputs(dtype=torch.float32)
    plain = head_log_probs(states, targets, weight, shift)
    grads = torch.autograd.grad(plain.sum(), [states, weight, shift])
    with torch.autocast("cpu", torch.bfloat16):
        cast = head_log_probs(states, targets, weight, shift)
        under = torch.autograd.grad(cast.sum(), [states, weight, shift])
        assert (whole(states, targets, weight, shift, 1.0) - plain).abs().max() > 1e-3
    assert torch.equal(plain, cast)
    assert all(torch.equal(one, two) for one, two in zip(grads, under, strict=True))


def test_extreme_logits_neither_overflow_nor_vanish():
    """Logits of ±3000: exp of either is not a float32."""
    states = torch.tensor([[3000.0], [-3000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]])
    found = head_log_probs(states, torch.tensor([[0, 1], [2, 0]]), weight)
    torch.testing.assert_close(found, torch.tensor([[0.0, -3000.0], [0.0, -6000.0]]))
    found.sum().backward()
    torch.testing.assert_close(states.grad, torch.tensor([[-1.0], [2.0]]))


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation returns, in numbers."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and "t.default" not in str(func):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_no_tensor_is_larger_than_a_block(monkeypatch, trained, kind):
    """With 300 states over 5,000 tokens the logits are 1.5 million numbers; a block here has at most 40,000."""
    monkeypatch.setattr(tiles, "LOGITS", {"cpu": 40_000})
    monkeypatch.setattr(tiles, "COLUMNS", 1000)
    states = torch.randn(300, 4, dtype=kind, requires_grad=True)
    weight = torch.randn(5000, 4, dtype=kind, requires_grad=trained)
    with Sizes() as seen:
        head_log_probs(states, torch.zeros(300, 1, dtype=torch.long), weight).sum().backward()
    assert seen.largest == 40_000
    with Sizes() as seen:
        whole(states, torch.zeros(300, 1, dtype=torch.long), weight, None, 1.0).sum().backward()
    assert seen.largest == 1_500_000


def test_second_derivatives_are_refused():
    """Rather than silently zero."""
    states, targets, weight, _ = inputs()
    (slope,) = torch.autograd.grad(head_log_probs(states, targets, weight).sum(), weight)
    assert not slope.requires_grad
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(head_log_probs(states, targets, weight).sum(), weight, create_graph=True)


def test_nothing_is_kept_where_no_gradient_is_wanted():
    states, targets, weight, shift = inputs()
    with torch.no_grad():
        assert not head_log_probs(states, targets, weight, shift).requires_grad
    assert math.isfinite(float(head_log_probs(states.detach(), targets, weight.detach()).sum()))


@pytest.mark.parametrize("trained", ["all", "states"])
@pytest.mark.parametrize("through", [True, False])
def test_a_cap_bends_values_and_gradients(block, trained, through):
    """As autograd has it through cap · tanh(logit / cap)."""
    states, targets, weight, shift = inputs(k=2)
    leaves = [states, weight, shift] if trained == "all" else [states]
    for tensor in (states, weight, shift):
        tensor.requires_grad_(any(tensor is leaf for leaf in leaves))
    upstream = torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = head_log_probs(states, targets, weight, shift, 0.5, cap=0.8, normaliser_gradient=through)
    logits = 0.8 * torch.tanh(0.5 * (states @ weight.T + shift) / 0.8)
    normalisers = torch.logsumexp(logits, 1, keepdim=True)
    truth = logits.gather(1, targets) - (normalisers if through else normalisers.detach())
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((ours * upstream).sum(), leaves)
    wanted = torch.autograd.grad((truth * upstream).sum(), leaves)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
