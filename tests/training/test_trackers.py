"""Trackers: what a run tells them is what TensorBoard is told, whatever the tracker."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate import PartialState, tracking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefdyn.errors import ConfigError, MissingExtra, StoreError
from prefdyn.planning.audit import audit
from prefdyn.synthetic import gaussian_groups
from prefdyn.training.trackers import Tracker, known, report, trackers
from prefdyn.training.tracking import merged, metric_names


class Kept(tracking.GeneralTracker):
    """A tracker that remembers."""

    name = "wandb"
    requires_logging_directory = False
    main_process_only = False
    runs: ClassVar[list["Kept"]] = []

    def __init__(self, project: str, **given: Any) -> None:
        super().__init__()
        self.project, self.given, self.logged, self.ended = project, given, {}, False
        self.settings: dict[str, Any] = {}
        self.pages: list[str] = []
        Kept.runs.append(self)

    @property
    def tracker(self) -> "Kept":
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        assert all(type(value) is float for value in values.values())
        tracking.logger.debug("logged")  # as those of accelerate do, which ask for its state
        self.logged.setdefault(step, {}).update(values)

    def log_artifact(self, path: str, **_: Any) -> None:
        self.pages.append(path)

    def finish(self) -> None:
        self.ended = True


class Broken(Kept):
    def start(self) -> None:
        raise RuntimeError("no route to host")


@pytest.fixture
def kept(monkeypatch):
    """The runs of a stand-in for wandb; MLflow is one that cannot be reached."""
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Kept)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Kept)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "swanlab", Broken)
    Kept.runs.clear()
    PartialState._reset_state()
    yield Kept.runs
    PartialState._reset_state()


def test_the_trackers_are_those_of_accelerate_but_tensorboard():
    assert {"wandb", "mlflow", "trackio"} <= set(known())
    assert "tensorboard" not in known()


def test_a_finished_run_is_told_by_trls_names(kept, tmp_path):
    found = audit(gaussian_groups(40, groups=2, width=6, held_out=0.2), steps=4, progress=False)
    given: dict[str, Any] = {"run": "audit", "folder": tmp_path, "beta": 0.1}
    with trackers(["wandb"], settings={"beta": 0.1, "schedule": None, "record": (1, 2)}, **given) as (each,):
        report(each, found.trajectory, found.rows())
    (run,) = kept
    assert run.ended
    assert (run.project, run.given) == ("prefdyn", {"name": "audit"})
    assert run.settings == {"beta": 0.1, "record": "(1, 2)"}
    steps = sorted({row["step"] for row in found.trajectory.rows()})
    assert sorted(run.logged) == steps
    for step in steps:
        rows = [row for row in found.trajectory.rows() if row["step"] == step]
        expected = metric_names(rows, beta=0.1)
        assert expected
        assert {name: run.logged[step][name] for name in expected} == expected
    by_group = {row["name"]: row["distinguishability"] for row in found.rows()}
    last = run.logged[steps[-1]]
    assert {name: last[f"groups/distinguishability/{name}"] for name in by_group} == by_group


def test_a_tracker_as_accelerate_has_it_is_started_fed_and_ended(tmp_path, monkeypatch):
    """TensorBoard's, under another's name, since it is the one whose package is here: no stand-in, nothing prepared."""
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "aim", tracking.TensorBoardTracker)
    PartialState._reset_state()
    with trackers(["aim"], run="r", folder=tmp_path, beta=0.1, settings={"beta": 0.1, "objective": "sigmoid"}) as (
        each,
    ):
        each.log(3, {"rewards/margins/a group": 0.25, "missing": None})
        each.log(4, {"rewards/margins/a group": 0.5})
    (folder,) = {path.parent for path in tmp_path.rglob("*tfevents*") if path.parent.name == "prefdyn"}
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("rewards/margins/a group")] == [(3, 0.25), (4, 0.5)]
    assert "missing" not in events.Tags()["scalars"]


def test_names_that_mlflow_refuses_are_written_in_its_letters(kept, tmp_path):
    each = Tracker("mlflow", run="r", folder=tmp_path, beta=None, settings={})
    each.track(3, [], {"loss (a%2Fb)": 1.0, "rewards/x-y.z": 2})
    assert kept[0].logged == {3: {"loss _a_2Fb_": 1.0, "rewards/x-y.z": 2.0}}
    assert each.page(Path("page.html"))
    assert kept[0].pages == ["page.html"]


def test_a_page_that_is_not_taken_is_told(kept, tmp_path, monkeypatch):
    each = Tracker("wandb", run="r", folder=tmp_path, beta=None, settings={})

    def refused(self: Any, path: str, **_: Any) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(Kept, "log_artifact", refused)
    with pytest.raises(StoreError, match=r"wandb did not take the page page\.html: no answer; it stays a file"):
        each.page(Path("page.html"))
    monkeypatch.delattr(Kept, "log_artifact")  # as in a trackio from before it had them
    assert not each.page(Path("page.html"))


IN_TRACKIO = """
import sys
from pathlib import Path
from prefdyn.training.trackers import trackers
with trackers(["trackio"], run="a run", folder=Path("events"), beta=0.1, settings={"beta": 0.1}) as (each,):
    each.log(3, {"rewards/margins/a group": 0.25})
    assert each.page(Path("report.html"))
    import trackio
    kept = trackio.use_artifact("report", type="report")
    assert (Path(kept.download("kept")) / "report.html").read_bytes() == Path("report.html").read_bytes()
