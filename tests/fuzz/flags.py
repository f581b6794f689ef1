"""Sets of flags for every command: some that make sense, some that nobody meant."""

import json
from pathlib import Path
from random import Random
from typing import Any

import typer

from prefdyn.cli import app

COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
WITH_MODEL = ("audit", "extract", "simulate", "bounds", "train", "score", "plan", "check", "forecast")
ODD = [
    "", " ", ",", ",,", "x", "a,b", '"', '"a', "-", "-1", "0", "1", "1.5", "nan", "inf", "-inf", "1e309", "1e-400",
    "9" * 5000,
    "²", "🙂", "=1", "None", "null", "true", "x" * 5000, "a\nb", "\udcff", "\u202e", "../..", "~nobody-here/x", "a=b",
    ":", "[1]", "{}", "0x10", "1_0", "auto", "all", "full", "log", "none", "builtin", "١٢",
]  # fmt: skip
LARGE = [10**6, 2**31, 2**63, 10**30]
SENSE: dict[str, list[Any]] = {
    "data": ["d.jsonl", "d.csv", "one=d.jsonl", "builtin", "persona:p.jsonl", "hh:h.jsonl", "bad.jsonl",
             "nowhere.jsonl", "hf:o/n", "persona:d.jsonl", "r.jsonl", "builtin:responses", "builtin:other"],
    "model": ["builtin", "builtin", "nowhere", "o/n", "."],
    "features": ["features", "features", "d.jsonl", "nowhere", "audit"],
    "out": ["new", "new2", "audit", "d.jsonl", "d.jsonl/x", ".", "mine"],
    "groups": ["a", "b", "a,b", '"a",b', "c", "A"],
    "limit": [1, 2, 3, 4, 8, *LARGE],
    "group_column": ["group", "prompt", "nothing", "id"],
    "columns": ["prompt=prompt,chosen=chosen,rejected=rejected", "prompt=id", "first=chosen,second=rejected,winner=id"],
    "template": ["question", "statement", "question+newline", "other"],
    "split": [0.5, 0.9, 1, 1.0, 0, -1, 2, 0.01],
    "answers": ["Yes,No", " Yes, No", "Yes", "No,No", "Yes,Never ever", "a,b,c"],
    "max_length": [1, 2, 8, 100, *LARGE],
    "sketch": [0, 1, 2, 64, 4096],
    "exact": [0, 1, 3],
    "objective": ["sigmoid", "ipo", "hinge", "robust", "gpo_ipo", "sft", "sigmoid_norm", "dpo", "other", "sigmoid,ipo"],
    "label_smoothing": [0, 0.1, 0.5, 0.6, -1, 1],
    "beta": [0.1, 1, 0, -1, 1e-30, 1e30, "0.1,0.2"],
    "learning_rate": ["auto", 0.1, 1e-4, 0, -1, 1e30, "auto,0.1"],
    "optimizer": ["sgd", "adam", "adamw", "momentum", "nesterov", "rmsprop", "other", "sgd,adam"],
    "schedule": ["constant", "linear", "cosine", "other", "constant,linear"],
    "scheme": ["epochs", "replacement", "other"],
    "warmup": [0, 1, 5, *LARGE],
    "steps": [1, 2, 3, "2,3"],
    "batch_size": ["full", 1, 2, 5, 1000, *LARGE, "1,full"],
    "target": [0.1, 0.7, 0, -1, 5, "a:0.5", "a:0", "c:0.5", ":1", "a:"],
    "embedding": ["pca", "umap", "other"],
    "revision": ["main", "other"],
    "dtype": ["auto", "float32", "bfloat16", "float16", "float64", "int8"],
    "device": ["auto", "cpu", "cuda", "cuda:7", "meta", "tpu"],
    "attn": ["sdpa", "eager", "flash_attention_2", "other"],
    "batch_tokens": [1, 10, 1000, *LARGE],
    "seed": [0, 1, 2**31, 2**32, 2**63, 2**64, 10**30],
    "tune": ["last-layer", "lora", "full", "other"],
    "weight_decay": [0, 0.1, 1e30],
    "epochs": [0.5, 1, 0, -1, 1e-9],
    "accumulate": [1, 2, 3, *LARGE],
    "clip": [0, 1, 0.1, -1],
    "group_weights": ["a=2", "a=2,b=0.5", "a", "a=0", "a=-1", "a=nan", "c=2", '"a"=1e300', "a=1,a=2", "=1", "a=2,"],
    "goal": ["worst", "mean", "equal", "protect=a:.5", "protect=c:1", "target=a:.9", "target=a:2", "target=", "other"],
    "trained": ["audit", "nowhere", "d.jsonl", "features"],
    "write_for": ["llama-factory", "ms-swift", "axolotl", "trl", "axolotl,ms-swift"],
    "no_worse": [0, 0.1, -1, 1e30],
    "floor": [0.1, 0, 1, -1, 2],
    "ceiling": [10, 1, 0.5, 1e30],
    "fail_on": ["none", "copies", "PD004,looks-random", "pd001", "other", "copies,copies"],
    "ignore": ["copies", "PD010:a", "other", "PD010:", ":a", "PD101:c"],
    "limits": ["copies=1", "PD101=2,copies=0", "copies=-1", "copies=0.5", "other=1", "copies"],
    "space": ["o/n", "o", "o/n/m", "spaces/o/n"],
    "junit": ["j.xml", "d.jsonl", "mine", "nowhere/j.xml"],
    "markdown": ["m.md", "d.jsonl", "mine", "nowhere/m.md"],
    "init": ["i.yaml", "d.jsonl", "mine", "nowhere/i.yaml"],
    "explain": ["PD004", "copies", "other"],
    "check": ["none", "quick", "full", "other"],
    "figure_style": ["screen", "paper", "other"],
    "group": ["a", "b", "all", "no such group"],
    "card": ["dataset:o/n", "model:o/n", "space:o/n", "dataset", "model", "other"],
    "report_to": ["none", "tensorboard", "other", "trackio", "wandb,mlflow"],
    "lora_rank": [1, 2, 64],
    "lora_alpha": [1, 0, -1, 1e30],
    "lora_dropout": [0, 0.1, 1, 2, -1],
    "lora_targets": ["all-linear", "q_proj", "q_proj,v_proj", "nothing", "lm_head"],
    "precision": ["float32", "bfloat16", "float64", "float16"],
    "record": ["log", "all", "1,2", "0", "-1", "1000"],
    "probe_pairs": [1, 2, "all", *LARGE],
    "probes": ["none", "drift", "drift,states", "gradients", "other"],
    "checkpoint_every": [1, 2, *LARGE],
    "probe": ["auto", 0, 1, 2, -1, *LARGE],
    "rehearse": ["auto", 0, 0.125, 0.25, 2, -1],
    "watch": ["forecast", "trained", "nowhere", "d.jsonl"],
    "forecast": ["forecast", "trained", "nowhere", "d.jsonl"],
    "reference": ["builtin", "nowhere", "scores", "audit"],
    "autocast": ["bfloat16", "float16", "float32"],
    "to": ["t.jsonl", "t.csv", "t.parquet", "t.jsonl.gz", "t.txt", "d.jsonl", "mine", "nowhere/t.csv"],
    "loss": ["0.5", "0.5,0.3", "0", "-1"],
    "ref_chosen": [0.1, 0.5, 0, 1, 2],
    "ref_rejected": [0.1, 0.5, 0, 1, 2],
    "run": ["audit", "simulated", "features", "nowhere"],
    "preset": ["smoke", "small", "medium", "paper", "other"],
    "jobs": [1, 2],
    "launcher": ["local", "ray", "other"],
    "config": ["c.yaml", "bad.yaml", "nowhere.yaml", "d.jsonl"],
}  # fmt: skip
PLACES = ["audit", "simulated", "trained", "features", "nowhere", "d.jsonl", "mine", ""]
LONG = {"steps", "epochs", "jobs", "lora_rank", "sketch", "exact", "device"}
"""Flags whose odd numbers would be days of work, or gigabytes, rather than mistakes."""


