"""Output folders with plausible numbers, made without a model: few or many groups, missing numbers, hostile names."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from prefdyn.trajectory import MODULES, SCHEMA

LOG2 = math.log(2)

HOSTILE = (
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "very-long-" * 30 + "name",
    "👩‍🚀 emoji 🚀",
    "العربية من اليمين",
    "quotes \"double\" 'single' `tick`",
    "two\nlines",
    "</script><img src=x onerror=alert(2)>",
    "{{ 7 * 7 }} {% raw %}",
    "$\\frac{1}{0}$ & <b>bold</b>",
    "\x1b[31mred\x07 \u202eesrever",
    "<!-- comment --> ]]>",
    "",
    "javascript:alert(3)",
)

WORDS = [
    "agree",
    "desire",
    "believe",
    "power",
    "help",
    "honest",
    "risk",
    "art",
    "science",
    "music",
    "memory",
    "goals",
    "safety",
    "wealth",
    "trust",
    "open",
    "calm",
]
VERDICTS = ("conflicting", "left behind", "looks random", "memorised", "trivial", "cannot tell")


def names_for(count: int) -> list[str]:
    """Plausible names of behaviours, all different."""
    if count == 1:
        return ["all"]
    found = []
    for place in range(count):
        first, second = WORDS[place % len(WORDS)], WORDS[(place * 7 + 3) % len(WORDS)]
        form = ("{0}-{1}", "interest-in-{1}-{0}", "desire-for-{0}-without-human-{1}", "believes-in-{1}-and-{0}")
        found.append(form[place % 4].format(first, second) + (f"-{place}" if place >= 17 else ""))
    return found


def make_folder(
    folder: Path,
    *,
    names: list[str] | int = 5,
    seed: int = 0,
    command: str = "audit",
    missing: bool = False,
    points: int = 2000,
    twin: bool = False,
) -> Path:
    """Write summary.json, trajectory.parquet and pairs.parquet; `missing` turns many numbers into null."""
    rng = np.random.default_rng(seed)
    names = names_for(names) if isinstance(names, int) else list(names)
    m = len(names)
    folder.mkdir(parents=True, exist_ok=True)
    steps = [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 16, 19, 23, 28, 33, 40, 48, 58, 69, 83, 100]

    gap = np.sort(rng.gamma(3.0, 0.5, m))[::-1] + 0.15
    verdicts = [("early", "middle", "late")[min(2, 3 * place // m)] if m > 2 else "learned" for place in range(m)]
    if m >= 5:
        odd = rng.permutation(m)[: max(2, m // 4)]
        for turn, place in enumerate(odd):
            verdicts[place] = VERDICTS[turn % len(VERDICTS)]

    rows, groups = [], []
    for code, name in enumerate(names):
        kind, speed = verdicts[code], gap[code] ** 2 / 90
        pairs = 14 if kind == "cannot tell" else int(rng.integers(150, 1000))
        held_out = max(1, pairs // 10)
        if kind in ("looks random", "conflicting", "left behind"):
            gap[code] = 0.2 if kind == "looks random" else 0.7
        final = {}
        for run in ("joint", "alone"):
            for split in ("train", "held_out"):
                for step in steps:
                    margin = 2.2 * (1 - math.exp(-speed * step))
                    if run == "joint" and kind == "conflicting":
                        margin *= -0.25
                    if run == "joint" and kind == "left behind":
                        margin *= 0.06
                    if split == "held_out":
                        margin *= {"looks random": -0.1, "memorised": 0.04}.get(kind, 0.85)
                    loss = math.log1p(math.exp(-margin))
                    values = {
                        "run": run,
                        "step": step,
                        "time": 0.5 * step,
                        "group": name,
                        "split": split,
                        "pairs": held_out if split == "held_out" else pairs - held_out,
                        "loss": loss,
                        "margin": margin,
                        "reward_accuracy": 0.0 if step == 0 else float(np.clip(0.5 + margin / 4, 0, 1)),
                        "policy_accuracy": float(np.clip(0.5 + margin / 5, 0, 1)),
                        "chosen_log_prob": -3 + margin * 3,
                        "rejected_log_prob": -3 - margin * 6,
                        "chosen_change": margin * 3 - 0.8 * (code % 5 == 2) * step / 20,
                        "rejected_change": -margin * 6,
                        "chosen_falling": 0.0
                        if step == 0
                        else float(np.clip(0.3 - margin / 8 + 0.4 * (code % 5 == 2), 0, 1)),
                        "drift": 0.2 * math.log1p(step),
                    }
                    if missing and code % 3 == 1:
                        values |= dict.fromkeys(("chosen_change", "rejected_change", "chosen_falling"))
                        if split == "held_out":
                            values |= dict.fromkeys(("loss", "margin", "reward_accuracy"))
                    rows.append(values)
                    final[run, split] = values
        probe = float(np.clip(0.52 + gap[code] / 5, 0.5, 0.995))
        words = float(np.clip(probe - 0.1 + rng.normal(0, 0.05), 0.45, 1))
        row = {
            "name": name,
            "pairs": pairs,
            "train_pairs": pairs - held_out,
            "held_out_pairs": held_out,
            "distinguishability": gap[code] + 0.05,
            "distinguishability_exponent": -0.3 * code,
            "debiased": gap[code],
            "debiased_low": max(0.0, gap[code] - 0.25),
            "debiased_high": gap[code] + 0.2,
            "concentration": 3.1,
            "trace": 11.0,
            "concentration_ratio": 2.0,
            "trace_ratio": 4.0,
            "fisher_ratio": 0.3,
            "gaussian_kl": 0.2,
            "null_rms": 0.18 + 0.02 * rng.random(),
            "null_z": 8.0,
            "null_p": 0.002,
            "null_p_adjusted": 0.02,
            "probe_accuracy": probe,
            "probe_low": probe - 0.05,
            "probe_high": min(1.0, probe + 0.04),
            "probe_chance": 0.5,
            "auc": probe,
            "words_accuracy": words,
            "words_low": words - 0.05,
            "words_high": min(1.0, words + 0.05),
            "length_accuracy": 0.5 + 0.04 * rng.random(),
            "length_low": 0.44,
            "length_high": 0.6,
            "priority": float(np.clip(gap[code] / gap.max() + rng.normal(0, 0.05), -1, 1))
            - 0.6 * (kind == "conflicting"),
            "first_step_margin": 0.02 * gap[code],
            "predicted_rank": code + 1,
            "predicted_final_loss": final["joint", "train"]["loss"],
            "predicted_final_margin": final["joint", "train"]["margin"],
            "predicted_held_out_loss": final["joint", "held_out"]["loss"],
            "predicted_held_out_accuracy": final["joint", "held_out"]["reward_accuracy"],
            "predicted_alone_loss": final["alone", "train"]["loss"],
            "predicted_chosen_change": final["joint", "train"]["chosen_change"],
            "predicted_rejected_change": final["joint", "train"]["rejected_change"],
            "predicted_chosen_falling": final["joint", "train"]["chosen_falling"],
            "verdict": kind,
            "verdict_because": f"ranks {code + 1} of {m} by area under the held-out loss, which falls by 0.1834",
            "advice": "Expect it to follow the first groups in a joint run.",
        }
        if twin:
            row |= {
                "untrained_distinguishability": gap[code] * 0.6,
                "untrained_probe_accuracy": probe - 0.06,
                "untrained_probe_low": probe - 0.1,
                "untrained_probe_high": probe - 0.02,
            }
        if missing and code % 2 == 0:
            gone = "debiased_low debiased_high null_rms probe_accuracy probe_low probe_high words_accuracy priority"
            row |= dict.fromkeys([*gone.split(), "predicted_rank"])
        if command == "simulate":
            kept = {"name", "pairs", "train_pairs", "held_out_pairs"}
            row = {key: value for key, value in row.items() if key in kept or key.startswith("predicted")}
        groups.append(row)

    axes = rng.normal(size=(m, 6)) + np.array([1.2, 0, 0, 0, 0, 0])
    unit = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    moved = axes - axes.mean(axis=0) if m > 1 else axes
    centred = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    sample = min(points, 400 * m)
    owner = rng.integers(0, m, sample)
    positive = rng.random(sample) < 0.5
    cloud = axes[owner, :2] * 1.4 + np.where(positive, 1, -1)[:, None] * axes[owner, 2:4] * 0.5
    cloud = cloud + rng.normal(0, 0.6, (sample, 2))
    texts = [*HOSTILE[:4], 'Is the following statement something you would say?\n"I trust people" ' + "and so on " * 40]
    summary = {
        "schema": 1,
        "command": command,
        "provenance": {
            "data": {"name": "persona", "pairs": 70321, "sha256": "3f" * 32},
            "model": {"name": "tinystories-chat-3M-gptneo", "sha256": "a9" * 32},
            "settings": {"beta": 0.1, "steps": 100},
            "seed": 0,
            "versions": {"python": "3.12.1", "prefdyn": "0.1.0", "numpy": "2.3.0"},
        },
        "dataset": {
            "name": "persona",
            "pairs": sum(row["pairs"] for row in groups),
            "groups": m,
            "sha256": "3f" * 32,
            "left_out": [{"source": "a.jsonl", "line": 7, "field": "chosen", "reason": "empty <b>text</b>"}],
        },
        "model": {
            "name": "tinystories-chat-3M-gptneo",
            "architecture": "GPTNeoForCausalLM",
            "hidden_size": 128,
            "vocabulary": 14019,
            "layers": 8,
            "parameters": 3_300_000,
            "dtype": "float32",
            "device": "cpu",
            "attention": "sdpa",
            "tied_head": True,
            "revision": None,
            "sha256": "a9" * 32,
        },
        "features": {
            "kind": "answers",
            "sketch": None,
            "answers": [" Yes", " No"],
            "width": 128,
            "pairs": 5000,
            "held_out": 500,
            "double_norm": False,
        },
        "settings": {
            "objective": "sigmoid",
            "beta": 0.1,
            "learning_rate": 0.0123456,
            "optimizer": "sgd",
            "learning_rate_rule": "half of the largest stable step",
            "steps": 100,
            "batch_size": "full",
            "seed": 0,
            "split": 0.9,
            "template": "question",
        },
        "groups": groups,
        "bounds": [],
        "warnings": ["No chat template: prompts are read as they are."],
        "timings": {"extract_s": 31.2, "diagnose_s": 4.1, "simulate_s": 2.2, "report_s": 3.0},
        "files": ["summary.json", "groups.csv", "trajectory.parquet", "pairs.parquet", "report.html"],
    }
    if command == "audit":
        summary |= {
            "diagnostics": {
                "order": {
                    "distinguishability": {"spearman": 0.951, "kendall": 0.832, "groups": m},
                    "priority": {"spearman": 0.97, "kendall": 0.88, "groups": m},
                },
                "priority_gap": (rng.normal(size=(m, m)) * 0.2).tolist(),
                "influence": {"matrix": (0.02 * (axes @ axes.T)).tolist(), "unit": "reward margin, first step"},
                "cosine": {
                    "raw": (unit @ unit.T).tolist(),
                    "raw_without_self": (unit @ unit.T).tolist(),
                    "centred": (centred @ centred.T).tolist(),
                    "centred_without_self": (centred @ centred.T).tolist(),
                    "null": 0.06,
                    "raw_mean": 0.41,
                    "raw_max": 0.93,
                    "centred_mean": 0.01,
                    "centred_max": 0.71,
                    "rows": "positive",
                },
                "distances": {"labels": [], "matrix": []},
                "geometry": {"effective_rank": 11.3, "shared_norm": 2.31, "spread": 0.74},
                "embedding": {
                    "method": "pca",
                    "explained": [0.31, 0.12],
                    "x": cloud[:, 0].round(4).tolist(),
                    "y": cloud[:, 1].round(4).tolist(),
                    "group": owner.tolist(),
                    "positive": positive.tolist(),
                    "id": [f"p{n}" for n in range(sample)],
                    "of": 70321,
                },
            },
            "verdict_thresholds": [
                {"verdict": "cannot tell", "rule": "under 20 units, or one class"},
                {"verdict": "looks random", "rule": "the same, and the interval excludes 0.6"},
                {"verdict": "early · middle · late", "rule": "thirds of the predicted rank"},
            ],
            "findings": [
                {
                    "code": "conflict",
                    "severity": "problem",
                    "group": names[0],
                    "count": 3,
                    "pairs": ["p1", "p2", "p3"],
                    "says": "The same prompt is labelled both ways.",
                },
                {
                    "code": "duplicate",
                    "severity": "warning",
                    "group": None,
                    "count": 412,
                    "pairs": ["p9"],
                    "says": "412 pairs occur more than once.",
                },
                {
                    "code": "long",
                    "severity": "note",
                    "group": names[-1],
                    "count": 1,
                    "pairs": [],
                    "says": "One prompt is <i>longer</i> than the model's context.",
                },
            ],
            "examples": {
                "at_odds": [
                    {
                        "id": f"p{n}",
                        "group": names[n % m],
                        "prompt": texts[n % len(texts)],
                        "chosen": " Yes",
                        "rejected": texts[(n + 1) % len(texts)] if n % 4 == 0 else " No",
                        "agreement": -0.031 + 0.001 * n,
                        "group_agreement": 0.002 * n,
                        "chosen_push": None if missing else -0.01,
                        "margin": -0.42 + 0.01 * n,
                    }
                    for n in range(12)
                ]
            },
        }
        if missing:
            matrix = summary["diagnostics"]["influence"]["matrix"]
            matrix[0][-1] = None
            summary["diagnostics"]["order"]["priority"] = {"spearman": None, "kendall": None, "groups": m}
    (folder / "summary.json").write_text(json.dumps(summary, ensure_ascii=True, allow_nan=False), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "trajectory.parquet")
    count = 1200
    agreement = rng.normal(0.01, 0.012, count)
    pq.write_table(
        pa.table(
            {
                "id": [f"p{n}" for n in range(count)],
                "group": [names[n % m] for n in range(count)],
                "split": ["held_out" if n % 10 == 0 else "train" for n in range(count)],
                "agreement": agreement if not missing else [None if n % 5 == 0 else x for n, x in enumerate(agreement)],
                "chosen_push": rng.normal(0.002, 0.01, count),
                "margin": rng.normal(0.8, 0.7, count),
                "findings": [["opposite"] if n % 7 == 0 else [] for n in range(count)],
            }
        ),
        folder / "pairs.parquet",
    )
    return folder


RESPONSES = ("style", "length", "random", "against")
PROMPT = "How do I keep my plants alive in winter?\n\n  They stand in a cold room,\tfar from the window."
REPLY = "Put them near the light.\n\n1. Water them less.\n2. Keep them from the draught.\n    (That is all.)"


def make_responses_folder(
    folder: Path,
    *,
    names: list[str] | int | None = None,
    seed: int = 0,
    missing: bool = False,
    twin: bool = True,
    exact: bool = True,
    sketch: int | None = 4096,
    drift: float = 2.0,
    texts: tuple[str, ...] = (PROMPT, REPLY, "No. " + "And so it goes on, one word after another. " * 90),
) -> Path:
    """An audit on long responses; `drift` scales how far first order is off in log-probabilities apart."""
    names = list(RESPONSES) if names is None else names_for(names) if isinstance(names, int) else list(names)
    make_folder(folder, names=names, seed=seed, missing=missing, twin=twin)
    rng = np.random.default_rng(seed + 1)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    error = {"pairs": 64, "rms": 0.013, "expected": 0.016, "largest": 0.061}
    summary["features"] = {
        "kind": "responses",
        "sketch": sketch,
        "sketch_error": error if sketch else None,
        "answers": [],
        "width": 128,
        "pairs": 720,
        "held_out": 72,
    }
    for place, row in enumerate(summary["groups"]):
        if names == list(RESPONSES):
            row["verdict"] = ("learned", "giveaway", "looks random", "conflicting")[place]
        elif row["verdict"] == "trivial":
            row["verdict"] = "giveaway"
        length = 0.97 if row["verdict"] == "giveaway" else 0.5 + 0.06 * rng.random()
        reference = 0.5 + 0.2 * rng.random()
        row |= {
            "distinguishability": row["debiased"],
            "raw_mean_norm": 2.4 + row["debiased"],
            "length_accuracy": length,
            "length_low": length - 0.07,
            "length_high": min(1.0, length + 0.06),
            "reference_accuracy": reference,
            "reference_low": reference - 0.07,
            "reference_high": min(1.0, reference + 0.07),
            "chosen_push": rng.normal(0.03, 0.05),
            "rejected_push": rng.normal(-0.05, 0.05),
            "chosen_falls_first": rng.uniform(0.1, 0.7),
            "ches": rng.normal(-40, 15),
            "chosen_tokens": rng.uniform(30, 90),
            "rejected_tokens": rng.uniform(20, 70),
        }
        if missing and place % 2 == 0:
            row |= dict.fromkeys(("chosen_push", "reference_accuracy", "ches", "chosen_tokens"))
    summary["diagnostics"]["cosine"]["rows"] = "all"
    cloud = summary["diagnostics"]["embedding"]
    cloud["positive"] = [None] * len(cloud["x"])
    summary["exact"] = _exact(summary["groups"][: max(1, len(names) - 1)], drift, missing=missing) if exact else None
    summary["displacement"] = (
        {
            "pairs": 40,
            "first_step": {"spearman": 0.8, "low": 0.65, "high": 0.89, "p": 3e-10},
            "ches": {"spearman": -0.14, "low": -0.44, "high": 0.18, "p": 0.38},
            "against": "chosen log-probability change after 100 steps of exact training",
        }
        if exact
        else None
    )

    def pair(place: int) -> dict:
        shown = {side: texts[(place + turn) % len(texts)] for turn, side in enumerate(("prompt", "chosen", "rejected"))}
        cut = any(len(text) > 4000 for text in shown.values())
        return {
            "id": f"p{place}",
            "group": names[place % len(names)],
            **({side: text[:3999] + "…" if len(text) > 4000 else text for side, text in shown.items()}),
            **({"cut": True} if cut else {}),
            "agreement": -0.031 + 0.001 * place,
            "group_agreement": None if missing else 0.002 * place,
            "chosen_push": -0.4 + 0.01 * place,
            "rejected_push": -0.6 + 0.01 * place,
            "margin": -0.42 + 0.01 * place,
            "chosen_tokens": 31 + place,
            "rejected_tokens": 24 + place,
        }

    summary["examples"] = {
        "at_odds": [pair(place) for place in range(12)],
        "chosen_falls": [pair(place) for place in range(3, 9)],
        "opposites": [{"cosine": -0.97, "first": pair(1), "second": pair(2)}],
        "looked_at": {"opposites": 4096, "of": 9000, "found": 1},
    }
    if missing:
        for side in ("prompt", "chosen", "rejected"):
            summary["examples"]["chosen_falls"][0][side] = None
        summary["examples"]["opposites"] = None
    (folder / "summary.json").write_text(json.dumps(summary, ensure_ascii=True, allow_nan=False), encoding="utf-8")
    return folder


def _exact(groups: list[dict], drift: float, *, missing: bool) -> dict:
    """Exact training of ten pairs of each group, and first-order curves whose gap is known."""
    steps = [0, 1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 80, 100]
    told, gap = [], {"loss": 0.0, "margin": 0.0, "chosen_change": 0.0}
    for code, row in enumerate(groups):
        margin = [1.5 * (1 - math.exp(-step / (20 + 8 * code))) for step in steps]
        near = [value * (1 + 0.02 * value) for value in margin]
        chosen = [2.1 * value / 1.5 for value in margin]
        far = [value + drift * value**2 / 2.1 for value in chosen]
        curves = {
            "exact_loss": [math.log1p(math.exp(-value)) for value in margin],
            "first_order_loss": [math.log1p(math.exp(-value)) for value in near],
            "exact_margin": margin,
            "first_order_margin": near,
            "exact_chosen_change": chosen,
            "first_order_chosen_change": far,
            "exact_rejected_change": [value - 10 * r for value, r in zip(chosen, margin, strict=True)],
            "first_order_rejected_change": [value - 10 * r for value, r in zip(far, near, strict=True)],
        }
        for key in gap:
            pairs = zip(curves[f"exact_{key}"], curves[f"first_order_{key}"], strict=True)
            gap[key] = max(gap[key], *(abs(one - other) for one, other in pairs))
        if missing and code % 3 == 1:
            curves["first_order_chosen_change"] = []
        told.append({"name": row["name"], "pairs": 10, **curves})
    return {
        "pairs": 10 * len(groups),
        "steps": 100,
        "recorded": steps,
        "learning_rate": 0.0123,
        "why": "what takes little time",
        "groups": told,
        "gap": gap,
    }


def make_trained_folder(
    folder: Path,
    *,
    names: list[str] | int = 5,
    seed: int = 0,
    tune: str = "lora",
    steps: int = 300,
    layers: int = 4,
    held_out: bool = True,
    speed: float = 1.0,
) -> Path:
    """What `prefdyn train` leaves behind but its model: groups learned at unlike pace, states that move."""
    rng = np.random.default_rng(seed)
    names = names_for(names) if isinstance(names, int) else list(names)
    folder.mkdir(parents=True, exist_ok=True)
    at = sorted({0, 1, 2, 3, 4, 5, 6, 8, *np.geomspace(9, steps, 18).round().astype(int).tolist()})
    splits = ("train", "held_out") if held_out else ("train",)
    gap = np.linspace(2.2, 0.4, len(names)) * rng.uniform(0.9, 1.1, len(names))
    head = tune == "last-layer"
    rows, groups = [], []
    for code, name in enumerate(names):
        pairs = int(rng.integers(120, 900))
        counts = {"train": pairs - pairs // 10, "held_out": pairs // 10}
        final = {}
        for split in splits:
            for step in at:
                margin = (
                    2.0 * (1 - math.exp(-speed * gap[code] ** 2 * step / 150)) * (0.8 if split == "held_out" else 1)
                )
                ratio = margin / 0.1
                values = {
                    "run": "joint",
                    "step": step,
                    "time": 1e-4 * step,
                    "group": name,
                    "split": split,
                    "pairs": min(counts[split], 200),
                    "loss": math.log1p(math.exp(-margin)),
                    "margin": margin,
                    "reward_accuracy": 0.0 if step == 0 else float(np.clip(0.55 + margin / 4, 0, 0.97)),
                    "policy_accuracy": float(np.clip(0.5 + margin / 5, 0, 0.95)),
                    "chosen_log_prob": -3 + 0.3 * ratio,
                    "rejected_log_prob": -3 - 0.7 * ratio,
                    "chosen_change": 0.3 * ratio,
                    "rejected_change": -0.7 * ratio,
                    "chosen_falling": 0.0 if step == 0 else 0.2,
                    "drift": 0.15 * math.log1p(step),
                    "gradient_norm": 0.4 * gap[code] / (1 + margin),
                    "distinguishability": gap[code] * (1 if head else 1 + 0.5 * margin),
                    "concentration": 0.6,
                    "trace": 3.1 * (1 if head else 1 - 0.1 * margin),
                }
                rows.append(values)
                final[split] = values
        row = {"name": name, "pairs": pairs, "held_out_pairs": counts["held_out"] if held_out else 0, "rank": code + 1}
        keys = {"loss": "final_loss", "margin": "final_margin"}
        keys |= {key: key for key in ("reward_accuracy", "policy_accuracy")}
        keys |= {key: key for key in ("chosen_change", "rejected_change", "chosen_falling")}
        for prefix, split in (("", "train"), ("held_out_", "held_out")):
            row |= {f"{prefix}{new}": final.get(split, {}).get(old) for old, new in keys.items()}
        for key in ("distinguishability", "concentration", "trace"):
            own = [each[key] for each in rows if each["group"] == name and each["split"] == "train"]
            row |= {f"{key}_before": own[0], key: own[-1]}
        groups.append(row)
    settings = {
        "tune": tune,
        "objective": "sigmoid",
        "beta": 0.1,
        "optimizer": "sgd" if head else "adamw",
        "learning_rate": 1e-4,
        "learning_rate_rule": "default",
        "schedule": "constant",
        "steps": steps,
        "batch_size": 32,
        "precision": "float32",
        "flip": False,
        "seed": seed,
        "start_margin": 0.0,
    }
    summary = {
        "schema": 1,
        "command": "train",
        "provenance": {
            "data": {"name": "persona", "pairs": 70321, "sha256": "3f" * 32},
            "model": {"name": "tinystories-chat-3M-gptneo", "sha256": "a9" * 32},
            "settings": settings,
            "seed": seed,
            "versions": {"python": "3.12.1", "prefdyn": "0.1.0"},
        },
        "dataset": {
            "name": "persona",
            "pairs": sum(row["pairs"] for row in groups),
            "groups": len(names),
            "sha256": "3f" * 32,
            "left_out": [],
        },
        "model": {"name": "tinystories-chat-3M-gptneo", "hidden_size": 128, "vocabulary": 14019, "tied_head": True},
        "features": {"kind": "answers"},
        "settings": settings,
        "groups": groups,
        "bounds": [],
        "training": {"first_batch": {}, "last_batch": {}, "trained_pairs": 2000, "model": "model"},
        "warnings": [],
        "timings": {"train_s": 12.5},
    }
    (folder / "summary.json").write_text(json.dumps(summary, allow_nan=False), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "trajectory.parquet")
    pq.write_table(_modules(rng, tune, layers, at), folder / "modules.parquet")
    updates = np.arange(1, steps + 1)
    csv.write_csv(
        pa.table(
            {
                "step": updates,
                "learning_rate": np.full(steps, 1e-4),
                "pairs": np.full(steps, 32),
                "loss": 0.69 - 0.4 * (1 - np.exp(-updates / 90)) + rng.normal(0, 0.05, steps),
                "grad_norm": 1.5 * np.exp(-updates / 200) + rng.gamma(2, 0.1, steps),
                "rewards/margins": 2 * (1 - np.exp(-updates / 90)),
            }
        ),
        folder / "steps.csv",
    )
    ids = [f"p{n}" for n in range(20 * len(names))]
    owner = [names[n % len(names)] for n in range(len(ids))]
    pq.write_table(
        pa.table(
            {
                "id": ids,
                "group": pa.array(owner, pa.string()),
                "split": ["train"] * len(ids),
                "chosen_tokens": pa.array([1] * len(ids), pa.int32()),
                "agreement": pa.nulls(len(ids), pa.float64()),
                "margin": rng.normal(1, 1, len(ids)),
            }
        ),
        folder / "pairs.parquet",
    )
    return folder


def _modules(rng, tune, layers, at):
    """Drift of a head alone, of adapters (without norms), or of every weight of a GPT-Neo."""
    kinds = ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj", "mlp.c_fc", "mlp.c_proj")
    if tune == "last-layer":
        found = ["lm_head"]
    elif tune == "lora":
        found = [f"base_model.model.transformer.h.{k}.{kind}" for k in range(layers) for kind in kinds]
    else:
        found = ["transformer.wte", "transformer.wpe", "transformer.ln_f"]
        found += [f"transformer.h.{k}.{kind}" for k in range(layers) for kind in (*kinds, "ln_1")]
    rows = []
    for name in found:
        size, norm = rng.gamma(2, 0.05), None if tune == "lora" else float(rng.uniform(3, 30))
        rows += [{"step": s, "module": name, "drift": size * math.sqrt(s), "norm": norm} for s in at]
    return pa.Table.from_pylist(rows, schema=MODULES)
