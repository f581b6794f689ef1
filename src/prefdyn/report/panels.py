"""What each kind of page holds and in which order: the one place that says so, for the page and its figure files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prefdyn.picture import Picture
from prefdyn.report import compare, curves, diagnosis, responses
from prefdyn.report.folders import RunFolder
from prefdyn.report.forecast import forecast_drawings
from prefdyn.report.grid import grid_drawings
from prefdyn.report.many import drawn
from prefdyn.report.plan_data import data_drawings
from prefdyn.report.proved import drawings
from prefdyn.report.training import training_drawings


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A section of pictures."""

    id: str
    heading: str
    pictures: Mapping[str, Callable[[RunFolder], Picture | None]]
    """What draws each, by what it is called where it was not measured."""
    told: Callable[[RunFolder], bool] = field(default=lambda _: True)
    """Whether the page says which of them were not measured."""
    note: str = ""
    """What is said below instead."""

    def drawn(self, run: RunFolder) -> list[Picture | None]:
        """Its pictures of this folder, None for each that was not measured."""
        return [draw(run) for draw in self.pictures.values()]

    def absent(self, run: RunFolder, found: Sequence[Picture | None]) -> str:
        """What the page says of those that were not measured; empty where it says nothing."""
        if not run.groups or not self.told(run):
            return ""
        if self.note:
            return self.note
        lost = [words.format(run.said) for words, panel in zip(self.pictures, found, strict=True) if panel is None]
        return f"Not measured in this run: {', '.join(lost)}." if lost else ""


def _audited(run: RunFolder) -> bool:
    return run.kind == "audit"


CHAPTERS: Mapping[str, Chapter] = {
    "curves": Chapter(id="curves", heading="Learning curves", pictures={"learning curves": curves.loss_curves}),
    "apart": Chapter(
        id="apart",
        heading="What the model tells apart",
        pictures={"distinguishability": diagnosis.distinguishability, "the held-out probe": diagnosis.probe},
        told=_audited,
    ),
    "first": Chapter(
        id="first",
        heading="What comes first",
        pictures={
            "priorities": diagnosis.priority,
            "the comparison with the predicted order (it needs three groups)": diagnosis.order,
        },
        told=_audited,
    ),
    "trained-order": Chapter(
        id="first",
        heading="What comes first",
        pictures={"the order of learning": diagnosis.trained_order},
        told=lambda _: False,
    ),
    "together": Chapter(
        id="together",
        heading="Groups and each other",
        pictures={
            "cosines between groups": diagnosis.cosine,
            "influence between groups": diagnosis.influence,
            "the picture of the pairs": diagnosis.embedding,
        },
        told=_audited,
    ),
    "pairs": Chapter(
        id="together",
        heading="The pairs",
        pictures={"the picture of the pairs": diagnosis.embedding},
        told=_audited,
        note="There is one group, so nothing is said about an order or about groups and each other. With a group "
        "column, or several sources, there is.",
    ),
    "head": Chapter(
        id="head",
        heading="First step and exact training",
        pictures={
            "the first step's push on both responses": responses.first_step,
            "exact training of the head on a sample of pairs": responses.exact_training,
            "what exact training does to chosen and rejected apart": responses.exact_log_probs,
        },
        told=lambda run: run.responses and _audited(run),
    ),
    "probabilities": Chapter(
        id="probabilities",
        heading="Margins and probabilities",
        pictures={
            "margins": curves.margin_curves,
            "accuracies": curves.accuracy_curves,
            "log-probabilities (these features carry no reference log-probabilities)": curves.log_prob_curves,
            "the share of falling chosen {}s": curves.chosen_falling,
        },
    ),
    "weights": Chapter(
        id="weights",
        heading="Weights, gradients and states",
        pictures={
            "gradients per group": curves.gradient_norm,
            "what becomes of the states (they stay as they are where the head alone is trained)": curves.state_curves,
        },
    ),
    "odds": Chapter(id="odds", heading="Pairs at odds", pictures={"agreement": diagnosis.agreement}),
    "compared": Chapter(
        id="compared",
        heading="Two runs side by side",
        pictures={
            "the order of learning": compare.order_places,
            "distinguishability": compare.distinguishability,
            "spread": compare.spread,
        },
    ),
}
"""Charts of groups by the name of their section; the last two have words of their own."""

