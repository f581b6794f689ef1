"""Every optimizer step for step against torch's, for batches of runs with rates of their own; schedules too."""

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from prefdyn.errors import ConfigError
from prefdyn.maths.optimizers import SGD, Adam, AdamW, RMSprop, Schedule, optimizer

PAIRS = [
    (SGD(), torch.optim.SGD, {}),
    (SGD(weight_decay=0.3), torch.optim.SGD, {"weight_decay": 0.3}),
    (SGD(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    (SGD(momentum=0.8, nesterov=True, weight_decay=0.1), torch.optim.SGD,
     {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (Adam(), torch.optim.Adam, {}),
    (Adam(betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2), torch.optim.Adam,
     {"betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.2}),
    (AdamW(), torch.optim.AdamW, {"weight_decay": 0.0}),
    (AdamW(weight_decay=0.4), torch.optim.AdamW, {"weight_decay": 0.4}),
    (RMSprop(), torch.optim.RMSprop, {}),
    (RMSprop(alpha=0.8, eps=1e-4, momentum=0.7, weight_decay=0.1), torch.optim.RMSprop,
     {"alpha": 0.8, "eps": 1e-4, "momentum": 0.7, "weight_decay": 0.1}),
]  # fmt: skip
RATES = np.array([0.003, 0.05, 0.4])


def descend(ours, weights, gradients, rate):
    state = ours.start(weights)
    for step, gradient in enumerate(gradients):
        weights, state = ours.update(weights, gradient(weights), state, rate=rate, step=step)
    return weights


def pulls(seed, steps=50):
    """Gradients that depend on the weights, so that an error in one step shows in the next."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(steps, 3, 4, 5))
    return [lambda w, z=z: 0.5 * w + z for z in noise], noise


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS, ids=lambda part: str(part)[:40])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("dtype", "room"), [("float64", 1e-10), ("float32", 2e-4)])
def test_fifty_steps_equal_torch(ours, theirs, options, library, dtype, room):
    gradients, noise = pulls(3)
    start = np.random.default_rng(0).normal(size=(3, 4, 5))
    expected = []
    for run, rate in enumerate(RATES):
        parameter = torch.tensor(start[run], dtype=torch.float64, requires_grad=True)
        optim = theirs([parameter], lr=rate, **options)
        for z in noise:
            parameter.grad = 0.5 * parameter.detach() + torch.tensor(z[run])
            optim.step()
        expected.append(parameter.detach().numpy())
    if library == "numpy":
        made = descend(
            ours, start.astype(dtype), [lambda w, g=g: g(w).astype(dtype) for g in gradients], RATES.astype(dtype)
        )
    else:
        kind = getattr(torch, dtype)
        weights = torch.tensor(start, dtype=kind)
        as_torch = [lambda w, z=z: 0.5 * w + torch.tensor(z, dtype=kind) for z in noise]
        made = descend(ours, weights, as_torch, torch.tensor(RATES, dtype=kind)).numpy()
    assert made.dtype == np.dtype(dtype)
    np.testing.assert_allclose(made, np.stack(expected), rtol=room, atol=room)
    assert np.abs(np.stack(expected) - start).max() > 100 * room  # the control: the runs moved


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS, ids=lambda part: str(part)[:40])
def test_one_rate_for_all_is_the_same_as_equal_rates(ours, theirs, options):
    gradients, _ = pulls(1, steps=5)
    start = np.ones((3, 4, 5))
    one = descend(ours, start, gradients, 0.1)
    np.testing.assert_array_equal(one, descend(ours, start, gradients, np.full(3, 0.1)))


def test_linear_is_said_of_those_whose_path_is_linear():
    """Twice the gradients, twice the path: true of the SGD family without decay alone."""
    noise = np.random.default_rng(0).normal(size=(8, 2, 3))
    zero = np.zeros((2, 3))
    for ours, _, _ in PAIRS:
        once = descend(ours, zero, [lambda _, z=z: z for z in noise], 0.1)
        twice = descend(ours, zero, [lambda _, z=z: 2 * z for z in noise], 0.1)
        doubles = np.allclose(twice, 2 * once, rtol=1e-9)
        assert doubles or not ours.linear
    assert [optimizer(name).linear for name in ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedules_equal_those_of_transformers(kind, warmup):
    name = "constant_with_warmup" if kind == "constant" else kind
    optim = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(name, optim, num_warmup_steps=warmup, num_training_steps=30)
    ours = Schedule(kind=kind, steps=30, warmup=warmup)
    for step in range(31):
        assert ours.factor(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12), step
        optim.step()
        theirs.step()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimizer("adamm"), "optimizer 'adamm' is unknown; did you mean 'adam'"),
        (lambda: optimizer("adam", betta=(0.9, 0.9)), "optimizer 'adam' has no option 'betta'; did you mean 'betas'"),
        (lambda: SGD(momentum=1.0), "momentum is 1.0, but must be at least 0 and below 1"),
        (lambda: SGD(nesterov=True), "nesterov needs a momentum above 0"),
        (lambda: Adam(betas=(0.9, 1.5)), r"betas\[1\] is 1.5"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay is -0.1"),
        (lambda: Schedule(steps=3, warmup=5), "warmup is 5 of 3 steps"),
    ],
)
def test_settings_out_of_range_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("rate", [np.float64(0.1), np.array([0.1, 0.2])], ids=["number", "one per run"])
def test_rates_in_float64_leave_weights_in_float32(name, rate):
    ours = optimizer(name)
    weights = np.zeros((2, 3), dtype=np.float32)
    moved, state = ours.update(weights, weights + 1, ours.start(weights), rate=rate, step=0)
    assert {part.dtype for part in (moved, *state)} == {np.dtype(np.float32)}
    exact = ours.update(np.zeros((2, 3)), np.ones((2, 3)), ours.start(np.zeros((2, 3))), rate=rate, step=0)[0]
    np.testing.assert_allclose(moved, exact, rtol=1e-6)


def test_options_change_what_a_name_stands_for():
    assert optimizer("adamw", weight_decay=0.1, betas=(0.8, 0.9)) == AdamW(weight_decay=0.1, betas=(0.8, 0.9))
    assert optimizer("adamw") == AdamW()  # and not for the next caller
