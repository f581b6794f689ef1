"""Pairs to look at on a page: single ones, and pairs of pairs, with their texts and numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefdyn._json import number
from prefdyn.data.preflight import CONTRADICTING, NEARLY
from prefdyn.diagnostics.labels import NAMES
from prefdyn.maths.units import Z95
from prefdyn.report.folders import RunFolder
from prefdyn.report.responses import two_digits
from prefdyn.report.text import cut, readable, visible

_EXCERPT = 150


def at_odds(run: RunFolder) -> list[dict[str, Any]]:
    """Pairs whose margin the first step of all the others pushes down most, for the page."""
    return [_example(row) for row in run.part("examples", "at_odds") or []]


def pair_lists(run: RunFolder) -> list[dict[str, Any]]:
    """The lists of pairs to look at, for the page; empty where the folder is no audit."""
    if run.kind != "audit":
        return []
    checked = isinstance(run.part("examples", "labels"), list)
    costly = [_costly(run)] if isinstance(run.part("left_out_by_value"), Mapping) else []
    if not run.responses:
        return [_labels(run), *costly] if checked else []
    return [_labels(run) if checked else _against(run), *costly, *_of_responses(run)]


def _labels(run: RunFolder) -> dict[str, Any]:
    """Labels that the other pairs speak against, or why there is no such list."""
    check = run.part("labels")
    tried = {row.get("name"): row for row in (check or {}).get("tried") or []}
    best = tried.get((check or {}).get("reader"), {})
    found = f"{number(best.get('found')) * (check or {}).get('first', 0):.0f} of the first {(check or {}).get('first')}"
    return {
        "id": "labels",
        "heading": "Labels to check",
        "says": "Pairs that others contradict outright come first, then the labels that the other pairs speak against "
        "most: each is read by a reader that never saw it, nor what hangs together with it. They are the oddest labels "
        "of the data as given, and may all be right: look for wrong ones, and for pairs that belong to another group.",
        "empty": "Too few pairs to try a reader on."
        if check is None
        else "The reader that finds most doubts no label."
        if check.get("worth")
        else f"No list. With a tenth of the labels turned round on purpose, {found} that "
        "the best reader doubts were turned ones, by chance 1: a list would mislead.",
        "filter": _doubted(run) if check and check.get("worth") else None,
        "entries": [{"key": _doubt(row), "pairs": [example_pair(row)]} for row in run.part("examples", "labels") or []],
        "tried": [
            (
                NAMES.get(str(row.get("name")), visible(row.get("name"))),
                [[number(row.get(key + end)) for end in ("", "_low", "_high")] for key in _TRIED],
            )
            for row in tried.values()
        ],
    }


_TRIED = ("found", "average_precision")
"""Each with its 90 % interval over the drawings."""


def _doubt(row: Mapping[str, Any]) -> str:
    """Why a pair stands among the labels to check."""
    if set(row.get("findings") or ()) & set(CONTRADICTING):
        return "contradicted"
    if NEARLY in (row.get("findings") or ()):
        return "nearly contradicted"
    return f"doubt {_three_digits(-number(row.get('label_score')))}"


def _against(run: RunFolder) -> dict[str, Any]:
    """What folders without a check of labels have in its place."""
    return {
        "id": "against",
        "heading": "Against the rest",
        "says": "The first step of all the other pairs pushes these margins down most. Long pairs are pushed most.",
        "empty": "No pair is pushed the wrong way by the first step of the others.",
        "filter": None,
        "entries": _single(run, "at_odds", "agreement", "margin {}"),
    }


def _costly(run: RunFolder) -> dict[str, Any]:
    """Pairs that held-out pairs would be better without, where runs without them show it, or why there is no list."""
    found = bool(run.part("left_out_by_value", "worth"))
    check = {name: number(value) for name, value in (run.part("left_out_by_value") or {}).items()}

    def change(name: str) -> str:
        error = check.get(f"{name}_error", math.nan)
        reach = "" if math.isnan(error) else f" ± {_three_digits(Z95 * error)}"
        return f"{'+' if check[name] > 0 else ''}{_three_digits(check[name])}{reach}"

    count = f"{check['pairs']:,.0f}"
    told = (
        f"Runs without {count} pairs, judged by held-out pairs that had no say in which: without those of lowest value "
        f"the mean held-out loss changes by {change('lowest')} nats, without those of highest by {change('highest')}, "
        f"without as many random ones by {change('random')} ({change('random_low')} to {change('random_high')}, the "
        f"middle 90 % of {check['draws']:.0f} draws)."
    )
    return {
        "id": "costly",
        "heading": "Pairs that held-out pairs would be better without",
        "says": f"Value: what leaving a pair out adds to the mean held-out loss. {told} The lowest are listed: "
        "wrong labels, rare cases, or preferences that others do not share.",
        "empty": f"No list: it is not told that leaving out pairs of low value is better. {told}",
        "filter": _below_zero(run, "value_all") if found else None,
        "entries": _single(run, "costly", "value_all", "value {} nats") if found else [],
    }


def _of_responses(run: RunFolder) -> list[dict[str, Any]]:
    """Lists that one-token answers do not have."""
    return [
        {
            "id": "falling",
            "heading": "Chosen pushed down",
            "says": "The whole first step lowers the log-probability of these chosen responses most. A margin can "
            "grow all the same, as long as the rejected response falls faster.",
            "empty": "No chosen response starts by falling.",
            "filter": _below_zero(run, "chosen_push"),
            "entries": _single(run, "chosen_falls", "chosen_push", "chosen {} nats"),
        },
        {
            "id": "opposites",
            "heading": "Near duplicates with opposite labels",
            "says": "What one of these pairs asks of the model, the other takes back: their gradients point nearly "
            f"against each other. {_looked_at(run)}",
            "empty": f"None was found. {_looked_at(run)}",
            "filter": _OPPOSITE if run.pairs is not None else None,
            "entries": _opposites(run),
        },
    ]


_OPPOSITE = (
    'import pyarrow.parquet as pq; [row["id"] for row in pq.read_table("pairs.parquet").to_pylist() '
    'if "opposite" in row["findings"]]'
)


def _doubted(run: RunFolder) -> str | None:
    """A line of Python that gives the ids of all doubted labels, the most doubtful first."""
    if run.pairs is None or "label_score" not in run.pairs.schema.names:
        return None
    return (
        'import pyarrow.parquet as pq; pq.read_table("pairs.parquet", filters=[("label_score", "<", 0)])'
        '.sort_by("label_score")["id"].to_pylist()'
    )


def _below_zero(run: RunFolder, name: str) -> str | None:
    """A line of Python that gives the ids of all pairs with a number below 0, where the folder has that column."""
    if run.pairs is None or name not in run.pairs.schema.names:
        return None
    return (
        f'import pyarrow.parquet as pq; pq.read_table("pairs.parquet", filters=[("{name}", "<", 0)])["id"].to_pylist()'
    )


def _single(run: RunFolder, key: str, sorted_by: str, form: str) -> list[dict[str, Any]] | None:
    """One entry per pair of a list, with the number that it is sorted by; None where the run made no such list."""
    rows = run.part("examples", key)
    if not isinstance(rows, list):
        return None
    return [
        {"key": form.format(_three_digits(number(row.get(sorted_by)))), "pairs": [example_pair(row)]} for row in rows
    ]


def _three_digits(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:#.3g}".removesuffix(".").replace("-", "−")


def _opposites(run: RunFolder) -> list[dict[str, Any]] | None:
    rows = run.part("examples", "opposites")
    if not isinstance(rows, list):
        return None
    return [
        {
            "key": f"cosine {two_digits(number(row.get('cosine')))}",
            "pairs": [example_pair(row.get(side) or {}) for side in ("first", "second")],
        }
        for row in rows
    ]


def _looked_at(run: RunFolder) -> str:
    looked, of, found = (run.part("examples", "looked_at", key) for key in ("opposites", "of", "found"))
    if not isinstance(looked, int) or not isinstance(of, int):
        return ""
    listed = len(run.part("examples", "opposites") or [])
    more = (
        f" {found:,} were found; those most opposite are listed." if isinstance(found, int) and found > listed else ""
    )
    where = f"All {of:,} pairs were" if looked >= of else f"A sample of {looked:,} of {of:,} pairs was"
    return f"{where} looked at.{more}"


def example_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    """A pair with its texts and numbers, as the page shows it."""
    texts = [(label, row.get(label.lower())) for label in ("Prompt", "Chosen", "Rejected")]
    known = [(label, readable(str(text))) for label, text in texts if text is not None]
    start = next((text for _, text in known if text.strip()), "")
    return {
        "id": visible(row.get("id", "")),
        "group": visible(row.get("group", "")),
        "sides": [cut(" ".join(text[: 4 * _EXCERPT].split()), _EXCERPT) for _, text in known[1:]],
        "excerpt": cut(" ".join(start[: 4 * _EXCERPT].split()), _EXCERPT),
        "texts": known,
        "cut": bool(row.get("cut")),
        "numbers": _numbers(row),
    }


def _numbers(row: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """Labels and values of what is known of a pair."""
    named = (
        ("Reader of the other pairs", "label_score"),
        ("Push by all others", "agreement"),
        ("By its own group", "group_agreement"),
        ("Push on chosen", "chosen_push"),
        ("Push on rejected", "rejected_push"),
        ("Value to its group, nats", "value_own"),
        ("Value to all, nats", "value_all"),
        ("Final margin", "margin"),
        ("Chosen tokens", "chosen_tokens"),
        ("Rejected tokens", "rejected_tokens"),
    )
    return [(label, row[key]) for label, key in named if not math.isnan(number(row.get(key)))]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    def text(key: str) -> str | None:
        value = row.get(key)
        return None if value is None else readable(str(value))

    return {
        "id": visible(row.get("id", "")),
        "group": visible(row.get("group", "")),
        "prompt": text("prompt"),
        "chosen": text("chosen"),
        "rejected": text("rejected"),
        "numbers": [
            ("Push by all others", row.get("agreement")),
            ("By its own group", row.get("group_agreement")),
            ("Push on chosen", row.get("chosen_push")),
            ("Final margin", row.get("margin")),
        ],
    }
