"""extract: the FeatureSet is what one prompt at a time gives, however it was batched, cached, killed or shared out."""

import multiprocessing
import os
import socket
import time
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, ModelError, StoreError
from prefdyn.features import FeatureSet
from prefdyn.models import extract as room
from prefdyn.models import shards
from prefdyn.models.load import load_model, untrained_twin
from prefdyn.models.shards import LONG, _Bar
from prefdyn.store import load_features, save_features
from tests.conftest import CHAT_3M, STORIES_3M, needs_shared
from tests.models.conftest import make_model, piece_tokenizer, rows, tokenize_answers, yes_no
from tests.naive import extract as naive

extract: Any = room.extract
CLOSE: Any = {"rtol": 0, "atol": 2e-5}
"""Rounding of float32 in sums of another order, at states of size about 3."""


def same(first: FeatureSet, second: FeatureSet) -> bool:
    """Equal in every array and every name, to the byte."""
    for item in fields(FeatureSet):
        one, two = getattr(first, item.name), getattr(second, item.name)
        if isinstance(one, np.ndarray):
            if one.dtype != two.dtype or one.tobytes() != two.tobytes():
                return False
        elif one != two:
            return False
    return True


# the numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt-neo", "phi", "granite", "opt-projected"])
def test_equals_one_prompt_at_a_time(tiny, kind):
    """States from hidden_states[-1], log-probabilities from the model's own full softmax."""
    data = yes_no(40)
    feats = extract(data, str(tiny(kind)))
    states, chosen, rejected = naive.extract(rows(40), tiny(kind))
    np.testing.assert_allclose(feats.states, states, **CLOSE)
    np.testing.assert_allclose(feats.ref_chosen_logps, chosen, **CLOSE)
    np.testing.assert_allclose(feats.ref_rejected_logps, rejected, **CLOSE)
    assert feats.provenance.settings["shared_prefix"] > 4


@needs_shared
@pytest.mark.parametrize(("folder", "answers"), [(CHAT_3M, None), (STORIES_3M, ("Yes", "No"))])
def test_equals_one_prompt_at_a_time_on_real_models(folder, answers):
    """The same on the two test beds."""
    feats = extract(yes_no(30), str(folder), answers=answers)
    mapping = answers and {"Yes": "Yes", "No": "No"}
    states, chosen, rejected = naive.extract(rows(30), folder, mapping)
    np.testing.assert_allclose(feats.states, states, atol=2e-6 * np.abs(states).max())
    np.testing.assert_allclose(feats.ref_chosen_logps, chosen, **CLOSE)
    np.testing.assert_allclose(feats.ref_rejected_logps, rejected, **CLOSE)


def test_head_rows_and_states_give_the_log_ratio(tiny):
    """log π(w) − log π(l) = (head_w − head_l) · g + bias difference: the identity that all dynamics rest on."""
    feats = extract(yes_no(20), str(tiny("phi")))
    logits = feats.states.astype(np.float64) @ feats.head.T.astype(np.float64) + feats.head_bias
    at = np.arange(len(feats))
    np.testing.assert_allclose(
        feats.ref_chosen_logps - feats.ref_rejected_logps,
        logits[at, feats.chosen] - logits[at, feats.rejected],
        atol=1e-9,
    )
    assert (feats.ref_chosen_logps < 0).all()
    assert np.exp(feats.answer_log_probs()).sum(1).max() <= 1


