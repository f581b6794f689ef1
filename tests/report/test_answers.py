"""The five answers as a reader sees them: on top of the page, within one screen, and above the table on a terminal."""

import html
import json
import re

import pytest

from prefdyn.report.answers import answers_text, audit_text
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.report.pair_lists import pair_lists
from prefdyn.report.text import cells
from tests.report.make_folder import HOSTILE, make_folder, make_responses_folder
from tests.report.test_html import browse, needs_chromium

SENTENCE = (
    "A sentence as long as they get, with a group “seeks change”, an amount of 0.21 (0.10 to 0.32) and what to do. "
)


def decided(folder, *, worth=True):
    """The same folder as an audit with answers leaves it."""
    summary = json.loads((folder / "summary.json").read_text())
    kinds = {"first": "curves", "worse": "groups", "labels": "odds", "change": "groups", "open": "nowhere"}
    rows = summary["examples"]["at_odds"][:10]
    summary["answers"] = [
        {"kind": kind, "title": f"Title of {kind}", "sentence": 2 * SENTENCE, "groups": [], "evidence": evidence,
         "pairs": [row["id"] for row in rows] if kind == "labels" else []}
        for kind, evidence in kinds.items()
    ]  # fmt: skip
    summary["examples"]["labels"] = [
        {**row, "label_score": 0.1 * place - 2, "findings": ["conflict"] if place == 0 else []}
        for place, row in enumerate(rows if worth else [])
    ]
    numbers = {f"{name}{end}": 0.6 for name in ("found", "average_precision") for end in ("", "_low", "_high")}
    summary["labels"] = {
        "reader": "words", "worth": worth, "planted": 0.1, "first": 10, "tried": [{"name": "words", **numbers}]
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return read_folder(folder)


def test_answers_lead_and_link_to_sections_that_there_are(tmp_path):
    text = html.unescape(render([decided(make_folder(tmp_path / "run", names=6))], static=False))
    marks = ['<div class="answer first">', '<div class="answer open">', 'class="facts"', "<nav", 'class="overview"']
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    ids = set(re.findall(r'\sid="([^"]+)"', text))
    links = re.findall(r'<a href="#([^"]+)">Evidence</a>', text)
    assert len(links) == 4  # one section is not on the page
    assert set(links) <= ids


def test_a_page_without_answers_stays_as_it_was(tmp_path):
    text = render([read_folder(make_folder(tmp_path / "run", names=6))], static=False)
    assert 'class="answers"' not in text
    assert 'class="overview"' not in text


def test_the_labels_to_check_are_a_list_with_what_was_tried(tmp_path):
    for folder in (make_folder(tmp_path / "answers", names=3), make_responses_folder(tmp_path / "replies")):
        listed = pair_lists(decided(folder))[0]
        assert listed["heading"] == "Labels to check"
        assert [entry["key"] for entry in listed["entries"]][:2] == ["contradicted", "doubt 1.90"]
        assert listed["tried"] == [("words", [[0.6, 0.6, 0.6], [0.6, 0.6, 0.6]])]


def test_where_no_reader_is_worth_asking_there_is_no_list_and_the_page_says_why(tmp_path):
    run = decided(make_folder(tmp_path / "run", names=3), worth=False)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", render([run], static=False))).split())
    assert "6 of the first 10 that the best reader doubts were turned ones, by chance 1: a list would mislead" in text
    assert pair_lists(run)[0]["filter"] is None


def test_the_terminal_has_the_answers_above_the_table(tmp_path):
    summary = decided(make_folder(tmp_path / "run", names=6)).summary
    lines = answers_text(summary, width=100).splitlines()
    assert max(map(cells, lines)) <= 100
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == [
        f"Title of {kind}" for kind in ("first", "worse", "labels", "change", "open")
    ]
    assert sum(" over " in line for line in lines) == 10
    assert audit_text(summary).startswith(answers_text(summary))
    assert answers_text({}) == ""


def test_hostile_texts_stay_text(tmp_path):
    folder = make_responses_folder(tmp_path / "run", names=list(HOSTILE), texts=HOSTILE)
    text = render([decided(folder)], static=False)
    assert "<script>alert" not in text
    assert "\x1b" not in answers_text(read_folder(folder).summary)


SIZES = """
const end = (mark) => document.querySelector(mark).getBoundingClientRect().bottom + scrollY;
const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.dataset.said = JSON.stringify({ answers: end(".answers"), over });
"""


@needs_chromium
@pytest.mark.parametrize("width", [390, 1440])
def test_the_first_screen_holds_the_answers_and_nothing_scrolls_sideways(tmp_path, width):
    run = decided(make_responses_folder(tmp_path / "run"))
    page = tmp_path / "page.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render([run], static=False))
    page.write_text(text.replace("</body>", f"<script>{SIZES}</script></body>"))
    document, console = browse(page, tmp_path / "profile", f"--window-size={width},900")
    assert console == []
    (said,) = re.findall(r'data-said="([^"]*)"', document)
    said = json.loads(html.unescape(said))
    assert said["over"] <= 0
    if width == 1440:
        assert said["answers"] <= 900


FOLDS = """
const link = (id) => { location.hash = id; };
const said = { closed: document.querySelectorAll(".appendix:not([open])").length };
const height = () => document.querySelector(".appendices").getBoundingClientRect().top + scrollY;
said.height = height();
said.below = document.documentElement.scrollHeight - said.height;
addEventListener("hashchange", () => setTimeout(() => {
  said.open = document.querySelector("#r0-settings").closest("details").open;
  dispatchEvent(new Event("beforeprint"));
  said.printed = document.querySelectorAll(".appendix:not([open])").length;
  dispatchEvent(new Event("afterprint"));
  said.after = document.querySelectorAll(".appendix:not([open])").length;
  document.body.dataset.said = JSON.stringify(said);
}, 0));
link("r0-settings");
"""


@needs_chromium
def test_appendices_are_folded_below_four_screens_and_open_by_link_and_for_print(tmp_path):
    run = decided(make_folder(tmp_path / "run", names=20))
    page = tmp_path / "page.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render([run], static=False))
    page.write_text(text.replace("</body>", f"<script>{FOLDS}</script></body>"))
    document, console = browse(page, tmp_path / "profile", "--window-size=1440,900")
    assert console == []
    (said,) = re.findall(r'data-said="([^"]*)"', document)
    said = json.loads(html.unescape(said))
    assert said["closed"] == document.count('class="appendix"') > 5
    assert said["below"] <= 900
    assert said["height"] <= 4 * 900
    assert said["open"]
    assert said["printed"] == 0
    assert said["after"] == said["closed"] - 1


def test_theory_settings_and_maps_are_appendices_and_answers_verdicts_and_curves_are_not(tmp_path):
    text = render([decided(make_folder(tmp_path / "run", names=6))], static=False)
    folded = text[text.index('id="r0-appendices"') :]
    assert all(f'id="r0-{name}"' in folded for name in ("together", "odds", "says", "settings"))
    assert not any(f'id="r0-{name}"' in folded for name in ("answers", "groups", "curves", "findings"))
