"""What the audit says of real data, as they are and with their labels drawn anew, unit by unit.

`just verdicts-on-data --model FOLDER --persona FILE --public FOLDER` reads each set once, judges it as an audit does,
and judges it again with labels drawn by lot for whole units (prompts, or clusters of near-equal ones): two answers
trade theirs within a group, whose classes keep their numbers; longer replies are turned around. The two sides of
features change over exactly, so that nothing is read twice. Writes two tables of docs/statistics.md; minutes on two
cores.

Set before the runs: pairs per group as in `public_sets` and `builtin_sets`, twelve personas, the audit's own settings
(learning rate "auto", 100 steps), three drawings.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.inference import wilson_interval
from prefdyn.diagnostics.units import relabelled, units
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order
from prefdyn.models.extract import extract
from prefdyn.planning.verdicts import NO_EVIDENCE
from scripts.calibrate import judged, lines, put

SPLITS = ((180, 20), (160, 40), (100, 100))
"""Pairs of a persona that choose " Yes", and " No"."""
PERSONAS = 12
DRAWINGS = 3
KINDS = ["builtin", "persona", "public"]
LEAST = 1e-9
"""Smaller p are not told apart."""
REPLIES = {"sketch": 1024, "max_length": 1024}
"""How longer replies are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A set as one model reads it."""

    name: str
    data: PreferenceDataset
    feats: FeatureSet


def builtin_sets(models: list[str]) -> Iterator[Read]:
    """The data that the package ships."""
    for model in models:
        for name, limit in (("builtin", 100), ("builtin:responses", 60)):
            called = name if model == "builtin" else f"{name}, given model"
            yield read(called, load_dataset(name, limit=limit), model, **(REPLIES if "responses" in name else {}))


def public_sets(public: Path, model: str) -> Iterator[Read]:
    """Sets as their authors lay them out; what is absent is said."""
    squality = (
        "prompt=passage-id+@key,responses=bart.response+bart-dpr.response+human.response,"
        "ranking=bart.reviews.overall-rank+bart-dpr.reviews.overall-rank+human.reviews.overall-rank,"
        "group=@pair,each=questions,raters=bart.reviews.worker_id,votes=each,pairs=all"
    )
    pandalm = (
        "prompt=instruction+input?,first=response1,second=response2,winner=annotator1+annotator2+annotator3,"
        "group=cmp_key,values=1/2/0"
    )
    qa = (
        "prompt=question,responses=prediction 1+prediction 2+prediction 3+prediction 4,comparisons=preference,"
        "values=1/2/0,group=@pair"
    )
    known: list[tuple[str, int, dict[str, Any]]] = [
        ("llmbar", 60, {}),
        ("pandalm", 40, {"skip_bad_rows": True, "columns": pandalm}),
        ("qa_feedback", 40, {"columns": qa}),
        ("convarg_strict", 20, {}),
        ("squality_rankings", 40, {"columns": squality}),
        ("truthfulqa_multi", 30, {"skip_bad_rows": True}),
        ("ai_risk_human_ab", 40, {}),
    ]
    for name, limit, options in known:
        if not (public / name).is_dir():
            print(f"{name}: not in {public}, left out", flush=True)
            continue
        scheme = "persona:" if name == "ai_risk_human_ab" else ""
        yield read(name, load_dataset(f"{scheme}{public / name}", limit=limit, **options), model, **REPLIES)


def personas(path: Path, model: str) -> Iterator[Read]:
    """Some personas, read once, with their two answers in three proportions."""
    data = load_dataset(f"persona:{path}")
    names = data.groups[:: max(1, len(data.groups) // PERSONAS)][:PERSONAS]
    most = max(yes for yes, _ in SPLITS), max(no for _, no in SPLITS)
    whole = read("Persona", part_of(data.select(list(names)), most), model)
    for yes, no in SPLITS:
        data = part_of(whole.data, (yes, no))
        wanted = set(data.table["id"].to_pylist())
        rows = np.flatnonzero([name in wanted for name in whole.feats.id])
        yield Read(name=f"Persona {yes // 2}/{no // 2}", data=data, feats=whole.feats.select(rows))


def part_of(data: PreferenceDataset, counts: tuple[int, int]) -> PreferenceDataset:
    """The first so many pairs of every group that choose the one answer, and the other."""
    taken: Counter[tuple[str, str]] = Counter()
    ids = []
    for row in data.table.select(["id", "group", "chosen"]).to_pylist():
        key = row["group"], row["chosen"]
        taken[key] += 1
        if taken[key] <= counts[row["chosen"] != " Yes"]:
            ids.append(row["id"])
    return data.select(ids=ids)


def read(name: str, data: PreferenceDataset, model: str, **reading: Any) -> Read:
    """Features of a set."""
    start = time.perf_counter()
    feats = extract(data, model, progress=False, cache=False, **reading)
    print(f"{name}: {len(feats)} pairs read in {time.perf_counter() - start:.0f} s", flush=True)
    return Read(name=name, data=data.select(ids=feats.id), feats=feats)


def by_lot(feats: FeatureSet, rng: np.random.Generator) -> np.ndarray:
    """Pairs whose sides change over, so that labels mean nothing; (n,) of True and False."""
    unit = in_order(units(feats))
    turned = rng.random(int(unit.max()) + 1)[unit] < 0.5
    for rows in feats.by_group():
        answers = feats.two_answers(rows)
        if answers is not None:
            turned[rows] = relabelled(answers.positive, unit[rows], 1, rng)[0] != answers.positive
    return turned


def balanced_probe(feats: FeatureSet, rows: np.ndarray, unit: np.ndarray) -> float:
    """One-sided p of a probe that shares no code with ours: logistic regression, both classes alike, folds of units.

    Of replies: without an intercept, on the pairs and their swapped selves. Its error takes folds for independent,
    so that p is rather too small than too large. NaN where there are under ten units or one class.
    """
    x, answers = feats.states[rows].astype(np.float64), feats.two_answers(rows)
    label = np.ones(len(rows), dtype=bool) if answers is None else answers.positive
    if len(np.unique(unit)) < 10 or (answers is not None and min(label.sum(), (~label).sum()) < 5):
        return np.nan
    right = np.zeros(len(rows))
    for fit, test in GroupKFold(5).split(x, label, unit):
        centre = 0.0 if answers is None else x[fit].mean(axis=0)
        scale = np.sqrt(((x[fit] - centre) ** 2).mean(axis=0)) + 1e-12
        known, asked, told = (x[fit] - centre) / scale, (x[test] - centre) / scale, label[fit]
        if answers is None:
            known, told = np.concatenate([known, -known]), np.repeat([True, False], len(fit))
        if told.all() or not told.any():
            return np.nan
        reader = LogisticRegression(
            C=0.01, class_weight="balanced", fit_intercept=answers is not None, max_iter=500
        ).fit(known, told)
        right[test] = reader.predict(asked) == label[test]
    classes = [label] if answers is None else [label, ~label]
    accuracy = np.mean([right[inside].mean() for inside in classes])
    part = sum(np.where(each, (right - right[each].mean()) / each.sum(), 0.0) for each in classes) / len(classes)
    own = np.bincount(in_order(unit), weights=part)
    error = np.sqrt(len(own) / (len(own) - 1) * (own @ own))
    return float(norm.sf((accuracy - 0.5) / error)) if error > 0 else float(accuracy <= 0.5)


def main() -> None:
    """Read, judge, draw labels, judge again, and put the tables into their page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model's folder, for the public sets and Persona")
    parser.add_argument("--persona", type=Path, help="persona.jsonl[.gz] or a folder of the original files")
    parser.add_argument("--public", type=Path, help="folder with the public sets")
    parser.add_argument("--drawings", type=int, default=DRAWINGS)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="these sets alone")
    parser.add_argument("--check", action="store_true", help="print, and leave the page as it is")
    given = parser.parse_args()

    def sources() -> Iterator[Read]:
        if "builtin" in given.only:
            yield from builtin_sets(["builtin", *([given.model] if given.model else [])])
        if "persona" in given.only and given.model and given.persona:
            yield from personas(given.persona, given.model)
        if "public" in given.only and given.model and given.public:
            yield from public_sets(given.public, given.model)

    real: list[list[str]] = []
    lots: list[list[str]] = []
    passed = drawn = 0
    for source in sources():
        start = time.perf_counter()
        rows, spoke = as_they_are(source), Counter[str]()
        real += rows
        for drawing in range(given.drawings):
            turned = by_lot(source.feats, np.random.default_rng([drawing, len(source.feats)]))
            found = judged(source.feats.flipped(turned), drawing, source.data.flipped(rows=turned))
            spoke.update(item.verdict for item in found)
        total = sum(spoke.values())
        loud = {name: count for name, count in spoke.items() if name not in NO_EVIDENCE}
        passed, drawn = passed + sum(loud.values()), drawn + total
        lots.append([source.name, *counted(spoke, total)])
        print("\n".join(f"| {' | '.join(row)} |" for row in [*rows, lots[-1]]))
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    lots.append(
        ["**all**", str(drawn), *(str(sum(int(row[k]) for row in lots)) for k in (2, 3)), share(passed, drawn), ""]
    )
    tables = {
        "verdicts on data": (
            ["set", "verdict", "groups", "units, median", "stability, least, median", "least p of another probe"], real
        ),
        "labels by lot": (
            ["set, labels by lot", "groups × drawings", "looks random", "cannot tell", "pass", "as"], lots
        ),
    }  # fmt: skip
    for name, table in tables.items():
        text = "\n".join(lines(table))
        print(f"## {name}\n\n{text}\n", flush=True)
        if not given.check:
            put(name, text)


