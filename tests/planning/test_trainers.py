"""What is written for other trainers: by their documented forms, by our own readers of those forms, and by counting.

The schemas follow the projects' documentation: LLaMA-Factory data/README.md (sharegpt, preference dataset) and
examples/train_lora; ms-swift Customization/Custom-dataset and Instruction/RLHF; axolotl docs/rlhf.
"""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.data.loaders import load_dataset
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import DPO, objective
from prefdyn.planning.trainers import TRAINERS, check_trainers, copies, write_for


def said(role, text):
    return {"role": role, "content": text}


TALKS = [
    {"id": f"t{at}", "group": "a" if at < 3 else "b", "weight": 1.0 if at < 3 else 3.0,
     "prompt": [said("system", "Short."), said("user", f"Q{at}"), said("assistant", "?"), said("user", "Well?")],
     "chosen": [said("assistant", f"Yes {{{at}}}.")], "rejected": [said("assistant", f"No {at}.")]}
    for at in range(6)
]  # fmt: skip
PLAIN = [{"id": f"p{at}", "group": "all", "prompt": f"Q{at}:", "chosen": " yes", "rejected": " no"} for at in range(4)]

_TURN = {"type": "object", "required": ["from", "value"], "additionalProperties": False,
         "properties": {"from": {"enum": ["human", "gpt", "system"]}, "value": {"type": "string"}}}  # fmt: skip
_ROLE = {"enum": ["user", "assistant", "system"]}
_MESSAGE = {"type": "object", "required": ["role", "content"], "additionalProperties": False,
            "properties": {"role": _ROLE, "content": {"type": "string"}}}  # fmt: skip
_TEXT, _RATE = {"type": "string"}, {"type": "number", "exclusiveMinimum": 0}


def rows_of(**properties):
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


