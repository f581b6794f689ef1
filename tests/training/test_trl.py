"""The TRL plug-in: the same training, seen by group and by pair."""

# pyright: reportPrivateImportUsage=false
# (TRL loads its public names on first use, where a type checker does not see them)

import functools
import gc
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from prefdyn._json import plain, write_json
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.progress import at_levels, combined, levels_to, progress, spread_of_seeds
from prefdyn.errors import ConfigError, DataError, MissingExtra, ModelError, StoreError
from prefdyn.maths.objectives import DPO
from prefdyn.models.load import load_model
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.token_pairs import tokenize_pairs
from prefdyn.planning.field import field_study
from prefdyn.store import load_trajectory
from prefdyn.training import trl_versions
from prefdyn.training.trl_data import TAGS, pair_numbers, parameter_names
from prefdyn.training.trl_record import SCORED, Record, Score, group_means, middle
from prefdyn.trajectory import SCHEMA
from tests.conftest import REPO
from tests.models.conftest import byte_tokenizer, make_model, statements

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL and transformers warn of their own arguments

BETA = 0.3
TRL_KEYS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """TRL reports its use over the network unless it takes itself for a test run."""
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    datasets.disable_progress_bars()


@pytest.fixture(scope="module", autouse=True)
def _few_objects():
    """Every run begins with a garbage collection, which half a million objects of libraries would make slow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("trl") / "llama", "llama", byte_tokenizer(chat=True))


def pairs(count: int, *, seed: int = 0, groups: int = 3) -> list[dict[str, str]]:
    """Prompts and responses of different lengths; groups of different sizes."""
    texts = statements(3 * count, seed=seed)
    return [
        {
            "prompt": texts[3 * at],
            "chosen": " " + texts[3 * at + 1],
            "rejected": " " + texts[3 * at + 2],
            "group": f"group {min(at % 5, groups - 1)}",
            "id": f"pair-{seed}-{at}",
        }
        for at in range(count)
    ]


def talk(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The same as conversations."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [
        row | {name: [{"role": role, "content": row[name].strip()}] for name, role in roles.items()} for row in rows
    ]


def as_set(rows: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows)


def make(kind: Any, model: Any, out: Path, train: Any, held_out: Any = None, **options: Any) -> Any:
    """A trainer of a few quick steps; options that are no arguments of a trainer are settings."""
    from trl import DPOConfig

    own = ("group_column", "id_column", "keep_pairs", "peft_config", "ref_model", "callbacks", "data_collator",
           "weight_column", "group_weights", "weighting", "watch")  # fmt: skip
    arguments = {name: options.pop(name) for name in own if name in options}
    settings = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-2,
        "beta": BETA,
        "max_steps": 5,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    args = DPOConfig(output_dir=str(out), **(settings | options))
    return kind(
        model=str(model) if isinstance(model, Path) else model,
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        **arguments,
    )


def plug_in() -> Any:
    from prefdyn.training.trl import GroupDPOTrainer

    return GroupDPOTrainer


def logs(trainer: Any) -> list[dict[str, Any]]:
    """What was logged, less clocks."""
    return [
        {name: value for name, value in row.items() if not name.endswith(("_runtime", "_per_second"))}
        for row in trainer.state.log_history
    ]


def weights(trainer: Any) -> dict[str, bytes]:
    return {name: each.detach().numpy().tobytes() for name, each in trainer.model.state_dict().items()}


def naive(model: Any, tokenizer: Any, row: Mapping[str, str]) -> tuple[float, float]:
    """Log-probabilities of chosen and rejected, by the book: prompt + response + end token, token by token."""
    found = []
    for side in ("chosen", "rejected"):
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = tokenizer(row["prompt"] + row[side] + tokenizer.eos_token)["input_ids"]
        assert whole[: len(prompt)] == prompt
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].double()
        found.append(
            sum(torch.log_softmax(logits[at - 1], 0)[whole[at]].item() for at in range(len(prompt), len(whole)))
        )
    return found[0], found[1]


class Snapshots(transformers.TrainerCallback):
    """The weights after every update."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        self.at[state.global_step] = {name: each.detach().clone() for name, each in model.state_dict().items()}

    on_train_end = on_step_begin


# the same training --------------------------------------------------------------------------------------------------


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0)


def adapted(folder: Path) -> Any:
    """A model with an adapter that has been trained before, and is its own reference."""
    from peft import get_peft_model

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    draw = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        found = get_peft_model(model, lora())
    with torch.no_grad():
        for name, each in found.named_parameters():
            if "lora_" in name:
                each.copy_(0.05 * torch.randn(each.shape, generator=draw))
    return found


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "full": dict,
    "lora": lambda: {"peft_config": lora()},
    "lora of before": lambda: {"given": True},
    "precomputed": lambda: {"precompute_ref_log_probs": True},
    "lora, precomputed": lambda: {"peft_config": lora(), "precompute_ref_log_probs": True},
    "accumulated": lambda: {"gradient_accumulation_steps": 3},
    "conversations": lambda: {"talk": True},
    "bfloat16": lambda: {"bf16": True},
    "two losses": lambda: {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
    "checkpointed": lambda: {"gradient_checkpointing": True},
    "workers": lambda: {"dataloader_num_workers": 1},
}
RANKED = {name: WAYS[name] for name in ("full", "lora")} | {
    "weighted": lambda: {"group_weights": {"group 0": 3.0, "group 1": 0.5}},
}
"""Ways that two processes are tried in; of the last, arguments of ours."""


QUICK = ("full", "lora, precomputed", "accumulated")


@pytest.mark.parametrize("way", [way if way in QUICK else pytest.param(way, marks=pytest.mark.slow) for way in WAYS])
def test_losses_metrics_and_weights_keep_their_bytes(way, folder, tmp_path):
    from trl import DPOTrainer

    options = WAYS[way]()
    rows = talk(pairs(14)) if options.pop("talk", False) else pairs(14)
    held_out = {
        "near": as_set(rows[:6]),
        "far": as_set(talk(pairs(5, seed=1)) if way == "conversations" else pairs(5, seed=1)),
    }
    options |= {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "logging_steps": 2}
    given = options.pop("given", False)
    plain, ours = (
        make(kind, adapted(folder) if given else folder, tmp_path / kind.__name__, as_set(rows), held_out, **options)
        for kind in (DPOTrainer, plug_in())
    )
    plain.train()
    ours.train()
    assert weights(plain) == weights(ours)
    # the row that speaks of all sets together is ours alone
    theirs, mine = logs(plain), [row for row in logs(ours) if "eval_loss" not in row]
    assert len(theirs) == len(mine) >= 5
    for before, after in zip(theirs, mine, strict=True):
        assert before.items() <= after.items()  # exactly: no tolerance
        extra = set(after) - set(before)
        assert bool(extra) == ("train_loss" not in before)  # no window is open at the end
        assert all("/group " in name or name.startswith(("eval_near_", "eval_far_")) for name in extra)


