"""`prefdyn score` as a user runs it: the folder, the table, the advice, the errors."""

import json

import pyarrow.parquet as pq
import pytest
import yaml

import prefdyn as pdy
from tests.cli.conftest import pair, write_rows

SOME = ("--groups", "likes company,keeps promises", "--limit", 20)


def test_score_writes_a_folder_and_tells_what_comes_next(prefdyn, tmp_path):
    """Three files; a table per group on stdout; the commands that use it on stderr."""
    answer = prefdyn("score", *SOME, "--out", "scores")
    assert answer.code == 0, answer.err
    shown = {path.name for path in (tmp_path / "scores").glob("[!.]*")}
    assert shown == {"config.yaml", "scores.parquet", "summary.json"}
    assert all(name in answer.out for name in ("likes company", "keeps promises", "log p chosen", "per token"))
    assert "nan" not in answer.out
    assert "Next: prefdyn train --eos --reference scores" in answer.err
    assert "DPOConfig(bf16=False, precompute_ref_log_probs=True, max_length=None)" in answer.err
    assert 'data_files="scores/scores.parquet"' in answer.err

    table = pq.read_table(tmp_path / "scores" / "scores.parquet")
    found = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert found["command"] == "score"
    assert found["dataset"]["pairs"] == len(table) == 40
    assert found["settings"] == {
        "kind": "responses", "eos": True, "answers": None, "max_length": None, "autocast": None,
        "seed": 0, "split": 0.9,
    }  # fmt: skip
    assert found["model"]["name"] == "builtin"
    assert [row["name"] for row in found["groups"]] == ["likes company", "keeps promises"]
    means = table.group_by("group", use_threads=False).aggregate([("ref_chosen_logps", "mean")]).to_pydict()
    assert [row["chosen_logps"] for row in found["groups"]] == pytest.approx(means["ref_chosen_logps_mean"])
    assert set(table["split"].to_pylist()) == {"train", "held_out"}


def test_json_and_config_bring_back_the_same_bytes(prefdyn, tmp_path):
    """--json on stdout; config.yaml holds every flag, --no-eos too."""
    made = prefdyn("score", *SOME, "--no-eos", "--out", "one", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["settings"]["kind"] == "answers"
    assert "Next: prefdyn train --no-eos --reference one" in made.err
    assert "warning: Without end tokens these are not the references of a TRL run" in made.err
    assert yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())["eos"] is False
    back = prefdyn("score", "--config", "one/config.yaml", "--out", "two")
    assert back.code == 0, back.err
    assert (tmp_path / "two" / "scores.parquet").read_bytes() == (tmp_path / "one" / "scores.parquet").read_bytes()


def test_the_command_and_the_function_agree(prefdyn, tmp_path):
    """`pdy.score` gives the table that the command writes."""
    assert prefdyn("score", *SOME, "--out", "scores").code == 0
    data = pdy.load_dataset("builtin", groups=["likes company", "keeps promises"], limit=20).with_held_out(0.9)
    assert pdy.score(data, "builtin").table.equals(pq.read_table(tmp_path / "scores" / "scores.parquet"))


def test_precision_is_named_for_trl(prefdyn):
    """What TRL must be told so that it computes as these numbers were computed."""
    mixed = prefdyn("score", *SOME, "--autocast", "bfloat16", "--out", "mixed")
    assert "DPOConfig(bf16=True, precompute" in mixed.err
    half = prefdyn("score", *SOME, "--dtype", "bfloat16", "--out", "half")
    assert 'DPOConfig(model_init_kwargs={"dtype": "bfloat16"}, precompute' in half.err


def test_pairs_that_are_left_out_are_told_and_listed(prefdyn, tmp_path):
    """Bad rows of the file and pairs too long for the model, in one list."""
    rows = [pair(k) for k in range(6)]
    rows[1]["prompt"] = "apples " * 2000
    rows[2]["chosen"] = ""
    write_rows(tmp_path / "d.jsonl", rows)
    answer = prefdyn("score", "--data", "d.jsonl", "--skip-bad-rows", "--out", "scores")
    assert answer.code == 0, answer.err
    assert "warning: 1 of 5 pairs are left out; the first: prompt and longer response of" in answer.err
    left = json.loads((tmp_path / "scores" / "summary.json").read_text())["dataset"]["left_out"]
    assert [item.get("field") for item in left] == ["chosen", None]
    assert "longer than the model's context" in left[1]["reason"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--autocast", "bf16"), "autocast 'bf16' is unknown; did you mean 'bfloat16'?"),
        (("--answers", "Yes"), "must be two words with a comma between"),
        (("--split", "2"), "--split is 2.0, but must be above 0"),
        (("--model", "no/such/folder"), "does not exist"),
        (("--max-length", "3"), "none of the 40 pairs can be used"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(prefdyn, tmp_path, flags, says):
    answer = prefdyn("score", *SOME, *flags, "--out", "scores")
    assert answer.code == 1
    assert says in answer.err
    lines = [line for line in answer.err.strip().splitlines() if "--limit is at most" not in line]
    assert len(lines) == 1
    assert not (tmp_path / "scores").exists()


def test_a_folder_that_exists_is_kept(prefdyn, tmp_path):
    assert prefdyn("score", *SOME, "--out", "scores").code == 0
    assert "exists already; add --force" in prefdyn("score", *SOME, "--out", "scores").err
    assert prefdyn("score", *SOME, "--out", "scores", "--force").code == 0
