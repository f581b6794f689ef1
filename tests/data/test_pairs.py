"""PreferenceDataset and its split: laws that hold for every dataset."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn.data.pairs import SCHEMA, PreferenceDataset
from prefdyn.data.split import held_out_mask
from prefdyn.errors import ConfigError, DataError


def rows(groups: str = "aabb", **same):
    return [
        {"group": g, "prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}", "id": f"i{i}", **same}
        for i, g in enumerate(groups)
    ]


def data(groups: str = "aabb", **same) -> PreferenceDataset:
    return PreferenceDataset.from_rows(rows(groups, **same))


pairs = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 12)), min_size=1, max_size=60)


def as_data(drawn: list[tuple[str, int]]) -> PreferenceDataset:
    return PreferenceDataset.from_rows(
        {"group": g, "prompt": f"p{p}", "chosen": f"c{i}", "rejected": f"r{i}"} for i, (g, p) in enumerate(drawn)
    )


def prompts_of(drawn: list[tuple[str, int]]) -> dict[str, set[int]]:
    return {g: {p for h, p in drawn if h == g} for g, _ in drawn}


def test_rows_come_back_as_they_went_in():
    given_rows = rows()
    assert [
        {k: row[k] for k in given_rows[0]} for row in PreferenceDataset.from_rows(given_rows).to_rows()
    ] == given_rows
    assert PreferenceDataset.from_rows(data().to_rows()).table.equals(data().table)


def test_groups_keep_the_order_of_first_appearance():
    assert data("babca").groups == ("b", "a", "c")


@given(pairs, st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_prompt_ever_stands_on_both_sides(drawn, fraction, seed):
    group = np.array([g for g, _ in drawn], dtype=object)
    text = np.array([p for _, p in drawn])
    if all(len(own) < 2 for own in prompts_of(drawn).values()):
        with pytest.raises(DataError, match="would leave a group nothing to train on"):
            held_out_mask(group, text, fraction, seed)
        return
    try:
        held = held_out_mask(group, text, fraction, seed)
    except DataError:  # every prompt is tied to a group that has no other
        alone = {next(iter(own)) for own in prompts_of(drawn).values() if len(own) == 1}
        assert all(len(own) < 2 or own & alone for own in prompts_of(drawn).values())
        return
    assert not set(text[held]) & set(text[~held])
    for name, own in prompts_of(drawn).items():
        assert (~held[group == name]).any(), "every group keeps something to train on"
        if len(own) == 1:
            assert not held[group == name].any()


@given(pairs, st.floats(0.05, 0.95), st.integers(0, 5))
def test_groups_with_prompts_of_their_own_have_both_sides(drawn, fraction, seed):
    """Prompts made distinct per group: at least one pair on each side wherever there are two prompts."""
    own = [(g, 100 * "abcd".index(g) + p) for g, p in drawn]
    if all(len(prompts) < 2 for prompts in prompts_of(own).values()):
        return
    group = np.array([g for g, _ in own], dtype=object)
    held = held_out_mask(group, np.array([p for _, p in own]), fraction, seed)
    for name, prompts in prompts_of(own).items():
        if len(prompts) > 1:
            assert held[group == name].any()
            assert (~held[group == name]).any()


@pytest.mark.parametrize(
    ("size", "fraction", "expected"), [(200, 0.9, 20), (10, 0.9, 1), (3, 0.99, 1), (3, 0.01, 2), (7, 0.5, 4)]
)
def test_a_group_without_repeats_holds_out_its_exact_share(size, fraction, expected):
    held = held_out_mask(np.array(["a"] * size), np.arange(size), fraction, 3)
    assert held.sum() == expected


def test_the_split_of_a_group_does_not_depend_on_what_else_is_loaded():
    both = data("a" * 30 + "b" * 30).split(0.7, seed=5)
    alone = data("a" * 30).split(0.7, seed=5)
    assert both.select("a").table["split"].equals(alone.table["split"])


def test_the_split_is_seeded():
    first, again, other = (data("a" * 100).split(seed=s).table["split"].to_pylist() for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_prompt_shared_by_all_groups_lands_on_one_side_and_shares_are_met():
    shared = [{**row, "prompt": f"p{i % 50}"} for i, row in enumerate(rows("a" * 50 + "b" * 50))]
    split = PreferenceDataset.from_rows(shared).split(0.8)
    held = [row["prompt"] for row in split.to_rows() if row["split"] == "held_out"]
    assert len(held) == 20
    assert len(set(held)) == 10


def test_a_split_of_one_keeps_everything_for_training():
    assert data().split(1).splits == ("train",)


@given(pairs)
def test_flipping_twice_changes_nothing(drawn):
    before = as_data(drawn)
    assert before.flipped().flipped().sha256 == before.sha256
    assert before.flipped().table["chosen"].equals(before.table["rejected"])


def test_flipping_some_groups_leaves_the_others():
    turned = data().flipped(["b"])
    assert turned.table["chosen"].to_pylist() == ["c0", "c1", "r2", "r3"]


def test_flipping_some_pairs_leaves_the_others():
    turned = data().flipped(rows=np.array([True, False, False, True]))
    assert turned.table["chosen"].to_pylist() == ["r0", "c1", "c2", "r3"]
    assert turned.table["rejected"].to_pylist() == ["c0", "r1", "r2", "c3"]


def test_flipping_turns_conversations_too():
    talk = {side: [{"role": "assistant", "content": side}] for side in ("prompt", "chosen", "rejected")}
    turned = data("ab", conversation=talk).flipped(["b"])
    found = [talk or {} for talk in turned.conversations]
    assert [item["chosen"][0]["content"] for item in found] == ["chosen", "rejected"]
    assert [item["rejected"][0]["content"] for item in found] == ["rejected", "chosen"]


@given(pairs, st.floats(0, 1), st.integers(0, 3))
def test_noise_turns_the_exact_share_of_every_group(drawn, rate, seed):
    before = as_data(drawn)
    turned = np.array(before.table["chosen"].to_pylist()) != np.array(
        before.with_noise(rate, seed=seed).table["chosen"].to_pylist()
    )
    for name in before.groups:
        mine = np.array(before.table["group"].to_pylist()) == name
        assert turned[mine].sum() == int(rate * mine.sum() + 0.5)


@given(pairs, st.integers(1, 10))
def test_a_sample_is_a_part_in_order_with_at_most_so_many_per_group(drawn, size):
    before = as_data(drawn)
    after = before.sample(size, seed=1)
    ids = before.table["id"].to_pylist()
    places = [ids.index(name) for name in after.table["id"].to_pylist()]
    assert places == sorted(places)
    for name in before.groups:
        assert len(after.select([name])) == min(size, len(before.select([name])))


def test_select_takes_groups_masks_and_ids_together():
    assert data().select(["a"], mask=[True, False, True, True], ids=["i0", "i3"]).table["id"].to_pylist() == ["i0"]


@pytest.mark.parametrize("column", ["id", "group", "prompt", "chosen", "rejected", "weight"])
def test_the_hash_sees_every_content_column(column):
    changed = rows()
    changed[1] = {**changed[1], column: 2.0 if column == "weight" else "other"}
    assert PreferenceDataset.from_rows(changed).sha256 != data().sha256


def test_the_hash_does_not_see_where_the_pairs_lay_or_how_they_are_split():
    assert data("a" * 9).split().sha256 == data("a" * 9, source="elsewhere", line=7).sha256


def test_the_hash_tells_texts_apart_that_join_alike():
    first, second = ([{"prompt": a, "chosen": b, "rejected": "z"}] for a, b in (("ab", "c"), ("a", "bc")))
    assert PreferenceDataset.from_rows(first).sha256 != PreferenceDataset.from_rows(second).sha256


def test_the_hash_sees_roles():
    def one(role):
        talk = {side: [{"role": role, "content": "x"}] for side in ("prompt", "chosen", "rejected")}
        return data("a", conversation=talk)

    assert one("user").sha256 != one("system").sha256


def test_concat_keeps_order_and_what_was_left_out():
    whole = data()
    joined = PreferenceDataset.concat([whole.select("a"), whole.select("b")])
    assert joined.table.equals(whole.table)


@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        (
            lambda: PreferenceDataset(table=pa.table({"id": ["a"]}), name="x"),
            DataError,
            r"needs the columns .* but got \['id'\]",
        ),
        (lambda: PreferenceDataset.from_rows(rows() + rows()), DataError, "id 'i0' occurs more than once"),
        (
            lambda: PreferenceDataset.from_rows([{"promt": "x"}]),
            DataError,
            "unknown column 'promt'; did you mean 'prompt'",
        ),
        (
            lambda: PreferenceDataset.from_rows([{"prompt": "x", "chosen": "y"}]),
            DataError,
            "row 1 of 'rows' has no 'rejected'",
        ),
        (lambda: data(chosen=5), DataError, "column 'chosen' must hold string"),
        (lambda: PreferenceDataset.concat([]), DataError, "concat was given no datasets"),
        (lambda: PreferenceDataset.concat([data(), data()]), DataError, "occurs more than once"),
        (lambda: data("openness").select(["opennes"]), DataError, "group 'opennes' is not in dataset 'rows'"),
        (lambda: data().flipped(["c"]), DataError, "group 'c' is not in dataset 'rows'; known: a, b"),
        (lambda: data().select(mask=[True]), DataError, "the mask has 1 values for 4 pairs"),
        (lambda: data().select(ids=["i0", "j"]), DataError, "id 'j' is not in dataset 'rows'"),
        (lambda: data().split(0), ConfigError, "split is 0, but must be above 0 and at most 1"),
        (lambda: data().split(1.5), ConfigError, "split is 1.5"),
        (lambda: data(prompt="same").split(), DataError, "cannot hold any of the 4 pairs out"),
        (lambda: data().with_noise(-0.1), ConfigError, "noise rate is -0.1, but must be from 0 to 1"),
        (lambda: data().sample(0), ConfigError, "limit .* is 0, but must be a whole number of at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(act, error, says):
    with pytest.raises(error, match=says):
        act()


def test_null_is_refused():
    table = data().table.set_column(2, SCHEMA.field("prompt"), pa.nulls(4, pa.string()))
    with pytest.raises(DataError, match="column 'prompt' of dataset 'x' holds null"):
        PreferenceDataset(table=table, name="x")


@pytest.mark.parametrize("factor", [1e300, 1e-300])
def test_a_group_weighs_no_more_than_numbers_can_be_squared(factor):
    with pytest.raises(ConfigError, match=r"weight of group 'a' is 1e[+-]300, and must lie between 1e-50"):
        data().weighted({"a": factor})
    assert np.isfinite(np.asarray(data().weighted({"a": 1e50}).table["weight"]) ** 2).all()
