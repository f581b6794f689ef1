"""The page of a plan of settings: run with these or as given, how sure, and what every setting of the grid does."""

from collections.abc import Mapping
from typing import Any

from prefdyn._json import number
from prefdyn.report.folders import RunFolder
from prefdyn.report.plan import PlanTable, interval_of, part_of, part_table
from prefdyn.report.tables import minus
from prefdyn.report.text import sentence, visible

_NAMES = {
    "as_given": "as given",
    "plan": "this plan",
    "simple": "fewest steps within an error of the best accuracy",
    "trl": "TRL's defaults, on the last layer",
}
_SHOWN = 40
_WAYS = ("Worst", "Mean", "Accuracy", "Plan better by", "90 % interval")
COLUMNS = ("Beta", "Learning rate", "Steps", "Scaled loss", "Accuracy", "Better by", "90 % interval")


def settings_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a plan of settings; None where the folder holds none."""
    run, part = part_of(run, "settings")
    if part is None:
        return None
    gone = int(number(part.get("diverged")) or 0)
    left = f" {gone} more diverge." if gone else ""
    tables = (
        PlanTable(
            heading="Beside the alternatives", first="Settings", columns=_WAYS, rows=_methods(part), fold=0,
            intro="On pairs that took no part in training or choosing, over groups. Scaled loss: log loss of the "
            "margins times one factor per run, fitted on the pairs that choose, in nats; guessing has 0.693. So runs "
            "of other objectives and strengths can be compared, and none gains by large margins alone.",
        ),
        PlanTable(
            heading="Every setting", first="Objective", columns=COLUMNS, rows=_cells(part)[:_SHOWN], fold=12,
            intro="The best first; better by: over the one as given, mean over groups. The best of so many looks "
            "better than it is: what is proposed was chosen on other pairs." + left + " settings.csv lists all.",
        ),
        PlanTable(
            heading="Group by group", first="Group",
            columns=("Pairs", "As given", "This plan", "Better by", "90 % interval"), rows=_groups(run),
            intro="Scaled loss on pairs that took no part. Those that gain least come first.",
        ),
    )  # fmt: skip
    return {"points": points(run, part), "tables": tables, "notes": (("What it rests on", _rests(part)),)}


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Change this, expect that, how sure."""
    given, best = (part.get(name) if isinstance(part.get(name), Mapping) else {} for name in ("given", "best"))
    assert isinstance(given, Mapping)
    assert isinstance(best, Mapping)
    told = _told(best)
    if part.get("change"):
        change = f"{told}; in place of {_told(given)}"
    else:
        change = f"nothing: {_told(given)}" + ("" if best == given else f". The best on the pairs that choose: {told}")
    methods = {str(row.get("name")): row for row in part.get("methods") or [] if isinstance(row, Mapping)}
    old, new = methods.get("as_given", {}), methods.get("plan", {})
    expect = (
        f"Scaled loss, mean over groups {minus(old.get('mean'))} → {minus(new.get('mean'))}, worst group "
        f"{minus(old.get('worst'))} → {minus(new.get('worst'))}; accuracy {number(old.get('accuracy')):.1%} → "
        f"{number(new.get('accuracy')):.1%} (last-layer runs on three fifths of the pairs)."
    )
    edge = part.get("change") and number(best.get("steps")) >= number(part.get("most_steps"))
    if edge:
        expect += " These are the most steps that were tried: more may be better still."
    picked = [row for row in part.get("picked") or [] if isinstance(row, Mapping)]
    same = sum(row == best for row in picked)
    sure = f"{sentence(visible(part.get('because') or ''))} {same} of {len(picked)} folds chose the same."
    return [("Run", sentence(change)), ("Expect", expect), ("How sure", sure)]


def settings_plan_table(summary: Mapping[str, Any]) -> str:
    """The plan of settings as plain text."""
    return part_table(summary, "settings", points, lambda part, run: ("objective", COLUMNS, _cells(part)[:10]), 10)


def _told(row: Mapping[str, Any]) -> str:
    return (
        f"objective {_kind(row)} with beta {minus(row.get('beta'))}, learning rate {minus(row.get('learning_rate'))} "
        f"and {minus(row.get('steps'))} steps"
    )


def _kind(row: Mapping[str, Any]) -> str:
    smooth = number(row.get("label_smoothing"))
    return visible(row.get("objective")) + (f", smoothing {minus(smooth)}" if smooth > 0 else "")


def _methods(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in part.get("methods") or []:
        if not isinstance(row, Mapping):
            continue
        lead = (
            ["", ""]
            if row.get("name") == "plan"
            else [minus(row.get("plan_better_by")), interval_of(row, "plan_better")]
        )
        entries = [minus(row.get("worst")), minus(row.get("mean")), f"{number(row.get('accuracy')):.1%}", *lead]
        found.append((_NAMES.get(str(row.get("name")), visible(row.get("name"))), entries))
    return found


def _cells(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in part.get("cells") or []:
        if not isinstance(row, Mapping) or row.get("loss") is None:
            continue
        mark = " (as given)" if row.get("given") else " (best on the pairs that choose)" if row.get("best") else ""
        entries = [
            minus(row.get("beta")), minus(row.get("learning_rate")), minus(row.get("steps")), minus(row.get("loss")),
            f"{number(row.get('accuracy')):.1%}", "" if row.get("given") else minus(row.get("gain")),
            "" if row.get("given") else interval_of(row, "gain"),
        ]  # fmt: skip
        found.append((_kind(row) + mark, entries))
    return found


def _groups(run: RunFolder) -> list[tuple[str, list[str]]]:
    rows = sorted(run.groups, key=lambda row: number(row.get("gain")) if row.get("gain") is not None else 0.0)
    return [
        (
            visible(row.get("name")),
            [minus(row.get("pairs")), minus(row.get("loss_as_given")), minus(row.get("loss_plan")),
             minus(row.get("gain")), interval_of(row, "gain")],
        )
        for row in rows
    ]  # fmt: skip


def _rests(part: Mapping[str, Any]) -> str:
    tied = (
        "Under this optimizer margins depend on beta and learning rate through the rate times beta squared alone, so "
        "beta is not searched beside the rate: twice the beta with a quarter of the rate makes the same margins, with "
        "half the movement away from the reference. "
        if part.get("beta_tied")
        else ""
    )
    return (
        tied
        + "Runs of the last layer on frozen states. Rates and steps of LoRA and full tuning are others; what carries "
        "over is the objective, and whether more steps still help. How far a run moves from the reference is not "
        "judged."
    )
