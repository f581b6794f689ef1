"""Real Persona, HH-RLHF and long pairs: counts that their README states, and findings that are known of them."""

import json
import time

import numpy as np
import pytest

from prefdyn.data.describe import describe
from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from tests.conftest import PERSONA, SHARED, needs_shared

pytestmark = [needs_shared, pytest.mark.thorough]


def test_all_personas_load_and_split_without_leakage_in_seconds():
    start = time.perf_counter()
    data = load_dataset(f"persona:{PERSONA}")
    split = data.split(0.9, seed=0)
    found = {finding.code for finding in preflight(split)}
    assert time.perf_counter() - start < 30
    assert (len(data), len(data.groups), data.left_out) == (86_818, 88, ())
    assert found == {"shared_prompt", "opposed_groups", "near_duplicates", "near_opposed"}
    held = np.array(split.table["split"].to_pylist()) == "held_out"
    prompts = np.array(split.table["prompt"].to_pylist(), dtype=object)
    assert not set(prompts[held]) & set(prompts[~held])
    for group in describe(split)["groups"]:
        counts = [answer["chosen"] for answer in group["answers"]]
        assert counts[0] == counts[1]
    group = np.array(split.table["group"].to_pylist(), dtype=object)
    for name in split.groups:
        mine = group == name
        assert held[mine].sum() == int(0.1 * mine.sum() + 0.5)


def test_the_original_files_and_the_packed_file_agree():
    files = load_dataset(f"persona:{SHARED / 'persona' / 'files'}")
    packed = load_dataset(f"persona:{PERSONA}", groups=list(files.groups))
    for name in ("prompt", "chosen", "rejected", "group"):
        assert sorted(files.table[name].to_pylist()) == sorted(packed.table[name].to_pylist())


def test_hh_leaves_out_the_rows_whose_prompts_differ_or_whose_answer_is_empty():
    path = SHARED / "hh" / "harmless-base-part.jsonl.gz"
    data = load_dataset(f"hh:{path}", skip_bad_rows=True)
    assert [(item.line, item.field) for item in data.left_out] == [
        (87, "chosen"),
        (517, "chosen"),
        (926, "chosen"),
        (1104, "chosen"),
        (1255, "rejected"),
    ]
    assert "318 characters in chosen, 142 in rejected" in data.left_out[-1].reason
    assert len(data) == 1595
    for row in data.to_rows():
        assert row["prompt"].endswith("\n\nAssistant:")
        assert "\n\nAssistant:" not in row["chosen"] + row["rejected"]
    assert describe(data)["kind"] == "responses"
    assert {finding.code for finding in preflight(data)} == {"left_out", "near_duplicates", "both_ways"}


def test_long_pairs_keep_every_character():
    path = SHARED / "other" / "dpo-en-demo.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    data = load_dataset(path)
    for name in ("prompt", "chosen", "rejected"):
        assert data.table[name].to_pylist() == [row[name] for row in rows]
