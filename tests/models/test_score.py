"""score: log-probabilities that TRL finds too, however they were batched, cached, killed or shared out."""

import multiprocessing
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, DataError, ModelError
from prefdyn.models import pair_shards, shards
from prefdyn.models import score as room
from prefdyn.models.load import load_model
from prefdyn.models.team import Team
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from tests.models.conftest import byte_tokenizer, make_model, rows, statements, yes_no
from tests.naive.pair_scores import NaivePairScorer

score: Any = room.score
score_pairs: Any = room.score_pairs
OF_TRL = pytest.mark.filterwarnings("ignore::FutureWarning")
"""TRL and transformers warn of their own arguments."""
CLOSE: Any = {"rtol": 0, "atol": 1e-4}
"""Rounding of float32 in sums of up to thirty terms of size up to ten."""


def texts(count: int = 24, *, groups: int = 2) -> list[dict[str, str]]:
    """Pairs of longer responses of different lengths."""
    first, second = statements(count, seed=1), statements(count, seed=2)
    return [
        {**row, "chosen": " " + one, "rejected": " " + two}
        for row, one, two in zip(rows(count, groups=groups), first, second, strict=True)
        if one != two
    ]


def long(count: int = 24) -> PreferenceDataset:
    return PreferenceDataset.from_rows(texts(count), name="texts")