DRAWINGS: Mapping[str, Callable[[RunFolder], list[Picture]]] = {
    "proved": drawings,
    "grid": grid_drawings,
    "forecast": forecast_drawings,
    "compared": compare.compare_drawings,
    "weights": training_drawings,
    "plan_data": data_drawings,
}
"""Other pictures, by the name of their section."""

_DIAGNOSED = ("apart", "first", "together", "head", "probabilities")
_LAST = ("odds", "findings", "says", "settings")
PAGES: Mapping[str, tuple[str, ...]] = {
    "audit": ("groups", "real_run", "curves", *_DIAGNOSED, "proved", *_LAST),
    "simulate": ("groups", "curves", "reading", *_DIAGNOSED, "proved", *_LAST),
    "bounds": ("proved", "groups", "curves", *_DIAGNOSED, *_LAST),
    "train": ("groups", "curves", "reading", "trained-order", "probabilities", "weights", "proved", "settings"),
    "grid": ("grid", "proved", "settings"),
    "comparison": ("compared", "settings"),
    "field": ("proved", "settings"),
    "forecast": ("forecast", "settings"),
    "plan": ("plan", "plan_weights", "plan_data", "plan_select", "plan_settings", "plan_undo", "settings"),
}
"""Sections of a page by the kind of its folder, from first to last; those without anything to show are left out."""
_OTHER = ("groups", "curves", *_DIAGNOSED, "proved", *_LAST)
_ALONE = ("apart", "pairs", "head", "probabilities")
ONE_GROUP: Mapping[str, tuple[str, ...]] = {
    "audit": ("groups", "findings", "slices", "odds", "curves", *_ALONE, "proved", "says", "settings"),
    "simulate": ("groups", "findings", "odds", "curves", "reading", *_ALONE, "proved", "says", "settings"),
    "bounds": ("proved", "groups", "findings", "odds", "curves", *_ALONE, "says", "settings"),
}
"""The same where there is one group: single pairs lead, and nothing is said of an order."""


OF_GROUP = (
    "groups",
    "curves",
    "own",
    "odds",
    "findings",
    "apart",
    "head",
    "probabilities",
    "proved",
    "says",
    "settings",
)
"""The same on the page of one group of several."""
LEADING = frozenset({"groups", "real_run", "curves", "findings"})
"""Sections of a page with answers that are open; what else it has is folded below, as appendices."""


def sections(run: RunFolder) -> tuple[str, ...]:
    """Names of the sections that the page of this folder can have, in order."""
    if run.group is not None:
        return OF_GROUP
    one = ONE_GROUP if len(run.groups) == 1 else PAGES
    return one.get(run.kind) or PAGES.get(run.kind, _OTHER)


def panels(run: RunFolder) -> list[Picture]:
    """Every panel that this folder has numbers for, in the order of the page.

    Args:
        run: A folder read by `read_folder`.

    Returns:
        Panels. One whose numbers are missing, or that means nothing for a single group, is left out. With very many
        groups they show those that `drawn` keeps.
    """
    if not run.groups:
        return []
    run = drawn(run)
    chapters = [CHAPTERS[name] for name in sections(run) if name in CHAPTERS]
    return [panel for chapter in chapters for panel in chapter.drawn(run) if panel is not None]


def pictures(run: RunFolder) -> list[Picture]:
    """Everything that is drawn of this folder, for its files: charts of groups, then all other pictures."""
    return [*panels(run), *(each for name in sections(run) if name in DRAWINGS for each in DRAWINGS[name](run))]
