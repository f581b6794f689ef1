"""SHOWING: tables, figures and one HTML page, made from output folders alone. Computes nothing from models or texts."""

from prefdyn.picture import Layer, Picture
from prefdyn.report.figures import write_figures
from prefdyn.report.folders import RunFolder, read_folder
from prefdyn.report.html import write_report
from prefdyn.report.panels import panels
from prefdyn.report.tables import verdict_sentence, verdict_table

__all__ = [
    "Layer",
    "Picture",
    "RunFolder",
    "panels",
    "read_folder",
    "verdict_sentence",
    "verdict_table",
    "write_figures",
    "write_report",
]