@pytest.mark.parametrize("batch_tokens", [1, 50, 300, 100000])
def test_does_not_depend_on_the_batch_size(tiny, batch_tokens):
    """To float32 rounding."""
    lm = load_model(str(tiny("gpt-neo")))
    first = extract(yes_no(30), lm, cache=False)
    np.testing.assert_allclose(
        extract(yes_no(30), lm, cache=False, batch_tokens=batch_tokens).states, first.states, **CLOSE
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_does_not_depend_on_the_padding_side(tiny, side):
    """Nothing is left to the tokenizer's setting: the bytes are equal."""
    lm = load_model(str(tiny("llama")))
    first = extract(yes_no(20), lm, cache=False)
    lm.tokenizer.padding_side = side
    assert same(extract(yes_no(20), lm, cache=False), first)


def test_does_not_depend_on_the_order_of_the_pairs(tiny):
    """Shuffled data gives the same rows, shuffled: each row belongs to its own pair."""
    lm = load_model(str(tiny("llama")))
    data = yes_no(30)
    order = np.random.default_rng(0).permutation(30)
    shuffled = PreferenceDataset.from_rows([rows(30)[at] for at in order], name="statements")
    first, second = extract(data, lm), extract(shuffled, lm)
    assert second.id.tolist() == first.id[order].tolist()
    np.testing.assert_array_equal(second.states, first.states[order])
    np.testing.assert_array_equal(second.ref_chosen_logps, first.ref_chosen_logps[order])


def test_bfloat16_is_close_and_recorded(tiny):
    """Half precision moves states by its own rounding, and says so."""
    exact = extract(yes_no(20), str(tiny("llama")))
    half = extract(yes_no(20), str(tiny("llama")), dtype="bfloat16")
    assert half.provenance.model["dtype"] == "bfloat16"
    assert half.states.dtype == np.float32
    gap = np.abs(half.states - exact.states).max()
    assert 1e-4 < gap < 0.15


def test_double_norm_is_recorded_and_kept_apart(tiny):
    """Other states, under another key."""
    once, twice = extract(yes_no(10), str(tiny("llama"))), extract(yes_no(10), str(tiny("llama")), double_norm=True)
    assert np.abs(once.states - twice.states).max() > 0.01
    assert twice.provenance.settings["double_norm"] is True


# the pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_keep_their_columns(tiny):
    """Group, split, weight, id and equal prompts."""
    made = rows(30)
    made[7]["prompt"] = made[3]["prompt"]
    data = PreferenceDataset.from_rows([{**row, "weight": 1.0 + at} for at, row in enumerate(made)], name="d").split(
        0.8
    )
    feats = extract(data, str(tiny("llama")))
    assert feats.id.tolist() == [row["id"] for row in made]
    assert [feats.groups[code] for code in feats.group] == [row["group"] for row in made]
    assert feats.weight.tolist() == [1.0 + at for at in range(30)]
    assert feats.held_out.tolist() == [side == "held_out" for side in data.table["split"].to_pylist()]
    assert feats.text[3] == feats.text[7]
    assert len(set(feats.text.tolist())) == 29
    assert [feats.tokens[at] for at in feats.chosen] == [row["chosen"] for row in made]
    assert feats.kind == "answers"
    origin = dict(feats.provenance.data)
    assert set(origin.pop("tokens")["pairs"]) == {row["id"] for row in made}
    assert origin == {"name": "d", "pairs": 30, "sha256": data.sha256}


def test_pairs_that_are_left_out_are_listed(tiny):
    """With reason, and a group that loses all its pairs is named."""
    made = rows(12)
    made[5]["prompt"] = "x " * 200
    made[6] = {**made[6], "chosen": " Yes", "rejected": " Yes"}
    made.append({"prompt": "x " * 300, "chosen": " Yes", "rejected": " No", "group": "long", "id": "last"})
    feats = extract(PreferenceDataset.from_rows(made, name="d"), str(tiny("llama")))
    assert len(feats) == 10
    assert feats.groups == ("group 0", "group 1")
    left = feats.provenance.settings["left_out"]
    assert [item["id"] for item in left] == ["pair-5", "pair-6", "last"]
    assert "longer than the model's context of 128" in left[0]["reason"]
    assert left[1]["reason"] == "chosen and rejected are the same token"
    said = " ".join(feats.provenance.settings["warnings"])
    assert "3 of 13 pairs are left out" in said
    assert "No pair is left of 1 groups: long." in said
    usable = [row for row in made if len(row["prompt"]) < 300 and row["id"] != "pair-6"]
    np.testing.assert_allclose(feats.states, naive.extract(usable, tiny("llama"))[0], **CLOSE)


def test_answers_stand_in_for_others(tmp_path):
    """` Yes` is two tokens here; `Yes` is one. The mapping is recorded."""
    folder = make_model(tmp_path / "m", "llama", piece_tokenizer())
    feats = extract(yes_no(12), str(folder), answers=("Yes", "No"))
    assert feats.tokens == ("Yes", "No")
    assert feats.provenance.settings["answers"] == {"Yes": "Yes", "No": "No"}
    assert feats.provenance.settings["warnings"][0].startswith("In 12 of 12 pairs, prompt and answer tokenised apart")


def test_the_untrained_twin_differs(tiny):
    """Same pairs, other states, recorded."""
    lm = load_model(str(tiny("llama")))
    trained, fresh = extract(yes_no(12), lm), extract(yes_no(12), lm, untrained=0)
    assert fresh.id.tolist() == trained.id.tolist()
    assert np.abs(fresh.states - trained.states).max() > 0.1
    assert fresh.provenance.settings["untrained"] == 0
    np.testing.assert_array_equal(fresh.states, extract(yes_no(12), untrained_twin(lm, 0)).states)


@pytest.mark.parametrize("name", ["batch_tokens", "max_length"])
def test_counts_must_be_counts(tiny, name):
    """Zero is none."""
    with pytest.raises(ConfigError, match=f"{name} is 0, but must be a whole number of at least 1"):
        extract(yes_no(4), str(tiny("llama")), **{name: 0})


def test_a_state_that_is_not_finite_names_its_pair(tmp_path):
    """float16 overflows where weights are huge; the first pair is named."""
    from tests.models.conftest import byte_tokenizer

    folder = make_model(tmp_path / "m", "gpt2", byte_tokenizer())
    lm = load_model(str(folder))
    row = lm.tokenizer("Would you say this?").input_ids[-1]
    probe = lm.tokenizer.convert_tokens_to_ids("ĠYes")
    assert row != probe
    lm.model.transformer.wte.weight[probe] = float("inf")
    data = PreferenceDataset.from_rows(
        [
            {"prompt": "p", "chosen": " No", "rejected": " eat"},
            {"prompt": "p Yes q", "chosen": " No", "rejected": " eat"},
        ],
        name="d",
    )
    with pytest.raises(ModelError, match=r"the end of pair 'd:[12]' is NaN or infinite .* try dtype float32"):
        extract(data, lm)


# the cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    """Many shards from little data."""
    monkeypatch.setattr(shards, "_SHARD", {"cpu": (100, 100), "cuda": (100, 100)})


def files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(cache.glob("states/*/*"))}


