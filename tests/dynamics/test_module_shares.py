"""Shares of modules in groups: what they are by hand, what marks they make by chance, and what they find."""

import numpy as np
import pytest

from prefdyn.dynamics.module_shares import module_shares, placed, summed

ROWS, GROUPS, PAIRS = 6, 8, 20
GROUP, UNIT = np.repeat(np.arange(GROUPS), PAIRS), np.arange(GROUPS * PAIRS)
SHARES = np.array([0.05, 0.1, 0.3, 0.3, 0.2, 0.05])


ALIKE = np.repeat(SHARES[:, None], GROUPS, axis=1)


def drawn(rng, *, shares=ALIKE, seeds=2, pairs=0.5, luck=0.02):
    """Parts of a run and of other seeds: the same pairs, whose noise seeds share, and a seed's luck in each group."""
    noise = pairs * rng.normal(size=(ROWS, len(GROUP)))
    runs = []
    for _ in range(seeds + 1):
        mean = shares + luck * rng.normal(size=(ROWS, GROUPS))
        each = mean[:, GROUP] * (1 + noise)
        runs.append({f"m.{at}.x": row for at, row in enumerate(each)})
    return runs[0], runs[1:]


def test_shares_are_parts_of_the_groups_mean_and_sum_to_one():
    own, others = drawn(np.random.default_rng(0))
    found = module_shares(own, others, GROUP, UNIT)
    for code in range(GROUPS):
        means = np.array([row[code == GROUP].mean() for row in own.values()])
        np.testing.assert_allclose(found.margin[:, code], means)
        np.testing.assert_allclose(found.share[:, code], means / means.sum())
    np.testing.assert_allclose(found.share.sum(axis=0), 1)
    np.testing.assert_allclose(found.overall, found.share.mean(axis=1))


def test_the_error_of_a_share_is_that_of_other_units_drawn():
    """A jackknife over units, three pairs each, knows nothing of the formula."""
    own, _ = drawn(np.random.default_rng(1))
    unit = UNIT // 3
    found = module_shares(own, [], GROUP, unit)
    inside = GROUP == 0
    parts, own_unit = np.stack(list(own.values()))[:, inside], unit[inside]
    left = []
    for each in np.unique(own_unit):
        kept = parts[:, own_unit != each].sum(axis=1)
        left.append(kept / kept.sum())
    left = np.array(left)
    spread = np.sqrt((len(left) - 1) / len(left) * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    np.testing.assert_allclose(found.error[:, 0], spread, rtol=0.1)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(module_shares(own, [], GROUP, UNIT).error[:, 0], spread, rtol=1e-3)


def test_chance_marks_one_table_in_twenty_at_most_and_a_layer_of_its_own_is_found():
    rng = np.random.default_rng(2)
    alarms = sum(module_shares(*drawn(rng), GROUP, UNIT).told.any() for _ in range(300))
    assert alarms <= 25  # 15 are expected of a rule that is exact; 25 is its 99.5 % point
    shares = ALIKE.copy()
    shares[:, 3] = SHARES[::-1]
    shares[2, 3] += 0.4
    found = [module_shares(*drawn(rng, shares=shares), GROUP, UNIT).told for _ in range(50)]
    assert np.mean([told[2, 3] for told in found]) > 0.9
    assert np.mean([told[:, [0, 1, 2, 4, 5, 6, 7]].any() for told in found]) < 0.2


def test_nothing_is_marked_without_other_seeds_or_a_second_group_and_nothing_shared_of_what_does_not_move():
    own, others = drawn(np.random.default_rng(3))
    alone = module_shares(own, [], GROUP, UNIT)
    assert not alone.told.any()
    assert np.isnan(alone.between).all()
    first = [{name: row[:PAIRS] for name, row in each.items()} for each in (own, *others)]
    one = module_shares(first[0], first[1:], GROUP[:PAIRS], UNIT[:PAIRS])
    assert not one.told.any()
    still = {name: np.where(GROUP == 2, row - row[GROUP == 2].mean(), row) for name, row in own.items()}
    found = module_shares(still, others, GROUP, UNIT)
    assert np.isnan(found.share[:, 2]).all()
    assert not found.told[:, 2].any()
    assert np.isfinite(np.delete(found.share, 2, axis=1)).all()


def test_rows_of_several_modules_are_their_sums():
    own, others = drawn(np.random.default_rng(4))
    rows = {name: f"{int(placed(name)[0] or 0) // 2}" for name in own}
    whole, parts = module_shares(summed(own, rows), [], GROUP, UNIT), module_shares(own, [], GROUP, UNIT)
    np.testing.assert_allclose(whole.share, parts.share.reshape(3, 2, GROUPS).sum(axis=1))
    assert whole.rows == ("0", "1", "2")
    assert others
