"""How to read a run's curves: each rule speaks on a run made for it, and is silent on its near miss."""

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from prefdyn.dynamics.pace import Curve
from prefdyn.report.explained import explained
from prefdyn.report.reading import reading, remark_sentence
from prefdyn.report.remarks import SEVERITIES, Remark
from prefdyn.report.run_curves import since
from prefdyn.synthetic import gaussian_groups
from prefdyn.trajectory import SCHEMA
from tests.report.make_folder import HOSTILE, make_folder, make_trained_folder

STEPS = [0, 1, 2, 5, 10, 20, 50, 100]
SETTINGS: dict[str, Any] = {"objective": "sigmoid", "beta": 0.1, "learning_rate": 1e-4, "steps": 100, "tune": "lora"}
LOG2 = math.log(2)


def rise(top):
    """From 0 towards `top` as training goes on."""
    return lambda step: top * (1 - math.exp(-step / 25)) / (1 - math.exp(-4))


def through(**at):
    """Straight lines through the given steps, such as s0=0, s10=1."""
    steps, values = zip(*((int(key[1:]), value) for key, value in at.items()), strict=True)
    return lambda step: float(np.interp(step, steps, values))


HEALTHY: dict[str, Any] = {
    "pairs": 200,
    "loss": lambda step: LOG2 - rise(0.28)(step),
    "margin": rise(0.8),
    "reward_accuracy": lambda step: 0.0 if step == 0 else 0.7 + rise(0.15)(step),
    "policy_accuracy": lambda step: 0.5 + rise(0.3)(step),
    "chosen_log_prob": lambda step: -3 + rise(2)(step),
    "rejected_log_prob": lambda step: -3 - rise(6)(step),
    "chosen_change": rise(2),
    "rejected_change": rise(-6),
    "chosen_falling": lambda step: 0.0 if step == 0 else 0.2,
    "drift": rise(0.4),
    "gradient_norm": lambda step: 0.5 - rise(0.2)(step),
}
"""A group that learns as it should."""


def table(groups, *, steps=STEPS):
    """Groups → (training changes, held-out changes) on top of a healthy group; None: no held-out pairs."""
    rows = []
    for name, (train, held) in groups.items():
        for split, change in (("train", train), ("held_out", held)):
            if change is None:
                continue
            group = HEALTHY | change
            for step in steps:
                values = {key: value(step) if callable(value) else value for key, value in group.items()}
                rows.append({"run": "joint", "step": step, "group": name, "split": split} | values)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def remarks(train=None, held=None, *, steps=STEPS, updates=None, pairs=None, kind="answers", others=0, **settings):
    """What is said of a run with one changed group, "odd", among healthy ones."""
    groups: dict[str, Any] = {"odd": (train or {}, None if held is False else (held or {}))}
    groups |= {f"fine {k}": ({}, {}) for k in range(others)}
    summary = {"settings": SETTINGS | settings, "features": {"kind": kind}}
    return reading(summary, table(groups, steps=steps), updates=updates, pairs=pairs)


def found(code, *args, **kwargs) -> Remark | None:
    """The remark of one rule."""
    return next((remark for remark in remarks(*args, **kwargs) if remark.code == code), None)


def test_of_a_healthy_run_nothing_is_said():
    assert remarks(others=3) == []
    assert remarks(held=False) == []
    assert remark_sentence([]) == "Nothing in these curves asks for a look."


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([1.0, 0.3, 0.1, 0.0], 20),  # from the first value below it
        ([1.0, 0.1, 0.3, 0.1], 30),  # it came back
        ([0.1, 0.1, 0.1, 0.1], 0),
        ([1.0, 0.2, 0.1, 0.1], 20),  # at the limit is not below it
    ],
)
def test_a_curve_is_below_a_limit_since_the_step_after_the_last_above(values, step):
    assert since(Curve(np.array([0.0, 10.0, 20.0, 30.0]), np.array(values)), 0.2) == step


def moved(loss, **rest):
    return {"loss": loss, **rest}


