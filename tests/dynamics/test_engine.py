"""Every objective, optimizer and route against a whole head trained by autograd and torch.optim, in float64."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from prefdyn.dynamics.engine import Run, Stop, solve
from prefdyn.dynamics.measure import Member
from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.routes import build
from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, GPOIPO, IPO, SFT, RobustDPO, SLiC
from prefdyn.maths.optimizers import SGD, Adam, AdamW, RMSprop, Schedule
from tests.naive.sweep import train

STEPS, VOCABULARY, HELD_OUT, BATCH = 50, 7, 3, 5

OBJECTIVES = {
    "sigmoid": DPO(beta=0.5),
    "cdpo": DPO(beta=0.4, label_smoothing=0.1),
    "robust": RobustDPO(beta=0.3, label_smoothing=0.1),
    "ipo": IPO(beta=0.6),
    "hinge": SLiC(beta=0.5),
    "gpo_ipo": GPOIPO(beta=0.3),
    "sft": SFT(),
}
OPTIMIZERS = {
    "sgd": (SGD(), "sgd", {}, 0.08),
    "momentum": (SGD(momentum=0.9), "sgd", {"momentum": 0.9}, 0.02),
    "nesterov": (SGD(momentum=0.8, nesterov=True), "sgd", {"momentum": 0.8, "nesterov": True}, 0.02),
    "decay": (
        SGD(momentum=0.5, weight_decay=0.05),
        "sgd",
        {"momentum": 0.5, "weight_decay": 0.05},
        0.05,
    ),
    "adam": (Adam(), "adam", {}, 0.01),
    "adamw": (AdamW(weight_decay=0.1), "adamw", {"weight_decay": 0.1}, 0.01),
    "rmsprop": (RMSprop(), "rmsprop", {}, 0.005),
    "rmsprop momentum": (RMSprop(alpha=0.9, momentum=0.5), "rmsprop", {"alpha": 0.9, "momentum": 0.5}, 0.005),
}
LINEAR = ("sgd", "momentum", "nesterov")
ROUTES = [
    *((optimizer, route) for optimizer in LINEAR for route in ("weights", "rows", "reduced", "gram")),
    ("decay", "weights"),
    ("decay", "rows"),
    *((optimizer, "rows") for optimizer in ("adam", "adamw", "rmsprop", "rmsprop momentum")),
]


@cache
def problem(tokens):
    """14 weighted pairs over so many tokens of a vocabulary of 7, three of them held out, with fewer pairs than width
    in no case: gram and weights are both exact."""
    rng = np.random.default_rng(tokens)
    n, d = 14, 5
    states = rng.normal(size=(n, d)).astype(np.float32).astype(float)
    head = rng.normal(size=(VOCABULARY, d)).astype(np.float32).astype(float)
    chosen = rng.integers(0, tokens, n)
    rejected = (chosen + rng.integers(1, tokens, n)) % tokens
    logits = states @ head.T
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    weight, held_out = rng.uniform(0.5, 2.0, n), np.arange(n) >= n - HELD_OUT
    feats = FeatureSet.from_arrays(
        states,
        chosen=chosen,
        rejected=rejected,
        tokens=list(range(tokens)),
        head=head[:tokens],
        ref_chosen_logps=log_probs[np.arange(n), chosen],
        ref_rejected_logps=log_probs[np.arange(n), rejected],
        weight=weight,
        held_out=held_out,
        group=np.arange(n) % 3,
    )
    return feats, {"states": states, "head": head, "chosen": chosen, "rejected": rejected, "weight": weight}


@cache
def twin(tokens, objective, optimizer, batch, schedule):
    feats, plain = problem(tokens)
    rows = np.flatnonzero(~feats.held_out)
    each, (_, name, options, rate) = OBJECTIVES[objective], OPTIMIZERS[optimizer]
    drawn = [rows] * STEPS
    if batch != "full":
        drawn = [rows[index] for index in batches(len(rows), batch, STEPS, seed=3, scheme="epochs")]
    factors = [1.0 if schedule is None else schedule.factor(step) for step in range(STEPS)]
    return train(
        plain,
        name=each.name,
        beta=each.beta,
        smoothing=getattr(each, "label_smoothing", 0.0),
        optimizer=name,
        options=options,
        rate=rate,
        factors=factors,
        batches=drawn,
    )


def check(tokens, optimizer, route, batch: Any = "full", schedule=None, arrays=None, dtype: Any = None, atol=1e-10):
    feats, _ = problem(tokens)
    how, _, _, rate = OPTIMIZERS[optimizer]
    names = [name for name in OBJECTIVES if name != "sft" or (route == "rows" and optimizer not in ("decay", "adamw"))]
    many = sweep(
        feats,
        objective=[OBJECTIVES[name] for name in names],
        learning_rate=rate,
        optimizer=how,
        schedule=schedule,
        batch_size=batch,
        seed=3,
        steps=STEPS,
        route=route,
        margins_at=[STEPS],
        arrays=arrays,
        dtype=dtype,
    )
    for run, name in zip(many, names, strict=True):
        want = twin(tokens, name, optimizer, batch, schedule)
        assert run.settings["route"] == route
        np.testing.assert_allclose(run.margins[STEPS], want["margins"], atol=atol, rtol=atol, err_msg=name)
        if optimizer in ("decay", "adamw"):  # every row of the vocabulary decays, also those that are not known
            assert not run.chosen_changes
            continue
        # torch's own rounding dust on rows that never occur, divided by itself under Adam, is all that may differ
        np.testing.assert_allclose(run.chosen_changes[STEPS], want["chosen"], atol=max(atol, 1e-8), err_msg=name)
        np.testing.assert_allclose(run.final("drift", group="0"), want["drift"], rtol=max(atol, 1e-8), err_msg=name)
    moved = [np.abs(run.margins[STEPS]).max() for run in many]
    assert min(moved) > 1e-2  # the control: every run went somewhere


@pytest.mark.parametrize(("optimizer", "route"), ROUTES)
@pytest.mark.parametrize("tokens", [2, 5])
def test_every_route_is_the_training_of_the_whole_head(tokens, optimizer, route):
    """50 full-batch steps of all objectives in one solve."""
    check(tokens, optimizer, route)


@pytest.mark.parametrize(("optimizer", "route"), ROUTES)
def test_every_route_sees_the_same_minibatches(optimizer, route):
    """50 steps over the same index arrays, weighted within each batch."""
    check(5, optimizer, route, batch=BATCH)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_schedules_scale_the_rate_of_each_step(optimizer):
    check(5, optimizer, "rows", schedule=Schedule(kind="cosine", warmup=5, steps=STEPS))


@pytest.mark.parametrize(("optimizer", "route"), [("momentum", "gram"), ("momentum", "weights"), ("adam", "rows")])
@pytest.mark.parametrize("batch", ["full", BATCH])
def test_torch_runs_the_same_lines(optimizer, route, batch):
    check(5, optimizer, route, batch=batch, arrays=torch.as_tensor)


@pytest.mark.parametrize("arrays", [None, torch.as_tensor])
@pytest.mark.parametrize(("optimizer", "route"), [("sgd", "gram"), ("sgd", "weights"), ("rmsprop", "rows")])
def test_float32_products_stay_within_their_rounding(optimizer, route, arrays):
    check(2, optimizer, route, arrays=arrays, dtype="float32", atol=2e-3)


def test_adam_in_rotated_coordinates_is_another_run():
    """The control of the route: an orthonormal basis of the differences does for descent, not for Adam."""
    feats, _ = problem(5)
    pairs = Pairs.of(feats)
    how, _, _, rate = OPTIMIZERS["adam"]
    run = Run(objective=DPO(beta=0.5), learning_rate=rate, optimizer=how, members=(Member(objective=DPO(beta=0.5)),))
    outcomes = solve(
        build(feats, pairs, "weights", dtype=np.float64), pairs, [run], steps=STEPS, recorded=[0, STEPS], kept=[STEPS]
    )
    gap = np.abs(outcomes[0][0].margins[STEPS] - twin(5, "sigmoid", "adam", "full", None)["margins"]).max()
    assert gap > 1e-2
    with pytest.raises(ConfigError, match="route 'weights' is not exact for adam"):
        sweep(feats, learning_rate=rate, optimizer=how, route="weights")


def test_one_run_never_reads_numbers_of_another():
    """A member whose numbers overflow at once leaves every other byte as it is."""
    feats, _ = problem(5)
    pairs = Pairs.of(feats)
    objective = GPOIPO(beta=0.3)
    calm = [Run(objective=objective, learning_rate=rate, members=(Member(objective=objective),)) for rate in (0.1, 0.2)]
    wild = Run(objective=objective, learning_rate=1e300, members=(Member(objective=objective),))
    for route in ("weights", "gram", "rows"):

        def results(runs, route=route):
            return solve(
                build(feats, pairs, route, dtype=np.float64),
                pairs,
                runs,
                steps=9,
                recorded=[0, 9],
                kept=[9],
                stop=Stop(divergence=np.inf),
            )

        alone, beside = results(calm), results([calm[0], wild, calm[1]])
        for (want,), (found,) in zip(alone, [beside[0], beside[2]], strict=True):
            np.testing.assert_allclose(found.margins[9], want.margins[9], rtol=1e-13)
        assert beside[1][0].stop_reason == "diverged"
        assert all(np.isfinite(means).all() for means in beside[1][0].means)