def test_control_other_weights_have_other_bytes(folder, tmp_path):
    one, other = (
        make(plug_in(), folder, tmp_path, as_set(pairs(14)), max_steps=1, learning_rate=rate)
        for rate in (1e-2, 1.001e-2)
    )
    one.train()
    other.train()
    assert weights(one) != weights(other)


def test_permuted_groups_change_what_groups_show_and_nothing_else(folder, tmp_path):
    rows = pairs(14)
    others = [row | {"group": rows[(at + 1) % 14]["group"]} for at, row in enumerate(rows)]
    one, other = (make(plug_in(), folder, tmp_path, as_set(each)) for each in (rows, others))
    one.train()
    other.train()
    assert weights(one) == weights(other)
    changed = 0
    for left, right in zip(logs(one), logs(other), strict=True):
        shared = {name for name in left if "/group" not in name}
        assert {name: left[name] for name in shared} == {name: right[name] for name in shared}
        changed += any(left.get(name) != right.get(name) for name in left if name.startswith("rewards/margins/group"))
    assert changed >= 4


# the numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["full", "lora", "precomputed"])
def test_every_pair_at_every_step_equals_the_model_read_by_hand(way, folder, tmp_path):
    rows, held_out = pairs(14), pairs(5, seed=1)
    by_id = {row["id"]: row for row in rows + held_out}
    snapshots = Snapshots()
    trainer = make(
        plug_in(), folder, tmp_path, as_set(rows), as_set(held_out), callbacks=[snapshots], eval_strategy="steps",
        eval_steps=2, **WAYS[way](),
    )  # fmt: skip
    trainer.train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    start = {name: naive(reference, tokenizer, row) for name, row in by_id.items()}
    seen = 0
    shown = trainer.margins().to_pylist()
    assert {(row["split"], row["set"]) for row in shown} == {("train", "train"), ("held_out", "eval")}
    trainer.model.eval()
    for step, state in snapshots.at.items():
        trainer.model.load_state_dict(state)
        for row in (row for row in shown if row["step"] == step):
            up, down = (
                now - then
                for now, then in zip(naive(trainer.model, tokenizer, by_id[row["id"]]), start[row["id"]], strict=True)
            )
            assert row["chosen_change"] == pytest.approx(up, abs=2e-5)
            assert row["rejected_change"] == pytest.approx(down, abs=2e-5)
            assert row["margin"] == pytest.approx(BETA * (up - down), abs=1e-5)
            assert row["group"] == by_id[row["id"]]["group"]
            seen += 1
    assert seen == len(shown) == 4 * 4 + 2 + 3 * 5  # the fourth batch of 14 holds two pairs; three evaluations
    assert max(abs(row["margin"]) for row in shown) > 0.1  # it moved


def test_trl_and_our_own_scoring_agree(folder, tmp_path):
    held_out = pairs(7, seed=1)
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(14)), as_set(held_out))
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model(str(tmp_path / "trained"))
    data = PreferenceDataset.from_rows(held_out)
    moved = []
    for place in (folder, tmp_path / "trained"):
        lm = load_model(str(place), dtype="float32", device="cpu")
        tokens = tokenize_pairs(data, lm, eos=True)
        with torch.no_grad():
            scores = PairScorer(lm, tokens)(np.arange(len(tokens)))
        moved.append((scores.chosen - scores.rejected).double().numpy()[np.argsort(tokens.row)])
    margins = BETA * (moved[1] - moved[0])
    assert trainer.margins().filter(pc.field("set") == "eval")["margin"].to_numpy() == pytest.approx(margins, abs=1e-5)
    groups = np.array([row["group"] for row in held_out])
    for group in set(groups.tolist()):
        inside = margins[groups == group]
        assert metrics[f"eval_rewards/margins/{group}"] == pytest.approx(inside.mean(), abs=1e-5)
        assert metrics[f"eval_rewards/accuracies/{group}"] == (inside > 0).mean()
    assert np.abs(margins).max() > 0.1


def test_groups_are_means_over_their_pairs(folder, tmp_path):
    trainer = make(
        plug_in(), folder, tmp_path, as_set(pairs(14)), as_set(pairs(7, seed=1)), eval_strategy="epoch", logging_steps=3
    )
    trainer.train()
    shown = trainer.margins().to_pandas()
    rows = logs(trainer)
    windows = [row for row in rows if "loss" in row or "train_loss" in row]
    assert [row["step"] for row in windows] == [3, 5]
    for window, steps in zip(windows, [(0, 1, 2), (3, 4)], strict=True):
        part = shown[(shown["split"] == "train") & shown["step"].isin(steps)]
        for group, inside in part.groupby("group"):
            assert window[f"pairs/{group}"] == len(inside)
            assert window[f"rewards/margins/{group}"] == pytest.approx(inside["margin"].mean(), abs=1e-12)
            assert window[f"rewards/chosen/{group}"] == pytest.approx(BETA * inside["chosen_change"].mean(), abs=1e-12)
            assert window[f"rewards/rejected/{group}"] == pytest.approx(
                BETA * inside["rejected_change"].mean(), abs=1e-12
            )
            assert window[f"rewards/accuracies/{group}"] == (inside["margin"] > 0).mean()
            assert window[f"loss/{group}"] == pytest.approx(np.log1p(np.exp(-inside["margin"])).mean(), abs=1e-12)
    evaluated = next(row for row in rows if "eval_loss" in row)
    part = shown[(shown["split"] == "held_out") & (shown["step"] == evaluated["step"])]
    for group, inside in part.groupby("group"):
        assert evaluated[f"eval_pairs/{group}"] == len(inside)
        assert evaluated[f"eval_rewards/margins/{group}"] == pytest.approx(inside["margin"].mean(), abs=1e-12)


@pytest.mark.parametrize("way", ["full", "lora", "conversations"])
def test_groups_add_up_to_what_trl_says_of_each_batch(way, folder, tmp_path):
    options = WAYS[way]()
    rows = talk(pairs(14)) if options.pop("talk", False) else pairs(14)
    trainer = make(plug_in(), folder, tmp_path, as_set(rows), **options)
    trainer.train()
    batches = [row for row in logs(trainer) if "loss" in row]
    assert len(batches) == 5
    for batch in batches:
        counts = {name.removeprefix("pairs/"): value for name, value in batch.items() if name.startswith("pairs/")}
        for key in (*TRL_KEYS, "loss"):
            whole = sum(batch[f"{key}/{group}"] * count for group, count in counts.items()) / sum(counts.values())
            assert whole == pytest.approx(batch[key], rel=2e-6, abs=1e-6), key


