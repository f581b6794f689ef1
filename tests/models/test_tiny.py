"""The built-in model loads as any other, without network or warnings, and understands more than its untrained twin."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdyn.data.builtin import BEHAVIOURS, NO, QUESTION, YES, builtin_rows
from tests.conftest import REPO

TINY = REPO / "src" / "prefdyn" / "models" / "tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(TINY, local_files_only=True).eval()


@pytest.mark.thorough
def test_it_loads_without_a_warning_in_a_fresh_process_that_may_not_use_the_network():
    code = (
        "import sys, warnings; warnings.simplefilter('error');"
        "from transformers import AutoModelForCausalLM, AutoTokenizer;"
        "AutoTokenizer.from_pretrained(sys.argv[1]); AutoModelForCausalLM.from_pretrained(sys.argv[1])"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(TINY)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "arn" not in done.stderr, done.stderr


def test_it_is_a_small_llama_in_float32_with_finite_weights(model):
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings == 512
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 4_000_000


def test_both_answers_are_single_tokens_after_a_prompt_and_alone(tokenizer):
    prompt = QUESTION.format(statement="I often greet the driver.")
    ids = tokenizer(prompt)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    for answer in (YES, NO):
        longer = tokenizer(prompt + answer)["input_ids"]
        assert longer[:-1] == ids
        assert tokenizer.decode(longer[-1:]) == answer
    for word in ("Yes", "No"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_any_text_survives_the_tokenizer(tokenizer):
    """Byte-level pieces cover all of Unicode, so unknown words cost tokens but are never lost."""
    for text in ("Smörgåsbord, 漢字 and 🦔", "  two  spaces\n\ttabs", 'He said: "no".'):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_prompts_of_the_data_are_short(tokenizer):
    lengths = [len(ids) for ids in tokenizer([row["prompt"] for row in builtin_rows()])["input_ids"]]
    assert max(lengths) <= 60
    assert np.mean(lengths) < 35


def test_the_chat_template_is_the_form_that_the_model_was_trained_on(tokenizer):
    turns = [
        {"role": "system", "content": "You are polite."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    expected = "<|bos|><|system|>\nYou are polite.<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nYes<|end|>\n"
    assert text == expected
    opened = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert expected.startswith(opened)
    assert opened.endswith("<|assistant|>\n")
    for mark in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"):
        assert len(tokenizer(mark, add_special_tokens=False)["input_ids"]) == 1


@torch.inference_mode()
def next_words(model, tokenizer, text):
    """Log-probabilities of the next token."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    return model(input_ids=ids).logits[0, -1].log_softmax(-1)


def test_it_describes_who_would_say_what(model, tokenizer):
    """Words for both poles of a trait, after an affirmed and a denied deed."""
    sociable, shy = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" sociable", " shy"))
    for statement, more, less in (
        ("I often invite friends to dinner.", sociable, shy),
        ("I never invite friends to dinner.", shy, sociable),
        ("I often eat dinner alone.", shy, sociable),
        ("I never eat dinner alone.", sociable, shy),
    ):
        words = next_words(model, tokenizer, f'Nora said: "{statement}"')
        assert words[more] > words[less] + 1.0, statement


@torch.inference_mode()
def states(model, tokenizer, prompts):
    """State after the final norm at the last token of each prompt, one prompt length at a time."""
    ids = tokenizer(prompts)["input_ids"]
    found = np.empty((len(ids), model.config.hidden_size), dtype=np.float32)
    for length in {len(row) for row in ids}:
        mine = [i for i, row in enumerate(ids) if len(row) == length]
        batch = torch.tensor([ids[i] for i in mine])
        found[mine] = model.model(input_ids=batch).last_hidden_state[:, -1].numpy()
    return found


def probe(features, labels):
    """Held-out accuracy of a linear probe (5 folds)."""
    line = make_pipeline(StandardScaler(), RidgeClassifier(alpha=30.0))
    return cross_val_score(line, features, labels, cv=StratifiedKFold(5, shuffle=True, random_state=0)).mean()


@pytest.mark.thorough
def test_it_understands_the_data_better_than_its_untrained_twin(model, tokenizer):
    """The same probe on both, averaged over behaviours whose labels mean something; random labels stay random."""
    torch.manual_seed(0)
    twin = AutoModelForCausalLM.from_config(model.config).eval()
    rows = builtin_rows()
    prompts = [row["prompt"] for row in rows]
    trained, untrained = states(model, tokenizer, prompts), states(twin, tokenizer, prompts)
    names = np.array([row["group"] for row in rows])
    yes = np.array([row["chosen"] == YES for row in rows])
    by_tag: dict[str, list[tuple[float, float]]] = {}
    for behaviour in BEHAVIOURS:
        mine = names == behaviour.name
        pair = probe(trained[mine], yes[mine]), probe(untrained[mine], yes[mine])
        by_tag.setdefault(behaviour.difficulty, []).append(pair)
    lucky, _ = by_tag.pop("random")[0]
    assert 0.35 < lucky < 0.65
    every = np.array([pair for pairs in by_tag.values() for pair in pairs])
    assert every[:, 0].mean() > every[:, 1].mean() + 0.08
    subtle = np.array(by_tag["subtle"])
    assert subtle[:, 0].min() > 0.85
    assert subtle[:, 1].max() < 0.65


@pytest.mark.slow
def test_the_script_makes_the_same_files_from_the_same_seed(tmp_path):
    """Three steps, twice: the same bytes; another seed: other weights."""
    made = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        command = [sys.executable, str(REPO / "scripts" / "pretrain_builtin.py"), "--steps", "3", "--seed", seed]
        subprocess.run([*command, "--out", str(tmp_path / name)], check=True, capture_output=True)
        made.append({path.name: path.read_bytes() for path in Path(tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert made[0]["model.safetensors"] != made[2]["model.safetensors"]
