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
    Shade(light="#2a78d6", dark="#4a93ea"),
    Shade(light="#e2622c", dark="#e06a38"),
    Shade(light="#1a9e70", dark="#1fa87a"),
    Shade(light="#5646b8", dark="#9a8ff0"),
    Shade(light="#c98a00", dark="#d29922"),
    Shade(light="#d65a8c", dark="#db6395"),
    Shade(light="#0a7a2f", dark="#3f9e55"),
    Shade(light="#cf3f3f", dark="#ea7070"),
    Shade(light="#1287a8", dark="#3aa9cb"),
    Shade(light="#8a5a2b", dark="#b98a5c"),
    Shade(light="#74841b", dark="#a1b33f"),
    Shade(light="#58697a", dark="#8fa0b0"),
)
"""As many groups as can still be told apart by colour; with more, the telling ones are coloured and the rest grey."""

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
    "middle": Look(key="middle", shade=Shade(light="#3f86dc", dark="#5f9fea"), means="in the middle third"),
    "late": Look(key="late", shade=Shade(light="#8dbaf0", dark="#2d6cbd"), means="in the last third of the learned"),
    "learned": Look(key="learned", shade=Shade(light="#2a78d6", dark="#4a93ea"), means="the joint run learns it"),
    "left behind": Look(
        key="left", shade=Shade(light="#e2622c", dark="#e06a38"), means="learnable alone, crowded out together"
    ),
    "conflicting": Look(
        key="conflicting", shade=Shade(light="#c93434", dark="#ea7070"), means="the others push it the wrong way"
    ),
    "memorised": Look(
        key="memorised", shade=Shade(light="#5646b8", dark="#9a8ff0"), means="fits its pairs, not the preference"
    ),
    "trivial": Look(key="trivial", shade=Shade(light="#1a9e70", dark="#1fa87a"), means="words alone decide it"),
    "noise": Look(
        key="noise", shade=Shade(light="#85847e", dark="#97968f"), means="its labels look random to this model"
    ),
    "too few": Look(key="few", shade=Shade(light="#bdbcb5", dark="#666560"), means="no claim is made"),
}
"""In the order in which counts are told: from what goes well to what no claim is made about."""

UNKNOWN = Look(key="unknown", shade=Shade(light="#85847e", dark="#97968f"), means="")

ATTENTION = (
    "conflicting",
    "left behind",
    "memorised",
    "noise",
    "trivial",
    "too few",
    "late",
    "middle",
    "early",
    "learned",
)
"""Verdicts by how much they ask of the reader."""

AGAINST = Shade(light="#b23a2e", dark="#f08a78")
"""Below zero in heat maps."""
TOWARDS = Shade(light="#1f62b5", dark="#6fa9f2")
"""Above zero in heat maps."""


def look(verdict: str | None) -> Look:
    """How to show a verdict; a plain grey where it is not known."""
    return VERDICTS.get(verdict or "", UNKNOWN)
