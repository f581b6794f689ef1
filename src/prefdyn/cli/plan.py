"""`prefdyn plan`: what to change, with what stands for and against it."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Extraction, Flag, Setup, Source

NAME = "plan"
SUMMARY = "What to change: a recipe, with what it gains on pairs that had no say."
HELP = (
    "What to change before training. `weights`: what pairs of each group should count for a goal, found by exact "
    "slopes through simulated runs, judged on pairs that took no part beside the best known alternatives. Writes flags "
    "for `prefdyn train --config`, a dataset with weights for TRL, and a page; says so where nothing should be changed."
    " `data`: how many pairs of each group a held-out loss takes, with intervals, from runs on parts of the data. "
    "`select`: which pairs to leave out, turn round or count half, every rule simulated on this data; often: none."
)
EXAMPLES = """Examples:

prefdyn plan weights

prefdyn plan weights --goal equal --features features --beta 0.5 --steps 200

prefdyn plan weights --goal protect=rare:0.5 --data hf:OWNER/NAME --model meta-llama/Llama-3.2-1B --no-worse 0.02

prefdyn plan data --features features --target rare:0.5 --target other:0.4

prefdyn plan select --data pairs.jsonl --model ./my-model"""
PARTS = ("weights", "data", "select")
_OF = {
    "weights": ("goal", "no_worse", "floor", "ceiling", "write_for"), "data": ("target",), "select": ("write_for",),
}  # fmt: skip
"""Flags that mean something for some parts alone."""


def run(
    given: Given,
    part: Annotated[str, typer.Argument(metavar="PART", help="What to plan: weights, data or select.")] = "weights",
    goal: Annotated[
        str,
        Flag(
            "worst (lower the worst group's loss), mean (over groups), equal (the same share of what each group "
            "reaches alone) or protect=GROUP:LOSS."
        ),
    ] = "worst",
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
    write_for: Annotated[
        tuple[str, ...],
        Flag(
            "Also write dataset and configuration for another trainer: llama-factory, ms-swift or axolotl; several "
            "times.",
            default="none",
            typed=list[str],
        ),
    ] = (),
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
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Plan, and write the folder."""
    from prefdyn._checks import one_of
    from prefdyn.cli import common
    from prefdyn.outputs import output_folder

    one_of(part, PARTS, name="PART")
    _refuse_others(part, given)
    setup.idle()
    steps = int(setup.steps or 100)
    settings: dict[str, Any] = {
        "objective": setup.loss, "learning_rate": setup.learning_rate, "optimizer": setup.stepper or "sgd",
        "schedule": setup.falls(steps), "batch_size": setup.batch_size, "scheme": setup.scheme, "steps": steps,
        "seed": seed,
    }  # fmt: skip
    made = {
        "weights": lambda: _weights(goal, no_worse, floor, ceiling), "data": lambda: _data(target), "select": _select,
    }  # fmt: skip
    make = made[part]()
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
            from prefdyn.models.extract import extract

            texts = common.split_dataset(source, seed=seed)
            feats = extract(texts, model, reading=reading)
        flags = {**given.values, "group_weights": source.group_weights}
        summary, table = make(feats, settings, folder, texts, flags)
        commands = _written_for(write_for, feats, None if features is not None else model, setup.loss, folder, seed)
        given.save(folder.path)
        common.write_pictures(folder.path)
    common.tell_result(summary, table, as_json=json_output)
    recipe = folder.final / "plan.yaml"
    next_command = f"prefdyn train --config {recipe}" if recipe.exists() else f"prefdyn report {folder.final}"
    common.log_to(report_to, folder.final, command=NAME, beta=setup.beta)
    for command in commands.values():
        common.tell(f"Or: {command}")
    common.last_words(folder.final, next_command=next_command)


def _written_for(
    names: tuple[str, ...], feats: Any, model: str | None, loss: Any, folder: Any, seed: int
) -> dict[str, str]:
    """What other trainers read, from the dataset that the plan wrote; the command of each."""
    if not names:
        return {}
    from prefdyn.data.loaders import load_dataset
    from prefdyn.errors import ConfigError
    from prefdyn.planning.trainers import check_trainers, write_for

    if not (folder.path / "dataset.jsonl").exists():
        raise ConfigError("--write-for needs the texts of the pairs; give --data, or features with their texts")
    model = model or str(dict(feats.provenance.model).get("name") or "YOUR-MODEL")
    check_trainers(names, loss, model=model)
    data = load_dataset(folder.path / "dataset.jsonl")
    return write_for(folder.path, names, data, loss, model=model, final=folder.final, seed=seed)


_Make = Callable[..., tuple[dict[str, Any], Callable[[Any], str]]]
"""From features, settings, folder, texts and flags to what was written there and the table of it."""


def _weights(goal: str, no_worse: float | None, floor: float, ceiling: float) -> _Make:
    from prefdyn.planning.goals import Goal

    wanted = Goal.read(goal, slack=no_worse)

    def make(feats: Any, settings: dict[str, Any], folder: Any, texts: Any, flags: dict[str, Any]) -> Any:
        from prefdyn.planning.weights import plan_weights
        from prefdyn.report.plan import plan_table

        plan = plan_weights(feats, wanted, floor=floor, ceiling=ceiling, **settings)
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


def _refuse_others(part: str, given: Given) -> None:
    """Refuse flags that mean something for another part alone."""
    from prefdyn.errors import ConfigError

    for other, names in _OF.items():
        for name in names:
            if other != part and name not in _OF[part] and given.said(name):
                raise ConfigError(f"--{name.replace('_', '-')} is for `prefdyn plan {other}`, not for plan {part}")
