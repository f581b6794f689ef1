"""TensorBoard events: TRL's names, groups apart, and nothing of what a broken run logged beyond its checkpoint."""

import builtins
import importlib.util
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn.errors import DataError, MissingExtra, StoreError
from prefdyn.training.tracking import MEANS, OTHERS, REWARDS, EventWriter, metric_names, tag
from prefdyn.trajectory import SCHEMA, Trajectory

BETA = 0.1


@pytest.fixture(autouse=True)
def first_files(monkeypatch):
    """Files of one second are read by their number in the process, as a text: the tenth before the ninth."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def scalars(folder):
    """Tag → [(step, value)], as TensorBoard shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        read.Reload()
        return {name: [(each.step, each.value) for each in read.Scalars(name)] for name in read.Tags()["scalars"]}


def row(step=3, *, group="kind", split="train", pairs=2, **values):
    """A row with every mean measured, different in every column."""
    means = {column: place + pairs / 7 for place, column in enumerate([*MEANS, *REWARDS], 1)}
    return {"run": "joint", "step": step, "group": group, "split": split, "pairs": pairs, **means, **values}


# names ---------------------------------------------------------------------------------------------------------------


def test_names_are_trls():
    """Those of its trainer's log, with `eval_` for held-out pairs, and per group."""
    found = metric_names([row(), row(split="held_out")], beta=BETA)
    trl = [f"rewards/{kind}" for kind in ("chosen", "rejected", "accuracies", "margins")]
    trl += ["logps/chosen", "logps/rejected", "loss"]
    ours = ["policy_accuracies", "chosen_falling"]
    assert set(found) == {
        f"{side}{name}{end}" for side in ("", "eval_") for name in trl + ours for end in ("", "/kind")
    }


def test_trl_logs_these_names():
    """Seen in its own source, so that a renamed metric is noticed."""
    spec = importlib.util.find_spec("trl")  # importing it would take half a minute
    if spec is None or spec.origin is None:
        pytest.skip("trl is not installed")
    source = (Path(spec.origin).parent / "trainer" / "dpo_trainer.py").read_text(encoding="utf-8")
    for name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
                 "logps/rejected"):  # fmt: skip
        assert f'"{name}"' in source


def test_every_measured_column_has_a_name():
    """A column that is added to the Trajectory is not forgotten here."""
    named = {*MEANS, *REWARDS, *OTHERS, "drift"}
    assert {*SCHEMA.names} - named == {"run", "step", "time", "group", "split", "pairs"}


def test_the_aggregate_is_that_of_all_pairs():
    """Weighted by pairs, split by split; against the plain sum over pairs."""
    pairs = {("a", "train"): [1.0, 2.0, 6.0], ("b", "train"): [-4.0], ("b", "held_out"): [5.0, 7.0]}
    rows = [
        row(group=group, split=split, pairs=len(values), margin=sum(values) / len(values))
        for (group, split), values in pairs.items()
    ]
    found = metric_names(rows)
    assert found["rewards/margins/a"] == 3.0
    assert found["rewards/margins/b"] == -4.0
    assert found["rewards/margins"] == pytest.approx((1 + 2 + 6 - 4) / 4)
    assert found["eval_rewards/margins"] == found["eval_rewards/margins/b"] == 6.0
    assert "eval_rewards/margins/a" not in found


def test_rewards_are_beta_times_the_change():
    """As TRL has them; without beta they are not guessed."""
    found = metric_names([row(chosen_change=-3.0, rejected_change=-5.0)], beta=BETA)
    assert found["rewards/chosen"] == pytest.approx(-0.3)
    assert found["rewards/rejected/kind"] == pytest.approx(-0.5)
    assert not [name for name in metric_names([row()]) if name.startswith(("rewards/chosen", "rewards/rejected"))]


def test_what_was_not_measured_is_left_out():
    """Null is no number, and a mean over some of the groups is no mean over all."""
    found = metric_names([row(margin=None), row(group="true", drift=2.0, gradient_norm=5.0, loss=math.nan)])
    assert "rewards/margins/kind" not in found
    assert "rewards/margins" not in found
    assert "rewards/margins/true" in found
    assert math.isnan(found["loss"])
    assert found["drift"] == 2.0
    assert found["gradient_norm/true"] == 5.0
    assert "gradient_norm" not in found
    assert metric_names([]) == {}
    run = Trajectory.from_rows([row(time=0.5)], settings={})
    assert metric_names(run.rows()) == metric_names([row()])


def test_rows_that_do_not_belong_together_are_refused():
    """Of two steps, or of a split that has no name here; groups trained alone are passed over."""
    with pytest.raises(DataError, match=r"metrics are of one step, but these rows are of \[3, 4\]"):
        metric_names([row(3), row(4)])
    with pytest.raises(DataError, match="split 'test' is unknown; known: train, held_out"):
        metric_names([row(split="test")])
    assert metric_names([row(run="alone"), row(pairs=5)]) == metric_names([row(pairs=5)])


