"""`prefdyn forecast`, and the commands that take its folder."""

import json

import pytest

from tests.cli.conftest import pair, write_rows
from tests.models.conftest import byte_tokenizer, make_model


@pytest.fixture
def place(tmp_path):
    """A tiny model and pairs of two groups."""
    make_model(tmp_path / "model", "llama-tied", byte_tokenizer())
    write_rows(tmp_path / "d.jsonl", [pair(k, group=f"g{k % 2}") for k in range(60)])
    return ["--data", "d.jsonl", "--model", "model", "--steps", "8", "--batch-size", "6", "--split", "0.5"]


@pytest.mark.thorough
def test_a_forecast_is_written_watched_and_held_against_the_run(prefdyn, place, tmp_path):
    told = prefdyn("forecast", *place, "--probe", 2, "--rehearse", 0.125, "--out", "told", "--json")
    assert told.code == 0, told.err
    summary = json.loads(told.out)
    assert summary["command"] == "forecast"
    assert summary["forecast"]["rehearsals"] == 2
    names = {path.name for path in (tmp_path / "told").iterdir()}
    assert names >= {"summary.json", "groups.csv", "curves.parquet", "report.html", "config.yaml", "checkpoints"}

    run = prefdyn("train", *place, "--tune", "lora", "--watch", "told", "--out", "run")
    assert run.code == 0, run.err
    check = prefdyn("compare", "told", "run", "--out", "check")
    assert check.code == 0, check.err
    assert "How good it was" in check.out
    here = ["--data", "d.jsonl", "--model", "model", "--forecast", "told"]
    audited = prefdyn("audit", *here, "--out", "audit", "--json")
    assert audited.code == 0, audited.err
    beside = json.loads(audited.out)["real_run"]
    assert {row["name"] for row in beside["rows"]} == {"g0", "g1"}
    assert "is not compared" in beside["says"]  # two groups have no order
    assert "The run that will be made" in (tmp_path / "audit" / "report.html").read_text()
    other = prefdyn("audit", *here, "--limit", 20)
    assert other.code == 1
    assert "told is of other pairs" in other.last_line
    planned = prefdyn("plan", "weights", *here, "--split", "0.5", "--steps", "5", "--out", "plan", "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)["plan"]["weights"]["in_the_run"]["steps"] == 16
    unread = prefdyn("plan", "weights", "--features", "audit", "--forecast", "told")
    assert unread.code == 1
    elsewhere = prefdyn("plan", "data", *here)
    assert elsewhere.code == 1
    assert "--forecast is for `prefdyn plan weights`" in elsewhere.last_line
    again = prefdyn("compare", "told", "run", "--loss", "0.5")
    assert again.code == 1
    assert "--loss changes nothing" in again.last_line
    wrong = prefdyn("train", *place, "--tune", "lora", "--watch", "run")
    assert wrong.code == 1
    assert "no folder that `prefdyn forecast` wrote" in wrong.last_line
    assert prefdyn("compare", "run", "told").code == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tune", "last-layer"], "--tune"),
        (["--probe", "-1"], "--probe '-1' must be a whole number"),
        (["--probe", "0", "--rehearse", "0"], "nothing real is run"),
        (["--rehearse", "2"], "share of the run's cost"),
        (["--objective", "sft"], "does not read"),
        (["--probe", "9"], "the run has 8"),
        (["--split", "1"], "held out"),
    ],
)
def test_what_cannot_be_foretold_is_refused_in_a_line_and_leaves_nothing(prefdyn, place, tmp_path, flags, said):
    answer = prefdyn("forecast", *place, *flags, "--out", "told")
    assert answer.code == 1
    assert said in answer.last_line
    assert not (tmp_path / "told").exists()
