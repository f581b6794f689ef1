"""Run the command line in this process, as a user would see it."""

import gzip
import json
import sys
from dataclasses import dataclass

import pytest

from prefdyn.cli import main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def last_line(self):
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


@pytest.fixture
def prefdyn(monkeypatch, capsys, tmp_path):
    """`prefdyn("audit", "--out", …)` → Answer(code, out, err); runs in an empty folder with its own cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prefdyn", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


def pair(k, *, group="g", **change):
    """One good row; odd ones answer No."""
    answers = (" Yes", " No") if k % 2 == 0 else (" No", " Yes")
    row = {"prompt": f'Is this you?\n"I like {k} apples"', "chosen": answers[0], "rejected": answers[1], "group": group}
    return row | change


def write_rows(path, rows):
    """JSON lines, gzipped if the name ends so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path
