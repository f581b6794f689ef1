"""What a recipe is given: pairs, models, seeds and settings; the same for every recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError
from prefdyn.experiments.presets import Preset
from prefdyn.experiments.published import FIVE, MODELS, SETTINGS, persona
from prefdyn.experiments.run import ModelChoice, RecipeRun, RecipeSetup, StoredPairs, store_pairs

TWIN = "twin"
MODEL = "model"
SOURCES = (MODEL, TWIN)
"""The model, and the same architecture with fresh weights: what words alone give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Data, models and sizes of one reproduction."""

    preset: Preset
    data: tuple[Any, ...]
    """Specs, or PreferenceDatasets."""
    models: tuple[ModelChoice, ...]
    """As asked for; empty: the published ones."""
    seed: int = 0
    compat: bool = False
    """Also run what the published code does where it differs from the text."""
    groups: tuple[str, ...] | None = None
    """Only these groups; None: all."""
    _datasets: dict[Any, PreferenceDataset] = field(default_factory=dict, repr=False)
    _stored: dict[Any, StoredPairs] = field(default_factory=dict, repr=False)

    # what is run ------------------------------------------------------------------------------------------------------

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per repetition."""
        return tuple(range(self.seed, self.seed + self.preset.seeds))

    @property
    def variants(self) -> tuple[str, ...]:
        """What the paper says ("text"), and with `--paper-compat` also what its published code does ("code")."""
        return ("text", "code") if self.compat else ("text",)

    def setup(self, name: str) -> RecipeSetup:
        """How something is trained, by the names of `published.SETTINGS`."""
        return self.preset.setups[name]

    # models -----------------------------------------------------------------------------------------------------------

    def model(self, setup: str = "full") -> ModelChoice:
        """The model: the first that was asked for, else the published one of a setup."""
        return self.models[0] if self.models else ModelChoice(name=MODELS[SETTINGS[setup].model].hub_id)

    def other_model(self, setup: str = "full-other") -> ModelChoice | None:
        """The second model: the second that was asked for; the published one where none was; None where one was."""
        if self.models:
            return self.models[1] if len(self.models) > 1 else None
        return ModelChoice(name=MODELS[SETTINGS[setup].model].hub_id)

    def source(self, which: str, seed: int, setup: str = "full") -> ModelChoice:
        """The model, or its untrained twin by `seed`."""
        model = self.model(setup)
        return model if which == MODEL else replace(model, untrained=seed)

    # pairs ------------------------------------------------------------------------------------------------------------

    def answers(self, template: str | None = None) -> PreferenceDataset:
        """The first dataset whose pairs have one-token answers of two kinds, under a template where it is Persona data.

        Raises:
            DataError: There is none.
        """
        for place in range(len(self.data)):
            found = self._load(place, template)
            if _two_answers(found):
                return found
        named = ", ".join(_name(item) for item in self.data)
        raise DataError(
            f"none of the data ({named}) has two answers such as ' Yes' and ' No', which these recipes need; add "
            "--data persona:PATH or --data builtin"
        )

    def dialogues(self) -> PreferenceDataset | None:
        """The first dataset with longer responses; None where there is none."""
        for place in range(len(self.data)):
            found = self._load(place, None)
            if not _two_answers(found):
                return found
        return None

    def behaviours(self) -> tuple[str, ...]:
        """The five of 2403.18742 in its order where the data has them all, else as many spread over what it has."""
        names = self.answers().groups
        published = [persona(place) for place in FIVE]
        count = min(self.preset.behaviours, len(names))
        if all(name in names for name in published):
            return tuple(published[place] for place in _spread(len(published), count))
        return tuple(names[place] for place in _spread(len(names), count))

    def many(self) -> tuple[str, ...]:
        """All groups, or as many as the preset allows, spread over what the data has."""
        names = self.answers().groups
        count = len(names) if self.preset.many is None else min(self.preset.many, len(names))
        return tuple(names[place] for place in _spread(len(names), count))

    def pairs(
        self,
        groups: Sequence[str],
        seed: int,
        *,
        template: str | None = None,
        share: float = 1.0,
        data: PreferenceDataset | None = None,
    ) -> StoredPairs:
        """Pairs of some groups, as many as the preset allows, with a split; drawn by the seed.

        Args:
            groups: Names, in any order.
            seed: Of the draw and the split.
            template: Text of Persona prompts.
            share: Of the preset's rows per group. All rows where it has no limit.
            data: Pairs to draw from; those with two answers unless given.
        """
        key = (tuple(groups), seed, template, share, None if data is None else data.sha256)
        if key not in self._stored:
            found = (self.answers(template) if data is None else data).select(groups)
            if self.preset.rows is not None:
                found = found.sample(max(1, round(share * self.preset.rows)), seed=seed)
            self._stored[key] = store_pairs(found.with_held_out(self.preset.split, seed=seed))
        return self._stored[key]

    def read(self) -> None:
        """Read all data, so that what cannot be read is told before anything is run.

        Raises:
            DataError: A source cannot be read, or has none of the groups asked for.
        """
        for place in range(len(self.data)):
            self._load(place, None)

    def used(self) -> tuple[PreferenceDataset, ...]:
        """The datasets that were read so far, each under its first template."""
        return tuple({place: data for (place, _), data in reversed(self._datasets.items())}.values())

    def _load(self, place: int, template: str | None) -> PreferenceDataset:
        item = self.data[place]
        asked = template or "question" if isinstance(item, str) and _is_persona(item) else None
        key = (place, asked)
        if key not in self._datasets:
            found = load_dataset(item, template=asked, skip_bad_rows=isinstance(item, str) and _is_dialogues(item))
            if self.groups is not None:
                kept = [name for name in self.groups if name in found.groups]
                if not kept:
                    raise DataError(f"{found.name} has none of the groups {list(self.groups)}; check --groups")
                found = found.select(kept)
            self._datasets[key] = found
        return self._datasets[key]

    # runs -------------------------------------------------------------------------------------------------------------

    def features(
        self,
        pairs: StoredPairs,
        model: ModelChoice,
        *,
        start: RecipeRun | None = None,
        double_norm: bool = False,
    ) -> RecipeRun:
        """What a model, or one that was trained, makes of pairs."""
        return RecipeRun(
            kind="features",
            title=f"states of {_called(pairs, model)}" + (f", after {start.title}" if start else ""),
            pairs=pairs,
            model=model,
            start=start,
            double_norm=double_norm,
        )

    def simulate(self, features: RecipeRun, setup: RecipeSetup, *, seed: int = 0, **rest: Any) -> RecipeRun:
        """The head trained on features, exactly. `rest`: fields of `Run`."""
        return RecipeRun(
            kind="simulate",
            title=f"last layer of {_called(features.pairs, features.model)}, seed {seed}",
            pairs=features.pairs,
            model=features.model,
            setup=setup,
            start=features,
            seed=seed,
            **rest,
        )

    def train(
        self, pairs: StoredPairs, model: ModelChoice, setup: RecipeSetup, *, seed: int, title: str = "", **rest: Any
    ) -> RecipeRun:
        """Adapters or a whole model trained, measured as often as the preset has it. `rest`: fields of `Run`."""
        return RecipeRun(
            kind="train",
            title=f"{title or setup.tune} training of {_called(pairs, model)}, beta {setup.beta:g}, seed {seed}",
            pairs=pairs,
            model=model,
            setup=setup,
            seed=seed,
            **{
                "record": _evaluations(setup.updates(pairs.train), self.preset.evaluations),
                "probe_pairs": self.preset.measured_pairs,
                **rest,
            },
        )


