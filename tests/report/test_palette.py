"""Colours: marks and text stand out on light and dark, and colours stay apart for readers with a colour deficiency."""

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

from prefdyn.report.palette import GROUPS, VERDICTS

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.793617785, -0.0040720468],
        [1.9779984951, -2.428592205, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.808675766],
    ]
)
CSS = (files("prefdyn.report") / "templates" / "report.css").read_text(encoding="utf-8")


def linear(colour):
    if len(colour) == 4:
        colour = "#" + "".join(2 * digit for digit in colour[1:])
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    """WCAG 2 contrast ratio."""
    low, high = sorted(float(np.dot([0.2126, 0.7152, 0.0722], linear(colour))) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def apart(colours, deficiency):
    """Smallest distance of any two colours, in 100 × OKLab, as seen with the deficiency."""
    seen = [np.clip(np.array(DEFICIENCIES[deficiency]) @ linear(colour), 0, 1) for colour in colours]
    places = [TO_LAB @ np.cbrt(TO_CONES @ colour) for colour in seen]
    return min(100 * float(np.linalg.norm(a - b)) for a, b in itertools.combinations(places, 2))


def tokens(side):
    """The colours of text and surfaces that the page's style sheet sets."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    found = {}
    for block in blocks[:1] if side == "light" else blocks[:2]:
        found |= dict(re.findall(r"--([a-z]+): (#[0-9a-f]+);", block))
    return found


def test_the_measure_knows_what_a_deficiency_hides():
    assert apart(["#00ff00", "#00ff00"], "none") == 0
    assert apart(["#c08a00", "#7fa83c"], "deutan") < 5 < 10 < apart(["#c08a00", "#7fa83c"], "none")
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("side", ["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_colours_of_a_page_with_many_groups_stay_apart(side, deficiency):
    assert apart([getattr(shade, side) for shade in GROUPS[:8]], deficiency) > 8


@pytest.mark.parametrize("side", ["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_verdicts_differ_in_shape_or_clearly_in_colour(side, deficiency):
    looks = [item for name, item in VERDICTS.items() if name != "learned"]  # never beside early, middle and late
    for first, second in itertools.combinations(looks, 2):
        alike = (first.shape, first.filled) == (second.shape, second.filled)
        colours = [getattr(first.shade, side), getattr(second.shade, side)]
        assert apart(colours, deficiency) > (12 if alike else 6), (first.key, second.key)


@pytest.mark.parametrize("side", ["light", "dark"])
def test_lines_and_text_stand_out(side):
    found = tokens(side)
    for shade in GROUPS:
        assert contrast(getattr(shade, side), found["card"]) >= 3
    for text in ("ink", "soft", "faint", "accent", "problem", "warning"):
        for surface in ("page", "card", "mid"):
            assert contrast(found[text], found[surface]) >= 4.5, (text, surface)
