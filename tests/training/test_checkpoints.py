"""Checkpoints: what is saved comes back to the bit, and no kill, full disk or flipped bit costs a finished one."""

import errno
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from prefdyn.errors import ConfigError, StoreError
from prefdyn.training import checkpoints
from prefdyn.training.checkpoints import latest_checkpoint, save_checkpoint

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64,
]  # fmt: skip


def bits(tensor):
    """What is in memory, so that NaN and -0.0 count."""
    return (tensor.dtype, tuple(tensor.shape), bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()))


def content(step=3, size=64):
    """Everything that a run saves."""
    generator = torch.Generator().manual_seed(step)
    draw = np.random.default_rng(step)
    return {
        "step": step,
        "tensors": {
            "model/head": torch.randn(size, 4, generator=generator),
            "optimizer/0": torch.zeros(3, dtype=torch.bfloat16),
            "generator/torch": generator.get_state(),
        },
        "state": {"numpy": draw.bit_generator.state, "order": [3, 1], "loss": 0.1 + step, "none": None, "ä": "ö\n"},
        "tables": {"trajectory": pa.table({"step": [0, step], "group": ["ä", None]}), "empty": pa.table({"x": []})},
    }


def listing(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def latest(folder):
    """The newest, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = latest_checkpoint(folder)
    assert found is not None
    return found


# what is saved comes back --------------------------------------------------------------------------------------------


def test_everything_comes_back(tmp_path):
    """Tensors of every type to the bit, numbers of 128 bits, tables with nulls; in the files that were promised."""
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, 64, dtype=np.uint8))
    tensors = {f"t/{dtype}": (raw % 2).bool() if dtype == torch.bool else raw.clone().view(dtype) for dtype in DTYPES}
    tensors |= {f"scalar/{dtype}": torch.ones((), dtype=dtype) for dtype in DTYPES}
    tensors |= {"none": torch.empty(0, 3), "odd": torch.tensor([float("nan"), -0.0, float("inf")])}
    tensors |= {"transposed": torch.arange(6.0).reshape(2, 3).T, "parameter": torch.nn.Parameter(torch.ones(2))}
    given = content()
    path = save_checkpoint(tmp_path / "c", step=100, tensors=tensors, state=given["state"], tables=given["tables"])
    assert path == tmp_path / "c" / "step-000100"
    assert sorted(os.listdir(path)) == ["checkpoint.json", "empty.parquet", "tensors.safetensors", "trajectory.parquet"]
    assert sorted(os.listdir(tmp_path / "c")) == ["step-000100"]
    found = latest(tmp_path / "c")
    assert (found.path, found.step, found.state) == (path, 100, given["state"])
    assert found.tables() == given["tables"]
    back = found.tensors()
    assert {name: bits(value) for name, value in back.items()} == {name: bits(value) for name, value in tensors.items()}
    assert not any(value.requires_grad for value in back.values())
    draw = np.random.default_rng()
    draw.bit_generator.state = found.state["numpy"]
    assert draw.random() == np.random.default_rng(3).random()
    drawn = torch.Generator()
    drawn.set_state(latest(save_checkpoint(tmp_path / "d", **content()).parent).tensors()["generator/torch"])
    generator = torch.Generator().manual_seed(3)
    torch.randn(64, 4, generator=generator)
    assert torch.equal(torch.rand(5, generator=drawn), torch.rand(5, generator=generator))


def test_tensors_are_the_readers_own(tmp_path):
    """Changing them changes no file, and they stay when the checkpoint is deleted; each starts on a round address."""
    folder = save_checkpoint(tmp_path, **content()).parent
    before = listing(folder)
    found = latest(folder)
    for value in (tensors := found.tensors()).values():
        value.zero_()
    assert listing(folder) == before
    assert latest(folder).tensors()["model/head"].abs().sum() > 0
    assert all(value.data_ptr() % 64 == 0 for value in tensors.values())
    shutil.rmtree(folder)
    assert tensors["model/head"].sum() == 0
    with pytest.raises(OSError, match="No such file"):
        found.tensors()  # read when asked for, not before


def test_equal_content_gives_equal_bytes(tmp_path):
    """Whatever the order of names and the chunks of a table; and other content gives other bytes."""
    given = content()
    turned: dict[str, Any] = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in given.items()
    }
    rows = 200_000  # more than a page of Parquet
    whole = pa.table({"x": np.random.default_rng(0).random(rows), "id": [f"pair-{at}" for at in range(rows)]})
    parts = pa.concat_tables([whole.slice(0, 70_001), whole.slice(70_001, 3), whole.slice(70_004)])
    assert parts["x"].num_chunks == 3
    given["tables"], turned["tables"] = {**given["tables"], "pairs": whole}, {"pairs": parts, **turned["tables"]}
    one, two = save_checkpoint(tmp_path / "a", **given), save_checkpoint(tmp_path / "b", **turned)
    assert listing(one) == listing(two)
    given["tensors"]["model/head"][0, 0] += 1
    assert listing(save_checkpoint(tmp_path / "c", **given)) != listing(two)


def test_large_tensors_go_to_several_files(tmp_path, monkeypatch):
    """So that a GPU's tensors are copied to the host a file at a time; a tensor is never cut."""
    monkeypatch.setattr(checkpoints, "_FILE_BYTES", 100)
    tensors = {f"t{at}": torch.full((10,), float(at)) for at in range(5)} | {"t5": torch.ones(1000)}
    path = save_checkpoint(tmp_path, step=0, tensors=tensors, state={})
    names = sorted(path.glob("*.safetensors"))
    assert [name.name for name in names] == [f"tensors-{at}.safetensors" for at in (2, 3, 4)] + ["tensors.safetensors"]
    assert [list(safetensors.torch.load_file(name)) for name in names] == [["t2", "t3"], ["t4"], ["t5"], ["t0", "t1"]]
    back = latest(tmp_path).tensors()
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
    assert len(back) == len(tensors)


def test_other_users_may_read_what_the_umask_lets_them(tmp_path):
    """safetensors makes files for their owner alone."""
    path = save_checkpoint(tmp_path, **content())
    (tmp_path / "plain").write_text("")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in [*path.iterdir(), tmp_path / "plain"]}
    assert len(modes) == 1


