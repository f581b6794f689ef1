"""A gate: what must not be in a dataset, under stable codes, with a limit for each."""

import functools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from prefdyn._checks import nearest
from prefdyn._json import SCHEMA_VERSION
from prefdyn._shape import shown
from prefdyn._showing import Tabular
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import LeftOut, PreferenceDataset
from prefdyn.data.preflight import plural, preflight
from prefdyn.data.rows import NO_TEXT, SAME
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.settings import Extraction, opened

if TYPE_CHECKING:
    from prefdyn.planning.audited import Audit

Outcome = Literal["failed", "warning", "passed", "ignored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One kind of thing that should not be there."""

    code: str
    """`PD001` …; never given to anything else."""
    name: str
    finds: tuple[str, ...]
    """Codes of the dataset's findings, or verdicts of an audit."""
    fails: bool
    """Whether it fails where nothing else is said."""
    what: str
    why: str
    mend: str
    ignore: str
    fires: str
    """An example in which it speaks,"""
    silent: str
    """and one in which it does not."""
    steps: int = 100
    """Of the simulated run in the examples."""

    @property
    def needs_model(self) -> bool:
        """Whether it is the verdict of an audit."""
        return self.code >= "PD1"

    def explained(self) -> str:
        """What it is, why it matters, how to mend it, when to ignore it."""
        return (
            f"{self.code} {self.name}{'' if self.fails else ' (warns)'}\n\n{self.what}\n\nWhy it matters: {self.why}\n"
            f"How to mend it: {self.mend}\nWhen to ignore it: {self.ignore}"
        )


@functools.cache
def checks() -> tuple[Check, ...]:
    """All of them, by code."""
    table = tomllib.loads(files("prefdyn.planning").joinpath("checks.toml").read_text(encoding="utf-8"))
    return tuple(Check(code=code, **{**rest, "finds": tuple(rest["finds"])}) for code, rest in table.items())


def named(text: str, flag: str) -> Check:
    """The check of a code or a name.

    Raises:
        ConfigError: There is none.

    Example:
        >>> named("PD004", "fail_on").name, named("copies", "fail_on").code
        ('contradiction', 'PD006')
    """
    wanted = text.strip()
    for check in checks():
        if wanted.lower() in (check.code.lower(), check.name):
            return check
    names = [check.name for check in checks()]
    raise ConfigError(f"{flag} {shown(text)} is no check{nearest(wanted, names)}; there are {', '.join(names)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinding:
    """Something that a check found."""

    code: str
    name: str
    group: str | None
    """None: several groups, or the whole dataset."""
    says: str
    count: int
    """Pairs, of a check of the data; 1, a group, of one that needs a model."""
    pairs: tuple[str, ...]
    """The first ids of pairs concerned."""
    ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one check."""

    check: Check
    outcome: Outcome
    found: tuple[CheckFinding, ...]
    limit: int
    """At most so many pairs (or groups) before it speaks."""

    @property
    def count(self) -> int:
        """Pairs of a check of the data, groups of one that needs a model; without what is ignored."""
        return sum(item.count for item in self.found if not item.ignored)

    @property
    def beyond(self) -> str:
        """What was found beside what is allowed."""
        counted = plural(self.count, "group" if self.check.needs_model else "pair")
        return f"{counted}, {f'at most {self.limit:,} allowed' if self.limit else 'none allowed'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Tabular):
    """What every check made of a dataset; goes over what was found."""

    results: tuple[Result, ...]
    dataset: str
    pairs: int
    fail_on: tuple[str, ...]
    """Names of the checks that fail; the others warn."""
    not_run: str | None = None
    """Why checks that need a model were left out, where they were not meant to be."""

    @property
    def failed(self) -> bool:
        """Whether any check fails, or could not be made."""
        return self.not_run is not None or any(result.outcome == "failed" for result in self.results)

    def __iter__(self) -> Iterator[CheckFinding]:
        return (item for result in self.results for item in result.found if not item.ignored)

    def __str__(self) -> str:
        counts = {name: len(self.of(name)) for name in get_args(Outcome)}
        said = [
            plural(count, name) if name == "warning" else f"{count} {name}" for name, count in counts.items() if count
        ]
        return f"{plural(self.pairs)}: {', '.join(said)}"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per thing found that counts."""
        return [
            {each.name: getattr(item, each.name) for each in fields(item) if each.name != "ignored"} for item in self
        ]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def of(self, *outcomes: Outcome) -> tuple[Result, ...]:
        """The results with one of these outcomes."""
        return tuple(result for result in self.results if result.outcome in outcomes)

    def limits(self) -> dict[str, int]:
        """Today's counts by name of check: limits that this dataset just meets."""
        return {result.check.name: result.count for result in self.results if result.count}

    def summary(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "schema": SCHEMA_VERSION,
            "dataset": self.dataset,
            "pairs": self.pairs,
            "failed": self.failed,
            "not_run": self.not_run,
            "checks": [
                {
                    "code": result.check.code,
                    "name": result.check.name,
                    "outcome": result.outcome,
                    "count": result.count,
                    "limit": result.limit,
                    "found": [
                        {
                            "group": item.group,
                            "says": item.says,
                            "count": item.count,
                            "pairs": list(item.pairs),
                            "ignored": item.ignored,
                        }
                        for item in result.found
                    ],
                }
                for result in self.results
            ],
        }


@opened(reading=Extraction)
def check(
    data: Any,
    model: Any = "builtin",
    *,
    data_only: bool = False,
    fail_on: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
    texts: PreferenceDataset | None = None,
    objective: Objective | None = None,
    learning_rate: float | Literal["auto"] = "auto",
    steps: int = 100,
    split: float = 0.9,
    seed: int = 0,
    progress: bool = True,
    reading: Extraction,
) -> Checked:
    """Look for what should not be in a dataset, and say whether it fails.

    Args:
        data: A PreferenceDataset, anything that `load_dataset` reads (rows that are no pairs are findings), or a
            FeatureSet (then no check of texts is made unless `texts` are given).
        model: As of `audit`; not used with `data_only` or features.
        data_only: Only the checks that need no model.
        fail_on: Names or codes of the checks that fail where they find something beyond their limit; the others warn.
            None: those that fail by themselves.
        ignore: Names or codes of checks that are not to count, or `CODE:GROUP` for one group.
        limits: Pairs (of checks that need a model: groups) that a check may find before it speaks, by name or code.
        texts: With features: the dataset they were made from.
        objective: Of the audit; `DPO(beta=0.1)` if not given.
        learning_rate: Of the audit.
        steps: Of the audit.
        split: Of the audit.
        seed: Of the audit.
        progress: Show bars on stderr where it is a terminal.
        reading: How the model reads the pairs (see `prefdyn.settings.Extraction`); its fields are keywords here, too.

    Returns:
        One result per check; it goes over what was found.

    Raises:
        ConfigError: A check that is named does not exist, or a limit is no whole number.
        DataError: The data cannot be read.

    Example:
        >>> rows = [{"prompt": "Tea or coffee?", "chosen": "Tea.", "rejected": "Coffee."}] * 2
        >>> [item.name for item in check(PreferenceDataset.from_rows(rows), data_only=True)]
        ['copies', 'one-class', 'one-prompt', 'too-small']
    """
    rule = _Rule.of(fail_on, ignore, limits)
    feats, pairs = (data, texts) if isinstance(data, FeatureSet) else (None, data)
    if feats is None and not isinstance(data, PreferenceDataset):
        pairs = load_dataset(data, skip_bad_rows=True, seed=seed)
    if pairs is None and data_only:
        raise ConfigError("data_only looks at texts, which features do not hold; give the dataset")
    found = [] if pairs is None else _of_data(pairs)
    not_run = None
    if not data_only:
        from prefdyn.planning.audit import audit  # what texts alone do not need

        settings: dict[str, Any] = {
            "objective": objective, "learning_rate": learning_rate, "steps": steps, "split": split, "seed": seed,
            "progress": progress, "reading": reading,
        }  # fmt: skip
        try:
            found += _of_audit(audit(pairs if feats is None else feats, model, texts=texts, **settings))
        except DataError as error:
            if not any(result.outcome == "failed" for result in rule.results(found, model=False)):
                raise
            not_run = f"the checks that need a model were not made: {error.typed}"
    model_too = not data_only and not_run is None
    size, name = (len(data), "features") if pairs is None else (len(pairs), pairs.name)
    return Checked(
        results=rule.results(found, model=model_too), dataset=name, pairs=size, not_run=not_run,
        fail_on=tuple(each.name for each in checks() if each.code in rule.fails),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What fails, what does not count, and how much of each is allowed; by code."""

    fails: frozenset[str]
    whole: frozenset[str]
    """Codes that are ignored everywhere."""
    groups: frozenset[tuple[str, str]]
    """Codes that are ignored in a group."""
    limits: Mapping[str, int]

    @classmethod
    def of(cls, fail_on: Sequence[str] | None, ignore: Sequence[str], limits: Mapping[str, float] | None) -> "_Rule":
        fails = [each.code for each in checks() if each.fails]
        if fail_on is not None:
            fails = [named(text, "fail_on").code for text in fail_on]
        allowed = {}
        for text, limit in (limits or {}).items():
            if not 0 <= limit < 1e15 or limit != int(limit):
                raise ConfigError(f"the limit of {shown(text)} is {limit:g}, but must be a whole number, 0 or more")
            allowed[named(text, "limits").code] = int(limit)
        parts = [text.partition(":") for text in ignore]
        whole = frozenset(named(code, "ignore").code for code, _, group in parts if not group)
        groups = frozenset((named(code, "ignore").code, group) for code, _, group in parts if group)
        return cls(fails=frozenset(fails), whole=whole, groups=groups, limits=allowed)

    def results(self, found: Sequence[CheckFinding], *, model: bool) -> tuple[Result, ...]:
        """One per check; those that need a model where there was one."""
        told = []
        for check in checks():
            if check.needs_model and not model:
                continue
            own = tuple(self._marked(item) for item in found if item.code == check.code)
            counted = sum(item.count for item in own if not item.ignored)
            limit = self.limits.get(check.code, 0)
            outcome: Outcome = "passed"
            if check.code in self.whole:
                outcome = "ignored"
            elif counted > limit:
                outcome = "failed" if check.code in self.fails else "warning"
            told.append(Result(check=check, outcome=outcome, found=own, limit=limit))
        return tuple(told)

    def _marked(self, item: CheckFinding) -> CheckFinding:
        ignored = item.code in self.whole or (item.group is not None and (item.code, item.group) in self.groups)
        return replace(item, ignored=True) if ignored else item


def _of_data(pairs: PreferenceDataset) -> list[CheckFinding]:
    """What needs no model."""
    found = _unread(pairs.left_out)
    by_finding = {code: check for check in checks() if not check.needs_model for code in check.finds}
    for item in preflight(pairs):
        if (kind := by_finding.get(item.code)) is not None:
            found.append(
                CheckFinding(
                    code=kind.code, name=kind.name, group=item.group, says=item.says, count=item.count,
                    pairs=item.pairs[:20],
                )
            )  # fmt: skip
    return found


def _unread(rows: Sequence[LeftOut]) -> list[CheckFinding]:
    """Rows that are no pairs, by what is wrong with them."""
    kinds: dict[str, list[LeftOut]] = {}
    for row in rows:
        same, empty = row.reason.startswith(SAME), NO_TEXT in row.reason
        kinds.setdefault("PD001" if same else "PD002" if empty else "PD018", []).append(row)
    found = []
    for code, members in sorted(kinds.items()):
        first = members[0]
        place = "".join(f", {part}" for part in (first.line and f"line {first.line}", first.field) if part)
        says = f"{plural(len(members), 'row')} cannot be used; the first: {first.source}{place}: {first.reason}"
        name = named(code, "code").name
        found.append(CheckFinding(code=code, name=name, group=None, says=says, count=len(members), pairs=()))
    return found


def _of_audit(audited: "Audit") -> list[CheckFinding]:
    """Verdicts per group."""
    by_verdict = {verdict: check for check in checks() if check.needs_model for verdict in check.finds}
    found = []
    for judged in audited.judgements:
        if (kind := by_verdict.get(judged.verdict)) is not None:
            says = f"{judged.because}. {judged.advice}" if judged.because else judged.advice
            if judged.could_be:
                says += f" ({judged.stability:.0%} of resamples say so; else {' or '.join(judged.could_be)}.)"
            found.append(CheckFinding(code=kind.code, name=kind.name, group=judged.name, says=says, count=1, pairs=()))
    return found