from trackio.cli import main
named = ["--run", "a run", "--metric", "rewards/margins/a group"]
sys.argv = ["trackio", "get", "metric", "--project", "prefdyn", "--json", *named]
main()
"""


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed: uv run --with trackio pytest …")
def test_trackio_keeps_the_page(tmp_path):
    """The package itself, without network: the page comes back byte for byte."""
    (tmp_path / "report.html").write_text("<!doctype html><p>ä</p>", encoding="utf-8")
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", IN_TRACKIO], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(row["step"], row["value"]) for row in told["values"]] == [(3, 0.25)]


def test_what_cannot_be_started_is_told(kept, tmp_path, monkeypatch):
    given: dict[str, Any] = {"run": "r", "folder": tmp_path, "beta": None, "settings": {}}
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        Tracker("wandbb", **given)
    with pytest.raises(ConfigError, match="swanlab could not be started: no route to host"):
        Tracker("swanlab", **given)

    def missing(self: Any) -> None:
        raise ImportError("No module named 'comet_ml'")

    monkeypatch.setattr(Broken, "start", missing)
    with pytest.raises(MissingExtra, match="pip install swanlab"):
        Tracker("swanlab", **given)


def test_a_step_that_is_not_taken_is_told(kept, tmp_path, monkeypatch):
    each = Tracker("wandb", run="r", folder=tmp_path, beta=None, settings={})

    def refused(self: Any, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(Kept, "log", refused)
    with pytest.raises(StoreError, match="wandb did not take step 3: no answer"):
        each.log(3, {"loss": 1.0})


def test_what_a_tracker_prints_is_no_result(kept, tmp_path, monkeypatch, capsys):
    """As trackio does when a run begins and ends: stdout is for the result, such as that of --json."""
    for name in ("store_init_configuration", "log", "log_artifact", "finish"):
        monkeypatch.setattr(Kept, name, lambda *_, _said=name, **__: sys.stdout.write(f"{_said}\n"))
    with trackers(["wandb"], run="r", folder=tmp_path, beta=None, settings={}) as (each,):
        each.log(1, {"loss": 1.0})
        each.page(Path("page.html"))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.split() == ["store_init_configuration", "log", "log_artifact", "finish"]


def test_one_that_fails_ends_those_that_were_started(kept, tmp_path):
    given: dict[str, Any] = {"run": "r", "folder": tmp_path, "beta": None, "settings": {}}
    with pytest.raises(ConfigError), trackers(["wandb", "swanlab"], **given):
        pass
    assert kept[0].ended


def test_a_batch_does_not_hide_the_groups():
    assert merged({"loss": 1.0}, {"loss": 2.0, "pairs": 3, "lr": 0.1, "step": 9}) == {
        "loss": 1.0, "batch/loss": 2.0, "batch/pairs": 3, "lr": 0.1,
    }  # fmt: skip
