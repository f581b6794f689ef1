"""Scores of pairs: the same numbers and the same gradients as one padded row per response and the whole softmax."""

import copy
import dataclasses
import warnings
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch._C._distributed_c10d import HashStore
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ModelError
from prefdyn.models import log_probs
from prefdyn.models.head import head_log_probs
from prefdyn.models.load import load_model
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from tests.models.conftest import edit_config, yes_no
from tests.naive.pair_scores import NaivePairScorer

KINDS = [
    "llama", "llama-tied", "gpt2", "gpt-neo", "qwen3", "mistral", "opt", "opt-350m-like", "neox", "phi", "gpt-j",
    "cohere", "granite", "gemma2-uncapped", "bloom", "mamba",
]  # fmt: skip
UNPACKED = {"bloom": "fails on packed rows", "mamba": "fails on packed rows"}
ROWS = np.array([3, 1, 0, 7, 8])


class Exact(TorchFunctionMode):
    """Models compute norms, softmax and rotations in float32 whatever their dtype; here they use float64."""

    def __torch_function__(self, func: Any, types, args: Any = (), kwargs=None):
        func = torch.Tensor.double if func is torch.Tensor.float else func
        kwargs = {key: torch.float64 if value is torch.float32 else value for key, value in (kwargs or {}).items()}
        return func(*(torch.float64 if value is torch.float32 else value for value in args), **kwargs)


def some_pairs(kind, count=9, *, seed=0, prefix=6, longest=25, vocabulary=250):
    """Random tokens: prompts that begin alike, ragged, responses of 1 to 8 tokens, two of which begin alike."""
    draw = np.random.default_rng(seed)

    def tokens(size):
        return tuple(draw.integers(5, vocabulary, size).tolist())

    common = tokens(prefix)
    prompts = tuple((*common, *tokens(draw.integers(1, longest))) for _ in range(count))
    sizes = np.ones((count, 2), dtype=int) if kind == "answers" else draw.integers(1, 9, (count, 2))
    chosen, rejected = [tokens(size) for size in sizes[:, 0]], [tokens(size) for size in sizes[:, 1]]
    if kind == "responses":
        chosen[0], rejected[0] = (9, 8, 7, 6), (9, 8, 5)
        chosen[1], rejected[1] = (9,), (8, 8, 5)
    return TokenPairs(
        kind=kind,
        prompts=prompts,
        prompt=np.arange(count),
        chosen=tuple(chosen),
        rejected=tuple(rejected),
        row=np.arange(count),
        left_out=(),
        warnings=(),
    )


def double(folder):
    lm = load_model(str(folder))
    lm.model.requires_grad_(True)
    return replace(lm, model=lm.model.double(), dtype="float64")


def scores_and_gradients(scorer, rows, weights):
    """Scores, and the gradient of a weighted sum of the log-probabilities for every parameter that wants one."""
    scorer.model.zero_grad()
    scores = scorer(rows)
    (weights[0].to(scores.chosen) * scores.chosen + weights[1].to(scores.chosen) * scores.rejected).sum().backward()
    return scores, {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone()
        for name, tensor in scorer.model.named_parameters()
        if tensor.requires_grad
    }


def random_weights(count=5, *, opposite=False):
    weights = torch.randn(2, count, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return torch.stack([weights[0], -weights[0]]) if opposite else weights


def agree(one, two, limit, *, values=None):
    """Scores to `values` and gradients to `limit`, relative to the largest."""
    (scores, gradients), (true_scores, true_gradients) = one, two
    for found, truth in zip(scores, true_scores, strict=True):
        assert (found - truth).abs().max() <= (values or limit) * truth.abs().max()
    top = max(float(gradient.abs().max()) for gradient in true_gradients.values())
    assert top > 0
    assert gradients.keys() == true_gradients.keys()
    for name, truth in true_gradients.items():
        assert (gradients[name] - truth).abs().max() <= limit * top, name


# against the naive twin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_of_every_parameter_are_those_of_the_naive_twin(tiny, kind):
    """In float64 on every architecture; packed, and the plain way."""
    lm = double(tiny(kind))
    with Exact():
        for of in ("answers", "responses"):
            pairs = some_pairs(of)
            truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), ROWS, random_weights())
            for share in (True, False):
                scorer = PairScorer(lm, pairs, share=share, normaliser_gradient=True)
                found = scores_and_gradients(scorer, ROWS, random_weights())
                assert found[0].chosen.dtype == torch.float64
                assert not found[0].states.requires_grad
                agree(found, truth, 1e-10)
                if share and kind in UNPACKED:
                    assert UNPACKED[kind] in str(scorer.why_not)
                elif share and kind != "gpt-neo":
                    assert scorer.shared
                    assert scorer.why_not is None
        pairs = some_pairs("answers")
        truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), ROWS, random_weights(opposite=True))
        agree(scores_and_gradients(PairScorer(lm, pairs), ROWS, random_weights(opposite=True)), truth, 1e-10)


