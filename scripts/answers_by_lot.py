"""How often each of the five answers of an audit is given where nothing is there, and where its truth is built in.

uv run python -m scripts.answers_by_lot [--draws N] [--check]

Set before the runs: the cases below, the audit's own settings, 40 draws each. Writes the table "answers" of
docs/statistics.md.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.features import FeatureSet
from prefdyn.planning.answers import QUESTIONS, Answer
from prefdyn.planning.audit import audit
from prefdyn.synthetic import gaussian_groups
from scripts.calibrate import lines, put, share

WORDS = ("sun", "rain", "wind", "snow", "hail")
Case = Callable[[int], tuple[FeatureSet, PreferenceDataset | None]]


def replies(
    n: int, *, groups: int = 1, apart: float = 0.0, longer: int = 0, seed: int = 0
) -> tuple[FeatureSet, PreferenceDataset]:
    """Pairs of replies; in the last group states lie `apart`, and the chosen side has so many words more.

    Args:
        n: Pairs in all.
        groups: Groups, of equal size.
        apart: Gap of the last group's states, in standard deviations.
        longer: Words.
        seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(n) % groups
    last = group == groups - 1
    chosen, rejected = rng.normal(size=(2, n, 12))
    chosen[:, 0] += apart * last
    sizes = 8 + rng.integers(0, 4, size=(n, 2)) + np.stack([longer * last, 0 * last], axis=1)
    rows = [
        {
            "id": f"pair {place}",
            "group": f"group {group[place]}",
            "prompt": f"question {place}",
            "chosen": " ".join(rng.choice(WORDS, sizes[place, 0])),
            "rejected": " ".join(rng.choice(WORDS, sizes[place, 1])),
        }
        for place in range(n)
    ]
    feats = FeatureSet.from_arrays(
        chosen_features=chosen, rejected_features=rejected, group=[row["group"] for row in rows],
        id=[row["id"] for row in rows], chosen_length=sizes[:, 0], rejected_length=sizes[:, 1],
    )  # fmt: skip
    return feats, PreferenceDataset.from_rows(rows)


def by_lot(n: int, *, groups: int, copies: int = 1, width: int = 16, seed: int = 0) -> FeatureSet:
    """One-token pairs whose labels mean nothing; the copies of a prompt share one, as a framing of a question does."""
    rng = np.random.default_rng(seed)
    prompts = n // copies
    states = np.repeat(rng.normal(size=(prompts, width)), copies, axis=0)
    label = np.repeat(rng.integers(0, 2, prompts), copies)
    group = np.repeat(np.arange(prompts) % groups, copies)
    return FeatureSet.from_arrays(
        states + 0.01 * rng.normal(size=states.shape), chosen=label, rejected=1 - label,
        group=[f"group {code}" for code in group],
    )  # fmt: skip


def conflict(seed: int) -> FeatureSet:
    """Group 1 wants the opposite of the five times larger group 0; group 2 is apart from both."""
    directions = np.zeros((3, 12))
    directions[0, 1], directions[1, 1], directions[2, 2] = 1, -1, 1
    return gaussian_groups(
        [400, 80, 200], groups=3, width=12, half_gap=2.0, directions=directions, held_out=0.2, seed=seed
    )


def flipped(seed: int) -> FeatureSet:
    """Three groups that states tell, each with one label in twenty turned round."""
    feats = gaussian_groups(120, groups=3, width=12, half_gap=3.0, held_out=0.1, seed=seed)
    return feats.flipped(wrong(feats, seed))


def wrong(feats: FeatureSet, seed: int) -> np.ndarray:
    """The labels that `flipped` turns round."""
    found = np.zeros(len(feats), dtype=bool)
    found[np.random.default_rng(seed).permutation(len(feats))[: len(feats) // 20]] = True
    return found


NOTHING: dict[str, Case] = {
    "labels by lot, 4 × 100": lambda seed: (by_lot(400, groups=4, seed=seed), None),
    "labels by lot, 12 × 50": lambda seed: (by_lot(600, groups=12, seed=seed), None),
    "labels by lot, 4 copies each, 4 × 100": lambda seed: (by_lot(400, groups=4, copies=4, seed=seed), None),
    "replies by lot, 3 × 100": lambda seed: replies(300, groups=3, seed=seed),
    "replies by lot, 1 × 120": lambda seed: replies(120, seed=seed),
}


def _named(group: str, *, few: bool = False) -> Callable[[FeatureSet, int, Answer], bool]:
    return lambda feats, seed, answer: answer.groups[:1] == (group,) and (not few or answer.prompts == 20)


TRUTH: dict[str, tuple[Case, dict[str, Callable[[FeatureSet, int, Answer], bool]]]] = {
    "length gives group 2 of 3 away": (
        lambda seed: replies(360, groups=3, apart=1.5, longer=6, seed=seed),
        {"first": _named("group 2"), "change": _named("group 2")},
    ),
    "group 1 against group 0": (lambda seed: (conflict(seed), None), {"worse": _named("group 1")}),
    "one label in twenty is wrong": (
        lambda seed: (flipped(seed), None),
        {"labels": lambda feats, seed, answer: np.isin(answer.pairs, feats.id[wrong(feats, seed)]).mean() >= 0.7},
    ),
    "12 pairs in group 1": (
        lambda seed: (gaussian_groups([300, 12], groups=2, width=12, half_gap=2.0, held_out=0.2, seed=seed), None),
        {"open": _named("group 1", few=True)},
    ),
}
"""Cases, and by kind of answer whether it names what is true."""


def row(name: str, case: Case, right: dict[str, Any], draws: int) -> list[str]:
    """One row of the table."""
    given, hits = dict.fromkeys(QUESTIONS, 0), dict.fromkeys(right, 0)
    pairs = 0
    for seed in range(draws):
        feats, texts = case(seed)
        for answer in audit(feats, texts=texts, seed=seed, progress=False).answers:
            given[answer.kind] += 1
            pairs += answer.kind == "labels" and bool(answer.pairs)
            hits |= (
                {answer.kind: hits[answer.kind] + right[answer.kind](feats, seed, answer)}
                if answer.kind in hits
                else {}
            )
    told = ", ".join(f"{QUESTIONS[kind].lower()} {share(count, draws)}" for kind, count in hits.items()) or "–"  # pyright: ignore[reportArgumentType]
    counts = [share(given[kind], draws) for kind in QUESTIONS]
    counts[2] = share(pairs, draws)
    return [name, *counts, told]


def main() -> None:
    """Print the table and put it into its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--check", action="store_true", help="print, and leave the page as it is")
    given = parser.parse_args()
    start = time.perf_counter()
    rows = [row(name, case, {}, given.draws) for name, case in NOTHING.items()]
    rows += [row(name, case, right, given.draws) for name, (case, right) in TRUTH.items()]
    head = ["data", *(title.lower() for title in QUESTIONS.values()), "given, and names the right one"]
    text = "\n".join(lines((head, rows)))
    print(f"{text}\n\n{time.perf_counter() - start:.0f} s", flush=True)
    if not given.check:
        put("answers", text)


if __name__ == "__main__":
    main()
