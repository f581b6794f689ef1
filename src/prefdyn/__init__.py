"""prefdyn: how preference optimisation (DPO and its relatives) will learn your data.

Three nouns, `PreferenceDataset → FeatureSet → Trajectory`; verbs are functions. Names load on first use, so importing
the package costs nothing.

    import prefdyn as pdy

    print(pdy.audit("builtin"))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefdyn.data.loaders import load_dataset
    from prefdyn.data.pairs import PreferenceDataset
    from prefdyn.data.preflight import preflight
    from prefdyn.diagnostics.orthogonality import orthogonality
    from prefdyn.diagnostics.prioritization import prioritization
    from prefdyn.diagnostics.separation import separation
    from prefdyn.diagnostics.wording import wording
    from prefdyn.dynamics.adjoint import sensitivity
    from prefdyn.dynamics.compare import compare
    from prefdyn.dynamics.descent import descent
    from prefdyn.dynamics.flow import flow
    from prefdyn.dynamics.pair_statistics import pair_statistics
    from prefdyn.dynamics.sweep import sweep
    from prefdyn.experiments.reproduce import run_recipe
    from prefdyn.features import FeatureSet
    from prefdyn.maths.objectives import DPO
    from prefdyn.models.extract import extract
    from prefdyn.models.score import score
    from prefdyn.planning.audit import audit
    from prefdyn.planning.check import check
    from prefdyn.planning.data import plan_data
    from prefdyn.planning.forecast import forecast
    from prefdyn.planning.select import plan_select
    from prefdyn.planning.settings import plan_settings
    from prefdyn.planning.undo import plan_undo
    from prefdyn.planning.weights import plan_weights
    from prefdyn.report.html import write_report
    from prefdyn.theory.bounds import bounds
    from prefdyn.training.train import train
    from prefdyn.trajectory import Trajectory

__all__ = [
    "DPO",
    "FeatureSet",
    "PreferenceDataset",
    "Trajectory",
    "audit",
    "bounds",
    "check",
    "compare",
    "descent",
    "extract",
    "flow",
    "forecast",
    "pair_statistics",
    "sweep",
    "load_dataset",
    "orthogonality",
    "plan_data",
    "plan_select",
    "plan_settings",
    "plan_undo",
    "plan_weights",
    "preflight",
    "prioritization",
    "run_recipe",
    "score",
    "sensitivity",
    "separation",
    "train",
    "wording",
    "write_report",
]

_HOMES = {
    "DPO": "prefdyn.maths.objectives",
    "FeatureSet": "prefdyn.features",
    "PreferenceDataset": "prefdyn.data.pairs",
    "Trajectory": "prefdyn.trajectory",
    "audit": "prefdyn.planning.audit",
    "bounds": "prefdyn.theory.bounds",
    "check": "prefdyn.planning.check",
    "compare": "prefdyn.dynamics.compare",
    "descent": "prefdyn.dynamics.descent",
    "extract": "prefdyn.models.extract",
    "flow": "prefdyn.dynamics.flow",
    "forecast": "prefdyn.planning.forecast",
    "pair_statistics": "prefdyn.dynamics.pair_statistics",
    "sweep": "prefdyn.dynamics.sweep",
    "load_dataset": "prefdyn.data.loaders",
    "orthogonality": "prefdyn.diagnostics.orthogonality",
    "plan_data": "prefdyn.planning.data",
    "plan_select": "prefdyn.planning.select",
    "plan_settings": "prefdyn.planning.settings",
    "plan_undo": "prefdyn.planning.undo",
    "plan_weights": "prefdyn.planning.weights",
    "preflight": "prefdyn.data.preflight",
    "prioritization": "prefdyn.diagnostics.prioritization",
    "run_recipe": "prefdyn.experiments.reproduce",
    "score": "prefdyn.models.score",
    "sensitivity": "prefdyn.dynamics.adjoint",
    "separation": "prefdyn.diagnostics.separation",
    "train": "prefdyn.training.train",
    "wording": "prefdyn.diagnostics.wording",
    "write_report": "prefdyn.report.html",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("prefdyn")
    if name not in _HOMES:
        raise AttributeError(f"module 'prefdyn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
