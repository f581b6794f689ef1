"""The report: one HTML file that asks for nothing from outside, made from output folders."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prefdyn._files import atomic_write
from prefdyn.report.compare import compare_chapter
from prefdyn.report.figures import figure_bytes
from prefdyn.report.folders import RunFolder, number, run_of
from prefdyn.report.grid import grid_chapter
from prefdyn.report.many import drawn, drawn_words
from prefdyn.report.palette import AGAINST, GROUPS, TOWARDS, UNKNOWN, VERDICTS, look
from prefdyn.report.panels import Panel, panel_json, panels
from prefdyn.report.proved import proved_chapter
from prefdyn.report.responses import given_away, pair_lists, sketch_fact, sketch_words, trust_words
from prefdyn.report.tables import by_attention, said, shown, verdict_sentence
from prefdyn.report.text import readable, sentence, visible
from prefdyn.report.training import reading_chapter, training_pictures

_HEAT_STEPS = 20
_LEFT_OUT_SHOWN = 50
_FINDINGS_SHOWN = 200
_NAMES_SHOWN = 6
"""Groups named beside each verdict on top of the page."""
_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\d)")
"""A hyphen that stands for a minus sign."""
_CHAPTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("curves", "Learning curves", ("loss-curves",)),
    ("apart", "What the model tells apart", ("distinguishability", "probe")),
    ("first", "What comes first", ("priority", "order")),
    ("together", "Groups and each other", ("cosine", "influence", "embedding")),
    ("head", "First step and exact training", ("first-step", "exact-curves", "exact-log-probs")),
    (
        "probabilities",
        "Margins and probabilities",
        ("margin-curves", "accuracy-curves", "log-prob-curves", "chosen-falling"),
    ),
    ("weights", "Weights, gradients and states", ("gradient-norm", "state-curves")),
)
_FACTS = {
    "tune": "Tuned", "objective": "Objective", "optimizer": "Optimizer", "steps": "Steps", "batch_size": "Batch",
    "learning_rate": "Learning rate", "beta": "Beta", "flip": "Labels flipped",
}  # fmt: skip
"""Settings of a training run that stand on top of its page."""
_GROUP_KEYS = ("distinguishability", "probe_accuracy", "priority", "predicted_held_out_loss", "predicted_rank")
_TRAINED_KEYS = (
    "final_loss", "held_out_final_loss", "final_margin", "held_out_reward_accuracy", "held_out_policy_accuracy",
    "chosen_change", "rank",
)  # fmt: skip
_VERDICT_ORDER = tuple(VERDICTS)
_SEVERITIES = ("problem", "warning", "note")


def write_report(folders: Any, path: str | Path, *, static: bool = True) -> Path:
    """Write one self-contained HTML page about one or several runs.

    Args:
        folders: The path of an output folder, a RunFolder, what `audit` returned, or a sequence of these: one section
            each, with an index on top.
        path: The HTML file.
        static: Also embed still pictures, for readers without scripts.

    Returns:
        The path written.

    Raises:
        StoreError: A folder cannot be read.
    """
    many = folders if isinstance(folders, Sequence) and not isinstance(folders, str) else [folders]
    runs = [run_of(item) for item in many]
    path = Path(path)
    atomic_write(path, render(runs, static=static).encode("utf-8"))
    return path


def render(runs: Sequence[RunFolder], *, static: bool = True) -> str:
    """The page as text."""
    loader = PackageLoader("prefdyn.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["formed"] = _formed
    style = colour_rules() + loader.get_source(environment, "report.css")[0]
    script = loader.get_source(environment, "report.js")[0]
    return environment.get_template("report.html.j2").render(
        title=_title(runs),
        sections=[_section(run, place, static=static) for place, run in enumerate(runs)],
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def colour_rules() -> str:
    """CSS variables of the palette on light and on dark, and one class per group colour, verdict and heat step."""
    looks = [*VERDICTS.values(), UNKNOWN]

    def variables(side: str) -> str:
        shades = {f"g{place}": shade for place, shade in enumerate(GROUPS)}
        shades |= {f"v-{item.key}": item.shade for item in looks}
        shades |= {"against": AGAINST, "towards": TOWARDS}
        return "".join(f"--{name}:{getattr(shade, side)};" for name, shade in shades.items())

    rules = [
        f":root{{{variables('light')}}}",
        f"@media (prefers-color-scheme: dark){{:root{{{variables('dark')}}}}}",
        f"@media print{{:root{{{variables('light')}}}}}",
    ]
    rules += [f".g{place}{{--c:var(--g{place})}}" for place in range(len(GROUPS))]
    rules += [f".v-{item.key}{{--c:var(--v-{item.key})}}" for item in looks]
    for step in range(_HEAT_STEPS + 1):
        share = 100 * step / _HEAT_STEPS
        rules.append(f".hp{step}{{fill:color-mix(in oklab,var(--towards) {share:g}%,var(--mid))}}")
        rules.append(f".hn{step}{{fill:color-mix(in oklab,var(--against) {share:g}%,var(--mid))}}")
    return "\n".join(rules) + "\n"


def script_json(value: Any) -> Markup:
    r"""JSON that can stand inside a script element: no <, > or & in it, so no tag or comment can begin or end there.

    Example:
        >>> print(script_json({"name": "</script><!--"}))
        {"name":"\u003c/script\u003e\u003c!--"}
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _number(value: Any, digits: int = 3) -> str:
    return shown(value, digits).replace("-", "−")


