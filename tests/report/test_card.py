"""Cards: what huggingface_hub reads out of them is what the run says, and no name of the data is markup."""

import html
import json
import math
import re

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, ModelCardData
from markdown_it import MarkdownIt

from prefdyn.errors import ConfigError
from prefdyn.report.card import card
from prefdyn.report.folders import read_folder
from tests.report.make_folder import HOSTILE, make_folder, make_trained_folder

NASTY = (
    *HOSTILE,
    "a\n---\nmodel-index: []",
    "key: value",
    "| cell | cell |",
    "[link](https://example.org)",
    "- *x* _y_",
)


def edited(folder, change):
    summary = json.loads((folder / "summary.json").read_text())
    change(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    return read_folder(folder)


@pytest.fixture
def audited(tmp_path):
    def change(summary):
        for place, row in enumerate(summary["groups"]):
            row |= {"cross_fitted_loss": 0.5 + 0.01 * place, "cross_fitted_loss_error": 0.02, "units": 30 + place}
        summary["answers"] = [{"kind": "first", "title": "Learned first", "sentence": "“a|b” falls by -0.3 *nats*."}]

    return edited(make_folder(tmp_path / "audit", names=4), change)


def results(read):
    assert isinstance(read.data, ModelCardData)
    return read.data.eval_results or []


def table(text):
    """Cells of the rows below `### Groups`, by name."""
    lines = [line for line in text.partition("### Groups")[2].partition("###")[0].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == len(head) for row in rows)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_model_card_holds_one_result_per_group_with_its_interval(audited):
    read = ModelCard(card(audited, "model"))
    losses = [each for each in results(read) if each.metric_type == "loss"]
    assert [each.dataset_config for each in losses] == list(audited.labels)
    for each, row in zip(losses, audited.groups, strict=True):
        assert each.metric_value == pytest.approx(row["cross_fitted_loss"], abs=1e-6)
        reach = 1.96 * 0.02
        assert (each.metric_args or {})["interval_95"] == pytest.approx(
            [each.metric_value - reach, each.metric_value + reach], abs=1e-5
        )
        assert "simulated" in str(each.metric_name)
        assert each.verified is None
    again = ModelCard(str(read))
    assert again.data.to_dict() == read.data.to_dict()


def test_a_dataset_card_claims_tags_alone(audited):
    read = DatasetCard(card(audited, "dataset"))
    assert {key for key, value in read.data.to_dict().items() if value} == {"tags"}


def test_the_table_says_what_was_measured(audited):
    rows = table(card(audited, "dataset"))
    for found, row, item in zip(rows, audited.rows, audited.groups, strict=True):
        assert found["pairs"] == f"{row.pairs:,}"
        assert found["units"] == f"{row.units:.0f}"
        assert found["verdict"].endswith(row.verdict)
        loss = item["cross_fitted_loss"]
        assert found["held-out loss (95 % interval)"] == f"{loss:.3f} ({loss - 0.0392:.3f} to {loss + 0.0392:.3f})"


def test_answers_and_limits_stand_in_it(audited):
    text = card(audited, "dataset")
    assert r"**Learned first.** “a\|b” falls by −0.3 \*nats\*." in text
    assert text.index("### What cannot be told") < text.index("### Settings and versions")
    assert "no text is sampled" in text


def test_a_number_that_is_not_known_is_no_result(audited, tmp_path):
    def forget(summary):
        for row in summary["groups"]:
            row |= dict.fromkeys((key for key in row if "loss" in key or "probe" in key), None)

    text = card(edited(audited.path, forget), "model")
    assert "model-index" not in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("kind", ["dataset", "model"])
@pytest.mark.parametrize("missing", [False, True])
def test_hostile_names_are_text(kind, missing, tmp_path):
    def change(summary):
        summary["dataset"]["name"] = NASTY[-2]
        summary["answers"] = [
            {"kind": "labels", "title": name, "sentence": name, "pairs": [name]} for name in NASTY if name
        ]

    run = edited(make_folder(tmp_path / "run", names=list(NASTY), missing=missing), change)
    text = card(run, kind)
    read = (DatasetCard if kind == "dataset" else ModelCard)(text)
    body = read.text
    assert len(table(body)) == len(NASTY)
    page = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(body)
    assert set(re.findall(r"<(\w+)", page)) <= {
        "h2",
        "h3",
        "p",
        "strong",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
    }
    assert len(re.findall(r"<h\d", page)) == 4
    first = re.findall(r"<tr>\n<td>(.*?)</td>", page)[: len(NASTY)]
    assert list(map(html.unescape, first)) == [" ".join(label.split()) for label in run.labels]
    assert "\x1b" not in text
    assert "\u202e" not in text
    if kind == "model" and not missing:
        assert {each.dataset_config for each in results(read)} == set(run.labels)
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["dpo", "preference", "prefdyn"]


def test_a_training_run_has_its_own_numbers(tmp_path):
    run = read_folder(make_trained_folder(tmp_path / "trained"))
    read = ModelCard(card(run, "model"))
    found = {(each.dataset_config, each.metric_type): each.metric_value for each in results(read)}
    assert found
    for label, row in zip(run.labels, run.groups, strict=True):
        for kind, key in (("loss", "held_out_final_loss"), ("accuracy", "held_out_reward_accuracy")):
            if row.get(key) is not None and math.isfinite(row[key]):
                assert found[label, kind] == pytest.approx(row[key], abs=1e-6)
    assert all("simulated" not in str(each.metric_name) for each in results(read))
    assert "no interval is given" in read.text


def test_folders_of_this_machine_are_not_told(audited):
    def change(summary):
        summary["model"]["name"] = "/home/somebody/models/chat"
        summary["dataset"]["name"] = "/home/somebody/pairs.jsonl"

    text = card(edited(audited.path, change), "model")
    assert "somebody" not in text
    assert "chat" in text


def test_other_kinds_and_folders_are_refused(audited, tmp_path):
    with pytest.raises(ConfigError, match="unknown"):
        card(audited, "space")
    with pytest.raises(ConfigError, match="of `prefdyn simulate`"):
        card(read_folder(make_folder(tmp_path / "other", command="simulate")), "model")