ROWS = {
    ("llama-factory", True): rows_of(conversations={"type": "array", "items": _TURN}, chosen=_TURN, rejected=_TURN),
    ("ms-swift", True): rows_of(messages={"type": "array", "items": _MESSAGE}, rejected_response=_TEXT),
    ("axolotl", True): rows_of(messages={"type": "array", "items": _MESSAGE}, chosen=_MESSAGE, rejected=_MESSAGE),
    ("axolotl", False): rows_of(prompt=_TEXT, chosen=_TEXT, rejected=_TEXT),
}
ROWS |= {(name, False): ROWS[name, True] for name in ("llama-factory", "ms-swift")}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-factory": {
        "required": ["model_name_or_path", "stage", "do_train", "dataset", "dataset_dir", "output_dir", "pref_beta"],
        "properties": {"stage": {"const": "dpo"}, "pref_loss": {"enum": ["sigmoid", "hinge", "ipo", "orpo", "simpo"]},
                       "finetuning_type": {"const": "lora"}, "num_train_epochs": _RATE, "learning_rate": _RATE},
    },
    "ms-swift": {
        "required": ["rlhf_type", "model", "dataset", "beta", "output_dir"],
        "properties": {"rlhf_type": {"const": "dpo"}, "loss_type": _TEXT, "tuner_type": {"const": "lora"},
                       "use_chat_template": {"type": "boolean"}, "num_train_epochs": _RATE},
    },
    "axolotl": {
        "required": ["base_model", "rl", "datasets", "sequence_len", "output_dir"],
        "properties": {"rl": {"enum": ["dpo", "ipo"]}, "dpo_loss_type": {"type": "array", "minItems": 1},
                       "num_epochs": _RATE, "datasets": {"type": "array", "items": {"required": ["path", "type"]}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("talks", [True, False])
@pytest.mark.parametrize("name", TRAINERS)
def test_rows_and_configurations_have_the_documented_form(tmp_path, name, talks):
    data = load_dataset(TALKS if talks else PLAIN)
    commands = write_for(tmp_path, [name], data, DPO(beta=0.2), model="me/m", final=tmp_path / "plan", seed=3)
    place = tmp_path / name
    rows = [json.loads(line) for line in (place / "dataset.jsonl").read_text().splitlines()]
    for row in rows:
        jsonschema.validate(row, ROWS[name, talks])
    config = yaml.safe_load((place / "dpo.yaml").read_text())
    jsonschema.validate(config, CONFIGS[name])
    assert commands[name] == f"{TRAINERS[name].command} {tmp_path / 'plan' / name}/dpo.yaml"
    assert "me/m" in config.values()
    assert 0.2 in config.values()
    epochs = config.get("num_train_epochs", config.get("num_epochs"))
    assert epochs * len(rows) == pytest.approx(len(data), rel=1e-3)
    if name == "llama-factory":
        info = json.loads((place / "dataset_info.json").read_text())[config["dataset"]]
        assert (info["ranking"], info["formatting"]) == (True, "sharegpt")
        assert (place / info["file_name"]).exists()
        assert set(info["columns"].values()) == set(rows[0])
        assert config.get("template") == (None if talks else "empty")


@pytest.mark.parametrize("name", TRAINERS)
def test_our_own_reader_of_the_form_gives_the_pairs_back(tmp_path, name):
    data = load_dataset(TALKS)
    write_for(tmp_path, [name], data, DPO(beta=0.1), model="m")
    again = load_dataset(tmp_path / name / "dataset.jsonl")
    assert again.left_out == ()
    want = Counter(json.dumps(row["conversation"], sort_keys=True) for row in data.to_rows())
    got = Counter(json.dumps(row["conversation"], sort_keys=True) for row in again.to_rows())
    assert set(got) == set(want)
    counts = {json.dumps(row["conversation"], sort_keys=True): row["group"] for row in data.to_rows()}
    by_group = Counter(counts[text] for text in got.elements())
    assert by_group["b"] == 3 * by_group["a"]


def test_copies_stand_for_the_weights():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(2, 80))
        group = [f"g{each}" for each in rng.integers(0, 4, n)]
        by_group = {name: float(rng.uniform(0.02, 5)) for name in set(group)}
        weight = np.array([by_group[name] for name in group]) * rng.choice([1.0, 0.5], n)
        found = copies(weight, group)
        share = weight / weight.mean()
        scale = np.clip(1 / share.min(), 1, 4)
        assert found.min() >= 0
        assert (np.abs(found - share * scale) < 1 + 1e-9).all()
        for name in set(group):
            inside = np.array([each == name for each in group])
            assert abs(found[inside].sum() - scale * share[inside].sum()) <= 0.5 + 1e-9
    assert copies(np.ones(7), ["a"] * 7).tolist() == [1] * 7
    assert (copies(np.array([1.0, 4.0, 4.0]), ["a", "b", "b"]) == [1, 4, 4]).all()


def test_held_out_pairs_are_not_trained_on(tmp_path):
    rows = [{**row, "split": "train" if at else "test"} for at, row in enumerate(PLAIN)]
    write_for(tmp_path, ["axolotl"], load_dataset(rows), DPO(beta=0.1), model="m")
    text = (tmp_path / "axolotl" / "dataset.jsonl").read_text()
    assert "Q0" not in text
    assert text.count("\n") == 3


ODD = {
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    "reasoning": ({"chosen": [{**said("assistant", "Yes"), "reasoning_content": "Hm."}]}, "more than a role"),
    "two turns": ({"chosen": [said("assistant", "Yes"), said("user", "?"), said("assistant", "Yes.")]}, "one message"),
}


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("odd", ODD)
def test_what_has_no_room_is_refused_with_its_count_and_place(tmp_path, name, odd):
    change, says = ODD[odd]
    with pytest.raises(DataError, match=rf"1 .*{says}.*t2"):
        write_for(tmp_path, [name], load_dataset([*TALKS[:2], {**TALKS[2], **change}]), DPO(beta=0.1), model="m")
    assert not (tmp_path / name / "dataset.jsonl").exists()


def test_only_one_trainer_minds_the_order_of_speakers(tmp_path):
    twice = {**TALKS[0], "prompt": [said("user", "One."), said("user", "Two.")]}
    data = load_dataset([twice, *TALKS[1:]])
    write_for(tmp_path, ["ms-swift", "axolotl"], data, DPO(beta=0.1), model="m")
    with pytest.raises(DataError, match="in turn"):
        write_for(tmp_path, ["llama-factory"], data, DPO(beta=0.1), model="m")


def test_what_cannot_be_written_is_refused_first(tmp_path):
    with pytest.raises(ConfigError, match="llama-factory"):
        check_trainers(["llama-factry"])
    with pytest.raises(ConfigError, match="needs a model that others can load"):
        check_trainers(["axolotl"], model="builtin")
    with pytest.raises(ConfigError, match="it has no loss 'robust'"):
        check_trainers(["llama-factory"], objective("robust", beta=0.1, label_smoothing=0.1))
    check_trainers(["ms-swift"], objective("robust", beta=0.1, label_smoothing=0.1))
    mixed = load_dataset([PLAIN[0], TALKS[0]])
    with pytest.raises(DataError, match="plan for them one at a time"):
        write_for(tmp_path, ["ms-swift"], mixed, DPO(beta=0.1), model="m")


def test_loss_and_smoothing_go_into_every_configuration(tmp_path):
    data = load_dataset(PLAIN)
    write_for(tmp_path, list(TRAINERS), data, replace(DPO(beta=0.1), label_smoothing=0.2), model="m", tokens=512)
    held = {name: yaml.safe_load((tmp_path / name / "dpo.yaml").read_text()) for name in TRAINERS}
    assert held["llama-factory"]["dpo_label_smoothing"] == 0.2
    assert held["ms-swift"]["label_smoothing"] == 0.2
    assert held["axolotl"]["dpo_label_smoothing"] == 0.2
    assert [held[name][key] for name, key in (("llama-factory", "cutoff_len"), ("ms-swift", "max_length"),
                                              ("axolotl", "sequence_len"))] == [512] * 3  # fmt: skip


def test_the_builtin_model_is_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "plan"
    result = CliRunner().invoke(app, ["plan", "weights", "--out", str(out), "--write-for", "axolotl"])
    assert isinstance(result.exception, ConfigError)
    assert "builtin is known here alone" in str(result.exception)
    assert not out.exists()
    result = CliRunner().invoke(app, ["plan", "data", "--out", str(out), "--write-for", "axolotl"])
    assert "is for `prefdyn plan weights`" in str(result.exception)
