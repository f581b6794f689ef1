"""Every part of a plan in one folder: the same as each part by itself, on one page."""

import json

import pytest
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.cli.plan import PARTS
from prefdyn.store import save_features
from prefdyn.synthetic import gaussian_groups

STEPS = "12"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    save_features(gaussian_groups(40, groups=2, width=6, half_gap=[1.0, 2.0], held_out=0.1), folder / "features")
    call = ["plan", "--features", str(folder / "features"), "--steps", STEPS, "--out", str(folder / "plan")]
    result = CliRunner().invoke(app, call, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder, json.loads((folder / "plan" / "summary.json").read_text()), result.stdout


@pytest.mark.thorough
def test_every_part_is_on_the_page_and_in_the_summary(planned):
    folder, summary, told = planned
    assert tuple(summary["plan"]) == PARTS
    page = (folder / "plan" / "report.html").read_text()
    for heading in ("What to change", "Weights of groups", "How many pairs", "Which settings", "What undoes it"):
        assert f"<h2>{heading}</h2>" in page
    assert all(f"(prefdyn plan {name})" in told for name in PARTS)
    assert [row["name"] for row in summary["groups"]] == ["group 0", "group 1"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["data", "undo"])
def test_a_part_is_what_it_is_by_itself(planned, name):
    folder, summary, _ = planned
    out = folder / name
    call = ["plan", name, "--features", str(folder / "features"), "--steps", STEPS, "--out", str(out)]
    assert CliRunner().invoke(app, call, catch_exceptions=False).exit_code == 0
    alone = json.loads((out / "summary.json").read_text())
    own = summary["plan"][name]
    assert own["groups"] == alone["groups"]
    assert {key: own[key] for key in alone["plan"][name] if key != "goal"} == {
        key: value for key, value in alone["plan"][name].items() if key != "goal"
    }
    assert (out / f"{name}.csv").read_bytes() == (folder / "plan" / name / f"{name}.csv").read_bytes()


def test_parts_that_the_data_is_too_small_for_are_left_out_and_named(tmp_path):
    save_features(gaussian_groups(12, groups=2, width=6, half_gap=2.0, held_out=0.0), tmp_path / "features")
    call = ["plan", "--features", str(tmp_path / "features"), "--steps", STEPS, "--out", str(tmp_path / "plan")]
    result = CliRunner().invoke(app, call, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "plan" / "summary.json").read_text())
    assert "select" not in summary["plan"]
    assert any(line.startswith("no plan of select: ") for line in summary["warnings"])
    assert not (tmp_path / "plan" / "select").exists()
