"""`prefdyn train` as a user runs it: the folder, the table, going on, and what is refused in one line."""

import json

import numpy as np
import pytest
import yaml

from prefdyn.store import load_trajectory
from tests.cli.conftest import pair, write_rows

SOME = ("--groups", "likes company,keeps promises", "--limit", 12)
QUICK = (*SOME, "--tune", "full", "--learning-rate", "3e-4", "--batch-size", 8, "--steps", 3)


def test_weights_of_groups_are_those_of_the_rows(prefdyn, tmp_path):
    """As typed, in the data, and on features that were extracted without."""
    rows = [pair(at) | {"group": "ab"[at % 2], "weight": 1.0} for at in range(12)]
    write_rows(tmp_path / "plain.jsonl", rows)
    write_rows(tmp_path / "own.jsonl", [row | {"weight": 3.0 if row["group"] == "a" else 0.5} for row in rows])
    options = ("--tune", "last-layer", "--steps", 5, "--learning-rate", 0.5)
    weights = ("--group-weights", "a=3,b=0.5")
    assert prefdyn("extract", "--data", "plain.jsonl", "--out", "features").code == 0
    runs = {
        "typed": ("--data", "plain.jsonl", *weights),
        "rows": ("--data", "own.jsonl"),
        "plain": ("--data", "plain.jsonl"),
        "stored": ("--features", "features", *weights),
    }
    for name, given in runs.items():
        answer = prefdyn("train", *given, *options, "--out", name)
        assert answer.code == 0, answer.err
    typed, rows, plain, stored = ((tmp_path / name / "steps.csv").read_text() for name in runs)
    assert typed == rows == stored
    assert typed != plain
    answer = prefdyn("train", "--data", "plain.jsonl", "--group-weights", "c=2")
    assert (answer.code, answer.last_line) == (1, "prefdyn: group weights name 'c', which is no group; known: a, b")
    assert "a=2,b=0.5" in prefdyn("train", "--group-weights", "a").last_line
    assert "names 'a' twice" in prefdyn("train", "--group-weights", "a=1,a=2").last_line


def test_train_writes_a_folder_that_everything_else_reads(prefdyn, tmp_path):
    answer = prefdyn("train", *QUICK, "--out", "run", "--checkpoint-every", 2)
    assert answer.code == 0, answer.err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        ".prefdyn.json", "checkpoints", "config.yaml", "groups.csv", "model", "modules.parquet",
        "pairs.parquet", "report.html", "steps.csv", "summary.json", "trajectory.json", "trajectory.parquet",
        "trajectory.safetensors",
    }  # fmt: skip
    assert all(word in answer.out for word in ("likes company", "keeps promises", "held-out loss", "falling"))
    assert "nan" not in answer.out
    assert "Memory: about" in answer.err
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["command"] == "train"
    assert found["settings"]["learning_rate"] == 3e-4
    assert found["settings"]["start_margin"] < 1e-5
    assert [row["rank"] for row in found["groups"]] in ([1, 2], [2, 1])
    assert found["training"]["first_batch"]["loss"] == pytest.approx(np.log(2), abs=1e-5)
    run = load_trajectory(tmp_path / "run")
    assert run.modules is not None
    assert run.modules.num_rows
    for command in (("report", "run", "--out", "again.html"), ("field", "--run", "run", "--out", "field")):
        assert prefdyn(*command).code == 0
    again = prefdyn("score", "--model", "run/model", *SOME, "--out", "scores")
    assert again.code == 0, again.err


@pytest.mark.thorough
def test_a_finished_run_goes_on_to_nothing_and_other_settings_are_refused(prefdyn, tmp_path):
    assert prefdyn("train", *QUICK, "--out", "run").code == 0
    before = (tmp_path / "run" / "trajectory.parquet").read_bytes()
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    assert prefdyn("train", *QUICK, "--out", "run", "--resume").code == 0
    assert (tmp_path / "run" / "trajectory.parquet").read_bytes() == before
    other = prefdyn("train", *QUICK, "--beta", 0.5, "--out", "run", "--resume")
    assert other.code == 1
    assert "is of another run: beta 0.1 there, 0.5 here" in other.last_line
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config
    assert yaml.safe_load(config)["learning_rate"] == "3e-4"
    taken = prefdyn("train", *QUICK, "--out", "run")
    assert taken.code == 1
    assert "run exists already" in taken.last_line


