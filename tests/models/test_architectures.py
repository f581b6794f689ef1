"""Models of many architectures, taken through every stage; the table in the docs is of all of them."""

import re

import pytest

from scripts.architectures import KINDS, PAGE, STAGES, taken_through

QUICK = {"mamba": ("score", "bfloat16"), "llama4": ("score", "lora"), "phimoe": ("lora",)}
REFUSED = {
    "load": {"modernbert decoder", "bart", "marian", "t5", "roberta"},
    "last-layer": {"gemma2", "gemma3n", "recurrent-gemma"},
}


@pytest.mark.parametrize(("kind", "stages"), QUICK.items(), ids=QUICK)
def test_a_few_kinds_pass_where_they_once_did_not(kind, stages, tmp_path):
    found = taken_through(kind, tmp_path, stages=stages)
    assert found.failed == found.refused == {}
    assert {stage for stage, cell in found.cells.items() if cell != "–"} == {"load", *stages}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_passes_or_is_refused_with_its_reason(kind, tmp_path):
    found = taken_through(kind, tmp_path)
    assert found.failed == {}
    assert {stage for stage in found.refused if kind not in REFUSED.get(stage, ())} == set()
    assert all(kind not in kinds or stage in found.refused for stage, kinds in REFUSED.items())


def test_the_page_has_a_row_for_every_kind_and_none_that_fails():
    text = PAGE.read_text(encoding="utf-8").partition("<!-- end of table -->")[0]
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if re.match(r"\| [^|]+ \| `", line)}
    assert list(rows) == list(KINDS)
    assert "FAILS" not in text
    for stage, kinds in REFUSED.items():
        at = STAGES.index(stage) + 3
        assert {kind for kind, line in rows.items() if line.split("|")[at].strip() == "refused"} == kinds
