"""Figures of recipes as files, and the page: every kind of panel, the papers' colours, equal bytes, hostile text."""

import json
from typing import Any

import matplotlib
import numpy as np
import pytest
from fontTools import subset
from matplotlib import colormaps
from matplotlib.colors import to_rgba

from prefdyn.errors import StoreError
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.recipe import Figure, Line, Panel, mean_line
from prefdyn.report import figures
from prefdyn.report.field_figures import field_surface
from prefdyn.report.reproduce import (
    claims_table,
    reproduced_figure,
    write_reproduced_figures,
    write_reproduced_page,
)

SPEC = spec_of("2403.18742-fig03")
STEPS = np.arange(5.0)
HOSTILE = "<script>alert('x')</script> $\\frac{1}{2}$ & 日本\u202e語"


def lines(label="one", **rest):
    return Line(label=label, x=STEPS, y=STEPS**2, low=STEPS**2 - 1, high=STEPS**2 + 1, **rest)


PANELS = {
    "lines": [Panel(kind="lines", title=f"({letter})", x_label="Step", y_label="Loss (nats)",
                    lines=(lines(shade=0.1), lines("two", style="dashed")), marks=(("log 2", 0.69),))
              for letter in "abcd"],
    "points": [Panel(kind="lines", x_label="x", y_label="y", lines=(lines(style="points", shade=0.5),))],
    "clouds": [Panel(kind="clouds", title=title, lines=(lines("Yes", style="points", shade=0.2),)) for title in "ab"],
    "heat": [Panel(kind="heat", title="raw", matrix=np.eye(3), names=("u", "v", "w"), limit=1.0)] * 2,
    "table": [Panel(kind="table", columns=("K", "error"), rows=(("1", "0.0"), ("16", "0.183")))],
    "texts": [Panel(kind="texts", title="openness", rows=(("chosen: Yes", "A\nB"), ("chosen: No", "C " * 100)))],
    "surface": [Panel(kind="surface", options={"beta": 0.1})],
    "plane": [Panel(kind="plane", options={"beta": 0.1}, lines=(Line(label="p", x=np.array([1, 1.2]),
                                                                            y=np.array([1, 0.5])),))],
}  # fmt: skip


def figure(kind):
    return Figure(spec=SPEC, panels=tuple(PANELS[kind]), caption="What it shows.")


@pytest.mark.thorough
@pytest.mark.parametrize("kind", list(PANELS))
def test_every_kind_is_drawn_in_three_formats_with_equal_bytes(kind, tmp_path):
    first = write_reproduced_figures([figure(kind)], tmp_path / "one")
    again = write_reproduced_figures([figure(kind)], tmp_path / "two")
    assert [path.name for path in first] == [f"2403.18742-fig03.{end}" for end in ("svg", "png", "pdf")]
    for path, other in zip(first, again, strict=True):
        assert path.read_bytes() == other.read_bytes()
        assert path.stat().st_size > 1000
    assert figure(kind).table().num_rows > 0


def test_lines_have_the_papers_colours_bands_and_marks():
    drawn = reproduced_figure(figure("lines"))
    axes = drawn.axes
    assert [each.get_title(loc="left") for each in axes] == ["(a)", "(b)", "(c)", "(d)"]
    one, two, level = axes[0].get_lines()
    heights: Any = level.get_ydata()
    assert to_rgba(one.get_color()) == colormaps["plasma"](0.1)
    np.testing.assert_array_equal(one.get_ydata(), STEPS**2)
    assert two.get_linestyle() == "--"
    assert set(heights) == {0.69}
    band: Any = axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (-1.0, 17.0)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["one", "two"]
    assert axes[0].get_xlabel() == "Step"
    assert all(float(tick).is_integer() for tick in axes[0].get_xticks())
    assert "2403.18742, Figure 3: Training loss, last layer" in [text.get_text() for text in drawn.texts]


