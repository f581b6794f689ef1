"""Which number of a pair finds flipped labels, where a tenth of them is turned round: the table of docs/statistics.md.

uv run --with cleanlab python -m scripts.flipped_labels [--model FOLDER] [--persona FILE] [--hh FILE] \
    [--public FOLDER] [--check]

Without flags: both built-in sets on the built-in model. Labels are turned round in features and texts alike, held out
or not, and everything is computed anew from what is then there, the trial of the readers too. Three drawings each. In
every cell the average precision and, behind it, the share of flipped labels among the first ten; 0.10 is chance for
both. `cleanlab` is what a careful user would do without us: confident learning (Northcutt, Jiang and Chuang, 2021,
arXiv:1911.00068) on logistic regressions of the model's states, five folds of units, a group by itself where it has 40
pairs; of a reply pair the difference of its two sides, in an order drawn by lot, is what is told right or wrong.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.split import held_out_mask
from prefdyn.diagnostics.controlled import controlled
from prefdyn.diagnostics.labels import LISTED, NAMES, average_precision, check_labels
from prefdyn.diagnostics.prioritization import pair_pushes
from prefdyn.diagnostics.units import units
from prefdyn.dynamics.descent import stable_learning_rate
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.planning.values import pair_values
from scripts.calibrate import lines, put
from scripts.verdicts_on_data import Read, part_of, read

DRAWS, SHARE = 3, 0.1
REPLIES = {"sketch": 1024, "max_length": 512}
"""How longer replies are read."""
TRIVIAL = ("length", "words", "reference")
COLUMNS = (*TRIVIAL, "cleanlab", "states", "label_score", "value_own", "agreement", "agreement_controlled")
PANDALM = (
    "prompt=instruction+input?,first=response1,second=response2,winner=annotator1+annotator2+annotator3,"
    "group=cmp_key,values=1/2/0"
)
QA = (
    "prompt=question,responses=prediction 1+prediction 2+prediction 3+prediction 4,comparisons=preference,"
    "values=1/2/0,group=@pair"
)


def sets(given: argparse.Namespace) -> Iterator[Read]:
    """The built-in sets, and those that were named."""
    yield read("builtin", load_dataset("builtin", limit=100), "builtin")
    yield read("builtin:responses", load_dataset("builtin:responses", limit=100), "builtin", **REPLIES)
    if given.persona:
        whole = load_dataset(f"persona:{given.persona}")
        yield read("Persona", part_of(whole.select(list(whole.groups[::11][:8])), (50, 50)), given.model)
    loaded: list[tuple[str, Callable[[], PreferenceDataset]]] = []
    if given.hh:
        loaded.append(("HH", lambda: load_dataset(f"hh:{given.hh}", skip_bad_rows=True, limit=600)))
    if given.public:
        at = given.public
        loaded += [
            ("PandaLM", lambda: load_dataset(at / "pandalm", skip_bad_rows=True, columns=PANDALM, limit=20)),
            ("LLMBar", lambda: load_dataset(at / "llmbar")),
            ("QA-feedback", lambda: load_dataset(at / "qa_feedback", columns=QA, limit=140)),
            ("convincing arguments", lambda: load_dataset(at / "convarg_strict", limit=100)),
        ]
    for name, load in loaded:
        yield read(name, load(), given.model, **REPLIES)


def scores(data: PreferenceDataset, feats: FeatureSet, seed: int) -> tuple[dict[str, np.ndarray], str]:
    """What each number says of every pair, lowest first, and the reader that is asked (empty: none is worth it)."""
    unit, rate = units(feats), stable_learning_rate(feats, DPO())
    check = check_labels(data, feats, unit=unit, seed=seed)
    assert check is not None
    held_out = feats
    with suppress(DataError):  # too few prompts to hold any out
        names = np.asarray([feats.groups[code] for code in feats.group])
        held_out = feats.with_held_out(held_out_mask(names, feats.cluster, 0.9, seed))
    pushes = pair_pushes(held_out, beta=0.1, learning_rate=rate)
    found = {"label_score": check.score, **check.scores, "agreement": pushes.agreement}
    found["cleanlab"] = confident_learning(feats, unit, seed)
    found["agreement_controlled"] = controlled(data, feats, {"agreement": pushes.agreement}, unit=unit)["agreement"]
    values = pair_values(held_out, DPO(), unit, learning_rate=rate, steps=100, seed=seed)
    if values is not None:
        found["value_own"] = np.nan_to_num(values.own)
    return found, check.reader if check.worth else ""


ALONE, FOLDS = 40, 5
"""Pairs from which on a group has a classifier of its own, and its folds."""


def confident_learning(feats: FeatureSet, unit: np.ndarray, seed: int) -> np.ndarray:
    """Quality of each label by cleanlab, lowest first; a half where no classifier can be fitted."""
    seen, label = feats.pair_features(np.arange(len(feats)), np.float64), feats.chosen
    if feats.kind == "responses":
        label = np.random.default_rng(seed).integers(0, 2, len(feats))
        seen = np.where(label[:, None] == 1, seen, -seen)
    assert label is not None
    label = np.unique(label, return_inverse=True)[1]
    found, small = np.full(len(feats), 0.5), []
    for rows in feats.by_group():
        if len(rows) < ALONE:
            small.append(rows)
            continue
        found[rows] = _quality(seen[rows], label[rows], unit[rows])
    if small:
        rows = np.concatenate(small)
        found[rows] = _quality(seen[rows], label[rows], unit[rows])
    return found


def _quality(seen: np.ndarray, label: np.ndarray, unit: np.ndarray) -> np.ndarray:
    from cleanlab.rank import get_label_quality_scores  # type: ignore[reportMissingImports]  # this script's alone

    folds = min(FOLDS, len(np.unique(unit)))
    if folds < 2 or min(np.bincount(label, minlength=2)) < folds:
        return np.full(len(label), 0.5)
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    told = cross_val_predict(reader, seen, label, groups=unit, cv=GroupKFold(folds), method="predict_proba")
    return get_label_quality_scores(label, told, method="normalized_margin", adjust_pred_probs=True)


def row(name: str, data: PreferenceDataset, feats: FeatureSet) -> list[str]:
    """One row of the table."""
    precision: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    asked = []
    for seed in range(DRAWS):
        flipped = np.zeros(len(feats), dtype=bool)
        flipped[np.random.default_rng(seed).choice(len(feats), round(SHARE * len(feats)), replace=False)] = True
        found, reader = scores(data.flipped(rows=flipped), feats.flipped(flipped), seed)
        asked.append(reader)
        for key, score in found.items():
            precision.setdefault(key, []).append(average_precision(score, flipped))
            first.setdefault(key, []).append(float(flipped[np.argsort(score, kind="stable")[:LISTED]].mean()))
    cells = [
        f"{np.mean(precision[key]):.2f}, {np.mean(first[key]):.2f}" if key in precision else "–" for key in COLUMNS
    ]
    offered = ", ".join(dict.fromkeys(NAMES[each] for each in asked if each)) or "no list"
    return [name, str(len(feats)), *cells, f"{offered} ({sum(map(bool, asked))} of {DRAWS})"]


def main() -> None:
    """Print the table and put it into its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    for name in ("persona", "hh", "public"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--check", action="store_true", help="print, and leave the page as it is")
    given = parser.parse_args()
    head = ["set", "pairs", *(f"`{name}`" if "_" in name or name == "agreement" else name for name in COLUMNS), "list"]
    text = "\n".join(lines((head, [row(each.name, each.data, each.feats) for each in sets(given)])))
    print(text, flush=True)
    if not given.check:
        put("flipped labels", text)


if __name__ == "__main__":
    main()