def as_they_are(source: Read) -> list[list[str]]:
    """One row per verdict that a set's groups get."""
    feats, unit = source.feats, units(source.feats)
    found = judged(feats, 0, source.data, resamples=200)
    by_group = feats.by_group()
    rows = []
    for verdict in dict.fromkeys(sorted((item.verdict for item in found), key=lambda name: name not in NO_EVIDENCE)):
        places = [place for place, item in enumerate(found) if item.verdict == verdict]
        stability = np.array([found[place].stability for place in places])
        p_values = np.array([balanced_probe(feats, by_group[place], unit[by_group[place]]) for place in places])
        rows.append(
            [
                source.name,
                verdict,
                f"{len(places)} of {len(found)}",
                f"{np.median([len(np.unique(unit[by_group[place]])) for place in places]):.0f}",
                f"{stability.min():.2f}, {np.median(stability):.2f}",
                "–" if np.isnan(p_values).all() else f"{max(np.nanmin(p_values), LEAST):.2g}",
            ]
        )
    return rows


def counted(spoke: Counter[str], total: int) -> list[str]:
    """How often labels by lot got which verdict."""
    loud = {name: count for name, count in spoke.items() if name not in NO_EVIDENCE}
    return [
        str(total),
        str(spoke["looks random"]),
        str(spoke["cannot tell"]),
        str(sum(loud.values())),
        ", ".join(f"{count} {name}" for name, count in sorted(loud.items())),
    ]


def share(count: int, of: int) -> str:
    """Some of all, as a percentage with its 95 % interval."""
    low, high = wilson_interval(count, of)
    return f"{count}: {100 * count / of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