@pytest.mark.parametrize("of", ["answers", "responses"])
def test_a_window_that_counts_columns_limits_the_rows(tiny, tmp_path, of):
    """GPT-Neo's local layers see the last 40 columns: longer pairs go the plain way."""
    lm = load_model(str(tiny("gpt-neo")))
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    edit_config(tmp_path, window_size=40)
    lm = double(tmp_path)
    pairs = some_pairs(of, 24, longest=45)
    with Exact():
        scorer = PairScorer(lm, pairs, normaliser_gradient=True)
        assert scorer.shared
        assert 6 < scorer._room <= 40
        every = np.arange(24)
        short = every[[len(text) <= scorer._room for text in log_probs.texts_of(pairs, every)]]
        assert 0 < len(short) < 24
        for rows in (short, every):
            weights = random_weights(len(rows))
            truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), rows, weights)
            agree(scores_and_gradients(scorer, rows, weights), truth, 1e-10)
    assert "every pair is longer than the 8 tokens" in str(
        PairScorer(load_model(str(tiny("gpt-neo"))), some_pairs("responses")).why_not
    )


def test_windows_end_inside_packed_rows(tiny):
    """Pairs longer than Mistral's window of 24, of which Gemma has every other layer: positions count, not columns."""
    for kind in ("mistral", "gemma2-uncapped"):
        lm = double(tiny(kind))
        pairs = some_pairs("responses", 12, longest=60)
        rows = np.arange(12)
        with Exact():
            scorer = PairScorer(lm, pairs)
            assert scorer.shared
            truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), rows, random_weights(12))
            agree(scores_and_gradients(scorer, rows, random_weights(12)), truth, 1e-10)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("of", ["answers", "responses"])
def test_float32_agrees_to_rounding(tiny, attn, of):
    lm = load_model(str(tiny("llama")), attn=attn)
    lm.model.requires_grad_(True)
    pairs = some_pairs(of)
    truth = scores_and_gradients(NaivePairScorer(lm, pairs), ROWS, random_weights())
    found = scores_and_gradients(PairScorer(lm, pairs, normaliser_gradient=True), ROWS, random_weights())
    assert found[0].chosen.dtype == found[0].states.dtype == torch.float32
    agree(found, truth, 2e-5)


# what scores do not depend on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["answers", "responses"])
def test_scores_do_not_depend_on_the_batch(tiny, of):
    """One pair alone, all in another order, and one twice: margins differ by rounding of float32 only."""
    lm = load_model(str(tiny("llama")))
    pairs = some_pairs(of, 30)
    scorer = PairScorer(lm, pairs)
    with torch.no_grad():
        together = scorer(np.arange(30))
        alone = [scorer(np.array([row])) for row in range(30)]
        order = np.random.default_rng(0).permutation(30)
        mixed = scorer(np.concatenate([order, order[:3]]))
    for at, whole in enumerate(together):
        limit = 2e-6 * float(whole.abs().max())
        assert (torch.cat([one[at] for one in alone]) - whole).abs().max() < limit
        assert (mixed[at][:30] - whole[order]).abs().max() < limit
        assert (mixed[at][30:] - whole[order[:3]]).abs().max() < limit


