"""`prefdyn plan`: what to change, with what stands for and against it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Extraction, Flag, Setup, Source

NAME = "plan"
SUMMARY = "What to change: a recipe, with what it gains on pairs that had no say."
HELP = (
    "What to change before training; without PART, all of it on one page. `weights`: what pairs of each group should "
    "count for a goal, found by exact slopes through simulated runs, judged on pairs that took no part beside the best "
    "known alternatives. `data`: how many pairs of each group a held-out loss takes, with intervals, from runs on "
    "parts of the data. `select`: which pairs to leave out, turn round or count half, every rule simulated on this "
    "data; often: none. `settings`: objective, learning rate, steps and beta, from a grid of runs. `undo`: how many "
    "pairs and steps of the opposite labels bring a group back to where it began, and which groups are undone most "
    "easily. Writes flags for `prefdyn train --config`, datasets and settings for TRL, and a page; says so where "
    "nothing should be changed."
)
EXAMPLES = """Examples:

prefdyn plan

prefdyn plan weights

prefdyn plan weights --goal equal --features features --beta 0.5 --steps 200

prefdyn plan weights --goal protect=rare:0.5 --data hf:OWNER/NAME --model meta-llama/Llama-3.2-1B --no-worse 0.02
prefdyn plan weights --goal target=rare:0.9,common:0.8 --features features

prefdyn plan data --features features --target rare:0.5 --target other:0.4

prefdyn plan select --data pairs.jsonl --model ./my-model

prefdyn plan settings --features features --goal worst