FEW = {"pairs": 8, "reward_accuracy": lambda step: float(step > 0)}
FALLS_TOGETHER = {"chosen_change": rise(-3), "rejected_change": rise(-9), "chosen_falling": 0.9}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # rule: what earns it, and the same with its one cause taken away
    "not-finite": (
        "not-finite",
        {"train": moved(lambda step: math.inf if step >= 50 else 0.6)},
        {"train": moved(lambda step: None if step >= 50 else 0.6 - rise(0.2)(step))},
    ),
    "a loss at log 2": (
        "stuck",
        {"train": moved(lambda step: LOG2 - rise(0.009)(step))},
        {"train": moved(lambda step: LOG2 - rise(0.02)(step))},
    ),
    "a group that stands still": (
        "some-stuck",
        {"train": moved(lambda step: LOG2 - rise(0.009)(step)), "others": 3},
        {"train": moved(lambda step: LOG2 - rise(0.03)(step)), "others": 3},
    ),
    "chosen falls a lot, along with rejected": (
        "displaced",
        {"train": FALLS_TOGETHER},
        {"train": FALLS_TOGETHER | {"chosen_change": rise(-0.9), "rejected_change": rise(-3)}},
    ),
    "chosen falls a lot, but rejected far more": (
        "displaced",
        {"train": FALLS_TOGETHER | {"rejected_change": rise(-11.9)}},
        {"train": FALLS_TOGETHER | {"rejected_change": rise(-12.1)}},
    ),
    "chosen falls a lot, in most pairs": (
        "displaced",
        {"train": FALLS_TOGETHER | {"chosen_falling": 0.7}},
        {"train": FALLS_TOGETHER | {"chosen_falling": 0.6}},
    ),
    "a fall per token": (
        "displaced",
        {"train": FALLS_TOGETHER, "kind": "responses", "pairs": 29},
        {"train": FALLS_TOGETHER, "kind": "responses", "pairs": 31},
    ),
    "rejected rises": (
        "reversed",
        {"train": {"chosen_change": rise(-2), "rejected_change": rise(0.1)}},
        {"train": {"chosen_change": rise(-2), "rejected_change": rise(-0.1)}},
    ),
    "pulled both ways": (
        "torn",
        {"train": FALLS_TOGETHER | {"chosen_falling": 0.55}},
        {"train": FALLS_TOGETHER | {"chosen_falling": 0.75}},
    ),
    "a negative reward": (
        "negative",
        {"train": {"chosen_change": rise(-0.3), "rejected_change": rise(-6)}},
        {"train": {"chosen_change": rise(-0.04), "rejected_change": rise(-6)}},
    ),
    "a turn": (
        "turn",
        {"train": {"chosen_change": through(s0=0, s20=0.4, s100=0.2)}},
        {"train": {"chosen_change": through(s0=0, s20=0.4, s100=0.35)}},
    ),
    "below chance": (
        "below-chance",
        {"held": {"reward_accuracy": 0.4}},
        {"held": {"reward_accuracy": 0.45}},
    ),
    "below chance, one of few groups": (
        "below-chance",
        {"held": {"reward_accuracy": 0.425}},
        {"held": {"reward_accuracy": 0.425}, "others": 9},
    ),
    "below chance though nothing moved": (
        "below-chance",
        {"held": {"reward_accuracy": 0.0, "margin": 1e-3}},
        {"held": {"reward_accuracy": 0.0, "margin": 0.0}},
    ),
    "right way, not there": (
        "behind",
        {"held": {"reward_accuracy": 0.7, "policy_accuracy": 0.3}},
        {"held": {"reward_accuracy": 0.7, "policy_accuracy": 0.46}},
    ),
    "accuracies of 0 and 1": (
        "coarse",
        {"held": FEW},
        {"held": FEW | {"reward_accuracy": lambda step: 0.875 * (step > 0)}},
    ),
    "accuracies of 0 and 1 over many": ("coarse", {"held": FEW | {"pairs": 19}}, {"held": FEW | {"pairs": 20}}),
    "right at once": (
        "trivial",
        {"held": {"reward_accuracy": lambda step: 0.99 if step >= 10 else 0.5}},
        {"held": {"reward_accuracy": lambda step: 0.99 if step >= 20 else 0.5}},
    ),
    "right at once, then not": (
        "trivial",
        {"held": {"reward_accuracy": lambda step: 0.99}},
        {"held": {"reward_accuracy": lambda step: 0.99 if step != 50 else 0.9}},
    ),
    "known before": ("trivial", {"held": {"policy_accuracy": 0.98}}, {"held": {"policy_accuracy": 0.97}}),
    "a loss at 0": (
        "collapsed",
        {"train": moved(lambda step: LOG2 - rise(LOG2 - 0.04)(step))},
        {"train": moved(lambda step: LOG2 - rise(LOG2 - 0.06)(step))},
    ),
    "memorised": (
        "memorised",
        {"train": moved(lambda step: LOG2 - rise(0.4)(step)), "held": moved(lambda step: LOG2 - rise(0.03)(step))},
        {"train": moved(lambda step: LOG2 - rise(0.4)(step)), "held": moved(lambda step: LOG2 - rise(0.05)(step))},
    ),
    "memorised, few pairs": (
        "memorised",
        {"held": moved(lambda step: LOG2 + rise(0.2)(step), pairs=20)},
        {"held": moved(lambda step: LOG2 + rise(0.2)(step), pairs=19)},
    ),
    "held-out loss turns": (
        "overfit",
        {"held": moved(through(s0=0.69, s20=0.5, s100=0.56))},
        {"held": moved(through(s0=0.69, s20=0.5, s100=0.53))},
    ),
    "margins off at the start": (
        "start",
        {"start_margin": 0.05},
        {"start_margin": 0.03},
    ),
    "mean margins off at the start": (
        "start",
        {"train": {"margin": lambda step: 0.05 + rise(0.7)(step)}},
        {"train": {"margin": lambda step: 0.03 + rise(0.7)(step)}},
    ),
    "beta too small": (
        "beta",
        {"train": {"chosen_change": rise(4)}},
        {"train": {"chosen_change": rise(3.9)}},
    ),
    "beta too large": (
        "beta",
        {
            "train": moved(lambda step: LOG2 - rise(0.6)(step), chosen_change=rise(1), rejected_change=rise(-0.9)),
            "beta": 2.0,
        },
        {
            "train": moved(lambda step: LOG2 - rise(0.6)(step), chosen_change=rise(1), rejected_change=rise(-1.1)),
            "beta": 2.0,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_rule_speaks_where_it_should_and_not_on_its_near_miss(case):
    code, earns, misses = CASES[case]
    for arguments, expected in ((earns, True), (misses, False)):
        arguments = dict(arguments)
        if isinstance(length := arguments.get("pairs"), int):
            arguments["pairs"] = pa.table({"group": ["odd"] * 3, "chosen_tokens": [length] * 3})
        remark = found(code, **arguments)
        assert (remark is not None) == expected, (case, remark)
        if remark is not None:
            assert remark.severity in SEVERITIES
            assert re.search(r"\d", remark.says)
            assert remark.advice.endswith(".")
            assert remark.says.endswith(".")
            if code not in {"stuck", "start"}:
                assert remark.groups == ("odd",)
                assert "odd (" in remark.says


def test_a_negative_chosen_reward_is_split_into_what_both_share_and_what_is_between_them():
    note = found("negative", {"chosen_change": rise(-1), "rejected_change": rise(-7), "chosen_falling": 0.4})
    assert note is not None
    assert note.severity == "note"
    assert (
        "odd (chosen −1.00, rejected −7.00 nats: −4.00 shared, +3.00 apart; chosen falls in 40 % of 200 pairs)"
        in note.says
    )
    alarm = found("displaced", FALLS_TOGETHER)
    assert alarm is not None
    assert alarm.severity == "problem"
    assert (
        "chosen −3.00, rejected −9.00 nats: −6.00 shared, +3.00 apart; chosen falls in 90 % of 200 pairs" in alarm.says
    )
    assert found("negative", FALLS_TOGETHER) is None


def test_changes_count_from_the_start_where_the_reference_is_another_model():
    """Margins and changes that start off 0 are movements all the same."""
    off = {"chosen_change": lambda step: -20 + rise(2)(step), "rejected_change": lambda step: -20 + rise(-6)(step)}
    assert remarks(off) == []


def updates(norm):
    return pa.table({"step": [1, 2], "grad_norm": [norm, norm / 2]})


STILL = {"loss": lambda step: LOG2 - step * 1e-6, "margin": lambda step: step * 2e-6}


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        (
            {"gradient_norm": 0.0},
            {},
            "The gradient in the head is 0 at every step: nothing that is trained reaches the loss",
        ),
        ({"gradient_norm": 0.2}, {}, "The gradient in the head is not 0 (norm 0.2 at most), so the pairs do pull."),
        ({}, {"updates": updates(0.0)}, "The gradient of all that is trained is 0 at every step"),
        ({}, {"updates": updates(0.4)}, "The gradient of all that is trained is not 0 (norm 0.4 at most)"),
        ({"drift": 0.0}, {}, "The weights did not move at all: the optimizer does not hold them"),
        ({"drift": 0.3}, {}, "The weights moved (by 0.3, Frobenius norm)."),
        ({}, {"beta": 0.0}, "beta is 0, so no margin can move."),
        (
            {"chosen_change": rise(2), "rejected_change": rise(-6)},
            {"beta": 1e-4},
            "by up to 8 nats, of which beta = 0.0001 leaves a margin of 0.0008. beta is what is too small.",
        ),
        (
            {"chosen_change": rise(0.01), "rejected_change": rise(-0.01)},
            {},
            "beta is 0.1, and log-ratios moved by 0.02 nats at most.",
        ),
        (
            {},
            {},
            "At its pace (1e-06 nats per step) the middle group's loss takes 100,000 steps to fall by 0.1: the "
            "learning rate, 0.0001, is too small for 100 steps by a factor of about 1,000.",
        ),
        ({"loss": lambda step: LOG2 + step * 1e-6}, {}, "does not fall, so more steps alone change nothing."),
        (
            {},
            {"start_margin": 0.01},
            "Rounding before the first step, up to 0.01 per margin, drowns mean margins of up to",
        ),
        ({}, {"start_margin": 1e-4}, "up to 0.0001 per margin, does not drown mean margins of up to 0.0002."),
    ],
)
def test_a_loss_that_stays_at_log_2_says_which_causes_are_out(change, settings, says):
    remark = found("stuck", STILL | change, {**STILL, **change}, **settings)
    assert remark is not None
    assert remark.title == "The loss stays at log 2"
    assert says in remark.says


