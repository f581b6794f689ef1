"""docs/papers.md is what the docstrings and tests say; every statement is found out about and tested."""

import re

import pytest

from scripts.papers_page import PAGE, PAPERS, _part, entries, page
from tests.conftest import REPO


def test_the_page_is_up_to_date():
    """Run `uv run python scripts/papers_page.py` after changing a statement."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_has_statements(paper):
    assert sum(entry.paper == paper for entry in entries()) >= 10


def test_the_register_is_whole_and_names_only_what_is_there():
    """All 23 entries; every file exists, and every function is one of ours."""
    text = (REPO / "scripts" / "papers_register.md").read_text(encoding="utf-8")
    assert [int(number) for number in re.findall(r"^\| X-(\d+) \|", text, flags=re.MULTILINE)] == list(range(1, 24))
    source = "\n".join(path.read_text(encoding="utf-8") for path in (REPO / "src").rglob("*.py"))
    for name in re.findall(r"`([^`]+)`", text):
        if "/" in name:
            assert (REPO / name).exists(), name
        elif re.fullmatch(r"[A-Za-z_.]+", name) and name not in {"chosen", "rejected"}:
            assert re.search(rf"^ *(def|class) {name.rpartition('.')[2]}\b", source, flags=re.MULTILINE), name


def test_sections_are_read_whole_and_no_further():
    text = "Sum.\n\nFound:\n    Wrong. It is\n    not so.\n\nExample:\n    >>> 1\n"
    assert _part(text, "Found") == "Wrong. It is not so."
    assert _part(text, "Reference") == ""
