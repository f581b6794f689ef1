"""Which number of a pair finds flipped labels: average precision where a tenth of the training labels is turned round.

uv run python scripts/wrong_labels.py [DATA MODEL ANSWERS] [--groups A,B] [--limit N]

Without DATA: both built-in sets. Labels are flipped in the features, which is what reading the flipped pairs would
give. Three draws each. 0.1 is chance. Prints the table of docs/whatif.md.
"""

import argparse

import numpy as np

from prefdyn.data.loaders import load_dataset
from prefdyn.models.extract import extract
from prefdyn.planning.audit import audit
from prefdyn.settings import Extraction

DRAWS, SHARE = 3, 0.1
SCORES = ("value_own", "value_all", "agreement", "group_agreement")


def precision(score: np.ndarray, flipped: np.ndarray) -> float:
    """Mean over the flipped pairs of the share of flipped ones among those that rank as low or lower."""
    found = flipped[np.argsort(score, kind="stable")].astype(float)
    return float((np.cumsum(found) / np.arange(1, len(found) + 1))[found == 1].mean())


def main() -> None:
    """Print one row per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="*", help="DATA MODEL [POS,NEG]")
    parser.add_argument("--groups", type=lambda text: text.split(","))
    parser.add_argument("--limit", type=int, default=100)
    asked = parser.parse_args()
    sets = [asked.given] if asked.given else [["builtin", "builtin"], ["builtin:responses", "builtin"]]
    print(f"| data, model | pairs | {' | '.join(SCORES)} |\n|---|--:|{'--:|' * len(SCORES)}")
    for data, model, *answers in sets:
        pairs = load_dataset(data, groups=asked.groups, limit=asked.limit, skip_bad_rows=True).with_held_out(0.7)
        reading = Extraction(answers=answers[0].split(",") if answers else None)
        feats = extract(pairs, model, reading=reading)
        trained, found = np.flatnonzero(~feats.held_out), []
        for seed in range(DRAWS):
            flipped = np.zeros(len(feats), dtype=bool)
            drawn = np.random.default_rng(seed).choice(trained, round(SHARE * len(trained)), replace=False)
            flipped[drawn] = True
            made = audit(feats.flipped(flipped), steps=100, progress=False)
            assert made.values is not None, "too many pairs times groups for values"
            scores = (made.values.own, made.values.all, made.pushes.agreement, made.pushes.group_agreement)
            found.append([precision(np.asarray(score)[trained], flipped[trained]) for score in scores])
        name = f"{data.rsplit('/', 1)[-1]}, {model.rsplit('/', 1)[-1]}"
        print(f"| {name} | {len(feats)} | {' | '.join(f'{each:.2f}' for each in np.mean(found, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
