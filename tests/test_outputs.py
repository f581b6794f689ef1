"""Output folders: nothing of somebody's is touched, results are whole, one writes at a time, the dead leave nothing."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prefdyn import _cache, outputs
from prefdyn._stopping import Stopped
from prefdyn.errors import StoreError
from prefdyn.outputs import Marker, output_file, output_folder, put, run_folder, run_path


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(_cache, "_process", None)


def write(final, files=("summary.json",), text="new", **options):
    with output_folder(final, command="audit", **options) as folder:
        for name in files:
            path = folder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


def state(folder):
    """Every path below a folder with its kind, content, inode and times: what must not change."""
    found = {}
    for top, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(top) / name
            about = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path)] = (about.st_ino, about.st_mode, about.st_size, content)
    return found


# results that are whole ----------------------------------------------------------------------------------------------


def test_an_output_folder_appears_whole(tmp_path):
    """Not before the end; then under its name, with ordinary permissions and a marker that lists what was written."""
    final = tmp_path / "a" / "out"
    with output_folder(final, command="audit") as folder:
        (folder.path / "summary.json").write_text("{}")
        assert not final.exists()
        assert folder.final == final
    assert listed(final) == [".prefdyn.json", "summary.json"]
    assert os.listdir(tmp_path / "a") == ["out"]
    marker = Marker.read(final)
    assert marker is not None
    assert (marker.command, marker.finished, list(marker.files)) == ("audit", True, ["summary.json"])
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(final.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_equal_results_have_equal_markers(tmp_path):
    """The marker holds neither time nor place."""
    for name in ("a", "b"):
        write(tmp_path / name, files=["z", "figures/f.svg"])
    assert (tmp_path / "a" / outputs.MARKER).read_bytes() == (tmp_path / "b" / outputs.MARKER).read_bytes()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stopped])
def test_an_output_folder_that_fails_leaves_nothing(tmp_path, error):
    """Neither parents that it made, nor does it touch what --force would have replaced."""

    def fail(final, **options):
        with output_folder(final, command="audit", **options) as folder:
            (folder.path / "summary.json").write_text("{}")
            raise error(2)

    with pytest.raises(error):
        fail(tmp_path / "deep" / "er" / "out")
    assert os.listdir(tmp_path) == []
    write(tmp_path / "out", text="old")
    before = state(tmp_path)
    with pytest.raises(error):
        fail(tmp_path / "out", force=True)
    assert state(tmp_path) == before


def test_force_replaces_our_own_folder_as_a_whole(tmp_path):
    """Old files that the new result does not have are gone; without --force nothing happens."""
    out = tmp_path / "out"
    write(out, files=["summary.json", "old/figure.svg"], text="old")
    with pytest.raises(StoreError, match="out exists already; add force=True"):
        write(out)
    assert (out / "summary.json").read_text() == "old"
    write(out, force=True)
    assert listed(out) == [".prefdyn.json", "summary.json"]
    assert (out / "summary.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_an_empty_folder_is_taken_with_force(tmp_path):
    """It holds nothing that could be lost; without --force it is refused all the same."""
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="out exists already, has no"):
        write(tmp_path / "out")
    write(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "summary.json").exists()


# what is somebody's --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "features.json", "thesis.tex", ".prefdyn.json"])
def test_a_folder_without_our_marker_is_never_replaced(tmp_path, name, force):
    """Names like ours do not make it ours, nor does a file under the marker's name that we did not write."""
    home = tmp_path / "home"
    (home / "src").mkdir(parents=True)
    (home / "src" / "main.py").write_text("years of work")
    (home / name).write_text('{"schema": 1, "command": "audit", "finished": true, "files": {}}')
    before = state(tmp_path)
    with pytest.raises(StoreError, match="that says prefdyn wrote it"):
        write(home, force=force)
    assert state(tmp_path) == before


