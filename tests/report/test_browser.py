"""Pages in a real browser: what axe-core asks of them, light and dark, wide and narrow; a keyboard; 500 groups.

Needs the dependency group `browser` (Playwright, and the copy of axe-core in axe-playwright-python) and a Chromium on
the path; where one is not there each test says so and skips.
"""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.report.folders import read_folder
from prefdyn.report.html import write_report
from prefdyn.report.one_group import one_group
from prefdyn.store import save_features
from prefdyn.synthetic import gaussian_groups
from prefdyn.training.settings import LoRA
from tests.models.conftest import byte_tokenizer, make_model, own_cache, rows
from tests.report.make_folder import HOSTILE, make_folder
from tests.report.test_html import CHROMIUM

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: uv sync --group browser")
axe = pytest.importorskip("axe_playwright_python", reason="no axe-core: uv sync --group browser")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]
__all__ = ["own_cache"]
AXE = Path(axe.__file__).parent / "axe.min.js"
PHONE, DESK = 390, 1200
STATES = [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of each kind: few groups, one group of several, hostile names, two runs, a forecast and a whole plan."""
    at = tmp_path_factory.mktemp("pages")
    audit = make_folder(at / "audit", names=20)
    hostile = make_folder(at / "hostile", names=list(HOSTILE), missing=True)
    train = make_folder(at / "train", names=4, command="train")
    run = read_folder(audit)
    return {
        "audit": write_report(audit, at / "audit.html"),
        "group": write_report(one_group(run, run.names[2]), at / "group.html"),
        "hostile": write_report(hostile, at / "hostile.html"),
        "train": write_report(train, at / "train.html"),
        "several": write_report([audit, train], at / "several.html"),
        "forecast": write_report(foretold(at), at / "forecast.html"),
        "plan": planned(at) / "report.html",
    }


def foretold(at):
    """The folder of a forecast of a tiny run."""
    from prefdyn.planning.forecast import forecast

    data = PreferenceDataset.from_rows(rows(60, groups=3), name="statements").with_held_out(0.6, seed=0)
    model = make_model(at / "model", "llama-tied", byte_tokenizer())
    how = {"steps": 6, "learning_rate": 5e-3, "batch_size": 6, "probe": 2, "lora": LoRA(rank=2, alpha=4.0)}
    (at / "forecast").mkdir()
    forecast(data, str(model), cache=False, out=at, progress=False, **how).write(at / "forecast")
    return at / "forecast"


def planned(at):
    """The folder of a plan with all of its parts."""
    save_features(gaussian_groups(40, groups=3, width=6, half_gap=[1.0, 2.0, 2.0], held_out=0.1), at / "features")
    call = ["plan", "--features", str(at / "features"), "--steps", "12", "--out", str(at / "plan")]
    assert CliRunner().invoke(app, call, catch_exceptions=False).exit_code == 0
    return at / "plan"


def shown(browser, path, scheme, width):
    """The page with all of its folds open, and what its console said."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.wait_for_timeout(100)  # for what is laid out anew
    return page, said


def violations(page):
    """What axe-core finds: rule, what is wrong, and the first element."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 20, "so many rules looked at something"
    return [(each["id"], each["help"], each["nodes"][0]["html"][:200]) for each in found["violations"]]


@pytest.mark.parametrize(("scheme", "width"), STATES)
@pytest.mark.parametrize("name", ["audit", "group", "hostile", "train", "several", "forecast", "plan"])
def test_axe_core_finds_nothing_and_nothing_is_wider_than_the_page(browser, pages, name, scheme, width):
    page, said = shown(browser, pages[name], scheme, width)
    assert said == []
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("document.documentElement.dataset.errors") == "0"
    page.context.close()


def test_axe_core_would_find_a_faint_word_a_bare_button_and_a_picture_without_words(browser, pages, tmp_path):
    broken = tmp_path / "broken.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", pages["train"].read_text())
    wrong = '<p style="color:#ccc;background:#fff">faint</p><button></button><img src="data:,">'
    broken.write_text(text.replace("</main>", f"{wrong}</main>"))
    page, _ = shown(browser, broken, "light", DESK)
    assert {"color-contrast", "button-name", "image-alt"} <= {rule for rule, _, _ in violations(page)}
    page.context.close()


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("name", ["audit", "forecast", "plan"])
def test_a_keyboard_reaches_everything_that_can_be_pressed_and_sees_where_it_is(browser, pages, name, width):
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    page.goto(pages[name].as_uri())
    wanted = page.evaluate(
        "() => [...document.querySelectorAll('a[href], button, summary, select, input, [tabindex=\"0\"]')]"
        ".filter((each) => each.checkVisibility() && !each.disabled && each.tabIndex >= 0)"
        ".map((each, place) => { each.dataset.stop = place; return place; })"
    )
    met, outlined = [], []
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "() => { const each = document.activeElement, look = getComputedStyle(each);"
            " return each === document.body ? null : [Number(each.dataset.stop), look.outlineStyle !== 'none' &&"
            " parseFloat(look.outlineWidth) > 0]; }"
        )
        if at is None:
            break
        met.append(at[0])
        outlined.append(at[1])
    assert met[: len(wanted)] == sorted(wanted), "each once, in the order of the page"
    assert all(outlined)
    context.close()


def test_a_folded_row_opens_with_the_keyboard(browser, pages):
    context = browser.new_context(viewport={"width": DESK, "height": 844})
    page = context.new_page()
    page.goto(pages["audit"].as_uri())
    more = page.locator(".groups .more").first
    count = "() => [...document.querySelectorAll('.verdicts tbody tr')].filter((each) => each.checkVisibility()).length"
    before = page.evaluate(count)
    more.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(count) == 20 > before
    assert more.get_attribute("aria-expanded") == "true"
    context.close()


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_page_of_five_hundred_groups_is_there_within_a_second_of_work(browser, tmp_path, width):
    """Seconds of the page's own thread, on the processor: the clock would measure what else runs."""
    page_of = write_report(make_folder(tmp_path / "run", names=500), tmp_path / "page.html")
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(page_of.as_uri())
    took = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    drawn = page.evaluate("({ ...document.documentElement.dataset })")
    assert drawn["charts"] == drawn["chartsDrawn"] != "0"
    assert drawn["errors"] == "0"
    assert 0 < took["TaskDuration"] < 1.0
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    context.close()
