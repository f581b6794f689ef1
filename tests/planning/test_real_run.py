"""A forecast of the real run beside the head's verdicts: both orders, what is open, and only of the same pairs."""

import math
from pathlib import Path

import numpy as np
import pytest

from prefdyn.dynamics.foretold import Foretold
from prefdyn.errors import ConfigError
from prefdyn.planning.real_run import RealRun, refuse_other_data
from prefdyn.report.folders import RunFolder
from prefdyn.report.forecast import real_run_chapter, real_run_text

NAMES = ("a", "b", "c", "d", "e")
SPEED = np.array([2.0, 1.5, 1.0, 0.5, 0.0])
"""By how much each group falls while the mean falls by 1."""
FALL = np.linspace(0, 0.2, 11)


def forecast(steps=100, error=0.05):
    """Five groups that fall at speeds of their own; the clock takes 1,000 steps for a nat."""
    start = 0.7
    return Foretold.read(
        {
            "command": "forecast",
            "provenance": {"data": {"name": "here", "sha256": "ab" * 32}},
            "settings": {"tune": "lora", "steps": steps},
            "groups": [{"name": name, "start_loss": start} for name in NAMES],
            "forecast": {
                "names": list(NAMES), "levels": (start - FALL).tolist(), "scale": [1.0] * 5, "freedom": 1000.0,
                "error": (error * FALL).tolist(), "centre": (start - FALL[:, None] * SPEED).tolist(),
                "linear_weight": [0.0] * 11,
                "clock": {key: (1000 * FALL).tolist() for key in ("step", "low", "high")},
            },
        }
    )  # fmt: skip


def beside(areas, **options):
    return RealRun.of(forecast(**options), "told", dict(zip(NAMES, areas, strict=True)), dict.fromkeys(NAMES, "early"))


def test_the_two_orders_are_held_against_each_other():
    alike, turned = beside([1.0, 2, 3, 4, 5]), beside([5.0, 4, 3, 2, 1])
    assert alike.correlation.value == pytest.approx(1)
    assert turned.correlation.value == pytest.approx(-1)
    assert "rank correlation of 1.00" in alike.says()
    assert "the LoRA run of 100 steps that told foretells" in alike.says()
    mixed = beside([2.0, 1, 5, 3, 4])
    assert mixed.correlation.low <= 0
    assert "may be otherwise in that run" in mixed.says()
    ranks = {row["name"]: (row["head_rank"], row["run_rank"]) for row in turned.rows()}
    assert ranks == {name: (5 - place, place + 1) for place, name in enumerate(NAMES)}


def test_a_group_is_open_where_its_band_holds_what_it_began_with():
    """Group d falls by half a nat per nat of the mean; with errors of 0.33 a nat half of its 90 % band is 0.54."""
    assert beside(SPEED).open == ["e"]
    assert beside(SPEED, error=0.33).open == ["d", "e"]
    assert "told foretells" in beside(SPEED).says()
    assert "“e” is still open" in beside(SPEED).says()
    assert "“d” and “e” are still open" in beside(SPEED, error=0.33).says()


def test_the_end_is_within_the_run_by_the_clock():
    """100 steps bring 0.1 nats, so group a is then at 0.7 less 0.2."""
    found = beside(SPEED, steps=100)
    assert found.foretold.band.levels[found.end] == pytest.approx(0.6)
    assert found.rows()[0]["loss"] == pytest.approx(0.5)
    assert beside(SPEED, steps=10_000).rows()[0]["loss"] == pytest.approx(0.3)


def test_where_nothing_is_vouched_for_nothing_is_told():
    found = beside(SPEED, error=10.0)
    assert found.open == []
    assert "vouches for no loss" in found.says()
    assert all(row["open"] is None for row in found.rows())


def test_groups_that_the_audit_lacks_have_no_place():
    found = RealRun.of(forecast(), "told", {"a": 1.0, "b": 2.0}, {})
    assert math.isnan(found.correlation.value)
    assert "is not compared" in found.says()
    assert found.to_json()["rows"][-1]["head_rank"] is None


def test_pages_and_terminal_show_it():
    part = beside(SPEED).to_json()
    run = RunFolder(path=Path(), summary={"real_run": part}, trajectory=None, pairs=None)
    shown = real_run_chapter(run)
    assert shown is not None
    table = shown["tables"][0]
    assert [len(entries) for _, entries in table["rows"]] == [len(table["columns"])] * 5
    assert [name for name, entries in table["rows"] if entries[-1] == "open"] == ["e"]
    assert real_run_text({"real_run": part}).replace("\n", " ") == f"Real run: {part['says']}"
    assert real_run_text({}) == ""


def test_a_forecast_of_other_pairs_is_refused():
    refuse_other_data(forecast(), "told", {"name": "here", "sha256": "ab" * 32})
    with pytest.raises(ConfigError, match=r"told is of other pairs \(here, fingerprint abababababab\) than these \(x"):
        refuse_other_data(forecast(), "told", {"name": "x", "sha256": "cd" * 32})
    with pytest.raises(ConfigError, match="of other pairs"):
        refuse_other_data(forecast(), "told", {"name": "x"})
