"""The report of an audit on long responses: its panels, what they say, the lists of pairs, and the page."""

import html
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from prefdyn.picture import Picture
from prefdyn.report.chart_json import chart_json
from prefdyn.report.figures import figure_bytes, figure_of
from prefdyn.report.folders import RunFolder, read_folder
from prefdyn.report.html import render, write_report
from prefdyn.report.pair_lists import pair_lists
from prefdyn.report.palette import ATTENTION, VERDICTS
from prefdyn.report.panels import panels
from prefdyn.report.responses import displacement_words, exact_words, sketch_words, trust_words
from prefdyn.report.shown_groups import telling
from prefdyn.report.tables import by_attention
from prefdyn.report.text import readable
from tests.report.make_folder import HOSTILE, PROMPT, REPLY, make_folder, make_responses_folder
from tests.report.test_html import Page, browse, needs_chromium
from tests.report.test_panels import SEVERAL

NEW = {"first-step", "exact-curves", "exact-log-probs"}


def found(folder) -> dict[str, Picture]:
    return {panel.id: panel for panel in panels(read_folder(folder))}


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def changed(folder, change):
    summary = summary_of(folder)
    change(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    return read_folder(folder)


def page_words(run):
    """What a reader sees, without the settings, which show keys as they are stored."""
    text = render([run], static=False)
    text = re.sub(r"<(script|style)\b.*?</\1>|<section id=\"r0-settings\".*?</section>", "", text, flags=re.DOTALL)
    return " ".join(" ".join(Page(text).texts).split())


# panels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_drawn_depends_on_what_was_trained_exactly(tmp_path, exact):
    expected = SEVERAL | {"order"} | (NEW if exact else {"first-step"})
    assert set(found(make_responses_folder(tmp_path / "run", exact=exact))) == expected
    assert not NEW & set(found(make_folder(tmp_path / "answers", names=4)))


def test_the_first_step_panel_holds_the_numbers_of_the_summary(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    panel, groups = found(folder)["first-step"], summary_of(folder)["groups"]
    for name, key in (
        ("chosen", "chosen_push"),
        ("rejected", "rejected_push"),
        ("falls", "chosen_falls_first"),
        ("ches", "ches"),
    ):
        np.testing.assert_array_equal(panel.arrays[name], [row[key] for row in groups])
    first = panel.orders[0][1]
    assert list(first) == sorted(range(4), key=lambda code: groups[code]["chosen_push"])
    assert "(nats)" in panel.x_label


def test_the_first_step_figure_writes_shares_and_scores_beside_the_right_rows(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    panel = found(folder)["first-step"]
    (axes,) = figure_of(panel).axes
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    rows = [(text.get_text(), text.get_position()[1]) for text in axes.texts]
    for row in summary_of(folder)["groups"]:
        share, score = f"{100 * row['chosen_falls_first']:.0f} %", f"{row['ches']:.3g}".replace("-", "−")
        assert (share, heights[row["name"]]) in rows
        assert (score, heights[row["name"]]) in rows
    svg = ET.fromstring(figure_bytes(panel, formats=("svg",))["svg"])
    assert {"chosen falls", "CHES", "chosen", "rejected"} <= set("\n".join(svg.itertext()).split("\n"))


def test_exact_curves_are_those_of_the_summary_and_other_groups_have_none(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    drawn, part = found(folder), summary_of(folder)["exact"]
    known = {row["name"]: row for row in part["groups"]}
    assert set(known) == {"style", "length", "random"}
    for panel in (drawn["exact-curves"], drawn["exact-log-probs"]):
        np.testing.assert_array_equal(panel.arrays["step"], part["recorded"])
        for layer in panel.layers:
            first_order = layer.values.replace("exact", "first_order")
            assert layer.alone == first_order
            for key in (layer.values, first_order):
                for code, name in enumerate(panel.groups):
                    expected = known[name][key] if name in known else [math.nan] * len(part["recorded"])
                    np.testing.assert_array_equal(panel.arrays[key][code], expected)
    units = [layer.axis for name in sorted(NEW - {"first-step"}) for layer in drawn[name].layers]
    assert [re.findall(r"\((.*)\)", unit) for unit in units] == [["nats"], ["beta × nats"], ["nats"], ["nats"]]


def test_the_exact_figure_draws_first_order_dashed_in_the_group_s_colour(tmp_path):
    panel = found(make_responses_folder(tmp_path / "run"))["exact-log-probs"]
    figure = figure_of(panel)
    lines = {tuple(np.asarray(line.get_ydata())): line for line in figure.axes[0].get_lines()}
    for code in range(3):
        solid = lines[tuple(panel.arrays["exact_chosen_change"][code])]
        dashed = lines[tuple(panel.arrays["first_order_chosen_change"][code])]
        assert to_hex(solid.get_color()) == to_hex(dashed.get_color())
        assert not solid.is_dashed()
        assert dashed.is_dashed()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["style", "length", "random", "first order"]


def test_groups_without_a_pair_in_the_sample_are_in_no_legend(tmp_path):
    run = read_folder(make_responses_folder(tmp_path / "run", names=30))
    panel = next(panel for panel in panels(run) if panel.id == "exact-curves")
    unsampled = [code for code in range(30) if np.isnan(panel.arrays["exact_loss"][code]).all()]
    assert unsampled == [29]
    coloured = [name for name, place in zip(run.labels, panel.colours, strict=True) if place >= 0]
    shown = len(set(coloured) - {run.labels[29]})
    names = [text.get_text() for text in figure_of(panel).legends[0].get_texts()]
    assert names[shown:] == [f"{29 - shown} other groups", "first order"]


def test_a_curve_of_another_length_than_the_steps_is_not_drawn(tmp_path):
    folder = make_responses_folder(tmp_path / "run")

    def shorten(summary):
        summary["exact"]["groups"][0]["exact_loss"].pop()

    changed(folder, shorten)
    loss = found(folder)["exact-curves"].arrays["exact_loss"]
    assert np.isnan(loss[0]).all()
    assert np.isfinite(loss[1]).all()


def test_the_probe_panel_shows_every_giveaway_and_draws_one_interval(tmp_path):
    folder = make_responses_folder(tmp_path / "run", names=30)
    panel, groups = found(folder)["probe"], summary_of(folder)["groups"]
    series = {layer.values: layer for layer in panel.layers}
    assert set(series) == {"probe", "untrained", "words", "length", "reference", "chance"}
    assert len({layer.marker for layer in panel.layers}) == 6
    np.testing.assert_array_equal(panel.arrays["reference"], [row["reference_accuracy"] for row in groups])
    assert [name for name, layer in series.items() if layer.low and not layer.told] == ["probe"]
    for name in ("untrained", "words", "length", "reference"):
        low, high = series[name].low, series[name].high
        assert low is not None
        assert high is not None
        assert (panel.arrays[low] < panel.arrays[name]).all()
        assert (panel.arrays[name] <= panel.arrays[high]).all()
    (axes,) = figure_of(panel).axes
    drawn = [len(lines.get_segments()) for lines in axes.collections if isinstance(lines, LineCollection)]
    assert drawn == [30, 30], "the probe's intervals, and one thin line per row"
    told = {layer["values"] for layer in chart_json(panel)["layers"] if layer["told"]}
    assert told == {"untrained", "words", "length", "reference"}
    assert "untrained twin" not in found(make_responses_folder(tmp_path / "plain", twin=False))["probe"].caption


def test_the_ring_is_the_raw_mean_norm_and_the_dot_the_distance_between_pairs(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    panel, groups = found(folder)["distinguishability"], summary_of(folder)["groups"]
    np.testing.assert_array_equal(panel.arrays["raw"], [row["raw_mean_norm"] for row in groups])
    np.testing.assert_array_equal(panel.arrays["debiased"], [row["debiased"] for row in groups])
    assert "typical under swapped sides" in [layer.label for layer in panel.layers]


def test_a_giveaway_has_a_place_in_the_order_of_verdicts_and_a_colour(tmp_path):
    assert list(VERDICTS).index("giveaway") < list(VERDICTS).index("trivial")
    assert set(ATTENTION) == set(VERDICTS)
    attention = [by_attention(name, 1)[0] for name in ("memorised", "giveaway", "looks random")]
    assert attention == sorted(set(attention))
    run = read_folder(make_responses_folder(tmp_path / "run", names=60))
    assert {"giveaway", "looks random", "conflicting", "memorised"} <= {run.verdicts[code] for code in telling(run)}
    text = render([read_folder(make_responses_folder(tmp_path / "four"))], static=False)
    assert 'class="badge v-giveaway">giveaway' in text
    assert "Of 4 groups: 1 learned, 1 conflicting, 1 giveaway, 1 looks random." in text


# words --------------------------------------------------------------------------------------------------------------


def made(gap, moved):
    """A run of one group whose exact loss, margin and chosen log-probability all move as far."""
    exact = {f"exact_{key}": [0.0, moved / 2, -moved] for key in ("loss", "margin", "chosen_change")}
    part = {"recorded": [0, 1, 2], "groups": [{"name": "a", **exact}], "gap": gap}
    summary = {"groups": [{"name": "a"}], "exact": part, "features": {"kind": "responses"}}
    return RunFolder(path=Path("x"), summary=summary, trajectory=None, pairs=None)


@settings(deadline=None)
@given(st.floats(1e-3, 10), st.floats(0, 0.6))
def test_what_holds_up_is_what_is_off_by_little_of_the_movement(moved, share):
    gap = share * moved
    words = exact_words(made({"loss": gap}, moved))
    if gap <= 0.1 * moved:
        assert words.startswith("Group losses hold up: off by up to ")
    elif gap <= 0.25 * moved:
        assert words.startswith("Group losses hold up roughly: off by up to ")
    else:
        assert words.startswith("Group losses do not hold up: off by up to ")
    assert "chosen" not in words.lower()


def test_the_gap_stands_in_words_with_the_numbers_of_the_summary():
    words = exact_words(made({"loss": 0.008, "margin": 0.05, "chosen_change": 3.9}, 2.1))
    assert "Group losses hold up: off by up to 0.008 nats where exact training moves them by up to 2.1." in words
    assert "Mean margins hold up: off by up to 0.05 where exact training moves them by up to 2.1." in words
    assert "Chosen log-probabilities, taken apart, do not hold up: off by up to 3.9 nats" in words
    assert "Rejected" not in words
    assert exact_words(made({"loss": None, "margin": None, "chosen_change": None}, 2.1)) == ""
    assert exact_words(made({"loss": 0.3}, 0.0)).startswith("Group losses are off by up to 0.3 nats.")


def test_what_the_simulation_says_of_itself_follows_what_was_measured(tmp_path):
    far = read_folder(make_responses_folder(tmp_path / "far", drift=2.0))
    near = read_folder(make_responses_folder(tmp_path / "near", drift=0.01))
    none = read_folder(make_responses_folder(tmp_path / "none", exact=False))
    assert "taken apart, do not hold up" in trust_words(far)
    assert "taken apart, hold up: off" in trust_words(near)
    assert trust_words(none).endswith("chosen and rejected log-probabilities taken apart drift soon.")
    for run in (far, near, none):
        assert trust_words(run) in html.unescape(page_words(run))
    assert "Not measured in this run: exact training of the head on a sample of pairs" in page_words(none)
    assert "on the pairs that were trained exactly" in found(far.path)["log-prob-curves"].caption
    assert "on the pairs that were trained exactly" not in found(none.path)["log-prob-curves"].caption


def test_the_sample_says_its_size_setting_and_groups(tmp_path):
    caption = found(make_responses_folder(tmp_path / "run"))["exact-curves"].caption
    assert "Sample: 30 pairs (what takes little time), 100 steps, from 3 of 4 groups, learning rate 0.0123." in caption


def test_rank_correlations_stand_with_their_intervals(tmp_path):
    run = read_folder(make_responses_folder(tmp_path / "run"))
    expected = (
        "Rank correlation with chosen log-probability change after 100 steps of exact training: "
        "first step 0.80 [0.65, 0.89] (p 3e-10), CHES −0.14 [−0.44, 0.18] (p 0.38), on 40 pairs."
        " CHES is taken with its sign turned, so that 1 is perfect foresight for both."
    )
    assert displacement_words(run) == expected
    assert found(run.path)["first-step"].caption.endswith(expected)
    assert displacement_words(read_folder(make_responses_folder(tmp_path / "none", exact=False))) == ""


def test_the_error_of_the_sketch_is_told_and_no_sketch_is_too(tmp_path):
    run = read_folder(make_responses_folder(tmp_path / "run"))
    words = sketch_words(run)
    assert "are off by 0.013 (root mean square, on 64 pairs), where 0.016 is expected, and at most 0.061." in words
    assert words in html.unescape(page_words(run))
    assert "Sketch 4,096 numbers, error 0.013" in page_words(run)
    plain = read_folder(make_responses_folder(tmp_path / "plain", sketch=None))
    assert sketch_words(plain) == ""
    assert "Sketch none, exact features" in page_words(plain)


def test_nothing_on_the_page_speaks_of_answers_or_classes(tmp_path):
    """The rules of the verdicts come with the summary, so they stand in the settings."""
    said = page_words(read_folder(make_responses_folder(tmp_path / "run")))
    unfit = r"(?i)\banswers?\b|\bthe two classes\b|\bfilled and hollow\b|\bshuffled\b|last prompt token|\byes\b"
    assert re.findall(unfit, said) == []
    assert len(re.findall(unfit, page_words(read_folder(make_folder(tmp_path / "answers", names=4))))) > 8
    assert "Kind long responses" in said


def test_a_group_s_row_tells_what_is_given_away_and_how_long_its_texts_are(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    said = page_words(read_folder(folder))
    for row in summary_of(folder)["groups"]:
        told = f"reference log-probability {row['reference_accuracy']:.2f} ({row['reference_low']:.2f} to "
        assert f"words {row['words_accuracy']:.2f} ({row['words_low']:.2f} to {row['words_high']:.2f}) · length" in said
        assert told in said
        assert f"mean tokens: {row['chosen_tokens']:.0f} chosen, {row['rejected_tokens']:.0f} rejected" in said
    assert "Held-out accuracy: probe" not in page_words(read_folder(make_folder(tmp_path / "answers", names=4)))


# pairs to look at ---------------------------------------------------------------------------------------------------


def test_the_lists_hold_every_pair_with_its_whole_texts_and_numbers(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    examples, lists = summary_of(folder)["examples"], pair_lists(read_folder(folder))
    assert [item["heading"] for item in lists] == [
        "Against the rest",
        "Chosen pushed down",
        "Near duplicates with opposite labels",
    ]
    for item, key in zip(lists, ("at_odds", "chosen_falls"), strict=False):
        assert [entry["pairs"][0]["id"] for entry in item["entries"]] == [row["id"] for row in examples[key]]
        for entry, row in zip(item["entries"], examples[key], strict=True):
            (pair,) = entry["pairs"]
            assert dict(pair["texts"]) == {side.capitalize(): row[side] for side in ("prompt", "chosen", "rejected")}
            assert dict(pair["numbers"])["Push on rejected"] == row["rejected_push"]
            assert dict(pair["numbers"])["Chosen tokens"] == row["chosen_tokens"]
    assert lists[0]["entries"][0]["key"] == "margin −0.0310"
    assert lists[1]["entries"][0]["key"] == "chosen −0.370 nats"
    (opposite,) = lists[2]["entries"]
    assert (opposite["key"], [pair["id"] for pair in opposite["pairs"]]) == ("cosine −0.97", ["p1", "p2"])
    assert lists[2]["says"].endswith("A sample of 4,096 of 9,000 pairs was looked at.")


def test_opposites_beyond_those_listed_are_counted(tmp_path):
    folder = make_responses_folder(tmp_path / "run")
    run = changed(folder, lambda summary: summary["examples"]["looked_at"].update(found=57))
    assert pair_lists(run)[2]["says"].endswith("was looked at. 57 were found; those most opposite are listed.")


def test_texts_keep_their_white_space_and_what_was_cut_is_said(tmp_path):
    long = "word " * 1000
    text = render([read_folder(make_responses_folder(tmp_path / "run", texts=(PROMPT, REPLY, long)))], static=False)
    assert html.escape(PROMPT) in text
    assert html.escape(REPLY) in text
    assert text.count("Long texts end in … here") == 12 + 6 + 2
    assert "Long texts end" not in render([read_folder(make_responses_folder(tmp_path / "short"))], static=False)


def test_the_line_to_filter_by_gives_the_ids_of_a_plain_loop(tmp_path, monkeypatch):
    folder = make_responses_folder(tmp_path / "run")
    page = Page(render([read_folder(folder)], static=False))
    lines = [text for text in page.texts if "read_table" in text]
    monkeypatch.chdir(folder)
    wanted = {
        "chosen_push": lambda row: row["chosen_push"] < 0,
        "opposite": lambda row: "opposite" in row["findings"],
    }
    for line, (name, keeps) in zip(lines, wanted.items(), strict=True):
        assert name in line
        start, expression = line.split("; ")
        space = {}
        exec(start, space)
        rows = pq.read_table("pairs.parquet").to_pylist()
        expected = [row["id"] for row in rows if keeps(row)]
        assert eval(expression, space) == expected
        assert 0 < len(expected) < len(rows)


def test_lists_that_are_empty_or_were_not_made_say_so(tmp_path):
    folder = make_responses_folder(tmp_path / "run")

    def empty(summary):
        summary["examples"] = {"at_odds": [], "opposites": [], "looked_at": {"opposites": 720, "of": 720}}

    said = page_words(changed(folder, empty))
    assert "Against the rest No pair is pushed the wrong way by the first step of the others." in said
    assert "Chosen pushed down This run made no such list." in said
    assert "opposite labels None was found. All 720 pairs were looked at." in said


def test_one_token_answers_keep_their_list_and_a_simulation_has_none(tmp_path):
    folder = make_folder(tmp_path / "answers", names=3)
    assert pair_lists(read_folder(folder)) == []
    assert "Pairs most at odds with the rest" in render([read_folder(folder)], static=False)
    run = changed(make_responses_folder(tmp_path / "run"), lambda summary: summary.update(command="simulate"))
    assert pair_lists(run) == []


def test_a_folder_without_texts_says_how_to_find_a_pair(tmp_path):
    run = read_folder(make_responses_folder(tmp_path / "run", missing=True))
    assert pair_lists(run)[1]["entries"][0]["pairs"][0]["texts"] == []
    assert page_words(run).count("This folder holds no texts; look the pair up in the data by its id.") == 1


# the page -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    texts = (*HOSTILE, "\x00\x08\u2028 \u202e " + "</div></details>" * 400)
    folder = tmp_path_factory.mktemp("hostile") / "<b>run"
    make_responses_folder(folder, names=list(HOSTILE), texts=texts, missing=True)
    return write_report(folder, folder.parent / "report.html")


def test_the_page_leads_with_the_verdicts_and_ends_with_the_pairs(tmp_path):
    text = html.unescape(render([read_folder(make_responses_folder(tmp_path / "run"))], static=False))
    marks = ["Of 4 groups:", "<h2>Verdict per group", 'data-panel="loss-curves"', 'data-panel="probe"']
    marks += [f'data-panel="{name}"' for name in ("first-step", "exact-curves", "exact-log-probs", "margin-curves")]
    marks += ["<h2>Pairs to look at", 'data-panel="agreement"', "<h2>Findings in the data", "<h2>What this simulation"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    single = html.unescape(render([read_folder(make_responses_folder(tmp_path / "one", names=1))], static=False))
    assert single.index("<h2>Pairs to look at") < single.index('data-panel="loss-curves"')


def test_hostile_texts_stay_text(hostile):
    page = Page(hostile.read_text())
    shown = "".join(page.texts)
    for text in HOSTILE:
        assert readable(text) in shown
    assert "\x00" not in shown
    assert "\u202e" not in shown
    assert not any(key.startswith("on") or key == "style" for _, attributes in page.tags for key in attributes)
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in page.of("img"))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2
    assert len(page.of("details")) == 12 + 6


ACTS = """
const looked = [...document.querySelectorAll("details.look")];
const said = { closed: looked.every((node) => !node.open), texts: [], tall: 0, scrolls: 0 };
for (const more of document.querySelectorAll("ol.looks + .more")) more.click();
const over = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
said.ranges = document.querySelectorAll("[data-panel=probe] .range").length;
said.wide = [over()];
for (const node of looked) {
  node.querySelector("summary").click();
  for (const whole of node.querySelectorAll(".whole")) {
    said.texts.push(whole.textContent);
    said.tall = Math.max(said.tall, whole.clientHeight);
    said.scrolls += whole.scrollHeight > whole.clientHeight;
    said.space = getComputedStyle(whole).whiteSpaceCollapse || getComputedStyle(whole).whiteSpace;
  }
}
said.open = looked.filter((node) => node.open).length;
said.wide.push(over());
const sheet = document.querySelector("[data-panel=first-step] .drawing svg > rect[fill=transparent]");
const box = sheet.getBoundingClientRect();
sheet.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 9, clientY: box.top + 9, bubbles: true }));
said.tip = document.getElementById("tip").textContent;
const exact = document.querySelector("[data-panel=exact-curves]");
const dashes = () => exact.querySelectorAll(".curve.with").length;
said.dashes = [dashes()];
[...exact.querySelectorAll(".controls button")].find((node) => node.textContent === "First order (dashed)").click();
said.dashes.push(dashes());
document.body.dataset.said = JSON.stringify(said);
"""


@needs_chromium
@pytest.mark.parametrize("width", [400, 1200])
def test_a_reader_can_open_every_pair_and_see_its_whole_texts(tmp_path, width):
    run = read_folder(make_responses_folder(tmp_path / "run"))
    page = tmp_path / "page.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render([run], static=False))
    page.write_text(text.replace("</body>", f"<script>{ACTS}</script></body>"))
    document, console = browse(page, tmp_path / "profile", f"--window-size={width},900")
    assert console == []
    (said,) = re.findall(r'data-said="([^"]*)"', document)
    said = json.loads(html.unescape(said))
    examples = run.part("examples")
    rows = [*examples["at_odds"], *examples["chosen_falls"]]
    rows += [item[side] for item in examples["opposites"] for side in ("first", "second")]
    assert said["closed"]
    assert said["open"] == len(examples["at_odds"]) + len(examples["chosen_falls"]) + 1
    assert said["texts"] == [row[side] for row in rows for side in ("prompt", "chosen", "rejected")]
    assert said["space"].startswith(("preserve", "pre-wrap"))
    assert said["tall"] <= 300
    assert said["scrolls"] >= len(rows)
    assert max(said["wide"]) <= 0
    assert said["ranges"] == len(run.groups)
    first = run.groups[found(run.path)["first-step"].orders[0][1][0]]
    assert said["tip"].startswith(first["name"])
    assert f"starts by falling{100 * first['chosen_falls_first']:.0f} %" in said["tip"]
    assert said["dashes"] == [3, 0]


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_draws_every_chart_of_hostile_responses_without_an_error(hostile, tmp_path, width):
    document, console = browse(hostile, tmp_path / "profile", f"--window-size={width},900")
    assert console == []
    state = {key: int(value) for key, value in re.findall(r'data-(charts|charts-drawn|errors)="(\d+)"', document)}
    assert state["errors"] == 0
    assert state["charts"] == state["charts-drawn"] == 16


@pytest.mark.thorough
def test_a_page_of_many_groups_and_long_texts_is_not_too_large(tmp_path):
    run = read_folder(make_responses_folder(tmp_path / "run", names=88))
    assert len(render([run]).encode()) < 4_000_000