def test_a_second_run_reads_what_the_first_kept(tiny, own_cache, small_shards, monkeypatch):
    """Same bytes, no forward pass; another model, dtype or prompt does not hit."""
    lm = load_model(str(tiny("llama")))
    first = extract(yes_no(30), lm)
    kept = files(own_cache)
    assert len(kept) > 5
    monkeypatch.setattr(shards, "_compute", lambda *_: pytest.fail("computed again"))
    assert same(extract(yes_no(30), lm, batch_tokens=7), first)
    assert files(own_cache) == kept
    for other in (lambda: extract(yes_no(31), lm), lambda: extract(yes_no(30), lm, double_norm=True),
                  lambda: extract(yes_no(30), replace(lm, fingerprint="other"))):  # fmt: skip
        with pytest.raises(pytest.fail.Exception):
            other()


def test_without_cache_nothing_is_written(tiny, own_cache):
    """And the numbers are the same bytes."""
    lm = load_model(str(tiny("llama")))
    first = extract(yes_no(30), lm, cache=False)
    assert not own_cache.exists() or not list(own_cache.glob("states/*"))
    assert same(extract(yes_no(30), lm), first)


def test_a_flipped_byte_in_a_shard_is_noticed_and_mended(tiny, own_cache, small_shards):
    """Wherever it is: told by name, computed again, same bytes as before."""
    lm = load_model(str(tiny("llama")))
    first = extract(yes_no(30), lm)
    kept = files(own_cache)
    path = sorted(own_cache.glob("states/*/shard-*"))[1]
    raw = path.read_bytes()
    for at in np.linspace(0, len(raw) - 1, 12).astype(int):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged: .* it is computed again"):
            again = extract(yes_no(30), lm)
        assert same(again, first)
        assert files(own_cache) == kept