def test_what_cannot_be_saved_is_refused_with_its_place(tmp_path):
    """Before anything is written."""
    good: dict[str, Any] = {"step": 0, "tensors": {}, "state": {}}
    shared = torch.ones(3)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"state": {"a": [1, {"b": np.int64(3)}]}}, r"state\['a'\]\[1\]\['b'\] is a int64, which JSON does not hold"),
        ({"state": {"a": {3: 1}}}, r"state\['a'\] has the key 3, but keys must be strings in JSON; use '3'"),
        ({"tables": {"../x": pa.table({})}}, r"table name '\.\./x' cannot be saved; use small letters"),
        ({"tensors": {"a": torch.ones(2, dtype=torch.complex128)}}, r"cannot be saved \(torch\.complex128\)"),
        ({"tensors": {"a": shared, "b": shared}}, r"share memory.*hand over each tensor once"),
        ({"tensors": {"a": torch.eye(2).to_sparse()}}, r"sparse"),
        ({"keep": 0}, "keep is 0, but must be a whole number of at least 1"),
        ({"step": -1}, "step is -1, but must be a whole number of at least 0"),
    ]
    for change, match in changes:
        with pytest.raises(ConfigError, match=match):
            save_checkpoint(tmp_path / "c", **{**good, **change})
        assert not (tmp_path / "c").exists() or not os.listdir(tmp_path / "c")
    save_checkpoint(tmp_path / "c", **{**good, "state": {"nan": float("nan"), "tuple": (1, 2)}})
    state = latest(tmp_path / "c").state
    assert np.isnan(state["nan"])
    assert state["tuple"] == [1, 2]


# which stay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    """As many as asked for, and what is none of ours is left alone."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-x").mkdir()
    (tmp_path / ".hidden").mkdir()
    for step in range(0, 60, 10):
        save_checkpoint(tmp_path, **content(step, 2), keep=keep)
        stand = sorted(path.name for path in tmp_path.glob("step-0*"))
        assert stand == [f"step-{at:06d}" for at in range(0, step + 1, 10)][-keep:]
        assert latest(tmp_path).step == step
    assert {"notes.txt", "step-x", ".hidden"} <= set(os.listdir(tmp_path))