def talks(count: int = 12) -> PreferenceDataset:
    """The same as conversations."""
    made = []
    for row in texts(count):
        messages = {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
        made.append({**messages, "group": row["group"], "id": row["id"]})
    return load_dataset(made)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """Folder of a model with a chat template."""
    return make_model(tmp_path_factory.mktemp("m") / "chat", "llama", byte_tokenizer(bos=False, chat=True))


def naive(lm: Any, pairs: TokenPairs) -> np.ndarray:
    """Both log-probabilities (2, m), one pair at a time, log-softmax in float64."""
    scorer = NaivePairScorer(lm, pairs, double=True)
    with torch.no_grad():
        found = [scorer(np.asarray([row])) for row in range(len(pairs))]
    return np.asarray([[float(one.chosen), float(one.rejected)] for one in found]).T


# the numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt-neo", "phi", "granite", "mistral", "bloom"])
@pytest.mark.parametrize("answers", [True, False])
def test_equals_one_pair_at_a_time(tiny, kind, answers):
    """Full logits, one softmax each, both kinds."""
    lm = load_model(str(tiny(kind)))
    pairs = tokenize_pairs(yes_no(16) if answers else long(16), lm)
    assert pairs.kind == ("answers" if answers else "responses")
    found = score_pairs(lm, pairs)
    chosen, rejected = naive(lm, pairs)
    np.testing.assert_allclose(found.chosen, chosen, **CLOSE)
    np.testing.assert_allclose(found.rejected, rejected, **CLOSE)
    assert found.chosen.dtype == np.float64
    assert not np.allclose(found.chosen, rejected, atol=1e-2)


@pytest.mark.parametrize("batch_tokens", [1, 60, 500, 100000])
@pytest.mark.parametrize("share", [True, False])
def test_does_not_depend_on_batch_size_or_sharing(tiny, batch_tokens, share):
    """To float32 rounding."""
    lm = load_model(str(tiny("llama")))
    pairs = tokenize_pairs(long(), lm)
    first = score_pairs(lm, pairs, cache=False)
    other = score_pairs(lm, pairs, cache=False, batch_tokens=batch_tokens, share=share)
    np.testing.assert_allclose(other.chosen, first.chosen, rtol=0, atol=2e-5)
    np.testing.assert_allclose(other.rejected, first.rejected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_does_not_depend_on_the_padding_side(tiny, side):
    """Nothing is left to the tokenizer's setting: the bytes are equal."""
    lm = load_model(str(tiny("llama")))
    first = score(long(), lm, cache=False).table
    lm.tokenizer.padding_side = side
    assert score(long(), lm, cache=False).table.equals(first)


def test_does_not_depend_on_the_order_of_the_pairs(tiny, own_cache):
    """Shuffled data gives the same bytes, shuffled, from the same shards."""
    lm = load_model(str(tiny("llama")))
    order = np.random.default_rng(0).permutation(len(long()))
    shuffled = PreferenceDataset.from_rows([texts()[at] for at in order], name="texts")
    first = score(long(), lm).table
    kept = files(own_cache)
    second = score(shuffled, lm).table
    assert files(own_cache) == kept
    assert second["id"].to_pylist() == [first["id"].to_pylist()[at] for at in order]
    for column in ("ref_chosen_logps", "ref_rejected_logps", "chosen_tokens"):
        assert second[column].to_numpy().tobytes() == first[column].to_numpy()[order].tobytes()
    uncached = score(shuffled, lm, cache=False).table
    assert uncached.equals(second)


def test_swapping_sides_swaps_columns(tiny):
    """What is chosen is not told to the model."""
    lm = load_model(str(tiny("llama")))
    first, second = score(long(), lm).table, score(long().flipped(), lm).table
    np.testing.assert_allclose(second["ref_chosen_logps"], first["ref_rejected_logps"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(second["ref_rejected_logps"], first["ref_chosen_logps"], rtol=0, atol=2e-5)


def test_precision_is_asked_for_and_recorded(tiny):
    """Half-precision weights and mixed precision are near and not the same; each has shards of its own."""
    exact = score(long(), str(tiny("llama")))
    half = score(long(), str(tiny("llama")), dtype="bfloat16")
    mixed = score(long(), str(tiny("llama")), autocast="bfloat16")
    assert half.provenance.model["dtype"] == "bfloat16"
    assert mixed.provenance.settings["autocast"] == "bfloat16"
    for other in (half, mixed):
        off = np.abs(other.table["ref_chosen_logps"].to_numpy() - exact.table["ref_chosen_logps"].to_numpy())
        assert 1e-4 < off.max() < 3
    with pytest.raises(ConfigError, match="autocast 'bf16' is unknown; did you mean 'bfloat16'"):
        score(long(), str(tiny("llama")), autocast="bf16")


def test_a_model_in_training_mode_is_scored_without_dropout(tmp_path):
    """And left as it was."""
    lm = load_model(str(make_model(tmp_path / "m", "gpt2", byte_tokenizer())))
    assert lm.model.config.resid_pdrop > 0
    pairs = tokenize_pairs(long(), lm)
    first = score_pairs(lm, pairs, cache=False)
    lm.model.train()
    again = score_pairs(lm, pairs, cache=False)
    assert lm.model.training
    np.testing.assert_array_equal(first.chosen, again.chosen)


# the table -----------------------------------------------------------------------------------------------------------


def test_the_table_holds_what_trl_reads(tiny):
    """Texts as they were, lengths with the end token, split and group."""
    data = long().split(0.75)
    found = score(data, str(tiny("llama")))
    table = found.table
    assert table.column_names == [
        "prompt", "chosen", "rejected", "id", "group", "split", "chosen_tokens", "rejected_tokens",
        "ref_chosen_logps", "ref_rejected_logps", "tokens_sha256", "model_sha256",
    ]  # fmt: skip
    for column in ("prompt", "chosen", "rejected", "id", "group", "split"):
        assert table[column].to_pylist() == data.table[column].to_pylist()
    tokenizer = load_model(str(tiny("llama"))).tokenizer
    for row in table.to_pylist():
        assert row["chosen_tokens"] == len(tokenizer(row["chosen"], add_special_tokens=False).input_ids) + 1
    assert found.left_out == () == found.warnings


def test_rows_are_group_means(tiny):
    """By hand."""
    found = score(long(), str(tiny("llama")))
    table = found.table.to_pylist()
    assert [row["name"] for row in found.rows()] == ["group 0", "group 1"]
    for row in found.rows():
        mine = [each for each in table if each["group"] == row["name"]]
        assert row["pairs"] == len(mine)
        for side in ("chosen", "rejected"):
            assert row[f"{side}_logps"] == pytest.approx(np.mean([each[f"ref_{side}_logps"] for each in mine]))
            assert row[f"{side}_logps_per_token"] == pytest.approx(
                np.mean([each[f"ref_{side}_logps"] / each[f"{side}_tokens"] for each in mine])
            )
        share = np.mean([each["ref_chosen_logps"] > each["ref_rejected_logps"] for each in mine])
        assert row["policy_accuracy"] == pytest.approx(share)


def test_pairs_that_are_left_out_are_listed(tiny):
    made = texts(6)
    made[2]["prompt"] = "x " * 200
    made[4]["rejected"] = made[4]["chosen"]
    found = score(PreferenceDataset.from_rows(made, name="d"), str(tiny("llama")))
    assert found.table["id"].to_pylist() == [f"pair-{at}" for at in (0, 1, 3, 5)]
    assert [item["id"] for item in found.left_out] == ["pair-2", "pair-4"]
    assert "longer than the model's context of 128" in found.left_out[0]["reason"]
    assert found.warnings == (f"2 of 6 pairs are left out; the first: {found.left_out[0]['reason']}.",)
    whole = score(long(6), str(tiny("llama"))).table.filter(np.isin(np.arange(6), [0, 1, 3, 5]))
    np.testing.assert_allclose(found.table["ref_chosen_logps"], whole["ref_chosen_logps"], rtol=0, atol=2e-5)


def test_without_end_tokens_answers_are_single_and_a_warning_says_so(tiny):
    """TRL appends an end token to plain text: references without it are for other runs."""
    found = score(yes_no(8), str(tiny("llama")), eos=False)
    assert found.provenance.settings["kind"] == "answers"
    assert set(found.table["chosen_tokens"].to_pylist()) == {1}
    assert "not the references of a TRL run" in found.warnings[-1]
    ended = score(yes_no(8), str(tiny("llama")))
    assert set(ended.table["chosen_tokens"].to_pylist()) == {2}
    assert (ended.table["ref_chosen_logps"].to_numpy() < found.table["ref_chosen_logps"].to_numpy()).all()


def test_other_words_are_scored_and_written(tiny):
    """The table holds the words that were scored, so that TRL reads the same ones."""
    found = score(yes_no(8), str(tiny("llama")), answers=(" Y", " N"))
    assert set(found.table["chosen"].to_pylist()) == {" Y", " N"}
    renamed = PreferenceDataset.from_rows(rows(8, yes=" Y", no=" N"), name="statements")
    assert score(renamed, str(tiny("llama"))).table.equals(found.table)


@OF_TRL
def test_pairs_longer_than_trl_reads_are_told(tiny):
    """TRL's default cuts at 1024 tokens, and cut texts have other log-probabilities."""
    lm = replace(load_model(str(tiny("llama"))), context=None)
    made = texts(3)
    made[1]["prompt"] = "x " * 600
    found = score(PreferenceDataset.from_rows(made), lm)
    assert found.warnings[0].startswith("1 pairs are longer than 1024 tokens")
    from trl.trainer.dpo_config import DPOConfig

    assert DPOConfig(output_dir="x", report_to=[], use_cpu=True, bf16=False).max_length == room.TRL_LENGTH


def test_conversations_and_texts_are_not_mixed(chat):
    """A column of TRL's dataset is one or the other."""
    both = PreferenceDataset.concat([talks(3), PreferenceDataset.from_rows([{**texts(3)[0], "id": "plain"}])])
    with pytest.raises(DataError, match=r"3 of the 4 pairs of .* are conversations and the others plain text"):
        score(both, str(chat))


def test_a_log_probability_that_is_not_finite_names_its_pair(tmp_path):
    """The first one, by its id."""
    lm = load_model(str(make_model(tmp_path / "m", "gpt2", byte_tokenizer())))
    probe = lm.tokenizer.convert_tokens_to_ids("ĠYes")
    lm.model.transformer.wte.weight[probe] = float("inf")
    data = PreferenceDataset.from_rows(
        [
            {"id": "sound", "prompt": "p", "chosen": " No way", "rejected": " eat"},
            {"id": "broken", "prompt": "p Yes q", "chosen": " No way", "rejected": " eat"},
        ]
    )
    with pytest.raises(ModelError, match=r"log-probability of pair '(sound|broken)' is NaN or infinite .* dtype"):
        score(data, lm)
    with pytest.raises(ModelError, match=r"of the pair in row [01] of the dataset is NaN"):
        score_pairs(lm, tokenize_pairs(data, lm))


# TRL -----------------------------------------------------------------------------------------------------------------


def trainer(kind: Any, folder: Path, given: Any, tmp_path: Path, **more: Any) -> Any:
    """A trainer over a model of its own, float32, plain descent; nothing is trained."""
    from trl.trainer.dpo_config import DPOConfig

    options: dict[str, Any] = {
        "output_dir": str(tmp_path / "trl"), "report_to": [], "use_cpu": True, "bf16": False, "max_length": None,
        "per_device_train_batch_size": 1, "gradient_checkpointing": False, "beta": 1.0, "disable_tqdm": True,
        "precompute_ref_log_probs": True, "precompute_ref_batch_size": 5,
    }  # fmt: skip
    return kind(str(folder), args=DPOConfig(**options), train_dataset=given, **more)


@pytest.fixture
def quiet_datasets():
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    yield
    if shown:
        datasets.enable_progress_bars()


def first_rewards(made: Any) -> np.ndarray:
    """Rewards of both sides before the first step (2, m), beta 1: the change of each log-probability."""
    made.model.eval()
    for batch in made.get_train_dataloader():
        made.compute_loss(made.model, batch)
    return np.asarray([made._metrics["eval"][f"rewards/{side}"] for side in ("chosen", "rejected")])


CASES = {"texts": long, "answers": yes_no, "talks": talks}


@pytest.fixture
def written(tmp_path, tiny, chat, quiet_datasets):
    """Model folder, and scores.parquet as `datasets` loads it."""

    def make(case: str, **options: Any) -> tuple[Path, Any]:
        folder = chat if case == "talks" else tiny("llama")
        pq.write_table(score(CASES[case](), str(folder), **options).table, tmp_path / "scores.parquet")
        cache = str(tmp_path / "datasets")
        return folder, datasets.load_dataset(
            "parquet", data_files=str(tmp_path / "scores.parquet"), split="train", cache_dir=cache
        )

    return make


@OF_TRL
@pytest.mark.parametrize("case", CASES)
def test_equals_trls_own_references(written, tmp_path, case):
    """TRL scores the same columns itself, without ours, to 1e-4."""
    from trl.trainer.dpo_trainer import DPOTrainer

    folder, given = written(case)
    logps = ["ref_chosen_logps", "ref_rejected_logps"]
    made = trainer(DPOTrainer, folder, given.remove_columns(logps), tmp_path).train_dataset
    for column in logps:
        np.testing.assert_allclose(given[column][:], made[column][:], **CLOSE)
    assert [len(ids) for ids in made["chosen_ids"]] == given["chosen_tokens"][:]
    assert not np.allclose(given[logps[0]][:], made[logps[1]][:], atol=1e-2)


@OF_TRL
@pytest.mark.parametrize("case", CASES)
def test_fed_to_trl_the_first_margins_are_zero(written, tmp_path, case):
    """Through the plug-in, and through TRL alone with the one method that would score again switched off.

    TRL holds references and sums in float32: each side is off by at most two steps of that, whatever its size.
    """
    from trl.trainer.dpo_trainer import DPOTrainer

    from prefdyn.training.trl import GroupDPOTrainer

    class WithReferences(DPOTrainer):
        def _precompute_ref_logps(self, dataset, name, batch_size):
            return dataset

    folder, given = written(case)
    for kind in (WithReferences, GroupDPOTrainer):
        found = first_rewards(trainer(kind, folder, given, tmp_path))
        assert found.shape == (2, len(given))
        largest = max(np.abs(given[f"ref_{side}_logps"][:]).max() for side in ("chosen", "rejected"))
        assert np.abs(found).max() <= 2 * np.spacing(np.float32(largest))
        assert 0.1 * np.abs(found[0] - found[1]).max() < 1e-5


@OF_TRL
def test_a_wrong_reference_shows_in_the_first_margins(written, tmp_path):
    """Of another pair; and without the end token it is refused, by the digest of its tokens."""
    from prefdyn.training.trl import GroupDPOTrainer

    folder, given = written("texts", eos=False)
    with pytest.raises(DataError, match="are of other tokens than the trainer has"):
        trainer(GroupDPOTrainer, folder, given, tmp_path)
    folder, given = written("texts")
    turned = given.remove_columns("ref_chosen_logps").add_column("ref_chosen_logps", given["ref_chosen_logps"][::-1])
    assert np.abs(first_rewards(trainer(GroupDPOTrainer, folder, turned, tmp_path))[0]).max() > 1e-2


@OF_TRL
def test_trl_alone_scores_again_and_stops_at_its_own_columns(written, tmp_path):
    """Why the plug-in, or a subclass, is needed; if this no longer fails, the documentation is out of date."""
    from trl.trainer.dpo_trainer import DPOTrainer

    folder, given = written("texts")
    with pytest.raises(ValueError, match="duplicated"):
        trainer(DPOTrainer, folder, given, tmp_path)


# the cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    """Many shards from little data."""
    monkeypatch.setattr(shards, "_SHARD", {"cpu": (100, 100), "cuda": (100, 100)})


def files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(cache.glob("scores/*/*"))}


def test_a_second_run_reads_what_the_first_kept(tiny, own_cache, small_shards, monkeypatch):
    """Same bytes, no forward pass; other pairs, sides, precision or weights do not hit."""
    lm = load_model(str(tiny("llama")))
    pairs = tokenize_pairs(long(), lm)
    first = score_pairs(lm, pairs)
    kept = files(own_cache)
    assert len(kept) > 5
    monkeypatch.setattr(shards, "_compute", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(pair_shards, "PairScorer", lambda *_, **__: pytest.fail("made for nothing"))
    again = score_pairs(lm, pairs, batch_tokens=7)
    assert again.chosen.tobytes() == first.chosen.tobytes()
    assert files(own_cache) == kept
    flipped = tokenize_pairs(long().flipped(), lm)
    for other in (
        lambda: score_pairs(lm, tokenize_pairs(long(23), lm)),
        lambda: score_pairs(lm, flipped),
        lambda: score_pairs(lm, pairs, autocast="bfloat16"),
        lambda: score_pairs(lm, pairs, share=False),
        lambda: score_pairs(replace(lm, fingerprint="other"), pairs),
        lambda: score_pairs(replace(lm, attention="eager"), pairs),
        lambda: score_pairs(replace(lm, dtype="bfloat16"), pairs),
        lambda: score_pairs(lm, tokenize_pairs(long(), lm, eos=False)),
    ):
        with pytest.raises(pytest.fail.Exception):
            other()


def test_a_run_that_breaks_off_resumes_to_the_same_bytes(tiny, own_cache, small_shards, monkeypatch, tmp_path):
    """At every shard: what was done is not done again."""
    lm = load_model(str(tiny("llama")))
    pairs = tokenize_pairs(long(), lm)
    whole = score_pairs(lm, pairs)
    kept = files(own_cache)
    plain = shards._compute
    for broken in range(len(kept)):
        monkeypatch.setenv("PREFDYN_CACHE", str(tmp_path / f"cache-{broken}"))
        done: list[int] = []

        def compute(*given: Any, stop: int = broken, done: list[int] = done) -> Any:
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(given[2])
            return plain(*given)

        monkeypatch.setattr(shards, "_compute", compute)
        with pytest.raises(KeyboardInterrupt):
            score_pairs(lm, pairs)
        assert len(files(tmp_path / f"cache-{broken}")) == broken
        rest: list[int] = []
        monkeypatch.setattr(shards, "_compute", lambda *given, rest=rest: (rest.append(given[2]), plain(*given))[1])
        found = score_pairs(lm, pairs)
        assert found.chosen.tobytes() == whole.chosen.tobytes()
        assert found.rejected.tobytes() == whole.rejected.tobytes()
        assert sorted(done + rest) == list(range(len(kept)))
        assert files(tmp_path / f"cache-{broken}") == kept


def test_a_flipped_byte_in_a_shard_is_noticed_and_mended(tiny, own_cache, small_shards):
    lm = load_model(str(tiny("llama")))
    first = score(long(), lm).table
    kept = files(own_cache)
    path = sorted(own_cache.glob("scores/*/shard-*"))[1]
    raw = path.read_bytes()
    for at in np.linspace(0, len(raw) - 1, 6).astype(int):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged: .* it is computed again"):
            assert score(long(), lm).table.equals(first)
        assert files(own_cache) == kept


def test_processes_share_the_shards_out(tiny, own_cache, small_shards, monkeypatch):
    """Each its own, disjoint, and together all; whoever comes last sees everything."""
    lm = load_model(str(tiny("llama")))
    pairs = tokenize_pairs(long(), lm)
    alone = score_pairs(lm, pairs, cache=False)
    done: list[int] = []
    plain = shards._compute
    monkeypatch.setattr(shards, "_compute", lambda *given: (done.append(given[2]), plain(*given))[1])
    nothing = {"chosen": np.full(1, np.nan), "rejected": np.full(1, np.nan)}
    monkeypatch.setattr(pair_shards, "load_shard", lambda work, shard: nothing)
    for rank in (0, 1):
        before = len(done)
        team = Team("cpu", cache=True)
        team.share = (rank, 2)
        score_pairs(lm, pairs, team=team)
        assert done[before:]
        assert all(shard % 2 == rank for shard in done[before:])
    monkeypatch.undo()
    assert sorted(done) == list(range(max(done) + 1))
    monkeypatch.setenv("PREFDYN_CACHE", str(own_cache))
    monkeypatch.setattr(shards, "_SHARD", {"cpu": (100, 100), "cuda": (100, 100)})
    monkeypatch.setattr(shards, "_compute", lambda *_: pytest.fail("computed again"))
    assert score_pairs(lm, pairs).chosen.tobytes() == alone.chosen.tobytes()


_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(["tests.models.test_score"])
"""Children start from a process that has done the imports already."""


def child(model: str, out: str, cache: str, pause: float, environment: dict[str, str], ready: Any) -> None:
    """Score and write, in many small shards, each after a pause."""
    os.environ.update({"PREFDYN_CACHE": cache, **environment})
    shards._SHARD = {"cpu": (60, 60), "cuda": (60, 60)}
    torch.set_num_threads(1)
    plain = shards._compute
    shards._compute = lambda *given: (time.sleep(pause), plain(*given))[1]
    ready.set()
    pq.write_table(score(long(40), model).table, out)


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


@pytest.mark.slow
def test_killed_at_some_moments(tiny, tmp_path):
    """SIGKILL anywhere, then the same command: the table and the shards of an unbroken run."""
    model, cache, killed = tiny("gpt-neo"), tmp_path / "cache-2", tmp_path / "killed.parquet"
    finish(start(model, tmp_path / "whole.parquet", tmp_path / "cache-1"))
    wanted = files(tmp_path / "cache-1")
    assert len(wanted) >= 20
    for moment in range(6):
        before, deadline = len(files(cache)), time.monotonic() + 60
        process = start(model, killed, cache, 0.1)
        while moment % 3 != 2 and len(files(cache)) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.03 * moment)  # in the middle of the work, or (each third) anywhere, loading included
        process.kill()
        process.join(60)
    assert 4 <= len(files(cache)) < len(wanted)
    finish(start(model, killed, cache))
    assert killed.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert {name: raw for name, raw in files(cache).items() if name.startswith("shard")} == wanted


@pytest.mark.slow
def test_two_processes_share_the_work(tiny, tmp_path):
    """Under the variables that a launcher sets, each does its shards, both return the whole, as one process would."""
    model = tiny("gpt-neo")
    finish(start(model, tmp_path / "alone.parquet", tmp_path / "cache-1"))
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
        start(
            model, tmp_path / f"{rank}.parquet", tmp_path / "cache-2", 0.1, RANK=str(rank), LOCAL_RANK=str(rank), **team
        )
        for rank in (0, 1)
    ]
    for process in pair:
        finish(process)
    assert files(tmp_path / "cache-2") == files(tmp_path / "cache-1")
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.parquet").read_bytes() == (tmp_path / "alone.parquet").read_bytes()