def looked_at(
    name: str, *, answers: Sequence[str] | None, device: str, dtype: str, revision: str | None
) -> ModelChoice:
    """A model as runs know it: read once, so that runs are known by its weights.

    Raises:
        ModelError: It cannot be read.
    """
    from prefdyn.models.load import load_model

    lm = load_model(name, device=device, dtype=dtype, revision=revision)
    return ModelChoice(
        name=name,
        fingerprint=lm.fingerprint,
        revision=lm.revision or revision,
        answers=None if answers is None else tuple(answers),
        dtype=dtype,
        device=lm.device,
        rms_norm=lm.final_norm is not None,
    )


def _called(pairs: StoredPairs, model: ModelChoice) -> str:
    what = pairs.groups[0] if len(pairs.groups) == 1 else f"{len(pairs.groups)} groups"
    return f"{model.shown} on {what}"


def _evaluations(steps: int, count: int | None) -> Literal["all"] | tuple[int, ...]:
    """Steps at which a run is measured: so many after the first, log-spaced; None: all.

    Example:
        >>> _evaluations(8, 4), _evaluations(1, 4), _evaluations(8, None)
        ((0, 1, 2, 4, 8), (0, 1), 'all')
    """
    if count is None:
        return "all"
    return (0, *np.unique(np.round(np.geomspace(1, steps, count)).astype(int)).tolist())


def _spread(count: int, wanted: int) -> list[int]:
    """Places spread evenly over a list, its ends included.

    Example:
        >>> _spread(5, 3), _spread(20, 5), _spread(3, 1)
        ([0, 2, 4], [0, 5, 10, 14, 19], [0])
    """
    return np.unique(np.round(np.linspace(0, count - 1, wanted)).astype(int)).tolist() if wanted > 1 else [0]


def _two_answers(data: PreferenceDataset) -> bool:
    """Whether all responses are two texts in all."""
    return len({*data.table["chosen"].unique().to_pylist(), *data.table["rejected"].unique().to_pylist()}) == 2


def _is_persona(spec: str) -> bool:
    return spec.startswith("persona:") or "=persona:" in spec


def _is_dialogues(spec: str) -> bool:
    """Whether it is HH-RLHF, whose published files have a few rows without an answer or with two prompts."""
    return spec.startswith("hh:") or "=hh:" in spec


def _name(item: Any) -> str:
    return item if isinstance(item, str) else getattr(item, "name", type(item).__name__)