def test_steps_beyond_six_digits_are_newest(tmp_path):
    """Steps are compared as numbers."""
    for step in (999_999, 1_000_000, 10_000_000):
        save_checkpoint(tmp_path, **content(step, 2), keep=3)
    assert latest(tmp_path).step == 10_000_000


def test_the_older_are_there_until_the_next_is_whole(tmp_path, monkeypatch):
    """Seen at the moment of each deletion."""
    seen = []
    remove = checkpoints._remove

    def watched(path):
        seen.append((path.name, latest(tmp_path).step))
        remove(path)

    monkeypatch.setattr(checkpoints, "_remove", watched)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, **content(step, 2), keep=1)
    assert seen == [("step-000001", 2), ("step-000002", 3)]


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Every file and the folder's names are flushed before the rename, and the rename after it."""
    done, flush, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda at: (done.append(os.readlink(f"/proc/self/fd/{at}")), flush(at)))
    monkeypatch.setattr(os, "rename", lambda a, b: (done.append(f"to {b}"), rename(a, b)))
    made = save_checkpoint(tmp_path, **content(3))
    at, hidden = done.index(f"to {made}"), r"\.?{}(\..*)?"
    for path in made.iterdir():
        assert any(re.fullmatch(hidden.format(re.escape(path.name)), Path(name).name) for name in done[:at]), path
    assert any(Path(name).parent == tmp_path for name in done[:at]), "the hidden folder itself"
    assert str(tmp_path) in done[at:]


def test_the_same_step_again(tmp_path):
    """Equal content changes nothing; other content stands beside until it is whole, then alone."""
    folder = tmp_path / "run"
    first = save_checkpoint(folder, **content(7))
    was = (first / "checkpoint.json").stat()
    assert save_checkpoint(folder, **content(7)) == first
    assert (first / "checkpoint.json").stat().st_ino == was.st_ino
    other = save_checkpoint(folder, **{**content(7), "state": {"other": 1}})
    assert os.listdir(folder) == [other.name] == ["step-000007.2"]
    assert (latest(folder).step, latest(folder).state) == (7, {"other": 1})


def test_a_later_checkpoint_of_another_run_is_not_overtaken(tmp_path):
    """A sound one is refused; a damaged one is what the run was resumed before."""
    save_checkpoint(tmp_path, **content(1))
    later = save_checkpoint(tmp_path, **content(9))
    before = listing(tmp_path)
    with pytest.raises(
        StoreError, match=r"step-000009 is a checkpoint of a later step than 5, so it is of another run"
    ):
        save_checkpoint(tmp_path, **content(5))
    assert listing(tmp_path) == before
    (later / "tensors.safetensors").write_bytes(b"")
    for step in (5, 9, 10):
        save_checkpoint(tmp_path, **content(step))
    assert latest(tmp_path).step == 10
    assert sorted(os.listdir(tmp_path)) == ["step-000009.2", "step-000010"]


def test_an_old_one_that_cannot_be_deleted_is_told(tmp_path, monkeypatch):
    """The new one stands all the same."""
    save_checkpoint(tmp_path, **content(1))
    rename = os.rename

    def stuck(source, target):
        if str(target).endswith(".old"):
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", stuck)
    with pytest.warns(RuntimeWarning, match=r"step-000001 cannot be deleted \(Permission denied\)"):
        save_checkpoint(tmp_path, **content(2), keep=1)
    assert latest(tmp_path).step == 2


# damage --------------------------------------------------------------------------------------------------------------


def test_no_checkpoint_is_none(tmp_path):
    """No folder, or an empty one."""
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_a_flipped_bit_anywhere_is_told_and_the_one_before_is_taken(tmp_path):
    """In any file of the newest, at any place; nothing is changed on the disk by looking."""
    save_checkpoint(tmp_path, **content(1))
    newest = save_checkpoint(tmp_path, **content(2))
    for path in sorted(newest.iterdir()):
        raw = path.read_bytes()
        for at in np.unique(np.linspace(0, len(raw) - 1, 15).astype(int)):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << int(at) % 7)]) + raw[at + 1 :])
            before = listing(tmp_path)
            with pytest.warns(RuntimeWarning, match=rf"step-000002/{path.name} is damaged: .* passed over; delete it"):
                found = latest_checkpoint(tmp_path)
            assert found is not None
            assert found.step == 1
            assert listing(tmp_path) == before
        path.write_bytes(raw)
    assert latest(tmp_path).step == 2


