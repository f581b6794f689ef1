"""Statistics of margin paths against loops over steps and pairs, hand-made paths, and the whole path itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.dynamics.pair_statistics import MarginStream, PairStatistics, pair_statistics
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.closed_form import single_flow

FIELDS = ("records", "confidence", "variability", "correctness", "first_above", "learned", "forgettings")


def naive(path, weights):
    """One pair: a list of (step, margin) in order. Nothing is vectorised and nothing is streamed."""
    steps = [step for step, _ in path]
    chances = [1 / (1 + math.exp(-margin)) for _, margin in path]
    above = [margin > 0 for _, margin in path]
    if weights == "equal" or len(path) == 1:
        shares = [1.0] * len(path)
    else:
        shares = [0.0] * len(path)
        for k in range(len(path) - 1):
            shares[k] += (steps[k + 1] - steps[k]) / 2
            shares[k + 1] += (steps[k + 1] - steps[k]) / 2
    total = sum(shares)
    mean = sum(s * c for s, c in zip(shares, chances, strict=True)) / total
    spread = sum(s * (c - mean) ** 2 for s, c in zip(shares, chances, strict=True)) / total
    learned = math.nan
    for k in range(len(path)):
        if all(above[k:]):
            learned = steps[k]
            break
    return {
        "records": len(path),
        "confidence": mean,
        "variability": math.sqrt(spread),
        "correctness": sum(s for s, a in zip(shares, above, strict=True) if a) / total,
        "first_above": next((step for step, a in zip(steps, above, strict=True) if a), math.nan),
        "learned": learned,
        "forgettings": sum(above[k] and not above[k + 1] for k in range(len(path) - 1)),
    }


def random_paths(seed, pairs=17, records=9):
    rng = np.random.default_rng(seed)
    steps = np.sort(rng.choice(200, size=records, replace=False)).tolist()
    margins = np.cumsum(rng.normal(size=(records, pairs)), axis=0)
    margins[0] = 0.0
    return {step: row for step, row in zip(steps, margins, strict=True)}


def assert_like_loops(found, paths, weights):
    for row, path in enumerate(paths):
        for name, value in naive(path, weights).items():
            assert getattr(found, name)[row] == pytest.approx(value, abs=1e-13, nan_ok=True), (row, name)


@pytest.mark.parametrize("weights", ["spacing", "equal"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_batch_form_equals_loops(weights, seed, records):
    margins = random_paths(seed, records=records)
    found = pair_statistics(dict(reversed(margins.items())), weights=weights)
    assert_like_loops(found, [[(s, r[i]) for s, r in margins.items()] for i in range(len(found))], weights)


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", ["spacing", "equal"])
def test_uneven_batches_of_pairs_equal_loops_over_what_each_pair_showed(weights, dtype, library):
    """Each step shows a random few pairs, never those at the end, in any order; every pair has steps of its own."""
    rng = np.random.default_rng(3)
    pairs, stream = 30, MarginStream(30, weights=weights)
    paths = [[] for _ in range(pairs)]
    for step in sorted(rng.choice(500, size=60, replace=False).tolist()):
        batch = rng.permutation(pairs - 2)[: rng.integers(1, 12)]
        margins = (2 * rng.normal(size=len(batch))).astype(dtype)
        stream.update(step, library(margins), index=library(batch))
        for pair, margin in zip(batch, margins.astype(float), strict=True):
            paths[pair].append((step, margin))
    found = stream.statistics()
    assert_like_loops(found, paths[:-2], weights)
    assert found.records[-2:].tolist() == [0, 0]
    assert np.isnan(found.confidence[-2:]).all()
    assert np.isnan(found.learned[-2:]).all()


def test_a_stream_equals_the_batch_at_every_step_and_keeps_no_margins():
    margins, stream = random_paths(5), MarginStream(17)
    taken = {}
    for step, row in margins.items():
        given_row = row.copy()
        stream.update(step, given_row)
        given_row[:] = 1e9  # what was handed in is the caller's again
        taken[step] = row
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(stream.statistics(), name), getattr(pair_statistics(taken), name))


def test_steps_recorded_ever_more_thinly_give_the_mean_over_all_steps_only_with_spacing():
    """A flow known in closed form, recorded every step and at growing distances."""
    every = np.arange(0, 2001)
    speeds = np.array([0.01, 0.1, 1.0])
    thin = np.unique(np.concatenate([[0], np.geomspace(1, 2000, 60).round().astype(int)]))
    whole = pair_statistics({int(s): single_flow(speeds, float(s)) for s in every}, weights="equal")
    spaced, equal = (
        pair_statistics({int(s): single_flow(speeds, float(s)) for s in thin}, weights=w) for w in ("spacing", "equal")
    )
    np.testing.assert_allclose(spaced.confidence, whole.confidence, atol=2e-3)
    np.testing.assert_allclose(spaced.variability, whole.variability, atol=2e-3)
    assert (np.abs(equal.confidence - whole.confidence) > 0.02).all()


def test_hand_made_paths_mean_what_the_words_say():
    """Never moves; learned at once; learned, forgotten, learned again; learned and lost; wrong to the end."""
    paths = {
        0: [0, 0, 0, 0, 0],
        1: [0, 1, 1, 1, -1],
        2: [0, 1, -1, 1, -1],
        3: [0, 1, 1, -1, -1],
        4: [0, 1, 1, 0, -1],
    }
    found = pair_statistics({step: np.array(row, dtype=float) for step, row in paths.items()}, weights="equal")
    np.testing.assert_array_equal(found.learned, [np.nan, 1, 3, np.nan, np.nan])
    np.testing.assert_array_equal(found.first_above, [np.nan, 1, 1, 1, np.nan])
    assert found.forgettings.tolist() == [0, 0, 1, 1, 0]
    np.testing.assert_allclose(found.correctness, [0, 0.8, 0.6, 0.4, 0])
    assert found.confidence[0] == 0.5
    assert found.variability[0] == 0.0


def test_tiny_variability_survives_rounding():
    """Chances that differ by 1e-9 around 0.5: the textbook difference of squares would return nothing but noise."""
    found = pair_statistics({0: np.array([4e-9]), 1: np.array([-4e-9])}, weights="equal")
    assert found.variability[0] == pytest.approx(1e-9, rel=1e-6)
    sure = pair_statistics({0: np.array([1e4, -1e4]), 1: np.array([2e4, -2e4])})
    assert sure.confidence.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("sizes", [[10], [1, 9], [3, 3, 4]])
def test_group_means_do_not_depend_on_how_pairs_were_batched(sizes):
    """Exact means over pairs; the control is the mean of batch means, which uneven batches make wrong."""
    rng = np.random.default_rng(0)
    group, margins = rng.integers(0, 2, 10), {s: rng.normal(size=10) * (s > 0) for s in (0, 1, 5, 9)}
    stream, batches = MarginStream(10), np.split(np.arange(10), np.cumsum(sizes)[:-1])
    for step, row in margins.items():
        for batch in batches:
            stream.update(step, row[batch], index=batch)
    found = stream.statistics()
    rows = found.by_group(group, ["a", "b", "empty"])
    assert [row["group"] for row in rows] == ["a", "b"]
    for code, row in enumerate(rows):
        paths = [naive([(s, r[i]) for s, r in margins.items()], "spacing") for i in np.flatnonzero(group == code)]
        assert row["pairs"] == len(paths)
        for name in ("confidence", "variability", "correctness", "forgettings"):
            assert row[name] == pytest.approx(math.fsum(p[name] for p in paths) / len(paths), rel=1e-12)
        learned = [p["learned"] for p in paths if not math.isnan(p["learned"])]
        assert row["learned_share"] == len(learned) / len(paths)
        assert row["learned"] == pytest.approx(np.median(learned))
        above = [p for p in paths if not math.isnan(p["first_above"])]
        assert row["forgotten_share"] == pytest.approx(np.mean([p["forgettings"] > 0 for p in above]))
    if sizes == [1, 9]:
        by_batch = np.mean([found.confidence[batch].mean() for batch in batches])
        assert by_batch != pytest.approx(found.confidence.mean(), rel=1e-3)


def test_rows_hold_every_statistic_and_none_for_what_never_came():
    found = pair_statistics({0: np.zeros(2), 3: np.array([1.0, -1.0])})
    first, second = found.rows(ids=np.array(["x", "y"]))
    assert first == {
        "pair": "x",
        "records": 2,
        "confidence": pytest.approx((0.5 + 1 / (1 + math.exp(-1))) / 2),
        "variability": pytest.approx((1 / (1 + math.exp(-1)) - 0.5) / 2),
        "correctness": 0.5,
        "first_above": 3.0,
        "learned": 3.0,
        "forgettings": 0,
    }
    assert second["learned"] is None
    assert second["first_above"] is None
    assert [row["pair"] for row in found.rows()] == [0, 1]
    nothing = found.by_group(np.array([0, 1]), ["a", "b"])[1]
    assert nothing["learned"] is None
    assert nothing["forgotten_share"] is None


def test_what_is_no_path_is_refused():
    with pytest.raises(DataError, match="no step is given"):
        pair_statistics({})
    with pytest.raises(ConfigError, match="weights 'spaced' is unknown; did you mean 'spacing'"):
        MarginStream(2, weights="spaced")
    with pytest.raises(DataError, match=r"step 4 has margins of shape \(3,\), but 2 pairs"):
        pair_statistics({1: np.zeros(2), 4: np.zeros(3)})
    with pytest.raises(DataError, match="step 4, place 1: margin nan is not finite"):
        pair_statistics({4: np.array([0.0, np.nan])})
    stream = MarginStream(3)
    with pytest.raises(DataError, match="no step was taken in yet"):
        stream.statistics()
    stream.update(2, np.zeros(3))
    with pytest.raises(DataError, match=r"step 2 does not come after step 2\.0"):
        stream.update(2, np.zeros(1), index=np.array([1]))
    found: PairStatistics = stream.statistics()
    with pytest.raises(DataError, match="ids has 1 entries for 3 pairs"):
        found.rows(ids=["a"])
    with pytest.raises(DataError, match="group has 2 entries for 3 pairs"):
        found.by_group(np.zeros(2, dtype=int), ["a"])
