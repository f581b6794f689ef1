"""Adapters and whole models: the loop against a plain one written out, against TRL, and what is saved."""

import json
import warnings
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import transformers

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, DataError, ModelError, TrainingError
from prefdyn.maths.objectives import DPO, IPO, SFT
from prefdyn.maths.optimizers import SGD, AdamW
from prefdyn.models.load import load_model
from prefdyn.models.score import score
from prefdyn.models.token_pairs import tokenize_pairs
from prefdyn.settings import Setup
from prefdyn.training.loop import Start, check_start
from prefdyn.training.settings import LoRA, resolve
from prefdyn.training.train import run_training, train
from prefdyn.training.tune import add_adapters
from tests.models.conftest import statements, yes_no
from tests.naive.pair_scores import NaivePairScorer


def texts(count: int = 12) -> PreferenceDataset:
    """Pairs of free text of different lengths, in two groups."""
    lines = statements(3 * count, seed=4)
    rows = [
        {
            "prompt": lines[3 * at] + "?",
            "chosen": " " + lines[3 * at + 1],
            "rejected": " " + lines[3 * at + 2],
            "group": f"g{at % 2}",
        }
        for at in range(count)
    ]
    return PreferenceDataset.from_rows(rows, name="texts")


def plain_loop(lm, parameters, pairs, *, beta, rate, order, kind):
    """DPO as anyone would write it: full logits, two rows per pair, torch's own optimizer."""
    scorer = NaivePairScorer(lm, pairs)
    with torch.no_grad():
        first = scorer(np.arange(len(pairs)))
    optimizer = kind(parameters, lr=rate)
    found = []
    for rows in order:
        scores = scorer(rows)
        moved = (scores.chosen - first.chosen[rows]) - (scores.rejected - first.rejected[rows])
        loss = -torch.nn.functional.logsigmoid(beta * moved).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("data", [yes_no(12), texts()], ids=["answers", "responses"])
@pytest.mark.parametrize("tune", ["full", "lora"])
@pytest.mark.parametrize("kind", ["llama-tied", "gpt2-untied"])
def test_the_loop_is_a_plain_one(tiny, data, tune, kind):
    lora = LoRA(rank=4, alpha=8.0)
    options: dict[str, Any] = {"lora": lora} if tune == "lora" else {}
    step = {"full": 0.002, "lora": 0.02}[tune]
    found = run_training(
        data, str(tiny(kind)), tune=tune, objective=DPO(beta=0.3), optimizer=AdamW(eps=1e-4), learning_rate=step,
        batch_size=4, steps=8, clip=None, seed=5, **options,
    )  # fmt: skip

    lm = load_model(str(tiny(kind)))
    if tune == "full":
        lm.model.requires_grad_(True)
        parameters = list(lm.model.parameters())
    else:
        _, named = add_adapters(lm, lora, seed=5)
        parameters = list(named.values())
    from prefdyn.dynamics.sampling import batches

    order = batches(len(data), 4, 8, seed=5)
    losses = plain_loop(
        lm, parameters, tokenize_pairs(data, lm), beta=0.3, rate=step, order=order,
        kind=lambda each, lr: torch.optim.AdamW(each, lr=lr, weight_decay=0.0, eps=1e-4),
    )  # fmt: skip
    assert found.kind == ("answers" if data.name == "statements" else "responses")
    assert np.allclose(found.steps["loss"], losses, rtol=0, atol=2e-5), np.abs(np.array(found.steps["loss"]) - losses)
    assert np.ptp(losses) > 0.01


