"""Training of a network that is linear in W: step for step what torch does to the one that torch.func makes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call, vjp

from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.tangent import Adapter, Dense, OptimizerMemory, margins, tangent
from prefdyn.errors import ConfigError, TrainingError
from prefdyn.maths.objectives import DPO, IPO, SFT, SLiC
from prefdyn.maths.optimizers import SGD, Adam, AdamW, RMSprop
from prefdyn.models.gradients import gradients
from prefdyn.models.log_probs import PairScorer
from prefdyn.training.loop import torch_optimizer
from prefdyn.training.settings import TrainingSettings
from scripts.architectures import make
from tests.models.test_log_probs import Exact, double, some_pairs
from tests.naive.pair_scores import NaivePairScorer

PAIRS, STEPS, RANK, SCALE = 10, 30, 3, 2.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A Llama in float64, its attention's modules, responses, and signals of both sides."""
    folder = tmp_path_factory.mktemp("model")
    make("llama", folder)
    lm = double(folder)
    names = [f"model.layers.{at}.{part}" for at in (0, 1) for part in ("self_attn.q_proj", "mlp.down_proj")]
    pairs = some_pairs("responses", PAIRS)
    with Exact():
        signals = gradients(PairScorer(lm, pairs), names)
        slopes = by_func(lm, names, pairs)
    return lm, names, pairs, signals, slopes


def by_func(lm, names, pairs):
    """Derivative (2m, d_out, d_in) of the naive twin's log-probabilities in each module's weight, by torch.func."""
    naive = NaivePairScorer(lm, pairs, double=True)
    known = {f"model.{name}.weight": lm.model.get_submodule(name).weight.detach() for name in names}

    def scored(weights):
        found = functional_call(naive, weights, (np.arange(PAIRS),))
        return torch.cat([found.chosen, found.rejected])

    pull = vjp(scored, known)[1]
    rows = [pull(unit)[0] for unit in torch.eye(2 * PAIRS, dtype=torch.float64)]
    return {name: torch.stack([row[f"model.{name}.weight"] for row in rows]).detach() for name in names}


def starts(lm, names, tune, *, zero=True):
    """What each module starts with."""
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    found = {}
    for name in names:
        weight = lm.model.get_submodule(name).weight.detach()
        out, width = weight.shape
        up = torch.zeros(out, RANK, dtype=torch.float64) if zero else 0.1 * drawn(out, RANK)
        adapter = Adapter(down=drawn(RANK, width) / width**0.5, up=up, scale=SCALE)
        found[name] = adapter if tune == "lora" else Dense(weight=weight)
    return found


def by_torch(world, start, settings, order, share):
    """Log-probabilities' changes (STEPS + 1, 2, m) of the network that torch.func has made linear, trained by torch."""
    _, _, pairs, _, slopes = world
    parts = {
        (name, part): torch.nn.Parameter(value.clone())
        for name, trained in start.items()
        for part, value in trained.parts.items()
    }
    optimizer = torch_optimizer(settings, list(parts.values()))
    lengths = torch.tensor([[len(one) for one in side] for side in (pairs.chosen, pairs.rejected)])

    def moved():
        total = torch.zeros(2 * PAIRS, dtype=torch.float64)
        for name, trained in start.items():
            if isinstance(trained, Adapter):
                product = parts[name, "up"] @ parts[name, "down"] - trained.up @ trained.down
                change = trained.scale * product
            else:
                change = parts[name, "weight"] - trained.weight
            total = total + (slopes[name] * change).sum((1, 2))
        return total.view(2, -1)

    values = []
    for step in range(STEPS + 1):
        now = moved()
        values.append(now.detach().clone())
        if step == STEPS:
            return torch.stack(values).numpy(), {key: each.detach() for key, each in parts.items()}
        optimizer.zero_grad()
        ratios = now / lengths if settings.objective.per_token else now
        loss = settings.objective.loss(settings.objective.beta * (ratios[0] - ratios[1]))[order[step]]
        weight = torch.from_numpy(share[order[step]])
        ((weight * loss).sum() / weight.sum()).backward()
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(parts.values()), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        optimizer.step()
    raise AssertionError


RUNS = {
    "adamw": ("lora", DPO(beta=0.5), AdamW(weight_decay=0.1), 0.01, "cosine", 0.05),
    "adamw, full": ("full", DPO(beta=0.5), AdamW(weight_decay=0.1), 1e-3, "linear", 0.05),
    "adam, smoothed": ("lora", DPO(beta=0.5, label_smoothing=0.1), Adam(weight_decay=0.1), 0.01, "constant", None),
    "rmsprop": ("lora", DPO(beta=0.5), RMSprop(momentum=0.5), 0.002, "linear", 0.05),
    "sgd, ipo": ("full", IPO(beta=1.0), SGD(momentum=0.9, weight_decay=0.1), 1e-3, "linear", 0.5),
    "hinge": ("lora", SLiC(beta=0.5), SGD(momentum=0.9, nesterov=True), 0.01, "cosine", None),
}


