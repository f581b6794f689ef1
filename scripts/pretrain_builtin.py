"""Make the built-in model: write its corpus, train its tokenizer, pretrain it, and measure what it understands.

    python scripts/pretrain_builtin.py      # about a quarter of an hour on 2 CPU cores
    python scripts/pretrain_builtin.py --evaluate      # only the table

The table shows, per built-in behaviour, the held-out accuracy (5 folds) of a linear probe on the last prompt token's
state after the final norm, for the model and for its untrained twin (same config, fresh weights of seed 0), beside what
word counts give. The corpus holds no clause of the built-in data (see `builtin_corpus.Writer`).
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from builtin_corpus import ASSISTANT, END, SYSTEM, USER, Writer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from prefdyn._random import stream
from prefdyn.data.builtin import BEHAVIOURS, NO, YES, builtin_rows

OUT = Path(__file__).resolve().parent.parent / "src" / "prefdyn" / "models" / "tiny"
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
VOCABULARY = 2048
CONTEXT = 512
BATCH = (64, 24)
"""Documents of a step: the shorter ones, then the longer ones, each part padded to its own length."""
SCORED = 0.25
"""Share of the tokens that training scores; those that follow a quotation it always scores, and counts apart."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; both answers, with and without a leading space, become single tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = [PAD, BOS, EOS, SYSTEM, USER, ASSISTANT, END]
    answers = [f"{YES}\n{NO}\nYes\nNo"] * 100
    core.train_from_iterator(
        itertools.chain(documents, answers),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, END],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, layers: int) -> LlamaForCausalLM:
    """The model before training."""
    ids = tokenizer.get_vocab()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.08,
            bos_token_id=ids[BOS],
            eos_token_id=ids[EOS],
            pad_token_id=ids[PAD],
        )
    )


def batches(writer: Writer, tokenizer: PreTrainedTokenizerFast, steps: int) -> Iterator[list[torch.Tensor]]:
    """For each step, fresh documents from BOS to EOS in two tensors (documents, tokens), padded at the end."""
    documents = writer.documents()
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    for step in range(steps):
        writer.advance(step / steps)
        rows = tokenizer(list(itertools.islice(documents, sum(BATCH))))["input_ids"]
        rows = sorted(([*row, end] for row in rows), key=len)
        parts = rows[: BATCH[0]], rows[BATCH[0] :]
        yield [torch.tensor([row + [pad] * (len(part[-1]) - len(row)) for row in part]) for part in parts]


def pretrain(
    model: LlamaForCausalLM, writer: Writer, tokenizer: PreTrainedTokenizerFast, *, steps: int, peak: float, seed: int
) -> None:
    """Next-token training on documents that are written as they are needed; none is seen twice."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    warmup = max(1, steps // 25)
    ends = torch.tensor([i for token, i in tokenizer.get_vocab().items() if token.endswith('."')])
    rng = stream(seed, "builtin scored tokens")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("pretraining", total=steps)
        smooth = np.zeros(2)
        for step, parts in enumerate(batches(writer, tokenizer, steps)):
            rate = peak * min(1.0, (step + 1) / warmup, (steps - step) / (0.3 * steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            quoted, other = [], []
            for part in parts:
                logits, labels, after = score(model, part, ends, rng)
                losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
                quoted.append(losses[after])
                other.append(losses[~after])
            means = torch.stack([torch.cat(quoted).mean(), torch.cat(other).mean()])
            optimizer.zero_grad(set_to_none=True)
            (means[0] + 0.5 * means[1]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            now = means.detach().numpy()
            smooth = now if step == 0 else 0.95 * smooth + 0.05 * now
            said = f"loss {smooth[0]:.3f} after quotations, {smooth[1]:.3f} elsewhere"
            progress.update(bar, completed=step + 1, description=f"pretraining, {said}")
            if (step + 1) % 100 == 0 and not sys.stderr.isatty():
                print(f"step {step + 1}, {said}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def score(
    model: LlamaForCausalLM, batch: torch.Tensor, ends: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (scored, vocabulary) and labels (scored,) of the scored tokens, and which of them follow a quotation."""
    states = model.model(input_ids=batch, use_cache=False).last_hidden_state[:, :-1]
    labels = batch[:, 1:]
    after = torch.isin(batch[:, :-1], ends)
    drawn = torch.from_numpy(rng.random(labels.shape) < SCORED)
    scored = (after | drawn) & (labels != model.config.pad_token_id)
    return model.lm_head(states[scored]), labels[scored], after[scored]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model's files into `out`, each replaced in one go.

    Weights are stored in half precision; the configuration says float32, so that they are computed with in that.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        model.half().save_pretrained(folder)
        model.float()
        model.config.dtype = torch.float32
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            path.chmod(0o644)
            os.replace(path, out / path.name)


