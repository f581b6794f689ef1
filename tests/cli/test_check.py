"""`prefdyn check` as people and pipelines run it."""

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from scripts.check_page import PAGE
from tests.planning.test_check import rows


@pytest.fixture(autouse=True)
def no_pipeline(monkeypatch):
    """Tests that run in a pipeline are not one of its steps."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def test_one_copy_makes_the_command_fail_and_its_limits_let_it_pass(prefdyn, tmp_path):
    path, junit_file, settings = (tmp_path / name for name in ("d.jsonl", "j.xml", "c.yaml"))
    written = "".join(json.dumps(row) + "\n" for row in [*rows(30), rows(30)[0]])
    path.write_text(written)
    ended = prefdyn("check", path, "--data-only", "--junit", junit_file, "--init", settings)
    assert ended.code == 0
    assert "PD006 copies" in ended.out
    assert yaml.safe_load(settings.read_text())["limits"] == "copies=2"
    assert ElementTree.parse(junit_file).getroot().attrib["failures"] == "1"
    assert prefdyn("check", path, "--config", settings).code == 0
    more = tmp_path / "more.jsonl"
    more.write_text(written + json.dumps(rows(30)[1]) + "\n")
    ended = prefdyn("check", more, "--config", settings, "--json")
    assert ended.code == 3
    told = json.loads(ended.out)
    assert told["failed"]
    assert {item["name"]: item["count"] for item in told["checks"] if item["outcome"] == "failed"} == {"copies": 4}


def test_in_github_actions_the_run_is_annotated_and_its_summary_added_to(prefdyn, tmp_path, monkeypatch):
    path, summary = tmp_path / "d.jsonl", tmp_path / "summary.md"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows(30), rows(30)[0]]))
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    ended = prefdyn("check", path, "--data-only")
    assert ended.code == 3
    assert "::error title=PD006 copies::" in ended.err
    assert summary.read_text().startswith("before\n### prefdyn check: failed")


def test_flags_without_effect_are_refused(prefdyn, tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(30)))
    for words, says in (
        ((path, "--data-only", "--model", "x"), "--model changes nothing with --data-only"),
        ((path, "--data-only", "--split", "0.5"), "--split changes nothing with --data-only"),
        ((path, "--explain", "copies"), "DATA changes nothing beside --explain"),
        (("--explain", "copies", "--data-only"), "--data-only changes nothing beside --explain"),
        (("--explain", "copys"), "did you mean 'copies'"),
        ((path, "--features", tmp_path), "cannot be used with --features"),
    ):
        ended = prefdyn("check", *words)
        assert ended.code == 1
        assert says in ended.err
    assert "counts twice" in prefdyn("check", "--explain", "copies").out


def test_the_hook_and_the_workflow_call_what_there_is(prefdyn, tmp_path):
    root = PAGE.parent.parent
    (hook,) = yaml.safe_load((root / ".pre-commit-hooks.yaml").read_text())
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows(30), rows(30)[0]]))
    program, *words = hook["entry"].split()
    assert program == "prefdyn"
    assert prefdyn(*words, "--fail-on", "contradiction,copies", path).code == 3
    assert prefdyn(*words, "--fail-on", "contradiction", path).code == 0
    workflow = yaml.safe_load((root / "examples" / "check.yml").read_text())
    steps: list[Mapping[str, Any]] = workflow["jobs"]["check"]["steps"]
    (texts,) = (step["run"].split() for step in steps if step.get("name") == "texts")
    words = [str(path) if word.startswith("data/") else word for word in texts[1:]]
    assert prefdyn(*words).code == 3
    assert (tmp_path / "texts.xml").exists()


def test_a_file_that_cannot_be_written_is_told_before_any_work(prefdyn, tmp_path):
    theirs = tmp_path / "mine.xml"
    theirs.write_text("not ours")
    ended = prefdyn("check", tmp_path / "no such data.jsonl", "--junit", theirs, "--force")
    assert ended.code == 1
    assert "mine.xml" in ended.last_line
    assert theirs.read_text() == "not ours"