def test_a_short_last_batch_counts_for_no_more_than_its_pairs(folder, tmp_path):
    """TRL averages batches: over 4, 4, 4 and 2 pairs it is off, and so would groups be."""
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(14, groups=1)), max_steps=4, logging_steps=4)
    trainer.train()
    window = next(row for row in logs(trainer) if "loss" in row)
    exact = trainer.margins()["margin"].to_numpy().mean()
    assert window["pairs/group 0"] == 14
    assert window["rewards/margins/group 0"] == pytest.approx(exact, abs=1e-12)
    assert abs(window["rewards/margins"] - exact) > 1e-3


def test_training_and_evaluation_see_the_same_pair_alike(folder, tmp_path):
    rows = pairs(8)
    trainer = make(
        plug_in(), folder, tmp_path, as_set(rows), as_set(rows), eval_strategy="steps", eval_steps=1,
        eval_on_start=True,
    )  # fmt: skip
    trainer.train()
    shown = trainer.margins().to_pylist()
    evaluated = {(row["step"], row["id"]): row["margin"] for row in shown if row["split"] == "held_out"}
    trained = [row for row in shown if row["split"] == "train"]
    assert len(trained) == 20
    for row in trained:
        assert row["margin"] == pytest.approx(evaluated[row["step"], row["id"]], abs=2e-5)
    assert all(row["margin"] == 0.0 for row in shown if row["step"] == 0)
    assert any(
        abs(row["margin"] - evaluated[row["step"] + 1, row["id"]]) > 1e-3 for row in trained
    )  # control: off by one


LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "sigmoid, smoothing that TRL ignores": {"label_smoothing": 0.2},
    "hinge": {"loss_type": ["hinge"]},
    "ipo": {"loss_type": ["ipo"]},
    "robust": {"loss_type": ["robust"], "label_smoothing": 0.1},
    "sft": {"loss_type": ["sft"]},
    "sigmoid and sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
    "ld": {"ld_alpha": 0.5},
    "ld ipo, precomputed": {"ld_alpha": 0.5, "loss_type": ["ipo"], "precompute_ref_log_probs": True},
    "cut short": {"max_length": 14},
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_group_is_trls_loss_of_a_batch_of_it(name, folder, tmp_path):
    trainer = make(
        plug_in(), folder, tmp_path, as_set(pairs(12, groups=1)), as_set(pairs(4, seed=1, groups=1)), max_steps=3,
        eval_strategy="steps", eval_steps=1, **LOSSES[name],
    )  # fmt: skip
    trainer.train()
    rows = logs(trainer)
    train, held_out = [row for row in rows if "loss" in row], [row for row in rows if "eval_loss" in row]
    assert len(train) == len(held_out) == 3
    for row in train:
        assert row["loss/group 0"] == pytest.approx(row["loss"], rel=1e-5, abs=1e-6)
        assert row["rewards/margins/group 0"] == pytest.approx(row["rewards/margins"], rel=1e-5, abs=1e-6)
        assert row["rewards/accuracies/group 0"] == row["rewards/accuracies"]
    for row in held_out:
        assert row["eval_loss/group 0"] == pytest.approx(row["eval_loss"], rel=1e-5, abs=1e-6)
    assert train[-1]["loss"] != train[0]["loss"]


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"loss_type": ["apo_zero"]}, "loss_type 'apo_zero' is none of"),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type 'js_divergence' changes the loss"),
        ({"use_weighting": True}, "use_weighting changes the loss"),
        ({"loss_type": ["sft"], "ld_alpha": 0.5}, "ld_alpha changes the loss"),
    ],
)
def test_losses_that_are_not_ours_are_left_out_and_said_once(options, because, folder, tmp_path):
    with pytest.warns(UserWarning, match=f"losses per group are left out: .*{because}"):
        trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)), max_steps=2, **options)
    trainer.train()  # no further warning: here it would be an error
    row = next(row for row in logs(trainer) if "loss" in row)
    assert "loss/group 0" not in row
    assert "rewards/margins/group 0" in row
    table = trainer.trajectory().table
    assert table["loss"].null_count == len(table) > 0
    assert table["margin"].null_count == 0


# evaluation ---------------------------------------------------------------------------------------------------------


def test_several_sets_are_told_apart_and_added_up(folder, tmp_path):
    near, far = pairs(6), pairs(5, seed=1)
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)), {"near": as_set(near), "far": as_set(far)})
    trainer.train()
    metrics = trainer.evaluate()
    shown = trainer.margins().to_pandas()
    parts = {name: shown[shown["set"] == f"eval_{name}"] for name in ("near", "far")}
    for name, part in parts.items():
        assert metrics[f"eval_{name}_rewards/margins"] == pytest.approx(part["margin"].mean(), abs=1e-12)
        assert metrics[f"eval_{name}_pairs"] == len(part)
        for group, inside in part.groupby("group"):
            assert metrics[f"eval_{name}_rewards/margins/{group}"] == pytest.approx(inside["margin"].mean(), abs=1e-12)
    both = shown[shown["split"] == "held_out"]
    for group, inside in both.groupby("group"):
        assert metrics[f"eval_rewards/margins/{group}"] == pytest.approx(inside["margin"].mean(), abs=1e-12)
        assert metrics[f"eval_pairs/{group}"] == len(inside)
    assert metrics["eval_loss"] == pytest.approx((6 * metrics["eval_near_loss"] + 5 * metrics["eval_far_loss"]) / 11)
    assert metrics["eval_loss"] == pytest.approx(np.log1p(np.exp(-both["margin"])).mean(), abs=1e-6)
    last = trainer.trajectory().where(split="held_out", step=5)
    assert sum(last["pairs"].to_pylist()) == 11


@pytest.mark.parametrize("several", [False, True])
def test_the_best_model_and_early_stopping_may_follow_one_group(several, folder, tmp_path):
    held_out = {"near": as_set(pairs(6)), "far": as_set(pairs(5, seed=1))} if several else as_set(pairs(6))
    trainer = make(
        plug_in(), folder, tmp_path, as_set(pairs(8)), held_out, metric_for_best_model="eval_rewards/margins/group 1",
        load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1,
        max_steps=12, save_total_limit=2, callbacks=[transformers.EarlyStoppingCallback(2, 100.0)],
    )  # fmt: skip
    trainer.train()
    measured = {
        row["step"]: row["eval_rewards/margins/group 1"]
        for row in logs(trainer)
        if "eval_rewards/margins/group 1" in row
    }
    assert trainer.state.best_metric == max(measured.values())
    assert measured[trainer.state.best_global_step] == trainer.state.best_metric
    # no step gains 100: patience of 2 ends it after the first evaluation and two more, each counted once
    assert trainer.state.global_step == 3


