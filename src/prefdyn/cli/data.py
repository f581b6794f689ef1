"""`prefdyn data`: validate, describe and convert a dataset."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prefdyn.cli import options as o
from prefdyn.cli.command import Only
from prefdyn.settings import Flag, Source

NAME = "data"
SUMMARY = "Validate, describe and convert a dataset."
HELP = "Validate, describe and convert a dataset."
EXAMPLES = """Examples:

prefdyn data

prefdyn data pairs.jsonl

prefdyn data --data hh:harmless-base/test.jsonl.gz --skip-bad-rows

prefdyn data --data persona:evals/persona --groups openness --to openness.parquet"""


def run(
    files: o.Files = None,
    source: Annotated[
        Source, Only("data", "groups", "limit", "group_column", "columns", "template", "skip_bad_rows")
    ] = Source(),
    to: Annotated[
        Path | None, Flag("Write the dataset to this .jsonl[.gz], .csv or .parquet file, in TRL's columns.")
    ] = None,
    seed: o.Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    json_output: o.Json = False,
) -> None:
    """Describe the dataset, list what is wrong with it, and convert it where asked."""
    import json

    from prefdyn.cli import common
    from prefdyn.data.contradictions import contradictions
    from prefdyn.data.describe import describe
    from prefdyn.data.preflight import preflight
    from prefdyn.data.write import formula_cells, unwritten, write
    from prefdyn.outputs import output_file
    from prefdyn.report.listing import data_table

    source = replace(source, data=(*source.data, *(files or ())))
    pairs = common.dataset(source, seed=seed)
    contradicted = contradictions(pairs)
    described = {
        **describe(pairs),
        "contradictions": contradicted.rows(pairs),
        "findings": [item.to_json() for item in preflight(pairs, contradicted)],
        "left_out_rows": [item.to_json() for item in pairs.left_out],
    }
    print(json.dumps(described, ensure_ascii=False) if json_output else data_table(described))
    if to is not None:
        with output_file(to, force=force) as file:
            write(pairs, file)
        risky = formula_cells(pairs) if to.name.endswith(".csv") else 0
        if risky:
            common.tell(
                f"{to} holds {risky:,} texts that a spreadsheet runs as formulas (they begin with =, +, - or @), "
                "as they are, for programs to read: do not open the file in a spreadsheet, or write .jsonl"
            )
        if lost := unwritten(pairs):
            common.tell(
                f"{to} does not keep {' and '.join(lost)}, since TRL's columns have no place for them: findings about "
                "votes and places are of the data as they were given"
            )
        common.tell(f"Wrote {to}", f"Next: prefdyn audit --data {to}")