def test_the_same_batch_gives_the_same_bytes(tiny):
    lm = load_model(str(tiny("llama")))
    lm.model.requires_grad_(True)
    scorer = PairScorer(lm, some_pairs("responses"))
    one, two = (scores_and_gradients(scorer, ROWS, random_weights()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_pairs_of_one_prompt_and_batches_of_one_prompt(tiny):
    """Then all of the prompt but its last token is the prefix."""
    lm = double(tiny("llama"))
    pairs = replace(some_pairs("responses"), prompt=np.zeros(9, dtype=int))
    with Exact():
        truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), ROWS, random_weights())
        agree(scores_and_gradients(PairScorer(lm, pairs), ROWS, random_weights()), truth, 1e-10)


def test_one_pair_is_enough(tiny):
    lm = load_model(str(tiny("llama")))
    for of in ("answers", "responses"):
        pairs = some_pairs(of, 2)
        one = TokenPairs(
            **{
                **{field.name: getattr(pairs, field.name) for field in dataclasses.fields(pairs)},
                "prompts": pairs.prompts[:1],
                "prompt": pairs.prompt[:1],
                "chosen": pairs.chosen[:1],
                "rejected": pairs.rejected[:1],
                "row": pairs.row[:1],
            }
        )
        with torch.no_grad():
            scores = PairScorer(lm, one)(np.array([0]))
            for found, truth in zip(scores, NaivePairScorer(lm, one)(np.array([0])), strict=True):
                torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


def test_token_states_are_those_that_the_head_scores(tiny):
    """Their log-probabilities, added up by response, are the scores; their means, the states."""
    lm = load_model(str(tiny("phi")))
    pairs = some_pairs("responses")
    with torch.no_grad():
        scorer = PairScorer(lm, pairs)
        scores, (states, targets, lengths) = scorer(ROWS), scorer.token_states(ROWS)
        each = head_log_probs(states, targets[:, None], lm.head_weight, lm.head_bias, lm.head_scale)[:, 0]
    sums = torch.stack([part.sum() for part in each.split(lengths.tolist())])
    torch.testing.assert_close(sums, torch.cat([scores.chosen, scores.rejected]), rtol=1e-5, atol=1e-5)
    means = torch.stack([part.mean(0) for part in states.split(lengths.tolist())])
    torch.testing.assert_close(means[:5] - means[5:], scores.states, rtol=1e-4, atol=1e-4)


# training modes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["answers", "responses"])
def test_lora_gets_the_gradients_of_the_naive_twin_and_the_head_none(tiny, of):
    """peft puts its layers into the model in place; the head is frozen, so no slope of it is ever formed."""
    lm = double(tiny("llama"))
    lm.model.requires_grad_(False)
    adapted(lm, target_modules=["q_proj", "v_proj", "down_proj"])
    pairs = some_pairs(of)
    with Exact():
        truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), ROWS, random_weights())
        found = scores_and_gradients(PairScorer(lm, pairs, normaliser_gradient=True), ROWS, random_weights())
    assert set(truth[1]) == {name for name, _ in lm.model.named_parameters() if "lora_" in name}
    agree(found, truth, 1e-10)


def adapted(lm, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a property that transformers is about to drop
        torch.manual_seed(0)
        peft.get_peft_model(lm.model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **options))
    lm.model.to(next(lm.model.parameters()).dtype)


def test_an_adapter_on_the_head_is_refused(tiny):
    lm = load_model(str(tiny("llama")))
    adapted(lm, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ModelError, match="head of llama carries an adapter"):
        PairScorer(lm, some_pairs("answers"))


def test_a_frozen_trunk_trains_its_head_alone(tiny):
    lm = double(tiny("phi"))
    lm.model.requires_grad_(False)
    lm.model.get_output_embeddings().requires_grad_(True)
    for of in ("answers", "responses"):
        pairs = some_pairs(of)
        with Exact():
            truth = scores_and_gradients(NaivePairScorer(lm, pairs, double=True), ROWS, random_weights())
            found = scores_and_gradients(PairScorer(lm, pairs, normaliser_gradient=True), ROWS, random_weights())
        assert set(found[1]) == {"lm_head.weight", "lm_head.bias"}
        agree(found, truth, 1e-10)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("of", ["answers", "responses"])
