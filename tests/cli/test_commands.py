"""The commands as a user runs them, one after the other, on data of every kind."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn.cli import COMMANDS
from scripts.command_page import PAGE, page
from tests.cli.conftest import pair, write_rows

WRITTEN = {"config.yaml", "groups.csv", "pairs.parquet", "report.html", "summary.json", "trajectory.parquet"}
SOME = "likes company,keeps promises,takes risks"


def names(folder):
    return {path.name for path in folder.iterdir() if path.name != ".prefdyn.json"}


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def apples(count, *, group=None):
    """Statements that a reader tells apart by one word."""
    rows = []
    for k in range(count):
        row = pair(k)
        row["prompt"] = f'Would you say this?\n"I {"love" if k % 2 == 0 else "hate"} the number {k}"'
        del row["group"]
        rows.append(row | ({"subset": group(k)} if group else {}))
    return rows


def test_audit_extract_simulate_and_report_on_the_built_in_data(prefdyn, tmp_path):
    """Every command of the chain, each from what the one before wrote; same features, same result."""
    first = prefdyn("audit", "--groups", SOME, "--limit", 60, "--out", "first")
    assert first.code == 0, first.err
    assert names(tmp_path / "first") == WRITTEN
    assert all(name in first.out for name in SOME.split(","))
    assert "Next: open first/report.html" in first.err
    assert summary(tmp_path / "first")["command"] == "audit"

    features = prefdyn("extract", "--groups", SOME, "--limit", 60, "--out", "features")
    assert "Next: prefdyn audit --features features" in features.err
    again = prefdyn("audit", "--features", "features", "--out", "again")
    assert again.code == 0, again.err
    assert again.out == first.out
    for file in ("groups.csv", "pairs.parquet", "trajectory.parquet"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "first" / file).read_bytes()

    grid = prefdyn("simulate", "--features", "features", "--beta", "0.05,0.1", "--steps", "3,6", "--out", "grid")
    assert grid.code == 0, grid.err
    assert names(tmp_path / "grid") == WRITTEN - {"groups.csv", "pairs.parquet"} | {"cells.csv"}
    cells = summary(tmp_path / "grid")["grid"]["cells"]
    assert sorted((each["beta"], each["steps"]) for each in cells) == [(0.05, 3), (0.05, 6), (0.1, 3), (0.1, 6)]
    assert "Take " in grid.out
    one = prefdyn("simulate", "--features", "features", "--optimizer", "adam", "--learning-rate", "0.01", "--steps", 6,
                  "--batch-size", "32", "--schedule", "cosine", "--out", "one")  # fmt: skip
    assert one.code == 0, one.err
    assert names(tmp_path / "one") == WRITTEN
    assert summary(tmp_path / "one")["settings"]["schedule"] == "cosine"

    assert prefdyn("report", "grid", "--out", "grid.html").code == 0
    page = prefdyn("report", "first", "grid", "--out", "both.html")
    assert page.code == 0, page.err
    text = (tmp_path / "both.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert prefdyn("report", "first", "--out", "both.html").code == 1


@pytest.mark.thorough
def test_the_same_command_twice_takes_the_next_free_folder_and_force_replaces(prefdyn, tmp_path):
    small = ("--groups", SOME, "--limit", 30, "--steps", 2)
    for number in (1, 2):
        assert prefdyn("audit", *small).code == 0
        assert names(tmp_path / "prefdyn-out" / f"audit-{number}") == WRITTEN
    assert prefdyn("audit", *small, "--out", "prefdyn-out/audit-1").code == 1
    assert prefdyn("audit", *small, "--out", "prefdyn-out/audit-1", "--force").code == 0


@pytest.mark.thorough
def test_json_goes_to_stdout_and_config_brings_every_flag_back(prefdyn, tmp_path):
    made = prefdyn("audit", "--groups", SOME, "--limit", 30, "--beta", 0.3, "--steps", 4, "--out", "one", "--json")
    assert json.loads(made.out)["settings"]["beta"] == 0.3
    back = prefdyn("audit", "--config", "one/config.yaml", "--out", "two", "--json")
    assert back.code == 0, back.err
    old, new = json.loads(made.out), json.loads(back.out)
    assert {key: new[key] for key in ("settings", "groups")} == {key: old[key] for key in ("settings", "groups")}
    won = prefdyn("audit", "--config", "one/config.yaml", "--beta", 0.2, "--out", "three", "--json")
    assert json.loads(won.out)["settings"]["beta"] == 0.2


@pytest.mark.slow
def test_a_csv_a_parquet_and_conversations_are_audited_alone_and_together(prefdyn, tmp_path):
    """One without groups, one with a group column of another name, one conversational with an implicit prompt."""
    plain, grouped = apples(60), apples(80, group=lambda k: f"part {k // 40}")
    with (tmp_path / "plain.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(plain[0]))
        writer.writeheader()
        writer.writerows(plain)
    pq.write_table(pa.Table.from_pylist(grouped), tmp_path / "grouped.parquet")
    turns = []
    for row in apples(60):
        asked = {"role": "user", "content": row["prompt"]}
        sides = ("chosen", "rejected")
        turns.append(
            {side: [asked, {"role": "assistant", "content": row[side].strip()}] for side in sides} | {"source": "chat"}
        )
    write_rows(tmp_path / "chat.jsonl", turns)

    one = prefdyn("audit", "--data", "plain.csv", "--steps", 5, "--out", "one")
    assert one.code == 0, one.err
    assert [row["name"] for row in summary(tmp_path / "one")["groups"]] == ["all"]
    two = prefdyn("audit", "--data", "grouped.parquet", "--steps", 5, "--out", "two")
    assert two.code == 0, two.err
    assert [row["name"] for row in summary(tmp_path / "two")["groups"]] == ["part 0", "part 1"]
    three = prefdyn("audit", "--data", "chat.jsonl", "--steps", 5, "--out", "three")
    assert three.code == 0, three.err
    assert [row["name"] for row in summary(tmp_path / "three")["groups"]] == ["chat"]
    both = prefdyn("audit", "--data", "csv=plain.csv", "--data", "grouped.parquet", "--steps", 5, "--out", "both")
    assert both.code == 0, both.err
    assert [row["name"] for row in summary(tmp_path / "both")["groups"]] == ["csv", "part 0", "part 1"]


def test_bad_rows_are_left_out_on_request_and_each_is_listed(prefdyn, tmp_path):
    rows = apples(42)
    rows[40]["prompt"] = None
    rows[41]["rejected"] = rows[41]["chosen"]
    write_rows(tmp_path / "d.jsonl", rows)
    assert prefdyn("audit", "--data", "d.jsonl").code == 1
    answer = prefdyn("audit", "--data", "d.jsonl", "--skip-bad-rows", "--steps", 3, "--out", "out")
    assert answer.code == 0, answer.err
    listed = summary(tmp_path / "out")["dataset"]["left_out"]
    assert [(row["line"], row["field"]) for row in listed] == [(41, "prompt"), (42, "rejected")]


def test_data_says_what_a_written_file_does_not_keep(prefdyn, tmp_path):
    rows = [{"q": f"Is {at} odd?", "one": " yes", "two": " no", "votes": [1, 1, 2]} for at in range(6)]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "prompt=q,first=one,second=two,winner=votes"
    answer = prefdyn("data", "--data", "votes.jsonl", "--columns", columns, "--to", "kept.jsonl")
    assert answer.code == 0, answer.err
    assert "kept.jsonl does not keep agreement and slot" in answer.err


def test_data_describes_and_converts(prefdyn, tmp_path):
    shown = prefdyn("data", "--groups", SOME, "--to", "some.parquet")
    assert shown.code == 0, shown.err
    assert "3 groups" in shown.out
    assert pq.read_table(tmp_path / "some.parquet").num_rows == 600
    assert json.loads(prefdyn("data", "--data", "some.parquet", "--json").out)["pairs"] == 600


@pytest.mark.thorough
def test_hostile_names_do_no_harm_on_disk(prefdyn, tmp_path):
    """Group names that look like paths or markup: nothing is written outside, and the page holds them as text."""
    evil = ["../../escape", "<script>alert(1)</script>", "a/b", "x" * 300]
    write_rows(tmp_path / "d.jsonl", apples(160, group=lambda k: evil[k // 40]))
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    answer = prefdyn("audit", "--data", "d.jsonl", "--steps", 3, "--out", "out")
    assert answer.code == 0, answer.err
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents} == before
    assert "<script>alert(1)" not in (tmp_path / "out" / "report.html").read_text()
    assert [row["name"] for row in summary(tmp_path / "out")["groups"]] == evil


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_ends_with_examples(prefdyn, command):
    shown = prefdyn(command, "--help")
    assert shown.code == 0
    assert f"prefdyn {command}" in shown.out.split("Examples:")[1]


def test_the_command_page_of_the_docs_is_the_help():
    """`uv run python scripts/command_page.py` writes it; this fails where that was forgotten."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize(
    "arguments", [["-c", "import prefdyn"], ["-m", "prefdyn", "--help"], ["-m", "prefdyn", "audit", "--help"]]
)
def test_starting_up_imports_neither_torch_nor_numpy(arguments):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert imported.isdisjoint({"torch", "numpy", "transformers", "pyarrow", "scipy", "matplotlib", "rich"})
    assert "prefdyn" in imported


