"""Derivatives through whole runs, against central differences, autograd through a naive twin, and THEORY 12."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import expit

from prefdyn.dynamics.adjoint import one_setting, sensitivity
from prefdyn.dynamics.datamodel import resimulated
from prefdyn.dynamics.engine import Run, solve
from prefdyn.dynamics.measure import Member
from prefdyn.dynamics.problem import Pairs, as_seen
from prefdyn.dynamics.routes import build
from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.targets import targets
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, GPOIPO, IPO, SFT, NormalisedDPO, RobustDPO, SLiC
from prefdyn.maths.optimizers import SGD, Adam, AdamW, RMSprop, Schedule
from tests.naive.adjoint import final
from tests.naive.sweep import loss_of

STEPS, BATCH, VOCABULARY = 10, 5, 7
OBJECTIVES = {
    "sigmoid": DPO(beta=0.5),
    "cdpo": DPO(beta=0.4, label_smoothing=0.1),
    "sigmoid_norm": NormalisedDPO(beta=0.7),
    "robust": RobustDPO(beta=0.3, label_smoothing=0.1),
    "ipo": IPO(beta=0.6),
    "hinge": SLiC(beta=0.5),
    "gpo_ipo": GPOIPO(beta=0.3),
}
OPTIMIZERS = {
    "sgd": (SGD(), 0.08),
    "momentum": (SGD(momentum=0.9), 0.02),
    "nesterov": (SGD(momentum=0.8, nesterov=True), 0.02),
    "decay": (SGD(momentum=0.5, weight_decay=0.05), 0.05),
    "adam": (Adam(), 0.02),
    "adamw": (AdamW(weight_decay=0.1), 0.02),
    "rmsprop": (RMSprop(), 0.01),
    "rmsprop momentum": (RMSprop(alpha=0.9, momentum=0.5), 0.005),
}
WARM = Schedule(kind="cosine", warmup=3, steps=STEPS)


@cache
def problem(kind):
    """16 weighted pairs in three groups, five held out: two tokens, five tokens, or longer responses."""
    rng = np.random.default_rng({"two": 2, "five": 5, "responses": 7}[kind])
    n, d = 16, 6
    weight, held_out = rng.uniform(0.5, 2.0, n), np.arange(n) >= n - 5
    common = {"weight": weight, "held_out": held_out, "group": np.arange(n) % 3}
    if kind == "responses":
        first, second = (rng.normal(size=(n, d)).astype(np.float32).astype(float) for _ in range(2))
        lengths = {f"{side}_length": rng.integers(1, 4, n) for side in ("chosen", "rejected")}
        plain = {"chosen_features": first, "rejected_features": second, **lengths, "weight": weight}
        feats = FeatureSet.from_arrays(
            chosen_features=first, rejected_features=second, **lengths, **common,
            ref_chosen_logps=-rng.uniform(1, 5, n), ref_rejected_logps=-rng.uniform(1, 5, n),
        )  # fmt: skip
        return feats, plain
    tokens = 2 if kind == "two" else 5
    states = rng.normal(size=(n, d)).astype(np.float32).astype(float)
    head = rng.normal(size=(VOCABULARY, d)).astype(np.float32).astype(float)
    chosen = rng.integers(0, tokens, n)
    rejected = (chosen + rng.integers(1, tokens, n)) % tokens
    logits = states @ head.T
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    feats = FeatureSet.from_arrays(
        states, chosen=chosen, rejected=rejected, tokens=list(range(tokens)), head=head[:tokens], **common,
        ref_chosen_logps=log_probs[np.arange(n), chosen], ref_rejected_logps=log_probs[np.arange(n), rejected],
    )  # fmt: skip
    return feats, {"states": states, "head": head, "chosen": chosen, "rejected": rejected, "weight": weight}


def drawn(feats, batch):
    trained = int((~feats.held_out).sum())
    return None if batch == "full" else batches(trained, batch, STEPS, seed=3, scheme="epochs")


def endings(feats, objectives, optimizer, rates, batch, route, schedule=None, masks=None):
    """Margins and chosen changes of every pair at the end of several runs of the engine."""
    feats = as_seen(feats, objectives[0])
    pairs = Pairs.of(feats)
    runs = [
        Run(
            objective=each,
            learning_rate=rate,
            optimizer=optimizer,
            schedule=schedule,
            members=(Member(objective=each),),
        )
        for each, rate in zip(objectives, rates, strict=True)
    ]
    sft = objectives[0].reads == "log_probs"
    found = solve(
        build(feats, pairs, route, dtype=np.float64, sft=sft), pairs, runs, steps=STEPS, recorded=[0], kept=[STEPS],
        batches=drawn(feats, batch), masks=masks, subset=None if masks is None else range(len(runs)), head=feats.head,
    )  # fmt: skip
    return [(outcome.margins[STEPS], outcome.chosen_changes.get(STEPS)) for (outcome,) in found]


def numbers(feats, objective, ending, quantity="loss"):
    """Every group's mean over its held-out pairs."""
    margins, chosen = ending
    if quantity == "chosen_log_prob" or objective.reads == "log_probs":
        values = (feats.ref_chosen_logps + chosen) * (1 if quantity == "chosen_log_prob" else -1)
    else:
        values = {"loss": objective.loss(margins), "margin": margins, "soft_accuracy": expit(margins)}[quantity]
    return np.array([values[feats.held_out & (feats.group == code)].mean() for code in range(3)])