@pytest.mark.thorough
def test_the_last_layer_from_features_is_the_simulation(prefdyn, tmp_path):
    assert prefdyn("extract", *SOME, "--out", "features").code == 0
    common = ("--features", "features", "--steps", 10)
    assert prefdyn("train", "--tune", "last-layer", *common, "--out", "trained").code == 0
    assert prefdyn("simulate", *common, "--out", "simulated").code == 0
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("trained", "simulated"))
    assert one["settings"]["learning_rate"] == other["settings"]["learning_rate"]
    for row, said in zip(one["groups"], other["groups"], strict=True):
        assert row["final_loss"] == pytest.approx(said["predicted_final_loss"], abs=1e-12)
        assert row["held_out_final_loss"] == pytest.approx(said["predicted_held_out_loss"], abs=1e-12)
    assert not (tmp_path / "trained" / "model").exists()  # features alone hold no model to save


def test_lora_events_and_json(prefdyn, tmp_path):
    pytest.importorskip("tensorboard")
    answer = prefdyn("train", *SOME, "--steps", 2, "--batch-size", 4, "--tensorboard", "--json", "--out", "run")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["settings"]["tune"] == "lora"
    assert found["settings"]["lora_rank"] == 16
    assert list((tmp_path / "run" / "events").iterdir())
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()


def test_free_text_trains(prefdyn, tmp_path):
    rows = [
        {"prompt": f"What about {k}?", "chosen": " It is a fine thing, I say.", "rejected": " No idea."}
        for k in range(12)
    ]
    write_rows(tmp_path / "d.jsonl", rows)
    answer = prefdyn("train", "--data", "d.jsonl", "--steps", 2, "--batch-size", 4, "--out", "run")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["features"]["kind"] == "responses"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--resume",), "--resume needs the folder of the run"),
        (("--tune", "half"), "tune 'half' is unknown"),
        (("--tune", "full", "--learning-rate", "auto"), "'auto' is for tune 'last-layer'"),
        (("--steps", 3, "--epochs", 1), "give one of them"),
        (("--objective", "dppo"), "objective 'dppo' is unknown"),
        (("--optimizer", "adamm"), "did you mean 'adam"),
        (("--probes", "weather"), "probe 'weather' is unknown"),
        (("--probe-pairs", "some"), "--probe-pairs 'some' must be a whole number"),
        (("--record", "1,x"), "--record 'x' must be a whole number"),
        (("--record", "1,900", "--steps", 3), "900"),
        (("--reference", "nowhere/at/all"), "nowhere/at/all"),
        (("--lora-targets", "nothing"), "nothing"),
        (("--tune", "full", "--precision", "float64"), "float64 is for last-layer"),
        (("--tune", "full", "--dtype", "bfloat16"), "held in bfloat16"),
        (("--features", "missing", "--tune", "last-layer"), "--data cannot be used with --features"),
        (("--beta", 0), "beta is 0.0"),
        (("--accumulate", 40, "--batch-size", 4), "accumulate is 40 parts"),
    ],
)
def test_what_is_refused_is_told_in_one_line(prefdyn, tmp_path, arguments, says):
    write_rows(tmp_path / "d.jsonl", [pair(k) for k in range(12)])
    answer = prefdyn("train", "--data", "d.jsonl", *arguments, *(() if "--resume" in arguments else ("--out", "run")))
    assert answer.code == 1
    assert says in answer.last_line
    assert "Traceback" not in answer.err
    assert "bug" not in answer.last_line
    assert not (tmp_path / "run").exists()
