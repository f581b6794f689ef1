"""Pairs for a target: what is said beside what more pairs of the same law then show."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.dynamics.adjoint import one_setting
from prefdyn.errors import ConfigError, DataError
from prefdyn.planning.data import GroupCurve, plan_data, read_targets
from prefdyn.planning.weights import weighted_losses
from prefdyn.store import save_features
from prefdyn.synthetic import gaussian_groups

STEPS = 40


@pytest.fixture(scope="module")
def feats():
    return gaussian_groups([120, 80, 60], groups=3, width=16, half_gap=[1.5, 0.8, 0.3])


@pytest.fixture(scope="module")
def plan(feats):
    return plan_data(feats, steps=STEPS, progress=False)


def curve(loss, half, pairs=100):
    at = pairs * 2.0 ** (np.arange(-4, 9) / 2)
    middle = loss(at)
    return GroupCurve(
        pairs=pairs, measured_at=at[:5], measured=middle[:5], at=at, loss=middle, low=middle - half, high=middle + half
    )


def test_pairs_needed_are_where_curve_and_band_come_down_to_the_target():
    found = curve(lambda n: 0.3 + 20 / n, 0.02).needed(0.4)
    assert found.state == "more"
    assert found.pairs == pytest.approx(200, rel=0.01)
    assert found.low == pytest.approx(20 / 0.12, rel=0.03)
    assert found.high == pytest.approx(20 / 0.08, rel=0.03)


@pytest.mark.parametrize(
    ("target", "state"), [(0.6, "reached"), (0.51, "near"), (0.45, "more"), (0.31, "more"), (0.25, "out of reach")]
)
def test_what_is_said_of_a_target(target, state):
    assert curve(lambda n: 0.3 + 20 / n, 0.02).needed(target).state == state


def test_a_group_that_learns_nothing_is_out_of_reach_of_what_others_have(plan):
    rows = {row["name"]: row for row in plan.rows()}
    assert rows["group 0"]["state"] == "reached"
    assert rows["group 2"]["loss"] > rows["group 0"]["loss"]
    assert rows["group 2"]["target"] == pytest.approx(np.median([row["loss"] for row in rows.values()]))
    assert rows["group 2"]["needed"] is None or rows["group 2"]["needed"] > 54


def test_bands_hold_the_curve_and_widen_with_the_distance(plan):
    for each in plan.curve.values():
        assert (each.low <= each.loss).all()
        assert (each.loss <= each.high).all()
        width = each.high - each.low
        assert width[-1] >= width[-9] - 1e-12
        assert each.at[-1] == pytest.approx(16 * each.pairs)


def test_pairs_that_are_held_out_take_no_part(feats, plan):
    shifted = feats.states.copy()
    shifted[feats.held_out] += 100.0
    from dataclasses import replace

    other = plan_data(
        replace(feats, states=shifted), steps=STEPS, learning_rate=plan.setting.learning_rate, progress=False
    )
    np.testing.assert_array_equal(other.curve["group 0"].loss, plan.curve["group 0"].loss)


def test_growth_foretells_runs_with_a_tenth_fewer_pairs_of_one_group():
    """Mean over random tenths left out, every group in turn, against the derivative in log n."""
    feats = gaussian_groups([150, 120, 100], groups=3, width=12, half_gap=[1.2, 0.8, 0.5], held_out=0.0, tokens="ring")
    plan = plan_data(feats, steps=20, learning_rate=3.0, progress=False)
    from prefdyn.dynamics.crossfit import FOLDS, deal

    setting = one_setting(feats, learning_rate=3.0)
    fold, rng, m = deal(feats, np.arange(len(feats)), FOLDS, 0), np.random.default_rng(0), 3
    true = np.zeros((m, m))
    for judged in range(FOLDS):
        split = feats.with_held_out(fold == judged)
        columns = [np.ones(len(feats))]
        for more in range(m):
            mine = np.flatnonzero((feats.group == more) & (fold != judged))
            for part in np.array_split(rng.permutation(mine), 10):  # every pair is left out once
                columns.append(np.where(np.isin(np.arange(len(feats)), part), 0.0, 1.0))
        losses = weighted_losses(split, setting, 20, np.stack(columns, axis=1))
        for code in range(m):
            means = losses[(feats.group == code) & split.held_out].mean(axis=0)
            for more in range(m):
                change = means[0] - means[1 + 10 * more : 11 + 10 * more].mean()
                true[code, more] += change / -np.log(0.9) / FOLDS
    assert plan.growth is not None
    assert np.corrcoef(true.ravel(), plan.growth.ravel())[0, 1] > 0.98
    assert (np.sign(true) == np.sign(plan.growth)).mean() > 0.85


def test_targets_are_read_and_refused(feats):
    assert read_targets(["a:b:0.5", "c:1"]) == {"a:b": 0.5, "c": 1.0}
    for text in ("a", "a:", ":0.5", "a:0", "a:nan", "a:-1"):
        with pytest.raises(ConfigError, match="must be GROUP:LOSS"):
            read_targets([text])
    with pytest.raises(ConfigError, match="names 'a' twice"):
        read_targets(["a:1", "a:2"])
    with pytest.raises(DataError, match="names 'grup 0', which is no group; did you mean 'group 0'"):
        plan_data(feats, {"grup 0": 0.4}, progress=False)


def test_the_command_writes_tables_and_a_page(feats, tmp_path):
    save_features(feats, tmp_path / "features")
    call = ["plan", "data", "--features", str(tmp_path / "features"), "--steps", "20", "--target", "group 2:0.6"]
    result = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "plan")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Collect:" in result.output
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "plan" / "data.csv").read_text().splitlines())}
    assert float(rows["group 2"]["target"]) == 0.6
    points = list(csv.DictReader((tmp_path / "plan" / "curves.csv").read_text().splitlines()))
    assert {row["kind"] for row in points} == {"measured", "forecast"}
    part = json.loads((tmp_path / "plan" / "summary.json").read_text())["plan"]["data"]
    assert len(part["growth"]) == 9
    page = (tmp_path / "plan" / "report.html").read_text()
    assert "How many pairs" in page
    assert "What a tenth more pairs of one group does for another" in page


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["weights", "--target", "a:0.5"], "--target is for `prefdyn plan data`"),
        (["data", "--goal", "mean"], "--goal is for `prefdyn plan weights`"),
        (["data", "--floor", "0.2"], "--floor is for `prefdyn plan weights`"),
    ],
)
def test_flags_of_another_part_are_refused(extra, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["plan", *extra, "--limit", "20"])
    assert isinstance(result.exception, ConfigError)
    assert said in result.exception.typed
