"""Colours of groups and verdicts, on light and on dark, and what each verdict means in a line."""

from dataclasses import dataclass
from typing import Literal

Shape = Literal["round", "diamond", "down", "square", "up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shade:
    """One colour on a light and on a dark surface."""

    light: str
    dark: str


GROUPS: tuple[Shade, ...] = (
    Shade(light="#6145b0", dark="#4778e1"),
    Shade(light="#d4751a", dark="#b54401"),
    Shade(light="#00727a", dark="#1cefbe"),
    Shade(light="#273366", dark="#a1aef9"),
    Shade(light="#835900", dark="#ecda4a"),
    Shade(light="#c576cd", dark="#9e4799"),
    Shade(light="#60a17d", dark="#919c02"),
    Shade(light="#82000d", dark="#f06da1"),
    Shade(light="#3d5181", dark="#4fa8c3"),
    Shade(light="#79404e", dark="#eb947b"),
    Shade(light="#5d7d4d", dark="#d4af1f"),
    Shade(light="#3274bd", dark="#4e805f"),
)
"""As many groups as can still be told apart by colour; with more, the telling ones are coloured and the rest grey.

The first eight, which are all that a page with many groups uses, also stay apart for readers who see no difference
between red and green, or blue and yellow (distance of at least 8 in 100 × OKLab under each simulated deficiency)."""

MOST_COLOURED = len(GROUPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a verdict is shown."""

    key: str
    """Part of a CSS class name."""
    shade: Shade
    means: str
    shape: Shape = "round"
    """Of its marks, so that verdicts can be told apart without colour."""
    filled: bool = True


VERDICTS: dict[str, Look] = {
    "early": Look(
        key="early", shade=Shade(light="#174f99", dark="#a9ccf7"), means="among the first third to be learned"
    ),
    "early or middle": Look(
        key="earlymid",
        shade=Shade(light="#223664", dark="#d0e2f3"),
        means="before the last third; where is open",
        filled=False,
    ),
    "middle": Look(key="middle", shade=Shade(light="#3f86dc", dark="#5f9fea"), means="in the middle third"),
    "late": Look(key="late", shade=Shade(light="#8dbaf0", dark="#2d6cbd"), means="in the last third of the learned"),
    "middle or late": Look(
        key="midlate",
        shade=Shade(light="#0362da", dark="#7bb7fa"),
        means="after the first third; where is open",
        shape="square",
        filled=False,
    ),
    "not told apart": Look(
        key="apart",
        shade=Shade(light="#16a7dc", dark="#7379f3"),
        means="its place in the order is open",
        shape="up",
        filled=False,
    ),
    "learned": Look(key="learned", shade=Shade(light="#2a78d6", dark="#4a93ea"), means="the joint run learns it"),
    "left behind": Look(
        key="left",
        shade=Shade(light="#d9691a", dark="#e19c1e"),
        means="learnable alone, crowded out together",
        shape="diamond",
    ),
    "conflicting": Look(
        key="conflicting",
        shade=Shade(light="#8f2626", dark="#d9694c"),
        means="the others push it the wrong way",
        shape="down",
    ),
    "memorised": Look(
        key="memorised",
        shade=Shade(light="#c45fb0", dark="#b577bd"),
        means="fits its pairs, not the preference",
        shape="square",
    ),
    "giveaway": Look(
        key="giveaway",
        shade=Shade(light="#886000", dark="#f2e24a"),
        means="length alone tells chosen from rejected",
        shape="square",
        filled=False,
    ),
    "trivial": Look(
        key="trivial", shade=Shade(light="#7f9e62", dark="#3f7418"), means="words alone decide it", shape="up"
    ),
    "looks random": Look(
        key="random",
        shade=Shade(light="#6b6a66", dark="#97968f"),
        means="its labels look random to this model",
        filled=False,
    ),
    "cannot tell": Look(
        key="cannot",
        shade=Shade(light="#a9a8a0", dark="#777670"),
        means="too few prompts for a claim",
        shape="diamond",
        filled=False,
    ),
}
"""In the order in which counts are told: from what goes well to what no claim is made about."""

UNKNOWN = Look(key="unknown", shade=Shade(light="#85847e", dark="#97968f"), means="")

ATTENTION = (
    "conflicting",
    "left behind",
    "memorised",
    "giveaway",
    "looks random",
    "trivial",
    "cannot tell",
    "late",
    "middle or late",
    "not told apart",
    "middle",
    "early or middle",
    "early",
    "learned",
)
"""Verdicts by how much they ask of the reader."""

AGAINST = Shade(light="#b23a2e", dark="#f08a78")
"""Below zero in heat maps."""
TOWARDS = Shade(light="#1f62b5", dark="#6fa9f2")
"""Above zero in heat maps."""


ORDERED = ("early", "early or middle", "middle", "middle or late", "late", "not told apart", "learned")
"""Verdicts of groups that are learned."""

_FORMER = {"noise": "looks random", "too few": "cannot tell"}
"""Names in folders of earlier releases, by what they are called today."""


def look(verdict: str | None) -> Look:
    """How to show a verdict; a plain grey where it is not known."""
    name = verdict or ""
    return VERDICTS.get(_FORMER.get(name, name), UNKNOWN)
