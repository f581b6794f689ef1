"""SHOWING: tables, figures and one HTML page, made from output folders alone. Computes nothing from models or texts.

Names load on first use, so that reading a folder needs no drawing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefdyn.picture import Layer, Picture
    from prefdyn.report.curves import curves_of
    from prefdyn.report.figures import figure_of, write_figures
    from prefdyn.report.folders import RunFolder, read_folder, run_of
    from prefdyn.report.html import write_report
    from prefdyn.report.panels import pictures
    from prefdyn.report.tables import verdict_sentence, verdict_table

__all__ = [
    "Layer",
    "Picture",
    "RunFolder",
    "curves_of",
    "figure_of",
    "pictures",
    "read_folder",
    "run_of",
    "verdict_sentence",
    "verdict_table",
    "write_figures",
    "write_report",
]

_HOMES = {
    "Layer": "prefdyn.picture",
    "Picture": "prefdyn.picture",
    "RunFolder": "prefdyn.report.folders",
    "curves_of": "prefdyn.report.curves",
    "figure_of": "prefdyn.report.figures",
    "pictures": "prefdyn.report.panels",
    "read_folder": "prefdyn.report.folders",
    "run_of": "prefdyn.report.folders",
    "verdict_sentence": "prefdyn.report.tables",
    "verdict_table": "prefdyn.report.tables",
    "write_figures": "prefdyn.report.figures",
    "write_report": "prefdyn.report.html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
