"""`prefdyn reproduce`: recipes for the papers' figures and tables, and which of their claims hold here."""

from typing import Annotated

import typer

from prefdyn import _stopping
from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Flag, Reading, Source

NAME = "reproduce"
SUMMARY = "The papers' figures and tables on any model and data; claims held or failed."
HELP = (
    "Run recipes for the papers' figures and tables on any model and data. Each claim of the papers is judged by a "
    "rule that was written before the runs: held, failed, or not testable here, with the numbers, and beside an "
    "untrained twin where words alone could do it. Finished runs are kept in the cache, so an interrupted reproduction "
    "goes on."
)
EXAMPLES = """Examples:

prefdyn reproduce --list

prefdyn reproduce distinguishability --preset smoke

prefdyn reproduce all --preset small --data persona:evals/persona --model meta-llama/Llama-3.2-1B --out ours

prefdyn reproduce all --preset paper --data persona:evals/persona --dry-run"""


def run(
    given: Given,
    recipes: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE...|all]", help="Names of recipes, or all.")
    ] = None,
    preset: Annotated[
        str, Flag("smoke (seconds), small (a real small model), medium (a larger one) or paper.")
    ] = "smoke",
    source: Annotated[Source, Only("data", "groups")] = Source(),
    model: Annotated[
        tuple[str, ...],
        Flag(
            "builtin, a local folder or a hub id; a second one is the other model of the figures that have one.",
            default="builtin; the published ones under the preset paper",
            typed=list[str],
        ),
    ] = (),
    paper_compat: Annotated[
        bool, Flag("Also run what the published code does where it differs from the text.")
    ] = False,
    out: o.Out = None,
    jobs: Annotated[int | None, Flag("Processes side by side.", least=1, default="by preset")] = None,
    launcher: Annotated[str, Flag("local, or ray for a cluster.")] = "local",
    list_recipes: Annotated[bool, typer.Option("--list", help="Show recipes, figures and claims.")] = False,
    dry_run: Annotated[bool, Flag("Print the plan: runs, memory, operations.")] = False,
    reading: Annotated[Reading, Only("answers", "revision", "dtype", "device")] = Reading(),
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Run the recipes, judge their claims, draw their figures."""
    import json

    from prefdyn.cli import common
    from prefdyn.errors import ConfigError
    from prefdyn.experiments.recipes import recipes_named

    if list_recipes:
        _list(recipes or ["all"], json_output)
        return
    if not recipes:
        raise ConfigError("no recipe is named; give names, or all; `prefdyn reproduce --list` shows them")
    chosen = recipes_named(recipes)

    from prefdyn.experiments.reproduce import planned, reproduce
    from prefdyn.outputs import output_folder

    if preset == "paper" and not source.data:
        raise ConfigError("the preset paper needs the published data: add --data persona:PATH")
    wanted = {
        "preset": preset, "data": source.data or ("builtin",), "models": model, "answers": reading.answers,
        "groups": common.possible_groups(source.groups), "seed": seed, "paper_compat": paper_compat,
        "device": reading.device, "dtype": reading.dtype, "revision": reading.revision,
    }  # fmt: skip
    names = [recipe.name for recipe in chosen]
    if dry_run:
        _plan(planned(names, **wanted), json_output)
        return

    from prefdyn.report.reproduce import claims_table, write_reproduced_figures, write_reproduced_page

    with output_folder(out, command=NAME, force=force) as folder:
        _stopping.keeps(lambda: "the runs that are done are kept in the cache; the same command goes on")
        found = reproduce(names, jobs=jobs, launcher=launcher, **wanted)
        found.write(folder.path)
        write_reproduced_figures(found.figures, folder.path / "figures")
        given.save(folder.path)
        write_reproduced_page(folder.path, folder.path / "report.html")
    print(json.dumps(found.claims, ensure_ascii=False) if json_output else claims_table(found.claims))
    for line in found.warnings:
        common.tell(f"warning: {line}")
    for result in found.results:
        for line in [*result.notes, *([] if result.failed is None else [f"not run: {result.failed}"])]:
            common.tell(f"{result.recipe.name}: {line}")
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")


def _list(names: list[str], as_json: bool) -> None:
    import json

    from prefdyn.experiments.recipes import recipes_named
    from prefdyn.report.text import wrapped

    found = [recipe.describe() for recipe in recipes_named(names)]
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for recipe in found:
        print(f"{recipe['name']}\n" + "\n".join(f"  {line}" for line in wrapped(recipe["summary"], 100)))
        for figure in recipe["figures"]:
            print(f"    {figure['paper']}, {figure['where']:14} {figure['title']} ({figure['claims']} claims)")


def _plan(found: object, as_json: bool) -> None:
    import json

    from prefdyn.experiments.cost import Cost, plan_table
    from prefdyn.experiments.reproduce import Planned

    assert isinstance(found, Planned)
    costs: list[Cost] = list(found.costs)
    if as_json:
        print(json.dumps({"runs": [cost.row() for cost in costs], "not_planned": found.failed}, ensure_ascii=False))
        return
    print(plan_table(costs))
    for name, why in found.failed.items():
        print(f"{name}: {why}")
