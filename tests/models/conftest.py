"""Tiny random models with a tokenizer of their own, made once per session."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, pre_tokenizers, processors, trainers

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.models.answers import answer_mapping, with_answers
from prefdyn.models.load import LanguageModel
from prefdyn.models.texts import SIDES, RenderedTexts
from prefdyn.models.tokens import AnsweredPrompts, NotOneToken, one_token_answers

QUESTION = 'Would you say this?\n"{}"'
_WORDS = [
    "I", "like", "to", "eat", "cold", "rice", "and", "walk", "in", "the", "rain", "but", "never", "sing", "loud", "at",
    "night", "with", "old", "friends", "or", "cats",
]  # fmt: skip
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def statements(count: int, seed: int = 0) -> list[str]:
    """Different short sentences of different lengths."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(_WORDS, k=draw.randint(2, 14)))] = None
    return list(found)


def rows(count: int = 40, *, yes: str = " Yes", no: str = " No", groups: int = 2) -> list[dict[str, str]]:
    """Yes/No pairs about random statements."""
    return [
        {
            "prompt": QUESTION.format(text),
            "chosen": yes if at % 3 else no,
            "rejected": no if at % 3 else yes,
            "group": f"group {at % groups}",
            "id": f"pair-{at}",
        }
        for at, text in enumerate(statements(count))
    ]


def yes_no(count: int = 40, **options: object) -> PreferenceDataset:
    """The same as a dataset."""
    return PreferenceDataset.from_rows(rows(count, **options), name="statements")  # type: ignore[arg-type]


def byte_tokenizer(*, bos: bool = True, chat: bool = False) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2 has it: " Yes" and " No" are single tokens."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    corpus = [QUESTION.format(text) + answer for text in statements(50, seed=9) for answer in (" Yes", " No")]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<user>", "<assistant>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*corpus, *["Yes No Y N", "No Yes N Y"] * 200], trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=10**9
    )
    if chat:
        made.chat_template = CHAT
    return made


def piece_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """BPE over the whole text with "▁" for a space, as SentencePiece models have it; every text gets a "▁" in front."""
    alphabet = sorted(set("".join([*_WORDS, QUESTION, "YesNo▁"])) | set("▁"))
    vocabulary = {piece: at for at, piece in enumerate(["<unk>", "<s>", "</s>", *alphabet, "Ye", "Yes", "No", "▁No"])}
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o"), ("▁", "No")]
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>"))
    core.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=10**9
    )


_SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_ROPE: dict[str, Any] = {**_SIZE, "intermediate_size": 48}
_GQA: dict[str, Any] = {**_ROPE, "num_key_value_heads": 2, "head_dim": 8}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _GQA),
    "llama-tied": ("LlamaConfig", {**_GQA, "tie_word_embeddings": True}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt2-untied": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "tie_word_embeddings": False},
    ),
    "neox": ("GPTNeoXConfig", _ROPE),
    "neox-tied": ("GPTNeoXConfig", {**_ROPE, "tie_word_embeddings": True}),
    "gpt-neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 128,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
        },
    ),
    "qwen3": ("Qwen3Config", _GQA),
    "mistral": ("MistralConfig", {**_GQA, "sliding_window": 24}),
    "mistral-full": ("MistralConfig", {**_GQA, "sliding_window": None}),
    "opt": ("OPTConfig", {**_SIZE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt-projected": ("OPTConfig", {**_SIZE, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "opt-350m-like": (
        "OPTConfig",
        {**_SIZE, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "phi": ("PhiConfig", _ROPE),
    "gpt-j": ("GPTJConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 4}),
    "cohere": ("CohereConfig", {**_GQA, "logit_scale": 0.0625}),
    "granite": ("GraniteConfig", {**_GQA, "logits_scaling": 8.0}),
    "gemma2": ("Gemma2Config", {**_GQA, "final_logit_softcapping": 30.0}),
    "gemma2-uncapped": ("Gemma2Config", {**_GQA, "final_logit_softcapping": None, "sliding_window": 24}),
    "bert": ("BertConfig", {**_ROPE, "is_decoder": False}),
    "t5": ("T5Config", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}
PARITY = [name for name in CONFIGS if name not in ("gemma2", "bert", "t5")]
"""Models whose head is covered."""


def make_model(folder: Path, kind: str, tokenizer: transformers.PreTrainedTokenizerFast, *, seed: int = 0) -> Path:
    """Write a random model of one architecture, with lively weights, and its tokenizer."""
    name, options = CONFIGS[kind]
    config = getattr(transformers, name)(
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None, **options,
    )  # fmt: skip
    auto = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config)
        for parameter_name, parameter in model.named_parameters():
            with torch.no_grad():  # the usual start gives logits near 0 and zero biases: too tame to tell forms apart
                parameter += 0.1 * torch.randn_like(parameter) if parameter.ndim < 2 else 0.0
                if parameter.ndim >= 2 and "embed" not in parameter_name:
                    parameter *= 4.0
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny random model by name of its architecture."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = byte_tokenizer()

    def folder(kind: str) -> Path:
        path = root / kind
        return path if path.is_dir() else make_model(path, kind, tokenizer)

    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, beside its folder: what writes there first would show in a listing."""
    cache = tmp_path_factory.mktemp("own") / "cache"
    monkeypatch.setenv("PREFDYN_CACHE", str(cache))
    return cache


def edit_config(folder: Path, **values: object) -> None:
    """Change keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def tokenize_answers(data: PreferenceDataset, lm: LanguageModel, **options: Any) -> AnsweredPrompts:
    """One-token answers, or the error that says why not."""
    if (answers := options.pop("answers", None)) is not None:
        options["mapping"] = answer_mapping(answers, [row[side] for row in data.to_rows() for side in SIDES])
        data = with_answers(data, answers)
    try:
        return one_token_answers(RenderedTexts(data, lm), **options)
    except NotOneToken as found:
        raise found.error from None