def test_a_damaged_plan_is_made_again(tiny, own_cache):
    """It only says whether a prefix is shared."""
    lm = load_model(str(tiny("llama")))
    first = extract(yes_no(30), lm)
    path = next(own_cache.glob("states/*/plan.json"))
    raw = path.read_bytes()
    for wrong in (b"{", b'{"key": "other", "prefix": 3, "reason": null}', b"[]"):
        path.write_bytes(wrong)
        assert same(extract(yes_no(30), lm), first)
        assert path.read_bytes() == raw


def test_a_shard_that_disappears_meanwhile(tiny, own_cache, monkeypatch):
    """Somebody empties the cache during the run."""
    lm = load_model(str(tiny("llama")))
    monkeypatch.setattr(shards, "atomic_write", lambda path, raw: None)
    with pytest.raises(StoreError, match="has disappeared while it was needed; run the same command again"):
        extract(yes_no(10), lm)


def test_a_cache_folder_that_cannot_be_made(tiny, own_cache):
    """A file stands in the way."""
    own_cache.mkdir(parents=True)
    (own_cache / "states").write_text("x")
    with pytest.raises(StoreError, match=r"cannot be made .* set PREFDYN_CACHE"):
        extract(yes_no(10), str(tiny("llama")))


def test_saved_features_come_back(tiny, tmp_path):
    """To the byte, through a folder."""
    feats = extract(yes_no(20), str(tiny("phi")))
    assert same(load_features(save_features(feats, tmp_path / "f")), feats)


_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(["tests.models.test_extract"])
"""Children start from a process that has done the imports already."""


def child(model: str, out: str, cache: str, pause: float, environment: dict[str, str], ready: Any) -> None:
    """Extract and save, in many small shards, each after a pause."""
    os.environ.update({"PREFDYN_CACHE": cache, **environment})
    shards._SHARD = {"cpu": (20, 20), "cuda": (20, 20)}
    torch.set_num_threads(1)
    plain = shards._compute
    shards._compute = lambda *given: (time.sleep(pause), plain(*given))[1]
    ready.set()
    save_features(extract(yes_no(40), model), Path(out))


def start(model: Path, out: Path, cache: Path, pause: float = 0.0, **environment: str) -> Any:
    """The child, once it runs."""
    ready = _CHILDREN.Event()
    process = _CHILDREN.Process(target=child, args=(str(model), str(out), str(cache), pause, environment, ready))
    process.start()
    assert ready.wait(60)
    return process


def finish(process: Any) -> None:
    process.join(120)
    assert process.exitcode == 0


