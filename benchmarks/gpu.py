"""One GPU, one short script: every part that touches a model, each against its plain alternative in the same process.

    uv run python benchmarks/gpu.py [ROW …] [--device cuda] [--layers 32] [--out gpu.json] [--seconds 150]
    uv run python benchmarks/gpu.py --device cpu --small

The model is a Llama of 8B parameters by its shape, with random weights made on the device in bfloat16 and the built-in
model's tokenizer: what it costs does not depend on what it says. Every row is tried by itself, printed as soon as it is
known and written to `--out`; one that fails prints its error and the others go on. Seconds are medians after a warm-up,
with the device waited for; `peak_gb` is what torch's allocator held at most, weights included. Tokens are those of the
texts, a pair's prompt once, for both sides of a ratio. `ratio` is how many times as fast ours is.
`--small` shrinks every size so that all rows run on a CPU in a minute: a check that the script works, no measurement.

- machine: what it is, and one large product in bfloat16.
- builtin: the built-in model in float32, read, sketched and trained on the device and on the CPU: the same figures?
- model: the large one is made, taken apart and checked.
- answers: features of one-token answers, against `model(...)` on the same prompts, without padding, logits at the last
  place alone; and how far our log-probabilities are from the model's own logits.
- replies: sketched features of replies, against `model(...)` and a log-softmax on each reply with its prompt.
- lora: steps of our loop (rank 16, every linear layer, bfloat16), against PEFT, autocast and AdamW on the same batches.
- gradients: what a forecast reads of every pair, against a plain forward and backward of the same pairs with adapters,
  padded as usual; and against one by our own packed rows, which is harder. `linearise_s` is all that a forecast does
  there, its checks and the margins included, the first time.
- linear: a linear run's step from these gradients, one run and 16 at once.
- sweep: 500 settings (20 betas, 25 rates) for 10,000 pairs of width 4,096 by `sweep`, on the device against the CPU:
  10 steps with all that is set up before; and on the device 100, recorded as by default.
- full: steps of full tuning of a 1B model (float32 weights, bfloat16 passes), against the same by a plain loop.
"""

import argparse
import contextlib
import gc
import json
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
import transformers

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.engine import Stop
from prefdyn.dynamics.sweep import sweep
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.models.gradients import gradients
from prefdyn.models.load import BUILTIN, LanguageModel, _examined, load_model
from prefdyn.models.log_probs import PairScorer
from prefdyn.models.team import Team
from prefdyn.models.token_pairs import TokenPairs, tokenize_pairs
from prefdyn.provenance import content_hash
from prefdyn.settings import Reading
from prefdyn.training.linear import linear_margins, linearise
from prefdyn.training.loop import _DROWNED, Loop
from prefdyn.training.settings import LoRA, TrainingSettings
from prefdyn.training.subjects import Models, Subject, whole_model
from prefdyn.training.train import train

BETA, RATE = 0.1, 1e-5
LORA = LoRA(rank=16, alpha=32.0)
RUNS = 16
NEVER = Stop(divergence=float("inf"))
Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Bench:
    """Sizes, and what rows hand on to later ones."""

    device: str
    shape: dict[str, Any]
    """Of the large model, as LlamaConfig names it."""
    middle: dict[str, Any]
    """Of the one that is tuned whole."""
    small: bool
    lm: Any = None
    """The large model, with adapters once a row has put them on."""
    subject: Any = None
    settings: Any = None
    loop: Any = None
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    """Adapters before the first step."""
    found: Any = None
    """Gradients, for the linear run."""

    @property
    def repeats(self) -> int:
        """Timed calls after the first."""
        return 1 if self.small else 2

    def large(self) -> LanguageModel:
        """The large model, made where no row has made it yet."""
        if self.lm is None:
            self.lm = random_llama(self.shape, self.device, torch.bfloat16)
        return self.lm

    def forget(self) -> None:
        """Free what the large model took."""
        self.lm = self.subject = self.loop = self.found = None
        self.start = {}
        free(self.device)