STENCIL = ((1, 8), (-1, -8), (2, -1), (-2, 1))


def width(objective, optimizer):
    """Of the stencil: narrow where no margin may cross a kink, or a running mean square is nearly 0, on the way."""
    return 1e-3 if optimizer.name == "sgd" and objective.name != "hinge" else 1e-5


def central(values, h):
    """Derivatives from values at +h, −h, +2h, −2h, to fourth order."""
    return sum(factor * value for (_, factor), value in zip(STENCIL, values, strict=True)) / (12 * h)


def differences(feats, objective, optimizer, rate, batch, route, schedule=None, quantity="loss"):
    """The derivatives of all targets by central differences, from runs of the engine alone."""
    h, trained = width(objective, optimizer), np.flatnonzero(~feats.held_out)
    masks = np.ones((len(feats), 4 * len(trained)))
    for place, row in enumerate(trained):
        for at, (by, _) in enumerate(STENCIL):
            masks[row, 4 * place + at] += by * h / feats.weight[row]
    count = masks.shape[1]
    ends = endings(feats, [objective] * count, optimizer, [rate] * count, batch, route, schedule, masks)
    values = [numbers(feats, objective, end, quantity) for end in ends]
    pair = np.stack([central(values[4 * place : 4 * place + 4], h) for place in range(len(trained))], axis=1)
    moved = {
        "beta": [objective.__class__(**kept(objective), beta=objective.beta + by * h) for by, _ in STENCIL],
        "learning_rate": [objective] * 4,
    }
    if getattr(objective, "label_smoothing", 0):
        moved["label_smoothing"] = [
            objective.__class__(beta=objective.beta, label_smoothing=objective.label_smoothing + by * h)
            for by, _ in STENCIL
        ]
    found = {"pair": pair}
    for name, objectives in moved.items():
        rates = [rate * (1 + by * h) if name == "learning_rate" else rate for by, _ in STENCIL]
        if name == "beta":  # one solve each, for betas of one solve are an array
            ends = [endings(feats, [each], optimizer, [rate], batch, route, schedule)[0] for each in objectives]
        else:
            ends = endings(feats, objectives, optimizer, rates, batch, route, schedule)
        found[name] = central(
            [numbers(feats, each, end, quantity) for each, end in zip(objectives, ends, strict=True)], h
        )
    found["learning_rate"] = found["learning_rate"] / rate
    return found


def kept(objective):
    smoothing = getattr(objective, "label_smoothing", 0)
    return {"label_smoothing": smoothing} if smoothing else {}


