"""All of it in one call: plan the recipes, do their runs once, judge their claims, write what was found."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import parquet
from scipy.stats import false_discovery_control

from prefdyn._checks import one_of
from prefdyn._csv import write_csv
from prefdyn._json import SCHEMA_VERSION, plain, write_json
from prefdyn._showing import Pictured
from prefdyn.errors import PrefdynError
from prefdyn.experiments.chance import LEVEL
from prefdyn.experiments.claims import KINDS, Claim, at_other_thresholds
from prefdyn.experiments.context import Context, looked_at
from prefdyn.experiments.cost import Cost, costs
from prefdyn.experiments.launch import LAUNCHERS, cores, launch
from prefdyn.experiments.presets import beside_published, preset_named
from prefdyn.experiments.recipe import Done, Figure, Plan, Recipe
from prefdyn.experiments.recipes import recipe_named, recipes_named
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.run import ModelChoice
from prefdyn.experiments.shared_rules import Judged, untestable
from prefdyn.experiments.work import RunOutcome
from prefdyn.picture import Picture
from prefdyn.provenance import versions

_MOST_CSV_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeResult(Pictured):
    """What one recipe found. `rows()` for tables, `plot("2403.18742-fig03")` for a figure of the paper."""

    _FIRST: ClassVar = ("where", "statement", "measured", "holds")
    recipe: Recipe
    preset: str
    judged: tuple[tuple[Claim, Judged], ...]
    figures: tuple[Figure, ...]
    measured: Rows
    notes: tuple[str, ...]
    failed: str | None
    """Why it has no results; None where it has."""
    runs: int
    seconds: float
    """Of its runs when they were done, over all processes; those that other recipes share count for each."""

    @property
    def claims(self) -> list[dict[str, Any]]:
        """One dictionary per claim, as in claims.json."""
        return corrected([claim_row(self, claim, judged) for claim, judged in self.judged])

    def rows(self) -> list[dict[str, Any]]:
        """The same."""
        return self.claims

    def _pictures(self) -> list[Picture]:
        return [figure.picture for figure in self.figures]

    def __str__(self) -> str:
        lines = [f"{self.recipe.name} ({self.preset}): {self.recipe.summary}"]
        words = {True: "held", False: "failed", None: "not testable"}
        for claim, judged in self.judged:
            lines.append(f"  {words[judged.holds]:12}  {claim.statement}")
            lines.append(f"  {'':12}  {judged.measured}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction(Pictured):
    """What several recipes found, ready to be written."""

    context: Context
    results: tuple[RecipeResult, ...]
    runs: int
    """All runs, those that several recipes share counted once."""
    done_before: int
    """Runs that were found finished."""
    warnings: tuple[str, ...]
    seconds: float

    @property
    def claims(self) -> list[dict[str, Any]]:
        """One dictionary per claim, as in claims.json."""
        return corrected([row for result in self.results for row in result.claims])

    def rows(self) -> list[dict[str, Any]]:
        """The same."""
        return self.claims

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Figures of all recipes."""
        return tuple(figure for result in self.results for figure in result.figures)

    def _pictures(self) -> list[Picture]:
        return [figure.picture for figure in self.figures]

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        context, claims = self.context, self.claims
        preset = context.preset
        named = {name for result in self.results for name in result.recipe.setups}
        return plain(
            {
                "schema": SCHEMA_VERSION,
                "command": "reproduce",
                "provenance": {
                    "data": next(iter(_data_of(context)), {}),
                    "model": next(iter(_models_of(context)), {}),
                    "settings": {"preset": preset.name, "paper_compat": context.compat},
                    "seed": context.seed,
                    "versions": versions(),
                },
                "dataset": {"name": ", ".join(each["name"] for each in _data_of(context))},
                "model": {"name": ", ".join(each["name"] for each in _models_of(context))},
                "data": _data_of(context),
                "models": _models_of(context),
                "preset": {
                    "name": preset.name, "says": preset.says, "seeds": list(context.seeds), "rows": preset.rows,
                    "split": preset.split, "behaviours": preset.behaviours, "many": preset.many,
                    "relabellings": preset.relabellings, "paper_compat": context.compat,
                },
                "published_and_here": [
                    row for name in preset.setups if name in named for row in beside_published(preset, name)
                ],
                "recipes": [
                    {
                        "name": result.recipe.name, "summary": result.recipe.summary,
                        "papers": list(result.recipe.papers), "figures": [figure.id for figure in result.figures],
                        "claims": len(result.judged), "runs": result.runs, "seconds": round(result.seconds, 1),
                        "notes": list(result.notes), "failed": result.failed,
                    }
                    for result in self.results
                ],
                "figures": [
                    {
                        "id": figure.id, "paper": figure.spec.paper, "where": figure.spec.where, "spec": figure.spec.id,
                        "title": figure.spec.title, "caption": figure.caption, "recipe": result.recipe.name,
                    }
                    for result in self.results
                    for figure in result.figures
                ],
                "claims": {
                    **counts_of(claims),
                    "by_kind": {kind: counts_of([row for row in claims if row["kind"] == kind]) for kind in KINDS},
                },
                "runs": {"all": self.runs, "done_before": self.done_before},
                "warnings": list(self.warnings),
                "timings": {"reproduce_s": round(self.seconds, 1)},
            }
        )  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write claims.json, summary.json and the numbers behind every figure into an existing folder."""
        write_json(folder / "claims.json", self.claims)
        write_json(folder / "summary.json", self.summary())
        (folder / "figures").mkdir(exist_ok=True)
        for figure in self.figures:
            _write_numbers(figure.table(), folder / "figures", figure.id)


def reproduce(
    recipes: Sequence[str],
    *,
    preset: str = "smoke",
    data: Sequence[Any] = ("builtin",),
    models: Sequence[str] = (),
    answers: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    jobs: int | None = None,
    launcher: str = "local",
    paper_compat: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    progress: bool = True,
) -> Reproduction:
    """Run recipes and judge their claims.

    Args:
        recipes: Names, or "all".
        preset: "smoke", "small", "medium" or "paper".
        data: Specs, or datasets in memory; the first with two answers and the first with longer responses are used.
        models: The first is the model, the second the "other model" of the figures that have one. Without any, the
            built-in one, or under "paper" the published ones.
        answers: Other words for the two answers, positive first.
        groups: Only these groups.
        seed: The first seed of the preset's repetitions.
        jobs: Processes of this machine; unless given by the preset, or one on a GPU, or one per core.
        launcher: "local" or "ray".
        paper_compat: Also run what the published code does where it differs from the text.
        device: Where models run.
        dtype: Of weights and states.
        revision: Of a hub model.
        progress: Show bars where stderr is a terminal.

    Returns:
        A Reproduction. A recipe that cannot be run here has claims that are not testable, with the reason.

    Raises:
        ConfigError: A name or setting is unknown or out of range.
        DataError: The data cannot be read.
        ModelError: A model cannot be read.
    """
    began = time.monotonic()
    chosen = recipes_named(recipes)
    one_of(launcher, LAUNCHERS, name="launcher")
    context = context_of(
        preset=preset, data=data, models=models, answers=answers, groups=groups, seed=seed, paper_compat=paper_compat,
        device=device, dtype=dtype, revision=revision, look=True,
    )  # fmt: skip
    plans = {recipe.name: _planned(recipe, context) for recipe in chosen}
    runs = [run for plan in plans.values() if not isinstance(plan, PrefdynError) for run in plan.values()]
    shared = any(model.device.startswith("cuda") for model in context.models)  # one run at a time has the whole GPU
    workers = jobs or context.preset.jobs or (1 if shared else cores())
    landed, before = launch(runs, jobs=workers, launcher=launcher, progress=progress)
    return Reproduction(
        context=context,
        results=tuple(_result(recipe, context, plans[recipe.name], landed) for recipe in chosen),
        runs=len(landed),
        done_before=before,
        warnings=tuple(_warnings(landed)),
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a reproduction would run."""

    costs: tuple[Cost, ...]
    failed: Mapping[str, str]
    """Recipe → why it cannot be run here."""