def test_data_that_are_not_there_are_refused_before_anything_slow_is_imported(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "prefdyn", "audit", "--data", "nothere.jsonl"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "there is no file or folder nothere.jsonl" in ran.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines() if "|" in line}
    assert "pyarrow" in imported  # the control: imports are listed
    assert not imported & {"scipy", "sklearn", "matplotlib", "torch", "pandas", "transformers"}


def test_data_takes_files_by_themselves_as_check_does(prefdyn, tmp_path):
    write_rows(tmp_path / "a.jsonl", [pair(k) for k in range(3)])
    write_rows(tmp_path / "b.jsonl", [pair(k, group="h") for k in range(4)])
    named = prefdyn("data", "--data", "a.jsonl", "--data", "b.jsonl", "--json")
    assert prefdyn("data", "a.jsonl", "b.jsonl", "--json") == named
    assert prefdyn("data", "b.jsonl", "--data", "a.jsonl", "--json").out == named.out
    assert json.loads(named.out)["pairs"] == 7


def test_a_file_that_no_flag_names_is_refused_with_the_flag(prefdyn):
    for command, *others in (["audit"], ["extract"], ["plan", "weights"]):
        said = prefdyn(command, *others, "my pairs.jsonl")
        assert said.code == 2
        assert said.last_line.endswith("argument ('my pairs.jsonl'); data are read with --data 'my pairs.jsonl'")
    said = prefdyn("field", "pairs.jsonl")
    assert said.code == 2
    assert said.last_line.endswith("extra argument ('pairs.jsonl')")


def test_a_limit_says_that_it_is_of_each_group_and_what_was_read(prefdyn, tmp_path):
    write_rows(tmp_path / "a.jsonl", [pair(k) for k in range(9)])
    write_rows(tmp_path / "b.jsonl", [pair(k, group="h") for k in range(4)])
    both = prefdyn("data", "a.jsonl", "b.jsonl", "--limit", "5")
    assert both.err == "9 of 13 pairs are read: --limit is at most 5 of each of 2 groups\n"
    assert both.out.startswith("a+b: 9 pairs, 2 groups")
    assert (
        "13 of 13 pairs are read: --limit is at most 50 of each"
        in prefdyn("data", "a.jsonl", "b.jsonl", "--limit", "50").err
    )
    assert prefdyn("data", "a.jsonl", "--limit", "5").err == "5 of 9 pairs are read: --limit is 5\n"
    assert prefdyn("data", "a.jsonl", "--limit", "9").err == ""
