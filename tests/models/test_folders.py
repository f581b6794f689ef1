"""Folders that are broken or dangerous: one line that names the file, and nothing of them runs."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch
import transformers

from prefdyn.errors import ModelError
from prefdyn.models.load import load_model
from tests.models.conftest import byte_tokenizer, edit_config, make_model

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000
_PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of the tiny Llama to break."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "broken"))


@pytest.fixture
def adapter(tiny, tmp_path):
    """A LoRA adapter of the tiny Llama."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"))
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def refused(folder: Path, **options: Any) -> str:
    """What loading says, in one line."""
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "special_tokens_map.json",
                                  "tokenizer_config.json"])  # fmt: skip
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[1, 2]", "holds a list, not a JSON object"),
        ("null", "holds a NoneType, not a JSON object"),
        (DEEP, "cannot be read as JSON"),
        (f'{{"hidden_size": {LONG}}}', "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
    ],
)
def test_settings_that_are_no_json_object(broken, name, content, says):
    """Cut off, empty, a list, nested too deep, numbers of 5,000 digits, no UTF-8."""
    (broken / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    said = refused(broken)
    assert says in said
    assert str(broken / name) in said


def test_settings_that_are_no_file(broken, monkeypatch):
    """A pipe would be waited for without end; a huge file would be read whole."""
    path = broken / "generation_config.json"
    path.unlink()
    os.mkfifo(path)
    assert f"{path} cannot be read as JSON (not a file)" in refused(broken)
    path.unlink()
    path.write_text("{}")
    load_model(str(broken))
    monkeypatch.setattr("prefdyn.models.folders._JSON_BYTES", 1)
    assert "bytes are too many for settings" in refused(broken)


@pytest.mark.parametrize("value", ["wide", -3, 3.5, None, [32], {"a": 1}, 10**400, 10**12, True, 0])
def test_a_hidden_size_of_another_kind(broken, value):
    """Whatever the library makes of it."""
    edit_config(broken, hidden_size=value)
    assert str(broken) in refused(broken) or "lacks" in refused(broken)


@pytest.mark.parametrize("value", ["../x.safetensors", "below/x.safetensors", 5, ["x"]])
def test_weights_that_the_configuration_names_elsewhere(broken, value):
    """They would not be part of the model's identity. Beside it they are."""
    edit_config(broken, transformers_weights="model.safetensors")
    load_model(str(broken))
    edit_config(broken, transformers_weights=value)
    assert "is no file beside it" in refused(broken)


@pytest.mark.parametrize("value", [10**6, 10**3000])
def test_layers_without_end(broken, value):
    """They would be built, one after the other, for hours."""
    edit_config(broken, num_hidden_layers=value)
    assert "more than 10000 layers" in refused(broken)


@pytest.mark.parametrize("value", [5, True, ["x"], {"a": "b"}, [{"name": "default"}]])
def test_a_chat_template_of_another_kind(broken, value):
    """Named with its file; a text, or a list of named ones, loads."""
    for name in ("chat_template.jinja",):
        (broken / name).unlink(missing_ok=True)
    edit(broken / "tokenizer_config.json", chat_template=value)
    said = refused(broken)
    assert str(broken / "tokenizer_config.json") in said
    assert "chat_template is a" in said
    for good in ("{{ messages[0]['content'] }}", [{"name": "default", "template": "x"}], None):
        edit(broken / "tokenizer_config.json", chat_template=good)
        load_model(str(broken))


BAD_PIECES = '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["x", "y"]]}}'


@pytest.mark.parametrize("content", ["{", "[]", "null", DEEP, '{"version": "1.0"}', "\x00" * 100, BAD_PIECES])
def test_a_broken_tokenizer(broken, content):
    (broken / "tokenizer.json").write_text(content)
    assert f"the tokenizer in {broken} cannot be read" in refused(broken)


# weights -------------------------------------------------------------------------------------------------------------


def test_weights_that_are_cut_off_or_no_weights(broken):
    """A half-downloaded file, an empty one, noise, a header that promises more than there is."""
    path = broken / "model.safetensors"
    raw = path.read_bytes()
    header = int.from_bytes(raw[:8], "little")
    for wrong in (
        raw[:-1000], raw[:100], b"", b"\xff" * 200, raw[:8] + b"[" * header + raw[8 + header :],
        (1 << 62).to_bytes(8, "little") + raw[8:],
    ):  # fmt: skip
        path.write_bytes(wrong)
        assert f"{path} is not a whole safetensors file" in refused(broken)
    path.write_bytes(raw)
    load_model(str(broken))


class Evil:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def sharded(folder: Path, name: str) -> Path:
    """The weights under another name, and an index that names it."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}))
    return index


def test_an_index_that_names_a_pickle_is_refused_by_name(broken, tmp_path):
    """Before torch sees it. A sound index loads."""
    index = sharded(broken, "model-00001-of-00001.safetensors")
    load_model(str(broken))
    for name in ("pytorch_model.bin", "weights.pt", "x.safetensors.bin"):
        (broken / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
        edit(index, weight_map={"lm_head.weight": name})
        assert f"{index} names {name!r}, which is no safetensors file" in refused(broken)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"a": "missing.safetensors"}, "which is missing; copy the whole folder"),
        ({"a": "../model.safetensors"}, "which is not right beside it"),
        ({"a": "/model.safetensors"}, "which is not right beside it"),
        ({"a": "below/model.safetensors"}, "which is not right beside it"),
        ({"a": 5}, "has no weight_map"),
        (["a"], "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_an_index_that_cannot_be_followed(broken, parts, says):
    index = sharded(broken, "model-00001-of-00001.safetensors")
    edit(index, weight_map=parts)
    said = refused(broken)
    assert says in said
    assert str(index) in said


def test_no_pickle_is_loaded_whatever_the_files_ask_for(broken, tmp_path, monkeypatch):
    """With every check of ours on the folder gone, the loader itself is stopped; and torch.load is as before."""
    torch.save({"x": torch.ones(1)}, broken / "pytorch_model.bin")
    index = sharded(broken, "pytorch_model.bin")
    monkeypatch.setattr("prefdyn.models.source.refuse_unreadable", lambda *_, **__: None)
    plain = torch.load
    assert index.exists()
    assert "asks for pytorch_model.bin, which is pickled and can run code" in refused(broken)
    assert torch.load is plain


@_PEFT
def test_pickles_beside_safetensors_are_left_alone(broken, tmp_path, adapter):
    """They are not what is read."""
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "vocab.pkl"):
        for folder in (broken, adapter):
            (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    load_model(str(broken))
    load_model(str(adapter))
    assert not (tmp_path / "ran").exists()
    pickle.loads((broken / "vocab.pkl").read_bytes())
    assert (tmp_path / "ran").exists()


# adapters ------------------------------------------------------------------------------------------------------------


@_PEFT
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": 5}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "x" * 5000}, "cannot be looked at"),
        ({"base_model_name_or_path": "a/b/\x00"}, "does not exist"),
        ({"peft_type": "TELEPATHY"}, "adapters of the type 'TELEPATHY' cannot be merged into a model; known: LORA"),
        ({"peft_type": "PROMPT_TUNING"}, "adapters of the type 'PROMPT_TUNING' cannot be merged"),
        ({"peft_type": None}, "adapters of the type None cannot be merged"),
        ({"peft_type": ["LORA"]}, "cannot be merged"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "asks for Megatron's own code"),
        ({"r": "two"}, "cannot be put on its base model"),
        ({"r": -1}, "cannot be put on its base model"),
        ({"target_modules": 5}, "cannot be put on its base model"),
        ({"target_modules": ["nowhere"]}, "cannot be put on its base model"),
    ],
)
def test_broken_adapter_settings(adapter, values, says):
    load_model(str(adapter))
    edit(adapter / "adapter_config.json", **values)
    assert says in refused(adapter)


@_PEFT
def test_broken_adapter_files(adapter):
    """No object, no weights, half the weights."""
    path = adapter / "adapter_config.json"
    raw = path.read_bytes()
    for wrong, says in ((b"{", "cannot be read as JSON"), (b"[]", "holds a list"), (DEEP.encode(), "as JSON")):
        path.write_bytes(wrong)
        assert says in refused(adapter)
        assert str(path) in refused(adapter)
    path.write_bytes(raw)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert f"{weights} is not a whole safetensors file" in refused(adapter)
    weights.rename(adapter / "adapter_model.bin")
    assert "holds no adapter_model.safetensors" in refused(adapter)


@_PEFT
def test_an_adapter_that_is_its_own_base(adapter, tmp_path):
    """Directly, by way of another, or by a link; two adapters one on the other are no circle."""
    second = Path(shutil.copytree(adapter, tmp_path / "second"))
    edit(second / "adapter_config.json", base_model_name_or_path=str(adapter))
    load_model(str(second))
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(second))
    assert "is its own base (adapter → second → adapter)" in refused(adapter)
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(adapter))
    assert "is its own base (adapter → adapter)" in refused(adapter)
    (tmp_path / "link").symlink_to(adapter)
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(tmp_path / "link"))
    assert "is its own base (adapter → adapter)" in refused(adapter)


# code ----------------------------------------------------------------------------------------------------------------

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from .helper import VALUE
Path({mark!r}).touch()
class C(LlamaConfig):
    model_type = "strange"
class M(LlamaForCausalLM):
    config_class = C
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = VALUE * out.logits
        return out
class T(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def coded(tmp_path, monkeypatch):
    """A model that ships its own code, in two files, and the file that tells that it ran."""
    folder, mark = make_model(tmp_path / "coded", "llama", byte_tokenizer()), tmp_path / "ran"
    (folder / "strange.py").write_text(CODE.format(mark=str(mark)))
    (folder / "helper.py").write_text("VALUE = 2.0\n")
    edit_config(folder, model_type="strange", auto_map={"AutoConfig": "strange.C", "AutoModelForCausalLM": "strange.M"})
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    return folder, mark


def test_code_runs_only_when_asked(coded, monkeypatch):
    """Of a model; and nobody is asked on stdin."""
    folder, mark = coded
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    assert "ships Python code of its own; read it, then add trust_remote_code=True" in refused(folder)
    assert not mark.exists()
    assert load_model(str(folder), trust_remote_code=True).head_scale == pytest.approx(2.0)
    assert mark.exists()


@_PEFT
def test_code_of_an_adapters_tokenizer_runs_only_when_asked(coded, adapter, monkeypatch):
    """The adapter's own tokenizer, as its base's."""
    folder, mark = coded
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    byte_tokenizer().save_pretrained(adapter)
    for name in ("strange.py", "helper.py"):
        shutil.copy(folder / name, adapter / name)
    before = load_model(str(adapter)).fingerprint
    auto = {"AutoTokenizer": [None, "strange.T"]}
    edit(adapter / "tokenizer_config.json", tokenizer_class="T", auto_map=auto)
    assert "ships Python code of its own" in refused(adapter)
    assert not mark.exists()
    lm = load_model(str(adapter), trust_remote_code=True)
    assert mark.exists()
    assert type(lm.tokenizer).__module__.startswith("transformers_modules")
    assert lm.fingerprint != before


def test_kernels_from_the_hub_run_only_when_asked(broken):
    """A configuration can name an attention that is downloaded and run."""
    edit_config(broken, attn_implementation="somebody/kernel")
    said = refused(broken)
    assert "attn_implementation = 'somebody/kernel' is code from the hub" in said
    assert str(broken / "config.json") in said


def test_the_fingerprint_covers_code(coded):
    """The file that is named, the one that it imports, and any other; each in the same process, and back again."""
    folder, _ = coded

    def read() -> tuple[str, float]:
        lm = load_model(str(folder), trust_remote_code=True)
        return lm.fingerprint, lm.head_scale

    first, scale = read()
    assert read() == (first, scale)
    helper = folder / "helper.py"
    state = helper.stat()
    helper.write_text("VALUE = 3.0\n")
    os.utime(helper, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert helper.stat().st_size == state.st_size
    second, scale = read()
    assert scale == pytest.approx(3.0)
    (folder / "strange.py").write_text((folder / "strange.py").read_text().replace("VALUE *", "2 * VALUE *"))
    third, scale = read()
    assert scale == pytest.approx(6.0)
    (folder / "table.bin").write_text("x")
    fourth, _ = read()
    assert len({first, second, third, fourth}) == 4
