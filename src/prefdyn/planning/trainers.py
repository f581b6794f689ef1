"""A plan for other people's trainers: a dataset and a configuration in the form that each of them documents.

None of them takes a weight per pair. So the weights become how often a pair stands in the file, and an epoch is made
shorter by as much, so that as many pairs are seen as in one epoch of the data.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float, Int

from prefdyn._checks import one_of
from prefdyn._shape import of_many
from prefdyn.data.conversation import ARGUMENTS, SIDES, TOOLS, Conversation
from prefdyn.data.pairs import TRAIN, PreferenceDataset
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import Objective

_LARGEST = 4.0
"""The file holds at most this many times as many rows as there are pairs."""
_TOKENS = 2048
_BATCH, _ACCUMULATED = 8, 4
_RANK, _ALPHA, _RATE = 16, 32, 1e-4
"""As `prefdyn train --tune lora --optimizer adamw --batch-size 32`."""
_TEXT = frozenset({"role", "content"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a configuration says, whoever reads it."""

    model: str
    loss: str
    beta: float
    smoothing: float
    epochs: float
    tokens: int
    talks: bool
    """Pairs are messages, for the model's chat template; else texts, to be read as they are."""
    folder: str
    """Where the files will lie, as the command is to be given it."""
    seed: int


class Trainer(NamedTuple):
    """One way to train that is not ours."""

    command: str
    """What trains, in front of the configuration's path."""
    losses: tuple[str, ...]
    """Of those that plans are for."""
    row: Callable[[Sequence[dict[str, Any]], str, str], dict[str, Any]]
    """From the prompt's messages and two texts to a row of the dataset."""
    config: Callable[[Job], dict[str, Any]]
    plain: bool = False
    """Pairs of plain texts are written as prompt, chosen and rejected."""
    alternates: bool = False
    """Takes user and assistant in turn alone, after at most one system text."""
    register: Callable[[], dict[str, Any]] | None = None
    """What its dataset_info.json holds."""


# llama-factory --------------------------------------------------------------------------------------------------------

_TAGS = {"user": "human", "assistant": "gpt", "system": "system"}


