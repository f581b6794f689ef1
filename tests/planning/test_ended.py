"""The end of a run is read by the names of pairs, whatever order they stand in."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import RobustDPO
from prefdyn.planning.ended import ended_run
from prefdyn.synthetic import gaussian_groups

FEATS = gaussian_groups(4, groups=2, width=3, seed=1, held_out=0.0)
FOLDER = Path("run")
SAID = {"objective": "robust", "beta": 0.2, "label_smoothing": 0.1, "tune": "lora"}


def table(**change) -> pa.Table:
    """Pairs of the run, last ones first, and one more; margins are their places in the features."""
    places = [*reversed(range(len(FEATS)))]
    columns = {
        "id": [*(str(FEATS.id[place]) for place in places), "another"],
        "margin": [*map(float, places), 99.0],
        "split": [*("held_out" if place % 2 else "train" for place in places), "train"],
    }
    return pa.table({**columns, **change})


def test_margins_and_splits_follow_the_features():
    found = ended_run(FEATS, table(), SAID, folder=FOLDER)
    assert found.margins.tolist() == list(range(len(FEATS)))
    assert found.held_out.tolist() == [bool(place % 2) for place in range(len(FEATS))]
    assert found.tune == "lora"
    assert found.objective == RobustDPO(beta=0.2, label_smoothing=0.1)


def test_a_pair_that_was_trained_on_need_not_be_measured():
    margin = table()["margin"].to_pylist()
    margin[-2] = None  # place 0, of split train
    assert np.isnan(ended_run(FEATS, table(margin=margin), SAID, folder=FOLDER).margins).tolist() == [True] + [
        False
    ] * (len(FEATS) - 1)


def test_what_cannot_be_read_off_is_refused():
    with pytest.raises(DataError, match=r"^run has no pairs.parquet with margins"):
        ended_run(FEATS, table().drop_columns(["margin"]), SAID, folder=FOLDER)
    with pytest.raises(DataError, match=r"^run has no pairs.parquet with margins"):
        ended_run(FEATS, None, SAID, folder=FOLDER)
    with pytest.raises(DataError, match=r"trained on other pairs: it does not know '.*' and 1 more"):
        ended_run(FEATS, table().slice(2), SAID, folder=FOLDER)
    margin = table()["margin"].to_pylist()
    margin[-3] = None  # place 1, held out
    with pytest.raises(DataError, match=r"measured no pairs that it held out; hold some out with data\.split\(\)"):
        ended_run(FEATS, table(margin=margin), SAID, folder=FOLDER)
    with pytest.raises(DataError, match="measured no pairs that it held out"):
        ended_run(FEATS, table(split=["train"] * (len(FEATS) + 1)), SAID, folder=FOLDER)
    with pytest.raises(ConfigError, match="objective"):
        ended_run(FEATS, table(), {**SAID, "objective": "none"}, folder=FOLDER)
