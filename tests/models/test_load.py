"""Loading: every model that passes has logits = state · head, and every other one is refused with the reason."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from prefdyn.errors import ConfigError, ModelError
from prefdyn.models import hub
from prefdyn.models.extract import extract
from prefdyn.models.load import _known_scale, load_model, untrained_twin
from prefdyn.models.score import score_pairs
from prefdyn.models.source import ModelSource
from prefdyn.models.token_pairs import tokenize_pairs
from prefdyn.training.train import run_training
from tests.conftest import CHAT_3M, STORIES_3M, needs_shared
from tests.models.conftest import PARITY, byte_tokenizer, edit_config, make_model, yes_no


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of the tiny Llama to break."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "broken"))


# the head ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PARITY)
def test_states_times_head_are_the_logits(tiny, kind):
    """features @ W_U.T (+ bias) == logits, normalised once, tied or not, biased or not, scaled or not."""
    lm = load_model(str(tiny(kind)))
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, lm.vocabulary, (3, 20)))
    with torch.inference_mode():
        states = lm.trunk(input_ids=ids, use_cache=False).last_hidden_state.numpy()
        logits = lm.model(input_ids=ids).logits.numpy()
    rows, bias = lm.head_rows(list(range(lm.vocabulary)))
    ours = states @ rows.T + (0 if bias is None else bias)
    assert np.abs(logits).max() > 0.02
    np.testing.assert_allclose(ours, logits, atol=2e-5 * np.abs(logits).max())
    assert lm.hidden_size == states.shape[-1]


def test_known_shapes_of_heads_are_told_apart(tiny):
    """Tied, biased and scaled heads are what their configurations say."""
    assert load_model(str(tiny("llama-tied"))).tied_head
    assert not load_model(str(tiny("llama"))).tied_head
    assert load_model(str(tiny("cohere"))).head_scale == 0.0625
    assert load_model(str(tiny("granite"))).head_scale == 0.125
    assert load_model(str(tiny("phi"))).head_bias is not None
    projected = load_model(str(tiny("opt-projected")))
    assert projected.hidden_size == 16
    assert projected.model.config.hidden_size == 32


def test_an_unknown_constant_factor_is_fitted_and_a_bent_head_is_refused(tiny, monkeypatch):
    """Any positive constant on the logits is folded into the head; a monotone bend is not a constant."""
    plain: Any = transformers.LlamaForCausalLM.forward

    def scaled(self, *args, **kwargs):
        out = plain(self, *args, **kwargs)
        out.logits = 3.7 * out.logits
        return out

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", scaled)
    assert load_model(str(tiny("llama"))).head_scale == pytest.approx(3.7, rel=1e-5)

    def bent(self, *args, **kwargs):
        out = plain(self, *args, **kwargs)
        out.logits = torch.tanh(out.logits)
        return out

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", bent)
    with pytest.raises(ModelError, match=r"not the model's logits .* not linear"):
        load_model(str(tiny("llama")))

    def upside_down(self, *args, **kwargs):
        out = plain(self, *args, **kwargs)
        out.logits = -out.logits
        return out

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", upside_down)
    with pytest.raises(ModelError, match="not linear"):
        load_model(str(tiny("llama")))


def test_soft_capped_logits_are_known_by_name(tiny):
    """A cap that random logits are too small to feel is still a cap; what needs a linear head says so."""
    lm = load_model(str(tiny("gemma2")))
    assert lm.head_cap == 30.0
    with pytest.raises(ModelError, match=r"final_logit_softcapping = 30\.0 .*features do not hold.*train --tune lora"):
        extract(yes_no(4), lm, progress=False)
    with pytest.raises(ModelError, match=r"final_logit_softcapping"):
        run_training(yes_no(4), str(tiny("gemma2")), tune="last-layer", steps=1)
    load_model(str(tiny("gemma2-uncapped"))).require_linear_head("anything")


@pytest.mark.parametrize("eos", [True, False])
def test_a_cap_that_is_felt_bends_scores_as_the_model_does(tiny, tmp_path, eos):
    """Log-probabilities are those of the model's own logits, which without the cap they are not; adapters train."""
    folder = tmp_path / "capped"
    shutil.copytree(tiny("gemma2"), folder)
    edit_config(folder, final_logit_softcapping=0.1)
    lm, data = load_model(str(folder)), yes_no(6)
    pairs = tokenize_pairs(data, lm, eos=eos)
    found = score_pairs(lm, pairs, cache=False, progress=False)
    for at in range(len(pairs)):
        whole = torch.tensor([pairs.prompts[pairs.prompt[at]] + pairs.chosen[at]])
        with torch.no_grad():
            each = torch.log_softmax(lm.model(whole).logits[0, :-1].double(), -1).gather(1, whole[0, 1:, None])
        assert found.chosen[at] == pytest.approx(float(each[-len(pairs.chosen[at]) :].sum()), abs=1e-4)
    straight = score_pairs(replace(lm, head_cap=None), pairs, cache=False, progress=False)
    assert np.abs(straight.chosen - found.chosen).max() > 1e-2
    for tune in ("lora", "full"):
        run = run_training(data, str(folder), tune=tune, eos=eos, steps=8, learning_rate=0.02)
        losses = run.steps["loss"].to_pylist()
        assert losses[-1] < losses[0]


