"""`prefdyn audit`: the main job."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prefdyn.cli import options as o
from prefdyn.cli.command import Given, Only
from prefdyn.settings import Extraction, Flag, Setup, Source

NAME = "audit"
SUMMARY = "Dataset + model in; what is learned first, left behind, and how fast, out."
HELP = "Dataset + model in; what DPO will learn first, what it will leave behind, and how fast, out."
EXAMPLES = """Examples:

prefdyn audit

prefdyn audit --data persona:evals/persona --model meta-llama/Llama-3.1-8B --limit 400

prefdyn audit --data code=code.jsonl --data safety=safety.csv --model ./my-model --answers Yes,No

prefdyn audit --data builtin:responses

prefdyn audit --data hh:harmless-base/test.jsonl.gz --skip-bad-rows --model ./my-model --exact 50 --untrained-twin"""


def run(
    given: Given,
    source: Source = Source(),
    model: o.Model = "builtin",
    features: o.Features = None,
    out: o.Out = None,
    setup: Annotated[Setup, Only("objective", "beta", "learning_rate", "steps")] = Setup(
        learning_rate="auto", steps=100
    ),
    untrained_twin: Annotated[
        bool, Flag("Also measure the same architecture with fresh weights: words alone.")
    ] = False,
    exact: Annotated[
        int | None,
        Flag(
            "Longer responses: train the whole head exactly on this many pairs, to check the curves; 0: not.",
            default="as many as take little time",
            least=0,
        ),
    ] = None,
    forecast: Annotated[
        Path | None,
        typer.Option(help="Folder of `prefdyn forecast` on the same pairs: its groups stand beside the verdicts."),
    ] = None,
    embedding: Annotated[str, Flag("2-D picture by pca, or umap where umap-learn is installed.")] = "pca",
    reading: Extraction = Extraction(),
    report_to: o.ReportTo = (),
    figure_style: o.FigureStyle = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Run the audit and write its folder."""
    from prefdyn._progress import frameworks
    from prefdyn.cli import common
    from prefdyn.maths.objectives import refuse_to_judge
    from prefdyn.outputs import output_folder

    settings: dict[str, Any] = {
        "objective": setup.loss,
        "learning_rate": setup.learning_rate,
        "steps": setup.steps,
        "split": source.split,
        "seed": seed,
        "embedding_method": embedding,
        "forecast": forecast,
    }
    refuse_to_judge(settings["objective"])
    common.check_embedding(embedding)
    common.check_trackers(report_to)
    with output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, texts = common.stored_features(features, source, given, but=("split",))
            from prefdyn.planning.audit import audit  # below, so that what cannot be read is said at once

            audited = audit(feats, texts=texts, **settings)
        else:
            pairs = common.dataset(source, seed=seed)
            with frameworks(for_good=True):
                from prefdyn.models.extract import extract  # noqa: F401
                from prefdyn.planning.audit import audit

            audited = audit(pairs, model, untrained_twin=untrained_twin, exact=exact, reading=reading, **settings)
        audited.write(folder.path)
        given.save(folder.path)
        common.write_pictures(folder.path, figure_style)
        summary = json.loads((folder.path / "summary.json").read_bytes())  # a quarter of a second to make once more
    from prefdyn.report.answers import audit_text

    common.tell_result(summary, audit_text, as_json=json_output)
    common.log_to(report_to, folder.final, command=NAME, beta=setup.beta)
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
