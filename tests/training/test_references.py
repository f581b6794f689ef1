"""References are believed for the tokens that they were made from, and for no others."""

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError
from prefdyn.models.extract import extract
from prefdyn.models.load import load_model
from prefdyn.models.score import MODEL_DIGEST, TOKENS_DIGEST, score
from prefdyn.models.token_pairs import pair_digests, token_marks, tokenize_pairs
from prefdyn.planning.compare import Side, compare_runs
from prefdyn.planning.score import score_summary, write_scores
from prefdyn.training.references import other_reference
from prefdyn.training.train import run_training
from tests.conftest import SHARED, needs_shared
from tests.models.conftest import byte_tokenizer, make_model, yes_no
from tests.training.test_trl import make, pairs, plug_in

COMMON: dict[str, Any] = {"learning_rate": 0.003, "steps": 2, "progress": False}
TEXTS = [{**row, "split": "train"} for row in pairs(12)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    datasets.disable_progress_bars()


def changed(rows: list[dict[str, Any]], at: int = 3) -> list[dict[str, Any]]:
    """The same ids and lengths, with the letters of one prompt the other way round."""
    return [{**row, "prompt": row["prompt"].swapcase()} if number >= at else row for number, row in enumerate(rows)]


def written(folder: Path, data: PreferenceDataset, model: str, *, old: bool = False, **options: Any) -> Path:
    """What `prefdyn score` writes; as it once was, without digests, if `old`."""
    folder.mkdir()
    scores = score(data, model, progress=False, **options)
    if old:
        scores = replace(scores, table=scores.table.drop_columns([TOKENS_DIGEST, MODEL_DIGEST]))
    write_scores(folder, scores, score_summary(scores))
    return folder


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("tune", ["full", "lora", "last-layer"])
def test_scores_of_other_prompts_are_refused_under_the_same_ids(tiny, tmp_path, tune, old):
    """Naming the first pair; the same prompts pass, and give what the run computes itself."""
    model, data = str(tiny("llama")), load_dataset(TEXTS)
    folder = written(tmp_path / "scores", data, model, old=old)
    own = run_training(data, model, tune=tune, **COMMON)
    given = run_training(data, model, tune=tune, reference=folder, **COMMON)
    assert np.allclose(own.steps["loss"], given.steps["loss"], rtol=0, atol=1e-4)
    other = load_dataset(changed(TEXTS))
    says = r"for pair 'pair-0-\d+', and the same model gives" if old else "scored pair 'pair-0-3' with other tokens"
    with pytest.raises(DataError, match=says):
        run_training(other, model, tune=tune, reference=folder, **COMMON)


@pytest.mark.parametrize("old", [False, True])
def test_so_they_are_of_one_token_answers(tiny, tmp_path, old):
    model, data = str(tiny("llama")), yes_no(12)
    folder = written(tmp_path / "scores", data, model, old=old, eos=False)
    feats = extract(data, model, progress=False)
    rows = changed(data.to_rows())
    for given in (data, feats):
        run_training(given, model, tune="last-layer", reference=folder, **COMMON)
    for given in (PreferenceDataset.from_rows(rows), extract(PreferenceDataset.from_rows(rows), model, progress=False)):
        with pytest.raises(DataError, match="other tokens" if not old else "the same model gives"):
            run_training(given, model, tune="last-layer", reference=folder, **COMMON)


def test_features_that_know_few_pairs_one_by_one_know_all_of_them_together(tiny, tmp_path, monkeypatch):
    """With marks of two pairs a change in another is found; of a part of the features it is told what was looked at."""
    monkeypatch.setattr("prefdyn.models.token_pairs._MARKED", 2)
    model, rows = str(tiny("llama")), yes_no(12).to_rows()
    data = PreferenceDataset.from_rows(rows)
    feats = extract(data, model, progress=False)
    marked = set(feats.provenance.data["tokens"]["pairs"])
    assert len(marked) == 2
    same = written(tmp_path / "same", data, model, eos=False)
    for each in (feats, feats.flipped().flipped()):
        run = run_training(each, tune="last-layer", reference=same, steps=2, progress=False)
        assert not [line for line in run.warnings if "looked at" in line]
    at = next(number for number, row in enumerate(rows) if row["id"] not in marked)
    rows[at] = {**rows[at], "prompt": rows[at]["prompt"][::-1]}
    other = written(tmp_path / "other", PreferenceDataset.from_rows(rows), model, eos=False)
    with pytest.raises(DataError, match="other tokens than these features were made from, beyond the 2 of 12"):
        run_training(feats, tune="last-layer", reference=other, steps=2, progress=False)
    ids = np.array([row["id"] for row in rows])
    lengths = tuple(getattr(feats, f"{side}_length") for side in ("chosen", "rejected"))
    table = pq.read_table(Path(same) / "scores.parquet")
    whole = dict(zip(table["id"].to_pylist(), table[TOKENS_DIGEST].to_pylist(), strict=True))
    for known, says in ((12, []), (2, ["looked at for 2 of 12 pairs"])):
        digests = whole if known == 12 else {name: whole[name] for name in marked}
        _, told = other_reference(same, ids, lengths, digests=digests, model=None, flip=False)
        looked = [line for line in told if "looked at" in line]
        assert len(looked) == len(says)
        assert all(words in line for line, words in zip(looked, says, strict=True))
    part = feats.select(np.arange(10))
    run = run_training(part, tune="last-layer", reference=other, steps=2, progress=False)
    assert any("was looked at for" in line and "of 10 pairs" in line for line in run.warnings)


def test_a_flipped_run_takes_the_same_scores(tiny, tmp_path):
    model, data = str(tiny("llama")), load_dataset(TEXTS)
    folder = written(tmp_path / "scores", data, model)
    run_training(data, model, tune="full", flip=True, reference=folder, **COMMON)
    with pytest.raises(DataError, match="with 12 chosen tokens, and here it has 4: these are scores of other texts"):
        run_training(data.flipped(), model, tune="full", reference=folder, **COMMON)


def test_scores_of_another_model_are_told_and_old_ones_refused(tiny, tmp_path):
    data = load_dataset(TEXTS)
    make_model(tmp_path / "other", "llama", byte_tokenizer(), seed=5)
    new = written(tmp_path / "new", data, str(tmp_path / "other"))
    found = run_training(data, str(tiny("llama")), tune="full", reference=new, **COMMON)
    assert any("is of another model than the one that is trained" in text for text in found.warnings)
    old = written(tmp_path / "old", data, str(tmp_path / "other"), old=True)
    with pytest.raises(DataError, match="does not say which tokens it scored, and its model is not the one"):
        run_training(data, str(tiny("llama")), tune="full", reference=old, **COMMON)


@needs_shared
def test_the_case_of_reversed_prompts(tmp_path):
    """As it was reported: the same ids, and every prompt read backwards."""
    case = SHARED.parent / "cases" / "reading"
    model, data = str(case / "models" / "plain"), load_dataset(case / "41" / "pairs.jsonl")
    folder = written(tmp_path / "scores", data, model)
    run_training(data, model, tune="full", reference=folder, **COMMON)
    rows = [{**row, "prompt": row["prompt"][::-1]} for row in data.to_rows()]
    with pytest.raises(DataError, match=r"scored pair 'pairs:1' with other tokens"):
        run_training(PreferenceDataset.from_rows(rows), model, tune="full", reference=folder, **COMMON)


# TRL -----------------------------------------------------------------------------------------------------------------

trl = pytest.mark.filterwarnings("ignore::FutureWarning")


@trl
@pytest.mark.parametrize("old", [False, True])
def test_the_plug_in_refuses_columns_of_other_tokens(tiny, tmp_path, old):
    folder = written(tmp_path / "scores", load_dataset(TEXTS), str(tiny("llama")), old=old)
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    options: dict[str, Any] = {"precompute_ref_log_probs": True, "max_steps": 1, "max_length": None}
    make(plug_in(), tiny("llama"), tmp_path / "a", datasets.Dataset.from_list(rows), **options).train()
    says = (
        r"pair 'pair-0-\d+' of the train dataset has a ref_" if old else "of pair 'pair-0-3' of the train dataset are"
    )
    with pytest.raises(DataError, match=says):
        make(plug_in(), tiny("llama"), tmp_path / "b", datasets.Dataset.from_list(changed(rows)), **options)
    gc.collect()


@trl
def test_the_plug_in_refuses_references_of_text_that_it_would_cut(tiny, tmp_path):
    folder = written(tmp_path / "scores", load_dataset(TEXTS), str(tiny("llama")))
    rows = datasets.Dataset.from_list(pq.read_table(folder / "scores.parquet").to_pylist())
    with pytest.raises(DataError, match=r"is longer than the 20 tokens at which the trainer cuts.*max_length=None"):
        make(plug_in(), tiny("llama"), tmp_path / "a", rows, precompute_ref_log_probs=True, max_length=20)


# compare -------------------------------------------------------------------------------------------------------------


def side(name: str, data: PreferenceDataset, model: str, **options: Any) -> Side:
    return Side(folder=name, command=name, run=run_training(data, model, tune="full", **COMMON, **options).trajectory)


def test_compare_refuses_runs_of_other_tokens_under_one_model(tiny, tmp_path):
    """The first pair is named; other data with other ids, and other models, are told as before."""
    model = str(tiny("llama"))
    one, same = (side(name, load_dataset(TEXTS), model) for name in ("one", "same"))
    compare_runs(one, same)
    compare_runs(one, side("part", load_dataset(TEXTS[:7]), model))
    compare_runs(one, side("flipped", load_dataset(TEXTS), model, flip=True))
    with pytest.raises(DataError, match=r"one and other read pair 'pair-0-\d+' as other tokens under the same model"):
        compare_runs(one, side("other", load_dataset(changed(TEXTS)), model))
    make_model(tmp_path / "another", "llama", byte_tokenizer(), seed=5)
    found = compare_runs(one, side("another", load_dataset(changed(TEXTS)), str(tmp_path / "another")))
    assert any("not the same model" in text for text in found.warnings)


def test_marks_know_of_the_same_pairs_in_a_part_of_the_data(tiny):
    """So that two results on parts of one dataset can be held against each other; and of a bounded number."""
    pairs = tokenize_pairs(
        load_dataset([{**row, "id": f"{at}"} for at, row in enumerate(TEXTS * 20)]),
        load_model(str(tiny("llama"))),
        eos=True,
    )
    ids, digests = [str(row) for row in pairs.row], pair_digests(pairs)
    whole, half = token_marks(ids, digests)["pairs"], token_marks(ids[::2], digests[::2])["pairs"]
    assert len(whole) == len(half) == 64
    assert len(whole.keys() & half.keys()) >= 25
    assert token_marks(ids[::-1], digests[::-1]) == token_marks(ids, digests)
    assert json.dumps(token_marks(ids, digests))
