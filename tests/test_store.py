"""The store: what is written comes back to the byte; what was changed, cut or never finished is not believed."""

import dataclasses
import hashlib
import json
import os
import re
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from prefdyn import _files, store
from prefdyn._cache import cache_root
from prefdyn.data.pairs import LeftOut, PreferenceDataset
from prefdyn.errors import StoreError
from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance
from prefdyn.trajectory import Trajectory


def features(n=12, *, responses=False):
    """Some features with every optional field, and names that are hard on files."""
    rng = np.random.default_rng(0)
    common = {
        "group": ["../../x", "<script>", "ä b"] * (n // 3),
        "id": [f"päir/{at}" for at in range(n)],
        "held_out": np.arange(n) % 4 == 0,
        "ref_chosen_logps": -rng.random(n),
        "ref_rejected_logps": -rng.random(n),
        "provenance": Provenance(model={"name": "m"}, settings={"left_out": [{"id": "q", "reason": "long"}]}, seed=3),
    }
    if responses:
        first, second = rng.normal(size=(2, n, 6))
        states = rng.normal(size=(n, 4))
        return FeatureSet.from_arrays(states, chosen_features=first, rejected_features=second, **common)
    return FeatureSet.from_arrays(
        rng.normal(size=(n, 4)),
        chosen=[" Yes", " No"] * (n // 2),
        rejected=[" No", " Yes"] * (n // 2),
        tokens=[" Yes", " No"],
        token_ids=[5, 7],
        head=rng.normal(size=(2, 4)),
        head_bias=rng.normal(size=2),
        **common,
    )


def trajectory():
    """A run with a null, per-pair margins and changes."""
    same = {"run": "joint", "group": "g", "split": "train", "pairs": 3}
    rows = [{**same, "step": step, "time": step * 0.5, "loss": 0.7 - step / 10} for step in range(3)]
    return Trajectory.from_rows(
        rows,
        settings={"beta": 0.1, "steps": 2},
        margins={0: np.zeros(3), 2: np.ones(3)},
        chosen_changes={2: np.full(3, -1.0)},
        joint_head=np.arange(4.0).reshape(1, 4),
        alone_heads={"a/b": np.ones((1, 4)), "g": np.zeros((1, 4))},
    )


def flips(path, count=25):
    """The file's content with one bit flipped, at places spread over the file, the last byte included."""
    raw = path.read_bytes()
    for at in np.unique(np.linspace(0, len(raw) - 1, count).astype(int)):
        yield raw[:at] + bytes([raw[at] ^ (1 << int(at) % 7)]) + raw[at + 1 :]


# nouns ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("responses", [False, True])
def test_features_come_back(tmp_path, responses):
    """Every array to the byte with its type, every name, the provenance; as views of the file, read-only."""
    feats = features(responses=responses)
    back = store.load_features(store.save_features(feats, tmp_path / "f"))
    for name in FeatureSet.__dataclass_fields__:
        one, two = getattr(feats, name), getattr(back, name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (two.dtype, two.shape), name
            np.testing.assert_array_equal(one, two)
            assert not two.flags.writeable
        else:
            assert one == two, name
    base = back.states
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_equal_features_are_equal_bytes(tmp_path):
    """Saved twice."""
    one, two = (store.save_features(features(), tmp_path / name) for name in "ab")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }


def test_trajectories_come_back(tmp_path):
    """Table, settings, provenance, per-pair values by step and heads by group."""
    run = trajectory()
    back = store.load_trajectory(store.save_trajectory(run, tmp_path / "t"))
    assert back.table == run.table
    assert (back.settings, back.provenance) == (run.settings, run.provenance)
    for name in ("margins", "chosen_changes"):
        one, two = getattr(run, name), getattr(back, name)
        assert list(one) == list(two)
        assert all((one[step] == two[step]).all() for step in one)
    np.testing.assert_array_equal(back.joint_head, run.joint_head)
    assert set(back.alone_heads) == set(run.alone_heads)
    assert all((back.alone_heads[name] == head).all() for name, head in run.alone_heads.items())
    plain = store.load_trajectory(store.save_trajectory(Trajectory.from_rows(run.rows(), settings={}), tmp_path / "p"))
    assert (plain.margins, plain.joint_head, plain.alone_heads) == ({}, None, {})


def test_datasets_come_back(tmp_path):
    """Texts, conversations, and what was left out; None where there is none."""
    turn = [{"role": "user", "content": "hé"}]
    row = {
        "prompt": "p",
        "chosen": " a",
        "rejected": " b",
        "conversation": {"prompt": turn, "chosen": turn, "rejected": turn},
    }
    data = PreferenceDataset(
        table=PreferenceDataset.from_rows([row, {"prompt": "q\n", "chosen": "c", "rejected": "d"}], name="d").table,
        name="d",
        left_out=(LeftOut(source="f", line=3, field="chosen", reason="empty"),),
    )
    assert store.load_dataset_beside(tmp_path) is None
    back = store.load_dataset_beside(store.save_dataset(data, tmp_path))
    assert back is not None
    assert (back.table, back.name, back.left_out, back.sha256) == (data.table, "d", data.left_out, data.sha256)


@pytest.mark.parametrize(
    ("save", "load", "noun"),
    [
        (store.save_features, store.load_features, features),
        (store.save_trajectory, store.load_trajectory, trajectory),
        (
            store.save_dataset,
            store.load_dataset_beside,
            lambda: PreferenceDataset.from_rows([{"prompt": "p", "chosen": "a", "rejected": "b"}]),
        ),
    ],
)
def test_a_flipped_bit_anywhere_is_noticed(tmp_path, save, load, noun):
    """In any file, at any place: the error names the file and what to do."""
    folder = save(noun(), tmp_path / "n")
    assert len(list(folder.iterdir())) >= 2
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        for changed in flips(path):
            path.write_bytes(changed)
            with pytest.raises(StoreError, match=rf"{path.name} is damaged: .*sha256.*; (write|run) .* again") as info:
                load(folder)
            assert str(path) in str(info.value)
        path.write_bytes(raw)
    load(folder)


def test_an_unfinished_folder_is_not_believed(tmp_path):
    """Without the manifest, which is written last, nothing is; nor without a file that it names."""
    folder = store.save_features(features(), tmp_path / "f")
    manifest = (folder / "features.json").read_bytes()
    (folder / "features.json").unlink()
    with pytest.raises(StoreError, match=r"holds no features\.json \(it is missing, or was never finished\)"):
        store.load_features(folder)
    (folder / "features.json").write_bytes(manifest)
    (folder / "features.safetensors").unlink()
    with pytest.raises(StoreError, match=r"features\.safetensors is missing; write the features again"):
        store.load_features(folder)
    with pytest.raises(StoreError, match="is no folder"):
        store.load_features(tmp_path / "nowhere")


def test_saving_again_never_leaves_old_and_new_mixed(tmp_path, monkeypatch):
    """A save that fails half-way leaves a folder that is refused, not one that is half old."""
    folder = store.save_features(features(), tmp_path / "f")

    def fails(path, table):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_write_table", fails)
    with pytest.raises(KeyboardInterrupt):
        store.save_features(features(6), folder)
    with pytest.raises(StoreError, match="never finished"):
        store.load_features(folder)


def test_another_schema_or_kind_is_refused(tmp_path, monkeypatch):
    """A newer layout, and a trajectory renamed to features."""
    folder = store.save_trajectory(trajectory(), tmp_path / "t")
    (folder / "trajectory.json").rename(folder / "features.json")
    with pytest.raises(StoreError, match="is a trajectory file of schema 1, but this version reads features files"):
        store.load_features(folder)
    monkeypatch.setattr(store, "SCHEMA", 2)
    newer = store.save_features(features(), tmp_path / "f")
    monkeypatch.setattr(store, "SCHEMA", 1)
    with pytest.raises(StoreError, match="of schema 2, but this version reads features files of schema 1"):
        store.load_features(newer)


def test_manifests_that_are_no_manifests(tmp_path):
    """Other JSON under the name."""
    for text in ("[]", "{}", '"x"', "", "\xff"):
        (tmp_path / "features.json").write_text(text, encoding="latin-1")
        with pytest.raises(StoreError, match=r"features\.json is damaged"):
            store.load_features(tmp_path)


# what was signed again and cannot be ---------------------------------------------------------------------------------


def resigned(folder, change):
    """Every checksum recomputed, after a change to the manifest's content or to the files beside it."""
    path = next(folder.glob("*.json"))
    body = json.loads(path.read_bytes())
    del body["sha256"]
    change(body, folder)
    body["files"] = {name: store.file_sha256(folder / name) for name in body["files"]} if "files" in body else {}
    body["sha256"] = hashlib.sha256(store._canonical(body)).hexdigest()
    path.write_bytes(store._canonical(body))
    return folder


def refused(load, folder, *says):
    with pytest.raises(StoreError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(folder), *says):
        assert part in message, message
    assert re.search(r"; (write the features again|run the command that made it again)", message), message


def places(held, at=()):
    """Every key and item inside, as a path."""
    inner = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for key, value in inner:
        yield (*at, key)
        yield from places(value, (*at, key))


def with_place(body, path, change):
    for key in path[:-1]:
        body = body[key]
    change(body, path[-1])


def dataset():
    data = PreferenceDataset.from_rows([{"prompt": "p", "chosen": "a", "rejected": "b"}])
    return dataclasses.replace(data, left_out=(LeftOut(source="f", line=3, field=None, reason="empty"),))


NOUNS = {
    "features": (store.save_features, store.load_features, features),
    "responses": (store.save_features, store.load_features, lambda: features(responses=True)),
    "trajectory": (store.save_trajectory, store.load_trajectory, trajectory),
    "dataset": (store.save_dataset, store.load_dataset_beside, dataset),
}
FREE = {"settings", "data", "model"}
"""Parts of a manifest that hold whatever the step that made them wrote."""


@pytest.mark.parametrize("noun", NOUNS)
def test_a_manifest_signed_again_without_a_part_or_with_another_type_is_refused(tmp_path, noun):
    """At every place that has a shape; and what was signed again unchanged is believed."""
    save, load, make = NOUNS[noun]
    folder = save(make(), tmp_path / "n")
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    load(resigned(folder, lambda body, _: None))
    body = json.loads(next(folder.glob("*.json")).read_bytes())
    tried = 0
    for path in places(
        {name: part for name, part in body.items() if name not in {"sha256", "schema", "kind", "files"}}
    ):
        if FREE & {str(key) for key in path[:-1]}:
            continue
        changes = [lambda held, key: held.__setitem__(key, 5.5), lambda held, key: held.__setitem__(key, {"x": []})]
        if not isinstance(path[-1], int):
            changes.append(lambda held, key: held.__delitem__(key))
        for change in changes[1 if path[-1] in FREE else 0 :]:
            for name, raw in kept.items():
                (folder / name).write_bytes(raw)
            resigned(folder, lambda body, _, path=path, change=change: with_place(body, path, change))
            if path[-1] in FREE and change is changes[1]:
                load(folder)
            else:
                refused(load, folder, ".json: ")
                tried += 1
    assert tried >= 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body, _: body.pop("files"), "files.features.safetensors is missing"),
        (lambda body, _: body.pop("kind"), "kind is missing"),
        (lambda body, _: body.update(schema="1"), "schema is text ('1'), but must be a whole number"),
        (lambda body, folder: outside(body, folder), "names '../mine', which is no file beside or below it"),
        (lambda body, _: body["features"].update(kind="both"), "the kind is 'both', but must be answers or responses"),
        (lambda body, _: body["features"].update(token_ids=[5]), "there are 1 token_ids for 2 tokens"),
        (lambda body, _: body["features"].update(groups=["a"]), "the array 'group' names what there is not"),
        (lambda body, _: body["features"].update(groups=["a", "a", "b"]), "3 groups have 2 different names"),
        (lambda body, _: body["features"].update(tokens=["a", "b", "c"]), "(k d; k = 3"),
        (lambda _, folder: arrays(folder, states=None), "the array 'states' is missing"),
        (lambda _, folder: arrays(folder, chosen=None), "the array 'chosen' is missing"),
        (lambda _, folder: arrays(folder, extra=np.ones(3)), "the array 'extra' is none of those that features of"),
        (lambda _, folder: arrays(folder, chosen_features=np.ones((12, 3))), "'chosen_features' is none of those"),
        (lambda _, folder: arrays(folder, states=np.ones((11, 4))), "'states' has the shape (11, 4) of float64"),
        (lambda _, folder: arrays(folder, states=np.ones(12)), "must have the axes (n d; n = 12) of floating-point"),
        (lambda _, folder: arrays(folder, group=np.ones(12)), "'group' has the shape (12,) of float64"),
        (lambda _, folder: arrays(folder, held_out=np.ones(12, np.int32)), "of true or false"),
        (lambda _, folder: arrays(folder, head=np.ones((2, 5))), "'head' has the shape (2, 5)"),
        (lambda _, folder: arrays(folder, weight=np.zeros(12)), "'weight' holds a number that is not above 0"),
        (lambda _, folder: arrays(folder, weight=np.full(12, np.nan)), "'weight' holds NaN or infinity"),
        (lambda _, folder: arrays(folder, chosen=np.full(12, 2)), "'chosen' names what there is not"),
        (lambda _, folder: arrays(folder, **dict.fromkeys(SIDES, np.zeros(12, int))), "a pair has one answer as"),
        (lambda _, folder: arrays(folder, chosen_length=np.zeros(12, int)), "'chosen_length' holds a number below 1"),
        (lambda _, folder: ids(folder, [str(at) for at in range(11)]), "n = 11"),
        (lambda _, folder: ids(folder, ["x"] * 12), "12 pairs have 1 different ids"),
        (lambda _, folder: ids(folder, list(range(12))), "does not hold the column id, a text for every pair"),
        (lambda _, folder: ids(folder, [None] * 12, pa.string()), "does not hold the column id"),
        (lambda _, folder: empty(folder), "there are no pairs"),
        (lambda _, folder: (folder / "features.parquet").write_bytes(b"PAR1"), "cannot be read as Parquet"),
        (lambda _, folder: (folder / "features.safetensors").write_bytes(b""), "is no safetensors file"),
        (lambda _, folder: (folder / "features.safetensors").write_bytes(b"\xff" * 99), "its header is not UTF-8"),
        (lambda _, folder: header(folder, {"a": {}}), "a.dtype is missing"),
        (lambda _, folder: header(folder, entry(dtype="F16")), "the array 'a' is of no known type or shape"),
        (lambda _, folder: header(folder, entry(shape=[-1])), "the array 'a' is of no known type or shape"),
        (lambda _, folder: header(folder, entry(data_offsets=[0])), "the array 'a' is of no known type or shape"),
        (lambda _, folder: header(folder, entry(data_offsets=[0, 2**70])), "does not lie where the header says"),
        (lambda _, folder: header(folder, entry(shape=[2**70])), "does not lie where the header says"),
        (lambda _, folder: header(folder, entry(data_offsets=[-8, 0])), "does not lie where the header says"),
    ],
)  # fmt: skip
def test_features_signed_again_that_are_none(tmp_path, change, says):
    """Arrays missing, of another shape or type, out of range; ids of another length."""
    folder = store.save_features(features(), tmp_path / "f")
    refused(store.load_features, resigned(folder, change), says)


