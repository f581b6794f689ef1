"""Preflight: each finding where it is due, none where it is not, and counts equal to a slow and obvious twin."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn.data.loaders import load_dataset
from prefdyn.data.names import alike, plain_name, told_apart
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import preflight


def made(*rows) -> PreferenceDataset:
    return PreferenceDataset.from_rows(rows)


def row(i: int = 0, **rest):
    return {"prompt": f"p{i}", "chosen": " Yes", "rejected": " No", "group": "g", "id": f"i{i}", **rest}


def healthy(groups: str = "g", each: int = 20) -> list[dict]:
    """Balanced two-answer groups, every prompt its own."""
    return [
        row(i, prompt=f"{g} {i}", id=f"{g}{i}", group=g, chosen=(" Yes", " No")[i % 2], rejected=(" No", " Yes")[i % 2])
        for g in groups
        for i in range(each)
    ]


def by_code(data: PreferenceDataset) -> dict:
    found = {}
    for finding in preflight(data):
        assert finding.code not in found or finding.group != found[finding.code].group
        found[finding.code] = finding
    return found


def test_a_healthy_dataset_has_no_findings():
    assert preflight(PreferenceDataset.from_rows(healthy("gh")).split()) == ()


def test_problems_come_first():
    order = [
        finding.severity
        for finding in preflight(made(row(0), row(0, id="a", chosen=" No", rejected=" Yes"), row(1, prompt="")))
    ]
    assert order == sorted(order, key=["problem", "warning", "note"].index)
    assert len(set(order)) > 1


def test_equal_and_empty_responses():
    found = by_code(made(*healthy(), row(1, rejected=" Yes"), row(2, chosen=" ")))
    assert (found["equal_responses"].pairs, found["equal_responses"].severity) == (("i1",), "problem")
    assert (found["empty_response"].pairs, found["empty_response"].severity) == (("i2",), "problem")
    assert "spelling" not in found


def test_empty_prompts_are_a_warning():
    found = by_code(made(*healthy(), row(1, prompt=" \n")))["empty_prompt"]
    assert (found.pairs, found.severity, found.says) == (
        ("i1",),
        "warning",
        "1 pair with an empty prompt: the model would answer nothing in particular.",
    )


def test_pairs_that_differ_in_blanks_alone_and_answers_spelt_in_two_ways():
    found = by_code(made(*healthy(), row(1, rejected="Yes"), row(2, chosen="Yes")))
    assert found["space_only"].pairs == ("i1",)
    assert found["spelling"].pairs == ("i1", "i2")
    assert "' Yes' 21 times, 'Yes' 2 times" in found["spelling"].says


def test_long_responses_are_not_compared_for_their_spelling():
    long = "word " * 20
    found = by_code(made(row(0, chosen=long), row(1, chosen=" " + long)))
    assert "spelling" not in found


def test_preferences_that_go_round():
    """A ring of three, over two groups; a chain is none, and a pair with its mirror is told as a conflict."""

    def over(prompt, better, worse, group="g"):
        return {"prompt": prompt, "chosen": better, "rejected": worse, "group": group}

    ring = [over("p", "a", "b"), over("p", "b", "c", "h"), over("p", "c", "a"), over("p", "c", "d")]
    chain = [over("q", "a", "b"), over("q", "b", "c"), over("q", "a", "c")]
    mirror = [over("r", "a", "b"), over("r", "b", "a")]
    elsewhere = [over("s", "c", "a"), over("t", "a", "b"), over("u", "b", "c")]  # other prompts
    found = {each.code: each for each in preflight(PreferenceDataset.from_rows(ring + chain + mirror + elsewhere))}
    assert len(found["ring"].pairs) == 3
    assert found["ring"].severity == "problem"
    assert found["ring"].says.startswith("3 pairs go round in a ring for 1 prompt")
    assert found["conflict"].count == 2
    assert "ring" not in {each.code for each in preflight(PreferenceDataset.from_rows(chain + mirror + elsewhere))}


def test_duplicates_and_contradictions():
    rows = [*healthy(), row(1), row(1, id="again"), row(2), row(2, id="turned", chosen=" No", rejected=" Yes")]
    found = by_code(made(*rows))
    assert found["duplicate"].pairs == ("i1", "again")
    assert found["duplicate"].says.startswith("1 pair repeat")
    assert (found["conflict"].pairs, found["conflict"].severity) == (("i2", "turned"), "problem")


def test_groups_that_share_prompts_and_groups_that_oppose_each_other():
    rows = [*healthy("gh"), row(1, group="g"), row(1, group="h", id="same"), row(2, group="g")]
    rows.append(row(2, group="h", id="turned", chosen=" No", rejected=" Yes"))
    found = by_code(made(*rows))
    assert found["shared_prompt"].severity == "note"
    assert set(found["shared_prompt"].pairs) == {"i1", "same", "i2", "turned"}
    assert (found["opposed_groups"].severity, found["opposed_groups"].pairs) == ("warning", ("i2", "turned"))
    assert found["opposed_groups"].says.endswith("(g, h).")
    assert "conflict" not in found


def test_a_prompt_on_both_sides_of_a_given_split():
    leaky = load_dataset(
        [*healthy(), *({**row(i), "id": f"{i}", "prompt": "same", "split": s} for i, s in enumerate(("train", "test")))]
    )
    assert "leak" not in by_code(leaky)  # the healthy rows name no side, so the column does not count
    rows = [{**item, "split": ("train", "test")[i % 2]} for i, item in enumerate(healthy())]
    rows += [row(i, id=f"s{i}", prompt="same", split=s) for i, s in enumerate(("train", "test"))]
    found = by_code(load_dataset(rows))["leak"]
    assert (found.pairs, found.severity) == (("s0", "s1"), "problem")


def test_one_class_and_its_near_miss():
    always = [row(i) for i in range(30)]
    assert by_code(made(*always))["one_class"].says.startswith("Group 'g' always prefers ' Yes'")
    assert "one_class" not in by_code(made(*always, row(99, chosen=" No", rejected=" Yes")))
    assert "one_class" not in by_code(made(*always, row(99, rejected=" Perhaps")))


def test_a_small_group_and_its_near_miss():
    found = by_code(made(*healthy(each=19)))["too_small"]
    assert (found.group, found.count) == ("g", 19)
    assert "19 pairs, fewer than 20" in found.says
    assert "too_small" not in by_code(made(*healthy(each=20)))


def test_groups_of_very_different_size_and_their_near_miss():
    assert "unequal_sizes" in by_code(made(*healthy("g", 200), *healthy("h", 20)))
    assert "unequal_sizes" not in by_code(made(*healthy("g", 199), *healthy("h", 20)))


def test_one_prompt_for_a_whole_group_cannot_be_held_out():
    rows = [*healthy("g"), *({**item, "prompt": "same"} for item in healthy("h"))]
    assert by_code(made(*rows))["one_prompt"].group == "h"
    found = by_code(made(*rows).split())["not_held_out"]
    assert (found.group, found.count, found.pairs) == ("h", 20, ())


def test_a_group_with_nothing_to_train_on():
    rows = [*healthy("g"), *({**item, "split": "held_out"} for item in healthy("h"))]
    assert by_code(made(*rows))["not_trained"].group == "h"


def test_dialogues_cut_in_the_wrong_place():
    head = "\n\nHuman: Hi\n\nAssistant:"
    assert by_code(made(row(0, prompt=head + " I"), row(1, prompt=head)))["cut_dialogue"].pairs == ("i0",)


def test_rows_left_out_are_counted():
    data = load_dataset([row(0), row(1, chosen=None), row(2, chosen="")], skip_bad_rows=True)
    found = by_code(data)["left_out"]
    assert (found.count, found.says) == (2, "2 rows could not be used and were left out.")


def test_a_finding_as_json_holds_at_most_20_ids():
    found = by_code(made(*(row(i, rejected=" Yes") for i in range(30))))["equal_responses"]
    assert (found.count, len(found.pairs), len(found.to_json()["pairs"])) == (30, 30, 20)


drawn_rows = st.lists(
    st.tuples(st.sampled_from("gh"), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=25
)


@given(drawn_rows)
def test_the_pairs_found_equal_those_of_a_slow_twin(drawn):
    rows = [
        {"group": g, "prompt": f"p{p}", "chosen": f"r{c}", "rejected": f"r{r}", "id": str(i)}
        for i, (g, p, c, r) in enumerate(drawn)
    ]
    twin = defaultdict(set)
    for i, (g, p, c, r) in enumerate(drawn):
        for j, (h, q, d, s) in enumerate(drawn):
            if i == j or p != q:
                continue
            if g == h and (c, r) == (d, s):
                twin["duplicate"].add(str(i))
            if g == h and (c, r) == (s, d) and c != r:
                twin["conflict"].add(str(i))
            if g != h:
                twin["shared_prompt"].add(str(i))
    both = {
        (p, frozenset((c, r)))
        for g, p, c, r in drawn
        for h, q, d, s in drawn
        if g != h and p == q and (c, r) == (s, d) and c != r
    }
    twin["opposed_groups"] = {str(i) for i, (_, p, c, r) in enumerate(drawn) if (p, frozenset((c, r))) in both}
    found = {finding.code: set(finding.pairs) for finding in preflight(PreferenceDataset.from_rows(rows))}
    for code in ("duplicate", "conflict", "shared_prompt", "opposed_groups"):
        assert found.get(code, set()) == twin[code], code


# names that look alike ----------------------------------------------------------------------------------------------

ALIKE = {
    "case": ("Code", "code", "'Code' (20 pairs), 'code' (20 pairs)"),
    "long s and sharp s": ("Straße", "STRASSE", "'Straße' (20 pairs), 'STRASSE'"),
    "composed or not": ("caf\u00e9", "cafe\u0301", "'caf\\xe9' (20 pairs), 'cafe\\u0301' (20 pairs)"),
    "a sign for a letter": ("\u212b", "\u00c5", "'\\u212b' (20 pairs), '\\xc5' (20 pairs)"),
    "full width": ("code", "ｃｏｄｅ", "'code' (20 pairs), '\\uff43\\uff4f\\uff44\\uff45' (20 pairs)"),
    "zero width": ("code", "co\u200bde", "'code' (20 pairs), 'co\\u200bde' (20 pairs)"),
    "a joiner": ("code", "code\u2060", "'code\\u2060' (20 pairs)"),
    "a mark of order": ("\ufeffcode", "code", "'\\ufeffcode' (20 pairs), 'code' (20 pairs)"),
    "a direction": ("code", "\u202ecode", "'\\u202ecode' (20 pairs)"),
    "a variant": ("\u2764", "\u2764\ufe0f", "'❤' (20 pairs), '❤\\ufe0f' (20 pairs)"),
    "a filler": ("code", "code\u3164", "'code\\u3164' (20 pairs)"),
    "no-break space": ("two words", "two\u00a0words", "'two words' (20 pairs), 'two\\xa0words' (20 pairs)"),
    "two spaces": ("two words", "two  words", "'two  words' (20 pairs)"),
    "a space at the end": ("code", "code ", "'code' (20 pairs), 'code ' (20 pairs)"),
    "a line break": ("code", "code\n", "'code\\n' (20 pairs)"),
    "a null": ("code", "code\0", "'code\\x00' (20 pairs)"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_groups_that_look_alike_are_a_finding_with_the_difference_in_sight(case):
    one, two, says = ALIKE[case]
    rows = [row_ | {"group": {"g": one, "h": two, "i": "other"}[row_["group"]]} for row_ in healthy("ghi")]
    found = by_code(made(*rows))["alike_groups"]
    assert (found.severity, found.group, found.count) == ("warning", None, 40)
    assert says in found.says
    assert "2 groups have names that look alike: " in found.says
    assert found.says.isprintable()
    assert {pair[0] for pair in found.pairs} == {"g", "h"}


@pytest.mark.parametrize(
    ("one", "two"),
    [("code", "coda"), ("a-b", "ab"), ("a_b", "a b"), ("cafe", "café"), ("l", "1"), ("x y", "xy"), ("a", "а")],
)
def test_groups_that_differ_to_the_eye_or_are_other_letters_are_none(one, two):
    """The last pair is a Latin and a Cyrillic letter: other writing, not another form of the same."""
    rows = [row_ | {"group": {"g": one, "h": two}[row_["group"]]} for row_ in healthy("gh")]
    assert "alike_groups" not in by_code(made(*rows))


def test_every_set_of_alike_names_is_told_and_long_ones_are_cut():
    names = ["a", "A", "b", *(f"b{' ' * at}" for at in range(1, 12))]
    rows = [row_ | {"group": names["abcdefghijklmn".index(row_["group"])]} for row_ in healthy("abcdefghijklmn")]
    found = [item for item in preflight(made(*rows)) if item.code == "alike_groups"]
    assert [item.count for item in found] == [40, 240]
    assert " and 4 more; if they are one group, give it one name, else" in found[1].says


@pytest.mark.parametrize(
    "code", [0x200B, 0x202E, 0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0, 0xFE00, 0xFE0F, 0xE0100, 0xE01EF]
)
def test_what_nobody_sees_makes_no_other_name(code):
    """Default ignorable code points of Unicode 15 (DerivedCoreProperties), as escapes where names are told apart."""
    name = f"co{chr(code)}de"
    assert plain_name(name) == "code"
    assert alike(["code", name, "mode"]) == [["code", name]]
    assert told_apart(["code", name])[1] == f"'co{chr(code).encode('ascii', 'backslashreplace').decode()}de'"


@pytest.mark.parametrize("code", [0x1100, 0x1161, 0x3131, 0xFF71, 0xFE10])
def test_neighbours_that_are_seen_do_make_another(code):
    assert plain_name(f"co{chr(code)}de") != "code"