@pytest.mark.parametrize("stranger", ["notes.txt", "figures/mine.svg", "deep/er/x", "checkpoints/x", "empty/"])
def test_a_file_of_somebodys_in_our_folder_is_named(tmp_path, stranger):
    """And stays, with all of the folder. Once it is moved away, --force replaces the folder."""
    out = tmp_path / "out"
    write(out, files=["summary.json", "figures/f.svg"], text="old")
    path = out / stranger
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if stranger.endswith("/") else path.write_text("mine")
    before = state(tmp_path)
    with pytest.raises(StoreError, match=rf"did not write, or that were changed since: {stranger}; force=True"):
        write(out, force=True)
    assert state(tmp_path) == before
    shutil.rmtree(out / stranger.partition("/")[0]) if path.is_dir() or "deep" in stranger else path.unlink()
    if (out / "checkpoints").exists():
        (out / "checkpoints").rmdir()
    if not (out / "figures").exists():
        (out / "figures").mkdir()
    write(out, force=True)
    assert (out / "summary.json").read_text() == "new"


def test_a_file_of_ours_that_was_changed_is_somebodys(tmp_path):
    """An edited config.yaml is work of the user's, of the same size too."""
    out = tmp_path / "out"
    write(out, files=["config.yaml"], text="beta: 1")
    (out / "config.yaml").write_text("beta: 2")
    with pytest.raises(StoreError, match=r"config\.yaml"):
        write(out, force=True)
    assert (out / "config.yaml").read_text() == "beta: 2"


def test_links_and_files_are_never_replaced_by_a_folder(tmp_path):
    """Nor is what a link points to."""
    write(tmp_path / "ours")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    before = state(tmp_path)
    for name, says in (("link", "a symbolic link"), ("notes.txt", "is a file"), ("nowhere", "a symbolic link")):
        with pytest.raises(StoreError, match=says):
            write(tmp_path / name, force=True)
    assert state(tmp_path) == before


def test_no_run_goes_on_through_a_link(tmp_path):
    """A link to a run of ours is not that run: what it points to may be moved any time."""
    with run_folder(tmp_path / "ours", command="train"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    before = state(tmp_path)
    with (
        pytest.raises(StoreError, match="is no run of `prefdyn train`"),
        run_folder(tmp_path / "link", command="train", resume=True),
    ):
        pass
    assert state(tmp_path) == before


def test_a_link_inside_our_folder_is_somebodys(tmp_path):
    """What it points to is not followed, in place of a file or of a folder."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "f.svg").write_text("old")
    out = tmp_path / "out"
    write(out, files=["figures/f.svg"], text="old")
    shutil.rmtree(out / "figures")
    (out / "figures").symlink_to(tmp_path / "far")
    with pytest.raises(StoreError, match="figures/"):
        write(out, force=True)
    assert (tmp_path / "far" / "f.svg").read_text() == "old"


def test_dots_name_the_folder_that_they_are(tmp_path, monkeypatch):
    """`--out ..` is the parent, which is somebody's."""
    (tmp_path / "work").mkdir()
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "work" / "x").write_text("x")
    monkeypatch.chdir(tmp_path / "work")
    for out in ("..", ".", "", "../work", "/"):
        with pytest.raises(StoreError):
            write(Path(out), force=True)
    assert listed(tmp_path) == ["thesis.tex", "work", "work/x"]


