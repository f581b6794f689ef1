"""All of it in one call: claims as DESIGN has them, numbers beside figures, reasons where a recipe cannot be run."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest

import prefdyn as pdy
from prefdyn._json import plain
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError
from prefdyn.experiments import presets, recipes
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.cost import costs, plan_table
from prefdyn.experiments.recipe import Figure, Line, Panel, Recipe, Results, mean_line, shades
from prefdyn.experiments.reproduce import planned, reproduce, run_recipe
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.shared_rules import Judged
from prefdyn.experiments.work import do

KEYS = {
    "id", "paper", "where", "statement", "paper_value", "measured", "holds", "evidence", "because", "rule", "control",
    "recipe", "figure", "preset", "kind", "unit", "p", "corrected", "thresholds",
}  # fmt: skip
SPEC = spec_of("2408.03459-fig03")


def toy(context_seen=None, *, fail=False):
    """A recipe of one run and two claims."""

    def runs(context):
        pairs = context.pairs(context.behaviours(), 0)
        return {"states": context.features(pairs, context.model())}

    def results(context, done):
        if context_seen is not None:
            context_seen.append(context)
        states = done["states"].features.states
        line = Line(label="mean", x=np.arange(3.0), y=states.mean(axis=0)[:3].astype(float))
        matrix = np.arange(4.0).reshape(2, 2)
        return Results(
            measured=Rows(facts={"size": float(np.abs(states).mean())}),
            figures=(
                Figure(spec=SPEC, panels=(Panel(kind="lines", lines=(line,)),), caption="A line."),
                Figure(
                    spec=SPEC, part="b", panels=(Panel(kind="heat", matrix=matrix, names=("u", "v")),),
                    caption="A map.",
                ),
            ),
            notes=("A note.",),
        )  # fmt: skip

    claims = (
        Claim(
            id="size", figure=SPEC.id, statement="States are there.", said="Holds where their size is above 0.",
            code=lambda _, found: Judged(
                holds=found.facts["size"] > 0, measured=f"{found.facts['size']:.3g}", because="it is",
                evidence={"size": found.facts["size"], "nan": float("nan")},
            ),
        ),
        Claim(
            id="never", figure=SPEC.id, statement="Never.", said="Holds where pigs fly.",
            code=lambda _, found: Judged(holds=False, measured="none flies", because="none"),
        ),
    )  # fmt: skip
    return Recipe(name="cluster-structure", summary="A toy.", claims=claims, runs=runs, results=results)


@pytest.fixture
def only_toy(monkeypatch):
    """The toy in the place of the recipe whose name it has."""

    def put(recipe):
        monkeypatch.setattr(recipes, "recipe_named", lambda name: recipe)
        return recipe

    return put


def test_claims_and_files_are_as_they_are_documented(only_toy, tmp_path):
    only_toy(toy())
    found = reproduce(["cluster-structure"], progress=False)
    assert [set(row) for row in found.claims] == [KEYS, KEYS]
    assert [row["holds"] for row in found.rows()] == [True, False]
    assert (found.runs, found.done_before) == (1, 0)
    found.write(tmp_path)
    written = json.loads((tmp_path / "claims.json").read_text())
    assert written == found.claims
    assert written[0] | {"measured": None, "evidence": None} == {
        "id": "size", "paper": "2408.03459", "where": "Figure 3", "statement": "States are there.", "paper_value": None,
        "measured": None, "holds": True, "evidence": None, "because": "it is",
        "rule": "Holds where their size is above 0.", "control": None, "recipe": "cluster-structure",
        "figure": "2408.03459-fig03", "preset": "smoke", "kind": "replication", "unit": "behaviour",
        "p": None, "corrected": None, "thresholds": [],
    }  # fmt: skip
    assert written[0]["evidence"]["nan"] is None
    summary = json.loads((tmp_path / "summary.json").read_text())
    none = dict.fromkeys(("held", "failed", "not_testable", "tested", "stand"), 0)
    both = none | {"held": 1, "failed": 1}
    assert summary["claims"] == {**both, "by_kind": {"replication": both, "ours": none, "algebra": none}}
    assert summary["command"] == "reproduce"
    assert [figure["id"] for figure in summary["figures"]] == ["2408.03459-fig03", "2408.03459-fig03b"]
    assert summary["recipes"][0]["notes"] == ["A note."]
    assert summary["data"] == [
        {"name": "builtin", "pairs": 4000, "groups": 20, "sha256": load_dataset("builtin").sha256}
    ]
    lines = csv.read_csv(tmp_path / "figures" / "2408.03459-fig03.csv").to_pylist()
    assert [row["x"] for row in lines] == [0.0, 1.0, 2.0]
    cells = csv.read_csv(tmp_path / "figures" / "2408.03459-fig03b.csv").to_pylist()
    assert [(row["row"], row["column"], row["y"]) for row in cells] == [
        ("u", "u", 0.0), ("u", "v", 1.0), ("v", "u", 2.0), ("v", "v", 3.0),
    ]  # fmt: skip
    again = reproduce(["cluster-structure"], progress=False)
    assert (again.done_before, again.claims) == (1, found.claims)


def test_many_numbers_go_into_a_parquet_file(tmp_path, monkeypatch):
    from prefdyn.experiments import reproduce as room

    monkeypatch.setattr(room, "_MOST_CSV_ROWS", 3)
    figure = Figure(
        spec=SPEC, panels=(Panel(kind="lines", lines=(mean_line("m", range(4), [[0.0] * 4, [1.0] * 4]),)),), caption=""
    )
    room._write_numbers(figure.table(), tmp_path, "big")
    rows = parquet.read_table(tmp_path / "big.parquet").to_pylist()
    assert rows[0] == {"panel": "panel 1", "series": "m", "x": 0.0, "y": 0.5, "low": 0.0, "high": 1.0}


def test_a_recipe_that_cannot_be_run_says_why_and_the_others_go_on(only_toy, tmp_path):
    only_toy(toy())
    talk = PreferenceDataset.from_rows(
        [{"prompt": f"Q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(4)], name="talk"
    )
    found = reproduce(["cluster-structure"], data=[talk], progress=False)
    assert [row["holds"] for row in found.claims] == [None, None]
    assert "none of the data (talk) has two answers" in found.claims[0]["because"]
    assert found.results[0].failed == found.claims[0]["because"]
    assert found.figures == ()
    found.write(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["recipes"][0]["failed"].startswith("none of the data")


def test_a_run_that_fails_takes_its_recipe_with_it_and_is_told(only_toy, monkeypatch):
    from prefdyn.errors import TrainingError
    from prefdyn.experiments import launch

    only_toy(toy())

    def broken(run):
        raise TrainingError("the loss is nan")

    monkeypatch.setattr(launch, "do", broken)
    found = reproduce(["cluster-structure"], progress=False)
    assert found.claims[0]["because"] == "the loss is nan"
    assert found.warnings == ("a run failed: the loss is nan",)


def test_from_python_with_data_in_memory(only_toy):
    seen = []
    only_toy(toy(seen))
    data = load_dataset("builtin", groups=["tells the truth", "takes risks"])
    found = pdy.run_recipe("cluster-structure", data=data, seed=3)
    assert [row["holds"] for row in found.rows()] == [True, False]
    assert found.measured.facts["size"] > 0
    assert (found.figures[0].id, seen[0].seeds) == ("2408.03459-fig03", (3,))
    assert "held          States are there." in str(found)
    with_rows = [{"prompt": f"{n}?", "chosen": a, "rejected": b} for n in range(10) for a, b in [(" Yes", " No")]]
    turned = [row | {"chosen": " No", "rejected": " Yes", "prompt": f"not {row['prompt']}"} for row in with_rows]
    assert run_recipe("cluster-structure", data=[*with_rows, *turned]).rows()[0]["holds"] is True


def test_what_is_unknown_is_named():
    with pytest.raises(ConfigError, match="recipe 'cluster' is unknown"):
        run_recipe("cluster")
    with pytest.raises(ConfigError, match="preset 'middling' is unknown"):
        run_recipe("cluster-structure", preset="middling")


def test_a_plan_says_what_it_would_take_and_runs_nothing(only_toy, own_cache):
    recipe = only_toy(toy())
    given = {
        "preset": "smoke", "data": ("builtin",), "models": (), "answers": None, "groups": None, "seed": 0,
        "paper_compat": False, "device": "auto", "dtype": "auto", "revision": None,
    }  # fmt: skip
    found = planned(["cluster-structure"], **given)
    (cost,) = found.costs
    pairs = cost.run.pairs
    tokens = pairs.characters / 4
    parameters = 2048 * 128 + 4 * (4 * 128 * 128 + 3 * 128 * 344 + 2 * 128) + 128  # the built-in model, its head tied
    assert cost.flops == pytest.approx(2 * parameters * tokens * (pairs.train + pairs.held_out))
    assert (cost.done, cost.steps) == (False, None)
    assert not (own_cache / "runs").exists()
    assert "features of builtin" in plan_table(found.costs)
    do(cost.run)
    assert planned(["cluster-structure"], **given).costs[0].done
    assert recipe.name == "cluster-structure"


def test_the_published_plan_counts_the_published_model(context):
    """One epoch of 8 steps over 900 rows in batches of 128, evaluated at every step."""
    from prefdyn.experiments.context import Context
    from prefdyn.experiments.published import MODELS

    data = load_dataset("builtin", groups=["tells the truth"])
    paper = Context(preset=presets.preset_named("paper"), data=(data,), models=())
    pairs = replace(paper.pairs(data.groups, 0), train=900, held_out=100)
    run = paper.train(pairs, paper.model("full"), paper.setup("full"), seed=0)
    (cost,) = costs([run], look=False)
    forward = 2 * MODELS["llama-2"].parameters * pairs.characters / 4
    assert cost.steps == 8
    assert cost.flops == pytest.approx(forward * (3 * 128 * 8 + 1000 * 9 + 2 * 1000))
    assert cost.memory is not None
    assert 4 * 4 * MODELS["llama-2"].parameters < cost.memory < 6 * 4 * MODELS["llama-2"].parameters
    unknown = replace(run, model=replace(run.model, name="someone/unknown"))
    assert costs([unknown], look=False)[0].flops is None
    assert "1 runs of models whose size is not known here" in plan_table(costs([unknown], look=False))


def test_json_holds_no_nan():
    assert plain({"a": [np.float32(0.5), float("inf")], "b": (np.int64(3), None, "x", True)}) == {
        "a": [0.5, None], "b": [3, None, "x", True],
    }  # fmt: skip


def test_lines_of_seeds_and_shades():
    line = mean_line("a", [0, 1], [[1.0, 3.0], [2.0, 5.0], [3.0, 1.0]], shade=0.3)
    assert [np.asarray(each).tolist() for each in (line.y, line.low, line.high)] == [[2.0, 3.0], [1.0, 1.0], [3.0, 5.0]]
    assert shades(5) == pytest.approx([0.1 + 0.2 * i for i in range(5)])


@pytest.mark.slow
def test_on_shuffled_labels_no_claim_about_distinguishability_goes_beyond_the_twin(monkeypatch):
    """The built-in data with every label drawn by lot, under the rules and seeds of `small` at a smaller size."""
    small = presets.PRESETS["small"]
    monkeypatch.setitem(presets.PRESETS, "small", replace(small, rows=60, measured_pairs=20, relabellings=199, jobs=1))
    data = load_dataset("builtin").with_noise(0.5, seed=11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = run_recipe("distinguishability", preset="small", data=data)
    beyond = [row["id"] for row in found.claims if row["control"] and row["holds"] and row["control"]["beyond"]]
    assert beyond == []
    null = next(row for row in found.claims if row["id"].endswith("experiment01-null"))
    assert null["holds"] is False