def _formed(value: Any, form: str) -> str:
    """A number in a column: every row with the same format, an en dash where it is not known."""
    value = number(value)
    return "–" if np.isnan(value) else format(value, form).removesuffix(".").replace("-", "−")


def _title(runs: Sequence[RunFolder]) -> str:
    if len(runs) == 1:
        return f"{_dataset(runs[0])} · {_model(runs[0])}"
    return f"{len(runs)} runs"


def _dataset(run: RunFolder) -> str:
    return visible(run.part("dataset", "name") or run.path.name)


def _model(run: RunFolder) -> str:
    return visible(run.part("model", "name") or "unknown model")


def _section(whole: RunFolder, place: int, *, static: bool) -> dict[str, Any]:
    run = drawn(whole)
    shown = {panel.id: panel for panel in panels(run)}
    pictures = {name: _picture(panel, static=static) for name, panel in shown.items()}
    groups = (
        []
        if run.part("grid") is not None
        else [_group(row, code, responses=run.responses) for code, row in enumerate(run.groups)]
    )
    order = sorted(range(len(groups)), key=lambda code: (*by_attention(run.groups[code]), code))
    single, command = len(groups) == 1, run.part("command")
    compared, trained = compare_chapter(run), command == "train"
    groups = [] if compared else groups
    order = order if groups else []
    chapters = [
        {
            "id": key,
            "heading": "The pairs" if single and key == "together" else heading,
            "pictures": [pictures[name] for name in names if name in pictures],
            "absent": _absent(run, key, [name for name in names if name not in pictures]),
        }
        for key, heading, names in _CHAPTERS
        if not (single and key == "first") and not compared
    ]
    data = {
        "groups": [
            {
                "name": label,
                "verdict": look(verdict).key,
                "shape": look(verdict).shape,
                "filled": look(verdict).filled,
                "says": visible(verdict) if verdict else "",
                "place": _VERDICT_ORDER.index(verdict) if verdict in _VERDICT_ORDER else len(_VERDICT_ORDER),
            }
            for label, verdict in zip(run.labels, run.verdicts, strict=True)
        ],
        "colours": list(next(iter(shown.values())).colours) if shown else [],
        "panels": [panel_json(panel) for panel in shown.values()],
    }
    return {
        "id": f"r{place}",
        "command": visible(run.part("command") or "run"),
        "folder": visible(run.path.name or str(run.path)),
        "dataset": _dataset(run),
        "heading": _heading(run, compared),
        "model": _model(run),
        "learned": command != "field",
        "simulated": command != "field" and not trained and not compared and run.part("grid") is None,
        "compared": compared,
        "reading": reading_chapter(whole),
        "training": training_pictures(run),
        "proved": proved_chapter(run),
        "grid": grid_chapter(run),
        "leads_with_proved": run.part("command") in {"bounds", "field"},
        "facts": _facts_of(whole),
        "sentence": verdict_sentence(whole.summary),
        "bar": _bar(whole),
        "groups": [groups[code] for code in order],
        "columns": _columns(groups),
        "has_verdicts": any(run.verdicts),
        "single": single,
        "chapters": [
            chapter for chapter in chapters if (chapter["pictures"] or chapter["absent"]) and run.part("grid") is None
        ],
        "agreement": pictures.get("agreement"),
        "look_at": pair_lists(run),
        "at_odds": [_example(row) for row in run.part("examples", "at_odds") or []],
        "findings": _findings(run),
        "is_audit": run.part("command") == "audit",
        "says": _says(run),
        "tables": _settings(run),
        "thresholds": [
            {"verdict": visible(row.get("verdict", "")), "rule": readable(str(row.get("rule", "")))}
            for row in run.part("verdict_thresholds") or []
        ],
        "warnings": [
            *(readable(str(text)) for text in run.part("warnings") or []),
            *([words] if (words := drawn_words(whole)) else []),
        ],
        "left_out": _left_out(run),
        "files": _files(run),
        "json": script_json(data),
    }