@pytest.mark.parametrize("objective", [DPO(beta=0.3), IPO(beta=0.3), SFT()], ids=lambda each: each.name)
def test_losses_are_those_of_trl(tiny, tmp_path, objective):
    """Full tuning on free text with TRL's end token: the same losses as its own trainer, step by step."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    data, folder = texts(), tiny("llama")
    found = run_training(
        data, str(folder), tune="full", objective=objective, optimizer=SGD(), learning_rate=0.01, batch_size=len(data),
        steps=4, clip=None,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TRL and transformers deprecate is theirs to say
        arguments = trl.DPOConfig(
            output_dir=str(tmp_path), loss_type=objective.name, beta=objective.beta, learning_rate=0.01, max_steps=4,
            optim="sgd", per_device_train_batch_size=len(data), lr_scheduler_type="constant", max_grad_norm=0.0,
            logging_steps=1, report_to="none", bf16=False, gradient_checkpointing=False, use_cpu=True,
            save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        table = datasets.Dataset.from_list(
            [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in data.to_rows()]
        )
        trainer = trl.DPOTrainer(str(folder), args=arguments, train_dataset=table, processing_class=tokenizer)
        trainer.train()
    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert np.allclose(found.steps["loss"], theirs, rtol=1e-4, atol=1e-4)
    assert np.ptp(theirs) > 1e-3
    if objective.name == "sigmoid":
        margins = [row["rewards/margins"] for row in trainer.state.log_history if "loss" in row]
        assert np.allclose(found.steps["rewards/margins"], margins, atol=1e-4)


@pytest.mark.parametrize("data", [yes_no(12), texts()], ids=["answers", "responses"])
def test_parts_checkpointing_and_no_sharing_change_nothing(tiny, data):
    common: dict[str, Any] = {"tune": "full", "learning_rate": 0.01, "optimizer": SGD(), "batch_size": 6, "steps": 5}
    whole = run_training(data, str(tiny("llama")), **common)
    options: dict[str, Any]
    for options in ({"accumulate": 3}, {"gradient_checkpointing": True}, {"share": False}):
        other = run_training(data, str(tiny("llama")), **common, **options)
        assert np.allclose(whole.steps["loss"], other.steps["loss"], rtol=0, atol=2e-5), options
        assert np.allclose(whole.steps["grad_norm"], other.steps["grad_norm"], rtol=1e-3), options
    assert np.ptp(whole.steps["loss"]) > 1e-3


def test_bfloat16_starts_at_zero_margins_and_learns(tiny):
    found = run_training(
        yes_no(12), str(tiny("llama")), tune="full", precision="bfloat16", learning_rate=0.003, batch_size=6, steps=6
    )
    assert found.start_margin is not None
    assert found.start_margin < 0.01
    assert found.steps["loss"][-1].as_py() < found.steps["loss"][0].as_py()


def test_what_is_saved_loads_and_says_the_same(tiny, tmp_path):
    data = yes_no(12)
    for tune, learning_rate in (("full", 0.003), ("lora", 0.03), ("last-layer", 1.0)):
        place = tmp_path / tune
        found = run_training(data, str(tiny("llama-tied")), tune=tune, learning_rate=learning_rate, steps=6, out=place)
        assert found.model == place / "model"
        assert found.model is not None
        lm = load_model(str(found.model))
        with torch.no_grad():
            scores = NaivePairScorer(lm, tokenize_pairs(data, lm))(np.arange(len(data)))
        assert np.allclose(scores.chosen.numpy(), found.chosen, rtol=0, atol=1e-4), tune
        assert np.abs(found.trajectory.margins[6]).max() > 1e-3, tune
        if tune == "last-layer":  # the head was the input embedding; a trained head is a copy of its own
            assert not lm.tied_head
        if tune == "lora":
            config = json.loads((found.model / "adapter_config.json").read_text())
            assert config["base_model_name_or_path"] == str(tiny("llama-tied"))
            assert len(config["target_modules"]) > 3
            assert config["target_modules"] == sorted(config["target_modules"])


def test_only_what_is_tuned_moves(tiny, tmp_path):
    data, folder = yes_no(12), tiny("llama")
    before = safetensors.torch.load_file(folder / "model.safetensors")
    run_training(data, str(folder), tune="last-layer", learning_rate=1.0, steps=3, out=tmp_path / "head")
    after = safetensors.torch.load_file(tmp_path / "head" / "model" / "model.safetensors")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"lm_head.weight"}
    rows = (after["lm_head.weight"] != before["lm_head.weight"]).any(1).nonzero()[:, 0].tolist()
    lm = load_model(str(folder))
    answered = tokenize_pairs(data, lm).answered
    assert answered is not None
    assert sorted(rows) == sorted(answered.token_ids)


def test_misaligning_a_head_is_the_same_from_base_and_from_aligned(tiny, tmp_path):
    """THEORY 2.7's null: with the reference reset, a last-layer run depends on the states alone, not on the head."""
    data = yes_no(20)
    options: dict[str, Any] = {"tune": "last-layer", "learning_rate": 2.0, "steps": 25, "record": [25]}
    aligned = run_training(data, str(tiny("llama")), **options, out=tmp_path / "aligned")
    assert aligned.trajectory.margins[25].mean() > 0.1
    base, again = (
        run_training(data, str(start), flip=True, **options)
        for start in (tiny("llama"), tmp_path / "aligned" / "model")
    )
    assert np.allclose(base.trajectory.margins[25], again.trajectory.margins[25], rtol=0, atol=1e-6)
    assert not np.allclose(base.trajectory.chosen_changes[25], again.trajectory.chosen_changes[25], atol=1e-3)