def test_unfinished_or_cut_ones_are_passed_over(tmp_path):
    """Without the manifest, without a file that it names, of another schema; with none left, None."""
    save_checkpoint(tmp_path, **content(1))
    newest = save_checkpoint(tmp_path, **content(2))
    (newest / "tensors.safetensors").rename(tmp_path / "kept")
    with pytest.warns(RuntimeWarning, match="tensors.safetensors is missing"):
        assert latest_checkpoint(tmp_path).step == 1  # type: ignore[union-attr]
    (tmp_path / "kept").rename(newest / "tensors.safetensors")
    (newest / "checkpoint.json").unlink()
    (tmp_path / "step-000001" / "checkpoint.json").write_text("{}")
    with pytest.warns(RuntimeWarning) as told:
        assert latest_checkpoint(tmp_path) is None
    assert ["never finished" in str(each.message) for each in told] == [True, False]


# a full disk ---------------------------------------------------------------------------------------------------------


def _fails_at(monkeypatch, number):
    """The disk is full from the n-th of the calls that take space on; how many calls there were."""
    calls = []

    def guarded(place, name):
        real = getattr(place, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) > number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(place, name, call)

    for place, name in [
        (Path, "mkdir"), (safetensors.torch, "save_file"), (pq, "write_table"), (os, "fsync"), (os, "replace"),
        (os, "rename"),
    ]:  # fmt: skip
        guarded(place, name)
    return calls


def test_a_full_disk_at_any_call_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    """One error, with the space needed and free; no partial folder stays; the next save works."""
    save_checkpoint(tmp_path, **content(1))
    before = listing(tmp_path)
    with monkeypatch.context() as whole:
        calls = _fails_at(whole, 10**6)
        save_checkpoint(tmp_path / "other", **content(2))
    assert len(calls) > 8
    for number in range(len(calls)):
        with monkeypatch.context() as broken:
            _fails_at(broken, number)
            match = (
                r"step 2 cannot be written to .* \(No space left on device\): it needs [\d.]+ KiB and [\d.]+ .iB are "
                r"free; free space .*; the checkpoint of step 1 is untouched, so resume=True"
            )
            with pytest.raises(StoreError, match=match):
                save_checkpoint(tmp_path, **content(2))
        renamed = number == len(calls) - 1  # the last call syncs the folder after the renaming: all of it stands
        assert latest(tmp_path).step == (2 if renamed else 1)
        if not renamed:
            assert {name: raw for name, raw in listing(tmp_path).items() if "other" not in name.parts} == before
    assert save_checkpoint(tmp_path, **content(2)).name == "step-000002"


_FULL = """
import resource, sys
from pathlib import Path
import torch
from prefdyn.errors import StoreError
from prefdyn.training.checkpoints import save_checkpoint, latest_checkpoint
folder, limited = Path(sys.argv[1]), sys.argv[2] == "limit"
save_checkpoint(folder, step=1, tensors={"a": torch.ones(1 << 10)}, state={})
if limited:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    save_checkpoint(folder, step=2, tensors={"a": torch.ones(1 << 20)}, state={})
except StoreError as error:
    print(error)
print(latest_checkpoint(folder).step, sorted(path.name for path in folder.iterdir()))
save_checkpoint(folder, step=3, tensors={"a": torch.ones(1 << 10)}, state={})
print(latest_checkpoint(folder).step)
"""


def _run_full(command, cwd):
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done.stderr
    told, stands, after = done.stdout.splitlines()
    assert stands == "1 ['step-000001']"
    assert after == "3"
    return told


def test_a_limit_on_file_size_is_a_full_disk(tmp_path):
    """Met by the system, in the middle of a file."""
    told = _run_full([sys.executable, "-c", _FULL, str(tmp_path / "c"), "limit"], tmp_path)
    assert "File too large" in told
    assert "it needs 4 MiB and" in told


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of one MiB, made for the test where the system lets us."""
    (tmp_path / "small").mkdir()
    mount = f"mount -t tmpfs -o size=1M none {tmp_path / 'small'}"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    run = f'exec "{sys.executable}" -c "$0" "{tmp_path / "small" / "c"}" no'
    told = _run_full(["unshare", "-rm", "sh", "-c", f"{mount} && {run}", _FULL], tmp_path)
    assert "No space left on device" in told
    assert "it needs 4 MiB and" in told
    assert float(told.split(" MiB and ")[1].split(" MiB are free")[0]) < 1


def test_a_folder_that_cannot_be_made(tmp_path):
    """A file stands in its way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written to .*file/c \(Not a directory\)"):
        save_checkpoint(tmp_path / "file" / "c", **content())


