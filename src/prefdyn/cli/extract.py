"""`prefdyn extract`: features to a folder."""

from prefdyn.cli import options as o

NAME = "extract"
SUMMARY = "Features of a dataset under a model, to a folder."
HELP = "Features of a dataset under a model, to a folder that audit and simulate start from. Cached and resumable."
EXAMPLES = """Examples:

prefdyn extract --out features

prefdyn extract --data persona:evals/persona --model meta-llama/Llama-3.1-8B --out features

accelerate launch -m prefdyn extract --data persona:evals/persona --model meta-llama/Llama-3.1-8B --out features"""


def run(
    data: o.Data = None,
    model: o.Model = "builtin",
    out: o.Out = None,
    groups: o.Groups = None,
    limit: o.Limit = None,
    group_column: o.GroupColumn = None,
    columns: o.Columns = None,
    template: o.Template = None,
    skip_bad_rows: o.SkipBadRows = False,
    split: o.Split = 0.9,
    answers: o.Answers = None,
    max_length: o.MaxLength = None,
    eos: o.Eos = None,
    sketch: o.Sketch = 4096,
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    attn: o.Attn = "sdpa",
    batch_tokens: o.BatchTokens = None,
    double_norm: o.DoubleNorm = False,
    trust_remote_code: o.TrustRemoteCode = False,
    seed: o.Seed = 0,
    force: o.Force = False,
    json_output: o.Json = False,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Extract features and write their folder."""
    options = dict(locals())
    import json

    from prefdyn._processes import is_main_process
    from prefdyn.cli import common
    from prefdyn.features import describe
    from prefdyn.models.extract import extract
    from prefdyn.outputs import output_folder
    from prefdyn.store import save_dataset, save_features

    pairs = common.dataset(options).with_held_out(common.share(split), seed=seed)
    if not is_main_process():
        extract(pairs, model, **common.extraction(options))
        return
    with output_folder(out, command=NAME, force=force) as folder:
        feats = extract(pairs, model, **common.extraction(options))
        save_features(feats, folder.path)
        save_dataset(pairs.select(ids=feats.id), folder.path)
        common.save_config(folder.path, options)
    print(json.dumps({**describe(feats), "folder": str(folder.final)}) if json_output else feats)
    common.last_words(folder.final, next_command=f"prefdyn audit --features {folder.final}")
