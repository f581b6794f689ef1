"""What summary.json must look like for a page, a picture or a comparison to be made of it (see `prefdyn._shape`).

Containers are spelt out; what is shown as it is may be text, a number, true, false or null. A part may be missing,
since commands write different ones, and parts that are not listed may hold anything.
"""

from collections.abc import Mapping
from typing import Any

VALUE = (str, float, bool, None)
_NUMBER = (float, None)
_TEXT = (str, None)
_NUMBERS = ([(float, None)], None)
_MATRIX = ([[(float, None)]], None)
_TEXTS = ([str], None)
_FLAT = ({"*": VALUE}, None)
_ROWS = ([{"*": VALUE}], None)
_SETTINGS = ({"*": (*VALUE, [VALUE], {"*": VALUE})}, None)


def _rows(**shapes: Any) -> Any:
    """A list of objects whose values are plain, but for those given."""
    return ([{**{f"{name}?": shape for name, shape in shapes.items()}, "*": VALUE}], None)


def _parts(**shapes: Any) -> Any:
    """An object of which some parts have a shape, and the others are plain."""
    return ({**{f"{name}?": shape for name, shape in shapes.items()}, "*": VALUE}, None)


_EXAMPLE = _parts(findings=_TEXTS)
_EXAMPLES = _rows(findings=_TEXTS)
_SHARED = _parts(rows=[str], margin=_MATRIX, share=_MATRIX, error=_MATRIX, between_seeds=_NUMBERS, told=_MATRIX)

