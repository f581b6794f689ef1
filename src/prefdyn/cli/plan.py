"""`prefdyn plan`: what to change, with what stands for and against it."""

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
)
EXAMPLES = """Examples:

prefdyn plan weights

prefdyn plan weights --goal equal --features features --beta 0.5 --steps 200

prefdyn plan weights --goal protect=rare:0.5 --data hf:OWNER/NAME --model meta-llama/Llama-3.2-1B --no-worse 0.02"""
PARTS = ("weights",)


def run(
    given: Given,
    part: Annotated[str, typer.Argument(metavar="PART", help="What to plan: weights.")] = "weights",
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
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Plan, and write the folder."""
    from prefdyn._checks import one_of
    from prefdyn.cli import common
    from prefdyn.outputs import output_folder
    from prefdyn.planning.goals import Goal
    from prefdyn.planning.weights import plan_weights
    from prefdyn.report.plan import plan_table

    one_of(part, PARTS, name="PART")
    setup.idle()
    wanted = Goal.read(goal, slack=no_worse)
    steps = int(setup.steps or 100)
    with output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, texts = common.stored_features(features, source, given)
            if texts is not None and source.group_weights is not None:
                texts = texts.weighted(source.group_weights)
        else:
            from prefdyn.models.extract import extract

            texts = common.split_dataset(source, seed=seed)
            feats = extract(texts, model, reading=reading)
        settings: dict[str, Any] = {
            "objective": setup.loss, "learning_rate": setup.learning_rate, "optimizer": setup.stepper or "sgd",
            "schedule": setup.falls(steps), "batch_size": setup.batch_size, "scheme": setup.scheme, "steps": steps,
        }  # fmt: skip
        plan = plan_weights(feats, wanted, floor=floor, ceiling=ceiling, seed=seed, **settings)
        flags = {**given.values, "group_weights": source.group_weights}
        plan.write(folder.path, texts=texts, flags=flags)
        given.save(folder.path)
        common.write_pictures(folder.path)
    common.tell_result(plan.summary(), plan_table, as_json=json_output)
    common.last_words(folder.final, next_command=f"prefdyn train --config {folder.final / 'plan.yaml'}")