SIDES = ("chosen", "rejected")


def outside(body, folder):
    (folder.parent / "mine").write_text("x")
    body["files"]["../mine"] = ""


def arrays(folder, **change):
    path = folder / "features.safetensors"
    held = safetensors.numpy.load(path.read_bytes()) | change
    path.write_bytes(safetensors.numpy.save({name: value for name, value in held.items() if value is not None}))


def ids(folder, values, kind=None):
    pq.write_table(pa.table({"id": pa.array(values, kind)}), folder / "features.parquet")


def empty(folder):
    held = safetensors.numpy.load((folder / "features.safetensors").read_bytes())
    arrays(folder, **{name: value[:0] for name, value in held.items() if not name.startswith("head")})
    ids(folder, [], pa.string())


def header(folder, entries):
    raw = json.dumps(entries).encode()
    (folder / "features.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(16))


def entry(**change):
    return {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]} | change}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop(["loss"]), "lacks the columns ['loss']"),
        (lambda table: table.append_column("loss", table["loss"]), "has two columns 'loss'"),
        (lambda table: table.set_column(1, "step", table["time"]), "'step' is double, but must be int64"),
        (lambda table: table.set_column(3, "group", pa.array([None] * 3, pa.string())), "'group' holds null"),
    ],
)
def test_trajectories_signed_again_that_are_none(tmp_path, change, says):
    folder = store.save_trajectory(trajectory(), tmp_path / "t")
    table = pq.read_table(folder / "trajectory.parquet")
    resigned(folder, lambda *_: pq.write_table(change(table), folder / "trajectory.parquet"))
    refused(store.load_trajectory, folder, "trajectory.parquet", says)