def test_a_model_that_looks_ahead_is_refused(tiny):
    """BERT loads as a causal model, but its attention is not causal."""
    with pytest.raises(ModelError, match="not causal"):
        load_model(str(tiny("bert")))


def test_no_causal_language_model(tiny, monkeypatch):
    """An encoder-decoder, and a model without an output head."""
    with pytest.raises(ModelError, match="T5ForConditionalGeneration, not a causal language model"):
        load_model(str(tiny("t5")))
    monkeypatch.setattr(transformers.LlamaForCausalLM, "get_output_embeddings", lambda self: None)
    with pytest.raises(ModelError, match="no output head"):
        load_model(str(tiny("llama")))


def test_a_model_that_fails_in_its_forward_pass(tiny, monkeypatch):
    """What the model raises is told in one line."""

    def fails(self, *args, **kwargs):
        raise RuntimeError("shape mismatch\nin layer 3")

    monkeypatch.setattr(transformers.LlamaModel, "forward", fails)
    with pytest.raises(ModelError, match=r"fails on 8 random tokens \(shape mismatch in layer 3\)"):
        load_model(str(tiny("llama")))


# settings ------------------------------------------------------------------------------------------------------------


def test_dtype_device_and_attention_are_recorded(tiny):
    """Chosen by the device unless said otherwise; eager where a model has no sdpa."""
    lm = load_model(str(tiny("llama")), dtype="bfloat16", attn="eager")
    assert (lm.dtype, lm.device, lm.attention) == ("bfloat16", "cpu", "eager")
    assert load_model(str(tiny("llama")), device="cpu").dtype == "float32"
    assert load_model(str(tiny("llama"))).attention == "sdpa"
    assert load_model(str(tiny("gpt-neo"))).attention == "eager"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"dtype": "float8"}, ConfigError, "dtype 'float8' is unknown"),
        ({"device": "gpu"}, ConfigError, "device 'gpu' is unknown; use auto, cpu, cuda"),
        ({"device": "zz"}, ConfigError, "device 'zz' is unknown; use auto, cpu, cuda"),
        ({"device": ""}, ConfigError, "device '' is unknown"),
        ({"device": "cuda:-1"}, ConfigError, "device 'cuda:-1' is unknown"),
        ({"device": "meta"}, ConfigError, "device 'meta' is unknown"),
        ({"device": "cuda:77"}, ModelError, "torch sees .* GPUs; use device cpu"),
        ({"device": "mps"}, ModelError, "device 'mps' cannot be used here .*; use device cpu"),
        ({"attn": "telepathy"}, ConfigError, "attn 'telepathy' is unknown"),
        ({"attn": "somebody/kernels"}, ConfigError, "attn 'somebody/kernels' is code from the hub"),
    ],
)
def test_unknown_settings(tiny, monkeypatch, options, error, says):
    """Each names the value and what to use, before a file of the model is opened."""
    monkeypatch.setattr(ModelSource, "find", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(error, match=says):
        load_model(str(tiny("llama")), **options)


def test_describe_is_the_model_part_of_the_summary(tiny):
    """Plain JSON with the keys of the design."""
    found = load_model(str(tiny("llama"))).describe()
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {
        "name", "architecture", "hidden_size", "vocabulary", "layers", "parameters", "dtype", "device", "attention",
        "tied_head", "revision", "sha256",
    }  # fmt: skip
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["layers"] == 2


def test_loading_is_quiet_and_leaves_no_trace(tiny, capfd):
    """No line on either stream; verbosity, progress bars and the random state as before."""
    talk = transformers.utils.logging
    before = (talk.get_verbosity(), talk.is_progress_bar_enabled(), torch.random.get_rng_state())
    untrained_twin(load_model(str(tiny("mamba"))))
    assert (talk.get_verbosity(), talk.is_progress_bar_enabled()) == before[:2]
    assert torch.equal(torch.random.get_rng_state(), before[2])
    assert capfd.readouterr() == ("", "")


def test_a_local_folder_needs_no_network(tiny, monkeypatch):
    """Not one connection is tried."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_model(str(tiny("gpt2")))


# places --------------------------------------------------------------------------------------------------------------


def test_missing_folders_name_their_neighbours(tiny, tmp_path):
    """A typo gets the nearest name; an empty place and a missing one are told as such."""
    root = tiny("llama").parent
    with pytest.raises(ModelError, match="does not exist; did you mean 'llama'"):
        load_model(str(root / "lama"))
    with pytest.raises(ModelError, match=r"does not exist; .* holds: .*llama"):
        load_model(str(root / "zzzzzzzz"))
    with pytest.raises(ModelError, match="holds no folders"):
        load_model(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="nor does"):
        load_model(str(tmp_path / "a" / "b" / "c"))
    with pytest.raises(ModelError, match="did you mean 'builtin'"):
        load_model("biultin")


def test_a_file_is_no_model(tiny):
    """The folder is wanted."""
    with pytest.raises(ModelError, match="is a file; give the folder"):
        load_model(str(tiny("llama") / "model.safetensors"))


def test_folder_without_config(broken):
    """Nor with one a level down, which is proposed."""
    shutil.copytree(broken, broken / "inner")
    (broken / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json; did you mean .*inner"):
        load_model(str(broken))
    shutil.rmtree(broken / "inner")
    with pytest.raises(ModelError, match=r"holds no config\.json; give the folder"):
        load_model(str(broken))


def test_folder_without_tokenizer(broken):
    """The missing files are named."""
    for path in broken.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer \(tokenizer\.json"):
        load_model(str(broken))


def test_folder_without_weights_or_with_pickled_ones(broken):
    """Pickled weights are not read; the line that converts them is given."""
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(str(broken))
    (broken / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin but no safetensors.*save_pretrained"):
        load_model(str(broken))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(broken, value):
    """The tensor that holds NaN or infinity."""
    path = broken / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' .* has 1 values that are NaN or inf"
    ):
        load_model(str(broken))


def test_missing_tensors_are_not_made_up(broken):
    """transformers would start them at random."""
    path = broken / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors .* 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_model(str(broken))


def test_a_shape_that_does_not_fit_the_config(broken):
    """Weights of another model."""
    edit_config(broken, intermediate_size=64)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(str(broken))


def test_remote_code_is_not_run(broken):
    """Unless the user says so."""
    (broken / "evil.py").write_text("raise SystemExit('ran')\n")
    edit_config(broken, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    with pytest.raises(ModelError, match=r"ships Python code of its own; .* trust_remote_code=True"):
        load_model(str(broken))


def test_hub_model_that_cannot_be_reached(monkeypatch):
    """Offline and not cached: says so, and what to do."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hub model 'nobody/nothing-here' is not in the local hub cache"):
        load_model("nobody/nothing-here")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("401 Client Error. You are trying to access a gated repo.", "gated or private"),
        ("v9 is not a valid git identifier for this revision", "no revision"),
        ("x does not appear to have a file named model.safetensors", "no safetensors weights"),
        ("something else", "check the id"),
    ],
)
def test_what_the_hub_says_is_told_in_one_line(monkeypatch, said, told):
    """With the fix for each."""

    def fails(*args, **kwargs):
        raise OSError(said)

    monkeypatch.setattr("transformers.utils.hub.cached_file", fails)
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    with pytest.raises(ModelError, match=told):
        load_model("somebody/model", revision="v9")


