"""The identity of a model: every change of what is read is noticed, and nothing that was remembered outlives one."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from prefdyn.errors import ModelError
from prefdyn.models import identity, source
from prefdyn.models.identity import FileState, Memory
from prefdyn.models.load import load_model
from tests.models.conftest import byte_tokenizer


@pytest.fixture
def copied(tiny, tmp_path):
    """A copy of the tiny Llama to change."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "copy"))


@pytest.fixture
def remembering(monkeypatch):
    """Every file counts as large and as left alone for long; the list of what was hashed."""
    hashed: list[str] = []
    plain = identity.file_sha256
    monkeypatch.setattr(identity, "file_sha256", lambda path: (hashed.append(path.name), plain(path))[1])
    monkeypatch.setattr(identity, "_SMALL", 1)
    monkeypatch.setattr(identity, "_SETTLED", -1e9)
    return hashed


def swap(path: Path, *, by_rename: bool) -> None:
    """Other content of the same size under the same times, as far as these can be set."""
    state = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-4:] = np.float32(7.0).tobytes()
    target = path.with_name("other") if by_rename else path
    target.write_bytes(raw)
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
    target.rename(path)
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (state.st_size, state.st_mtime_ns)


@pytest.mark.parametrize("by_rename", [True, False])
def test_weights_swapped_under_equal_size_and_time_are_noticed(copied, remembering, by_rename):
    """Written in place, or another file put there; and what was not swapped is hashed once."""
    weights = copied / "model.safetensors"
    first = load_model(str(copied)).fingerprint
    assert "model.safetensors" in remembering
    remembering.clear()
    assert load_model(str(copied)).fingerprint == first
    assert remembering == []
    swap(weights, by_rename=by_rename)
    assert load_model(str(copied)).fingerprint != first
    assert remembering == ["model.safetensors"]


def test_a_copied_memory_of_another_place_says_nothing(copied, tmp_path, remembering):
    """A file of the same name, size and time elsewhere, and the same path after its folder was put there anew."""
    first = load_model(str(copied)).fingerprint
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    swap(other / "model.safetensors", by_rename=False)
    assert load_model(str(other)).fingerprint != first
    copied.rename(tmp_path / "away")
    other.rename(copied)
    assert load_model(str(copied)).fingerprint != first


def test_a_file_that_was_just_written_is_not_remembered(copied, remembering, monkeypatch):
    """Its time may not show a second change within the same tick of the clock."""
    monkeypatch.setattr(identity, "_SETTLED", 3600)
    load_model(str(copied))
    remembering.clear()
    load_model(str(copied))
    assert "model.safetensors" in remembering


def test_nothing_remembered_is_believed_under_verify(copied, remembering, monkeypatch):
    """PREFDYN_VERIFY=1; 0 is as if it were not there."""
    monkeypatch.setenv("PREFDYN_VERIFY", "1")
    load_model(str(copied))
    remembering.clear()
    load_model(str(copied))
    assert "model.safetensors" in remembering
    monkeypatch.setenv("PREFDYN_VERIFY", "0")
    load_model(str(copied))
    remembering.clear()
    load_model(str(copied))
    assert remembering == []


def test_a_memory_that_was_edited_or_lost_is_not_believed(copied, own_cache, remembering):
    """It costs time only; nor one that cannot be written."""
    first = load_model(str(copied)).fingerprint
    path = own_cache / "fingerprints.json"
    raw = path.read_text()
    known = json.loads(raw)["known"]
    weights = str((copied / "model.safetensors").resolve())
    assert len(known[weights][-1]) == 64
    forged = raw.replace(known[weights][-1], "f" * 64)
    assert forged != raw
    for wrong in (forged, "{", "[]", "", "null", raw[:-20], "{}"):
        path.write_text(wrong)
        assert load_model(str(copied)).fingerprint == first
        assert path.read_text() == raw
    path.unlink()
    path.mkdir()
    assert load_model(str(copied)).fingerprint == first


def test_files_that_are_gone_are_forgotten(copied, own_cache, remembering, tiny):
    load_model(str(copied))
    shutil.rmtree(copied)
    load_model(str(tiny("gpt2")))
    known = json.loads((own_cache / "fingerprints.json").read_text())["known"]
    assert known
    assert not any("copy" in Path(path).parts for path in known)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "vocab.txt", "merges.txt", "config.json",
                                  "additional_chat_templates/x.jinja"])  # fmt: skip