def _picture(panel: Panel, *, static: bool) -> dict[str, Any]:
    still = None
    if static:
        raw = figure_bytes(panel, formats=("svg",))["svg"]
        still = "data:image/svg+xml;base64," + base64.b64encode(raw).decode()
    return {"id": panel.id, "title": panel.title, "caption": panel.caption, "kind": panel.kind, "still": still}


def _group(row: Mapping[str, Any], code: int, *, responses: bool) -> dict[str, Any]:
    verdict = row.get("verdict")
    return {
        "code": code,
        "name": visible(row.get("name", "")),
        "pairs": row.get("pairs"),
        "train_pairs": row.get("train_pairs"),
        "held_out_pairs": row.get("held_out_pairs"),
        "verdict": said(row) or None,
        "look": look(verdict).key,
        "because": _sentence(row.get("verdict_because")),
        "advice": _sentence(row.get("advice")),
        "numbers": {
            key: None if np.isnan(number(row.get(key))) else number(row.get(key))
            for key in (*_GROUP_KEYS, *_TRAINED_KEYS)
        },
        "attention": by_attention(row)[0],
        "given_away": given_away(row) if responses else "",
        "tokens": [number(row.get(key)) for key in ("chosen_tokens", "rejected_tokens")] if responses else None,
    }


def _sentence(text: Any) -> str:
    return _MINUS.sub("−", sentence(text))


def _columns(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    every = (
        ("distinguishability", "Distinguish\u00adability", "falling", "#.3g"),
        ("probe_accuracy", "Held-out probe", "falling", ".3f"),
        ("priority", "Priority", "falling", ".3f"),
        ("predicted_held_out_loss", "Held-out loss", "rising", ".3f"),
        ("predicted_rank", "Rank", "rising", ".0f"),
        ("final_loss", "Training loss", "rising", ".3f"),
        ("held_out_final_loss", "Held-out loss", "rising", ".3f"),
        ("final_margin", "Margin", "falling", ".3f"),
        ("held_out_reward_accuracy", "Reward accuracy", "falling", ".3f"),
        ("held_out_policy_accuracy", "Policy accuracy", "falling", ".3f"),
        ("chosen_change", "Chosen, nats", "falling", ".2f"),
        ("rank", "Rank", "rising", ".0f"),
    )
    return [
        {"key": key, "label": label, "plain": label.replace("\u00ad", ""), "way": way, "form": form}
        for key, label, way, form in every
        if any(group["numbers"][key] is not None for group in groups)
        and (len(groups) > 1 or key not in {"priority", "predicted_rank", "rank"})
    ]


def _bar(run: RunFolder) -> list[dict[str, Any]]:
    """One part per verdict that occurs: count, share, meaning and the groups, first learned first."""
    order = sorted(range(len(run.groups)), key=lambda code: by_attention(run.groups[code]))
    parts, names, verdicts = [], run.names, run.verdicts
    known = [*VERDICTS, *sorted({v for v in verdicts if v} - set(VERDICTS))]
    done = 0.0
    for verdict in known:
        inside = [code for code in order if verdicts[code] == verdict]
        if inside:
            share = 100 * len(inside) / len(run.groups)
            parts.append(
                {
                    "verdict": visible(verdict),
                    "look": look(verdict).key,
                    "means": look(verdict).means,
                    "count": len(inside),
                    "start": done,
                    "share": share,
                    "names": [visible(names[code]) for code in inside[:_NAMES_SHOWN]],
                }
            )
            done += share
    return parts


def _heading(run: RunFolder, compared: Mapping[str, Any] | None) -> str:
    if run.part("command") == "field":
        return "The gradient field of DPO"
    if compared:
        told = " against ".join(compared["names"])
        return told[0].upper() + told[1:]
    return _dataset(run)


def _facts_of(run: RunFolder) -> list[tuple[str, str]]:
    if run.part("command") == "field":
        return _field_facts(run)
    if run.part("comparison") is not None:
        return _compared_facts(run)
    return _facts(run) if run.part("grid") is None else _grid_facts(run)


def _compared_facts(run: RunFolder) -> list[tuple[str, str]]:
    """What the two folders are, and what they share."""
    part = run.part("comparison")
    names, folders, commands = (part.get(key) or ["", ""] for key in ("names", "folders", "commands"))
    facts = [
        (visible(name), f"{visible(command)}, {visible(folder)}")
        for name, command, folder in zip(names, commands, folders, strict=False)
    ]
    return [*facts, ("Data", _dataset(run)), ("Groups compared", f"{len(run.groups):,}")]


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    pairs, groups = run.part("dataset", "pairs"), len(run.groups)
    facts = [("Pairs", f"{pairs:,}" if isinstance(pairs, int) else "–"), ("Groups", f"{groups:,}")]
    held_out = run.part("features", "held_out")
    if isinstance(held_out, int):
        facts.append(("Held out", f"{held_out:,}"))
    kind = run.part("features", "kind")
    if kind and not run.responses:
        answers = [visible(repr(text)) for text in run.part("features", "answers") or []]
        facts.append(("Answers", " / ".join(answers[:4]) if answers and kind == "answers" else visible(kind)))
    if run.responses:
        facts += [("Kind", "long responses"), ("Sketch", sketch_fact(run))]
    if run.part("command") == "train":
        given = [(label, run.part("settings", key)) for key, label in _FACTS.items()]
        return facts + [
            (label, _number(value) if isinstance(value, float) else "yes" if value is True else visible(value))
            for label, value in given
            if value is not None and value is not False
        ]
    steps, rate, beta = (run.part("settings", key) for key in ("steps", "learning_rate", "beta"))
    facts += [("Steps", visible(steps))] if steps is not None else []
    facts += [("Learning rate", _number(rate))] if rate is not None else []
    facts += [("Beta", _number(beta))] if beta is not None else []
    return facts


def _grid_facts(run: RunFolder) -> list[tuple[str, str]]:
    """The facts of a run without its one setting, and how many settings there are."""
    facts = [fact for fact in _facts(run) if fact[0] not in {"Steps", "Learning rate", "Beta"}]
    counts = (("Settings", "runs"), ("Different runs", "solved"))
    return facts + [(label, visible(value)) for label, key in counts if (value := run.part("settings", key))]


def _field_facts(run: RunFolder) -> list[tuple[str, str]]:
    named = (("Beta", "beta"), ("Reference, chosen", "ref_chosen"), ("Reference, rejected", "ref_rejected"))
    return [(label, _number(value)) for label, key in named if (value := run.part("settings", key)) is not None]


def _absent(run: RunFolder, chapter: str, names: Sequence[str]) -> str:
    if not names or not run.groups:
        return ""
    if run.part("command") != "audit" and chapter in {"apart", "first", "together"}:
        return ""
    if run.part("command") != "train" and chapter == "weights":
        return ""
    if chapter == "head" and not (run.responses and run.part("command") == "audit"):
        return ""
    if len(run.groups) == 1 and chapter == "together":
        return (
            "There is one group, so nothing is said about an order or about groups and each other. With a group "
            "column, or several sources, there is."
        )
    words = {
        "order": "the comparison with the predicted order (it needs three groups)",
        "priority": "priorities",
        "cosine": "cosines between groups",
        "influence": "influence between groups",
        "embedding": "the picture of the pairs",
        "distinguishability": "distinguishability",
        "probe": "the held-out probe",
        "loss-curves": "learning curves",
        "log-prob-curves": "log-probabilities (these features carry no reference log-probabilities)",
        "chosen-falling": f"the share of falling chosen {run.said}s",
        "margin-curves": "margins",
        "accuracy-curves": "accuracies",
        "gradient-norm": "gradients per group",
        "state-curves": "what becomes of the states (they stay as they are where the head alone is trained)",
        "first-step": "the first step's push on both responses",
        "exact-curves": "exact training of the head on a sample of pairs",
        "exact-log-probs": "what exact training does to chosen and rejected apart",
    }
    return "Not measured in this run: " + ", ".join(words[name] for name in names) + "."


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    def text(key: str) -> str | None:
        value = row.get(key)
        return None if value is None else readable(str(value))

    return {
        "id": visible(row.get("id", "")),
        "group": visible(row.get("group", "")),
        "prompt": text("prompt"),
        "chosen": text("chosen"),
        "rejected": text("rejected"),
        "numbers": [
            ("Push by all others", row.get("agreement")),
            ("By its own group", row.get("group_agreement")),
            ("Push on chosen", row.get("chosen_push")),
            ("Final margin", row.get("margin")),
        ],
    }


def _findings(run: RunFolder) -> list[dict[str, Any]]:
    found = [
        {
            "severity": row.get("severity") if row.get("severity") in _SEVERITIES else "note",
            "group": visible(row["group"]) if row.get("group") is not None else None,
            "says": readable(str(row.get("says", ""))),
            "count": row.get("count"),
            "pairs": [visible(name) for name in row.get("pairs") or []],
        }
        for row in run.part("findings") or []
    ]
    found = sorted(found, key=lambda row: _SEVERITIES.index(row["severity"]))
    if len(found) <= _FINDINGS_SHOWN:
        return found
    says = f"{len(found) - _FINDINGS_SHOWN:,} more findings like these are in summary.json, which lists all."
    rest = {"severity": "note", "group": None, "says": says, "count": None, "pairs": []}
    return [*found[:_FINDINGS_SHOWN], rest]


def _says(run: RunFolder) -> dict[str, list[str]]:
    """What the simulation can and cannot tell, given how this run was made."""
    settings = run.part("settings") or {}
    does = [
        "It trains the model's last layer alone on the states that the frozen model has for these prompts"
        + (" and responses, " if run.responses else ", ")
        + (
            "in full batches of plain gradient descent. "
            if settings.get("optimizer", "sgd") == "sgd" and settings.get("batch_size", "full") == "full"
            else f"with {visible(settings.get('optimizer', 'sgd'))} and a batch size of "
            f"{visible(settings.get('batch_size', 'full'))}. "
        )
        + (
            "With one-token answers this is exact: the curves are what such a run does, not an approximation."
            if not run.responses
            else trust_words(run)
        ),
        "It gives an order and a relative speed: which groups move first, which wait, which are pushed the wrong "
        "way by "
        "the rest, as long as the states stay roughly what they are.",
        "Verdicts rest on held-out pairs, on intervals and on what "
        f"{'swapped sides' if run.responses else 'shuffled labels'} give, never on a training curve alone.",
    ]
    does_not = [
        "It does not give a step count for a LoRA or full run. There the states move too, every layer has its own step "
        "size, and the optimizer is usually Adam on small batches: a group that comes late here can come earlier "
        "there once "
        "its features form.",
        "It does not see what the model could learn to represent. A group that looks like noise to the frozen "
        "states may "
        "still be learnable by a run that changes them; a group that is separable here is not thereby understood.",
        "It says nothing about what is generated: no text is sampled, and no behaviour outside these pairs is "
        "measured.",
        "The agreement between this prediction and a real run has not been measured here. Train on a part of the "
        "data, and hold the two against each other with `prefdyn compare` before relying on this one.",
    ]
    if settings.get("learning_rate_rule"):
        rate = _number(settings.get("learning_rate"))
        does.append(
            f"The learning rate, {rate}, is set by a rule: {visible(settings['learning_rate_rule'])}. Another "
            f"rate stretches "
            "or squeezes the curves; a larger one can reorder groups that overshoot."
        )
    if run.part("model", "tied_head"):
        does_not.append("The model ties its head to its embeddings. The simulation trains a copy of the head, untied.")
    if words := sketch_words(run):
        does_not.append(words)
    if run.part("features", "double_norm"):
        does_not.append(
            "The final norm is applied twice, to match published figures. It is not what the model computes."
        )
    return {"does": does, "does_not": does_not}


def _settings(run: RunFolder) -> list[dict[str, Any]]:
    parts = (
        ("Settings", run.part("settings")),
        ("Dataset", {k: v for k, v in (run.part("dataset") or {}).items() if k != "left_out"}),
        ("Model", run.part("model")),
        ("Features", {k: v for k, v in (run.part("features") or {}).items() if k != "answers" or v}),
        ("Versions", run.part("provenance", "versions")),
        ("Time", {k.removesuffix("_s"): f"{number(v):.1f} s" for k, v in (run.part("timings") or {}).items()}),
    )
    return [
        {"heading": heading, "rows": _rows(values)}
        for heading, values in parts
        if isinstance(values, Mapping) and values
    ]


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        if isinstance(value, bool):
            text = "yes" if value else "no"
        elif value is None:
            text = "–"
        elif isinstance(value, float):
            text = _number(value, 4)
        elif isinstance(value, int) and key not in {"seed"}:
            text = f"{value:,}"
        elif isinstance(value, list | dict):
            text = visible(json.dumps(value, ensure_ascii=False))
        else:
            text = visible(value)
        rows.append((visible(key).replace("_", " "), text if len(text) <= 300 else text[:299] + "…"))
    return rows


def _left_out(run: RunFolder) -> list[str]:
    lines = []
    for row in run.part("dataset", "left_out") or []:
        if not isinstance(row, Mapping):
            continue
        place = row.get("id") if row.get("id") is not None else f"{row.get('source')}, line {row.get('line')}"
        field = f", {row['field']}" if row.get("field") else ""
        lines.append(visible(f"{place}{field}: {row.get('reason', '')}"))
    if len(lines) > _LEFT_OUT_SHOWN:
        more = f"… and {len(lines) - _LEFT_OUT_SHOWN:,} more; summary.json lists all {len(lines):,}"
        return [*lines[:_LEFT_OUT_SHOWN], more]
    return lines


def _files(run: RunFolder) -> list[str]:
    listed = run.part("files")
    if isinstance(listed, list) and listed:
        return [visible(name) for name in listed]
    beside = ("summary.json", "groups.csv", "trajectory.parquet", "pairs.parquet", "modules.parquet", "steps.csv",
              "config.yaml", "figures", "checkpoints", "model")  # fmt: skip
    return [f"{name}/" if (run.path / name).is_dir() else name for name in beside if (run.path / name).exists()]
