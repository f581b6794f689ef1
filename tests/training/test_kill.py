"""The helper that kills and resumes: it passes a program that resumes rightly, and catches one that does not."""

import sys

import pytest

from tests.training.kill import differences, run_broken, run_whole

_PROGRAM = """
import json, random, sys, time
from pathlib import Path
from prefdyn._files import atomic_write
out, steps, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
draw, total, step = random.Random(0), 0.0, 0
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
path = out / "checkpoints" / "state.json"
if "--resume" in sys.argv and path.is_file():
    step, total, state = json.loads(path.read_text())
    if kind == "right":
        draw.setstate((state[0], tuple(state[1]), state[2]))
while step < steps:
    total, step = total + draw.random(), step + 1
    time.sleep(0.004)
    if step % 3 == 0:
        atomic_write(path, json.dumps([step, total, draw.getstate()]).encode())
if kind == "failing":
    sys.exit("no luck")
(out / "result.txt").write_text(repr(total))
"""


def commands(tmp_path, steps, kind):
    """The same program for two folders."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    return [[sys.executable, str(program), str(tmp_path / name), str(steps), kind] for name in ("whole", "broken")]


@pytest.mark.thorough
def test_what_resumes_rightly_passes_and_what_does_not_is_caught(tmp_path):
    """The same number to the last digit; a generator that starts anew at each resumption gives another."""
    for kind in ("right", "wrong"):
        (tmp_path / kind).mkdir()
        one, two = commands(tmp_path / kind, 400, kind)
        whole = run_whole(one, tmp_path / kind / "whole", files=["result.txt"])
        assert 0 < whole.started < whole.took
        counted = []
        broken = run_broken(two, tmp_path / kind / "broken", whole=whole, kills=6, after=counted.append)
        assert counted == [1, 2, 3, 4, 5, 6]
        assert len(broken.kills) == 6
        assert broken.progressed >= 3
        assert differences(whole.files, broken.files) == ([] if kind == "right" else ["result.txt"])


def test_a_run_that_is_too_short_or_fails_is_no_proof(tmp_path):
    """Both are errors of the test, not a pass."""
    one, two = commands(tmp_path, 60, "right")
    whole = run_whole(one, tmp_path / "whole", files=["result.txt"])
    with pytest.raises(AssertionError, match=r"it was done after \d+ of 500 kills; give it more steps"):
        run_broken(two, tmp_path / "broken", whole=whole, kills=500, early=0.0)
    with pytest.raises(AssertionError, match="ended with 1; it said: no luck"):
        run_whole(commands(tmp_path, 3, "failing")[0], tmp_path / "whole", files=[])
    with pytest.raises(AssertionError, match="took more than 0 s"):
        run_whole(one, tmp_path / "whole", files=[], timeout=0.0)


def test_differences_are_named():
    """Other bytes, and a file that one side lacks."""
    assert differences({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"x", "d": b"4"}) == ["b", "c", "d"]
