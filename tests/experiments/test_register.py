"""Errors of the sources on states: each measure against its closed form, each rule on both sides."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import LeftOut, PreferenceDataset
from prefdyn.experiments import distinguishability, misalignment
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.robustness_of_claims import register
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.value_scaling.claims import CLAIMS as VALUE_CLAIMS
from prefdyn.features import FeatureSet
from prefdyn.theory.learning_dynamics import constants, smallest_variance_exponent
from tests.experiments.conftest import measured as rows_of

CLAIMS = {claim.id.removeprefix("2403.18742-check01-"): claim for claim in register.CLAIMS}
GROUPS = ("a", "b", "c", "d", "e")
SEEDS = (0, 1, 2)


def classes(rng, gap, *, rows=60, width=6, shift=5.0):
    signs = np.where(np.arange(rows) % 2 == 0, 1.0, -1.0)
    return rng.normal(size=(rows, width)) + shift + gap / 2 * signs[:, None] * np.eye(width)[0], signs


@pytest.fixture(scope="module")
def feats():
    found = {}
    for place, source in enumerate((MODEL, TWIN)):
        for seed in SEEDS:
            rng = np.random.default_rng([place, seed])
            drawn = [classes(rng, gap) for gap in (1.0, 2.0, 4.0, 8.0, 16.0)]
            signs = np.concatenate([each for _, each in drawn])
            found[source, seed] = FeatureSet.from_arrays(
                np.concatenate([states for states, _ in drawn]),
                chosen=np.where(signs > 0, "Yes", "No").tolist(), rejected=np.where(signs > 0, "No", "Yes").tolist(),
                group=np.repeat(GROUPS, 60).tolist(), tokens=["Yes", "No"],
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def measured(feats):
    return register.of_states(feats, GROUPS, SEEDS)


def judge(id, rows):
    return CLAIMS[id].judge(Rows(rows, facts={register.FIGURE: register.facts(rows)}))


def of(rows, quantity, source=MODEL):
    return Rows(rows).values(quantity, {"figure": register.FIGURE}, source)


def with_values(rows, **change):
    """The same, and every one of some quantities another number."""
    change = {name.replace("_", " "): value for name, value in change.items()}
    return [row._replace(value=change.get(row.quantity, row.value)) for row in rows]


def test_the_printed_gradient_has_the_wrong_sign(measured):
    assert len(of(measured, "as printed")) == len(GROUPS) * len(SEEDS)
    assert of(measured, "as printed") == pytest.approx([2.0] * 15, abs=1e-6)
    assert max(of(measured, "turned")) < 1e-7
    judged = judge("gradient", measured)
    assert (judged.holds, judged.because) == (False, "it is the direction of descent, minus the gradient")
    assert judge("gradient", with_values(measured, as_printed=1e-9, turned=2.0)).holds is True
    assert judge("gradient", with_values(measured, as_printed=1.0, turned=1.0)).because == "neither sign agrees"


def test_states_in_another_unit_change_the_exponent_by_its_power(measured):
    assert of(measured, "unit") == pytest.approx([0.5] * 15, rel=1e-9)
    assert judge("unit", measured).holds is False
    assert judge("unit", with_values(measured, unit=1.0)).holds is True
    one_off = with_values(measured, unit=1.0)
    place = next(place for place, row in enumerate(one_off) if row.quantity == "unit")
    one_off[place] = one_off[place]._replace(value=1.1)
    assert judge("unit", one_off).holds is False


def test_the_exponent_of_the_mean_is_that_of_the_theorem():
    states, signs = classes(np.random.default_rng(1), 3.0)
    c = constants(states, signs > 0)
    gamma = c.n / np.sqrt(c.width)
    assert register.tail_exponent(states, signs) == pytest.approx(gamma * c.width**c.exponent / (4 * c.c_v))


def test_the_exponent_of_the_norms_tail(measured, feats):
    rows = feats[MODEL, 0].members("a")
    c = constants(feats[MODEL, 0].states[rows].astype(float), np.arange(60) % 2 == 0)
    assert of(measured, "tail")[0] == pytest.approx(c.exponent + smallest_variance_exponent(6) - 0.25)
    assert judge("tail", measured).holds is False
    assert judge("tail", with_values(measured, tail=0.251)).holds is True


def test_the_loss_half_way_is_below_its_chord(measured):
    assert max(of(measured, "over the chord")) < 0
    assert judge("convex", measured).holds is True
    assert judge("convex", with_values(measured, over_the_chord=1e-3)).holds is False


def test_the_divergence_of_classes_of_one_covariance_is_half_the_squared_distance():
    rng = np.random.default_rng(3)
    states, signs = classes(rng, 3.0, rows=40_000, width=3)
    gap, divergence = register._apart(states, signs)
    assert gap == pytest.approx(3.0, rel=0.02)
    assert divergence == pytest.approx(4.5, rel=0.05)


def test_the_order_by_divergence_is_judged_over_seeds(measured):
    judged = judge("divergence", measured)
    assert (judged.holds, judged.evidence["values"]) == (True, pytest.approx([1.0] * 3))
    turned = [row._replace(value=-row.value) if row.quantity == "divergence" and row.seed else row for row in measured]
    assert judge("divergence", turned).holds is False


def given(context, *data):
    return Context(preset=context.preset, data=data, models=context.models)


def persona(rows, name="subscribes-to-Buddhism"):
    return PreferenceDataset.from_rows(
        [
            {
                "prompt": f"p{row}",
                "chosen": (" Yes", " No")[row % 2],
                "rejected": (" No", " Yes")[row % 2],
                "group": name,
            }
            for row in range(rows)
        ]
    )


def test_statements_are_counted_by_answer(context):
    claim = next(each for each in distinguishability.CLAIMS if each.id.endswith("fig01-counts"))
    assert distinguishability._counts(context) is None
    assert claim.judge(Rows(facts={"counts": None})).holds is None
    whole = distinguishability._counts(given(context, persona(1000)))
    assert whole == {"subscribes-to-Buddhism": [500, 500]}
    assert claim.judge(Rows(facts={"counts": whole})).holds is True
    fewer = claim.judge(Rows(facts={"counts": distinguishability._counts(given(context, persona(999)))}))
    assert (fewer.holds, fewer.because) == (False, "all but subscribes-to-Buddhism: 499 + 500")


def test_rows_with_two_prompts_are_counted(context, tmp_path):
    claim = next(each for each in misalignment.CLAIMS if each.id.endswith("fig15-prompts"))
    assert claim.judge(Rows(lacking={claim.figure: "no dialogues"})).because == "no dialogues"
    assert claim.judge(Rows(facts={"two prompts": (0, 9)})).holds is True
    pairs = load_dataset("builtin:responses", limit=3)
    one = LeftOut(source="f", line=1, field="rejected", reason="has another prompt than chosen (3 characters …)")
    other = LeftOut(source="f", line=2, field="chosen", reason="is empty; a pair needs two answers")
    mixed = given(context, "builtin", replace(pairs, left_out=(one, other)))
    found = misalignment._two_prompts(mixed)
    assert found == (1, len(pairs) + 2)
    assert claim.judge(Rows(facts={"two prompts": found})).holds is False


@pytest.mark.parametrize(("shift", "holds"), [(0.001, True), (0.05, False)])
def test_two_definitions_of_accuracy_are_held_against_each_other(shift, holds):
    claim = next(each for each in VALUE_CLAIMS if each.id.endswith("fig08-definitions"))
    rows = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.91, 0.8, 0.7]]
    policy = [[value - shift * (place == 1) for place, value in enumerate(row)] for row in rows]
    both = [
        *rows_of("reward accuracy", [dict(enumerate(row)) for row in rows], figure="adam"),
        *rows_of("policy accuracy", [dict(enumerate(row)) for row in policy], figure="adam"),
    ]
    assert claim.judge(Rows(both)).holds is holds
