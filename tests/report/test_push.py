"""What is pushed, against a hub on this machine that speaks the client's protocol; nothing of others is overwritten."""

import json

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, constants
from typer.testing import CliRunner

from prefdyn.cli import app
from prefdyn.errors import ConfigError, StoreError
from prefdyn.report.card import card
from prefdyn.report.folders import read_folder
from prefdyn.report.push import Target, card_with_section, space_files, target, upload
from tests.report.hub import TOKEN, hub
from tests.report.make_folder import make_folder, make_trained_folder

THEIRS = """---
license: mit
tags:
- dpo
- mine
language: [en]
---

# My data

Written by hand. `---` and <!-- comments --> stay.
"""
SPACE, DATA = "space:me/page", "dataset:me/data"


@pytest.fixture
def local(monkeypatch):
    """A hub here, to which the client of this process speaks."""
    with hub() as held:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, held.url)
        monkeypatch.setattr(constants, "ENDPOINT", held.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield held


@pytest.fixture
def audit(tmp_path):
    make_folder(tmp_path / "audit", names=2)
    return tmp_path / "audit"


def push(*flags):
    return CliRunner().invoke(app, ["push", *map(str, flags)])


# the command ----------------------------------------------------------------------------------------------------------


def test_without_the_flag_nothing_is_asked_of_the_hub(local, audit):
    result = push(audit, "--space", "me/page", "--card", "dataset:me/data")
    assert result.exit_code == 0, result.output
    assert "would write to spaces/me/page: index.html (" in result.stdout
    assert "would write to datasets/me/data: a section of" in result.stdout
    assert local.asked == []


def test_a_space_is_made_and_written_and_written_again(local, audit):
    for round_ in (1, 2):
        result = push(audit, "--space", "me/page", "--no-dry-run")
        assert result.exit_code == 0, (result.output, result.exception)
        assert len(local.repos[SPACE]) == 1 + round_
    files = local.files(SPACE)
    assert b"<title>" in files["index.html"]
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert front["sdk"] == "static"
    assert front["app_file"] == "index.html"
    assert set(json.loads(files[".prefdyn.json"])["files"]) == {"index.html", "README.md"}


def test_a_space_of_somebody_is_left_alone(local, audit):
    local.repos[SPACE] = [{"README.md": b"mine", "index.html": b"mine"}]
    result = push(audit, "--space", "me/page", "--no-dry-run")
    assert isinstance(result.exception, StoreError)
    assert "was not written by prefdyn" in str(result.exception)
    assert len(local.repos[SPACE]) == 1


@pytest.mark.parametrize("name", ["index.html", "README.md", ".prefdyn.json"])
def test_a_file_that_was_changed_is_not_overwritten(local, audit, name):
    assert push(audit, "--space", "me/page", "--no-dry-run").exit_code == 0
    local.repos[SPACE].append({**local.files(SPACE), name: local.files(SPACE)[name] + b" mine"})
    result = push(audit, "--space", "me/page", "--no-dry-run")
    assert isinstance(result.exception, StoreError)
    assert ("not written by prefdyn" if name[0] == "." else name) in str(result.exception)
    assert len(local.repos[SPACE]) == 3


def test_files_beside_ours_stay(local, audit):
    assert push(audit, "--space", "me/page", "--no-dry-run").exit_code == 0
    local.repos[SPACE].append({**local.files(SPACE), "notes.txt": b"mine"})
    assert push(audit, "--space", "me/page", "--no-dry-run").exit_code == 0
    assert local.files(SPACE)["notes.txt"] == b"mine"


def test_what_comes_in_between_stops_the_commit(local, audit):
    local.repos[DATA] = [{"README.md": THEIRS.encode()}]
    local.meddle[DATA] = {"README.md": b"newer"}
    result = push(audit, "--card", "dataset:me/data", "--no-dry-run")
    assert isinstance(result.exception, StoreError)
    assert "changed in between" in str(result.exception)
    assert local.files(DATA)["README.md"] == b"newer"


def test_a_card_gains_the_section_and_keeps_the_rest(local, audit):
    local.repos[DATA] = [{"README.md": THEIRS.encode(), "train.jsonl": b"{}"}]
    for _ in range(2):
        assert push(audit, "--card", "dataset:me/data", "--no-dry-run").exit_code == 0
    files = local.files(DATA)
    assert files["train.jsonl"] == b"{}"
    text = files["README.md"].decode()
    assert text.count("## How preference optimisation learns these data") == 1
    held = DatasetCard(text).data.to_dict()
    assert held["license"] == "mit"
    assert held["tags"] == ["dpo", "mine", "preference", "prefdyn"]
    assert THEIRS.split("---\n\n")[1].strip() in text
    assert local.repos[DATA][1] == local.repos[DATA][-1]


def test_a_dataset_that_is_not_there_is_not_made(local, audit):
    result = push(audit, "--card", "dataset:me/data", "--no-dry-run")
    assert "the hub shows no dataset me/data" in str(result.exception)
    assert local.repos == {}


def test_a_refusal_of_the_hub_is_one_line(local, audit, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    result = push(audit, "--space", "me/page", "--no-dry-run")
    assert isinstance(result.exception, StoreError)
    assert "log in with `hf auth login`" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_no_hub_at_all_is_one_line(audit, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(StoreError, match="check the name, the network"):
        upload(Target("dataset", "me/data"), lambda old: {})


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "push needs a place"),
        (["--space", "page"], "OWNER/NAME"),
        (["--space", "me/a/b"], "OWNER/NAME"),
        (["--card", "me/data"], "dataset:OWNER/NAME or model:OWNER/NAME"),
        (["--card", "space:me/data"], "dataset:OWNER/NAME or model:OWNER/NAME"),
        (["--card", "dataset:me/data", "--private"], "--private is of a space"),
    ],
)
def test_what_names_no_place_is_refused(audit, flags, says):
    refused = push(audit, *flags).exception
    assert isinstance(refused, ConfigError)
    assert says in refused.typed