def test_a_stuck_loss_of_another_objective_is_told_at_its_own_level():
    remark = found("stuck", {"loss": 25.0}, {"loss": 25.0}, objective="ipo")
    assert remark is not None
    assert remark.title == "The loss stays at 25.000"


def test_counts_come_with_their_interval():
    remark = found("below-chance", held={"reward_accuracy": 0.31, "pairs": 100})
    assert remark is not None
    assert "31 of 100 (95 % interval 23 to 41 %) held-out pairs, mean margin 0.8" in remark.says
    flipped = found("below-chance", held={"reward_accuracy": 0.31}, flip=True)
    assert flipped is not None
    assert "trained towards the rejected answers" in flipped.says
    few = found("coarse", held=FEW)
    assert few is not None
    assert "8 of 8 (95 % interval 68 to 100 %) held-out pairs" in few.says


def test_random_labels_are_rarely_called_below_chance():
    """The control: accuracies of coin flips in 20 groups of 40 pairs; about one run in twenty may speak."""
    rng = np.random.default_rng(0)
    spoke = 0
    for _ in range(20):
        groups = {}
        for k in range(20):
            share = rng.binomial(40, 0.5) / 40
            groups[f"g{k}"] = ({}, {"reward_accuracy": share, "pairs": 40})
        said = reading({"settings": SETTINGS}, table(groups, steps=[0, 10, 100]))
        spoke += any(remark.code == "below-chance" for remark in said)
    assert spoke <= 4