def test_nothing_of_a_picture_lies_outside_of_it_or_over_another():
    """Axes, legends and titles of a figure with four panels and long names."""
    long = "a-behaviour-with-a-very-long-name-of-the-kind-that-the-persona-files-have-" * 2
    panels = [
        Panel(kind="lines", title="t", x_label="x", y_label="y", lines=tuple(lines(f"{n} {long}") for n in range(6)))
    ]
    drawn = reproduced_figure(Figure(spec=SPEC, panels=tuple(panels * 4), caption=""))
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    whole = drawn.bbox
    boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in drawn.axes]
    boxes.append(drawn.legends[0].get_window_extent(canvas.get_renderer()))
    for place, box in enumerate(boxes):
        assert box is not None
        assert box.x0 >= whole.x0
        assert box.x1 <= whole.x1 + 1
        assert box.y0 >= whole.y0
        assert box.y1 <= whole.y1
        for other in boxes[place + 1 :]:
            assert other is not None
            assert not box.overlaps(other)


def test_a_heat_map_shows_every_name_and_the_limit():
    drawn = reproduced_figure(figure("heat"))
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert texts.count("u") == 2  # beside its row and under its column
    assert drawn.axes[0].images[0].get_clim() == (-1.0, 1.0)


def test_seeds_are_told_as_mean_and_range():
    line = mean_line("m", [0, 1], [[1.0, 2.0], [3.0, 0.0]])
    rows = Figure(spec=SPEC, panels=(Panel(kind="lines", lines=(line,)),), caption="").table().to_pylist()
    assert [(row["x"], row["y"], row["low"], row["high"]) for row in rows] == [
        (0.0, 2.0, 1.0, 3.0),
        (1.0, 1.0, 0.0, 2.0),
    ]


def folder(tmp_path, *, text="A claim.", holds=True, beyond=False):
    """A reproduction of one figure and one claim."""
    made = tmp_path / "made"
    write_reproduced_figures([figure("points")], made / "figures")
    claim = {
        "id": "c", "paper": "2403.18742", "where": "Figure 3", "statement": text, "paper_value": text, "measured": text,
        "holds": holds, "because": text, "rule": text, "recipe": "r", "figure": SPEC.id, "preset": "smoke",
        "evidence": {text: text, "estimate": {"value": 0.5, "low": None, "high": None, "seeds": 1}, "list": [1, None]},
        "control": {"beyond": beyond, "because": text},
    }  # fmt: skip
    summary = {
        "preset": {"name": "smoke", "says": text, "seeds": [0], "rows": None}, "model": {"name": text},
        "dataset": {"name": text}, "claims": {"held": 1, "failed": 0, "not_testable": 0}, "warnings": [text],
        "runs": {"all": 2, "done_before": 1}, "timings": {"reproduce_s": 1.0},
        "recipes": [{"name": "r", "summary": text, "notes": [text], "failed": text, "runs": 1, "seconds": 2.0}],
        "figures": [
            {
                "id": SPEC.id, "spec": SPEC.id, "paper": SPEC.paper, "where": SPEC.where, "title": text,
                "caption": text,
                "recipe": "r",
            }
        ],
        "published_and_here": [{"setup": "full", "field": "learning_rate", "here": 1e-4, "published": None}],
        "provenance": {"versions": {"python": text}},
    }  # fmt: skip
    (made / "claims.json").write_text(json.dumps([claim]))
    (made / "summary.json").write_text(json.dumps(summary))
    return made


def test_the_page_leads_with_claims_and_puts_each_figure_under_its_own(tmp_path):
    page = write_reproduced_page(folder(tmp_path), tmp_path / "page.html").read_text()
    assert page.count("A claim.") > 5
    table, below = page.index("<h2>Claims</h2>"), page.index(f'id="{SPEC.id}"')
    assert table < below < page.index("<img")
    assert f'href="#{SPEC.id}"' in page[table:below]
    assert "not beyond the untrained twin" in page
    assert page.count("http") == page.count("http-equiv")  # nothing is asked for from outside
    assert "1e-04" in page or "0.0001" in page