prefdyn plan undo --trained run --data pairs.jsonl --model ./my-model"""
PARTS = ("weights", "data", "select", "settings", "undo")
ALL = "all"
"""Every part, in folders of their own below one page."""
_OF = {
    "weights": ("goal", "no_worse", "floor", "ceiling", "write_for", "forecast"),
    "data": ("target",), "select": ("write_for",),
    "settings": ("goal", "no_worse"), "undo": ("trained",),
    ALL: ("goal", "no_worse", "floor", "ceiling", "target", "trained"),
}  # fmt: skip
"""Flags that mean something for some parts alone."""


def run(
    given: Given,
    part: Annotated[str, typer.Argument(metavar="PART", help="all, weights, data, select, settings or undo.")] = ALL,
    goal: Annotated[
        str | None,
        Flag(
            "worst (lower the worst group's loss), mean (over groups), equal (the same share of what each group "
            "reaches alone), protect=GROUP:LOSS or target=GROUP:ACCURACY,… (of held-out pairs that are right).",
            default="worst; of settings: mean",
        ),
    ] = None,
    no_worse: Annotated[
        float | None, Flag("No group may become worse than as given by more nats than this.", default="any")
    ] = None,
    floor: Annotated[float, Flag("Smallest factor on a group, of the mean weight.")] = 0.1,
    ceiling: Annotated[float, Flag("Largest factor on a group, of the mean weight.")] = 10.0,
    target: Annotated[
        tuple[str, ...],
        Flag(
            "GROUP:LOSS, the held-out loss that a group is to reach; several times.",
            default="what the median group has now",
            typed=list[str],
        ),
    ] = (),
    trained: Annotated[
        Path | None,
        Flag(
            "Folder of `prefdyn train` on these pairs, with some held out: the run to undo, whose objective and beta "
            "are taken.",
            default="a simulated run of the last layer",
        ),
    ] = None,
    write_for: Annotated[
        tuple[str, ...],
        Flag(
            "Also write dataset and configuration for another trainer: llama-factory, ms-swift or axolotl; several "
            "times.",
            default="none",
            typed=list[str],
        ),
    ] = (),
    forecast: Annotated[
        Path | None,
        Flag(
            "Folder of `prefdyn forecast` on these pairs and this model: weights must gain in linear runs of the "
            "LoRA or full run that it foretells, too.",
            default="runs of the last layer alone",
        ),
    ] = None,
    source: Source = Source(),
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    setup: Annotated[
        Setup,
        Only(
            "objective",
            "label_smoothing",
            "beta",
            "optimizer",
            "weight_decay",
            "learning_rate",
            "schedule",
            "warmup",
            "batch_size",
            "scheme",
            "steps",
        ),
    ] = Setup(learning_rate="auto", optimizer="sgd", batch_size="full", steps=100),
    reading: Extraction = Extraction(),
    report_to: o.ReportTo = (),
    figure_style: o.FigureStyle = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Plan, and write the folder."""
    from prefdyn._checks import one_of
    from prefdyn._progress import frameworks
    from prefdyn.cli import common
    from prefdyn.outputs import output_folder

    one_of(part, (ALL, *PARTS), name="PART")
    _refuse_others(part, given)
    setup.idle()
    steps = int(setup.steps or 100)
    settings: dict[str, Any] = {
        "objective": setup.loss, "learning_rate": setup.learning_rate, "optimizer": setup.stepper or "sgd",
        "schedule": setup.falls(steps), "batch_size": setup.batch_size, "scheme": setup.scheme, "steps": steps,
        "seed": seed,
    }  # fmt: skip
    made = {
        "weights": lambda: _weights(goal or "worst", no_worse, floor, ceiling, forecast, model, reading),
        "data": lambda: _data(target),
        "select": _select, "settings": lambda: _settings(goal or "mean", no_worse, part),
        "undo": lambda: _undo(trained),
    }  # fmt: skip
    make = _all({name: each() for name, each in made.items()}) if part == ALL else made[part]()
    common.check_trackers(report_to)
    if write_for:
        from prefdyn.planning.trainers import check_trainers

        check_trainers(write_for, setup.loss, model="" if features is not None else model)
    with output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, texts = common.stored_features(features, source, given)
            if texts is not None and source.group_weights is not None:
                texts = texts.weighted(source.group_weights)
        else:
            with frameworks(for_good=True):
                from prefdyn.models.extract import extract

            texts = common.split_dataset(source, seed=seed)
            feats = extract(texts, model, reading=reading)
        flags = {**given.values, "group_weights": source.group_weights}
        summary, table = make(feats, settings, folder, texts, flags)
        commands = _written_for(write_for, feats, None if features is not None else model, setup.loss, folder, seed)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
    common.tell_result(summary, table, as_json=json_output)
    recipes = [folder.final / "plan.yaml", *(folder.final / name / "plan.yaml" for name in _changing(summary))]
    recipe = next((path for path in recipes if path.exists()), None)
    next_command = f"prefdyn report {folder.final}" if recipe is None else f"prefdyn train --config {recipe}"
    common.log_to(report_to, folder.final, command=NAME, beta=setup.beta)
    for command in commands.values():
        common.tell(f"Or: {command}")
    common.last_words(folder.final, next_command=next_command)


def _changing(summary: dict[str, Any]) -> list[str]:
    """Parts of a plan of all that change something."""
    return [name for name, part in summary["plan"].items() if part.get("change")]


def _written_for(
    names: tuple[str, ...], feats: Any, model: str | None, loss: Any, folder: Any, seed: int
) -> dict[str, str]:
    """What other trainers read, from the dataset that the plan wrote; the command of each."""
    if not names:
        return {}
    from prefdyn.data.loaders import load_dataset
    from prefdyn.errors import ConfigError
    from prefdyn.planning.trainers import write_for

    if not (folder.path / "dataset.jsonl").exists():
        raise ConfigError("--write-for needs the texts of the pairs; give --data, or features with their texts")
    model = model or str(dict(feats.provenance.model).get("name") or "YOUR-MODEL")
    data = load_dataset(folder.path / "dataset.jsonl")
    return write_for(folder.path, names, data, loss, model=model, final=folder.final, seed=seed)


_Make = Callable[..., tuple[dict[str, Any], Callable[[Any], str]]]
"""From features, settings, folder, texts and flags to what was written there and the table of it."""