def test_a_set_of_your_own_is_measured_and_leaves_the_curve_alone(folder, tmp_path):
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)), as_set(pairs(6, seed=1)), max_steps=2)
    trainer.train()
    mine = trainer.evaluate(as_set(pairs(5, seed=2)), metric_key_prefix="test")
    assert sum(value for name, value in mine.items() if name.startswith("test_pairs/")) == 5
    assert trainer.trajectory().where(split="held_out").num_rows == 0
    for _ in range(2):  # the same step twice is measured twice and kept once
        trainer.evaluate()
    assert sum(trainer.trajectory().where(split="held_out", step=2)["pairs"].to_pylist()) == 6
    assert trainer.margins().to_pandas().groupby("set").size().to_dict() == {"eval": 6, "test": 5, "train": 8}
    found = trainer.predict(trainer.eval_dataset)
    assert "test_rewards/margins/group 0" in found.metrics
    assert len(trainer.margins()) == 19


# the Trajectory -----------------------------------------------------------------------------------------------------


def test_the_trajectory_is_one_like_all_others(folder, tmp_path):
    rows, held_out = pairs(14), pairs(6, seed=1)
    trainer = make(
        plug_in(), folder, tmp_path, as_set(rows), as_set(held_out), eval_strategy="steps", eval_steps=2, max_steps=8,
        logging_steps=4, eval_on_start=True, gradient_accumulation_steps=2, lr_scheduler_type="constant",
        weight_decay=0.1,
    )  # fmt: skip
    trainer.train()
    run = trainer.trajectory()
    assert run.table.schema == SCHEMA
    assert run.groups == ("group 0", "group 1", "group 2")
    assert sorted({row["step"] for row in run.rows() if row["split"] == "train"}) == [1, 5]  # middles of 0–3, 4–7
    assert sorted({row["step"] for row in run.rows() if row["split"] == "held_out"}) == [0, 2, 4, 6, 8]
    wanted = {
        "tune": "full", "objective": "sigmoid", "beta": BETA, "learning_rate": 1e-2, "optimizer": "adamw",
        "schedule": "constant", "warmup": 0, "steps": 8, "batch_size": 8, "accumulate": 2, "seed": 42,
        "weight_decay": 0.1, "precision": "float32", "reference": "start", "window": 4, "clip": 1.0,
    }  # fmt: skip
    assert {name: run.settings[name] for name in wanted} == wanted
    assert json.loads(json.dumps(run.settings)) == run.settings
    assert run.provenance.data["pairs"] == {"train": 14, "eval": 6}
    assert run.provenance.versions["trl"] == importlib.metadata.version("trl")
    shown = trainer.margins().to_pandas()
    table = run.table.to_pandas()
    for _, row in table.iterrows():
        steps = range(row["step"] - 1, row["step"] + 3) if row["split"] == "train" else [row["step"]]
        part = shown[(shown["split"] == row["split"]) & shown["step"].isin(steps) & (shown["group"] == row["group"])]
        assert row["pairs"] == len(part)
        assert row["margin"] == pytest.approx(part["margin"].mean(), abs=1e-12)
        assert row["reward_accuracy"] == (part["margin"] > 0).mean()
        assert row["loss"] == pytest.approx(DPO(beta=BETA).loss(part["margin"].to_numpy()).mean(), abs=1e-12)
        assert row["chosen_change"] == pytest.approx(part["chosen_change"].mean(), abs=1e-12)
        assert row["chosen_falling"] == (part["chosen_change"] < 0).mean()
        assert row["time"] == pytest.approx(1e-2 * row["step"])
    first = table[(table["split"] == "held_out") & (table["step"] == 0)]
    assert (first["reward_accuracy"] == 0).all()  # strictly above 0
    assert first["loss"].to_numpy() == pytest.approx(np.log(2))
    # log-probabilities are what they were at the start, plus their change
    later = table[(table["split"] == "held_out") & (table["step"] == 8)]
    moved = later["chosen_log_prob"].to_numpy() - first["chosen_log_prob"].to_numpy()
    assert moved == pytest.approx(later["chosen_change"].to_numpy(), abs=1e-5)

    saved = trainer.save_trajectory(tmp_path / "run")
    read = load_trajectory(saved)
    assert read.table.equals(run.table)
    assert dict(read.settings) == run.settings
    assert pq.read_table(saved / "margins.parquet").equals(trainer.margins())
    study = field_study(run=read)  # what `prefdyn field --run` does
    assert study.beta == BETA
    assert study.path is not None