def test_what_appears_meanwhile_is_not_overwritten_and_the_results_are_kept(tmp_path):
    """The new results stand beside it, and the error says where."""
    out = tmp_path / "out"

    def overtaken():
        with output_folder(out, command="audit") as folder:
            (folder.path / "a").write_text("")
            out.mkdir()
            (out / "b").write_text("")

    with pytest.raises(StoreError, match=r"holds a file \(such as 'b'\).*the new results are in .*out-1"):
        overtaken()
    assert listed(out) == ["b"]
    assert listed(tmp_path / "out-1") == [".prefdyn.json", "a"]


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """A file among its parents; a rename that fails; a lock's name that is taken."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot be written .* name another place with out"):
        write(tmp_path / "file" / "out")
    (tmp_path / ".out.prefdyn-lock").write_text("somebody's")
    with pytest.raises(StoreError, match="is in the way"):
        write(tmp_path / "out")
    assert (tmp_path / ".out.prefdyn-lock").read_text() == "somebody's"

    def fails(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(StoreError, match=r"cannot be moved to .*Invalid cross-device link"):
        write(tmp_path / "out2")


def test_a_result_whose_last_rename_fails_leaves_the_old_one(tmp_path, monkeypatch):
    """Between the two renames nothing may be lost."""
    out = tmp_path / "out"
    write(out, text="old")
    before, rename = state(out), os.rename

    def second_fails(source, target):
        if "partial" in str(source):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(StoreError, match="cannot be moved"):
        write(out, force=True)
    assert state(out) == before
    assert os.listdir(tmp_path) == ["out"]


# single files --------------------------------------------------------------------------------------------------------


def put_file(path, text, **options):
    with output_file(path, **options) as place:
        assert place.suffix == path.suffix
        place.write_text(text)


def test_force_replaces_a_file_of_ours_alone(tmp_path):
    """One that we wrote and nobody changed."""
    page = tmp_path / "sub" / "page.html"
    put_file(page, "one")
    assert listed(tmp_path) == ["sub", "sub/page.html"]
    with pytest.raises(StoreError, match=r"page\.html exists already; add force=True"):
        put_file(page, "two")
    put_file(page, "two", force=True)
    assert page.read_text() == "two"
    page.write_text("edited")
    with pytest.raises(StoreError, match="or was changed since, so force=True does not replace it"):
        put_file(page, "three", force=True)
    assert page.read_text() == "edited"
    assert listed(tmp_path) == ["sub", "sub/page.html"]


def test_somebodys_file_folder_and_link_stay(tmp_path):
    """Whatever they are called."""
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "report.html")
    before = state(tmp_path)
    for name, says in (
        ("report.html", "was not written by prefdyn"),
        ("folder.html", "is a folder"),
        ("link.html", "no plain"),
    ):
        with pytest.raises(StoreError, match=says):
            put_file(tmp_path / name, "x", force=True)
    assert state(tmp_path) == before


def test_a_file_that_fails_leaves_nothing(tmp_path):
    """And an OSError on the way names the file."""

    def fail(error):
        with output_file(tmp_path / "a" / "x.csv"):
            raise error

    with pytest.raises(ValueError, match="no"):
        fail(ValueError("no"))
    with pytest.raises(StoreError, match=r"x\.csv cannot be written \(No space left"):
        fail(OSError(28, "No space left on device"))
    assert os.listdir(tmp_path) == []


# runs ----------------------------------------------------------------------------------------------------------------


def checkpoint(folder, step):
    place = folder / "checkpoints" / f"step-{step:06d}"
    place.mkdir(parents=True)
    (place / "tensors.safetensors").write_text(str(step))
    (place / "checkpoint.json").write_text(json.dumps({"kind": "checkpoint", "files": {"tensors.safetensors": ""}}))


def train(out, *, steps=(), fails=None, results=("summary.json", "figures/f.svg"), **options):
    with run_folder(out, command="train", **options) as folder:
        if folder.step is None:
            put(folder.path, "config.yaml", b"beta: 1")
        for step in steps:
            checkpoint(folder.path, step)
        if fails is not None:
            raise fails
        for name in results:
            (folder.results / name).parent.mkdir(exist_ok=True)
            (folder.results / name).write_text(f"after {folder.step}")
    return folder


def test_a_run_is_in_its_place_from_the_start_and_sealed_at_the_end(tmp_path):
    """Its checkpoints can be looked at while it goes on; nothing else is left beside it."""
    out = tmp_path / "run"
    folder = train(out, steps=[10, 20])
    assert folder.path == folder.final == out
    assert [name for name in listed(out) if "/" not in name] == [
        ".prefdyn.json", "checkpoints", "config.yaml", "figures", "summary.json",
    ]  # fmt: skip
    marker = Marker.read(out)
    assert marker is not None
    assert (marker.finished, outputs.strangers(out, marker)) == (True, [])
    assert os.listdir(tmp_path) == ["run"]


def test_an_error_before_the_first_checkpoint_leaves_nothing(tmp_path):
    """But a folder that was there before, whosever it is, stays as it was, with --resume and without."""
    with pytest.raises(ValueError, match="typo"):
        train(tmp_path / "new" / "run", fails=ValueError("typo"))
    assert os.listdir(tmp_path) == []
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("thesis")
    before = state(tmp_path)
    for options in ({"resume": True}, {"force": True}, {"resume": True, "force": True}, {}):
        with pytest.raises(StoreError):
            train(precious, fails=ValueError("typo"), **options)
        assert state(tmp_path) == before


def test_resume_of_an_empty_or_a_missing_folder(tmp_path):
    """An empty folder is no run; where nothing stands, the run begins."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="is no run of `prefdyn train`"):
        train(tmp_path / "empty", resume=True)
    assert train(tmp_path / "run", steps=[1], resume=True).step == 1


