"""Mutated files of flags: flags that the command can take, or one line that names the file."""

import os
from random import Random

import pytest
import typer
import yaml

from prefdyn.cli import app
from prefdyn.cli.options import _config
from prefdyn.errors import PrefdynError
from tests.fuzz.mutate import VALUES, spoilt

FEW, MANY = 150, int(os.environ.get("PREFDYN_FUZZ_CONFIGS", "1000"))
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
FLAGS = {
    "limit": 3, "groups": "a,b", "beta": 0.1, "learning_rate": "3e-4", "steps": 10, "seed": 0, "data": ["x.jsonl"],
    "model": "builtin", "eos": None, "force": False, "record": [1, 5], "answers": ["Yes", "No"],
    "trust_remote_code": False, "out": "o", "split": 0.9, "clip": 1, "loss": [0.5, 0.3], "json": True,
    "optimizer": "adamw", "dtype": "float32",
}  # fmt: skip


def known_to(command):
    return sorted(FLAGS.keys() & {parameter.name for parameter in command.params})


SPOKEN_OF = sorted(name for name, command in COMMANDS.items() if len(known_to(command)) > 1)


def tried(path, seed):
    """Whether a mutated file gave flags."""
    rng = Random(f"config {seed}")
    command = COMMANDS[rng.choice(SPOKEN_OF)]
    known = known_to(command)
    held = {name: FLAGS[name] for name in rng.sample(known, rng.randrange(1, len(known)))}
    if rng.random() < 0.5:
        held[rng.choice(sorted(held))] = rng.choice(VALUES)
        try:
            raw = yaml.safe_dump(held, allow_unicode=rng.random() < 0.5).encode()
        except UnicodeEncodeError:
            raw = repr(held).encode("utf-8", "replace")
    else:
        raw = spoilt(yaml.safe_dump(held).encode(), rng)
    path.write_bytes(raw)
    context = typer.Context(command)
    try:
        _config(context, path)
    except PrefdynError as error:
        message = str(error)
        assert "\n" not in message, (seed, message)
        assert str(path) in message, (seed, message)
        assert len(message) < 1000, (seed, message)
        return False
    assert set(context.default_map or {}) <= {parameter.name for parameter in command.params}, seed
    return True


def run(folder, count, start=0):
    read = sum(tried(folder / "c.yaml", seed) for seed in range(start, start + count))
    assert 0 < read < count


@pytest.mark.thorough
def test_some_files_of_flags(tmp_path):
    run(tmp_path, FEW)


@pytest.mark.slow
def test_a_thousand_files_of_flags(tmp_path):
    run(tmp_path, MANY, start=FEW)