def test_ipo_takes_margins_per_token_as_its_loss_does(folder, tmp_path):
    trainer = make(
        plug_in(), folder, tmp_path, as_set(pairs(8, groups=1)), as_set(pairs(6, seed=1, groups=1)), loss_type=["ipo"]
    )
    trainer.train()
    metrics = trainer.evaluate()
    row = trainer.trajectory().where(split="held_out").to_pylist()[-1]
    assert abs(row["margin"]) < abs(metrics["eval_rewards/margins/group 0"]) / 2
    assert row["loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)


def test_adapters_other_references_and_moving_ones_are_named(folder, tmp_path):
    adapters = make(plug_in(), folder, tmp_path, as_set(pairs(8)), peft_config=lora(), max_steps=1)
    assert adapters.trajectory().settings["tune"] == "lora"
    other = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    given = make(plug_in(), folder, tmp_path, as_set(pairs(8)), ref_model=other, max_steps=1)
    assert given.trajectory().settings["reference"] == "given"
    moving = make(
        plug_in(), folder, tmp_path, as_set(pairs(8)), sync_ref_model=True, ref_model_sync_steps=1, max_steps=2
    )
    moving.train()
    run = moving.trajectory()
    assert run.settings["reference"] == "moving"
    assert run.table["chosen_change"].null_count == len(run.table) > 0
    assert run.table["margin"].null_count == 0


def test_references_that_the_data_bring_are_used(folder, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for row in pairs(8):
        chosen, rejected = naive(model, tokenizer, row)
        rows.append(row | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected})
    trainer = make(
        plug_in(),
        folder,
        tmp_path,
        as_set(rows),
        as_set(rows),
        precompute_ref_log_probs=True,
        eval_on_start=True,
        max_steps=2,
        eval_strategy="epoch",
    )
    trainer.train()
    shown = trainer.margins().to_pylist()
    assert max(abs(row["margin"]) for row in shown if row["step"] == 0) < 1e-5
    assert max(abs(row["margin"]) for row in shown if row["step"] == 2) > 1e-3
    assert trainer.trajectory().settings["reference"] == "columns"
    from trl import DPOTrainer

    with pytest.raises(ValueError, match="duplicated columns"):  # control: what TRL does by itself
        make(DPOTrainer, folder, tmp_path, as_set(rows), precompute_ref_log_probs=True)


def test_a_resumed_run_goes_on_with_its_record(folder, tmp_path):
    def trainer(out: str, **options: Any) -> Any:
        return make(
            plug_in(), folder, tmp_path / out, as_set(pairs(14)), as_set(pairs(5, seed=1)), eval_strategy="steps",
            eval_steps=2, logging_steps=2, max_steps=8, **options,
        )  # fmt: skip

    whole = trainer("whole")
    whole.train()
    broken = trainer("broken", save_strategy="steps", save_steps=3)  # in the middle of a window
    broken.train()
    resumed = trainer("broken")
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
    assert resumed.trajectory().table.equals(whole.trajectory().table)
    assert resumed.margins().equals(whole.margins())
    groups = [
        [{name: row[name] for name in row if "/group" in name} for row in logs(each)] for each in (whole, resumed)
    ]
    assert groups[0] == groups[1]

    for file in (tmp_path / "broken" / "checkpoint-3").glob("prefdyn_*"):
        file.unlink()
    lost = trainer("broken")
    with pytest.warns(UserWarning, match="holds no record of groups"):
        lost.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
    assert len(lost.margins()) < len(whole.margins())


def test_a_second_run_of_one_trainer_starts_a_record_of_its_own(folder, tmp_path):
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)), as_set(pairs(5, seed=1)), max_steps=2)
    trainer.evaluate()
    trainer.train()
    assert sorted(set(trainer.margins()["step"].to_pylist())) == [0, 1]
    assert len(trainer.margins()) == 5 + 8  # what was measured before the first step belongs to the run
    trainer.train()
    assert len(trainer.margins()) == 8


# what comes in ------------------------------------------------------------------------------------------------------


def test_groups_may_be_codes_numbers_or_columns_of_another_name(folder, tmp_path):
    rows = [
        {name: value for name, value in row.items() if name != "group"} | {"topic": at % 2}
        for at, row in enumerate(pairs(8))
    ]
    named = as_set(rows).cast_column("topic", datasets.ClassLabel(names=["tea", "rain"]))
    trainer = make(plug_in(), folder, tmp_path, named, max_steps=2, group_column="topic")
    trainer.train()
    assert trainer.trajectory().groups == ("tea", "rain")
    trainer = make(plug_in(), folder, tmp_path, as_set(rows), max_steps=2, group_column="topic", id_column="prompt")
    trainer.train()
    assert trainer.trajectory().groups == ("0", "1")
    assert set(trainer.margins()["id"].to_pylist()) == {row["prompt"] for row in rows}


def test_pairs_without_names_are_numbered_as_in_your_data(folder, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "id"} for row in pairs(8)]
    rows[2]["prompt"] = " ".join(["rice"] * 60)
    trainer = make(plug_in(), folder, tmp_path, as_set(rows), max_steps=2, max_length=40)
    trainer.train()
    assert len(trainer.train_dataset) == 7  # TRL leaves out what is too long
    assert sorted(trainer.margins()["id"].to_pylist()) == [*"0134567"]


def test_an_evaluation_set_may_have_no_names_of_its_own(folder, tmp_path):
    bare = [{name: value for name, value in row.items() if name != "id"} for row in pairs(3, seed=1)]
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)), as_set(bare), max_steps=1)
    trainer.train()
    trainer.evaluate()
    shown = trainer.margins().to_pandas()
    assert sorted(shown[shown["set"] == "eval"]["id"]) == ["0", "1", "2"]
    assert shown[shown["set"] == "train"]["id"].str.startswith("pair-").all()


def test_data_that_stream(folder, tmp_path):
    stream = as_set(pairs(14)).to_iterable_dataset()
    trainer = make(
        plug_in(),
        folder,
        tmp_path,
        stream,
        as_set(pairs(6, seed=1)).to_iterable_dataset(),
        eval_strategy="steps",
        eval_steps=5,
    )
    trainer.train()
    shown = trainer.margins().to_pandas()
    assert shown.groupby("split").size().to_dict() == {"held_out": 6, "train": 18}
    assert set(shown["id"]) <= {row["id"] for row in pairs(14) + pairs(6, seed=1)}


def test_a_mixin_for_a_trainer_of_your_own(folder, tmp_path):
    from trl import DPOTrainer

    from prefdyn.training.trl import GroupMetrics

    class Doubled(DPOTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            assert TAGS not in inputs
            return 2 * super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    class Mine(GroupMetrics, Doubled):
        pass

    from trl import DPOConfig

    args = DPOConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Mine(str(folder), None, args, None, as_set(pairs(8)), keep_pairs=False)  # in TRL's order, unnamed
    trainer.train()
    row = next(row for row in logs(trainer) if "loss" in row)
    assert row["loss"] == pytest.approx(2 * row["loss/group 0"], rel=1e-6)  # the objective's, not a factor around it
    with pytest.raises(ConfigError, match="keep_pairs=True"):
        trainer.margins()
    assert trainer.trajectory().table.num_rows > 0


@pytest.mark.parametrize(
    ("options", "rows", "says"),
    [
        ({"group_column": "grup"}, pairs(4), "train_dataset has no column 'grup'; did you mean 'group'"),
        ({"id_column": "name"}, pairs(4), "no column 'name'.*id_column"),
        ({}, [*pairs(4), pairs(5)[4] | {"group": None}], "row 4 of train_dataset has no value in the column 'group'"),
    ],
)
def test_data_that_cannot_be_grouped_are_refused(options, rows, says, folder, tmp_path):
    with pytest.raises(DataError, match=says):
        make(plug_in(), folder, tmp_path, as_set(rows), **options)


def test_an_evaluation_set_without_groups_is_named(folder, tmp_path):
    bare = as_set([{name: row[name] for name in ("prompt", "chosen", "rejected", "id")} for row in pairs(4)])
    with pytest.raises(DataError, match=r"eval_dataset\['far'\] has no column 'group'"):
        make(plug_in(), folder, tmp_path, as_set(pairs(4)), {"near": as_set(pairs(4)), "far": bare})
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(4)))
    with pytest.raises(DataError, match="eval_dataset has no column 'group'"):
        trainer.evaluate(bare)