def _weights(
    goal: str,
    no_worse: float | None,
    floor: float,
    ceiling: float,
    forecast: Path | None,
    model: str,
    reading: Extraction,
) -> _Make:
    from prefdyn.errors import ConfigError
    from prefdyn.planning.goals import Goal

    wanted = Goal.read(goal, slack=no_worse)
    foretold = None
    if forecast is not None:
        from prefdyn.training.watching import foretold_in

        foretold = foretold_in(forecast)

    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn.planning.weights import plan_weights
        from prefdyn.report.plan import plan_table

        plan = plan_weights(feats, wanted, floor=floor, ceiling=ceiling, **settings)
        if foretold is not None:
            if texts is None:
                raise ConfigError("--forecast asks the model itself, which takes the texts of the pairs; give --data")
            from prefdyn.cli import common
            from prefdyn.planning.weights_forecast import in_the_run, settings_foretold

            trained = settings_foretold(foretold, str(forecast), texts, feats.provenance.model)
            plan = in_the_run(
                plan, texts, model, trained, reading=reading, share=reading.check != "none", tell=common.tell
            )  # fmt: skip
        plan.write(folder.path, texts=texts, flags=flags)
        return plan.summary(), plan_table

    return make


def _data(target: tuple[str, ...]) -> _Make:
    from prefdyn.planning.data import read_targets

    wanted = read_targets(target)

    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn.planning.data import plan_data
        from prefdyn.report.plan_data import data_table

        plan = plan_data(feats, wanted, **settings)
        plan.write(folder.path)
        return plan.summary(), data_table

    return make


def _select() -> _Make:
    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn.planning.select import plan_select
        from prefdyn.report.plan_select import select_table

        plan = plan_select(feats, **settings)
        plan.write(folder.path, texts=texts, flags=flags, final=folder.final)
        return plan.summary(), select_table

    return make


def _settings(goal: str, no_worse: float | None, part: str) -> _Make:
    from prefdyn.planning.goals import OF_SETTINGS, Goal

    wanted = Goal.read(goal, slack=no_worse)
    if part == ALL and wanted.name not in OF_SETTINGS:
        wanted = Goal.read("mean", slack=no_worse)

    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn.planning.settings import plan_settings
        from prefdyn.report.plan_settings import settings_plan_table

        plan = plan_settings(feats, wanted, **settings)
        plan.write(folder.path, flags=flags)
        return plan.summary(), settings_plan_table

    return make


def _undo(trained: Path | None) -> _Make:
    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn.planning.ended import ended_run
        from prefdyn.planning.undo import plan_undo
        from prefdyn.report.folders import read_folder
        from prefdyn.report.plan_undo import undo_table

        if trained is not None:
            run = read_folder(trained)
            ended = ended_run(feats, run.pairs, run.part("settings") or {}, folder=trained)
            feats = feats.with_held_out(ended.held_out)
            settings = {**settings, "margins": ended.margins, "tune": ended.tune, "objective": ended.objective}
        plan = plan_undo(feats, **settings)
        plan.write(folder.path)
        return plan.summary(), undo_table

    return make


def _all(makes: dict[str, _Make]) -> _Make:
    """Every part with the same features, each in a folder of its own, and one summary of them all."""

    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn._json import write_json
        from prefdyn.errors import DataError
        from prefdyn.outputs import OutputFolder
        from prefdyn.planning.summary import together
        from prefdyn.report.plan import all_table

        found, without = {}, {}
        for name, one in makes.items():
            own = OutputFolder(path=folder.path / name, final=folder.final / name)
            own.path.mkdir()
            try:
                found[name], _ = one(feats, settings, own, texts, flags)
            except DataError as error:  # too few pairs for this part
                without[name] = error.typed
                own.path.rmdir()
        if not found:
            raise DataError("; ".join(without.values()))
        summary = together(feats, found, without)
        write_json(folder.path / "summary.json", summary)
        return summary, all_table

    return make


def _refuse_others(part: str, given: Given) -> None:
    """Refuse flags that mean something for another part alone."""
    from prefdyn.errors import ConfigError

    for other, names in _OF.items():
        for name in names:
            if name not in _OF[part] and given.said(name):
                raise ConfigError(f"--{name.replace('_', '-')} is for `prefdyn plan {other}`, not for plan {part}")
