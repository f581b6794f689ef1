"""The page: self-contained, escaped, complete, and drawn without an error in a real browser."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from prefdyn.errors import StoreError
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render, script_json, write_report
from prefdyn.report.panels import panels
from prefdyn.store import save_trajectory
from prefdyn.trajectory import Trajectory
from tests.report.make_folder import HOSTILE, make_folder

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --enable-logging=stderr --v=0"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


class Page(HTMLParser):
    """Tags, attributes and text of a page; noscript's content is markup here, as for a reader without scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("hostile") / "<b>run", names=list(HOSTILE), missing=True)
    return write_report(folder, folder.parent / "report.html")


def test_the_page_asks_for_nothing_from_outside(hostile):
    page = Page(hostile.read_text())
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster", "style", "background"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, key, value)
        assert not any(key.startswith("on") for key in attributes), (tag, attributes)
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    assert "@import" not in hostile.read_text()
    assert "url(" not in hostile.read_text()


def test_only_our_own_script_and_style_may_run(hostile):
    text = hostile.read_text()
    policy = next(str(meta["content"]) for meta in Page(text).of("meta") if meta.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    kinds = [script.get("type") for script in Page(text).of("script")]
    assert kinds == ["application/json", None]


def test_hostile_names_are_text(hostile):
    page = Page(hostile.read_text())
    shown = "".join(page.texts)
    for name in ("<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "{{ 7 * 7 }} {% raw %}"):
        assert name in shown
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in page.of("img"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_script_json_survives_any_name():
    for name in HOSTILE:
        text = str(script_json({"name": name}))
        assert not set("<>&") & set(text)
        assert json.loads(text) == {"name": name}


def test_every_panel_has_a_chart_numbers_and_a_still_picture(tmp_path):
    folder = make_folder(tmp_path / "run", names=5)
    text = render([read_folder(folder)])
    ids = {panel.id for panel in panels(read_folder(folder))}
    assert set(re.findall(r'data-panel="([a-z-]+)"', text)) == ids
    data = json.loads(re.findall(r'<script type="application/json" class="data">(.*?)</script>', text, re.DOTALL)[0])
    assert {panel["id"] for panel in data["panels"]} == ids
    assert text.count("<noscript>") == len(ids)
    assert render([read_folder(folder)], static=False).count("<noscript>") == 0


def test_the_page_leads_with_the_verdicts_and_keeps_the_order(tmp_path):
    text = html.unescape(render([read_folder(make_folder(tmp_path / "run", names=20))]))
    marks = [
        "Of 20 groups: 5 early",
        "Verdict per group",
        'data-panel="loss-curves"',
        'data-panel="distinguishability"',
        'data-panel="probe"',
        'data-panel="priority"',
        'data-panel="order"',
        'data-panel="cosine"',
        'data-panel="influence"',
        'data-panel="embedding"',
        'data-panel="margin-curves"',
        "Pairs most at odds",
        "Findings in the data",
        "What this simulation says, and what it does not",
        "Settings and provenance",
        "Rules of the verdicts",
    ]
    body = text[text.index("</nav>") - 4000 :]
    places = [text.index(marks[0]), *(body.index(mark, body.index("</nav>")) for mark in marks[1:])]
    assert places[1:] == sorted(places[1:])
    assert "No chat template: prompts are read as they are." in text
    assert "half of the largest stable step" in text


def test_with_one_group_the_findings_on_pairs_lead(tmp_path):
    text = render([read_folder(make_folder(tmp_path / "run", names=1))])
    assert text.index('id="r0-findings"') < text.index('id="r0-odds"') < text.index('id="r0-curves"')
    assert "There is one group" in text


def test_several_folders_have_one_section_each_and_an_index(tmp_path):
    first = make_folder(tmp_path / "first", names=3)
    second = make_folder(tmp_path / "second", names=2, command="simulate")
    text = write_report([first, read_folder(second)], tmp_path / "all.html").read_text()
    assert re.findall(r'<article class="run" id="(r\d)">', text) == ["r0", "r1"]
    assert 'href="#r1"' in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_a_summary_alone_still_makes_a_page(tmp_path):
    (tmp_path / "summary.json").write_text('{"schema": 1, "command": "audit"}')
    text = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert "Settings and provenance" in text


def test_a_failed_report_leaves_no_file(tmp_path):
    with pytest.raises(StoreError, match="is no folder"):
        write_report(tmp_path / "nothing", tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_the_same_folder_gives_the_same_page(tmp_path):
    run = read_folder(make_folder(tmp_path / "run", names=3))
    assert render([run]) == render([run])


@pytest.mark.thorough
def test_a_page_of_many_groups_is_not_too_large(tmp_path):
    text = render([read_folder(make_folder(tmp_path / "run", names=88))])
    assert len(text.encode()) < 3_000_000


def browse(page, profile, *flags):
    """The document after its scripts ran, and what the browser's console said."""
    ran = subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS.split(),
            f"--user-data-dir={profile}",
            "--virtual-time-budget=5000",
            *flags,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_draws_every_chart_of_hostile_data_without_an_error(hostile, tmp_path, width):
    document, console = browse(hostile, tmp_path / "profile", f"--window-size={width},900")
    assert console == []
    state = {key: int(value) for key, value in re.findall(r'data-(charts|charts-drawn|errors)="(\d+)"', document)}
    assert state["errors"] == 0
    assert state["charts"] == state["charts-drawn"] == 13
    assert document.count("<svg") >= 13


ACTS = """
const tip = document.getElementById("tip");
const said = {};
const at = (node, kind, x, y) => {
  const box = node.getBoundingClientRect();
  const [clientX, clientY] = [box.left + x * box.width, box.top + y * box.height];
  node.dispatchEvent(new PointerEvent(kind, { clientX, clientY, bubbles: true, pointerType: "mouse" }));
};
for (const chart of document.querySelectorAll(".chart")) {
  const sheet = chart.querySelector(".drawing svg > rect[fill=transparent]");
  const shown = [];
  for (let x = 0.025; x < 1; x += 0.05) for (let y = 0.05; y < 1; y += 0.1) {
    at(sheet, "pointermove", x, y);
    if (!tip.hidden) shown.push(tip.querySelector("b").textContent);
  }
  at(sheet, "pointerleave", 0, 0);
  const gone = tip.hidden;
  const svg = chart.querySelector(".drawing svg");
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  const keyed = tip.hidden ? null : tip.querySelector("b").textContent;
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  said[chart.dataset.panel] = { shown, gone, keyed, escaped: tip.hidden };
}
const seen = (row) => getComputedStyle(row).display !== "none";
const rows = () => [...document.querySelectorAll(".verdicts tbody tr")].filter(seen);
const count = { folded: rows().length };
document.querySelector(".groups .more").click();
count.all = rows().length;
const filter = document.querySelector(".filter");
filter.click();
count.filtered = rows().map((row) => row.dataset.verdict);
count.wanted = filter.dataset.verdict;
filter.click();
const sort = document.querySelector(".sort select");
sort.value = "name";
sort.dispatchEvent(new Event("change"));
count.byName = rows().map((row) => row.dataset.name);
const find = document.querySelector(".find input");
find.value = "no such group";
find.dispatchEvent(new Event("input"));
count.none = rows().length;
count.says = document.querySelector(".none").hidden ? "" : document.querySelector(".none").textContent;
const curves = document.querySelector("[data-panel=loss-curves]");
const lines = () => curves.querySelectorAll(".curve").length;
count.lines = [lines()];
const legend = curves.querySelectorAll(".legend button");
legend[0].click();
count.lines.push(lines());
legend[0].click();
count.lines.push(lines());
const view = curves.querySelectorAll(".segments button");
const drawing = () => curves.querySelector(".drawing").innerHTML;
const first = drawing();
view[1].click();
count.other = drawing() !== first;
view[0].click();
count.same = drawing() === first;
const texts = [...document.querySelectorAll(".clamp.long")];
const size = texts[0].clientHeight;
texts[0].dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
count.opened = texts[0].clientHeight > size;
document.body.dataset.said = JSON.stringify({ said, count });
"""


@needs_chromium
def test_a_reader_can_point_type_filter_sort_and_unfold(tmp_path):
    folder = make_folder(tmp_path / "run", names=20)
    run = read_folder(folder)
    page = tmp_path / "page.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render([run], static=False))
    page.write_text(text.replace("</body>", f"<script>{ACTS}</script></body>"))
    document, console = browse(page, tmp_path / "profile", "--window-size=1200,900")
    assert console == []
    (found,) = re.findall(r'data-said="([^"]*)"', document)
    found = json.loads(html.unescape(found))
    names = set(run.labels)
    for panel, seen in found["said"].items():
        assert seen["gone"], panel
        assert seen["escaped"], panel
        assert seen["shown"], panel
        if panel == "agreement":
            assert all(" to " in name for name in seen["shown"])
        elif panel in {"cosine", "influence"}:
            assert {part for name in seen["shown"] for part in name.split(" → ")} <= names
        else:
            assert set(seen["shown"]) <= names
            assert len(set(seen["shown"])) > 1, panel
        assert seen["keyed"] is not None or panel == "embedding", panel
    count = found["count"]
    assert (count["folded"], count["all"], count["none"]) == (12, 20, 0)
    assert count["says"] == "No group matches."
    assert set(count["filtered"]) == {count["wanted"]}
    assert len(count["filtered"]) == run.verdicts.count(count["wanted"])
    assert count["byName"] == sorted(name.lower() for name in names)
    assert count["lines"] == [20, 19, 20]
    assert count["other"]
    assert count["same"]
    assert count["opened"]


@needs_chromium
def test_a_step_that_one_split_alone_was_measured_at_breaks_no_line(tmp_path):
    """As TRL's trainer measures: training pairs between the evaluations."""
    rows = [
        {"run": "joint", "step": step, "time": 0.1, "group": group, "split": split, "pairs": 3, "loss": 1 / (1 + step)}
        for group in ("a", "b") for split, steps in (("held_out", (0, 8, 16)), ("train", (4, 12))) for step in steps
    ]  # fmt: skip
    save_trajectory(Trajectory.from_rows(rows, settings={}), tmp_path / "run")
    write_report([tmp_path / "run"], tmp_path / "page.html")
    document, console = browse(tmp_path / "page.html", tmp_path / "profile", "--window-size=1200,900")
    assert console == []
    drawn = re.findall(r'<path class="curve[^"]*" d="([^"]*)"', document)
    assert len(drawn) >= 2
    assert [(line.count("M"), line.count("L")) for line in drawn[:2]] == [(1, 2)] * 2


def test_a_long_list_of_rows_left_out_is_cut_with_a_count(tmp_path):
    folder = make_folder(tmp_path / "run", names=2)
    summary = json.loads((folder / "summary.json").read_text())
    summary["dataset"]["left_out"] = [{"id": f"x{n}", "reason": "too long"} for n in range(4321)]
    (folder / "summary.json").write_text(json.dumps(summary))
    text = render([read_folder(folder)], static=False)
    assert text.count(": too long") == 50
    assert "… and 4,271 more; summary.json lists all 4,321" in text


def test_one_group_shows_no_order_and_no_chapter_about_others(tmp_path):
    text = render([read_folder(make_folder(tmp_path / "run", names=1))], static=False)
    assert text.count("There is one group") == 1
    assert "What comes first" not in text


@needs_chromium
def test_the_console_check_can_fail(hostile, tmp_path):
    """A page whose policy forbids an injected script is reported; so would an error of ours be."""
    broken = tmp_path / "broken.html"
    broken.write_text(hostile.read_text().replace('"kind":"heat"', '"kind":"unheard"') + "<script>alert(1)</script>")
    document, console = browse(broken, tmp_path / "profile")
    assert console
    assert 'data-errors="0"' not in document
