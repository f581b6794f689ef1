"""Chosen and rejected apart: what is told of them, and that luck alone is not."""

import numpy as np

from prefdyn.dynamics.progress import ProgressBand
from prefdyn.planning.forecast_sides import Sides
from prefdyn.report.forecast_sides import sides_words
from prefdyn.training.rehearse import RunPart

LEVELS, GROUPS = np.linspace(0.7, 0.5, 11), 8
FALL = 0.7 - LEVELS


def run_of(slopes, noise, error=0.02, end=11):
    """A run whose chosen log-probabilities move in proportion to the fall."""
    fall = FALL[:end]
    loss = np.repeat(LEVELS[:end, None], GROUPS, axis=1)
    chosen = fall[:, None] * (slopes + noise)
    values = {"loss": loss, "chosen_change": chosen, "chosen_error": np.full(chosen.shape, error)}
    return RunPart(steps=np.arange(end), values=values)


def told(rng, slopes, *, luck, seeds=3, end=11):
    band = ProgressBand(
        levels=LEVELS, centre=LEVELS[:, None] + 0.5 * FALL[:, None] * np.linspace(-1, 1, GROUPS), error=0.01 * FALL,
        scale=np.ones(GROUPS), linear=np.zeros(11), freedom=5.0,
    )  # fmt: skip
    runs = [run_of(slopes, luck * rng.normal(size=GROUPS), end=end) for _ in range(seeds)]
    own = run_of(slopes, luck * rng.normal(size=GROUPS))
    seen = FALL[:, None] * slopes + 0.02 * rng.normal(size=GROUPS)
    values = {"chosen_change": seen, "rejected_change": seen - FALL[:, None]}
    found = Sides.of(band, values, runs, own)
    assert found is not None
    return found


def test_luck_alone_is_hardly_told_and_a_group_that_fares_worse_is():
    rng = np.random.default_rng(0)
    alike = [told(rng, np.full(GROUPS, 1.0), luck=0.3) for _ in range(200)]
    assert np.mean([each.behind.mean() for each in alike]) < 0.025
    assert not any(each.falls.any() for each in alike)
    slopes = np.full(GROUPS, 1.0)
    slopes[3] = -3.0
    odd = [told(rng, slopes, luck=0.3) for _ in range(50)]
    assert np.mean([each.behind[3] for each in odd]) > 0.95
    assert np.mean([each.falls[3] for each in odd]) > 0.95
    assert np.mean([np.delete(each.behind, 3).any() for each in odd]) < 0.1


def test_below_the_last_level_of_all_seeds_their_spread_goes_on_with_the_fall_and_one_seed_tells_no_spread():
    rng = np.random.default_rng(1)
    found = told(rng, np.zeros(GROUPS), luck=1.0, end=6)
    spread = np.sqrt(found.error**2 - 0.02**2)
    np.testing.assert_allclose(spread[10], 2 * spread[5])
    assert np.isfinite(found.error[1:]).all()
    alone = told(rng, np.full(GROUPS, -5.0), luck=0.1, seeds=1)
    assert np.isnan(alone.error).all()
    assert not alone.falls.any()
    assert not alone.behind.any()


def test_the_page_says_what_is_told():
    part = {
        "names": ["a", "b"], "levels": [0.7, 0.6],
        "sides": {
            "level": 0.6, "chosen": [[0, 0], [-1.5, 0.5]], "rejected": [[0, 0], [-2, -2]],
            "error_apart": [[0, 0], [0.1, 0.1]], "falls": [1, 0], "behind": [1, 0],
        },
    }  # fmt: skip
    said = sides_words(part) or ""
    assert "chosen responses have moved by −0.5 nats" in said
    assert "rejected ones by −2" in said
    assert "in 1 of 2 groups, worst in a (−1.5)" in said
    assert "become less likely in a." in said
    part["sides"] |= {"falls": [0, 0], "behind": [0, 0]}
    assert "No group's" in (sides_words(part) or "")
    part["sides"]["error_apart"] = [[None, None]] * 2
    assert "Without two rehearsals" in (sides_words(part) or "")
    assert sides_words({}) is None