def test_gradient_checkpointing_changes_nothing(tiny, share, of):
    lm = load_model(str(tiny("llama")))
    lm.model.requires_grad_(True).train()
    scorer = PairScorer(lm, some_pairs(of), share=share)
    plain = scores_and_gradients(scorer, ROWS, random_weights())
    # transformers is renaming it
    getattr(lm.model, "activation_checkpointing_enable", lm.model.gradient_checkpointing_enable)()
    calls = []
    hook = lm.trunk.layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    agree(scores_and_gradients(scorer, ROWS, random_weights()), plain, 1e-6)
    hook.remove()
    assert len(calls) == 2  # once more in the backward: the checkpointing was real


def test_under_dropout_pairs_share_no_tokens_with_each_other(tiny, monkeypatch):
    """A shared prefix would give all pairs of a batch the same draws."""
    lm = load_model(str(tiny("gpt2")))
    layouts = []
    right = log_probs.lay_out
    monkeypatch.setattr(
        log_probs, "lay_out", lambda *args, **named: layouts.append(right(*args, **named)) or layouts[-1]
    )
    scorer = PairScorer(lm, some_pairs("responses"))
    assert layouts[-1].prefix == 6
    with torch.no_grad():
        calm = scorer.eval()(ROWS)
        assert layouts[-1].prefix == 6
        loud = scorer.train()(ROWS)
        assert layouts[-1].prefix == 0
        assert (loud.chosen - calm.chosen).abs().max() > 1e-3
        for module in scorer._dropouts:
            module.eval()
        scorer(ROWS)
    assert layouts[-1].prefix == 6
    assert len(scorer._dropouts) > 3
    quiet = load_model(str(tiny("llama")))
    assert not PairScorer(quiet, some_pairs("responses"))._dropouts
    adapted(quiet, target_modules=["q_proj"], lora_dropout=0.1)
    assert PairScorer(quiet, some_pairs("responses"))._dropouts


def test_the_check_leaves_the_model_as_it_was(tiny):
    """Modules in training stay so, those in evaluation too, and no gradient is left."""
    lm = load_model(str(tiny("gpt2")))
    lm.model.requires_grad_(True).train()
    lm.trunk.h[0].eval()
    before = [module.training for module in lm.model.modules()]
    PairScorer(lm, some_pairs("answers"))
    assert [module.training for module in lm.model.modules()] == before
    assert len(set(before)) == 2
    assert all(tensor.grad is None for tensor in lm.model.parameters())


@pytest.mark.parametrize("of", ["answers", "responses"])
def test_bf16_autocast_agrees_to_its_precision_and_keeps_the_head_in_float32(tiny, of):
    lm = load_model(str(tiny("llama")))
    lm.model.requires_grad_(True)
    pairs = some_pairs(of)
    scorer = PairScorer(lm, pairs, normaliser_gradient=True)
    truth = scores_and_gradients(scorer, ROWS, random_weights())
    with torch.autocast("cpu", torch.bfloat16):
        found = scores_and_gradients(scorer, ROWS, random_weights())
    assert found[0].chosen.dtype == torch.float32
    agree(found, truth, 0.1, values=0.03)
    assert (found[0].chosen - truth[0].chosen).abs().max() > 1e-4
    if of == "answers":  # the difference of the two is that of the float32 head at the very states that came out
        rows = lm.head_weight.detach()
        sides = np.asarray([(pairs.chosen[row][0], pairs.rejected[row][0]) for row in ROWS])
        gap = ((rows[sides[:, 0]] - rows[sides[:, 1]]) * found[0].states).sum(1)
        torch.testing.assert_close((found[0].chosen - found[0].rejected).detach(), gap, rtol=1e-4, atol=1e-4)


def test_bf16_weights(tiny):
    lm = load_model(str(tiny("llama")), dtype="bfloat16")
    exact = load_model(str(tiny("llama")))
    for of in ("answers", "responses"):
        pairs = some_pairs(of)
        scorer = PairScorer(lm, pairs)
        with torch.no_grad():
            found, truth = scorer(ROWS), PairScorer(exact, pairs)(ROWS)
        assert found.chosen.dtype == torch.float32
        for one, two in zip(found, truth, strict=True):
            assert (one - two).abs().max() < 0.05 * two.abs().max()