def check(kind, objective, optimizer, batch, route="auto", schedule=None, quantity="loss", tolerance=1e-7):
    feats, _ = problem(kind)
    how, rate = OPTIMIZERS[optimizer]
    if objective.name == "ipo":
        rate = rate if optimizer in ("adam", "adamw", "rmsprop", "rmsprop momentum") else rate / 4
    if objective.name == "hinge" and how.name == "adam":
        rate = (
            8 * rate
        )  # so that margins pass 1; before it pulls are constant, and Adam divides what weights do by itself
    found = sensitivity(
        feats, objective=objective, learning_rate=rate, optimizer=how, schedule=schedule, batch_size=batch, seed=3,
        steps=STEPS, route=route, quantity=quantity,
    )  # fmt: skip
    want = differences(feats, objective, how, rate, batch, found.settings["route"], schedule, quantity)
    trained = ~feats.held_out
    assert np.isnan(found.pair[:, ~trained]).all()
    compare = {"pair": found.pair[:, trained], "learning_rate": found.learning_rate, "beta": found.beta}
    if "label_smoothing" in want and found.label_smoothing is not None:
        compare["label_smoothing"] = found.label_smoothing
    assert len(compare) == len(want)
    for name, values in compare.items():
        size = np.abs(want[name]).max()
        assert size > 1e-5, name  # the control: there is something to be wrong about
        np.testing.assert_allclose(values, want[name], rtol=0, atol=tolerance * size, err_msg=name)
    return found


@pytest.mark.parametrize("batch", ["full", BATCH])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("kind", ["two", "responses"])
def test_derivatives_are_central_differences(kind, objective, optimizer, batch):
    """Seven objectives, three optimizers, full and mini batches, both kinds, along the route that the engine takes."""
    check(kind, OBJECTIVES[objective], optimizer, batch)


@pytest.mark.parametrize("batch", ["full", BATCH])
@pytest.mark.parametrize("optimizer", ["nesterov", "rmsprop", "rmsprop momentum"])
def test_other_optimizers_go_back_too(optimizer, batch):
    check("five", OBJECTIVES["cdpo"], optimizer, batch, schedule=WARM)


@pytest.mark.parametrize("optimizer", ["decay", "adamw"])
@pytest.mark.parametrize("kind", ["two", "five"])
def test_weight_decay_pulls_on_the_head_itself(kind, optimizer):
    check(kind, OBJECTIVES["sigmoid"], optimizer, BATCH, schedule=WARM)


@pytest.mark.parametrize(("quantity", "batch"), [("soft_accuracy", "full"), ("chosen_log_prob", BATCH)])
@pytest.mark.parametrize("route", ["weights", "rows", "reduced", "gram"])
@pytest.mark.parametrize("kind", ["two", "five", "responses"])
def test_every_route_and_quantity(kind, route, batch, quantity):
    check(kind, OBJECTIVES["robust"], "momentum", batch, route=route, quantity=quantity, schedule=WARM)


def test_margins_are_a_target():
    check("five", OBJECTIVES["ipo"], "adam", BATCH, quantity="margin")


@pytest.mark.parametrize("batch", ["full", BATCH])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["two", "five"])
def test_sft_goes_back_through_its_normaliser(kind, optimizer, batch):
    """No beta in its path: only the loss is compared with differences in weights and rate."""
    feats, _ = problem(kind)
    how, rate = OPTIMIZERS[optimizer]
    found = sensitivity(
        feats, objective=SFT(), learning_rate=rate, optimizer=how, batch_size=batch, seed=3, steps=STEPS
    )  # fmt: skip
    want = differences(feats, SFT(), how, rate, batch, "rows")
    for name, values in {"pair": found.pair[:, ~feats.held_out], "learning_rate": found.learning_rate}.items():
        np.testing.assert_allclose(values, want[name], rtol=0, atol=1e-7 * np.abs(want[name]).max(), err_msg=name)
    assert not found.beta.any()