def test_where_no_pair_is_held_out_the_training_pairs_are_looked_at():
    remark = found("below-chance", {"reward_accuracy": 0.2}, False)
    assert remark is not None
    assert "training pairs" in remark.says


def test_the_turn_tells_its_step():
    remark = found("turn", {"chosen_change": through(s0=0, s20=0.4, s100=-0.3)})
    assert remark is not None
    assert "odd (+0.40 nats until step 20, then down to −0.30 at step 100)" in remark.says


def test_many_groups_are_cut_to_the_worst_with_a_count():
    groups = {f"g{k:02d}": ({}, {"reward_accuracy": 0.05 + 0.02 * (k % 7)}) for k in range(9)}
    (remark,) = reading({"settings": SETTINGS}, table(groups))
    assert len(remark.groups) == 9
    assert remark.groups[:2] == ("g00", "g07")
    assert "and 5 more." in remark.says
    assert remark.says.index("g07") < remark.says.index("g01")


def test_the_most_serious_come_first_and_are_counted():
    said = remarks(FALLS_TOGETHER, {"reward_accuracy": 0.2, "loss": lambda step: LOG2 + rise(0.2)(step)})
    order = [SEVERITIES.index(remark.severity) for remark in said]
    assert order == sorted(order)
    text = remark_sentence(said)
    assert text.startswith("On these curves: 2 problems, 1 warning")
    assert (
        "the chosen responses become much less likely; reward accuracy below chance; training pairs are memorised"
        in text
    )
    only_notes = remark_sentence([remark for remark in said if remark.severity == "note"] or said[-1:])
    assert only_notes.startswith("On these curves: 1")


def test_objectives_without_a_floor_at_0_do_not_collapse():
    low = {"loss": lambda step: LOG2 - rise(0.68)(step)}
    assert found("collapsed", low) is not None
    assert found("collapsed", low, objective="ipo") is None
    assert found("collapsed", low, label_smoothing=0.1) is None
    assert found("collapsed", {"loss": 0.01}) is None  # it was there from the start