def test_a_collator_put_in_afterwards_is_noticed(folder, tmp_path):
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)))
    trainer.data_collator = trainer.data_collator.collate
    with pytest.raises(DataError, match="give your data_collator to the trainer when you make it"):
        trainer.train()


def test_what_splits_a_pair_is_refused(folder, tmp_path, monkeypatch):
    trainer = make(plug_in(), folder, tmp_path, as_set(pairs(8)))
    trainer._is_vision_dataset = True
    with pytest.raises(ConfigError, match="pictures"):
        trainer._refuse_what_splits_pairs()
    trainer._is_vision_dataset = False
    trainer._refuse_what_splits_pairs()
    layout = SimpleNamespace(tp_size=1, cp_size=2, sp_size=1)
    monkeypatch.setattr(type(trainer.accelerator), "parallelism_config", layout)
    with pytest.raises(ConfigError, match="cp_size is 2"):
        trainer._refuse_what_splits_pairs()


def test_a_forward_pass_that_is_not_seen_is_an_error():
    with pytest.raises(ModelError, match="1 forward passes"):
        pair_numbers([torch.zeros(2, 3)], {"completion_mask": torch.ones(2, 4)}, precomputed=False)


# parts --------------------------------------------------------------------------------------------------------------


def test_groups_by_hand():
    values = {
        "ref_chosen": 0.0,
        "ref_rejected": 0.0,
        "chosen_tokens": 2.0,
        "rejected_tokens": 1.0,
        "chosen_scored": 2.0,
    }
    scored = [
        {"step": 0, "row": 0, "id": "a", "group": "x", "chosen": -1.0, "rejected": -3.0, **values},
        {"step": 1, "row": 1, "id": "b", "group": "y", "chosen": 1.0, "rejected": 2.0, **values},
        {"step": 1, "row": 2, "id": "c", "group": "x", "chosen": 3.0, "rejected": 3.0, **values},
    ]
    table = pa.Table.from_pylist(scored, schema=SCORED)
    score = functools.partial(Score.of, loss_weights=[1.0], beta=0.5, label_smoothing=0.0)
    means = group_means(table, score(loss_types=["sigmoid"]))
    assert list(means) == ["x", "y"]
    assert means["x"]["pairs"] == 2
    assert means["x"]["margin"] == (0.5 * 2 + 0) / 2
    assert means["x"]["reward_accuracy"] == 0.5  # a margin of 0 is not above 0
    assert means["x"]["policy_accuracy"] == 0.5
    assert means["x"]["chosen_falling"] == 0.5
    assert means["y"]["loss"] == pytest.approx(np.log1p(np.exp(0.5)))
    assert group_means(table, score(loss_types=["sft"]))["x"]["loss"] == (1.0 - 3.0) / 4
    per_token = group_means(table, score(loss_types=["ipo"]))
    assert per_token["x"]["margin"] == 0.5 * ((-0.5 + 3) + (1.5 - 3)) / 2
    assert per_token["x"]["summed_margin"] == means["x"]["margin"]
    assert per_token["x"]["loss"] == pytest.approx(((2.5 - 1) ** 2 + (-1.5 - 1) ** 2) / 2)
    assert middle(table) == 0
    record = Record()
    record.add_pairs("held_out", "eval", table.slice(0, 1), score(loss_types=["sigmoid"]))
    record.add_pairs("held_out", "eval", table.slice(1, 1), score(loss_types=["sigmoid"]))
    record.add_pairs("held_out", "eval", table.slice(1, 1), score(loss_types=["sigmoid"]))
    assert record.margins()["id"].to_pylist() == ["a", "b"]


def test_length_desensitisation_by_hand():
    # prompt of 1 token; chosen 3 tokens, rejected 2: the third chosen token counts a quarter
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]])
    seen = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, 0.0]])
    batch = {"completion_mask": mask, "ref_chosen_logps": torch.zeros(1), "ref_rejected_logps": torch.ones(1)}
    found = pair_numbers([seen], batch, precomputed=True, ld_alpha=0.25)
    assert found[:, 0].tolist() == [-4.0, -24.0, 0.0, 1.0, 3.0, 2.0, 3.0]
    assert pair_numbers([seen], batch, precomputed=True)[0, 0] == -7.0


def test_names_of_arguments_that_come_unnamed():
    def plain(self: Any, model: Any, ref_model: Any = None, *, late: int = 0) -> None: ...

    def starred(self: Any, *args: Any, **rest: Any) -> None: ...

    assert parameter_names(plain, starred, 2) == ["model", "ref_model"]
    assert parameter_names(starred, plain, 1) == ["model"]
    with pytest.raises(TypeError, match="no 3 positional"):
        parameter_names(starred, plain, 3)


# weights -------------------------------------------------------------------------------------------------------------


def after(trainer: Any) -> torch.Tensor:
    """All weights of a model, in a row, once it is trained."""
    trainer.train()
    return torch.cat([each.detach().flatten().double() for each in trainer.model.parameters()])


PLAIN = {"optim": "sgd", "lr_scheduler_type": "constant", "max_steps": 3, "learning_rate": 0.5, "max_grad_norm": 0.0}


@pytest.mark.filterwarnings("ignore:losses per group are left out")
@pytest.mark.parametrize("losses", [["sigmoid"], ["ipo"], ["apo_zero"]])
def test_a_weight_of_two_is_a_pair_twice(losses, folder, tmp_path):
    """Up to float32: batches of 4 weighted rows against 7 rows, of which some are the same."""
    rows = pairs(4)
    weighted = [row | {"weight": weight} for row, weight in zip(rows, (4.0, 2.0, 6.0, 2.0), strict=True)]
    repeated = [row for row, count in zip(rows, (2, 1, 3, 1), strict=True) for _ in range(count)]
    options = PLAIN | {"loss_type": losses}
    start = after(make(plug_in(), folder, tmp_path / "a", as_set(rows), **(options | {"learning_rate": 0.0})))
    plain, ours, twice = (
        after(
            make(
                plug_in(),
                folder,
                tmp_path / str(len(each)),
                as_set(each),
                per_device_train_batch_size=len(each),
                **options,
            )
        )
        for each in (rows, weighted, repeated)
    )
    assert (ours - twice).norm() < 1e-4 * (twice - start).norm()
    assert (ours - plain).norm() > 0.05 * (twice - start).norm()  # control: they do count


