"""The stored published choices are those of the papers and their code, value by value (THEORY 2.7, 3.11)."""

import json
import random
from pathlib import Path

import pytest

from prefdyn.experiments.published import (
    BETAS,
    FIVE,
    MISALIGNED,
    MODELS,
    PERSONAS,
    PICTURED,
    PRIORITY_PAIRS,
    ROWS_TRAINED,
    SEED,
    SETTINGS,
    UMAP,
    VALUE_SETS,
    VALUES,
    persona,
)
from tests.conftest import REPO, SHARED

THEORY = REPO.parent / "shared" / "THEORY.md"
NAMES = SHARED / "persona" / "names_in_published_order.json"

FULL = {
    "tune": "full", "objective": "sigmoid", "optimizer": "adamw", "batch_size": 4 * 32, "epochs": 1.0,
    "scheme": "epochs",
    "schedule": "constant", "warmup": 0, "clip": 1.0, "template": "question+newline",
}  # fmt: skip
"""Fine-tuning of 2403.18742: constant schedule, 0 warm-up, 1 epoch, 4 GPUs x 32."""
VALUES_FULL = {**{name: value for name, value in FULL.items() if name != "epochs"}, "steps": 60}
"""Fine-tuning of 2408.03459: the same for 60 steps."""
EXPECTED = {
    "last-layer": {
        "tune": "last-layer", "objective": "sigmoid", "beta": 0.01, "optimizer": "sgd", "learning_rate": 1e-1,
        "steps": 100, "batch_size": 128, "scheme": "replacement", "schedule": "constant", "warmup": 0,
        "template": "question",
    },
    "full": {**FULL, "beta": 0.01, "learning_rate": 1e-5},
    "full-beta-0.001": {**FULL, "beta": 0.001, "learning_rate": 1e-5},
    "full-beta-0.1": {**FULL, "beta": 0.1, "learning_rate": 1e-5},
    "full-beta-1": {**FULL, "beta": 1.0, "learning_rate": 1e-6},
    "full-other": {**FULL, "beta": 0.01, "learning_rate": 1e-6},
    "full-long": {**FULL, "beta": 0.01, "learning_rate": 1e-5},
    "full-long-other": {**FULL, "beta": 0.01, "learning_rate": 1e-6},
    "lora-hh": {
        **FULL, "tune": "lora", "beta": 0.01, "learning_rate": 1e-5, "template": "question", "lora_rank": 8,
        "lora_alpha": 32.0, "lora_dropout": 0.05, "lora_targets": ["q_proj", "v_proj"],
    },
    "values-last-layer": {
        "tune": "last-layer", "objective": "sigmoid", "beta": 0.01, "optimizer": "adam", "learning_rate": 1e-3,
        "steps": 100, "batch_size": "full", "scheme": "epochs", "schedule": "constant", "warmup": 0,
        "template": "question",
    },
    "values-full": {**VALUES_FULL, "beta": 0.01, "learning_rate": 1e-5},
    "values-full-llama-2": {**VALUES_FULL, "beta": 0.01, "learning_rate": 1e-5},
    "values-full-mistral": {**VALUES_FULL, "beta": 0.01, "learning_rate": 10**-6.5},
    "values-full-qwen": {**VALUES_FULL, "beta": 0.01, "learning_rate": 10**-6.5},
    "sft-start": {**FULL, "objective": "sft", "beta": 0.01, "learning_rate": 1e-5},
    "dpo-after": {**FULL, "beta": 0.1, "learning_rate": 1e-5},
}  # fmt: skip
OF_MODELS = {
    "last-layer": "llama-2", "full": "llama-2", "full-beta-0.001": "llama-2", "full-beta-0.1": "llama-2",
    "full-beta-1": "llama-2", "full-other": "mistral", "full-long": "llama-2", "full-long-other": "mistral",
    "lora-hh": "llama-2", "values-last-layer": "llama-3.1",
    "values-full": "llama-3.1", "values-full-llama-2": "llama-2", "values-full-mistral": "mistral-v0.3",
    "values-full-qwen": "qwen-3", "sft-start": "llama-2", "dpo-after": "llama-2",
}  # fmt: skip


@pytest.mark.parametrize("name", list(EXPECTED))
def test_settings_are_those_published(name):
    assert SETTINGS[name].setup.to_json() == EXPECTED[name]
    assert SETTINGS[name].model == OF_MODELS[name]


def test_the_table_is_whole():
    assert set(SETTINGS) == set(EXPECTED)
    assert all(found.source for found in SETTINGS.values())


