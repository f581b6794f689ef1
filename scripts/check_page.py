"""Write docs/checks.md from the table of checks (run with `uv run python`)."""

from pathlib import Path

from prefdyn.planning.check import Check, checks

PAGE = Path(__file__).resolve().parent.parent / "docs" / "checks.md"
_HEAD = """# Checks

*`prefdyn check` is an audit as a gate: stable codes, a limit for each, exit 3 where one fails.*

```
prefdyn check --data-only pairs.jsonl            # seconds, no model
prefdyn check pairs.jsonl --model ./my-model     # also what an audit of this model finds
prefdyn check pairs.jsonl --fail-on contradiction,copies,looks-random --junit check.xml
prefdyn check --explain PD004
```

```python
found = pdy.check("pairs.jsonl", data_only=True, fail_on=["contradiction"], limits={"copies": 12})
found.failed, [(item.code, item.group, item.says) for item in found]
```

A check that finds more pairs (of a verdict: groups) than its limit, 0 unless said, **fails** or **warns**. `--fail-on`
says which fail; `--ignore PD004` leaves a check out, `--ignore PD004:GROUP` one group. To begin with a dataset as it is
and let nothing become worse, write today's counts as limits, and check with them from then on:

```
prefdyn check pairs.jsonl --init check.yaml
prefdyn check pairs.jsonl --config check.yaml
```

`--junit FILE` writes JUnit XML (a test holds it to our transcription of the schemas that Jenkins and Ant publish; by
those of the Jenkins xUnit plugin themselves it was valid when tried by hand), `--markdown FILE` a section for people,
`--json` everything. In GitHub Actions each finding is an annotation, and the section goes to the run's summary. Exit
0: nothing fails; 1: the data or the model cannot be read; 2: usage; 3: a check fails, or the data is too broken for
those that need a model.

**In a pipeline.** `examples/check.yml` is a workflow to copy. With [pre-commit](https://pre-commit.com),
`prefdyn-check` looks at the data files of a commit, without a model:

```yaml
repos:
  - repo: https://github.com/OWNER/prefdyn
    rev: v0.1.0
    hooks:
      - id: prefdyn-check
        args: [--fail-on, "contradiction,copies"]
```

Verdicts (`PD1..`) are tests adjusted over the groups ([How sure the verdicts are](statistics.md)): in an audit where
nothing is wrong each of them speaks in at most about 5 % of cases. The checks of texts are exact.

| code | name | without `--fail-on` | looks at |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| [{check.code}](#{check.code.lower()}) | {check.name} | {'fails' if check.fails else 'warns'} | "
        f"{'the model' if check.needs_model else 'texts'} |\n"
        for check in checks()
    ]
    return _HEAD + "".join(rows) + "".join(map(section, checks()))


def section(check: Check) -> str:
    """What one check is, with an example in which it speaks and one in which it does not."""
    head = f"{check.code} {check.name} {{ #{check.code.lower()} }}"
    return (
        f"\n## {head}\n\n{check.what}\n\n**Why it matters.** {check.why}\n\n"
        f"**How to mend it.** {check.mend}\n\n**When to ignore it.** {check.ignore}\n\n"
        f"{_example(check, 'Speaks', check.fires)}\n{_example(check, 'Does not speak', check.silent)}"
    )


def _example(check: Check, says: str, text: str) -> str:
    kind = "json" if text.startswith("{") else "python" if text.startswith("gaussian") else ""
    if not kind:
        return f"{says} of {text}.\n"
    steps = f" in {check.steps} steps" if check.steps != 100 else ""
    return f"{says}{' of' if check.needs_model else ''}{steps}:\n\n```{kind}\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
