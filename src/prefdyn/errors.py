"""What can go wrong, and what a caller can catch.

PrefdynError
├── DataError (ValueError)         a row, label or shape that cannot mean what was asked
│   └── TokenError                 an answer that is not one token of this model
├── ConfigError (ValueError)       an unknown or out-of-range setting; names the nearest known one
├── ModelError (RuntimeError)      a model that cannot be read, or whose head the theory does not cover
├── TrainingError (RuntimeError)   a run that cannot go on, such as one whose loss is no longer finite
├── StoreError (RuntimeError)      a file or folder that cannot be written, read back or believed
├── ProcessError (RuntimeError)    another process of the same launch failed, died, fell silent or never came
└── MissingExtra (ImportError)     an optional library that is not installed; says what to install

Every message says what is wrong, the value, the place and what to do. The command line and a notebook print it as one
line.
"""


class PrefdynError(Exception):
    """Root of every error that prefdyn raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of the traceback, which says nothing of what is wrong; `%debug` still has it."""
        return [f"{type(self).__name__}: {self}"]


class DataError(PrefdynError, ValueError):
    """A row, label, array or shape that cannot mean what was asked."""


class TokenError(DataError):
    """An answer that is not a single token of the model at hand."""


class ConfigError(PrefdynError, ValueError):
    """A setting that is unknown or out of range."""


class ModelError(PrefdynError, RuntimeError):
    """A model that cannot be read, or whose head the theory does not cover."""


class TrainingError(PrefdynError, RuntimeError):
    """A training run that cannot go on."""


class StoreError(PrefdynError, RuntimeError):
    """A file or folder that cannot be written, read back or believed."""


class ProcessError(PrefdynError, RuntimeError):
    """Another process of the same launch failed, died, fell silent or never came."""


class MissingExtra(PrefdynError, ImportError):
    """An optional library that is not installed."""
