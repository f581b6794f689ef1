"""The documented lines that write a filtered dataset, run as they are printed: TRL takes what they leave."""

# pyright: reportPrivateImportUsage=false
# (TRL loads its public names on first use, where a type checker does not see them)

import re
import shlex
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from trl import DPOConfig, DPOTrainer
from trl.data_utils import is_conversational

from prefdyn.data.loaders import load_dataset
from prefdyn.models.load import BUILTIN
from prefdyn.planning.summary import pairs_columns
from tests.cli.conftest import write_rows
from tests.conftest import REPO

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL and transformers warn of their own arguments

CHAPTER = (REPO / "docs" / "long_answers.md").read_text(encoding="utf-8").split("## A filtered dataset for TRL")[1]
COMMANDS, LINES = re.findall(r"```(?:python)?\n(.*?)```", CHAPTER, flags=re.DOTALL)[:2]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """TRL reports its use over the network unless it takes itself for a test run."""
    monkeypatch.setenv("CI", "1")
    datasets.disable_progress_bars()


def filtered(folder: Path) -> Any:
    """What the lines leave, as a user loads it."""
    exec(LINES, {})
    return datasets.load_dataset("parquet", data_files="kept.parquet", split="train", cache_dir=str(folder / "hf"))


def test_there_are_three_lines():
    assert len([line for line in LINES.splitlines() if line.strip()]) == 3


@pytest.mark.thorough
def test_what_they_leave_is_what_the_condition_says_and_trl_takes_it(prefdyn, tmp_path):
    """From the built-in replies, audited on a few of them, to the tokens in TRL's trainer."""
    few = {"audit": ["--groups", "style,against", "--limit", 24, "--steps", 5, "--exact", 0]}
    for line in COMMANDS.splitlines():
        program, command, *arguments = shlex.split(line)
        assert program == "prefdyn"
        done = prefdyn(command, *arguments, *few.get(command, []))
        assert done.code == 0, done.err
    found = pq.read_table("found/pairs.parquet").to_pylist()
    wanted = {row["id"] for row in found if row["label_score"] > 0}
    assert 0 < len(wanted) < len(found) == 48

    kept = filtered(tmp_path)
    assert set(kept["id"]) == wanted
    texts = {row["id"]: row for row in load_dataset("builtin:responses").to_rows()}
    columns = ["id", "prompt", "chosen", "rejected", "group"]
    assert kept.select_columns(columns).to_list() == [
        {name: row[name] for name in columns} for row in texts.values() if row["id"] in wanted
    ]

    args = DPOConfig(
        output_dir=str(tmp_path / "trl"), bf16=False, use_cpu=True, report_to="none", max_length=None, disable_tqdm=True
    )
    trainer: Any = DPOTrainer(str(BUILTIN), args=args, train_dataset=kept)
    read = trainer.train_dataset
    assert len(read) == len(wanted)
    words = [trainer.processing_class.decode(ids, skip_special_tokens=True) for ids in read["chosen_ids"]]
    assert words == kept["chosen"]


def test_conversations_keep_their_messages(prefdyn, tmp_path):
    """The same lines on a conversational dataset of which the condition drops one pair in three."""
    talks = [
        {
            "prompt": [{"role": "user", "content": f"question {row}"}],
            "chosen": [{"role": "assistant", "content": f"a good answer {row}"}],
            "rejected": [{"role": "assistant", "content": f"no answer {row}"}],
        }
        for row in range(6)
    ]
    write_rows(tmp_path / "talks.jsonl", talks)
    assert prefdyn("data", "--data", "talks.jsonl", "--to", "all.parquet").code == 0
    ids, some = pq.read_table("all.parquet")["id"].to_pylist(), np.ones(6)
    (tmp_path / "found").mkdir()
    table = pairs_columns(
        ids=ids, groups=["talks"] * 6, held_out=np.zeros(6, dtype=bool), chosen_tokens=np.full(6, 4),
        rejected_tokens=np.full(6, 3), label_score=np.where(np.isin(np.arange(6), [2, 4]), -some, some),
    )  # fmt: skip
    pq.write_table(table, "found/pairs.parquet")
    kept = filtered(tmp_path)
    assert kept.select_columns(["prompt", "chosen", "rejected"]).to_list() == [talks[row] for row in (0, 1, 3, 5)]
    assert all(map(is_conversational, kept))
