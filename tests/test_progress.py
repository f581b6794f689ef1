"""What takes long is told, where stderr is no terminal: at once where it lasts, not at all where it does not."""

import time

import pytest

from prefdyn import _progress
from prefdyn._progress import step, track


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(_progress, "QUIET", 0.05)


def test_a_step_that_lasts_is_told_before_it_ends_and_what_it_took_after(capsys):
    with step("Loading much (10 GB)"):
        time.sleep(0.2)
        assert capsys.readouterr().err == "Loading much (10 GB) …\n"
    assert capsys.readouterr().err == "Loading much: took 1 s\n"
    with step("Loading little"):
        pass
    with step("Loading in silence", shown=False):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_step_that_fails_tells_no_time_and_leaves_no_timer(capsys):
    with pytest.raises(ZeroDivisionError), step("Dividing"):
        raise ZeroDivisionError
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_loop_that_lasts_says_how_much_is_left_ever_more_seldom(capsys):
    assert list(track(range(60), "Counting", unit="numbers")) == list(range(60))
    assert capsys.readouterr().err == ""
    for _ in track(range(60), "Counting", unit="numbers"):
        time.sleep(0.01)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 3
    assert all(line.startswith("Counting: ") and line.endswith(" s left") for line in lines)
    done = [int(line.split()[1]) for line in lines]
    assert done[1] >= 2 * done[0]
