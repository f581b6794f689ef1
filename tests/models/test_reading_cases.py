"""Inputs that went wrong, kind by kind, each beside one of the same shape that must still pass."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pytest
import torch
import transformers

from prefdyn.data.loaders import load_dataset
from prefdyn.data.write import write
from prefdyn.errors import ModelError
from prefdyn.models.load import load_model
from prefdyn.models.score import score
from prefdyn.models.token_pairs import tokenize_pairs
from tests.conftest import SHARED, needs_shared
from tests.models.test_chat_templates import ours

CASES = SHARED.parent / "cases" / "reading"
pytestmark = [needs_shared, pytest.mark.thorough]


def by_trl(path: Path, tokenizer: Any, cache: Path) -> list[Any]:
    """Token ids of a file's pairs, as `datasets` reads it and TRL's trainer prepares it."""
    from trl.trainer.dpo_trainer import DPOTrainer

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        kind = "parquet" if path.suffix == ".parquet" else "json"
        data: Any = datasets.load_dataset(kind, data_files=str(path), cache_dir=str(cache))
        args: Any = argparse.Namespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
        trainer: Any = argparse.Namespace(_tokenizer=tokenizer)
        made: Any = DPOTrainer._prepare_dataset(trainer, data["train"], tokenizer, args, "train")
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return [tuple(tuple(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")) for row in made]


@pytest.fixture(scope="module")
def thinking():
    return load_model(str(CASES / "models" / "qwen3-think"))


READ = {
    "reasoning": ("02/only-reasoning.jsonl", "chosen"),
    "tools": ("03/tools.jsonl", "tools"),
    "arguments": ("04/kwargs.jsonl", "chat_template_kwargs"),
    "calls": ("05/calls.jsonl", "prompt"),
}


@pytest.mark.parametrize("case", READ)
def test_what_the_template_reads_is_read(thinking, case, tmp_path):
    """The ids of TRL from the file, from what is written of it, and from scores; without the key they are others."""
    path = CASES / READ[case][0]
    data = load_dataset(path)
    expected = by_trl(path, thinking.tokenizer, tmp_path)
    found = tokenize_pairs(data, thinking, eos=True)
    assert ours(found) == expected
    for name in ("x.jsonl", "x.jsonl.gz", "x.parquet"):
        write(data, tmp_path / name)
        again = load_dataset(tmp_path / name)
        assert again.sha256 == data.sha256
        assert by_trl(tmp_path / name, thinking.tokenizer, tmp_path) == expected
    import pyarrow.parquet as pq

    pq.write_table(score(data, thinking, progress=False).table, tmp_path / "scores.parquet")
    assert by_trl(tmp_path / "scores.parquet", thinking.tokenizer, tmp_path) == expected


@pytest.mark.parametrize("case", READ)
def test_it_is_part_of_a_pair(thinking, case):
    """Two rows that differ in it alone are two datasets, and other tokens."""
    path, key = READ[case]
    rows = [json.loads(line) for line in (CASES / path).read_text().splitlines()]
    bare = [_without(row, key) for row in rows]
    assert load_dataset(rows).sha256 != load_dataset(bare).sha256
    assert load_dataset(rows[:1]).table["prompt"] != load_dataset(bare[:1]).table["prompt"] or key == "chosen"
    one, two = (tokenize_pairs(load_dataset(made), thinking, eos=True) for made in (rows, bare))
    assert ours(one) != ours(two)


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    if key in ("prompt", "chosen"):
        kept = [
            {name: part for name, part in each.items() if name not in ("tool_calls", "reasoning_content")}
            for each in row[key]
        ]
        kept = [{**each, "content": each["content"] or "I look."} for each in kept]
        return {**row, key: kept}
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize("case", READ)
def test_the_filter_lines_keep_it(case, tmp_path):
    """The three lines of docs/long_answers.md."""
    import pyarrow.parquet as parquet

    data = load_dataset(CASES / READ[case][0])
    write(data, tmp_path / "all.parquet")
    kept = data.table["id"].to_pylist()[1:3]
    parquet.write_table(
        parquet.read_table(tmp_path / "all.parquet", filters=[("id", "in", kept)]), tmp_path / "kept.parquet"
    )
    assert load_dataset(tmp_path / "kept.parquet").conversations == data.conversations[1:3]


def test_a_one_token_answer_stands_after_the_thought_that_the_template_adds(thinking, tmp_path):
    """By the ids of TRL: what its two sequences share, then one token each."""
    path = CASES / "01/yesno.jsonl"
    data = load_dataset(path)
    found = tokenize_pairs(data, thinking)
    assert found.kind == "answers"
    for (prompt, chosen, rejected), (before, *sides) in zip(
        by_trl(path, thinking.tokenizer, tmp_path), ours(found), strict=True
    ):
        at = len(before) - len(prompt)
        assert at > 0
        assert before == prompt + chosen[:at] == prompt + rejected[:at]
        assert [*sides] == [chosen[at : at + 1], rejected[at : at + 1]]
        assert chosen[at + 1 :] == rejected[at + 1 :]


def test_it_stands_after_the_generation_prompt_where_nothing_is_added(tmp_path):
    lm = load_model(str(CASES / "models" / "chatml"))
    found = tokenize_pairs(load_dataset(CASES / "01/yesno.jsonl"), lm)
    talk = load_dataset(CASES / "01/yesno.jsonl").conversations[0]
    assert talk is not None
    text = lm.tokenizer.apply_chat_template(talk["prompt"], tokenize=False, add_generation_prompt=True)
    assert found.prompts[found.prompt[0]] == tuple(lm.tokenizer(text, add_special_tokens=False).input_ids)


# what a template changes is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "model", "says"),
    [
        ("07/system.jsonl", "nosystem", "drops or rewrites the content of 'system' messages: 'Always say no.'"),
        ("07/system.jsonl", "nosystem", "pairs then prefer what another rejects"),
        ("08/prefill.jsonl", "chatml", "the prompt ends with words of the assistant"),
        ("10/rendered.jsonl", "chatml", "the begin token '<s>' stands twice"),
        ("04/kwargs.jsonl", "chatml", "does not read the argument 'enable_thinking'"),
    ],
)
def test_what_a_template_changes_is_told(case, model, says):
    """With the count of all pairs, and the first; every command shows it that reads a model."""
    lm = load_model(str(CASES / "models" / model))
    data = load_dataset(CASES / case)
    assert any(says in text and f"{len(data)} " in text for text in tokenize_pairs(data, lm, eos=True).warnings)


@pytest.mark.parametrize(
    ("case", "model"),
    [("07/system.jsonl", "chatml"), ("08/prefill.jsonl", "qwen3-think"), ("10/rendered.jsonl", "bare")],
)
def test_a_template_that_does_not_is_not_told_of(case, model, tmp_path):
    """The same file under a template, or a tokenizer, that leaves it as it is."""
    lm = load_model(str(CASES / "models" / ("chatml" if model == "bare" else model)))
    rows = [json.loads(line) for line in (CASES / case).read_text().splitlines()]
    if model == "bare":
        rows = [{**row, "prompt": row["prompt"].removeprefix("<s>")} for row in rows]
    if model == "qwen3-think":
        rows = [{**row, "prompt": row["prompt"][:1]} for row in rows]
    found = tokenize_pairs(load_dataset(rows), lm, eos=True).warnings
    assert not [text for text in found if "chat template" in text or "twice" in text]


# the model is the one that was given ---------------------------------------------------------------------------------


def logits(model: Any, rows: int) -> Any:
    ids = torch.arange(24).reshape(2, 12) % rows
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def unmerged(base: Path, adapter: Path, rows: int | None = None) -> Any:
    made = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows is not None:
        made.resize_token_embeddings(rows, mean_resizing=False)
    return peft.PeftModel.from_pretrained(made, str(adapter))


def on(base: Path, adapter: Path, folder: Path) -> Path:
    """A copy of an adapter that names its base by a whole path."""
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").chmod(0o644)
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_an_adapter_on_a_tied_head_gives_its_own_logits(tmp_path):
    """And what the plain merge would have given is far from them."""
    base, adapter = CASES / "models" / "tied", CASES / "models" / "adapter-head"
    expected = logits(unmerged(base, adapter), 300)
    lm = load_model(str(on(base, adapter, tmp_path / "adapter")))
    assert torch.allclose(logits(lm.model, 300), expected, atol=1e-4)
    assert not lm.tied_head
    assert (logits(unmerged(base, adapter).merge_and_unload(), 300) - expected).abs().max() > 1
    found = score(load_dataset(CASES / "01/yesno.jsonl"), lm, progress=False).table
    assert np.isfinite(found["ref_chosen_logps"].to_numpy()).all()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_base_is_resized_for_an_adapter_with_more_tokens(tmp_path):
    base, adapter = CASES / "models" / "plain", CASES / "models" / "adapter-resized"
    lm = load_model(str(on(base, adapter, tmp_path / "adapter")))
    assert lm.vocabulary == lm.model.get_input_embeddings().weight.shape[0] == 374
    assert torch.allclose(logits(lm.model, 374), logits(unmerged(base, adapter, 374), 374), atol=1e-4)


def test_a_reward_model_is_refused_by_what_it_is(tmp_path):
    with pytest.raises(ModelError, match="reward is a Qwen2ForSequenceClassification, a classifier or reward model"):
        load_model(str(CASES / "models" / "reward"))
    folder = tmp_path / "renamed"
    shutil.copytree(CASES / "models" / "reward", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2ForCausalLM"]}))
    with pytest.raises(ModelError, match=r"tensors that a Qwen2ForCausalLM does not use, the first is 'score\.weight'"):
        load_model(str(folder))
    assert load_model(str(CASES / "models" / "qwen3-think")).vocabulary > 300
