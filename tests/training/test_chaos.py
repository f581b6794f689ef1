"""Two processes of which one is killed or stopped: the other ends soon and says why, and nothing is lost."""

import random
import signal
import time

import pytest

from scripts.chaos_ranks import COMMANDS, differences, disturb, finish, main, ranks, results, whole


def disturbed(tmp_path, name, how, *, seed, span=(0.5, 1.0), **options):
    """The moment, and the files after the command was given again, in one process."""
    (tmp_path / "broken").mkdir()
    moment = disturb(name, tmp_path / "broken", random.Random(seed), span, how, **options)
    finish(name, tmp_path / "broken", 1)
    return moment, results(name, tmp_path / "broken" / "out")


@pytest.mark.slow
def test_one_of_two_is_killed_at_work(tmp_path):
    """After the first shards: the other ends within seconds, and the same command comes to the same bytes alone."""
    assert random.Random(1).random() < 0.3  # an early moment …
    assert random.Random(0).random() > 0.3  # … and one after the first sign of progress
    moment, files = disturbed(tmp_path, "score", "SIGKILL", seed=0, span=(1.0, 1.2), PREFDYN_PEER_TIMEOUT="10")
    assert moment.progressed
    assert moment.code == 1
    assert moment.waited < 20
    assert f"prefdyn: rank {moment.killed} of 2 has ended without a word" in moment.said
    assert files == whole("score", tmp_path / "whole", count=1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_one_of_two_is_stopped(tmp_path, name):
    moment = disturb(name, tmp_path, random.Random(0), (1.0, 1.2), "SIGSTOP", PREFDYN_PEER_TIMEOUT="6")
    assert moment.code == 1
    assert 4 < moment.waited < 30
    assert f"prefdyn: rank {moment.killed} of 2 has given no sign of life for 6 s" in moment.said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_is_told_to_stop(tmp_path, rank):
    """Both stop after one and the same step, with its checkpoint, and go on from there."""
    name, folder = "train full", tmp_path / "stopped"
    folder.mkdir()
    with ranks([*COMMANDS[name], "--out", "out"], folder) as pair:
        while not list((folder / "out" / "checkpoints").glob("step-*")):
            assert [process.poll() for process in pair.processes] == [None, None]
            time.sleep(0.01)
        pair.processes[rank].send_signal(signal.SIGTERM)
        codes = [process.wait(120) for process in pair.processes]
        told, other = pair.words(rank), pair.words(1 - rank)
    assert (codes[rank], codes[1 - rank]) == (128 + signal.SIGTERM, 1)
    assert "prefdyn: terminated; " in told
    assert "another process was told to stop, after step" in other
    assert not (folder / "out" / "summary.json").exists()
    finish(name, folder, 2)
    assert differences(results(name, folder / "out"), whole(name, tmp_path / "whole")[0]) == []


@pytest.mark.slow
def test_twenty_moments(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["chaos_ranks.py", "--moments", "20", "--seed", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert "0 were not as they should be" in said
