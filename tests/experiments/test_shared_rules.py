"""The shared rules: what they ask, what lies just beside it, and that labels drawn by lot never go beyond the twin."""

import numpy as np
import pytest

from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.distinguishability import CLAIMS, _distances, _order_rows
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.shared_rules import FEWEST_SEEDS, Judged, WithTwin, above, below, unless_few
from prefdyn.features import FeatureSet
from tests.experiments.conftest import twin_of

GOOD = {"accuracy": [0.9, 0.91, 0.92], "twin_accuracy": [0.6, 0.62, 0.61]}


def judged(model, twin, **rest):
    return above(WithTwin(model=model, twin=twin, **{**GOOD, **rest}), 0.5, what="statistic")


def test_the_lower_end_decides_and_not_the_mean():
    held, near = judged([0.8, 0.9, 0.85], [0.1, 0.2, 0.15]), judged([0.6, 1.1, 0.85], [0.1, 0.2, 0.15])
    assert held.holds is True
    assert near.holds is False  # the same mean, wider
    assert held.measured.startswith("statistic 0.850 (")
    assert "the lower end" in near.because
    assert "not above 0.5" in near.because


def test_beyond_the_twin_takes_the_statistic_and_what_is_learned():
    assert twin_of(judged([0.8, 0.9, 0.85], [0.1, 0.2, 0.15])).beyond is True
    same = judged([0.8, 0.9, 0.85], [0.8, 0.9, 0.85])
    assert (same.holds, twin_of(same).beyond) == (True, False)
    assert twin_of(same).because == "the statistic is not larger than the twin's"
    unlearned = judged([0.8, 0.9, 0.85], [0.1, 0.2, 0.15], accuracy=[0.45, 0.55, 0.5])
    assert twin_of(unlearned).beyond is False
    assert "the held-out accuracy is not above one half" in twin_of(unlearned).because
    words = judged([0.8, 0.9, 0.85], [0.1, 0.2, 0.15], twin_accuracy=[0.9, 0.91, 0.92])
    assert twin_of(words).because == "the held-out accuracy is not above the twin's"


def test_below_is_above_turned_round():
    found = WithTwin(model=[0.1, 0.12, 0.11], twin=[0.5, 0.52, 0.51])
    low = below(found, 0.25, what="ratio")
    turned = above(WithTwin(model=[-0.1, -0.12, -0.11], twin=[-0.5, -0.52, -0.51]), -0.25, what="ratio")
    assert (low.holds, twin_of(low).beyond) == (turned.holds, twin_of(turned).beyond) == (True, True)
    assert twin_of(low).difference.value == pytest.approx(-0.4)
    assert below(WithTwin(model=[0.1, 0.4, 0.11], twin=[0.5] * 3), 0.25, what="ratio").holds is False


def test_under_three_seeds_nothing_is_judged_but_the_number_is_told():
    assert FEWEST_SEEDS == 3
    few = above(WithTwin(model=[0.8, 0.9], twin=[0.1, 0.1]), 0.5, what="statistic")
    assert few.holds is None
    assert few.measured == "statistic 0.850 (0.215 to 1.49, 2 seeds); untrained twin 0.100 (0.100 to 0.100, 2 seeds)"
    assert few.because == "measured with 2 of 2 seeds, and a verdict takes 3"
    kept = unless_few(Judged(holds=False, measured="x", because="y"), 3)
    assert (kept.holds, kept.because) == (False, "y")


def test_a_seed_without_a_number_costs_the_verdict_and_says_so():
    found = above(WithTwin(model=[0.8, float("nan"), 0.9], twin=[0.1] * 3), 0.5, what="statistic")
    assert (found.holds, found.because) == (None, "measured with 2 of 3 seeds, and a verdict takes 3")


def trained(seed, *, signal, rows=50, width=8):
    """A group per signal alone, last layer; `signal`: half-gaps of the groups, 0 for labels drawn by lot."""
    rng, names = np.random.default_rng(seed), tuple("abcdefghijklmnop"[: len(signal)])
    states, yes, group, held = [], [], [], []
    for name, gap in zip(names, signal, strict=True):
        label = rng.permutation(np.arange(rows) % 2 == 0)
        points = rng.normal(size=(rows, width)) * rng.uniform(0.5, 1.5, width)
        states.append(points + np.where(label, gap, -gap)[:, None] * np.eye(width)[0])
        yes += label.tolist()
        group += [name] * rows
        held += (np.arange(rows) >= 0.8 * rows).tolist()
    answers = [("Yes", "No") if each else ("No", "Yes") for each in yes]
    feats = FeatureSet.from_arrays(
        np.concatenate(states), chosen=[pair[0] for pair in answers], rejected=[pair[1] for pair in answers],
        group=group, held_out=held, tokens=["Yes", "No"],
    )  # fmt: skip
    runs = sweep(feats, beta=0.1, learning_rate=30.0, steps=25, groups=[(name,) for name in names])
    return _distances(feats, names), dict(zip(names, runs, strict=True))


def claim(repetition, *, model, twin, phase="area", split="train"):
    """The order claim on three seeds of a model and of a twin."""
    rows, figure = [], "2403.18742-fig06"
    for source, signal, offset in ((MODEL, model, 0), (TWIN, twin, 50)):
        for seed in (0, 1, 2):
            far, runs = trained(1000 * repetition + offset + seed, signal=signal)
            rows += _order_rows(runs, far, figure, source, seed)
    word = {"train": "training", "held_out": "test"}[split]
    return next(claim for claim in CLAIMS if claim.id == f"{figure}-{word}-{phase}").judge(Rows(rows))


def test_a_true_order_is_held_and_goes_beyond_a_twin_that_has_none():
    """Of sixteen groups: of five, hardly any two orders are told apart."""
    found = claim(1, model=np.linspace(0.2, 2.2, 16), twin=(0,) * 16, split="held_out", phase="early")
    assert (found.holds, twin_of(found).beyond) == (True, True)
    few = claim(1, model=(0.2, 0.6, 1.0, 1.5, 2.2), twin=(0,) * 5, split="held_out", phase="early")
    assert (few.holds, twin_of(few).beyond) == (True, False)


@pytest.mark.thorough
def test_labels_drawn_by_lot_are_learned_in_order_but_never_beyond_the_twin():
    """On training pairs the order follows the mean gap whatever the labels: held, often. Beyond the twin: not once."""
    found = [claim(repetition, model=(0,) * 5, twin=(0,) * 5) for repetition in range(1, 9)]
    assert sum(bool(each.holds) for each in found) > 2  # so that the second half is no empty promise
    assert not any(twin_of(each).beyond for each in found)