# helpers -------------------------------------------------------------------------------------------------------------


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def free(device: str) -> None:
    """Give back what nothing refers to."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def timed(work: Callable[[], Any], device: str, repeats: int, *, warm: int = 1) -> Row:
    """Median seconds of a call, and the peak of the allocator over all of them."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(warm + repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - start)
    peak = None if device == "cpu" else torch.cuda.max_memory_allocated() / 1e9
    return {"s": float(np.median(seconds[warm:])), "peak_gb": peak, "first_s": seconds[0]}


def both(ours: Row, plain: Row, tokens: float) -> Row:
    """A part against its plain alternative over the same tokens."""
    return {
        "tokens": tokens,
        "ours_s": ours["s"],
        "plain_s": plain["s"],
        "ours_tokens_s": tokens / ours["s"],
        "plain_tokens_s": tokens / plain["s"],
        "ratio": plain["s"] / ours["s"],
        "ours_peak_gb": ours["peak_gb"],
        "plain_peak_gb": plain["peak_gb"],
        "ours_first_s": ours["first_s"],
    }


def random_llama(shape: dict[str, Any], device: str, dtype: torch.dtype) -> LanguageModel:
    """Random weights made where they stay, with the built-in tokenizer, checked as every loaded model is."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUILTIN)
    config = transformers.LlamaConfig(
        **shape, max_position_embeddings=8192, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.eval().requires_grad_(False)
    mark = content_hash(["random Llama", json.dumps(shape, sort_keys=True), str(dtype)])
    return _examined(model, tokenizer, name="random Llama", fingerprint=mark, revision=None)


def answers_of(pairs: int) -> PreferenceDataset:
    """One-token answers: the built-in statements."""
    return load_dataset("builtin", limit=max(1, pairs // 20))


def replies_of(pairs: int, joined: int) -> PreferenceDataset:
    """Replies of so many of the built-in ones each, of one group and side, one after the other; half are held out."""
    by_group: dict[str, list[dict[str, Any]]] = {}
    for row in load_dataset("builtin:responses").to_rows():
        by_group.setdefault(row["group"], []).append(row)
    made = []
    for place in range(pairs):
        name = sorted(by_group)[place % len(by_group)]
        rows = by_group[name]
        few = [rows[(place // len(by_group) + step) % len(rows)] for step in range(joined)]
        texts = {side: "".join(each[side] for each in few) for side in ("chosen", "rejected")}
        split = "held_out" if place // len(by_group) % 2 else "train"
        made.append({"prompt": few[0]["prompt"], "group": name, "id": f"reply-{place}", "split": split, **texts})
    return PreferenceDataset.from_rows(made, name="replies")


def tokens_of(pairs: TokenPairs, rows: Sequence[int] | None = None) -> int:
    """Tokens of some pairs' prompts, each once, and of both responses."""
    places = range(len(pairs)) if rows is None else rows
    return sum(
        len(pairs.prompts[int(pairs.prompt[row])])
        + (0 if pairs.kind == "answers" else len(pairs.chosen[row]) + len(pairs.rejected[row]))
        for row in places
    )


def plain_log_probs(model: Any, texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], device: str) -> torch.Tensor:
    """Summed log-probabilities of responses behind their prompts, as in most scripts: padded rows, all logits."""
    longest = max(len(prompt) + len(reply) for prompt, reply in texts)
    ids, reads, counts = (torch.zeros(len(texts), longest, dtype=torch.int64) for _ in range(3))
    for row, (prompt, reply) in enumerate(texts):
        ids[row, : len(prompt) + len(reply)] = torch.tensor([*prompt, *reply])
        reads[row, : len(prompt) + len(reply)] = 1
        counts[row, len(prompt) : len(prompt) + len(reply)] = 1
    ids, reads, counts = ids.to(device), reads.to(device), counts.to(device)
    logits = model(input_ids=ids, attention_mask=reads, use_cache=False).logits[:, :-1]
    each = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (each * counts[:, 1:]).sum(1)