@pytest.mark.parametrize("kind", RUNS)
def test_30_steps_are_those_of_torch_on_the_network_that_torch_func_made_linear(world, kind):
    tune, objective, optimizer, rate, schedule, clip = RUNS[kind]
    lm, names, pairs, signals, _ = world
    settings = TrainingSettings(
        tune=tune, objective=objective, optimizer=optimizer, learning_rate=rate, schedule=schedule, warmup=5,
        steps=STEPS, batch_size=4, clip=clip,
    )  # fmt: skip
    order = batches(PAIRS, 4, STEPS, seed=0)
    share = np.random.default_rng(0).uniform(0.5, 2.0, PAIRS)
    start = starts(lm, names, tune)
    wanted, weights = by_torch(world, start, settings, order, share)
    run = tangent(
        signals, start, objective, optimizer, learning_rate=rate, batches=order, share=share, schedule=settings.rates,
        clip=clip, recorded=range(STEPS + 1),
        lengths=np.asarray([[len(one) for one in side] for side in (pairs.chosen, pairs.rejected)]),
    )  # fmt: skip
    assert run.steps == tuple(range(STEPS + 1))
    top = np.abs(wanted).max()
    assert top > 0.1
    assert np.abs(run.values[:, 0] - wanted.reshape(STEPS + 1, -1)).max() <= 1e-6 * top
    for (name, part), value in weights.items():
        assert torch.allclose(run.weights[name][part][0], value, rtol=1e-6, atol=1e-9), (name, part)


def test_runs_side_by_side_are_those_alone_and_go_on_where_they_were_left(world):
    lm, names, _, signals, _ = world
    start = starts(lm, names, "lora", zero=False)
    rest = {"batches": batches(PAIRS, 4, 12, seed=1), "share": np.ones(PAIRS), "clip": 0.1, "recorded": (0, 6, 12)}
    betas, rates = np.array([0.2, 1.0]), np.array([0.02, 0.004])
    both = tangent(signals, start, DPO(beta=betas), AdamW(), learning_rate=rates, **rest)
    for at in (0, 1):
        alone = tangent(signals, start, DPO(beta=float(betas[at])), AdamW(), learning_rate=float(rates[at]), **rest)
        assert np.allclose(both.values[:, at], alone.values[:, 0], rtol=1e-9, atol=1e-12)

    # a momentum that is handed on: the second half alone, from where the first left all of it
    sgd, whole = SGD(momentum=0.9), {**rest, "learning_rate": 0.05}
    one = tangent(signals, start, DPO(beta=0.2), sgd, **whole)
    half = {**whole, "batches": rest["batches"][:6]}
    first = tangent(signals, start, DPO(beta=0.2), sgd, **half)
    before = tangent(signals, start, DPO(beta=0.2), sgd, **{**whole, "batches": rest["batches"][:5]})
    states = {
        (name, part): ((before.weights[name][part][0] - value[0]) / 0.05,)
        for name, parts in first.weights.items()
        for part, value in parts.items()
    }
    later = {
        name: Adapter(down=parts["down"][0], up=parts["up"][0], scale=SCALE) for name, parts in first.weights.items()
    }
    second = tangent(
        signals, later, DPO(beta=0.2), sgd, **whole, values=first.values[-1, 0],
        memory=OptimizerMemory(steps=6, states=states),
    )  # fmt: skip
    assert second.steps == (6, 12)
    assert np.allclose(second.values, one.values[1:], rtol=1e-7, atol=1e-10)