def test_weights_are_of_the_whole_update(folder, tmp_path):
    """Five rows in batches of 2, 2 and 1 count as five in one batch: TRL's own mean of means would not."""
    rows = [row | {"weight": 1.0 + at} for at, row in enumerate(pairs(5))]
    parts = PLAIN | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "max_steps": 2}
    whole = PLAIN | {"per_device_train_batch_size": 5, "max_steps": 2}
    start = after(make(plug_in(), folder, tmp_path / "a", as_set(rows), **(whole | {"learning_rate": 0.0})))
    one = make(plug_in(), folder, tmp_path / "b", as_set(rows), **whole)
    several = make(plug_in(), folder, tmp_path / "c", as_set(rows), **parts)
    first, second = after(one), after(several)
    assert (first - second).norm() < 1e-4 * (first - start).norm()
    for trainer in (one, several):
        told, scored = logs(trainer), trainer.margins().to_pandas()
        weight = {f"pair-0-{at}": 1.0 + at for at in range(5)}
        for step in (0, 1):
            part = scored[scored["step"] == step]
            losses = -np.log(1 / (1 + np.exp(-part["margin"].to_numpy())))
            mean = np.average(losses, weights=[weight[name] for name in part["id"]])
            assert told[step]["weighted_loss"] == pytest.approx(mean, abs=1e-6)


def test_factors_of_groups_and_a_column_multiply(folder, tmp_path):
    rows = pairs(5)
    factors = {"group 0": 2.0, "group 2": 3.0}
    column = [row | {"weight": 0.5 * factors.get(row["group"], 1.0)} for row in rows]
    options = PLAIN | {"per_device_train_batch_size": 5, "max_steps": 1}
    by_column = after(make(plug_in(), folder, tmp_path / "a", as_set(column), **options))
    trainer = make(plug_in(), folder, tmp_path / "b", as_set([row | {"weight": 0.5} for row in rows]),
                   group_weights=factors, **options)  # fmt: skip
    assert torch.equal(by_column, after(trainer))
    assert trainer.trajectory().settings["group_weights"] == factors
    assert trainer.trajectory().settings["weighting"] == "loss"


def test_equal_weights_keep_the_bytes(folder, tmp_path):
    rows = pairs(6)
    plain = make(plug_in(), folder, tmp_path / "a", as_set(rows))
    equal = make(plug_in(), folder, tmp_path / "b", as_set([row | {"weight": 2.0} for row in rows]),
                 group_weights=dict.fromkeys(["group 0", "group 1", "group 2"], 3.0))  # fmt: skip
    plain.train()
    equal.train()
    assert weights(plain) == weights(equal)
    assert not any("weighted_loss" in row for row in logs(equal))


def test_batches_are_drawn_by_weight(folder, tmp_path):
    rows = [row | {"weight": 1e-9 if at % 5 else 1.0} for at, row in enumerate(pairs(20))]
    trainer = make(plug_in(), folder, tmp_path, as_set(rows), weighting="sampling", save_strategy="steps", save_steps=3,
                   max_steps=6)  # fmt: skip
    trainer.train()
    drawn = trainer.margins().to_pandas()
    assert set(drawn["group"]) == {"group 0"}
    assert len(set(drawn["id"])) == 4
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    again = trainer.margins().to_pandas()
    assert again["id"].tolist() == drawn["id"].tolist()


def test_rows_are_drawn_in_proportion():
    from prefdyn.training.trl_weights import WeightedSampler

    sampler = WeightedSampler(np.repeat([1.0, 3.0], 2000), seed=0)
    first = list(sampler)
    assert np.mean(np.array(first) >= 2000) == pytest.approx(0.75, abs=0.03)  # 4 standard errors
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"group_weights": {"grop 1": 2}}, ConfigError, "'grop 1', which is no group; did you mean 'group 1'"),
        ({"group_weights": {"group 1": 0}}, ConfigError, r"group_weights\['group 1'\] is 0; give a number above 0"),
        ({"weight_column": "wieght"}, DataError, "no column 'wieght'; did you mean 'weight'"),
        ({"weight_column": "odd"}, DataError, "row 1 of train_dataset has -1.0 in the column 'odd'"),
        ({"weighting": "both", "group_weights": {"group 1": 2}}, ConfigError, "weighting 'both' is unknown"),
        ({"group_weights": {"group 1": 2}, "loss_type": ["aot"]}, ConfigError, "'aot' sorts the pairs of a batch"),
    ],
)
def test_weights_that_make_no_sense_are_refused(options, kind, says, folder, tmp_path):
    rows = [row | {"weight": 1.0 + at, "odd": 1.0 - 2 * at} for at, row in enumerate(pairs(5))]
    with pytest.raises(kind, match=says):
        make(plug_in(), folder, tmp_path, as_set(rows), **options)


# several processes ---------------------------------------------------------------------------------------------------