def test_columns_of_later_versions_are_left_alone(tmp_path):
    """In front of ours, behind them, and twice."""
    folder = store.save_trajectory(trajectory(), tmp_path / "t")
    table = pq.read_table(folder / "trajectory.parquet")
    more = table.add_column(0, "more", table["loss"]).append_column("twice", table["loss"])
    more = more.append_column("twice", table["loss"])
    resigned(folder, lambda *_: pq.write_table(more, folder / "trajectory.parquet"))
    assert store.load_trajectory(folder).table == trajectory().table


@pytest.mark.parametrize("name", ["margins/x", "margins/²", "other/1", "margins/" + "9" * 5000, "joint_head/"])
def test_arrays_that_no_trajectory_has(tmp_path, name):
    """And its own are read."""
    folder = store.save_trajectory(trajectory(), tmp_path / "t")
    raw = safetensors.numpy.save({name: np.ones(3)})
    resigned(folder, lambda *_: (folder / "trajectory.safetensors").write_bytes(raw))
    refused(store.load_trajectory, folder, "is none of those that a trajectory has")
    raw = safetensors.numpy.save({"margins/7": np.ones(3)})
    resigned(folder, lambda *_: (folder / "trajectory.safetensors").write_bytes(raw))
    assert list(store.load_trajectory(folder).margins) == [7]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop(["id"]), "a preference dataset needs the columns"),
        (lambda table: pa.concat_tables([table, table]), "occurs more than once"),
    ],
)
def test_datasets_signed_again_that_are_none(tmp_path, change, says):
    folder = store.save_dataset(dataset(), tmp_path / "d")
    table = pq.read_table(folder / "dataset.parquet")
    resigned(folder, lambda *_: pq.write_table(change(table), folder / "dataset.parquet"))
    refused(store.load_dataset_beside, folder, "dataset.parquet", says)