@given(st.lists(st.text(max_size=6), unique=True, max_size=20))
def test_groups_never_share_a_tag(groups):
    """Any names: as many tags, each one part of a path, printable."""
    tags = [tag(group) for group in groups]
    assert len(set(tags)) == len(groups)
    assert all(each and "/" not in each and each.isprintable() for each in tags)


def test_tags_of_hard_names():
    """Those that a plain replacement would make the same; readable ones stay as they are."""
    assert len({tag(group) for group in ("a/b", "a_b", "a%2Fb", "a b", "a\nb", "a\\b", "", "%", "\ud800")}) == 9
    for group in ("agreeableness", "harmless-base", "ends justify means", "Glück", "善"):
        assert tag(group) == group


# the file ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_tensorboard_shows(tmp_path):
    """Every value at its step, odd group names and all; None is left out."""
    with EventWriter(tmp_path / "events", beta=BETA) as writer:
        for step in (0, 1, 10):
            writer.track(
                step, [row(step, group="ä/b", pairs=step + 1)], {"step": step, "learning_rate": 0.5 / (1 + step)}
            )
            writer.log(step, {"nothing": None, "grad_norm": 7.0})
    shown = scalars(tmp_path / "events")
    assert shown["learning_rate"] == [(0, 0.5), (1, 0.25), (10, pytest.approx(0.5 / 11))]
    assert shown["grad_norm"] == [(0, 7.0), (1, 7.0), (10, 7.0)]
    assert "nothing" not in shown
    for name, value in metric_names([row(10, group="ä/b", pairs=11)], beta=BETA).items():
        assert shown[name][-1] == (10, pytest.approx(value)), name
    assert "rewards/margins/ä%2Fb" in shown


def test_figures_of_the_batch_stand_beside_those_of_the_probes(tmp_path):
    """Neither hides the other."""
    with EventWriter(tmp_path, beta=BETA) as writer:
        figures = {"step": 3, "pairs": 8, "loss": 9.0, "grad_norm": 2.0, "learning_rate": 0.1, "rewards/margins": None}
        writer.track(3, [row(loss=0.5)], figures)
    shown = scalars(tmp_path)
    assert shown["loss"] == [(3, 0.5)]
    assert shown["batch/loss"] == [(3, 9.0)]
    assert shown["batch/pairs"] == [(3, 8.0)]
    assert shown["grad_norm"] == [(3, 2.0)]
    assert not {"step", "batch/step", "batch/rewards/margins", "pairs"} & set(shown)


def test_a_logged_step_is_on_the_disk(tmp_path):
    """A process that is killed the next moment has lost nothing."""
    code = (
        "import os, sys; from pathlib import Path; from prefdyn.training.tracking import EventWriter\n"
        "writer = EventWriter(Path(sys.argv[1]))\n"
        "for step in range(5): writer.log(step, {'loss': step / 4})\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert scalars(tmp_path)["loss"] == [(step, step / 4) for step in range(5)]


@pytest.mark.parametrize("resumed", [None, 4])
def test_a_resumed_run_hides_what_was_logged_beyond_its_checkpoint(tmp_path, resumed):
    """Logged up to step 8, resumed from 4: one value for every step, from the run that counts."""
    with EventWriter(tmp_path) as writer:
        for step in (0, 1, 2, 4, 8):
            writer.log(step, {"loss": 1.0, "only/then": 1.0})
    with EventWriter(tmp_path, resumed=resumed) as writer:
        for step in (8, 16):
            writer.log(step, {"loss": 2.0})
    shown = scalars(tmp_path)
    assert shown["loss"] == [(0, 1.0), (1, 1.0), (2, 1.0), (4, 1.0), (8, 2.0), (16, 2.0)]
    assert shown["only/then"][-1] == (4, 1.0)
    assert len(os.listdir(tmp_path)) == 2


def test_the_resumed_step_itself_stays(tmp_path):
    """Even where the next step that is logged is far off, and others were logged between."""
    with EventWriter(tmp_path) as writer:
        for step in (0, 4, 5, 6):
            writer.log(step, {"loss": 1.0})
    with EventWriter(tmp_path, resumed=4) as writer:
        writer.log(9, {"loss": 2.0})
    assert scalars(tmp_path)["loss"] == [(0, 1.0), (4, 1.0), (9, 2.0)]


def test_nothing_logged_is_no_file(tmp_path):
    """And closing twice is no error."""
    writer = EventWriter(tmp_path / "events")
    writer.close()
    writer.close()
    assert not (tmp_path / "events").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    """A file stands in its way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"TensorBoard events cannot be written to .*file/events \("):
        EventWriter(tmp_path / "file" / "events").log(0, {"loss": 1.0})


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    """At once, not after the first hour."""
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "tensorboard":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"pip install tensorboard, or leave tensorboard out"):
        EventWriter(tmp_path)


def test_importing_the_module_imports_no_tensorboard():
    """Nor is anything of it loaded before it is asked for."""
    code = "import sys, prefdyn.training.tracking; assert not [n for n in sys.modules if n.startswith('tensorboard')]"
    subprocess.run([sys.executable, "-c", code], check=True)
