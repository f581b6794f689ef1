"""`prefdyn check`: every check speaks where it should and not beside it, under codes that stay."""

import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xmlschema

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import ConfigError, DataError
from prefdyn.planning.audit import audit
from prefdyn.planning.check import Check, check, checks, named
from prefdyn.report.check import annotations, junit, lines, markdown
from prefdyn.synthetic import gaussian_groups
from scripts.check_page import PAGE, page
from tests.conftest import REPO
from tests.planning.test_audit import with_words

SCHEMA = xmlschema.XMLSchema(REPO / "tests" / "planning" / "junit.xsd")
TEXTS = [each for each in checks() if not each.needs_model]
SPOKEN = {"20 rows": 20, "20 rows of a, 2 of b": (20, 2), "20 rows of a, 20 of b": (20, 20)}
CODES = {
    "PD001": "equal-responses", "PD002": "empty-response", "PD003": "empty-prompt", "PD004": "contradiction",
    "PD005": "opposed-groups", "PD006": "copies", "PD007": "leak", "PD008": "one-class", "PD009": "one-prompt",
    "PD010": "too-small", "PD011": "unequal-sizes", "PD012": "scores-against", "PD013": "place", "PD014": "spelling",
    "PD015": "cut-dialogue", "PD016": "alike-groups", "PD017": "repeated-ids", "PD018": "bad-row",
    "PD019": "one-sided", "PD101": "looks-random", "PD102": "cannot-tell", "PD103": "giveaway", "PD104": "trivial",
    "PD105": "conflicting", "PD106": "left-behind", "PD107": "memorised",
}  # fmt: skip


def rows(count: int, group: str = "a") -> list[dict[str, Any]]:
    """Pairs with nothing wrong: other prompts, other answers."""
    rng = np.random.default_rng(len(group) + count)
    words = [" ".join("".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(6)) for _ in range(3 * count)]
    return [
        {"prompt": words[3 * k], "chosen": words[3 * k + 1], "rejected": words[3 * k + 2], "group": group}
        for k in range(count)
    ]


def by_place(share: float) -> list[dict[str, Any]]:
    """Rows of which the first of two responses wins in a share."""
    found = []
    for k, row in enumerate(rows(40)):
        winner = 1 if k < 40 * share else 2
        found.append({"prompt": row["prompt"], "first": row["chosen"], "second": row["rejected"], "winner": winner})
    return found


def example(text: str) -> Any:
    """What stands in the table of checks as an example, as data."""
    if text.startswith("{"):
        return [json.loads(line) for line in text.splitlines()]
    if text.startswith("40 rows won"):
        from prefdyn.data.loaders import load_dataset

        columns = "prompt=prompt,first=first,second=second,winner=winner,values=1/2/0"
        return load_dataset(by_place(1.0 if "first" in text else 0.5), columns=columns)
    sizes = SPOKEN[text]
    return rows(sizes) if isinstance(sizes, int) else rows(sizes[0], "a") + rows(sizes[1], "b")


def codes(data: Any, **settings: Any) -> list[str]:
    """Codes of what is found, each once."""
    return sorted({item.code for item in check(data, **settings)})


def test_codes_and_names_are_what_they_were():
    assert {each.code: each.name for each in checks()} == CODES


def test_every_finding_that_is_more_than_a_note_has_a_check():
    told = (preflight.__doc__ or "").partition("Findings: ")[2].partition("(warnings)")[0]
    codes_told = {part for part in told.split("`")[1::2] if part.isidentifier()} - {"left_out"}
    assert len(codes_told) > 20
    assert codes_told == {finding for each in TEXTS for finding in each.finds}


@pytest.mark.parametrize("each", TEXTS, ids=lambda each: each.name)
def test_each_check_of_texts_speaks_in_its_example_and_not_in_the_other(each: Check):
    assert each.code in codes(example(each.fires), data_only=True)
    assert each.code not in codes(example(each.silent), data_only=True)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "each", [each for each in checks() if each.fires.startswith("gaussian")], ids=lambda each: each.name
)
def test_each_verdict_speaks_in_its_example_and_not_in_the_other(each: Check):
    known = {"gaussian_groups": gaussian_groups, "np": np}
    for text, speaks in ((each.fires, True), (each.silent, False)):
        assert (each.code in codes(eval(text, known), steps=each.steps, progress=False)) == speaks


