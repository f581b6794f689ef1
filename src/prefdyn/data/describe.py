"""What is in a dataset: sizes, answers and lengths, per group and over all."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

from typing import Any

import numpy as np
import pyarrow.compute as pc

from prefdyn.data.codes import Codes
from prefdyn.data.pairs import PreferenceDataset

WORD_LENGTH = 20
"""Characters up to which a response without blanks inside counts as a one-word answer."""


def describe(data: PreferenceDataset) -> dict[str, Any]:
    """Sizes, class balance and lengths in characters.

    Returns:
        `name, pairs, sha256, kind, conversational` (pairs), `splits` (pairs per side), `left_out` (rows), `prompts`
        (distinct), `clusters` (of pairs that hang together), `lengths`, and `groups`: per group `name, pairs, prompts,
        clusters, near_duplicates, answers, lengths`. `near_duplicates` are pairs whose prompt another one nearly
        repeats. `answers` lists the two answers of a two-answer group with how often each is chosen, None elsewhere.
        `lengths` holds `median, p95, max` of `prompt, chosen, rejected`. `kind` is `answers` where every response is
        one short word, which a model's tokenizer may still cut into several tokens, and `responses` otherwise.

    Example:
        >>> rows = [{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}]
        >>> describe(PreferenceDataset.from_rows(rows))["kind"]
        'answers'
    """
    codes = Codes.of(data.table)
    lengths = {
        name: np.asarray(pc.utf8_length(data.table[name])).astype(np.int64) for name in ("prompt", "chosen", "rejected")
    }
    clusters = data.clusters.of
    repeated = (data.clusters.prompts(codes.prompt) > 1)[data.clusters.near]
    groups = []
    for name, rows in zip(codes.groups, codes.members() if len(data) else [], strict=True):
        answers = codes.answers(rows)
        groups.append(
            {
                "name": name,
                "pairs": len(rows),
                "prompts": len(np.unique(codes.prompt[rows])),
                "clusters": len(np.unique(clusters[rows])),
                "near_duplicates": int(repeated[rows].sum()),
                "answers": None
                if answers is None
                else [
                    {"text": answers.first, "chosen": answers.first_chosen},
                    {"text": answers.second, "chosen": answers.second_chosen},
                ],
                "lengths": {field: _spread(values[rows]) for field, values in lengths.items()},
            }
        )
    sides = pc.value_counts(data.table["split"]).to_pylist()
    return {
        "name": data.name,
        "pairs": len(data),
        "sha256": data.sha256,
        "kind": "answers" if all(map(_one_word, codes.responses)) else "responses",
        "conversational": data.conversational,
        "splits": {side["values"]: side["counts"] for side in sides},
        "left_out": len(data.left_out),
        "prompts": len(codes.prompts),
        "clusters": len(np.unique(clusters)),
        "lengths": {field: _spread(values) for field, values in lengths.items()},
        "groups": groups,
    }


def _one_word(text: str) -> bool:
    return len(text) <= WORD_LENGTH and len(text.split()) == 1


def _spread(values: np.ndarray) -> dict[str, int] | None:
    if not len(values):
        return None
    middle, high = np.quantile(values, [0.5, 0.95], method="inverted_cdf")
    return {"median": int(middle), "p95": int(high), "max": int(values.max())}