SUMMARY: Mapping[str, Any] = {
    "schema": int,
    "command?": str,
    "answers?": _rows(kind=str, sentence=str, groups=_TEXTS, pairs=_TEXTS),
    "labels?": _parts(tried=_ROWS),
    "left_out_by_value?": _FLAT,
    "groups?": ([{"name": str, "ranks?": _NUMBERS, "verdict?": _TEXT, "verdict_because?": _TEXT, "*": VALUE}], None),
    "bounds?": _rows(conditions=_ROWS),
    "dataset?": _parts(left_out=_ROWS),
    "model?": _SETTINGS,
    "features?": _parts(answers=_TEXTS, sketch_error=_FLAT),
    "settings?": _SETTINGS,
    "provenance?": (
        {
            "data?": ({"left_out?": _ROWS, "*": object}, None),
            "model?": (dict, None),
            "settings?": (dict, None),
            "seed?": (int, [int], None),
            "versions?": _FLAT,
        },
        None,
    ),
    "warnings?": _TEXTS,
    "findings?": _rows(pairs=_TEXTS, says=str, severity=str, code=str, group=_TEXT),
    "timings?": ({"*": _NUMBER}, None),
    "verdict_thresholds?": _ROWS,
    "files?": (object, None),
    "diagnostics?": _parts(
        cosine=_parts(raw=_MATRIX, centred=_MATRIX, raw_without_self=_MATRIX, centred_without_self=_MATRIX),
        distances=_parts(labels=_TEXTS, matrix=_MATRIX),
        embedding=_parts(
            explained=_NUMBERS, group=([int], None), id=_TEXTS, positive=([(bool, None)], None), x=_NUMBERS, y=_NUMBERS
        ),
        geometry=_FLAT,
        influence=_parts(matrix=_MATRIX),
        order=_parts(distinguishability=_FLAT, priority=_FLAT),
        priority_gap=_MATRIX,
        shown_groups=_TEXTS,
    ),
    "slices?": ([{"words": [str], "*": VALUE}], None),
    "displacement?": _parts(ches=_FLAT, first_step=_FLAT),
    "exact?": _parts(
        gap=_FLAT,
        recorded=_NUMBERS,
        groups=([{"name": str, "pairs?": _NUMBER, "*": (*VALUE, [(float, None)])}], None),
    ),
    "examples?": _parts(
        labels=_EXAMPLES, at_odds=_EXAMPLES, chosen_falls=_EXAMPLES, costly=_EXAMPLES,
        opposites=_rows(first=_EXAMPLE, second=_EXAMPLE), looked_at=_FLAT,
    ),
    "field?": _parts(edges=_ROWS, rows=_ROWS),
    "grid?": _parts(cells=([{"*": (*VALUE, [VALUE], {"*": VALUE})}], None)),
    "forecast?": (
        {
            "names": [str], "levels": [float], "centre": _MATRIX[0], "error": [_NUMBER], "scale": [_NUMBER],
            "linear_weight": [_NUMBER],
            "freedom": float, "order?": _MATRIX, "tiers?": ([[str]], None), "between_seeds?": _NUMBERS,
            "linear_off?": _NUMBERS, "clock?": _parts(step=_NUMBERS, low=_NUMBERS, high=_NUMBERS), "probe?": _FLAT,
            "cost?": _FLAT, "trained_left_out?": _TEXTS, "curves?": ({"*": _MATRIX[0]}, None),
            "by_module?": _parts(names=[str], modules=_SHARED, layers=_SHARED, kinds=_SHARED),
            "sides?": _parts(
                chosen=_MATRIX, rejected=_MATRIX, error=_MATRIX, error_apart=_MATRIX, falls=_NUMBERS, behind=_NUMBERS
            ),
            "map?": _parts(
                betas=_NUMBERS, rates=_NUMBERS, own=_NUMBERS, mean=_MATRIX, worst=_MATRIX,
                worst_group=([[str]], None), accuracy=_MATRIX,
            ), "*": VALUE,
        },
        None,
    ),
    "real_run?": _parts(folder=str, says=str, correlation=_FLAT, rows=([{"name": str, "*": VALUE}], None)),
    "forecast_check?": _parts(folders=_TEXTS, shares=_ROWS, clock=_FLAT, run_steps=_NUMBERS),
    "plan?": _parts(
        weights=_parts(
            groups=_ROWS, methods=_ROWS, weights=_FLAT, mixture=_FLAT, limits=_FLAT, accuracy=_FLAT, rounds=_NUMBERS,
            in_the_run=_parts(methods=_ROWS, gains=_NUMBERS),
        ),
        data=_parts(groups=_ROWS, curves=_ROWS, growth=_ROWS, laws=_ROWS),
        select=_parts(groups=_ROWS, tried=_ROWS, pairs=_ROWS, way=_FLAT, wrong=_FLAT, picked=([_TEXT], None)),
        undo=_parts(groups=_ROWS, fragile=_TEXTS),
        settings=_parts(
            groups=_ROWS, methods=_ROWS, cells=_ROWS, picked=_ROWS, given=_FLAT, best=_FLAT, limits=_FLAT
        ),
    ),
    "theory?": _parts(
        margins=({"*": (_NUMBERS[0], *VALUE)}, None), path=({"*": (_NUMBERS[0], *VALUE)}, None), values=_FLAT
    ),
    "training?": _parts(first_batch=_SETTINGS, last_batch=_SETTINGS),
    "comparison?": _parts(
        commands=_TEXTS, folders=_TEXTS, names=_TEXTS, only_first=_TEXTS, only_second=_TEXTS, order=_FLAT,
        order_by_size=_FLAT, rescaling=_parts(tried=_NUMBERS), rows=_ROWS,
        settings=([{"name": str, "*": (*VALUE, [VALUE])}], None),
        errors=({"*": ({"*": _FLAT}, None)}, None),
    ),
}  # fmt: skip

REPRODUCED: Mapping[str, Any] = {
    "claims": {"held": int, "failed": int, "not_testable": int},
    "dataset": {"name": str},
    "model": {"name": _TEXT},
    "preset": {"name": str, "says": str, "seeds": [int], "rows": (int, None)},
    "provenance": {"versions": {"*": VALUE}},
    "published_and_here": [{"setup": str, "field": str, "here": object, "published": object}],
    "figures": [dict.fromkeys(("id", "spec", "paper", "where", "title", "caption", "recipe"), str)],
    "recipes": [{"name": str, "summary": str, "notes": [str], "failed": _TEXT, "runs": int, "seconds": float}],
    "runs": {"all": int, "done_before": int},
    "timings": {"reproduce_s": float},
    "warnings": [str],
}
"""summary.json of `prefdyn reproduce`, whose page has no part that may be missing."""
_CLAIM = dict.fromkeys(
    ("id", "figure", "paper", "where", "statement", "measured", "because", "rule", "recipe", "preset"), str
)
CLAIMS = [
    {**_CLAIM, "paper_value": VALUE, "holds": (bool, None), "kind?": str, "unit?": str, "p?": (float, None),
     "corrected?": ({"p": float, "among": int, "holds": bool}, None),
     "thresholds?": [{"threshold": (float, [float]), "holds": (bool, None)}], "evidence?": (dict, None),
     "control?": ({"beyond": (bool, None), "because": str}, None)}
]  # fmt: skip
"""claims.json."""
