"""What people paste into the card of a dataset or a model: a section of Markdown under metadata as the hub has it.

The front matter of a model card is a `model-index`, as `huggingface_hub.ModelCardData` writes and reads it: one result
per group. A dataset card has no documented place for results, so its front matter holds tags alone.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from prefdyn._checks import one_of
from prefdyn._json import number
from prefdyn.errors import ConfigError
from prefdyn.maths.units import Z95
from prefdyn.report.facts import Fact, dataset_name, model_name, settings_tables
from prefdyn.report.folders import RunFolder
from prefdyn.report.says import says
from prefdyn.report.tables import minus, minus_signs, said, verdict_sentence
from prefdyn.report.text import as_markdown, visible

_COMMANDS = ("audit", "train")
_HEADS: Mapping[str, str] = {
    "dataset": "How preference optimisation learns these data",
    "model": "How preference optimisation moves this model",
}
_TAGS = ["dpo", "preference", "prefdyn"]
_TASK = {"type": "text-generation", "name": "Preference optimisation"}
_SETTINGS = ("objective", "beta", "learning_rate", "steps", "batch_size", "optimizer", "tune", "seed")
_DASH = "–"


def card(run: RunFolder, kind: str) -> str:
    """A card's section on what a run found: YAML front matter, then Markdown.

    Args:
        run: A folder of `audit` or of `train`.
        kind: `dataset` or `model`: whose card it is for.

    Returns:
        Text that `huggingface_hub.DatasetCard` or `ModelCard` parses. Names and texts of the data are no markup in it.

    Raises:
        ConfigError: The kind is unknown, or the folder is of another command.

    Example:
        >>> from pathlib import Path
        >>> groups = [{"name": "tone", "pairs": 40, "verdict": "early", "cross_fitted_loss": 0.5}]
        >>> summary = {"command": "audit", "groups": groups}
        >>> run = RunFolder(path=Path("audit-1"), summary=summary, trajectory=None, pairs=None)
        >>> print(next(line for line in card(run, "dataset").splitlines() if "tone" in line))
        | tone | 40 | early | 0.500 |
    """
    kind = one_of(kind, _HEADS, name="the card")
    if run.kind not in _COMMANDS:
        raise ConfigError(
            f"{run.path} is of `prefdyn {run.kind}`, of which there is no card; give one of audit or train"
        )
    parts = [
        _front_matter(run, kind),
        f"## {_HEADS[kind]}",
        _origin(run),
        *_answers(run),
        "### Groups",
        _groups(run),
        "### What cannot be told",
        *_limits(run),
        "### Settings and versions",
        _settings(run),
    ]
    return "\n\n".join(parts) + "\n"


def model_index(run: RunFolder) -> list[dict[str, Any]]:
    """The results of every group, as a model card's `model-index` has them; a group without a number has no result."""
    name = _short(dataset_name(run))
    results = [
        {
            "task": dict(_TASK),
            "dataset": {"name": f"{name}, {label}", "type": name, "config": label, "split": "held-out"},
            "metrics": metrics,
        }
        for label, row in zip(run.labels, run.groups, strict=True)
        if (metrics := _metrics(run, row))
    ]
    return [{"name": _short(model_name(run)), "results": results}] if results else []


# metadata ------------------------------------------------------------------------------------------------------------


def _front_matter(run: RunFolder, kind: str) -> str:
    held: dict[str, Any] = {"tags": list(_TAGS)}
    if kind == "model" and (index := model_index(run)):
        held["model-index"] = index
    return f"---\n{yaml.safe_dump(held, sort_keys=False, allow_unicode=True, width=math.inf)}---"


