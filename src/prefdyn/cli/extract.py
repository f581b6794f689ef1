"""`prefdyn extract`: features to a folder."""

from prefdyn.cli import options as o
from prefdyn.cli.command import Given
from prefdyn.settings import Extraction, Source

NAME = "extract"
SUMMARY = "Features of a dataset under a model, to a folder."
HELP = "Features of a dataset under a model, to a folder that audit and simulate start from. Cached and resumable."
EXAMPLES = """Examples:

prefdyn extract --out features

prefdyn extract --data persona:evals/persona --model meta-llama/Llama-3.1-8B --out features

accelerate launch -m prefdyn extract --data persona:evals/persona --model meta-llama/Llama-3.1-8B --out features"""


def run(
    given: Given,
    source: Source = Source(),
    model: o.Model = "builtin",
    out: o.Out = None,
    reading: Extraction = Extraction(),
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
) -> None:
    """Extract features and write their folder."""
    import json

    from prefdyn._processes import is_main_process
    from prefdyn._progress import frameworks
    from prefdyn.cli import common
    from prefdyn.features import describe
    from prefdyn.outputs import output_folder
    from prefdyn.store import save_dataset, save_features

    pairs = common.split_dataset(source, seed=seed)
    with frameworks(for_good=True):
        from prefdyn.models.extract import extract
    if not is_main_process():
        extract(pairs, model, reading=reading)
        return
    with output_folder(out, command=NAME, force=force) as folder:
        feats = extract(pairs, model, reading=reading)
        save_features(feats, folder.path)
        save_dataset(pairs.select(ids=feats.id), folder.path)
        given.save(folder.path)
    print(json.dumps({**describe(feats), "folder": str(folder.final)}) if json_output else feats)
    common.last_words(folder.final, next_command=f"prefdyn audit --features {folder.final}")
