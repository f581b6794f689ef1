"""`prefdyn check`: a gate for pipelines."""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefdyn import _typed
from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.errors import ConfigError
from prefdyn.settings import Extraction, Flag, Setup, Source

if TYPE_CHECKING:
    from prefdyn.planning.check import Checked

NAME = "check"
SUMMARY = "A gate for pipelines: what must not be in a dataset; exit 3 where it is."
HELP = (
    "A gate for pipelines: what must not be in a dataset, under stable codes (docs/checks.md). Exit 3 where a check "
    "fails. In GitHub Actions it also annotates the run and adds to its summary."
)
EXAMPLES = """Examples:

prefdyn check --data-only pairs.jsonl

prefdyn check pairs.jsonl --model ./my-model --fail-on contradiction,copies,looks-random --junit check.xml

prefdyn check pairs.jsonl --data-only --init check.yaml

prefdyn check pairs.jsonl --config check.yaml

prefdyn check --explain PD004"""
FAILED = 3
_SIMULATED = ("objective", "beta", "learning_rate", "steps")


def run(
    given: Given,
    files: o.Files = None,
    source: Annotated[
        Source, Only("data", "groups", "limit", "group_column", "columns", "template", "split")
    ] = Source(),
    model: o.Model = "builtin",
    features: o.Features = None,
    data_only: Annotated[bool, Flag("Only the checks that need no model.")] = False,
    fail_on: Annotated[
        tuple[str, ...] | None,
        Flag(
            "Checks that fail, by name or code: copies,PD101; none; the others warn.",
            default="those that docs/checks.md says",
            typed=str,
            read=_typed.names_or_none,
            lists=True,
        ),
    ] = None,
    ignore: Annotated[
        tuple[str, ...],
        Flag("A check that is not to count, by name or code, or CODE:GROUP. Several times.", typed=list[str]),
    ] = (),
    limits: Annotated[
        Mapping[str, float] | None,
        Flag(
            "Pairs (groups) that a check may find: copies=12,PD101=1; 0 for the others.", typed=str, read=_typed.factors
        ),
    ] = None,
    junit: Annotated[Path | None, Flag("Write the results to this JUnit XML file.")] = None,
    markdown: Annotated[Path | None, Flag("Write the results to this Markdown file.")] = None,
    init: Annotated[
        Path | None,
        Flag("Write these flags to this YAML file, with today's counts as limits, for --config; never fails."),
    ] = None,
    explain: Annotated[
        str | None, Flag("Say what a check is, why it matters and how to mend it; nothing is read.")
    ] = None,
    setup: Annotated[Setup, Only(*_SIMULATED)] = Setup(learning_rate="auto", steps=100),
    reading: Extraction = Extraction(),
    seed: o.Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the files if they exist.")] = False,
    json_output: o.Json = False,
) -> None:
    """Check, tell, and end with 3 where a check fails."""
    import json

    from prefdyn.cli import common
    from prefdyn.outputs import output_file
    from prefdyn.planning.check import check, named
    from prefdyn.report import check as shown

    if explain is not None:
        _alone(given, files)
        print(named(explain, "--explain").explained())
        return
    source = replace(source, data=(*source.data, *(files or ())), skip_bad_rows=True)
    _refuse_idle(given, files, data_only=data_only, features=features)
    rule: dict[str, Any] = {"fail_on": fail_on, "ignore": ignore, "limits": limits, "split": source.split, "seed": seed}
    simulated = {"objective": setup.loss, "learning_rate": setup.learning_rate, "steps": setup.steps}
    wanted = [path for path in (junit, markdown, init) if path is not None]
    with contextlib.ExitStack() as stack:
        # claimed first, so that what cannot be written is told before any work
        places = {path: stack.enter_context(output_file(path, force=force)) for path in wanted}
        if features is not None:
            feats, texts = common.stored_features(features, source, given, but=("split",))
            checked = check(feats, texts=texts, **rule, **simulated)
        else:
            pairs = common.dataset(source, seed=seed)
            checked = check(pairs, model, data_only=data_only, reading=reading, **rule, **simulated)
        section = shown.markdown(checked)
        contents = {junit: shown.junit(checked), markdown: section.encode(), init: _settings(given, checked).encode()}
        for path, place in places.items():
            place.write_bytes(contents[path])
    told = json.dumps(checked.summary(), ensure_ascii=False) if json_output else "\n".join(shown.lines(checked))
    print(told, flush=True)
    for path in wanted:
        common.tell(f"Wrote {path}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(shown.annotations(checked), section)
    if init is not None:
        common.tell(f"Next: prefdyn check DATA --config {init}")
    elif checked.failed:
        raise typer.Exit(FAILED)


def _alone(given: Given, files: list[str] | None) -> None:
    others = [name for name in given.values if name not in ("explain", "debug") and given.said(name)]
    if files or others:
        flag = "DATA" if files else f"--{others[0].replace('_', '-')}"
        raise ConfigError(f"{flag} changes nothing beside --explain, which reads no data; leave it out")


def _refuse_idle(given: Given, files: list[str] | None, *, data_only: bool, features: Path | None) -> None:
    """Refuse flags that would change nothing."""
    if data_only:
        for name in ("model", "features", "split", *_SIMULATED, *Extraction.flags()):
            if given.said(name):
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} changes nothing with --data-only, which needs no model; leave it out")
    if features is not None and files:
        raise ConfigError(f"{files[0]} cannot be used with --features; use it with `prefdyn extract` instead")


def _settings(given: Given, checked: "Checked") -> str:
    """The flags as a YAML file, with limits that the dataset just meets."""
    import yaml

    left = {"config", "data", "files", "features", "junit", "markdown", "init", "force", "json_output", "debug"}
    held = {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in given.values.items()
        if name not in left and given.said(name)
    }
    held["fail_on"] = ",".join(checked.fail_on) or "none"
    if today := checked.limits():
        held["limits"] = ",".join(f"{name}={count}" for name, count in today.items())
    head = "# Flags of `prefdyn check`: what fails, and how many pairs (of PD1..: groups) each check may find.\n"
    return head + yaml.safe_dump(held, sort_keys=True, allow_unicode=True, width=1000)


def _tell_github(told: list[str], summary: str) -> None:
    """Annotations of the run, and its summary, as GitHub Actions reads them."""
    for each in told:
        print(each, file=sys.stderr)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(summary)
