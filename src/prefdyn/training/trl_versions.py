"""Which TRL the plug-in works with, checked before a line of TRL is imported."""

import importlib
import importlib.metadata
from dataclasses import fields
from typing import Any

from packaging.version import InvalidVersion, Version

from prefdyn.errors import MissingExtra

WORKS_WITH = ((1, 15), (1, 16))
"""Releases of TRL whose own forward hands out `log_probs`, and against which the tests have been run.

Up to 1.14 DPOTrainer forms the whole logits and keeps the log-probabilities to itself."""

_INSTALL = "pip install 'trl>=1.15,<1.17'"


def require_trl() -> Any:
    """DPOTrainer of the installed TRL.

    Raises:
        MissingExtra: TRL is not installed, is a release that the plug-in was not tested with, or lacks what it reads.
    """
    try:
        installed = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(f"the TRL plug-in needs TRL, which is not installed: {_INSTALL}") from error
    known = " and ".join(f"{major}.{minor}" for major, minor in WORKS_WITH)
    if _release(installed) not in WORKS_WITH:
        raise MissingExtra(f"TRL {installed} is installed, but the plug-in works with {known} alone: {_INSTALL}")
    trainer = importlib.import_module("trl").DPOTrainer
    if missing := _missing(trainer):
        raise MissingExtra(
            f"the installed TRL calls itself {installed} but lacks {missing}, which the plug-in reads; "
            f"it works with the releases {known} as published: {_INSTALL}"
        )
    return trainer


def _release(version: str) -> tuple[int, ...]:
    try:
        return Version(version).release[:2]
    except InvalidVersion:
        return ()


def _missing(trainer: Any) -> str | None:
    """What the plug-in reads of TRL and does not find; None where all is there."""
    output = getattr(importlib.import_module("trl.trainer.utils"), "FusedCausalLMOutput", None)
    if output is None or "log_probs" not in {field.name for field in fields(output)}:
        return "log_probs in the output of the model's forward"
    wanted = ("compute_loss", "compute_ref_log_probs", "evaluation_loop", "_set_signature_columns_if_needed")
    lacking = [name for name in (*wanted, "_precompute_ref_logps") if not callable(getattr(trainer, name, None))]
    return f"DPOTrainer.{lacking[0]}" if lacking else None
