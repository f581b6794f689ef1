"""What is wrong or odd about a dataset before any model sees it, in plain words."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from prefdyn._shape import of_many
from prefdyn.data.bad_rows import shown
from prefdyn.data.codes import Codes
from prefdyn.data.contradictions import ANSWER_LENGTH, Contradictions, contradictions
from prefdyn.data.hh import ASSISTANT, HUMAN
from prefdyn.data.names import alike, told_apart
from prefdyn.data.pairs import HELD_OUT, PreferenceDataset

Severity = Literal["problem", "warning", "note"]

SMALL = 20
"""A group with fewer pairs is too small for any claim."""
UNEQUAL = 10
"""Groups whose sizes differ by this factor or more are of very different size."""
NEAR_SHOWN = 4
"""Groups that the finding about near duplicates names."""
SPELLINGS = 8
"""Names that look alike, of which a finding shows so many."""
SLOT = 3.0
"""Standard errors, of whole clusters, from which the first of two places is preferred more, or less, than by chance."""


_READ: tuple[tuple[str, Severity, str, str, str], ...] = (
    ("repeated_ids", "warning", "repeated_ids", "pair", "have an id that another one has, and got an id of their own."),
    (
        "scores_against", "warning", "scores_against", "pair",
        "whose rejected response has the higher score: the scores and the labels disagree.",
    ),
    ("scores_equal", "note", "scores_equal", "pair", "whose two responses have the same score."),
    ("ties", "note", "ties", "tie", "left out: neither response is better."),
    (
        "divided_votes", "note", "divided", "pair",
        "decided by most of the votes, not by all of them; their share is the agreement.",
    ),
    (
        "shared_best", "note", "shared_best", "row",
        "with several best or worst responses, of which the first one was taken.",
    ),
)  # fmt: skip
"""What may have become of rows: code, severity, count of `Intake`, what is counted, and what became of them."""

CONTRADICTING = ("conflict", "ring", "opposed_groups")
"""Findings of pairs that cannot all be right,"""
NEARLY = "near_conflict"
"""and of those that nearly contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or odd."""

    code: str
    """Stable name, such as `duplicate`."""
    severity: Severity
    """`problem`: results on these pairs mean nothing or mislead. `warning`: likely a mistake. `note`: good to know."""
    group: str | None
    """The group it is about; None where it is about several or all."""
    says: str
    """One plain sentence."""
    pairs: tuple[str, ...]
    """Ids of the pairs concerned; empty where the finding is about a group's size or the dataset as a whole."""
    count: int
    """How many pairs are concerned."""

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary, with the first 20 ids."""
        return {
            "code": self.code,
            "severity": self.severity,
            "group": self.group,
            "says": self.says,
            "count": self.count,
            "pairs": list(self.pairs[:20]),
        }


def preflight(data: PreferenceDataset, contradicted: Contradictions | None = None) -> tuple[Finding, ...]:
    """Look a dataset over; problems first, then warnings, then notes, in each what contradicts itself first.

    `contradicted`: what `contradictions` found, where it is known already.

    Findings: `equal_responses`, `empty_response`, `conflict`, `ring`, `leak`, `one_class` (problems); `empty_prompt` (a
    problem where most are), `cut_dialogue`,
    `duplicate`, `space_only`, `spelling`, `too_small`, `one_prompt`, `not_held_out`, `not_trained`,
    `opposed_groups`, `near_leak`, `near_opposed`, `slot_effect`, `scores_against`, `repeated_ids`,
    `unequal_sizes`, `alike_groups`, `left_out` (warnings); `shared_prompt`, `near_duplicates`, `near_conflict`,
    `both_ways`, `layout`, `ties`, `divided_votes`, `shared_best`, `scores_equal`, `reading` (notes).

    Example:
        >>> rows = [{"prompt": "a", "chosen": "x", "rejected": "y"}, {"prompt": "a", "chosen": "y", "rejected": "x"}]
        >>> [finding.code for finding in preflight(PreferenceDataset.from_rows(rows))][:2]
        ['conflict', 'too_small']
    """
    look = _Look(data, contradicted)
    found = [
        *look.responses(),
        *look.prompts(),
        *look.repeats(),
        *look.turned(),
        *look.rings(),
        *look.across(),
        *look.sides(),
        *look.near(),
        *look.slots(),
        *look.groups(),
        *look.names(),
        *look.readings(),
        *look.rest(),
    ]
    order = ("problem", "warning", "note")
    return tuple(
        sorted(found, key=lambda finding: (order.index(finding.severity), finding.code not in (*CONTRADICTING, NEARLY)))
    )


def plural(count: int, noun: str = "pair") -> str:
    """A count with its noun.

    Example:
        >>> plural(1), plural(1200, "group")
        ('1 pair', '1,200 groups')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class _Look:
    """The codes of one dataset, computed once, and the questions asked of them."""

    def __init__(self, data: PreferenceDataset, contradicted: Contradictions | None) -> None:
        self.contradicted = contradicted
        self.data, self.table, self.codes = data, data.table, Codes.of(data.table)
        self.ids = np.array(self.table["id"].to_pylist(), dtype=object)
        self.n = len(data)

    def finding(self, code: str, severity: Severity, says: str, rows: np.ndarray, group: str | None = None) -> Finding:
        """A finding about these rows; its group is the one that holds them all."""
        own = np.unique(self.codes.group[rows])
        if group is None and len(own) == 1 and len(self.codes.groups) > 1:
            group = self.codes.groups[own[0]]
        return Finding(
            code=code, severity=severity, group=group, says=says, pairs=tuple(self.ids[rows].tolist()), count=len(rows)
        )

    def responses(self) -> Iterator[Finding]:
        """Responses that are equal, empty, or differ in blanks alone, and answers spelt in two ways."""
        c = self.codes
        rows = np.flatnonzero(c.chosen == c.rejected)
        if len(rows):
            says = f"{plural(len(rows))} with chosen equal to rejected: nothing can be learned from such a pair."
            yield self.finding("equal_responses", "problem", says, rows)
        stripped = [text.strip() for text in c.responses]
        empty = np.array([not text for text in stripped], dtype=bool)
        if empty.any():
            rows = np.flatnonzero(empty[c.chosen] | empty[c.rejected])
            yield self.finding("empty_response", "problem", f"{plural(len(rows))} with an empty response.", rows)
        number: dict[str, int] = {}
        same = np.array([number.setdefault(text, len(number)) for text in stripped], dtype=np.int64)
        rows = np.flatnonzero((c.chosen != c.rejected) & (same[c.chosen] == same[c.rejected]) & ~empty[c.chosen])
        if len(rows):
            says = f"{plural(len(rows))} whose chosen and rejected differ only in leading or trailing blanks."
            yield self.finding("space_only", "warning", says, rows)
        uses_of = np.bincount(np.r_[c.chosen, c.rejected], minlength=len(same))
        by_use = np.argsort(np.r_[c.chosen, c.rejected], kind="stable")
        ends = np.r_[0, np.cumsum(uses_of)]
        for ways in _alike(same):
            if empty[ways[0]] or len(stripped[ways[0]]) > ANSWER_LENGTH:
                continue
            uses = uses_of[ways]
            rare = ways[np.argsort(-uses, kind="stable")][1:]
            rows = np.unique(np.concatenate([by_use[ends[way] : ends[way + 1]] for way in rare]) % max(self.n, 1))
            spellings = ", ".join(f"{c.responses[way]!r} {use:,} times" for way, use in zip(ways, uses, strict=True))
            says = (
                f"One answer is spelt in {len(ways)} ways that differ in blanks ({spellings}): the tokens differ too."
            )
            yield self.finding("spelling", "warning", says, rows)

    def prompts(self) -> Iterator[Finding]:
        """Prompts that are empty, or dialogues that do not end where the answer begins."""
        blank = np.array([not text.strip() for text in self.codes.prompts], dtype=bool)
        rows = np.flatnonzero(blank[self.codes.prompt])
        if len(rows):
            says = f"{plural(len(rows))} with an empty prompt: the model would answer nothing in particular."
            yield self.finding("empty_prompt", "problem" if 2 * len(rows) > self.n else "warning", says, rows)
        dialogue = np.asarray(pc.match_substring(self.table["prompt"], HUMAN))
        if dialogue.any():
            ends = np.asarray(pc.ends_with(pc.utf8_rtrim_whitespace(self.table["prompt"]), ASSISTANT.strip()))
            rows = np.flatnonzero(dialogue & ~ends)
            if len(rows):
                says = (
                    f"{plural(len(rows))} with a dialogue as prompt that does not end with 'Assistant:': it may hold "
                    "part of the answers; read HH-RLHF files as hh:PATH."
                )
                yield self.finding("cut_dialogue", "warning", says, rows)

    def repeats(self) -> Iterator[Finding]:
        """The same pair twice in a group, and the same pair with the preference turned round."""
        c = self.codes
        low, high = np.minimum(c.chosen, c.rejected), np.maximum(c.chosen, c.rejected)
        unordered = _code(c.group, c.prompt, low, high)
        turned = (c.chosen > c.rejected).astype(np.int64)
        same = _code(unordered, turned)
        counts = np.bincount(same)
        rows = np.flatnonzero(counts[same] > 1)
        if len(rows):
            surplus = int((counts - 1)[counts > 1].sum())
            says = f"{plural(surplus)} repeat another of the same group (all three texts equal), so these count twice."
            yield self.finding("duplicate", "warning", says, rows)
        kinds = np.bincount(unordered[np.unique(same, return_index=True)[1]])
        rows = np.flatnonzero((kinds[unordered] > 1) & (c.chosen != c.rejected))
        if len(rows):
            says = (
                f"{plural(len(rows))} contradict another of the same group: same prompt, chosen and rejected swapped."
            )
            yield self.finding("conflict", "problem", says, rows)

    def turned(self) -> Iterator[Finding]:
        """Near-equal pairs that contradict each other, and long responses that are chosen here and rejected there."""
        found = self.contradicted or contradictions(self.data, self.codes)
        if len(found.near):
            says = (
                f"{plural(len(found.near))} nearly contradict another: nearly the same prompt and responses, chosen "
                "and rejected swapped; look whether what differs decides."
            )
            yield self.finding("near_conflict", "note", says, found.near)
        if len(found.both_ways):
            texts = set(self.codes.chosen[found.both_ways].tolist()) & set(
                self.codes.rejected[found.both_ways].tolist()
            )
            says = (
                f"{plural(len(texts), 'longer response')} in {plural(len(found.both_ways))} are chosen for one prompt "
                "and rejected for another."
            )
            yield self.finding("both_ways", "note", says, found.both_ways)

    def rings(self) -> Iterator[Finding]:
        """Preferences for one prompt that go round: A over B, B over C, C over A, in one group or over several."""
        c = self.codes
        text = len(c.responses)
        ends = np.unique(np.concatenate([c.prompt * text + c.chosen, c.prompt * text + c.rejected]))
        better, worse = (np.searchsorted(ends, c.prompt * text + side) for side in (c.chosen, c.rejected))
        edge, back = better * len(ends) + worse, worse * len(ends) + better
        rows = np.flatnonzero(~np.isin(edge, back))  # those that are turned round elsewhere are told as such
        graph = coo_array((np.ones(len(rows)), (better[rows], worse[rows])), shape=(len(ends), len(ends)))
        _, part = connected_components(graph.tocsr(), connection="strong")
        rows = rows[part[better[rows]] == part[worse[rows]]]
        if len(rows):
            count = len(np.unique(c.prompt[rows]))
            says = (
                f"{plural(len(rows))} go round in a ring for {plural(count, 'prompt')}: one response is better than "
                "another, that one than a third, and the third than the first; no order of the responses agrees."
            )
            yield self.finding("ring", "problem", says, rows)

    def across(self) -> Iterator[Finding]:
        """One prompt in several groups, with the same or the opposite preference."""
        c = self.codes
        if len(c.groups) < 2:
            return
        _, first = np.unique(_code(c.prompt, c.group), return_index=True)
        homes = np.bincount(c.prompt[first], minlength=len(c.prompts))
        rows = np.flatnonzero(homes[c.prompt] > 1)
        if not len(rows):
            return
        shared = int((homes > 1).sum())
        says = f"{plural(shared, 'prompt')} occur in several groups; each stays on one side of the split."
        yield self.finding("shared_prompt", "note", says, rows)
        low, high = np.minimum(c.chosen, c.rejected), np.maximum(c.chosen, c.rejected)
        rows = self._opposed(_code(c.prompt, low, high))
        if len(rows):
            names = sorted({c.groups[code] for code in np.unique(c.group[rows])})
            says = f"{plural(len(rows))} prefer what another group rejects for the same prompt ({of_many(names, 4)})."
            yield self.finding("opposed_groups", "warning", says, rows)

    def sides(self) -> Iterator[Finding]:
        """Prompts on both sides of the split, and groups with nothing held out."""
        held = np.asarray(pc.equal(self.table["split"], HELD_OUT))
        if not held.any():
            return
        c = self.codes
        both = np.intersect1d(c.prompt[held], c.prompt[~held])
        both = both[[bool(c.prompts[code].strip()) for code in both.tolist()]]  # no prompt says nothing
        rows = np.flatnonzero(np.isin(c.prompt, both))
        if len(rows):
            says = (
                f"{plural(len(both), 'prompt')} stand on both sides of the split: held-out figures would be too good."
            )
            yield self.finding("leak", "problem", says, rows)
        for code, members in enumerate(c.members()):
            for side, none in ((held[members], "held out"), (~held[members], "to train on")):
                if not side.any():
                    says = f"Group {shown(c.groups[code])} has no pair {none}: nothing can be said of that side."
                    yield Finding(
                        code="not_held_out" if none == "held out" else "not_trained",
                        severity="warning",
                        group=c.groups[code],
                        says=says,
                        pairs=(),
                        count=len(members),
                    )

    def near(self) -> Iterator[Finding]:
        """Prompts that are near duplicates: in which groups, across the split, and with opposite preferences."""
        c, near = self.codes, self.data.clusters.near
        if not self.n:
            return
        texts = self.data.clusters.prompts(c.prompt)
        rows = np.flatnonzero(texts[near] > 1)
        if not len(rows):
            return
        clusters = int((texts > 1).sum())
        by_group = np.bincount(c.group[rows], minlength=len(c.groups))
        order = np.argsort(-by_group, kind="stable")
        some = [f"{c.groups[code]} {by_group[code]:,}" for code in order[:NEAR_SHOWN].tolist() if by_group[code]]
        more = int((by_group > 0).sum()) - len(some)
        where = "" if len(c.groups) == 1 else f" ({', '.join(some)}{f' and {more} more groups' if more else ''})"
        says = (
            f"{plural(len(rows))} have a prompt that another one nearly repeats, in {plural(clusters, 'cluster')}"
            f"{where}; each cluster stays on one side of the split, and counts as one."
        )
        yield self.finding("near_duplicates", "note", says, rows)
        held = np.asarray(pc.equal(self.table["split"], HELD_OUT))
        sides = [np.bincount(near[held == side], minlength=len(texts)) > 0 for side in (False, True)]
        prompts = [np.bincount(c.prompt[held == side], minlength=len(c.prompts)) > 0 for side in (False, True)]
        alone = ~(prompts[0] & prompts[1])  # a prompt that is itself on both sides is told as such
        rows = np.flatnonzero((sides[0] & sides[1] & (texts > 1))[near] & alone[c.prompt])
        if len(rows):
            says = (
                f"{plural(len(rows))} have a prompt that another one on the other side of the split nearly repeats: "
                "held-out figures would be too good."
            )
            yield self.finding("near_leak", "warning", says, rows)
        low, high = np.minimum(c.chosen, c.rejected), np.maximum(c.chosen, c.rejected)
        rows = self._opposed(_code(near, low, high))
        exact = self._opposed(_code(c.prompt, low, high))
        rows = np.setdiff1d(rows, exact)
        if len(rows):
            names = sorted({c.groups[code] for code in np.unique(c.group[rows])})
            whose = of_many(names, 4)
            says = f"{plural(len(rows))} prefer what another group rejects for nearly the same prompt ({whose})."
            yield self.finding("near_opposed", "warning", says, rows)

    def _opposed(self, unordered: Int[np.ndarray, " n"]) -> Int[np.ndarray, " rows"]:
        """Pairs of a class whose two responses are preferred in one way in one group and the other way in another."""
        c = self.codes
        turned = c.chosen > c.rejected
        homes = np.bincount(unordered[np.unique(_code(unordered, c.group), return_index=True)[1]])
        ways = [np.bincount(unordered[turned == way], minlength=len(homes)) for way in (False, True)]
        against = (ways[0] > 0) & (ways[1] > 0) & (homes > 1)
        return np.flatnonzero(against[unordered] & (c.chosen != c.rejected))

    def slots(self) -> Iterator[Finding]:
        """Whether the response in the first place is preferred, whatever it says."""
        slot = np.asarray(self.table["slot"].fill_null(0))
        rows = np.flatnonzero(slot > 0)
        if not len(rows):
            return
        lead = np.where(slot[rows] == 1, 0.5, -0.5)
        sums = np.bincount(self.data.clusters.of[rows], weights=lead)
        error = float(np.sqrt((sums**2).sum()))
        first = int((lead > 0).sum())
        if error and abs(lead.sum()) / error >= SLOT:
            says = (
                f"The first of the two places is preferred in {first:,} of {plural(len(rows))} ({first / len(rows):.0%}"
                "), which is not by chance: where a response stood decides, or what stood where."
            )
            yield self.finding("slot_effect", "warning", says, rows)

    def readings(self) -> Iterator[Finding]:
        """What became of the rows that the pairs came from, and how they were read."""

        def told(code: str, severity: Severity, says: str, count: int) -> Finding:
            return Finding(code=code, severity=severity, group=None, says=says, pairs=(), count=count)

        every = self.data.readings
        for layout, columns in dict.fromkeys((item.layout, item.columns) for item in every if item.layout is not None):
            pairs = sum(item.pairs for item in every if (item.layout, item.columns) == (layout, columns))
            how = f"as {layout} lays them out" if layout != "--columns" else "as --columns says"
            yield told("layout", "note", f"{plural(pairs)} are read {how}{f': {columns}' if columns else ''}.", pairs)
        for code, severity, name, noun, says in _READ:
            if count := sum(getattr(item, name) for item in every):
                yield told(code, severity, f"{plural(count, noun)} {says}", count)
        for note in dict.fromkeys(note for item in every for note in item.notes):
            yield told("reading", "note", note, 0)

    def groups(self) -> Iterator[Finding]:
        """Groups that are too small, hold one class or one prompt, and groups of very different size."""
        c = self.codes
        members = c.members() if self.n else []
        for name, rows in zip(c.groups, members, strict=True):
            if len(rows) < SMALL:
                says = f"Group {shown(name)} has {plural(len(rows))}, fewer than {SMALL}: no claim is made about it."
                yield self.finding("too_small", "warning", says, rows, name)
            answers = c.answers(rows)
            if answers and len(rows) > 1 and 0 in (answers.first_chosen, answers.second_chosen):
                always = answers.first if answers.first_chosen else answers.second
                says = f"Group {shown(name)} always prefers {always!r}: always to say so is all there is to learn."
                yield self.finding("one_class", "problem", says, rows, name)
            if len(rows) > 1 and (c.prompt[rows] == c.prompt[rows[0]]).all() and c.prompts[c.prompt[rows[0]]].strip():
                says = (
                    f"Group {shown(name)} has one prompt for all of its {len(rows):,} pairs, so none can be held out."
                )
                yield self.finding("one_prompt", "warning", says, rows, name)
        sizes = [len(rows) for rows in members]
        if len(sizes) > 1 and max(sizes) >= UNEQUAL * min(sizes):
            large, small = c.groups[int(np.argmax(sizes))], c.groups[int(np.argmin(sizes))]
            says = (
                f"Groups differ much in size: {shown(large)} has {plural(max(sizes))}, {shown(small)} {min(sizes):,}; "
                "in a joint run the large ones decide."
            )
            yield Finding(code="unequal_sizes", severity="warning", group=None, says=says, pairs=(), count=self.n)

    def names(self) -> Iterator[Finding]:
        """Groups whose names are the same but for case, form of writing or characters that nobody sees."""
        sizes = np.bincount(self.codes.group, minlength=len(self.codes.groups)) if self.n else []
        size = dict(zip(self.codes.groups, np.asarray(sizes).tolist(), strict=True))
        places = {name: code for code, name in enumerate(self.codes.groups)}
        for same in alike(self.codes.groups):
            each = [f"{name} ({plural(size[key])})" for name, key in zip(told_apart(same), same, strict=True)]
            listed = ", ".join(each[:SPELLINGS]) + (f" and {len(each) - SPELLINGS} more" if each[SPELLINGS:] else "")
            says = (
                f"{len(same)} groups have names that look alike: {listed}; if they are one group, give it one name, "
                "else names that can be told apart."
            )
            rows = np.flatnonzero(np.isin(self.codes.group, [places[name] for name in same]))
            yield self.finding("alike_groups", "warning", says, rows)

    def rest(self) -> Iterator[Finding]:
        """Rows that were left out while loading."""
        count = len(self.data.left_out)
        if count:
            says = f"{plural(count, 'row')} could not be used and {'was' if count == 1 else 'were'} left out."
            yield Finding(code="left_out", severity="warning", group=None, says=says, pairs=(), count=count)


def _alike(codes: Int[np.ndarray, " k"]) -> Iterator[Int[np.ndarray, " part"]]:
    """Places of codes that occur more than once, those of one code together, in the order of the codes."""
    order = np.argsort(codes, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if len(places) > 1:
            yield places


def _code(*columns: np.ndarray) -> Int[np.ndarray, " n"]:
    """Small integers, equal where all columns are equal."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        width = int(column.max(initial=0)) + 1
        _, code = np.unique(code * width + column, return_inverse=True)
    return code
