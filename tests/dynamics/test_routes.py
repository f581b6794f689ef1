"""Routes: their cost, their maps, and features that are read from a file in blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.dynamics import streaming
from prefdyn.dynamics.measure import log_rest, shifts
from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.routes import build, cheapest
from prefdyn.dynamics.streaming import FeatureRows
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet


def features(n=20, d=6, tokens=3, seed=0):
    rng = np.random.default_rng(seed)
    chosen = np.arange(n) % tokens
    return FeatureSet.from_arrays(
        rng.normal(size=(n, d)),
        chosen=chosen,
        rejected=(chosen + rng.integers(1, tokens, n)) % tokens,
        tokens=list(range(tokens)),
        held_out=rng.random(n) < 0.3,
    )


def choose(n, width, **changes):
    feats = FeatureSet.from_arrays(np.ones((n, 1)), chosen=np.arange(n) % 2, rejected=1 - np.arange(n) % 2)
    common = {"linear": True, "runs": 64, "steps": 1000, "batch": None, "itemsize": 4, "streamed": False}
    return cheapest(Pairs.of(feats), width, **(common | changes))


def test_the_cheapest_route_follows_the_shape_of_the_problem():
    assert choose(300, 4096) == "gram"
    assert choose(300, 50) == "weights"  # more pairs than coordinates
    assert choose(300, 4096, steps=1, runs=1) == "weights"  # the kernel would not pay for itself
    assert choose(300, 4096, streamed=True) == "weights"
    assert choose(300, 4096, linear=False) == "rows"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["weights", "rows", "reduced", "gram"]), st.integers(2, 4))
def test_gradient_is_the_adjoint_of_what_the_pairs_see(seed, name, tokens):
    """<pull, forward(state)> = <adjoint(pull), state> for descent's routes, in kernel coordinates."""
    feats = features(seed=seed, tokens=tokens)
    pairs, rng = Pairs.of(feats), np.random.default_rng(seed)
    route = build(feats, pairs, name, dtype=np.float64)
    pulls = rng.normal(size=(len(pairs.train), 2))
    state = -route.gradient(route.start(2), lambda _, where: pulls[where, :], None)
    kernel = feats.kernel()
    heads = np.stack([kernel.rows(pairs.train).adjoint(pull) for pull in pulls.T])
    np.testing.assert_allclose(route.heads(state), heads, atol=1e-12)
    ratios = np.zeros((len(feats), 2))
    for seen in route.seen(state, logits=False):
        ratios[seen.places] = seen.ratios
    want = np.stack([kernel.forward(head) for head in heads], axis=1)
    np.testing.assert_allclose(ratios, want, atol=1e-11)
    np.testing.assert_allclose(route.drifts(state), [np.linalg.norm(head) for head in heads], atol=1e-11)


def test_features_of_low_rank_lose_their_empty_directions():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(3, 40))[rng.integers(0, 3, 30)]
    feats = FeatureSet.from_arrays(states, chosen=np.arange(30) % 2, rejected=1 - np.arange(30) % 2)
    assert build(feats, Pairs.of(feats), "reduced", dtype=np.float64).start(1).shape == (1, 1, 3)
    assert build(feats, Pairs.of(feats), "weights", dtype=np.float64).start(1).shape == (1, 1, 40)


@pytest.mark.parametrize("kind", ["answers", "responses"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mapped_file_read_in_blocks_gives_the_rows_in_memory(tmp_path, kind, dtype):
    rng = np.random.default_rng(0)
    arrays = []
    for name in ("first", "second"):
        mapped = np.memmap(tmp_path / name, dtype=np.float32, mode="w+", shape=(50, 4))
        mapped[:] = rng.normal(size=(50, 4))
        arrays.append(mapped)
    if kind == "answers":
        feats = FeatureSet.from_arrays(arrays[0], chosen=np.arange(50) % 2, rejected=1 - np.arange(50) % 2)
        want = np.asarray(arrays[0]).astype(dtype)
    else:
        feats = FeatureSet.from_arrays(chosen_features=arrays[0], rejected_features=arrays[1])
        want = np.asarray(arrays[0]).astype(dtype) - arrays[1]
    for index in (np.arange(50), np.arange(10, 30), np.flatnonzero(np.arange(50) % 3)):
        held = FeatureRows.of(feats, index, dtype=dtype)
        streamed = FeatureRows.of(feats, index, dtype=dtype, held_bytes=0)
        assert streamed.streamed
        assert not held.streamed
        for rows in (held, streamed):
            np.testing.assert_array_equal(rows.block(3, 9), want[index[3:9]])
            np.testing.assert_array_equal(rows.take(np.array([7, 2])), want[index[[7, 2]]])
            assert rows.block(0, 5).dtype == dtype
            starts = [start for start, _ in rows.blocks(1)]
            assert starts[0] == 0
            assert [stop for _, stop in rows.blocks(1)][-1] == len(index)


@pytest.mark.parametrize(("free", "streamed"), [(3 * 400, False), (3 * 400 - 1, True)])
def test_rows_beyond_the_limit_are_held_where_a_third_of_the_free_memory_takes_them(monkeypatch, free, streamed):
    """100 float32 numbers: 400 bytes; read whole, the numbers are those of the blocks."""
    monkeypatch.setattr(streaming, "HELD_BYTES", 399)
    monkeypatch.setattr(streaming, "free_bytes", lambda: free)
    chosen, rejected = (np.random.default_rng(seed).normal(size=(30, 4)).astype(np.float32) for seed in (0, 1))
    feats, index = FeatureSet.from_arrays(chosen_features=chosen, rejected_features=rejected), np.arange(2, 27)
    rows = FeatureRows.of(feats, index, dtype=np.float32)
    assert rows.streamed == streamed
    np.testing.assert_array_equal(rows.whole(), chosen[2:27] - rejected[2:27])
    assert FeatureRows.of(feats, index, dtype=np.float32, held_bytes=399).streamed


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 30))
def test_the_normaliser_moves_as_the_whole_softmax_does(seed, size):
    """Three of eight logits move; the change of log Z against both normalisers in full."""
    rng = np.random.default_rng(seed)
    logits, moved = rng.normal(size=(5, 8)) * 3, np.zeros((5, 2, 8))
    moved[:, :, :3] = rng.normal(size=(5, 2, 3)) * size
    before = np.logaddexp.reduce(logits, axis=1)[:, None]
    want = np.logaddexp.reduce(logits[:, None, :] + moved, axis=2) - before
    log_probs = (logits - before)[:, :3]
    np.testing.assert_allclose(shifts(moved[:, :, :3], log_rest(log_probs), log_probs), want, atol=1e-11, rtol=1e-11)


def test_unknown_and_inexact_routes_are_refused():
    feats = features()
    pairs = Pairs.of(feats)
    with pytest.raises(ConfigError, match="route 'fast' is unknown; known: weights, rows, reduced, gram"):
        build(feats, pairs, "fast", dtype=np.float64)
    with pytest.raises(ConfigError, match="SFT pulls on the rows of tokens, so it cannot take the route 'gram'"):
        build(feats, pairs, "gram", dtype=np.float64, sft=True)