def lengths(giveaway: bool) -> PreferenceDataset:
    """Replies of which the longer one is chosen, always or in half of the prompts."""
    found = []
    for k, row in enumerate(rows(120)):
        sides = [row["chosen"], " ".join([row["rejected"]] * 4)]
        longer = giveaway or k % 2 == 0
        found.append({"prompt": row["prompt"], "chosen": sides[int(longer)], "rejected": sides[1 - int(longer)]})
    return PreferenceDataset.from_rows(found)


@pytest.mark.slow
def test_a_giveaway_of_length_is_found_with_the_built_in_model():
    assert "PD103" in codes(lengths(True), progress=False)
    assert "PD103" not in codes(lengths(False), progress=False)


@pytest.mark.thorough
def test_what_words_alone_give_away_is_trivial():
    feats = gaussian_groups(300, groups=1, width=12, half_gap=4.0, held_out=0.3)
    for revealing, speaks in ((1.0, True), (0.5, False)):
        assert ("PD104" in codes(feats, texts=with_words(feats, revealing), progress=False)) == speaks


def test_what_fails_what_warns_and_what_is_ignored():
    broken = [*rows(30), {"prompt": "p", "chosen": "x", "rejected": "y", "group": "a"},
              {"prompt": "p", "chosen": "y", "rejected": "x", "group": "a"}]  # fmt: skip
    found = check(broken, data_only=True)
    assert found.failed
    assert [(item.code, item.count) for item in found] == [("PD004", 2)]
    assert found.limits() == {"contradiction": 2}
    assert str(found) == repr(found) == "32 pairs: 1 failed, 18 passed"
    assert str(check(broken, data_only=True, fail_on=[])) == "32 pairs: 1 warning, 18 passed"
    for settings in (
        {"fail_on": []}, {"fail_on": ["copies"]}, {"ignore": ["contradiction"]}, {"ignore": ["pd004"]},
        {"limits": {"contradiction": 2}},
    ):  # fmt: skip
        assert not check(broken, data_only=True, **settings).failed
    for settings in ({"fail_on": ["PD004"]}, {"limits": {"PD004": 1}}, {"ignore": ["PD004:b"]}):
        assert check(broken, data_only=True, **settings).failed
    assert not check([row | {"group": "b"} for row in broken] + rows(30), data_only=True, ignore=["PD004:b"]).failed


def test_a_check_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'copies'"):
        check(rows(3), data_only=True, fail_on=["copys"])
    with pytest.raises(ConfigError, match="must be a whole number"):
        check(rows(3), data_only=True, limits={"copies": 0.5})
    with pytest.raises(ConfigError, match="ignore 'PD9' is no check"):
        check(rows(3), data_only=True, ignore=["PD9:a"])
    assert named(" Copies ", "x").code == "PD006"


def test_rows_that_are_no_pairs_are_told_with_file_and_line(tmp_path):
    path = tmp_path / "d.jsonl"
    texts = [json.dumps(row) for row in rows(25)]
    path.write_text("\n".join([*texts, '{"prompt": "p", "chosen": "x", "rejected": "x"}', '{"prompt": 5}']) + "\n")
    found = {item.code: item.says for item in check(str(path), data_only=True)}
    assert found.keys() == {"PD001", "PD018"}
    assert "d.jsonl, line 26, rejected: is the same as chosen" in found["PD001"]
    assert "line 27" in found["PD018"]


def test_data_that_no_model_can_be_asked_about_fails_with_what_is_wrong_with_it():
    broken = [{"prompt": "p", "chosen": "x y z", "rejected": "z"}, {"prompt": "p", "chosen": "z", "rejected": "x y z"}]
    found = check(broken, progress=False)
    assert found.failed
    assert found.not_run is not None
    assert "cannot hold any" in found.not_run
    assert not any(result.check.needs_model for result in found.results)
    fine = [row for row in broken[:1]]
    with pytest.raises(DataError):
        check(fine, progress=False)