class _Panic(BaseException):
    """What a library in Rust raises where it gives up."""


_Panic.__name__ = "PanicException"


def test_missing_libraries_and_memory_are_told(tiny, monkeypatch):
    """ImportError and OutOfMemoryError from transformers, as they come."""
    for error, told in (
        (ImportError("needs kernels"), "not installed"),
        (torch.OutOfMemoryError("80 GB"), "into memory"),
        (MemoryError(), "into memory"),
        (_Panic("no such byte"), r"the model in .* cannot be read \(PanicException: no such byte\)"),
    ):

        def fails(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fails)
        with pytest.raises(ModelError, match=told):
            load_model(str(tiny("llama")))


def test_the_builtin_model_must_be_there(monkeypatch, tmp_path):
    """An installation without it says so."""
    monkeypatch.setattr("prefdyn.models.source.BUILTIN", tmp_path)
    with pytest.raises(ModelError, match="install prefdyn again"):
        load_model("builtin")


# adapters ------------------------------------------------------------------------------------------------------------


def adapter(base: Path, folder: Path) -> Path:
    """A LoRA adapter with lively weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(folder))
    return folder


_PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
"""peft asks transformers for a name that has moved."""


@_PEFT
def test_an_adapter_is_merged_into_its_base(tiny, tmp_path):
    """Its logits are those of peft's own model, and its fingerprint is not that of the base."""
    base = tiny("llama")
    folder = adapter(base, tmp_path / "adapter")
    lm = load_model(str(folder))
    ids = torch.arange(12)[None]
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(lm.model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5)
    assert lm.name == "adapter"
    assert lm.fingerprint != load_model(str(base)).fingerprint