# when the shared way is not used -------------------------------------------------------------------------------------


def test_packed_rows_that_deviate_are_not_used(tiny, monkeypatch):
    """Whatever the reason: the plain way's numbers win, and the reason is told."""
    lm = load_model(str(tiny("llama")))
    pairs = some_pairs("responses")
    with torch.no_grad():
        truth = PairScorer(lm, pairs)(ROWS)
        right = log_probs._seen
        monkeypatch.setattr(log_probs, "_seen", lambda owner, part: right(owner, None))
        scorer = PairScorer(lm, pairs)
        assert "deviate by" in str(scorer.why_not)
        assert not scorer.shared
        for one, two in zip(scorer(ROWS), truth, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
        scorer.why_not, scorer._room = None, 100  # used all the same, it would be far off
        assert (scorer(ROWS).rejected - truth.rejected).abs().max() > 0.01


def test_sharing_can_be_left_off(tiny):
    scorer = PairScorer(load_model(str(tiny("llama"))), some_pairs("responses"), share=False)
    assert (scorer.shared, scorer.why_not) == (False, "share is off")


# wrapping ------------------------------------------------------------------------------------------------------------


def test_data_parallel_wrapping_keeps_scores_and_gradients(tiny):
    lm = load_model(str(tiny("llama")))
    lm.model.requires_grad_(True)
    scorer = PairScorer(lm, some_pairs("responses"))
    assert all(name.startswith("model.") for name in scorer.state_dict())
    truth = scores_and_gradients(scorer, ROWS, random_weights())
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(scorer)
        lm.model.zero_grad()
        scores = wrapped(ROWS)
        weights = random_weights().float()
        (weights[0] * scores.chosen + weights[1] * scores.rejected).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(one, two) for one, two in zip(scores, truth[0], strict=True))
    for name, tensor in lm.model.named_parameters():
        torch.testing.assert_close(tensor.grad, truth[1][name])


class NoSync(TorchDispatchMode):
    """Refuses operations that make the host wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._schema.name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["llama", "mistral", "phi", "qwen3"])
def test_the_host_never_waits_for_a_value(tiny, kind):
    lm = load_model(str(tiny(kind)))
    lm.model.requires_grad_(True)
    for of in ("answers", "responses"):
        scorer = PairScorer(lm, some_pairs(of, longest=40))
        with NoSync():
            scores = scorer(ROWS)
            (scores.chosen - scores.rejected).sum().backward()
    with NoSync(), pytest.raises(AssertionError, match="local_scalar"):
        scores.chosen[0].item()


# cost ----------------------------------------------------------------------------------------------------------------


def test_tokens_are_read_once(tiny):
    """Answers: a quarter of the tokens of two padded rows per pair. Responses: the prompts once."""
    lm = load_model(str(tiny("llama")))
    read = []
    lm.trunk.embed_tokens.register_forward_hook(lambda module, args, out: read.append(args[0].numel()))
    for of, gain in (("answers", 3.5), ("responses", 2.5)):
        pairs = some_pairs(of, 32, prefix=16, longest=30)
        with torch.no_grad():
            PairScorer(lm, pairs)(np.arange(32))
            packed = read[-1]
            NaivePairScorer(lm, pairs)(np.arange(32))
        padded = read[-1] + read[-2]
        assert padded / packed > gain


class Live(TorchDispatchMode):
    """Bytes of all tensors that operations have made and nobody has dropped, at most at any moment."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary(ref_type=weakref.ref)  # pyright: ignore[reportArgumentType]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage() not in self.known:
                storage = leaf.untyped_storage()
                self.known[storage] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._dropped, storage.nbytes())
        return out

    def _dropped(self, size):
        self.now -= size


