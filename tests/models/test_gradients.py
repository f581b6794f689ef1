"""Inputs and signals of modules: the gradients that they make are torch's, pair by pair."""

import numpy as np
import pytest
import torch

from prefdyn.errors import ModelError
from prefdyn.models.gradients import compressed, gradients, iterated
from prefdyn.models.load import load_model
from prefdyn.models.log_probs import PairScorer
from prefdyn.training.settings import LoRA
from prefdyn.training.tune import add_adapters
from scripts.architectures import make
from tests.models.test_log_probs import Exact, double, some_pairs
from tests.naive.pair_scores import NaivePairScorer

KINDS = ("llama", "gpt-neox", "gemma3", "qwen3", "gpt2", "qwen2-moe")
SKIPPED = ("lm_head", "embed_out", ".gate", "shared_expert_gate")
COUNT = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny random model in float64 and its linear modules, by kind."""
    root, known = tmp_path_factory.mktemp("models"), {}

    def get(kind):
        if kind not in known:
            make(kind, root / kind)
            lm = double(root / kind)
            if "moe" in kind:
                lm.model.set_experts_implementation("eager")  # the others know no float64
            linear = [
                name
                for name, module in lm.model.named_modules()
                if (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D")
                and not name.endswith(SKIPPED)
            ]
            known[kind] = lm, linear
        return known[kind]

    return get


def of_weights(layer, row, *, transposed=False):
    """Σ δ xᵀ of one row, as the module holds its weight."""
    inputs, signals = layer.row(row)
    found = signals.mT @ inputs
    return found.T if transposed else found


def by_autograd(lm, pairs, names, row):
    """Gradients of one pair's two log-probabilities in the modules' weights and biases, by the naive twin."""
    weights = {name: lm.model.get_submodule(name).weight for name in names}
    scores = NaivePairScorer(lm, pairs, double=True)(np.array([row]))
    return [
        dict(zip(names, torch.autograd.grad(value.sum(), list(weights.values()), retain_graph=True), strict=True))
        for value in (scores.chosen, scores.rejected)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["answers", "responses"])
def test_every_pairs_gradient_is_that_of_autograd_by_the_naive_twin(models, kind, of):
    """Both sides and the margin, packed and the plain way; the largest difference is 1e-5 of the largest number."""
    lm, names = models(kind)
    pairs = some_pairs(of, COUNT)
    with Exact():
        truth = [by_autograd(lm, pairs, names, row) for row in range(COUNT)]
        for share in (True, False):
            scorer = PairScorer(lm, pairs, share=share, normaliser_gradient=True)
            assert not share or scorer.shared
            sides = gradients(scorer, names, batch_tokens=150)
            margins = gradients(scorer, names, sides=False, batch_tokens=150)
            assert sides.pairs == margins.pairs == COUNT
            for name in names:
                conv = type(lm.model.get_submodule(name)).__name__ == "Conv1D"
                for row, (chosen, rejected) in enumerate(truth):
                    for values, at, wanted in (
                        (sides, row, chosen[name]),
                        (sides, row + COUNT, rejected[name]),
                        (margins, row, chosen[name] - rejected[name]),
                    ):
                        found = of_weights(values.layers[name], at, transposed=conv)
                        assert (found - wanted).abs().max() <= 1e-5 * max(wanted.abs().max(), 1e-6), (name, row)
    assert all(parameter.requires_grad for parameter in lm.model.parameters())
    assert not any(lm.model.get_submodule(name)._forward_hooks for name in names)


def test_a_pass_of_all_pairs_is_one_and_no_weight_has_a_gradient(models, monkeypatch):
    lm, names = models("llama")
    pairs, calls = some_pairs("responses", COUNT), []
    scorer = PairScorer(lm, pairs)
    whole = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (calls.append(len(a[1])), whole(*a, **k))[1])
    gradients(scorer, names, sides=False)
    assert calls == [len(names)]
    gradients(scorer, names)
    assert calls[1:] == [len(names)] * 2
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_biases_and_tokens_of_a_response_come_along(models):
    lm, _ = models("gpt2")
    name, pairs = "transformer.h.0.attn.c_attn", some_pairs("responses", COUNT)
    scorer = PairScorer(lm, pairs)
    layer = gradients(scorer, [name], sides=False, per_token=True, biases=True).layers[name]
    with Exact():
        bias = lm.model.get_submodule(name).bias
        for row in range(COUNT):
            scores = NaivePairScorer(lm, pairs, double=True)(np.array([row]))
            value = scores.chosen / len(pairs.chosen[row]) - scores.rejected / len(pairs.rejected[row])
            wanted = torch.autograd.grad(value.sum(), bias)[0]
            assert torch.allclose(of_weights(layer, row)[:, -1], wanted, rtol=1e-5, atol=1e-8)


def test_under_an_adapter_signals_are_those_at_the_adapters_weights(models, tmp_path):
    make("llama", tmp_path)
    lm = load_model(str(tmp_path))
    add_adapters(lm, LoRA(rank=2, alpha=4.0, targets=("v_proj",)), seed=0)
    module = lm.model.get_submodule("model.layers.1.self_attn.v_proj")
    with torch.no_grad():
        module.lora_B["default"].weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    pairs = some_pairs("answers", COUNT)
    scorer = PairScorer(lm, pairs, share=False)
    layer = gradients(scorer, ["model.layers.1.self_attn.v_proj"], sides=False).layers[
        "model.layers.1.self_attn.v_proj"
    ]
    a, b, scale = (module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"])
    for row in range(COUNT):
        scores = scorer(np.array([row]))
        by_b, by_a = torch.autograd.grad((scores.chosen - scores.rejected).sum(), (b, a))
        whole = of_weights(layer, row)
        assert torch.allclose(scale * whole @ a.T, by_b, rtol=1e-4, atol=1e-6)
        assert torch.allclose(scale * b.T @ whole, by_a, rtol=1e-4, atol=1e-6)


def test_what_is_cut_off_is_measured(models):
    lm, names = models("llama")
    scorer = PairScorer(lm, some_pairs("responses", COUNT), normaliser_gradient=True)
    whole, cut = (gradients(scorer, names, rank=rank, batch_tokens=150) for rank in (None, 3))
    assert whole.lost == 0
    for name in names:
        one, two = whole.layers[name], cut.layers[name]
        assert {len(each) for row in range(2 * COUNT) for each in two.row(row)} == {3}
        exact = torch.stack([of_weights(one, row) for row in range(2 * COUNT)])
        kept = torch.stack([of_weights(two, row) for row in range(2 * COUNT)])
        best = torch.linalg.svdvals(exact)[:, 3:].square().sum().sqrt() / exact.norm()
        assert float((exact - kept).norm() / exact.norm()) == pytest.approx(two.lost, rel=1e-6)
        assert two.lost == pytest.approx(float(best), rel=1e-6)
        assert two.lost > 0.001


def test_rows_shorter_than_the_rank_lose_nothing():
    draw = torch.Generator().manual_seed(0)
    inputs, signals = (torch.randn(4, 5, width, generator=draw).double() for width in (3, 8))
    kept_inputs, kept_signals, whole, lost = compressed(inputs, signals, 5)
    assert torch.allclose(kept_signals.mT @ kept_inputs, signals.mT @ inputs)
    assert lost == 0
    assert whole == pytest.approx(float((signals.mT @ inputs).square().sum()))


def test_what_is_no_linear_module_is_refused_by_name(models):
    lm, _ = models("llama")
    scorer = PairScorer(lm, some_pairs("answers", COUNT))
    with pytest.raises(ModelError, match=r"has no module 'model\.layers\.9'"):
        gradients(scorer, ["model.layers.9"])
    with pytest.raises(ModelError, match="LlamaRMSNorm, which is no linear layer"):
        gradients(scorer, ["model.norm"])


def some_gradients(*, rank=12, noise=0.02):
    """Inputs (5, 60, 40) and signals (5, 60, 50): mostly of low rank, row 3 of four tokens alone, row 4 of none."""
    draw = torch.Generator().manual_seed(1)
    few, signals = torch.randn(5, rank, 40, generator=draw), torch.randn(5, 60, 50, generator=draw)
    inputs = torch.randn(5, 60, rank, generator=draw) * 0.7 ** torch.arange(rank) @ few
    inputs = inputs + noise * torch.randn(5, 60, 40, generator=draw)
    inputs[3, 4:] = 0.0
    signals[4] = 0.0
    return inputs, signals


def test_products_alone_keep_nearly_what_the_singular_vectors_keep():
    """At least 0.98 of the squared norm that the best few terms keep, row by row; what is lost is what is missing."""
    inputs, signals = some_gradients()
    exact = signals.mT @ inputs
    for rank in (2, 8):
        kept_inputs, kept_signals, whole, lost = iterated(inputs, signals, rank)
        assert kept_inputs.shape == (5, rank, 40)
        assert kept_signals.shape == (5, rank, 50)
        missing = (exact - kept_signals.mT @ kept_inputs).double().square().sum((1, 2))
        norms, values = exact.double().square().sum((1, 2)), torch.linalg.svdvals(exact.double()).square()
        assert float(whole) == pytest.approx(float(norms.sum()), rel=1e-5)
        assert float(lost) == pytest.approx(float(missing.sum()), rel=1e-3)
        best = values[:, :rank].sum(1)
        assert ((norms - missing)[:4] >= 0.98 * best[:4]).all()
        assert ((norms - missing)[:4] <= best[:4] * (1 + 1e-5)).all()
        assert missing[4] == 0
        assert (missing[3] <= 1e-6 * norms[3]) == (rank == 8)  # four tokens are four terms
    again = iterated(inputs, signals, 8)
    assert torch.equal(again[0], kept_inputs)
    assert torch.equal(again[1], kept_signals)


def test_products_alone_lose_nothing_of_few_terms():
    inputs, signals = some_gradients(rank=3, noise=0.0)
    kept_inputs, kept_signals, whole, lost = iterated(inputs, signals, 3)
    assert float(lost) <= 1e-6 * float(whole)
    assert torch.allclose(kept_signals.mT @ kept_inputs, signals.mT @ inputs, atol=1e-4 * float(whole) ** 0.5)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("sides", [True, False])
def test_a_batch_that_memory_does_not_hold_is_read_in_halves_and_nothing_twice(models, monkeypatch, rank, sides):
    lm, names = models("llama")
    scorer = PairScorer(lm, some_pairs("responses", COUNT), normaliser_gradient=True)
    wanted = gradients(scorer, names, sides=sides, rank=rank)
    whole, sizes, last = torch.autograd.grad, [], [0]

    def tight(*given, **options):
        if not options["retain_graph"]:  # with both sides: after the first was read
            sizes.append(last[0])
            if last[0] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(*given, **options)

    read = scorer.read_apart

    def counted(rows):
        last[0] = len(rows)
        return read(rows)

    monkeypatch.setattr(torch.autograd, "grad", tight)
    monkeypatch.setattr(scorer, "read_apart", counted)
    found = gradients(scorer, names, sides=sides, rank=rank)
    assert sizes[0] == COUNT
    assert sum(size for size in sizes if size <= 2) == COUNT
    for name in names:
        for row in range(COUNT * (1 + sides)):
            one, two = (of_weights(each.layers[name], row) for each in (wanted, found))
            assert torch.allclose(one, two, atol=1e-6 * float(one.abs().max().clamp_min(1e-6)))
        assert found.layers[name].lost == pytest.approx(wanted.layers[name].lost, rel=1e-6)


def test_a_pair_that_memory_does_not_hold_is_told(models, monkeypatch):
    lm, names = models("llama")
    scorer = PairScorer(lm, some_pairs("responses", COUNT), normaliser_gradient=True)

    def full(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scorer, "read_apart", full)
    with pytest.raises(
        ModelError, match=r"gradients of a pair of \d+ tokens do not fit into the memory of cpu; use max_length"
    ):
        gradients(scorer, names, sides=False)


def test_a_model_in_bfloat16_has_gradients_in_float32(tmp_path):
    """Of the same weights in float32 they differ by the rounding of the passes."""
    make("llama", tmp_path)
    kept = []
    for dtype in ("float32", "bfloat16"):
        lm = load_model(str(tmp_path), dtype=dtype)
        add_adapters(lm, LoRA(rank=2, alpha=4.0), seed=0)
        names = [name for name, part in lm.model.named_modules() if getattr(part, "lora_A", None)]
        found = gradients(PairScorer(lm, some_pairs("responses", COUNT)), names, sides=False, rank=4)
        assert {each.dtype for layer in found.layers.values() for each in (layer.inputs, layer.signals)} == {
            torch.float32
        }
        kept.append([of_weights(layer, row) for layer in found.layers.values() for row in range(COUNT)])
    one, two = (torch.cat([each.flatten() for each in side]) for side in kept)
    assert 0 < (one - two).norm() < 0.05 * one.norm()
