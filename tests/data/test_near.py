"""Near duplicates: the same as by comparing every two texts; and clusters in split, findings and features."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.data.describe import describe
from prefdyn.data.loaders import load_dataset
from prefdyn.data.near import COMMON, FEW, LEAST, RARE, THRESHOLD, near_duplicates, words
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import preflight
from prefdyn.data.write import write
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order
from prefdyn.store import load_features, save_features

LONG = "please tell me how many days a careful person should wait before calling back about {}"


def naive(texts, threshold=THRESHOLD):
    """Every two texts compared; clusters by union-find."""
    forms = [tuple(words(text)) for text in texts]
    kinds = [frozenset(itertools.pairwise(form)) or frozenset(form) for form in dict.fromkeys(forms)]
    homes = Counter(pair for kind in kinds for pair in kind)
    limit = max(min(COMMON, max(FEW, len(set(forms)) // 2)), int(RARE * len(set(forms))))
    sets = dict(zip(dict.fromkeys(forms), kinds, strict=True))
    kept = [{pair for pair in sets[form] if homes[pair] <= limit} for form in forms]
    root = list(range(len(texts)))

    def top(i):
        while root[i] != i:
            i = root[i]
        return i

    for i in range(len(texts)):
        for j in range(i):
            both = len(kept[i] & kept[j])
            near = both >= LEAST and both >= threshold * len(kept[i] | kept[j]) - 1e-9
            if near or (forms[i] == forms[j] and forms[i]):
                root[top(i)] = top(j)
    return in_order(np.array([top(i) for i in range(len(texts))]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.5, 0.7, 0.9, 1.0]))
def test_clusters_are_those_of_comparing_every_two_texts(seed, threshold):
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(draw.choice([3, 30, 1000]))]
    texts = {}
    for _ in range(draw.randint(1, 60)):
        base = [draw.choice(vocabulary) for _ in range(draw.randint(0, 25))]
        for _ in range(draw.randint(1, 4)):
            changed = list(base)
            for _ in range(draw.randint(0, 3)):
                if changed:
                    changed[draw.randrange(len(changed))] = draw.choice(vocabulary)
            texts[" ".join(["Answer", "this", "now:"] * draw.randint(0, 1) + changed)] = None
    held = list(texts)
    assert near_duplicates(held, threshold=threshold).tolist() == naive(held, threshold).tolist()


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("Is tea good?", "is tea good", True),
        ("Is tea good?", "Is tea  good ?!", True),
        (LONG.format("a quote"), LONG.format("an offer"), True),
        ("Well, " + LONG.format("a quote"), LONG.format("a quote"), True),
        ("Is tea good?", "Is coffee good?", False),
        ("What is 2 + 2?", "What is 2 - 2?", False),
        ("What is 12 + 34?", "What is 12 + 35?", False),
        ("p0", "p1", False),
        ("", "...", False),
        ("茶は体に良いですか。", "茶は体に良いですか", True),
        ("茶は体に良いですか。", "酒は髪に悪いですね。", False),
    ],
)
def test_what_is_nearly_the_same(first, second, near):
    assert (len(set(near_duplicates([first, second]).tolist())) == 1) == near


def test_a_template_makes_no_near_duplicates():
    """A hundred prompts behind one long system text differ where they differ."""
    head = "system: " + " ".join(f"rule{i}" for i in range(60)) + "\n\nuser: "
    texts = [f"{head}Is {word} {other} than before?" for word in "abcdefghij" for other in "klmnopqrst"]
    assert len(set(near_duplicates(texts).tolist())) == 100
    twice = [*texts, *(text.replace(" than before?", " than before") for text in texts)]
    assert near_duplicates(twice).tolist() == [*range(100), *range(100)]


# datasets ------------------------------------------------------------------------------------------------------------


def dataset(rows):
    return PreferenceDataset.from_rows([
        {"prompt": prompt, "chosen": chosen, "rejected": rejected, "group": group}
        for prompt, chosen, rejected, group in rows
    ])  # fmt: skip


def copies(turn: bool):
    """Forty prompts in group a, and each nearly again in group b, with the same or the opposite answer."""
    first = [(LONG.format(f"topic {i} of list {i * 7}"), " Yes", " No", "a") for i in range(40)]
    sides = (" No", " Yes") if turn else (" Yes", " No")
    return [*first, *(("So, " + prompt, *sides, "b") for prompt, *_ in first)]


def apart():
    """The control, of the same shape: eighty prompts of which none is near another."""
    noun = [f"n{i}" for i in range(400)]
    return [(" ".join(noun[(i * 5 + j * 97) % 400] for j in range(15)), " Yes", " No", "ab"[i % 2]) for i in range(80)]


def codes(data):
    return {finding.code: finding for finding in preflight(data)}


def test_near_duplicates_are_counted_per_group_and_told_apart_from_strangers():
    data = dataset(copies(turn=True))
    found = codes(data)
    assert found["near_duplicates"].count == 80
    assert "in 40 clusters (a 40, b 40)" in found["near_duplicates"].says
    assert found["near_opposed"].count == 80
    assert "near_opposed" not in codes(dataset(copies(turn=False)))
    assert not {"near_duplicates", "near_opposed", "near_leak"} & codes(dataset(apart())).keys()
    described = describe(data)
    assert (described["clusters"], [group["clusters"] for group in described["groups"]]) == (40, [40, 40])
    assert [group["near_duplicates"] for group in described["groups"]] == [40, 40]
    assert [group["near_duplicates"] for group in describe(dataset(apart()))["groups"]] == [0, 0]


def test_the_split_keeps_a_cluster_on_one_side():
    data = dataset(copies(turn=False)).split(0.8, seed=3)
    held = np.array(data.table["split"].to_pylist()) == "held_out"
    assert held[:40].tolist() == held[40:].tolist()
    assert held.sum() == 16
    assert "near_leak" not in codes(data)


def test_a_split_that_came_with_the_data_may_leak_and_is_told():
    rows = dataset(copies(turn=False)).to_rows()
    data = PreferenceDataset.from_rows([
        {**row, "split": "train" if row["group"] == "a" else "held_out"} for row in rows
    ])  # fmt: skip
    assert codes(data)["near_leak"].count == 80
    strangers = PreferenceDataset.from_rows([
        {**row, "split": "train" if row["group"] == "a" else "held_out"} for row in dataset(apart()).to_rows()
    ])  # fmt: skip
    assert "near_leak" not in codes(strangers)


def test_named_clusters_join_prompts_and_stay_together():
    rows = [{"prompt": f"prompt number{i}", "chosen": "a", "rejected": "b", "cluster": f"c{i // 4}"} for i in range(40)]
    data = PreferenceDataset.from_rows(rows).split(0.8)
    assert data.clusters.of.tolist() == [i // 4 for i in range(40)]
    assert data.clusters.near.tolist() == list(range(40))
    held = np.array(data.table["split"].to_pylist()) == "held_out"
    assert all(len(set(held[at : at + 4])) == 1 for at in range(0, 40, 4))
    assert data.sha256 != PreferenceDataset.from_rows([{**row, "cluster": None} for row in rows]).sha256


def test_pairs_without_a_prompt_stand_alone():
    rows = [{"prompt": "", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(10)]
    data = PreferenceDataset.from_rows(rows)
    assert data.clusters.of.tolist() == list(range(10))
    assert set(data.split(0.8).splits) == {"train", "held_out"}


def test_one_cluster_alone_cannot_be_split():
    with pytest.raises(DataError, match="equal and nearly equal prompts stay on one side"):
        dataset([(LONG.format(end), "a", "b", "g") for end in ("x", "y", "z")]).split(0.5)


def test_features_carry_clusters_through_the_store(tmp_path):
    feats = FeatureSet.from_arrays(
        np.eye(4), chosen=[1, 1, 0, 0], rejected=[0, 0, 1, 1], text=[0, 1, 2, 2], cluster=[5, 5, 6, 6]
    )
    read = load_features(save_features(feats, tmp_path / "f"))
    assert read.cluster.tolist() == [5, 5, 6, 6]
    assert read.select([2, 0]).cluster.tolist() == [6, 5]
    plain = FeatureSet.from_arrays(np.eye(2), chosen=[1, 0], rejected=[0, 1], text=[3, 3])
    assert plain.cluster.tolist() == [3, 3]


def test_extracted_features_have_the_clusters_of_their_pairs():
    from prefdyn.models.extract import extract

    data = dataset(copies(turn=True)).split(0.8)
    feats = extract(data, "builtin")
    place = {name: at for at, name in enumerate(data.table["id"].to_pylist())}
    rows = [place[name] for name in feats.id.tolist()]
    assert feats.cluster.tolist() == data.clusters.of[rows].tolist()
    assert len(np.unique(feats.cluster)) == 40
    assert len(np.unique(feats.text)) == 80


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_named_clusters_are_written_and_read_back(tmp_path, name):
    names = [f"c{i // 4}" for i in range(7)] + [None]
    rows = [
        {"prompt": f"prompt number{i}", "chosen": "a", "rejected": "b", "cluster": name} for i, name in enumerate(names)
    ]
    data = PreferenceDataset.from_rows(rows)
    write(data, tmp_path / name)
    read = load_dataset(tmp_path / name)
    assert read.table["cluster"].to_pylist() == data.table["cluster"].to_pylist()
    assert read.sha256 == data.sha256
