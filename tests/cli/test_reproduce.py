"""`prefdyn reproduce` as a user runs it."""

import json

import pytest

from prefdyn.experiments.recipes import names
from tests.cli.conftest import write_rows


def test_the_list_says_who_draws_what(prefdyn):
    found = prefdyn("reproduce", "--list")
    assert found.code == 0
    assert "2404.04626, Figure 1" in found.out
    listed = json.loads(prefdyn("reproduce", "--list", "--json").out)
    assert [recipe["name"] for recipe in listed] == list(names())
    owners = [figure["id"] for recipe in listed for figure in recipe["figures"]]
    assert len(set(owners)) == len(owners)
    assert listed[0]["claims"][0]["rule"]
    one = json.loads(prefdyn("reproduce", "gradient-field", "--list", "--json").out)
    assert [recipe["name"] for recipe in one] == ["gradient-field"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no recipe is named; give names, or all; `prefdyn reproduce --list` shows them"),
        (["gradient-feild"], "recipe 'gradient-feild' is unknown; did you mean 'gradient-field'?"),
        (["all", "--preset", "huge"], "preset 'huge' is unknown"),
        (["gradient-field", "--preset", "paper"], "the preset paper needs the published data: add --data persona:PATH"),
        (["gradient-field", "--launcher", "slurm"], "launcher 'slurm' is unknown"),
        (["gradient-field", "--model", "./nowhere"], "model folder './nowhere' does not exist"),
        (["gradient-field", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["gradient-field", "--answers", "Yes"], "--answers 'Yes' must be two words"),
    ],
)
def test_what_cannot_be_is_one_line(prefdyn, arguments, message):
    found = prefdyn("reproduce", *arguments)
    assert (found.code, found.out) == (1, "")
    assert found.last_line.startswith("prefdyn: ")
    assert message in found.last_line


def test_a_plan_without_runs(prefdyn, tmp_path):
    found = prefdyn("reproduce", "gradient-field", "--dry-run")
    assert found.code == 0
    assert "train of builtin, full, sft" in found.out
    assert not (tmp_path / "prefdyn-out").exists()
    plan = json.loads(prefdyn("reproduce", "gradient-field", "--dry-run", "--json").out)
    assert len(plan["runs"]) == 12
    assert plan["not_planned"] == {}
    assert all(run["flops"] is not None and not run["done"] for run in plan["runs"])


def test_the_published_plan_needs_no_model(prefdyn, tmp_path):
    lines = [
        {
            "question": f"Q{n}?", "statement": f"S{n}", "label_confidence": 1,
            "answer_matching_behavior": yes, "answer_not_matching_behavior": no,
        }
        for n in range(20)
        for yes, no in [((" Yes", " No"), (" No", " Yes"))[n % 2]]
    ]  # fmt: skip
    (tmp_path / "persona").mkdir()
    for name in ("calm", "bold", "kind"):
        write_rows(
            tmp_path / "persona" / f"{name}.jsonl",
            [line | {"question": f"{name} {line['question']}"} for line in lines],
        )
    found = prefdyn(
        "reproduce", "gradient-field", "--preset", "paper", "--data", "persona:persona", "--dry-run", "--json"
    )
    assert found.code == 0, found.err
    plan = json.loads(found.out)
    trained = [run for run in plan["runs"] if run["kind"] == "train"]
    assert {run["model"].partition(" (")[0] for run in trained} == {"meta-llama/Llama-2-7b-hf"}
    assert {run["settings"]["learning_rate"] for run in trained} == {1e-5}
    assert all(run["memory"] > 1e11 for run in trained)


def test_a_recipe_from_the_command_line_to_the_page(prefdyn, tmp_path):
    """Files, claims on stdout, the same again from the configuration and the cache, and no folder overwritten."""
    found = prefdyn("reproduce", "cluster-structure", "--out", "ours", "--json")
    assert found.code == 0, found.err
    claims = json.loads(found.out)
    folder = tmp_path / "ours"
    assert json.loads((folder / "claims.json").read_text()) == claims
    kinds = {path.suffix for path in (folder / "figures").glob("2408.03459-fig03*")}
    assert kinds == {".svg", ".png", ".pdf", ".csv"}
    page = (folder / "report.html").read_text()
    assert page.index("<h2>Claims</h2>") < page.index('id="2408.03459-fig03"')
    assert claims[0]["statement"] in page
    assert "Wrote ours" in found.err
    assert "cluster-structure: “All” are 6 of the 20 groups" in found.err

    refused = prefdyn("reproduce", "cluster-structure", "--out", "ours")
    assert refused.code == 1
    assert "ours exists already; add --force" in refused.last_line
    again = prefdyn("reproduce", "--config", str(folder / "config.yaml"), "--out", "again")
    assert again.code == 0, again.err
    assert "5 claims" in again.out
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("ours", "again"))
    assert (one["runs"], other["runs"]) == ({"all": 2, "done_before": 0}, {"all": 2, "done_before": 2})
    for name in ("claims.json", "figures/2408.03459-fig03.svg", "figures/2408.03459-fig06.pdf"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    assert prefdyn("report", "ours", "--out", "page.html").code == 0
    assert (tmp_path / "page.html").read_text() == page
    both = prefdyn("report", "ours", "again", "--out", "both.html")
    assert both.last_line == "prefdyn: ours is of `prefdyn reproduce`, whose page is of another kind; give it alone"
    assert not (tmp_path / "both.html").exists()


def test_hostile_names_reach_figures_and_page_as_text(prefdyn, tmp_path):
    rows = [
        {
            "prompt": f"{group} {n}? </td><script>alert(1)</script>", "group": group,
            "chosen": (" Yes", " No")[n % 2], "rejected": (" No", " Yes")[n % 2],
        }
        for group in ("<script>alert(1)</script>", "$\\frac{1}{2}$ & co", "日本語\u202e\n<b>")
        for n in range(12)
    ]  # fmt: skip
    write_rows(tmp_path / "bad.jsonl", rows)
    found = prefdyn("reproduce", "cluster-structure", "--data", "bad.jsonl", "--out", "ours")
    assert found.code == 0, found.err
    page = (tmp_path / "ours" / "report.html").read_text()
    assert "<script" not in page
    assert "<script" not in (tmp_path / "ours" / "figures" / "2408.03459-fig03.svg").read_text()
