"""What takes long is told on a terminal: at once where it lasts, not at all where it does not; elsewhere nothing is."""

import gc
import sys
import time

import pytest

from prefdyn import _progress
from prefdyn._progress import frameworks, step, track


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(_progress, "QUIET", 0.05)


def test_a_step_that_lasts_is_told_before_it_ends_and_what_it_took_after(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with step("Loading much (10 GB)"):
        time.sleep(0.2)
        assert capsys.readouterr().err == "Loading much (10 GB) …\n"
    assert capsys.readouterr().err == "Loading much: took 1 s\n"
    with step("Loading little"):
        pass
    with step("Loading in silence", shown=False):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_step_that_fails_tells_no_time_and_leaves_no_timer(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(ZeroDivisionError), step("Dividing"):
        raise ZeroDivisionError
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_nothing_is_told_where_stderr_is_no_terminal(capsys):
    with step("Loading much"):
        time.sleep(0.2)
    assert [number for number in track(range(3), "Counting", unit="numbers") if not time.sleep(0.05)] == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_what_libraries_made_is_never_looked_through_again_only_where_the_process_is_ours():
    before = gc.get_freeze_count()
    with frameworks():
        pass
    assert gc.get_freeze_count() == before
    try:
        with frameworks(for_good=True):
            made = [[]]
        assert gc.get_freeze_count() > before
        assert not any(each is made for each in gc.get_objects())
    finally:
        gc.unfreeze()
