"""A run: one piece of work, small enough to send to another process, and known by its content alone."""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefdyn._cache import cache_root
from prefdyn._checks import at_least, one_of
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError
from prefdyn.provenance import content_hash, versions
from prefdyn.settings import Setup
from prefdyn.store import load_dataset_beside, save_dataset

SCHEMA = 1
"""Raised whenever the same run would give other numbers, so that finished ones are not used."""

KINDS = ("features", "simulate", "train")


@dataclass(frozen=True, kw_only=True)
class RecipeSetup(Setup):
    """How a run of a recipe is trained."""

    rate_of: str | None = None
    """Objective whose largest stable step "auto" halves, so that several train at one rate; its own unless given."""
    template: str = "question"
    """Text of Persona prompts."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError(f"a setup has steps {self.steps} and epochs {self.epochs}; give one of them")

    def updates(self, pairs: int) -> int:
        """How many steps it takes over so many training pairs.

        Example:
            >>> RecipeSetup(tune="full", beta=0.01, learning_rate=1e-5, epochs=1, batch_size=128).updates(900)
            8
        """
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or 1) * -(-pairs // self.batch(pairs))))

    def batch(self, pairs: int) -> int:
        """Pairs per step, of so many."""
        return pairs if self.batch_size in ("full", None) else min(self.batch_size, pairs)

    def to_json(self) -> dict[str, Any]:
        """Flat and plain, without what is not set."""
        found = {name: getattr(self, name) for name in _TOLD}
        if self.tune == "lora":
            found |= {name: getattr(self, name) for name in _TOLD_OF_LORA}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return {name: value for name, value in plain.items() if value is not None}


_TOLD = (
    "tune", "objective", "beta", "optimizer", "learning_rate", "rate_of", "steps", "epochs", "batch_size", "scheme",
    "schedule", "warmup", "clip", "template",
)  # fmt: skip
_TOLD_OF_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPairs:
    """Pairs with their split, in the cache, under a name that is their content."""

    key: str
    name: str
    groups: tuple[str, ...]
    train: int
    held_out: int
    characters: float
    """Mean length of a prompt and its longer response, by which tokens are guessed before there is a tokenizer."""

    def load(self) -> PreferenceDataset:
        """The pairs.

        Raises:
            ConfigError: They are no longer in the cache.
            StoreError: A byte has changed.
        """
        found = load_dataset_beside(_pairs_folder(self.key))
        if found is None:
            raise ConfigError(
                f"the pairs of {self.name} are no longer in {_pairs_folder(self.key)}; run the same again"
            )
        return found


def store_pairs(data: PreferenceDataset) -> StoredPairs:
    """Keep pairs where every run, of every process, can read them.

    Raises:
        StoreError: The cache cannot be written.
    """
    split = data.table["split"].to_pylist()
    key = content_hash([data.sha256, "".join("h" if side == "held_out" else "t" for side in split)])
    folder = _pairs_folder(key)
    if not (folder / "dataset.json").is_file():
        save_dataset(data, folder)
    held_out = sum(side == "held_out" for side in split)
    columns = (data.table[name].to_pylist() for name in ("prompt", "chosen", "rejected"))
    lengths = [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in zip(*columns, strict=True)]
    return StoredPairs(
        key=key,
        name=data.name,
        groups=data.groups,
        train=len(data) - held_out,
        held_out=held_out,
        characters=sum(lengths) / max(1, len(lengths)),
    )


def _pairs_folder(key: str) -> Path:
    return cache_root() / "pairs" / key


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which model, and how it is read."""

    name: str
    """"builtin", a local folder, or a hub id."""
    fingerprint: str = ""
    """sha256 of what its numbers depend on; empty where it was not looked at."""
    untrained: int | None = None
    """Seed of an untrained twin, in place of the model itself."""
    revision: str | None = None
    answers: tuple[str, ...] | None = None
    dtype: str = "auto"
    device: str = "auto"
    rms_norm: bool = False
    """Whether its final norm is one that the published scripts apply twice."""

    @property
    def shown(self) -> str:
        """What people call it.

        Example:
            >>> ModelChoice(name="meta-llama/Llama-2-7b-hf", untrained=0).shown
            'meta-llama/Llama-2-7b-hf (untrained, seed 0)'
        """
        name = Path(self.name).name if Path(self.name).is_dir() or self.name.count("/") != 1 else self.name
        return name if self.untrained is None else f"{name} (untrained, seed {self.untrained})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRun:
    """One piece of work.

    | kind | needs | gives |
    |---|---|---|
    | `features` | pairs and model (`start`: one that was trained) | a FeatureSet |
    | `simulate` | `start`: features; setup | one Trajectory per subset: the head trained on those features, exactly |
    | `train` | pairs, model and setup (`start`: one that was trained) | a Trajectory and, if asked for, the model |

    A run that starts from a trained model has that model for its reference, unless told.
    """

    kind: str
    """One of `KINDS`."""
    title: str
    """For people; two runs that differ in it alone are one."""
    pairs: StoredPairs
    model: ModelChoice
    setup: RecipeSetup | None = None
    start: "RecipeRun | None" = None
    seed: int = 0
    """Of batches and adapters."""
    record: Literal["log", "all"] | tuple[int, ...] = "log"
    """Steps at which it is measured."""
    margins_at: tuple[int, ...] = ()
    """Of a simulation: steps at which every pair's margin is kept."""
    subsets: tuple[tuple[str, ...], ...] | None = None
    """Of a simulation: groups trained on, one trajectory each, all at one rate; None: all groups, one trajectory."""
    flip: bool = False
    """Chosen and rejected change places."""
    reference: Literal["start", "base"] = "start"
    """Of a training run: what margins are taken against, the model it starts from or the one that was given."""
    probes: tuple[str, ...] = ()
    """Of a training run: what is measured besides losses and log-probabilities."""
    probe_pairs: int | None = None
    """Of a training run: pairs per group and split that are measured; None: all."""
    keep_model: bool = False
    """Of a training run: the trained model is wanted."""
    double_norm: bool = False
    """Of features: apply the final norm twice, as the published scripts did."""

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, name="kind")
        at_least(self.seed, 0, name="seed")
        if (self.setup is None) != (self.kind == "features"):
            raise ConfigError(
                f"run {self.title!r} is of kind {self.kind!r}; features have no setup, and all others one"
            )
        wanted = {"features": ("train", None), "train": ("train", None), "simulate": ("features",)}[self.kind]
        found = None if self.start is None else self.start.kind
        if found not in wanted:
            raise ConfigError(f"run {self.title!r} of kind {self.kind!r} cannot start from {found or 'nothing'}")
        if self.reference == "base" and (self.kind != "train" or self.model.untrained is not None):
            raise ConfigError(
                f"run {self.title!r} has the reference 'base', which takes training, and a model that is read by name"
            )
        if self.start is not None and self.kind != "simulate" and not self.start.keep_model:
            raise ConfigError(f"run {self.title!r} starts from {self.start.title!r}, which does not keep its model")

    @property
    def key(self) -> str:
        """Hash of everything that its numbers depend on."""
        return content_hash([json.dumps(self._content(), sort_keys=True)])

    def _content(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "versions": _versions(),
            "kind": self.kind,
            "pairs": self.pairs.key,
            "model": [
                self.model.fingerprint or self.model.name, self.model.untrained, self.model.answers, self.model.dtype,
                self.model.device,
            ],
            "setup": None if self.setup is None else {**self.setup.to_json(), "template": None},
            "start": None if self.start is None else self.start.key,
            "seed": self.seed,
            "record": self.record,
            "margins_at": self.margins_at,
            "subsets": self.subsets,
            "flip": self.flip,
            "probes": self.probes,
            "probe_pairs": self.probe_pairs,
            "double_norm": self.double_norm,
            **({} if self.reference == "start" else {"reference": self.reference}),
        }  # fmt: skip


@functools.cache
def _versions() -> dict[str, str]:
    known = versions()
    return {name: known[name] for name in ("prefdyn", "numpy", "torch", "transformers")}


def with_starts(runs: Iterable[RecipeRun]) -> dict[str, RecipeRun]:
    """All runs by key, with those that they start from before them; a model is kept where anyone wants it.

    Example:
        >>> pairs = StoredPairs(key="p", name="p", groups=("a",), train=9, held_out=1, characters=40.0)
        >>> model = ModelChoice(name="builtin")
        >>> first = RecipeRun(kind="features", title="one", pairs=pairs, model=model)
        >>> setup = RecipeSetup(tune="last-layer", beta=0.1, learning_rate=0.1, steps=5, batch_size="full")
        >>> second = RecipeRun(kind="simulate", title="two", pairs=pairs, model=model, setup=setup, start=first)
        >>> [run.title for run in with_starts([second, first]).values()]
        ['one', 'two']
    """
    found: dict[str, RecipeRun] = {}

    def add(run: RecipeRun) -> None:
        if run.start is not None:
            add(run.start)
        key = run.key
        if key not in found or (run.keep_model and not found[key].keep_model):
            found[key] = run

    for run in runs:
        add(run)
    return found
