"""The page of a training run: only what was measured, its own numbers, and pictures whose words stand apart."""

import html
import itertools
import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text

from prefdyn.dynamics import module_shares
from prefdyn.errors import DataError, StoreError
from prefdyn.picture import Picture
from prefdyn.report import figures
from prefdyn.report.figures import figure_bytes, figure_of
from prefdyn.report.folders import read_folder
from prefdyn.report.html import render
from prefdyn.report.panels import panels
from prefdyn.report.training import module_drifts, training_drawings
from prefdyn.report.training_figures import ModuleDrift, drift_plot, modules_plot, updates_plot
from prefdyn.trajectory import MODULES
from tests.report.make_folder import HOSTILE, make_folder, make_trained_folder
from tests.report.test_field_figures import words_apart, words_in_picture

CURVES = {"loss-curves", "accuracy-curves", "margin-curves", "log-prob-curves", "chosen-falling", "gradient-norm"}


def drawn(folder):
    return {panel.id: panel for panel in panels(read_folder(folder))}


def change(folder, **parts):
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | parts))


def test_a_training_run_shows_what_it_measured_and_nothing_predicted(tmp_path):
    found = drawn(make_trained_folder(tmp_path / "full", names=4, tune="full"))
    assert set(found) == CURVES | {"order", "state-curves"}
    head = drawn(make_trained_folder(tmp_path / "head", names=4, tune="last-layer"))
    assert set(head) == CURVES | {"order"}  # the states of a frozen body stay as they are
    few = drawn(make_trained_folder(tmp_path / "few", names=2))
    assert set(few) == CURVES | {"state-curves"}


def test_panels_hold_the_numbers_of_the_folder(tmp_path):
    folder = make_trained_folder(tmp_path / "run", names=6)
    run, found = read_folder(folder), drawn(folder)
    np.testing.assert_array_equal(found["gradient-norm"].arrays["train"], run.curves("gradient_norm"))
    states = found["state-curves"].arrays
    np.testing.assert_array_equal(states["gap"], run.curves("distinguishability"))
    np.testing.assert_allclose(states["spread"], run.curves("trace") / run.curves("distinguishability") ** 2)
    order = found["order"].arrays
    np.testing.assert_array_equal(order["distinguishability"], run.column("distinguishability_before"))
    np.testing.assert_array_equal(order["decrease"], run.curves("loss")[:, 0] - run.curves("loss")[:, -1])
    assert "Rank correlation" in found["order"].layers[0].note
    assert run.rank().tolist() == [1, 2, 3, 4, 5, 6]


def test_without_held_out_pairs_accuracies_are_of_training_pairs(tmp_path):
    folder = make_trained_folder(tmp_path / "run", names=3, held_out=False)
    layers = drawn(folder)["accuracy-curves"].layers
    assert [layer.label for layer in layers] == ["Reward, training pairs", "Policy, training pairs"]
    assert "Not measured in this run" not in render([read_folder(folder)], static=False)


def test_the_page_says_how_to_read_its_curves_and_does_not_speak_of_a_simulation(tmp_path):
    run = read_folder(make_trained_folder(tmp_path / "run", names=5, tune="full"))
    page = html.unescape(render([run], static=False))
    body = page[page.index("</nav>") :]
    marks = ["Groups", "How to read these curves", "Margins and probabilities", "Weights, gradients and states"]
    marks += ["How far each module moved", "Update by update", "Settings and provenance"]
    places = [body.index(mark) for mark in marks]
    assert places == sorted(places)
    for missing in (
        "What this simulation says",
        "Pairs at odds",
        "Findings in the data",
        "Verdict per group",
        "predicted",
    ):
        assert missing not in page, missing
    for shown in ("Tuned", "full", "adamw", "Held-out loss", "Reward accuracy", "steps.csv", "modules.parquet"):
        assert shown in page, shown
    assert "learned by" in page


def test_remarks_lead_to_their_chapter_with_every_group_named(tmp_path):
    folder = make_trained_folder(tmp_path / "run", names=list(HOSTILE))
    table = pq.read_table(folder / "trajectory.parquet")
    low = [0.1 if step else 0.0 for step in table["step"].to_pylist()]
    place = table.schema.get_field_index("reward_accuracy")
    pq.write_table(table.set_column(place, "reward_accuracy", pa.array(low)), folder / "trajectory.parquet")
    page = render([read_folder(folder)], static=False)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "1 problem" in text
    assert "Reward accuracy below chance." in text
    assert 'href="#r0-reading"' in page
    assert "<details" in page[page.index('id="r0-reading"') :]
    assert "<script>alert(1)" not in page