def planned(recipes: Sequence[str], **given: Any) -> Planned:
    """The plan of `reproduce`, without running any of it.

    Models are read only where they are local: those of a hub are neither fetched nor looked for.

    Args:
        recipes: Names, or "all".
        given: Arguments of `reproduce`, all but `jobs`, `launcher` and `progress`.

    Raises:
        ConfigError: A name or setting is unknown.
        DataError: The data cannot be read.
    """
    local = all(name == "builtin" or Path(name).is_dir() for name in given["models"]) and given["preset"] != "paper"
    context = context_of(**given, look=local)
    plans = {recipe.name: _planned(recipe, context) for recipe in recipes_named(recipes)}
    runs = [run for plan in plans.values() if not isinstance(plan, PrefdynError) for run in plan.values()]
    return Planned(
        costs=tuple(costs(runs, look=local)),
        failed={name: plan.typed for name, plan in plans.items() if isinstance(plan, PrefdynError)},
    )


def run_recipe(
    name: str, *, preset: str = "smoke", data: Any = "builtin", model: str | Sequence[str] | None = None, **rest: Any
) -> RecipeResult:
    """One recipe: its claims, and its figures in numbers.

    Args:
        name: Of the recipe; see `prefdyn reproduce --list`.
        preset: "smoke", "small", "medium" or "paper".
        data: A spec, a dataset in memory, or a list of them.
        model: Name or folder, or a list of them; see `reproduce`.
        rest: Further arguments of `reproduce`. `jobs` is 1 unless given, so that scripts need no main guard.

    Returns:
        A RecipeResult with `claims`, `figures`, `measured` and `rows()`.

    Raises:
        ConfigError: The name or a setting is unknown.
        DataError: The data cannot be read.
        ModelError: A model cannot be read.
    """
    recipe_named(name)
    models = () if model is None else (model,) if isinstance(model, str) else tuple(model)
    many = tuple(data) if isinstance(data, list | tuple) and not _is_rows(data) else (data,)
    return reproduce([name], preset=preset, data=many, models=models, **{"jobs": 1, **rest}).results[0]


