"""`prefdyn audit`: the main job."""

from prefdyn.cli import options as o

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
    data: o.Data = None,
    model: o.Model = "builtin",
    features: o.Features = None,
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
    objective: o.Objective = "sigmoid",
    beta: o.Beta = 0.1,
    learning_rate: o.LearningRate = "auto",
    steps: o.Steps = 100,
    untrained_twin: o.UntrainedTwin = False,
    exact: o.Exact = None,
    eos: o.Eos = None,
    sketch: o.Sketch = 4096,
    embedding: o.Embedding = "pca",
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
    """Run the audit and write its folder."""
    options = dict(locals())
    import json

    from prefdyn import planning  # noqa: F401
    from prefdyn.cli import common
    from prefdyn.maths.objectives import objective as by_name
    from prefdyn.outputs import output_folder
    from prefdyn.planning.audit import audit
    from prefdyn.report.tables import verdict_table

    settings = {
        "objective": by_name(objective, beta=beta),
        "learning_rate": common.rate(learning_rate),
        "steps": steps,
        "split": common.share(split),
        "seed": seed,
        "embedding_method": embedding,
        "exact": exact,
    }
    common.check_embedding(embedding)
    with output_folder(out, command=NAME, force=force) as folder:
        if features is not None:
            feats, texts = common.stored_features(features, options)
            found = audit(feats, texts=texts, **settings)
        else:
            found = audit(
                common.dataset(options), model, untrained_twin=untrained_twin, **settings, **common.extraction(options)
            )
        found.write(folder.path)
        common.save_config(folder.path, options)
        common.write_pictures(folder.path)
        summary = found.summary()
    print(json.dumps(summary, ensure_ascii=False) if json_output else verdict_table(summary))
    for line in summary["warnings"]:
        common.tell(f"warning: {line}")
    for finding in summary["findings"]:
        if finding["severity"] != "note":
            common.tell(f"{finding['severity']}: {finding['says']}")
    common.last_words(folder.final, next_command=f"open {folder.final / 'report.html'}")