def test_hostile_text_stays_text(tmp_path):
    page = write_reproduced_page(folder(tmp_path, text=HOSTILE), tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    hostile = Figure(
        spec=SPEC, caption=HOSTILE,
        panels=(Panel(kind="lines", title=HOSTILE, lines=(lines(HOSTILE),), marks=((HOSTILE, 1.0),)),),
    )  # fmt: skip
    rest = [
        Panel(kind="heat", title=HOSTILE, matrix=np.eye(2), names=(HOSTILE, "v")),
        Panel(kind="table", columns=(HOSTILE, "b"), rows=((HOSTILE, "1"),)),
        Panel(kind="texts", title=HOSTILE, rows=((HOSTILE, HOSTILE),)),
    ]
    for each in [hostile, *(Figure(spec=SPEC, panels=(panel,), caption="") for panel in rest)]:
        svg = write_reproduced_figures([each], tmp_path / "figures")[0].read_text()
        assert "<script" not in svg


def test_a_folder_that_lacks_something_is_told(tmp_path):
    made = folder(tmp_path)
    (made / "figures" / f"{SPEC.id}.png").unlink()
    with pytest.raises(StoreError, match=r"2403.18742-fig03.png is missing .*; reproduce it again"):
        write_reproduced_page(made, tmp_path / "page.html")
    (made / "claims.json").write_text("{")
    with pytest.raises(StoreError, match=r"claims.json cannot be read .* give the folder of a `prefdyn reproduce`"):
        write_reproduced_page(made, tmp_path / "page.html")
    made = folder(tmp_path / "again")
    for name, change, says in [
        ("claims.json", lambda body: body[0].pop("rule"), r"\[0\].rule is missing"),
        (
            "claims.json",
            lambda body: body[0].update(holds="yes"),
            r"\[0\].holds is text \('yes'\), but must be true or f",
        ),
        (
            "claims.json",
            lambda body: body[0].update(control=[]),
            r"\[0\].control is a list, but must be an object or n",
        ),
        ("summary.json", lambda body: body.pop("runs"), "runs is missing"),
        ("summary.json", lambda body: body["recipes"][0].update(seconds=None), r"recipes\[0\].seconds is null"),
    ]:
        kept = (made / name).read_text()
        body = json.loads(kept)
        change(body)
        (made / name).write_text(json.dumps(body))
        with pytest.raises(StoreError, match=rf"{name}: {says}.*; give the folder of a `prefdyn reproduce`"):
            write_reproduced_page(made, tmp_path / "page.html")
        (made / name).write_text(kept)
    body = json.loads((made / "claims.json").read_text())
    body[0]["evidence"] = {"half an estimate": {"seeds": 3}}
    (made / "claims.json").write_text(json.dumps(body))
    write_reproduced_page(made, tmp_path / "page.html")
    (made / "summary.json").write_text((made / "summary.json").read_text().replace(SPEC.id, f"../figures/{SPEC.id}"))
    with pytest.raises(StoreError, match=r"holds no picture '\.\./figures/.*'; reproduce it again"):
        write_reproduced_page(made, tmp_path / "page.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        write_reproduced_figures([figure("points")], tmp_path / "file" / "inside")


def test_the_table_for_the_terminal_counts_and_tells_the_twin():
    rows = [
        {
            "paper": "p",
            "where": "Figure 3",
            "statement": "It falls.",
            "measured": "1",
            "holds": holds,
            "control": control,
        }
        for holds, control in ((True, {"beyond": True}), (True, {"beyond": False}), (False, None), (None, None))
    ]
    text = claims_table(rows)
    assert text.count("p, Figure 3") == 1
    assert text.splitlines()[-1] == "4 claims: 2 held, 1 failed, 1 not testable here"
    kinds = [{**row, "kind": kind} for row, kind in zip(rows, ("algebra", "ours", "ours", "algebra"), strict=True)]
    assert claims_table(kinds).splitlines()[-1] == (
        "4 claims: 2 held, 1 failed, 1 not testable here. Of what they do not tell of: 1 held, 1 failed, 0 not "
        "testable; of what no model or data can change: 1 held, 0 failed, 1 not testable"
    )
    assert "    not beyond the untrained twin" in text
    assert text.count("beyond the untrained twin") == 2


def test_a_pdf_has_its_letters_as_truetype_and_no_tables_to_place_them_by():
    before = list(subset.Options._drop_tables_default)
    with matplotlib.rc_context({"pdf.compression": 0}):
        raw = figures._pdf(field_surface(beta=0.1))
    assert raw.count(b"/FontFile2") >= 1
    assert b"glyf" in raw
    assert b"GPOS" not in raw
    assert b"GSUB" not in raw
    assert subset.Options._drop_tables_default == before
