"""The page for those who come from elsewhere names commands, flags and functions that there are."""

import importlib
import re

import pytest
import typer

import prefdyn as pdy
from prefdyn.cli import app
from prefdyn.planning.group_row import COLUMNS
from tests.conftest import REPO

TEXT = (REPO / "docs" / "coming_from.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]
HERE = " ".join(row[1] for row in ROWS)
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
PAIRS = {"agreement", "value_own", "value_all", "value_worst", "label_score", "agreement_controlled", "chosen_change"}


def test_every_table_has_two_columns():
    assert len(ROWS) > 20
    assert all(len(row) == 2 for row in ROWS)


@pytest.mark.parametrize("code", sorted(set(re.findall(r"`(prefdyn [^`]+)`", TEXT))))
def test_its_commands_and_flags_exist(code):
    name = code.split()[1]
    assert name in COMMANDS
    flags = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert set(re.findall(r"--[a-z-]+", code)) <= flags


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(prefdyn(?:\.\w+)+)`", TEXT))))
def test_its_functions_exist(name):
    module, _, function = name.rpartition(".")
    assert hasattr(importlib.import_module(module), function)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`pdy\.(\w+)`", TEXT))))
def test_its_short_names_exist(name):
    assert name in pdy.__all__


def test_its_columns_exist():
    named = set(re.findall(r"column `(\w+)`", HERE))
    assert named
    assert named <= {*COLUMNS, *PAIRS}


def test_its_recipes_exist():
    from prefdyn.experiments.recipes import recipe_named

    named = set(re.findall(r"prefdyn reproduce ([a-z-]+)", TEXT))
    assert named
    for name in named:
        assert recipe_named(name).name == name


def test_its_rules_exist():
    from prefdyn.planning.rules import RULES

    named = {rule for row in ROWS if row[1].startswith("rule") for rule in re.findall(r"`(\w+)`", row[1])}
    assert named == {"ref_margin", "small_gap", "loss_after", "length_gap"}
    assert named <= set(RULES)