def sides(pairs: TokenPairs, rows: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and chosen response of some pairs, then prompt and rejected one."""
    return [
        (pairs.prompts[int(pairs.prompt[row])], side[row]) for side in (pairs.chosen, pairs.rejected) for row in rows
    ]


def plain_loss(model: Any, pairs: TokenPairs, rows: Sequence[int], reference: torch.Tensor, device: str) -> Any:
    """DPO's mean loss of some pairs from padded rows, under autocast; `reference`: log-ratios (b,)."""
    with torch.autocast(device, dtype=torch.bfloat16):
        chosen, rejected = plain_log_probs(model, sides(pairs, rows), device).chunk(2)
    return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected - reference)).mean()


# the rows ------------------------------------------------------------------------------------------------------------


def machine(bench: Bench) -> Row:
    """What it is, and how fast it multiplies."""
    size = 256 if bench.small else 8192
    one, two = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    took = timed(lambda: [one @ two for _ in range(10)], bench.device, 3)["s"] / 10
    on_gpu = bench.device != "cpu"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9 if on_gpu else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "bf16_product_tflop_s": 2 * size**3 / took / 1e12,
    }


def builtin(bench: Bench) -> Row:
    """The same figures on the device and on the CPU, in float32."""
    where = {"device": bench.device, "cpu": "cpu"}
    answers, replies = answers_of(40), replies_of(16, 1)
    lms = {name: load_model("builtin", device=device, dtype="float32") for name, device in where.items()}
    found: Row = {}
    read = {name: extract(answers, lm, cache=False, progress=False) for name, lm in lms.items()}
    found["answers_off"] = off(*(each.ref_chosen_logps for each in read.values()))
    found["states_off"] = off(*(each.states for each in read.values()))
    read = {name: extract(replies, lm, eos=True, cache=False, progress=False) for name, lm in lms.items()}
    found["replies_off"] = off(*(each.ref_chosen_logps for each in read.values()))
    found["sketches_off"] = off(*(each.chosen_features for each in read.values()))
    signals = []
    for lm in lms.values():
        names = [name for name, part in lm.model.named_modules() if isinstance(part, torch.nn.Linear)]
        few = tokenize_pairs(replies, lm, eos=True)
        signals.append(gradients(PairScorer(lm, few), [name for name in names if "lm_head" not in name], sides=False))
    for name in ("inputs", "signals"):
        each = [
            torch.cat([getattr(layer, name).flatten() for layer in one.layers.values()]).cpu().numpy()
            for one in signals
        ]
        found[f"gradient_{name}_off"] = off(*each)
    kept = [
        gradients(PairScorer(lm, tokenize_pairs(replies, lm, eos=True)), list(signals[0].layers), sides=False, rank=4)
        for lm in lms.values()
    ]
    found["gradients_lost"], found["gradients_lost_on_cpu"] = (each.lost for each in kept)
    rates: dict[Literal["last-layer", "lora", "full"], float] = {"last-layer": 0.01, "lora": 1e-4, "full": 1e-5}
    for tune, rate in rates.items():
        runs = [
            train(answers, "builtin", tune=tune, learning_rate=rate, steps=4, batch_size=8, precision="float32",
                  device=device, dtype="float32", cache=False, progress=False)
            for device in where.values()
        ]  # fmt: skip
        found[f"{tune}_margins_off"] = off(*(run.margins[4] for run in runs))
    with tempfile.TemporaryDirectory() as folder:  # as a command has it, with a checkpoint and the model written
        train(replies, "builtin", tune="lora", steps=4, batch_size=4, device=bench.device, cache=False,
              out=Path(folder) / "run", progress=False)  # fmt: skip
    return found


def off(one: Any, two: Any) -> float:
    """Largest difference, of the largest number."""
    return float(np.abs(one - two).max() / np.abs(two).max())


def model(bench: Bench) -> Row:
    """How long it takes to make the large model and to check it."""
    start = time.perf_counter()
    lm = bench.large()
    wait(bench.device)
    size = sum(each.numel() for each in lm.model.parameters())
    return {"parameters": size, "layers": bench.shape["num_hidden_layers"], "s": time.perf_counter() - start}