def test_runs_of_sft_end_at_the_loss_that_is_derived():
    """Its own loss, which is no function of the margin, and the margin where that is asked for."""
    feats, _ = problem("two")
    setting, none = one_setting(feats, objective=SFT(), learning_rate=0.1), np.zeros((len(feats), 1), dtype=bool)
    for quantity in ("loss", "margin"):
        wanted = targets(feats, "groups", quantity=quantity)
        (end,) = resimulated(feats, none, wanted, setting, STEPS).T
        known = sensitivity(feats, objective=SFT(), learning_rate=0.1, steps=STEPS, of="groups", quantity=quantity)
        np.testing.assert_allclose(end, known.value, rtol=1e-12)


# autograd -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["full", BATCH])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "rmsprop"])
@pytest.mark.parametrize("objective", ["cdpo", "ipo"])
@pytest.mark.parametrize("kind", ["two", "five", "responses"])
def test_derivatives_are_those_of_autograd_through_the_whole_run(kind, objective, optimizer, batch):
    """A head over the whole vocabulary, log-softmax and the optimizer written out, all in one graph."""
    feats, plain = problem(kind)
    each, (how, rate) = OBJECTIVES[objective], OPTIMIZERS[optimizer]
    options = {"momentum": getattr(how, "momentum", 0.0), "nesterov": getattr(how, "nesterov", False)}
    rate = rate / 4 if objective == "ipo" and optimizer in ("sgd", "momentum", "nesterov") else rate
    rows = np.flatnonzero(~feats.held_out)
    seen = [rows if step is None else rows[step] for step in drawn(feats, batch) or [None] * STEPS]
    inputs = [
        torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for value in (feats.weight.copy(), each.beta, getattr(each, "label_smoothing", 0.0), rate)
    ]
    weight, beta, smoothing, speed = inputs
    ratios, log_probs = final(
        plain, name=each.name, beta=beta, smoothing=smoothing, optimizer=how.name, options=options, rate=speed,
        factors=[WARM.factor(step) for step in range(STEPS)], batches=seen, weight=weight,
    )  # fmt: skip
    losses = loss_of(each.name, ratios, beta, smoothing, log_probs)
    found = sensitivity(
        feats, objective=each, learning_rate=rate, optimizer=how, schedule=WARM, batch_size=batch, seed=3, steps=STEPS
    )  # fmt: skip
    for code in range(3):
        inside = torch.as_tensor(feats.held_out & (feats.group == code))
        value = losses[inside].mean()
        by = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        assert found.value[code] == pytest.approx(value.item(), rel=1e-10)
        want = by[0].numpy()
        scale = np.abs(want).max()
        np.testing.assert_allclose(found.pair[code][rows], want[rows], rtol=0, atol=1e-9 * scale)
        for group in range(3):  # a factor on the weights of the group
            mine = rows[feats.group[rows] == group]
            assert found.group[code, group] == pytest.approx(want[mine] @ feats.weight[mine], abs=1e-9 * scale)
        assert found.beta[code] == pytest.approx(float(by[1]), rel=1e-8)
        assert found.learning_rate[code] == pytest.approx(float(by[3]), rel=1e-8)
        if found.label_smoothing is not None:
            assert found.label_smoothing[code] == pytest.approx(float(by[2]), rel=1e-8)