def test_texts_beside_features_must_be_utf8(tmp_path):
    """Bytes changed behind the writer's back, and signed."""
    data = PreferenceDataset.from_rows([{"prompt": "cafe!!", "chosen": "a", "rejected": "b"}])
    folder = store.save_dataset(data, tmp_path / "d")
    path = folder / "dataset.parquet"
    pq.write_table(data.table, path, compression="none", use_dictionary=False, write_statistics=False)
    load = store.load_dataset_beside
    assert load(resigned(folder, lambda *_: None)) is not None
    path.write_bytes(path.read_bytes().replace(b"cafe!!", b"caf\xe9!!"))
    refused(load, resigned(folder, lambda *_: None), "cannot be read as Parquet (", "UTF8")


def test_a_packed_file_signed_again_that_holds_no_arrays():
    """The checksum is right, and the rest is not."""
    raw = store.pack({"a": np.arange(3)})
    mark = raw.index(b'"sha256":"') + 10
    broken = raw[:mark].replace(b"I64", b"X64") + b"0" * 64 + raw[mark + 64 :].replace(b"I64", b"X64")
    signed = broken.replace(b"0" * 64, hashlib.sha256(broken).hexdigest().encode(), 1)
    with pytest.raises(StoreError, match=r"x holds no arrays \(.*\); delete it"):
        store.unpack(signed, name="x")


