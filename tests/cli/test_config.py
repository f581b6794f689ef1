"""Flags from a YAML file: what the command line would make of them, or one line that names file, line and key."""

import re

import pytest

from prefdyn import _typed
from prefdyn.cli import COMMANDS, common
from prefdyn.cli.command import lists
from tests.cli.conftest import pair, write_rows

ROWS = [pair(k, group=group) for k, group in enumerate(["a", "b", "7", "no", "a, b", "null"] * 4)]


def config(folder, text):
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def data(prefdyn, tmp_path):
    """`data(yaml)` runs `prefdyn data` on some rows with that file of flags."""
    rows = write_rows(tmp_path / "d.jsonl", ROWS)

    def run(text, *arguments):
        return prefdyn("data", "--data", rows, "--config", config(tmp_path, text), *arguments)

    return run


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limit: 1", "6 pairs, 6 groups"),
        ("limit: 1.0", "6 pairs"),
        ("limit: 1e0", "6 pairs"),
        ("limit: '1'", "6 pairs"),
        ("limit: null", "24 pairs"),
        ("limit:", "24 pairs"),
        ("", "24 pairs"),
        ("# nothing\n", "24 pairs"),
        ("\ufefflimit: 1", "6 pairs"),
        ("groups: a", "4 pairs, 1 group,"),
        ("groups: a,b", "8 pairs, 2 groups"),
        ("groups: [a, b]", "8 pairs, 2 groups"),
        ("groups: 7", "4 pairs, 1 group,"),
        ("groups: [7, a]", "8 pairs, 2 groups"),
        ("groups: no", "4 pairs, 1 group,"),
        ("groups: 'null'", "4 pairs, 1 group,"),
        ("groups: a, b", "4 pairs, 1 group,"),
        ("groups: ['a, b', 7]", "8 pairs, 2 groups"),
        ("skip-bad-rows: yes", "24 pairs"),
        ("skip_bad_rows: 1", "24 pairs"),
        ("json: true", '"pairs": 24'),
        ("json_output: true", '"pairs": 24'),
        ("json: false", "24 pairs"),
    ],
)
def test_a_value_means_what_it_would_mean_after_its_flag(data, text, says):
    answer = data(text)
    assert answer.code == 0, answer.err
    assert says in answer.out


def nested(depth):
    return "limit: " + "[" * depth


