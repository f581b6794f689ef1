"""Audit pairs that you hold in Python: two values that pull the same answers in opposite directions.

Run: uv run python examples/audit_a_list.py
"""

import tempfile
from pathlib import Path

import prefdyn as pdy

DEEDS = ["share my lunch", "call my mother", "plan the week", "fix the lamp", "read the news", "walk to work"]


def pairs(group: str, *, likes_often: bool) -> list[dict[str, str]]:
    """Statements about habits: one group agrees with frequent ones, the other with rare ones."""
    rows = []
    for day in range(30):
        for place, deed in enumerate(DEEDS):
            often = (day + place) % 2 == 0
            word = "nearly always" if often else "hardly ever"
            agrees = often == likes_often
            rows.append(
                {
                    "prompt": f'Would you say this about yourself?\n"On day {day} I {word} {deed}."',
                    "chosen": " Yes" if agrees else " No",
                    "rejected": " No" if agrees else " Yes",
                    "group": group,
                }
            )
    return rows


def main() -> None:
    """Audit both groups together and write the report."""
    rows = pairs("steady", likes_often=True) + pairs("fickle", likes_often=False)[:120]
    found = pdy.audit(rows, model="builtin")
    for row in found.rows():
        print(f"{row['name']}: {row['verdict']} ({row['verdict_because']})")
    page = pdy.write_report(found, Path(tempfile.mkdtemp()) / "report.html")
    print(f"report: {page}")


if __name__ == "__main__":
    main()