def test_the_fixed_convention_holds_the_denominator():
    """d/dw_i with the sum of weights as a number of its own: autograd of the naive twin with that sum detached."""
    feats, plain = problem("two")
    rows = np.flatnonzero(~feats.held_out)
    weight = torch.tensor(feats.weight.copy(), requires_grad=True)
    signs = np.where(feats.chosen == 0, 1.0, -1.0)
    features = torch.tensor(2 * signs[:, None] * plain["states"])
    row, total = torch.zeros(6, dtype=torch.float64), weight[rows].sum().detach()
    for _ in range(STEPS):
        pull = torch.sigmoid(-0.5 * features[rows] @ row)
        row = row + 0.05 * 0.5 * (weight[rows] * pull / total) @ features[rows] / 2
    loss = torch.nn.functional.softplus(-0.5 * features[np.flatnonzero(feats.held_out)] @ row).mean()
    (want,) = torch.autograd.grad(loss, weight)
    found = sensitivity(feats, of="all", objective=DPO(beta=0.5), learning_rate=0.05, steps=STEPS)
    np.testing.assert_allclose(found.pair_fixed[0][rows], want.numpy()[rows], rtol=1e-10)
    mean = found.pair_fixed[0][rows] @ feats.weight[rows] / feats.weight[rows].sum()
    np.testing.assert_allclose(found.pair[0][rows], found.pair_fixed[0][rows] - mean, rtol=1e-10)
    assert abs(found.pair[0][rows] @ feats.weight[rows]) < 1e-14  # all weights doubled: the same run


def test_full_batch_descent_is_the_closed_sweep():
    """THEORY 12, line by line."""
    rng = np.random.default_rng(0)
    n, held, d, steps, beta, rate = 40, 15, 10, 70, 0.4, 0.9
    X, H = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(held, d)).astype(np.float32)
    feats = FeatureSet.from_arrays(
        chosen_features=np.concatenate([X, H]), rejected_features=np.zeros((n + held, d)),
        held_out=np.arange(n + held) >= n,
    )  # fmt: skip
    X, H, w, v = X.astype(float), H.astype(float), np.ones(n), np.ones(held) / held
    c, r, q, path = rate * beta**2 / n, np.zeros(n), np.zeros(held), []
    for _ in range(steps):
        p = expit(-r)
        path.append(p)
        f = X.T @ (w * p)
        r, q = r + c * X @ f, q + c * H @ f
    u, lam, want = H.T @ (-v * expit(-q)), np.zeros(n), np.zeros(n)
    for p in reversed(path):
        z = c * X @ (u + X.T @ lam)
        want += p * z
        lam -= w * p * (1 - p) * z
    found = sensitivity(feats, of="all", objective=DPO(beta=beta), learning_rate=rate, steps=steps)
    np.testing.assert_allclose(found.value[0], np.logaddexp(0, -q).mean(), rtol=1e-13)
    np.testing.assert_allclose(found.pair_fixed[0][:n], want, rtol=1e-11)


# what is held, and what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_states_held_grow_with_the_root_of_the_steps(steps):
    feats, _ = problem("two")
    found = sensitivity(feats, learning_rate=0.05, steps=steps, optimizer="adam")
    assert found.states_held <= 4 * math.ceil(math.sqrt(steps))
    if steps > 4:
        assert found.states_held >= math.isqrt(steps)  # the control: they are counted


def test_all_targets_at_once_are_each_alone():
    feats, _ = problem("five")
    settings = {"learning_rate": 0.02, "optimizer": "adam", "steps": STEPS, "batch_size": BATCH}
    together = sensitivity(feats, **settings)
    for place, name in enumerate(together.targets):
        alone = sensitivity(feats, of=[name], **settings)
        np.testing.assert_allclose(alone.pair[0], together.pair[place], rtol=1e-10)
    worst = sensitivity(feats, of="worst", **settings)
    assert worst.targets == (together.targets[int(np.argmax(together.value))],)
    np.testing.assert_allclose(worst.pair[0], together.pair[np.argmax(together.value)], rtol=1e-10)
    weights = np.stack([(feats.group == 1) & feats.held_out, feats.held_out]).astype(float)
    own = sensitivity(feats, of=weights / weights.sum(axis=1, keepdims=True), **settings)
    np.testing.assert_allclose(own.pair[0], together.pair[1], rtol=1e-10)
    np.testing.assert_allclose(own.pair[1], sensitivity(feats, of="all", **settings).pair[0], rtol=1e-10)
    one = sensitivity(feats, of=["id:15"], **settings)
    assert one.targets == ("id:15",)