def test_margins_from_one_signal_are_those_of_two(world):
    lm, names, pairs, signals, _ = world
    with Exact():
        joint = gradients(PairScorer(lm, pairs), names, sides=False, per_token=True)
    lengths = np.asarray([[len(one) for one in side] for side in (pairs.chosen, pairs.rejected)])
    start, objective = starts(lm, names, "lora"), IPO(beta=1.0)
    rest = {"learning_rate": 0.01, "batches": batches(PAIRS, 4, 8, seed=1), "share": np.ones(PAIRS), "recorded": (8,)}
    two = tangent(signals, start, objective, AdamW(), **rest, lengths=lengths)
    one = tangent(joint, start, objective, AdamW(), **rest)
    found = margins(signals, objective, two.values, lengths)
    assert np.abs(found).max() > 0.01
    assert np.allclose(found, margins(joint, objective, one.values), rtol=1e-6)

    with Exact():
        more = gradients(PairScorer(lm, pairs), names, sides=False, chosen=True, per_token=True)
    assert more.pairs == 2 * PAIRS
    share = np.concatenate([np.ones(PAIRS), np.zeros(PAIRS)])
    three = tangent(more, start, objective, AdamW(), **{**rest, "share": share})
    np.testing.assert_allclose(three.values[..., :PAIRS], one.values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(three.values[..., PAIRS:], two.values[..., :PAIRS], rtol=1e-6, atol=1e-9)


def test_numpy_and_torch_agree(world):
    lm, names, _, signals, _ = world
    plain = replace(
        signals,
        layers={
            name: replace(layer, inputs=layer.inputs.numpy(), signals=layer.signals.numpy())
            for name, layer in signals.layers.items()
        },
    )
    start = starts(lm, names, "lora")
    rest = {"learning_rate": 0.01, "batches": batches(PAIRS, 4, 8, seed=1), "share": np.ones(PAIRS), "recorded": (8,)}
    one, two = (tangent(each, start, DPO(), AdamW(), **rest).values for each in (signals, plain))
    assert np.allclose(one, two, rtol=1e-10)


def test_what_cannot_be_trained_is_refused(world):
    lm, names, _, signals, _ = world
    start = starts(lm, names, "lora")
    rest = {"batches": batches(PAIRS, 4, 20, seed=1), "share": np.ones(PAIRS)}
    with pytest.raises(ConfigError, match="'sft' does not read"):
        tangent(signals, start, SFT(), AdamW(), learning_rate=0.1, **rest)
    with pytest.raises(ConfigError, match="has signals, but nothing to start with"):
        tangent(signals, {}, DPO(), AdamW(), learning_rate=0.1, **rest)
    with pytest.raises(ConfigError, match="give the lengths"):
        tangent(signals, start, IPO(), AdamW(), learning_rate=0.1, **rest)
    with pytest.raises(ConfigError, match="one number per run in each"):
        tangent(signals, start, DPO(beta=np.ones(2)), AdamW(), learning_rate=np.ones(3), **rest)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="lower the learning rate"):
        tangent(signals, start, IPO(), SGD(), learning_rate=1e9, lengths=np.ones((2, PAIRS), dtype=np.int64), **rest)


def test_runs_that_differ_in_what_pairs_count_are_those_of_each_by_itself(world):
    lm, names, _, signals, _ = world
    rest = {"learning_rate": 0.01, "batches": batches(PAIRS, 4, 8, seed=1), "recorded": (4, 8)}
    weights = np.stack([np.ones(PAIRS), np.arange(PAIRS) + 1.0], axis=1)
    start = starts(lm, names, "lora")
    both = tangent(signals, start, DPO(), AdamW(), share=weights, **rest).values
    for place in (0, 1):
        one = tangent(signals, start, DPO(), AdamW(), share=weights[:, place], **rest).values
        np.testing.assert_allclose(both[:, place], one[:, 0], rtol=1e-5, atol=1e-7)
    assert np.abs(both[:, 0] - both[:, 1]).max() > 1e-4
    with pytest.raises(ConfigError, match="one number per run in each"):
        tangent(signals, start, DPO(beta=np.ones(3)), AdamW(), share=weights, **rest)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_what_modules_do_is_each_weights_change_alone_and_adds_up_to_the_change_of_the_values(world, tune):
    """By torch.func's derivatives, one weight moved and all others as they were."""
    lm, names, _, signals, slopes = world
    start = starts(lm, names, tune, zero=False)
    rest = {
        "learning_rate": np.array([0.01, 0.003]), "batches": batches(PAIRS, 4, 8, seed=1), "share": np.ones(PAIRS),
    }  # fmt: skip
    values = np.random.default_rng(0).normal(size=2 * PAIRS)
    run = tangent(signals, start, DPO(beta=0.5), AdamW(), **rest, values=values, recorded=(0, 6), apart_at=6)
    assert list(run.modules) == list(names)
    change = run.values[1] - run.values[0]
    np.testing.assert_allclose(sum(run.modules.values()), change, rtol=1e-9, atol=1e-12)
    half = tangent(signals, start, DPO(beta=0.5), AdamW(), **{**rest, "batches": rest["batches"][:6]}, values=values)
    for name, trained in start.items():
        for at in (0, 1):
            parts = {part: value[at] for part, value in half.weights[name].items()}
            if isinstance(trained, Adapter):
                moved = SCALE * (parts["up"] @ parts["down"] - trained.up @ trained.down)
            else:
                moved = parts["weight"] - trained.weight
            alone = (slopes[name] * moved).sum((1, 2)).numpy()
            assert np.abs(alone).max() > 1e-3
            np.testing.assert_allclose(run.modules[name][at], alone, rtol=1e-6, atol=1e-9)
    assert tangent(signals, start, DPO(beta=0.5), AdamW(), **rest).modules == {}