BOMB = "groups: &a [x, x]\n" + "".join(
    f"k{at}: &{'abcdefghij'[at]} [{', '.join(['*' + 'aabcdefghi'[at]] * 9)}]\n" for at in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limit: many", r"line 1: limit is 'many': .*valid integer"),
        ("limit: 2.5", r"line 1: limit is '2.5': .*valid integer"),
        ("limit: 0", r"line 1: limit is '0': .*1"),
        ("limit: true", r"line 1: limit is 'true': .*valid integer"),
        ("limit: " + "9" * 5000, r"line 1: limit is '9+…: "),
        ("# x\nlimit: [1, 2]", r"line 2: limit holds a list, but takes one value"),
        ("limit: {a: 1}", r"line 1: limit holds a mapping, but every key must be flat"),
        ("groups: []", r"line 1: groups is an empty list; give a value, or leave the key out"),
        ("groups: [null]", r"line 1: groups holds null in a list; give a value"),
        ("groups: [[a]]", r"line 1: groups holds a list inside a list or a mapping, but every key must be flat"),
        ("groups: &x [*x]", r"line 1: groups holds a list inside a list"),
        ("json: perhaps", r"line 1: json is 'perhaps', but must be true or false"),
        ('groups: "a\\0b"', r"line 1: groups is 'a\\x00b', which holds a null character"),
        ('groups: "\\ud800"', r"line 1: groups is '\\ud800', which holds a null character or half of a surrogate"),
        ("seed: 1\nlimit: 2\nseed: 3", r"line 3: 'seed' was set on line 1 already; keep one"),
        ("json: true\njson_output: true", r"line 2: 'json_output' was set on line 1 already"),
        ("? [a]\n: b", r"line 1: a key is no text, but must be the name of a flag"),
        ("limti: 1", r"line 1: 'limti' is no flag of `data`; did you mean 'limit'"),
        ("<<: {limit: 1}", r"line 1: '<<' is no flag of `data`"),
        ("config: x.yaml", r"line 1: 'config' is no flag of `data`"),
        ("limit: !!python/object/apply:os.system [ls]", r"line 1: limit holds a list"),
        (nested(100_000), "is nested too deeply; it must hold flat `key: value` lines"),
        (BOMB, r"line 2: 'k1' is no flag"),
        ("x" * 1_000_001, "has more than 1,000,000 bytes; give a file of flags"),
        ("- 1", "holds a list, but must hold flat `key: value` lines"),
        ("just text", "holds one value, but must hold flat `key: value` lines"),
        ("a: [1", "is not YAML: "),
        ("a: \x07", "is not YAML: "),
        (b"# ok\nlimit: \xff", r"line 2: is not UTF-8 \(byte 0xff\); save the file as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_not_is_refused_in_one_line(data, tmp_path, text, says):
    answer = data(text)
    assert answer.code == 1, answer.err
    assert answer.err.startswith(f"prefdyn: --config {tmp_path / 'c.yaml'}")
    assert answer.err.count("\n") == 1
    assert re.search(says, answer.err), answer.err
    assert len(answer.err) < 1000


def test_the_file_must_be_there(prefdyn, tmp_path):
    answer = prefdyn("data", "--config", tmp_path / "none.yaml")
    assert (
        answer.last_line
        == f"prefdyn: --config {tmp_path / 'none.yaml'} cannot be read: No such file or directory; check the path"
    )


def test_the_command_line_wins(data):
    assert "12 pairs" in data("limit: 1", "--limit", "2").out


def test_words_for_answers_are_words(prefdyn, tmp_path):
    """Yes and No are true and false to YAML; here they are the answers."""
    assert prefdyn("extract", "--limit", 2, "--config", config(tmp_path, "answers: [Yes, No]"), "--out", "f").code == 0
    refused = prefdyn("extract", "--limit", 2, "--config", config(tmp_path, "answers: Yes"), "--out", "g")
    assert "--answers 'Yes' must be two words" in refused.err


def test_lists_stand_for_comma_lists_in_every_command(prefdyn, tmp_path):
    answer = prefdyn(
        "simulate", "--limit", 4, "--config", config(tmp_path, "beta: [0.1, 0.2]\nsteps: [2, 3.0]"), "--json"
    )
    assert answer.code == 0, answer.err
    assert answer.out.count('"beta": 0.2') >= 2
    answer = prefdyn("audit", "--config", config(tmp_path, "beta: [0.1, 0.2]"))
    assert "line 1: beta holds a list, but takes one value" in answer.err


def test_the_names_of_comma_lists_are_flags():
    """A name that no command has would be a list that nobody reads."""
    several = {name: lists(name) for name in COMMANDS}
    assert several["simulate"] == {
        "groups", "answers", "objective", "beta", "learning_rate", "optimizer", "schedule", "batch_size", "steps",
    }  # fmt: skip
    assert several["audit"] == {"groups", "answers", "report_to"}
    assert several["train"] == {"groups", "answers", "record", "probes", "lora_targets", "report_to"}


@pytest.mark.parametrize("value", ["true", "yes", "1"])
def test_a_file_that_switches_on_foreign_code_says_so(prefdyn, tmp_path, value):
    """Before anything is read, on stderr; and a file that does not is quiet."""
    path = config(tmp_path, f"limit: 2\ntrust_remote_code: {value}")
    answer = prefdyn("extract", "--config", path, "--out", "f")
    assert answer.code == 0, answer.err
    assert answer.err.splitlines()[0] == (
        f"prefdyn: --config {path}, line 2, switches on trust_remote_code: Python code that the model's folder ships "
        "will run on this machine"
    )
    quiet = prefdyn("extract", "--config", config(tmp_path, "limit: 2\ntrust_remote_code: false"), "--out", "g")
    assert (quiet.code, "trust_remote_code" in quiet.err) == (0, False)


# comma lists of names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        (" a , b c ", ["a", "b c"]),
        ('"a, b",c', ["a, b", "c"]),
        ('"a, b"', ["a, b"]),
        ('c, " a "', ["c", " a "]),
        ('"say ""hi""",b', ['say "hi"', "b"]),
        ('a "b", c', ['a "b"', "c"]),
        ('"open, c', ['"open', "c"]),
        ('"', ['"']),
        ("a,,b,", ["a", "b"]),
        ("", []),
        (",", []),
    ],
)
def test_names_follow_the_quoting_of_csv(text, names):
    assert _typed.words(text) == names


def test_no_text_is_no_list():
    assert _typed.words(None) is None
    assert common.possible_groups(None) is None


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("a, b", ["a, b"]),
        ('"a, b",7', ["a, b", "7"]),
        ("a,b", ["a", "b"]),
        ("7", ["7"]),
    ],
)
def test_a_group_whose_name_has_a_comma_can_be_chosen(asked, names):
    assert common.group_names(asked, ("a", "b", "7", "a, b")) == names


def test_an_unknown_group_beside_one_with_a_comma_shows_how_to_quote(prefdyn, tmp_path):
    rows = write_rows(tmp_path / "d.jsonl", [pair(k, group="tea, milk") for k in range(4)])
    answer = prefdyn("data", "--data", rows, "--groups", "tea,milk")
    assert answer.last_line == (
        "prefdyn: --groups 'tea,milk': the name of the group 'tea, milk' holds a comma; write it in double quotes: "
        "--groups '\"tea, milk\"'"
    )
    assert prefdyn("data", "--data", rows, "--groups", '"tea, milk"').code == 0
    assert prefdyn("data", "--data", rows, "--groups", "tea, milk").code == 0
    assert "group 'coffee' is not in dataset" in prefdyn("data", "--data", rows, "--groups", "coffee").err
    assert "--groups ',' names no group" in prefdyn("data", "--data", rows, "--groups", ",").err


def test_reproduce_takes_the_whole_text_or_its_parts():
    assert common.possible_groups("a, b") == ["a, b", "a", "b"]
    assert common.possible_groups("a") == ["a"]


@pytest.mark.parametrize("text", ["²", "9" * 5000, "1.5", "-3", "", "inf", "nan", "0"])
def test_numbers_that_are_no_counts(text):
    from prefdyn.errors import ConfigError

    with pytest.raises(ConfigError, match=r"probe_pairs .* must be a whole number above 0, or all"):
        _typed.pair_count(text, "--probe-pairs")
    if text:
        with pytest.raises(ConfigError, match=r"batch_size .* must be a whole number above 0, or full"):
            _typed.batch_size(text, "--batch-size")
    assert _typed.pair_count("3.0", "--probe-pairs") == 3
    assert _typed.batch_size("full", "") == "full"
    assert _typed.batch_size("1e2", "") == 100