def test_the_run_is_the_one_that_the_engine_makes():
    feats, _ = problem("five")
    found = sensitivity(feats, learning_rate=0.02, optimizer="adam", steps=STEPS, batch_size=BATCH, seed=3)
    (end,) = endings(feats, [DPO()], Adam(), [0.02], BATCH, found.settings["route"])
    np.testing.assert_allclose(found.value, numbers(feats, DPO(), end), rtol=1e-13)


@pytest.mark.parametrize("batch", ["full", BATCH])
def test_torch_goes_back_along_the_same_lines(batch):
    feats, _ = problem("five")
    for settings in (
        {"optimizer": "adam", "route": "rows"},
        {"route": "gram", "quantity": "chosen_log_prob"},
        {"route": "weights"},
        {"objective": SFT()},
    ):
        common = {"learning_rate": 0.02, "steps": STEPS, "batch_size": batch, **settings}
        ours, theirs = (sensitivity(feats, arrays=arrays, **common) for arrays in (None, torch.as_tensor))
        np.testing.assert_allclose(theirs.pair, ours.pair, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(theirs.learning_rate, ours.learning_rate, rtol=1e-9)


def test_dropping_a_pair_is_foretold_in_sign_and_size():
    """One pair of many: first order in its share, so nearly what a run without it ends with."""
    rng = np.random.default_rng(1)
    n, d = 1300, 12
    feats = FeatureSet.from_arrays(
        chosen_features=rng.normal(size=(n, d)) + 0.3,
        rejected_features=np.zeros((n, d)),
        held_out=np.arange(n) >= 1000,
    )
    settings = {"learning_rate": 0.5, "steps": 50, "objective": DPO(beta=0.5)}
    whole = sensitivity(feats, **settings)
    masks = np.eye(n, 25, dtype=bool)
    without = [sensitivity(feats.select(~mask), **settings).value[0] - whole.value[0] for mask in masks.T]
    gap = whole.dropped(masks)[0] - without
    assert np.abs(gap).max() < 0.05 * np.abs(without).max()  # of second order in a share of 1/1000


def test_what_cannot_be_is_refused_with_a_reason():
    feats, _ = problem("two")
    with pytest.raises(ConfigError, match=r"the run diverges with learning rate 1e\+06.*Lower the rate"):
        sensitivity(feats, objective=GPOIPO(beta=0.3), learning_rate=1e6, steps=400)
    with pytest.raises(DataError, match=r"every group.* has no pair in the split 'held_out'.*give split='train'"):
        sensitivity(feats.with_held_out(np.zeros(len(feats), dtype=bool)), learning_rate=0.1)
    with pytest.raises(DataError, match=r"`of` has shape \(3,\)"):
        sensitivity(feats, of=np.ones(3), learning_rate=0.1)
    with pytest.raises(ConfigError, match="no pair has the id 'x'; ids look like '0'"):
        sensitivity(feats, of=["id:x"], learning_rate=0.1)
    with pytest.raises(ConfigError, match="of 'zero' is unknown"):
        sensitivity(feats, of=["zero"], learning_rate=0.1)
    with pytest.raises(ConfigError, match="weight decay moves every row of the head"):
        sensitivity(feats, quantity="chosen_log_prob", optimizer=AdamW(weight_decay=0.1), learning_rate=0.1)
    bare = FeatureSet.from_arrays(np.eye(4), chosen=[0, 1, 0, 1], rejected=[1, 0, 1, 0], held_out=[0, 0, 0, 1])
    with pytest.raises(DataError, match="log-probabilities follow from the reference's"):
        sensitivity(bare, quantity="chosen_log_prob", learning_rate=0.1)
    found = sensitivity(bare, learning_rate=0.1)
    with pytest.raises(DataError, match="leaves out every training pair"):
        found.dropped(np.array([[True], [True], [True], [False]]))
    with pytest.raises(DataError, match="a pair that the run did not train on"):
        found.dropped(np.ones((4, 1), dtype=bool))
    assert found.rows()[0]["target"] == "all"
