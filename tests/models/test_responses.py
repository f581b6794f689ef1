"""Features of longer responses: against automatic differentiation, the scorer, and the answers' own route."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.displacement import displacement
from prefdyn.diagnostics.prioritization import pair_pushes, prioritization
from prefdyn.diagnostics.separation import separation
from prefdyn.dynamics.descent import descent
from prefdyn.errors import ConfigError, ModelError, TokenError
from prefdyn.features import FeatureSet, describe
from prefdyn.maths.objectives import DPO, IPO, NormalisedDPO
from prefdyn.models import pair_shards, shards
from prefdyn.models import responses as room
from prefdyn.models.extract import extract
from prefdyn.models.load import load_model, untrained_twin
from prefdyn.models.responses import read_responses, sketch_error, token_states
from prefdyn.models.score import score_pairs
from prefdyn.models.sketch import Buckets
from prefdyn.models.token_pairs import tokenize_pairs
from prefdyn.training.heads import ResponseHead
from prefdyn.training.train import run_training
from tests.models.conftest import byte_tokenizer, make_model, statements, yes_no
from tests.models.test_sketch import TWO_PAIRS
from tests.naive import responses as naive

HEAD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)


def texts(count=24, *, groups=2, held_out=0.0) -> PreferenceDataset:
    """Pairs of replies of several lengths."""
    said = statements(3 * count, seed=5)
    rows = [
        {
            "prompt": f"What is {said[3 * at]}?",
            "chosen": f" {said[3 * at + 1]}.",
            "rejected": f" {said[3 * at + 2]}, no.",
            "group": f"g{at % groups}",
        }
        for at in range(count)
    ]
    data = PreferenceDataset.from_rows(rows, name="texts")
    return data.with_held_out(1 - held_out, seed=0) if held_out else data


# against the definition ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "phi", "gpt2"])
def test_unsketched_products_are_those_of_the_gradients(tiny, kind):
    """Of every response with every other, and the log-probabilities and mean states beside them."""
    lm = load_model(str(tiny(kind)))
    data = texts(8)
    feats: Any = extract(data, lm, sketch=0)
    pairs = tokenize_pairs(data, lm)
    found = token_states(lm, pairs, np.arange(8), dtype=torch.float64)
    truth, sums = naive.gradients(*found, lm.head_weight, bias=lm.head_bias, scale=lm.head_scale)
    flat = truth.reshape(16, -1)
    assert feats.kind == "responses"
    ours = np.concatenate([feats.chosen_features, feats.rejected_features])
    np.testing.assert_allclose(ours @ ours.T, flat @ flat.T, rtol=1e-10, atol=1e-10 * np.abs(flat @ flat.T).max())
    log_probs = np.concatenate([feats.ref_chosen_logps, feats.ref_rejected_logps])
    np.testing.assert_allclose(log_probs, sums, rtol=1e-6)
    means = np.stack([part.mean(0).numpy() for part in found.states.split(found.lengths.tolist())])
    np.testing.assert_allclose(feats.chosen_states, means[:8], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(feats.states, means[:8] - means[8:], rtol=1e-6, atol=1e-9)


def test_the_sketch_is_that_of_the_gradients(tiny):
    """Through the shards, sorted and put back in order."""
    lm = load_model(str(tiny("llama")))
    data = texts(10)
    feats: Any = extract(data, lm, sketch=64)
    pairs = tokenize_pairs(data, lm)
    found = token_states(lm, pairs, np.arange(10))
    truth, _ = naive.gradients(*found, lm.head_weight)
    buckets = Buckets.draw(len(lm.head_weight), lm.hidden_size, size=64)
    wanted = np.stack([naive.sketch(each, buckets) for each in truth])
    ours = np.concatenate([feats.chosen_features, feats.rejected_features])
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_references_are_those_of_the_scorer(tiny):
    lm = load_model(str(tiny("llama")))
    data = texts()
    feats: Any = extract(data, lm, sketch=32)
    scored = score_pairs(lm, tokenize_pairs(data, lm))
    np.testing.assert_allclose(feats.ref_chosen_logps, scored.chosen, rtol=0, atol=1e-4)
    np.testing.assert_allclose(feats.ref_rejected_logps, scored.rejected, rtol=0, atol=1e-4)


def test_one_token_answers_sent_this_way_are_the_answers(tiny):
    """Kernel, distinguishability, priority and curves to 1e-10, unsketched."""
    lm = load_model(str(tiny("llama")))
    data = balanced().with_held_out(0.8, seed=0)
    answers = extract(data, lm)
    pairs = replace(tokenize_pairs(data, lm), kind="responses")
    arrays, _ = read_responses(lm, pairs, sketch=0, ids=[str(name) for name in answers.id])
    # states of float32 on one side, of float64 on the other: the same ones for both
    one_state = {"chosen": None, "rejected": None, "head": None, "tokens": (), "token_ids": ()}
    feats = replace(answers, kind="responses", **one_state, **arrays)
    exact = token_states(lm, pairs, np.arange(len(pairs)), dtype=torch.float64)
    answers = replace(answers, states=exact.states[: len(pairs)].numpy())

    np.testing.assert_allclose(gram(feats), gram(answers), rtol=1e-10, atol=1e-10)
    ours, theirs = separation(feats), separation(answers)
    for one, other in zip(ours.groups, theirs.groups, strict=True):
        assert other.classes is not None
        assert other.classes[0] == other.classes[1]
        assert abs(one.raw_mean_norm - other.distinguishability) < 1e-10 * max(1, other.distinguishability)
    for one, other in zip(prioritization(feats).level, prioritization(answers).level, strict=True):
        assert abs(one - other) < 1e-10
    runs = [descent(each, DPO(beta=0.5), learning_rate=0.5, steps=40, margins_at=[40]) for each in (feats, answers)]
    np.testing.assert_allclose(runs[0].margins[40], runs[1].margins[40], rtol=0, atol=1e-10)
    np.testing.assert_allclose(runs[0].table["loss"], runs[1].table["loss"], rtol=0, atol=1e-10)


def balanced() -> PreferenceDataset:
    rows = [
        {"prompt": f"Would you say {said}?", "chosen": sides[0], "rejected": sides[1], "group": f"g{at % 2}"}
        for at, said in enumerate(statements(40))
        for sides in [(" Yes", " No")[:: 1 if at // 2 % 2 else -1]]
    ]
    return PreferenceDataset.from_rows(rows, name="balanced")


def gram(feats: FeatureSet) -> np.ndarray:
    return feats.kernel().dense()


# dynamics ------------------------------------------------------------------------------------------------------------


def two_pairs() -> FeatureSet:
    states, targets, lengths = TWO_PAIRS
    truth, sums = naive.gradients(states, targets, lengths, HEAD)
    flat = truth.reshape(4, -1)
    return FeatureSet.from_arrays(
        chosen_features=flat[:2], rejected_features=flat[2:], chosen_length=[2, 1], rejected_length=[1, 2],
        ref_chosen_logps=sums[:2], ref_rejected_logps=sums[2:],
    )  # fmt: skip


def test_the_vector_of_two_pairs_by_first_order_and_exactly():
    feats = two_pairs()
    run = descent(feats, DPO(beta=0.5), learning_rate=0.1, steps=1, margins_at=[1])
    np.testing.assert_allclose(run.margins[1], [0.028746340287, 0.013525936919], rtol=0, atol=1e-8)  # float32 features
    pushes = pair_pushes(feats, beta=0.5, learning_rate=0.1)
    pushed = displacement(feats, pushes)
    assert pushed.chosen_push is not None
    # half of the mean pull, eta beta / n: of pair 1 on pair 2's chosen -0.4427, of pair 2 itself what is left
    kernel_part = 0.1 * 0.5 / 2 * 0.5 * -0.442678127877
    first, second = (np.asarray(each, dtype=np.float64) for each in (feats.chosen_features, feats.rejected_features))
    own = 0.1 * 0.5 / 2 * 0.5 * float(first[1] @ (first[1] - second[1]))
    np.testing.assert_allclose(pushed.chosen_push[1], kernel_part + own, rtol=0, atol=1e-8)


@pytest.mark.parametrize("objective", [DPO(beta=0.5), IPO(beta=0.5), NormalisedDPO(beta=0.5)], ids=lambda o: o.name)
def test_first_order_is_left_at_second_order(objective):
    """Halving the rate quarters the distance to exact training of the whole head, summed or per token."""
    states, targets, lengths = TWO_PAIRS
    feats = two_pairs()
    gaps = []
    for rate in (0.02, 0.01, 0.005):
        head = ResponseHead(HEAD, states.split(lengths.tolist()), targets.split(lengths.tolist()), precision="float64")
        start, tokens = np.stack(head.start_log_probs()), lengths.numpy().reshape(2, 2)
        tokens = tokens if objective.per_token else np.ones_like(tokens)
        for _ in range(3):
            scores = head(np.arange(2))
            moved = torch.stack([scores.chosen, scores.rejected]) - torch.from_numpy(start)
            loss = objective.loss(objective.beta * (moved / torch.from_numpy(tokens)).diff(dim=0)[0].neg()).mean()
            (slope,) = torch.autograd.grad(loss, head.head)
            with torch.no_grad():
                head.head.sub_(rate * slope)
        after = (np.stack(head.start_log_probs()) - start) / tokens
        run = descent(feats, objective, learning_rate=rate, steps=3, margins_at=[3])
        gaps.append(np.abs(objective.beta * (after[0] - after[1]) - run.margins[3]).max())
        if objective.per_token:  # what is told of log-probabilities stays a sum over tokens
            assert abs(run.final("chosen_change", group="all") - (after * tokens)[0].mean()) < 3 * rate
    assert gaps[0] > 1e-6
    orders = np.log2(np.divide(gaps[:-1], gaps[1:]))
    assert (orders > 1.8).all()
    assert (orders < 2.2).all()


def test_training_the_head_per_token_reports_the_margins_that_its_table_has(tiny):
    run = run_training(
        texts(6), str(tiny("llama")), tune="last-layer", objective=NormalisedDPO(beta=2.0), learning_rate=0.5, steps=3,
        progress=False,
    )  # fmt: skip
    margins = run.trajectory.margins[3]
    groups = run.pairs.group
    for code, name in enumerate(run.pairs.groups):
        assert abs(margins[groups == code].mean() - run.trajectory.final("margin", group=name)) < 1e-5


# sides, order, batches -----------------------------------------------------------------------------------------------


def test_swapping_sides_swaps_features(tiny):
    lm = load_model(str(tiny("llama")))
    one, two = extract(texts(), lm, sketch=32), extract(texts().flipped(), lm, sketch=32)
    back = two.flipped()
    for name in ("chosen_features", "rejected_features", "states", "chosen_states", "ref_chosen_logps"):
        np.testing.assert_allclose(getattr(back, name), getattr(one, name), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_neither_batches_nor_order_change_the_features(tiny, batch_tokens):
    lm = load_model(str(tiny("llama")))
    data = texts()
    whole = extract(data, lm, sketch=32, cache=False)
    order = np.random.default_rng(0).permutation(len(data))
    turned = replace(data, table=data.table.take(order))
    found = extract(turned, lm, sketch=32, cache=False, batch_tokens=batch_tokens)
    for name in ("chosen_features", "rejected_features", "states", "chosen_states", "ref_rejected_logps"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name)[order], rtol=1e-4, atol=1e-4)
    if batch_tokens == 10_000:
        same = extract(turned, lm, sketch=32, cache=False)
        assert same.chosen_features is not None
        assert whole.chosen_features is not None
        assert same.chosen_features.tobytes() == whole.chosen_features[order].tobytes()


# what is asked and told ----------------------------------------------------------------------------------------------


def test_what_is_told(tiny):
    data = texts(9, held_out=0.3)
    feats = extract(data, str(tiny("llama")), sketch=32)
    told = feats.provenance.settings
    assert (told["sketch"], told["eos"], told["prompts"]) == (32, True, 9)
    assert told["response_tokens"] == feats.chosen_length.sum() + feats.rejected_length.sum()
    assert describe(feats)["sketch"] == 32
    assert describe(feats)["sketch_error"]["pairs"] == 9
    assert feats.held_out.tolist() == [side == "held_out" for side in data.table["split"].to_pylist()]
    assert describe(extract(data, str(tiny("llama")), sketch=0))["sketch"] is None
    without = extract(data, str(tiny("llama")), sketch=32, eos=False)
    assert (without.chosen_length == feats.chosen_length - 1).all()


def test_answers_are_texts_on_request_alone(tiny):
    model = str(tiny("llama"))
    assert extract(yes_no(6), model).kind == "answers"
    texts_of_two = extract(yes_no(6), model, eos=True, sketch=16)
    assert texts_of_two.kind == "responses"
    assert (texts_of_two.chosen_length == 2).all()
    long = yes_no(6, yes=" Yes of course", no=" No and never")
    with pytest.raises(TokenError, match="or read them as texts with eos=True"):
        extract(long, model)
    assert extract(long, model, eos=True, sketch=16).kind == "responses"


def test_what_cannot_be_is_refused(tiny, monkeypatch):
    with pytest.raises(ConfigError, match="double_norm reproduces figures of one-token answers"):
        extract(texts(4), str(tiny("llama")), double_norm=True)
    monkeypatch.setattr(room, "_UNSKETCHED_PAIRS", 3)
    with pytest.raises(ConfigError, match=r"without a sketch every two of the 8 responses.*limit"):
        extract(texts(4), str(tiny("llama")), sketch=0)


def test_a_number_that_is_not_finite_names_its_pair(tmp_path):
    folder = make_model(tmp_path / "broken", "llama", byte_tokenizer())
    lm = load_model(str(folder))
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(ModelError, match="gradient of pair 'texts:"):
        extract(texts(4), lm, sketch=16, cache=False)


def test_the_measured_error_is_that_of_the_kernels(tiny):
    lm = load_model(str(tiny("llama")))
    data = texts(12)
    pairs, buckets = tokenize_pairs(data, lm), Buckets.draw(len(lm.head_weight), lm.hidden_size, size=48)
    found = sketch_error(lm, pairs, buckets, np.arange(12))
    exact, sketched = (gram(extract(data, lm, sketch=size)) for size in (0, 48))
    unit = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    off = ((sketched - exact) / unit)[~np.eye(12, dtype=bool)]
    assert abs(found["rms"] - np.sqrt(np.mean(off**2))) < 1e-4
    assert abs(found["largest"] - np.abs(off).max()) < 1e-4
    assert 0.5 < found["rms"] / found["expected"] < 2
    alone = sketch_error(lm, pairs, buckets, np.arange(1))
    assert alone == {"pairs": 1, "tokens": None, "rms": None, "largest": None, "expected": None}
    few = sketch_error(lm, pairs, buckets, np.arange(12), cut=2)
    shorter = {side: tuple(each[:2] for each in getattr(pairs, side)) for side in ("chosen", "rejected")}
    assert few == pytest.approx(
        sketch_error(lm, replace(pairs, **shorter), buckets, np.arange(12)) | {"tokens": 2}, rel=1e-5
    )
    assert few["rms"] != found["rms"]


def test_what_an_error_is_measured_on_costs_little_beside_the_reading(tiny, monkeypatch):
    """Work counts products of a state with the head: logits twice, and every two tokens where there are few."""
    pairs = tokenize_pairs(texts(60), load_model(str(tiny("llama"))))
    lengths = np.asarray([[len(one), len(two)] for one, two in zip(pairs.chosen, pairs.rejected, strict=True)])
    rows, cut = room.measured_sample(pairs, width=1, vocabulary=1)  # a head of one number: everything
    assert (rows.tolist(), cut) == (list(range(len(pairs))), None)
    looked = []
    for allowed in (4000, 1500, 700):
        monkeypatch.setattr(room, "_MEASURED_WORK", 2 * 640 * 262144 * allowed)
        rows, cut = room.measured_sample(pairs, width=640, vocabulary=262144)
        looked.append(int(np.minimum(lengths[rows], cut or 10**6).sum()))
        assert 2 * looked[-1] + looked[-1] ** 2 / 640 <= allowed
    assert looked == sorted(looked, reverse=True)
    assert looked[-1] > 100
    monkeypatch.setattr(room, "_MEASURED_WORK", 1)
    monkeypatch.setattr(room, "_FEWEST", 4)
    rows, cut = room.measured_sample(pairs, width=640, vocabulary=262144)  # whatever it costs
    assert len(rows) >= 4


# the cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "_SHARD", {"cpu": (100, 100), "cuda": (100, 100)})


def test_a_second_run_reads_what_the_first_kept(tiny, own_cache, small_shards, monkeypatch):
    lm = load_model(str(tiny("llama")))
    first = extract(texts(), lm, sketch=32)
    kept = [path for path in own_cache.rglob("shard-*") if path.is_file()]
    assert len(kept) > 3
    assert len(list(own_cache.rglob("sketch-errors/*.json"))) == 1
    monkeypatch.setattr(shards, "_compute", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(pair_shards, "PairScorer", lambda *_, **__: pytest.fail("made for nothing"))
    again = extract(texts(), lm, sketch=32, batch_tokens=7)
    assert again.chosen_features is not None
    assert first.chosen_features is not None
    assert again.chosen_features.tobytes() == first.chosen_features.tobytes()
    assert again.provenance.settings["sketch_error"] == first.provenance.settings["sketch_error"]
    for other in (
        lambda: extract(texts(), lm, sketch=33),
        lambda: extract(texts(), lm, sketch=32, eos=False),
        lambda: extract(texts(23), lm, sketch=32),
        lambda: extract(texts(), untrained_twin(lm, 0), sketch=32),
    ):
        with pytest.raises(pytest.fail.Exception):
            other()


def test_a_run_that_breaks_off_resumes_to_the_same_bytes(tiny, own_cache, small_shards, monkeypatch):
    lm = load_model(str(tiny("llama")))
    whole: Any = extract(texts(), lm, sketch=32, cache=False)
    plain, done = shards._compute, []

    def broken(*given: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[2])
        return plain(*given)

    monkeypatch.setattr(shards, "_compute", broken)
    with pytest.raises(KeyboardInterrupt):
        extract(texts(), lm, sketch=32)
    before = set(done)
    monkeypatch.setattr(shards, "_compute", lambda *given: (done.append(given[2]), plain(*given))[1])
    found: Any = extract(texts(), lm, sketch=32)
    assert len(done) == len(set(done)) > len(before)
    assert found.chosen_features.tobytes() == whole.chosen_features.tobytes()
    assert found.rejected_features.tobytes() == whole.rejected_features.tobytes()


# self-checks ---------------------------------------------------------------------------------------------------------


def test_without_checks_nothing_is_tried_and_the_numbers_are_those_of_the_plain_way(tiny, monkeypatch):
    """And with full ones the sketch's error is of all tokens."""
    lm = load_model(str(tiny("gpt2")))
    data = texts(12)
    quick = extract(data, lm, sketch=64, cache=False)
    full = extract(data, lm, sketch=64, cache=False, check="full")
    assert full.provenance.settings["sketch_error"]["tokens"] is None
    for name in ("_check_mates", "_check"):
        monkeypatch.setattr(f"prefdyn.models.log_probs.PairScorer.{name}", None)
    monkeypatch.setattr(room, "sketch_error", None)
    bare = extract(data, lm, sketch=64, cache=False, check="none")
    assert bare.provenance.settings["sketch_error"] is None
    for name in ("chosen_features", "rejected_features", "states", "ref_chosen_logps", "ref_rejected_logps"):
        one, two = getattr(quick, name), getattr(bare, name)
        assert np.abs(one - two).max() <= 1e-4 * np.abs(one).max(), name


def test_what_was_read_without_checks_is_not_taken_for_what_was_checked(tiny, own_cache):
    """One-token answers and longer ones; each way finds its own numbers again, to the byte."""
    lm = load_model(str(tiny("gpt2")))
    for data, options in ((yes_no(8), {}), (texts(8), {"sketch": 64})):
        ways = {check: extract(data, lm, check=check, **options) for check in ("quick", "none")}
        for check, feats in ways.items():
            again = extract(data, lm, check=check, **options)
            assert np.array_equal(again.states, feats.states)
            alone = extract(data, lm, check=check, cache=False, **options)
            assert np.array_equal(alone.states, feats.states)
    with pytest.raises(ConfigError, match="check 'some' is unknown; known: full, none, quick"):
        extract(texts(2), lm, check="some")
