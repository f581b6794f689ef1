"""The page of a plan of pairs: leave these out or keep all, how sure, what every rule would do, how many are wrong."""

from collections.abc import Mapping
from typing import Any

from prefdyn._json import number
from prefdyn.report.folders import RunFolder
from prefdyn.report.plan import PlanTable, interval_of, part_of, part_table
from prefdyn.report.tables import minus
from prefdyn.report.text import sentence, visible

RULES = {
    "value_own": "value to its own group",
    "value_all": "value to all groups",
    "value_worst": "value to the worst group",
    "loss_after": "loss after training on others",
    "agreement": "against the others' first step",
    "ref_margin": "reference prefers the rejected",
    "small_gap": "reference sees little difference",
    "length_gap": "chosen longer than rejected",
}
_DOES = {"drop": "leave out", "half": "count half", "flip": "turn round"}
_SHOWN = 40
COLUMNS = ("Share", "Better by", "90 % interval", "Than random by", "90 % interval")
GROUP_COLUMNS = ("Pairs", "Named", "Labels agree", "Wrong, about", "90 % interval", "As given", "As chosen")


def select_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a plan of pairs; None where the folder holds none."""
    run, part = part_of(run, "select")
    if part is None:
        return None
    allows = ""
    if number(part.get("believed")) > 0:
        allows = f" Losses allow for a share of {minus(part.get('believed'))} of wrong labels among the judging pairs."
    kept = "" if part.get("change") else ", which are kept"
    tables = (
        PlanTable(
            heading="Every rule, on this data", first="What", columns=COLUMNS, rows=_tried(part), fold=12,
            intro="Mean loss over groups in nats, on pairs that took no part in training, scoring or choosing, against "
            "all pairs as given and against as many random pairs left out; above 0 is better. The best of so many "
            "looks better than it is: what is proposed was chosen on other pairs." + allows,
        ),
        PlanTable(
            heading="Group by group", first="Group", columns=GROUP_COLUMNS, rows=_groups(run),
            intro=f"Groups with the surest wrong labels first. Named: pairs that the best way is about{kept}. Labels "
            "agree: with the sign of the margin in runs that did not train on the pair.",
        ),
        PlanTable(
            heading="Pairs to look at first", first="Pair", columns=("Group", "Margin"),
            intro="With the margin of the chosen answer in runs that did not train on the pair; select.csv lists all "
            "of them with what every rule says.",
            rows=[
                (visible(row.get("id")), (visible(row.get("group")), minus(row.get("margin"))))
                for row in _rows(part, "pairs")[:_SHOWN]
            ],
        ),
    )  # fmt: skip
    return {"points": points(run, part), "tables": tables, "notes": ()}


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Change this, expect that, how sure."""
    way = part.get("way")
    told = _told(way) if isinstance(way, Mapping) else ""
    count = sum(int(number(row.get("named")) or 0) for row in run.groups)
    if part.get("change"):
        most = sorted(run.groups, key=lambda row: -(number(row.get("named")) or 0))[:3]
        names = ", ".join(f"{visible(row.get('name'))} {minus(row.get('named'))}" for row in most)
        mostly = f", the most from {names}" if len(run.groups) > 3 else ""
        change = f"{told}: {count} pairs{mostly}; select.csv names them"
    else:
        change = "nothing: keep every pair" + (f". The best that was tried: {told}" if told else "")
    span, above = (f"{minus(part.get(name))} ({interval_of(part, name)})" for name in ("gain", "over_random"))
    expect = f"Mean loss over groups better by {span}, than with as many random pairs left out by {above}."
    return [
        ("Change", sentence(change)),
        ("Expect", expect),
        ("How sure", sentence(visible(part.get("because") or ""))),
        ("Wrong labels", _wrong(part)),
    ]


def select_table(summary: Mapping[str, Any]) -> str:
    """The plan of pairs as plain text."""
    return part_table(summary, "select", points, lambda part, run: ("what", COLUMNS, _tried(part)[:10]), 14)


def _wrong(part: Mapping[str, Any]) -> str:
    wrong = part.get("wrong")
    if not isinstance(wrong, Mapping):
        return "Too few pairs to tell."
    share, low, high = (number(wrong.get(key)) for key in ("wrong", "wrong_low", "wrong_high"))
    sure = "" if low > 0 else ", which is not told from none"
    return (
        f"About {share:.0%} ({low:.0%} to {high:.0%}){sure}, if they fell by lot and the model is nearly always right "
        "where it is surest. Groups that pull against each other look the same."
    )


def _told(way: Mapping[str, Any]) -> str:
    share, rule = number(way.get("share")), str(way.get("rule"))
    return f"{_DOES.get(str(way.get('action')), '')} {share:.0%} by {RULES.get(rule, visible(rule))}"


def _rows(part: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [row for row in part.get(key) or [] if isinstance(row, Mapping)]


def _tried(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in _rows(part, "tried"):
        rule = str(row.get("rule"))
        entries = [f"{number(row.get('share')):.0%}"]
        for name in ("gain", "over_random"):
            entries += [minus(row.get(name)), interval_of(row, name)]
        found.append((f"{_DOES.get(str(row.get('action')), '')}: {RULES.get(rule, visible(rule))}", entries))
    return found


def _groups(run: RunFolder) -> list[tuple[str, list[str]]]:
    def percent(value: Any) -> str:
        return "–" if number(value) != number(value) else f"{number(value):.0%}"

    rows = sorted(run.groups, key=lambda row: -(number(row.get("wrong_low")) or 0.0))
    return [
        (
            visible(row.get("name")),
            [
                minus(row.get("pairs")), minus(row.get("named")), percent(row.get("agrees")), percent(row.get("wrong")),
                f"{percent(row.get('wrong_low'))} to {percent(row.get('wrong_high'))}",
                minus(row.get("loss_as_given")), minus(row.get("loss_plan")),
            ],
        )
        for row in rows
    ]  # fmt: skip