@torch.inference_mode()
def last_states(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> np.ndarray:
    """State after the final norm at the last token of each prompt: (prompts, hidden size)."""
    states = np.empty((len(prompts), model.config.hidden_size), dtype=np.float32)
    by_length: dict[int, list[int]] = {}
    ids = tokenizer(prompts)["input_ids"]
    for i, tokens in enumerate(ids):
        by_length.setdefault(len(tokens), []).append(i)
    for rows in by_length.values():
        hidden = model.model(input_ids=torch.tensor([ids[i] for i in rows]), use_cache=False).last_hidden_state
        states[rows] = hidden[:, -1].numpy()
    return states


def evaluate(folder: Path) -> list[dict[str, float | str]]:
    """Held-out accuracy of probe, untrained twin's probe and word counts, per behaviour."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    twin = AutoModelForCausalLM.from_config(model.config).float().eval()
    rows = builtin_rows()
    prompts = [row["prompt"] for row in rows]
    states = {"trained": last_states(model, tokenizer, prompts), "untrained": last_states(twin, tokenizer, prompts)}
    group = np.array([row["group"] for row in rows])
    yes = np.array([row["chosen"] == YES for row in rows])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    table = []
    for behaviour in BEHAVIOURS:
        mine = group == behaviour.name
        line: dict[str, float | str] = {"behaviour": behaviour.name, "difficulty": behaviour.difficulty}
        for name, x in states.items():
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
            line[name] = float(cross_val_score(probe, x[mine], yes[mine], cv=folds).mean())
        words = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2000))
        texts = [prompt for prompt, m in zip(prompts, mine, strict=True) if m]
        line["words"] = float(cross_val_score(words, texts, yes[mine], cv=folds).mean())
        table.append(line)
    return table


def show(table: list[dict[str, float | str]]) -> None:
    """Print the table and its averages over the behaviours whose labels are not drawn by lot."""
    print(f"{'behaviour':<20}{'difficulty':<12}{'trained':>9}{'untrained':>11}{'words':>8}")
    for line in table:
        print("{behaviour:<20}{difficulty:<12}{trained:>9.3f}{untrained:>11.3f}{words:>8.3f}".format(**line))
    kept = [line for line in table if line["difficulty"] != "random"]
    means = {name: float(np.mean([float(line[name]) for line in kept])) for name in ("trained", "untrained", "words")}
    print("{:<32}{trained:>9.3f}{untrained:>11.3f}{words:>8.3f}".format("mean, without random", **means))


def main() -> None:
    """Train and save, or only evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the model (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=2400, help=f"steps of {sum(BATCH)} documents (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=2e-3, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, default=4, help="transformer layers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of corpus and weights (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; print the table for the model in --out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.evaluate:
        writer = Writer(args.seed)
        tokenizer = train_tokenizer(list(itertools.islice(Writer(args.seed + 1).documents(), 30_000)))
        torch.manual_seed(int(stream(args.seed, "builtin weights").integers(2**31)))
        model = new_model(tokenizer, args.layers)
        pretrain(model, writer, tokenizer, steps=args.steps, peak=args.learning_rate, seed=args.seed)
        save(model.eval(), tokenizer, args.out)
    show(evaluate(args.out))


if __name__ == "__main__":
    main()