def _shared(prompt: Sequence[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    turns = [{"from": _TAGS[turn["role"]], "value": turn["content"]} for turn in prompt]
    return {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
    }


def _shared_info() -> dict[str, Any]:
    return {
        "prefdyn": {
            "file_name": "dataset.jsonl",
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
        }
    }


def _llama_factory(job: Job) -> dict[str, Any]:
    return {
        "model_name_or_path": job.model, "stage": "dpo", "do_train": True, "finetuning_type": "lora",
        "lora_rank": _RANK, "lora_alpha": _ALPHA, "lora_target": "all",
        "pref_loss": job.loss, "pref_beta": job.beta,
        **({"dpo_label_smoothing": job.smoothing} if job.smoothing else {}),
        "dataset_dir": job.folder, "dataset": "prefdyn", **({} if job.talks else {"template": "empty"}),
        "cutoff_len": job.tokens, "output_dir": f"{job.folder}/output",
        "per_device_train_batch_size": _BATCH, "gradient_accumulation_steps": _ACCUMULATED,
        "learning_rate": _RATE, "num_train_epochs": job.epochs, "seed": job.seed,
    }  # fmt: skip


# ms-swift -------------------------------------------------------------------------------------------------------------


def _rejected_response(prompt: Sequence[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    return {"messages": [*prompt, {"role": "assistant", "content": chosen}], "rejected_response": rejected}


def _ms_swift(job: Job) -> dict[str, Any]:
    return {
        "rlhf_type": "dpo", "model": job.model, "tuner_type": "lora", "lora_rank": _RANK, "lora_alpha": _ALPHA,
        "target_modules": "all-linear", "loss_type": job.loss, "beta": job.beta,
        **({"label_smoothing": job.smoothing} if job.smoothing else {}),
        "dataset": f"{job.folder}/dataset.jsonl", "split_dataset_ratio": 0.0, "use_chat_template": job.talks,
        "max_length": job.tokens, "output_dir": f"{job.folder}/output",
        "per_device_train_batch_size": _BATCH, "gradient_accumulation_steps": _ACCUMULATED,
        "learning_rate": _RATE, "num_train_epochs": job.epochs, "seed": job.seed,
    }  # fmt: skip


# axolotl --------------------------------------------------------------------------------------------------------------


def _messages(prompt: Sequence[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "messages": list(prompt),
        "chosen": {"role": "assistant", "content": chosen},
        "rejected": {"role": "assistant", "content": rejected},
    }


def _axolotl(job: Job) -> dict[str, Any]:
    fields = {"field_chosen": "chosen", "field_rejected": "rejected"}
    read = (
        {"type": "chat_template.default", "field_messages": "messages", **fields}
        if job.talks
        else {"type": {"field_prompt": "prompt", "prompt_format": "{prompt}", **fields,
                       "chosen_format": "{chosen}", "rejected_format": "{rejected}"}}
    )  # fmt: skip
    loss = {"rl": "ipo"} if job.loss == "ipo" else {"rl": "dpo", "dpo_loss_type": [job.loss]}
    return {
        "base_model": job.model, **loss, "rl_beta": job.beta,
        **({"dpo_label_smoothing": job.smoothing} if job.smoothing else {}),
        "datasets": [{"path": f"{job.folder}/dataset.jsonl", "split": "train", **read}],
        **({"chat_template": "tokenizer_default"} if job.talks else {}),
        "dataset_prepared_path": f"{job.folder}/prepared", "sequence_len": job.tokens,
        "adapter": "lora", "lora_r": _RANK, "lora_alpha": _ALPHA, "lora_target_linear": True,
        "output_dir": f"{job.folder}/output", "micro_batch_size": _BATCH,
        "gradient_accumulation_steps": _ACCUMULATED, "optimizer": "adamw_torch", "lr_scheduler": "linear",
        "learning_rate": _RATE, "num_epochs": job.epochs, "seed": job.seed,
    }  # fmt: skip


TRAINERS: Mapping[str, Trainer] = {
    "llama-factory": Trainer(
        "llamafactory-cli train", ("sigmoid", "ipo", "hinge"), _shared, _llama_factory, alternates=True,
        register=_shared_info,
    ),
    "ms-swift": Trainer("swift rlhf", ("sigmoid", "ipo", "hinge", "robust"), _rejected_response, _ms_swift),
    "axolotl": Trainer("axolotl train", ("sigmoid", "ipo", "hinge", "robust"), _messages, _axolotl, plain=True),
}  # fmt: skip
"""By the name that `--write-for` takes."""


# what is written ------------------------------------------------------------------------------------------------------


def check_trainers(names: Sequence[str], loss: Objective | None = None, *, model: str = "") -> None:
    """Refuse what cannot be written before anything is computed.

    Raises:
        ConfigError: A name is unknown, the trainer has no such loss, or nobody else could load the model.
    """
    for name in names:
        one_of(name, TRAINERS, name="--write-for")
        if model == "builtin":
            raise ConfigError(
                f"--write-for {name} needs a model that others can load, and builtin is known here alone; name one "
                "with --model"
            )
        if loss is not None and loss.name not in TRAINERS[name].losses:
            raise ConfigError(
                f"--write-for {name}: it has no loss {loss.name!r}; choose one of "
                f"{', '.join(TRAINERS[name].losses)}, or train with prefdyn or TRL"
            )


def write_for(
    folder: Path, names: Sequence[str], texts: PreferenceDataset, loss: Objective, *, model: str,
    final: Path | None = None, tokens: int | None = None, seed: int = 0,
) -> dict[str, str]:  # fmt: skip
    """Write `NAME/dataset.jsonl`, `NAME/dpo.yaml` and what else each trainer reads; held-out pairs are left out.

    Args:
        folder: An existing folder.
        names: Of `TRAINERS`.
        texts: The pairs with their weights.
        loss: Of the runs that the plan rests on, with its beta.
        model: As the trainer is to load it.
        final: Where the folder will lie; the configurations name their files there.
        tokens: Of prompt and response together; None: 2,048.
        seed: Of the training.

    Returns:
        The command that trains, by name.

    Raises:
        ConfigError: See `check_trainers`.
        DataError: A pair holds what the trainer's form has no room for.
    """
    check_trainers(names, loss, model=model)
    train = texts.select(mask=np.asarray(texts.table["split"].to_pylist()) == TRAIN)
    times = copies(np.asarray(train.table["weight"].to_pylist(), dtype=float), train.table["group"].to_pylist())
    commands = {}
    for name in names:
        trainer, place = TRAINERS[name], folder / name
        rows = _rows(train, trainer, name)
        place.mkdir()
        with (place / "dataset.jsonl").open("w", encoding="utf-8", newline="\n") as handle:
            for row, count in zip(rows, times, strict=True):
                handle.write((json.dumps(row, ensure_ascii=False) + "\n") * int(count))
        job = Job(
            model=model, loss=loss.name, beta=float(loss.beta),
            smoothing=float(getattr(loss, "label_smoothing", 0.0)),
            epochs=round(len(train) / int(times.sum()), 4), tokens=tokens or _TOKENS,
            talks=bool(train.conversational), folder=(final or folder).joinpath(name).as_posix(), seed=seed,
        )  # fmt: skip
        commands[name] = f"{trainer.command} {job.folder}/dpo.yaml"
        head = (
            f"# {commands[name]}\n# {len(train):,} pairs in {int(times.sum()):,} rows: a pair stands there as often as "
            "it counts, and the epoch is shorter by as much.\n"
        )
        body = yaml.safe_dump(trainer.config(job), sort_keys=False, allow_unicode=True)
        (place / "dpo.yaml").write_text(head + body, encoding="utf-8")
        if trainer.register is not None:
            (place / "dataset_info.json").write_text(json.dumps(trainer.register(), indent=2) + "\n", encoding="utf-8")
    return commands


def copies(weight: Float[np.ndarray, " n"], group: Sequence[str]) -> Int[np.ndarray, " n"]:
    r"""How often each pair stands in a file that has no weights.

    Every pair is to stand there $k w_i$ times with weights of mean 1. $k$ is the least that gives the lightest pair its
    one row, and 4 where that would make the file longer still. Sums are rounded along each group, so that each group's
    rows are within one of what its pairs count, and so is any stretch of them.

    Example:
        >>> copies(np.array([1.0, 1.0, 2.0, 2.0]), ["a", "a", "b", "b"]).tolist()
        [1, 1, 2, 2]
    """
    share = weight / weight.mean()
    wanted = share * np.clip(1 / share.min(), 1.0, _LARGEST)
    found = np.zeros(len(wanted), dtype=int)
    names = np.asarray(group)
    for name in dict.fromkeys(group):
        inside = np.flatnonzero(names == name)
        ends = np.floor(np.cumsum(wanted[inside]) + 0.5)
        found[inside] = np.diff(ends, prepend=0.0)
    return found


def _rows(texts: PreferenceDataset, trainer: Trainer, name: str) -> list[dict[str, Any]]:
    """A row of the trainer's for every pair."""
    talks = texts.conversational
    if talks and talks < len(texts):
        raise DataError(
            f"--write-for {name}: {talks} pairs are conversations and {len(texts) - talks} are plain texts, which one "
            "configuration cannot read; plan for them one at a time"
        )
    why: Counter[str] = Counter()
    first: dict[str, str] = {}
    rows = []
    for pair, talk in zip(texts.to_rows(), texts.conversations, strict=True):
        if talk is None:
            sides = {side: pair[side] for side in SIDES}
            asked = [{"role": "user", "content": sides["prompt"]}]
            rows.append(sides if trainer.plain else trainer.row(asked, sides["chosen"], sides["rejected"]))
            continue
        odd = _no_room(talk, trainer)
        if odd is not None:
            why[odd] += 1
            first.setdefault(odd, str(pair["id"]))
            continue
        prompt, chosen, rejected = (talk[side] for side in SIDES)
        rows.append(trainer.row(prompt, chosen[0]["content"], rejected[0]["content"]))
    if why:
        told = of_many([f"{count} {reason} (first: {first[reason]})" for reason, count in why.items()], 3)
        raise DataError(
            f"--write-for {name} has no room for some pairs: {told}; train with prefdyn or TRL, or leave these out"
        )
    return rows


def _no_room(talk: Conversation, trainer: Trainer) -> str | None:
    """Why a conversation does not go into the trainer's form; None where it does."""
    if talk.get(TOOLS) or talk.get(ARGUMENTS):
        return "with tools or template arguments"
    prompt, chosen, rejected = (talk[side] for side in SIDES)
    every = [*prompt, *chosen, *rejected]
    if any(set(turn) != _TEXT or not isinstance(turn["content"], str) or turn["role"] not in _TAGS for turn in every):
        return "with messages that are more than a role and a text"
    if len(chosen) != 1 or len(rejected) != 1 or {chosen[0]["role"], rejected[0]["role"]} != {"assistant"}:
        return "whose responses are not one message of the assistant"
    said = [turn["role"] for turn in prompt]
    said = said[1:] if said[:1] == ["system"] else said
    in_turn = ["user", "assistant"] * len(said)
    if trainer.alternates and (not len(said) % 2 or said != in_turn[: len(said)]):
        return "whose prompt is not user and assistant in turn"
    return None