@pytest.mark.parametrize("broken", ["nothing", "much", "not made"])
def test_junit_has_the_form_that_its_readers_take(broken):
    hostile = 'a "b" <c> & \x1b[31m\x00 ]]> d'
    given = {
        "nothing": rows(30),
        "much": rows(30, hostile) + [{"prompt": "p", "chosen": "x", "rejected": "y", "group": hostile}] * 2,
        "not made": [{"prompt": hostile, "chosen": "x", "rejected": "y"}, {"prompt": hostile, "chosen": "y",
                                                                            "rejected": "x"}],
    }[broken]  # fmt: skip
    found = check(given, data_only=broken != "not made", ignore=["too-small"], progress=False)
    SCHEMA.validate(junit(found).decode())
    root = ElementTree.fromstring(junit(found))
    (suite,) = root
    cases = list(suite)
    assert (root.tag, suite.tag, {case.tag for case in cases}) == ("testsuites", "testsuite", {"testcase"})
    inside = [part for case in cases for part in case]
    assert {part.tag for part in inside} <= {"failure", "error", "skipped", "system-out"}
    assert all(set(case.attrib) == {"classname", "name", "time"} for case in cases)
    assert all(set(part.attrib) <= {"message", "type"} for part in inside)
    counted = {tag: sum(part.tag == tag for part in inside) for tag in ("failure", "error", "skipped")}
    assert counted["skipped"] == 1
    for name, count in (("tests", len(cases)), ("failures", counted["failure"]), ("errors", counted["error"])):
        assert root.attrib[name] == suite.attrib[name] == str(count)
    assert (counted["failure"] > 0) == (broken != "nothing")
    assert (counted["error"] == 1) == (broken == "not made")


@pytest.mark.parametrize(
    "broken",
    [
        "<testsuites/>",
        '<testsuites tests="0" failures="0" errors="0"><testsuite name="" tests="0" failures="0" errors="0"/>'
        "</testsuites>",
        '<testsuites tests="x" failures="0" errors="0"/>',
        '<testsuites tests="0" failures="0" errors="0"><testcase name="a" classname="b" time="0"/></testsuites>',
    ],
)
def test_the_schema_refuses_what_readers_refuse(broken):
    assert not SCHEMA.is_valid(broken)


def test_nothing_of_the_data_is_markup_or_a_command():
    hostile = "a|b`c`*d*\n::error::x%<script>"
    broken = rows(30) + rows(30, hostile) + [{"prompt": "p", "chosen": "x", "rejected": "y", "group": hostile}] * 2
    found = check(broken, data_only=True)
    table = [line for line in markdown(found).splitlines() if line.startswith("| failed")]
    assert len(table) == 1
    assert table[0].replace("\\|", "").count("|") == 6
    assert "<script>" not in table[0].replace("\\<", "")
    assert all(line.startswith(("::error title=PD", "::warning title=PD")) for line in annotations(found))
    assert all("\n" not in line for line in [*annotations(found), *lines(found)])
    assert any("⏎" in line for line in annotations(found))


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.thorough
def test_on_ten_clean_seeds_at_most_one_false_alarm():
    """Sets in which every group can be learned and nothing is wrong."""
    alarms = 0
    for seed in range(10):
        feats = gaussian_groups(150, groups=4, width=16, half_gap=1.5, held_out=0.2, seed=seed)
        alarms += check(feats, progress=False).failed
    assert alarms <= 1


def test_a_verdict_is_that_of_the_audit():
    feats = gaussian_groups([60, 10], groups=2, width=8, half_gap=[2.0, 2.0], held_out=0.2)
    verdicts = {item.name: item.verdict for item in audit(feats, progress=False).judgements}
    (few,) = [name for name, verdict in verdicts.items() if verdict == "cannot tell"]
    found = [item for item in check(feats, progress=False) if item.code == "PD102"]
    assert [item.group for item in found] == [few]
