"""Hub models without a hub: what is cached is read at once, and what is not is told at once."""

import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import peft
import pytest
import torch
import transformers
from huggingface_hub import constants

from prefdyn.errors import ModelError
from prefdyn.models import hub
from prefdyn.models.load import load_model
from tests.models.conftest import byte_tokenizer, edit_config, make_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A local hub cache of its own with somebody/model in it; its snapshot's folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "models--somebody--model"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    return make_model(place / "snapshots" / COMMIT, "llama", byte_tokenizer(chat=True))


@pytest.fixture
def silent(monkeypatch):
    """A hub that takes connections and never answers; how often it was called."""
    server = socket.create_server(("127.0.0.1", 0))
    called: list[Any] = []

    def accept() -> None:
        while True:
            try:
                called.append(server.accept())
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield called
    server.close()
    for connection, _ in called:
        connection.close()


@pytest.fixture
def adapter(cached, tmp_path):
    """A LoRA adapter that names the hub model as its base."""
    model = transformers.AutoModelForCausalLM.from_pretrained(cached)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    return with_base(tmp_path / "adapter", "somebody/model")


def with_base(folder: Path, name: str) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name}))
    return folder


_PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.mark.thorough
@_PEFT
def test_a_silent_hub_is_given_up_once_and_soon(silent, cached, adapter):
    """One connection per load, four seconds; a model from the cache, an adapter on it, and neither."""
    for name in ("somebody/model", str(adapter)):
        before = len(silent)
        started = time.monotonic()
        load_model(name)
        assert time.monotonic() - started < hub.SECONDS + 4
        assert len(silent) - before <= 1
    for name in ("nobody/nothing", str(with_base(adapter, "nobody/nothing"))):
        before = len(silent)
        started = time.monotonic()
        with pytest.raises(
            ModelError, match="hub model 'nobody/nothing' is not in the local hub cache and the hub can"
        ):
            load_model(name)
        assert time.monotonic() - started < hub.SECONDS + 2
        assert len(silent) - before <= 1
    assert constants.HF_HUB_OFFLINE is False


def test_names_that_are_looked_up_without_end(monkeypatch, cached):
    """A name lookup knows no limit of its own."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30))
    started = time.monotonic()
    assert hub.is_offline(0.5)
    assert time.monotonic() - started < 2


def test_a_hub_that_answers_is_used(monkeypatch):
    """Whatever it answers; and HF_HUB_OFFLINE asks nobody."""

    class Session:
        def head(self, url: str, **_: Any) -> str:
            assert url == constants.ENDPOINT
            return "404"

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    assert not hub.is_offline()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: pytest.fail("asked"))
    assert hub.is_offline()


def test_a_cached_hub_model_is_known_by_its_content(cached, monkeypatch):
    """As the same files in a folder are; and files that were changed under the same commit make another model."""
    monkeypatch.setattr(hub, "is_offline", lambda: True)
    lm = load_model("somebody/model")
    assert (lm.name, lm.revision) == ("somebody/model", COMMIT)
    assert lm.fingerprint == load_model(str(cached)).fingerprint
    assert load_model("somebody/model", revision=COMMIT).fingerprint == lm.fingerprint
    place = cached.parent.parent
    second = COMMIT.replace("0", "f")
    shutil.copytree(cached, place / "snapshots" / second)
    edit_config(place / "snapshots" / second, rms_norm_eps=0.5)
    (place / "refs" / "main").write_text(second)
    moved = load_model("somebody/model")
    assert (moved.revision, load_model("somebody/model", revision=COMMIT).fingerprint) == (second, lm.fingerprint)
    assert moved.fingerprint != lm.fingerprint
    (place / "refs" / "main").write_text(COMMIT)
    path = cached / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)
    assert load_model("somebody/model").fingerprint != lm.fingerprint
    with pytest.raises(ModelError, match="is not in the local hub cache and the hub cannot be reached"):
        load_model("somebody/model", revision="v9")


def test_a_hub_model_is_looked_at_as_well(cached, monkeypatch):
    """Its configuration, before anything is loaded; and a pickle that its index names."""
    monkeypatch.setattr(hub, "is_offline", lambda: True)
    edit_config(cached, attn_implementation="somebody/kernel")
    with pytest.raises(ModelError, match="'somebody/kernel' is code from the hub"):
        load_model("somebody/model")
    edit_config(cached, attn_implementation=None)
    load_model("somebody/model")
    (cached / "model.safetensors").unlink()
    torch.save({"x": torch.ones(1)}, cached / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (cached / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"asks for pytorch_model\.bin, which is pickled"):
        load_model("somebody/model")


def test_an_adapter_on_the_hub_is_asked_for_as_a_folder(cached, monkeypatch):
    """transformers would put it on its base unmerged, and the adapter be no part of the identity."""
    monkeypatch.setattr(hub, "is_offline", lambda: True)
    plain = transformers.AutoModelForCausalLM.from_pretrained

    def adapted(*args: Any, **options: Any) -> Any:
        model, info = cast("Any", plain)(*args, **options)
        model.peft_config = {"default": 1}
        return model, info

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", adapted)
    with pytest.raises(
        ModelError, match=r"is an adapter, .* `hf download somebody/model --local-dir DIR`, then give DIR"
    ):
        load_model("somebody/model")
