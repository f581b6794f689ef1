"""`prefdyn compare` as a user runs it."""

import json

import numpy as np
import pytest

from prefdyn.planning.simulate import simulate
from prefdyn.report.folders import read_folder
from prefdyn.store import save_trajectory
from prefdyn.synthetic import gaussian_groups

GAPS = [2.0, 1.3, 0.8, 0.5, 0.3]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def run_of(folder, groups, **settings):
    """A folder as `simulate` leaves it, but for its pictures."""
    folder.mkdir()
    simulate(groups, progress=False, **settings).write(folder)


def test_two_simulations_side_by_side(prefdyn, tmp_path):
    """Table, files, the same from the configuration, and a page of both by `report`."""
    feats = gaussian_groups(60, groups=5, width=12, half_gap=GAPS, held_out=0.3)
    for name, rate, steps in (("fast", 0.4, 40), ("slow", 0.1, 160)):
        run_of(tmp_path / name, feats, learning_rate=rate, steps=steps)
    found = prefdyn("compare", "fast", "slow", "--loss", "0.69,0.68", "--figure-style", "screen", "--out", "both")
    assert found.code == 0, found.err
    assert all(name in found.out for name in feats.groups)
    assert "Order of learning, fast against slow: rank correlation" in " ".join(found.out.split())
    assert "Settings that differ: learning_rate, steps." in found.out
    assert "Next: open both/report.html" in found.err
    names = {path.name for path in (tmp_path / "both").glob("[!.]*")}
    assert names == {"config.yaml", "figures", "groups.csv", "report.html", "summary.json", "trajectory.parquet"}
    figures = {path.name for path in (tmp_path / "both" / "figures").glob("[!.]*")}
    assert {"compare-loss.svg", "compare-margin.png", "compare-order.svg"} <= figures
    written = summary(tmp_path / "both")
    assert written["comparison"]["rescaling"]["factor"] == pytest.approx(4, rel=0.05)
    assert "first_steps_to_0.68" in written["comparison"]["rows"][0]

    again = prefdyn("compare", "--config", "both/config.yaml", "--out", "again", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == written
    page = prefdyn("report", "both", "fast", "--out", "page.html")
    assert page.code == 0, page.err
    text = (tmp_path / "page.html").read_text()
    assert "Two runs side by side" in text
    assert "How to read these curves" in text
    field = prefdyn("field", "--run", "both")
    assert field.code == 1
    assert "both holds a comparison; give a folder of audit, simulate, bounds or train with one run" in field.last_line


def test_different_groups_are_named_and_none_in_common_is_an_error(prefdyn, tmp_path):
    feats = gaussian_groups(40, groups=4, width=12, held_out=0.3)
    names = feats.groups
    for folder, kept in (("a", names[:2]), ("b", names[1:3]), ("c", names[3:])):
        inside = [code for code, name in enumerate(names) if name in kept]
        run_of(tmp_path / folder, feats.select(np.isin(feats.group, inside)), steps=3)
    found = prefdyn("compare", "a", "b")
    assert found.code == 0, found.err
    assert "warning: Only a has 'group 0': left out of every figure." in found.err
    assert "warning: Only b has 'group 2': left out of every figure." in found.err
    nothing = prefdyn("compare", "a", "c")
    assert nothing.code == 1
    assert "the runs share no group: a has 'group 0', 'group 1', c has 'group 3'" in nothing.last_line


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nowhere", "there"), 1, "nowhere is no folder"),
        (("nowhere",), 2, "Missing argument 'B'"),
        (("nowhere", "there", "--loss", "low"), 1, "--loss 'low' must be a number"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(prefdyn, tmp_path, arguments, code, says):
    found = prefdyn("compare", *arguments)
    assert found.code == code, (found.out, found.err)
    assert says in found.err
    assert not list((tmp_path / "prefdyn-out").glob("*"))


def test_a_run_that_a_trainer_saved_is_read_by_itself(prefdyn, tmp_path):
    """What `GroupDPOTrainer.save_trajectory` writes has no summary; the same run with one gives the same comparison."""
    feats = gaussian_groups(40, groups=3, width=8, half_gap=[2.0, 1.0, 0.5], held_out=0.3)
    run_of(tmp_path / "told", feats, learning_rate=0.2, steps=20)
    run_of(tmp_path / "whole", feats, learning_rate=0.1, steps=20)
    save_trajectory(read_folder(tmp_path / "whole").run(), tmp_path / "bare")
    found = [prefdyn("compare", "told", name, "--json", "--out", f"of-{name}") for name in ("whole", "bare")]
    assert [each.code for each in found] == [0, 0], found[1].err
    whole, bare = (json.loads(each.out)["comparison"] for each in found)
    assert bare["rows"] == whole["rows"]
    assert bare["order"] == whole["order"]
    assert bare["commands"] == ["simulate", "train"]
    page = prefdyn("report", "bare", "--out", "page.html")
    assert page.code == 0, page.err
    (tmp_path / "bare" / "trajectory.json").write_text("{}")
    broken = prefdyn("compare", "told", "bare")
    assert broken.code != 0
    assert "trajectory.json" in broken.err