def test_a_quiet_run_leads_with_nothing_and_says_so_below(tmp_path):
    page = html.unescape(render([read_folder(make_trained_folder(tmp_path / "run", names=2, speed=0.3))], static=False))
    assert page.count("Nothing in these curves asks for a look.") == 1
    assert page.index("Nothing in these curves") > page.index("</nav>")


def test_a_simulation_is_read_too_and_an_audit_keeps_its_verdicts(tmp_path):
    assert 'id="r0-reading"' in render([read_folder(make_folder(tmp_path / "s", command="simulate"))], static=False)
    assert 'id="r0-reading"' not in render([read_folder(make_folder(tmp_path / "a"))], static=False)


def test_missing_files_leave_their_pictures_out(tmp_path):
    folder = make_trained_folder(tmp_path / "run", names=3)
    assert [drawing.id for drawing in training_drawings(read_folder(folder))] == [
        "module-drift",
        "module-map",
        "updates",
    ]
    (folder / "modules.parquet").unlink()
    (folder / "steps.csv").unlink()
    run = read_folder(folder)
    assert training_drawings(run) == []
    assert "Settings and provenance" in render([run], static=False)
    assert training_drawings(read_folder(make_folder(tmp_path / "audit"))) == []


def test_unreadable_files_say_so(tmp_path):
    folder = make_trained_folder(tmp_path / "run", names=2)
    (folder / "steps.csv").write_text('"')
    with pytest.raises(StoreError, match=r"steps\.csv cannot be read as CSV"):
        read_folder(folder)
    (folder / "steps.csv").unlink()
    (folder / "modules.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"modules\.parquet cannot be read as Parquet"):
        read_folder(folder)


def test_groups_without_columns_of_training_still_make_a_page(tmp_path):
    """What an older or a stopped run may lack."""
    folder = make_trained_folder(tmp_path / "run", names=2)
    change(
        folder, groups=[{"name": row["name"]} for row in json.loads((folder / "summary.json").read_text())["groups"]]
    )
    page = render([read_folder(folder)], static=False)
    assert "How to read these curves" in page


# modules ------------------------------------------------------------------------------------------------------------


def test_modules_are_told_by_kind_and_layer_and_the_one_that_moved_most_comes_first(tmp_path):
    rows = [
        {"step": step, "module": name, "drift": scale * step, "norm": 2.0}
        for name, scale in (("transformer.h.11.mlp.c_fc", 1.0), ("transformer.h.2.mlp.c_fc", 3.0), ("lm_head", 2.0))
        for step in (0, 10)
    ]
    folder = make_trained_folder(tmp_path / "run", names=2)
    pq.write_table(pa.Table.from_pylist(rows, schema=MODULES), folder / "modules.parquet")
    found = module_drifts(read_folder(folder))
    assert [(item.kind, item.layer, item.drift.tolist()) for item in found] == [
        ("h.*.mlp.c_fc", 2, [0.0, 30.0]),
        ("lm_head", None, [0.0, 20.0]),
        ("h.*.mlp.c_fc", 11, [0.0, 10.0]),
    ]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("base_model.model.transformer.h.0.attn", "h.0.attn"),
        ("model.layers.3.mlp.up_proj", "layers.3.mlp.up_proj"),
        ("lm_head", "lm_head"),
        ("model", "model"),
    ],
)
def test_names_lose_what_all_modules_have_before_them(name, short):
    assert module_shares.short(name) == short


def modules(kinds, layers, *, norm=2.0, steps=(0, 1, 10, 300), loose=("wte", "ln_f")):
    rng = np.random.default_rng(0)
    found = []
    for name, kind, layer in [
        *((f"h.{layer}.{kind}", f"h.*.{kind}", layer) for layer in range(layers) for kind in kinds),
        *((name, name, None) for name in loose),
    ]:
        drift = rng.gamma(1.0, 0.2) * np.sqrt(np.array(steps, dtype=float))
        found.append(
            ModuleDrift(name=name, kind=kind, layer=layer, steps=np.array(steps, dtype=float), drift=drift, norm=norm)
        )
    return sorted(found, key=lambda item: -item.drift[-1])


