"""`--report-to`: a name that is none is told before any work; a run is told as it goes, and its page kept."""

import pytest
from accelerate import PartialState, tracking

from prefdyn.training import trackers
from tests.training.test_trackers import Kept

FEW = ("--groups", "keeps promises,likes company", "--limit", 20)


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Kept)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    Kept.runs.clear()
    PartialState._reset_state()
    yield Kept.runs
    PartialState._reset_state()


@pytest.mark.parametrize("command", ["audit", "plan", "train", "forecast"])
def test_an_unknown_tracker_is_told_at_once(prefdyn, command):
    ended = prefdyn(command, "--report-to", "wandbb")
    assert ended.code == 1
    assert "did you mean 'wandb'" in ended.err
    assert prefdyn(command, "--report-to", "tensorboard").code == 1


@pytest.mark.parametrize("command", ["audit", "plan", "train", "forecast"])
def test_a_package_that_is_missing_is_told_at_once(prefdyn, command, monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    ended = prefdyn(command, "--report-to", "comet_ml", "--out", tmp_path / "out")
    assert ended.code == 1
    assert ended.last_line.endswith("report_to comet_ml needs the package comet-ml: pip install comet-ml")
    assert not (tmp_path / "out").exists()


def test_training_of_the_head_is_told_step_by_step(prefdyn, kept, tmp_path):
    ended = prefdyn("train", "--tune", "last-layer", *FEW, "--steps", 3, "--record", "all",
                    "--report-to", "wandb", "--out", tmp_path / "run")  # fmt: skip
    assert ended.code == 0
    (run,) = kept
    assert sorted(run.logged) == [0, 1, 2, 3]
    assert all("eval_rewards/margins" in values and "loss" in values for values in run.logged.values())
    assert run.given == {"name": "run"}
    assert run.ended
    assert [path.rpartition("/")[2] for path in run.pages] == ["report.html"]


def test_an_audit_is_whole_whatever_becomes_of_the_tracker(prefdyn, kept, tmp_path, monkeypatch):
    def refused(self, values, step=None, **_):
        raise TimeoutError("no answer")

    monkeypatch.setattr(Kept, "log", refused)
    ended = prefdyn("audit", *FEW, "--steps", 3, "--report-to", "wandb", "--out", tmp_path / "out")
    assert ended.code == 1
    assert "wandb did not take step 0" in ended.last_line
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / ".prefdyn.json").exists()
