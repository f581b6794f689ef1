"""Random command lines over all commands: done, refused in one line, or a usage message; no file of others touched."""

import os
import shutil
from random import Random

import pytest

from prefdyn.maths.objectives import DPO
from prefdyn.planning.simulate import simulate
from prefdyn.store import save_features
from tests.cli.conftest import prefdyn  # noqa: F401  (a fixture)
from tests.fuzz.flags import COMMANDS, flag_set, inputs
from tests.report.make_folder import make_folder, make_trained_folder
from tests.test_store import features

FEW, MANY = 60, int(os.environ.get("PREFDYN_FUZZ_FLAGS", "500"))
QUICK = {"data", "report"}


@pytest.fixture
def command_line(prefdyn, tmp_path, monkeypatch):  # noqa: F811
    """`command_line(seed)` runs one set of flags in a folder with the inputs; gives the command and its exit code."""
    place = tmp_path / "work" / "here"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    folders(place)
    known = {path.name for path in place.iterdir()}

    def run(seed, among=None):
        asked = flag_set(Random(f"flags {seed}"))
        if among is not None and asked[0] not in among:
            return asked[0], None
        answer = prefdyn(*asked)
        try:
            assert answer.code in {0, 1, 2}, (seed, asked, answer)
            assert "Traceback" not in answer.err, (seed, asked, answer.err)
            assert "this is a bug" not in answer.err, (seed, asked, answer.err)
            if answer.code == 1:
                assert answer.last_line.startswith("prefdyn: "), (seed, asked, answer.err)
            assert (place / "mine" / "notes.txt").read_text() == "keep me", (seed, asked)
            assert not {path.name for path in (place / "mine").iterdir()} - {"notes.txt"}, (seed, asked)
        finally:
            for path in place.iterdir():
                if path.name not in known:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            inputs_again(place)
        return asked[0], answer.code

    return run


def folders(place):
    """Inputs, and a folder of ours of each kind."""
    inputs(place)
    make_folder(place / "audit", names=2)
    make_trained_folder(place / "trained", names=2)
    (place / "simulated").mkdir()
    simulate(features(24), DPO(), steps=3).write(place / "simulated")
    save_features(features(), place / "features")


def inputs_again(place):
    """As at the start: a set of flags may replace an input by its own leave (--force)."""
    shutil.rmtree(place / "mine")
    inputs(place)


@pytest.mark.thorough
def test_some_command_lines(command_line):
    codes = [code for seed in range(FEW) if (code := command_line(seed, QUICK)[1]) is not None]
    assert set(codes) >= {0, 1}


@pytest.mark.slow
def test_hundreds_of_command_lines(command_line):
    found, wrong = [], []
    for seed in range(int(os.environ.get("PREFDYN_FUZZ_FROM", "0")), MANY):
        try:
            found.append(command_line(seed))
        except AssertionError as error:
            wrong.append(error)
    assert not wrong
    assert {command for command, _ in found} == set(COMMANDS)
    assert {code for _, code in found} == {0, 1, 2}