def test_nulls_are_no_news():
    """A run that measured losses alone, as of features without references, and one of a single step."""
    missing = dict.fromkeys(
        (
            "chosen_log_prob",
            "rejected_log_prob",
            "chosen_change",
            "rejected_change",
            "chosen_falling",
            "policy_accuracy",
        )
    ) | dict.fromkeys(("gradient_norm", "drift"))
    assert remarks(missing, missing) == []
    assert remarks(steps=[0]) == []
    assert remarks(dict.fromkeys(HEALTHY), dict.fromkeys(HEALTHY)) == []
    nothing = pa.Table.from_pylist([], schema=SCHEMA)
    assert reading({}, nothing) == []
    assert explained({}, nothing) == []


def test_a_diverged_simulation_is_a_problem():
    remark = found("not-finite", diverged_at=40)
    assert remark is not None
    assert remark.says == "The run diverged at step 40."


def test_names_are_shown_on_one_line(tmp_path):
    groups = {name: ({}, {"reward_accuracy": 0.2}) for name in HOSTILE[-8:]}
    (remark,) = reading({"settings": SETTINGS}, table(groups))
    assert "\n" not in remark.says
    assert "\x1b" not in remark.says
    assert set(remark.groups) == set(HOSTILE[-8:])


def test_what_each_curve_is_comes_with_this_runs_numbers():
    said = dict(explained({"settings": SETTINGS}, table({"a": ({}, {}), "b": ({"pairs": 600, "margin": 0.0}, {})})))
    assert list(said) == ["Loss", "Rewards and margin", "Log-probabilities", "Two accuracies", "Drift and gradient"]
    assert "starts at 0.693 = log 2" in said["Loss"]
    assert "ends at 0.413 on training pairs and 0.413 on held-out ones" in said["Loss"]
    assert "a margin of +0.20" in said["Rewards and margin"]  # 200 pairs at 0.8 and 600 at 0
    assert "+0.20 for chosen, −0.60 for rejected" in said["Rewards and margin"]
    assert "Chosen moved by +2.00 nats, rejected by −6.00: −2.00 that both share" in said["Log-probabilities"]
    assert "85 % of 400 held-out pairs" in said["Two accuracies"]
    assert "80 %, 50 % at the start" in said["Two accuracies"]
    assert "0.4 at the end" in said["Drift and gradient"]
    assert "norm 0.5 at the start and 0.3 at the end" in said["Drift and gradient"]


def test_what_was_not_measured_is_not_explained():
    gone = dict.fromkeys(("chosen_change", "rejected_change", "policy_accuracy", "gradient_norm", "drift"))
    said = dict(explained({"settings": SETTINGS}, table({"a": (gone, None)})))
    assert list(said) == ["Loss", "Rewards and margin", "Two accuracies"]
    assert "held-out" not in said["Loss"]
    assert "chosen less rejected, here +0.80 at the end" in said["Rewards and margin"]
    assert "Policy accuracy" not in said["Two accuracies"]


def test_on_features_made_for_it_each_of_the_common_answers_is_right():
    """Exact runs: noise is memorised or turns, a run that hardly steps is stuck with the rate named."""
    from prefdyn.planning.simulate import simulate

    noise = gaussian_groups(600, groups=1, width=150, half_gap=0.0, held_out=0.3)
    wide = simulate(noise, steps=2000, progress=False)
    codes = {remark.code for remark in reading(wide.summary(), wide.trajectory.table, pairs=wide.pairs())}
    assert codes & {"memorised", "overfit"}
    apart = gaussian_groups(600, groups=3, width=12, half_gap=2.0, held_out=0.3)
    slow = simulate(apart, learning_rate=1e-7, steps=20, progress=False)
    (stuck,) = [remark for remark in reading(slow.summary(), slow.trajectory.table) if remark.code == "stuck"]
    assert "the learning rate, 1e-07, is too small" in stuck.says
    fast = simulate(apart, steps=20, progress=False)
    assert not {"stuck", "memorised", "below-chance"} & {
        remark.code for remark in reading(fast.summary(), fast.trajectory.table)
    }


def test_stand_in_folders_can_be_read(tmp_path):
    from prefdyn.report.folders import read_folder
    from prefdyn.report.panels import sections
    from prefdyn.report.training import reading_chapter

    trained = reading_chapter(read_folder(make_trained_folder(tmp_path / "train", names=list(HOSTILE))))
    assert trained is not None
    assert trained["explained"]
    assert reading_chapter(read_folder(make_folder(tmp_path / "simulate", command="simulate"))) is not None
    assert "reading" not in sections(read_folder(make_folder(tmp_path / "audit")))