# files ---------------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=5),
                       st.lists(st.floats(width=32), max_size=6), max_size=4))  # fmt: skip
def test_packed_arrays_come_back(content):
    """Any names and values, NaN included; equal content, equal bytes."""
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in content.items()}
    raw = store.pack(arrays)
    assert raw == store.pack(arrays)
    back = store.unpack(raw, name="x")
    assert {name: value.tobytes() for name, value in back.items()} == {
        name: value.tobytes() for name, value in arrays.items()
    }


def test_every_bit_of_a_packed_file_counts(tmp_path):
    """All bytes, the checksum itself and the header's padding included; and every cut."""
    path = tmp_path / "x"
    path.write_bytes(store.pack({"a": np.arange(5), "bc": np.eye(2)}))
    raw = path.read_bytes()
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 16]) + raw[at + 1 :])
        with pytest.raises(StoreError, match="x is damaged"):
            store.read_packed(path)
        path.write_bytes(raw[:at])
        with pytest.raises(StoreError, match="x is damaged"):
            store.read_packed(path)
    assert store.read_packed(tmp_path / "none") is None
    with pytest.raises(StoreError, match="cannot be read"):
        store.read_packed(tmp_path)


def test_atomic_write_leaves_the_old_content_or_the_new(tmp_path, monkeypatch):
    """And no third file, whatever fails; permissions as for any new file."""
    path = tmp_path / "x"
    _files.atomic_write(path, b"old")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    plain.unlink()

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreError, match=r"x cannot be written \(No space left on device\)"):
        _files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
    monkeypatch.undo()
    _files.atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_folders_that_cannot_be_made(tmp_path):
    """A file stands where the folder should."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be made"):
        store.save_features(features(), tmp_path / "file" / "f")


# the cache's place ---------------------------------------------------------------------------------------------------


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    """PREFDYN_CACHE, then XDG_CACHE_HOME, then the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("PREFDYN_CACHE")
    assert cache_root() == tmp_path / "xdg" / "prefdyn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "prefdyn"


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    """The variable to set is named."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match=r"cannot be written .*set PREFDYN_CACHE to a folder that can be"):
        cache_root()


def test_torch_is_not_imported():
    """The store serves commands that touch no model."""
    import subprocess
    import sys

    code = "import sys, prefdyn.store; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_features_json_is_plain(tmp_path):
    """For people and other programs: what it is, from what, and each file's sha256."""
    body = json.loads((store.save_features(features(), tmp_path) / "features.json").read_text())
    assert body["kind"] == "features"
    assert body["schema"] == 1
    assert body["files"]["features.safetensors"] == store.file_sha256(tmp_path / "features.safetensors")
    assert body["features"]["groups"] == ["../../x", "<script>", "ä b"]