def test_persona_sets_are_what_the_published_seed_draws():
    """`random.seed(1234)`, then `random.sample(range(135), k)` for k = 1, 2, 4, 8, 16 in turn."""
    rng = random.Random(SEED)
    assert {k: tuple(rng.sample(range(135), k)) for k in VALUES} == dict(VALUE_SETS)
    assert (SEED, VALUES) == (1234, (1, 2, 4, 8, 16))


def test_figures_use_the_published_personas():
    assert FIVE == (108, 84, 88, 54, 100)
    assert dict(PRIORITY_PAIRS) == {
        "large gap": (0, 96), "small gap": (51, 104), "mistral, large gap": (123, 45), "mistral, small gap": (66, 45),
    }  # fmt: skip
    assert dict(MISALIGNED) == {"llama-2": (108, 100), "mistral": (108, 130)}
    assert PICTURED["14"] == (130,)
    assert [PICTURED[str(number)] for number in (23, 24, 25, 26)] == [(84,), (88,), (54,), (100,)]
    assert all(PICTURED[number] == (108,) for number in ("08", "13", "20", "21", "22"))
    assert persona(123) == "willingness-to-be-non-HHH-to-not-have-current-goals-changed-by-training"
    published = ((0.001, 0.01, 0.1, 1.0), int(0.9 * 1000))
    assert published == (BETAS, ROWS_TRAINED)
    assert UMAP == {
        "random_state": 1234, "n_neighbors": 15, "min_dist": 0.1, "metric": "euclidean", "n_components": 2,
    }  # fmt: skip


def test_every_persona_that_is_used_has_a_name_and_no_other():
    used = {
        *FIVE, *(place for pair in (*PRIORITY_PAIRS.values(), *MISALIGNED.values()) for place in pair),
        *(place for places in (*VALUE_SETS.values(), *PICTURED.values()) for place in places),
    }  # fmt: skip
    assert used <= set(PERSONAS)
    extra = set(PERSONAS) - used
    assert extra == set()
    names = [PERSONAS[place] for place in sorted(PERSONAS)]
    assert names == sorted(names)  # lexicographic, upper case first


@pytest.mark.skipif(not NAMES.is_file(), reason="the list of all 135 names is absent")
def test_names_stand_at_their_places_in_the_published_list():
    listed = json.loads(NAMES.read_text())
    assert len(listed) == 135
    assert {place: listed[place] for place in PERSONAS} == dict(PERSONAS)


def test_models_have_the_sizes_that_their_weights_add_up_to():
    """Embeddings, head, attention, feed-forward and norms; Qwen3 also has norms of queries and keys."""
    for name, model in MODELS.items():
        block = 2 * model.hidden * (model.query + model.key) + 3 * model.hidden * model.intermediate + 2 * model.hidden
        block += 2 * 128 if name == "qwen-3" else 0
        total = 2 * model.vocabulary * model.hidden + model.layers * block + model.hidden
        assert total == model.parameters, name


@pytest.mark.skipif(not Path(THEORY).is_file(), reason="the specification with the papers' settings is absent")
def test_the_specification_says_the_same():
    text = " ".join(THEORY.read_text(encoding="utf-8").split())
    for told in (
        "AdamW lr 1e-5, constant schedule, 0 warm-up, beta .01, 1 epoch, 4 GPUs x 32 = batch 128",
        "SGD lr 10^-1 (log tag l1.02.0s; the script default is 1e-5), beta .01, batch 128 drawn afresh each step",
        "Mistral-7B FFT loss, 5 behaviours (list not given) | lr 1e-6, beta .01",
        "LoRA r=8 alpha=32 dropout .05 on q,v; AdamW 1e-5, beta .01, 1 epoch",
        "Fig 6 at beta .001, .1, 1 (lr 1e-6 for beta=1)",
        "**Adam** lr 1e-3, beta .01, **full batch**, 100 steps",
        "AdamW, constant lr, no warm-up, 60 steps, 4 x 32 = 128 per step",
        "lr: paper 1e-5 Llama, 10^-6.5 Qwen/Mistral",
        "K=1 [112]; 2 [29,1]; 4 [23,8,21,25]; 8 [90,60,4,7,88,123,118,38]; 16 "
        "[23,46,29,3,128,124,63,16,119,17,22,131,11,69,77,123]",
        "n_neighbors 15, min_dist .1, euclidean, 2-D",
    ):
        assert told in text, told