def flag_set(rng: Random) -> list[str]:
    """One command line, without the name of the program."""
    name = rng.choice(sorted(COMMANDS))
    command = COMMANDS[name]
    given = [name]
    options = {parameter.name: parameter for parameter in command.params if parameter.opts[0].startswith("--")}
    positional = [parameter for parameter in command.params if parameter.name not in options]
    for parameter in positional:
        if parameter.name == "recipes":
            given += rng.choice(
                [[], ["all"], ["distinguishability"], ["other"], ["distinguishability", "value-scaling"]]
            )
        elif parameter.name == "part":
            given += rng.choice([[], ["weights"], ["data"], ["select"], ["settings"], ["undo"], ["all"], ["other"]])
        elif parameter.nargs == -1:
            given += [rng.choice(PLACES) for _ in range(rng.randrange(3))]
        else:
            given.append(rng.choice(PLACES))
    if name in WITH_MODEL:
        given += [*(["--data", "d.jsonl"] if rng.random() < 0.95 else []), "--limit", "4"]
        if "steps" in options:
            given += ["--steps", "2"]
    if name == "reproduce":
        given.append(rng.choice(["--dry-run", "--list"]))
    known = sorted(options.keys() - {"debug", *(["dry_run"] if name == "push" else [])})  # nothing here asks the hub
    chosen = rng.sample(known, min(rng.randrange(6), len(known)))
    for flag in chosen:
        parameter = options[flag]
        if parameter.is_flag:
            given.append(rng.choice([*parameter.opts, *parameter.secondary_opts]))
            continue
        values = SENSE[flag] if rng.random() < 0.75 or flag in LONG else ODD
        given += [parameter.opts[0], str(rng.choice(values))]
    if rng.random() < 0.03:
        given.append(rng.choice(["--other", "--beta", "-x", "--", "extra"]))
    return given


def inputs(folder: Path) -> None:
    """The files that the flags name, but for the folders of ours."""

    def lines(name: str, rows: list[dict]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    sides = [(" Yes", " No"), (" No", " Yes")]
    rows = [
        {"prompt": f"Is it {k}?", "chosen": sides[k % 2][0], "rejected": sides[k % 2][1], "group": "ab"[k // 2 % 2]}
        for k in range(24)
    ]
    lines("d.jsonl", rows)
    lines("bad.jsonl", [*rows[:6], {"prompt": None, "chosen": "a", "rejected": "b", "group": "a"}])
    lines("r.jsonl", [{"prompt": f"q{k}", "chosen": f" yes of course {k}", "rejected": f" no, {k}"} for k in range(8)])
    lines(
        "h.jsonl", [{side: f"\n\nHuman: {k}\n\nAssistant: {side}" for side in ("chosen", "rejected")} for k in range(6)]
    )
    statements = [
        {"question": f"{k}?", "statement": f"{k}", "answer_matching_behavior": sides[k % 2][0]}
        | {"answer_not_matching_behavior": sides[k % 2][1], "persona": "ab"[k // 2 % 2]}
        for k in range(8)
    ]
    lines("p.jsonl", statements)
    (folder / "d.csv").write_text(
        "prompt,chosen,rejected,group\n"
        + "".join(f'"{row["prompt"]}",{row["chosen"]},{row["rejected"]},a\n' for row in rows)
    )
    (folder / "c.yaml").write_text("limit: 3\n")
    (folder / "bad.yaml").write_text("limit: [1\n")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("keep me")