def answers(bench: Bench) -> Row:
    """Features of one-token answers."""
    lm, data = bench.large(), answers_of(40 if bench.small else 2000)
    pairs = tokenize_pairs(data, lm, strict=True)
    lengths = np.asarray([len(text) for text in pairs.prompts])
    size = 16384 // int(lengths.max())
    batches = [
        part
        for length in np.unique(lengths)
        for part in np.split(np.flatnonzero(lengths == length), range(size, int((lengths == length).sum()), size))
    ]
    last = torch.zeros(len(pairs.prompts), lm.vocabulary, dtype=torch.bfloat16 if lm.device != "cpu" else torch.float32)
    last = last.to(lm.device)

    def plain() -> None:
        with torch.inference_mode():
            for rows in batches:
                ids = torch.tensor([pairs.prompts[row] for row in rows.tolist()]).to(lm.device)
                last[torch.from_numpy(rows).to(lm.device)] = (
                    lm.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].to(last.dtype)
                )

    kept: list[FeatureSet] = []

    def ours() -> None:
        kept[:] = [extract(data, lm, cache=False, progress=False)]

    first, second = timed(ours, bench.device, bench.repeats), timed(plain, bench.device, bench.repeats)
    tokens = tokens_of(pairs)
    logits = last[torch.from_numpy(pairs.prompt).to(last.device)].float()
    places = [torch.tensor([ids[0] for ids in side], device=last.device) for side in (pairs.chosen, pairs.rejected)]
    chosen, rejected = (logits.log_softmax(1).gather(1, at[:, None])[:, 0].double().cpu().numpy() for at in places)
    feats = kept[0]
    assert feats.ref_chosen_logps is not None
    assert feats.ref_rejected_logps is not None
    margin = feats.ref_chosen_logps - feats.ref_rejected_logps
    return {
        "pairs": len(feats),
        **both(first, second, tokens),
        "shared_prefix": feats.provenance.settings["shared_prefix"],
        "log_prob_rms_off": float(np.sqrt(np.mean((feats.ref_chosen_logps - chosen) ** 2))),
        "margin_rms_off": float(np.sqrt(np.mean((margin - (chosen - rejected)) ** 2))),
        "margin_rms": float(np.sqrt(np.mean(margin**2))),
    }


