"""Batches: every pair as often as the scheme says, the same for equal seeds."""

import numpy as np
import pytest

from prefdyn.dynamics.sampling import batches
from prefdyn.errors import ConfigError


@pytest.mark.parametrize(("pairs", "size"), [(10, 3), (9, 3), (5, 5), (7, 1)])
def test_an_epoch_shows_every_pair_once(pairs, size):
    per_epoch = -(-pairs // size)
    drawn = batches(pairs, size, 3 * per_epoch, seed=1, scheme="epochs")
    orders = []
    for epoch in range(3):
        part = drawn[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert [len(batch) for batch in part[:-1]] == [size] * (per_epoch - 1)
        order = np.concatenate(part)
        assert sorted(order) == list(range(pairs))
        orders.append(order.tolist())
    assert orders[0] != orders[1]


def test_a_fresh_batch_each_step_leaves_pairs_out_and_repeats_others():
    drawn = batches(50, 10, 40, seed=0, scheme="replacement")
    assert all(len(set(batch.tolist())) == 10 for batch in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=50)
    assert counts.min() < 8 < counts.max()  # an epoch scheme would give 8 of each
    even = np.bincount(np.concatenate(batches(50, 10, 40, seed=0, scheme="epochs")), minlength=50)
    assert set(even) == {8}
    tall = np.bincount(np.concatenate(batches(50, 10, 4000, seed=0, scheme="replacement")), minlength=50)
    assert np.abs(tall - 800).max() < 5 * np.sqrt(4000 * 0.2 * 0.8)


def test_seeds_and_schemes_are_independent_and_repeatable():
    def flat(**change):
        given = {"seed": 0, "scheme": "epochs"} | change
        return np.concatenate(batches(20, 6, 5, **given)).tolist()

    assert flat() == flat()
    assert flat() != flat(seed=1)
    assert flat() != flat(scheme="replacement")
    assert [batch.tolist() for batch in batches(3, 3, 2, seed=9, scheme="full")] == [[0, 1, 2], [0, 1, 2]]


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="batch_size is 7, but there are 5 pairs to train on"):
        batches(5, 7, 1, seed=0)
    with pytest.raises(ConfigError, match="scheme 'epoch' is unknown; did you mean 'epochs'"):
        batches(5, 2, 1, seed=0, scheme="epoch")