def test_another_reference_moves_the_start(tiny, tmp_path):
    data = yes_no(12)
    run_training(data, str(tiny("llama")), tune="full", learning_rate=0.003, steps=5, out=tmp_path / "one")
    found = run_training(
        data, str(tmp_path / "one" / "model"), tune="full", reference=str(tiny("llama")), learning_rate=1e-6, steps=1
    )
    before = run_training(data, str(tiny("llama")), tune="full", learning_rate=0.003, steps=5)
    assert found.start_margin is None
    first = {row["group"]: row["margin"] for row in found.trajectory.where(step=0).to_pylist()}
    last = {row["group"]: row["margin"] for row in before.trajectory.where(step=5).to_pylist()}
    assert first.keys() == last.keys()
    assert all(np.isclose(first[name], last[name], atol=1e-4) for name in first)
    assert max(map(abs, first.values())) > 1e-3


def test_scores_are_a_reference_where_their_tokens_are_these(tiny, tmp_path):
    data = yes_no(12)
    for eos, folder in ((True, tmp_path / "eos"), (False, tmp_path / "plain")):
        folder.mkdir()
        pq.write_table(score(data, str(tiny("llama")), eos=eos, progress=False).table, folder / "scores.parquet")
    common: dict[str, Any] = {"tune": "full", "learning_rate": 0.003, "steps": 3}
    own = run_training(data, str(tiny("llama")), **common)
    given = run_training(data, str(tiny("llama")), reference=tmp_path / "plain", **common)
    assert np.allclose(own.steps["loss"], given.steps["loss"], rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="scored pair 'pair-0' with 2 chosen tokens, and here it has 1"):
        run_training(data, str(tiny("llama")), reference=tmp_path / "eos", **common)
    run_training(data, str(tiny("llama")), reference=tmp_path / "eos", eos=True, **common)
    with pytest.raises(DataError, match="lacks 5 of 17 pairs"):
        run_training(yes_no(17), str(tiny("llama")), reference=tmp_path / "plain", **common)


def test_a_reference_with_other_tokens_is_refused(tiny, tmp_path):
    from tests.models.conftest import byte_tokenizer, make_model

    other = make_model(tmp_path / "no-bos", "llama", byte_tokenizer(bos=False))
    with pytest.raises(ModelError, match="into other tokens"):
        run_training(yes_no(12), str(tiny("llama")), tune="full", reference=str(other), steps=1)


@pytest.mark.parametrize(("epochs", "steps"), [(0.01, 1), (1.0, 2), (1.5, 3), (None, 2)])
def test_epochs_are_steps_over_all_pairs_and_one_at_least(epochs, steps):
    assert resolve(10, tune="full", epochs=epochs, batch_size=5).steps == steps


def test_a_scheme_that_is_none_is_refused_by_the_settings():
    with pytest.raises(ConfigError, match="scheme 'other' is unknown; known: epochs, replacement"):
        resolve(10, tune="lora", scheme="other")


def test_one_pair_per_update_may_be_asked_for():
    assert resolve(10, tune="full", batch_size=1).batch_size == 1


def test_settings_of_the_optimizer_that_are_not_its_defaults_are_told():
    told = resolve(10, tune="full", optimizer=AdamW(eps=1e-6)).to_json()
    assert told["eps"] == 1e-6
    assert "betas" not in told


def test_adapters_have_the_same_defaults_in_python_and_on_the_command_line():
    ours, theirs = LoRA(), Setup()
    assert (ours.rank, ours.alpha, ours.dropout, ours.targets) == (
        theirs.lora_rank, theirs.lora_alpha, theirs.lora_dropout, theirs.lora_targets,
    )  # fmt: skip


