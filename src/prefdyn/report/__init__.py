"""SHOWING: tables, figures and one HTML page, made from output folders alone. Computes nothing from models or texts."""

from prefdyn.picture import Layer, Picture
from prefdyn.report.curves import curves_of
from prefdyn.report.figures import figure_of, write_figures
from prefdyn.report.folders import RunFolder, read_folder, run_of
from prefdyn.report.html import write_report
from prefdyn.report.panels import panels, pictures
from prefdyn.report.tables import verdict_sentence, verdict_table

__all__ = [
    "Layer",
    "Picture",
    "RunFolder",
    "curves_of",
    "figure_of",
    "panels",
    "pictures",
    "read_folder",
    "run_of",
    "verdict_sentence",
    "verdict_table",
    "write_figures",
    "write_report",
]