def test_an_interrupted_run_without_a_checkpoint_is_taken_up_by_the_same_command(tmp_path):
    """With --resume and without; config.yaml is then that of the run which wrote the results."""
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(out, fails=Stopped(signal.SIGTERM))
    assert listed(out) == [".prefdyn.json", "config.yaml"]
    train(out, steps=[5])
    assert (out / "summary.json").read_text() == "after 5"


def test_an_interrupted_run_with_a_checkpoint_goes_on_with_resume_alone(tmp_path):
    """The same command again would throw work away, so it is refused with both ways on."""
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(out, steps=[5], fails=Stopped(signal.SIGINT))
    before = state(out)
    with pytest.raises(
        StoreError, match="checkpoint of step 5; add resume=True to go on with it, force=True to start anew"
    ):
        train(out)
    assert state(out) == before
    train(out, steps=[6], resume=True)
    assert (out / "summary.json").read_text() == "after 6"


def test_force_keeps_the_old_run_until_the_new_one_is_whole(tmp_path):
    """A wrong --model does not cost the finished run; a killed one goes on with --resume where it was."""
    out = tmp_path / "run"
    train(out, steps=[7])
    before = state(out)
    with pytest.raises(ValueError, match="typo"):
        train(out, force=True, fails=ValueError("typo"))
    assert state(tmp_path) == {**before, str(out): state(tmp_path)[str(out)]}
    with pytest.raises(Stopped):
        train(out, force=True, steps=[3], fails=Stopped(signal.SIGTERM))
    assert state(out) == before
    assert run_path(out, command="train", resume=True) != out
    train(out, resume=True, steps=[4])
    assert (out / "summary.json").read_text() == "after 4"
    assert listed(out / "checkpoints")[0] == "step-000003"
    assert os.listdir(tmp_path) == ["run"]


def test_results_do_not_replace_somebodys_file_in_the_runs_folder(tmp_path):
    """Named, with what to do; the checkpoints are kept, and the run ends once the file is away."""
    out = tmp_path / "run"

    def joined():
        with run_folder(out, command="train") as folder:
            checkpoint(folder.path, 9)
            (out / "summary.json").write_text("mine")
            (folder.results / "summary.json").write_text("ours")

    with pytest.raises(StoreError, match=r"summary\.json was not written by prefdyn.*resume=True"):
        joined()
    assert (out / "summary.json").read_text() == "mine"
    (out / "summary.json").rename(out / "mine.json")
    train(out, resume=True)
    assert ((out / "mine.json").read_text(), (out / "summary.json").read_text()) == ("mine", "after 9")


# one writer ----------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_harms_nothing(tmp_path):
    """In one line, whoever they are; once the first is done, its folder is there."""
    out = tmp_path / "out"
    with output_folder(out, command="audit") as folder:
        (folder.path / "a").write_text("first")
        for second in (lambda: write(out, force=True), lambda: train(out), lambda: put_file(out, "x")):
            with pytest.raises(StoreError, match=r"another prefdyn is writing to .*out"):
                second()
    assert listed(out) == [".prefdyn.json", "a"]