# cards ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    make_trained_folder(tmp_path / "trained", names=2)
    return read_folder(tmp_path / "trained")


def test_a_new_card_is_the_section_and_reads_back(trained):
    text = card_with_section(None, trained, "model")
    whole = card(trained, "model")
    assert [line for line in text.splitlines() if not line.startswith("<!-- prefdyn:")] == [
        *whole.split("\n\n")[0].splitlines(), "", *whole.split("\n\n", 1)[1].rstrip().splitlines(),
    ]  # fmt: skip
    assert ModelCard(text).data.to_dict() == ModelCard(whole).data.to_dict()


def test_results_of_others_stay_and_ours_come_once(trained):
    other = {"task": {"type": "text-generation"}, "dataset": {"name": "d", "type": "d"},
             "metrics": [{"type": "bleu", "value": 0.5}]}  # fmt: skip
    old = "---\n" + yaml.safe_dump({"model-index": [{"name": "tuned", "results": [other]}]}) + "---\n\n# Mine\n"
    once = card_with_section(old, trained, "model")
    twice = card_with_section(once, trained, "model")
    assert twice == once
    (entry,) = yaml.safe_load(once.split("---")[1])["model-index"]
    assert entry["name"] == "tuned"
    assert entry["results"][0] == other
    ours = yaml.safe_load(card(trained, "model").split("---")[1])["model-index"][0]["results"]
    assert entry["results"][1:] == ours


def test_metadata_that_need_no_change_keep_their_bytes(audit):
    run = read_folder(audit)
    head = "---\n# a comment, and odd   spacing\ntags: [dpo,  preference, prefdyn]\n---\n"
    assert card_with_section(head + "\n# Mine\n", run, "dataset").startswith(head)
    with pytest.raises(StoreError, match="hold comments"):
        card_with_section(head.replace("prefdyn]", "x]") + "\n# Mine\n", run, "dataset")


@pytest.mark.parametrize("old", ["# No metadata\n", "", "---\n---\ntext\n", "---\r\nlicense: mit\r\n---\r\ntext\r\n"])
def test_cards_of_every_shape_take_the_section(audit, old):
    run = read_folder(audit)
    text = card_with_section(old, run, "dataset")
    assert DatasetCard(text).data.to_dict()["tags"] == ["dpo", "preference", "prefdyn"]
    assert card_with_section(text, run, "dataset") == text
    for word in ("No metadata", "text"):
        assert (word in old) <= (word in text)


def test_a_section_that_was_changed_by_hand_is_kept(audit):
    run = read_folder(audit)
    text = card_with_section(THEIRS, run, "dataset")
    with pytest.raises(StoreError, match="changed by hand"):
        card_with_section(text.replace("### Groups", "### My groups"), run, "dataset")
    begin = next(line for line in text.splitlines() if line.startswith("<!-- prefdyn: begin"))
    for broken in (text.replace("<!-- prefdyn: end -->", ""), text + f"\n{begin}\nx\n<!-- prefdyn: end -->\n"):
        with pytest.raises(StoreError, match="keep one of each"):
            card_with_section(broken, run, "dataset")
    with pytest.raises(StoreError, match="no YAML"):
        card_with_section("---\na: [1\n---\nx\n", run, "dataset")


def test_the_same_page_gives_the_same_space(audit):
    run = read_folder(audit)
    assert space_files(b"page", run) == space_files(b"page", run)
    with pytest.raises(ConfigError, match="names no repository"):
        target("dataset:me")
