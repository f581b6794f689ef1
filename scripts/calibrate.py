"""How often the audit speaks where nothing is there or is silent where something is, and what its intervals hold.

`just calibrate` draws synthetic groups whose truth is known and writes the tables of docs/statistics.md: minutes with
the default number of draws, hours with `--times 10`. Every table is seeded; `--only` makes some of them, `--check`
writes nothing and prints them.
"""

import argparse
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.prioritization import prioritization
from prefdyn.diagnostics.separation import separation
from prefdyn.diagnostics.units import units
from prefdyn.diagnostics.wording import wording
from prefdyn.dynamics.crossfit import crossfit
from prefdyn.dynamics.descent import stable_learning_rate
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.planning.audit import evidence
from prefdyn.planning.verdicts import Judgement, judge

PAGE = Path(__file__).parent.parent / "docs" / "statistics.md"
Table = tuple[Sequence[str], list[list[str]]]


def answers(x: np.ndarray, labels: np.ndarray, group: Any, **more: Any) -> FeatureSet:
    """Two-answer pairs."""
    return FeatureSet.from_arrays(
        x,
        chosen=np.where(labels, "Y", "N"),
        rejected=np.where(labels, "N", "Y"),
        tokens=["Y", "N"],
        group=group,
        **more,
    )


def directions(m: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """A unit vector per group, orthogonal where there is room."""
    drawn = rng.normal(size=(m, d))
    return np.linalg.qr(drawn.T)[0].T[:m] if m <= d else drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def random_labels(kind: str, m: int, n: int, d: int, rng: np.random.Generator) -> FeatureSet:
    """Some groups of pairs whose labels were drawn by lot, once per prompt or ranking."""
    if kind in ("rankings of 4", "best against 3"):
        chosen, rejected, prompts = [], [], []
        for prompt in range(m * (n // (6 if kind == "rankings of 4" else 3))):
            replies, order = rng.normal(size=(4, d)), rng.permutation(4)
            couples = (
                [(a, b) for a in range(4) for b in range(a + 1, 4)]
                if kind == "rankings of 4"
                else [(0, b) for b in (1, 2, 3)]
            )
            chosen += [replies[order[a]] for a, _ in couples]
            rejected += [replies[order[b]] for _, b in couples]
            prompts += [prompt] * len(couples)
        per_group = len(prompts) // m
        return FeatureSet.from_arrays(
            np.array(chosen) - np.array(rejected),
            chosen_features=np.array(chosen),
            rejected_features=np.array(rejected),
            group=np.repeat(np.arange(m), per_group),
            text=prompts,
        )
    copies = {"copies ×5": 5, "framings ×5, not told": 5, "paraphrases ×2, not told": 2}.get(kind, 1)
    states, labels, prompts = [], [], []
    for group in range(m):
        drawn = rng.standard_t(2, size=(n // copies, d)) if kind == "heavy tails" else rng.normal(size=(n // copies, d))
        if kind == "few directions":
            drawn = drawn * np.arange(1, d + 1) ** -0.5
        told = rng.permutation(np.arange(n // copies) % (5 if kind == "20/80" else 2) == 0)
        near = 0.0 if kind == "copies ×5" else 0.2
        states.append(
            np.repeat(drawn, copies, axis=0) + (near * rng.normal(size=(n // copies * copies, d)) if copies > 1 else 0)
        )
        labels.append(np.repeat(told, copies))
        prompts.append(np.repeat(np.arange(n // copies), copies) + group * n)
    known = {"text": np.concatenate(prompts)} if kind == "copies ×5" else {}
    group = np.repeat(np.arange(m), [len(part) for part in labels])
    return answers(np.concatenate(states) + 5 * rng.normal(size=d), np.concatenate(labels), group, **known)


def false_alarms(times: int) -> Table:
    """Groups with labels by lot: how often is one said to hold something?"""
    rows = []
    for kind in (
        "independent",
        "20/80",
        "heavy tails",
        "few directions",
        "copies ×5",
        "framings ×5, not told",
        "paraphrases ×2, not told",
        "rankings of 4",
        "best against 3",
    ):
        groups = audits = 0
        m, n, d = 12, 120, 64
        for draw in range(times):
            feats = random_labels(kind, m, n, d, np.random.default_rng([draw, 1]))
            spoke = [group.signal_p <= 0.05 for group in separation(feats, bootstraps=1, seed=draw).groups]
            groups, audits = groups + sum(spoke), audits + any(spoke)
        rows.append([kind, f"{m} × {n}", share(groups, times * m), share(audits, times)])
    return [
        "labels by lot, per prompt or ranking",
        "groups × pairs",
        "groups that speak",
        "audits in which any does",
    ], rows


def power(times: int) -> Table:
    """One true gap, equal classes and unequal ones with as many pairs in the smaller class."""
    rows = []
    for least, gap in ((20, 1.5), (40, 1.2), (100, 0.9)):
        for part in (0.5, 0.2, 0.1):
            n, found, d, m = round(least / part), 0, 64, 4
            for draw in range(times):
                rng = np.random.default_rng([draw, 2, n])
                labels = np.concatenate([rng.permutation(np.arange(n) < least) for _ in range(m)])
                along = directions(m, d, rng)[np.repeat(np.arange(m), n)]
                x = rng.normal(size=(m * n, d)) + (labels[:, None] - 0.5) * gap * along + 3
                feats = answers(x, labels, np.repeat(np.arange(m), n))
                found += sum(group.signal_p <= 0.05 for group in separation(feats, bootstraps=1, seed=draw).groups)
            rows.append(
                [str(least), f"{gap:g}", f"{100 * part:.0f}/{100 - 100 * part:.0f}", str(n), share(found, times * m)]
            )
    return ["pairs in the smaller class", "true gap, sd", "classes, %", "pairs", "groups found"], rows


def coverage(times: int) -> Table:
    """95 % intervals of one group's figures against their true value, or their mean over all draws."""
    rows = []
    for n, d, gap, copies, part in (
        (20, 64, 2.0, 1, 0.5),
        (60, 64, 2.0, 1, 0.5),
        (200, 64, 1.0, 1, 0.5),
        (200, 64, 2.0, 5, 0.5),
        (200, 64, 2.0, 1, 0.1),
        (200, 640, 2.0, 1, 0.5),
        (1000, 64, 1.0, 1, 0.5),
    ):
        along = directions(1, d, np.random.default_rng(7))[0]
        figures: dict[str, list[tuple[float, float, float]]] = {}
        draws = max(20, times if n * d < 100_000 else times // 4)
        for draw in range(draws):
            rng = np.random.default_rng([draw, 3, n, d])
            count = n // copies
            labels = np.repeat(rng.permutation(np.arange(count) < max(2, round(part * count))), copies)
            x = math.sqrt(0.8 if copies > 1 else 1) * np.repeat(rng.normal(size=(count, d)), copies, axis=0)
            x = (
                x
                + (math.sqrt(0.2) * rng.normal(size=x.shape) if copies > 1 else 0)
                + (labels[:, None] - 0.5) * gap * along
            )
            feats = answers(x, labels, ["a"] * len(labels), cluster=np.repeat(np.arange(count), copies))
            group = separation(feats, permutations=1, seed=draw).groups[0]
            add(figures, "distance", gap, group.interval)
            add(figures, "probe", group.probe_accuracy, group.probe_interval)
            add(figures, "area", group.auc, group.auc_interval)
            cross = crossfit(
                feats, DPO(), feats.cluster, learning_rate=stable_learning_rate(feats, DPO()), steps=50, seed=draw
            )
            every = np.arange(len(feats))
            for name, mean in (("loss", cross.mean(every)), ("area under loss", cross.mean(every, "area"))):
                reach = 1.96 * mean.error
                add(figures, name, mean.value, (mean.value - reach, mean.value + reach))
        held = []
        for name in ("distance", "probe", "area", "loss", "area under loss"):
            measured, low, high = np.array(figures[name]).T
            truth = gap if name == "distance" else measured.mean()
            held.append(f"{100 * np.mean((low <= truth) & (truth <= high)):.0f}")
        rows.append(
            [str(n), str(d), f"{gap:g}", str(copies), f"{100 * part:.0f}/{100 - 100 * part:.0f}", *held, str(draws)]
        )
    return [
        "pairs",
        "width",
        "true gap, sd",
        "pairs per unit",
        "classes, %",
        "distance",
        "probe",
        "area",
        "loss",
        "area under loss",
        "draws",
    ], rows


def priorities(times: int) -> Table:
    """95 % intervals of priority levels against the true ones, of groups that pull one way or each its own."""
    rows = []
    for what, n, d, gaps in (
        ("orthogonal", 200, 64, (2.0, 2.0, 2.0, 2.0, 2.0)),
        ("one", 200, 64, (2.0, 2.0, 2.0, 2.0, 2.0)),
        ("partly shared", 20, 64, (3.0, 2.0, 1.0, 1.0, 0.0)),
        ("partly shared", 60, 64, (3.0, 2.0, 1.0, 1.0, 0.0)),
        ("partly shared", 200, 640, (3.0, 2.0, 1.0, 1.0, 0.0)),
        ("partly shared", 1000, 64, (3.0, 2.0, 1.0, 1.0, 0.0)),
    ):
        m = len(gaps)
        along = directions(m, d, np.random.default_rng(7))
        if what != "orthogonal":
            along = along + along[0] if what == "partly shared" else np.repeat(along[:1], m, axis=0)
        pulls = along / np.linalg.norm(along, axis=1, keepdims=True) * np.array(gaps)[:, None]
        mean = pulls.mean(axis=0)
        truth = pulls @ mean / np.linalg.norm(mean) / np.linalg.norm(pulls, axis=1).max()
        held, level, width = np.zeros(m), np.zeros(m), []
        draws = max(20, times if n * d < 100_000 else times // 4)
        for draw in range(draws):
            rng = np.random.default_rng([draw, 5, n, d])
            labels = np.concatenate([rng.permutation(np.arange(n) % 2 == 0) for _ in range(m)])
            group = np.repeat(np.arange(m), n)
            x = rng.normal(size=(m * n, d)) + (labels[:, None] - 0.5) * pulls[group] + 3
            found = prioritization(answers(x, labels, group), unit=np.arange(m * n))
            held += (found.interval[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= found.interval[:, 1])
            level += found.level
            width.append(np.diff(found.interval)[-1, 0])
        shares, told = 100 * held / draws, ", ".join(f"{gap:g}" for gap in gaps)
        rows.append(
            [what, f"{m} × {n}", str(d), told, f"{shares.min():.0f} to {shares.max():.0f}",
             f"{truth[-1]:.2f}", f"{level[-1] / draws:.2f}", f"{np.median(width):.2f}", str(draws)]
        )  # fmt: skip
    return [
        "directions", "groups × pairs", "width", "true gaps, sd", "held, over the groups", "last group: true level",
        "mean level of the pairs at hand", "median width of the interval", "draws",
    ], rows  # fmt: skip


def add(
    figures: dict[str, list[tuple[float, float, float]]], name: str, value: float, ends: tuple[float, float]
) -> None:
    """Keep one figure and its interval."""
    figures.setdefault(name, []).append((value, *ends))


def judged(
    feats: FeatureSet, draw: int, data: PreferenceDataset | None = None, *, resamples: int = 0
) -> tuple[Judgement, ...]:
    """What an audit of features says of each group, without what it does not say it by; with their texts, if given."""
    unit, rate = units(feats), stable_learning_rate(feats, DPO())
    apart = separation(feats, unit=unit, bootstraps=1, seed=draw)
    cross = crossfit(feats, DPO(), unit, learning_rate=rate, steps=100, seed=draw)
    priority = prioritization(feats, beta=0.1, learning_rate=rate)
    words = None if data is None else wording(data, feats, unit=unit, seed=draw)
    return judge(evidence(feats, apart, priority, cross, words), resamples=resamples, seed=draw)


def equal_groups(times: int) -> Table:
    """Groups that differ in nothing, or in nothing but the direction of their gap: what is said of their order?"""
    rows = []
    for what, m, n, gap in (
        ("parts of one behaviour", 9, 60, 3.0),
        ("parts of one behaviour", 9, 200, 3.0),
        ("parts of one behaviour", 9, 200, 1.0),
        ("parts of one behaviour", 3, 200, 2.0),
        ("orthogonal, of equal strength", 9, 100, 3.0),
        ("orthogonal, of equal strength", 9, 400, 3.0),
    ):
        ordered, said = 0, Counter[str]()
        for draw in range(times):
            rng = np.random.default_rng([draw, 4, n, m])
            labels = np.concatenate([rng.permutation(np.arange(n) % 2 == 0) for _ in range(m)])
            group = np.repeat(np.arange(m), n)
            along = np.repeat(directions(1, 64, rng), m, axis=0) if what.startswith("parts") else directions(m, 64, rng)
            x = rng.normal(size=(m * n, 64)) + (labels[:, None] - 0.5) * gap * along[group]
            verdicts = [item.verdict for item in judged(answers(x, labels, group), draw)]
            said.update(verdicts)
            ordered += any(name in ("early", "middle", "late") for name in verdicts)
        wrong = sum(said[name] for name in ("conflicting", "left behind", "memorised"))
        rows.append([what, f"{m} × {n}", f"{gap:g}", share(ordered, times), share(wrong, times * m)])
    return [
        "groups equal in law",
        "groups × pairs",
        "true gap, sd",
        "audits that name an early, middle or late one",
        "groups called conflicting, left behind or memorised",
    ], rows


def share(count: int, of: int) -> str:
    """A percentage with its 95 % interval's half-width."""
    part = count / of
    return f"{100 * part:.1f} ± {100 * norm.isf(0.025) * math.sqrt(max(part * (1 - part), 0.25 / of) / of):.1f} %"


TABLES: dict[str, tuple[Callable[[int], Table], int]] = {
    "false alarms": (false_alarms, 60),
    "power": (power, 25),
    "coverage": (coverage, 200),
    "priority": (priorities, 200),
    "equal groups": (equal_groups, 40),
}


def lines(table: Table) -> Iterator[str]:
    """A Markdown table."""
    head, rows = table
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def put(name: str, text: str) -> None:
    """Put a table where the page has its name."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(\n?<!-- end -->)", re.DOTALL)
    PAGE.write_text(marked.sub(lambda found: f"{found[1]}{text}\n<!-- end -->", PAGE.read_text()))


def main() -> None:
    """Make the tables and put them into their page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=1.0, help="draws, as a multiple of the default")
    parser.add_argument("--only", choices=list(TABLES), action="append", help="this table alone")
    parser.add_argument("--check", action="store_true", help="print, and leave the page as it is")
    given = parser.parse_args()
    for name in given.only or TABLES:
        make, draws = TABLES[name]
        start = time.perf_counter()
        text = "\n".join(lines(make(max(1, round(draws * given.times)))))
        print(f"## {name} ({time.perf_counter() - start:.0f} s)\n\n{text}\n", flush=True)
        if not given.check:
            put(name, text)


if __name__ == "__main__":
    main()