def _metrics(run: RunFolder, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, value and the settings that it was measured with, of each number that is known."""
    trained = run.kind == "train"
    settings = {key: value for key in _SETTINGS if _plain(value := run.part("settings", key))}
    found = []
    if not math.isnan(loss := _loss(run, row)):
        (low, high), name = _ends(run, row), "Held-out loss" if trained else "Held-out loss, simulated (last layer)"
        interval = {} if math.isnan(low) else {"interval_95": [round(low, 6), round(high, 6)]}
        found.append({"type": "loss", "value": round(loss, 6), "name": name, "args": {**settings, **interval}})
    key, name = ("held_out_reward_accuracy", "Held-out reward accuracy") if trained else _PROBE
    if not math.isnan(accuracy := number(row.get(key))):
        ends = [number(row.get(end)) for end in ("probe_low", "probe_high")]
        interval = {} if trained or any(map(math.isnan, ends)) else {"interval_95": [round(end, 6) for end in ends]}
        args = {"args": settings | interval} if trained else {"args": interval} if interval else {}
        found.append({"type": "accuracy", "value": round(accuracy, 6), "name": name, **args})
    return found


_PROBE = ("probe_accuracy", "Held-out accuracy of a linear probe on the model's states")


def _plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


# Markdown ------------------------------------------------------------------------------------------------------------


def _origin(run: RunFolder) -> str:
    pairs, version = run.part("dataset", "pairs"), run.part("provenance", "versions", "prefdyn")
    made = "An audit" if run.kind == "audit" else "A training run"
    size = (
        f" ({pairs:,} pairs, {len(run.groups):,} group{'' if len(run.groups) == 1 else 's'})" if _whole(pairs) else ""
    )
    by = f" of prefdyn {as_markdown(visible(version))}" if version else " of prefdyn"
    data, model = (as_markdown(_short(name)) for name in (dataset_name(run), model_name(run)))
    return f"{made}{by}, of {data}{size} with the model {model}."


def _answers(run: RunFolder) -> list[str]:
    found = []
    for row in run.part("answers") or []:
        sentence = as_markdown(minus_signs(str(row.get("sentence", ""))))
        pairs = ", ".join(as_markdown(visible(name)) for name in row.get("pairs") or [])
        listed = f" Pairs: {pairs}." if pairs else ""
        found.append(f"**{as_markdown(visible(row.get('title', '')))}.** {sentence}{listed}")
    return found


def _groups(run: RunFolder) -> str:
    """The table, a sentence of counts, and what its columns are."""
    head = ["group", "pairs", "units", "verdict", "held-out loss (95 % interval)"]
    rows = [
        [label, _count(row.pairs), _count(row.units), said(row) or _DASH, _interval(run, item)]
        for label, row, item in zip(run.labels, run.rows, run.groups, strict=True)
    ]
    note = (
        "Losses are of one run, which another seed would move; no interval is given."
        if run.kind == "train"
        else "Units are prompts, or clusters of near-equal ones. The held-out loss is that at the end of a simulated "
        "joint run of the last layer; it starts at log 2 = 0.693 (sigmoid)."
    )
    if run.kind == "train":
        head[-1], head[-2] = "held-out loss", "held-out reward accuracy"
        for row, item in zip(rows, run.groups, strict=True):
            row[-2] = minus(item.get("held_out_reward_accuracy"))
    kept = [place for place in range(len(head)) if place == 0 or any(row[place] != _DASH for row in rows)]
    table = _table([head[place] for place in kept], [[row[place] for place in kept] for row in rows])
    return "\n\n".join(part for part in (table, as_markdown(verdict_sentence(run.summary)), note) if part)


def _limits(run: RunFolder) -> list[str]:
    nothing = [
        f"“{label}”"
        for label, row in zip(run.labels, run.rows, strict=True)
        if row.verdict in ("cannot tell", "looks random")
    ]
    told = [f"Of {as_markdown(', '.join(nothing))} nothing is claimed."] if nothing else []
    if run.kind == "audit":
        limits = [as_markdown(item) for item in says(run)[1]]
    else:
        limits = [
            "These are the numbers of one run of one seed on the pairs that it held out.",
            "It says nothing about what is generated: no text was sampled, and no behaviour outside these pairs was "
            "measured.",
        ]
    return ["\n".join(f"- {item}" for item in [*told, *limits])]


def _settings(run: RunFolder) -> str:
    shown = ("Settings", "Model", "Versions")
    rows: list[Fact] = [
        (f"model: {name}" if heading == "Model" else name, value)
        for heading, facts in settings_tables(run)
        if heading in shown
        for name, value in facts
    ]
    digest = run.part("dataset", "sha256")
    rows += [("sha256 of the data", visible(digest))] if digest else []
    return _table(["", ""], [[name, _short(value)] for name, value in rows if value != _DASH])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([as_markdown(entry) for entry in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _loss(run: RunFolder, row: Mapping[str, Any]) -> float:
    keys = ("held_out_final_loss",) if run.kind == "train" else ("cross_fitted_loss", "predicted_held_out_loss")
    return next((value for key in keys if not math.isnan(value := number(row.get(key)))), math.nan)


def _ends(run: RunFolder, row: Mapping[str, Any]) -> tuple[float, float]:
    """The 95 % interval of the loss; NaN where there is none."""
    crossed = not math.isnan(number(row.get("cross_fitted_loss")))
    error = number(row.get("cross_fitted_loss_error" if crossed else "predicted_held_out_loss_error"))
    loss = math.nan if run.kind == "train" else _loss(run, row)
    return loss - Z95 * error, loss + Z95 * error


def _interval(run: RunFolder, row: Mapping[str, Any]) -> str:
    loss, (low, high) = _loss(run, row), _ends(run, row)
    if math.isnan(loss):
        return _DASH
    return minus_signs(f"{loss:.3f}" if math.isnan(low) else f"{loss:.3f} ({low:.3f} to {high:.3f})")


def _count(value: Any) -> str:
    return _DASH if math.isnan(number(value)) else f"{number(value):,.0f}"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(name: str) -> str:
    """A name without the folders of the machine that it was made on.

    Example:
        >>> _short("/home/me/models/chat"), _short("owner/chat"), _short("train.jsonl")
        ('chat', 'owner/chat', 'train.jsonl')
    """
    return _FOLDERS.sub("", name) or PurePath(name).name or name


_FOLDERS = re.compile(r"^(?:[~.]*[/\\]|[A-Za-z]:[/\\]).*[/\\](?=[^/\\])|^[~.]*[/\\](?=[^/\\])")