# a kill --------------------------------------------------------------------------------------------------------------

_LOOP = """
import os, sys
from pathlib import Path
import pyarrow as pa
import torch
from prefdyn.training.checkpoints import save_checkpoint, latest_checkpoint
folder = Path(sys.argv[1])
found = latest_checkpoint(folder)
step = 0 if found is None else found.step
while True:
    step += 1
    os.write(1, f"begin {step}\\n".encode())
    save_checkpoint(folder, step=step, tensors={"a": torch.full((1 << 18,), float(step)), "b": torch.arange(step)},
                    state={"step": step}, tables={"t": pa.table({"x": list(range(2000))})})
    os.write(1, f"done {step}\\n".encode())
"""


def _killed(folder, pause):
    """Save in a loop, kill after the first whole save and a pause; the last step that was begun and that was done."""
    command = [sys.executable, "-c", _LOOP, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2)]
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout  # not communicate(), which loses what readline() has read ahead
    assert child.returncode == -signal.SIGKILL, lines
    lines = [line.split() for line in lines]
    begun, done = (max(int(step) for word, step in lines if word == kind) for kind in ("begin", "done"))
    return begun, done


def _check_kills(folder, moments):
    draw = random.Random(0)
    hidden = last = 0
    for _ in range(moments):
        begun, done = _killed(folder, draw.uniform(0, 0.1))
        hidden += any(path.name.startswith(".") for path in folder.iterdir())
        found = latest(folder)
        assert found.step in (done, begun)
        tensors = found.tensors()
        assert torch.equal(tensors["a"], torch.full((1 << 18,), float(found.step)))
        assert len(tensors["b"]) == found.state["step"] == found.step
        assert found.tables()["t"].num_rows == 2000
        assert len(list(folder.glob("step-*"))) <= 3
        last = found.step
    assert hidden, "no kill hit a save, so this test showed nothing"
    save_checkpoint(folder, step=last + 1, tensors={}, state={})
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.thorough
def test_a_kill_leaves_a_sound_checkpoint(tmp_path):
    """At most the save that was under way is lost; what a killed save left is removed by the next."""
    _check_kills(tmp_path, 3)


@pytest.mark.slow
def test_twenty_kills_leave_a_sound_checkpoint(tmp_path):
    """The same at 20 random moments, each continuing where the last was killed."""
    _check_kills(tmp_path, 20)


def _end_before(number):
    """From now on, this process ends before the n-th call that changes the disk."""
    count = 0

    def guard(place, name):
        real = getattr(place, name)

        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count > number:
                os._exit(9)
            return real(*args, **kwargs)

        setattr(place, name, call)

    for place, name in [
        (os, "mkdir"), (os, "fsync"), (os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"),
        (safetensors.torch, "save_file"), (pq, "write_table"),
    ]:  # fmt: skip
        guard(place, name)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_kill_between_any_two_calls(tmp_path):
    """Every moment on purpose: the process ends before its n-th call that changes the disk, for each n."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save_checkpoint(folder, **content(1), keep=1)
    steps = []
    for number in range(100):
        child = os.fork()
        if child == 0:
            signal.alarm(300)  # a lock that another thread held when this child was forked is never given back
            try:
                _end_before(number)
                save_checkpoint(folder, **content(2), keep=1)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = latest(folder)
        assert {name: bits(value) for name, value in found.tensors().items()} == {
            name: bits(value) for name, value in content(found.step)["tensors"].items()
        }
        steps.append(found.step)
        if code == 0:
            break
        assert code == 9
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}
    assert steps.count(1) > 5
    assert os.listdir(folder) == ["step-000002"]
    assert json.loads((folder / "step-000002" / "checkpoint.json").read_text())["checkpoint"]["step"] == 2
