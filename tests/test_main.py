"""How the process of a command ends: with everything that was to be done at its end, and without being taken down."""

import os
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import atexit, os, sys, threading, time
import prefdyn.cli

class Last:
    def __del__(self, write=os.write):
        write(1, b"taken down\\n")

kept = Last()  # as long as the interpreter stands

def command():
    atexit.register(print, "at exit")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread")), daemon=False).start()
    print("result")
    {end}

prefdyn.cli.main = command
from prefdyn.__main__ import main
main()
"""


def ended(end, out: Any = subprocess.PIPE):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = [sys.executable, "-c", PROGRAM.format(end=end)]
    return subprocess.run(program, stdout=out, stderr=subprocess.PIPE, text=True, check=False, env=buffered)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_ends_with_its_code_once_threads_and_hooks_are_done_and_nothing_is_taken_down(code):
    done = ended(f"sys.exit({code})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "result\nthread\nat exit\n", "")


def test_an_error_that_is_shown_whole_ends_as_python_ends():
    done = ended("raise RuntimeError('whole')")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("RuntimeError: whole")
    assert done.stdout == "result\nthread\nat exit\ntaken down\n"


def test_what_cannot_be_written_is_told_as_ever():
    with open("/dev/full", "w") as full:
        done = ended("sys.exit(0)", full)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr
