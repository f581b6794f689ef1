"""What a plan leaves to train by: flags for `prefdyn train`, a dataset with weights, and settings for TRL."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from prefdyn._typed import factors_text
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.write import write
from prefdyn.dynamics.adjoint import HeadRun, one_setting
from prefdyn.dynamics.grid import Setting
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.settings import Reading, Source

_KEPT = {"model", "features", "seed", *Source.flags(), *Reading.flags()}
"""Flags that say what is read and how; `prefdyn train` has them, too."""


def plan_setting(feats: FeatureSet, what: str, run: HeadRun) -> Setting:
    """The setting of the runs that a plan rests on.

    Args:
        feats: For a learning rate that is "auto".
        what: What is planned, with its verb, for the message: "weights are planned".
        run: How the head is trained.

    Raises:
        ConfigError: The objective reads log-probabilities.
    """
    setting = one_setting(feats, run=run)
    if setting.objective.reads != "margins":
        raise ConfigError(f"{setting.objective.name!r} reads log-probabilities; {what} for losses of the margin")
    return setting


def described(setting: Setting, learning_rate: float | Literal["auto"], **rest: Any) -> dict[str, Any]:
    """What a plan's summary says of its runs; `learning_rate` as it was asked for."""
    rule = {"learning_rate_rule": "half of the largest stable step"} if learning_rate == "auto" else {}
    return setting.describe() | rest | rule


def write_recipe(
    folder: Path,
    weights: Mapping[str, float],
    setting: Setting,
    steps: int,
    *,
    texts: PreferenceDataset | None,
    flags: Mapping[str, Any],
    change: bool,
    mixture: Mapping[str, float] | None = None,
) -> None:
    """Write plan.yaml, trl.yaml and, where there are texts, dataset.jsonl with a column `weight`.

    Args:
        folder: An existing folder.
        weights: What the weights of each group are multiplied by.
        setting: Of the runs that the plan rests on.
        steps: Of those runs.
        texts: The pairs; their own weights are multiplied.
        flags: Of the command; `group_weights` as numbers by name.
        change: Whether the plan changes anything.
        mixture: Shares to draw groups by in place of weights, which plan.yaml tells beside them.
    """
    made = train_flags(weights, setting, steps, flags, change=change)
    if mixture and change:
        shares = json.dumps(mixture, ensure_ascii=False)
        made = f"# The same as a mixture, drawn with replacement, shares of a batch: {shares}\n" + made
    (folder / "plan.yaml").write_text(made, encoding="utf-8")
    objective = setting.objective
    trl = {"loss_type": objective.name, "beta": float(objective.beta)}
    if smoothing := getattr(objective, "label_smoothing", 0.0):
        trl["label_smoothing"] = float(smoothing)
    (folder / "trl.yaml").write_text(yaml.safe_dump(trl), encoding="utf-8")
    if texts is not None:
        present = {name: value for name, value in weights.items() if name in texts.groups}
        write(texts.weighted(present), folder / "dataset.jsonl")


def train_flags(
    weights: Mapping[str, float], setting: Setting, steps: int, flags: Mapping[str, Any], *, change: bool
) -> str:
    """plan.yaml: the run that the plan rests on, with its weights, for `prefdyn train --config`."""
    kept = {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in flags.items()
        if name in _KEPT and value is not None
    }
    kept = {name: value for name, value in kept.items() if value not in ([], False)}
    kept.pop("group_weights", None)
    given: Mapping[str, float] = flags.get("group_weights") or {}
    found = {name: round(value * given.get(name, 1.0), 4) for name, value in weights.items()} if change else given
    if found:
        kept["group_weights"] = factors_text(found)
    said = setting.describe()
    kept |= {"tune": "last-layer", "learning_rate": said["learning_rate"], "steps": steps}
    kept |= {name: said[name] for name in ("objective", "beta", "optimizer", "batch_size") if name in said}
    for name in ("label_smoothing", "weight_decay", "warmup", "scheme"):
        if said.get(name):
            kept[name] = said[name]
    if setting.schedule is not None:
        kept["schedule"] = setting.schedule.kind
    return (
        "# The run that the plan rests on, with its weights: prefdyn train --config plan.yaml\n"
        "# For adapters: prefdyn train --config plan.yaml --tune lora --optimizer adamw --learning-rate 1e-4 "
        "--batch-size 32\n" + yaml.safe_dump(kept, sort_keys=True, allow_unicode=True)
    )


TRL_LINES = (
    'data = load_dataset("json", data_files="dataset.jsonl", split="train")',
    'data = data.filter(lambda row: row.get("split", "train") == "train")',
    'args = DPOConfig(output_dir="out", **yaml.safe_load(open("trl.yaml")))',
    "GroupDPOTrainer(model, args=args, train_dataset=data, processing_class=tokenizer).train()",
)
"""What trains on the weighted dataset with TRL, in the plan's folder."""
