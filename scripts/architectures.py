"""Which architectures can be read, scored and trained: tiny random models of each, taken through every stage.

    uv run python scripts/architectures.py [KIND ...] [--write]

A model is made from its configuration in transformers, with random weights and the tokenizer of the built-in model, and
a few built-in pairs are scored with it and trained on. Prints a row per kind and what is refused; `--write` puts both
into docs/architectures.md. About 20 minutes for all of them on one core.
"""

import argparse
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import PrefdynError
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.score import score_pairs
from prefdyn.models.source import BUILTIN, quiet
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from prefdyn.training.train import run_training

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
STAGES = ("load", "score", "bfloat16", "last-layer", "lora", "full")
AGREES = 1e-4
"""Largest relative difference from plain transformers, and of a saved model read again."""
AGREES_HALF = 0.05

_SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
_GROUPED: dict[str, Any] = {**_SIZE, "num_key_value_heads": 2}
_WIDE: dict[str, Any] = {**_GROUPED, "head_dim": 8}
_OLD: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SSM: dict[str, Any] = {"mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_n_heads": 8}
_TWO_KINDS = {"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # attention, one way or another
    "llama": ("Llama", _WIDE),
    "qwen2, tied head": ("Qwen2", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", _WIDE),
    "mistral": ("Mistral", {**_WIDE, "sliding_window": 24}),
    "gemma": ("Gemma", _WIDE),
    "gemma2": ("Gemma2", {**_WIDE, "sliding_window": 24}),
    "gemma3": ("Gemma3Text", {**_WIDE, **_TWO_KINDS}),
    "gemma3n": (
        "Gemma3nText",
        {
            **_WIDE, **_TWO_KINDS, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 2048,
            "laurel_rank": 4, "num_kv_shared_layers": 0, "intermediate_size": [64, 64],
            "activation_sparsity_pattern": [0.0, 0.0],
        },
    ),
    "phi": ("Phi", _SIZE),
    "phi3": ("Phi3", _GROUPED),
    "granite": ("Granite", {**_WIDE, "logits_scaling": 6.0}),
    "cohere": ("Cohere", {**_WIDE, "logit_scale": 0.1}),
    "cohere2": ("Cohere2", {**_WIDE, "logit_scale": 0.3, "sliding_window": 24}),
    "falcon": ("Falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}),
    "falcon, alibi": (
        "Falcon",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True, "multi_query": False,
            "parallel_attn": False, "bias": True,
        },
    ),
    "stablelm": ("StableLm", _GROUPED),
    "olmo": ("Olmo", {**_GROUPED, "clip_qkv": 2.0}),
    "olmo2": ("Olmo2", _GROUPED),
    "olmo3": ("Olmo3", {**_GROUPED, **_TWO_KINDS}),
    "smollm3": ("SmolLM3", _GROUPED),
    "exaone4": ("Exaone4", {**_WIDE, **_TWO_KINDS}),
    "glm4": ("Glm4", _WIDE),
    "ernie4.5": ("Ernie4_5", _WIDE),
    "nemotron": ("Nemotron", _WIDE),
    "starcoder2": ("Starcoder2", _GROUPED),
    "modernbert decoder": (
        "ModernBertDecoder",
        {**_SIZE, "local_attention": 24, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gpt2": ("GPT2", _OLD),
    "gpt-neo": (
        "GPTNeo",
        {
            "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 512, "window_size": 24,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "gpt-neox": ("GPTNeoX", _SIZE),
    "gpt-j": ("GPTJ", {**_OLD, "rotary_dim": 4}),
    "codegen": ("CodeGen", {**_OLD, "rotary_dim": 4}),
    "gpt-bigcode": ("GPTBigCode", _OLD),
    "opt": (
        "OPT",
        {
            "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 512, "word_embed_proj_dim": 16,
        },
    ),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}),
    "xglm": (
        "XGLM",
        {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 512},
    ),
    "biogpt": ("BioGpt", _SIZE),
    "ctrl": ("CTRL", {**_OLD, "dff": 64}),
    # experts
    "mixtral": ("Mixtral", {**_WIDE, **_EXPERTS}),
    "phimoe": ("Phimoe", {**_GROUPED, "num_local_experts": 4}),
    "qwen2-moe": (
        "Qwen2Moe",
        {
            **_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
    "qwen3-moe": ("Qwen3Moe", {**_WIDE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    "olmoe": ("Olmoe", {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "granite-moe": ("GraniteMoe", {**_GROUPED, **_EXPERTS, "logits_scaling": 6.0}),
    "deepseek-v3": (
        "DeepseekV3",
        {
            **_SIZE, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
            "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_shared_experts": 1,
        },
    ),
    "gpt-oss": ("GptOss", {**_WIDE, **_EXPERTS, "sliding_window": 24}),
    "llama4": (
        "Llama4Text",
        {
            **_WIDE, "num_local_experts": 2, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2,
            "attention_chunk_size": 24,
        },
    ),
    # state spaces and other recurrences
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "mamba2": (
        "Mamba2",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1,
            "chunk_size": 16,
        },
    ),
    "falcon-h1": (
        "FalconH1",
        {**_WIDE, **_SSM, "mamba_d_ssm": 64, "mamba_chunk_size": 16, "lm_head_multiplier": 0.1},
    ),
    "bamba": ("Bamba", {**_GROUPED, **_SSM, "attn_layer_indices": [1], "mamba_chunk_size": 16}),
    "granite-moe-hybrid": (
        "GraniteMoeHybrid",
        {
            **_GROUPED, **_EXPERTS, **_SSM, "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"],
            "mamba_chunk_size": 16, "logits_scaling": 3.0,
        },
    ),
    "jamba": (
        "Jamba",
        {
            **_GROUPED, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
            "expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 4,
            "mamba_dt_rank": 4, "use_mamba_kernels": False,
        },
    ),
    "zamba2": (
        "Zamba2",
        {
            **_SIZE, "num_key_value_heads": 4, "mamba_d_state": 8, "n_mamba_heads": 8, "mamba_ngroups": 1,
            "mamba_headdim": 8, "chunk_size": 16, "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1,
            "use_mem_rope": True, "adapter_rank": 4,
        },
    ),
    "recurrent-gemma": (
        "RecurrentGemma",
        {
            **_SIZE, "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 24,
            "block_types": ["recurrent", "attention"],
        },
    ),
    "lfm2": ("Lfm2", {**_GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 16}),
    "qwen3-next": (
        "Qwen3Next",
        {
            **_WIDE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "minimax": (
        "MiniMax",
        {**_WIDE, **_EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    ),
    "rwkv": ("Rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 512}),
    # no causal language model: to be refused
    "bart": (
        "Bart",
        {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 512,
        },
    ),
    "marian": (
        "Marian",
        {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 512,
        },
    ),
    "t5": ("T5", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}),
    "roberta": ("Roberta", _SIZE),
}  # fmt: skip
"""By name: the configuration's class, without its last word, and its options."""
_ENCODER_DECODERS = ("bart", "marian", "t5")


@dataclass(slots=True)
class Found:
    """What became of one kind."""

    kind: str
    model: str
    """Class of the model."""
    cells: dict[str, str] = field(default_factory=dict)
    """By stage: what to show."""
    refused: dict[str, str] = field(default_factory=dict)
    """By stage: why prefdyn will not."""
    failed: dict[str, str] = field(default_factory=dict)
    """By stage: what went wrong untold, which is an error of prefdyn."""
    left_off: list[str] = field(default_factory=list)
    """What training with adapters told of layers without one."""


def make(kind: str, folder: Path, *, seed: int = 0) -> str:
    """Write a random model of one kind with lively weights; the class of the model."""
    name, options = KINDS[kind]
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUILTIN, local_files_only=True)
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    common = {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": first,
        "eos_token_id": last, "decoder_start_token_id": first,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**{**common, **options})
    auto = transformers.AutoModelForSeq2SeqLM if kind in _ENCODER_DECODERS else transformers.AutoModelForCausalLM
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config)
        with torch.no_grad():  # as made they are too tame to tell one form of a model from another
            for part, weight in model.named_parameters():
                if weight.ndim < 2:
                    weight += 0.1 * torch.randn_like(weight)
                elif "embed" not in part:
                    weight *= 3.0
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return type(model).__name__


def taken_through(kind: str, folder: Path, *, stages: tuple[str, ...] = STAGES) -> Found:
    """Take one kind through every stage.

    Args:
        kind: A key of `KINDS`.
        folder: An empty one, for the models.
        stages: Which of them.
    """
    found = Found(kind=kind, model=f"{KINDS[kind][0]}")
    path = folder / "model"
    found.model = make(kind, path)
    data = load_dataset("builtin:responses", limit=3)
    base: dict[str, Any] = {}

    def load() -> str:
        lm = base["lm"] = load_model(str(path))
        base["pairs"] = tokenize_pairs(data, lm, eos=True)
        return "yes"

    def score() -> str:
        return _scored(base["lm"], base["pairs"], AGREES)

    def half() -> str:
        lm = load_model(str(path), dtype="bfloat16")
        return _scored(lm, base["pairs"], AGREES_HALF)

    todo: dict[str, Callable[[], str]] = {"load": load, "score": score, "bfloat16": half}
    for tune in STAGES[3:]:
        todo[tune] = lambda tune=tune: _trained(path, data, base["pairs"], tune, folder / tune, found.left_off)
    for stage, do in todo.items():
        if stage != "load" and ("lm" not in base or stage not in stages):
            found.cells[stage] = "–"
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.cells[stage] = do()
        except PrefdynError as error:
            found.cells[stage], found.refused[stage] = "refused", _line(error, path)
        except Exception as error:
            found.cells[stage], found.failed[stage] = "FAILS", _line(error, path)
    return found


def _line(error: Exception, path: Path) -> str:
    said = " ".join(str(error).split()).replace(str(path), "the folder")
    return said if isinstance(error, PrefdynError) else f"{type(error).__name__}: {said}"


def _scored(lm: LanguageModel, pairs: TokenPairs, limit: float) -> str:
    """How far scores are off those of the plain model, one text at a time."""
    found = score_pairs(lm, pairs, cache=False, progress=False)
    plain = np.asarray([_plain(lm, pairs, row) for row in range(len(pairs))]).T
    ours = np.stack([found.chosen, found.rejected])
    off = float(np.abs(ours - plain).max() / np.abs(plain).max())
    if not off <= limit:
        raise RuntimeError(f"scores are off by {off:.1e}")
    return f"{off:.0e}"


def _plain(lm: LanguageModel, pairs: TokenPairs, row: int) -> tuple[float, float]:
    prompt = pairs.prompts[pairs.prompt[row]]
    sums = []
    for response in (pairs.chosen[row], pairs.rejected[row]):
        ids = torch.tensor([[*prompt, *response]])
        with torch.inference_mode():
            logits = lm.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
        each = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])
        sums.append(float(each.sum()))
    return sums[0], sums[1]


def _trained(path: Path, data: PreferenceDataset, pairs: TokenPairs, tune: str, out: Path, told: list[str]) -> str:
    """Train some steps, read what was saved, and see that it says what the run said at its end."""
    options: dict[str, Any] = {"tune": tune, "steps": 6, "batch_size": "full", "learning_rate": 0.01, "eos": True}
    run = run_training(data, str(path), out=out, progress=False, **options)
    told += [line for line in run.warnings if line.startswith("Adapters")]
    losses = run.steps["loss"].to_pylist()
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g}")
    again = score_pairs(load_model(str(run.model)), pairs, cache=False, progress=False)
    ours, ended = np.stack([again.chosen, again.rejected]), np.stack([run.chosen, run.rejected])
    off = float(np.abs(ours - ended).max() / np.abs(ended).max())
    if not off <= AGREES:
        raise RuntimeError(f"the saved model read again is off by {off:.1e}")
    return f"{losses[-1]:.2f}"


# the page ------------------------------------------------------------------------------------------------------------


def table(rows: list[Found]) -> Iterator[str]:
    """Lines of the matrix, and of what is refused."""
    yield "| architecture | class | " + " | ".join(STAGES) + " |"
    yield "|---|---|" + "---|" * len(STAGES)
    for row in rows:
        yield f"| {row.kind} | `{row.model}` | " + " | ".join(row.cells[stage] for stage in STAGES) + " |"
    for title, of in (
        ("Refused", lambda row: [f"{stage}: {why}" for stage, why in row.refused.items()]),
        ("Failing", lambda row: [f"{stage}: {why}" for stage, why in row.failed.items()]),
        ("Adapted in part", lambda row: row.left_off),
    ):
        told: dict[str, list[str]] = {}
        for row in rows:
            for line in of(row):
                told.setdefault(line, []).append(row.kind)
        if told:
            yield from ("", f"{title}:", "")
            yield from (f"- {', '.join(kinds)}: {line}" for line, kinds in told.items())


def main() -> None:
    """Make the models, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="default: all")
    parser.add_argument("--write", action="store_true", help="put the table into docs/architectures.md")
    options = parser.parse_args()
    if options.write and options.kinds:
        parser.error("--write is for all kinds")
    rows = []
    for kind in options.kinds or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(taken_through(kind, Path(folder)))
        row = rows[-1]
        print(f"{kind}: {row.cells} {row.refused or ''} {row.failed or ''}", file=sys.stderr, flush=True)
    lines = "\n".join(table(rows))
    print(lines)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        start, end = "<!-- table -->\n", "<!-- end of table -->"
        new = re.sub(f"{start}.*{end}", lambda _: f"{start}\n{lines}\n{end}", text, flags=re.DOTALL)
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
