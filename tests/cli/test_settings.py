"""Every flag of every command: declared once, shown, read back, and refused where it would change nothing."""

import inspect
from dataclasses import fields

import pytest
import typer
import yaml

from prefdyn.cli import COMMANDS, app
from prefdyn.cli.command import Entry, entries
from prefdyn.errors import ConfigError
from prefdyn.models.extract import extract
from prefdyn.settings import Extraction, Reading, Setup, Source, opened
from tests.cli.conftest import pair, write_rows

PARSED = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
GIVEN = {
    "data": "d.jsonl", "groups": "a", "limit": "3", "group_column": "g", "columns": "prompt=p",
    "template": "question", "split": "0.5",
    "answers": "Yes,No", "max_length": "9", "revision": "main", "dtype": "float32", "device": "cpu", "attn": "eager",
    "batch_tokens": "99", "check": "none", "sketch": "64", "model": "nowhere", "exact": "3",
}  # fmt: skip
"""A value of each flag of reading; the others are switches."""


def own(name):
    return [entry for entry in entries(COMMANDS[name].run) if isinstance(entry, Entry)]


def test_every_field_says_what_it_is():
    for kind in (Source, Extraction, Setup):
        flags = kind.flags()
        assert set(flags) == {entry.name for entry in fields(kind)} - {"cache"}
        assert all(flag.help.endswith(".") for _, flag in flags.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_shown_is_what_is_declared(name):
    shown = {parameter.name: parameter for parameter in PARSED[name].params}
    for entry in own(name):
        help_text = shown[entry.name].help
        assert help_text.startswith(entry.flag.help.removesuffix(".")), entry.name
        assert ("comma list makes a grid" in help_text) == entry.grid


@pytest.mark.parametrize("name", ["audit", "simulate", "bounds", "train"])
def test_with_features_every_flag_of_reading_is_refused(prefdyn, name):
    """Whatever says which pairs are read, or how: on the command line even where it says the default."""
    allowed = {"group_weights"} | {"audit": {"split"}, "train": {"device"}}.get(name, set())
    reading = {*Source.flags(), *Extraction.flags(), "model", "untrained_twin", "exact"}
    tried = [entry for entry in own(name) if entry.name in reading - allowed]
    assert len(tried) > 14
    for entry in tried:
        flag = f"--{entry.name.replace('_', '-')}"
        for words in [[flag, GIVEN[entry.name]]] if entry.name in GIVEN else [[flag]]:
            answer = prefdyn(name, "--features", "nowhere", *words)
            assert answer.code == 1
            assert answer.last_line.startswith(f"prefdyn: {flag} cannot be used with --features"), answer.err
    for words in (["--model", "builtin"], ["--split", "0.9"] if name != "audit" else ["--dtype", "auto"]):
        assert f"{words[0]} cannot be used" in prefdyn(name, "--features", "nowhere", *words).last_line


def test_a_file_with_the_defaults_goes_with_features(prefdyn, tmp_path):
    """The config.yaml of another run says everything; only what it changes can contradict."""
    (tmp_path / "c.yaml").write_text("model: builtin\nsplit: 0.9\nsketch: 4096\nbeta: 0.2\n")
    assert "nowhere" in prefdyn("simulate", "--features", "nowhere", "--config", "c.yaml").last_line
    (tmp_path / "c.yaml").write_text("model: other\n")
    assert "--model cannot be used" in prefdyn("simulate", "--features", "nowhere", "--config", "c.yaml").last_line


CONDITIONAL = {name: flag.only for name, (_, flag) in Setup.flags().items() if flag.only is not None}
CHANGED = {
    "scheme": "replacement", "lora_rank": 4, "lora_alpha": 8.0, "lora_dropout": 0.1, "lora_targets": ("q_proj",),
    "gradient_checkpointing": True,
}  # fmt: skip
FITTING = {"scheme": {"batch_size": 4}, "gradient_checkpointing": {"tune": "full"}}


def test_every_setting_with_a_condition_is_tried():
    assert set(CHANGED) == set(CONDITIONAL)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_what_changes_nothing_is_refused_and_what_does_is_taken(name):
    says, _ = CONDITIONAL[name]
    idle = Setup(tune="last-layer", **{name: CHANGED[name]})
    with pytest.raises(ConfigError) as told:
        idle.idle()
    flag = f"--{name.replace('_', '-')} "
    assert told.value.typed.startswith(flag)
    assert f" changes nothing here; it is used {says}: leave it out" in told.value.typed
    assert str(told.value).startswith(f"{name} ")
    Setup(**{"tune": "lora", **FITTING.get(name, {}), name: CHANGED[name]}).idle()
    Setup(tune="last-layer").idle()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--tune", "full", "--lora-rank", 4], "--lora-rank 4 changes nothing here"),
        (["train", "--tune", "last-layer", "--gradient-checkpointing"], "--gradient-checkpointing True"),
        (["train", "--tune", "last-layer", "--scheme", "replacement"], "--scheme replacement changes nothing here"),
        (["train", "--objective", "ipo", "--label-smoothing", 0.1], "label_smoothing means nothing to 'ipo'"),
        (["simulate", "--scheme", "replacement"], "--scheme replacement changes nothing here"),
        (["simulate", "--target", 0.3], "--target 0.3 changes nothing here; it is used in grids"),
        (["audit", "--sketch", 64], "sketch is 64, but changes nothing here"),
        (["audit", "--exact", 3], "exact is 3, but changes nothing here"),
        (["data", "--template", "question"], "template 'question' is for persona:PATH data"),
        (["extract", "--revision", "main"], "revision 'main' is for hub models"),
        (["extract", "--device", "cpu", "--attn", "eager", "--dtype", "float32", "--limit", 2], None),
    ],
)  # fmt: skip
def test_a_flag_without_effect_is_an_error(prefdyn, words, says):
    answer = prefdyn(*words, *([] if words[0] == "data" else ["--out", "out"]))
    assert answer.code == (says is not None), answer.err
    assert says is None or says in answer.last_line


def test_a_setting_in_a_file_is_the_one_on_the_command_line(prefdyn, tmp_path):
    """What broke: one model in a file of `reproduce`, a list of steps in one of `train`."""
    (tmp_path / "c.yaml").write_text("model: builtin\npreset: smoke\n")
    answer = prefdyn("reproduce", "distinguishability", "--dry-run", "--config", "c.yaml", "--json")
    assert answer.code == 0, answer.err
    write_rows(tmp_path / "d.jsonl", [pair(k) for k in range(12)])
    (tmp_path / "c.yaml").write_text("record: [1, 2]\nsteps: 3\ntune: last-layer\n")
    answer = prefdyn("train", "--data", "d.jsonl", "--config", "c.yaml", "--out", "run")
    assert answer.code == 0, answer.err
    held = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert held["record"] == "1,2"
    assert held["lora_targets"] == "all-linear"
    again = prefdyn("train", "--config", "run/config.yaml", "--out", "again")
    assert again.code == 0, again.err
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text()) == held


def test_python_takes_the_object_or_its_fields():
    @opened(reading=Reading)
    def read(*, reading: Reading) -> Reading:
        return reading

    assert read() == Reading()
    assert read(reading=Reading(eos=True), max_length=4) == Reading(eos=True, max_length=4)
    with pytest.raises(ConfigError, match=r"^read has no setting 'max_lenght'; did you mean 'max_length'\?$"):
        read(max_lenght=1)
    with pytest.raises(ConfigError, match="max_length is 0"):
        read(max_length=0)
    assert {"sketch", "eos", "device", "untrained"} <= set(inspect.signature(extract).parameters)