def ranked(start: list[str], folder: Path, out: Path, per_process: int, way: str) -> dict[str, Any]:
    """What a run on several processes wrote."""
    out.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "CI": "1"}
    script = REPO / "tests" / "training" / "trl_run.py"
    done = subprocess.run(
        [sys.executable, *start, str(script), str(folder), str(out), str(per_process), way],
        cwd=out, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = {name: load_trajectory(out / name) for name in ("run", "resumed")}
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("step-*.json"))]
    shown = [json.loads(path.read_text()) for path in sorted(out.glob("logs-*.json"))]
    return {
        "runs": runs,
        "rows": rows,
        "logs": shown,
        "margins": pq.read_table(out / "run" / "margins.parquet").to_pandas(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", RANKED)
def test_two_processes_show_what_one_shows(way, folder, tmp_path):
    one = ranked([], folder, tmp_path / "one", 4, way)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--nnodes=1", "--standalone"]
    two = ranked(launcher, folder, tmp_path / "two", 2, way)
    assert len(two["rows"]) == 2
    assert two["rows"][0] == two["rows"][1]  # every process knows the same
    ours = [[{name: row[name] for name in row if "/group" in name} for row in each] for each in two["logs"]]
    assert ours[0] == ours[1]
    assert sum(map(bool, ours[0])) == 3 + 3 * 3
    for run in ("run", "resumed"):
        left, right = (each["runs"][run].table.to_pandas() for each in (one, two))
        for name in ("step", "group", "split", "pairs"):
            assert left[name].tolist() == right[name].tolist()
        for name in ("loss", "margin", "chosen_log_prob", "rejected_change", "reward_accuracy"):
            assert left[name].to_numpy() == pytest.approx(right[name].to_numpy(), abs=1e-4), name
    assert one["runs"]["run"].table.equals(one["runs"]["resumed"].table)
    assert two["runs"]["run"].table.equals(two["runs"]["resumed"].table)
    assert dict(two["runs"]["run"].settings) == dict(one["runs"]["run"].settings)
    # every pair of the uneven sets once, though two processes repeat some to fill their last batch
    held_out = two["margins"][two["margins"]["split"] == "held_out"]
    assert (held_out.groupby(["step", "set"])["id"].nunique() == held_out.groupby(["step", "set"]).size()).all()
    assert sorted(held_out.groupby(["step", "set"]).size().unique()) == [3, 11]
    # control: TRL's own figure of the uneven set, which counts the repeats
    last = next(row for row in reversed(two["logs"][0]) if "eval_near_loss" in row)
    assert last["eval_rewards/margins"] != pytest.approx(last["eval_near_rewards/margins"], abs=1e-3)


# which TRL ----------------------------------------------------------------------------------------------------------


def test_no_trl_says_what_to_install(monkeypatch):
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'trl>=1"):
        trl_versions.require_trl()


@pytest.mark.parametrize("version", ["0.28.0", "1.14.2", "1.17.0", "1.17.0.dev0", "2.0.0", "strange"])
def test_another_trl_is_refused_with_those_that_work(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(
        MissingExtra, match=rf"TRL {version} is installed, but the plug-in works with 1\.15 and 1\.16 alone"
    ):
        trl_versions.require_trl()


def test_a_trl_that_lacks_what_is_read_is_refused(monkeypatch):
    import trl.trainer.utils as utils

    assert trl_versions.require_trl().__name__ == "DPOTrainer"
    with monkeypatch.context() as patch:
        patch.delattr(utils, "FusedCausalLMOutput")
        with pytest.raises(MissingExtra, match="lacks log_probs"):
            trl_versions.require_trl()
    import trl

    monkeypatch.delattr(trl.DPOTrainer, "_precompute_ref_logps")
    with pytest.raises(MissingExtra, match=r"lacks DPOTrainer\._precompute_ref_logps"):
        trl_versions.require_trl()


def test_importing_prefdyn_imports_no_trl():
    code = "import prefdyn, prefdyn.training, sys; sys.exit('trl' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0


# held against a forecast ----------------------------------------------------------------------------------------------


def _words(count: int, *, seed: int, flip: str | None = None) -> list[dict[str, str]]:
    """Pairs of three groups with words of their own to learn; of one of them, labels may be turned round."""
    words = {"a": (" good", " bad"), "b": (" north", " south"), "c": (" black", " white")}
    found = []
    for at, text in enumerate(statements(count, seed=seed)):
        group = "abc"[at % 3]
        chosen, rejected = words[group][::-1] if group == flip else words[group]
        row = {"prompt": text, "chosen": chosen, "rejected": rejected, "group": group, "id": f"{seed}-{at}"}
        found.append(row)
    return found


def _watched(folder: Path, out: Path, seed: int, **options: Any) -> tuple[Any, list[str]]:
    """A short run that is measured every two steps, and what it warned of its groups."""
    flip = options.pop("flip", None)
    trainer = make(
        plug_in(), folder, out, as_set(_words(48, seed=1, flip=flip)), as_set(_words(24, seed=2)), seed=seed,
        eval_on_start=True, eval_strategy="steps", eval_steps=2, learning_rate=1e-3, max_steps=20, **options,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.train()
    return trainer, [str(each.message) for each in seen if "Watch: " in str(each.message)]


@pytest.fixture(scope="module")
def foretold(folder, tmp_path_factory) -> Path:
    """A forecast made of three honest runs with other seeds, as rehearsals are."""
    root = tmp_path_factory.mktemp("watch")
    os.environ.setdefault("CI", "1")
    losses = []
    for seed in (1, 2, 3):
        run = _watched(folder, root / str(seed), seed)[0].trajectory()
        losses.append(np.stack([run.curve("loss", group=name, split="held_out")[1] for name in "abc"], axis=1))
    levels = levels_to(losses[0][0].mean(), max(progress(each)[-1] for each in losses))
    runs = np.stack([at_levels(progress(each), each, levels) for each in losses])
    band = combined(levels, None, np.full(len(levels), np.nan), runs)
    assert band.vouched.any()
    part = {
        "names": list("abc"), "levels": levels, "centre": band.centre, "error": band.error, "scale": band.scale,
        "freedom": band.freedom, "linear_weight": band.linear, "between_seeds": spread_of_seeds(runs),
    }  # fmt: skip
    groups = [{"name": name, "held_out_pairs": 8} for name in "abc"]
    write_json(root / "summary.json", plain({"command": "forecast", "groups": groups, "forecast": part}))
    return root


def test_a_watched_run_tells_of_a_group_whose_labels_are_turned_round(folder, foretold, tmp_path):
    _, told = _watched(folder, tmp_path, 4, watch=foretold, flip="b")
    assert any("group 'b' is out of its band" in line for line in told), told


def test_an_honest_watched_run_is_silent_and_keeps_its_bytes(folder, foretold, tmp_path):
    watched, told = _watched(folder, tmp_path, 4, watch=foretold)
    assert told == []
    assert weights(watched) == weights(_watched(folder, tmp_path, 4)[0])


def test_other_held_out_pairs_than_foretold_are_told(folder, foretold, tmp_path):
    trainer = make(plug_in(), folder, tmp_path, as_set(_words(12, seed=1)), as_set(_words(9, seed=2)), watch=foretold)
    with pytest.warns(UserWarning, match="group 'a' has 3 held-out pairs here and 8 in the forecast"):
        trainer.evaluate()


def test_what_cannot_be_watched_is_refused(folder, foretold, tmp_path):
    given = as_set(_words(6, seed=1))
    with pytest.raises(ConfigError, match=r"holds no summary.json"):
        make(plug_in(), folder, tmp_path, given, watch=tmp_path)
    with pytest.warns(UserWarning, match="losses per group"), pytest.raises(ConfigError, match="apo_zero"):
        make(plug_in(), folder, tmp_path, given, watch=foretold, loss_type=["apo_zero"])
    (tmp_path / "summary.json").write_text('{"command": "forecast", "forecast": {"levels": [1]}}')
    with pytest.raises(StoreError, match="is not whole"):
        make(plug_in(), folder, tmp_path, given, watch=tmp_path)
    (tmp_path / "summary.json").write_text('{"command": "audit"}')
    with pytest.raises(ConfigError, match="is no folder that `prefdyn forecast` wrote"):
        make(plug_in(), folder, tmp_path, given, watch=tmp_path)