def test_two_without_a_name_take_two_folders(tmp_path, monkeypatch):
    """Also at the same time, and next to what was there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefdyn-out" / "audit-2").mkdir(parents=True)
    with output_folder(None, command="audit") as first, output_folder(None, command="audit") as second:
        (first.path / "a").write_text("")
        (second.path / "b").write_text("")
    assert (first.final, second.final) == (Path("prefdyn-out/audit-1"), Path("prefdyn-out/audit-3"))
    assert sorted(os.listdir("prefdyn-out")) == ["audit-1", "audit-2", "audit-3"]
    with run_folder(None, command="train") as one, run_folder(None, command="train") as two:
        assert one.final != two.final


_DIES = """
import sys, time
from pathlib import Path
from prefdyn.outputs import output_folder, run_folder
what, out = sys.argv[1], Path(sys.argv[2])
if what == "folder":
    with output_folder(out, command="audit", force=True) as folder:
        (folder.path / "half").write_text("x")
        print("ready", flush=True); time.sleep(60)
if what == "run":
    with run_folder(out, command="train") as folder:
        print("ready", flush=True); time.sleep(60)
if what == "publish":
    import os
    from prefdyn import outputs
    rename = os.rename
    def stop(a, b):
        rename(a, b)
        print("ready", flush=True); time.sleep(60)
    os.rename = stop
    with output_folder(out, command="audit", force=True) as folder:
        (folder.path / "whole").write_text("x")
"""


def start(what, out):
    process = subprocess.Popen([sys.executable, "-c", _DIES, what, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("what", ["folder", "run"])
def test_what_a_killed_process_left_is_swept_and_a_living_one_is_spared(tmp_path, what):
    """By the next command, wherever it writes."""
    living, dying = start(what, tmp_path / "living"), start(what, tmp_path / "dying")
    try:
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        before = [name for name in os.listdir(tmp_path) if "living" in name]
        assert [name for name in os.listdir(tmp_path) if "dying" in name]
        _cache.sweep(outputs.discard)
        assert [name for name in os.listdir(tmp_path) if "living" in name] == before
        assert [name for name in os.listdir(tmp_path) if "dying.0" in name or name.endswith(".partial")] == [
            name for name in before if name.endswith(".partial")
        ]
        with pytest.raises(StoreError, match="another prefdyn is writing"):
            write(tmp_path / "living", force=True)
    finally:
        living.kill()
        living.wait()
        for process in (living, dying):
            assert process.stdout is not None
            process.stdout.close()
    _cache.sweep(outputs.discard)
    write(tmp_path / "dying", force=True) if what == "folder" else train(tmp_path / "dying", steps=[1])
    write(tmp_path / "living", force=True) if what == "folder" else train(tmp_path / "living", steps=[1])
    assert sorted(os.listdir(tmp_path)) == ["dying", "living"]


def test_a_result_that_was_being_replaced_gets_its_name_back(tmp_path):
    """A process killed between the two renames."""
    out = tmp_path / "out"
    write(out, text="old")
    before = state(out)
    process = start("publish", out)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert not out.exists()
    _cache.sweep(outputs.discard)
    assert state(out) == before
    assert [name for name in os.listdir(tmp_path) if not name.endswith("lock")] == ["out"]


def test_sweeping_needs_no_cache(tmp_path, monkeypatch):
    """Where none can be made, nothing is swept, and folders are still whole."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path / "file"))
    _cache.sweep(outputs.discard)
    write(tmp_path / "out")
    assert listed(tmp_path / "out") == [".prefdyn.json", "summary.json"]


def test_signs_of_processes_that_ended_well_are_gone(tmp_path):
    """So the cache does not grow."""
    code = "from prefdyn._cache import beside; from pathlib import Path; print(beside(Path('x'), 'partial'))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert _cache._HIDDEN.fullmatch(said.strip())
    assert os.listdir(_cache.cache_root() / "alive") == []
