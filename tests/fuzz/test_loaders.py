"""Mutated files of every kind: a dataset that accounts for every row, or one line that names the file."""

import gc
import os
import shutil
import warnings
from random import Random

import pytest

from prefdyn.data.describe import describe
from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import PrefdynError
from tests.fuzz.seeds import KINDS, spoilt_source
from tests.fuzz.twin import rows_in, texts_in

FEW, MANY = 200, int(os.environ.get("PREFDYN_FUZZ_FILES", "5000"))


def tried(folder, seed):
    """Load one mutated source with and without bad rows.

    Returns:
        Its kind, and how many of the two loads gave a dataset.
    """
    rng = Random(f"loaders {seed}")
    kind, spec, files = spoilt_source(folder, rng)
    counts = [rows_in(path) for path in files]
    read = 0
    for skip in (False, True):
        try:
            data = load_dataset(spec, skip_bad_rows=skip)
        except PrefdynError as error:
            message = str(error)
            assert "\n" not in message, (seed, message)
            assert str(folder) in message, (seed, message)
            assert len(message) < 1500, (seed, message)
            message.encode(errors="strict")
            continue
        read += 1
        assert skip or not data.left_out
        known = [count for count in counts if count is not None]
        if len(known) == len(counts):
            assert len(data) + len(data.left_out) == sum(known), (seed, kind, len(data), data.left_out, counts)
        if kind == "jsonl":
            texts = texts_in(files[0])
            for row in data.to_rows():
                if row["conversation"] is None and row["line"] in texts:
                    assert (row["prompt"], row["chosen"], row["rejected"]) == texts[row["line"]], seed
        describe(data)
        for finding in preflight(data):
            assert "\ud800" not in finding.says
    return kind, read


def run(folder, count, start=0):
    found: dict[str, tuple[int, int]] = dict.fromkeys(KINDS, (0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(start, start + count):
            place = folder / "case"
            place.mkdir()
            kind, read = tried(place, seed)
            shutil.rmtree(place)
            files, loads = found[kind]
            found[kind] = (files + 1, loads + read)
            if seed % 500 == 0:
                gc.collect()
    for kind, (files, loads) in found.items():
        assert 0 < loads < 2 * files, (kind, files, loads)
    return found


@pytest.mark.thorough
def test_some_mutated_files(tmp_path):
    run(tmp_path, FEW)


@pytest.mark.slow
def test_thousands_of_mutated_files(tmp_path):
    run(tmp_path, MANY, start=FEW)