def folder_bytes(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


def kill_and_resume(tiny, tmp_path: Path, moments: int) -> int:
    """Kill an extraction at some moments, then let it end; how many shards the last run found done."""
    model, shard = tiny("gpt-neo"), "states/*/shard-*.safetensors"
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "killed-cache"
    finish(start(model, whole, tmp_path / "other-cache"))
    assert len(folder_bytes(tmp_path / "other-cache", shard)) >= 30
    for moment in range(moments):
        before = len(folder_bytes(cache, shard))
        process = start(model, killed, cache, 0.1)
        if moment % 3 == 2:
            time.sleep(0.04 * moment)  # anywhere, loading included
        else:  # in the middle of the work
            deadline = time.monotonic() + 60
            while len(list(cache.glob(shard))) == before and process.is_alive() and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(0.005 * moment)
        process.kill()
        process.join(60)
    found = len(folder_bytes(cache, shard))
    finish(start(model, killed, cache))
    assert folder_bytes(killed) == folder_bytes(whole)
    assert folder_bytes(cache, shard) == folder_bytes(tmp_path / "other-cache", shard)
    return found


@pytest.mark.thorough
def test_killed_extraction_resumes_to_the_same_bytes(tiny, tmp_path):
    """SIGKILL twice, then the same command: what was done is kept, and the result is that of an unbroken run."""
    assert kill_and_resume(tiny, tmp_path, 2) >= 2


@pytest.mark.slow
def test_killed_at_twenty_moments(tiny, tmp_path):
    """The same at twenty moments."""
    assert kill_and_resume(tiny, tmp_path, 20) >= 2


@pytest.mark.slow
def test_two_processes_share_the_work(tiny, tmp_path):
    """Under the variables that a launcher sets, each does its shards, both return the whole, as one process would."""
    model = tiny("gpt-neo")
    finish(start(model, tmp_path / "alone", tmp_path / "cache-1"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    team = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
    }
    pair = [
        start(model, tmp_path / f"rank-{rank}", tmp_path / "cache-2", 0.2, RANK=str(rank), LOCAL_RANK=str(rank), **team)
        for rank in (0, 1)
    ]
    for process in pair:
        finish(process)
    for rank in (0, 1):
        assert folder_bytes(tmp_path / f"rank-{rank}") == folder_bytes(tmp_path / "alone")


def test_several_processes_need_the_cache(tiny, monkeypatch):
    """It is how they share what they have read."""
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="several processes share their work through the cache"):
        extract(yes_no(4), str(tiny("llama")), cache=False)


def test_each_process_computes_its_own_shards_only(tiny, own_cache, small_shards, monkeypatch):
    """Shares are disjoint and cover everything."""
    lm = load_model(str(tiny("llama")))
    done: list[int] = []
    plain = shards._compute
    monkeypatch.setattr(shards, "_compute", lambda *given: (done.append(given[2]), plain(*given))[1])
    work, reader = _work(lm)
    total = len(work.bounds)
    for rank in (0, 1, 2):
        before = len(done)
        shards.read_shards(reader, work, name=str, share=(rank, 3))
        assert all(shard % 3 == rank for shard in done[before:])
    assert sorted(done) == list(range(total))


def _work(lm):
    from prefdyn.models.forward import Reader, Sequences

    sequences = Sequences.sort(tokenize_answers(yes_no(30), lm).sequences)
    return shards.plan(lm, sequences, double_norm=False, cache=True), Reader(lm)


# what is said --------------------------------------------------------------------------------------------------------


def test_it_is_quiet_where_nobody_watches(tiny, capfd):
    """Not a terminal: no bar, no log lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(yes_no(20), str(tiny("mamba")))
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() > 0


def test_a_long_extraction_gets_advice(capfd, monkeypatch):
    """From the first batches: tokens, rate, time and the limit that would take ten minutes; once."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(shards.time, "perf_counter", lambda: Clock.now)
    asked = []

    def limit(fraction):
        asked.append(fraction)
        return "--limit 7 would take ten minutes."

    with _Bar(1_000_000, shown=True, limit=limit) as bar:
        Clock.now = 1.0
        bar.add(100, "cpu")
        assert asked == []
        Clock.now = 4.0
        bar.add(300, "cpu")
        bar.add(300, "cpu")
    said = capfd.readouterr().err
    assert "1,000,000 tokens at 100 tokens/s: about 167 minutes. --limit 7 would take ten minutes." in said
    assert asked == [LONG / 10_000]

    with _Bar(30_000, shown=True, limit=limit) as bar:
        Clock.now = 8.0
        bar.add(400, "cpu")
    assert capfd.readouterr().err == ""


def test_the_advised_limit_counts_pairs_of_a_group(tiny, monkeypatch):
    """A fraction of the work is that fraction of the largest group."""
    found = []
    plain = shards.read_shards

    def spy(*args, limit, **kwargs):
        found.append(limit(0.5))
        return plain(*args, limit=limit, **kwargs)

    monkeypatch.setattr("prefdyn.models.extract.read_shards", spy)
    extract(yes_no(30), str(tiny("llama")))
    assert found[0].startswith("--limit 7 would take ten minutes")
