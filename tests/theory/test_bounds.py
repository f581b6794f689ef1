"""The statements applied to features: where the conditions hold they are kept, where they fail the reason is right."""

import json
import math
from typing import Any

import numpy as np
import pytest

from prefdyn._json import plain
from prefdyn.dynamics.descent import descent, recorded_steps, stable_learning_rate
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, SLiC
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory import gradient_field, value_scaling
from prefdyn.theory.bounds import bounds, plane_bounds
from prefdyn.theory.measured import first_step_rates, plane_path, values_found
from tests.naive import last_layer as naive


def random_features(seed, n=40, d=6, groups=2, *, tokens=("Yes", "No"), head=True, weight=None, held_out=0.2):
    """States, answers over the tokens, a random head with its log-probabilities, and a split."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, d)) + rng.normal(size=d)
    rows = rng.normal(size=(len(tokens), d)) / 2
    first = rng.integers(0, len(tokens), n)
    second = (first + rng.integers(1, len(tokens), n)) % len(tokens)
    log_probs = states.astype(np.float32).astype(float) @ rows.astype(np.float32).astype(float).T
    log_probs -= np.logaddexp(np.logaddexp.reduce(log_probs, axis=1), 0.3)[:, None]
    place = np.arange(n)
    return FeatureSet.from_arrays(
        states,
        chosen=[tokens[i] for i in first],
        rejected=[tokens[i] for i in second],
        tokens=list(tokens),
        group=[f"group {i % groups}" for i in range(n)],
        held_out=rng.random(n) < held_out,
        head=rows if head else None,
        ref_chosen_logps=log_probs[place, first] if head else None,
        ref_rejected_logps=log_probs[place, second] if head else None,
        weight=weight,
    )


def run_of(feats, *, beta=0.3, steps=30, rate: Any = "auto", objective: Any = None):
    return descent(
        feats, objective or DPO(beta=beta), learning_rate=rate, steps=steps, margins_at=recorded_steps(steps)
    )


def named(found, statement, form, *, group=None):
    return [b for b in found if b.statement == statement and b.form == form and (group is None or b.group == group)]


def cluster_run(tokens, *, per_cluster=60, values=3, shared_norm=0.3, seed=0, share=1.0):
    """The model of 2408.03459 at its limits, and a run to `share` of the horizon."""
    noise, width = 1 / (32 * math.sqrt(per_cluster)), 5 * per_cluster
    feats = gaussian_groups(
        2 * per_cluster,
        groups=values,
        width=width,
        noise=noise * 0.97,
        shared_norm=shared_norm,
        tokens=tokens,
        held_out=0.0,
        seed=seed,
    )
    steps = 20
    rate = share * value_scaling.horizon(values, beta=0.1, learning_rate=1.0) / steps
    return feats, run_of(feats, beta=0.1, steps=steps, rate=rate)


@pytest.mark.parametrize("tokens", ["distinct", "ring"])
def test_where_the_cluster_model_holds_its_theorems_apply_and_are_kept(tokens):
    """Both pairs of lines bracket every margin; with the time doubled the published ones no longer speak."""
    feats, run = cluster_run(tokens)
    found = bounds(feats, run)
    for form in ("published", "sharper"):
        for side in ("lower", "upper"):
            (line,) = named(found, f"2408.03459, Theorem 4.2 ({side})", form)
            assert line.applies, line
            assert line.kept
            assert not math.isnan(line.measured)
    (lemma,) = named(found, "2408.03459, Lemma B.1", "sharper")
    assert lemma.applies
    feats, late = cluster_run(tokens, share=2.0)
    last = max(step for step in late.margins)
    (line,) = named(bounds(feats, late), "2408.03459, Theorem 4.2 (lower)", "published")
    assert line.applies  # the last step kept before the horizon is taken, not the end
    assert line.measured > late.margins[last].min() / 4


def test_shared_answers_break_the_model_and_give_the_floor_instead():
    feats, run = cluster_run("shared")
    found = bounds(feats, run)
    (line,) = named(found, "2408.03459, Theorem 4.2 (lower)", "published")
    assert any("same two tokens" in condition.says for condition in line.failed)
    assert named(found, "2408.03459, Theorem 4.3, shared answers", "repaired")
    feats, run = cluster_run("distinct")
    assert not named(bounds(feats, run), "2408.03459, Theorem 4.3, shared answers", "repaired")


def test_clusters_may_stray_by_four_deviations_of_what_sampling_does():
    """Measured half gaps of orthogonal directions over 400 draws: how far their cosine and their length really vary."""
    pairs, width, noise, draws = 50, 12, 0.4, 400
    found = values_found(gaussian_groups(pairs, groups=2, width=width, noise=noise, tokens="distinct", held_out=0.0))
    assert found is not None
    limits = {condition.says.split(":")[0]: condition.limit for condition in found.conditions}
    rng = np.random.default_rng(0)
    states = noise * rng.normal(size=(draws, 2, 2, pairs // 2, width)).mean(axis=3)
    gaps = np.eye(2, width) + (states[:, :, 0] - states[:, :, 1]) / 2
    lengths = np.linalg.norm(gaps, axis=2)
    cosines = np.einsum("nd,nd->n", gaps[:, 0], gaps[:, 1]) / lengths.prod(axis=1)
    assert limits["orthogonal directions"] == pytest.approx(4 * cosines.std(), rel=0.15)
    room = 4 * lengths.std()
    assert limits["gaps of one length"] == pytest.approx((1 + room) / (1 - room), rel=0.1)


def test_constants_of_the_clusters_are_those_drawn_whatever_the_unit():
    feats = gaussian_groups(
        4000, groups=3, width=12, noise=0.3, half_gap=5.0, shared_norm=2.0, tokens="distinct", held_out=0.0
    )
    found = values_found(feats)
    assert found is not None
    model = found.model
    assert (model.values, model.per_cluster, model.width, model.sharing, model.distinct) == (3, 2000, 12, 1, True)
    assert found.half_gap == pytest.approx(5, rel=0.01)
    assert model.noise == pytest.approx(0.3 / 5, rel=0.02)
    assert model.shared_norm == pytest.approx(2.0 / 5, rel=0.02)
    assert all(condition.holds for condition in found.conditions), found.conditions
    crooked = np.eye(3, 12, k=1)
    crooked[1] = (crooked[0] + crooked[1]) / math.sqrt(2)
    feats = gaussian_groups(
        4000, groups=3, width=12, noise=0.3, half_gap=[5.0, 5.0, 2.0], tokens="distinct", directions=crooked
    )
    found = values_found(feats)
    assert found is not None
    failing = " ".join(condition.says for condition in found.conditions if not condition.holds)
    assert "orthogonal directions" in failing
    assert "gaps of one length" in failing


@pytest.mark.parametrize("seed", range(12))
def test_the_repaired_statements_hold_for_any_features(seed):
    """Drift from both sides, accuracy, and the joint run, each beside the run that they speak of."""
    feats = random_features(seed, n=30 + seed, d=3 + seed % 5, groups=1 + seed % 3)
    run = run_of(feats, beta=0.1 + 0.2 * seed, steps=25)
    found = bounds(feats, run)
    assert feats.chosen is not None
    for name in feats.groups:
        if len(set(feats.chosen[feats.members(name)][~feats.held_out[feats.members(name)]])) < 2:
            (upper,) = [b for b in found if b.group == name]
            assert (upper.form, upper.kept) == ("sharper", True)
            continue
        (upper,) = named(found, "2403.18742, Theorem 4.1", "repaired", group=name)
        assert upper.applies
        assert upper.kept
        assert upper.measured == run.final("drift", group=name, run="alone")
        assert not upper.is_vacuous
        (lower,) = named(found, "2403.18742, section 4.2", "sharper", group=name)
        assert lower.kept
        (certificate,) = named(found, "2403.18742, Theorem 4.3", "repaired", group=name)
        assert certificate.kept or not certificate.applies
    (joint,) = [b for b in found if b.statement == "2403.18742, Theorem 4.1" and b.group is None]
    assert joint.applies
    assert joint.kept
    assert joint.measured == run.final("drift", group=feats.groups[0])


def test_the_measured_cosine_is_that_of_the_trained_rows():
    """Against the whole unembedding matrix trained step by step: the boundary is the difference of its two rows."""
    feats = random_features(3, groups=1, held_out=0.0)
    run = run_of(feats, beta=0.3, steps=10, rate=0.2)
    assert feats.head is not None
    assert feats.chosen is not None
    states = feats.states.astype(float)
    head = feats.head.astype(float)
    positive = feats.chosen == 0
    trained = naive.descend(states, np.where(positive, 1, -1), 0.3, 0.2, 10)[-1]["weights"]
    gap = states[positive].mean(axis=0) - states[~positive].mean(axis=0)
    line = head[0] - head[1] + 2 * trained
    expected = float(line @ gap / np.linalg.norm(line) / np.linalg.norm(gap))
    (found,) = named(bounds(feats, run), "2403.18742, Theorem 4.2", "published")
    assert found.measured == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_first_step_rates_equal_the_pairwise_formula(seed):
    """The route through the head against the one through every pair of pairs, with the rest of the vocabulary."""
    feats = random_features(seed, tokens=("a", "b", "c"), held_out=0.0)
    rates = first_step_rates(feats)
    assert rates is not None
    log_probs = feats.answer_log_probs()
    assert log_probs is not None
    assert feats.chosen is not None
    assert feats.rejected is not None
    probabilities = np.exp(log_probs)
    full = np.column_stack([probabilities, 1 - probabilities.sum(axis=1)])
    states = feats.states.astype(float)
    twin = gradient_field.log_prob_rates(
        full, feats.chosen, feats.rejected, states @ states.T, np.zeros(len(feats)), beta=1.0
    )
    np.testing.assert_allclose(rates.chosen, twin.chosen, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rates.rejected, twin.rejected, rtol=1e-9, atol=1e-12)


def test_the_forecast_is_kept_by_a_small_first_step_and_not_judged_by_a_large_one():
    feats = random_features(1, n=60)
    (small,) = named(
        bounds(feats, run_of(feats, rate=1e-4, steps=3)), "2404.04626, Theorem 1 (chosen only rises)", "repaired"
    )
    assert small.kept
    assert 0 < small.value < 1
    large = run_of(feats, rate=0.9 * 2 * stable_learning_rate(feats, DPO(beta=0.3)), steps=3)
    (forecast,) = named(bounds(feats, large), "2404.04626, Theorem 1 (chosen only rises)", "repaired")
    assert math.isnan(forecast.measured)


def test_a_run_of_another_kind_fails_its_conditions_by_name():
    feats = random_features(0)
    run = run_of(feats, objective=SLiC(beta=0.3), rate=0.1)
    found = bounds(feats, run)
    assert not any(bound.applies for bound in found)
    assert all(any("objective is sigmoid" in c.says for c in bound.failed) for bound in found)
    weighted = random_features(0, weight=np.linspace(1, 2, 40))
    found = bounds(weighted, run_of(weighted))
    (joint,) = [b for b in found if b.statement == "2403.18742, Theorem 4.1" and b.group is None]
    assert joint.applies
    assert joint.kept
    alone = [b for b in found if b.form == "sharper" and b.group and b.statement == "2403.18742, Theorem 4.1"]
    assert [b.group for b in alone] == list(weighted.groups)  # the statement on any pairs takes their place
    assert all(b.applies and b.kept for b in alone)
    others = [b for b in found if b.form == "published" and b.statement[:4] == "2403"]
    assert all(any("weigh the same" in c.says for c in bound.failed) for bound in others)


def test_what_features_cannot_show_is_left_out_or_unmeasured():
    """No head: no boundary. Several answers: no classes. Responses: pairs only. All are plain JSON."""
    headless = random_features(0, head=False)
    found = bounds(headless, run_of(headless))
    assert not named(found, "2403.18742, Theorem 4.2", "published")
    assert not any(bound.statement.startswith("2404.04626") for bound in found)
    assert named(found, "2408.03459, Theorem 4.3", "published")
    many = random_features(0, tokens=("a", "b", "c"))
    found = bounds(many, run_of(many))
    assert {bound.statement.split(",")[0] for bound in found} == {"2403.18742", "2404.04626"}
    assert not named(found, "2403.18742, Theorem 4.1", "published")
    rng = np.random.default_rng(0)
    responses = FeatureSet.from_arrays(
        chosen_features=rng.normal(size=(30, 8)),
        rejected_features=rng.normal(size=(30, 8)),
        ref_chosen_logps=-rng.random(30) * 40,
        ref_rejected_logps=-rng.random(30) * 40,
    )
    found = bounds(responses, run_of(responses))
    joint, alone = (bound for bound in found if bound.statement == "2403.18742, Theorem 4.1")
    assert joint.kept
    assert alone.kept
    json.dumps(plain([bound.as_dict() for bound in found]), allow_nan=False)


def test_a_group_with_one_class_or_one_pair_says_nothing_and_breaks_nothing():
    feats = FeatureSet.from_arrays(
        np.eye(5),
        chosen=["Yes", "Yes", "Yes", "No", "No"],
        rejected=["No", "No", "No", "Yes", "Yes"],
        tokens=["Yes", "No"],
        group=["one class", "one class", "both", "both", "single"],
    )
    found = bounds(feats, run_of(feats, steps=5))
    assert {bound.group for bound in found if bound.form == "repaired" and bound.group} == {"both"}
    assert {bound.group for bound in found if bound.form == "sharper" and bound.group} == {
        "one class",
        "both",
        "single",
    }
    json.dumps(plain([bound.as_dict() for bound in found]), allow_nan=False)


def test_foreign_runs_are_refused():
    feats, other = random_features(0), random_features(0, n=30, groups=3)
    with pytest.raises(DataError, match="has a group 'group 2' that the features lack"):
        bounds(feats, run_of(other))
    with pytest.raises(DataError, match="kept 30 margins at step 0 for 40 pairs"):
        bounds(feats, run_of(random_features(0, n=30)))
    from prefdyn.trajectory import Trajectory

    bare = Trajectory(table=run_of(feats).table, settings={"beta": 0.1})
    with pytest.raises(DataError, match=r"settings lack \['learning_rate', 'steps'\]"):
        bounds(feats, bare)


def test_the_path_is_the_geometric_mean_and_stays_a_number():
    feats = random_features(2)
    run = run_of(feats, steps=6)
    path = plane_path(run)
    assert path is not None
    train = ~feats.held_out
    np.testing.assert_allclose(path.x1[-1], np.exp(run.chosen_changes[6][train].mean()), rtol=1e-9)
    assert (path.x1[0], path.x2[0]) == (1.0, 1.0)
    assert feats.ref_chosen_logps is not None
    assert path.ref_chosen == pytest.approx(math.exp(feats.ref_chosen_logps[train].mean()))
    wild = plane_path(run_of(feats, rate=1e9, steps=2))
    assert wild is not None
    assert (wild.x2 > 0).all()
    assert np.isfinite(np.concatenate([wild.x1, wild.x2])).all()
    assert plane_bounds(run_of(random_features(0, head=False))) == []