@pytest.mark.parametrize("of", ["answers", "responses"])
def test_memory_does_not_grow_with_vocabulary_times_tokens(tiny, tmp_path, of):
    """32 pairs over 128,256 tokens: the head's gradient and one block of logits, not a gigabyte of logits."""
    lm = wide(tiny, tmp_path, 128256)
    scorer = PairScorer(lm, some_pairs(of, 32))
    with Live() as live:
        scores = scorer(np.arange(32))
        (scores.chosen - scores.rejected).sum().backward()
    head = 4 * 128256 * 8
    block = 4 * (1 << 22)
    assert head < live.peak < 5 * head + 2 * block
    lm.model.zero_grad()
    naive = NaivePairScorer(lm, some_pairs(of, 32))
    with Live() as live:  # the control: a sixteenth of the batch takes more
        scores = naive(np.arange(2))
        (scores.chosen - scores.rejected).sum().backward()
    assert live.peak > 5 * head + 2 * block


def wide(tiny, folder, vocabulary):
    """A Llama of width 8 with a large head, whole in float32, every parameter trained."""
    lm = load_model(str(tiny("llama")))
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    made = load_model(str(folder))
    made.model.requires_grad_(True)
    return made


def meddling(lm: Any, meddle: Any) -> Any:
    """The model with a trunk that lets something else into its states."""
    found = copy.deepcopy(lm.model)
    trunk = found.base_model
    plain = trunk.forward

    def forward(*given: Any, **more: Any) -> Any:
        out = plain(*given, **more)
        out.last_hidden_state = meddle(out.last_hidden_state)
        return out

    trunk.forward = forward
    return replace(lm, model=found, trunk=trunk)


@pytest.mark.parametrize("of", ["answers", "responses"])
@pytest.mark.parametrize("share", [True, False])
def test_padding_that_changes_scores_parts_the_lengths(tiny, of, share):
    """Each pair then has the numbers that it has alone, whatever stands beside it and in which order."""
    lm = load_model(str(tiny("llama")))
    pairs = tokenize_pairs(yes_no(9), lm, eos=of == "responses")
    odd = meddling(lm, lambda states: states * (1 + 0.05 * states.shape[1]))
    scorer = PairScorer(odd, pairs, share=share)
    assert scorer.equal_lengths
    rows = np.array([7, 0, 3, 8, 2])
    with torch.no_grad():
        together = scorer(rows)
        for at, row in enumerate(rows):
            alone = scorer(np.array([row]))
            assert torch.allclose(together.chosen[at], alone.chosen[0], atol=1e-4)
            assert torch.allclose(together.rejected[at], alone.rejected[0], atol=1e-4)
    assert not PairScorer(lm, pairs, share=share).equal_lengths


def test_mates_of_one_length_that_change_scores_are_refused(tiny):
    lm = load_model(str(tiny("llama")))
    rows = [{"prompt": f"{word} rain?", "chosen": " Yes", "rejected": " No"} for word in ("In", "At", "To")]
    pairs = tokenize_pairs(PreferenceDataset.from_rows(rows), lm, eos=True)
    odd = meddling(lm, lambda states: states + 3 * states.mean(0, keepdim=True))
    with pytest.raises(ModelError, match="depends on the pairs that are read beside it"):
        PairScorer(odd, pairs)


@pytest.mark.parametrize("of", ["answers", "responses"])
def test_a_glance_at_some_of_a_large_vocabulary_tells_the_same(tiny, monkeypatch, of):
    """A tenth of the tokens is enough to see that lengths must be parted; the scores are of the whole vocabulary."""
    lm = load_model(str(tiny("llama")))
    pairs = tokenize_pairs(yes_no(9), lm, eos=of == "responses")
    odd = meddling(lm, lambda states: states * (1 + 0.05 * states.shape[1]))
    whole = [PairScorer(each, pairs) for each in (lm, odd)]
    monkeypatch.setattr("prefdyn.models.log_probs._GLANCED", 40)
    known = PairScorer(lm, pairs)._glanced
    assert known is not None
    assert 40 <= len(known) < 60 < lm.vocabulary / 4
    for each, before in zip((lm, odd), whole, strict=True):
        scorer = PairScorer(each, pairs)
        assert (scorer.why_not is None, scorer.equal_lengths) == (before.why_not is None, before.equal_lengths)
        with torch.no_grad():
            assert torch.equal(scorer(np.arange(9)).chosen, before(np.arange(9)).chosen)