def test_margins_before_the_first_step_are_checked():
    settings = resolve(10, tune="full")
    assert check_start(Start(margins=np.array([4e-5, -4.9e-5]), sizes=np.array([0.5, 0.5])), settings) == 4.9e-5
    # a pair of a model that had learned its pairs, as 2 in 1,000 are off in another batch; its others were within 1e-7
    assert check_start(Start(margins=np.array([2.6e-6]), sizes=np.array([0.2])), settings) == 2.6e-6
    with pytest.raises(TrainingError, match="should be 0"):
        check_start(Start(margins=np.array([1e-7, 6e-5]), sizes=np.array([40.0, 0.5])), settings)
    assert (
        check_start(Start(margins=np.array([3e-4]), sizes=np.array([0.5]), noise=1e-4), settings) == 3e-4
    )  # as much as rounding was seen to
    with pytest.raises(TrainingError, match="should be 0"):
        check_start(Start(margins=np.array([5e-4]), sizes=np.array([0.5]), noise=1e-4), settings)
    loose = resolve(10, tune="full", precision="bfloat16")
    assert check_start(Start(margins=np.array([0.01]), sizes=np.array([0.5])), loose) == 0.01
    with pytest.raises(TrainingError, match="drown"):
        check_start(Start(margins=np.array([0.0, 0.0266]), sizes=np.array([0.5, 0.5])), loose)


def test_dropout_of_the_model_is_off_and_of_the_adapters_depends_on_the_seed_alone(tiny):
    common: dict[str, Any] = {"tune": "lora", "learning_rate": 0.01, "batch_size": 6, "steps": 4}
    runs = [
        run_training(yes_no(12), str(tiny("gpt2")), lora=LoRA(rank=4, dropout=share), seed=seed, **common)
        for share, seed in ((0.3, 0), (0.3, 0), (0.0, 0))
    ]
    assert runs[0].steps.equals(runs[1].steps)
    assert not runs[0].steps.equals(runs[2].steps)
    assert runs[2].start_margin is not None
    assert runs[2].start_margin < 1e-6  # GPT-2's own dropout of 0.1 would show here


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"tune": "full", "learning_rate": "auto"}, ConfigError, "'auto' is for tune 'last-layer'"),
        ({"tune": "half"}, ConfigError, "tune 'half' is unknown"),
        ({"tune": "full", "lora": LoRA()}, ConfigError, "use tune='lora'"),
        ({"tune": "lora", "lora": LoRA(targets=("nothing",))}, ConfigError, "nothing"),
        ({"tune": "full", "dtype": "bfloat16"}, ModelError, "held in bfloat16"),
        ({"tune": "full", "precision": "float64"}, ConfigError, "float64 is for last-layer"),
    ],
)
def test_what_cannot_be_trained_is_named(tiny, options, kind, says):
    with pytest.raises(kind, match=says):
        run_training(yes_no(8), str(tiny("llama")), steps=1, **options)


def test_nothing_left_to_train_on(tiny):
    data = yes_no(8)
    data = PreferenceDataset.from_rows([{**row, "split": "held_out"} for row in data.to_rows()], name="x")
    with pytest.raises(DataError, match="all 8 pairs are held out"):
        train(data, str(tiny("llama")), tune="full", steps=1)


def test_a_pair_that_the_reference_reads_quite_otherwise_is_refused_wherever_it_stands(tiny, monkeypatch):
    """Not only among the first to be trained on, which are looked at more closely."""
    from prefdyn.training import subjects

    plain = subjects.Models.scored

    def scored(self, lm, pairs, precision):
        chosen, rejected = plain(self, lm, pairs, precision)
        rejected = rejected.copy()
        rejected[place] -= 8.0
        return chosen, rejected

    data = yes_no(40).with_held_out(0.5, seed=0)
    place = int(np.flatnonzero(np.array(data.table["split"].to_pylist()) != "train")[3])
    monkeypatch.setattr(subjects.Models, "scored", scored)
    with pytest.raises(TrainingError, match=r"1 of .* pairs have other log-probabilities .*off by 8 nats"):
        train(
            data, str(tiny("llama-tied")), tune="lora", steps=2, batch_size=4, device="cpu", cache=False, progress=False
        )
