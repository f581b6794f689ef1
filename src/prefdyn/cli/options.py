"""Options that several commands share. Only typer is imported here, so `--help` stays quick."""

from pathlib import Path
from typing import Annotated, Any

import typer


def _config(context: Any, path: Path | None) -> Path | None:
    """Read flat keys from a YAML file as defaults of this command; the command line wins."""
    if path is None:
        return None
    from prefdyn.cli.config import read_config

    known: dict[str, Any] = {}
    for parameter in context.command.params:
        if parameter.name != "config":
            flags = [flag.lstrip("-") for flag in (*parameter.opts, *parameter.secondary_opts)]
            known |= {name.replace("-", "_"): parameter for name in (parameter.name, *flags)}
    context.default_map = {**(context.default_map or {}), **read_config(path, context, known)}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with any of these flags (flat keys); the command line wins.", is_eager=True, callback=_config
    ),
]
Out = Annotated[Path | None, typer.Option(help="Output folder. Default: the first free prefdyn-out/COMMAND-N.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output folder if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]

Data = Annotated[
    list[str] | None,
    typer.Option(
        help="builtin, a .jsonl[.gz] / .json / .csv / .tsv / .parquet file or folder, persona:PATH, hh:PATH, "
        "hf:OWNER/NAME[/CONFIG][:SPLIT]. Several times, also as NAME=SPEC: each is a group unless it has groups.",
        show_default="builtin",
    ),
]
Groups = Annotated[str | None, typer.Option(help="Only these groups: a,b,c; a name with a comma in double quotes.")]
Limit = Annotated[int | None, typer.Option(help="At most this many pairs per group (a seeded sample).", min=1)]
GroupColumn = Annotated[str | None, typer.Option(help="Column that holds the group.")]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Which field is what, where the layout is not known: prompt=question,first=a,second=b,winner=label; "
        "or a YAML file of it (docs/data.md).",
    ),
]
Template = Annotated[str | None, typer.Option(help="Persona text: question, question+newline or statement.")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out and list them.")]
Split = Annotated[float, typer.Option(help="Share of each group to train on; the rest is held out.")]
Answers = Annotated[
    str | None,
    typer.Option(help="POS,NEG: other words for a two-answer dataset whose own are several tokens."),
]
MaxLength = Annotated[int | None, typer.Option(help="Leave out pairs longer than this many tokens.", min=1)]
Eos = Annotated[
    bool | None,
    typer.Option(
        "--eos/--no-eos",
        help="End token after plain responses, as TRL appends it. --eos also reads one-token answers as texts.",
        show_default="eos, but none after one-token answers",
    ),
]
Sketch = Annotated[
    int, typer.Option(help="Numbers to keep of each longer response; 0: no sketch, for few pairs.", min=0)
]
Exact = Annotated[
    int | None,
    typer.Option(
        help="Longer responses: train the whole head exactly on this many pairs, to check the curves; 0: not.",
        show_default="as many as take little time",
        min=0,
    ),
]

Model = Annotated[str, typer.Option(help="builtin, a local folder, a hub id, or a LoRA adapter's folder.")]
Features = Annotated[Path | None, typer.Option(help="Start from a folder that `prefdyn extract` wrote.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a hub model.")]
Dtype = Annotated[str, typer.Option(help="auto (float32 on CPU, bfloat16 on GPU), float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Attn = Annotated[str, typer.Option(help="Attention of the forward pass: sdpa, eager or flash_attention_2.")]
BatchTokens = Annotated[int | None, typer.Option(help="Tokens per forward pass.", min=1)]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the model's folder ships.")]
UntrainedTwin = Annotated[
    bool, typer.Option("--untrained-twin", help="Also measure the same architecture with fresh weights: words alone.")
]
Embedding = Annotated[str, typer.Option(help="2-D picture by pca, or umap where prefdyn[umap] is installed.")]
DoubleNorm = Annotated[
    bool,
    typer.Option("--double-norm", help="Apply the final norm twice, as the published scripts did."),
]

Objective = Annotated[str, typer.Option(help="Preference objective, by TRL's name.")]
Beta = Annotated[float, typer.Option(help="DPO temperature.")]
LearningRate = Annotated[str, typer.Option(help="Step size, or auto: half of the largest stable step.")]
Steps = Annotated[int, typer.Option(help="Full-batch steps.", min=1)]
