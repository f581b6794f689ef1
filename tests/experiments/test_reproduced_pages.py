"""The papers' pages: every figure, every claim as it is judged today, and no picture amiss."""

import re

import pytest

from prefdyn.experiments.catalogue import CATALOGUE
from prefdyn.experiments.recipes import names, recipe_named
from scripts.reproduced_pages import PAGES, PAPERS, PICTURES, _text, restated


@pytest.mark.parametrize("paper", PAPERS)
def test_a_page_has_every_figure_and_claim_of_its_paper(paper):
    """Run `prefdyn reproduce all --preset small …` and scripts/reproduced_pages.py after changing a claim."""
    page = (PAGES / f"{paper}.md").read_text(encoding="utf-8")
    for spec in CATALOGUE:
        if spec.paper != paper:
            continue
        assert f"## {spec.where}: {spec.title}\n" in page
        for claim in recipe_named(spec.recipe).claims:
            if claim.figure == spec.id:
                rows = [line for line in page.splitlines() if line.startswith(f"| {_text(claim.statement)} |")]
                assert rows, claim.id
                assert all(re.search(r"\*\*(held|failed|not testable)\*\*", row) for row in rows)
                assert _text(claim.rule) in page, claim.id


@pytest.mark.parametrize("paper", PAPERS)
def test_a_page_has_no_other_claims_and_counts_those_that_it_has(paper):
    """Run scripts/reproduced_pages.py --rules after dropping a claim or wording a rule anew."""
    page = (PAGES / f"{paper}.md").read_text(encoding="utf-8")
    assert restated(page, paper) == page
    assert restated(page.replace("| what the papers find | ", "| what the papers find | 9", 1), paper) == page


def test_what_is_algebra_is_printed_in_a_source():
    """Nothing of ours that cannot fail is a claim: neither a repair nor a law of ours nor a control."""
    claims = [claim for recipe in names() for claim in recipe_named(recipe).claims if claim.kind == "algebra"]
    assert len(claims) == 21
    for claim in claims:
        assert not re.search(r"\(ours\)|THEORY|repaired|control", claim.where), claim.id


def test_pages_show_the_pictures_that_are_there_and_no_others():
    shown = {
        name for paper in PAPERS for name in re.findall(r"reproduced/([^)]+\.png)", (PAGES / f"{paper}.md").read_text())
    }
    assert shown == {path.name for path in PICTURES.glob("*.png")}
    assert len(shown) >= 50