def context_of(
    *,
    preset: str,
    data: Sequence[Any],
    models: Sequence[str],
    answers: Sequence[str] | None,
    groups: Sequence[str] | None,
    seed: int,
    paper_compat: bool,
    device: str,
    dtype: str,
    revision: str | None,
    look: bool,
) -> Context:
    """What recipes are given. `look`: read every model once, so that runs are known by its weights."""
    found = preset_named(preset)
    context = Context(
        preset=found,
        data=tuple(data),
        models=(),
        seed=seed,
        compat=paper_compat,
        groups=None if groups is None else tuple(groups),
    )
    context.read()
    named = list(models) or ([] if preset == "paper" else ["builtin"])
    chosen = [
        looked_at(name, answers=answers, device=device, dtype=dtype, revision=revision)
        if look
        else ModelChoice(
            name=name, answers=None if answers is None else tuple(answers), device=device, dtype=dtype,
            revision=revision,
        )
        for name in named
    ]  # fmt: skip
    return replace(context, models=tuple(chosen))


def counts_of(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many held, failed and were not testable; and of those that held by a test, how many a correction leaves.

    Example:
        >>> counts_of([{"holds": True, "p": 0.01, "corrected": {"p": 0.2, "holds": False}}, {"holds": None}])
        {'held': 1, 'failed': 0, 'not_testable': 1, 'tested': 1, 'stand': 0}
    """
    words = {"held": True, "failed": False, "not_testable": None}
    tested = [row["corrected"]["holds"] for row in claims if row["holds"] and row.get("corrected")]
    counts = {word: sum(row["holds"] is holds for row in claims) for word, holds in words.items()}
    return {**counts, "tested": len(tested), "stand": sum(tested)}


def corrected(claims: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same, each p beside what it is among all tested claims of its paper, by Benjamini and Hochberg.

    A reader goes through a list of claims, so the share of false ones among those that stand is held at 5 %. What is no
    test has no p, and claims that no model or data can change are none.

    Reference:
        Benjamini and Hochberg (1995).

    Example:
        >>> rows = [{"paper": "a", "kind": "ours", "holds": True, "p": p} for p in (0.01, 0.04)]
        >>> [row["corrected"]["p"] for row in corrected(rows)]
        [0.02, 0.04]
    """
    found = [{**row, "corrected": None} for row in claims]
    for paper in {row["paper"] for row in claims}:
        mine = [row for row in found if row["paper"] == paper and row["p"] is not None and row["kind"] != "algebra"]
        for row, p in zip(mine, false_discovery_control([row["p"] for row in mine]) if mine else (), strict=True):
            row["corrected"] = {"p": float(p), "among": len(mine), "holds": bool(row["holds"] and p <= LEVEL)}
    return found


def claim_row(result: RecipeResult, claim: Claim, judged: Judged) -> dict[str, Any]:
    """One claim as in claims.json."""
    return plain(
        {
            "id": claim.id,
            "paper": claim.paper,
            "where": claim.where,
            "kind": claim.kind,
            "unit": claim.unit,
            "statement": claim.statement,
            "paper_value": claim.paper_value,
            "measured": judged.measured,
            "holds": judged.holds,
            "p": judged.p,
            "thresholds": at_other_thresholds(claim, result.measured) if judged.holds is not None else [],
            "evidence": judged.evidence,
            "because": judged.because,
            "rule": claim.rule,
            "control": None if judged.control is None else judged.control.to_json(),
            "recipe": result.recipe.name,
            "figure": claim.figure,
            "preset": result.preset,
        }
    )


# one recipe ----------------------------------------------------------------------------------------------------------


class _Landed(Mapping[Any, RunOutcome]):
    """Outcomes under a recipe's own names; what failed raises its error when it is asked for."""

    def __init__(self, plan: Plan, landed: Mapping[str, RunOutcome | PrefdynError]) -> None:
        self.plan, self.landed = plan, landed

    def __getitem__(self, name: Any) -> RunOutcome:
        found = self.landed[self.plan[name].key]
        if isinstance(found, PrefdynError):
            raise found
        return replace(found, run=self.plan[name])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


def _planned(recipe: Recipe, context: Context) -> Plan | PrefdynError:
    try:
        return recipe.runs(context)
    except PrefdynError as error:
        return error


def _result(
    recipe: Recipe, context: Context, plan: Plan | PrefdynError, landed: Mapping[str, RunOutcome | PrefdynError]
) -> RecipeResult:
    common: dict[str, Any] = {"recipe": recipe, "preset": context.preset.name}
    try:
        if isinstance(plan, PrefdynError):
            raise plan
        done: Done = _Landed(plan, landed)
        found = recipe.results(context, done)
    except PrefdynError as error:
        told = " ".join(error.typed.split())
        return RecipeResult(
            **common, judged=tuple((claim, untestable(told)) for claim in recipe.claims), figures=(), measured=Rows(),
            notes=(), failed=told, runs=0 if isinstance(plan, PrefdynError) else len(plan), seconds=0.0,
        )  # fmt: skip
    return RecipeResult(
        **common,
        judged=tuple((claim, claim.judge(found.measured)) for claim in recipe.claims),
        figures=found.figures,
        measured=found.measured,
        notes=found.notes,
        failed=None,
        runs=len(plan),
        seconds=sum(each.seconds for each in done.values()),
    )


def _warnings(landed: Mapping[str, RunOutcome | PrefdynError]) -> list[str]:
    """What runs told, each sentence once, and which failed."""
    found: list[str] = []
    for came in landed.values():
        found += [f"a run failed: {came}"] if isinstance(came, PrefdynError) else came.warnings
    return list(dict.fromkeys(found))


def _data_of(context: Context) -> list[dict[str, Any]]:
    return [
        {"name": data.name, "pairs": len(data), "groups": len(data.groups), "sha256": data.sha256}
        for data in context.used()
    ]


def _models_of(context: Context) -> list[dict[str, Any]]:
    return [{"name": model.shown, "sha256": model.fingerprint, "device": model.device} for model in context.models]


def _is_rows(data: Any) -> bool:
    return bool(data) and isinstance(data[0], Mapping)


def _write_numbers(table: pa.Table, folder: Path, name: str) -> None:
    used = [column for column in table.column_names if table[column].null_count < table.num_rows]
    if table.num_rows > _MOST_CSV_ROWS:
        parquet.write_table(table.select(used), folder / f"{name}.parquet")
    else:
        write_csv(table.select(used), folder / f"{name}.csv")
