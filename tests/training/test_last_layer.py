"""A head trained by autograd does what the simulator says, to rounding, for every objective and optimizer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError, TrainingError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, GPOIPO, IPO, SFT, RobustDPO, SLiC
from prefdyn.maths.optimizers import SGD, Adam, AdamW, RMSprop, Schedule
from prefdyn.models.extract import extract
from prefdyn.models.load import load_model
from prefdyn.models.token_pairs import tokenize_pairs
from prefdyn.training.heads import ResponseHead
from prefdyn.training.train import run_training, train
from tests.models.conftest import yes_no
from tests.naive.pair_scores import NaivePairScorer
from tests.training.test_whole_model import texts

MEASURED = (
    "loss", "margin", "reward_accuracy", "policy_accuracy", "chosen_log_prob", "rejected_log_prob", "chosen_change",
    "rejected_change", "chosen_falling", "drift",
)  # fmt: skip
OPTIMIZERS = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "nesterov": SGD(momentum=0.9, nesterov=True),
    "adam": Adam(),
    "adamw": AdamW(),
    "rmsprop": RMSprop(),
}
OBJECTIVES = [
    DPO(beta=0.5), DPO(beta=0.5, label_smoothing=0.1), RobustDPO(beta=0.5, label_smoothing=0.1), IPO(beta=0.5),
    SLiC(beta=0.5), GPOIPO(beta=0.5), SFT(beta=0.5),
]  # fmt: skip


def features(seed: int = 0, tokens: int = 5) -> FeatureSet:
    """Three groups, `tokens` answers, a head, reference log-probabilities and a held-out part."""
    rng = np.random.default_rng(seed)
    n, d = 90, 12
    states = rng.normal(size=(n, d)) + np.repeat(rng.normal(size=(3, d)), 30, axis=0)
    chosen = rng.integers(0, tokens, n)
    rejected = (chosen + rng.integers(1, tokens, n)) % tokens
    head = rng.normal(size=(tokens, d)) / d
    logits = states.astype(np.float32).astype(np.float64) @ head.astype(np.float32).astype(np.float64).T
    rest = np.log(np.exp(logits).sum(1) + 40.0)
    rows = np.arange(n)
    names = [f"word {token}" for token in range(tokens)]
    return FeatureSet.from_arrays(
        states,
        chosen=[names[at] for at in chosen],
        rejected=[names[at] for at in rejected],
        tokens=names,
        group=np.repeat(["a", "b", "c"], 30).tolist(),
        held_out=rng.random(n) < 0.2,
        head=head,
        ref_chosen_logps=logits[rows, chosen] - rest,
        ref_rejected_logps=logits[rows, rejected] - rest,
    )


def worst(run, other, tolerance):
    """Largest difference of any measured number, and that something was measured and moved."""
    assert run.table.select(["step", "group", "split", "pairs"]).equals(
        other.where(run="joint").select(["step", "group", "split", "pairs"])
    )
    off = 0.0
    for name in MEASURED:
        columns = (run.table[name], other.where(run="joint")[name])
        ours, theirs = (np.asarray(each.to_numpy(), dtype=np.float64) for each in columns)
        assert (np.isnan(ours) == np.isnan(theirs)).all(), name
        assert not np.isnan(ours).any(), name
        off = max(off, float(np.max(np.abs(ours - theirs))))
    assert np.ptp(run.table["margin"].to_numpy()) > 100 * tolerance
    return off


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_training_is_the_simulation_over_200_steps(optimizer, precision, tolerance):
    feats, rate = features(), 0.02 if optimizer.name == "sgd" else 0.003
    run = train(
        feats, tune="last-layer", objective=DPO(beta=0.5), optimizer=optimizer, learning_rate=rate, steps=200,
        precision=precision,
    )  # fmt: skip
    other = sweep(feats, objective=DPO(beta=0.5), optimizer=optimizer, learning_rate=rate, steps=200)[0]
    assert worst(run, other, tolerance) < tolerance


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: f"{each.name}-{getattr(each, 'label_smoothing', 0)}")
@pytest.mark.parametrize(("batch_size", "scheme"), [("full", "epochs"), (16, "epochs"), (16, "replacement")])
def test_every_objective_with_minibatches_and_a_schedule(objective, batch_size, scheme):
    feats = features(seed=1)
    common: dict[str, Any] = {
        "objective": objective,
        "learning_rate": 0.01,
        "steps": 40,
        "batch_size": batch_size,
        "scheme": scheme,
    }
    run = train(feats, tune="last-layer", schedule="cosine", warmup=5, seed=3, optimizer=Adam(), **common)
    other = sweep(feats, optimizer=Adam(), schedule=Schedule(kind="cosine", steps=40, warmup=5), seed=3, **common)[0]
    assert worst(run, other, 1e-10) < 1e-10


def test_another_seed_is_another_run():
    feats = features()
    common: dict[str, Any] = {"tune": "last-layer", "learning_rate": 0.05, "steps": 20, "batch_size": 8, "record": [20]}
    first, second = (train(feats, seed=seed, **common) for seed in (0, 1))
    assert not np.allclose(first.margins[20], second.margins[20])


def test_weights_of_pairs_count_as_in_the_simulation():
    feats = features(seed=2)
    weighted = replace(feats, weight=np.linspace(0.2, 3, len(feats)))
    common: dict[str, Any] = {"learning_rate": 0.02, "steps": 30}
    run = train(weighted, tune="last-layer", objective=DPO(beta=0.5), **common)
    assert worst(run, sweep(weighted, objective=DPO(beta=0.5), **common)[0], 1e-10) < 1e-10
    assert worst(run, sweep(feats, objective=DPO(beta=0.5), **common)[0], 1e-10) > 1e-6


def test_weight_decay_pulls_the_head_and_leaves_log_probabilities_unknown():
    feats, optimizer = features(), AdamW(weight_decay=0.5)
    common: dict[str, Any] = {"objective": DPO(beta=0.5), "optimizer": optimizer, "learning_rate": 0.01, "steps": 50}
    run, other = train(feats, tune="last-layer", **common), sweep(feats, **common)[0]
    for name in ("loss", "margin", "drift"):
        assert np.allclose(run.table[name], other.table[name], rtol=0, atol=1e-10)
    assert run.table["chosen_change"].null_count == run.table.num_rows == other.table["chosen_change"].null_count
    common["optimizer"] = AdamW()
    plain = train(feats, tune="last-layer", **common)
    assert not np.allclose(run.table["margin"], plain.table["margin"], atol=1e-4)


def test_accumulated_parts_are_one_batch():
    feats = features()
    common: dict[str, Any] = {"tune": "last-layer", "learning_rate": 0.05, "steps": 15, "batch_size": 24}
    whole, parts = (run_training(feats, accumulate=count, **common) for count in (1, 5))
    assert np.allclose(whole.trajectory.margins[15], parts.trajectory.margins[15], rtol=0, atol=1e-12)
    assert np.allclose(whole.steps["loss"], parts.steps["loss"], rtol=0, atol=1e-12)
    assert np.allclose(whole.steps["grad_norm"], parts.steps["grad_norm"], rtol=0, atol=1e-12)


def test_clipping_limits_the_step():
    feats = features()
    common: dict[str, Any] = {"tune": "last-layer", "learning_rate": 0.1, "steps": 1, "probes": ("drift",)}
    free, held = run_training(feats, **common), run_training(feats, clip=0.01, **common)
    norm = free.steps["grad_norm"][0].as_py()
    assert norm > 0.02
    assert np.isclose(free.trajectory.table["drift"][-1].as_py(), 0.1 * norm)
    assert np.isclose(held.trajectory.table["drift"][-1].as_py(), 0.1 * 0.01, rtol=1e-3)
    assert held.steps["grad_norm"][0].as_py() == norm


def test_the_gradient_norm_of_a_group_is_that_of_its_mean_loss():
    """One group, full batch: the closed form at the head is what autograd found."""
    feats = features().select(slice(0, 30))
    feats = feats.with_held_out(np.zeros(len(feats), dtype=bool))
    found = run_training(feats, tune="last-layer", learning_rate=0.1, steps=5, record="all")
    measured = found.trajectory.where(group="a")["gradient_norm"].to_numpy()[:-1]
    assert np.allclose(measured, found.steps["grad_norm"].to_numpy(), rtol=1e-9)


def test_flipped_training_goes_the_other_way():
    feats = features()
    run, back = (train(feats, tune="last-layer", learning_rate=0.05, steps=1, flip=flip) for flip in (False, True))
    mean, opposite = (each.where(step=1, group="a", split="train")["chosen_change"][0].as_py() for each in (run, back))
    assert np.isclose(run.margins[1].mean(), back.margins[1].mean())  # each pair towards its own chosen answer
    assert mean != opposite


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("all", r"after step \d+ the loss of group 'a' \(train\) is inf; lower"),
        ([50], r"step \d+: .* in a batch of \d+ pairs"),
    ],
)
def test_a_loss_that_is_not_finite_names_step_place_and_fix(record, says):
    with pytest.raises(TrainingError, match=says) as caught:
        train(features(), tune="last-layer", objective=IPO(beta=0.01), learning_rate=1e30, steps=50, record=record)
    assert "lower the learning rate (1e+30)" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": 0.1, "steps": 3, "epochs": 1.0}, "give one of them"),
        ({"learning_rate": 0.1, "lora": None, "accumulate": 0}, "accumulate"),
        ({"learning_rate": 0.1, "batch_size": 4, "accumulate": 9}, "accumulate is 9 parts"),
        ({"optimizer": Adam()}, "half of the largest stable step"),
        ({"learning_rate": 0.1, "precision": "bfloat16"}, "float32 or float64"),
        ({"learning_rate": 0.1, "speed": 3}, "no setting 'speed'"),
        ({"learning_rate": 0.1, "record": [500]}, "500"),
    ],
)
def test_a_wrong_setting_is_named(options, says):
    with pytest.raises(ConfigError, match=says):
        train(features(), tune="last-layer", **options)


# longer responses ----------------------------------------------------------------------------------------------------

WEIGHT = torch.tensor([[1.0, 0], [0, 1], [-1, 0.5]], dtype=torch.float64)
STATES = [[(1, 0), (0.5, 1)], [(0, 1)], [(1, 0)], [(0, 1), (1, 1)]]
TOKENS = [[0, 2], [1], [1], [0, 1]]
"""Two pairs: chosen of both, then rejected of both."""


def made_head(precision: str = "float64") -> ResponseHead:
    states = [torch.tensor(each, dtype=torch.float64) for each in STATES]
    return ResponseHead(WEIGHT, states, [torch.tensor(each) for each in TOKENS], precision=precision)


def test_exact_head_training_on_responses_gives_the_printed_margins():
    head = made_head()
    chosen, rejected = head.start_log_probs()
    optimizer = torch.optim.SGD([head.head], lr=0.1)
    scores = head(np.arange(2))
    start = torch.from_numpy(chosen - rejected)
    torch.nn.functional.softplus(-0.5 * (scores.chosen - scores.rejected - start)).mean().backward()
    optimizer.step()
    up, down = head.start_log_probs()
    assert np.allclose(0.5 * ((up - down) - (chosen - rejected)), [0.028721946721, 0.013588386391], rtol=0, atol=1e-12)
    assert up[1] < chosen[1]  # pair 2's chosen response falls while its margin grows


def test_the_head_over_responses_is_a_plain_softmax():
    head = made_head()
    table = torch.log_softmax(torch.tensor([g for each in STATES for g in each], dtype=torch.float64) @ WEIGHT.T, dim=1)
    terms = [table[at, token].item() for at, token in enumerate(token for each in TOKENS for token in each)]
    chosen, rejected = head.start_log_probs()
    assert np.allclose(chosen, [terms[0] + terms[1], terms[2]])
    assert np.allclose(rejected, [terms[3], terms[4] + terms[5]])
    assert np.allclose(head(np.array([1])).states, [[-0.5, 0.0]])


def test_a_head_over_responses_is_saved_and_scores_alike(tiny, tmp_path):
    data = texts(12)
    found = run_training(data, str(tiny("llama-tied")), tune="last-layer", learning_rate=0.5, steps=8, out=tmp_path)
    assert found.kind == "responses"
    assert found.start_margin == 0.0
    assert found.steps["loss"][-1].as_py() < 0.68 < found.steps["loss"][0].as_py()
    lm = load_model(str(found.model))
    with torch.no_grad():
        scores = NaivePairScorer(lm, tokenize_pairs(data, lm))(np.arange(len(data)))
    assert np.allclose(scores.chosen.numpy(), found.chosen, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="no stable step is known"):
        run_training(data, str(tiny("llama-tied")), tune="last-layer")


def test_one_token_answers_train_alike_as_responses(tiny):
    """The whole head and the rows of two tokens: the same margins, since the normaliser cancels."""
    common: dict[str, Any] = {
        "tune": "last-layer",
        "learning_rate": 1.0,
        "steps": 10,
        "precision": "float64",
        "record": [10],
    }
    data, lm = yes_no(12), load_model(str(tiny("llama")))
    rows = train(data, lm, **common)
    tokens = tokenize_pairs(data, lm)
    states = torch.from_numpy(np.array(extract(data, lm).states)).double()
    sides = [torch.tensor(ids) for ids in (*tokens.chosen, *tokens.rejected)]
    head = ResponseHead(
        lm.head_weight, [states[at : at + 1] for at in (*range(12), *range(12))], sides, precision="float64"
    )
    optimizer = torch.optim.SGD([head.head], lr=1.0)
    start = torch.from_numpy(np.subtract(*head.start_log_probs()))
    for _ in range(10):
        optimizer.zero_grad()
        scores = head(np.arange(12))
        torch.nn.functional.softplus(-0.1 * (scores.chosen - scores.rejected - start)).mean().backward()
        optimizer.step()
    margins = 0.1 * (np.subtract(*head.start_log_probs()) - start.numpy())
    assert np.allclose(margins, rows.margins[10], rtol=0, atol=1e-10)
    assert np.abs(margins).max() > 0.01
