"""`prefdyn train`, killed at random moments and started again, ends in the bytes of an unbroken run."""

import os
import sys

import pytest

from prefdyn.models.load import BUILTIN
from tests.training.kill import differences, run_broken, run_whole

FILES = ("trajectory.parquet", "trajectory.json", "modules.parquet", "steps.csv", "pairs.parquet", "groups.csv")
WAYS = {
    "full": (["--tune", "full", "--learning-rate", "3e-4", "--steps", "60"], "model/model.safetensors", 7),
    "lora": (["--tune", "lora", "--lora-dropout", "0.1", "--steps", "60"], "model/adapter_model.safetensors", 7),
    "last-layer": (
        ["--tune", "last-layer", "--optimizer", "adam", "--learning-rate", "0.01", "--steps", "500"],
        "model/model.safetensors",
        6,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("options", "weights", "kills"), WAYS.values(), ids=WAYS)
def test_a_killed_run_ends_in_the_same_bytes(tmp_path, options, weights, kills):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFDYN_CACHE": str(tmp_path / "cache")}
    assert BUILTIN.is_dir()
    common = ["--groups", "feels lucky,loves music", "--limit", "20", "--batch-size", "8"]
    program = [sys.executable, "-m", "prefdyn", "train", *options, *common, "--checkpoint-every", "3"]
    whole = run_whole(
        [*program, "--out", str(tmp_path / "whole")], tmp_path / "whole", files=[*FILES, weights], env=environment
    )
    broken = run_broken(
        [*program, "--out", str(tmp_path / "broken")], tmp_path / "broken", whole=whole, kills=kills, env=environment
    )
    assert len(broken.kills) == kills
    assert differences(whole.files, broken.files) == []
