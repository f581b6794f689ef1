"""What an audit found, and the tables that it is told in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from prefdyn._showing import Pictured
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.preflight import CONTRADICTING, NEARLY, Finding
from prefdyn.diagnostics.displacement import Displacement
from prefdyn.diagnostics.labels import LabelCheck
from prefdyn.diagnostics.opposites import Opposites
from prefdyn.diagnostics.orthogonality import Embedding, Orthogonality
from prefdyn.diagnostics.prioritization import PairPushes, Prioritization
from prefdyn.diagnostics.separation import Separation
from prefdyn.diagnostics.slices import Slices
from prefdyn.diagnostics.wording import Wording
from prefdyn.dynamics.order import rank_correlation
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import LOG2
from prefdyn.maths.units import Mean
from prefdyn.planning.answers import Answer, AnswerGround, answers
from prefdyn.planning.bounds import proved_parts
from prefdyn.planning.exact import ExactHead
from prefdyn.planning.group_row import COLUMNS, GroupRow, columns_of
from prefdyn.planning.real_run import RealRun
from prefdyn.planning.summary import (
    header,
    pairs_table,
    plain,
    write_files,
)
from prefdyn.planning.values import DropCheck, PairValues
from prefdyn.planning.verdicts import Evidence, Judgement, Thresholds
from prefdyn.theory.bound import Bound
from prefdyn.trajectory import Trajectory

_SHOWN_PAIRS = 20
_SHOWN_TEXT = {"answers": 400, "responses": 4000}
"""Characters of a text that an example shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Pictured):
    """Everything an audit found. `rows()` gives one row per group, `write(folder)` the files."""

    _FIRST = ("name", "pairs", "units", "verdict", "stability", "cross_fitted_loss", "predicted_rank", "advice")

    data: PreferenceDataset | None
    """None where the audit started from features without texts."""
    features: FeatureSet
    separation: Separation
    prioritization: Prioritization
    orthogonality: Orthogonality
    embedding: Embedding
    wording: Wording | None
    pushes: PairPushes
    displacement: Displacement
    values: PairValues | None
    """What each training pair is worth to held-out pairs; None where none is held out, or the run diverges."""
    dropped: DropCheck | None
    """What leaving out the pairs of lowest and highest value does; None where there are no values, or few pairs."""
    controlled: Mapping[str, np.ndarray]
    """Pushes and values of the pairs, less what length, words and reference explain of them, by name."""
    opposites: Opposites | None
    """Near duplicates with opposite labels; None for one-token answers."""
    labels: LabelCheck | None
    """Which labels the other pairs speak against; None for under 40 pairs."""
    slices: Slices | None
    """Exploratory groups of data that has one group; None where it has several, or too few pairs."""
    exact: ExactHead | None
    """Exact training of the head on a sample; None for one-token answers, whose curves are exact, and where not run."""
    real_run: RealRun | None
    """What a forecast of the real run says beside the verdicts, where one was given."""
    simulation: Trajectory
    bounds: tuple[Bound, ...]
    """What is proved about the simulated run."""
    untrained: Separation | None
    """The same separation for the model's untrained twin, on request."""
    findings: tuple[Finding, ...]
    evidence: tuple[Evidence, ...]
    """What the verdicts rest on."""
    gained_alone: tuple[Mean, ...]
    """By how much each group's held-out loss ends lower in a run of the group by itself, nats."""
    judgements: tuple[Judgement, ...]
    predicted: tuple[GroupRow, ...]
    thresholds: Thresholds
    settings: Mapping[str, Any]
    warnings: tuple[str, ...]
    timings: Mapping[str, float]

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for item in self.judgements:
            counts[item.verdict] = counts.get(item.verdict, 0) + 1
        shown = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items(), key=lambda kv: -kv[1]))
        return f"Audit of {len(self.features)} pairs in {len(self.judgements)} groups: {shown}"

    @property
    def trajectory(self) -> Trajectory:
        """The simulated run."""
        return self.simulation

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What is learned first, what gets worse, which labels to check, what to change, and what cannot be told."""
        feats = self.features
        told = {code: [name for each in self.findings if each.code == code for name in each.pairs] for code in _TOLD}
        found = AnswerGround(
            rows=self.groups,
            evidence=self.evidence,
            gained_alone=self.gained_alone,
            labels=self.labels,
            ids=[str(name) for name in feats.id],
            groups_of=[feats.groups[code] for code in feats.group],
            contradicting=[name for code in CONTRADICTING for name in told[code]],
            nearly=told[NEARLY],
            responses=feats.kind == "responses",
            steps=int(self.settings["steps"]),
        )
        return answers(found, self.thresholds)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group, as in `groups` of summary.json; NaN becomes None."""
        rows = self.groups
        measured = {"words_": self.wording, "length_": self.wording, "reference_": self.wording}
        absent = [stem for stem, part in {**measured, "untrained_": self.untrained}.items() if part is None]
        if all(math.isnan(row.pairs_measured) for row in rows):
            absent.append("pairs_measured")
        columns = [name for name in COLUMNS if not name.startswith(tuple(absent))]
        return [row.to_json(columns) for row in rows]

    def pairs(self) -> pa.Table:
        """One row per pair, as in pairs.parquet."""
        margins = self.simulation.margins
        named: dict[str, list[str]] = {}
        for finding in self.findings:
            for name in finding.pairs:
                named.setdefault(name, []).append(finding.code)
        for match in () if self.opposites is None else self.opposites.rows():
            for name in (match["first"], match["second"]):
                if "opposite" not in (codes := named.setdefault(name, [])):
                    codes.append("opposite")
        return pairs_table(
            self.features,
            agreement=self.pushes.agreement,
            group_agreement=self.pushes.group_agreement,
            chosen_push=self.pushes.chosen_push,
            rejected_push=self.pushes.rejected_push,
            ches=self.displacement.ches,
            margin=margins[max(margins)],
            values=self.values,
            label_score=None if self.labels is None else self.labels.score,
            controlled=self.controlled,
            findings=named,
        )

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        left_out = [] if self.data is None else [item.to_json() for item in self.data.left_out]
        return plain(
            {
                **header(self.features, command="audit", settings=self.settings, left_out=left_out),
                "answers": [each.to_json() for each in self.answers],
                "groups": self.rows(),
                "diagnostics": self._diagnostics(),
                "verdict_thresholds": self.thresholds.rules(),
                "findings": [item.to_json() for item in self.findings],
                "exact": None if self.exact is None else self.exact.to_json(),
                "displacement": None if self.exact is None else self.exact.displacement_json(),
                "labels": None if self.labels is None else self.labels.to_json(),
                "left_out_by_value": None if self.dropped is None else self.dropped.to_json(),
                **({} if self.slices is None else {"slices": self.slices.rows()}),
                **({} if self.real_run is None else {"real_run": self.real_run.to_json()}),
                "examples": self._examples(),
                **proved_parts(self.features, self.simulation, self.bounds),
                "warnings": list(self.warnings),
                "timings": dict(self.timings),
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json, groups.csv, pairs.parquet and trajectory.parquet into an existing folder."""
        write_files(folder, summary=self.summary(), groups=self.rows(), pairs=self.pairs(), run=self.simulation)

    @property
    def groups(self) -> tuple[GroupRow, ...]:
        """One row per group: everything that was measured, foretold and judged of it."""
        rows, by_group = [], self.features.by_group()
        first, moved = self.prioritization.rows(), self.displacement.rows()
        for code, (apart, predicted, judged) in enumerate(
            zip(self.separation.groups, self.predicted, self.judgements, strict=True)
        ):
            further = columns_of(apart.row()) | columns_of(first[code]) | columns_of(moved[code])
            if self.wording is not None:
                further |= columns_of(self.wording.groups[code].row())
            if self.untrained is not None:
                further |= columns_of(self.untrained.groups[code].row(), "untrained_")
            if apart.pairs_used < apart.pairs:
                further["pairs_measured"] = apart.pairs_used
            for side in ("chosen", "rejected"):
                lengths = getattr(self.features, f"{side}_length")[by_group[code]]
                further[f"{side}_tokens"] = float(lengths.mean()) if len(lengths) else math.nan
            further |= {
                "verdict": judged.verdict,
                "verdict_because": judged.because,
                "advice": judged.advice,
                "changes_if": judged.changes_if,
                "stability": judged.stability,
                "could_be": ", ".join(judged.could_be),
            }
            rows.append(replace(predicted, **further))
        return tuple(rows)

    def _diagnostics(self) -> dict[str, Any]:
        shape, cloud = self.orthogonality, self.embedding
        decrease = LOG2 - np.array([row.predicted_final_loss for row in self.predicted])
        return {
            "order": {
                "distinguishability": rank_agreement(
                    np.array([item.distinguishability for item in self.separation.groups]), decrease
                ),
                "priority": rank_agreement(self.prioritization.level, decrease),
            },
            **self._groups_shown(),
            "priority_gap": self.prioritization.gap,
            "influence": {
                "matrix": self.prioritization.influence[:, self.prioritization.shown],
                "unit": "reward margin, first step",
            },
            "cosine": {
                "raw": shape.cosine,
                "raw_without_self": shape.cosine_without_self,
                "centred": shape.cosine_centred,
                "centred_without_self": shape.cosine_centred_without_self,
                "null": shape.null_cosine,
                "raw_mean": shape.raw_off_diagonal_mean,
                "raw_max": shape.raw_off_diagonal_max,
                "centred_mean": shape.centred_off_diagonal_mean,
                "centred_max": shape.centred_off_diagonal_max,
                "rows": shape.rows_used,
            },
            "distances": {"labels": shape.distance_labels, "matrix": shape.distances},
            "geometry": {
                "effective_rank": shape.effective_rank,
                "shared_norm": shape.shared_norm,
                "spread": shape.spread,
            },
            "embedding": {
                "method": cloud.method,
                "explained": cloud.explained,
                "x": np.round(cloud.x, 4),
                "y": np.round(cloud.y, 4),
                "group": cloud.group,
                "positive": cloud.positive,
                "id": cloud.id,
                "of": cloud.of,
            },
        }

    def _groups_shown(self) -> dict[str, Any]:
        """Names of the groups in the matrices, where those are not all."""
        names, codes = self.features.groups, self.prioritization.shown
        return {} if len(codes) == len(names) else {"shown_groups": [names[code] for code in codes]}

    def _examples(self) -> dict[str, Any]:
        """Pairs to look at, with their texts: the first step of all the others goes against them, and so on."""
        lowest = {"at_odds": self.pushes.agreement}
        if self.values is not None:
            lowest["costly"] = self.values.all
        if self.features.kind == "responses" and self.pushes.chosen_push is not None:
            lowest["chosen_falls"] = self.pushes.chosen_push
        rows = {name: _lowest(values) for name, values in lowest.items()}
        place = {str(name): row for row, name in enumerate(self.features.id)}
        asked = [name for each in self.answers if each.kind == "labels" for name in each.pairs]
        rows["labels"] = np.array([place[name] for name in asked if name in place], dtype=np.int64)
        pairs = [] if self.opposites is None else list(zip(self.opposites.first, self.opposites.second, strict=True))
        pairs = pairs[:_SHOWN_PAIRS]
        wanted = [int(row) for places in rows.values() for row in places] + [int(row) for pair in pairs for row in pair]
        shown = self._shown(sorted(set(wanted)))
        found: dict[str, Any] = {name: [shown[int(row)] for row in places] for name, places in rows.items()}
        if self.opposites is not None:
            found["opposites"] = [
                {"cosine": float(cosine), "first": shown[int(one)], "second": shown[int(two)]}
                for (one, two), cosine in zip(pairs, self.opposites.cosine, strict=False)
            ]
            found["looked_at"] = {
                "opposites": self.opposites.looked_at, "of": self.opposites.of, "found": len(self.opposites)
            }  # fmt: skip
        return found

    def _shown(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Row of the features → what is shown of that pair."""
        texts: dict[str, Mapping[str, Any]] = {}
        if self.data is not None:
            wanted = {str(self.features.id[row]) for row in rows}
            mask = [name in wanted for name in self.data.table["id"].to_pylist()]
            texts = {row["id"]: row for row in self.data.table.filter(pa.array(mask)).to_pylist()}
        limit = _SHOWN_TEXT[self.features.kind]
        found = {}
        for row, pair in zip(rows, self.pairs().take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
            text = texts.get(pair["id"], {})
            sides = {side: text.get(side) for side in ("prompt", "chosen", "rejected")}
            found[row] = {
                **{name: pair[name] for name in ("id", "group", "split")},
                **{side: _cut(words, limit) for side, words in sides.items()},
                "cut": any(words is not None and len(words) > limit for words in sides.values()),
                **{name: pair[name] for name in _MEASURED},
            }
        return found


_MEASURED = (
    "agreement", "group_agreement", "chosen_push", "rejected_push", "margin", "chosen_tokens", "rejected_tokens",
    "label_score", "value_own", "value_all", "findings",
)  # fmt: skip


_TOLD = (*CONTRADICTING, NEARLY)
"""Findings that head the labels to check."""


def _lowest(values: np.ndarray) -> np.ndarray:
    """Rows of the lowest values below 0."""
    order = np.argsort(values, kind="stable")[:_SHOWN_PAIRS]
    return order[values[order] < 0]


def rank_agreement(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Spearman and Kendall rank correlation over the groups where both numbers are known; NaN under three groups.

    `low` and `high` are the 95 % interval of Spearman's over groups, `p` and `kendall_p` two-sided by permutation and
    by Kendall's null.

    Example:
        >>> found = rank_agreement(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))
        >>> {name: round(found[name], 6) for name in ("spearman", "p", "kendall", "kendall_p", "groups")}
        {'spearman': 0.8, 'p': 0.333333, 'kendall': 0.666667, 'kendall_p': 0.333333, 'groups': 4}
    """
    known = np.isfinite(first) & np.isfinite(second)
    draws = max(199, min(2000, _RANKED // max(1, int(known.sum()))))
    rank = rank_correlation(first, second, resamples=draws, permutations=5 * draws)
    found = {"spearman": rank.value, "low": rank.low, "high": rank.high, "p": rank.p_value}
    if math.isnan(rank.value):
        return {**found, "kendall": math.nan, "kendall_p": math.nan, "groups": rank.groups}
    kendall: Any = stats.kendalltau(first[known], second[known])
    return {**found, "kendall": float(kendall.statistic), "kendall_p": float(kendall.pvalue), "groups": rank.groups}


_RANKED = 400_000
"""Groups × draws of the interval of a rank correlation, about."""


def _cut(text: str | None, limit: int) -> str | None:
    return text if text is None or len(text) <= limit else text[: limit - 1] + "…"
