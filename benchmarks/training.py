"""prefdyn's training step against TRL's DPOTrainer: the same pairs, batches, order, threads, dtype and optimizer.

    OMP_NUM_THREADS=2 uv run python benchmarks/training.py [answers defaults lora memory head] --data DIR [--steps 23]

`--data` holds `persona/persona.jsonl.gz`, `hh/harmless-base-part.jsonl.gz` and `models/`. Both sides take turns, step
by step, in one process; the first three steps are left out; figures are medians. Losses of both sides are printed and
must agree to 1e-4 (but in `defaults`, which scores an end token of its own). TRL's step is its `training_step` with its
own collator, then the optimizer: none of its logging, callbacks or data loading is counted.

- answers: full fine-tuning on one-token answers, batch 32, AdamW, against TRL with precomputed reference, without
  gradient checkpointing, its end token taken off. On a real small model and on a random Llama of 60M parameters.
- defaults: the same against TRL as it comes (reference model beside it, checkpointing, end token), in float32.
- lora: adapters of rank 16 on HH-RLHF, the 60M Llama, batch 4, against TRL as in `answers`.
- memory: peak of one process per side beyond what it holds before training; head of 128,256 rows on a tiny body.
- head: a last-layer step on cached states against TRL with a frozen body; the extraction named beside it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.maths.objectives import DPO
from prefdyn.maths.optimizers import AdamW
from prefdyn.models.extract import extract
from prefdyn.models.load import LanguageModel, load_model
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.score import score_pairs
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from prefdyn.training.heads import AnswerHead
from prefdyn.training.loop import Loop
from prefdyn.training.probes import PairTable
from prefdyn.training.settings import LoRA, resolve
from prefdyn.training.tune import add_adapters, unfreeze

BETA, RATE, BATCH = 0.1, 1e-5, 32
SKIPPED = 3
LORA = LoRA(rank=16, alpha=32.0)


def random_llama(folder: Path, tokenizer: Path, *, vocabulary: int = 32000, hidden: int = 512, layers: int = 8) -> Path:
    """A random Llama with a real tokenizer: 8 layers of width 512 and 32,000 tokens are 59M parameters."""
    made = transformers.AutoTokenizer.from_pretrained(tokenizer)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=int(2.75 * hidden),
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        max_position_embeddings=2048,
        bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


# our side ------------------------------------------------------------------------------------------------------------


def our_loop(
    lm: LanguageModel, tokens: TokenPairs, *, tune: str, steps: int, batch: int = BATCH, seed: int = 0
) -> Loop:
    """The loop of `prefdyn train`, without probes or checkpoints."""
    scored = score_pairs(lm, tokens, cache=False, progress=False)
    size = len(tokens)
    pairs = PairTable(
        id=np.arange(size).astype(np.str_),
        group=np.zeros(size, dtype=np.int32),
        groups=("all",),
        held_out=np.zeros(size, dtype=bool),
        weight=np.ones(size),
        chosen_length=np.asarray([len(ids) for ids in tokens.chosen], dtype=np.int32),
        rejected_length=np.asarray([len(ids) for ids in tokens.rejected], dtype=np.int32),
        ref_chosen=scored.chosen,
        ref_rejected=scored.rejected,
    )
    settings = resolve(
        size, tune=tune, objective=DPO(beta=BETA), optimizer=AdamW(), learning_rate=RATE, steps=steps, batch_size=batch,
        seed=seed,
    )  # fmt: skip
    parameters = unfreeze(lm) if tune == "full" else add_adapters(lm, LORA, seed=0)[1]
    lengths = np.asarray([len(ids) for ids in tokens.prompts])[tokens.prompt]
    lengths = lengths + np.maximum(pairs.chosen_length, pairs.rejected_length)
    named = {f"model.{name}": each for name, each in parameters.items()}
    return Loop(PairScorer(lm, tokens), named, pairs, settings, lengths=lengths)


# TRL's side ----------------------------------------------------------------------------------------------------------


class Theirs:
    """TRL's trainer, one step at a time."""

    def __init__(self, model: Path, data: PreferenceDataset, *, eos: bool, lora: bool = False, **options: Any) -> None:
        import datasets
        import peft
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        class Trainer(DPOTrainer):
            def _prepare_dataset(self, *arguments: Any, **more: Any) -> Any:
                made: Any = super()._prepare_dataset(*arguments, **more)
                if eos:
                    return made
                return made.map(lambda row: {name: row[name][:-1] for name in ("chosen_ids", "rejected_ids")})

        rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in data.to_rows()]
        settings = {
            "beta": BETA, "learning_rate": RATE, "per_device_train_batch_size": BATCH, "lr_scheduler_type": "constant",
            "report_to": "none", "bf16": False, "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
            "max_length": None, "output_dir": tempfile.mkdtemp(),
        }  # fmt: skip
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        adapters = None
        if lora:
            adapters = peft.LoraConfig(
                r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules="all-linear", task_type="CAUSAL_LM"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer: Any = Trainer(
                loaded,
                args=DPOConfig(**settings | options),
                train_dataset=datasets.Dataset.from_list(rows),
                processing_class=transformers.AutoTokenizer.from_pretrained(model),
                peft_config=adapters,
            )
            self.trainer.create_optimizer()
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1

    def step(self, rows: np.ndarray) -> float:
        """One update on these pairs; its loss."""
        trainer = self.trainer
        inputs = trainer.data_collator([trainer.train_dataset[int(row)] for row in rows])
        loss = trainer.training_step(trainer.model, inputs)
        parameters = [each for each in trainer.model.parameters() if each.grad is not None]
        torch.nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return float(loss)


PLAIN = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
"""TRL without what costs time and can be left out."""


def turns(ours: Callable[[], float], theirs: Callable[[int], float], steps: int) -> dict[str, Any]:
    """Both sides in turns: medians of seconds, and losses side by side."""
    seconds: list[tuple[float, float]] = []
    losses: list[tuple[float, float]] = []
    for step in range(steps):
        start = time.perf_counter()
        one = ours()
        middle = time.perf_counter()
        other = theirs(step)
        seconds.append((middle - start, time.perf_counter() - middle))
        losses.append((one, other))
    timed = np.asarray(seconds[SKIPPED:])
    both = np.asarray(losses)
    return {
        "ours_ms": 1e3 * float(np.median(timed[:, 0])),
        "theirs_ms": 1e3 * float(np.median(timed[:, 1])),
        "ratio": float(np.median(timed[:, 1]) / np.median(timed[:, 0])),
        "ratio_in_turns": float(np.median(timed[:, 1] / timed[:, 0])),
        "largest_loss_difference": float(np.abs(both[:, 0] - both[:, 1]).max()),
        "losses": [[round(float(value), 6) for value in both[at]] for at in (0, len(both) // 2, -1)],
    }


def steps_of(loop: Loop) -> Callable[[], float]:
    """One update of ours, and its loss."""

    def step() -> float:
        loop.advance()
        return float(loop.progress.steps[-1]["loss"])

    return step


def compare_step(
    model: Path, data: PreferenceDataset, *, tune: str, eos: bool | None, steps: int, batch: int = BATCH, **options: Any
) -> dict[str, Any]:
    """Our step against TRL's on the same pairs in the same order."""
    lm = load_model(str(model), device="cpu", dtype="float32")
    tokens = tokenize_pairs(data, lm, eos=eos)
    data = data.select(ids=data.table["id"].take(tokens.row.tolist()).to_pylist())
    loop = our_loop(lm, tokens, tune=tune, steps=steps, batch=batch)
    theirs = Theirs(
        model, data, eos=tokens.kind == "responses" or options.pop("with_eos", False), lora=tune == "lora", **options
    )
    found = turns(steps_of(loop), lambda step: theirs.step(loop.pairs.train[loop.order[step]]), steps)
    return {"kind": tokens.kind, "shared": loop.scorer.shared, "tokens_per_pair": float(np.mean(loop.lengths)), **found}


# the rows ------------------------------------------------------------------------------------------------------------


def persona(data: Path, count: int = 20) -> PreferenceDataset:
    """One-token answers: 12 pairs of each of the first personas by name."""
    whole = load_dataset(f"persona:{data / 'persona' / 'persona.jsonl.gz'}")
    return load_dataset(
        f"persona:{data / 'persona' / 'persona.jsonl.gz'}", groups=sorted(whole.groups)[:count], limit=12
    )


def harmless(data: Path, longest: int, count: int = 800) -> PreferenceDataset:
    """HH-RLHF dialogues of at most so many characters on either side."""
    found = load_dataset(f"hh:{data / 'hh' / 'harmless-base-part.jsonl.gz'}", skip_bad_rows=True)
    table = found.table
    fits = [
        name
        for name, *texts in zip(
            *(table[column].to_pylist() for column in ("id", "prompt", "chosen", "rejected")), strict=True
        )
        if len(texts[0]) + max(len(texts[1]), len(texts[2])) <= longest
    ]
    return found.select(ids=fits[:count])


def answers(data: Path, folder: Path, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """One forward per pair against two padded rows."""
    pairs = persona(data)
    chat = data / "models" / "tinystories-chat-3M-gptneo"
    yield "chat-3M", compare_step(chat, pairs, tune="full", eos=None, steps=steps, **PLAIN)
    yield "60M Llama", compare_step(llama(data, folder), yes_no(pairs), tune="full", eos=None, steps=steps, **PLAIN)


def defaults(data: Path, folder: Path, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same against TRL as it comes."""
    pairs = persona(data)
    chat = data / "models" / "tinystories-chat-3M-gptneo"
    yield "chat-3M", compare_step(chat, pairs, tune="full", eos=None, steps=steps, with_eos=True)
    yield (
        "60M Llama",
        compare_step(llama(data, folder), yes_no(pairs), tune="full", eos=None, steps=steps, with_eos=True),
    )


def lora(data: Path, folder: Path, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Long prompts and responses."""
    pairs = harmless(data, 2400, 40)
    yield "60M Llama", compare_step(llama(data, folder), pairs, tune="lora", eos=None, steps=steps, batch=4, **PLAIN)


def head(data: Path, folder: Path, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Cached states against a frozen body."""
    pairs, model = yes_no(persona(data)), llama(data, folder)
    lm = load_model(str(model), device="cpu", dtype="float32")
    start = time.perf_counter()
    feats = extract(pairs, lm, cache=False, progress=False)
    extraction = time.perf_counter() - start
    scorer = AnswerHead(feats, precision="float32")
    size = len(feats)
    up, down = scorer.start_log_probs()
    table = PairTable(
        id=feats.id, group=feats.group, groups=feats.groups, held_out=np.zeros(size, dtype=bool), weight=feats.weight,
        chosen_length=feats.chosen_length, rejected_length=feats.rejected_length, ref_chosen=up, ref_rejected=down,
    )  # fmt: skip
    settings = resolve(
        size, tune="last-layer", objective=DPO(beta=BETA), optimizer=AdamW(), learning_rate=RATE, steps=steps,
        batch_size=BATCH, precision="float32", clip=1.0,
    )  # fmt: skip
    loop = Loop(scorer, {"head": scorer.head}, table, settings, lengths=np.ones(size, dtype=np.int64))
    theirs = Theirs(model, pairs, eos=False, **PLAIN)
    for name, each in theirs.trainer.model.named_parameters():
        each.requires_grad_(name == "lm_head.weight")
    theirs.trainer.optimizer = torch.optim.AdamW(
        [theirs.trainer.model.lm_head.weight], lr=RATE, weight_decay=0.0, fused=True
    )
    found = turns(steps_of(loop), lambda step: theirs.step(loop.pairs.train[loop.order[step]]), steps)
    yield "60M Llama", {**found, "extraction_s": extraction, "pairs": size}


def memory(data: Path, folder: Path, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Peaks of a process per side."""
    for name in ("answers", "responses"):
        peaks = {}
        for side in ("ours", "theirs"):
            command = [
                sys.executable,
                __file__,
                "--peak",
                side,
                name,
                "--data",
                str(data),
                "--steps",
                "4",
                "--folder",
                str(folder),
            ]
            out = subprocess.run(command, capture_output=True, text=True, check=False)
            if out.returncode:
                raise SystemExit(out.stderr)
            peaks[side] = json.loads(out.stdout.splitlines()[-1])
        yield name, {
            "ours_mb": peaks["ours"]["mb"], "theirs_mb": peaks["theirs"]["mb"],
            "ratio": peaks["ours"]["mb"] / peaks["theirs"]["mb"], "weights_mb": peaks["ours"]["weights_mb"],
        }  # fmt: skip


def peak(side: str, name: str, data: Path, folder: Path, steps: int) -> None:
    """One side in a process of its own: its peak beyond what it held with the model loaded."""
    model = folder / "wide"
    if not model.is_dir():
        random_llama(model, data / "models" / "stories3M-llama", vocabulary=128256, hidden=64, layers=2)
    pairs = yes_no(persona(data)) if name == "answers" else harmless(data, 1200, 64)
    rng = np.random.default_rng(0)
    if side == "ours":
        lm = load_model(str(model), device="cpu", dtype="float32")
        tokens = tokenize_pairs(pairs, lm)
        held = _resident()
        loop = our_loop(lm, tokens, tune="full", steps=steps)
        for _ in range(steps):
            loop.advance()
        weights = sum(each.numel() * 4 for each in lm.model.parameters())
    else:
        theirs = Theirs(model, pairs, eos=name == "responses", **PLAIN)
        held = _resident()
        for _ in range(steps):
            theirs.step(rng.choice(len(pairs), BATCH, replace=False))
        weights = sum(each.numel() * 4 for each in theirs.trainer.model.parameters())
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"mb": found - held, "held_mb": held, "weights_mb": weights / 2**20}))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def yes_no(pairs: PreferenceDataset) -> PreferenceDataset:
    """The same with "Yes" and "No": single tokens of a SentencePiece model after a line's end."""
    rows = pairs.to_rows()
    for row in rows:
        row |= {
            "chosen": row["chosen"].strip(),
            "rejected": row["rejected"].strip(),
            "prompt": row["prompt"].rstrip() + "\n",
        }
    return PreferenceDataset.from_rows(rows, name=pairs.name)


def llama(data: Path, folder: Path) -> Path:
    """The random Llama, made once."""
    place = folder / "llama-60m"
    return place if place.is_dir() else random_llama(place, data / "models" / "stories3M-llama")


ROWS: dict[str, Callable[[Path, Path, int], Iterator[tuple[str, dict[str, Any]]]]] = {
    "answers": answers, "defaults": defaults, "lora": lora, "memory": memory, "head": head,
}  # fmt: skip


def main() -> None:
    """Measure the rows asked for, and print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"any of {', '.join(ROWS)}")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=23)
    parser.add_argument("--folder", type=Path, help="where made models are kept")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    if given.peak:
        side, name = given.peak
        peak(side, name, given.data, folder, given.steps)
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for row in given.rows or ROWS:
        for name, found in ROWS[row](given.data, folder, given.steps):
            print(row, name, json.dumps(found), flush=True)


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    main()
