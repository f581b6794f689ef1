"""`prefdyn bounds` and `prefdyn field` as a user runs them."""

import json

import pytest

from tests.cli.conftest import pair, write_rows

SOME = "likes company,keeps promises"


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.thorough
def test_bounds_from_features_and_field_over_its_run(prefdyn, tmp_path):
    """The table, the files, the same statements as an audit of the same features, and the path laid over the plane."""
    assert prefdyn("extract", "--groups", SOME, "--limit", 60, "--out", "features").code == 0
    found = prefdyn("bounds", "--features", "features", "--steps", 12, "--figure-style", "screen", "--out", "b")
    assert found.code == 0, found.err
    assert "2403.18742, Theorem 4.1 (repaired): drift of the head after 12 steps" in found.out
    assert "likes company" in found.out  # two groups are few: each is told
    assert "Next: open b/report.html" in found.err
    written = summary(tmp_path / "b")
    assert {row["form"] for row in written["bounds"]} == {"published", "repaired", "sharper"}
    figures = {path.name for path in (tmp_path / "b" / "figures").glob("[!.]*")}
    assert {"drift.svg", "margin-fan.png", "values-needed.svg", "field-plane.png", "field-surface.svg"} <= figures
    assert prefdyn("audit", "--features", "features", "--steps", 12, "--out", "a").code == 0
    audited = summary(tmp_path / "a")
    assert audited["bounds"] == written["bounds"]
    assert "What is proved about this run" in (tmp_path / "a" / "report.html").read_text()

    for source in ("b", "a"):
        field = prefdyn("field", "--run", source, "--out", f"field-{source}", "--json")
        assert field.code == 0, field.err
        told = json.loads(field.out)
        assert told["theory"]["path"]["x1"][0] == 1.0
        assert told["settings"]["beta"] == 0.1
        forecast = ("2404.04626, Theorem 1 (chosen only rises)", "repaired")  # needs features, not only a run
        about = [row for row in written["bounds"] if row["statement"].startswith("2404")]
        assert told["bounds"] == [row for row in about if (row["statement"], row["form"]) != forecast]
    assert prefdyn("report", "b", "field-b", "--out", "both.html").code == 0


def test_bounds_in_json_and_one_by_one(prefdyn):
    small = ("--groups", SOME, "--limit", 30, "--steps", 2)
    found = prefdyn("bounds", *small, "--json")
    assert found.code == 0, found.err
    told = json.loads(found.out)
    assert told["command"] == "bounds"
    for row in told["bounds"]:
        assert {"statement", "value", "measured", "applies", "vacuous", "conditions"} <= set(row)
        assert row["standing"] in {"informative", "empty", "outside", "broken"}
        assert row["meaning"]


def test_field_alone_needs_nothing(prefdyn, tmp_path):
    found = prefdyn("field", "--beta", "0.5", "--ref-chosen", "0.1", "--ref-rejected", "0.4")
    assert found.code == 0, found.err
    assert "x1/x2" in found.out
    assert "to 0 in time 2.49" in found.out
    assert "With reference probabilities 0.1 and 0.4 that path stays within what two probabilities allow." in found.out
    likely = prefdyn("field", "--ref-chosen", "0.7", "--ref-rejected", "0.3", "--out", "likely")
    assert "0.7 and 0.3 that path leaves what two probabilities allow." in likely.out
    folder = tmp_path / "prefdyn-out" / "field-1"
    assert {path.name for path in folder.glob("[!.]*")} == {"config.yaml", "report.html", "summary.json"}
    again = prefdyn("field", "--config", folder / "config.yaml", "--out", "again")
    assert again.code == 0, again.err
    assert again.out == found.out
    assert "never brings x2 to 0" in prefdyn("field", "--beta", "2").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("field", "--beta", "-1"), "beta is -1.0, but must be a finite number above 0"),
        (("field", "--beta", "nan"), "beta is nan"),
        (("field", "--ref-chosen", "0.3"), "only one reference probability is given; give both"),
        (("field", "--ref-chosen", "0.9", "--ref-rejected", "0.9"), "0.9"),
        (("field", "--run", "nowhere"), "nowhere is no folder"),
        (("field", "--run", "r", "--beta", "0.1"), "--beta 0.1 cannot be used with --run"),
        (("bounds", "--beta", "0"), "beta is 0.0, but must be a finite number above 0"),
        (("bounds", "--learning-rate", "fast"), "--learning-rate 'fast' is neither a number nor 'auto'"),
        (("bounds", "--split", "0"), "--split is 0.0"),
        (("bounds", "--features", "nowhere"), "nowhere"),
        (("bounds", "--features", "nowhere", "--limit", "3"), "--limit cannot be used with --features"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(prefdyn, tmp_path, arguments, says):
    found = prefdyn(*arguments)
    assert found.code == 1, (found.out, found.err)
    assert says in found.last_line
    assert "Traceback" not in found.err
    assert not list((tmp_path / "prefdyn-out").glob("*"))


def test_a_field_folder_has_no_run_to_lay_over(prefdyn):
    assert prefdyn("field", "--out", "plain").code == 0
    found = prefdyn("field", "--run", "plain")
    assert found.code == 1
    assert "holds no trajectory.parquet" in found.last_line


@pytest.mark.parametrize(
    "rows",
    [
        [pair(k) for k in range(4)],
        [pair(2 * k) for k in range(30)] + [pair(k, group="both") for k in range(30)],
        [pair(k, weight=1.0 + k) for k in range(24)],
    ],
    ids=["four pairs", "a group with one class", "weights"],
)
def test_odd_data_still_gets_a_table(prefdyn, tmp_path, rows):
    write_rows(tmp_path / "odd.jsonl", rows)
    found = prefdyn("bounds", "--data", "odd.jsonl", "--steps", 3)
    assert found.code == 0, found.err
    assert "Of " in found.out
    assert "nan" not in found.out
    if len(rows) == 60:
        assert "warning: 1 of 2 groups (g) have no two classes of training pairs" in found.err
