"""What is kept of a reading is believed only where it belongs: nothing by its name alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prefdyn import store
from prefdyn.errors import StoreError
from prefdyn.models import responses, shards
from prefdyn.models.extract import extract
from prefdyn.models.forward import Reader
from prefdyn.models.load import load_model
from tests.models.conftest import yes_no
from tests.models.test_responses import texts


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "_SHARD", {"cpu": (100, 100), "cuda": (100, 100)})


def equal_pair(paths: list[Path]) -> tuple[Path, Path]:
    """Two shards of as many rows each."""
    rows = {path: {name: len(part) for name, part in store.safetensors.numpy.load_file(path).items()} for path in paths}
    return next((one, two) for one in paths for two in paths if one < two and rows[one] == rows[two])


@pytest.mark.parametrize("what", ["states", "responses"])
def test_a_shard_under_another_shards_name_is_noticed_and_mended(tiny, own_cache, small_shards, what):
    """Whole, sound, and of as many rows; of the same reading, or of another."""
    lm = load_model(str(tiny("llama")))

    def read(seed: int = 0) -> Any:
        data = yes_no(60 + seed) if what == "states" else texts(22 + seed)
        return extract(data, lm) if what == "states" else extract(data, lm, sketch=32)

    first: Any = read()
    kept = sorted(own_cache.glob(f"{what}/*/shard-*"))
    one, two = equal_pair(kept)
    raw = two.read_bytes()
    shutil.copy(one, two)
    with pytest.warns(
        RuntimeWarning, match=f"{two.name} is damaged: .* written with for this place; .* computed again"
    ):
        again = read()
    assert again.states.tobytes() == first.states.tobytes()
    assert two.read_bytes() == raw
    folder = one.parent
    read(1)
    other = next(path for path in own_cache.glob(f"{what}/*") if path != folder)
    shutil.copy(other / one.name, one)
    with pytest.warns(RuntimeWarning, match=f"{one.name} is damaged"):
        again = read()
    assert again.states.tobytes() == first.states.tobytes()


def test_a_file_of_another_place_is_not_unpacked(tmp_path):
    """And one of this place is."""
    raw = store.pack({"a": store.np.arange(3)}, place="key 1")
    assert list(store.unpack(raw, name="x", place="key 1")) == ["a"]
    for place in ("", "key 2", "key 11", "other 1"):
        with pytest.raises(StoreError, match="x is damaged: its bytes do not have the sha256 they were written with"):
            store.unpack(raw, name="x", place=place)


def test_an_edited_plan_is_made_again(tiny, own_cache, monkeypatch):
    """Though what it says could be; a sound one is believed."""
    lm = load_model(str(tiny("llama")))
    first = extract(yes_no(30), lm)
    path = next(own_cache.glob("states/*/plan.json"))
    raw = path.read_text()
    assert json.loads(raw)["prefix"] > 2
    made: list[int] = []
    plain = Reader.share_prefix
    monkeypatch.setattr(Reader, "share_prefix", lambda self, items: (made.append(1), plain(self, items))[1])
    extract(yes_no(30), lm)
    assert not made
    edited = json.loads(raw) | {"prefix": 2}
    extract(yes_no(31), lm)
    strange = next(found for found in own_cache.glob("states/*/plan.json") if found != path)
    for wrong in (json.dumps(edited), json.dumps(edited, indent=1, sort_keys=True) + "\n", strange.read_text()):
        made.clear()
        path.write_text(wrong)
        again = extract(yes_no(30), lm)
        assert made
        assert again.states.tobytes() == first.states.tobytes()
        assert path.read_text() == raw


def test_an_edited_sketch_error_is_measured_again(tiny, own_cache, monkeypatch):
    """Or that of another sketch; a sound one is believed."""
    lm = load_model(str(tiny("llama")))

    def error(sketch: int = 32) -> Any:
        return extract(texts(), lm, sketch=sketch).provenance.settings["sketch_error"]

    first = error()
    (path,) = own_cache.rglob("sketch-errors/*.json")
    raw = path.read_text()
    other = error(48)
    assert other != first
    strange = next(found for found in own_cache.rglob("sketch-errors/*.json") if found != path)
    measured: list[int] = []
    plain = responses.sketch_error
    monkeypatch.setattr(responses, "sketch_error", lambda *a, **k: (measured.append(1), plain(*a, **k))[1])
    assert error() == first
    assert not measured
    for wrong in (raw.replace('"rms": 0', '"rms": 1'), strange.read_text(), "{", "[]"):
        measured.clear()
        path.write_text(wrong)
        assert error() == first
        assert measured
        assert path.read_text() == raw