def test_every_file_that_is_read_counts(copied, name):
    """And a note beside them does not."""
    (copied / "additional_chat_templates").mkdir()
    byte_tokenizer(chat=True).save_pretrained(copied)
    first = load_model(str(copied)).fingerprint
    for other in ("notes.txt", "README.md", "generation_config.json", "strange.py"):
        (copied / other).write_text("{}")
        assert load_model(str(copied)).fingerprint == first
    path = copied / name
    path.write_text((path.read_text() if path.exists() else "x") + " ")
    assert load_model(str(copied)).fingerprint != first


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "new.json"])
def test_what_changes_while_it_is_loaded_is_refused(copied, monkeypatch, name):
    """Else the weights of one file would be kept under the name of another. A control goes through."""
    plain = transformers.AutoTokenizer.from_pretrained

    def meanwhile(*args, **kwargs):
        found = plain(*args, **kwargs)
        path = copied / name
        path.write_bytes(path.read_bytes() if path.exists() else b"{}")
        return found

    load_model(str(copied))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", meanwhile)
    with pytest.raises(ModelError, match=rf"{name} was changed while the model was being loaded; load it again"):
        load_model(str(copied))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "model.safetensors"])
def test_a_file_that_goes_while_it_is_loaded(copied, monkeypatch, name):
    """Taken away after it was read."""
    plain = transformers.AutoTokenizer.from_pretrained

    def meanwhile(*args, **kwargs):
        found = plain(*args, **kwargs)
        (copied / name).unlink()
        return found

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", meanwhile)
    with pytest.raises(ModelError, match=rf"{name} was changed while the model was being loaded"):
        load_model(str(copied))


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt2", "gpt-neo"])
def test_weights_are_in_memory_once_loaded(tiny, tmp_path, monkeypatch, kind, maps):
    """A file that is written over later, in place, or cut, does not change the model under the work; ties hold."""
    copied = Path(shutil.copytree(tiny(kind), tmp_path / "copy"))
    if not maps:
        monkeypatch.setattr(source, "_mapped_files", lambda: None)
    lm = load_model(str(copied))
    assert lm.tied_head == (kind not in ("llama",))
    before = {name: part.clone() for name, part in lm.model.named_parameters()}
    path = copied / "model.safetensors"
    with path.open("r+b") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        file.seek(header)
        file.write(b"\1" * (path.stat().st_size - header))
    assert all(torch.equal(part, before[name]) for name, part in lm.model.named_parameters())
    os.truncate(path, 0)
    assert all(torch.equal(part, before[name]) for name, part in lm.model.named_parameters())


def test_weights_are_pages_of_their_file_without_us(copied, monkeypatch):
    """Why they are put into memory."""
    monkeypatch.setattr(source, "_mapped_files", list)
    lm = load_model(str(copied))
    before = {name: part.clone() for name, part in lm.model.named_parameters()}
    path = copied / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(b"\1" * 4000)
    assert not all(torch.equal(part, before[name]) for name, part in lm.model.named_parameters())


def test_the_memory_keeps_what_a_change_between_two_looks_would_hide(tmp_path, monkeypatch, own_cache):
    """A file that changes while it is hashed is not remembered."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    monkeypatch.setattr(identity, "_SMALL", 1)
    monkeypatch.setattr(identity, "_SETTLED", -1e9)
    plain = identity.file_sha256

    def meanwhile(file):
        found = plain(file)
        os.utime(file)
        return found

    monkeypatch.setattr(identity, "file_sha256", meanwhile)
    memory = Memory.open()
    memory.sha256([path])
    assert memory.known == {}
    monkeypatch.setattr(identity, "file_sha256", plain)
    memory.sha256([path])
    assert list(memory.known) == [str(path.resolve())]


def test_a_state_is_settled_only_where_times_of_change_are_kept(tmp_path, monkeypatch):
    """On Windows the second time is that of making the file: large files are hashed each time."""
    (tmp_path / "x").write_text("x")
    os.utime(tmp_path / "x", (0, 0))
    state = FileState.of(tmp_path / "x")
    assert not state.is_settled()  # its content is old, but something about it has just changed
    old = FileState(1, 0, 0, 1, 1)
    assert old.is_settled()
    monkeypatch.setattr("prefdyn.models.identity.os.name", "nt")
    assert not old.is_settled()
