"""The verdict per group: rules in a fixed order, the first that holds, with every threshold in one place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prefdyn.maths.objectives import LOG2

Verdict = Literal[
    "too few",
    "noise",
    "giveaway",
    "trivial",
    "conflicting",
    "left behind",
    "memorised",
    "early",
    "middle",
    "late",
    "learned",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Numbers that the rules compare with. Set before any run that they judge."""

    few_pairs: int = 20
    """Under this many pairs no claim is made."""
    null_p: float = 0.05
    """Above this p, adjusted for the number of groups, the labels look random."""
    giveaway_accuracy: float = 0.9
    """From this held-out accuracy on, by length alone, length counts as given away."""
    trivial_accuracy: float = 0.98
    """From this held-out accuracy on, by the model and by words alone, there is little left to learn."""
    left_behind_share: float = 0.25
    """Share of the median group's fall in held-out loss under which a group counts as left behind."""
    memorised_fall: float = 0.1
    """Training loss must fall by more than this, in nats, before memorising is spoken of."""
    memorised_share: float = 0.1
    """Held-out loss falls by less than this share of the training loss's fall: memorised."""
    ranked_groups: int = 3
    """Under this many ranked groups there is no early, middle or late."""

    def rules(self) -> list[dict[str, str]]:
        """Each verdict's rule in words, in the order in which they are tried."""
        return [
            {"verdict": "too few", "rule": f"under {self.few_pairs} pairs, or one class"},
            {
                "verdict": "noise",
                "rule": f"null p > {self.null_p} (adjusted for the number of groups, by Holm's method up to 250), "
                "or the held-out probe's 95 % interval reaches chance (the larger class's share)",
            },
            {
                "verdict": "giveaway",
                "rule": f"length alone tells chosen from rejected on ≥ {self.giveaway_accuracy} of held-out pairs "
                "(not asked of one-token answers)",
            },
            {
                "verdict": "trivial",
                "rule": f"held-out reward accuracy ≥ {self.trivial_accuracy}, and of the wording baseline too",
            },
            {
                "verdict": "conflicting",
                "rule": "priority < 0, or held-out loss ends above log 2 though alone it ends below; "
                "each by more than its standard error",
            },
            {
                "verdict": "left behind",
                "rule": f"held-out loss falls less than {self.left_behind_share:g} of the median group's fall "
                "by more than its standard error, though alone, in the same steps, it falls as far as that group did",
            },
            {
                "verdict": "memorised",
                "rule": f"training loss falls by more than {self.memorised_fall}, "
                f"held-out loss by less than {self.memorised_share:g} of that by more than its standard error",
            },
            {
                "verdict": "early · middle · late",
                "rule": "thirds of the predicted rank: area under the held-out loss, smallest first "
                f"(under {self.ranked_groups} groups: learned)",
            },
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rules look at, for one group. NaN: could not be measured; a rule that needs the number is skipped."""

    name: str
    pairs: int
    one_class: bool
    """A two-answer group whose pairs all choose the same answer."""
    null_p: float
    """Adjusted for the number of groups."""
    probe_low: float
    """Lower end of the held-out probe's 95 % interval."""
    probe_chance: float
    held_out_accuracy: float
    """Held-out reward accuracy at the end of the joint run."""
    words_accuracy: float
    """Held-out accuracy of word counts alone."""
    priority: float
    priority_error: float
    """Standard error of the priority over the group's training pairs."""
    train_loss: float
    held_out_loss: float
    held_out_loss_error: float
    """Standard error of the held-out loss."""
    alone_held_out_loss: float
    rank: float
    """Position among the ranked groups, 1 = first learned; NaN where not ranked."""
    length_accuracy: float = math.nan
    """Held-out accuracy of length alone; NaN for one-token answers, which have none to compare."""
    probe_accuracy: float = math.nan
    """Held-out accuracy of the probe, shown beside that of length."""
    opposed_by: tuple[str, ...] = ()
    """Groups whose first step pushes this one's margin down, strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict with its reason and what to do about it."""

    name: str
    verdict: Verdict
    because: str
    advice: str


ADVICE: dict[Verdict, str] = {
    "too few": "No claim is made; add pairs.",
    "noise": "The labels look random to this model: check them, the prompt and the model.",
    "giveaway": "Length will be learned, whatever else is: match the lengths of the two sides, or use an objective "
    "that controls for length or averages over tokens.",
    "trivial": "Words alone decide; expect saturation and little learned.",
    "conflicting": "Others push it the wrong way: look at which, and at the pairs most at odds.",
    "left behind": "Learnable but crowded out: give it more weight, more pairs or more steps.",
    "memorised": "Descent fits the pairs, not the preference: more data, fewer steps.",
    "early": "Expect it among the first to be learned in a joint run.",
    "middle": "Expect it to follow the first groups in a joint run.",
    "late": "Expect it last among the learned; stopping early costs it most.",
    "learned": "Expect the joint run to learn it.",
}


def judge(evidence: Sequence[Evidence], thresholds: Thresholds | None = None) -> tuple[Judgement, ...]:
    """One judgement per group, in the order given.

    The median group's fall is taken over the groups whose held-out loss is known.

    Example:
        >>> few = Evidence(name="rare", pairs=7, one_class=False, null_p=0.001, probe_low=0.6, probe_chance=0.5,
        ...     held_out_accuracy=0.9, words_accuracy=0.7, priority=0.5, priority_error=0.1, train_loss=0.5,
        ...     held_out_loss=0.6, held_out_loss_error=0.01, alone_held_out_loss=0.5, rank=1)
        >>> judge([few])[0].verdict
        'too few'
    """
    limits = thresholds or Thresholds()
    falls = sorted(LOG2 - item.held_out_loss for item in evidence if not math.isnan(item.held_out_loss))
    median = math.nan if not falls else (falls[(len(falls) - 1) // 2] + falls[len(falls) // 2]) / 2
    ranked = sum(not math.isnan(item.rank) for item in evidence)
    return tuple(_judge_one(item, limits, median, ranked) for item in evidence)


def _judge_one(item: Evidence, limits: Thresholds, median: float, ranked: int) -> Judgement:
    verdict, because = _first_rule(item, limits, median, ranked)
    advice = ADVICE[verdict]
    if verdict == "conflicting" and item.opposed_by:
        advice += f" Strongest against it: {', '.join(item.opposed_by[:3])}."
    return Judgement(name=item.name, verdict=verdict, because=because, advice=advice)


def _first_rule(item: Evidence, limits: Thresholds, median: float, ranked: int) -> tuple[Verdict, str]:
    # Comparisons with NaN are false, so a rule whose number could not be measured never fires.
    fall = LOG2 - item.held_out_loss
    alone_fall = LOG2 - item.alone_held_out_loss
    train_fall = LOG2 - item.train_loss
    error = item.held_out_loss_error
    if item.pairs < limits.few_pairs:
        return "too few", f"only {item.pairs} pairs, under {limits.few_pairs}"
    if item.one_class:
        return "too few", f"all {item.pairs} pairs choose the same answer"
    if item.null_p > limits.null_p:
        probe = f", though a linear probe does better than chance (from {item.probe_low:.2f})"
        return "noise", (
            f"shuffled labels give as large a mean gap: adjusted p {item.null_p:.2g} > {limits.null_p}"
            f"{probe if item.probe_low > item.probe_chance else ''}"
        )
    if item.probe_low <= item.probe_chance:
        return "noise", (
            f"the held-out probe's 95 % interval starts at {item.probe_low:.3f} and so reaches chance, "
            f"{item.probe_chance:.3f}"
        )
    if item.length_accuracy >= limits.giveaway_accuracy:
        probe = "" if math.isnan(item.probe_accuracy) else f", the probe of the model on {item.probe_accuracy:.3f}"
        return "giveaway", (
            f"length alone tells chosen from rejected on {item.length_accuracy:.3f} of held-out pairs{probe}"
        )
    if item.held_out_accuracy >= limits.trivial_accuracy and item.words_accuracy >= limits.trivial_accuracy:
        return "trivial", (
            f"held-out accuracy {item.held_out_accuracy:.3f}, and {item.words_accuracy:.3f} from word counts alone"
        )
    if item.priority < -item.priority_error:
        return "conflicting", (
            f"its priority is {item.priority:.3f} ± {item.priority_error:.2g}: the first joint step raises its loss"
        )
    if item.held_out_loss > LOG2 + error and item.alone_held_out_loss < LOG2:
        return "conflicting", (
            f"held-out loss ends at {item.held_out_loss:.4f}, above log 2 = {LOG2:.4f} by more than its standard error "
            f"{error:.2g}, though alone it ends at {item.alone_held_out_loss:.4f}"
        )
    if median > 0 and fall + error < limits.left_behind_share * median and alone_fall >= median:
        return "left behind", (
            f"held-out loss falls by {fall:.4f} ± {error:.2g}, under {limits.left_behind_share:g} of the median "
            f"group's {median:.4f}, though alone it falls by {alone_fall:.4f}"
        )
    if train_fall > limits.memorised_fall and fall + error < limits.memorised_share * train_fall:
        return "memorised", (
            f"training loss falls by {train_fall:.4f}, held-out loss by {fall:.4f} ± {error:.2g}, "
            f"under {limits.memorised_share:g} of that"
        )
    if ranked < limits.ranked_groups or math.isnan(item.rank):
        return "learned", f"in the joint run {_moves(fall)}"
    third = min(2, int(3 * (item.rank - 1) / ranked))
    name: Verdict = ("early", "middle", "late")[third]
    return name, f"ranks {item.rank:g} of {ranked} by area under its loss; {_moves(fall)}"


def _moves(fall: float) -> str:
    if math.isnan(fall):
        return "no pair of it is held out"
    return f"held-out loss falls by {fall:.4f}" if fall > 0 else f"held-out loss does not fall: it rises by {-fall:.4f}"