@_PEFT
def test_an_adapter_that_merging_changes_stays_beside_its_base(tiny, tmp_path, monkeypatch):
    """As peft's own model has it, however far the merged one would be off."""
    base = tiny("llama")
    folder = adapter(base, tmp_path / "adapter")

    def spoilt(self: Any, *given: Any, **more: Any) -> Any:
        found = self.base_model.merge_and_unload(*given, **more)
        with torch.no_grad():
            found.lm_head.weight *= 1.5
        return found

    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", spoilt, raising=False)
    lm = load_model(str(folder))
    ids = torch.arange(12)[None]
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(lm.model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5)
    assert any("lora_A" in name for name, _ in lm.model.named_parameters())


@_PEFT
def test_broken_adapters(tiny, tmp_path):
    """Weights of another model, base moved away."""
    folder = adapter(tiny("llama"), tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())

    def with_base(name):
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))

    with_base(str(tiny("gpt2")))
    with pytest.raises(ModelError, match="cannot be put on its base model"):
        load_model(str(folder))
    with_base(str(tmp_path / "gone" / "base"))
    with pytest.raises(ModelError, match="does not exist"):
        load_model(str(folder))


# identity ------------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_the_content(tiny, broken):
    """A copy has the same; one changed weight, or the tokenizer, another; a note beside the weights the same."""
    first = load_model(str(tiny("llama"))).fingerprint
    (broken / "notes.txt").write_text("x")
    assert load_model(str(broken)).fingerprint == first
    path = broken / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert load_model(str(broken)).fingerprint != first
    byte_tokenizer(bos=False).save_pretrained(broken)
    assert load_model(str(broken)).fingerprint != first


def test_the_untrained_twin_is_fresh_and_repeatable(tiny):
    """Same shape and tokenizer; other weights; one seed, one model."""
    lm = load_model(str(tiny("gpt-neo")))
    first, again, other = untrained_twin(lm, 0), untrained_twin(lm, 0), untrained_twin(lm, 1)
    assert first.fingerprint == again.fingerprint
    assert len({lm.fingerprint, first.fingerprint, other.fingerprint}) == 3
    assert first.tokenizer is lm.tokenizer
    assert first.tied_head == lm.tied_head
    assert {name: part.shape for name, part in first.model.named_parameters()} == {
        name: part.shape for name, part in lm.model.named_parameters()
    }
    assert "untrained, seed 0" in first.name


@needs_shared
@pytest.mark.parametrize(("folder", "width"), [(CHAT_3M, 128), (STORIES_3M, 192)])
def test_real_models(folder, width):
    """The two test beds load, with the shape that their description says."""
    lm = load_model(str(folder))
    assert (lm.hidden_size, lm.tied_head) == (width, True)


def test_make_model_is_lively(tmp_path):
    """The random models of these tests are not so tame that every form of the head would pass."""
    lm = load_model(str(make_model(tmp_path / "m", "phi", byte_tokenizer())))
    assert lm.head_bias is not None
    assert float(lm.head_bias.abs().max()) > 0.05


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_words(tiny):
    with pytest.raises(ModelError, match="'cuda' was asked for, but torch sees 0 GPUs"):
        load_model(str(tiny("llama")), device="cuda")


@pytest.mark.parametrize(("fitted", "loose", "taken"), [(1.0005, 1e-3, 1.0), (1.0005, 1e-4, 1.0005),
                                                       (0.2500001, 1e-3, 0.25), (1 + 5e-7, 0.0, 1.0)])  # fmt: skip
def test_a_fitted_factor_is_the_known_one_within_what_the_fit_can_tell(fitted, loose, taken):
    config = transformers.LlamaConfig()
    config.logits_scaling = 4.0
    assert _known_scale(config, fitted, loose) == taken
