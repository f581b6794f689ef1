"""Mutated folders of ours, signed again where they are signed: what they hold, or one line that names the file."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from prefdyn import store
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import preflight
from prefdyn.dynamics.descent import descent
from prefdyn.errors import PrefdynError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.planning.field import field_study
from prefdyn.planning.simulate import simulate
from prefdyn.report.compare import side
from prefdyn.report.folders import read_folder
from prefdyn.report.html import write_report
from tests.fuzz.mutate import VALUES, changed, spoilt
from tests.report.make_folder import make_folder, make_trained_folder
from tests.test_store import dataset, features, resigned, trajectory

FEW, MANY = 40, int(os.environ.get("PREFDYN_FUZZ_FOLDERS", "1000"))
FEW_RUNS, MANY_RUNS = 4, int(os.environ.get("PREFDYN_FUZZ_RUNS", "600"))


def one_line(error, folder, seed):
    message = str(error)
    assert "\n" not in message, (seed, message)
    assert str(folder) in message, (seed, message)
    assert len(message) < 1500, (seed, message)


def spoilt_table(path: Path, rng: Random) -> None:
    """A Parquet table of which a column is gone, doubled, null, of another type or another name, or shuffled."""
    table = pq.read_table(path)
    at = rng.randrange(table.num_columns)
    name, how = table.schema.names[at], rng.randrange(7)
    if how == 0:
        table = table.drop([name])
    elif how == 1:
        table = table.set_column(at, name, pa.nulls(table.num_rows, table.schema.field(at).type))
    elif how == 2:
        held = [rng.choice(["x", "", "\0", "a\nb", "train", "joint"]) for _ in range(table.num_rows)]
        table = table.set_column(at, name, pa.array(held, pa.string()))
    elif how == 3:
        held = [rng.choice([0, -1, 5, 2**40]) for _ in range(table.num_rows)]
        table = table.set_column(at, name, pa.array(held, rng.choice([pa.int64(), pa.float64()])))
    elif how == 4:
        table = table.slice(0, rng.randrange(table.num_rows + 1))
    elif how == 5:
        table = table.append_column(rng.choice([name, "more"]), table[name])
    else:
        held = [rng.choice([float("nan"), float("inf"), -1e300, None]) for _ in range(table.num_rows)]
        table = table.set_column(at, name, pa.array(held, pa.float64()))
    pq.write_table(table, path)


def spoilt_arrays(path: Path, rng: Random) -> None:
    """A safetensors file of which an array is gone, of another shape or type, or holds other numbers."""
    held = safetensors.numpy.load(path.read_bytes())
    name = rng.choice(sorted(held))
    array, how = held[name], rng.randrange(6)
    if how == 0:
        del held[name]
    elif how == 1:
        held[name] = array[: rng.randrange(len(array) + 1)].copy()
    elif how == 2:
        held[name] = array.astype(rng.choice([np.float32, np.float64, np.int32, np.int64, np.bool_, np.uint8]))
    elif how == 3:
        held[name] = array[None].copy()
    elif how == 4:
        held[rng.choice(["x", "states", "margins/-1", "alone_heads/", "other/1"])] = array
    else:
        held[name] = np.full_like(array, rng.choice([0, 1, 7, -1])) if array.dtype.kind != "f" else array * np.nan
    path.write_bytes(safetensors.numpy.save(held))


def accident(folder: Path, rng: Random) -> None:
    """Change one thing of a signed folder, and sign it again unless that cannot be."""
    files = sorted(path for path in folder.iterdir() if path.suffix != ".json")
    path = rng.choice(files)
    how = rng.randrange(4)
    if how == 0:
        signed = next(folder.glob("*.json"))
        signed.write_bytes(spoilt(signed.read_bytes(), rng))
        return
    if how == 1:
        signed = next(folder.glob("*.json"))
        body = changed(json.loads(signed.read_bytes()), rng)
        signed.write_bytes(json.dumps(body).encode("utf-8", "surrogatepass"))
        if isinstance(body, dict) and isinstance(body.get("files"), dict) and "sha256" in body:
            there = {name for name in body["files"] if (folder / name).is_file()}
            if there == set(body["files"]):
                resigned(folder, lambda *_: None)
        return
    if how == 2 or path.suffix not in {".parquet", ".safetensors"}:
        path.write_bytes(spoilt(path.read_bytes(), rng))
    elif path.suffix == ".parquet":
        spoilt_table(path, rng)
    else:
        spoilt_arrays(path, rng)
    resigned(folder, lambda *_: None)


def used(noun):
    """What a command does with it first."""
    if isinstance(noun, FeatureSet) and not noun.held_out.all():
        descent(noun, DPO(), learning_rate=0.1, steps=1)
    elif isinstance(noun, PreferenceDataset):
        preflight(noun)


NOUNS = {
    "features": (store.save_features, store.load_features, features),
    "responses": (store.save_features, store.load_features, lambda: features(responses=True)),
    "trajectory": (store.save_trajectory, store.load_trajectory, trajectory),
    "dataset": (store.save_dataset, store.load_dataset_beside, dataset),
}


def signed_folders(folder, count, start=0):
    sound = {}
    for noun, (save, _, make) in NOUNS.items():
        sound[noun] = save(make(), folder / noun)
    read = dict.fromkeys(NOUNS, 0)
    for seed in range(start, start + count):
        rng = Random(f"folders {seed}")
        noun = rng.choice(sorted(NOUNS))
        place = shutil.copytree(sound[noun], folder / "case")
        try:
            accident(place, rng)
        except (UnicodeEncodeError, ValueError):  # nothing that can be signed
            shutil.rmtree(place)
            continue
        try:
            found = NOUNS[noun][1](place)
        except PrefdynError as error:
            one_line(error, place, seed)
        else:
            read[noun] += 1
            used(found)
        shutil.rmtree(place)
    return read


@pytest.mark.thorough
def test_some_signed_folders(tmp_path):
    assert sum(signed_folders(tmp_path, FEW).values()) < FEW


@pytest.mark.slow
def test_a_thousand_signed_folders(tmp_path):
    read = signed_folders(tmp_path, MANY, start=FEW)
    assert all(read.values()), read
    assert sum(read.values()) < MANY


# output folders ------------------------------------------------------------------------------------------------------


def run_folders(folder):
    """A small one of each kind that is quick to make."""
    make_folder(folder / "audit", names=3)
    make_trained_folder(folder / "trained", names=3)
    made = folder / "simulated"
    made.mkdir()
    simulate(features(24), DPO(), steps=4).write(made)
    field = folder / "field"
    field.mkdir()
    field_study(beta=0.1).write(field)
    return [folder / "audit", folder / "trained", made, field]


def run_accident(folder: Path, rng: Random) -> None:
    """Change one thing of an output folder."""
    path = rng.choice(sorted(item for item in folder.iterdir() if item.suffix in {".parquet", ".csv", ".json"}))
    if rng.random() < 0.6:
        path = folder / "summary.json"
    if path.suffix == ".json" and rng.random() < 0.9:
        body = json.loads(path.read_bytes())
        for _ in range(rng.choice((1, 1, 1, 4))):
            body = changed(body, rng)
        if isinstance(body, dict) and rng.random() < 0.1:
            body[rng.choice(sorted(body) or ["x"])] = rng.choice(VALUES)
        path.write_bytes(json.dumps(body).encode("utf-8", "surrogatepass"))
    elif path.suffix == ".parquet" and rng.random() < 0.7:
        spoilt_table(path, rng)
    else:
        path.write_bytes(spoilt(path.read_bytes(), rng))


def shown(folder, page, rng):
    """A page of it, and the two commands that go on from its run."""
    write_report([read_folder(folder)], page)
    if rng.random() < 0.5:
        found = side(folder)
        with contextlib.suppress(PrefdynError):  # the command puts the folder's name before it
            field_study(beta=0.1, run=found.run)


def output_folders(folder, count, start=0):
    sound, shown_count = run_folders(folder), 0
    for seed in range(start, start + count):
        rng = Random(f"runs {seed}")
        place = shutil.copytree(rng.choice(sound), folder / "case")
        run_accident(place, rng)
        try:
            shown(place, folder / "page.html", rng)
        except PrefdynError as error:
            one_line(error, place, seed)
        else:
            shown_count += 1
        shutil.rmtree(place)
    return shown_count


@pytest.mark.thorough
def test_some_output_folders(tmp_path):
    assert output_folders(tmp_path, FEW_RUNS) <= FEW_RUNS


@pytest.mark.slow
def test_hundreds_of_output_folders(tmp_path):
    assert 0 < output_folders(tmp_path, MANY_RUNS, start=FEW_RUNS) < MANY_RUNS