KINDS = ("attn.attention.q_proj", "attn.attention.k_proj", "mlp.c_fc", "mlp.c_proj", "ln_1")
UPDATES = np.arange(1.0, 501)
NOISE = np.random.default_rng(1).normal(0.5, 0.1, 500)


def updates(steps, *series):
    plots = tuple(updates_plot(steps, label, values) for label, values in series)
    return Picture(id="updates", title="Update by update", caption="", plots=plots, size=(2.6, 1.78), across=3)


def drifts(modules, *, relative):
    return Picture(id="drift", title="Drift", caption="", plots=(drift_plot(modules, relative=relative),))


def mapped(modules):
    return Picture(id="map", title="Drift", caption="", plots=(modules_plot(modules, relative=True),))


DRAWN = {
    "full": drifts(modules(KINDS, 4), relative=True),
    "deep": drifts(modules([*KINDS, "W" * 50], 80), relative=True),
    "adapters": drifts(modules(KINDS[:2], 3, norm=math.nan, loose=()), relative=False),
    "head": drifts(modules((), 0, loose=("lm_head",)), relative=True),
    "no layers": drifts(modules((), 0, loose=("a", "b", "c")), relative=True),
    "long": drifts(modules(KINDS, 2, steps=(0, 10, 1_000_000)), relative=True),
    "map": mapped(modules(KINDS, 4)),
    "deep map": mapped(modules([*KINDS, "W" * 50], 80)),
    "map without layers": mapped(modules((), 0, loose=("a", "b", "c"))),
    "updates": updates(UPDATES, ("Loss (nats)", NOISE), ("Norm", NOISE * 1e5), ("Rate", 0 * NOISE + 3e-6)),
    "one update": updates(np.array([1.0, 2.0]), ("Loss (nats)", np.array([0.7, math.nan]))),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_words_lie_on_others_or_leave_the_picture(name):
    figure = figure_of(DRAWN[name])
    words_apart(itertools.combinations(words_in_picture(figure, 4), 2))
    assert "mathdefault" not in " ".join(text.get_text() for text in figure.findobj(Text))  # pyright: ignore


def test_the_map_shows_each_module_at_its_layer():
    some, plot = modules(KINDS, 4), modules_plot(modules(KINDS, 4), relative=True)
    shown: Any = figure_of(DRAWN["map"]).axes[0].images[0].get_array()
    values = np.ma.filled(shown, math.nan)
    assert values.shape == (7, 5)
    for item in some:
        column = 4 if item.layer is None else item.layer
        assert values[plot.names.index(item.kind), column] == pytest.approx(item.drift[-1] / 2.0)
    assert np.isnan(values).sum() == 7 * 5 - len(some)


def test_running_means_are_means_of_their_window():
    axes = figure_of(DRAWN["updates"]).axes[0]
    thin, thick = axes.get_lines()
    np.testing.assert_allclose(np.asarray(thin.get_ydata()), NOISE)
    np.testing.assert_allclose(np.asarray(thick.get_ydata())[0], NOISE[:10].mean())
    assert axes.figure.axes[2].get_title(loc="left") == "Rate (× 1e−6)"


def test_files_are_the_same_each_time_and_nothing_is_drawn_of_nothing():
    for name in ("full", "map", "updates"):
        first = figure_bytes(DRAWN[name])
        figures._KEPT.clear()
        assert figure_bytes(DRAWN[name]) == first
    with pytest.raises(DataError, match="no module is given"):
        drift_plot([], relative=True)
    with pytest.raises(DataError, match="the picture 'updates' has no plot; give at least one"):
        updates(np.arange(2.0))


def test_every_update_is_on_the_plot():
    plot = updates_plot(UPDATES, "Loss", NOISE)
    assert plot.x_range == (1.0, 500.0)
    thin, mean = plot.lines
    assert (thin.x[0], thin.x[-1], len(thin.x)) == (1.0, 500.0, 500)
    np.testing.assert_allclose(mean.y[0], NOISE[:10].mean())
    assert len(mean.y) == 491
