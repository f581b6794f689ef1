"""The forward pass: batching, padding and sharing a prefix change nothing but rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ModelError
from prefdyn.models.forward import Reader, Sequences, _SharedLayer
from prefdyn.models.load import load_model
from tests.models.conftest import PARITY, QUESTION, statements

CLOSE = 1e-5
"""Relative to the largest number in the states: rounding of float32 in sums of another order."""


def sequences(lm, count=40):
    return Sequences.sort([tuple(lm.tokenizer(QUESTION.format(text)).input_ids) for text in statements(count)])


def read(reader, seqs):
    return torch.cat([reader.states(seqs, rows) for rows in reader.batches(seqs, 0, len(seqs))]).numpy()


def one_by_one(lm, seqs):
    """Each sequence alone through the whole model."""
    found = []
    with torch.inference_mode():
        for row in range(len(seqs)):
            ids = torch.from_numpy(seqs.one(row).astype(np.int64))[None]
            found.append(lm.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1].numpy())
    return np.stack(found)


@pytest.mark.parametrize("kind", PARITY)
def test_batched_padded_and_prefix_shared_states_are_those_of_one_prompt_alone(tiny, kind):
    """On every architecture, sliding windows and recurrent ones included; no mask is ever given."""
    lm = load_model(str(tiny(kind)))
    seqs = sequences(lm)
    truth = one_by_one(lm, seqs)
    limit = CLOSE * np.abs(truth).max()
    assert len(set(seqs.lengths.tolist())) > 5
    reader = Reader(lm)
    np.testing.assert_allclose(read(reader, seqs), truth, atol=limit)
    reason = reader.share_prefix(seqs)
    assert (reader.prefix > 4) == (reason is None) == (kind != "mamba")
    np.testing.assert_allclose(read(reader, seqs), truth, atol=limit)


def test_a_prefix_longer_than_the_window_is_read_every_time(tiny):
    """Mistral keeps only the last tokens of a window; the plain pass is then the one used."""
    lm = load_model(str(tiny("mistral")))
    common = list(range(5, 45))
    seqs = Sequences.sort([tuple([*common, at, at + 1]) for at in range(50, 60)])
    reader = Reader(lm)
    assert reader.share_prefix(seqs) == "the prefix is longer than the model's attention window"
    assert reader.prefix == 0
    np.testing.assert_allclose(read(reader, seqs), one_by_one(lm, seqs), atol=2e-5)


def test_a_window_that_ends_inside_the_prefix_is_respected(tiny):
    """Prefix shorter than the window, prompt longer: late tokens must not see the start of the prefix."""
    for kind in ("mistral", "gpt-neo", "gemma2-uncapped"):
        lm = load_model(str(tiny(kind)))
        draw = np.random.default_rng(0)
        common = draw.integers(5, 300, 12).tolist()
        seqs = Sequences.sort([(*common, *draw.integers(5, 300, size).tolist()) for size in (3, 9, 20, 30, 40, 40)])
        reader = Reader(lm)
        assert reader.share_prefix(seqs) is None
        np.testing.assert_allclose(read(reader, seqs), one_by_one(lm, seqs), atol=2e-5)


def test_a_cached_prefix_that_deviates_is_not_used(tiny, monkeypatch):
    """Whatever the reason: the numbers of the plain pass win, and the reason is told."""
    lm = load_model(str(tiny("llama")))
    seqs = sequences(lm)
    right = _SharedLayer.update

    def wrong(self, keys, values, *args, **kwargs):
        return right(self, 1.1 * keys, values)

    monkeypatch.setattr(_SharedLayer, "update", wrong)
    reader = Reader(lm)
    assert "deviate by" in str(reader.share_prefix(seqs))
    assert reader.prefix == 0
    np.testing.assert_allclose(read(reader, seqs), one_by_one(lm, seqs), atol=2e-5)

    def fails(self, *args, **kwargs):
        raise RuntimeError("no cache\nhere")

    monkeypatch.setattr(_SharedLayer, "update", fails)
    assert Reader(lm).share_prefix(seqs) == "the model fails with a cached prefix (RuntimeError: no cache here)"


def test_nothing_to_share(tiny):
    """Prompts that begin differently."""
    reader = Reader(load_model(str(tiny("llama"))))
    assert reader.share_prefix(Sequences.sort([(at, 5, 6) for at in range(5, 15)])) == "the prompts share no prefix"


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple), min_size=1, max_size=30))
def test_sorting_keeps_every_sequence_findable(given_sequences):
    """rank leads from the given order to the sorted one; the shared prefix is one, and cannot be longer."""
    seqs = Sequences.sort(given_sequences)
    assert [tuple(seqs.one(int(at)).tolist()) for at in seqs.rank] == given_sequences
    assert (np.diff(seqs.lengths) >= 0).all()
    length = seqs.shared_prefix()
    assert len({ids[:length] for ids in given_sequences}) == 1
    assert length < min(map(len, given_sequences))
    if length + 1 < min(map(len, given_sequences)):
        assert len({ids[: length + 1] for ids in given_sequences}) > 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 400))
def test_batches_cover_every_row_once_and_keep_to_the_budget(lengths, budget):
    """Only a single sequence may be longer than the budget."""
    seqs = Sequences.sort([(1,) * length for length in lengths])

    class Small(Reader):
        def __init__(self):
            self.prefix, self.batch_tokens, self.kind = 0, budget, "cpu"

    runs = list(Small().batches(seqs, 0, len(seqs)))
    assert np.concatenate(runs).tolist() == list(range(len(seqs)))
    assert all(len(run) == 1 or len(run) * seqs.lengths[run].max() <= budget for run in runs)


@pytest.mark.parametrize("kind", ["llama", "phi", "granite", "cohere"])
@pytest.mark.parametrize("chunk", [7, 100000])
def test_log_normalisers_are_those_of_the_full_softmax(tiny, monkeypatch, kind, chunk):
    """Whatever the chunks of rows and vocabulary, with bias and scale."""
    monkeypatch.setattr("prefdyn.models.forward._VOCABULARY_CHUNK", chunk)
    monkeypatch.setattr("prefdyn.models.forward._LOGITS", {"cpu": 3 * chunk})
    lm = load_model(str(tiny(kind)))
    seqs = sequences(lm, 12)
    reader = Reader(lm)
    found = reader.log_normalisers(torch.from_numpy(read(reader, seqs)))
    with torch.inference_mode():
        for row in range(len(seqs)):
            logits = lm.model(input_ids=torch.from_numpy(seqs.one(row).astype(np.int64))[None]).logits[0, -1].double()
            assert found[row] == pytest.approx(float(torch.logsumexp(logits, 0)), abs=2e-5)


def test_double_norm_applies_the_final_weight_again(tiny):
    """As the published scripts do: e * rsqrt(mean(e^2) + eps) * weight on a state that is normalised already (X-19)."""
    lm = load_model(str(tiny("llama")))
    seqs = sequences(lm, 10)
    once = read(Reader(lm), seqs).astype(np.float64)
    weight = lm.model.model.norm.weight.numpy()
    eps = lm.model.config.rms_norm_eps
    twice = once / np.sqrt((once**2).mean(1, keepdims=True) + eps) * weight
    assert np.abs(twice - once).max() > 0.01
    np.testing.assert_allclose(read(Reader(lm, double_norm=True), seqs), twice, atol=1e-5)


def test_double_norm_needs_an_rms_norm(tiny):
    """GPT-2 has a LayerNorm: a second one would not be what was published."""
    with pytest.raises(ModelError, match="the final norm of gpt2 is no RMSNorm; leave double_norm off"):
        Reader(load_model(str(tiny("gpt2"))), double_norm=True)


def test_a_batch_that_does_not_fit_is_halved(tiny, monkeypatch):
    """Down to one sequence; if that does not fit, the error says what to do."""
    lm = load_model(str(tiny("llama")))
    seqs = sequences(lm, 16)
    plain = Reader._batch
    sizes = []

    def small(self, sequences, rows):
        sizes.append(len(rows))
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, sequences, rows)

    truth = one_by_one(lm, seqs)
    monkeypatch.setattr(Reader, "_batch", small)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    room = 3
    reader = Reader(lm, batch_tokens=100000)
    rows = np.arange(16)
    np.testing.assert_allclose(reader.states(seqs, rows).numpy(), truth, atol=2e-5)
    assert sizes[:4] == [16, 8, 4, 2]
    assert reader.batch_tokens < 100000
    room = 0
    with pytest.raises(
        ModelError, match=r"a sequence of \d+ tokens does not fit into the memory of cpu; use max_length"
    ):
        reader.states(seqs, rows)


def test_padding_that_changes_states_parts_the_lengths(tiny):
    """Each prompt then has the state that it has alone; of one length, what meddles is refused."""
    from tests.models.test_log_probs import meddling

    lm = load_model(str(tiny("llama")))
    prompts = [tuple(range(3, 3 + length)) for length in (4, 9, 9, 6, 12, 5)]
    prompts[2] = tuple(range(20, 29))
    sequences = Sequences.sort(prompts)
    reader = Reader(meddling(lm, lambda states: states * (1 + 0.05 * states.shape[1])))
    reader.check_mates(sequences)
    assert reader.equal_lengths
    together = reader.states(sequences, np.arange(6))
    for row in range(6):
        assert torch.allclose(reader.states(sequences, np.array([row]))[0], together[row], atol=1e-5)
    plain = Reader(lm)
    plain.check_mates(sequences)
    assert not plain.equal_lengths
    alike = Sequences.sort([prompts[1], prompts[2], tuple(range(40, 49))])
    with pytest.raises(ModelError, match="depend on the prompts that are read beside each one"):
        Reader(meddling(lm, lambda states: states + 3 * states.mean(0, keepdim=True))).check_mates(alike)
