"""Every command beside somebody's files, with every mix of --out, --force and --resume: nothing of theirs changes."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

SMALL = ("--groups", "likes company,keeps promises", "--limit", 8)
COMMANDS = {
    "audit": ("audit", *SMALL, "--steps", 2),
    "extract": ("extract", *SMALL),
    "simulate": ("simulate", "--features", "FEATURES", "--steps", 2),
    "bounds": ("bounds", "--features", "FEATURES", "--steps", 2),
    "field": ("field",),
    "train": ("train", *SMALL, "--tune", "last-layer", "--steps", 2),
    "compare": ("compare", "RUN", "RUN"),
    "score": ("score", *SMALL),
    "reproduce": ("reproduce", "gradient-field", "--preset", "smoke"),
    "report": ("report", "RUN"),
    "data": ("data", *SMALL),
}
FAILING = {
    "audit": ("--model", "/nope"),
    "extract": ("--model", "/nope"),
    "simulate": ("--learning-rate", "x"),
    "bounds": ("--learning-rate", "x"),
    "field": ("--beta", "-1"),
    "train": ("--model", "/nope"),
    "compare": ("--loss", "x"),
    "score": ("--model", "/nope"),
    "reproduce": ("--data", "nope.jsonl"),
    "report": ("nope",),
    "data": ("--groups", "nope"),
}
TARGETS = {
    "their folder": "thesis",
    "their project": "project",
    "their empty folder": "thesis/empty",
    "a folder with names like ours": "likeness",
    "a file": "notes.txt",
    "a file like ours": "report.html",
    "a link to a folder": "link",
    "a link to a file": "filelink",
    "a link to nothing": "broken",
    "the parent": "..",
    "this folder": ".",
    "below a file": "notes.txt/out",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Features and a run, written once by the commands themselves."""
    import subprocess
    import sys

    home = tmp_path_factory.mktemp("made")
    environment = {**os.environ, "PREFDYN_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1"}
    for command in (
        ("extract", *SMALL, "--out", "features"),
        ("simulate", "--features", "features", "--steps", 2, "--out", "run"),
    ):
        arguments = [sys.executable, "-m", "prefdyn", *map(str, command)]
        subprocess.run(arguments, cwd=home, env=environment, check=True, capture_output=True)
    return home


@pytest.fixture
def theirs(tmp_path):
    """Somebody's files: a thesis, a project, names like ours, links out of it, a file in a folder's place."""
    home = tmp_path / "theirs" / "work"
    for name, text in {
        "thesis/thesis.tex": "years of work",
        "thesis/.hidden": "x",
        "thesis/checkpoints/step-000100/tensors.safetensors": "their weights",
        "project/config.yaml": "a: 1",
        "project/src/main.py": "x",
        "likeness/.prefdyn.json": '{"schema": 1, "command": "train", "finished": false, "files": {}}',
        "likeness/summary.json": "{}",
        "likeness/config.yaml": "beta: 1",
        "likeness/checkpoints/step-000002/checkpoint.json": "{}",
        "likeness/.results.0123456789ab.partial/x": "x",
        ".thesis.0123456789ab.partial/x": "a folder under a name like our hidden ones",
        ".thesis.0123456789ab.old": "x",
        "notes.txt": "notes",
        "report.html": "<p>mine</p>",
        "prefdyn-out/mine.txt": "x",
        "../beside.txt": "x",
    }.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (home / "thesis" / "empty").mkdir()
    (home / "link").symlink_to(home / "thesis")
    (home / "filelink").symlink_to(home / "notes.txt")
    (home / "broken").symlink_to(home / "missing")
    (home / "thesis" / "out").symlink_to(tmp_path)
    return home


def state(folder):
    """Kind, content, times and inode of every path; of folders not the times, which a file beside theirs changes."""
    found = {}
    for top, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(top) / name
            about = path.lstat()
            plain = path.is_file() and not path.is_symlink()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if plain else ""
            link = os.readlink(path) if path.is_symlink() else ""
            found[str(path)] = (about.st_ino, about.st_mode, about.st_mtime_ns if plain else 0, content, link)
    return found


def combinations():
    for command in COMMANDS:
        for flags in ((), ("--force",), *((("--resume",), ("--resume", "--force")) if command == "train" else ())):
            for fails in (False, True):
                yield command, flags, fails


def arguments(command, made, out):
    filled = [str(made / {"FEATURES": "features", "RUN": "run"}[part]) if part in ("FEATURES", "RUN") else part
              for part in COMMANDS[command]]  # fmt: skip
    return [*filled, "--to" if command == "data" else "--out", out]


@pytest.mark.parametrize(("command", "flags", "fails"), list(combinations()))
def test_nothing_of_theirs_changes(prefdyn, monkeypatch, theirs, made, command, flags, fails):
    """Thirteen targets each: refused in one line, or written beside their files; a failure leaves nothing."""
    monkeypatch.chdir(theirs)
    monkeypatch.setenv("PREFDYN_CACHE", str(made / "cache"))  # what is read of the model is no matter here
    before = state(theirs.parent)
    for what, out in TARGETS.items():
        answer = prefdyn(*arguments(command, made, out), *flags, *(FAILING[command] if fails else ()))
        if answer.code == 1:
            assert state(theirs.parent) == before, (what, answer.err)
            assert "unexpected" not in answer.last_line
        else:  # an empty folder holds nothing that could be lost
            assert (what, answer.code, "--force" in flags, fails) == ("their empty folder", 0, True, False), answer.err
            empty = str(theirs / "thesis" / "empty")
            kept = {path: found for path, found in state(theirs.parent).items() if not path.startswith(empty)}
            assert kept == {path: found for path, found in before.items() if path != empty}
            shutil.rmtree(empty)
            Path(empty).mkdir()
            before = state(theirs.parent)
    out = {"report": "theirs-not/page.html", "data": "theirs-not/x.jsonl"}.get(command, "thesis/deep/new")
    answer = prefdyn(*arguments(command, made, out), *flags, *(FAILING[command] if fails else ()))
    assert answer.code == int(fails), answer.err
    after = state(theirs.parent)
    assert {path: after.get(path) for path in before} == before
    if fails:
        assert after == before
    else:
        assert (theirs / out).exists()
        new = {path for path in after if path not in before}
        assert all(path.startswith(str(theirs / Path(out).parts[0])) for path in new)


def test_there_are_at_least_two_hundred_combinations():
    assert len(list(combinations())) * (len(TARGETS) + 1) >= 200
