"""The gallery's commands are commands, its blocks and pictures are there, and what it quotes stands in the data."""

import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from scripts.gallery import PAGE, PICTURES, block, commands, here
from tests.conftest import CHAT_3M, PERSONA, SHARED, needs_shared
from tests.fuzz.flags import COMMANDS
from tests.test_tutorial import numbers, words

TEXT = PAGE.read_text(encoding="utf-8")
FOUND = {
    names[0]: found
    for chapter in TEXT.split("\n## ")[1:]
    for part in chapter.split("\n### ")
    if (names := re.findall(r"<!-- ([\w-]+) [\w-]+ -->", part)) and (found := part.partition("**What we found.**")[2])
}
"""What people wrote of each audit."""
LIES = {
    "LLMBar/Dataset/LLMBar": SHARED / "public" / "llmbar",
    "PandaLM/data/testset-v1.json": SHARED / "public" / "pandalm",
    "FineGrainedRLHF/tasks/qa_feedback/data/dev_feedback.json": SHARED / "public" / "qa_feedback",
    "acl2016-convincing-arguments/data/UKPConvArg1Strict-CSV": SHARED / "public" / "convarg_strict",
    "SQuALITY/data/human-eval/all-responses.jsonl": SHARED / "public" / "squality_rankings",
    "truthfulqa-multi/data/en/validation.json": SHARED / "public" / "truthfulqa_multi" / "en_validation.json.gz",
    "truthfulqa-multi/data/eu/validation.json": SHARED / "public" / "truthfulqa_multi" / "eu_validation.json.gz",
    "evals/advanced-ai-risk/human_generated_evals": SHARED / "public" / "ai_risk_human_ab",
    "evals/persona": PERSONA,
    "hh-rlhf/harmless-base/test.jsonl.gz": SHARED / "hh" / "harmless-base-part.jsonl.gz",
    "tinystories-chat-3M": CHAT_3M,
}
AT = {public: str(local) for public, local in LIES.items()}


def quotes(text):
    return re.findall(r"“(.*?)”", " ".join(text.split()))


def test_every_command_is_one():
    known = {flag for parameter in COMMANDS["audit"].params for flag in parameter.opts}
    for words_of in commands(TEXT).values():
        assert words_of[:2] == ["prefdyn", "audit"]
        assert {word for word in words_of if word.startswith("--")} <= known


def test_every_audit_has_its_block_its_picture_and_what_was_found():
    blocks = dict(re.findall(r"<!-- ([\w-]+) [\w-]+ -->\n(.*?)<!-- end -->", TEXT, re.S))
    assert set(blocks) == set(commands(TEXT)) == set(FOUND)
    assert all("Verdicts: " in text for text in blocks.values())
    assert {path.stem for path in PICTURES.iterdir()} == set(blocks)
    assert all(path.stat().st_size < 60_000 for path in PICTURES.iterdir())


@pytest.mark.parametrize("name", FOUND)
def test_a_quotation_is_short(name):
    assert quotes(FOUND[name])
    assert all(len(quote.split()) <= 20 for quote in quotes(FOUND[name]))


def test_what_lies_elsewhere_is_found_behind_a_scheme():
    at = {"evals/persona": "/data/p.jsonl", "a": "b"}
    assert here(["--data", "persona:evals/persona", "a", "persona:other"], at) == [
        "--data",
        "persona:/data/p.jsonl",
        "b",
        "persona:other",
    ]


@needs_shared
@pytest.mark.thorough
@pytest.mark.parametrize("name", FOUND)
def test_a_quotation_stands_in_the_data(name):
    given = here(commands(TEXT)[name], AT)
    flags = {flag: value for flag, value in zip(given, [*given[1:], ""], strict=True) if flag.startswith("--")}
    data = load_dataset(
        [value for flag, value in itertools.pairwise(given) if flag == "--data"],
        skip_bad_rows="--skip-bad-rows" in flags, columns=flags.get("--columns"),
    )  # fmt: skip
    texts = "\n".join(
        " ".join(str(row[side]).split()) for row in data.to_rows() for side in ("prompt", "chosen", "rejected")
    )
    findings = "The first of the two places is preferred in 14 of 75 pairs"  # of the page, not of the data
    for quote in quotes(FOUND[name]):
        assert quote in texts or quote in data.groups or quote in findings or f"{quote}-" in str(data.groups), quote


@needs_shared
@pytest.mark.thorough
def test_an_audit_of_the_page_says_what_it_says(tmp_path):
    given = here(commands(TEXT)["llmbar"], AT)
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "prefdyn", *given[1:]], cwd=tmp_path, env=environment, check=True)
    summary = json.loads((tmp_path / "llmbar" / "summary.json").read_text())
    told = block(summary, "llmbar", "")
    shown = TEXT.split("<!-- llmbar probe -->\n")[1].split("\n\n![")[0]
    assert words(told.split("\n\n![")[0]) == words(shown)
    np.testing.assert_allclose(numbers(told.split("\n\n![")[0]), numbers(shown), rtol=0.05, atol=0.02)
