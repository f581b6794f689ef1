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
line. It is written with flags (`--batch-size`); in Python it names what a caller passes (`batch_size`).
"""

import re

_SWITCHES = ("eos", "flip", "force", "gradient_checkpointing", "resume", "skip_bad_rows", "trust_remote_code")
_CALLED = {"split": "data.split()", "target": "targets", "no_worse": "slack"}
"""What is no keyword of the same name in Python."""
_COMMAND = re.compile(r"(`(?!--)[^`]*`)")
_FLAG = re.compile(r"(?<![\w\-])--([a-z][a-z-]*[a-z])( out\b| True\b| False\b)?")


def in_python(text: str) -> str:
    """A message with keywords in place of flags; a command line between backticks stays one.

    Example:
        >>> in_python("take --batch-size 4, add --force, or leave --eos out; `prefdyn score --eos` works")
        'take batch_size 4, add force=True, or leave eos out; `prefdyn score --eos` works'
    """
    parts = _COMMAND.split(text)
    return "".join(part if place % 2 else _FLAG.sub(_keyword, part) for place, part in enumerate(parts))


def _keyword(found: re.Match[str]) -> str:
    name, rest = found[1].replace("-", "_"), found[2] or ""
    name = _CALLED.get(name, name)
    if name.removeprefix("no_") in _SWITCHES and not rest:
        return f"{name.removeprefix('no_')}={not name.startswith('no_')}"
    return name + rest


class PrefdynError(Exception):
    """Root of every error that prefdyn raises on purpose."""

    def __str__(self) -> str:
        return in_python(self.typed)

    @property
    def typed(self) -> str:
        """The message as the command line prints it, and as another message quotes it."""
        return super().__str__()

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