def replies(bench: Bench) -> Row:
    """Sketched features of replies."""
    lm, data = bench.large(), replies_of(16, 2) if bench.small else replies_of(200, 5)
    pairs = tokenize_pairs(data, lm, eos=True)
    texts = sides(pairs, range(len(pairs)))
    order = sorted(range(len(texts)), key=lambda place: len(texts[place][0]) + len(texts[place][1]))
    size = max(1, 16384 // max(len(prompt) + len(reply) for prompt, reply in texts))
    log_probs = torch.zeros(len(texts), device=lm.device)

    def plain() -> None:
        with torch.inference_mode():
            for at in range(0, len(order), size):
                few = order[at : at + size]
                found = plain_log_probs(lm.model, [texts[place] for place in few], lm.device)
                log_probs[torch.tensor(few, device=lm.device)] = found

    kept: list[FeatureSet] = []

    def ours() -> None:
        kept[:] = [extract(data, lm, eos=True, cache=False, progress=False)]

    first = timed(ours, bench.device, bench.repeats)
    second = timed(plain, bench.device, bench.repeats)
    feats, up = kept[0], log_probs[: len(pairs)].double().cpu().numpy()
    return {
        "pairs": len(feats),
        **both(first, second, tokens_of(pairs)),
        "response_tokens": feats.provenance.settings["response_tokens"],
        "sketch_error": feats.provenance.settings["sketch_error"],
        "log_prob_rms_off": float(np.sqrt(np.mean((feats.ref_chosen_logps - up) ** 2))),
        "log_prob_mean": float(up.mean()),
    }


def prepared(
    bench: Bench, lm: LanguageModel, tune: str, batch: int, steps: int, replies: PreferenceDataset
) -> tuple[Subject, TrainingSettings]:
    """What `train` and `forecast` train, with the reference read as they read it."""
    models = Models.of(
        lm, Reading(device=bench.device, cache=False), share=True, progress=False, tell=lambda line: say(f"  {line}")
    )
    assert isinstance(models.team, Team)
    chosen: dict[str, Any] = {
        "learning_rate": RATE, "steps": steps, "batch_size": batch, "flip": False, "probes": (),
        "precision": "bfloat16",
    }  # fmt: skip
    if tune == "lora":
        chosen["lora"] = LORA
    return whole_model(replies, models, DPO(beta=BETA), None, tune, chosen)


def loop_of(subject: Subject, settings: TrainingSettings) -> Loop:
    """A run of the subject as it stands."""
    return Loop(subject.scorer, subject.parameters, subject.pairs, settings, lengths=subject.lengths)


def with_adapters(bench: Bench) -> tuple[Subject, TrainingSettings]:
    """The large model with adapters on it, put on once."""
    if bench.subject is None:
        data = replies_of(32, 2) if bench.small else replies_of(160, 5)
        size = 4 if bench.small else 8
        bench.subject, bench.settings = prepared(bench, bench.large(), "lora", size, 14, data)
        bench.start = {name: each.detach().clone() for name, each in bench.subject.parameters.items()}
    restore(bench.subject, bench.start)
    return bench.subject, bench.settings


def restore(subject: Subject, start: dict[str, torch.Tensor]) -> None:
    """Put trained weights back to where they were."""
    with torch.no_grad():
        for name, each in subject.parameters.items():
            each.copy_(start[name])


def steps_against(bench: Bench, subject: Subject, settings: TrainingSettings, start: dict[str, torch.Tensor]) -> Row:
    """Our steps, then the same batches from the same weights by a plain loop."""
    pairs = subject.scorer.pairs
    assert isinstance(pairs, TokenPairs)
    assert subject.lm is not None
    loop = loop_of(subject, settings)
    begin = loop.start()
    warm, count = (1, 2) if bench.small else (2, 5)
    first = timed(loop.advance, bench.device, count, warm=warm)
    loop.flush()
    losses = [row["loss"] for row in loop.progress.steps]
    free(bench.device)
    restore(subject, start)

    parameters = list(subject.parameters.values())
    adamw = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    ratios = torch.from_numpy(subject.pairs.ref_chosen - subject.pairs.ref_rejected).float().to(bench.device)
    theirs: list[torch.Tensor] = []

    def plain() -> None:
        rows = loop.pairs.train[loop.order[len(theirs)]].tolist()
        adamw.zero_grad(set_to_none=True)
        loss = plain_loss(subject.lm.model, pairs, rows, ratios[rows], torch.device(bench.device).type)  # type: ignore[union-attr]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
        theirs.append(loss.detach())

    second = timed(plain, bench.device, count, warm=warm)
    used = [loop.pairs.train[loop.order[step]].tolist() for step in range(warm, warm + count)]
    return {
        "trained": sum(each.numel() for each in parameters),
        "batch": settings.batch_size,
        **both(first, second, float(np.median([tokens_of(pairs, rows) for rows in used]))),
        "losses": [round(each, 5) for each in losses],
        "plain_losses": [round(float(each), 5) for each in theirs],
        "start_margin": float(np.abs(begin.margins).max()),
        "start_noise": begin.noise,
        "start_margin_limit": _DROWNED,
        "packed": bool(getattr(subject.scorer, "shared", False)),
    }


def lora(bench: Bench) -> Row:
    """Steps with adapters."""
    subject, settings = with_adapters(bench)
    return steps_against(bench, subject, settings, bench.start)


def gradient_rows(bench: Bench) -> tuple[Loop, np.ndarray]:
    """A run that is about to begin, and the pairs that a linear one would look at: half trained on, half held out."""
    subject, settings = with_adapters(bench)
    loop = loop_of(subject, settings)
    half = 8 if bench.small else 32
    held = np.flatnonzero(subject.pairs.held_out)
    return loop, np.concatenate([subject.pairs.train[:half], held[:half]])


def gradient(bench: Bench) -> Row:
    """What a forecast reads of every pair."""
    loop, rows = gradient_rows(bench)
    subject = bench.subject
    pairs, kind = subject.scorer.pairs, torch.device(bench.device).type
    ratios = torch.zeros(8, device=bench.device)
    parts = np.array_split(rows, max(1, len(rows) // 8))

    def padded() -> None:
        for part in parts:
            plain_loss(subject.lm.model, pairs, part.tolist(), ratios[: len(part)], kind).backward()

    def packed() -> None:
        for part in parts:
            with torch.autocast(kind, dtype=torch.bfloat16):
                scores = subject.scorer(part)
                (scores.chosen - scores.rejected).sum().backward()

    tokens = tokens_of(pairs, rows.tolist())
    second, third = (timed(work, bench.device, 1) for work in (padded, packed))
    for each in subject.parameters.values():
        each.grad = None
    free(bench.device)
    start, bench.found = time.perf_counter(), None
    found = bench.found = linearise(subject, loop, rows)
    wait(bench.device)
    took = time.perf_counter() - start
    terms = max(int(layer.counts.max()) for layer in found.signals.layers.values())
    texts = {side: tuple(getattr(pairs, side)[row] for row in rows.tolist()) for side in ("chosen", "rejected")}
    few = PairScorer(subject.lm, replace(pairs, prompt=pairs.prompt[rows], row=pairs.row[rows], **texts))
    modules = list(found.signals.layers)
    first = timed(lambda: gradients(few, modules, sides=False, rank=terms), bench.device, 1, warm=0)
    return {
        "pairs": len(rows),
        "modules": len(modules),
        **both(first, second, tokens),
        "packed_s": third["s"],
        "ratio_to_packed": third["s"] / first["s"],
        "linearise_s": took,
        "terms": terms,
        "lost": found.signals.lost,
        "held_gb": 4 * sum(layer.size for layer in found.signals.layers.values()) / 1e9,
        "arithmetic_512_pairs_s": 512 / len(rows) * first["s"],
    }


def linear(bench: Bench) -> Row:
    """A linear run's step, and what 500 settings would take."""
    if bench.found is None:
        loop, rows = gradient_rows(bench)
        bench.found = linearise(bench.subject, loop, rows)
    loop, rows = gradient_rows(bench)
    measured = int(bench.subject.pairs.held_out[rows].sum())
    row: Row = {"pairs": len(rows), "batch": bench.settings.batch_size}
    margins = {}
    for runs in (1, RUNS):
        factors = np.ones((len(rows), runs))

        def run(steps: int, factors: np.ndarray = factors) -> Any:
            return linear_margins(bench.found, loop, measured, records=[steps], factors=factors)[1]

        short, long = (timed(lambda steps=steps: run(steps), bench.device, 1) for steps in (2, 12))
        each = (long["s"] - short["s"]) / 10
        margins[runs] = run(12)
        row |= {f"step_s_{runs}": each, f"measure_s_{runs}": short["s"] - 2 * each, f"peak_gb_{runs}": long["peak_gb"]}
    row["runs_off"] = off(margins[RUNS][0, -1], margins[1][0, 0])
    row["arithmetic_100_steps_of_500_settings_s"] = 500 / RUNS * 100 * row[f"step_s_{RUNS}"]
    return row


def settings(bench: Bench) -> Row:
    """500 settings by `sweep`."""
    n, d, betas, rates = (200, 32, 4, 5) if bench.small else (10_000, 4096, 20, 25)
    steps, cut = (10, 4) if bench.small else (100, 10)
    rng = np.random.default_rng(0)
    states = rng.standard_normal((n, d), dtype=np.float32) * np.float32(4 / np.sqrt(d))
    chosen = rng.integers(0, 2, n)
    group = [f"group {code}" for code in rng.integers(0, 20, n)]
    feats = FeatureSet.from_arrays(states, chosen=chosen, rejected=1 - chosen, tokens=[0, 1], group=group)
    row: Row = {"pairs": n, "settings": betas * rates}
    for name, span in (("sgd", (0.05, 5.0)), ("adam", (1e-4, 1e-2))):

        def run(count: int, arrays: Any, name: str = name, span: tuple[float, float] = span) -> tuple[float, Any]:
            wait(bench.device)
            start = time.perf_counter()
            found = sweep(
                feats, beta=np.geomspace(0.03, 0.3, betas).tolist(), learning_rate=np.geomspace(*span, rates).tolist(),
                optimizer=name, steps=count, record="log" if count == steps else [count],
                margins_at=[cut] if count == cut else [], arrays=arrays, stop=NEVER,
            )  # fmt: skip
            wait(bench.device)
            return time.perf_counter() - start, found

        def put(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values).to(bench.device)

        run(1, put)
        (one, device), (two, host) = run(cut, put), run(cut, None)
        row |= {
            f"{name}_route": device.settings[0]["route"],
            f"{name}_{cut}_steps_s": one,
            f"{name}_{cut}_steps_on_cpu_s": two,
            f"{name}_ratio": two / one,
            f"{name}_margins_off": max(off(device[at].margins[cut], host[at].margins[cut]) for at in (0, -1)),
        }
        if name == "sgd":
            row[f"{name}_{steps}_steps_s"], _ = run(steps, put)
    return row


def full(bench: Bench) -> Row:
    """Steps of every weight."""
    bench.forget()
    lm = random_llama(bench.middle, bench.device, torch.float32)
    data = replies_of(16, 2) if bench.small else replies_of(64, 5)
    subject, chosen = prepared(bench, lm, "full", 4 if bench.small else 8, 8, data)
    start = {name: each.detach().clone() for name, each in subject.parameters.items()}
    return steps_against(bench, subject, chosen, start)


ROWS: dict[str, Callable[[Bench], Row]] = {
    "machine": machine, "builtin": builtin, "model": model, "answers": answers, "replies": replies, "lora": lora,
    "gradients": gradient, "linear": linear, "sweep": settings, "full": full,
}  # fmt: skip


# running -------------------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print now."""
    print(line, flush=True)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Stop what takes longer, between two operations."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rounded(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def tried(name: str, bench: Bench, seconds: float) -> Row:
    """A row, or what went wrong with it."""
    start = time.perf_counter()
    try:
        free(bench.device)
        with at_most(seconds):
            found = ROWS[name](bench)
    except Exception as error:  # the other rows go on, and the traceback is shown
        traceback.print_exc(file=sys.stderr)
        said = " ".join(str(error).split())[:300]
        found = {"error": f"{type(error).__name__}: {said}"}
    return rounded({**found, "row_s": time.perf_counter() - start})


def shapes(given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The large model and the middling one."""
    large: dict[str, Any] = {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    if given.small:
        large |= {"vocab_size": 4096, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2}
        large |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    given_sizes = {"num_hidden_layers": given.layers, "hidden_size": given.hidden}
    large |= {name: size for name, size in given_sizes.items() if size is not None}
    if given.small:
        return large, large
    return large, {**large, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}


def main() -> None:
    """Try the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"any of {', '.join(ROWS)}; all of them if none is named")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=150, help="of the whole, imports included")
    parser.add_argument("--row-seconds", type=float, default=45, help="of one row")
    parser.add_argument("--out", type=Path, help="where the rows are written as JSON")
    given = parser.parse_args()
    large, middle = shapes(given)
    bench = Bench(device=given.device, shape=large, middle=middle, small=given.small)
    done: dict[str, Row] = {}
    for name in given.rows or ROWS:
        left = given.seconds - (time.time() - psutil.Process().create_time())
        done[name] = tried(name, bench, min(left, given.row_seconds)) if left > 1 else {"error": "no time left"}
        say(f"{name} {json.dumps(done[name], ensure_ascii=False)}")
        if given.out is not None:
            given.out.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    main()
